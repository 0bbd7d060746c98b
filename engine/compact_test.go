package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// body makes a body that has an event of its own.
func body(name string, version int) string {
	return strings.Repeat(fmt.Sprintf("%s %d ", name, version), 300)
}

// seal seals all open runs.
func (s *testStore) seal() {
	s.t.Helper()
	if _, err := s.Log().Seal(context.Background(), log.SealOptions{All: true}); err != nil {
		s.t.Fatal(err)
	}
}

// checkpoint signs a checkpoint of every zone.
func (s *testStore) checkpoint(r authority.Retention) {
	s.t.Helper()
	if _, err := s.Checkpoint(context.Background(), CheckpointOptions{Owner: s.owner, Retention: &r}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *testStore) compact(o CompactOptions) CompactResult {
	s.t.Helper()
	r, err := s.Compact(context.Background(), o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// churned is a store in which a few names had versions at known positions.
func churned(t *testing.T, seed uint64) (s *testStore, positions []uint64) {
	s = newStore(t, seed)
	for v := range 8 {
		for _, name := range []string{"a", "b", "c"} {
			positions = append(positions, s.put(name, body(name, v)).Position)
		}
		s.clock.Advance(time.Hour)
		if v%2 == 0 {
			s.seal()
		}
	}
	if _, err := s.Remove(t.Context(), RemoveRequest{Key: "c"}); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(time.Hour)
	s.seal()
	return s, positions
}

func wantError(t *testing.T, err error, code fcp.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("got %v, want %s", err, code)
	}
}

// identical replays the store and verifies it with every body.
func (s *testStore) identical() {
	s.t.Helper()
	if _, err := s.Replay(context.Background(), ReplayOptions{Verify: true}); err != nil {
		s.t.Fatal(err)
	}
	r, err := s.Verify(context.Background(), VerifyOptions{Bodies: true, Replay: true})
	if err != nil || len(r.Findings) > 0 {
		s.t.Fatal(r.Findings, err)
	}
}

func TestNothingIsDroppedWithoutACheckpointADayOld(t *testing.T) {
	s, _ := churned(t, 1)
	root, _ := s.StateRoot()
	_, err := s.Compact(t.Context(), CompactOptions{})
	wantError(t, err, fcp.CodeUnauthorized)
	s.checkpoint(authority.Retention{})
	for range 24 {
		_, err = s.Compact(t.Context(), CompactOptions{})
		wantError(t, err, fcp.CodeUnauthorized)
		s.clock.Advance(time.Hour - time.Second)
	}
	if r, _ := s.StateRoot(); r == root {
		t.Fatal("the checkpoint is in no root")
	}
	other, err := authority.NewOwnerKey(s.env.Rand)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Checkpoint(t.Context(), CheckpointOptions{Owner: other})
	wantError(t, err, fcp.CodeWrongKey)
	s.clock.Advance(time.Minute)
	if r := s.compact(CompactOptions{}); r.Events == 0 {
		t.Fatalf("a day later nothing goes: %+v", r)
	}
}

func TestCompactionDropsWhatTheDryRunSays(t *testing.T) {
	s, positions := churned(t, 2)
	const keep = 3 * time.Hour
	s.checkpoint(authority.Retention{History: keep})
	s.clock.Advance(25 * time.Hour)
	zoneRoot, err := s.ZoneRoot(fcp.ZonePrivate)
	if err != nil {
		t.Fatal(err)
	}
	dry := s.compact(CompactOptions{DryRun: true})
	if again, _ := s.ZoneRoot(fcp.ZonePrivate); again != zoneRoot {
		t.Fatal("a dry run changed the zone")
	}
	real := s.compact(CompactOptions{})
	if dry.Events == 0 || real.Events != dry.Events || real.Bytes != dry.Bytes || real.Segments != dry.Segments || real.Into != dry.Into || real.Before != dry.Before {
		t.Fatalf("planned %+v, done %+v", dry, real)
	}
	if real.After >= real.Before {
		t.Fatalf("%d bytes became %d", real.Before, real.After)
	}
	horizon := uint64(0)
	for _, z := range real.Zones {
		if z.Zone == fcp.ZonePrivate {
			horizon = z.Horizon
		}
	}
	if horizon <= positions[3*2] || horizon > s.Position() {
		t.Fatalf("horizon %d of %d", horizon, s.Position())
	}
	check := func() {
		t.Helper()
		if h, _, err := s.HorizonOf(fcp.ZonePrivate); err != nil || h != horizon {
			t.Fatalf("horizon %d, %v, was %d", h, err, horizon)
		}
		for i, p := range positions { // the past above the horizon reads as ever
			name, version := []string{"a", "b", "c"}[i%3], i/3
			got, err := s.read(GetRequest{Key: name, At: At{Position: p}})
			switch {
			case p < horizon:
				wantError(t, err, fcp.CodeHorizon)
				if !strings.Contains(err.Error(), fmt.Sprintf("position %d and later", horizon)) {
					t.Fatal(err)
				}
			case err != nil || string(got) != body(name, version):
				t.Fatalf("%s at %d: %v", name, p, err)
			}
		}
		if s.get("a", At{}) != body("a", 7) || s.get("b", At{}) != body("b", 7) {
			t.Fatal("a present version changed")
		}
		wantError(t, s.List(t.Context(), ListRequest{At: At{Position: horizon - 1}}, nil), fcp.CodeHorizon)
		n := 0
		if err := s.List(t.Context(), ListRequest{At: At{Position: horizon}}, func(*Entry) error { n++; return nil }); err != nil || n != 3 {
			t.Fatal(n, err)
		}
	}
	check()
	s.identical()
	s.reopen()
	check()
	s.identical()
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Rebuild(t.Context(), s.dir, s.opts); err != nil {
		t.Fatal(err)
	}
	s.open()
	check()
	s.identical()
	if r := s.compact(CompactOptions{}); r.Events != 0 {
		t.Fatalf("a second run drops %d events more", r.Events)
	}
}

func TestRoots(t *testing.T) {
	s := newStore(t, 3)
	put := func(key, text string, idem string) PutResult {
		t.Helper()
		r, err := s.Put(t.Context(), PutRequest{Key: key, Bytes: []byte(text), Idempotency: idem})
		if err != nil {
			t.Fatal(err)
		}
		s.clock.Advance(time.Minute)
		return r
	}
	first := put("name", body("name", 0), "once")
	pinned := put("pinned", body("pinned", 0), "")
	s.seal()
	large := strings.Repeat("large ", 400_000)
	put("large", large, "")
	old := put("large-old", strings.Repeat("older ", 400_000), "")
	s.seal()
	for v := 1; v < 5; v++ {
		put("name", body("name", v), "")
	}
	put("pinned", body("pinned", 1), "")
	put("large-old", "small now", "")
	if _, err := s.Checkpoint(t.Context(), CheckpointOptions{Owner: s.owner, Pin: []fcp.ObjectID{pinned.Object},
		Retention: &authority.Retention{Versions: 2}}); err != nil {
		t.Fatal(err)
	}
	s.clock.Advance(time.Minute)
	late := put("name", body("name", 5), "") // after the checkpoint
	put("name", body("name", 6), "")
	s.seal()
	s.clock.Advance(25 * time.Hour)
	r := s.compact(CompactOptions{})
	if r.Events == 0 {
		t.Fatal("nothing was dropped")
	}
	// Idempotency tags are for ever, whatever became of the body.
	if again := put("name", "other", "once"); !again.Duplicate || again.Hash != first.Hash {
		t.Fatalf("%+v", again)
	}
	_, err := s.read(GetRequest{Key: "name", Version: first.Hash})
	wantError(t, err, fcp.CodeHorizon)
	_, err = s.read(GetRequest{Object: first.Object})
	wantError(t, err, fcp.CodeHorizon)
	if b, err := s.read(GetRequest{Object: pinned.Object}); err != nil || string(b) != body("pinned", 0) {
		t.Fatal("the pinned object is gone:", err)
	}
	if b, err := s.read(GetRequest{Key: "name", Version: late.Hash}); err != nil || string(b) != body("name", 5) {
		t.Fatal("a version that the checkpoint does not cover is gone:", err)
	}
	if s.get("large", At{}) != large {
		t.Fatal("a chunk of a live object is gone")
	}
	if b, err := s.read(GetRequest{Key: "large-old", Version: old.Hash}); err != nil || len(b) != 2_400_000 {
		t.Fatal("one of the two newest replaced versions is gone:", err)
	}
	n := 0
	if err := s.History(t.Context(), "", "name", func(*Entry) error { n++; return nil }); err != nil || n != 1+2+2 {
		t.Fatalf("%d versions in the history: %v", n, err)
	}
	s.identical()
	// Unpinned, and with no versions kept, they go; a newer checkpoint asks for less
	// only once it is a day old itself.
	if _, err := s.Checkpoint(t.Context(), CheckpointOptions{Owner: s.owner, Unpin: []fcp.ObjectID{pinned.Object}, Retention: &authority.Retention{}}); err != nil {
		t.Fatal(err)
	}
	if r := s.compact(CompactOptions{}); r.Events != 0 {
		t.Fatalf("%d events went before the day was over", r.Events)
	}
	s.clock.Advance(25 * time.Hour)
	if r := s.compact(CompactOptions{MinGarbage: 1}); r.Events < 4 {
		t.Fatalf("only %d events went", r.Events)
	}
	_, err = s.read(GetRequest{Object: pinned.Object})
	wantError(t, err, fcp.CodeHorizon)
	if s.get("large", At{}) != large || s.get("name", At{}) != body("name", 6) {
		t.Fatal("something live is gone")
	}
	s.identical()
}

func TestTheDeletionCapHolds(t *testing.T) {
	s, _ := churned(t, 4)
	s.checkpoint(authority.Retention{})
	s.clock.Advance(25 * time.Hour)
	all := s.compact(CompactOptions{DryRun: true})
	r := s.compact(CompactOptions{MaxBytes: all.Bytes / 2})
	if !r.Capped || r.Bytes > all.Bytes/2 {
		t.Fatalf("%d of %d bytes, capped %v", r.Bytes, all.Bytes, r.Capped)
	}
	if r = s.compact(CompactOptions{}); r.Capped {
		t.Fatal("capped without a cap")
	}
	s.identical()
}

func TestAnObjectInTwoEventsIsNotLostWithOne(t *testing.T) {
	s := newStore(t, 5)
	same := body("same", 0)
	s.put("x", same) // the same object, because the clock stands
	s.put("y", same)
	s.put("x", body("x", 1))
	s.seal()
	s.clock.Advance(time.Minute)
	s.checkpoint(authority.Retention{})
	s.clock.Advance(25 * time.Hour)
	s.compact(CompactOptions{MinGarbage: 1})
	if s.get("y", At{}) != same {
		t.Fatal("y is gone")
	}
	s.put("y", body("y", 2)) // now nothing needs it, but it comes again before the checkpoint's day
	s.put("z", same)
	s.seal()
	s.checkpoint(authority.Retention{})
	s.clock.Advance(25 * time.Hour)
	s.compact(CompactOptions{MinGarbage: 1})
	if s.get("z", At{}) != same {
		t.Fatal("z is gone")
	}
	s.identical()
}

func TestHeldObjectsAreNotCollected(t *testing.T) {
	s, _ := churned(t, 6)
	s.checkpoint(authority.Retention{})
	s.clock.Advance(25 * time.Hour)
	plan := s.compact(CompactOptions{DryRun: true})
	id := plan.Zones[len(plan.Zones)-1].Runs
	for _, z := range plan.Zones {
		if len(z.Runs) > 0 {
			id = z.Runs
		}
	}
	held := id[0].objects[0]
	if !s.holds.hold(held) {
		t.Fatal("it cannot be held")
	}
	r := s.compact(CompactOptions{})
	if r.Events != plan.Events-1 {
		t.Fatalf("%d of %d events went", r.Events, plan.Events)
	}
	if _, err := s.read(GetRequest{Object: held}); err != nil {
		t.Fatal(err)
	}
	s.identical()
	// Released while a mark is under way it stays, because the mark may not have
	// seen who named it.
	s.holds.begin()
	s.holds.release([]fcp.ObjectID{held})
	if s.holds.condemn(held) {
		t.Fatal("condemned although it was just released")
	}
	s.holds.end()
	s.holds.begin()
	if !s.holds.condemn(held) || s.holds.hold(held) {
		t.Fatal("an object on its way out can be held")
	}
	s.holds.end()
}

func TestEveryKindIsARootOrNone(t *testing.T) {
	for _, k := range fcp.Kinds() {
		if rootRules[k] == 0 {
			t.Errorf("say in rootRules what events of kind %s keep from being collected", k)
		}
	}
}

func TestABackupOfACompactedStoreIsRestored(t *testing.T) {
	s, positions := churned(t, 7)
	before, err := s.Backup(t.Context(), "/backup", BackupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.checkpoint(authority.Retention{History: 2 * time.Hour})
	s.clock.Advance(25 * time.Hour)
	for round := range 2 { // twice: a compacted segment is compacted again
		s.compact(CompactOptions{MinGarbage: 1})
		after, err := s.Backup(t.Context(), "/backup", BackupOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 && after.Bytes >= before.Bytes {
			t.Errorf("the backup grew from %d to %d bytes", before.Bytes, after.Bytes)
		}
		for _, owner := range []*authority.OwnerKey{nil, s.owner} {
			v, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: s.env, Owner: owner})
			if err != nil || len(v.Findings) > 0 || owner != nil && !v.Identical {
				t.Fatal(v.Findings, err)
			}
		}
		dir := fmt.Sprintf("/restored%d", round)
		r, err := Restore(t.Context(), "/backup", dir, RestoreOptions{Environment: s.env, Owner: s.owner})
		if err != nil || !r.Identical {
			t.Fatal(r, err)
		}
		back := &testStore{t: t, env: s.env, clock: s.clock, owner: s.owner, dir: dir}
		back.open()
		if back.get("a", At{}) != s.get("a", At{}) {
			t.Fatal("another version of a")
		}
		h, at, err := back.HorizonOf(fcp.ZonePrivate)
		_, was, _ := s.HorizonOf(fcp.ZonePrivate)
		if err != nil || h == 0 || at != was {
			t.Fatal("the horizon is lost:", h, at, was, err)
		}
		_, err = back.read(GetRequest{Key: "a", At: At{Position: h - 1}})
		wantError(t, err, fcp.CodeHorizon)
		back.identical()
		// The restored store goes on with the folder, and compacts what the other one wrote.
		back.put("a", body("a", 100))
		back.put("b", body("b", 100))
		back.seal()
		back.clock.Advance(time.Minute)
		// The device that it was restored from is a member until its owner takes it out.
		if _, err := back.DeviceLost(t.Context(), s.owner, s.node.Writer(), "its disk died"); err != nil {
			t.Fatal(err)
		}
		back.checkpoint(authority.Retention{})
		back.clock.Advance(25 * time.Hour)
		if r := back.compact(CompactOptions{MinGarbage: 1}); r.Events == 0 {
			t.Fatal("nothing of the former node's is collected")
		}
		back.identical()
		if _, err := back.Backup(t.Context(), fmt.Sprintf("/backup-of-restored%d", round), BackupOptions{}); err != nil {
			t.Fatal(err)
		}
		v, err := VerifyBackup(t.Context(), fmt.Sprintf("/backup-of-restored%d", round), VerifyBackupOptions{Environment: s.env, Owner: s.owner})
		if err != nil || len(v.Findings) > 0 || !v.Identical {
			t.Fatal(v.Findings, err)
		}
		if err := back.Engine.Close(); err != nil {
			t.Fatal(err)
		}
		s.checkpoint(authority.Retention{})
		s.clock.Advance(25 * time.Hour)
	}
	_ = positions
}

// TestACompactedSegmentMustEndAsItsWriterTold: a plan refuses one that does not.
func TestACompactedSegmentMustEndAsItsWriterTold(t *testing.T) {
	p := plan{ends: map[fcp.SegmentID]runEnd{}}
	hash := func(b byte) []byte { h := fcp.Hash{b}; return h[:] }
	r := log.Remainder{Format: 2, Zone: fcp.ZonePrivate, Writer: hash(1), Incarnation: 3, Plane: uint64(fcp.PlaneData), Last: 9,
		Segment: hash(2), Head: hash(4), Root: hash(5), Ends: hash(6)}
	p.stands = []log.Remainder{r}
	wantError(t, p.checkCompacted(), fcp.CodeManifest)
	good := runEnd{r.Feed().ID(), 9, fcp.Hash{4}, fcp.Hash{5}}
	for _, e := range []runEnd{{good.feed, 8, good.head, good.root}, {good.feed, 9, fcp.Hash{7}, good.root}, {good.feed, 9, good.head, fcp.Hash{7}}, {fcp.FeedID{}, 9, good.head, good.root}} {
		p.ends[fcp.SegmentID{6}] = e
		wantError(t, p.checkCompacted(), fcp.CodeManifest)
	}
	p.ends[fcp.SegmentID{6}] = good
	if err := p.checkCompacted(); err != nil {
		t.Fatal(err)
	}
}

// TestACompactedStoreIsScatteredAndGathered: any two of three directories give it
// back.
func TestACompactedStoreIsScatteredAndGathered(t *testing.T) {
	s, _ := churned(t, 21)
	s.checkpoint(authority.Retention{})
	s.clock.Advance(25 * time.Hour)
	if r := s.compact(CompactOptions{}); r.Events == 0 {
		t.Fatal("nothing was dropped")
	}
	dirs := []string{"/d0", "/d1", "/d2"}
	if _, err := s.Scatter(t.Context(), dirs, ScatterOptions{Policy: SymbolPolicy{Need: 2, Of: 3}}); err != nil {
		t.Fatal(err)
	}
	if _, err := GatherSymbols(t.Context(), dirs[1:], "/gathered", GatherOptions{Environment: s.env}); err != nil {
		t.Fatal(err)
	}
	v, err := VerifyBackup(t.Context(), "/gathered", VerifyBackupOptions{Environment: s.env, Owner: s.owner})
	if err != nil || len(v.Findings) > 0 || !v.Identical {
		t.Fatal(v.Findings, err)
	}
}

// TestOpenSweepsWhatACrashLeft: after a crash between a compaction and its sweep
// the state knows more than the log; the next open mends that before anybody reads.
func TestOpenSweepsWhatACrashLeft(t *testing.T) {
	s, _ := churned(t, 22)
	s.checkpoint(authority.Retention{})
	s.clock.Advance(25 * time.Hour)
	plan := s.compact(CompactOptions{DryRun: true})
	var runs []log.CompactRun
	for _, z := range plan.Zones {
		for i := range z.Runs {
			runs = append(runs, z.Runs[i].run)
		}
	}
	if r, err := s.Log().Compact(t.Context(), runs); err != nil || r.Events != plan.Events {
		t.Fatal(r, err)
	}
	if _, err := s.Replay(t.Context(), ReplayOptions{Verify: true}); !errors.Is(err, fcp.CodeRootMismatch) {
		t.Fatal("there was nothing to sweep:", err)
	}
	s.reopen()
	s.identical()
	if s.get("a", At{}) != body("a", 7) {
		t.Fatal("a live body is gone")
	}
	if n, err := s.sweep(t.Context()); n != 0 || err != nil {
		t.Fatal("swept twice:", n, err)
	}
}
