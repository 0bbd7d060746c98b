package authority

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"fcp"
)

func testCheckpointSpec() CheckpointSpec {
	return CheckpointSpec{Zone: fcp.ZonePrivate, Seq: 3, Previous: fcp.Hash{1}, Root: fcp.Hash{2},
		Feeds: []CheckpointFeed{
			{Writer: fcp.WriterID{9}, Incarnation: 1, Plane: uint8(fcp.PlaneData), Seq: 7, Hash: fcp.Hash{3}},
			{Writer: fcp.WriterID{8}, Incarnation: 4, Plane: uint8(fcp.PlaneControl), Seq: 9, Hash: fcp.Hash{4}},
		},
		Retention: Retention{History: 36 * time.Hour, Versions: 2}, Pins: []fcp.ObjectID{{7}, {5}}}
}

func checkpointOwner(t testing.TB, seed byte) *OwnerKey {
	t.Helper()
	o, err := NewOwnerKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 4096)))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCheckpointSaysWhatWasSigned(t *testing.T) {
	owner, now := checkpointOwner(t, 1), time.Unix(1_800_000_000, 5)
	s := testCheckpointSpec()
	b, err := SignCheckpoint(now, owner, s)
	if err != nil {
		t.Fatal(err)
	}
	c, err := VerifyCheckpoint(owner.Public(), b)
	if err != nil {
		t.Fatal(err)
	}
	if c.Zone() != s.Zone || c.Seq() != 3 || c.Previous() != s.Previous || c.Root() != s.Root || c.Retention() != s.Retention ||
		c.CreatedAt().Unix() != now.Unix() || c.Hash() != CheckpointHash(b) {
		t.Fatalf("%+v", c)
	}
	if p := c.Pins(); !reflect.DeepEqual(p, []fcp.ObjectID{{5}, {7}}) {
		t.Fatal(p)
	}
	feed := fcp.Feed{Zone: s.Zone, Writer: fcp.WriterID{9}, Incarnation: 1, Plane: fcp.PlaneData}
	other := feed
	other.Zone = fcp.ZoneWork
	if c.Covers(feed) != 7 || c.Covers(other) != 0 {
		t.Fatal(c.Covers(feed), c.Covers(other))
	}
	if _, err := VerifyCheckpoint(checkpointOwner(t, 2).Public(), b); !errors.Is(err, fcp.CodeWrongKey) {
		t.Fatal(err)
	}
	if _, err := VerifyGenesis(b); err == nil {
		t.Fatal("it passes as a genesis checkpoint")
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := VerifyCheckpoint(owner.Public(), bad); err == nil {
			t.Fatalf("byte %d changed and it verifies", i)
		}
	}
}

func TestCheckpointRefuses(t *testing.T) {
	owner, now := checkpointOwner(t, 1), time.Unix(1_800_000_000, 0)
	for name, change := range map[string]func(*CheckpointSpec){
		"number 0":     func(s *CheckpointSpec) { s.Seq = 0 },
		"no previous":  func(s *CheckpointSpec) { s.Previous = fcp.Hash{} },
		"no root":      func(s *CheckpointSpec) { s.Root = fcp.Hash{} },
		"no feeds":     func(s *CheckpointSpec) { s.Feeds = nil },
		"a feed twice": func(s *CheckpointSpec) { s.Feeds = append(s.Feeds, s.Feeds[0]) },
		"local plane":  func(s *CheckpointSpec) { s.Feeds[0].Plane = uint8(fcp.PlaneLocal) },
		"a pin twice":  func(s *CheckpointSpec) { s.Pins = append(s.Pins, s.Pins[0]) },
		"zone":         func(s *CheckpointSpec) { s.Zone = "nonsense" },
		"too long":     func(s *CheckpointSpec) { s.Retention.History = maxHistory + 1 },
		"negative":     func(s *CheckpointSpec) { s.Retention.History = -1 },
	} {
		s := testCheckpointSpec()
		change(&s)
		if _, err := SignCheckpoint(now, owner, s); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	owner := checkpointOwner(f, 1)
	b, err := SignCheckpoint(time.Unix(1_800_000_000, 0), owner, testCheckpointSpec())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := VerifyCheckpoint(owner.Public(), b)
		if err != nil {
			return
		}
		again, err := SignCheckpoint(c.CreatedAt(), owner, CheckpointSpec{Zone: c.Zone(), Seq: c.Seq(), Previous: c.Previous(), Root: c.Root(),
			Feeds: c.Feeds(), Retention: c.Retention(), Pins: c.Pins()})
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("does not encode back: %v", err)
		}
	})
}
