package symbols

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/coding"
)

// Inventory says which encoding symbols somebody holds: one roaring bitmap of ids
// per segment, the same for a peer and for a directory. Its encoding is
// docs/format.md "Inventory":
//
//	"FCPINV01" | for each segment, strictly ascending by id:
//	  segment id[32] | u32be length | roaring bitmap, run-optimised
type Inventory map[fcp.SegmentID]*roaring.Bitmap

// Limits of an encoded inventory.
const (
	MaxInventory       = 16 << 20 // bytes
	maxInventoryBitmap = 64 << 10 // bytes of one bitmap; a segment has few symbols
	inventoryMagic     = "FCPINV01"
	inventoryHead      = fcp.HashSize + 4
)

// Add adds the symbols of a share.
func (v Inventory) Add(segment fcp.SegmentID, first, count uint32) {
	b := v[segment]
	if b == nil {
		b = roaring.New()
		v[segment] = b
	}
	b.AddRange(uint64(first), uint64(first)+uint64(count))
}

// Encode returns the one encoding of the inventory. Segments without symbols are
// left out.
func (v Inventory) Encode() ([]byte, error) {
	ids := make([]fcp.SegmentID, 0, len(v))
	for id, b := range v {
		if !b.IsEmpty() {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b fcp.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	out := []byte(inventoryMagic)
	for _, id := range ids {
		b, err := encodeBitmap(v[id])
		if err != nil {
			return nil, err
		}
		if len(b) > maxInventoryBitmap || len(out)+inventoryHead+len(b) > MaxInventory {
			return nil, fcp.Errorf(fcp.CodeTooLarge, "an inventory")
		}
		out = append(out, id[:]...)
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	return out, nil
}

// encodeBitmap returns the one form: containers as built from scratch, then runs
// where they are shorter.
func encodeBitmap(b *roaring.Bitmap) ([]byte, error) {
	fresh := roaring.New()
	for first, end := range b.Ranges() {
		fresh.AddRange(uint64(first), end)
	}
	fresh.RunOptimize()
	out, err := fresh.ToBytes()
	return out, fcp.Wrap(fcp.CodeInternal, err, "encode a bitmap")
}

// ParseInventory decodes an inventory; what Encode would not write is refused.
func ParseInventory(b []byte) (Inventory, error) {
	bad := func(what string) error { return fcp.Errorf(fcp.CodeMalformed, "inventory: %s", what) }
	if len(b) > MaxInventory {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an inventory of %d bytes", len(b))
	}
	rest, ok := bytes.CutPrefix(b, []byte(inventoryMagic))
	if !ok {
		return nil, bad("magic")
	}
	v := Inventory{}
	var last fcp.SegmentID
	for len(rest) > 0 {
		if len(rest) < inventoryHead {
			return nil, bad("cut")
		}
		id := fcp.SegmentID(rest[:fcp.HashSize])
		n := binary.BigEndian.Uint32(rest[fcp.HashSize:])
		rest = rest[inventoryHead:]
		if n > maxInventoryBitmap || int(n) > len(rest) {
			return nil, bad("length of a bitmap")
		}
		if len(v) > 0 && bytes.Compare(last[:], id[:]) >= 0 {
			return nil, bad("order")
		}
		bitmap, err := parseBitmap(rest[:n])
		if err != nil {
			return nil, err
		}
		rest, last = rest[n:], id
		v[id] = bitmap
	}
	return v, nil
}

// parseBitmap decodes one bitmap. The sizes in its head are checked by the library
// against the bytes given, of which there are few.
func parseBitmap(b []byte) (out *roaring.Bitmap, err error) {
	bad := fcp.Errorf(fcp.CodeMalformed, "inventory: a bitmap does not decode")
	m := roaring.New()
	n, err := m.ReadFrom(bytes.NewReader(b))
	if err != nil || n != int64(len(b)) || m.Validate() != nil || m.IsEmpty() || m.Maximum() > coding.MaxESI {
		return nil, bad
	}
	if again, err := encodeBitmap(m); err != nil || !bytes.Equal(again, b) {
		return nil, fcp.Errorf(fcp.CodeNonCanonical, "inventory: a bitmap is not in its one form")
	}
	return m, nil
}
