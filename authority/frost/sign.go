package frost

import (
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"

	"filippo.io/edwards25519"

	"fcp"
)

// Commitment is what a signer publishes in round one.
type Commitment struct {
	ID      byte     // of the signer, from 1
	Hiding  [32]byte // elements of the group
	Binding [32]byte
}

// Encode returns the CommitmentSize bytes.
func (c *Commitment) Encode() []byte {
	return append(append([]byte{c.ID}, c.Hiding[:]...), c.Binding[:]...)
}

// DecodeCommitment is the inverse of Encode; what is no commitment is
// CodeMalformed.
func DecodeCommitment(b []byte) (Commitment, error) {
	if len(b) != CommitmentSize || b[0] == 0 {
		return Commitment{}, fcp.Errorf(fcp.CodeMalformed, "a commitment of %d bytes", len(b))
	}
	c := Commitment{b[0], [32]byte(b[1:33]), [32]byte(b[33:])}
	if _, err := element(c.Hiding[:]); err != nil {
		return Commitment{}, err
	}
	if _, err := element(c.Binding[:]); err != nil {
		return Commitment{}, err
	}
	return c, nil
}

// SignatureShare is a signer's answer in round two. It is no secret, and worth
// nothing alone.
type SignatureShare struct {
	ID byte
	Z  [32]byte
}

// Encode returns the SignatureShareSize bytes.
func (s *SignatureShare) Encode() []byte { return append([]byte{s.ID}, s.Z[:]...) }

// DecodeSignatureShare is the inverse of Encode. A scalar that is not reduced is
// CodeMalformed; whether the share is right Aggregate says.
func DecodeSignatureShare(b []byte) (SignatureShare, error) {
	if len(b) != SignatureShareSize || b[0] == 0 {
		return SignatureShare{}, fcp.Errorf(fcp.CodeMalformed, "a signature share of %d bytes", len(b))
	}
	if _, err := edwards25519.NewScalar().SetCanonicalBytes(b[1:]); err != nil {
		return SignatureShare{}, fcp.Errorf(fcp.CodeMalformed, "a signature share that is no scalar")
	}
	return SignatureShare{b[0], [32]byte(b[1:])}, nil
}

// Commit draws nonces for one signing and returns them with their commitments
// (RFC 9591 sections 4.1 and 5.1). It takes 64 bytes of rand. Nonces also depend on
// the key share, so that a bad source alone does not repeat them.
func Commit(rand io.Reader, key *KeyShare) (*Nonces, Commitment, error) {
	var random [64]byte
	defer clear(random[:])
	if _, err := io.ReadFull(rand, random[:]); err != nil {
		return nil, Commitment{}, fcp.Wrap(fcp.CodeInternal, err, "read randomness for nonces")
	}
	secret := key.p().s.Bytes()
	defer clear(secret)
	s := &nonceSecret{key.p().id, h3(random[:32], secret), h3(random[32:], secret)}
	return newNonces(s), s.commitment(), nil
}

// session is what all signers of one signature compute alike.
type session struct {
	ids       []byte
	hiding    []*edwards25519.Point
	binding   []*edwards25519.Point
	factors   []*edwards25519.Scalar // binding factors
	r         *edwards25519.Point    // group commitment
	challenge *edwards25519.Scalar
}

// newSession checks the set of commitments and computes binding factors, group
// commitment and challenge (RFC 9591 sections 4.4 to 4.6).
func newSession(g *Group, message []byte, commitments []Commitment) (*session, error) {
	if len(commitments) < g.Threshold() || len(commitments) > g.n {
		return nil, fcp.Errorf(fcp.CodeNotEnough, "%d signers, the key needs %d of %d", len(commitments), g.Threshold(), g.n)
	}
	s := &session{}
	var list []byte
	for i, c := range commitments {
		if c.ID == 0 || int(c.ID) > g.n || i > 0 && c.ID <= commitments[i-1].ID {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "the signers are not strictly ascending identifiers of the key: %d", c.ID)
		}
		d, err := element(c.Hiding[:])
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeMalformed, err, "commitment of signer %d", c.ID)
		}
		e, err := element(c.Binding[:])
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeMalformed, err, "commitment of signer %d", c.ID)
		}
		s.ids, s.hiding, s.binding = append(s.ids, c.ID), append(s.hiding, d), append(s.binding, e)
		list = append(append(append(list, small(c.ID).Bytes()...), c.Hiding[:]...), c.Binding[:]...)
	}
	prefix := slices.Concat(g.encoded[0][:], hashBytes("msg", message), hashBytes("com", list))
	s.r = edwards25519.NewIdentityPoint()
	for i, id := range s.ids {
		rho := h1(append(prefix[:len(prefix):len(prefix)], small(id).Bytes()...))
		s.factors = append(s.factors, rho)
		s.r.Add(s.r, s.share(i))
	}
	if s.r.Equal(edwards25519.NewIdentityPoint()) == 1 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "the commitments add up to nothing")
	}
	s.challenge = hashScalar(s.r.Bytes(), g.encoded[0][:], message)
	return s, nil
}

// share returns signer i's part of the group commitment.
func (s *session) share(i int) *edwards25519.Point {
	p := new(edwards25519.Point).ScalarMult(s.factors[i], s.binding[i])
	return p.Add(p, s.hiding[i])
}

// Sign answers for a message and a set of signers (RFC 9591 section 5.2) and uses
// the nonces up, whatever it returns. commitments are strictly ascending by
// identifier, at least the threshold, with this signer's own among them. Errors:
// CodeConflict for nonces that were used, CodeWrongKey for a share or nonces of
// somebody else, CodeNotEnough, CodeInvalidArgument, CodeMalformed.
func Sign(g *Group, key *KeyShare, nonces *Nonces, message []byte, commitments []Commitment) (SignatureShare, error) {
	n, err := nonces.take()
	if err != nil {
		return SignatureShare{}, err
	}
	defer n.wipe()
	if err := g.Check(key); err != nil {
		return SignatureShare{}, err
	}
	s, err := newSession(g, message, commitments)
	if err != nil {
		return SignatureShare{}, err
	}
	i := slices.Index(s.ids, key.ID())
	if i < 0 || n.id != key.ID() || commitments[i] != n.commitment() {
		return SignatureShare{}, fcp.Errorf(fcp.CodeWrongKey, "the commitment of signer %d is not that of these nonces", key.ID())
	}
	z := edwards25519.NewScalar().Multiply(lagrange(key.ID(), s.ids), s.challenge)
	z.Multiply(z, key.p().s)
	z.MultiplyAdd(n.binding, s.factors[i], z)
	z.Add(z, n.hiding)
	return SignatureShare{key.ID(), [32]byte(z.Bytes())}, nil
}

// Blame is the cause of a failed Aggregate: the signers whose shares are wrong.
type Blame struct{ Signers []byte }

// Error names the signers.
func (b *Blame) Error() string { return fmt.Sprintf("wrong signature shares of signers %d", b.Signers) }

// Aggregate adds the shares of exactly the committed signers up to an Ed25519
// signature and verifies it (RFC 9591 section 5.3). When it does not verify, each
// share is checked and the error, CodeSignature, wraps a *Blame that names the
// wrong ones. Other errors: CodeNotEnough, CodeInvalidArgument, CodeMalformed.
func Aggregate(g *Group, message []byte, commitments []Commitment, shares []SignatureShare) ([ed25519.SignatureSize]byte, error) {
	var out [ed25519.SignatureSize]byte
	s, err := newSession(g, message, commitments)
	if err != nil {
		return out, err
	}
	if len(shares) != len(commitments) {
		return out, fcp.Errorf(fcp.CodeNotEnough, "%d signature shares for %d signers", len(shares), len(commitments))
	}
	shares = slices.Clone(shares)
	slices.SortFunc(shares, func(a, b SignatureShare) int { return int(a.ID) - int(b.ID) })
	sum := edwards25519.NewScalar()
	var wrong []byte
	for i, sh := range shares {
		if sh.ID != s.ids[i] {
			return out, fcp.Errorf(fcp.CodeInvalidArgument, "a signature share of signer %d, who has no commitment here or two shares", sh.ID)
		}
		z, err := edwards25519.NewScalar().SetCanonicalBytes(sh.Z[:])
		if err != nil {
			wrong = append(wrong, sh.ID)
			continue
		}
		sum.Add(sum, z)
	}
	copy(out[:], s.r.Bytes())
	copy(out[32:], sum.Bytes())
	if public := g.Public(); len(wrong) == 0 && ed25519.Verify(public[:], message, out[:]) {
		return out, nil
	}
	for i, sh := range shares {
		if !slices.Contains(wrong, sh.ID) && !s.verify(g, i, sh) {
			wrong = append(wrong, sh.ID)
		}
	}
	slices.Sort(wrong)
	blame := &Blame{wrong}
	return [ed25519.SignatureSize]byte{}, fcp.Errorf(fcp.CodeSignature, "%w", blame).WithNext("leave these signers out and begin a new round one with others")
}

// verify checks one share (RFC 9591 section 5.4): z B = D + rho E + lambda c Y.
func (s *session) verify(g *Group, i int, sh SignatureShare) bool {
	z, err := edwards25519.NewScalar().SetCanonicalBytes(sh.Z[:])
	if err != nil {
		return false
	}
	c := edwards25519.NewScalar().Multiply(s.challenge, lagrange(sh.ID, s.ids))
	want := new(edwards25519.Point).ScalarMult(c, g.verifyingShare(sh.ID))
	want.Add(want, s.share(i))
	return new(edwards25519.Point).ScalarBaseMult(z).Equal(want) == 1
}
