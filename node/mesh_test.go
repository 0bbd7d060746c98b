package node

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
)

// mesh is several nodes of one owner.
type mesh struct {
	t     testing.TB
	owner *authority.OwnerKey
	nodes []*member
}

type member struct {
	dir string
	e   *engine.Engine
	n   *Node
	opt Options
	env engine.Environment // of simulated nodes
}

func logger() *slog.Logger {
	if os.Getenv("FCP_DEBUG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// newMesh makes a store and enrolls further nodes into it. Each node knows the
// address of the first alone.
func newMesh(t testing.TB, n int, configure func(i int, o *Options)) *mesh {
	t.Helper()
	m := &mesh{t: t}
	ctx := context.Background()
	var err error
	if m.owner, err = authority.NewOwnerKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	first := &member{dir: t.TempDir()}
	if _, err := engine.Init(ctx, first.dir, engine.InitOptions{Owner: m.owner, Device: "node 1"}); err != nil {
		t.Fatal(err)
	}
	m.open(first)
	m.nodes = append(m.nodes, first)
	genesis, err := first.e.GenesisBytes()
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < n; i++ {
		keys, err := authority.NewNodeKeys(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		manifests, err := first.e.Enroll(ctx, engine.EnrollOptions{Owner: m.owner, Node: keys.Public(), Name: fmt.Sprint("node ", i+1)})
		if err != nil {
			t.Fatal(err)
		}
		x := &member{dir: t.TempDir()}
		if err := engine.Join(ctx, x.dir, engine.JoinOptions{Node: keys, Genesis: genesis, Manifests: manifests}); err != nil {
			t.Fatal(err)
		}
		members, err := first.e.Members()
		if err != nil {
			t.Fatal(err)
		}
		for _, y := range members {
			if y.Writer == keys.Writer() {
				x.opt.Enrollment = y.Proof
			}
		}
		m.open(x)
		m.nodes = append(m.nodes, x)
	}
	for i, x := range m.nodes {
		x.opt.Logger = logger().With("node", i+1)
		if i > 0 {
			x.opt.Peers = []string{m.nodes[0].n.Addr().String()}
		}
		if configure != nil {
			configure(i, &x.opt)
		}
		m.start(x)
	}
	t.Cleanup(m.close)
	return m
}

func (m *mesh) open(x *member) {
	m.t.Helper()
	var err error
	if x.e, err = engine.Open(context.Background(), x.dir, engine.Options{NoBallast: true}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) start(x *member) {
	m.t.Helper()
	x.opt.Engine = x.e
	var err error
	if x.n, err = Start(context.Background(), x.opt); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mesh) close() {
	for _, x := range m.nodes {
		if x.n != nil {
			if err := x.n.Close(); err != nil {
				m.t.Error("close a node:", err)
			}
		}
		if x.e != nil {
			if err := x.e.Close(); err != nil {
				m.t.Error("close a store:", err)
			}
		}
	}
}

// kill ends a node without a word.
func (m *mesh) kill(i int) {
	x := m.nodes[i]
	x.n.Kill()
	x.n = nil
	if err := x.e.Close(); err != nil {
		m.t.Error(err)
	}
	x.e = nil
}

// patience is how long a test waits for what takes d at most when time is the test's
// own. Real time is the machine's, which may be busy: there a test only ends.
func patience(d time.Duration) time.Duration {
	if virtual := time.Now().Year() == 2000; virtual { // as testing/synctest has it
		return d
	}
	return max(d, 2*time.Minute)
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience(d))
	t.Cleanup(cancel)
	return ctx
}

// together waits until every node has a session with every other.
func (m *mesh) together() {
	m.t.Helper()
	for i, x := range m.nodes {
		if x.n == nil {
			continue
		}
		if err := x.n.WaitPeers(within(m.t, time.Minute), len(m.nodes)-1); err != nil {
			m.t.Fatalf("node %d: %v", i+1, err)
		}
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience(d)); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to pass within", patience(d), "that", what)
		}
	}
}

// equalRoots waits until all living nodes have the same zone roots.
func (m *mesh) equalRoots(zones ...fcp.ZoneID) {
	m.t.Helper()
	eventually(m.t, 30*time.Second, "all zone roots are equal", func() bool {
		for _, z := range zones {
			var want fcp.Hash
			for _, x := range m.nodes {
				if x.e == nil {
					continue
				}
				got, err := x.e.ZoneRoot(z)
				if err != nil {
					return false
				}
				if want.IsZero() {
					want = got
				}
				if got != want {
					return false
				}
			}
		}
		return true
	})
}

func (m *mesh) put(i int, key string, body []byte) engine.PutResult {
	m.t.Helper()
	r, err := m.nodes[i].e.Put(context.Background(), engine.PutRequest{Key: key, Bytes: body})
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

func (m *mesh) get(i int, key string) ([]byte, error) {
	ctx := within(m.t, 20*time.Second)
	r, err := m.nodes[i].e.Get(ctx, engine.GetRequest{Key: key})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// sealed seals what a node wrote and waits until it is where it should be.
func (m *mesh) sealed(i int) {
	m.t.Helper()
	m.seal(i)
	x := m.nodes[i]
	if err := x.n.WaitPlaced(within(m.t, 20*time.Second)); err != nil {
		m.t.Fatal(err)
	}
	m.equalRoots(fcp.ZonePrivate, fcp.ZoneOwner)
}

// seal seals what a node wrote.
func (m *mesh) seal(i int) {
	m.t.Helper()
	x := m.nodes[i]
	if _, err := x.e.Log().Seal(context.Background(), log.SealOptions{All: true}); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, 5*time.Second, "every segment is known to its writer", func() bool {
		count := 0
		err := x.e.Log().Segments(func(s log.SegmentInfo) error {
			if s.Remainder.Plane == uint64(fcp.PlaneData) {
				count++
			}
			return nil
		})
		return err == nil && count > 0 && len(x.n.ownSegments()) == count
	})
}

func randomBytes(n int, seed uint64) []byte {
	b := make([]byte, n)
	mrand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}

// TestWhatOneNodeWroteTheOthersRebuildAfterItsDeath is the mesh in one test: the
// first node puts a megabyte and is killed; the third reads it from the symbols of
// the second and its own.
func TestWhatOneNodeWroteTheOthersRebuildAfterItsDeath(t *testing.T) {
	m := newMesh(t, 3, nil)
	m.together()
	body := randomBytes(1<<20, 1)
	m.put(0, "big", body)
	m.put(0, "small", []byte("hello"))
	m.sealed(0)
	m.kill(0)
	for i := 1; i < 3; i++ {
		got, err := m.get(i, "big")
		if err != nil {
			t.Fatalf("node %d: %v", i+1, err)
		}
		if !bytes.Equal(got, body) {
			t.Fatalf("node %d read something else", i+1)
		}
		if n := m.nodes[i].n.Metrics().Rebuilt.Load(); n == 0 {
			t.Errorf("node %d did not rebuild anything", i+1)
		}
		if got, err := m.get(i, "small"); err != nil || string(got) != "hello" {
			t.Errorf("node %d: %q, %v", i+1, got, err)
		}
	}
}

// TestTheLaneCarriesSymbolsBesideQUIC rebuilds over packets that are not QUIC's.
func TestTheLaneCarriesSymbolsBesideQUIC(t *testing.T) {
	m := newMesh(t, 3, func(_ int, o *Options) { o.Lane = true })
	m.together()
	body := randomBytes(300_000, 2)
	m.put(0, "big", body)
	m.sealed(0)
	m.kill(0)
	if got, err := m.get(2, "big"); err != nil || !bytes.Equal(got, body) {
		t.Fatal("read:", err)
	}
	if n := m.nodes[2].n.Metrics().DatagramsReceived.Load(); n == 0 {
		t.Error("no symbol came as a packet")
	}
}

// TestARevocationArrivesEverywhereAtOnce measures when the others have it.
func TestARevocationArrivesEverywhereAtOnce(t *testing.T) {
	m := newMesh(t, 3, nil)
	m.together()
	m.put(2, "mine", []byte("x"))
	m.equalRoots(fcp.ZonePrivate, fcp.ZoneOwner)
	victim := fcp.Feed{Zone: fcp.ZonePrivate, Writer: fcp.WriterID{7}, Incarnation: 1, Plane: fcp.PlaneControl}
	body, err := authority.SignRevocation(time.Now(), m.owner, authority.Cut{Feed: victim}, "lost")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	var wg sync.WaitGroup
	for _, i := range []int{1, 2} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := m.nodes[i].e.Subscribe(within(t, 5*time.Second), engine.SubscribeOptions{Live: true}, func(events []log.Applied) error {
				for _, e := range events {
					if e.Content.Kind == fcp.KindRevocationIssued {
						return io.EOF
					}
				}
				return nil
			})
			if !errors.Is(err, io.EOF) {
				t.Errorf("node %d: %v", i+1, err)
			}
			t.Logf("node %d has it after %v", i+1, time.Since(began))
		}()
	}
	if _, err := m.nodes[0].e.AppendSigned(context.Background(), fcp.ZonePrivate, fcp.KindRevocationIssued, body); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	eventually(t, 2*time.Second, "the writer knows that both have it", func() bool {
		a := m.nodes[0].n.Arrivals()
		return len(a) == 1 && len(a[0].Seen) == 2
	})
	t.Log("as the writer sees it:", m.nodes[0].n.Arrivals()[0].Seen)
}
