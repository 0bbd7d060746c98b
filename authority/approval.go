package authority

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"time"

	"fcp"
)

// ApprovalKind is what an approval permits.
type ApprovalKind string

// The closed set of kinds (spec/wire.md section 14).
const (
	ApproveElevation        ApprovalKind = "elevation"        // data may count as having a zone's integrity
	ApproveDeclassification ApprovalKind = "declassification" // named objects may go to a less confidential zone
	ApproveExecution        ApprovalKind = "execution"        // an operation may run
)

// Limits of an approval.
const (
	MaxApprovalLifetime = 24 * time.Hour
	MaxApprovalObjects  = 64
	MaxInputConstraints = 16
	maxPointer          = 256
	maxExpected         = 1024 // bytes of an expected value
)

// InputConstraint says which value must stand at a place of the request's input.
type InputConstraint struct {
	Pointer  string      `cbor:"pointer"`  // RFC 6901
	Expected fcp.RawCBOR `cbor:"expected"` // canonical CBOR
}

// ApprovalScope says what exactly is approved. Which fields count follows from
// Kind; the others must be zero.
type ApprovalScope struct {
	Kind ApprovalKind

	// ApproveElevation
	Operation  fcp.CanonicalID // the operation that may be driven
	Provenance fcp.Hash        // Label.ID of the data
	Integrity  uint8           // up to which level it counts

	// ApproveDeclassification
	From, To        fcp.ZoneID
	Objects         []fcp.ObjectID // 1 to MaxApprovalObjects
	Confidentiality uint8          // down to which level they may go

	// ApproveExecution
	Connector fcp.CanonicalID
	Method    Pattern      // over the operation
	Request   fcp.ObjectID // only this request; zero for any that fits
	InputHash fcp.Hash     // only this input; zero for any that fits
	Input     []InputConstraint
}

// ApprovalSpec says what an approval token is to contain.
type ApprovalSpec struct {
	Zone          fcp.ZoneID
	IssuedAt      time.Time // to the millisecond
	Expires       time.Time // at most MaxApprovalLifetime later
	Justification string    // the approver's words, at most MaxText bytes of printable UTF-8
	Scope         ApprovalScope
}

// approvalObject is ApprovalToken in the native profile on the wire.
type approvalObject struct {
	Format        uint64      `cbor:"format"`
	ID            TokenID     `cbor:"token_id"`
	Zone          fcp.ZoneID  `cbor:"zone_id"`
	IssuedAtMS    uint64      `cbor:"issued_at_ms"`
	ExpiresAtMS   uint64      `cbor:"expires_at_ms"`
	Justification string      `cbor:"justification,omitempty"`
	Scope         scopeObject `cbor:"scope"`
	Issuer        OwnerPublic `cbor:"issuer"` // the owner, or an admin with ActionApprove
	Signature     []byte      `cbor:"signature,omitempty"`
}

type scopeObject struct {
	Type            ApprovalKind      `cbor:"type"`
	Operation       fcp.CanonicalID   `cbor:"operation_id,omitempty"`
	Provenance      []byte            `cbor:"original_provenance_id,omitempty"`
	Integrity       uint8             `cbor:"target_integrity,omitempty"`
	From            fcp.ZoneID        `cbor:"from_zone,omitempty"`
	To              fcp.ZoneID        `cbor:"to_zone,omitempty"`
	Objects         []fcp.ObjectID    `cbor:"object_ids,omitempty"`
	Confidentiality uint8             `cbor:"target_confidentiality,omitempty"`
	Connector       fcp.CanonicalID   `cbor:"connector_id,omitempty"`
	Method          Pattern           `cbor:"method_pattern,omitempty"`
	Request         []byte            `cbor:"request_object_id,omitempty"`
	InputHash       []byte            `cbor:"input_hash,omitempty"`
	Input           []InputConstraint `cbor:"input_constraints,omitempty"`
}

// Approval is a verified approval token, made by VerifyApproval.
type Approval struct {
	ref    fcp.Hash
	id     TokenID
	issuer OwnerPublic
	spec   ApprovalSpec
}

// Ref returns RefOf the approval's bytes.
func (a *Approval) Ref() fcp.Hash { return a.ref }

// ID returns the id under which the approval is revoked.
func (a *Approval) ID() TokenID { return a.id }

// Issuer returns the key that signed it. Whether that key may approve is policy.
func (a *Approval) Issuer() OwnerPublic { return a.issuer }

// Spec returns what is approved. The caller must not change its lists.
func (a *Approval) Spec() ApprovalSpec { return a.spec }

// validAt reports issued <= now < expires, in milliseconds and without skew.
func (a *Approval) validAt(now time.Time) bool {
	return !now.Before(a.spec.IssuedAt) && now.Before(a.spec.Expires)
}

// SignApproval returns the signed approval token. rand gives its id.
func SignApproval(rand io.Reader, by AdminKey, spec ApprovalSpec) ([]byte, error) {
	s := &spec.Scope
	o := approvalObject{
		Format: ObjectFormat, Zone: spec.Zone, Justification: spec.Justification, Issuer: by.adminPublic(),
		Scope: scopeObject{
			Type: s.Kind, Operation: s.Operation, Provenance: optionalHash(s.Provenance), Integrity: s.Integrity,
			From: s.From, To: s.To, Objects: s.Objects, Confidentiality: s.Confidentiality,
			Connector: s.Connector, Method: s.Method, Request: optionalHash(fcp.Hash(s.Request)), InputHash: optionalHash(s.InputHash), Input: s.Input,
		},
	}
	if _, err := io.ReadFull(rand, o.ID[:]); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for an approval id")
	}
	for _, t := range []time.Time{spec.IssuedAt, spec.Expires} {
		if _, err := unixSeconds(t); err != nil {
			return nil, err
		}
	}
	o.IssuedAtMS, o.ExpiresAtMS = uint64(spec.IssuedAt.UnixMilli()), uint64(spec.Expires.UnixMilli())
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(by, fcp.SchemaApprovalToken, &o, &o.Signature)
}

// VerifyApproval decodes an approval token and checks that the key it names signed
// exactly these bytes. Whether that key may approve is the caller's question: see
// Authorities.Permit. Errors as VerifyGrant.
func VerifyApproval(b []byte) (*Approval, error) {
	var o approvalObject
	s, err := decodeSigned(fcp.SchemaApprovalToken, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if !o.Issuer.Verify(s.message, s.signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "approval by %s", fcp.KidOf(o.Issuer[:]))
	}
	return &Approval{RefOf(b), o.ID, o.Issuer, o.spec()}, nil
}

func (o *approvalObject) spec() ApprovalSpec {
	s := &o.Scope
	return ApprovalSpec{
		Zone: o.Zone, IssuedAt: time.UnixMilli(int64(o.IssuedAtMS)).UTC(), Expires: time.UnixMilli(int64(o.ExpiresAtMS)).UTC(),
		Justification: o.Justification,
		Scope: ApprovalScope{
			Kind: s.Type, Operation: s.Operation, Provenance: hashrefOf(s.Provenance).Ref, Integrity: s.Integrity,
			From: s.From, To: s.To, Objects: s.Objects, Confidentiality: s.Confidentiality,
			Connector: s.Connector, Method: s.Method, Request: fcp.ObjectID(hashrefOf(s.Request).Ref), InputHash: hashrefOf(s.InputHash).Ref, Input: s.Input,
		},
	}
}

func (o *approvalObject) check() error {
	if err := checkCommon(fcp.SchemaApprovalToken, o.Format, max(o.IssuedAtMS, o.ExpiresAtMS)/1000); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "approval in zone %.64q", string(o.Zone))
	case o.ID == TokenID{}:
		return refuse(ReasonApprovalInvalid, "an id of zeros")
	case o.IssuedAtMS >= o.ExpiresAtMS || o.ExpiresAtMS-o.IssuedAtMS > uint64(MaxApprovalLifetime/time.Millisecond):
		return refuse(ReasonApprovalInvalid, "it is valid never or too long")
	case !printable(o.Justification):
		return refuse(ReasonApprovalInvalid, "the justification is not at most %d bytes of printable UTF-8", MaxText)
	}
	return o.Scope.check()
}

// check takes exactly the fields of the scope's kind.
func (s *scopeObject) check() error {
	elevation := s.Operation != "" || s.Provenance != nil || s.Integrity != 0
	declassification := s.From != "" || s.To != "" || s.Objects != nil || s.Confidentiality != 0
	execution := s.Connector != "" || s.Method != "" || s.Request != nil || s.InputHash != nil || s.Input != nil
	bad := true
	switch s.Type {
	case ApproveElevation:
		_, err := fcp.ParseCanonicalID(string(s.Operation))
		bad = declassification || execution || err != nil || len(s.Provenance) != fcp.HashSize || s.Integrity > fcp.MaxLevel
	case ApproveDeclassification:
		bad = elevation || execution || !s.From.Valid() || !s.To.Valid() || len(s.Objects) == 0 || len(s.Objects) > MaxApprovalObjects ||
			s.Confidentiality > fcp.MaxLevel
	case ApproveExecution:
		_, err := fcp.ParseCanonicalID(string(s.Connector))
		bad = elevation || declassification || err != nil || !s.Method.Valid() || badHash(s.Request) || badHash(s.InputHash) ||
			len(s.Input) > MaxInputConstraints
		for _, c := range s.Input {
			bad = bad || len(c.Pointer) > maxPointer || len(c.Expected) > maxExpected || c.Pointer != "" && c.Pointer[0] != '/'
		}
	}
	if bad {
		return refuse(ReasonApprovalInvalid, "scope of kind %.20q", string(s.Type))
	}
	return nil
}

func badHash(b []byte) bool { return b != nil && len(b) != fcp.HashSize }

// holds reports whether the value stands at its place in input, canonical CBOR.
func (c *InputConstraint) holds(input any) bool {
	v, ok := lookupPointer(input, c.Pointer)
	if !ok {
		return false
	}
	b, err := fcp.Marshal(v)
	return err == nil && bytes.Equal(b, c.Expected)
}

// lookupPointer follows a JSON pointer (RFC 6901) through maps and arrays.
func lookupPointer(v any, pointer string) (any, bool) {
	if pointer == "" {
		return v, true
	}
	if pointer[0] != '/' {
		return nil, false
	}
	for part := range strings.SplitSeq(pointer[1:], "/") {
		part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		switch container := v.(type) {
		case map[any]any:
			next, ok := container[part]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(container) || strconv.Itoa(i) != part {
				return nil, false
			}
			v = container[i]
		default:
			return nil, false
		}
	}
	return v, true
}
