package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/node/placement"
)

// Shares follow the policy: where it asks for others than hold one (a device came, the
// owner signed another placement) those are made first, by whoever repair would ask.
// A device that no policy asks for any more lets its share go by itself, and only when
// the rest is proven to hold: each of the others shows symbols of its share and promises
// to keep it, and together they bear what the policy bears. Two devices that would drop
// at once ask each other and neither promises, so nothing is ever dropped twice.

// Moving shares.
const (
	moveEvery   = 10 * time.Minute
	moveBurst   = 32        // segments of which a round drops a share; the next goes on
	promiseFor  = time.Hour // that the others keep theirs after one was dropped
	demandWait  = 10 * time.Second
	defaultRate = 16 << 20 // bytes per second that repair and moves may cost
	longestPace = 5 * time.Minute
)

// Move brings shares to where they would be placed today: it does what falls to this
// node, and drops the shares here that nothing asks for any more, for each of which
// there is a step with Dropped. Errors of single segments are in their steps.
func (n *Node) Move(ctx context.Context, o RepairOptions) ([]RepairStep, error) {
	o.Move = true
	steps, err := n.Repair(ctx, o)
	if err != nil || o.DryRun {
		return steps, err
	}
	dropped, err := n.dropShares(ctx)
	return append(steps, dropped...), err
}

// dropShares drops what this node holds and nothing asks for any more.
func (n *Node) dropShares(ctx context.Context) (steps []RepairStep, err error) {
	if err := n.repairs.begin(ctx); err != nil {
		return nil, err
	}
	defer n.repairs.end()
	devices := n.devices()
	all := n.segments(devices)
	for i := range all {
		s := &all[i]
		shares := n.ownShares(s, devices)
		if len(shares) == 0 {
			continue
		}
		if _, drop, _ := placement.PlanMove(n.policy(), s, devices, n.now()); !slices.Contains(drop, n.self) {
			continue
		}
		ok, err := n.dropShare(ctx, s, shares)
		if err != nil {
			return steps, err
		}
		if ok {
			steps = append(steps, RepairStep{Repair: placement.Repair{Segment: s.ID, Minter: n.self}, Zone: n.zoneOf(s.ID), Dropped: shares, Done: true})
			if len(steps) >= moveBurst {
				break
			}
		}
		if ctx.Err() != nil {
			return steps, context.Cause(ctx)
		}
	}
	return steps, nil
}

// zoneOf returns the zone of a known segment.
func (n *Node) zoneOf(id fcp.SegmentID) fcp.ZoneID {
	n.repairs.mu.Lock()
	defer n.repairs.mu.Unlock()
	return n.repairs.known[id].zone
}

// ownShares returns the shares of a segment that were placed here: those in this node's
// stripe. What was pinned, all source symbols, is kept for another reason.
func (n *Node) ownShares(s *placement.Segment, devices []placement.Device) (out []symbols.Ref) {
	at := slices.IndexFunc(devices, func(d placement.Device) bool { return d.ID == n.self })
	if at < 0 || devices[at].First == 0 || s.Writer == n.self {
		return nil
	}
	first, end := devices[at].First, devices[at].First+uint32(placement.Stripe(s.K))
	n.shares.mu.Lock()
	defer n.shares.mu.Unlock()
	for _, r := range n.shares.held[s.ID] {
		if r.First >= first && r.End() <= end {
			out = append(out, r)
		}
	}
	return out
}

// dropShare drops shares of a segment if the others prove that they do without.
func (n *Node) dropShare(ctx context.Context, s *placement.Segment, shares []symbols.Ref) (bool, error) {
	t := &n.proofs
	t.mu.Lock()
	if n.now().Before(t.promised[s.ID]) {
		t.mu.Unlock()
		return false, nil
	}
	t.dropping[s.ID] = true
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.dropping, s.ID)
		t.mu.Unlock()
	}()
	kept, err := n.demand(ctx, s)
	if err != nil || !placement.MayDrop(n.policy(), s, n.self, func(id fcp.WriterID) bool { return kept[id] }) {
		return false, err
	}
	for _, r := range shares {
		if err := n.engine.DropShare(r); err != nil {
			return false, err
		}
		n.forgetShare(r)
		n.metrics.SharesDropped.Add(1)
	}
	n.announce(s.ID)
	return true, nil
}

// demand asks every other holder of a segment that is there to show symbols and to
// promise to keep them, and returns those who did.
func (n *Node) demand(ctx context.Context, s *placement.Segment) (map[fcp.WriterID]bool, error) {
	answers := map[fcp.WriterID]chan bool{}
	for _, h := range s.Holdings {
		if h.Device == n.self {
			continue
		}
		done := make(chan bool, 1)
		id, err := n.challenge(claimKey{h.Device, s.ID}, uint64(promiseFor/time.Second), done)
		if err != nil {
			n.logger.Debug("a claim was not asked for", "peer", h.Device, "err", err)
		} else if id > 0 {
			answers[h.Device] = done
		}
	}
	kept := map[fcp.WriterID]bool{}
	wait := time.NewTimer(demandWait)
	defer wait.Stop()
	for peer, done := range answers {
		select {
		case kept[peer] = <-done:
		case <-wait.C:
			return kept, nil // without the others nothing is dropped that needs them
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-n.life.Done():
			return nil, context.Cause(n.life)
		}
	}
	return kept, nil
}

// forgetShare takes a share out of what this node can give.
func (n *Node) forgetShare(r symbols.Ref) {
	t := &n.shares
	name := r.FileName()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[r.Segment] = slices.DeleteFunc(t.held[r.Segment], func(x symbols.Ref) bool { return x == r }); len(t.held[r.Segment]) == 0 {
		delete(t.held, r.Segment)
	}
	for el := t.files.Front(); el != nil; {
		next := el.Next()
		if el.Value.(*loadedShare).name == name {
			t.files.Remove(el)
		}
		el = next
	}
}

// lacking returns the part of a share that a member does not have yet: a policy that
// asks for more adds to what is there.
func (n *Node) lacking(r symbols.Ref, id fcp.WriterID) symbols.Ref {
	have := n.claimed(claimKey{id, r.Segment})
	if id == n.self {
		have = roaring.New()
		for _, x := range n.sharesOf(r.Segment) {
			have.AddRange(uint64(x.First), uint64(x.End()))
		}
	}
	if have == nil || n.proofs.failed(claimKey{id, r.Segment}) {
		return r
	}
	first := r.First
	for first < r.End() && have.Contains(first) {
		first++
	}
	rest := have.Clone()
	rest.RemoveRange(0, uint64(first))
	rest.RemoveRange(uint64(r.End()), 1<<32)
	if first == r.End() || !rest.IsEmpty() {
		return r // all of it, or with holes: given whole
	}
	r.Count -= first - r.First
	r.First = first
	return r
}

// pace is how fast repair and moves may go.
type pace struct {
	rate uint64 // bytes per second

	mu   sync.Mutex
	free time.Time // when the next may begin; guarded by mu
}

// reserve counts bytes and returns how long to wait before they may be moved. With now
// alone it counts them only when that is not at all.
func (p *pace) reserve(at time.Time, bytes uint64, now bool) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free.Before(at) || p.free.Sub(at) > longestPace { // or the clock went back
		p.free = at
	}
	rest := p.free.Sub(at)
	if rest == 0 || !now {
		p.free = p.free.Add(time.Duration(float64(bytes) / float64(p.rate) * float64(time.Second)))
	}
	return rest
}

// wait waits until bytes may be moved, and counts them.
func (p *pace) wait(ctx context.Context, at time.Time, bytes uint64) error {
	rest := p.reserve(at, bytes, false)
	if rest == 0 {
		return nil
	}
	t := time.NewTimer(rest)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// placed notes that an own segment was placed as its policy asks.
func (t *repairTable) placed(id fcp.SegmentID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.full[id] = true
}

func (t *repairTable) placedOnce(id fcp.SegmentID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.full[id]
}
