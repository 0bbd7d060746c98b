package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"fcp"
	"fcp/log"
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
	if have, want := n.others(), n.opt.Policy.Of-1; have < want {
		return tooFew(have, want)
	}
	if err := n.Place(ctx); err != nil {
		return err
	}
	return n.waitControl(ctx, n.opt.Policy.Of-1)
}

// waitHeld waits for other devices to hold what this node wrote before the call.
func (n *Node) waitHeld(ctx context.Context) error {
	if have := n.others(); have < n.copies() {
		return tooFew(have, n.copies())
	}
	n.tails.wake()
	var end []log.FeedState // as of now: what comes later is not waited for
	for _, f := range n.engine.Log().Feeds() {
		if f.Own && f.Feed.Plane == fcp.PlaneData {
			end = append(end, f)
		}
	}
	if err := n.await(ctx, func() []string { return n.dataNotHeld(end) }); err != nil {
		return err
	}
	return n.waitControl(ctx, n.copies())
}

// waitControl waits until so many peers have this node's control events.
func (n *Node) waitControl(ctx context.Context, copies int) error {
	end := n.ownControl()
	return n.await(ctx, func() []string { return n.controlNotHeld(end, copies) })
}

func (n *Node) ownControl() (out []log.FeedState) {
	for _, f := range n.engine.Log().Feeds() {
		if f.Own && f.Feed.Plane == fcp.PlaneControl {
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
	var data []log.FeedState
	for _, f := range n.engine.Log().Feeds() {
		if f.Own && f.Feed.Plane == fcp.PlaneData {
			data = append(data, f)
		}
	}
	return append(n.dataNotHeld(data), n.controlNotHeld(n.ownControl(), n.copies())...)
}

func (n *Node) controlNotHeld(end []log.FeedState, copies int) (out []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range end {
		if have := n.core.Has(f.Feed, f.Seq); have < copies {
			out = append(out, fmt.Sprintf("control events of %s, on %d of %d devices", f.Feed.Zone, have, copies))
		}
	}
	return out
}

// dataNotHeld looks at the data feeds up to where end says: what is not sealed must be
// kept by peers, and so must segments of which they do not hold enough symbols.
func (n *Node) dataNotHeld(end []log.FeedState) (out []string) {
	copies := n.copies()
	for _, f := range end {
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
	err = n.engine.Log().Segments(func(s log.SegmentInfo) error {
		r := &s.Remainder
		if r.Feed() != f.Feed || r.First > f.Seq || r.Last <= safe {
			return nil
		}
		have, _, err := n.Placed(s.Card.Segment)
		switch {
		case (err != nil || have < n.opt.Policy.Need) && n.tailCovers(f.ID, r.First, r.Last) < n.copies():
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
