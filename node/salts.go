package node

import (
	"bytes"
	"errors"

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
	return s.send(normal, &salts{Segment: fcp.SegmentID(r.Segment), Salts: b})
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

// remainder finds what members told of a segment; nil when nobody did.
func (n *Node) remainder(id fcp.SegmentID) (found *log.Remainder, err error) {
	n.shares.mu.Lock()
	zone, ok := n.shares.told[id]
	n.shares.mu.Unlock()
	if !ok {
		return nil, nil
	}
	enough := errors.New("enough")
	err = n.engine.DataSegments(zone, func(r *log.Remainder) error {
		if bytes.Equal(r.Segment, id[:]) {
			found = r
			return enough
		}
		return nil
	})
	if errors.Is(err, enough) {
		err = nil
	}
	return found, err
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
