package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
	"fcp/internal/crashfs"
	"fcp/log"
)

// world is a store, a place for backups and the owner, on one file system.
type world struct {
	testing.TB
	env   Environment
	clock *testClock
	owner *authority.OwnerKey
	e     *Engine
	dir   string
	names map[string][]byte // what the private zone must show
}

func newWorld(t testing.TB, files vfs.FS, seed uint64) *world {
	t.Helper()
	w := &world{TB: t, dir: "/store", names: map[string][]byte{}}
	w.env, w.clock = testEnv(files, seed)
	var err error
	if w.owner, err = authority.NewOwnerKey(w.env.Rand); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), w.dir, InitOptions{Environment: w.env, Owner: w.owner, Device: "laptop"}); err != nil {
		t.Fatal("init:", err)
	}
	w.open(w.dir)
	t.Cleanup(func() { w.e.Close() })
	return w
}

func (w *world) open(dir string) {
	w.Helper()
	e, err := Open(w.Context(), dir, Options{Environment: w.env, SegmentTarget: 256 << 10})
	if err != nil {
		w.Fatal("open:", err)
	}
	w.e, w.dir = e, dir
}

func (w *world) put(zone fcp.ZoneID, key string, body []byte) Version {
	w.Helper()
	r, err := w.e.Put(w.Context(), PutRequest{Zone: zone, Key: key, Bytes: body})
	if err != nil {
		w.Fatalf("put %s: %v", key, err)
	}
	w.names[string(zone)+" "+key] = body
	return r.Version
}

func (w *world) remove(zone fcp.ZoneID, key string) {
	w.Helper()
	if _, err := w.e.Remove(w.Context(), RemoveRequest{Zone: zone, Key: key}); err != nil {
		w.Fatalf("remove %s: %v", key, err)
	}
	w.names[string(zone)+" "+key] = nil
}

func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1], key[9] = byte(seed), byte(seed>>8), 7
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// fill writes small, middle and chunked objects, histories and tombstones into
// several zones, over several seals.
func (w *world) fill() {
	w.Helper()
	for i := range 40 {
		w.put(fcp.ZonePrivate, fmt.Sprintf("notes/%d", i%15), noise(uint64(i), 10+i*7))
	}
	for i, n := range []int{1 << 10, 1025, 64 << 10, 300_000, 1 << 20, 1<<20 + 1, 3<<20 + 77} {
		w.put(fcp.ZonePrivate, fmt.Sprintf("files/%d", i), noise(uint64(100+i), n))
		w.put(fcp.ZoneWork, fmt.Sprintf("work/%d", i), noise(uint64(200+i), n/2))
	}
	if _, err := w.e.Log().Seal(w.Context(), log.SealOptions{All: true}); err != nil {
		w.Fatal(err)
	}
	w.remove(fcp.ZonePrivate, "notes/3")
	w.put(fcp.ZonePrivate, "empty", nil)
	w.put(fcp.ZoneOwner, "secrets/one", []byte("a secret of the owner"))
	w.put(fcp.ZonePrivate, "notes/4", []byte("last words"))
}

func (w *world) backup(dir string) BackupResult {
	w.Helper()
	r, err := w.e.Backup(w.Context(), dir, BackupOptions{})
	if err != nil {
		w.Fatal("backup:", err)
	}
	return r
}

func (w *world) verify(dir string, owner *authority.OwnerKey) BackupReport {
	w.Helper()
	r, err := VerifyBackup(w.Context(), dir, VerifyBackupOptions{Environment: w.env, Owner: owner})
	if err != nil {
		w.Fatal("verify:", err)
	}
	return r
}

func (w *world) restore(backup, dir string) RestoreResult {
	w.Helper()
	r, err := Restore(w.Context(), backup, dir, RestoreOptions{Environment: w.env, Owner: w.owner})
	if err != nil {
		w.Fatal("restore:", err)
	}
	return r
}

// check reads every name and compares it.
func (w *world) check() {
	w.Helper()
	for name, want := range w.names {
		zone, key, _ := strings.Cut(name, " ")
		r, err := w.e.Get(w.Context(), GetRequest{Zone: fcp.ZoneID(zone), Key: key})
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
		}
		switch {
		case want == nil && key != "empty":
			if !errors.Is(err, fcp.CodeNotFound) {
				w.Errorf("%s was removed: %v", name, err)
			}
		case err != nil || !bytes.Equal(got, want):
			w.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(want))
		}
	}
}

func noFindings(t testing.TB, r BackupReport) {
	t.Helper()
	for _, f := range r.Findings {
		t.Errorf("finding: %s %s: %s", f.Code, f.File, f.What)
	}
}

func tree(t testing.TB, files vfs.FS, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	s := blob.NewFiles(files, dir)
	if err := s.List(context.Background(), "", func(i blob.Info) error {
		b, err := readFile(files, dir+"/"+i.Name, 1<<30)
		out[i.Name] = b
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRestoreBringsEverythingBack(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 1)
	w.fill()
	b := w.backup("/backup")
	root, err := w.e.StateRoot()
	if err != nil || root != b.StateRoot {
		t.Fatalf("state root %s, in the backup %s, %v", root, b.StateRoot, err)
	}
	if b.Seq != 1 || b.NewSegments != b.Segments || b.Segments == 0 || b.Events == 0 || b.TailEvents == 0 {
		t.Errorf("%+v", b)
	}
	r := w.verify("/backup", nil)
	noFindings(t, r)
	if r.Decrypted || r.Segments != b.Segments || r.Cards != b.Segments || r.Manifests != 1 || r.Manifest != b.Manifest || r.Salts == 0 {
		t.Errorf("%+v", r)
	}
	r = w.verify("/backup", w.owner)
	noFindings(t, r)
	if !r.Decrypted || !r.Identical || r.StateRoot != root || r.Events != b.Events || r.Bodies == 0 {
		t.Errorf("%+v", r)
	}
	old := w.e
	history := w.historyOf("notes/4")
	res := w.restore("/backup", "/restored")
	if !res.Identical || res.StateRoot != root || res.Events != b.Events || res.Writer == old.Node().Writer() ||
		res.From != old.Node().Writer() || res.Incarnation == old.Log().Incarnation() || res.Appended == 0 {
		t.Errorf("%+v", res)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	w.open("/restored")
	w.check()
	if h := w.historyOf("notes/4"); !slices.Equal(h, history) {
		t.Errorf("history %v, before %v", h, history)
	}
	if _, err := w.e.Replay(t.Context(), ReplayOptions{Verify: true}); err != nil {
		t.Error("replay:", err)
	}
	if v, err := w.e.Verify(t.Context(), VerifyOptions{Bodies: true}); err != nil || len(v.Findings) > 0 {
		t.Errorf("verify: %+v %v", v, err)
	}
}

func (w *world) historyOf(key string) (out []fcp.Hash) {
	w.Helper()
	if err := w.e.History(w.Context(), fcp.ZonePrivate, key, func(en *Entry) error {
		for _, h := range en.Heads {
			out = append(out, h.Hash)
		}
		return nil
	}); err != nil {
		w.Fatal(err)
	}
	return out
}

func TestARestoredStoreLivesAndIsBackedUpAgain(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 2)
	w.fill()
	w.backup("/backup")
	for round := range 3 {
		old := w.e
		dir := fmt.Sprintf("/restored%d", round)
		w.restore("/backup", dir)
		old.Close()
		w.open(dir)
		w.put(fcp.ZonePrivate, fmt.Sprintf("after/%d", round), noise(uint64(round), 5000))
		w.put(fcp.ZonePrivate, "notes/1", noise(uint64(round+50), 100))
		w.remove(fcp.ZoneWork, fmt.Sprintf("work/%d", round))
		w.check()
		b := w.backup("/backup")
		if b.Seq != uint64(round+2) || b.NewSegments == 0 || b.NewSegments == b.Segments {
			t.Errorf("round %d: %+v", round, b)
		}
		r := w.verify("/backup", w.owner)
		noFindings(t, r)
		if r.Manifests != round+2 || !r.Identical {
			t.Errorf("round %d: %+v", round, r)
		}
	}
	old := w.e
	w.restore("/backup", "/last")
	old.Close()
	w.open("/last")
	w.check()
}

func TestASecondBackupMovesNextToNothing(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 3)
	w.fill()
	first := w.backup("/backup")
	before := tree(t, w.env.FS, "/backup")
	second := w.backup("/backup")
	after := tree(t, w.env.FS, "/backup")
	var written uint64
	for name, b := range after {
		if before[name] == nil {
			written += uint64(len(b))
			if !strings.HasPrefix(name, manifestPrefix) && !strings.HasPrefix(name, keyTablePrefix) {
				t.Errorf("%s was written again", name)
			}
		} else if !bytes.Equal(before[name], b) {
			t.Errorf("%s changed", name)
		}
	}
	if second.Files != 2 || second.NewSegments != 0 || second.Written != written || written*20 > first.Written {
		t.Errorf("second backup: %+v (%d bytes), first: %+v", second, written, first)
	}
	if before[keyTableName(1)] == nil || after[keyTableName(1)] != nil {
		t.Error("the key table before was not replaced")
	}
	noFindings(t, w.verify("/backup", w.owner))

	w.put(fcp.ZonePrivate, "one more", noise(9, 200_000))
	third := w.backup("/backup")
	if third.NewSegments == 0 || third.NewSegments > 4 || third.Written > 260_000 {
		t.Errorf("third backup: %+v", third)
	}
	r := w.verify("/backup", w.owner)
	noFindings(t, r)
	if r.Manifests != 3 {
		t.Errorf("%+v", r)
	}
}

func TestSiblingsAndRevocationsComeBack(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 4)
	w.put(fcp.ZonePrivate, "shared", []byte("base"))
	// Another node's feed, with a sibling of "shared" and a version behind a cut.
	feed, other := w.foreign()
	if _, err := w.e.ImportEvents(t.Context(), other[:3], nil); err != nil {
		t.Fatal(err)
	}
	body, err := authority.SignRevocation(w.clock.Now(), w.owner, authority.Cut{Feed: feed, Seq: 2, Hash: other[1].Hash()}, "lost")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.e.AppendSigned(t.Context(), fcp.ZonePrivate, fcp.KindRevocationIssued, body); err != nil {
		t.Fatal(err)
	}
	before, err := w.e.Stat(t.Context(), fcp.ZonePrivate, "shared", At{})
	if err != nil || len(before.Heads) < 2 {
		t.Fatalf("no siblings: %+v %v", before, err)
	}
	b := w.backup("/backup")
	noFindings(t, w.verify("/backup", w.owner))
	w.restore("/backup", "/restored")
	w.e.Close()
	w.open("/restored")
	after, err := w.e.Stat(t.Context(), fcp.ZonePrivate, "shared", At{})
	if err != nil || len(after.Heads) != len(before.Heads) {
		t.Fatalf("%+v, before %+v, %v", after, before, err)
	}
	for i := range after.Heads {
		if after.Heads[i].Hash != before.Heads[i].Hash {
			t.Errorf("head %d is another one", i)
		}
	}
	// Revoked stays revoked: what comes of the feed above its cut counts for nothing.
	if _, err := w.e.ImportEvents(t.Context(), other, nil); err != nil {
		t.Fatal(err)
	}
	again, err := w.e.Stat(t.Context(), fcp.ZonePrivate, "shared", At{})
	if err != nil || len(again.Heads) != len(before.Heads) {
		t.Errorf("the revoked feed counts again: %+v %v", again, err)
	}
	_ = b
}

// foreign makes the control feed of another node: events 1 and 2 are siblings of
// "shared" and of each other, 3 and 4 more of them.
func (w *world) foreign() (fcp.Feed, []fcp.Event) {
	feed := fcp.Feed{Zone: fcp.ZonePrivate, Writer: fcp.WriterID{9}, Incarnation: 77, Plane: fcp.PlaneControl}
	var out []fcp.Event
	var prev fcp.Hash
	for i := range 4 {
		e := fcp.Event{Feed: feed, Seq: uint64(i + 1), Prev: prev, Under: w.e.Genesis().ID,
			Time:    fcp.TimeFromWall(w.clock.Now()) + fcp.Time(i),
			Content: fcp.Content{Kind: fcp.KindObjectTombstone, Key: []byte("shared"), Generation: 1}}
		e.Idempotency = bytes.Repeat([]byte{byte(i + 1)}, fcp.IdempotencySize)
		prev = e.Hash()
		out = append(out, e)
	}
	return feed, out
}

func TestAWrongIdentityIsRefused(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 5)
	w.put(fcp.ZonePrivate, "a", []byte("b"))
	w.backup("/backup")
	stranger, err := authority.NewOwnerKey(w.env.Rand)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: w.env, Owner: stranger})
	if fcp.CodeOf(err) != fcp.CodeWrongKey {
		t.Errorf("restore: %v", err)
	}
	if _, err = VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: w.env, Owner: stranger}); fcp.CodeOf(err) != fcp.CodeWrongKey {
		t.Errorf("verify: %v", err)
	}
	_, err = Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: w.env})
	if fcp.CodeOf(err) != fcp.CodeUnauthorized {
		t.Errorf("no identity: %v", err)
	}
	nothingLeft(t, w.env.FS, "/restored")
}

func nothingLeft(t testing.TB, files vfs.FS, dir string) {
	t.Helper()
	for _, d := range []string{dir, dir + partialSuffix} {
		if names, err := files.List(d); err == nil {
			t.Errorf("%s was left with %v", d, names)
		}
	}
}

func TestRestoreTouchesNoDataThatIsThere(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 6)
	w.put(fcp.ZonePrivate, "a", []byte("b"))
	w.backup("/backup")
	o := RestoreOptions{Environment: w.env, Owner: w.owner}
	if _, err := Restore(t.Context(), "/backup", w.dir, o); fcp.CodeOf(err) != fcp.CodeStoreExists {
		t.Errorf("over a live store: %v", err)
	}
	files := w.env.FS
	for _, dir := range []string{"/photos", "/new" + partialSuffix} {
		if err := files.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(files, dir, "cat.jpg", []byte("cat")); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), "/backup", strings.TrimSuffix(dir, partialSuffix), o); fcp.CodeOf(err) != fcp.CodeNotEmpty {
			t.Errorf("%s: %v", dir, err)
		}
		if b, err := readFile(files, dir+"/cat.jpg", 10); string(b) != "cat" {
			t.Errorf("the cat is gone: %v", err)
		}
	}
	if err := files.MkdirAll("/empty", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Restore(t.Context(), "/backup", "/empty/", o); err != nil {
		t.Errorf("into an empty directory: %v", err)
	}
	if _, err := Restore(t.Context(), "/nothing", "/x", o); fcp.CodeOf(err) != fcp.CodeNotFound {
		t.Errorf("no backup: %v", err)
	}
	w.check()
}

// smallBackup makes a backup with at least one of each kind of file and two
// manifests.
func smallBackup(t testing.TB, seed uint64) *world {
	w := newWorld(t, vfs.NewMem(), seed)
	w.put(fcp.ZonePrivate, "a", []byte("first"))
	w.put(fcp.ZonePrivate, "b", noise(1, 1500))
	w.backup("/backup")
	w.put(fcp.ZonePrivate, "a", []byte("second"))
	w.backup("/backup")
	return w
}

// copyOf returns a file system that holds just a backup folder with these files.
func copyOf(t testing.TB, files map[string][]byte) vfs.FS {
	t.Helper()
	m := vfs.NewMem()
	s := blob.NewFiles(m, "/backup")
	for name, b := range files {
		if _, err := s.Put(context.Background(), name, bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestEveryFlippedByteIsFoundWithoutAKey(t *testing.T) {
	w := smallBackup(t, 7)
	files := tree(t, w.env.FS, "/backup")
	// Every byte takes minutes; without the variable it is both ends of each file
	// and every 97th byte between.
	every := os.Getenv("FCP_EVERY_BYTE") != ""
	kinds := map[string]bool{}
	for name, b := range files {
		kinds[strings.SplitN(name, "/", 2)[0]] = true
		m := copyOf(t, files)
		for i := range b {
			if !every && i >= 8 && i < len(b)-8 && i%97 != 0 {
				continue
			}
			flip(t, m, "/backup/"+name, i, b)
			env := w.env
			env.FS = m
			r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env})
			if err != nil {
				t.Fatalf("%s byte %d: %v", name, i, err)
			}
			if !slices.ContainsFunc(r.Findings, func(f BackupFinding) bool { return f.File == name }) {
				t.Fatalf("%s byte %d of %d: not found, findings %+v", name, i, len(b), r.Findings)
			}
			flip(t, m, "/backup/"+name, -1, b)
		}
	}
	for _, k := range []string{"genesis", "manifest", "segments", "cards", "keytable", "index", "tail", "zonekeys"} {
		if !kinds[k] {
			t.Errorf("no file of kind %s was in the backup", k)
		}
	}
}

// flip rewrites a file with one bit changed; at -1 with none.
func flip(t testing.TB, files vfs.FS, path string, at int, b []byte) {
	t.Helper()
	c := bytes.Clone(b)
	if at >= 0 {
		c[at] ^= 1 << (at % 8)
	}
	f, err := files.Create(path, vfs.WriteCategoryUnspecified)
	if err == nil {
		_, err = f.Write(c)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestMissingShortSwappedAndExtraFilesAreFound(t *testing.T) {
	w := smallBackup(t, 8)
	whole := tree(t, w.env.FS, "/backup")
	var names []string
	for n := range whole {
		names = append(names, n)
	}
	slices.Sort(names)
	env := w.env
	try := func(what string, files map[string][]byte, restorable bool) {
		t.Helper()
		env.FS = copyOf(t, files)
		r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env, Owner: w.owner})
		if err == nil && len(r.Findings) == 0 {
			t.Errorf("%s: not found", what)
		}
		_, err = Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: env, Owner: w.owner})
		if restorable != (err == nil) {
			t.Errorf("%s: restore: %v", what, err)
		}
		if err != nil {
			nothingLeft(t, env.FS, "/restored")
			if strings.Contains(err.Error(), "FCP-9001") {
				t.Errorf("%s: an internal error: %v", what, err)
			}
		}
	}
	with := func(change func(map[string][]byte)) map[string][]byte {
		c := map[string][]byte{}
		for n, b := range whole {
			c[n] = b
		}
		change(c)
		return c
	}
	for i, n := range names {
		chain := n == manifestName(1) || strings.HasPrefix(n, cardPrefix) // a restore does not need them
		newest := n == manifestName(2)
		if !newest {
			try("without "+n, with(func(m map[string][]byte) { delete(m, n) }), chain)
		}
		try("half of "+n, with(func(m map[string][]byte) { m[n] = m[n][:len(m[n])/2] }), chain)
		try("longer "+n, with(func(m map[string][]byte) { m[n] = append(bytes.Clone(m[n]), 0) }), chain)
		if o := names[(i+1)%len(names)]; strings.SplitN(o, "/", 2)[0] == strings.SplitN(n, "/", 2)[0] {
			swapChain := strings.HasPrefix(n, cardPrefix)
			try("swapped "+n, with(func(m map[string][]byte) { m[n], m[o] = m[o], m[n] }), swapChain)
		}
	}
	for extra, own := range map[string]bool{"notes": false, "segments/aa/x.seg": false, manifestPrefix + "0000000009.manifes": false, "tail/old.tail": false,
		segmentName(fcp.SegmentID{1}): true, cardName(fcp.SegmentID{1}): true, indexName(fcp.Hash{1}): true, tailName(fcp.Hash{1}): true, zoneKeyName(fcp.Hash{1}): true, keyTableName(9): true} {
		env.FS = copyOf(t, with(func(m map[string][]byte) { m[extra] = []byte("x") }))
		r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env, Owner: w.owner})
		if err != nil || len(r.Findings) > 0 || !r.Identical || !slices.Equal(r.Unlisted, []UnlistedFile{{extra, own}}) {
			t.Errorf("extra %s: %+v %v", extra, r, err)
		}
		if _, err = Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: env, Owner: w.owner}); err != nil {
			t.Errorf("extra %s: restore: %v", extra, err)
		}
	}
}

func TestAnOlderManifestIsNotTakenForTheNewest(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 9)
	w.put(fcp.ZonePrivate, "a", []byte("first"))
	w.backup("/backup")
	old := tree(t, w.env.FS, "/backup")
	w.put(fcp.ZonePrivate, "a", []byte("second"))
	newest := w.backup("/backup")
	whole := tree(t, w.env.FS, "/backup")

	env := w.env
	// The newest manifest is taken away: what it alone listed is left over, and
	// what it replaced is missing.
	delete(whole, manifestName(2))
	env.FS = copyOf(t, whole)
	r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env})
	if err != nil || len(r.Findings) == 0 {
		t.Errorf("removed newest: %+v %v", r, err)
	}
	// A whole older copy is a valid backup; only who knows better can tell.
	env.FS = copyOf(t, old)
	r, err = VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env})
	if err != nil || len(r.Findings) != 0 {
		t.Errorf("older copy: %+v %v", r, err)
	}
	r, err = VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env, Manifest: newest.Manifest})
	if err != nil || len(r.Findings) != 1 || r.Findings[0].Code != fcp.CodeManifest {
		t.Errorf("older copy, newest asked for: %+v %v", r, err)
	}
	_, err = Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: env, Owner: w.owner, Manifest: newest.Manifest})
	if fcp.CodeOf(err) != fcp.CodeManifest {
		t.Errorf("restore of an older copy: %v", err)
	}
	// The older manifest under the newer number.
	whole = tree(t, w.env.FS, "/backup")
	whole[manifestName(2)] = old[manifestName(1)]
	env.FS = copyOf(t, whole)
	if r, err = VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env}); err != nil || len(r.Findings) == 0 {
		t.Errorf("renamed manifest: %+v %v", r, err)
	}
	if _, err = Restore(t.Context(), "/backup", "/r", RestoreOptions{Environment: env, Owner: w.owner}); fcp.CodeOf(err) != fcp.CodeManifest {
		t.Errorf("restore of a renamed manifest: %v", err)
	}
}

func TestAFolderOfAnotherStoreIsRefused(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 10)
	w.put(fcp.ZonePrivate, "a", []byte("x"))
	w.backup("/backup")
	env := w.env
	env.FS = vfs.NewMem()
	other := newWorld(t, env.FS, 11)
	other.env.FS = w.env.FS
	if _, err := Init(t.Context(), "/other", InitOptions{Environment: other.env, Owner: other.owner}); err != nil {
		t.Fatal(err)
	}
	e, err := Open(t.Context(), "/other", Options{Environment: other.env})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.Backup(t.Context(), "/backup", BackupOptions{}); fcp.CodeOf(err) != fcp.CodeNotEmpty {
		t.Errorf("another store's folder: %v", err)
	}
	// A copy of the store that is older than the folder.
	old := newWorld(t, vfs.NewMem(), 12)
	old.put(fcp.ZonePrivate, "a", []byte("x"))
	old.backup("/one")
	old.put(fcp.ZonePrivate, "a", []byte("y"))
	old.backup("/two")
	old.restore("/one", "/restored")
	old.e.Close()
	old.open("/restored")
	if _, err := old.e.Backup(t.Context(), "/two", BackupOptions{}); fcp.CodeOf(err) != fcp.CodeNotEmpty {
		t.Errorf("a folder that is ahead: %v", err)
	}
	if b := old.backup("/one"); b.Seq != 2 {
		t.Errorf("%+v", b)
	}
}

func TestABackupOfAStoreInUseIsWhole(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 13)
	w.fill()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			_, err := w.e.Put(ctx, PutRequest{Key: fmt.Sprintf("live/%d", n%50), Bytes: noise(uint64(n), 100+n%3000)})
			if err != nil && ctx.Err() == nil {
				t.Error(err)
				break
			}
			time.Sleep(500 * time.Microsecond)
		}
		done <- n
	}()
	for range 3 {
		w.backup("/backup")
		r := w.verify("/backup", w.owner)
		noFindings(t, r)
		if !r.Identical {
			t.Fatalf("%+v", r)
		}
	}
	stop()
	if n := <-done; n < 10 {
		t.Errorf("only %d writes during three backups", n)
	}
}

// images runs work and takes the image of a power cut at every step-th mutation.
func images(t testing.TB, disk *crashfs.FS, step int64, work func()) (out []*crashfs.FS) {
	t.Helper()
	var mu sync.Mutex
	var count int64
	disk.SetHook(func(op crashfs.Op) error {
		if !op.Kind.Mutating() {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if count++; count%step == 0 {
			out = append(out, disk.Crash(rand.New(rand.NewPCG(uint64(count), 2)), crashfs.Harsh()))
		}
		return nil
	})
	work()
	disk.SetHook(nil)
	return out
}

func TestInterruptedBackupsLeaveTheOneBefore(t *testing.T) {
	disk := crashfs.New()
	w := newWorld(t, disk, 14)
	w.put(fcp.ZonePrivate, "a", noise(1, 2000))
	first := w.backup("/backup")
	w.put(fcp.ZonePrivate, "b", noise(2, 30_000))
	w.put(fcp.ZonePrivate, "a", noise(3, 2000))
	var second BackupResult
	before, after := 0, 0
	for i, image := range images(t, disk, 3, func() { second = w.backup("/backup") }) {
		env := w.env
		env.FS = image
		r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env})
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		want := first.Manifest
		if before++; r.Seq == 2 {
			before, after, want = before-1, after+1, second.Manifest
		}
		if len(r.Findings) > 0 || slices.ContainsFunc(r.Unlisted, func(f UnlistedFile) bool { return !f.Own }) {
			t.Fatalf("image %d, seq %d: %+v %+v", i, r.Seq, r.Findings, r.Unlisted)
		}
		res, err := Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: env, Owner: w.owner, Manifest: want})
		if err != nil || !res.Identical {
			t.Fatalf("image %d: restore: %v", i, err)
		}
		// The next backup completes it.
		e, err := Open(t.Context(), w.dir, Options{Environment: env})
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		if _, err := e.Backup(t.Context(), "/backup", BackupOptions{}); err != nil {
			t.Fatalf("image %d: next backup: %v", i, err)
		}
		e.Close()
		r, err = VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env, Owner: w.owner})
		if err != nil || len(r.Findings) > 0 || !r.Identical {
			t.Fatalf("image %d: after the next backup: %+v %v", i, r.Findings, err)
		}
	}
	if before < 10 || after == 0 {
		t.Errorf("%d cuts before the manifest was there, %d after", before, after)
	}
	env := w.env
	env.FS = disk.CrashClone()
	if r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env, Manifest: second.Manifest}); err != nil || len(r.Findings) > 0 {
		t.Errorf("an acknowledged backup did not survive: %+v %v", r.Findings, err)
	}
}

func TestInterruptedRestoresLeaveNothingOrAWholeStore(t *testing.T) {
	disk := crashfs.New()
	w := newWorld(t, disk, 15)
	w.put(fcp.ZonePrivate, "a", noise(1, 2000))
	w.put(fcp.ZonePrivate, "b", noise(2, 30_000))
	w.backup("/backup")
	o := RestoreOptions{Environment: w.env, Owner: w.owner}
	none, whole := 0, 0
	list := images(t, disk, 13, func() { w.restore("/backup", "/restored") })
	for i, image := range append(list, disk.CrashClone()) {
		o.FS = image
		if _, err := image.Stat("/restored"); err != nil {
			none++
			if i == len(list) {
				t.Fatal("an acknowledged restore did not survive")
			}
			if _, err := Restore(t.Context(), "/backup", "/restored", o); err != nil {
				t.Fatalf("image %d: again: %v", i, err)
			}
		} else {
			whole++
		}
		e, err := Open(t.Context(), "/restored", Options{Environment: o.Environment})
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		for name, want := range w.names {
			_, key, _ := strings.Cut(name, " ")
			r, err := e.Get(t.Context(), GetRequest{Key: key})
			var got []byte
			if err == nil {
				got, err = io.ReadAll(r)
			}
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("image %d: %s: %v", i, key, err)
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if none < 10 || whole == 0 {
		t.Errorf("%d cuts before the store had its name, %d after", none, whole)
	}
}

func TestCancelledWorkStopsAndCleansUp(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 16)
	w.fill()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	_, err := w.e.Backup(ctx, "/backup", BackupOptions{Progress: func(p Progress) {
		if n++; n == 3 {
			cancel()
		}
		if p.Done > p.Total || p.Total == 0 {
			t.Errorf("progress %+v", p)
		}
	}})
	if fcp.CodeOf(err) != fcp.CodeInterrupted {
		t.Fatalf("backup: %v", err)
	}
	w.backup("/backup")
	noFindings(t, w.verify("/backup", nil))
	for _, at := range []int{1, 4} {
		ctx, cancel := context.WithCancel(t.Context())
		n = 0
		_, err = Restore(ctx, "/backup", "/restored", RestoreOptions{Environment: w.env, Owner: w.owner, Progress: func(Progress) {
			if n++; n == at {
				cancel()
			}
		}})
		if fcp.CodeOf(err) != fcp.CodeInterrupted {
			t.Errorf("restore: %v", err)
		}
		nothingLeft(t, w.env.FS, "/restored")
	}
	ctx, cancel = context.WithCancel(t.Context())
	_, err = VerifyBackup(ctx, "/backup", VerifyBackupOptions{Environment: w.env, Progress: func(Progress) { cancel() }})
	if fcp.CodeOf(err) != fcp.CodeInterrupted {
		t.Errorf("verify: %v", err)
	}
}

func TestEveryZoneKeyEverUsedIsSealedToTheNewNode(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 17)
	w.put(fcp.ZonePrivate, "old", noise(1, 5000))
	phone, lost := testNodeKeys(t, 50), testNodeKeys(t, 51)
	for name, n := range map[string]*authority.NodeKeys{"phone": phone, "lost": lost} {
		if _, err := w.e.Enroll(t.Context(), EnrollOptions{Owner: w.owner, Node: n.Public(), Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	// The owner rotates the zone's keys, sealed to all three nodes.
	keys, err := authority.NewZoneKeys(w.env.Rand, fcp.ZonePrivate)
	if err != nil {
		t.Fatal(err)
	}
	z := w.e.ring.Load().zones[fcp.ZonePrivate]
	m, err := authority.SealManifest(w.env.Rand, w.clock.Now(), w.owner, keys, authority.ManifestSpec{
		Version: z.numbers[0] + 1, Prev: z.current().IDs().Zone, Recovery: w.e.Genesis().Recovery,
		Recipients: []authority.Recipient{w.e.Node().Recipient(), phone.Public().Recipient(), lost.Public().Recipient()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.e.AppendSigned(t.Context(), fcp.ZonePrivate, fcp.KindZoneKeyManifest, m); err != nil {
		t.Fatal(err)
	}
	w.put(fcp.ZonePrivate, "new", noise(2, 5000))
	cut := authority.Cut{Feed: fcp.Feed{Zone: fcp.ZonePrivate, Writer: lost.Writer(), Incarnation: 3, Plane: fcp.PlaneControl}}
	body, err := authority.SignRevocation(w.clock.Now(), w.owner, cut, "stolen")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.e.AppendSigned(t.Context(), fcp.ZonePrivate, fcp.KindRevocationIssued, body); err != nil {
		t.Fatal(err)
	}
	w.backup("/backup")
	noFindings(t, w.verify("/backup", w.owner))
	w.restore("/backup", "/restored")
	w.e.Close()
	w.open("/restored")
	w.check()
	z = w.e.ring.Load().zones[fcp.ZonePrivate]
	if z.current().IDs() != keys.IDs() {
		t.Error("the current key of the zone is another one")
	}
	manifests, err := w.e.ManifestBytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range manifests {
		m, err := authority.VerifyManifest(w.owner.Public(), b)
		if err != nil {
			t.Fatal(err)
		}
		if m.Zone() != fcp.ZonePrivate || !slices.Contains(m.Recipients(), w.e.Node().Writer().String()) {
			continue
		}
		if _, err := m.OpenNode(phone); err != nil {
			t.Errorf("version %d is not sealed to the phone: %v", m.Version(), err)
		}
		if _, err := m.OpenNode(lost); fcp.CodeOf(err) != fcp.CodeWrongKey {
			t.Errorf("version %d is sealed to the node that was revoked: %v", m.Version(), err)
		}
	}
}

func TestAFullBackupDiskIsSaidAndTheNextBackupGoesOn(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 18)
	w.fill()
	disk := crashfs.New()
	disk.SetSpace(1 << 20)
	to := blob.NewFiles(disk, "/usb")
	if _, err := w.e.BackupTo(t.Context(), to, "usb", BackupOptions{}); fcp.CodeOf(err) != fcp.CodeDiskFull {
		t.Fatalf("%v", err)
	}
	w.put(fcp.ZonePrivate, "store goes on", []byte("x"))
	disk.SetSpace(-1)
	part := disk.Used()
	b, err := w.e.BackupTo(t.Context(), to, "usb", BackupOptions{})
	if err != nil || b.NewSegments >= b.Segments || part == 0 {
		t.Fatalf("%+v %v", b, err)
	}
	env := w.env
	env.FS = disk
	r, err := VerifyBackup(t.Context(), "/usb", VerifyBackupOptions{Environment: env, Owner: w.owner})
	if err != nil || !r.Identical {
		t.Fatal(err)
	}
	noFindings(t, r)
}

func TestADamagedSegmentIsNotBackedUp(t *testing.T) {
	disk := crashfs.New()
	w := newWorld(t, disk, 19)
	w.put(fcp.ZonePrivate, "a", noise(1, 100_000))
	if _, err := w.e.Log().Seal(t.Context(), log.SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range disk.Files() {
		if strings.HasSuffix(f.Path, ".sst") && f.Size > 90_000 {
			if err := disk.Flip(f.Path, 50_000, 3); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.open(w.dir)
	if _, err := w.e.Backup(t.Context(), "/backup", BackupOptions{}); !errors.Is(err, fcp.Corrupt) {
		t.Errorf("a damaged store was backed up: %v", err)
	}
	if _, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: w.env}); fcp.CodeOf(err) != fcp.CodeNotFound {
		t.Errorf("%v", err)
	}
}

func TestAManifestOfAStrangerIsRefused(t *testing.T) {
	w := smallBackup(t, 20)
	whole := tree(t, w.env.FS, "/backup")
	stranger := testNodeKeys(t, 60)
	otherOwner, err := authority.NewOwnerKey(newRand(61))
	if err != nil {
		t.Fatal(err)
	}
	selfMade, err := authority.SignDevice(w.clock.Now(), otherOwner, authority.DeviceSpec{Node: stranger.Public(), Name: "evil"})
	if err != nil {
		t.Fatal(err)
	}
	mine, err := authority.SignDevice(w.clock.Now(), w.owner, authority.DeviceSpec{Node: testNodeKeys(t, 62).Public(), Name: "phone"})
	if err != nil {
		t.Fatal(err)
	}
	for what, device := range map[string][]byte{"no enrollment": nil, "enrolled by another owner": selfMade, "the enrollment of another node": mine} {
		m, err := decodeBackupManifest(whole[manifestName(2)])
		if err != nil {
			t.Fatal(err)
		}
		m.Node, m.Device = stranger.Public().Signing, device
		forged, err := m.sign(stranger)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{}
		for n, b := range whole {
			files[n] = b
		}
		files[manifestName(2)] = forged
		env := w.env
		env.FS = copyOf(t, files)
		r, err := VerifyBackup(t.Context(), "/backup", VerifyBackupOptions{Environment: env})
		if err != nil || !slices.ContainsFunc(r.Findings, func(f BackupFinding) bool { return f.File == manifestName(2) && f.Code == fcp.CodeSignature }) {
			t.Errorf("%s: %+v %v", what, r.Findings, err)
		}
		_, err = Restore(t.Context(), "/backup", "/restored", RestoreOptions{Environment: env, Owner: w.owner})
		if fcp.CodeOf(err) != fcp.CodeSignature {
			t.Errorf("%s: restore: %v", what, err)
		}
		nothingLeft(t, env.FS, "/restored")
	}
}
