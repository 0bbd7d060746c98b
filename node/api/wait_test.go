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
	v := serve(t, t.TempDir())
	r := v.dial(t)
	waiting, stop := context.WithCancel(ctx)
	waited := make(chan error, 1)
	go func() { waited <- r.Wait(waiting, WaitRevocation, fcp.Hash{1}) }()
	begins := func() {
		t.Helper()
		for {
			select {
			case name := <-v.called:
				if name == "wait" {
					return
				}
			case <-ctx.Done():
				t.Fatal("the wait did not begin")
			}
		}
	}
	begins()
	for range 2 {
		release, err := NewClient(v.socket).Borrow(ctx, "a test")
		if err != nil {
			t.Fatal("the store is not lent:", err)
		}
		given, giveUp := context.WithCancel(ctx)
		giveUp()
		if _, err := NewClient(v.socket).Borrow(given, "another test"); !errors.Is(err, fcp.CodeTimeout) {
			t.Error("who gave up:", err)
		}
		if err := release(); err != nil {
			t.Fatal(err)
		}
		begins() // again
	}
	select {
	case err := <-waited:
		t.Fatal("nothing came:", err)
	default:
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
	v.cur.users.Wait() // the daemon gave it up as well
}
