package authority

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"fcp"
)

func testAck() DeletionAck {
	return DeletionAck{Zone: fcp.ZoneWork, Node: fcp.WriterID{1}, Subject: fcp.Hash{2}, Mark: 7}
}

func testForgetting(t testing.TB, key AdminKey, writer fcp.WriterID) []byte {
	feed := fcp.Feed{Zone: fcp.ZoneWork, Writer: writer, Incarnation: 9, Plane: fcp.PlaneData}
	b, err := SignForgetting(time.Unix(1_700_000_000, 0), key, ForgettingSpec{Zone: fcp.ZoneWork, Objects: []fcp.ObjectID{{9}, {4}},
		Carriers: []Carriers{{Feed: feed, Runs: []Run{{3, 5}, {9, 9}}}}})
	return must(t, b, err)
}

func TestDeletionAck(t *testing.T) {
	b, err := EncodeDeletionAck(testAck())
	must(t, b, err)
	got, err := DecodeDeletionAck(b)
	if must(t, got, err); got != testAck() {
		t.Fatal(got)
	}
	for name, a := range map[string]DeletionAck{
		"no zone":    {Node: fcp.WriterID{1}, Subject: fcp.Hash{2}},
		"no node":    {Zone: fcp.ZoneWork, Subject: fcp.Hash{2}},
		"no subject": {Zone: fcp.ZoneWork, Node: fcp.WriterID{1}},
	} {
		if _, err := EncodeDeletionAck(a); err == nil {
			t.Error(name)
		}
	}
}

// TestForgettingCovers: the owner may have everything forgotten, a node what it wrote
// itself, and a run is exactly itself.
func TestForgettingCovers(t *testing.T) {
	owner, node := testOwner(t, 1), testNode(t, 1)
	other := testNode(t, 2).Writer()
	for _, byOwner := range []bool{true, false} {
		key := AdminKey(node)
		if byOwner {
			key = owner
		}
		b := testForgetting(t, key, node.Writer())
		f, err := OpenForgetting(b)
		must(t, f, err)
		if !slices.Equal(f.Objects(), []fcp.ObjectID{{4}, {9}}) {
			t.Fatal(f.Objects())
		}
		own := fcp.Feed{Zone: fcp.ZoneWork, Writer: node.Writer(), Incarnation: 9, Plane: fcp.PlaneData}
		for seq, want := range map[uint64]bool{2: false, 3: true, 4: true, 5: true, 6: false, 8: false, 9: true, 10: false} {
			if f.Covers(owner.Public(), own, seq, fcp.ObjectID{77}) != want {
				t.Errorf("event %d", seq)
			}
		}
		foreign := own
		foreign.Writer = other
		if f.Covers(owner.Public(), foreign, 1, fcp.ObjectID{4}) != byOwner {
			t.Error("an object in another node's feed, by the owner", byOwner)
		}
		if f.Covers(owner.Public(), foreign, 4, fcp.ObjectID{77}) {
			t.Error("a run of another feed")
		}
		elsewhere := own
		elsewhere.Zone = fcp.ZonePrivate
		if f.Covers(owner.Public(), elsewhere, 3, fcp.ObjectID{4}) {
			t.Error("another zone")
		}
		b[len(b)-1] ^= 1
		if _, err := OpenForgetting(b); !errors.Is(err, fcp.CodeSignature) && !errors.Is(err, fcp.Invalid) {
			t.Error("a changed one:", err)
		}
	}
}

func TestForgettingForm(t *testing.T) {
	owner := testOwner(t, 1)
	feed := fcp.Feed{Zone: fcp.ZoneWork, Writer: fcp.WriterID{1}, Plane: fcp.PlaneData}
	for name, s := range map[string]ForgettingSpec{
		"nothing":         {},
		"an object twice": {Objects: []fcp.ObjectID{{1}, {1}}},
		"too many":        {Objects: slices.Repeat([]fcp.ObjectID{{1}}, MaxForgotten+1)},
		"runs touch":      {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{feed, []Run{{1, 2}, {3, 4}}}}},
		"runs overlap":    {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{feed, []Run{{1, 4}, {3, 9}}}}},
		"from 0":          {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{feed, []Run{{0, 4}}}}},
		"no run":          {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{feed, nil}}},
		"a feed twice":    {Objects: []fcp.ObjectID{{1}}, Carriers: []Carriers{{feed, []Run{{1, 2}}}, {feed, []Run{{1, 2}}}}},
	} {
		s.Zone = fcp.ZoneWork
		if _, err := SignForgetting(time.Unix(1, 0), owner, s); err == nil {
			t.Error(name)
		}
	}
}

func FuzzDeletionAck(f *testing.F) {
	b, err := EncodeDeletionAck(testAck())
	f.Add(must(f, b, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := DecodeDeletionAck(b)
		if err != nil {
			return
		}
		if again, err := EncodeDeletionAck(a); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x is not the one form: %v", b, err)
		}
	})
}

func FuzzForgetting(f *testing.F) {
	f.Add(testForgetting(f, testOwner(f, 1), fcp.WriterID{1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := OpenForgetting(b)
		if err == nil && (len(x.Objects()) == 0 || !x.Zone().Valid()) {
			t.Errorf("accepted %x", b)
		}
	})
}
