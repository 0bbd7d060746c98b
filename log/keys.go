package log

import (
	"encoding/binary"

	"fcp"
)

// Keys of the log's Pebble store (docs/format.md "Log keys"). All integers are
// big-endian so that byte order is number order.
const (
	keyMeta     = 'm' // -> meta
	keyFeed     = 'f' // feed no -> encoded feed
	keyHead     = 'h' // feed no -> head record, written every few thousand events
	keyEnd      = 'e' // feed no -> head record at the end of the last segment
	keyHot      = 'g' // feed no, first seq -> position, block
	keySalts    = 'k' // feed no, first seq -> salts, 16 bytes each
	keyPosition = 'p' // position -> feed no, first seq, count
	keyNode     = 't' // feed no, level, index -> Merkle node hash
	keyFrame    = 's' // segment no, frame -> ciphertext frame
	keySegment  = 'r' // segment no -> remainder
	keySealed   = 'i' // feed no, first seq -> segment no, last seq, positions
	keyByID     = 'c' // segment id -> segment no
	keyReplaced = 'd' // id of a segment that was compacted -> id of the one in its place
	keyHorizon  = 'y' // feed no -> hybrid time below which events were dropped, last compacted segment no
)

func key1(prefix byte, a uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, a)
}

func keyOfFeed(prefix byte, no FeedNo) []byte {
	return binary.BigEndian.AppendUint32([]byte{prefix}, uint32(no))
}

const feedSeqKeySize = 1 + 4 + 8

func keyOfSeq(prefix byte, no FeedNo, seq uint64) []byte {
	b := make([]byte, 0, feedSeqKeySize)
	return appendSeqKey(b, prefix, no, seq)
}

func appendSeqKey(b []byte, prefix byte, no FeedNo, seq uint64) []byte {
	b = binary.BigEndian.AppendUint32(append(b, prefix), uint32(no))
	return binary.BigEndian.AppendUint64(b, seq)
}

func splitSeqKey(k []byte) (FeedNo, uint64) {
	return FeedNo(binary.BigEndian.Uint32(k[1:5])), binary.BigEndian.Uint64(k[5:13])
}

func keyOfNode(no FeedNo, level uint8, index uint64) []byte {
	b := binary.BigEndian.AppendUint32([]byte{keyNode}, uint32(no))
	return binary.BigEndian.AppendUint64(append(b, level), index)
}

func keyOfFrame(segment uint64, frame uint32) []byte {
	b := binary.BigEndian.AppendUint64([]byte{keyFrame}, segment)
	return binary.BigEndian.AppendUint32(b, frame)
}

func keyOfID(id fcp.SegmentID) []byte { return append([]byte{keyByID}, id[:]...) }

func keyOfReplaced(id fcp.SegmentID) []byte { return append([]byte{keyReplaced}, id[:]...) }

// uvarints reads n minimal unsigned varints, or fails.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n <= 0 || (n > 1 && b[n-1] == 0) { // overlong forms are not canonical
		return 0, 0
	}
	return v, n
}

// reader takes varints off a buffer; bad is sticky.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := uvarint(r.b)
	if n == 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.bad = true
		return make([]byte, n) // n is a small constant or a byte
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) hash() (h fcp.Hash) {
	if len(r.b) < fcp.HashSize {
		r.bad = true
		return h
	}
	copy(h[:], r.b)
	r.b = r.b[fcp.HashSize:]
	return h
}

func (r *reader) done() bool { return !r.bad && len(r.b) == 0 }
