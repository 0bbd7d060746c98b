package fcp

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"fcp/internal/sha256lanes"
)

// TransmissionInfo is the RFC 6330 FEC object transmission information of a
// coded object (sections 3.3.2 and 3.3.3).
type TransmissionInfo struct {
	F  uint64 // transfer length in bytes, below 2^40
	T  uint16 // symbol size in bytes, a multiple of Al
	Z  uint8  // number of source blocks
	N  uint16 // number of sub-blocks per source block
	Al uint8  // symbol alignment in bytes
}

// TransmissionInfoSize is the length of the encoded form.
const TransmissionInfoSize = 12

// SegmentTransmission returns the transmission information of a segment of n
// ciphertext bytes: one source block, one sub-block, symbols of SymbolSize.
func SegmentTransmission(n uint64) TransmissionInfo {
	return TransmissionInfo{F: n, T: SymbolSize, Z: 1, N: 1, Al: SymbolAlignment}
}

// Bytes returns the 12-byte form: 5 bytes F, one zero, 2 T, 1 Z, 2 N, 1 Al.
func (t TransmissionInfo) Bytes() [TransmissionInfoSize]byte {
	var b [TransmissionInfoSize]byte
	binary.BigEndian.PutUint64(b[:8], t.F<<24)
	b[5] = 0
	binary.BigEndian.PutUint16(b[6:], t.T)
	b[8] = t.Z
	binary.BigEndian.PutUint16(b[9:], t.N)
	b[11] = t.Al
	return b
}

// ParseTransmissionInfo decodes the 12-byte form and refuses parameters that
// cannot describe an object.
func ParseTransmissionInfo(b []byte) (TransmissionInfo, error) {
	if len(b) != TransmissionInfoSize || b[5] != 0 {
		return TransmissionInfo{}, Errorf(CodeMalformed, "transmission information is 12 bytes with the sixth zero")
	}
	t := TransmissionInfo{
		F: binary.BigEndian.Uint64(b[:8]) >> 24,
		T: binary.BigEndian.Uint16(b[6:]),
		Z: b[8], N: binary.BigEndian.Uint16(b[9:]), Al: b[11],
	}
	if t.F == 0 || t.T == 0 || t.Z == 0 || t.N == 0 || t.Al == 0 || t.T%uint16(t.Al) != 0 {
		return TransmissionInfo{}, Errorf(CodeMalformed, "transmission information with a zero or unaligned parameter")
	}
	return t, nil
}

// Symbols returns the number of source symbols, ceil(F/T).
func (t TransmissionInfo) Symbols() int { return int((t.F + uint64(t.T) - 1) / uint64(t.T)) }

// CardFormat is the version of the card's layout and of the segment framing.
const CardFormat = 1

// Card is the public face of a sealed segment: what any holder may know. It is
// signed with the writer's node signing key over the schema hash and the
// canonical encoding without the signature (40-authority "Signing rule").
type Card struct {
	Format    uint64                      `cbor:"format"`
	Segment   SegmentID                   `cbor:"segment"`             // BLAKE3-256 of the ciphertext
	Info      [TransmissionInfoSize]byte  `cbor:"info"`                // RFC 6330 transmission information
	Source    Hash                        `cbor:"source"`              // CommitmentRoot over the source symbols
	Signer    [ed25519.PublicKeySize]byte `cbor:"signer"`              // node signing key
	Signature []byte                      `cbor:"signature,omitempty"` // 64 bytes
}

// CommitmentSize is the length of one symbol commitment: a truncated hash.
const CommitmentSize = 16

const (
	commitmentPurpose = "FCP-S1"
	commitmentHead    = len(commitmentPurpose) + 4
)

// SymbolCommitment returns the commitment to one source symbol of a segment:
// the first 16 bytes of SHA-256("FCP-S1" || u32be esi || symbol). The last
// symbol is hashed without its padding.
func SymbolCommitment(esi uint32, symbol []byte) [CommitmentSize]byte {
	h := sha256.New()
	var head [commitmentHead]byte
	copy(head[:], commitmentPurpose)
	binary.BigEndian.PutUint32(head[len(commitmentPurpose):], esi)
	h.Write(head[:])
	h.Write(symbol)
	var sum Hash
	h.Sum(sum[:0])
	return [CommitmentSize]byte(sum[:])
}

// SourceCommitments returns the concatenated commitments to the source symbols
// of a ciphertext in symbols of size t bytes.
func SourceCommitments(ciphertext []byte, t int) []byte {
	n := (len(ciphertext) + t - 1) / t
	out := make([]byte, 0, n*CommitmentSize)
	whole := len(ciphertext) / t
	manyHashes(whole, commitmentHead+t, func(i int, m []byte) {
		copy(m, commitmentPurpose)
		binary.BigEndian.PutUint32(m[len(commitmentPurpose):], uint32(i))
		copy(m[commitmentHead:], ciphertext[i*t:(i+1)*t])
	}, func(_ int, sums [][HashSize]byte) {
		for i := range sums {
			out = append(out, sums[i][:CommitmentSize]...)
		}
	})
	if whole < n {
		last := SymbolCommitment(uint32(whole), ciphertext[whole*t:])
		out = append(out, last[:]...)
	}
	return out
}

// CommitmentRoot returns the RFC 6962 tree hash over the commitments.
func CommitmentRoot(commitments []byte) Hash {
	n := len(commitments) / CommitmentSize
	if n == 0 {
		return sha256.Sum256(nil)
	}
	level := make([]Hash, n)
	store := func(first int, sums [][HashSize]byte) {
		for i := range sums {
			level[first+i] = sums[i]
		}
	}
	manyHashes(n, 1+CommitmentSize, func(i int, m []byte) {
		m[0] = 0
		copy(m[1:], commitments[i*CommitmentSize:(i+1)*CommitmentSize])
	}, store)
	// A left-to-right pairing that carries an odd last node up gives the tree of
	// RFC 6962 section 2.1: its left subtree is the largest power of two below n.
	for len(level) > 1 {
		pairs := len(level) / 2
		manyHashes(pairs, 1+2*HashSize, func(i int, m []byte) {
			m[0] = 1
			copy(m[1:], level[2*i][:])
			copy(m[1+HashSize:], level[2*i+1][:])
		}, store) // never ahead of what is read
		if len(level)%2 == 1 {
			level[pairs] = level[len(level)-1]
			pairs++
		}
		level = level[:pairs]
	}
	return level[0]
}

// manyHashers keeps hashers by the length of their messages.
var manyHashers sync.Map // of int to *sync.Pool

// manyHashes computes SHA-256 of n messages of size bytes each, several side by side
// where the processor can: fill writes message i, all of it, and take gets the hashes
// from message first on.
func manyHashes(n, size int, fill func(i int, m []byte), take func(first int, sums [][HashSize]byte)) {
	pool, ok := manyHashers.Load(size)
	if !ok {
		pool, _ = manyHashers.LoadOrStore(size, &sync.Pool{New: func() any { return sha256lanes.New(size) }})
	}
	h := pool.(*sync.Pool).Get().(*sha256lanes.Hasher)
	defer pool.(*sync.Pool).Put(h)
	var sums [sha256lanes.Lanes][HashSize]byte
	for first := 0; first < n; first += len(sums) {
		some := sums[:min(n-first, len(sums))]
		for i := range some {
			fill(first+i, h.Message(i))
		}
		h.Sum(some)
		take(first, some)
	}
}

// NodeHash returns the RFC 6962 interior hash SHA-256(0x01 || left || right).
func NodeHash(left, right Hash) Hash {
	var b [1 + 2*HashSize]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[1+HashSize:], right[:])
	return sha256.Sum256(b[:])
}

// cardBody is the signed part of a Card.
type cardBody struct {
	Format  uint64                      `cbor:"format"`
	Segment SegmentID                   `cbor:"segment"`
	Info    [TransmissionInfoSize]byte  `cbor:"info"`
	Source  Hash                        `cbor:"source"`
	Signer  [ed25519.PublicKeySize]byte `cbor:"signer"`
}

// SignedBytes returns the bytes the signature covers.
func (c *Card) SignedBytes() ([]byte, error) {
	return MarshalPayload(SchemaSegmentCard, cardBody{c.Format, c.Segment, c.Info, c.Source, c.Signer})
}

// Encode returns the canonical encoding, schema prefix included.
func (c *Card) Encode() ([]byte, error) { return MarshalPayload(SchemaSegmentCard, c) }

// DecodeCard decodes a card and verifies its signature against the key it names.
// Whether that key may speak for a writer is the caller's question.
func DecodeCard(b []byte) (Card, error) {
	var c Card
	if len(b) > MaxCard {
		return Card{}, Errorf(CodeTooLarge, "a segment card of %d bytes", len(b))
	}
	if err := UnmarshalPayload(SchemaSegmentCard, b, &c); err != nil {
		return Card{}, err
	}
	if c.Format != CardFormat {
		return Card{}, Errorf(CodeVersion, "segment card format %d, this build knows %d", c.Format, CardFormat)
	}
	t, err := ParseTransmissionInfo(c.Info[:])
	if err != nil {
		return Card{}, err
	}
	if t.F > MaxSegment {
		return Card{}, Errorf(CodeTooLarge, "a segment of %d bytes", t.F)
	}
	signed, err := c.SignedBytes()
	if err != nil {
		return Card{}, err
	}
	if len(c.Signature) != ed25519.SignatureSize || !ed25519.Verify(c.Signer[:], signed, c.Signature) {
		return Card{}, Errorf(CodeSignature, "segment card of %s", c.Segment)
	}
	return c, nil
}

// Transmission returns the parsed transmission information.
func (c *Card) Transmission() (TransmissionInfo, error) { return ParseTransmissionInfo(c.Info[:]) }
