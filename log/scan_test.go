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
		next := uint64(1)
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

// TestClaimedTaskIsGone: a task that the scanner took itself must not be found by
// a decoder once its memory is used for the next one.
func TestClaimedTaskIsGone(t *testing.T) {
	d := newDecoders(&scanner{}, 0)
	tasks := []*task{{first: 1, end: 2}, {first: 2, end: 3}, {first: 3, end: 4}}
	d.todo = append(d.todo, tasks...)
	if got := d.pick(1); got != tasks[1] {
		t.Fatal("a decoder takes the next task but one")
	}
	for _, i := range []int{0, 2} {
		if !d.claim(tasks[i]) {
			t.Fatalf("task %d was claimed by nobody", i)
		}
		d.recycle(tasks[i])
	}
	if got := d.pick(0); got != nil {
		t.Fatalf("a task that is not planned was found: %+v", got)
	}
}
