package authority

import (
	"fmt"

	"fcp"
)

// Reasons for which authority refuses. They are stable: a reason is never renamed
// or given another meaning. Those of zone policy, taint, approvals and transport are
// the reference's (spec/wire.md section 14).
const (
	ReasonAllow fcp.Reason = "allow"

	// The form of a token (RFC 9052, RFC 8392).
	ReasonCOSEForm           fcp.Reason = "cose.form"
	ReasonCOSETag            fcp.Reason = "cose.tag"
	ReasonCOSEDetached       fcp.Reason = "cose.detached_payload"
	ReasonCOSEHeader         fcp.Reason = "cose.header"
	ReasonCOSEUnprotected    fcp.Reason = "cose.unprotected_header"
	ReasonCOSEAlgUnprotected fcp.Reason = "cose.alg_unprotected"
	ReasonCOSEAlgBoth        fcp.Reason = "cose.alg_in_both"
	ReasonCOSEAlgMissing     fcp.Reason = "cose.alg_missing"
	ReasonCOSEAlg            fcp.Reason = "cose.alg_not_allowed"
	ReasonCOSEKidMissing     fcp.Reason = "cose.kid_missing"
	ReasonCOSEKid            fcp.Reason = "cose.kid"
	ReasonCOSETyp            fcp.Reason = "cose.typ"
	ReasonCOSESignatureSize  fcp.Reason = "cose.signature_size"
	ReasonClaims             fcp.Reason = "token.claims"
	ReasonConfirmation       fcp.Reason = "token.confirmation_key"
	ReasonClaimUnknown       fcp.Reason = "token.claim_unknown"
	ReasonClaimMissing       fcp.Reason = "token.claim_missing"
	ReasonScope              fcp.Reason = "capability.scope"

	// A chain of tokens.
	ReasonTokenMissing     fcp.Reason = "token.missing"
	ReasonChainForm        fcp.Reason = "token.chain_form"
	ReasonChainLength      fcp.Reason = "token.chain_length"
	ReasonTokenSignature   fcp.Reason = "token.signature"
	ReasonIssuerRight      fcp.Reason = "token.issuer_may_not_mint"
	ReasonParent           fcp.Reason = "token.parent_mismatch"
	ReasonDelegation       fcp.Reason = "token.delegation_exhausted"
	ReasonWidened          fcp.Reason = "token.wider_than_parent"
	ReasonContext          fcp.Reason = "token.context_changed"
	ReasonTokenExpired     fcp.Reason = "token.expired"
	ReasonTokenEarly       fcp.Reason = "token.not_yet_valid"
	ReasonTokenLifetime    fcp.Reason = "token.lifetime"
	ReasonAudience         fcp.Reason = "token.audience_mismatch"
	ReasonBinary           fcp.Reason = "token.binary_mismatch"
	ReasonInstance         fcp.Reason = "token.instance_mismatch"
	ReasonTokenZone        fcp.Reason = "token.zone_mismatch"
	ReasonPrincipal        fcp.Reason = "token.principal_mismatch"
	ReasonHolder           fcp.Reason = "token.holder_mismatch"
	ReasonProofMissing     fcp.Reason = "token.proof_missing"
	ReasonProof            fcp.Reason = "token.proof_invalid"
	ReasonProofOther       fcp.Reason = "token.proof_of_another_request"
	ReasonCheckpointToken  fcp.Reason = "token.checkpoint_ahead"
	ReasonCheckpointFork   fcp.Reason = "token.checkpoint_fork"
	ReasonCheckpointTooOld fcp.Reason = "token.checkpoint_stale"

	// Grants and what the token permits.
	ReasonGrantUnknown   fcp.Reason = "grant.unknown"
	ReasonGrantIssuer    fcp.Reason = "grant.issuer_not_allowed"
	ReasonGrantZone      fcp.Reason = "grant.zone_mismatch"
	ReasonGrantPrincipal fcp.Reason = "grant.principal_mismatch"
	ReasonGrantExpired   fcp.Reason = "grant.expired"
	ReasonGrantEarly     fcp.Reason = "grant.not_yet_valid"
	ReasonNotContained   fcp.Reason = "grant.token_not_contained"
	ReasonPlacement      fcp.Reason = "grant.placement"
	ReasonCapability     fcp.Reason = "capability.not_granted"
	ReasonOperation      fcp.Reason = "capability.operation_not_granted"
	ReasonResource       fcp.Reason = "capability.resource_not_granted"
	ReasonCredential     fcp.Reason = "capability.credential_not_granted"
	ReasonIdempotencyKey fcp.Reason = "capability.idempotency_key"
	ReasonForbidden      fcp.Reason = "operation.forbidden"
	ReasonRequest        fcp.Reason = "request.invalid"

	// Revocation, bindings, leases, limits.
	ReasonRevokedToken       fcp.Reason = "revoked.token"
	ReasonRevokedGrant       fcp.Reason = "revoked.grant"
	ReasonRevokedAttestation fcp.Reason = "revoked.attestation"
	ReasonRevokedIssuer      fcp.Reason = "revoked.issuer_key"
	ReasonRevokedBinding     fcp.Reason = "revoked.binding"
	ReasonRevokedBinary      fcp.Reason = "revoked.connector_binary"
	ReasonRevokedApproval    fcp.Reason = "revoked.approval"
	ReasonBindingMissing     fcp.Reason = "binding.missing"
	ReasonBindingDevice      fcp.Reason = "binding.device_not_bound"
	ReasonBindingTime        fcp.Reason = "binding.expired"
	ReasonBindingZone        fcp.Reason = "binding.zone_not_allowed"
	ReasonBindingCapability  fcp.Reason = "binding.capability_not_allowed"
	ReasonLeaseMissing       fcp.Reason = "lease.missing"
	ReasonLeaseHolder        fcp.Reason = "lease.holder_mismatch"
	ReasonLeaseExpired       fcp.Reason = "lease.expired"
	ReasonLeaseStale         fcp.Reason = "lease.stale"
	ReasonLimitCalls         fcp.Reason = "limit.calls"
	ReasonLimitBytes         fcp.Reason = "limit.bytes"
	ReasonLimitRate          fcp.Reason = "limit.rate"

	// Of the reference (spec/wire.md section 14).
	ReasonCeiling              fcp.Reason = "capability.insufficient"
	ReasonCheckpointStale      fcp.Reason = "checkpoint.stale_frontier"
	ReasonRevocationStale      fcp.Reason = "revocation.stale_frontier"
	ReasonPublicInput          fcp.Reason = "taint.public_input_dangerous"
	ReasonUnverifiedLink       fcp.Reason = "taint.unverified_link_risky"
	ReasonMalicious            fcp.Reason = "taint.malicious_input"
	ReasonRiskyElevation       fcp.Reason = "taint.risky_requires_elevation"
	ReasonCrossZone            fcp.Reason = "taint.cross_zone_unapproved"
	ReasonSanitizerInvalid     fcp.Reason = "taint.sanitizer_invalid"
	ReasonSanitizerCoverage    fcp.Reason = "taint.sanitizer_coverage_insufficient"
	ReasonIntegrity            fcp.Reason = "integrity.insufficient"
	ReasonPrincipalDenied      fcp.Reason = "zone_policy.principal_denied"
	ReasonPrincipalNotAllowed  fcp.Reason = "zone_policy.principal_not_allowed"
	ReasonConnectorDenied      fcp.Reason = "zone_policy.connector_denied"
	ReasonConnectorNotAllowed  fcp.Reason = "zone_policy.connector_not_allowed"
	ReasonCapabilityDenied     fcp.Reason = "zone_policy.capability_denied"
	ReasonCapabilityNotAllowed fcp.Reason = "zone_policy.capability_not_allowed"
	ReasonMissingElevation     fcp.Reason = "approval.missing_elevation"
	ReasonMissingDeclass       fcp.Reason = "approval.missing_declassification"
	ReasonMissingExecution     fcp.Reason = "approval.missing_execution"
	ReasonExecutionScope       fcp.Reason = "approval.execution_scope_mismatch"
	ReasonApprovalExpired      fcp.Reason = "approval.expired"
	ReasonApprovalZone         fcp.Reason = "approval.zone_mismatch"
	ReasonApprovalInvalid      fcp.Reason = "approval.token_invalid"
	ReasonTransportDERP        fcp.Reason = "transport.derp_forbidden"
	ReasonTransportFunnel      fcp.Reason = "transport.funnel_forbidden"
	ReasonTransportLAN         fcp.Reason = "transport.lan_forbidden"
)

// reasonCodes gives the reasons whose code is not CodeDenied.
var reasonCodes = map[fcp.Reason]fcp.Code{
	ReasonCOSEForm: fcp.CodeMalformed, ReasonCOSETag: fcp.CodeMalformed, ReasonCOSEDetached: fcp.CodeMalformed,
	ReasonCOSEHeader: fcp.CodeMalformed, ReasonCOSESignatureSize: fcp.CodeMalformed,
	ReasonConfirmation: fcp.CodeMalformed,
	ReasonClaims:       fcp.CodeMalformed, ReasonClaimUnknown: fcp.CodeMalformed, ReasonClaimMissing: fcp.CodeMissingField,
	ReasonChainForm: fcp.CodeMalformed, ReasonChainLength: fcp.CodeTooLarge, ReasonRequest: fcp.CodeInvalidArgument,
	ReasonScope: fcp.CodeInvalidArgument, ReasonTokenMissing: fcp.CodeUnauthorized, ReasonTokenSignature: fcp.CodeSignature,
	ReasonProof: fcp.CodeSignature, ReasonTokenExpired: fcp.CodeTokenExpired, ReasonTokenEarly: fcp.CodeTokenExpired,
	ReasonGrantExpired: fcp.CodeTokenExpired, ReasonGrantEarly: fcp.CodeTokenExpired, ReasonApprovalExpired: fcp.CodeTokenExpired,
	ReasonOperation: fcp.CodeOperation, ReasonResource: fcp.CodeResource,
	ReasonLimitCalls: fcp.CodeRateLimited, ReasonLimitBytes: fcp.CodeRateLimited, ReasonLimitRate: fcp.CodeRateLimited,
	ReasonPublicInput: fcp.CodeTaint, ReasonUnverifiedLink: fcp.CodeTaint, ReasonMalicious: fcp.CodeTaint,
	ReasonCrossZone: fcp.CodeTaint, ReasonSanitizerInvalid: fcp.CodeTaint, ReasonSanitizerCoverage: fcp.CodeTaint,
	ReasonIntegrity: fcp.CodeTaint, ReasonRiskyElevation: fcp.CodeElevation,
	ReasonMissingElevation: fcp.CodeElevation, ReasonMissingDeclass: fcp.CodeElevation, ReasonMissingExecution: fcp.CodeElevation,
	ReasonLeaseHolder: fcp.CodeLeaseHeld, ReasonLeaseExpired: fcp.CodeFenced, ReasonLeaseStale: fcp.CodeFenced, ReasonLeaseReleased: fcp.CodeFenced,
	ReasonExecutionScope: fcp.CodeElevation, ReasonApprovalZone: fcp.CodeElevation, ReasonApprovalInvalid: fcp.CodeElevation,
}

func reasonCode(r fcp.Reason) fcp.Code {
	if c, ok := reasonCodes[r]; ok {
		return c
	}
	return fcp.CodeDenied
}

// refuse makes the error of a reason, which is its cause.
func refuse(r fcp.Reason, format string, args ...any) *fcp.Error {
	detail := string(r)
	if format != "" {
		detail += ": " + fmt.Sprintf(format, args...)
	}
	return &fcp.Error{Code: reasonCode(r), Detail: detail, Cause: r}
}
