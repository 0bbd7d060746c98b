package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/node/simnet"
)

// A device loses its power. The transport does not know it for many seconds; a person
// who asks for repair at once gets it nevertheless, and nobody who is there is taken
// for lost, however slow the network.
func TestRepairAsksWhoIsThere(t *testing.T) {
	for _, delay := range []time.Duration{time.Millisecond, 150 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			s := newSimMesh(t, 4, 11, simnet.Link{Delay: delay})
			defer s.close()
			s.together()
			s.put(0, "big", randomBytes(300_000, 4))
			s.sealed(0)
			survivor := s.nodes[3].n
			for s.lost(3, 0) == 0 { // its inventory travels
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(3 * time.Second)
			lost := s.lost(3, 0)
			if steps, err := survivor.Repair(context.Background(), RepairOptions{Now: true, DryRun: true}); err != nil || len(steps) != 0 {
				t.Fatalf("all are there, and %d segments are to be repaired: %v", len(steps), err)
			}
			gone := s.nodes[0].n.self
			s.kill(0)
			began := time.Now()
			steps, err := survivor.Repair(context.Background(), RepairOptions{Now: true, DryRun: true})
			if err != nil {
				t.Fatal(err)
			}
			took, sum := time.Since(began), uint64(0)
			for _, step := range steps {
				sum += step.Lost
			}
			if sum != lost || took > 5*time.Second {
				t.Errorf("%d segments of %d bytes after %v, not of %d bytes", len(steps), sum, took, lost)
			}
			for _, w := range []fcp.WriterID{s.nodes[1].n.self, s.nodes[2].n.self} {
				if survivor.session(w) == nil {
					t.Errorf("%v was taken for lost", w)
				}
			}
			if survivor.session(gone) != nil {
				t.Error("the device that went still has a session")
			}
		})
	}
}
