package authority

import (
	"errors"
	"slices"
	"testing"
	"time"

	"fcp"
)

func testForgetting(t testing.TB, owner *OwnerKey) []byte {
	b, err := SignForgetting(time.Unix(1_700_000_000, 0), owner, ForgettingSpec{Zone: fcp.ZoneWork, Objects: []fcp.ObjectID{{9}, {4}},
		Carriers: []Carriers{{Writer: fcp.WriterID{7}, Incarnation: 9, Runs: []Run{{3, 5}, {9, 9}}}}})
	return must(t, b, err)
}

// TestForgettingNamesExactly: a run is exactly itself, of its feed alone, and only the
// owner's word counts.
func TestForgettingNamesExactly(t *testing.T) {
	owner := testOwner(t, 1)
	b := testForgetting(t, owner)
	f, err := VerifyForgetting(owner.Public(), b)
	must(t, f, err)
	if !slices.Equal(f.Objects(), []fcp.ObjectID{{4}, {9}}) || !f.HasCarriers() || !f.IssuedAt().Equal(time.Unix(1_700_000_000, 0)) {
		t.Fatal(f.Objects(), f.IssuedAt())
	}
	feed := fcp.Feed{Zone: fcp.ZoneWork, Writer: fcp.WriterID{7}, Incarnation: 9, Plane: fcp.PlaneData}
	for seq, want := range map[uint64]bool{1: false, 2: false, 3: true, 4: true, 5: true, 6: false, 8: false, 9: true, 10: false} {
		if f.Carries(feed, seq) != want {
			t.Errorf("event %d", seq)
		}
	}
	for name, change := range map[string]func(*fcp.Feed){
		"zone":        func(x *fcp.Feed) { x.Zone = fcp.ZonePrivate },
		"writer":      func(x *fcp.Feed) { x.Writer = fcp.WriterID{8} },
		"incarnation": func(x *fcp.Feed) { x.Incarnation = 8 },
		"plane":       func(x *fcp.Feed) { x.Plane = fcp.PlaneControl },
	} {
		x := feed
		if change(&x); f.Carries(x, 4) {
			t.Error("another", name)
		}
	}
	if _, err := VerifyForgetting(testOwner(t, 2).Public(), b); !errors.Is(err, fcp.CodeWrongKey) {
		t.Error("of another owner:", err)
	}
	b[len(b)-1] ^= 1
	if _, err := VerifyForgetting(owner.Public(), b); err == nil {
		t.Error("a changed one is believed")
	}
}

func TestForgettingForm(t *testing.T) {
	owner, w := testOwner(t, 1), fcp.WriterID{1}
	many := make([]Run, MaxForgottenRuns+1)
	for i := range many {
		many[i] = Run{uint64(2*i + 1), uint64(2*i + 1)}
	}
	for name, s := range map[string]ForgettingSpec{
		"nothing":         {},
		"no object":       {Objects: []fcp.ObjectID{{}}},
		"an object twice": {Objects: []fcp.ObjectID{{1}, {1}}},
		"too many":        {Objects: slices.Repeat([]fcp.ObjectID{{1}}, MaxForgotten+1)},
		"runs touch":      {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{w, 0, []Run{{1, 2}, {3, 4}}}}},
		"runs overlap":    {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{w, 0, []Run{{1, 4}, {3, 9}}}}},
		"from 0":          {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{w, 0, []Run{{0, 4}}}}},
		"no run":          {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{w, 0, nil}}},
		"too many runs":   {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{w, 0, many}}},
		"a feed twice":    {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{w, 0, []Run{{1, 2}}}, {w, 0, []Run{{1, 2}}}}},
	} {
		s.Zone = fcp.ZoneWork
		if _, err := SignForgetting(time.Unix(1, 0), owner, s); err == nil {
			t.Error(name)
		}
	}
	if _, err := SignForgetting(time.Unix(1, 0), owner, ForgettingSpec{Zone: fcp.ZoneWork, Objects: []fcp.ObjectID{{1}},
		Carriers: []Carriers{{w, 0, many[:MaxForgottenRuns]}}}); err != nil {
		t.Error("as many runs as may be:", err)
	}
}

func FuzzForgetting(f *testing.F) {
	owner := testOwner(f, 1)
	f.Add(testForgetting(f, owner))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := VerifyForgetting(owner.Public(), b)
		if err == nil && (len(x.Objects()) == 0 || !x.Zone().Valid()) {
			t.Errorf("accepted %x", b)
		}
	})
}
