package authority

import (
	"fcp"
)

// flow asks, in this order, for sanitizers, links and public input by tier, flow
// between zones and its approvals, the execution approval, and whether what is
// left may drive the operation (spec/wire.md section 14).
func (d *decider) flow() error {
	r := d.r
	for _, s := range r.Sanitized {
		if err := d.sanitize(s); err != nil {
			return err
		}
	}
	switch {
	case d.taint&UnverifiedLink != 0 && r.Tier.AtLeast(TierRisky):
		return refuse(ReasonUnverifiedLink, "")
	case d.taint&PublicInput != 0 && r.Tier.AtLeast(TierDangerous):
		return refuse(ReasonPublicInput, "")
	case d.f.Policy.FlowForbidden(r.Data.Origin, r.Zone):
		return refuse(ReasonCrossZone, "the policy forbids %s to %s", r.Data.Origin, r.Zone)
	}
	need := FlowTo(d.levels, d.f.Levels)
	if need.Elevation {
		if err := d.approved(ApproveElevation, ReasonMissingElevation); err != nil {
			return err
		}
		d.levels.Integrity = d.f.Levels.Integrity
	}
	if need.Declassification {
		if err := d.approved(ApproveDeclassification, ReasonMissingDeclass); err != nil {
			return err
		}
	}
	if r.NeedsApproval {
		if err := d.approved(ApproveExecution, ReasonMissingExecution); err != nil {
			return err
		}
	}
	if reason := driveCheck(d.levels.Integrity, d.taint, r.Tier); reason != ReasonAllow {
		return refuse(reason, "taint %s", d.taint)
	}
	return nil
}

func (d *decider) sanitize(s *SanitizerReceipt) error {
	var may TaintFlags
	if d.f.Sanitizers != nil {
		may = d.f.Sanitizers.MayClear(s.spec.Sanitizer, s.issuer, d.r.Zone)
	}
	switch {
	case !s.spec.valid() || s.spec.Cleared&^may != 0 || s.spec.Zone != d.r.Zone:
		return refuse(ReasonSanitizerInvalid, "receipt %s", s.spec.ID)
	case !s.spec.covers(d.r.Data.Inputs):
		return refuse(ReasonSanitizerCoverage, "receipt %s", s.spec.ID)
	}
	if by, gone := d.isRevoked(s.ref, RevokeApproval); gone {
		d.note(by)
		return refuse(ReasonSanitizerInvalid, "receipt %s is revoked", s.spec.ID)
	}
	d.taint = s.spec.Reduce(d.taint)
	d.note(s.ref)
	return nil
}

// approved finds an approval of the kind that fits. When none does, the reason is
// that of the approval that came nearest.
func (d *decider) approved(kind ApprovalKind, missing fcp.Reason) error {
	reason, nearest := missing, 0
	for _, a := range d.r.Approvals {
		if a.spec.Scope.Kind != kind {
			continue
		}
		fault, rank := d.approvalFault(a, missing)
		if fault == "" {
			d.note(a.ref)
			return nil
		}
		if rank > nearest {
			reason, nearest = fault, rank
		}
	}
	return refuse(reason, "%s", kind)
}

// approvalFault says why an approval does not count, and how near it came.
func (d *decider) approvalFault(a *Approval, missing fcp.Reason) (fcp.Reason, int) {
	if d.f.Authorities == nil || d.f.Authorities.Permit(a.issuer, ActionApprove, d.r.Zone, a.spec.IssuedAt) != nil {
		return ReasonApprovalInvalid, 1
	}
	if a.spec.Zone != d.r.Zone {
		return ReasonApprovalZone, 2
	}
	if !a.validAt(d.f.Now) {
		return ReasonApprovalExpired, 3
	}
	for _, ref := range []fcp.Hash{a.ref, a.id.Ref()} {
		if _, gone := d.isRevoked(ref, RevokeApproval); gone {
			return ReasonRevokedApproval, 4
		}
	}
	if _, gone := d.isRevoked(fcp.Hash(a.issuer), RevokeIssuerKey); gone {
		return ReasonRevokedApproval, 4
	}
	if !a.spec.Scope.fits(d) {
		if a.spec.Scope.Kind == ApproveExecution {
			return ReasonExecutionScope, 5
		}
		return missing, 5
	}
	return "", 0
}

// fits reports whether the scope is that of the request.
func (s *ApprovalScope) fits(d *decider) bool {
	r := d.r
	switch s.Kind {
	case ApproveElevation:
		return s.Operation == r.Operation && s.Integrity >= d.f.Levels.Integrity && s.Provenance == r.Data.ID && !r.Data.ID.IsZero()
	case ApproveDeclassification:
		if s.From != r.Data.Origin || s.To != r.Zone || s.Confidentiality > d.f.Levels.Confidentiality || len(r.Objects) == 0 {
			return false
		}
		for _, o := range r.Objects {
			if !contains(s.Objects, o) {
				return false
			}
		}
		return true
	case ApproveExecution:
		if s.Connector != r.Connector || !s.Method.Match(string(r.Operation)) || !s.Request.IsZero() && s.Request != r.ID ||
			!s.InputHash.IsZero() && s.InputHash != r.InputHash {
			return false
		}
		for i := range s.Input {
			if !s.Input[i].holds(r.Input) {
				return false
			}
		}
		return true
	}
	return false
}
