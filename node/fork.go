package node

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/gossip"
	"fcp/log"
)

// Two branches of one feed convict its writer: a copy of it runs, or an older image
// of its disk does. Whoever sees two signed heads that contradict each other looks,
// with the peer that has the other branch, for the event at which they part, and
// appends the proof: from there on the feed is void on every node alike. The writer
// itself begins a new incarnation, so that what it writes next stands.

// leafWanted asks for an event's leaf in the tree of a feed that the receiver has,
// and leaf gives it with its audit path (RFC 9162 section 2.1.3).
type leafWanted struct {
	Zone        fcp.ZoneID   `cbor:"zone"`
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Seq         uint64       `cbor:"seq"`
	Size        uint64       `cbor:"size"` // of the tree
}

type leaf struct {
	Zone        fcp.ZoneID   `cbor:"zone"`
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Seq         uint64       `cbor:"seq"`
	Size        uint64       `cbor:"size"`
	Leaf        []byte       `cbor:"leaf"` // fcp.LeafSize bytes of leaf data; none: not here
	Path        []fcp.Hash   `cbor:"path"`
}

var (
	schemaLeafWanted = fcp.MustSchema("fcp.mesh:LeafWanted@1.0.0")
	schemaLeaf       = fcp.MustSchema("fcp.mesh:Leaf@1.0.0")
)

func (m *leafWanted) ok() bool {
	return m.Zone.Valid() && m.Seq > 0 && m.Seq <= m.Size && m.Size < 1<<62
}

func (m *leaf) ok() bool {
	return m.Zone.Valid() && m.Seq > 0 && m.Seq <= m.Size && m.Size < 1<<62 && len(m.Path) <= 64 && (len(m.Leaf) == 0 || len(m.Leaf) == fcp.LeafSize)
}

func (m *leafWanted) feed() fcp.Feed {
	return fcp.Feed{Zone: m.Zone, Writer: m.Writer, Incarnation: m.Incarnation, Plane: fcp.PlaneControl}
}

func (m *leaf) wanted() leafWanted {
	return leafWanted{m.Zone, m.Writer, m.Incarnation, m.Seq, m.Size}
}

// forkTable holds what is known and asked about forks.
type forkTable struct {
	mu      sync.Mutex
	proving map[fcp.FeedID]bool    // guarded by mu
	asked   map[leafAsk]chan *leaf // guarded by mu
	renewed bool                   // a renewal is under way; guarded by mu
}

type leafAsk struct {
	peer fcp.WriterID
	what leafWanted
}

const (
	maxProving  = 64 // forks being proven at once
	leafWait    = 3 * time.Second
	proveFirst  = 250 * time.Millisecond
	proveAtMost = 30 * time.Second
)

func (t *forkTable) init() {
	t.proving, t.asked = map[fcp.FeedID]bool{}, map[leafAsk]chan *leaf{}
}

// forked acts on two heads that contradict each other: mine and a peer's.
func (n *Node) forked(e gossip.Forked) {
	feed := e.A.Feed()
	if feed.Writer == n.self {
		n.renew(feed.Incarnation)
	}
	t := &n.forks
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.proving[feed.ID()] || len(t.proving) >= maxProving {
		return
	}
	t.proving[feed.ID()] = true
	n.spawn(func() {
		n.proveFork(e)
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.proving, feed.ID())
	})
}

// renew begins a new incarnation when feeds of the present one turn out to have
// events that this node does not know of.
func (n *Node) renew(was uint64) {
	t := &n.forks
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.renewed || n.engine.Log().Incarnation() != was {
		return
	}
	t.renewed = true
	n.spawn(func() {
		n.logger.Error("this node's disk is an older state of itself, or a copy of it runs: it goes on as a new incarnation", "was", was)
		err := n.engine.Renew(n.life, was)
		if err != nil && n.life.Err() == nil {
			n.logger.Error("a new incarnation did not begin", "err", err)
		}
		if err == nil {
			n.step(gossip.Renewed{Incarnation: n.engine.Log().Incarnation()})
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		t.renewed = false
	})
}

// proveFork tries until the fork is proven, by this node or by another.
func (n *Node) proveFork(e gossip.Forked) {
	feed := e.A.Feed()
	for pause := proveFirst; n.engine.ForkedFrom(feed) == 0; pause = min(2*pause, proveAtMost) {
		err := n.tryProve(e)
		if err == nil {
			return
		}
		n.logger.Debug("a fork is not proven yet", "zone", feed.Zone, "writer", feed.Writer, "err", err)
		if !n.pause(pause) {
			return
		}
	}
}

// tryProve looks for the lowest event at which the branches differ. They do at the
// end of the shorter one, and once they do they do so from there on.
func (n *Node) tryProve(e gossip.Forked) error {
	mine, theirs, feed := e.A, e.B, e.A.Feed()
	l := n.engine.Log()
	no, ok := l.FeedNo(feed)
	if !ok {
		return fcp.Errorf(fcp.CodeNotFound, "the feed")
	}
	differs := func(seq uint64) (*leaf, bool, error) {
		got, hash, err := n.askLeaf(e.Peer, leafWanted{feed.Zone, feed.Writer, feed.Incarnation, seq, theirs.Seq}, &theirs)
		if err != nil {
			return nil, false, err
		}
		_, here, err := l.ReadFull(no, seq)
		return got, hash != here, err
	}
	low, high := uint64(1), min(mine.Seq, theirs.Seq)
	for low < high {
		middle := low + (high-low)/2
		_, differ, err := differs(middle)
		if err != nil {
			return err
		}
		if differ {
			high = middle
		} else {
			low = middle + 1
		}
	}
	parts, differ, err := differs(low)
	if err == nil && !differ {
		err = fcp.Errorf(fcp.CodeConflict, "the branches do not differ")
	}
	if err != nil {
		return err
	}
	member, ok := n.id.member(feed.Writer)
	if !ok {
		return fcp.Errorf(fcp.CodeNotFound, "the writer's key")
	}
	a, err := authority.MeshHead(feed, mine.Seq, mine.Hash, mine.Root, member.Keys.Signing, mine.Signature)
	if err != nil {
		return err
	}
	b, err := authority.MeshHead(feed, theirs.Seq, theirs.Hash, theirs.Root, member.Keys.Signing, theirs.Signature)
	if err != nil {
		return err
	}
	own, err := n.engine.Branch(a, parts.Seq)
	if err != nil {
		return err
	}
	if n.engine.ForkedFrom(feed) != 0 {
		return nil // another node was faster
	}
	return n.engine.ProveFork(n.life, parts.Seq, own, authority.Branch{Head: b, Leaf: parts.Leaf, Path: parts.Path})
}

// askLeaf asks a peer for a leaf and checks it against a signed head. It returns the
// event's hash too.
func (n *Node) askLeaf(peer fcp.WriterID, w leafWanted, head *gossip.Head) (*leaf, fcp.Hash, error) {
	s := n.session(peer)
	if s == nil {
		return nil, fcp.Hash{}, fcp.Errorf(fcp.CodeNotFound, "no session with the peer that has the other branch")
	}
	t, key, answer := &n.forks, leafAsk{peer, w}, make(chan *leaf, 1)
	t.mu.Lock()
	t.asked[key] = answer
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.asked, key)
	}()
	if err := s.send(urgent, &w); err != nil {
		return nil, fcp.Hash{}, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, leafWait)
	defer cancel()
	select {
	case m := <-answer:
		if len(m.Leaf) == 0 {
			return nil, fcp.Hash{}, fcp.Errorf(fcp.CodeNotFound, "the peer does not give event %d", w.Seq)
		}
		hash := fcp.Hash(sha256.Sum256(append([]byte{0}, m.Leaf...)))
		in := log.Inclusion{Feed: w.feed().ID(), Seq: w.Seq, Size: w.Size, Leaf: hash, Root: head.Root, Hashes: m.Path}
		return m, hash, in.Check()
	case <-ctx.Done():
		return nil, fcp.Hash{}, fcp.Errorf(fcp.CodeTimeout, "the peer does not answer")
	}
}

// takeLeaf hands an answer to who asked.
func (n *Node) takeLeaf(s *Session, m *leaf) {
	t := &n.forks
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.asked[leafAsk{s.peer.Writer, m.wanted()}]; c != nil {
		select {
		case c <- m:
		default:
		}
	}
}

// giveLeaf answers a peer that proves a fork.
func (n *Node) giveLeaf(s *Session, w *leafWanted) {
	s.spawn(func() {
		done, err := s.budget.serve()
		if err != nil {
			return
		}
		defer done()
		m := &leaf{Zone: w.Zone, Writer: w.Writer, Incarnation: w.Incarnation, Seq: w.Seq, Size: w.Size, Leaf: []byte{}, Path: []fcp.Hash{}}
		if data, path, err := n.engine.Leaf(w.feed(), w.Seq, w.Size); err == nil {
			m.Leaf, m.Path = data, path
		}
		if err := s.send(urgent, m); err != nil {
			n.logger.Debug("a leaf was not given", "peer", s.peer.Writer, "err", err)
		}
	})
}
