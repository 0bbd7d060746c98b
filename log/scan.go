package log

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// Scan calls fn with events in position order, in batches of any size that all
// come from one feed. It reads a consistent snapshot: what was durable at the
// call, up to o.To. Slices are valid during the call only.
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

// scanner reads one snapshot of the store.
type scanner struct {
	l       *Log
	ctx     context.Context
	cancel  context.CancelFunc
	snap    *pebble.Snapshot
	verify  VerifyLevel
	streams map[FeedNo]*stream
	jobs    chan *unit // nil: decode where it is needed
	wg      sync.WaitGroup
	end     uint64
}

func (l *Log) newScanner(ctx context.Context, o ScanOptions) (*scanner, error) {
	if l.closed.Load() {
		return nil, fcp.Errorf(fcp.CodeClosed, "%s", l.dir)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &scanner{l: l, ctx: ctx, cancel: cancel, verify: o.Verify, streams: map[FeedNo]*stream{}, end: l.Durable()}
	s.snap = l.db.NewSnapshot()
	if o.Workers > 1 {
		s.jobs = make(chan *unit, o.Workers)
		for range o.Workers {
			s.wg.Go(func() {
				for u := range s.jobs {
					u.decode(s.verify)
					close(u.ready)
				}
			})
		}
	}
	return s, nil
}

func (s *scanner) close() error {
	s.cancel()
	var err error
	for _, st := range s.streams {
		err = errors.Join(err, st.close())
	}
	if s.jobs != nil {
		close(s.jobs)
		s.wg.Wait()
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
	err = s.walk(it, from, to, fn)
	return errors.Join(err, readError(errors.Join(it.Error(), it.Close())))
}

func (s *scanner) walk(it *pebble.Iterator, from, to uint64, fn func([]Applied) error) error {
	b := batcher{fn: fn}
	ok := it.SeekLT(key1(keyPosition, from+1))
	next := from
	for ; ok; ok = it.Next() {
		p, err := parsePosition(it.Key(), it.Value())
		if err != nil {
			return err
		}
		if p.position > next || p.position+p.count <= next {
			return fcp.Errorf(fcp.CodeCorrupt, "no event is recorded at position %d", next)
		}
		skip := next - p.position
		count := min(p.count-skip, to-next+1)
		if err := s.emit(&b, p.feed, p.first+skip, next, count); err != nil {
			return err
		}
		next += count
	}
	if next != to+1 {
		return fcp.Errorf(fcp.CodeCorrupt, "no event is recorded at position %d", next)
	}
	return b.flush()
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

// emit hands count events of a feed, from seq on, to b, stamped with positions.
func (s *scanner) emit(b *batcher, no FeedNo, seq, position, count uint64) error {
	st := s.streams[no]
	if st == nil {
		var err error
		if st, err = s.open(no, seq); err != nil {
			return err
		}
	}
	for count > 0 {
		if len(st.events) == 0 {
			// The events handed out before share memory with the unit that is
			// about to be reused.
			if err := b.flush(); err != nil {
				return err
			}
			if err := st.fill(); err != nil {
				return err
			}
		}
		if st.events[0].Seq != seq {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d: event %d stands where %d belongs", no, st.events[0].Seq, seq)
		}
		n := min(count, uint64(len(st.events)))
		out := st.events[:n]
		for i := range out {
			out[i].Position = position + uint64(i)
		}
		if err := b.add(st, out); err != nil {
			return err
		}
		st.events = st.events[n:]
		seq, position, count = seq+n, position+n, count-n
	}
	return nil
}

func (s *scanner) runFeed(no FeedNo, first, last uint64, fn func([]Applied) error) error {
	st, err := s.open(no, first)
	if err != nil {
		return err
	}
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

// unit is one block on its way from the store to the consumer.
type unit struct {
	no     FeedNo
	id     *fcp.FeedID
	block  []byte       // hot: the block; sealed: the decrypted block
	seg    *openSegment // sealed: to be decrypted first
	frame  int          // first frame of the block
	frames [][]byte     // its ciphertext

	endOf  *Remainder // this is the last block of that segment
	events []Applied
	head   blockHeader
	last   fcp.Hash
	err    error
	ready  chan struct{} // closed by a worker
}

func (u *unit) decode(verify VerifyLevel) {
	if u.seg != nil {
		if u.block, u.err = u.seg.openFrames(u.block[:0], u.frame, u.frames); u.err != nil {
			return
		}
	}
	u.events, u.head, u.last, u.err = decodeBlock(u.events[:0], u.no, u.id, u.block, verify)
}

// stream hands out one feed's events in order.
type stream struct {
	s      *scanner
	no     FeedNo
	id     fcp.FeedID
	src    *source
	queue  chan *unit    // parallel: units in order, being decoded
	spare  chan *unit    // parallel: units to be reused
	done   chan struct{} // parallel: the reading goroutine ended
	cur    *unit
	events []Applied // of cur, not handed out yet

	checked bool // prev and tree are meaningful
	prev    fcp.Hash
	tree    tree
	treed   bool // read from event 1 on
	last    uint64
}

func (s *scanner) open(no FeedNo, seq uint64) (*stream, error) {
	f := s.l.feedByNo(no)
	if f == nil {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "a position record names feed %d", no)
	}
	st := &stream{s: s, no: no, id: f.id, treed: seq == 1 && f.chained(), src: &source{s: s, no: no, from: seq}}
	s.streams[no] = st
	st.cur = &unit{no: no, id: &st.id}
	if s.jobs == nil {
		return st, nil
	}
	const ahead = 4 // decoded blocks per feed that wait for the consumer
	st.queue, st.spare = make(chan *unit, ahead), make(chan *unit, ahead+2)
	st.done = make(chan struct{})
	go st.prefetch()
	return st, nil
}

// prefetch reads units ahead and has them decoded in parallel.
func (st *stream) prefetch() {
	defer close(st.done)
	defer close(st.queue)
	for {
		var u *unit
		select {
		case u = <-st.spare:
		default:
			u = &unit{no: st.no, id: &st.id}
		}
		ok, err := st.src.next(u, true)
		if !ok && err == nil {
			return
		}
		u.ready = make(chan struct{})
		if u.err = err; err != nil {
			close(u.ready)
		} else {
			select {
			case st.s.jobs <- u:
			case <-st.s.ctx.Done():
				return
			}
		}
		select {
		case st.queue <- u:
		case <-st.s.ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// fill makes the next decoded block current.
func (st *stream) fill() error {
	if err := st.s.ctx.Err(); err != nil {
		return ctxError(st.s.ctx)
	}
	u := st.cur
	if st.s.jobs == nil {
		ok, err := st.src.next(u, false)
		if err != nil {
			return err
		}
		if !ok {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d ends at event %d, its positions go on", st.no, st.last)
		}
		u.decode(st.s.verify)
	} else {
		select {
		case st.spare <- u:
		default:
		}
		var ok bool
		if u, ok = <-st.queue; !ok {
			if st.s.ctx.Err() != nil {
				return ctxError(st.s.ctx)
			}
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d ends at event %d, its positions go on", st.no, st.last)
		}
		<-u.ready
		st.cur = u
	}
	if u.err != nil {
		return fcp.Wrap(fcp.CodeCorrupt, u.err, "feed %d behind event %d", st.no, st.last)
	}
	return st.accept(u)
}

// accept checks a decoded block against what came before it in the feed.
func (st *stream) accept(u *unit) error {
	st.events = u.events
	if skip := st.src.from; st.last == 0 && u.head.first > skip {
		return fcp.Errorf(fcp.CodeCorrupt, "feed %d: event %d stands where %d belongs", st.no, u.head.first, skip)
	} else if st.last == 0 && u.head.first < skip {
		n := skip - u.head.first
		if n >= uint64(len(st.events)) {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d: event %d is not in its block", st.no, skip)
		}
		st.events = st.events[n:]
	} else if st.last != 0 && u.head.first != st.last+1 {
		return fcp.Errorf(fcp.CodeCorrupt, "feed %d goes from event %d to %d", st.no, st.last, u.head.first)
	}
	if st.s.verify >= VerifyChain && u.head.chained {
		if st.checked && u.head.prev != st.prev {
			return fcp.Errorf(fcp.CodeCorrupt, "the hash chain of feed %d breaks at event %d", st.no, u.head.first)
		}
		if u.head.first == 1 && !u.head.prev.IsZero() {
			return fcp.Errorf(fcp.CodeCorrupt, "the first event of feed %d names a previous one", st.no)
		}
		st.checked, st.prev = true, u.last
		if err := st.checkTree(u); err != nil {
			return err
		}
	}
	st.last = u.head.first + uint64(u.head.count) - 1
	return nil
}

func (st *stream) checkTree(u *unit) error {
	treed := st.treed && st.s.verify >= VerifyTree
	if treed {
		for i := range u.events {
			st.tree.append(u.events[i].Hash, nil)
		}
	}
	r := u.endOf
	if r == nil {
		return nil
	}
	if u.head.first+uint64(u.head.count)-1 != r.Last || u.last != fcp.Hash(r.Head) {
		return fcp.Errorf(fcp.CodeCorrupt, "segment %s does not end with the event it names", fcp.SegmentID(r.Segment))
	}
	if treed && st.tree.root() != fcp.Hash(r.Root) {
		return fcp.Errorf(fcp.CodeCorrupt, "the Merkle root of segment %s does not match its events", fcp.SegmentID(r.Segment))
	}
	return nil
}

func (st *stream) close() error {
	if st.done != nil {
		for range st.queue { // let the reader end
		}
		<-st.done
	}
	return st.src.close()
}

// source reads a feed's raw blocks in order: sealed segments, then the hot log.
type source struct {
	s    *scanner
	no   FeedNo
	from uint64 // first event wanted

	at     uint64 // next event; 0 before the first call
	seg    *openSegment
	block  int
	frames *pebble.Iterator // over seg's frames
	hot    *pebble.Iterator
	// hotMoved: the block under hot was handed out already.
	hotMoved bool
}

// next loads the next block into u. own asks for copies that outlive the
// iterator's step.
func (c *source) next(u *unit, own bool) (ok bool, err error) {
	u.seg, u.frames, u.endOf, u.err = nil, u.frames[:0], nil, nil
	if c.at == 0 {
		c.at = c.from
	}
	for c.hot == nil {
		if c.seg == nil {
			if err := c.openNext(); err != nil {
				return false, err
			}
			continue
		}
		if c.block < c.seg.rem.blocks() {
			return true, c.sealedBlock(u, own)
		}
		c.at = c.seg.rem.Last + 1
		c.seg = nil
		err := c.frames.Close()
		if c.frames = nil; err != nil {
			return false, readError(err)
		}
	}
	return c.hotBlock(u, own)
}

// openNext opens the segment that holds c.at, or the hot log behind the last.
func (c *source) openNext() error {
	ref, ok, err := sealedAt(c.s.snap, c.no, c.at)
	if err != nil {
		return err
	}
	if !ok {
		return c.openHot()
	}
	if c.seg, err = c.s.l.openSegment(ref.segment); err != nil {
		return err
	}
	c.block = 0
	if c.at > ref.first {
		c.block = c.seg.rem.blockOf(c.at)
	}
	from, _ := c.seg.rem.frameRange(c.block)
	c.frames, err = c.s.snap.NewIter(&pebble.IterOptions{LowerBound: keyOfFrame(ref.segment, uint32(from)), UpperBound: keyOfFrame(ref.segment+1, 0)})
	if err != nil {
		return readError(err)
	}
	c.frames.First()
	return nil
}

func (c *source) sealedBlock(u *unit, own bool) error {
	from, to := c.seg.rem.frameRange(c.block)
	u.seg, u.frame = c.seg, from
	if !own && to-from > 1 {
		own = true // several frames, one iterator
	}
	for n := from; n < to; n++ {
		if !c.frames.Valid() || binary.BigEndian.Uint32(c.frames.Key()[9:]) != uint32(n) {
			return errors.Join(fcp.Errorf(fcp.CodeCorrupt, "segment %s lacks frame %d", fcp.SegmentID(c.seg.rem.Segment), n), iterError(c.frames))
		}
		v := c.frames.Value()
		if own {
			v = append(make([]byte, 0, len(v)), v...)
		}
		u.frames = append(u.frames, v)
		if own || n+1 < to {
			c.frames.Next()
		}
	}
	if !own {
		// The frame is decrypted before the iterator moves.
		var err error
		u.block, err = c.seg.openFrames(u.block[:0], from, u.frames)
		if u.seg = nil; err != nil {
			return err
		}
		c.frames.Next()
	}
	if c.block++; c.block == c.seg.rem.blocks() {
		u.endOf = &c.seg.rem
	}
	return nil
}

func (c *source) openHot() error {
	it, err := c.s.snap.NewIter(&pebble.IterOptions{LowerBound: keyOfSeq(keyHot, c.no, 0), UpperBound: keyOfSeq(keyHot, c.no+1, 0)})
	if err != nil {
		return readError(err)
	}
	c.hot = it
	if !it.SeekLT(keyOfSeq(keyHot, c.no, c.at+1)) {
		it.First()
	}
	return nil
}

func (c *source) hotBlock(u *unit, own bool) (bool, error) {
	if c.hotMoved {
		c.hot.Next()
	}
	c.hotMoved = true
	if !c.hot.Valid() {
		return false, iterError(c.hot)
	}
	_, b, err := splitHot(c.hot.Value())
	if err != nil {
		return false, err
	}
	if own {
		b = append(u.block[:0], b...)
	}
	u.block = b
	return true, nil
}

func (c *source) close() error {
	var err error
	if c.frames != nil {
		err = c.frames.Close()
	}
	if c.hot != nil {
		err = errors.Join(err, c.hot.Close())
	}
	return readError(err)
}
