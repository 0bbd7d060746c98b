package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/authority/keystore"
	"fcp/engine"
)

type initOptions struct {
	identity     *identityOptions
	noPassphrase bool
	device       string
	dryRun       bool
}

// initView is what init made, as JSON.
type initView struct {
	Dir      string       `json:"dir"`
	Identity string       `json:"identity"`
	Owner    string       `json:"owner"`
	Writer   string       `json:"writer"`
	Genesis  string       `json:"genesis"`
	Zones    []fcp.ZoneID `json:"zones"`
	Events   int          `json:"events"`
	DryRun   bool         `json:"dry_run,omitempty"`
	Planned  []eventView  `json:"planned,omitempty"`
}

func (a *app) initCommand() *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use: "init", Short: "Make a store", Args: args(0, 0),
		Long: `init makes a store in --dir: your identity, this node's keys, the five standard
zones and their keys. It works alone; there is nothing to sign up for.

The identity file is the only thing that opens a backup on another machine. Keep
a copy of it somewhere else. An identity file that exists already is used, never
written over.`,
		Example: "  fcpctl --dir ~/store init --identity ~/identity\n  fcpctl init --no-passphrase",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runInit(cmd.Context(), &o) },
	}
	o.identity = identityFlags(cmd, "identity file to write, or to use if it exists (default $XDG_CONFIG_HOME/fcp/identity)")
	cmd.Flags().BoolVar(&o.noPassphrase, "no-passphrase", false, "leave the identity file unencrypted")
	cmd.Flags().StringVar(&o.device, "device", "node", "name of this node")
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) runInit(ctx context.Context, o *initOptions) error {
	if o.identity.path == "" {
		o.identity.path = a.defaultPath("XDG_CONFIG_HOME", ".config", "fcp", "identity")
	}
	for _, x := range []struct{ flag, path string }{{"dir", a.flags.dir}, {"identity", o.identity.path}} {
		if strings.HasPrefix(x.path, homeless) {
			return usagef("name it with --"+x.flag, "HOME is not set, so --%s has no default", x.flag)
		}
	}
	opts := engine.InitOptions{Environment: a.environment(), Device: o.device}
	if o.dryRun {
		return a.planInit(ctx, o, opts)
	}
	// The engine refuses too; refused here, nobody types a passphrase in vain.
	if _, err := os.Stat(filepath.Join(a.flags.dir, "FORMAT")); err == nil {
		return a.storeExists(fcp.Errorf(fcp.CodeStoreExists, "%s", a.flags.dir))
	}
	_, err := os.Lstat(o.identity.path)
	switch {
	case err == nil:
		if opts.Owner, err = a.loadOwner(o.identity); err != nil {
			return err
		}
		defer opts.Owner.Wipe()
		a.note("using the identity in %s", o.identity.path)
	case errors.Is(err, fs.ErrNotExist):
		if opts.SaveOwner, err = a.saveOwner(o); err != nil {
			return err
		}
	default:
		return inputError(err, "the identity file")
	}
	res, err := engine.Init(ctx, a.flags.dir, opts)
	if err != nil {
		return a.storeExists(err)
	}
	a.note("keep a copy of %s elsewhere: without it no backup of this store can be restored", o.identity.path)
	return a.printInit(o, res, nil)
}

func (a *app) storeExists(err error) error {
	return advise(err, fcp.CodeStoreExists, "use it as it is, see `"+a.command("status")+"`, or name another directory with --dir")
}

// saveOwner returns what writes the new identity file, after asking for all it needs.
func (a *app) saveOwner(o *initOptions) (func(*authority.OwnerKey) error, error) {
	p := keystore.Protection{NoPassphrase: o.noPassphrase}
	if !o.noPassphrase {
		var err error
		if p.Passphrase, err = a.newPassphrase(o.identity); err != nil {
			return nil, err
		}
	}
	path := o.identity.path
	return func(owner *authority.OwnerKey) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return inputError(err, "the directory of the identity file")
		}
		return keystore.CreateIdentity(keystore.OS{}, path, owner, p)
	}, nil
}

// planInit makes the store in memory and shows its events. Keys, and so ids, will
// be others in the real one.
func (a *app) planInit(ctx context.Context, o *initOptions, opts engine.InitOptions) (err error) {
	opts.FS = vfs.NewMem()
	const dir = "store"
	res, err := engine.Init(ctx, dir, opts)
	if err != nil {
		return err
	}
	e, err := engine.Open(ctx, dir, engine.Options{Environment: opts.Environment})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	var planned []eventView
	err = e.Tail(ctx, engine.TailRequest{}, func(r *engine.EventRow) error {
		planned = append(planned, viewEvent(r))
		return nil
	})
	if err != nil {
		return err
	}
	res.Dir = a.flags.dir
	return a.printInit(o, res, planned)
}

func (a *app) printInit(o *initOptions, res engine.InitResult, planned []eventView) error {
	v := initView{Dir: res.Dir, Identity: o.identity.path, Owner: fcp.KidOf(res.Owner[:]).String(), Writer: res.Writer.String(),
		Genesis: res.Genesis.String(), Zones: res.Zones, Events: res.Events, DryRun: planned != nil, Planned: planned}
	if planned != nil && a.flags.format == formatTable {
		return a.printPlanned(planned)
	}
	asOf := uint64(res.Events)
	if planned != nil {
		asOf = 0
	}
	err := a.record("Store", asOf, v, v.Dir, field{"store", v.Dir}, field{"identity", v.Identity}, field{"owner", v.Owner},
		field{"writer", v.Writer}, field{"zones", joinZones(v.Zones)}, field{"next", a.command("object", "put", "KEY", "PATH")})
	if err == nil {
		a.answered(asOf)
	}
	return err
}
