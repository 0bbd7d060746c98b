package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"fcp"
	"fcp/engine"
	"fcp/node/api"
)

// target is one object of a tree and what was found where its file belongs.
type target struct {
	req       engine.GetRequest
	name      string // of the file, below the directory
	unchanged bool   // a file with the object's bytes
	inTheWay  string // what else is there; "": nothing
	fixed     bool   // and --overwrite does not replace it
	err       error  // the object could not be read
	info      engine.Info
}

// treeGet is one `object get -r`. os.Root keeps every path inside the directory, whatever
// the names and links there are.
type treeGet struct {
	a       *app
	e       api.Store
	o       *getOptions
	dir     string
	root    *os.Root
	targets []*target
	refused int   // names that cannot be paths
	failed  int   // objects that could not be read or written
	first   error // of those
}

// getTree writes every object below a prefix into a directory. Nothing is written before
// everything that is there was compared.
func (a *app) getTree(ctx context.Context, e api.Store, o *getOptions, prefix, dir string) error {
	asOf, err := e.PositionAt(o.at.At)
	if err != nil {
		return err
	}
	if prefix != "" {
		prefix = strings.TrimSuffix(prefix, "/") + "/"
	}
	g := &treeGet{a: a, e: e, o: o, dir: dir}
	if err := g.find(ctx, prefix); err != nil {
		return a.notFound(err, prefix)
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return inputError(err, "the target directory")
	}
	if g.root, err = os.OpenRoot(dir); err != nil {
		return inputError(err, "the target directory")
	}
	defer g.root.Close()
	p := a.progress("get", "files")
	defer p.done()
	if err := g.compare(ctx, p); err != nil {
		return err
	}
	return g.write(ctx, p, asOf)
}

// find lists the objects and refuses the names that cannot be paths.
func (g *treeGet) find(ctx context.Context, prefix string) error {
	zone := fcp.ZoneID(*g.o.zone)
	err := g.e.List(ctx, engine.ListRequest{Zone: zone, Prefix: prefix, At: g.o.at.At}, func(entry *engine.Entry) error {
		name := strings.TrimPrefix(entry.Key, prefix)
		if why := unusable(name); why != "" {
			g.refused++
			g.a.note("refused %q: %s; read it with `%s`", entry.Key, why, g.a.command("object", "get", entry.Key))
			return nil
		}
		g.targets = append(g.targets, &target{req: engine.GetRequest{Zone: zone, Key: entry.Key, At: g.o.at.At}, name: name})
		return nil
	})
	if err == nil && g.all() == 0 {
		err = fcp.Errorf(fcp.CodeNotFound, "nothing is below %q", prefix)
	}
	return err
}

func (g *treeGet) all() int { return len(g.targets) + g.refused }

// compare looks at what is where the files belong, and names what may not be replaced.
func (g *treeGet) compare(ctx context.Context, p *progress) error {
	kept, fixed := 0, 0
	for i, t := range g.targets {
		p.tell("compare", uint64(i), uint64(len(g.targets)))
		err := g.look(ctx, t)
		if ctx.Err() != nil {
			return interrupted()
		}
		if err != nil {
			return fcp.Wrap(fcp.CodeInternal, err, "%q", t.req.Key)
		}
		if t.inTheWay == "" || g.o.overwrite && !t.fixed {
			continue
		}
		kept++
		if t.fixed {
			fixed++
		}
		next := "say --overwrite to replace it"
		if t.fixed {
			next = "move it away"
		}
		g.a.warn(fcp.Errorf(fcp.CodeNotEmpty, "%s: %s", t.name, t.inTheWay).WithNext(next))
	}
	switch {
	case fixed > 0:
		return fcp.Errorf(fcp.CodeNotEmpty, "in %s %d of %d files would replace what is there, %d of that directories; nothing was written", g.dir, kept, g.all(), fixed).
			WithNext("see the warnings; name another directory, or move those away")
	case kept > 0:
		return fcp.Errorf(fcp.CodeNotEmpty, "in %s %d of %d files would replace what is there; nothing was written", g.dir, kept, g.all()).
			WithNext("see the warnings; name another directory, or say --overwrite to replace those, and only those")
	}
	return nil
}

// look notes what is where the file of an object belongs.
func (g *treeGet) look(ctx context.Context, t *target) error {
	st, err := g.root.Lstat(t.name)
	if err != nil { // nothing, or a way there that writing will tell of
		return nil
	}
	if to, err := g.root.Stat(t.name); err == nil && to.IsDir() {
		t.inTheWay, t.fixed = "it is a directory", true
		return nil
	}
	if !st.Mode().IsRegular() {
		t.inTheWay = "it is no regular file"
		return nil
	}
	r, err := g.e.Get(ctx, t.req)
	if err != nil && ofOneName(err) {
		t.err = err
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	t.info = r.Info()
	if t.info.Size != st.Size() {
		t.inTheWay = fmt.Sprintf("it has %d bytes, the object %d", st.Size(), t.info.Size)
		return nil
	}
	f, err := g.root.Open(t.name)
	if err != nil {
		t.inTheWay = "it cannot be read"
		return nil
	}
	defer f.Close()
	if t.unchanged = sameBytes(f, r); !t.unchanged {
		t.inTheWay = "it has other bytes"
	}
	return nil
}

// write writes what is not there.
func (g *treeGet) write(ctx context.Context, p *progress, asOf uint64) error {
	l := g.a.list("File", asOf, "SIZE", "VERSION", "PATH")
	written, unchanged := 0, 0
	for i, t := range g.targets {
		p.tell("", uint64(i), uint64(len(g.targets)))
		if t.err == nil && !t.unchanged {
			t.info, t.err = g.writeOne(ctx, t)
		}
		switch {
		case t.err != nil && ctx.Err() == nil && ofOneName(t.err):
			g.fail(t)
			continue
		case t.err != nil:
			return fcp.Wrap(fcp.CodeInternal, t.err, "%q", t.req.Key)
		case t.unchanged:
			unchanged++
		default:
			written++
		}
		if t.unchanged && g.a.flags.format == formatTable {
			continue
		}
		v := viewObject(&t.info)
		v.Unchanged = t.unchanged
		if err := l.add(v, t.req.Key, decimal(uint64(t.info.Size)), g.a.short(v.Version), t.name); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	told := fmt.Sprintf("%d of %d files written", written, g.all())
	if unchanged > 0 {
		told += fmt.Sprintf(", %d were there already", unchanged)
	}
	g.a.answered(asOf, told)
	return g.outcome()
}

func (g *treeGet) fail(t *target) {
	if g.failed++; g.first == nil {
		g.first = t.err
	}
	g.a.warn(fcp.Wrap(fcp.CodeInternal, t.err, "%q", t.req.Key))
}

// outcome is the error of what could not be written.
func (g *treeGet) outcome() error {
	switch one := "`" + g.a.command("object", "get", "KEY", "PATH") + "`"; {
	case g.failed > 0:
		return &exitError{fcp.Errorf(fcp.CodeOf(g.first), "%d of %d objects could not be written to %s; the others are", g.refused+g.failed, g.all(), g.dir).
			WithNext("see the warnings; read those one by one: " + one), exitFindings}
	case g.refused > 0:
		return &exitError{fcp.Errorf(fcp.CodeInvalidArgument, "%d of %d names cannot be paths inside %s", g.refused, g.all(), g.dir).
			WithNext("read those one by one: " + one), exitFindings}
	}
	return nil
}

func (g *treeGet) writeOne(ctx context.Context, t *target) (engine.Info, error) {
	r, err := g.e.Get(ctx, t.req)
	if err != nil {
		return engine.Info{}, err
	}
	defer r.Close()
	if parent := path.Dir(t.name); parent != "." {
		if err := g.root.MkdirAll(parent, 0o777); err != nil {
			return engine.Info{}, inputError(err, "the directory of "+t.name)
		}
	}
	return r.Info(), writeIn(g.root, t.name, g.o.overwrite, r)
}

// ofOneName reports whether an error is about one name, its bytes or its path, so that
// the other names of a tree can still be read.
func ofOneName(err error) bool {
	switch fcp.CodeOf(err).Class() {
	case fcp.Invalid, fcp.Denied, fcp.NotEnough, fcp.Corrupt:
		return true
	}
	return errors.Is(err, fcp.CodeNotEmpty)
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
	case isPartial(name):
		return "so are files called that are not finished"
	}
	return ""
}
