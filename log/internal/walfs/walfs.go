package walfs

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

const (
	defaultSize  = 17 << 20
	defaultChunk = 1 << 20

	// walCategory is what Pebble passes for WALs only; copies of logs in a
	// checkpoint have another one.
	walCategory = vfs.DiskWriteCategory("pebble-wal")
	walSuffix   = ".log"

	manifestPrefix = "MANIFEST-"

	markerPrefix = "marker."

	// Pebble takes no notice of names that do not start with a number or one of
	// its own words.
	sparePrefix = "walfs-"
	spareSuffix = ".spare"
)

// Options tune the wrapper. The zero value suits a memtable of 16 MiB.
type Options struct {
	// Size is how many bytes of zeros a WAL should have: the memtable's size
	// and some slack. 0 means 17 MiB.
	Size int64
	// Chunk is how many bytes are zeroed at a time, in bytes. 0 means 1 MiB.
	Chunk int64
	// Reserve is the free space below which no spare is made: twice Size and
	// this many bytes must be left.
	Reserve int64
	// NoSpare does without the background goroutine and its spare file.
	NoSpare bool
	// KeepOffsets leaves Pebble's own sync offsets in the chunks.
	KeepOffsets bool
}

// Stats count what happened to WALs since New.
type Stats struct {
	Fresh    int64 // made with one chunk of zeros
	Spares   int64 // made from a spare
	Recycled int64 // made from an old log
	Extended int64 // chunks added behind the end of the zeros
	// SpareFailed counts spares that could not be made. The WAL does not need
	// them; its own writes report a failing disk.
	SpareFailed int64
}

// FS wraps another file system. It is safe for concurrent use. Close it after
// the database.
type FS struct {
	vfs.FS
	o Options

	fresh, spares, recycled, extended, spareFailed atomic.Int64

	stopping   atomic.Bool
	background sync.WaitGroup
	mu         sync.Mutex
	closed     bool
	dirs       map[string]*spareState // by directory
	spareCount int                    // names given to spares
}

// spareState is what a WAL directory has for the next WAL; guarded by FS.mu.
type spareState struct {
	ready  string // path of a finished spare, or empty
	making bool
	used   bool // a WAL was made: the store is open
}

var _ vfs.FS = (*FS)(nil)

// New wraps inner. Nothing is touched before the first WAL is created.
func New(inner vfs.FS, o Options) *FS {
	if o.Size <= 0 {
		o.Size = defaultSize
	}
	if o.Chunk <= 0 {
		o.Chunk = defaultChunk
	}
	return &FS{FS: inner, o: o, dirs: map[string]*spareState{}}
}

// Unwrap implements vfs.FS.
func (f *FS) Unwrap() vfs.FS { return f.FS }

// Stats returns the counters.
func (f *FS) Stats() Stats {
	return Stats{f.fresh.Load(), f.spares.Load(), f.recycled.Load(), f.extended.Load(), f.spareFailed.Load()}
}

// Close waits for the background work, stopping it early, and removes the
// spares. Files that are open stay usable; WALs created later get no spare.
func (f *FS) Close() error {
	f.stopping.Store(true)
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.background.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, s := range f.dirs {
		if s.ready != "" {
			errs = append(errs, f.FS.Remove(s.ready))
			s.ready = ""
		}
	}
	return errors.Join(errs...)
}

func isWAL(name string, category vfs.DiskWriteCategory) bool {
	return category == walCategory && strings.HasSuffix(name, walSuffix)
}

// Create implements vfs.FS.
func (f *FS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	dir := f.FS.PathDir(name)
	if base := f.FS.PathBase(name); strings.HasPrefix(base, manifestPrefix) || strings.HasPrefix(base, markerPrefix) {
		return f.createNamed(dir, name, category)
	}
	if !isWAL(name, category) {
		return f.FS.Create(name, category)
	}
	if err := f.enter(dir); err != nil {
		return nil, err
	}
	w, err := f.createWAL(dir, name, category)
	if err == nil {
		f.startSpare(dir)
	}
	return f.rotated(dir, w, err)
}

// createNamed makes the file's name durable at once. When Pebble moves to a new
// MANIFEST it creates that file, creates the marker that points to it, removes
// the old marker, and syncs the directory only then. A cut could leave a marker
// without its file, or no marker at all, and a store without a marker is taken
// for one that does not exist yet.
func (f *FS) createNamed(dir, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	if err != nil {
		return nil, err
	}
	d, err := f.FS.OpenDir(dir)
	if err == nil {
		err = errors.Join(d.Sync(), d.Close())
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (f *FS) createWAL(dir, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if spare := f.takeSpare(dir); spare != "" {
		if err := f.FS.Rename(spare, name); err != nil {
			return nil, err
		}
		f.spares.Add(1)
		return f.openWAL(name, category)
	}
	if err := f.makeZeros(name, category, f.o.Chunk, false); err != nil {
		return nil, err
	}
	f.fresh.Add(1)
	return f.openWAL(name, category)
}

// ReuseForWrite implements vfs.FS.
func (f *FS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if !isWAL(newname, category) {
		return f.FS.ReuseForWrite(oldname, newname, category)
	}
	dir := f.FS.PathDir(newname)
	if err := f.enter(dir); err != nil {
		return nil, err
	}
	w, err := f.reuseWAL(dir, oldname, newname, category)
	return f.rotated(dir, w, err)
}

func (f *FS) reuseWAL(dir, oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	st, err := f.FS.Stat(oldname)
	if err != nil {
		return nil, err
	}
	if st.Size() < f.o.Size {
		if spare := f.takeSpare(dir); spare != "" {
			if err := f.FS.Rename(spare, newname); err != nil {
				return nil, err
			}
			if err := f.FS.Remove(oldname); err != nil {
				return nil, err
			}
			f.spares.Add(1)
			f.startSpare(dir)
			return f.openWAL(newname, category)
		}
	}
	if err := f.FS.Rename(oldname, newname); err != nil {
		return nil, err
	}
	f.recycled.Add(1)
	return f.openWAL(newname, category)
}

// openWAL opens a file that already has its zeros, or an old log, for
// overwriting from the start.
func (f *FS) openWAL(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, category)
	if err != nil {
		return nil, err
	}
	st, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &wal{File: file, fs: f, zeroed: st.Size()}, nil
}

// makeZeros creates a file of n synced zero bytes, or of fewer on a full disk.
// A spare is synced per chunk, so that a commit never waits behind more than
// one chunk, and given up when the FS is closed.
func (f *FS) makeZeros(name string, category vfs.DiskWriteCategory, n int64, spare bool) (err error) {
	file, err := f.FS.Create(name, category)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	_ = file.Preallocate(0, n) // only for contiguity
	for off := int64(0); off < n; off += f.o.Chunk {
		err := writeZeros(min(f.o.Chunk, n-off), file.Write)
		switch {
		case spare && err != nil:
			return err
		case spare && f.stopping.Load():
			return errStopping
		case spare:
			if err := file.SyncData(); err != nil {
				return err
			}
		case fcp.IsDiskFull(err):
			return file.Sync()
		case err != nil:
			return err
		}
	}
	return file.Sync()
}

// errTight leaves the space of a tight disk to what must be written.
var errTight = errors.New("walfs: little space is left")

// errStopping ends the making of a spare when the FS is closed.
var errStopping = errors.New("walfs: closing")

// writeZeros calls write for n zero bytes in all. The buffer is cleared each
// time because a vfs.File may change what it is given.
func writeZeros(n int64, write func([]byte) (int, error)) error {
	buf := make([]byte, min(n, 256<<10))
	for n > 0 {
		b := buf[:min(n, int64(len(buf)))]
		clear(b)
		k, err := write(b)
		if err != nil {
			return err
		}
		n -= int64(k)
	}
	return nil
}

// enter removes what an earlier process left of spares when a WAL directory is
// used for the first time.
func (f *FS) enter(dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dirs[dir] != nil {
		return nil
	}
	names, err := f.FS.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, sparePrefix) && strings.HasSuffix(name, spareSuffix) {
			if err := f.FS.Remove(f.FS.PathJoin(dir, name)); err != nil {
				return fmt.Errorf("remove old spare: %w", err)
			}
		}
	}
	f.dirs[dir] = &spareState{}
	return nil
}

// takeSpare hands out the finished spare, which then belongs to the caller.
func (f *FS) takeSpare(dir string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.dirs[dir]
	path := s.ready
	s.ready = ""
	return path
}

// startSpare begins the next spare unless there is one or one is being made.
func (f *FS) startSpare(dir string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.dirs[dir]
	if f.o.NoSpare || f.closed || s.making || s.ready != "" {
		return
	}
	s.making = true
	f.spareCount++
	name := f.FS.PathJoin(dir, fmt.Sprintf("%s%06d%s", sparePrefix, f.spareCount, spareSuffix))
	f.background.Go(func() {
		err := errTight
		if u, e := f.FS.GetDiskUsage(dir); e != nil || u.AvailBytes >= uint64(2*f.o.Size+f.o.Reserve) {
			err = f.makeZeros(name, walCategory, f.o.Size, true)
		}
		if err != nil {
			_ = f.FS.Remove(name) // if it stays, the next process removes it
			if !errors.Is(err, errStopping) {
				f.spareFailed.Add(1)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		s.making = false
		if err == nil {
			s.ready = name
		}
	})
}
