package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/engine/internal/state"
	"fcp/log"
)

func TestOpenSaysWhatIsWrongWithTheDirectory(t *testing.T) {
	ctx := context.Background()
	s := newStore(t, 20)
	o := Options{Environment: s.env}
	_, err := Open(ctx, "/nowhere", o)
	wantCode(t, err, fcp.CodeNoStore)
	_, err = Open(ctx, s.dir, o)
	wantCode(t, err, fcp.CodeLocked)
	_, err = Init(ctx, s.dir, InitOptions{Environment: s.env})
	wantCode(t, err, fcp.CodeStoreExists)
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(s.env.FS, s.dir, fileFormat, []byte("2\n")); err != nil {
		t.Fatal(err)
	}
	_, err = Open(ctx, s.dir, o)
	wantCode(t, err, fcp.CodeVersion)
	if !strings.Contains(err.Error(), "2") || !strings.Contains(err.Error(), "1") {
		t.Fatalf("both versions must be named: %v", err)
	}
	if err := s.env.FS.MkdirAll("/other/log", 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = Init(ctx, "/other", InitOptions{Environment: s.env})
	wantCode(t, err, fcp.CodeNotEmpty)
	if err := writeFile(s.env.FS, s.dir, fileFormat, []byte("1\n")); err != nil {
		t.Fatal(err)
	}
	s.open()
	_, err = s.Put(ctx, PutRequest{Zone: "z:unknown", Key: "k"})
	wantCode(t, err, fcp.CodeZone)
	_, err = s.Put(ctx, PutRequest{Key: ""})
	wantCode(t, err, fcp.CodeInvalidArgument)
	_, err = s.Get(ctx, GetRequest{Key: "k", At: At{Position: s.Position() + 1}})
	wantCode(t, err, fcp.CodeNotPosition)
	_, err = s.Get(ctx, GetRequest{Key: "k", At: At{Time: s.clock.Now().Add(time.Hour)}})
	wantCode(t, err, fcp.CodeNotPosition)
}

// TestAStateThatIsLostOrDamagedIsFoldedAgain removes the whole state directory,
// with control segments already sealed, and expects the same root.
func TestAStateThatIsLostOrDamagedIsFoldedAgain(t *testing.T) {
	s := newStore(t, 21)
	for i := range 30 {
		s.put(fmt.Sprint("k", i%9), strings.Repeat("x", 100*i))
	}
	if _, err := s.Log().Seal(context.Background(), log.SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	s.put("after", "sealing")
	want, err := s.StateRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.env.FS.RemoveAll(s.env.FS.PathJoin(s.dir, dirState)); err != nil {
		t.Fatal(err)
	}
	s.open()
	if got, err := s.StateRoot(); err != nil || got != want {
		t.Fatalf("root %s %v, want %s", got, err, want)
	}
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Rebuild(context.Background(), s.dir, Options{Environment: s.env}); err != nil {
		t.Fatal(err)
	}
	s.open()
	if got, err := s.StateRoot(); err != nil || got != want {
		t.Fatalf("root after a rebuild %s %v, want %s", got, err, want)
	}
	if got := s.get("k8", At{}); got != strings.Repeat("x", 2600) {
		t.Fatalf("k8 has %d bytes", len(got))
	}
}

// TestAStateAheadOfTheLogIsThrownAway gives a store a state that has seen more
// than its log.
func TestAStateAheadOfTheLogIsThrownAway(t *testing.T) {
	s := newStore(t, 22)
	s.put("k", "v")
	want, err := s.StateRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := state.Open(s.env.FS, s.env.FS.PathJoin(s.dir, dirState), state.Options{Digest: digestOptions()})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Update(1000, func(w *state.Writer) error { return w.Set([]byte{0, 1, 1, 'x'}, []byte("lie"), nil) }); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	s.open()
	if got, err := s.StateRoot(); err != nil || got != want {
		t.Fatalf("root %s %v, want %s", got, err, want)
	}
}

// TestADamagedStateIsFoundByReplay changes one record behind the engine's back.
func TestADamagedStateIsFoundByReplay(t *testing.T) {
	s := newStore(t, 23)
	s.put("k", "v")
	no, _ := s.fold.zoneNumber(fcp.ZonePrivate)
	key := append(appendPrefix(nil, no, s.fold.slot(projObjects)), make([]byte, 32)...)
	if err := s.st.Update(s.Position(), func(w *state.Writer) error { return w.Set(key, nil, []byte{0, 1, 1, 1}) }); err != nil {
		t.Fatal(err)
	}
	_, err := s.Replay(context.Background(), ReplayOptions{Verify: true})
	wantCode(t, err, fcp.CodeRootMismatch)
	v, err := s.Verify(context.Background(), VerifyOptions{Replay: true})
	if err != nil || len(v.Findings) != 1 || v.Findings[0].Code != fcp.CodeRootMismatch {
		t.Fatalf("%+v %v", v, err)
	}
}

func TestASubscriptionSeesEachEventOnce(t *testing.T) {
	s := newStore(t, 24)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.put("a", "1")
	var next uint64 = 1
	const puts = 60
	target := s.Position() + puts
	done := make(chan error, 1)
	go func() {
		done <- s.Subscribe(ctx, SubscribeOptions{Live: true}, func(events []log.Applied) error {
			for i := range events {
				if events[i].Position != next {
					return fmt.Errorf("position %d, want %d", events[i].Position, next)
				}
				next++
				if events[i].Position == target {
					cancel()
				}
			}
			return nil
		})
	}()
	for i := range puts {
		s.put("b", fmt.Sprint(i))
	}
	if err := <-done; err == nil || fcp.CodeOf(err) != fcp.CodeInterrupted || next != target+1 {
		t.Fatalf("%v, next %d, target %d", err, next, target)
	}
}

func TestANamedSubscriptionGoesOnWhereItStopped(t *testing.T) {
	s := newStore(t, 25)
	s.put("a", "1")
	seen := func(fail bool) (n int) {
		err := s.Subscribe(context.Background(), SubscribeOptions{Name: "mirror"}, func(events []log.Applied) error {
			if fail {
				return errEnough
			}
			n += len(events)
			return nil
		})
		if (err != nil) != fail {
			t.Fatal(err)
		}
		return n
	}
	if n := seen(false); n != int(s.Position()) {
		t.Fatalf("%d events", n)
	}
	s.put("a", "2")
	seen(true) // a batch that failed comes again
	s.reopen()
	if n := seen(false); n != 1 {
		t.Fatalf("%d events after reopening, want 1", n)
	}
}

func TestProjectionsAnswerForNowAndThePast(t *testing.T) {
	s := newStore(t, 26)
	before := s.Position()
	s.put("a", "1")
	count := func(name string, at At) (n int) {
		t.Helper()
		if err := s.QueryProjection(context.Background(), name, "", nil, at, func(r *Row) error {
			if r.Key == "" || r.Fields == nil && name != projCleared {
				t.Fatalf("%s: empty row %+v", name, r)
			}
			n++
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	for name, want := range map[string]int{projNames: 1, projZones: 5, projManifests: 5, projDevices: 1, projCheckpoints: 5,
		projSchemas: len(fcp.BuiltinSchemas()), projBodies: 0, projRevocations: 0} {
		if n := count(name, At{}); n != want {
			t.Errorf("%s: %d rows, want %d", name, n, want)
		}
	}
	if n := count(projNames, At{Position: before}); n != 0 {
		t.Errorf("names before the put: %d rows", n)
	}
	if n := count(projZones, At{Position: before}); n != 5 {
		t.Errorf("zones before the put: %d rows", n)
	}
	s.put("a", "2")
	if n := count(projHistory, At{}); n != 1 {
		t.Errorf("history: %d rows", n)
	}
	if st := s.Status(); st.Device != "laptop" || len(st.Zones) != 5 || !st.Zones[0].HasKeys || st.Zones[0].Levels.Integrity == 0 || st.Position != s.Position() {
		t.Errorf("%+v", st)
	}
	rows := 0
	if err := s.Tail(context.Background(), TailRequest{Zone: fcp.ZonePrivate, Kinds: []fcp.Kind{fcp.KindObjectPut}}, func(r *EventRow) error {
		if r.Key != "a" || r.Hash.IsZero() {
			t.Errorf("%+v", r)
		}
		rows++
		return nil
	}); err != nil || rows != 2 {
		t.Fatalf("%d rows, %v", rows, err)
	}
}

// countV is a projection of the tests: how many events a zone has had, by kind.
type countV struct{ version uint32 }

func (countV) Name() string         { return "count" }
func (c countV) Version() uint32    { return c.version }
func (countV) Scope() Scope         { return ScopeZone }
func (countV) Planes() fcp.PlaneSet { return onControl }
func (c countV) Touches(ev *Event, key []byte) []byte {
	return append(key, fmt.Sprint(c.version, ev.Content.Kind)...)
}
func (countV) Row(key []byte, v state.Value, row *Row) error {
	row.Key, row.Fields = string(key), map[string]any{"n": len(v.Canonical)}
	return nil
}
func (countV) Apply(f *Fold, _ *Event, key []byte) error {
	v, _, err := f.Get(key)
	if err != nil {
		return err
	}
	return f.Set(key, append(append([]byte(nil), v.Canonical...), 1), nil)
}

// TestAChangedProjectionIsBuiltBehindTheOldOne adds a projection to a store that
// has events, then changes its version, with and without the old one at hand.
func TestAChangedProjectionIsBuiltBehindTheOldOne(t *testing.T) {
	s := newStore(t, 27)
	s.put("a", "1")
	defer func(old func() []Projection) { extraProjections = old }(extraProjections)
	check := func(want uint32, background bool, list ...Projection) {
		t.Helper()
		extraProjections = func() []Projection { return list }
		s.reopen()
		s.put("a", "more")
		for deadline := time.Now().Add(time.Minute); ; {
			var info ProjectionInfo
			for _, p := range s.Projections() {
				if p.Name == "count" {
					info = p
				}
			}
			if info.Serving == want && !info.Building {
				break
			}
			if !background || time.Now().After(deadline) {
				t.Fatalf("%+v, want version %d", info, want)
			}
			time.Sleep(time.Millisecond)
		}
		n := 0
		if err := s.QueryProjection(context.Background(), "count", fcp.ZonePrivate, fmt.Append(nil, want, fcp.KindObjectPut), At{}, func(r *Row) error {
			n += r.Fields["n"].(int)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		entry, err := s.Stat(context.Background(), "", "a", At{})
		if err != nil || n != int(entry.Head().Generation) {
			t.Fatalf("counted %d puts, there are %d (%v)", n, entry.Head().Generation, err)
		}
		if _, err := s.Replay(context.Background(), ReplayOptions{Verify: true}); err != nil {
			t.Fatal(err)
		}
	}
	check(1, false, countV{1})
	check(2, false, countV{2})
	check(3, true, countV{2}, countV{3})
	check(3, false, countV{3})
}
