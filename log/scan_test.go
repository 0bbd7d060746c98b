package log

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"fcp"
)

// TestScanOfManyTasks scans a log of many times the events that are decoded
// ahead, so that every task's memory is used again and again, with callers that
// are faster and slower than the decoders.
func TestScanOfManyTasks(t *testing.T) {
	l, err := openOn(newDisk(), sealing(Options{DisableBallast: true, DiskReserve: 1, Now: startedNow}, 64<<10))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	rng := rand.New(rand.NewPCG(1, 2))
	const events, group = 80_000, 256
	drafts := make([]Draft, group)
	for range events / group {
		for i := range drafts {
			plane := fcp.PlaneData
			if rng.IntN(8) == 0 {
				plane = fcp.PlaneControl
			}
			drafts[i] = Draft{Zone: fcp.ZonePrivate, Plane: plane, Content: fcp.Content{Kind: fcp.KindOpaque, Body: make([]byte, 1+rng.IntN(20))}}
		}
		mustAppend(t, l, drafts)
	}
	if _, err := l.Seal(context.Background(), SealOptions{}); err != nil {
		t.Fatal(err)
	}
	for round := range torture(9) {
		// The end is named: sealing in the background appends its records, so what
		// is durable may grow while the scan runs.
		o := ScanOptions{To: l.Durable(), Workers: 2 + round%3, Verify: VerifyLevel(round % 3)}
		pause := round / 3 % 3
		next := uint64(1) // the race detector sees calls that are not one after the other
		err := l.Scan(context.Background(), o, func(batch []Applied) error {
			for i := range batch {
				if batch[i].Position != next {
					return fmt.Errorf("position %d where %d belongs", batch[i].Position, next)
				}
				next++
			}
			for range pause * rng.IntN(50) {
				runtime.Gosched()
			}
			return nil
		})
		if err != nil || next != o.To+1 {
			t.Fatalf("round %d, %+v: ended before %d of %d: %v", round, o, next, o.To, err)
		}
	}
}

// TestClaimedTaskIsGone: a task that is decoded where it is handed out must not be
// found by a worker once its memory is used for the next one.
func TestClaimedTaskIsGone(t *testing.T) {
	d := newDecoders(&scanner{}, 2)
	mine, other := &worker{}, &worker{}
	tasks := []*task{{first: 1, end: 2}, {first: 2, end: 3}, {first: 3, end: 4}}
	d.todo = append(d.todo, tasks...)
	d.taken, d.turn = true, mine
	if got := d.pick(other); got != tasks[1] {
		t.Fatal("a worker takes the next task but one")
	}
	for _, i := range []int{0, 2} {
		if inline, err := d.claim(tasks[i]); !inline || err != nil {
			t.Fatalf("task %d was claimed by nobody: %v", i, err)
		}
		d.recycle(tasks[i])
	}
	if got := d.pick(other); got != nil {
		t.Fatalf("a task that is not planned was found: %+v", got)
	}
}

// TestTurnFollowsTheDecoder: decoded events are handed out by who decoded them, unless
// that worker waits or much is decoded.
func TestTurnFollowsTheDecoder(t *testing.T) {
	d := newDecoders(&scanner{}, 2)
	mine, other := &worker{}, &worker{}
	d.turn = mine
	for _, c := range []struct {
		task  task
		idle  bool
		pile  int
		taken bool
	}{
		{task{by: other}, false, taskPile, false}, // not decoded yet
		{task{by: other, done: true}, false, 1, false},
		{task{by: other, done: true}, true, 1, true},
		{task{by: other, done: true}, false, taskPile, true},
		{task{by: mine, done: true}, false, 1, true},
	} {
		other.idle, d.pile, d.next = c.idle, c.pile, nil
		inline, err := d.claim(&c.task)
		switch {
		case inline:
			t.Errorf("%+v: a claimed task is decoded again", c)
		case c.taken && (err != nil || d.pile != c.pile-1):
			t.Errorf("%+v: not handed out: %v", c, err)
		case !c.taken && (err != errElsewhere || d.next != &c.task):
			t.Errorf("%+v: not left to its worker: %v", c, err)
		}
	}
}
