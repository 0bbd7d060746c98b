package crdt

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"fcp"
)

func actor(i int) fcp.WriterID { return fcp.WriterID{byte(i + 1)} }

func must[T any](t rapid.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func encoded(t rapid.TB, s State) string {
	t.Helper()
	b, err := s.Encode()
	return string(must(t, b, err))
}

// change makes one random change to a replica and returns the delta.
func change(t *rapid.T, s State, by int) State {
	key := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "key")
	remove := rapid.IntRange(0, 2).Draw(t, "remove") == 0
	switch s := s.(type) {
	case *GCounter:
		d, err := s.Add(actor(by), uint64(rapid.IntRange(1, 5).Draw(t, "n")))
		return must(t, d, err)
	case *PNCounter:
		n := rapid.IntRange(1, 5).Draw(t, "n")
		if remove {
			n = -n
		}
		d, err := s.Add(actor(by), int64(n))
		return must(t, d, err)
	case *LWWMap:
		at := fcp.Time(rapid.IntRange(1, 4).Draw(t, "time")) // many equal ones
		if remove {
			d, err := s.Remove(key, at, actor(by))
			return must(t, d, err)
		}
		d, err := s.Set(key, []byte(rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "value")), at, actor(by))
		return must(t, d, err)
	case *ORSet:
		if remove {
			d, err := s.Remove([]byte(key))
			return must(t, d, err)
		}
		d, err := s.Add([]byte(key), actor(by))
		return must(t, d, err)
	}
	panic("kind")
}

func joinAll(t rapid.TB, k Kind, states ...State) State {
	t.Helper()
	out, err := New(k)
	must(t, out, err)
	for _, s := range states {
		if err := out.Join(s); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestLattice runs replicas that change and hear of each other, and holds Join to its
// laws on every state and delta that came up.
func TestLattice(t *testing.T) {
	for _, k := range Kinds() {
		t.Run(string(k), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				var replicas [3]State
				for i := range replicas {
					replicas[i] = joinAll(t, k)
				}
				var deltas, all []State
				snapshotAt, snapshot := rapid.IntRange(0, 15).Draw(t, "snapshot"), joinAll(t, k)
				for i := range rapid.IntRange(1, 25).Draw(t, "steps") {
					by := rapid.IntRange(0, 2).Draw(t, "by")
					if rapid.IntRange(0, 3).Draw(t, "hear") == 0 {
						from := rapid.IntRange(0, 2).Draw(t, "from")
						if err := replicas[by].Join(replicas[from]); err != nil {
							t.Fatal(err)
						}
					} else {
						before := joinAll(t, k, replicas[by])
						d := change(t, replicas[by], by)
						if encoded(t, joinAll(t, k, before, d)) != encoded(t, replicas[by]) {
							t.Fatal("the delta is not what changed")
						}
						deltas = append(deltas, d)
					}
					if i == snapshotAt {
						snapshot = joinAll(t, k, deltas...)
					}
					all = append(all, joinAll(t, k, replicas[by]))
				}
				full := encoded(t, joinAll(t, k, replicas[:]...))
				if encoded(t, joinAll(t, k, deltas...)) != full {
					t.Fatal("the deltas are not the full state")
				}
				if encoded(t, joinAll(t, k, append(rapid.Permutation(deltas).Draw(t, "order"), deltas...)...)) != full {
					t.Fatal("order or repetition of deltas matters")
				}
				if encoded(t, joinAll(t, k, append([]State{snapshot}, deltas...)...)) != full || encoded(t, joinAll(t, k, append(deltas, snapshot)...)) != full {
					t.Fatal("a snapshot and the deltas are not all deltas")
				}
				all = append(all, deltas...)
				a, b, c := rapid.SampledFrom(all).Draw(t, "a"), rapid.SampledFrom(all).Draw(t, "b"), rapid.SampledFrom(all).Draw(t, "c")
				ab := joinAll(t, k, a, b)
				if encoded(t, ab) != encoded(t, joinAll(t, k, b, a)) {
					t.Fatal("not commutative")
				}
				if encoded(t, joinAll(t, k, ab, c)) != encoded(t, joinAll(t, k, a, joinAll(t, k, b, c))) {
					t.Fatal("not associative")
				}
				if encoded(t, joinAll(t, k, a, a)) != encoded(t, a) {
					t.Fatal("not idempotent")
				}
				for _, s := range all {
					back, err := Decode(k, []byte(encoded(t, s)))
					if err != nil || encoded(t, back) != encoded(t, s) {
						t.Fatal("does not come back:", err)
					}
				}
			})
		})
	}
}

// TestSemantics says in examples what each model is for.
func TestSemantics(t *testing.T) {
	a, b := &ORSet{}, &ORSet{}
	add, err := a.Add([]byte("x"), actor(0))
	must(t, add, err)
	must(t, 0, b.Join(add))
	if _, err := b.Remove([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Add([]byte("x"), actor(0)); err != nil { // not seen by b's removal
		t.Fatal(err)
	}
	must(t, 0, a.Join(b))
	if !a.Has([]byte("x")) || len(a.Elements()) != 1 {
		t.Error("an addition does not win over a removal that did not see it")
	}
	must(t, 0, b.Join(a))
	if _, err := b.Remove([]byte("x")); err != nil {
		t.Fatal(err)
	}
	must(t, 0, a.Join(b))
	if a.Has([]byte("x")) {
		t.Error("a removal that saw every addition does not hold")
	}

	m := &LWWMap{}
	for i, v := range []string{"old", "new"} {
		if _, err := m.Set("k", []byte(v), fcp.Time(10-5*i), actor(0)); err != nil { // a clock that was set back
			t.Fatal(err)
		}
	}
	if v, ok := m.Get("k"); !ok || string(v) != "new" {
		t.Errorf("a writer does not see its own write: %s", v)
	}
	c := &PNCounter{}
	for _, n := range []int64{5, -7, 1} {
		if _, err := c.Add(actor(0), n); err != nil {
			t.Fatal(err)
		}
	}
	if c.Value() != -1 {
		t.Error(c.Value())
	}
	if _, err := c.Add(actor(0), -1<<63); !errors.Is(err, fcp.CodeTooLarge) || c.Value() != -1 {
		t.Error("a count above the limit:", err)
	}
	if err := c.Join(m); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Error("another kind:", err)
	}
}

// TestLimits: above a limit nothing changes.
func TestLimits(t *testing.T) {
	c := &GCounter{n: vector{}}
	for i := range MaxActors {
		c.n[fcp.WriterID{1, byte(i), byte(i >> 8)}] = 1
	}
	if _, err := c.Add(fcp.WriterID{2}, 1); !errors.Is(err, fcp.CodeTooLarge) || c.Value() != MaxActors {
		t.Error(err, c.Value())
	}
	m := &LWWMap{}
	for i := 0; ; i++ {
		if _, err := m.Set(fmt.Sprint(i), make([]byte, MaxValue), 1, actor(0)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Encode(); err != nil {
			if !errors.Is(err, fcp.CodeTooLarge) || i != 1 {
				t.Error(i, err)
			}
			break
		}
	}
	if _, err := Decode(KindLWWMap, make([]byte, MaxState+1)); !errors.Is(err, fcp.CodeTooLarge) {
		t.Error(err)
	}
	if _, err := Decode("heap", nil); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Error(err)
	}
}

// FuzzDecode: what is accepted encodes back, joins itself, and joins an empty state,
// to the same bytes.
func FuzzDecode(f *testing.F) {
	g, p, m, s := &GCounter{}, &PNCounter{}, &LWWMap{}, &ORSet{}
	for i := range 3 {
		_, _ = g.Add(actor(i), 7)
		_, _ = p.Add(actor(i), int64(i)-1)
		_, _ = m.Set(fmt.Sprint(i), []byte("v"), 5, actor(i))
		_, _ = s.Add([]byte{byte(i)}, actor(0))
	}
	_, _ = s.Remove([]byte{1})
	late := &ORSet{seen: vector{}, cloud: map[count]bool{{actor(4), 9}: true}}
	for i, x := range []State{m, s, g, p, late} {
		b, err := x.Encode()
		f.Add(i, must(f, b, err))
	}
	f.Add(1, []byte{0xa0})
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		k := Kinds()[uint(i)%4]
		x, err := Decode(k, b)
		if err != nil {
			return
		}
		if !bytes.Equal([]byte(encoded(t, x)), b) {
			t.Fatal("does not encode back")
		}
		if encoded(t, joinAll(t, k, x, x)) != string(b) {
			t.Fatal("does not join itself")
		}
	})
}
