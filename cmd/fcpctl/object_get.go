package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/internal/directio"
	"fcp/node/api"
)

type getOptions struct {
	zone      *zoneFlag
	at        *atFlag
	recursive bool
	object    string
	version   string
	overwrite bool
	offset    int64
	length    int64
}

func (a *app) objectGetCommand() *cobra.Command {
	var o getOptions
	cmd := &cobra.Command{
		Use: "get KEY [PATH]", Short: "Read an object", Args: args(0, 2),
		Long: `get writes the bytes of an object to stdout, or to PATH. Nothing that fails its
hash is written. With -r, KEY is a prefix and PATH a directory: KEY/its/path becomes
PATH/its/path. Files that are there already with the same bytes are left alone, so what
was interrupted goes on when it is repeated. If others are there that differ, they are
named and nothing is written, exit code 8; --overwrite replaces them. A name that would
lead out of PATH is refused and named. What cannot be read, or cannot have its path, is
named; the rest is written and the exit code is 11.`,
		Example:           "  fcpctl object get notes/today\n  fcpctl object get notes/today --at -24h\n  fcpctl object get film --offset 1048576 --length 4096\n  fcpctl object get -r photos ./photos",
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(cmd, args); err != nil {
				return err
			}
			collectOften()
			return a.withAny(cmd.Context(), reading, func(e api.Store) error {
				if o.recursive {
					return a.getTree(cmd.Context(), e, &o, args[0], args[1])
				}
				return a.getOne(cmd.Context(), e, &o, args)
			})
		},
	}
	o.zone, o.at = zoneOption(cmd), a.atOption(cmd)
	cmd.Flags().BoolVarP(&o.recursive, "recursive", "r", false, "read every object below KEY into the directory PATH")
	cmd.Flags().StringVar(&o.object, "object", "", "read by object id instead of by key")
	cmd.Flags().StringVar(&o.version, "version", "", "read this version: at least 8 hex digits of its hash")
	cmd.Flags().BoolVar(&o.overwrite, "overwrite", false, "replace files that exist; with -r those that differ")
	cmd.Flags().Int64Var(&o.offset, "offset", 0, "begin at this byte; only what is needed is decrypted")
	cmd.Flags().Int64Var(&o.length, "length", 0, "at most this many bytes; 0 is to the end")
	return cmd
}

func (o *getOptions) check(cmd *cobra.Command, args []string) error {
	help := "see `" + cmd.CommandPath() + " --help`"
	switch {
	case o.object == "" && len(args) == 0:
		return usagef(help, "no key; wanted is: %s", cmd.UseLine())
	case o.object != "" && (len(args) > 1 || o.recursive || o.version != "" || !o.at.IsNow()):
		return usagef(help, "--object takes no key, --recursive, --version or --at: an object never changes")
	case o.recursive && len(args) != 2:
		return usagef(help, "-r takes a key prefix and a directory")
	case o.recursive && o.version != "":
		return usagef(help, "--version names one version of one key")
	case o.offset < 0 || o.length < 0:
		return usagef("give bytes from 0 on", "--offset %d, --length %d", o.offset, o.length)
	case o.recursive && (o.offset > 0 || o.length > 0):
		return usagef(help, "--offset and --length read a part of one object")
	case o.version != "" && !o.at.IsNow():
		return usagef(help, "--version and --at exclude each other")
	}
	return nil
}

// objectView describes an object that was read, as JSON.
type objectView struct {
	Key      string `json:"key,omitempty"`
	Object   string `json:"object"`
	Version  string `json:"version,omitempty"`
	Size     int64  `json:"size"`
	Chunks   int    `json:"chunks,omitempty"`
	Siblings int    `json:"siblings,omitempty"`

	Unchanged bool `json:"unchanged,omitempty"` // of a tree: the file was there already, with these bytes

	Fetched []fetchedView `json:"fetched,omitempty"` // what other members gave for it
}

// fetchedView is what one member gave, as JSON.
type fetchedView struct {
	Name    string `json:"name"`
	Symbols uint64 `json:"symbols"`
}

func viewObject(info *engine.Info) objectView {
	return objectView{Key: info.Key, Object: info.Version.Object.String(), Version: hashText(info.Version.Hash), Size: info.Size, Chunks: info.Chunks, Siblings: info.Siblings}
}

func (a *app) getOne(ctx context.Context, e api.Store, o *getOptions, args []string) error {
	req := engine.GetRequest{Zone: fcp.ZoneID(*o.zone), At: o.at.At}
	if o.offset > 0 || o.length > 0 {
		req.Range = &engine.Range{Offset: o.offset, Length: o.length}
	}
	to := optional(args, 1)
	if o.object != "" {
		h, err := fcp.ParseHash(o.object)
		if err != nil {
			return err
		}
		req.Object, to = fcp.ObjectID(h), optional(args, 0)
	} else {
		req.Key = args[0]
	}
	if req.Key == "" && o.object == "" {
		return fcp.Errorf(fcp.CodeInvalidArgument, "the empty string is no key")
	}
	if o.version != "" {
		var err error
		if req.Version, err = findVersion(ctx, e, req.Zone, req.Key, o.version); err != nil {
			return a.notFound(err, req.Key)
		}
	}
	r, err := e.Get(ctx, req)
	if err != nil {
		return a.notFound(err, req.Key)
	}
	defer r.Close()
	info := r.Info()
	if to == "" || to == "-" {
		_, err = r.WriteTo(a.out)
	} else {
		err = writeNew(filepath.Dir(to), filepath.Base(to), o.overwrite, r)
	}
	if err != nil {
		return err
	}
	return a.gotObject(&info)
}

// gotObject says on stderr what was read: stdout has the bytes.
func (a *app) gotObject(info *engine.Info) error {
	if a.flags.format.structured() {
		v := viewObject(info)
		for _, f := range a.source().Fetched {
			v.Fetched = append(v.Fetched, fetchedView(f))
		}
		b, err := a.envelope("Object", info.AsOf, v)
		if err == nil {
			_, err = a.stderr.Write(append(b, '\n'))
		}
		return err
	}
	var notes []string
	if info.Version.Generation > 0 {
		notes = append(notes, fmt.Sprintf("generation %d", info.Version.Generation))
	}
	if info.Siblings > 0 {
		notes = append(notes, fmt.Sprintf("%d concurrent versions besides: %s", info.Siblings, a.command("object", "history", info.Key)))
	}
	a.answered(info.AsOf, notes...)
	return nil
}

// findVersion finds the version of a key whose hash begins with prefix.
func findVersion(ctx context.Context, e api.Store, zone fcp.ZoneID, key, prefix string) (fcp.Hash, error) {
	want, err := engine.ParseExpect(prefix)
	if err != nil || want.Kind != engine.ExpectHash {
		return fcp.Hash{}, fcp.Errorf(fcp.CodeInvalidArgument, "a version is named by at least %d hex digits of its hash", engine.MinHashPrefix).
			WithNext("see `fcpctl object history KEY` for the hashes")
	}
	found := map[fcp.Hash]bool{}
	var hash fcp.Hash
	err = e.History(ctx, zone, key, func(entry *engine.Entry) error {
		for i := range entry.Heads {
			if h := entry.Heads[i].Hash; strings.HasPrefix(h.String(), want.Prefix) {
				hash, found[h] = h, true
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return fcp.Hash{}, err
	case len(found) == 0:
		return fcp.Hash{}, fcp.Errorf(fcp.CodeNotFound, "no version begins with %s", want.Prefix)
	case len(found) > 1:
		return fcp.Hash{}, fcp.Errorf(fcp.CodeGuess, "%d versions begin with %s", len(found), want.Prefix)
	}
	return hash, nil
}

// writeNew writes a file in dir, complete or not at all.
func writeNew(dir, name string, overwrite bool, r io.WriterTo) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return inputError(err, "the target directory")
	}
	defer root.Close()
	return writeIn(root, name, overwrite, r)
}

// pastCache is from what size on an object is written past the page cache.
const pastCache = 16 << 20

// writeIn writes under another name first, so that a read that fails half-way
// leaves nothing that looks whole.
func writeIn(root *os.Root, name string, overwrite bool, r io.WriterTo) (err error) {
	exists := fcp.Errorf(fcp.CodeNotEmpty, "%s exists already", name).WithNext("name another path, or say --overwrite")
	if i, err := root.Stat(name); err == nil && i.IsDir() {
		return fcp.Errorf(fcp.CodeNotEmpty, "%s is a directory", name).WithNext("name the file to write in it")
	}
	if _, err := root.Lstat(name); err == nil && !overwrite {
		return exists
	}
	temp := partialOf(name)
	f, release, err := makePartial(root, temp)
	if err != nil {
		return err
	}
	defer release()
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Remove(temp))
		}
	}()
	var to io.WriteCloser = f
	if o, ok := r.(interface{ Info() engine.Info }); ok && o.Info().Size >= pastCache {
		to = directio.NewWriter(f)
	}
	_, err = r.WriteTo(to)
	if closeErr := to.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return inputError(err, "the target "+name)
	}
	if !overwrite {
		// A link fails where a rename would replace what appeared meanwhile.
		if err := root.Link(temp, name); !errors.Is(err, errors.ErrUnsupported) {
			if errors.Is(err, fs.ErrExist) {
				return exists
			}
			if err == nil {
				return root.Remove(temp)
			}
		}
	}
	return inputError(root.Rename(temp, name), "the target "+name)
}
