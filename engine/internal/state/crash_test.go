package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"

	"pgregory.net/rapid"
)

// A history is the model at every position.
type history struct {
	mu sync.Mutex
	at []model // at[p] is the content through position p
}

func newHistory() *history { return &history{at: []model{{}}} }

func (h *history) model(position uint64) model {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.at[position]
}

// step applies one random group at the next position to the store and, before
// that, to the history: a table may hold it before Update returns.
func (h *history) step(rng *rand.Rand, s *Store) error {
	h.mu.Lock()
	m := maps.Clone(h.at[len(h.at)-1])
	type op struct {
		key string
		p   *pair
	}
	var ops []op
	for range rng.IntN(8) {
		k := fmt.Sprintf("%d/key %d", rng.IntN(3), rng.IntN(40))
		if rng.IntN(4) == 0 {
			delete(m, k)
			ops = append(ops, op{k, nil})
			continue
		}
		p := pair{strings.Repeat("v", rng.IntN(300)) + fmt.Sprint(len(h.at)), fmt.Sprint(rng.IntN(9))}
		m[k] = p
		ops = append(ops, op{k, &p})
	}
	h.at = append(h.at, m)
	position := uint64(len(h.at) - 1)
	h.mu.Unlock()
	return s.Update(position, func(w *Writer) error {
		for _, o := range ops {
			if o.p == nil {
				w.Delete([]byte(o.key))
			} else {
				w.Set([]byte(o.key), []byte(o.p.canonical), []byte(o.p.local))
			}
		}
		return nil
	})
}

// forget drops the history beyond a position, as a crash does.
func (h *history) forget(position uint64) { h.at = h.at[:position+1] }

func checkImage(t rapid.TB, image *crashfs.FS, h *history, atLeast uint64) uint64 {
	t.Helper()
	s, err := Open(image, "state", Options{})
	if err != nil {
		t.Fatalf("the image does not open: %v", err)
	}
	defer s.Close()
	if s.Cursor() < atLeast {
		t.Fatalf("cursor %d was durable, the image has %d", atLeast, s.Cursor())
	}
	want := h.model(s.Cursor())
	if got := content(t, s, nil, nil); !maps.Equal(got, want) {
		t.Fatalf("at cursor %d the image holds\n%q\nwant\n%q", s.Cursor(), got, want)
	}
	got, err := s.Digest()
	must(t, err)
	if fresh := want.freshDigest(t, Options{}, nil, nil); got != fresh {
		t.Fatalf("at cursor %d the digest differs", s.Cursor())
	}
	return s.Cursor()
}

// Images are taken right before random I/O operations, whatever goroutine does
// them, and must each open to the model at exactly their cursor.
func TestAPowerCutAtAnyMomentLeavesTheStateAtItsCursor(t *testing.T) {
	runs := 40
	if testing.Short() {
		runs = 6
	}
	images := 0
	for seed := range uint64(runs) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fs, h := crashfs.New(), newHistory()
		type cut struct {
			image   *crashfs.FS
			atLeast uint64
		}
		var mu sync.Mutex
		var cuts []cut
		hookRng := rand.New(rand.NewPCG(seed, 2))
		var current atomic.Pointer[Store]
		fs.SetHook(func(op crashfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if s := current.Load(); s != nil && op.Kind.Mutating() && hookRng.IntN(12) == 0 {
				c := s.Cursor()
				cuts = append(cuts, cut{fs.Crash(hookRng, crashfs.Harsh()), c})
			}
			return nil
		})
		for range 3 {
			s := openTest(t, fs, Options{FlushEntries: 10 + rng.IntN(60), Bulk: seed%2 == 1, splitEntries: 2})
			current.Store(s)
			h.forget(s.Cursor())
			for range 80 {
				must(t, h.step(rng, s))
				if rng.IntN(20) == 0 {
					must(t, s.Flush(context.Background()))
				}
			}
			must(t, s.Close())
			current.Store(nil)
		}
		fs.SetHook(nil)
		for _, c := range cuts {
			checkImage(t, c.image, h, c.atLeast)
		}
		images += len(cuts)
	}
	t.Logf("%d images", images)
	if images < runs {
		t.Fatalf("only %d images were taken", images)
	}
}

// The process dies at the n-th change of the disk; the store must not hang, must
// say so, and the next process goes on from the cursor.
func TestStopAtEveryChangeOfTheDisk(t *testing.T) {
	for name, o := range map[string]Options{
		"one table":  {FlushEntries: 50},
		"two tables": {FlushEntries: 50, Bulk: true, splitEntries: 2},
	} {
		t.Run(name, func(t *testing.T) { stopAtEveryChange(t, o) })
	}
}

func stopAtEveryChange(t *testing.T, o Options) {
	stride := int64(1)
	if testing.Short() {
		stride = 17
	}
	for n := int64(1); ; n += stride {
		rng := rand.New(rand.NewPCG(uint64(n), 3))
		fs, h := crashfs.New(), newHistory()
		fs.StopAt(n)
		var durable uint64
		s, err := Open(fs, "state", o)
		if err == nil {
			for i := 0; err == nil && i < 120; i++ {
				if err = h.step(rng, s); err == nil && i%30 == 29 {
					err = s.Flush(context.Background())
				}
				durable = s.Cursor()
			}
			if err != nil && !errors.Is(err, fcp.Fatal) {
				t.Fatalf("stopped at %d: %v", n, err)
			}
			s.Close()
		}
		stopped := fs.Stopped()
		if !stopped && err != nil {
			t.Fatal(err)
		}
		image := fs.Crash(rng, crashfs.Harsh())
		at := checkImage(t, image, h, durable)
		h.forget(at)
		s = openTest(t, image, o)
		for range 40 {
			must(t, h.step(rng, s))
		}
		must(t, s.Close())
		checkImage(t, image, h, uint64(len(h.at)-1))
		if !stopped {
			t.Logf("%d changes", n)
			return
		}
	}
}

func TestASyncErrorStopsTheStore(t *testing.T) {
	for _, file := range []string{tempTable, upperTemp, "MANIFEST", "state"} {
		fs := crashfs.New()
		faults := make(chan error, 10)
		s := openTest(t, fs, Options{OnFault: func(err error) { faults <- err }, Bulk: true, splitEntries: 2})
		h, rng := newHistory(), rand.New(rand.NewPCG(1, 1))
		must(t, h.step(rng, s))
		must(t, s.Flush(context.Background()))
		must(t, h.step(rng, s))
		fs.SetHook(func(op crashfs.Op) error {
			if op.Kind == crashfs.Sync && strings.Contains(op.Path, file) || op.Kind == crashfs.SyncDir && op.Path == file {
				return syscall.EIO
			}
			return nil
		})
		if err := s.Flush(context.Background()); !errors.Is(err, fcp.Fatal) {
			t.Errorf("%s: flush: %v", file, err)
		}
		select {
		case err := <-faults:
			if !errors.Is(err, fcp.Fatal) {
				t.Errorf("%s: reported %v", file, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s: the fault was not reported", file)
		}
		fs.SetHook(nil)
		if err := s.Update(10, func(*Writer) error { return nil }); !errors.Is(err, fcp.Fatal) {
			t.Errorf("%s: update: %v", file, err)
		}
		if got := content(t, s, nil, nil); !maps.Equal(got, h.at[2]) {
			t.Errorf("%s: reads do not go on", file)
		}
		s.Close()
		checkImage(t, fs.CrashClone(), h, 1)
	}
}

func TestAFullDiskPasses(t *testing.T) {
	for name, o := range map[string]Options{
		"one table":  {FlushEntries: 20},
		"two tables": {FlushEntries: 20, Bulk: true, splitEntries: 2},
	} {
		t.Run(name, func(t *testing.T) { fullDiskPasses(t, o) })
	}
}

func fullDiskPasses(t *testing.T, o Options) {
	fs := crashfs.New()
	s := openTest(t, fs, o)
	h, rng := newHistory(), rand.New(rand.NewPCG(4, 4))
	must(t, h.step(rng, s))
	must(t, s.Flush(context.Background()))
	fs.SetSpace(fs.Used() + 4096)
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		err = h.step(rng, s)
	}
	if !errors.Is(err, fcp.CodeDiskFull) {
		t.Fatalf("updates on a full disk end with %v", err)
	}
	h.at = h.at[:len(h.at)-1] // the refused group
	if err := s.Flush(context.Background()); !errors.Is(err, fcp.CodeDiskFull) {
		t.Fatalf("flush on a full disk: %v", err)
	}
	last := h.model(uint64(len(h.at) - 1))
	if got := content(t, s, nil, nil); !maps.Equal(got, last) {
		t.Fatal("reads do not go on")
	}
	fs.SetSpace(-1)
	must(t, h.step(rng, s))
	must(t, s.Flush(context.Background()))
	must(t, s.Close())
	checkImage(t, fs.CrashClone(), h, uint64(len(h.at)-1))
}

func TestDamageIsReported(t *testing.T) {
	fs := crashfs.New()
	s := openTest(t, fs, Options{})
	h, rng := newHistory(), rand.New(rand.NewPCG(5, 5))
	for range 50 {
		must(t, h.step(rng, s))
	}
	must(t, s.Close())
	silent, stride := 0, int64(61)
	if testing.Short() {
		stride = 611
	}
	for _, f := range fs.Files() {
		if !strings.HasSuffix(f.Path, ".sst") {
			continue
		}
		for off := int64(0); off < f.Size; off += stride {
			image := fs.Crash(nil, crashfs.Options{Flips: []crashfs.Flip{{Path: f.Path, Offset: off, Bit: 3}}})
			var told atomic.Bool
			s, err := Open(image, "state", Options{OnFault: func(err error) { told.Store(errors.Is(err, fcp.Corrupt)) }})
			if err != nil {
				continue // refused
			}
			got := model{}
			err = s.Scan(nil, nil, func(k []byte, v Value) (bool, error) {
				got[string(k)] = pair{string(v.Canonical), string(v.Local)}
				return true, nil
			})
			if err == nil && !maps.Equal(got, h.model(s.Cursor())) {
				silent++
			}
			if err != nil && !(errors.Is(err, fcp.Corrupt) && told.Load()) {
				t.Errorf("offset %d: %v, reported: %v", off, err, told.Load())
			}
			s.Close()
		}
	}
	if silent > 0 {
		t.Fatalf("%d damaged images read as something else", silent)
	}
}
