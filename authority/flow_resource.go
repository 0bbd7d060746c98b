package authority

import "fcp"

// SchemaResource is the schema of resource objects.
var SchemaResource = fcp.MustSchema("fcp.core:ResourceObject@1.0.0")

// ResourceObject stands for something outside the mesh that a connector reached,
// with the label of what came from there, so that what is made of it is not taken
// for the zone's own.
type ResourceObject struct {
	Header    fcp.ObjectHeader `cbor:"header"`
	Connector fcp.CanonicalID  `cbor:"connector_id"`
	URI       string           `cbor:"resource_uri"` // 1 to MaxResource characters
	Levels    fcp.Levels       `cbor:"levels"`       // of what came from there; never above the zone's
	Taint     TaintFlags       `cbor:"taint_flags"`
	Version   string           `cbor:"version,omitempty"` // the source's own, at most MaxIdempotency characters
	FetchedAt uint64           `cbor:"fetched_at"`        // unix seconds
}

// EncodeResource returns the object payload of a resource.
func EncodeResource(r *ResourceObject) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(SchemaResource, r)
}

// DecodeResource decodes the payload of a resource object.
func DecodeResource(b []byte) (*ResourceObject, error) {
	var r ResourceObject
	if err := openOperation(SchemaResource, b, &r); err != nil {
		return nil, err
	}
	return &r, r.check()
}

func (r *ResourceObject) check() error {
	_, err := fcp.ParseCanonicalID(string(r.Connector))
	switch {
	case r.Header.Schema != SchemaResource.ID():
		return fcp.Errorf(fcp.CodeSchema, "a resource with a header of %s", r.Header.Schema)
	case err != nil || !validToken(r.URI, MaxResource) || r.Version != "" && !validToken(r.Version, MaxIdempotency):
		return fcp.Errorf(fcp.CodeMalformed, "the connector, URI or version of a resource")
	case r.FetchedAt > maxUnixSeconds:
		return fcp.Errorf(fcp.CodeMalformed, "a resource with a time after the year 9999")
	}
	return checkLevels(r.Header.Zone, r.Levels)
}

// Label returns the label of what came from the resource.
func (r *ResourceObject) Label() Label {
	return Label{Origin: r.Header.Provenance.OriginZone, Levels: r.Levels, Taint: r.Taint | objectTaint(r.Header.Provenance.Taint)}
}

// ForeignRef is an object of another zone that an object refers to.
type ForeignRef struct {
	ID    fcp.ObjectID
	Label Label
}

// Bridge returns the label that an object gets in a zone when it is made of its own
// data and of foreign objects, and what it needs to be written there. Every foreign
// ref of the header must be given, and nothing else: one that is missing or not
// named is CodeInvalidArgument. Reading a foreign object does not carry its taint
// away: without an approval of the flow the label says CrossZoneUnapproved.
func Bridge(h *fcp.ObjectHeader, levels fcp.Levels, own Label, foreign []ForeignRef) (Label, Flow, error) {
	if len(foreign) != len(h.ForeignRefs) {
		return Label{}, Flow{}, fcp.Errorf(fcp.CodeInvalidArgument, "%d foreign refs, %d objects given", len(h.ForeignRefs), len(foreign))
	}
	labels := make([]Label, 0, len(foreign))
	for i, f := range foreign {
		switch {
		case f.ID != h.ForeignRefs[i]:
			return Label{}, Flow{}, fcp.Errorf(fcp.CodeInvalidArgument, "foreign ref %d is %.16s", i, h.ForeignRefs[i])
		case f.Label.Origin == h.Zone:
			return Label{}, Flow{}, fcp.Errorf(fcp.CodeInvalidArgument, "foreign ref %.16s is of the object's own zone", f.ID)
		}
		labels = append(labels, f.Label)
	}
	out := Merge(own, labels...)
	flow := FlowTo(out.Levels, levels)
	if !flow.Free() {
		out.Taint |= CrossZoneUnapproved
	}
	return out, flow, nil
}
