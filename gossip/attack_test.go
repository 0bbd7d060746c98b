package gossip

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
)

// TestTheLastNumberThereIsEnds reconciles with a writer that says it has the last
// event that can be numbered.
func TestTheLastNumberThereIsEnds(t *testing.T) {
	done := make(chan []Range, 1)
	go func() {
		extras := roaring.BitmapOf(2, 3)
		known{seq: 3}.lacks(known{seq: math.MaxUint64, extras: extras})
		done <- known{seq: 3}.lacks(known{seq: math.MaxUint64})
	}()
	select {
	case got := <-done:
		if len(got) != 1 || got[0] != (Range{4, math.MaxUint64}) {
			t.Errorf("%v", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("it does not end")
	}
	v := Vector{Heads: []Head{{Zone: fcp.ZoneWork, Seq: math.MaxUint64, Signature: make([]byte, 64)}}}
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeVector(b); !errors.Is(err, fcp.CodeMalformed) {
		t.Error("a head with the last number there is:", err)
	}
}

// TestAVectorNamesAFeedOnce repeats a head: each repetition would cost a look into
// the log.
func TestAVectorNamesAFeedOnce(t *testing.T) {
	h := Head{Zone: fcp.ZoneWork, Seq: 1, Signature: make([]byte, 64)}
	b, err := (&Vector{Heads: []Head{h, h}}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DecodeVector(b); !errors.Is(err, fcp.CodeMalformed) {
		t.Error("a feed twice in a vector:", err)
	}
}

// hostileCore is a Core with two peers that are there: an honest and a hostile one.
func hostileCore(o Options) (c *Core, honest, hostile fcp.WriterID) {
	o.Self, honest, hostile = fcp.WriterID{1}, fcp.WriterID{2}, fcp.WriterID{3}
	c = New(o)
	now := time.Unix(1_800_000_000, 0)
	c.Step(now, Members{Writers: []fcp.WriterID{o.Self, honest, hostile}})
	c.Step(now, PeerUp{honest})
	c.Step(now, PeerUp{hostile})
	return c, honest, hostile
}

// TestOneWriterDoesNotCrowdOutTheOthers has a member sign heads of many feeds of its
// own that it never delivers: a feed of another writer is asked for all the same.
func TestOneWriterDoesNotCrowdOutTheOthers(t *testing.T) {
	c, honest, hostile := hostileCore(Options{MaxFeeds: 64})
	now := time.Unix(1_800_000_000, 0)
	v := &Vector{}
	for i := range uint64(100) {
		v.Heads = append(v.Heads, Head{Zone: fcp.ZoneWork, Writer: hostile, Incarnation: i, Seq: 5})
	}
	asked := 0
	for _, e := range c.Step(now, Received{hostile, v}) {
		if _, ok := e.(Fetch); ok {
			asked++
		}
	}
	if asked == 0 || asked >= c.opt.Fetches {
		t.Errorf("%d of %d fetches are for one writer", asked, c.opt.Fetches)
	}
	for _, e := range c.Step(now, Received{honest, &Vector{Heads: []Head{{Zone: fcp.ZoneWork, Writer: honest, Seq: 1}}}}) {
		if f, ok := e.(Fetch); ok && f.Peer == honest {
			return
		}
	}
	t.Error("an honest feed is not asked for")
}

// TestAnInventoryIsBounded has a peer say that it holds sets of symbols that take
// much memory, one after the other and one in place of the other.
func TestAnInventoryIsBounded(t *testing.T) {
	c, _, hostile := hostileCore(Options{MaxHolds: 100 << 10})
	now := time.Unix(1_800_000_000, 0)
	b := roaring.New()
	for i := range uint32(20_000) {
		b.Add(i * 3)
	}
	for round := range 3 {
		for i := range 100 {
			e, err := entryOf(fcp.SegmentID{byte(i)}, b)
			if err != nil {
				t.Fatal(err)
			}
			c.Step(now, Received{hostile, &Update{Entries: []Entry{e}, First: round == 2 && i == 0}})
		}
		total := uint64(0)
		for _, x := range c.peers[hostile].holds {
			total += x.GetSizeInBytes()
		}
		if total == 0 || total > c.opt.MaxHolds || total != c.peers[hostile].held {
			t.Fatalf("%d bytes are held, counted %d, the limit is %d", total, c.peers[hostile].held, c.opt.MaxHolds)
		}
	}
}
