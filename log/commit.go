package log

import (
	"encoding/binary"
	"errors"
	"runtime"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// commitScratch is the leader's working memory, reused from group to group.
type commitScratch struct {
	blocks  []*openBlock
	free    []*openBlock
	runs    []positionRange
	applied []Applied
	hasher  fcp.ContentHasher
	leaves  []fcp.Hash
	grower  treeGrower
	treed   []*feed // feeds whose nodes to be stored changed in this group
	val     []byte
	front   int             // limit of the group's first block
	sealed  []*segmentDraft // imported segments of this group
	feeds   []*feed         // feeds that got events in this group
	lastD   *Draft          // the feed of the previous draft, to skip a map look-up
	lastF   *feed
}

// openBlock is a block under construction: the events of one feed in this group.
type openBlock struct {
	f       *feed
	scope   fcp.Hash // of f and the block's checkpoint
	h       blockHeader
	items   []item
	settled int // how many of the items have their hashes, see settle
	size    int // encoded records
	limit   int // of size and blockSlack; a single event may be larger
	salted  bool
	runs    []positionRange
	closing fcp.Time // time of the last item
}

type item struct {
	d       *Draft
	time    fcp.Time
	placed  *Placed
	applied int // index in commitScratch.applied, when there is an Applier
}

// Head records bound what a restart has to hash again.
const (
	headRecordEvents = 8192
	headRecordBytes  = 8 << 20
)

// commit writes a group with one fsync, tells the Applier, and fills in every
// request's answer. Only the leader calls it.
func (l *Log) commit(g *group) {
	if e := l.crashed.Load(); e != nil {
		for _, r := range g.reqs {
			r.err = e
		}
		return
	}
	s := &l.scratch
	s.reset()
	base := l.nextPosition
	var extras []*request
	n := 0
	for _, r := range g.reqs {
		n += len(r.drafts)
	}
	// Of a group that fills several blocks the first is the short one: a block begins with
	// the hash before it, and the last one's own are made while the disk syncs.
	if s.front = frameSize; g.bytes > frameSize-blockSlack {
		s.front = blockSlack + g.bytes%(frameSize-blockSlack)
	}
	var now fcp.Time
	if n > 0 {
		now = l.clock.Reserve(n)
	}
	for _, r := range g.reqs {
		if r.err = l.admit(r, &now); r.err == nil && r.extra != nil {
			extras = append(extras, r)
		}
	}
	if l.nextPosition == base && len(extras) == 0 {
		return
	}
	if err := l.write(extras); err != nil {
		e := l.crash(err)
		for _, r := range g.reqs {
			r.err = e
		}
		return
	}
	l.publish()
	if l.opts.Applier != nil && len(s.applied) > 0 {
		if err := l.opts.Applier.Apply(s.applied); err != nil {
			// The events are durable; the state behind them is not what it must
			// be. Only a restart, which folds again, can mend that.
			e := l.crash(err)
			for _, r := range g.reqs {
				r.err = e
			}
		}
	}
}

func (s *commitScratch) reset() {
	for _, b := range s.blocks {
		b.f.openBlock = nil
		clear(b.items)
		*b = openBlock{items: b.items[:0], runs: b.runs[:0]}
		s.free = append(s.free, b)
	}
	s.blocks, s.runs, s.treed, s.feeds, s.sealed = s.blocks[:0], s.runs[:0], s.treed[:0], s.feeds[:0], nil
	clear(s.applied)
	s.applied = s.applied[:0]
	s.lastD, s.lastF = nil, nil
}

// admit checks a whole request, then gives each draft its place.
func (l *Log) admit(r *request, now *fcp.Time) error {
	if r.foreign != nil {
		return l.admitForeign(r)
	}
	if g := l.opts.Guard; g != nil {
		for i := range r.drafts {
			earlier, err := g.Check(&r.drafts[i])
			if err != nil {
				return err
			}
			if earlier != nil {
				r.duplicate = true
				r.placed = append(r.placed[:0], *earlier)
				return nil
			}
		}
	}
	for i := range r.drafts {
		d := &r.drafts[i]
		f := l.feedOf(d)
		t := max(*now, f.next.time+1)
		*now = t + 1
		l.place(f, d, t, &r.placed[i])
	}
	return nil
}

// feedOf finds or makes the own feed of a draft.
func (l *Log) feedOf(d *Draft) *feed {
	s := &l.scratch
	if s.lastD != nil && s.lastD.Plane == d.Plane && s.lastD.Zone == d.Zone {
		return s.lastF
	}
	key := fcp.Feed{Zone: d.Zone, Writer: l.opts.Writer, Incarnation: l.incarnation.Load(), Plane: d.Plane}
	l.mu.Lock()
	f, ok := l.byFeed[key]
	if !ok {
		f = l.addFeedLocked(key)
	}
	l.mu.Unlock()
	s.lastD, s.lastF = d, f
	return f
}

// place assigns position, sequence number, time and hash, and queues the event
// for its block.
func (l *Log) place(f *feed, d *Draft, t fcp.Time, p *Placed) {
	s := &l.scratch
	b := f.openBlock
	if b == nil || f.cutNow || b.h.under != d.Under || b.size+len(d.content)+blockSlack > b.limit {
		b = l.newBlock(f, d.Under, t)
	}
	step := uint64(0)
	if b.h.count > 0 {
		step = uint64(t - b.closing)
	}
	b.closing = t
	size := recordSize(step, len(d.content))
	b.size += size
	b.h.count++
	b.items = append(b.items, item{d, t, p, len(s.applied)})
	b.salted = b.salted || d.Salt != [SaltSize]byte{}

	f.next.seq++
	f.next.time = t
	f.recordBytes += len(d.content)
	*p = Placed{Position: l.nextPosition, Feed: f.no, Seq: f.next.seq, Time: t}
	l.nextPosition++
	if n := len(s.runs); n > 0 && s.runs[n-1].feed == f.no && !f.cutNow {
		s.runs[n-1].count++
	} else {
		s.runs = append(s.runs, positionRange{p.Position, f.no, p.Seq, 1})
	}
	if n := len(b.runs); n > 0 && b.runs[n-1].position+b.runs[n-1].count == p.Position {
		b.runs[n-1].count++
	} else {
		b.runs = append(b.runs, positionRange{p.Position, f.no, p.Seq, 1})
	}
	f.cutNow = false
	if l.opts.Applier != nil {
		s.applied = append(s.applied, Applied{Placed: *p, Under: d.Under, Content: d.Content})
	}
	if f.cutBytes += int64(size); f.cutBytes >= int64(l.opts.SegmentTarget) && f.own && f.chained() {
		s.settle(f, f.next.seq)
		f.newCuts = append(f.newCuts, f.cutAtNext())
	}
	if l.opts.Guard != nil {
		l.opts.Guard.Admit(d, *p)
	}
}

// settle gives the events of a feed in this group, up to number seq, the hashes they do
// not have yet: of contents, side by side, then chain and tree. It is put off until the
// batch needs a hash (of a block, of a head, of the end of a segment), and else until the
// disk has the batch to sync: the committer would only wait there.
func (s *commitScratch) settle(f *feed, seq uint64) {
	b := f.openBlock
	if b == nil || !b.h.chained || seq < b.h.first+uint64(b.settled) {
		return
	}
	items := b.items[b.settled : seq+1-b.h.first]
	for i := range items {
		if d := items[i].d; d.hash.IsZero() {
			s.hasher.Add(&d.hash, d.content)
		}
	}
	s.hasher.Flush()
	s.leaves = s.leaves[:0]
	next := b.h.first + uint64(b.settled)
	for i := range items {
		it := &items[i]
		f.next.hash = fcp.EventHash(b.scope, next+uint64(i), it.time, f.next.hash, it.d.hash)
		s.leaves = append(s.leaves, f.next.hash)
		it.placed.Hash = f.next.hash
		if it.applied < len(s.applied) {
			s.applied[it.applied].Hash = f.next.hash
		}
	}
	b.settled += len(items)
	had := len(f.grown)
	if f.grown = s.grower.extend(&f.next.tree, s.leaves, f.grown); len(f.grown) > had {
		s.treed = append(s.treed, f)
	}
}

// blockSlack is more than a block's header and a record's framing can take.
const blockSlack = 160

// cutAtNext ends the open run behind the event just placed.
func (f *feed) cutAtNext() cut {
	c := cut{head: head{seq: f.next.seq, hash: f.next.hash, time: f.next.time, tree: f.next.tree.clone()}, bytes: f.cutBytes}
	f.cutBytes, f.cutNow = 0, true
	return c
}

func (l *Log) newBlock(f *feed, under fcp.Hash, t fcp.Time) *openBlock {
	s := &l.scratch
	s.settle(f, f.next.seq) // the block's header has the hash before its first event
	var b *openBlock
	if n := len(s.free); n > 0 {
		b, s.free = s.free[n-1], s.free[:n-1]
	} else {
		b = new(openBlock)
	}
	b.f, b.limit = f, frameSize
	if len(s.blocks) == 0 {
		b.limit = s.front
	}
	b.h = blockHeader{first: f.next.seq + 1, chained: f.chained(), prev: f.next.hash, under: under, time: t}
	if f.openBlock == nil {
		s.feeds = append(s.feeds, f)
	}
	if f.scope.IsZero() || f.scopeUnder != under {
		f.scope, f.scopeUnder = fcp.ScopeHash(f.id, under), under
	}
	b.scope = f.scope
	f.openBlock = b
	s.blocks = append(s.blocks, b)
	return b
}

// write puts the group into one batch and syncs it.
func (l *Log) write(extras []*request) (err error) {
	defer recoverFatal(&err)
	s := &l.scratch
	b := l.db.NewBatch()
	defer b.Close()
	for _, f := range s.feeds {
		if len(extras) > 0 || f.headDue() {
			s.settle(f, f.next.seq)
		}
	}
	for _, blk := range s.blocks {
		if err := l.writeBlock(b, blk); err != nil {
			return err
		}
	}
	for _, run := range s.runs {
		s.val = run.value(s.val[:0])
		if err := b.Set(key1(keyPosition, run.position), s.val, nil); err != nil {
			return err
		}
	}
	for _, f := range s.feeds {
		if err := l.writeFeed(b, f); err != nil {
			return err
		}
	}
	for _, r := range extras {
		if err := r.extra(b); err != nil {
			return err
		}
	}
	if err := l.db.ApplyNoSyncWait(b, pebble.Sync); err != nil {
		return err
	}
	runtime.Gosched() // Pebble's goroutine begins to sync at once
	for _, f := range s.feeds {
		s.settle(f, f.next.seq)
	}
	return b.SyncWait()
}

// writeBlock encodes a block straight into the batch's memory.
func (l *Log) writeBlock(b *pebble.Batch, blk *openBlock) error {
	s := &l.scratch
	s.val = appendRuns(s.val[:0], blk.runs)
	op := b.SetDeferred(feedSeqKeySize, len(s.val)+blk.h.size()+blk.size)
	appendSeqKey(op.Key[:0], keyHot, blk.f.no, blk.h.first)
	v := append(op.Value[:0], s.val...)
	v = blk.h.appendTo(v)
	prev := blk.h.time
	for _, it := range blk.items {
		v = appendRecord(v, uint64(it.time-prev), it.d.content)
		prev = it.time
	}
	if len(v) != len(op.Value) {
		return fcp.Errorf(fcp.CodeInternal, "a block of %d bytes was announced with %d", len(v), len(op.Value))
	}
	if err := op.Finish(); err != nil {
		return err
	}
	if !blk.salted {
		return nil
	}
	op = b.SetDeferred(feedSeqKeySize, SaltSize*len(blk.items))
	appendSeqKey(op.Key[:0], keySalts, blk.f.no, blk.h.first)
	for i, it := range blk.items {
		copy(op.Value[i*SaltSize:], it.d.Salt[:])
	}
	return op.Finish()
}

// appendRuns appends the positions of a block: count, then position and length
// of each run (docs/format.md "Hot block").
func appendRuns(b []byte, runs []positionRange) []byte {
	b = binary.AppendUvarint(b, uint64(len(runs)))
	for _, r := range runs {
		b = binary.AppendUvarint(b, r.position)
		b = binary.AppendUvarint(b, r.count)
	}
	return b
}

// writeFeed stores a new feed's record, and now and then its head.
func (l *Log) writeFeed(b *pebble.Batch, f *feed) error {
	if !f.stored {
		if err := b.Set(keyOfFeed(keyFeed, f.no), encodeFeed(f.feed), nil); err != nil {
			return err
		}
		f.stored = true
	}
	if !f.headDue() {
		return nil
	}
	return l.writeHead(b, f)
}

// headDue says that the next batch is to carry a head record.
func (f *feed) headDue() bool {
	return f.next.seq-f.recorded >= headRecordEvents || f.recordBytes >= headRecordBytes
}

// writeHead stores a feed's head, and the tree's nodes up to it.
func (l *Log) writeHead(b *pebble.Batch, f *feed) error {
	f.recorded, f.recordBytes = f.next.seq, 0
	return errors.Join(
		b.Set(keyOfFeed(keyHead, f.no), f.next.appendTo(nil), nil),
		l.writeNodes(b, f))
}

// writeNodes stores the nodes of a feed's tree that are not stored yet. Whatever a
// restart begins behind has to come with them: behind it the tree is grown again.
func (l *Log) writeNodes(b *pebble.Batch, f *feed) error {
	for i := range f.grown {
		n := &f.grown[i]
		if err := b.Set(keyOfNode(f.no, n.level, n.index), n.hash[:], nil); err != nil {
			return err
		}
	}
	f.grown = f.grown[:0]
	l.scratch.treed = append(l.scratch.treed, f)
	return nil
}

// publish makes the group visible as durable.
func (l *Log) publish() {
	s := &l.scratch
	wake := false
	l.mu.Lock()
	for _, f := range s.feeds {
		f.durable.copyFrom(&f.next)
		for _, c := range f.newCuts {
			wake = true
			f.addCut(c)
		}
		f.newCuts = f.newCuts[:0]
	}
	for _, f := range s.treed {
		f.unstored = append(f.unstored[:0], f.grown...)
	}
	for _, b := range s.blocks {
		f := b.f
		f.noteHot(b.size, b.h.time)
		if f.own && f.chained() && l.opts.Sealer != nil {
			l.unsealed += int64(b.size)
		}
		for i := len(b.items) - 1; i >= 0; i-- {
			if b.items[i].d.Content.Kind != fcp.KindSegmentSealed {
				f.lastOther = b.h.first + uint64(i)
				break
			}
		}
	}
	for _, d := range s.sealed {
		d.f.sealed, d.f.sealedID = d.end.seq, fcp.SegmentID(d.rem.Segment)
	}
	l.mu.Unlock()
	l.durable.Store(l.nextPosition - 1)
	if l.idle.Load() && l.idle.Swap(false) {
		select {
		case l.grew <- struct{}{}:
		default:
		}
	}
	if wake && l.opts.Sealer != nil {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
}

// addCut queues a cut. Its bytes count from the cut before, which Seal may have
// put closer than the committer knew. The caller holds Log.mu.
func (f *feed) addCut(c cut) {
	if n := len(f.cuts); n > 0 && f.cuts[n-1].seq >= c.seq || f.sealed >= c.seq {
		return
	}
	f.cuts = append(f.cuts, c)
}

// noteHot accounts a block that is not sealed yet.
func (f *feed) noteHot(bytes int, t fcp.Time) {
	f.hotBytes += int64(bytes)
	if f.hotSince == 0 {
		f.hotSince = t
	}
}
