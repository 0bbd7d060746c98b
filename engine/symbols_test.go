package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
	"fcp/engine/symbols"
	"fcp/internal/crashfs"
	"fcp/log"
)

func policy(need, of int) ScatterOptions {
	return ScatterOptions{Policy: SymbolPolicy{Need: need, Of: of}}
}

func shareDirs(prefix string, n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("/%s%d", prefix, i+1))
	}
	return out
}

func (w *world) scatter(dirs []string, need int) ScatterResult {
	w.Helper()
	r, err := w.e.Scatter(w.Context(), dirs, policy(need, len(dirs)))
	if err != nil {
		w.Fatal("scatter:", err)
	}
	if len(r.Findings) > 0 {
		w.Errorf("scatter: %+v", r.Findings)
	}
	return r
}

func (w *world) gather(dirs []string, out string) GatherResult {
	w.Helper()
	r, err := GatherSymbols(w.Context(), dirs, out, GatherOptions{Environment: w.env})
	if err != nil {
		w.Fatalf("gather from %v: %v", dirs, err)
	}
	return r
}

func (w *world) heal(dirs []string, to string, o HealOptions) ScatterResult {
	w.Helper()
	o.Environment = w.env
	r, err := HealSymbols(w.Context(), dirs, to, o)
	if err != nil {
		w.Fatalf("heal from %v: %v", dirs, err)
	}
	return r
}

func (w *world) coverage(dirs []string) CoverageReport {
	w.Helper()
	r, err := SymbolCoverage(w.Context(), dirs, CoverageOptions{Environment: w.env})
	if err != nil {
		w.Fatalf("coverage of %v: %v", dirs, err)
	}
	return r
}

// rebuilt gathers, verifies without and with the identity, and compares with a
// plain backup folder.
func (w *world) rebuilt(dirs []string, out string) GatherResult {
	w.Helper()
	r := w.gather(dirs, out)
	report := w.verify(out, w.owner)
	noFindings(w, report)
	if !report.Identical || report.Manifest != r.Manifest {
		w.Errorf("the backup gathered from %v is not the one scattered", dirs)
	}
	return r
}

// subsetsOf calls fn with every choice of k of the strings.
func subsetsOf(all []string, k int, fn func([]string)) {
	for m := range 1 << len(all) {
		var some []string
		for i, d := range all {
			if m>>i&1 == 1 {
				some = append(some, d)
			}
		}
		if len(some) == k {
			fn(some)
		}
	}
}

func TestAnyTwoOfFiveDirectoriesRebuildEverything(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 61)
	w.fill()
	w.tiny()
	dirs := shareDirs("stick", 5)
	r := w.scatter(dirs, 2)
	if r.Coded == 0 || r.Coded == r.Segments || !r.Vouched || r.Shares != 5*r.Segments {
		t.Errorf("scatter: %d of %d segments coded, %d shares, vouched %v", r.Coded, r.Segments, r.Shares, r.Vouched)
	}
	if ratio := float64(r.Stored) / float64(r.Bytes); ratio > 2.75 {
		t.Errorf("the directories hold %.2f times the ciphertext", ratio)
	}
	first := tree(t, w.env.FS, "/stick1")
	n := 0
	subsetsOf(dirs, 2, func(two []string) {
		n++
		out := fmt.Sprintf("/out%d", n)
		g := w.rebuilt(two, out)
		if g.Manifest != r.Manifest || g.Segments != r.Segments || g.Coded != r.Coded || len(g.Findings) > 0 {
			t.Errorf("gather from %v: %+v", two, g)
		}
		if n == 7 {
			w.restore(out, "/new")
			old := w.e
			w.open("/new")
			w.check()
			w.e.Close()
			w.e = old
		}
	})
	if n != 10 {
		t.Errorf("%d choices", n)
	}
	subsetsOf(dirs, 1, func(one []string) {
		_, err := GatherSymbols(t.Context(), one, "/none", GatherOptions{Environment: w.env})
		wantCode(t, err, fcp.CodeNotEnough)
		if !strings.Contains(fmt.Sprint(err), "more symbols") {
			t.Errorf("it does not say how many: %v", err)
		}
		nothingLeft(t, w.env.FS, "/none")
	})
	if !mapsEqual(first, tree(t, w.env.FS, "/stick1")) {
		t.Error("gathering changed a directory")
	}
	c := w.coverage(dirs)
	if !c.Rebuilds || c.MayLose != 3 || len(c.Findings) > 0 || c.Unprovable > 0 || c.Lacking > 0 {
		t.Errorf("coverage: may lose %d, %+v", c.MayLose, c.Findings)
	}
	c = w.coverage(dirs[:2])
	if !c.Rebuilds || c.MayLose != 0 {
		t.Errorf("coverage of two: may lose %d", c.MayLose)
	}
	c = w.coverage(dirs[:1])
	if c.Rebuilds || c.MayLose != -1 || c.Lacking == 0 {
		t.Errorf("coverage of one: %v %d %d", c.Rebuilds, c.MayLose, c.Lacking)
	}
}

// tiny appends an event to a feed of its own, which makes a segment too small to
// be coded.
func (w *world) tiny() {
	w.Helper()
	_, err := w.e.log.Append(w.Context(), []log.Draft{{Zone: fcp.ZoneOwner, Plane: fcp.PlaneData, Under: w.e.genesis.ID,
		Content: fcp.Content{Kind: fcp.KindOpaque, Body: []byte("tiny")}}})
	if err != nil {
		w.Fatal(err)
	}
}

func mapsEqual(a, b map[string][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if !bytes.Equal(v, b[k]) {
			return false
		}
	}
	return true
}

// small is a world with little in it, scattered to n directories.
func smallScatter(t *testing.T, seed uint64, need, n int) (*world, []string) {
	t.Helper()
	w := newWorld(t, vfs.NewMem(), seed)
	w.put(fcp.ZonePrivate, "notes/1", noise(seed, 500))
	w.put(fcp.ZoneWork, "work/1", noise(seed+1, 9000))
	w.tiny()
	dirs := shareDirs("d", n)
	w.scatter(dirs, need)
	return w, dirs
}

func TestASecondScatterWritesOnlyWhatIsNew(t *testing.T) {
	w, dirs := smallScatter(t, 62, 2, 4)
	before := tree(t, w.env.FS, dirs[2])
	r := w.scatter(dirs, 2)
	if r.Shares != 0 || r.Seq != 2 {
		t.Errorf("%d shares of nothing new, backup %d", r.Shares, r.Seq)
	}
	w.put(fcp.ZonePrivate, "notes/2", noise(7, 20_000))
	r = w.scatter(dirs, 2)
	if r.Shares == 0 || r.Shares%4 != 0 || r.Shares >= 4*r.Segments {
		t.Errorf("%d shares of %d segments", r.Shares, r.Segments)
	}
	for name, b := range before {
		if strings.HasPrefix(name, symbolPrefix) && !bytes.Equal(tree(t, w.env.FS, dirs[2])[name], b) {
			t.Errorf("%s was written again", name)
		}
	}
	for name := range tree(t, w.env.FS, dirs[2]) {
		if strings.HasPrefix(name, keyTablePrefix) && name != keyTableName(3) {
			t.Errorf("%s was not removed", name)
		}
	}
	w.rebuilt(dirs[1:3], "/out")

	// A directory that was lost is replaced by a new one: new symbols, not old ones.
	if err := w.env.FS.RemoveAll(dirs[0]); err != nil {
		t.Fatal(err)
	}
	fresh := append([]string{"/fresh"}, dirs[1:]...)
	r = w.scatter(fresh, 2)
	if r.Shares != r.Segments {
		t.Errorf("%d shares of %d segments for one new directory", r.Shares, r.Segments)
	}
	w.distinct(fresh)
	w.rebuilt([]string{"/fresh", dirs[3]}, "/out2")
	c := w.coverage(fresh)
	if c.MayLose != 2 || len(c.Findings) > 0 {
		t.Errorf("may lose %d, %+v", c.MayLose, c.Findings)
	}

	// A stricter policy adds to what is there.
	r, err := w.e.Scatter(t.Context(), fresh, policy(1, 4))
	if err != nil || r.Shares == 0 {
		t.Fatalf("%d shares, %v", r.Shares, err)
	}
	w.distinct(fresh)
	w.rebuilt([]string{dirs[2]}, "/out3")
}

// distinct checks that no symbol is in two of the directories.
func (w *world) distinct(dirs []string) {
	w.Helper()
	seen := map[string]string{}
	for _, d := range dirs {
		for name := range tree(w, w.env.FS, d) {
			rest, ok := strings.CutPrefix(name, symbolPrefix)
			if !ok {
				continue
			}
			id, first, count, err := symbols.ParseFileName(rest[3:])
			if err != nil {
				w.Fatal(err)
			}
			for esi := first; esi < first+count; esi++ {
				key := fmt.Sprintf("%s %d", id, esi)
				if seen[key] != "" {
					w.Fatalf("symbol %s is in %s and %s", key, seen[key], d)
				}
				seen[key] = d
			}
		}
	}
}

func TestHealedTwiceTheOriginalsMayAllBeLost(t *testing.T) {
	w, dirs := smallScatter(t, 63, 2, 3)
	w.heal(dirs[:2], "/h1", HealOptions{})
	// The second healer does not see the first one's directory, and still takes other ids.
	r := w.heal(dirs[:2], "/h2", HealOptions{Minter: w.e})
	if !r.Vouched {
		t.Error("the node of the store is not vouched for")
	}
	all := append(slices.Clone(dirs), "/h1", "/h2")
	w.distinct(all)
	if c := w.coverage(all); c.MayLose != 3 || c.Unprovable == 0 || c.Lacking > 0 {
		t.Errorf("may lose %d, %d unprovable, %+v", c.MayLose, c.Unprovable, c.Findings)
	}
	for _, d := range dirs {
		if err := w.env.FS.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
	}
	w.rebuilt([]string{"/h1", "/h2"}, "/out")
	w.heal([]string{"/h1", "/h2"}, "/h3", HealOptions{})
	w.heal([]string{"/h2", "/h3"}, "/h4", HealOptions{})
	w.distinct([]string{"/h1", "/h2", "/h3", "/h4"})
	w.rebuilt([]string{"/h3", "/h4"}, "/out2")
	if !mapsEqual(tree(t, w.env.FS, "/out"), tree(t, w.env.FS, "/out2")) {
		t.Error("the backups differ")
	}
	w.restore("/out2", "/new")
	w.e.Close()
	w.open("/new")
	w.check()

	// The node of the restored store is one that the genesis does not name: its
	// enrollment is in the share manifest.
	w.scatter([]string{"/n1", "/n2"}, 1)
	if c := w.coverage([]string{"/n1", "/n2"}); c.Unprovable > 0 || len(c.Findings) > 0 || c.MayLose != 1 {
		t.Errorf("%d unprovable, may lose %d, %+v", c.Unprovable, c.MayLose, c.Findings)
	}
}

// Two healers that know nothing of each other take the same ids: the symbols are
// the same bytes, count once, and the next healer goes above both.
func TestHealersApartTakeTheSameIdsAndDoNoHarm(t *testing.T) {
	w, dirs := smallScatter(t, 64, 2, 3)
	for _, d := range dirs[:2] {
		for name, b := range tree(t, w.env.FS, d) {
			if _, err := blob.NewFiles(w.env.FS, "/copy"+d).Put(t.Context(), name, bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.heal(dirs[:2], "/h1", HealOptions{})
	w.heal([]string{"/copy" + dirs[0], "/copy" + dirs[1]}, "/h2", HealOptions{})
	c := w.coverage([]string{"/h1", "/h2", dirs[0]})
	if !c.Rebuilds || c.MayLose != 0 {
		t.Errorf("two equal directories and another: may lose %d", c.MayLose)
	}
	w.heal([]string{"/h1", "/h2", dirs[0]}, "/h3", HealOptions{})
	w.distinct([]string{"/h1", "/h3", dirs[0], dirs[1], dirs[2]})
	w.rebuilt([]string{"/h2", "/h3"}, "/out")
}

func TestEveryFlippedByteOfAShareDirectoryIsNamedAndDoesNoHarm(t *testing.T) {
	w, dirs := smallScatter(t, 65, 2, 3)
	files := tree(t, w.env.FS, dirs[1])
	want := tree(t, w.env.FS, dirs[0])
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	step := 41
	if testing.Short() {
		step = 401
	}
	n := 0
	for _, name := range names {
		b := files[name]
		for i := n % step; i < len(b); i += step {
			n++
			flip(t, w.env.FS, dirs[1]+"/"+name, i, b)
			c := w.coverage(dirs)
			named := slices.ContainsFunc(c.Findings, func(f SymbolFinding) bool { return f.Dir == dirs[1] && f.File == name })
			if !named || !c.Rebuilds {
				t.Errorf("%s, byte %d: named %v, rebuilds %v: %+v", name, i, named, c.Rebuilds, c.Findings)
			}
			if n%29 == 0 {
				out := fmt.Sprintf("/out%d", n)
				if _, err := GatherSymbols(t.Context(), dirs, out, GatherOptions{Environment: w.env}); err != nil {
					t.Errorf("%s, byte %d: %v", name, i, err)
				}
				w.env.FS.RemoveAll(out)
			}
			unflip(t, w.env.FS, dirs[1]+"/"+name, b)
		}
	}
	if n < 50 || !mapsEqual(want, tree(t, w.env.FS, dirs[0])) {
		t.Errorf("%d flips", n)
	}
}

func unflip(t testing.TB, files vfs.FS, path string, b []byte) {
	t.Helper()
	put(t, files, path, b)
}

func put(t testing.TB, files vfs.FS, path string, b []byte) {
	t.Helper()
	if err := files.MkdirAll(files.PathDir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := files.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(bytes.Clone(b)); err != nil { // a vfs.File may change what it is given
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// liar mints false symbols of every segment in dirs into a directory, with
// commitments and signatures that all fit.
func (w *world) liar(dirs []string, to string, m minter) {
	w.Helper()
	s, err := scanSet(w.Context(), w.env, dirs)
	if err == nil {
		err = s.load(fcp.Hash{})
	}
	if err != nil {
		w.Fatal(err)
	}
	w.heal(dirs, to, HealOptions{}) // for the small files; its symbols are replaced
	if err := w.env.FS.RemoveAll(to + "/symbols"); err != nil {
		w.Fatal(err)
	}
	sm := symbols.Manifest{Format: symbols.ManifestFormat, Genesis: s.genesis.ID, Minter: m.key, Device: m.device, Need: 2}
	for i := range s.index {
		x := &s.index[i]
		if !symbols.Coded(x.size) {
			continue
		}
		card, _, err := s.card(x)
		if err != nil {
			w.Fatal(err)
		}
		lie := noise(uint64(i), int(x.size)) // other bytes under the segment's name
		block, err := s.coder.Block(w.Context(), x.id, lie)
		if err != nil {
			w.Fatal(err)
		}
		r := symbols.Ref{Segment: x.id, Size: x.size, First: 200_000, Count: uint32(symbols.Ref{Size: x.size}.K() + 4)}
		file, root, err := block.Share(w.Context(), r.First, r.Count)
		if err != nil {
			w.Fatal(err)
		}
		put(w, w.env.FS, to+"/"+symbolFileName(&r), file)
		sm.Segments = append(sm.Segments, symbols.Minted{Card: card, Ranges: []symbols.Range{{First: uint64(r.First), Count: uint64(r.Count), Root: root}}})
	}
	b, err := sm.Sign(m.sign)
	if err != nil {
		w.Fatal(err)
	}
	put(w, w.env.FS, to+"/"+shareManifestName(fileHash(b)), b)
}

func TestALyingMinterIsNamedAndLeftOut(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 66)
	w.put(fcp.ZonePrivate, "notes/1", noise(1, 60_000))
	dirs := shareDirs("d", 4)
	w.scatter(dirs, 3)
	stranger, err := newMinter(&w.env, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.liar(dirs, "/liar", stranger)
	blamed := func(findings []SymbolFinding, m minter) bool {
		kid := fcp.KidOf(m.key[:]).String()
		return slices.ContainsFunc(findings, func(f SymbolFinding) bool {
			return f.Dir == "/liar" && f.Symbols > 0 && strings.Contains(f.What, "false") && strings.Contains(f.What, kid)
		})
	}
	// With enough from those who are vouched for, a stranger's symbols are not used.
	g := w.rebuilt([]string{"/liar", dirs[0], dirs[2], dirs[3]}, "/out1")
	if blamed(g.Findings, stranger) {
		t.Error("symbols were used that nobody vouches for")
	}
	// Without, they are used last, and the ciphertext hash finds the lie.
	w.heal(append([]string{"/liar"}, dirs...), "/h", HealOptions{}) // above the liar's ids, so used after them
	g = w.rebuilt([]string{"/liar", "/h", dirs[1], dirs[2]}, "/out2")
	if !blamed(g.Findings, stranger) {
		t.Errorf("the liar is not named: %+v", g.Findings)
	}
	_, err = GatherSymbols(t.Context(), []string{"/liar", dirs[1], dirs[2]}, "/none", GatherOptions{Environment: w.env})
	wantCode(t, err, fcp.CodeNotEnough)
	c := w.coverage([]string{"/liar", "/h", dirs[1], dirs[2]})
	if !c.Rebuilds || c.MayLose != 0 && c.MayLose != -1 || !blamed(c.Findings, stranger) {
		t.Errorf("coverage: rebuilds %v, may lose %d, %+v", c.Rebuilds, c.MayLose, c.Findings)
	}
	// A node of the store can lie too: its signature is good, its symbols are not.
	node, err := newMinter(&w.env, w.e)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.env.FS.RemoveAll("/liar"); err != nil {
		t.Fatal(err)
	}
	w.liar(dirs, "/liar", node)
	g = w.rebuilt([]string{"/liar", dirs[0], dirs[1], dirs[2]}, "/out3")
	if !slices.ContainsFunc(g.Findings, func(f SymbolFinding) bool { return f.Dir == "/liar" && strings.Contains(f.What, "false") }) {
		t.Logf("source symbols were enough: %+v", g.Findings)
	}
	if _, err := HealSymbols(t.Context(), append([]string{"/liar"}, dirs...), "/h9", HealOptions{Environment: w.env}); err != nil {
		t.Errorf("heal beside a liar: %v", err)
	}
}

func TestRandomDamageIsSurvivedAsLongAsEnoughIsLeft(t *testing.T) {
	w, dirs := smallScatter(t, 67, 2, 5)
	clean := map[string]map[string][]byte{}
	for _, d := range dirs {
		clean[d] = tree(t, w.env.FS, d)
	}
	want := w.gather(dirs, "/want")
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		files := vfs.NewMem()
		keep := rapid.SampledFrom([]int{0, 1, 2, 3, 4}).Draw(rt, "whole 1")
		keep2 := (keep + rapid.IntRange(1, 4).Draw(rt, "whole 2")) % 5
		for i, d := range dirs {
			whole := i == keep || i == keep2
			if !whole && rapid.Bool().Draw(rt, "lost") {
				continue
			}
			names := make([]string, 0, len(clean[d]))
			for n := range clean[d] {
				names = append(names, n)
			}
			slices.Sort(names)
			for _, n := range names {
				b := clean[d][n]
				if !whole {
					switch rapid.IntRange(0, 5).Draw(rt, "damage") {
					case 0:
						continue
					case 1:
						b = b[:rapid.IntRange(0, len(b)).Draw(rt, "cut")]
					case 2:
						b = bytes.Clone(b)
						for range rapid.IntRange(1, 20).Draw(rt, "flips") {
							b[rapid.IntRange(0, len(b)-1).Draw(rt, "at")] ^= byte(rapid.IntRange(1, 255).Draw(rt, "bits"))
						}
					case 3:
						b = append(bytes.Clone(b), noise(uint64(run), 100)...)
					case 4:
						b = clean[d][rapid.SampledFrom(names).Draw(rt, "another file")]
					}
				}
				put(t, files, d+"/"+n, b)
			}
		}
		env := w.env
		env.FS = files
		g, err := GatherSymbols(t.Context(), dirs, "/out", GatherOptions{Environment: env})
		if err != nil {
			rt.Fatalf("gather: %v", err)
		}
		if g.Manifest != want.Manifest || !mapsEqual(tree(t, files, "/out"), tree(t, w.env.FS, "/want")) {
			rt.Fatal("another backup comes out")
		}
		c, err := SymbolCoverage(t.Context(), dirs, CoverageOptions{Environment: env})
		if err != nil || !c.Rebuilds {
			rt.Fatalf("coverage: %v %v", c.Rebuilds, err)
		}
	})
}

func TestHostileDirectories(t *testing.T) {
	w, dirs := smallScatter(t, 68, 2, 3)
	files := vfs.Default
	at := t.TempDir()
	var real []string
	for i, d := range dirs {
		to := fmt.Sprintf("%s/d%d", at, i)
		real = append(real, to)
		for name, b := range tree(t, w.env.FS, d) {
			put(t, files, to+"/"+name, b)
		}
	}
	env := w.env
	env.FS = files
	evil := real[2]
	id := fcp.SegmentID{1}
	for _, l := range [][2]string{{"/", evil + "/symbols/aa"}, {".", evil + "/symbols/symbols"}, {"..", evil + "/shares/up"}, {"/dev/zero", evil + "/manifest/0000000009.manifest"},
		{"/dev/zero", evil + "/symbols/01/" + (&symbols.Ref{Segment: id, Count: 1}).FileName()}, {"/nowhere", evil + "/tail/x"}} {
		if err := os.MkdirAll(filepath.Dir(l[1]), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(l[0], l[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(evil+"/index/"+strings.Repeat("0", 64)+".index", 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := scanSet(t.Context(), env, real)
	if err == nil {
		err = s.load(fcp.Hash{})
	}
	if err != nil {
		t.Fatal(err)
	}
	x := s.index[0]
	for i := range s.index {
		if symbols.Coded(s.index[i].size) {
			x = s.index[i]
		}
	}
	for _, r := range []symbols.Ref{{Segment: x.id, First: 1<<24 - 1, Count: 9999}, {Segment: x.id, First: 99999999, Count: 1}, {Segment: x.id, First: 0, Count: 0},
		{Segment: id, First: 0, Count: 9999}} {
		put(t, files, evil+"/"+symbolFileName(&r), noise(1, 5000))
	}
	for i := range 200 {
		r := symbols.Ref{Segment: x.id, First: uint32(100_000 + 10*i), Count: 10}
		put(t, files, evil+"/"+symbolFileName(&r), noise(uint64(i), 100))
	}
	put(t, files, evil+"/shares/"+strings.Repeat("0", 64)+".share", noise(1, 2000))
	put(t, files, evil+"/manifest/0000000007.manifest", noise(1, 2000))
	put(t, files, evil+"/symbols/zz/x", nil)
	put(t, files, evil+"/genesis", nil)
	out := at + "/out"
	if _, err := GatherSymbols(t.Context(), real, out, GatherOptions{Environment: env}); err != nil {
		t.Errorf("gather: %v", err)
	}
	c, err := SymbolCoverage(t.Context(), real, CoverageOptions{Environment: env})
	if err != nil || !c.Rebuilds || len(c.Findings) < 8 {
		t.Errorf("coverage: %v, %v, %d findings", err, c.Rebuilds, len(c.Findings))
	}
	// Nothing is read from or written to what is not ours.
	if _, err := HealSymbols(t.Context(), real[:2], evil, HealOptions{Environment: env}); err == nil {
		t.Error("it heals into a directory with a forged genesis")
	}
}

func TestClaimedIdsAreNeverAllottedAgain(t *testing.T) {
	for _, c := range []struct {
		ranges []allotted
		count  uint32
		first  uint32
		ok     bool
	}{
		{nil, 5, 0, true},
		{[]allotted{{first: 0, count: 7}, {first: 7, count: 7}}, 5, 14, true},
		{[]allotted{{first: 100, count: 7}, {first: 0, count: 7}}, 5, 107, true},
		{[]allotted{{first: 0, count: 7}, {first: 1<<24 - 3, count: 3}}, 5, 7, true},
		{[]allotted{{first: 0, count: 7}, {first: 9, count: 1}, {first: 1<<24 - 3, count: 3}}, 5, 10, true},
		{[]allotted{{first: 3, count: 1<<24 - 3}}, 5, 0, false},
		{[]allotted{{first: 3, count: 1<<24 - 3}}, 3, 0, true},
	} {
		first, ok := nextRange(c.ranges, c.count)
		if ok != c.ok || ok && first != c.first {
			t.Errorf("%+v: %d %v", c, first, ok)
		}
	}
}

func TestAScatterThatIsInterruptedGoesOn(t *testing.T) {
	w := newWorld(t, vfs.NewMem(), 69)
	w.put(fcp.ZonePrivate, "big", noise(1, 600_000))
	w.tiny()
	dirs := shareDirs("d", 3)
	for n := int64(1); ; n += 7 {
		ctx, cancel := context.WithCancel(t.Context())
		left := n
		o := policy(2, 3)
		o.Progress = func(Progress) {
			if left--; left == 0 {
				cancel()
			}
		}
		_, err := w.e.Scatter(ctx, dirs, o)
		cancel()
		if err == nil {
			break
		}
		wantCode(t, err, fcp.CodeInterrupted)
	}
	w.distinct(dirs)
	w.rebuilt(dirs[:2], "/out1")
	w.rebuilt(dirs[1:], "/out2")
	if c := w.coverage(dirs); len(c.Findings) > 0 || c.MayLose != 1 {
		t.Errorf("may lose %d: %+v", c.MayLose, c.Findings)
	}
}

func TestScatterRefusesWhatItMustNotTouch(t *testing.T) {
	w, dirs := smallScatter(t, 70, 2, 3)
	other := otherWorld(t, w.env.FS, 71)
	_, err := w.e.Scatter(t.Context(), dirs, policy(2, 4))
	wantCode(t, err, fcp.CodeInvalidArgument)
	_, err = w.e.Scatter(t.Context(), []string{"/d1", "/d2/../d1"}, policy(1, 2))
	wantCode(t, err, fcp.CodeInvalidArgument)
	put(t, w.env.FS, "/photos/one", []byte("mine"))
	_, err = w.e.Scatter(t.Context(), []string{"/photos"}, policy(1, 1))
	wantCode(t, err, fcp.CodeNotEmpty)
	put(t, w.env.FS, "/photos/genesis", []byte("a book"))
	_, err = w.e.Scatter(t.Context(), []string{"/photos"}, policy(1, 1))
	wantCode(t, err, fcp.CodeNotEmpty)
	_, err = other.e.Scatter(t.Context(), dirs, policy(2, 3))
	wantCode(t, err, fcp.CodeManifest)
	_, err = HealSymbols(t.Context(), dirs, "/h", HealOptions{Environment: w.env, Minter: other.e})
	wantCode(t, err, fcp.CodeManifest)
	if r, err := w.e.Scatter(t.Context(), shareDirs("plan", 3), ScatterOptions{Policy: SymbolPolicy{Need: 2, Of: 3}, DryRun: true}); err != nil || len(r.Planned) != 3*r.Segments || r.Written != 0 {
		t.Errorf("dry run: %v, %d shares planned of %d segments", err, len(r.Planned), r.Segments)
	}
	if _, err := w.env.FS.Stat("/plan1"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dry run made a directory: %v", err)
	}
	// Two series of the same store are not mixed.
	w.scatter([]string{"/e1"}, 1)
	w.scatter([]string{"/e1"}, 1)
	_, err = w.e.Scatter(t.Context(), []string{"/d1", "/e1"}, policy(1, 2))
	wantCode(t, err, fcp.CodeManifest)
}

func TestFromAFolderAsFromTheStore(t *testing.T) {
	w, dirs := smallScatter(t, 73, 2, 3)
	w.backup("/plain")
	to := shareDirs("b", 3)
	r, err := ScatterBackup(t.Context(), "/plain", to, w.env, nil, policy(2, 3))
	if err != nil || r.Vouched {
		t.Fatal(r.Vouched, err)
	}
	w.rebuilt(to[1:], "/out")
	if !mapsEqual(tree(t, w.env.FS, "/out"), tree(t, w.env.FS, "/plain")) {
		t.Error("the backup gathered is another than the folder scattered")
	}
	if r, err = ScatterBackup(t.Context(), "/plain", to, w.env, nil, policy(2, 3)); err != nil || r.Shares != 0 {
		t.Errorf("a second time: %d shares, %v", r.Shares, err)
	}
	_, err = ScatterBackup(t.Context(), "/plain", dirs, w.env, nil, policy(2, 3))
	wantCode(t, err, fcp.CodeManifest) // another series
	// A plain folder is a directory that has all of it.
	w.rebuilt([]string{"/plain"}, "/out2")
	w.heal([]string{"/plain"}, "/h", HealOptions{Need: 1})
	w.rebuilt([]string{"/h"}, "/out3")
}

// otherWorld is another store on the same file system.
func otherWorld(t *testing.T, files vfs.FS, seed uint64) *world {
	t.Helper()
	w := &world{TB: t, dir: "/another", names: map[string][]byte{}}
	w.env, w.clock = testEnv(files, seed)
	var err error
	if w.owner, err = authority.NewOwnerKey(w.env.Rand); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), w.dir, InitOptions{Environment: w.env, Owner: w.owner, Device: "other"}); err != nil {
		t.Fatal(err)
	}
	w.open(w.dir)
	t.Cleanup(func() { w.e.Close() })
	return w
}

func TestPowerCutsDuringAScatterLeaveTheBackupBefore(t *testing.T) {
	disk := crashfs.New()
	w := newWorld(t, disk, 74)
	w.put(fcp.ZonePrivate, "a", noise(1, 2000))
	dirs := shareDirs("d", 3)
	first := w.scatter(dirs, 2)
	w.put(fcp.ZonePrivate, "b", noise(2, 30_000))
	w.tiny()
	var second ScatterResult
	before, after := 0, 0
	for i, image := range images(t, disk, 17, func() { second = w.scatter(dirs, 2) }) {
		env := w.env
		env.FS = image
		for n, some := range [][]string{dirs[:2], dirs[1:]} {
			out := fmt.Sprintf("/out%d", n)
			g, err := GatherSymbols(t.Context(), some, out, GatherOptions{Environment: env})
			if err != nil {
				t.Fatalf("image %d: gather from %v: %v", i, some, err)
			}
			if before++; g.Manifest == second.Manifest {
				before, after = before-1, after+1
			} else if g.Manifest != first.Manifest {
				t.Fatalf("image %d: another backup, number %d", i, g.Seq)
			}
			if r, err := VerifyBackup(t.Context(), out, VerifyBackupOptions{Environment: env, Owner: w.owner}); err != nil || !r.Identical || len(r.Findings) > 0 {
				t.Fatalf("image %d: %+v %v", i, r.Findings, err)
			}
		}
		// The next scatter completes it, and allots nothing twice.
		e, err := Open(t.Context(), w.dir, Options{Environment: env})
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		if _, err := e.Scatter(t.Context(), dirs, policy(2, 3)); err != nil {
			t.Fatalf("image %d: next scatter: %v", i, err)
		}
		e.Close()
		c, err := SymbolCoverage(t.Context(), dirs, CoverageOptions{Environment: env})
		if err != nil || c.MayLose != 1 || len(c.Findings) > 0 {
			t.Fatalf("image %d: may lose %d, %+v %v", i, c.MayLose, c.Findings, err)
		}
		(&world{TB: t, env: env}).distinct(dirs)
	}
	if before < 10 || after == 0 {
		t.Errorf("%d gathers gave the backup before, %d the new one", before, after)
	}
	env := w.env
	env.FS = disk.CrashClone()
	if c, err := SymbolCoverage(t.Context(), dirs, CoverageOptions{Environment: env}); err != nil || c.Manifest != second.Manifest || len(c.Findings) > 0 {
		t.Errorf("an acknowledged scatter did not survive: %+v %v", c.Findings, err)
	}
}

func TestAnInterruptedHealGoesOn(t *testing.T) {
	disk := crashfs.New()
	w := newWorld(t, disk, 75)
	w.put(fcp.ZonePrivate, "a", noise(1, 40_000))
	w.tiny()
	dirs := shareDirs("d", 3)
	w.scatter(dirs, 2)
	n := 0
	for i, image := range images(t, disk, 7, func() { w.heal(dirs[:2], "/h", HealOptions{}) }) {
		n++
		env := w.env
		env.FS = image
		v := &world{TB: t, env: env, owner: w.owner}
		v.heal(dirs[:2], "/h", HealOptions{})
		v.distinct(append(slices.Clone(dirs), "/h"))
		v.rebuilt([]string{"/h", dirs[2]}, "/out")
		if c := v.coverage([]string{"/h", dirs[0], dirs[1]}); c.MayLose != 1 || c.Lacking > 0 {
			t.Fatalf("image %d: may lose %d, %+v", i, c.MayLose, c.Findings)
		}
	}
	if n < 10 {
		t.Errorf("only %d images", n)
	}
}

func TestAGatherThatStopsLeavesNothing(t *testing.T) {
	w, dirs := smallScatter(t, 76, 2, 3)
	for stop := 1; ; stop++ {
		ctx, cancel := context.WithCancel(t.Context())
		seen := 0
		_, err := GatherSymbols(ctx, dirs, "/out", GatherOptions{Environment: w.env, Progress: func(Progress) {
			if seen++; seen == stop {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			if stop == 1 {
				t.Error("it was never stopped")
			}
			break
		}
		wantCode(t, err, fcp.CodeInterrupted)
		nothingLeft(t, w.env.FS, "/out")
	}
	noFindings(t, w.verify("/out", w.owner))
}

// A full disk is said, and the next scatter goes on.
func TestAFullShareDirectoryIsSaid(t *testing.T) {
	disk := crashfs.New()
	w := newWorld(t, disk, 77)
	w.put(fcp.ZonePrivate, "a", noise(1, 200_000))
	dirs := shareDirs("d", 3)
	left := 40
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind.Mutating() && strings.HasPrefix(op.Path, "/d2") {
			if left--; left < 0 {
				return syscall.ENOSPC
			}
		}
		return nil
	})
	_, err := w.e.Scatter(t.Context(), dirs, policy(2, 3))
	disk.SetHook(nil)
	wantCode(t, err, fcp.CodeDiskFull)
	w.scatter(dirs, 2)
	w.distinct(dirs)
	w.rebuilt(dirs[1:], "/out")
}
