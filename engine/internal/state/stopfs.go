package state

import (
	"io"
	"os"
	"sync/atomic"

	"fcp"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A stopFS stops changing the disk when told to. Pebble expects a fatal error
// to end the process at once; going on instead, it would clean up, for example
// remove a table that a half-written manifest already names. With the disk
// closed to it, what it still does is as if the process had died.
//
// A failed sync of a directory makes Pebble panic. Here it closes the disk and
// reads as done: nothing is built on it any more, and no flush reports success.
type stopFS struct {
	vfs.FS
	stopped atomic.Bool
	failed  func(error) // told once of the failure, on a goroutine of its own
}

// stop closes the disk.
func (f *stopFS) stop(err error) {
	if !f.stopped.Swap(true) {
		go f.failed(err) // the caller may hold Pebble's locks
	}
}

func (f *stopFS) check() error {
	if f.stopped.Load() {
		return fcp.Errorf(fcp.CodeCrashed, "the state's disk is closed after an error")
	}
	return nil
}

func (f *stopFS) file(v vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &stopFile{v, f}, nil
}

func (f *stopFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.file(f.FS.Create(name, c))
}

func (f *stopFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.file(f.FS.OpenReadWrite(name, c, o...))
}

func (f *stopFS) ReuseForWrite(from, to string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return f.file(f.FS.ReuseForWrite(from, to, c))
}

func (f *stopFS) OpenDir(name string) (vfs.File, error) {
	d, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &stopDir{d, f}, nil
}

func (f *stopFS) Link(from, to string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.Link(from, to)
}

func (f *stopFS) Remove(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

func (f *stopFS) RemoveAll(name string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.RemoveAll(name)
}

func (f *stopFS) Rename(from, to string) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

func (f *stopFS) MkdirAll(dir string, perm os.FileMode) error {
	if err := f.check(); err != nil {
		return err
	}
	return f.FS.MkdirAll(dir, perm)
}

func (f *stopFS) Lock(name string) (io.Closer, error) {
	l, err := f.FS.Lock(name)
	return l, fcp.Wrap(fcp.CodeLocked, err, "lock the state directory")
}

func (f *stopFS) Unwrap() vfs.FS { return f.FS }

type stopFile struct {
	vfs.File
	fs *stopFS
}

func (f *stopFile) Write(p []byte) (int, error) {
	if err := f.fs.check(); err != nil {
		return 0, err
	}
	return f.File.Write(p)
}

func (f *stopFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.fs.check(); err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

func (f *stopFile) Preallocate(off, n int64) error {
	if err := f.fs.check(); err != nil {
		return err
	}
	return f.File.Preallocate(off, n)
}

func (f *stopFile) Sync() error {
	if err := f.fs.check(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *stopFile) SyncData() error {
	if err := f.fs.check(); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *stopFile) SyncTo(n int64) (bool, error) {
	if err := f.fs.check(); err != nil {
		return false, err
	}
	return f.File.SyncTo(n)
}

type stopDir struct {
	vfs.File
	fs *stopFS
}

func (d *stopDir) Sync() error {
	if d.fs.stopped.Load() {
		return nil
	}
	if err := d.File.Sync(); err != nil {
		d.fs.stop(fcp.Errorf(fcp.CodeCrashed, "sync the state directory: %w", err))
	}
	return nil
}
