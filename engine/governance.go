package engine

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

const governanceFormat = 1

// schemaObject is the body of schema.defined: how to read payloads of a schema,
// for somebody who has only the log.
type schemaObject struct {
	Format uint64 `cbor:"format"` // 1
	ID     string `cbor:"id"`     // namespace:name@version
	Text   string `cbor:"text"`   // CDDL (RFC 8610), or prose
}

// schemaTexts explain the schemas whose objects this build writes. The others are
// recorded with a pointer only.
var schemaTexts = map[fcp.SchemaID]string{
	fcp.SchemaBlob.ID():             "bstr ; the bytes as they were given",
	fcp.SchemaChunkedManifest.ID():  "{ chunks: [* bstr .size 32], total_len: uint, chunk_size: uint } ; object ids in order, each a Blob of chunk_size bytes but the last",
	fcp.SchemaSchemaDefinition.ID(): "{ id: tstr, text: tstr, format: uint } ; this object",
	fcp.SchemaDeviceEnrollment.ID(): "{ name: tstr, format: uint, issuer: bstr .size 32, writer: bstr .size 32, signing: bstr .size 32, issuance: bstr .size 32, signature: bstr .size 64, encryption: bstr .size 32, enrolled_at: uint }",
}

const schemaPointer = "; see docs/format.md of the format version that the store names"

func schemaBody(s fcp.Schema) ([]byte, error) {
	text, ok := schemaTexts[s.ID()]
	if !ok {
		text = schemaPointer
	}
	return fcp.MarshalPayload(fcp.SchemaSchemaDefinition, schemaObject{governanceFormat, s.String(), text})
}

func decodeSchemaBody(body []byte) (o schemaObject, err error) {
	if err = fcp.UnmarshalPayload(fcp.SchemaSchemaDefinition, body, &o); err != nil {
		return o, err
	}
	if o.Format != governanceFormat {
		return o, fcp.Errorf(fcp.CodeVersion, "schema definition format %d, this build knows %d", o.Format, governanceFormat)
	}
	_, err = fcp.ParseSchemaID(o.ID)
	return o, err
}

// The keys of the record projections. Bodies that do not decode, or that no owner
// signed, give nil: they are folded as nothing on every node.

func checkpointKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	if g, err := authority.VerifyGenesis(ev.Content.Body); err == nil {
		return append(key, g.ID[:]...)
	}
	if c, err := authority.DecodeZoneCheckpoint(ev.Content.Body); err == nil {
		if c.Spec().Zone != ev.From.Feed.Zone {
			return nil
		}
		ref := c.Ref()
		return append(key, ref[:]...)
	}
	c, err := authority.VerifyCheckpoint(owner, bytes.Clone(ev.Content.Body))
	if err != nil || c.Zone() != ev.From.Feed.Zone {
		return nil
	}
	h := c.Hash()
	return append(key, h[:]...)
}

func checkpointRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	if c, err := authority.VerifyCheckpoint(owner, body); err == nil {
		r := c.Retention()
		return c.Hash().String(), map[string]any{"form": "retention mark", "number": c.Seq(), "created": c.CreatedAt(), "root": c.Root().String(),
			"feeds": len(c.Feeds()), "history": r.History.String(), "versions": r.Versions, "pins": len(c.Pins())}, nil
	}
	if c, err := authority.DecodeZoneCheckpoint(body); err == nil {
		s := c.Spec()
		return c.Ref().String(), map[string]any{"form": "checkpoint", "number": s.Seq, "created": s.At, "revocations": s.Revocations.Seq,
			"audit": s.AuditSeq, "policy": s.Policy.Version, "members": len(s.Members), "signers": c.Signers()}, nil
	}
	g, err := authority.VerifyGenesis(body)
	if err != nil {
		return "", nil, err
	}
	return g.ID.String(), map[string]any{"form": "genesis", "owner": g.Owner.String(), "writer": g.Writer.String(), "created": g.CreatedAt}, nil
}

func zoneKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	z, err := authority.VerifyZone(owner, ev.Content.Body)
	if err != nil || z.Spec().ID != ev.From.Feed.Zone {
		return nil
	}
	return binary.BigEndian.AppendUint64(key, z.Spec().Version)
}

func zoneRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	z, err := authority.VerifyZone(owner, body)
	if err != nil {
		return "", nil, err
	}
	s := z.Spec()
	return s.ID.String(), map[string]any{"name": s.Name, "version": s.Version, "integrity": uint64(s.Levels.Integrity),
		"confidentiality": uint64(s.Levels.Confidentiality), "parent": s.Parent.String(), "created": z.CreatedAt()}, nil
}

func manifestKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	m, err := authority.VerifyManifest(owner, ev.Content.Body)
	if err != nil || m.Zone() != ev.From.Feed.Zone {
		return nil
	}
	return binary.BigEndian.AppendUint64(key, m.Version())
}

func manifestRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	m, err := authority.VerifyManifest(owner, body)
	if err != nil {
		return "", nil, err
	}
	return m.Zone().String(), map[string]any{"version": m.Version(), "key": m.IDs().Zone.String(),
		"recipients": m.Recipients(), "issued": m.IssuedAt()}, nil
}

func revocationKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	r, err := authority.OpenRevocation(owner, ev.Content.Body)
	if err != nil || r.Zone() != ev.From.Feed.Zone {
		return nil
	}
	id, seq := fcp.FeedID(r.Ref()), uint64(0)
	if cuts := r.Cuts(); r.Scope() == "" && len(cuts) == 1 {
		id, seq = cuts[0].Feed.ID(), cuts[0].Seq
	}
	return binary.BigEndian.AppendUint64(append(key, id[:]...), seq)
}

func revocationRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	r, err := authority.OpenRevocation(owner, body)
	if err != nil {
		return "", nil, err
	}
	cuts := r.Cuts()
	if r.Scope() == "" && len(cuts) == 1 {
		row := cutRow(cuts[0])
		row["reason"], row["issued"] = r.Reason(), r.IssuedAt()
		return cuts[0].Feed.ID().String(), row, nil
	}
	row := map[string]any{"scope": string(r.Scope()), "reason": r.Reason(), "issued": r.IssuedAt()}
	if by := r.Issuer(); by != owner {
		row["admin"] = fcp.WriterOf(by[:]).String()
	}
	var targets []string
	for _, t := range r.Targets() {
		targets = append(targets, t.String())
	}
	var list []any
	for _, c := range cuts {
		list = append(list, cutRow(c))
	}
	row["revoked"], row["cuts"] = targets, list
	return r.Ref().String(), row, nil
}

func cutRow(c authority.Cut) map[string]any {
	return map[string]any{"writer": c.Feed.Writer.String(), "incarnation": c.Feed.Incarnation,
		"plane": c.Feed.Plane.String(), "cut": c.Seq, "hash": c.Hash.String()}
}

func deviceKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	d, err := authority.VerifyDevice(owner, ev.Content.Body)
	if err != nil {
		return nil
	}
	w := d.Writer()
	return append(key, w[:]...)
}

func deviceRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	d, err := authority.VerifyDevice(owner, body)
	if err != nil {
		return "", nil, err
	}
	n := d.Node()
	return d.Writer().String(), map[string]any{"name": d.Name(), "enrolled": d.EnrolledAt(),
		"signing": n.Signing.String(), "encryption": n.Encryption.String(), "issuance": n.Issuance.String()}, nil
}

func schemaKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	o, err := decodeSchemaBody(ev.Content.Body)
	if err != nil {
		return nil
	}
	return append(key, o.ID...)
}

func schemaRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	o, err := decodeSchemaBody(body)
	if err != nil {
		return "", nil, err
	}
	return o.ID, map[string]any{"text": o.Text}, nil
}

// segmentsProjection knows every sealed segment that members told of: key is feed
// id, u64be first sequence number, segment id. Presence is canonical.
type segmentsProjection struct{}

func (segmentsProjection) Name() string         { return projSegments }
func (segmentsProjection) Version() uint32      { return 1 }
func (segmentsProjection) Scope() Scope         { return ScopeZone }
func (segmentsProjection) Planes() fcp.PlaneSet { return onControl }

func (segmentsProjection) Touches(ev *Event, key []byte) []byte {
	if ev.Content.Kind != fcp.KindSegmentSealed {
		return nil
	}
	r, err := log.DecodeRemainder(ev.Content.Body)
	if err != nil || r.Zone != ev.From.Feed.Zone || r.Feed().Writer != ev.From.Feed.Writer && !r.Compacted() {
		return nil // a writer speaks for its own feeds, and for what it compacted
	}
	return segmentKey(key, r.Feed().ID(), r.First, r.Segment)
}

// segmentKey appends the key of a segment to key.
func segmentKey(key []byte, feed fcp.FeedID, first uint64, segment []byte) []byte {
	key = append(key, feed[:]...)
	key = binary.BigEndian.AppendUint64(key, first)
	return append(key, segment...)
}

func (segmentsProjection) Apply(f *Fold, ev *Event, key []byte) error { return f.keepFirst(ev, key) }

func (segmentsProjection) Row(key []byte, v state.Value, row *Row) error {
	if len(key) != fcp.HashSize+8+fcp.HashSize {
		return fcp.Errorf(fcp.CodeCorrupt, "a segment's key in the state does not decode")
	}
	err := placeRow(v, row)
	row.Key = hex.EncodeToString(key[fcp.HashSize+8:])
	if err == nil {
		row.Fields["of"] = hex.EncodeToString(key[:fcp.HashSize])
		row.Fields["first"] = binary.BigEndian.Uint64(key[fcp.HashSize:])
	}
	return err
}
