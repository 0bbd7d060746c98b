package fcp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

// Each row is a sentence of docs/format.md "Canonical CBOR".
var refusals = []struct {
	name   string
	data   string // hex
	code   Code
	reason Reason
}{
	{"nothing", "", CodeMalformed, ReasonTruncated},
	{"text ends early", "6a6162", CodeMalformed, ReasonTruncated},
	{"head ends early", "19ff", CodeMalformed, ReasonTruncated},
	{"array ends early", "8201", CodeMalformed, ReasonTruncated},
	{"map ends early", "a1", CodeMalformed, ReasonTruncated},
	{"map without its value", "a16161", CodeMalformed, ReasonTruncated},
	{"huge byte string", "5bffffffffffffffff", CodeMalformed, ReasonTruncated},
	{"huge array", "9bffffffffffffffff", CodeMalformed, ReasonTruncated},
	{"huge map", "bbffffffffffffffff", CodeMalformed, ReasonTruncated},
	{"float ends early", "fb0000", CodeMalformed, ReasonTruncated},
	{"trailing byte", "0000", CodeMalformed, ReasonTrailing},
	{"0 in two bytes", "1800", CodeNonCanonical, ReasonNonCanonical},
	{"23 in two bytes", "1817", CodeNonCanonical, ReasonNonCanonical},
	{"255 in three bytes", "1900ff", CodeNonCanonical, ReasonNonCanonical},
	{"65535 in five bytes", "1a0000ffff", CodeNonCanonical, ReasonNonCanonical},
	{"2^32-1 in nine bytes", "1b00000000ffffffff", CodeNonCanonical, ReasonNonCanonical},
	{"-1 in two bytes", "3800", CodeNonCanonical, ReasonNonCanonical},
	{"long text length", "780161", CodeNonCanonical, ReasonNonCanonical},
	{"long array length", "980100", CodeNonCanonical, ReasonNonCanonical},
	{"long map length", "b8016100", CodeNonCanonical, ReasonNonCanonical},
	{"wide float", "fa3f800000", CodeNonCanonical, ReasonNonCanonical},
	{"wider float", "fb3ff8000000000000", CodeNonCanonical, ReasonNonCanonical},
	{"wide zero", "fa80000000", CodeNonCanonical, ReasonNonCanonical},
	{"longer key first", "a2626161006162 00", CodeNonCanonical, ReasonKeyOrder},
	{"bytewise order broken", "a2616200616100", CodeNonCanonical, ReasonKeyOrder},
	{"long key of a lower type first", "a21903e800616100", CodeNonCanonical, ReasonKeyOrder},
	{"duplicate key", "a2616100616101", CodeMalformed, ReasonDuplicateKey},
	{"duplicate key inside", "81a2010001 00", CodeMalformed, ReasonDuplicateKey},
	{"array as key", "a1800 0", CodeMalformed, ReasonKeyType},
	{"null as key", "a1f600", CodeMalformed, ReasonKeyType},
	{"float as key", "a1f9000000", CodeMalformed, ReasonKeyType},
	{"indefinite text", "7f6161ff", CodeNonCanonical, ReasonIndefinite},
	{"indefinite bytes", "5fff", CodeNonCanonical, ReasonIndefinite},
	{"indefinite array", "9fff", CodeNonCanonical, ReasonIndefinite},
	{"indefinite map", "bfff", CodeNonCanonical, ReasonIndefinite},
	{"lone break", "ff", CodeMalformed, ReasonMalformed},
	{"reserved head", "1c", CodeMalformed, ReasonMalformed},
	{"integer of no length", "1f", CodeMalformed, ReasonMalformed},
	{"bad UTF-8", "61ff", CodeMalformed, ReasonUTF8},
	{"UTF-8 surrogate", "63eda080", CodeMalformed, ReasonUTF8},
	{"NaN", "f97e00", CodeMalformed, ReasonNotFinite},
	{"wide NaN", "fb7ff8000000000000", CodeMalformed, ReasonNotFinite},
	{"infinity", "f97c00", CodeMalformed, ReasonNotFinite},
	{"wide infinity", "faff800000", CodeMalformed, ReasonNotFinite},
	{"tag", "c000", CodeMalformed, ReasonTag},
	{"bignum", "c24100", CodeMalformed, ReasonTag},
	{"undefined", "f7", CodeMalformed, ReasonSimple},
	{"simple value", "e0", CodeMalformed, ReasonSimple},
	{"wide simple value", "f8ff", CodeMalformed, ReasonSimple},
	{"-2^63-1", "3b8000000000000000", CodeMalformed, ReasonRange},
	{"17 arrays", strings.Repeat("81", MaxNesting) + "80", CodeTooLarge, ReasonDepth},
	{"17 maps", strings.Repeat("a100", MaxNesting) + "a0", CodeTooLarge, ReasonDepth},
}

func TestRefusals(t *testing.T) {
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			data := unhex(t, strings.ReplaceAll(c.data, " ", ""))
			var v any
			for what, err := range map[string]error{"Canonical": Canonical(data), "Unmarshal": Unmarshal(data, &v)} {
				if !errors.Is(err, c.code) || !errors.Is(err, c.reason) {
					t.Errorf("%s: %v, want %s %s", what, err, c.code, c.reason)
				}
			}
		})
	}
}

func TestLimitsAreChecked(t *testing.T) {
	array := append([]byte{0x9a, 0, 1, 0, 1}, make([]byte, MaxArrayElements+1)...)
	if err := Canonical(array); !errors.Is(err, ReasonCount) || !errors.Is(err, CodeTooLarge) {
		t.Errorf("%d elements: %v", MaxArrayElements+1, err)
	}
	array = append([]byte{0x9a, 0, 1, 0, 0}, make([]byte, MaxArrayElements)...)
	if err := Canonical(array); err != nil {
		t.Errorf("%d elements: %v", MaxArrayElements, err)
	}
	pairs := append([]byte{0xb9, 0x10, 0x01}, make([]byte, 2*(MaxMapPairs+1))...)
	if err := Canonical(pairs); !errors.Is(err, ReasonCount) {
		t.Errorf("%d pairs: %v", MaxMapPairs+1, err)
	}
	big := make([]byte, MaxCanonicalObject+1)
	copy(big, binary.BigEndian.AppendUint32([]byte{0x5a}, MaxCanonicalObject-4))
	var v []byte
	if err := Unmarshal(big, &v); !errors.Is(err, ReasonSize) || !errors.Is(err, CodeTooLarge) {
		t.Errorf("%d bytes: %v", len(big), err)
	}
	if _, err := Marshal(big); !errors.Is(err, CodeTooLarge) {
		t.Errorf("marshal %d bytes: %v", len(big), err)
	}
	fits := big[:MaxCanonicalObject-HashSize-5]
	if p, err := MarshalPayload(SchemaBlob, fits); err != nil || len(p) != MaxCanonicalObject {
		t.Errorf("the largest payload has %d bytes: %v", len(p), err)
	}
	if _, err := MarshalPayload(SchemaBlob, big[:len(fits)+1]); !errors.Is(err, CodeTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestMarshalNeverMakesWhatUnmarshalRefuses(t *testing.T) {
	deep := any(uint64(1))
	for range MaxNesting + 1 {
		deep = []any{deep}
	}
	for name, v := range map[string]any{
		"bad UTF-8":         "\xff",
		"NaN":               math.NaN(),
		"infinity":          math.Inf(-1),
		"too deep":          deep,
		"equal keys":        map[any]any{int8(1): 0, uint64(1): 0},
		"float key":         map[any]any{1.5: 0},
		"channel":           make(chan int),
		"raw, empty":        RawCBOR{},
		"raw, twice":        RawCBOR{0, 0},
		"raw, long":         []any{RawCBOR{0x18, 0}},
		"library's raw":     cbor.RawMessage{0x18, 0},
		"simple value":      cbor.SimpleValue(7),
		"selector, no kind": DeviceSelector{},
	} {
		if b, err := Marshal(v); err == nil {
			t.Errorf("%s: encoded as %x", name, b)
		} else if CodeOf(err) == CodeInternal {
			t.Errorf("%s: not one of our errors: %v", name, err)
		}
	}
}

func TestEncodings(t *testing.T) {
	type optional struct {
		B []byte   `cbor:"b"`
		L []string `cbor:"list"`
		O *uint64  `cbor:"opt,omitempty"`
	}
	for _, c := range []struct {
		v    any
		want string
	}{
		{uint64(math.MaxUint64), "1bffffffffffffffff"},
		{int64(math.MinInt64), "3b7fffffffffffffff"},
		{-1, "20"}, {true, "f5"}, {nil, "f6"},
		{1.0, "f93c00"}, {0.0, "f90000"}, {math.Copysign(0, -1), "f98000"}, {65504.0, "f97bff"}, {65505.0, "fa477fe100"},
		{5.960464477539063e-8, "f90001"}, {1.1, "fb3ff199999999999a"}, {float64(float32(1.1)), "fa3f8ccccd"},
		{[3]byte{1, 2, 3}, "43010203"}, {[]byte(nil), "40"}, {[]int(nil), "80"}, {map[string]int(nil), "a0"},
		{optional{}, "a26162406 46c69737480"},
		{map[any]any{"a": 1, uint64(1000): 2, int64(-1): 3, "bb": 4}, "a4200361610 11903e80262626204"},
	} {
		got, err := Marshal(c.v)
		if err != nil || hex.EncodeToString(got) != strings.ReplaceAll(c.want, " ", "") {
			t.Errorf("%#v: %x (%v), want %s", c.v, got, err, c.want)
		}
	}
}

type sample struct {
	Name string            `cbor:"name"`
	ID   ObjectID          `cbor:"id"`
	Opt  *string           `cbor:"opt,omitempty"`
	List []uint64          `cbor:"list"`
	Tags map[string]uint64 `cbor:"tags"`
	Raw  *RawCBOR          `cbor:"raw,omitempty"`
}

func TestStructsAreStrict(t *testing.T) {
	full := map[string]any{"name": "a", "id": ObjectID{1}, "list": []uint64{1}, "tags": map[string]uint64{}}
	with := func(change func(m map[string]any)) []byte {
		m := map[string]any{}
		for k, v := range full {
			m[k] = v
		}
		change(m)
		return must(Marshal(m))
	}
	var s sample
	if err := Unmarshal(with(func(map[string]any) {}), &s); err != nil || s.ID != (ObjectID{1}) {
		t.Fatalf("%+v: %v", s, err)
	}
	for name, c := range map[string]struct {
		data   []byte
		code   Code
		reason Reason
	}{
		"unknown field":  {with(func(m map[string]any) { m["x"] = 1 }), CodeMalformed, ReasonUnknownField},
		"other case":     {with(func(m map[string]any) { delete(m, "name"); m["Name"] = "a" }), CodeMalformed, ReasonUnknownField},
		"missing field":  {with(func(m map[string]any) { delete(m, "name") }), CodeNonCanonical, ReasonNonCanonical},
		"null option":    {with(func(m map[string]any) { m["opt"] = nil }), CodeNonCanonical, ReasonNonCanonical},
		"null list":      {with(func(m map[string]any) { m["list"] = nil }), CodeNonCanonical, ReasonNonCanonical},
		"wrong type":     {with(func(m map[string]any) { m["name"] = 1 }), CodeMalformed, ReasonType},
		"negative":       {with(func(m map[string]any) { m["list"] = []int{-1} }), CodeMalformed, ReasonType},
		"short id":       {with(func(m map[string]any) { m["id"] = []byte{1} }), CodeNonCanonical, ReasonNonCanonical},
		"long id":        {with(func(m map[string]any) { m["id"] = make([]byte, 33) }), CodeNonCanonical, ReasonNonCanonical},
		"id as integers": {with(func(m map[string]any) { m["id"] = make([]uint64, 32) }), CodeNonCanonical, ReasonNonCanonical},
		"array":          {[]byte{0x80}, CodeMalformed, ReasonType},
	} {
		var s sample
		if err := Unmarshal(c.data, &s); !errors.Is(err, c.code) || !errors.Is(err, c.reason) {
			t.Errorf("%s: %v, want %s %s", name, err, c.code, c.reason)
		}
	}
}

func TestErrorsNeverRepeatTheInput(t *testing.T) {
	secret := "hunter2"
	var s sample
	for _, v := range []any{
		map[string]any{secret: 1}, map[string]any{"id": secret}, map[string]any{"list": []any{secret}},
		map[string]any{"tags": map[string]any{"a": secret}}, []any{secret},
	} {
		if err := Unmarshal(must(Marshal(v)), &s); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v", err)
		}
	}
}

func TestRawCBORRoundTripsAndDoesNotAlias(t *testing.T) {
	raw := RawCBOR(must(Marshal(map[string]uint64{"x": 1})))
	in := sample{Name: "n", Raw: &raw}
	data := must(Marshal(in))
	var out sample
	if err := Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	clear(data)
	if out.Name != "n" || out.Raw == nil || !bytes.Equal(*out.Raw, raw) {
		t.Errorf("got %+v", out)
	}
}

func TestPayloadPrefix(t *testing.T) {
	p := must(MarshalPayload(SchemaBlob, []byte("body")))
	var body []byte
	if err := UnmarshalPayload(SchemaBlob, p, &body); err != nil || string(body) != "body" {
		t.Fatalf("%q: %v", body, err)
	}
	for reason, data := range map[Reason][]byte{ReasonNoSchema: p[:31], ReasonSchema: append(make([]byte, 32), p[32:]...), ReasonTruncated: p[:32]} {
		if err := UnmarshalPayload(SchemaBlob, data, &body); !errors.Is(err, reason) {
			t.Errorf("got %v, want %s", err, reason)
		}
	}
}

func TestUnmarshalIntoNoPointerIsABug(t *testing.T) {
	if err := Unmarshal([]byte{0}, 1); !errors.Is(err, CodeInternal) {
		t.Errorf("got %v", err)
	}
}

// loose decodes all that RFC 8949 allows, to compare with.
var loose = must(cbor.DecOptions{MaxNestedLevels: MaxNesting, DupMapKey: cbor.DupMapKeyEnforcedAPF,
	UTF8: cbor.UTF8RejectInvalid}.DecMode())

func FuzzUnmarshal(f *testing.F) {
	for _, c := range refusals {
		if b, err := hex.DecodeString(strings.ReplaceAll(c.data, " ", "")); err == nil {
			f.Add(b)
		}
	}
	f.Add(must(Marshal(sample{Name: "x"})))
	f.Add(AppendPlainHeader(nil, SchemaBlob, ZoneWork, 1))
	f.Add([]byte{0xa2, 0x20, 0xf9, 0x3c, 0x00, 0x41, 0x61, 0x82, 0xf5, 0xf6})
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		err := Unmarshal(data, &v)
		if (err == nil) != (Canonical(data) == nil) {
			t.Fatalf("Unmarshal %v, Canonical %v", err, Canonical(data))
		}
		if err == nil {
			again, err := Marshal(v)
			if err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%x encodes back to %x: %v", data, again, err)
			}
		} else {
			mustBeRefusedForACause(t, data, err)
		}
		var s sample
		if Unmarshal(data, &s) == nil {
			if again, err := Marshal(&s); err != nil || !bytes.Equal(again, data) {
				t.Fatalf("%x encodes back to %x: %v", data, again, err)
			}
		}
	})
}

// mustBeRefusedForACause fails if the library decodes data and encodes it back
// to the same bytes although we refused it for not being canonical.
func mustBeRefusedForACause(t *testing.T, data []byte, refusal error) {
	t.Helper()
	if CodeOf(refusal) == CodeInternal {
		t.Fatalf("%x: not our error: %v", data, refusal)
	}
	if !errors.Is(refusal, CodeNonCanonical) {
		return
	}
	var v any
	if loose.Unmarshal(data, &v) != nil {
		return
	}
	if again, err := Marshal(v); err == nil && bytes.Equal(again, data) {
		t.Fatalf("%x is canonical but refused: %v", data, refusal)
	}
}

func TestDifferentialFloats(t *testing.T) {
	check := func(f float64) {
		b, err := Marshal(f)
		if err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		var back any
		if err := Unmarshal(b, &back); err != nil || !reflect.DeepEqual(back, f) {
			t.Fatalf("%v is %v: %v", f, back, err)
		}
	}
	for h := range 1 << 16 { // every binary16 and its neighbours
		f := halfToFloat(uint16(h))
		if isSpecial(f) {
			continue
		}
		check(f)
		check(math.Nextafter(f, 1))
		check(float64(math.Nextafter32(float32(f), 1)))
	}
}

// halfToFloat widens a binary16, from its definition.
func halfToFloat(h uint16) float64 {
	exp, frac := int(h>>10&0x1f), float64(h&0x3ff)
	f := math.Ldexp(1024+frac, exp-25)
	switch exp {
	case 0:
		f = math.Ldexp(frac, -24)
	case 31:
		return math.NaN()
	}
	if h>>15 == 1 {
		return math.Copysign(f, -1)
	}
	return f
}

func BenchmarkCBOR(b *testing.B) {
	h := PlainHeader(SchemaBlob, ZoneWork, 1700000000)
	h.Refs = []ObjectID{{1}, {2}}
	data := must(Marshal(&h))
	b.Run("Marshal", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			Marshal(&h)
		}
	})
	b.Run("Unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			var out ObjectHeader
			if err := Unmarshal(data, &out); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Canonical", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			Canonical(data)
		}
	})
}
