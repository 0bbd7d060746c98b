package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"fcp"
)

// modelVersion is what the model remembers of one write.
type modelVersion struct {
	body     string // "" with removed
	removed  bool
	position uint64
	gen      uint64
}

// TestStoreAgreesWithAMapUnderAnyHistory runs random puts, removals, reads of now
// and of the past, lists and reopenings against a map of version lists.
func TestStoreAgreesWithAMapUnderAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newStore(t, uint64(rapid.IntRange(1, 1<<16).Draw(rt, "seed")))
		defer s.Engine.Close()
		model := map[string][]modelVersion{}
		ctx := context.Background()
		keys := []string{"a", "a/b", "a\x00", "b", "ünïcode", strings.Repeat("k", fcp.MaxKey)}
		key := rapid.SampledFrom(keys)
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			k := key.Draw(rt, "key")
			versions := model[k]
			live := len(versions) > 0 && !versions[len(versions)-1].removed
			switch rapid.IntRange(0, 6).Draw(rt, "action") {
			case 0, 1:
				body := strings.Repeat(rapid.StringMatching(`[a-z]{1,8}`).Draw(rt, "body"), rapid.SampledFrom([]int{1, 1, 300}).Draw(rt, "times"))
				r, err := s.Put(ctx, PutRequest{Key: k, Bytes: []byte(body)})
				if err != nil || r.Generation != uint64(len(versions)+1) {
					rt.Fatalf("put: %+v %v", r, err)
				}
				model[k] = append(versions, modelVersion{body, false, r.Position, r.Generation})
			case 2:
				r, err := s.Remove(ctx, RemoveRequest{Key: k})
				if !live {
					if !errors.Is(err, fcp.CodeNotFound) {
						rt.Fatalf("removing nothing: %v", err)
					}
					continue
				}
				if err != nil {
					rt.Fatal(err)
				}
				model[k] = append(versions, modelVersion{removed: true, position: r.Position, gen: r.Generation})
			case 3:
				at := uint64(rapid.IntRange(1, int(s.Position())).Draw(rt, "at"))
				checkModelRead(rt, s, k, at, versions)
			case 4:
				checkModelList(rt, s, model, uint64(rapid.IntRange(0, int(s.Position())).Draw(rt, "at")))
			case 5:
				checkModelHistory(rt, s, k, versions)
			case 6:
				s.reopen()
			}
		}
		for k, versions := range model {
			checkModelRead(rt, s, k, s.Position(), versions)
			checkModelHistory(rt, s, k, versions)
		}
		if _, err := s.Replay(ctx, ReplayOptions{Verify: true}); err != nil {
			rt.Fatal(err)
		}
	})
}

// asOf returns the version that was current at a position; 0 is now.
func asOf(versions []modelVersion, at uint64) *modelVersion {
	var v *modelVersion
	for i := range versions {
		if at == 0 || versions[i].position <= at {
			v = &versions[i]
		}
	}
	return v
}

func checkModelRead(rt *rapid.T, s *testStore, key string, at uint64, versions []modelVersion) {
	got, err := s.read(GetRequest{Key: key, At: At{Position: at}})
	want := asOf(versions, at)
	if want == nil || want.removed {
		if !errors.Is(err, fcp.CodeNotFound) {
			rt.Fatalf("read of nothing: %q %v", got, err)
		}
		return
	}
	if err != nil || string(got) != want.body {
		rt.Fatalf("read at %d: %q %v, want %q", at, got, err, want.body)
	}
}

func checkModelList(rt *rapid.T, s *testStore, model map[string][]modelVersion, at uint64) {
	prefix := rapid.SampledFrom([]string{"", "a", "a/", "z"}).Draw(rt, "prefix")
	var want, got, names []string
	for k, versions := range model {
		if v := asOf(versions, at); v != nil && !v.removed && strings.HasPrefix(k, prefix) {
			want = append(want, fmt.Sprintf("%s %d", k, v.gen))
		}
	}
	slices.Sort(want)
	err := s.List(context.Background(), ListRequest{Prefix: prefix, At: At{Position: at}}, func(e *Entry) error {
		names = append(names, e.Key)
		got = append(got, fmt.Sprintf("%s %d", e.Key, e.Head().Generation))
		return nil
	})
	if err != nil || !slices.IsSorted(names) {
		rt.Fatalf("list: %q %v", names, err)
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		rt.Fatalf("list at %d: %q, want %q", at, got, want)
	}
}

func checkModelHistory(rt *rapid.T, s *testStore, key string, versions []modelVersion) {
	var got []uint64
	err := s.History(context.Background(), "", key, func(e *Entry) error {
		got = append(got, e.Head().Position)
		return nil
	})
	if len(versions) == 0 {
		if !errors.Is(err, fcp.CodeNotFound) {
			rt.Fatalf("history of nothing: %v", err)
		}
		return
	}
	var want []uint64
	for i := len(versions) - 1; i >= 0; i-- {
		want = append(want, versions[i].position)
	}
	if err != nil || !slices.Equal(got, want) {
		rt.Fatalf("history: %v %v, want %v", got, err, want)
	}
}

func TestExpectationsAreHeldOrNameTheHead(t *testing.T) {
	ctx := context.Background()
	for _, tc := range []struct {
		name   string
		before []string // "x" writes, "-" removes
		expect func(last PutResult) string
		ok     bool
	}{
		{"anything on nothing", nil, func(PutResult) string { return "" }, true},
		{"absent on nothing", nil, func(PutResult) string { return "absent" }, true},
		{"absent on something", []string{"x"}, func(PutResult) string { return "absent" }, false},
		{"absent after a removal", []string{"x", "-"}, func(PutResult) string { return "absent" }, true},
		{"generation on nothing", nil, func(PutResult) string { return "1" }, false},
		{"the generation", []string{"x", "x"}, func(PutResult) string { return "2" }, true},
		{"an older generation", []string{"x", "x"}, func(PutResult) string { return "1" }, false},
		{"the hash", []string{"x"}, func(r PutResult) string { return r.Hash.String() }, true},
		{"a prefix of the hash", []string{"x"}, func(r PutResult) string { return r.Hash.String()[:12] }, true},
		{"another hash", []string{"x"}, func(r PutResult) string { return strings.Repeat("0", 64) }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, 7)
			var last PutResult
			for _, b := range tc.before {
				var err error
				if b == "-" {
					last, err = s.Remove(ctx, RemoveRequest{Key: "k"})
				} else {
					last, err = s.Put(ctx, PutRequest{Key: "k", Bytes: []byte(b)})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			x, err := ParseExpect(tc.expect(last))
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Put(ctx, PutRequest{Key: "k", Bytes: []byte("new"), Expect: x})
			if tc.ok {
				if err != nil || r.Generation != last.Generation+1 {
					t.Fatalf("%+v %v", r, err)
				}
				return
			}
			wantCode(t, err, fcp.CodeConflict)
			if len(tc.before) > 0 && !strings.Contains(err.Error(), last.Hash.String()[:16]) {
				t.Fatalf("the error does not name the head: %v", err)
			}
		})
	}
}

func TestExactlyOneOfManyExpectingWritersWins(t *testing.T) {
	s := newStore(t, 8)
	s.put("k", "0")
	for round := range 20 {
		results := make(chan error, 8)
		for i := range 8 {
			go func() {
				_, err := s.Put(context.Background(), PutRequest{Key: "k", Bytes: fmt.Appendf(nil, "%d/%d", round, i),
					Expect: Expect{Kind: ExpectGeneration, Generation: uint64(round + 1)}})
				results <- err
			}()
		}
		won := 0
		for range 8 {
			if err := <-results; err == nil {
				won++
			} else if !errors.Is(err, fcp.CodeConflict) {
				t.Fatal(err)
			}
		}
		if won != 1 {
			t.Fatalf("round %d: %d winners", round, won)
		}
	}
}

func TestUnconditionalWritersOfOneNameNeverMakeSiblings(t *testing.T) {
	s := newStore(t, 9)
	const writers, each = 8, 25
	done := make(chan error, writers)
	for w := range writers {
		go func() {
			var err error
			for i := 0; i < each && err == nil; i++ {
				_, err = s.Put(context.Background(), PutRequest{Key: "k", Bytes: fmt.Appendf(nil, "%d.%d", w, i)})
			}
			done <- err
		}()
	}
	for range writers {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	e, err := s.Stat(context.Background(), "", "k", At{})
	if err != nil || e.Siblings() != 0 || e.Head().Generation != writers*each {
		t.Fatalf("%+v %v", e, err)
	}
}

func TestIdempotencyHoldsForEver(t *testing.T) {
	s := newStore(t, 10)
	ctx := context.Background()
	req := PutRequest{Key: "k", Bytes: []byte("once"), Idempotency: "job-1"}
	first, err := s.Put(ctx, req)
	if err != nil || first.Duplicate {
		t.Fatalf("%+v %v", first, err)
	}
	s.put("k", "later")
	again := func() {
		t.Helper()
		r, err := s.Put(ctx, req)
		if err != nil || !r.Duplicate || r.Position != first.Position || r.Hash != first.Hash {
			t.Fatalf("%+v %v, first %+v", r, err, first)
		}
	}
	again()
	s.reopen()
	again()
	if got := s.get("k", At{}); got != "later" {
		t.Fatalf("the duplicate wrote: %q", got)
	}
	if r, err := s.Put(ctx, PutRequest{Zone: fcp.ZoneWork, Key: "k", Bytes: []byte("x"), Idempotency: "job-1"}); err != nil || r.Duplicate {
		t.Fatalf("another zone: %+v %v", r, err)
	}
	for what, f := range map[string]func() (PutResult, error){
		"another name": func() (PutResult, error) {
			return s.Put(ctx, PutRequest{Key: "other", Bytes: []byte("once"), Idempotency: "job-1"})
		},
		"a removal":     func() (PutResult, error) { return s.Remove(ctx, RemoveRequest{Key: "k", Idempotency: "job-1"}) },
		"a name, later": func() (PutResult, error) { return s.Remove(ctx, RemoveRequest{Key: "other", Idempotency: "job-1"}) },
	} {
		if r, err := f(); fcp.CodeOf(err) != fcp.CodeInvalidArgument {
			t.Errorf("%s with the idempotency key of a put: %+v %v", what, r, err)
		}
	}
	// Many at once with one key: one writes.
	results := make(chan PutResult, 16)
	for range 16 {
		go func() {
			r, err := s.Put(ctx, PutRequest{Key: "many", Bytes: []byte("x"), Idempotency: "job-2"})
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	wrote := 0
	for range 16 {
		if r := <-results; !r.Duplicate {
			wrote++
		}
	}
	if wrote != 1 {
		t.Fatalf("%d writes with one idempotency key", wrote)
	}
}

func TestADryRunWritesNothing(t *testing.T) {
	s := newStore(t, 11)
	before := s.Position()
	for _, n := range []int{1, 5000, 3 << 20} {
		r, err := s.Put(context.Background(), PutRequest{Key: "k", Bytes: make([]byte, n), DryRun: true})
		if err != nil || !r.DryRun || len(r.Planned) == 0 || r.Planned[len(r.Planned)-1].Kind != "object.put" {
			t.Fatalf("%+v %v", r, err)
		}
	}
	if s.Position() != before {
		t.Fatal("a dry run moved the position")
	}
}
