package authority

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
)

func testRules() PolicyRules {
	return PolicyRules{
		Principals:     Lists{Allow: Patterns{"user:*"}, Deny: Patterns{"user:eve"}},
		Connectors:     Lists{Deny: Patterns{"*:beta", "shell:*"}},
		Capabilities:   Lists{Allow: Patterns{"mail.*", "object.read"}},
		PrincipalRules: []PrincipalRule{{"user:guest*", TierSafe}, {"*", TierDangerous}},
		FlowRules:      []FlowRule{{"z:work*", "z:public", true}, {"z:*", "z:*", false}},
		MaxAge:         2 * time.Minute, DegradedMode: true, MaxFaults: 1, DegradedMinNodes: 2,
	}
}

func testPolicyBytes(t testing.TB, o *OwnerKey) []byte {
	t.Helper()
	b, err := SignPolicy(testNow, o, PolicySpec{Zone: "z:work", Version: 1, PolicyRules: testRules()})
	return must(t, b, err)
}

func signedPolicy(t testing.TB, o *OwnerKey, s PolicySpec) *Policy {
	t.Helper()
	b, err := SignPolicy(testNow, o, s)
	must(t, b, err)
	p, err := VerifyPolicy(o.Public(), b)
	return must(t, p, err)
}

func TestPolicySaysWhatItWasGiven(t *testing.T) {
	o := testOwner(t, 1)
	p, err := VerifyPolicy(o.Public(), testPolicyBytes(t, o))
	must(t, p, err)
	r := p.Rules()
	for _, c := range []struct {
		what      string
		got, want bool
	}{
		{"denied principal", r.Principals.Denied("user:eve"), true},
		{"other principal", r.Principals.Denied("user:adam"), false},
		{"allowed principal", r.Principals.NotAllowed("user:adam"), false},
		{"unlisted principal", r.Principals.NotAllowed("agent:adam"), true},
		{"denied connector", r.Connectors.Denied("shell:x"), true},
		{"no allow list", r.Connectors.NotAllowed("anything"), false},
		{"allowed capability", r.Capabilities.NotAllowed("mail.send"), false},
		{"unlisted capability", r.Capabilities.NotAllowed("object.write"), true},
		{"forbidden flow", r.FlowForbidden("z:work:lab", "z:public"), true},
		{"other flow", r.FlowForbidden("z:private", "z:public"), false},
		{"guest", r.MaxTier("user:guest7") == TierSafe, true},
		{"anybody", r.MaxTier("agent:x") == TierDangerous, true},
		{"no rule", (&PolicyRules{}).MaxTier("x") == TierForbidden, true},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.what, c.got)
		}
	}
	equal(t, p.Zone(), fcp.ZoneWork)
	equal(t, p.CreatedAt(), testNow)
	if _, err := VerifyPolicy(testOwner(t, 2).Public(), testPolicyBytes(t, o)); fcp.CodeOf(err) != fcp.CodeWrongKey {
		t.Error(err)
	}
}

func TestPoliciesThatCannotBeMade(t *testing.T) {
	o := testOwner(t, 1)
	many := make(Patterns, MaxPatterns+1)
	for i := range many {
		many[i] = Pattern(strings.Repeat("a", i%100+1))
	}
	for name, change := range map[string]func(*PolicySpec){
		"bad zone":                func(s *PolicySpec) { s.Zone = "work" },
		"version 0":               func(s *PolicySpec) { s.Version = 0 },
		"version 1 with prev":     func(s *PolicySpec) { s.Prev = fcp.Hash{1} },
		"version 2 without prev":  func(s *PolicySpec) { s.Version = 2 },
		"restores itself":         func(s *PolicySpec) { s.Restores = 1 },
		"negative age":            func(s *PolicySpec) { s.MaxAge = -time.Second },
		"half a second":           func(s *PolicySpec) { s.MaxAge = time.Second / 2 },
		"a year":                  func(s *PolicySpec) { s.MaxAge = 365 * 24 * time.Hour },
		"empty pattern":           func(s *PolicySpec) { s.Principals.Allow = Patterns{""} },
		"unsorted patterns":       func(s *PolicySpec) { s.Connectors.Allow = Patterns{"b", "a"} },
		"a pattern twice":         func(s *PolicySpec) { s.Capabilities.Deny = Patterns{"a", "a"} },
		"too many patterns":       func(s *PolicySpec) { s.Principals.Deny = many },
		"long pattern":            func(s *PolicySpec) { s.Connectors.Deny = Patterns{Pattern(strings.Repeat("a", MaxPattern+1))} },
		"pattern with a space":    func(s *PolicySpec) { s.Capabilities.Allow = Patterns{"a b"} },
		"pattern with an accent":  func(s *PolicySpec) { s.Capabilities.Allow = Patterns{"é"} },
		"unknown tier":            func(s *PolicySpec) { s.PrincipalRules = []PrincipalRule{{"*", "reckless"}} },
		"flow to an empty zone":   func(s *PolicySpec) { s.FlowRules = []FlowRule{{"*", "", true}} },
		"too many rules":          func(s *PolicySpec) { s.FlowRules = make([]FlowRule, maxPolicyRules+1) },
		"too many principal rule": func(s *PolicySpec) { s.PrincipalRules = make([]PrincipalRule, maxPolicyRules+1) },
	} {
		s := PolicySpec{Zone: "z:work", Version: 1}
		change(&s)
		if b, err := SignPolicy(testNow, o, s); err == nil {
			t.Errorf("%s passes with %d bytes", name, len(b))
		}
	}
}

func TestARollbackIsANewVersionWithOldRules(t *testing.T) {
	o := testOwner(t, 1)
	var all Policies
	if cur, err := all.Current(); cur != nil || err != nil {
		t.Fatal("a policy out of nothing")
	}
	issue := func(s PolicySpec, err error) *Policy {
		t.Helper()
		must(t, s, err)
		p := signedPolicy(t, o, s)
		all.Add(p)
		return p
	}
	one := issue(all.Next("z:work", testRules()))
	two := issue(all.Next("z:work", PolicyRules{}))
	if cur, err := all.Current(); err != nil || cur != two {
		t.Fatal(err)
	}
	back := issue(all.Rollback("z:work", 1))
	cur, err := all.Current()
	if must(t, cur, err); cur != back || cur.Number() != 3 || !sameRules(&cur.o, &one.o) || cur.Spec().Restores != 1 {
		t.Fatalf("%+v", cur.Spec())
	}
	_, err = all.Rollback("z:work", 9)
	wantCode(t, err, fcp.CodeNotFound)

	// The owner's device that was offline signs another number 3: halt, and go on
	// with number 4 over one of the two.
	fork := signedPolicy(t, o, PolicySpec{Zone: "z:work", Version: 3, Prev: two.Ref()})
	all.Add(fork)
	_, err = all.Current()
	wantReason(t, "fork", err, ReasonVersionForked)
	_, err = all.Rollback("z:work", 3)
	wantReason(t, "rollback to a fork", err, ReasonVersionForked)
	four := issue(all.Next("z:work", PolicyRules{}))
	if cur, err := all.Current(); err != nil || cur != four {
		t.Fatal(err)
	}
	// One that claims to restore version 1 and does not.
	lie := signedPolicy(t, o, PolicySpec{Zone: "z:work", Version: 5, Prev: four.Ref(), Restores: 1})
	all.Add(lie)
	_, err = all.Current()
	wantReason(t, "false rollback", err, ReasonVersionRollback)
}

func TestPolicyStateDoesNotDependOnOrder(t *testing.T) {
	o := testOwner(t, 1)
	var pool []*Policy
	prev := fcp.Hash{}
	for v := uint64(1); v <= 4; v++ {
		p := signedPolicy(t, o, PolicySpec{Zone: "z:work", Version: v, Prev: prev})
		q := signedPolicy(t, o, PolicySpec{Zone: "z:work", Version: v, Prev: prev, PolicyRules: PolicyRules{MaxFaults: 1}})
		pool = append(pool, p, q)
		prev = p.Ref()
	}
	rapid.Check(t, func(rt *rapid.T) {
		set := rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 1, len(pool), rapid.ID).Draw(rt, "set")
		var a, b Policies
		for _, p := range set {
			a.Add(p)
		}
		for _, p := range rapid.Permutation(append(set[:len(set):len(set)], set...)).Draw(rt, "order") {
			b.Add(p)
		}
		x, ex := a.Current()
		y, ey := b.Current()
		if x != y || ReasonOf(ex) != ReasonOf(ey) {
			rt.Fatalf("%v %v / %v %v", x, ex, y, ey)
		}
	})
}

// TestPatternsMatchAsTheirRegularExpression compares with the definition.
func TestPatternsMatchAsTheirRegularExpression(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		p := Pattern(rapid.StringMatching(`[ab*.]{1,8}`).Draw(rt, "pattern"))
		s := rapid.StringMatching(`[ab.]{0,10}`).Draw(rt, "text")
		parts := strings.Split(string(p), "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		want := regexp.MustCompile(`^(?s:` + strings.Join(parts, ".*") + `)$`).MatchString(s)
		if got := p.Match(s); got != want {
			rt.Fatalf("%q matches %q: %v", p, s, got)
		}
	})
	for _, p := range []Pattern{"", Pattern(strings.Repeat("*", MaxPattern+1)), "a\n"} {
		if p.Match(string(p)) || p.Valid() {
			t.Errorf("%q matches", p)
		}
	}
	long := Pattern(strings.Repeat("*a", MaxPattern/2))
	if long.Match(strings.Repeat("a", 1<<16) + "b") {
		t.Error("matches")
	}
}
