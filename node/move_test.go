package node

import (
	"bytes"
	"context"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/symbols"
)

// setPlacement signs another placement for the private zone and waits until everybody
// follows it.
func (m *mesh) setPlacement(p authority.PlacementRules) {
	m.t.Helper()
	if _, err := m.nodes[0].e.SetPolicy(context.Background(), m.owner, fcp.ZonePrivate, authority.PolicyRules{Placement: &p}); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, 20*time.Second, "the placement is everywhere", func() bool {
		for _, x := range m.nodes {
			if q := x.n.zonePolicy(fcp.ZonePrivate); q.Spread != (symbols.Policy{Need: int(p.Need), Of: int(p.Of)}) || len(q.Excluded) != len(p.Excluded) {
				return false
			}
		}
		return true
	})
}

// move lets everybody move and drop until nothing changes, and looks after each step
// whether everything still bears what it must.
func (m *mesh) move(mayLose int) (dropped int) {
	m.t.Helper()
	eventually(m.t, 20*time.Second, "all know who holds what", func() bool {
		for _, x := range m.nodes {
			if x.n.Summary().MayLose < mayLose {
				return false
			}
		}
		return true
	})
	eventually(m.t, 40*time.Second, "nothing is to be moved any more", func() bool {
		done := true
		for i, x := range m.nodes {
			steps, err := x.n.Move(context.Background(), RepairOptions{})
			if err != nil {
				m.t.Fatalf("node %d: %v", i+1, err)
			}
			done = done && len(steps) == 0
			for _, s := range steps {
				dropped += len(s.Dropped)
				if s.Err != nil {
					m.t.Logf("node %d: %v", i+1, s.Err)
				}
			}
			if sum := x.n.Summary(); sum.MayLose < mayLose {
				m.t.Fatalf("node %d: after a step %d devices may be lost: %+v", i+1, sum.MayLose, sum)
			}
			done = done && x.n.Summary().BelowPolicy == 0
		}
		return done
	})
	return dropped
}

// sharesAt counts the shares of a segment that each node has on disk.
func (m *mesh) sharesAt(segment fcp.SegmentID) (out []int) {
	for _, x := range m.nodes {
		x.n.shares.mu.Lock()
		out = append(out, len(x.n.shares.held[segment]))
		x.n.shares.mu.Unlock()
	}
	return out
}

// holders are the nodes that have a share on disk.
func (m *mesh) holders(segment fcp.SegmentID) (out []int) {
	for i, n := range m.sharesAt(segment) {
		if n > 0 {
			out = append(out, i)
		}
	}
	return out
}

// The owner excludes a device that holds a share: the share is made elsewhere, and only
// then is it dropped. At no time fewer devices may be lost than the policy says.
func TestSharesFollowThePlacement(t *testing.T) {
	m := newMesh(t, 4, nil)
	m.together()
	body := randomBytes(300_000, 1)
	m.put(0, "a", body)
	m.sealed(0)
	segment := m.nodes[0].n.ownSegments()[0]
	at := m.holders(segment)
	if len(at) != 2 {
		t.Fatalf("holders %v", at)
	}
	out := at[0]
	m.setPlacement(authority.PlacementRules{Need: 2, Of: 3, Excluded: []string{authority.SelectDevice + m.nodes[out].n.self.String()}})
	if dropped := m.move(1); dropped != 1 {
		t.Errorf("%d shares were dropped", dropped)
	}
	if at = m.holders(segment); len(at) != 2 || at[0] == out || at[1] == out {
		t.Fatalf("holders %v, node %d is excluded", at, out+1)
	}
	if got := m.nodes[out].n.Metrics().SharesDropped.Load(); got != 1 {
		t.Errorf("%d drops counted", got)
	}
	eventually(t, 10*time.Second, "the others know", func() bool { return holdingOf(m.nodes[0].n, segment, m.nodes[out].n.self) == 0 })
	writer := m.nodes[0].n.self
	m.kill(0)
	if s := m.nodes[out].n.session(writer); s != nil { // that it went need not be waited for
		s.end(fcp.Errorf(fcp.CodeClosed, "the peer is gone"))
	}
	if got, err := m.get(out, "a"); err != nil || !bytes.Equal(got, body) {
		t.Fatalf("without the writer: %v", err)
	}
}

// A policy that asks for more of each device adds to its share: what is there stays,
// and only the rest moves.
func TestAPolicyThatAsksForMoreAddsToShares(t *testing.T) {
	m := newMesh(t, 3, nil)
	m.together()
	m.setPlacement(authority.PlacementRules{Need: 2, Of: 3})
	m.put(0, "a", randomBytes(300_000, 1))
	m.sealed(0)
	segment := m.nodes[0].n.ownSegments()[0]
	before := holdingOf(m.nodes[1].n, segment, m.nodes[1].n.self)
	sent := func() (sum uint64) {
		for _, x := range m.nodes {
			sum += x.n.Metrics().SymbolsSent.Load()
		}
		return sum
	}
	was := sent()
	m.setPlacement(authority.PlacementRules{Need: 1, Of: 3})
	all := symbols.Ref{Size: m.nodes[0].n.sizeOf(segment)}.K() + symbols.Spare
	m.move(1)
	eventually(t, 20*time.Second, "the shares grew", func() bool {
		return holdingOf(m.nodes[1].n, segment, m.nodes[1].n.self) == all && holdingOf(m.nodes[2].n, segment, m.nodes[2].n.self) == all
	})
	if moved := sent() - was; before == 0 || moved > uint64(2*(all-before))+16 {
		t.Errorf("%d symbols moved, %d were there of %d", moved, before, all)
	}
}

// A share stays while those that would make it needless do not prove and promise.
func TestNothingIsDroppedOnAWord(t *testing.T) {
	m := newMesh(t, 4, nil)
	m.together()
	m.put(0, "a", randomBytes(300_000, 1))
	m.sealed(0)
	segment := m.nodes[0].n.ownSegments()[0]
	at := m.holders(segment)
	if len(at) != 2 {
		t.Fatalf("holders %v", at)
	}
	x, y := m.nodes[at[0]].n, m.nodes[at[1]].n
	eventually(t, 10*time.Second, "they know each other's", func() bool {
		return holdingOf(x, segment, y.self) > 0 && holdingOf(x, segment, m.nodes[0].n.self) > 0
	})
	for i := range 2 {
		// First the other is about to drop its own, and promises nothing.
		y.proofs.mu.Lock()
		y.proofs.dropping[segment] = i == 0
		y.proofs.mu.Unlock()
		for _, s := range x.segments(x.devices()) {
			kept, err := x.demand(context.Background(), &s)
			if err != nil || kept[y.self] != (i == 1) || !kept[m.nodes[0].n.self] {
				t.Fatalf("round %d: kept %v, %v", i, kept, err)
			}
		}
	}
	// It promised now, so it does not drop its own itself.
	for _, s := range y.segments(y.devices()) {
		if ok, err := y.dropShare(context.Background(), &s, y.ownShares(&s, y.devices())); ok || err != nil {
			t.Fatalf("dropped what it promised to keep: %v", err)
		}
	}
}

// With a low mark single losses wait, and are mended together once too few are left.
func TestLowMark(t *testing.T) {
	m := newMesh(t, 5, nil)
	m.together()
	m.setPlacement(authority.PlacementRules{Need: 1, Of: 4, LowMark: 3})
	m.put(0, "a", randomBytes(200_000, 1))
	m.sealed(0)
	segment := m.nodes[0].n.ownSegments()[0]
	at := m.holders(segment)
	if len(at) != 3 {
		t.Fatalf("holders %v", at)
	}
	n := m.nodes[0].n
	eventually(t, 20*time.Second, "it knows that all is placed", func() bool {
		n.shares.wake()
		return n.repairs.placedOnce(segment)
	})
	lose := func(i int) {
		w := m.nodes[i].n.self
		m.kill(i)
		if _, err := m.nodes[0].e.DeviceLost(context.Background(), m.owner, w, "stolen"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 20*time.Second, "it is lost", func() bool {
			for _, d := range n.devices() {
				if d.ID == w {
					return d.Lost && !d.Online
				}
			}
			return false
		})
	}
	lose(at[0])
	for range 3 {
		if missing, err := n.place(); err != nil || missing {
			t.Fatalf("a single loss is mended at once: %v", err)
		}
	}
	lose(at[1])
	eventually(t, 20*time.Second, "two losses are mended", func() bool {
		n.shares.wake()
		return len(m.living(segment)) >= 2
	})
}

// living are the nodes that run and have a share on disk.
func (m *mesh) living(segment fcp.SegmentID) (out []int) {
	for i, x := range m.nodes {
		if x.n == nil {
			continue
		}
		x.n.shares.mu.Lock()
		if len(x.n.shares.held[segment]) > 0 {
			out = append(out, i)
		}
		x.n.shares.mu.Unlock()
	}
	return out
}

// Repair and moves keep to their rate.
func TestPace(t *testing.T) {
	p := pace{rate: 1 << 20}
	at := time.Unix(1000, 0)
	if p.reserve(at, 4<<20, false) != 0 || p.reserve(at, 1<<20, false) != 4*time.Second || p.reserve(at, 1<<20, true) != 5*time.Second {
		t.Error("the rate is not kept")
	}
	if p.reserve(at.Add(5*time.Second), 1, true) != 0 {
		t.Error("what was not let through was counted")
	}
	if p.reserve(at.Add(-24*time.Hour), 1, true) != 0 {
		t.Error("a clock that went back stops everything")
	}
}
