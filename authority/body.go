package authority

import (
	"crypto/cipher"
	"encoding/binary"
	"sync"

	"github.com/zeebo/blake3"

	"fcp"
)

// Sizes of the sealed forms.
const (
	FrameSize  = 8 << 10 // plaintext bytes of every frame but the last
	TagSize    = 16      // AES-GCM tag of each frame
	SaltSize   = 16      // random salt of a body, kept in the key table
	nonceSize  = 12
	sealedSize = FrameSize + TagSize
)

// Purpose strings of the body scheme.
const (
	bodyKeyPurpose = "FCP2-BODY-KEY-V1"
	bodyPurpose    = "FCP2-BODY-V1"
)

// Salt makes a body's key unique. Two bodies must never share one: draw it from
// a cryptographic source. Forgetting a body is deleting its salt.
type Salt [SaltSize]byte

// SealedBodyLen returns the length of the ciphertext of n plaintext bytes: one
// tag for each frame of 8 KiB, and one frame even when n is 0.
func SealedBodyLen(n int) int { return n + TagSize*frameCount(n) }

func frameCount(n int) int { return max(1, (n+FrameSize-1)/FrameSize) }

// PlainBodyLen is the inverse of SealedBodyLen. ok is false for a length that no
// plaintext gives.
func PlainBodyLen(sealed int) (n int, ok bool) {
	frames := (sealed + sealedSize - 1) / sealedSize
	n = sealed - frames*TagSize
	return n, sealed >= TagSize && SealedBodyLen(n) == sealed
}

// bodyScratch holds what one body operation needs, so that a pooled one makes
// the operation almost free of allocation. Used by one goroutine at a time.
type bodyScratch struct {
	h     *blake3.Hasher // keyed with the zone's body key
	key   [KeySize]byte  // the body's own key; cleared after use
	nonce [nonceSize]byte
	in    [len(bodyKeyPurpose) + SaltSize]byte
	aad   [len(bodyPurpose) + 1 + fcp.MaxZoneID + fcp.HashSize]byte
	idAt  int // where the object id starts in aad
}

func newBodyScratch(s *zoneSecret) *bodyScratch {
	h, err := blake3.NewKeyed(s.keys[roleBodyKey-1][:])
	if err != nil { // only for a key that is not 32 bytes
		panic("authority: body key: " + err.Error())
	}
	b := &bodyScratch{h: h}
	copy(b.in[:], bodyKeyPurpose)
	n := copy(b.aad[:], bodyPurpose)
	b.aad[n] = byte(len(s.zone))
	n++
	b.idAt = n + copy(b.aad[n:], s.zone)
	return b
}

// begin derives the key of the body with that salt and sets the address.
func (b *bodyScratch) begin(id fcp.ObjectID, salt Salt) cipher.AEAD {
	copy(b.in[len(bodyKeyPurpose):], salt[:])
	b.h.Reset()
	b.h.Write(b.in[:])
	b.h.Sum(b.key[:0])
	g, err := newGCM(b.key[:])
	if err != nil { // only for a key that is not 32 bytes
		panic("authority: " + err.Error())
	}
	clear(b.key[:])
	copy(b.aad[b.idAt:], id[:])
	return g
}

func (b *bodyScratch) address() []byte { return b.aad[:b.idAt+fcp.HashSize] }

// setNonce writes the STREAM nonce of frame i: 3 zero bytes, u64be i, last flag.
func setNonce(n *[nonceSize]byte, i uint64, last bool) {
	binary.BigEndian.PutUint64(n[3:11], i)
	n[11] = 0
	if last {
		n[11] = 1
	}
}

// SealBody appends the sealed form of plaintext to dst and returns it. The key
// is keyed BLAKE3 of the zone's body key over "FCP2-BODY-KEY-V1" || salt; the
// cipher is AES-256-GCM in STREAM frames of FrameSize, the additional data binds
// "FCP2-BODY-V1", the zone and the object id (docs/format.md "Sealed body").
// dst and plaintext must not overlap. It cannot fail.
func (k *ZoneKeys) SealBody(dst []byte, id fcp.ObjectID, salt Salt, plaintext []byte) []byte {
	b := k.p().pool.Get().(*bodyScratch)
	g := b.begin(id, salt)
	if need := len(dst) + SealedBodyLen(len(plaintext)); cap(dst) < need {
		grown := make([]byte, len(dst), need)
		copy(grown, dst)
		dst = grown
	}
	for i := uint64(0); ; i++ {
		last := len(plaintext) <= FrameSize
		n := min(len(plaintext), FrameSize)
		setNonce(&b.nonce, i, last)
		dst = g.Seal(dst, b.nonce[:], plaintext[:n], b.address())
		plaintext = plaintext[n:]
		if last {
			break
		}
	}
	k.p().pool.Put(b)
	return dst
}

var errBodySealed = fcp.Errorf(fcp.CodeCorrupt, "a sealed body does not open: other bytes, zone, object or salt")

// OpenBody appends the plaintext of a sealed body to dst. Bytes that were not
// sealed for this zone, object and salt give CodeCorrupt, and nothing of them is
// returned.
func (k *ZoneKeys) OpenBody(dst []byte, id fcp.ObjectID, salt Salt, sealed []byte) ([]byte, error) {
	n, ok := PlainBodyLen(len(sealed))
	if !ok {
		return nil, errBodySealed
	}
	return k.OpenBodyRange(dst, id, salt, sealed, 0, n)
}

// OpenBodyRange appends bytes off..off+n of the plaintext to dst, decrypting only
// the frames that cover them. sealed is the whole sealed body. A range outside
// the plaintext is CodeInvalidArgument. Frames outside the range are not checked.
func (k *ZoneKeys) OpenBodyRange(dst []byte, id fcp.ObjectID, salt Salt, sealed []byte, off, n int) ([]byte, error) {
	from, to, err := BodyPart(len(sealed), off, n)
	if err != nil {
		return nil, err
	}
	return k.OpenBodyPart(dst, id, salt, len(sealed), sealed[from:to], off, n)
}

// BodyPart returns which bytes [from, to) of a sealed body of size bytes are needed
// to open n bytes from off on: whole frames. Errors are those of OpenBodyRange.
func BodyPart(size, off, n int) (from, to int, err error) {
	total, ok := PlainBodyLen(size)
	if !ok {
		return 0, 0, errBodySealed
	}
	if off < 0 || n < 0 || off > total || n > total-off {
		return 0, 0, fcp.Errorf(fcp.CodeInvalidArgument, "range %d+%d of a body of %d bytes", off, n, total)
	}
	first, last := bodyFrames(total, off, n)
	return first * sealedSize, min((last+1)*sealedSize, size), nil
}

// bodyFrames returns the first and the last frame of a range. An empty range still
// has one frame, so that the answer is authentic.
func bodyFrames(total, off, n int) (first, last int) {
	end := frameCount(total) - 1
	return min(off/FrameSize, end), min((max(off+n, off+1)-1)/FrameSize, end)
}

// OpenBodyPart is OpenBodyRange for a caller that has no more than the bytes that
// BodyPart names, of a sealed body of size bytes.
func (k *ZoneKeys) OpenBodyPart(dst []byte, id fcp.ObjectID, salt Salt, size int, part []byte, off, n int) ([]byte, error) {
	from, to, err := BodyPart(size, off, n)
	if err != nil {
		return nil, err
	}
	if len(part) != to-from {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%d bytes of a sealed body where %d are needed", len(part), to-from)
	}
	total, _ := PlainBodyLen(size)
	b := k.p().pool.Get().(*bodyScratch)
	defer k.p().pool.Put(b)
	r := rangeOpener{aead: b.begin(id, salt), scratch: b, sealed: part, base: from, last: frameCount(total) - 1}
	start := len(dst)
	if need := start + n; cap(dst) < need {
		grown := make([]byte, start, need)
		copy(grown, dst)
		dst = grown
	}
	first, last := bodyFrames(total, off, n)
	for i := first; i <= last; i++ {
		if dst, err = r.frame(dst, i, off-i*FrameSize, off+n-i*FrameSize); err != nil {
			clear(dst[start:cap(dst)])
			return nil, err
		}
	}
	return dst, nil
}

type rangeOpener struct {
	aead    cipher.AEAD
	scratch *bodyScratch
	sealed  []byte // from byte base of the sealed body on
	base    int
	last    int // index of the last frame
}

// frame appends bytes from..to of frame i, both cut to the frame, to dst.
func (r *rangeOpener) frame(dst []byte, i, from, to int) ([]byte, error) {
	at := i*sealedSize - r.base
	ct := r.sealed[at:min(at+sealedSize, len(r.sealed))]
	size := len(ct) - TagSize
	from, to = max(from, 0), min(to, size)
	setNonce(&r.scratch.nonce, uint64(i), i == r.last)
	if from == 0 && to == size {
		out, err := r.aead.Open(dst, r.scratch.nonce[:], ct, r.scratch.address())
		if err != nil {
			return dst, errBodySealed
		}
		return out, nil
	}
	buf := framePool.Get().(*[FrameSize]byte)
	defer framePool.Put(buf)
	pt, err := r.aead.Open(buf[:0], r.scratch.nonce[:], ct, r.scratch.address())
	if err != nil {
		return dst, errBodySealed
	}
	dst = append(dst, pt[from:to]...)
	clear(pt)
	return dst, nil
}

// framePool holds frames of which only a part is wanted; they go back cleared.
var framePool = sync.Pool{New: func() any { return new([FrameSize]byte) }}
