package authority

import (
	"slices"
	"strings"
	"testing"

	"fcp"
)

// TestVectorsPolicyDecision runs the part of Decide that the reference has: policy
// and flow. A reference decision knows no tokens, so the two steps run alone, over
// facts made of the vector: its approvals and receipts are unsigned and count as
// the owner's, their evidence is that of the reference.
func TestVectorsPolicyDecision(t *testing.T) {
	eachVector(t, "policy_decision", func(t *testing.T, v vectorCase) {
		w := newWorld(t)
		f, r := vectorDecision(t, w, v)
		d := &decider{f: f, r: r, levels: r.Data.Levels, taint: r.Data.Taint}
		err := d.policy()
		if err == nil {
			err = d.flow()
		}
		reason, decision := ReasonAllow, decisionAllow
		if err != nil {
			reason, decision = ReasonOf(err), decisionDeny
		}
		equal[any](t, decision, v.Expect["decision"])
		equal[any](t, string(reason), v.Expect["reason_code"])
		want := texts(v.Expect["evidence"])
		var got []string
		for _, e := range d.evidence {
			got = append(got, e.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("evidence %v, want %v", got, want)
		}
	})
}

func vectorPatterns(v any) (out Patterns) {
	for _, s := range texts(v) {
		out = append(out, Pattern(s))
	}
	return out
}

func vectorDecision(t *testing.T, w *world, v vectorCase) (*Facts, *Request) {
	text := func(m map[string]any, field string) string { s, _ := m[field].(string); return s }
	flag := func(m map[string]any, field string) bool { b, _ := m[field].(bool); return b }
	in := v.Input
	f := w.facts()
	w.clear = taintEnd - 1
	f.Now = millis(t, in["now_ms"])
	f.Levels = referenceLevels(text(in, "zone"))
	f.RevocationFresh, f.CheckpointFresh = flag(in, "revocation_fresh"), flag(in, "checkpoint_fresh")
	for field, x := range in["policy"].(map[string]any) {
		m, _ := x.(map[string]any)
		switch field {
		case "principal_allow":
			f.Policy.Principals.Allow = vectorPatterns(x)
		case "principal_deny":
			f.Policy.Principals.Deny = vectorPatterns(x)
		case "connector_allow":
			f.Policy.Connectors.Allow = vectorPatterns(x)
		case "connector_deny":
			f.Policy.Connectors.Deny = vectorPatterns(x)
		case "capability_allow":
			f.Policy.Capabilities.Allow = vectorPatterns(x)
		case "capability_deny":
			f.Policy.Capabilities.Deny = vectorPatterns(x)
		case "capability_ceiling":
			p := vectorPatterns(x)
			f.Ceiling = &p
		case "transport_policy":
			f.Transport = Transport{NoLAN: !flag(m, "allow_lan"), DERP: flag(m, "allow_derp"), Funnel: flag(m, "allow_funnel")}
		default:
			t.Fatalf("policy field %s", field)
		}
	}
	p := in["provenance"].(map[string]any)
	r := &Request{
		ID: fcp.UnscopedID([]byte(text(in, "request_object_id_label"))), Zone: fcp.ZoneID(text(in, "zone")),
		Principal: fcp.CanonicalID(text(in, "principal")), Connector: fcp.CanonicalID(text(in, "connector_id")),
		Capability: fcp.CanonicalID(text(in, "capability_id")), Operation: fcp.CanonicalID(text(in, "operation_id")),
		Tier: Tier(text(in, "safety_tier")), NeedsApproval: flag(in, "execution_approval_required"), Carrier: Carrier(text(in, "transport")),
		Data: Label{Origin: fcp.ZoneID(text(p, "origin_zone")), Levels: referenceLevels(text(p, "origin_zone")),
			Taint: vectorTaint(t, p["taint"]), Inputs: texts(p["input_sources"])},
		Input: vectorTree(t, in["request_input"]), Objects: labelled(in["related_object_labels"]),
	}
	if l, ok := p["integrity_label"].(string); ok {
		r.Data.Levels.Integrity = referenceLevels(l).Integrity
	}
	if l, ok := p["confidentiality_label"].(string); ok {
		r.Data.Levels.Confidentiality = referenceLevels(l).Confidentiality
	}
	if in["request_input_hash"] != nil {
		r.InputHash = fcp.Hash(v.in(t, "request_input_hash"))
	}
	for _, a := range asMaps(in["approval_tokens"]) {
		r.Approvals = append(r.Approvals, vectorApproval(t, w, f, r, a))
	}
	for _, s := range asMaps(in["sanitizer_receipts"]) {
		id := text(s, "receipt_id")
		r.Sanitized = append(r.Sanitized, &SanitizerReceipt{ref: fcp.Hash(fcp.UnscopedID([]byte(id))), spec: SanitizerSpec{
			ID: id, Zone: r.Zone, Authorized: vectorTaint(t, s["authorized_flags"]), Cleared: vectorTaint(t, s["cleared_flags"]), Covered: texts(s["covered_inputs"]),
		}})
	}
	return f, r
}

// vectorApproval takes a reference approval. Its evidence is the unscoped id of its
// canonical encoding.
func vectorApproval(t *testing.T, w *world, f *Facts, r *Request, in map[string]any) *Approval {
	tree := vectorTree(t, in).(map[any]any)
	b, err := fcp.Marshal(tree)
	must(t, b, err)
	scope := tree["scope"].(map[any]any)
	text := func(field string) string { s, _ := scope[field].(string); return s }
	hash := func(field string) (h fcp.Hash) {
		switch x := scope[field].(type) {
		case fcp.ObjectID:
			return fcp.Hash(x)
		case []byte:
			copy(h[:], x)
		case []any:
			for i := range x {
				h[i] = byte(x[i].(uint64))
			}
		}
		return h
	}
	a := &Approval{ref: fcp.Hash(fcp.UnscopedID(b)), issuer: w.owner.Public(), spec: ApprovalSpec{
		Zone: fcp.ZoneID(in["zone_id"].(string)), IssuedAt: millis(t, in["issued_at_ms"]), Expires: millis(t, in["expires_at_ms"]),
	}}
	s := &a.spec.Scope
	switch s.Kind = ApprovalKind(text("type")); s.Kind {
	case ApproveElevation:
		s.Operation, s.Provenance = fcp.CanonicalID(text("operation_id")), hash("original_provenance_id")
		s.Integrity = referenceLevels(strings.ToLower(text("target_integrity"))).Integrity
		r.Data.ID = s.Provenance // the reference's request names no provenance record of its own
	case ApproveDeclassification:
		s.From, s.To = fcp.ZoneID(text("from_zone")), fcp.ZoneID(text("to_zone"))
		s.Confidentiality = referenceLevels(strings.ToLower(text("target_confidentiality"))).Confidentiality
		list, _ := scope["object_ids"].([]any)
		for _, o := range list {
			switch o := o.(type) {
			case fcp.ObjectID:
				s.Objects = append(s.Objects, o)
			case []byte:
				s.Objects = append(s.Objects, fcp.ObjectID(o))
			}
		}
		if len(r.Objects) == 0 {
			r.Objects = []fcp.ObjectID{r.ID}
		}
	case ApproveExecution:
		s.Connector, s.Method = fcp.CanonicalID(text("connector_id")), Pattern(text("method_pattern"))
		s.Request, s.InputHash = fcp.ObjectID(hash("request_object_id")), hash("input_hash")
		list, _ := scope["input_constraints"].([]any)
		for _, c := range list {
			m := c.(map[any]any)
			expected, err := fcp.Marshal(m["expected"])
			s.Input = append(s.Input, InputConstraint{m["pointer"].(string), must(t, expected, err)})
		}
	default:
		t.Fatalf("approval of kind %q", s.Kind)
	}
	return a
}
