package crashfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func TestHookFailsTheNthSync(t *testing.T) {
	f := New()
	h := durable(t, f, "a", nil)
	already := f.Count(Sync)
	f.SetHook(func(op Op) error {
		if op.Kind == Sync && op.Path == "a" && op.N == already+2 {
			return syscall.EIO
		}
		return nil
	})
	must[int](t)(h.Write([]byte("1")))
	noErr(t, h.Sync())
	must[int](t)(h.Write([]byte("2")))
	if err := h.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("second sync: %v, want EIO", err)
	}
	expect(t, f.CrashClone(), "a", "1")
	f.SetHook(nil)
	noErr(t, h.Sync())
	expect(t, f.CrashClone(), "a", "12")
}

func TestPretendedSyncsMakeNothingDurable(t *testing.T) {
	f := New()
	h := durable(t, f, "a", []byte("1"))
	f.SetHook(func(op Op) error {
		if op.Kind == Sync || op.Kind == SyncDir {
			return ErrPretend
		}
		return nil
	})
	must[int](t)(h.Write([]byte("2")))
	noErr(t, h.Sync())
	create(t, f, "b", []byte("x"), true)
	syncDir(t, f, "/")
	img := f.CrashClone()
	expect(t, img, "a", "1")
	absent(t, img, "b")
}

func TestHookMayCallTheFileSystem(t *testing.T) {
	f := New()
	h := durable(t, f, "a", []byte("1"))
	var img *FS
	f.SetHook(func(op Op) error {
		if op.Kind == Sync {
			img = f.CrashClone()
			f.SetSpace(1 << 20)
		}
		return nil
	})
	must[int](t)(h.Write([]byte("2")))
	noErr(t, h.Sync())
	expect(t, img, "a", "1")
	expect(t, f.CrashClone(), "a", "12")
}

func TestStopAtFailsEverythingFromThereOn(t *testing.T) {
	f := New()
	h := durable(t, f, "a", []byte("1"))
	f.StopAt(f.Mutations() + 3)
	must[int](t)(h.Write([]byte("2"))) // +1
	noErr(t, h.Sync())                 // +2
	if _, err := h.Write([]byte("3")); !errors.Is(err, ErrStopped) {
		t.Fatalf("write at the stop: %v", err)
	}
	if !f.Stopped() {
		t.Error("Stopped says no")
	}
	_, openErr := f.Open("a")
	_, readErr := h.ReadAt(make([]byte, 1), 0)
	_, lockErr := f.Lock("l")
	for name, err := range map[string]error{
		"open": openErr, "read": readErr, "lock": lockErr, "sync": h.Sync(),
		"remove": f.Remove("a"), "rename": f.Rename("a", "b"), "mkdir": f.MkdirAll("d", 0),
	} {
		if !errors.Is(err, ErrStopped) {
			t.Errorf("%s after the stop: %v", name, err)
		}
	}
	noErr(t, h.Close())
	expect(t, f.CrashClone(), "a", "12")
	f.StopAt(0)
	expect(t, f, "a", "12")
}

func TestDiskFullAndRaised(t *testing.T) {
	f := New()
	h := create(t, f, "a", make([]byte, 4096), false)
	f.SetSpace(3 * 4096)
	n, err := h.Write(bytes.Repeat([]byte("x"), 10000))
	if n != 8192 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("write into 8192 free bytes: %d, %v", n, err)
	}
	u := must[vfs.DiskUsage](t)(f.GetDiskUsage("/"))
	if u != (vfs.DiskUsage{AvailBytes: 0, TotalBytes: 12288, UsedBytes: 12288}) {
		t.Fatalf("usage %+v", u)
	}
	if _, err := f.Create("b", ""); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("create on a full disk: %v", err)
	}
	must[int](t)(h.WriteAt([]byte("in place"), 0)) // needs no space
	if img := f.CrashClone(); img.Used() != 0 {
		t.Fatalf("image without files uses %d", img.Used())
	}
	f.SetSpace(5 * 4096)
	must[int](t)(h.Write(make([]byte, 4096)))
	noErr(t, f.Remove("a"))
	if f.Used() != 4*4096 {
		t.Fatalf("a removed open file takes %d", f.Used())
	}
	noErr(t, h.Close())
	if f.Used() != 0 {
		t.Fatalf("used %d after the last handle of the only file", f.Used())
	}
}

func TestImageKeepsTheSizeOfTheDisk(t *testing.T) {
	f := New()
	durable(t, f, "a", make([]byte, 4096))
	f.SetSpace(2 * 4096)
	img := f.CrashClone()
	u := must[vfs.DiskUsage](t)(img.GetDiskUsage("/"))
	if u.TotalBytes != 8192 || u.AvailBytes != 4096 {
		t.Fatalf("usage of the image %+v", u)
	}
}

func TestContractOfHandles(t *testing.T) {
	f := New()
	durable(t, f, "a", []byte("abc"))
	ro := must[vfs.File](t)(f.Open("a"))
	if _, err := ro.Write([]byte("x")); !errors.Is(err, syscall.EBADF) {
		t.Errorf("write through Open: %v", err)
	}
	b := make([]byte, 8)
	if n, err := ro.ReadAt(b, 1); n != 2 || err != io.EOF {
		t.Errorf("short ReadAt = %d, %v", n, err)
	}
	rw := must[vfs.File](t)(f.OpenReadWrite("a", ""))
	must[int](t)(rw.Write([]byte("X")))
	expect(t, f, "a", "Xbc")
	reused := must[vfs.File](t)(f.ReuseForWrite("a", "b", ""))
	must[int](t)(reused.Write([]byte("Y")))
	expect(t, f, "b", "Ybc")
	noErr(t, ro.Close())
	if _, err := ro.Read(b); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
	if err := ro.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second close: %v", err)
	}
	if st := must[vfs.FileInfo](t)(rw.Stat()); st.Size() != 3 || st.IsDir() {
		t.Errorf("stat: %d bytes", st.Size())
	}
	if rw.Fd() != vfs.InvalidFd {
		t.Error("a descriptor that does not exist")
	}
}

func TestContractOfPaths(t *testing.T) {
	f := New()
	noErr(t, f.MkdirAll("/d/e", 0o755))
	durable(t, f, "d/a", nil)
	_, openErr := f.Open("d/none")
	_, createErr := f.Create("none/x", "")
	_, reuseErr := f.ReuseForWrite("d/none", "d/x", "")
	_, belowFile := f.Open("d/a/x")
	_, dirErr := f.OpenDir("d/a")
	for name, c := range map[string]struct{ got, want error }{
		"open of nothing":      {openErr, fs.ErrNotExist},
		"create in nothing":    {createErr, fs.ErrNotExist},
		"reuse of nothing":     {reuseErr, fs.ErrNotExist},
		"remove of nothing":    {f.Remove("d/none"), fs.ErrNotExist},
		"rename of nothing":    {f.Rename("d/none", "x"), fs.ErrNotExist},
		"remove of a full dir": {f.Remove("d"), syscall.ENOTEMPTY},
		"link over a name":     {f.Link("d/a", "d/e"), fs.ErrExist},
		"path through a file":  {belowFile, syscall.ENOTDIR},
		"OpenDir of a file":    {dirErr, syscall.ENOTDIR},
		"rename into itself":   {f.Rename("d", "d/e/f"), syscall.EINVAL},
		"RemoveAll of nothing": {f.RemoveAll("none/none"), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: %v, want %v", name, c.got, c.want)
		}
	}
	if got := fmt.Sprint(must[[]string](t)(f.List("d"))); got != "[a e]" {
		t.Errorf("list %s", got)
	}
	noErr(t, f.RemoveAll("d"))
	absent(t, f, "d")
}

func TestLockExcludesAndDiesWithThePower(t *testing.T) {
	f := New()
	l := must[io.Closer](t)(f.Lock("LOCK"))
	if _, err := f.Lock("/LOCK"); !errors.Is(err, syscall.EAGAIN) {
		t.Fatalf("second lock: %v", err)
	}
	syncDir(t, f, "/")
	must[io.Closer](t)(f.CrashClone().Lock("LOCK"))
	noErr(t, l.Close())
	must[io.Closer](t)(f.Lock("LOCK"))
	noErr(t, l.Close()) // a second Close must not release the new lock
	if _, err := f.Lock("LOCK"); err == nil {
		t.Fatal("the old lock released the new one")
	}
}

// TestConcurrentUse is for the race detector: writers, syncs, reads, images.
func TestConcurrentUse(t *testing.T) {
	f := New()
	shared := durable(t, f, "shared", make([]byte, 1<<16))
	syncedUpTo := make([]int, 4)
	var wg sync.WaitGroup
	for w := range 4 {
		h := durable(t, f, fmt.Sprint("w", w), nil)
		wg.Go(func() {
			for i := range 200 {
				h.Write(bytes.Repeat([]byte{byte(w + 1)}, 100))
				shared.WriteAt([]byte{byte(w)}, int64(i*50+w))
				shared.ReadAt(make([]byte, 100), int64(i))
				if i%10 == 9 {
					h.Sync()
					syncedUpTo[w] = (i + 1) * 100
				}
			}
		})
		wg.Go(func() {
			for i := range 50 {
				img := f.Crash(seeded(uint64(i)), Harsh())
				img.Digest()
			}
		})
	}
	wg.Wait()
	img := f.CrashClone()
	for w, n := range syncedUpTo {
		if got := read(t, img, fmt.Sprint("w", w)); len(got) != n || bytes.Count(got, []byte{byte(w + 1)}) != n {
			t.Errorf("writer %d: %d bytes durable, want %d", w, len(got), n)
		}
	}
}
