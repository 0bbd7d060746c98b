package authority

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"fcp"
)

func testPlacement() *PlacementRules {
	return &PlacementRules{Need: 2, Of: 5, MinNodes: 6, MaxFractionBPS: 3000, TargetCoverageBPS: 30000, Domains: 1, MinSources: 2, LowMark: 4, ControlCopies: 4,
		Preferred: []string{"class:nas", SelectDevice + strings.Repeat("0a", fcp.HashSize)}, Excluded: []string{"class:phone"}}
}

func testPolicy2(t testing.TB, o *OwnerKey) []byte {
	t.Helper()
	rules := testRules()
	rules.Placement = testPlacement()
	b, err := SignPolicy(testNow, o, PolicySpec{Zone: "z:work", Version: 1, PolicyRules: rules})
	return must(t, b, err)
}

func TestPlacementRidesInThePolicy(t *testing.T) {
	o := testOwner(t, 1)
	p, err := VerifyPolicy(o.Public(), testPolicy2(t, o))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Rules().Placement; !reflect.DeepEqual(got, testPlacement()) || p.o.Format != policyFormat2 {
		t.Errorf("%+v in format %d", got, p.o.Format)
	}
	// A rollback brings the placement back too.
	var all Policies
	all.Add(p)
	next, err := all.Next("z:work", testRules())
	all.Add(signedPolicy(t, o, must(t, next, err)))
	back, err := all.Rollback("z:work", 1)
	all.Add(signedPolicy(t, o, must(t, back, err)))
	if cur, err := all.Current(); err != nil || cur.Number() != 3 || cur.Rules().Placement == nil {
		t.Fatal(cur, err)
	}
}

func TestPlacementsThatCannotBeMade(t *testing.T) {
	o := testOwner(t, 1)
	many := make([]string, MaxPlacementSelectors+1)
	for i := range many {
		many[i] = strings.Repeat("a", i+1)
	}
	for name, change := range map[string]func(*PlacementRules){
		"nobody needed":          func(p *PlacementRules) { p.Need = 0 },
		"more needed than there": func(p *PlacementRules) { p.Need = 6 },
		"65 devices":             func(p *PlacementRules) { p.Of = 65 },
		"at least 65":            func(p *PlacementRules) { p.MinNodes = 65 },
		"65 sources":             func(p *PlacementRules) { p.MinSources = 65 },
		"65 control copies":      func(p *PlacementRules) { p.ControlCopies = 65 },
		"more than all":          func(p *PlacementRules) { p.MaxFractionBPS = 10001 },
		"a fraction too small":   func(p *PlacementRules) { p.MaxFractionBPS = 156 },
		"coverage of 65":         func(p *PlacementRules) { p.TargetCoverageBPS = 650000 },
		"all domains":            func(p *PlacementRules) { p.Domains = 5 },
		"low mark at need":       func(p *PlacementRules) { p.LowMark = 2 },
		"low mark above all":     func(p *PlacementRules) { p.LowMark = 6 },
		"unsorted":               func(p *PlacementRules) { p.Preferred = []string{"b", "a"} },
		"twice":                  func(p *PlacementRules) { p.Excluded = []string{"a", "a"} },
		"no tag":                 func(p *PlacementRules) { p.Excluded = []string{"A b"} },
		"no device":              func(p *PlacementRules) { p.Excluded = []string{SelectDevice + "zz"} },
		"a short device":         func(p *PlacementRules) { p.Excluded = []string{SelectDevice + "0a0b"} },
		"too many":               func(p *PlacementRules) { p.Preferred = many },
		"wanted and not":         func(p *PlacementRules) { p.Excluded = []string{"class:nas"} },
	} {
		s := PolicySpec{Zone: "z:work", Version: 1, PolicyRules: PolicyRules{Placement: testPlacement()}}
		change(s.Placement)
		if b, err := SignPolicy(testNow, o, s); err == nil {
			t.Errorf("%s passes with %d bytes", name, len(b))
		}
	}
	if !slices.IsSorted(testPlacement().Preferred) {
		t.Error("the good one is not good")
	}
}

func TestSelectors(t *testing.T) {
	w := fcp.WriterID{1, 2}
	for selector, want := range map[string]bool{"class:nas": true, "class:phone": false, SelectDevice + w.String(): true, SelectDevice + fcp.WriterID{9}.String(): false} {
		if Selects(selector, w, []string{"class:nas", "site:home"}) != want {
			t.Errorf("%s: %v", selector, !want)
		}
	}
}
