package connector

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"

	"fcp"
)

type vector struct {
	Name   string                     `json:"name"`
	Kind   string                     `json:"kind"`
	Input  map[string]json.RawMessage `json:"input"`
	Expect map[string]json.RawMessage `json:"expect"`
}

// each runs every case of a class. Without the folder the test is skipped and says
// so; in CI it fails.
func each(t *testing.T, class string, run func(*testing.T, vector)) {
	t.Helper()
	dir := os.Getenv("FCP_VECTORS")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "vectors")
	}
	raw, err := os.ReadFile(filepath.Join(dir, class+".json"))
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skipf("did NOT run: no vectors of class %s in %s", class, dir)
	}
	var file struct {
		Cases []vector `json:"cases"`
	}
	if err == nil {
		err = json.Unmarshal(raw, &file)
	}
	if err != nil || len(file.Cases) == 0 {
		t.Fatalf("%d cases of class %s: %v", len(file.Cases), class, err)
	}
	for _, v := range file.Cases {
		t.Run(v.Name, func(t *testing.T) { run(t, v) })
	}
}

func read[T any](t *testing.T, raw json.RawMessage) (out T) {
	t.Helper()
	if raw == nil {
		return out
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func sameJSON(t *testing.T, got any, want []byte) {
	t.Helper()
	b, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(read[any](t, b), read[any](t, want)) {
		t.Errorf("got %s, want %s", b, want)
	}
}

func TestVectorsSDKJSON(t *testing.T) {
	check := func(t *testing.T, to any, err error, want []byte) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, to, want)
	}
	each(t, "sdk_json", func(t *testing.T, v vector) {
		b := v.Expect["json"]
		switch kind := read[string](t, v.Input["type"]); kind {
		case "connector_archetypes":
			check(t, read[Archetype](t, b), nil, b)
		case "crdt_types":
			check(t, read[CRDT](t, b), nil, b)
		case "runtime_formats":
			check(t, read[Runtime](t, b), nil, b)
		case "state_models":
			var to StateModel
			check(t, &to, Decode(b, &to), b)
		case "health_states":
			var to Health
			check(t, &to, Decode(b, &to), b)
		case "event_caps":
			var to EventCaps
			check(t, &to, Decode(b, &to), b)
		case "cost_estimates":
			var to CostEstimate
			check(t, &to, Decode(b, &to), b)
		case "health_snapshots":
			var to HealthSnapshot
			check(t, &to, Decode(b, &to), b)
		default:
			t.Fatalf("type %s", kind)
		}
	})
}

func optional[T any](t *testing.T, v vector, has, field string) *T {
	t.Helper()
	if !read[bool](t, v.Expect[has]) {
		return nil
	}
	x := read[T](t, v.Expect[field])
	return &x
}

func said(t *testing.T, v vector, has string) string {
	if read[bool](t, v.Expect[has]) {
		return "said"
	}
	return ""
}

// TestVectorsSimulate builds each message from the flags of the vector and finds
// exactly those fields in what is sent.
func TestVectorsSimulate(t *testing.T) {
	fields := func(t *testing.T, x any) map[string]json.RawMessage {
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		return read[map[string]json.RawMessage](t, b)
	}
	present := func(t *testing.T, v vector, got map[string]json.RawMessage, names map[string]string) {
		t.Helper()
		for flag, field := range names {
			if _, there := got[field]; there != read[bool](t, v.Expect[flag]) {
				t.Errorf("%s: field %s there: %v", flag, field, there)
			}
		}
	}
	each(t, "simulate", func(t *testing.T, v vector) {
		switch {
		case v.Expect["has_api_credits"] != nil:
			c := CostEstimate{
				APICredits: optional[uint64](t, v, "has_api_credits", "api_credits"), DurationMS: optional[uint64](t, v, "has_duration_ms", "duration_ms"),
				Bytes: optional[uint64](t, v, "has_bytes", "bytes"),
			}
			if read[bool](t, v.Expect["has_currency"]) {
				c.Currency = &Currency{read[uint64](t, v.Expect["currency_cents"]), read[string](t, v.Expect["currency_code"])}
			}
			got := fields(t, c)
			present(t, v, got, map[string]string{"has_api_credits": "api_credits", "has_duration_ms": "estimated_duration_ms",
				"has_bytes": "estimated_bytes", "has_currency": "currency"})
			roundTrip(t, &c, new(CostEstimate))
		case v.Expect["request_id"] != nil:
			r := SimulateResponse{
				ID: read[string](t, v.Expect["request_id"]), WouldSucceed: read[bool](t, v.Expect["would_succeed"]),
				FailureReason: said(t, v, "has_failure_reason"), DenialCode: said(t, v, "has_denial_code"),
			}
			for i := range read[int](t, v.Expect["missing_capabilities_count"]) {
				r.MissingCapabilities = append(r.MissingCapabilities, fcp.CanonicalID("cap."+strconv.Itoa(i)))
			}
			if read[bool](t, v.Expect["has_cost_estimate"]) {
				r.Cost = new(CostEstimate)
			}
			if read[bool](t, v.Expect["has_availability"]) {
				r.Availability = new(Availability)
			}
			if read[bool](t, v.Expect["has_metadata"]) {
				r.Metadata = json.RawMessage(`{}`)
			}
			got := fields(t, r)
			present(t, v, got, map[string]string{"has_failure_reason": "failure_reason", "has_denial_code": "denial_code",
				"has_cost_estimate": "estimated_cost", "has_availability": "availability", "has_metadata": "metadata"})
			if n := len(read[[]string](t, got["missing_capabilities"])); n != read[int](t, v.Expect["missing_capabilities_count"]) {
				t.Errorf("%d missing capabilities", n)
			}
			roundTrip(t, &r, new(SimulateResponse))
		case v.Expect["available"] != nil:
			a := Availability{
				Available:          read[bool](t, v.Expect["available"]),
				RateLimitRemaining: optional[uint32](t, v, "has_rate_limit_remaining", "rate_limit_remaining"),
				RateLimitResetAt:   optional[uint64](t, v, "has_rate_limit_reset_at", "rate_limit_reset_at"), Details: said(t, v, "has_details"),
			}
			got := fields(t, a)
			present(t, v, got, map[string]string{"has_rate_limit_remaining": "rate_limit_remaining",
				"has_rate_limit_reset_at": "rate_limit_reset_at", "has_details": "details"})
			roundTrip(t, &a, new(Availability))
		default:
			t.Fatalf("flags %v", v.Expect)
		}
	})
}

func roundTrip[T message](t *testing.T, x, back T) {
	t.Helper()
	b, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	if err := Decode(b, back); err != nil || !reflect.DeepEqual(x, back) {
		t.Errorf("%s comes back as %+v: %v", b, back, err)
	}
}

func TestVectorsStreamCursor(t *testing.T) {
	each(t, "stream_cursor", func(t *testing.T, v vector) {
		switch v.Kind {
		case "cursor":
			s := read[string](t, v.Input["cursor"])
			seq, all, err := ParseCursor(s)
			if (err == nil) != read[bool](t, v.Expect["accept"]) {
				t.Fatalf("accepted: %v", err)
			}
			if want := read[*uint64](t, v.Expect["seq"]); want != nil && *want != seq || err == nil && all != (s == "") {
				t.Errorf("%d, all %v", seq, all)
			}
		case "ack", "nack":
			type state struct {
				Pending []uint64 `json:"pending_acks"`
				Buffer  []uint64 `json:"buffer_seqs"`
			}
			var p Pending
			for _, s := range read[state](t, v.Input["initial"]).Pending {
				p.Sent(s)
			}
			action := read[struct {
				Type string   `json:"type"`
				Seqs []uint64 `json:"seqs"`
			}](t, v.Input["action"])
			result := read[map[string][]uint64](t, v.Expect["result"])
			done, missing := p.Ack, result["missing"]
			if action.Type == "nack" {
				done = p.Nack
			}
			got, gone := done(action.Seqs...)
			delete(result, "missing")
			for _, want := range result {
				if !equal(got, want) {
					t.Errorf("%v, want %v", got, want)
				}
			}
			if !equal(gone, missing) || !equal(p.Seqs(), read[state](t, v.Expect["final"]).Pending) {
				t.Errorf("missing %v, pending %v", gone, p.Seqs())
			}
		default:
			t.Fatalf("kind %s", v.Kind)
		}
	})
}

func equal(a, b []uint64) bool { return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b) }

func TestCursorsThatAreNone(t *testing.T) {
	for _, s := range []string{"-1", "+1", " 1", "1 ", "01", "00", "0x1", "1e3", "1_0", "18446744073709551616", "\u0661", "1\x00"} {
		if _, _, err := ParseCursor(s); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestMessagesThatContradictThemselves(t *testing.T) {
	for _, s := range []string{`{"type":"crdt"}`, `{"type":"stateless","crdt_type":"lww_map"}`, `{"type":"other"}`, `{}`, `{"type":"stateless"} 1`,
		`{"type":"stateless","x":1}`, `{"type":"crdt","crdt_type":"x"}`, `[]`, ``} {
		if err := Decode([]byte(s), new(StateModel)); !errors.Is(err, fcp.CodeMalformed) {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{`{"state":"error"}`, `{"state":"ready","reason":"x"}`} {
		if err := Decode([]byte(s), new(Health)); !errors.Is(err, fcp.CodeMalformed) {
			t.Errorf("%s: %v", s, err)
		}
	}
	if err := Decode([]byte(`{"status":{"state":"ready"},"uptime_ms":1,"load":1.5}`), new(HealthSnapshot)); !errors.Is(err, fcp.CodeMalformed) {
		t.Errorf("load: %v", err)
	}
	if err := Decode([]byte(`{"id":"1","would_succeed":true,"denial_code":"FCP-3001"}`), new(SimulateResponse)); !errors.Is(err, fcp.CodeMalformed) {
		t.Errorf("simulate: %v", err)
	}
	if err := Decode(make([]byte, MaxMessage+1), new(Health)); !errors.Is(err, fcp.CodeTooLarge) {
		t.Errorf("size: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"id":"1","would_succeed":false,"estimated_cost":{"currency":{"amount_cents":1,"currency_code":"USD"}}}`))
	f.Add([]byte(`{"status":{"state":"error","reason":"x"},"uptime_ms":1,"load":0.5}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		fuzzOne(t, b, new(SimulateResponse), new(SimulateResponse))
		fuzzOne(t, b, new(HealthSnapshot), new(HealthSnapshot))
		fuzzOne(t, b, new(StateModel), new(StateModel))
	})
}

func fuzzOne[T message](t *testing.T, b []byte, x, back T) {
	if Decode(b, x) != nil {
		return
	}
	again, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	if err := Decode(again, back); err != nil {
		t.Errorf("%s does not decode again: %v", again, err)
	}
	last, err := json.Marshal(back)
	if err != nil || !bytes.Equal(again, last) {
		t.Errorf("%s becomes %s: %v", again, last, err)
	}
}

func FuzzParseCursor(f *testing.F) {
	f.Add("42")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if seq, all, err := ParseCursor(s); err == nil && !all && FormatCursor(seq) != s {
			t.Errorf("%q is %d", s, seq)
		}
	})
}
