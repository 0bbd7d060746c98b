package node

import (
	"testing"

	"fcp"
	"fcp/gossip"
)

// TestAPushIsFoundForItsHeadAlone: what was read for one push is sent for another only
// when feed, range and head are the same, and the oldest of many is gone.
func TestAPushIsFoundForItsHeadAlone(t *testing.T) {
	var pushes pushTable
	head := gossip.Head{Seq: 9, Root: fcp.Hash{1}, Extras: []byte{1}}
	pushes.keep(pushed{no: 3, first: 8, head: head, events: 2, p: urgent, bytes: []byte("x")})
	if x, ok := pushes.find(3, 8, &head); !ok || string(x.bytes) != "x" || x.events != 2 || x.p != urgent {
		t.Errorf("not found: %+v", x)
	}
	longer, other, more := head, head, head
	longer.Seq, other.Root, more.Extras = 10, fcp.Hash{2}, nil
	for i, h := range []gossip.Head{longer, other, more} {
		if _, ok := pushes.find(3, 8, &h); ok {
			t.Errorf("another head, %d, is taken for it", i)
		}
	}
	if _, ok := pushes.find(4, 8, &head); ok {
		t.Error("another feed is taken for it")
	}
	if _, ok := pushes.find(3, 7, &head); ok {
		t.Error("another range is taken for it")
	}
	for i := range len(pushes.kept) {
		h := head
		h.Seq += uint64(1 + i)
		pushes.keep(pushed{no: 3, first: h.Seq, head: h, bytes: []byte("y")})
	}
	if _, ok := pushes.find(3, 8, &head); ok {
		t.Error("the oldest is still there")
	}
}
