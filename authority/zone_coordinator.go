package authority

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/zeebo/blake3"

	"fcp"
)

// CoordinatorWeight is a node's rendezvous weight for a zone's checkpoint of an
// epoch: the first 8 bytes, little-endian, of BLAKE3-256("FCP2-HRW-CHECKPOINT-V1" ||
// zone || "|checkpoint|" || epoch || "|" || node) (spec/wire.md section 12).
func CoordinatorWeight(zone fcp.ZoneID, epoch, node string) uint64 {
	h := blake3.New()
	for _, s := range []string{"FCP2-HRW-CHECKPOINT-V1", string(zone), "|checkpoint|", epoch, "|", node} {
		h.WriteString(s)
	}
	return binary.LittleEndian.Uint64(h.Sum(nil)[:8])
}

// Coordinators returns the nodes in the order in which they are to propose the
// zone's checkpoint of an epoch: the highest weight first, equal weights by node
// id. It is a hint about who begins; a proposal of any member is as good.
func Coordinators(zone fcp.ZoneID, epoch string, nodes []string) []string {
	out := slices.Clone(nodes)
	slices.SortFunc(out, func(a, b string) int {
		return cmp.Or(cmp.Compare(CoordinatorWeight(zone, epoch, b), CoordinatorWeight(zone, epoch, a)), cmp.Compare(a, b))
	})
	return out
}
