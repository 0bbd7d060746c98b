package enginetest

import (
	"testing"
	"time"

	"fcp"
	"fcp/authority"
)

// TestARevocationInTheOwnersZoneSilencesASigner revokes a member there and nowhere
// else: its signature counts in no zone.
func TestARevocationInTheOwnersZoneSilencesASigner(t *testing.T) {
	m := New(t, 40, 3)
	a, b, stolen := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	one, err := a.ProposeCheckpoint(zone)
	m.check(err)
	_, err = a.AppendCheckpoint(ctx, one)
	m.check(err)
	_, err = a.Revoke(ctx, m.Owner, authority.RevocationSpec{Zone: fcp.ZoneOwner, Scope: authority.RevokeDevice,
		Targets: []fcp.Hash{fcp.Hash(stolen.Node().Writer())}, Reason: "stolen"})
	m.check(err)
	m.Sync()
	m.Clock.Advance(time.Minute)
	two, err := b.ProposeCheckpoint(zone)
	m.check(err)
	two, err = stolen.CosignCheckpoint(two)
	m.check(err)
	_, err = b.AppendCheckpoint(ctx, two)
	wantReason(t, "a quorum with a revoked device", err, authority.ReasonCheckpointMember)
	if f := facts(t, b, zone); f.Checkpoint.Seq != 1 {
		t.Errorf("checkpoint %d stands", f.Checkpoint.Seq)
	}
}

// TestAnAdminAttestsOnlyEnrolledKeys has an admin attest an issuance key of its own
// for another node.
func TestAnAdminAttestsOnlyEnrolledKeys(t *testing.T) {
	m := New(t, 41, 2)
	a, victim := m.Nodes[0], m.Nodes[1]
	admin, err := authority.NewNodeKeys(Random(77))
	m.check(err)
	now := m.Clock.Now().Truncate(time.Second)
	m.check(a.Delegate(ctx, m.Owner, authority.DelegationSpec{Admin: admin.Public().Signing, Actions: []authority.Action{authority.ActionAttest},
		Zones: authority.Patterns{"*"}, From: now.Add(-time.Hour), Until: now.Add(time.Hour)}))
	spec := authority.AttestationSpec{Node: victim.Node(), From: now, Until: now.Add(time.Hour)}
	m.check(a.Attest(ctx, admin, spec)) // a renewal
	spec.Node.Issuance = admin.Public().Issuance
	err = a.Attest(ctx, admin, spec)
	wantReason(t, "another issuance key", err, authority.ReasonDelegationScope)
	body, err := authority.SignAttestation(admin, spec)
	m.check(err)
	if _, err := a.AppendSigned(ctx, fcp.ZoneOwner, fcp.KindAttestationIssued, body); err != nil {
		return // not even written down
	}
	m.Sync()
	attestations := facts(t, victim, zone).Attestations
	if _, err := attestations.Issuer(fcp.KidOf(spec.Node.Issuance[:]), victim.Node().Writer(), now); err == nil {
		t.Error("an admin mints as another node")
	}
	if _, err := attestations.At(victim.Node().Writer(), now); err != nil {
		t.Error("the renewal does not count:", err)
	}
}

// TestFreshnessIsNotFooled sets the clock back, and gives a node as many revocations
// as the checkpoint names, but others.
func TestFreshnessIsNotFooled(t *testing.T) {
	m := New(t, 42, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	_, err := a.Revoke(ctx, m.Owner, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeToken, Targets: []fcp.Hash{{1}}})
	m.check(err)
	one, err := a.ProposeCheckpoint(zone)
	m.check(err)
	_, err = a.AppendCheckpoint(ctx, one)
	m.check(err)
	m.Sync()
	at := one.Spec().At
	f := *facts(t, b, zone)
	if got := f.FreshFor(authority.TierDangerous, at); !got.Checkpoint || !got.Revocations.Allowed {
		t.Fatalf("%+v", got)
	}
	if got := f.FreshFor(authority.TierDangerous, at.Add(-authority.MaxSkew)); !got.Checkpoint {
		t.Errorf("clocks differ: %+v", got)
	}
	if got := f.FreshFor(authority.TierDangerous, at.Add(-time.Hour)); got.Checkpoint {
		t.Errorf("by a clock that was set back an hour: %+v", got)
	}
	body, err := authority.Revoke(at, m.Owner, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeToken, Targets: []fcp.Hash{{2}}})
	m.check(err)
	other, err := authority.VerifyRevocation(m.Owner.Public(), body)
	m.check(err)
	f.Revocations = authority.RevocationSet{}
	f.Revocations.Add(other)
	if got := f.FreshFor(authority.TierDangerous, at); got.Revocations.Allowed {
		t.Errorf("with another revocation than the checkpoint's: %+v", got)
	}
}
