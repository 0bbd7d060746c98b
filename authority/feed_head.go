package authority

import (
	"encoding/binary"
	"math"

	"fcp"
)

// Nodes of a mesh tell each other how far their feeds go by heads that the writer
// signs (fcp.FeedHeadMessage). Two that contradict each other convict the writer as
// two audit heads do, so a fork proof takes either kind. As evidence such a head is
//
//	"FCP2-FEED-HEAD-E1" | u8 length of the zone | zone | writer[32] | incarnation u64be |
//	plane u8 | seq u64be | hash[32] | root[32] | signing key of the writer[32] | signature[64]
//
// and nothing after it (docs/format.md "Fork proof"). The form never changes: another
// one would begin otherwise.
const feedHeadMark = "FCP2-FEED-HEAD-E1"

const feedHeadTail = fcp.HashSize + 8 + 1 + 8 + 3*fcp.HashSize + 64

// MeshHead returns a head of the mesh as evidence for ProveFork. Errors: those of
// VerifyFork for a head that its writer did not sign.
func MeshHead(feed fcp.Feed, seq uint64, hash, root fcp.Hash, signer SigningPublic, signature []byte) (*AuditHead, error) {
	b := append([]byte(feedHeadMark), byte(len(feed.Zone)))
	b = append(b, feed.Zone...)
	b = append(b, feed.Writer[:]...)
	b = binary.BigEndian.AppendUint64(b, feed.Incarnation)
	b = append(b, byte(feed.Plane))
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, hash[:]...)
	b = append(b, root[:]...)
	b = append(b, signer[:]...)
	return openFeedHead(append(b, signature...))
}

// openFeedHead decodes and verifies the evidence form.
func openFeedHead(b []byte) (*AuditHead, error) {
	bad := fcp.Errorf(fcp.CodeMalformed, "a feed head of %d bytes", len(b))
	rest := b[min(len(b), len(feedHeadMark)):]
	if len(rest) == 0 || len(rest) != 1+int(rest[0])+feedHeadTail {
		return nil, bad
	}
	zone, rest := fcp.ZoneID(rest[1:1+int(rest[0])]), rest[1+int(rest[0]):]
	take := func(n int) (out []byte) {
		out, rest = rest[:n], rest[n:]
		return out
	}
	f := fcp.Feed{Zone: zone, Writer: fcp.WriterID(take(fcp.HashSize))}
	f.Incarnation, f.Plane = binary.BigEndian.Uint64(take(8)), fcp.Plane(take(1)[0])
	o := headObject{Zone: zone, Feed: feedObject(f), Size: binary.BigEndian.Uint64(take(8))}
	o.Hash, o.Root, o.Signer = fcp.Hash(take(fcp.HashSize)), fcp.Hash(take(fcp.HashSize)), SigningPublic(take(fcp.HashSize))
	switch {
	case !zone.Valid() || !f.Plane.Chained() || o.Size == 0 || o.Size > math.MaxInt64:
		return nil, bad
	case fcp.WriterOf(o.Signer[:]) != f.Writer:
		return nil, fcp.Errorf(fcp.CodeWrongKey, "a feed head with a key that is not the writer's")
	case !o.Signer.Verify(fcp.FeedHeadMessage(f.ID(), o.Size, o.Hash, o.Root), rest):
		return nil, fcp.Errorf(fcp.CodeSignature, "a feed head of %.16s", f.Writer)
	}
	return &AuditHead{o: o, evidence: b}, nil
}

// openEvidence opens either kind of head in a fork proof.
func openEvidence(b []byte) (*AuditHead, error) {
	if len(b) > len(feedHeadMark) && string(b[:len(feedHeadMark)]) == feedHeadMark {
		return openFeedHead(b)
	}
	return VerifyHead(b, nil)
}
