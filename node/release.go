package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/log"
)

// Deletion, seen from the members of a mesh. A retention mark is acknowledged as soon
// as all of it is here (engine.AcknowledgeMarks); once everybody has, the writer of a
// feed compacts it and tells of segments in the place of others. What this node kept
// for him of the old ones goes when the new one can be rebuilt without him, and only
// if this node's own mark, made of what it knows itself, needs nothing of what would
// be gone.

// Times of deletion.
const (
	releaseEvery = 30 * time.Second // between looks while something is to be released
	releaseDelay = time.Second      // from news to a look: they come in bursts
)

// releaseTable is what a node knows of superseded segments.
type releaseTable struct {
	wakeup chan struct{}

	mu sync.Mutex
	by map[fcp.SegmentID]fcp.SegmentID // what the writer told to be in a segment's place; guarded by mu
}

func (t *releaseTable) init() {
	t.wakeup, t.by = make(chan struct{}, 1), map[fcp.SegmentID]fcp.SegmentID{}
}

func (t *releaseTable) wake() {
	select {
	case t.wakeup <- struct{}{}:
	default:
	}
}

// know notes a compacted segment, which counts when its feed's writer told of it.
func (t *releaseTable) know(by fcp.WriterID, r *log.Remainder) {
	if !r.Compacted() || r.Feed().Writer != by {
		return
	}
	t.mu.Lock()
	for _, old := range r.Replaced() {
		t.by[old] = fcp.SegmentID(r.Segment)
	}
	t.mu.Unlock()
	t.wake()
}

// last follows a segment to the one that is in its place now.
func (t *releaseTable) last(id fcp.SegmentID) (last fcp.SegmentID, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last = id
	for range len(t.by) {
		next, more := t.by[last]
		if !more {
			break
		}
		last, ok = next, true
	}
	return last, ok
}

// releaseLoop destroys the keys of what the owner ordered to be forgotten, acknowledges
// retention marks, and drops what compactions replaced.
func (n *Node) releaseLoop() {
	t := time.NewTimer(releaseDelay)
	defer t.Stop()
	for {
		select {
		case <-n.releases.wakeup:
			t.Reset(releaseDelay)
			continue
		case <-t.C:
		case <-n.life.Done():
			return
		}
		forgotten, ferr := n.engine.CarryOutForgettings(n.life)
		n.metrics.Forgotten.Add(uint64(forgotten))
		if ferr != nil && n.life.Err() == nil {
			n.logger.Warn("what is to be forgotten was not", "err", ferr)
		}
		_, pending, err := n.engine.AcknowledgeMarks(n.life)
		if err != nil && n.life.Err() == nil {
			n.logger.Warn("a retention mark was not acknowledged", "err", err)
		}
		left, rerr := n.release(n.life)
		if rerr != nil && n.life.Err() == nil {
			n.logger.Warn("segments that were compacted were not released", "err", rerr)
		}
		if pending+left > 0 || ferr != nil || err != nil || rerr != nil {
			t.Reset(releaseEvery)
		}
	}
}

// release drops what is kept here of superseded segments, and returns how many have
// to wait.
func (n *Node) release(ctx context.Context) (left int, err error) {
	for _, zone := range n.engine.Zones() {
		list, err := n.engine.SupersededSegments(zone)
		if err != nil {
			return left, err
		}
		var ready []engine.Superseded
		for _, s := range list {
			switch {
			case !n.keepsOf(fcp.SegmentID(s.Old.Segment)):
			case n.Pinned(fcp.SegmentID(s.Old.Segment)) && !n.readable(s.By):
				left++ // a pin brings the new one first
			case s.By.Feed().Writer == n.self, n.rebuildable(s.By, s.By.Feed().Writer):
				ready = append(ready, s)
			default:
				left++
			}
		}
		if len(ready) == 0 {
			continue
		}
		dead, err := n.engine.Dead(ctx, zone, ready)
		if c := fcp.CodeOf(err); c == fcp.CodeUnauthorized || c == fcp.CodeDependency || c == fcp.CodeEquivocation {
			left += len(ready) // no mark is good for that yet
			continue
		}
		if err != nil {
			return left, err
		}
		for i, s := range ready {
			err := error(nil)
			if dead[i] {
				err = n.letGo(s)
			}
			switch {
			case errors.Is(err, fcp.CodeKeyTableLost):
				dead[i] = false
				n.askSalts(fcp.SegmentID(s.By.Segment))
			case err != nil:
				return left, err
			}
			if !dead[i] {
				left++
			}
		}
	}
	return left, nil
}

// keepsOf reports whether something of a segment is here that a release would drop.
func (n *Node) keepsOf(id fcp.SegmentID) bool {
	n.shares.mu.Lock()
	held := len(n.shares.held[id])
	n.shares.mu.Unlock()
	return held > 0 || n.engine.KeepsSalts(id)
}

// rebuildable reports whether a segment can be rebuilt from what members other than
// without proved that they hold, this one's shares included. Of a segment without bodies
// nothing has to be.
func (n *Node) rebuildable(r *log.Remainder, without fcp.WriterID) bool {
	if len(r.Seqs) == 0 {
		return true
	}
	_, k, err := codedCard(r)
	if err != nil || k == 0 {
		return false
	}
	id := fcp.SegmentID(r.Segment)
	have := n.holdsProven(id, without)
	for _, ref := range n.sharesOf(id) {
		have += uint64(ref.Count)
	}
	return have >= uint64(k)+2
}

// symbolsWithout counts the symbols of a segment at members other than one.
func (n *Node) symbolsWithout(id fcp.SegmentID, without fcp.WriterID) (have uint64) {
	n.mu.Lock()
	for _, h := range n.core.Holders(id) {
		if h.Peer != without && !n.liars[h.Peer] {
			have += h.Symbols.GetCardinality() // members' ranges do not overlap
		}
	}
	n.mu.Unlock()
	if without == n.self {
		return have
	}
	for _, ref := range n.sharesOf(id) {
		have += uint64(ref.Count)
	}
	return have
}

// superseded reports whether the plans of placement and repair pass a segment over:
// another one is in its place and can be rebuilt.
func (n *Node) superseded(id fcp.SegmentID) bool {
	last, ok := n.releases.last(id)
	if !ok {
		return false
	}
	size := n.sizeOf(last)
	return size == 0 || n.symbolsWithout(last, fcp.WriterID{}) >= uint64(symbols.Ref{Size: size}.K())
}

// letGo drops what is kept here of a superseded segment and tells the others.
func (n *Node) letGo(s engine.Superseded) error {
	id := fcp.SegmentID(s.Old.Segment)
	t := &n.shares
	t.mu.Lock()
	held := t.held[id]
	t.mu.Unlock()
	if err := n.engine.ReleaseSegment(s, held); err != nil {
		return err
	}
	t.mu.Lock()
	delete(t.held, id)
	for el := t.files.Front(); el != nil; {
		next := el.Next()
		if ref, _, _, err := symbols.ParseFileName(el.Value.(*loadedShare).name); err == nil && ref == id {
			t.files.Remove(el)
		}
		el = next
	}
	t.mu.Unlock()
	n.metrics.Released.Add(1)
	n.announce(id)
	return nil
}

// knowSuperseded reads what the store knows of compacted segments.
func (n *Node) knowSuperseded(zone fcp.ZoneID) error {
	list, err := n.engine.SupersededSegments(zone)
	t := &n.releases
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range list {
		t.by[fcp.SegmentID(s.Old.Segment)] = fcp.SegmentID(s.By.Segment)
	}
	return err
}

// disown notes that this node's own segments gave way to a compacted one: their
// ciphertexts are gone from the log.
func (n *Node) disown(r *log.Remainder) {
	for _, id := range r.Replaced() {
		n.shares.mu.Lock()
		_, own := n.shares.own[id]
		delete(n.shares.own, id)
		n.shares.mu.Unlock()
		if own {
			n.announce(id)
		}
	}
}

// askSalts asks every peer for the salts of a segment.
func (n *Node) askSalts(id fcp.SegmentID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sessions {
		if err := s.send(normal, &saltsWanted{Segments: []fcp.SegmentID{id}}); err != nil {
			n.logger.Debug("salts were not asked for", "peer", s.peer.Writer, "err", err)
		}
	}
}
