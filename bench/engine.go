package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"fcp/authority"
	"fcp/engine"
)

// engineTarget is the whole store: one event is a put of a new name with an
// inline body, sealing on, every projection readable when the put returns.
func engineTarget() Target {
	return Target{
		Name:       "engine",
		EventBytes: putBytes,
		Open: func(ctx context.Context, dir string, _ Workload) (Appender, error) {
			e, err := newEngine(ctx, filepath.Join(dir, "store"))
			if err != nil {
				return nil, err
			}
			return &engineAppender{engine: e}, nil
		},
	}
}

func newEngine(ctx context.Context, dir string) (*engine.Engine, error) {
	owner, err := authority.OwnerKeyFromEntropy(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	if _, err := engine.Init(ctx, dir, engine.InitOptions{Owner: owner}); err != nil {
		return nil, err
	}
	return engine.Open(ctx, dir, engine.Options{})
}

// benchKeyOf is the name of put n: new for each, in no useful order.
func benchKeyOf(n uint64) string { return fmt.Sprintf("bench/%016x", n*0x9e3779b97f4a7c15) }

// putBytes is the encoded size of a put with an inline body, read back from a store.
func putBytes(payload int) (n int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "fcp-bench-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	e, err := newEngine(ctx, filepath.Join(dir, "store"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	r, err := e.Put(ctx, engine.PutRequest{Key: benchKeyOf(1), Bytes: make([]byte, payload)})
	if err != nil {
		return 0, err
	}
	ev, _, err := e.Log().Read(r.Feed, r.Seq)
	if err != nil {
		return 0, err
	}
	return len(ev.Content.AppendTo(nil)), nil
}

type engineAppender struct {
	engine *engine.Engine
	next   atomic.Uint64
}

func (a *engineAppender) Append(ctx context.Context, _ int, payload []byte) error {
	_, err := a.engine.Put(ctx, engine.PutRequest{Key: benchKeyOf(a.next.Add(1)), Bytes: payload})
	return err
}

func (a *engineAppender) Close() error { return a.engine.Close() }

// engineEvents is the size of the store that the rows below read.
const engineEvents = 1_000_000

// fillEngine puts n new names with 256-byte bodies.
func fillEngine(ctx context.Context, dir string, n int) (err error) {
	e, err := newEngine(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	return putMany(ctx, e, n, 256)
}

// putMany puts n names with bodies of size bytes from 256 writers.
func putMany(ctx context.Context, e *engine.Engine, n, size int) error {
	return putOver(ctx, e, n, size, n)
}

// putOver puts n versions of fewer names, one name after the other, round and round.
func putOver(ctx context.Context, e *engine.Engine, n, size, names int) error {
	var next atomic.Int64
	errs := make(chan error, 256)
	for range cap(errs) {
		go func() {
			body := randomBytes(1, size)
			for {
				i := next.Add(1)
				if i > int64(n) {
					errs <- nil
					return
				}
				if _, err := e.Put(ctx, engine.PutRequest{Key: benchKeyOf(uint64((i-1)%int64(names)) + 1), Bytes: body}); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	var err error
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	return err
}

func storeDir(dirs Dirs) string { return filepath.Join(dirs.Row, "store") }

// engineSubject is a row over a store of n puts.
func engineSubject(n int, session func(context.Context, *engine.Engine) Session) Subject {
	return Subject{Name: "engine",
		Setup: func(ctx context.Context, dirs Dirs) error { return fillEngine(ctx, storeDir(dirs), n) },
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			e, err := engine.Open(ctx, storeDir(dirs), engine.Options{})
			if err != nil {
				return nil, err
			}
			return closingEngine{e, session(ctx, e)}, nil
		}}
}

type closingEngine struct {
	e *engine.Engine
	Session
}

func (c closingEngine) Close() error { return errors.Join(c.Session.Close(), c.e.Close()) }

// engineRows measure what the state costs: rebuild, roots, look-ups, open.
func engineRows() ([]Row, error) {
	size, err := putBytes(256)
	if err != nil {
		return nil, err
	}
	read := readLimit(int64(engineEvents)*int64(size), engineEvents)
	memory := scanLimit(engineEvents*160, 2*engineEvents)
	point := scanLimit(4<<10, 1)
	return []Row{
		{Name: "replay/engine/rebuild", Unit: "events/s", Limit: &read, Subjects: []Subject{engineSubject(engineEvents, rebuildSession)}},
		{Name: "replay/engine/rebuild-roots", Unit: "events/s", Limit: &read, Subjects: []Subject{engineSubject(engineEvents, rootedRebuildSession)}},
		{Name: "state-root/engine/cold", Unit: "entries/s", Limit: &memory, Subjects: []Subject{cold(engineSubject(engineEvents, rootSession))}},
		{Name: "get/engine/head", Unit: "gets/s", Limit: &point, Subjects: []Subject{engineSubject(engineEvents, headSession)}},
		{Name: "get/engine/object-by-id", Unit: "gets/s", Limit: &point, Subjects: []Subject{engineSubject(engineEvents, objectSession)}},
		{Name: "get/engine/at", Unit: "gets/s", Limit: &point, Subjects: []Subject{engineSubject(engineEvents, atSession)}},
		{Name: "open/engine/after-kill", Unit: "ms", Lower: true, Limit: nil, Subjects: []Subject{openSubject(engineEvents)}},
	}, nil
}

func cold(s Subject) Subject {
	s.NoWarmUp = true
	return s
}

// rebuildSession folds the whole log into an empty state until it is durable.
func rebuildSession(ctx context.Context, e *engine.Engine) Session {
	return replaySession(ctx, e, func(r engine.ReplayReport) time.Duration { return r.Rebuilt })
}

// rootedRebuildSession computes the roots of the new state besides.
func rootedRebuildSession(ctx context.Context, e *engine.Engine) Session {
	return replaySession(ctx, e, func(r engine.ReplayReport) time.Duration { return r.Elapsed })
}

func replaySession(ctx context.Context, e *engine.Engine, took func(engine.ReplayReport) time.Duration) Session {
	return sessionFunc(func(_ context.Context, d time.Duration) (Sample, error) {
		var counted time.Duration
		s, _, err := repeat(ctx, d, func() (int64, int64, error) {
			dir, err := os.MkdirTemp(e.Dir(), "rebuild-")
			if err != nil {
				return 0, 0, err
			}
			r, err := e.Replay(ctx, engine.ReplayOptions{Scratch: filepath.Join(dir, "state"), Verify: true})
			counted += took(r)
			return int64(r.Events), 0, errors.Join(err, os.RemoveAll(dir))
		})
		s.Value = float64(s.Ops) / max(counted.Seconds(), 1e-9)
		return s, err
	})
}

// rootSession computes the state root once, on an engine that was just opened
// and so keeps no digest yet. The value counts entries: a name and an object each.
func rootSession(_ context.Context, e *engine.Engine) Session {
	return sessionFunc(func(context.Context, time.Duration) (Sample, error) {
		start := time.Now()
		_, err := e.StateRoot()
		return Sample{Value: 2 * engineEvents / time.Since(start).Seconds(), Ops: 2 * engineEvents}, err
	})
}

func headSession(_ context.Context, e *engine.Engine) Session {
	n := uint64(1)
	return timed(func() error {
		n = n*48271%engineEvents + 1
		_, err := e.Stat(context.Background(), engine.DefaultZone, benchKeyOf(n), engine.At{})
		return err
	})
}

func atSession(_ context.Context, e *engine.Engine) Session {
	n := uint64(1)
	return timed(func() error {
		n = n*48271%engineEvents + 1
		_, err := e.Stat(context.Background(), engine.DefaultZone, benchKeyOf(n), engine.At{Position: e.Position()})
		return err
	})
}

// objectSession reads whole objects by id from a working set that stays warm.
func objectSession(ctx context.Context, e *engine.Engine) Session {
	const warm = 5000
	n := uint64(0)
	ids := make([]engine.GetRequest, 0, warm)
	for i := range uint64(warm) {
		entry, err := e.Stat(ctx, engine.DefaultZone, benchKeyOf(engineEvents-i), engine.At{})
		if err != nil {
			return perSecond(func() (int64, int64, error) { return 0, 0, err })
		}
		ids = append(ids, engine.GetRequest{Object: entry.Head().Object})
	}
	return timed(func() error {
		n = (n*48271 + 11) % warm
		r, err := e.Get(ctx, ids[n])
		if err != nil {
			return err
		}
		return r.Close()
	})
}

// timed is a session over single operations, with their percentiles.
func timed(op func() error) Session {
	return sessionFunc(func(ctx context.Context, d time.Duration) (s Sample, err error) {
		var took []time.Duration
		start := time.Now()
		for time.Since(start) < d {
			t := time.Now()
			if err := op(); err != nil {
				return s, err
			}
			took = append(took, time.Since(t))
		}
		s.Ops = int64(len(took))
		s.Value = float64(s.Ops) / time.Since(start).Seconds()
		slices.Sort(took)
		s.P50, s.P99 = took[len(took)/2], took[len(took)*99/100]
		return s, nil
	})
}

// killEnv makes the program a victim: it puts into the store named by it until
// it is killed.
const killEnv = "FCP_BENCH_VICTIM"

// victim puts for ever, first up to the number of events asked for.
func victim(dir string) error {
	n, err := strconv.Atoi(os.Getenv(killEnv + "_EVENTS"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	var e *engine.Engine
	if _, statErr := os.Stat(dir); statErr == nil {
		e, err = engine.Open(ctx, dir, engine.Options{})
	} else {
		e, err = newEngine(ctx, dir)
	}
	if err != nil {
		return err
	}
	if have := int(e.Position()); have < n {
		if err := putMany(ctx, e, n-have, 256); err != nil {
			return err
		}
	}
	fmt.Println("under load")
	for round := uint64(1); ; round++ {
		if err := putMany(ctx, e, 1_000_000, 256); err != nil {
			return err
		}
	}
}

// killed runs a victim on dir and kills it under load.
func killed(dir string, events int, after time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), killEnv+"="+dir, killEnv+"_EVENTS="+strconv.Itoa(events))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var word [10]byte
	if _, err := out.Read(word[:]); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	time.Sleep(after)
	err = cmd.Process.Kill()
	waited := cmd.Wait()
	if waited == nil {
		return errors.New("the victim ended by itself")
	}
	return err
}

// openSubject measures opening a store whose process was killed under load, until
// it serves.
func openSubject(events int) Subject {
	round := 0
	return Subject{Name: "engine", NoWarmUp: true,
		Setup: func(context.Context, Dirs) error { return nil },
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			return milliseconds(func() (time.Duration, error) {
				round++
				if err := killed(storeDir(dirs), events, 200*time.Millisecond+time.Duration(round%7)*37*time.Millisecond); err != nil {
					return 0, err
				}
				start := time.Now()
				e, err := engine.Open(ctx, storeDir(dirs), engine.Options{})
				if err != nil {
					return 0, err
				}
				_, err = e.Stat(ctx, engine.DefaultZone, benchKeyOf(1), engine.At{})
				took := time.Since(start)
				return took, errors.Join(err, e.Close())
			}), nil
		}}
}
