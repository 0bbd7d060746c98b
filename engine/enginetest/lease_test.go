package enginetest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// agree makes every node of the mesh a member of the zone's electorate, of which
// faults may lie.
func (m *Mesh) agree(z fcp.ZoneID, faults uint8) {
	m.T.Helper()
	first := m.Nodes[0]
	if faults > 0 {
		_, err := first.SetPolicy(ctx, m.Owner, z, authority.PolicyRules{MaxFaults: faults})
		m.check(err)
	}
	c, err := first.ProposeCheckpoint(z)
	m.check(err)
	_, err = first.AppendCheckpoint(ctx, c) // genesis names node 0 alone
	m.check(err)
	m.Sync(z)
}

// peers reaches the nodes that are not cut off, at once.
type peers struct {
	m    *Mesh
	self *Node
	cut  map[fcp.WriterID]bool
}

var errCut = fcp.Errorf(fcp.CodeTimeout, "cut off")

func (p *peers) node(w fcp.WriterID) (*Node, error) {
	for _, n := range p.m.Nodes {
		if n.Signer() != nil && fcp.WriterOf(n.Signer().Public()) == w && !p.cut[w] {
			return n, nil
		}
	}
	return nil, errCut
}

func (p *peers) Vote(ctx context.Context, member fcp.WriterID, request, lease []byte) (v authority.NodeSignature, err error) {
	n, err := p.node(member)
	if err != nil {
		return v, err
	}
	return n.AnswerVote(ctx, p.self.writer(), request, lease)
}

func (p *peers) Coordinate(ctx context.Context, member fcp.WriterID, request []byte) ([]byte, error) {
	n, err := p.node(member)
	if err != nil {
		return nil, err
	}
	return n.AnswerCoordinate(ctx, p.self.writer(), request, &peers{p.m, n, p.cut})
}

func (n *Node) writer() fcp.WriterID { return fcp.WriterOf(n.Signer().Public()) }

func (n *Node) acquire(t authority.Thing, ttl time.Duration, cut ...*Node) (*engine.LeaseState, error) {
	p := &peers{n.m, n, map[fcp.WriterID]bool{}}
	for _, c := range cut {
		p.cut[c.writer()] = true
	}
	return n.AcquireLease(ctx, t, ttl, p)
}

func thing(b byte) authority.Thing {
	return authority.Thing{Zone: zone, Subject: fcp.ObjectID{b, 1}, Purpose: authority.LeaseResource}
}

func wantCode(t testing.TB, what string, err error, code fcp.Code) {
	t.Helper()
	if fcp.CodeOf(err) != code {
		t.Fatalf("%s: %v, want %s", what, err, code)
	}
}

// TestALeaseIsHandedOver: one device at a time, renewals, release, expiry with the
// skew, and the fence at the sink.
func TestALeaseIsHandedOver(t *testing.T) {
	m := New(t, 21, 4)
	m.agree(zone, 1)
	a, b, sink := m.Nodes[0], m.Nodes[1], m.Nodes[3]
	x := thing(1)
	one, err := a.acquire(x, time.Minute)
	m.check(err)
	if got := one.Signers(); len(got) < 3 || one.Spec().Fence.Checkpoint() != 1 {
		t.Fatal(got, one.Spec())
	}
	_, err = b.acquire(x, time.Minute)
	wantCode(t, "while another has it", err, fcp.CodeLeaseHeld)
	if _, err := b.acquire(thing(2), time.Minute); err != nil {
		t.Fatal("another thing:", err)
	}
	two, err := a.acquire(x, time.Minute)
	m.check(err)
	if two.Spec().Fence <= one.Spec().Fence {
		t.Fatal("a renewal has no higher fence")
	}
	effects := 0
	effect := func(context.Context) error { effects++; return nil }
	m.check(sink.Effect(ctx, &two.UnverifiedLease, effect))
	m.check(sink.Effect(ctx, &two.UnverifiedLease, effect))
	wantCode(t, "an older fence", sink.Effect(ctx, &one.UnverifiedLease, effect), fcp.CodeFenced)

	m.Clock.Advance(100 * time.Second) // over, and less than the skew ago
	_, err = b.acquire(x, time.Minute)
	wantCode(t, "within the skew", err, fcp.CodeLeaseHeld)
	_, err = a.OwnLease(x)
	wantReason(t, "own use behind the end", err, authority.ReasonLeaseExpired)
	m.Clock.Advance(90 * time.Second)
	three, err := b.acquire(x, time.Minute)
	m.check(err)
	sink.Crash() // what it let through, and promised, is on disk
	m.check(sink.Effect(ctx, &three.UnverifiedLease, effect))
	sink.Crash()
	wantCode(t, "after a restart", sink.Effect(ctx, &two.UnverifiedLease, effect), fcp.CodeFenced)

	m.check(b.ReleaseLease(ctx, x, three.Spec().Fence))
	_, err = b.OwnLease(x)
	wantReason(t, "after the release", err, authority.ReasonLeaseReleased)
	_, err = a.acquire(x, time.Minute)
	wantCode(t, "before the release arrived", err, fcp.CodeLeaseHeld)
	m.Sync(zone)
	sameRoots(t, m, zone)
	if _, err = a.acquire(x, time.Minute); err != nil {
		t.Fatal(err)
	}
	m.Sync(zone)
	_, err = b.OwnLease(x)
	wantReason(t, "another's", err, authority.ReasonLeaseHolder)
	if effects != 3 {
		t.Fatal(effects)
	}
}

// TestAHalfIsNoQuorum: of four members cut in two no side gets a lease, and what was
// promised on the way is given back.
func TestAHalfIsNoQuorum(t *testing.T) {
	for _, faults := range []uint8{0, 1} {
		m := New(t, 22+uint64(faults), 4)
		m.agree(zone, faults)
		left, right := m.Nodes[:2], m.Nodes[2:]
		x := thing(1)
		_, err := left[0].acquire(x, time.Minute, right...)
		wantReason(t, "two of four", err, authority.ReasonQuorum)
		_, err = right[0].acquire(x, time.Minute, left...)
		wantReason(t, "the other two", err, authority.ReasonQuorum)
		m.Sync(zone)
		if _, err := right[1].acquire(x, time.Minute, left[0]); err != nil {
			t.Fatal("three of four, after the others gave up:", err)
		}
		if faults == 0 {
			_, err := m.Nodes[0].acquire(thing(2), time.Minute, right...)
			if !errors.Is(err, fcp.Transient) {
				t.Fatal(err)
			}
		}
	}
}

// TestMembershipNeverRepeatsAFence: an electorate that has no member in common with
// the one before grants higher fences, and the older ones are stale.
func TestMembershipNeverRepeatsAFence(t *testing.T) {
	m := New(t, 24, 3)
	a, b := m.Nodes[0], m.Nodes[1]
	x := thing(1)
	one, err := a.acquire(x, time.Hour) // node 0 is the only member
	m.check(err)
	if one.Spec().Fence != 1 || len(one.Signers()) != 1 {
		t.Fatal(one.Spec(), one.Signers())
	}
	if _, err := b.acquire(x, time.Minute); fcp.CodeOf(err) != fcp.CodeLeaseHeld {
		t.Fatal(err)
	}
	m.agree(zone, 0)
	two, err := a.acquire(x, time.Hour)
	m.check(err)
	if two.Spec().Fence != 1<<32+1 || len(two.Signers()) < 2 {
		t.Fatal(two.Spec(), two.Signers())
	}
	m.check(b.Effect(ctx, &two.UnverifiedLease, func(context.Context) error { return nil }))
	err = b.Effect(ctx, &one.UnverifiedLease, func(context.Context) error { return nil })
	wantCode(t, "the lease of the old electorate", err, fcp.CodeFenced)
}

// TestALostLeaseIsExplained: an operation that needs a lease passes under its fence, and
// is refused with the reason on record when another device took the lease over.
func TestALostLeaseIsExplained(t *testing.T) {
	m := New(t, 25, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	now := m.Clock.Now().Truncate(time.Second)
	x := authority.Thing{Zone: fcp.ZoneWork, Subject: fcp.ObjectID{7}, Purpose: authority.LeaseOperation}
	right := []authority.Right{{Capability: "mail.send", Operation: "mail.send"}}
	all := authority.Constraints{ResourceAllow: []string{"mail://"}}
	got, err := a.Entitle(ctx, m.Owner, engine.EntitleRequest{GrantSpec: authority.GrantSpec{Zone: x.Zone, Principal: "agent:a", Rights: right, Constraints: all,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour)}})
	m.check(err)
	holder, err := authority.NewHolderKey(Random(98))
	m.check(err)
	chain, err := a.MintFrom(engine.MintRequest{Zone: x.Zone, Grant: got.Grant, Constraints: &all, Audience: "fcp.mail:operational:1.0.0", Instance: "mail-1", Confirm: holder.Public()})
	m.check(err)
	try := func(id byte, fence authority.Fence) error {
		t.Helper()
		r := &authority.Request{ID: fcp.ObjectID{id, 1, 2, 3, 4, 5, 6, 7, 8}, Zone: x.Zone, Principal: "agent:a", Device: a.Node().Writer(), Connector: "fcp.mail:operational:1.0.0",
			Instance: "mail-1", Capability: "mail.send", Operation: "mail.send", Resource: "mail://out", Tier: authority.TierRisky, Carrier: authority.CarrierLocal,
			Data: authority.Label{Origin: x.Zone, Levels: facts(t, a, x.Zone).Levels, ID: fcp.Hash{3}}, Token: chain, NeedsLease: true, Subject: x.Subject, LeaseSeq: uint64(fence)}
		challenge := authority.Challenge{Kind: authority.ChallengeNonce, Value: [32]byte{id}}
		r.Proof, err = authority.VerifyProof(chain, challenge, r.Hash(), holder.Prove(challenge, chain.Leaf(), r.Hash()))
		m.check(err)
		_, err := a.Authorize(ctx, r)
		return err
	}
	wantReason(t, "without a lease", try(1, 1), authority.ReasonLeaseMissing)
	one, err := a.acquire(x, time.Minute)
	m.check(err)
	m.check(try(2, one.Spec().Fence))
	m.check(a.ReleaseLease(ctx, x, one.Spec().Fence))
	err = try(3, one.Spec().Fence)
	wantReason(t, "given back", err, authority.ReasonLeaseReleased)
	wantCode(t, "given back", err, fcp.CodeFenced)
	two, err := b.acquire(x, time.Minute)
	m.check(err)
	m.Sync(x.Zone)
	err = try(4, one.Spec().Fence)
	wantReason(t, "taken over", err, authority.ReasonLeaseHolder)
	wantCode(t, "taken over", err, fcp.CodeLeaseHeld)
	why, err := a.FindRefusal("0401020304050607")
	m.check(err)
	if why.Reason() != authority.ReasonLeaseHolder || !slices.Contains(why.Evidence(), two.Ref()) {
		t.Fatal(why.Reason(), why.Explanation(), why.Evidence())
	}
}

// TestAFailedRenewalEndsNothing: who could not renew still has what it had until its
// end, and nobody else gets it before.
func TestAFailedRenewalEndsNothing(t *testing.T) {
	m := New(t, 25, 4)
	m.agree(zone, 1)
	a, b := m.Nodes[0], m.Nodes[1]
	x := thing(1)
	_, err := a.acquire(x, time.Minute)
	m.check(err)
	_, err = a.acquire(x, time.Minute, b, m.Nodes[2], m.Nodes[3])
	wantCode(t, "cut off", err, fcp.CodeNoQuorum)
	if _, err := a.OwnLease(x); err != nil {
		t.Fatal("the lease that it has:", err)
	}
	m.Sync(zone)
	_, err = b.acquire(x, time.Minute)
	wantCode(t, "while another has it", err, fcp.CodeLeaseHeld)
}

// TestWhoDidNotSignIsNamed: an acquisition without a quorum says who was not there.
func TestWhoDidNotSignIsNamed(t *testing.T) {
	m := New(t, 27, 3)
	m.agree(zone, 0)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	_, err := a.acquire(thing(1), time.Minute, b, c)
	wantCode(t, "alone", err, fcp.CodeNoQuorum)
	for _, n := range []*Node{b, c} {
		if want := n.Name + " (" + n.writer().String()[:16] + "): " + errCut.Error(); !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if !strings.Contains(err.Error(), "1 of the 2 signatures") {
		t.Error(err)
	}
}

// TestNobodyAsksInAnothersName: a member signs only what who asks coordinates, and
// coordinates only for who asks.
func TestNobodyAsksInAnothersName(t *testing.T) {
	m := New(t, 28, 3)
	m.agree(zone, 0)
	a, b, c := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	r, err := a.RequestLease(thing(1), time.Minute)
	m.check(err)
	l, err := a.ProposeLease(r, 0)
	m.check(err)
	lease, err := l.Encode()
	m.check(err)
	_, err = c.AnswerVote(ctx, b.writer(), r.Bytes(), lease)
	wantReason(t, "another coordinator", err, authority.ReasonLeaseRequest)
	_, err = c.AnswerCoordinate(ctx, b.writer(), r.Bytes(), nil)
	wantReason(t, "another holder", err, authority.ReasonLeaseHolder)
	for _, bad := range [][]byte{nil, lease, r.Bytes()[:40]} {
		if _, err := c.AnswerCoordinate(ctx, a.writer(), bad, nil); err == nil {
			t.Errorf("%x is taken for a request", bad)
		}
	}
	_, err = c.AnswerVote(ctx, a.writer(), r.Bytes(), lease)
	m.check(err)
}

// liars coordinate nothing, and say that they tried a fence that there is not.
type liars struct{ *peers }

func (liars) Coordinate(context.Context, fcp.WriterID, []byte) ([]byte, error) {
	return nil, &fcp.Error{Code: fcp.CodeLeaseHeld, Cause: &authority.HeldError{Reason: authority.ReasonQuorum, Fence: 1<<62 | 1}}
}

// boaster is a member that says it knows of a fence that there is not.
type boaster struct {
	*peers
	who   fcp.WriterID
	fence authority.Fence
}

func (b boaster) Vote(ctx context.Context, member fcp.WriterID, request, lease []byte) (authority.NodeSignature, error) {
	if member == b.who {
		return authority.NodeSignature{}, &fcp.Error{Code: fcp.CodeFenced, Cause: &authority.HeldError{Reason: authority.ReasonLeaseStale, Fence: b.fence}}
	}
	return b.peers.Vote(ctx, member, request, lease)
}

// TestABoasterUsesUpNoFences: a coordinator behind the others finds the fence that they
// take, whatever one of them says.
func TestABoasterUsesUpNoFences(t *testing.T) {
	for i, fence := range []authority.Fence{1<<63 - 1, 1<<32 | (1<<32 - 1), 7<<32 | 5, 1<<32 | 1<<31} {
		m := New(t, 30+uint64(i), 4)
		m.agree(zone, 1)
		a, c, d := m.Nodes[0], m.Nodes[2], m.Nodes[3]
		_, err := a.acquire(thing(1), time.Minute, c, d)
		wantCode(t, "two of four", err, fcp.CodeNoQuorum)
		m.Sync(zone) // a gave it up; a and b have promised a fence that d does not know
		r, err := d.RequestLease(thing(1), time.Minute)
		m.check(err)
		if _, err := d.CoordinateLease(ctx, r.Bytes(), zone, boaster{&peers{m, d, nil}, c.writer(), fence}); err != nil {
			t.Errorf("fence %d: %v", fence, err)
		}
	}
}

// TestNoCoordinatorReleasesForAHolder: what a coordinator says makes no device give
// up fences that it never had.
func TestNoCoordinatorReleasesForAHolder(t *testing.T) {
	m := New(t, 26, 4)
	m.agree(zone, 1)
	a := m.Nodes[0]
	for i := range byte(8) { // others coordinate some of them
		x := thing(i)
		if _, err := a.AcquireLease(ctx, x, time.Minute, liars{&peers{m, a, nil}}); err != nil {
			wantCode(t, "a liar", err, fcp.CodeLeaseHeld)
		}
		_, err := a.acquire(x, time.Minute)
		m.check(err)
		if _, err := a.OwnLease(x); err != nil {
			t.Fatal("a liar gave it up:", err)
		}
	}
}

// TestNoEffectForARevokedHolder: a lease does not outlive its holder's membership.
func TestNoEffectForARevokedHolder(t *testing.T) {
	m := New(t, 27, 4)
	m.agree(zone, 1)
	a, sink := m.Nodes[1], m.Nodes[3]
	l, err := a.acquire(thing(1), time.Hour)
	m.check(err)
	m.Clock.Advance(2 * time.Second)
	effect := func(context.Context) error { return nil }
	m.check(sink.Effect(ctx, &l.UnverifiedLease, effect))
	_, err = m.Nodes[0].Revoke(ctx, m.Owner, authority.RevocationSpec{Zone: fcp.ZoneOwner, Scope: authority.RevokeDevice, Targets: []fcp.Hash{fcp.Hash(a.writer())}})
	m.check(err)
	m.Sync()
	wantReason(t, "revoked", sink.Effect(ctx, &l.UnverifiedLease, effect), authority.ReasonLeaseStranger)
}
