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
