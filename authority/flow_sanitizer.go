package authority

import (
	"time"

	"fcp"
)

// sanitizerObject is SanitizerReceipt in the native profile on the wire.
type sanitizerObject struct {
	Format     uint64          `cbor:"format"`
	ID         string          `cbor:"receipt_id"`
	Zone       fcp.ZoneID      `cbor:"zone_id"`
	Sanitizer  fcp.CanonicalID `cbor:"sanitizer_id"`
	Authorized TaintFlags      `cbor:"authorized_flags"`
	Cleared    TaintFlags      `cbor:"cleared_flags"`
	Covered    []string        `cbor:"covered_inputs"`
	At         uint64          `cbor:"timestamp_ms"`
	Issuer     SigningPublic   `cbor:"issuer"` // of the node that ran it
	Signature  []byte          `cbor:"signature,omitempty"`
}

// SchemaSanitizerReceipt is the schema of sanitizer receipts.
var SchemaSanitizerReceipt = fcp.MustSchema("fcp.core:SanitizerReceipt@1.0.0")

// SanitizerReceipt is a verified sanitizer receipt, made by VerifySanitizer.
type SanitizerReceipt struct {
	ref    fcp.Hash
	issuer fcp.WriterID
	spec   SanitizerSpec
}

// Ref returns RefOf the receipt's bytes.
func (s *SanitizerReceipt) Ref() fcp.Hash { return s.ref }

// Issuer returns the node that ran the sanitizer.
func (s *SanitizerReceipt) Issuer() fcp.WriterID { return s.issuer }

// Spec returns what it says. The caller must not change its lists.
func (s *SanitizerReceipt) Spec() SanitizerSpec { return s.spec }

// SignSanitizer returns the receipt, signed by the node that ran the sanitizer.
func SignSanitizer(now time.Time, node *NodeKeys, spec SanitizerSpec) ([]byte, error) {
	if _, err := unixSeconds(now); err != nil {
		return nil, err
	}
	o := sanitizerObject{
		Format: ObjectFormat, ID: spec.ID, Zone: spec.Zone, Sanitizer: spec.Sanitizer, Authorized: spec.Authorized,
		Cleared: spec.Cleared, Covered: spec.Covered, At: uint64(now.UnixMilli()), Issuer: node.Public().Signing,
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(node, SchemaSanitizerReceipt, &o, &o.Signature)
}

// VerifySanitizer decodes a sanitizer receipt and checks that the node it names
// signed exactly these bytes. What the sanitizer may clear is Facts.Sanitizers to
// say: the receipt's own word alone clears nothing.
func VerifySanitizer(b []byte) (*SanitizerReceipt, error) {
	var o sanitizerObject
	s, err := decodeSigned(SchemaSanitizerReceipt, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if !o.Issuer.Verify(s.message, s.signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "sanitizer receipt by %s", fcp.KidOf(o.Issuer[:]))
	}
	return &SanitizerReceipt{RefOf(b), fcp.WriterOf(o.Issuer[:]), SanitizerSpec{o.ID, o.Zone, o.Sanitizer, o.Authorized, o.Cleared, o.Covered}}, nil
}

func (o *sanitizerObject) check() error {
	if err := checkCommon(SchemaSanitizerReceipt, o.Format, o.At/1000); err != nil {
		return err
	}
	_, err := fcp.ParseCanonicalID(string(o.Sanitizer))
	bad := err != nil || !o.Zone.Valid() || !validToken(o.ID, fcp.MaxIdentifier) || len(o.Covered) > MaxCovered
	for _, in := range o.Covered {
		bad = bad || !validToken(in, fcp.MaxIdentifier)
	}
	if bad {
		return refuse(ReasonSanitizerInvalid, "its form")
	}
	return nil
}
