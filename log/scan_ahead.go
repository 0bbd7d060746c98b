package log

import (
	"errors"
	"slices"
	"sync"

	"fcp"
)

// A task is a range of one feed's events that one goroutine decodes: the blocks
// that begin in it.
type task struct {
	no     FeedNo
	id     *fcp.FeedID
	first  uint64 // blocks that begin from here on ...
	end    uint64 // ... and below here are to be decoded
	within bool   // and the one that holds first
	want   uint64 // first event wanted
	verify VerifyLevel

	memory       // of what was decoded ahead
	err    error // behind the parts

	by   *worker // who claimed it; guarded by decoders.mu
	done bool    // guarded by decoders.mu
}

// A part is one decoded block.
type part struct {
	head     blockHeader
	last     fcp.Hash   // of its last event; meaningful when verified
	endOf    *Remainder // the segment that it ends
	from, to int        // among the task's events
}

// decoded is what a goroutine decodes into.
type decoded struct {
	events []Applied
	buf    []byte
	part   part
}

// step decodes the task's next block. ok is false when there is none. With keep
// the blocks decoded before stay valid and those of the hot log are copied.
func (t *task) step(c *cursor, d *decoded, keep bool) (ok bool, err error) {
	if t.first >= t.end {
		return false, nil
	}
	if err := c.seek(t.first, t.within); err != nil {
		return false, err
	}
	first, err := c.peek()
	if err != nil || first == 0 || first >= t.end {
		t.first = t.end
		return false, err
	}
	if !keep {
		d.events, d.buf = d.events[:0], d.buf[:0]
	}
	p := &d.part
	p.from = len(d.events)
	block, buf, endOf, err := c.take(d.buf, keep)
	if err != nil {
		return false, err
	}
	d.buf, p.endOf = buf, endOf
	if d.events, p.head, p.last, err = decodeBlock(d.events, t.no, t.id, block, t.verify); err != nil {
		return false, err
	}
	p.to = len(d.events)
	if p.head.first != first {
		return false, fcp.Errorf(fcp.CodeCorrupt, "a block of event %d is stored as one of event %d", p.head.first, first)
	}
	c.from, c.to = first, p.head.lastSeq()+1
	t.first, t.within = c.to, false
	return true, nil
}

// decode decodes the task, or as much of it as its memory may hold.
func (t *task) decode(c *cursor) {
	for {
		ok, err := t.step(c, &t.out, true)
		if !ok {
			t.err = err
			return
		}
		t.parts = append(t.parts, t.out.part)
		if len(t.out.buf) >= taskBytes {
			return
		}
	}
}

// Tasks are small enough for a few of them to stay in a core's cache, and large enough
// to make the hand-over cheap.
const (
	taskEvents = 1024
	taskBytes  = 1 << 20
	taskAhead  = 4 // tasks of full size per worker
	// taskPile is how many tasks are decoded and wait for the turn when decoding is not what
	// takes long.
	taskPile = 3
)

// decoders are the workers of one scan. Each decodes tasks ahead, and hands out events
// in its turn: who has the turn hands out what he decoded himself, and what nobody has
// begun he decodes on the way, so that events seldom go from one core's cache to
// another's. Where the scan's caller takes longer than decoding, decoded tasks pile
// up; then who has the turn keeps it and hands out what others decoded.
type decoders struct {
	s       *scanner
	workers int
	ahead   uint64 // events to plan ahead

	// Of the turn: used by who has it only.
	turn      *worker
	positions *positions
	batch     batcher
	run       positionRange   // being handed out
	size      uint64          // events of a task
	runs      []positionRange // planned, behind run
	events    uint64          // in runs
	rest      positionRange   // of the position record read last, not planned yet
	filling   []*stream       // streams that may have an unsubmitted task
	spare     []*task

	mu    sync.Mutex
	todo  []*task // submitted and not claimed, in order; guarded by mu
	taken bool    // somebody has the turn; guarded by mu
	next  *task   // what the next turn begins with, claimed; nil: anything; guarded by mu
	pile  int     // tasks decoded and not handed out; guarded by mu
	idle  int     // workers that wait; guarded by mu
	stop  bool    // guarded by mu
	err   error   // guarded by mu
	more  sync.Cond
}

// worker is one goroutine of a scan.
type worker struct {
	cursors map[FeedNo]*cursor
	spare   []memory // guarded by decoders.mu
	idle    bool     // guarded by decoders.mu
}

// memory is what a task decodes into. It stays with one worker.
type memory struct {
	out   decoded
	parts []part
}

func newDecoders(s *scanner, workers int) *decoders {
	d := &decoders{s: s, workers: workers, size: taskEvents, ahead: uint64(workers * taskAhead)}
	d.more.L = &d.mu
	return d
}

// scan hands out the events of all positions, with the calling goroutine as one of the
// workers.
func (d *decoders) scan(p *positions, fn func([]Applied) error) error {
	d.positions, d.batch.fn = p, fn
	var wg sync.WaitGroup
	for range d.workers - 1 {
		wg.Go(d.work)
	}
	d.work()
	wg.Wait()
	return d.err
}

// work decodes and hands out, whichever can be done, until the scan is over.
func (d *decoders) work() {
	w := &worker{cursors: map[FeedNo]*cursor{}}
	d.mu.Lock()
	for !d.stop {
		if d.mayTurn(w) {
			d.taken = true
			d.mu.Unlock()
			over, err := d.handOut(w)
			d.mu.Lock()
			d.taken = false
			if over || err != nil {
				d.stop, d.err = true, errors.Join(d.err, err)
				d.more.Broadcast()
			}
		} else if t := d.pick(w); t != nil {
			d.mu.Unlock()
			t.decode(w.cursor(d.s, t.no))
			d.mu.Lock()
			t.done = true
			d.pile++
		} else {
			w.idle = true
			d.idle++
			d.more.Wait()
			d.idle--
			w.idle = false
		}
	}
	d.mu.Unlock()
	var err error
	for _, c := range w.cursors {
		err = errors.Join(err, c.close())
	}
	d.mu.Lock()
	d.err = errors.Join(d.err, err)
	d.mu.Unlock()
}

func (w *worker) cursor(s *scanner, no FeedNo) *cursor {
	c := w.cursors[no]
	if c == nil {
		c = &cursor{l: s.l, snap: s.snap, no: no}
		w.cursors[no] = c
	}
	return c
}

// mayTurn reports whether w is to take the turn. The caller holds mu.
func (d *decoders) mayTurn(w *worker) bool {
	return !d.taken && (d.next == nil || d.forMe(d.next, w))
}

// forMe reports whether w, having the turn, is to hand out a claimed task. The caller
// holds mu.
func (d *decoders) forMe(t *task, w *worker) bool {
	return t.done && (t.by == w || t.by.idle || d.pile >= taskPile)
}

// pick claims a task to be decoded ahead. Who has the turn decodes the very next one
// cheapest himself, without keeping it. The caller holds mu.
func (d *decoders) pick(w *worker) *task {
	if len(d.todo) == 0 {
		return nil
	}
	i := 0
	if d.taken && len(d.todo) > 1 {
		i = 1
	}
	t := d.todo[i]
	d.todo = slices.Delete(d.todo, i, i+1)
	t.by = w
	if n := len(w.spare); n > 0 {
		t.memory, w.spare = w.spare[n-1], w.spare[:n-1]
	}
	return t
}

// errElsewhere says that what comes next is with another worker, or will be.
var errElsewhere = errors.New("log: the next events are another worker's")

// claim is asked by who has the turn about the task that comes next. It is inline if
// nobody has begun it and who asks has to decode it; errElsewhere ends the turn, and the
// next one begins with that task.
func (d *decoders) claim(t *task) (inline bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case t.by == nil:
		d.todo = slices.DeleteFunc(d.todo, func(x *task) bool { return x == t })
		return true, nil
	case d.forMe(t, d.turn):
		d.pile--
		return false, nil
	}
	d.next = t
	return false, errElsewhere
}

// handOut calls the scan's caller until the scan is over, or the next task is another
// worker's.
func (d *decoders) handOut(w *worker) (over bool, err error) {
	d.turn = w
	for {
		if d.run.count == 0 {
			if d.run, err = d.nextRun(); err != nil {
				return true, errors.Join(d.batch.flush(), err)
			}
			if d.run.count == 0 {
				return true, d.batch.flush()
			}
		}
		switch err := d.s.emit(&d.batch, &d.run); {
		case err == errElsewhere:
			return false, d.batch.flush()
		case err != nil:
			return true, err
		}
	}
}

// nextRun returns the next run of positions and plans ahead.
func (d *decoders) nextRun() (positionRange, error) {
	if 2*d.events <= d.ahead*d.size {
		if err := d.plan(d.positions); err != nil {
			return positionRange{}, err
		}
	}
	if len(d.runs) == 0 {
		return positionRange{}, nil
	}
	r := d.runs[0]
	d.runs = d.runs[1:]
	d.events -= r.count
	return r, nil
}

// plan reads position records and makes tasks of them.
func (d *decoders) plan(p *positions) error {
	d.runs = append(make([]positionRange, 0, len(d.runs)+8), d.runs...)
	var fresh []*task
	for d.events < d.ahead*d.size {
		if d.rest.count == 0 {
			var err error
			if d.rest, err = p.read(); err != nil {
				return err
			}
			if d.rest.count == 0 {
				break
			}
		}
		r := d.rest
		r.count = min(r.count, d.size)
		d.rest.first, d.rest.position, d.rest.count = d.rest.first+r.count, d.rest.position+r.count, d.rest.count-r.count
		st, err := d.s.stream(r.feed)
		if err != nil {
			return err
		}
		d.runs = append(d.runs, r)
		d.events += r.count
		fresh = d.extend(st, r, fresh)
	}
	for _, st := range d.filling {
		if st.filling != nil {
			fresh = append(fresh, st.filling)
			st.filling = nil
		}
	}
	d.filling = d.filling[:0]
	if len(fresh) == 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.todo = append(d.todo, fresh...)
	if d.idle > 0 {
		d.more.Broadcast()
	}
	return nil
}

// extend adds a run to the feed's tasks; those that are full join fresh.
func (d *decoders) extend(st *stream, r positionRange, fresh []*task) []*task {
	for r.count > 0 {
		t := st.filling
		if t == nil {
			t = d.newTask(st, r.first)
			st.filling = t
			st.queue = append(st.queue, t)
			d.filling = append(d.filling, st)
		}
		n := min(r.count, d.size-(t.end-t.first))
		t.end = r.first + n
		r.first, r.count = t.end, r.count-n
		if t.end-t.first >= d.size {
			fresh = append(fresh, t)
			st.filling = nil
		}
	}
	return fresh
}

func (d *decoders) newTask(st *stream, first uint64) *task {
	t := &task{}
	if n := len(d.spare); n > 0 {
		t, d.spare = d.spare[n-1], d.spare[:n-1]
	}
	t.no, t.id, t.verify = st.no, &st.id, d.s.verify
	t.first, t.end, t.want = first, first, first
	t.within = !st.began && len(st.queue) == 0 && st.task == nil
	return t
}

// recycle gives the memory of a task that was handed out back to who decoded it, and
// adapts the size of the next ones.
func (d *decoders) recycle(t *task) {
	switch n := len(t.out.buf); {
	case n >= taskBytes && d.size > 1:
		d.size /= 2
	case n < taskBytes/4 && d.size < taskEvents:
		d.size++
	}
	if t.by != nil {
		m := memory{decoded{events: t.out.events[:0], buf: t.out.buf[:0]}, t.parts[:0]}
		d.mu.Lock()
		t.by.spare = append(t.by.spare, m)
		d.mu.Unlock()
	}
	*t = task{}
	d.spare = append(d.spare, t)
}
