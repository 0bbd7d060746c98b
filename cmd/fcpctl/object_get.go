package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
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
PATH/its/path. A name that would lead out of PATH is refused and named. What cannot be
read, or cannot have its path, is named; the rest is written and the exit code is 11.`,
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
	cmd.Flags().BoolVar(&o.overwrite, "overwrite", false, "replace files that exist")
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

// getTree writes every object below a prefix into a directory. os.Root keeps
// every path inside it, whatever the names and links there are.
func (a *app) getTree(ctx context.Context, e api.Store, o *getOptions, prefix, dir string) error {
	asOf, err := e.PositionAt(o.at.At)
	if err != nil {
		return err
	}
	zone := fcp.ZoneID(*o.zone)
	if prefix != "" {
		prefix = strings.TrimSuffix(prefix, "/") + "/"
	}
	var keys []string
	err = e.List(ctx, engine.ListRequest{Zone: zone, Prefix: prefix, At: o.at.At}, func(entry *engine.Entry) error {
		keys = append(keys, entry.Key)
		return nil
	})
	if err == nil && len(keys) == 0 {
		err = fcp.Errorf(fcp.CodeNotFound, "nothing is below %q", prefix)
	}
	if err != nil {
		return a.notFound(err, prefix)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return inputError(err, "the target directory")
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return inputError(err, "the target directory")
	}
	defer root.Close()
	p := a.progress("get", "files")
	defer p.done()
	l := a.list("File", asOf, "SIZE", "VERSION", "PATH")
	refused, failed := 0, 0
	var first error // of those that failed
	for i, key := range keys {
		p.tell("", uint64(i), uint64(len(keys)))
		name := strings.TrimPrefix(key, prefix)
		if why := unusable(name); why != "" {
			refused++
			a.note("refused %q: %s; read it with `%s`", key, why, a.command("object", "get", key))
			continue
		}
		info, err := a.getFile(ctx, e, engine.GetRequest{Zone: zone, Key: key, At: o.at.At}, root, name, o.overwrite)
		if err != nil && ctx.Err() == nil && ofOneName(err) {
			if failed++; first == nil {
				first = err
			}
			a.warn(fcp.Wrap(fcp.CodeInternal, err, "%q", key))
			continue
		}
		if err != nil {
			return fcp.Wrap(fcp.CodeInternal, err, "%q", key)
		}
		v := viewObject(&info)
		if err := l.add(v, key, decimal(uint64(info.Size)), a.short(v.Version), name); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	a.answered(asOf, fmt.Sprintf("%d of %d files written", l.count, len(keys)))
	if failed > 0 {
		return &exitError{fcp.Errorf(fcp.CodeOf(first), "%d of %d objects could not be written to %s; the others are", refused+failed, len(keys), dir).
			WithNext("see the warnings; read those one by one: `" + a.command("object", "get", "KEY", "PATH") + "`"), exitFindings}
	}
	if refused > 0 {
		return &exitError{fcp.Errorf(fcp.CodeInvalidArgument, "%d of %d names cannot be paths inside %s", refused, len(keys), dir).
			WithNext("read those one by one: `" + a.command("object", "get", "KEY", "PATH") + "`"), exitFindings}
	}
	return nil
}

// ofOneName reports whether an error is about one name, its bytes or its path, so that
// the other names of a tree can still be read.
func ofOneName(err error) bool {
	switch fcp.CodeOf(err).Class() {
	case fcp.Invalid, fcp.Denied, fcp.NotEnough, fcp.Corrupt:
		return true
	}
	return false
}

// unusable says why a name cannot be a path below a directory, "" when it can.
func unusable(name string) string {
	switch {
	case strings.ContainsRune(name, 0):
		return "it contains a zero byte"
	case !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name:
		return "as a path it would lead elsewhere"
	case name == ".":
		return "as a path it is the directory itself"
	}
	return ""
}

func (a *app) getFile(ctx context.Context, e api.Store, req engine.GetRequest, root *os.Root, name string, overwrite bool) (engine.Info, error) {
	r, err := e.Get(ctx, req)
	if err != nil {
		return engine.Info{}, err
	}
	defer r.Close()
	if parent := path.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o777); err != nil {
			return engine.Info{}, inputError(err, "the directory of "+name)
		}
	}
	return r.Info(), writeIn(root, name, overwrite, r)
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

// maxFileName is the longest name of a file on common file systems, in bytes.
const maxFileName = 255

// partOf is the name of a file while it is written, in the same directory.
func partOf(name string) string {
	const suffix = ".fcp-part"
	dir, base := path.Split(name)
	if len(base)+len(suffix) > maxFileName {
		sum := sha256.Sum256([]byte(base))
		base = hex.EncodeToString(sum[:16])
	}
	return dir + base + suffix
}

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
	temp := partOf(name)
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, fs.ErrExist) {
		return fcp.Errorf(fcp.CodeNotEmpty, "%s is left from an earlier try", temp).WithNext("remove it and run the same command again")
	}
	if err != nil {
		return inputError(err, "the target "+name)
	}
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
