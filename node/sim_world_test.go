package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/internal/crashfs"
	"fcp/log"
	"fcp/node/simnet"
)

// A world is a cluster in virtual time: real nodes and stores, a network, disks
// and clocks that a seed disturbs, and what must be true of them all the same.
type world struct {
	t     testing.TB
	seed  uint64
	rnd   *mrand.Rand // of the schedule; used by one goroutine
	net   *simnet.Network
	owner *authority.OwnerKey
	nodes []*machine

	counts  map[string]int // faults by kind
	trace   []string
	began   time.Time
	wrote   int
	puts    []*written
	slowest time.Duration // from a heal until all was equal
	genesis []byte
	entropy *seeded
	settled int
	stopped bool // a store stopped after a disk error
	ahead   atomic.Int64
	bodies  []*body
}

// written is a put that was acknowledged.
type written struct {
	by    *machine
	name  string
	value string
	feed  fcp.Feed
	seq   uint64
	maybe bool // it may be gone: an older image of its writer ran, or its writer was revoked
}

// machine is one node with its disk and its clock.
type machine struct {
	i     int
	host  string
	fs    *crashfs.FS
	skew  atomic.Int64  // nanoseconds that its clock is ahead
	ahead *atomic.Int64 // and that all clocks are: time that passed without being simulated
	slow  atomic.Int64  // nanoseconds that each sync takes
	e     *engine.Engine
	n     *Node
	opt   Options

	tags []string // of its enrollment
	out  bool     // revoked: it does not count any more
}

func (m *machine) now() time.Time {
	return time.Now().Add(time.Duration(m.skew.Load() + m.ahead.Load()))
}

// hook makes syncs take time.
func (m *machine) hook(op crashfs.Op) error {
	if d := m.slow.Load(); d > 0 && (op.Kind == crashfs.Sync || op.Kind == crashfs.SyncDir) {
		time.Sleep(time.Duration(d))
	}
	return nil
}

func (m *machine) environment(w *world) engine.Environment {
	return engine.Environment{FS: m.fs, Now: m.now, Rand: w.entropy, Logger: logger().With("store", m.host)}
}

// mild is the network when nothing is wrong: not a perfect one.
func (w *world) mild() simnet.Link {
	return simnet.Link{Delay: 2 * time.Millisecond, Jitter: time.Millisecond, Loss: 50, Duplicate: 20, Corrupt: 10}
}

func newWorld(t testing.TB, seed uint64, machines int, tags ...string) *world {
	w := &world{t: t, seed: seed, rnd: mrand.New(mrand.NewPCG(seed, 0xfa17)), counts: map[string]int{}, began: time.Now(), entropy: newSeeded(seed)}
	w.net = simnet.New(seed, time.Now, simnet.Link{Delay: 2 * time.Millisecond})
	ctx := context.Background()
	var err error
	if w.owner, err = authority.NewOwnerKey(w.entropy); err != nil {
		t.Fatal(err)
	}
	for i := range machines {
		m := &machine{i: i, host: host(i), fs: crashfs.New(), ahead: &w.ahead, tags: tags}
		m.fs.SetHook(m.hook)
		w.nodes = append(w.nodes, m)
		if i == 0 {
			if _, err := engine.Init(ctx, "/store", engine.InitOptions{Environment: m.environment(w), Owner: w.owner, Device: m.host}); err != nil {
				t.Fatal(err)
			}
		} else {
			w.enroll(m)
		}
		w.open(m)
		if i == 0 {
			if w.genesis, err = m.e.GenesisBytes(); err != nil {
				t.Fatal(err)
			}
		}
		m.opt.Network, m.opt.Rand, m.opt.Now = w.net.Host(m.host), w.entropy, m.now
		m.opt.Listen, m.opt.Logger = m.host+":1", logger().With("node", m.host)
		if i > 0 {
			m.opt.Peers = []string{"h1:1"}
		}
	}
	for _, m := range w.nodes {
		w.start(m)
	}
	w.net.SetAll(w.mild())
	return w
}

// enroll makes a store for a machine, enrolled by the first.
func (w *world) enroll(m *machine) {
	w.t.Helper()
	ctx := context.Background()
	keys, err := authority.NewNodeKeys(w.entropy)
	if err != nil {
		w.t.Fatal(err)
	}
	first := w.nodes[0].e
	manifests, err := first.Enroll(ctx, engine.EnrollOptions{Owner: w.owner, Node: keys.Public(), Name: m.host, Tags: m.tags})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := engine.Join(ctx, "/store", engine.JoinOptions{Environment: m.environment(w), Node: keys, Genesis: w.genesis, Manifests: manifests}); err != nil {
		w.t.Fatal(err)
	}
	members, err := first.Members()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, x := range members {
		if x.Writer == keys.Writer() {
			m.opt.Enrollment = x.Proof
		}
	}
}

func (w *world) open(m *machine) {
	w.t.Helper()
	var err error
	m.e, err = engine.Open(context.Background(), "/store", engine.Options{Environment: m.environment(w), Workers: 1, NoBallast: true,
		CacheBytes: 8 << 20, MemTableBytes: 1 << 20})
	if err != nil {
		w.fail("%s does not open: %v", m.host, err)
	}
	if err := m.e.Log().Doubt(); err != nil {
		w.fail("%s opened in doubt: %v", m.host, err)
	}
}

func (w *world) start(m *machine) {
	w.t.Helper()
	m.opt.Engine = m.e
	var err error
	if m.n, err = Start(context.Background(), m.opt); err != nil {
		w.fail("%s does not start: %v", m.host, err)
	}
}

// kill ends a machine's process without a word. Its disk stays as fs says.
func (w *world) kill(m *machine) {
	m.n.Kill()
	_ = m.e.Close() // of a store whose disk may be failing
	m.n, m.e = nil, nil
}

// image ends a machine and gives it another disk to begin with again.
func (w *world) swap(m *machine, disk *crashfs.FS) {
	w.kill(m)
	m.fs.SetHook(nil)
	m.fs = disk
	disk.SetHook(m.hook)
}

func (w *world) boot(m *machine) {
	w.open(m)
	w.start(m)
}

func (w *world) close() {
	for _, m := range w.nodes {
		if m.n != nil {
			if err := m.n.Close(); err != nil {
				w.t.Error("close a node:", err)
			}
		}
		if m.e != nil {
			if err := m.e.Close(); err != nil {
				w.t.Error("close a store:", err)
			}
		}
	}
	time.Sleep(time.Minute) // memberlist's last timers
}

func (w *world) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%10v  ", time.Since(w.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// fail says what went wrong and how it came to it, and ends the process: a store
// that stopped after a disk error has goroutines that never end, so the bubble of
// virtual time could not be left.
func (w *world) fail(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "--- FAIL: %[1]s\n%[2]s\nwhat happened:\n%[3]s\nagain with: go test ./node -run '%[1]s$' -seed %[4]d\n", w.t.Name(),
		fmt.Sprintf(format, args...), strings.Join(w.trace, "\n"), w.seed)
	os.Exit(1)
}

// count notes a fault.
func (w *world) count(kind string, format string, args ...any) {
	w.counts[kind]++
	w.note(kind+" "+format, args...)
}

func (w *world) up() (out []*machine) {
	for _, m := range w.nodes {
		if m.n != nil && !m.out {
			out = append(out, m)
		}
	}
	return out
}

func (w *world) pick() *machine {
	up := w.up()
	return up[w.rnd.IntN(len(up))]
}

// put writes a new name; what is acknowledged must be there for good. It reports
// whether it was.
func (w *world) put(m *machine) (*written, error) {
	w.wrote++
	size := w.rnd.IntN(200)
	if w.rnd.IntN(10) == 0 {
		size = 2000 + w.rnd.IntN(20_000)
	}
	name := fmt.Sprintf("%s/%d", m.host, w.wrote)
	value := name + strings.Repeat("x", size)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r, err := m.e.Put(ctx, engine.PutRequest{Key: name, Bytes: []byte(value)})
	if err != nil {
		w.note("put %s: %v", name, err)
		return nil, err
	}
	entry, err := m.e.Stat(ctx, "", name, engine.At{})
	if err != nil {
		w.fail("%s does not show %s, which it acknowledged: %v", m.host, name, err)
	}
	v := entry.Head()
	if v.Hash != r.Hash {
		w.fail("%s shows another version of %s than it acknowledged", m.host, name)
	}
	p := &written{by: m, name: name, value: value, feed: m.e.Log().Feed(v.Feed), seq: v.Seq}
	w.puts = append(w.puts, p)
	return p, nil
}

// mustPut is put where nothing is wrong with the writer.
func (w *world) mustPut(m *machine) *written {
	w.t.Helper()
	p, err := w.put(m)
	if err != nil {
		w.fail("%s takes no put: %v", m.host, err)
	}
	return p
}

// some writes at several machines with pauses.
func (w *world) some(n int, machines []*machine) {
	for range n {
		w.mustPut(machines[w.rnd.IntN(len(machines))])
		w.rest(time.Second)
	}
}

// rest lets up to d pass.
func (w *world) rest(d time.Duration) { time.Sleep(time.Duration(w.rnd.Int64N(int64(d)))) }

// between returns a duration from a to b.
func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rnd.Int64N(int64(b-a)))
}

// equal reports whether all machines that count have the same zone roots.
func (w *world) equal() (bool, string) {
	for _, z := range []fcp.ZoneID{fcp.ZonePrivate, fcp.ZoneOwner} {
		var want fcp.Hash
		for _, m := range w.up() {
			got, err := m.e.ZoneRoot(z)
			if err != nil {
				return false, err.Error()
			}
			if want.IsZero() {
				want = got
			}
			if got != want {
				return false, fmt.Sprintf("%s has another root of %s", m.host, z)
			}
		}
	}
	return true, ""
}

// converge is how long after a heal all zone roots must be equal.
const converge = 5 * time.Second

// settle heals the network and checks that within five seconds all machines have
// the same state, and that it is the right one.
func (w *world) settle() {
	w.t.Helper()
	w.net.HealAll()
	w.net.SetAll(w.mild())
	at := time.Now()
	w.note("heal")
	for {
		ok, why := w.equal()
		if ok && w.reached() {
			break
		}
		if time.Since(at) > converge {
			w.fail("%v after the heal: %s\n%s", time.Since(at), why, w.describe())
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.slowest = max(w.slowest, time.Since(at))
	w.settled++
	w.checkPuts()
}

// reached reports whether every put that must be everywhere is.
func (w *world) reached() bool {
	for _, m := range w.up() {
		for _, p := range w.puts {
			if p.maybe {
				continue
			}
			no, ok := m.e.Log().FeedNo(p.feed)
			if !ok {
				return false
			}
			if h, _ := m.e.Log().Head(no); h.Seq < p.seq {
				return false
			}
		}
	}
	return true
}

// checkPuts: acknowledged events are all there.
func (w *world) checkPuts() {
	w.t.Helper()
	for _, m := range w.up() {
		for _, p := range w.puts {
			if _, err := m.e.Stat(context.Background(), "", p.name, engine.At{}); err != nil && !p.maybe {
				w.fail("%s lacks %s, event %d: %v\n%s", m.host, p.name, p.seq, err, w.describe())
			}
		}
	}
}

// describe says where every machine stands.
func (w *world) describe() string {
	var b strings.Builder
	for _, m := range w.nodes {
		if m.e == nil {
			fmt.Fprintf(&b, "%s is down\n", m.host)
			continue
		}
		fmt.Fprintf(&b, "%s %.8s incarnation %x out=%v peers:", m.host, m.e.Log().Writer(), m.e.Log().Incarnation(), m.out)
		if m.n != nil {
			for _, p := range m.n.Peers() {
				fmt.Fprintf(&b, " %s", p.Address)
			}
			fmt.Fprintf(&b, " forks: %d", len(m.n.Forks()))
		}
		b.WriteByte('\n')
		for _, f := range m.e.Log().Feeds() {
			if f.Feed.Plane == fcp.PlaneControl {
				fmt.Fprintf(&b, "    %s %.8s/%x: %d %.8s\n", f.Feed.Zone, f.Feed.Writer, f.Feed.Incarnation, f.Seq, f.Hash)
			}
		}
	}
	return b.String()
}

// read returns a whole body.
func (w *world) read(m *machine, name string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	r, err := m.e.Get(ctx, engine.GetRequest{Key: name})
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(r)
	return string(b), errors.Join(err, r.Close())
}

// checkDeep verifies what is dear to verify: chains and trees, that the state is
// what a replay from nothing gives, that no two events share a place, that symbols
// announced are symbols held, and that what is small can be read everywhere.
func (w *world) checkDeep() {
	w.t.Helper()
	type where struct {
		feed fcp.FeedID
		seq  uint64
	}
	seen := map[where]fcp.Hash{}
	for _, m := range w.up() {
		l := m.e.Log()
		err := l.Scan(context.Background(), log.ScanOptions{Verify: log.VerifyTree}, func(batch []log.Applied) error {
			for i := range batch {
				f := l.Feed(batch[i].Feed)
				if !f.Plane.Chained() {
					continue
				}
				at := where{f.ID(), batch[i].Seq}
				if h, ok := seen[at]; ok && h != batch[i].Hash && !w.forkedAt(f, at.seq) {
					return fmt.Errorf("two events share number %d of feed %.8s", at.seq, at.feed)
				}
				seen[at] = batch[i].Hash
			}
			return nil
		})
		if err != nil {
			w.fail("the log of %s: %v\n%s", m.host, err, w.describe())
		}
		if _, err := m.e.Replay(context.Background(), engine.ReplayOptions{Verify: true}); err != nil {
			w.fail("the state of %s: %v", m.host, err)
		}
		for _, p := range w.puts {
			if len(p.value) > 1000 || p.maybe {
				continue
			}
			if got, err := w.read(m, p.name); err != nil || got != p.value {
				w.fail("%s does not read %s: %v", m.host, p.name, err)
			}
		}
		w.checkSymbols(m)
	}
}

// forkedAt reports whether all machines know that a feed parts at or before seq.
func (w *world) forkedAt(f fcp.Feed, seq uint64) bool {
	for _, m := range w.up() {
		if at := m.e.ForkedFrom(f); at == 0 || at > seq {
			return false
		}
	}
	return true
}

// checkSymbols: symbols announced are symbols held.
func (w *world) checkSymbols(m *machine) {
	w.t.Helper()
	held := map[fcp.SegmentID]map[uint32]bool{}
	err := m.e.Shares(func(h engine.HeldShare) error {
		if held[h.Segment] == nil {
			held[h.Segment] = map[uint32]bool{}
		}
		for esi := h.First; esi < h.End(); esi++ {
			held[h.Segment][esi] = true
		}
		return nil
	})
	if err != nil {
		w.fail("the shares of %s: %v", m.host, err)
	}
	for _, x := range w.up() {
		if x == m {
			continue
		}
		x.n.mu.Lock()
		for _, id := range x.n.core.HeldBy(m.n.self) {
			if _, own, err := m.e.Log().FindSegment(id); err == nil && own {
				continue
			}
			for _, h := range x.n.core.Holders(id) {
				if h.Peer != m.n.self {
					continue
				}
				for _, esi := range h.Symbols.ToArray() {
					if !held[id][esi] {
						w.fail("%s is said to hold symbol %d of %.8s and does not", m.host, esi, id)
						break
					}
				}
			}
		}
		x.n.mu.Unlock()
	}
}
