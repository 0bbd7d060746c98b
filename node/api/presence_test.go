package api

import (
	"testing"
	"time"

	"fcp"
	"fcp/node"
)

// TestWhoWasThereIsAwaited: after a loan of the store a member that was there before is
// not away before it had the time to come back, and however often the store is lent that
// time is counted once.
func TestWhoWasThereIsAwaited(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	up, gone, revoked, self := fcp.WriterID{1}, fcp.WriterID{2}, fcp.WriterID{3}, fcp.WriterID{4}
	contacts := func(there bool) []node.Contact {
		return []node.Contact{{Writer: up, Up: there}, {Writer: gone}, {Writer: revoked, Revoked: true}, {Writer: self, Self: true, Up: true}}
	}
	awaited := func(o *opening) (out []fcp.WriterID) {
		for _, c := range contacts(false) {
			if o.awaits(&c, now) > 0 {
				out = append(out, c.Writer)
			}
		}
		return out
	}
	o := &opening{since: now}
	if got := awaited(o); len(got) != 2 {
		t.Fatalf("when the daemon begins, nobody is known to be away: %v", got)
	}
	now = now.Add(behindAfter)
	if got := awaited(o); len(got) != 0 {
		t.Fatalf("%v is awaited for ever", got)
	}
	patience := o.patienceLeft(contacts(true), now)
	now = now.Add(time.Hour) // the command takes its time
	for lent := range 3 {
		o = &opening{since: now, patience: patience}
		if got := awaited(o); len(got) != 1 || got[0] != up {
			t.Fatalf("loan %d: %v is awaited", lent, got)
		}
		now = now.Add(behindAfter / 4)
		patience = o.patienceLeft(contacts(false), now)
	}
	if c := (node.Contact{Writer: up, Seen: now.Add(-time.Second)}); o.awaits(&c, now) > 0 {
		t.Fatal("one that came and went is awaited")
	}
	now = now.Add(behindAfter)
	if o = (&opening{since: now, patience: patience}); len(awaited(o)) != 1 {
		t.Fatal("the time of the loan itself counts")
	}
	if now = now.Add(behindAfter / 4); len(awaited(o)) != 0 {
		t.Fatal("its time begins anew with each loan")
	}
}
