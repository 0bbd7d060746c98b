package node

import (
	"context"
	"math"
	"slices"
	"time"

	"fcp"
	"fcp/engine/symbols"
	"fcp/log"
)

// Coverage says how well the bodies in segments are spread over the members.
type Coverage struct {
	Segments int // of the data plane that members told of and that are coded
	// BPS is the symbols at members that are there, each member's share by the policy
	// counted once, over the source symbols; 10000 is one copy, 30000 three.
	BPS int
	// Survives is how many of the members that are there can go, whichever they are,
	// before a segment cannot be rebuilt; -1: one cannot be rebuilt now.
	Survives int
	Members  int // that are there, this one included
}

// Coverage reads the members' inventories as they are known here.
func (n *Node) Coverage() Coverage {
	s := n.Summary()
	return Coverage{Segments: s.Segments, BPS: s.CoverageBPS, Survives: s.MayGo, Members: s.Online}
}

// codedCard returns a segment's card and its number of source symbols, 0 when it is
// not coded.
func codedCard(r *log.Remainder) (card fcp.Card, k int, err error) {
	if card, err = fcp.DecodeCard(r.Card); err != nil {
		return card, 0, err
	}
	info, err := card.Transmission()
	if err != nil || info.F > math.MaxUint32 || !symbols.Coded(uint32(info.F)) {
		return card, 0, err
	}
	return card, symbols.Ref{Size: uint32(info.F)}.K(), nil
}

// Place seals what is open and waits until every segment of this node is where the
// policy wants it. CodeTimeout when ctx ends before.
func (n *Node) Place(ctx context.Context) error {
	if _, err := n.engine.Log().Seal(ctx, log.SealOptions{All: true}); err != nil {
		return err
	}
	if err := n.awaitNoted(ctx); err != nil {
		return err
	}
	return n.WaitPlaced(ctx)
}

// awaitNoted waits until the node knows of every segment that it sealed.
func (n *Node) awaitNoted(ctx context.Context) error {
	var sealed []fcp.SegmentID
	for _, zone := range n.engine.Zones() {
		err := n.engine.DataSegments(zone, func(r *log.Remainder) error {
			card, k, err := codedCard(r)
			if err == nil && k > 0 && r.Feed().Writer == n.self {
				sealed = append(sealed, card.Segment)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for {
		n.shares.mu.Lock()
		sealed = slices.DeleteFunc(sealed, func(id fcp.SegmentID) bool { _, ok := n.shares.own[id]; return ok })
		n.shares.mu.Unlock()
		if len(sealed) == 0 {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "%d segments are not known to the node yet", len(sealed))
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}

// settledFor is how long nothing may change before a node counts as settled: two
// nodes that dial each other at once end one of the sessions.
const settledFor = 300 * time.Millisecond

// WaitSettled waits until this node has all that the peers who are there told of: its
// own enrollment among it, and somebody being there if there is anybody else.
// CodeTimeout when ctx ends before.
func (n *Node) WaitSettled(ctx context.Context) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	var last <-chan struct{} // of sessions
	since := n.now()
	for {
		enrolled, others := false, 0
		for _, m := range n.id.enrolled() {
			if m.Writer == n.self {
				enrolled = true
			} else if !m.Revoked {
				others++
			}
		}
		n.mu.Lock()
		settled := n.core.Settled() && (others == 0 || len(n.sessions) > 0)
		if !enrolled || !settled || last != n.changed {
			last, since = n.changed, n.now()
		}
		n.mu.Unlock()
		if n.now().Sub(since) >= settledFor {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "what others have is not all here")
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}
