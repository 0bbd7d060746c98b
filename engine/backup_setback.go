package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"fcp"
	"fcp/log"
)

// setBack gives every name the version it had at a time, by appending.
func (e *Engine) setBack(ctx context.Context, at time.Time, r *RestoreResult) error {
	if err := e.waitApplied(ctx, e.log.Durable()); err != nil {
		return err
	}
	for _, zone := range e.Zones() {
		keys, err := e.changedSince(ctx, zone, at)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if ctx.Err() != nil {
				return interrupted(ctx)
			}
			changed, err := e.setNameBack(ctx, zone, key, at)
			switch fcp.CodeOf(err) {
			case 0:
				if changed {
					r.SetBack++
				}
			case fcp.CodeKeyForgotten, fcp.CodeKeyTableLost, fcp.CodeHorizon, fcp.CodeNotEnough:
				r.Gone = append(r.Gone, zone.String()+" "+key)
			default:
				return fcp.Wrap(fcp.CodeInternal, err, "set %s back in %s", key, zone)
			}
		}
	}
	return nil
}

// changedSince returns the names of a zone that were written after a time.
func (e *Engine) changedSince(ctx context.Context, zone fcp.ZoneID, at time.Time) ([]string, error) {
	keys := map[string]bool{}
	for _, f := range e.log.Feeds() {
		if f.Feed.Zone != zone || f.Feed.Plane != fcp.PlaneControl || f.Seq == 0 {
			continue
		}
		err := e.log.ScanFeed(ctx, f.No, 1, 0, log.VerifyNone, func(events []log.Applied) error {
			for i := range events {
				if c := &events[i].Content; c.Kind.Info().Named && events[i].Time.Wall().After(at) {
					keys[string(c.Key)] = true
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return slices.Sorted(maps.Keys(keys)), nil
}

// setNameBack appends the version that a name showed at a time, or a tombstone
// when it showed none. Of several concurrent ones it is the one that was displayed.
func (e *Engine) setNameBack(ctx context.Context, zone fcp.ZoneID, key string, at time.Time) (changed bool, err error) {
	var then *Version
	err = e.History(ctx, zone, key, func(entry *Entry) error {
		for i := range entry.Heads {
			if h := &entry.Heads[i]; !h.Time.Wall().After(at) && (then == nil || displayedBefore(h, then)) {
				v := *h
				then = &v
			}
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	now, err := e.Stat(ctx, zone, key, At{})
	if errors.Is(err, fcp.CodeNotFound) {
		return false, nil // every version of it is void
	}
	if err != nil {
		return false, err
	}
	if then == nil || then.Tombstone {
		if now.Removed() {
			return false, nil
		}
		_, err = e.Remove(ctx, RemoveRequest{Zone: zone, Key: key})
		return err == nil, err
	}
	if h := now.Head(); now.Siblings() == 0 && !h.Tombstone && h.Object == then.Object {
		return false, nil
	}
	body, err := e.Get(ctx, GetRequest{Zone: zone, Key: key, Version: then.Hash})
	if err != nil {
		return false, err
	}
	_, err = e.Put(ctx, PutRequest{Zone: zone, Key: key, Body: body})
	return err == nil, err
}

// displayedBefore reports whether a comes before b in the order of display.
func displayedBefore(a, b *Version) bool {
	switch {
	case a.Generation != b.Generation:
		return a.Generation > b.Generation
	case a.Time != b.Time:
		return a.Time > b.Time
	case a.Writer != b.Writer:
		return string(a.Writer[:]) > string(b.Writer[:])
	}
	return a.Seq > b.Seq
}
