package node

import (
	"context"
	"testing"
	"time"

	"fcp/engine/symbols"
)

// TestWhoDoesNotSayWhatItHoldsIsAskedAgain: a peer that had too much to do when it was asked what it
// holds is asked again, soon and not without end.
func TestWhoDoesNotSayWhatItHoldsIsAskedAgain(t *testing.T) {
	wholePair(t, func(m *simMesh, giver, reader *Session, ref symbols.Ref) {
		rem, err := reader.node.remainder(ref.Segment)
		if err != nil || rem == nil {
			t.Fatal(err)
		}
		var busy []func()
		for range maxServing {
			done, err := giver.budget.serve()
			if err != nil {
				t.Fatal(err)
			}
			busy = append(busy, done)
		}
		free := func() {
			for _, done := range busy {
				done()
			}
			busy = nil
		}
		defer free()
		time.AfterFunc(time.Second, free)
		at := time.Now()
		if _, err := reader.node.Fetch(context.Background(), rem); err != nil || time.Since(at) > 5*time.Second {
			t.Errorf("a rebuild from a peer that was busy for a second: %v after %v", err, time.Since(at))
		}
	})
}
