package gossip

import (
	"bytes"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
)

// FuzzMessages decodes hostile messages: what decodes encodes to the same bytes
// and can be taken in.
func FuzzMessages(f *testing.F) {
	h := HeadOf(fcp.Feed{Zone: fcp.ZoneWork, Incarnation: 1, Plane: fcp.PlaneControl}, 3, fcp.Hash{1}, fcp.Hash{2})
	h.Signature = make([]byte, 64)
	if err := h.SetExtras(roaring.BitmapOf(2, 3, 9)); err != nil {
		f.Fatal(err)
	}
	b, _ := writeBitmap(roaring.BitmapOf(1, 2, 3, 70000))
	for _, m := range []Message{&Vector{Heads: []Head{h}, Last: true}, &Digest{Feeds: 3}, &Update{Entries: []Entry{{fcp.SegmentID{1}, b}, {fcp.SegmentID{2}, nil}}},
		&WhoHas{[]fcp.SegmentID{{1}, {2}}}, &Leave{}} {
		enc, err := m.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(enc)
	}
	f.Add(b)
	peer := fcp.WriterID{5}
	f.Fuzz(func(t *testing.T, b []byte) {
		core := New(Options{Self: fcp.WriterID{4}})
		now := time.Unix(1, 0)
		core.Step(now, Members{Writers: []fcp.WriterID{peer}})
		core.Step(now, PeerUp{peer})
		core.Step(now, LocalHead{Head: h})
		if m, err := DecodeBitmap(b, 1, 99); err == nil {
			if again, err := EncodeBitmap(m); err != nil || !bytes.Equal(again, b) || m.Maximum() > 99 || m.Minimum() < 1 {
				t.Fatalf("a bitmap encodes to %x, %v", again, err)
			}
		}
		take := func(m Message, err error) {
			if err != nil {
				return
			}
			if again, err := m.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("encodes to %x, %v", again, err)
			}
			core.Step(now, Received{peer, m})
			core.Step(now.Add(time.Hour), Tick{})
		}
		v, err := DecodeVector(b)
		take(v, err)
		u, err := DecodeUpdate(b)
		take(u, err)
		w, err := DecodeWhoHas(b)
		take(w, err)
		d, err := DecodeDigest(b)
		take(d, err)
	})
}
