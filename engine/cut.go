package engine

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"sort"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// A cut is the only retraction. Everything of a feed above it is void: the keys
// that those events touched are cleared and every event that stands and touches
// them is folded again, in canonical order (time, writer, incarnation, sequence
// number). Because each projection's canonical state depends only on the set of
// events, the result is what a node that never saw the void events has.

// loadCuts reads the revocations that are in the state.
func (d *folder) loadCuts() error {
	for no := range d.zoneText {
		prefix := appendPrefix(nil, uint16(no+1), d.slots.serving(projRevocations))
		err := d.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
			r, err := authority.VerifyRevocation(d.owner, bytes.Clone(v.Canonical))
			if err == nil {
				d.cuts.Add(r)
			}
			return true, nil // one that does not verify was folded as nothing
		})
		if err != nil {
			return err
		}
		prefix = appendPrefix(nil, uint16(no+1), d.slots.serving(projForks))
		err = d.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
			if f, err := authority.VerifyFork(bytes.Clone(v.Canonical)); err == nil {
				d.cuts.AddFork(f)
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// forked takes a folded proof of a fork in. It runs inside the Update of its event.
func (d *folder) forked(ev *Event) error {
	f, err := authority.VerifyFork(bytes.Clone(ev.Content.Body))
	if err != nil || f.Feed().Zone != ev.From.Feed.Zone {
		return nil
	}
	d.mu.Lock()
	changed := d.cuts.AddFork(f)
	d.mu.Unlock()
	if !changed {
		return nil
	}
	return d.void(ev.Position, f.Feed())
}

// revoke takes a folded revocation in. It runs inside the Update of its event.
func (d *folder) revoke(ev *Event) error {
	r, err := authority.VerifyRevocation(d.owner, bytes.Clone(ev.Content.Body))
	if err != nil || r.Zone() != ev.From.Feed.Zone {
		return nil
	}
	d.mu.Lock()
	changed := d.cuts.Add(r)
	d.mu.Unlock()
	for _, feed := range changed {
		if err := d.void(ev.Position, feed); err != nil {
			return err
		}
	}
	return nil
}

// void folds a feed again of which less stands than before.
func (d *folder) void(position uint64, feed fcp.Feed) error {
	d.mu.Lock()
	var src *Source
	for _, s := range d.sources {
		if s != nil && s.Feed == feed {
			src = s
		}
	}
	if src == nil {
		d.mu.Unlock()
		return nil
	}
	was, from := src.void, d.voidFrom(feed)
	src.void = from
	d.mu.Unlock()
	if was != 0 && was <= from {
		return nil // a cut or fork below it voids all of that already
	}
	return d.retract(position, src, from)
}

// touched is one key of one projection that a refold clears.
type touched struct {
	p   *active
	old *nameRecord // names only: the record before
	raw state.Value // names only: its stored form
}

// retract folds again what the events of src from sequence number first on
// touched. position is that of the revocation; only events before it are folded.
func (d *folder) retract(position uint64, src *Source, first uint64) error {
	keys, err := d.touchedBy(position, src, first)
	if err != nil || len(keys) == 0 {
		return err
	}
	events, err := d.touching(position, keys)
	if err != nil {
		return err
	}
	order := make([]string, 0, len(keys))
	for key, t := range keys {
		if err := d.clearTouched([]byte(key), t); err != nil {
			return err
		}
		order = append(order, key)
	}
	slices.Sort(order)
	slices.SortFunc(events, compareEvents)
	f := &d.fold
	f.refolding = true
	defer func() { f.refolding = false }()
	zone := f.zone
	f.zone = src.zone
	defer func() { f.zone = zone }()
	var key []byte
	for i := range events {
		for j := range d.active {
			p := &d.active[j]
			key = d.keyOf(key[:0], p, &events[i])
			if _, ok := keys[string(key)]; !ok || key == nil {
				continue
			}
			if err := p.Apply(f, &events[i], key); err != nil {
				return err
			}
		}
	}
	for _, k := range order {
		if err := d.finishTouched(position, []byte(k), keys[k]); err != nil {
			return err
		}
	}
	return nil
}

// keyOf returns the state key of p that the event touches, nil for none.
func (d *folder) keyOf(b []byte, p *active, ev *Event) []byte {
	if p.planes&(1<<ev.From.Feed.Plane) == 0 {
		return nil
	}
	return p.Touches(ev, appendPrefix(b, ev.From.zone, p.slot))
}

// touchedBy returns the keys that events of src from first on, before position,
// touched while they counted.
func (d *folder) touchedBy(position uint64, src *Source, first uint64) (map[string]*touched, error) {
	last, err := d.lastBefore(position, src.No, first)
	if err != nil || last < first {
		return nil, err
	}
	keys := map[string]*touched{}
	var key []byte
	err = d.log.ScanFeed(context.Background(), src.No, first, last, log.VerifyNone, func(events []log.Applied) error {
		for i := range events {
			if d.standsAboveCuts(&events[i].Content) {
				continue
			}
			ev := Event{&events[i], src}
			for j := range d.active {
				p := &d.active[j]
				if key = d.keyOf(key[:0], p, &ev); key != nil && keys[string(key)] == nil {
					keys[string(key)] = &touched{p: p}
				}
			}
		}
		return nil
	})
	return keys, err
}

// lastBefore returns the last event of a feed, from seq first on, that stands
// before position; first-1 when none does.
func (d *folder) lastBefore(position uint64, no log.FeedNo, first uint64) (uint64, error) {
	head, _ := d.log.Head(no)
	var failed error
	n := sort.Search(int(max(head.Seq+1, first)-first), func(i int) bool {
		p, err := d.log.PositionOf(no, first+uint64(i))
		if err != nil {
			failed = err
		}
		return p >= position
	})
	return first + uint64(n) - 1, failed
}

// touching returns every event before position that counts and touches one of
// the keys. The events own their memory.
func (d *folder) touching(position uint64, keys map[string]*touched) ([]Event, error) {
	var out []Event
	var key []byte
	err := d.log.Scan(context.Background(), log.ScanOptions{To: position - 1, Verify: log.VerifyChain}, func(events []log.Applied) error {
		for i := range events {
			a := &events[i]
			if a.Position >= position {
				return nil
			}
			src, err := d.source(a.Feed)
			if err != nil {
				return err
			}
			if src.void != 0 && a.Seq >= src.void && !d.standsAboveCuts(&a.Content) {
				continue
			}
			ev := Event{a, src}
			for j := range d.active {
				if key = d.keyOf(key[:0], &d.active[j], &ev); key == nil {
					continue
				}
				if _, ok := keys[string(key)]; ok {
					out = append(out, Event{cloneApplied(a), src})
					break
				}
			}
		}
		return nil
	})
	return out, err
}

func cloneApplied(a *log.Applied) *log.Applied {
	c := *a
	c.Content.Key = bytes.Clone(a.Content.Key)
	c.Content.Replaces = fcp.HashList(bytes.Clone(a.Content.Replaces))
	c.Content.Idempotency = bytes.Clone(a.Content.Idempotency)
	c.Content.Body = bytes.Clone(a.Content.Body)
	return &c
}

// compareEvents is the canonical order.
func compareEvents(a, b Event) int {
	return cmp.Or(
		cmp.Compare(a.Time, b.Time),
		bytes.Compare(a.From.Feed.Writer[:], b.From.Feed.Writer[:]),
		cmp.Compare(a.From.Feed.Incarnation, b.From.Feed.Incarnation),
		cmp.Compare(a.From.Feed.Plane, b.From.Feed.Plane),
		cmp.Compare(a.Seq, b.Seq),
	)
}

// clearTouched removes a key before it is folded again.
func (d *folder) clearTouched(key []byte, t *touched) error {
	if t.p.Name() == projNames {
		v, ok, err := d.fold.Get(key)
		if err != nil {
			return err
		}
		if ok {
			t.old = new(nameRecord)
			t.raw = state.Value{Canonical: bytes.Clone(v.Canonical), Local: bytes.Clone(v.Local)}
			if err := t.old.decode(t.raw); err != nil {
				return err
			}
		}
	}
	return d.fold.Delete(key)
}

// finishTouched gives a name that was folded again its place in history: what it
// was ends at the position of the revocation, and what it is begins there.
func (d *folder) finishTouched(position uint64, key []byte, t *touched) error {
	if t.old == nil {
		return nil
	}
	f := &d.fold
	v, ok, err := f.Get(key)
	if err != nil {
		return err
	}
	if ok && bytes.Equal(v.Canonical, t.raw.Canonical) {
		if err := f.name.decode(v); err != nil {
			return err
		}
		f.name.since = t.old.since
		return f.setName(key, &f.name)
	}
	name := key[keyPrefix:]
	if err := f.keepHistory(name, position, t.raw); err != nil {
		return err
	}
	if !ok {
		// Every version is void. A mark lets lists of earlier positions find it.
		f.aux = append(f.prefix(f.aux[:0], projCleared), name...)
		return f.Set(f.aux, nil, []byte{1})
	}
	if err := f.name.decode(v); err != nil {
		return err
	}
	f.name.since = position
	return f.setName(key, &f.name)
}
