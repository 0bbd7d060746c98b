package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create makes a file with content; it syncs the file when asked.
func create(t testing.TB, f *FS, name string, data []byte, sync bool) vfs.File {
	t.Helper()
	h := must[vfs.File](t)(f.Create(name, ""))
	must[int](t)(h.Write(data))
	if sync {
		noErr(t, h.Sync())
	}
	return h
}

func syncDir(t testing.TB, f *FS, name string) {
	t.Helper()
	d := must[vfs.File](t)(f.OpenDir(name))
	noErr(t, d.Sync())
	noErr(t, d.Close())
}

// durable makes a file that a power cut keeps.
func durable(t testing.TB, f *FS, name string, data []byte) vfs.File {
	t.Helper()
	h := create(t, f, name, data, true)
	syncDir(t, f, f.PathDir(name))
	return h
}

// read returns the bytes of a file, or nil when it does not exist.
func read(t testing.TB, f *FS, name string) []byte {
	t.Helper()
	h, err := f.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	noErr(t, err)
	defer h.Close()
	return must[[]byte](t)(io.ReadAll(h))
}

func expect(t testing.TB, f *FS, name, want string) {
	t.Helper()
	if got := read(t, f, name); string(got) != want {
		t.Fatalf("%s holds %q, want %q", name, got, want)
	}
}

func absent(t testing.TB, f *FS, name string) {
	t.Helper()
	if _, err := f.Stat(name); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s exists (%v), want none", name, err)
	}
}

func TestUnsyncedWritesAndGrowthAreLost(t *testing.T) {
	f := New()
	h := durable(t, f, "a", []byte("synced"))
	must[int](t)(h.Write([]byte(" more")))
	must[int](t)(h.WriteAt([]byte("S"), 0))
	expect(t, f, "a", "Synced more")
	expect(t, f.CrashClone(), "a", "synced")
	noErr(t, h.SyncData())
	expect(t, f.CrashClone(), "a", "Synced more")
}

func TestSyncToPromisesNothing(t *testing.T) {
	f := New()
	h := durable(t, f, "a", nil)
	must[int](t)(h.Write([]byte("x")))
	full, err := h.SyncTo(1)
	if full || err != nil {
		t.Fatalf("SyncTo = %v, %v", full, err)
	}
	expect(t, f.CrashClone(), "a", "")
}

func TestSyncedFileWithoutItsDirectoryEntryIsLost(t *testing.T) {
	f := New()
	create(t, f, "a", []byte("x"), true)
	absent(t, f.CrashClone(), "a")
	syncDir(t, f, "/")
	expect(t, f.CrashClone(), "a", "x")
}

func TestDirectoriesAreEntriesOfTheirParents(t *testing.T) {
	f := New()
	noErr(t, f.MkdirAll("a/b", 0o755))
	durable(t, f, "a/b/c", []byte("x"))
	absent(t, f.CrashClone(), "a")
	syncDir(t, f, "/")
	img := f.CrashClone()
	absent(t, img, "a/b")
	must[vfs.FileInfo](t)(img.Stat("a"))
	syncDir(t, f, "a")
	expect(t, f.CrashClone(), "/a/b/c", "x")
}

func TestUnsyncedRemoveComesBack(t *testing.T) {
	f := New()
	durable(t, f, "a", []byte("x"))
	noErr(t, f.Remove("a"))
	absent(t, f, "a")
	expect(t, f.CrashClone(), "a", "x")
	syncDir(t, f, "/")
	absent(t, f.CrashClone(), "a")
}

func TestRenameIsOneStep(t *testing.T) {
	outcomes := func(o Options) map[string]int {
		f := New()
		noErr(t, f.MkdirAll("d", 0o755))
		durable(t, f, "old", []byte("1"))
		durable(t, f, "d/new", []byte("2"))
		noErr(t, f.Rename("old", "d/new"))
		seen := map[string]int{}
		for seed := range uint64(200) {
			img := f.Crash(seeded(seed), o)
			seen[fmt.Sprintf("%s/%s", read(t, img, "old"), read(t, img, "d/new"))]++
		}
		return seen
	}
	whole := outcomes(Options{KeepEntries: 0.5})
	if len(whole) != 2 || whole["/1"] == 0 || whole["1/2"] == 0 {
		t.Fatalf("outcomes of a rename: %v", whole)
	}
	split := outcomes(Options{KeepEntries: 0.5, SplitRenames: true})
	if len(split) != 4 || split["/2"] == 0 {
		t.Fatalf("outcomes of a split rename: %v", split)
	}
}

func TestSyncOfOneDirectorySettlesTheWholeRename(t *testing.T) {
	for _, synced := range []string{"/", "d"} {
		f := New()
		noErr(t, f.MkdirAll("d", 0o755))
		durable(t, f, "old", []byte("1"))
		noErr(t, f.Rename("old", "d/new"))
		syncDir(t, f, synced)
		img := f.CrashClone()
		absent(t, img, "old")
		expect(t, img, "d/new", "1")
	}
}

func TestCreateOverAFileLeavesOpenHandlesAndLinksAlone(t *testing.T) {
	f := New()
	durable(t, f, "a", []byte("old"))
	noErr(t, f.Link("a", "b"))
	h := must[vfs.File](t)(f.Open("a"))
	create(t, f, "a", []byte("new"), false)
	if got := must[[]byte](t)(io.ReadAll(h)); string(got) != "old" {
		t.Fatalf("the open handle reads %q", got)
	}
	expect(t, f, "a", "new")
	expect(t, f, "b", "old")
	expect(t, f.CrashClone(), "a", "old")
}

func TestHardLinksStayOneFileInTheImage(t *testing.T) {
	f := New()
	durable(t, f, "a", []byte("x"))
	noErr(t, f.Link("a", "b"))
	syncDir(t, f, "/")
	img := f.CrashClone()
	h := must[vfs.File](t)(img.OpenReadWrite("a", ""))
	must[int](t)(h.Write([]byte("y")))
	expect(t, img, "b", "y")
	expect(t, f, "a", "x")
}

func TestEntriesHaveTheirOwnFates(t *testing.T) {
	f := New()
	for i := range 3 {
		create(t, f, fmt.Sprint("f", i), nil, true)
	}
	seen := map[int]bool{}
	for seed := range uint64(200) {
		img, set := f.Crash(seeded(seed), Options{KeepEntries: 0.5}), 0
		for i := range 3 {
			if _, err := img.Stat(fmt.Sprint("f", i)); err == nil {
				set |= 1 << i
			}
		}
		seen[set] = true
	}
	if len(seen) != 8 {
		t.Fatalf("saw %d of 8 subsets of three entries", len(seen))
	}
}

// sectors says for each sector of data whether it is all a, all b, or neither.
func sectors(data []byte, size int, a, b byte) string {
	var out []byte
	for part := range slices.Chunk(data, size) {
		switch {
		case bytes.Count(part, []byte{a}) == len(part):
			out = append(out, a)
		case bytes.Count(part, []byte{b}) == len(part):
			out = append(out, b)
		default:
			out = append(out, '?')
		}
	}
	return string(out)
}

func TestTornWritesBreakAtSectorBoundaries(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		for _, stale := range []bool{false, true} {
			f := New()
			h := durable(t, f, "a", bytes.Repeat([]byte("o"), 4*4096))
			must[int](t)(h.WriteAt(bytes.Repeat([]byte("n"), 2*4096), 4096-256))
			torn, scattered := false, false
			for seed := range uint64(100) {
				img := f.Crash(seeded(seed), Options{Tear: 1, Sector: sector, Stale: stale})
				got := read(t, img, "a")
				// The write starts and ends 256 bytes before a boundary.
				mid := got[4096-256 : 3*4096-256]
				if sectors(got[:4096-256], 256, 'o', 'n') != string(bytes.Repeat([]byte("o"), 15)) {
					t.Fatal("bytes before the write changed")
				}
				s := sectors(mid[256:256+4096], int(sector), 'o', 'n')
				if bytes.ContainsRune([]byte(s), '?') {
					t.Fatalf("sector %d torn inside: %s", sector, s)
				}
				all := sectors(mid, 256, 'o', 'n')
				torn = torn || bytes.ContainsRune([]byte(all), 'o') && bytes.ContainsRune([]byte(all), 'n')
				scattered = scattered || bytes.Contains([]byte(all), []byte("on"))
			}
			if !torn {
				t.Errorf("sector %d: no write was torn", sector)
			}
			if scattered != stale {
				t.Errorf("sector %d, stale %v: scattered sectors %v", sector, stale, scattered)
			}
		}
	}
}

func TestStaleWritesOnlyWhenAsked(t *testing.T) {
	f := New()
	h := durable(t, f, "a", make([]byte, 8192))
	must[int](t)(h.WriteAt([]byte("1"), 0))
	must[int](t)(h.WriteAt([]byte("2"), 4096))
	for _, stale := range []bool{false, true} {
		later := 0
		for seed := range uint64(100) {
			got := read(t, f.Crash(seeded(seed), Options{Keep: 0.5, Stale: stale}), "a")
			if got[0] == 0 && got[4096] == '2' {
				later++
			}
		}
		if (later > 0) != stale {
			t.Errorf("stale %v: %d of 100 images kept only the later write", stale, later)
		}
	}
}

func TestMisdirectedWriteLandsOnAnotherSector(t *testing.T) {
	f := New()
	h := durable(t, f, "a", bytes.Repeat([]byte("o"), 8192))
	must[int](t)(h.WriteAt(bytes.Repeat([]byte("n"), 512), 1024))
	for seed := range uint64(50) {
		got := read(t, f.Crash(seeded(seed), Options{Keep: 1, Misdirect: 1, Sector: 512}), "a")
		s := sectors(got, 512, 'o', 'n')
		if bytes.Count([]byte(s), []byte("n")) != 1 || s[2] == 'n' {
			t.Fatalf("seed %d: sectors %s", seed, s)
		}
	}
}

func TestKeptGrowthOverALostWriteReadsZeros(t *testing.T) {
	f := New()
	h := durable(t, f, "a", nil)
	must[int](t)(h.Write(bytes.Repeat([]byte("1"), 4096)))
	must[int](t)(h.Write(bytes.Repeat([]byte("2"), 4096)))
	for seed := range uint64(100) {
		got := read(t, f.Crash(seeded(seed), Options{Keep: 0.5, Stale: true}), "a")
		if len(got) == 8192 && got[0] == 0 {
			if s := sectors(got, 4096, 0, '2'); s != "\x002" {
				t.Fatalf("sectors %q", s)
			}
			return
		}
	}
	t.Fatal("no image had the growth without the first write")
}

func TestImageAndSourceDoNotSeeEachOther(t *testing.T) {
	f := New()
	h := durable(t, f, "a", bytes.Repeat([]byte("o"), 3*4096))
	img := f.CrashClone()
	must[int](t)(h.WriteAt([]byte("F"), 0))
	g := must[vfs.File](t)(img.OpenReadWrite("a", ""))
	must[int](t)(g.WriteAt([]byte("G"), 4096))
	noErr(t, g.Sync())
	noErr(t, h.Sync())
	for name, c := range map[string]struct {
		f     *FS
		first byte
		next  byte
	}{"source": {f, 'F', 'o'}, "image": {img, 'o', 'G'}, "image of source": {f.CrashClone(), 'F', 'o'}} {
		got := read(t, c.f, "a")
		if got[0] != c.first || got[4096] != c.next {
			t.Errorf("%s: %c %c, want %c %c", name, got[0], got[4096], c.first, c.next)
		}
	}
}

// TestContentAgainstBytes drives the page tree and plain slices with the same
// random writes, shares and flips.
func TestContentAgainstBytes(t *testing.T) {
	for seed := range uint64(30) {
		rng := seeded(seed)
		trees, plain := make([]content, 1, 8), make([][]byte, 1, 8)
		for range 300 {
			i := rng.IntN(len(trees))
			off := rng.Int64N(3 * leafSize / 2)
			n := rng.IntN(3 * pageSize)
			switch k := rng.IntN(10); {
			case k == 0 && len(trees) < cap(trees):
				trees = append(trees, trees[i].share())
				plain = append(plain, slices.Clone(plain[i]))
			case k == 1 && len(plain[i]) > 0:
				at, bit := rng.Int64N(int64(len(plain[i]))), uint(rng.IntN(8))
				trees[i].flip(at, bit)
				plain[i][at] ^= 1 << bit
			default:
				p := bytes.Repeat([]byte{byte(rng.IntN(3))}, n)
				if grow := int(off) + n - len(plain[i]); grow > 0 && n > 0 {
					plain[i] = append(plain[i], make([]byte, grow)...)
				}
				copy(plain[i][min(int(off), len(plain[i])):], p)
				if n > 0 && allZero(p) {
					trees[i].zeroAt(off, int64(n))
				} else if n > 0 {
					trees[i].writeAt(p, off)
				}
			}
		}
		for i := range trees {
			got := make([]byte, len(plain[i])+1)
			if n := trees[i].readAt(got, 0); !bytes.Equal(got[:n], plain[i]) {
				t.Fatalf("seed %d: tree %d differs from its bytes", seed, i)
			}
		}
	}
}
