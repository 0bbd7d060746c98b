package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"slices"

	"fcp"
	"fcp/engine/internal/state"
)

// PositionAt returns the position an At means. CodeNotPosition when it lies
// beyond what the state shows; a time before the first event gives 0.
func (e *Engine) PositionAt(at At) (uint64, error) {
	end := e.Position()
	switch {
	case at.IsNow():
		return end, nil
	case at.Position > end:
		return 0, fcp.Errorf(fcp.CodeNotPosition, "position %d, the log ends at %d", at.Position, end)
	case at.Position > 0:
		return at.Position, nil
	case at.Time.After(e.env.Now()):
		return 0, fcp.Errorf(fcp.CodeNotPosition, "the time is in the future")
	}
	p, err := e.log.PositionAtTime(at.Time)
	return min(p, end), err
}

// nameReader reads name records of one zone as of one position.
type nameReader struct {
	e    *Engine
	zone fcp.ZoneID
	no   uint16
	at   uint64 // 0: now
	rec  nameRecord
}

// names returns a reader for the zone at a point in time. ok is false when the
// zone has no events here.
func (e *Engine) names(zone fcp.ZoneID, at At) (r *nameReader, ok bool, err error) {
	if zone == "" {
		zone = DefaultZone
	}
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		if e.ring.Load().zones[zone] == nil {
			return nil, false, e.unknownZone(zone)
		}
		return nil, false, nil
	}
	r = &nameReader{e: e, zone: zone, no: no}
	if !at.IsNow() {
		if r.at, err = e.PositionAt(at); err != nil {
			return nil, false, err
		}
		if err := e.checkHorizon(zone, r.at); err != nil {
			return nil, false, err
		}
		if r.at == 0 {
			return nil, false, nil // before the first event
		}
	}
	return r, true, nil
}

func (r *nameReader) prefix(projection string) []byte {
	return appendPrefix(nil, r.no, r.e.fold.slot(projection))
}

// read finds the heads of a name; ok is false when it had none. current is its
// stored record if the caller has it.
func (r *nameReader) read(name []byte, current *state.Value) (entry Entry, ok bool, err error) {
	if current == nil {
		v, found, err := r.e.st.Get(nil, append(r.prefix(projNames), name...))
		if err != nil {
			return Entry{}, false, err
		}
		if found {
			current = &v
		}
	}
	if current != nil {
		if err := r.rec.decode(*current); err != nil {
			return Entry{}, false, err
		}
		if r.at == 0 || r.rec.since <= r.at {
			return r.entry(name, 0), true, nil
		}
	}
	if r.at == 0 {
		return Entry{}, false, nil
	}
	// The entry that ended first behind the position, if it had begun.
	prefix := historyPrefix(r.prefix(projHistory), name)
	err = r.e.st.Scan(binary.BigEndian.AppendUint64(bytes.Clone(prefix), r.at+1), upperBound(prefix),
		func(key []byte, v state.Value) (bool, error) {
			if err := r.rec.decodeHistory(v); err != nil {
				return false, err
			}
			if ok = r.rec.since <= r.at; ok {
				entry = r.entry(name, binary.BigEndian.Uint64(key[len(key)-8:])-1)
			}
			return false, nil
		})
	return entry, ok, err
}

// historyPrefix appends the part of a history key that names the name.
func historyPrefix(b, name []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	return append(b, name...)
}

// entry makes the exported form of the record just read.
func (r *nameReader) entry(name []byte, until uint64) Entry {
	out := Entry{Zone: r.zone, Key: string(name), Since: r.rec.since, Until: until, Heads: make([]Version, len(r.rec.heads))}
	for i := range r.rec.heads {
		h := &r.rec.heads[i]
		out.Heads[i] = Version{Hash: h.hash, Generation: h.generation, Time: h.time, Writer: r.e.fold.writerOf(h.feed), Feed: h.feed,
			Seq: h.seq, Position: h.position, Object: h.object, Size: h.size, Tombstone: h.tombstone}
	}
	slices.SortFunc(out.Heads, compareVersions)
	return out
}

// compareVersions puts the displayed version first: the highest (generation,
// time, writer, seq). The hash settles what is equal in all of them.
func compareVersions(a, b Version) int {
	return -cmp.Or(
		cmp.Compare(a.Generation, b.Generation),
		cmp.Compare(a.Time, b.Time),
		bytes.Compare(a.Writer[:], b.Writer[:]),
		cmp.Compare(a.Seq, b.Seq),
		bytes.Compare(a.Hash[:], b.Hash[:]),
	)
}

// Stat returns the heads of a name without reading a body. CodeNotFound when the
// name had no version then; a removed name is found, its heads are tombstones.
func (e *Engine) Stat(_ context.Context, zone fcp.ZoneID, key string, at At) (Entry, error) {
	r, ok, err := e.names(zone, at)
	if err != nil {
		return Entry{}, err
	}
	var out Entry
	if ok {
		if out, ok, err = r.read([]byte(key), nil); err != nil {
			return Entry{}, err
		}
	}
	switch {
	case !ok && !at.IsNow():
		return Entry{}, fcp.Errorf(fcp.CodeNotFound, "the key had no version in %s then", cmp.Or(zone, DefaultZone)).
			WithNext("see `fcpctl object history KEY` for the versions that there are")
	case !ok:
		return Entry{}, fcp.Errorf(fcp.CodeNotFound, "the key has no version in %s", cmp.Or(zone, DefaultZone))
	}
	return out, nil
}

// List calls fn for names of a zone in byte order. It works on what the state
// showed when it was called and takes later writes or leaves them. fn's error
// ends the list and is returned.
func (e *Engine) List(ctx context.Context, q ListRequest, fn func(*Entry) error) error {
	r, ok, err := e.names(q.Zone, q.At)
	if err != nil || !ok {
		return err
	}
	left := q.Limit
	emit := func(name []byte, current *state.Value) (bool, error) {
		if ctx.Err() != nil {
			return false, interrupted(ctx)
		}
		entry, ok, err := r.read(name, current)
		if err != nil || !ok || !q.Removed && entry.Removed() {
			return err == nil, err
		}
		if err := fn(&entry); err != nil {
			return false, err
		}
		left--
		return left != 0, nil
	}
	// Names whose every version was voided have no record; a list of the past
	// takes them in at their place.
	gone, err := r.clearedNames(q)
	if err != nil {
		return err
	}
	lower, upper := r.listBounds(projNames, q)
	more := true
	err = e.st.Scan(lower, upper, func(key []byte, v state.Value) (bool, error) {
		name := key[keyPrefix:]
		for len(gone) > 0 && more && bytes.Compare(gone[0], name) <= 0 {
			if !bytes.Equal(gone[0], name) {
				if more, err = emit(gone[0], nil); err != nil {
					return false, err
				}
			}
			gone = gone[1:]
		}
		if !more {
			return false, nil
		}
		more, err = emit(name, &v)
		return more, err
	})
	for i := 0; err == nil && more && i < len(gone); i++ {
		more, err = emit(gone[i], nil)
	}
	return err
}

// listBounds returns the keys of a projection that a list request covers.
func (r *nameReader) listBounds(projection string, q ListRequest) (lower, upper []byte) {
	prefix := append(r.prefix(projection), q.Prefix...)
	lower, upper = prefix, upperBound(prefix)
	if q.After != "" {
		after := append(append(r.prefix(projection), q.After...), 0)
		if bytes.Compare(after, lower) > 0 {
			lower = after
		}
	}
	return lower, upper
}

func (r *nameReader) clearedNames(q ListRequest) (out [][]byte, err error) {
	if r.at == 0 {
		return nil, nil
	}
	lower, upper := r.listBounds(projCleared, q)
	if bytes.Compare(lower, upper) >= 0 {
		return nil, nil
	}
	err = r.e.st.Scan(lower, upper, func(key []byte, _ state.Value) (bool, error) {
		out = append(out, bytes.Clone(key[keyPrefix:]))
		return true, nil
	})
	return out, err
}

// History calls fn for each head set a name had, the present one first and then
// back in time. A name that never had a version gives CodeNotFound.
func (e *Engine) History(ctx context.Context, zone fcp.ZoneID, key string, fn func(*Entry) error) error {
	r, ok, err := e.names(zone, At{})
	if err != nil {
		return err
	}
	var entries []Entry // oldest first
	if ok {
		if entries, err = r.history(ctx, []byte(key)); err != nil {
			return err
		}
		entry, ok, err := r.read([]byte(key), nil)
		if err != nil {
			return err
		}
		if ok {
			entries = append(entries, entry)
		}
	}
	if len(entries) == 0 {
		return fcp.Errorf(fcp.CodeNotFound, "the key never had a version in %s", cmp.Or(zone, DefaultZone))
	}
	for i := len(entries) - 1; i >= 0; i-- {
		if err := fn(&entries[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *nameReader) history(ctx context.Context, name []byte) (out []Entry, err error) {
	prefix := historyPrefix(r.prefix(projHistory), name)
	err = r.e.st.Scan(prefix, upperBound(prefix), func(key []byte, v state.Value) (bool, error) {
		if ctx.Err() != nil {
			return false, interrupted(ctx)
		}
		if err := r.rec.decodeHistory(v); err != nil {
			return false, err
		}
		out = append(out, r.entry(name, binary.BigEndian.Uint64(key[len(key)-8:])-1))
		return true, nil
	})
	return out, err
}

// findVersion finds one version of a name, present or past, by its event hash.
func (e *Engine) findVersion(zone fcp.ZoneID, key string, hash fcp.Hash) (v Version, err error) {
	found := false
	err = e.History(context.Background(), zone, key, func(entry *Entry) error {
		for i := range entry.Heads {
			if !found && entry.Heads[i].Hash == hash {
				v, found = entry.Heads[i], true
			}
		}
		return nil
	})
	if err == nil && !found {
		if h, _, herr := e.HorizonOf(cmp.Or(zone, DefaultZone)); herr == nil && h > 0 {
			return v, fcp.Errorf(fcp.CodeHorizon, "the key has no version %s above the compaction horizon at position %d", hash, h)
		}
		err = fcp.Errorf(fcp.CodeNotFound, "the key has no version %s", hash)
	}
	return v, err
}
