package engine

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"fcp"
	"fcp/engine/blob"
	"fcp/internal/crashfs"
)

func (w *world) backupWith(dir string, o BackupOptions) BackupResult {
	w.Helper()
	r, err := w.e.Backup(w.Context(), dir, o)
	if err != nil {
		w.Fatal("backup:", err)
	}
	return r
}

func (w *world) files(dir string) *blob.Files { return blob.NewFiles(w.env.FS, dir) }

func (w *world) points(dir string) (seqs []uint64) {
	w.Helper()
	points, err := RestorePoints(w.Context(), w.files(dir), dir)
	if err != nil {
		w.Fatal(err)
	}
	for _, p := range points {
		seqs = append(seqs, p.Seq)
	}
	return seqs
}

func TestRestorePointsAreKeptRestoredAndPruned(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 31)
	roots := map[uint64]fcp.Hash{}
	for i := range 5 {
		w.put(fcp.ZonePrivate, "a", fmt.Appendf(nil, "version %d", i+1))
		w.put(fcp.ZonePrivate, fmt.Sprintf("n%d", i), noise(uint64(i), 3000))
		r := w.backupWith("/backup", BackupOptions{Keep: 3})
		roots[r.Seq] = r.StateRoot
		if r.Points != min(i+1, 3) {
			t.Errorf("backup %d leaves %d points", i+1, r.Points)
		}
	}
	if got := w.points("/backup"); !slices.Equal(got, []uint64{5, 4, 3}) {
		t.Fatalf("points %v", got)
	}
	r := w.verify("/backup", w.owner)
	noFindings(t, r)
	if r.Points != 2 || !r.Identical {
		t.Errorf("%+v", r)
	}
	w.e.Close()
	for seq := uint64(3); seq <= 5; seq++ {
		dir := fmt.Sprintf("/restored%d", seq)
		res, err := Restore(t.Context(), "/backup", dir, RestoreOptions{Environment: w.env, Owner: w.owner, Seq: seq})
		if err != nil {
			t.Fatal(err)
		}
		if res.Seq != seq || res.StateRoot != roots[seq] {
			t.Errorf("restore point %d gives %d with root %s", seq, res.Seq, res.StateRoot)
		}
		w.open(dir)
		w.names = map[string][]byte{"z:private a": fmt.Appendf(nil, "version %d", seq)}
		w.check()
		w.e.Close()
	}
	if _, err := Restore(t.Context(), "/backup", "/no", RestoreOptions{Environment: w.env, Owner: w.owner, Seq: 2}); !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("a point that is gone: %v", err)
	}
	before := tree(t, w.env.FS, "/backup")
	if _, err := PruneBackup(t.Context(), w.files("/backup"), "/backup", PruneOptions{}); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("keep 0: %v", err)
	}
	dry, err := PruneBackup(t.Context(), w.files("/backup"), "/backup", PruneOptions{Keep: 1, DryRun: true})
	if err != nil || len(dry.Files) == 0 || !slices.Equal(dry.Dropped, []uint64{4, 3}) || len(tree(t, w.env.FS, "/backup")) != len(before) {
		t.Errorf("dry run: %+v %v", dry, err)
	}
	if r, err := PruneBackup(t.Context(), w.files("/backup"), "/backup", PruneOptions{Keep: 1, Since: time.Unix(0, 0)}); err != nil || len(r.Files) != 0 {
		t.Errorf("points younger than asked go: %+v %v", r, err)
	}
	did, err := PruneBackup(t.Context(), w.files("/backup"), "/backup", PruneOptions{Keep: 1})
	if err != nil || !slices.Equal(did.Files, dry.Files) || did.Bytes != dry.Bytes {
		t.Errorf("%+v %v, the dry run said %+v", did, err, dry)
	}
	after := tree(t, w.env.FS, "/backup")
	if len(before)-len(after) != len(did.Files) {
		t.Errorf("%d files before, %d after removing %d", len(before), len(after), len(did.Files))
	}
	if got := w.points("/backup"); !slices.Equal(got, []uint64{5}) {
		t.Errorf("points %v", got)
	}
	r = w.verify("/backup", w.owner)
	noFindings(t, r)
	if r.Manifests != 5 || !r.Identical {
		t.Errorf("%+v", r)
	}
}

// TestAnInterruptedPruneLeavesWholePoints cuts the power at every step of a prune.
func TestAnInterruptedPruneLeavesWholePoints(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 32)
	for i := range 3 {
		w.put(fcp.ZonePrivate, "a", noise(uint64(i), 2000))
		w.backupWith("/backup", BackupOptions{Keep: 3})
	}
	files := tree(t, w.env.FS, "/backup")
	whole := crashfs.New()
	fill := func(disk *crashfs.FS) {
		for name, b := range files {
			if _, err := blob.NewFiles(disk, "/backup").Put(t.Context(), name, bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(whole)
	begin := whole.Mutations()
	if _, err := PruneBackup(t.Context(), blob.NewFiles(whole, "/backup"), "/backup", PruneOptions{Keep: 1}); err != nil {
		t.Fatal(err)
	}
	env := w.env
	for stop := begin + 1; stop <= whole.Mutations(); stop++ {
		disk := crashfs.New()
		fill(disk)
		disk.StopAt(stop)
		_, _ = PruneBackup(t.Context(), blob.NewFiles(disk, "/backup"), "/backup", PruneOptions{Keep: 1}) // the power is cut in it
		image := disk.Crash(rand.New(rand.NewPCG(uint64(stop), 1)), crashfs.Harsh())
		env.FS = image
		points, err := RestorePoints(t.Context(), blob.NewFiles(image, "/backup"), "/backup")
		if err != nil || len(points) == 0 || points[0].Seq != 3 {
			t.Fatalf("stop %d: %+v %v", stop, points, err)
		}
		r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env})
		if err != nil {
			t.Fatal(err)
		}
		noFindings(t, r)
	}
}

// TestAnyFlippedBitIsFoundWithoutAKey is the property over backups of several
// shapes: one bit, anywhere in any file, older restore points included.
func TestAnyFlippedBitIsFoundWithoutAKey(t *testing.T) {
	type shape struct {
		w     *world
		files map[string][]byte
		names []string
	}
	var shapes []shape
	for i, keep := range []int{1, 3} {
		w := newWorld(t, vfs.NewMem(), uint64(40+i))
		for j := range 3 + 4*i {
			w.put(fcp.ZonePrivate, fmt.Sprintf("k%d", j%3), noise(uint64(j), 700+j*900))
			w.backupWith("/backup", BackupOptions{Keep: keep})
		}
		s := shape{w: w, files: tree(t, w.env.FS, "/backup")}
		for n := range s.files {
			s.names = append(s.names, n)
		}
		slices.Sort(s.names)
		shapes = append(shapes, s)
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := shapes[rapid.IntRange(0, len(shapes)-1).Draw(rt, "backup")]
		name := rapid.SampledFrom(s.names).Draw(rt, "file")
		bit := rapid.IntRange(0, 8*len(s.files[name])-1).Draw(rt, "bit")
		b := bytes.Clone(s.files[name])
		b[bit/8] ^= 1 << (bit % 8)
		env := s.w.env
		env.FS = copyOf(t, s.files)
		if err := writeFile(env.FS, "/backup", name, b); err != nil {
			rt.Fatal(err)
		}
		r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env})
		if err != nil {
			rt.Fatal(err)
		}
		if !slices.ContainsFunc(r.Findings, func(f BackupFinding) bool { return f.File == name }) {
			rt.Fatalf("bit %d of %s: %+v", bit, name, r.Findings)
		}
	})
}

// TestABackupMendsWhatRotted flips a byte of every file that a backup reuses.
func TestABackupMendsWhatRotted(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 33)
	w.fill()
	w.backup("/backup")
	mendable := func(n string) bool {
		return strings.HasPrefix(n, segmentPrefix) || strings.HasPrefix(n, cardPrefix) || strings.HasPrefix(n, tailPrefix) || strings.HasPrefix(n, zoneKeyPrefix)
	}
	rotten := 0
	for name, b := range tree(t, w.env.FS, "/backup") {
		if mendable(name) {
			flip(t, w.env.FS, "/backup/"+name, len(b)/2, b)
			rotten++
		}
	}
	w.backupWith("/backup", BackupOptions{Trust: true})
	if r := w.verify("/backup", nil); len(r.Findings) == 0 {
		t.Error("a backup that trusts what is there mended it")
	}
	r := w.backup("/backup")
	noFindings(t, w.verify("/backup", w.owner))
	if r.Mended == 0 || rotten == 0 {
		t.Errorf("%d files were damaged, %d mended", rotten, r.Mended)
	}
	if again := w.backup("/backup"); again.Mended != 0 || again.Files != 2 {
		t.Errorf("%+v", again)
	}
}

// TestAnIncrementalBackupMovesWhatChanged: 1 % of the bytes changed, at most 3 %
// are written.
func TestAnIncrementalBackupMovesWhatChanged(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 34)
	const n, size = 300, 32 << 10
	for i := range n {
		w.put(fcp.ZonePrivate, fmt.Sprintf("f/%03d", i), noise(uint64(i), size))
	}
	first := w.backup("/backup")
	for i := range n / 100 {
		w.put(fcp.ZonePrivate, fmt.Sprintf("f/%03d", i*97), noise(uint64(1000+i), size))
	}
	second := w.backup("/backup")
	share := float64(second.Written) / float64(first.Written)
	t.Logf("first backup %d bytes, after a change of 1 %%: %d bytes, %.2f %%", first.Written, second.Written, 100*share)
	if share > 0.03 || share < 0.01 {
		t.Errorf("%.2f %% of the bytes are written for a change of 1 %%", 100*share)
	}
}

func TestNamesAreSetBackToATime(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 35)
	w.put(fcp.ZonePrivate, "kept", []byte("same"))
	w.put(fcp.ZonePrivate, "changed", []byte("old"))
	w.put(fcp.ZonePrivate, "removed", noise(1, 2<<20))
	w.put(fcp.ZonePrivate, "gone", []byte("removed before"))
	w.remove(fcp.ZonePrivate, "gone")
	w.put(fcp.ZoneWork, "work", []byte("w1"))
	then := map[string][]byte{}
	for k, v := range w.names {
		then[k] = v
	}
	w.clock.Advance(time.Minute)
	at := w.env.Now()
	w.clock.Advance(time.Minute)
	w.put(fcp.ZonePrivate, "changed", []byte("new"))
	w.put(fcp.ZonePrivate, "changed", []byte("newer"))
	w.remove(fcp.ZonePrivate, "removed")
	w.put(fcp.ZonePrivate, "gone", []byte("back"))
	w.put(fcp.ZonePrivate, "added", []byte("later"))
	w.put(fcp.ZoneWork, "work", []byte("w2"))
	then["z:private added"] = nil
	w.backup("/backup")
	w.e.Close()
	r, err := Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: w.env, Owner: w.owner, At: at})
	if err != nil {
		t.Fatal(err)
	}
	if r.SetBack != 5 || len(r.Gone) != 0 || !r.Identical {
		t.Errorf("%+v", r)
	}
	w.open("/restored")
	w.names = then
	w.check()
	history := w.historyOf("changed")
	if len(history) != 4 {
		t.Errorf("the history of a name that was set back has %d versions", len(history))
	}
	if rep, err := w.e.Replay(t.Context(), ReplayOptions{Verify: true}); err != nil || !rep.Identical {
		t.Error(err)
	}
}

func TestADrillPassesFailsAndIsRecorded(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 36)
	w.fill()
	b := w.backup("/backup")
	if _, ok, err := w.e.LastDrill(t.Context()); ok || err != nil {
		t.Errorf("a drill before any: %v", err)
	}
	run := func() (DrillResult, error) {
		r, err := Drill(t.Context(), w.files("/backup"), "/backup", DrillOptions{Environment: w.env, Owner: w.owner, Scratch: "/scratch"})
		if names, lerr := w.env.FS.List("/scratch"); lerr == nil && len(names) > 0 {
			t.Errorf("the scratch directory keeps %v", names)
		}
		if rerr := w.e.RecordDrill(t.Context(), r); rerr != nil {
			t.Fatal(rerr)
		}
		last, ok, lerr := w.e.LastDrill(t.Context())
		if lerr != nil || !ok || last.Failure != r.Failure || last.Manifest != r.Manifest || last.Where != "/backup" {
			t.Errorf("recorded: %+v %v, was %+v", last, lerr, r)
		}
		w.clock.Advance(time.Hour)
		return r, err
	}
	r, err := run()
	if err != nil || r.Failure != 0 || r.Manifest != b.Manifest || r.StateRoot != b.StateRoot || r.Bodies == 0 {
		t.Errorf("%+v %v", r, err)
	}
	files := tree(t, w.env.FS, "/backup")
	for name, data := range files {
		if strings.HasPrefix(name, segmentPrefix) {
			flip(t, w.env.FS, "/backup/"+name, len(data)/2, data)
			break
		}
	}
	if r, err = run(); err == nil || r.Failure == 0 {
		t.Errorf("a drill with a damaged backup passes: %+v", r)
	}
	if rep, err := w.e.Replay(t.Context(), ReplayOptions{Verify: true}); err != nil || !rep.Identical {
		t.Error("the records change the state:", err)
	}
}
