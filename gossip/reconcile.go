package gossip

import (
	"github.com/RoaringBitmap/roaring/v2"
)

// known is what somebody has of a feed: events 1 to seq, and extras beyond.
type known struct {
	seq    uint64
	extras *roaring.Bitmap // distances to seq, from 2; nil: none
}

// lacks returns the events that other has and k lacks, in order. It looks at most
// MaxExtra events beyond what both have.
func (k known) lacks(other known) (out []Range) {
	add := func(first, last uint64) {
		for at := first; at <= last; {
			if k.has(at) {
				at++
				continue
			}
			end := at
			for end < last && !k.has(end+1) {
				if k.extras == nil || end-k.seq >= MaxExtra { // nothing is held from here on
					end = last
					break
				}
				end++
			}
			if n := len(out); n > 0 && out[n-1].Last+1 == at {
				out[n-1].Last = end
			} else {
				out = append(out, Range{at, end})
			}
			if end == last {
				return // also where last+1 is no number
			}
			at = end + 1
		}
	}
	if other.seq > k.seq {
		add(k.seq+1, other.seq)
	}
	if other.extras != nil && other.seq <= maxSeq {
		for first, end := range other.extras.Ranges() {
			from, to := other.seq+uint64(first), other.seq+end-1
			if to > k.seq {
				add(max(from, k.seq+1), to)
			}
		}
	}
	return out
}

// has reports whether the event is held.
func (k known) has(seq uint64) bool {
	switch {
	case seq <= k.seq:
		return true
	case k.extras == nil || seq-k.seq > MaxExtra:
		return false
	}
	return k.extras.Contains(uint32(seq - k.seq))
}
