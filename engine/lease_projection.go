package engine

import (
	"encoding/binary"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
)

// The projections of leases. Leases and releases are sets, the highest fence of a
// thing first; a promise and a fence are the last event of the local plane.

// leaseKeyPrefix appends the subject, the purpose and a zero byte.
func leaseKeyPrefix(key []byte, t authority.Thing) []byte {
	key = append(key, t.Subject[:]...)
	return append(append(key, t.Purpose...), 0)
}

// fenceKey appends a fence so that the highest comes first.
func fenceKey(key []byte, f authority.Fence) []byte {
	return binary.BigEndian.AppendUint64(key, ^uint64(f))
}

func leaseKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	l, err := authority.DecodeLease(ev.Content.Body)
	if err != nil || l.Spec().Zone != ev.From.Feed.Zone {
		return nil
	}
	return fenceKey(leaseKeyPrefix(key, l.Spec().Thing), l.Spec().Fence)
}

func leaseRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	l, err := authority.DecodeLease(body)
	if err != nil {
		return "", nil, err
	}
	s := l.Spec()
	return s.Subject.String(), map[string]any{"purpose": string(s.Purpose), "holder": s.Holder.String(), "lease_seq": uint64(s.Fence),
		"from": s.From, "until": s.Until, "signers": l.Signers(), "ref": l.Ref().String()}, nil
}

// releaseKey takes a release in a feed of its holder.
func releaseKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	r, err := authority.DecodeLeaseRelease(ev.Content.Body)
	if err != nil || r.Zone != ev.From.Feed.Zone || r.Holder != ev.From.Feed.Writer {
		return nil
	}
	return fenceKey(append(leaseKeyPrefix(key, r.Thing), r.Holder[:]...), r.Fence)
}

func releaseRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	r, err := authority.DecodeLeaseRelease(body)
	if err != nil {
		return "", nil, err
	}
	return r.Subject.String(), map[string]any{"purpose": string(r.Purpose), "holder": r.Holder.String(), "lease_seq": uint64(r.Fence), "at": r.At}, nil
}

// thingProjection keeps the last event of one kind of the local plane for each thing.
type thingProjection struct {
	name   string
	kind   fcp.Kind
	decode func(body []byte) (authority.Thing, map[string]any, error)
}

func (p thingProjection) Name() string       { return p.name }
func (p thingProjection) Kind() fcp.Kind     { return p.kind }
func (thingProjection) Version() uint32      { return 1 }
func (thingProjection) Scope() Scope         { return ScopeLocal }
func (thingProjection) Planes() fcp.PlaneSet { return 1 << fcp.PlaneLocal }

func (p thingProjection) Touches(ev *Event, key []byte) []byte {
	if ev.Content.Kind != p.kind {
		return nil
	}
	t, _, err := p.decode(ev.Content.Body)
	if err != nil || t.Zone != ev.From.Feed.Zone {
		return nil
	}
	return leaseKeyPrefix(key, t)
}

func (thingProjection) Apply(f *Fold, ev *Event, key []byte) error {
	return f.Set(key, nil, ev.Content.Body)
}

func (p thingProjection) Row(_ []byte, v state.Value, row *Row) error {
	t, fields, err := p.decode(v.Local)
	if err != nil {
		return err
	}
	fields["purpose"] = string(t.Purpose)
	row.Key, row.Fields = t.Subject.String(), fields
	return nil
}

func promiseRow(body []byte) (authority.Thing, map[string]any, error) {
	t, p, err := authority.DecodePromise(body)
	return t, map[string]any{"lease_seq": uint64(p.Fence), "holder": p.Holder.String(), "until": p.Until, "ref": p.Ref.String()}, err
}

func fenceRow(body []byte) (authority.Thing, map[string]any, error) {
	t, r, err := authority.DecodeFence(body)
	return t, map[string]any{"lease_seq": uint64(r.Fence), "ref": r.Ref.String()}, err
}
