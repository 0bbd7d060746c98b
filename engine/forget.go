package engine

import (
	"cmp"
	"context"
	"slices"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// checkSalt tells a body whose key was destroyed from one whose key is missing.
func checkSalt(salt [log.SaltSize]byte, object fcp.ObjectID) error {
	switch salt {
	case log.ForgottenSalt:
		return fcp.Errorf(fcp.CodeKeyForgotten, "object %s", object)
	case [log.SaltSize]byte{}:
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
}

// ForgetResult says what was destroyed and what could not be reached.
type ForgetResult struct {
	DryRun  bool
	Objects []fcp.ObjectID // whose bodies cannot be read here any more
	Keys    int            // data keys destroyed: one for each event that carries an object or chunk
	Shared  int            // chunks whose key stays, because another object has them too
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
// they were. Copies that the node cannot reach are named in the result. Errors:
// CodeNotFound when there is no such object.
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
	f := forgetting{e: e, ctx: ctx, zone: z, q: &q, r: &r, targets: map[fcp.ObjectID]bool{}}
	for _, step := range []func() error{f.find, f.chunks, f.keepShared, f.keepHeld, f.carriers, f.copies} {
		if err := step(); err != nil {
			return r, err
		}
	}
	r.DryRun = q.DryRun
	if q.DryRun {
		return r, nil
	}
	return r, e.log.ForgetSalts(ctx, f.places)
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

// chunks adds the chunks of large objects whose manifest can still be read.
func (f *forgetting) chunks() error {
	for _, id := range f.r.Objects {
		r := &Reader{e: f.e, ctx: f.ctx, zone: f.zone, info: Info{Zone: f.zone.zone}}
		err := r.byObject(id)
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

// keepShared leaves out chunks that another version has too.
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
				f.places = append(f.places, p)
				f.r.Keys++
			}
		}
		return nil
	})
}

// copies names what is out of reach.
func (f *forgetting) copies() error {
	self := f.e.node.Writer()
	err := f.e.records(fcp.ZoneOwner, projDevices, func(body []byte) error {
		d, err := authority.VerifyDevice(f.e.genesis.Owner, body)
		if err == nil && d.Writer() != self {
			f.r.Copies = append(f.r.Copies, ForgetCopy{"member", d.Name() + " (" + d.Writer().String()[:16] + ")",
				"keeps its key until the object is forgotten there too"})
		}
		return err
	})
	if err != nil {
		return err
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
