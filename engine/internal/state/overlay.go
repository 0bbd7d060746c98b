package state

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sync/atomic"

	"fcp"
	"fcp/internal/hugepage"
)

// An overlay holds the newest entries in memory. One goroutine at a time writes
// (guarded by Store.mu); any number read without a lock. It has no pointers but
// the handful of chunks, so the garbage collector has nothing to scan.
//
// A record is immutable once written. Its offset is also its age: a reader that
// loaded the watermark w ignores records at or above w and follows prev to the
// version that was current then.
//
//	record = prev u32 | keyLen u16 | flags u16 | valueLen u32 | key | value
//
// in little-endian byte order; value is the stored form (see value.go).
type overlay struct {
	id   uint64 // ascending in the order of creation
	seed uint64 // of the key hash

	tab  atomic.Pointer[table]
	dir  atomic.Pointer[[][]byte] // chunk i holds the offsets from i<<chunkShift on
	mark atomic.Uint32            // records below it are visible
	keys atomic.Int64             // entries as of the mark, for the metrics

	ingesting atomic.Bool // set before the tables may show any record of this overlay

	// Owned by the updating goroutine; final once the overlay is frozen.
	end      uint32 // the next record's offset
	bytes    int64  // arena bytes allocated to records
	undo     []undo // what the open group changed
	position uint64 // of the last complete group
	dirty    bool   // a group ended in this overlay
	slab     []byte // what the next chunks are cut from

	idx orderedIndex
}

// A table is an open-addressing hash table; slot i is the pair s[2i] = hash,
// s[2i+1] = record offset. The home slot is the hash's high bits, so that
// growing a table, and filling the filter from it, walk memory forwards.
type table struct {
	s     []uint64
	shift uint // 64 - log2(slots)
	used  int  // slots that are not empty; owned by the updating goroutine
}

type undo struct{ slot, was uint64 }

const (
	chunkShift  = 20
	chunkSize   = 1 << chunkShift
	firstChunk  = 64 << 10
	slabSize    = 16 << 20
	slabEntries = 200_000 // an overlay that is to hold so many fills a slab
	maxChunks   = 1 << (32 - chunkShift)
	recHeader   = 12
	firstOffset = 16
	minSlotBits = 10

	slotEmpty = 0 // no entry here or further on
	slotDead  = 1 // a rolled-back entry; the probe goes on

	flagTombstone = 1
)

type record struct {
	key, value []byte
	tombstone  bool
	prev       uint32
}

func newOverlay(id, seed, position uint64, sizeHint int) *overlay {
	o := &overlay{id: id, seed: seed, position: position, end: firstOffset}
	o.tab.Store(newTable(max(minSlotBits, bits.Len(uint(sizeHint*3/2)))))
	first := make([]byte, firstChunk)
	if sizeHint >= slabEntries {
		o.growSlab()
		first = o.chunk()
	} else if sizeHint > 0 {
		first = make([]byte, chunkSize)
	}
	o.dir.Store(&[][]byte{first})
	o.mark.Store(firstOffset)
	return o
}

func newTable(slotBits int) *table {
	t := &table{s: make([]uint64, 2<<slotBits), shift: uint(64 - slotBits)}
	hugepage.Advise(t.s)
	return t
}

// at returns the record at off, which must have been published.
func at(dir [][]byte, off uint32) record {
	c := dir[off>>chunkShift][off&(chunkSize-1):]
	k := int(binary.LittleEndian.Uint16(c[4:]))
	v := int(binary.LittleEndian.Uint32(c[8:]))
	return record{
		prev:      binary.LittleEndian.Uint32(c),
		tombstone: c[6] == flagTombstone,
		key:       c[recHeader : recHeader+k : recHeader+k],
		value:     c[recHeader+k : recHeader+k+v : recHeader+k+v],
	}
}

// find returns the slot of t that holds key, or the empty slot where it belongs.
func (o *overlay) find(t *table, hash uint64, key []byte) (slot, off uint64) {
	mask := uint64(len(t.s)/2 - 1)
	for i := hash >> t.shift; ; i = (i + 1) & mask {
		off := atomic.LoadUint64(&t.s[2*i+1])
		if off == slotEmpty {
			return i, slotEmpty
		}
		// The hash was written before the offset was published and never changes.
		if t.s[2*i] != hash || off == slotDead {
			continue
		}
		if bytes.Equal(at(o.chunks(), uint32(off)).key, key) {
			return i, off
		}
	}
}

// homes reads the slots where find begins.
func (t *table) homes(hashes []uint64) (sum uint64) {
	s, shift := t.s, t.shift&63
	for _, h := range hashes {
		sum += atomic.LoadUint64(&s[2*(h>>shift)+1])
	}
	return sum
}

func (o *overlay) chunks() [][]byte { return *o.dir.Load() }

// get returns the newest record of key below the watermark w.
func (o *overlay) get(hash uint64, key []byte, w uint32) (record, bool) {
	_, off := o.find(o.tab.Load(), hash, key)
	if off == slotEmpty {
		return record{}, false
	}
	dir := o.chunks()
	for off != 0 {
		r := at(dir, uint32(off))
		if uint32(off) < w {
			return r, true
		}
		off = uint64(r.prev)
	}
	return record{}, false
}

// put appends a record and makes it the key's newest. Only the updating
// goroutine calls it. The value is given in its three pieces.
func (o *overlay) put(hash uint64, key []byte, flags byte, head, canonical, local []byte) error {
	t := o.tab.Load()
	if 4*(t.used+1) > len(t.s)/2*3 {
		t = o.grow(t)
	}
	slot, was := o.find(t, hash, key)
	prev := uint32(was)
	n := len(head) + len(canonical) + len(local)
	off, c, err := o.alloc(recHeader + len(key) + n)
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(c, prev)
	binary.LittleEndian.PutUint16(c[4:], uint16(len(key)))
	c[6] = flags
	binary.LittleEndian.PutUint32(c[8:], uint32(n))
	w := recHeader + copy(c[recHeader:], key)
	w += copy(c[w:], head)
	w += copy(c[w:], canonical)
	copy(c[w:], local)
	o.undo = append(o.undo, undo{slot, was})
	if was == slotEmpty {
		t.s[2*slot] = hash
		t.used++
	}
	atomic.StoreUint64(&t.s[2*slot+1], uint64(off))
	return nil
}

// alloc reserves n bytes of one chunk.
func (o *overlay) alloc(n int) (off uint32, b []byte, err error) {
	dir := o.chunks()
	i := len(dir) - 1
	at := int(o.end) - i<<chunkShift
	if at+n > min(len(dir[i]), chunkSize) {
		if len(dir) >= maxChunks-1 {
			return 0, nil, fcp.Errorf(fcp.CodeExhausted, "one overlay holds at most %d chunks of %d bytes", maxChunks, chunkSize)
		}
		grown := make([][]byte, len(dir)+1)
		copy(grown, dir)
		if len(dir[i]) <= chunkSize {
			grown[i] = dir[i][:at:at]
		}
		if n <= chunkSize {
			grown[i+1] = o.chunk()
		} else {
			grown[i+1] = make([]byte, n)
		}
		o.dir.Store(&grown)
		dir, at, i = grown, 0, i+1
		o.end = uint32(i) << chunkShift
	}
	off = o.end
	if n > chunkSize {
		o.end = uint32(i)<<chunkShift + chunkSize - 1 // the chunk is this record's alone
	} else {
		o.end += uint32(n)
	}
	o.bytes += int64(n)
	return off, dir[i][at : at+n : at+n], nil
}

// chunk returns memory for a chunk. An overlay that will be large cuts them from
// slabs, which have huge pages.
func (o *overlay) chunk() []byte {
	if o.slab == nil {
		return make([]byte, chunkSize)
	}
	if len(o.slab) == 0 {
		o.growSlab()
	}
	c := o.slab[:chunkSize:chunkSize]
	o.slab = o.slab[chunkSize:]
	return c
}

func (o *overlay) growSlab() {
	o.slab = make([]byte, slabSize)
	hugepage.Advise(o.slab)
}

// grow doubles the table. Readers of the old one go on seeing a state that was
// current when they began.
func (o *overlay) grow(t *table) *table {
	g := newTable(int(64 - (t.shift - 1)))
	mask := uint64(len(g.s)/2 - 1)
	moved := make(map[uint64]uint64, len(o.undo))
	for _, u := range o.undo {
		moved[u.slot] = 0
	}
	for j := 0; j < len(t.s); j += 2 {
		off := t.s[j+1]
		if off == slotEmpty || off == slotDead {
			continue
		}
		i := t.s[j] >> g.shift
		for g.s[2*i+1] != slotEmpty {
			i = (i + 1) & mask
		}
		g.s[2*i], g.s[2*i+1] = t.s[j], off
		g.used++
		if len(moved) > 0 {
			if _, ok := moved[uint64(j/2)]; ok {
				moved[uint64(j/2)] = i
			}
		}
	}
	for k := range o.undo {
		o.undo[k].slot = moved[o.undo[k].slot]
	}
	o.tab.Store(g)
	return g
}

// commit makes the open group visible.
func (o *overlay) commit(position uint64) {
	o.undo = o.undo[:0]
	if cap(o.undo) > 1<<16 {
		o.undo = nil
	}
	o.position = position
	o.dirty = true
	o.keys.Store(int64(o.entries()))
	o.mark.Store(o.end)
}

// rollback takes the open group's changes back. Its records stay in the arena
// as a hole that nothing refers to.
func (o *overlay) rollback() {
	t := o.tab.Load()
	for k := len(o.undo) - 1; k >= 0; k-- {
		u := o.undo[k]
		if u.was == slotEmpty {
			u.was = slotDead
		}
		atomic.StoreUint64(&t.s[2*u.slot+1], u.was)
	}
	o.undo = o.undo[:0]
	if from := o.mark.Load(); from != o.end {
		o.idx.hole(from, o.end)
	}
}

// entries returns the number of distinct keys, counting tombstones.
func (o *overlay) entries() int { return o.tab.Load().used }

// walk calls fn for each visible record at or above from and below to, in the
// order of writing, older versions of a key included.
func (o *overlay) walk(from, to uint32, fn func(off uint32, r record)) {
	dir := o.chunks()
	holes := o.idx.holesCopy()
	for off := from; off < to; {
		for len(holes) > 0 && holes[0].to <= off {
			holes = holes[1:]
		}
		if len(holes) > 0 && holes[0].from <= off {
			off = holes[0].to
			continue
		}
		i, in := off>>chunkShift, int(off&(chunkSize-1))
		if c := dir[i]; in >= len(c) || in > 0 && len(c) > chunkSize {
			off = (i + 1) << chunkShift // the rest of a closed chunk
			continue
		}
		r := at(dir, off)
		fn(off, r)
		if n := recHeader + len(r.key) + len(r.value); n <= chunkSize {
			off += uint32(n)
		} else {
			off = (i + 1) << chunkShift
		}
	}
}
