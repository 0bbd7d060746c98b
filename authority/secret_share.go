package authority

import (
	"bytes"
	"crypto/ecdh"
	"encoding/binary"
	"io"
	"slices"
	"time"

	"fcp"
	"fcp/authority/shamir"
)

// SecretShare is one device's share of one version of a secret, checked against its
// commitment.
type SecretShare struct {
	redacted
	p func() *shareSecret
}

type shareSecret struct {
	of     fcp.Hash // ref of the secret's version
	index  byte     // from 1
	holder fcp.WriterID
	opened []byte // blind || values
}

// Index returns the share's number, from 1.
func (s *SecretShare) Index() int { return int(s.p().index) }

// Holder returns the device that the share was sealed to.
func (s *SecretShare) Holder() fcp.WriterID { return s.p().holder }

// Wipe overwrites the share. It is unusable after.
func (s *SecretShare) Wipe() { clear(s.p().opened) }

// index returns the index of a device's share, from 1.
func (s *Secret) index(holder fcp.WriterID) (byte, bool) {
	i, ok := slices.BinarySearchFunc(s.o.Shares, holder, func(e sealedShare, w fcp.WriterID) int { return bytes.Compare(e.Holder[:], w[:]) })
	return byte(i + 1), ok
}

// OpenShare opens this device's share. Errors: CodeNotFound when it holds none,
// CodeWrongKey when the box is not for its key, CodeCorrupt when the share does not
// fit its commitment.
func (s *Secret) OpenShare(node *NodeKeys) (*SecretShare, error) {
	holder := node.Writer()
	i, ok := s.index(holder)
	if !ok {
		return nil, fcp.Errorf(fcp.CodeNotFound, "device %.16s holds no share of %s", holder, s.o.Name)
	}
	addr := boxAddress{s.o.Zone, holder.String(), purposeSecretShare, s.o.IssuedAt}
	opened, err := node.opener().open(addr, &s.o.Shares[i-1].Box)
	if err != nil {
		return nil, err
	}
	return s.accept(i, opened)
}

// accept takes an opened share that fits its commitment; it names the one that does
// not. It keeps opened.
func (s *Secret) accept(index byte, opened []byte) (*SecretShare, error) {
	e := &s.o.Shares[index-1]
	if want := len(e.Box.CT) - TagSize; len(opened) != want || s.o.shareCommitment(index, e.Holder, opened) != e.Commitment {
		clear(opened)
		return nil, fcp.Errorf(fcp.CodeCorrupt, "share %d of %s, of device %.16s, is not the one that was given to it", index, s.o.Name, e.Holder).
			WithNext("ask other devices, then share the secret again without that one")
	}
	secret := &shareSecret{s.ref, index, e.Holder, opened}
	return &SecretShare{p: func() *shareSecret { return secret }}, nil
}

// Rebuild brings the value back from at least Threshold shares of this version,
// calls use with it and wipes it when use returns; use must not keep it. Errors:
// CodeNotEnough for too few shares, CodeInvalidArgument for one of another version
// or twice, CodeCorrupt when the shares were dealt wrong, and that of use.
func (s *Secret) Rebuild(shares []*SecretShare, use func(value []byte) error) error {
	if s.Removed() {
		return fcp.Errorf(fcp.CodeNotFound, "secret %s was removed", s.o.Name)
	}
	if len(shares) < s.Threshold() {
		return fcp.Errorf(fcp.CodeNotEnough, "%d of %d shares of %s", len(shares), s.Threshold(), s.o.Name).
			WithNext("bring more of the devices that hold one into reach")
	}
	points := make([]shamir.Share, 0, s.Threshold())
	for _, sh := range shares[:s.Threshold()] {
		p := sh.p()
		if p.of != s.ref {
			return fcp.Errorf(fcp.CodeInvalidArgument, "a share of another version of %s", s.o.Name)
		}
		points = append(points, shamir.Share{X: p.index, Y: p.opened[shareBlind:]})
	}
	padded, err := shamir.Combine(points)
	if err != nil {
		return err
	}
	defer clear(padded)
	n := int(binary.BigEndian.Uint16(padded[secretSeed:]))
	if s.o.commitment(padded) != fcp.Hash(s.o.Commitment) || n == 0 || secretSeed+secretLengthLen+n > len(padded) {
		return fcp.Errorf(fcp.CodeCorrupt, "the shares of %s fit their commitments and not the secret: whoever signed version %d dealt them wrong", s.o.Name, s.o.Version)
	}
	return use(padded[secretSeed+secretLengthLen:][:n:n])
}

// sealTo seals plaintext to a recipient under a KEM; 0 is KEMClassic.
func sealTo(rand io.Reader, to Recipient, kem KEM, addr boxAddress, plaintext []byte) (*hpkeBox, error) {
	if kem == KEMHybrid {
		if to.hybrid == nil {
			return nil, fcp.Errorf(fcp.CodeWrongKey, "the hybrid key of %.16s is not known", to.id).
				WithNext("enroll the device again, or define the zone with the classic KEM")
		}
		return sealHybrid(to.hybrid, addr, plaintext)
	}
	pub, err := ecdh.X25519().NewPublicKey(to.key[:])
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "encryption key of %s", to.id)
	}
	return sealBox(rand, pub, addr, plaintext)
}

// releasedShare is a share on its way to the device that rebuilds, as the answer to
// a ShareAsk.
type releasedShare struct {
	Format   uint64   `cbor:"format"`
	Secret   fcp.Hash `cbor:"secret"` // ref of the version
	Index    uint8    `cbor:"index"`
	IssuedAt uint64   `cbor:"issued_at"` // unix seconds; bound into the box
	Box      hpkeBox  `cbor:"box"`       // to the device that rebuilds
}

// Release seals the share to the device that rebuilds, under the KEM of the
// object. The caller has decided that it may have it.
func (s *Secret) Release(rand io.Reader, now time.Time, share *SecretShare, to Recipient) ([]byte, error) {
	p := share.p()
	if p.of != s.ref {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a share of another version of %s", s.o.Name)
	}
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	box, err := sealTo(rand, to, s.o.Shares[0].Box.KEM, boxAddress{s.o.Zone, to.id, purposeSecretRelease, at}, p.opened)
	if err != nil {
		return nil, err
	}
	return fcp.Marshal(releasedShare{ObjectFormat, s.ref, p.index, at, *box})
}

// Receive opens an answer of a device and checks the share against the commitment
// of that device, so that a wrong one is named. Errors: CodeMalformed,
// CodeNonCanonical, CodeVersion, CodeInvalidArgument for an answer about another
// version, CodeNotFound, CodeWrongKey, CodeCorrupt.
func (s *Secret) Receive(node *NodeKeys, from fcp.WriterID, answer []byte) (*SecretShare, error) {
	r, err := decodeReleased(answer)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeMalformed, err, "the answer of device %.16s", from)
	}
	i, ok := s.index(from)
	if !ok || r.Index != i || r.Secret != s.ref {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "device %.16s answered with share %d of another version of %s", from, r.Index, s.o.Name)
	}
	opened, err := node.opener().open(boxAddress{s.o.Zone, node.Writer().String(), purposeSecretRelease, r.IssuedAt}, &r.Box)
	if err != nil {
		return nil, err
	}
	return s.accept(i, opened)
}

// maxShareMessage limits asks and answers, in bytes.
const maxShareMessage = 256 << 10

func decodeReleased(b []byte) (r releasedShare, err error) {
	if len(b) > maxShareMessage {
		return r, fcp.Errorf(fcp.CodeTooLarge, "an answer of %d bytes", len(b))
	}
	if err := fcp.Unmarshal(b, &r); err != nil {
		return r, err
	}
	if r.Format != ObjectFormat {
		return r, fcp.Errorf(fcp.CodeVersion, "a share in format %d", r.Format)
	}
	return r, r.Box.check()
}

// ShareAsk is what a device that rebuilds a secret tells one that holds a share.
// Who asks is whom the session authenticated; the ask says why it may: a secret
// access token, or a caller's capability token with his proof of possession. The
// one who is asked decides by itself.
type ShareAsk struct {
	Zone      fcp.ZoneID
	Secret    SecretID
	Version   uint64
	Request   fcp.ObjectID    // of the request that the value serves
	Principal fcp.CanonicalID // who makes it

	Access []byte // a secret access token; else Token and the rest

	Token     []byte // chain
	Nonce     [32]byte
	At        time.Time // whole seconds
	Signature []byte    // proof of possession over Challenge
}

// Challenge is what the holder of the token signs for all devices that are asked:
// BLAKE3-256("FCP2-SHARE-CHALLENGE-V1" || nonce || u64be unix seconds). It is
// taken for MaxSkew around that second.
func (a *ShareAsk) Challenge() Challenge {
	b := binary.BigEndian.AppendUint64(a.Nonce[:len(a.Nonce):len(a.Nonce)], uint64(max(a.At.Unix(), 0)))
	return Challenge{Kind: ChallengeNonce, Value: purposeHash("FCP2-SHARE-CHALLENGE-V1", b)}
}

// Fresh reports whether the challenge is of about now.
func (a *ShareAsk) Fresh(now time.Time) bool { return now.Sub(a.At).Abs() <= MaxSkew }

// shareAsk is ShareAsk on the wire: a canonical map.
type shareAsk struct {
	Format    uint64          `cbor:"format"`
	Zone      fcp.ZoneID      `cbor:"zone_id"`
	Secret    SecretID        `cbor:"secret_id"`
	Version   uint64          `cbor:"version"`
	Request   fcp.ObjectID    `cbor:"request_object_id"`
	Principal fcp.CanonicalID `cbor:"principal"`
	Access    []byte          `cbor:"access,omitempty"`
	Token     []byte          `cbor:"token,omitempty"`
	Nonce     []byte          `cbor:"nonce,omitempty"`
	At        uint64          `cbor:"at,omitempty"`
	Signature []byte          `cbor:"proof,omitempty"`
}

// Encode returns the ask as it travels.
func (a *ShareAsk) Encode() ([]byte, error) {
	o := shareAsk{Format: ObjectFormat, Zone: a.Zone, Secret: a.Secret, Version: a.Version, Request: a.Request, Principal: a.Principal, Access: a.Access}
	if a.Access == nil {
		at, err := unixSeconds(a.At)
		if err != nil {
			return nil, err
		}
		o.Token, o.Nonce, o.At, o.Signature = a.Token, a.Nonce[:], at, a.Signature
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.Marshal(&o)
}

// DecodeShareAsk is the inverse of Encode. Errors: CodeMalformed, CodeNonCanonical,
// CodeVersion, CodeZone, CodeMissingField, CodeTooLarge.
func DecodeShareAsk(b []byte) (*ShareAsk, error) {
	if len(b) > maxShareMessage {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an ask of %d bytes", len(b))
	}
	var o shareAsk
	if err := fcp.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	a := &ShareAsk{Zone: o.Zone, Secret: o.Secret, Version: o.Version, Request: o.Request, Principal: o.Principal, Access: o.Access}
	if o.Access == nil {
		a.Token, a.Nonce, a.At, a.Signature = o.Token, [32]byte(o.Nonce), fromUnix(o.At), o.Signature
	}
	return a, nil
}

func (o *shareAsk) check() error {
	if o.Format != ObjectFormat {
		return fcp.Errorf(fcp.CodeVersion, "an ask for a share in format %d", o.Format)
	}
	if _, err := fcp.ParseCanonicalID(string(o.Principal)); err != nil {
		return fcp.Wrap(fcp.CodeMalformed, err, "an ask for a share")
	}
	byToken := o.Token != nil || o.Nonce != nil || o.At != 0 || o.Signature != nil
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "an ask for a share in %.64q", string(o.Zone))
	case o.Secret == SecretID{} || o.Version == 0 || o.Request.IsZero():
		return fcp.Errorf(fcp.CodeMissingField, "an ask for a share without secret, version or request")
	case (o.Access != nil) == byToken:
		return fcp.Errorf(fcp.CodeMissingField, "an ask for a share rests on one token")
	case byToken && (len(o.Token) == 0 || len(o.Nonce) != 32 || o.At == 0 || o.At > maxUnixSeconds || len(o.Signature) == 0),
		o.Access != nil && len(o.Access) == 0:
		return fcp.Errorf(fcp.CodeMissingField, "an ask for a share with half a token")
	}
	return nil
}

// Issuer returns the key that signed the access token.
func (s *SecretAccess) Issuer() OwnerPublic { return s.key }
