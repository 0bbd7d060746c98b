package enginetest

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

func maintain(t testing.TB, n *Node) (signed, cosigned int, renewed []fcp.WriterID) {
	t.Helper()
	u, err := n.Maintain(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return u.Signed, u.Cosigned, u.Renewed
}

// TestMaintainSignsAndWitnessesOnceAnEpoch: heads are signed where something was
// written, others witness them, and the two do not keep each other busy.
func TestMaintainSignsAndWitnessesOnceAnEpoch(t *testing.T) {
	m := New(t, 70, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	put(t, a, "x", "1")
	m.Sync()
	if signed, cosigned, _ := maintain(t, a); signed == 0 || cosigned != 0 {
		t.Fatalf("%d signed, %d witnessed", signed, cosigned)
	}
	if signed, cosigned, _ := maintain(t, a); signed != 0 || cosigned != 0 {
		t.Fatalf("at once again: %d signed, %d witnessed", signed, cosigned)
	}
	m.Sync()
	if _, cosigned, _ := maintain(t, b); cosigned == 0 {
		t.Fatal("nobody witnessed")
	}
	witnessed := false
	m.check(b.EachHead(zone, func(h *authority.AuditHead) error {
		witnessed = witnessed || h.Feed().Writer == a.Node().Writer() && len(h.Witnesses()) == 1
		return nil
	}))
	if !witnessed {
		t.Fatal("the witness is not on record")
	}
	for range 20 { // epochs without a word
		m.Sync()
		m.Clock.Advance(fcp.EpochLength)
		for _, n := range m.Nodes {
			maintain(t, n)
		}
	}
	for _, n := range m.Nodes { // the sealer works in real time; what it says is not a reason for a head
		_, err := n.Log().Seal(ctx, log.SealOptions{All: true})
		m.check(err)
	}
	m.Sync()
	before := []uint64{a.Position(), b.Position()}
	for range 20 {
		m.Clock.Advance(fcp.EpochLength)
		for _, n := range m.Nodes {
			n.Reopen() // what is remembered in memory is not needed for it
			maintain(t, n)
		}
		m.Sync()
	}
	if a.Position() != before[0] || b.Position() != before[1] {
		t.Fatalf("the log grows by itself: %d and %d events", a.Position()-before[0], b.Position()-before[1])
	}
	put(t, a, "x", "2")
	if signed, _, _ := maintain(t, a); signed != 1 {
		t.Fatalf("after a write %d heads were signed", signed)
	}
}

// TestMaintainRenewsAtHalfLife: a node that may attests what is past half of its
// life, and nobody who was revoked or never attested.
func TestMaintainRenewsAtHalfLife(t *testing.T) {
	m := New(t, 71, 4)
	a, admin, member, never := m.Nodes[0], m.Nodes[1], m.Nodes[2], m.Nodes[3]
	now := m.Clock.Now().Truncate(time.Second)
	for _, n := range []*Node{a, admin, member} {
		m.check(a.Attest(ctx, m.Owner, authority.AttestationSpec{Node: n.Node(), From: now, Until: now.Add(authority.DefaultAttestation)}))
	}
	_, err := a.Revoke(ctx, m.Owner, authority.RevocationSpec{Zone: fcp.ZoneOwner, Scope: authority.RevokeDevice, Targets: []fcp.Hash{fcp.Hash(member.Node().Writer())}})
	m.check(err)
	m.Sync()
	m.Clock.Advance(authority.DefaultAttestation/2 + time.Hour)
	delegate(m, a, admin.Node().Signing, fcp.ZoneOwner, authority.ActionAttest)
	m.Sync()
	u, err := a.Maintain(ctx)
	m.check(err)
	if len(u.Renewed) != 0 || u.RenewalBy.IsZero() {
		t.Fatalf("a node without the right: %+v", u)
	}
	_, _, renewed := maintain(t, admin)
	if len(renewed) != 2 {
		t.Fatalf("%d renewed", len(renewed))
	}
	for _, w := range renewed {
		if w == member.Node().Writer() || w == never.Node().Writer() {
			t.Errorf("%s was renewed", w)
		}
	}
	if _, _, again := maintain(t, admin); len(again) != 0 {
		t.Fatal("renewed twice")
	}
	m.Sync()
	m.Clock.Advance(authority.DefaultAttestation/2 + time.Hour) // the first ones are over
	f := facts(t, a, zone)
	if _, err := f.Attestations.At(a.Node().Writer(), m.Clock.Now()); err != nil {
		t.Errorf("the renewal does not count: %v", err)
	}
}

// TestNoLiarKeepsAHeadFromItsWitness: a head with the signature of a witness who never
// gave it, recorded by somebody else, is as if it were not there.
func TestNoLiarKeepsAHeadFromItsWitness(t *testing.T) {
	m := New(t, 72, 3)
	a, b, liar := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	put(t, a, "x", "1")
	maintain(t, a)
	m.Sync()
	var heads []*authority.AuditHead
	m.check(liar.EachHead(zone, func(h *authority.AuditHead) error {
		heads = append(heads, h)
		return nil
	}))
	if len(heads) == 0 {
		t.Fatal("no heads")
	}
	for _, h := range heads {
		forged, err := b.CosignHead(h)
		m.check(err)
		body, err := forged.Encode()
		m.check(err)
		at := bytes.Index(body, []byte(b.Node().Writer().String()))
		at += bytes.Index(body[at:], []byte("signature")) + len("signature") + 10
		body[at] ^= 1
		_, err = liar.AppendSigned(ctx, zone, fcp.KindAuditHead, body)
		m.check(err)
	}
	m.Sync()
	before := b.Position()
	if _, err := b.Maintain(ctx); err != nil {
		t.Fatal(err)
	}
	good := false
	m.check(b.EachHead(zone, func(h *authority.AuditHead) error {
		good = good || h.Feed() == heads[0].Feed() && slices.Contains(h.Witnesses(), b.Node().Writer())
		return nil
	}))
	if !good {
		t.Fatalf("a forged signature of a witness kept it from giving its own: %d events", b.Position()-before)
	}
}
