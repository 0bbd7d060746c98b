package log

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// request is one waiting Append, import or seal.
type request struct {
	drafts []Draft
	buf    []byte // canonical contents of the drafts

	foreign *foreignRun               // set for an import: places are given, not assigned
	extra   func(*pebble.Batch) error // more for the same batch (sealing)

	placed    []Placed
	duplicate bool
	err       error
	dead      bool // given up by its caller before it was taken; guarded by Log.mu
	row       *row // where its caller waits
}

// group is a set of requests that share one batch and one fsync.
type group struct {
	reqs   []*request
	rows   []*row // one for each rowSize of reqs
	bytes  int
	joined atomic.Int32  // len(reqs), for gather
	done   chan struct{} // closed when every request has its answer
	awake  sync.Once

	away atomic.Int32  // rows with a writer that still waits, once the group was taken
	back chan struct{} // closed when there is none
}

// row is where a few writers of a group wait together, so that a hundred of them do not
// queue for the lock of one channel, nor count themselves in one word.
type row struct {
	wake    chan struct{} // closed behind group.done, or when the log crashed
	writers int32         // guarded by Log.mu; of requests that are not dead
	left    atomic.Int32  // writers that still wait, once the group was taken
	_       [64]byte      // the next row's words are on another line of the cache
}

const rowSize = 32

// wakeUp wakes the writers. Nobody may join any more.
func (g *group) wakeUp() {
	g.awake.Do(func() {
		for _, w := range g.rows {
			close(w.wake)
		}
	})
}

// take begins to count who goes back to work. The caller holds Log.mu.
func (g *group) take() {
	rows := int32(0)
	for _, w := range g.rows {
		if w.writers > 0 {
			rows++
		}
	}
	if rows == 0 {
		close(g.back)
	}
	g.away.Store(rows)
	for _, w := range g.rows {
		w.left.Store(w.writers)
	}
}

// leave says that a writer of the row does not wait any more.
func (g *group) leave(w *row) {
	if w.left.Add(-1) == 0 && g.away.Add(-1) == 0 {
		close(g.back)
	}
}

var requestPool = sync.Pool{New: func() any { return new(request) }}

// maxQueued bounds the encoded bytes that wait for the disk.
const maxQueued = 64 << 20

// Append gives the drafts a place, writes them with one fsync shared with
// everybody waiting, and returns their places. All drafts of one call become
// durable together or not at all, and belong to one zone.
//
// A nil error means on disk. CodeConflict is the Guard's refusal; CodeDiskFull,
// CodeTailLost and CodeClosed refuse before anything is written; CodeTimeout and
// CodeInterrupted before the request was taken mean nothing was written, and
// CodeTimeout afterwards that the outcome is unknown, as it may be with CodeCrashed
// (repeat with the same idempotency tag). After these two what the drafts point to
// may still be read.
func (l *Log) Append(ctx context.Context, drafts []Draft) (Receipt, error) {
	r := requestPool.Get().(*request)
	if err := r.prepare(drafts); err != nil {
		r.recycle()
		return Receipt{}, err
	}
	if err := l.submit(ctx, r); err != nil {
		return Receipt{}, err // r may still be in use: not pooled
	}
	rec, err := Receipt{Events: r.placed, Duplicate: r.duplicate}, r.err
	r.recycle()
	return rec, err
}

// recycle returns r to the pool. Nobody may hold it any more.
func (r *request) recycle() {
	clear(r.drafts)
	*r = request{buf: r.buf[:0], drafts: r.drafts[:0]}
	if cap(r.buf) <= 64<<10 {
		requestPool.Put(r)
	}
}

// prepare validates and encodes in the caller's goroutine everything that does not
// depend on the place, and hashes what is large.
func (r *request) prepare(drafts []Draft) error {
	if len(drafts) == 0 {
		return fcp.Errorf(fcp.CodeInvalidArgument, "an append without events")
	}
	size := 0
	for i := range drafts {
		d := &drafts[i]
		if d.Zone != drafts[0].Zone {
			return fcp.Errorf(fcp.CodeCrossZone, "%s and %s", drafts[0].Zone, d.Zone)
		}
		if err := d.Content.Validate(d.Plane); err != nil {
			return err
		}
		size += d.Content.EncodedSize()
	}
	// A copy, so that callers can keep theirs on the stack.
	r.drafts = append(r.drafts[:0], drafts...)
	r.placed = make([]Placed, len(drafts))
	r.encode(size)
	return nil
}

// laterHashed is the length of the longest content whose hash is left to the committer,
// which hashes many side by side while it waits for the disk (settle).
const laterHashed = 1 << 10

func (r *request) encode(size int) {
	if cap(r.buf) < size {
		r.buf = make([]byte, 0, size)
	}
	for i := range r.drafts {
		d := &r.drafts[i]
		start := len(r.buf)
		r.buf = append(r.buf, fcp.ContentPrefix...)
		r.buf = d.Content.AppendTo(r.buf)
		d.content = r.buf[start+len(fcp.ContentPrefix) : len(r.buf) : len(r.buf)]
		if d.Plane.Chained() && (len(d.content) > laterHashed || r.foreign != nil) {
			d.hash = fcp.ContentHashOf(r.buf[start:])
		}
	}
}

// submit queues the request and waits for its answer. A nil error means that r holds
// the answer.
func (l *Log) submit(ctx context.Context, r *request) error {
	l.mu.Lock()
	for {
		if l.refusal != nil {
			err := l.refusal
			l.mu.Unlock()
			return err
		}
		if l.full.Load() && r.extra == nil {
			l.mu.Unlock()
			return l.diskFull()
		}
		if l.queued < maxQueued && (l.unsealed < maxUnsealed || l.sealFailed || r.extra != nil) && !l.stagedLocked(r) {
			break
		}
		if l.waitRoom == nil {
			l.waitRoom = make(chan struct{})
		}
		room := l.waitRoom
		l.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctxError(ctx)
		}
		l.mu.Lock()
	}
	g := l.joinLocked(r)
	if !l.leading {
		l.leading = true
		go l.lead()
	}
	l.mu.Unlock()
	err := l.await(ctx, g, r)
	if !r.dead {
		g.leave(r.row)
	}
	return err
}

// joinLocked adds r to the last waiting group, or to a new one.
func (l *Log) joinLocked(r *request) (g *group) {
	n := len(r.buf)
	l.queued += n
	if len(l.queue) > 0 {
		g = l.queue[len(l.queue)-1]
		if g.bytes+n <= l.opts.MaxGroupBytes {
			g.add(r, n)
			return g
		}
	}
	g = l.newGroupLocked()
	g.add(r, n)
	l.queue = append(l.queue, g)
	return g
}

// add takes in a request of so many bytes. The caller holds Log.mu.
func (g *group) add(r *request, bytes int) {
	if len(g.reqs)%rowSize == 0 {
		g.rows = append(g.rows, &row{wake: make(chan struct{})})
	}
	r.row = g.rows[len(g.rows)-1]
	r.row.writers++
	g.reqs = append(g.reqs, r)
	g.bytes += bytes
	g.joined.Store(int32(len(g.reqs)))
}

func (l *Log) newGroupLocked() *group {
	g := &group{done: make(chan struct{}), back: make(chan struct{})}
	if n := len(l.freeGrp); n > 0 {
		g.reqs = l.freeGrp[n-1].reqs[:0]
		l.freeGrp = l.freeGrp[:n-1]
	}
	return g
}

// await waits for the group's answer. Once the log has crashed it may never come:
// Pebble can wait there for a goroutine that was parked.
func (l *Log) await(ctx context.Context, g *group, r *request) error {
	if stop := ctx.Done(); stop == nil {
		<-r.row.wake
	} else {
		select {
		case <-r.row.wake:
		case <-stop:
		}
	}
	select {
	case <-g.done:
		return nil
	default:
	}
	return l.giveUp(ctx, g, r)
}

// giveUp takes r out of its group if it was not taken yet; otherwise it waits a
// little longer for the disk, because the answer is usually on its way.
func (l *Log) giveUp(ctx context.Context, g *group, r *request) error {
	l.mu.Lock()
	waiting := false
	for _, q := range l.queue {
		waiting = waiting || q == g
	}
	if waiting {
		r.dead = true
		r.row.writers--
		l.mu.Unlock()
		if e := l.crashed.Load(); e != nil {
			return e
		}
		return ctxError(ctx)
	}
	l.mu.Unlock()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.opts.CommitTimeout)
	defer cancel()
	select {
	case <-g.done:
		return nil
	case <-l.dead: // the commit may hang for good
		select {
		case <-g.done:
			return nil
		default:
			return l.crashed.Load()
		}
	case <-grace.Done():
	}
	if l.full.Load() {
		return l.diskFull()
	}
	return fcp.Errorf(fcp.CodeTimeout, "the disk did not answer; the outcome of this append is unknown").
		WithNext("repeat it with the same idempotency key")
}

func ctxError(ctx context.Context) error {
	if context.Cause(ctx) == context.DeadlineExceeded {
		return fcp.Errorf(fcp.CodeTimeout, "nothing was written")
	}
	return fcp.Errorf(fcp.CodeInterrupted, "nothing was written")
}

// lead commits the waiting groups, one after the other, until there is none. It runs
// in a goroutine of its own, so that no caller is held inside Pebble.
func (l *Log) lead() {
	l.mu.Lock()
	for len(l.queue) > 0 {
		g := l.queue[0]
		l.mu.Unlock()
		l.commitGroup(g)
		l.mu.Lock()
	}
	l.leading = false
	l.mu.Unlock()
}

// commitGroup takes the first group from the queue, commits it and gives its answers.
func (l *Log) commitGroup(g *group) {
	l.gather(g)
	l.mu.Lock()
	l.queue = l.queue[:copy(l.queue, l.queue[1:])]
	l.committing = g
	g.take()
	for i := 0; i < len(g.reqs); i++ {
		if g.reqs[i].dead {
			g.reqs = append(g.reqs[:i], g.reqs[i+1:]...)
			i--
		}
	}
	l.mu.Unlock()

	l.commit(g)
	l.noteWritten(g.bytes)

	l.mu.Lock()
	l.committing = nil
	l.queued -= g.bytes
	l.makeRoomLocked()
	l.expected = int32(len(g.reqs))
	if len(l.queue) > 0 {
		l.expected += int32(len(l.queue[0].reqs))
	}
	l.mu.Unlock()
	l.last = g
	close(g.done)
	g.wakeUp()
	// The group itself stays with its waiters; only the slice is reused.
	l.mu.Lock()
	if len(l.freeGrp) < 4 {
		l.freeGrp = append(l.freeGrp, &group{reqs: g.reqs})
	}
	l.mu.Unlock()
}

// gather waits until the writers that are likely to come have joined the group: who
// was in the last one comes again at once, if at all, and joins it instead of paying for
// an fsync of his own. Without it the writers split into two half-size groups that take
// turns. It expects everybody who was in the last group or waited behind it.
//
// It sleeps until those of the last group are back at work. Yielding all the time instead
// costs twice as much as they do: the scheduler hands this goroutine to a processor that
// would else take writers off the other's queue. Then it yields a little, as the last of
// them are on their way.
func (l *Log) gather(g *group) {
	if l.last == nil || g.joined.Load() >= l.expected {
		return
	}
	<-l.last.back
	n, idle := int32(0), 0
	for idle < gatherYields {
		now := g.joined.Load()
		if now >= l.expected {
			return
		}
		if now > n {
			n, idle = now, 0
		} else {
			idle++
		}
		runtime.Gosched()
	}
}

// gatherYields is how many fruitless turns of the scheduler end gather when
// fewer writers came than last time; each takes well under a microsecond on an
// idle machine.
const gatherYields = 32

// makeRoomLocked lets appends that wait for room look again.
func (l *Log) makeRoomLocked() {
	if l.waitRoom != nil {
		close(l.waitRoom)
		l.waitRoom = nil
	}
}

// drain waits until no commit is running and nothing waits. New requests must be
// refused already.
func (l *Log) drain() {
	for {
		l.mu.Lock()
		idle := !l.leading && len(l.queue) == 0
		l.mu.Unlock()
		if idle || l.crashed.Load() != nil { // a commit that hangs on the disk never ends
			return
		}
		runtime.Gosched()
	}
}
