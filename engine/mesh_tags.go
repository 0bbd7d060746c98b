package engine

import (
	"bytes"
	"context"
	"time"

	"fcp"
	"fcp/authority"
)

// newerEnrollment reports whether a counts, of two enrollments of one device: the one
// signed later, and of one second the one whose ref is greater.
func newerEnrollment(a, b *authority.Device) bool {
	if !a.EnrolledAt().Equal(b.EnrolledAt()) {
		return a.EnrolledAt().After(b.EnrolledAt())
	}
	x, y := a.Ref(), b.Ref()
	return bytes.Compare(x[:], y[:]) > 0
}

// DescribeDevice enrolls a member again with another name ("": as it is) and other
// tags, strictly ascending canonical ids. Keys, place and rights stay. Errors:
// CodeNotFound for no member, CodeVoided for one that was revoked, those of SignDevice.
func (e *Engine) DescribeDevice(ctx context.Context, owner *authority.OwnerKey, writer fcp.WriterID, name string, tags []string) error {
	if err := e.genesis.CheckOwner(owner.Public()); err != nil {
		return err
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return err
	}
	if revoked[writer] {
		return fcp.Errorf(fcp.CodeVoided, "the device %.16s was revoked", writer)
	}
	devices, err := e.devices()
	if err != nil {
		return err
	}
	d := devices[writer]
	if d == nil {
		return fcp.Errorf(fcp.CodeNotFound, "no device %.16s was enrolled", writer)
	}
	spec := d.Spec()
	spec.Tags = tags
	if name != "" {
		spec.Name = name
	}
	at := e.env.Now()
	if after := d.EnrolledAt().Add(time.Second); at.Before(after) { // it replaces what is there
		at = after
	}
	body, err := authority.SignDevice(at, owner, spec)
	if err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, fcp.ZoneOwner, fcp.KindDeviceEnrolled, body)
	return err
}
