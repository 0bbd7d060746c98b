package crashfs

import (
	"errors"
	"io"
	"os"
	"path"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// file is an open file or directory. Its fields are guarded by FS.mu.
type file struct {
	fs     *FS
	n      *node
	name   string
	pos    int64
	write  bool
	closed bool
}

var _ vfs.File = (*file)(nil)

// handle opens n; FS.mu must be held.
func (f *FS) handle(n *node, name string, write bool) *file {
	n.handles++
	return &file{fs: f, n: n, name: name, write: write}
}

// check refuses use after Close and use of directories as files; FS.mu must be
// held.
func (h *file) check(asFile bool) error {
	switch {
	case h.closed:
		return os.ErrClosed
	case asFile && h.n.dir:
		return syscall.EISDIR
	}
	return nil
}

// Close releases the handle. It makes nothing durable.
func (h *file) Close() error {
	_ = h.fs.begin(Close, h.name)
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(false); err != nil {
		return pathError("close", h.name, err)
	}
	h.closed = true
	h.n.handles--
	h.fs.release(h.n)
	return nil
}

func (h *file) Read(p []byte) (int, error) {
	if err := h.fs.begin(Read, h.name); err != nil {
		return 0, pathError("read", h.name, err)
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(true); err != nil {
		return 0, pathError("read", h.name, err)
	}
	n := h.n.current.readAt(p, h.pos)
	h.pos += int64(n)
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (h *file) ReadAt(p []byte, off int64) (int, error) {
	if err := h.fs.begin(Read, h.name); err != nil {
		return 0, pathError("read", h.name, err)
	}
	h.fs.mu.RLock()
	defer h.fs.mu.RUnlock()
	err := h.check(true)
	if err == nil && off < 0 {
		err = syscall.EINVAL
	}
	if err != nil {
		return 0, pathError("read", h.name, err)
	}
	n := h.n.current.readAt(p, off)
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (h *file) Write(p []byte) (int, error) {
	if err := h.fs.begin(Write, h.name); err != nil {
		return 0, pathError("write", h.name, err)
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	n, err := h.writeAt(p, h.pos)
	h.pos += int64(n)
	return n, err
}

func (h *file) WriteAt(p []byte, off int64) (int, error) {
	if err := h.fs.begin(Write, h.name); err != nil {
		return 0, pathError("write", h.name, err)
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	return h.writeAt(p, off)
}

func (h *file) writeAt(p []byte, off int64) (int, error) {
	err := h.check(true)
	switch {
	case err != nil:
	case !h.write:
		err = syscall.EBADF
	case off < 0:
		err = syscall.EINVAL
	}
	if err != nil {
		return 0, pathError("write", h.name, err)
	}
	before := h.n.space()
	if free := h.fs.free(); pagesFor(off+int64(len(p)))-before > free {
		p = p[:max(0, before+free/pageSize*pageSize-off)]
		err = pathError("write", h.name, syscall.ENOSPC)
	}
	h.n.write(p, off)
	h.n.modTime = h.fs.tick()
	h.fs.used += h.n.space() - before
	return len(p), err
}

// Preallocate implements vfs.File and does nothing.
func (h *file) Preallocate(_, _ int64) error {
	if err := h.fs.begin(Preallocate, h.name); err != nil {
		return pathError("preallocate", h.name, err)
	}
	return nil
}

// Sync makes all writes to the file, or all entries of the directory, durable.
func (h *file) Sync() error {
	kind := Sync
	if h.n.dir {
		kind = SyncDir
	}
	err := h.fs.begin(kind, h.name)
	if errors.Is(err, ErrPretend) {
		return nil
	}
	if err != nil {
		return pathError("sync", h.name, err)
	}
	h.fs.mu.Lock()
	defer h.fs.mu.Unlock()
	if err := h.check(false); err != nil {
		return pathError("sync", h.name, err)
	}
	h.n.sync()
	return nil
}

// SyncData is Sync: the size needed to read the data back is part of it.
func (h *file) SyncData() error { return h.Sync() }

// SyncTo implements vfs.File; it makes nothing durable.
func (h *file) SyncTo(int64) (fullSync bool, err error) {
	if err := h.fs.begin(SyncTo, h.name); err != nil {
		return false, pathError("syncto", h.name, err)
	}
	return false, nil
}

// Prefetch implements vfs.File and does nothing.
func (h *file) Prefetch(_, _ int64) error {
	if err := h.fs.begin(Prefetch, h.name); err != nil {
		return pathError("prefetch", h.name, err)
	}
	return nil
}

// Fd implements vfs.File: there is no descriptor.
func (h *file) Fd() uintptr { return vfs.InvalidFd }

func (h *file) Stat() (vfs.FileInfo, error) {
	if err := h.fs.begin(Stat, h.name); err != nil {
		return nil, pathError("stat", h.name, err)
	}
	h.fs.mu.RLock()
	defer h.fs.mu.RUnlock()
	if err := h.check(false); err != nil {
		return nil, pathError("stat", h.name, err)
	}
	return h.n.info(h.name), nil
}

func (n *node) info(name string) vfs.FileInfo {
	return info{name: path.Base(name), size: n.current.size, dir: n.dir, modTime: n.modTime}
}

type info struct {
	name    string
	size    int64
	dir     bool
	modTime time.Time
}

func (i info) Name() string           { return i.name }
func (i info) Size() int64            { return i.size }
func (i info) ModTime() time.Time     { return i.modTime }
func (i info) IsDir() bool            { return i.dir }
func (i info) Sys() any               { return nil }
func (i info) DeviceID() vfs.DeviceID { return vfs.DeviceID{} }

func (i info) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o755
	}
	return 0o644
}
