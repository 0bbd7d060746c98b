package walfs

import "github.com/cockroachdb/pebble/v2/vfs"

// rotated answers a request for a new WAL. Pebble v2.1.7 panics when a rotation
// fails (DB.rotateWAL), and with a lock in a state that ends the whole process
// (unlock of an unlocked mutex). So once a store is open it gets a file that
// refuses every write and sync with the error: the commit that needed the
// rotation then fails like any other commit whose disk fails.
func (f *FS) rotated(dir string, w vfs.File, err error) (vfs.File, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.dirs[dir]
	if err != nil && s.used {
		return broken{err}, nil
	}
	s.used = s.used || err == nil
	return w, err
}

// broken is a WAL that could not be made.
type broken struct{ err error }

var _ vfs.File = broken{}

func (broken) Close() error                              { return nil }
func (b broken) Read([]byte) (int, error)                { return 0, b.err }
func (b broken) ReadAt([]byte, int64) (int, error)       { return 0, b.err }
func (b broken) Write([]byte) (int, error)               { return 0, b.err }
func (b broken) WriteAt([]byte, int64) (int, error)      { return 0, b.err }
func (broken) Preallocate(int64, int64) error            { return nil }
func (b broken) Stat() (vfs.FileInfo, error)             { return nil, b.err }
func (b broken) Sync() error                             { return b.err }
func (b broken) SyncTo(int64) (fullSync bool, err error) { return false, b.err }
func (b broken) SyncData() error                         { return b.err }
func (broken) Prefetch(int64, int64) error               { return nil }
func (broken) Fd() uintptr                               { return vfs.InvalidFd }
