package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// forgetView is what was forgotten, as JSON.
type forgetView struct {
	DryRun  bool                `json:"dry_run"`
	Objects []string            `json:"objects"`
	Keys    int                 `json:"keys"`             // destroyed
	Shared  int                 `json:"shared,omitempty"` // chunks that another object has too
	Orders  []string            `json:"orders,omitempty"` // to the other devices
	Copies  []engine.ForgetCopy `json:"copies"`           // out of reach
}

func (a *app) objectForgetCommand() *cobra.Command {
	var (
		zone        *zoneFlag
		object      string
		all, dryRun bool
		yes         bool
		identity    *identityOptions
	)
	cmd := &cobra.Command{
		Use: "forget [KEY]", Short: "Destroy an object's data key, so that it can never be read again", Args: args(0, 1),
		Long: `forget destroys the data keys of the present version of KEY, of all its versions with
--all, or of the object with the id --object. Its name, size and ciphertext stay;
nobody can read it from this store any more, and reading it says so. With the owner's
--identity every other device is ordered to do the same, as soon as it hears of it;
` + "`fcpctl object forgotten`" + ` shows which did. Copies that this device cannot reach,
such as backups, are listed.`,
		Example:           "  fcpctl object forget notes/secret --all --identity ~/fcp-identity --yes",
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := engine.ForgetRequest{Zone: fcp.ZoneID(*zone), Key: optional(args, 0), All: all, DryRun: dryRun}
			if (q.Key == "") == (object == "") {
				return usagef("name a KEY or --object ID", "one of the two says what to forget")
			}
			if object != "" {
				id, err := fcp.ParseHash(object)
				if err != nil {
					return err
				}
				q.Object = fcp.ObjectID(id)
			}
			return a.withStore(cmd.Context(), openMode(!dryRun), func(e *engine.Engine) error {
				if identity.path != "" {
					owner, err := a.loadOwner(identity)
					if err != nil {
						return err
					}
					defer owner.Wipe()
					q.Owner = owner
				}
				return a.forget(cmd.Context(), e, q, yes)
			})
		},
	}
	zone = zoneOption(cmd)
	identity = identityFlags(cmd, "identity file of the owner: every other device is told too")
	cmd.Flags().StringVar(&object, "object", "", "the object with this id instead of a key's version")
	cmd.Flags().BoolVar(&all, "all", false, "every version of the key that is in its history")
	yesFlag(cmd, &yes)
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) forget(ctx context.Context, e *engine.Engine, q engine.ForgetRequest, yes bool) error {
	if !q.DryRun {
		if err := a.confirm(yes, "this destroys keys for good: what they open can never be read again."); err != nil {
			return err
		}
	}
	r, err := e.Forget(ctx, q)
	if err != nil {
		return a.notFound(err, q.Key)
	}
	v := forgetView{DryRun: r.DryRun, Objects: []string{}, Keys: r.Keys, Shared: r.Shared, Copies: r.Copies}
	for _, id := range r.Objects {
		v.Objects = append(v.Objects, id.String())
	}
	fields := []field{{"objects", decimal(uint64(len(v.Objects)))}, {"keys", decimal(uint64(v.Keys))}}
	if v.Shared > 0 {
		fields = append(fields, field{"shared", fmt.Sprintf("%d chunks that other objects have too stay readable", v.Shared)})
	}
	for _, ref := range r.Orders {
		v.Orders = append(v.Orders, ref.String())
		fields = append(fields, field{"order", ref.String()})
	}
	for _, c := range v.Copies {
		fields = append(fields, field{"out of reach", fmt.Sprintf("%s %s: %s", c.Kind, c.Name, c.What)})
	}
	if err := a.record("Forgotten", e.Position(), v, decimal(uint64(v.Keys)), fields...); err != nil {
		return err
	}
	if r.DryRun {
		a.note("dry run: nothing was destroyed")
	}
	a.answered(e.Position())
	return nil
}
