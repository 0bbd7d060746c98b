package authority

import (
	"crypto/ed25519"
	"encoding/binary"

	"fcp"
)

// Limits of intents and receipts. The signed layouts have no length prefixes
// (spec/wire.md sections 13.6 and 13.7), so what stands beside a number must not be
// taken for it: texts are printable ASCII, times end in the year 9999 and counts
// stay below the first printable character. Within these limits a layout has one
// reading.
const (
	MaxReceiptIDs  = 32 // outcome ids, and resource ids
	maxUsage       = 32 // usage metrics
	maxOperationID = 256
)

// OperationIntent is stored before an operation runs (spec/wire.md section 13.6).
type OperationIntent struct {
	Header         fcp.ObjectHeader `cbor:"header"`
	Request        fcp.ObjectID     `cbor:"request_object_id"`
	Token          TokenID          `cbor:"capability_token_jti"`
	IdempotencyKey *string          `cbor:"idempotency_key"` // null when absent
	PlannedAt      uint64           `cbor:"planned_at"`      // unix seconds
	PlannedBy      string           `cbor:"planned_by"`      // the executing node
	LeaseSeq       *uint64          `cbor:"lease_seq"`
	Upstream       *string          `cbor:"upstream_idempotency"`
	Signature      [64]byte         `cbor:"signature"`
}

// Signable returns the bytes that are signed.
func (o *OperationIntent) Signable() []byte {
	b := append(make([]byte, 0, 256), "FCP2-INTENT-V1"...)
	b = binary.LittleEndian.AppendUint64(b, o.Header.CreatedAt)
	b = append(append(b, o.Request[:]...), o.Token[:]...)
	b = appendOptional(b, o.IdempotencyKey)
	b = binary.LittleEndian.AppendUint64(b, o.PlannedAt)
	b = append(b, o.PlannedBy...)
	if o.LeaseSeq == nil {
		b = append(b, 0)
	} else {
		b = binary.LittleEndian.AppendUint64(append(b, 1), *o.LeaseSeq)
	}
	return appendOptional(b, o.Upstream)
}

// appendOptional appends 00, or 01 and the raw text.
func appendOptional(b []byte, s *string) []byte {
	if s == nil {
		return append(b, 0)
	}
	return append(append(b, 1), *s...)
}

func (o *OperationIntent) check() error {
	if o.Header.Schema != fcp.SchemaOperationIntent.ID() {
		return fcp.Errorf(fcp.CodeSchema, "an intent with a header of %s", o.Header.Schema)
	}
	return checkOperation("intent", o.Header.CreatedAt, o.PlannedAt, o.PlannedBy, o.IdempotencyKey, o.Upstream)
}

func checkOperation(what string, created, at uint64, by string, texts ...*string) error {
	if created > maxUnixSeconds || at > maxUnixSeconds {
		return fcp.Errorf(fcp.CodeMalformed, "%s with a time after the year 9999", what)
	}
	if !validToken(by, maxOperationID) {
		return fcp.Errorf(fcp.CodeMalformed, "the node of an %s", what)
	}
	for _, t := range texts {
		if t != nil && !validToken(*t, MaxIdempotency) {
			return fcp.Errorf(fcp.CodeMalformed, "an idempotency key of an %s is not 1 to %d printable characters", what, MaxIdempotency)
		}
	}
	return nil
}

// SignIntent signs the intent with the node's signing key and returns the object
// payload.
func SignIntent(node *NodeKeys, o OperationIntent) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Signature = [64]byte(node.Sign(o.Signable()))
	return fcp.MarshalPayload(fcp.SchemaOperationIntent, &o)
}

// VerifyIntent decodes an intent and checks that the node's signing key signed it.
func VerifyIntent(key SigningPublic, b []byte) (*OperationIntent, error) {
	var o OperationIntent
	if err := openOperation(fcp.SchemaOperationIntent, b, &o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return &o, verifyOperation(key, o.Signable(), o.Signature[:], "intent")
}

func openOperation(schema fcp.Schema, b []byte, o any) error {
	if len(b) > MaxSignedObject {
		return fcp.Errorf(fcp.CodeTooLarge, "%s of %d bytes, the limit is %d", schema, len(b), MaxSignedObject)
	}
	return fcp.UnmarshalPayload(schema, b, o)
}

func verifyOperation(key SigningPublic, message, sig []byte, what string) error {
	if len(sig) != ed25519.SignatureSize || !key.Verify(message, sig) {
		return fcp.Errorf(fcp.CodeSignature, "%s by node key %s", what, fcp.KidOf(key[:]))
	}
	return nil
}

// UsageMetric says how much of something an operation used.
type UsageMetric struct {
	Kind     string  `cbor:"kind"`
	Amount   uint64  `cbor:"amount"`
	Unit     *string `cbor:"unit,omitempty"`
	CustomID *string `cbor:"custom_id,omitempty"`
}

// OperationReceipt says what an operation did (spec/wire.md section 13.7).
type OperationReceipt struct {
	Header         fcp.ObjectHeader `cbor:"header"`
	Request        fcp.ObjectID     `cbor:"request_object_id"`
	IdempotencyKey *string          `cbor:"idempotency_key"` // null when absent
	Outcomes       []fcp.ObjectID   `cbor:"outcome_object_ids"`
	Resources      []fcp.ObjectID   `cbor:"resource_object_ids"`
	Usage          []UsageMetric    `cbor:"usage_metrics,omitempty"`
	ExecutedAt     uint64           `cbor:"executed_at"` // unix seconds
	ExecutedBy     string           `cbor:"executed_by"`
	Signature      [64]byte         `cbor:"signature"`
}

// Signable returns the bytes that are signed.
func (o *OperationReceipt) Signable() []byte {
	b := append(make([]byte, 0, 256), "FCP2-RECEIPT-V1"...)
	b = binary.LittleEndian.AppendUint64(b, o.Header.CreatedAt)
	b = append(b, o.Request[:]...)
	b = appendOptional(b, o.IdempotencyKey)
	for _, ids := range [][]fcp.ObjectID{o.Outcomes, o.Resources} {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(ids)))
		for _, id := range ids {
			b = append(b, id[:]...)
		}
	}
	if len(o.Usage) > 0 {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(o.Usage)))
		for i := range o.Usage {
			b = o.Usage[i].append(b)
		}
	}
	b = binary.LittleEndian.AppendUint64(b, o.ExecutedAt)
	return append(b, o.ExecutedBy...)
}

func (m *UsageMetric) append(b []byte) []byte {
	b = append(binary.LittleEndian.AppendUint32(b, uint32(len(m.Kind))), m.Kind...)
	b = binary.LittleEndian.AppendUint64(b, m.Amount)
	for _, s := range []*string{m.Unit, m.CustomID} {
		if s == nil {
			b = append(b, 0)
			continue
		}
		b = append(binary.LittleEndian.AppendUint32(append(b, 1), uint32(len(*s))), *s...)
	}
	return b
}

func (o *OperationReceipt) check() error {
	if o.Header.Schema != fcp.SchemaOperationReceipt.ID() {
		return fcp.Errorf(fcp.CodeSchema, "a receipt with a header of %s", o.Header.Schema)
	}
	if len(o.Outcomes) > MaxReceiptIDs || len(o.Resources) > MaxReceiptIDs || len(o.Usage) > maxUsage {
		return fcp.Errorf(fcp.CodeTooLarge, "receipt with %d outcomes, %d resources and %d metrics", len(o.Outcomes), len(o.Resources), len(o.Usage))
	}
	for i := range o.Usage {
		m := &o.Usage[i]
		for _, s := range []*string{&m.Kind, m.Unit, m.CustomID} {
			if s != nil && !validToken(*s, fcp.MaxIdentifier) {
				return fcp.Errorf(fcp.CodeMalformed, "usage metric %d of a receipt", i)
			}
		}
	}
	return checkOperation("receipt", o.Header.CreatedAt, o.ExecutedAt, o.ExecutedBy, o.IdempotencyKey)
}

// SignReceipt signs the receipt with the node's signing key and returns the object
// payload.
func SignReceipt(node *NodeKeys, o OperationReceipt) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	o.Signature = [64]byte(node.Sign(o.Signable()))
	return fcp.MarshalPayload(fcp.SchemaOperationReceipt, &o)
}

// VerifyReceipt decodes a receipt and checks that the node's signing key signed it.
func VerifyReceipt(key SigningPublic, b []byte) (*OperationReceipt, error) {
	var o OperationReceipt
	if err := openOperation(fcp.SchemaOperationReceipt, b, &o); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return &o, verifyOperation(key, o.Signable(), o.Signature[:], "receipt")
}

// IdempotencyStatus is how far a remembered operation got.
type IdempotencyStatus string

// The closed set of states.
const (
	IdempotencyPending   IdempotencyStatus = "pending"
	IdempotencyCompleted IdempotencyStatus = "completed"
	IdempotencyFailed    IdempotencyStatus = "failed"
)

// IdempotencyEntry remembers an operation under its key, so that the same request
// is answered and not run again (spec/wire.md section 13.7).
type IdempotencyEntry struct {
	Key     string
	Zone    fcp.ZoneID
	Intent  fcp.ObjectID
	Receipt fcp.ObjectID // zero while there is none
	Status  IdempotencyStatus
	Expires uint64 // unix seconds
}

// Expired reports whether the entry counts no more: from its last second on.
func (e *IdempotencyEntry) Expired(now uint64) bool { return now >= e.Expires }

// Terminal reports whether the operation ended.
func (e *IdempotencyEntry) Terminal() bool {
	return e.Status == IdempotencyCompleted || e.Status == IdempotencyFailed
}

// Answers reports whether the stored receipt answers the request.
func (e *IdempotencyEntry) Answers(now uint64) bool {
	return !e.Expired(now) && e.Terminal() && !e.Receipt.IsZero()
}
