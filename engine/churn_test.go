package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// churnEnv makes the test binary churn the store it describes until it is killed
// or done.
const churnEnv = "FCP_ENGINE_TEST_CHURN"

func TestMain(m *testing.M) {
	if s := os.Getenv(churnEnv); s != "" {
		var c churn
		if err := json.Unmarshal([]byte(s), &c); err != nil {
			panic(err)
		}
		if err := c.run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// churn is a year of writes in fast motion: every worker has names of its own and
// goes through a sequence of writes that only the seed decides.
type churn struct {
	Dir     string
	Seed    uint64
	Puts    int   // in all
	Names   int   // in all
	Workers int   // divides both
	Body    int   // most bytes of a body
	Done    []int // writes acknowledged of each worker
	Compact int   // writes between two compactions, on average
	Segment int   // target of segments; 0: the default

	MemTable int // 0: the default
}

type churnOp struct {
	key    string
	remove bool // when the name has a version
	size   int
}

func (c *churn) op(w, i int) churnOp {
	rng := rand.New(rand.NewPCG(c.Seed+uint64(w)<<32, uint64(i)))
	return churnOp{fmt.Sprintf("name/%06d", rng.IntN(c.Names/c.Workers)*c.Workers+w), rng.IntN(12) == 0, 1100 + rng.IntN(c.Body-1100)}
}

func (c *churn) body(w, i int) []byte {
	b := make([]byte, c.op(w, i).size)
	src := rand.NewChaCha8([32]byte{byte(c.Seed), byte(w), byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)})
	src.Read(b)
	return b
}

// model returns, for each name with a version, which write of which worker it is
// of, after done writes of each worker.
func (c *churn) model() map[string][2]int {
	out := map[string][2]int{}
	for w, n := range c.Done {
		for i := range n {
			o := c.op(w, i)
			if _, ok := out[o.key]; ok && o.remove {
				delete(out, o.key)
			} else {
				out[o.key] = [2]int{w, i}
			}
		}
	}
	return out
}

func (c *churn) total() (n int) {
	for _, d := range c.Done {
		n += d
	}
	return n
}

const year = 365 * 24 * time.Hour

func (c *churn) now(total int) time.Time {
	return time.UnixMilli(1_800_000_000_000).Add(time.Duration(total) * (year / time.Duration(c.Puts)))
}

func (c *churn) owner() (*authority.OwnerKey, error) { return authority.NewOwnerKey(newRand(c.Seed)) }

func (c *churn) open(now func() time.Time) (*Engine, error) {
	return Open(context.Background(), c.Dir, Options{Environment: Environment{Now: now}, NoBallast: true, SegmentTarget: c.Segment, MemTableBytes: c.MemTable})
}

// run is the child: it writes a line for each acknowledged write, and one before
// each compaction.
func (c *churn) run() error {
	var total atomic.Int64
	total.Store(int64(c.total()))
	e, err := c.open(func() time.Time { return c.now(int(total.Load())) })
	if err != nil {
		return err
	}
	var out sync.Mutex
	say := func(format string, a ...any) {
		out.Lock()
		defer out.Unlock()
		fmt.Fprintf(os.Stdout, format+"\n", a...)
	}
	errs := make(chan error, c.Workers+1)
	var writers sync.WaitGroup
	for w := range c.Workers {
		writers.Go(func() { errs <- c.write(e, w, func(i int) { total.Add(1); say("%d %d", w, i) }) })
	}
	finished := make(chan struct{})
	var maintenance sync.WaitGroup
	maintenance.Go(func() { errs <- c.maintain(e, &total, finished, say) })
	writers.Wait()
	close(finished)
	maintenance.Wait()
	for range c.Workers + 1 {
		if err := <-errs; err != nil {
			return err
		}
	}
	return e.Close()
}

func (c *churn) write(e *Engine, w int, ack func(i int)) error {
	here := map[string]bool{}
	for i := range c.Puts / c.Workers {
		o := c.op(w, i)
		remove := o.remove && here[o.key]
		here[o.key] = !remove
		if i < c.Done[w] {
			continue
		}
		idem := fmt.Sprintf("%d/%d", w, i) // a write whose answer was lost is repeated
		var err error
		if remove {
			_, err = e.Remove(context.Background(), RemoveRequest{Key: o.key, Idempotency: idem})
		} else {
			_, err = e.Put(context.Background(), PutRequest{Key: o.key, Bytes: c.body(w, i), Idempotency: idem})
		}
		if err != nil {
			return fmt.Errorf("write %d of worker %d: %w", i, w, err)
		}
		ack(i)
	}
	return nil
}

func (c *churn) maintain(e *Engine, total *atomic.Int64, finished chan struct{}, say func(string, ...any)) error {
	owner, err := c.owner()
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(c.Seed, uint64(total.Load())))
	for {
		next := total.Load() + int64(c.Compact/2+rng.IntN(c.Compact))
		for total.Load() < next {
			select {
			case <-finished:
				return nil
			case <-time.After(time.Millisecond):
			}
		}
		say("compact")
		r, err := e.Compact(context.Background(), CompactOptions{MaxBytes: 1 << 40})
		if err != nil && !errors.Is(err, fcp.CodeUnauthorized) { // the first checkpoint is not a day old yet
			return err
		}
		_, err = e.Checkpoint(context.Background(), CheckpointOptions{Owner: owner, Zones: []fcp.ZoneID{fcp.ZonePrivate},
			Retention: &authority.Retention{History: 24 * time.Hour}})
		if err != nil {
			return err
		}
		say("dropped %d", r.Events)
	}
}

// churnProof is a proof made earlier.
type churnProof struct {
	no   log.FeedNo
	in   log.Inclusion
	head log.Consistency
	note []byte
}

// TestAYearOfChurn: puts and removals over names, compactions at random points,
// kill -9 in between. What must hold: every name is what a map says, the zone's
// root is what a store gives that took in the same control events and never
// compacted, every proof ever made still holds, and space comes back. A million
// puts over 10,000 names with FCP_LONG.
func TestAYearOfChurn(t *testing.T) {
	c := &churn{Dir: filepath.Join(t.TempDir(), "store"), Seed: 77, Puts: 6400, Names: 160, Workers: 16, Body: 6 << 10, Compact: 900, Segment: 128 << 10, MemTable: 512 << 10}
	kills := 4
	if os.Getenv("FCP_LONG") != "" {
		c.Puts, c.Names, c.Workers, c.Body, c.Compact, c.Segment, c.MemTable = 1_000_000, 10_000, 50, 8<<10, 25_000, 0, 0
		kills = 20
	}
	c.Done = make([]int, c.Workers)
	owner, err := c.owner()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Init(t.Context(), c.Dir, InitOptions{Environment: Environment{Now: func() time.Time { return c.now(0) }}, Owner: owner}); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 5))
	var proofs []churnProof
	var dropped uint64
	inCompaction := 0
	start := time.Now()
	for round := 0; c.total() < c.Puts; round++ {
		during, d, err := c.child(rng, round < kills)
		if err != nil {
			t.Fatal(err)
		}
		dropped += d
		if during {
			inCompaction++
		}
		proofs = c.look(t, proofs, rng, round%5 == 4)
	}
	t.Logf("%d writes in %s, %d times killed, %d of them in a compaction, %d bodies dropped", c.total(), time.Since(start).Round(time.Millisecond), kills, inCompaction, dropped)
	c.settle(t, owner, proofs)
}

// child runs writers until they are done or killed.
func (c *churn) child(rng *rand.Rand, kill bool) (during bool, dropped uint64, err error) {
	spec, err := json.Marshal(c)
	if err != nil {
		return false, 0, err
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), churnEnv+"="+string(spec))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, 0, err
	}
	if err := cmd.Start(); err != nil {
		return false, 0, err
	}
	limit := c.total() + c.Puts/40 + rng.IntN(c.Puts/20)
	compactions := 1 + rng.IntN(2)
	if rng.IntN(2) == 0 {
		limit = c.Puts // killed in a compaction, or soon after one
	}
	killed := false
	r := bufio.NewScanner(out)
	for r.Scan() {
		var w, i int
		switch s := r.Text(); {
		case s == "compact":
			during = true
			if compactions--; kill && !killed && compactions == 0 {
				killed = true
				time.AfterFunc(time.Duration(rng.IntN(5*(1+c.Puts/20_000)))*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
		case strings.HasPrefix(s, "dropped "):
			during = false
			var n uint64
			if _, err := fmt.Sscanf(s, "dropped %d", &n); err == nil {
				dropped += n
			}
		default:
			if _, err := fmt.Sscanf(s, "%d %d", &w, &i); err == nil && w < c.Workers && i == c.Done[w] {
				c.Done[w]++
			}
			if kill && !killed && c.total() >= limit {
				killed = true
				_ = cmd.Process.Kill()
			}
		}
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if killed && errors.As(err, &exit) && !exit.Exited() {
		return during, dropped, nil
	}
	return false, dropped, err
}

// settled repeats the writes whose answers were lost, so that the store and the
// model are at one point.
func (c *churn) settled(e *Engine) error {
	for w := range c.Workers {
		if c.Done[w] >= c.Puts/c.Workers {
			continue
		}
		upTo := *c
		upTo.Puts, upTo.Done = (c.Done[w]+1)*c.Workers, c.Done
		if err := upTo.write(e, w, func(int) { c.Done[w]++ }); err != nil {
			return err
		}
	}
	return nil
}

// look opens the store and compares it with the model and with every proof.
func (c *churn) look(t *testing.T, proofs []churnProof, rng *rand.Rand, replay bool) []churnProof {
	t.Helper()
	e, err := c.open(func() time.Time { return c.now(c.total()) })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.settled(e); err != nil {
		t.Fatal(err)
	}
	c.compare(t, e, max(1, c.Names/200))
	checkProofs(t, e, proofs)
	for _, f := range e.Log().Feeds() {
		if f.Feed.Zone != fcp.ZonePrivate || f.Seq < 100 {
			continue
		}
		for range 3 {
			p := churnProof{no: f.No}
			if p.in, err = e.Log().Prove(f.No, 1+rng.Uint64N(f.Seq), 0); err != nil {
				t.Fatal(err)
			}
			if p.head, err = e.Log().Consistency(f.No, 1+rng.Uint64N(f.Seq), 0); err != nil {
				t.Fatal(err)
			}
			if f.Feed.Plane == fcp.PlaneData { // of one of the newest, which is still here
				if p.note, err = e.Log().Bundle(f.No, f.Seq-rng.Uint64N(50)); err != nil && !errors.Is(err, fcp.CodeHorizon) {
					t.Fatal(err)
				}
			}
			proofs = append(proofs, p)
		}
	}
	if replay {
		if _, err := e.Replay(t.Context(), ReplayOptions{Verify: true}); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return proofs
}

func checkProofs(t *testing.T, e *Engine, proofs []churnProof) {
	t.Helper()
	for _, p := range proofs {
		in, err := e.Log().Prove(p.no, p.in.Seq, p.in.Size)
		if err != nil || fmt.Sprint(in) != fmt.Sprint(p.in) || p.in.Check() != nil {
			t.Fatalf("the proof of event %d in %d leaves: %v", p.in.Seq, p.in.Size, err)
		}
		now, err := e.Log().Consistency(p.no, p.head.To, 0)
		if err != nil || now.FromRoot != p.head.ToRoot || p.head.Check() != nil {
			t.Fatalf("the head of %d leaves is no beginning of the present one: %v", p.head.To, err)
		}
		if p.note != nil {
			if err := log.CheckProof(p.note); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// compare reads every name, and the body of every step-th.
func (c *churn) compare(t *testing.T, e *Engine, step int) {
	t.Helper()
	want := c.model()
	n := 0
	err := e.List(t.Context(), ListRequest{}, func(entry *Entry) error {
		at, ok := want[entry.Key]
		if !ok || entry.Siblings() != 0 || entry.Head().Size != uint64(c.op(at[0], at[1]).size) {
			return fmt.Errorf("%s is there, the model says %v %v", entry.Key, ok, at)
		}
		if n++; n%step != 0 {
			return nil
		}
		r, err := e.Get(t.Context(), GetRequest{Key: entry.Key})
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Key, err)
		}
		var b bytes.Buffer
		if _, err := r.WriteTo(&b); err != nil || !bytes.Equal(b.Bytes(), c.body(at[0], at[1])) {
			return fmt.Errorf("%s has another body: %w", entry.Key, err)
		}
		return r.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != len(want) {
		t.Fatalf("%d names, the model has %d", n, len(want))
	}
}

// settle collects what is left, and checks everything to the end.
func (c *churn) settle(t *testing.T, owner *authority.OwnerKey, proofs []churnProof) {
	later := time.Duration(0)
	e, err := c.open(func() time.Time { return c.now(c.total()).Add(later) })
	if err != nil {
		t.Fatal(err)
	}
	later = 48 * time.Hour
	if _, err := e.Log().Seal(t.Context(), log.SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Checkpoint(t.Context(), CheckpointOptions{Owner: owner, Zones: []fcp.ZoneID{fcp.ZonePrivate}}); err != nil {
		t.Fatal(err)
	}
	later += 25 * time.Hour
	last, err := e.Compact(t.Context(), CompactOptions{MaxBytes: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	c.compare(t, e, 1)
	checkProofs(t, e, proofs)
	if _, err := e.Replay(t.Context(), ReplayOptions{Verify: true}); err != nil {
		t.Fatal(err)
	}
	if root, got := c.uncompacted(t, e); got != root {
		t.Fatalf("the zone has root %s, a store that never compacted has %s", root, got)
	}
	live := liveBytes(t, e)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := log.Verify(t.Context(), filepath.Join(c.Dir, dirLog), log.VerifyOptions{Closed: true})
	if err != nil || !r.Clean {
		t.Fatal(r.Findings, err)
	}
	logSize, wal := diskUsage(t, filepath.Join(c.Dir, dirLog))
	stateSize, _ := diskUsage(t, filepath.Join(c.Dir, dirState))
	t.Logf("%d proofs hold; the last compaction made %d segments of %d and dropped %d bodies", len(proofs), last.Into, last.Segments, last.Events)
	t.Logf("live: bodies %d, control events %d, hashes of dropped events %d; written in all %d", live.bodies, live.control, live.hashes, live.bodies+live.dropped)
	of := func(n uint64) float64 { return float64(n) / float64(live.total()) }
	t.Logf("on disk: log %d (%.2f of live), of it WALs made in advance %d; state %d (together %.2f of live); data segments %.2f of live bodies and hashes", logSize, of(logSize), wal,
		stateSize, of(logSize+stateSize), float64(live.segments)/float64(live.bodies+live.hashes))
	// The WALs have one size however much is in the log.
	if of(logSize-wal) > 1.5 {
		t.Errorf("the log takes %.2f of what is live", of(logSize-wal))
	}
}

// uncompacted returns the zone's root, and that of a store that took in the same
// control events and has never compacted anything.
func (c *churn) uncompacted(t *testing.T, e *Engine) (root, model fcp.Hash) {
	t.Helper()
	node, err := authority.NewNodeKeys(newRand(99))
	if err != nil {
		t.Fatal(err)
	}
	genesis, err := e.GenesisBytes()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := Join(t.Context(), dir, JoinOptions{Node: node, Genesis: genesis}); err != nil {
		t.Fatal(err)
	}
	m, err := Open(t.Context(), dir, Options{NoBallast: true, Environment: Environment{Now: e.env.Now}})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	var feed log.FeedState
	for _, f := range e.Log().Feeds() {
		if f.Own && f.Feed.Zone == fcp.ZonePrivate && f.Feed.Plane == fcp.PlaneControl {
			feed = f
		}
	}
	var prev fcp.Hash
	taken := uint64(0)
	for {
		err := e.Log().ScanFeed(t.Context(), feed.No, taken+1, 0, log.VerifyChain, func(events []log.Applied) error {
			list := make([]fcp.Event, len(events))
			for i := range events {
				a := &events[i]
				list[i] = fcp.Event{Feed: feed.Feed, Seq: a.Seq, Prev: prev, Time: a.Time, Under: a.Under, Content: cloneApplied(a).Content}
				prev, taken = a.Hash, a.Seq
			}
			_, err := m.ImportEvents(t.Context(), list, nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if root, err = e.ZoneRoot(fcp.ZonePrivate); err != nil {
			t.Fatal(err)
		}
		if h, _ := e.Log().Head(feed.No); h.Seq == taken { // else something was sealed meanwhile
			break
		}
	}
	if model, err = m.ZoneRoot(fcp.ZonePrivate); err != nil {
		t.Fatal(err)
	}
	return root, model
}

type liveSize struct {
	bodies, control, hashes uint64 // encoded contents of what is kept; 32 bytes for each dropped event
	dropped                 uint64 // payload bytes of bodies that are gone, by their control events
	segments                uint64 // ciphertext of data segments
}

func (l *liveSize) total() uint64 { return l.bodies + l.control + l.hashes }

func liveBytes(t *testing.T, e *Engine) (l liveSize) {
	t.Helper()
	var put uint64
	err := e.Log().Scan(t.Context(), log.ScanOptions{Workers: 2}, func(events []log.Applied) error {
		data := e.Log().Feed(events[0].Feed).Plane == fcp.PlaneData
		for i := range events {
			a := &events[i]
			switch n := uint64(len(a.Content.AppendTo(nil))); {
			case a.Dropped():
				l.hashes += fcp.HashSize
			case data:
				l.bodies += n
			default:
				l.control += n
				put += a.Content.Size
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	l.dropped = put - min(put, l.bodies)
	err = e.Log().Segments(func(s log.SegmentInfo) error {
		if fcp.Plane(s.Remainder.Plane) == fcp.PlaneData {
			info, err := s.Card.Transmission()
			l.segments += info.F
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// diskUsage returns the bytes of the files in a directory, and of the WALs among
// them.
func diskUsage(t *testing.T, dir string) (n, wal uint64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		n += uint64(info.Size())
		if filepath.Ext(path) == ".log" {
			wal += uint64(info.Size())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n, wal
}
