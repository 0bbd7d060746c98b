package log

import (
	"context"
	"errors"
	"math/bits"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/blake3"

	"fcp"
)

// foreignRun is an import: events that have their place in their feed already.
type foreignRun struct {
	feed  fcp.Feed
	first uint64
	prev  fcp.Hash
	times []fcp.Time
}

// Import appends events of another writer's feed verbatim: their sequence
// numbers, times and hashes stay. The events must continue the feed; those the
// log already has are skipped after their hash was compared (CodeEquivocation
// when it differs). The chain is checked before anything is written. An event
// more than fcp.MaxClockLead ahead is not taken, nor what follows it: taken says
// how many events from the front stand in the log now, and the error is then
// CodeFuture. Salts may be nil; else salts[i] goes into the key table for event i.
func (l *Log) Import(ctx context.Context, events []fcp.Event, salts [][SaltSize]byte) (taken int, err error) {
	if len(events) == 0 {
		return 0, nil
	}
	if salts != nil && len(salts) != len(events) {
		return 0, fcp.Errorf(fcp.CodeInvalidArgument, "%d salts for %d events", len(salts), len(events))
	}
	feed := events[0].Feed
	if feed.Writer == l.opts.Writer && feed.Incarnation == l.incarnation.Load() {
		return 0, fcp.Errorf(fcp.CodeInvalidArgument, "the feed is this store's own")
	}
	if !feed.Plane.Chained() {
		return 0, fcp.Errorf(fcp.CodeWrongPlane, "events of the local plane never leave their node")
	}
	skip, err := l.known(feed, events)
	if err != nil {
		return 0, err
	}
	r := &request{foreign: &foreignRun{feed: feed}}
	taken, hold := l.takeForeign(r, events, salts, skip)
	if len(r.drafts) > 0 {
		if err := l.submit(ctx, r); err != nil {
			return skip, err
		}
		if r.err != nil {
			return skip, r.err
		}
	}
	return taken, hold
}

// known compares the events that the log already has and returns their number.
func (l *Log) known(feed fcp.Feed, events []fcp.Event) (int, error) {
	l.mu.Lock()
	f := l.byFeed[feed]
	seq := uint64(0)
	if f != nil {
		seq = f.durable.seq
	}
	l.mu.Unlock()
	old := 0
	for old < len(events) && events[old].Seq <= seq {
		old++
	}
	// The hash of the last covers all before it, if each names the one before.
	skip := 0
	if n := chained(events[:old]); n > 0 {
		_, have, err := l.ReadFull(f.no, events[n-1].Seq)
		if err != nil && !errors.Is(err, fcp.CodeHorizon) {
			return 0, err
		}
		if events[n-1].Hash() == have {
			skip = n
		}
	}
	for ; skip < old; skip++ { // which of them is another?
		_, have, err := l.ReadFull(f.no, events[skip].Seq)
		if err != nil && !errors.Is(err, fcp.CodeHorizon) { // of a dropped event the hash is left
			return 0, err
		}
		if h := events[skip].Hash(); h != have {
			return 0, fcp.Errorf(fcp.CodeEquivocation, "event %d of feed %s: %s here, %s there",
				events[skip].Seq, feed.ID().String()[:16], have.String()[:16], h.String()[:16])
		}
	}
	return old, nil
}

// chained returns how many of the first events are one stretch of a feed.
func chained(events []fcp.Event) int {
	var prev fcp.Hash
	for i := range events {
		e := &events[i]
		if i > 0 && (e.Seq != events[i-1].Seq+1 || e.Prev != prev || e.Feed != events[0].Feed) {
			return i
		}
		prev = e.Hash()
	}
	return len(events)
}

// takeForeign turns the new events into drafts with fixed places.
func (l *Log) takeForeign(r *request, events []fcp.Event, salts [][SaltSize]byte, skip int) (taken int, hold error) {
	run := r.foreign
	size := 0
	taken = skip
	for i := skip; i < len(events); i++ {
		e := &events[i]
		if want := events[skip].Seq + uint64(i-skip); e.Seq != want {
			hold = fcp.Errorf(fcp.CodeCorrupt, "event %d of the imported feed stands where %d belongs", e.Seq, want)
			break
		}
		if err := l.checkForeign(e, run, i == skip); err != nil {
			hold = err
			break
		}
		if err := l.clock.Observe(e.Time); err != nil {
			hold = err
			break
		}
		d := Draft{Zone: e.Feed.Zone, Plane: e.Feed.Plane, Under: e.Under, Content: e.Content}
		if salts != nil {
			d.Salt = salts[i]
		}
		r.drafts = append(r.drafts, d)
		run.times = append(run.times, e.Time)
		size += e.Content.EncodedSize()
		taken++
	}
	if len(r.drafts) > 0 {
		run.first, run.prev = events[skip].Seq, events[skip].Prev
		r.placed = make([]Placed, len(r.drafts))
		r.encode(size)
		// The chain inside the run: each event names the hash of the one before.
		prev, id := run.prev, run.feed.ID()
		var scope, under fcp.Hash
		for i := range r.drafts {
			e := &events[skip+i]
			if e.Prev != prev {
				hold = fcp.Errorf(fcp.CodeCorrupt, "the hash chain of the imported feed breaks at event %d", e.Seq)
				r.drafts, run.times, r.placed = r.drafts[:i], run.times[:i], r.placed[:i]
				return skip + i, hold
			}
			if i == 0 || e.Under != under {
				scope, under = fcp.ScopeHash(id, e.Under), e.Under
			}
			prev = fcp.EventHash(scope, e.Seq, e.Time, prev, r.drafts[i].hash)
		}
	}
	return taken, hold
}

func (l *Log) checkForeign(e *fcp.Event, run *foreignRun, first bool) error {
	if e.Feed != run.feed {
		return fcp.Errorf(fcp.CodeInvalidArgument, "one import takes events of one feed")
	}
	if n := len(run.times); !first && (e.Time <= run.times[n-1]) {
		return fcp.Errorf(fcp.CodeCorrupt, "the times of the imported feed do not rise at event %d", e.Seq)
	}
	return e.Content.Validate(e.Feed.Plane)
}

// admitForeign places an import's events. Only the leader calls it.
func (l *Log) admitForeign(r *request) error {
	run := r.foreign
	l.mu.Lock()
	f, ok := l.byFeed[run.feed]
	l.mu.Unlock()
	h := &head{} // of a feed that is new here
	if ok {
		l.scratch.settle(f, f.next.seq) // behind another import of this group
		h = &f.next
	}
	if run.first != h.seq+1 {
		return fcp.Errorf(fcp.CodeConflict, "the feed stands at event %d, the import starts at %d", h.seq, run.first)
	}
	if run.prev != h.hash {
		return fcp.Errorf(fcp.CodeEquivocation, "event %d of feed %s continues another history", run.first, run.feed.ID().String()[:16])
	}
	if run.times[0] <= h.time && h.seq > 0 {
		return fcp.Errorf(fcp.CodeCorrupt, "the times of the imported feed do not rise at event %d", run.first)
	}
	if !ok { // only now: a number is given to feeds that get stored
		l.mu.Lock()
		f = l.addFeedLocked(run.feed)
		l.mu.Unlock()
	}
	for i := range r.drafts {
		l.place(f, &r.drafts[i], run.times[i], &r.placed[i])
	}
	return nil
}

// ImportSegment takes in a sealed segment as it is: ciphertext, card and
// remainder. The feed must stand where the segment starts, and nothing of it may
// be in the hot log. The ciphertext's hash, the card's signature and the frames'
// lengths are checked; with a Sealer that can open it, the events too, and they
// are handed to the Applier. Nothing is written when a check fails.
func (l *Log) ImportSegment(ctx context.Context, rem Remainder, ciphertext []byte) error {
	if l.opts.Sealer == nil {
		return fcp.Errorf(fcp.CodeUnauthorized, "taking in a segment needs its zone key")
	}
	if err := rem.check(); err != nil {
		return err
	}
	card, err := CheckCiphertext(rem.Card, ciphertext)
	if err != nil {
		return err
	}
	if card.Segment != fcp.SegmentID(rem.Segment) {
		return fcp.Errorf(fcp.CodeCorrupt, "the remainder of segment %s carries the card of another", fcp.SegmentID(rem.Segment))
	}
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	if err := l.writable(); err != nil { // closed while this waited
		return err
	}
	d, events, err := l.checkSegment(rem, ciphertext)
	if err != nil {
		return err
	}
	if err := l.ingest(ctx, []*segmentDraft{d}); err != nil {
		return err
	}
	r := &request{}
	r.extra = func(b *pebble.Batch) error { return l.writeImported(b, d, events) }
	if err := l.submit(ctx, r); err != nil {
		return err
	}
	return r.err
}

// CheckCiphertext verifies a signed card against a segment's ciphertext. It needs
// no key.
func CheckCiphertext(cardBytes, ciphertext []byte) (fcp.Card, error) {
	card, err := fcp.DecodeCard(cardBytes)
	if err != nil {
		return card, err
	}
	info, err := card.Transmission()
	if err != nil {
		return card, err
	}
	if uint64(len(ciphertext)) != info.F || blake3.Sum256(ciphertext) != card.Segment {
		return card, fcp.Errorf(fcp.CodeChecksum, "the ciphertext of segment %s", card.Segment)
	}
	return card, nil
}

// checkSegment decrypts a foreign segment and checks its events against the
// remainder and the feed's head here.
func (l *Log) checkSegment(rem Remainder, ciphertext []byte) (*segmentDraft, []Applied, error) {
	id := rem.Feed()
	if id.Writer == l.opts.Writer && id.Incarnation == l.incarnation.Load() {
		return nil, nil, fcp.Errorf(fcp.CodeInvalidArgument, "the segment is of this store's own feed")
	}
	l.mu.Lock()
	f, ok := l.byFeed[id]
	if !ok { // it gets its number when it is stored
		f = &feed{feed: id, id: id.ID()}
	}
	l.mu.Unlock()
	// Foreign feeds move only under sealMu or through Import; a restore has no
	// other importer, so next is stable here.
	end := cut{}
	end.head.copyFrom(&f.durable)
	if end.seq+1 != rem.First || f.sealed != end.seq || end.hash != fcp.Hash(rem.Prev) {
		return nil, nil, fcp.Errorf(fcp.CodeConflict, "segment %s starts at event %d, the feed stands at %d (sealed to %d)",
			fcp.SegmentID(rem.Segment), rem.First, end.seq, f.sealed)
	}
	c, err := l.opts.Sealer.OpenSegment(rem.Run(), rem.Key, fcp.Hash(rem.ZoneKey))
	if err != nil {
		return nil, nil, err
	}
	seg := &openSegment{no: l.nextSegment, rem: rem, cipher: c}
	d := &segmentDraft{f: f, no: l.nextSegment, first: rem.First, rem: rem}
	if d.frames, err = seg.split(ciphertext); err != nil {
		return nil, nil, err
	}
	events, err := seg.events(f, d.frames)
	if err != nil {
		return nil, nil, err
	}
	for i := range events {
		e := &events[i]
		end.tree.append(e.Hash, nil)
		if e.Time <= end.time || !e.Dropped() && e.Content.Validate(id.Plane) != nil {
			return nil, nil, fcp.Errorf(fcp.CodeCorrupt, "event %d of segment %s is not valid", e.Seq, fcp.SegmentID(rem.Segment))
		}
		end.seq, end.hash, end.time = e.Seq, e.Hash, e.Time
	}
	if dropped := countDropped(events); dropped != rem.Dropped {
		return nil, nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s lacks %d events, its remainder says %d", fcp.SegmentID(rem.Segment), dropped, rem.Dropped)
	}
	if end.seq != rem.Last || end.hash != fcp.Hash(rem.Head) || end.tree.root() != fcp.Hash(rem.Root) {
		return nil, nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s does not hold the events its remainder names", fcp.SegmentID(rem.Segment))
	}
	d.end = end
	d.body, err = fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &rem)
	return d, events, err
}

// split cuts a ciphertext into its frames.
func (s *openSegment) split(ciphertext []byte) ([][]byte, error) {
	var frames [][]byte
	for _, n := range s.rem.Frames {
		size := int(n) + s.cipher.Overhead()
		if size > len(ciphertext) {
			return nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s is shorter than its frames", fcp.SegmentID(s.rem.Segment))
		}
		frames = append(frames, ciphertext[:size:size])
		ciphertext = ciphertext[size:]
	}
	if len(ciphertext) != 0 {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s is longer than its frames", fcp.SegmentID(s.rem.Segment))
	}
	return frames, nil
}

// events decrypts and decodes all events; their contents own their memory.
func (s *openSegment) events(f *feed, frames [][]byte) ([]Applied, error) {
	var out []Applied
	seq, prev := s.rem.First, fcp.Hash(s.rem.Prev)
	for i := range s.rem.blocks() {
		from, to := s.rem.frameRange(i)
		b, err := s.openFrames(nil, from, frames[from:to])
		if err != nil {
			return nil, err
		}
		var h blockHeader
		var last fcp.Hash
		if out, h, last, err = decodeBlock(out, f.no, &f.id, b, VerifyChain); err != nil {
			return nil, err
		}
		if h.first != seq || !h.chained || h.prev != prev {
			return nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s: its block %d does not continue the one before", fcp.SegmentID(s.rem.Segment), i)
		}
		seq, prev = seq+uint64(h.count), last
	}
	return out, nil
}

// writeImported commits an imported segment: positions for its events, and the
// feed's new head. Only the leader calls it.
func (l *Log) writeImported(b *pebble.Batch, d *segmentDraft, events []Applied) error {
	f := d.f
	if f.no == 0 {
		l.mu.Lock()
		f.no = l.addFeedLocked(f.feed).no
		l.feeds[f.no-1], l.byFeed[f.feed] = f, f
		l.mu.Unlock()
	}
	if f.next.seq+1 != d.first {
		return fcp.Errorf(fcp.CodeInternal, "feed %d moved to %d during the import of a segment", f.no, f.next.seq)
	}
	run := positionRange{position: l.nextPosition, feed: f.no, first: d.first, count: uint64(len(events))}
	d.runs = []positionRange{run}
	s := &l.scratch
	for i := range events {
		e := &events[i]
		e.Position, e.Feed = l.nextPosition, f.no
		l.nextPosition++
		f.grown = f.next.tree.append(e.Hash, f.grown)
		f.next.seq, f.next.hash, f.next.time = e.Seq, e.Hash, e.Time
		l.clock.Restore(e.Time)
	}
	if bits.OnesCount64(f.next.tree.size) != len(f.next.tree.roots) {
		return fcp.Errorf(fcp.CodeInternal, "the tree of feed %d does not fit its size", f.no)
	}
	if l.opts.Applier != nil {
		s.applied = append(s.applied, events...)
	}
	if f.openBlock == nil {
		s.feeds = append(s.feeds, f)
	}
	s.sealed = append(s.sealed, d)
	return errors.Join(
		b.Set(key1(keyPosition, run.position), run.value(nil), nil),
		l.writeFeed(b, f),
		l.writeSealed(b, []*segmentDraft{d}),
		l.writeReplaced(b, d),
	)
}
