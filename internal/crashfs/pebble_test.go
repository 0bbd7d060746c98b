package crashfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"fcp/internal/crashfs"
	"fcp/internal/crashfs/crashtest"
)

const rounds = 150

// TestPebbleKeepsWhatItAcknowledged is the proof that Pebble runs on the model
// and that the model keeps its own promise.
func TestPebbleKeepsWhatItAcknowledged(t *testing.T) {
	for name, damage := range map[string]crashfs.Options{
		"nothing unsynced": {},
		"everything":       {Keep: 1, KeepEntries: 1},
		"harsh":            crashfs.Harsh(),
		"torn":             {Tear: 1, Sector: 512, Stale: true, KeepEntries: 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sum := crashtest.Result{}
			for seed := range uint64(rounds) {
				res, err := crashtest.Round(seed, crashtest.Config{Damage: damage})
				if err != nil {
					save(t, res.Image)
					t.Fatal(err)
				}
				sum.Acked += res.Acked
				sum.Issued += res.Issued
				sum.Recovered += res.Recovered
			}
			if sum.Acked < rounds*10 || sum.Issued <= sum.Acked {
				t.Fatalf("the rounds were too tame: %d acknowledged, %d issued", sum.Acked, sum.Issued)
			}
			t.Logf("%d acknowledged, %d recovered, %d issued", sum.Acked, sum.Recovered, sum.Issued)
		})
	}
}

// save keeps a failing image where a person can look at it.
func save(t *testing.T, image *crashfs.FS) {
	t.Helper()
	if image == nil {
		return
	}
	dir, err := os.MkdirTemp("", "crash-image-*")
	if err == nil {
		err = image.Save(filepath.Join(dir, "image"))
	}
	t.Logf("image saved in %s (%v)", dir, err)
}

// TestLyingDiskIsNoticed: with syncs that do nothing, the same rounds must find
// lost commits; otherwise they prove nothing.
func TestLyingDiskIsNoticed(t *testing.T) {
	lost := 0
	for range 5 { // once could be luck
		disk := crashfs.New()
		disk.SetHook(func(op crashfs.Op) error {
			if op.Kind == crashfs.Sync {
				return crashfs.ErrPretend
			}
			return nil
		})
		db, err := pebble.Open("db", crashtest.Options(disk))
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Set([]byte("a"), []byte("1"), pebble.Sync); err != nil {
			t.Fatal(err)
		}
		image := disk.CrashClone()
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := pebble.Open("db", crashtest.Options(image))
		if err != nil {
			lost++
			continue
		}
		if _, _, err := again.Get([]byte("a")); errors.Is(err, pebble.ErrNotFound) {
			lost++
		}
		again.Close()
	}
	if lost != 5 {
		t.Fatalf("a disk whose syncs do nothing lost data in %d of 5 stores", lost)
	}
}

// TestStoppedStore: after StopAt no sync is acknowledged, and what was
// acknowledged before is in the image.
func TestStoppedStore(t *testing.T) {
	disk := crashfs.New()
	opts := crashtest.Options(disk)
	fatal := make(chan string, 16)
	opts.Logger = stopLogger{fatal}
	db, err := pebble.Open("db", opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Set([]byte("a"), []byte("1"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	disk.StopAt(disk.Mutations() + 1)
	acked := make(chan error, 1)
	go func() {
		defer close(acked)
		acked <- db.Set([]byte("b"), []byte("2"), pebble.Sync)
	}()
	if err, answered := <-acked; answered && err == nil {
		t.Fatal("a stopped disk acknowledged a write")
	}
	image, err := pebble.Open("db", crashtest.Options(disk.CrashClone()))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if _, closer, err := image.Get([]byte("a")); err != nil {
		t.Fatal(err)
	} else {
		closer.Close()
	}
	if _, _, err := image.Get([]byte("b")); !errors.Is(err, pebble.ErrNotFound) {
		t.Fatalf("the write that was refused is there: %v", err)
	}
}

// TestFullDiskReachesPebbleAsENOSPC checks the error chain that a caller of
// Pebble sees.
func TestFullDiskReachesPebbleAsENOSPC(t *testing.T) {
	disk := crashfs.New()
	disk.SetSpace(0)
	if _, err := pebble.Open("db", crashtest.Options(disk)); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("open on a disk without space: %v", err)
	}
	disk.SetSpace(8 << 20)
	db, err := pebble.Open("db", crashtest.Options(disk))
	if err != nil {
		t.Fatalf("open after space came back: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}
