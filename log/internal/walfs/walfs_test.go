package walfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp/internal/crashfs"
)

const (
	testSize  = 64 << 10
	testChunk = 16 << 10
)

func noErr(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, f vfs.FS, name string) []byte {
	t.Helper()
	h, err := f.Open(name)
	noErr(t, err)
	defer h.Close()
	b, err := io.ReadAll(h)
	noErr(t, err)
	return b
}

// wantFile checks that the file is the given bytes followed by zeros.
func wantFile(t testing.TB, f vfs.FS, name string, head string, size int) {
	t.Helper()
	want := append([]byte(head), make([]byte, size-len(head))...)
	if got := read(t, f, name); !bytes.Equal(got, want) {
		t.Fatalf("%s: %d bytes that start %q, want %d that start %q", name, len(got), got[:min(len(got), 8)], size, head)
	}
}

func createWAL(t testing.TB, f *FS, name string) vfs.File {
	t.Helper()
	h, err := f.Create(name, walCategory)
	noErr(t, err)
	return h
}

func newFS(disk *crashfs.FS, spares bool) *FS {
	return New(disk, Options{Size: testSize, Chunk: testChunk, NoSpare: !spares})
}

func TestNewWALHoldsSyncedZerosAndIsWrittenInPlace(t *testing.T) {
	disk := crashfs.New()
	f := newFS(disk, false)
	h := createWAL(t, f, "1.log")
	d, _ := disk.OpenDir("/")
	noErr(t, d.Sync())
	wantFile(t, disk.CrashClone(), "1.log", "", testChunk)
	for _, p := range []string{"ab", "cd"} {
		if n, err := h.Write([]byte(p)); n != 2 || err != nil {
			t.Fatalf("write = %d, %v", n, err)
		}
	}
	wantFile(t, disk, "1.log", "abcd", testChunk)
	wantFile(t, disk.CrashClone(), "1.log", "", testChunk)
	noErr(t, h.Sync())
	wantFile(t, disk.CrashClone(), "1.log", "abcd", testChunk)
}

func TestZerosStayAheadOfWrites(t *testing.T) {
	disk := crashfs.New()
	f := newFS(disk, false)
	h := createWAL(t, f, "1.log")
	record := strings.Repeat("x", 10_000)
	written := ""
	for range 5 {
		_, err := h.Write([]byte(record))
		noErr(t, err)
		written += record
		size := testChunk
		for size < len(written) {
			size += testChunk
		}
		wantFile(t, disk, "1.log", written, size)
	}
	if got := f.Stats().Extended; got != 3 {
		t.Fatalf("extended %d times, want 3 for 50,000 bytes in chunks of 16 KiB", got)
	}
}

func TestFilesThatAreNotWALsPassThrough(t *testing.T) {
	disk := crashfs.New()
	f := newFS(disk, true)
	for name, category := range map[string]vfs.DiskWriteCategory{
		"MANIFEST-000001": vfs.WriteCategoryUnspecified,
		"000002.sst":      "pebble-compaction",
		"failover_source": walCategory,
		"000003.log":      vfs.WriteCategoryUnspecified, // a checkpoint's copy
	} {
		h, err := f.Create(name, category)
		noErr(t, err)
		_, err = h.Write([]byte("abc"))
		noErr(t, err)
		noErr(t, h.Close())
		wantFile(t, disk, name, "abc", 3)
		h, err = f.ReuseForWrite(name, name+"x", category)
		noErr(t, err)
		noErr(t, h.Close())
		wantFile(t, disk, name+"x", "abc", 3)
	}
	if s := f.Stats(); s != (Stats{}) {
		t.Fatalf("stats %+v for files that are not WALs", s)
	}
	if names, _ := disk.List("/"); len(names) != 4 {
		t.Fatalf("files %v, want the four and no spare", names)
	}
	if f.Unwrap() != vfs.FS(disk) {
		t.Fatal("Unwrap is not the inner file system")
	}
}

func TestSpareBecomesTheNextWAL(t *testing.T) {
	disk := crashfs.New()
	f := newFS(disk, true)
	createWAL(t, f, "1.log")
	f.background.Wait()
	h := createWAL(t, f, "2.log")
	wantFile(t, disk, "2.log", "", testSize)
	_, err := h.Write(bytes.Repeat([]byte("x"), testSize))
	noErr(t, err)
	f.background.Wait()
	if s := f.Stats(); s != (Stats{Fresh: 1, Spares: 1}) {
		t.Fatalf("stats %+v", s)
	}
	if names, _ := disk.List("/"); len(names) != 3 {
		t.Fatalf("files %v, want two WALs and the next spare", names)
	}
	noErr(t, f.Close())
	if names, _ := disk.List("/"); len(names) != 2 {
		t.Fatalf("files after Close %v", names)
	}
	createWAL(t, f, "3.log")
	f.background.Wait()
	if names, _ := disk.List("/"); len(names) != 3 {
		t.Fatalf("a closed FS made a spare: %v", names)
	}
}

func TestSpareIsDurableZerosBeforeItIsUsed(t *testing.T) {
	disk := crashfs.New()
	f := newFS(disk, true)
	createWAL(t, f, "1.log")
	f.background.Wait()
	createWAL(t, f, "2.log")
	f.background.Wait()
	d, _ := disk.OpenDir("/")
	noErr(t, d.Sync())
	wantFile(t, disk.CrashClone(), "2.log", "", testSize)
}

func TestRecycledWALIsOverwrittenInPlace(t *testing.T) {
	disk := crashfs.New()
	f := New(disk, Options{Size: testChunk, Chunk: testChunk, NoSpare: true})
	h := createWAL(t, f, "1.log")
	_, err := h.Write([]byte("old log"))
	noErr(t, err)
	noErr(t, h.Close())
	h, err = f.ReuseForWrite("1.log", "2.log", walCategory)
	noErr(t, err)
	_, err = h.Write([]byte("NEW"))
	noErr(t, err)
	wantFile(t, disk, "2.log", "NEW log", testChunk)
	if _, err := disk.Stat("1.log"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the old name: %v", err)
	}
	if s := f.Stats(); s != (Stats{Fresh: 1, Recycled: 1}) {
		t.Fatalf("stats %+v", s)
	}
}

func TestSmallRecycledWALIsReplacedByTheSpare(t *testing.T) {
	disk := crashfs.New()
	f := newFS(disk, true)
	h := createWAL(t, f, "1.log")
	_, err := h.Write([]byte("old log"))
	noErr(t, err)
	f.background.Wait()
	_, err = f.ReuseForWrite("1.log", "2.log", walCategory)
	noErr(t, err)
	wantFile(t, disk, "2.log", "", testSize)
	if _, err := disk.Stat("1.log"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the old name: %v", err)
	}
	noErr(t, f.Close())
}

func TestSparesOfAnEarlierProcessAreRemoved(t *testing.T) {
	disk := crashfs.New()
	h, err := disk.Create("walfs-000007.spare", "")
	noErr(t, err)
	_, err = h.Write([]byte("log data whose rename was lost"))
	noErr(t, err)
	f := newFS(disk, false)
	createWAL(t, f, "1.log")
	if got := disk.Files(); len(got) != 1 || got[0].Path != "1.log" {
		t.Fatalf("files %v", got)
	}
}

func TestFullDiskMakesShorterZerosAndNoError(t *testing.T) {
	disk := crashfs.New()
	disk.SetSpace(testChunk / 2)
	f := newFS(disk, true)
	h := createWAL(t, f, "1.log")
	wantFile(t, disk, "1.log", "", testChunk/2)
	f.background.Wait()
	if s := f.Stats(); s.SpareFailed != 1 {
		t.Fatalf("stats %+v, want one failed spare", s)
	}
	_, err := h.Write(bytes.Repeat([]byte("x"), testChunk/2))
	noErr(t, err)
	if _, err := h.Write([]byte("y")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write past the end of a full disk: %v", err)
	}
	disk.SetSpace(testChunk/2 + 4096)
	_, err = h.Write([]byte("y")) // the record fits, its zeros do not
	noErr(t, err)
	disk.SetSpace(1 << 20)
	createWAL(t, f, "2.log")
	f.background.Wait()
	createWAL(t, f, "3.log")
	wantFile(t, disk, "3.log", "", testSize)
	noErr(t, f.Close())
}

// TestQuotaIsAFullDisk: what only keeps zeros ahead may not fit, whichever limit was met.
func TestQuotaIsAFullDisk(t *testing.T) {
	disk := crashfs.New()
	room := -1 // writes that fit; negative: all
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind != crashfs.Write || room < 0 {
			return nil
		}
		if room--; room < 0 {
			room = 0
			return syscall.EDQUOT
		}
		return nil
	})
	f := newFS(disk, false)
	h := createWAL(t, f, "1.log")
	room = 1
	_, err := h.Write(bytes.Repeat([]byte("x"), testSize+1)) // the record fits, the zeros behind it do not
	noErr(t, err)
	if _, err := h.Write([]byte("y")); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("a record that does not fit: %v", err)
	}
	createWAL(t, f, "2.log")
}

func TestFailedSyncOfZerosIsReported(t *testing.T) {
	disk := crashfs.New()
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync {
			return syscall.EIO
		}
		return nil
	})
	if _, err := newFS(disk, false).Create("1.log", walCategory); !errors.Is(err, syscall.EIO) {
		t.Fatalf("create with a failing sync: %v", err)
	}
}

func TestFailedSpareIsRemovedAndNotUsed(t *testing.T) {
	disk := crashfs.New()
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync && strings.HasSuffix(op.Path, spareSuffix) {
			return syscall.EIO
		}
		return nil
	})
	f := newFS(disk, true)
	createWAL(t, f, "1.log")
	f.background.Wait()
	createWAL(t, f, "2.log")
	f.background.Wait()
	if s := f.Stats(); s != (Stats{Fresh: 2, SpareFailed: 2}) {
		t.Fatalf("stats %+v", s)
	}
	if names, _ := disk.List("/"); len(names) != 2 {
		t.Fatalf("files %v", names)
	}
}
