package log

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// bigDraft is an event of the data plane that fills several frames.
func bigDraft(zone fcp.ZoneID, n int, tag uint64) Draft {
	d := Draft{Zone: zone, Plane: fcp.PlaneData, Content: opaque(n, byte(tag)), Salt: [SaltSize]byte{byte(tag), 1}}
	binary.BigEndian.PutUint64(d.Content.Body, tag)
	d.Content.Object = fcp.ObjectID{byte(tag), 7}
	d.Content.Kind = fcp.KindChunkPut
	d.Content.Size = uint64(n)
	return d
}

func prepare(e *StagedEvent, d Draft) error {
	body := d.Content.Body
	return e.Prepare(d, len(body), func(dst []byte) []byte { return append(dst, body...) })
}

func add(s *Stage, e *StagedEvent) error {
	encrypt, err := s.Add(e)
	if err == nil {
		go encrypt()
	}
	return err
}

// stage puts events through a Stage of their own.
func stage(t testing.TB, l *Log, drafts ...Draft) []Placed {
	t.Helper()
	s, err := l.Stage(context.Background(), drafts[0].Zone)
	if err != nil {
		t.Fatal(err)
	}
	var e StagedEvent
	for _, d := range drafts {
		if err := errors.Join(prepare(&e, d), add(s, &e)); err != nil {
			t.Fatal(err)
		}
	}
	placed, err := s.Commit(context.Background())
	if err != nil || len(placed) != len(drafts) {
		t.Fatal(placed, err)
	}
	return placed
}

func stageSome(t *testing.T, l *Log, m *model) {
	var ds []Draft
	for i := range 3 {
		ds = append(ds, bigDraft(fcp.ZonePrivate, 70_000+i*1000, m.issued.Add(1)))
	}
	m.ack(stage(t, l, ds...))
}

// TestStagedEventsAreLikeAppended: staged and appended events of one feed and of
// others make one log that scans, verifies, reopens and proves like any.
func TestStagedEventsAreLikeAppended(t *testing.T) {
	disk := newDisk()
	o := sealing(small(), 1<<20)
	l, err := openOn(disk, o)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[uint64]Draft{} // by position
	note := func(ds []Draft, placed []Placed) {
		for i := range ds {
			want[placed[i].Position] = ds[i]
		}
	}
	for round := range uint64(6) {
		var big []Draft
		for i := range 1 + rng.Uint64N(3) {
			big = append(big, bigDraft(testZones[round%2], 1+rng.IntN(300_000)+8, round*10+i))
		}
		note(big, stage(t, l, big...))
		small := draft(100, byte(round))
		note(small, mustAppend(t, l, small).Events)
		if round == 3 {
			mustClose(t, l)
			if l, err = openOn(disk, o); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func() {
		t.Helper()
		got := 0
		err := l.Scan(context.Background(), ScanOptions{Verify: VerifyTree}, func(events []Applied) error {
			for i := range events {
				d, ok := want[events[i].Position]
				if !ok {
					continue
				}
				got++
				if string(d.Content.AppendTo(nil)) != string(events[i].Content.AppendTo(nil)) {
					t.Errorf("position %d holds another event", events[i].Position)
				}
				e, salt, err := l.Read(events[i].Feed, events[i].Seq)
				if err != nil || salt != d.Salt || string(e.Body) != string(d.Content.Body) {
					t.Errorf("position %d: salt %x, %v", events[i].Position, salt, err)
				}
			}
			return nil
		})
		if err != nil || got != len(want) {
			t.Fatalf("%d of %d events, %v", got, len(want), err)
		}
	}
	check()
	mustClose(t, l)
	wantClean(t, disk, o.Sealer)
	if l, err = openOn(disk, o); err != nil {
		t.Fatal(err)
	}
	check()
	mustClose(t, l)
}

// TestAbortedStageLeavesNothing: the feed goes on where it stood.
func TestAbortedStageLeavesNothing(t *testing.T) {
	l, err := openOn(newDisk(), sealing(small(), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	before := mustAppend(t, l, draft(10, 1)).Events[0]
	s, err := l.Stage(context.Background(), fcp.ZonePrivate)
	if err != nil {
		t.Fatal(err)
	}
	var e StagedEvent
	if err := errors.Join(prepare(&e, bigDraft(fcp.ZonePrivate, 100_000, 1)), add(s, &e), s.Abort()); err != nil {
		t.Fatal(err)
	}
	after := mustAppend(t, l, draft(10, 2)).Events[0]
	if after.Seq != before.Seq+1 {
		t.Fatalf("event %d follows %d", after.Seq, before.Seq)
	}
	if _, err := l.fs.Stat(l.tablePath(0)); err == nil {
		t.Fatal("the table is still there")
	}
}

// TestAppendsWaitForTheStageOfTheirFeed: others do not.
func TestAppendsWaitForTheStageOfTheirFeed(t *testing.T) {
	l, err := openOn(newDisk(), sealing(small(), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	s, err := l.Stage(context.Background(), fcp.ZonePrivate)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, []Draft{{Zone: fcp.ZonePrivate, Plane: fcp.PlaneControl, Content: opaque(7, 1)}})
	mustAppend(t, l, []Draft{{Zone: fcp.ZoneWork, Plane: fcp.PlaneData, Content: opaque(7, 1)}})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err = l.Append(ctx, draft(10, 1))
	wantCode(t, err, fcp.CodeTimeout)
	var waiting sync.WaitGroup
	waiting.Go(func() { mustAppend(t, l, draft(10, 1)) })
	var e StagedEvent
	if err := errors.Join(prepare(&e, bigDraft(fcp.ZonePrivate, 100_000, 1)), add(s, &e)); err != nil {
		t.Fatal(err)
	}
	placed, err := s.Commit(context.Background())
	if err != nil || placed[0].Seq != 1 {
		t.Fatal(placed, err)
	}
	waiting.Wait()
	wantCode(t, prepare(&e, Draft{Zone: fcp.ZonePrivate, Plane: fcp.PlaneControl, Content: opaque(7, 1)}), fcp.CodeWrongPlane)
}

// TestStageOfManyTables: the events of one Stage lie in as many tables as it takes,
// and after an Abort none of their frames is left.
func TestStageOfManyTables(t *testing.T) {
	disk := newDisk()
	o := sealing(small(), 1<<20)
	l, err := openOn(disk, o)
	if err != nil {
		t.Fatal(err)
	}
	begin := func() *Stage {
		s, err := l.Stage(context.Background(), fcp.ZonePrivate)
		if err != nil {
			t.Fatal(err)
		}
		s.turn = 200_000
		var e StagedEvent
		for i := range uint64(9) {
			if err := errors.Join(prepare(&e, bigDraft(fcp.ZonePrivate, 100_000, i)), add(s, &e)); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	s := begin()
	if err := s.Abort(); err != nil {
		t.Fatal(err)
	}
	s = begin()
	placed, err := s.Commit(context.Background())
	if err != nil || len(placed) != 9 || placed[0].Seq != 1 {
		t.Fatal(placed, err)
	}
	if s.tables < 4 {
		t.Fatalf("%d tables", s.tables)
	}
	for i := range placed {
		e, _, err := l.Read(placed[i].Feed, placed[i].Seq)
		if want := bigDraft(fcp.ZonePrivate, 100_000, uint64(i)); err != nil || string(e.Body) != string(want.Content.Body) {
			t.Errorf("event %d: %v", i, err)
		}
	}
	for i := range tablePaths {
		if _, err := l.fs.Stat(l.tablePath(i)); err == nil {
			t.Error("a table is still on its way")
		}
	}
	mustClose(t, l)
	wantClean(t, disk, o.Sealer)
}

// TestTablesLeftByACrashAreRemoved when the store is opened.
func TestTablesLeftByACrashAreRemoved(t *testing.T) {
	disk := newDisk()
	o := sealing(small(), 1<<20)
	for range 2 {
		l, err := openOn(disk, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range tablePaths {
			if _, err := l.fs.Stat(l.tablePath(i)); err == nil {
				t.Error("it is still there")
			}
			f, err := l.fs.Create(l.tablePath(i), "test")
			if err != nil || f.Close() != nil {
				t.Fatal(err)
			}
		}
		mustClose(t, l)
	}
}

// TestSumsOfTablesAreTheirFiles: what a clean close takes over unread is what it
// would read.
func TestSumsOfTablesAreTheirFiles(t *testing.T) {
	for name, open := range map[string]func() *Log{
		"in memory": func() *Log {
			l, err := openOn(newDisk(), sealing(small(), 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			return l
		},
		"past the page cache": func() *Log {
			o := sealing(small(), 1<<20)
			o.FS, o.Create, o.Writer = vfs.Default, true, testWriter()
			l, err := Open(t.TempDir(), o)
			if err != nil {
				t.Fatal(err)
			}
			return l
		},
	} {
		l := open()
		stage(t, l, bigDraft(fcp.ZonePrivate, 100_000, 1), bigDraft(fcp.ZonePrivate, 1_050_000, 2))
		mustAppend(t, l, draft(10, 1))
		if _, err := l.Seal(context.Background(), SealOptions{All: true}); err != nil {
			t.Fatal(err)
		}
		sums := l.TableSums()
		if len(sums) < 2 {
			t.Errorf("%s: sums of %d tables", name, len(sums))
		}
		for table, want := range sums {
			hash, size, err := hashFile(l.fs, l.fs.PathJoin(l.dir, table))
			if err != nil || (FileSum{size, hash}) != want {
				t.Errorf("%s: %s is %d bytes %x, not %+v: %v", name, table, size, hash, want, err)
			}
		}
		mustClose(t, l)
	}
}
