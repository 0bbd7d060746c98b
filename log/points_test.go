package log

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"
)

// crashPoints are the moments named in docs/format.md "Crash points". at says
// whether the operation that is about to happen stands at the point; the power
// is cut just before it. do runs on a store with some events.
var crashPoints = []struct {
	name string
	says string // what recovery finds
	at   func(op crashfs.Op) bool
	do   func(t *testing.T, l *Log, m *model)
}{
	{"group-written", "the batch is in the WAL and not synced: all of it or nothing",
		at(crashfs.Sync, ".log"), appendSome},
	{"head-recorded", "a group that carries a head record: all of it or nothing",
		at(crashfs.Sync, ".log"), appendMany},
	{"feed-created", "the first event of a feed, with its feed record: all or nothing",
		at(crashfs.Sync, ".log"), appendNewFeed},
	{"seal-built", "the table of frames is written, nothing refers to it: the run stays open",
		atAny([]crashfs.Kind{crashfs.Link, crashfs.Rename}, "sealing"), sealAll},
	{"seal-ingested", "the frames are in the store, no segment refers to them: they are dropped",
		afterLink(crashfs.Sync, ".log"), sealAll},
	{"seal-table-linked", "the table is linked and not yet in the list of tables",
		afterLink(crashfs.Sync, "MANIFEST"), sealAll},
	{"stage-built", "the table of frames is written, nothing refers to it: nothing of it is there",
		atAny([]crashfs.Kind{crashfs.Link, crashfs.Rename}, "sealing"), stageSome},
	{"stage-ingested", "the frames are in the store, nothing refers to them: they are dropped",
		afterLink(crashfs.Sync, ".log"), stageSome},
	{"mark-created", "the file of the mark is written and not synced",
		at(crashfs.Sync, markName), nil},
	{"mark-slot-written", "a slot is written and not synced: the other one counts",
		at(crashfs.Sync, markName), writeMarkNow},
	{"import-committed", "imported events are in the WAL and not synced: all or nothing",
		at(crashfs.Sync, ".log"), importSome},
	{"flush-table", "a table of a flush is written and not in the list of tables",
		at(crashfs.Sync, ".sst"), flushNow},
	{"flush-manifest", "the list of tables got an entry that is not synced",
		at(crashfs.Sync, "MANIFEST"), flushNow},
	{"wal-rotated", "a new WAL exists and is empty",
		atAny([]crashfs.Kind{crashfs.SyncDir}, "store"), flushNow},
	{"compact-built", "the table of frames is written, nothing refers to it: the segments stay",
		compacting(atAny([]crashfs.Kind{crashfs.Link, crashfs.Rename}, "sealing")), compactAll},
	{"compact-table-linked", "the table is linked and not yet in the list of tables: the segments stay",
		compacting(afterLink(crashfs.Sync, "MANIFEST")), compactAll},
	{"compact-ingested", "the frames are in the store, no segment refers to them: they are dropped",
		compacting(afterLink(crashfs.Sync, ".log")), compactAll},
	{"compact-committed", "the batch is synced: the new segments hold, the tables still have what was dropped",
		compacting(at(crashfs.Create, ".sst")), compactAll},
	{"compact-reclaimed", "tables without what was dropped are written and not yet in the list of tables",
		compacting(at(crashfs.Sync, ".sst")), compactAll},
	{"close", "any step of Close", func(op crashfs.Op) bool { return op.Kind.Mutating() },
		func(t *testing.T, l *Log, _ *model) { mustClose(t, l) }},
}

func at(k crashfs.Kind, path string) func(crashfs.Op) bool {
	return atAny([]crashfs.Kind{k}, path)
}

func atAny(kinds []crashfs.Kind, path string) func(crashfs.Op) bool {
	return func(op crashfs.Op) bool {
		for _, k := range kinds {
			if op.Kind == k && strings.Contains(op.Path[strings.LastIndexByte(op.Path, '/')+1:], path) {
				return true
			}
		}
		return false
	}
}

// linkedSeal remembers, within one run of a point, that the table was linked.
var linkedSeal bool

func afterLink(k crashfs.Kind, path string) func(crashfs.Op) bool {
	match := at(k, path)
	return func(op crashfs.Op) bool {
		if (op.Kind == crashfs.Link || op.Kind == crashfs.Rename) && strings.Contains(op.Path, "sealing") {
			linkedSeal = true
		}
		return linkedSeal && match(op)
	}
}

// compactionBegun says, within one run of a point, that the segments to compact
// are there.
var compactionBegun bool

func compacting(match func(crashfs.Op) bool) func(crashfs.Op) bool {
	return func(op crashfs.Op) bool { return compactionBegun && match(op) }
}

// compactAll makes one segment of those of each data feed, without every other
// event.
func compactAll(t *testing.T, l *Log, m *model) {
	for range 3 {
		appendSome(t, l, m)
		d := Draft{Zone: fcp.ZonePrivate, Plane: fcp.PlaneData, Content: opaque(300, 1)}
		binary.BigEndian.PutUint64(d.Content.Body, m.issued.Add(1))
		m.ack(mustAppend(t, l, []Draft{d}).Events)
		sealAll(t, l, m)
	}
	runs := map[FeedNo]*CompactRun{}
	err := l.Segments(func(i SegmentInfo) error {
		if i.Remainder.Plane != uint64(fcp.PlaneData) {
			return nil
		}
		no, _ := l.FeedNo(i.Remainder.Feed())
		r := runs[no]
		if r == nil {
			r = &CompactRun{Feed: no}
			runs[no] = r
		}
		r.Segments = append(r.Segments, i.No)
		for seq := i.Remainder.First; seq <= i.Remainder.Last; seq += 2 {
			r.Drop = append(r.Drop, seq)
		}
		return nil
	})
	if err != nil || len(runs) == 0 {
		t.Fatal(runs, err)
	}
	var list []CompactRun
	for no := range FeedNo(20) {
		if r := runs[no]; r != nil {
			list = append(list, *r)
		}
	}
	compactionBegun, linkedSeal = true, false
	if r, err := l.Compact(context.Background(), list); err != nil || r.Events == 0 {
		t.Fatal(r, err)
	}
}

func appendSome(t *testing.T, l *Log, m *model) {
	m.ack(mustAppend(t, l, m.drafts(rand.New(rand.NewPCG(1, 1)))).Events)
}

func appendMany(t *testing.T, l *Log, m *model) {
	ds := make([]Draft, headRecordEvents+1)
	for i := range ds {
		ds[i] = Draft{Zone: fcp.ZonePrivate, Plane: fcp.PlaneData, Content: opaque(7, byte(i))}
	}
	m.ack(mustAppend(t, l, ds).Events)
}

func appendNewFeed(t *testing.T, l *Log, m *model) {
	m.ack(mustAppend(t, l, []Draft{{Zone: "z:brand-new", Plane: fcp.PlaneControl, Content: opaque(7, 1)}}).Events)
}

func sealAll(t *testing.T, l *Log, m *model) {
	infos, err := l.Seal(context.Background(), SealOptions{All: true})
	if err != nil || len(infos) == 0 {
		t.Fatalf("%d segments, %v", len(infos), err)
	}
}

func writeMarkNow(t *testing.T, l *Log, m *model) {
	for range 3 {
		appendSome(t, l, m)
		if err := l.writeMark(); err != nil {
			t.Fatal(err)
		}
	}
}

func importSome(t *testing.T, l *Log, m *model) {
	if _, err := l.Import(context.Background(), newForeign(3, fcp.ZoneWork, fcp.PlaneControl).take(5), nil); err != nil {
		t.Fatal(err)
	}
}

func flushNow(t *testing.T, l *Log, _ *model) {
	if err := l.db.Flush(); err != nil {
		t.Fatal(err)
	}
}

func TestCrashPoints(t *testing.T) {
	for _, p := range crashPoints {
		t.Run(p.name, func(t *testing.T) {
			disk, m := crashfs.New(), &model{}
			rng := rand.New(rand.NewPCG(8, 8))
			var images []cutImage
			cut := func(op crashfs.Op) error {
				if p.at(op) {
					for _, d := range crashDamages {
						acked := m.snapshot()
						images = append(images, cutImage{disk.Crash(rng, d), acked, m.issued.Load(), fmt.Sprintf("%s %s", op.Kind, op.Path)})
					}
				}
				return nil
			}
			linkedSeal, compactionBegun = false, false
			o := sealing(small(), 1<<20)
			if p.do == nil { // during the first Open
				disk.SetHook(serial(cut))
			}
			l, err := openOn(disk, o)
			if err != nil {
				t.Fatal(err)
			}
			for range 10 {
				m.ack(mustAppend(t, l, m.drafts(rng)).Events)
			}
			m.ack(mustAppend(t, l, []Draft{{Zone: fcp.ZonePrivate, Plane: fcp.PlaneData, Content: opaque(70, 1)}}).Events)
			if p.do != nil {
				disk.SetHook(serial(cut))
				p.do(t, l, m)
			}
			disk.SetHook(nil)
			after := disk.CrashClone() // the point passed: all that was acknowledged is there
			images = append(images, cutImage{after, m.snapshot(), m.issued.Load(), "afterwards"})
			mustClose(t, l)
			if len(images) < 1+len(crashDamages) {
				t.Fatalf("the point was never reached")
			}
			for i := range images {
				keep := images[i].fs.CrashClone()
				if err := checkImage(&images[i], o, true); err != nil {
					saveImage(t, keep)
					t.Fatalf("%s: image %d at %s: %v", p.says, i, images[i].at, err)
				}
			}
			t.Logf("%d images", len(images))
		})
	}
}

// serial runs a hook by one goroutine at a time.
func serial(h crashfs.Hook) crashfs.Hook {
	busy := make(chan struct{}, 1)
	return func(op crashfs.Op) error {
		busy <- struct{}{}
		defer func() { <-busy }()
		return h(op)
	}
}

// TestUnfinishedSealLeavesNoFrames: what "seal-ingested" leaves is reported as
// an orphan, then dropped by Open, and its number is not used again.
func TestUnfinishedSealLeavesNoFrames(t *testing.T) {
	disk := crashfs.New()
	o := sealing(small(), 1<<20)
	l, err := openOn(disk, o)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		mustAppend(t, l, draft(1000, 1))
	}
	var image *crashfs.FS
	match := afterLink(crashfs.Sync, ".log")
	linkedSeal = false
	disk.SetHook(serial(func(op crashfs.Op) error {
		if image == nil && match(op) {
			image = disk.CrashClone()
		}
		return nil
	}))
	sealAll(t, l, nil)
	disk.SetHook(nil)
	mustClose(t, l)
	if image == nil {
		t.Fatal("the point was never reached")
	}
	r := wantClean(t, image, o.Sealer)
	if !strings.Contains(fmt.Sprint(r.Findings), FindOrphan+":") || r.Segments != 0 {
		t.Fatalf("no orphan: %+v", r)
	}
	if l, err = openOn(image, o); err != nil {
		t.Fatal(err)
	}
	if s := l.Feeds()[0]; s.Sealed != 0 || s.Seq != 5 {
		t.Fatalf("recovered as %+v", s)
	}
	sealAll(t, l, nil)
	mustClose(t, l)
	if r = wantClean(t, image, o.Sealer); r.Segments != 1 || len(r.Findings) != 0 {
		t.Fatalf("after sealing again: %+v", r)
	}
}

// TestTailLost: synced data vanish above the mark's back; the store opens
// read-only and keeps its sequence numbers to itself.
func TestTailLost(t *testing.T) {
	for _, seals := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealing %v", seals), func(t *testing.T) {
			disk := crashfs.New()
			o := small()
			if seals {
				o = sealing(o, 1<<20)
			}
			l, err := openOn(disk, o)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				mustAppend(t, l, draft(100, 1))
			}
			early := disk.CrashClone()
			for range 5 {
				mustAppend(t, l, draft(100, 1))
			}
			if err := l.writeMark(); err != nil {
				t.Fatal(err)
			}
			late := disk.CrashClone()
			mustClose(t, l)
			// The old image with the new mark is a store whose synced tail is gone.
			copyFile(t, early, late, "store/"+markName)
			for range 2 { // it does not heal by being opened
				l, err = openOn(early, o)
				if err != nil {
					t.Fatal(err)
				}
				wantCode(t, l.Doubt(), fcp.CodeTailLost)
				_, err = l.Append(t.Context(), draft(10, 1))
				wantCode(t, err, fcp.CodeTailLost)
				_, err = l.Import(t.Context(), newForeign(1, fcp.ZoneWork, fcp.PlaneData).take(2), nil)
				wantCode(t, err, fcp.CodeTailLost)
				wantCode(t, l.SetSalts(1, 1, make([]byte, 16)), fcp.CodeTailLost)
				if l.Durable() != 5 {
					t.Fatalf("%d events", l.Durable())
				}
				if _, _, err := l.Read(1, 5); err != nil {
					t.Fatalf("reads must go on: %v", err)
				}
				mustClose(t, l)
			}
			r, err := Verify(t.Context(), "store", VerifyOptions{FS: early})
			if err != nil || r.Clean || !strings.Contains(fmt.Sprint(r.Findings), FindTailLost+":") {
				t.Fatalf("verify finds %v, %v", r.Findings, err)
			}
		})
	}
}

func readAll(t testing.TB, fs *crashfs.FS, path string) []byte {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, st.Size())
	if _, err := f.ReadAt(b, 0); err != nil && len(b) > 0 {
		t.Fatal(err)
	}
	return b
}

func copyFile(t testing.TB, to, from *crashfs.FS, path string) {
	t.Helper()
	b := readAll(t, from, path)
	f, err := to.Create(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := syncDir(to, to.PathDir(path)); err != nil {
		t.Fatal(err)
	}
}

// TestMarkRemembersAnotherHistory: the same length, but the last event differs.
func TestMarkRemembersAnotherHistory(t *testing.T) {
	disk := crashfs.New()
	l, err := openOn(disk, small())
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, draft(100, 1))
	base := disk.CrashClone()
	mustAppend(t, l, draft(100, 2))
	mustClose(t, l)
	o := small()
	o.DisableMark = true
	if l, err = openOn(base, o); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, draft(100, 3))
	mustClose(t, l)
	copyFile(t, base, disk, "store/"+markName)
	if l, err = openOn(base, small()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.Doubt(), fcp.CodeTailLost)
	mustClose(t, l)
}

// TestFlipsInAClosedStore: one flipped bit in every byte of every file changes
// the verdict.
func TestFlipsInAClosedStore(t *testing.T) {
	base := crashfs.New()
	o := sealing(small(), 8<<10)
	l, err := openOn(base, o)
	if err != nil {
		t.Fatal(err)
	}
	m := &model{}
	rng := rand.New(rand.NewPCG(4, 4))
	for range 8 {
		mustAppend(t, l, m.drafts(rng))
	}
	sealAll(t, l, m)
	mustAppend(t, l, m.drafts(rng))
	mustClose(t, l)
	if err := RecordClean(base, ".", nil); err != nil {
		t.Fatal(err)
	}
	base = base.CrashClone() // it was durable
	sizes := map[string]int64{}
	for _, f := range base.Files() {
		sizes[f.Path] = f.Size
	}
	t.Log(sizes)
	if r, err := CheckClean(base, "."); err != nil || !r.Recorded || len(r.Findings) > 0 || r.Files < 5 {
		t.Fatalf("%+v, %v", r, err)
	}
	flips, opened := 0, 0
	start := time.Now()
	for _, f := range base.Files() {
		// Every byte in a tree of the list and this file alone, which is fast;
		// now and then the same flip in the whole store.
		b := readAll(t, base, f.Path)
		alone := crashfs.New()
		if err := alone.MkdirAll("store", 0o755); err != nil {
			t.Fatal(err)
		}
		copyFile(t, alone, base, f.Path)
		if f.Path != cleanName {
			if err := RecordClean(alone, ".", nil); err != nil {
				t.Fatal(err)
			}
		}
		for off := int64(0); off < f.Size; off++ {
			if len(b) > 1<<17 && b[off] == 0 && off%1009 != 0 {
				continue // zeros of the WAL: a sample
			}
			if off > 600 && off < f.Size-600 && off%int64(13/min(13, torture(1))) != 0 {
				continue
			}
			bit := uint(off % 8)
			if err := alone.Flip(f.Path, off, bit); err != nil {
				t.Fatal(err)
			}
			r, err := CheckClean(alone, ".")
			if err == nil && (!r.Recorded || len(r.Findings) == 0) {
				t.Fatalf("a flip of bit %d at %d of %s is not found", bit, off, f.Path)
			}
			if err := alone.Flip(f.Path, off, bit); err != nil {
				t.Fatal(err)
			}
			if flips++; flips%97 != 0 {
				continue
			}
			opened++
			image := base.CrashClone()
			if err := image.Flip(f.Path, off, bit); err != nil {
				t.Fatal(err)
			}
			if r, err := CheckClean(image, "."); err == nil && (!r.Recorded || len(r.Findings) != 1) {
				t.Fatalf("a flip of bit %d at %d of %s in the whole store: %v", bit, off, f.Path, r.Findings)
			}
			// Opening and verifying such a store must neither panic nor hang.
			if _, err := Verify(t.Context(), "store", VerifyOptions{FS: image, Sealer: o.Sealer, Closed: true}); fcp.CodeOf(err) == fcp.CodeInternal {
				t.Fatal(err)
			}
			if l, err := openOn(image, o); err == nil {
				_, _ = scanned(l, 1+opened%2)
				_ = l.Close()
			}
		}
	}
	if flips < 5000 || opened < 20 {
		t.Fatalf("only %d flips, %d opened", flips, opened)
	}
	t.Logf("%d flips, %d opened, %s", flips, opened, time.Since(start))
}

// TestFlipsInACrashedStore: flips in the synced WAL are found up to the mark,
// reported as doubt above it, and never lose an acknowledged event in silence.
func TestFlipsInACrashedStore(t *testing.T) {
	disk := crashfs.New()
	l, err := openOn(disk, small())
	if err != nil {
		t.Fatal(err)
	}
	const marked, total = 12, 18
	for i := range total {
		mustAppend(t, l, draft(200, byte(i)))
		if i == marked-1 {
			if err := l.writeMark(); err != nil {
				t.Fatal(err)
			}
		}
	}
	base := disk.CrashClone()
	mustClose(t, l)
	wal := ""
	for _, f := range base.Files() {
		if strings.HasSuffix(f.Path, ".log") {
			wal = f.Path
		}
	}
	size := int64(len(strings.TrimRight(string(readAll(t, base, wal)), "\x00")))
	if size < total*200 {
		t.Fatalf("the WAL %s has %d bytes", wal, size)
	}
	found, doubted, harmless := 0, 0, 0
	step := int64(max(1, 61/torture(1)))
	for off := int64(0); off < size; off += step {
		image := base.CrashClone()
		if err := image.Flip(wal, off, uint(off%8)); err != nil {
			t.Fatal(err)
		}
		r, err := Verify(t.Context(), "store", VerifyOptions{FS: image})
		switch {
		case err != nil || !r.Clean:
			found++
		case r.Durable < marked:
			t.Fatalf("a flip at %d leaves %d of %d marked events and is not found", off, r.Durable, marked)
		case r.Durable < total:
			doubted++
			if r.Doubt != r.Durable-marked || !r.Crashed && r.Doubt > 0 {
				t.Fatalf("a flip at %d leaves %d events: doubt %d, crashed %v", off, r.Durable, r.Doubt, r.Crashed)
			}
		default:
			harmless++
		}
		l, err := openOn(image, small())
		if err != nil {
			continue
		}
		if l.Doubt() == nil && l.Durable() < marked {
			t.Fatalf("a flip at %d: Open takes %d of %d marked events for whole", off, l.Durable(), marked)
		}
		if l.Doubt() == nil {
			if _, err := scanned(l, 1); err != nil {
				t.Fatalf("a flip at %d: opened without doubt, and %v", off, err)
			}
		}
		_ = l.Close()
	}
	if found == 0 {
		t.Fatal("no flip was found")
	}
	t.Logf("%d found, %d in doubt, %d without effect", found, doubted, harmless)
}
