package authority

import (
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/binary"
	"io"

	"golang.org/x/crypto/chacha20poly1305"

	"fcp"
)

// KEM is an HPKE key encapsulation mechanism (RFC 9180 section 7.1). A zone's
// definition chooses the one its keys are sealed with.
type KEM uint16

// The two KEMs. The hybrid stays secret as long as either half does: X25519, or
// ML-KEM-768 against somebody who records today and has a quantum computer later.
const (
	KEMClassic KEM = 0x0020 // DHKEM(X25519, HKDF-SHA256), RFC 9180
	KEMHybrid  KEM = 0x647a // MLKEM768-X25519 (X-Wing), draft-ietf-hpke-pq
)

// encSize returns the bytes of an encapsulated key; 0 for an unknown KEM.
func (k KEM) encSize() int {
	switch k {
	case KEMClassic:
		return KeySize
	case KEMHybrid:
		return hybridEncSize
	}
	return 0
}

// The rest of the suite (spec/wire.md section 7): base mode, HKDF-SHA256,
// ChaCha20-Poly1305.
const (
	hpkeKDF  = 0x0001
	hpkeAEAD = 0x0003
	hpkeInfo = "FCP2-HPKE"
)

// purpose says what a sealed box holds. It is bound into the box.
type purpose string

// The purposes. The first two are spec/wire.md section 7.
const (
	purposeZoneKey     purpose = "FCP2-ZONE-KEY"
	purposeObjectIDKey purpose = "FCP2-OBJECTID-KEY"
	purposeBodyKey     purpose = "FCP2-BODY-KEY"
)

// maxBoxCiphertext limits the ciphertext of a box, tag included.
const maxBoxCiphertext = 4096

// hpkeBox is an HPKE sealed box in the native five-field form: the three algorithm
// ids, the encapsulated key and the ciphertext with its tag.
type hpkeBox struct {
	KEM  KEM    `cbor:"kem"`
	KDF  uint16 `cbor:"kdf"`
	AEAD uint16 `cbor:"aead"`
	Enc  []byte `cbor:"enc"`
	CT   []byte `cbor:"ct"`
}

func (b *hpkeBox) check() error {
	switch {
	case b.KEM.encSize() == 0 || b.KDF != hpkeKDF || b.AEAD != hpkeAEAD:
		return fcp.Errorf(fcp.CodeMalformed, "sealed box with algorithms %#04x/%#04x/%#04x", uint16(b.KEM), b.KDF, b.AEAD)
	case len(b.Enc) != b.KEM.encSize():
		return fcp.Errorf(fcp.CodeMalformed, "sealed box with an encapsulated key of %d bytes", len(b.Enc))
	case len(b.CT) < TagSize || len(b.CT) > maxBoxCiphertext:
		return fcp.Errorf(fcp.CodeMalformed, "sealed box with %d bytes of ciphertext", len(b.CT))
	}
	return nil
}

// boxAddress is what a box is bound to. Its canonical CBOR is the AAD: a map with
// byte strings and, for IssuedAt, unix seconds (spec/wire.md section 7).
type boxAddress struct {
	Zone      fcp.ZoneID
	Recipient string // the recipient's id, see Recipient
	Purpose   purpose
	IssuedAt  uint64 // unix seconds
}

func (a boxAddress) aad() ([]byte, error) {
	return fcp.Marshal(struct {
		Purpose   []byte `cbor:"purpose"`
		Zone      []byte `cbor:"zone_id"`
		IssuedAt  uint64 `cbor:"issued_at"`
		Recipient []byte `cbor:"recipient_node_id"`
	}{[]byte(a.Purpose), []byte(a.Zone), a.IssuedAt, []byte(a.Recipient)})
}

// sealBox seals plaintext to an X25519 key. crypto/hpke draws its ephemeral key
// from the operating system only; this draws it from rand, so that a simulated
// mesh is repeatable. A test opens every box with crypto/hpke.
func sealBox(rand io.Reader, to *ecdh.PublicKey, addr boxAddress, plaintext []byte) (*hpkeBox, error) {
	aad, err := addr.aad()
	if err != nil {
		return nil, err
	}
	e, err := readKey(rand)
	if err != nil {
		return nil, err
	}
	defer clear(e[:])
	eph, err := ecdh.X25519().NewPrivateKey(e[:])
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "ephemeral key")
	}
	aead, nonce, err := hpkeSender(eph, to, []byte(hpkeInfo))
	if err != nil {
		return nil, err
	}
	return &hpkeBox{
		KEM: KEMClassic, KDF: hpkeKDF, AEAD: hpkeAEAD,
		Enc: eph.PublicKey().Bytes(),
		CT:  aead.Seal(nil, nonce, plaintext, aad),
	}, nil
}

// hpkeSender is Encap and KeySchedule of RFC 9180 sections 4.1 and 5.1 in base
// mode with a given ephemeral key. The nonce is that of sequence number 0.
func hpkeSender(eph *ecdh.PrivateKey, to *ecdh.PublicKey, info []byte) (cipher.AEAD, []byte, error) {
	dh, err := eph.ECDH(to) // refuses an all-zero result, RFC 9180 section 7.1.4
	if err != nil {
		return nil, nil, fcp.Errorf(fcp.CodeMalformed, "the recipient's key is of low order")
	}
	defer clear(dh)
	l := labeled{suite: binary.BigEndian.AppendUint16([]byte("KEM"), uint16(KEMClassic))}
	context := append(eph.PublicKey().Bytes(), to.Bytes()...)
	shared := l.expand(l.extract(nil, "eae_prk", dh), "shared_secret", context, sha256.Size)
	defer clear(shared)

	l.suite = []byte("HPKE")
	for _, id := range []uint16{uint16(KEMClassic), hpkeKDF, hpkeAEAD} {
		l.suite = binary.BigEndian.AppendUint16(l.suite, id)
	}
	context = append([]byte{0}, l.extract(nil, "psk_id_hash", nil)...)
	context = append(context, l.extract(nil, "info_hash", info)...)
	secret := l.extract(shared, "secret", nil)
	defer clear(secret)
	key := l.expand(secret, "key", context, chacha20poly1305.KeySize)
	defer clear(key)
	nonce := l.expand(secret, "base_nonce", context, chacha20poly1305.NonceSize)
	if l.err != nil {
		return nil, nil, fcp.Wrap(fcp.CodeInternal, l.err, "HPKE key schedule")
	}
	aead, err := chacha20poly1305.New(key)
	return aead, nonce, fcp.Wrap(fcp.CodeInternal, err, "HPKE cipher")
}

// labeled is LabeledExtract and LabeledExpand of RFC 9180 section 4.
type labeled struct {
	suite []byte
	err   error // the first failure; the caller checks once
}

func (l *labeled) extract(salt []byte, label string, ikm []byte) []byte {
	in := append([]byte("HPKE-v1"), l.suite...)
	in = append(append(in, label...), ikm...)
	out, err := hkdf.Extract(sha256.New, in, salt)
	clear(in)
	if err != nil && l.err == nil {
		l.err = err
	}
	return out
}

func (l *labeled) expand(prk []byte, label string, info []byte, n int) []byte {
	in := binary.BigEndian.AppendUint16(nil, uint16(n))
	in = append(append(in, "HPKE-v1"...), l.suite...)
	in = append(append(in, label...), info...)
	out, err := hkdf.Expand(sha256.New, prk, string(in), n)
	if err != nil && l.err == nil {
		l.err = err
	}
	return out
}

// boxOpener is the private half of a recipient: a key of each KEM. hybrid is asked
// only for a hybrid box.
type boxOpener struct {
	classic *ecdh.PrivateKey
	hybrid  func() (hpke.PrivateKey, error)
}

// open opens a box with crypto/hpke. A box for another key, address or purpose, or
// of other bytes, is CodeWrongKey.
func (o boxOpener) open(addr boxAddress, b *hpkeBox) ([]byte, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if o.classic == nil {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "the key was wiped")
	}
	aad, err := addr.aad()
	if err != nil {
		return nil, err
	}
	var priv hpke.PrivateKey
	if b.KEM == KEMHybrid {
		priv, err = o.hybrid()
	} else {
		priv, err = hpke.NewDHKEMPrivateKey(o.classic)
	}
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "HPKE key")
	}
	r, err := hpke.NewRecipient(b.Enc, priv, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(hpkeInfo))
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeMalformed, "sealed box with an unusable encapsulated key")
	}
	pt, err := r.Open(aad, b.CT)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "a box with %s of %s does not open for %s", addr.Purpose, addr.Zone, addr.Recipient)
	}
	return pt, nil
}
