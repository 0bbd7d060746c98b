package walfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp/internal/crashfs"
	"fcp/internal/crashfs/crashtest"
)

// TestAcknowledgedCommitsSurvivePowerCuts cuts the power at random I/Os of
// Pebble on this wrapper: with spares and without, small records and ones that
// span blocks.
func TestAcknowledgedCommitsSurvivePowerCuts(t *testing.T) {
	const rounds, enough = 60, 300
	for _, c := range []struct {
		name     string
		o        Options
		maxValue int
		damage   crashfs.Options
	}{
		{"spares", Options{Size: 80 << 10, Chunk: 16 << 10}, 2000, crashfs.Harsh()},
		{"chunks only", Options{Size: 80 << 10, Chunk: 4 << 10, NoSpare: true}, 2000, crashfs.Harsh()},
		{"large records", Options{Size: 256 << 10, Chunk: 64 << 10}, 40_000, crashfs.Harsh()},
		{"nothing unsynced", Options{Size: 80 << 10, Chunk: 16 << 10}, 2000, crashfs.Options{}},
		{"torn", Options{Size: 80 << 10, Chunk: 16 << 10}, 20_000, crashfs.Options{Tear: 1, Sector: 512, Stale: true, KeepEntries: 0.5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var wrapped []*FS
			acked := 0
			// How many commits a round acknowledges before its cut depends on what
			// Pebble does meanwhile: more rounds until there are enough.
			for seed := uint64(0); seed < rounds || acked < enough && seed < 4*rounds; seed++ {
				res, err := crashtest.Round(seed, crashtest.Config{
					Damage: c.damage, MaxValue: c.maxValue, Commits: 80,
					Wrap: func(inner vfs.FS) (vfs.FS, func() error) {
						w := New(inner, c.o)
						wrapped = append(wrapped, w)
						return w, w.Close
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				acked += res.Acked
			}
			var s Stats
			for _, w := range wrapped {
				s.Fresh += w.Stats().Fresh
				s.Extended += w.Stats().Extended
				s.Recycled += w.Stats().Recycled
				s.Spares += w.Stats().Spares
				s.SpareFailed += w.Stats().SpareFailed
			}
			if acked < enough || s.Recycled+s.Spares == 0 || s.SpareFailed > 0 {
				t.Fatalf("the rounds were too tame: %d acknowledged, %+v", acked, s)
			}
			t.Logf("%d acknowledged, %+v", acked, s)
		})
	}
}

// TestSyncedAppendsDoNotGrowTheFile is the point of the package: between two
// syncs of a WAL made from a spare, its size stays.
func TestSyncedAppendsDoNotGrowTheFile(t *testing.T) {
	disk := crashfs.New()
	f := New(disk, Options{Size: 128 << 10, Chunk: 64 << 10})
	db, err := pebble.Open("db", crashtest.Options(f))
	noErr(t, err)
	sizes := map[string]map[int64]bool{}
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync && strings.HasSuffix(op.Path, walSuffix) {
			for _, file := range disk.Files() {
				if file.Path == op.Path {
					if sizes[op.Path] == nil {
						sizes[op.Path] = map[int64]bool{}
					}
					sizes[op.Path][file.Size] = true
				}
			}
		}
		return nil
	})
	for i := range 400 {
		noErr(t, db.Set(fmt.Appendf(nil, "k%d", i), make([]byte, 1000), pebble.Sync))
	}
	disk.SetHook(nil)
	noErr(t, db.Close())
	noErr(t, f.Close())
	if len(sizes) < 4 {
		t.Fatalf("only %d WALs", len(sizes))
	}
	for path, s := range sizes {
		if len(s) != 1 {
			t.Errorf("%s had sizes %v at its syncs", path, s)
		}
	}
	if s := f.Stats(); s.Spares+s.Recycled == 0 || s.Extended > 0 {
		t.Errorf("stats %+v", s)
	}
}

// flipped is how many bits are flipped, one per store.
const flipped = 20

// flips writes records of the given size with Sync, flips single bits of the
// WAL before its last record, and returns how many stores then opened without
// an error although commits were gone.
func flips(t *testing.T, o Options, record int) (silent, refused int) {
	disk := crashfs.New()
	f := New(disk, o)
	opts := func(fs vfs.FS) *pebble.Options {
		po := crashtest.Options(fs)
		po.MemTableSize = 8 << 20
		return po
	}
	db, err := pebble.Open("db", opts(f))
	noErr(t, err)
	name, n := "", max(20, 2<<20/record)
	put := func(i int) {
		t.Helper()
		noErr(t, db.Set(fmt.Appendf(nil, "k%06d", i), fill(record, i), pebble.Sync))
	}
	for range 6 { // grow the memtable to its full size
		noErr(t, db.Set([]byte("first"), nil, pebble.Sync))
		noErr(t, db.Flush())
	}
	for i := range n {
		put(i)
	}
	for _, file := range disk.Files() {
		if strings.HasSuffix(file.Path, walSuffix) {
			name = max(name, file.Path)
		}
	}
	end := len(strings.TrimRight(string(read(t, disk, name)), "\x00"))
	put(n)
	image := disk.CrashClone()
	noErr(t, db.Close())
	noErr(t, f.Close())

	open := func(image *crashfs.FS) (*pebble.DB, error) {
		return pebble.Open("db", opts(New(image, Options{NoSpare: true})))
	}
	has := func(db *pebble.DB) bool {
		_, closer, err := db.Get(fmt.Appendf(nil, "k%06d", n))
		if err == nil {
			closer.Close()
		} else if !errors.Is(err, pebble.ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
	whole, err := open(image.CrashClone())
	noErr(t, err) // the zeros behind the log are no error
	if !has(whole) {
		t.Fatal("the last commit is gone without any damage")
	}
	noErr(t, whole.Close())
	rng := rand.New(rand.NewPCG(uint64(record), 3))
	for range flipped { // replay takes a third of a second to find which bit it was
		hit := image.CrashClone()
		noErr(t, hit.Flip(name, rng.Int64N(int64(end)), uint(rng.IntN(8))))
		db, err := open(hit)
		if err != nil {
			if !pebble.IsCorruptionError(err) {
				t.Fatalf("a flipped bit gave %v, want a corruption error", err)
			}
			refused++
			continue
		}
		if !has(db) {
			silent++
		}
		noErr(t, db.Close())
	}
	return silent, refused
}

// fill returns n bytes without trailing zeros.
func fill(n, seed int) []byte {
	b, src := make([]byte, n), rand.New(rand.NewPCG(uint64(seed), 4))
	for i := range b {
		b[i] = byte(1 + src.IntN(255))
	}
	return b
}

func TestFlippedBitsInTheSyncedLogAreErrors(t *testing.T) {
	for _, record := range []int{40_000, 80 << 10, 300_000} {
		silent, refused := flips(t, Options{Size: 9 << 20}, record)
		if silent != 0 || refused != flipped {
			t.Errorf("records of %d bytes: %d of %d flips refused, %d lost commits in silence", record, refused, flipped, silent)
		}
	}
}

// TestPebblesOwnOffsetsMissFlippedBits pins the reason for raising the offsets.
// If it fails because Pebble learned to count, KeepOffsets can become the rule.
func TestPebblesOwnOffsetsMissFlippedBits(t *testing.T) {
	silent, refused := flips(t, Options{Size: 9 << 20, KeepOffsets: true}, 80<<10)
	t.Logf("Pebble's own offsets: %d of %d flips refused, %d lost commits in silence", refused, flipped, silent)
	if silent < flipped/4 {
		t.Errorf("only %d of %d flips were missed", silent, flipped)
	}
}
