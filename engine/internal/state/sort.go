package state

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
)

// An elem refers to one record: eight bytes of its key, so that most
// comparisons touch nothing else, and the record's offset.
type elem struct {
	pre uint64
	off uint32
}

// keyWord returns the eight bytes of key at depth as a big-endian number,
// padded with zeros.
func keyWord(key []byte, depth int) uint64 {
	if len(key) >= depth+8 {
		return binary.BigEndian.Uint64(key[depth:])
	}
	var b [8]byte
	if depth < len(key) {
		copy(b[:], key[depth:])
	}
	return binary.BigEndian.Uint64(b[:])
}

const (
	smallSort = 24 // runs up to this are sorted by insertion
	maxDigit  = 14 // bits of one radix step
)

// A sorter sorts elems by key: radix steps on the first eight bytes, starting
// at the highest bit in which they differ, then on the next eight among equals.
type sorter struct{ dir [][]byte }

// sortElems sorts e, whose pre fields hold the keys' first eight bytes.
// Afterwards the pre fields are undefined.
func sortElems(dir [][]byte, e []elem) {
	s := sorter{dir: dir}
	s.sort(e, make([]elem, len(e)), 0)
}

func (s *sorter) key(off uint32) []byte { return at(s.dir, off).key }

// compare orders by pre, then by the keys from depth on, then by length: keys
// that agree so far up to padding differ in their trailing zeros only.
func (s *sorter) compare(a, b elem, depth int) int {
	if a.pre != b.pre {
		return cmp.Compare(a.pre, b.pre)
	}
	ka, kb := s.key(a.off), s.key(b.off)
	if c := bytes.Compare(ka[min(depth, len(ka)):], kb[min(depth, len(kb)):]); c != 0 {
		return c
	}
	return cmp.Compare(len(ka), len(kb))
}

func (s *sorter) insertion(e []elem, depth int) {
	for i := 1; i < len(e); i++ {
		x := e[i]
		j := i
		for ; j > 0 && (x.pre < e[j-1].pre || x.pre == e[j-1].pre && s.compare(x, e[j-1], depth) < 0); j-- {
			e[j] = e[j-1]
		}
		e[j] = x
	}
}

func (s *sorter) sort(e, tmp []elem, depth int) {
	if len(e) <= smallSort {
		s.insertion(e, depth)
		return
	}
	var diff uint64
	first := e[0].pre
	for i := range e {
		diff |= e[i].pre ^ first
	}
	if diff == 0 {
		s.deeper(e, tmp, depth+8)
		return
	}
	digit := min(maxDigit, max(4, bits.Len(uint(len(e)))-3))
	shift := max(0, bits.Len64(diff)-digit)
	mask := uint64(1)<<digit - 1
	count := make([]uint32, mask+2)
	for i := range e {
		count[e[i].pre>>shift&mask+1]++
	}
	for i := 1; i < len(count); i++ {
		count[i] += count[i-1]
	}
	next := count[:len(count)-1]
	for i := range e {
		d := e[i].pre >> shift & mask
		tmp[next[d]] = e[i]
		next[d]++
	}
	copy(e, tmp[:len(e)])
	// next[d] is now where digit d ends.
	from := uint32(0)
	for _, to := range next {
		if to-from > 1 {
			s.sort(e[from:to], tmp[from:to], depth)
		}
		from = to
	}
}

// deeper sorts elems whose keys agree, zeros padded, before depth.
func (s *sorter) deeper(e, tmp []elem, depth int) {
	longest := 0
	for i := range e {
		k := s.key(e[i].off)
		longest = max(longest, len(k))
		e[i].pre = keyWord(k, depth)
	}
	if depth >= longest { // only the number of trailing zero bytes differs
		slices.SortFunc(e, func(a, b elem) int { return bytes.Compare(s.key(a.off), s.key(b.off)) })
		return
	}
	s.sort(e, tmp, depth)
}

// prefixes knows, for each first byte, what all keys that begin with it share.
// Keys of one projection have long equal beginnings: past them, eight bytes
// tell nearly all apart.
type prefixes struct {
	first [256][]byte // a key of the class
	same  [256]int    // bytes that every key of the class shares with it
	count [256]int
}

func (p *prefixes) add(key []byte) {
	c := key[0]
	p.count[c]++
	f := p.first[c]
	if f == nil {
		p.first[c], p.same[c] = key, len(key)
		return
	}
	n := min(p.same[c], len(key))
	i := 0
	for i+8 <= n && binary.LittleEndian.Uint64(f[i:]) == binary.LittleEndian.Uint64(key[i:]) {
		i += 8
	}
	for i < n && f[i] == key[i] {
		i++
	}
	p.same[c] = i
}

// sort sorts elems whose keys were all added, and no others; pre is not set yet.
func (p *prefixes) sort(dir [][]byte, e []elem) []elem {
	out := make([]elem, len(e))
	var next [256]int
	for c, n := 0, 0; c < 256; c++ {
		next[c] = n
		n += p.count[c]
	}
	for _, x := range e {
		k := at(dir, x.off).key
		c := k[0]
		out[next[c]] = elem{keyWord(k, p.same[c]), x.off}
		next[c]++
	}
	s := sorter{dir: dir}
	for c, from := 0, 0; c < 256; c++ {
		s.sort(out[from:next[c]], e[from:next[c]], p.same[c])
		from = next[c]
	}
	return out
}
