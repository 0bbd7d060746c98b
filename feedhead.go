package fcp

import "encoding/binary"

// FeedHeadMessage returns what a feed's writer signs to say how far the feed goes:
// "FCP2-FEED-HEAD-V1" || feed id || u64be seq || hash of event seq || Merkle root
// over seq leaves (docs/format.md "Feed head").
func FeedHeadMessage(feed FeedID, seq uint64, hash, root Hash) []byte {
	b := append([]byte("FCP2-FEED-HEAD-V1"), feed[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = append(b, hash[:]...)
	return append(b, root[:]...)
}
