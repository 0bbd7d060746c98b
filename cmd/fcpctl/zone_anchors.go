package main

import (
	"encoding/base64"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// anchorView is one trust anchor as JSON.
type anchorView struct {
	Zone   fcp.ZoneID `json:"zone"`
	What   string     `json:"what"`
	Name   string     `json:"name"`
	Ref    string     `json:"ref,omitempty"`
	State  string     `json:"state"`
	From   string     `json:"from,omitempty"`
	Until  string     `json:"until,omitempty"`
	Detail string     `json:"detail,omitempty"`
	Signed string     `json:"signed,omitempty"` // base64 of the object as it was signed
	DryRun bool       `json:"dry_run,omitempty"`
}

func viewAnchor(zone fcp.ZoneID, x *engine.Anchor) anchorView {
	v := anchorView{Zone: zone, What: x.What, Name: x.Name, Ref: hashText(x.Ref), State: string(x.State), Detail: x.Detail,
		Signed: base64.StdEncoding.EncodeToString(x.Signed)}
	if !x.From.IsZero() {
		v.From = secondsText(x.From)
	}
	if !x.Until.IsZero() {
		v.Until = secondsText(x.Until)
	}
	return v
}

func (a *app) zoneAnchorsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "anchors ZONE", Short: "What everything permitted in a zone rests on, as it was signed", Args: args(1, 1),
		Long: `anchors lists the trust anchors of a zone: its genesis, definition and policy, who may
mint tokens, whom the owner delegated to, which keys are attested, which principals
act from which devices, roles and who has them. -o json has each object as it was
signed, for somebody who wants to check it.`,
		Example:           "  fcpctl zone anchors z:work -o json > anchors.json",
		ValidArgsFunction: completeZones,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := fcp.ParseZoneID(args[0])
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				anchors, err := e.Anchors(id)
				if err != nil {
					return err
				}
				l := a.list("Anchor", e.Position(), "WHAT", "NAME", "STATE", "UNTIL", "REF", "DETAIL")
				for i := range anchors {
					v := viewAnchor(id, &anchors[i])
					if err := l.add(v, v.Ref, v.What, a.short(v.Name), v.State, v.Until, a.short(v.Ref), v.Detail); err != nil {
						return err
					}
				}
				return l.end(e.Position())
			})
		},
	}
}

// act is one thing that the owner signs.
type act struct {
	identity *identityOptions
	dryRun   bool
	noun     string // what is signed, with its article
	what     string // of the anchor that it makes
}

// signCommand makes a command that signs an anchor: do signs and appends, and returns
// the ref of what it made. With a dry run check sees what was asked for.
func (a *app) signCommand(cmd *cobra.Command, o *act, do func(cmd *cobra.Command, e *engine.Engine, owner *authority.OwnerKey, args []string) (fcp.ZoneID, fcp.Hash, error)) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withStore(cmd.Context(), openMode(!o.dryRun), func(e *engine.Engine) error {
			owner, err := a.ownerFor(o.identity, o.noun)
			if err != nil {
				return err
			}
			defer owner.Wipe()
			if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
				return err
			}
			zone, ref, err := do(cmd, e, owner, args)
			if err != nil {
				return err
			}
			v := anchorView{Zone: zone, What: o.what, Ref: hashText(ref), DryRun: o.dryRun}
			if !o.dryRun {
				anchors, err := e.Anchors(zone)
				if err != nil {
					return err
				}
				for i := range anchors {
					if anchors[i].Ref == ref {
						v = viewAnchor(zone, &anchors[i])
						v.Signed = "" // `zone anchors` has it
					}
				}
			}
			err = a.record("Anchor", e.Position(), v, v.Ref, field{v.What, v.Ref}, field{"zone", v.Zone.String()}, field{"name", v.Name}, field{"state", v.State},
				field{"until", v.Until}, field{"says", v.Detail})
			if err == nil && o.dryRun {
				a.note("dry run: nothing was written")
			}
			return err
		})
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

// patternsOf are the patterns of a repeated flag, sorted and each once.
func patternsOf(list []string) authority.Patterns {
	var out authority.Patterns
	for _, p := range sortedOnce(list) {
		out = append(out, authority.Pattern(p))
	}
	return out
}

// rekeyView is a rotation as JSON.
type rekeyView struct {
	Zone    fcp.ZoneID `json:"zone"`
	Reason  string     `json:"reason"`
	Key     string     `json:"key,omitempty"` // id of the new zone key
	Version uint64     `json:"version,omitempty"`
	Holders int        `json:"holders"` // devices that it was sealed to, or would be
	DryRun  bool       `json:"dry_run,omitempty"`
}

func (a *app) zoneRekeyCommand() *cobra.Command {
	var (
		identity *identityOptions
		reason   string
		dryRun   bool
	)
	reasons := []string{string(authority.RotateRoutine), string(authority.RotateMemberRemoved), string(authority.RotateCompromise)}
	cmd := &cobra.Command{
		Use: "rekey ZONE", Short: "Replace a zone's keys", Args: args(1, 1),
		Long: `rekey makes new keys for a zone and seals them to the devices that hold it and were not
revoked; nobody else gets them. What was written before stays readable to whoever
could read it. routine keeps the key of object ids, so that equal content is still
stored once; the other reasons replace it too.`,
		Example:           "  fcpctl zone rekey z:work --reason compromise --identity ~/fcp-identity",
		ValidArgsFunction: completeZones,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !oneOf(reason, reasons) {
				return usagef("say one of "+strings.Join(reasons, ", "), "--reason %q", reason)
			}
			id, err := fcp.ParseZoneID(args[0])
			if err != nil {
				return err
			}
			return a.withStore(cmd.Context(), openMode(!dryRun), func(e *engine.Engine) error {
				owner, err := a.ownerFor(identity, "a new zone key")
				if err != nil {
					return err
				}
				defer owner.Wipe()
				if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
					return err
				}
				v := rekeyView{Zone: id, Reason: reason, DryRun: dryRun}
				if !dryRun {
					if err := e.RotateZoneKey(cmd.Context(), owner, id, authority.RotationReason(reason)); err != nil {
						return err
					}
				}
				m, err := e.NewestManifest(id)
				if err != nil {
					return err
				}
				v.Holders = len(m.Recipients()) - 1 // the owner's recovery key is always one
				if !dryRun {
					v.Key, v.Version = m.IDs().Zone.String(), m.Version()
				}
				return a.answer("Rekey", e.Position(), v, id.String(), field{"zone", id.String()}, field{"reason", reason}, field{"key", v.Key},
					field{"version", decimal(v.Version)}, field{"devices", decimal(uint64(v.Holders))})
			})
		},
	}
	identity = identityFlags(cmd, "identity file of the owner")
	cmd.Flags().StringVar(&reason, "reason", string(authority.RotateRoutine), "why: "+strings.Join(reasons, ", "))
	_ = cmd.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(reasons, cobra.ShellCompDirectiveNoFileComp))
	dryRunFlag(cmd, &dryRun)
	return cmd
}
