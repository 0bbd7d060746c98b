package engine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"
)

// TestAcknowledgedWritesSurviveAnyCrash cuts the power at random points of a busy
// store, opens what the disk would hold, and looks for everything that was
// acknowledged before the cut. The state must equal a replay of the log.
func TestAcknowledgedWritesSurviveAnyCrash(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	for seed := range uint64(rounds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { crashRound(t, seed) })
	}
}

// acknowledged is what the writers know to be durable.
type acknowledged struct {
	mu   sync.Mutex
	last map[string]uint64 // key -> highest generation acknowledged
	tags map[string]PutResult
}

func (a *acknowledged) snapshot() (map[string]uint64, map[string]PutResult) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last, tags := map[string]uint64{}, map[string]PutResult{}
	for k, v := range a.last {
		last[k] = v
	}
	for k, v := range a.tags {
		tags[k] = v
	}
	return last, tags
}

func crashRound(t *testing.T, seed uint64) {
	files := crashfs.New()
	env, _ := testEnv(files, seed)
	s := &testStore{t: t, dir: "/store", env: env, opts: Options{FlushEvents: 40, SegmentTarget: 32 << 10, MarkInterval: time.Millisecond}}
	if _, err := Init(context.Background(), s.dir, InitOptions{Environment: env}); err != nil {
		t.Fatal(err)
	}
	s.open()
	a := &acknowledged{last: map[string]uint64{}, tags: map[string]PutResult{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() { crashWriter(ctx, t, s, a, w) })
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 3 {
		time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
		last, tags := a.snapshot() // before the cut: all of this was acknowledged
		image := files.Crash(rng, crashfs.Harsh())
		checkImage(t, env, image, last, tags)
	}
	cancel()
	wg.Wait()
	if err := s.Engine.Close(); err != nil {
		t.Fatal(err)
	}
}

func crashWriter(ctx context.Context, t *testing.T, s *testStore, a *acknowledged, w int) {
	for i := 0; ctx.Err() == nil; i++ {
		req := PutRequest{Key: fmt.Sprintf("%d/%d", w, i%17), Bytes: fmt.Appendf(nil, "%d", i)}
		if i%11 == 0 {
			req.Bytes = make([]byte, 3000)
		}
		if i%7 == 0 {
			req.Idempotency = fmt.Sprintf("%d.%d", w, i)
		}
		r, err := s.Put(ctx, req)
		if err != nil {
			if ctx.Err() == nil {
				t.Error(err)
			}
			return
		}
		a.mu.Lock()
		a.last[req.Key] = r.Generation
		if req.Idempotency != "" {
			a.tags[req.Idempotency] = r
		}
		a.mu.Unlock()
	}
}

func checkImage(t *testing.T, env Environment, image *crashfs.FS, last map[string]uint64, tags map[string]PutResult) {
	t.Helper()
	env.FS = image
	e, err := Open(context.Background(), "/store", Options{Environment: env})
	if err != nil {
		t.Fatal("open after the crash:", err)
	}
	defer e.Close()
	if err := e.Log().Doubt(); err != nil {
		t.Fatal(err)
	}
	for key, generation := range last {
		entry, err := e.Stat(context.Background(), "", key, At{})
		if err != nil || entry.Siblings() != 0 || entry.Head().Generation < generation {
			t.Fatalf("%s: acknowledged generation %d: %+v %v", key, generation, entry, err)
		}
		r, err := e.Get(context.Background(), GetRequest{Key: key})
		if err != nil || r.Info().Size == 0 {
			t.Fatalf("%s: %v", key, err)
		}
	}
	for tag, first := range tags {
		key := ""
		var w, i int
		if _, err := fmt.Sscanf(tag, "%d.%d", &w, &i); err == nil {
			key = fmt.Sprintf("%d/%d", w, i%17)
		} else {
			t.Fatal(tag, err)
		}
		r, err := e.Put(context.Background(), PutRequest{Key: key, Bytes: []byte("again"), Idempotency: tag})
		if err != nil || !r.Duplicate || r.Hash != first.Hash {
			t.Fatalf("tag %s: %+v %v, first %+v", tag, r, err, first)
		}
	}
	if _, err := e.Replay(context.Background(), ReplayOptions{Verify: true}); err != nil {
		t.Fatal(err)
	}
}

// TestAnInitThatStopsAnywhereCanBeRepeated takes the image of a power cut at many
// moments of an Init. The directory is then either a whole store or can be made
// one.
func TestAnInitThatStopsAnywhereCanBeRepeated(t *testing.T) {
	files := crashfs.New()
	env, _ := testEnv(files, 5)
	var mu sync.Mutex
	var images []*crashfs.FS
	rng := rand.New(rand.NewPCG(5, 2))
	files.SetHook(func(op crashfs.Op) error {
		if op.Mutation%9 == 1 {
			mu.Lock()
			defer mu.Unlock()
			images = append(images, files.Crash(rng, crashfs.Harsh()))
		}
		return nil
	})
	if _, err := Init(context.Background(), "/store", InitOptions{Environment: env}); err != nil {
		t.Fatal(err)
	}
	files.SetHook(nil)
	again := 0
	for n, image := range images {
		env.FS = image
		_, err := Init(context.Background(), "/store", InitOptions{Environment: env})
		if err == nil {
			again++
		} else if !errors.Is(err, fcp.CodeStoreExists) {
			t.Fatalf("init on image %d: %v", n, err)
		}
		e, err := Open(context.Background(), "/store", Options{Environment: env})
		if err != nil {
			t.Fatalf("open of image %d: %v", n, err)
		}
		if len(e.Zones()) != 5 || e.Status().Device != "node" {
			t.Fatalf("image %d: %+v", n, e.Status())
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if again == 0 {
		t.Fatal("no image was taken before the end of Init")
	}
}
