package engine

import (
	"context"
	"errors"

	"fcp"
	"fcp/log"
)

// Held says what a node has of others' bodies on its own disk. Its functions are
// called from one goroutine.
type Held struct {
	Segment func(*log.Remainder) bool // enough symbols of it to read it, and its salts
	Tail    func(fcp.ObjectID) bool   // an event that is in no segment, or not only
}

// Needed is a name, and what of it is not on this node's disk.
type Needed struct {
	Key  string
	Size uint64 // bytes of payload, of all its heads
	// Segments that hold bodies of it and are not held, each once.
	Segments []*log.Remainder
	// Tails are its bodies that are in no segment which members told of, and not held.
	Tails []fcp.ObjectID
	// More says that which chunks it has is known only when what is named here came.
	More bool
}

// Whole reports whether the name can be read from this node's disk alone.
func (n *Needed) Whole() bool { return len(n.Segments)+len(n.Tails) == 0 && !n.More }

// Needs calls fn for each name of a zone that want accepts and that is not removed, in
// the order of the names, with what is missing here to read every head of it. It
// reads no body but the manifests of chunked objects, and those from this disk. Errors:
// those of List; a body that was collected or forgotten is not missing.
func (e *Engine) Needs(ctx context.Context, zone fcp.ZoneID, prefix string, want func(*Entry) bool, h Held, fn func(*Needed) error) error {
	z := e.ring.Load().zones[zone]
	if z == nil {
		return e.unknownZone(zone)
	}
	s := &needs{e: e, ctx: ctx, zone: z, held: h, foreign: map[fcp.ObjectID]*log.Remainder{}}
	var list []*needing
	err := e.List(ctx, ListRequest{Zone: zone, Prefix: prefix}, func(entry *Entry) error {
		if !want(entry) {
			return nil
		}
		n := &needing{Needed: Needed{Key: entry.Key}}
		for i := range entry.Heads {
			if v := &entry.Heads[i]; !v.Tombstone {
				n.Size += v.Size
				if err := s.version(n, v); err != nil {
					return err
				}
			}
		}
		list = append(list, n)
		return nil
	})
	if err != nil {
		return err
	}
	// Bodies first: those that are chunked tell of chunks, when they are here.
	if err := s.findSegments(); err != nil {
		return err
	}
	for _, n := range list {
		if err := s.manifests(n); err != nil {
			return err
		}
	}
	if err := s.findSegments(); err != nil {
		return err
	}
	for _, n := range list {
		s.settle(n)
		if err := fn(&n.Needed); err != nil {
			return err
		}
	}
	return nil
}

// needing is a name while its bodies are looked for.
type needing struct {
	Needed
	bodies  []fcp.ObjectID // not in this log
	chunked []Version      // whose manifests are to be read when they are here
}

// needs is one run of Needs.
type needs struct {
	e       *Engine
	ctx     context.Context
	zone    *zoneKeys
	held    Held
	foreign map[fcp.ObjectID]*log.Remainder // bodies that are not in this log, and where they are; nil: not known
	news    bool                            // some were added since they were looked for
}

func (s *needs) add(n *needing, id fcp.ObjectID) {
	if _, ok := s.foreign[id]; !ok {
		s.foreign[id], s.news = nil, true
	}
	n.bodies = append(n.bodies, id)
}

// version notes what one version needs.
func (s *needs) version(n *needing, v *Version) error {
	if s.e.forgets().object(s.zone.zone, v.Object) {
		return nil
	}
	_, here, err := s.e.placeOf(s.zone.zone, projBodies, v.Object[:])
	if err != nil {
		return err
	}
	if !here {
		ev, _, err := s.e.log.Read(v.Feed, v.Seq)
		if err != nil {
			return err
		}
		if len(ev.Body) == 0 { // else it is inline
			s.add(n, v.Object)
		}
	}
	if v.Size > fcp.ChunkSize {
		n.chunked = append(n.chunked, *v)
	}
	return nil
}

// findSegments finds the segments of the bodies that were added.
func (s *needs) findSegments() error {
	if !s.news {
		return nil
	}
	s.news = false
	return s.e.DataSegments(s.zone.zone, func(r *log.Remainder) error {
		for i := range r.Seqs {
			id := fcp.ObjectID(r.Objects[i*fcp.HashSize : (i+1)*fcp.HashSize])
			if at, ok := s.foreign[id]; ok && (at == nil || !s.held.Segment(at)) {
				s.foreign[id] = r
			}
		}
		if s.ctx.Err() != nil {
			return interrupted(s.ctx)
		}
		return nil
	})
}

// here reports whether a body that is not in this log is on this disk.
func (s *needs) here(id fcp.ObjectID) bool {
	r := s.foreign[id]
	return r != nil && s.held.Segment(r) || s.held.Tail(id)
}

// manifests notes the chunks of the objects whose manifests are here.
func (s *needs) manifests(n *needing) error {
	for i := range n.chunked {
		v := &n.chunked[i]
		if _, foreign := s.foreign[v.Object]; foreign && !s.here(v.Object) {
			n.More = true
			continue
		}
		r := &Reader{e: s.e, ctx: s.ctx, zone: s.zone, info: Info{Zone: s.zone.zone, Key: n.Key}}
		err := r.byVersion(*v)
		if errors.Is(err, fcp.CodeHorizon) || errors.Is(err, fcp.CodeKeyForgotten) {
			continue
		}
		if err != nil {
			return err
		}
		if r.manifest == nil {
			continue
		}
		for _, id := range r.manifest.Chunks {
			_, here, err := s.e.placeOf(s.zone.zone, projBodies, id[:])
			if err != nil {
				return err
			}
			if !here {
				s.add(n, id)
			}
		}
	}
	return nil
}

// settle says of each body of a name where it is to come from.
func (s *needs) settle(n *needing) {
	named := map[fcp.SegmentID]bool{}
	for _, id := range n.bodies {
		if s.here(id) {
			continue
		}
		r := s.foreign[id]
		if r == nil {
			n.Tails = append(n.Tails, id)
			continue
		}
		if segment := fcp.SegmentID(r.Segment); !named[segment] {
			named[segment] = true
			n.Segments = append(n.Segments, r)
		}
	}
}
