package engine

import (
	"context"
	"errors"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// Status describes the store. It reads a few records and no events.
func (e *Engine) Status() Status {
	s := Status{
		Dir: e.dir, Format: Format, Owner: e.genesis.Owner, Writer: e.node.Writer(), Incarnation: e.log.Incarnation(),
		StoreID: e.genesis.StoreID, Position: e.log.Durable(), Applied: e.applied.Load(), Flushed: e.st.Cursor(),
		ReadOnly: e.opts.ReadOnly || e.log.Doubt() != nil, Full: e.full || e.log.Full(), Feeds: e.log.Feeds(), Projections: e.Projections(),
	}
	ring := e.ring.Load()
	for _, zone := range e.Zones() {
		z := ZoneStatus{Zone: zone, HasKeys: ring.zones[zone] != nil, Levels: e.levels(zone)}
		for _, f := range s.Feeds {
			switch {
			case f.Feed.Zone != zone:
			case f.Feed.Plane == fcp.PlaneControl:
				z.Control += f.Seq
			case f.Feed.Plane == fcp.PlaneData:
				z.Data += f.Seq
			}
		}
		s.Zones = append(s.Zones, z)
	}
	// A store whose segments or devices do not read still has a status; Verify
	// says what is wrong with it.
	if err := e.log.Segments(func(log.SegmentInfo) error { s.Segments++; return nil }); err != nil {
		e.env.Logger.Warn("count the segments", "err", err)
	}
	s.Device = e.deviceName(s.Writer)
	return s
}

// levels returns the levels of a zone by its newest definition.
func (e *Engine) levels(zone fcp.ZoneID) (l fcp.Levels) {
	e.records(zone, projZones, func(body []byte) error {
		z, err := authority.VerifyZone(e.genesis.Owner, body)
		if err == nil {
			l = z.Spec().Levels // ascending by version
		}
		return err
	})
	return l
}

func (e *Engine) deviceName(writer fcp.WriterID) (name string) {
	for _, zone := range e.Zones() {
		e.records(zone, projDevices, func(body []byte) error {
			d, err := authority.VerifyDevice(e.genesis.Owner, body)
			if err == nil && d.Writer() == writer {
				name = d.Name()
			}
			return err
		})
	}
	return name
}

// records calls fn with each body that a record projection keeps in a zone, in
// key order.
func (e *Engine) records(zone fcp.ZoneID, projection string, fn func(body []byte) error) error {
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		return nil
	}
	prefix := appendPrefix(nil, no, e.fold.slot(projection))
	return e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
		return true, fn(append([]byte(nil), v.Canonical...))
	})
}

// Projections describes the projections, in the order of folding.
func (e *Engine) Projections() []ProjectionInfo {
	d := e.fold
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []ProjectionInfo
	for _, p := range d.list {
		if p.Version() != d.wanted(p.Name()).Version() {
			continue
		}
		r := d.slots.byName[p.Name()]
		out = append(out, ProjectionInfo{Name: p.Name(), Version: p.Version(), Local: p.Scope() == ScopeLocal,
			Building: r.version != p.Version(), Serving: r.version})
	}
	return out
}

// QueryProjection calls fn with the rows of a projection in a zone ("": every
// zone) whose key, as stored, begins with prefix, in key order. At reads of the
// past fold the log up to there into memory, which takes as long as a replay;
// names have List and Stat for that. CodeNotFound for an unknown projection.
func (e *Engine) QueryProjection(ctx context.Context, name string, zone fcp.ZoneID, prefix []byte, at At, fn func(*Row) error) error {
	d, st := e.fold, e.st
	p := d.wanted(name)
	if p == nil {
		return fcp.Errorf(fcp.CodeNotFound, "projection %.40q", name).WithNext("list them with `fcpctl proj ls`")
	}
	if !at.IsNow() {
		to, err := e.PositionAt(at)
		if err != nil {
			return err
		}
		if d, st, err = e.past(ctx, to); err != nil {
			return err
		}
		defer st.Close()
	}
	zones := []fcp.ZoneID{zone}
	if zone == "" {
		zones = d.zoneList()
	}
	for _, z := range zones {
		no, ok := d.zoneNumber(z)
		if !ok {
			return e.unknownZone(z)
		}
		if !at.IsNow() {
			if err := e.checkHorizon(z, d.position.Load()); err != nil {
				return err
			}
		}
		lower := append(appendPrefix(nil, no, d.slot(name)), prefix...)
		err := st.Scan(lower, upperBound(lower), func(key []byte, v state.Value) (bool, error) {
			if ctx.Err() != nil {
				return false, interrupted(ctx)
			}
			row := Row{Zone: z}
			if err := p.Row(key[keyPrefix:], v, &row); err != nil {
				return false, err
			}
			return true, fn(&row)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// past folds the log up to a position into memory.
func (e *Engine) past(ctx context.Context, to uint64) (*folder, *state.Store, error) {
	st, err := e.scratchState("")
	if err != nil {
		return nil, nil, err
	}
	d, err := newFolder(e.log, st, e.fold.list, e.genesis.Owner)
	if err == nil && to > 0 {
		err = e.foldTo(ctx, d, to, nil)
	}
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	return d, st, nil
}

// Verify checks the store: every event's encoding, hash, chain and Merkle tree,
// every segment's card and ciphertext, and as asked every body and the state. It
// goes on after a finding where it can. Its error says that it could not look,
// not that something is wrong.
func (e *Engine) Verify(ctx context.Context, o VerifyOptions) (r VerifyReport, err error) {
	e.maintenance.Lock()
	defer e.maintenance.Unlock()
	start := e.env.Now()
	v := verifier{e: e, ctx: ctx, o: o, r: &r}
	r.Feeds = len(e.log.Feeds())
	var doubt *fcp.Error
	if errors.As(e.log.Doubt(), &doubt) { // what is gone is in no event that could be checked
		r.Findings = append(r.Findings, Finding{Code: doubt.Code, What: doubt.Detail})
	}
	if err := v.segments(); err != nil {
		return r, err
	}
	if err := v.events(); err != nil {
		return r, err
	}
	if r.StateRoot, err = e.StateRoot(); err != nil {
		return r, err
	}
	if o.Replay && len(r.Findings) == 0 {
		report, err := e.replay(ctx, ReplayOptions{Progress: o.Progress})
		if err != nil {
			return r, err
		}
		if !report.Identical {
			r.Findings = append(r.Findings, Finding{Code: fcp.CodeRootMismatch, Position: report.Position, What: "the state is not what its log gives"})
		}
	}
	r.Elapsed = e.env.Now().Sub(start)
	return r, nil
}

type verifier struct {
	e   *Engine
	ctx context.Context
	o   VerifyOptions
	r   *VerifyReport
}

// found records what is wrong; an error that is not about the stored bytes ends
// the verification.
func (v *verifier) found(err error, f Finding) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, fcp.Corrupt) && !errors.Is(err, fcp.CodeSignature) && !errors.Is(err, fcp.CodeKeyForgotten) {
		return err
	}
	if errors.Is(err, fcp.CodeKeyForgotten) {
		return nil // forgotten on purpose
	}
	f.Code, f.What = fcp.CodeOf(err), err.Error()
	v.r.Findings = append(v.r.Findings, f)
	return nil
}

func (v *verifier) segments() error {
	err := v.e.log.Segments(func(s log.SegmentInfo) error {
		v.r.Segments++
		ciphertext, err := v.e.log.Ciphertext(s.No)
		if err == nil {
			_, err = log.CheckCiphertext(s.CardBytes, ciphertext)
		}
		no, _ := v.e.log.FeedNo(s.Remainder.Feed())
		if v.ctx.Err() != nil {
			return interrupted(v.ctx)
		}
		return v.found(err, Finding{Feed: no, Seq: s.Remainder.First})
	})
	return v.found(err, Finding{})
}

func (v *verifier) events() error {
	next := v.e.env.Now().Add(progressEvery)
	total := v.e.applied.Load()
	err := v.e.log.Scan(v.ctx, log.ScanOptions{To: total, Verify: log.VerifyTree, Workers: v.e.opts.Workers}, func(events []log.Applied) error {
		v.r.Events += uint64(len(events))
		if v.o.Bodies {
			for i := range events {
				if err := v.body(&events[i]); err != nil {
					return err
				}
			}
		}
		if now := v.e.env.Now(); v.o.Progress != nil && !now.Before(next) {
			next = now.Add(progressEvery)
			v.o.Progress(Progress{Stage: "scan", Done: events[len(events)-1].Position, Total: total})
		}
		return nil
	})
	return v.found(err, Finding{})
}

// body decrypts the body of one event and computes its object's id again.
func (v *verifier) body(a *log.Applied) error {
	c := &a.Content
	if len(c.Body) == 0 || c.Kind.Info().Clear || c.Kind == fcp.KindOpaque {
		return nil
	}
	feed := v.e.log.Feed(a.Feed)
	z := v.e.ring.Load().zones[feed.Zone]
	if z == nil {
		return nil // not ours to read
	}
	salt, err := v.e.log.Salt(a.Feed, a.Seq)
	if err != nil {
		return err
	}
	ev := fcp.Event{Feed: feed, Seq: a.Seq, Content: *c}
	if _, _, err = v.e.openObject(z, &ev, salt); err == nil {
		v.r.Bodies++
	}
	return v.found(err, Finding{Position: a.Position, Feed: a.Feed, Seq: a.Seq})
}

// EnrollOptions say whom Enroll takes in.
type EnrollOptions struct {
	Owner *authority.OwnerKey
	Node  authority.NodePublic
	Name  string
	Zones []fcp.ZoneID // nil: every zone this node has keys of

	Hybrid authority.HybridPublic // nil: the node cannot hold the keys of hybrid zones
	Tags   []string               // what the device is; canonical ids, ascending
}

// Enroll makes another node a member: it appends the node's enrollment to the
// owner's zone and, to each zone, a new version of its key manifest for every key
// the zone ever had, sealed to the present members and to the new one. It returns
// the manifests, which Join takes.
func (e *Engine) Enroll(ctx context.Context, o EnrollOptions) (manifests [][]byte, err error) {
	if err := e.genesis.CheckOwner(o.Owner.Public()); err != nil {
		return nil, err
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return nil, err
	}
	if revoked[o.Node.Writer()] {
		return nil, fcp.Errorf(fcp.CodeVoided, "the device %.16s was revoked", o.Node.Writer()).
			WithNext("make new node keys on the device and enroll those")
	}
	body, err := authority.SignDevice(e.env.Now(), o.Owner, authority.DeviceSpec{Node: o.Node, Name: o.Name, Hybrid: o.Hybrid, Tags: o.Tags})
	if err != nil {
		return nil, err
	}
	if _, err := e.AppendSigned(ctx, fcp.ZoneOwner, fcp.KindDeviceEnrolled, body); err != nil {
		return nil, err
	}
	zones := o.Zones
	if zones == nil {
		zones = e.Zones()
	}
	for _, zone := range zones {
		m, err := e.sealZone(ctx, o.Owner, zone, o.Node.Writer(), authority.RotateMemberAdded)
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, m...)
	}
	return manifests, nil
}
