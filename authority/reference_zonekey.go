package authority

import (
	"encoding/hex"

	"fcp"
)

// The zone key manifest of the reference profile (spec/wire.md sections 7 and
// 13.1). It is read for interchange and never trusted: it is not what this store
// seals its keys with.

// ReferenceBox is a sealed box without algorithm ids: hex text, also in CBOR.
type ReferenceBox struct {
	Enc        string `cbor:"enc"`
	Ciphertext string `cbor:"ciphertext"`
}

// ReferenceWrappedKey is one wrapped key.
type ReferenceWrappedKey struct {
	Recipient string       `cbor:"recipient"`
	IssuedAt  uint64       `cbor:"issued_at"` // unix seconds
	Sealed    ReferenceBox `cbor:"sealed"`
}

// ReferenceRekeyPolicy says when the reference makes new keys.
type ReferenceRekeyPolicy struct {
	EpochRatchet bool    `cbor:"epoch_ratchet"`
	Overlap      *uint64 `cbor:"overlap_window_secs,omitempty"`
	RetainEpochs *uint64 `cbor:"retain_epochs,omitempty"`
	Rewrap       bool    `cbor:"rewrap_on_membership_change"`
	RotateIDKey  bool    `cbor:"rotate_object_id_key_on_membership_change"`
}

// ReferenceManifest is ZoneKeyManifest of the reference.
type ReferenceManifest struct {
	Header      fcp.ObjectHeader      `cbor:"header"`
	Zone        fcp.ZoneID            `cbor:"zone_id"`
	ZoneKeyID   KeyID                 `cbor:"zone_key_id"`
	ObjectIDKey KeyID                 `cbor:"object_id_key_id"`
	Algorithm   string                `cbor:"algorithm"`
	ValidFrom   uint64                `cbor:"valid_from"` // unix seconds
	ValidUntil  *uint64               `cbor:"valid_until,omitempty"`
	Prev        *KeyID                `cbor:"prev_zone_key_id,omitempty"`
	ZoneKeys    []ReferenceWrappedKey `cbor:"wrapped_keys"`
	IDKeys      []ReferenceWrappedKey `cbor:"wrapped_object_id_keys"`
	Rekey       *ReferenceRekeyPolicy `cbor:"rekey_policy,omitempty"`
	Signature   NodeSignature         `cbor:"signature"`
}

// The spellings that the reference's serialiser writes.
const (
	ReferenceChaCha  = "cha_cha20_poly1305"
	ReferenceXChaCha = "x_cha_cha20_poly1305"
)

// DecodeReferenceManifest strictly decodes canonical CBOR, without schema prefix,
// and checks the shape: the algorithm's one spelling, and that each recipient of a
// zone key also gets the object-id key. Signatures of the reference have no defined
// message and are not checked.
func DecodeReferenceManifest(b []byte) (*ReferenceManifest, error) {
	if len(b) > MaxSignedObject {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a reference manifest of %d bytes", len(b))
	}
	m := new(ReferenceManifest)
	if err := fcp.Unmarshal(b, m); err != nil {
		return nil, err
	}
	return m, m.check()
}

// DecodeReferenceWrappedKey strictly decodes one wrapped key.
func DecodeReferenceWrappedKey(b []byte) (*ReferenceWrappedKey, error) {
	if len(b) > MaxSignedObject {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a reference wrapped key of %d bytes", len(b))
	}
	k := new(ReferenceWrappedKey)
	if err := fcp.Unmarshal(b, k); err != nil {
		return nil, err
	}
	return k, k.check()
}

func (m *ReferenceManifest) check() error {
	switch {
	case !m.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "reference manifest of %.64q", string(m.Zone))
	case m.Algorithm != ReferenceChaCha && m.Algorithm != ReferenceXChaCha:
		return fcp.Errorf(fcp.CodeVersion, "reference manifest with algorithm %.64q", m.Algorithm)
	case m.ValidUntil != nil && *m.ValidUntil <= m.ValidFrom:
		return fcp.Errorf(fcp.CodeMalformed, "reference manifest that ends before it begins")
	case m.Prev != nil && *m.Prev == m.ZoneKeyID:
		return fcp.Errorf(fcp.CodeMalformed, "reference manifest that rotates to the same key")
	case len(m.ZoneKeys) == 0 || len(m.ZoneKeys) != len(m.IDKeys) || len(m.ZoneKeys) > MaxRecipients:
		return fcp.Errorf(fcp.CodeMalformed, "reference manifest with %d zone keys and %d object-id keys", len(m.ZoneKeys), len(m.IDKeys))
	}
	got := map[string]int{}
	for i := range m.ZoneKeys {
		for bit, k := range []*ReferenceWrappedKey{&m.ZoneKeys[i], &m.IDKeys[i]} {
			if err := k.check(); err != nil {
				return err
			}
			if got[k.Recipient]&(1<<bit) != 0 {
				return fcp.Errorf(fcp.CodeMalformed, "reference manifest with a recipient twice")
			}
			got[k.Recipient] |= 1 << bit
		}
	}
	for _, both := range got {
		if both != 3 {
			return fcp.Errorf(fcp.CodeMissingField, "reference manifest with a recipient that lacks a key")
		}
	}
	return nil
}

func (k *ReferenceWrappedKey) check() error {
	enc, err := hex.DecodeString(k.Sealed.Enc)
	if err != nil || len(enc) != KeySize || hex.EncodeToString(enc) != k.Sealed.Enc {
		return fcp.Errorf(fcp.CodeMalformed, "reference box with an encapsulated key that is not 64 lower-case hex digits")
	}
	ct, err := hex.DecodeString(k.Sealed.Ciphertext)
	if err != nil || len(ct) < TagSize || hex.EncodeToString(ct) != k.Sealed.Ciphertext {
		return fcp.Errorf(fcp.CodeMalformed, "reference box with a ciphertext that is not lower-case hex")
	}
	if k.Recipient == "" || len(k.Recipient) > MaxText {
		return fcp.Errorf(fcp.CodeMalformed, "reference box without a recipient")
	}
	return nil
}

// Rotates reports whether m follows old: it names its zone key, and has another
// one. sameIDs says that object ids stay comparable.
func (m *ReferenceManifest) Rotates(old *ReferenceManifest) (ok, sameIDs bool) {
	ok = m.Zone == old.Zone && m.Prev != nil && *m.Prev == old.ZoneKeyID && m.ZoneKeyID != old.ZoneKeyID
	return ok, m.ObjectIDKey == old.ObjectIDKey
}
