package engine

import (
	"context"
	"errors"

	"fcp"
	"fcp/engine/internal/state"
)

// recordReader calls fn with each body that a record projection keeps in a zone, in
// key order.
type recordReader func(zone fcp.ZoneID, projection string, fn func(body []byte) error) error

// ZoneFactsAt returns what governed a zone when the log ended at a position; 0 is
// now. It folds the log up to there into memory, which takes as long as a replay.
// Errors: CodeZone, CodeNotPosition, CodeHorizon below a compaction.
func (e *Engine) ZoneFactsAt(ctx context.Context, zone fcp.ZoneID, position uint64) (_ *ZoneFacts, err error) {
	if position == 0 {
		return e.ZoneFacts(zone)
	}
	to, err := e.PositionAt(At{Position: position})
	if err != nil {
		return nil, err
	}
	if err := e.checkHorizon(zone, to); err != nil {
		return nil, err
	}
	d, st, err := e.past(ctx, to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	if _, ok := d.zoneNumber(zone); !ok {
		return nil, fcp.Errorf(fcp.CodeZone, "%.80q had no events at position %d", zone.String(), to)
	}
	return e.foldFacts(zone, func(zone fcp.ZoneID, projection string, fn func([]byte) error) error {
		no, ok := d.zoneNumber(zone)
		if !ok {
			return nil
		}
		prefix := appendPrefix(nil, no, d.slot(projection))
		return st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
			return true, fn(append([]byte(nil), v.Canonical...))
		})
	})
}
