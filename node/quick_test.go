package node

import (
	"testing"
	"time"
)

func TestAnswerTimes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	var a answerTime
	if a.expect(now) != 0 {
		t.Error("something is known of a peer that was never asked")
	}
	a.saw(now, 8*time.Millisecond)
	if got := a.expect(now); got != 8*time.Millisecond {
		t.Error("after one answer:", got)
	}
	a.saw(now, 4*time.Millisecond)
	if got := a.expect(now); got != 7*time.Millisecond {
		t.Error("after two:", got)
	}
	a.waited(now, 5*time.Millisecond)
	if got := a.expect(now); got != 7*time.Millisecond {
		t.Error("waiting made it quicker:", got)
	}
	a.waited(now, 90*time.Millisecond)
	if got := a.expect(now.Add(answerLife - 1)); got != 90*time.Millisecond {
		t.Error("who was waited for:", got)
	}
	if got := a.expect(now.Add(answerLife)); got != 0 {
		t.Error("long ago:", got)
	}
}

// A slow peer is asked only for what the quickest would take longer for, and is never
// late before lateLeast.
func TestWhoIsWorthAsking(t *testing.T) {
	const ms = time.Millisecond
	for _, x := range []struct {
		d, quick time.Duration
		need     int
		asked    bool
	}{
		{0, ms, 1, true},        // not known yet
		{ms, ms, 1, true},       // the quickest itself
		{50 * ms, 0, 1, true},   // nobody is known to be quick
		{2 * ms, ms, 56, false}, // one block, and the other has it in one
		{2 * ms, ms, 4096, true},
		{50 * ms, ms, 4096, false},
		{36 * ms, ms, 4096, true},
	} {
		if got := worthAsking(x.d, x.quick, x.need); got != x.asked {
			t.Errorf("%v beside %v for %d symbols: %v", x.d, x.quick, x.need, got)
		}
	}
	if slower(lateLeast, ms) || !slower(lateLeast+1, ms) || slower(time.Hour, 0) || slower(40*ms, 10*ms) || !slower(41*ms, 10*ms) {
		t.Error("late too early, or too late")
	}
}
