// Package sha256lanes computes SHA-256 (FIPS 180-4) of many short messages, sixteen
// side by side where the processor has AVX-512. One message alone is no faster than
// crypto/sha256, which is used elsewhere.
package sha256lanes

import (
	"crypto/sha256"
	"encoding/binary"
)

// Lanes is how many messages are hashed at once.
const Lanes = 16

// Hasher hashes messages of one length. It can be used again and again. Not safe for
// concurrent use.
type Hasher struct {
	size   int
	stride int
	buf    []byte // Lanes padded messages
	state  [8][Lanes]uint32
}

// New returns a Hasher for messages of size bytes, at least one.
func New(size int) *Hasher {
	h := &Hasher{size: size, stride: (size + 1 + 8 + 63) &^ 63}
	h.buf = make([]byte, Lanes*h.stride)
	for i := range Lanes { // section 5.1.1
		m := h.buf[i*h.stride : (i+1)*h.stride]
		m[size] = 0x80
		binary.BigEndian.PutUint64(m[h.stride-8:], uint64(size)*8)
	}
	return h
}

// Message returns where message i, below Lanes, is to be written before Sum. It has
// what was written last until then.
func (h *Hasher) Message(i int) []byte {
	return h.buf[i*h.stride:][:h.size:h.size]
}

// first is the initial hash value of section 5.3.3.
var first = [8]uint32{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}

// Sum writes the hashes of the first len(out) messages, at most Lanes.
func (h *Hasher) Sum(out [][32]byte) {
	if !sideBySide || len(out) < 4 { // a few are faster alone
		for i := range out {
			out[i] = sha256.Sum256(h.Message(i))
		}
		return
	}
	start(&h.state)
	compress(&h.state, &h.buf[0], uintptr(h.stride), uintptr(h.stride/64))
	for i := range out {
		read(&h.state, i, &out[i])
	}
}

func start(state *[8][Lanes]uint32) {
	for w := range first {
		for i := range Lanes {
			state[w][i] = first[w]
		}
	}
}

// read takes the hash of message i out of the state.
func read(state *[8][Lanes]uint32, i int, out *[32]byte) {
	for w := range first {
		binary.BigEndian.PutUint32(out[4*w:], state[w][i])
	}
}
