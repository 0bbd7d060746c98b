package node

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine"
	"fcp/log"
)

// A pin (engine.Pin) is carried out by the device that it is for: it finds the bodies
// of the names that are not on its disk, brings them, and tells the others how far it
// is. It begins again whenever something new falls under a pin.

// Times of pins.
const (
	pinRetry = 2 * time.Second  // while something is missing
	pinRest  = 30 * time.Second // while nothing is
	pinPause = 100 * time.Millisecond
	// After a look at the pins that took t the next is not before pinIdle*t, so that a
	// busy writer does not keep this node looking.
	pinIdle = 10
)

// maxPins bounds the pins of one device that are told of, and carried out.
const maxPins = 256

// pinReports tells how the pins of the sender stand. A peer takes it for what it is,
// that device's word.
type pinReports struct {
	Entries []pinReport `cbor:"entries"`
}

type pinReport struct {
	Zone    fcp.ZoneID `cbor:"zone"`
	Key     string     `cbor:"key"`
	Prefix  bool       `cbor:"prefix"`
	Number  uint64     `cbor:"number"`  // of the pin
	At      uint64     `cbor:"at"`      // unix milliseconds, when the device began to look
	Names   uint64     `cbor:"names"`   // that fall under it
	Whole   uint64     `cbor:"whole"`   // of them, that the device reads by itself
	Bytes   uint64     `cbor:"bytes"`   // of their payload
	Missing uint64     `cbor:"missing"` // bytes of the segments that are to come
}

var schemaPinReports = fcp.MustSchema("fcp.mesh:PinReports@1.0.0")

func (m *pinReports) ok() bool {
	return len(m.Entries) <= maxPins && !slices.ContainsFunc(m.Entries, func(r pinReport) bool {
		return !r.Zone.Valid() || len(r.Key) > fcp.MaxKey || !utf8.ValidString(r.Key) || r.Whole > r.Names || r.At > 1<<53
	})
}

// PinState is a pin and how it stands, by the word of its device.
type PinState struct {
	engine.Pin
	Told    bool      // the device said how this pin stands; else the rest is zero
	At      time.Time // when it looked
	Names   uint64
	Whole   uint64 // names of those that it reads with nobody else there
	Bytes   uint64 // of payload of the names
	Missing uint64 // bytes of segments that it is to bring
}

// Complete reports whether every name was whole on the device at At.
func (s *PinState) Complete() bool { return s.Told && s.Whole == s.Names }

// pinTable is what a node knows of pins.
type pinTable struct {
	wakeup chan struct{}
	some   atomic.Bool // there are pins of this device

	mu     sync.Mutex
	begun  uint64                       // looks at the pins of this device that were begun; guarded by mu
	look   uint64                       // the one that mine is of; guarded by mu
	mine   []pinReport                  // guarded by mu
	theirs map[fcp.WriterID][]pinReport // what others said last; guarded by mu
	held   map[fcp.SegmentID]bool       // segments that a pin needs and that are here; guarded by mu
	kept   map[fcp.ObjectID]bool        // bodies that a pin needs and that are here in tails; guarded by mu
}

func (t *pinTable) init() {
	t.wakeup, t.theirs = make(chan struct{}, 1), map[fcp.WriterID][]pinReport{}
}

func (t *pinTable) wake() {
	select {
	case t.wakeup <- struct{}{}:
	default:
	}
}

// noted is called for each control event: it may be a pin, or fall under one.
func (t *pinTable) noted(k fcp.Kind) {
	if k == fcp.KindPinSet || t.some.Load() && (k == fcp.KindObjectPut || k == fcp.KindSegmentSealed) {
		t.wake()
	}
}

// Pinned reports whether a pin of this device needs a segment that is held here: its
// shares are not to be dropped.
func (n *Node) Pinned(segment fcp.SegmentID) bool {
	n.pins.mu.Lock()
	defer n.pins.mu.Unlock()
	return n.pins.held[segment]
}

// pinnedTail reports whether a pin of this device needs a body that is here in a tail.
func (n *Node) pinnedTail(id fcp.ObjectID) bool {
	n.pins.mu.Lock()
	defer n.pins.mu.Unlock()
	return n.pins.kept[id]
}

// Pins returns every pin that is not over, by zone, name and device.
func (n *Node) Pins() ([]PinState, error) {
	list, err := n.engine.Pins()
	if err != nil {
		return nil, err
	}
	n.pins.mu.Lock()
	defer n.pins.mu.Unlock()
	out := make([]PinState, len(list))
	for i, p := range list {
		out[i].Pin = p
		said := n.pins.theirs[p.Device]
		if p.Device == n.self {
			said = n.pins.mine
		}
		for _, r := range said {
			if r.Zone == p.Zone && r.Key == p.Key && r.Prefix == p.Prefix && r.Number == p.Number {
				out[i] = PinState{p, true, time.UnixMilli(int64(r.At)).UTC(), r.Names, r.Whole, r.Bytes, r.Missing}
			}
		}
	}
	return out, nil
}

// takePins notes what a peer says of its pins.
func (n *Node) takePins(s *Session, m *pinReports) {
	n.pins.mu.Lock()
	defer n.pins.mu.Unlock()
	n.pins.theirs[s.peer.Writer] = m.Entries
}

// tellPins tells a peer, or with nil every one, how the pins of this device stand.
func (n *Node) tellPins(to *Session) {
	n.pins.mu.Lock()
	m := &pinReports{Entries: slices.Clone(n.pins.mine)}
	n.pins.mu.Unlock()
	if m.Entries == nil {
		m.Entries = []pinReport{}
	}
	list := []*Session{to}
	if to == nil {
		list = n.everySession()
	}
	for _, s := range list {
		if err := s.send(normal, m); err != nil {
			n.logger.Debug("a peer was not told of pins", "peer", s.peer.Writer, "err", err)
		}
	}
}

// everySession returns the sessions, in the order of their peers' ids.
func (n *Node) everySession() (out []*Session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sessions {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Session) int { return compareWriters(a.peer.Writer, b.peer.Writer) })
	return out
}

// pinLoop carries the pins of this device out.
func (n *Node) pinLoop() {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-n.pins.wakeup:
		case <-n.life.Done():
			return
		}
		began := n.now()
		missing, err := n.carryOutPins(n.life)
		if err != nil && n.life.Err() == nil {
			n.logger.Warn("pins were not carried out", "err", err)
		}
		took := n.now().Sub(began)
		if !n.pause(max(pinPause, min(pinIdle*took, pinRest))) {
			return
		}
		next := pinRest
		if missing || err != nil {
			next = pinRetry
		}
		t.Reset(next)
	}
}

// carryOutPins brings what the pins of this device miss, as far as it can be had, and
// reports whether something still is missing.
func (n *Node) carryOutPins(ctx context.Context) (missing bool, err error) {
	n.pins.mu.Lock()
	n.pins.begun++
	look := n.pins.begun
	n.pins.mu.Unlock()
	all, err := n.engine.Pins()
	if err != nil {
		return false, err
	}
	mine := slices.DeleteFunc(all, func(p engine.Pin) bool { return p.Device != n.self })
	mine = mine[:min(len(mine), maxPins)]
	n.pins.some.Store(len(mine) > 0)
	held, kept := map[fcp.SegmentID]bool{}, map[fcp.ObjectID]bool{}
	reports := make([]pinReport, 0, len(mine))
	for i := range mine {
		r, perr := n.carryOutPin(ctx, &mine[i], held, kept)
		if err = errors.Join(err, perr); perr == nil {
			reports = append(reports, r)
			missing = missing || r.Whole < r.Names
		}
	}
	n.pins.mu.Lock()
	same := slices.EqualFunc(n.pins.mine, reports, func(a, b pinReport) bool {
		a.At = b.At
		return a == b
	})
	n.pins.look, n.pins.mine, n.pins.held, n.pins.kept = look, reports, held, kept
	n.pins.mu.Unlock()
	if !same || len(reports) > 0 {
		n.tellPins(nil)
	}
	return missing, err
}

// pinRounds is how often one look at a pin goes on with what it learned: manifests
// come before chunks.
const pinRounds = 4

func (n *Node) carryOutPin(ctx context.Context, p *engine.Pin, held map[fcp.SegmentID]bool, kept map[fcp.ObjectID]bool) (r pinReport, err error) {
	for round := 0; ; round++ {
		r = pinReport{Zone: p.Zone, Key: p.Key, Prefix: p.Prefix, Number: p.Number, At: uint64(max(n.now().UnixMilli(), 0))}
		l, err := n.look(ctx, p.Zone, p.Key, func(e *engine.Entry) bool { return p.Covers(e.Key) }, func(x *engine.Needed) bool {
			r.Names++
			r.Bytes += x.Size
			if x.Whole() {
				r.Whole++
			}
			return true
		})
		if err != nil {
			return r, err
		}
		r.Missing = l.bytes()
		maps.Copy(held, l.held)
		maps.Copy(kept, l.kept)
		if r.Whole == r.Names || round == pinRounds || n.bringMissing(ctx, p.Zone, l) == 0 {
			return r, nil
		}
	}
}

// looked is what names of a zone miss here.
type looked struct {
	segments map[fcp.SegmentID]uint64 // that are to be brought, and their bytes
	tails    []fcp.ObjectID
	held     map[fcp.SegmentID]bool // that they need and that are here
	kept     map[fcp.ObjectID]bool  // bodies that they need and that are here in tails
}

func (l *looked) bytes() (sum uint64) {
	for _, size := range l.segments {
		sum += size
	}
	return sum
}

// look finds out what names of a zone miss to be read from this disk alone: of those
// names that take accepts once it knows what each misses.
func (n *Node) look(ctx context.Context, zone fcp.ZoneID, prefix string, want func(*engine.Entry) bool, take func(*engine.Needed) bool) (*looked, error) {
	l := &looked{segments: map[fcp.SegmentID]uint64{}, held: map[fcp.SegmentID]bool{}, kept: map[fcp.ObjectID]bool{}}
	seen := map[fcp.ObjectID]bool{}
	err := n.engine.Needs(ctx, zone, prefix, want, n.holdings(l), func(x *engine.Needed) error {
		if !take(x) {
			return nil
		}
		for _, r := range x.Segments {
			l.segments[fcp.SegmentID(r.Segment)] = segmentSize(r)
		}
		for _, id := range x.Tails {
			if !seen[id] {
				seen[id] = true
				l.tails = append(l.tails, id)
			}
		}
		return nil
	})
	return l, err
}

// holdings is what this node has of others' bodies. It notes what was asked for and is
// here, if l is given.
func (n *Node) holdings(l *looked) engine.Held {
	known := map[fcp.SegmentID]bool{}
	tail := func(id fcp.ObjectID) bool {
		here := n.keepsTail(id)
		if here && l != nil {
			l.kept[id] = true
		}
		return here
	}
	return engine.Held{Tail: tail, Segment: func(r *log.Remainder) bool {
		id := fcp.SegmentID(r.Segment)
		here, ok := known[id]
		if !ok {
			here = n.readable(r)
			known[id] = here
		}
		if here && l != nil {
			l.held[id] = true
		}
		return here
	}}
}

func segmentSize(r *log.Remainder) uint64 {
	card, err := fcp.DecodeCard(r.Card)
	if err != nil {
		return 0 // the log checked it
	}
	info, err := card.Transmission()
	if err != nil {
		return 0
	}
	return info.F
}

// readable reports whether the symbols and the salts of a segment that are here are
// enough to read it.
func (n *Node) readable(r *log.Remainder) bool {
	if _, err := n.engine.SegmentSalts(r); err != nil {
		return false
	}
	b := roaring.New()
	k := uint64(0)
	for _, ref := range n.sharesOf(fcp.SegmentID(r.Segment)) {
		k = uint64(ref.K())
		b.AddRange(uint64(ref.First), uint64(ref.End()))
	}
	// Any two symbols beyond K fail to give the block less than once in a million
	// (RFC 6330 section 5.8); all source symbols give it always.
	return k > 0 && (b.Rank(uint32(k-1)) == k || b.GetCardinality() >= k+2)
}

// keepsTail reports whether an object's event is in a tail on this disk.
func (n *Node) keepsTail(id fcp.ObjectID) bool {
	n.tails.mu.Lock()
	defer n.tails.mu.Unlock()
	return n.tails.byID[id] != nil
}

// bringMissing brings what was found missing, and returns how many bytes came.
func (n *Node) bringMissing(ctx context.Context, zone fcp.ZoneID, l *looked) (came uint64) {
	if len(n.everySession()) == 0 {
		return 0
	}
	if len(l.segments) > 0 {
		done, err := n.pinWhere(ctx, zone, func(id fcp.SegmentID) bool { _, ok := l.segments[id]; return ok })
		came = uint64(done.Bytes)
		if err != nil && ctx.Err() == nil {
			n.logger.Debug("segments are brought one by one", "zone", zone, "err", err)
			came += n.bringEach(ctx, zone, l)
		}
	}
	for _, id := range l.tails {
		if ctx.Err() != nil {
			return came
		}
		x, _, _, err := n.askTail(ctx, zone, id)
		if err != nil {
			n.logger.Debug("a body that is in no segment yet did not come", "object", id, "err", err)
			continue
		}
		if n.keepTail(x) {
			came += uint64(len(x.Sealed))
		}
	}
	return came
}

// bringEach brings segments one by one: one that cannot be had does not hold up the
// others.
func (n *Node) bringEach(ctx context.Context, zone fcp.ZoneID, l *looked) (came uint64) {
	ids := make([]fcp.SegmentID, 0, len(l.segments))
	for id := range l.segments {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b fcp.SegmentID) int { return slices.Compare(a[:], b[:]) })
	for _, id := range ids {
		if ctx.Err() != nil || len(n.everySession()) == 0 {
			return came
		}
		done, err := n.pinWhere(ctx, zone, func(x fcp.SegmentID) bool { return x == id })
		if err != nil {
			n.logger.Debug("a segment did not come", "segment", id, "err", err)
		}
		came += uint64(done.Bytes)
	}
	return came
}

// WaitPinned waits until the devices of all pins of a scope said that every name is
// whole there; zone and key as in engine.Pin. This device looks anew for it, so that
// what was written before the call is counted; of another one it is what it said last,
// by a clock of its own. CodeTimeout
// when ctx ends before, with those that are missing; CodeNotFound when there is no such
// pin.
func (n *Node) WaitPinned(ctx context.Context, zone fcp.ZoneID, key string, prefix bool) error {
	zone = cmp.Or(zone, engine.DefaultZone)
	n.pins.mu.Lock()
	before := n.pins.begun // such a look may not have seen what is there now
	n.pins.mu.Unlock()
	n.pins.wake()
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		n.pins.mu.Lock()
		look := n.pins.look
		n.pins.mu.Unlock()
		all, err := n.Pins()
		if err != nil {
			return err
		}
		some, missing := false, fcp.WriterID{}
		for i := range all {
			if p := &all[i]; p.Zone == zone && p.Key == key && p.Prefix == prefix {
				some = true
				if !p.Complete() || p.Device == n.self && look <= before {
					missing = p.Device
				}
			}
		}
		switch {
		case !some:
			return fcp.Errorf(fcp.CodeNotFound, "there is no pin of %q in %s", key, zone).WithNext("see `fcpctl pin ls`")
		case missing == fcp.WriterID{}:
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "%q is not whole on %s", key, n.memberName(missing)).WithNext("see `fcpctl pin ls`")
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}
