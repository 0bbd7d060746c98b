package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"fcp/engine"
	"fcp/internal/malloc"
	"fcp/log"
)

// scaleEvents is the length of the long rows' logs and stores.
const scaleEvents = 5_000_000

// longRows are over scaleEvents events, most of a minute to make each.
func longRows() []Row {
	return []Row{
		{Name: "rss/log/scan/5M", Unit: "MiB", Lower: true, Long: true, Subjects: []Subject{rssSubject("scan",
			func(ctx context.Context, dir string) error {
				return fillLog(ctx, dir, logOptions(nil), scaleEvents, 256)
			})}},
		{Name: "rss/engine/serve/5M", Unit: "MiB", Lower: true, Long: true, Subjects: []Subject{rssSubject("serve",
			func(ctx context.Context, dir string) error { return fillEngine(ctx, dir, scaleEvents) })}},
		{Name: "replay/engine/rebuild/5M", Unit: "events/s", Long: true, Subjects: []Subject{cold(engineSubject(scaleEvents, rebuildSession))}},
		{Name: "open/engine/after-kill/5M", Unit: "ms", Lower: true, Long: true, Subjects: []Subject{openSubject(scaleEvents)}},
	}
}

// scaleEnv makes the program a child that scans or serves the store named by
// scaleDirEnv and prints its highest resident size in bytes.
const (
	scaleEnv    = "FCP_BENCH_SCALE"
	scaleDirEnv = scaleEnv + "_DIR"
)

// rssSubject is a row whose value is the highest resident size of a process that
// does nothing but scan or serve.
func rssSubject(what string, fill func(ctx context.Context, dir string) error) Subject {
	return Subject{Name: what, NoWarmUp: true,
		Setup: func(ctx context.Context, dirs Dirs) error { return fill(ctx, storeDir(dirs)) },
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			return sessionFunc(func(ctx context.Context, _ time.Duration) (Sample, error) {
				self, err := os.Executable()
				if err != nil {
					return Sample{}, err
				}
				cmd := exec.CommandContext(ctx, self)
				cmd.Env = append(os.Environ(), scaleEnv+"="+what, scaleDirEnv+"="+storeDir(dirs))
				cmd.Stderr = os.Stderr
				out, err := cmd.Output()
				if err != nil {
					return Sample{}, fmt.Errorf("the child that should %s: %w", what, err)
				}
				var peak int64
				err = json.Unmarshal(out, &peak)
				return Sample{Value: float64(peak) / (1 << 20), Ops: scaleEvents}, err
			}), nil
		}}
}

// scaleChild is the child's work.
func scaleChild(what, dir string, out io.Writer) error {
	ctx := context.Background()
	work := map[string]func(context.Context, string) error{"scan": scanOnce, "serve": serveForAWhile}[what]
	if work == nil {
		return fmt.Errorf("nothing is called %q", what)
	}
	if err := work(ctx, dir); err != nil {
		return err
	}
	kib, err := procField("/proc/self/status", "VmHWM:")
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(kib << 10)
}

// scanOnce reads the log with everything checked, on all processors.
func scanOnce(ctx context.Context, dir string) (err error) {
	l, err := log.Open(dir, logOptions(nil))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	_, _, err = scanAll(ctx, l, scaleEvents, log.ScanOptions{Verify: log.VerifyTree, Workers: runtime.GOMAXPROCS(0)})
	return err
}

// serveForAWhile looks names up and reads objects from all over the store, while
// others put.
func serveForAWhile(ctx context.Context, dir string) (err error) {
	malloc.Serving() // as fcpd does
	e, err := engine.Open(ctx, dir, engine.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	const gets, puts = 200_000, 200_000
	put := make(chan error, 1)
	go func() { put <- putMany(ctx, e, puts, 256) }()
	n := uint64(1)
	for range gets {
		n = n*48271%scaleEvents + 1
		entry, err := e.Stat(ctx, engine.DefaultZone, benchKeyOf(n), engine.At{})
		if err != nil {
			return errors.Join(err, <-put)
		}
		r, err := e.Get(ctx, engine.GetRequest{Object: entry.Head().Object})
		if err != nil {
			return errors.Join(err, <-put)
		}
		_, err = io.Copy(io.Discard, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return errors.Join(err, <-put)
		}
	}
	return <-put
}

// scalingRows are how much faster two processors replay than one. What the
// machine itself allows is measured in the same rounds: two goroutines that
// share nothing, hashing (the limit) or copying memory (the peer).
func scalingRows() []Row {
	var rows []Row
	for _, r := range logReplays {
		if r.scan.Workers > 1 {
			continue
		}
		limit := apart("sha-256 apart", func(b, _ []byte) { sha256.Sum256(b[:4096]) })
		two := r.scan
		two.Workers = 2
		rows = append(rows, Row{Name: "scaling/log/256B/" + r.name, Unit: "x", Limit: &limit,
			Peers: []Subject{apart("copy apart", func(b, to []byte) { copy(to, b) })},
			Subjects: []Subject{logSubject(r.sealed, func(ctx context.Context, l *log.Log) Session {
				rate := func(cores int, o log.ScanOptions) (float64, error) {
					defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
					start := time.Now()
					n, _, err := scanAll(ctx, l, replayEvents, o)
					return float64(n) / time.Since(start).Seconds(), err
				}
				return scaling(func() (float64, error) { return rate(1, r.scan) }, func() (float64, error) { return rate(2, two) })
			})}})
	}
	return rows
}

// scaling is a session over the ratio of two speeds, each the median of those
// measured in turn.
func scaling(one, two func() (float64, error)) Session {
	return sessionFunc(func(ctx context.Context, d time.Duration) (Sample, error) {
		var ones, twos []float64
		s, _, err := repeat(ctx, d, func() (int64, int64, error) {
			a, err := one()
			if err != nil {
				return 0, 0, err
			}
			b, err := two()
			ones, twos = append(ones, a), append(twos, b)
			return 2, 0, err
		})
		s.Value = median(twos) / max(median(ones), 1)
		return s, err
	})
}

// apart is how much faster two goroutines on buffers of their own are than one.
func apart(name string, work func(b, to []byte)) Subject {
	return Subject{Name: name, Open: func(context.Context, Dirs) (Session, error) {
		const size, slice = 32 << 20, 50 * time.Millisecond
		var from, to [2][]byte
		for i := range from {
			from[i], to[i] = randomBytes(uint64(i), size), randomBytes(uint64(i), size)
		}
		speed := func(n int) (float64, error) {
			var rates [2]float64
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					start, passes := time.Now(), 0
					for ; time.Since(start) < slice; passes++ {
						work(from[i], to[i])
					}
					rates[i] = float64(passes) / time.Since(start).Seconds()
				})
			}
			wg.Wait()
			return rates[0] + rates[1], nil
		}
		return scaling(func() (float64, error) { return speed(1) }, func() (float64, error) { return speed(2) }), nil
	}}
}

// overheadRows are the bytes of sealed ciphertext for each byte of payload.
func overheadRows() []Row {
	const events, size = 50_000, 1024
	ratio := func(l *log.Log) (Sample, error) {
		var sum int64
		err := l.Segments(func(s log.SegmentInfo) error {
			c, err := l.Ciphertext(s.No)
			sum += int64(len(c))
			return err
		})
		return Sample{Value: float64(sum) / (events * size), Ops: events, Bytes: events * size}, err
	}
	measured := func(run func(ctx context.Context, dir string) (Sample, error)) []Subject {
		return []Subject{{Name: "ciphertext", NoWarmUp: true, Open: func(_ context.Context, dirs Dirs) (Session, error) {
			return sessionFunc(func(ctx context.Context, _ time.Duration) (Sample, error) {
				return run(ctx, filepath.Join(dirs.Round, "store"))
			}), nil
		}}}
	}
	return []Row{
		{Name: "overhead/segment/opaque-1KiB", Unit: "x", Lower: true, Subjects: measured(func(ctx context.Context, dir string) (s Sample, err error) {
			seal, err := newBenchSeal()
			if err != nil {
				return s, err
			}
			if err := fillLog(ctx, dir, logOptions(seal), events, size); err != nil {
				return s, err
			}
			l, err := log.Open(dir, logOptions(seal))
			if err != nil {
				return s, err
			}
			s, err = ratio(l)
			return s, errors.Join(err, l.Close())
		})},
		{Name: "overhead/segment/object-1KiB", Unit: "x", Lower: true, Subjects: measured(func(ctx context.Context, dir string) (s Sample, err error) {
			e, err := newEngine(ctx, dir)
			if err != nil {
				return s, err
			}
			if err = putMany(ctx, e, events, size); err == nil {
				_, err = e.Log().Seal(ctx, log.SealOptions{All: true})
			}
			if err == nil {
				s, err = ratio(e.Log())
			}
			return s, errors.Join(err, e.Close())
		})},
	}
}
