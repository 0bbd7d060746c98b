package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"fcp"
	"fcp/log"
	"fcp/node/placement"
)

// Durability says what the acknowledgement of a write promises.
type Durability string

// The levels, each with those before it.
const (
	DurableLocal  Durability = "local"  // on this node's disk
	DurablePeers  Durability = "peers"  // on the disks of as many other devices as the policy lets fail
	DurablePlaced Durability = "placed" // sealed, and its symbols where the policy wants them
)

// durableTick is how often the slow part of a wait is looked at again.
const durableTick = 20 * time.Millisecond

// Durable waits until everything that this node wrote before the call is as durable as
// wanted, and returns the highest level that was reached by then. When that is less,
// the error says what is missing: CodeTimeout when ctx ended, CodeNotEnough when the
// mesh has too few devices.
func (n *Node) Durable(ctx context.Context, want Durability) (Durability, error) {
	switch want {
	case DurableLocal:
		return DurableLocal, nil
	case DurablePeers:
		if err := n.waitHeld(ctx); err != nil {
			return DurableLocal, err
		}
		return DurablePeers, nil
	case DurablePlaced:
		err := n.waitAllPlaced(ctx)
		if err == nil {
			return DurablePlaced, nil
		}
		if len(n.notHeld()) == 0 {
			return DurablePeers, err
		}
		return DurableLocal, err
	}
	return DurableLocal, fcp.Errorf(fcp.CodeInvalidArgument, "there is no durability %.40q", string(want))
}

// others counts the members besides this node.
func (n *Node) others() (count int) {
	for _, m := range n.id.enrolled() {
		if m.Writer != n.self && !m.Revoked {
			count++
		}
	}
	return count
}

func tooFew(have, want int) error {
	return fcp.Errorf(fcp.CodeNotEnough, "it is on this disk alone: %d other devices belong to the mesh, %d are needed", have, want).
		WithNext("enroll another device with `fcpctl device enroll`")
}

// waitAllPlaced seals, and waits until every segment is where the policy wants it and
// the events that tell of it are too.
func (n *Node) waitAllPlaced(ctx context.Context) error {
	feeds := n.ownFeeds(fcp.PlaneData)
	if have, want := n.others(), n.most(feeds, func(p *placement.Policy) int { return p.Spread.Of - 1 }); have < want {
		return tooFew(have, want)
	}
	if err := n.Place(ctx); err != nil {
		return err
	}
	return n.waitControl(ctx, func(zone fcp.ZoneID) int { return n.zonePolicy(zone).Spread.Of - 1 })
}

// most returns the most that the policies of some feeds' zones ask for; of no feed what
// the policy asks that this node was started with.
func (n *Node) most(feeds []log.FeedState, what func(*placement.Policy) int) (most int) {
	if len(feeds) == 0 {
		return what(n.policy())
	}
	for _, f := range feeds {
		most = max(most, what(n.zonePolicy(f.Feed.Zone)))
	}
	return most
}

// waitHeld waits for other devices to hold what this node wrote before the call.
func (n *Node) waitHeld(ctx context.Context) error {
	end := n.ownFeeds(fcp.PlaneData) // as of now: what comes later is not waited for
	if have, want := n.others(), n.most(end, func(p *placement.Policy) int { return max(1, p.Spread.Of-p.Spread.Need) }); have < want {
		return tooFew(have, want)
	}
	n.tails.wake()
	if err := n.await(ctx, func() []string { return n.dataNotHeld(end) }); err != nil {
		return err
	}
	return n.waitControl(ctx, n.copies)
}

// waitControl waits until so many peers as a zone asks have this node's control events.
func (n *Node) waitControl(ctx context.Context, copies func(fcp.ZoneID) int) error {
	end := n.ownFeeds(fcp.PlaneControl)
	return n.await(ctx, func() []string { return n.controlNotHeld(end, copies) })
}

// ownFeeds returns this node's feeds of a plane.
func (n *Node) ownFeeds(plane fcp.Plane) (out []log.FeedState) {
	for _, f := range n.engine.Log().Feeds() {
		if f.Own && f.Feed.Plane == plane {
			out = append(out, f)
		}
	}
	return out
}

// await waits until nothing is missing.
func (n *Node) await(ctx context.Context, missing func() []string) error {
	t := time.NewTicker(durableTick)
	defer t.Stop()
	for {
		n.tails.mu.Lock()
		news := n.tails.news
		n.tails.mu.Unlock()
		what := missing()
		if len(what) == 0 {
			return nil
		}
		select {
		case <-news:
		case <-t.C:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "it is on this disk; not yet held elsewhere: %s", strings.Join(what, "; "))
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}

// notHeld says what of this node's writes other devices do not hold.
func (n *Node) notHeld() []string {
	return append(n.dataNotHeld(n.ownFeeds(fcp.PlaneData)), n.controlNotHeld(n.ownFeeds(fcp.PlaneControl), n.copies)...)
}

func (n *Node) controlNotHeld(end []log.FeedState, copies func(fcp.ZoneID) int) (out []string) {
	for _, f := range end {
		want := copies(f.Feed.Zone)
		if have := n.hasControl(f.Feed, f.Seq); have < want {
			out = append(out, fmt.Sprintf("control events of %s, on %d of %d devices", f.Feed.Zone, have, want))
		}
	}
	return out
}

// hasControl is how many peers that are there said that they have a control feed up to
// a number.
func (n *Node) hasControl(f fcp.Feed, seq uint64) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.core.Has(f, seq)
}

// dataNotHeld looks at the data feeds up to where end says: what is not sealed must be
// kept by peers, and so must segments of which they do not hold enough symbols.
func (n *Node) dataNotHeld(end []log.FeedState) (out []string) {
	for _, f := range end {
		copies := n.copies(f.Feed.Zone)
		now, ok := n.engine.Log().Head(f.No)
		if !ok || f.Seq <= now.Sealed {
			continue
		}
		if have := n.tailCovers(f.ID, now.Sealed+1, f.Seq); have < copies {
			out = append(out, fmt.Sprintf("bodies %d to %d of %s, on %d of %d devices", now.Sealed+1, f.Seq, f.Feed.Zone, have, copies))
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, f := range end {
		missing, err := n.segmentsNotHeld(f)
		if err != nil {
			return append(out, err.Error())
		}
		if missing > 0 {
			out = append(out, fmt.Sprintf("%d segments of %s", missing, f.Feed.Zone))
		}
	}
	return out
}

// segmentsNotHeld counts the segments of a data feed, up to where f says, that others
// could not rebuild without this node and that are not kept as tails either.
func (n *Node) segmentsNotHeld(f log.FeedState) (missing int, err error) {
	t := &n.tails
	t.mu.Lock()
	safe := t.safe[f.ID]
	t.mu.Unlock()
	need, copies := n.zonePolicy(f.Feed.Zone).Spread.Need, n.copies(f.Feed.Zone)
	err = n.engine.Log().Segments(func(s log.SegmentInfo) error {
		r := &s.Remainder
		if r.Feed() != f.Feed || r.First > f.Seq || r.Last <= safe {
			return nil
		}
		have, _, err := n.Placed(s.Card.Segment)
		switch {
		case (err != nil || have < need) && n.tailCovers(f.ID, r.First, r.Last) < copies:
			missing++
		case missing == 0:
			safe = max(safe, r.Last)
		}
		return nil
	})
	t.mu.Lock()
	t.safe[f.ID] = max(t.safe[f.ID], safe)
	t.mu.Unlock()
	return missing, err
}
