package authority

import (
	"math"
	"time"

	"fcp"
)

// Records of leases that carry no signature: a promise and a fence are this node's
// own bookkeeping, a release counts only in a feed of the holder.

// LeaseRelease says that its holder uses no lease of a thing up to a fence any more.
type LeaseRelease struct {
	Thing
	Holder fcp.WriterID
	Fence  Fence
	At     time.Time // to the second
}

type releaseObject struct {
	Format  uint64       `cbor:"format"`
	Zone    fcp.ZoneID   `cbor:"zone_id"`
	Subject fcp.ObjectID `cbor:"subject_object_id"`
	Purpose LeasePurpose `cbor:"purpose"`
	Holder  fcp.WriterID `cbor:"holder"`
	Seq     Fence        `cbor:"lease_seq"`
	At      uint64       `cbor:"released_at"`
}

func (o *releaseObject) check() error {
	if err := checkCommon(fcp.SchemaLeaseRelease, o.Format, o.At); err != nil {
		return err
	}
	if o.Seq > math.MaxInt64 || uint32(o.Seq) == 0 || o.Holder.IsZero() {
		return fcp.Errorf(fcp.CodeMalformed, "a release of the fence %d", o.Seq)
	}
	t := Thing{o.Zone, o.Subject, o.Purpose}
	return t.check()
}

// EncodeLeaseRelease returns the payload of a release.
func EncodeLeaseRelease(r LeaseRelease) ([]byte, error) {
	o := releaseObject{Format: ObjectFormat, Zone: r.Zone, Subject: r.Subject, Purpose: r.Purpose, Holder: r.Holder, Seq: r.Fence}
	if err := setTimes(timeField{&o.At, r.At}); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaLeaseRelease, &o)
}

// DecodeLeaseRelease is the inverse of EncodeLeaseRelease.
func DecodeLeaseRelease(b []byte) (LeaseRelease, error) {
	var o releaseObject
	if err := fcp.UnmarshalPayload(fcp.SchemaLeaseRelease, b, &o); err != nil {
		return LeaseRelease{}, err
	}
	return LeaseRelease{Thing{o.Zone, o.Subject, o.Purpose}, o.Holder, o.Seq, fromUnix(o.At)}, o.check()
}

type promiseObject struct {
	Format  uint64       `cbor:"format"`
	Zone    fcp.ZoneID   `cbor:"zone_id"`
	Subject fcp.ObjectID `cbor:"subject_object_id"`
	Purpose LeasePurpose `cbor:"purpose"`
	Holder  fcp.WriterID `cbor:"holder"`
	Seq     Fence        `cbor:"lease_seq"`
	Lease   fcp.Hash     `cbor:"lease"`
	Until   uint64       `cbor:"exp"`
}

func (o *promiseObject) check() error {
	if err := checkCommon(fcp.SchemaLeasePromise, o.Format, o.Until); err != nil {
		return err
	}
	if o.Seq > math.MaxInt64 || uint32(o.Seq) == 0 || o.Holder.IsZero() || o.Lease.IsZero() {
		return fcp.Errorf(fcp.CodeMalformed, "a promise of the fence %d", o.Seq)
	}
	t := Thing{o.Zone, o.Subject, o.Purpose}
	return t.check()
}

// EncodePromise returns the payload of a promise on a thing. Whether it was released
// since is not part of it.
func EncodePromise(t Thing, p Promise) ([]byte, error) {
	o := promiseObject{Format: ObjectFormat, Zone: t.Zone, Subject: t.Subject, Purpose: t.Purpose, Holder: p.Holder, Seq: p.Fence, Lease: p.Ref}
	if err := setTimes(timeField{&o.Until, p.Until}); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaLeasePromise, &o)
}

// DecodePromise is the inverse of EncodePromise.
func DecodePromise(b []byte) (Thing, Promise, error) {
	var o promiseObject
	if err := fcp.UnmarshalPayload(fcp.SchemaLeasePromise, b, &o); err != nil {
		return Thing{}, Promise{}, err
	}
	return Thing{o.Zone, o.Subject, o.Purpose}, Promise{Fence: o.Seq, Ref: o.Lease, Holder: o.Holder, Until: fromUnix(o.Until)}, o.check()
}

type fenceObject struct {
	Format  uint64       `cbor:"format"`
	Zone    fcp.ZoneID   `cbor:"zone_id"`
	Subject fcp.ObjectID `cbor:"subject_object_id"`
	Purpose LeasePurpose `cbor:"purpose"`
	Seq     Fence        `cbor:"lease_seq"`
	Lease   fcp.Hash     `cbor:"lease"`
}

func (o *fenceObject) check() error {
	if err := checkCommon(fcp.SchemaLeaseFence, o.Format, 0); err != nil {
		return err
	}
	if o.Seq > math.MaxInt64 || uint32(o.Seq) == 0 || o.Lease.IsZero() {
		return fcp.Errorf(fcp.CodeMalformed, "a fence record of the fence %d", o.Seq)
	}
	t := Thing{o.Zone, o.Subject, o.Purpose}
	return t.check()
}

// EncodeFence returns the payload of what a sink remembers of a thing.
func EncodeFence(t Thing, f FenceRecord) ([]byte, error) {
	o := fenceObject{Format: ObjectFormat, Zone: t.Zone, Subject: t.Subject, Purpose: t.Purpose, Seq: f.Fence, Lease: f.Ref}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaLeaseFence, &o)
}

// DecodeFence is the inverse of EncodeFence.
func DecodeFence(b []byte) (Thing, FenceRecord, error) {
	var o fenceObject
	if err := fcp.UnmarshalPayload(fcp.SchemaLeaseFence, b, &o); err != nil {
		return Thing{}, FenceRecord{}, err
	}
	return Thing{o.Zone, o.Subject, o.Purpose}, FenceRecord{o.Seq, o.Lease}, o.check()
}
