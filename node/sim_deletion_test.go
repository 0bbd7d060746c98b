package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
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

// aging is a mesh in virtual time whose clocks can be put forward together, so that a
// day of grace costs no day of gossip.
type aging struct {
	*simMesh
	ahead atomic.Int64
}

func newAging(t *testing.T, n int, seed uint64) *aging {
	a := &aging{}
	now := func() time.Time { return time.Now().Add(time.Duration(a.ahead.Load())) }
	a.simMesh = newSimMeshWith(t, n, seed, simnet.Link{Delay: 2 * time.Millisecond, Jitter: time.Millisecond}, now, nil)
	return a
}

// pass lets time pass on every clock.
func (a *aging) pass(d time.Duration) {
	a.ahead.Add(int64(d))
	time.Sleep(time.Second)
}

// retain has the owner sign a mark at a node.
func (a *aging) retain(i int, history time.Duration) {
	a.t.Helper()
	if _, err := a.nodes[i].e.Checkpoint(context.Background(), engine.CheckpointOptions{Owner: a.owner, Zones: []fcp.ZoneID{fcp.ZonePrivate},
		Retention: &authority.Retention{History: history}}); err != nil {
		a.t.Fatal(err)
	}
}

func (a *aging) compact(i int, dry bool) (engine.CompactResult, error) {
	return a.nodes[i].e.Compact(context.Background(), engine.CompactOptions{Zones: []fcp.ZoneID{fcp.ZonePrivate}, DryRun: dry, MinGarbage: 1})
}

// sealAt seals what a node wrote and waits until it is spread.
func (a *aging) sealAt(i int) {
	a.t.Helper()
	if _, err := a.nodes[i].e.Log().Seal(context.Background(), log.SealOptions{All: true}); err != nil {
		a.t.Fatal(err)
	}
	a.sealed(i)
}

func (a *aging) remove(i int, key string) {
	a.t.Helper()
	if _, err := a.nodes[i].e.Remove(context.Background(), engine.RemoveRequest{Key: key}); err != nil {
		a.t.Fatal(err)
	}
}

// sharesAt counts the share and salt files of a node, of segments that are in a set.
func (a *aging) sharesAt(i int, of map[fcp.SegmentID]bool) (files int) {
	a.t.Helper()
	err := a.nodes[i].e.Shares(func(h engine.HeldShare) error {
		if of[h.Ref.Segment] {
			files++
		}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	for id := range of {
		if a.nodes[i].e.KeepsSalts(id) {
			files++
		}
	}
	return files
}

func (a *aging) segmentsOf(i int) map[fcp.SegmentID]bool {
	out := map[fcp.SegmentID]bool{}
	for _, id := range a.nodes[i].n.ownSegments() {
		out[id] = true
	}
	return out
}

// TestDeletionWaitsForEveryMember is the life of a deletion in a mesh: nothing is
// dropped while a member that was not taken out has not acknowledged; then the old
// segments, shares and salts go everywhere; what stays is read by all, also without
// its writer; and the one who was away brings nothing back.
func TestDeletionWaitsForEveryMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAging(t, 4, 11)
		defer a.close()
		a.together()
		stays, goes := randomBytes(60_000, 1), randomBytes(90_000, 2)
		a.put(0, "stays", stays)
		a.put(0, "goes", goes)
		a.sealAt(0)
		old := a.segmentsOf(0)
		held := 0
		for i := 1; i < 4; i++ {
			held += a.sharesAt(i, old)
		}
		if held == 0 {
			t.Fatal("nobody holds a share of what is to go")
		}
		a.together()
		a.cutOff(3)
		a.remove(0, "goes")
		a.pass(time.Minute)
		a.retain(0, 0)
		a.pass(25 * time.Hour)
		eventually(t, time.Minute, "two of three acknowledged", func() bool { return a.ackedAt(0) == 2 })
		r, err := a.compact(0, true)
		if !errors.Is(err, fcp.CodeDependency) || r.Events != 0 {
			t.Fatalf("a member is away and %d events would go: %v", r.Events, err)
		}
		if _, err := a.compact(0, false); !errors.Is(err, fcp.CodeDependency) {
			t.Fatal("collected without the word of a member:", err)
		}
		// Meanwhile the one who is away writes, and reads what it has not heard was removed.
		a.put(3, "alone", randomBytes(30_000, 3))
		a.net.HealAll()
		a.together()
		eventually(t, time.Minute, "all acknowledged", func() bool { return a.ackedAt(0) == 3 })
		if r, err = a.compact(0, false); err != nil || r.Events == 0 {
			t.Fatalf("%d events dropped: %v", r.Events, err)
		}
		a.released(old, 1, 2)
		// At the fourth the removal came behind what it wrote alone, which no mark covers
		// yet: it keeps until the next one what reads of its own past need.
		a.retain(0, 0)
		a.pass(25 * time.Hour)
		a.released(old, 3)
		eventually(t, 10*time.Second, "the writer tells of no old segment", func() bool {
			for id := range a.segmentsOf(0) {
				if old[id] {
					return false
				}
			}
			return true
		})
		a.sealed(0)
		a.kill(0) // the compacted segment is at the others
		for i := 1; i < 4; i++ {
			got, err := a.get(i, "stays")
			if err != nil || !bytes.Equal(got, stays) {
				t.Errorf("node %d: what stays: %v", i+1, err)
			}
			if _, err := a.get(i, "goes"); !errors.Is(err, fcp.CodeNotFound) {
				t.Errorf("node %d: what went: %v", i+1, err)
			}
			sum := a.nodes[i].n.Summary()
			if sum.Lost != 0 {
				t.Errorf("node %d counts what was dropped as lost: %+v", i+1, sum)
			}
		}
	})
}

// TestALostDeviceHoldsNothingUp takes out the member that never acknowledged.
func TestALostDeviceHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAging(t, 3, 12)
		defer a.close()
		a.together()
		a.put(0, "goes", randomBytes(60_000, 2))
		a.sealAt(0)
		a.together()
		a.cutOff(2)
		a.remove(0, "goes")
		a.pass(time.Minute)
		a.retain(0, 0)
		a.pass(25 * time.Hour)
		eventually(t, time.Minute, "one of two acknowledged", func() bool { return a.ackedAt(0) == 1 })
		_, err := a.compact(0, false)
		if !errors.Is(err, fcp.CodeDependency) {
			t.Fatal(err)
		}
		lost := a.nodes[2].n.self
		if _, err := a.nodes[0].e.DeviceLost(context.Background(), a.owner, lost, "left in the train"); err != nil {
			t.Fatal(err)
		}
		if r, err := a.compact(0, false); err != nil || r.Events == 0 {
			t.Fatalf("%d events dropped: %v", r.Events, err)
		}
	})
}

// TestReleaseKeepsWhatThisNodeNeeds: a writer that drops what others still need finds
// that they do not drop their shares of it.
func TestReleaseKeepsWhatThisNodeNeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAging(t, 3, 13)
		defer a.close()
		a.together()
		body := randomBytes(60_000, 2)
		a.put(0, "kept", body)
		a.put(0, "kept too", randomBytes(60_000, 3))
		a.sealAt(0)
		old := a.segmentsOf(0)
		a.together()
		a.pass(time.Minute)
		a.retain(0, 0)
		a.pass(25 * time.Hour)
		eventually(t, time.Minute, "both acknowledged", func() bool { return a.ackedAt(0) == 2 })
		before := []int{a.sharesAt(1, old), a.sharesAt(2, old)}
		a.dropBehindItsBack(0, "kept")
		a.sealed(0)
		time.Sleep(5 * time.Minute)
		if after := []int{a.sharesAt(1, old), a.sharesAt(2, old)}; !slices.Equal(before, after) {
			t.Fatalf("shares of what is needed: %v, then %v", before, after)
		}
		a.kill(0)
		for i := 1; i < 3; i++ {
			if got, err := a.get(i, "kept"); err != nil || !bytes.Equal(got, body) {
				t.Errorf("node %d: %v", i+1, err)
			}
		}
	})
}

// released waits until nodes have nothing of some segments any more.
func (a *aging) released(old map[fcp.SegmentID]bool, nodes ...int) {
	a.t.Helper()
	for _, i := range nodes {
		for n := 0; a.sharesAt(i, old) > 0; n++ {
			if n > 10 {
				a.t.Fatalf("node %d keeps %d shares and salts of what is gone", i+1, a.sharesAt(i, old))
			}
			time.Sleep(releaseEvery)
		}
	}
}

// cutOff cuts one node from all others and waits until they notice.
func (a *aging) cutOff(i int) {
	for j := range a.nodes {
		if j != i {
			a.net.Cut(host(i), host(j))
		}
	}
	eventually(a.t, 2*time.Minute, "its sessions ended", func() bool { return len(a.nodes[i].n.Peers()) == 0 })
}

// ackedAt counts who, as a node knows, acknowledged the newest mark.
func (a *aging) ackedAt(i int) (n int) {
	a.t.Helper()
	list, newest, err := a.nodes[i].e.Acknowledgements(fcp.ZonePrivate)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, x := range list {
		if x.Mark == newest {
			n++
		}
	}
	return n
}

// dropBehindItsBack compacts a node's log without what a name shows.
func (a *aging) dropBehindItsBack(i int, key string) {
	a.t.Helper()
	e := a.nodes[i].e
	v, err := e.Stat(context.Background(), fcp.ZonePrivate, key, engine.At{})
	if err != nil {
		a.t.Fatal(err)
	}
	object := v.Head().Object
	var runs []log.CompactRun
	err = e.Log().Segments(func(s log.SegmentInfo) error {
		for j, off := range s.Remainder.Seqs {
			if fcp.ObjectID(s.Remainder.Objects[j*fcp.HashSize:][:fcp.HashSize]) == object {
				no, _ := e.Log().FeedNo(s.Remainder.Feed())
				runs = append(runs, log.CompactRun{Feed: no, Segments: []uint64{s.No}, Drop: []uint64{s.Remainder.First + off}})
			}
		}
		return nil
	})
	if err != nil {
		a.t.Fatal(err)
	}
	if r, err := e.Log().Compact(context.Background(), runs); err != nil || r.Events == 0 {
		a.t.Fatalf("%d events: %v", r.Events, err)
	}
}

// join enrolls one more node at the first and starts it.
func (a *aging) join() (i int) {
	a.t.Helper()
	ctx := context.Background()
	i = len(a.nodes)
	first := a.nodes[0]
	env := engine.Environment{FS: vfs.NewCrashableMem(), Now: first.env.Now, Rand: first.env.Rand}
	keys, err := authority.NewNodeKeys(env.Rand)
	if err != nil {
		a.t.Fatal(err)
	}
	manifests, err := first.e.Enroll(ctx, engine.EnrollOptions{Owner: a.owner, Node: keys.Public(), Name: host(i)})
	if err != nil {
		a.t.Fatal(err)
	}
	genesis, err := first.e.GenesisBytes()
	if err != nil {
		a.t.Fatal(err)
	}
	if err := engine.Join(ctx, "/store", engine.JoinOptions{Environment: env, Node: keys, Genesis: genesis, Manifests: manifests}); err != nil {
		a.t.Fatal(err)
	}
	x := &member{opt: first.opt}
	x.opt.Enrollment, x.opt.Members, x.opt.Peers = nil, nil, []string{"h1:1", "h2:1", "h3:1"}
	members, err := first.e.Members()
	if err != nil {
		a.t.Fatal(err)
	}
	for _, m := range members {
		if m.Writer == keys.Writer() {
			x.opt.Enrollment = m.Proof
		}
	}
	a.openSim(x, env)
	x.opt.Network, x.opt.Listen, x.opt.Logger = a.net.Host(host(i)), host(i)+":1", logger().With("node", i+1)
	a.nodes = append(a.nodes, x)
	a.start(x)
	return i
}

// TestJoiningAfterACollection: who joins when members dropped what their feeds once
// carried, on the writer and on those who kept shares of it, comes to the same roots and
// reads all that is live, whoever wrote it, also when the writer is gone; and it holds
// its part of what is collected next.
func TestJoiningAfterACollection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAging(t, 3, 14)
		defer a.close()
		a.together()
		live := map[string][]byte{}
		for i := range 3 { // each has something that stays and something that goes, in segments that are compacted
			for j := range 4 {
				key := fmt.Sprint("stays ", i, j)
				live[key] = randomBytes(20_000, uint64(10*i+j))
				a.put(i, key, live[key])
				a.put(i, fmt.Sprint("goes ", i, j), randomBytes(30_000, uint64(100+10*i+j)))
			}
			a.put(i, "changes", randomBytes(25_000, uint64(200+i)))
			a.sealAt(i)
			a.together()
		}
		live["changes"] = randomBytes(25_000, 202)
		for i := range 3 {
			for j := range 4 {
				a.remove(i, fmt.Sprint("goes ", i, j))
			}
		}
		a.equalRoots(fcp.ZonePrivate)
		a.pass(time.Minute)
		a.retain(0, 0)
		a.pass(25 * time.Hour)
		eventually(t, time.Minute, "all acknowledged", func() bool { return a.ackedAt(0) == 2 })
		old := map[fcp.SegmentID]bool{}
		for i := range 3 {
			for id := range a.segmentsOf(i) {
				old[id] = true
			}
			a.together()
			a.equalRoots(fcp.ZonePrivate)
			r, err := a.compact(i, false)
			if err != nil || r.Events < 4 {
				t.Fatalf("node %d drops %d events: %v", i+1, r.Events, err)
			}
		}
		a.released(old, 0, 1, 2)
		for i := range 3 {
			a.sealed(i)
		}
		d := a.join()
		a.together()
		a.equalRoots(fcp.ZonePrivate, fcp.ZoneOwner)
		reads := func(when string) {
			t.Helper()
			for key, want := range live {
				if got, err := a.get(d, key); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %s: %v", when, key, err)
				}
			}
			for i := range 3 {
				if _, err := a.get(d, fmt.Sprint("goes ", i, 0)); !errors.Is(err, fcp.CodeNotFound) {
					t.Errorf("%s: what was removed: %v", when, err)
				}
			}
		}
		reads("joined")
		if _, err := a.nodes[d].e.Replay(context.Background(), engine.ReplayOptions{}); err != nil {
			t.Error("replay of who joined:", err)
		}
		gone := a.nodes[0].n.self
		a.kill(0)
		reads("without the writer of a third")
		// The next collection waits for the new member, and it does its part.
		a.remove(1, "stays 1 0")
		delete(live, "stays 1 0")
		a.pass(time.Minute)
		a.retain(1, 0)
		a.pass(25 * time.Hour)
		if r, err := a.compact(1, false); err != nil || r.Events != 0 { // by the mark before
			t.Errorf("%d events collected without the word of who is away: %v", r.Events, err)
		}
		eventually(t, time.Minute, "those who are there acknowledged, the new one among them", func() bool { return a.ackedAt(1) == 2 })
		list, newest, err := a.nodes[1].e.Acknowledgements(fcp.ZonePrivate)
		if err != nil || len(list) != 3 {
			t.Fatal(list, err)
		}
		for _, x := range list {
			if (x.Mark == newest) == (x.Writer == gone) {
				t.Errorf("%s acknowledged %d of %d", x.Name, x.Mark, newest)
			}
		}
	})
}
