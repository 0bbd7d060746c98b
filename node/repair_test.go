package node

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/node/placement"
)

// repairAll lets every living node repair what falls to it until nothing is left; with
// Now one of them does everything, as it does for a person.
func (m *mesh) repairAll(o RepairOptions) (bytes uint64) {
	m.t.Helper()
	for end := time.Now().Add(patience(30 * time.Second)); ; {
		left := 0
		for i, x := range m.nodes {
			if x.n == nil {
				continue
			}
			steps, err := x.n.Repair(context.Background(), o)
			if err != nil {
				m.t.Fatalf("node %d: %v", i+1, err)
			}
			for _, s := range steps {
				m.t.Logf("node %d: segment %.8s: gathers %d, %d shares of %d, done %v %v", i+1, s.Segment, s.Gather, len(s.To), s.Share, s.Done, s.Err)
				left++
				if s.Done {
					bytes += s.Bytes
				}
			}
			if o.Now {
				break
			}
		}
		if left == 0 {
			return bytes
		}
		if time.Now().After(end) {
			m.t.Fatal("repair does not come to an end")
		}
	}
}

// lost sums what a node held, as another knows it: a whole copy as its source symbols.
func (m *mesh) lost(asSeenBy, i int) (bytes uint64) {
	n := m.nodes[asSeenBy].n
	for _, s := range n.segments(n.devices()) {
		for _, h := range s.Holdings {
			if h.Device == m.nodes[i].n.self {
				bytes += uint64(h.Count * s.SymbolSize)
			}
		}
	}
	return bytes
}

// The writer of everything is lost; the others mint symbols never used before onto a
// device that had none, and after that a second loss is borne.
func TestRepairAfterTheLossOfADevice(t *testing.T) {
	m := newMesh(t, 4, nil)
	m.together()
	bodies := map[string][]byte{}
	for i, key := range []string{"a", "b", "c"} {
		bodies[key] = randomBytes(400_000, uint64(i+1))
		m.put(0, key, bodies[key])
	}
	m.sealed(0)
	survivors := []int{1, 2, 3}
	eventually(t, 10*time.Second, "all know what node 1 holds", func() bool { return m.lost(1, 0) > 0 && m.lost(2, 0) == m.lost(1, 0) })
	lost := m.lost(1, 0)
	writer := m.nodes[0].n.self
	m.kill(0)
	// A nap: nobody moves a byte for it. That it went need not be waited for.
	for _, i := range survivors {
		if s := m.nodes[i].n.session(writer); s != nil {
			s.end(fcp.Errorf(fcp.CodeClosed, "the peer is gone"))
		}
	}
	eventually(t, 10*time.Second, "its sessions ended", func() bool {
		for _, i := range survivors {
			if m.nodes[i].n.session(writer) != nil {
				return false
			}
		}
		return true
	})
	if n := m.repairAll(RepairOptions{}); n != 0 {
		t.Fatalf("a nap moved %d bytes", n)
	}
	plan, err := m.nodes[1].n.Repair(context.Background(), RepairOptions{Now: true, DryRun: true})
	if err != nil || len(plan) == 0 {
		t.Fatalf("a plan of %d steps, %v", len(plan), err)
	}
	before := m.nodes[1].n.Summary()
	if before.BelowPolicy != 0 || before.Lost != 0 {
		t.Errorf("within its grace it counts: %+v", before)
	}
	moved := m.repairAll(RepairOptions{Now: true})
	t.Logf("lost %d bytes, moved %d: %.2f", lost, moved, float64(moved)/float64(lost))
	if moved == 0 || float64(moved) > 1.3*float64(lost) {
		t.Errorf("repair moved %d bytes for %d that were lost", moved, lost)
	}
	for _, step := range plan { // nobody got a symbol that another survivor has
		all, count := roaring.New(), 0
		for _, i := range survivors {
			for _, r := range m.nodes[i].n.sharesOf(step.Segment) {
				all.AddRange(uint64(r.First), uint64(r.End()))
				count += int(r.Count)
			}
		}
		if int(all.GetCardinality()) != count {
			t.Errorf("segment %.8s: %d symbols, %d of them different", step.Segment, count, all.GetCardinality())
		}
	}
	// One more goes, and every pair of the survivors still reads everything.
	gone := survivors[0]
	m.kill(gone)
	for _, i := range survivors[1:] {
		for key, want := range bodies {
			if got, err := m.get(i, key); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("node %d, %s: %v", i+1, key, err)
			}
		}
	}
}

// A device that the owner declared lost has no grace.
func TestRepairOfARevokedDevice(t *testing.T) {
	m := newMesh(t, 4, nil)
	m.together()
	m.put(0, "a", randomBytes(300_000, 1))
	m.sealed(0)
	// One of those that took a share.
	var holder int
	for i := 1; i < 4; i++ {
		if m.lost(0, i) > 0 {
			holder = i
		}
	}
	if holder == 0 {
		t.Fatal("nobody has a share")
	}
	lost := m.lost(0, holder)
	writer := m.nodes[holder].n.self
	m.kill(holder)
	if _, err := m.nodes[0].e.DeviceLost(context.Background(), m.owner, writer, "stolen"); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the share is made again", func() bool {
		n := m.nodes[0].n
		n.shares.wake()
		sum := n.Summary()
		return sum.Segments > 0 && sum.BelowPolicy == 0
	})
	var kept uint64
	for i, x := range m.nodes {
		if x.n != nil && i != 0 {
			kept += m.lost(0, i)
		}
	}
	if kept > 2*lost {
		t.Errorf("%d bytes of shares, %d would do", kept, 2*lost)
	}
	if l := m.nodes[0].n.WhatIf(map[fcp.WriterID]bool{m.nodes[0].n.self: true}); len(l) == 0 || !l[0].Readable || l[0].MayLose != 0 {
		t.Errorf("without the writer: %+v", l)
	}
	d := m.nodes[0].n.Durability(placement.Hazards{Device: 0.1, Domain: 0.01, Repair: time.Hour})
	if len(d.Rows) != 1 || d.Yearly <= 0 || d.Yearly > 1e-3 {
		t.Errorf("durability %+v", d)
	}
}
