// Package frost makes Ed25519 signatures with k of n key holders, none of whom has
// the key: FROST(Ed25519, SHA-512) of RFC 9591. What comes out verifies as a plain
// Ed25519 signature (RFC 8032) under the group's public key.
//
//	Deal       trusted dealer: splits a key into shares (RFC 9591 appendix C)
//	Commit     round one: a signer draws nonces and publishes their commitments
//	Sign       round two: a signer answers for one message and one set of signers
//	Aggregate  anybody: adds the signature shares up, and names a wrong one
//
// # Invariants
//
// Nonces sign once: Sign takes them out of their Nonces before it computes
// anything, and Save moves them out. Two signature shares over the same nonces
// would give the key share away, so a file that Save's bytes went into must be gone
// before Sign is called; keystore.TakeNonces does that.
//
// A key share and nonces print "[redacted]" and refuse encoders. Secret scalars
// only meet the constant-time operations of filippo.io/edwards25519.
package frost

import (
	"crypto/ed25519"
	"crypto/sha512"
	"io"
	"sync/atomic"

	"filippo.io/edwards25519"

	"fcp"
)

// MaxSigners is the highest number of shares of a key, and the highest identifier.
const MaxSigners = 255

// Sizes in bytes of the encodings.
const (
	CommitmentSize     = 1 + 32 + 32 // identifier, hiding and binding commitment
	SignatureShareSize = 1 + 32      // identifier, scalar
	KeyShareSize       = 1 + 32      // identifier, scalar
	NoncesSize         = 1 + 32 + 32 // identifier, hiding and binding nonce
)

// Context strings of RFC 9591 section 6.1. H2 has none: it is Ed25519's own hash.
const context = "FROST-ED25519-SHA512-v1"

func hashScalar(parts ...[]byte) *edwards25519.Scalar {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	s, err := edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
	if err != nil {
		panic(err) // 64 bytes always do
	}
	return s
}

func h1(m []byte) *edwards25519.Scalar { return hashScalar([]byte(context+"rho"), m) }
func h3(a, b []byte) *edwards25519.Scalar {
	return hashScalar([]byte(context+"nonce"), a, b)
}

func hashBytes(purpose string, m []byte) []byte {
	h := sha512.New()
	h.Write([]byte(context + purpose))
	h.Write(m)
	return h.Sum(nil)
}

// element decodes a point as RFC 9591 section 6.1 asks: canonical, of the
// prime-order subgroup, and not the identity.
func element(b []byte) (*edwards25519.Point, error) {
	p, err := new(edwards25519.Point).SetBytes(b)
	if err != nil || p.Equal(edwards25519.NewIdentityPoint()) == 1 || string(p.Bytes()) != string(b) {
		return nil, fcp.Errorf(fcp.CodeMalformed, "not an element of the group")
	}
	// p has prime order exactly if (L-1)p = -p.
	q := new(edwards25519.Point).ScalarMult(minusOne, p)
	if q.Add(q, p).Equal(edwards25519.NewIdentityPoint()) != 1 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "an element outside the prime-order subgroup")
	}
	return p, nil
}

var minusOne = edwards25519.NewScalar().Negate(small(1))

// small returns a scalar of one byte.
func small(v byte) *edwards25519.Scalar {
	s, err := edwards25519.NewScalar().SetCanonicalBytes(append([]byte{v}, make([]byte, 31)...))
	if err != nil {
		panic(err) // below the order
	}
	return s
}

// scalar decodes a reduced scalar that is not zero.
func scalar(b []byte) (*edwards25519.Scalar, error) {
	s, err := edwards25519.NewScalar().SetCanonicalBytes(b)
	if err != nil || s.Equal(edwards25519.NewScalar()) == 1 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "not a scalar of the group")
	}
	return s, nil
}

// lagrange returns the interpolation coefficient at zero of id among ids (RFC 9591
// section 4.2). Identifiers are public.
func lagrange(id byte, ids []byte) *edwards25519.Scalar {
	num, den := small(1), small(1)
	for _, x := range ids {
		if x == id {
			continue
		}
		num.Multiply(num, small(x))
		den.Multiply(den, edwards25519.NewScalar().Subtract(small(x), small(id)))
	}
	return num.Multiply(num, den.Invert(den))
}

// KeyShare is one holder's share of a key.
type KeyShare struct {
	redacted
	p func() *keySecret
}

type keySecret struct {
	id byte
	s  *edwards25519.Scalar
}

// ID returns the holder's identifier, from 1.
func (k *KeyShare) ID() byte { return k.p().id }

// Secret returns the share's KeyShareSize bytes, for a key file only. The caller
// clears them.
func (k *KeyShare) Secret() []byte { return append([]byte{k.p().id}, k.p().s.Bytes()...) }

// Wipe overwrites the share. It is unusable after.
func (k *KeyShare) Wipe() { k.p().s.Set(edwards25519.NewScalar()) }

// DecodeKeyShare is the inverse of Secret; anything else is CodeMalformed.
func DecodeKeyShare(b []byte) (*KeyShare, error) {
	if len(b) != KeyShareSize || b[0] == 0 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a key share of %d bytes", len(b))
	}
	s, err := scalar(b[1:])
	if err != nil {
		return nil, err
	}
	return newKeyShare(b[0], s), nil
}

func newKeyShare(id byte, s *edwards25519.Scalar) *KeyShare {
	secret := &keySecret{id, s}
	return &KeyShare{p: func() *keySecret { return secret }}
}

// Group is what everybody knows of a key that was split: commitments to the
// dealer's polynomial, the first of which is the public key. A Group never changes.
type Group struct {
	n       int
	encoded [][32]byte
	points  []*edwards25519.Point
}

// Threshold returns how many signers a signature needs.
func (g *Group) Threshold() int { return len(g.points) }

// Signers returns how many shares there are; their identifiers are 1 to that.
func (g *Group) Signers() int { return g.n }

// Public returns the Ed25519 public key.
func (g *Group) Public() [ed25519.PublicKeySize]byte { return g.encoded[0] }

// verifyingShare returns the public counterpart of a share: the polynomial in the
// exponent at id (RFC 9591 appendix C.2).
func (g *Group) verifyingShare(id byte) *edwards25519.Point {
	x, at := small(id), edwards25519.NewIdentityPoint()
	for i := len(g.points) - 1; i >= 0; i-- {
		at.ScalarMult(x, at)
		at.Add(at, g.points[i])
	}
	return at
}

// Check refuses a share that is not one of the group's: CodeWrongKey.
func (g *Group) Check(k *KeyShare) error {
	secret := k.p()
	if int(secret.id) > g.n || new(edwards25519.Point).ScalarBaseMult(secret.s).Equal(g.verifyingShare(secret.id)) != 1 {
		return fcp.Errorf(fcp.CodeWrongKey, "share %d is not one of this key", secret.id)
	}
	return nil
}

// Encode returns u8 n, u8 k and the k commitments.
func (g *Group) Encode() []byte {
	b := []byte{byte(g.n), byte(len(g.encoded))}
	for _, p := range g.encoded {
		b = append(b, p[:]...)
	}
	return b
}

// DecodeGroup is the inverse of Encode; anything else is CodeMalformed.
func DecodeGroup(b []byte) (*Group, error) {
	if len(b) < 2 || b[1] == 0 || b[0] < b[1] || len(b) != 2+32*int(b[1]) {
		return nil, fcp.Errorf(fcp.CodeMalformed, "the public part of a split key with %d bytes", len(b))
	}
	g := &Group{n: int(b[0])}
	for b = b[2:]; len(b) > 0; b = b[32:] {
		p, err := element(b[:32])
		if err != nil {
			return nil, err
		}
		g.points, g.encoded = append(g.points, p), append(g.encoded, [32]byte(b[:32]))
	}
	return g, nil
}

// Deal splits the Ed25519 key of a seed (RFC 8032 section 5.1.5) into n shares of
// which k sign. Randomness comes from rand. The caller wipes the shares. Errors:
// CodeInvalidArgument unless 1 <= k <= n <= MaxSigners, CodeMalformed for a seed of
// another length, CodeInternal when rand fails.
func Deal(rand io.Reader, seed []byte, k, n int) (*Group, []*KeyShare, error) {
	if k < 1 || k > n || n > MaxSigners {
		return nil, nil, fcp.Errorf(fcp.CodeInvalidArgument, "%d of %d signers; wanted is 1 to n of at most %d", k, n, MaxSigners)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, nil, fcp.Errorf(fcp.CodeMalformed, "a seed of %d bytes", len(seed))
	}
	h := sha512.Sum512(seed)
	defer clear(h[:])
	s, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		return nil, nil, fcp.Wrap(fcp.CodeInternal, err, "the scalar of a key")
	}
	coefficients := []*edwards25519.Scalar{s}
	for range k - 1 {
		c, err := randomScalar(rand)
		if err != nil {
			return nil, nil, err
		}
		coefficients = append(coefficients, c)
	}
	g, shares := deal(coefficients, n)
	for _, c := range coefficients {
		c.Set(edwards25519.NewScalar())
	}
	return g, shares, nil
}

// deal evaluates the polynomial whose constant term is the key.
func deal(coefficients []*edwards25519.Scalar, n int) (*Group, []*KeyShare) {
	g := &Group{n: n}
	for _, c := range coefficients {
		p := new(edwards25519.Point).ScalarBaseMult(c)
		g.points, g.encoded = append(g.points, p), append(g.encoded, [32]byte(p.Bytes()))
	}
	shares := make([]*KeyShare, n)
	for i := range shares {
		x, y := small(byte(i+1)), edwards25519.NewScalar()
		for j := len(coefficients) - 1; j >= 0; j-- {
			y.MultiplyAdd(y, x, coefficients[j])
		}
		shares[i] = newKeyShare(byte(i+1), y)
	}
	return g, shares
}

// randomScalar draws a scalar that is not zero.
func randomScalar(rand io.Reader) (*edwards25519.Scalar, error) {
	var b [64]byte
	defer clear(b[:])
	for {
		if _, err := io.ReadFull(rand, b[:]); err != nil {
			return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for shares of a key")
		}
		s, err := edwards25519.NewScalar().SetUniformBytes(b[:])
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeInternal, err, "a random scalar")
		}
		if s.Equal(edwards25519.NewScalar()) == 0 {
			return s, nil
		}
	}
}

// Nonces are one signer's secret of one signing. They sign once. Safe for
// concurrent use: of several calls one gets them.
type Nonces struct {
	redacted
	p func() *atomic.Pointer[nonceSecret]
}

type nonceSecret struct {
	id      byte
	hiding  *edwards25519.Scalar
	binding *edwards25519.Scalar
}

func newNonces(s *nonceSecret) *Nonces {
	p := new(atomic.Pointer[nonceSecret])
	p.Store(s)
	return &Nonces{p: func() *atomic.Pointer[nonceSecret] { return p }}
}

// take returns the nonces the first time.
func (n *Nonces) take() (*nonceSecret, error) {
	s := n.p().Swap(nil)
	if s == nil {
		return nil, fcp.Errorf(fcp.CodeConflict, "these nonces were used").WithNext("begin a new round one: nonces sign once")
	}
	return s, nil
}

func (s *nonceSecret) wipe() {
	s.hiding.Set(edwards25519.NewScalar())
	s.binding.Set(edwards25519.NewScalar())
}

func (s *nonceSecret) commitment() Commitment {
	return Commitment{ID: s.id, Hiding: [32]byte(new(edwards25519.Point).ScalarBaseMult(s.hiding).Bytes()),
		Binding: [32]byte(new(edwards25519.Point).ScalarBaseMult(s.binding).Bytes())}
}

// Save moves the nonces out, for a file between the rounds: this Nonces is used up.
// The caller clears the NoncesSize bytes.
func (n *Nonces) Save() ([]byte, error) {
	s, err := n.take()
	if err != nil {
		return nil, err
	}
	defer s.wipe()
	return append(append([]byte{s.id}, s.hiding.Bytes()...), s.binding.Bytes()...), nil
}

// DecodeNonces is the inverse of Save; anything else is CodeMalformed. Whatever the
// bytes came from must be gone before.
func DecodeNonces(b []byte) (*Nonces, error) {
	if len(b) != NoncesSize || b[0] == 0 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "nonces of %d bytes", len(b))
	}
	hiding, err := scalar(b[1:33])
	if err != nil {
		return nil, err
	}
	binding, err := scalar(b[33:])
	if err != nil {
		return nil, err
	}
	return newNonces(&nonceSecret{b[0], hiding, binding}), nil
}

// Wipe forgets the nonces.
func (n *Nonces) Wipe() {
	if s := n.p().Swap(nil); s != nil {
		s.wipe()
	}
}
