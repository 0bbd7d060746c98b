package connector

import (
	"bytes"
	"encoding/json"

	"fcp"
)

// enum is the text of a closed enumeration.
type enum interface{ known() bool }

func unmarshalEnum[T interface {
	~string
	enum
}](to *T, text []byte, what string) error {
	v := T(text)
	if !v.known() {
		return fcp.Errorf(fcp.CodeMalformed, "%s %.40q", what, string(text))
	}
	*to = v
	return nil
}

// Archetype says what kind of connector it is.
type Archetype string

// The closed set of archetypes.
const (
	Bidirectional Archetype = "bidirectional"
	Streaming     Archetype = "streaming"
	Operational   Archetype = "operational"
	Storage       Archetype = "storage"
	Knowledge     Archetype = "knowledge"
)

func (a Archetype) known() bool {
	return a == Bidirectional || a == Streaming || a == Operational || a == Storage || a == Knowledge
}

// UnmarshalText takes only the known texts.
func (a *Archetype) UnmarshalText(b []byte) error { return unmarshalEnum(a, b, "archetype") }

// Runtime is the format of a connector's binary.
type Runtime string

// The closed set of formats.
const (
	Native Runtime = "native"
	WASI   Runtime = "wasi"
)

func (r Runtime) known() bool { return r == Native || r == WASI }

// UnmarshalText takes only the known texts.
func (r *Runtime) UnmarshalText(b []byte) error { return unmarshalEnum(r, b, "runtime format") }

// CRDT is a replicated data type.
type CRDT string

// The closed set of types.
const (
	LWWMap    CRDT = "lww_map"
	ORSet     CRDT = "or_set"
	GCounter  CRDT = "g_counter"
	PNCounter CRDT = "pn_counter"
)

func (c CRDT) known() bool { return c == LWWMap || c == ORSet || c == GCounter || c == PNCounter }

// UnmarshalText takes only the known texts.
func (c *CRDT) UnmarshalText(b []byte) error { return unmarshalEnum(c, b, "CRDT type") }

// StateKind says how a connector keeps state.
type StateKind string

// The closed set of kinds.
const (
	Stateless       StateKind = "stateless"
	SingletonWriter StateKind = "singleton_writer"
	Replicated      StateKind = "crdt"
)

func (k StateKind) known() bool { return k == Stateless || k == SingletonWriter || k == Replicated }

// UnmarshalText takes only the known texts.
func (k *StateKind) UnmarshalText(b []byte) error { return unmarshalEnum(k, b, "state model") }

// StateModel is how a connector keeps state; CRDT is set exactly when it is
// Replicated.
type StateModel struct {
	Kind StateKind `json:"type"`
	CRDT CRDT      `json:"crdt_type,omitempty"`
}

func (m *StateModel) check() error {
	if !m.Kind.known() || (m.Kind == Replicated) != (m.CRDT != "") {
		return fcp.Errorf(fcp.CodeMalformed, "state model %.40q with CRDT type %.40q", string(m.Kind), string(m.CRDT))
	}
	return nil
}

// HealthState is how a connector feels.
type HealthState string

// The closed set of states.
const (
	Starting HealthState = "starting"
	Ready    HealthState = "ready"
	Degraded HealthState = "degraded" // with a reason
	Failed   HealthState = "error"    // with a reason
	Stopping HealthState = "stopping"
)

func (s HealthState) known() bool {
	return s == Starting || s == Ready || s == Degraded || s == Failed || s == Stopping
}

// UnmarshalText takes only the known texts.
func (s *HealthState) UnmarshalText(b []byte) error { return unmarshalEnum(s, b, "health state") }

// Health is a state and, where it is not well, why.
type Health struct {
	State  HealthState `json:"state"`
	Reason string      `json:"reason,omitempty"`
}

func (h *Health) check() error {
	if !h.State.known() || (h.State == Degraded || h.State == Failed) != (h.Reason != "") {
		return fcp.Errorf(fcp.CodeMalformed, "health state %.40q and its reason do not fit", string(h.State))
	}
	return nil
}

// HealthSnapshot is a connector's health at one moment.
type HealthSnapshot struct {
	Status   Health   `json:"status"`
	UptimeMS uint64   `json:"uptime_ms"`
	Load     *float64 `json:"load,omitempty"` // 0 to 1
	Details  string   `json:"details,omitempty"`
}

func (h *HealthSnapshot) check() error {
	if h.Load != nil && !(*h.Load >= 0 && *h.Load <= 1) {
		return fcp.Errorf(fcp.CodeMalformed, "a load outside 0 to 1")
	}
	return h.Status.check()
}

// EventCaps says what a connector's event streams can do.
type EventCaps struct {
	Streaming       bool   `json:"streaming"`
	Replay          bool   `json:"replay"`
	MinBufferEvents uint32 `json:"min_buffer_events"`
	RequiresAck     bool   `json:"requires_ack"`
}

func (*EventCaps) check() error { return nil }

// Currency is an amount of money.
type Currency struct {
	AmountCents uint64 `json:"amount_cents"`
	Code        string `json:"currency_code"` // ISO 4217
}

// CostEstimate says what a call would cost, as far as that is known.
type CostEstimate struct {
	APICredits *uint64   `json:"api_credits,omitempty"`
	DurationMS *uint64   `json:"estimated_duration_ms,omitempty"`
	Bytes      *uint64   `json:"estimated_bytes,omitempty"`
	Currency   *Currency `json:"currency,omitempty"`
}

func (c *CostEstimate) check() error {
	if c.Currency != nil && len(c.Currency.Code) != 3 {
		return fcp.Errorf(fcp.CodeMalformed, "a currency code of %d characters", len(c.Currency.Code))
	}
	return nil
}

// Availability says whether a resource can be used now.
type Availability struct {
	Available          bool    `json:"available"`
	RateLimitRemaining *uint32 `json:"rate_limit_remaining,omitempty"`
	RateLimitResetAt   *uint64 `json:"rate_limit_reset_at,omitempty"` // unix seconds
	Details            string  `json:"details,omitempty"`
}

func (*Availability) check() error { return nil }

// SimulateResponse answers a simulated call: what would have happened.
type SimulateResponse struct {
	ID                  string            `json:"id"` // of the request
	WouldSucceed        bool              `json:"would_succeed"`
	FailureReason       string            `json:"failure_reason,omitempty"`
	DenialCode          string            `json:"denial_code,omitempty"` // "FCP-3001"
	MissingCapabilities []fcp.CanonicalID `json:"missing_capabilities,omitempty"`
	Cost                *CostEstimate     `json:"estimated_cost,omitempty"`
	Availability        *Availability     `json:"availability,omitempty"`
	Metadata            json.RawMessage   `json:"metadata,omitempty"`
}

func (r *SimulateResponse) check() error {
	if r.WouldSucceed && (r.FailureReason != "" || r.DenialCode != "" || len(r.MissingCapabilities) > 0) {
		return fcp.Errorf(fcp.CodeMalformed, "a simulated call that succeeds and fails")
	}
	for _, c := range r.MissingCapabilities {
		if _, err := fcp.ParseCanonicalID(string(c)); err != nil {
			return fcp.Wrap(fcp.CodeMalformed, err, "a missing capability")
		}
	}
	if r.Cost != nil {
		return r.Cost.check()
	}
	return nil
}

// message is what a connector sends.
type message interface {
	*StateModel | *Health | *HealthSnapshot | *EventCaps | *CostEstimate | *Availability | *SimulateResponse
	check() error
}

// MaxMessage limits what Decode takes, in bytes.
const MaxMessage = 1 << 20

// Decode decodes one JSON value into a message of this package. An unknown field,
// a text outside its enumeration, fields that contradict each other or bytes
// behind the value are CodeMalformed; over MaxMessage is CodeTooLarge.
func Decode[T message](b []byte, to T) error {
	if len(b) > MaxMessage {
		return fcp.Errorf(fcp.CodeTooLarge, "a connector's message of %d bytes, the limit is %d", len(b), MaxMessage)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return fcp.Errorf(fcp.CodeMalformed, "a connector's message does not decode as %T", to)
	}
	if d.More() || d.InputOffset() != int64(len(bytes.TrimRight(b, " \t\r\n"))) {
		return fcp.Errorf(fcp.CodeMalformed, "bytes behind a connector's message")
	}
	return to.check()
}
