package node

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/node/simnet"
)

// readTime has a member that holds nothing read what its lost writer wrote, over links
// of 4 MB/s, and returns how long that took in virtual time. Two other members lie, or
// are silent.
func readTime(t *testing.T, seed uint64, lying bool) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 6, seed, simnet.Link{Delay: 5 * time.Millisecond, Rate: 4 << 20, Queue: 1 << 20})
		defer s.close()
		s.together()
		body := randomBytes(900_000, 4)
		s.put(0, "big", body)
		s.sealed(0)
		id := s.nodes[0].n.ownSegments()[0]
		rem, err := s.nodes[0].n.remainder(id)
		if err != nil {
			t.Fatal(err)
		}
		s.kill(0)
		var others []int
		for i, x := range s.nodes[1:] {
			if len(x.n.sharesOf(id)) == 0 {
				others = append(others, i+1)
			}
		}
		if len(others) != 3 {
			t.Fatalf("%d members hold nothing", len(others))
		}
		var liars []fcp.WriterID
		if lying {
			for i, at := range others[1:] { // more of them than the honest have
				lie(t, s.nodes[at], rem, uint32(100_000+2000*i), 600)
				liars = append(liars, s.nodes[at].n.self)
			}
		}
		time.Sleep(3 * time.Second) // inventories travel
		reader := s.nodes[others[0]].n
		began := time.Now()
		got, err := s.get(others[0], "big")
		took = time.Since(began)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatal("read:", err)
		}
		slices.SortFunc(liars, compareWriters)
		if named := reader.Liars(); !slices.Equal(named, liars) {
			t.Errorf("named %v, the liars are %v", named, liars)
		}
	})
	return took
}

// Two liars who sign false symbols together are named, and cost at most twice the time.
func TestTwoColludingLiarsCostAtMostTwiceTheTime(t *testing.T) {
	for _, seed := range []uint64{3, 4} {
		honest, lied := readTime(t, seed, false), readTime(t, seed, true)
		t.Logf("seed %d: %v without liars, %v with two: %.2f", seed, honest, lied, float64(lied)/float64(honest))
		if lied > 2*honest {
			t.Errorf("seed %d: two liars cost %.2f times the time", seed, float64(lied)/float64(honest))
		}
	}
}

// A zone that asks for so many sources takes no more of one peer than its part, also
// when one has everything; and when there are fewer, it reads all the same.
func TestSymbolsComeFromSeveralSources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 4, 9, simnet.Link{Delay: time.Millisecond})
		defer s.close()
		s.together()
		if _, err := s.nodes[0].e.SetPolicy(context.Background(), s.owner, fcp.ZonePrivate,
			authority.PolicyRules{Placement: &authority.PlacementRules{Need: 2, Of: 3, MinSources: 3}}); err != nil {
			t.Fatal(err)
		}
		body := randomBytes(400_000, 4)
		s.put(0, "big", body)
		s.sealed(0)
		id := s.nodes[0].n.ownSegments()[0]
		reader := slices.IndexFunc(s.nodes, func(x *member) bool { return len(x.n.sharesOf(id)) == 0 })
		if reader < 0 {
			t.Fatal("everybody has a share")
		}
		time.Sleep(3 * time.Second)
		var before [4]uint64
		for i, x := range s.nodes {
			before[i] = x.n.Metrics().SymbolsSent.Load()
		}
		if got, err := s.get(reader, "big"); err != nil || !bytes.Equal(got, body) {
			t.Fatal("read:", err)
		}
		part := uint64(400_000/fcp.SymbolSize/3 + 20)
		for i, x := range s.nodes {
			gave := x.n.Metrics().SymbolsSent.Load() - before[i]
			if i != reader && (gave == 0 || gave > part) {
				t.Errorf("node %d gave %d symbols, %d are its part", i+1, gave, part)
			}
		}
	})
}
