package authority

import (
	"crypto/sha256"
	"encoding/binary"
	"math"

	"golang.org/x/mod/sumdb/tlog"

	"fcp"
)

// forkObject is ForkProof on the wire: two heads that the writer signed, and the
// two events at which they part, with their inclusion proofs.
type forkObject struct {
	Format uint64     `cbor:"format"`
	Zone   fcp.ZoneID `cbor:"zone_id"`
	Seq    uint64     `cbor:"seq"`    // the first number at which the branches differ
	HeadA  []byte     `cbor:"head_a"` // audit heads with the writer's signature alone
	HeadB  []byte     `cbor:"head_b"`
	LeafA  []byte     `cbor:"leaf_a"` // leaf data of the event (docs/format.md "Event hash")
	LeafB  []byte     `cbor:"leaf_b"`
	PathA  []fcp.Hash `cbor:"path_a"` // RFC 6962 audit path, from the leaf up
	PathB  []fcp.Hash `cbor:"path_b"`
}

// Fork is a proven fork, made by VerifyFork: the writer signed two histories of one
// feed that part at Seq. It needs nobody's word: the writer's own signatures
// convict it, and nobody else.
type Fork struct {
	o    forkObject
	feed fcp.Feed
}

// Feed returns the forked feed.
func (f *Fork) Feed() fcp.Feed { return f.feed }

// Seq returns the first number at which the two branches differ: everything from
// there on is void.
func (f *Fork) Seq() uint64 { return f.o.Seq }

// Branch is one side of a fork: a signed head, the leaf data of the event at the
// fork, and its audit path to the head's root.
type Branch struct {
	Head *AuditHead
	Leaf []byte
	Path []fcp.Hash
}

// ProveFork makes the proof of two branches that part at seq. It depends only on
// the two branches, not on their order. It fails like VerifyFork when they prove
// nothing.
func ProveFork(seq uint64, a, b Branch) ([]byte, error) {
	x, err := a.Head.alone()
	if err != nil {
		return nil, err
	}
	y, err := b.Head.alone()
	if err != nil {
		return nil, err
	}
	if string(x) > string(y) {
		a, b, x, y = b, a, y, x
	}
	o := forkObject{Format: ObjectFormat, Zone: a.Head.o.Zone, Seq: seq, HeadA: x, HeadB: y, LeafA: a.Leaf, LeafB: b.Leaf, PathA: a.Path, PathB: b.Path}
	out, err := fcp.MarshalPayload(fcp.SchemaForkProof, &o)
	if err != nil {
		return nil, err
	}
	_, err = VerifyFork(out)
	return out, err
}

// alone returns the head with the writer's signature only.
func (h *AuditHead) alone() ([]byte, error) {
	if h.evidence != nil {
		return h.evidence, nil
	}
	o := h.o
	o.Signatures = nil
	for i := range h.o.Signatures.Signatures {
		if w, _ := h.o.Signatures.Signatures[i].Writer(); w == h.o.Feed.Writer {
			o.Signatures = &signatureSet{h.o.Signatures.Signatures[i : i+1]}
		}
	}
	return fcp.MarshalPayload(fcp.SchemaAuditHead, &o)
}

// ReasonForkUnproven is the reason for refusing a proof that proves nothing.
const ReasonForkUnproven fcp.Reason = "audit.fork_unproven"

// VerifyFork checks a proof: both heads are signed by the writer, both are of one
// feed, both leaves are the event seq in their trees, they follow the same event
// and they differ. CodeDenied with ReasonForkUnproven when not; CodeMalformed,
// CodeSchema, CodeVersion, CodeSignature for what is no proof at all.
func VerifyFork(b []byte) (*Fork, error) {
	var o forkObject
	if len(b) > MaxSignedObject {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a fork proof of %d bytes", len(b))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaForkProof, b, &o); err != nil {
		return nil, err
	}
	if err := checkCommon(fcp.SchemaForkProof, o.Format, 0); err != nil {
		return nil, err
	}
	x, err := openEvidence(o.HeadA)
	if err != nil {
		return nil, err
	}
	y, err := openEvidence(o.HeadB)
	if err != nil {
		return nil, err
	}
	unproven := fcp.Errorf(fcp.CodeDenied, "fork of %.16s at %d: %w", x.o.Feed.Writer, o.Seq, ReasonForkUnproven)
	if x.Feed() != y.Feed() || x.o.Zone != o.Zone {
		return nil, unproven
	}
	if string(o.HeadA) >= string(o.HeadB) {
		return nil, fcp.Errorf(fcp.CodeNonCanonical, "a fork proof with its branches in the wrong order")
	}
	prevA, ok := leafIn(x, o.Seq, o.LeafA, o.PathA)
	if !ok {
		return nil, unproven
	}
	prevB, ok := leafIn(y, o.Seq, o.LeafB, o.PathB)
	if !ok || prevA != prevB || string(o.LeafA) == string(o.LeafB) {
		return nil, unproven
	}
	return &Fork{o, x.Feed()}, nil
}

// Offsets in the leaf data of an event (docs/format.md "Event hash").
const (
	leafPurpose = "FCP-E1"
	leafSeqAt   = len(leafPurpose) + fcp.HashSize
	leafPrevAt  = leafSeqAt + 16
)

// leafIn checks that leaf is event seq of the head's tree and returns the hash of
// the event before it.
func leafIn(h *AuditHead, seq uint64, leaf []byte, path []fcp.Hash) (prev fcp.Hash, ok bool) {
	if len(leaf) != fcp.LeafSize || string(leaf[:len(leafPurpose)]) != leafPurpose || seq == 0 || seq > h.o.Size || seq > math.MaxInt64 ||
		len(path) > maxTreeProof || binary.BigEndian.Uint64(leaf[leafSeqAt:]) != seq {
		return prev, false
	}
	sum := sha256.Sum256(append([]byte{0}, leaf...))
	if err := tlog.CheckRecord(toTlog(path), int64(h.o.Size), tlog.Hash(h.o.Root), int64(seq-1), tlog.Hash(sum)); err != nil {
		return prev, false
	}
	return fcp.Hash(leaf[leafPrevAt : leafPrevAt+fcp.HashSize]), true
}
