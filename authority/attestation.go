package authority

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"fcp"
)

// MaxAttestation limits how long one attestation holds, and DefaultAttestation is
// what is used when nothing is said. It is renewed at half of its life.
const (
	MaxAttestation     = 400 * 24 * time.Hour
	DefaultAttestation = 90 * 24 * time.Hour
)

// Reasons for refusing a key, a kid or an attestation.
const (
	ReasonAttestationMissing fcp.Reason = "attestation.missing"             // the node has none
	ReasonAttestationExpired fcp.Reason = "attestation.expired"             // the last one is over
	ReasonAttestationFuture  fcp.Reason = "attestation.not_yet"             // it begins later
	ReasonAttestationRevoked fcp.Reason = "attestation.revoked"             // it, or the node, was revoked
	ReasonKidUnknown         fcp.Reason = "attestation.kid_unknown"         // no attested key has that kid
	ReasonKidOfAnother       fcp.Reason = "attestation.kid_of_another_node" // the kid leads to keys of other nodes only
	ReasonKidAmbiguous       fcp.Reason = "attestation.kid_ambiguous"       // two keys of the node have that kid
	ReasonAttestationScope   fcp.Reason = "attestation.wrong_tag"           // the node lacks a tag
)

// AttestationSpec says what an attestation is to contain.
type AttestationSpec struct {
	Node  NodePublic
	Tags  []string // strictly ascending canonical ids
	From  time.Time
	Until time.Time
}

// attestationObject is NodeKeyAttestation on the wire.
type attestationObject struct {
	Format     uint64           `cbor:"format"`
	Writer     fcp.WriterID     `cbor:"writer"`
	Signing    SigningPublic    `cbor:"signing"`
	Encryption EncryptionPublic `cbor:"encryption"`
	Issuance   IssuancePublic   `cbor:"issuance"`
	Tags       []string         `cbor:"tags,omitempty"`
	IssuedAt   uint64           `cbor:"issued_at"` // unix seconds; valid from then on
	ExpiresAt  uint64           `cbor:"expires_at"`
	Issuer     OwnerPublic      `cbor:"issuer"` // the owner, or an admin with ActionAttest
	Signature  []byte           `cbor:"signature,omitempty"`
}

// UnverifiedAttestation is one whose signature fits the issuer it names. Authorize
// makes an Attestation of it.
type UnverifiedAttestation struct {
	o   attestationObject
	ref fcp.Hash
}

// Attestation is a verified attestation: these keys are that node's.
type Attestation struct{ UnverifiedAttestation }

// SignAttestation returns the attestation signed by the owner or by an admin's
// node.
func SignAttestation(key AdminKey, s AttestationSpec) ([]byte, error) {
	from, err := unixSeconds(s.From)
	if err != nil {
		return nil, err
	}
	until, err := unixSeconds(s.Until)
	if err != nil {
		return nil, err
	}
	o := attestationObject{
		Format: ObjectFormat, Writer: s.Node.Writer(), Signing: s.Node.Signing, Encryption: s.Node.Encryption, Issuance: s.Node.Issuance,
		Tags: s.Tags, IssuedAt: from, ExpiresAt: until, Issuer: adminPublic(key),
	}
	return signOwned(key, fcp.SchemaAttestation, &o, &o.Signature)
}

// OpenAttestation decodes an attestation and checks the signature of the issuer it
// names.
func OpenAttestation(b []byte) (*UnverifiedAttestation, error) {
	var o attestationObject
	if err := verifyNamed(fcp.SchemaAttestation, b, &o); err != nil {
		return nil, err
	}
	return &UnverifiedAttestation{o, RefOf(b)}, nil
}

// Authorize checks that the issuer had the right when it signed.
func (u *UnverifiedAttestation) Authorize(a *Authorities) (*Attestation, error) {
	if err := a.Permit(u.o.Issuer, ActionAttest, fcp.ZoneOwner, u.From()); err != nil {
		return nil, err
	}
	return &Attestation{*u}, nil
}

// Issuer returns the key that signed it.
func (u *UnverifiedAttestation) Issuer() OwnerPublic { return u.o.Issuer }

// Node returns the attested keys.
func (u *UnverifiedAttestation) Node() NodePublic {
	return NodePublic{u.o.Signing, u.o.Encryption, u.o.Issuance}
}

// Writer returns the node's id.
func (u *UnverifiedAttestation) Writer() fcp.WriterID { return u.o.Writer }

// Tags returns what the node is. The caller must not change the slice.
func (u *UnverifiedAttestation) Tags() []string { return u.o.Tags }

// From and Until bound the validity: from the first second, before the second.
func (u *UnverifiedAttestation) From() time.Time  { return fromUnix(u.o.IssuedAt) }
func (u *UnverifiedAttestation) Until() time.Time { return fromUnix(u.o.ExpiresAt) } // see From

// RenewAt returns when half of the life is over.
func (u *UnverifiedAttestation) RenewAt() time.Time {
	return fromUnix(u.o.IssuedAt + (u.o.ExpiresAt-u.o.IssuedAt)/2)
}

// Ref returns RefOf the attestation's bytes.
func (u *UnverifiedAttestation) Ref() fcp.Hash { return u.ref }

func (o *attestationObject) issuer() OwnerPublic { return o.Issuer }

func (o *attestationObject) check() error {
	if err := checkCommon(fcp.SchemaAttestation, o.Format, o.IssuedAt); err != nil {
		return err
	}
	if err := checkNode(fcp.SchemaAttestation, o.Writer, NodePublic{o.Signing, o.Encryption, o.Issuance}, o.Issuer); err != nil {
		return err
	}
	if err := checkPeriod(fcp.SchemaAttestation, o.IssuedAt, o.ExpiresAt, MaxAttestation); err != nil {
		return err
	}
	return checkTags(fcp.SchemaAttestation, o.Tags)
}

// Attestations are the attested keys of all nodes. The state depends only on the
// set added. The zero value is empty and ready. Not safe for concurrent use with
// Add.
type Attestations struct {
	byWriter map[fcp.WriterID][]*Attestation // ascending by (From, Ref)
	byKid    map[fcp.Kid][]*Attestation      // by the kid of each key
	revoked  func(target fcp.Hash) bool      // nil: nothing is
}

// RevokedBy makes the set refuse what a zone's revocations name: an attestation by
// its Ref, or a node by its writer id.
func (a *Attestations) RevokedBy(is func(target fcp.Hash) bool) { a.revoked = is }

// Add takes an attestation in and reports whether it was new.
func (a *Attestations) Add(x *Attestation) bool {
	if a.byWriter == nil {
		a.byWriter, a.byKid = map[fcp.WriterID][]*Attestation{}, map[fcp.Kid][]*Attestation{}
	}
	list := a.byWriter[x.o.Writer]
	i, there := slices.BinarySearchFunc(list, x, compareAttestations)
	if there {
		return false
	}
	a.byWriter[x.o.Writer] = slices.Insert(list, i, x)
	for _, k := range [][]byte{x.o.Signing[:], x.o.Encryption[:], x.o.Issuance[:]} {
		kid := fcp.KidOf(k)
		a.byKid[kid] = append(a.byKid[kid], x)
	}
	return true
}

func compareAttestations(a, b *Attestation) int {
	return cmp.Or(cmp.Compare(a.o.IssuedAt, b.o.IssuedAt), bytes.Compare(a.ref[:], b.ref[:]))
}

// At returns the node's attestation that began last and holds at a time. With none
// the error has ReasonAttestationMissing, Expired, Future or Revoked.
func (a *Attestations) At(w fcp.WriterID, at time.Time) (*Attestation, error) {
	reason := ReasonAttestationMissing
	list := a.byWriter[w]
	for i := len(list) - 1; i >= 0; i-- {
		x := list[i]
		switch {
		case a.isRevoked(x):
			reason = ReasonAttestationRevoked
		case at.Before(x.From()):
			if reason == ReasonAttestationMissing {
				reason = ReasonAttestationFuture
			}
		case !at.Before(x.Until()):
			if reason != ReasonAttestationRevoked {
				reason = ReasonAttestationExpired
			}
		default:
			return x, nil
		}
	}
	return nil, fcp.Errorf(fcp.CodeDenied, "no valid attestation of node %.16s: %w", w, reason)
}

func (a *Attestations) isRevoked(x *Attestation) bool {
	return a.revoked != nil && (a.revoked(x.ref) || a.revoked(fcp.Hash(x.o.Writer)))
}

// SigningKey is a Signers for signatures made at a time.
func (a *Attestations) SigningKey(at time.Time) Signers {
	return func(w fcp.WriterID) (SigningPublic, bool) {
		x, err := a.At(w, at)
		if err != nil {
			return SigningPublic{}, false
		}
		return x.o.Signing, true
	}
}

// Issuer finds the issuance key that a token names by kid and node. The kid is a
// hint of 64 bits that anybody can make collide: only a key that is attested for
// that node at that time is returned. Reasons: ReasonKidUnknown,
// ReasonKidOfAnother, ReasonKidAmbiguous, and those of At.
func (a *Attestations) Issuer(kid fcp.Kid, node fcp.WriterID, at time.Time) (IssuancePublic, error) {
	candidates := a.byKid[kid]
	if len(candidates) == 0 {
		return IssuancePublic{}, fcp.Errorf(fcp.CodeDenied, "kid %s: %w", kid, ReasonKidUnknown)
	}
	var found *Attestation
	mine := false
	for _, x := range candidates {
		if x.o.Writer != node || fcp.KidOf(x.o.Issuance[:]) != kid {
			continue
		}
		mine = true
		if at.Before(x.From()) || !at.Before(x.Until()) || a.isRevoked(x) {
			continue
		}
		if found != nil && found.o.Issuance != x.o.Issuance {
			return IssuancePublic{}, fcp.Errorf(fcp.CodeDenied, "kid %s of node %.16s: %w", kid, node, ReasonKidAmbiguous)
		}
		found = x
	}
	switch {
	case found != nil:
		return found.o.Issuance, nil
	case !mine:
		return IssuancePublic{}, fcp.Errorf(fcp.CodeDenied, "kid %s is no issuance key of node %.16s: %w", kid, node, ReasonKidOfAnother)
	}
	if _, err := a.At(node, at); err != nil {
		return IssuancePublic{}, err
	}
	return IssuancePublic{}, fcp.Errorf(fcp.CodeDenied, "the issuance key %s of node %.16s: %w", kid, node, ReasonAttestationExpired)
}

// Writers returns the nodes that have an attestation, ascending.
func (a *Attestations) Writers() []fcp.WriterID {
	out := make([]fcp.WriterID, 0, len(a.byWriter))
	for w := range a.byWriter {
		out = append(out, w)
	}
	slices.SortFunc(out, func(x, y fcp.WriterID) int { return bytes.Compare(x[:], y[:]) })
	return out
}
