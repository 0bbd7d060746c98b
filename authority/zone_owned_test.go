package authority

import (
	"slices"
	"testing"
	"time"

	"fcp"
)

const day = 24 * time.Hour

// controlSamples are the signed objects of the control plane besides zones,
// policies and keys.
func controlSamples(t testing.TB, o *OwnerKey) map[string]signedSample {
	t.Helper()
	node := testNode(t, 1)
	hybrid, err := node.Hybrid()
	must(t, hybrid, err)
	issued := func(b []byte, err error) []byte { return must(t, b, err) }
	return map[string]signedSample{
		"device": {issued(SignDevice(testNow, o, DeviceSpec{Node: node.Public(), Name: "laptop"})),
			func(b []byte) error { _, err := VerifyDevice(o.Public(), b); return err }},
		"device 2": {issued(SignDevice(testNow, o, DeviceSpec{Node: node.Public(), Name: "laptop", Hybrid: hybrid, Tags: []string{"laptop", "display"}[1:]})),
			func(b []byte) error { _, err := VerifyDevice(o.Public(), b); return err }},
		"revocation 2": {issued(Revoke(testNow, o, RevocationSpec{Zone: "z:work", Scope: RevokeDevice, Targets: []fcp.Hash{{9}, {3}},
			Cuts: []Cut{testCut(41, 9), {Feed: testFeed(2), Seq: 0}}, Reason: "lost", Expires: testNow.Add(day)})),
			func(b []byte) error { _, err := VerifyRevocation(o.Public(), b); return err }},
		"attestation": {testAttestation(t, o, 1, 0, 90*day), func(b []byte) error { _, err := OpenAttestation(b); return err }},
		"delegation": {testDelegation(t, o, 7, ActionGrant, ActionRevoke),
			func(b []byte) error { _, err := VerifyDelegation(o.Public(), b); return err }},
		"issuers": {issued(SignIssuerSet(o, testIssuers(t))), func(b []byte) error { _, err := VerifyIssuerSet(o.Public(), b); return err }},
		"role": {issued(SignRole(testNow, o, RoleSpec{Zone: "z:work", ID: "role:reader", Version: 1, Capabilities: Patterns{"object.*"}, MaxTier: TierRisky})),
			func(b []byte) error { _, err := VerifyRole(o.Public(), b); return err }},
		"assignment": {issued(SignAssignment(o, AssignmentSpec{Zone: "z:work", Role: "role:reader", Principal: "user:alice", From: testNow, Until: testNow.Add(day)})),
			func(b []byte) error { _, err := OpenAssignment(b); return err }},
	}
}

func testAttestation(t testing.TB, key AdminKey, node byte, from, until time.Duration) []byte {
	t.Helper()
	b, err := SignAttestation(key, AttestationSpec{Node: testNode(t, node).Public(), From: testNow.Add(from), Until: testNow.Add(until)})
	return must(t, b, err)
}

func testDelegation(t testing.TB, o *OwnerKey, admin byte, actions ...Action) []byte {
	t.Helper()
	b, err := SignDelegation(o, DelegationSpec{Admin: testNode(t, admin).Public().Signing, Actions: actions, Zones: Patterns{"z:owner", "z:work*"},
		From: testNow, Until: testNow.Add(MaxDelegationAge)})
	return must(t, b, err)
}

func testIssuers(t testing.TB) IssuerSetSpec {
	a, b := testNode(t, 1).Writer(), testNode(t, 2).Writer()
	s := IssuerSetSpec{Zone: "z:work", ID: "issuers:main", Version: 1, Threshold: 1, From: testNow, Until: testNow.Add(day),
		Issuers: []IssuerSpec{{a, Patterns{"mail.*", "object.*"}}, {b, Patterns{"object.*"}}}}
	slices.SortFunc(s.Issuers, func(x, y IssuerSpec) int { return compareHash(fcp.Hash(x.Writer), fcp.Hash(y.Writer)) })
	return s
}

func authoritiesOf(t testing.TB, o *OwnerKey, delegations ...[]byte) *Authorities {
	t.Helper()
	a := &Authorities{Owner: o.Public()}
	for _, b := range delegations {
		d, err := VerifyDelegation(o.Public(), b)
		a.Add(must(t, d, err))
	}
	return a
}

func attested(t testing.TB, a *Authorities, bodies ...[]byte) *Attestations {
	t.Helper()
	out := new(Attestations)
	for _, b := range bodies {
		u, err := OpenAttestation(b)
		must(t, u, err)
		x, err := u.Authorize(a)
		out.Add(must(t, x, err))
	}
	return out
}

// TestDelegationsAreRefusedOutsideTheirScope is the attack table of delegations.
func TestDelegationsAreRefusedOutsideTheirScope(t *testing.T) {
	o := testOwner(t, 1)
	a := authoritiesOf(t, o, testDelegation(t, o, 7, ActionGrant, ActionRevoke), testDelegation(t, o, 8, ActionAttest))
	seven, eight, nine := OwnerPublic(testNode(t, 7).Public().Signing), OwnerPublic(testNode(t, 8).Public().Signing), OwnerPublic(testNode(t, 9).Public().Signing)
	for _, c := range []struct {
		name   string
		issuer OwnerPublic
		action Action
		zone   fcp.ZoneID
		at     time.Time
		reason fcp.Reason
	}{
		{"the owner", o.Public(), ActionRole, "z:private", testNow.Add(-1000 * day), ""},
		{"in scope", seven, ActionGrant, "z:work:lab", testNow, ""},
		{"a stranger", nine, ActionGrant, "z:work", testNow, ReasonNotOwner},
		{"another action", seven, ActionAttest, "z:work", testNow, ReasonDelegationScope},
		{"another admin's action", eight, ActionGrant, "z:work", testNow, ReasonDelegationScope},
		{"another zone", seven, ActionGrant, "z:private", testNow, ReasonDelegationScope},
		{"too early", seven, ActionGrant, "z:work", testNow.Add(-time.Second), ReasonDelegationFuture},
		{"the last second", seven, ActionGrant, "z:work", testNow.Add(MaxDelegationAge - time.Second), ""},
		{"expired", seven, ActionGrant, "z:work", testNow.Add(MaxDelegationAge), ReasonDelegationExpired},
	} {
		wantReason(t, c.name, a.Permit(c.issuer, c.action, c.zone, c.at), c.reason)
	}
	gone := a.delegations[0].Ref()
	a.RevokedBy(func(ref fcp.Hash) bool { return ref == gone })
	wantReason(t, "revoked", a.Permit(seven, ActionGrant, "z:work", testNow), ReasonDelegationWithdrawn)
	for name, change := range map[string]func(*DelegationSpec){
		"91 days":           func(s *DelegationSpec) { s.Until = s.From.Add(MaxDelegationAge + time.Second) },
		"backwards":         func(s *DelegationSpec) { s.Until = s.From },
		"nothing":           func(s *DelegationSpec) { s.Actions = nil },
		"nowhere":           func(s *DelegationSpec) { s.Zones = nil },
		"unknown action":    func(s *DelegationSpec) { s.Actions = []Action{"policy"} },
		"unsorted":          func(s *DelegationSpec) { s.Actions = []Action{ActionRevoke, ActionGrant} },
		"the owner himself": func(s *DelegationSpec) { s.Admin = SigningPublic(o.Public()) },
	} {
		s := DelegationSpec{Admin: testNode(t, 7).Public().Signing, Actions: []Action{ActionGrant}, Zones: Patterns{"*"}, From: testNow, Until: testNow.Add(day)}
		change(&s)
		if _, err := SignDelegation(o, s); err == nil {
			t.Errorf("a delegation of %s", name)
		}
	}
}

// TestAnAdminDoesNotGetBeyondItsDelegation signs real objects with an admin's key.
func TestAnAdminDoesNotGetBeyondItsDelegation(t *testing.T) {
	o, admin := testOwner(t, 1), testNode(t, 7)
	a := authoritiesOf(t, o, testDelegation(t, o, 7, ActionRevoke), testDelegation(t, o, 8, ActionAttest))
	revoke := func(s RevocationSpec) error {
		s.Zone = "z:work"
		b, err := Revoke(testNow, admin, s)
		must(t, b, err)
		if _, err := VerifyRevocation(o.Public(), b); fcp.CodeOf(err) != fcp.CodeWrongKey {
			t.Errorf("passes for the owner's: %v", err)
		}
		r, err := OpenRevocation(o.Public(), b)
		if err != nil {
			return err
		}
		_, err = r.Authorize(a)
		return err
	}
	target := []fcp.Hash{{1}}
	wantReason(t, "a grant", revoke(RevocationSpec{Scope: RevokeCapability, Targets: target}), "")
	wantReason(t, "a device", revoke(RevocationSpec{Scope: RevokeDevice, Targets: target}), ReasonAdminScope)
	wantReason(t, "its own delegation", revoke(RevocationSpec{Scope: RevokeDelegation, Targets: target}), ReasonAdminScope)
	wantReason(t, "a cut", revoke(RevocationSpec{Scope: RevokeToken, Targets: target, Cuts: []Cut{testCut(1, 1)}}), ReasonAdminCut)
	withdrawn := a.delegations[0].Ref()
	a.RevokedBy(func(ref fcp.Hash) bool { return ref == withdrawn })
	wantReason(t, "a grant, by an admin withdrawn since", revoke(RevocationSpec{Scope: RevokeCapability, Targets: target}), "")
	a.RevokedBy(nil)
	u, err := OpenAttestation(testAttestation(t, admin, 3, 0, day))
	must(t, u, err)
	_, err = u.Authorize(a)
	wantReason(t, "an attestation without the right", err, ReasonDelegationScope)
	u, err = OpenAttestation(testAttestation(t, testNode(t, 8), 3, 0, day))
	must(t, u, err)
	_, err = u.Authorize(a)
	wantReason(t, "an attestation with it", err, "")
	u, err = OpenAttestation(testAttestation(t, testNode(t, 8), 3, 100*day, 101*day))
	must(t, u, err)
	_, err = u.Authorize(a)
	wantReason(t, "an attestation after its end", err, ReasonDelegationExpired)
}

// TestAttestationLookup is the attack table of kids and attestations.
func TestAttestationLookup(t *testing.T) {
	o := testOwner(t, 1)
	a := attested(t, authoritiesOf(t, o), testAttestation(t, o, 1, 0, 90*day), testAttestation(t, o, 1, 45*day, 135*day), testAttestation(t, o, 2, 0, day))
	one, two := testNode(t, 1).Public(), testNode(t, 2).Public()
	kid := func(p NodePublic) fcp.Kid { return fcp.KidOf(p.Issuance[:]) }
	for _, c := range []struct {
		name   string
		kid    fcp.Kid
		node   fcp.WriterID
		at     time.Duration
		want   IssuancePublic
		reason fcp.Reason
	}{
		{"good", kid(one), one.Writer(), 0, one.Issuance, ""},
		{"renewed", kid(one), one.Writer(), 100 * day, one.Issuance, ""},
		{"expired", kid(one), one.Writer(), 135 * day, IssuancePublic{}, ReasonAttestationExpired},
		{"not yet", kid(one), one.Writer(), -day, IssuancePublic{}, ReasonAttestationFuture},
		{"unknown kid", fcp.Kid{1}, one.Writer(), 0, IssuancePublic{}, ReasonKidUnknown},
		{"another node's kid", kid(two), one.Writer(), 0, IssuancePublic{}, ReasonKidOfAnother},
		{"the kid of its signing key", fcp.KidOf(one.Signing[:]), one.Writer(), 0, IssuancePublic{}, ReasonKidOfAnother},
	} {
		got, err := a.Issuer(c.kid, c.node, testNow.Add(c.at))
		wantReason(t, c.name, err, c.reason)
		equal(t, got, c.want)
	}
	// Somebody found a key with the kid of node 1. It is his, not node 1's.
	thief := testNode(t, 3)
	x := attested(t, authoritiesOf(t, o), testAttestation(t, o, 3, 0, day)).byWriter[thief.Writer()][0]
	a.byWriter[thief.Writer()] = []*Attestation{x}
	a.byKid[kid(one)] = append([]*Attestation{x}, a.byKid[kid(one)]...)
	got, err := a.Issuer(kid(one), one.Writer(), testNow)
	wantReason(t, "collision", err, "")
	equal(t, got, one.Issuance)
	_, err = a.Issuer(kid(one), thief.Writer(), testNow)
	wantReason(t, "collision used by the thief", err, ReasonKidOfAnother)

	lost := fcp.Hash(one.Writer())
	a.RevokedBy(func(h fcp.Hash) bool { return h == lost })
	_, err = a.At(one.Writer(), testNow)
	wantReason(t, "revoked node", err, ReasonAttestationRevoked)
	_, err = a.Issuer(kid(one), one.Writer(), testNow)
	wantReason(t, "revoked node's kid", err, ReasonAttestationRevoked)
	_, err = a.At(fcp.WriterID{1}, testNow)
	wantReason(t, "no attestation", err, ReasonAttestationMissing)
	if _, ok := a.SigningKey(testNow)(two.Writer()); !ok {
		t.Error("node 2 has no key")
	}
	if len(a.Writers()) != 3 {
		t.Error("writers")
	}
	y := a.byWriter[two.Writer()][0]
	if y.RenewAt() != testNow.Add(day/2) {
		t.Errorf("renewed at %s", y.RenewAt())
	}
	if _, err := SignAttestation(o, AttestationSpec{Node: one, From: testNow, Until: testNow.Add(MaxAttestation + time.Second)}); err == nil {
		t.Error("longer than the limit")
	}
}

func TestIssuerSetLetsOnlyItsMembersThrough(t *testing.T) {
	o := testOwner(t, 1)
	issued := func(change func(*IssuerSetSpec)) *IssuerSet {
		s := testIssuers(t)
		change(&s)
		b, err := SignIssuerSet(o, s)
		must(t, b, err)
		x, err := VerifyIssuerSet(o.Public(), b)
		return must(t, x, err)
	}
	one, two, three := testNode(t, 1).Writer(), testNode(t, 2).Writer(), testNode(t, 3).Writer()
	plain, both := issued(func(*IssuerSetSpec) {}), issued(func(s *IssuerSetSpec) { s.Threshold, s.ID = 2, "issuers:both" })
	for _, c := range []struct {
		name   string
		set    *IssuerSet
		cap    fcp.CanonicalID
		at     time.Duration
		by     []fcp.WriterID
		reason fcp.Reason
	}{
		{"a member", plain, "mail.send", 0, []fcp.WriterID{one}, ""},
		{"a stranger", plain, "mail.send", 0, []fcp.WriterID{three}, ReasonIssuerNotInSet},
		{"a stranger beside a member", plain, "mail.send", 0, []fcp.WriterID{one, three}, ReasonIssuerNotInSet},
		{"another capability", plain, "mail.send", 0, []fcp.WriterID{two}, ReasonIssuerCapability},
		{"nobody", plain, "mail.send", 0, nil, ReasonIssuerThreshold},
		{"one of two", both, "object.read", 0, []fcp.WriterID{one}, ReasonIssuerThreshold},
		{"one twice", both, "object.read", 0, []fcp.WriterID{one, one}, ReasonIssuerThreshold},
		{"two of two", both, "object.read", 0, []fcp.WriterID{one, two}, ""},
		{"expired", plain, "mail.send", day, []fcp.WriterID{one}, ReasonIssuerExpired},
		{"not yet", plain, "mail.send", -time.Second, []fcp.WriterID{one}, ReasonIssuerFuture},
	} {
		wantReason(t, c.name, c.set.Permit(c.cap, testNow.Add(c.at), c.by...), c.reason)
	}
	var sets IssuerSets
	_, err := sets.Permit("mail.send", testNow, one)
	wantReason(t, "no set", err, ReasonIssuerNoSet)
	sets.Add(both)
	_, err = sets.Permit("object.read", testNow, one)
	wantReason(t, "only the strict set", err, ReasonIssuerThreshold)
	sets.Add(plain)
	got, err := sets.Permit("object.read", testNow, one)
	if must(t, got, err) != plain {
		t.Error("the other set")
	}
	// A new version takes the right away.
	sets = IssuerSets{}
	sets.Add(plain)
	sets.Add(issued(func(s *IssuerSetSpec) { s.Version, s.Prev, s.Issuers = 2, plain.Ref(), s.Issuers[1:] }))
	first := testIssuers(t).Issuers[0].Writer
	_, err = sets.Permit("mail.send", testNow, first)
	wantReason(t, "after the removal", err, ReasonIssuerNotInSet)
	for name, change := range map[string]func(*IssuerSetSpec){
		"no member":     func(s *IssuerSetSpec) { s.Issuers = nil },
		"threshold 0":   func(s *IssuerSetSpec) { s.Threshold = 0 },
		"threshold 3":   func(s *IssuerSetSpec) { s.Threshold = 3 },
		"unsorted":      func(s *IssuerSetSpec) { slices.Reverse(s.Issuers) },
		"member twice":  func(s *IssuerSetSpec) { s.Issuers = append(s.Issuers[:1:1], s.Issuers[0]) },
		"no capability": func(s *IssuerSetSpec) { s.Issuers = []IssuerSpec{{Writer: one}} },
		"bad id":        func(s *IssuerSetSpec) { s.ID = "Main" },
		"bad zone":      func(s *IssuerSetSpec) { s.Zone = "work" },
		"version 0":     func(s *IssuerSetSpec) { s.Version = 0 },
		"prev too soon": func(s *IssuerSetSpec) { s.Prev = fcp.Hash{1} },
		"backwards":     func(s *IssuerSetSpec) { s.Until = s.From },
	} {
		s := testIssuers(t)
		change(&s)
		if _, err := SignIssuerSet(o, s); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestRolesPermitWhatTheySay(t *testing.T) {
	o := testOwner(t, 1)
	var r Roles
	if !r.Empty() {
		t.Error("not empty")
	}
	b, err := SignRole(testNow, o, RoleSpec{Zone: "z:work", ID: "role:reader", Version: 1, Capabilities: Patterns{"object.*"}, MaxTier: TierRisky})
	must(t, b, err)
	role, err := VerifyRole(o.Public(), b)
	r.Add(must(t, role, err))
	b, err = SignAssignment(o, AssignmentSpec{Zone: "z:work", Role: "role:reader", Principal: "user:alice", From: testNow, Until: testNow.Add(day)})
	must(t, b, err)
	u, err := OpenAssignment(b)
	must(t, u, err)
	x, err := u.Authorize(authoritiesOf(t, o))
	r.Assign(must(t, x, err))
	r.Assign(x)
	for _, c := range []struct {
		name       string
		principal  fcp.CanonicalID
		capability fcp.CanonicalID
		tier       Tier
		at         time.Duration
		reason     fcp.Reason
	}{
		{"in the role", "user:alice", "object.read", TierRisky, 0, ""},
		{"nobody", "user:bob", "object.read", TierSafe, 0, ReasonRoleMissing},
		{"another capability", "user:alice", "mail.send", TierSafe, 0, ReasonRoleScope},
		{"worse", "user:alice", "object.read", TierDangerous, 0, ReasonRoleTier},
		{"over", "user:alice", "object.read", TierSafe, day, ReasonRoleExpired},
	} {
		wantReason(t, c.name, r.Permit(c.principal, c.capability, c.tier, testNow.Add(c.at), nil), c.reason)
	}
	gone := func(h fcp.Hash) bool { return h == x.Ref() }
	wantReason(t, "revoked", r.Permit("user:alice", "object.read", TierSafe, testNow, gone), ReasonRoleRevoked)
}

func TestQuorumsIntersectInAnHonestMember(t *testing.T) {
	for n := 1; n <= 40; n++ {
		for f := 0; 3*f < n; f++ {
			q := Quorum{n, f}
			if k := q.Intersecting(); !q.Valid() || 2*k-n < f+1 || k > n-f || k-1 >= 1 && 2*(k-1)-n >= f+1 {
				t.Errorf("%+v: %d", q, k)
			}
		}
		if (Quorum{n, (n + 2) / 3}).Valid() {
			t.Errorf("%d members survive %d liars", n, (n+2)/3)
		}
	}
	for _, q := range []Quorum{{0, 0}, {-1, 0}, {3, -1}, {MaxMembers + 1, 0}} {
		if q.Valid() {
			t.Errorf("%+v", q)
		}
	}
}

// TestSignatureSets is the attack table of sets of signatures.
func TestSignatureSets(t *testing.T) {
	message := []byte("FCP2-TEST message")
	nodes := []*NodeKeys{testNode(t, 1), testNode(t, 2), testNode(t, 3)}
	slices.SortFunc(nodes, func(a, b *NodeKeys) int { return compareHash(fcp.Hash(a.Writer()), fcp.Hash(b.Writer())) })
	keys := func(w fcp.WriterID) (SigningPublic, bool) {
		for _, n := range nodes[:2] {
			if n.Writer() == w {
				return n.Public().Signing, true
			}
		}
		return SigningPublic{}, false
	}
	sig := func(i int) NodeSignature { return signNode(nodes[i], message, 5) }
	bad := sig(0)
	bad.Signature[9] ^= 1
	odd := sig(0)
	odd.Node = "laptop"
	for _, c := range []struct {
		name   string
		set    []NodeSignature
		reason fcp.Reason
	}{
		{"good", []NodeSignature{sig(0), sig(1)}, ""},
		{"duplicate", []NodeSignature{sig(0), sig(0)}, ReasonSignatureDuplicate},
		{"unsorted", []NodeSignature{sig(1), sig(0)}, ReasonSignatureOrder},
		{"stranger", []NodeSignature{sig(0), sig(2)}, ReasonSignerUnknown},
		{"broken", []NodeSignature{bad, sig(1)}, ReasonSignatureInvalid},
	} {
		s := signatureSet{c.set}
		_, err := s.verify(message, keys)
		wantReason(t, c.name, err, c.reason)
	}
	if _, err := (&signatureSet{[]NodeSignature{odd}}).verify(message, keys); err == nil {
		t.Error("a node id that is none")
	}
	var s signatureSet
	for _, i := range []int{1, 0} {
		if err := s.add(sig(i)); err != nil {
			t.Fatal(err)
		}
	}
	if s.Signatures[0].Node >= s.Signatures[1].Node {
		t.Error("not sorted")
	}
	wantReason(t, "signed twice", s.add(sig(0)), ReasonSignatureDuplicate)
	if _, err := (&signatureSet{[]NodeSignature{sig(0)}}).verify(message, func(fcp.WriterID) (SigningPublic, bool) { return nodes[1].Public().Signing, true }); ReasonOf(err) != ReasonSignerUnknown {
		t.Error("a key of another node counts", err)
	}
}
