package crashfs

import (
	"errors"
	"fmt"
	"math"
)

// ErrStopped is the answer to every operation from the point set by StopAt on.
var ErrStopped = errors.New("crashfs: file system stopped")

// ErrPretend, returned by a hook for a Sync or SyncDir, makes that sync report
// success while nothing becomes durable: a lying disk. For any other kind it is
// an ordinary error.
var ErrPretend = errors.New("crashfs: pretend to sync")

// Kind names an operation for hooks and counters.
type Kind uint8

// The kinds of operation. OpenReadWrite counts as Create when it makes the file
// and as Open otherwise. Sync is Sync and SyncData of a file, SyncDir that of a
// directory. Read is Read and ReadAt, Write is Write and WriteAt.
const (
	Create Kind = iota
	Link
	Remove
	RemoveAll
	Rename
	ReuseForWrite
	MkdirAll
	Lock
	Write
	Preallocate
	Sync
	SyncDir
	SyncTo
	firstReadOnly      // the kinds above change something, those below do not
	Open          Kind = iota - 1
	OpenDir
	List
	Stat
	GetDiskUsage
	Read
	Prefetch
	Close
	kinds
)

var kindNames = [kinds]string{
	"create", "link", "remove", "removeall", "rename", "reuse", "mkdir", "lock", "write",
	"preallocate", "sync", "syncdir", "syncto", "open", "opendir", "list", "stat",
	"diskusage", "read", "prefetch", "close",
}

// String returns the kind's name, such as "sync".
func (k Kind) String() string {
	if k >= kinds {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// Mutating says whether the kind can change what the disk holds or promises.
func (k Kind) Mutating() bool { return k < firstReadOnly }

// Op describes an operation that is about to happen.
type Op struct {
	Kind Kind
	// Path is the name the caller used; for Link and Rename the old name.
	Path string
	// N counts operations of this kind on this FS, from 1.
	N int64
	// Mutation counts mutating operations of all kinds on this FS, from 1; it
	// is 0 for the others.
	Mutation int64
}

// Hook is called before each operation, without locks held: it may call any
// method of the FS (Crash, to take the image of exactly this moment, or
// SetSpace). A non-nil error becomes the operation's error and nothing else
// happens. It is called from whatever goroutine does the operation. Close
// ignores its error.
type Hook func(Op) error

// SetHook installs h in place of any earlier hook; nil removes it.
func (f *FS) SetHook(h Hook) {
	if h == nil {
		f.hook.Store(nil)
		return
	}
	f.hook.Store(&h)
}

// StopAt makes the n-th mutating operation, counted from the creation of the
// FS, and every operation of any kind after it fail with ErrStopped: a process
// killed at that I/O. Crash and the other methods that are not file operations
// go on working, and Close still releases its handle. n <= 0 clears the stop.
func (f *FS) StopAt(n int64) {
	if n <= 0 {
		n = math.MaxInt64
		f.stopped.Store(false)
	}
	f.stopAt.Store(n)
}

// Stopped says whether the point set by StopAt was reached.
func (f *FS) Stopped() bool { return f.stopped.Load() }

// Count returns how many operations of a kind were asked for, failed ones
// included.
func (f *FS) Count(k Kind) int64 { return f.counts[k].Load() }

// Mutations returns how many mutating operations were asked for.
func (f *FS) Mutations() int64 { return f.mutations.Load() }

// SetSpace sets the size of the disk in bytes; it may be below what is used,
// and be raised again. A write that would grow files past it stores the whole
// pages that still fit and fails with ENOSPC; so does the creation of a file
// or directory on a disk with no page free. Negative means no limit, the state
// at the start.
func (f *FS) SetSpace(bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.capacity = bytes
}

// Used returns the bytes that files take, those removed but still open included.
func (f *FS) Used() int64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.used
}

// begin counts an operation and asks stop and hook whether it may happen.
func (f *FS) begin(k Kind, path string) error {
	if f.stopped.Load() {
		return ErrStopped
	}
	op := Op{Kind: k, Path: path, N: f.counts[k].Add(1)}
	if k.Mutating() {
		op.Mutation = f.mutations.Add(1)
		if op.Mutation >= f.stopAt.Load() {
			f.stopped.Store(true)
			return ErrStopped
		}
	}
	if h := f.hook.Load(); h != nil {
		return (*h)(op)
	}
	return nil
}

// free returns the bytes left on the disk; mu must be held.
func (f *FS) free() int64 {
	if f.capacity < 0 {
		return math.MaxInt64
	}
	return max(0, f.capacity-f.used)
}
