package fcp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/zeebo/blake3"
)

// fullHeader uses every field.
func fullHeader() ObjectHeader {
	ttl, token := uint64(3600), "tok"
	return ObjectHeader{
		Schema: SchemaBlob.ID(), Zone: ZoneWork, CreatedAt: 1700000000,
		Provenance: Provenance{
			OriginZone: ZonePublic, Taint: HighlyTainted, Elevated: true, ElevationToken: &token,
			Chain: []ProvenanceStep{{TimestampMS: 1, Zone: ZonePublic, Actor: "a", Action: "b", Resource: "c"}},
		},
		Refs: []ObjectID{{1}}, ForeignRefs: []ObjectID{{2}}, TTL: &ttl,
		Placement: &PlacementPolicy{
			MinNodes: 2, MaxNodeFractionBPS: 5000, TargetCoverageBPS: 15000, MinSourceDiversity: 1,
			Preferred: []DeviceSelector{{Kind: SelectTag, Text: "nas"}, {Kind: SelectNode, Node: 7}},
			Excluded: []DeviceSelector{{Kind: SelectClass, Text: "phone"}, {Kind: SelectCapability, Text: "gpu"},
				{Kind: SelectZone, Text: "z:public"}},
		},
	}
}

func payloadOf(t testing.TB, schema Schema, body []byte) []byte {
	t.Helper()
	p, err := MarshalPayload(schema, body)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The literal has one line for each pair of the header's map, in canonical order:
// shorter keys first.
func TestFullHeaderGolden(t *testing.T) {
	want := strings.Join([]string{
		"a8",
		"64" + hex.EncodeToString([]byte("refs")) + "81" + "5820" + "01" + strings.Repeat("00", 31),
		"66" + hex.EncodeToString([]byte("schema")) + "a3" +
			"64" + hex.EncodeToString([]byte("name")) + "64" + hex.EncodeToString([]byte("Blob")) +
			"67" + hex.EncodeToString([]byte("version")) + "65" + hex.EncodeToString([]byte("1.0.0")) +
			"69" + hex.EncodeToString([]byte("namespace")) + "68" + hex.EncodeToString([]byte("fcp.core")),
		"67" + hex.EncodeToString([]byte("zone_id")) + "66" + hex.EncodeToString([]byte("z:work")),
		"68" + hex.EncodeToString([]byte("ttl_secs")) + "190e10",
		"69" + hex.EncodeToString([]byte("placement")) + "a6" +
			"69" + hex.EncodeToString([]byte("min_nodes")) + "02" +
			"70" + hex.EncodeToString([]byte("excluded_devices")) + "83" +
			"a1" + "65" + hex.EncodeToString([]byte("Class")) + "65" + hex.EncodeToString([]byte("phone")) +
			"a1" + "6d" + hex.EncodeToString([]byte("HasCapability")) + "63" + hex.EncodeToString([]byte("gpu")) +
			"a1" + "64" + hex.EncodeToString([]byte("Zone")) + "68" + hex.EncodeToString([]byte("z:public")) +
			"71" + hex.EncodeToString([]byte("preferred_devices")) + "82" +
			"a1" + "63" + hex.EncodeToString([]byte("Tag")) + "63" + hex.EncodeToString([]byte("nas")) +
			"a1" + "66" + hex.EncodeToString([]byte("NodeId")) + "07" +
			"73" + hex.EncodeToString([]byte("target_coverage_bps")) + "193a98" +
			"74" + hex.EncodeToString([]byte("min_source_diversity")) + "01" +
			"75" + hex.EncodeToString([]byte("max_node_fraction_bps")) + "191388",
		"6a" + hex.EncodeToString([]byte("created_at")) + "1a6553f100",
		"6a" + hex.EncodeToString([]byte("provenance")) + "a5" +
			"65" + hex.EncodeToString([]byte("chain")) + "81" + "a5" +
			"64" + hex.EncodeToString([]byte("zone")) + "68" + hex.EncodeToString([]byte("z:public")) +
			"65" + hex.EncodeToString([]byte("actor")) + "6161" +
			"66" + hex.EncodeToString([]byte("action")) + "6162" +
			"68" + hex.EncodeToString([]byte("resource")) + "6163" +
			"6c" + hex.EncodeToString([]byte("timestamp_ms")) + "01" +
			"65" + hex.EncodeToString([]byte("taint")) + "6d" + hex.EncodeToString([]byte("HighlyTainted")) +
			"68" + hex.EncodeToString([]byte("elevated")) + "f5" +
			"6b" + hex.EncodeToString([]byte("origin_zone")) + "68" + hex.EncodeToString([]byte("z:public")) +
			"6f" + hex.EncodeToString([]byte("elevation_token")) + "63" + hex.EncodeToString([]byte("tok")),
		"6c" + hex.EncodeToString([]byte("foreign_refs")) + "81" + "5820" + "02" + strings.Repeat("00", 31),
	}, "")
	h := fullHeader()
	payload := payloadOf(t, SchemaBlob, []byte("x"))
	got, err := EncodeObject(&h, payload)
	if err != nil {
		t.Fatal(err)
	}
	if hex.EncodeToString(got) != want+hex.EncodeToString(payload) {
		t.Errorf("\n got %x\nwant %s", got, want)
	}
	back, p, err := DecodeObject(got)
	if err != nil || !reflect.DeepEqual(back, h) || !bytes.Equal(p, payload) {
		t.Errorf("%+v, %x: %v", back, p, err)
	}
}

// The credential vectors hold the one header literal of the reference.
func TestPlainHeaderIsTheReferencesHeader(t *testing.T) {
	n := 0
	for _, v := range vectors(t, "credential") {
		whole, _ := v.Expect["cbor_canonical"].(string)
		value, _ := v.Input["value"].(map[string]any)
		head, ok := value["header"].(map[string]any)
		if !ok {
			continue
		}
		n++
		var h ObjectHeader
		if err := Unmarshal(must(Marshal(tree(t, head))), &h); err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		schema := must(LookupSchema(h.Schema))
		if !reflect.DeepEqual(h, PlainHeader(schema, h.Zone, h.CreatedAt)) {
			continue // not a plain one
		}
		got := AppendPlainHeader(nil, schema, h.Zone, h.CreatedAt)
		if !strings.Contains(whole, hex.EncodeToString(got)) {
			t.Errorf("%s: %x is not in %s", v.Name, got, whole)
		}
	}
	if n == 0 && os.Getenv("FCP_VECTORS") == "" {
		t.Error("no case with a header")
	}
}

func TestAppendPlainHeaderIsMarshal(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	zones := []ZoneID{"z:", ZoneWork, ZoneOwner, "z:" + ZoneID(strings.Repeat("x", MaxZoneID-2)), "z:twentyfour_bytes_long_"}
	schemas := append(BuiltinSchemas(), must(NewSchema(SchemaID{strings.Repeat("n", MaxSchemaPart), "x", "1.2.3"})),
		must(NewSchema(SchemaID{"n", strings.Repeat("x", 24), "1.2.3-" + strings.Repeat("a", 40)})))
	times := []uint64{0, 23, 24, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64}
	for range 2000 {
		schema, zone := schemas[rng.IntN(len(schemas))], zones[rng.IntN(len(zones))]
		created := times[rng.IntN(len(times))]
		h := PlainHeader(schema, zone, created)
		want := must(Marshal(&h))
		got := AppendPlainHeader([]byte("dst"), schema, zone, created)
		if string(got) != "dst"+string(want) {
			t.Fatalf("%s %s %d:\n got %x\nwant %x", schema, zone, created, got[3:], want)
		}
		if len(want) > PlainHeaderSize(schema) {
			t.Fatalf("%d bytes, PlainHeaderSize is %d", len(want), PlainHeaderSize(schema))
		}
		obj := append(want, payloadOf(t, schema, []byte{1})...)
		back, payload, err := DecodeObject(obj)
		slow, slowPayload, slowErr := decodeObject(obj)
		if err != nil || slowErr != nil || !reflect.DeepEqual(back, slow) || !reflect.DeepEqual(back, h) || !bytes.Equal(payload, slowPayload) {
			t.Fatalf("fast %+v %v, slow %+v %v", back, err, slow, slowErr)
		}
	}
}

func TestObjectsAreRefused(t *testing.T) {
	blob := payloadOf(t, SchemaBlob, []byte("x"))
	for name, c := range map[string]struct {
		change  func(h *ObjectHeader)
		payload []byte
		code    Code
	}{
		"zone":            {func(h *ObjectHeader) { h.Zone = "work" }, blob, CodeZone},
		"origin zone":     {func(h *ObjectHeader) { h.Provenance.OriginZone = "" }, blob, CodeZone},
		"step zone":       {func(h *ObjectHeader) { h.Provenance.Chain[0].Zone = "x" }, blob, CodeZone},
		"schema":          {func(h *ObjectHeader) { h.Schema.Version = "1" }, blob, CodeSchema},
		"taint":           {func(h *ObjectHeader) { h.Provenance.Taint = "clean" }, blob, CodeMalformed},
		"fraction":        {func(h *ObjectHeader) { h.Placement.MaxNodeFractionBPS = 10001 }, blob, CodeTooLarge},
		"no payload":      {func(*ObjectHeader) {}, nil, CodeSchema},
		"other payload":   {func(*ObjectHeader) {}, payloadOf(t, SchemaLease, []byte("x")), CodeSchema},
		"unknown schema":  {func(h *ObjectHeader) { h.Schema.Name = "Other" }, blob, CodeSchema},
		"too large":       {func(*ObjectHeader) {}, append(blob, make([]byte, MaxCanonicalObject)...), CodeTooLarge},
		"header too long": {func(h *ObjectHeader) { h.Refs = make([]ObjectID, MaxHeader/34+1) }, blob, CodeTooLarge},
	} {
		h := fullHeader()
		c.change(&h)
		if _, err := EncodeObject(&h, c.payload); !errors.Is(err, c.code) {
			t.Errorf("encode %s: %v, want %s", name, err, c.code)
		}
		head, err := Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = DecodeObject(append(head, c.payload...))
		if name == "header too long" { // the decoder sees it end at MaxHeader
			c.code = CodeMalformed
		}
		if !errors.Is(err, c.code) {
			t.Errorf("decode %s: %v, want %s", name, err, c.code)
		}
	}
	plain := append(AppendPlainHeader(nil, SchemaBlob, ZoneWork, 1), payloadOf(t, SchemaLease, []byte("x"))...)
	if _, _, err := DecodeObject(plain); !errors.Is(err, CodeSchema) {
		t.Errorf("plain header before another payload: %v", err)
	}
	for n := range 150 {
		if _, _, err := DecodeObject(plain[:n]); err == nil {
			t.Errorf("%d bytes of an object are taken", n)
		}
	}
}

func TestDeviceSelectorsAreStrict(t *testing.T) {
	for name, v := range map[string]any{
		"none": map[string]any{}, "two": map[string]any{"Tag": "a", "Class": "b"}, "two of two types": map[string]any{"Tag": "a", "NodeId": 1},
		"unknown": map[string]any{"Other": "a"}, "number as tag": map[string]any{"Tag": 1}, "text as node": map[string]any{"NodeId": "1"},
		"text": "Tag", "null": map[string]any{"Tag": nil},
	} {
		var s DeviceSelector
		if err := Unmarshal(must(Marshal(v)), &s); err == nil || CodeOf(err) == CodeInternal {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// naiveID is the rule of spec/wire.md section 3.3 and nothing else.
func naiveID(key [32]byte, zone ZoneID, schema Hash, content []byte) ObjectID {
	h := must(blake3.NewKeyed(key[:]))
	h.Write([]byte("FCP2-OBJECT-V2"))
	h.Write([]byte(zone))
	h.Write(schema[:])
	h.Write(content)
	return ObjectID(h.Sum(nil))
}

func TestPooledHashersAgreeWithFreshOnes(t *testing.T) {
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 9))
			for range 400 {
				key := [32]byte{byte(rng.IntN(3 * keyedSlots))}
				content := make([]byte, rng.IntN(20000))
				for i := range content {
					content[i] = byte(rng.Uint32())
				}
				cut := rng.IntN(len(content) + 1)
				want := naiveID(key, ZoneWork, SchemaBlob.Hash(), content)
				if got := KeyedObjectID(&key, ZoneWork, SchemaBlob.Hash(), content[:cut], content[cut:]); got != want {
					t.Errorf("%d bytes: %s, want %s", len(content), got, want)
				}
				want = naiveID(key, ZoneWork, SchemaBlob.Hash(), append([]byte("FCP2-OBJECT-V1"), content...))
				if got := StoredObjectID(&key, ZoneWork, SchemaBlob.Hash(), content); got != want {
					t.Errorf("stored, %d bytes: %s, want %s", len(content), got, want)
				}
				sum := blake3.Sum256(append([]byte("FCP2-CONTENT-V2"), content...))
				if got := UnscopedID(content); got != ObjectID(sum) {
					t.Errorf("unscoped, %d bytes: %s, want %x", len(content), got, sum)
				}
			}
		})
	}
	wg.Wait()
}

func TestIDsAreBoundToZoneSchemaAndKey(t *testing.T) {
	key, other := [32]byte{1}, [32]byte{2}
	ids := map[ObjectID]bool{
		KeyedObjectID(&key, ZoneWork, SchemaBlob.Hash(), []byte("x")):   true,
		KeyedObjectID(&other, ZoneWork, SchemaBlob.Hash(), []byte("x")): true,
		KeyedObjectID(&key, ZonePublic, SchemaBlob.Hash(), []byte("x")): true,
		KeyedObjectID(&key, ZoneWork, SchemaLease.Hash(), []byte("x")):  true,
		KeyedObjectID(&key, ZoneWork, SchemaBlob.Hash(), []byte("y")):   true,
		StoredObjectID(&key, ZoneWork, SchemaBlob.Hash(), []byte("x")):  true,
		UnscopedID([]byte("x")): true,
	}
	if len(ids) != 7 {
		t.Errorf("%d different ids of 7", len(ids))
	}
}

func TestObjectIDsDoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops items under the race detector")
	}
	key, data := [32]byte{1}, make([]byte, 256)
	dst := make([]byte, 0, PlainHeaderSize(SchemaBlob))
	obj := append(AppendPlainHeader(nil, SchemaBlob, ZoneWork, 1700000000), payloadOf(t, SchemaBlob, data)...)
	for name, f := range map[string]func(){
		"StoredObjectID":    func() { StoredObjectID(&key, ZoneWork, SchemaBlob.Hash(), data) },
		"KeyedObjectID":     func() { KeyedObjectID(&key, ZoneWork, SchemaBlob.Hash(), data, data) },
		"UnscopedID":        func() { UnscopedID(data) },
		"AppendPlainHeader": func() { AppendPlainHeader(dst, SchemaBlob, ZoneWork, 1700000000) },
		"Canonical":         func() { Canonical(obj[:len(obj)-len(data)-35]) },
		"DecodeObject":      func() { DecodeObject(obj) },
	} {
		if n := testing.AllocsPerRun(200, f); n >= 1 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func TestThrottleViolationID(t *testing.T) {
	id := CanonicalID("a")
	base := ThrottleViolation{TimestampMS: 1, Zone: ZoneWork, Limit: ThrottleRPM}
	connector, operation := base, base
	connector.Connector, operation.Operation = &id, &id
	if base.ID() == connector.ID() || connector.ID() == operation.ID() {
		t.Error("a connector and an operation give one id")
	}
}

func FuzzDecodeObject(f *testing.F) {
	h := fullHeader()
	f.Add(must(EncodeObject(&h, payloadOf(f, SchemaBlob, []byte("body")))))
	f.Add(append(AppendPlainHeader(nil, SchemaBlob, ZoneWork, 1700000000), payloadOf(f, SchemaBlob, nil)...))
	f.Add(append(AppendPlainHeader(nil, SchemaLease, "z:x", 1), payloadOf(f, SchemaLease, nil)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		head, payload, err := DecodeObject(data)
		slow, slowPayload, slowErr := decodeObject(data)
		if (err == nil) != (slowErr == nil) || CodeOf(err) != CodeOf(slowErr) {
			t.Fatalf("fast %v, slow %v", err, slowErr)
		}
		if err != nil {
			return
		}
		if !reflect.DeepEqual(head, slow) || !bytes.Equal(payload, slowPayload) {
			t.Fatalf("fast %+v, slow %+v", head, slow)
		}
		again, err := EncodeObject(&head, payload)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("encodes back to %x: %v", again, err)
		}
	})
}

func BenchmarkObject(b *testing.B) {
	key, data := [32]byte{1}, make([]byte, 256)
	head := AppendPlainHeader(nil, SchemaBlob, ZoneWork, 1700000000)
	obj := append(head, payloadOf(b, SchemaBlob, data)...)
	plain := PlainHeader(SchemaBlob, ZoneWork, 1700000000)
	hash := SchemaBlob.Hash()
	for _, c := range []struct {
		name string
		f    func()
	}{
		{"StoredObjectID/256", func() { StoredObjectID(&key, ZoneWork, hash, data) }},
		{"StoredObjectID/WholeObject", func() { StoredObjectID(&key, ZoneWork, hash, obj) }},
		{"UnscopedID/256", func() { UnscopedID(data) }},
		{"AppendPlainHeader", func() { AppendPlainHeader(head[:0], SchemaBlob, ZoneWork, 1700000000) }},
		{"MarshalHeader", func() { Marshal(&plain) }},
		{"DecodeObject/Plain", func() { DecodeObject(obj) }},
		{"DecodeObject/General", func() { decodeObject(obj) }},
		{"MarshalBlob", func() { MarshalPayload(SchemaBlob, data) }},
		{"SchemaHash", func() { SchemaBlob.ID().Hash() }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.f()
			}
		})
	}
}
