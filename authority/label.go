package authority

import (
	"strings"

	"fcp"
)

// TaintFlags say what is wrong with where data came from (spec/wire.md section
// 14). Bits are local; on the wire a set is an array of names in this order.
type TaintFlags uint16

// The closed set of flags.
const (
	PublicInput TaintFlags = 1 << iota
	UnverifiedLink
	UntrustedTransform
	WebhookInjected
	UserGenerated
	PotentiallyMalicious
	AIGenerated
	CrossZoneUnapproved
	taintEnd
)

// criticalTaint are the flags that refuse what changes the world.
const criticalTaint = PublicInput | PotentiallyMalicious | CrossZoneUnapproved

var taintNames = [...]string{"PUBLIC_INPUT", "UNVERIFIED_LINK", "UNTRUSTED_TRANSFORM", "WEBHOOK_INJECTED",
	"USER_GENERATED", "POTENTIALLY_MALICIOUS", "AI_GENERATED", "CROSS_ZONE_UNAPPROVED"}

// Names returns the flags' names in their order.
func (f TaintFlags) Names() []string {
	out := []string{}
	for i, n := range taintNames {
		if f&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return out
}

// String returns the names joined by commas, or "none".
func (f TaintFlags) String() string {
	if f == 0 {
		return "none"
	}
	return strings.Join(f.Names(), ",")
}

// ParseTaint returns the flags of names in any order. An unknown name is
// CodeInvalidArgument: dropping it would launder data.
func ParseTaint(names []string) (TaintFlags, error) {
	var f TaintFlags
	for _, n := range names {
		bit := TaintFlags(0)
		for i, known := range taintNames {
			if n == known {
				bit = 1 << i
			}
		}
		if bit == 0 {
			return 0, fcp.Errorf(fcp.CodeInvalidArgument, "taint flag %.40q", n)
		}
		f |= bit
	}
	return f, nil
}

// Valid reports whether only known flags are set.
func (f TaintFlags) Valid() bool { return f < taintEnd }

// MarshalCBOR encodes the names as an array in their order.
func (f TaintFlags) MarshalCBOR() ([]byte, error) {
	if !f.Valid() {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "taint flags %#x", uint16(f))
	}
	return fcp.Marshal(f.Names())
}

// UnmarshalCBOR takes the names in their order only.
func (f *TaintFlags) UnmarshalCBOR(b []byte) error {
	var names []string
	if err := fcp.Unmarshal(b, &names); err != nil {
		return err
	}
	var err error
	*f, err = ParseTaint(names)
	return err
}

// Label says where data came from and how far it is to be trusted and kept.
type Label struct {
	Origin fcp.ZoneID
	Levels fcp.Levels
	Taint  TaintFlags
	ID     fcp.Hash // of the provenance record, which an elevation names; zero for none
	Inputs []string // the ids of the inputs, which sanitizer receipts must cover
}

// Merge returns the label of what is made from several inputs: the lowest
// integrity, the highest confidentiality, every taint, the first origin. It
// panics without inputs, which would be data from nowhere.
func Merge(first Label, rest ...Label) Label {
	out := Label{Origin: first.Origin, Levels: first.Levels, Taint: first.Taint, Inputs: append([]string(nil), first.Inputs...)}
	for _, l := range rest {
		out.Levels.Integrity = min(out.Levels.Integrity, l.Levels.Integrity)
		out.Levels.Confidentiality = max(out.Levels.Confidentiality, l.Levels.Confidentiality)
		out.Taint |= l.Taint
		for _, in := range l.Inputs {
			if !contains(out.Inputs, in) {
				out.Inputs = append(out.Inputs, in)
			}
		}
	}
	return out
}

// objectTaint maps the three taints of an object's header to flags: a header says
// less than a label, so a tainted object counts as public input, and a highly
// tainted one as malicious too.
func objectTaint(t fcp.Taint) TaintFlags {
	switch t {
	case fcp.Untainted:
		return 0
	case fcp.Tainted:
		return PublicInput
	}
	return PublicInput | PotentiallyMalicious
}

// LabelOf returns the label of a stored object. levels are those of its origin
// zone, which the header alone does not tell.
func LabelOf(h *fcp.ObjectHeader, levels fcp.Levels) Label {
	l := Label{Origin: h.Provenance.OriginZone, Levels: levels, Taint: objectTaint(h.Provenance.Taint)}
	if h.Zone != h.Provenance.OriginZone && !h.Provenance.Elevated {
		l.Taint |= CrossZoneUnapproved
	}
	return l
}
