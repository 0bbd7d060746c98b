package main

import (
	"context"
	"encoding/hex"
	"os"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/engine"
	"fcp/node/api"
)

type revokeOptions struct {
	zone     string
	identity *identityOptions
	link     int
	reason   string
	dryRun   bool
	wait     time.Duration
}

// revocationView is what was revoked, as JSON.
type revocationView struct {
	Ref    string     `json:"ref,omitempty"` // of the revocation
	Zone   fcp.ZoneID `json:"zone"`
	Scope  string     `json:"scope"`
	Target string     `json:"target"`
	Reason string     `json:"reason"`
	DryRun bool       `json:"dry_run,omitempty"`

	Arrived map[string]float64 `json:"arrived_ms,omitempty"` // by member: after how many milliseconds it was there
}

func (a *app) capRevokeCommand() *cobra.Command {
	o := &revokeOptions{}
	cmd := &cobra.Command{
		Use: "revoke TOKENFILE|TOKENID|GRANT", Short: "Withdraw a token or a grant and everything below it", Args: args(1, 1),
		Long: `revoke signs, as the owner, that a token or a grant counts no more, and neither does
anything that was made from it. A token is named by its file, by its id (32 hex
digits), or by its file and --link: 1 is the token a node minted, the next ones are
what holders made of it; the default is the last. A grant is named by the first
digits of its ref.`,
		Example:           "  fcpctl cap revoke notes.token --identity ~/fcp-identity --reason 'laptop sold'",
		ValidArgsFunction: a.completeGrants,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAny(cmd.Context(), openMode(!o.dryRun), func(e api.Store) error { return a.revoke(cmd.Context(), e, o, args[0]) })
		},
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	f := cmd.Flags()
	f.StringVar(&o.zone, "zone", engine.DefaultZone.String(), "zone of a grant or token id; a token file says its own")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	f.IntVar(&o.link, "link", 0, "which token of the file, from 1 (default the last)")
	f.StringVar(&o.reason, "reason", "", "your words, for whoever asks why")
	f.DurationVar(&o.wait, "wait", 0, "wait so long until every device has it, and say after what time each had it; needs fcpd")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

// target finds out what is named.
func (a *app) revokeTarget(e api.Store, o *revokeOptions, what string) (s authority.RevocationSpec, err error) {
	s.Reason = o.reason
	if _, err := os.Stat(what); err == nil {
		chain, err := keystore.LoadToken(keystore.OS{}, what)
		if err != nil {
			return s, err
		}
		tokens := chain.Tokens()
		link := o.link
		if link == 0 {
			link = len(tokens)
		}
		if link < 1 || link > len(tokens) {
			return s, fcp.Errorf(fcp.CodeInvalidArgument, "link %d, the file has 1 to %d", link, len(tokens))
		}
		info, err := authority.InspectToken(tokens[link-1])
		s.Zone, s.Scope, s.Targets = info.Zone, authority.RevokeToken, []fcp.Hash{info.ID.Ref()}
		return s, err
	}
	if s.Zone, err = fcp.ParseZoneID(o.zone); err != nil {
		return s, err
	}
	if id, err := hex.DecodeString(what); err == nil && len(id) == len(authority.TokenID{}) {
		s.Scope, s.Targets = authority.RevokeToken, []fcp.Hash{authority.TokenID(id).Ref()}
		return s, nil
	}
	ref, err := a.findGrantRef(e, s.Zone, what)
	if err != nil {
		return s, err
	}
	s.Scope, s.Targets = authority.RevokeCapability, []fcp.Hash{ref}
	return s, nil
}

func (a *app) revoke(ctx context.Context, e api.Store, o *revokeOptions, what string) error {
	s, err := a.revokeTarget(e, o, what)
	if err != nil {
		return err
	}
	owner, err := a.ownerFor(o.identity, "a revocation")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	if err := e.CheckOwner(owner.Public()); err != nil {
		return err
	}
	v := revocationView{Zone: s.Zone, Scope: string(s.Scope), Target: s.Targets[0].String(), Reason: s.Reason, DryRun: o.dryRun}
	if o.dryRun {
		if _, err := authority.Revoke(a.now(), owner, s); err != nil {
			return err
		}
		if a.flags.format == formatTable {
			return a.printPlanned([]eventView{{Zone: s.Zone, Plane: fcp.PlaneControl.String(), Kind: fcp.KindRevocationIssued.String()},
				{Zone: s.Zone, Plane: fcp.PlaneControl.String(), Kind: fcp.KindAuditEntry.String()}})
		}
	} else {
		ref, err := e.Revoke(ctx, a.now(), owner, s)
		if err != nil {
			return err
		}
		v.Ref = ref.String()
		if o.wait > 0 {
			if err := a.awaitArrival(ctx, e, o.wait, ref, &v); err != nil {
				return err
			}
		}
	}
	fields := []field{{"revocation", v.Ref}, {"zone", v.Zone.String()}, {"scope", v.Scope}, {"target", v.Target}, {"reason", v.Reason}}
	if v.Arrived != nil {
		fields = append(fields, field{"arrived", arrivedText(v.Arrived)})
	}
	return a.answer("Revocation", e.Position(), v, v.Ref, fields...)
}
