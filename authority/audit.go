package authority

import (
	"time"

	"fcp"
)

// AuditType names what happened (spec/wire.md section 13.8; "x." for others).
type AuditType string

// The event types.
const (
	AuditSecretAccess     AuditType = "secret.access"
	AuditInvoke           AuditType = "capability.invoke"
	AuditDenied           AuditType = "capability.denied"
	AuditElevation        AuditType = "elevation.granted"
	AuditDeclassification AuditType = "declassification.granted"
	AuditExecution        AuditType = "execution.granted"
	AuditZoneTransition   AuditType = "zone.transition"
	AuditRevocation       AuditType = "revocation.issued"
	AuditRevocationStale  AuditType = "revocation.degraded_mode"
	AuditPolicyDegraded   AuditType = "policy.degraded_mode"
	AuditPolicyChanged    AuditType = "policy.changed"
	AuditKeyRotated       AuditType = "zonekey.rotated"
	AuditDeviceLost       AuditType = "device.lost"
	AuditSecurity         AuditType = "security.violation"
	AuditForkDetected     AuditType = "audit.fork_detected"
)

var auditTypes = map[AuditType]bool{AuditSecretAccess: true, AuditInvoke: true, AuditDenied: true, AuditElevation: true,
	AuditDeclassification: true, AuditExecution: true, AuditZoneTransition: true, AuditRevocation: true,
	AuditRevocationStale: true, AuditPolicyDegraded: true, AuditPolicyChanged: true, AuditKeyRotated: true,
	AuditDeviceLost: true, AuditSecurity: true, AuditForkDetected: true}

// AuditTypes returns the closed set of event types in no particular order.
func AuditTypes() []AuditType {
	out := make([]AuditType, 0, len(auditTypes))
	for t := range auditTypes {
		out = append(out, t)
	}
	return out
}

// AuditEvent is one entry of a device's audit feed. It carries no signature of its
// own: it is an event of the device's control feed, whose hash chain and Merkle
// tree the signed heads cover. The references say what it was about; bodies,
// secrets and names never are in it.
type AuditEvent struct {
	Zone        fcp.ZoneID
	Type        AuditType
	Actor       string          // principal or device; printable, at most MaxText bytes
	Connector   fcp.CanonicalID // "": none
	Operation   fcp.CanonicalID // "": none
	Reason      fcp.Reason      // of a denial; "": none
	Token       fcp.Hash        // ref of the token; zero: none
	Request     fcp.Hash        // of the request object; zero: none
	Result      fcp.Hash        // of the result, the receipt, the revocation; zero: none
	Correlation [16]byte        // zero: none
	At          time.Time       // whole seconds
	More        uint64          // how many others like it the entry stands for besides; 0: none
}

// auditObject is AuditEvent on the wire, in the native profile.
type auditObject struct {
	Format      uint64          `cbor:"format"`
	Zone        fcp.ZoneID      `cbor:"zone_id"`
	Type        AuditType       `cbor:"event_type"`
	Actor       string          `cbor:"actor"`
	Connector   fcp.CanonicalID `cbor:"connector_id,omitempty"`
	Operation   fcp.CanonicalID `cbor:"operation,omitempty"`
	Reason      fcp.Reason      `cbor:"reason_code,omitempty"`
	Token       []byte          `cbor:"capability_token,omitempty"`
	Request     []byte          `cbor:"request_object_id,omitempty"`
	Result      []byte          `cbor:"result_object_id,omitempty"`
	Correlation []byte          `cbor:"correlation_id,omitempty"`
	OccurredAt  uint64          `cbor:"occurred_at"`    // unix seconds
	More        uint64          `cbor:"more,omitempty"` // format 2
}

// auditFormat2 is that of entries that stand for several.
const auditFormat2 = 2

func (o *auditObject) format() uint64 {
	if o.More > 0 {
		return auditFormat2
	}
	return ObjectFormat
}

// EncodeAuditEvent returns the body of an audit.entry event.
func EncodeAuditEvent(e AuditEvent) ([]byte, error) {
	at, err := unixSeconds(e.At)
	if err != nil {
		return nil, err
	}
	o := auditObject{Zone: e.Zone, Type: e.Type, Actor: e.Actor, Connector: e.Connector, Operation: e.Operation,
		Reason: e.Reason, Token: optionalHash(e.Token), Request: optionalHash(e.Request), Result: optionalHash(e.Result), OccurredAt: at, More: e.More}
	o.Format = o.format()
	if e.Correlation != [16]byte{} {
		o.Correlation = e.Correlation[:]
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaAuditEvent, &o)
}

// DecodeAuditEvent is the inverse of EncodeAuditEvent. Errors: CodeMalformed,
// CodeNonCanonical, CodeSchema, CodeVersion, CodeZone, CodeTooLarge.
func DecodeAuditEvent(b []byte) (AuditEvent, error) {
	var o auditObject
	if len(b) > MaxSignedObject {
		return AuditEvent{}, fcp.Errorf(fcp.CodeTooLarge, "an audit event of %d bytes", len(b))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaAuditEvent, b, &o); err != nil {
		return AuditEvent{}, err
	}
	if err := o.check(); err != nil {
		return AuditEvent{}, err
	}
	e := AuditEvent{Zone: o.Zone, Type: o.Type, Actor: o.Actor, Connector: o.Connector, Operation: o.Operation, Reason: o.Reason,
		Token: hashrefOf(o.Token).Ref, Request: hashrefOf(o.Request).Ref, Result: hashrefOf(o.Result).Ref, At: fromUnix(o.OccurredAt), More: o.More}
	copy(e.Correlation[:], o.Correlation)
	return e, nil
}

func (o *auditObject) check() error {
	if err := checkFormat(fcp.SchemaAuditEvent, o.Format, o.format(), o.OccurredAt); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "audit event in %.64q", string(o.Zone))
	case !auditTypes[o.Type]:
		return fcp.Errorf(fcp.CodeMalformed, "audit event of an unknown type")
	case o.Actor == "" || !printable(o.Actor) || !printable(string(o.Reason)):
		return fcp.Errorf(fcp.CodeMalformed, "audit event with an actor or reason that is not 1 to %d printable bytes", MaxText)
	case o.Correlation != nil && (len(o.Correlation) != 16 || [16]byte(o.Correlation) == [16]byte{}):
		return fcp.Errorf(fcp.CodeMalformed, "audit event with a correlation id of %d bytes", len(o.Correlation))
	}
	for _, id := range []fcp.CanonicalID{o.Connector, o.Operation} {
		if id == "" {
			continue
		}
		if _, err := fcp.ParseCanonicalID(id.String()); err != nil {
			return fcp.Wrap(fcp.CodeMalformed, err, "audit event")
		}
	}
	for _, h := range [][]byte{o.Token, o.Request, o.Result} {
		if h != nil && (len(h) != fcp.HashSize || fcp.Hash(h).IsZero()) {
			return fcp.Errorf(fcp.CodeMalformed, "audit event with a reference of %d bytes", len(h))
		}
	}
	return nil
}
