package log

import (
	"context"
	"testing"

	"fcp"
)

// TestRenew: after it own events go to a new feed, the old one is continued by
// imports, and both are so after a restart, a crash in between included.
func TestRenew(t *testing.T) {
	ctx := context.Background()
	for _, crash := range []bool{false, true} {
		disk := newDisk()
		o := sealing(small(), 4<<10)
		l, err := openOn(disk, o)
		if err != nil {
			t.Fatal(err)
		}
		was := l.Incarnation()
		var first Receipt
		for range 100 { // some of it waits to be sealed
			first = mustAppend(t, l, draft(100, 1))
		}
		old := l.Feed(first.Events[0].Feed)
		if err := l.Renew(ctx, was+1); err != nil || l.Incarnation() != was {
			t.Fatalf("renewed from another incarnation than the present one: %v", err)
		}
		if err := l.Renew(ctx, was); err != nil {
			t.Fatal(err)
		}
		now := l.Incarnation()
		if now == was || now == 0 {
			t.Fatalf("incarnation %x after %x", now, was)
		}
		l.mu.Lock()
		if l.unsealed != 0 {
			t.Errorf("%d bytes of feeds that are not sealed any more count as unsealed", l.unsealed)
		}
		l.mu.Unlock()
		if crash {
			disk = disk.CrashClone()
		}
		mustClose(t, l)
		if l, err = openOn(disk, o); err != nil {
			t.Fatal(err)
		}
		if l.Incarnation() != now {
			t.Fatalf("incarnation %x after a restart, not %x", l.Incarnation(), now)
		}
		next := mustAppend(t, l, draft(3, 2))
		if f := l.Feed(next.Events[0].Feed); f.Incarnation != now || next.Events[0].Seq != 1 {
			t.Errorf("an event went to %x as number %d", f.Incarnation, next.Events[0].Seq)
		}
		h, _ := l.Head(first.Events[0].Feed)
		if h.Own || h.Seq != 100 {
			t.Errorf("the old feed: %+v", h)
		}
		ev := fcp.Event{Feed: old, Seq: h.Seq + 1, Prev: h.Hash, Time: h.Time + 1, Content: draft(1, 3)[0].Content}
		if taken, err := l.Import(ctx, []fcp.Event{ev}, nil); err != nil || taken != 1 {
			t.Errorf("the old feed is not continued: %d, %v", taken, err)
		}
		mustClose(t, l)
		r, err := Verify(ctx, "store", VerifyOptions{FS: disk})
		if err != nil || len(r.Findings) != 0 {
			t.Errorf("verify: %v %+v", err, r.Findings)
		}
	}
}
