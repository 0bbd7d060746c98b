package node

import (
	"bytes"
	"errors"
	"sync"

	"fcp"
	"fcp/gossip"
	"fcp/log"
)

// giving is a piece of work for a session's giver: events that the peer gets.
type giving struct {
	head   gossip.Head // of a push
	feed   fcp.Feed    // of an answer
	ranges [][2]uint64
	asked  bool
}

// maxGivings bounds the work waiting for one peer's giver.
const maxGivings = 1024

// give hands events over to be sent. A peer that asks faster than it reads is cut
// off.
func (s *Session) give(g giving) {
	s.giveMu.Lock()
	defer s.giveMu.Unlock()
	if len(s.givings) >= maxGivings {
		s.end(fcp.Errorf(fcp.CodeExhausted, "the peer asks for more than it reads"))
		return
	}
	s.givings = append(s.givings, g)
	if s.giver {
		return
	}
	s.giver = true
	s.node.spawn(s.giveLoop) // not of the session, which may be ending: then it returns at once
}

// giveLoop works until nothing is left.
func (s *Session) giveLoop() {
	for {
		s.giveMu.Lock()
		if len(s.givings) == 0 || s.ctx.Err() != nil {
			s.giver = false
			s.giveMu.Unlock()
			return
		}
		g := s.givings[0]
		s.givings = s.givings[1:]
		s.giveMu.Unlock()
		if err := s.node.giveEvents(s, &g); err != nil && s.ctx.Err() == nil {
			s.node.logger.Warn("events were not given", "peer", s.peer.Writer, "err", err)
		}
	}
}

// giveEvents sends the events of a feed in batches.
func (n *Node) giveEvents(s *Session, g *giving) error {
	feed, head := g.feed, g.head
	if !g.asked {
		feed = head.Feed()
	}
	none := func() error {
		return s.send(normal, &events{Head: gossip.Head{Zone: feed.Zone, Writer: feed.Writer, Incarnation: feed.Incarnation}, Events: [][]byte{}, None: true, Asked: true})
	}
	no, ok := n.engine.Log().FeedNo(feed)
	if !ok {
		return none()
	}
	if g.asked {
		if head, ok = n.headOf(no); !ok {
			return none()
		}
	}
	for i, r := range g.ranges {
		if r[0] > head.Seq {
			continue
		}
		last := min(r[1], head.Seq)
		if i == len(g.ranges)-1 {
			last = head.Seq // the feed grew since it was asked for: only up to a signed head is a feed told of
		}
		err := n.giveRange(s, no, r[0], last, &head, g.asked)
		if errors.Is(err, fcp.CodeHorizon) {
			return none()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// batch collects events for one message.
type batch struct {
	m      events
	bytes  int
	urgent bool
	large  bool            // one of several: they keep their order, and wait for the peer to read
	sealed []fcp.SegmentID // segments of the data plane told of in it
	last   fcp.Hash
	seq    uint64
	push   bool   // goes to others as well
	first  uint64 // of the range
}

// maxPushed is the most bytes of a message that is kept.
const maxPushed = 64 << 10

// pushTable keeps the messages last pushed: a new event goes to all peers alike. The zero
// value is empty. Safe for concurrent use.
type pushTable struct {
	mu   sync.Mutex
	kept [8]pushed // guarded by mu
	next int       // of kept, to be replaced; guarded by mu
}

// pushed is the message with the events of a feed from first on up to a head.
type pushed struct {
	no     log.FeedNo
	first  uint64
	head   gossip.Head
	events int
	p      priority
	bytes  []byte // nil: none
}

func (t *pushTable) find(no log.FeedNo, first uint64, head *gossip.Head) (x pushed, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range t.kept {
		if x.bytes != nil && x.no == no && x.first == first && x.head.Seq == head.Seq && x.head.Root == head.Root && bytes.Equal(x.head.Extras, head.Extras) {
			return x, true
		}
	}
	return x, false
}

func (t *pushTable) keep(x pushed) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept[t.next] = x
	t.next = (t.next + 1) % len(t.kept)
}

func (n *Node) giveRange(s *Session, no log.FeedNo, first, last uint64, head *gossip.Head, asked bool) error {
	if !asked {
		if x, ok := n.pushes.find(no, first, head); ok {
			n.metrics.EventsSent.Add(uint64(x.events))
			return s.sendEncoded(x.p, x.bytes)
		}
	}
	l := n.engine.Log()
	feed := head.Feed()
	var prev fcp.Hash
	b := batch{m: events{Head: *head, Asked: asked}, push: !asked, first: first}
	from := first
	if first > 1 {
		from-- // its hash is what the first names
	}
	err := l.ScanFeed(s.ctx, no, from, last, log.VerifyChain, func(run []log.Applied) error {
		if len(run) == 0 {
			return nil
		}
		salts, err := l.SaltsOf(no, run[0].Seq, run[len(run)-1].Seq)
		if err != nil {
			return err
		}
		for i := range run {
			a := &run[i]
			if a.Seq >= first {
				if a.Content.Kind == fcp.KindNone {
					return fcp.Errorf(fcp.CodeHorizon, "event %d was compacted away", a.Seq)
				}
				ev := fcp.Event{Feed: feed, Seq: a.Seq, Prev: prev, Time: a.Time, Under: a.Under, Content: a.Content}
				salt := salts[(a.Seq-run[0].Seq)*log.SaltSize:][:log.SaltSize]
				if err := n.addEvent(s, no, &b, &ev, salt, a.Hash, asked); err != nil {
					return err
				}
			}
			prev = a.Hash
		}
		return nil
	})
	if err != nil {
		return err
	}
	return n.sendBatch(s, no, &b)
}

func (n *Node) addEvent(s *Session, no log.FeedNo, b *batch, ev *fcp.Event, salt []byte, hash fcp.Hash, asked bool) error {
	enc := ev.AppendTo(nil)
	if len(b.m.Events) > 0 && (b.bytes+len(enc) > maxBatchBytes || len(b.m.Events) == maxBatchEvents) {
		b.large = true
		if err := n.sendBatch(s, no, b); err != nil {
			return err
		}
		*b = batch{m: events{Head: b.m.Head, Asked: asked}, large: true}
	}
	if len(b.m.Events) == 0 {
		b.m.First = ev.Seq
	}
	b.m.Events = append(b.m.Events, enc)
	b.m.Salts = append(b.m.Salts, salt...)
	b.bytes += len(enc)
	b.last, b.seq = hash, ev.Seq
	switch ev.Kind {
	case fcp.KindRevocationIssued, fcp.KindDeviceEnrolled:
		b.urgent = true
	case fcp.KindSegmentSealed:
		if r, err := log.DecodeRemainder(ev.Body); err == nil && r.Plane == uint64(fcp.PlaneData) {
			b.sealed = append(b.sealed, fcp.SegmentID(r.Segment))
			if err := n.sendSalts(s, &r); err != nil {
				return err
			}
		}
	}
	return nil
}

func (n *Node) sendBatch(s *Session, no log.FeedNo, b *batch) error {
	if len(b.m.Events) == 0 {
		return nil
	}
	if b.seq != b.m.Head.Seq {
		p, err := n.engine.Log().Prove(no, b.seq, b.m.Head.Seq)
		if err != nil {
			return err
		}
		if p.Leaf != b.last || p.Root != b.m.Head.Root {
			return fcp.Errorf(fcp.CodeCorrupt, "event %d of feed %d is not the leaf of its tree", b.seq, no)
		}
		b.m.Proof = p.Hashes
	}
	p := normal
	switch {
	case b.large:
		p = bulk
	case b.urgent:
		p = urgent
	case b.m.Asked:
		p = bulk
	}
	n.metrics.EventsSent.Add(uint64(len(b.m.Events)))
	enc, err := encodeMessage(&b.m)
	if err != nil {
		return err
	}
	if b.push && !b.large && len(b.sealed) == 0 && len(enc) <= maxPushed { // with a segment go its salts
		n.pushes.keep(pushed{no, b.first, b.m.Head, len(b.m.Events), p, enc})
	}
	return s.sendEncoded(p, enc)
}
