package authority

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"io"

	"fcp"
)

// Public keys, one type per role.
type (
	OwnerPublic      [KeySize]byte // Ed25519: root of all authority
	RecoveryPublic   [KeySize]byte // X25519: every zone key is also sealed to it
	SigningPublic    [KeySize]byte // Ed25519: a node's heads, cards and audit entries
	EncryptionPublic [KeySize]byte // X25519: a node's HPKE recipient
	IssuancePublic   [KeySize]byte // Ed25519: mints tokens and nothing else
)

func (k OwnerPublic) String() string      { return hex.EncodeToString(k[:]) }
func (k RecoveryPublic) String() string   { return hex.EncodeToString(k[:]) }
func (k SigningPublic) String() string    { return hex.EncodeToString(k[:]) }
func (k EncryptionPublic) String() string { return hex.EncodeToString(k[:]) }
func (k IssuancePublic) String() string   { return hex.EncodeToString(k[:]) }

// Verify reports whether sig is the owner's Ed25519 signature of message.
func (k OwnerPublic) Verify(message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(k[:], message, sig)
}

// Verify reports whether sig is the node's Ed25519 signature of message.
func (k SigningPublic) Verify(message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(k[:], message, sig)
}

// Verify reports whether sig is the issuer's Ed25519 signature of message.
func (k IssuancePublic) Verify(message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(k[:], message, sig)
}

// Derivation strings. The first two are spec/wire.md section 13.9; the recovery
// key has its own salt and info so that neither key tells about the other.
const (
	ownerSalt    = "FCP2-OWNER-KEY-V1"
	ownerInfo    = "owner-signing-key"
	recoverySalt = "FCP2-RECOVERY-KEY-V1"
	recoveryInfo = "owner-recovery-hpke-key"
)

// OwnerKey is the owner's root: 32 bytes of entropy, written down as 24 words,
// and the Ed25519 key derived from it (spec/wire.md section 13.9).
type OwnerKey struct {
	redacted
	p func() *ownerSecret
}

type ownerSecret struct {
	entropy [KeySize]byte
	priv    ed25519.PrivateKey
}

// NewOwnerKey makes an owner key from 32 bytes of rand.
func NewOwnerKey(rand io.Reader) (*OwnerKey, error) {
	e, err := readKey(rand)
	if err != nil {
		return nil, err
	}
	defer clear(e[:])
	return OwnerKeyFromEntropy(e[:])
}

// OwnerKeyFromEntropy derives the owner key of exactly 32 bytes of entropy;
// anything else is CodeMalformed.
func OwnerKeyFromEntropy(entropy []byte) (*OwnerKey, error) {
	if len(entropy) != KeySize {
		return nil, fcp.Errorf(fcp.CodeMalformed, "owner entropy has %d bytes, not %d", len(entropy), KeySize)
	}
	seed, err := hkdf.Key(sha256.New, entropy, []byte(ownerSalt), ownerInfo, ed25519.SeedSize)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "derive the owner key")
	}
	defer clear(seed)
	s := &ownerSecret{priv: ed25519.NewKeyFromSeed(seed)}
	copy(s.entropy[:], entropy)
	return &OwnerKey{p: hide(s)}, nil
}

// Entropy returns a copy of the 32 secret bytes, for the keystore only. The
// caller clears it.
func (k *OwnerKey) Entropy() []byte { return append([]byte(nil), k.p().entropy[:]...) }

// Public returns the owner's public key.
func (k *OwnerKey) Public() OwnerPublic { return OwnerPublic(k.p().priv.Public().(ed25519.PublicKey)) }

// Sign signs message. Use it only over bytes that begin with a schema hash or a
// purpose string.
func (k *OwnerKey) Sign(message []byte) []byte { return ed25519.Sign(k.p().priv, message) }

// Recovery derives the owner's recovery key.
func (k *OwnerKey) Recovery() (*RecoveryKey, error) {
	b, err := hkdf.Key(sha256.New, k.p().entropy[:], []byte(recoverySalt), recoveryInfo, KeySize)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "derive the recovery key")
	}
	defer clear(b)
	p, err := ecdh.X25519().NewPrivateKey(b)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "derive the recovery key")
	}
	hybrid, err := hybridSeed(k.p().entropy[:], recoveryHybridSalt, recoveryHybridInfo)
	if err != nil {
		return nil, err
	}
	return &RecoveryKey{p: hide(&recoverySecret{priv: p, hybrid: hybrid})}, nil
}

// Wipe overwrites the secret bytes as far as Go allows. The key is unusable after.
func (k *OwnerKey) Wipe() {
	clear(k.p().entropy[:])
	clear(k.p().priv)
}

// recoverySecret hides a crypto/ecdh key, whose bytes cannot be overwritten: Wipe
// drops the only reference.
type recoverySecret struct {
	priv   *ecdh.PrivateKey
	hybrid [KeySize]byte // seed of the key under KEMHybrid
}

// RecoveryKey opens what is sealed to the owner's recovery recipient.
type RecoveryKey struct {
	redacted
	p func() *recoverySecret
}

// Public returns the recovery recipient.
func (k *RecoveryKey) Public() RecoveryPublic {
	return RecoveryPublic(k.p().priv.PublicKey().Bytes())
}

// Wipe forgets the key. It is unusable after.
func (k *RecoveryKey) Wipe() {
	k.p().priv = nil
	clear(k.p().hybrid[:])
}

// NodeKeys are the three keys of one node.
type NodeKeys struct {
	redacted
	p func() *nodeSecret
}

type nodeSecret struct {
	signing    ed25519.PrivateKey
	encryption *ecdh.PrivateKey
	issuance   ed25519.PrivateKey
}

// NodePublic is what others know of a node's keys.
type NodePublic struct {
	Signing    SigningPublic
	Encryption EncryptionPublic
	Issuance   IssuancePublic
}

// NodeSecretSize is the length of NodeKeys.Secret.
const NodeSecretSize = 3 * KeySize

// NewNodeKeys makes the three keys of a node from 96 bytes of rand.
func NewNodeKeys(rand io.Reader) (*NodeKeys, error) {
	var b [NodeSecretSize]byte
	defer clear(b[:])
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for the node keys")
	}
	clamp(b[KeySize : 2*KeySize])
	return NodeKeysFromSecret(b[:])
}

// clamp gives an X25519 scalar its one canonical form (RFC 7748 section 5).
func clamp(b []byte) {
	b[0] &= 248
	b[31] = b[31]&127 | 64
}

// NodeKeysFromSecret is the inverse of Secret. Wrong lengths and X25519 scalars
// that are not clamped are CodeMalformed, so each key has one form.
func NodeKeysFromSecret(b []byte) (*NodeKeys, error) {
	if len(b) != NodeSecretSize {
		return nil, fcp.Errorf(fcp.CodeMalformed, "node keys have %d bytes, not %d", len(b), NodeSecretSize)
	}
	scalar := b[KeySize : 2*KeySize]
	if scalar[0]&7 != 0 || scalar[31]&192 != 64 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "the node's encryption key is not clamped")
	}
	enc, err := ecdh.X25519().NewPrivateKey(scalar)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeMalformed, err, "the node's encryption key")
	}
	return &NodeKeys{p: hide(&nodeSecret{
		signing:    ed25519.NewKeyFromSeed(b[:KeySize]),
		encryption: enc,
		issuance:   ed25519.NewKeyFromSeed(b[2*KeySize:]),
	})}, nil
}

// Secret returns signing seed, encryption scalar and issuance seed, 96 bytes, for
// the keystore only. The caller clears them.
func (k *NodeKeys) Secret() []byte {
	b := make([]byte, 0, NodeSecretSize)
	b = append(b, k.p().signing[:KeySize]...)
	b = append(b, k.p().encryption.Bytes()...)
	return append(b, k.p().issuance[:KeySize]...)
}

// Public returns the three public keys.
func (k *NodeKeys) Public() NodePublic {
	return NodePublic{
		Signing:    SigningPublic(k.p().signing.Public().(ed25519.PublicKey)),
		Encryption: EncryptionPublic(k.p().encryption.PublicKey().Bytes()),
		Issuance:   IssuancePublic(k.p().issuance.Public().(ed25519.PublicKey)),
	}
}

// Writer returns the id under which the node writes its feeds.
func (k *NodeKeys) Writer() fcp.WriterID { return k.Public().Writer() }

// Sign signs message with the node signing key. Use it only over bytes that
// begin with a schema hash or a purpose string.
func (k *NodeKeys) Sign(message []byte) []byte { return ed25519.Sign(k.p().signing, message) }

// Issue signs message with the issuance key, which mints tokens and nothing else.
func (k *NodeKeys) Issue(message []byte) []byte { return ed25519.Sign(k.p().issuance, message) }

// Wipe overwrites the keys as far as Go allows. They are unusable after.
func (k *NodeKeys) Wipe() {
	clear(k.p().signing)
	clear(k.p().issuance)
	k.p().encryption = nil
}

// Writer returns the id under which the node writes its feeds.
func (p NodePublic) Writer() fcp.WriterID { return fcp.WriterOf(ed25519.PublicKey(p.Signing[:])) }
