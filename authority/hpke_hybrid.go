package authority

import (
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"

	"fcp"
)

// Sizes of the hybrid KEM: an ML-KEM-768 encapsulation key or ciphertext (FIPS
// 203) and an X25519 key behind it.
const (
	HybridPublicSize = 1184 + KeySize
	hybridEncSize    = 1088 + KeySize
)

// HybridPublic is the public key of an HPKE recipient under KEMHybrid.
type HybridPublic []byte

// Derivation strings of the hybrid seeds.
const (
	nodeHybridSalt     = "FCP2-NODE-HYBRID-KEY-V1"
	nodeHybridInfo     = "node-hybrid-hpke-key"
	recoveryHybridSalt = "FCP2-RECOVERY-HYBRID-KEY-V1"
	recoveryHybridInfo = "owner-recovery-hybrid-hpke-key"
)

// hybridSeed derives the 32-byte seed of a hybrid key pair. The secret must hold
// more than an X25519 scalar: who can compute that scalar from its public key must
// not come by the ML-KEM half. Node secrets hold two Ed25519 seeds besides, which
// no public key gives away, and owner entropy is no key at all.
func hybridSeed(secret []byte, salt, info string) (seed [KeySize]byte, err error) {
	b, err := hkdf.Key(sha256.New, secret, []byte(salt), info, KeySize)
	if err != nil {
		return seed, fcp.Wrap(fcp.CodeInternal, err, "derive a hybrid key")
	}
	copy(seed[:], b)
	clear(b)
	return seed, nil
}

func hybridKey(seed *[KeySize]byte) (hpke.PrivateKey, error) {
	k, err := hpke.MLKEM768X25519().NewPrivateKey(seed[:])
	return k, fcp.Wrap(fcp.CodeInternal, err, "hybrid key")
}

func (k *NodeKeys) hybrid() (hpke.PrivateKey, error) {
	secret := k.Secret()
	defer clear(secret)
	seed, err := hybridSeed(secret, nodeHybridSalt, nodeHybridInfo)
	if err != nil {
		return nil, err
	}
	defer clear(seed[:])
	return hybridKey(&seed)
}

// Hybrid returns the node's public key under KEMHybrid.
func (k *NodeKeys) Hybrid() (HybridPublic, error) {
	p, err := k.hybrid()
	if err != nil {
		return nil, err
	}
	return p.PublicKey().Bytes(), nil
}

func (k *NodeKeys) opener() boxOpener { return boxOpener{k.p().encryption, k.hybrid} }

// Hybrid returns the recovery recipient's public key under KEMHybrid.
func (k *RecoveryKey) Hybrid() (HybridPublic, error) {
	p, err := k.hybrid()
	if err != nil {
		return nil, err
	}
	return p.PublicKey().Bytes(), nil
}

func (k *RecoveryKey) hybrid() (hpke.PrivateKey, error) { return hybridKey(&k.p().hybrid) }

func (k *RecoveryKey) opener() boxOpener { return boxOpener{k.p().priv, k.hybrid} }

// sealHybrid seals plaintext to a hybrid key. crypto/hpke draws what it needs from
// the operating system and takes no other source, so these boxes are not
// repeatable.
func sealHybrid(to HybridPublic, addr boxAddress, plaintext []byte) (*hpkeBox, error) {
	aad, err := addr.aad()
	if err != nil {
		return nil, err
	}
	pub, err := hpke.MLKEM768X25519().NewPublicKey(to)
	if err != nil {
		return nil, fcp.Errorf(fcp.CodeMalformed, "the hybrid key of %.16s is none", addr.Recipient)
	}
	enc, s, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(hpkeInfo))
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "HPKE sender")
	}
	ct, err := s.Seal(aad, plaintext)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "HPKE seal")
	}
	return &hpkeBox{KEM: KEMHybrid, KDF: hpkeKDF, AEAD: hpkeAEAD, Enc: enc, CT: ct}, nil
}

func (p HybridPublic) check() error {
	if len(p) != HybridPublicSize {
		return fcp.Errorf(fcp.CodeMalformed, "a hybrid key of %d bytes", len(p))
	}
	if _, err := hpke.MLKEM768X25519().NewPublicKey(p); err != nil {
		return fcp.Errorf(fcp.CodeMalformed, "bytes that are no hybrid key")
	}
	return nil
}
