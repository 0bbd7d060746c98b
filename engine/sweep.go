package engine

import (
	"context"
	"encoding/binary"
	"slices"

	"fcp"
	"fcp/engine/internal/state"
	"fcp/log"
)

// After a compaction the state still knows what was dropped. Sweeping makes it what
// a fold of the compacted log gives: bodies that are gone are forgotten, and so is
// the history of names below the horizon. The state remembers the last compacted
// segment it was swept for; a crash in between is made up for at the next open.

// metaSwept -> u64be number of the last compacted segment that was swept for.
const metaSwept = 'c'

// sweepChunk is how many keys are removed while folding waits.
const sweepChunk = 4096

// sweep brings the state up to the compacted log.
func (e *Engine) sweep(ctx context.Context) (trimmed uint64, err error) {
	last := uint64(0)
	for _, f := range e.log.Feeds() {
		last = max(last, f.Compacted)
	}
	key := metaKey(metaSwept, "")
	v, ok, err := e.st.Get(nil, key)
	if err != nil || last == 0 || ok && len(v.Local) == 8 && binary.BigEndian.Uint64(v.Local) >= last {
		return 0, err
	}
	dropped, err := e.droppedEvents()
	if err != nil {
		return 0, err
	}
	for _, zone := range e.Zones() {
		if err := e.sweepBodies(ctx, zone, dropped); err != nil {
			return trimmed, err
		}
		n, err := e.trimHistory(ctx, zone)
		if trimmed += n; err != nil {
			return trimmed, err
		}
	}
	e.gate.Lock()
	defer e.gate.Unlock()
	return trimmed, e.st.Update(e.fold.position.Load(), func(w *state.Writer) error {
		return w.Set(key, nil, binary.BigEndian.AppendUint64(nil, last))
	})
}

// sparseRun is a compacted segment: the events with an object that are still in it.
type sparseRun struct {
	first, last uint64
	present     []uint64 // ascending
}

// droppedIndex tells which events with an object were dropped.
type droppedIndex map[log.FeedNo][]sparseRun

func (d droppedIndex) has(p place) bool {
	runs := d[p.feed]
	i, _ := slices.BinarySearchFunc(runs, p.seq, func(r sparseRun, seq uint64) int {
		if r.last < seq {
			return -1
		}
		return 1
	})
	if i == len(runs) || p.seq < runs[i].first {
		return false
	}
	_, there := slices.BinarySearch(runs[i].present, p.seq)
	return !there
}

func (e *Engine) droppedEvents() (droppedIndex, error) {
	d := droppedIndex{}
	err := e.log.Segments(func(s log.SegmentInfo) error {
		rem := &s.Remainder
		if !rem.Compacted() || fcp.Plane(rem.Plane) != fcp.PlaneData {
			return nil
		}
		r := sparseRun{first: rem.First, last: rem.Last, present: make([]uint64, len(rem.Seqs))}
		for i, off := range rem.Seqs {
			r.present[i] = rem.First + off
		}
		slices.Sort(r.present)
		no, _ := e.log.FeedNo(rem.Feed())
		d[no] = append(d[no], r)
		return nil
	})
	for _, runs := range d {
		slices.SortFunc(runs, func(a, b sparseRun) int { return int(a.first) - int(b.first) })
	}
	return d, err
}

// sweepBodies forgets the places of dropped bodies, or moves them to another event
// that carries the same object.
func (e *Engine) sweepBodies(ctx context.Context, zone fcp.ZoneID, dropped droppedIndex) error {
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		return nil
	}
	prefix := appendPrefix(nil, no, e.fold.slot(projBodies))
	moved := map[fcp.ObjectID]place{} // the zero place: nowhere
	err := e.st.Scan(prefix, upperBound(prefix), func(key []byte, v state.Value) (bool, error) {
		p, err := decodePlace(v.Local)
		if err == nil && dropped.has(p) {
			moved[fcp.ObjectID(key[keyPrefix:])] = place{}
		}
		return err == nil, err
	})
	if err != nil || len(moved) == 0 {
		return err
	}
	from := map[log.FeedNo]uint64{} // first event that no segment listed below holds
	for _, f := range e.log.Feeds() {
		from[f.No] = f.Sealed + 1
	}
	if err := e.otherCarriers(zone, moved); err != nil {
		return err
	}
	e.gate.Lock()
	defer e.gate.Unlock()
	for _, f := range e.log.Feeds() {
		if f.Feed.Zone != zone || f.Feed.Plane != fcp.PlaneData {
			continue
		}
		first := max(from[f.No], 1)
		err := e.log.ScanFeed(ctx, f.No, first, 0, log.VerifyNone, func(events []log.Applied) error {
			for i := range events {
				if err := e.carrier(moved, f.No, events[i].Seq, events[i].Content.Object); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return e.st.Update(e.fold.position.Load(), func(w *state.Writer) error {
		for id, p := range moved {
			key := append(slices.Clone(prefix), id[:]...)
			var err error
			if p == (place{}) {
				err = w.Delete(key)
			} else {
				err = w.Set(key, nil, p.appendTo(nil))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// otherCarriers looks through the indexes of sealed segments.
func (e *Engine) otherCarriers(zone fcp.ZoneID, moved map[fcp.ObjectID]place) error {
	return e.log.Segments(func(s log.SegmentInfo) error {
		rem := &s.Remainder
		if rem.Zone != zone || fcp.Plane(rem.Plane) != fcp.PlaneData {
			return nil
		}
		no, _ := e.log.FeedNo(rem.Feed())
		for i, off := range rem.Seqs {
			if err := e.carrier(moved, no, rem.First+off, fcp.ObjectID(rem.Objects[i*fcp.HashSize:][:fcp.HashSize])); err != nil {
				return err
			}
		}
		return nil
	})
}

// carrier notes an event that carries one of the objects, if it counts and is the
// first that does.
func (e *Engine) carrier(moved map[fcp.ObjectID]place, no log.FeedNo, seq uint64, id fcp.ObjectID) error {
	p, ok := moved[id]
	if !ok {
		return nil
	}
	if void := e.fold.voidFrom(e.log.Feed(no)); void != 0 && seq >= void {
		return nil
	}
	at, err := e.log.PositionOf(no, seq)
	if err != nil || p.position >= at {
		return err
	}
	ev, _, err := e.log.Read(no, seq)
	if err == nil {
		moved[id] = place{feed: no, seq: seq, position: at, inline: len(ev.Body) > 0}
	}
	return err
}

// trimHistory removes what names were below the horizon of a zone.
func (e *Engine) trimHistory(ctx context.Context, zone fcp.ZoneID) (trimmed uint64, err error) {
	_, at, err := e.HorizonOf(zone)
	if err != nil || at == 0 {
		return 0, err
	}
	all, err := e.checkpoints(zone)
	if err != nil {
		return 0, err
	}
	used := len(all) - 1
	for due := e.env.Now().Add(-GCGrace); used >= 0 && all[used].at.After(due); used-- {
	}
	if used < 0 {
		return 0, nil
	}
	horizon, err := e.settled(zone, at, &all[used])
	if err != nil {
		return 0, err
	}
	newest := uint64(0)
	for _, c := range all {
		newest = max(newest, c.Retention().Versions)
	}
	no, _ := e.fold.zoneNumber(zone)
	var keys [][]byte
	err = e.eachEnded(ctx, no, horizon, newest, func(key []byte, _ state.Value, kept bool) error {
		if !kept {
			keys = append(keys, slices.Clone(key))
		}
		return nil
	})
	for err == nil && len(keys) > 0 {
		n := min(len(keys), sweepChunk)
		if err = e.removeKeys(keys[:n]); err == nil {
			trimmed += uint64(n)
		}
		keys = keys[n:]
	}
	return trimmed, err
}

func (e *Engine) removeKeys(keys [][]byte) error {
	e.gate.Lock()
	defer e.gate.Unlock()
	return e.st.Update(e.fold.position.Load(), func(w *state.Writer) error {
		for _, key := range keys {
			if err := w.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}
