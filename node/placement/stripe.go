package placement

import (
	"encoding/binary"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/coding"
	"fcp/engine/symbols"
)

const (
	// stripeWidth is how far the stripes of two members are apart: Stripe of the largest
	// segment.
	stripeWidth = fcp.MaxSegment/fcp.SymbolSize + symbols.Spare
	// MaxStripes is how many members can have a stripe of their own. The first of the
	// room is left out: the source symbols are there, which whole copies consist of.
	MaxStripes = (coding.MaxESI+1)/stripeWidth - 1
)

// Stripe is how many encoding symbol ids of a segment of k source symbols belong to
// each member: enough to rebuild alone. A share is the beginning of its member's
// stripe, so the shares of two members never overlap whoever planned them and under
// whatever policies, and a policy that asks for more only adds to them.
func Stripe(k int) int { return k + symbols.Spare }

// Stripes returns the encoding symbol id with which the stripe of each member begins,
// the same for every segment; 0 for those for which none is left. members are in the
// order of their enrollment.
//
// A member's stripe is taken from a hash of its id, and so it stays what it is whoever
// is enrolled later or becomes known later, in whatever order. Only of two whose
// hashes meet, one in MaxStripes, the order decides: the later one takes the next hash.
func Stripes(members []fcp.WriterID) []uint32 {
	out := make([]uint32, len(members))
	taken := make(map[uint32]bool, len(members))
	for i := range members {
		for try := uint64(0); out[i] == 0 && len(taken) < MaxStripes; try++ {
			if s := stripeHash(members[i], try); !taken[s] {
				taken[s], out[i] = true, (1+s)*stripeWidth
			}
		}
	}
	return out
}

// stripeHash is the stripe that a member takes at a try, below MaxStripes.
func stripeHash(id fcp.WriterID, try uint64) uint32 {
	const domain = "FCP2-STRIPE-V1"
	b := append(make([]byte, 0, len(domain)+len(id)+8), domain...)
	b = append(b, id[:]...)
	b = binary.BigEndian.AppendUint64(b, try)
	sum := blake3.Sum256(b)
	return uint32(binary.BigEndian.Uint64(sum[:]) % MaxStripes)
}
