package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestSaveAndLoadGiveTheSameTree(t *testing.T) {
	f := New()
	noErr(t, f.MkdirAll("d/empty", 0o755))
	create(t, f, "a", []byte("1"), false)
	create(t, f, "d/b", bytes.Repeat([]byte("xyz"), 5000), false)
	dir := filepath.Join(t.TempDir(), "image")
	noErr(t, f.Save(dir))
	if got := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "d", "b"))); len(got) != 15000 {
		t.Fatalf("saved file has %d bytes", len(got))
	}
	g := must[*FS](t)(Load(dir))
	if g.Digest() != f.Digest() {
		t.Fatal("the loaded tree differs")
	}
	if g.CrashClone().Digest() != f.Digest() {
		t.Fatal("the loaded tree is not durable")
	}
	if g.Used() != 4096+16384 {
		t.Fatalf("the loaded tree uses %d", g.Used())
	}
	want := []FileSize{{"a", 1}, {"d/b", 15000}}
	if !slices.Equal(g.Files(), want) {
		t.Fatalf("files %v, want %v", g.Files(), want)
	}
}

func TestDigestSeesNamesBytesAndSizes(t *testing.T) {
	seen := map[[32]byte]string{}
	for _, c := range [][2]string{{"a", ""}, {"b", ""}, {"a", "\x00"}, {"a", "x"}, {"a", "y"}} {
		f := New()
		create(t, f, c[0], []byte(c[1]), false)
		if other, ok := seen[f.Digest()]; ok {
			t.Errorf("%q and %s have one digest", c, other)
		}
		seen[f.Digest()] = fmt.Sprintf("%q", c)
	}
}

func TestFlipChangesOneBitOfTheMedium(t *testing.T) {
	f := New()
	h := durable(t, f, "a", []byte("abc"))
	must[int](t)(h.Write([]byte("d")))
	noErr(t, f.Flip("a", 1, 5))
	expect(t, f, "a", "aBcd")
	expect(t, f.CrashClone(), "a", "aBc")
	if err := f.Flip("a", 4, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("flip past the end: %v", err)
	}
	expect(t, f.Crash(nil, Options{Flips: []Flip{{"a", 0, 5}, {"none", 0, 0}, {"a", 99, 0}}}), "a", "ABc")
}

func TestRotFlipsAboutAsManyBitsAsAsked(t *testing.T) {
	f := New()
	durable(t, f, "a", make([]byte, 1<<20))
	img := f.Crash(seeded(1), Options{Rot: 1e-4})
	got := read(t, img, "a")
	if flipped := len(got) - bytes.Count(got, []byte{0}); flipped < 90 || flipped > 106 {
		t.Fatalf("%d of 1 MiB flipped at 1e-4 per byte", flipped)
	}
	if read(t, f, "a")[0] != 0 || !allZero(read(t, f, "a")) {
		t.Fatal("rot reached the source")
	}
}

// scramble does random operations, all decided by the seed.
func scramble(t *testing.T, seed uint64, ops int) *FS {
	t.Helper()
	f, rng := New(), seeded(seed)
	noErr(t, f.MkdirAll("d", 0o755))
	handles := []vfs.File{create(t, f, "f0", nil, false)}
	for i := range ops {
		h := handles[rng.IntN(len(handles))]
		name := fmt.Sprintf("%sf%d", []string{"", "d/"}[rng.IntN(2)], rng.IntN(8))
		switch rng.IntN(8) {
		case 0:
			handles = append(handles, create(t, f, name, []byte{byte(i)}, rng.IntN(2) == 0))
		case 1:
			_ = f.Remove(name)
		case 2:
			_ = f.Rename(name, fmt.Sprint("d/r", rng.IntN(4)))
		case 3:
			syncDir(t, f, []string{"/", "d"}[rng.IntN(2)])
		case 4:
			noErr(t, h.Sync())
		default:
			must[int](t)(h.WriteAt(bytes.Repeat([]byte{byte(i)}, rng.IntN(9000)), rng.Int64N(20000)))
		}
	}
	return f
}

func TestSameSeedSameImage(t *testing.T) {
	o := Harsh()
	o.Rot, o.Misdirect = 1e-5, 0.1
	different := 0
	for seed := range uint64(40) {
		first := scramble(t, seed, 300).Crash(seeded(seed), o).Digest()
		f := scramble(t, seed, 300)
		for range 2 { // the source is not changed by a crash
			if f.Crash(seeded(seed), o).Digest() != first {
				t.Fatalf("seed %d gave two images", seed)
			}
		}
		if f.Crash(seeded(seed+1000), o).Digest() != first {
			different++
		}
	}
	if different < 35 {
		t.Fatalf("only %d of 40 other seeds gave another image", different)
	}
}

// TestImageOfImageIsItself: an image is durable throughout, and its space is
// counted right.
func TestImageOfImageIsItself(t *testing.T) {
	for seed := range uint64(40) {
		img := scramble(t, seed, 200).Crash(seeded(seed), Harsh())
		again := img.CrashClone()
		if img.Digest() != again.Digest() || img.Used() != again.Used() {
			t.Fatalf("seed %d: the image of the image differs", seed)
		}
		var want int64
		for _, file := range img.Files() {
			want += pagesFor(file.Size)
		}
		if img.Used() != want {
			t.Fatalf("seed %d: used %d, files take %d", seed, img.Used(), want)
		}
	}
}

// storeLike makes 4 MiB in 20 files of which two are dirty.
func storeLike(t testing.TB) *FS {
	f := New()
	for i := range 20 {
		h := create(t, f, fmt.Sprint("f", i), bytes.Repeat([]byte{1}, 200<<10), true)
		if i < 2 {
			must[int](t)(h.Write(bytes.Repeat([]byte{2}, 3000)))
		}
	}
	syncDir(t, f, "/")
	return f
}

func TestImagesShareWhatDidNotChange(t *testing.T) {
	f := storeLike(t)
	const images = 200
	keep := make([]*FS, images)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range keep {
		keep[i] = f.Crash(seeded(uint64(i)), Harsh())
	}
	runtime.ReadMemStats(&after)
	per := (after.TotalAlloc - before.TotalAlloc) / images
	if per > 64<<10 {
		t.Fatalf("an image of a 4 MiB store allocates %d bytes, want at most 64 KiB", per)
	}
	if len(keep[images-1].Files()) != 20 {
		t.Fatal("the image lost files")
	}
}

func BenchmarkCrash(b *testing.B) {
	f := storeLike(b)
	for i := 0; b.Loop(); i++ {
		f.Crash(seeded(uint64(i)), Harsh())
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "images/s")
}
