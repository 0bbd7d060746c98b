package log

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"
)

// model is what a store must still hold after a crash: every event that was
// acknowledged. Bodies start with a number of their own, so that an event that
// nobody wrote is noticed.
type model struct {
	mu     sync.Mutex
	acked  []Placed
	issued atomic.Uint64
}

func (m *model) ack(events []Placed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acked = append(m.acked, events...)
}

func (m *model) snapshot() []Placed {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acked[:len(m.acked):len(m.acked)]
}

// drafts makes drafts of random shape for one zone.
func (m *model) drafts(rng *rand.Rand) []Draft {
	zone := testZones[rng.IntN(2)]
	ds := make([]Draft, 1+rng.IntN(3))
	for i := range ds {
		size := 8 + rng.IntN(400)
		if rng.IntN(40) == 0 {
			size = 40 << 10
		}
		d := Draft{Zone: zone, Plane: fcp.Plane(1 + rng.IntN(3)), Content: opaque(size, byte(i))}
		binary.BigEndian.PutUint64(d.Content.Body, m.issued.Add(1))
		if rng.IntN(3) == 0 {
			d.Salt[0] = 1
		}
		ds[i] = d
	}
	return ds
}

// cutImage is a power cut: what the medium held, and what was acknowledged before.
type cutImage struct {
	fs     *crashfs.FS
	acked  []Placed
	issued uint64
	at     string
}

var crashDamages = []crashfs.Options{
	{},
	{Keep: 1, KeepEntries: 1},
	crashfs.Harsh(),
	{Keep: 0.9, Tear: 1, Sector: 512, Stale: true, KeepEntries: 0.5},
}

// crashRun fills a store with several writers and takes images of power cuts.
func crashRun(seed uint64, disk *crashfs.FS, m *model, o Options, want int) ([]cutImage, error) {
	rng := rand.New(rand.NewPCG(seed, 11))
	var mu sync.Mutex
	var images []cutImage
	next := 1 + rng.IntN(6)
	issued := func() uint64 { return m.issued.Load() }
	disk.SetHook(func(op crashfs.Op) error {
		if !op.Kind.Mutating() {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if next--; next > 0 || len(images) >= want {
			return nil
		}
		next = 1 + rng.IntN(8)
		acked := m.snapshot() // before the image: what came before is in it
		image := disk.Crash(rng, crashDamages[rng.IntN(len(crashDamages))])
		images = append(images, cutImage{image, acked, issued(), fmt.Sprintf("%s %s", op.Kind, op.Path)})
		return nil
	})
	defer disk.SetHook(nil)
	l, err := openOn(disk, o)
	if err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for w := range 3 {
		wrng := rand.New(rand.NewPCG(seed, uint64(100+w)))
		wg.Go(func() {
			for range 14 {
				r, err := l.Append(context.Background(), m.drafts(wrng))
				if err != nil {
					errs <- err
					return
				}
				m.ack(r.Events)
				if w == 0 && wrng.IntN(8) == 0 {
					if _, err := l.Seal(context.Background(), SealOptions{All: true}); err != nil {
						errs <- err
						return
					}
				}
			}
		})
	}
	wg.Go(func() {
		src := newForeign(byte(seed), fcp.ZoneWork, fcp.PlaneData)
		src.feed.Incarnation = seed + 1
		for range 3 {
			events := src.take(1 + rand.New(rand.NewPCG(seed, src.seq)).IntN(4))
			if _, err := l.Import(context.Background(), events, nil); err != nil {
				errs <- err
				return
			}
			no, _ := l.FeedNo(src.feed)
			for i := range events {
				m.ack([]Placed{{Feed: no, Seq: events[i].Seq, Time: events[i].Time, Hash: events[i].Hash()}})
			}
		}
	})
	wg.Wait()
	close(errs)
	return images, errors.Join(<-errs, l.Close())
}

// scanned is everything a store holds, by position.
func scanned(l *Log, workers int) ([]Applied, error) {
	var out []Applied
	err := l.Scan(context.Background(), ScanOptions{Verify: VerifyTree, Workers: workers}, func(events []Applied) error {
		for _, e := range events {
			if e.Position != uint64(len(out)+1) {
				return fmt.Errorf("position %d follows %d", e.Position, len(out))
			}
			e.Content.Body = append([]byte(nil), e.Content.Body[:min(8, len(e.Content.Body))]...)
			out = append(out, e)
		}
		return nil
	})
	return out, err
}

// checkImage opens what a power cut left and compares it with the model. It
// leaves the store closed cleanly, with more events in it.
func checkImage(img *cutImage, o Options, verify bool) error {
	if !verify {
	} else if r, err := Verify(context.Background(), "store", VerifyOptions{FS: img.fs, Sealer: o.Sealer}); err != nil {
		if !errors.Is(err, fcp.CodeNoStore) || len(img.acked) > 0 {
			return fmt.Errorf("verify: %w", err)
		}
	} else if !r.Clean && !(len(img.acked) == 0 && r.Durable == 0) {
		return fmt.Errorf("verify finds %v", r.Findings)
	}
	l, err := openOn(img.fs, o)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	err = checkRecovered(l, img)
	if e := l.Close(); err == nil && e != nil {
		err = fmt.Errorf("close: %w", e)
	}
	return err
}

func checkRecovered(l *Log, img *cutImage) error {
	if err := l.Doubt(); err != nil {
		return err
	}
	states := map[FeedNo]FeedState{} // the sealer may append while we look
	for _, s := range l.Feeds() {
		states[s.No] = s
	}
	all, err := scanned(l, 1)
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	type place struct {
		no  FeedNo
		seq uint64
	}
	heads := map[FeedNo]*head{}
	bySeq := map[place]*Applied{}
	seen := map[uint64]bool{}
	for i := range all {
		e := &all[i]
		h := heads[e.Feed]
		if h == nil {
			h = &head{}
			heads[e.Feed] = h
		}
		if e.Seq != h.seq+1 || e.Time <= h.time {
			return fmt.Errorf("feed %d goes from event %d to %d", e.Feed, h.seq, e.Seq)
		}
		h.seq, h.hash, h.time = e.Seq, e.Hash, e.Time
		h.tree.append(e.Hash, nil)
		bySeq[place{e.Feed, e.Seq}] = e
		if s := states[e.Feed]; e.Seq == s.Seq && (s.Hash != h.hash || s.Time != h.time ||
			s.Feed.Plane.Chained() && s.Root != h.tree.root()) {
			return fmt.Errorf("feed %d recovered with head %+v, its events say %+v", s.No, s, h)
		}
		if img.issued > 0 && e.Content.Kind == fcp.KindOpaque && len(e.Content.Body) == 8 && l.Feed(e.Feed).Writer == testWriter() {
			id := binary.BigEndian.Uint64(e.Content.Body)
			if seen[id] || id == 0 {
				return fmt.Errorf("event %d is there twice", id)
			}
			seen[id] = true
		}
	}
	for _, a := range img.acked {
		e := bySeq[place{a.Feed, a.Seq}]
		if e == nil || e.Hash != a.Hash || a.Time != 0 && e.Time != a.Time || a.Position != 0 && e.Position != a.Position {
			return fmt.Errorf("event %d of feed %d was acknowledged at %d and is now %v", a.Seq, a.Feed, a.Position, e)
		}
	}
	for no, s := range states {
		if h := heads[no]; h == nil || h.seq < s.Seq {
			return fmt.Errorf("feed %d recovered to event %d, its events say %+v", no, s.Seq, h)
		}
	}
	// It must go on without using a sequence number or a position twice.
	for i := range 2 {
		d := Draft{Zone: fcp.ZonePrivate, Plane: fcp.Plane(1 + i), Content: opaque(20+i, 3)}
		before := uint64(0)
		if no, ok := l.FeedNo(fcp.Feed{Zone: d.Zone, Writer: testWriter(), Incarnation: l.Incarnation(), Plane: d.Plane}); ok && heads[no] != nil {
			before = heads[no].seq
		}
		durable := l.Durable()
		binary.BigEndian.PutUint64(d.Content.Body, 1<<40+durable)
		r, err := l.Append(context.Background(), []Draft{d})
		if err != nil {
			return fmt.Errorf("going on: %w", err)
		}
		p := r.Events[0]
		if p.Seq <= before || p.Position <= durable {
			return fmt.Errorf("event %d at %d was given out again", p.Seq, p.Position)
		}
	}
	return nil
}

func crashOptions() Options {
	o := sealing(small(), 3<<10)
	o.MarkInterval = time.Millisecond
	return o
}

// TestCrashClones: whatever the power cut does to what was not synced, nothing
// acknowledged is lost, and the store goes on.
func TestCrashClones(t *testing.T) {
	const perRun = 60
	runs := torture(60)
	start := time.Now()
	var clones, acked, sealed atomic.Int64
	var wg sync.WaitGroup
	work := make(chan uint64, runs)
	for seed := range uint64(runs) {
		work <- seed
	}
	close(work)
	for range 2 {
		wg.Go(func() {
			var disk *crashfs.FS
			var m *model
			for seed := range work {
				if t.Failed() {
					return
				}
				if disk == nil || seed%4 < 2 {
					disk, m = crashfs.New(), &model{}
				}
				images, err := crashRun(seed, disk, m, crashOptions(), perRun)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
					return
				}
				for i := range images {
					keep := images[i].fs.CrashClone()
					if err := checkImage(&images[i], crashOptions(), i%4 == 0); err != nil {
						saveImage(t, keep)
						t.Errorf("seed %d, image %d at %s: %v", seed, i, images[i].at, err)
						return
					}
					acked.Add(int64(len(images[i].acked)))
				}
				clones.Add(int64(len(images)))
				// The next generation goes on from a store that was cut and
				// recovered.
				if n := len(images); n > 0 {
					last := &images[n-1]
					disk, m = last.fs, &model{}
					m.issued.Store(last.issued + 1<<20)
					l, err := openOn(disk, crashOptions())
					if err != nil {
						t.Error(err)
						return
					}
					all, err := scanned(l, 2)
					for i := range all {
						m.acked = append(m.acked, all[i].Placed)
					}
					for _, f := range l.Feeds() {
						sealed.Add(int64(f.Sealed))
					}
					if err = errors.Join(err, l.Close()); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if n := clones.Load(); n < int64(runs*perRun/2) || acked.Load() < 10*n || sealed.Load() == 0 {
		t.Errorf("too tame: %d clones with %d acknowledged events, sealed to %d", n, acked.Load(), sealed.Load())
	}
	d := time.Since(start)
	t.Logf("%d clones in %s: %.0f/s; %d acknowledged events compared", clones.Load(), d.Round(time.Millisecond),
		float64(clones.Load())/d.Seconds(), acked.Load())
}
