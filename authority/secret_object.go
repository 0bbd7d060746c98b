package authority

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"io"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority/shamir"
)

// A secret is shared among devices: each holds one share, sealed to it, and any
// Threshold of them rebuild the value (40-authority "Known weak points";
// docs/secrets.md). The object is public to the members of its zone and says
// nothing about the value, not even its exact length.

// Limits of a shared secret.
const (
	MaxSecret       = 3840 // bytes of a value; a share must fit into a sealed box
	maxSecretName   = 128
	secretPadding   = 64 // lengths are rounded up to a multiple
	secretSeed      = 32 // random bytes in front of the value
	shareBlind      = 32 // random bytes that hide a share behind its commitment
	secretLengthLen = 2
)

// SchemaSecret is the schema of secret objects.
var SchemaSecret = fcp.SchemaSecret

// Purposes of the boxes that hold a share: as the object carries it (spec/wire.md
// section 7), and on its way to the device that rebuilds.
const (
	purposeSecretShare   purpose = "FCP2-SECRET-SHARE"
	purposeSecretRelease purpose = "FCP2-SECRET-RELEASE"
)

// SecretReason says why there is a version of a secret.
type SecretReason string

// The closed set of reasons.
const (
	SecretPut      SecretReason = "put"      // the first version
	SecretRotated  SecretReason = "rotated"  // another value
	SecretReshared SecretReason = "reshared" // the same value, new shares: those before are void
	SecretRemoved  SecretReason = "removed"  // no shares any more
)

// SecretSpec says what a version of a secret is to contain.
type SecretSpec struct {
	Zone       fcp.ZoneID
	ID         SecretID
	Name       string // 1 to 128 printable ASCII characters without spaces and '*'
	Version    uint64 // of the sharing, from 1
	Value      uint64 // counts the values, from 1; a resharing keeps it
	Prev       fcp.Hash
	Threshold  int         // shares that rebuild; 0 exactly when it is removed
	Recipients []Recipient // the devices, in any order, none twice; empty exactly when it is removed
	KEM        KEM         // 0: KEMClassic
	Reason     SecretReason
}

// secretObject is SecretObject on the wire.
type secretObject struct {
	Format     uint64        `cbor:"format"`
	Zone       fcp.ZoneID    `cbor:"zone_id"`
	ID         SecretID      `cbor:"secret_id"`
	Name       string        `cbor:"name"`
	Version    uint64        `cbor:"version"`
	Value      uint64        `cbor:"value"`
	Prev       []byte        `cbor:"prev,omitempty"`       // ref of the version before; absent exactly in version 1
	Threshold  uint8         `cbor:"threshold,omitempty"`  // absent exactly when removed
	Commitment []byte        `cbor:"commitment,omitempty"` // to the padded value
	Shares     []sealedShare `cbor:"shares,omitempty"`     // strictly ascending by holder; the index is the place, from 1
	Reason     SecretReason  `cbor:"reason"`
	IssuedAt   uint64        `cbor:"issued_at"` // unix seconds; also bound into each box
	Issuer     OwnerPublic   `cbor:"issuer"`    // the owner, or an admin with ActionGrant
	Signature  []byte        `cbor:"signature,omitempty"`
}

// sealedShare is one device's share: blind || values, under its commitment.
type sealedShare struct {
	Holder     fcp.WriterID `cbor:"holder"`
	Commitment fcp.Hash     `cbor:"commitment"`
	Box        hpkeBox      `cbor:"box"`
}

// UnverifiedSecret is a version of a secret whose signature fits the issuer it
// names.
type UnverifiedSecret struct {
	o   secretObject
	ref fcp.Hash
}

// Secret is a verified version of a secret, made by Authorize.
type Secret struct{ UnverifiedSecret }

// Zone returns the zone of the secret.
func (s *UnverifiedSecret) Zone() fcp.ZoneID { return s.o.Zone }

// ID returns the secret's id, which all its versions share.
func (s *UnverifiedSecret) ID() SecretID { return s.o.ID }

// Name returns the secret's name. It is not secret.
func (s *UnverifiedSecret) Name() string { return s.o.Name }

// Number returns the version of the sharing.
func (s *UnverifiedSecret) Number() uint64 { return s.o.Version }

// Value returns the number of the value, which a resharing keeps.
func (s *UnverifiedSecret) Value() uint64 { return s.o.Value }

// Previous returns the reference to the version before.
func (s *UnverifiedSecret) Previous() Hashref { return hashrefOf(s.o.Prev) }

// Encode returns the object as it was signed.
func (s *UnverifiedSecret) Encode() ([]byte, error) { return fcp.MarshalPayload(SchemaSecret, &s.o) }

// Ref returns RefOf the object's bytes.
func (s *UnverifiedSecret) Ref() fcp.Hash { return s.ref }

// Threshold returns how many shares rebuild the value; 0 when it was removed.
func (s *UnverifiedSecret) Threshold() int { return int(s.o.Threshold) }

// Reason returns why there is this version.
func (s *UnverifiedSecret) Reason() SecretReason { return s.o.Reason }

// Issuer returns the key that signed the version.
func (s *UnverifiedSecret) Issuer() OwnerPublic { return s.o.Issuer }

// IssuedAt returns when it was signed, to the second.
func (s *UnverifiedSecret) IssuedAt() time.Time { return fromUnix(s.o.IssuedAt) }

// Removed reports whether the secret has no shares any more.
func (s *UnverifiedSecret) Removed() bool { return s.o.Reason == SecretRemoved }

// Holders returns the devices by the index of their share, from 1 at place 0.
func (s *UnverifiedSecret) Holders() []fcp.WriterID {
	out := make([]fcp.WriterID, len(s.o.Shares))
	for i := range s.o.Shares {
		out[i] = s.o.Shares[i].Holder
	}
	return out
}

// SealSecret splits a value of 1 to MaxSecret bytes among the devices of spec,
// seals each share to its device and signs the object. The caller wipes value. An
// admin's needs a delegation with ActionGrant.
func SealSecret(rand io.Reader, now time.Time, by AdminKey, spec SecretSpec, value []byte) ([]byte, error) {
	o, err := newSecretObject(now, by, &spec)
	if err != nil {
		return nil, err
	}
	if err := checkSecretSpec(&spec, len(value)); err != nil {
		return nil, err
	}
	to := slices.Clone(spec.Recipients)
	slices.SortFunc(to, func(a, b Recipient) int { return cmp.Compare(a.id, b.id) })
	padded, err := padSecret(rand, value)
	if err != nil {
		return nil, err
	}
	defer clear(padded)
	commitment := o.commitment(padded)
	o.Commitment = commitment[:]
	shares, err := shamir.Split(rand, padded, spec.Threshold, len(to))
	if err != nil {
		return nil, err
	}
	for i := range shares {
		sealed, err := o.sealShare(rand, to[i], spec.KEM, &shares[i])
		shares[i].Wipe()
		if err != nil {
			return nil, err
		}
		o.Shares = append(o.Shares, *sealed)
	}
	return signOwned(by, SchemaSecret, o, &o.Signature)
}

// RemoveSecret signs the version that ends a secret: of spec, only Zone, ID, Name,
// Version, Value and Prev count.
func RemoveSecret(now time.Time, by AdminKey, spec SecretSpec) ([]byte, error) {
	spec.Reason, spec.Threshold, spec.Recipients = SecretRemoved, 0, nil
	o, err := newSecretObject(now, by, &spec)
	if err != nil {
		return nil, err
	}
	return signOwned(by, SchemaSecret, o, &o.Signature)
}

func newSecretObject(now time.Time, by AdminKey, spec *SecretSpec) (*secretObject, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := &secretObject{Format: ObjectFormat, Zone: spec.Zone, ID: spec.ID, Name: spec.Name, Version: spec.Version, Value: spec.Value,
		Prev: optionalHash(spec.Prev), Threshold: uint8(spec.Threshold), Reason: spec.Reason, IssuedAt: at, Issuer: adminPublic(by)}
	return o, nil
}

func checkSecretSpec(spec *SecretSpec, size int) error {
	if spec.Reason == SecretRemoved {
		return fcp.Errorf(fcp.CodeInvalidArgument, "a removed secret has no value")
	}
	if size == 0 || size > MaxSecret {
		next := "put a larger one into the store as an object, and share the key that encrypts it"
		if size == 0 {
			next = "give at least one byte; a newline at the end counts"
		}
		return fcp.Errorf(fcp.CodeTooLarge, "a secret of %d bytes; wanted are 1 to %d", size, MaxSecret).WithNext(next)
	}
	return shamir.Check(spec.Threshold, len(spec.Recipients))
}

// padSecret returns seed[32] || u16be length || value || zeros, so that the value
// cannot be guessed from the commitment and lengths tell little.
func padSecret(rand io.Reader, value []byte) ([]byte, error) {
	n := secretSeed + secretLengthLen + len(value)
	b := make([]byte, (n+secretPadding-1)/secretPadding*secretPadding)
	if _, err := io.ReadFull(rand, b[:secretSeed]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a secret")
	}
	binary.BigEndian.PutUint16(b[secretSeed:], uint16(len(value)))
	copy(b[secretSeed+secretLengthLen:], value)
	return b, nil
}

// address is what the hashes of a version begin with.
func (o *secretObject) address() []byte {
	b := append([]byte{byte(len(o.Zone))}, o.Zone...)
	b = append(b, o.ID[:]...)
	return binary.BigEndian.AppendUint64(b, o.Version)
}

// commitment is BLAKE3-256("FCP2-SECRET-COMMIT-V1" || u8 length, zone || id ||
// u64be version || padded value).
func (o *secretObject) commitment(padded []byte) fcp.Hash {
	return hashParts("FCP2-SECRET-COMMIT-V1", o.address(), padded)
}

// shareCommitment is BLAKE3-256("FCP2-SHARE-COMMIT-V1" || address as above || u8
// index || holder || blind[32] || values). The blind keeps it from betraying a
// value that can be guessed.
func (o *secretObject) shareCommitment(index byte, holder fcp.WriterID, opened []byte) fcp.Hash {
	return hashParts("FCP2-SHARE-COMMIT-V1", o.address(), []byte{index}, holder[:], opened)
}

// hashParts is purposeHash without a copy of the parts, which may be secret.
func hashParts(purpose string, parts ...[]byte) (out fcp.Hash) {
	h := blake3.New()
	h.WriteString(purpose)
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(out[:0])
	h.Reset()
	return out
}

func (o *secretObject) sealShare(rand io.Reader, to Recipient, kem KEM, share *shamir.Share) (*sealedShare, error) {
	holder, err := fcp.ParseHash(to.id)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%.20q cannot hold a share", to.id)
	}
	plain := make([]byte, shareBlind, shareBlind+len(share.Y))
	defer func() { clear(plain) }()
	if _, err := io.ReadFull(rand, plain); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a share")
	}
	plain = append(plain, share.Y...)
	s := &sealedShare{Holder: fcp.WriterID(holder), Commitment: o.shareCommitment(share.X, fcp.WriterID(holder), plain)}
	box, err := sealTo(rand, to, kem, boxAddress{o.Zone, to.id, purposeSecretShare, o.IssuedAt}, plain)
	if err != nil {
		return nil, err
	}
	s.Box = *box
	return s, nil
}

// OpenSecret decodes a version of a secret and checks the signature of the issuer
// it names. Errors: CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion,
// CodeZone, CodeMissingField, CodeTooLarge, CodeSignature.
func OpenSecret(b []byte) (*UnverifiedSecret, error) {
	var o secretObject
	if err := verifyNamed(SchemaSecret, b, &o); err != nil {
		return nil, err
	}
	return &UnverifiedSecret{o, RefOf(b)}, nil
}

// Authorize checks that the issuer had the right when it signed.
func (s *UnverifiedSecret) Authorize(a *Authorities) (*Secret, error) {
	if err := a.Permit(s.o.Issuer, ActionGrant, s.o.Zone, s.IssuedAt()); err != nil {
		return nil, err
	}
	return &Secret{*s}, nil
}

func (o *secretObject) issuer() OwnerPublic { return o.Issuer }

func (o *secretObject) check() error {
	if err := checkCommon(SchemaSecret, o.Format, o.IssuedAt); err != nil {
		return err
	}
	removed := o.Reason == SecretRemoved
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "secret in zone %.64q", string(o.Zone))
	case o.ID == SecretID{} || o.Version == 0 || o.Value == 0 || o.Value > o.Version:
		return fcp.Errorf(fcp.CodeMissingField, "secret without an id, a version, or the number of its value")
	case !validToken(o.Name, maxSecretName) || bytes.ContainsAny([]byte(o.Name), "*%"):
		return fcp.Errorf(fcp.CodeInvalidArgument, "the name of a secret is not 1 to %d printable ASCII characters without spaces, '*' and '%%'", maxSecretName)
	case o.Reason != SecretPut && o.Reason != SecretRotated && o.Reason != SecretReshared && !removed:
		return fcp.Errorf(fcp.CodeMalformed, "a version of a secret for an unknown reason")
	case (o.Version == 1) != (o.Reason == SecretPut), (o.Version == 1) != (o.Prev == nil), o.Prev != nil && len(o.Prev) != fcp.HashSize:
		return fcp.Errorf(fcp.CodeMalformed, "secret %s: the reason or the version before does not fit version %d", o.Name, o.Version)
	case removed && (o.Threshold != 0 || o.Shares != nil || o.Commitment != nil):
		return fcp.Errorf(fcp.CodeMalformed, "secret %s was removed and has shares", o.Name)
	case removed:
		return nil
	case len(o.Commitment) != fcp.HashSize:
		return fcp.Errorf(fcp.CodeMissingField, "secret %s without a commitment", o.Name)
	}
	if err := shamir.Check(int(o.Threshold), len(o.Shares)); err != nil {
		return fcp.Wrap(fcp.CodeInvalidArgument, err, "secret %s", o.Name)
	}
	size := len(o.Shares[0].Box.CT)
	if padded := size - TagSize - shareBlind; padded <= 0 || padded%secretPadding != 0 || padded > secretSeed+secretLengthLen+MaxSecret+secretPadding {
		return fcp.Errorf(fcp.CodeMalformed, "secret %s with shares of %d bytes", o.Name, size)
	}
	for i := range o.Shares {
		s := &o.Shares[i]
		if i > 0 && bytes.Compare(o.Shares[i-1].Holder[:], s.Holder[:]) >= 0 {
			return fcp.Errorf(fcp.CodeMalformed, "secret %s: the holders are not strictly ascending", o.Name)
		}
		if err := s.Box.check(); err != nil {
			return err
		}
		if len(s.Box.CT) != size || s.Box.KEM != o.Shares[0].Box.KEM {
			return fcp.Errorf(fcp.CodeMalformed, "secret %s: its shares differ in length or KEM", o.Name)
		}
	}
	return nil
}
