package gossip

import (
	"bytes"
	"crypto/ed25519"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
)

// Limits of messages.
const (
	MaxHeads    = 4096     // heads in one Vector
	MaxVector   = 2 << 20  // bytes of an encoded Vector
	MaxExtra    = 1 << 16  // how far beyond Seq an extra event may lie
	maxExtraLen = 16 << 10 // bytes of an encoded set of extras
	maxSeq      = 1 << 62  // no feed comes near; sums of numbers stay numbers
)

// Head says how far a feed goes. Its signature is the feed's writer's, over
// "FCP2-FEED-HEAD-V1" || feed id || u64be seq || hash || root, so a head is true
// whoever passes it on (docs/format.md "Feed head").
type Head struct {
	Zone        fcp.ZoneID   `cbor:"zone"`
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Seq         uint64       `cbor:"seq"`  // from 1
	Hash        fcp.Hash     `cbor:"hash"` // of event Seq
	Root        fcp.Hash     `cbor:"root"` // Merkle root over Seq leaves
	Signature   []byte       `cbor:"signature,omitempty"`
	// Extras are events that the sender holds beyond Seq, as a roaring bitmap of
	// their distance to Seq, from 2. Not signed: it is what the sender says of itself.
	Extras []byte `cbor:"extras,omitempty"`
}

// Feed returns the control feed that the head is of.
func (h *Head) Feed() fcp.Feed {
	return fcp.Feed{Zone: h.Zone, Writer: h.Writer, Incarnation: h.Incarnation, Plane: fcp.PlaneControl}
}

// HeadOf returns an unsigned head of a control feed.
func HeadOf(f fcp.Feed, seq uint64, hash, root fcp.Hash) Head {
	return Head{Zone: f.Zone, Writer: f.Writer, Incarnation: f.Incarnation, Seq: seq, Hash: hash, Root: root}
}

// Message returns what the writer signs.
func (h *Head) Message() []byte {
	return fcp.FeedHeadMessage(h.Feed().ID(), h.Seq, h.Hash, h.Root)
}

// Verify reports whether the feed's writer, whose key is given, signed the head.
func (h *Head) Verify(key ed25519.PublicKey) bool {
	return len(key) == ed25519.PublicKeySize && fcp.WriterOf(key) == h.Writer &&
		len(h.Signature) == ed25519.SignatureSize && ed25519.Verify(key, h.Message(), h.Signature)
}

func (h *Head) check() error {
	if !h.Zone.Valid() || h.Seq == 0 || h.Seq > maxSeq || len(h.Signature) != ed25519.SignatureSize {
		return fcp.Errorf(fcp.CodeMalformed, "a feed head")
	}
	if len(h.Extras) == 0 {
		return nil
	}
	_, err := readBitmap(h.Extras, bounds{size: maxExtraLen, min: 2, max: MaxExtra, count: MaxExtra})
	return err
}

// extras returns the decoded set; nil when there is none.
func (h *Head) extras() *roaring.Bitmap {
	if len(h.Extras) == 0 {
		return nil
	}
	b, err := readBitmap(h.Extras, bounds{size: maxExtraLen, min: 2, max: MaxExtra, count: MaxExtra})
	if err != nil {
		return nil // heads are checked when they are decoded
	}
	return b
}

// SetExtras sets the events held beyond Seq: distances to Seq, each 2 to MaxExtra.
func (h *Head) SetExtras(b *roaring.Bitmap) error {
	h.Extras = nil
	if b == nil || b.IsEmpty() {
		return nil
	}
	out, err := writeBitmap(b)
	h.Extras = out
	return err
}

// Vector is what a node has of control feeds: all of it, or what is new.
type Vector struct {
	Heads []Head `cbor:"heads"` // strictly ascending by feed id
	// Last marks the last message of a whole vector: what it and those before did
	// not name, the sender does not have.
	Last bool `cbor:"last,omitempty"`
	// Reply asks for the receiver's whole vector.
	Reply bool `cbor:"reply,omitempty"`
}

// Encode returns the canonical encoding.
func (v *Vector) Encode() ([]byte, error) { return fcp.Marshal(v) }

// DecodeVector decodes a vector strictly. It does not verify signatures.
func DecodeVector(b []byte) (*Vector, error) {
	var v Vector
	if len(b) > MaxVector {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a vector of %d bytes", len(b))
	}
	if err := fcp.Unmarshal(b, &v); err != nil {
		return nil, err
	}
	if len(v.Heads) > MaxHeads {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a vector of %d heads", len(v.Heads))
	}
	var last fcp.FeedID
	for i := range v.Heads {
		if err := v.Heads[i].check(); err != nil {
			return nil, err
		}
		id := v.Heads[i].Feed().ID()
		if i > 0 && bytes.Compare(last[:], id[:]) >= 0 {
			return nil, fcp.Errorf(fcp.CodeMalformed, "a vector out of order")
		}
		last = id
	}
	return &v, nil
}

// bounds of a bitmap from outside.
type bounds struct {
	size     int // bytes
	min, max uint32
	count    uint64
}

// readBitmap decodes a roaring bitmap from outside. Its size is checked first,
// then it is decoded, validated, and bounded, and only its one form is taken.
func readBitmap(b []byte, lim bounds) (*roaring.Bitmap, error) {
	if len(b) > lim.size {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a bitmap of %d bytes", len(b))
	}
	m := roaring.New()
	n, err := m.ReadFrom(bytes.NewReader(b))
	if err != nil || n != int64(len(b)) || m.Validate() != nil || m.IsEmpty() {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a bitmap does not decode")
	}
	if m.GetCardinality() > lim.count || m.Maximum() > lim.max || m.Minimum() < lim.min {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a bitmap of %d numbers up to %d", m.GetCardinality(), m.Maximum())
	}
	if again, err := writeBitmap(m); err != nil || !bytes.Equal(again, b) {
		return nil, fcp.Errorf(fcp.CodeNonCanonical, "a bitmap is not in its one form")
	}
	return m, nil
}

// writeBitmap returns the one form: containers as built from scratch, then runs
// where they are shorter.
func writeBitmap(b *roaring.Bitmap) ([]byte, error) {
	fresh := roaring.New()
	for first, end := range b.Ranges() {
		fresh.AddRange(uint64(first), end)
	}
	fresh.RunOptimize()
	out, err := fresh.ToBytes()
	return out, fcp.Wrap(fcp.CodeInternal, err, "encode a bitmap")
}

// DecodeBitmap decodes a roaring bitmap from outside whose numbers lie between
// first and last.
func DecodeBitmap(b []byte, first, last uint32) (*roaring.Bitmap, error) {
	return readBitmap(b, bounds{size: maxBitmap, min: first, max: last, count: maxSymbols})
}

// EncodeBitmap returns the one form that DecodeBitmap takes.
func EncodeBitmap(b *roaring.Bitmap) ([]byte, error) { return writeBitmap(b) }
