package authority

import (
	"slices"
	"time"

	"fcp"
)

// Limits of a binding.
const (
	MaxBoundDevices = 64
	MaxBoundZones   = 64
)

// BindingSpec says which devices a principal may act from, and when, where and
// with what. Every list must have entries: none never means all.
type BindingSpec struct {
	Principal    fcp.CanonicalID
	Devices      []fcp.WriterID // 1 to MaxBoundDevices
	Zones        []fcp.ZoneID   // 1 to MaxBoundZones
	Capabilities Patterns       // strictly ascending; "*" for every capability
	NotBefore    time.Time      // inclusive
	NotAfter     time.Time      // exclusive
}

// bindingObject is PrincipalDeviceBinding on the wire.
type bindingObject struct {
	Format       uint64          `cbor:"format"`
	Principal    fcp.CanonicalID `cbor:"principal"`
	Devices      []fcp.WriterID  `cbor:"devices"`              // strictly ascending
	Zones        []fcp.ZoneID    `cbor:"allowed_zones"`        // strictly ascending
	Capabilities Patterns        `cbor:"allowed_capabilities"` // strictly ascending
	ValidFrom    uint64          `cbor:"valid_from"`           // unix seconds
	ValidUntil   uint64          `cbor:"valid_until"`
	IssuedAt     uint64          `cbor:"issued_at"`
	Issuer       OwnerPublic     `cbor:"issuer"`
	Signature    []byte          `cbor:"signature,omitempty"`
}

// Binding is a verified principal-device binding, made by VerifyBinding.
type Binding struct {
	ref fcp.Hash
	o   bindingObject
}

// Ref returns RefOf the binding's bytes.
func (b *Binding) Ref() fcp.Hash { return b.ref }

// Spec returns what the binding says. The caller must not change its lists.
func (b *Binding) Spec() BindingSpec {
	return BindingSpec{
		Principal: b.o.Principal, Devices: b.o.Devices, Zones: b.o.Zones, Capabilities: b.o.Capabilities,
		NotBefore: fromUnix(b.o.ValidFrom), NotAfter: fromUnix(b.o.ValidUntil),
	}
}

// fault says why a principal may not act from a device just now, "" when it may.
func (b *Binding) fault(r *Request, now time.Time) fcp.Reason {
	at := uint64(max(0, now.Unix()))
	switch {
	case !contains(b.o.Devices, r.Device):
		return ReasonBindingDevice
	case at < b.o.ValidFrom || at >= b.o.ValidUntil:
		return ReasonBindingTime
	case !contains(b.o.Zones, r.Zone):
		return ReasonBindingZone
	case !b.o.Capabilities.Match(string(r.Capability)):
		return ReasonBindingCapability
	}
	return ""
}

// SignBinding returns the owner-signed binding, schema prefix included. The lists
// may be in any order and name nothing twice.
func SignBinding(now time.Time, owner *OwnerKey, spec BindingSpec) ([]byte, error) {
	o := bindingObject{
		Format: ObjectFormat, Principal: spec.Principal, Devices: slices.SortedFunc(slices.Values(spec.Devices), compareWriters),
		Zones: slices.Sorted(slices.Values(spec.Zones)), Capabilities: slices.Sorted(slices.Values(spec.Capabilities)), Issuer: owner.Public(),
	}
	if err := setTimes(timeField{&o.ValidFrom, spec.NotBefore}, timeField{&o.ValidUntil, spec.NotAfter}, timeField{&o.IssuedAt, now}); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(owner, fcp.SchemaPrincipalBinding, &o, &o.Signature)
}

// VerifyBinding decodes a binding and checks that owner signed exactly these bytes.
// Errors as VerifyZone.
func VerifyBinding(owner OwnerPublic, b []byte) (*Binding, error) {
	var o bindingObject
	s, err := decodeSigned(fcp.SchemaPrincipalBinding, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := checkIssuer(fcp.SchemaPrincipalBinding, o.Issuer, owner); err != nil {
		return nil, err
	}
	if err := s.verifyOwner(owner, fcp.SchemaPrincipalBinding); err != nil {
		return nil, err
	}
	return &Binding{RefOf(b), o}, nil
}

func compareWriters(a, b fcp.WriterID) int { return slices.Compare(a[:], b[:]) }

func (o *bindingObject) check() error {
	if err := checkCommon(fcp.SchemaPrincipalBinding, o.Format, max(o.ValidFrom, o.ValidUntil, o.IssuedAt)); err != nil {
		return err
	}
	if _, err := fcp.ParseCanonicalID(string(o.Principal)); err != nil {
		return fcp.Errorf(fcp.CodeMalformed, "binding of %.64q", string(o.Principal))
	}
	switch {
	case o.ValidFrom >= o.ValidUntil:
		return fcp.Errorf(fcp.CodeInvalidArgument, "binding of %s that is never valid", o.Principal)
	case len(o.Devices) == 0 || len(o.Devices) > MaxBoundDevices, len(o.Zones) == 0 || len(o.Zones) > MaxBoundZones, len(o.Capabilities) == 0:
		return fcp.Errorf(fcp.CodeMissingField, "binding of %s to %d devices, %d zones and %d capabilities", o.Principal, len(o.Devices), len(o.Zones), len(o.Capabilities))
	}
	for i := range o.Devices {
		if i > 0 && compareWriters(o.Devices[i-1], o.Devices[i]) >= 0 {
			return fcp.Errorf(fcp.CodeMalformed, "binding of %s: devices repeat or are out of order", o.Principal)
		}
	}
	for i, z := range o.Zones {
		if !z.Valid() || i > 0 && o.Zones[i-1] >= z {
			return fcp.Errorf(fcp.CodeZone, "binding of %s: zones repeat, are out of order or invalid", o.Principal)
		}
	}
	return o.Capabilities.check("allowed_capabilities")
}
