//go:build !purego && (amd64 || arm64)

package gf256

import "unsafe"

// nibbles[x] is x times every low nibble, then x times every high nibble, for
// the instructions that look sixteen octets up in a table of sixteen.
var nibbles [256][32]byte

func init() {
	for x := range 256 {
		for n := range 16 {
			nibbles[x][n] = products[x][n]
			nibbles[x][16+n] = products[x][n<<4]
		}
	}
}

// bounds returns the first element of a stream and the address behind the last.
// That address may be another object's, so it must not be a pointer.
func bounds(stream []uint32) (first *uint32, end uintptr) {
	first = unsafe.SliceData(stream)
	return first, uintptr(unsafe.Pointer(first)) + 4*uintptr(len(stream))
}
