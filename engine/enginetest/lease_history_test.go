package enginetest

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"fcp"
	"fcp/authority"
)

// worlds are the meshes that histories run on: history seed runs on worlds[seed % 4].
var worlds = []struct {
	name   string
	nodes  int
	faults uint8
	near   bool
	liar   bool
}{
	{"3 nodes", 3, 0, true, false},
	{"4 nodes", 4, 0, true, false},
	{"4 nodes, one of which forgets", 4, 1, true, true},
	{"5 nodes, clocks minutes apart", 5, 1, false, false},
}

func newLeaseWorld(t testing.TB, i int, rules leaseRules) *leaseWorld {
	w := worlds[i]
	m := New(t, 900+uint64(i), w.nodes)
	m.agree(zone, w.faults)
	m.Clock.Freeze()
	return &leaseWorld{m: m, near: w.near, tell: w.near && !w.liar && !rules.forget, liar: w.liar, rules: rules}
}

// numberFrom reads a number from the environment.
func numberFrom(t testing.TB, name string, otherwise uint64) uint64 {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// historiesPerMesh bounds what a mesh's logs grow to.
const historiesPerMesh = 250

// TestLeaseHistories runs histories with partitions, skewed clocks, crashes, restarts
// and stuck messages, and checks each: FCP_LEASE_HISTORIES says how many. One history
// again: FCP_LEASE_SEED=17 go test ./engine/enginetest -run TestLeaseHistories -v
func TestLeaseHistories(t *testing.T) {
	count := numberFrom(t, "FCP_LEASE_HISTORIES", 240)
	if testing.Short() {
		count = 40
	}
	if v := os.Getenv("FCP_LEASE_SEED"); v != "" {
		seed := numberFrom(t, "FCP_LEASE_SEED", 0)
		h := newLeaseWorld(t, int(seed%4), leaseRules{}).run(seed)
		for _, op := range h.ops {
			t.Logf("%3d-%d client %d: %s", op.Call, op.Return, op.ClientId, leaseModel.DescribeOperation(op.Input, op.Output))
		}
		if fault := h.fault(); fault != "" {
			t.Fatal(fault)
		}
		return
	}
	for i := range worlds {
		t.Run(worlds[i].name, func(t *testing.T) {
			t.Parallel()
			var total summary
			for first := uint64(i); first < count; first += 4 * historiesPerMesh {
				t.Run(fmt.Sprint("from ", first), func(t *testing.T) {
					w := newLeaseWorld(t, i, leaseRules{})
					for seed := first; seed < min(count, first+4*historiesPerMesh); seed += 4 {
						if (seed-first)%200 == 0 {
							for _, n := range w.m.Nodes {
								n.Reopen() // keeps the state, so that a crash folds only what came since
							}
						}
						h := w.run(seed)
						total.add(h)
						if fault := h.fault(); fault != "" {
							t.Fatalf("history %d: %s", seed, fault)
						}
					}
				})
			}
			t.Logf("%+v", total)
			if count >= 200 && (total.Handovers == 0 || total.Refused == 0 || total.Unknown == 0) {
				t.Error("histories in which nothing happens")
			}
		})
	}
}

// summary counts what histories had in them.
type summary struct{ Histories, Leases, Handovers, Effects, Refused, Unknown int }

func (s *summary) add(h *history) {
	s.Histories++
	s.Leases += len(h.leases)
	for i := 1; i < len(h.leases); i++ {
		if h.leases[i].Holder != h.leases[i-1].Holder {
			s.Handovers++
		}
	}
	s.Effects += len(h.effects)
	for _, op := range h.ops {
		if op.Input.(leaseIn).op != opWrite {
			continue
		}
		switch out := op.Output.(leaseOut); {
		case out.unknown:
			s.Unknown++
		case !out.taken:
			s.Refused++
		}
	}
}

// fenceOnly is a sink that looks at the fence alone; deaf does not even do that.
func fenceOnly(s *leaseSim, l *authority.UnverifiedLease, fn func()) error {
	if l.Spec().Fence < s.state.fence {
		return fcp.Errorf(fcp.CodeFenced, "stale")
	}
	fn()
	return nil
}

func deaf(_ *leaseSim, _ *authority.UnverifiedLease, fn func()) error {
	fn()
	return nil
}

// TestLeaseHistoriesCatchMutations breaks one rule at a time. The checker must find
// each within a few histories.
func TestLeaseHistoriesCatchMutations(t *testing.T) {
	for _, m := range []struct {
		name  string
		world int
		rules leaseRules
	}{
		{"f+1 signatures are enough", 2, leaseRules{need: func(e *authority.Electorate) int { return e.MaxFaults + 1 }, sink: fenceOnly}},
		{"signers forget", 1, leaseRules{forget: true, sink: fenceOnly}},
		{"the sink does not check", 0, leaseRules{sink: deaf}},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			w := newLeaseWorld(t, m.world, m.rules)
			for seed := range uint64(150) {
				if fault := w.run(seed).fault(); fault != "" {
					t.Logf("history %d: %s", seed, fault)
					return
				}
			}
			t.Fatal("nothing was found in 150 histories")
		})
	}
}
