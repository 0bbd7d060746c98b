package wire

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"
	"time"

	"fcp"
)

// SessionIDSize is the length of a session id.
const SessionIDSize = 16

// SessionID names a session. The responder chooses it at random; its first byte
// is below 64, so that a datagram that begins with it is never taken for QUIC,
// whose first byte has that bit set (RFC 9000 section 17, RFC 9443).
type SessionID [SessionIDSize]byte

// LaneSafe reports whether datagrams of the session can share a socket with QUIC.
func (s SessionID) LaneSafe() bool { return s[0] < 0x40 }

// Suite is a session crypto suite (spec/wire.md section 9.1). Both are X25519 with
// HKDF-SHA256; they differ in the MAC of datagrams.
type Suite uint64

// The suites.
const (
	SuiteHMAC   Suite = 1 // HMAC-SHA256, 16 bytes of it
	SuiteBLAKE3 Suite = 2 // keyed BLAKE3, 16 bytes of it
)

// Limits of the handshake (spec/wire.md section 9.5).
const (
	MaxHandshake = 16 << 10
	MaxSuites    = 16
	MaxSkew      = 120 * time.Second
	MaxNodeID    = 256 // bytes of a node's id
)

// NonceSize is the length of a handshake nonce; CookieSize that of a cookie.
const (
	NonceSize  = 16
	CookieSize = 32
)

// Hello opens a session (spec/wire.md section 9.2).
type Hello struct {
	From      string          `cbor:"from"`
	To        string          `cbor:"to"`
	Ephemeral [KeySize]byte   `cbor:"eph_pubkey"` // X25519
	Nonce     [NonceSize]byte `cbor:"nonce"`
	Cookie    []byte          `cbor:"cookie,omitempty"` // CookieSize bytes, or none
	Timestamp uint64          `cbor:"timestamp"`        // unix seconds
	Suites    []Suite         `cbor:"suites"`           // best first
	Limit     uint64          `cbor:"transport_limits,omitempty"`
	Signature []byte          `cbor:"signature,omitempty"`
}

// Ack answers a hello (spec/wire.md section 9.3).
type Ack struct {
	From      string          `cbor:"from"`
	To        string          `cbor:"to"`
	Ephemeral [KeySize]byte   `cbor:"eph_pubkey"`
	Nonce     [NonceSize]byte `cbor:"nonce"`
	Session   SessionID       `cbor:"session_id"`
	Suite     Suite           `cbor:"suite"`
	Timestamp uint64          `cbor:"timestamp"`
	Signature []byte          `cbor:"signature,omitempty"`
}

// Retry asks for the same hello with a cookie (spec/wire.md section 9.4). It is
// not signed: it proves only that its receiver can be reached.
type Retry struct {
	From      string           `cbor:"from"`
	To        string           `cbor:"to"`
	Cookie    [CookieSize]byte `cbor:"cookie"`
	Timestamp uint64           `cbor:"timestamp"`
}

// transcript appends the canonical encodings of the parts to a purpose string.
func transcript(purpose string, parts ...any) ([]byte, error) {
	b := []byte(purpose)
	for _, p := range parts {
		enc, err := fcp.Marshal(p)
		if err != nil {
			return nil, err
		}
		b = append(b, enc...)
	}
	return b, nil
}

// orNull makes an absent value null, as transcripts write it.
func orNull[T any](v T, present bool) any {
	if !present {
		return nil
	}
	return v
}

func (h *Hello) parts() []any {
	return []any{h.From, h.To, h.Ephemeral, h.Nonce, orNull(h.Cookie, len(h.Cookie) > 0), h.Timestamp, h.Suites, orNull(h.Limit, h.Limit != 0)}
}

// Transcript returns what the sender of the hello signs.
func (h *Hello) Transcript() ([]byte, error) { return transcript("FCP2-HELLO-V1", h.parts()...) }

// Transcript returns what the sender of the ack signs.
func (a *Ack) Transcript(h *Hello) ([]byte, error) {
	return transcript("FCP2-ACK-V1", a.From, a.To, a.Ephemeral, a.Nonce, a.Session, a.Suite, a.Timestamp, h.Ephemeral, h.Nonce)
}

// CookieFor returns the cookie that proves that the sender of a hello received a
// retry: HMAC-SHA256 over its fields without the cookie (spec/wire.md section 9.4).
func CookieFor(key Key, h *Hello) (c [CookieSize]byte, err error) {
	b, err := transcript("", h.From, h.To, h.Ephemeral, h.Nonce, h.Timestamp, h.Suites, orNull(h.Limit, h.Limit != 0))
	if err != nil {
		return c, err
	}
	m := hmac.New(sha256.New, key[:])
	m.Write(b)
	m.Sum(c[:0])
	return c, nil
}

// CookieFits reports whether a hello carries the cookie for it.
func CookieFits(key Key, h *Hello) bool {
	want, err := CookieFor(key, h)
	return err == nil && hmac.Equal(want[:], h.Cookie)
}

// Encode returns the canonical encoding.
func (h *Hello) Encode() ([]byte, error) { return fcp.Marshal(h) }

// Encode returns the canonical encoding.
func (a *Ack) Encode() ([]byte, error) { return fcp.Marshal(a) }

// Encode returns the canonical encoding.
func (r *Retry) Encode() ([]byte, error) { return fcp.Marshal(r) }

func readHandshake(b []byte, v any) error {
	if len(b) > MaxHandshake {
		return refuse(fcp.CodeTooLarge, "a handshake message", ReasonTooLarge)
	}
	return fcp.Unmarshal(b, v)
}

func validNode(id string) bool { return id != "" && len(id) <= MaxNodeID }

// DecodeHello decodes a hello strictly. Whether it is signed by whom it names is
// the question of Verify.
func DecodeHello(b []byte) (Hello, error) {
	var h Hello
	if err := readHandshake(b, &h); err != nil {
		return Hello{}, err
	}
	if !validNode(h.From) || !validNode(h.To) || len(h.Suites) == 0 || len(h.Suites) > MaxSuites ||
		len(h.Cookie) != 0 && len(h.Cookie) != CookieSize {
		return Hello{}, fcp.Errorf(fcp.CodeMalformed, "a hello with a field of the wrong size")
	}
	return h, nil
}

// DecodeAck decodes an ack strictly.
func DecodeAck(b []byte) (Ack, error) {
	var a Ack
	if err := readHandshake(b, &a); err != nil {
		return Ack{}, err
	}
	if !validNode(a.From) || !validNode(a.To) {
		return Ack{}, fcp.Errorf(fcp.CodeMalformed, "an ack with a field of the wrong size")
	}
	return a, nil
}

// DecodeRetry decodes a retry strictly.
func DecodeRetry(b []byte) (Retry, error) {
	var r Retry
	if err := readHandshake(b, &r); err != nil {
		return Retry{}, err
	}
	if !validNode(r.From) || !validNode(r.To) {
		return Retry{}, fcp.Errorf(fcp.CodeMalformed, "a retry with a field of the wrong size")
	}
	return r, nil
}

// Verifier checks a node's signature.
type Verifier interface {
	Verify(message, sig []byte) bool
}

// Verify checks that the hello is for node to, at most MaxSkew from now, and
// signed by key. Errors: CodeUnauthorized with ReasonPeer, CodeFuture with
// ReasonSkew, CodeSignature.
func (h *Hello) Verify(to string, key Verifier, now time.Time) error {
	if h.To != to {
		return refuse(fcp.CodeUnauthorized, "a hello for another node", ReasonPeer)
	}
	message, err := h.Transcript()
	if err != nil {
		return err
	}
	return verifyHandshake("a hello", message, h.Signature, h.Timestamp, key, now)
}

// Verify checks an ack to hello h: names, time, a suite that was offered, and the
// signature of key.
func (a *Ack) Verify(h *Hello, key Verifier, now time.Time) error {
	if a.From != h.To || a.To != h.From {
		return refuse(fcp.CodeUnauthorized, "an ack of another node", ReasonPeer)
	}
	if !slices.Contains(h.Suites, a.Suite) {
		return refuse(fcp.CodeVersion, "an ack", ReasonSuite)
	}
	message, err := a.Transcript(h)
	if err != nil {
		return err
	}
	return verifyHandshake("an ack", message, a.Signature, a.Timestamp, key, now)
}

func verifyHandshake(what string, message, sig []byte, at uint64, key Verifier, now time.Time) error {
	if len(sig) == 0 {
		return refuse(fcp.CodeSignature, what, ReasonSignature)
	}
	if at > 1<<38 || time.Unix(int64(at), 0).Sub(now).Abs() > MaxSkew {
		return refuse(fcp.CodeFuture, what+" from another time", ReasonSkew)
	}
	if !key.Verify(message, sig) {
		return fcp.Errorf(fcp.CodeSignature, "%s", what)
	}
	return nil
}

// PickSuite returns the first suite of the initiator that the responder supports,
// or CodeVersion with ReasonSuite.
func PickSuite(initiator, responder []Suite) (Suite, error) {
	for _, s := range initiator {
		if slices.Contains(responder, s) {
			return s, nil
		}
	}
	return 0, refuse(fcp.CodeVersion, "no session suite that both sides support", ReasonSuite)
}

// Limit returns the datagram limit of two sides: the smaller, where 0 stands for
// DefaultDatagram.
func Limit(a, b uint64) int {
	if a == 0 {
		a = DefaultDatagram
	}
	if b == 0 {
		b = DefaultDatagram
	}
	return int(min(a, b, 1<<16-1))
}
