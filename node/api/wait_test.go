package api

import (
	"context"
	"errors"
	"testing"
	"time"

	"fcp"
)

// TestWaitingDoesNotKeepTheStore: what may never come is waited for on both sides of a
// loan; who waits, or asks for a loan, can give up, and then nothing is left behind.
func TestWaitingDoesNotKeepTheStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	// The daemon's side: one mark when a wait has the store, one when it let it go.
	began, ended := make(chan struct{}, 64), make(chan struct{}, 64)
	wait := calls["wait"]
	calls["wait"] = func(c *callState) error {
		began <- struct{}{}
		defer func() { ended <- struct{}{} }()
		return wait(c)
	}
	t.Cleanup(func() { calls["wait"] = wait }) // after the daemon is closed
	v := serve(t, t.TempDir())
	r := v.dial(t)
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	waited := make(chan error, 1)
	go func() { waited <- r.Wait(waiting, WaitRevocation, fcp.Hash{1}) }()
	sees := func(what string, mark chan struct{}) {
		t.Helper()
		select {
		case <-mark:
		case err := <-waited:
			t.Fatalf("the wait did not %s but came to %v", what, err)
		case <-ctx.Done():
			t.Fatalf("the wait did not %s", what)
		}
	}
	sees("begin", began)
	for range 2 {
		release, err := NewClient(v.socket).Borrow(ctx, "a test")
		if err != nil {
			t.Fatal("the store is not lent:", err)
		}
		sees("let the store go", ended)
		given, giveUp := context.WithCancel(ctx)
		giveUp()
		if _, err := NewClient(v.socket).Borrow(given, "another test"); !errors.Is(err, fcp.CodeTimeout) {
			t.Error("who gave up:", err)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		sees("begin again", began)
	}
	stop()
	select {
	case err := <-waited:
		if err == nil {
			t.Error("nothing came, and the wait ended well")
		}
	case <-ctx.Done():
		t.Fatal("the wait does not end when it is given up")
	}
	select {
	case <-ended: // the daemon gave it up as well
	case <-ctx.Done():
		t.Fatal("the daemon goes on with a wait that was given up")
	}
}
