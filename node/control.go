package node

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/gossip"
	"fcp/log"
)

// controlPlane is what a node keeps in mind about control feeds.
type controlPlane struct {
	feeds   [16]chan struct{} // one import at a time for a feed: striped by feed id; a token is the lock
	members chan struct{}     // memberLoop has something to do

	mu    sync.Mutex
	heads map[fcp.FeedID]gossip.Head // newest signed head of each foreign feed that is wholly here; guarded by mu
	dirty bool                       // heads were not kept since they changed; guarded by mu
	forks []gossip.Forked            // guarded by mu
	watch map[watched]*Arrival       // revocations of this node on their way; guarded by mu
	order []watched                  // of watch, oldest first; guarded by mu
	// of each feed the last heads whose signatures were found good; guarded by mu
	proven map[headSlot]gossip.Head
	// closed when a revocation reached a peer; guarded by mu
	arrived chan struct{}
}

type watched struct {
	feed fcp.FeedID
	seq  uint64
}

// Arrival says when an event of this node reached its peers.
type Arrival struct {
	Feed fcp.Feed
	Seq  uint64
	Ref  fcp.Hash  // of the revocation
	At   time.Time // when it was durable here
	Seen map[fcp.WriterID]time.Duration
}

// maxArrivals bounds the revocations whose arrival is remembered.
const maxArrivals = 256

func (c *controlPlane) init() {
	for i := range c.feeds {
		c.feeds[i] = make(chan struct{}, 1)
	}
	c.heads, c.proven, c.watch = map[fcp.FeedID]gossip.Head{}, map[headSlot]gossip.Head{}, map[watched]*Arrival{}
	c.members, c.arrived = make(chan struct{}, 1), make(chan struct{})
}

func (c *controlPlane) stripe(id fcp.FeedID) chan struct{} { return c.feeds[id[0]%16] }

func (c *controlPlane) wake() {
	select {
	case c.members <- struct{}{}:
	default:
	}
}

func (c *controlPlane) forked(e gossip.Forked) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forks = append(c.forks, e)
}

// follow begins to watch the arrival of an event.
func (c *controlPlane) follow(feed fcp.Feed, seq uint64, ref fcp.Hash, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := watched{feed.ID(), seq}
	c.watch[w] = &Arrival{Feed: feed, Seq: seq, Ref: ref, At: at, Seen: map[fcp.WriterID]time.Duration{}}
	if c.order = append(c.order, w); len(c.order) > maxArrivals {
		delete(c.watch, c.order[0])
		c.order = c.order[1:]
	}
}

// reached notes that a peer has an own feed up to a number.
func (c *controlPlane) reached(e gossip.Reached, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id := e.Feed.ID()
	for w, a := range c.watch {
		if w.feed != id || w.seq > e.Seq {
			continue
		}
		if _, ok := a.Seen[e.Peer]; !ok {
			a.Seen[e.Peer] = now.Sub(a.At)
			close(c.arrived)
			c.arrived = make(chan struct{})
		}
	}
}

// Arrivals returns the revocations that this node issued since it started, and
// after what time each peer said that it has them.
func (n *Node) Arrivals() []Arrival {
	c := &n.control
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []Arrival
	for _, w := range c.order {
		a := *c.watch[w]
		a.Seen = map[fcp.WriterID]time.Duration{}
		for p, d := range c.watch[w].Seen {
			a.Seen[p] = d
		}
		out = append(out, a)
	}
	return out
}

// WaitArrival waits until every other member that is not revoked said that it has
// a revocation which this node issued since it started. CodeNotFound for another one;
// CodeTimeout when ctx ends before, with the members that are missing.
func (n *Node) WaitArrival(ctx context.Context, ref fcp.Hash) error {
	for {
		n.control.mu.Lock()
		next := n.control.arrived
		var seen map[fcp.WriterID]bool
		for _, a := range n.control.watch {
			if a.Ref == ref {
				seen = map[fcp.WriterID]bool{}
				for w := range a.Seen {
					seen[w] = true
				}
			}
		}
		n.control.mu.Unlock()
		if seen == nil {
			return fcp.Errorf(fcp.CodeNotFound, "this node issued no revocation %s since it started", ref)
		}
		var missing []string
		for _, m := range n.id.enrolled() {
			if m.Writer != n.self && !m.Revoked && !seen[m.Writer] {
				missing = append(missing, m.Name)
			}
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "the revocation has not reached %s", strings.Join(missing, ", "))
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}

// Forks returns the feeds that were seen with two branches, with both heads.
func (n *Node) Forks() []gossip.Forked {
	n.control.mu.Lock()
	defer n.control.mu.Unlock()
	return slices.Clone(n.control.forks)
}

// signHead signs the head of an own feed.
func (n *Node) signHead(f log.FeedState) (gossip.Head, error) {
	h := gossip.HeadOf(f.Feed, f.Seq, f.Hash, f.Root)
	var err error
	h.Signature, err = n.engine.Signer().Sign(h.Message())
	return h, err
}

// knowStore tells the core what the store has: members, feeds, symbols.
func (n *Node) knowStore() error {
	n.step(n.id.told())
	kept, err := n.loadHeads()
	if err != nil {
		return err
	}
	for _, f := range n.engine.Log().Feeds() {
		if f.Feed.Plane != fcp.PlaneControl {
			continue
		}
		if f.Feed.Writer == n.self {
			h, err := n.signHead(f)
			if err != nil {
				return err
			}
			n.step(gossip.LocalHead{Head: h})
			continue
		}
		if h, ok := kept[f.ID]; ok && h.Seq <= f.Seq {
			n.control.heads[f.ID] = h
			n.step(gossip.LocalHead{Head: h})
		}
	}
	return n.knowSymbols()
}

// loadHeads reads the heads that were kept, those that are still true.
func (n *Node) loadHeads() (map[fcp.FeedID]gossip.Head, error) {
	out := map[fcp.FeedID]gossip.Head{}
	b, err := n.engine.LoadHeads()
	if err != nil || b == nil {
		return out, err
	}
	v, err := gossip.DecodeVector(b)
	if err != nil { // they are told again by the next peer
		n.logger.Warn("the kept heads do not decode", "err", err)
		return out, nil
	}
	for _, h := range n.verified(v).Heads {
		no, ok := n.engine.Log().FeedNo(h.Feed())
		if !ok {
			continue
		}
		if _, hash, err := n.engine.Log().ReadFull(no, h.Seq); err == nil && hash == h.Hash {
			out[h.Feed().ID()] = h
		}
	}
	return out, nil
}

// keepHeads writes the newest heads of foreign feeds. One that is lost is told
// again by the next peer.
func (n *Node) keepHeads() error {
	c := &n.control
	c.mu.Lock()
	if !c.dirty {
		c.mu.Unlock()
		return nil
	}
	v := gossip.Vector{Heads: []gossip.Head{}}
	for _, h := range c.heads {
		v.Heads = append(v.Heads, h)
	}
	c.dirty = false
	c.mu.Unlock()
	slices.SortFunc(v.Heads, func(a, b gossip.Head) int {
		x, y := a.Feed().ID(), b.Feed().ID()
		return slices.Compare(x[:], y[:])
	})
	v.Heads = v.Heads[:min(len(v.Heads), gossip.MaxHeads)]
	b, err := v.Encode()
	if err != nil {
		return err
	}
	return n.engine.KeepHeads(b)
}

// verified returns the heads of a vector that their writers, who are members,
// signed. Heads of writers that are not known yet are left out: they are told
// again when the members change.
func (n *Node) verified(v *gossip.Vector) *gossip.Vector {
	out := &gossip.Vector{Heads: make([]gossip.Head, 0, len(v.Heads)), Last: v.Last, Reply: v.Reply}
	for _, h := range v.Heads {
		if m, ok := n.id.member(h.Writer); ok && n.control.verify(&h, m.Keys.Signing[:]) {
			out.Heads = append(out.Heads, h)
		}
	}
	return out
}

// headSlot is where a head is remembered whose signature was found good. A feed has
// provenHeads of them: some peers are a little behind the others.
type headSlot struct {
	feed fcp.FeedID // has the writer in it, and so the key
	slot uint64     // of the sequence number
}

const provenHeads = 16

// verify is h.Verify. Every peer tells of every feed time and again, and mostly of a
// head that is known.
func (c *controlPlane) verify(h *gossip.Head, key ed25519.PublicKey) bool {
	id := headSlot{h.Feed().ID(), h.Seq % provenHeads}
	c.mu.Lock()
	k, ok := c.proven[id]
	c.mu.Unlock()
	if ok && k.Seq == h.Seq && k.Hash == h.Hash && k.Root == h.Root && bytes.Equal(k.Signature, h.Signature) {
		return true
	}
	if !h.Verify(key) {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.proven) >= gossip.MaxHeads {
		clear(c.proven)
	}
	good := *h
	good.Extras = nil // not signed
	c.proven[id] = good
	return true
}

// followLog tells the core and the peers of every event that becomes durable.
func (n *Node) followLog(position uint64) {
	err := n.engine.Subscribe(n.life, subscribeFrom(position+1), func(batch []log.Applied) error {
		n.noteEvents(batch)
		return nil
	})
	if err != nil && n.life.Err() == nil {
		n.logger.Error("following the log ended", "err", err)
	}
}

func (n *Node) noteEvents(batch []log.Applied) {
	l := n.engine.Log()
	now := n.now()
	grown := map[log.FeedNo]bool{}
	var order []log.FeedNo
	members, sealed := false, false
	for i := range batch {
		a := &batch[i]
		feed := l.Feed(a.Feed)
		if feed.Plane == fcp.PlaneData {
			n.tails.wrote()
		}
		if feed.Plane != fcp.PlaneControl {
			continue
		}
		if !grown[a.Feed] {
			grown[a.Feed] = true
			order = append(order, a.Feed)
		}
		n.pins.noted(a.Content.Kind)
		switch a.Content.Kind {
		case fcp.KindCheckpointSigned, fcp.KindDeletionAcked, fcp.KindObjectForgotten:
			n.releases.wake()
		case fcp.KindRevocationIssued:
			members = true
			if feed.Writer == n.self {
				n.control.follow(feed, a.Seq, authority.RefOf(a.Content.Body), now)
			}
		case fcp.KindDeviceEnrolled:
			members = true
		case fcp.KindSegmentSealed:
			n.noteSegment(feed.Writer, a.Content.Body)
			sealed = sealed || feed.Writer == n.self
		}
	}
	for _, no := range order {
		f, ok := l.Head(no)
		if !ok || !f.Own {
			continue // told when it was taken in, under its writer's head
		}
		h, err := n.signHead(f)
		if err != nil {
			n.logger.Error("a head was not signed", "err", err)
			continue
		}
		n.step(gossip.LocalHead{Head: h})
	}
	if members { // after the push, so that a revoked member still learns why
		n.control.wake()
	}
	if sealed {
		n.shares.wake()
	}
}

// memberLoop reads the members anew when events may have changed them.
func (n *Node) memberLoop() {
	for {
		select {
		case <-n.control.members:
		case <-n.life.Done():
			return
		}
		if err := n.id.refresh(); err != nil {
			n.logger.Error("the members could not be read", "err", err)
			continue
		}
		n.step(n.id.told())
		n.keepMembers()
		n.shares.wake()
	}
}

// compare looks whether a peer's head is of the branch in the log.
func (n *Node) compare(e gossip.Compare) {
	no, ok := n.engine.Log().FeedNo(e.Head.Feed())
	if !ok {
		return
	}
	_, hash, err := n.engine.Log().ReadFull(no, e.Head.Seq)
	if err != nil || hash == e.Head.Hash {
		return
	}
	n.contradict(e.Peer, no, e.Head)
}

// contradict tells the core of two branches, with this node's own signed head.
func (n *Node) contradict(peer fcp.WriterID, no log.FeedNo, theirs gossip.Head) {
	mine, ok := n.headOf(no)
	if ok {
		n.step(gossip.Contradicts{Peer: peer, Mine: mine, Theirs: theirs})
	}
}

// headOf returns the signed head of a feed.
func (n *Node) headOf(no log.FeedNo) (gossip.Head, bool) {
	f, ok := n.engine.Log().Head(no)
	if !ok || f.Seq == 0 {
		return gossip.Head{}, false
	}
	if f.Feed.Writer == n.self {
		h, err := n.signHead(f)
		return h, err == nil
	}
	n.control.mu.Lock()
	defer n.control.mu.Unlock()
	h, ok := n.control.heads[f.ID]
	return h, ok
}

// askLocked asks a peer for events.
func (n *Node) askLocked(e gossip.Fetch) {
	feed := e.Head.Feed()
	s := n.sessions[e.Peer]
	if s == nil {
		return
	}
	w := &want{Zone: feed.Zone, Writer: feed.Writer, Incarnation: feed.Incarnation}
	for _, r := range e.Ranges[:min(len(e.Ranges), 64)] {
		w.Ranges = append(w.Ranges, [2]uint64{r.First, r.Last})
	}
	if err := s.send(normal, w); err != nil {
		n.logger.Debug("events were not asked for", "peer", e.Peer, "err", err)
	}
}

// takeEvents imports a batch after all of it was checked: every event decodes, the
// chain holds from this node's head on, and its end is what the writer signed.
func (n *Node) takeEvents(s *Session, m *events) error {
	feed := m.Head.Feed()
	failed := func() { n.step(gossip.Failed{Peer: s.peer.Writer, Feed: feed}) }
	if m.None {
		failed()
		return nil
	}
	writer, ok := n.id.member(m.Head.Writer)
	if !ok {
		failed() // its enrollment is on its way in another feed
		return nil
	}
	if !n.control.verify(&m.Head, writer.Keys.Signing[:]) {
		return fcp.Errorf(fcp.CodeSignature, "the head of a feed of %.16s", m.Head.Writer)
	}
	evs, end, err := decodeEvents(m, feed)
	if err != nil {
		return err
	}
	if err := checkEnd(m, feed, evs[len(evs)-1].Seq, end); err != nil {
		return err
	}
	turn := n.control.stripe(feed.ID())
	select {
	case turn <- struct{}{}:
	case <-s.ctx.Done():
		return nil
	}
	defer func() { <-turn }()
	return n.importEvents(s, m, evs, failed)
}

// decodeEvents decodes a batch and follows its chain; end is the last hash.
func decodeEvents(m *events, feed fcp.Feed) (out []fcp.Event, end fcp.Hash, err error) {
	out = make([]fcp.Event, len(m.Events))
	for i, b := range m.Events {
		e, err := fcp.DecodeEvent(b)
		if err != nil {
			return nil, end, err
		}
		switch {
		case e.Feed != feed || e.Seq != m.First+uint64(i):
			return nil, end, fcp.Errorf(fcp.CodeMalformed, "event %d of a batch from %d is of another place", i, m.First)
		case i > 0 && e.Prev != end:
			return nil, end, fcp.Errorf(fcp.CodeCorrupt, "the chain of a batch breaks at event %d", e.Seq)
		}
		out[i], end = e, e.Hash()
	}
	return out, end, nil
}

// checkEnd checks that the last event of a batch is in the history that the head
// is signed over.
func checkEnd(m *events, feed fcp.Feed, last uint64, end fcp.Hash) error {
	if last == m.Head.Seq {
		if end != m.Head.Hash {
			return fcp.Errorf(fcp.CodeChecksum, "event %d is not the head that its writer signed", last)
		}
		return nil
	}
	in := log.Inclusion{Feed: feed.ID(), Seq: last, Size: m.Head.Seq, Leaf: end, Root: m.Head.Root, Hashes: m.Proof}
	return in.Check()
}

func (n *Node) importEvents(s *Session, m *events, evs []fcp.Event, failed func()) error {
	feed, peer := evs[0].Feed, s.peer.Writer
	if feed.Writer == n.self && feed.Incarnation == n.engine.Log().Incarnation() {
		return nil // this node knows best what it wrote
	}
	salts := make([][log.SaltSize]byte, len(evs))
	for i := range salts {
		copy(salts[i][:], m.Salts[i*log.SaltSize:])
	}
	taken, err := n.engine.ImportEvents(s.ctx, evs, salts)
	n.metrics.EventsTaken.Add(uint64(taken))
	switch {
	case err == nil && evs[len(evs)-1].Seq == m.Head.Seq:
		n.tookHead(m.Head, peer)
	case err == nil:
		n.step(gossip.Progress{Peer: peer, Feed: feed})
	case errors.Is(err, fcp.CodeFuture):
		n.step(gossip.Held{Feed: feed, Until: n.now().Add(10 * time.Second)})
	case errors.Is(err, fcp.CodeEquivocation):
		if no, ok := n.engine.Log().FeedNo(feed); ok {
			n.contradict(peer, no, m.Head)
		}
	case errors.Is(err, fcp.CodeConflict): // a gap, which the core fills once it knows of it
		failed()
		n.step(gossip.Received{Peer: peer, Message: &gossip.Vector{Heads: []gossip.Head{m.Head}}})
	case errors.Is(err, fcp.CodeInterrupted), errors.Is(err, context.Canceled):
		return nil
	default:
		failed()
		n.logger.Warn("events were not taken", "peer", peer, "zone", feed.Zone, "err", err)
	}
	return nil
}

// tookHead remembers that a feed is here up to a signed head.
func (n *Node) tookHead(h gossip.Head, from fcp.WriterID) {
	h.Extras = nil
	id := h.Feed().ID()
	c := &n.control
	c.mu.Lock()
	if c.heads[id].Seq < h.Seq {
		c.heads[id], c.dirty = h, true
	}
	c.mu.Unlock()
	n.step(gossip.LocalHead{Head: h, From: from})
}
