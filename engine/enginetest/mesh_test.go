package enginetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

const zone = fcp.ZonePrivate

var ctx = context.Background()

func put(t testing.TB, n *Node, key, body string) {
	t.Helper()
	if _, err := n.Put(ctx, engine.PutRequest{Key: key, Bytes: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

func get(n *Node, key string) string {
	r, err := n.Get(ctx, engine.GetRequest{Key: key})
	if err != nil {
		return fcp.CodeOf(err).String()
	}
	defer r.Close()
	b := make([]byte, r.Info().Size)
	if _, err := r.Read(b); err != nil {
		return err.Error()
	}
	return string(b)
}

func facts(t testing.TB, n *Node, z fcp.ZoneID) *engine.ZoneFacts {
	t.Helper()
	f, err := n.ZoneFacts(z)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func wantReason(t testing.TB, what string, err error, reason fcp.Reason) {
	t.Helper()
	if got := authority.ReasonOf(err); got != reason || reason == "" && err != nil {
		t.Fatalf("%s: %v, want %q", what, err, reason)
	}
}

func sameRoots(t testing.TB, m *Mesh, z fcp.ZoneID) {
	t.Helper()
	for _, n := range m.Nodes[1:] {
		if n.Root(z) != m.Nodes[0].Root(z) {
			t.Fatalf("%s and %s have different roots of %s", m.Nodes[0].Name, n.Name, z)
		}
	}
}

// TestACheckpointNeedsTheQuorumOfTheOneBefore lets three nodes agree.
func TestACheckpointNeedsTheQuorumOfTheOneBefore(t *testing.T) {
	m := New(t, 1, 3)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	one, err := a.ProposeCheckpoint(zone)
	m.check(err)
	if _, err := a.AppendCheckpoint(ctx, one); err != nil { // genesis names node 0 alone
		t.Fatal(err)
	}
	m.Sync(zone)
	if f := facts(t, b, zone); f.Checkpoint.Seq != 1 || f.Checkpoint.Ref != one.Ref() || len(f.Checkpoint.Members()) != 3 {
		t.Fatalf("%+v", f.Checkpoint)
	}
	two, err := b.ProposeCheckpoint(zone)
	m.check(err)
	_, err = b.AppendCheckpoint(ctx, two)
	wantReason(t, "one of three", err, authority.ReasonCheckpointQuorum)
	two, err = c.CosignCheckpoint(two)
	m.check(err)
	if _, err := b.AppendCheckpoint(ctx, two); err != nil {
		t.Fatal(err)
	}
	_, err = b.AppendCheckpoint(ctx, two)
	wantReason(t, "again", err, authority.ReasonCheckpointRollback)
	m.Sync(zone)
	sameRoots(t, m, zone)
	f := facts(t, a, zone)
	if f.Checkpoint.Seq != 2 || f.Halted != nil {
		t.Fatalf("%+v %v", f.Checkpoint.Seq, f.Halted)
	}
	// A node that knows more does not sign what says less.
	put(t, a, "k", "v")
	three, err := b.ProposeCheckpoint(zone)
	m.check(err)
	_, err = a.CosignCheckpoint(three)
	wantReason(t, "another frontier", err, authority.ReasonCheckpointUnsignable)
	// Nor does a node sign two of one number, also not after a restart.
	if _, err := c.CosignCheckpoint(three); err != nil {
		t.Fatal(err)
	}
	c.Reopen()
	m.Clock.Advance(time.Minute)
	_, err = c.ProposeCheckpoint(zone)
	wantReason(t, "signs a second one", err, authority.ReasonCheckpointForked)
}

// TestFreshnessFollowsTheCheckpoint: a node that hears nothing refuses what is
// dangerous and goes on with what is safe if the policy says so.
func TestFreshnessFollowsTheCheckpoint(t *testing.T) {
	m := New(t, 2, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	now := m.Clock.Now()
	if f := facts(t, a, zone).FreshFor(authority.TierCritical, now); !f.Checkpoint || !f.Revocations.Allowed {
		t.Error("a zone with one member is always fresh", f)
	}
	one, err := a.ProposeCheckpoint(zone)
	m.check(err)
	_, err = a.AppendCheckpoint(ctx, one)
	m.check(err)
	if _, err := a.SetPolicy(ctx, m.Owner, zone, authority.PolicyRules{DegradedMode: true}); err != nil {
		t.Fatal(err)
	}
	m.Sync(zone)
	for _, c := range []struct {
		tier     authority.Tier
		after    time.Duration
		fresh    bool
		degraded bool
	}{
		{authority.TierCritical, time.Minute, true, false},
		{authority.TierSafe, time.Minute, true, false},
		{authority.TierCritical, time.Hour, false, false},
		{authority.TierRisky, time.Hour, false, false},
		{authority.TierSafe, time.Hour, true, true},
	} {
		if got := facts(t, b, zone).FreshFor(c.tier, one.Spec().At.Add(c.after)); got.Checkpoint != c.fresh || got.Degraded != c.degraded {
			t.Errorf("%s after %s: %+v", c.tier, c.after, got)
		}
	}
	// The next checkpoint counts a revocation that b does not have.
	if _, err := a.Revoke(ctx, m.Owner, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeToken, Targets: []fcp.Hash{{1}}}); err != nil {
		t.Fatal(err)
	}
	if f := facts(t, a, zone); f.Revoked(fcp.Hash{1}, m.Clock.Now()) == nil || f.Revoked(fcp.Hash{2}, m.Clock.Now()) != nil {
		t.Error("revoked")
	}
}

// TestPolicyGoesByTheOwnersNumber: rollback, and a fork made by two devices that
// did not see each other.
func TestPolicyGoesByTheOwnersNumber(t *testing.T) {
	m := New(t, 3, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	deny := authority.PolicyRules{Connectors: authority.Lists{Deny: authority.Patterns{"shell:*"}}}
	_, err := a.SetPolicy(ctx, m.Owner, zone, deny)
	m.check(err)
	_, err = a.SetPolicy(ctx, m.Owner, zone, authority.PolicyRules{})
	m.check(err)
	_, err = a.RollbackPolicy(ctx, m.Owner, zone, 1)
	m.check(err)
	m.Sync(zone)
	r := facts(t, b, zone).Rules()
	if p := facts(t, b, zone).Policy; p.Number() != 3 || !r.Connectors.Denied("shell:x") {
		t.Fatalf("policy %d", p.Number())
	}
	_, err = a.SetPolicy(ctx, m.Owner, zone, authority.PolicyRules{MaxAge: time.Minute})
	m.check(err)
	_, err = b.SetPolicy(ctx, m.Owner, zone, authority.PolicyRules{MaxAge: time.Hour})
	m.check(err)
	m.Sync(zone)
	sameRoots(t, m, zone)
	for _, n := range m.Nodes {
		f := facts(t, n, zone)
		wantReason(t, "two policies number 4", f.Halted, authority.ReasonVersionForked)
		_, _, err := f.Facts("user:alice", authority.TierSafe, m.Clock.Now())
		wantReason(t, "facts of a halted zone", err, authority.ReasonVersionForked)
	}
	_, err = b.SetPolicy(ctx, m.Owner, zone, deny)
	m.check(err)
	m.Sync(zone)
	if f := facts(t, a, zone); f.Halted != nil || f.Policy.Number() != 5 {
		t.Fatal(f.Halted)
	}
}

// TestALostDeviceIsOut: its honest past stays, what it writes after is void, it gets
// no new key, and it has no say in checkpoints.
func TestALostDeviceIsOut(t *testing.T) {
	m := New(t, 4, 3)
	a, b, lost := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	put(t, lost, "honest", "past")
	m.Sync()
	one, err := a.ProposeCheckpoint(zone)
	m.check(err)
	_, err = a.AppendCheckpoint(ctx, one)
	m.check(err)
	r, err := a.DeviceLost(ctx, m.Owner, lost.Node().Writer(), "left on a train")
	m.check(err)
	if r.Name != lost.Name || len(r.Zones) != 5 || len(r.Revoked) != 5 || r.Feeds == 0 {
		t.Fatalf("%+v", r)
	}
	put(t, lost, "stolen", "thief")
	b.Pull(a, fcp.ZoneOwner)
	for _, z := range a.Zones() {
		b.Pull(a, z)
		b.Pull(lost, z)
		a.Pull(lost, z)
		lost.Pull(a, z)
	}
	m.Sync()
	for _, n := range []*Node{a, b} {
		if got := get(n, "honest"); got != "past" {
			t.Errorf("%s reads %q", n.Name, got)
		}
		if got := get(n, "stolen"); got != fcp.CodeNotFound.String() {
			t.Errorf("%s reads %q", n.Name, got)
		}
	}
	sameRoots(t, m, zone)
	put(t, b, "secret", "after the loss")
	m.Sync()
	if got := get(a, "secret"); got != "after the loss" {
		t.Errorf("a reads %q", got)
	}
	if got := get(lost, "secret"); got == "after the loss" {
		t.Error("the lost device reads what was written after its loss")
	}
	f := facts(t, b, zone)
	if f.Revoked(fcp.Hash(lost.Node().Writer()), m.Clock.Now()) == nil {
		t.Error("not revoked")
	}
	if _, err := a.Enroll(ctx, engine.EnrollOptions{Owner: m.Owner, Node: lost.Node(), Name: "back"}); !errors.Is(err, fcp.CodeVoided) {
		t.Errorf("enrolled again: %v", err)
	}
	members, err := a.Members()
	m.check(err)
	for _, x := range members {
		if x.Revoked != (x.Writer == lost.Node().Writer()) {
			t.Errorf("%s: %v", x.Name, x.Revoked)
		}
	}
	two, err := a.ProposeCheckpoint(zone)
	m.check(err)
	two, err = lost.CosignCheckpoint(two)
	if err == nil {
		_, err = a.AppendCheckpoint(ctx, two)
		wantReason(t, "the lost device signs", err, authority.ReasonCheckpointMember)
	}
	two, err = a.ProposeCheckpoint(zone) // the same second, the same words: the same checkpoint
	m.check(err)
	two, err = b.CosignCheckpoint(two)
	m.check(err)
	_, err = b.AppendCheckpoint(ctx, two)
	m.check(err)
	m.Sync()
	m.Clock.Advance(time.Second)
	three, err := a.ProposeCheckpoint(zone)
	m.check(err)
	m.Clock.Advance(time.Second)
	_, err = a.ProposeCheckpoint(zone)
	wantReason(t, "another proposal", err, authority.ReasonCheckpointForked)
	settled, err := a.SettleCheckpoint(ctx, m.Owner, zone) // the owner's word stands in
	m.check(err)
	m.Sync()
	if f := facts(t, b, zone); f.Checkpoint.Ref != settled.Ref() || settled.Ref() == three.Ref() || f.Halted != nil {
		t.Errorf("checkpoint %d, halted %v", f.Checkpoint.Seq, f.Halted)
	}
	if got := facts(t, b, zone).Checkpoint.Members(); len(got) != 2 {
		t.Errorf("%d members", len(got))
	}
	if _, err := a.DeviceLost(ctx, m.Owner, a.Node().Writer(), ""); err == nil {
		t.Error("a device declares itself lost")
	}
	if _, err := a.DeviceLost(ctx, m.Owner, fcp.WriterID{1}, ""); !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("a stranger: %v", err)
	}
}

// TestANewMemberReadsThePast: enrolling seals every key the zone ever had.
func TestANewMemberReadsThePast(t *testing.T) {
	m := New(t, 5, 1)
	a := m.Nodes[0]
	put(t, a, "old", "under the first key")
	m.check(a.RotateZoneKey(ctx, m.Owner, zone, authority.RotateRoutine))
	put(t, a, "new", "under the second key")
	b := m.Join(true)
	m.Sync()
	for key, want := range map[string]string{"old": "under the first key", "new": "under the second key"} {
		if got := get(b, key); got != want {
			t.Errorf("%s: %q", key, got)
		}
	}
	sameRoots(t, m, zone)
}

// TestANewZoneHasItsOwnKeysAndKEM defines a hybrid zone below a parent.
func TestANewZoneHasItsOwnKeysAndKEM(t *testing.T) {
	m := New(t, 6, 1)
	a := m.Nodes[0]
	lab := fcp.ZoneID("z:work:lab")
	spec := authority.ZoneSpec{ID: lab, Name: "Laboratory", Parent: fcp.ZoneWork, Levels: fcp.Levels{Integrity: 60, Confidentiality: 71}, KEM: authority.KEMHybrid, SymbolPort: 4101}
	if err := a.DefineZone(ctx, m.Owner, spec); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Fatalf("above its parent: %v", err)
	}
	spec.Levels.Confidentiality = 70
	m.check(a.DefineZone(ctx, m.Owner, spec))
	if _, err := a.Put(ctx, engine.PutRequest{Zone: lab, Key: "k", Bytes: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	b := m.Join(true)
	m.Sync(a.Zones()...)
	f := facts(t, b, lab)
	if f.Definition.Spec().KEM != authority.KEMHybrid || f.Levels.Confidentiality != 70 {
		t.Errorf("%+v", f.Definition.Spec())
	}
	r, err := b.Get(ctx, engine.GetRequest{Zone: lab, Key: "k"})
	m.check(err)
	r.Close()
	spec.Name, spec.Levels.Integrity = "Lab", 10
	m.check(a.DefineZone(ctx, m.Owner, spec))
	if f := facts(t, a, lab); f.Definition.Number() != 2 || f.Levels.Integrity != 10 || f.Halted != nil {
		t.Errorf("%+v %v", f.Definition.Spec(), f.Halted)
	}
}

// TestWitnessesSeeARewrittenFeed: another device signs a head it can check and
// refuses the head of another history, which is evidence.
func TestWitnessesSeeARewrittenFeed(t *testing.T) {
	m := New(t, 7, 3)
	a, b, w := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	m.check(b.Audit(ctx, authority.AuditEvent{Zone: zone, Type: authority.AuditSecretAccess, Actor: "user:alice"}))
	m.Sync()
	h, err := b.FeedHead(b.OwnFeed(zone, fcp.PlaneControl))
	m.check(err)
	h, err = w.CosignHead(h)
	m.check(err)
	m.check(w.RecordHead(ctx, h))
	if len(h.Witnesses()) != 1 {
		t.Error("witnesses")
	}
	if _, err := a.FeedHead(b.OwnFeed(zone, fcp.PlaneControl)); !errors.Is(err, fcp.CodeUnauthorized) {
		t.Errorf("signs for another: %v", err)
	}
	clone := b.Clone()
	put(t, b, "x", "1")
	put(t, clone, "x", "2")
	m.Sync()
	other, err := clone.FeedHead(clone.OwnFeed(zone, fcp.PlaneControl))
	m.check(err)
	_, err = w.CosignHead(other)
	wantReason(t, "another history", err, authority.ReasonHeadFork)
}

// fork makes a mesh in which node 1 wrote two histories: nodes 0 and 2 hold one
// each, with heads that node 1 signed. It returns the heads and where they part.
func fork(t testing.TB, seed uint64) (m *Mesh, x, y *authority.AuditHead, seq uint64) {
	t.Helper()
	m = New(t, seed, 3)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	put(t, b, "honest", "b")
	put(t, a, "other", "a")
	m.Sync()
	clone := b.Clone()
	put(t, b, "left", "1")
	put(t, b, "honest", "left")
	put(t, clone, "right", "2")
	feed := b.OwnFeed(zone, fcp.PlaneControl)
	if f := a.Pull(b, zone); f != nil {
		t.Fatal("forked already")
	}
	if f := c.Pull(clone, zone); f != nil {
		t.Fatal("forked already")
	}
	if f := c.Pull(a, zone); !slices.Contains(f, feed) {
		t.Fatal("the fork is not seen")
	}
	var err error
	x, err = b.FeedHead(feed)
	m.check(err)
	y, err = clone.FeedHead(feed)
	m.check(err)
	return m, x, y, a.Parts(c, feed)
}

func prove(t testing.TB, m *Mesh, x, y *authority.AuditHead, seq uint64) {
	t.Helper()
	left, err := m.Nodes[0].Branch(x, seq)
	m.check(err)
	right, err := m.Nodes[2].Branch(y, seq)
	m.check(err)
	m.check(m.Nodes[0].ProveFork(ctx, seq, left, right))
}

// TestAForkVoidsBothBranches: nodes that hold different branches agree as soon as
// they have the proof.
func TestAForkVoidsBothBranches(t *testing.T) {
	m, x, y, seq := fork(t, 8)
	a, c := m.Nodes[0], m.Nodes[2]
	if get(a, "honest") != "left" || get(c, "right") != "2" {
		t.Fatal("the branches are not there")
	}
	prove(t, m, x, y, seq)
	a.Pull(c, zone)
	c.Pull(a, zone)
	for _, n := range []*Node{a, c} {
		for key, want := range map[string]string{"honest": "b", "other": "a", "left": fcp.CodeNotFound.String(), "right": fcp.CodeNotFound.String()} {
			if got := get(n, key); got != want {
				t.Errorf("%s reads %s: %q, want %q", n.Name, key, got, want)
			}
		}
	}
	if a.Root(zone) != c.Root(zone) {
		t.Error("two branches, two roots")
	}
	c.Reopen()
	if a.Root(zone) != c.Root(zone) {
		t.Error("another root after a restart")
	}
	for _, n := range []*Node{a, c} {
		if r, err := n.Replay(ctx, engine.ReplayOptions{Verify: true}); err != nil || !r.Identical {
			t.Errorf("%s: %v", n.Name, err)
		}
	}
}

// TestArrivalOrdersOfAForkGiveOneState gives the events of a zone with a proven
// fork to observers, in random orders with repetitions, one branch each: all have
// one root.
func TestArrivalOrdersOfAForkGiveOneState(t *testing.T) {
	m, x, y, seq := fork(t, 9)
	prove(t, m, x, y, seq)
	a, c := m.Nodes[0], m.Nodes[2]
	a.Pull(c, zone)
	c.Pull(a, zone)
	want := a.Root(zone)
	rapid.Check(t, func(rt *rapid.T) {
		from := rapid.SampledFrom([]*Node{a, c}).Draw(rt, "branch")
		feeds := from.Feeds(zone, fcp.PlaneControl)
		o := m.Join(false)
		at := make([]int, len(feeds))
		for {
			var open []int
			for i := range feeds {
				if at[i] < len(feeds[i].Events) {
					open = append(open, i)
				}
			}
			if len(open) == 0 {
				break
			}
			i := rapid.SampledFrom(open).Draw(rt, "feed")
			n := min(rapid.IntRange(1, 6).Draw(rt, "count"), len(feeds[i].Events)-at[i])
			first := max(0, at[i]-rapid.IntRange(0, 2).Draw(rt, "again"))
			part := feeds[i].Events[first : at[i]+n]
			if taken, err := o.ImportEvents(ctx, part, feeds[i].Salts[first:at[i]+n]); err != nil || taken != len(part) {
				rt.Fatalf("%d of %d taken: %v", taken, len(part), err)
			}
			at[i] += n
		}
		if o.Root(zone) != want {
			rt.Fatal("the order of arrival decided")
		}
		if err := o.Engine.Close(); err != nil {
			rt.Fatal(err)
		}
	})
}
