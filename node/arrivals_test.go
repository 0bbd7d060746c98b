package node

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
)

// TestArrivalsOutliveARestart: a revocation that was not everywhere when its issuer was
// closed has not arrived when it comes back, whether it is told of it or looks it up.
func TestArrivalsOutliveARestart(t *testing.T) {
	for name, resume := range map[string]bool{"told": true, "looked up": false} {
		t.Run(name, func(t *testing.T) {
			m := newMesh(t, 3, nil)
			m.together()
			m.leave(2)
			x := m.nodes[0]
			r, err := x.e.Revoke(context.Background(), m.owner, authority.RevocationSpec{Zone: fcp.ZoneWork, Scope: authority.RevokeCapability, Targets: []fcp.Hash{{7}}, Reason: "test"})
			if err != nil {
				t.Fatal(err)
			}
			ref := r.Ref()
			eventually(t, time.Minute, "one peer has it", func() bool {
				all := x.n.Arrivals()
				return len(all) == 1 && len(all[0].Seen) == 1
			})
			past := x.n.Arrivals()
			address := x.n.Addr().String()
			if err := errors.Join(x.n.Close(), x.e.Close()); err != nil {
				t.Fatal(err)
			}
			m.open(x)
			x.opt.Listen = address
			m.start(x)
			if resume {
				x.n.ResumeArrivals(past)
			} else if own, err := x.n.WatchRevocation(ref); err != nil || !own {
				t.Fatal("its own revocation:", own, err)
			}
			short, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			if err := x.n.WaitArrival(short, ref); !errors.Is(err, fcp.CodeTimeout) || !strings.Contains(err.Error(), "node 3") {
				t.Error("a member has not got it:", err)
			}
			m.open(m.nodes[2])
			m.nodes[2].opt.Peers = []string{address}
			m.start(m.nodes[2])
			if err := x.n.WaitArrival(within(t, time.Minute), ref); err != nil {
				t.Error(err)
			}
			if own, err := m.nodes[2].n.WatchRevocation(ref); own || err != nil {
				t.Error("another node's revocation:", own, err)
			}
			if own, err := x.n.WatchRevocation(fcp.Hash{1}); own || err != nil {
				t.Error("no revocation:", own, err)
			}
		})
	}
}
