package wire

import (
	"crypto/cipher"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"

	"fcp"
)

// Sizes and limits of control frames (spec/wire.md section 10.1).
const (
	ControlHeadSize = 36
	controlVersion  = 1
	// MaxControl is the largest plaintext of a control frame, in bytes.
	MaxControl = 4 << 20
)

// ControlFlags are the flags of a control frame.
type ControlFlags uint16

// The flags. A sealed frame always carries ControlEncrypted.
const (
	ControlEncrypted  ControlFlags = 1
	ControlCompressed ControlFlags = 2

	knownControlFlags = ControlEncrypted | ControlCompressed
)

// ControlHead is the head of a control frame.
type ControlHead struct {
	Session SessionID
	Seq     uint64
	Flags   ControlFlags
	Len     uint32 // bytes of ciphertext, without the tag
}

// AppendTo appends the encoded head.
func (h *ControlHead) AppendTo(b []byte) []byte {
	b = append(b, "FCPC"...)
	b = binary.LittleEndian.AppendUint16(b, controlVersion)
	b = append(b, h.Session[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.Seq)
	b = binary.LittleEndian.AppendUint16(b, uint16(h.Flags))
	return binary.LittleEndian.AppendUint32(b, h.Len)
}

// DecodeControlHead decodes the first ControlHeadSize bytes of a control frame
// whose plaintext has at most limit bytes; what follows the head is not looked
// at. Unknown flags are dropped, so that a frame whose sender bound them does not
// open. Errors: CodeMalformed, CodeVersion, CodeTooLarge, each with a Reason.
func DecodeControlHead(b []byte, limit int) (ControlHead, error) {
	const what = "a control frame"
	switch {
	case len(b) < ControlHeadSize:
		return ControlHead{}, refuse(fcp.CodeMalformed, what, ReasonShort)
	case string(b[:4]) != "FCPC":
		return ControlHead{}, refuse(fcp.CodeMalformed, what, ReasonMagic)
	case binary.LittleEndian.Uint16(b[4:]) != controlVersion:
		return ControlHead{}, refuse(fcp.CodeVersion, what, ReasonVersion)
	}
	h := ControlHead{Session: SessionID(b[6:22]), Seq: binary.LittleEndian.Uint64(b[22:]),
		Flags: ControlFlags(binary.LittleEndian.Uint16(b[30:])) & knownControlFlags, Len: binary.LittleEndian.Uint32(b[32:])}
	if uint64(h.Len) > uint64(limit) {
		return ControlHead{}, refuse(fcp.CodeTooLarge, what, ReasonPayload)
	}
	return h, nil
}

// DecodeControl splits exactly one control frame into head and sealed payload
// (ciphertext and tag), which aliases b.
func DecodeControl(b []byte, limit int) (ControlHead, []byte, error) {
	const what = "a control frame"
	if len(b) < ControlHeadSize+TagSize {
		return ControlHead{}, nil, refuse(fcp.CodeMalformed, what, ReasonShort)
	}
	h, err := DecodeControlHead(b, limit)
	if err != nil {
		return ControlHead{}, nil, err
	}
	if uint64(len(b)) != ControlHeadSize+uint64(h.Len)+TagSize {
		return ControlHead{}, nil, refuse(fcp.CodeMalformed, what, ReasonLength)
	}
	return h, b[ControlHeadSize:], nil
}

// ControlCipher seals and opens the control frames of a session: ChaCha20-Poly1305
// under k_ctx, the same key both ways, the direction in the nonce. Safe for
// concurrent use.
type ControlCipher struct {
	session SessionID
	aead    cipher.AEAD
}

// NewControlCipher returns the cipher of a session.
func NewControlCipher(session SessionID, ctx Key) (*ControlCipher, error) {
	a, err := chacha20poly1305.New(ctx[:])
	return &ControlCipher{session, a}, fcp.Wrap(fcp.CodeInternal, err, "ChaCha20-Poly1305")
}

func controlNonce(d Direction, seq uint64) (n [12]byte) {
	n[0] = byte(d)
	binary.LittleEndian.PutUint64(n[4:], seq)
	return n
}

// aad is session id, u64le number, u16le flags.
func (c *ControlCipher) aad(seq uint64, flags ControlFlags) []byte {
	b := make([]byte, 0, 26)
	b = append(b, c.session[:]...)
	b = binary.LittleEndian.AppendUint64(b, seq)
	return binary.LittleEndian.AppendUint16(b, uint16(flags))
}

// Seal appends the whole frame. A seq must not meet again in one direction. The
// plaintext has at most MaxControl bytes (CodeTooLarge).
func (c *ControlCipher) Seal(dst []byte, d Direction, seq uint64, flags ControlFlags, plaintext []byte) ([]byte, error) {
	if len(plaintext) > MaxControl {
		return nil, refuse(fcp.CodeTooLarge, "a control frame", ReasonPayload)
	}
	h := ControlHead{c.session, seq, flags&knownControlFlags | ControlEncrypted, uint32(len(plaintext))}
	nonce := controlNonce(d, seq)
	return c.aead.Seal(h.AppendTo(dst), nonce[:], plaintext, c.aad(seq, h.Flags)), nil
}

// Open appends the plaintext of a frame that was sent in direction d. A frame of
// another session or a forged one is CodeChecksum with ReasonAEAD.
func (c *ControlCipher) Open(dst []byte, d Direction, h *ControlHead, sealed []byte) ([]byte, error) {
	nonce := controlNonce(d, h.Seq)
	if h.Session != c.session || h.Flags&ControlEncrypted == 0 {
		return nil, refuse(fcp.CodeChecksum, "a control frame", ReasonAEAD)
	}
	out, err := c.aead.Open(dst, nonce[:], sealed, c.aad(h.Seq, h.Flags))
	if err != nil {
		return nil, refuse(fcp.CodeChecksum, "a control frame", ReasonAEAD)
	}
	return out, nil
}
