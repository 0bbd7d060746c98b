package log

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/internal/crashfs"
)

// forEver is what these tests wait before they take something for hanging: far more
// than a busy machine needs.
const forEver = 2 * time.Minute

// soon fails the test when f does not return.
func soon(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(forEver):
		buf := make([]byte, 1<<20)
		t.Fatalf("%s does not return within %s\n%s", what, forEver, buf[:runtime.Stack(buf, true)])
	}
}

// TestFailingSyncStopsTheLog: after an EIO nothing is acknowledged any more, and
// what was acknowledged is there after a restart.
func TestFailingSyncStopsTheLog(t *testing.T) {
	for _, c := range []struct {
		name string
		kind crashfs.Kind
		path string
		once bool
	}{
		{"WAL sync, once", crashfs.Sync, ".log", true},
		{"WAL sync, for ever", crashfs.Sync, ".log", false},
		{"WAL write, once", crashfs.Write, ".log", true},
		{"mark sync, once", crashfs.Sync, markName, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := crashfs.New()
			o := small()
			o.MarkInterval = 2 * time.Millisecond
			l, err := openOn(disk, o)
			if err != nil {
				t.Fatal(err)
			}
			var broken, failed atomic.Bool
			disk.SetHook(func(op crashfs.Op) error {
				if broken.Load() && op.Kind == c.kind && strings.HasSuffix(op.Path, c.path) && (!c.once || !failed.Load()) {
					failed.Store(true)
					return syscall.EIO
				}
				return nil
			})
			var mu sync.Mutex
			var acked []Placed
			var late, refused atomic.Int64
			var wg sync.WaitGroup
			for w := range 6 {
				wg.Go(func() {
					for i := 0; !t.Failed(); i++ { // until it is refused
						before := l.Crashed() != nil
						ctx, cancel := context.WithTimeout(context.Background(), forEver)
						r, err := l.Append(ctx, draft(100, byte(w+i)))
						cancel()
						if err == nil {
							if before {
								late.Add(1)
							}
							mu.Lock()
							acked = append(acked, r.Events...)
							n := len(acked)
							mu.Unlock()
							if n > 60 {
								broken.Store(true)
							}
							continue
						}
						if code := fcp.CodeOf(err); code != fcp.CodeCrashed {
							t.Errorf("append after the error: %v", err)
						}
						refused.Add(1)
						return
					}
				})
			}
			soon(t, "a writer", wg.Wait)
			if late.Load() != 0 || refused.Load() != 6 || l.Crashed() == nil {
				t.Fatalf("%d acknowledged after the error, %d writers refused, crashed: %v", late.Load(), refused.Load(), l.Crashed())
			}
			_, err = l.Import(t.Context(), newForeign(1, fcp.ZoneWork, fcp.PlaneData).take(2), nil)
			wantCode(t, err, fcp.CodeCrashed)
			// Reads go on.
			if _, _, err := l.Read(1, 1); err != nil {
				t.Errorf("reading a stopped log: %v", err)
			}
			soon(t, "Close", func() {
				if err := l.Close(); fcp.CodeOf(err) != fcp.CodeCrashed {
					t.Errorf("closing a stopped log: %v", err)
				}
			})
			disk.SetHook(nil)
			img := cutImage{fs: disk.CrashClone(), acked: acked}
			if err := checkImage(&img, small(), true); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBackgroundErrors: errors where no append waits must not take the process
// down or lose anything.
func TestBackgroundErrors(t *testing.T) {
	for _, path := range []string{".sst", "MANIFEST"} {
		for _, kind := range []crashfs.Kind{crashfs.Sync, crashfs.Write, crashfs.Create} {
			t.Run(fmt.Sprint(path, " ", kind), func(t *testing.T) {
				if path == "MANIFEST" && kind == crashfs.Create {
					t.Skip("a MANIFEST is made at Open only")
				}
				disk := crashfs.New()
				l, err := openOn(disk, small())
				if err != nil {
					t.Fatal(err)
				}
				var acked []Placed
				var broken atomic.Bool
				disk.SetHook(func(op crashfs.Op) error {
					if broken.Load() && op.Kind == kind && strings.Contains(op.Path, path) {
						return syscall.EIO
					}
					return nil
				})
				soon(t, "appending", func() {
					for i := range 300 {
						if i == 20 {
							broken.Store(true)
						}
						ctx, cancel := context.WithTimeout(context.Background(), time.Second)
						r, err := l.Append(ctx, draft(2000, byte(i)))
						cancel()
						if err != nil {
							return
						}
						acked = append(acked, r.Events...)
					}
				})
				img := cutImage{fs: disk.CrashClone(), acked: acked}
				broken.Store(false)
				disk.SetHook(nil)
				if err := checkImage(&img, small(), true); err != nil {
					t.Fatal(err)
				}
				soon(t, "Close", func() { _ = l.Close() })
			})
		}
	}
}

// TestDiskFull: refused in time with the right code, reads go on, and it
// recovers by itself.
func TestDiskFull(t *testing.T) {
	disk := crashfs.New()
	o := small()
	o.MarkInterval = 5 * time.Millisecond
	// Between two looks at the disk a WAL or two are begun, of a memtable and a
	// chunk of zeros each: the reserve is to be enough for them, as by default.
	o.MemTableBytes = 1 << 20
	o.DiskReserve = 16 << 20
	disk.SetSpace(256 << 20)
	l, err := openOn(disk, o)
	if err != nil {
		t.Fatal(err)
	}
	var acked []Placed
	for round := range 3 {
		for i := range 50 {
			acked = append(acked, mustAppend(t, l, draft(500, byte(i))).Events...)
		}
		disk.SetSpace(disk.Used() + 12<<20)
		var full error
		for bytes := uint64(0); full == nil; bytes += 500 {
			r, err := l.Append(t.Context(), draft(500, 1))
			if err == nil {
				acked = append(acked, r.Events...)
			}
			if full = err; bytes > o.DiskReserve/4 { // it looks after each sixteenth
				t.Fatal("appends are not refused in time")
			}
		}
		wantCode(t, full, fcp.CodeDiskFull)
		if !errors.Is(full, fcp.Transient) {
			t.Fatal("a full disk is no transient error")
		}
		if !l.Full() {
			t.Fatal("a log that refuses appends does not say that it is full")
		}
		_, err := l.Import(t.Context(), newForeign(byte(round), fcp.ZoneWork, fcp.PlaneData).take(1), nil)
		wantCode(t, err, fcp.CodeDiskFull)
		if all, err := scanned(l, 2); err != nil || len(all) != len(acked) {
			t.Fatalf("%d of %d events to read, %v", len(all), len(acked), err)
		}
		disk.SetSpace(256 << 20)
		for start := time.Now(); ; time.Sleep(time.Millisecond) {
			r, err := l.Append(t.Context(), draft(500, 1))
			if err == nil {
				acked = append(acked, r.Events...)
				break
			}
			if time.Since(start) > forEver {
				t.Fatalf("does not recover: %v", err)
			}
		}
		if l.Full() {
			t.Fatal("a log that takes appends says that it is full")
		}
	}
	img := cutImage{fs: disk.CrashClone(), acked: acked}
	mustClose(t, l)
	if err := checkImage(&img, small(), true); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFullAtOnce: no page is left from one moment to the next. Whatever the
// log does, it answers in time and loses nothing.
func TestDiskFullAtOnce(t *testing.T) {
	disk := crashfs.New()
	o := small()
	o.MarkInterval = 20 * time.Millisecond
	o.DiskReserve = 1 << 20
	disk.SetSpace(64 << 20)
	l, err := openOn(disk, o)
	if err != nil {
		t.Fatal(err)
	}
	var acked []Placed
	full := false
	for i := range 2000 {
		if i == 100 {
			disk.SetSpace(0)
			full = true
		}
		var r Receipt
		soon(t, "Append on a full disk", func() {
			r, err = l.Append(context.Background(), draft(3000, byte(i)))
		})
		if err != nil {
			if c := fcp.CodeOf(err); !full || c != fcp.CodeDiskFull && c != fcp.CodeCrashed {
				t.Fatal(err)
			}
			t.Logf("append %d: %v", i, err)
			break
		}
		acked = append(acked, r.Events...)
	}
	if err == nil {
		t.Fatal("a disk without space took everything")
	}
	if all, err := scanned(l, 1); err != nil || len(all) != len(acked) {
		t.Fatalf("%d of %d events to read, %v", len(all), len(acked), err)
	}
	disk.SetSpace(-1)
	img := cutImage{fs: disk.CrashClone(), acked: acked}
	if err := checkImage(&img, small(), true); err != nil {
		t.Fatal(err)
	}
	soon(t, "Close", func() { _ = l.Close() })
}

func TestOneOpenAtATime(t *testing.T) {
	for name, fs := range map[string]vfs.FS{"crashfs": crashfs.New(), "real": vfs.Default} {
		t.Run(name, func(t *testing.T) {
			dir := "store"
			if fs == vfs.Default {
				dir = filepath.Join(t.TempDir(), "store")
			}
			o := small()
			o.FS, o.Create, o.Writer = fs, true, testWriter()
			l, err := Open(dir, o)
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, draft(9, 1))
			for _, readOnly := range []bool{false, true} {
				o.ReadOnly = readOnly
				start := time.Now()
				_, err = Open(dir, o)
				wantCode(t, err, fcp.CodeLocked)
				if d := time.Since(start); d > forEver/4 { // it does not wait for the other
					t.Fatalf("refused after %s", d)
				}
			}
			_, err = Verify(t.Context(), dir, VerifyOptions{FS: fs})
			wantCode(t, err, fcp.CodeLocked)
			mustClose(t, l)
			o.ReadOnly = true
			if l, err = Open(dir, o); err != nil {
				t.Fatal(err)
			}
			_, err = l.Append(t.Context(), draft(1, 1))
			wantCode(t, err, fcp.CodeReadOnly)
			wantCode(t, l.SetSalts(1, 1, make([]byte, 16)), fcp.CodeReadOnly)
			if e, _, err := l.Read(1, 1); err != nil || e.Body[0] != 1 {
				t.Fatal(err)
			}
			mustClose(t, l)
		})
	}
}

func TestOpenRefusals(t *testing.T) {
	fs := crashfs.New()
	o := small()
	o.FS = fs
	for _, readOnly := range []bool{true, false} {
		o.ReadOnly = readOnly
		_, err := Open("store", o)
		wantCode(t, err, fcp.CodeNoStore)
	}
	l, err := openOn(fs, small())
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	other := small()
	other.Writer = fcp.WriterID{8}
	_, err = openOn(fs, other)
	wantCode(t, err, fcp.CodeWrongKey)
	l, err = openOn(fs, small()) // the refusal released the lock
	if err != nil {
		t.Fatal(err)
	}
	if err := l.db.Set([]byte{keyMeta}, make([]byte, 42), nil); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	_, err = openOn(fs, small())
	wantCode(t, err, fcp.CodeVersion)
}

// TestCloseDuringAppends: every append gets an answer, and those answered with
// nil are there.
func TestCloseDuringAppends(t *testing.T) {
	for round := range torture(20) {
		disk := crashfs.New()
		l, err := openOn(disk, sealing(small(), 8<<10))
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var acked []Placed
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for {
					r, err := l.Append(context.Background(), draft(300, byte(w)))
					if err != nil {
						if fcp.CodeOf(err) != fcp.CodeClosed {
							t.Errorf("append at close: %v", err)
						}
						return
					}
					mu.Lock()
					acked = append(acked, r.Events...)
					mu.Unlock()
				}
			})
		}
		time.Sleep(time.Duration(round%5) * time.Millisecond)
		soon(t, "Close", func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		soon(t, "the writers", wg.Wait)
		img := cutImage{fs: disk, acked: acked}
		if err := checkImage(&img, sealing(small(), 8<<10), true); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUseAfterClose: every method answers CodeClosed instead of ending the
// process.
func TestUseAfterClose(t *testing.T) {
	l, err := openOn(crashfs.New(), sealing(small(), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, draft(9, 1))
	mustClose(t, l)
	mustClose(t, l)
	for name, call := range map[string]func() error{
		"Append": func() error { _, err := l.Append(t.Context(), draft(1, 1)); return err },
		"Import": func() error {
			_, err := l.Import(t.Context(), newForeign(1, "z:a", fcp.PlaneData).take(1), nil)
			return err
		},
		"Seal":    func() error { _, err := l.Seal(t.Context(), SealOptions{All: true}); return err },
		"Scan":    func() error { return l.Scan(t.Context(), ScanOptions{}, func([]Applied) error { return nil }) },
		"Read":    func() error { _, _, err := l.Read(1, 1); return err },
		"At":      func() error { _, _, err := l.At(1); return err },
		"Salts":   func() error { return l.Salts(func(FeedNo, uint64, []byte) error { return nil }) },
		"SetSalt": func() error { return l.SetSalts(1, 1, make([]byte, 16)) },
		"Prove":   func() error { _, err := l.Prove(1, 1, 1); return err },
		"Find":    func() error { _, _, err := l.FindSegment(fcp.SegmentID{}); return err },
	} {
		func() {
			defer func() {
				if r := recover(); r != nil {
					t.Errorf("%s after Close panics: %.200v", name, r)
				}
			}()
			if err := call(); fcp.CodeOf(err) != fcp.CodeClosed {
				t.Errorf("%s after Close: %v", name, err)
			}
		}()
	}
}

// slowSync delays WAL syncs until released.
func slowSync(disk *crashfs.FS) (release func(), waiting func() int64) {
	gate := make(chan struct{})
	var n atomic.Int64
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync && strings.HasSuffix(op.Path, ".log") {
			n.Add(1)
			<-gate
		}
		return nil
	})
	return sync.OnceFunc(func() { close(gate) }), n.Load
}

// TestCancelWhileWaiting: an append given up before it was taken writes nothing,
// also when it would have led the next group.
func TestCancelWhileWaiting(t *testing.T) {
	disk := crashfs.New()
	l, err := openOn(disk, small())
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	release, waiting := slowSync(disk)
	defer release()
	first := make(chan error, 1)
	go func() { _, err := l.Append(context.Background(), draft(10, 1)); first <- err }()
	for waiting() == 0 {
		time.Sleep(time.Millisecond)
	}
	// The first of these leads the next group; all give up.
	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(5+5*i)*time.Millisecond)
			defer cancel()
			_, err := l.Append(ctx, draft(10, 2))
			if c := fcp.CodeOf(err); c != fcp.CodeTimeout {
				t.Errorf("an append that gave up: %v", err)
			}
		})
	}
	soon(t, "giving up", wg.Wait)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = l.Append(ctx, draft(10, 3))
	wantCode(t, err, fcp.CodeInterrupted)
	after := make(chan error, 1)
	go func() { _, err := l.Append(context.Background(), draft(10, 4)); after <- err }()
	time.Sleep(5 * time.Millisecond)
	release()
	for _, c := range []chan error{first, after} {
		select {
		case err := <-c:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(forEver):
			t.Fatal("an append behind abandoned ones is never led")
		}
	}
	all, err := scanned(l, 1)
	if err != nil || len(all) != 2 || all[0].Content.Body[0] != 1 || all[1].Content.Body[0] != 4 {
		t.Fatalf("%d events, %v", len(all), err)
	}
}

// TestCloseFreesWaitingAppends: an append that waits for the sealer to catch up
// is answered when the log closes.
func TestCloseFreesWaitingAppends(t *testing.T) {
	l, err := openOn(crashfs.New(), small())
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.unsealed = maxUnsealed
	l.mu.Unlock()
	done := make(chan error, 1)
	go func() { _, err := l.Append(context.Background(), draft(10, 1)); done <- err }()
	time.Sleep(10 * time.Millisecond)
	soon(t, "Close", func() { _ = l.Close() })
	select {
	case err := <-done:
		wantCode(t, err, fcp.CodeClosed)
	case <-time.After(forEver):
		t.Fatal("an append that waits for room is forgotten by Close")
	}
}

// TestSealingAccountsForWhatItSealed: backpressure counts unsealed bytes; after
// sealing everything none may be left, however runs were cut.
func TestSealingAccountsForWhatItSealed(t *testing.T) {
	o := sealing(small(), 4<<10)
	l, err := openOn(crashfs.New(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	for i := range 40 {
		for range 1 + i%7 {
			mustAppend(t, l, draft(300, byte(i)))
		}
		if _, err := l.Seal(t.Context(), SealOptions{All: true}); err != nil {
			t.Fatal(err)
		}
	}
	l.sealMu.Lock()
	defer l.sealMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	var hot int64
	for _, f := range l.feeds {
		if f.sealed == f.durable.seq && f.hotBytes != 0 {
			t.Errorf("feed %d is sealed whole and counts %d unsealed bytes", f.no, f.hotBytes)
		}
		hot += f.hotBytes
	}
	if l.unsealed != hot || hot < 0 {
		t.Errorf("%d unsealed bytes in all, the feeds count %d", l.unsealed, hot)
	}
}

// TestNoGoroutineLeaks opens, uses and closes stores of every sort.
func TestNoGoroutineLeaks(t *testing.T) {
	use := func() {
		disk := crashfs.New()
		l := busyStore(t, disk, sealing(small(), 8<<10), 200)
		_, _ = scanned(l, 3)
		stop := errors.New("enough")
		err := l.Scan(context.Background(), ScanOptions{Workers: 3}, func([]Applied) error { return stop })
		if !errors.Is(err, stop) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := l.Scan(ctx, ScanOptions{Workers: 3}, func([]Applied) error { return nil }); err == nil {
			t.Fatal("a cancelled scan goes on")
		}
		mustClose(t, l)
		o := small()
		o.ReadOnly = true
		if l, err = openOn(disk, o); err != nil {
			t.Fatal(err)
		}
		mustClose(t, l)
		other := small()
		other.Writer = fcp.WriterID{8}
		_, err = openOn(disk, other)
		wantCode(t, err, fcp.CodeWrongKey)
	}
	use()
	before := runtime.NumGoroutine()
	for range 5 {
		use()
	}
	after := 0
	for start := time.Now(); time.Since(start) < forEver/4; time.Sleep(5 * time.Millisecond) {
		if after = runtime.NumGoroutine(); after <= before {
			return
		}
	}
	buf := make([]byte, 1<<20)
	t.Fatalf("%d goroutines before, %d after\n%s", before, after, buf[:runtime.Stack(buf, true)])
}

// TestStoreIsNotMadeOverAnother: a store that lost its list of tables is not
// taken for an empty directory, and nothing of it is deleted.
func TestStoreIsNotMadeOverAnother(t *testing.T) {
	fs := crashfs.New()
	mustClose(t, busyStore(t, fs, small(), 300))
	for _, f := range fs.Files() {
		if strings.Contains(f.Path, "marker.manifest") {
			if err := fs.Remove(f.Path); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := fs.Digest()
	_, err := openOn(fs, small())
	wantCode(t, err, fcp.CodeCorrupt)
	if fs.Digest() != before {
		t.Fatal("the refusal changed the store")
	}
}
