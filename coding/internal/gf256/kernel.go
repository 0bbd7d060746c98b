package gf256

import (
	"crypto/subtle"
	"encoding/binary"
	"unsafe"
)

// Widths of a tile, in octets. Every kernel takes a width that is one of 64,
// 128 and 256.
const (
	MinWidth = 64
	MaxWidth = 256
)

// Form is one implementation of the kernels. All forms compute the same.
//
// Common arguments: ws is the tile's workspace, slot s at ws + s*width. Streams
// are trusted: they are compiled by package coding and never come from outside.
type Form struct {
	Name string

	// Sum runs a stream of records (dst, n | load<<31, n source slots): slot
	// dst becomes the sum of the n slots and, when load is set, of the width
	// octets at the next pointer of loads plus col. dst may be a source.
	// loads holds Ahead more valid pointers than are used.
	Sum func(ws unsafe.Pointer, width int, stream []uint32, loads []unsafe.Pointer, col int)

	// Horner runs pairs (src, group): t = alpha*t + src; group += t, from t = 0,
	// and stores the last t in slot last.
	Horner func(ws unsafe.Pointer, width int, stream []uint32, last uint32)

	// MulSum runs records (dst, n, n words slot | factor<<24): slot dst
	// becomes the sum of factor*slot. dst is not a source.
	MulSum func(ws unsafe.Pointer, width int, stream []uint32)

	// SumOut runs records (n, n source slots): the width octets at the next
	// pointer of outs plus col become the sum of the slots. outs holds Ahead
	// more valid pointers than are used.
	SumOut func(ws unsafe.Pointer, width int, stream []uint32, outs []unsafe.Pointer, col int)

	// MulAdd adds x*src to dst; the lengths are equal.
	MulAdd func(dst, src []byte, x byte)

	// Scatter is Sum transposed, at width 64: it takes the records of stream
	// that begin at starts from the last to the first, moves the value of the
	// record's slot (leaving zero) and adds it to each of the record's terms;
	// with load set also to the 64 octets at the next pointer of loads, taken
	// from the end. loads holds exactly the pointers used.
	Scatter func(ws unsafe.Pointer, stream, starts []uint32, loads []unsafe.Pointer)

	// HornerBack is Horner transposed, at width 64: from t = slot last it
	// takes the pairs from the last to the first: t += group; src += t;
	// t = alpha*t.
	HornerBack func(ws unsafe.Pointer, stream []uint32, last uint32)

	// Products adds factor*source for n sources to each of outs accumulators
	// of width octets at out, width 64 or 128: source i is at loads[i] + col,
	// its factor for accumulator j at factors + 64*i + j. loads holds Ahead
	// more valid pointers.
	Products func(out unsafe.Pointer, outs, width int, loads []unsafe.Pointer, n int, factors unsafe.Pointer, col int)
}

// Ahead is how many pointers a kernel may read beyond the last one it uses.
const Ahead = 8

var generic = Form{
	Name:   "generic",
	Sum:    sumGeneric,
	Horner: hornerGeneric,
	MulSum: mulSumGeneric,
	SumOut: sumOutGeneric,
	MulAdd: mulAddGeneric,

	Scatter:    scatterGeneric,
	HornerBack: hornerBackGeneric,
	Products:   productsBy(mulAddGeneric),
}

// Best is the fastest form this processor runs. It is set before main and never
// changes.
var Best = forms()[0]

// Forms lists the forms this processor runs, the best first, the generic last.
func Forms() []Form { return forms() }

// MulAdd adds x*src to dst, which has the same length.
func MulAdd(dst, src []byte, x byte) { Best.MulAdd(dst, src, x) }

// Scale multiplies p by x.
func Scale(p []byte, x byte) {
	t := &products[x]
	for i, v := range p {
		p[i] = t[v]
	}
}

func view(ws unsafe.Pointer, slot uint32, width int) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(ws, int(slot)*width)), width)
}

func sumGeneric(ws unsafe.Pointer, width int, stream []uint32, loads []unsafe.Pointer, col int) {
	var buf [MaxWidth]byte
	acc := buf[:width]
	for len(stream) > 0 {
		dst, n, load := stream[0], int(stream[1]&^(1<<31)), stream[1]>>31 != 0
		row := stream[2 : 2+n]
		stream = stream[2+n:]
		clear(acc)
		if load {
			copy(acc, unsafe.Slice((*byte)(unsafe.Add(loads[0], col)), width))
			loads = loads[1:]
		}
		for _, s := range row {
			subtle.XORBytes(acc, acc, view(ws, s, width))
		}
		copy(view(ws, dst, width), acc)
	}
}

func hornerGeneric(ws unsafe.Pointer, width int, stream []uint32, last uint32) {
	var buf [MaxWidth]byte
	t := buf[:width]
	for ; len(stream) > 0; stream = stream[2:] {
		double(t)
		subtle.XORBytes(t, t, view(ws, stream[0], width))
		group := view(ws, stream[1], width)
		subtle.XORBytes(group, group, t)
	}
	copy(view(ws, last, width), t)
}

// double multiplies t by alpha, eight octets at a time.
func double(t []byte) {
	for ; len(t) >= 8; t = t[8:] {
		v := binary.LittleEndian.Uint64(t)
		top := v >> 7 & 0x0101010101010101
		v = v << 1 & 0xfefefefefefefefe
		binary.LittleEndian.PutUint64(t, v^top*(Polynomial&0xff))
	}
}

func mulSumGeneric(ws unsafe.Pointer, width int, stream []uint32) {
	for len(stream) > 0 {
		dst, n := stream[0], int(stream[1])
		row := stream[2 : 2+n]
		stream = stream[2+n:]
		acc := view(ws, dst, width)
		clear(acc)
		for _, s := range row {
			mulAddGeneric(acc, view(ws, s&0xffffff, width), byte(s>>24))
		}
	}
}

func sumOutGeneric(ws unsafe.Pointer, width int, stream []uint32, outs []unsafe.Pointer, col int) {
	for len(stream) > 0 {
		row := stream[1 : 1+stream[0]]
		stream = stream[1+stream[0]:]
		acc := unsafe.Slice((*byte)(unsafe.Add(outs[0], col)), width)
		outs = outs[1:]
		clear(acc)
		for _, s := range row {
			subtle.XORBytes(acc, acc, view(ws, s, width))
		}
	}
}

func mulAddGeneric(dst, src []byte, x byte) {
	t := &products[x]
	src = src[:len(dst)]
	for i, v := range src {
		dst[i] ^= t[v]
	}
}

func scatterGeneric(ws unsafe.Pointer, stream, starts []uint32, loads []unsafe.Pointer) {
	var v [64]byte
	for i := len(starts) - 1; i >= 0; i-- {
		record := stream[starts[i]:]
		own := view(ws, record[0], 64)
		copy(v[:], own)
		clear(own)
		if record[1]>>31 != 0 {
			to := unsafe.Slice((*byte)(loads[len(loads)-1]), 64)
			loads = loads[:len(loads)-1]
			subtle.XORBytes(to, to, v[:])
		}
		for _, s := range record[2 : 2+record[1]&^(1<<31)] {
			to := view(ws, s, 64)
			subtle.XORBytes(to, to, v[:])
		}
	}
}

func hornerBackGeneric(ws unsafe.Pointer, stream []uint32, last uint32) {
	var t [64]byte
	copy(t[:], view(ws, last, 64))
	for ; len(stream) > 0; stream = stream[:len(stream)-2] {
		pair := stream[len(stream)-2:]
		subtle.XORBytes(t[:], t[:], view(ws, pair[1], 64))
		src := view(ws, pair[0], 64)
		subtle.XORBytes(src, src, t[:])
		double(t[:])
	}
}

// productsBy makes Products of a kernel for one product.
func productsBy(mulAdd func(dst, src []byte, x byte)) func(unsafe.Pointer, int, int, []unsafe.Pointer, int, unsafe.Pointer, int) {
	return func(out unsafe.Pointer, outs, width int, loads []unsafe.Pointer, n int, factors unsafe.Pointer, col int) {
		for i, p := range loads[:n] {
			src := unsafe.Slice((*byte)(unsafe.Add(p, col)), width)
			for j := range outs {
				if x := *(*byte)(unsafe.Add(factors, 64*i+j)); x != 0 {
					mulAdd(view(out, uint32(j), width), src, x)
				}
			}
		}
	}
}
