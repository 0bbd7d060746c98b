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

	out   decoded
	parts []part
	err   error // behind the parts

	claimed, done bool // guarded by decoders.mu
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

// run decodes the task, or as much of it as its memory may hold.
func (t *task) run(c *cursor) {
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

// Tasks are small enough to stay in a core's cache and for the last ones of a
// scan to be shared well, and large enough to make the hand-over cheap.
const (
	taskEvents = 1024
	taskBytes  = 512 << 10
	taskAhead  = 8 // tasks of full size per goroutine
)

// decoders decode tasks ahead of a scanner on goroutines of their own. The scanner
// decodes too whenever it would wait for them, so that all processors are busy
// whether decoding or what the scan's caller does takes longer.
type decoders struct {
	s     *scanner
	ahead uint64 // events to plan ahead

	// Used by the scanner only.
	size    uint64          // events of a task
	runs    []positionRange // planned, not emitted yet
	events  uint64          // in runs
	rest    positionRange   // of the position record read last, not planned yet
	filling []*stream       // streams that may have an unsubmitted task
	own     map[FeedNo]*cursor
	spare   []*task

	mu   sync.Mutex
	todo []*task // submitted and not claimed, in order; guarded by mu
	idle int     // goroutines that wait; guarded by mu
	stop bool    // guarded by mu
	err  error   // of closing cursors; guarded by mu
	work sync.Cond
	done sync.Cond
	wg   sync.WaitGroup
}

func newDecoders(s *scanner, n int) *decoders {
	d := &decoders{s: s, size: taskEvents, ahead: uint64(n+1) * taskAhead, own: map[FeedNo]*cursor{}}
	d.work.L, d.done.L = &d.mu, &d.mu
	for range n {
		d.wg.Go(d.decode)
	}
	return d
}

func (d *decoders) close() error {
	d.mu.Lock()
	d.stop = true
	d.work.Broadcast()
	d.mu.Unlock()
	d.wg.Wait()
	return errors.Join(d.err, closeCursors(d.own))
}

func closeCursors(m map[FeedNo]*cursor) (err error) {
	for _, c := range m {
		err = errors.Join(err, c.close())
	}
	return err
}

func (d *decoders) cursor(m map[FeedNo]*cursor, no FeedNo) *cursor {
	c := m[no]
	if c == nil {
		c = &cursor{l: d.s.l, snap: d.s.snap, no: no}
		m[no] = c
	}
	return c
}

// decode is one goroutine.
func (d *decoders) decode() {
	cursors := map[FeedNo]*cursor{}
	d.mu.Lock()
	for !d.stop {
		t := d.pick(1)
		if t == nil {
			d.idle++
			d.work.Wait()
			d.idle--
			continue
		}
		d.mu.Unlock()
		t.run(d.cursor(cursors, t.no))
		d.mu.Lock()
		t.done = true
		d.done.Signal()
	}
	d.mu.Unlock()
	err := closeCursors(cursors)
	d.mu.Lock()
	d.err = errors.Join(d.err, err)
	d.mu.Unlock()
}

// pick claims a task: the first but skip, or what there is. The scanner decodes
// the very next one cheapest itself, without keeping it. The caller holds mu.
func (d *decoders) pick(skip int) *task {
	if len(d.todo) == 0 {
		return nil
	}
	t := d.todo[min(skip, len(d.todo)-1)]
	d.take(t)
	return t
}

// take claims a task that nobody has claimed. The caller holds mu.
func (d *decoders) take(t *task) {
	t.claimed = true
	i := slices.Index(d.todo, t)
	d.todo = slices.Delete(d.todo, i, i+1)
}

// claim returns true if nobody has begun t, which is then the caller's; else it
// returns false when t is done, and decodes other tasks until then.
func (d *decoders) claim(t *task) (mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !t.claimed {
		d.take(t)
		return true
	}
	for !t.done {
		x := d.pick(0)
		if x == nil {
			d.done.Wait()
			continue
		}
		d.mu.Unlock()
		x.run(d.cursor(d.own, x.no))
		d.mu.Lock()
		x.done = true
	}
	return false
}

// nextRun returns the next run of positions and plans ahead.
func (d *decoders) nextRun(p *positions) (positionRange, error) {
	if 2*d.events <= d.ahead*d.size {
		if err := d.plan(p); err != nil {
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
		d.work.Broadcast()
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

// recycle keeps a finished task's memory and adapts the size of the next ones.
func (d *decoders) recycle(t *task) {
	switch n := len(t.out.buf); {
	case n >= taskBytes && d.size > 1:
		d.size /= 2
	case n < taskBytes/4 && d.size < taskEvents:
		d.size++
	}
	out := decoded{events: t.out.events[:0], buf: t.out.buf[:0]}
	*t = task{out: out, parts: t.parts[:0]}
	d.spare = append(d.spare, t)
}
