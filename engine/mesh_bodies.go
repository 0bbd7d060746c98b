package engine

import (
	"bytes"
	"cmp"
	"container/list"
	"context"
	"errors"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// Fetcher brings the ciphertext of a segment that is not in this log, from
// wherever its symbols are, and sees to it that KeepSalts was called for it. Safe
// for concurrent use.
type Fetcher func(ctx context.Context, r *log.Remainder) (ciphertext []byte, err error)

// SetFetcher tells the engine where bodies come from that are not on this node;
// nil: nowhere. Get then reads them as if they were here, except that it waits.
func (e *Engine) SetFetcher(f Fetcher) { e.mesh.fetcher.Store(&f) }

// openedSegments is how many segments from elsewhere are kept in memory, opened.
const openedSegments = 4

// meshBodies finds and keeps bodies of segments that are not in the log.
type meshBodies struct {
	fetcher  atomic.Pointer[Fetcher]
	tails    atomic.Pointer[TailFetcher]
	members  memberCache
	enrolled memo[*authority.Device]     // enrollments
	revoked  memo[map[fcp.WriterID]bool] // whom a revocation takes out
	orders   memo[*authority.Forgetting] // orders to forget
	carried  memo[bool]                  // refs of those that were carried out and cannot be acknowledged

	salts  chan struct{} // of one: in it while salts are written
	mu     sync.Mutex
	opened list.List // of *openedSegment, most recent first; guarded by mu
}

type openedSegment struct {
	rem    *log.Remainder
	ready  chan struct{} // closed when events or err is there
	events []log.Applied
	salts  []byte
	err    error
}

// DataSegments calls fn for every segment of the data plane of a zone that members
// told of, in the order of the state.
func (e *Engine) DataSegments(zone fcp.ZoneID, fn func(*log.Remainder) error) error {
	return e.toldSegments(zone, func(_ *fcp.Event, r *log.Remainder) error { return fn(r) })
}

// DataSegment returns one of the segments that DataSegments shows: the one with that id
// which begins at position first of a feed; nil when nobody told of it.
func (e *Engine) DataSegment(zone fcp.ZoneID, feed fcp.FeedID, first uint64, id fcp.SegmentID) (*log.Remainder, error) {
	p, ok, err := e.placeOf(zone, projSegments, segmentKey(nil, feed, first, id[:]))
	if err != nil || !ok {
		return nil, err
	}
	_, r, err := e.toldAt(p)
	return r, err
}

// toldAt returns the event at a place of projSegments, and what it tells of a segment;
// nil for one that is not of the data plane.
func (e *Engine) toldAt(p place) (told *fcp.Event, r *log.Remainder, err error) {
	ev, _, err := e.log.Read(p.feed, p.seq)
	if err != nil {
		return nil, nil, err
	}
	rem, err := log.DecodeRemainder(ev.Body)
	if err != nil || rem.Plane != uint64(fcp.PlaneData) {
		return nil, nil, err
	}
	return &ev, &rem, nil
}

// toldSegments is DataSegments with the event that told of each.
func (e *Engine) toldSegments(zone fcp.ZoneID, fn func(told *fcp.Event, r *log.Remainder) error) error {
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		return nil
	}
	prefix := appendPrefix(nil, no, e.fold.slot(projSegments))
	var places []place
	err := e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
		p, err := decodePlace(v.Local)
		places = append(places, p)
		return true, err
	})
	if err != nil {
		return err
	}
	for _, p := range places {
		told, r, err := e.toldAt(p)
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		if err := fn(told, r); err != nil {
			return err
		}
	}
	return nil
}

// foundIn is a segment that holds an object, and the object's event in it.
type foundIn struct {
	rem *log.Remainder
	seq uint64
}

// findForeign returns the segments that hold an object: those that no other one
// stands for first.
func (e *Engine) findForeign(zone fcp.ZoneID, id fcp.ObjectID) (found []foundIn, err error) {
	replaced := map[fcp.SegmentID]bool{}
	err = e.DataSegments(zone, func(c *log.Remainder) error {
		for _, old := range c.Replaced() {
			replaced[old] = true
		}
		n := len(c.Seqs)
		at := sort.Search(n, func(i int) bool { return bytes.Compare(c.Objects[i*fcp.HashSize:(i+1)*fcp.HashSize], id[:]) >= 0 })
		if at < n && fcp.ObjectID(c.Objects[at*fcp.HashSize:(at+1)*fcp.HashSize]) == id {
			found = append(found, foundIn{c, c.First + c.Seqs[at]})
		}
		return nil
	})
	slices.SortStableFunc(found, func(a, b foundIn) int {
		return cmp.Compare(btoi(replaced[fcp.SegmentID(a.rem.Segment)]), btoi(replaced[fcp.SegmentID(b.rem.Segment)]))
	})
	return found, err
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// foreignBody returns the event that carries an object which is not in this log.
// CodeNotEnough when it cannot be had now.
func (e *Engine) foreignBody(ctx context.Context, zone fcp.ZoneID, id fcp.ObjectID) (fcp.Event, [log.SaltSize]byte, error) {
	var salt [log.SaltSize]byte
	var missing error = fcp.Errorf(fcp.CodeNotEnough, "the body of object %s is not on this node yet", id)
	f := e.mesh.fetcher.Load()
	if f == nil || *f == nil {
		return fcp.Event{}, salt, missing
	}
	found, err := e.findForeign(zone, id)
	if err != nil {
		return fcp.Event{}, salt, err
	}
	for i, in := range found {
		var ev fcp.Event
		ev, salt, err = e.foreignIn(ctx, *f, in, id)
		if err == nil && salt == log.ForgottenSalt && i+1 < len(found) {
			continue // another copy may have its key
		}
		if !errors.Is(err, fcp.CodeNotEnough) {
			return ev, salt, err
		}
		missing = err
	}
	// It is in no segment yet, or its writer died before that was spread.
	return e.fromTail(ctx, zone, id, missing)
}

// foreignIn returns an object's event and salt out of a segment from elsewhere.
func (e *Engine) foreignIn(ctx context.Context, fetch Fetcher, in foundIn, id fcp.ObjectID) (fcp.Event, [log.SaltSize]byte, error) {
	var salt [log.SaltSize]byte
	r := in.rem
	s, err := e.openForeign(ctx, fetch, r)
	if err != nil {
		return fcp.Event{}, salt, err
	}
	i := int(in.seq - r.First)
	a := &s.events[i]
	if a.Seq != in.seq || a.Content.Object != id {
		return fcp.Event{}, salt, fcp.Errorf(fcp.CodeCorrupt, "segment %s does not hold the object that its remainder names", fcp.SegmentID(r.Segment))
	}
	if off := i * log.SaltSize; off+log.SaltSize <= len(s.salts) {
		copy(salt[:], s.salts[off:])
	}
	return fcp.Event{Feed: r.Feed(), Seq: in.seq, Time: a.Time, Under: a.Under, Content: a.Content}, salt, nil
}

// openForeign returns a segment's events, from memory or by fetching it once for
// all who wait.
func (e *Engine) openForeign(ctx context.Context, fetch Fetcher, r *log.Remainder) (*openedSegment, error) {
	m := &e.mesh
	m.mu.Lock()
	for el := m.opened.Front(); el != nil; el = el.Next() {
		if s := el.Value.(*openedSegment); bytes.Equal(s.rem.Segment, r.Segment) {
			m.opened.MoveToFront(el)
			m.mu.Unlock()
			select {
			case <-s.ready:
				return s, s.err
			case <-ctx.Done():
				return nil, interrupted(ctx)
			}
		}
	}
	s := &openedSegment{rem: r, ready: make(chan struct{})}
	el := m.opened.PushFront(s)
	for m.opened.Len() > openedSegments {
		m.opened.Remove(m.opened.Back())
	}
	m.mu.Unlock()
	s.events, s.salts, s.err = e.fetchForeign(ctx, fetch, r)
	if s.err != nil { // the next one tries again
		m.mu.Lock()
		m.opened.Remove(el)
		m.mu.Unlock()
	}
	close(s.ready)
	return s, s.err
}

func (e *Engine) fetchForeign(ctx context.Context, fetch Fetcher, r *log.Remainder) ([]log.Applied, []byte, error) {
	ciphertext, err := fetch(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	salts, err := e.SegmentSalts(r)
	if err != nil {
		return nil, nil, fcp.Wrap(fcp.CodeKeyTableLost, err, "the salts of segment %s", fcp.SegmentID(r.Segment))
	}
	events, err := e.log.OpenForeign(r, ciphertext)
	return events, salts, err
}

// Renew begins a new incarnation of this node; see log.Log.Renew.
func (e *Engine) Renew(ctx context.Context, was uint64) error { return e.log.Renew(ctx, was) }

// ForkedFrom returns the lowest event of a feed from which on its writer is proven
// to have signed two histories; 0: none is proven here.
func (e *Engine) ForkedFrom(feed fcp.Feed) uint64 {
	e.fold.mu.RLock()
	defer e.fold.mu.RUnlock()
	return e.fold.cuts.ForkOf(feed)
}
