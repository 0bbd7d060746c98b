package crdt

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"unicode/utf8"

	"fcp"
)

// LWWMap is a map in which of two writes of a key the later one stays: by hybrid
// time, then actor, then a removal, then the value's bytes. Removed keys stay as
// markers. The zero LWWMap is empty.
type LWWMap struct{ entries map[string]lwwEntry }

type lwwEntry struct {
	Key     string       `cbor:"key"`
	Time    fcp.Time     `cbor:"time"`
	Actor   fcp.WriterID `cbor:"actor"`
	Removed bool         `cbor:"removed,omitempty"`
	Value   []byte       `cbor:"value,omitempty"` // absent when empty or removed
}

func (e *lwwEntry) compare(o *lwwEntry) int {
	removed := 0
	if e.Removed != o.Removed {
		removed = -1
		if e.Removed {
			removed = 1
		}
	}
	return cmp.Or(cmp.Compare(e.Time, o.Time), bytes.Compare(e.Actor[:], o.Actor[:]), removed, bytes.Compare(e.Value, o.Value))
}

func (e *lwwEntry) check() error {
	switch {
	case e.Key == "" || len(e.Key) > MaxKey || !utf8.ValidString(e.Key):
		return fcp.Errorf(fcp.CodeMalformed, "a map key of %d bytes", len(e.Key))
	case len(e.Value) > MaxValue:
		return fcp.Errorf(fcp.CodeTooLarge, "a map value of %d bytes, the limit is %d", len(e.Value), MaxValue)
	case e.Actor.IsZero() || e.Removed && len(e.Value) > 0:
		return fcp.Errorf(fcp.CodeMalformed, "a map entry without an actor, or removed and with a value")
	}
	return nil
}

type lwwMapObject struct {
	Entries []lwwEntry `cbor:"entries"` // strictly ascending by key
}

// Kind implements State.
func (*LWWMap) Kind() Kind { return KindLWWMap }

// Get returns the value of a key. The caller must not change it.
func (m *LWWMap) Get(key string) ([]byte, bool) {
	e, ok := m.entries[key]
	return e.Value, ok && !e.Removed
}

// Keys returns the keys that are there, ascending.
func (m *LWWMap) Keys() (out []string) {
	for k, e := range m.entries {
		if !e.Removed {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// Set writes a key at a hybrid time and returns the delta. A time that is not behind
// the key's last write is moved there, so that a writer sees its own write.
func (m *LWWMap) Set(key string, value []byte, at fcp.Time, actor fcp.WriterID) (*LWWMap, error) {
	return m.write(lwwEntry{Key: key, Time: at, Actor: actor, Value: bytes.Clone(value)})
}

// Remove removes a key at a hybrid time and returns the delta.
func (m *LWWMap) Remove(key string, at fcp.Time, actor fcp.WriterID) (*LWWMap, error) {
	return m.write(lwwEntry{Key: key, Time: at, Actor: actor, Removed: true})
}

func (m *LWWMap) write(e lwwEntry) (*LWWMap, error) {
	if old, ok := m.entries[e.Key]; ok && e.Time <= old.Time {
		if old.Time == math.MaxUint64 {
			return nil, fcp.Errorf(fcp.CodeExhausted, "the key was written at the end of time")
		}
		e.Time = old.Time + 1
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	delta := &LWWMap{map[string]lwwEntry{e.Key: e}}
	return delta, m.Join(delta)
}

// Join implements State.
func (m *LWWMap) Join(s State) error {
	o, ok := s.(*LWWMap)
	if !ok {
		return errKind(m, s)
	}
	fresh := 0
	for k := range o.entries {
		if _, ok := m.entries[k]; !ok {
			fresh++
		}
	}
	if len(m.entries)+fresh > MaxEntries {
		return fcp.Errorf(fcp.CodeTooLarge, "a map of %d keys, the limit is %d", len(m.entries)+fresh, MaxEntries)
	}
	if m.entries == nil {
		m.entries = map[string]lwwEntry{}
	}
	for k, e := range o.entries {
		if old, ok := m.entries[k]; !ok || old.compare(&e) < 0 {
			m.entries[k] = e
		}
	}
	return nil
}

// Encode implements State.
func (m *LWWMap) Encode() ([]byte, error) {
	o := lwwMapObject{make([]lwwEntry, 0, len(m.entries))}
	for _, e := range m.entries {
		o.Entries = append(o.Entries, e)
	}
	slices.SortFunc(o.Entries, func(a, b lwwEntry) int { return cmp.Compare(a.Key, b.Key) })
	return encode(o)
}

func decodeMap(b []byte) (*LWWMap, error) {
	var o lwwMapObject
	if err := fcp.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	m := &LWWMap{make(map[string]lwwEntry, len(o.Entries))}
	for i := range o.Entries {
		e := &o.Entries[i]
		if err := e.check(); err != nil {
			return nil, err
		}
		if i > 0 && o.Entries[i-1].Key >= e.Key {
			return nil, fcp.Errorf(fcp.CodeNonCanonical, "a map whose keys are not strictly ascending")
		}
		m.entries[e.Key] = *e
	}
	return m, nil
}
