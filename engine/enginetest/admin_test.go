package enginetest

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// delegate makes a node an admin of a zone.
func delegate(m *Mesh, on *Node, admin authority.SigningPublic, z fcp.ZoneID, actions ...authority.Action) fcp.Hash {
	m.T.Helper()
	now := m.Clock.Now().Truncate(time.Second)
	d := authority.DelegationSpec{Admin: admin, Actions: actions, Zones: authority.Patterns{authority.Pattern(z)}, From: now.Add(-time.Minute), Until: now.Add(time.Hour)}
	m.check(on.Delegate(ctx, m.Owner, d))
	body, err := authority.SignDelegation(m.Owner, d)
	m.check(err)
	return authority.RefOf(body)
}

// adminKeys are the keys of a node, which an engine does not give away.
func (m *Mesh) adminKeys(seed uint64) *authority.NodeKeys {
	m.T.Helper()
	k, err := authority.NewNodeKeys(Random(seed))
	m.check(err)
	return k
}

// TestAnAdminsRevocationCountsEverywhere: an admin revokes a grant, and every node
// refuses it by what it folded; targets beyond the admin's scopes, zones and time do
// nothing anywhere.
func TestAnAdminsRevocationCountsEverywhere(t *testing.T) {
	m := New(t, 60, 3)
	a, b := m.Nodes[0], m.Nodes[1]
	admin := m.adminKeys(61)
	delegation := delegate(m, a, admin.Public().Signing, zone, authority.ActionRevoke)
	m.Sync()
	now := m.Clock.Now().Truncate(time.Second)
	grant, err := a.Grant(ctx, m.Owner, authority.GrantSpec{Zone: zone, Principal: "user:alice", Rights: []authority.Right{{Capability: "mail.read", Operation: "mail.get"}},
		Constraints: authority.Constraints{ResourceAllow: []string{"mail://"}}, NotBefore: now, NotAfter: now.Add(time.Hour)})
	m.check(err)
	victim := fcp.Hash(b.Node().Writer())
	owner := fcp.Hash(m.Owner.Public())
	for name, c := range map[string]struct {
		spec   authority.RevocationSpec
		reason fcp.Reason
	}{
		"a device":       {authority.RevocationSpec{Zone: zone, Scope: authority.RevokeDevice, Targets: []fcp.Hash{victim}}, authority.ReasonAdminScope},
		"another zone":   {authority.RevocationSpec{Zone: fcp.ZoneWork, Scope: authority.RevokeToken, Targets: []fcp.Hash{{1}}}, authority.ReasonDelegationScope},
		"the delegation": {authority.RevocationSpec{Zone: zone, Scope: authority.RevokeDelegation, Targets: []fcp.Hash{delegation}}, authority.ReasonAdminScope},
		"a cut":          {authority.RevocationSpec{Zone: zone, Cuts: []authority.Cut{{Feed: a.OwnFeed(zone, fcp.PlaneControl)}}}, authority.ReasonAdminCut},
	} {
		_, err := a.Revoke(ctx, admin, c.spec)
		wantReason(t, name, err, c.reason)
	}
	stranger := m.adminKeys(62)
	_, err = a.Revoke(ctx, stranger, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeCapability, Targets: []fcp.Hash{grant.Ref()}})
	wantReason(t, "by nobody", err, authority.ReasonNotOwner)

	_, err = a.Revoke(ctx, admin, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeCapability, Targets: []fcp.Hash{grant.Ref(), victim, owner}, Reason: "misused"})
	m.check(err)
	m.Sync()
	sameRoots(t, m, zone)
	check := func(when string) {
		t.Helper()
		for _, n := range m.Nodes {
			f, at := facts(t, n, zone), m.Clock.Now()
			if f.Revoked(grant.Ref(), at, authority.RevokeCapability) == nil {
				t.Fatalf("%s, %s: the grant stands", n.Name, when)
			}
			if f.Revoked(victim, at, authority.RevokeDevice, authority.RevokeAttestation) != nil || f.Revoked(owner, at, authority.RevokeIssuerKey) != nil || f.Revoked(victim, at) != nil {
				t.Fatalf("%s, %s: an admin revoked a device or the owner", n.Name, when)
			}
			members, err := n.Members()
			m.check(err)
			for _, x := range members {
				if x.Revoked {
					t.Fatalf("%s, %s: %s is out", n.Name, when, x.Name)
				}
			}
			if f.Revocations.Head().Seq != 1 {
				t.Fatalf("%s, %s: %d revocations", n.Name, when, f.Revocations.Head().Seq)
			}
		}
	}
	check("at once")
	grants, err := b.Grants(zone)
	m.check(err)
	if len(grants) != 1 || grants[0].Revoked == nil || grants[0].Revoked.Reason() != "misused" {
		t.Fatalf("%+v", grants)
	}
	// Withdrawing the admin brings nothing back.
	_, err = a.Revoke(ctx, m.Owner, authority.RevocationSpec{Zone: fcp.ZoneOwner, Scope: authority.RevokeDelegation, Targets: []fcp.Hash{delegation}})
	m.check(err)
	m.Sync()
	check("after the admin was withdrawn")
	for _, n := range m.Nodes {
		n.Reopen()
	}
	check("after opening again")
	one, err := a.ProposeCheckpoint(zone)
	m.check(err)
	_, err = a.AppendCheckpoint(ctx, one)
	m.check(err)
	if one.Spec().Revocations.Seq != 1 {
		t.Fatalf("the checkpoint knows %d revocations", one.Spec().Revocations.Seq)
	}
}

// TestWhatAThiefRevokesGoesWithTheCut: an admin's device is lost; what its finder
// revokes with the admin's key, behind the cut, counts nowhere, whatever comes first.
func TestWhatAThiefRevokesGoesWithTheCut(t *testing.T) {
	m := New(t, 63, 3)
	a, b, lost := m.Nodes[0], m.Nodes[1], m.Nodes[2]
	admin := m.adminKeys(64)
	delegate(m, a, admin.Public().Signing, zone, authority.ActionRevoke)
	m.Sync()
	honest, stolen := fcp.Hash{1}, fcp.Hash{2}
	_, err := lost.Revoke(ctx, admin, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeToken, Targets: []fcp.Hash{honest}})
	m.check(err)
	m.Sync()
	_, err = a.DeviceLost(ctx, m.Owner, lost.Node().Writer(), "left on a train")
	m.check(err)
	_, err = lost.Revoke(ctx, admin, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeToken, Targets: []fcp.Hash{stolen}})
	m.check(err)
	// b hears the thief first, a heard the owner first.
	for _, z := range a.Zones() {
		b.Pull(lost, z)
	}
	at := m.Clock.Now()
	if facts(t, b, zone).Revoked(stolen, at, authority.RevokeToken) == nil {
		t.Fatal("before the cut arrives the revocation counts")
	}
	m.Sync()
	for _, n := range []*Node{a, b} {
		f := facts(t, n, zone)
		if f.Revoked(honest, at, authority.RevokeToken) == nil {
			t.Errorf("%s: the admin's honest past is void", n.Name)
		}
		if f.Revoked(stolen, at, authority.RevokeToken) != nil {
			t.Errorf("%s: a thief revokes", n.Name)
		}
	}
	if a.Root(zone) != b.Root(zone) {
		t.Error("the order of arrival decides")
	}
}

// TestARevokedDeviceWhoseEnrollmentComesLateIsNoMember delivers the owner's control
// events in random orders: whatever comes first, a device that was revoked is never
// a member, a recipient of keys or a signer of checkpoints, and no admin brings it
// back.
func TestARevokedDeviceWhoseEnrollmentComesLateIsNoMember(t *testing.T) {
	m := New(t, 65, 2)
	a, b := m.Nodes[0], m.Nodes[1]
	admin := m.adminKeys(66)
	delegate(m, a, admin.Public().Signing, fcp.ZoneOwner, authority.ActionAttest)
	gone := m.adminKeys(67)
	_, err := a.Enroll(ctx, engine.EnrollOptions{Owner: m.Owner, Node: gone.Public(), Name: "gone", Zones: []fcp.ZoneID{zone}})
	m.check(err)
	m.Sync()
	now := m.Clock.Now().Truncate(time.Second)
	spec := authority.AttestationSpec{Node: gone.Public(), From: now, Until: now.Add(time.Hour)}
	m.check(a.Attest(ctx, admin, spec))
	_, err = b.DeviceLost(ctx, m.Owner, gone.Writer(), "sold")
	m.check(err)
	m.check(a.Attest(ctx, admin, spec))
	// The owner, at another device, enrolls it again without knowing of the loss.
	if _, err := a.Enroll(ctx, engine.EnrollOptions{Owner: m.Owner, Node: gone.Public(), Name: "gone again", Zones: []fcp.ZoneID{zone}}); err != nil {
		t.Fatal(err)
	}
	var feeds []Feed
	for _, z := range []fcp.ZoneID{fcp.ZoneOwner, zone} {
		feeds = append(feeds, a.Feeds(z, fcp.PlaneControl)...)
		for _, f := range b.Feeds(z, fcp.PlaneControl) {
			if f.Events[0].Feed.Writer == b.Node().Writer() {
				feeds = append(feeds, f)
			}
		}
	}
	for seed := range uint64(25) {
		draw := rand.New(rand.NewPCG(seed, 1))
		o := m.Join(false)
		left := make([]int, len(feeds))
		revoked, enrolled := false, false
		for {
			var open []int
			for i := range feeds {
				if left[i] < len(feeds[i].Events) {
					open = append(open, i)
				}
			}
			if len(open) == 0 {
				break
			}
			i := open[draw.IntN(len(open))]
			n := min(len(feeds[i].Events)-left[i], 1+draw.IntN(8))
			part := feeds[i].Events[left[i] : left[i]+n]
			if _, err := o.ImportEvents(ctx, part, feeds[i].Salts[left[i]:left[i]+n]); err != nil {
				t.Fatal(err)
			}
			left[i] += n
			for k := range part {
				if part[k].Feed.Zone != fcp.ZoneOwner {
					continue
				}
				revoked = revoked || part[k].Kind == fcp.KindRevocationIssued
				enrolled = enrolled || part[k].Kind == fcp.KindDeviceEnrolled && bytes.Contains(part[k].Body, []byte("gone"))
			}
			if !revoked {
				continue
			}
			members, err := o.Members()
			if err != nil {
				t.Fatal(err)
			}
			seen := false
			for _, x := range members {
				if x.Writer == gone.Writer() {
					if seen = true; !x.Revoked {
						t.Fatal("a revoked device is a member")
					}
				}
			}
			if seen != enrolled {
				t.Fatalf("enrolled %v, listed %v", enrolled, seen)
			}
			if f, err := o.ZoneFacts(fcp.ZoneOwner); err == nil {
				all, _, err := f.Facts("user:x", authority.TierSafe, m.Clock.Now())
				if err == nil {
					if _, err := all.Issuers.At(gone.Writer(), m.Clock.Now()); err == nil {
						t.Fatal("a revoked device is attested")
					}
				}
			}
		}
		if !revoked || !enrolled {
			t.Fatal("the events were not told apart")
		}
	}
}
