package main

import (
	"context"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// checkpointView is a zone's checkpoint as JSON: what its members agreed on last.
type checkpointView struct {
	Zone        fcp.ZoneID `json:"zone"`
	Number      uint64     `json:"number"` // 0: none but genesis
	Ref         string     `json:"ref"`
	Signed      string     `json:"signed,omitempty"`
	Revocations uint64     `json:"revocations"`
	Policy      uint64     `json:"policy_version"`
	Members     int        `json:"members"` // who agree on the next one
	Fresh       bool       `json:"fresh"`   // young enough for risky operations
	Halted      string     `json:"halted,omitempty"`
}

func (a *app) viewCheckpoint(f *engine.ZoneFacts) checkpointView {
	c := &f.Checkpoint
	v := checkpointView{Zone: f.Zone, Number: c.Seq, Ref: c.Ref.String(), Members: len(c.Members()), Fresh: f.FreshFor(authority.TierRisky, a.now()).Checkpoint}
	if c.Last != nil {
		s := c.Last.Spec()
		v.Signed, v.Revocations, v.Policy = secondsText(s.At), s.Revocations.Seq, s.Policy.Version
	}
	if f.Halted != nil {
		v.Halted = f.Halted.Error()
	}
	return v
}

type checkpointOptions struct {
	identity     *identityOptions
	sign, settle bool
}

func (a *app) zoneCheckpointCommand() *cobra.Command {
	o := &checkpointOptions{}
	cmd := &cobra.Command{
		Use: "checkpoint [ZONE]", Short: "What a zone's members agreed on last; agree on the next", Args: args(0, 1),
		Long: `checkpoint shows each zone's checkpoint: the revocations, policy, keys and members that
its members agreed on. Tokens are bound to it, and where a zone has several members,
risky operations are refused when it is old. --sign signs the next one as this device,
which completes it where this device is the only member; --settle has the owner sign
in place of the members. What is kept and what may be dropped is another thing: see
` + "`fcpctl zone retain`.",
		Example:           "  fcpctl zone checkpoint z:private --settle --identity ~/fcp-identity",
		ValidArgsFunction: completeZones,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (o.sign || o.settle) && len(args) == 0 || o.sign && o.settle {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--sign or --settle, and a zone")
			}
			return a.withStore(cmd.Context(), openMode(o.sign || o.settle), func(e *engine.Engine) error {
				zones := e.Zones()
				if len(args) == 1 {
					id, err := fcp.ParseZoneID(args[0])
					if err != nil {
						return err
					}
					if zones = []fcp.ZoneID{id}; o.sign || o.settle {
						if err := a.agree(cmd.Context(), e, id, o); err != nil {
							return err
						}
					}
				}
				return a.listCheckpoints(e, zones)
			})
		},
	}
	o.identity = identityFlags(cmd, "identity file of the owner, for --settle")
	cmd.Flags().BoolVar(&o.sign, "sign", false, "sign the next one as this device")
	cmd.Flags().BoolVar(&o.settle, "settle", false, "sign the next one as the owner, in place of the members")
	return cmd
}

func (a *app) agree(ctx context.Context, e *engine.Engine, zone fcp.ZoneID, o *checkpointOptions) error {
	if o.settle {
		owner, err := a.ownerFor(o.identity, "settling a checkpoint")
		if err != nil {
			return err
		}
		defer owner.Wipe()
		_, err = e.SettleCheckpoint(ctx, owner, zone)
		return err
	}
	c, err := e.ProposeCheckpoint(zone)
	if err != nil {
		return err
	}
	_, err = e.AppendCheckpoint(ctx, c)
	if authority.ReasonOf(err) == authority.ReasonCheckpointQuorum {
		err = advise(err, fcp.CodeDenied, "this zone has several members; have the owner sign with --settle --identity FILE")
	}
	return err
}

func (a *app) listCheckpoints(e *engine.Engine, zones []fcp.ZoneID) error {
	l := a.list("Checkpoint", e.Position(), "ZONE", "NUMBER", "SIGNED", "REVOCATIONS", "POLICY", "MEMBERS", "FRESH", "REF")
	for _, z := range zones {
		f, err := e.ZoneFacts(z)
		if err != nil {
			return err
		}
		v := a.viewCheckpoint(f)
		fresh := "no"
		if v.Fresh {
			fresh = "yes"
		}
		if err := l.add(v, v.Zone.String(), v.Zone.String(), decimal(v.Number), v.Signed, decimal(v.Revocations), decimal(v.Policy), decimal(uint64(v.Members)), fresh, a.short(v.Ref)); err != nil {
			return err
		}
	}
	return l.end(e.Position())
}
