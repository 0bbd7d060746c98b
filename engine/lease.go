package engine

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// Leases (docs/leases.md). A signer's promise and a sink's fence are events of the
// local plane, written before what they are for; a granted lease and a release are
// events of the control plane.

// leaseTable is what an engine keeps in mind about leases.
type leaseTable struct {
	promising [16]sync.Mutex // held from the look at a promise to the disk: striped by subject
	effects   [16]sync.Mutex // held over an effect: striped by subject

	mu       sync.Mutex
	at       uint64                        // of the facts that verified is by; guarded by mu
	verified map[fcp.Hash]*authority.Lease // by RefOf the encoded lease; nil: not valid; guarded by mu
}

// maxVerifiedLeases bounds the leases whose signatures are not checked again.
const maxVerifiedLeases = 4096

func stripe(id fcp.ObjectID) int { return int(id[0] % 16) }

// LeaseState is the lease of a thing with the highest fence that is valid here.
type LeaseState struct {
	*authority.Lease
	ID       fcp.ObjectID // of its event
	Released bool         // by its holder
	Position uint64       // local position of its event
}

// Held reports whether the holder may use it at a time of the holder's clock.
func (l *LeaseState) Held(at time.Time) bool { return !l.Released && at.Before(l.Spec().Until) }

// LeaseSubject returns the id of a subject that has a name and is no object.
func (e *Engine) LeaseSubject(zone fcp.ZoneID, name string) (fcp.ObjectID, error) {
	z := e.ring.Load().zones[zone]
	if z == nil {
		return fcp.ObjectID{}, e.unknownZone(zone)
	}
	if name == "" || len(name) > fcp.MaxKey {
		return fcp.ObjectID{}, fcp.Errorf(fcp.CodeInvalidArgument, "the name of a subject has 1 to %d bytes, not %d", fcp.MaxKey, len(name))
	}
	// The oldest key: a subject keeps its id when the zone's keys change.
	return z.versions[len(z.versions)-1].KeyedObjectID(fcp.SchemaLeaseSubject.Hash(), []byte(name)), nil
}

// LeaseThing reads what a person calls a thing: subject is an object id (64 hex digits)
// or a name.
func (e *Engine) LeaseThing(zone fcp.ZoneID, purpose authority.LeasePurpose, subject string) (t authority.Thing, err error) {
	if !purpose.Valid() {
		return t, fcp.Errorf(fcp.CodeInvalidArgument, "there are no leases for %.40q", string(purpose))
	}
	t = authority.Thing{Zone: zone, Purpose: purpose}
	if h, err := fcp.ParseHash(subject); err == nil {
		t.Subject = fcp.ObjectID(h)
		return t, nil
	}
	t.Subject, err = e.LeaseSubject(zone, subject)
	return t, err
}

// CurrentLease returns the valid lease of a thing with the highest fence that this
// node knows. Errors: CodeZone; CodeNotFound when there is none.
func (e *Engine) CurrentLease(t authority.Thing) (*LeaseState, error) {
	f, err := e.ZoneFacts(t.Zone)
	if err != nil {
		return nil, err
	}
	l, err := e.currentLease(f, t)
	if err == nil && l == nil {
		err = fcp.Errorf(fcp.CodeNotFound, "no lease of %.16s for %s", t.Subject, t.Purpose).WithNext("see the leases with `fcpctl lease ls --all`")
	}
	return l, err
}

// currentLease is CurrentLease with nil for none.
func (e *Engine) currentLease(f *ZoneFacts, t authority.Thing) (found *LeaseState, err error) {
	err = e.eachLease(f, leaseKeyPrefix(nil, t), func(l *LeaseState) (bool, error) {
		found = l
		return false, nil
	})
	return found, err
}

// EachLease calls fn with every valid lease in the zone, those of a thing together,
// the highest fence first.
func (e *Engine) EachLease(zone fcp.ZoneID, fn func(*LeaseState) error) error {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return err
	}
	return e.eachLease(f, nil, func(l *LeaseState) (bool, error) { return true, fn(l) })
}

func (e *Engine) eachLease(f *ZoneFacts, key []byte, fn func(*LeaseState) (bool, error)) error {
	no, ok := e.fold.zoneNumber(f.Zone)
	if !ok {
		return nil
	}
	prefix := append(appendPrefix(nil, no, e.fold.slot(projLeases)), key...)
	return e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
		at, err := decodePlace(v.Local)
		if err != nil {
			return false, err
		}
		l := e.validLease(f, bytes.Clone(v.Canonical))
		if l == nil {
			return true, nil
		}
		s := l.Spec()
		released, err := e.releasedUpTo(s.Thing, s.Holder)
		if err != nil {
			return false, err
		}
		return fn(&LeaseState{Lease: l, ID: e.leaseID(l), Released: released >= s.Fence, Position: at.position})
	})
}

// validLease verifies an encoded lease by the members of the checkpoint it names; nil
// when it is not valid here.
func (e *Engine) validLease(f *ZoneFacts, b []byte) *authority.Lease {
	t, ref := &e.leases, authority.RefOf(b)
	t.mu.Lock()
	if t.verified == nil || t.at < f.at || len(t.verified) >= maxVerifiedLeases {
		t.verified, t.at = map[fcp.Hash]*authority.Lease{}, f.at
	}
	var l *authority.Lease
	known := false
	if t.at == f.at { // older facts may say something else
		l, known = t.verified[ref]
	}
	t.mu.Unlock()
	if known {
		return l
	}
	u, err := authority.DecodeLease(b)
	if err == nil {
		l, err = e.verifyLease(f, u)
	}
	if err != nil {
		l = nil
	}
	t.mu.Lock()
	if t.at == f.at {
		t.verified[ref] = l
	}
	t.mu.Unlock()
	return l
}

func (e *Engine) verifyLease(f *ZoneFacts, u *authority.UnverifiedLease) (*authority.Lease, error) {
	electorate, ok := f.electorates[u.Spec().Checkpoint]
	if !ok {
		electorate = f.Checkpoint.Electorate() // whose refusal says that the checkpoint is another one
	}
	return electorate.Verify(u, &f.signers)
}

// VerifyLease checks a lease by what this node knows. Errors are those of
// authority.Electorate.Verify, and CodeZone.
func (e *Engine) VerifyLease(u *authority.UnverifiedLease) (*authority.Lease, error) {
	f, err := e.ZoneFacts(u.Spec().Zone)
	if err != nil {
		return nil, err
	}
	return e.verifyLease(f, u)
}

// leaseID is the object id of a lease, whatever its signatures.
func (e *Engine) leaseID(l *authority.Lease) fcp.ObjectID {
	return e.objectID(l.Spec().Zone, fcp.SchemaLease, l.Statement())
}

// releasedUpTo returns the highest fence that a holder released of a thing; 0: none.
func (e *Engine) releasedUpTo(t authority.Thing, holder fcp.WriterID) (fence authority.Fence, err error) {
	no, ok := e.fold.zoneNumber(t.Zone)
	if !ok {
		return 0, nil
	}
	prefix := append(leaseKeyPrefix(appendPrefix(nil, no, e.fold.slot(projReleases)), t), holder[:]...)
	err = e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
		r, err := authority.DecodeLeaseRelease(v.Canonical)
		fence = r.Fence
		return false, err
	})
	return fence, err
}

// local returns what the local plane remembers of a thing; nil: nothing.
func (e *Engine) local(projection string, t authority.Thing) (body []byte, err error) {
	no, ok := e.fold.zoneNumber(t.Zone)
	if !ok {
		return nil, nil
	}
	key := leaseKeyPrefix(appendPrefix(nil, no, e.fold.slot(projection)), t)
	err = e.st.Scan(key, append(bytes.Clone(key), 0), func(_ []byte, v state.Value) (bool, error) {
		body = bytes.Clone(v.Local)
		return false, nil
	})
	return body, err
}

// leaseFacts are what this node judges a lease of a thing by.
func (e *Engine) leaseFacts(t authority.Thing) (*authority.LeaseFacts, *ZoneFacts, error) {
	f, err := e.ZoneFacts(t.Zone)
	if err != nil {
		return nil, nil, err
	}
	if f.Halted != nil {
		return nil, nil, f.Halted
	}
	out := &authority.LeaseFacts{Now: e.env.Now(), Electorate: f.Checkpoint.Electorate(), Self: e.node.Writer()}
	b, err := e.local(projPromises, t)
	if err != nil {
		return nil, nil, err
	}
	if b != nil {
		if _, out.Promised, err = authority.DecodePromise(b); err != nil {
			return nil, nil, fcp.Wrap(fcp.CodeCorrupt, err, "a promise of a lease")
		}
		released, err := e.releasedUpTo(t, out.Promised.Holder)
		if err != nil {
			return nil, nil, err
		}
		out.Promised.Released = released >= out.Promised.Fence
	}
	l, err := e.currentLease(f, t)
	if err != nil || l == nil {
		return out, f, err
	}
	s := l.Spec()
	out.Known = authority.Promise{Fence: s.Fence, Ref: l.Ref(), Holder: s.Holder, Until: s.Until, Released: l.Released}
	return out, f, nil
}

// RequestLease signs this node's request for a lease.
func (e *Engine) RequestLease(t authority.Thing, ttl time.Duration) (*authority.LeaseRequest, error) {
	var nonce [16]byte
	if _, err := io.ReadFull(e.env.Rand, nonce[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a lease request")
	}
	return authority.RequestLease(e.node, e.env.Now(), nonce, t, ttl)
}

// OpenLeaseRequest verifies a request: its holder is enrolled, not revoked, and signed
// it.
func (e *Engine) OpenLeaseRequest(zone fcp.ZoneID, b []byte) (*authority.LeaseRequest, error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	now := e.env.Now()
	r, err := authority.VerifyLeaseRequest(func(w fcp.WriterID) (authority.SigningPublic, bool) {
		for p := range f.enrolled {
			if p.Writer() == w {
				return p.Signing, f.Revoked(fcp.Hash(w), now, authority.RevokeDevice, authority.RevokeAttestation) == nil
			}
		}
		return authority.SigningPublic{}, false
	}, b)
	if err == nil && r.Thing().Zone != zone {
		err = fcp.Errorf(fcp.CodeZone, "a lease request for another zone than %s", zone)
	}
	return r, err
}

// ProposeLease makes the lease that a request asks for, without signatures, under the
// next fence above what this node knows and above.
func (e *Engine) ProposeLease(r *authority.LeaseRequest, above authority.Fence) (*authority.UnverifiedLease, error) {
	f, _, err := e.leaseFacts(r.Thing())
	if err != nil {
		return nil, err
	}
	fence, err := max(f.Promised.Fence, f.Known.Fence, above).Next(f.Electorate.Checkpoint.Seq)
	if err != nil {
		return nil, err
	}
	from := f.Now.Truncate(time.Second)
	return authority.NewLease(authority.LeaseSpec{Thing: r.Thing(), Holder: r.Holder(), Fence: fence, Request: r.Ref(), Coordinator: f.Self,
		Checkpoint: f.Electorate.Checkpoint.ID, From: from, Until: from.Add(r.For())})
}

// JudgeLease says whether PromiseLease would sign, and changes nothing.
func (e *Engine) JudgeLease(r *authority.LeaseRequest, l *authority.UnverifiedLease) error {
	f, _, err := e.leaseFacts(l.Spec().Thing)
	if err == nil {
		_, err = f.Judge(l, r)
	}
	return err
}

// PromiseLease judges a proposed lease, writes the promise down and signs. The
// signature never leaves before the promise is on disk. Errors are those of
// authority.LeaseFacts.Judge and of appending.
func (e *Engine) PromiseLease(ctx context.Context, r *authority.LeaseRequest, l *authority.UnverifiedLease) (authority.NodeSignature, error) {
	t := l.Spec().Thing
	m := &e.leases.promising[stripe(t.Subject)]
	m.Lock()
	defer m.Unlock()
	f, _, err := e.leaseFacts(t)
	if err != nil {
		return authority.NodeSignature{}, err
	}
	p, err := f.Judge(l, r)
	if err != nil {
		return authority.NodeSignature{}, err
	}
	if p.Ref != f.Promised.Ref {
		body, err := authority.EncodePromise(t, p)
		if err != nil {
			return authority.NodeSignature{}, err
		}
		if err := e.note(ctx, t.Zone, fcp.KindLeasePromised, body); err != nil {
			return authority.NodeSignature{}, err
		}
	}
	return l.Sign(e.node, f.Now)
}

// note appends an event of this node's own bookkeeping.
func (e *Engine) note(ctx context.Context, zone fcp.ZoneID, kind fcp.Kind, body []byte) error {
	_, err := e.log.Append(ctx, []log.Draft{{Zone: zone, Plane: fcp.PlaneLocal, Under: e.genesis.ID, Content: fcp.Content{Kind: kind, Body: body}}})
	return err
}

// RecordLease appends a valid lease to the control plane, once. The holder does it
// before its first effect, so that every member learns the fence.
func (e *Engine) RecordLease(ctx context.Context, u *authority.UnverifiedLease) (*LeaseState, error) {
	l, err := e.VerifyLease(u)
	if err != nil {
		return nil, err
	}
	s := l.Spec()
	f, err := e.ZoneFacts(s.Zone)
	if err != nil {
		return nil, err
	}
	if now, err := e.currentLease(f, s.Thing); err != nil || now != nil && now.Ref() == l.Ref() {
		return now, err
	}
	body, err := l.Encode()
	if err != nil {
		return nil, err
	}
	placed, err := e.appendControl(ctx, s.Zone, fcp.KindLeaseGranted, e.leaseID(l), body)
	if err != nil {
		return nil, err
	}
	return &LeaseState{Lease: l, ID: e.leaseID(l), Position: placed.Position}, nil
}

// appendControl appends one clear event of this node to the control plane.
func (e *Engine) appendControl(ctx context.Context, zone fcp.ZoneID, kind fcp.Kind, id fcp.ObjectID, body []byte) (log.Placed, error) {
	if e.ring.Load().zones[zone] == nil {
		return log.Placed{}, e.unknownZone(zone)
	}
	r, err := e.log.Append(ctx, []log.Draft{{Zone: zone, Plane: fcp.PlaneControl, Under: e.genesis.ID, Content: fcp.Content{Kind: kind, Object: id, Body: body}}})
	if err != nil {
		return log.Placed{}, err
	}
	return r.Events[0], nil
}

// ReleaseLease says that this node uses no lease of the thing up to the fence any
// more: others need not wait for its end.
func (e *Engine) ReleaseLease(ctx context.Context, t authority.Thing, upTo authority.Fence) error {
	z := e.ring.Load().zones[t.Zone]
	if z == nil {
		return e.unknownZone(t.Zone)
	}
	body, err := authority.EncodeLeaseRelease(authority.LeaseRelease{Thing: t, Holder: e.node.Writer(), Fence: upTo, At: e.env.Now()})
	if err != nil {
		return err
	}
	_, err = e.appendControl(ctx, t.Zone, fcp.KindLeaseReleased, objectIDOf(z.current(), fcp.SchemaLeaseRelease, body), body)
	return err
}

// Effect runs fn, which has an effect on the thing of a lease, at this node as the
// sink: it verifies the lease, refuses a stale fence, writes the fence down, and runs
// fn before any other effect on the thing. fn must have no effect after it returned
// and must not call Effect. Errors: those of VerifyLease; CodeDenied for a revoked
// holder; CodeFenced for a stale fence; CodeEquivocation for another lease under a
// fence that was let through; those of fn.
func (e *Engine) Effect(ctx context.Context, u *authority.UnverifiedLease, fn func(context.Context) error) error {
	t := u.Spec().Thing
	m := &e.leases.effects[stripe(t.Subject)]
	m.Lock()
	defer m.Unlock()
	f, err := e.ZoneFacts(t.Zone)
	if err != nil {
		return err
	}
	l, err := e.verifyLease(f, u)
	if err != nil {
		return err
	}
	if s := l.Spec(); f.Revoked(fcp.Hash(s.Holder), e.env.Now(), authority.RevokeDevice, authority.RevokeAttestation) != nil {
		return fcp.Errorf(fcp.CodeDenied, "fence %d of %.16s: %w", s.Fence, s.Subject, authority.ReasonLeaseStranger)
	}
	highest, err := e.HighestFence(t)
	if err != nil {
		return err
	}
	var known authority.Fence
	if c, err := e.currentLease(f, t); err != nil {
		return err
	} else if c != nil {
		known = c.Spec().Fence
	}
	raised, err := authority.Admit(l, highest, known)
	if err != nil {
		return err
	}
	if raised != highest {
		body, err := authority.EncodeFence(t, raised)
		if err != nil {
			return err
		}
		if err := e.note(ctx, t.Zone, fcp.KindFenceRaised, body); err != nil {
			return err
		}
	}
	return fn(ctx)
}

// HighestFence returns what this node, as the sink, let through last on a thing.
func (e *Engine) HighestFence(t authority.Thing) (f authority.FenceRecord, err error) {
	b, err := e.local(projFences, t)
	if b == nil || err != nil {
		return f, err
	}
	_, f, err = authority.DecodeFence(b)
	return f, fcp.Wrap(fcp.CodeCorrupt, err, "a fence")
}

// OwnLease returns the lease of a thing if this node may use it now. Errors:
// CodeNotFound; CodeLeaseHeld for another device's; CodeFenced when it is over.
func (e *Engine) OwnLease(t authority.Thing) (*LeaseState, error) {
	l, err := e.CurrentLease(t)
	if err != nil {
		return nil, err
	}
	s, fault := l.Spec(), fcp.Reason("")
	switch {
	case s.Holder != e.node.Writer():
		return nil, &fcp.Error{Code: fcp.CodeLeaseHeld, Detail: "device " + s.Holder.String()[:16] + " until " + s.Until.UTC().Format(time.RFC3339), Cause: authority.ReasonLeaseHolder}
	case l.Released:
		fault = authority.ReasonLeaseReleased
	case !e.env.Now().Before(s.Until):
		fault = authority.ReasonLeaseExpired
	default:
		return l, nil
	}
	return nil, &fcp.Error{Code: fcp.CodeFenced, Detail: string(fault), Cause: fault}
}

// leasesView answers Decide's question for the lease of a subject.
type leasesView struct {
	e *Engine
	f *ZoneFacts
}

// Lease implements authority.Leases. A state that cannot be read knows no lease.
func (v leasesView) Lease(subject fcp.ObjectID) (authority.LeaseFact, bool) {
	l, err := v.e.currentLease(v.f, authority.Thing{Zone: v.f.Zone, Subject: subject, Purpose: authority.LeaseOperation})
	if err != nil || l == nil {
		return authority.LeaseFact{}, false
	}
	s := l.Spec()
	return authority.LeaseFact{Ref: l.Ref(), Holder: s.Holder, Seq: uint64(s.Fence), Expires: s.Until, Released: l.Released}, true
}
