package gossip

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"fcp"
)

// Options configures a Core. The zero value of every field is usable.
type Options struct {
	Self        fcp.WriterID
	Incarnation uint64        // whose feeds of Self are its own; 0: all
	Flush       time.Duration // between announcements of what others wrote; 0: 200 ms
	AntiEntropy time.Duration // between digests to each peer; 0: 10 s
	FetchWait   time.Duration // deadline of one Fetch; 0: 10 s
	Fetches     int           // open at once; 0: 16
	MaxFeeds    int           // feeds of others that are remembered, of one writer at most 1/16; 0: 65,536
	MaxSegments int           // segments remembered of one peer; 0: 1,048,576
	MaxHolds    uint64        // bytes of their sets of symbols; 0: 64 MiB
}

func (o *Options) setDefaults() {
	o.Flush = cmp.Or(o.Flush, 200*time.Millisecond)
	o.AntiEntropy = cmp.Or(o.AntiEntropy, 10*time.Second)
	o.FetchWait = cmp.Or(o.FetchWait, 10*time.Second)
	o.Fetches = cmp.Or(o.Fetches, 16)
	o.MaxFeeds = cmp.Or(o.MaxFeeds, 1<<16)
	o.MaxSegments = cmp.Or(o.MaxSegments, 1<<20)
	o.MaxHolds = cmp.Or(o.MaxHolds, 64<<20)
}

// Core is the state machine. It is not safe for concurrent use.
type Core struct {
	opt     Options
	members map[fcp.WriterID]bool
	known   int // writers whose heads can be verified, those who were taken out too
	peers   map[fcp.WriterID]*peer
	ups     []*peer // that are there, ascending; nil: to be made anew
	feeds   map[fcp.FeedID]*feed
	order   []fcp.FeedID // of feeds, ascending
	own     Inventory
	dirty   map[fcp.FeedID]bool        // to be announced with the next flush
	changed map[fcp.SegmentID]struct{} // of own, likewise
	flushed time.Time
	open    int // fetches under way
	wanted  int // feeds that are
	writers map[fcp.WriterID]shareOf
	out     []Effect
}

// peer is what is known of another node.
type peer struct {
	id       fcp.WriterID
	up       bool
	told     bool // its whole vector came in this session
	heads    map[fcp.FeedID]known
	sent     map[fcp.FeedID]uint64 // own events on their way to it in this session
	holds    Inventory
	held     uint64    // bytes of holds
	listing  bool      // parts of its inventory are still to come
	listed   bool      // its whole inventory came, in this session or in one before
	digested time.Time // last digest sent
	fetches  int       // open
}

// shareOf is what one writer takes of the room that there is.
type shareOf struct{ feeds, fetches int }

// recentHashes is how many of a feed's last heads are remembered, so that a peer a
// little behind is compared without reading the log.
const recentHashes = 64

// feed is what this node knows of one control feed.
type feed struct {
	id     fcp.FeedID
	feed   fcp.Feed
	own    bool
	head   Head // Seq 0: nothing here yet
	mine   known
	recent []Head // of this node, oldest first, head among them
	frozen bool
	held   time.Time // not fetched before
	fetch  *fetch
	failed fcp.WriterID // who did not deliver last
	wanted bool         // a peer has more, or may have: nobody, once all was looked at
}

type fetch struct {
	peer  fcp.WriterID
	until time.Time
}

// New returns the Core of one node.
func New(o Options) *Core {
	o.setDefaults()
	return &Core{opt: o, members: map[fcp.WriterID]bool{}, peers: map[fcp.WriterID]*peer{}, feeds: map[fcp.FeedID]*feed{},
		own: Inventory{}, writers: map[fcp.WriterID]shareOf{}, dirty: map[fcp.FeedID]bool{}, changed: map[fcp.SegmentID]struct{}{}}
}

// Busy reports whether a Tick soon has something to do: announcements that wait, or
// what a peer has more of. Else one a second is enough.
func (c *Core) Busy() bool { return c.wanted > 0 || len(c.dirty) > 0 || len(c.changed) > 0 }

// Step takes an event in and returns what to do, in this order. The effects are
// the caller's until it has carried them out; they share nothing with the Core
// but immutable messages.
func (c *Core) Step(now time.Time, ev Event) []Effect {
	c.out = nil
	switch e := ev.(type) {
	case Members:
		c.setMembers(now, e.Writers, e.Known)
	case PeerUp:
		c.peerUp(now, e.Peer)
	case PeerDown:
		c.peerDown(now, e.Peer)
	case Received:
		c.received(now, e.Peer, e.Message)
	case LocalHead:
		c.localHead(now, e)
	case LocalSymbols:
		c.localSymbols(e)
	case Held:
		c.heldBack(now, e)
	case Failed:
		c.failedFetch(now, e)
	case Progress:
		if f := c.feeds[e.Feed.ID()]; f != nil && f.fetch != nil && f.fetch.peer == e.Peer {
			f.fetch.until = now.Add(c.opt.FetchWait)
		}
	case Contradicts:
		c.fork(e.Peer, e.Mine, e.Theirs)
	case Renewed:
		c.renew(now, e.Incarnation)
	case Leaving:
		for _, p := range c.upPeers() {
			c.send(p, &Leave{})
		}
	case Tick:
		c.tick(now)
	}
	return c.out
}

func (c *Core) emit(e Effect) { c.out = append(c.out, e) }

func (c *Core) send(p *peer, m Message) { c.emit(Send{p.id, m}) }

func compareWriters(a, b fcp.WriterID) int { return bytes.Compare(a[:], b[:]) }

// upPeers returns the peers that are there, ascending. The caller must not change it.
func (c *Core) upPeers() []*peer {
	if c.ups != nil {
		return c.ups
	}
	out := []*peer{}
	for _, p := range c.peers {
		if p.up {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *peer) int { return compareWriters(a.id, b.id) })
	c.ups = out
	return out
}

// setMembers takes the owner's word on who belongs. Heads that could not be
// verified before may be now, so every peer is asked again.
func (c *Core) setMembers(now time.Time, writers []fcp.WriterID, known int) {
	next := make(map[fcp.WriterID]bool, len(writers))
	for _, w := range writers {
		next[w] = true
	}
	if maps.Equal(next, c.members) && known == c.known {
		return
	}
	c.members, c.known = next, known
	for _, p := range c.upPeers() {
		if !next[p.id] {
			c.peerDown(now, p.id)
			c.emit(Drop{p.id})
			continue
		}
		c.sendVector(p, true)
	}
	for id := range c.peers {
		if !next[id] {
			delete(c.peers, id)
		}
	}
	c.ups = nil
}

func (c *Core) peerUp(now time.Time, id fcp.WriterID) {
	if !c.members[id] {
		c.emit(Drop{id})
		return
	}
	p := c.peers[id]
	if p == nil {
		p = &peer{id: id, holds: Inventory{}}
		c.peers[id] = p
	}
	p.up, p.told, p.digested = true, false, now
	c.ups = nil
	p.heads, p.sent = map[fcp.FeedID]known{}, map[fcp.FeedID]uint64{}
	c.sendVector(p, false)
	c.sendInventory(p)
}

func (c *Core) peerDown(now time.Time, id fcp.WriterID) {
	p := c.peers[id]
	if p == nil || !p.up {
		return
	}
	p.up, p.told = false, false
	p.heads, p.sent = nil, nil
	c.ups = nil
	for _, f := range c.inOrder() {
		if f.fetch != nil && f.fetch.peer == id {
			c.endFetch(f)
			f.failed = id
			c.pull(now, f)
		}
	}
}

// sendVector sends the whole vector in as many messages as it takes.
func (c *Core) sendVector(p *peer, reply bool) {
	v := &Vector{Heads: []Head{}}
	for _, f := range c.inOrder() {
		if f.head.Seq == 0 {
			continue // of a frozen feed others learn here that it forked, and what comes before
		}
		if len(v.Heads) == maxHeadsPerMessage {
			c.send(p, v)
			v = &Vector{Heads: []Head{}}
		}
		v.Heads = append(v.Heads, f.head)
	}
	v.Last, v.Reply = true, reply
	c.send(p, v)
}

// maxHeadsPerMessage keeps a vector of large heads below MaxVector.
const maxHeadsPerMessage = 100

func (c *Core) sendInventory(p *peer) {
	u := &Update{Entries: []Entry{}, First: true}
	for _, id := range c.own.ids() {
		if len(u.Entries) == maxEntriesPerMessage {
			u.More = true
			c.send(p, u)
			u = &Update{Entries: []Entry{}}
		}
		if e, err := entryOf(id, c.own[id]); err == nil {
			u.Entries = append(u.Entries, e)
		}
	}
	c.send(p, u)
}

// maxEntriesPerMessage keeps an update of large bitmaps below MaxUpdate.
const maxEntriesPerMessage = 30

func (c *Core) received(now time.Time, from fcp.WriterID, m Message) {
	p := c.peers[from]
	if p == nil || !p.up {
		return
	}
	switch m := m.(type) {
	case *Vector:
		c.takeVector(now, p, m)
	case *Digest:
		if own := c.Digest(); *m != own {
			c.sendVector(p, true)
		}
	case *Update:
		c.takeUpdate(p, m)
	case *WhoHas:
		u := &Update{Entries: []Entry{}, Answer: true}
		for _, id := range m.Segments {
			if e, err := entryOf(id, c.own[id]); err == nil {
				u.Entries = append(u.Entries, e)
			}
		}
		c.send(p, u)
	case *Leave:
		c.peerDown(now, from)
		c.emit(Gone{from})
	}
}

// feedOf returns what is known of a feed, and begins to know it; nil when too many
// are known already.
func (c *Core) feedOf(f fcp.Feed) *feed {
	id := f.ID()
	if x := c.feeds[id]; x != nil {
		return x
	}
	x := &feed{id: id, feed: f, own: c.ownFeed(f)}
	if of := c.writers[f.Writer]; !x.own && (len(c.feeds) >= c.opt.MaxFeeds || of.feeds >= max(1, c.opt.MaxFeeds/16)) {
		return nil // one writer does not crowd the others out
	}
	c.count(f.Writer, 1, 0)
	c.feeds[id] = x
	at, _ := slices.BinarySearchFunc(c.order, id, func(a, b fcp.FeedID) int { return bytes.Compare(a[:], b[:]) })
	c.order = slices.Insert(c.order, at, id)
	return x
}

// count keeps the number of feeds and of open fetches by writer.
func (c *Core) count(w fcp.WriterID, feeds, fetches int) {
	of := c.writers[w]
	of.feeds, of.fetches = of.feeds+feeds, of.fetches+fetches
	c.writers[w] = of
}

func (c *Core) inOrder() []*feed {
	out := make([]*feed, len(c.order))
	for i, id := range c.order {
		out[i] = c.feeds[id]
	}
	return out
}

func (c *Core) takeVector(now time.Time, p *peer, v *Vector) {
	for i := range v.Heads {
		h := &v.Heads[i]
		f := c.feedOf(h.Feed())
		if f == nil || f.frozen {
			continue
		}
		p.heads[f.id] = known{h.Seq, h.extras()}
		if c.compare(p, f, h) {
			c.peerHas(p, f)
			c.pull(now, f)
		}
	}
	if v.Last && !p.told {
		p.told = true
	}
	if p.told {
		for _, f := range c.inOrder() {
			c.push(p, f)
		}
	}
	if v.Reply {
		c.sendVector(p, false)
	}
}

// peerHas reports how far a peer is in an own feed.
func (c *Core) peerHas(p *peer, f *feed) {
	if f.own {
		p.sent[f.id] = max(p.sent[f.id], p.heads[f.id].seq)
		c.emit(Reached{p.id, f.feed, p.heads[f.id].seq})
	}
}

// compare looks whether a peer's head is of this node's branch.
func (c *Core) compare(p *peer, f *feed, h *Head) bool {
	if h.Seq > f.head.Seq {
		if f.own {
			c.emit(Ahead{p.id, *h})
		}
		return true // the events will tell
	}
	for i := range f.recent {
		if f.recent[i].Seq == h.Seq {
			if f.recent[i].Hash != h.Hash {
				c.fork(p.id, f.recent[i], *h)
				return false
			}
			return true
		}
	}
	c.emit(Compare{p.id, *h})
	return true
}

// renew gives up the feeds of other incarnations of this node.
func (c *Core) renew(now time.Time, incarnation uint64) {
	c.opt.Incarnation = incarnation
	for _, f := range c.inOrder() {
		if f.own && !c.ownFeed(f.feed) {
			f.own = false
			c.pull(now, f)
		}
	}
}

func (c *Core) ownFeed(f fcp.Feed) bool {
	return f.Writer == c.opt.Self && (c.opt.Incarnation == 0 || f.Incarnation == c.opt.Incarnation)
}

// fork freezes a feed for good.
func (c *Core) fork(peer fcp.WriterID, a, b Head) {
	f := c.feedOf(a.Feed())
	if f == nil || f.frozen || a.Feed() != b.Feed() {
		return
	}
	f.frozen = true
	c.endFetch(f)
	delete(c.dirty, f.id)
	c.emit(Forked{peer, a, b})
}

func (c *Core) localHead(now time.Time, e LocalHead) {
	f := c.feedOf(e.Head.Feed())
	if f == nil || f.frozen || e.Head.Seq < f.head.Seq {
		return
	}
	grew := e.Head.Seq > f.head.Seq
	f.head, f.mine = e.Head, known{e.Head.Seq, e.Head.extras()}
	if grew {
		f.recent = append(f.recent, e.Head)
		if len(f.recent) > recentHashes {
			f.recent = slices.Delete(f.recent, 0, len(f.recent)-recentHashes)
		}
		f.held, f.failed = time.Time{}, fcp.WriterID{}
	}
	if p := c.peers[e.From]; p != nil && p.up && p.heads[f.id].seq < e.Head.Seq {
		p.heads[f.id] = known{seq: e.Head.Seq}
	}
	if f.fetch != nil && f.fetch.peer == e.From {
		f.fetch.until = now.Add(c.opt.FetchWait)
	}
	if f.fetch != nil && (c.peers[f.fetch.peer] == nil || len(f.mine.lacks(c.peers[f.fetch.peer].heads[f.id])) == 0) {
		c.endFetch(f)
	}
	if p := c.peers[f.feed.Writer]; grew && !f.own && p != nil && p.up {
		c.send(p, &Vector{Heads: []Head{f.head}}) // its writer learns at once that it arrived
	}
	c.dirty[f.id] = true
	if f.own {
		for _, p := range c.upPeers() {
			c.push(p, f)
		}
	}
	c.pull(now, f)
}

// push sends a peer what it lacks of an own feed, once.
func (c *Core) push(p *peer, f *feed) {
	if !f.own || f.frozen || !p.told {
		return
	}
	from := max(p.sent[f.id], p.heads[f.id].seq)
	if f.head.Seq > from {
		p.sent[f.id] = f.head.Seq
		c.emit(Push{p.id, from + 1, f.head})
	}
}

// pull begins to fetch what a peer that is there has and this node lacks. It is called
// whenever a peer may have more than before; what cannot be fetched yet stays wanted
// and is tried again at each tick.
func (c *Core) pull(now time.Time, f *feed) {
	c.want(f, !f.own && !f.frozen)
	if f.own || f.frozen || f.fetch != nil || c.open >= c.opt.Fetches || now.Before(f.held) ||
		c.writers[f.feed.Writer].fetches >= max(1, c.opt.Fetches/4) { // feeds that nobody delivers do not stop the others
		return
	}
	var best *peer
	var ranges []Range
	for _, p := range c.upPeers() {
		k, ok := p.heads[f.id]
		if !ok {
			continue
		}
		r := f.mine.lacks(k)
		if len(r) == 0 || best != nil && !better(p, best, f) {
			continue
		}
		best, ranges = p, r
	}
	if best == nil {
		c.want(f, false)
		return
	}
	f.fetch = &fetch{best.id, now.Add(c.opt.FetchWait)}
	best.fetches++
	c.open++
	c.count(f.feed.Writer, 0, 1)
	k := best.heads[f.id]
	h := HeadOf(f.feed, k.seq, fcp.Hash{}, fcp.Hash{})
	c.emit(Fetch{best.id, ranges, h})
}

// want notes whether a feed is to be looked at with each tick.
func (c *Core) want(f *feed, wanted bool) {
	if f.wanted != wanted {
		f.wanted = wanted
		if wanted {
			c.wanted++
		} else {
			c.wanted--
		}
	}
}

// better reports whether a should be asked for a feed rather than b, which comes
// before it: the one that did not just fail, the feed's writer, the less busy.
func better(a, b *peer, f *feed) bool {
	if fa, fb := a.id == f.failed, b.id == f.failed; fa != fb {
		return fb
	}
	if wa, wb := a.id == f.feed.Writer, b.id == f.feed.Writer; wa != wb {
		return wa
	}
	return a.fetches < b.fetches
}

func (c *Core) endFetch(f *feed) {
	if f.fetch == nil {
		return
	}
	if p := c.peers[f.fetch.peer]; p != nil {
		p.fetches--
	}
	f.fetch = nil
	c.open--
	c.count(f.feed.Writer, 0, -1)
}

func (c *Core) heldBack(now time.Time, e Held) {
	f := c.feedOf(e.Feed)
	if f == nil {
		return
	}
	c.endFetch(f)
	f.held = e.Until
	c.pull(now, f)
}

func (c *Core) failedFetch(now time.Time, e Failed) {
	f := c.feedOf(e.Feed)
	if f == nil || f.fetch == nil || f.fetch.peer != e.Peer {
		return
	}
	c.endFetch(f)
	f.failed = e.Peer
	f.held = now.Add(c.opt.Flush) // a peer that cannot deliver is not asked in a tight circle
}

func (c *Core) tick(now time.Time) {
	if c.wanted > 0 {
		for _, f := range c.inOrder() {
			if !f.wanted {
				continue
			}
			if f.fetch != nil && !now.Before(f.fetch.until) {
				f.failed = f.fetch.peer
				c.endFetch(f)
			}
			c.pull(now, f)
		}
	}
	if now.Sub(c.flushed) >= c.opt.Flush {
		c.flushed = now
		c.flush()
	}
	for _, p := range c.upPeers() {
		if now.Sub(p.digested) >= c.opt.AntiEntropy {
			p.digested = now
			d := c.Digest()
			c.send(p, &d)
		}
	}
}
