package main

import (
	"context"
	"encoding/hex"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

func (a *app) secretCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "secret", Short: "Secrets shared among your devices: whole on none of them",
		Long: `secret keeps passwords, tokens and keys in shares, one on each device, so that some of
the devices together bring one back and fewer know nothing of it. A secret is used for
a moment, in memory, on record, and never goes through an argument or a variable.`}
	group(cmd)
	cmd.AddCommand(a.secretPutCommand(), a.secretListCommand(), a.secretUseCommand(), a.secretReshareCommand(), a.secretRemoveCommand(),
		a.secretPaperCommand(), a.secretRecoverCommand())
	return cmd
}

// secretView is one shared secret as JSON. It says nothing of the value.
type secretView struct {
	Name      string     `json:"name"`
	Zone      fcp.ZoneID `json:"zone"`
	ID        string     `json:"id,omitempty"`
	Version   uint64     `json:"version"` // of the sharing
	Value     uint64     `json:"value"`   // counts the values; a resharing keeps it
	Threshold int        `json:"threshold"`
	Holders   []string   `json:"holders"` // devices, by name
	Lost      []string   `json:"lost,omitempty"`
	State     string     `json:"state"` // shared, removed, halted
	Issued    string     `json:"issued"`
	DryRun    bool       `json:"dry_run,omitempty"`
}

func (a *app) viewSecret(e *engine.Engine, s *engine.SecretState) (secretView, error) {
	v := secretView{Name: s.Name, Zone: s.Zone, ID: hex.EncodeToString(s.ID[:]), Version: s.Version, Value: s.Value, Threshold: s.Threshold,
		Holders: []string{}, State: "shared", Issued: secondsText(s.Issued)}
	switch {
	case s.Halted != nil:
		v.State = "halted"
	case s.Removed():
		v.State = "removed"
	}
	members, err := e.Members()
	if err != nil {
		return v, err
	}
	names := map[fcp.WriterID]string{}
	for i := range members {
		names[members[i].Writer] = members[i].Name
	}
	for _, m := range members { // in the order of enrollment, so that no key decides it
		for _, w := range s.Holders {
			if w == m.Writer {
				v.Holders = append(v.Holders, m.Name)
			}
		}
	}
	for _, w := range s.Lost {
		v.Lost = append(v.Lost, names[w])
	}
	return v, nil
}

func (v *secretView) shares() string {
	if v.Threshold == 0 {
		return ""
	}
	return decimal(uint64(v.Threshold)) + " of " + decimal(uint64(len(v.Holders)))
}

func (a *app) printSecret(e *engine.Engine, s *engine.SecretState, dryRun bool) error {
	v, err := a.viewSecret(e, s)
	if err != nil {
		return err
	}
	v.DryRun = dryRun
	if dryRun && s.Version == 1 {
		v.ID = "" // drawn when it is made
	}
	err = a.record("Secret", e.Position(), v, v.Name, field{"secret", v.Name}, field{"zone", v.Zone.String()}, field{"version", decimal(v.Version)},
		field{"shares", v.shares()}, field{"holders", strings.Join(v.Holders, ", ")}, field{"state", v.State})
	if err == nil {
		a.answered(e.Position())
	}
	if err == nil && v.Threshold == 1 {
		a.note("each of %s rebuilds it alone; with more devices share it anew: `%s`", strings.Join(v.Holders, ", "), a.command("secret", "reshare", v.Name, "--identity", "FILE"))
	}
	return err
}

// holderFlags say which devices are to hold a share.
type holderFlags struct {
	threshold        int
	holders, without []string
}

func holderOptions(cmd *cobra.Command) *holderFlags {
	o := &holderFlags{}
	f := cmd.Flags()
	f.IntVar(&o.threshold, "threshold", 0, "shares that rebuild it (default more than half; of a secret that several devices share, as before)")
	f.StringSliceVar(&o.holders, "holder", nil, "devices that get a share, by name or id (default every device of the zone)")
	f.StringSliceVar(&o.without, "without", nil, "devices that get none")
	return o
}

func (o *holderFlags) request(a *app, e *engine.Engine, zone fcp.ZoneID, name string, dryRun bool) (engine.PutSecretRequest, error) {
	q := engine.PutSecretRequest{Zone: zone, Name: name, Threshold: o.threshold, DryRun: dryRun}
	if o.threshold < 0 {
		return q, usagef("give a number of shares", "--threshold %d", o.threshold)
	}
	for _, list := range []struct {
		names []string
		to    *[]fcp.WriterID
	}{{o.holders, &q.Holders}, {o.without, &q.Without}} {
		var err error
		if *list.to, err = a.writers(e, list.names); err != nil {
			return q, err
		}
	}
	return q, nil
}

// secretFlags are those of every command that changes a secret.
type secretFlags struct {
	zone     *zoneFlag
	identity *identityOptions
	dryRun   bool
}

func secretOptions(cmd *cobra.Command) *secretFlags {
	o := &secretFlags{zone: zoneOption(cmd), identity: identityFlags(cmd, "identity file of the owner")}
	dryRunFlag(cmd, &o.dryRun)
	return o
}

// change runs fn with the store and the owner's key, and prints what it returns.
func (a *app) changeSecret(ctx context.Context, o *secretFlags, what string, fn func(e *engine.Engine, owner *authority.OwnerKey) (engine.SecretState, error)) error {
	owner, err := a.ownerFor(o.identity, what)
	if err != nil {
		return err
	}
	defer owner.Wipe()
	return a.changeSecretBy(ctx, o, owner, fn)
}

func (a *app) changeSecretBy(ctx context.Context, o *secretFlags, owner *authority.OwnerKey, fn func(e *engine.Engine, owner *authority.OwnerKey) (engine.SecretState, error)) error {
	return a.withStore(ctx, openMode(!o.dryRun), func(e *engine.Engine) error {
		if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
			return err
		}
		s, err := fn(e, owner)
		if err != nil {
			return err
		}
		return a.printSecret(e, &s, o.dryRun)
	})
}

func (a *app) secretPutCommand() *cobra.Command {
	var (
		o      *secretFlags
		h      *holderFlags
		rotate bool
	)
	cmd := &cobra.Command{
		Use: "put NAME FILE|-", Short: "Share a secret among devices; the value comes from a file or stdin", Args: args(2, 2),
		Long: `put splits the bytes of FILE, or of stdin, into shares, seals each to its device, and
forgets the value. A newline at the end belongs to the value. Names are not secret.`,
		Example: "  pass show api | fcpctl secret put api/token - --identity ~/fcp-identity --threshold 2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSecret(cmd.Context(), o, "a secret", func(e *engine.Engine, owner *authority.OwnerKey) (engine.SecretState, error) {
				q, err := h.request(a, e, fcp.ZoneID(*o.zone), args[0], o.dryRun)
				if err != nil {
					return engine.SecretState{}, err
				}
				if q.Value, err = a.readSecret(args[1]); err != nil {
					return engine.SecretState{}, err
				}
				defer clear(q.Value)
				if rotate {
					return e.RotateSecret(cmd.Context(), owner, q)
				}
				return e.PutSecret(cmd.Context(), owner, q)
			})
		},
	}
	o, h = secretOptions(cmd), holderOptions(cmd)
	cmd.Flags().BoolVar(&rotate, "rotate", false, "give a secret that is there another value")
	return cmd
}

// readSecret reads a value without leaving copies of it behind.
func (a *app) readSecret(path string) ([]byte, error) {
	return a.readInput(path, authority.MaxSecret, "a secret")
}

func (a *app) secretListCommand() *cobra.Command {
	var zone *zoneFlag
	var all bool
	cmd := &cobra.Command{
		Use: "ls", Short: "The secrets of a zone and who holds their shares", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				secrets, err := e.Secrets(fcp.ZoneID(*zone))
				if err != nil {
					return err
				}
				l := a.list("Secret", e.Position(), "NAME", "ID", "VERSION", "VALUE", "SHARES", "HOLDERS", "STATE")
				for i := range secrets {
					if secrets[i].Removed() && !all {
						continue
					}
					v, err := a.viewSecret(e, &secrets[i])
					if err != nil {
						return err
					}
					if len(v.Lost) > 0 {
						a.note("%s was shared with a device that is lost: give it another value, then it has new shares too", v.Name)
					}
					if err := l.add(v, v.Name, v.Name, a.short(v.ID), decimal(v.Version), decimal(v.Value), v.shares(), strings.Join(v.Holders, ","), v.State); err != nil {
						return err
					}
				}
				return l.end(e.Position())
			})
		},
	}
	zone = zoneOption(cmd)
	cmd.Flags().BoolVar(&all, "removed", false, "also those that were removed")
	return cmd
}

func (a *app) secretReshareCommand() *cobra.Command {
	var (
		o    *secretFlags
		h    *holderFlags
		from []string
	)
	cmd := &cobra.Command{
		Use: "reshare NAME", Short: "Give a secret new shares; the value stays, the shares before are void", Args: args(1, 1),
		Long: `reshare rebuilds the value from the shares in reach, splits it anew and seals the new
shares. Where fcpd runs, the devices are asked over the mesh. Old shares go with no new
one, and no device gives an old one out. It is no remedy for a value that somebody
learned: put --rotate is.`,
		Example: "  fcpctl secret reshare api/token --identity ~/fcp-identity --without laptop",
		RunE: func(cmd *cobra.Command, args []string) error {
			owner, err := a.ownerFor(o.identity, "a resharing")
			if err != nil {
				return err
			}
			defer owner.Wipe()
			near := gathered{}
			if len(from) == 0 && !o.dryRun {
				r, err := a.daemon(cmd.Context())
				if err == nil && r != nil {
					err = a.gatherFor(cmd.Context(), r, owner, fcp.ZoneID(*o.zone), args[0], near)
				}
				if err != nil {
					return a.refused(err)
				}
			}
			return a.changeSecretBy(cmd.Context(), o, owner, func(e *engine.Engine, owner *authority.OwnerKey) (engine.SecretState, error) {
				q, err := h.request(a, e, fcp.ZoneID(*o.zone), args[0], o.dryRun)
				if err != nil {
					return engine.SecretState{}, err
				}
				if len(near) > 0 {
					return e.ReshareSecret(cmd.Context(), owner, q, near)
				}
				stores, err := a.openSources(cmd.Context(), e, from, o.dryRun)
				if err != nil {
					return engine.SecretState{}, err
				}
				s, err := e.ReshareSecret(cmd.Context(), owner, q, stores)
				return s, stores.close(err)
			})
		},
	}
	o, h = secretOptions(cmd), holderOptions(cmd)
	fromOption(cmd, &from)
	return cmd
}

func (a *app) secretRemoveCommand() *cobra.Command {
	var (
		o   *secretFlags
		yes bool
	)
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "End a secret: no device gives a share of it out any more", Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeSecret(cmd.Context(), o, "a removal", func(e *engine.Engine, owner *authority.OwnerKey) (engine.SecretState, error) {
				if !o.dryRun {
					if err := a.confirm(yes, "this ends "+args[0]+" for good; only paper shares bring its value back."); err != nil {
						return engine.SecretState{}, err
					}
				}
				return e.RemoveSecret(cmd.Context(), owner, fcp.ZoneID(*o.zone), args[0], o.dryRun)
			})
		},
	}
	o = secretOptions(cmd)
	yesFlag(cmd, &yes)
	return cmd
}
