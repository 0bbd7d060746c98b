package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/log"
	"fcp/node/placement"
)

// Repair makes the symbols again that were lost with a device. Each node looks at all
// segments that it knows of and comes, from the same facts, to the same plan
// (node/placement); the one that the plan names rebuilds the segment, mints symbols
// that nobody has, and offers them. It needs no zone key for that.

// Times of repair. A device that is away moves nothing before its grace is over.
const (
	repairEvery = 30 * time.Second // rounds
	repairWait  = 20 * time.Second // until a device that was offered a share says that it has it
	seenEvery   = time.Minute      // between writes of when who was there last
	repairBurst = 64               // segments of one round; the next goes on
)

// repairTable is what repair knows. One repair runs at a time.
type repairTable struct {
	turn chan struct{} // of one: in it while a round runs

	mu     sync.Mutex
	known  map[fcp.SegmentID]knownSegment // of the data plane, that members told of; guarded by mu
	seen   map[fcp.WriterID]time.Time     // when a member was there last; guarded by mu
	minted *loadedMint                    // rebuilt, while others fetch shares of it; guarded by mu
	full   map[fcp.SegmentID]bool         // own segments that were placed as asked since this node started; guarded by mu
	moved  time.Time                      // when shares were moved last; of repairLoop
	pace   pace
}

type knownSegment struct {
	zone   fcp.ZoneID
	size   uint32
	writer fcp.WriterID
}

func (t *repairTable) init() {
	t.turn = make(chan struct{}, 1)
	t.known, t.seen = map[fcp.SegmentID]knownSegment{}, map[fcp.WriterID]time.Time{}
	t.full = map[fcp.SegmentID]bool{}
}

// begin waits for the turn of a round, which end gives back.
func (t *repairTable) begin(ctx context.Context) error {
	select {
	case t.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *repairTable) end() { <-t.turn }

// know notes a segment that a member told of.
func (t *repairTable) know(r *log.Remainder) {
	card, err := fcp.DecodeCard(r.Card)
	if err != nil {
		return // the log checked it
	}
	info, err := card.Transmission()
	if err != nil || !symbols.Coded(uint32(min(info.F, 1<<32-1))) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[card.Segment] = knownSegment{r.Zone, uint32(info.F), r.Feed().Writer}
}

// devices returns the members as placement sees them, in the order of enrollment.
func (n *Node) devices() []placement.Device {
	members, stripes := n.id.placed()
	presence := n.Presence()
	now := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	t := &n.repairs
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]placement.Device, len(members))
	for i, m := range members {
		d := placement.Device{ID: m.Writer, First: stripes[i], Lost: m.Revoked, Online: m.Writer == n.self || n.sessions[m.Writer] != nil, Suspect: n.liars[m.Writer] || n.proofs.suspect(m.Writer)}
		for _, tag := range m.Tags {
			if v, ok := cutTag(tag, placement.TagClass); ok && placement.Class(v).Valid() {
				d.Class = placement.Class(v)
			}
			if v, ok := cutTag(tag, placement.TagSite); ok {
				d.Domain = v
			}
		}
		if d.Online || presence[m.Writer].Alive { // others may see it when this node does not
			t.seen[m.Writer] = now
		}
		if seen, ok := t.seen[m.Writer]; ok {
			d.Seen = seen
		} else { // never seen: its grace begins when it is first heard of
			t.seen[m.Writer], d.Seen = now, now
		}
		out[i] = d
	}
	return out
}

func cutTag(tag, prefix string) (string, bool) {
	if len(tag) <= len(prefix) || tag[:len(prefix)] != prefix {
		return "", false
	}
	return tag[len(prefix):], true
}

// segments returns the segments of the data plane that this node knows of, with who
// said that he holds what, in the order of their ids.
//
// A member that is away and did not say what it has since this node started is taken to
// hold the share that is its own, so that a start of this node does not make a nap of
// that one a loss.
func (n *Node) segments(devices []placement.Device) []placement.Segment {
	t := &n.repairs
	zones := n.policies()
	t.mu.Lock()
	all := make([]placement.Segment, 0, len(t.known))
	for id, k := range t.known {
		ref := symbols.Ref{Size: k.size}
		all = append(all, placement.Segment{ID: id, K: ref.K(), SymbolSize: fcp.SymbolSize, Writer: k.writer, Policy: zones.zone(k.zone)})
	}
	t.mu.Unlock()
	var unmet []fcp.WriterID
	n.mu.Lock()
	for i := range devices {
		if d := &devices[i]; !d.Online && !n.core.Listed(d.ID) {
			unmet = append(unmet, d.ID)
		}
	}
	n.mu.Unlock()
	all = slices.DeleteFunc(all, func(s placement.Segment) bool { return n.superseded(s.ID) })
	slices.SortFunc(all, func(a, b placement.Segment) int { return slices.Compare(a.ID[:], b.ID[:]) })
	for i := range all {
		s := &all[i]
		hold := func(id fcp.WriterID, b *roaring.Bitmap) {
			whole := roaring.New()
			whole.AddRange(0, uint64(s.K))
			h := placement.Holding{Device: id, Count: int(b.GetCardinality()), Whole: int(b.AndCardinality(whole)) == s.K}
			s.Holdings = append(s.Holdings, h)
		}
		n.mu.Lock()
		for _, h := range n.core.Holders(s.ID) {
			if !n.liars[h.Peer] && !n.proofs.failed(claimKey{h.Peer, s.ID}) {
				hold(h.Peer, h.Symbols)
			}
		}
		n.mu.Unlock()
		mine := roaring.New()
		for _, r := range n.sharesOf(s.ID) {
			mine.AddRange(uint64(r.First), uint64(r.End()))
		}
		if !mine.IsEmpty() {
			hold(n.self, mine)
		}
		if len(unmet) > 0 {
			for _, id := range placement.Plan(s.Policy, s.ID, devices, []fcp.WriterID{s.Writer}) {
				if slices.Contains(unmet, id) && !slices.ContainsFunc(s.Holdings, func(h placement.Holding) bool { return h.Device == id }) {
					s.Holdings = append(s.Holdings, placement.Holding{Device: id, Count: s.Policy.Share(s.K), Whole: id == s.Writer})
				}
			}
		}
	}
	return all
}

// sizeOf returns the bytes of a known segment, 0 for others.
func (n *Node) sizeOf(id fcp.SegmentID) uint32 {
	n.repairs.mu.Lock()
	defer n.repairs.mu.Unlock()
	return n.repairs.known[id].size
}

// placeOf returns the share that belongs to a member: the beginning of its stripe, so
// that no two members have the same symbols and a new member's were never used before.
func placeOf(p *placement.Policy, devices []placement.Device, id fcp.WriterID, segment fcp.SegmentID, size uint32) (symbols.Ref, bool) {
	at := slices.IndexFunc(devices, func(d placement.Device) bool { return d.ID == id })
	if at < 0 || devices[at].First == 0 {
		return symbols.Ref{}, false
	}
	r := symbols.Ref{Segment: segment, Size: size, First: devices[at].First}
	r.Count = uint32(p.Share(r.K()))
	return r, r.Valid()
}

// RepairOptions say how far a repair goes.
type RepairOptions struct {
	// Now takes devices that are away for lost, whatever their grace, and has this node
	// do what others would. Who has a session is asked first whether it is there.
	Now    bool
	Move   bool // also bring shares to where they would be placed today
	DryRun bool // plan only
}

// RepairStep is what is, or was, to be done for one segment.
type RepairStep struct {
	placement.Repair
	Zone  fcp.ZoneID
	First []uint32 // first symbol of each device of To
	Bytes uint64   // that cross the network
	Lost  uint64   // bytes of symbols that went with the devices that do not count any more
	Done  bool     // every device of To says that it holds its share
	Err   error    // why not

	Dropped []symbols.Ref // shares of this node that nothing asked for any more
}

// Repair looks at every segment once and does what falls to this node. It returns a step for each segment that is not as its policy asks.
// Errors of single segments are in their steps.
func (n *Node) Repair(ctx context.Context, o RepairOptions) ([]RepairStep, error) {
	if err := n.repairs.begin(ctx); err != nil {
		return nil, err
	}
	defer n.repairs.end()
	if o.Now {
		if err := n.askWhoIsThere(ctx); err != nil {
			return nil, err
		}
		n.WaitListed(ctx)
	}
	p, devices := n.policy(), n.devices()
	at := n.now()
	if o.Now { // as if it were so late that no grace is left
		for i := range devices {
			devices[i].Seen = time.Time{}
		}
	}
	var steps []RepairStep
	all := n.segments(devices)
	for i := range all {
		s := &all[i]
		lowMark := s.Policy.LowMark
		if o.Now {
			lowMark = 0
		}
		r, ok := placement.PlanRepair(p, s, devices, at, lowMark)
		moves := false
		if !ok && o.Move {
			r, _, ok = placement.PlanMove(p, s, devices, at)
			moves = ok
		}
		if o.Now {
			r.By(s, n.self)
		}
		if !ok || r.Minter != n.self || s.Writer == n.self && !o.Now && !moves {
			continue // placeLoop places what this node wrote
		}
		n.repairs.mu.Lock()
		known := n.repairs.known[s.ID]
		n.repairs.mu.Unlock()
		step := RepairStep{Repair: r, Zone: known.zone, Bytes: uint64(r.Moves() * s.SymbolSize), Lost: uint64(r.Lost * s.SymbolSize)}
		for _, id := range r.To {
			ref, _ := placeOf(s.Policy, devices, id, s.ID, known.size)
			step.First = append(step.First, ref.First)
		}
		if !o.DryRun {
			if len(steps) >= repairBurst && !o.Now {
				break
			}
			if !o.Now && !r.Emergency { // what hardly rebuilds waits for nothing
				if err := n.repairs.pace.wait(ctx, n.now(), step.Bytes); err != nil {
					return steps, err
				}
			}
			if step.Err = n.repair(ctx, s.Policy, devices, known, &r); step.Err == nil {
				step.Done = true
				n.metrics.Repaired.Add(1)
				n.metrics.RepairBytes.Add(step.Bytes)
			}
			if ctx.Err() != nil {
				return steps, context.Cause(ctx)
			}
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// repair rebuilds a segment if it must, mints, and has the shares taken.
func (n *Node) repair(ctx context.Context, p *placement.Policy, devices []placement.Device, known knownSegment, r *placement.Repair) error {
	m, err := n.mintFor(ctx, r.Segment)
	if err != nil {
		return err
	}
	t := &n.repairs
	t.mu.Lock()
	t.minted = m
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		t.minted = nil
		t.mu.Unlock()
	}()
	var waiting []placing
	for _, id := range r.To {
		ref, ok := placeOf(p, devices, id, r.Segment, known.size)
		if !ok {
			return fcp.Errorf(fcp.CodeExhausted, "segment %s has no symbol numbers left for so many members", r.Segment)
		}
		if id != n.self {
			waiting = append(waiting, placing{id, n.lacking(ref, id)})
			continue
		}
		ref = n.lacking(ref, id)
		file, manifest, err := n.loadShare(ctx, ref)
		if err != nil {
			return err
		}
		if _, err := n.engine.KeepShare(manifest, file, ref.First, ref.Count); err != nil {
			return err
		}
		n.holdShare(ref)
	}
	ctx, cancel := context.WithTimeout(ctx, repairWait)
	defer cancel()
	tick := time.NewTicker(repairWait / 200)
	defer tick.Stop()
	for _, w := range waiting {
		if err := n.offer(w); err != nil {
			return err
		}
	}
	for {
		waiting = n.missing(waiting)
		if len(waiting) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "%d devices did not take their share of segment %s", len(waiting), r.Segment)
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}

// mintFor returns a segment ready to make symbols of: from the log, or rebuilt.
func (n *Node) mintFor(ctx context.Context, id fcp.SegmentID) (*loadedMint, error) {
	n.shares.mu.Lock()
	own, ok := n.shares.own[id]
	n.shares.mu.Unlock()
	if ok {
		return n.mint(ctx, own)
	}
	found, err := n.remainder(id)
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fcp.Errorf(fcp.CodeNotFound, "segment %s", id)
	}
	ciphertext, err := n.fetch(ctx, found, true) // nobody waits, and what it moves is limited
	if err != nil {
		return nil, err
	}
	m := &loadedMint{segment: id}
	m.minting, err = n.engine.Mint(ctx, &n.coder, found.Card, ciphertext)
	return m, err
}

// repairing returns the segment that is being repaired, if it is id.
func (n *Node) repairing(id fcp.SegmentID) *loadedMint {
	t := &n.repairs
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.minted != nil && t.minted.segment == id {
		return t.minted
	}
	return nil
}

// repairLoop repairs what its grace is over for.
func (n *Node) repairLoop() {
	t := time.NewTimer(repairEvery + n.jitter(repairEvery/4))
	defer t.Stop()
	kept := n.now()
	n.repairs.moved = kept // not at once after a start: who is there is not known yet
	for {
		select {
		case <-t.C:
		case <-n.life.Done():
			return
		}
		steps, err := n.Repair(n.life, RepairOptions{})
		for i := range steps {
			if err := steps[i].Err; err != nil && n.life.Err() == nil {
				n.logger.Warn("a segment was not repaired", "segment", steps[i].Segment, "err", err)
			}
		}
		if err != nil && n.life.Err() == nil {
			n.logger.Warn("repair", "err", err)
		}
		if now := n.now(); now.Sub(n.repairs.moved) >= moveEvery || now.Before(n.repairs.moved) {
			n.repairs.moved = now
			if _, err := n.Move(n.life, RepairOptions{}); err != nil && n.life.Err() == nil {
				n.logger.Warn("shares were not moved", "err", err)
			}
		}
		if now := n.now(); now.Sub(kept) >= seenEvery {
			kept = now
			if err := n.keepSeen(); err != nil {
				n.logger.Warn("when members were seen was not kept", "err", err)
			}
		}
		t.Reset(repairEvery + n.jitter(repairEvery/4))
	}
}

// listWait is how long WaitListed waits for a peer that is there and says nothing.
const listWait = 5 * time.Second

// WaitListed waits until every peer that is there told what it holds, which it does as
// soon as it is; for those that do not, no longer than a few seconds.
func (n *Node) WaitListed(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, listWait)
	defer cancel()
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for {
		all := true
		n.mu.Lock()
		for w := range n.sessions {
			all = all && n.core.Listed(w)
		}
		n.mu.Unlock()
		if all {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		case <-n.life.Done():
			return
		}
	}
}

// WhatIf says what would be left of each segment without some members.
func (n *Node) WhatIf(lost map[fcp.WriterID]bool) []placement.Loss {
	p, devices := n.policy(), n.devices()
	return placement.WhatIf(p, n.segments(devices), devices, lost)
}

// Durability returns the durability table of the segments that this node knows of.
func (n *Node) Durability(h placement.Hazards) placement.Durability {
	devices := n.devices()
	return placement.DurabilityOf(n.segments(devices), devices, h)
}

func (n *Node) memberName(id fcp.WriterID) string {
	if m, ok := n.id.member(id); ok && m.Name != "" {
		return m.Name
	}
	return id.String()
}

// seenList is when members were there last, as it is kept on disk.
type seenList struct {
	Entries []seenEntry `cbor:"entries"`
}

type seenEntry struct {
	Writer fcp.WriterID `cbor:"writer"`
	At     uint64       `cbor:"at"` // unix seconds
}

// loadSeen takes up what was kept. What does not decode is left: it only makes
// graces begin again.
func (n *Node) loadSeen() error {
	b, err := n.engine.LoadSeen()
	if err != nil {
		return err
	}
	var l seenList
	if len(b) == 0 || fcp.Unmarshal(b, &l) != nil {
		return nil
	}
	now := n.now()
	t := &n.repairs
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range l.Entries {
		if at := time.Unix(int64(min(e.At, 1<<38)), 0); !at.After(now) {
			t.seen[e.Writer] = at
		}
	}
	return nil
}

func (n *Node) keepSeen() error {
	t := &n.repairs
	l := seenList{Entries: []seenEntry{}}
	t.mu.Lock()
	for w, at := range t.seen {
		l.Entries = append(l.Entries, seenEntry{w, uint64(max(at.Unix(), 0))})
	}
	t.mu.Unlock()
	slices.SortFunc(l.Entries, func(a, b seenEntry) int { return compareWriters(a.Writer, b.Writer) })
	b, err := fcp.Marshal(&l)
	if err != nil {
		return err
	}
	return n.engine.KeepSeen(b)
}
