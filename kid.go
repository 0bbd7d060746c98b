package fcp

import (
	"crypto/ed25519"
	"encoding/hex"
	"sync"

	"github.com/zeebo/blake3"
)

// KidSize is the length in bytes of a key id.
const KidSize = 8

// Kid is the short id of a public key (spec/wire.md section 3.4). It routes a
// signature to a key and proves nothing: 64 bits can be made to collide.
type Kid [KidSize]byte

// String returns 16 lower-case hex digits.
func (k Kid) String() string { return hex.EncodeToString(k[:]) }

// KidOf returns the first 8 bytes of BLAKE3-256("fcp.kid.v2" || key), the same
// for Ed25519 and X25519 public keys.
func KidOf(pub []byte) Kid {
	h := taggedHash("fcp.kid.v2", pub)
	return Kid(h[:KidSize])
}

// WriterOf returns the WriterID of a node signing key:
// BLAKE3-256("FCP2-WRITER-V1" || key).
func WriterOf(key ed25519.PublicKey) WriterID {
	return WriterID(taggedHash("FCP2-WRITER-V1", []byte(key)))
}

// A blake3.Hasher is 10 KiB, so hashers are kept; Reset makes one like new.
var hashers = sync.Pool{New: func() any { return blake3.New() }}

// taggedHash returns BLAKE3-256(tag || content), unkeyed.
func taggedHash[T string | []byte](tag string, content T) Hash {
	h := hashers.Get().(*blake3.Hasher)
	h.Reset()
	h.WriteString(tag)
	h.WriteString(string(content))
	var out Hash
	h.Sum(out[:0])
	hashers.Put(h)
	return out
}
