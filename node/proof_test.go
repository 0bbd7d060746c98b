package node

import (
	"slices"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/gossip"
)

// oneSegment seals what node 1 wrote and returns the segment.
func (m *mesh) oneSegment(size int) fcp.SegmentID {
	m.t.Helper()
	m.put(0, "a", randomBytes(size, 1))
	m.sealed(0)
	ids := m.nodes[0].n.ownSegments()
	if len(ids) != 1 {
		m.t.Fatalf("%d segments", len(ids))
	}
	return ids[0]
}

// holdingOf is how many symbols one node counts another as holding.
func holdingOf(n *Node, segment fcp.SegmentID, of fcp.WriterID) int {
	for _, s := range n.segments(n.devices()) {
		for _, h := range s.Holdings {
			if s.ID == segment && h.Device == of {
				return h.Count
			}
		}
	}
	return 0
}

// A member that claims symbols which it does not have is found out by everybody: its
// claim is not counted, it is named and gets no new share, and no tail is dropped for
// it. Its honest holdings count on.
func TestAFalseClaimIsFoundOut(t *testing.T) {
	m := newMesh(t, 4, nil)
	m.together()
	segment := m.oneSegment(300_000)
	liar := -1
	for i := 1; i < 4; i++ {
		if len(m.nodes[i].n.sharesOf(segment)) == 0 {
			liar = i
		}
	}
	if liar < 0 {
		t.Fatal("everybody has a share")
	}
	l := m.nodes[liar].n
	for i, x := range m.nodes {
		if i != 0 && i != liar {
			eventually(t, 20*time.Second, "the honest claims are proven", func() bool { return x.n.holdsProven(segment, l.self) > 0 })
		}
	}
	claimed := roaring.New()
	claimed.AddRange(5000, 5400)
	l.step(gossip.LocalSymbols{Segment: segment, Symbols: claimed})
	for i, x := range m.nodes {
		if i == liar {
			continue
		}
		eventually(t, 20*time.Second, "the liar is named", func() bool {
			s := x.n.Suspects()
			return len(s) == 1 && s[0].Writer == l.self && holdingOf(x.n, segment, l.self) == 0
		})
		if x.n.Metrics().ClaimsFalse.Load() == 0 {
			t.Error("not counted")
		}
		for _, d := range x.n.devices() {
			if d.Suspect != (d.ID == l.self) {
				t.Errorf("node %d suspects %v: %v", i+1, d.ID, d.Suspect)
			}
		}
	}
	if sum := m.nodes[0].n.Summary(); sum.BelowPolicy != 0 {
		t.Errorf("honest shares count no more: %+v", sum)
	}
	// It takes its word back, and is trusted again.
	l.step(gossip.LocalSymbols{Segment: segment, Symbols: roaring.New()})
	eventually(t, 20*time.Second, "it is no suspect any more", func() bool { return len(m.nodes[0].n.Suspects()) == 0 })
}

// A tail is kept until others than its writer proved that they rebuild without it:
// what they say is not enough.
func TestATailIsNotDroppedForAClaim(t *testing.T) {
	m := newMesh(t, 3, nil)
	m.together()
	segment := m.oneSegment(200_000)
	n, writer := m.nodes[1].n, m.nodes[0].n.self
	eventually(t, 20*time.Second, "it knows the holders", func() bool { return holdingOf(n, segment, m.nodes[2].n.self) > 0 })
	k := claimKey{m.nodes[2].n.self, segment}
	eventually(t, 20*time.Second, "the other keeper proved its share", func() bool { return n.holdsProven(segment, writer) > 0 })
	n.proofs.mu.Lock()
	n.proofs.forgetLocked(k)
	n.proofs.mu.Unlock()
	if got := n.holdsProven(segment, writer); got != 0 {
		t.Errorf("%d symbols count without a proof", got)
	}
	eventually(t, 20*time.Second, "it was asked and proved it again", func() bool { return n.holdsProven(segment, writer) > 0 })
}

// What this node gave whole needs no challenge, and a claim beyond it does.
func TestWhatWasGivenCountsAsProven(t *testing.T) {
	var p proofTable
	now := time.Unix(1000, 0)
	p.init(now)
	k := claimKey{fcp.WriterID{1}, fcp.SegmentID{2}}
	ids := roaring.New()
	ids.AddRange(100, 200)
	p.gave(k.peer, k.segment, ids)
	p.told(k, ids, now)
	if !p.proven(k, 100) || len(p.queue) != 0 {
		t.Error("what was given is asked for")
	}
	more := ids.Clone()
	more.AddRange(300, 310)
	p.told(k, more, now)
	if p.proven(k, 110) || len(p.queue) != 1 {
		t.Error("more is believed")
	}
	if !p.settle(k, 110, false, now) || !p.failed(k) || !p.suspect(k.peer) || p.proven(k, 1) {
		t.Error("a claim that failed counts")
	}
	if p.settle(k, 110, false, now) || p.settle(k, 110, true, now) || p.suspect(k.peer) {
		t.Error("named twice, or for ever")
	}
	p.told(k, nil, now)
	if p.proven(k, 0) {
		t.Error("a claim taken back counts")
	}
	// A promise holds, and is not made while a drop is under way.
	p.dropping[k.segment] = true
	if p.promise(k.segment, now) {
		t.Error("promised what is being dropped")
	}
}

// The rate of challenges is bounded.
func TestChallengesAreFew(t *testing.T) {
	var p proofTable
	now := time.Unix(1000, 0)
	p.init(now)
	for i := range 1000 {
		p.want(claimKey{fcp.WriterID{1}, fcp.SegmentID{byte(i), byte(i >> 8)}})
	}
	sum := len(p.take(now))
	for range 50 {
		now = now.Add(proofEvery)
		sum += len(p.take(now))
	}
	if limit := proofBurst + proofRate*10; sum > limit || sum < limit-2 {
		t.Errorf("%d challenges in 10 s, want %d", sum, limit)
	}
}

// vanish has a node go on claiming a share whose file is gone.
func (x *member) vanish(t *testing.T, segment fcp.SegmentID) {
	t.Helper()
	x.n.shares.mu.Lock()
	held := slices.Clone(x.n.shares.held[segment])
	x.n.shares.files.Init()
	x.n.shares.mu.Unlock()
	for _, r := range held {
		if err := x.e.DropShare(r); err != nil {
			t.Fatal(err)
		}
	}
}

// A device whose disk lost a share claims it in good faith. Somebody asks, it finds out
// and takes its word back, and the share is made again.
func TestAShareThatIsGoneIsMadeAgain(t *testing.T) {
	m := newMesh(t, 3, nil)
	m.together()
	segment := m.oneSegment(300_000)
	x := m.nodes[1]
	x.vanish(t, segment)
	m.nodes[0].n.proofs.want(claimKey{x.n.self, segment})
	eventually(t, 20*time.Second, "it has its share again", func() bool {
		m.nodes[0].n.shares.wake()
		for _, r := range x.n.sharesOf(segment) {
			if _, _, err := x.e.ReadShare(r); err == nil {
				return holdingOf(m.nodes[0].n, segment, x.n.self) > 0 && len(m.nodes[0].n.Suspects()) == 0
			}
		}
		return false
	})
}

// A liar goes on claiming a share that it threw away: the share is made elsewhere,
// whatever it says, and it gets no other.
func TestALiarDoesNotHoldRepairUp(t *testing.T) {
	m := newMesh(t, 4, nil)
	m.together()
	segment := m.oneSegment(300_000)
	at := m.holders(segment)
	if len(at) != 2 {
		t.Fatalf("holders %v", at)
	}
	x := m.nodes[at[0]]
	claimed := roaring.New()
	for _, r := range x.n.sharesOf(segment) {
		claimed.AddRange(uint64(r.First), uint64(r.End()))
		x.n.shares.mu.Lock()
		x.n.shares.taking[r.FileName()] = true // it takes no offer
		x.n.shares.mu.Unlock()
	}
	n := m.nodes[0].n
	eventually(t, 10*time.Second, "its share counts", func() bool { return holdingOf(n, segment, x.n.self) > 0 })
	x.vanish(t, segment)
	eventually(t, 30*time.Second, "another has the share", func() bool {
		x.n.step(gossip.LocalSymbols{Segment: segment, Symbols: claimed}) // again and again
		n.proofs.want(claimKey{x.n.self, segment})
		n.shares.wake()
		now := m.holders(segment)
		return len(now) == 2 && now[0] != at[0] && now[1] != at[0] && n.Summary().BelowPolicy == 0
	})
	if s := n.Suspects(); len(s) != 1 || s[0].Writer != x.n.self {
		t.Errorf("suspects %v", s)
	}
}
