package authority

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"slices"

	"fcp"
)

// Tier says how much harm an operation can do (spec/wire.md section 15).
type Tier string

// The closed set of tiers, from harmless to never.
const (
	TierSafe      Tier = "safe"
	TierRisky     Tier = "risky"
	TierDangerous Tier = "dangerous"
	TierCritical  Tier = "critical"
	TierForbidden Tier = "forbidden"
)

var tierRanks = map[Tier]int{TierSafe: 1, TierRisky: 2, TierDangerous: 3, TierCritical: 4, TierForbidden: 5}

// Valid reports whether the tier is in the set.
func (t Tier) Valid() bool { return tierRanks[t] > 0 }

// AtLeast reports whether t is at least as harmful as o. A tier outside the set is
// as harmful as the worst.
func (t Tier) AtLeast(o Tier) bool { return t.rank() >= o.rank() }

func (t Tier) rank() int {
	if r := tierRanks[t]; r > 0 {
		return r
	}
	return tierRanks[TierForbidden]
}

// MaxMembers limits the members of a quorum and the signatures of one object.
const MaxMembers = 256

// Quorum says how many of N members must agree when up to F of them may lie.
type Quorum struct {
	N int // members, 1 to MaxMembers
	F int // faulty members to survive, 0 to (N-1)/3
}

// Valid reports whether F liars can be survived at all: N > 3F.
func (q Quorum) Valid() bool { return q.N >= 1 && q.N <= MaxMembers && q.F >= 0 && q.N > 3*q.F }

// Required returns how many members must agree to an operation of the tier: one
// for a safe one, F+1 for a risky one (at least one is honest), N-F for anything
// above (spec/wire.md section 15).
func (q Quorum) Required(t Tier) int {
	switch t {
	case TierSafe:
		return 1
	case TierRisky:
		return q.F + 1
	}
	return q.N - q.F
}

// Intersecting returns ceil((N+F+1)/2): any two sets of that many members have an
// honest member in common, so two different answers to one question cannot both
// reach it. Checkpoints, audit heads and leases need it.
func (q Quorum) Intersecting() int { return (q.N + q.F + 2) / 2 }

// Availability says how many members a zone reaches just now.
type Availability struct {
	Degraded  bool // the zone runs in explicit degraded mode
	Available int
	Minimum   int // below it nothing proceeds
}

// CanProceed reports whether an operation may go on: in degraded mode only a safe
// one, and only while the minimum is reached.
func (a Availability) CanProceed(t Tier) bool {
	return !a.Degraded || t == TierSafe && a.Available >= a.Minimum
}

// Reasons for refusing a set of signatures.
const (
	ReasonSignatureDuplicate fcp.Reason = "signatures.duplicate"  // one node twice
	ReasonSignatureOrder     fcp.Reason = "signatures.unsorted"   // not ascending by node
	ReasonSignatureMissing   fcp.Reason = "signatures.missing"    // none, or not the one that must be there
	ReasonSignatureInvalid   fcp.Reason = "signatures.invalid"    // one does not verify
	ReasonSignerUnknown      fcp.Reason = "signatures.not_member" // of a node that has no say
	ReasonQuorum             fcp.Reason = "signatures.quorum"     // too few
)

// NodeSignature is one node's signature of an object with several.
type NodeSignature struct {
	Node      string                      `cbor:"node_id"` // writer id, 64 lower-case hex digits
	Signature [ed25519.SignatureSize]byte `cbor:"signature"`
	SignedAt  uint64                      `cbor:"signed_at"` // unix seconds; not covered by the signature
}

// Writer returns the signer; ok is false when Node is no writer id.
func (s *NodeSignature) Writer() (w fcp.WriterID, ok bool) {
	h, err := fcp.ParseHash(s.Node)
	return fcp.WriterID(h), err == nil && h.String() == s.Node
}

// signatureSet is quorum_signatures on the wire (spec/wire.md section 4).
type signatureSet struct {
	Signatures []NodeSignature `cbor:"signatures"` // strictly ascending by node
}

// add puts a signature in its place. A second one of the same node is refused.
func (s *signatureSet) add(n NodeSignature) error {
	i, there := slices.BinarySearchFunc(s.Signatures, n.Node, func(e NodeSignature, id string) int { return cmp.Compare(e.Node, id) })
	if there {
		return fcp.Errorf(fcp.CodeConflict, "%.16s has signed already: %w", n.Node, ReasonSignatureDuplicate)
	}
	s.Signatures = slices.Insert(s.Signatures, i, n)
	return nil
}

// merge adds the signatures of o that are new. The result does not depend on the
// order of merging: of two of one node the lower bytes stay.
func (s *signatureSet) merge(o *signatureSet) {
	for _, n := range o.Signatures {
		i, there := slices.BinarySearchFunc(s.Signatures, n.Node, func(e NodeSignature, id string) int { return cmp.Compare(e.Node, id) })
		switch {
		case !there:
			s.Signatures = slices.Insert(s.Signatures, i, n)
		case compareSignatures(&n, &s.Signatures[i]) < 0:
			s.Signatures[i] = n
		}
	}
}

func compareSignatures(a, b *NodeSignature) int {
	return cmp.Or(bytes.Compare(a.Signature[:], b.Signature[:]), cmp.Compare(a.SignedAt, b.SignedAt))
}

// check looks at order, duplicates and ids, not at the signatures themselves.
func (s *signatureSet) check() error {
	if len(s.Signatures) > MaxMembers {
		return fcp.Errorf(fcp.CodeTooLarge, "%d signatures, the limit is %d", len(s.Signatures), MaxMembers)
	}
	for i := range s.Signatures {
		n := &s.Signatures[i]
		if _, ok := n.Writer(); !ok || n.SignedAt > maxUnixSeconds {
			return fcp.Errorf(fcp.CodeMalformed, "signature %d has no writer id or time", i)
		}
		if i == 0 {
			continue
		}
		switch before := s.Signatures[i-1].Node; {
		case before == n.Node:
			return fcp.Errorf(fcp.CodeMalformed, "two signatures of %.16s: %w", n.Node, ReasonSignatureDuplicate)
		case before > n.Node:
			return fcp.Errorf(fcp.CodeMalformed, "signature %d: %w", i, ReasonSignatureOrder)
		}
	}
	return nil
}

// Signers resolves a writer to its signing key. The key must be the one whose hash
// the writer id is; verify checks that again.
type Signers func(fcp.WriterID) (SigningPublic, bool)

// verify checks every signature over message. One that does not verify, or of a
// node that keys does not know, refuses the whole object: nobody puts a signature
// on what he does not mean.
func (s *signatureSet) verify(message []byte, keys Signers) ([]fcp.WriterID, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	out := make([]fcp.WriterID, 0, len(s.Signatures))
	for i := range s.Signatures {
		n := &s.Signatures[i]
		w, _ := n.Writer()
		key, ok := keys(w)
		switch {
		case !ok || fcp.WriterOf(key[:]) != w:
			return nil, fcp.Errorf(fcp.CodeDenied, "signature of %.16s: %w", n.Node, ReasonSignerUnknown)
		case !key.Verify(message, n.Signature[:]):
			return nil, fcp.Errorf(fcp.CodeSignature, "signature of %.16s: %w", n.Node, ReasonSignatureInvalid)
		}
		out = append(out, w)
	}
	return out, nil
}

// signNode returns the node's signature of message.
func signNode(node *NodeKeys, message []byte, at uint64) NodeSignature {
	return NodeSignature{Node: node.Writer().String(), Signature: [64]byte(node.Sign(message)), SignedAt: at}
}
