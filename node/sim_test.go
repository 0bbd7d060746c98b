package node

import (
	"bytes"
	"context"
	"fmt"
	mrand "math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
	"fcp/node/simnet"
)

// seeded is a source of randomness for concurrent use.
type seeded struct {
	mu sync.Mutex
	r  *mrand.ChaCha8
}

func newSeeded(seed uint64) *seeded {
	return &seeded{r: mrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1})}
}

func (s *seeded) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(p)
}

// simMesh is a mesh over a simulated network, with stores in memory, all in one
// bubble of virtual time.
type simMesh struct {
	*mesh
	net *simnet.Network
}

func host(i int) string { return fmt.Sprintf("h%d", i+1) }

func newSimMesh(t *testing.T, n int, seed uint64, link simnet.Link) *simMesh {
	t.Helper()
	return newSimMeshOf(t, n, seed, link, nil)
}

// newSimMeshOf is newSimMesh with a say in each node's options.
func newSimMeshOf(t *testing.T, n int, seed uint64, link simnet.Link, configure func(i int, o *Options)) *simMesh {
	t.Helper()
	return newSimMeshWith(t, n, seed, link, time.Now, configure)
}

// newSimMeshWith is newSimMeshOf with the clock that stores and nodes read.
func newSimMeshWith(t *testing.T, n int, seed uint64, link simnet.Link, now func() time.Time, configure func(i int, o *Options)) *simMesh {
	t.Helper()
	s := &simMesh{mesh: &mesh{t: t}, net: simnet.New(seed, time.Now, link)}
	ctx := context.Background()
	rnd := newSeeded(seed)
	var err error
	if s.owner, err = authority.NewOwnerKey(rnd); err != nil {
		t.Fatal(err)
	}
	env := func() engine.Environment {
		return engine.Environment{FS: vfs.NewCrashableMem(), Now: now, Rand: rnd}
	}
	var genesis []byte
	for i := range n {
		e := env()
		x := &member{}
		if i == 0 {
			if _, err := engine.Init(ctx, "/store", engine.InitOptions{Environment: e, Owner: s.owner}); err != nil {
				t.Fatal(err)
			}
			s.openSim(x, e)
			if genesis, err = x.e.GenesisBytes(); err != nil {
				t.Fatal(err)
			}
		} else {
			keys, err := authority.NewNodeKeys(rnd)
			if err != nil {
				t.Fatal(err)
			}
			first := s.nodes[0].e
			manifests, err := first.Enroll(ctx, engine.EnrollOptions{Owner: s.owner, Node: keys.Public(), Name: host(i)})
			if err != nil {
				t.Fatal(err)
			}
			if err := engine.Join(ctx, "/store", engine.JoinOptions{Environment: e, Node: keys, Genesis: genesis, Manifests: manifests}); err != nil {
				t.Fatal(err)
			}
			members, err := first.Members()
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range members {
				if m.Writer == keys.Writer() {
					x.opt.Enrollment = m.Proof
				}
			}
			s.openSim(x, e)
		}
		x.opt.Network, x.opt.Rand, x.opt.Now = s.net.Host(host(i)), rnd, now
		x.opt.Listen = host(i) + ":1"
		x.opt.Logger = logger().With("node", i+1)
		s.nodes = append(s.nodes, x)
	}
	for i, x := range s.nodes {
		if i > 0 {
			x.opt.Peers = []string{"h1:1"}
		}
		if configure != nil {
			configure(i, &x.opt)
		}
		s.start(x)
	}
	return s
}

// close ends all nodes, and lets time pass until memberlist's last timers ended too.
func (s *simMesh) close() {
	s.mesh.close()
	time.Sleep(time.Minute)
}

func (s *simMesh) openSim(x *member, e engine.Environment) {
	s.t.Helper()
	var err error
	x.env = e
	if x.e, err = engine.Open(context.Background(), "/store", engine.Options{Environment: e, Workers: 1}); err != nil {
		s.t.Fatal(err)
	}
}

// TestAMeshHealsInVirtualTime cuts a mesh of four in two over a bad network, lets
// both sides write, and heals it: within five virtual seconds of being together
// again all zone roots are equal.
func TestAMeshHealsInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 4, 1, simnet.Link{Delay: 5 * time.Millisecond, Jitter: 5 * time.Millisecond, Loss: 200, Duplicate: 100, Corrupt: 50})
		defer s.close()
		s.together()
		for _, a := range []int{0, 1} {
			for _, b := range []int{2, 3} {
				s.net.Cut(host(a), host(b))
			}
		}
		for i := range 20 {
			s.put(i%4, fmt.Sprint("key ", i%7), []byte(fmt.Sprint("value ", i)))
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(20 * time.Second) // sessions across the cut end
		if len(s.nodes[0].n.Peers()) != 1 {
			t.Error("sessions outlive the cut")
		}
		s.put(3, "alone", []byte("x"))
		s.net.HealAll()
		s.together()
		at := time.Now()
		s.equalRoots(fcp.ZonePrivate, fcp.ZoneOwner)
		if d := time.Since(at); d > 5*time.Second {
			t.Errorf("the roots are equal after %v", d)
		}
		c := s.net.Counts()
		if c.Lost == 0 || c.Duplicated == 0 || c.Corrupted == 0 || c.Cut == 0 {
			t.Errorf("the network was too kind: %+v", c)
		}
	})
}

// TestSymbolsCrossABadNetwork rebuilds over a network that loses a tenth of the
// packets and damages some.
func TestSymbolsCrossABadNetwork(t *testing.T) {
	for _, lane := range []bool{false, true} {
		t.Run(fmt.Sprint("lane ", lane), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSimMesh(t, 3, 2, simnet.Link{Delay: 10 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 1000, Corrupt: 20})
				defer s.close()
				for _, x := range s.nodes {
					x.n.opt.Lane = lane
				}
				s.together()
				body := randomBytes(500_000, 3)
				s.put(0, "big", body)
				if _, err := s.nodes[0].e.Log().Seal(context.Background(), log.SealOptions{All: true}); err != nil {
					t.Fatal(err)
				}
				s.sealed(0)
				s.kill(0)
				at := time.Now()
				got, err := s.get(2, "big")
				if err != nil || !bytes.Equal(got, body) {
					t.Fatal("read:", err)
				}
				t.Log("rebuilt after", time.Since(at), "of virtual time")
			})
		})
	}
}

// TestPresenceIsAHint waits until memberlist at each node sees the others, and
// until it sees that one was killed.
func TestPresenceIsAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newSimMesh(t, 3, 5, simnet.Link{Delay: time.Millisecond})
		defer m.close()
		m.together()
		m.put(0, "a", []byte("b"))
		alive := func(i, want int) bool {
			n := 0
			for _, p := range m.nodes[i].n.Presence() {
				if p.Alive && p.Feeds > 0 {
					n++
				}
			}
			return n == want
		}
		for i := range 3 {
			eventually(t, 10*time.Second, "everybody is seen with a hint", func() bool { return alive(i, 2) })
		}
		if err := m.nodes[2].n.Close(); err != nil { // it takes leave
			t.Fatal(err)
		}
		m.nodes[2].n = nil
		for i := range 2 {
			eventually(t, 10*time.Second, "it is seen that one left", func() bool { return alive(i, 1) })
		}
	})
}
