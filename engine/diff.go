package engine

import (
	"bytes"
	"cmp"
	"context"
	"reflect"
	"slices"

	"fcp"
	"fcp/engine/internal/state"
)

// Change says what became of an entry between two positions.
type Change string

// The changes. An object whose every version is removed counts as removed.
const (
	Added   Change = "added"
	Changed Change = "changed"
	Removed Change = "removed"
)

// DiffRow is one entry of a projection that differs between two positions.
type DiffRow struct {
	Zone   fcp.ZoneID     `json:"zone"`
	Key    string         `json:"key"`
	Change Change         `json:"change"`
	Before map[string]any `json:"before,omitempty"` // its fields at the first position; nil: it was not there
	After  map[string]any `json:"after,omitempty"`
}

// DiffRequest selects what Diff compares.
type DiffRequest struct {
	Projection string     // "": names
	Zone       fcp.ZoneID // "": all
	Prefix     string     // of the keys
	From, To   At
}

// Diff calls fn, in the order of keys in each zone, for every entry of a projection
// that is not the same at two positions. Names are answered from their history;
// other projections are folded from the beginning. Errors are those of
// QueryProjection.
func (e *Engine) Diff(ctx context.Context, q DiffRequest, fn func(*DiffRow) error) error {
	from, err := e.PositionAt(q.From)
	if err != nil {
		return err
	}
	to, err := e.PositionAt(q.To)
	if err != nil {
		return err
	}
	if q.Projection == "" {
		q.Projection = projNames
	}
	p := e.fold.wanted(q.Projection)
	if p == nil {
		return fcp.Errorf(fcp.CodeNotFound, "projection %.40q", q.Projection).WithNext("list them with `fcpctl proj ls`")
	}
	zones := []fcp.ZoneID{q.Zone}
	if q.Zone == "" {
		zones = slices.Sorted(slices.Values(e.fold.zoneList()))
	}
	if q.Projection == projNames {
		for _, zone := range zones {
			if err := e.diffNames(ctx, zone, q.Prefix, from, to, fn); err != nil {
				return err
			}
		}
		return nil
	}
	return e.diffFolded(ctx, p, zones, q.Prefix, from, to, fn)
}

// diffNames compares what the names of a zone had. A name that had a version keeps a
// record, so one list of the later position has all of them, but for names whose
// every version was voided; those are in the list of the earlier one.
func (e *Engine) diffNames(ctx context.Context, zone fcp.ZoneID, prefix string, from, to uint64, fn func(*DiffRow) error) error {
	then, ok, err := e.names(zone, At{Position: from})
	if err != nil {
		return err
	}
	now, ok2, err := e.names(zone, At{Position: to})
	if err != nil || !ok && !ok2 {
		return err
	}
	if !ok { // nothing yet
		then = nil
	}
	if !ok2 {
		now = nil
	}
	seen := func(r *nameReader, key string) (entry Entry, ok bool, err error) {
		if r == nil {
			return entry, false, nil
		}
		return r.read([]byte(key), nil)
	}
	// Listing the later position and then what only the earlier one has keeps both
	// in order without holding either; the two sets are disjoint.
	list := func(at uint64, visit func(*Entry) error) error {
		if at == 0 {
			return nil
		}
		return e.List(ctx, ListRequest{Zone: zone, Prefix: prefix, At: At{Position: at}, Removed: true}, visit)
	}
	err = list(max(from, to), func(entry *Entry) error {
		a, hadA, err := seen(then, entry.Key)
		if err != nil {
			return err
		}
		b, hadB, err := seen(now, entry.Key)
		if err != nil {
			return err
		}
		return diffName(zone, entry.Key, &a, hadA, &b, hadB, fn)
	})
	if err != nil {
		return err
	}
	return list(min(from, to), func(entry *Entry) error {
		later := now
		if from > to {
			later = then
		}
		if _, had, err := seen(later, entry.Key); err != nil || had {
			return err
		}
		if from > to {
			return diffName(zone, entry.Key, nil, false, entry, true, fn)
		}
		return diffName(zone, entry.Key, entry, true, nil, false, fn)
	})
}

func diffName(zone fcp.ZoneID, key string, a *Entry, hadA bool, b *Entry, hadB bool, fn func(*DiffRow) error) error {
	if hadA && hadB && a.Since == b.Since || !hadA && !hadB {
		return nil
	}
	row := DiffRow{Zone: zone, Key: key, Change: Changed}
	liveA, liveB := hadA && !a.Removed(), hadB && !b.Removed()
	switch {
	case !liveA && !liveB && hadA == hadB:
		row.Change = Changed // removed in another way
	case !liveA && liveB:
		row.Change = Added
	case !liveB:
		row.Change = Removed
	}
	if hadA {
		row.Before = entryFields(a)
	}
	if hadB {
		row.After = entryFields(b)
	}
	return fn(&row)
}

// entryFields describes the displayed version of a name.
func entryFields(e *Entry) map[string]any {
	h := e.Head()
	out := map[string]any{"version": h.Hash.String(), "generation": h.Generation, "position": h.Position}
	if h.Tombstone {
		out["removed"] = true
	} else {
		out["size"], out["object"] = h.Size, h.Object.String()
	}
	if n := e.Siblings(); n > 0 {
		out["siblings"] = n
	}
	return out
}

// diffFolded folds both positions and compares them key by key.
func (e *Engine) diffFolded(ctx context.Context, p Projection, zones []fcp.ZoneID, prefix string, from, to uint64, fn func(*DiffRow) error) error {
	before, err := e.entriesAt(ctx, p, zones, prefix, from)
	if err != nil {
		return err
	}
	after, err := e.entriesAt(ctx, p, zones, prefix, to)
	if err != nil {
		return err
	}
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(before) == 0:
			order = 1
		case len(after) == 0:
			order = -1
		default:
			order = before[0].compare(&after[0])
		}
		row := DiffRow{Change: Changed}
		if order <= 0 {
			row.Zone, row.Key, row.Before = before[0].row.Zone, before[0].row.Key, before[0].row.Fields
			before = before[1:]
		}
		if order >= 0 {
			row.Zone, row.Key, row.After = after[0].row.Zone, after[0].row.Key, after[0].row.Fields
			after = after[1:]
		}
		switch {
		case order < 0:
			row.Change = Removed
		case order > 0:
			row.Change = Added
		case reflect.DeepEqual(row.Before, row.After):
			continue
		}
		if err := fn(&row); err != nil {
			return err
		}
	}
	return nil
}

// keyedRow is a row and what orders it.
type keyedRow struct {
	key []byte
	row Row
}

func (r *keyedRow) compare(o *keyedRow) int {
	return cmp.Or(cmp.Compare(r.row.Zone, o.row.Zone), bytes.Compare(r.key, o.key))
}

// entriesAt returns the entries of a projection at a position, in order.
func (e *Engine) entriesAt(ctx context.Context, p Projection, zones []fcp.ZoneID, prefix string, position uint64) (out []keyedRow, err error) {
	for _, zone := range zones {
		if err := e.checkHorizon(zone, position); err != nil {
			return nil, err
		}
	}
	d, st, err := e.past(ctx, position)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	for _, zone := range zones {
		no, ok := d.zoneNumber(zone)
		if !ok {
			continue // no event yet
		}
		lower := append(appendPrefix(nil, no, d.slot(p.Name())), prefix...)
		err := st.Scan(lower, upperBound(lower), func(key []byte, v state.Value) (bool, error) {
			if ctx.Err() != nil {
				return false, interrupted(ctx)
			}
			r := keyedRow{key: bytes.Clone(key[keyPrefix:]), row: Row{Zone: zone}}
			err := p.Row(r.key, v, &r.row)
			out = append(out, r)
			return true, err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}
