package node

import (
	"errors"
	"sync"
	"time"

	"fcp"
	"fcp/log"
)

// sendSalts sends the salts of a segment that are here.
func (n *Node) sendSalts(s *Session, r *log.Remainder) error {
	b, err := n.engine.SegmentSalts(r)
	if errors.Is(err, fcp.CodeNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	id := fcp.SegmentID(r.Segment)
	s.saltsGiven.note(id, n.now())
	return s.send(normal, &salts{Segment: id, Salts: b})
}

// giveSalts answers a question for salts.
func (n *Node) giveSalts(s *Session, m *saltsWanted) {
	s.spawn(func() {
		done, err := s.budget.serve()
		if err != nil {
			return
		}
		defer done()
		for _, id := range m.Segments {
			if s.saltsGiven.lately(id, n.now()) {
				continue // they are on their way
			}
			r, err := n.remainder(id)
			if err == nil && r != nil {
				err = n.sendSalts(s, r)
			}
			if err != nil {
				n.logger.Debug("salts were not given", "segment", id, "err", err)
			}
		}
	})
}

// givenLately is what was given a moment ago: whoever asks for it time and again costs no
// more than who asks once. The zero value is empty. Safe for concurrent use.
type givenLately struct {
	mu sync.Mutex
	at map[fcp.SegmentID]time.Time // guarded by mu
}

const (
	lately    = time.Second
	maxLately = 4096
)

func (g *givenLately) lately(id fcp.SegmentID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.at[id]
	return ok && now.Sub(at) < lately
}

func (g *givenLately) note(id fcp.SegmentID, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at == nil || len(g.at) >= maxLately {
		g.at = map[fcp.SegmentID]time.Time{}
	}
	g.at[id] = now
}

// remainder finds what members told of a segment; nil when nobody did.
func (n *Node) remainder(id fcp.SegmentID) (*log.Remainder, error) {
	n.shares.mu.Lock()
	at, ok := n.shares.told[id]
	n.shares.mu.Unlock()
	if !ok {
		return nil, nil
	}
	return n.engine.DataSegment(at.zone, at.feed, at.first, id)
}

// takeSalts keeps salts of a segment that a member told of, once.
func (n *Node) takeSalts(m *salts) error {
	if len(m.Salts) == 0 {
		return nil
	}
	n.fetches.keepEarly(m.Segment, m.Salts)
	r, err := n.remainder(m.Segment)
	if err != nil || r == nil {
		return err
	}
	return n.settleSalts(m.Segment, r)
}

// settleSalts keeps salts that came before or after their segment's event.
func (n *Node) settleSalts(id fcp.SegmentID, r *log.Remainder) error {
	b := n.fetches.takeEarly(id)
	if b == nil || uint64(len(b)) != (r.Last-r.First+1)*log.SaltSize {
		return nil
	}
	if _, err := n.engine.SegmentSalts(r); err == nil {
		n.fetches.saltsHere(id)
		return nil
	}
	if err := n.engine.KeepSalts(r, b); err != nil {
		return err
	}
	n.fetches.saltsHere(id)
	return nil
}
