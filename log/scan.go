package log

import (
	"context"
	"errors"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// Scan calls fn with events in position order, in batches of any size that all
// come from one feed. It reads a consistent snapshot: what was durable at the
// call, up to o.To. Slices are valid during the call only. Calls of fn follow one
// another; with more than one worker they come from several goroutines, which fn must
// not end.
//
// With o.Verify at VerifyChain every content hash and the whole hash chain is
// checked from the first event read of each feed on; at VerifyTree the Merkle
// roots at segment ends and at the heads besides, for feeds read from their
// beginning.
func (l *Log) Scan(ctx context.Context, o ScanOptions, fn func(events []Applied) error) error {
	s, err := l.newScanner(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(s.run(o.From, o.To, fn), s.close())
}

// ScanFeed calls fn with the events first..last of one feed; last 0 means its
// durable head. Positions are not filled in.
func (l *Log) ScanFeed(ctx context.Context, no FeedNo, first, last uint64, verify VerifyLevel, fn func(events []Applied) error) error {
	h, ok := l.Head(no)
	if !ok {
		return fcp.Errorf(fcp.CodeNotFound, "feed %d", no)
	}
	if last == 0 || last > h.Seq {
		last = h.Seq
	}
	first = max(first, 1)
	if first > last {
		return nil
	}
	s, err := l.newScanner(ctx, ScanOptions{Verify: verify})
	if err != nil {
		return err
	}
	return errors.Join(s.runFeed(no, first, last, fn), s.close())
}

// scanner reads one snapshot of the store. It is used by one goroutine at a time; others
// may decode ahead (see decoders).
type scanner struct {
	l       *Log
	ctx     context.Context
	snap    *pebble.Snapshot
	verify  VerifyLevel
	streams map[FeedNo]*stream
	ahead   *decoders // nil: there is one worker
	end     uint64
	grower  treeGrower
}

func (l *Log) newScanner(ctx context.Context, o ScanOptions) (*scanner, error) {
	if l.closed.Load() || !l.life.Enter() {
		return nil, l.errClosed()
	}
	s := &scanner{l: l, ctx: ctx, verify: o.Verify, streams: map[FeedNo]*stream{}, end: l.Durable()}
	s.snap = l.db.NewSnapshot()
	if o.Workers > 1 {
		s.ahead = newDecoders(s, o.Workers)
	}
	return s, nil
}

func (s *scanner) close() error {
	defer s.l.life.Leave()
	var err error
	for _, st := range s.streams {
		err = errors.Join(err, st.cur.close())
	}
	return errors.Join(err, readError(s.snap.Close()))
}

// run walks the position records and hands out each feed's events in step.
func (s *scanner) run(from, to uint64, fn func([]Applied) error) error {
	from = max(from, 1)
	if to == 0 || to > s.end {
		to = s.end
	}
	if from > to {
		return nil
	}
	it, err := s.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{keyPosition}, UpperBound: key1(keyPosition, to+1)})
	if err != nil {
		return readError(err)
	}
	p := &positions{it: it, next: from, to: to}
	if s.ahead != nil {
		err = s.ahead.scan(p, fn)
	} else {
		err = s.walk(p, fn)
	}
	return errors.Join(err, readError(errors.Join(it.Error(), it.Close())))
}

func (s *scanner) walk(p *positions, fn func([]Applied) error) error {
	b := batcher{fn: fn}
	for {
		r, err := p.read()
		switch {
		case err != nil:
			return err
		case r.count == 0:
			return b.flush()
		}
		if err := s.emit(&b, &r); err != nil {
			return err
		}
	}
}

// positions reads the position records of a range without a gap.
type positions struct {
	it      *pebble.Iterator
	started bool
	next    uint64 // position that the next record must hold
	to      uint64 // last position
}

// read returns the next run of positions of one feed; its count is 0 at the end.
func (p *positions) read() (r positionRange, err error) {
	ok := false
	if p.started {
		ok = p.it.Next()
	} else {
		p.started = true
		ok = p.it.SeekLT(key1(keyPosition, p.next+1))
	}
	if !ok {
		if err := iterError(p.it); err != nil || p.next == p.to+1 {
			return r, err
		}
		return r, fcp.Errorf(fcp.CodeCorrupt, "no event is recorded at position %d", p.next)
	}
	if r, err = parsePosition(p.it.Key(), p.it.Value()); err != nil {
		return positionRange{}, err
	}
	if r.position > p.next || r.position+r.count <= p.next {
		return positionRange{}, fcp.Errorf(fcp.CodeCorrupt, "no event is recorded at position %d", p.next)
	}
	skip := p.next - r.position
	r.position, r.first = p.next, r.first+skip
	r.count = min(r.count-skip, p.to-p.next+1)
	p.next += r.count
	return r, nil
}

// batcher joins neighbouring runs of one decoded block into one call.
type batcher struct {
	fn      func([]Applied) error
	st      *stream
	pending []Applied
}

func (b *batcher) add(st *stream, events []Applied) error {
	if b.st == st && len(b.pending) > 0 && len(events) > 0 {
		if n := len(b.pending); cap(b.pending) > n && &b.pending[:n+1][n] == &events[0] {
			b.pending = b.pending[:n+len(events)]
			return nil
		}
	}
	if err := b.flush(); err != nil {
		return err
	}
	b.st, b.pending = st, events
	return nil
}

func (b *batcher) flush() error {
	p := b.pending
	b.pending = nil
	if len(p) == 0 {
		return nil
	}
	return b.fn(p)
}

// emit hands the events of a run to b, stamped with positions. r says what is left.
func (s *scanner) emit(b *batcher, r *positionRange) error {
	st, err := s.stream(r.feed)
	if err != nil {
		return err
	}
	if st.task == nil && s.ahead == nil {
		st.begin(r.first, math.MaxUint64)
	}
	for r.count > 0 {
		if len(st.events) == 0 {
			// Filling may reuse the memory of the events handed out before.
			if st.overwrites() {
				if err := b.flush(); err != nil {
					return err
				}
			}
			switch err := st.fill(); {
			case err == errElsewhere:
				return err
			case err != nil:
				return errors.Join(b.flush(), err)
			}
		}
		if st.events[0].Seq != r.first {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d: event %d stands where %d belongs", r.feed, st.events[0].Seq, r.first)
		}
		n := min(r.count, uint64(len(st.events)))
		out := st.events[:n]
		for i := range out {
			out[i].Position = r.position + uint64(i)
		}
		if err := b.add(st, out); err != nil {
			return err
		}
		st.events = st.events[n:]
		r.first, r.position, r.count = r.first+n, r.position+n, r.count-n
	}
	return nil
}

func (s *scanner) runFeed(no FeedNo, first, last uint64, fn func([]Applied) error) error {
	st, err := s.stream(no)
	if err != nil {
		return err
	}
	st.begin(first, math.MaxUint64)
	for first <= last {
		if err := st.fill(); err != nil {
			return err
		}
		out := st.events
		if n := last - first + 1; uint64(len(out)) > n {
			out = out[:n]
		}
		if err := fn(out); err != nil {
			return err
		}
		first += uint64(len(out))
	}
	return nil
}

func (s *scanner) stream(no FeedNo) (*stream, error) {
	if st := s.streams[no]; st != nil {
		return st, nil
	}
	f := s.l.feedByNo(no)
	if f == nil {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "a position record names feed %d", no)
	}
	st := &stream{s: s, no: no, id: f.id, chained: f.chained(), cur: cursor{l: s.l, snap: s.snap, no: no}}
	s.streams[no] = st
	return st, nil
}

// stream hands out one feed's events in order. They come in tasks: ranges of the
// feed that are decoded ahead, or here, block by block.
type stream struct {
	s       *scanner
	no      FeedNo
	id      fcp.FeedID
	chained bool

	queue   []*task // parallel: tasks behind task, in order
	filling *task   // parallel: the last of them while it is planned
	task    *task   // nil: the next is wanted
	inline  bool    // what is left of task is decoded here
	cur     cursor  // for that
	block   decoded // the block decoded last
	part    int     // parts of task handed out

	events []Applied // decoded, not handed out yet
	began  bool      // a block was accepted
	last   uint64    // of the last block

	checked bool // prev and tree are meaningful
	prev    fcp.Hash
	tree    tree
	treed   bool // read from event 1 on
	leaves  []fcp.Hash
	grown   []treeNode // of no interest here
}

// begin makes the events from first on, below end, the stream's only task.
func (st *stream) begin(first, end uint64) {
	st.task, st.inline = &task{no: st.no, id: &st.id, first: first, end: end, within: true, want: first, verify: st.s.verify}, true
}

// overwrites reports whether fill may reuse the memory of events handed out.
func (st *stream) overwrites() bool {
	return st.task == nil || st.inline || st.part == len(st.task.parts)
}

// fill decodes the next block, or takes it from what was decoded ahead.
func (st *stream) fill() error {
	for {
		t := st.task
		switch {
		case st.s.ctx.Err() != nil:
			return ctxError(st.s.ctx)
		case t == nil:
			if len(st.queue) == 0 {
				return st.ends()
			}
			inline, err := st.s.ahead.claim(st.queue[0])
			if err != nil {
				return err
			}
			st.task, st.queue, st.part, st.inline = st.queue[0], st.queue[1:], 0, inline
		case st.inline:
			ok, err := t.step(&st.cur, &st.block, false)
			switch {
			case err != nil:
				return fcp.Wrap(fcp.CodeCorrupt, err, "feed %d behind event %d", st.no, st.last)
			case ok:
				return st.accept(st.block.events, &st.block.part)
			case st.s.ahead == nil:
				return st.ends()
			}
			st.finish()
		case st.part < len(t.parts):
			p := &t.parts[st.part]
			st.part++
			return st.accept(t.out.events[p.from:p.to], p)
		case t.err != nil:
			return fcp.Wrap(fcp.CodeCorrupt, t.err, "feed %d behind event %d", st.no, st.last)
		case t.first < t.end: // too large to be decoded ahead in one
			st.inline = true
		default:
			st.finish()
		}
	}
}

func (st *stream) finish() {
	st.s.ahead.recycle(st.task)
	st.task, st.inline = nil, false
}

func (st *stream) ends() error {
	return fcp.Errorf(fcp.CodeCorrupt, "feed %d ends at event %d, its positions go on", st.no, st.last)
}

// accept checks a decoded block against what came before it in the feed.
func (st *stream) accept(events []Applied, p *part) error {
	st.events = events
	first := p.head.first
	switch {
	case st.began && first != st.last+1:
		return fcp.Errorf(fcp.CodeCorrupt, "feed %d goes from event %d to %d", st.no, st.last, first)
	case !st.began:
		want := st.task.want
		if first > want {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d: event %d stands where %d belongs", st.no, first, want)
		}
		if want-first >= uint64(len(events)) {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d: event %d is not in its block", st.no, want)
		}
		st.events = events[want-first:]
		st.treed = want == 1 && st.chained
		st.began = true
	}
	if st.s.verify >= VerifyChain && p.head.chained {
		if st.checked && p.head.prev != st.prev {
			return fcp.Errorf(fcp.CodeCorrupt, "the hash chain of feed %d breaks at event %d", st.no, first)
		}
		if first == 1 && !p.head.prev.IsZero() {
			return fcp.Errorf(fcp.CodeCorrupt, "the first event of feed %d names a previous one", st.no)
		}
		st.checked, st.prev = true, p.last
		if err := st.checkTree(events, p); err != nil {
			return err
		}
	}
	st.last = p.head.lastSeq()
	return nil
}

func (st *stream) checkTree(events []Applied, p *part) error {
	treed := st.treed && st.s.verify >= VerifyTree
	if treed {
		st.leaves = st.leaves[:0]
		for i := range events {
			st.leaves = append(st.leaves, events[i].Hash)
		}
		st.grown = st.s.grower.extend(&st.tree, st.leaves, st.grown[:0])
	}
	r := p.endOf
	if r == nil {
		return nil
	}
	if p.head.lastSeq() != r.Last || p.last != fcp.Hash(r.Head) {
		return fcp.Errorf(fcp.CodeCorrupt, "segment %s does not end with the event it names", fcp.SegmentID(r.Segment))
	}
	if treed && st.tree.root() != fcp.Hash(r.Root) {
		return fcp.Errorf(fcp.CodeCorrupt, "the Merkle root of segment %s does not match its events", fcp.SegmentID(r.Segment))
	}
	return nil
}
