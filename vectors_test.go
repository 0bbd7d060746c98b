package fcp

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// The vectors of the Rust reference live outside the repository, beside it.
// FCP_VECTORS names another folder of the same format.
func vectorDir() string {
	if d := os.Getenv("FCP_VECTORS"); d != "" {
		return d
	}
	return filepath.Join("..", "shared", "vectors")
}

type vector struct {
	Name   string         `json:"name"`
	Kind   string         `json:"kind"`
	Input  map[string]any `json:"input"`
	Expect map[string]any `json:"expect"`
}

// vectors returns the cases of a class. Without the folder the test is skipped,
// or fails under CI.
func vectors(t *testing.T, class string) []vector {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(vectorDir(), class+".json"))
	if errors.Is(err, os.ErrNotExist) && os.Getenv("CI") != "true" {
		t.Skipf("did NOT run: no vectors of class %s in %s", class, vectorDir())
	}
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Class string   `json:"class"`
		Cases []vector `json:"cases"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	if file.Class != class || len(file.Cases) == 0 {
		t.Fatalf("class %q with %d cases in the file of %s", file.Class, len(file.Cases), class)
	}
	return file.Cases
}

func TestVectors(t *testing.T) {
	for class, run := range map[string]func(*testing.T, vector){
		"cbor": runCBOR, "cbor_payload": runCBOR, "schema_hash": runSchemaHash,
		"object_id": runObjectID, "identifiers": runIdentifier, "kid": runKid,
	} {
		t.Run(class, func(t *testing.T) {
			for _, v := range vectors(t, class) {
				t.Run(v.Name, func(t *testing.T) { run(t, v) })
			}
		})
	}
}

// tree turns a JSON value tree into the Go value to encode: "h:HEX" is a byte
// string, "h:@unscoped:LABEL" the unscoped id of a label.
func tree(t *testing.T, v any) any {
	t.Helper()
	switch v := v.(type) {
	case string:
		if label, ok := strings.CutPrefix(v, "h:@unscoped:"); ok {
			return UnscopedID([]byte(label))
		}
		if digits, ok := strings.CutPrefix(v, "h:"); ok {
			if b, err := hex.DecodeString(digits); err == nil {
				return b
			}
		}
		return v
	case json.Number:
		return number(t, v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = tree(t, v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = tree(t, v[k])
		}
		return out
	}
	return v // nil, bool
}

func number(t *testing.T, n json.Number) any {
	t.Helper()
	if u, err := strconv.ParseUint(n.String(), 10, 64); err == nil {
		return u
	}
	if i, err := strconv.ParseInt(n.String(), 10, 64); err == nil {
		return i
	}
	f, err := n.Float64()
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (v vector) text(t *testing.T, field string) string {
	t.Helper()
	s, ok := v.Input[field].(string)
	if !ok {
		t.Fatalf("input %q is %v, not text", field, v.Input[field])
	}
	return s
}

func (v vector) hex(t *testing.T, field string) []byte {
	t.Helper()
	return unhex(t, v.text(t, field))
}

func (v vector) uint(t *testing.T, field string) uint64 {
	t.Helper()
	n, _ := v.Input[field].(json.Number)
	u, err := strconv.ParseUint(n.String(), 10, 64)
	if err != nil {
		t.Fatalf("input %q: %v", field, err)
	}
	return u
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (v vector) schema(t *testing.T, field string) Schema {
	t.Helper()
	var id SchemaID
	var err error
	switch s := v.Input[field].(type) {
	case string:
		id, err = ParseSchemaID(s)
	case map[string]any:
		id = SchemaID{s["namespace"].(string), s["name"].(string), s["version"].(string)}
	default:
		t.Fatalf("input %q is %v, not a schema", field, s)
	}
	if err != nil {
		t.Fatal(err)
	}
	schema, err := NewSchema(id)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// wantHex compares with an expected field, if the case has it.
func (v vector) wantHex(t *testing.T, field string, got []byte) {
	t.Helper()
	if want, ok := v.Expect[field].(string); ok && hex.EncodeToString(got) != want {
		t.Errorf("%s:\n got %x\nwant %s", field, got, want)
	}
}

// wantOutcome compares acceptance and, for a refusal, the reason.
func (v vector) wantOutcome(t *testing.T, err error) {
	t.Helper()
	accept, ok := v.Expect["accept"].(bool)
	if !ok {
		accept = v.Expect["error"] == nil
	}
	if accept != (err == nil) {
		t.Fatalf("accept = %v, want %v: %v", err == nil, accept, err)
	}
	if want, ok := v.Expect["error"].(string); ok && err != nil && !matchesReason(want, err) {
		t.Errorf("refused for another reason than %q: %v", want, err)
	}
}

// reasonSpellings lists other spellings of a reason that a case may use; only the
// meaning counts.
var reasonSpellings = map[Reason][]string{
	ReasonNonCanonical: {"noncanonical", "not_canonical"},
	ReasonTruncated:    {"eof", "unexpected_eof", "short"},
	ReasonTrailing:     {"trailing", "trailing_data"},
	ReasonDuplicateKey: {"duplicate", "duplicate_keys", "non_canonical"},
	ReasonIndefinite:   {"indefinite"},
	ReasonUTF8:         {"utf8", "bad_utf8"},
	ReasonPrefix:       {"bad_prefix", "missing_prefix", "prefix"},
	ReasonChar:         {"invalid_character", "bad_char", "invalid_chars"},
	ReasonStart:        {"bad_start", "invalid_first_char", "invalid_first", "bad_first_char"},
	ReasonASCII:        {"not_ascii", "nonascii"},
	ReasonTooLong:      {"length", "toolong"},
}

func matchesReason(want string, err error) bool {
	if errors.Is(err, Reason(want)) {
		return true
	}
	for reason, spellings := range reasonSpellings {
		if errors.Is(err, reason) && slices.Contains(spellings, want) {
			return true
		}
	}
	return false
}

func runCBOR(t *testing.T, v vector) {
	switch v.Kind {
	case "encode":
		got, err := Marshal(tree(t, v.Input["value"]))
		if err != nil {
			t.Fatal(err)
		}
		v.wantHex(t, "cbor", got)
		roundTrip(t, got)
	case "reject":
		data := v.hex(t, "cbor")
		var x any
		v.wantOutcome(t, Unmarshal(data, &x))
		if want, ok := v.Expect["canonical"].(string); ok {
			var loose any
			if err := cbor.Unmarshal(data, &loose); err != nil {
				t.Fatal(err)
			}
			got, err := Marshal(loose)
			if err != nil || hex.EncodeToString(got) != want {
				t.Errorf("canonical form %x (%v), want %s", got, err, want)
			}
		}
	case "map_order":
		m := map[any]any{}
		for _, k := range v.Input["keys"].([]any) {
			key := tree(t, k)
			if b, ok := key.([]byte); ok {
				key = cbor.ByteString(b)
			}
			m[key] = uint64(0)
		}
		got, err := Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		want := []byte{0xa0 | byte(len(m))}
		for _, k := range v.Expect["sorted_keys"].([]any) {
			b, err := Marshal(tree(t, k))
			if err != nil {
				t.Fatal(err)
			}
			want = append(append(want, b...), 0)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("got %x, want %x", got, want)
		}
	case "payload":
		runPayload(t, v)
	default:
		t.Fatalf("unknown kind %q", v.Kind)
	}
}

func runPayload(t *testing.T, v vector) {
	schema := v.schema(t, "schema")
	got, err := MarshalPayload(schema, tree(t, v.Input["value"]))
	if err != nil {
		t.Fatal(err)
	}
	hash := schema.Hash()
	v.wantHex(t, "schema_hash", hash[:])
	v.wantHex(t, "payload", got)
	v.wantHex(t, "cbor", got[HashSize:])
	var x any
	if err := UnmarshalPayload(schema, got, &x); err != nil {
		t.Error(err)
	}
	if err := UnmarshalPayload(SchemaBlob, got, &x); !errors.Is(err, ReasonSchema) {
		t.Errorf("another schema took the payload: %v", err)
	}
}

func roundTrip(t *testing.T, data []byte) {
	t.Helper()
	var x any
	if err := Unmarshal(data, &x); err != nil {
		t.Fatal(err)
	}
	again, err := Marshal(x)
	if err != nil || !bytes.Equal(again, data) {
		t.Errorf("%x decodes and encodes to %x (%v)", data, again, err)
	}
}

func runSchemaHash(t *testing.T, v vector) {
	switch v.Kind {
	case "schema_hash":
		schema := v.schema(t, "schema")
		hash := schema.Hash()
		v.wantHex(t, "hash", hash[:])
		if schema.ID().Hash() != hash {
			t.Error("the kept hash is another")
		}
	case "signing_schema8":
		got := SigningSchema8(v.text(t, "schema_label"))
		v.wantHex(t, "hash8", got[:])
	default:
		t.Fatalf("unknown kind %q", v.Kind)
	}
}

func runObjectID(t *testing.T, v vector) {
	var id ObjectID
	switch v.Kind {
	case "keyed":
		zone, err := ParseZoneID(v.text(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		key := [32]byte(v.hex(t, "key"))
		id = KeyedObjectID(&key, zone, v.schema(t, "schema").Hash(), v.hex(t, "content"))
	case "unscoped":
		id = UnscopedID(v.hex(t, "content"))
	case "canonical_unscoped":
		data, err := Marshal(tree(t, v.Input["value"]))
		if err != nil {
			t.Fatal(err)
		}
		id = UnscopedID(data)
	case "throttle":
		id = throttleOf(t, v).ID()
	default:
		t.Fatalf("unknown kind %q", v.Kind)
	}
	v.wantHex(t, "object_id", id[:])
}

func throttleOf(t *testing.T, v vector) *ThrottleViolation {
	t.Helper()
	limits := map[string]ThrottleLimit{"rpm": ThrottleRPM, "concurrent": ThrottleConcurrent,
		"burst": ThrottleBurst, "quota": ThrottleQuota}
	out := &ThrottleViolation{
		TimestampMS: v.uint(t, "timestamp_ms"), Zone: ZoneID(v.text(t, "zone_id")),
		Limit:      limits[v.text(t, "limit_type")],
		LimitValue: uint32(v.uint(t, "limit_value")), CurrentValue: uint32(v.uint(t, "current_value")),
		RetryAfterMS: v.uint(t, "retry_after_ms"),
	}
	for field, to := range map[string]**CanonicalID{"connector_id": &out.Connector, "operation_id": &out.Operation} {
		if s, ok := v.Input[field].(string); ok {
			id := CanonicalID(s)
			*to = &id
		}
	}
	return out
}

func runIdentifier(t *testing.T, v vector) {
	switch v.Kind {
	case "canonical_id":
		_, err := ParseCanonicalID(v.text(t, "id"))
		v.wantOutcome(t, err)
	case "zone_id":
		_, err := ParseZoneID(v.text(t, "zone"))
		v.wantOutcome(t, err)
	case "zone_tag":
		zone, err := ParseZoneID(v.text(t, "zone"))
		v.wantOutcome(t, err)
		if want, ok := v.Expect["tag"].(string); ok && zone.Tag() != want {
			t.Errorf("tag %q, want %q", zone.Tag(), want)
		}
	case "zone_from_tag":
		zone, err := ZoneFromTag(v.text(t, "tag"))
		v.wantOutcome(t, err)
		for _, field := range []string{"zone", "zone_id"} {
			if want, ok := v.Expect[field].(string); ok && string(zone) != want {
				t.Errorf("zone %q, want %q", zone, want)
			}
		}
	default:
		t.Fatalf("unknown kind %q", v.Kind)
	}
}

func runKid(t *testing.T, v vector) {
	var pub []byte
	switch {
	case v.Input["seed"] != nil:
		pub = ed25519.NewKeyFromSeed(v.hex(t, "seed")).Public().(ed25519.PublicKey)
	case v.Input["public_key"] != nil:
		pub = v.hex(t, "public_key")
	default:
		t.Fatalf("kind %q with inputs %v", v.Kind, v.Input)
	}
	kid := KidOf(pub)
	v.wantHex(t, "kid", kid[:])
}
