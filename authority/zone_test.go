package authority

import (
	"testing"

	"fcp"
)

func testZone2(t testing.TB, o *OwnerKey) []byte {
	t.Helper()
	b, err := SignZone(testNow, o, ZoneSpec{ID: "z:work", Name: "Work", Levels: fcp.Levels{Integrity: 60, Confidentiality: 70}, Version: 2,
		Prev: fcp.Hash{1}, Policy: fcp.Hash{2}, SymbolPort: 4101, ControlPort: 4102, Transport: Transport{NoLAN: true, DERP: true}, KEM: KEMHybrid})
	return must(t, b, err)
}

// TestZoneDefinitionHasOneFormatPerContent: a definition says format 2 exactly
// when it has a field of format 2, so that nothing has two encodings.
func TestZoneDefinitionHasOneFormatPerContent(t *testing.T) {
	o := testOwner(t, 1)
	z, err := VerifyZone(o.Public(), testZone2(t, o))
	must(t, z, err)
	want := ZoneSpec{ID: "z:work", Name: "Work", Levels: fcp.Levels{Integrity: 60, Confidentiality: 70}, Version: 2,
		Prev: fcp.Hash{1}, Policy: fcp.Hash{2}, SymbolPort: 4101, ControlPort: 4102, Transport: Transport{NoLAN: true, DERP: true}, KEM: KEMHybrid}
	equal(t, z.Spec(), want)
	equal(t, z.Previous(), Hashref{fcp.Hash{1}, true})
	base := zoneObject{Format: 1, Zone: "z:work", Version: 2, Issuer: o.Public()}
	for name, change := range map[string]func(*zoneObject){
		"format 2 without its fields":  func(z *zoneObject) { z.Format = 2 },
		"format 1 with a port":         func(z *zoneObject) { z.SymbolPort = 1 },
		"format 1 with a kem":          func(z *zoneObject) { z.KEM = KEMHybrid },
		"format 3":                     func(z *zoneObject) { z.Format, z.SymbolPort = 3, 1 },
		"short prev":                   func(z *zoneObject) { z.Format, z.Prev = 2, make([]byte, 31) },
		"prev in version 1":            func(z *zoneObject) { z.Format, z.Version, z.Prev = 2, 1, make([]byte, 32) },
		"short policy":                 func(z *zoneObject) { z.Format, z.Policy = 2, make([]byte, 31) },
		"default transport in full":    func(z *zoneObject) { z.Format, z.Transport = 2, &transportObject{LAN: true} },
		"classic kem in full":          func(z *zoneObject) { z.Format, z.KEM = 2, KEMClassic },
		"unknown kem":                  func(z *zoneObject) { z.Format, z.KEM = 2, 0x11 },
		"unchanged but for the format": func(z *zoneObject) { z.Format = 0 },
	} {
		z := base
		change(&z)
		b, err := signObject(o, fcp.SchemaZoneDefinition, &z, &z.Signature)
		must(t, b, err)
		if _, err := VerifyZone(o.Public(), b); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func TestZoneDefinitionsGoByTheOwnersNumber(t *testing.T) {
	o := testOwner(t, 1)
	define := func(version uint64, prev fcp.Hash, name string) *Zone {
		b, err := SignZone(testNow, o, ZoneSpec{ID: "z:work", Name: name, Version: version, Prev: prev})
		must(t, b, err)
		z, err := VerifyZone(o.Public(), b)
		return must(t, z, err)
	}
	one := define(1, fcp.Hash{}, "one")
	two := define(2, one.Ref(), "two")
	other := define(2, one.Ref(), "other two")
	three := define(3, two.Ref(), "three")
	stray := define(3, fcp.Hash{9}, "stray")
	for _, c := range []struct {
		name   string
		in     []*Zone
		want   *Zone
		reason fcp.Reason
	}{
		{"one", []*Zone{one}, one, ""},
		{"in any order", []*Zone{two, one}, two, ""},
		{"twice", []*Zone{two, one, two}, two, ""},
		{"a gap", []*Zone{one, three}, three, ""},
		{"forked", []*Zone{one, other, two}, other, ReasonVersionForked},
		{"settled by the owner", []*Zone{three, other, two, one}, three, ""},
		{"follows nothing", []*Zone{one, two, stray}, stray, ReasonVersionBroken},
	} {
		var v Versions[*Zone]
		for _, z := range c.in {
			v.Add(z)
		}
		got, ok, err := v.Current()
		wantReason(t, c.name, err, c.reason)
		if !ok || c.reason == "" && got != c.want {
			t.Errorf("%s: %+v", c.name, got.Spec())
		}
	}
	var none Versions[*Zone]
	if _, ok, err := none.Current(); ok || err != nil {
		t.Error("no version is one")
	}
	if _, ok := none.Find(one.Ref()); ok {
		t.Error("found nothing")
	}
}

// wantReason fails unless err has the reason, or is nil when it is "".
func wantReason(t testing.TB, name string, err error, reason fcp.Reason) {
	t.Helper()
	if got := ReasonOf(err); got != reason || reason == "" && err != nil {
		t.Errorf("%s: %v, want %q", name, err, reason)
	}
}
