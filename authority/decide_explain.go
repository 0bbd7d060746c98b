package authority

import (
	"time"

	"fcp"
)

// Lifetimes of what a denial proposes.
const (
	proposedGrant    = 5 * time.Minute
	proposedApproval = 5 * time.Minute
)

// explain adds to a denial the smallest thing that would have cured it: a grant
// when the token or its grants do not reach, an approval when one is missing.
// Nothing is proposed where nothing of the kind helps: stale knowledge, policy,
// revocation, a wrong carrier or taint that only a sanitizer clears.
func (d *decider) explain(out *Decision) {
	switch out.Reason {
	case ReasonTokenMissing, ReasonTokenExpired, ReasonTokenEarly, ReasonAudience, ReasonBinary, ReasonInstance, ReasonTokenZone,
		ReasonPrincipal, ReasonHolder, ReasonGrantUnknown, ReasonGrantExpired, ReasonGrantEarly, ReasonGrantZone, ReasonGrantPrincipal,
		ReasonNotContained, ReasonPlacement, ReasonCapability, ReasonOperation, ReasonResource, ReasonCredential, ReasonIdempotencyKey,
		ReasonLimitCalls, ReasonLimitBytes, ReasonRevokedToken, ReasonRevokedGrant, ReasonWidened, ReasonCheckpointTooOld:
		s := SmallestGrant(d.r, d.f.Now)
		out.Smallest = &s
	case ReasonMissingElevation:
		if !d.r.Data.ID.IsZero() { // nothing names data without a provenance record
			out.Approval = d.approvalFor(ApproveElevation)
		}
	case ReasonMissingDeclass:
		if len(d.r.Objects) > 0 {
			out.Approval = d.approvalFor(ApproveDeclassification)
		}
	case ReasonMissingExecution, ReasonExecutionScope:
		out.Approval = d.approvalFor(ApproveExecution)
	}
}

// SmallestGrant returns the narrowest grant that permits the request: this
// principal, operation, resource, credential and key, once, for five minutes from
// now. A resource is a prefix, so it also permits what begins with it.
func SmallestGrant(r *Request, now time.Time) GrantSpec {
	g := GrantSpec{
		Zone: r.Zone, Principal: r.Principal,
		Rights:      []Right{{r.Capability, string(r.Operation)}},
		Constraints: Constraints{ResourceAllow: []string{r.Resource}, MaxCalls: 1, MaxBytes: r.Bytes, IdempotencyKey: r.IdempotencyKey},
		NotBefore:   now.Truncate(time.Second), NotAfter: now.Truncate(time.Second).Add(proposedGrant),
	}
	if r.Credential != (CredentialID{}) {
		g.Constraints.CredentialAllow = []CredentialID{r.Credential}
	}
	return g
}

func (d *decider) approvalFor(kind ApprovalKind) *ApprovalSpec {
	r := d.r
	at := d.f.Now.Truncate(time.Millisecond)
	s := &ApprovalSpec{Zone: r.Zone, IssuedAt: at, Expires: at.Add(proposedApproval), Scope: ApprovalScope{Kind: kind}}
	switch kind {
	case ApproveElevation:
		s.Scope.Operation, s.Scope.Provenance, s.Scope.Integrity = r.Operation, r.Data.ID, d.f.Levels.Integrity
	case ApproveDeclassification:
		s.Scope.From, s.Scope.To, s.Scope.Confidentiality = r.Data.Origin, r.Zone, d.f.Levels.Confidentiality
		s.Scope.Objects = append([]fcp.ObjectID(nil), r.Objects...)
	case ApproveExecution:
		s.Scope.Connector, s.Scope.Method, s.Scope.Request, s.Scope.InputHash = r.Connector, Pattern(r.Operation), r.ID, r.InputHash
	}
	return s
}
