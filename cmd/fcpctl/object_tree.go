package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"fcp"
	"fcp/engine"
	"fcp/node/api"
)

// treeWorkers is how many files of a tree are written at once: they share the
// fsync of one commit group.
const treeWorkers = 8

// treeFile is one file of a tree and the name it gets.
type treeFile struct {
	path, key string
	res       engine.PutResult
	err       error
	unread    error // the file could not be read, and nothing was written
	unchanged bool  // its bytes are the current version's; nothing was written
	done      chan struct{}
}

// tree is what stands below a directory.
type tree struct {
	files  []*treeFile
	left   []string // neither a regular file nor a directory
	unread []error  // directories that cannot be read, and files whose names cannot be keys
}

// findTree lists the regular files under dir in byte order of their paths, and
// what it leaves out.
func findTree(prefix, dir string) (t tree, err error) {
	prefix = strings.TrimSuffix(prefix, "/")
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil && p == dir {
			return inputError(err, "the tree")
		}
		if err != nil {
			t.unread = append(t.unread, inputError(err, "the tree"))
			return nil
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			t.left = append(t.left, p)
			return nil
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return inputError(err, "the tree")
		}
		key := path.Join(filepath.ToSlash(rel))
		if prefix != "" {
			key = prefix + "/" + key
		}
		if !utf8.ValidString(key) || len(key) > fcp.MaxKey {
			t.unread = append(t.unread, fcp.Errorf(fcp.CodeInvalidArgument, "the name of %s is not UTF-8, or as a key longer than %d bytes", p, fcp.MaxKey).
				WithNext("rename that file"))
			return nil
		}
		t.files = append(t.files, &treeFile{path: p, key: key, done: make(chan struct{})})
		return nil
	})
	return t, err
}

func (a *app) putTree(ctx context.Context, e api.Store, o *writeOptions, prefix, dir string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return inputError(err, "the tree")
	}
	if !st.IsDir() {
		return fcp.Errorf(fcp.CodeInvalidArgument, "%s is not a directory", dir).WithNext("put a single file without -r")
	}
	found, err := findTree(prefix, dir)
	if err != nil {
		return err
	}
	return a.putFound(ctx, e, o, found, dir)
}

// putFound writes the files that were found in a tree. What cannot be read is named and
// does not keep the others from being written.
func (a *app) putFound(ctx context.Context, e api.Store, o *writeOptions, found tree, dir string) error {
	for _, p := range found.left {
		a.note("left out, not a regular file: %s", p)
	}
	for _, err := range found.unread {
		a.warn(err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop() // before waiting, so that a failure does not wait for the rest
	todo := make(chan *treeFile)
	for range treeWorkers {
		wg.Go(func() {
			for f := range todo {
				f.put(ctx, e, o)
				close(f.done)
			}
		})
	}
	wg.Go(func() {
		defer close(todo)
		for _, f := range found.files {
			select {
			case todo <- f:
			case <-ctx.Done():
				return
			}
		}
	})
	unread, err := a.printTree(ctx, e, o, found.files)
	if unread += len(found.unread); err == nil && unread > 0 {
		err = &exitError{fcp.Errorf(fcp.CodeInvalidArgument, "%d files or directories of %s could not be read, or their names be used; the others are written", unread, dir).
			WithNext("mend those and run the same command again: what is unchanged is not written twice"), exitFindings}
	}
	return err
}

// put writes the file's bytes as a version of its name. Where nothing was asked of the
// write, a file that is as the one current version has it is left alone.
func (f *treeFile) put(ctx context.Context, e api.Store, o *writeOptions) {
	plain := o.expect.Expect == (engine.Expect{}) && o.idempotency == "" && !o.always
	if plain && f.same(ctx, e, fcp.ZoneID(*o.zone)) {
		f.unchanged = true
		return
	}
	in, err := openInput(f.path)
	if err != nil {
		f.unread = err
		return
	}
	defer in.Close()
	req := engine.PutRequest{Zone: fcp.ZoneID(*o.zone), Key: f.key, Body: in, Expect: o.expect.Expect, DryRun: o.dryRun}
	if o.idempotency != "" {
		req.Idempotency = o.idempotency + "\x00" + f.key
	}
	f.res, f.err = e.Put(ctx, req)
}

// same reports whether the current version of the name, the only one, has the bytes of the
// file, and notes it. Whatever stands in the way of knowing (no such name, a body that
// cannot be read here) is a reason to write.
func (f *treeFile) same(ctx context.Context, e api.Store, zone fcp.ZoneID) bool {
	st, err := os.Stat(f.path)
	if err != nil {
		return false
	}
	r, err := e.Get(ctx, engine.GetRequest{Zone: zone, Key: f.key})
	if err != nil {
		return false
	}
	defer r.Close()
	info := r.Info()
	if info.Size != st.Size() || info.Siblings > 0 {
		return false
	}
	in, err := openInput(f.path)
	if err != nil {
		return false
	}
	defer in.Close()
	f.res.Version = info.Version
	return sameBytes(in, r)
}

// sameBytes reads both to the first difference.
func sameBytes(a, b io.Reader) bool {
	const piece = 64 << 10
	buf := make([]byte, 2*piece)
	x, y := buf[:piece], buf[piece:]
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		switch end := errA == io.EOF || errA == io.ErrUnexpectedEOF; {
		case !bytes.Equal(x[:n], y[:m]):
			return false
		case end:
			return errB == io.EOF || errB == io.ErrUnexpectedEOF
		case errA != nil || errB != nil:
			return false
		}
	}
}

// printTree prints the results in the order of the files, as they come, and returns
// how many files could not be read.
func (a *app) printTree(ctx context.Context, e api.Store, o *writeOptions, files []*treeFile) (unread int, err error) {
	p := a.progress("put", "files")
	defer p.done()
	l := a.list("Version", e.Position(), "GENERATION", "SIZE", "VERSION", "KEY")
	var planned []eventView
	var size uint64
	unchanged := 0
	for i, f := range files {
		select {
		case <-f.done:
		case <-ctx.Done():
			return unread, interrupted()
		}
		if f.err != nil {
			if i > 0 {
				a.note("%d of %d files were written before this", i-unread, len(files))
			}
			return unread, a.writeError(f.err, f.key)
		}
		p.tell("", uint64(i+1), uint64(len(files)))
		if i == len(files)-1 {
			if err := a.spread(ctx, e, o); err != nil {
				return unread, err
			}
		}
		if f.unread != nil {
			unread++
			a.warn(f.unread)
			continue
		}
		v := viewPut(fcp.ZoneID(*o.zone), f.key, &f.res)
		size += v.Size
		if f.unchanged {
			unchanged++
			v.Unchanged, v.DryRun, v.Durable = true, false, ""
			if a.flags.format == formatTable {
				continue
			}
		} else if o.dryRun && a.flags.format == formatTable {
			planned = append(planned, v.Planned...)
			continue
		}
		if err := l.add(v, v.Key, decimal(v.Generation), decimal(v.Size), a.short(v.Hash), v.Key); err != nil {
			return unread, err
		}
	}
	if planned != nil {
		return unread, a.printPlanned(planned)
	}
	if err := l.close(); err != nil {
		return unread, err
	}
	told := fmt.Sprintf("%d files, %d bytes", len(files)-unread, size)
	if unchanged > 0 {
		told += fmt.Sprintf(", %d of them unchanged: nothing written", unchanged)
	}
	a.answered(e.Position(), told)
	return unread, nil
}

// removeTree writes a tombstone for the name and for every one below it: what `put -r`
// and `get -r` of the same name mean, and never a name that merely begins alike.
func (a *app) removeTree(ctx context.Context, e api.Store, o *writeOptions, prefix string, yes bool) error {
	var keys []string
	below := prefix == "" || strings.HasSuffix(prefix, "/")
	err := e.List(ctx, engine.ListRequest{Zone: fcp.ZoneID(*o.zone), Prefix: prefix}, func(entry *engine.Entry) error {
		if below || entry.Key == prefix || strings.HasPrefix(entry.Key, prefix+"/") {
			keys = append(keys, entry.Key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(keys) == 0 {
		return a.notFound(fcp.Errorf(fcp.CodeNotFound, "nothing is at or below %q", prefix), prefix)
	}
	if !o.dryRun {
		if err := a.confirm(yes, fmt.Sprintf("this removes %d objects at or below %q.", len(keys), prefix)); err != nil {
			return err
		}
	}
	l := a.list("Version", e.Position(), "GENERATION", "VERSION", "KEY")
	var planned []eventView
	for _, key := range keys {
		req := removeRequest(o, key)
		if o.idempotency != "" {
			req.Idempotency = o.idempotency + "\x00" + key
		}
		res, err := e.Remove(ctx, req)
		if err != nil {
			return a.writeError(err, key)
		}
		v := viewPut(fcp.ZoneID(*o.zone), key, &res)
		if o.dryRun && a.flags.format == formatTable {
			planned = append(planned, v.Planned...)
			continue
		}
		if err := l.add(v, key, decimal(v.Generation), a.short(v.Hash), key); err != nil {
			return err
		}
	}
	if planned != nil {
		return a.printPlanned(planned)
	}
	return l.end(e.Position())
}
