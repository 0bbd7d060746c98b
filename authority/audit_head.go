package authority

import (
	"math"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"fcp"
)

// An audit head says how far one device's feed has come: size, hash of the last
// event, Merkle root. The device signs it first; other devices sign besides after
// they saw that it continues what they saw before. Two heads of one feed that do
// not continue each other are proof against the device, wherever they are shown.

// HeadSpec is what an audit head says.
type HeadSpec struct {
	Feed  fcp.Feed
	Epoch uint64   // floor(unix seconds / 300) it was made in
	Size  uint64   // events in the feed, at least 1
	Hash  fcp.Hash // of event Size
	Root  fcp.Hash // RFC 6962 tree root over events 1 to Size
	At    time.Time
}

// headObject is AuditHead on the wire.
type headObject struct {
	Format     uint64         `cbor:"format"`
	Zone       fcp.ZoneID     `cbor:"zone_id"`
	Feed       revocationFeed `cbor:"feed"`
	Epoch      uint64         `cbor:"epoch_id"`
	Size       uint64         `cbor:"head_seq"`
	Hash       fcp.Hash       `cbor:"head_event"`
	Root       fcp.Hash       `cbor:"root"`
	At         uint64         `cbor:"issued_at"` // unix seconds
	Signer     SigningPublic  `cbor:"signer"`    // of the writer: its hash is the writer id
	Signatures *signatureSet  `cbor:"quorum_signatures,omitempty"`
}

const signaturesField = "quorum_signatures"

// AuditHead is a head signed by the feed's writer, and perhaps by witnesses. Made
// by SignHead, Cosign and VerifyHead.
type AuditHead struct {
	o       headObject
	message []byte // what is signed

	evidence []byte // of a head of the mesh: the form that a fork proof carries
}

// Spec returns what the head says.
func (h *AuditHead) Spec() HeadSpec {
	return HeadSpec{h.o.Feed.feed(), h.o.Epoch, h.o.Size, h.o.Hash, h.o.Root, fromUnix(h.o.At)}
}

// Feed returns the feed the head is of.
func (h *AuditHead) Feed() fcp.Feed { return h.o.Feed.feed() }

// Ref names the head whatever its signatures: RefOf the signed bytes.
func (h *AuditHead) Ref() fcp.Hash { return RefOf(h.message) }

// Witnesses returns who signed besides the writer, ascending.
func (h *AuditHead) Witnesses() []fcp.WriterID {
	var out []fcp.WriterID
	for i := range h.o.Signatures.Signatures {
		if w, _ := h.o.Signatures.Signatures[i].Writer(); w != h.o.Feed.Writer {
			out = append(out, w)
		}
	}
	return out
}

// Encode returns the head with its signatures.
func (h *AuditHead) Encode() ([]byte, error) {
	if h.evidence != nil {
		return h.evidence, nil
	}
	return fcp.MarshalPayload(fcp.SchemaAuditHead, &h.o)
}

// SignHead makes the head of one of the node's own feeds. The node must never sign
// two that contradict each other: see Engine.
func SignHead(node *NodeKeys, s HeadSpec) (*AuditHead, error) {
	at, err := unixSeconds(s.At)
	if err != nil {
		return nil, err
	}
	o := headObject{Format: ObjectFormat, Zone: s.Feed.Zone, Feed: feedObject(s.Feed), Epoch: s.Epoch, Size: s.Size,
		Hash: s.Hash, Root: s.Root, At: at, Signer: node.Public().Signing}
	if err := o.check(); err != nil {
		return nil, err
	}
	message, err := fcp.MarshalPayload(fcp.SchemaAuditHead, &o)
	if err != nil {
		return nil, err
	}
	o.Signatures = &signatureSet{[]NodeSignature{signNode(node, message, at)}}
	return &AuditHead{o: o, message: message}, nil
}

// OpenHead decodes a head and checks the writer's signature alone: witnesses are
// what VerifyHead is for.
func OpenHead(b []byte) (*AuditHead, error) {
	h, err := decodeHead(b)
	if err != nil {
		return nil, err
	}
	if err := h.o.Signatures.check(); err != nil {
		return nil, err
	}
	for i := range h.o.Signatures.Signatures {
		n := &h.o.Signatures.Signatures[i]
		if w, _ := n.Writer(); w != h.o.Feed.Writer {
			continue
		}
		if !h.o.Signer.Verify(h.message, n.Signature[:]) {
			return nil, fcp.Errorf(fcp.CodeSignature, "audit head of %.16s: %w", n.Node, ReasonSignatureInvalid)
		}
		return h, nil
	}
	return nil, fcp.Errorf(fcp.CodeDenied, "audit head of %.16s: %w", h.o.Feed.Writer, ReasonSignatureMissing)
}

// VerifyHead decodes a head, checks the writer's signature with the key whose hash
// the writer id is, and each witness's with the key that witnesses gives it. nil
// witnesses know nobody.
func VerifyHead(b []byte, witnesses Signers) (*AuditHead, error) {
	h, err := decodeHead(b)
	if err != nil {
		return nil, err
	}
	return h, h.verify(witnesses)
}

func decodeHead(b []byte) (*AuditHead, error) {
	var o headObject
	if len(b) > MaxSignedObject {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an audit head of %d bytes", len(b))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaAuditHead, b, &o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	message, value, err := cutField(b, signaturesField)
	if err != nil || value == nil {
		return nil, fcp.Errorf(fcp.CodeMissingField, "audit head: %w", ReasonSignatureMissing)
	}
	return &AuditHead{o: o, message: message}, nil
}

// VerifyWitnesses checks the signatures of a head from OpenHead, but for the writer's,
// as VerifyHead does.
func (h *AuditHead) VerifyWitnesses(witnesses Signers) error {
	var others signatureSet
	for _, s := range h.o.Signatures.Signatures {
		if w, _ := s.Writer(); w != h.o.Feed.Writer {
			others.Signatures = append(others.Signatures, s)
		}
	}
	if witnesses == nil {
		witnesses = func(fcp.WriterID) (SigningPublic, bool) { return SigningPublic{}, false }
	}
	_, err := others.verify(h.message, witnesses)
	return err
}

func (h *AuditHead) verify(witnesses Signers) error {
	signers, err := h.o.Signatures.verify(h.message, func(w fcp.WriterID) (SigningPublic, bool) {
		if w == h.o.Feed.Writer {
			return h.o.Signer, true
		}
		if witnesses == nil {
			return SigningPublic{}, false
		}
		return witnesses(w)
	})
	if err != nil {
		return err
	}
	for _, w := range signers {
		if w == h.o.Feed.Writer {
			return nil
		}
	}
	return fcp.Errorf(fcp.CodeDenied, "audit head of %.16s: %w", h.o.Feed.Writer, ReasonSignatureMissing)
}

// Cosign returns the head with the node's signature besides. Ask Witness.Check
// first. CodeConflict when the node has signed already.
func (h *AuditHead) Cosign(node *NodeKeys, at time.Time) (*AuditHead, error) {
	s, err := unixSeconds(at)
	if err != nil {
		return nil, err
	}
	out := &AuditHead{o: h.o, message: h.message}
	set := signatureSet{append([]NodeSignature(nil), h.o.Signatures.Signatures...)}
	out.o.Signatures = &set
	return out, set.add(signNode(node, h.message, s))
}

// Merge returns the head with the signatures of both. CodeConflict when they are
// not the same head.
func (h *AuditHead) Merge(o *AuditHead) (*AuditHead, error) {
	if h.Ref() != o.Ref() {
		return nil, fcp.Errorf(fcp.CodeConflict, "two different audit heads")
	}
	set := signatureSet{append([]NodeSignature(nil), h.o.Signatures.Signatures...)}
	set.merge(o.o.Signatures)
	out := &AuditHead{o: h.o, message: h.message}
	out.o.Signatures = &set
	return out, nil
}

func (o *headObject) check() error {
	if err := checkCommon(fcp.SchemaAuditHead, o.Format, o.At); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid() || o.Feed.Zone != o.Zone:
		return fcp.Errorf(fcp.CodeZone, "audit head in %.64q", string(o.Zone))
	case !fcp.Plane(o.Feed.Plane).Chained():
		return fcp.Errorf(fcp.CodeWrongPlane, "audit head of plane %d", o.Feed.Plane)
	case o.Size == 0 || o.Size > math.MaxInt64 || o.Hash.IsZero() || o.Root.IsZero():
		return fcp.Errorf(fcp.CodeMalformed, "audit head of %d events without a hash or root", o.Size)
	case o.Epoch > o.At/uint64(fcp.EpochLength/time.Second):
		return fcp.Errorf(fcp.CodeMalformed, "audit head of an epoch that has not begun")
	case fcp.WriterOf(o.Signer[:]) != o.Feed.Writer:
		return fcp.Errorf(fcp.CodeWrongKey, "audit head with a key that is not the writer's")
	}
	return nil
}

// Reasons for refusing an audit head.
const (
	ReasonHeadRollback fcp.Reason = "audit.rollback"     // shorter than one seen before
	ReasonHeadFork     fcp.Reason = "audit.fork"         // not a continuation: evidence
	ReasonHeadProof    fcp.Reason = "audit.no_proof"     // the proof of consistency is missing or broken
	ReasonHeadFuture   fcp.Reason = "audit.future_clock" // its time is too far ahead
)

// Witness remembers the longest head of each feed that a node has seen, so that it
// signs no second history. The zero value has seen nothing. Not safe for
// concurrent use.
type Witness struct {
	seen map[fcp.Feed]*AuditHead
}

// Last returns the longest head seen of a feed; nil for none.
func (w *Witness) Last(feed fcp.Feed) *AuditHead { return w.seen[feed] }

// Check looks whether a head continues the longest one seen: proof is the RFC 6962
// consistency proof from that size to this one, nil when nothing was seen before.
// With a nil error the head is remembered. Reasons: ReasonHeadFork, for which both
// heads are evidence; ReasonHeadRollback for an older head that is no fork;
// ReasonHeadProof; ReasonHeadFuture.
func (w *Witness) Check(h *AuditHead, proof []fcp.Hash, now time.Time) error {
	if fromUnix(h.o.At).Sub(now) > MaxSkew {
		return fcp.Errorf(fcp.CodeFuture, "audit head of %.16s: %w", h.o.Feed.Writer, ReasonHeadFuture)
	}
	feed := h.Feed()
	last := w.seen[feed]
	if last != nil {
		if err := continues(last, h, proof); err != nil {
			return err
		}
	}
	if w.seen == nil {
		w.seen = map[fcp.Feed]*AuditHead{}
	}
	w.seen[feed] = h
	return nil
}

func continues(last, next *AuditHead, proof []fcp.Hash) error {
	refuse := func(code fcp.Code, r fcp.Reason) error {
		return fcp.Errorf(code, "audit head of %.16s with %d events after one with %d: %w", next.o.Feed.Writer, next.o.Size, last.o.Size, r)
	}
	switch {
	case next.o.Size == last.o.Size && (next.o.Root != last.o.Root || next.o.Hash != last.o.Hash):
		return refuse(fcp.CodeEquivocation, ReasonHeadFork)
	case next.o.Size == last.o.Size:
		return nil
	case next.o.Size < last.o.Size:
		return refuse(fcp.CodeDenied, ReasonHeadRollback)
	}
	if len(proof) == 0 || len(proof) > maxTreeProof {
		return refuse(fcp.CodeDenied, ReasonHeadProof)
	}
	err := tlog.CheckTree(toTlog(proof), int64(next.o.Size), tlog.Hash(next.o.Root), int64(last.o.Size), tlog.Hash(last.o.Root))
	if err != nil {
		return refuse(fcp.CodeDenied, ReasonHeadProof)
	}
	return nil
}

// maxTreeProof is the most hashes a proof over 2^63 leaves has.
const maxTreeProof = 64

func toTlog(in []fcp.Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i := range in {
		out[i] = tlog.Hash(in[i])
	}
	return out
}
