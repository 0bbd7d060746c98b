package sha256lanes

import (
	"crypto/sha256"
	"encoding/binary"
)

// MaxQueued is the length of the longest message, prefix included, that a Queue takes:
// longer ones are rare, and no faster side by side.
const MaxQueued = queueBlocks*64 - 9

const queueBlocks = 20

// Queue hashes messages of different lengths, side by side those that take the same
// number of blocks. The zero value is ready for use. Not safe for concurrent use.
type Queue struct {
	waiting [queueBlocks + 1]*row // by number of blocks
	state   [8][Lanes]uint32
}

// row holds padded messages of one number of blocks until there are Lanes of them.
type row struct {
	n    int
	size [Lanes]int
	out  [Lanes]*[32]byte
	buf  []byte
}

// Add will set out to the hash of prefix and message, together at most MaxQueued
// bytes, when Flush returns or earlier. Both may change after the return.
func (q *Queue) Add(out *[32]byte, prefix string, message []byte) {
	size := len(prefix) + len(message)
	blocks := (size + 1 + 8 + 63) / 64
	r := q.waiting[blocks]
	if r == nil {
		r = &row{buf: make([]byte, Lanes*64*blocks)}
		q.waiting[blocks] = r
	}
	m := r.buf[r.n*64*blocks:][: 64*blocks : 64*blocks]
	copy(m[copy(m, prefix):], message)
	m[size] = 0x80 // section 5.1.1
	clear(m[size+1 : len(m)-8])
	binary.BigEndian.PutUint64(m[len(m)-8:], uint64(size)*8)
	r.out[r.n], r.size[r.n] = out, size
	if r.n++; r.n == Lanes {
		q.sum(r, blocks)
	}
}

// Flush sets all that was not set yet.
func (q *Queue) Flush() {
	for blocks, r := range q.waiting {
		if r != nil && r.n > 0 {
			q.sum(r, blocks)
		}
	}
}

func (q *Queue) sum(r *row, blocks int) {
	stride := 64 * blocks
	if !sideBySide || r.n < 4 { // a few are faster alone
		for i := range r.n {
			*r.out[i] = sha256.Sum256(r.buf[i*stride:][:r.size[i]])
		}
	} else {
		start(&q.state)
		compress(&q.state, &r.buf[0], uintptr(stride), uintptr(blocks))
		for i := range r.n {
			read(&q.state, i, r.out[i])
		}
	}
	clear(r.out[:r.n])
	r.n = 0
}
