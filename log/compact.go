package log

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// Compaction makes one segment out of neighbouring segments of a feed: events
// that stay are copied forward as they are, of those that are dropped the hash is
// left. A compacted segment holds the same run of sequence numbers, so chain, tree
// and every proof stay what they were, and it can be checked without anything
// that went. Two phases, as in a seal, with the crash points of
// docs/format.md:
//
//  1. build: the segment is written as a sorted table and taken in. Crash points
//     "compact-built", "compact-table-linked" and "compact-ingested". Until phase 2
//     nothing refers to the frames; Open deletes such orphans.
//  2. commit: one batch adds the segment.sealed event, remainder, index row and
//     the key table without the salts of what was dropped, and drops the frames
//     and remainders of the segments that are replaced. Crash point
//     "compact-committed". There is no moment at which both are there or neither.
//
// Then the space is given back to the file system ("compact-reclaimed"); when a
// crash comes before, Pebble does it later.

// CompactRun is what becomes one segment.
type CompactRun struct {
	Feed     FeedNo
	Segments []uint64 // local numbers of neighbouring segments, in the feed's order
	Drop     []uint64 // sequence numbers of the events to drop, ascending
	Horizon  fcp.Time // put into the remainder: reads as of then or before may miss what is dropped
}

// CompactResult says what Compact did.
type CompactResult struct {
	Segments []SegmentInfo // the new ones
	Replaced int           // segments that they stand for
	Events   uint64        // dropped by this call
	Before   uint64        // bytes of ciphertext that are gone
	After    uint64        // bytes of ciphertext in their place
}

// Compact replaces segments. Several runs go through both phases together; what a
// failed or interrupted call had committed stays, and is in the result. The runs
// must be of the data plane (CodeWrongPlane); CodeInvalidArgument when segments
// are not neighbours. The caller decides what may be dropped: the log cannot bring
// it back.
func (l *Log) Compact(ctx context.Context, runs []CompactRun) (out CompactResult, err error) {
	if err := l.writable(); err != nil {
		return out, err
	}
	if l.opts.Sealer == nil || l.opts.Signer == nil {
		return out, fcp.Errorf(fcp.CodeUnauthorized, "compaction needs zone keys and the node's signing key")
	}
	var gone []uint64
	for len(runs) > 0 && err == nil {
		if ctx.Err() != nil {
			err = ctxError(ctx)
			break
		}
		var n int
		n, err = l.compactRound(ctx, runs, &out, &gone)
		runs = runs[n:]
	}
	return out, errors.Join(err, l.reclaim(ctx, gone))
}

// compactRound compacts the first n runs, about maxSealRound of plaintext.
func (l *Log) compactRound(ctx context.Context, runs []CompactRun, out *CompactResult, gone *[]uint64) (n int, err error) {
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	var round []*compaction
	for size := 0; n < len(runs) && size < maxSealRound; n++ {
		c, err := l.buildCompacted(&runs[n], l.nextSegment+uint64(n))
		if err != nil {
			return n, err
		}
		round = append(round, c)
		size += int(c.rem.Plain)
	}
	infos, err := l.commitCompacted(ctx, round)
	if err != nil {
		return n, err
	}
	out.Segments = append(out.Segments, infos...)
	for _, c := range round {
		out.Replaced += len(c.refs)
		out.Events += c.fresh
		out.Before += c.before
		out.After += c.after
		for i := range c.refs {
			*gone = append(*gone, c.refs[i].segment)
		}
	}
	return n, nil
}

// compaction is a compacted segment on its way to the commit.
type compaction struct {
	segmentDraft
	refs          []sealedRef // what it replaces
	ids           []fcp.SegmentID
	fresh         uint64 // events dropped now
	before, after uint64 // bytes of ciphertext
	prev          fcp.Hash
	salts         saltRows
}

func (l *Log) buildCompacted(run *CompactRun, no uint64) (*compaction, error) {
	f := l.feedByNo(run.Feed)
	switch {
	case f == nil:
		return nil, fcp.Errorf(fcp.CodeNotFound, "feed %d", run.Feed)
	case f.feed.Plane != fcp.PlaneData:
		return nil, fcp.Errorf(fcp.CodeWrongPlane, "events of the %s plane are never dropped", f.feed.Plane)
	case len(run.Segments) == 0 || !slices.IsSorted(run.Drop):
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a compaction of %d segments", len(run.Segments))
	}
	c := &compaction{segmentDraft: segmentDraft{f: f, no: no}}
	c.rem = Remainder{Format: compactedFormat, Zone: f.feed.Zone, Writer: f.feed.Writer[:],
		Incarnation: f.feed.Incarnation, Plane: uint64(f.feed.Plane), Horizon: uint64(run.Horizon)}
	w := sparseWriter{p: &l.sealing, drop: run.Drop}
	w.p.reset(true)
	for _, segment := range run.Segments {
		if err := l.takeSegment(c, &w, segment); err != nil {
			return nil, err
		}
	}
	w.p.close()
	c.fresh, c.rem.Dropped = w.fresh, w.dropped
	c.rem.Objects, c.rem.Seqs = w.p.objects.sorted(c.first)
	if err := l.encrypt(&c.segmentDraft, w.p); err != nil {
		return nil, err
	}
	if len(c.body) > fcp.MaxClearBody {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "one segment in the place of %d, with a remainder of %d bytes", len(c.refs), len(c.body))
	}
	c.after = uint64(len(c.ciphertext))
	return c, l.collectSalts(c, run.Drop)
}

// takeSegment appends a segment's events to what is being built, its chain
// verified.
func (l *Log) takeSegment(c *compaction, w *sparseWriter, segment uint64) error {
	seg, err := l.openSegment(segment)
	if err != nil {
		return err
	}
	rem, r := &seg.rem, &c.rem
	if len(c.refs) == 0 {
		c.first, c.prev = rem.First, fcp.Hash(rem.Prev)
		r.First, r.Prev, r.Previous, r.Last = rem.First, rem.Prev, rem.Previous, rem.First-1
	}
	ref, ok, err := l.sealedAt(c.f.no, rem.First)
	if err != nil {
		return err
	}
	if !ok || ref.segment != segment || rem.Feed() != c.f.feed || rem.First != r.Last+1 {
		return fcp.Errorf(fcp.CodeInvalidArgument, "segment number %d does not follow event %d of feed %d", segment, r.Last, c.f.no)
	}
	for i := range rem.blocks() {
		b, err := l.readBlock(seg, i)
		if err != nil {
			return err
		}
		if c.under, err = w.addBlock(c.f, b, &c.prev); err != nil {
			return fcp.Wrap(fcp.CodeCorrupt, err, "block %d of segment %s", i, fcp.SegmentID(rem.Segment))
		}
	}
	if w.next != rem.Last+1 || c.prev != fcp.Hash(rem.Head) {
		return fcp.Errorf(fcp.CodeCorrupt, "segment %s does not end with the event it names", fcp.SegmentID(rem.Segment))
	}
	card, err := fcp.DecodeCard(rem.Card)
	if err != nil {
		return err
	}
	info, err := card.Transmission()
	if err != nil {
		return err
	}
	c.before += info.F
	c.refs, c.ids = append(c.refs, ref), append(c.ids, card.Segment)
	c.runs = mergeRuns(c.runs, ref.runs)
	end := rem.endID()
	r.Last, r.Head, r.Root, r.Time, r.Ends = rem.Last, rem.Head, rem.Root, rem.Time, end[:]
	r.Replaces = append(r.Replaces, rem.Segment...)
	r.Horizon = max(r.Horizon, rem.Horizon)
	return nil
}

// sparseWriter packs events into blocks, some of them as their hash alone.
type sparseWriter struct {
	p       *packer
	drop    []uint64 // sequence numbers still to come
	next    uint64   // 0 before the first block
	dropped uint64   // events without content
	fresh   uint64   // of these, dropped now
	events  []Applied
}

// addBlock appends a block that continues the chain at prev, and moves prev.
func (w *sparseWriter) addBlock(f *feed, b []byte, prev *fcp.Hash) (under fcp.Hash, err error) {
	var h blockHeader
	var last fcp.Hash
	w.events, h, last, err = decodeBlock(w.events[:0], f.no, &f.id, b, VerifyChain)
	if err != nil {
		return under, err
	}
	if !h.chained || h.prev != *prev || w.next != 0 && h.first != w.next {
		return under, fcp.Errorf(fcp.CodeCorrupt, "event %d does not continue the chain", h.first)
	}
	_, records, err := parseBlock(b)
	if err != nil {
		return under, err
	}
	it := newRecordIter(&h, records)
	for i := range w.events {
		rec, _ := it.next() // decodeBlock saw it to the end
		e := &w.events[i]
		for len(w.drop) > 0 && w.drop[0] < e.Seq {
			w.drop = w.drop[1:]
		}
		if !rec.dropped && len(w.drop) > 0 && w.drop[0] == e.Seq {
			rec.dropped, rec.content = true, e.Hash[:]
			w.fresh++
		}
		if err := w.add(e.Seq, h.under, *prev, &rec); err != nil {
			return under, err
		}
		*prev = e.Hash
	}
	w.next = h.first + uint64(h.count)
	*prev = last
	return h.under, nil
}

func (w *sparseWriter) add(seq uint64, under, prev fcp.Hash, rec *record) error {
	p := w.p
	const framing = 2 * binary.MaxVarintLen64
	if p.h.count > 0 && (!rec.dropped && p.h.under != under || p.h.size()+len(p.cur)+len(rec.content)+framing > frameSize) {
		p.close()
	}
	if p.h.count == 0 {
		p.h = blockHeader{first: seq, chained: true, prev: prev, under: under, time: rec.time}
		p.last = rec.time
	}
	step := uint64(rec.time - p.last)
	p.last = rec.time
	p.h.count++
	if rec.dropped {
		w.dropped++
		p.h.sparse = true
		p.cur = append(binary.AppendUvarint(p.cur, step), 0)
		p.cur = append(p.cur, rec.content...)
		return nil
	}
	p.cur = appendRecord(p.cur, step, rec.content)
	return p.objects.add(seq, rec.content)
}

// commitCompacted runs both phases for a round.
func (l *Log) commitCompacted(ctx context.Context, round []*compaction) ([]SegmentInfo, error) {
	drafts := make([]*segmentDraft, len(round))
	for i, c := range round {
		drafts[i] = &c.segmentDraft
	}
	return l.takeInAndAnnounce(ctx, drafts, func(b *pebble.Batch) error {
		for _, c := range round {
			if err := l.writeCompacted(b, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeCompacted adds to the commit of the segment.sealed events what puts a
// segment in the place of others.
func (l *Log) writeCompacted(b *pebble.Batch, c *compaction) error {
	for i := range c.refs {
		no := c.refs[i].segment
		err := errors.Join(
			b.DeleteRange(keyOfFrame(no, 0), keyOfFrame(no+1, 0), nil),
			b.Delete(key1(keySegment, no), nil),
			b.Delete(keyOfID(c.ids[i]), nil),
			b.Delete(keyOfSeq(keySealed, c.f.no, c.refs[i].first), nil),
		)
		if err != nil {
			return err
		}
	}
	ref := sealedRef{first: c.first, last: c.rem.Last, segment: c.no, runs: c.runs}
	return errors.Join(
		b.Set(key1(keySegment, c.no), c.body, nil),
		b.Set(keyOfSeq(keySealed, c.f.no, c.first), ref.value(), nil),
		b.Set(keyOfID(fcp.SegmentID(c.rem.Segment)), key1(0, c.no)[1:], nil),
		c.salts.write(b, c.f.no),
		l.writeReplaced(b, &c.segmentDraft),
	)
}

// writeReplaced notes what a compacted segment, made here or taken in, stands for.
// Only the leader calls it.
func (l *Log) writeReplaced(b *pebble.Batch, d *segmentDraft) error {
	if !d.rem.Compacted() {
		return nil
	}
	for _, id := range d.rem.Replaced() {
		if err := b.Set(keyOfReplaced(id), d.rem.Segment, nil); err != nil {
			return err
		}
	}
	l.mu.Lock()
	d.f.horizon = max(d.f.horizon, fcp.Time(d.rem.Horizon))
	d.f.compacted = max(d.f.compacted, d.no)
	v := binary.BigEndian.AppendUint64(nil, uint64(d.f.horizon))
	v = binary.BigEndian.AppendUint64(v, d.f.compacted)
	l.mu.Unlock()
	return b.Set(keyOfFeed(keyHorizon, d.f.no), v, nil)
}

// recoverHorizons reads the feeds' horizons.
func (l *Log) recoverHorizons() error {
	return l.scanPrefix([]byte{keyHorizon}, func(k, v []byte) error {
		f := (*feed)(nil)
		if len(k) == 5 {
			f = l.feedLocked(FeedNo(binary.BigEndian.Uint32(k[1:])))
		}
		if f == nil || len(v) != 16 {
			return fcp.Errorf(fcp.CodeCorrupt, "a feed's horizon does not decode")
		}
		f.horizon, f.compacted = fcp.Time(binary.BigEndian.Uint64(v)), binary.BigEndian.Uint64(v[8:])
		return nil
	})
}

// ReplacedBy returns the segment that stands in the place of one that was
// compacted; ok is false for a segment that this store did not replace. The
// answer may itself have been replaced since.
func (l *Log) ReplacedBy(id fcp.SegmentID) (by fcp.SegmentID, ok bool, err error) {
	v, ok, err := l.get(keyOfReplaced(id))
	if !ok || err != nil {
		return by, false, err
	}
	if len(v) != fcp.HashSize {
		return by, false, fcp.Errorf(fcp.CodeCorrupt, "a record of replaced segments does not decode")
	}
	return fcp.SegmentID(v), true, nil
}

// reclaim lets Pebble rewrite the tables that held dropped segments, so that
// their space comes back now.
func (l *Log) reclaim(ctx context.Context, gone []uint64) error {
	slices.Sort(gone)
	for len(gone) > 0 {
		n := 1
		for n < len(gone) && gone[n] == gone[n-1]+1 {
			n++
		}
		from, to := keyOfFrame(gone[0], 0), keyOfFrame(gone[n-1]+1, 0)
		gone = gone[n:]
		err := l.abandonable(func() error { return l.compactRange(ctx, from, to) })
		if err != nil {
			return wrapDisk(err, "giving back the space of compacted segments")
		}
	}
	return nil
}

// compactRange has Pebble rewrite the tables of a range of keys, unless the log is
// closed: then Pebble does it some other time.
func (l *Log) compactRange(ctx context.Context, from, to []byte) error {
	if !l.life.Enter() {
		return nil
	}
	defer l.life.Leave()
	return l.db.Compact(context.WithoutCancel(ctx), from, to, false)
}

// countDropped returns the number of events without content.
func countDropped(events []Applied) (n uint64) {
	for i := range events {
		if events[i].Dropped() {
			n++
		}
	}
	return n
}

// saltRows is a change of the key table.
type saltRows struct {
	remove []uint64 // first sequence numbers of rows
	set    []saltRow
}

type saltRow struct {
	first uint64
	salts []byte
}

// maxSaltGap is how many empty entries are written rather than a new row.
const maxSaltGap = 2

// collectSalts plans the key table of a run without the salts of dropped events.
// The caller holds sealMu, as everybody does who changes salts of sealed events.
func (l *Log) collectSalts(c *compaction, drop []uint64) error {
	it, err := l.iter(keyOfSeq(keySalts, c.f.no, 0), keyOfSeq(keySalts, c.f.no, c.rem.Last+1))
	if err != nil {
		return err
	}
	if !it.SeekLT(keyOfSeq(keySalts, c.f.no, c.first+1)) {
		it.First()
	}
	for ; it.Valid(); it.Next() {
		_, first := splitSeqKey(it.Key())
		v := bytes.Clone(it.Value())
		last := first + uint64(len(v)/SaltSize) - 1
		if len(v) == 0 || last < c.first {
			continue
		}
		c.salts.remove = append(c.salts.remove, first)
		i, _ := slices.BinarySearch(drop, first)
		for ; i < len(drop) && drop[i] <= last; i++ {
			clear(v[(drop[i]-first)*SaltSize:][:SaltSize])
		}
		for off := 0; off+SaltSize <= len(v); off += SaltSize {
			c.salts.add(first+uint64(off/SaltSize), v[off:off+SaltSize])
		}
	}
	return readError(errors.Join(it.Error(), it.Close()))
}

// maxSaltRow bounds a row, in entries.
const maxSaltRow = 1024

// add takes the next salt.
func (s *saltRows) add(seq uint64, salt []byte) {
	if [SaltSize]byte(salt) == ([SaltSize]byte{}) {
		return
	}
	if n := len(s.set); n > 0 {
		r := &s.set[n-1]
		next := r.first + uint64(len(r.salts)/SaltSize)
		if seq-next <= maxSaltGap && seq-r.first < maxSaltRow {
			r.salts = append(r.salts, make([]byte, (seq-next)*SaltSize)...)
			r.salts = append(r.salts, salt...)
			return
		}
	}
	s.set = append(s.set, saltRow{seq, bytes.Clone(salt)})
}

func (s *saltRows) write(b *pebble.Batch, no FeedNo) error {
	for _, first := range s.remove {
		if err := b.Delete(keyOfSeq(keySalts, no, first), nil); err != nil {
			return err
		}
	}
	for i := range s.set {
		if err := b.Set(keyOfSeq(keySalts, no, s.set[i].first), s.set[i].salts, nil); err != nil {
			return err
		}
	}
	return nil
}
