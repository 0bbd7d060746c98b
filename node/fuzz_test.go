package node

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/authority"
	"fcp/gossip"
)

// samples is one message of each kind.
func samples(t testing.TB) (out []any) {
	b, err := gossip.EncodeBitmap(roaring.BitmapOf(1, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	h := gossip.HeadOf(fcp.Feed{Zone: fcp.ZoneWork, Incarnation: 1, Plane: fcp.PlaneControl}, 3, fcp.Hash{1}, fcp.Hash{2})
	h.Signature = make([]byte, 64)
	ev := fcp.Event{Feed: h.Feed(), Seq: 1, Time: 5, Content: fcp.Content{Kind: fcp.KindOpaque, Body: []byte{1}}}
	return []any{
		&capabilities{Versions: []uint64{1}, Layouts: []uint64{2}, Carriers: []uint64{1}, Compress: []string{}, MaxControl: 5},
		&gossip.Vector{Heads: []gossip.Head{h}}, &gossip.Digest{Feeds: 1}, &gossip.Update{Entries: []gossip.Entry{{Segment: fcp.SegmentID{1}, Symbols: b}}},
		&gossip.WhoHas{Segments: []fcp.SegmentID{{1}}}, &gossip.Leave{},
		&swim{[]byte{1}}, &addresses{Entries: []addressEntry{{fcp.WriterID{1}, "127.0.0.1:1"}}},
		&pinReports{Entries: []pinReport{{Zone: fcp.ZoneWork, Key: "a", Number: 1, Names: 1}}},
		&want{Zone: fcp.ZoneWork, Ranges: [][2]uint64{{1, 2}}},
		&events{Head: h, First: 1, Events: [][]byte{ev.AppendTo(nil)}, Salts: make([]byte, 16)},
		&tailPart{ID: 1, Parts: 1, Data: []byte{1}}, &tailHeld{ID: 1}, &tailWanted{ID: 2, Zone: fcp.ZoneWork, Object: fcp.ObjectID{1}},
		&ask{ID: 1, What: askShare, Body: []byte{1}}, &answer{ID: 1, Body: []byte{1}},
		&checkpointProposal{[]byte{1}}, &leafWanted{Zone: fcp.ZoneWork, Seq: 1, Size: 2}, &leaf{Zone: fcp.ZoneWork, Seq: 1, Size: 2, Leaf: make([]byte, fcp.LeafSize), Path: []fcp.Hash{{1}}},
		&saltsWanted{Segments: []fcp.SegmentID{{1}}}, &salts{Salts: make([]byte, 16)},
		&possessionChallenge{ID: 1, Segment: fcp.SegmentID{2}, Symbols: []uint32{3}},
		&possessionProof{ID: 1, Symbols: []provenSymbol{{Manifest: []byte{1}, Count: 3, Symbol: make([]byte, fcp.SymbolSize), Path: []byte{}}}},
		&offer{Manifest: []byte{1}, Count: 1}, &shareQuery{Segment: fcp.SegmentID{1}}, &shareHeads{Shares: []shareHead{{[]byte{1}, 0, 1, []byte{2}}}},
		&symbolRequest{ID: 1, Count: 4, Wanted: b, Max: 3}, &symbolReply{ID: 1, Granted: 2}, &decodeStatus{ID: 1, Received: 2}, &symbolAck{ID: 1, Reason: ackComplete},
	}
}

func TestEveryMessageTravels(t *testing.T) {
	seen := map[fcp.Hash]bool{}
	for _, m := range samples(t) {
		b, err := encodeMessage(m)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		got, err := decodeMessage(b)
		if err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if again, err := encodeMessage(got); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%T comes back as something else: %v", m, err)
		}
		seen[fcp.Hash(b[:32])] = true
	}
	for _, k := range messages {
		if !seen[k.schema.Hash()] {
			t.Errorf("there is no sample of %s", k.schema)
		}
	}
}

// FuzzMessage decodes hostile control messages.
func FuzzMessage(f *testing.F) {
	for _, m := range samples(f) {
		b, err := encodeMessage(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if again, err := encodeMessage(m); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%T encodes to %x, %v", m, again, err)
		}
		switch m := m.(type) {
		case *events:
			if evs, end, err := decodeEvents(m, m.Head.Feed()); err == nil && !m.None {
				checkEnd(m, m.Head.Feed(), evs[len(evs)-1].Seq, end)
			}
		case *symbolRequest:
			m.verify()
			decodeWanted(m.Wanted, m.First, m.Count)
		}
	})
}

// FuzzCertificate parses hostile certificates.
func FuzzCertificate(f *testing.F) {
	owner, err := authority.NewOwnerKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	keys, err := authority.NewNodeKeys(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	c, err := makeCertificate(rand.Reader, now, testSigner{keys}, []byte{1, 2, 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.Certificate[0])
	f.Fuzz(func(t *testing.T, der []byte) {
		if _, err := parseCertificate(der, owner.Public(), now); err == nil {
			t.Fatal("a certificate without the owner's enrollment is taken")
		}
	})
}
