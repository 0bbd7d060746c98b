package authority

import (
	"bytes"
	"encoding/binary"
	"io"
	"time"

	"fcp"
	"fcp/authority/frost"
)

// Split deals the owner's signing key to n holders of whom k sign together (package
// frost). What they sign verifies under the same owner key as before, so nothing
// else changes. The recovery key, which opens backups, comes from the 24 words and
// is not split. The caller wipes the shares, and then the owner key.
func (k *OwnerKey) Split(rand io.Reader, threshold, n int) (*frost.Group, []*frost.KeyShare, error) {
	return frost.Deal(rand, k.p().priv.Seed(), threshold, n)
}

// drafter stands in for an owner key that is nowhere whole: it keeps what would be
// signed.
type drafter struct {
	owner   OwnerPublic
	message []byte
}

func (d *drafter) adminPublic() OwnerPublic { return d.owner }

// Sign keeps the message and returns a signature of zeros.
func (d *drafter) Sign(message []byte) []byte {
	d.message = bytes.Clone(message)
	return make([]byte, 64)
}

// DraftRevocation returns the bytes that the owner's signature of a revocation
// covers. SignedObject puts the signature in.
func DraftRevocation(now time.Time, owner OwnerPublic, s RevocationSpec) ([]byte, error) {
	d := &drafter{owner: owner}
	if _, err := Revoke(now, d, s); err != nil {
		return nil, err
	}
	return d.message, nil
}

// ReadDraftedRevocation says what a draft would revoke, for whoever is to sign it. It
// refuses a draft of another owner (CodeWrongKey) and every other kind of object: a
// signer signs only what he was shown.
func ReadDraftedRevocation(owner OwnerPublic, draft []byte) (*UnverifiedRevocation, error) {
	r, err := ReadDraft(draft)
	if err != nil {
		return nil, err
	}
	return r, checkIssuer(fcp.SchemaRevocation, r.o.Issuer, owner)
}

// ReadDraft is ReadDraftedRevocation for whoever has no key.
func ReadDraft(draft []byte) (*UnverifiedRevocation, error) {
	b, err := SignedObject(draft, make([]byte, 64))
	if err != nil {
		return nil, err
	}
	var o revocationObject
	if _, err := decodeSigned(fcp.SchemaRevocation, b, &o); err != nil {
		return nil, err
	}
	return &UnverifiedRevocation{o: o}, o.check()
}

// SignedObject puts a signature of 64 bytes into the bytes it covers, a
// schema-prefixed canonical map without the field `signature`: the inverse of what
// a verifier cuts out. Errors: CodeMalformed, CodeTooLarge.
func SignedObject(message, signature []byte) ([]byte, error) {
	if len(message) > MaxSignedObject || len(signature) != 64 {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a draft of %d bytes, a signature of %d", len(message), len(signature))
	}
	if len(message) <= fcp.HashSize || fcp.Canonical(message[fcp.HashSize:]) != nil {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a draft that is not canonical")
	}
	w := walker{b: message, i: fcp.HashSize}
	major, pairs := w.head()
	if w.bad || major != 5 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a draft that is not a map")
	}
	field := append([]byte{0x60 | byte(len(signatureField))}, signatureField...)
	body, at := w.i, len(message)
	for range pairs {
		start := w.i
		key := w.item()
		w.item()
		if w.bad || bytes.Equal(key, field) {
			return nil, fcp.Errorf(fcp.CodeMalformed, "a draft that has a signature")
		}
		// Canonical order: by length, then bytewise.
		if at == len(message) && (len(key) > len(field) || len(key) == len(field) && bytes.Compare(key, field) > 0) {
			at = start
		}
	}
	out := appendMapHead(bytes.Clone(message[:fcp.HashSize]), pairs+1)
	out = append(append(out, message[body:at]...), field...)
	out = append(binary.BigEndian.AppendUint16(out, 0x5840), signature...)
	return append(out, message[at:]...), nil
}
