package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/gossip"
	"fcp/log"
	"fcp/node/placement"
)

// place of a share: whom to give which symbols.
type placing struct {
	peer fcp.WriterID
	ref  symbols.Ref
}

// placeLoop offers shares of own segments to the members that should hold them.
// It rests until something changes when nothing is missing.
func (n *Node) placeLoop() {
	t := time.NewTimer(placeEvery)
	defer t.Stop()
	for {
		missing, err := n.place()
		if err != nil && n.life.Err() == nil {
			n.logger.Warn("segments were not spread", "err", err)
		}
		if missing || err != nil {
			t.Reset(placeEvery)
		} else {
			t.Reset(placeRest)
		}
		select {
		case <-t.C:
		case <-n.shares.wakeup:
		case <-n.life.Done():
			return
		}
	}
}

// restAfterStart is how long after its start a node offers nothing of segments that it
// placed in an earlier run: it has yet to hear who has what.
const restAfterStart = 20 * time.Second

// maxOffers bounds the offers made in one round.
const maxOffers = 64

// place makes offers for what is not where it should be, and reports whether
// something was not.
func (n *Node) place() (missing bool, err error) {
	p, devices := n.policy(), n.devices()
	made := 0
	early := n.now().Sub(n.started).Abs() < restAfterStart
	all := n.segments(devices)
	for i := range all {
		s := &all[i]
		if s.Writer != n.self {
			continue
		}
		if early && n.proofs.earlier(s.ID) {
			missing = true
			continue
		}
		lowMark := 0
		if n.repairs.placedOnce(s.ID) { // what is lost since is repaired, and not each loss by itself
			lowMark = s.Policy.LowMark
		}
		r, ok := placement.PlanRepair(p, s, devices, n.now(), lowMark)
		if !ok && lowMark == 0 && s.Asked(p, devices, n.now()) {
			n.repairs.placed(s.ID)
		}
		if !ok || r.Minter != n.self {
			continue
		}
		if n.repairs.placedOnce(s.ID) && !r.Emergency && n.repairs.pace.reserve(n.now(), uint64(r.Moves()*s.SymbolSize), true) > 0 {
			missing = true
			continue
		}
		for _, id := range r.To {
			ref, ok := placeOf(s.Policy, devices, id, s.ID, n.sizeOf(s.ID))
			if !ok || id == n.self {
				continue
			}
			if made++; made > maxOffers {
				return true, nil
			}
			if err := n.offer(placing{id, n.lacking(ref, id)}); err != nil {
				return true, err
			}
		}
	}
	return missing || made > 0, nil
}

// missing returns the placings whose member is there and does not say that it
// holds the symbols.
func (n *Node) missing(places []placing) (out []placing) {
	if len(places) == 0 {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	holders := n.core.Holders(places[0].ref.Segment)
	for _, p := range places {
		if n.sessions[p.peer] == nil {
			continue
		}
		i := slices.IndexFunc(holders, func(h gossip.Holder) bool { return h.Peer == p.peer })
		if i < 0 || n.proofs.failed(claimKey{p.peer, p.ref.Segment}) || !holders[i].Symbols.Contains(p.ref.First) || !holders[i].Symbols.Contains(p.ref.End()-1) {
			out = append(out, p)
		}
	}
	return out
}

func (n *Node) offer(p placing) error {
	s := n.session(p.peer)
	if s == nil {
		return nil
	}
	_, manifest, err := n.loadShare(n.life, p.ref)
	if err != nil {
		return err
	}
	err = s.send(normal, &offer{Manifest: manifest, First: uint64(p.ref.First), Count: uint64(p.ref.Count)})
	if errors.Is(err, fcp.CodeClosed) {
		return nil // it left meanwhile
	}
	return err
}

// Placed reports how many of the members that should hold a share of a segment
// of this node proved that they do, and how many should. Of segments of an earlier run
// their word counts until it is found false.
func (n *Node) Placed(segment fcp.SegmentID) (have, want int, err error) {
	n.shares.mu.Lock()
	own, ok := n.shares.own[segment]
	n.shares.mu.Unlock()
	if !ok {
		return 0, 0, fcp.Errorf(fcp.CodeNotFound, "segment %s", segment)
	}
	p, devices := n.zonePolicy(own.zone), n.devices()
	share, left := p.Share(own.ref.K()), 0
	n.mu.Lock()
	defer n.mu.Unlock()
	holders := n.core.Holders(segment)
	for i := range devices {
		if d := &devices[i]; !d.Lost && d.ID != n.self && !p.Excluded[d.ID] {
			left++
			if slices.ContainsFunc(holders, func(h gossip.Holder) bool {
				return h.Peer == d.ID && int(h.Symbols.GetCardinality()) >= share && n.proofs.counts(claimKey{h.Peer, segment}, h.Symbols.GetCardinality())
			}) {
				have++
			}
		}
	}
	want = p.Devices()
	if !p.Excluded[n.self] {
		want--
	}
	want = min(want, left)
	return min(have, want), want, nil
}

// ownSegments returns the segments of the data plane that this node sealed.
func (n *Node) ownSegments() (ids []fcp.SegmentID) {
	n.shares.mu.Lock()
	defer n.shares.mu.Unlock()
	for id, own := range n.shares.own {
		if own.mine {
			ids = append(ids, id)
		}
	}
	return ids
}

// Spread reports how many segments of the data plane this node sealed, and how many
// shares of them are not yet where the policy wants them.
func (n *Node) Spread() (segments, missing int, err error) {
	ids := n.ownSegments()
	for _, id := range ids {
		have, want, err := n.Placed(id)
		if err != nil {
			return 0, 0, err
		}
		missing += want - have
	}
	return len(ids), missing, nil
}

// WaitPlaced waits until every segment that this node told of is where the policy
// wants it.
func (n *Node) WaitPlaced(ctx context.Context) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		_, left, err := n.Spread()
		if err != nil {
			return err
		}
		if left == 0 {
			return nil
		}
		n.shares.wake()
		select {
		case <-t.C:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "%d shares are not placed yet", left)
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}

// takeOffer takes a share in that a member offers: it is asked for over a stream,
// checked as a whole, and kept.
func (n *Node) takeOffer(s *Session, m *offer) {
	held, root, err := n.engine.CheckMinted(m.Manifest, uint32(m.First), uint32(m.Count))
	if err != nil || !held.Ref.Valid() {
		n.logger.Warn("an offer was refused", "peer", s.peer.Writer, "err", err)
		return
	}
	ref := held.Ref
	if _, ok := n.refOf(ref.Segment, m.First, m.Count); ok {
		n.announce(ref.Segment) // it is here already; say so again
		return
	}
	t := &n.shares
	name := ref.FileName()
	t.mu.Lock()
	_, told := t.told[ref.Segment]
	if t.taking[name] || !told && len(t.silent) >= maxQuarantined {
		t.mu.Unlock()
		return
	}
	t.taking[name] = true
	t.mu.Unlock()
	s.spawn(func() {
		defer func() {
			t.mu.Lock()
			delete(t.taking, name)
			t.mu.Unlock()
		}()
		if err := n.takeShare(s, m.Manifest, ref, root); err != nil {
			n.logger.Warn("a share was not taken", "peer", s.peer.Writer, "share", name, "err", err)
		}
	})
}

// takeShare fetches one share whole and keeps it.
func (n *Node) takeShare(s *Session, manifest []byte, ref symbols.Ref, root fcp.Hash) error {
	done, err := s.budget.decode()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	file, err := n.fetchShare(ctx, s, ref, root)
	if err != nil {
		return err
	}
	if _, err := n.engine.KeepShares([]engine.NewShare{{Manifest: manifest, File: file, First: ref.First, Count: ref.Count, Checked: true}}); err != nil {
		return err
	}
	n.metrics.SharesKept.Add(1)
	n.holdShare(ref)
	return nil
}

// noteSegment is called for each event that tells of a segment.
func (n *Node) noteSegment(by fcp.WriterID, body []byte) {
	r, err := log.DecodeRemainder(body)
	if err != nil || r.Plane != uint64(fcp.PlaneData) || r.Feed().Writer != by && !r.Compacted() {
		return // a writer speaks for its own feeds, and for what it compacted
	}
	id := fcp.SegmentID(r.Segment)
	n.repairs.know(&r)
	n.releases.know(by, &r)
	n.segmentTold(&r)
	if r.Feed().Writer == n.self {
		n.disown(&r)
		if no, ok, err := n.engine.Log().FindSegment(id); err == nil && ok {
			n.ownSegment(no, &r)
		}
		return
	}
	if err := n.settleSalts(id, &r); err != nil {
		n.logger.Warn("salts were not kept", "segment", id, "err", err)
	}
}
