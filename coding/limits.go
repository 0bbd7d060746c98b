package coding

import "fcp/coding/internal/rfc6330"

// inactiveLimit bounds the inactive symbols, and with them the memory and time
// of elimination. Random symbol sets stay far below: at K = 50,000 about 1,000
// symbols are inactive and the limit is above 4,500. Sets chosen to be dense
// are refused with a request for more symbols.
func inactiveLimit(b *rfc6330.Block) int {
	return int(min(b.L, b.P+1024+b.W/16))
}
