package log

import (
	"context"
	"encoding/binary"
	"errors"
	"sort"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"

	"fcp"
)

// Sealing turns the open run of a feed into a segment, in two phases:
//
//  1. build: frames are encrypted, hashed and signed, written as one sorted
//     table and ingested. Crash points "seal-built" (table written) and
//     "seal-ingested". Until phase 2 nothing refers to the frames; Open deletes
//     such orphans.
//  2. commit: one batch adds the segment.sealed event, the remainder and the
//     index row, and drops the hot run. Crash point "seal-committed".
//
// Several runs go through both phases together, because every table costs
// several fsyncs.

// maxSealRound bounds the plaintext taken into memory at once.
const maxSealRound = 16 << 20

// maxUnsealed bounds what waits to be sealed; appends wait beyond it, so that a
// restart has a bounded tail to read.
const maxUnsealed = 64 << 20

// Runs that are due wait for others up to sealDelay or until sealTogether bytes
// of records are there. It is well below a memtable: what is sealed before its
// memtable is flushed never reaches a table twice.
const (
	sealTogether = 8 << 20
	sealDelay    = 500 * time.Millisecond
)

// sealTick is how often open runs are looked at for an epoch that ended.
const sealTick = time.Second

// SealOptions select what Seal seals.
type SealOptions struct {
	// All seals every open run of this node's feeds but those that hold only
	// segment.sealed events. Otherwise only runs over their target are sealed.
	All bool
}

// cut is a point where a run may end: the committer knows hash and tree there.
type cut struct {
	head
	bytes int64 // record bytes since the cut before
}

// segmentDraft is a built segment on its way to the commit.
type segmentDraft struct {
	f      *feed
	no     uint64
	end    cut
	first  uint64
	rem    Remainder
	body   []byte // encoded remainder
	under  fcp.Hash
	frames [][]byte // slices of ciphertext
	runs   []positionRange

	ciphertext []byte
}

// Seal seals open runs now and returns the new segments.
func (l *Log) Seal(ctx context.Context, o SealOptions) ([]SegmentInfo, error) {
	if err := l.writable(); err != nil {
		return nil, err
	}
	if l.opts.Sealer == nil || l.opts.Signer == nil {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "sealing needs zone keys and the node's signing key")
	}
	return l.sealDue(ctx, func(f *feed) bool { return o.All && f.lastOther > f.sealed })
}

// sealDue seals, round by round, every run that reached its target and besides
// the whole open run of each feed that whole selects. whole is called with
// Log.mu held.
func (l *Log) sealDue(ctx context.Context, whole func(*feed) bool) (out []SegmentInfo, err error) {
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	return l.sealDueLocked(ctx, whole)
}

// sealDueLocked is sealDue for a caller that holds sealMu.
func (l *Log) sealDueLocked(ctx context.Context, whole func(*feed) bool) (out []SegmentInfo, err error) {
	type job struct {
		f   *feed
		end cut
	}
	var todo []job
	l.mu.Lock()
	for _, f := range l.feeds {
		if !f.own || !f.chained() {
			continue
		}
		if whole(f) {
			f.cutHere()
		}
		for _, c := range f.cuts {
			todo = append(todo, job{f, c})
		}
	}
	l.mu.Unlock()
	for len(todo) > 0 {
		if ctx.Err() != nil {
			return out, ctxError(ctx)
		}
		var round []*segmentDraft
		for size := 0; len(todo) > 0 && size < maxSealRound; todo = todo[1:] {
			d, err := l.build(todo[0].f, todo[0].end, round)
			if err != nil {
				return out, err
			}
			round = append(round, d)
			size += int(d.rem.Plain)
		}
		infos, err := l.commitSegments(ctx, round)
		if err != nil {
			return out, err
		}
		out = append(out, infos...)
	}
	return out, nil
}

// cutHere makes the durable head a place where a run ends. The caller holds
// Log.mu.
func (f *feed) cutHere() {
	last := f.sealed
	if n := len(f.cuts); n > 0 {
		last = f.cuts[n-1].seq
	}
	if f.durable.seq > last {
		c := cut{bytes: f.hotBytes}
		for _, b := range f.cuts {
			c.bytes -= b.bytes
		}
		c.head.copyFrom(&f.durable)
		f.cuts = append(f.cuts, c)
	}
}

// build makes a segment of the feed's events behind the last sealed or built one
// up to end.
func (l *Log) build(f *feed, end cut, round []*segmentDraft) (*segmentDraft, error) {
	d := &segmentDraft{f: f, no: l.nextSegment + uint64(len(round)), end: end, first: f.sealed + 1}
	previous := f.sealedID
	for _, r := range round {
		if r.f == f {
			d.first, previous = r.end.seq+1, fcp.SegmentID(r.rem.Segment)
		}
	}
	d.rem = Remainder{Format: remainderFormat, Zone: f.feed.Zone, Writer: f.feed.Writer[:],
		Incarnation: f.feed.Incarnation, Plane: uint64(f.feed.Plane),
		First: d.first, Last: end.seq, Time: uint64(end.time)}
	if !previous.IsZero() {
		d.rem.Previous = previous[:]
	}
	root := end.tree.root()
	d.rem.Head, d.rem.Root = append([]byte(nil), end.hash[:]...), root[:]
	p := &l.sealing
	p.reset(f.feed.Plane == fcp.PlaneData)
	if err := l.collect(d, p); err != nil {
		return nil, err
	}
	d.rem.Objects, d.rem.Seqs = p.objects.sorted(d.first)
	return d, l.encrypt(d, p)
}

// collect repacks the hot blocks of the run.
func (l *Log) collect(d *segmentDraft, p *packer) error {
	it, err := l.iter(keyOfSeq(keyHot, d.f.no, d.first), keyOfSeq(keyHot, d.f.no, d.end.seq+1))
	if err != nil {
		return err
	}
	defer it.Close()
	next := d.first
	for ok := it.First(); ok; ok = it.Next() {
		_, start := splitSeqKey(it.Key())
		runs, err := hotRuns(d.f.no, start, it.Value())
		if err != nil {
			return err
		}
		_, b, err := splitHot(it.Value())
		if err != nil {
			return err
		}
		h, records, err := parseBlock(b)
		if err != nil {
			return err
		}
		if h.first != next {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d goes from event %d to %d", d.f.no, next-1, h.first)
		}
		if next == d.first {
			d.rem.Prev = append([]byte(nil), h.prev[:]...)
		}
		if err := p.add(&h, records); err != nil {
			return err
		}
		next += uint64(h.count)
		d.under = h.under
		d.runs = mergeRuns(d.runs, runs)
	}
	if err := iterError(it); err != nil {
		return err
	}
	p.close()
	if next != d.end.seq+1 {
		return fcp.Errorf(fcp.CodeCorrupt, "feed %d: the hot log ends at %d inside the run %d..%d", d.f.no, next-1, d.first, d.end.seq)
	}
	return nil
}

// mergeRuns appends runs, joining those that continue each other.
func mergeRuns(dst, more []positionRange) []positionRange {
	for _, r := range more {
		if n := len(dst); n > 0 && dst[n-1].position+dst[n-1].count == r.position {
			dst[n-1].count += r.count
			continue
		}
		dst = append(dst, r)
	}
	return dst
}

// sealBlock is a block as it goes into a segment: where it stands in packer.out.
type sealBlock struct {
	first    uint64
	from, to int
}

// packer joins neighbouring hot blocks into blocks of at most frameSize. It
// never splits one: the hash in front of an event inside a hot block is not
// stored, and the committer keeps hot blocks below frameSize.
type packer struct {
	blocks  []sealBlock
	out     []byte // the finished blocks, end to end
	cur     []byte // records of the block in work
	h       blockHeader
	last    fcp.Time
	objects objectIndex
	frame   int // plaintext bytes of a full frame
}

// reset keeps the memory: segments follow each other.
func (p *packer) reset(objects bool) {
	p.blocks, p.out, p.cur, p.h, p.frame = p.blocks[:0], p.out[:0], p.cur[:0], blockHeader{}, frameSize
	p.objects = objectIndex{on: objects, entries: p.objects.entries[:0]}
}

func (p *packer) add(h *blockHeader, records []byte) error {
	it := newRecordIter(h, records)
	rec, ok := it.next()
	if !ok {
		return errBlock
	}
	joined := p.h
	joined.count += h.count
	if p.h.count == 0 || p.h.under != h.under || rec.time <= p.last ||
		joined.size()+len(p.cur)+len(records)+8 > frameSize {
		p.close()
		p.h, p.last = *h, h.time
		p.h.count = 0
	}
	p.cur = appendRecord(p.cur, uint64(rec.time-p.last), rec.content)
	p.cur = append(p.cur, it.rest...) // steps inside the block stay as they are
	p.h.count += h.count
	for seq := h.first; ok; rec, ok = it.next() {
		if err := p.objects.add(seq, rec.content); err != nil {
			return err
		}
		p.last = rec.time
		seq++
	}
	if !it.finished() {
		return errBlock
	}
	return nil
}

func (p *packer) close() {
	if p.h.count == 0 {
		return
	}
	from := len(p.out)
	p.out = append(p.h.appendTo(p.out), p.cur...)
	p.blocks = append(p.blocks, sealBlock{p.h.first, from, len(p.out)})
	p.cur, p.h = p.cur[:0], blockHeader{}
}

// objectIndex collects the object ids of a data-plane run.
type objectIndex struct {
	on      bool
	entries []objectEntry
}

type objectEntry struct {
	id  fcp.ObjectID
	seq uint64
}

func (o *objectIndex) add(seq uint64, content []byte) error {
	if !o.on {
		return nil
	}
	var c fcp.Content
	if err := fcp.DecodeContent(content, &c); err != nil {
		return err
	}
	if !c.Object.IsZero() {
		o.entries = append(o.entries, objectEntry{c.Object, seq})
	}
	return nil
}

func (o *objectIndex) sorted(first uint64) (ids []byte, seqs []uint64) {
	sort.Slice(o.entries, func(i, j int) bool {
		a, b := &o.entries[i], &o.entries[j]
		if a.id != b.id {
			return string(a.id[:]) < string(b.id[:])
		}
		return a.seq < b.seq
	})
	for i := range o.entries {
		ids = append(ids, o.entries[i].id[:]...)
		seqs = append(seqs, o.entries[i].seq-first)
	}
	return ids, seqs
}

// encrypt seals the blocks frame by frame, hashes the ciphertext, signs the card
// and encodes the remainder. The caller holds sealMu.
func (l *Log) encrypt(d *segmentDraft, p *packer) error {
	if err := l.encryptTo(d, p, l.sealBuffer); err != nil {
		return err
	}
	return d.encode()
}

func (d *segmentDraft) encode() (err error) {
	d.body, err = fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &d.rem)
	return err
}

// encryptTo does all of encrypt that does not need the segment before, into a
// buffer that it is given.
func (l *Log) encryptTo(d *segmentDraft, p *packer, buffer func(size int) []byte) error {
	cipher, wrapped, zoneKey, err := l.opts.Sealer.NewSegment(d.rem.Run())
	if err != nil {
		return err
	}
	d.rem.Key, d.rem.ZoneKey = wrapped, zoneKey[:]
	frames := 0
	for _, b := range p.blocks {
		frames += (b.to - b.from + p.frame - 1) / p.frame
	}
	d.rem.Plain = uint64(len(p.out))
	ct := buffer(len(p.out) + frames*cipher.Overhead())
	for _, b := range p.blocks {
		d.rem.Blocks = append(d.rem.Blocks, uint64(len(d.frames)), b.first-d.first)
		for rest := p.out[b.from:b.to]; len(rest) > 0; {
			n := min(len(rest), p.frame)
			i, start := len(d.frames), len(ct)
			ct = cipher.SealFrame(ct, rest[:n], uint32(i), i == frames-1)
			d.frames = append(d.frames, ct[start:len(ct):len(ct)])
			d.rem.Frames = append(d.rem.Frames, uint64(n))
			rest = rest[n:]
		}
	}
	if len(ct) > fcp.MaxSegment {
		return fcp.Errorf(fcp.CodeInternal, "a segment of %d bytes was built", len(ct))
	}
	d.ciphertext = ct
	return l.signCard(d, ct)
}

// sealBuffer returns an empty buffer of the given capacity, one that an earlier
// segment needed no longer if there is one. The caller holds sealMu.
func (l *Log) sealBuffer(size int) []byte {
	if n := len(l.sealFree); n > 0 {
		b := l.sealFree[n-1]
		l.sealFree = l.sealFree[:n-1]
		if cap(b) >= size {
			return b[:0]
		}
	}
	return make([]byte, 0, size+size/8)
}

func (l *Log) signCard(d *segmentDraft, ct []byte) error {
	id := blake3.Sum256(ct)
	d.rem.Segment = id[:]
	info := fcp.SegmentTransmission(uint64(len(ct)))
	card := fcp.Card{Format: fcp.CardFormat, Segment: id, Info: info.Bytes(),
		Source: fcp.CommitmentRoot(fcp.SourceCommitments(ct, int(info.T)))}
	copy(card.Signer[:], l.opts.Signer.Public())
	signed, err := card.SignedBytes()
	if err != nil {
		return err
	}
	if card.Signature, err = l.opts.Signer.Sign(signed); err != nil {
		return err
	}
	d.rem.Card, err = card.Encode()
	return err
}

// commitSegments runs both phases for a round of built segments.
func (l *Log) commitSegments(ctx context.Context, round []*segmentDraft) ([]SegmentInfo, error) {
	infos, err := l.takeInAndAnnounce(ctx, round, func(b *pebble.Batch) error { return l.writeSealed(b, round) })
	if err == nil {
		l.noteSealed(round)
	}
	return infos, err
}

// takeInAndAnnounce puts the frames of built segments into the store, then commits
// their segment.sealed events together with what commit adds to the batch.
func (l *Log) takeInAndAnnounce(ctx context.Context, round []*segmentDraft, commit func(*pebble.Batch) error) ([]SegmentInfo, error) {
	if err := l.ingest(ctx, round); err != nil {
		return nil, err
	}
	for _, d := range round { // the frames are in the store
		l.freeFrames(d)
	}
	return l.announce(ctx, round, commit)
}

// freeFrames gives up the memory of a segment whose frames are written. The caller
// holds sealMu.
func (l *Log) freeFrames(d *segmentDraft) {
	if len(l.sealFree) < maxSealRound/fcp.SegmentTarget {
		l.sealFree = append(l.sealFree, d.ciphertext)
	}
	d.frames, d.ciphertext = nil, nil
}

// announce commits the segment.sealed events of segments whose frames are in the
// store, together with what commit adds to the batch.
func (l *Log) announce(ctx context.Context, round []*segmentDraft, commit func(*pebble.Batch) error) ([]SegmentInfo, error) {
	r := &request{extra: commit}
	size := 0
	for _, d := range round {
		r.drafts = append(r.drafts, Draft{Zone: d.f.feed.Zone, Plane: fcp.PlaneControl, Under: d.under,
			Content: fcp.Content{Kind: fcp.KindSegmentSealed, Body: d.body}})
		size += len(d.body) + 256
	}
	r.placed = make([]Placed, len(r.drafts))
	r.encode(size)
	if err := l.submit(context.WithoutCancel(ctx), r); err != nil {
		return nil, err
	}
	if r.err != nil {
		return nil, r.err
	}
	out := make([]SegmentInfo, len(round))
	for i, d := range round {
		card, err := fcp.DecodeCard(d.rem.Card)
		if err != nil {
			return nil, err
		}
		out[i] = SegmentInfo{No: d.no, Card: card, CardBytes: d.rem.Card, Remainder: d.rem}
	}
	return out, nil
}

// ingest writes the frames as one sorted table and links it into the store.
func (l *Log) ingest(ctx context.Context, round []*segmentDraft) error {
	t, err := l.frameTable(l.tablePath(0), false)
	if err != nil {
		return err
	}
	for _, d := range round {
		if err := t.add(d); err != nil {
			return errors.Join(err, t.w.Close())
		}
	}
	err = l.takeIn(ctx, t)
	if err == nil {
		l.nextSegment += uint64(len(round))
	}
	return err
}

// writeSealed adds to the commit of the segment.sealed events what makes the
// segments the home of their runs.
func (l *Log) writeSealed(b *pebble.Batch, round []*segmentDraft) error {
	for _, d := range round {
		ref := sealedRef{first: d.first, last: d.end.seq, segment: d.no, runs: d.runs}
		err := errors.Join(
			b.Set(key1(keySegment, d.no), d.body, nil),
			b.Set(keyOfSeq(keySealed, d.f.no, d.first), ref.value(), nil),
			b.Set(keyOfID(fcp.SegmentID(d.rem.Segment)), key1(0, d.no)[1:], nil),
			b.Set(keyOfFeed(keyEnd, d.f.no), d.end.head.appendTo(nil), nil),
			l.writeNodes(b, d.f),
			b.DeleteRange(keyOfSeq(keyHot, d.f.no, d.first), keyOfSeq(keyHot, d.f.no, d.end.seq+1), nil),
			l.joinPositions(b, d.runs),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// joinPositions replaces the position records of a sealed run, one per commit
// group, by one per stretch of consecutive positions.
func (l *Log) joinPositions(b *pebble.Batch, runs []positionRange) error {
	for _, r := range runs {
		it, err := l.iter(key1(keyPosition, r.position), key1(keyPosition, r.position+r.count))
		if err != nil {
			return err
		}
		records := 0
		aligned := it.First() && string(it.Key()) == string(key1(keyPosition, r.position))
		var end uint64
		for ok := aligned; ok; ok = it.Next() {
			p, err := parsePosition(it.Key(), it.Value())
			if err != nil {
				return errors.Join(err, it.Close())
			}
			records, end = records+1, p.position+p.count
		}
		if err := readError(errors.Join(it.Error(), it.Close())); err != nil {
			return err
		}
		if records < 2 || end != r.position+r.count {
			continue // nothing to join, or a record reaches beyond the run
		}
		err = errors.Join(
			b.DeleteRange(key1(keyPosition, r.position), key1(keyPosition, r.position+r.count), nil),
			b.Set(key1(keyPosition, r.position), r.value(nil), nil))
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) noteSealed(round []*segmentDraft) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range round {
		f := d.f
		f.sealed, f.sealedID = d.end.seq, fcp.SegmentID(d.rem.Segment)
		f.hotBytes -= d.end.bytes
		l.unsealed -= d.end.bytes
		for len(f.cuts) > 0 && f.cuts[0].seq <= f.sealed {
			f.cuts = f.cuts[1:]
		}
		f.hotSince = 0
		if f.durable.seq > f.sealed {
			f.hotSince = d.end.time + 1
		}
	}
	l.sealFailed = false // it works (again): appends wait for it when it is behind
	l.makeRoomLocked()
}

// sealLoop seals runs in the background: full ones at once, others when their
// epoch has ended.
func (l *Log) sealLoop(ctx context.Context) {
	tick := time.NewTicker(sealTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
			if !l.sealPause(ctx) {
				return
			}
		case <-tick.C:
		}
		epoch := fcp.TimeFromWall(l.opts.Now()).Epoch()
		_, err := l.sealDue(ctx, func(f *feed) bool {
			return f.lastOther > f.sealed && f.hotSince != 0 && f.hotSince.Epoch() < epoch
		})
		if err != nil && ctx.Err() == nil {
			l.log.Error("sealing failed", "err", err)
			l.mu.Lock()
			l.sealFailed = true // appends no longer wait for the sealer
			l.makeRoomLocked()
			l.mu.Unlock()
			select {
			case <-ctx.Done():
				return
			case <-tick.C: // do not spin on a failing disk
			}
		}
	}
}

// sealPause waits until enough runs are due that one table pays for its fsyncs,
// but not for long.
func (l *Log) sealPause(ctx context.Context) bool {
	end := time.NewTimer(sealDelay)
	defer end.Stop()
	for {
		l.mu.Lock()
		due := int64(0)
		for _, f := range l.feeds {
			for i := range f.cuts {
				due += f.cuts[i].bytes
			}
		}
		l.mu.Unlock()
		if due >= sealTogether {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-end.C:
			return true
		case <-l.kick:
		}
	}
}

// recoverSegments finds the next segment number and drops frames that no
// committed segment refers to.
func (l *Log) recoverSegments() error {
	it, err := l.iter([]byte{keySegment}, []byte{keySegment + 1})
	if err != nil {
		return err
	}
	last := uint64(0)
	if it.Last() {
		last = binary.BigEndian.Uint64(it.Key()[1:])
	}
	if err := readError(errors.Join(it.Error(), it.Close())); err != nil {
		return err
	}
	l.nextSegment = last + 1
	if it, err = l.iter(keyOfFrame(last+1, 0), []byte{keyFrame + 1}); err != nil {
		return err
	}
	orphan := it.Last()
	if orphan {
		l.nextSegment = binary.BigEndian.Uint64(it.Key()[1:]) + 1
	}
	if err := readError(errors.Join(it.Error(), it.Close())); err != nil || l.opts.ReadOnly {
		return err
	}
	if orphan {
		if err := l.dropFrames(last+1, l.nextSegment); err != nil {
			return err
		}
	}
	return l.dropTables()
}
