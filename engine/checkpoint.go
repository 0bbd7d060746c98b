package engine

import (
	"context"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
)

// CheckpointOptions configure Checkpoint.
type CheckpointOptions struct {
	Owner *authority.OwnerKey // needed
	Zones []fcp.ZoneID        // nil: every zone whose keys are here
	// Retention, unless nil, is what the owner wants kept from now on; nil goes on
	// with what the checkpoint before says, or authority.DefaultRetention.
	Retention  *authority.Retention
	Pin, Unpin []fcp.ObjectID // in each of the zones
	DryRun     bool           // nothing is signed
}

// CheckpointResult is a checkpoint that was signed, or would be.
type CheckpointResult struct {
	Zone      fcp.ZoneID
	Seq       uint64
	Root      fcp.Hash // of the zone, before the checkpoint
	Feeds     int
	Retention authority.Retention
	Pins      int
	Position  uint64 // of the event; 0 in a dry run
}

// Checkpoint signs and appends a checkpoint of each zone: how far its feeds
// reached, and what is to be kept. It is what garbage collection starts from: what
// is garbage as of a checkpoint may be dropped GCGrace later. Errors:
// CodeWrongKey for an identity that is not this store's owner; those of appending.
func (e *Engine) Checkpoint(ctx context.Context, o CheckpointOptions) (out []CheckpointResult, err error) {
	if o.Owner == nil {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "a checkpoint needs the owner's identity")
	}
	if err := e.genesis.CheckOwner(o.Owner.Public()); err != nil {
		return nil, err
	}
	zones := o.Zones
	if zones == nil {
		for _, z := range e.Zones() {
			if e.ring.Load().zones[z] != nil {
				zones = append(zones, z)
			}
		}
	}
	for _, zone := range zones {
		r, err := e.checkpointZone(ctx, zone, &o)
		if err != nil {
			return out, err
		}
		out = append(out, r)
	}
	return out, nil
}

func (e *Engine) checkpointZone(ctx context.Context, zone fcp.ZoneID, o *CheckpointOptions) (r CheckpointResult, err error) {
	all, err := e.checkpoints(zone)
	if err != nil {
		return r, err
	}
	s := authority.CheckpointSpec{Zone: zone, Seq: 1, Previous: e.genesis.ID, Retention: authority.DefaultRetention()}
	if n := len(all); n > 0 {
		last := all[n-1].Checkpoint
		s.Seq, s.Previous, s.Retention, s.Pins = last.Seq()+1, last.Hash(), last.Retention(), last.Pins()
	}
	if o.Retention != nil {
		s.Retention = *o.Retention
	}
	for _, p := range o.Pin {
		if !slices.Contains(s.Pins, p) {
			s.Pins = append(s.Pins, p)
		}
	}
	s.Pins = slices.DeleteFunc(s.Pins, func(p fcp.ObjectID) bool { return slices.Contains(o.Unpin, p) })
	if s.Root, s.Feeds, err = e.zoneVector(zone); err != nil {
		return r, err
	}
	r = CheckpointResult{Zone: zone, Seq: s.Seq, Root: s.Root, Feeds: len(s.Feeds), Retention: s.Retention, Pins: len(s.Pins)}
	body, err := authority.SignCheckpoint(e.env.Now(), o.Owner, s)
	if err != nil || o.DryRun {
		return r, err
	}
	receipt, err := e.AppendSigned(ctx, zone, fcp.KindCheckpointSigned, body)
	if err == nil {
		r.Position = receipt.Events[0].Position
	}
	return r, err
}

// RetentionOf returns what the newest checkpoint of a zone asks to be kept.
func (e *Engine) RetentionOf(zone fcp.ZoneID) (authority.Retention, error) {
	all, err := e.checkpoints(zone)
	if err != nil || len(all) == 0 {
		return authority.DefaultRetention(), err
	}
	return all[len(all)-1].Retention(), nil
}

// zoneVector returns a zone's root and how far its feeds reached, of one moment. Of a
// feed that forked it says what all have alike: up to where its branches part.
func (e *Engine) zoneVector(zone fcp.ZoneID) (root fcp.Hash, feeds []authority.CheckpointFeed, err error) {
	if err := e.fold.warmDigests(zone); err != nil {
		return root, nil, err
	}
	e.gate.Lock()
	defer e.gate.Unlock()
	if root, err = e.fold.zoneRoot(zone); err != nil {
		return root, nil, err
	}
	e.fold.mu.RLock()
	defer e.fold.mu.RUnlock()
	for _, s := range e.fold.sources {
		if s != nil && s.Feed.Zone == zone && s.Feed.Plane.Chained() && s.seq > 0 {
			f := authority.CheckpointFeed{Writer: s.Feed.Writer, Incarnation: s.Feed.Incarnation, Plane: uint8(s.Feed.Plane), Seq: s.seq, Hash: s.hash}
			if at := e.fold.cuts.ForkOf(s.Feed); at != 0 && at <= s.seq {
				if at == 1 {
					continue
				}
				no, _ := e.log.FeedNo(s.Feed)
				f.Seq = at - 1
				if _, f.Hash, err = e.log.ReadFull(no, f.Seq); err != nil {
					return root, nil, err
				}
			}
			feeds = append(feeds, f)
		}
	}
	return root, feeds, nil
}

// placedCheckpoint is a checkpoint with when it got here.
type placedCheckpoint struct {
	*authority.Checkpoint
	at time.Time // the later of when it was signed and the time of its event
}

// checkpoints returns a zone's checkpoints, ascending by number, without genesis.
// Two of one number are a fork: CodeEquivocation.
func (e *Engine) checkpoints(zone fcp.ZoneID) (out []placedCheckpoint, err error) {
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		return nil, e.unknownZone(zone)
	}
	prefix := appendPrefix(nil, no, e.fold.slot(projCheckpoints))
	err = e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
		c, err := authority.VerifyCheckpoint(e.genesis.Owner, slices.Clone(v.Canonical))
		if err != nil {
			return true, nil // the genesis checkpoint
		}
		p, err := decodePlace(v.Local)
		if err != nil {
			return false, err
		}
		ev, _, err := e.log.Read(p.feed, p.seq)
		if err != nil {
			return false, err
		}
		at := ev.Time.Wall()
		if c.CreatedAt().After(at) {
			at = c.CreatedAt()
		}
		out = append(out, placedCheckpoint{c, at})
		return true, nil
	})
	slices.SortFunc(out, func(a, b placedCheckpoint) int { return int(a.Seq()) - int(b.Seq()) })
	for i := 1; err == nil && i < len(out); i++ {
		if out[i].Seq() == out[i-1].Seq() {
			err = fcp.Errorf(fcp.CodeEquivocation, "two checkpoints of %s have number %d", zone, out[i].Seq())
		}
	}
	return out, err
}
