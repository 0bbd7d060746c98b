package state

import (
	"encoding/binary"

	"fcp"
)

// Value is what a key holds: a canonical part, which the digests cover, and a
// local part (positions and the like), which they do not.
type Value struct {
	Canonical []byte
	Local     []byte
}

// Limits of one entry.
const (
	MaxKey   = 4 << 10 // bytes of a key; a key has at least one
	MaxValue = 16 << 20
)

// reservedByte begins the keys of the store itself; no user key begins with it.
const reservedByte = 0xff

// A stored value is uvarint(len(canonical)) | canonical | local.

// decodeValue splits a stored value.
func decodeValue(b []byte) (Value, error) {
	if len(b) > 0 && b[0] < 0x80 && int(b[0]) < len(b) {
		n := 1 + int(b[0])
		return Value{b[1:n:n], b[n:]}, nil
	}
	c, w := binary.Uvarint(b)
	if w <= 0 || c > uint64(len(b)-w) {
		return Value{}, fcp.Errorf(fcp.CodeCorrupt, "a stored value of %d bytes does not hold its canonical part", len(b))
	}
	n := w + int(c)
	return Value{b[w:n:n], b[n:]}, nil
}

func checkKey(key []byte) error {
	switch {
	case len(key) == 0:
		return fcp.Errorf(fcp.CodeInvalidArgument, "a state key is empty")
	case len(key) > MaxKey:
		return fcp.Errorf(fcp.CodeTooLarge, "a state key of %d bytes, at most %d", len(key), MaxKey)
	case key[0] == reservedByte:
		return fcp.Errorf(fcp.CodeInvalidArgument, "a state key begins with the reserved byte 0xff")
	}
	return nil
}
