package engine

import (
	"errors"
	"sort"

	"fcp"
	"fcp/log"
)

// The horizon of a zone is the first position as of which everything can be read.
// What ended before it may have been dropped by a compaction. Segments remember it
// as a hybrid time, because positions are a store's own: a restored store finds
// its own position for it.

// HorizonOf returns the first position as of which a zone can be read whole, and
// the time it belongs to; 0 when nothing was dropped.
func (e *Engine) HorizonOf(zone fcp.ZoneID) (position uint64, at fcp.Time, err error) {
	for _, f := range e.log.Feeds() {
		if f.Feed.Zone == zone && f.Feed.Plane == fcp.PlaneData {
			at = max(at, f.Horizon)
		}
	}
	if at == 0 {
		return 0, 0, nil
	}
	position, err = e.behind(zone, at)
	return position, at, err
}

// behind returns the position behind the last control event of a zone of time at
// or before t.
func (e *Engine) behind(zone fcp.ZoneID, t fcp.Time) (position uint64, err error) {
	for _, f := range e.log.Feeds() {
		if f.Feed.Zone != zone || f.Feed.Plane != fcp.PlaneControl {
			continue
		}
		seq, err := lastOf(f, func(seq uint64) (bool, error) {
			ev, _, err := e.log.Read(f.No, seq)
			return ev.Time <= t, err
		})
		if err != nil {
			return 0, err
		}
		if seq == 0 {
			continue
		}
		p, err := e.log.PositionOf(f.No, seq)
		if err != nil {
			return 0, err
		}
		position = max(position, p)
	}
	return position + 1, nil
}

// settled returns the position of the first control event of a zone that is younger
// than t or that a checkpoint does not cover: what ended before it ended by t. A
// member's events that came late keep what they follow, however old they are.
func (e *Engine) settled(zone fcp.ZoneID, t fcp.Time, c *placedCheckpoint) (position uint64, err error) {
	position = e.log.Durable() + 1
	for _, f := range e.log.Feeds() {
		if f.Feed.Zone != zone || f.Feed.Plane != fcp.PlaneControl {
			continue
		}
		seq, err := lastOf(f, func(seq uint64) (bool, error) {
			ev, _, err := e.log.Read(f.No, seq)
			return ev.Time <= t, err
		})
		if err != nil {
			return 0, err
		}
		if seq = min(seq, c.Covers(f.Feed)); seq == f.Seq {
			continue
		}
		if at := e.ForkedFrom(f.Feed); at != 0 && seq+1 >= at {
			continue // what follows is void
		}
		p, err := e.log.PositionOf(f.No, seq+1)
		if err != nil {
			return 0, err
		}
		position = min(position, p)
	}
	return position, nil
}

// lastOf returns the last event of a feed for which holds says true, when it does
// so for a beginning of the feed; 0 for none.
func lastOf(f log.FeedState, holds func(seq uint64) (bool, error)) (uint64, error) {
	var failed error
	n := sort.Search(int(f.Seq), func(i int) bool {
		ok, err := holds(uint64(i) + 1)
		if err != nil {
			failed = err
		}
		return err != nil || !ok
	})
	return uint64(n), failed
}

// checkHorizon refuses a read of a zone as of a position below its horizon.
func (e *Engine) checkHorizon(zone fcp.ZoneID, position uint64) error {
	h, at, err := e.HorizonOf(zone)
	if err != nil || position >= h {
		return err
	}
	return fcp.Errorf(fcp.CodeHorizon, "position %d of %s lies below the compaction horizon: what was replaced until %s is gone; reads as of position %d and later work",
		position, zone, at.Wall().UTC().Format("2006-01-02T15:04:05.000Z"), h).WithNext("use --at " + decimal(h) + " or later")
}

// orGone says of a body that is not here why: dropped by a compaction, when it was
// written before the horizon.
func (e *Engine) orGone(err error, zone fcp.ZoneID, position uint64, object fcp.ObjectID) error {
	if !errors.Is(err, fcp.CodeNotEnough) {
		return err
	}
	if h, _, herr := e.HorizonOf(zone); herr == nil && h > position {
		return fcp.Errorf(fcp.CodeHorizon, "the body of object %s, written at position %d, was replaced before the compaction horizon of %s at position %d", object, position, zone, h)
	}
	return err
}
