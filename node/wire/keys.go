package wire

import (
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"

	"github.com/zeebo/blake3"

	"fcp"
)

// Direction is who sends: the initiator of the session or its responder.
type Direction byte

// The directions.
const (
	ToResponder Direction = 0
	ToInitiator Direction = 1
)

// Back returns the other direction.
func (d Direction) Back() Direction { return 1 - d }

// Keys are the keys of one session (spec/wire.md section 9.6).
type Keys struct {
	MAC     [2]Key // of datagrams, by direction
	Context Key    // of control frames
}

// KeyInput is what session keys are made of.
type KeyInput struct {
	Initiator, Responder string // node ids
	HelloNonce, AckNonce [NonceSize]byte
	Session              SessionID
	// Binding ties the keys to what carried the handshake: see Bind. Empty where
	// nothing did, as in the reference.
	Binding []byte
}

// SharedSecret returns X25519(own, peer). A peer key of small order is
// CodeMalformed.
func SharedSecret(own *ecdh.PrivateKey, peer [KeySize]byte) ([]byte, error) {
	p, err := ecdh.X25519().NewPublicKey(peer[:])
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeMalformed, "an ephemeral key")
	}
	s, err := own.ECDH(p)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeMalformed, "an ephemeral key of small order")
	}
	return s, nil
}

// DeriveKeys returns the keys of a session: two full HKDF-SHA256, one after the
// other.
func DeriveKeys(secret []byte, in *KeyInput) (k Keys, err error) {
	info := "FCP2-SESSION-V1" + in.Initiator + in.Responder + string(in.HelloNonce[:]) + string(in.AckNonce[:]) + string(in.Binding)
	prk, err := expand(secret, in.Session[:], info)
	if err != nil {
		return k, err
	}
	okm, err := hkdf.Key(sha256.New, prk[:], nil, "FCP2-SESSION-KEYS-V1", 3*KeySize)
	if err != nil {
		return k, fcp.Wrap(fcp.CodeInternal, err, "derive session keys")
	}
	defer clear(okm)
	copy(k.MAC[ToResponder][:], okm)
	copy(k.MAC[ToInitiator][:], okm[KeySize:])
	copy(k.Context[:], okm[2*KeySize:])
	return k, nil
}

// Bind returns what session keys are bound to over TLS: the exported keying
// material of the connection (RFC 9266) and both handshake messages as sent, so
// that neither the connection nor an offer in the hello can be exchanged.
func Bind(exporter, hello, ack []byte) []byte {
	h := sha256.New()
	h.Write([]byte("FCP2-SESSION-BINDING-V1"))
	for _, p := range [][]byte{exporter, hello, ack} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write(p)
	}
	return h.Sum(nil)
}

// SymbolKey returns the key under which a session seals symbols in a direction:
// HKDF-SHA256 of the context key, info "FCP2-SESSION-SYMBOL-V1" and the direction.
func (k *Keys) SymbolKey(d Direction) (Key, error) {
	return expand(k.Context[:], nil, "FCP2-SESSION-SYMBOL-V1"+string([]byte{byte(d)}))
}

// BulkKey returns the key by which both sides prove that a bulk connection is of the
// session: HKDF-SHA256 of the context key, info "FCP2-SESSION-BULK-V1".
func (k *Keys) BulkKey() (Key, error) {
	return expand(k.Context[:], nil, "FCP2-SESSION-BULK-V1")
}

// MAC computes the MAC of session datagrams in one direction. Safe for concurrent
// use.
type MAC struct {
	session   SessionID
	direction Direction
	hashers   sync.Pool // keyed hash.Hash: setting one up costs as much as a short frame
}

// NewMAC returns the MAC of a direction. An unknown suite is CodeVersion.
func NewMAC(s Suite, k Key, session SessionID, d Direction) (*MAC, error) {
	if s != SuiteHMAC && s != SuiteBLAKE3 {
		return nil, refuse(fcp.CodeVersion, "a session", ReasonSuite)
	}
	m := &MAC{session: session, direction: d}
	if s == SuiteHMAC {
		m.hashers.New = func() any { return hmac.New(sha256.New, k[:]) }
		return m, nil
	}
	if _, err := blake3.NewKeyed(k[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "keyed BLAKE3")
	}
	m.hashers.New = func() any {
		h, _ := blake3.NewKeyed(k[:]) // fails only for a key of another length
		return h
	}
	return m, nil
}

// Sum returns the first 16 bytes of the MAC over session id, direction, u64le
// number and frame (spec/wire.md section 9.7).
func (m *MAC) Sum(seq uint64, frame []byte) (out [TagSize]byte) {
	var head [SessionIDSize + 9]byte
	copy(head[:], m.session[:])
	head[SessionIDSize] = byte(m.direction)
	binary.LittleEndian.PutUint64(head[SessionIDSize+1:], seq)
	var sum [32]byte
	h := m.hashers.Get().(hash.Hash)
	h.Reset()
	h.Write(head[:])
	h.Write(frame)
	h.Sum(sum[:0])
	m.hashers.Put(h)
	copy(out[:], sum[:])
	return out
}

// Seal puts the envelope in front of the frame that stands in b from EnvelopeSize
// on.
func (m *MAC) Seal(b []byte, seq uint64) {
	copy(b, m.session[:])
	binary.LittleEndian.PutUint64(b[SessionIDSize:], seq)
	sum := m.Sum(seq, b[EnvelopeSize:])
	copy(b[SessionIDSize+8:], sum[:])
}

// Fits reports whether a datagram's MAC is right.
func (m *MAC) Fits(d *Datagram) bool {
	sum := m.Sum(d.Seq, d.Frame)
	return d.Session == m.session && hmac.Equal(sum[:], d.MAC[:])
}
