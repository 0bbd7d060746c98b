package coding

import (
	"fmt"
	"unsafe"

	"fcp/coding/internal/gf256"
	"fcp/coding/internal/rfc6330"
)

// Shape is the layout of the symbols of a source block. Only SymbolSize must be
// set: SubBlocks and Alignment default to 1.
type Shape struct {
	SymbolSize int // T, octets, 1..65535, a multiple of Alignment
	SubBlocks  int // N (section 4.4.1.2)
	Alignment  int // Al, octets
}

func (s Shape) normal() (Shape, error) {
	if s.SubBlocks == 0 {
		s.SubBlocks = 1
	}
	if s.Alignment == 0 {
		s.Alignment = 1
	}
	if s.SymbolSize < 1 || s.SymbolSize > MaxSymbolSize || s.Alignment < 1 || s.Alignment > 255 ||
		s.SymbolSize%s.Alignment != 0 || s.SubBlocks < 1 || s.SubBlocks > s.SymbolSize/s.Alignment {
		return s, fmt.Errorf("%w: symbol size %d, %d sub-blocks, alignment %d", ErrParams, s.SymbolSize, s.SubBlocks, s.Alignment)
	}
	return s, nil
}

func blockFor(k int) (rfc6330.Block, error) {
	b, ok := rfc6330.ForK(k)
	if !ok {
		return b, fmt.Errorf("%w: %d source symbols", ErrParams, k)
	}
	return b, nil
}

// stripe is one sub-block: a part of every symbol whose source parts lie one
// behind the other (section 4.4.1.2). Without sub-blocks there is one stripe.
type stripe struct {
	at   int // offset of the part in a symbol
	size int // octets
	base int // offset of its first source part in the block
}

// stripes cuts symbols of k-symbol blocks into sub-blocks.
func (s Shape) stripes(k int) []stripe {
	tl, ts, nl, _ := Partition(uint32(s.SymbolSize/s.Alignment), uint32(s.SubBlocks))
	out := make([]stripe, s.SubBlocks)
	at := 0
	for i := range out {
		size := int(ts) * s.Alignment
		if i < int(nl) {
			size = int(tl) * s.Alignment
		}
		out[i] = stripe{at: at, size: size, base: at * k}
		at += size
	}
	return out
}

// tile is a span of columns worked on in one go.
type tile struct {
	stripe int
	col    int // first octet within the stripe's part of a symbol
	width  int // octets worked on: 64, 128 or 256
	size   int // octets that count: below width only when the part is below 64
	skip   int // octets at the front that another tile has computed already
	ws     int // offset of its intermediate symbols, for an encoder
}

// tileWidth is the width of the tiles for blocks of that many slots: the widest
// whose workspace takes at most half of a second-level cache of 2 MiB. Large
// blocks fall out of it at any width; narrower tiles than this lose more on
// address translation than they gain.
func tileWidth(slots int) int {
	if slots <= 4000 {
		return 256
	}
	return 128
}

// workersFor is how many of at most most workers are worth their hand-off for
// blocks of so many octets.
func workersFor(octets, most int) int {
	return max(1, min(most, octets>>18))
}

// tiles cuts the stripes into tiles of the given width or less, and these among
// workers: worker w takes the tiles cut[w] to cut[w+1]-1, about the same number of
// columns as any other. There are fewer workers if there is nothing for one to
// do. No tile is wider than the first. The last tile of a stripe overlaps
// the one before when the size is no multiple of 64: the same octets are then
// computed twice, which is cheaper than copying.
func tiles(stripes []stripe, width, workers int) (out []tile, cut []int) {
	units, taken := 0, 0 // of MinWidth columns
	for _, s := range stripes {
		units += s.units()
	}
	workers = max(1, min(workers, units))
	end := func() int { return (units*len(cut) + workers - 1) / workers } // of the last share begun
	for i, s := range stripes {
		for n := s.units(); n > 0; {
			if taken == end() {
				cut = append(cut, len(out))
			}
			t := s.tile(s.units()-n, min(width, gf256.MinWidth*min(n, end()-taken)))
			t.stripe = i
			out = append(out, t)
			taken += t.width / gf256.MinWidth
			n -= t.width / gf256.MinWidth
		}
	}
	return out, append(cut, len(out))
}

func (s stripe) units() int { return (s.size + gf256.MinWidth - 1) / gf256.MinWidth }

// tile is the widest tile that begins at the given unit, up to a limit.
func (s stripe) tile(unit, limit int) tile {
	const least = gf256.MinWidth
	col := unit * least
	switch left := s.size - col; {
	case s.size < least:
		return tile{width: least, size: s.size}
	case left < least:
		return tile{col: s.size - least, width: least, size: least, skip: least - left}
	default:
		w := gf256.MaxWidth
		for w > min(left, limit) {
			w /= 2
		}
		return tile{col: col, width: w, size: w}
	}
}

// zeros stands for a padding symbol (section 5.3.1).
var zeros [MaxSymbolSize + gf256.MaxWidth]byte

// aligned returns n octets that begin at a cache line. Their content is not
// defined.
func aligned(n int) []byte {
	b := make([]byte, n+63)
	off := offset(b, 64)
	b = b[off : off+n : off+n]
	if n >= hugeFrom {
		adviseHuge(b)
	}
	return b
}

// hugeFrom is the size from which memory is worth huge pages.
const hugeFrom = 4 << 20

// offset is how far the next multiple of a power of two is from the start of b.
func offset(b []byte, unit int) int {
	return int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & uintptr(unit-1))
}
