package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Row is one line of the report.
type Row struct {
	Name string // unique, e.g. append/log/256B/w=256
	Unit string // of all its values
	// Lower says that a smaller value is better (times). The ratio is always
	// the share of the limit that was reached, so 1 is at the limit either way.
	Lower bool
	Long  bool // measured only when asked for with -long
	// Subjects are what the row is about: normally one; if several, they are
	// variants of one thing and the row reports the best of them.
	Subjects []Subject
	Limit    *Subject // nil where the row is itself a bare limit
	Peers    []Subject
}

// Subject is one thing that is measured: the product, a peer or a limit.
type Subject struct {
	Name string
	// Family joins variants of one peer: the report has the best of a family
	// under this name. Empty means Name.
	Family string
	// Setup, if there is one, builds in dirs.Row once per row, unmeasured, what
	// all rounds use. dirs.Round is empty.
	Setup func(ctx context.Context, dirs Dirs) error
	// Open makes a session, unmeasured, once per round.
	Open func(ctx context.Context, dirs Dirs) (Session, error)
	// NoWarmUp leaves out the short unmeasured run before each measured one.
	NoWarmUp bool
}

func (s Subject) family() string {
	if s.Family != "" {
		return s.Family
	}
	return s.Name
}

// Dirs are two empty directories of the subject's own: Row lasts for the row,
// Round for one measurement. The harness removes both.
type Dirs struct{ Row, Round string }

// Session is an opened subject.
type Session interface {
	// Run works for about d and says how fast it was. It is called twice (once
	// to warm up) unless the subject wants no warm-up.
	Run(ctx context.Context, d time.Duration) (Sample, error)
	Close() error
}

// Sample is one measurement.
type Sample struct {
	Value float64 // in the row's unit
	Ops   int64   // operations done
	// Bytes are the useful bytes of these operations, the base of write_amp; 0
	// if that says nothing here.
	Bytes    int64
	P50, P99 time.Duration // of one operation; 0 where not sampled

	used usage // filled in by the harness
}

// settings of a run.
type settings struct {
	dir    string        // an empty directory to work in
	device string        // number of the block device below it, see usage
	count  int           // rounds
	time   time.Duration // per measurement
	peers  bool          // measure peers beside the product
}

// result holds the samples of one subject, one per round.
type result struct {
	subject Subject
	samples []Sample
}

func (r *result) values() []float64 {
	v := make([]float64, len(r.samples))
	for i, s := range r.samples {
		v[i] = s.Value
	}
	return v
}

// measureRow measures everything a row names, interleaved: each round measures
// every subject, limit and peer once, and every other round goes backwards, so
// that slow drift of the machine falls on all of them alike and the pairwise
// ratios of a round compare neighbours in time.
func measureRow(ctx context.Context, row Row, set settings) (rec Record, err error) {
	dir, err := os.MkdirTemp(set.dir, "row-")
	if err != nil {
		return Record{}, fmt.Errorf("make the row's directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	all := slices.Clone(row.Subjects)
	if row.Limit != nil {
		all = append(all, *row.Limit)
	}
	if set.peers {
		all = append(all, row.Peers...)
	}
	results := make([]*result, len(all))
	for i, s := range all {
		results[i] = &result{subject: s}
		if err := setUp(ctx, s, rowDirs(dir, i)); err != nil {
			return Record{}, fmt.Errorf("set up %s: %w", s.Name, err)
		}
	}
	for round := range set.count {
		for k := range all {
			i := k
			if round%2 == 1 {
				i = len(all) - 1 - k
			}
			sample, err := measureOnce(ctx, all[i], rowDirs(dir, i), set)
			if err != nil {
				return Record{}, fmt.Errorf("measure %s: %w", all[i].Name, err)
			}
			results[i].samples = append(results[i].samples, sample)
		}
	}
	n := len(row.Subjects)
	if row.Limit == nil {
		return newRecord(row, results[:n], nil, results[n:]), nil
	}
	return newRecord(row, results[:n], results[n], results[n+1:]), nil
}

func rowDirs(dir string, i int) Dirs {
	return Dirs{Row: filepath.Join(dir, fmt.Sprintf("subject-%d", i))}
}

func setUp(ctx context.Context, s Subject, dirs Dirs) error {
	if err := os.Mkdir(dirs.Row, 0o700); err != nil {
		return err
	}
	if s.Setup == nil {
		return nil
	}
	return s.Setup(ctx, dirs)
}

// measureOnce opens, warms up, measures and closes one subject.
func measureOnce(ctx context.Context, s Subject, dirs Dirs, set settings) (sample Sample, err error) {
	if err := ctx.Err(); err != nil {
		return Sample{}, err
	}
	dirs.Round = dirs.Row + "-round"
	if err := os.Mkdir(dirs.Round, 0o700); err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dirs.Round)) }()
	session, err := s.Open(ctx, dirs)
	if err != nil {
		return Sample{}, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()

	if err := settle(dirs.Row); err != nil {
		return Sample{}, err
	}
	if !s.NoWarmUp {
		if _, err := session.Run(ctx, set.time/4); err != nil {
			return Sample{}, fmt.Errorf("warm up: %w", err)
		}
	}
	before, err := startUsage(set.device)
	if err != nil {
		return Sample{}, err
	}
	sample, err = session.Run(ctx, set.time)
	if err != nil {
		return Sample{}, err
	}
	sample.used, err = before.since(set.device)
	return sample, err
}

// settle collects garbage and writes out what is dirty on the file system, so
// that neither the subject before nor the removal of its files is paid for by
// the next one.
func settle(dir string) error {
	runtime.GC()
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("settle the file system: %w", err)
	}
	return nil
}

// sessionFunc is a Session that has nothing to close.
type sessionFunc func(ctx context.Context, d time.Duration) (Sample, error)

func (f sessionFunc) Run(ctx context.Context, d time.Duration) (Sample, error) { return f(ctx, d) }
func (f sessionFunc) Close() error                                             { return nil }

// repeat calls pass, which does ops operations on bytes bytes, at least once
// and until d is over.
func repeat(ctx context.Context, d time.Duration, pass func() (ops, bytes int64, err error)) (Sample, time.Duration, error) {
	var s Sample
	start := time.Now()
	for {
		ops, bytes, err := pass()
		if err != nil {
			return s, 0, err
		}
		s.Ops += ops
		s.Bytes += bytes
		elapsed := time.Since(start)
		if elapsed >= d {
			return s, elapsed, nil
		}
		if err := ctx.Err(); err != nil {
			return s, 0, err
		}
	}
}

// perSecond is a session for rows in operations per second, such as replay.
func perSecond(pass func() (ops, bytes int64, err error)) Session {
	return sessionFunc(func(ctx context.Context, d time.Duration) (Sample, error) {
		s, elapsed, err := repeat(ctx, d, pass)
		s.Value = float64(s.Ops) / elapsed.Seconds()
		return s, err
	})
}

// megabytes is a session for rows in MB/s (10^6 bytes), such as seal.
func megabytes(pass func() (ops, bytes int64, err error)) Session {
	return sessionFunc(func(ctx context.Context, d time.Duration) (Sample, error) {
		s, elapsed, err := repeat(ctx, d, pass)
		s.Value = float64(s.Bytes) / 1e6 / elapsed.Seconds()
		return s, err
	})
}

// milliseconds is a session for rows whose value is the time of one pass, such
// as open. What pass returns as its duration counts, so that it can leave out
// its own preparation; the value is the median over the passes of the run.
func milliseconds(pass func() (time.Duration, error)) Session {
	return sessionFunc(func(ctx context.Context, d time.Duration) (Sample, error) {
		var took []float64
		s, _, err := repeat(ctx, d, func() (int64, int64, error) {
			t, err := pass()
			took = append(took, float64(t)/float64(time.Millisecond))
			return 1, 0, err
		})
		if err != nil {
			return s, err
		}
		s.Value = median(took)
		return s, nil
	})
}
