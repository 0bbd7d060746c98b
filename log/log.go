package log

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/internal/gate"
	"fcp/log/internal/walfs"
)

// Log is an open event log. All methods are safe for concurrent use.
type Log struct {
	opts   Options
	fs     vfs.FS
	dir    string
	wal    *walfs.FS // nil when read-only
	bulkFS *bulkFS
	db     *pebble.DB
	log    *slog.Logger

	clock       *fcp.Clock
	incarnation atomic.Uint64

	mu         sync.Mutex
	feeds      []*feed            // by number - 1; guarded by mu
	byFeed     map[fcp.Feed]*feed // guarded by mu
	queue      []*group           // waiting groups, first in first out; guarded by mu
	committing *group             // taken from queue, without its answers; guarded by mu
	leading    bool               // a leader is at work; guarded by mu
	queued     int                // encoded bytes waiting; guarded by mu
	refusal    error              // why appends are refused; nil while open; guarded by mu
	waitRoom   chan struct{}      // closed when appends that wait may look again; guarded by mu
	unsealed   int64              // record bytes of own feeds that wait to be sealed; guarded by mu
	sealFailed bool               // guarded by mu
	freeGrp    []*group           // guarded by mu

	recovered    []Applied     // Open's working memory
	nextPosition uint64        // owned by the leader
	durable      atomic.Uint64 // last acknowledged position
	scratch      commitScratch // owned by the leader
	last         *group        // owned by the leader: the group committed last
	expected     int32         // owned by the leader: requests in it and behind it

	crashed  atomic.Pointer[fcp.Error]
	dead     chan struct{} // closed by crash
	full     atomic.Bool   // the disk is below its reserve
	toldFull atomic.Bool   // and its log says so

	watching  sync.Mutex // one look at the free space at a time
	unwatched uint64     // owned by the leader: bytes written since the last look

	stageMu sync.Mutex // one Stage at a time; taken before sealMu
	staged  *fcp.Feed  // feed whose appends wait for a Stage; guarded by mu

	sealMu      sync.Mutex // one seal, segment import or Stage at a time
	nextSegment uint64     // guarded by sealMu
	sealing     packer     // guarded by sealMu
	sealFree    [][]byte   // ciphertext buffers to be used again; guarded by sealMu

	taking    atomic.Pointer[tableFile] // the table that is being taken in
	tablesMu  sync.Mutex
	tableSums map[string]FileSum // by name; guarded by tablesMu

	cache     *pebble.Cache // only while db is open
	bulkMu    sync.Mutex
	bulk      int    // bulk reads under way; guarded by bulkMu
	unreserve func() // gives the cache its size back; guarded by bulkMu

	frames frameCache
	leaves leafCache // for proofs

	replayed atomic.Int64 // batches that Open took from the WAL

	mark       markFile
	stop       context.CancelFunc // ends the background goroutines
	background context.Context    // of the background goroutines; nil when read-only
	wg         sync.WaitGroup
	kick       chan struct{} // wakes the sealer
	grew       chan struct{} // wakes watch when there is a mark to write again
	idle       atomic.Bool   // watch waits for grew
	closed     atomic.Bool
	life       *gate.Gate // entered while Pebble is read; closed before Pebble is
	doubt      *fcp.Error // why the store is read-only (tail lost), else nil
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.SegmentTarget, fcp.SegmentTarget)
	setDefault(&o.CacheBytes, 32<<20)
	setDefault(&o.MemTableBytes, 16<<20)
	setDefault(&o.MaxGroupBytes, 4<<20)
	setDefault(&o.MarkInterval, 100*time.Millisecond)
	setDefault(&o.CommitTimeout, 30*time.Second)
	setDefault(&o.DiskReserve, 32<<20)
	setDefault(&o.BallastBytes, 16<<20)
}

func setDefault[T int | int64 | uint64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// Durable returns the last acknowledged position; 0 for an empty log.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// Incarnation returns the incarnation under which this node appends now.
func (l *Log) Incarnation() uint64 { return l.incarnation.Load() }

// Writer returns this node's writer id.
func (l *Log) Writer() fcp.WriterID { return l.opts.Writer }

// Doubt returns why the store is open read-only although writing was asked for,
// as an error of code CodeTailLost; nil when all is well.
func (l *Log) Doubt() error {
	if l.doubt == nil {
		return nil
	}
	return l.doubt
}

// Feeds returns the durable state of all feeds, by number.
func (l *Log) Feeds() []FeedState {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]FeedState, 0, len(l.feeds))
	for _, f := range l.feeds {
		if f.durable.seq > 0 {
			out = append(out, f.state())
		}
	}
	return out
}

// Head returns the durable state of one feed; ok is false for an unknown number.
func (l *Log) Head(no FeedNo) (s FeedState, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.feedLocked(no)
	if f == nil {
		return FeedState{}, false
	}
	return f.state(), true
}

// FeedNo returns the store's number for a feed.
func (l *Log) FeedNo(feed fcp.Feed) (FeedNo, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.byFeed[feed]
	if !ok {
		return 0, false
	}
	return f.no, true
}

// Feed returns the feed behind a number; the zero Feed for an unknown one.
func (l *Log) Feed(no FeedNo) fcp.Feed {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f := l.feedLocked(no); f != nil {
		return f.feed
	}
	return fcp.Feed{}
}

func (l *Log) feedLocked(no FeedNo) *feed {
	if no == 0 || int(no) > len(l.feeds) {
		return nil
	}
	return l.feeds[no-1]
}

func (l *Log) feedByNo(no FeedNo) *feed {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.feedLocked(no)
}

// addFeedLocked registers a feed in memory. The caller holds mu and sees to it
// that the feed record is stored with the feed's first event.
func (l *Log) addFeedLocked(f fcp.Feed) *feed {
	n := &feed{no: FeedNo(len(l.feeds) + 1), feed: f, id: f.ID(),
		own: f.Writer == l.opts.Writer && f.Incarnation == l.incarnation.Load()}
	l.feeds = append(l.feeds, n)
	l.byFeed[f] = n
	return n
}

// crash stops the log for good: nothing more is acknowledged.
func (l *Log) crash(err error) *fcp.Error {
	e := fcp.Errorf(fcp.CodeCrashed, "%w", err)
	if !l.crashed.CompareAndSwap(nil, e) {
		return l.crashed.Load()
	}
	close(l.dead)
	l.log.Error("the log stopped after a disk error", "err", err)
	l.mu.Lock()
	l.refusal = e
	l.makeRoomLocked()
	for _, g := range l.queue {
		g.wakeUp()
	}
	if l.committing != nil {
		l.committing.wakeUp()
	}
	l.mu.Unlock()
	if l.opts.OnCrash != nil {
		l.opts.OnCrash(e)
	}
	return e
}

// Crashed returns the error that stopped the log, or nil.
func (l *Log) Crashed() error {
	if e := l.crashed.Load(); e != nil {
		return e
	}
	return nil
}

// pebbleLogger carries Pebble's messages to slog and turns its fatal ones into a
// crash-stop instead of a process exit.
type pebbleLogger struct{ l *Log }

func (p pebbleLogger) Infof(format string, args ...any) { p.l.noteReplay(format, args) }
func (p pebbleLogger) Errorf(format string, args ...any) {
	p.l.log.Warn("pebble", "msg", fcp.Errorf(fcp.CodeDisk, format, args...).Detail)
}

// fatalError is what a fatal Pebble message panics with on the commit path, where
// Pebble holds no lock; recoverFatal catches it.
type fatalError struct{ err *fcp.Error }

// Fatalf must not return. On the commit path it unwinds to recoverFatal. Any other
// goroutine is parked for good: Pebble may hold locks there that an unwinding
// would release twice, nothing it holds can be trusted any more, and the process
// is about to stop. What waits for such a goroutine waits through abandonable.
func (p pebbleLogger) Fatalf(format string, args ...any) {
	e := p.l.crash(fcp.Errorf(fcp.CodeDisk, format, args...))
	if onCommitPath() {
		panic(fatalError{e})
	}
	select {}
}

// onCommitPath reports whether (*Log).write is on the stack.
func onCommitPath() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		f, more := frames.Next()
		if f.Function == "fcp/log.(*Log).write" {
			return true
		}
		if !more {
			return false
		}
	}
}

// abandonable runs a Pebble call that may never come back after a disk error, and
// gives up on it when the log crashes.
func (l *Log) abandonable(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-l.dead:
		return l.Crashed()
	}
}

// recoverFatal turns a fatal Pebble message into the error of the caller.
func recoverFatal(err *error) {
	if r := recover(); r != nil {
		f, ok := r.(fatalError)
		if !ok {
			panic(r)
		}
		*err = f.err
	}
}

var _ io.Closer = (*Log)(nil)
