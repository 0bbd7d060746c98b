package log

import (
	"encoding/binary"
	"slices"
	"sync"

	"fcp"
	"fcp/internal/sha256lanes"
)

// A block is a packed run of consecutive events of one feed under one
// checkpoint (docs/format.md "Block"): what a commit group adds to a feed, and
// again the unit inside a sealed segment. It leaves out what can be derived:
// feed, sequence numbers, previous hashes but the first.
//
//	version u8 = 1 | flags u8 (1: chained) | uvarint first | uvarint count
//	| prev[32] if chained | under[32] | uvarint time of the first event
//	| count x (uvarint time step | uvarint length | content)
//
// A sparse block, version 2, is part of a compacted segment: a record of length 0
// stands for an event that was dropped, and the event's hash[32] follows.

const (
	blockVersion  = 1
	sparseVersion = 2
	flagChained   = 1

	maxBlockCount = 1 << 20
	maxBlockBytes = fcp.MaxSegment * 2
)

type blockHeader struct {
	first   uint64
	count   int
	chained bool
	sparse  bool // version 2
	prev    fcp.Hash
	under   fcp.Hash
	time    fcp.Time
}

func uvarintSize(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func (h *blockHeader) size() int {
	n := 2 + uvarintSize(h.first) + uvarintSize(uint64(h.count)) + fcp.HashSize + uvarintSize(uint64(h.time))
	if h.chained {
		n += fcp.HashSize
	}
	return n
}

func (h *blockHeader) appendTo(b []byte) []byte {
	b = append(b, blockVersion, 0)
	if h.sparse {
		b[len(b)-2] = sparseVersion
	}
	if h.chained {
		b[len(b)-1] = flagChained
	}
	b = binary.AppendUvarint(b, h.first)
	b = binary.AppendUvarint(b, uint64(h.count))
	if h.chained {
		b = append(b, h.prev[:]...)
	}
	b = append(b, h.under[:]...)
	return binary.AppendUvarint(b, uint64(h.time))
}

var errBlock = fcp.Errorf(fcp.CodeCorrupt, "a block of events does not decode")

// parseBlock decodes a block's header and returns the records behind it.
func parseBlock(b []byte) (h blockHeader, records []byte, err error) {
	if len(b) < 2 || len(b) > maxBlockBytes {
		return h, nil, errBlock
	}
	if b[0] != blockVersion && b[0] != sparseVersion {
		return h, nil, fcp.Errorf(fcp.CodeVersion, "event block version %d, this build knows %d and %d", b[0], blockVersion, sparseVersion)
	}
	h.chained, h.sparse = b[1]&flagChained != 0, b[0] == sparseVersion
	if b[1]&^flagChained != 0 || h.sparse && !h.chained {
		return h, nil, errBlock
	}
	r := reader{b: b[2:]}
	h.first = r.uvarint()
	count := r.uvarint()
	if h.chained {
		h.prev = r.hash()
	}
	h.under = r.hash()
	h.time = fcp.Time(r.uvarint())
	if r.bad || h.first == 0 || count == 0 || count > maxBlockCount || count > uint64(len(r.b)/4) {
		return h, nil, errBlock
	}
	h.count = int(count)
	return h, r.b, nil
}

// record is one event inside a block, undecoded.
type record struct {
	time    fcp.Time
	content []byte
	dropped bool // content is the hash of an event that was dropped
}

// recordIter walks the records of a block.
type recordIter struct {
	rest []byte
	time fcp.Time
	left int
	head bool // the next record is the first

	sparse bool
}

func newRecordIter(h *blockHeader, records []byte) recordIter {
	return recordIter{rest: records, time: h.time, left: h.count, head: true, sparse: h.sparse}
}

// next returns the next record. ok is false at the end or on damage; tell them
// apart with finished.
func (it *recordIter) next() (r record, ok bool) {
	if it.left == 0 {
		return r, false
	}
	step, n := uvarint(it.rest)
	if n == 0 || (step == 0) != it.head {
		return r, false
	}
	length, m := uvarint(it.rest[n:])
	if m == 0 || length > uint64(len(it.rest)-n-m) {
		return r, false
	}
	t := it.time + fcp.Time(step)
	if t < it.time {
		return r, false
	}
	it.time, it.head = t, false
	it.left--
	body := it.rest[n+m:]
	if length == 0 && it.sparse {
		if len(body) < fcp.HashSize {
			it.left++ // damage, not the end
			return r, false
		}
		it.rest = body[fcp.HashSize:]
		return record{time: t, content: body[:fcp.HashSize:fcp.HashSize], dropped: true}, true
	}
	it.rest = body[length:]
	return record{time: t, content: body[:length:length]}, true
}

func (it *recordIter) finished() bool { return it.left == 0 && len(it.rest) == 0 }

// appendRecord appends one record; step is 0 for the first of a block only.
func appendRecord(b []byte, step uint64, content []byte) []byte {
	b = binary.AppendUvarint(b, step)
	b = binary.AppendUvarint(b, uint64(len(content)))
	return append(b, content...)
}

func recordSize(step uint64, content int) int {
	return uvarintSize(step) + uvarintSize(uint64(content)) + content
}

// hashedAtOnce is how many events of a block decodeBlock hashes together.
const hashedAtOnce = 4 * sha256lanes.Lanes

var contentHashers = sync.Pool{New: func() any { return new(fcp.ContentHasher) }}

// decodeBlock decodes all events of a block into dst[:0]-style storage. With
// verify at VerifyChain or more it computes the hashes; last is then the hash of
// the last event. Contents alias b.
func decodeBlock(dst []Applied, no FeedNo, id *fcp.FeedID, b []byte, verify VerifyLevel) (events []Applied, h blockHeader, last fcp.Hash, err error) {
	h, records, err := parseBlock(b)
	if err != nil {
		return dst, h, last, err
	}
	it := newRecordIter(&h, records)
	prev := h.prev
	seq := h.first
	whole := true
	hashed := verify >= VerifyChain && h.chained
	var scope fcp.Hash
	if hashed {
		scope = fcp.ScopeHash(*id, h.under)
	}
	var sums *fcp.ContentHasher
	if hashed {
		sums = contentHashers.Get().(*fcp.ContentHasher)
		defer contentHashers.Put(sums)
	}
	for ok := true; ok && it.left > 0; {
		// A few events at once: their contents are hashed side by side, and dst must
		// not move before that is done.
		n := min(it.left, hashedAtOnce)
		dst = slices.Grow(dst, n)
		from := len(dst)
		for len(dst) < from+n {
			var rec record
			if rec, ok = it.next(); !ok {
				break
			}
			dst = dst[:len(dst)+1]
			e := &dst[len(dst)-1]
			e.Placed = Placed{Feed: no, Seq: seq, Time: rec.time}
			e.Under = h.under
			seq++
			if rec.dropped {
				e.Content, e.Hash = fcp.Content{}, fcp.Hash(rec.content)
				continue
			}
			if err := fcp.DecodeContent(rec.content, &e.Content); err != nil {
				if hashed {
					sums.Flush() // keeps nothing of dst
				}
				return dst, h, last, fcp.Wrap(fcp.CodeCorrupt, err, "event %d", e.Seq)
			}
			if hashed {
				sums.Add(&e.Hash, rec.content)
			}
		}
		if hashed {
			sums.Flush()
		}
		for i := from; i < len(dst); i++ {
			e := &dst[i]
			switch {
			case e.Dropped():
				prev, whole = e.Hash, false
			case hashed:
				prev = fcp.EventHash(scope, e.Seq, e.Time, prev, e.Hash)
				e.Hash = prev
			}
		}
	}
	if !it.finished() || h.sparse == whole { // a block that lacks nothing has version 1
		return dst, h, last, errBlock
	}
	return dst, h, prev, nil
}
