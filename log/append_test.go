package log

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"
)

// TestACrashWakesWritersWhoseCommitNeverEnds: Pebble may never come back once the log
// has crashed. Writers without a deadline are told of the crash at once all the same,
// whether their group waited or was taken.
func TestACrashWakesWritersWhoseCommitNeverEnds(t *testing.T) {
	l, err := openOn(newDisk(), small())
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.leading = true // by nobody, so that no group is ever answered
	taken, waiting := new(request), new(request)
	takenGroup := l.joinLocked(taken)
	l.queue, l.committing = nil, takenGroup
	waitingGroup := l.joinLocked(waiting)
	l.mu.Unlock()

	answers := make(chan error, 2)
	go func() { answers <- l.await(context.Background(), takenGroup, taken) }()
	l.crash(errors.New("the disk is gone"))
	wantCode(t, <-answers, fcp.CodeCrashed)
	wantCode(t, l.await(context.Background(), waitingGroup, waiting), fcp.CodeCrashed)
	_, err = l.Append(context.Background(), []Draft{randomDraft(rand.New(rand.NewPCG(1, 1)), fcp.ZonePrivate, 64)})
	wantCode(t, err, fcp.CodeCrashed)
	l.mu.Lock()
	l.leading, l.queue, l.committing = false, nil, nil
	l.mu.Unlock()
	if err := l.Close(); err != nil && !errors.Is(err, fcp.CodeCrashed) {
		t.Fatal(err)
	}
}

// TestWritersComeAndGo: writers that give up before their group is taken, while the disk
// is at it, or not at all, in numbers that change all the time. Nobody hangs, and what was
// acknowledged is there.
func TestWritersComeAndGo(t *testing.T) {
	disk := newDisk()
	o := sealing(small(), 32<<10)
	o.CommitTimeout = time.Millisecond // who gives up waits no longer for a disk at work
	l, err := openOn(disk, o)
	if err != nil {
		t.Fatal(err)
	}
	var slow atomic.Int64
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync && slow.Add(1)%3 == 0 {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	var mu sync.Mutex
	acked := map[uint64]Placed{}
	gaveUp := 0
	var writers sync.WaitGroup
	for i := range 3 * rowSize {
		writers.Go(func() {
			rng := rand.New(rand.NewPCG(7, uint64(i)))
			for range torture(40) {
				ctx, cancel := t.Context(), func() {}
				if rng.IntN(2) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.IntN(3000))*time.Microsecond)
				}
				rec, err := l.Append(ctx, []Draft{randomDraft(rng, fcp.ZonePrivate, 64)})
				cancel()
				mu.Lock()
				if err == nil {
					acked[rec.Events[0].Position] = rec.Events[0]
				} else if gaveUp++; !errors.Is(err, fcp.CodeTimeout) {
					t.Error(err)
				}
				mu.Unlock()
				if rng.IntN(4) == 0 {
					time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
				}
			}
		})
	}
	writers.Wait()
	disk.SetHook(nil)
	mustAppend(t, l, []Draft{randomDraft(rand.New(rand.NewPCG(1, 1)), fcp.ZonePrivate, 64)})
	mustClose(t, l)
	if l, err = openOn(disk, o); err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	t.Logf("%d acknowledged, %d gave up, %d there", len(acked), gaveUp, l.Durable())
	if len(acked) == 0 || gaveUp == 0 || l.Durable() < uint64(len(acked)) {
		t.Fatalf("%d events were acknowledged, %d are there", len(acked), l.Durable())
	}
	err = l.Scan(t.Context(), ScanOptions{From: 1, To: l.Durable(), Verify: VerifyTree}, func(events []Applied) error {
		for _, e := range events {
			if p, ok := acked[e.Position]; ok && p != e.Placed {
				t.Errorf("position %d was acknowledged as %v, it holds %v", e.Position, p, e.Placed)
			}
			delete(acked, e.Position)
		}
		return nil
	})
	if err != nil || len(acked) > 0 {
		t.Fatalf("%d acknowledged events are missing (%v)", len(acked), err)
	}
}
