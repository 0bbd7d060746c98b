package engine

import (
	"encoding/binary"

	"fcp"
	"fcp/authority"
)

// The record projections of the control plane. A projection keeps what is well
// formed and signed by the issuer it names; whether that issuer had the right, and
// what is revoked, ZoneFacts answers from the whole set, so that no order of
// arrival decides.

func policyKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	p, err := authority.VerifyPolicy(owner, ev.Content.Body)
	if err != nil || p.Zone() != ev.From.Feed.Zone {
		return nil
	}
	return binary.BigEndian.AppendUint64(key, p.Number())
}

func policyRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	p, err := authority.VerifyPolicy(owner, body)
	if err != nil {
		return "", nil, err
	}
	s := p.Spec()
	return p.Zone().String(), map[string]any{"version": p.Number(), "restores": s.Restores, "ref": p.Ref().String(),
		"created": p.CreatedAt(), "max_faults": uint64(s.MaxFaults), "degraded_mode": s.DegradedMode}, nil
}

func attestationKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	a, err := authority.OpenAttestation(ev.Content.Body)
	if err != nil {
		return nil
	}
	w := a.Writer()
	return append(key, w[:]...)
}

func attestationRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	a, err := authority.OpenAttestation(body)
	if err != nil {
		return "", nil, err
	}
	return a.Writer().String(), map[string]any{"from": a.From(), "until": a.Until(), "renew": a.RenewAt(), "ref": a.Ref().String()}, nil
}

func delegationKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	d, err := authority.VerifyDelegation(owner, ev.Content.Body)
	if err != nil {
		return nil
	}
	admin := d.Spec().Admin
	return append(key, admin[:]...)
}

func delegationRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	d, err := authority.VerifyDelegation(owner, body)
	if err != nil {
		return "", nil, err
	}
	s := d.Spec()
	return fcp.WriterOf(s.Admin[:]).String(), map[string]any{"actions": texts(s.Actions), "zones": texts(s.Zones), "from": s.From, "until": s.Until, "ref": d.Ref().String()}, nil
}

func texts[T ~string](in []T) []string {
	out := make([]string, len(in))
	for i := range in {
		out[i] = string(in[i])
	}
	return out
}

func issuersKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	s, err := authority.VerifyIssuerSet(owner, ev.Content.Body)
	if err != nil || s.Spec().Zone != ev.From.Feed.Zone {
		return nil
	}
	return versionKey(key, s.Spec().ID, s.Number())
}

// versionKey is the id, a zero byte and the version.
func versionKey(key []byte, id fcp.CanonicalID, version uint64) []byte {
	return binary.BigEndian.AppendUint64(append(append(key, id...), 0), version)
}

func issuersRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	s, err := authority.VerifyIssuerSet(owner, body)
	if err != nil {
		return "", nil, err
	}
	spec := s.Spec()
	var members []string
	for _, m := range spec.Issuers {
		members = append(members, m.Writer.String())
	}
	return spec.ID.String(), map[string]any{"version": spec.Version, "members": members, "threshold": uint64(spec.Threshold), "ref": s.Ref().String()}, nil
}

func roleKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	r, err := authority.VerifyRole(owner, ev.Content.Body)
	if err != nil || r.Spec().Zone != ev.From.Feed.Zone {
		return nil
	}
	return versionKey(key, r.Spec().ID, r.Number())
}

func roleRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	r, err := authority.VerifyRole(owner, body)
	if err != nil {
		return "", nil, err
	}
	s := r.Spec()
	return s.ID.String(), map[string]any{"version": s.Version, "capabilities": texts(s.Capabilities), "max_tier": string(s.MaxTier)}, nil
}

func assignmentKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	a, err := authority.OpenAssignment(ev.Content.Body)
	if err != nil || a.Spec().Zone != ev.From.Feed.Zone {
		return nil
	}
	return append(key, a.Spec().Principal...)
}

func assignmentRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	a, err := authority.OpenAssignment(body)
	if err != nil {
		return "", nil, err
	}
	s := a.Spec()
	return s.Principal.String(), map[string]any{"role": s.Role.String(), "from": s.From, "until": s.Until, "ref": a.Ref().String()}, nil
}

func bindingKey(owner authority.OwnerPublic, ev *Event, key []byte) []byte {
	b, err := authority.VerifyBinding(owner, ev.Content.Body)
	if err != nil {
		return nil
	}
	return append(key, b.Spec().Principal...)
}

func bindingRow(owner authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	b, err := authority.VerifyBinding(owner, body)
	if err != nil {
		return "", nil, err
	}
	return b.Spec().Principal.String(), map[string]any{"ref": b.Ref().String()}, nil
}

func grantKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	g, err := authority.VerifyGrant(ev.Content.Body)
	if err != nil || g.Spec().Zone != ev.From.Feed.Zone {
		return nil
	}
	ref := g.Ref()
	return append(key, ref[:]...)
}

func grantRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	g, err := authority.VerifyGrant(body)
	if err != nil {
		return "", nil, err
	}
	issuer := g.Issuer()
	return g.Ref().String(), map[string]any{"issuer": fcp.KidOf(issuer[:]).String(), "issued": g.IssuedAt()}, nil
}

func approvalKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	a, err := authority.VerifyApproval(ev.Content.Body)
	if err != nil {
		return nil
	}
	id := a.ID()
	return append(key, id[:]...)
}

func approvalRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	a, err := authority.VerifyApproval(body)
	if err != nil {
		return "", nil, err
	}
	return a.Ref().String(), map[string]any{}, nil
}

// decisionKey takes any decision receipt that is canonical: whose it is its event's
// feed says, and its signature is checked with that node's key when it is read.
func decisionKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	body, err := fcp.PayloadBody(fcp.SchemaDecisionReceipt, ev.Content.Body)
	if err != nil || fcp.Canonical(body) != nil {
		return nil
	}
	w := ev.From.Feed.Writer
	return append(key, w[:]...)
}

func decisionRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	return authority.RefOf(body).String(), map[string]any{"size": len(body)}, nil
}

func auditKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	a, err := authority.DecodeAuditEvent(ev.Content.Body)
	if err != nil || a.Zone != ev.From.Feed.Zone {
		return nil
	}
	key = binary.BigEndian.AppendUint64(key, uint64(ev.Time))
	w := ev.From.Feed.Writer
	return append(key, w[:]...)
}

func auditRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	a, err := authority.DecodeAuditEvent(body)
	if err != nil {
		return "", nil, err
	}
	row := map[string]any{"actor": a.Actor, "connector": a.Connector.String(), "operation": a.Operation.String(),
		"reason": string(a.Reason), "result": a.Result.String(), "at": a.At}
	if a.More > 0 {
		row["more"] = a.More
	}
	return string(a.Type), row, nil
}

func forkKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	f, err := authority.VerifyFork(ev.Content.Body)
	if err != nil || f.Feed().Zone != ev.From.Feed.Zone {
		return nil
	}
	id := f.Feed().ID()
	return binary.BigEndian.AppendUint64(append(key, id[:]...), f.Seq())
}

func forkRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	f, err := authority.VerifyFork(body)
	if err != nil {
		return "", nil, err
	}
	return f.Feed().ID().String(), map[string]any{"writer": f.Feed().Writer.String(), "plane": f.Feed().Plane.String(), "seq": f.Seq()}, nil
}

// governs are the kinds that ZoneFacts depends on.
var governs = func() (out [1 << 8]bool) {
	for _, k := range []fcp.Kind{fcp.KindZoneDefined, fcp.KindZoneKeyManifest, fcp.KindDeviceEnrolled, fcp.KindCheckpointSigned, fcp.KindRevocationIssued,
		fcp.KindPolicySet, fcp.KindAttestationIssued, fcp.KindDelegationIssued, fcp.KindIssuersSet, fcp.KindRoleDefined, fcp.KindRoleAssigned,
		fcp.KindPrincipalBound, fcp.KindCapabilityGranted, fcp.KindForkProven} {
		out[k] = true
	}
	return out
}()
