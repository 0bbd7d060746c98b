package engine

import (
	"bytes"
	"encoding/binary"
	"slices"

	"fcp"
	"fcp/engine/internal/state"
	"fcp/log"
)

// A name's record (docs/format.md "Name record"). The canonical part is what
// every node computes from the same set of events:
//
//	32 n bytes   event hashes of the heads, strictly ascending, n at least 1
//
// The hash commits to everything an event says, so nothing more needs to be
// compared. The local part repeats what the heads say and where they are here:
//
//	1      0x01, the record's format
//	uvar   since: local position from which on these are the heads
//	uvar   n, then for each head in the order of the canonical part:
//	         1 flags (bit 0: tombstone), uvar feed number, uvar seq,
//	         uvar position, 8 time, uvar generation, uvar size,
//	         32 object id (absent for a tombstone)
//	rest   32 m bytes: hashes that some version replaces and that were not
//	       heads when it came, strictly ascending
//
// The last set makes the fold independent of the order of arrival: a version
// whose hash is in it is folded without becoming a head. It may hold hashes of
// versions that are long known; that changes nothing.
const nameFormat = 1

const headTombstone = 1

// maxSeenScan bounds the history entries looked at to find out whether a
// replaced version is already known.
const maxSeenScan = 64

// head is one head of a name as stored.
type head struct {
	hash       fcp.Hash
	object     fcp.ObjectID
	time       fcp.Time
	seq        uint64
	position   uint64
	generation uint64
	size       uint64
	feed       log.FeedNo
	tombstone  bool
}

// nameRecord is the decoded record. Its slices are reused between events.
type nameRecord struct {
	since    uint64
	heads    []head     // ascending by hash
	replaced []fcp.Hash // ascending
}

func (r *nameRecord) reset() {
	r.since, r.heads, r.replaced = 0, r.heads[:0], r.replaced[:0]
}

// find returns where the head with that hash is or belongs.
func (r *nameRecord) find(h *fcp.Hash) (int, bool) {
	for i := range r.heads {
		if c := bytes.Compare(r.heads[i].hash[:], h[:]); c >= 0 {
			return i, c == 0
		}
	}
	return len(r.heads), false
}

func findHash(list []fcp.Hash, h *fcp.Hash) (int, bool) {
	return slices.BinarySearchFunc(list, h, func(a fcp.Hash, b *fcp.Hash) int { return bytes.Compare(a[:], b[:]) })
}

// appendCanonical appends the canonical part.
func (r *nameRecord) appendCanonical(b []byte) []byte {
	for i := range r.heads {
		b = append(b, r.heads[i].hash[:]...)
	}
	return b
}

// appendLocal appends the local part.
func (r *nameRecord) appendLocal(b []byte) []byte {
	b = append(b, nameFormat)
	b = binary.AppendUvarint(b, r.since)
	b = binary.AppendUvarint(b, uint64(len(r.heads)))
	for i := range r.heads {
		b = r.heads[i].appendTo(b)
	}
	for i := range r.replaced {
		b = append(b, r.replaced[i][:]...)
	}
	return b
}

func (h *head) appendTo(b []byte) []byte {
	flags := byte(0)
	if h.tombstone {
		flags = headTombstone
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(h.feed))
	b = binary.AppendUvarint(b, h.seq)
	b = binary.AppendUvarint(b, h.position)
	b = binary.BigEndian.AppendUint64(b, uint64(h.time))
	b = binary.AppendUvarint(b, h.generation)
	b = binary.AppendUvarint(b, h.size)
	if h.tombstone {
		return b
	}
	return append(b, h.object[:]...)
}

func (h *head) decode(p *packed) {
	flags := p.byte()
	feed := p.uvarint()
	h.feed = log.FeedNo(feed)
	h.seq = p.uvarint()
	h.position = p.uvarint()
	h.time = fcp.Time(p.uint64())
	h.generation = p.uvarint()
	h.size = p.uvarint()
	h.tombstone = flags == headTombstone
	h.object = fcp.ObjectID{}
	if !h.tombstone {
		h.object = fcp.ObjectID(p.hash())
	}
	if flags > headTombstone || feed > 1<<32-1 {
		p.bad = true
	}
}

var errNameRecord = fcp.Errorf(fcp.CodeCorrupt, "a name's record does not decode")

// minHead is the least a head takes in the local part.
const minHead = 1 + 1 + 1 + 1 + 8 + 1 + 1

// decode reads a stored record. It accepts exactly one encoding of each record.
func (r *nameRecord) decode(v state.Value) error {
	r.reset()
	p := packed{b: v.Local}
	if p.byte() != nameFormat {
		return errNameRecord
	}
	r.since = p.uvarint()
	n := p.uvarint()
	if p.bad || n == 0 || n > uint64(len(p.b)/minHead) || len(v.Canonical) != int(n)*fcp.HashSize {
		return errNameRecord
	}
	r.heads = slices.Grow(r.heads, int(n))[:n]
	for i := range r.heads {
		h := &r.heads[i]
		h.decode(&p)
		h.hash = fcp.Hash(v.Canonical[i*fcp.HashSize : (i+1)*fcp.HashSize])
		if i > 0 && bytes.Compare(r.heads[i-1].hash[:], h.hash[:]) >= 0 {
			return errNameRecord
		}
	}
	for len(p.b) > 0 && !p.bad {
		h := p.hash()
		if m := len(r.replaced); m > 0 && bytes.Compare(r.replaced[m-1][:], h[:]) >= 0 {
			return errNameRecord
		}
		r.replaced = append(r.replaced, h)
	}
	if !p.done() {
		return errNameRecord
	}
	return nil
}

// seer reports whether a version that is no head is already known. It may say
// false for one that is, at the cost of an entry in replaced.
type seer interface {
	seen(name []byte, h *fcp.Hash) bool
}

// fold takes one version in. changed is false when the heads stay as they are.
func (r *nameRecord) fold(name []byte, v *head, replaces fcp.HashList, known seer) (changed bool) {
	for i := range replaces.Len() {
		h := replaces.At(i)
		if at, ok := r.find(&h); ok {
			r.heads = slices.Delete(r.heads, at, at+1)
			changed = true
		} else if at, ok := findHash(r.replaced, &h); !ok && !known.seen(name, &h) {
			r.replaced = slices.Insert(r.replaced, at, h)
		}
	}
	if at, ok := findHash(r.replaced, &v.hash); ok {
		r.replaced = slices.Delete(r.replaced, at, at+1)
		return changed
	}
	at, ok := r.find(&v.hash)
	if ok {
		return changed
	}
	r.heads = slices.Insert(r.heads, at, *v)
	return true
}

// namesProjection folds object.put and object.tombstone into name records and
// their history.
type namesProjection struct{}

func (namesProjection) Name() string         { return projNames }
func (namesProjection) Version() uint32      { return 1 }
func (namesProjection) Planes() fcp.PlaneSet { return 1 << fcp.PlaneControl }
func (namesProjection) Scope() Scope         { return ScopeZone }

func (namesProjection) Touches(ev *Event, key []byte) []byte {
	if !ev.Content.Kind.Info().Named {
		return nil
	}
	return append(key, ev.Content.Key...)
}

func (namesProjection) Apply(f *Fold, ev *Event, key []byte) error {
	f.version = head{
		hash: ev.Hash, object: ev.Content.Object, time: ev.Time, seq: ev.Seq, position: ev.Position,
		generation: ev.Content.Generation, size: ev.Content.Size, feed: ev.Feed,
		tombstone: ev.Content.Kind == fcp.KindObjectTombstone,
	}
	r := &f.name
	old, ok, err := f.Get(key)
	if err != nil {
		return err
	}
	r.reset()
	if ok {
		if err := r.decode(old); err != nil {
			return err
		}
	}
	changed := r.fold(ev.Content.Key, &f.version, ev.Content.Replaces, f)
	if changed && ok && !f.refolding {
		if err := f.keepHistory(ev.Content.Key, ev.Position, old); err != nil {
			return err
		}
	}
	if changed {
		r.since = ev.Position
	}
	return f.setName(key, r)
}

func (f *Fold) setName(key []byte, r *nameRecord) error {
	if len(r.heads) == 0 { // cannot happen: the version itself or what replaced it is a head
		return fcp.Errorf(fcp.CodeInternal, "a name without heads")
	}
	f.canonical = r.appendCanonical(f.canonical[:0])
	f.local = r.appendLocal(f.local[:0])
	return f.Set(key, f.canonical, f.local)
}

// historyKey appends to b the key of the history entry of a name that ended at
// the given position: u16be length, name, u64be position. An entry's value is the
// record that ended there. It is local: positions are.
func historyKey(b, name []byte, until uint64) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	return binary.BigEndian.AppendUint64(b, until)
}

func (f *Fold) keepHistory(name []byte, until uint64, old state.Value) error {
	f.aux = historyKey(f.prefix(f.aux[:0], projHistory), name, until)
	f.value = binary.AppendUvarint(f.value[:0], uint64(len(old.Canonical)))
	f.value = append(append(f.value, old.Canonical...), old.Local...)
	return f.Set(f.aux, nil, f.value)
}

// decodeHistory splits a history entry into the record it keeps.
func (r *nameRecord) decodeHistory(v state.Value) error {
	p := packed{b: v.Local}
	n := p.uvarint()
	if p.bad || n > uint64(len(p.b)) {
		return errNameRecord
	}
	return r.decode(state.Value{Canonical: p.b[:n:n], Local: p.b[n:]})
}

// seen implements seer: was the version a head not too long ago? Only a version
// that replaces something that is no head asks.
func (f *Fold) seen(name []byte, h *fcp.Hash) bool {
	return f.history != nil && f.history(historyPrefix(f.prefix(nil, projHistory), name), h)
}

// splitHistoryKey undoes historyKey. The name aliases key.
func splitHistoryKey(key []byte) (name []byte, until uint64, ok bool) {
	if len(key) < 2+8 {
		return nil, 0, false
	}
	n := int(binary.BigEndian.Uint16(key))
	if len(key) != 2+n+8 {
		return nil, 0, false
	}
	return key[2 : 2+n : 2+n], binary.BigEndian.Uint64(key[2+n:]), true
}

func (namesProjection) Row(key []byte, v state.Value, row *Row) error {
	var r nameRecord
	if err := r.decode(v); err != nil {
		return err
	}
	row.Key = string(key)
	heads := make([]map[string]any, len(r.heads))
	for i := range r.heads {
		h := &r.heads[i]
		heads[i] = map[string]any{
			"hash": h.hash.String(), "generation": h.generation, "time": h.time.Wall(), "object": h.object.String(),
			"size": h.size, "tombstone": h.tombstone, "position": h.position,
		}
	}
	row.Fields = map[string]any{"since": r.since, "heads": heads}
	return nil
}
