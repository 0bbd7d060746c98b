package blob

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// tempDir holds files on their way, and the lock. It is no part of the store:
// nothing in it is ever read, and OpenFiles with Lock empties it.
const (
	tempDir  = ".tmp"
	lockFile = "LOCK"
)

// copySize is the unit in which Put copies and looks at its context.
const copySize = 256 << 10

// Files is a Store in a folder. A blob is first written to a file of its own
// under .tmp, synced, renamed to its name, and the folder synced.
//
// Names are checked and then used as paths, so a blob is an ordinary file that
// any tool can copy. Two processes must not write into one folder: see Lock.
type Files struct {
	fs  vfs.FS
	dir string

	mu    sync.Mutex
	next  uint64          // of temporary names; guarded by mu
	known map[string]bool // directories that are there and synced; guarded by mu
	busy  map[string]bool // names being put; guarded by mu
}

// NewFiles returns the store in dir. Nothing is made before the first Put.
func NewFiles(files vfs.FS, dir string) *Files {
	return &Files{fs: files, dir: dir, known: map[string]bool{}, busy: map[string]bool{}}
}

// Lock implements Locker: it takes the folder for this process and removes what an
// interrupted Put left. CodeLocked when another holds it. Close gives it free.
func (s *Files) Lock(_ context.Context) (io.Closer, error) {
	temp := s.path(tempDir)
	if err := s.makeDir(tempDir); err != nil {
		return nil, err
	}
	l, err := s.fs.Lock(s.fs.PathJoin(temp, lockFile))
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeLocked, "backup folder %s", s.dir)
	}
	names, err := s.fs.List(temp)
	for _, n := range names {
		if n != lockFile {
			err = errors.Join(err, s.fs.Remove(s.fs.PathJoin(temp, n)))
		}
	}
	if err != nil {
		return nil, errors.Join(wrapDisk(err, "empty", tempDir), l.Close())
	}
	return l, nil
}

func (s *Files) path(name string) string {
	return s.fs.PathJoin(append([]string{s.dir}, strings.Split(name, "/")...)...)
}

// Put implements Store.
func (s *Files) Put(ctx context.Context, name string, r io.Reader) (size int64, err error) {
	if err := CheckName(name); err != nil {
		return 0, err
	}
	temp, err := s.begin(name)
	if err != nil {
		return 0, err
	}
	defer s.end(name)
	if _, err := s.fs.Stat(s.path(name)); err == nil {
		return 0, exists(name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return 0, wrapDisk(err, "look for", name)
	}
	parent := parentOf(name)
	if err := s.makeDir(parent); err != nil {
		return 0, err
	}
	if err := s.makeDir(tempDir); err != nil {
		return 0, err
	}
	if size, err = s.write(ctx, temp, r); err == nil {
		err = wrapDisk(s.fs.Rename(temp, s.path(name)), "name", name)
	}
	if err != nil {
		_ = s.fs.Remove(temp) // it may not be there; Lock removes what stays
		return 0, err
	}
	return size, wrapDisk(s.syncDir(parent), "sync the folder of", name)
}

// begin reserves a name and returns the path of a temporary file.
func (s *Files) begin(name string) (temp string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[name] {
		return "", exists(name)
	}
	s.busy[name] = true
	s.next++
	return s.fs.PathJoin(s.dir, tempDir, strconv.FormatUint(s.next, 10)), nil
}

func (s *Files) end(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, name)
}

func (s *Files) write(ctx context.Context, path string, r io.Reader) (size int64, err error) {
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, wrapDisk(err, "create", "a file")
	}
	defer func() { err = errors.Join(err, wrapDisk(f.Close(), "close", "a file")) }()
	buf := make([]byte, copySize)
	for {
		if ctx.Err() != nil {
			return 0, ctxError(ctx)
		}
		n, rerr := io.ReadFull(r, buf)
		if n > 0 {
			if _, err := f.Write(buf[:n]); err != nil {
				return 0, wrapDisk(err, "write", "a file")
			}
			size += int64(n)
		}
		switch {
		case rerr == io.EOF || rerr == io.ErrUnexpectedEOF:
			return size, wrapDisk(f.Sync(), "sync", "a file")
		case rerr != nil:
			return 0, fcp.Wrap(fcp.CodeDisk, rerr, "read what is to be stored")
		}
	}
}

// makeDir makes a directory and those above it, and syncs the parent of each one
// made, so that a blob is not lost with its folder.
func (s *Files) makeDir(name string) error {
	s.mu.Lock()
	known := s.known[name]
	s.mu.Unlock()
	if known {
		return nil
	}
	path := s.dir
	if name != "" {
		if err := s.makeDir(parentOf(name)); err != nil {
			return err
		}
		path = s.path(name)
	}
	_, err := s.fs.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.fs.MkdirAll(path, 0o700); err == nil {
			if name == "" {
				err = s.syncPath(s.fs.PathDir(path))
			} else {
				err = s.syncDir(parentOf(name))
			}
		}
	}
	if err != nil {
		return wrapDisk(err, "make the folder", name)
	}
	s.mu.Lock()
	s.known[name] = true
	s.mu.Unlock()
	return nil
}

func parentOf(name string) string {
	return name[:max(strings.LastIndexByte(name, '/'), 0)]
}

func (s *Files) syncDir(name string) error {
	if name == "" {
		return s.syncPath(s.dir)
	}
	return s.syncPath(s.path(name))
}

func (s *Files) syncPath(path string) error {
	d, err := s.fs.OpenDir(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Get implements Store.
func (s *Files) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if _, err := s.Stat(ctx, name); err != nil {
		return nil, err
	}
	f, err := s.fs.Open(s.path(name), vfs.SequentialReadsOption)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, notFound(name)
	}
	if err != nil {
		return nil, wrapDisk(err, "open", name)
	}
	return &reader{ctx, f}, nil
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	f   vfs.File
}

func (r *reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, ctxError(r.ctx)
	}
	return r.f.Read(p)
}

func (r *reader) Close() error { return r.f.Close() }

// Stat implements Store.
func (s *Files) Stat(ctx context.Context, name string) (Info, error) {
	if err := CheckName(name); err != nil {
		return Info{}, err
	}
	if ctx.Err() != nil {
		return Info{}, ctxError(ctx)
	}
	i, err := s.fs.Stat(s.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), err == nil && i.IsDir():
		return Info{}, notFound(name)
	case err != nil:
		return Info{}, wrapDisk(err, "look for", name)
	case !i.Mode().IsRegular(): // a FIFO would hang whoever reads it
		return Info{}, fcp.Errorf(fcp.CodeManifest, "%s is not a regular file", name)
	}
	return Info{name, i.Size()}, nil
}

// List implements Store.
func (s *Files) List(ctx context.Context, prefix string, fn func(Info) error) error {
	return s.list(ctx, "", prefix, fn)
}

// list walks one directory. A directory sorts as its name with a slash, which is
// how the names below it begin.
func (s *Files) list(ctx context.Context, dir, prefix string, fn func(Info) error) error {
	if ctx.Err() != nil {
		return ctxError(ctx)
	}
	path := s.dir
	if dir != "" {
		path = s.fs.PathJoin(s.dir, dir)
	}
	names, err := s.fs.List(path)
	if dir == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return wrapDisk(err, "list the folder", dir)
	}
	entries := make([]Info, 0, len(names))
	for _, n := range names {
		full := n
		if dir != "" {
			full = dir + "/" + n
		}
		if full == tempDir || !strings.HasPrefix(full+"/", prefix) && !strings.HasPrefix(prefix, full+"/") {
			continue
		}
		i, err := s.fs.Stat(s.fs.PathJoin(path, n))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile, or a link that leads nowhere
		}
		if err != nil {
			return wrapDisk(err, "look for", full)
		}
		if i.IsDir() {
			entries = append(entries, Info{full + "/", 0})
		} else if strings.HasPrefix(full, prefix) {
			entries = append(entries, Info{full, i.Size()})
		}
	}
	slices.SortFunc(entries, func(a, b Info) int { return strings.Compare(a.Name, b.Name) })
	for _, e := range entries {
		if below, isDir := strings.CutSuffix(e.Name, "/"); isDir {
			err = s.list(ctx, below, prefix, fn)
		} else {
			err = fn(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Delete implements Store.
func (s *Files) Delete(ctx context.Context, name string) error {
	if _, err := s.Stat(ctx, name); err != nil {
		return err
	}
	if err := s.fs.Remove(s.path(name)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return notFound(name)
		}
		return wrapDisk(err, "remove", name)
	}
	return wrapDisk(s.syncDir(parentOf(name)), "sync the folder of", name)
}

var (
	_ Store  = (*Files)(nil)
	_ Locker = (*Files)(nil)
)
