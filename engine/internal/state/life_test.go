package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"

	"github.com/cockroachdb/pebble/v2/vfs"
)

func put(t testing.TB, s *Store, position uint64, keys ...string) {
	t.Helper()
	must(t, s.Update(position, func(w *Writer) error {
		for _, k := range keys {
			if err := w.Set([]byte(k), []byte(k), nil); err != nil {
				return err
			}
		}
		return nil
	}))
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

// The filter of a reopened store is made once enough lookups have missed, while
// flushes go on, and never hides a key.
func TestTheFilterComesBackAfterReopening(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, Options{})
	if !s.Metrics().FilterReady {
		t.Fatal("an empty store has no filter")
	}
	const n = 30_000
	for i := range n / 100 {
		var keys []string
		for j := range 100 {
			keys = append(keys, fmt.Sprintf("key %d", i*100+j))
		}
		put(t, s, uint64(i+1), keys...)
	}
	must(t, s.Close())
	s = openTest(t, fs, Options{})
	defer s.Close()
	if s.Metrics().FilterReady {
		t.Fatal("the filter is ready before it was made")
	}
	for i := 0; !s.Metrics().FilterReady; i++ {
		if _, ok, err := s.Get(nil, fmt.Appendf(nil, "absent %d", i)); ok || err != nil {
			t.Fatal(ok, err)
		}
		if i%500 == 499 {
			put(t, s, uint64(1000+i), fmt.Sprintf("late %d", i))
			must(t, s.Flush(context.Background()))
			if _, ok, err := s.Get(nil, fmt.Appendf(nil, "late %d", i)); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		if i > 10_000_000 {
			t.Fatal("the filter never comes")
		}
	}
	for i := range n {
		if _, ok, err := s.Get(nil, fmt.Appendf(nil, "key %d", i)); !ok || err != nil {
			t.Fatalf("key %d: %v %v", i, ok, err)
		}
	}
	before := s.Metrics()
	for i := range 10_000 {
		if _, ok, err := s.Get(nil, fmt.Appendf(nil, "never %d", i)); ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	after := s.Metrics()
	if through := after.TableReads - before.TableReads; through > 300 {
		t.Fatalf("%d of 10,000 absent keys went to the tables", through)
	}
}

func TestFilterTiersGrowAndKeepEveryHash(t *testing.T) {
	var f filter
	f.ready.Store(true)
	n, wantTiers := 3*firstTier, 3
	if testing.Short() {
		n, wantTiers = firstTier+firstTier/8, 2
	}
	hash := func(i uint64) uint64 { return mix(i + 1) }
	var batch []uint64
	for i := range uint64(n) {
		if batch = append(batch, hash(i)); len(batch) == 1<<16 {
			f.add(batch)
			batch = batch[:0]
		}
	}
	f.add(batch)
	for i := range uint64(n) {
		if f.absent(hash(i)) {
			t.Fatalf("hash %d is lost", i)
		}
	}
	wrong := 0
	for i := range uint64(100_000) {
		if !f.absent(hash(1e9 + i)) {
			wrong++
		}
	}
	if tiers := len(*f.tiers.Load()); tiers != wantTiers || wrong > 3000 {
		t.Fatalf("%d tiers, %d of 100,000 absent hashes pass", tiers, wrong)
	}
}

func TestCompactionsWaitInBulkMode(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Options{})
	defer s.Close()
	s.BulkMode(true)
	rng := rand.New(rand.NewPCG(1, 1))
	m := model{}
	for i := range 3 * l0Tables {
		var keys []string
		for range 50 {
			k := fmt.Sprintf("key %d", rng.IntN(500))
			keys = append(keys, k)
			m[k] = pair{k, ""}
		}
		put(t, s, uint64(i+1), keys...)
		must(t, s.Flush(context.Background()))
	}
	if r := s.Metrics().ReadAmp; r != 3*l0Tables {
		t.Fatalf("%d tables deep in bulk mode, want %d", r, 3*l0Tables)
	}
	s.BulkMode(false)
	eventually(t, "compacted", func() bool { return s.Metrics().ReadAmp < l0Tables })
	if !maps.Equal(content(t, s, nil, nil), m) {
		t.Fatal("content differs")
	}
}

// A marker set before Clear is on disk when the keys are gone.
func TestClearIsDurableAndComesAfterTheMarker(t *testing.T) {
	for seed := range uint64(30) {
		fs := crashfs.New()
		s := openTest(t, fs, Options{})
		put(t, s, 1, "a/1", "a/2", "b/1", "c/1")
		must(t, s.Flush(context.Background()))
		put(t, s, 2, "b/2", "marker")
		var images []*crashfs.FS
		var mu sync.Mutex
		rng := rand.New(rand.NewPCG(seed, 1))
		fs.SetHook(func(op crashfs.Op) error {
			mu.Lock()
			defer mu.Unlock()
			if op.Kind.Mutating() {
				images = append(images, fs.Crash(rng, crashfs.Harsh()))
			}
			return nil
		})
		must(t, s.Clear(context.Background(), []byte("b"), []byte("c")))
		fs.SetHook(nil)
		images = append(images, fs.CrashClone())
		must(t, s.Close())
		for i, image := range images {
			s := openTest(t, image, Options{})
			got := content(t, s, nil, nil)
			_, marker := got["marker"]
			_, kept := got["b/1"]
			if !marker && !kept || i == len(images)-1 && (kept || len(got) != 4) {
				t.Fatalf("image %d holds %q", i, got)
			}
			must(t, s.Close())
		}
	}
}

func TestClearForgetsDigestsAndKeepsTheRest(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Options{})
	defer s.Close()
	put(t, s, 1, "a", "b", "c")
	before, err := s.Digest()
	must(t, err)
	must(t, s.Clear(context.Background(), []byte("b"), []byte("c")))
	put(t, s, 1, "d") // a projection folded again writes at old positions
	got, err := s.Digest()
	must(t, err)
	if want := content(t, s, nil, nil).freshDigest(t, Options{}, nil, nil); got != want || got == before {
		t.Fatal("the digest does not follow")
	}
	put(t, s, 2, "b")
	must(t, s.Update(2, func(w *Writer) error { return w.Delete([]byte("d")) }))
	if got, err = s.Digest(); err != nil || got != before {
		t.Fatal("the same content has another digest", err)
	}
}

// Known digests: a change here is a change of the format.
func TestDigestVectors(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Options{})
	defer s.Close()
	for _, c := range []struct {
		keys []string
		want string
	}{
		// sha256("fcp state range v1" 00)
		{nil, "aae5ad4ad718f92a26bfc5f3dd1599c273c26a42b1fb7852838f5452a4a6f324"},
		// sha256("fcp state range v1" 00 | sha256("fcp state bucket v1" 00 | 00000001 "a" 00000001 "a"))
		{[]string{"a"}, "fb2fe73699d410ac675b968bb848798d3558a82ca720ba64941e1141e17a1f11"},
	} {
		if len(c.keys) > 0 {
			put(t, s, 1, c.keys...)
		}
		got, err := s.Digest()
		must(t, err)
		if got.String() != c.want {
			t.Errorf("digest of %q is %v, want %v", c.keys, got, c.want)
		}
	}
}

func TestCloseWaitsForReaders(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, Options{})
	for i := range 100 {
		put(t, s, uint64(i+1), fmt.Sprintf("key %d", i))
	}
	must(t, s.Close())
	s = openTest(t, fs, Options{}) // no filter: lookups go to the tables
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				err := s.Scan(nil, nil, func(k []byte, _ Value) (bool, error) {
					_, _, err := s.Get(nil, k) // from inside a scan
					return true, err
				})
				if err == nil {
					_, err = s.Digest()
				}
				if errors.Is(err, fcp.CodeClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	s.Warm()
	time.Sleep(5 * time.Millisecond)
	must(t, s.Close())
	wg.Wait()
}

func TestFlushEndsWithItsContext(t *testing.T) {
	fs := crashfs.New()
	s := openTest(t, fs, Options{})
	put(t, s, 1, "a")
	held := make(chan struct{})
	fs.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Sync {
			<-held
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := s.Flush(ctx); !errors.Is(err, fcp.CodeInterrupted) {
		t.Fatal(err)
	}
	close(held)
	must(t, s.Flush(context.Background()))
	must(t, s.Close())
}

func TestASecondOpenIsRefused(t *testing.T) {
	fs := crashfs.New()
	s := openTest(t, fs, Options{})
	defer s.Close()
	if _, err := Open(fs, "state", Options{}); !errors.Is(err, fcp.CodeLocked) {
		t.Fatal(err)
	}
}

// Overlays that leave the view while a digest is computed are walked later, or,
// when they are too many, everything is computed anew.
func TestFlushesDuringALongDigestAreNotMissed(t *testing.T) {
	for _, flushes := range []int{2, maxAside, maxAside + 3} {
		s := openTest(t, vfs.NewMem(), Options{})
		put(t, s, 1, "a", "b", "c", "d")
		_, err := s.Digest()
		must(t, err)
		s.digests.mu.Lock() // as a digest does while it computes
		for i := range flushes {
			put(t, s, uint64(i+2), fmt.Sprintf("b%d", i))
			must(t, s.Flush(context.Background()))
		}
		s.digests.mu.Unlock()
		put(t, s, 100, "e")
		got, err := s.Digest()
		must(t, err)
		if want := content(t, s, nil, nil).freshDigest(t, Options{}, nil, nil); got != want {
			t.Errorf("%d flushes: the digest misses some", flushes)
		}
		must(t, s.Close())
	}
}
