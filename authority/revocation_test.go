package authority

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
)

func revocationBy(t testing.TB, key AdminKey, s RevocationSpec) *Revocation {
	t.Helper()
	b, err := Revoke(testNow, key, s)
	must(t, b, err)
	u, err := OpenRevocation(adminPublic(key), b)
	return &Revocation{UnverifiedRevocation: *must(t, u, err)}
}

// TestAnAdminsRevocationIsOfWhatItSays: the id of a device, the owner's key or a
// binding, called a token by an admin, is none the less none.
func TestAnAdminsRevocationIsOfWhatItSays(t *testing.T) {
	o, admin := testOwner(t, 1), testNode(t, 7)
	a := authoritiesOf(t, o, testDelegation(t, o, 7, ActionRevoke))
	target := fcp.Hash(testNode(t, 2).Writer())
	b, err := Revoke(testNow, admin, RevocationSpec{Zone: "z:work", Scope: RevokeToken, Targets: []fcp.Hash{target}})
	must(t, b, err)
	u, err := OpenRevocation(o.Public(), b)
	r, err := must(t, u, err).Authorize(a)
	must(t, r, err)
	var s RevocationSet
	s.Add(r)
	if s.Of(target, testNow) != nil || s.Of(target, testNow, RevokeDevice, RevokeAttestation) != nil {
		t.Error("an admin revoked a device by calling it a token")
	}
	if s.Of(target, testNow, RevokeToken) == nil {
		t.Error("an admin's revocation of a token does not count")
	}
	mine, err := Revoke(testNow, o, RevocationSpec{Zone: "z:work", Scope: RevokeToken, Targets: []fcp.Hash{target}})
	must(t, mine, err)
	r, err = VerifyRevocation(o.Public(), mine)
	s.Add(must(t, r, err))
	if s.Of(target, testNow) == nil {
		t.Error("what the owner revokes counts whatever it is called")
	}
}

func TestRevocationsHoldForTheirTime(t *testing.T) {
	o := testOwner(t, 1)
	var s RevocationSet
	forever := revocationBy(t, o, RevocationSpec{Zone: "z:work", Scope: RevokeCapability, Targets: []fcp.Hash{{1}, {2}}})
	short := revocationBy(t, o, RevocationSpec{Zone: "z:work", Scope: RevokeToken, Targets: []fcp.Hash{{3}}, Effective: testNow.Add(time.Hour), Expires: testNow.Add(2 * time.Hour)})
	for _, r := range []*Revocation{forever, short, forever} {
		s.Add(r)
	}
	for _, c := range []struct {
		target fcp.Hash
		at     time.Duration
		want   bool
	}{
		{fcp.Hash{1}, 0, true}, {fcp.Hash{2}, 1000 * day, true}, {fcp.Hash{1}, -time.Second, false}, {fcp.Hash{4}, 0, false},
		{fcp.Hash{3}, 0, false}, {fcp.Hash{3}, time.Hour, true}, {fcp.Hash{3}, 2*time.Hour - time.Second, true}, {fcp.Hash{3}, 2 * time.Hour, false},
	} {
		if got := s.Of(c.target, testNow.Add(c.at)) != nil; got != c.want {
			t.Errorf("%v after %s: %v", c.target[:1], c.at, got)
		}
	}
	if s.At(testNow, RevokeToken)(fcp.Hash{1}) || !s.At(testNow, RevokeToken, RevokeCapability)(fcp.Hash{1}) {
		t.Error("scopes")
	}
	if h := s.Head(); h.Seq != 2 || h.Digest != RevocationDigest(s.Refs()) || h.Digest.IsZero() {
		t.Errorf("%+v", h)
	}
	for name, spec := range map[string]RevocationSpec{
		"nothing":              {Zone: "z:work"},
		"targets of no scope":  {Zone: "z:work", Targets: []fcp.Hash{{1}}},
		"a scope of nothing":   {Zone: "z:work", Scope: RevokeToken, Cuts: []Cut{testCut(1, 1)}},
		"unknown scope":        {Zone: "z:work", Scope: "Capability", Targets: []fcp.Hash{{1}}},
		"a target twice":       {Zone: "z:work", Scope: RevokeToken, Targets: []fcp.Hash{{1}, {1}}},
		"a feed twice":         {Zone: "z:work", Cuts: []Cut{testCut(1, 1), testCut(2, 1)}},
		"a feed elsewhere":     {Zone: "z:private", Cuts: []Cut{testCut(1, 1)}},
		"too many targets":     {Zone: "z:work", Scope: RevokeToken, Targets: make([]fcp.Hash, MaxTargets+1)},
		"too many cuts":        {Zone: "z:work", Cuts: make([]Cut, MaxCuts+1)},
		"ends before it holds": {Zone: "z:work", Scope: RevokeToken, Targets: []fcp.Hash{{1}}, Expires: testNow},
		"bad zone":             {Zone: "work", Scope: RevokeToken, Targets: []fcp.Hash{{1}}},
	} {
		if _, err := Revoke(testNow, o, spec); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	mixed := forever.o
	mixed.Seq = new(uint64)
	raw, err := signObject(o, fcp.SchemaRevocation, &mixed, &mixed.Signature)
	must(t, raw, err)
	_, err = VerifyRevocation(o.Public(), raw)
	wantCode(t, err, fcp.CodeVersion)
}

// TestRevocationRollback: a frontier below one that was accepted is refused, and so
// is another set of the same size.
func TestRevocationRollback(t *testing.T) {
	var f RevocationFrontier
	a, b := RevocationHead{3, fcp.Hash{1}}, RevocationHead{3, fcp.Hash{2}}
	wantReason(t, "first", f.Accept(a), "")
	wantReason(t, "again", f.Accept(a), "")
	wantReason(t, "fewer", f.Accept(RevocationHead{2, fcp.Hash{9}}), ReasonRevocationRollback)
	wantReason(t, "others", f.Accept(b), ReasonRevocationFork)
	wantReason(t, "more", f.Accept(RevocationHead{4, fcp.Hash{3}}), "")
	wantReason(t, "back", f.Accept(a), ReasonRevocationRollback)
}

func TestFreshnessGoesByTier(t *testing.T) {
	for tier, want := range map[Tier]FreshnessPolicy{TierSafe: FreshBestEffort, TierRisky: FreshWarn, TierDangerous: FreshStrict,
		TierCritical: FreshStrict, TierForbidden: FreshStrict, "": FreshStrict} {
		equal(t, FreshnessOf(tier), want)
	}
	equal(t, FreshWarn.Check(1, 2, time.Minute, time.Minute), Freshness{true, true, ReasonStaleWithinAge})
	equal(t, FreshWarn.Check(1, 2, time.Minute+1, time.Minute), Freshness{false, true, ReasonStale})
	equal(t, FreshnessPolicy("other").Check(1, 2, 0, time.Hour), Freshness{false, true, ReasonStale})
}

// TestRevocationStateDoesNotDependOnOrder shuffles revocations, cuts and forks with
// repetitions and compares with the definition.
func TestRevocationStateDoesNotDependOnOrder(t *testing.T) {
	o := testOwner(t, 1)
	var pool []any
	for i := range byte(4) {
		pool = append(pool, revocationBy(t, o, RevocationSpec{Zone: "z:work", Scope: RevokeToken, Targets: []fcp.Hash{{i / 2}}, Reason: string('a' + rune(i))}))
	}
	for seq := range uint64(4) {
		for hash := range byte(2) {
			c := testCut(seq, hash+1)
			if seq == 0 {
				c.Hash = fcp.Hash{}
			}
			pool = append(pool, revocationBy(t, o, RevocationSpec{Zone: "z:work", Cuts: []Cut{c, {Feed: testFeed(2), Seq: seq + 1, Hash: fcp.Hash{7}}}, Reason: string('a' + rune(hash))}))
		}
		pool = append(pool, &Fork{o: forkObject{Seq: seq + 1}, feed: testFeed(1)})
	}
	add := func(s *RevocationSet, x any) {
		if f, ok := x.(*Fork); ok {
			s.AddFork(f)
		} else {
			s.Add(x.(*Revocation))
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		picked := rapid.SliceOfN(rapid.IntRange(0, len(pool)-1), 0, 12).Draw(rt, "set")
		var a, b RevocationSet
		for _, i := range picked {
			add(&a, pool[i])
		}
		for _, i := range rapid.Permutation(append(picked[:len(picked):len(picked)], picked...)).Draw(rt, "order") {
			add(&b, pool[i])
		}
		if a.Head() != b.Head() {
			rt.Fatal("heads differ")
		}
		for _, feed := range []fcp.Feed{testFeed(1), testFeed(2)} {
			if a.VoidFrom(feed) != b.VoidFrom(feed) || a.ForkOf(feed) != b.ForkOf(feed) {
				rt.Fatalf("void from %d and %d", a.VoidFrom(feed), b.VoidFrom(feed))
			}
			for seq := uint64(1); seq < 7; seq++ {
				if want := voidByDefinition(pool, picked, feed, seq); a.Void(feed, seq) != want {
					rt.Fatalf("event %d void: %v", seq, !want)
				}
			}
		}
		for i := range byte(3) {
			if (a.Of(fcp.Hash{i}, testNow) == nil) != (b.Of(fcp.Hash{i}, testNow) == nil) {
				rt.Fatal("targets differ")
			}
		}
	})
}

func voidByDefinition(pool []any, picked []int, feed fcp.Feed, seq uint64) bool {
	var cuts []Cut
	for _, i := range picked {
		if f, ok := pool[i].(*Fork); ok {
			if f.feed == feed && seq >= f.o.Seq {
				return true
			}
			continue
		}
		for _, c := range pool[i].(*Revocation).Cuts() {
			if c.Feed == feed {
				cuts = append(cuts, c)
			}
		}
	}
	for _, c := range cuts {
		if seq > c.Seq {
			return true
		}
		for _, d := range cuts {
			if seq == c.Seq && d.Seq == c.Seq && d.Hash != c.Hash {
				return true
			}
		}
	}
	return false
}
