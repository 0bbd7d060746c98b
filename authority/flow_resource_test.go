package authority

import (
	"bytes"
	"testing"

	"fcp"
)

func testResource() *ResourceObject {
	return &ResourceObject{Header: fcp.PlainHeader(SchemaResource, fcp.ZoneWork, 1), Connector: testConnector, URI: "mail://inbox/17",
		Levels: fcp.Levels{Integrity: 20, Confidentiality: 70}, Taint: PublicInput | WebhookInjected, Version: "v1", FetchedAt: 1700000000}
}

func TestResourceObject(t *testing.T) {
	r := testResource()
	b, err := EncodeResource(r)
	back, err2 := DecodeResource(must(t, b, err))
	again, err3 := EncodeResource(must(t, back, err2))
	if must(t, again, err3); !bytes.Equal(again, b) || back.Label().Taint != r.Taint || back.Label().Levels != r.Levels {
		t.Errorf("%+v", back)
	}
	for name, change := range map[string]func(*ResourceObject){
		"schema":    func(r *ResourceObject) { r.Header.Schema = fcp.SchemaBlob.ID() },
		"connector": func(r *ResourceObject) { r.Connector = "A" },
		"URI":       func(r *ResourceObject) { r.URI = "" },
		"space":     func(r *ResourceObject) { r.URI = "a b" },
		"level":     func(r *ResourceObject) { r.Levels.Integrity = 101 },
		"taint":     func(r *ResourceObject) { r.Taint = taintEnd },
		"time":      func(r *ResourceObject) { r.FetchedAt = maxUnixSeconds + 1 },
	} {
		bad := testResource()
		change(bad)
		if _, err := EncodeResource(bad); err == nil {
			t.Errorf("another %s is encoded", name)
		}
	}
}

func TestBridge(t *testing.T) {
	levels := func(z fcp.ZoneID) fcp.Levels { l, _ := z.StandardLevels(); return l }
	own := Label{Origin: fcp.ZoneWork, Levels: levels(fcp.ZoneWork)}
	ref := func(z fcp.ZoneID, id byte) ForeignRef {
		return ForeignRef{fcp.ObjectID{id}, Label{Origin: z, Levels: levels(z), Taint: UserGenerated}}
	}
	h := fcp.PlainHeader(fcp.SchemaBlob, fcp.ZoneWork, 1)
	for _, c := range []struct {
		refs []ForeignRef
		flow string
	}{
		{nil, "allowed"},
		{[]ForeignRef{ref(fcp.ZonePublic, 1)}, "requires_elevation"},
		{[]ForeignRef{ref(fcp.ZonePrivate, 1)}, "requires_declassification"},
		{[]ForeignRef{ref(fcp.ZonePrivate, 1), ref(fcp.ZonePublic, 2)}, "requires_both"},
	} {
		h.ForeignRefs = nil
		for _, f := range c.refs {
			h.ForeignRefs = append(h.ForeignRefs, f.ID)
		}
		label, flow, err := Bridge(&h, levels(fcp.ZoneWork), own, c.refs)
		if err != nil || flow.String() != c.flow || (label.Taint&CrossZoneUnapproved != 0) == flow.Free() || label.Origin != fcp.ZoneWork {
			t.Errorf("%d refs: %s %+v %v", len(c.refs), flow, label, err)
		}
	}
	for name, refs := range map[string][]ForeignRef{
		"one missing": {ref(fcp.ZonePrivate, 1)}, "another": {ref(fcp.ZonePrivate, 1), ref(fcp.ZonePublic, 3)},
		"of the own zone": {ref(fcp.ZonePrivate, 1), ref(fcp.ZoneWork, 2)},
	} {
		if _, _, err := Bridge(&h, levels(fcp.ZoneWork), own, refs); fcp.CodeOf(err) != fcp.CodeInvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}
