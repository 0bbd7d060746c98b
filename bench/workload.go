package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Workload is one shape of the append rows.
type Workload struct {
	Payload int // bytes of one event's payload
	Writers int // goroutines, each with one append under way at a time
}

func (w Workload) String() string { return fmt.Sprintf("%s/w=%d", sizeName(w.Payload), w.Writers) }

func sizeName(n int) string {
	if n >= 1024 && n%1024 == 0 {
		return fmt.Sprintf("%dKiB", n/1024)
	}
	return fmt.Sprintf("%dB", n)
}

// workloads are the shapes every append row comes in.
func workloads() []Workload {
	var all []Workload
	for _, payload := range []int{256, 1024} {
		for _, writers := range []int{1, 16, 256} {
			all = append(all, Workload{Payload: payload, Writers: writers})
		}
	}
	return all
}

// Appender is an open store that can append durably.
type Appender interface {
	// Append stores one event with this payload and returns when it is durable.
	// Many writers call it at once; writer is the caller's number, from 0.
	// payload is the caller's again after the return.
	Append(ctx context.Context, writer int, payload []byte) error
	Close() error
}

// Target is a layer of the product that can append: the log, the engine.
type Target struct {
	Name string // as in append/NAME/256B/w=1
	// EventBytes says how many bytes the target's encoding of an event with
	// such a payload takes in the log. The limit and the peers write records
	// of exactly this size.
	EventBytes func(payload int) (int, error)
	// Open makes a new, empty store in dir.
	Open func(ctx context.Context, dir string, w Workload) (Appender, error)
}

// appendRows are the rows of a target: all workloads, each beside the raw limit
// and the peers at the same encoded size.
func appendRows(t Target) ([]Row, error) {
	var rows []Row
	for _, w := range workloads() {
		record, err := t.EventBytes(w.Payload)
		if err != nil {
			return nil, fmt.Errorf("encode an event for %s: %w", t.Name, err)
		}
		same := Workload{Payload: record, Writers: w.Writers}
		limit := rawSubject(same)
		rows = append(rows, Row{
			Name: fmt.Sprintf("append/%s/%s", t.Name, w), Unit: "events/s",
			Subjects: []Subject{appendSubject(t.Name, w, record, t.Open)},
			Limit:    &limit, Peers: peerSubjects(same),
		})
	}
	return rows, nil
}

// appendSubject measures an appender that open makes, new in each round.
func appendSubject(name string, w Workload, record int, open func(context.Context, string, Workload) (Appender, error)) Subject {
	return Subject{Name: name, Open: func(ctx context.Context, dirs Dirs) (Session, error) {
		a, err := open(ctx, dirs.Round, w)
		if err != nil {
			return nil, err
		}
		return &load{appender: a, shape: w, record: record}, nil
	}}
}

// load drives an appender with a closed loop of writers.
type load struct {
	appender Appender
	shape    Workload
	record   int // encoded bytes per event
}

func (l *load) Close() error { return l.appender.Close() }

// sampleEvery is how many appends one timed append stands for: reading the
// clock twice for each would cost the fastest rows some percent.
const sampleEvery = 8

// writer is one goroutine's share of a run; only that goroutine touches it
// until it has ended.
type writer struct {
	payload []byte
	done    int64
	took    []time.Duration
}

// Run appends from all writers until d is over, each at least once. Payloads are random, for the
// product's are ciphertext, and differ in their first eight bytes.
func (l *load) Run(ctx context.Context, d time.Duration) (Sample, error) {
	writers := make([]writer, l.shape.Writers)
	for i := range writers {
		writers[i].payload = randomBytes(uint64(i), l.shape.Payload)
	}
	var (
		stop   atomic.Bool
		failed atomic.Pointer[error]
		wg     sync.WaitGroup
		start  = make(chan struct{})
	)
	for i := range writers {
		wg.Go(func() {
			<-start
			if err := writers[i].run(ctx, i, l.appender, &stop); err != nil {
				stop.Store(true)
				failed.CompareAndSwap(nil, &err)
			}
		})
	}
	began := time.Now()
	close(start)
	timer := time.AfterFunc(d, func() { stop.Store(true) })
	defer timer.Stop()
	wg.Wait()
	elapsed := time.Since(began)
	if err := failed.Load(); err != nil {
		return Sample{}, *err
	}
	return l.sample(writers, elapsed), nil
}

func (w *writer) run(ctx context.Context, number int, a Appender, stop *atomic.Bool) error {
	for w.done == 0 || !stop.Load() {
		if len(w.payload) >= 8 {
			binary.LittleEndian.PutUint64(w.payload, uint64(number)<<40|uint64(w.done))
		}
		timed := w.done%sampleEvery == 0
		var began time.Time
		if timed {
			began = time.Now()
		}
		if err := a.Append(ctx, number, w.payload); err != nil {
			return err
		}
		if timed {
			w.took = append(w.took, time.Since(began))
		}
		w.done++
	}
	return nil
}

func (l *load) sample(writers []writer, elapsed time.Duration) Sample {
	var s Sample
	var took []time.Duration
	for i := range writers {
		s.Ops += writers[i].done
		took = append(took, writers[i].took...)
	}
	s.Value = float64(s.Ops) / elapsed.Seconds()
	s.Bytes = s.Ops * int64(l.record)
	if len(took) > 0 {
		slices.Sort(took)
		s.P50, s.P99 = took[len(took)/2], took[len(took)*99/100]
	}
	return s
}

// randomBytes returns n incompressible bytes, the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // documented never to fail
	return b
}
