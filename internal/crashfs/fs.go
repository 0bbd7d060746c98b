package crashfs

import (
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// unlimitedDisk is the size that GetDiskUsage reports when no space was set.
const unlimitedDisk = 1 << 40

// FS is the file system. Make one with New, Load, Crash or CrashClone. All
// methods are safe for concurrent use. Errors are *os.PathError or
// *os.LinkError around a syscall.Errno, ErrStopped, or what the hook returned.
type FS struct {
	mu       sync.RWMutex // guards all nodes and the fields up to the blank line
	root     *node
	locks    map[string]bool // cleaned paths locked through this FS
	clock    int64           // seconds; advances with each change
	capacity int64           // bytes; negative means no limit
	used     int64           // bytes

	hook      atomic.Pointer[Hook]
	stopAt    atomic.Int64
	stopped   atomic.Bool
	mutations atomic.Int64
	counts    [kinds]atomic.Int64
}

var _ vfs.FS = (*FS)(nil)

// New returns an empty file system without a space limit. Its root directory
// exists and is durable.
func New() *FS {
	f := &FS{root: newDir(), locks: map[string]bool{}, capacity: -1}
	f.stopAt.Store(1<<63 - 1)
	return f
}

// clean returns the path as used for lookups: "" for the root, else names
// joined by single slashes.
func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: name, Err: err}
}

// find returns the node at name.
func (f *FS) find(name string) (*node, error) {
	n := f.root
	for _, part := range split(clean(name)) {
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		if n = n.entries[part]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// parent returns the directory that holds name, and its last element.
func (f *FS) parent(name string) (*node, string, error) {
	c := clean(name)
	if c == "" {
		return nil, "", syscall.EINVAL
	}
	dir, err := f.find(path.Dir("/" + c))
	if err != nil {
		return nil, "", err
	}
	if !dir.dir {
		return nil, "", syscall.ENOTDIR
	}
	return dir, path.Base(c), nil
}

func split(c string) []string {
	if c == "" {
		return nil
	}
	return strings.Split(c, "/")
}

// tick returns the time of a change: seconds of a clock that only changes move,
// so that images do not depend on the wall clock.
func (f *FS) tick() time.Time {
	f.clock++
	return time.Unix(f.clock, 0).UTC()
}

// release gives the node's space back once it has no name and no handle.
func (f *FS) release(n *node) {
	if n != nil && n.links == 0 && n.handles == 0 {
		f.used -= n.space()
	}
}

// addFile makes an empty file at dir/base, removing a file that was there.
func (f *FS) addFile(dir *node, base string) (*node, error) {
	old := dir.entries[base]
	if old != nil && old.dir {
		return nil, syscall.EISDIR
	}
	if f.free() < pageSize {
		return nil, syscall.ENOSPC
	}
	if old != nil {
		dir.put(base, nil, &step{})
		f.release(old)
	}
	n := newFile()
	n.modTime = f.tick()
	dir.put(base, n, &step{})
	return n, nil
}

// Create implements vfs.FS. A file that exists is removed first: the handle is
// always of a new file. The handle can be read, too.
func (f *FS) Create(name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.begin(Create, name); err != nil {
		return nil, pathError("create", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	n, err := f.addFile(dir, base)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	return f.handle(n, name, true), nil
}

// Link implements vfs.FS.
func (f *FS) Link(oldname, newname string) error {
	fail := func(err error) error {
		return &os.LinkError{Op: "link", Old: oldname, New: newname, Err: err}
	}
	if err := f.begin(Link, oldname); err != nil {
		return fail(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(oldname)
	if err != nil {
		return fail(err)
	}
	if n.dir {
		return fail(syscall.EPERM)
	}
	dir, base, err := f.parent(newname)
	if err != nil {
		return fail(err)
	}
	if dir.entries[base] != nil {
		return fail(syscall.EEXIST)
	}
	dir.put(base, n, &step{})
	return nil
}

// Open implements vfs.FS. The handle cannot be written.
func (f *FS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if err := f.begin(Open, name); err != nil {
		return nil, pathError("open", name, err)
	}
	f.mu.Lock()
	n, err := f.find(name)
	if err != nil {
		f.mu.Unlock()
		return nil, pathError("open", name, err)
	}
	h := f.handle(n, name, false)
	f.mu.Unlock()
	for _, o := range opts {
		o.Apply(h)
	}
	return h, nil
}

// OpenReadWrite implements vfs.FS. Writing starts at the beginning of the file.
func (f *FS) OpenReadWrite(name string, _ vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f.mu.RLock()
	_, err := f.find(name)
	f.mu.RUnlock()
	kind := Open
	if err != nil {
		kind = Create
	}
	if err := f.begin(kind, name); err != nil {
		return nil, pathError("open", name, err)
	}
	h, err := f.openReadWrite(name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	for _, o := range opts {
		o.Apply(h)
	}
	return h, nil
}

func (f *FS) openReadWrite(name string) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		return nil, err
	}
	n := dir.entries[base]
	if n == nil {
		if n, err = f.addFile(dir, base); err != nil {
			return nil, err
		}
	}
	if n.dir {
		return nil, syscall.EISDIR
	}
	return f.handle(n, name, true), nil
}

// OpenDir implements vfs.FS.
func (f *FS) OpenDir(name string) (vfs.File, error) {
	if err := f.begin(OpenDir, name); err != nil {
		return nil, pathError("open", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.find(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return f.handle(n, name, false), nil
}

// Remove implements vfs.FS. A directory must be empty.
func (f *FS) Remove(name string) error {
	if err := f.begin(Remove, name); err != nil {
		return pathError("remove", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err != nil {
		return pathError("remove", name, err)
	}
	n := dir.entries[base]
	if n == nil {
		return pathError("remove", name, syscall.ENOENT)
	}
	if n.dir && len(n.entries) > 0 {
		return pathError("remove", name, syscall.ENOTEMPTY)
	}
	dir.put(base, nil, &step{})
	f.release(n)
	return nil
}

// RemoveAll implements vfs.FS. Each entry removed is its own unsynced change.
// A path that does not exist is no error.
func (f *FS) RemoveAll(name string) error {
	if err := f.begin(RemoveAll, name); err != nil {
		return pathError("removeall", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir, base, err := f.parent(name)
	if err == syscall.ENOENT {
		return nil
	}
	if err != nil {
		return pathError("removeall", name, err)
	}
	if dir.entries[base] != nil {
		f.removeTree(dir, base)
	}
	return nil
}

func (f *FS) removeTree(dir *node, base string) {
	n := dir.entries[base]
	if n.dir {
		for _, name := range sortedNames(n.entries) {
			f.removeTree(n, name)
		}
	}
	dir.put(base, nil, &step{})
	f.release(n)
}

// Rename implements vfs.FS: one step that replaces a file at newname.
func (f *FS) Rename(oldname, newname string) error {
	err := f.begin(Rename, oldname)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		_, err = f.rename(oldname, newname)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: oldname, New: newname, Err: err}
	}
	return nil
}

func (f *FS) rename(oldname, newname string) (*node, error) {
	from, oldBase, err := f.parent(oldname)
	if err != nil {
		return nil, err
	}
	to, newBase, err := f.parent(newname)
	if err != nil {
		return nil, err
	}
	n, old := from.entries[oldBase], to.entries[newBase]
	switch {
	case n == nil:
		return nil, syscall.ENOENT
	case n == old:
		return n, nil
	case n.dir && strings.HasPrefix(clean(newname)+"/", clean(oldname)+"/"):
		return nil, syscall.EINVAL
	case old != nil && old.dir && !n.dir:
		return nil, syscall.EISDIR
	case old != nil && !old.dir && n.dir:
		return nil, syscall.ENOTDIR
	case old != nil && old.dir && len(old.entries) > 0:
		return nil, syscall.ENOTEMPTY
	}
	s := &step{}
	to.put(newBase, n, s)
	from.put(oldBase, nil, s)
	f.release(old)
	return n, nil
}

// ReuseForWrite implements vfs.FS: it renames and opens without truncating.
func (f *FS) ReuseForWrite(oldname, newname string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	err := f.begin(ReuseForWrite, oldname)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		var n *node
		if n, err = f.rename(oldname, newname); err == nil {
			return f.handle(n, newname, true), nil
		}
	}
	return nil, &os.LinkError{Op: "reuse", Old: oldname, New: newname, Err: err}
}

// MkdirAll implements vfs.FS. Each new directory is an unsynced entry of its
// parent.
func (f *FS) MkdirAll(name string, _ os.FileMode) error {
	if err := f.begin(MkdirAll, name); err != nil {
		return pathError("mkdir", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	dir := f.root
	for _, part := range split(clean(name)) {
		n := dir.entries[part]
		if n == nil {
			if f.free() < pageSize {
				return pathError("mkdir", name, syscall.ENOSPC)
			}
			n = newDir()
			n.modTime = f.tick()
			dir.put(part, n, &step{})
		}
		if !n.dir {
			return pathError("mkdir", name, syscall.ENOTDIR)
		}
		dir = n
	}
	return nil
}

// Lock implements vfs.FS. A second Lock of a path fails with EAGAIN until the
// first is closed; images hold no locks.
func (f *FS) Lock(name string) (io.Closer, error) {
	if err := f.begin(Lock, name); err != nil {
		return nil, pathError("lock", name, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := clean(name)
	if f.locks[c] {
		return nil, pathError("lock", name, syscall.EAGAIN)
	}
	dir, base, err := f.parent(name)
	if err == nil && (dir.entries[base] == nil || dir.entries[base].current.size > 0) {
		_, err = f.addFile(dir, base)
	}
	if err != nil {
		return nil, pathError("lock", name, err)
	}
	f.locks[c] = true
	return &lock{fs: f, path: c}, nil
}

type lock struct {
	fs   *FS
	path string
	once sync.Once
}

func (l *lock) Close() error {
	l.once.Do(func() {
		l.fs.mu.Lock()
		defer l.fs.mu.Unlock()
		delete(l.fs.locks, l.path)
	})
	return nil
}

// List implements vfs.FS. The names are sorted.
func (f *FS) List(name string) ([]string, error) {
	if err := f.begin(List, name); err != nil {
		return nil, pathError("list", name, err)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	n, err := f.find(name)
	if err == nil && !n.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, pathError("list", name, err)
	}
	return sortedNames(n.entries), nil
}

// Stat implements vfs.FS.
func (f *FS) Stat(name string) (vfs.FileInfo, error) {
	if err := f.begin(Stat, name); err != nil {
		return nil, pathError("stat", name, err)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	n, err := f.find(name)
	if err != nil {
		return nil, pathError("stat", name, err)
	}
	return n.info(name), nil
}

// GetDiskUsage implements vfs.FS and follows SetSpace; without a limit the disk
// has 1 TiB.
func (f *FS) GetDiskUsage(name string) (vfs.DiskUsage, error) {
	if err := f.begin(GetDiskUsage, name); err != nil {
		return vfs.DiskUsage{}, pathError("statfs", name, err)
	}
	f.mu.RLock()
	defer f.mu.RUnlock()
	if _, err := f.find(name); err != nil {
		return vfs.DiskUsage{}, pathError("statfs", name, err)
	}
	total := f.capacity
	if total < 0 {
		total = unlimitedDisk
	}
	return vfs.DiskUsage{
		AvailBytes: uint64(max(0, total-f.used)),
		TotalBytes: uint64(total),
		UsedBytes:  uint64(f.used),
	}, nil
}

// PathBase implements vfs.FS.
func (*FS) PathBase(name string) string { return path.Base(name) }

// PathJoin implements vfs.FS.
func (*FS) PathJoin(elem ...string) string { return path.Join(elem...) }

// PathDir implements vfs.FS.
func (*FS) PathDir(name string) string { return path.Dir(name) }

// Unwrap implements vfs.FS; there is nothing below.
func (*FS) Unwrap() vfs.FS { return nil }

// String names the file system in Pebble's messages.
func (f *FS) String() string { return fmt.Sprintf("crashfs(%d mutations)", f.Mutations()) }
