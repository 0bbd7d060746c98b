package enginetest

import (
	"fmt"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/authority/crdt"
	"fcp/engine"
)

func (n *Node) define(model authority.StateModel, kind crdt.Kind) *engine.StateRoot {
	n.m.T.Helper()
	r, err := n.DefineState(ctx, authority.StateRootSpec{Zone: zone, Connector: "mail:imap", Model: model, CRDT: kind})
	n.m.check(err)
	return r
}

func (n *Node) head(r *engine.StateRoot) (*engine.StateVersion, string) {
	n.m.T.Helper()
	v, err := n.HeadState(r)
	n.m.check(err)
	if v == nil {
		return nil, ""
	}
	b, err := n.OpenState(r, &v.State)
	n.m.check(err)
	return v, string(b)
}

// TestOneWriterAtATime: states chain under leases, a stale writer is refused at its
// own node and wherever what it wrote arrives, in any order.
func TestOneWriterAtATime(t *testing.T) {
	m := New(t, 31, 3)
	m.agree(zone, 0)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	r := a.define(authority.StateSingleton, "")
	m.Sync(zone)
	_, err := a.WriteState(ctx, r, []byte("no lease"), fcp.ObjectID{})
	wantCode(t, "without a lease", err, fcp.CodeNotFound)
	_, err = a.acquire(r.Thing(), time.Minute)
	m.check(err)
	one, err := a.WriteState(ctx, r, []byte("one"), fcp.ObjectID{})
	m.check(err)
	two, err := a.WriteState(ctx, r, []byte("two"), fcp.ObjectID{})
	m.check(err)
	if two.Prev != one.ID || two.Seq != 2 || two.Fence != one.Fence {
		t.Fatalf("%+v behind %+v", two, one)
	}
	_, err = a.WriteState(ctx, r, []byte("x"), one.ID)
	wantCode(t, "behind a state that is not the head", err, fcp.CodeConflict)
	m.Sync(zone)
	if _, s := c.head(r); s != "two" {
		t.Fatal(s)
	}
	_, err = b.WriteState(ctx, r, []byte("x"), fcp.ObjectID{})
	wantCode(t, "another's lease", err, fcp.CodeLeaseHeld)

	// a falls asleep; b takes over and writes; a wakes up and writes on, while the
	// clock at a is behind.
	a.SetSkew(-10 * time.Minute)
	m.Clock.Advance(4 * time.Minute)
	if _, err := b.acquire(r.Thing(), time.Minute, a); err != nil {
		t.Fatal(err)
	}
	three, err := b.WriteState(ctx, r, []byte("three"), fcp.ObjectID{})
	m.check(err)
	stale, err := a.WriteState(ctx, r, []byte("stale"), fcp.ObjectID{})
	m.check(err) // its clock says that it still has the lease, and it knows of no other
	if stale.Seq != three.Seq || stale.Fence >= three.Fence {
		t.Fatal(stale.Seq, stale.Fence)
	}
	a.SetSkew(0)
	c.Pull(a, zone)
	if _, s := c.head(r); s != "stale" {
		t.Fatal("c cannot know better yet:", s)
	}
	m.Sync(zone)
	sameRoots(t, m, zone)
	for _, n := range m.Nodes {
		if v, s := n.head(r); s != "three" || v.Holder != b.writer() {
			t.Fatal(n.Name, s)
		}
		var on, off []uint64
		m.check(n.EachState(r, func(v *engine.StateVersion, onChain bool) error {
			if onChain {
				on = append(on, v.Seq)
			} else {
				off = append(off, v.Seq)
			}
			return nil
		}))
		if fmt.Sprint(on, off) != "[3 2 1] [3]" {
			t.Fatal(on, off)
		}
	}
	_, err = a.WriteState(ctx, r, []byte("again"), fcp.ObjectID{})
	wantCode(t, "now it knows", err, fcp.CodeLeaseHeld)
	b.Crash()
	if _, err := b.WriteState(ctx, r, []byte("four"), fcp.ObjectID{}); err != nil {
		t.Fatal("a lease outlives a restart:", err)
	}
	_, err = b.DefineState(ctx, authority.StateRootSpec{Zone: zone, Connector: "mail:imap", Model: authority.StateStateless})
	wantCode(t, "a second state", err, fcp.CodeConflict)
}

// TestAForkOfStatesNeedsANewerLease: a copied disk writes two states under one fence.
func TestAForkOfStatesNeedsANewerLease(t *testing.T) {
	m := New(t, 32, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	r := a.define(authority.StateSingleton, "")
	_, err := a.acquire(r.Thing(), time.Hour)
	m.check(err)
	first, err := a.WriteState(ctx, r, []byte("first"), fcp.ObjectID{})
	m.check(err)
	twin := a.Clone()
	left, err := a.WriteState(ctx, r, []byte("left"), fcp.ObjectID{})
	m.check(err)
	m.Clock.Advance(time.Second)
	_, err = twin.WriteState(ctx, r, []byte("right"), fcp.ObjectID{})
	m.check(err)
	// Both bodies reach b: the twin's as an event of b's own feed, as somebody who
	// carries it would append it.
	m.Sync(zone)
	var other []byte
	m.check(twin.EachState(r, func(v *engine.StateVersion, _ bool) error {
		if v.Seq == 2 {
			f := twin.Feeds(zone, fcp.PlaneControl)
			for _, ev := range f[len(f)-1].Events {
				if ev.Content.Kind == fcp.KindStateWritten {
					other = ev.Content.Body
				}
			}
		}
		return nil
	}))
	if _, err := b.AppendSigned(ctx, zone, fcp.KindStateWritten, other); err != nil {
		t.Fatal(err)
	}
	m.Sync(zone)
	_, err = b.HeadState(r)
	wantReason(t, "two of one number", err, authority.ReasonStateFork)
	_, err = a.WriteState(ctx, r, []byte("x"), left.ID)
	wantReason(t, "under the same fence", err, authority.ReasonStateStale)
	_, err = a.acquire(r.Thing(), time.Hour)
	m.check(err)
	_, err = a.WriteState(ctx, r, []byte("x"), fcp.ObjectID{})
	wantReason(t, "without a choice", err, authority.ReasonStateFork)
	_, err = a.WriteState(ctx, r, []byte("x"), first.ID)
	wantCode(t, "neither of the two", err, fcp.CodeConflict)
	_, err = a.WriteState(ctx, r, []byte("settled"), left.ID)
	m.check(err)
	m.Sync(zone)
	if v, s := b.head(r); s != "settled" || v.Prev != left.ID {
		t.Fatal(s)
	}
}

// TestCRDTStatesConverge: three devices change apart, hear of each other in different
// orders, and have one state, with snapshots and without.
func TestCRDTStatesConverge(t *testing.T) {
	m := New(t, 33, 3)
	r := m.Nodes[0].define(authority.StateCRDT, crdt.KindORSet)
	m.Sync(zone)
	add := func(n *Node, e string) {
		t.Helper()
		_, err := n.ChangeState(ctx, r, func(s crdt.State, self fcp.WriterID, _ fcp.Time) (crdt.State, error) {
			return s.(*crdt.ORSet).Add([]byte(e), self)
		})
		m.check(err)
	}
	remove := func(n *Node, e string) {
		t.Helper()
		_, err := n.ChangeState(ctx, r, func(s crdt.State, _ fcp.WriterID, _ fcp.Time) (crdt.State, error) {
			return s.(*crdt.ORSet).Remove([]byte(e))
		})
		m.check(err)
	}
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	add(a, "x")
	add(a, "y")
	m.Sync(zone)
	remove(b, "x")
	add(c, "x") // not seen by b
	remove(b, "y")
	snap, err := a.SnapshotState(ctx, r)
	m.check(err)
	if snap.Since != 0 || len(snap.Actors) != 1 {
		t.Fatalf("%+v", snap)
	}
	add(a, "z")
	c.Pull(b, zone)
	m.Sync(zone)
	sameRoots(t, m, zone)
	_, err = c.SnapshotState(ctx, r)
	m.check(err)
	m.Sync(zone)
	b.Reopen()
	for _, n := range m.Nodes {
		s, err := n.ReadCRDT(r)
		m.check(err)
		if got := fmt.Sprintf("%s", s.State.(*crdt.ORSet).Elements()); got != "[x z]" || s.Since != 0 {
			t.Fatal(n.Name, got, s.Since)
		}
		m.check(n.VerifyCRDT(r))
	}
	_, err = a.WriteState(ctx, r, []byte("x"), fcp.ObjectID{})
	wantCode(t, "another model", err, fcp.CodeInvalidArgument)
}
