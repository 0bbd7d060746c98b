package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"fcp/node/simnet"
)

// In virtual time work costs nothing, so this is what hostile members do to honest ones
// by the protocol alone: answers that do not come, symbols that are lies, queues that
// are full. TestSiege is about the work.
func TestSiegeInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kinds := []int{0, 1, 2, 3, 4, 6, 7} // the others need stores on disk
		m := newSimMesh(t, 3+len(kinds), 21, simnet.Link{Delay: time.Millisecond})
		defer m.close()
		s := &siege{mesh: m.mesh}
		for _, x := range s.nodes[:3] {
			s.honest = append(s.honest, x.n.self)
		}
		s.together()
		s.put(0, "big", randomBytes(400_000, 1))
		s.sealed(0)
		segment := s.nodes[0].n.ownSegments()[0]
		rem, err := s.nodes[2].n.remainder(segment)
		if err != nil {
			t.Fatal(err)
		}
		calm, next := s.rounds(150*time.Millisecond, 0, rem)
		var stop context.CancelFunc
		s.ctx, stop = context.WithCancel(context.Background())
		for i, kind := range kinds {
			s.member(3+i, kind, segment, rem)
		}
		under, _ := s.rounds(250*time.Millisecond, next, rem)
		stop()
		s.work.Wait()
		t.Logf("%.0f rounds a second before, %.0f under siege (%.0f %%)", calm, under, 100*under/calm)
		if under < 0.8*calm {
			t.Errorf("%.0f rounds a second under siege, %.0f before", under, calm)
		}
	})
}
