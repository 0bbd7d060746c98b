// Package enginetest runs several engines of one owner in one process. They
// exchange events directly, so that quorums, forks and orders of arrival are real
// before and without a network.
//
// A Mesh is for one test and used by one goroutine. Time and randomness are the
// test's: one clock for all nodes, one seed for each. A helper that fails ends the
// test.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/log"
)

// Clock is the wall clock of a mesh. Safe for concurrent use.
type Clock struct {
	mu     sync.Mutex
	now    time.Time // guarded by mu
	frozen bool      // guarded by mu
}

// Now returns the time and moves it on by a millisecond, unless the clock is frozen.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.frozen {
		c.now = c.now.Add(time.Millisecond)
	}
	return c.now
}

// Freeze lets the clock move by Advance and Reach only: then what one seed does never
// depends on how often somebody asked for the time.
func (c *Clock) Freeze() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = true
}

// Reach moves the clock on to a time that is not past.
func (c *Clock) Reach(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.After(c.now) {
		c.now = t
	}
}

// Advance moves the clock on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// source is a repeatable source of bytes. Safe for concurrent use.
type source struct {
	mu sync.Mutex
	r  *rand.ChaCha8 // guarded by mu
}

func (s *source) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.r.Read(p)
}

// Random returns a repeatable source of bytes.
func Random(seed uint64) io.Reader {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return &source{r: rand.NewChaCha8(key)}
}

// Mesh is a set of engines of one owner.
type Mesh struct {
	T     testing.TB
	Owner *authority.OwnerKey
	Clock *Clock
	Nodes []*Node

	seed  uint64
	files vfs.FS // of the nodes that join; nil: a file system of its own for each
}

// Node is one engine of a mesh on a file system of its own, in memory.
type Node struct {
	*engine.Engine
	Name string

	m     *Mesh
	env   engine.Environment
	clock *skewed
}

const dir = "/store"

// New makes a mesh of n nodes: the first founds the store, the others are enrolled
// in it and have caught up. Each holds every zone. The engines close with the test.
func New(t testing.TB, seed uint64, n int) *Mesh {
	t.Helper()
	m := &Mesh{T: t, Clock: &Clock{now: time.UnixMilli(1_800_000_000_000)}, seed: seed}
	var err error
	if m.Owner, err = authority.NewOwnerKey(Random(seed)); err != nil {
		t.Fatal(err)
	}
	first := m.node("node-0")
	if _, err := engine.Init(context.Background(), dir, engine.InitOptions{Environment: first.env, Owner: m.Owner, Device: first.Name}); err != nil {
		t.Fatal(err)
	}
	first.open()
	m.Nodes = append(m.Nodes, first)
	for range n - 1 {
		m.Join(true)
	}
	m.Sync()
	return m
}

// node makes a node without a store.
func (m *Mesh) node(name string) *Node {
	m.seed++
	clock, files := &skewed{clock: m.Clock}, m.files
	if files == nil {
		files = vfs.NewCrashableMem()
	}
	return &Node{Name: name, m: m, clock: clock, env: engine.Environment{FS: files, Now: clock.Now, Rand: Random(m.seed << 20)}}
}

// Join adds a node. A member is enrolled by the first node and holds every zone; an
// observer only folds what it is given.
func (m *Mesh) Join(member bool) *Node {
	m.T.Helper()
	first := m.Nodes[0]
	n := m.node(fmt.Sprint("node-", len(m.Nodes)))
	keys, err := authority.NewNodeKeys(n.env.Rand)
	m.check(err)
	var manifests [][]byte
	if member {
		hybrid, err := keys.Hybrid()
		m.check(err)
		manifests, err = first.Enroll(context.Background(), engine.EnrollOptions{Owner: m.Owner, Node: keys.Public(), Name: n.Name, Hybrid: hybrid})
		m.check(err)
	}
	genesis, err := first.GenesisBytes()
	m.check(err)
	m.check(engine.Join(context.Background(), dir, engine.JoinOptions{Environment: n.env, Node: keys, Genesis: genesis, Manifests: manifests}))
	n.open()
	if member {
		m.Nodes = append(m.Nodes, n)
	}
	return n
}

func (m *Mesh) check(err error) {
	m.T.Helper()
	if err != nil {
		m.T.Fatal(err)
	}
}

func (n *Node) open() {
	n.m.T.Helper()
	e, err := engine.Open(context.Background(), dir, engine.Options{Environment: n.env, NoBallast: true, MemTableBytes: 256 << 10})
	n.m.check(err)
	if n.Engine == nil {
		n.m.T.Cleanup(func() {
			if err := n.Engine.Close(); err != nil {
				n.m.T.Error("close:", err)
			}
		})
	}
	n.Engine = e
}

// Reopen closes the engine and opens it again.
func (n *Node) Reopen() {
	n.m.T.Helper()
	n.m.check(n.Engine.Close())
	n.open()
}

// Clone copies the node's disk to another machine, as a thief or a careless owner
// does: two engines with one identity and one incarnation, which will contradict
// each other. It is no member of Nodes.
func (n *Node) Clone() *Node {
	n.m.T.Helper()
	n.m.check(n.Engine.Close())
	c := n.m.node(n.Name + "-clone")
	n.m.check(copyTree(c.env.FS, n.env.FS, "/"))
	n.open()
	c.open()
	return c
}

func copyTree(to, from vfs.FS, path string) error {
	names, err := from.List(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		p := from.PathJoin(path, name)
		info, err := from.Stat(p)
		if err != nil {
			return err
		}
		if info.IsDir() {
			err = errors.Join(to.MkdirAll(p, 0o700), copyTree(to, from, p))
		} else {
			err = vfs.CopyAcrossFS(from, p, to, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Feed is the events of one feed, from the first, with their salts.
type Feed struct {
	Events []fcp.Event
	Salts  [][log.SaltSize]byte
}

// Feeds returns every feed of a zone and plane that the node holds, also those of
// other writers, in a fixed order.
func (n *Node) Feeds(zone fcp.ZoneID, plane fcp.Plane) (out []Feed) {
	n.m.T.Helper()
	list := n.Log().Feeds()
	slices.SortFunc(list, func(a, b log.FeedState) int { return slices.Compare(a.ID[:], b.ID[:]) })
	for _, f := range list {
		if f.Feed.Zone == zone && f.Feed.Plane == plane && f.Seq > 0 {
			out = append(out, n.events(f.No, 1, f.Seq))
		}
	}
	return out
}

func (n *Node) events(no log.FeedNo, first, last uint64) (f Feed) {
	for seq := first; seq <= last; seq++ {
		ev, _, err := n.Log().ReadFull(no, seq)
		n.m.check(err)
		salt, err := n.Log().Salt(no, seq)
		n.m.check(err)
		f.Events, f.Salts = append(f.Events, ev), append(f.Salts, salt)
	}
	return f
}

// Pull takes everything of a zone that the other node holds and this one lacks. It
// returns the feeds of which the two hold different branches.
func (n *Node) Pull(from *Node, zone fcp.ZoneID) (forked []fcp.Feed) {
	n.m.T.Helper()
	for _, theirs := range from.Log().Feeds() {
		if theirs.Feed.Zone != zone || !theirs.Feed.Plane.Chained() || theirs.Seq == 0 {
			continue
		}
		have := uint64(0)
		if no, ok := n.Log().FeedNo(theirs.Feed); ok {
			mine, _ := n.Log().Head(no)
			have = min(mine.Seq, theirs.Seq)
			if have > 0 && n.hashAt(theirs.Feed, have) != from.hashAt(theirs.Feed, have) {
				forked = append(forked, theirs.Feed)
				continue
			}
		}
		if have == theirs.Seq {
			continue
		}
		f := from.events(theirs.No, have+1, theirs.Seq)
		taken, err := n.ImportEvents(context.Background(), f.Events, f.Salts)
		n.m.check(err)
		if taken != len(f.Events) {
			n.m.T.Fatalf("%d of %d events taken", taken, len(f.Events))
		}
	}
	return forked
}

func (n *Node) hashAt(feed fcp.Feed, seq uint64) fcp.Hash {
	no, _ := n.Log().FeedNo(feed)
	ev, _, err := n.Log().ReadFull(no, seq)
	n.m.check(err)
	return ev.Hash()
}

// Parts returns the first number at which two nodes hold different events of a
// feed; 0 when one holds the beginning of what the other holds.
func (n *Node) Parts(other *Node, feed fcp.Feed) uint64 {
	n.m.T.Helper()
	a, _ := n.Log().FeedNo(feed)
	b, _ := other.Log().FeedNo(feed)
	mine, _ := n.Log().Head(a)
	theirs, _ := other.Log().Head(b)
	last := min(mine.Seq, theirs.Seq)
	if last == 0 || n.hashAt(feed, last) == other.hashAt(feed, last) {
		return 0
	}
	low, high := uint64(1), last // the chain differs from somewhere on
	for low < high {
		mid := (low + high) / 2
		if n.hashAt(feed, mid) == other.hashAt(feed, mid) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// Sync lets all nodes exchange everything until nothing is new; without zones, all
// that the first node knows.
func (m *Mesh) Sync(zones ...fcp.ZoneID) {
	m.T.Helper()
	if len(zones) == 0 {
		zones = m.Nodes[0].Zones()
	}
	for range 2 { // each pair twice carries everything to everybody
		for _, to := range m.Nodes {
			for _, from := range m.Nodes {
				for _, z := range zones {
					if to != from {
						to.Pull(from, z)
					}
				}
			}
		}
	}
}

// Root returns the node's zone root.
func (n *Node) Root(zone fcp.ZoneID) fcp.Hash {
	n.m.T.Helper()
	root, err := n.ZoneRoot(zone)
	n.m.check(err)
	return root
}

// OwnFeed returns the node's own feed of a zone and plane.
func (n *Node) OwnFeed(zone fcp.ZoneID, plane fcp.Plane) fcp.Feed {
	n.m.T.Helper()
	for _, f := range n.Log().Feeds() {
		if f.Own && f.Feed.Zone == zone && f.Feed.Plane == plane {
			return f.Feed
		}
	}
	n.m.T.Fatalf("%s has no feed of its own in %s", n.Name, zone)
	return fcp.Feed{}
}
