package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// checkSalt tells a body whose key was destroyed, or is to be, from one whose key is
// missing.
func (e *Engine) checkSalt(zone fcp.ZoneID, salt [log.SaltSize]byte, object fcp.ObjectID) error {
	switch {
	case salt == log.ForgottenSalt || e.forgets().object(zone, object):
		return fcp.Errorf(fcp.CodeKeyForgotten, "object %s", object)
	case salt == [log.SaltSize]byte{}:
		return fcp.Errorf(fcp.CodeKeyTableLost, "object %s", object)
	}
	return nil
}

// ForgetRequest names what to forget: the present version of a key, all its
// versions, or an object by id.
type ForgetRequest struct {
	Zone   fcp.ZoneID // "": DefaultZone
	Key    string
	Object fcp.ObjectID // with Key ""
	All    bool         // every version of the key that is still in its history
	DryRun bool         // nothing is destroyed
	// Owner orders the other members to forget too; nil: this node alone does. Where
	// there is no other member no order is needed.
	Owner *authority.OwnerKey
}

// ForgetResult says what was destroyed and what could not be reached.
type ForgetResult struct {
	DryRun  bool
	Objects []fcp.ObjectID // whose bodies cannot be read here any more
	Keys    int            // data keys destroyed: one for each event that carries an object or chunk
	Shared  int            // chunks whose key stays, because another object has them too
	Orders  []fcp.Hash     // to the other members; see ForgetOrders
	Copies  []ForgetCopy   // that are out of reach
}

// ForgetCopy is a copy of a forgotten object's key that this node cannot destroy.
type ForgetCopy struct {
	Kind string `json:"kind"` // "member" or "backup"
	Name string `json:"name"` // whose, or which
	What string `json:"what"` // how it goes
}

// Forget destroys the data keys of objects on this node: nobody can read them from
// this store any more, though their names, sizes and ciphertexts stay. Reading one
// gives CodeKeyForgotten. Keys are in no event, so history and proofs stay what
// they were. With Owner the order to do the same is on disk before a key is
// destroyed, and goes to every member. Copies that the node cannot reach are named in
// the result. Errors: CodeNotFound when there is no such object, CodeNotEnough when it
// cannot be told here what a large object consists of, CodeWrongKey for another owner.
func (e *Engine) Forget(ctx context.Context, q ForgetRequest) (r ForgetResult, err error) {
	q.Zone = cmp.Or(q.Zone, DefaultZone)
	z := e.ring.Load().zones[q.Zone]
	if z == nil {
		return r, e.unknownZone(q.Zone)
	}
	e.maintenance.Lock()
	defer e.maintenance.Unlock()
	e.holds.begin()
	defer e.holds.end()
	if q.Owner != nil && q.Owner.Public() != e.genesis.Owner {
		return r, fcp.Errorf(fcp.CodeWrongKey, "the identity is of another owner than the store")
	}
	f := forgetting{e: e, ctx: ctx, zone: z, q: &q, r: &r, targets: map[fcp.ObjectID]bool{}}
	for _, step := range []func() error{f.find, f.others, f.chunks, f.tell, f.keepShared, f.keepHeld, f.carriers, f.copies} {
		if err := step(); err != nil {
			return r, err
		}
	}
	r.DryRun = q.DryRun
	if q.DryRun {
		return r, nil
	}
	if !f.ordered {
		return r, e.log.ForgetSalts(ctx, f.places)
	}
	orders, err := f.order()
	if err != nil {
		return r, err
	}
	return r, e.carryOut(ctx, q.Zone, orders)
}

// forgetting is one call of Forget.
type forgetting struct {
	e       *Engine
	ctx     context.Context
	zone    *zoneKeys
	q       *ForgetRequest
	r       *ForgetResult
	targets map[fcp.ObjectID]bool // objects, then chunks too
	last    uint64                // position up to which events carry what is forgotten
	places  []log.Place
	objects []fcp.ObjectID // in step with places

	members []Member // other devices, revoked ones too, by name
	ordered bool     // some of them are to be told
	told    carriers // chunks in segments, here and elsewhere
}

func (f *forgetting) find() error {
	add := func(id fcp.ObjectID) {
		if !id.IsZero() && !f.targets[id] {
			f.targets[id] = true
			f.r.Objects = append(f.r.Objects, id)
		}
	}
	switch {
	case f.q.Key == "":
		_, ok, err := f.e.placeOf(f.zone.zone, projObjects, f.q.Object[:])
		if err == nil && !ok {
			err = fcp.Errorf(fcp.CodeNotFound, "object %s", f.q.Object)
		}
		add(f.q.Object)
		return err
	case f.q.All:
		err := f.e.History(f.ctx, f.zone.zone, f.q.Key, func(entry *Entry) error {
			for i := range entry.Heads {
				add(entry.Heads[i].Object)
			}
			return nil
		})
		if err != nil {
			return err
		}
	default:
		entry, err := f.e.Stat(f.ctx, f.zone.zone, f.q.Key, At{})
		if err != nil {
			return err
		}
		for i := range entry.Heads {
			add(entry.Heads[i].Object)
		}
	}
	if len(f.r.Objects) == 0 {
		return fcp.Errorf(fcp.CodeNotFound, "the key is removed; its versions are in its history").WithNext("forget all of them with --all")
	}
	return nil
}

// others finds the other devices.
func (f *forgetting) others() error {
	all, err := f.e.Members()
	for _, m := range all {
		if m.Writer != f.e.node.Writer() {
			f.members = append(f.members, m)
			f.ordered = f.ordered || f.q.Owner != nil && !m.Revoked
		}
	}
	slices.SortStableFunc(f.members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), bytes.Compare(a.Writer[:], b.Writer[:]))
	})
	return err
}

// chunks adds the chunks of large objects whose manifest can still be read. An order
// needs them.
func (f *forgetting) chunks() error {
	for _, id := range f.r.Objects {
		r := &Reader{e: f.e, ctx: f.ctx, zone: f.zone, info: Info{Zone: f.zone.zone}}
		err := r.byObject(id)
		if f.ordered && errors.Is(err, fcp.CodeNotEnough) {
			large, lerr := f.large(id)
			if lerr != nil {
				return lerr
			}
			if large {
				return fcp.Errorf(fcp.CodeNotEnough, "which chunks large object %s has is said in a body that is not on this device: %w", id, err).
					WithNext("forget it on the device that wrote it")
			}
		}
		if c := fcp.CodeOf(err); c == fcp.CodeKeyForgotten || c == fcp.CodeNotEnough || c == fcp.CodeHorizon || c == fcp.CodeKeyTableLost {
			continue
		}
		if err != nil {
			return err
		}
		if r.manifest != nil {
			for _, c := range r.manifest.Chunks {
				f.targets[c] = true
			}
		}
	}
	return nil
}

// large reports whether an object has chunks.
func (f *forgetting) large(id fcp.ObjectID) (bool, error) {
	p, ok, err := f.e.placeOf(f.zone.zone, projObjects, id[:])
	if err != nil || !ok {
		return false, err
	}
	ev, _, err := f.e.log.Read(p.feed, p.seq)
	return ev.Size > fcp.ChunkSize, err
}

// isChunk reports whether an object that is to be forgotten is none of those that were
// asked for.
func (f *forgetting) isChunk(id fcp.ObjectID) bool {
	return f.targets[id] && !slices.Contains(f.r.Objects, id)
}

// tell finds the chunks in the segments that members told of.
func (f *forgetting) tell() error {
	f.told = carriers{}
	if len(f.targets) == len(f.r.Objects) {
		return nil // nothing large
	}
	return f.e.DataSegments(f.zone.zone, func(r *log.Remainder) error {
		for i, off := range r.Seqs {
			if id := fcp.ObjectID(r.Objects[i*fcp.HashSize:][:fcp.HashSize]); f.isChunk(id) {
				f.told.add(r.Feed(), r.First+off, id)
			}
		}
		return nil
	})
}

// keepShared leaves out chunks that another version has too. Of a version whose
// manifest is not here its writer decides: it goes by chunks in its own log.
func (f *forgetting) keepShared() error {
	if len(f.targets) == len(f.r.Objects) {
		return nil // nothing large
	}
	no, _ := f.e.fold.zoneNumber(f.zone.zone)
	seen := map[fcp.ObjectID]bool{}
	return f.e.eachVersion(f.ctx, no, 0, 0, func(h *head) error {
		if h.size <= fcp.ChunkSize || slices.Contains(f.r.Objects, h.object) || seen[h.object] {
			return nil
		}
		seen[h.object] = true
		chunks, err := f.e.chunksOf(f.ctx, f.zone, Version{Feed: h.feed, Seq: h.seq, Object: h.object, Position: h.position})
		if errors.Is(err, fcp.CodeNotEnough) && !f.told.has(f.e.log.Feed(h.feed).Writer) {
			return nil
		}
		for _, c := range chunks {
			if f.targets[c] {
				f.r.Shared++
				delete(f.targets, c)
			}
		}
		return err
	})
}

// keepHeld leaves out chunks that a write under way is about to name. One that
// comes to write the others from here on writes them again, behind last.
func (f *forgetting) keepHeld() error {
	f.last = f.e.log.Durable()
	for id := range f.targets {
		if !slices.Contains(f.r.Objects, id) && !f.e.holds.condemn(id) {
			f.r.Shared++
			delete(f.targets, id)
		}
	}
	return nil
}

// carriers finds every event that carries one of the objects.
func (f *forgetting) carriers() error {
	return f.e.log.Scan(f.ctx, log.ScanOptions{To: f.last, Verify: log.VerifyNone, Workers: f.e.opts.Workers}, func(events []log.Applied) error {
		if f.e.log.Feed(events[0].Feed).Zone != f.zone.zone {
			return nil
		}
		for i := range events {
			c := &events[i].Content
			if len(c.Body) == 0 || c.Kind.Info().Clear || !f.targets[c.Object] {
				continue
			}
			p := log.Place{Feed: events[i].Feed, Seq: events[i].Seq}
			salt, err := f.e.log.Salt(p.Feed, p.Seq)
			if err != nil {
				return err
			}
			if salt != log.ForgottenSalt {
				f.places, f.objects = append(f.places, p), append(f.objects, c.Object)
				f.r.Keys++
			}
		}
		return nil
	})
}

// copies names what is out of reach.
func (f *forgetting) copies() error {
	for _, m := range f.members {
		what := "keeps its key until the object is forgotten there too"
		switch {
		case f.ordered && m.Revoked:
			what = "was taken out, and is not told"
		case f.ordered:
			what = "keeps its key until it hears of this: see `fcpctl object forgotten`"
		}
		f.r.Copies = append(f.r.Copies, ForgetCopy{"member", m.Name + " (" + m.Writer.String()[:16] + ")", what})
	}
	f.r.Copies = append(f.r.Copies, ForgetCopy{"backup", "every folder that this store was backed up or scattered to",
		"keeps the key until the next `fcpctl backup create` or `fcpctl segment scatter` into it; copies of a folder keep it for good"})
	restored, err := f.restoredFrom()
	if err == nil && restored != "" {
		f.r.Copies = append(f.r.Copies, ForgetCopy{"backup", restored, "this store was restored from it"})
	}
	return err
}

// restoredFrom names the backup that this store came from; "" for none.
func (f *forgetting) restoredFrom() (name string, err error) {
	for _, feed := range f.e.log.Feeds() {
		if feed.Feed.Plane != fcp.PlaneLocal {
			continue
		}
		err = f.e.log.ScanFeed(f.ctx, feed.No, 1, 0, log.VerifyNone, func(events []log.Applied) error {
			for i := range events {
				var o restoredObject
				if events[i].Content.Kind != fcp.KindStoreRestored {
					continue
				}
				if err := fcp.UnmarshalPayload(fcp.SchemaStoreRestored, events[i].Content.Body, &o); err != nil {
					return err
				}
				name = "backup number " + decimal(o.Seq) + ", manifest " + o.Manifest.String()[:16]
			}
			return nil
		})
		if err != nil {
			return "", err
		}
	}
	return name, nil
}
