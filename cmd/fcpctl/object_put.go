package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/internal/directio"
	"fcp/node/api"
)

func (a *app) objectPutCommand() *cobra.Command {
	var (
		o         *writeOptions
		recursive bool
	)
	cmd := &cobra.Command{
		Use: "put KEY PATH|-", Short: "Write a version of an object", Args: args(2, 2),
		Long: `put writes the bytes of PATH, or of stdin, as the next version of KEY. When it
returns the version is on disk. Files above 1 MiB are stored in chunks; chunks that
the zone has already are not written again, so a put that was interrupted goes on
where it stopped when it is repeated. With -r, PATH is a directory and each regular file
in it becomes KEY/its/path; links and special files are left out and named, and a file
that its name's current version equals is left alone (--always writes it again). What
cannot be read, or has a name that is not UTF-8, is named and left out too; the rest is
written and the exit code is 11.`,
		Example: "  fcpctl object put notes/today note.txt\n  date | fcpctl object put notes/today - --expect 1\n  fcpctl object put -r photos ~/Pictures",
		RunE: func(cmd *cobra.Command, args []string) error {
			collectOften()
			return a.withAny(cmd.Context(), writing, func(e api.Store) error {
				if recursive {
					return a.putTree(cmd.Context(), e, o, args[0], args[1])
				}
				return a.putOne(cmd.Context(), e, o, args[0], args[1])
			})
		},
	}
	o = writeFlags(cmd)
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "PATH is a directory; put every file in it")
	cmd.Flags().BoolVar(&o.always, "always", false, "with -r: write a version of each file, changed or not")
	cmd.Flags().Var(&o.durable, "durable", "what the answer promises: local, on this disk; peers, on the disks of other devices too; placed, spread as the policy says (needs fcpd)")
	_ = cmd.RegisterFlagCompletionFunc("durable", cobra.FixedCompletions(durabilities, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// putView is a written version as JSON.
type putView struct {
	versionView
	Replaced  int         `json:"replaced"`
	Durable   string      `json:"durable,omitempty"` // what the acknowledgement promises
	Chunks    int         `json:"chunks,omitempty"`
	Reused    int         `json:"reused,omitempty"` // chunks that were stored already
	Duplicate bool        `json:"duplicate,omitempty"`
	Unchanged bool        `json:"unchanged,omitempty"` // of a tree: the version was there already
	DryRun    bool        `json:"dry_run,omitempty"`
	Planned   []eventView `json:"planned,omitempty"`
}

func viewPut(zone fcp.ZoneID, key string, r *engine.PutResult) putView {
	v := putView{versionView: viewVersion(zone, key, &r.Version), Replaced: r.Replaced, Chunks: r.Chunks, Reused: r.Reused, Duplicate: r.Duplicate, DryRun: r.DryRun}
	if r.DryRun {
		v.Planned = viewPlanned(zone, r.Planned)
	} else {
		v.Durable = durableLocal
	}
	return v
}

func (a *app) putOne(ctx context.Context, e api.Store, o *writeOptions, key, path string) error {
	req := engine.PutRequest{Zone: fcp.ZoneID(*o.zone), Key: key, Expect: o.expect.Expect, Idempotency: o.idempotency, DryRun: o.dryRun}
	if path == "-" {
		req.Body = a.stdin
	} else {
		f, err := openInput(path)
		if err != nil {
			return err
		}
		defer f.Close()
		req.Body = f
	}
	res, err := e.Put(ctx, req)
	if err != nil {
		return a.writeError(err, key)
	}
	if err := a.spread(ctx, e, o); err != nil {
		return err
	}
	return a.printWriteAs(e, &res, req.Zone, key, o.durable.String())
}

// openInput opens a regular file, pipe or device; a directory needs -r.
func openInput(path string) (io.ReadCloser, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, inputError(err, "the input")
	}
	st, err := f.Stat()
	switch {
	case err == nil && st.IsDir():
		f.Close()
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%s is a directory", path).WithNext("put a whole directory with -r")
	case err == nil && st.Mode().IsRegular():
		return directio.NewReader(f), nil
	}
	return f, nil
}

// readInput reads a whole file, or stdin for -, of at most limit bytes. what names
// it in errors; a longer one is CodeTooLarge.
func (a *app) readInput(path string, limit int, what string) ([]byte, error) {
	in := a.stdin
	if path != "-" {
		f, err := openInput(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	switch {
	case err != nil:
		return nil, inputError(err, what)
	case len(b) > limit:
		return nil, fcp.Errorf(fcp.CodeTooLarge, "%s may have %d bytes", what, limit)
	}
	return b, nil
}

// writeError gives a refused write its way forward.
func (a *app) writeError(err error, key string) error {
	return advise(err, fcp.CodeConflict, "look with `"+a.command("object", "history", key)+"`, then repeat with the current generation in --expect, or without --expect to overwrite")
}

func (a *app) printWrite(e api.Store, res *engine.PutResult, zone fcp.ZoneID, key string) error {
	return a.printWriteAs(e, res, zone, key, durableLocal)
}

func (a *app) printWriteAs(e api.Store, res *engine.PutResult, zone fcp.ZoneID, key, durable string) error {
	v := viewPut(zone, key, res)
	if v.Durable != "" {
		v.Durable = durable
	}
	if res.DryRun && a.flags.format == formatTable {
		return a.printPlanned(v.Planned)
	}
	asOf := e.Position()
	err := a.record("Version", asOf, v, key, field{"key", key}, field{"generation", decimal(v.Generation)}, field{"version", v.Hash},
		field{"object", v.Object}, field{"size", decimal(v.Size)}, field{"position", decimal(v.Position)})
	if err != nil {
		return err
	}
	var notes []string
	if res.Reused > 0 {
		notes = append(notes, fmt.Sprintf("%d of %d chunks were here already", res.Reused, res.Chunks))
	}
	if v.Duplicate {
		notes = append(notes, "the same idempotency key wrote this before")
	}
	if v.Replaced > 1 {
		notes = append(notes, "settled "+decimal(uint64(v.Replaced))+" concurrent versions")
	}
	a.answered(asOf, notes...)
	return nil
}

func (a *app) objectRmCommand() *cobra.Command {
	var (
		o         *writeOptions
		recursive bool
		yes       bool
	)
	cmd := &cobra.Command{
		Use: "rm KEY", Short: "Remove an object; its versions stay in history", Args: args(1, 1),
		ValidArgsFunction: a.completeKeys,
		Example:           "  fcpctl object rm notes/today --expect 2\n  fcpctl object rm -r photos/ --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAny(cmd.Context(), writing, func(e api.Store) error {
				if recursive {
					return a.removeTree(cmd.Context(), e, o, args[0], yes)
				}
				return a.removeOne(cmd.Context(), e, o, args[0])
			})
		},
	}
	o = writeFlags(cmd)
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "remove KEY and every object below KEY/")
	yesFlag(cmd, &yes)
	return cmd
}

func removeRequest(o *writeOptions, key string) engine.RemoveRequest {
	return engine.RemoveRequest{Zone: fcp.ZoneID(*o.zone), Key: key, Expect: o.expect.Expect, Idempotency: o.idempotency, DryRun: o.dryRun}
}

func (a *app) removeOne(ctx context.Context, e api.Store, o *writeOptions, key string) error {
	res, err := e.Remove(ctx, removeRequest(o, key))
	if err != nil {
		return a.notFound(a.writeError(err, key), key)
	}
	return a.printWrite(e, &res, fcp.ZoneID(*o.zone), key)
}

// What an acknowledgement can promise.
const (
	durableLocal  = "local"
	durablePeers  = "peers"
	durablePlaced = "placed"
)

var durabilities = []string{durableLocal, durablePeers, durablePlaced}

// durableFlag is the value of --durable.
type durableFlag string

func (f *durableFlag) Type() string { return strings.Join(durabilities, "|") }

func (f *durableFlag) String() string {
	if *f == "" {
		return durableLocal
	}
	return string(*f)
}

func (f *durableFlag) Set(s string) error {
	if !slices.Contains(durabilities, s) {
		return fmt.Errorf("one of %s", strings.Join(durabilities, ", "))
	}
	*f = durableFlag(s)
	return nil
}

// spread waits until what was written is where --durable wants it.
func (a *app) spread(ctx context.Context, e api.Store, o *writeOptions) error {
	if o.durable.String() == durableLocal || o.dryRun {
		return nil
	}
	r, ok := e.(*api.Remote)
	if !ok {
		return fcp.Errorf(fcp.CodeInvalidArgument, "it is on this disk; no fcpd runs that could spread it").WithNext("start one with `" + a.command("up") + "`, then `" + a.command("wait", "--placed") + "`")
	}
	if o.durable.String() == durablePeers {
		return r.Wait(ctx, api.WaitHeld, fcp.Hash{})
	}
	return r.Wait(ctx, api.WaitSpread, fcp.Hash{})
}
