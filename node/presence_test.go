package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"fcp"
)

// TestARollIsHonest calls a roll at random times over devices that come and go: turns of
// a device alternate, begin with an arrival, a departure tells when it was there last,
// and comes only after the device was away for long enough.
func TestARollIsHonest(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := Roll{Away: 10 * time.Second}
		now := time.Unix(1e9, 0)
		list := make([]Contact, 4)
		there, last := map[fcp.WriterID]bool{}, map[fcp.WriterID]time.Time{}
		for i := range list {
			list[i] = Contact{Writer: fcp.WriterID{byte(i + 1)}, Self: i == 0, Up: i == 0}
		}
		for range 300 {
			now = now.Add(time.Duration(rnd.IntN(8)) * time.Second)
			for i := 1; i < len(list); i++ {
				if rnd.IntN(4) == 0 {
					list[i].Up = !list[i].Up
				}
			}
			for _, x := range r.Call(now, list) {
				switch {
				case x.Self:
					t.Fatal("this device took a turn")
				case x.Arrived == there[x.Writer]:
					t.Fatalf("seed %d: two turns of one kind", seed)
				case x.Arrived && !x.At.Equal(now), !x.Arrived && (!x.At.Equal(last[x.Writer]) || now.Sub(x.At) < r.Away):
					t.Fatalf("seed %d: a turn at %s, it is %s and it was there at %s", seed, x.At, now, last[x.Writer])
				}
				there[x.Writer] = x.Arrived
			}
			for _, c := range list[1:] {
				if c.Up {
					last[c.Writer] = now
				}
				if c.Up && !there[c.Writer] || !c.Up && there[c.Writer] && now.Sub(last[c.Writer]) >= r.Away {
					t.Fatalf("seed %d: a turn was missed", seed)
				}
			}
		}
		if rest := r.Call(now, list[:1]); len(rest) == 0 && (there[fcp.WriterID{2}] || there[fcp.WriterID{3}] || there[fcp.WriterID{4}]) {
			t.Fatal("who is no member any more stays")
		}
	}
}

// TestAnswersSayHowFreshTheyAre: a node knows who is away and since when, also after it
// was started again, and refuses what is asked to be fresher.
func TestAnswersSayHowFreshTheyAre(t *testing.T) {
	m := newMesh(t, 3, func(i int, o *Options) {
		o.Profile = func() Profile { return Profile{Cores: uint64(i + 1), Power: PowerMains, Metered: i == 1} }
	})
	m.together()
	ctx := context.Background()
	x := m.nodes[0]
	if err := x.n.Fresh(within(t, time.Minute), 0); err != nil {
		t.Error("with all there:", err)
	}
	eventually(t, time.Minute, "profiles travel", func() bool {
		for _, c := range x.n.Contacts() {
			i := int(c.Name[len("node ")] - '1')
			if !c.Up || c.Profile.Cores != uint64(i+1) || c.Profile.Metered != (i == 1) || !c.Self && c.Since.IsZero() {
				return false
			}
		}
		return true
	})
	before := time.Now()
	m.leave(2)
	eventually(t, time.Minute, "one is behind", func() bool { return len(x.n.Behind(0)) == 1 })
	check := func(when string) {
		t.Helper()
		b := slices.DeleteFunc(x.n.Behind(0), func(b Behind) bool { return b.Name == "node 2" }) // it may not be met again yet
		if len(b) != 1 || b[0].Name != "node 3" || b[0].AsOf.Before(before.Add(-time.Second)) || b[0].AsOf.After(time.Now()) {
			t.Errorf("%s: behind is %+v", when, b)
		}
		if err := x.n.Fresh(ctx, 0); !errors.Is(err, fcp.CodeStale) {
			t.Errorf("%s: fresh without one: %v", when, err)
		}
		if err := x.n.Fresh(ctx, time.Hour); err != nil {
			t.Errorf("%s: within an hour: %v", when, err)
		}
	}
	check("after it left")
	if got := x.n.Behind(time.Hour); len(got) != 0 {
		t.Errorf("for an hour: %+v", got)
	}
	if err := errors.Join(x.n.Close(), x.e.Close()); err != nil {
		t.Fatal(err)
	}
	m.open(x)
	m.start(x)
	check("after a start")
}
