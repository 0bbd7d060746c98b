package authority

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// A checkpoint says what a zone has agreed on: how many revocations and audit
// events there are, which definition, policy and keys are in force, and who may
// sign the next one. It is judged by what the last accepted one said, never by what
// it says itself, so no checkpoint can let itself in.

// Member is a device that has a say in a zone's checkpoints.
type Member struct {
	Writer fcp.WriterID  `cbor:"writer"`
	Key    SigningPublic `cbor:"signing"` // its hash is Writer
}

// MemberOf returns a node as a member.
func MemberOf(p NodePublic) Member { return Member{p.Writer(), p.Signing} }

// VersionRef names one version of an owner's object; the zero VersionRef none.
type VersionRef struct {
	Version uint64
	Ref     fcp.Hash
}

// ZoneCheckpointSpec is what a checkpoint says.
type ZoneCheckpointSpec struct {
	Zone        fcp.ZoneID
	Seq         uint64   // from 1; genesis is 0
	Prev        fcp.Hash // Ref of checkpoint Seq-1; the genesis id for Seq 1
	Revocations RevocationHead
	AuditSeq    uint64   // events in all control feeds of the zone
	AuditHead   fcp.Hash // digest of the feeds' heads; zero exactly when AuditSeq is 0
	Definition  VersionRef
	Policy      VersionRef
	Manifest    VersionRef
	Members     []Member // who may sign the next one: 1 to MaxMembers, strictly ascending by writer
	MaxFaults   uint8    // of the policy; the next one needs Quorum{len(Members), MaxFaults}
	Epoch       uint64
	At          time.Time
}

// zoneCheckpointObject is ZoneCheckpoint on the wire, format 2. Format 1 is genesis.
type zoneCheckpointObject struct {
	Format            uint64        `cbor:"format"`
	Zone              fcp.ZoneID    `cbor:"zone_id"`
	Seq               uint64        `cbor:"checkpoint_seq"`
	Prev              fcp.Hash      `cbor:"prev_checkpoint"`
	RevHead           fcp.Hash      `cbor:"rev_head"`
	RevSeq            uint64        `cbor:"rev_seq"`
	AuditHead         fcp.Hash      `cbor:"audit_head"`
	AuditSeq          uint64        `cbor:"audit_seq"`
	DefinitionHead    []byte        `cbor:"zone_definition_head,omitempty"`
	DefinitionVersion uint64        `cbor:"zone_definition_version,omitempty"`
	PolicyHead        []byte        `cbor:"zone_policy_head,omitempty"`
	PolicyVersion     uint64        `cbor:"zone_policy_version,omitempty"`
	ManifestHead      []byte        `cbor:"active_zone_key_manifest,omitempty"`
	ManifestVersion   uint64        `cbor:"zone_key_manifest_version,omitempty"`
	Members           []Member      `cbor:"members"`
	MaxFaults         uint8         `cbor:"max_faults"`
	Epoch             string        `cbor:"as_of_epoch"` // decimal
	CreatedAt         uint64        `cbor:"created_at"`  // unix seconds
	Owner             []byte        `cbor:"owner_signature,omitempty"`
	Signatures        *signatureSet `cbor:"quorum_signatures,omitempty"`
}

const (
	checkpointFormat2   = 2
	checkpointPurpose   = "fcp.zonecheckpoint.v2" // spec/wire.md section 12
	ownerSignatureField = "owner_signature"
)

// UnverifiedZoneCheckpoint is a checkpoint whose form was checked and nothing else.
// Judge, through ZoneCheckpoints, makes a ZoneCheckpoint of it.
type UnverifiedZoneCheckpoint struct {
	o         zoneCheckpointObject
	statement []byte // without any signature
	ref       fcp.Hash
}

// ZoneCheckpoint is an accepted checkpoint.
type ZoneCheckpoint struct{ UnverifiedZoneCheckpoint }

// NewZoneCheckpoint makes a checkpoint without signatures.
func NewZoneCheckpoint(s ZoneCheckpointSpec) (*UnverifiedZoneCheckpoint, error) {
	at, err := unixSeconds(s.At)
	if err != nil {
		return nil, err
	}
	o := zoneCheckpointObject{
		Format: checkpointFormat2, Zone: s.Zone, Seq: s.Seq, Prev: s.Prev, RevHead: s.Revocations.Digest, RevSeq: s.Revocations.Seq,
		AuditHead: s.AuditHead, AuditSeq: s.AuditSeq,
		DefinitionHead: optionalHash(s.Definition.Ref), DefinitionVersion: s.Definition.Version,
		PolicyHead: optionalHash(s.Policy.Ref), PolicyVersion: s.Policy.Version,
		ManifestHead: optionalHash(s.Manifest.Ref), ManifestVersion: s.Manifest.Version,
		Members: s.Members, MaxFaults: s.MaxFaults, Epoch: strconv.FormatUint(s.Epoch, 10), CreatedAt: at,
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return newZoneCheckpoint(o)
}

func newZoneCheckpoint(o zoneCheckpointObject) (*UnverifiedZoneCheckpoint, error) {
	bare := o
	bare.Owner, bare.Signatures = nil, nil
	statement, err := fcp.MarshalPayload(fcp.SchemaZoneCheckpoint, &bare)
	if err != nil {
		return nil, err
	}
	return &UnverifiedZoneCheckpoint{o, statement, RefOf(statement)}, nil
}

// DecodeZoneCheckpoint decodes a checkpoint and checks its form. Errors: CodeMalformed,
// CodeNonCanonical, CodeSchema, CodeVersion (genesis is format 1), CodeZone,
// CodeTooLarge.
func DecodeZoneCheckpoint(b []byte) (*UnverifiedZoneCheckpoint, error) {
	var o zoneCheckpointObject
	if len(b) > MaxSignedObject {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a checkpoint of %d bytes", len(b))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaZoneCheckpoint, b, &o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	statement := b
	for _, field := range []string{signaturesField, ownerSignatureField} {
		rest, value, err := cutField(statement, field)
		if err != nil {
			return nil, err
		}
		if value != nil {
			statement = rest
		}
	}
	statement = bytes.Clone(statement)
	return &UnverifiedZoneCheckpoint{o, statement, RefOf(statement)}, nil
}

// Spec returns what the checkpoint says.
func (c *UnverifiedZoneCheckpoint) Spec() ZoneCheckpointSpec {
	o := &c.o
	epoch, _ := strconv.ParseUint(o.Epoch, 10, 64) // check saw that it is one
	return ZoneCheckpointSpec{
		Zone: o.Zone, Seq: o.Seq, Prev: o.Prev, Revocations: RevocationHead{o.RevSeq, o.RevHead}, AuditSeq: o.AuditSeq, AuditHead: o.AuditHead,
		Definition: VersionRef{o.DefinitionVersion, hashrefOf(o.DefinitionHead).Ref}, Policy: VersionRef{o.PolicyVersion, hashrefOf(o.PolicyHead).Ref},
		Manifest: VersionRef{o.ManifestVersion, hashrefOf(o.ManifestHead).Ref},
		Members:  o.Members, MaxFaults: o.MaxFaults, Epoch: epoch, At: fromUnix(o.CreatedAt),
	}
}

// Ref names the checkpoint whatever its signatures: RefOf what is signed. It is
// what events authorised under it name, and what the next checkpoint follows.
func (c *UnverifiedZoneCheckpoint) Ref() fcp.Hash { return c.ref }

// Encode returns the checkpoint with its signatures.
func (c *UnverifiedZoneCheckpoint) Encode() ([]byte, error) {
	return fcp.MarshalPayload(fcp.SchemaZoneCheckpoint, &c.o)
}

// message is what members and the owner sign: BLAKE3-256 over the purpose and the
// checkpoint without its signatures (spec/wire.md section 12).
func (c *UnverifiedZoneCheckpoint) message() []byte {
	h := blake3.New()
	h.WriteString(checkpointPurpose)
	h.Write(c.statement)
	return h.Sum(nil)
}

// Sign returns the checkpoint with the node's signature besides. The node must
// have checked that what it says is what it knows; see Engine.CosignCheckpoint.
func (c *UnverifiedZoneCheckpoint) Sign(node *NodeKeys, at time.Time) (*UnverifiedZoneCheckpoint, error) {
	s, err := unixSeconds(at)
	if err != nil {
		return nil, err
	}
	set := signatureSet{slices.Clone(c.signatures())}
	if err := set.add(signNode(node, c.message(), s)); err != nil {
		return nil, err
	}
	out := *c
	out.o.Signatures = &set
	return &out, nil
}

// SignOwner returns the checkpoint with the owner's signature, which stands in for
// the quorum: for one device, and for when too many devices are lost.
func (c *UnverifiedZoneCheckpoint) SignOwner(owner *OwnerKey) *UnverifiedZoneCheckpoint {
	out := *c
	out.o.Owner = owner.Sign(c.message())
	return &out
}

// Merge returns the checkpoint with the signatures of both. CodeConflict when they
// do not say the same.
func (c *UnverifiedZoneCheckpoint) Merge(o *UnverifiedZoneCheckpoint) (*UnverifiedZoneCheckpoint, error) {
	if c.ref != o.ref {
		return nil, fcp.Errorf(fcp.CodeConflict, "two different checkpoints %d of %s", c.o.Seq, c.o.Zone)
	}
	set := signatureSet{slices.Clone(c.signatures())}
	set.merge(&signatureSet{o.signatures()})
	out := *c
	if len(set.Signatures) > 0 {
		out.o.Signatures = &set
	}
	if out.o.Owner == nil || o.o.Owner != nil && bytes.Compare(o.o.Owner, out.o.Owner) < 0 {
		out.o.Owner = o.o.Owner
	}
	return &out, nil
}

// Signers returns the node ids of the signatures that are there, unverified.
func (c *UnverifiedZoneCheckpoint) Signers() []string {
	out := make([]string, 0, len(c.signatures()))
	for i := range c.signatures() {
		out = append(out, c.signatures()[i].Node)
	}
	return out
}

func (c *UnverifiedZoneCheckpoint) signatures() []NodeSignature {
	if c.o.Signatures == nil {
		return nil
	}
	return c.o.Signatures.Signatures
}

func (o *zoneCheckpointObject) check() error {
	if err := checkFormat(fcp.SchemaZoneCheckpoint, o.Format, checkpointFormat2, o.CreatedAt); err != nil {
		return err
	}
	epoch, err := strconv.ParseUint(o.Epoch, 10, 64)
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "checkpoint of %.64q", string(o.Zone))
	case o.Seq == 0 || o.Seq > math.MaxInt64 || o.Prev.IsZero():
		return fcp.Errorf(fcp.CodeMalformed, "checkpoint %d of %s without the one before", o.Seq, o.Zone)
	case err != nil || strconv.FormatUint(epoch, 10) != o.Epoch:
		return fcp.Errorf(fcp.CodeMalformed, "checkpoint %d of %s with an epoch that is no number", o.Seq, o.Zone)
	case (o.RevSeq == 0) != o.RevHead.IsZero() || (o.AuditSeq == 0) != o.AuditHead.IsZero():
		return fcp.Errorf(fcp.CodeMalformed, "checkpoint %d of %s with a head and no number", o.Seq, o.Zone)
	case o.Owner != nil && len(o.Owner) != 64:
		return fcp.Errorf(fcp.CodeMalformed, "checkpoint %d of %s with an owner signature of %d bytes", o.Seq, o.Zone, len(o.Owner))
	case o.Signatures != nil && len(o.Signatures.Signatures) == 0:
		return fcp.Errorf(fcp.CodeNonCanonical, "checkpoint %d of %s with an empty set of signatures", o.Seq, o.Zone)
	}
	for _, v := range []struct {
		version uint64
		ref     []byte
	}{{o.DefinitionVersion, o.DefinitionHead}, {o.PolicyVersion, o.PolicyHead}, {o.ManifestVersion, o.ManifestHead}} {
		if (v.version == 0) != (v.ref == nil) || v.ref != nil && len(v.ref) != fcp.HashSize {
			return fcp.Errorf(fcp.CodeMalformed, "checkpoint %d of %s with a reference that does not fit its version", o.Seq, o.Zone)
		}
	}
	return checkMembers(o.Members, o.MaxFaults)
}

func checkMembers(members []Member, faults uint8) error {
	if q := (Quorum{len(members), int(faults)}); !q.Valid() {
		return fcp.Errorf(fcp.CodeInvalidArgument, "%d members cannot survive %d liars", len(members), faults)
	}
	for i, m := range members {
		if fcp.WriterOf(m.Key[:]) != m.Writer {
			return fcp.Errorf(fcp.CodeMalformed, "member %d with a key that is not its own", i)
		}
		if i > 0 && bytes.Compare(members[i-1].Writer[:], m.Writer[:]) >= 0 {
			return fcp.Errorf(fcp.CodeMalformed, "members are not strictly ascending")
		}
	}
	return nil
}

// SortMembers puts members in the order a checkpoint has them.
func SortMembers(m []Member) {
	slices.SortFunc(m, func(a, b Member) int { return bytes.Compare(a.Writer[:], b.Writer[:]) })
}
