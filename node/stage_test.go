package node

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"fcp"
)

// access is one read, for the tests of the predictor.
type access struct {
	at  int64
	key string
}

func someAccesses(r *rand.Rand, n int) (out []access) {
	at := int64(1e9)
	for range n {
		at += r.Int64N(3 * 24 * 3600)
		out = append(out, access{at, fmt.Sprint(r.IntN(8))})
	}
	return out
}

func record(list []access, shift int64) *accesses {
	a := &accesses{}
	for _, x := range list {
		a.touch(time.Unix(x.at+shift, 0), fcp.ZoneWork, x.key)
	}
	return a
}

func keysOf(list []Access) (out []string) {
	for _, x := range list {
		out = append(out, x.Key)
	}
	return out
}

// TestThePredictorKeepsItsLaws holds it to what it promises, over random histories.
func TestThePredictorKeepsItsLaws(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 3))
		list := someAccesses(r, 1+r.IntN(40))
		end := list[len(list)-1].at + r.Int64N(60*24*3600)
		a := record(list, 0)
		ranks := a.ranked(end)

		// The order does not depend on when the whole history was.
		shift := r.Int64N(1 << 32)
		if got := record(list, shift).ranked(end + shift); !slices.Equal(keysOf(got), keysOf(ranks)) {
			t.Fatalf("seed %d: a shift in time changes the order", seed)
		}
		// A score never grows by itself, and half of it is left after a week.
		for k, s := range a.scores {
			later := s.at + r.Int64N(100*24*3600)
			if x, y := s.now(later), s.now(later+r.Int64N(30*24*3600)); y > x || x > s.score {
				t.Fatalf("seed %d: %v grows from %d to %d", seed, k, x, y)
			}
			if got := s.now(s.at + int64(accessHalf/time.Second)); got != s.score/2 {
				t.Fatalf("seed %d: %d is left of %d after a week", seed, got, s.score)
			}
		}
		// Another read of a name makes it more wanted, and nothing else.
		more := ranks[r.IntN(len(ranks))].Key
		again := record(append(slices.Clone(list), access{end, more}), 0).ranked(end)
		if was, is := slices.Index(keysOf(ranks), more), slices.Index(keysOf(again), more); is > was {
			t.Fatalf("seed %d: one more read lowers a name from %d to %d", seed, was, is)
		}
		others := func(l []Access) []Access {
			return slices.DeleteFunc(slices.Clone(l), func(x Access) bool { return x.Key == more })
		}
		if !slices.Equal(others(again), others(ranks)) {
			t.Fatalf("seed %d: a read of one name changes another", seed)
		}
		// What is kept comes back.
		b, err := a.encode()
		if err != nil {
			t.Fatal(err)
		}
		l, err := decodeAccesses(b)
		if err != nil {
			t.Fatal(err)
		}
		back := &accesses{}
		back.load(l)
		if !slices.Equal(back.ranked(end), ranks) {
			t.Fatalf("seed %d: the record does not come back", seed)
		}
	}
}

// TestTheRecordOfAccessesIsBounded: however many names are read, so many are
// remembered, and the most wanted ones stay.
func TestTheRecordOfAccessesIsBounded(t *testing.T) {
	a := &accesses{}
	now := time.Unix(1e9, 0)
	for range 3 {
		a.touch(now, fcp.ZoneWork, "often")
	}
	for i := range 3 * maxAccesses {
		a.touch(now, fcp.ZoneWork, fmt.Sprint("once ", i))
		if len(a.scores) > maxAccesses {
			t.Fatal(len(a.scores), "names are remembered")
		}
	}
	if a.ranked(now.Unix())[0].Key != "often" {
		t.Error("the most wanted name was forgotten")
	}
	for _, bad := range []string{"", "\xff", string(make([]byte, fcp.MaxKey+1))} {
		before := len(a.scores)
		if a.touch(now, fcp.ZoneWork, bad); len(a.scores) != before {
			t.Errorf("%q is remembered", bad)
		}
	}
	if b, err := a.encode(); err != nil || len(b) > 8<<20 {
		t.Error(len(b), "bytes:", err)
	}
	for range 1000 { // a score has an end
		for i := 0; i < 100; i++ {
			a.touch(now, fcp.ZoneWork, "often")
		}
	}
	if s := a.scores[accessKey{fcp.ZoneWork, "often"}]; s.score > accessMost {
		t.Error("a score of", s.score)
	}
}

// FuzzAccesses decodes hostile records.
func FuzzAccesses(f *testing.F) {
	b, err := record([]access{{1e9, "a"}, {1e9, "b"}}, 0).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeAccesses(b)
		if err != nil {
			return
		}
		a := &accesses{}
		a.load(l)
		if again, err := a.encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x becomes %x, %v", b, again, err)
		}
		a.ranked(1 << 40)
		a.touch(time.Unix(0, 0), fcp.ZoneWork, "x")
	})
}
