package log

import (
	"io"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp/internal/directio"
)

// While bulk reads are under way, tables are read past the page cache, which costs
// more than the rest of a large read where each of its pages has to be fetched
// first. Nothing is read ahead there, so tables are read in windows that neighbouring blocks
// share.
const (
	windowSize = 1 << 20
	windows    = 8
	// windowFrom is the shortest read that is worth a window: a block of frames is longer
	// than it, one of an index or of anything else seldom.
	windowFrom = 32 << 10
)

// bulkFS opens the tables of a log for bulk reads. A file that is not one of the operating
// system is read as always.
type bulkFS struct {
	vfs.FS
	ahead *objstorageprovider.ReadaheadConfig // given to Pebble too

	mu   sync.Mutex
	on   bool      // guarded by mu
	tick uint64    // guarded by mu
	held []*window // guarded by mu
}

// window is a part of a table, from a multiple of windowSize on.
type window struct {
	file  *bulkFile
	at    int64
	users int    // guarded by bulkFS.mu
	last  uint64 // use; guarded by bulkFS.mu

	ready chan struct{} // closed when what follows is there
	buf   []byte
	err   error // io.EOF with the last bytes
}

func newBulkFS(fs vfs.FS) *bulkFS {
	return &bulkFS{FS: fs, ahead: objstorageprovider.NewReadaheadConfig()}
}

// set begins or ends bulk reads.
func (b *bulkFS) set(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on = on
	speculative := objstorageprovider.FadviseSequential
	if on {
		speculative = objstorageprovider.NoReadahead // it goes through the page cache
	} else {
		b.held = nil
	}
	b.ahead.Set(objstorageprovider.FadviseSequential, speculative)
}

// Unwrap returns the file system below.
func (b *bulkFS) Unwrap() vfs.FS { return b.FS }

func (b *bulkFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := b.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	if system, ok := f.(directio.File); ok && strings.HasSuffix(name, ".sst") {
		return &bulkFile{File: f, fs: b, past: directio.NewReader(system)}, nil
	}
	return f, nil
}

// take returns a window for the caller to give back, and whether he has to fill it.
// It is nil when there are no bulk reads, or when all windows are in use.
func (b *bulkFS) take(f *bulkFile, at int64) (w *window, fill bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.on {
		return nil, false
	}
	b.tick++
	oldest := -1
	for i, w := range b.held {
		if w.file == f && w.at == at {
			w.users, w.last = w.users+1, b.tick
			return w, false
		}
		if w.users == 0 && (oldest < 0 || w.last < b.held[oldest].last) {
			oldest = i
		}
	}
	w = &window{file: f, at: at, users: 1, last: b.tick, ready: make(chan struct{})}
	switch {
	case len(b.held) < windows:
		w.buf = make([]byte, 0, windowSize)
		b.held = append(b.held, w)
	case oldest >= 0:
		w.buf = b.held[oldest].buf[:0]
		b.held[oldest] = w
	default:
		return nil, false
	}
	return w, true
}

func (b *bulkFS) give(w *window) {
	b.mu.Lock()
	w.users--
	b.mu.Unlock()
}

// bulkFile is a table. Its bytes never change.
type bulkFile struct {
	vfs.File
	fs   *bulkFS
	past *directio.Reader // of the same file
}

func (f *bulkFile) ReadAt(p []byte, off int64) (n int, err error) {
	if len(p) < windowFrom {
		return f.File.ReadAt(p, off)
	}
	for n < len(p) {
		at := (off + int64(n)) &^ (windowSize - 1)
		w, fill := f.fs.take(f, at)
		if w == nil {
			m, err := f.File.ReadAt(p[n:], off+int64(n))
			return n + m, err
		}
		if fill {
			var m int
			m, w.err = f.past.ReadAt(w.buf[:windowSize], at)
			w.buf = w.buf[:m]
			close(w.ready)
		}
		<-w.ready
		m := 0
		if in := off + int64(n) - at; in < int64(len(w.buf)) {
			m = copy(p[n:], w.buf[in:])
		}
		n, err = n+m, w.err
		f.fs.give(w)
		switch {
		case n == len(p):
		case err != nil:
			return n, err
		case m == 0:
			return n, io.ErrUnexpectedEOF
		}
	}
	return n, nil
}
