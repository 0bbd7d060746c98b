package fcp

import "encoding/binary"

// ThrottleLimit is the kind of limit a throttled call hit.
type ThrottleLimit uint8

// The closed set of throttle limits (spec/wire.md section 13.11).
const (
	ThrottleRPM        ThrottleLimit = 1 // calls per minute
	ThrottleConcurrent ThrottleLimit = 2 // calls at one time
	ThrottleBurst      ThrottleLimit = 3
	ThrottleQuota      ThrottleLimit = 4
)

// ThrottleViolation is one refused call.
type ThrottleViolation struct {
	TimestampMS  uint64 // milliseconds since the Unix epoch
	Zone         ZoneID
	Connector    *CanonicalID // nil when the limit is not a connector's
	Operation    *CanonicalID // nil when the limit is not an operation's
	Limit        ThrottleLimit
	LimitValue   uint32
	CurrentValue uint32
	RetryAfterMS uint64 // milliseconds
}

// ID returns the violation's unscoped id over its fixed layout (spec/wire.md
// section 13.11). It names the record for decisions and anchors no authority.
func (v *ThrottleViolation) ID() ObjectID {
	b := append(make([]byte, 0, 256), "FCP2-THROTTLE-V1"...)
	b = binary.LittleEndian.AppendUint64(b, v.TimestampMS)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(v.Zone)))
	b = append(b, v.Zone...)
	for _, id := range []*CanonicalID{v.Connector, v.Operation} {
		if id == nil {
			b = append(b, 0)
			continue
		}
		b = binary.LittleEndian.AppendUint32(append(b, 1), uint32(len(*id)))
		b = append(b, *id...)
	}
	b = append(b, byte(v.Limit))
	b = binary.LittleEndian.AppendUint32(b, v.LimitValue)
	b = binary.LittleEndian.AppendUint32(b, v.CurrentValue)
	b = binary.LittleEndian.AppendUint64(b, v.RetryAfterMS)
	return UnscopedID(b)
}

var throttleNames = map[ThrottleLimit]string{ThrottleRPM: "rpm", ThrottleConcurrent: "concurrent", ThrottleBurst: "burst", ThrottleQuota: "quota"}

// String returns the limit's name on the wire, or "unknown".
func (l ThrottleLimit) String() string {
	if n := throttleNames[l]; n != "" {
		return n
	}
	return "unknown"
}

// throttleObject is a ThrottleViolation on the wire.
type throttleObject struct {
	ID           string       `cbor:"violation_id"` // 64 hex digits of ID
	TimestampMS  uint64       `cbor:"timestamp_ms"`
	Zone         ZoneID       `cbor:"zone_id"`
	Connector    *CanonicalID `cbor:"connector_id,omitempty"`
	Operation    *CanonicalID `cbor:"operation_id,omitempty"`
	Limit        string       `cbor:"limit_type"`
	LimitValue   uint32       `cbor:"limit_value"`
	CurrentValue uint32       `cbor:"current_value"`
	RetryAfterMS uint64       `cbor:"retry_after_ms"`
}

// MarshalCBOR encodes the violation with its id.
func (v ThrottleViolation) MarshalCBOR() ([]byte, error) {
	if throttleNames[v.Limit] == "" {
		return nil, Errorf(CodeInvalidArgument, "throttle limit %d: %w", v.Limit, ReasonUnknownField)
	}
	return Marshal(&throttleObject{v.ID().String(), v.TimestampMS, v.Zone, v.Connector, v.Operation, v.Limit.String(),
		v.LimitValue, v.CurrentValue, v.RetryAfterMS})
}

// UnmarshalCBOR decodes a violation. An unknown limit or an id that is not the
// violation's own is CodeMalformed.
func (v *ThrottleViolation) UnmarshalCBOR(data []byte) error {
	var o throttleObject
	if err := Unmarshal(data, &o); err != nil {
		return err
	}
	*v = ThrottleViolation{TimestampMS: o.TimestampMS, Zone: o.Zone, Connector: o.Connector, Operation: o.Operation,
		LimitValue: o.LimitValue, CurrentValue: o.CurrentValue, RetryAfterMS: o.RetryAfterMS}
	for l, n := range throttleNames {
		if n == o.Limit {
			v.Limit = l
		}
	}
	switch {
	case v.Limit == 0:
		return Errorf(CodeMalformed, "throttle limit %.20q: %w", o.Limit, ReasonUnknownField)
	case !v.Zone.Valid() || v.ID().String() != o.ID:
		return Errorf(CodeMalformed, "a throttle violation under another id")
	}
	return nil
}

// BackpressureLevel says how near a limit is.
type BackpressureLevel string

// The closed set of levels.
const (
	BackpressureNormal  BackpressureLevel = "normal"
	BackpressureWarning BackpressureLevel = "warning"
	BackpressureSoft    BackpressureLevel = "soft_limit" // slow down
	BackpressureHard    BackpressureLevel = "hard_limit" // calls are refused
)

// Backpressure tells a caller to slow down.
type Backpressure struct {
	Level          BackpressureLevel `cbor:"level"`
	UtilizationBPS uint32            `cbor:"utilization_bps"`          // 10000 = the whole limit
	RetryAfterMS   *uint64           `cbor:"retry_after_ms,omitempty"` // milliseconds; nil when there is no need to wait
}
