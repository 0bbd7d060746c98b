package fcp

import (
	"bytes"
	"sync"

	"github.com/zeebo/blake3"
)

// ObjectHeader stands in front of every object's payload (spec/wire.md section
// 5). It never holds the object's own id. EncodeObject and DecodeObject check
// every field.
type ObjectHeader struct {
	Schema      SchemaID         `cbor:"schema"`
	Zone        ZoneID           `cbor:"zone_id"`
	CreatedAt   uint64           `cbor:"created_at"` // seconds since the Unix epoch
	Provenance  Provenance       `cbor:"provenance"`
	Refs        []ObjectID       `cbor:"refs"`               // objects of the same zone
	ForeignRefs []ObjectID       `cbor:"foreign_refs"`       // objects of other zones
	TTL         *uint64          `cbor:"ttl_secs,omitempty"` // seconds after CreatedAt
	Placement   *PlacementPolicy `cbor:"placement,omitempty"`
}

// Taint says how far an object's origin is to be mistrusted.
type Taint string

// The closed set of taints.
const (
	Untainted     Taint = "Untainted"
	Tainted       Taint = "Tainted"
	HighlyTainted Taint = "HighlyTainted"
)

// Provenance says where an object came from.
type Provenance struct {
	OriginZone     ZoneID           `cbor:"origin_zone"`
	Chain          []ProvenanceStep `cbor:"chain"`
	Taint          Taint            `cbor:"taint"`
	Elevated       bool             `cbor:"elevated"`
	ElevationToken *string          `cbor:"elevation_token,omitempty"`
}

// ProvenanceStep is one action that led to the object.
type ProvenanceStep struct {
	TimestampMS uint64 `cbor:"timestamp_ms"` // milliseconds since the Unix epoch
	Zone        ZoneID `cbor:"zone"`
	Actor       string `cbor:"actor"`
	Action      string `cbor:"action"`
	Resource    string `cbor:"resource"`
}

// PlacementPolicy says where an object's symbols must be held. Fractions are
// basis points, 10000 = 1.0x.
type PlacementPolicy struct {
	MinNodes           uint8            `cbor:"min_nodes"`
	MaxNodeFractionBPS uint16           `cbor:"max_node_fraction_bps"` // 0 to 10000
	Preferred          []DeviceSelector `cbor:"preferred_devices"`
	Excluded           []DeviceSelector `cbor:"excluded_devices"`
	TargetCoverageBPS  uint32           `cbor:"target_coverage_bps"` // 10000 = just enough to rebuild
	MinSourceDiversity uint8            `cbor:"min_source_diversity"`
}

// SelectorKind is the variant of a DeviceSelector.
type SelectorKind string

// The closed set of selector kinds. SelectNode carries an integer, the others a
// text.
const (
	SelectTag        SelectorKind = "Tag"
	SelectClass      SelectorKind = "Class"
	SelectNode       SelectorKind = "NodeId"
	SelectCapability SelectorKind = "HasCapability"
	SelectZone       SelectorKind = "Zone"
)

// DeviceSelector picks devices. It encodes as the one-entry map {kind: value}.
type DeviceSelector struct {
	Kind SelectorKind
	Text string // unless Kind is SelectNode
	Node uint64 // when Kind is SelectNode
}

// MarshalCBOR encodes the one-entry map; an unknown kind is CodeInvalidArgument.
func (s DeviceSelector) MarshalCBOR() ([]byte, error) {
	switch s.Kind {
	case SelectNode:
		return Marshal(map[string]uint64{string(s.Kind): s.Node})
	case SelectTag, SelectClass, SelectCapability, SelectZone:
		return Marshal(map[string]string{string(s.Kind): s.Text})
	}
	return nil, Errorf(CodeInvalidArgument, "device selector kind %q: %w", s.Kind, ReasonUnknownField)
}

// selectorMap has one pointer for each kind.
type selectorMap struct {
	Tag        *string `cbor:"Tag,omitempty"`
	Class      *string `cbor:"Class,omitempty"`
	Node       *uint64 `cbor:"NodeId,omitempty"`
	Capability *string `cbor:"HasCapability,omitempty"`
	Zone       *string `cbor:"Zone,omitempty"`
}

// UnmarshalCBOR decodes the one-entry map. An unknown kind, no entry or several
// are CodeMalformed.
func (s *DeviceSelector) UnmarshalCBOR(data []byte) error {
	var m selectorMap
	if err := Unmarshal(data, &m); err != nil {
		return err
	}
	*s = DeviceSelector{}
	n := 0
	for _, f := range []struct {
		kind SelectorKind
		text *string
	}{{SelectTag, m.Tag}, {SelectClass, m.Class}, {SelectCapability, m.Capability}, {SelectZone, m.Zone}} {
		if f.text != nil {
			n++
			s.Kind, s.Text = f.kind, *f.text
		}
	}
	if m.Node != nil {
		n++
		s.Kind, s.Node = SelectNode, *m.Node
	}
	if n != 1 {
		return Errorf(CodeMalformed, "a device selector with %d kinds: %w", n, ReasonCount)
	}
	return nil
}

const maxBPS = 10000

// check verifies every field that the encoding does not.
func (h *ObjectHeader) check() error {
	if !h.Zone.Valid() || !h.Provenance.OriginZone.Valid() {
		return Errorf(CodeZone, "object header: %w", zoneFaultOf(h.Zone, h.Provenance.OriginZone))
	}
	if r := h.Schema.fault(); r != "" {
		return Errorf(CodeSchema, "object header: %w", r)
	}
	switch h.Provenance.Taint {
	case Untainted, Tainted, HighlyTainted:
	default:
		return Errorf(CodeMalformed, "object header: taint %.20q: %w", h.Provenance.Taint, ReasonType)
	}
	for _, step := range h.Provenance.Chain {
		if r := zoneFault(string(step.Zone)); r != "" {
			return Errorf(CodeZone, "object header: provenance step: %w", r)
		}
	}
	if p := h.Placement; p != nil && p.MaxNodeFractionBPS > maxBPS {
		return Errorf(CodeTooLarge, "object header: max_node_fraction_bps %d is above %d", p.MaxNodeFractionBPS, maxBPS)
	}
	return nil
}

func zoneFaultOf(zones ...ZoneID) Reason {
	for _, z := range zones {
		if r := zoneFault(string(z)); r != "" {
			return r
		}
	}
	return ""
}

// EncodeObject returns canonical_cbor(header) || payload, the stored form of an
// object. The payload must begin with the header's schema hash (CodeSchema).
func EncodeObject(h *ObjectHeader, payload []byte) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	head, err := Marshal(h)
	if err != nil {
		return nil, err
	}
	if err := checkObject(h.Schema, head, payload); err != nil {
		return nil, err
	}
	return append(head, payload...), nil
}

// DecodeObject splits the stored form into its header and its payload, which
// aliases b. It is strict: the header must be canonical and every field valid,
// and the payload must begin with the schema's hash. What follows the hash is the
// caller's to decode with UnmarshalPayload.
func DecodeObject(b []byte) (ObjectHeader, []byte, error) {
	if len(b) > MaxCanonicalObject-len(objectTag) {
		return ObjectHeader{}, nil, Errorf(CodeTooLarge, "an object of %d bytes: %w", len(b), ReasonSize)
	}
	if h, schema, n := decodePlainHeader(b); n > 0 {
		if _, err := PayloadBody(*schema, b[n:]); err != nil {
			return ObjectHeader{}, nil, err
		}
		return h, b[n:], nil
	}
	return decodeObject(b)
}

// decodeObject is DecodeObject for every header.
func decodeObject(b []byte) (ObjectHeader, []byte, error) {
	var h ObjectHeader
	n, err := canonicalItem(b[:min(len(b), MaxHeader)])
	if err == nil {
		err = decodeCanonical(b[:n], &h)
	}
	if err == nil {
		err = h.check()
	}
	if err == nil {
		err = checkObject(h.Schema, b[:n], b[n:])
	}
	if err != nil {
		return ObjectHeader{}, nil, Wrap(CodeMalformed, err, "object")
	}
	return h, b[n:], nil
}

func checkObject(id SchemaID, head, payload []byte) error {
	schema, err := LookupSchema(id)
	if err != nil {
		return err
	}
	if len(head) > MaxHeader {
		return Errorf(CodeTooLarge, "an object header of %d bytes, the limit is %d: %w", len(head), MaxHeader, ReasonSize)
	}
	if n := len(objectTag) + len(head) + len(payload); n > MaxCanonicalObject {
		return Errorf(CodeTooLarge, "an object of %d bytes, the limit is %d: %w", n, MaxCanonicalObject, ReasonSize)
	}
	_, err = PayloadBody(schema, payload)
	return err
}

// The plain header: untainted, born in its own zone, no chain, refs, lifetime or
// placement. Nearly every object has one, so it has a codec of its own: the bytes
// below around the variable parts, in canonical key order.
const (
	plainSchema   = "\xa6\x64refs\x80\x66schema\xa3\x64name"
	plainVersion  = "\x67version"
	plainNames    = "\x69namespace"
	plainZone     = "\x67zone_id"
	plainCreated  = "\x6acreated_at"
	plainOrigin   = "\x6aprovenance\xa4\x65chain\x80\x65taint\x69Untainted\x68elevated\xf4\x6borigin_zone"
	plainForeign  = "\x6cforeign_refs\x80"
	plainOverhead = len(plainZone) + len(plainCreated) + len(plainOrigin) + len(plainForeign) + 2*(2+MaxZoneID) + 9
)

func plainHeaderStart(id SchemaID) string {
	b := []byte(plainSchema)
	b = append(appendHead(b, majorText, uint64(len(id.Name))), id.Name...)
	b = append(b, plainVersion...)
	b = append(appendHead(b, majorText, uint64(len(id.Version))), id.Version...)
	b = append(b, plainNames...)
	b = append(appendHead(b, majorText, uint64(len(id.Namespace))), id.Namespace...)
	return string(append(b, plainZone...))
}

// PlainHeader returns the header that AppendPlainHeader encodes.
func PlainHeader(schema Schema, zone ZoneID, createdAt uint64) ObjectHeader {
	return ObjectHeader{
		Schema: schema.id, Zone: zone, CreatedAt: createdAt,
		Provenance: Provenance{OriginZone: zone, Chain: []ProvenanceStep{}, Taint: Untainted},
		Refs:       []ObjectID{}, ForeignRefs: []ObjectID{},
	}
}

// AppendPlainHeader appends the canonical encoding of a plain header: untainted,
// born in its zone, without chain, refs, lifetime or placement. It is what
// Marshal makes of PlainHeader, about twenty times as fast. The schema and the
// zone must be valid.
func AppendPlainHeader(dst []byte, schema Schema, zone ZoneID, createdAt uint64) []byte {
	dst = append(dst, schema.header...)
	dst = append(appendHead(dst, majorText, uint64(len(zone))), zone...)
	dst = appendHead(append(dst, plainCreated...), majorUint, createdAt)
	dst = append(dst, plainOrigin...)
	dst = append(appendHead(dst, majorText, uint64(len(zone))), zone...)
	return append(dst, plainForeign...)
}

// PlainHeaderSize returns a capacity that holds the schema's plain headers.
func PlainHeaderSize(schema Schema) int { return len(schema.header) + plainOverhead }

// decodePlainHeader recognises a plain header of a built-in schema and returns
// its length; 0 means that decodeObject must look, not that b is wrong.
func decodePlainHeader(b []byte) (ObjectHeader, *Schema, int) {
	end := bytes.Index(b[:min(len(b), maxPlainStart)], []byte(plainZone))
	if end < 0 {
		return ObjectHeader{}, nil, 0
	}
	end += len(plainZone)
	schema := builtinByHeader[string(b[:end])]
	if schema == nil {
		return ObjectHeader{}, nil, 0
	}
	d := decoder{b: b, i: end}
	zone := d.text(MaxZoneID)
	d.literal(plainCreated)
	created := d.uint()
	d.literal(plainOrigin)
	origin := d.text(MaxZoneID)
	d.literal(plainForeign)
	if d.err != nil || !bytes.Equal(zone, origin) {
		return ObjectHeader{}, nil, 0
	}
	z := standardZone(string(zone))
	if z == "" {
		if z = ZoneID(zone); !z.Valid() {
			return ObjectHeader{}, nil, 0
		}
	}
	return PlainHeader(*schema, z, created), schema, d.i
}

// maxPlainStart bounds the search for the end of the built-in part.
const maxPlainStart = 160

// literal steps over text that must stand at i.
func (d *decoder) literal(s string) {
	if d.err != nil {
		return
	}
	if rest := d.b[d.i:]; len(rest) < len(s) || string(rest[:len(s)]) != s {
		d.err = errFieldOrder
		return
	}
	d.i += len(s)
}

const (
	idTag      = "FCP2-OBJECT-V2"
	objectTag  = "FCP2-OBJECT-V1"
	contentTag = "FCP2-CONTENT-V2"
)

// KeyedObjectID returns the id of content in a zone: keyed BLAKE3 with the zone's
// 32-byte object id key over "FCP2-OBJECT-V2" || zone || schema hash || content
// (spec/wire.md section 3.3). The pieces of content are hashed as one run. It
// keeps a copy of the key in memory for the next call.
func KeyedObjectID(key *[32]byte, zone ZoneID, schemaHash Hash, content ...[]byte) ObjectID {
	p := keyedHashers.Get().(*keyedHasher)
	h := p.start(key, zone, &schemaHash)
	for _, c := range content {
		h.Write(c)
	}
	return p.finish(h)
}

// StoredObjectID returns the id of an object in its stored form, as EncodeObject
// makes it: the KeyedObjectID of "FCP2-OBJECT-V1" || encoded. Zone and schema
// must be those of its header.
func StoredObjectID(key *[32]byte, zone ZoneID, schemaHash Hash, encoded []byte) ObjectID {
	p := keyedHashers.Get().(*keyedHasher)
	h := p.start(key, zone, &schemaHash)
	h.WriteString(objectTag)
	h.Write(encoded)
	return p.finish(h)
}

// UnscopedID returns BLAKE3-256("FCP2-CONTENT-V2" || content). Anyone can compute
// it, so it names content and never anchors authority.
func UnscopedID(content []byte) ObjectID {
	h := hashers.Get().(*blake3.Hasher)
	h.Reset()
	h.WriteString(contentTag)
	h.Write(content)
	var id ObjectID
	h.Sum(id[:0])
	hashers.Put(h)
	return id
}

// keyedHasher keeps a few hashers with their keys: making one costs 10 KiB and a
// store has few zones. The pool gives each user its own.
type keyedHasher struct {
	keys [keyedSlots][32]byte
	hash [keyedSlots]*blake3.Hasher
	next int // the slot to give up next
}

const keyedSlots = 8

var keyedHashers = sync.Pool{New: func() any { return new(keyedHasher) }}

// start returns a hasher for key that has taken the id's fixed part.
func (p *keyedHasher) start(key *[32]byte, zone ZoneID, schemaHash *Hash) *blake3.Hasher {
	h := p.hasher(key)
	h.Reset()
	h.WriteString(idTag)
	h.WriteString(string(zone))
	h.Write(schemaHash[:])
	return h
}

func (p *keyedHasher) hasher(key *[32]byte) *blake3.Hasher {
	for i := range p.keys {
		if p.hash[i] != nil && p.keys[i] == *key {
			return p.hash[i]
		}
	}
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic(err) // only a key of another length, which the type forbids
	}
	p.keys[p.next], p.hash[p.next] = *key, h
	p.next = (p.next + 1) % keyedSlots
	return h
}

func (p *keyedHasher) finish(h *blake3.Hasher) ObjectID {
	var id ObjectID
	h.Sum(id[:0])
	keyedHashers.Put(p)
	return id
}
