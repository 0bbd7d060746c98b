package state

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"

	"fcp"
	"fcp/internal/gate"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"
)

// Options of Open. The zero value is right.
type Options struct {
	CacheBytes   int64 // of the tables' block cache; 0 means 24 MiB
	FlushBytes   int64 // an overlay of this size is flushed; 0 means 64 MiB
	FlushEntries int   // an overlay of so many keys is flushed; 0 means 300,000
	MaxFrozen    int   // full overlays that may wait for the disk; 0 means 2

	// Keys is how many keys will soon be written, about, so that the first overlay need
	// not grow with them; 0 means that nobody knows.
	Keys int

	// HashSeed makes the in-memory hash tables unpredictable to whoever chooses
	// keys. It changes nothing on disk and no digest.
	HashSeed uint64

	// Digest says what the digests cover.
	Digest DigestOptions

	// Bulk opens the store in bulk mode (see BulkMode): compactions wait until it
	// is turned off, and do not take the disk from whoever is starting.
	Bulk bool

	// ReadOnly opens the tables for reading, for a disk without room. Updates stay in
	// memory, a flush is fcp.CodeDiskFull, and Close leaves the tables as they are.
	ReadOnly bool

	Logger *slog.Logger // nil discards

	// OnFault is told of corruption and background errors, on any goroutine. It
	// must not block and must not call the store.
	OnFault func(error)

	noCompactions bool // tests only
	splitEntries  int  // tests only; 0 means the constant
}

func (o Options) withDefaults() Options {
	if o.CacheBytes == 0 {
		o.CacheBytes = 24 << 20
	}
	if o.FlushBytes == 0 {
		o.FlushBytes = 64 << 20
	}
	if o.FlushEntries == 0 {
		o.FlushEntries = 300_000
	}
	if o.MaxFrozen == 0 {
		o.MaxFrozen = 2
	}
	if o.splitEntries == 0 {
		o.splitEntries = splitEntries
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// A Store is one open state directory. All methods may be called from any
// goroutine; updates take turns.
type Store struct {
	opts  Options
	fs    *stopFS
	dir   string
	db    *pebble.DB
	cache *pebble.Cache
	sched *scheduler

	opening   atomic.Bool // Pebble is in its Open
	abandoned chan error  // of an Open that failed and would not end

	bulk   atomic.Bool
	fault  atomic.Pointer[error] // set once; the store is stopped
	cursor atomic.Uint64
	filter filter

	mu     sync.Mutex // held by an update, a rotation, a Clear
	writer Writer     // guarded by mu
	nextID uint64     // of overlays; guarded by mu

	view viewState

	life     *gate.Gate  // entered while the tables are read
	closing  atomic.Bool // set under ingestMu
	ingestMu sync.Mutex  // orders ingests against the start of a filter build
	misses   atomic.Uint32
	wake     chan struct{}
	done     sync.WaitGroup

	digests digests
	stats   counters
}

// A view is what readers see: the active overlay, the frozen ones from newest
// to oldest, and behind them the tables.
type view struct {
	active *overlay
	frozen []*overlay
}

type viewState struct {
	now     atomic.Pointer[view]
	mu      sync.Mutex // held to change now
	changed sync.Cond  // an overlay left, an attempt failed, or the store stopped
	fails   uint64     // flush attempts that failed; guarded by mu
	lastErr error      // of the last failed attempt; guarded by mu
	stop    bool       // the flusher must end; guarded by mu
}

type counters struct {
	flushes, flushed, flushedBytes atomic.Uint64
	filterSaved, tableReads        atomic.Uint64
	touched                        atomic.Uint64 // keeps touch from being optimised away
}

// Open opens the state in dir, making it if it is not there. A store that does
// not open for corruption may be removed and folded again from the log.
func Open(fs vfs.FS, dir string, o Options) (*Store, error) {
	s := &Store{opts: o.withDefaults(), fs: &stopFS{FS: fs}, dir: dir, wake: make(chan struct{}, 1), nextID: 1, life: gate.New()}
	s.sched = newScheduler(func() bool { return s.bulk.Load() || s.fs.stopped.Load() })
	s.bulk.Store(s.opts.Bulk)
	s.fs.failed = s.poison
	s.view.changed.L = &s.view.mu
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return nil, coded(err, "make the state directory")
	}
	s.cache = pebble.NewCache(s.opts.CacheBytes)
	if err := s.openTables(); err != nil {
		return nil, err
	}
	err := s.readCursor()
	if err == nil && !s.opts.ReadOnly { // only now, with the directory locked
		err = s.removeTemp()
	}
	if err == nil {
		err = s.fs.check()
	}
	if err != nil {
		err = errors.Join(err, s.db.Close())
		s.cache.Unref()
		return nil, err
	}
	s.view.now.Store(&view{active: s.newOverlay(s.cursor.Load(), min(s.opts.Keys, s.opts.FlushEntries))})
	s.writer.s = s
	s.done.Add(1)
	go s.flusher()
	return s, nil
}

// openTables opens Pebble. What Pebble writes at its start it tries again without
// pause and without end when the disk refuses it; then the attempt is abandoned:
// its goroutines are parked, and this process cannot open the directory any more.
func (s *Store) openTables() error {
	opened := make(chan error, 1)
	s.abandoned = make(chan error, 1)
	s.opening.Store(true)
	go func() {
		db, err := pebble.Open(s.dir, s.pebbleOptions())
		s.db = db
		opened <- err
	}()
	select {
	case err := <-opened:
		s.opening.Store(false)
		if err != nil {
			s.cache.Unref()
		}
		return coded(err, "open the state")
	case err := <-s.abandoned:
		return err
	}
}

// cursorKey is above every user key. Its value is a version byte and the
// position as a big-endian number.
var cursorKey = []byte{reservedByte, 'c', 'u', 'r', 's', 'o', 'r'}

const cursorVersion = 1

func (s *Store) readCursor() error {
	b, closer, err := s.db.Get(cursorKey)
	if errors.Is(err, pebble.ErrNotFound) {
		// No cursor means that no table was ever ingested.
		s.filter.on = true
		s.filter.ready.Store(true)
		return nil
	}
	if err != nil {
		return coded(err, "read the state cursor")
	}
	defer closer.Close()
	if len(b) != 9 {
		return fcp.Errorf(fcp.CodeCorrupt, "the state cursor has %d bytes", len(b))
	}
	if b[0] != cursorVersion {
		return fcp.Errorf(fcp.CodeVersion, "the state has format %d, this build knows %d", b[0], cursorVersion)
	}
	s.cursor.Store(binary.BigEndian.Uint64(b[1:]))
	return nil
}

func (s *Store) newOverlay(position uint64, sizeHint int) *overlay {
	o := newOverlay(s.nextID, s.opts.HashSeed, position, sizeHint)
	s.nextID++
	return o
}

// Cursor returns the position through which the tables are complete. Events
// above it must be folded again after Open.
func (s *Store) Cursor() uint64 { return s.cursor.Load() }

// BulkMode defers compactions while it is on, for a rebuild. Lookups that reach
// the tables get slower with each flush; turning it off lets the compactions
// catch up in the background.
func (s *Store) BulkMode(on bool) {
	s.bulk.Store(on)
	if !on {
		s.sched.offer()
	}
}

// Close flushes and closes. The caller has stopped updating; an error of the
// flush is returned, and loses nothing that the log does not have.
func (s *Store) Close() error {
	s.ingestMu.Lock()
	again := s.closing.Swap(true)
	s.ingestMu.Unlock()
	if again {
		return nil
	}
	var flushErr error
	if !s.opts.ReadOnly {
		flushErr = s.flush(context.Background())
	}
	s.view.mu.Lock()
	s.view.stop = true
	s.view.mu.Unlock()
	s.signal()
	s.done.Wait()
	s.life.Close()
	err := s.db.Close()
	s.cache.Unref()
	return errors.Join(flushErr, coded(err, "close the state"))
}

// Metrics are figures for people and tests.
type Metrics struct {
	Cursor         uint64
	OverlayEntries int    // of the active overlay
	OverlayBytes   int64  // the same, with room lost at the ends of chunks
	Frozen         int    // overlays waiting for the disk
	Flushes        uint64 // since Open
	FlushedEntries uint64
	FlushedBytes   uint64 // of tables written
	Tables         int64
	TableBytes     uint64
	ReadAmp        int // tables that a lookup may have to ask
	CompactionDebt uint64
	FilterReady    bool
	FilterBytes    int64
	FilterSaved    uint64 // lookups that the filter answered
	TableReads     uint64 // lookups that went to the tables
}

// Metrics returns the present figures.
func (s *Store) Metrics() Metrics {
	v := s.view.now.Load()
	m := Metrics{OverlayEntries: int(v.active.keys.Load()), OverlayBytes: int64(v.active.mark.Load()) - firstOffset}
	m.Cursor = s.Cursor()
	m.Frozen = len(v.frozen)
	m.Flushes = s.stats.flushes.Load()
	m.FlushedEntries = s.stats.flushed.Load()
	m.FlushedBytes = s.stats.flushedBytes.Load()
	m.FilterReady = s.filter.ready.Load()
	m.FilterBytes = s.filter.bytes()
	m.FilterSaved = s.stats.filterSaved.Load()
	m.TableReads = s.stats.tableReads.Load()
	if s.life.Enter() {
		defer s.life.Leave()
		p := s.db.Metrics()
		t := p.Total()
		m.Tables, m.TableBytes = t.TablesCount, uint64(t.TablesSize)
		m.ReadAmp = p.ReadAmp()
		m.CompactionDebt = p.Compact.EstimatedDebt
	}
	return m
}

func (s *Store) hash(key []byte) uint64 { return xxh3.HashSeed(key, s.opts.HashSeed) }

func (s *Store) faulted() error {
	if p := s.fault.Load(); p != nil {
		return *p
	}
	return nil
}

func errClosed() error { return fcp.Errorf(fcp.CodeClosed, "the state store") }
