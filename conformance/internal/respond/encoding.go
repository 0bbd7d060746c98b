package respond

import (
	"fcp"
)

var encodingOps = []Operation{
	{Name: "cbor.check", Input: "one CBOR item", Output: "the input", run: func(in []byte, _ *params) ([]byte, error) {
		return in, fcp.Canonical(in)
	}},
	{Name: "payload.check", Input: "schema hash and body", Params: []Param{{"schema", "schema id as text"}}, Output: "the body",
		run: func(in []byte, p *params) ([]byte, error) {
			body, err := fcp.PayloadBody(p.schema("schema"), in)
			if err != nil {
				return nil, err
			}
			return body, fcp.Canonical(body)
		}},
	{Name: "object.check", Input: "an object in its stored form: header and payload", Output: "the canonical header",
		run: func(in []byte, _ *params) ([]byte, error) {
			h, _, err := fcp.DecodeObject(in)
			if err != nil {
				return nil, err
			}
			return fcp.Marshal(&h)
		}},
	{Name: "event.check", Input: "an event", Output: "the event hash", run: func(in []byte, _ *params) ([]byte, error) {
		e, err := fcp.DecodeEvent(in)
		if err != nil {
			return nil, err
		}
		h := e.Hash()
		return h[:], nil
	}},
}

var identityOps = []Operation{
	{Name: "schema.hash", Input: "nothing", Params: []Param{{"schema", "schema id as text"}}, Output: "the schema hash",
		run: func(_ []byte, p *params) ([]byte, error) {
			h := p.schema("schema").Hash()
			return h[:], nil
		}},
	{Name: "zone.hash", Input: "the zone id as text", Output: "the zone id hash", run: func(in []byte, _ *params) ([]byte, error) {
		z, err := fcp.ParseZoneID(string(in))
		if err != nil {
			return nil, err
		}
		h := z.Hash()
		return h[:], nil
	}},
	{Name: "identifier.check", Input: "a canonical identifier as text", Output: "the input", run: func(in []byte, _ *params) ([]byte, error) {
		_, err := fcp.ParseCanonicalID(string(in))
		return in, err
	}},
	{Name: "kid", Input: "a public key", Output: "its key id", run: func(in []byte, _ *params) ([]byte, error) {
		k := fcp.KidOf(in)
		return k[:], nil
	}},
	{Name: "writer.id", Input: "an Ed25519 signing key", Output: "the writer id", run: func(in []byte, _ *params) ([]byte, error) {
		if len(in) != 32 {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a key of %d bytes", len(in))
		}
		w := fcp.WriterOf(in)
		return w[:], nil
	}},
	{Name: "feed.id", Input: "nothing", Params: []Param{{"zone", "zone id"}, {"writer", "writer id, hex"}, {"incarnation", "number"}, {"plane", "1 to 3"}},
		Output: "the feed id", run: func(_ []byte, p *params) ([]byte, error) {
			f := fcp.Feed{Zone: p.zone("zone"), Writer: fcp.WriterID(p.hash("writer")), Incarnation: p.number("incarnation"), Plane: fcp.Plane(p.number("plane"))}
			id := f.ID()
			return id[:], nil
		}},
	{Name: "object.id", Input: "an object in its stored form", Params: []Param{{"key", "object-id key, hex"}}, Output: "the object id",
		run: func(in []byte, p *params) ([]byte, error) {
			key := p.key("key")
			h, payload, err := fcp.DecodeObject(in)
			if err != nil {
				return nil, err
			}
			id := fcp.StoredObjectID(&key, h.Zone, fcp.Hash(payload[:fcp.HashSize]), in)
			return id[:], nil
		}},
	{Name: "content.id", Input: "content", Params: []Param{{"key", "object-id key, hex"}, {"zone", "zone id"}, {"schema", "schema id as text"}},
		Output: "the keyed object id", run: func(in []byte, p *params) ([]byte, error) {
			key := p.key("key")
			id := fcp.KeyedObjectID(&key, p.zone("zone"), p.schema("schema").Hash(), in)
			return id[:], nil
		}},
	{Name: "content.unscoped", Input: "content", Output: "the unscoped id", run: func(in []byte, _ *params) ([]byte, error) {
		id := fcp.UnscopedID(in)
		return id[:], nil
	}},
}
