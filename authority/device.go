package authority

import (
	"bytes"
	"slices"
	"time"

	"fcp"
)

// Limits of a device enrollment.
const (
	MaxDeviceName = 64 // bytes
	maxDeviceTags = 32
)

// DeviceSpec says which device an enrollment takes in. Only the owner enrolls.
type DeviceSpec struct {
	Node   NodePublic
	Name   string       // 1 to MaxDeviceName bytes, for people
	Hybrid HybridPublic // nil: the device cannot hold keys of a hybrid zone. Format 2.
	Tags   []string     // what the device is ("nas", "phone"), strictly ascending canonical ids. Format 2.
}

// deviceObject is DeviceEnrollment on the wire.
type deviceObject struct {
	Format     uint64           `cbor:"format"`
	Writer     fcp.WriterID     `cbor:"writer"`
	Signing    SigningPublic    `cbor:"signing"`
	Encryption EncryptionPublic `cbor:"encryption"`
	Issuance   IssuancePublic   `cbor:"issuance"`
	Name       string           `cbor:"name"`
	EnrolledAt uint64           `cbor:"enrolled_at"` // unix seconds
	Issuer     OwnerPublic      `cbor:"issuer"`
	Signature  []byte           `cbor:"signature,omitempty"`

	// Format 2.
	Hybrid HybridPublic `cbor:"hybrid,omitempty"`
	Tags   []string     `cbor:"tags,omitempty"`
}

const deviceFormat2 = 2

// Device is a verified enrollment, made by VerifyDevice.
type Device struct {
	o   deviceObject
	ref fcp.Hash
}

// Node returns the device's public keys.
func (d *Device) Node() NodePublic { return NodePublic{d.o.Signing, d.o.Encryption, d.o.Issuance} }

// Writer returns the id under which the device writes its feeds.
func (d *Device) Writer() fcp.WriterID { return d.o.Writer }

// Name returns the display name.
func (d *Device) Name() string { return d.o.Name }

// Tags returns what the device is. The caller must not change the slice.
func (d *Device) Tags() []string { return d.o.Tags }

// Spec returns what the enrollment says.
func (d *Device) Spec() DeviceSpec {
	return DeviceSpec{Node: d.Node(), Name: d.o.Name, Hybrid: d.o.Hybrid, Tags: d.o.Tags}
}

// EnrolledAt returns when the owner signed it, to the second.
func (d *Device) EnrolledAt() time.Time { return fromUnix(d.o.EnrolledAt) }

// Issuer returns the owner that signed it.
func (d *Device) Issuer() OwnerPublic { return d.o.Issuer }

// Ref returns RefOf the enrollment's bytes.
func (d *Device) Ref() fcp.Hash { return d.ref }

// Recipient returns the device as a recipient of zone keys.
func (d *Device) Recipient() Recipient {
	r := d.Node().Recipient()
	if len(d.o.Hybrid) > 0 {
		r = r.WithHybrid(d.o.Hybrid)
	}
	return r
}

// SignDevice returns the owner-signed enrollment of a device.
func SignDevice(now time.Time, owner *OwnerKey, s DeviceSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := deviceObject{
		Format: ObjectFormat, Writer: s.Node.Writer(), Signing: s.Node.Signing, Encryption: s.Node.Encryption, Issuance: s.Node.Issuance,
		Name: s.Name, EnrolledAt: at, Issuer: owner.Public(), Hybrid: s.Hybrid, Tags: s.Tags,
	}
	o.Format = o.wantFormat()
	return signOwned(owner, fcp.SchemaDeviceEnrollment, &o, &o.Signature)
}

// VerifyDevice decodes an enrollment and checks that owner signed exactly these
// bytes. Errors are those of VerifyZone.
func VerifyDevice(owner OwnerPublic, b []byte) (*Device, error) {
	var o deviceObject
	if err := verifyOwned(fcp.SchemaDeviceEnrollment, owner, b, &o); err != nil {
		return nil, err
	}
	return &Device{o, RefOf(b)}, nil
}

// OpenDevice is VerifyDevice with the owner that the enrollment names, for somebody
// who has only the enrollment: whether Issuer is to be trusted is the next question.
func OpenDevice(b []byte) (*Device, error) {
	var o deviceObject
	if err := verifyNamed(fcp.SchemaDeviceEnrollment, b, &o); err != nil {
		return nil, err
	}
	return &Device{o, RefOf(b)}, nil
}

func (o *deviceObject) issuer() OwnerPublic { return o.Issuer }

func (o *deviceObject) wantFormat() uint64 {
	if o.Hybrid != nil || o.Tags != nil {
		return deviceFormat2
	}
	return ObjectFormat
}

func (o *deviceObject) check() error {
	if err := checkFormat(fcp.SchemaDeviceEnrollment, o.Format, o.wantFormat(), o.EnrolledAt); err != nil {
		return err
	}
	if err := checkNode(fcp.SchemaDeviceEnrollment, o.Writer, NodePublic{o.Signing, o.Encryption, o.Issuance}, o.Issuer); err != nil {
		return err
	}
	if o.Name == "" || len(o.Name) > MaxDeviceName {
		return fcp.Errorf(fcp.CodeInvalidArgument, "a device name of %d bytes, not 1 to %d", len(o.Name), MaxDeviceName)
	}
	if o.Hybrid != nil {
		if err := o.Hybrid.check(); err != nil {
			return err
		}
	}
	return checkTags(fcp.SchemaDeviceEnrollment, o.Tags)
}

func checkTags(schema fcp.Schema, tags []string) error {
	if len(tags) > maxDeviceTags {
		return fcp.Errorf(fcp.CodeTooLarge, "%s with %d tags", schema, len(tags))
	}
	for i, t := range tags {
		if _, err := fcp.ParseCanonicalID(t); err != nil {
			return fcp.Wrap(fcp.CodeMalformed, err, "%s with tag %d", schema, i)
		}
	}
	if !slices.IsSorted(tags) || len(slices.Compact(slices.Clone(tags))) != len(tags) {
		return fcp.Errorf(fcp.CodeMalformed, "%s with tags that are not strictly ascending", schema)
	}
	return nil
}

// checkNode refuses keys of a node that do not belong to its writer id and keys in
// two roles.
func checkNode(schema fcp.Schema, writer fcp.WriterID, p NodePublic, issuer OwnerPublic) error {
	switch {
	case writer != p.Writer():
		return fcp.Errorf(fcp.CodeMalformed, "%s with a writer id that is not that of the signing key", schema)
	case bytes.Equal(p.Signing[:], p.Issuance[:]), bytes.Equal(p.Issuance[:], issuer[:]):
		return fcp.Errorf(fcp.CodeWrongKey, "%s with one key in two roles", schema)
	}
	return nil
}
