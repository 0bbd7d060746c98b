package engine

import (
	"errors"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
)

// RevocationEvent finds the event that told this node of a revocation, and when it was
// written. CodeNotFound: it is not here.
func (e *Engine) RevocationEvent(ref fcp.Hash) (feed fcp.Feed, seq uint64, at time.Time, err error) {
	for _, zone := range e.Zones() {
		no, ok := e.fold.zoneNumber(zone)
		if !ok {
			continue
		}
		prefix := appendPrefix(nil, no, e.fold.slot(projRevocations))
		var p place
		err = e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
			if authority.RefOf(v.Canonical) != ref {
				return true, nil
			}
			var err error
			if p, err = decodePlace(v.Local); err == nil {
				err = errEnough
			}
			return false, err
		})
		if err == nil {
			continue
		}
		if !errors.Is(err, errEnough) {
			return feed, 0, at, err
		}
		ev, _, err := e.log.Read(p.feed, p.seq)
		return e.log.Feed(p.feed), p.seq, ev.Time.Wall(), err
	}
	return feed, 0, at, fcp.Errorf(fcp.CodeNotFound, "revocation %s", ref)
}
