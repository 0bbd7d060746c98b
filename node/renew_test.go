package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/node/simnet"
)

// TestCheckpointsStayFresh: once the owner settled a zone's first checkpoint its members
// renew it by themselves, with whoever is there as long as that is a quorum, so that
// tokens do not go stale; without one they do.
func TestCheckpointsStayFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newSimMesh(t, 3, 21, simnet.Link{Delay: 5 * time.Millisecond})
		defer m.close()
		m.together()
		ctx := context.Background()
		e := m.nodes[0].e
		if _, err := e.Grant(ctx, m.owner, authority.GrantSpec{Zone: fcp.ZonePrivate, Principal: "user:alice", Constraints: authority.Constraints{ResourceAllow: []string{authority.AnyResource}}, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
			Rights: []authority.Right{{Capability: "store.objects", Operation: "object.get"}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := e.SettleCheckpoint(ctx, m.owner, fcp.ZonePrivate); err != nil {
			t.Fatal(err)
		}
		fresh := func(i int) bool {
			f, err := m.nodes[i].e.ZoneFacts(fcp.ZonePrivate)
			if err != nil || f.Halted != nil {
				t.Fatal(err, f.Halted)
			}
			return f.FreshFor(authority.TierCritical, time.Now()).Checkpoint
		}
		eventually(t, 10*time.Second, "the checkpoint is everywhere", func() bool { return fresh(0) && fresh(1) && fresh(2) })
		watch := func(d time.Duration, nodes ...int) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(5 * time.Second) {
				for _, i := range nodes {
					if !fresh(i) {
						t.Fatalf("node %d is stale after %v", i+1, d-time.Until(end))
					}
				}
			}
		}
		watch(8*time.Minute, 0, 1, 2)
		for i := range 6 { // they write while they agree
			m.put(i%3, "k", []byte{byte(i)})
			time.Sleep(time.Second)
		}
		watch(6*time.Minute, 0, 1, 2)
		first := m.seqOf(1)
		if first < 4 || first > 9 {
			t.Errorf("checkpoint %d after 14 minutes", first)
		}
		m.kill(2)
		watch(11*time.Minute, 0, 1)
		m.kill(1)
		time.Sleep(6 * time.Minute)
		if fresh(0) {
			t.Error("one of three renewed by itself")
		}
	})
}

func (s *simMesh) seqOf(i int) uint64 {
	s.t.Helper()
	f, err := s.nodes[i].e.ZoneFacts(fcp.ZonePrivate)
	if err != nil {
		s.t.Fatal(err)
	}
	return f.Checkpoint.Seq
}
