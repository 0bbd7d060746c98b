package log

import (
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

var errHot = fcp.Errorf(fcp.CodeCorrupt, "a stored block of events does not decode")

// splitHot takes the positions off a hot value and returns the first position
// and the block.
func splitHot(v []byte) (position uint64, block []byte, err error) {
	r := reader{b: v}
	n := r.uvarint()
	if r.bad || n == 0 || n > uint64(len(r.b)) {
		return 0, nil, errHot
	}
	for i := range n {
		p := r.uvarint()
		r.uvarint()
		if i == 0 {
			position = p
		}
	}
	if r.bad {
		return 0, nil, errHot
	}
	return position, r.b, nil
}

// hotRuns returns the positions of a hot value's events.
func hotRuns(no FeedNo, first uint64, v []byte) ([]positionRange, error) {
	r := reader{b: v}
	runs := r.runs(no, first)
	if r.bad {
		return nil, errHot
	}
	return runs, nil
}

// blockFor returns the block that holds an event: from the hot log, or from the
// cache of decrypted blocks. The result must not be changed.
func (l *Log) blockFor(no FeedNo, seq uint64) ([]byte, error) {
	l.mu.Lock()
	f := l.feedLocked(no)
	var sealed, last uint64
	if f != nil {
		sealed, last = f.sealed, f.durable.seq
	}
	l.mu.Unlock()
	if seq == 0 || seq > last {
		return nil, fcp.Errorf(fcp.CodeNotFound, "event %d of feed %d", seq, no)
	}
	if seq > sealed {
		b, ok, err := l.hotBlock(no, seq)
		if ok || err != nil {
			return b, err
		} // else it was sealed meanwhile
	}
	var b []byte
	ok, err := l.readSealed(no, seq, func(segment uint64) (err error) {
		b, err = l.sealedBlockOf(segment, seq)
		return err
	})
	if err == nil && !ok {
		err = fcp.Errorf(fcp.CodeCorrupt, "event %d of feed %d is in no segment and not in the hot log", seq, no)
	}
	return b, err
}

// readSealed calls fn with the segment that holds an event, and again with the one
// in its place when that was compacted before fn had read it. ok is false when no
// segment holds the event.
func (l *Log) readSealed(no FeedNo, seq uint64, fn func(segment uint64) error) (ok bool, err error) {
	for last := uint64(0); ; {
		s, ok, err := l.sealedAt(no, seq)
		if err != nil || !ok || seq < s.first {
			return false, err
		}
		if err = fn(s.segment); err == nil || s.segment == last {
			return true, err
		}
		last = s.segment
	}
}

func (l *Log) sealedBlockOf(segment, seq uint64) ([]byte, error) {
	seg, err := l.cachedSegment(segment)
	if err != nil {
		return nil, err
	}
	return l.cachedBlock(seg, seg.rem.blockOf(seq))
}

// errDropped says that only the hash of an event is left.
func errDropped(no FeedNo, seq uint64) error {
	return fcp.Errorf(fcp.CodeHorizon, "event %d of feed %d was dropped by a compaction; its hash is left", seq, no)
}

func (l *Log) hotBlock(no FeedNo, seq uint64) (block []byte, ok bool, err error) {
	it, err := l.iter(keyOfSeq(keyHot, no, 0), keyOfSeq(keyHot, no, seq+1))
	if err != nil {
		return nil, false, err
	}
	defer it.Close()
	if !it.Last() {
		return nil, false, iterError(it)
	}
	_, b, err := splitHot(it.Value())
	if err != nil {
		return nil, false, err
	}
	h, _, err := parseBlock(b)
	if err != nil {
		return nil, false, err
	}
	if seq >= h.first+uint64(h.count) {
		return nil, false, nil
	}
	return append([]byte(nil), b...), true, nil
}

// Read returns one event without its Prev hash, and its salt from the key table.
// The event owns its memory. CodeNotFound when the feed has no such event;
// CodeHorizon when a compaction dropped it: then the event has Feed, Seq and Time.
func (l *Log) Read(no FeedNo, seq uint64) (fcp.Event, [SaltSize]byte, error) {
	var salt [SaltSize]byte
	b, err := l.blockFor(no, seq)
	if err != nil {
		return fcp.Event{}, salt, err
	}
	h, records, err := parseBlock(b)
	if err != nil {
		return fcp.Event{}, salt, err
	}
	it := newRecordIter(&h, records)
	var rec record
	for range seq - h.first + 1 {
		var ok bool
		if rec, ok = it.next(); !ok {
			return fcp.Event{}, salt, errBlock
		}
	}
	if rec.dropped {
		return fcp.Event{Feed: l.Feed(no), Seq: seq, Time: rec.time}, salt, errDropped(no, seq)
	}
	e := fcp.Event{Feed: l.Feed(no), Seq: seq, Time: rec.time, Under: h.under}
	content := append([]byte(nil), rec.content...)
	if err := fcp.DecodeContent(content, &e.Content); err != nil {
		return fcp.Event{}, salt, err
	}
	salt, err = l.Salt(no, seq)
	return e, salt, err
}

// ReadFull returns one event with its Prev hash, and its own hash. It costs the
// hashing of the events before it in its block. Of an event that a compaction
// dropped the hash is returned with CodeHorizon.
func (l *Log) ReadFull(no FeedNo, seq uint64) (fcp.Event, fcp.Hash, error) {
	b, err := l.blockFor(no, seq)
	if err != nil {
		return fcp.Event{}, fcp.Hash{}, err
	}
	b = append([]byte(nil), b...)
	id := l.Feed(no).ID()
	events, h, _, err := decodeBlock(nil, no, &id, b, VerifyChain)
	if err != nil {
		return fcp.Event{}, fcp.Hash{}, err
	}
	i := int(seq - h.first)
	prev := h.prev
	if i > 0 {
		prev = events[i-1].Hash
	}
	a := &events[i]
	if a.Dropped() {
		return fcp.Event{}, a.Hash, errDropped(no, seq)
	}
	return fcp.Event{Feed: l.Feed(no), Seq: seq, Prev: prev, Time: a.Time, Under: a.Under, Content: a.Content}, a.Hash, nil
}

// Salt returns the key-table entry of an event; zero when it has none or was
// forgotten.
func (l *Log) Salt(no FeedNo, seq uint64) (salt [SaltSize]byte, err error) {
	it, err := l.iter(keyOfSeq(keySalts, no, 0), keyOfSeq(keySalts, no, seq+1))
	if err != nil {
		return salt, err
	}
	defer it.Close()
	if !it.Last() {
		return salt, iterError(it)
	}
	_, first := splitSeqKey(it.Key())
	v := it.Value()
	if off := int(seq-first) * SaltSize; off+SaltSize <= len(v) {
		copy(salt[:], v[off:])
	}
	return salt, nil
}

// SaltsOf returns the key-table entries of the events first to last of a feed, SaltSize
// bytes each, zeros for one that has none or was forgotten.
func (l *Log) SaltsOf(no FeedNo, first, last uint64) ([]byte, error) {
	if first == 0 || last < first || last-first >= maxSaltsOf {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "salts of events %d to %d", first, last)
	}
	out := make([]byte, (last-first+1)*SaltSize)
	it, err := l.iter(keyOfSeq(keySalts, no, 0), keyOfSeq(keySalts, no, last+1))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	end := out // what the runs behind did not fill
	for ok := it.Last(); ok; ok = it.Prev() {
		_, from := splitSeqKey(it.Key())
		v := it.Value()
		if from <= first {
			copy(end, v[min(uint64(len(v)), (first-from)*SaltSize):])
			break
		}
		at := (from - first) * SaltSize
		copy(end[at:], v)
		end = end[:at]
	}
	return out, iterError(it)
}

// maxSaltsOf bounds one call of SaltsOf.
const maxSaltsOf = 1 << 20

// Salts calls fn for every run of salts in the key table, by feed and sequence
// number. The slice holds SaltSize bytes for each event from first on and is
// valid during the call.
func (l *Log) Salts(fn func(no FeedNo, first uint64, salts []byte) error) error {
	return l.scanPrefix([]byte{keySalts}, func(k, v []byte) error {
		no, first := splitSeqKey(k)
		return fn(no, first, v)
	})
}

// SetSalts writes key-table entries of events that exist already (restore).
func (l *Log) SetSalts(no FeedNo, first uint64, salts []byte) error {
	if len(salts) == 0 || len(salts)%SaltSize != 0 {
		return fcp.Errorf(fcp.CodeInvalidArgument, "salts of %d bytes", len(salts))
	}
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	if err := l.writable(); err != nil {
		return err
	}
	return wrapDisk(l.db.Set(keyOfSeq(keySalts, no, first), salts, pebble.Sync), "writing the key table")
}

// PositionOf returns the position of an event.
func (l *Log) PositionOf(no FeedNo, seq uint64) (uint64, error) {
	it, err := l.iter(keyOfSeq(keyHot, no, 0), keyOfSeq(keyHot, no, seq+1))
	if err != nil {
		return 0, err
	}
	defer it.Close()
	if it.Last() {
		_, first := splitSeqKey(it.Key())
		runs, err := hotRuns(no, first, it.Value())
		if err != nil {
			return 0, err
		}
		if p, ok := positionIn(runs, seq); ok {
			return p, nil
		}
	}
	s, ok, err := l.sealedAt(no, seq)
	if err != nil {
		return 0, err
	}
	if ok && seq >= s.first {
		if p, ok := positionIn(s.runs, seq); ok {
			return p, nil
		}
	}
	return 0, fcp.Errorf(fcp.CodeNotFound, "event %d of feed %d", seq, no)
}

// At returns the event at a position.
func (l *Log) At(position uint64) (FeedNo, uint64, error) {
	p, err := l.stretch(position)
	return p.feed, p.first + position - p.position, err
}

// stretch returns the run of consecutive positions of one feed that a position
// belongs to.
func (l *Log) stretch(position uint64) (p positionRange, err error) {
	it, err := l.iter([]byte{keyPosition}, key1(keyPosition, position+1))
	if err != nil {
		return p, err
	}
	defer it.Close()
	if position == 0 || position > l.Durable() || !it.Last() {
		return p, fcp.Errorf(fcp.CodeNotPosition, "position %d, the log ends at %d", position, l.Durable())
	}
	if p, err = parsePosition(it.Key(), it.Value()); err != nil {
		return p, err
	}
	if position >= p.position+p.count {
		return p, fcp.Errorf(fcp.CodeCorrupt, "no event is recorded at position %d", position)
	}
	return p, nil
}

// PositionAtTime returns the last position whose own event was appended at or
// before t; 0 when the log is younger. It searches by the hybrid times of this
// node's own events, which rise with positions, but for those of the data plane:
// a Stage takes their times before their positions.
func (l *Log) PositionAtTime(t time.Time) (uint64, error) {
	limit := fcp.TimeFromWall(t.Add(time.Millisecond)) // all of the millisecond
	lo, hi := uint64(0), l.Durable()                   // the answer lies in [lo, hi]
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		at, own, err := l.ownTimeFrom(mid, hi)
		if err != nil {
			return 0, err
		}
		if own != 0 && at < limit {
			lo = own
		} else {
			hi = mid - 1
		}
	}
	return lo, nil
}

// ownTimeFrom returns the first own event at or behind a position, up to limit,
// that is not of the data plane.
func (l *Log) ownTimeFrom(position, limit uint64) (fcp.Time, uint64, error) {
	for p := position; p <= limit; {
		run, err := l.stretch(p)
		if err != nil {
			return 0, 0, err
		}
		if f := l.feedByNo(run.feed); f == nil || f.feed.Writer != l.opts.Writer || f.feed.Plane == fcp.PlaneData {
			p = run.position + run.count
			continue
		}
		e, _, err := l.Read(run.feed, run.first+p-run.position)
		if errors.Is(err, fcp.CodeHorizon) {
			err = nil // the time of a dropped event is kept
		}
		return e.Time, p, err
	}
	return 0, 0, nil
}

// writable refuses writing when the log is read-only, lost its tail, stopped or
// closed.
func (l *Log) writable() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refusal
}
