package log

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"fcp"
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
