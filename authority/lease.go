package authority

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// A lease is a short, renewable, fenced lock on a subject (spec/wire.md section
// 13.3, docs/leases.md). Safety rests on the fence, never on a clock.

// LeasePurpose says what a lease is for. Leases of one subject for two purposes are
// two things and do not exclude each other.
type LeasePurpose string

// The closed set of purposes (spec/wire.md section 13.3).
const (
	LeaseOperation      LeasePurpose = "operation_execution"
	LeaseConnectorState LeasePurpose = "connector_state_write"
	LeaseComputation    LeasePurpose = "computation_migration"
	LeaseCoordinator    LeasePurpose = "coordinator_election"
	LeaseMigration      LeasePurpose = "migration"
	LeaseResource       LeasePurpose = "resource_access"
)

// LeasePurposes returns the closed set in a fixed order.
func LeasePurposes() []LeasePurpose {
	return []LeasePurpose{LeaseOperation, LeaseConnectorState, LeaseComputation, LeaseCoordinator, LeaseMigration, LeaseResource}
}

// Valid reports whether the purpose is in the set.
func (p LeasePurpose) Valid() bool { return slices.Contains(LeasePurposes(), p) }

// Limits of leases.
const (
	MinLease = time.Second
	MaxLease = 24 * time.Hour

	fenceCounterBits   = 32
	maxFenceCheckpoint = math.MaxInt64 >> fenceCounterBits // a fence fits a signed number
	// maxFenceStep is how far one lease's counter may lie above the highest that a
	// signer knows, so that no coordinator uses the numbers up.
	maxFenceStep = 1 << 20
)

// Fence is a lease's lease_seq: the number of the checkpoint it was granted under,
// times 2^32, plus a counter from 1. Leases of one thing rise strictly.
type Fence uint64

// FirstFence returns the lowest fence under a checkpoint. CodeTooLarge for a number
// beyond 2^31.
func FirstFence(checkpoint uint64) (Fence, error) {
	if checkpoint > maxFenceCheckpoint {
		return 0, fcp.Errorf(fcp.CodeTooLarge, "checkpoint %d has no fences", checkpoint)
	}
	return Fence(checkpoint<<fenceCounterBits | 1), nil
}

// Checkpoint returns the number of the checkpoint that the fence belongs to.
func (f Fence) Checkpoint() uint64 { return uint64(f) >> fenceCounterBits }

// Next returns the fence to propose under a checkpoint above all that are known.
// CodeExhausted when none is left.
func (f Fence) Next(checkpoint uint64) (Fence, error) {
	first, err := FirstFence(checkpoint)
	if err != nil || f < first {
		return first, err
	}
	if uint32(f) == math.MaxUint32 || f.Checkpoint() != checkpoint {
		return 0, fcp.Errorf(fcp.CodeExhausted, "no fence above %d under checkpoint %d", f, checkpoint)
	}
	return f + 1, nil
}

// Reaches reports whether a lease under next may follow one under f: of the same
// checkpoint, and no further above it than a signer lets one lease go.
func (f Fence) Reaches(next Fence) bool {
	return next > f && next.Checkpoint() == f.Checkpoint() && next-f <= maxFenceStep
}

// Thing is what one lease at a time is held on.
type Thing struct {
	Zone    fcp.ZoneID
	Subject fcp.ObjectID
	Purpose LeasePurpose
}

func (t *Thing) check() error {
	switch {
	case !t.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "a lease in %.64q", string(t.Zone))
	case t.Subject.IsZero():
		return fcp.Errorf(fcp.CodeMalformed, "a lease without a subject")
	case !t.Purpose.Valid():
		return fcp.Errorf(fcp.CodeMalformed, "a lease for %.32q", string(t.Purpose))
	}
	return nil
}

// LeaseWeight is a node's rendezvous weight for a subject: the first 8 bytes,
// little-endian, of BLAKE3-256("FCP2-HRW-V1" || zone || subject || node)
// (spec/wire.md section 13.3).
func LeaseWeight(zone fcp.ZoneID, subject fcp.ObjectID, node string) uint64 {
	h := blake3.New()
	h.WriteString("FCP2-HRW-V1")
	h.WriteString(string(zone))
	h.Write(subject[:])
	h.WriteString(node)
	return binary.LittleEndian.Uint64(h.Sum(nil)[:8])
}

// LeaseCoordinators returns the members in the order in which a holder asks them to
// coordinate: the highest weight first, equal weights by id. Any member may.
func LeaseCoordinators(zone fcp.ZoneID, subject fcp.ObjectID, members []Member) []fcp.WriterID {
	out := make([]fcp.WriterID, len(members))
	weight := map[fcp.WriterID]uint64{}
	for i := range members {
		out[i] = members[i].Writer
		weight[out[i]] = LeaseWeight(zone, subject, out[i].String())
	}
	slices.SortFunc(out, func(a, b fcp.WriterID) int {
		return cmp.Or(cmp.Compare(weight[b], weight[a]), bytes.Compare(a[:], b[:]))
	})
	return out
}

// leaseRequestObject is LeaseRequest on the wire.
type leaseRequestObject struct {
	Format    uint64       `cbor:"format"`
	Zone      fcp.ZoneID   `cbor:"zone_id"`
	Subject   fcp.ObjectID `cbor:"subject_object_id"`
	Purpose   LeasePurpose `cbor:"purpose"`
	Holder    fcp.WriterID `cbor:"holder"`
	Seconds   uint64       `cbor:"ttl_secs"`
	CreatedAt uint64       `cbor:"created_at"` // unix seconds
	Nonce     [16]byte     `cbor:"nonce"`      // two requests are never equal
	Signature []byte       `cbor:"signature,omitempty"`
}

// LeaseRequest is a holder's wish, signed with its node signing key.
type LeaseRequest struct {
	o leaseRequestObject
	b []byte
}

// RequestLease signs a request. ttl is cut to whole seconds, MinLease to MaxLease.
func RequestLease(node *NodeKeys, at time.Time, nonce [16]byte, t Thing, ttl time.Duration) (*LeaseRequest, error) {
	created, err := unixSeconds(at)
	if err != nil {
		return nil, err
	}
	if ttl < MinLease || ttl > MaxLease {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a lease lasts from %s to %s, not %s", MinLease, MaxLease, ttl)
	}
	o := leaseRequestObject{Format: ObjectFormat, Zone: t.Zone, Subject: t.Subject, Purpose: t.Purpose, Holder: node.Writer(),
		Seconds: uint64(ttl / time.Second), CreatedAt: created, Nonce: nonce}
	if err := o.check(); err != nil {
		return nil, err
	}
	b, err := signObject(node, fcp.SchemaLeaseRequest, &o, &o.Signature)
	return &LeaseRequest{o, b}, err
}

func (o *leaseRequestObject) check() error {
	if err := checkCommon(fcp.SchemaLeaseRequest, o.Format, o.CreatedAt); err != nil {
		return err
	}
	if o.Seconds == 0 || o.Seconds > uint64(MaxLease/time.Second) || o.Holder.IsZero() {
		return fcp.Errorf(fcp.CodeMalformed, "a lease request without a holder or of %d seconds", o.Seconds)
	}
	t := o.thing()
	return t.check()
}

func (o *leaseRequestObject) thing() Thing { return Thing{o.Zone, o.Subject, o.Purpose} }

// VerifyLeaseRequest decodes a request and checks that the holder it names signed it.
// keys says which devices are enrolled and not revoked. Errors: CodeMalformed,
// CodeNonCanonical, CodeSchema, CodeVersion, CodeZone, CodeTooLarge, CodeSignature,
// CodeDenied for a holder that keys does not know.
func VerifyLeaseRequest(keys Signers, b []byte) (*LeaseRequest, error) {
	var o leaseRequestObject
	s, err := decodeSigned(fcp.SchemaLeaseRequest, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	key, ok := keys(o.Holder)
	if !ok || fcp.WriterOf(key[:]) != o.Holder {
		return nil, fcp.Errorf(fcp.CodeDenied, "a lease request of %.16s: %w", o.Holder, ReasonLeaseStranger)
	}
	if !key.Verify(s.message, s.signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "a lease request of %.16s", o.Holder)
	}
	return &LeaseRequest{o, bytes.Clone(b)}, nil
}

// InspectLeaseRequest returns what a request says it is for and who asks, without a
// look at its signature. Errors are those of VerifyLeaseRequest for its form.
func InspectLeaseRequest(b []byte) (Thing, fcp.WriterID, error) {
	var o leaseRequestObject
	if _, err := decodeSigned(fcp.SchemaLeaseRequest, b, &o); err != nil {
		return Thing{}, fcp.WriterID{}, err
	}
	return o.thing(), o.Holder, o.check()
}

// Thing returns what the lease is asked for.
func (r *LeaseRequest) Thing() Thing { return r.o.thing() }

// Holder returns who asks.
func (r *LeaseRequest) Holder() fcp.WriterID { return r.o.Holder }

// For returns how long it is asked for.
func (r *LeaseRequest) For() time.Duration { return time.Duration(r.o.Seconds) * time.Second }

// Bytes returns the request as signed. The caller must not change them.
func (r *LeaseRequest) Bytes() []byte { return r.b }

// Ref names the request.
func (r *LeaseRequest) Ref() fcp.Hash { return RefOf(r.b) }

// LeaseSpec is what a lease says.
type LeaseSpec struct {
	Thing
	Holder      fcp.WriterID
	Fence       Fence // lease_seq
	Request     fcp.Hash
	Coordinator fcp.WriterID
	Checkpoint  fcp.Hash // whose members sign; its number is in Fence
	From, Until time.Time
}

// leaseObject is Lease on the wire.
type leaseObject struct {
	Format      uint64        `cbor:"format"`
	Zone        fcp.ZoneID    `cbor:"zone_id"`
	Subject     fcp.ObjectID  `cbor:"subject_object_id"`
	Purpose     LeasePurpose  `cbor:"purpose"`
	Holder      fcp.WriterID  `cbor:"holder"`
	Seq         Fence         `cbor:"lease_seq"`
	Request     fcp.Hash      `cbor:"request"`
	Coordinator fcp.WriterID  `cbor:"coordinator"`
	Checkpoint  fcp.Hash      `cbor:"checkpoint"`
	From        uint64        `cbor:"iat"` // unix seconds
	Until       uint64        `cbor:"exp"` // exclusive
	Signatures  *signatureSet `cbor:"quorum_signatures,omitempty"`
}

func (o *leaseObject) check() error {
	if err := checkCommon(fcp.SchemaLease, o.Format, max(o.From, o.Until)); err != nil {
		return err
	}
	t := Thing{o.Zone, o.Subject, o.Purpose}
	switch {
	case o.Holder.IsZero() || o.Coordinator.IsZero() || o.Request.IsZero() || o.Checkpoint.IsZero():
		return fcp.Errorf(fcp.CodeMalformed, "a lease without holder, coordinator, request or checkpoint")
	case o.Seq > math.MaxInt64 || uint32(o.Seq) == 0:
		return fcp.Errorf(fcp.CodeMalformed, "a lease with the fence %d", o.Seq)
	case o.Until <= o.From || o.Until-o.From > uint64(MaxLease/time.Second):
		return fcp.Errorf(fcp.CodeMalformed, "a lease from %d to %d", o.From, o.Until)
	case o.Signatures != nil && len(o.Signatures.Signatures) == 0:
		return fcp.Errorf(fcp.CodeNonCanonical, "a lease with an empty set of signatures")
	}
	return t.check()
}

// UnverifiedLease is a lease whose form was checked and nothing else.
// Electorate.Verify makes a Lease of it.
type UnverifiedLease struct {
	o         leaseObject
	statement []byte // without signatures
}

// Lease is a lease that a quorum of its electorate signed.
type Lease struct{ UnverifiedLease }

// NewLease makes a lease without signatures.
func NewLease(s LeaseSpec) (*UnverifiedLease, error) {
	o := leaseObject{Format: ObjectFormat, Zone: s.Zone, Subject: s.Subject, Purpose: s.Purpose, Holder: s.Holder, Seq: s.Fence,
		Request: s.Request, Coordinator: s.Coordinator, Checkpoint: s.Checkpoint}
	if err := setTimes(timeField{&o.From, s.From}, timeField{&o.Until, s.Until}); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	statement, err := fcp.MarshalPayload(fcp.SchemaLease, &o)
	return &UnverifiedLease{o, statement}, err
}

// DecodeLease decodes a lease and checks its form. Errors: CodeMalformed,
// CodeNonCanonical, CodeSchema, CodeVersion, CodeZone, CodeTooLarge.
func DecodeLease(b []byte) (*UnverifiedLease, error) {
	if len(b) > MaxSignedObject {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a lease of %d bytes", len(b))
	}
	var o leaseObject
	if err := fcp.UnmarshalPayload(fcp.SchemaLease, b, &o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	statement, value, err := cutField(b, signaturesField)
	if err != nil {
		return nil, err
	}
	if value == nil {
		statement = bytes.Clone(b)
	}
	l := &UnverifiedLease{o, statement}
	return l, (&signatureSet{l.signatures()}).check()
}

// Spec returns what the lease says.
func (l *UnverifiedLease) Spec() LeaseSpec {
	o := &l.o
	return LeaseSpec{Thing: Thing{o.Zone, o.Subject, o.Purpose}, Holder: o.Holder, Fence: o.Seq, Request: o.Request,
		Coordinator: o.Coordinator, Checkpoint: o.Checkpoint, From: fromUnix(o.From), Until: fromUnix(o.Until)}
}

// Ref names the lease whatever its signatures: RefOf what is signed.
func (l *UnverifiedLease) Ref() fcp.Hash { return RefOf(l.statement) }

// Statement returns what is signed: the lease without its signatures. The caller
// must not change it.
func (l *UnverifiedLease) Statement() []byte { return l.statement }

// Encode returns the lease with its signatures.
func (l *UnverifiedLease) Encode() ([]byte, error) { return fcp.MarshalPayload(fcp.SchemaLease, &l.o) }

// Sign returns the node's signature of the lease. The node must have judged it and
// written the promise down; see Engine.PromiseLease.
func (l *UnverifiedLease) Sign(node *NodeKeys, at time.Time) (NodeSignature, error) {
	s, err := unixSeconds(at)
	return signNode(node, l.statement, s), err
}

// With returns the lease with a signature besides. A second one of the same node is
// CodeConflict.
func (l *UnverifiedLease) With(n NodeSignature) (*UnverifiedLease, error) {
	set := signatureSet{slices.Clone(l.signatures())}
	if err := set.add(n); err != nil {
		return nil, err
	}
	out := *l
	out.o.Signatures = &set
	return &out, nil
}

// Signers returns the node ids of the signatures that are there, unverified.
func (l *UnverifiedLease) Signers() []string {
	out := make([]string, 0, len(l.signatures()))
	for _, n := range l.signatures() {
		out = append(out, n.Node)
	}
	return out
}

func (l *UnverifiedLease) signatures() []NodeSignature {
	if l.o.Signatures == nil {
		return nil
	}
	return l.o.Signatures.Signatures
}
