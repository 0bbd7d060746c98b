package authority

import (
	"bytes"
	"cmp"
	"crypto/ecdh"
	"io"
	"slices"
	"time"

	"fcp"
)

// MaxRecipients limits the recipients of one zone key manifest.
const MaxRecipients = 256

// manifestAlgorithm is the only value of a native manifest's algorithm field:
// segment keys wrapped and bodies framed with AES-256-GCM as this package does.
const manifestAlgorithm = "aes-256-gcm-stream64k"

// recoveryRecipient is the recipient id of the owner's recovery key. No writer id
// can equal it: those are 64 hex digits.
const recoveryRecipient = "owner-recovery"

// Recipient is somebody zone keys are sealed to: a node's encryption key under
// its writer id, or the owner's recovery key. Make one with NodePublic.Recipient.
type Recipient struct {
	id     string
	key    [KeySize]byte
	hybrid HybridPublic // nil: not known
}

// ID returns the recipient's id as the manifest carries it.
func (r Recipient) ID() string { return r.id }

// Recipient returns the node as a recipient of zone keys.
func (p NodePublic) Recipient() Recipient {
	return Recipient{id: p.Writer().String(), key: p.Encryption}
}

// WithHybrid returns the recipient with its public key under KEMHybrid, which the
// manifests of a zone with that KEM need.
func (r Recipient) WithHybrid(p HybridPublic) Recipient {
	r.hybrid = p
	return r
}

// Recipient returns the owner's recovery key as a recipient of zone keys.
func (k RecoveryPublic) Recipient() Recipient { return Recipient{id: recoveryRecipient, key: k} }

// manifestObject is ZoneKeyManifest in the native profile on the wire.
type manifestObject struct {
	Format        uint64         `cbor:"format"`
	Zone          fcp.ZoneID     `cbor:"zone_id"`
	Version       uint64         `cbor:"version"` // from 1
	ZoneKeyID     KeyID          `cbor:"zone_key_id"`
	ObjectIDKeyID KeyID          `cbor:"object_id_key_id"`
	BodyKeyID     KeyID          `cbor:"body_key_id"`
	PrevZoneKeyID []byte         `cbor:"prev_zone_key_id,omitempty"` // absent exactly in version 1
	Algorithm     string         `cbor:"algorithm"`
	IssuedAt      uint64         `cbor:"issued_at"` // unix seconds; also bound into each box
	Wrapped       []wrappedEntry `cbor:"wrapped"`   // strictly ascending by recipient
	Issuer        OwnerPublic    `cbor:"issuer"`
	Signature     []byte         `cbor:"signature,omitempty"`

	// Format 2, which also has boxes of KEMHybrid.
	Reason RotationReason `cbor:"reason,omitempty"`
}

// manifestFormat2 is the format with a reason and with hybrid boxes.
const manifestFormat2 = 2

// RotationReason says why there is a new manifest. "" is not said.
type RotationReason string

// The closed set of reasons.
const (
	RotateRoutine       RotationReason = "routine"        // new zone and body key; object ids stay comparable
	RotateMemberAdded   RotationReason = "member-added"   // the same keys, one recipient more
	RotateMemberRemoved RotationReason = "member-removed" // all three keys are new
	RotateDeviceLost    RotationReason = "device-lost"    // all three keys are new
	RotateCompromise    RotationReason = "compromise"     // all three keys are new
	RotateRestore       RotationReason = "restore"        // the same keys, for a node that was restored
)

var rotationReasons = map[RotationReason]bool{"": true, RotateRoutine: true, RotateMemberAdded: true,
	RotateMemberRemoved: true, RotateDeviceLost: true, RotateCompromise: true, RotateRestore: true}

// kem returns the KEM of the first box; check sees that all are alike.
func (o *manifestObject) kem() KEM {
	if len(o.Wrapped) == 0 {
		return KEMClassic
	}
	return o.Wrapped[0].ZoneKey.KEM
}

// wantFormat returns the lowest format that has the fields used.
func (o *manifestObject) wantFormat() uint64 {
	if o.Reason != "" || o.kem() == KEMHybrid {
		return manifestFormat2
	}
	return ObjectFormat
}

// wrappedEntry holds all three keys for one recipient, so that a recipient with
// one key missing cannot be written.
type wrappedEntry struct {
	Recipient   string  `cbor:"recipient"`
	ZoneKey     hpkeBox `cbor:"zone_key"`
	ObjectIDKey hpkeBox `cbor:"object_id_key"`
	BodyKey     hpkeBox `cbor:"body_key"`
}

// keyPurposes are the boxes of an entry in the order of the keys' roles.
var keyPurposes = [3]purpose{purposeZoneKey, purposeObjectIDKey, purposeBodyKey}

func (e *wrappedEntry) boxes() [3]*hpkeBox {
	return [3]*hpkeBox{&e.ZoneKey, &e.ObjectIDKey, &e.BodyKey}
}

// ManifestSpec says what a zone key manifest is to contain.
type ManifestSpec struct {
	Version    uint64         // from 1; each rotation or new recipient is a new version
	Prev       KeyID          // the zone key id of the version before; ignored in version 1
	Recovery   RecoveryPublic // always a recipient
	Recipients []Recipient    // the nodes, in any order, none twice
	KEM        KEM            // 0: KEMClassic; KEMHybrid needs the hybrid key of every recipient
	Reason     RotationReason // "": not said
}

// SealManifest seals the three keys of a zone to the owner's recovery key and to
// each recipient, and signs the manifest.
func SealManifest(rand io.Reader, now time.Time, owner *OwnerKey, keys *ZoneKeys, spec ManifestSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	ids := keys.IDs()
	o := manifestObject{
		Format: ObjectFormat, Zone: keys.Zone(), Version: spec.Version, Algorithm: manifestAlgorithm, IssuedAt: at,
		ZoneKeyID: ids.Zone, ObjectIDKeyID: ids.ObjectID, BodyKeyID: ids.Body, Issuer: owner.Public(), Reason: spec.Reason,
	}
	if spec.Version > 1 {
		o.PrevZoneKeyID = bytes.Clone(spec.Prev[:])
	}
	recovery := spec.Recovery.Recipient()
	if spec.KEM == KEMHybrid {
		if recovery.hybrid, err = ownRecoveryHybrid(owner, spec.Recovery); err != nil {
			return nil, err
		}
	}
	to := append(slices.Clone(spec.Recipients), recovery)
	slices.SortFunc(to, func(a, b Recipient) int { return cmp.Compare(a.id, b.id) })
	for _, r := range to {
		e, err := wrapFor(rand, keys, r, spec.KEM, at)
		if err != nil {
			return nil, err
		}
		o.Wrapped = append(o.Wrapped, e)
	}
	o.Format = o.wantFormat()
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(owner, fcp.SchemaZoneKeyManifest, &o, &o.Signature)
}

// ownRecoveryHybrid returns the owner's hybrid recovery key. Genesis names only
// the classic one, so the two are tied together here, where the owner key is.
func ownRecoveryHybrid(owner *OwnerKey, want RecoveryPublic) (HybridPublic, error) {
	k, err := owner.Recovery()
	if err != nil {
		return nil, err
	}
	defer k.Wipe()
	if k.Public() != want {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the recovery key is not this owner's")
	}
	return k.Hybrid()
}

func wrapFor(rand io.Reader, keys *ZoneKeys, r Recipient, kem KEM, at uint64) (wrappedEntry, error) {
	e := wrappedEntry{Recipient: r.id}
	pub, err := ecdh.X25519().NewPublicKey(r.key[:])
	if err != nil {
		return e, fcp.Wrap(fcp.CodeInternal, err, "encryption key of %s", r.id)
	}
	if kem == KEMHybrid && r.hybrid == nil {
		return e, fcp.Errorf(fcp.CodeWrongKey, "the hybrid key of %.16s is not known", r.id).
			WithNext("enroll the device again, or define the zone with the classic KEM")
	}
	for i, box := range e.boxes() {
		addr := boxAddress{Zone: keys.Zone(), Recipient: r.id, Purpose: keyPurposes[i], IssuedAt: at}
		var b *hpkeBox
		if kem == KEMHybrid {
			b, err = sealHybrid(r.hybrid, addr, keys.p().keys[i][:])
		} else {
			b, err = sealBox(rand, pub, addr, keys.p().keys[i][:])
		}
		if err != nil {
			return e, fcp.Wrap(fcp.CodeInternal, err, "seal a key of %s to %s", keys.Zone(), r.id)
		}
		*box = *b
	}
	return e, nil
}

// Manifest is a verified zone key manifest, made by VerifyManifest.
type Manifest struct {
	o   manifestObject
	ref fcp.Hash
}

// VerifyManifest decodes a zone key manifest and checks that owner signed exactly
// these bytes and that the owner's recovery key is among the recipients. Errors:
// CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion, CodeZone,
// CodeWrongKey for another issuer, CodeSignature.
func VerifyManifest(owner OwnerPublic, b []byte) (*Manifest, error) {
	var o manifestObject
	s, err := decodeSigned(fcp.SchemaZoneKeyManifest, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := checkIssuer(fcp.SchemaZoneKeyManifest, o.Issuer, owner); err != nil {
		return nil, err
	}
	if err := s.verifyOwner(owner, fcp.SchemaZoneKeyManifest); err != nil {
		return nil, err
	}
	return &Manifest{o, RefOf(b)}, nil
}

// Zone returns the zone whose keys the manifest holds.
func (m *Manifest) Zone() fcp.ZoneID { return m.o.Zone }

// Version returns the version number, from 1.
func (m *Manifest) Version() uint64 { return m.o.Version }

// IDs returns the ids of the three keys.
func (m *Manifest) IDs() ZoneKeyIDs {
	return ZoneKeyIDs{Zone: m.o.ZoneKeyID, ObjectID: m.o.ObjectIDKeyID, Body: m.o.BodyKeyID}
}

// Prev returns the zone key id of the version before; ok is false in version 1.
func (m *Manifest) Prev() (id KeyID, ok bool) {
	ok = len(m.o.PrevZoneKeyID) == len(id)
	copy(id[:], m.o.PrevZoneKeyID)
	return id, ok
}

// Ref returns RefOf the manifest's bytes.
func (m *Manifest) Ref() fcp.Hash { return m.ref }

// Reason returns why the manifest was made; "" when it does not say.
func (m *Manifest) Reason() RotationReason { return m.o.Reason }

// KEM returns what the keys are sealed with.
func (m *Manifest) KEM() KEM { return m.o.kem() }

// IssuedAt returns when the owner signed it, to the second.
func (m *Manifest) IssuedAt() time.Time { return time.Unix(int64(m.o.IssuedAt), 0).UTC() }

// Recipients returns the recipients' ids in ascending order.
func (m *Manifest) Recipients() []string {
	out := make([]string, len(m.o.Wrapped))
	for i := range m.o.Wrapped {
		out[i] = m.o.Wrapped[i].Recipient
	}
	return out
}

// OpenNode returns the zone keys with a node's encryption key. CodeWrongKey means
// that the node is no recipient or its key does not fit.
func (m *Manifest) OpenNode(node *NodeKeys) (*ZoneKeys, error) {
	return m.open(node.Writer().String(), node.opener())
}

// OpenRecovery returns the zone keys with the owner's recovery key.
func (m *Manifest) OpenRecovery(key *RecoveryKey) (*ZoneKeys, error) {
	return m.open(recoveryRecipient, key.opener())
}

func (m *Manifest) open(recipient string, key boxOpener) (*ZoneKeys, error) {
	i, ok := slices.BinarySearchFunc(m.o.Wrapped, recipient, func(e wrappedEntry, id string) int { return cmp.Compare(e.Recipient, id) })
	if !ok {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the keys of %s, version %d, are not sealed to %.16s", m.o.Zone, m.o.Version, recipient)
	}
	var keys [3][KeySize]byte
	defer clear(keys[:])
	for n, box := range m.o.Wrapped[i].boxes() {
		addr := boxAddress{Zone: m.o.Zone, Recipient: recipient, Purpose: keyPurposes[n], IssuedAt: m.o.IssuedAt}
		pt, err := key.open(addr, box)
		if err != nil {
			return nil, err
		}
		if len(pt) != KeySize {
			return nil, fcp.Errorf(fcp.CodeMalformed, "a sealed key of %s has %d bytes", m.o.Zone, len(pt))
		}
		copy(keys[n][:], pt)
		clear(pt)
	}
	k, err := newZoneKeys(m.o.Zone, &keys)
	if err != nil {
		return nil, err
	}
	if k.IDs() != m.IDs() {
		k.Wipe()
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the sealed keys of %s, version %d, do not have the ids the manifest names", m.o.Zone, m.o.Version)
	}
	return k, nil
}

func (o *manifestObject) check() error {
	if err := checkFormat(fcp.SchemaZoneKeyManifest, o.Format, o.wantFormat(), o.IssuedAt); err != nil {
		return err
	}
	switch {
	case !rotationReasons[o.Reason]:
		return fcp.Errorf(fcp.CodeMalformed, "zone key manifest of %.64q with an unknown reason", string(o.Zone))
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "zone key manifest of %.64q", string(o.Zone))
	case o.Version == 0:
		return fcp.Errorf(fcp.CodeMissingField, "zone key manifest of %s without a version", o.Zone)
	case o.Algorithm != manifestAlgorithm:
		return fcp.Errorf(fcp.CodeVersion, "zone key manifest of %s with algorithm %.64q", o.Zone, o.Algorithm)
	case o.Version == 1 && o.PrevZoneKeyID != nil, o.Version > 1 && len(o.PrevZoneKeyID) != len(KeyID{}):
		return fcp.Errorf(fcp.CodeMalformed, "zone key manifest of %s: the previous key id does not fit version %d", o.Zone, o.Version)
	case len(o.Wrapped) > MaxRecipients:
		return fcp.Errorf(fcp.CodeTooLarge, "zone key manifest of %s with %d recipients, the limit is %d", o.Zone, len(o.Wrapped), MaxRecipients)
	}
	recovery := false
	for i := range o.Wrapped {
		e := &o.Wrapped[i]
		recovery = recovery || e.Recipient == recoveryRecipient
		if i > 0 && o.Wrapped[i-1].Recipient >= e.Recipient {
			return fcp.Errorf(fcp.CodeMalformed, "zone key manifest of %s: recipients are not strictly ascending", o.Zone)
		}
		if err := e.check(o.kem()); err != nil {
			return err
		}
	}
	if !recovery {
		return fcp.Errorf(fcp.CodeMissingField, "zone key manifest of %s is not sealed to the owner's recovery key", o.Zone)
	}
	return nil
}

func (e *wrappedEntry) check(kem KEM) error {
	if e.Recipient != recoveryRecipient {
		if h, err := fcp.ParseHash(e.Recipient); err != nil || h.String() != e.Recipient {
			return fcp.Errorf(fcp.CodeMalformed, "zone key recipient %.64q is not a writer id", e.Recipient)
		}
	}
	for _, b := range e.boxes() {
		if err := b.check(); err != nil {
			return err
		}
		if b.KEM != kem {
			return fcp.Errorf(fcp.CodeMalformed, "a zone key manifest with boxes of two KEMs")
		}
		if len(b.CT) != KeySize+TagSize {
			return fcp.Errorf(fcp.CodeMalformed, "a sealed key with %d bytes of ciphertext", len(b.CT))
		}
	}
	return nil
}
