package gossip

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"pgregory.net/rapid"

	"fcp"
)

// A cluster runs several Cores over a network that a seed decides: messages are
// delayed, sessions break and come back, fetched ranges are sometimes not
// delivered. Each node's log is a list of hashes per feed.
type cluster struct {
	t     testing.TB
	rnd   *rand.Rand
	now   time.Time
	nodes []*simNode
	queue []delivery
	forks map[fcp.FeedID]bool // made by the test
}

type simNode struct {
	i      int
	id     fcp.WriterID
	key    ed25519.PrivateKey
	core   *Core
	feeds  map[fcp.Feed][]fcp.Hash
	heads  map[fcp.Feed]Head // newest signed head of what it has
	forked map[fcp.FeedID][2]Head
	ups    map[int]bool
	seen   map[string]uint64 // Reached
}

type delivery struct {
	at       time.Time
	n        int
	from, to int
	do       func(*simNode)
}

func newCluster(t testing.TB, n int, seed uint64) *cluster {
	c := &cluster{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_800_000_000, 0), forks: map[fcp.FeedID]bool{}}
	var all []fcp.WriterID
	for i := range n {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, 32))
		id := fcp.WriterOf(key.Public().(ed25519.PublicKey))
		all = append(all, id)
		c.nodes = append(c.nodes, &simNode{i: i, id: id, key: key, core: New(Options{Self: id}), feeds: map[fcp.Feed][]fcp.Hash{},
			heads: map[fcp.Feed]Head{}, forked: map[fcp.FeedID][2]Head{}, ups: map[int]bool{}, seen: map[string]uint64{}})
	}
	for _, x := range c.nodes {
		c.step(x, Members{Writers: all})
	}
	return c
}

func (c *cluster) node(id fcp.WriterID) *simNode {
	for _, x := range c.nodes {
		if x.id == id {
			return x
		}
	}
	c.t.Fatalf("no node %s", id)
	return nil
}

func (c *cluster) step(x *simNode, ev Event) {
	for _, eff := range x.core.Step(c.now, ev) {
		c.carryOut(x, eff)
	}
}

// later delivers something to a peer if the session is still the same then.
func (c *cluster) later(x *simNode, to fcp.WriterID, do func(*simNode)) {
	y := c.node(to)
	if !x.ups[y.i] {
		return
	}
	c.queue = append(c.queue, delivery{at: c.now.Add(time.Duration(c.rnd.IntN(50)) * time.Millisecond), n: len(c.queue), from: x.i, to: y.i, do: do})
}

func (c *cluster) carryOut(x *simNode, eff Effect) {
	switch e := eff.(type) {
	case Send:
		b, err := e.Message.Encode()
		if err != nil {
			c.t.Fatal(err)
		}
		m := reencode(c.t, e.Message, b)
		c.later(x, e.Peer, func(y *simNode) { c.step(y, Received{x.id, m}) })
	case Push:
		c.deliver(x, e.Peer, e.Head.Feed(), Range{e.First, e.Head.Seq}, e.Head)
	case Fetch:
		y := c.node(e.Peer)
		feed := e.Head.Feed()
		if c.rnd.IntN(5) == 0 {
			c.later(x, e.Peer, func(*simNode) {
				c.later(y, x.id, func(x *simNode) { c.step(x, Failed{y.id, feed}) })
			})
			return
		}
		c.later(x, e.Peer, func(y *simNode) {
			h := y.heads[feed]
			for _, r := range e.Ranges {
				c.deliver(y, x.id, feed, Range{r.First, min(r.Last, h.Seq)}, h)
			}
		})
	case Compare:
		if f := x.feeds[e.Head.Feed()]; f[e.Head.Seq-1] != e.Head.Hash {
			mine := x.heads[e.Head.Feed()]
			c.step(x, Contradicts{e.Peer, mine, e.Head})
		}
	case Forked:
		id := e.A.Feed().ID()
		if _, again := x.forked[id]; again {
			c.t.Fatalf("node %d was told twice of a fork", x.i)
		}
		if !c.forks[id] {
			c.t.Fatalf("node %d sees a fork where there is none", x.i)
		}
		x.forked[id] = [2]Head{e.A, e.B}
	case Reached:
		y := c.node(e.Peer)
		if got := uint64(len(y.feeds[e.Feed])); got < e.Seq {
			c.t.Fatalf("node %d is said to have %d events of a feed and has %d", y.i, e.Seq, got)
		}
		x.seen[fmt.Sprint(y.i, e.Feed)] = max(x.seen[fmt.Sprint(y.i, e.Feed)], e.Seq)
	case Drop:
		c.t.Fatal("a member was dropped")
	}
}

// reencode gives the receiver a message of its own, as a network would.
func reencode(t testing.TB, m Message, b []byte) Message {
	var out Message
	var err error
	switch m.(type) {
	case *Vector:
		out, err = DecodeVector(b)
	case *Digest:
		out, err = DecodeDigest(b)
	case *Update:
		out, err = DecodeUpdate(b)
	case *WhoHas:
		out, err = DecodeWhoHas(b)
	case *Leave:
		out = &Leave{}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// deliver sends events of a feed under a head.
func (c *cluster) deliver(x *simNode, to fcp.WriterID, feed fcp.Feed, r Range, h Head) {
	if r.First > r.Last || r.Last > uint64(len(x.feeds[feed])) {
		return
	}
	hashes := slices.Clone(x.feeds[feed][r.First-1 : r.Last])
	c.later(x, to, func(y *simNode) {
		mine := y.feeds[feed]
		if r.First > uint64(len(mine))+1 {
			return // a gap: the fetch will fill it
		}
		// A chain: an event continues one history only.
		if at := r.First - 1; at > 0 && r.First <= uint64(len(mine))+1 {
			if len(x.feeds[feed]) >= int(at) && mine[at-1] != x.feeds[feed][at-1] {
				c.step(y, Contradicts{x.id, y.heads[feed], h})
				return
			}
		}
		for i, hash := range hashes {
			if at := r.First + uint64(i); at <= uint64(len(mine)) {
				if mine[at-1] != hash {
					c.step(y, Contradicts{x.id, y.heads[feed], h})
					return
				}
				continue
			}
			mine = append(mine, hash)
		}
		if uint64(len(mine)) != h.Seq || h.Seq <= y.heads[feed].Seq {
			return // only up to a signed head
		}
		y.feeds[feed], y.heads[feed] = mine, h
		c.step(y, LocalHead{h, x.id})
	})
}

// write appends events to an own feed.
func (c *cluster) write(x *simNode, zone fcp.ZoneID, n int) {
	feed := fcp.Feed{Zone: zone, Writer: x.id, Incarnation: 1, Plane: fcp.PlaneControl}
	for range n {
		var h fcp.Hash
		for i := range h {
			h[i] = byte(c.rnd.Uint32())
		}
		x.feeds[feed] = append(x.feeds[feed], h)
	}
	h := HeadOf(feed, uint64(len(x.feeds[feed])), x.feeds[feed][len(x.feeds[feed])-1], fcp.Hash{1})
	h.Signature = ed25519.Sign(x.key, h.Message())
	x.heads[feed] = h
	c.step(x, LocalHead{Head: h})
}

func (c *cluster) connect(x, y *simNode) {
	if x.i == y.i || x.ups[y.i] {
		return
	}
	x.ups[y.i], y.ups[x.i] = true, true
	c.step(x, PeerUp{y.id})
	c.step(y, PeerUp{x.id})
}

func (c *cluster) disconnect(x, y *simNode) {
	if !x.ups[y.i] {
		return
	}
	delete(x.ups, y.i)
	delete(y.ups, x.i)
	c.queue = slices.DeleteFunc(c.queue, func(d delivery) bool {
		return d.from == x.i && d.to == y.i || d.from == y.i && d.to == x.i
	})
	c.step(x, PeerDown{y.id})
	c.step(y, PeerDown{x.id})
}

// run lets time pass: deliveries in order per pair, ticks in between.
func (c *cluster) run(d time.Duration) {
	for end := c.now.Add(d); c.now.Before(end); c.now = c.now.Add(10 * time.Millisecond) {
		for {
			// Of each pair the oldest first: streams keep order.
			best := -1
			blocked := map[[2]int]bool{}
			for i := range c.queue {
				q := &c.queue[i]
				pair := [2]int{q.from, q.to}
				if blocked[pair] {
					continue
				}
				blocked[pair] = true
				if !q.at.After(c.now) {
					best = i
					break
				}
			}
			if best < 0 {
				break
			}
			q := c.queue[best]
			c.queue = slices.Delete(c.queue, best, best+1)
			q.do(c.nodes[q.to])
		}
		for _, x := range c.nodes {
			c.step(x, Tick{})
		}
	}
}

// checkEqual fails unless every node has the same events of every feed that did
// not fork, and knows of every fork that two of them are on different sides of.
func (c *cluster) checkEqual() {
	c.t.Helper()
	want := map[fcp.Feed][]fcp.Hash{}
	for _, x := range c.nodes {
		for f, h := range x.feeds {
			if !c.forks[f.ID()] && len(h) > len(want[f]) {
				want[f] = h
			}
		}
	}
	for _, x := range c.nodes {
		for f, h := range want {
			if !slices.Equal(x.feeds[f], h) {
				c.t.Errorf("node %d has %d events of a feed of node %d, not %d", x.i, len(x.feeds[f]), c.node(f.Writer).i, len(h))
			}
			if f.Writer == x.id {
				for _, y := range c.nodes {
					if y.i != x.i && x.seen[fmt.Sprint(y.i, f)] != uint64(len(h)) {
						c.t.Errorf("node %d was told that node %d has %d of its %d events", x.i, y.i, x.seen[fmt.Sprint(y.i, f)], len(h))
					}
				}
			}
		}
		if x.core.open != 0 {
			c.t.Errorf("node %d: %d fetches are open", x.i, x.core.open)
		}
	}
}

// TestNodesConverge is the property: whatever was written, lost, cut off and
// healed, all have the same within five virtual seconds of full connection, and
// every writer knows that they have.
func TestNodesConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		n := rapid.IntRange(2, 5).Draw(rt, "nodes")
		c := newCluster(t, n, seed)
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			x, y := c.nodes[c.rnd.IntN(n)], c.nodes[c.rnd.IntN(n)]
			switch c.rnd.IntN(5) {
			case 0, 1:
				c.write(x, []fcp.ZoneID{fcp.ZoneWork, fcp.ZonePrivate}[c.rnd.IntN(2)], 1+c.rnd.IntN(4))
			case 2:
				c.connect(x, y)
			case 3:
				c.disconnect(x, y)
			default:
				c.run(time.Duration(c.rnd.IntN(300)) * time.Millisecond)
			}
		}
		for _, x := range c.nodes {
			for _, y := range c.nodes[x.i+1:] {
				c.connect(x, y)
			}
		}
		c.run(5 * time.Second)
		c.checkEqual()
		if t.Failed() {
			rt.Fatalf("seed %d, %d nodes", seed, n)
		}
	})
}

// TestTwoBranchesAreSeenWhenTheyMeet gives two nodes different histories of the
// feed of a third. All learn of it, with both signed heads, and other feeds go on.
func TestTwoBranchesAreSeenWhenTheyMeet(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCluster(t, 3, rapid.Uint64().Draw(rt, "seed"))
		liar, a, b := c.nodes[0], c.nodes[1], c.nodes[2]
		feed := fcp.Feed{Zone: fcp.ZoneWork, Writer: liar.id, Incarnation: 1, Plane: fcp.PlaneControl}
		c.forks[feed.ID()] = true
		give := func(to *simNode, n int) {
			c.write(liar, fcp.ZoneWork, n)
			to.feeds[feed], to.heads[feed] = slices.Clone(liar.feeds[feed]), liar.heads[feed]
			c.step(to, LocalHead{liar.heads[feed], liar.id})
		}
		c.write(liar, fcp.ZoneWork, rapid.IntRange(1, 4).Draw(rt, "common"))
		common := slices.Clone(liar.feeds[feed])
		give(a, rapid.IntRange(1, 90).Draw(rt, "one"))
		liar.feeds[feed] = slices.Clone(common)
		*liar = simNode{i: 0, id: liar.id, key: liar.key, core: New(Options{Self: liar.id}), feeds: liar.feeds, heads: liar.heads,
			forked: map[fcp.FeedID][2]Head{}, ups: map[int]bool{}, seen: map[string]uint64{}}
		give(b, rapid.IntRange(1, 90).Draw(rt, "other"))
		c.connect(a, b)
		c.write(a, fcp.ZoneWork, 2)
		c.run(5 * time.Second)
		if len(a.forked)+len(b.forked) == 0 {
			rt.Fatal("nobody saw the fork")
		}
		for _, x := range []*simNode{a, b} {
			for _, pair := range x.forked {
				for _, h := range pair {
					if !h.Verify(liar.key.Public().(ed25519.PublicKey)) {
						rt.Fatal("a head of the proof is not signed by the liar")
					}
				}
			}
		}
		own := fcp.Feed{Zone: fcp.ZoneWork, Writer: a.id, Incarnation: 1, Plane: fcp.PlaneControl}
		if len(b.feeds[own]) != 2 {
			rt.Fatal("an honest feed stopped too")
		}
	})
}

// TestMissingEventsAreExact compares lacks with sets.
func TestMissingEventsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) known {
			k := known{seq: rapid.Uint64Range(0, 20).Draw(t, label)}
			for _, x := range rapid.SliceOf(rapid.Uint32Range(2, 20)).Draw(t, label+" extras") {
				if k.extras == nil {
					k.extras = roaring.New()
				}
				k.extras.Add(x)
			}
			return k
		}
		a, b := draw("a"), draw("b")
		got := map[uint64]bool{}
		last := uint64(0)
		for _, r := range a.lacks(b) {
			if r.First > r.Last || r.First <= last && last != 0 {
				t.Fatalf("ranges %v are not in order", a.lacks(b))
			}
			last = r.Last
			for s := r.First; s <= r.Last; s++ {
				got[s] = true
			}
		}
		for s := uint64(1); s < 60; s++ {
			if want := b.has(s) && !a.has(s); got[s] != want {
				t.Fatalf("event %d: %v, want %v", s, got[s], want)
			}
		}
	})
}

func TestAFarHeadCostsNothing(t *testing.T) {
	extras := roaring.BitmapOf(2, MaxExtra)
	r := known{5, extras}.lacks(known{seq: 1 << 60})
	if len(r) != 3 || r[2].Last != 1<<60 {
		t.Errorf("%v", r)
	}
}

func TestOnlyMembersStay(t *testing.T) {
	c := newCluster(t, 3, 1)
	core := c.nodes[0].core
	stranger := fcp.WriterID{9}
	if eff := core.Step(c.now, PeerUp{stranger}); len(eff) != 1 || eff[0] != (Drop{stranger}) {
		t.Errorf("a stranger: %v", eff)
	}
	if eff := core.Step(c.now, Received{stranger, &Digest{}}); len(eff) != 0 {
		t.Errorf("a stranger is answered: %v", eff)
	}
	core.Step(c.now, PeerUp{c.nodes[1].id})
	core.Step(c.now, PeerUp{c.nodes[2].id})
	eff := core.Step(c.now, Members{Writers: []fcp.WriterID{c.nodes[0].id, c.nodes[2].id}})
	if !slices.Contains(eff, Effect(Drop{c.nodes[1].id})) || slices.Contains(core.Up(), c.nodes[1].id) {
		t.Errorf("a revoked member stays: %v", eff)
	}
	if !slices.Contains(core.Up(), c.nodes[2].id) {
		t.Error("a member was dropped")
	}
}

func TestInventoriesTravel(t *testing.T) {
	c := newCluster(t, 3, 7)
	s1, s2 := fcp.SegmentID{1}, fcp.SegmentID{2}
	a, b := c.nodes[0], c.nodes[1]
	c.step(a, LocalSymbols{s1, roaring.BitmapOf(1, 2, 3)})
	c.connect(a, b)
	c.run(time.Second)
	holders := func(id fcp.SegmentID) string {
		out := ""
		for _, h := range b.core.Holders(id) {
			out += fmt.Sprint(c.node(h.Peer).i, h.Symbols.ToArray(), h.Up)
		}
		return out
	}
	if got := holders(s1); got != "0 [1 2 3] true" {
		t.Error("at the start:", got)
	}
	c.step(a, LocalSymbols{s2, roaring.BitmapOf(9)})
	c.step(a, LocalSymbols{s1, nil})
	c.run(time.Second)
	if got := holders(s1) + holders(s2); got != "0 [9] true" {
		t.Error("after a change:", got)
	}
	c.disconnect(a, b)
	if got := holders(s2); got != "0 [9] false" {
		t.Error("an absent peer's symbols:", got)
	}
	c.connect(a, b)
	c.step(b, Tick{})
	eff := a.core.Step(c.now, Received{b.id, &WhoHas{[]fcp.SegmentID{s1, s2}}})
	if len(eff) != 1 {
		t.Fatalf("%v", eff)
	}
	u := eff[0].(Send).Message.(*Update)
	if len(u.Entries) != 2 || len(u.Entries[0].Symbols) != 0 || len(u.Entries[1].Symbols) == 0 || !u.Answer {
		t.Errorf("answer %+v", u)
	}
}

// TestAnInventoryIsListedWithItsLastPart has a peer with more segments than go into one
// message, and one with none.
func TestAnInventoryIsListedWithItsLastPart(t *testing.T) {
	for _, segments := range []int{0, 1, maxEntriesPerMessage, 2*maxEntriesPerMessage + 1} {
		c := newCluster(t, 2, 3)
		a, b := c.nodes[0], c.nodes[1]
		for i := range segments {
			a.core.Step(c.now, LocalSymbols{fcp.SegmentID{byte(i)}, roaring.BitmapOf(1)})
		}
		b.core.Step(c.now, PeerUp{a.id})
		var parts []*Update
		for _, e := range a.core.Step(c.now, PeerUp{b.id}) {
			if s, ok := e.(Send); ok {
				if u, ok := s.Message.(*Update); ok && (u.First || len(parts) > 0) {
					parts = append(parts, u)
				}
			}
		}
		for i, u := range parts {
			if b.core.Listed(a.id) {
				t.Fatalf("%d segments: listed before part %d of %d", segments, i+1, len(parts))
			}
			raw, err := u.Encode()
			if err == nil {
				u, err = DecodeUpdate(raw)
			}
			if err != nil {
				t.Fatal(err)
			}
			b.core.Step(c.now, Received{a.id, u})
			b.core.Step(c.now, Received{a.id, &Update{Entries: []Entry{}, Answer: true}})
		}
		if got := len(b.core.HeldBy(a.id)); !b.core.Listed(a.id) || got != segments {
			t.Fatalf("%d segments in %d parts: listed %v, %d", segments, len(parts), b.core.Listed(a.id), got)
		}
		b.core.Step(c.now, PeerDown{a.id})
		if !b.core.Listed(a.id) {
			t.Fatal("what an absent peer said is forgotten")
		}
	}
}

func TestAPeerAheadInAnOwnFeedIsReported(t *testing.T) {
	c := newCluster(t, 2, 3)
	a, b := c.nodes[0], c.nodes[1]
	c.write(a, fcp.ZoneWork, 1)
	c.connect(a, b)
	c.run(time.Second)
	h := a.heads[fcp.Feed{Zone: fcp.ZoneWork, Writer: a.id, Incarnation: 1, Plane: fcp.PlaneControl}]
	h.Seq = 5
	eff := a.core.Step(c.now, Received{b.id, &Vector{Heads: []Head{h}}})
	if !slices.ContainsFunc(eff, func(e Effect) bool { _, ok := e.(Ahead); return ok }) {
		t.Errorf("%v", eff)
	}
}

func TestLeavingIsSaid(t *testing.T) {
	c := newCluster(t, 2, 3)
	a, b := c.nodes[0], c.nodes[1]
	c.connect(a, b)
	c.run(time.Second)
	gone := false
	for _, e := range a.core.Step(c.now, Leaving{}) {
		if s, ok := e.(Send); ok {
			for _, e := range b.core.Step(c.now, Received{a.id, s.Message}) {
				if g, ok := e.(Gone); ok && g.Peer == a.id {
					gone = true
				}
			}
		}
	}
	if !gone || len(b.core.Up()) != 0 {
		t.Error("the farewell was not heard")
	}
}

// TestAWriterThatIsKnownLateIsAskedFor: heads of a writer that was taken out could not
// be verified while its enrollment was not here, and are asked for once it is, although
// the members are the same.
func TestAWriterThatIsKnownLateIsAskedFor(t *testing.T) {
	self, peer := fcp.WriterID{1}, fcp.WriterID{2}
	now := time.Unix(1_800_000_000, 0)
	c := New(Options{Self: self})
	asks := func(known int) (n int) {
		for _, e := range c.Step(now, Members{Writers: []fcp.WriterID{self, peer}, Known: known}) {
			if s, ok := e.(Send); ok {
				if v, ok := s.Message.(*Vector); ok && v.Reply && s.Peer == peer {
					n++
				}
			}
		}
		return n
	}
	asks(2)
	c.Step(now, PeerUp{peer})
	if asks(2) != 0 || asks(3) != 1 || asks(3) != 0 {
		t.Error("not asked once for what could not be verified")
	}
}
