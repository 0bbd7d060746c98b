package authority

import (
	"crypto/cipher"
	"io"

	"fcp"
)

// WrappedKeySize is the length of a wrapped segment key: a random 12-byte nonce,
// the encrypted 32-byte key, a 16-byte tag.
const WrappedKeySize = nonceSize + KeySize + TagSize

const (
	segmentKeyPurpose   = "FCP2-SEGMENT-KEY-V1"
	segmentFramePurpose = "FCP2-SEGMENT-V1"
)

// MaxSegmentAddress is the most bytes an address given to WrapSegmentKey,
// UnwrapSegmentKey or Cipher may have.
const MaxSegmentAddress = 1 << 10

// SegmentKey is the random 256-bit key of one sealed segment.
type SegmentKey struct {
	redacted
	p func() *[KeySize]byte
}

// NewSegmentKey makes a segment key from 32 bytes of rand.
func NewSegmentKey(rand io.Reader) (*SegmentKey, error) {
	p, err := readKey(rand)
	if err != nil {
		return nil, err
	}
	return &SegmentKey{p: hide(p)}, nil
}

// Wipe overwrites the key.
func (k *SegmentKey) Wipe() { clear(k.p()[:]) }

// segmentAddress returns purpose || u8 len(zone) || zone || caller's address.
func segmentAddress(purpose string, zone fcp.ZoneID, addr []byte) ([]byte, error) {
	if len(addr) > MaxSegmentAddress {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "segment address of %d bytes, the limit is %d", len(addr), MaxSegmentAddress)
	}
	b := make([]byte, 0, len(purpose)+1+len(zone)+len(addr))
	b = append(b, purpose...)
	b = append(b, byte(len(zone)))
	b = append(b, zone...)
	return append(b, addr...), nil
}

// WrapSegmentKey encrypts a segment key under the zone key with AES-256-GCM. addr
// says which segment it is for; it is bound and not stored. Keep IDs().Zone
// beside the result.
func (k *ZoneKeys) WrapSegmentKey(rand io.Reader, key *SegmentKey, addr []byte) ([WrappedKeySize]byte, error) {
	var out [WrappedKeySize]byte
	aad, err := segmentAddress(segmentKeyPurpose, k.p().zone, addr)
	if err != nil {
		return out, err
	}
	if _, err := io.ReadFull(rand, out[:nonceSize]); err != nil {
		return out, fcp.Wrap(fcp.CodeInternal, err, "read randomness to wrap a segment key")
	}
	k.p().wrap.Seal(out[nonceSize:nonceSize], out[:nonceSize], key.p()[:], aad)
	return out, nil
}

// UnwrapSegmentKey opens a wrapped segment key. Other bytes, another zone key or
// another address give CodeWrongKey.
func (k *ZoneKeys) UnwrapSegmentKey(wrapped, addr []byte) (*SegmentKey, error) {
	if len(wrapped) != WrappedKeySize {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a wrapped segment key has %d bytes, not %d", WrappedKeySize, len(wrapped))
	}
	aad, err := segmentAddress(segmentKeyPurpose, k.p().zone, addr)
	if err != nil {
		return nil, err
	}
	p := new([KeySize]byte)
	if _, err := k.p().wrap.Open(p[:0], wrapped[:nonceSize], wrapped[nonceSize:], aad); err != nil {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "a segment key does not unwrap with key %s of %s at this address", k.p().ids.Zone, k.p().zone)
	}
	return &SegmentKey{p: hide(p)}, nil
}

// SegmentCipher seals and opens the frames of one segment with AES-256-GCM in
// STREAM framing: the nonce of frame i is 3 zero bytes, u64be i and the last
// flag, so frames cannot be reordered, dropped from the end or repeated. A frame
// index is sealed at most once under one key. Safe for concurrent use.
type SegmentCipher struct {
	redacted
	p func() *segmentSecret
}

type segmentSecret struct {
	aead cipher.AEAD
	aad  []byte // "FCP2-SEGMENT-V1", a zero byte, the address
}

// Cipher prepares the key for the frames of the segment at addr, which is bound
// into each frame and not stored. The cipher outlives a Wipe of the key.
func (k *SegmentKey) Cipher(addr []byte) (*SegmentCipher, error) {
	aad, err := segmentAddress(segmentFramePurpose, "", addr)
	if err != nil {
		return nil, err
	}
	g, err := newGCM(k.p()[:])
	if err != nil {
		return nil, err
	}
	return &SegmentCipher{p: hide(&segmentSecret{aead: g, aad: aad})}, nil
}

// Overhead returns by how many bytes a sealed frame is longer than its plaintext.
func (c *SegmentCipher) Overhead() int { return TagSize }

// SealFrame appends the sealed form of frame index to dst. last marks the final
// frame. plaintext and what dst has room for must not overlap.
func (c *SegmentCipher) SealFrame(dst, plaintext []byte, index uint32, last bool) []byte {
	s := c.p()
	var nonce [nonceSize]byte
	setNonce(&nonce, uint64(index), last)
	return s.aead.Seal(dst, nonce[:], plaintext, s.aad)
}

// OpenFrame appends the plaintext of sealed frame index to dst. Other bytes,
// index, last flag, address or key give CodeCorrupt and no plaintext.
func (c *SegmentCipher) OpenFrame(dst, sealed []byte, index uint32, last bool) ([]byte, error) {
	s := c.p()
	var nonce [nonceSize]byte
	setNonce(&nonce, uint64(index), last)
	out, err := s.aead.Open(dst, nonce[:], sealed, s.aad)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "segment frame %d does not open", index)
	}
	return out, nil
}
