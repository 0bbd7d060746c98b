package gossip

import (
	"bytes"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
)

// Limits of inventories.
const (
	MaxUpdate   = 2 << 20 // bytes of an encoded Update
	MaxEntries  = 1000    // segments in one Update
	MaxAsked    = 100     // segments in one WhoHas
	maxSymbols  = 1 << 16 // symbols of one segment that one node holds
	maxSymbolID = 1<<24 - 1
	maxBitmap   = 64 << 10
)

// Inventory says which encoding symbols somebody holds: one bitmap of ids per
// segment.
type Inventory map[fcp.SegmentID]*roaring.Bitmap

// ids returns the segments in ascending order.
func (v Inventory) ids() []fcp.SegmentID {
	out := make([]fcp.SegmentID, 0, len(v))
	for id := range v {
		out = append(out, id)
	}
	slices.SortFunc(out, func(a, b fcp.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	return out
}

// Entry is what a node holds of one segment now; no symbols: nothing any more.
type Entry struct {
	Segment fcp.SegmentID `cbor:"segment"`
	Symbols []byte        `cbor:"symbols,omitempty"` // a roaring bitmap of encoding symbol ids
}

// Update carries an inventory, or what changed in it.
type Update struct {
	Entries []Entry `cbor:"entries"` // strictly ascending by segment
	// First marks the beginning of a whole inventory: what was known before is void.
	First bool `cbor:"first,omitempty"`
	// Answer marks an answer to WhoHas, which says nothing of other segments.
	Answer bool `cbor:"answer,omitempty"`
	// More: other parts of the whole inventory follow.
	More bool `cbor:"more,omitempty"`
}

// Encode returns the canonical encoding.
func (u *Update) Encode() ([]byte, error) { return fcp.Marshal(u) }

// DecodeUpdate decodes an update and checks every bitmap in it.
func DecodeUpdate(b []byte) (*Update, error) {
	var u Update
	if len(b) > MaxUpdate {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an inventory of %d bytes", len(b))
	}
	if err := fcp.Unmarshal(b, &u); err != nil {
		return nil, err
	}
	if len(u.Entries) > MaxEntries {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an inventory of %d segments", len(u.Entries))
	}
	for i := range u.Entries {
		e := &u.Entries[i]
		if i > 0 && bytes.Compare(u.Entries[i-1].Segment[:], e.Segment[:]) >= 0 {
			return nil, fcp.Errorf(fcp.CodeMalformed, "an inventory out of order")
		}
		if _, err := e.bitmap(); err != nil {
			return nil, err
		}
	}
	return &u, nil
}

// bitmap returns the decoded set; nil for none.
func (e *Entry) bitmap() (*roaring.Bitmap, error) {
	if len(e.Symbols) == 0 {
		return nil, nil
	}
	return readBitmap(e.Symbols, bounds{size: maxBitmap, max: maxSymbolID, count: maxSymbols})
}

func entryOf(id fcp.SegmentID, b *roaring.Bitmap) (Entry, error) {
	if b == nil || b.IsEmpty() {
		return Entry{Segment: id}, nil
	}
	out, err := writeBitmap(b)
	return Entry{id, out}, err
}

// WhoHas asks what the receiver holds of some segments.
type WhoHas struct {
	Segments []fcp.SegmentID `cbor:"segments"` // strictly ascending
}

// Encode returns the canonical encoding.
func (w *WhoHas) Encode() ([]byte, error) { return fcp.Marshal(w) }

// DecodeWhoHas decodes a question strictly.
func DecodeWhoHas(b []byte) (*WhoHas, error) {
	var w WhoHas
	if len(b) > 64*MaxAsked {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a question of %d bytes", len(b))
	}
	if err := fcp.Unmarshal(b, &w); err != nil {
		return nil, err
	}
	if len(w.Segments) == 0 || len(w.Segments) > MaxAsked {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a question about %d segments", len(w.Segments))
	}
	for i := 1; i < len(w.Segments); i++ {
		if bytes.Compare(w.Segments[i-1][:], w.Segments[i][:]) >= 0 {
			return nil, fcp.Errorf(fcp.CodeMalformed, "a question out of order")
		}
	}
	return &w, nil
}

// Digest is a short summary of a node's vector, for anti-entropy.
type Digest struct {
	Feeds uint64   `cbor:"feeds"`
	Hash  fcp.Hash `cbor:"hash"`
}

// Encode returns the canonical encoding.
func (d *Digest) Encode() ([]byte, error) { return fcp.Marshal(d) }

// DecodeDigest decodes a digest strictly.
func DecodeDigest(b []byte) (*Digest, error) {
	var d Digest
	if len(b) > 128 {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a digest of %d bytes", len(b))
	}
	return &d, fcp.Unmarshal(b, &d)
}
