package engine

import (
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// deviceObject is the body of device.enrolled (docs/format.md "Device
// enrollment"), signed by the owner over the payload without the signature.
type deviceObject struct {
	Format     uint64                     `cbor:"format"` // 1
	Writer     fcp.WriterID               `cbor:"writer"`
	Signing    authority.SigningPublic    `cbor:"signing"`
	Encryption authority.EncryptionPublic `cbor:"encryption"`
	Issuance   authority.IssuancePublic   `cbor:"issuance"`
	Name       string                     `cbor:"name"`
	EnrolledAt uint64                     `cbor:"enrolled_at"` // unix seconds
	Issuer     authority.OwnerPublic      `cbor:"issuer"`
	Signature  []byte                     `cbor:"signature,omitempty"`
}

const (
	governanceFormat = 1
	maxDeviceName    = 64
)

// signDevice returns the owner-signed enrollment of a node.
func signDevice(now time.Time, owner *authority.OwnerKey, node authority.NodePublic, name string) ([]byte, error) {
	if name == "" || len(name) > maxDeviceName {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a device name has 1 to %d bytes", maxDeviceName)
	}
	o := deviceObject{
		Format: governanceFormat, Writer: node.Writer(), Signing: node.Signing, Encryption: node.Encryption,
		Issuance: node.Issuance, Name: name, EnrolledAt: uint64(max(now.Unix(), 0)), Issuer: owner.Public(),
	}
	message, err := fcp.MarshalPayload(fcp.SchemaDeviceEnrollment, &o)
	if err != nil {
		return nil, err
	}
	o.Signature = owner.Sign(message)
	return fcp.MarshalPayload(fcp.SchemaDeviceEnrollment, &o)
}

// decodeDevice decodes an enrollment and verifies the signature of the owner it
// names. Canonical encoding makes the signed bytes those that were signed.
func decodeDevice(body []byte) (*deviceObject, error) {
	var o deviceObject
	if len(body) > fcp.MaxClearBody {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a device enrollment of %d bytes", len(body))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaDeviceEnrollment, body, &o); err != nil {
		return nil, err
	}
	switch {
	case o.Format != governanceFormat:
		return nil, fcp.Errorf(fcp.CodeVersion, "device enrollment format %d, this build knows %d", o.Format, governanceFormat)
	case o.Name == "" || len(o.Name) > maxDeviceName:
		return nil, fcp.Errorf(fcp.CodeMalformed, "a device name of %d bytes", len(o.Name))
	case o.Writer != fcp.WriterOf(ed25519.PublicKey(o.Signing[:])):
		return nil, fcp.Errorf(fcp.CodeMalformed, "an enrollment whose writer id is not that of its signing key")
	}
	signed := o
	signed.Signature = nil
	message, err := fcp.MarshalPayload(fcp.SchemaDeviceEnrollment, &signed)
	if err != nil {
		return nil, err
	}
	if !o.Issuer.Verify(message, o.Signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "device enrollment of %.16s", o.Writer)
	}
	return &o, nil
}

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

func checkpointKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	g, err := authority.VerifyGenesis(ev.Content.Body)
	if err != nil {
		return nil
	}
	return append(key, g.ID[:]...)
}

func checkpointRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	g, err := authority.VerifyGenesis(body)
	if err != nil {
		return "", nil, err
	}
	return g.ID.String(), map[string]any{"owner": g.Owner.String(), "writer": g.Writer.String(), "created": g.CreatedAt}, nil
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
	r, err := authority.VerifyRevocation(owner, ev.Content.Body)
	if err != nil || r.Zone() != ev.From.Feed.Zone {
		return nil
	}
	c := r.Cut()
	id := c.Feed.ID()
	return binary.BigEndian.AppendUint64(append(key, id[:]...), c.Seq)
}

func revocationRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	r, err := authority.VerifyRevocation(owner, body)
	if err != nil {
		return "", nil, err
	}
	c := r.Cut()
	return c.Feed.ID().String(), map[string]any{"writer": c.Feed.Writer.String(), "incarnation": c.Feed.Incarnation,
		"plane": c.Feed.Plane.String(), "cut": c.Seq, "hash": c.Hash.String(), "reason": r.Reason(), "issued": r.IssuedAt()}, nil
}

func deviceKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	o, err := decodeDevice(ev.Content.Body)
	if err != nil || o.Issuer != owner {
		return nil
	}
	return append(key, o.Writer[:]...)
}

func deviceRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	o, err := decodeDevice(body)
	if err != nil {
		return "", nil, err
	}
	return o.Writer.String(), map[string]any{"name": o.Name, "enrolled": time.Unix(int64(o.EnrolledAt), 0).UTC(),
		"signing": o.Signing.String(), "encryption": o.Encryption.String(), "issuance": o.Issuance.String()}, nil
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
	if err != nil || r.Zone != ev.From.Feed.Zone || r.Feed().Writer != ev.From.Feed.Writer {
		return nil // a writer speaks for its own feeds
	}
	id := r.Feed().ID()
	key = append(key, id[:]...)
	key = binary.BigEndian.AppendUint64(key, r.First)
	return append(key, r.Segment...)
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
