package node

import (
	"errors"
	"maps"

	"fcp"
	"fcp/gossip"
)

// ResumeArrivals goes on watching revocations that this node issued before it was
// closed last, with what was known then of who has them. Call it once, after Start.
func (n *Node) ResumeArrivals(list []Arrival) {
	for i := range list {
		a := &list[i]
		n.watchArrival(a)
	}
}

// WatchRevocation watches a revocation from now on, if this node issued it, whenever
// that was: WaitArrival then finds it. false: another node did, or it is not here.
func (n *Node) WatchRevocation(ref fcp.Hash) (own bool, err error) {
	feed, seq, at, err := n.engine.RevocationEvent(ref)
	if errors.Is(err, fcp.CodeNotFound) {
		return false, nil
	}
	if err != nil || feed.Writer != n.self {
		return false, err
	}
	n.watchArrival(&Arrival{Feed: feed, Seq: seq, Ref: ref, At: at})
	return true, nil
}

// watchArrival watches an event unless it is watched already. Who said before that
// he has it is not asked again.
func (n *Node) watchArrival(a *Arrival) {
	c, w := &n.control, watched{a.Feed.ID(), a.Seq}
	c.mu.Lock()
	_, known := c.watch[w]
	c.mu.Unlock()
	if !known {
		c.follow(a.Feed, a.Seq, a.Ref, a.At)
		c.mu.Lock()
		maps.Copy(c.watch[w].Seen, a.Seen)
		c.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for peer := range n.sessions {
		if seq := n.core.Seq(peer, a.Feed); seq >= a.Seq {
			c.reached(gossip.Reached{Peer: peer, Feed: a.Feed, Seq: seq}, n.now())
		}
	}
}
