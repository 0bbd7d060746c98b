package authority

import (
	"errors"
	"time"

	"fcp"
)

// Carrier is what a request came over (spec/wire.md section 14).
type Carrier string

// The closed set of carriers. CarrierLocal is the device itself and is always
// permitted.
const (
	CarrierLocal  Carrier = "local"
	CarrierLAN    Carrier = "lan"
	CarrierDERP   Carrier = "derp"
	CarrierFunnel Carrier = "funnel"
)

// Request is what somebody asks for. Device and Carrier come from the authenticated
// session and Tier from the connector's verified manifest, never from the caller.
type Request struct {
	ID             fcp.ObjectID // of the request object
	Zone           fcp.ZoneID
	Principal      fcp.CanonicalID
	Device         fcp.WriterID // whom the session authenticated
	Connector      fcp.CanonicalID
	Instance       fcp.CanonicalID
	Binary         fcp.Hash // of the connector; zero for what is part of the node
	Capability     fcp.CanonicalID
	Operation      fcp.CanonicalID
	Resource       string // 1 to MaxResource characters
	Credential     CredentialID
	IdempotencyKey string // "" for none
	Bytes          uint64 // it moves, counted against max_bytes
	InputHash      fcp.Hash

	Tier          Tier
	NeedsApproval bool // the operation's manifest asks for an execution approval
	NeedsLease    bool // and for a lease on Subject
	Subject       fcp.ObjectID
	LeaseSeq      uint64 // the fence the caller holds
	Carrier       Carrier

	Data    Label          // of what drives the operation
	Objects []fcp.ObjectID // that leave their zone with it, for a declassification
	Input   any            // the decoded input, as fcp.Unmarshal into an any gives it; nil for none

	Token     *Chain
	Proof     *Proof
	Approvals []*Approval
	Sanitized []*SanitizerReceipt
}

// Hash returns what a proof of possession and a decision are bound to:
// BLAKE3-256("FCP2-REQUEST-V1" || CBOR array of every field that says what is to
// happen, each with its length).
func (r *Request) Hash() fcp.Hash {
	var buf [512]byte
	w := orderedCBOR(buf[:0])
	w.head(4, 14)
	w.bytes(r.ID[:])
	for _, s := range []string{string(r.Zone), string(r.Principal), string(r.Connector), string(r.Instance), string(r.Capability), string(r.Operation),
		r.Resource, r.IdempotencyKey} {
		w.text(s)
	}
	w.bytes(r.Device[:])
	w.bytes(r.Binary[:])
	w.bytes(r.Credential[:])
	w.bytes(r.InputHash[:])
	w.head(0, r.LeaseSeq)
	return purposeHash("FCP2-REQUEST-V1", w)
}

func (r *Request) check() error {
	for _, id := range []fcp.CanonicalID{r.Principal, r.Connector, r.Instance, r.Capability, r.Operation} {
		if _, err := fcp.ParseCanonicalID(string(id)); err != nil {
			return refuse(ReasonRequest, "an identifier that is not canonical")
		}
	}
	switch {
	case !r.Zone.Valid():
		return refuse(ReasonRequest, "zone")
	case !validToken(r.Resource, MaxResource) || r.Resource == AnyResource:
		return refuse(ReasonRequest, "resource")
	case r.IdempotencyKey != "" && !validToken(r.IdempotencyKey, MaxIdempotency):
		return refuse(ReasonRequest, "idempotency key")
	case !r.Tier.Valid():
		return refuse(ReasonRequest, "tier")
	case !r.Data.Taint.Valid():
		return refuse(ReasonRequest, "taint")
	case r.ID.IsZero() || r.Device.IsZero():
		return refuse(ReasonRequest, "no id or no device")
	}
	return nil
}

// Revocations answers whether something is revoked now. The ref is what the object
// is revoked by: RefOf for objects, TokenID.Ref for tokens and approvals, and the
// 32 bytes themselves for keys, devices and binaries. What the owner revoked counts
// in every scope; what an admin revoked counts in the scopes named.
type Revocations interface {
	Revoked(ref fcp.Hash, as ...RevocationScope) (by fcp.Hash, ok bool)
}

// Grants finds verified capability objects.
type Grants interface {
	Grant(ref fcp.Hash) (*Grant, bool)
}

// Minters says whether the zone's issuer sets let a node mint tokens with a
// capability, and the ref of the set that does.
type Minters interface {
	MayMint(node fcp.WriterID, zone fcp.ZoneID, capability fcp.CanonicalID) (by fcp.Hash, ok bool)
}

// Bindings finds the verified bindings of a principal.
type Bindings interface {
	Bindings(principal fcp.CanonicalID) []*Binding
}

// Sanitizers says which flags a sanitizer that a node ran may clear.
type Sanitizers interface {
	MayClear(sanitizer fcp.CanonicalID, node fcp.WriterID, zone fcp.ZoneID) TaintFlags
}

// Checkpoints answers for the zone's accepted checkpoints.
type Checkpoints interface {
	Latest() CheckpointRef
	// At returns the id of the accepted checkpoint with that number, when it is known.
	At(seq uint64) (fcp.Hash, bool)
	// Oldest is the lowest number that tokens may still be bound to.
	Oldest() uint64
}

// LeaseFact is the current lease of a subject.
type LeaseFact struct {
	Ref     fcp.Hash
	Holder  fcp.WriterID
	Seq     uint64
	Expires time.Time // exclusive

	Released bool // by its holder
}

// Leases finds the current lease of a subject.
type Leases interface {
	Lease(subject fcp.ObjectID) (LeaseFact, bool)
}

// Limits says how much of a token's or grant's limits is used, by Chain.Refs or
// grant ref, and whether a rate limit is hit. Tokens go by their hash and not by
// their id, which whoever narrows a token chooses: he could use up another's.
type Limits interface {
	Used(ref fcp.Hash) (calls, bytes uint64)
	RateExceeded(r *Request) bool
}

// Facts are what one decision looks at: a read view of this node's projections
// and the clock value. An interface that is nil knows nothing, which refuses
// wherever something must be known. Decide changes none of it but the cache.
type Facts struct {
	Now      time.Time
	Executor Executor // this node

	Levels    fcp.Levels // of the request's zone
	Transport Transport  // of the request's zone
	Policy    PolicyRules
	Ceiling   *Patterns // capabilities that the principal's roles reach; nil for no roles

	RevocationFresh bool // what is known of revocations is fresh enough for the tier
	CheckpointFresh bool

	Revocations Revocations
	Checkpoints Checkpoints
	Issuers     Issuers
	Grants      Grants
	Bindings    Bindings
	Minters     Minters
	Authorities *Authorities // who may grant and approve
	Sanitizers  Sanitizers
	Leases      Leases
	Limits      Limits
	Cache       *LinkCache // may be nil
}

// Decision is the result of Decide. Only Decide makes one that permits.
type Decision struct {
	allow bool

	Reason   fcp.Reason    // ReasonAllow, or the first check that refused
	Detail   string        // for a person; never a secret
	Request  fcp.Hash      // Request.Hash of what was decided
	Evidence []fcp.Hash    // refs of what the decision rests on, in the order of use
	Charge   []fcp.Hash    // whose limits the use counts against: Chain.Refs and grant refs
	Smallest *GrantSpec    // for a denial that a grant would cure: the smallest one
	Approval *ApprovalSpec // for a denial that an approval would cure: the smallest one
}

// Allowed reports whether the request is permitted.
func (d *Decision) Allowed() bool { return d.allow }

// Err returns nil for a permission, and for a denial the error of its reason.
func (d *Decision) Err() error {
	if d.allow {
		return nil
	}
	return &fcp.Error{Code: reasonCode(d.Reason), Detail: d.Detail, Cause: d.Reason}
}

// decider is one decision in progress.
type decider struct {
	f        *Facts
	r        *Request
	hash     fcp.Hash
	chain    *verifiedChain
	evidence []fcp.Hash
	charge   []fcp.Hash
	grants   []*Grant // of the chain's first token, all live
	able     []*Grant // those of them that permit the use here

	attestation fcp.Hash // ref of the one that the minting node has now
	levels      fcp.Levels
	taint       TaintFlags
}

// Decide says whether a request is permitted now. It is a pure function of its
// arguments and asks in the order of 40-authority "Decide": the first check that
// refuses gives the reason. It is what the executing node runs right before the
// effect. A three-link chain whose links the cache knows takes some microseconds.
func Decide(f *Facts, r *Request) Decision {
	d := &decider{f: f, r: r, hash: r.Hash(), levels: r.Data.Levels, taint: r.Data.Taint}
	var err error
	for _, step := range [...]func(*decider) error{
		(*decider).request, (*decider).policy, (*decider).binding, (*decider).token, (*decider).tokenContext,
		(*decider).granted, (*decider).revoked, (*decider).flow, (*decider).lease, (*decider).limits,
	} {
		if err = step(d); err != nil {
			break
		}
	}
	out := Decision{Request: d.hash, Evidence: d.evidence}
	if err == nil {
		out.allow, out.Reason, out.Charge = true, ReasonAllow, d.charge
		return out
	}
	out.Reason, out.Detail = ReasonOf(err), detailOf(err)
	d.explain(&out)
	return out
}

func detailOf(err error) string {
	var e *fcp.Error
	if errors.As(err, &e) {
		return e.Detail
	}
	return ""
}

func (d *decider) note(ref fcp.Hash) {
	if !ref.IsZero() && !contains(d.evidence, ref) {
		d.evidence = append(d.evidence, ref)
	}
}

func (d *decider) request() error {
	if err := d.r.check(); err != nil {
		return err
	}
	if d.r.Tier == TierForbidden {
		return refuse(ReasonForbidden, "%s", d.r.Operation)
	}
	return nil
}

// policy asks for freshness, carrier, deny and allow lists and the ceiling.
func (d *decider) policy() error {
	f, r := d.f, d.r
	p := &f.Policy
	switch {
	case !f.RevocationFresh:
		return refuse(ReasonRevocationStale, "")
	case !f.CheckpointFresh:
		return refuse(ReasonCheckpointStale, "")
	}
	switch r.Carrier {
	case CarrierLocal:
	case CarrierLAN:
		if f.Transport.NoLAN {
			return refuse(ReasonTransportLAN, "")
		}
	case CarrierDERP:
		if !f.Transport.DERP {
			return refuse(ReasonTransportDERP, "")
		}
	case CarrierFunnel:
		if !f.Transport.Funnel {
			return refuse(ReasonTransportFunnel, "")
		}
	default:
		return refuse(ReasonRequest, "carrier %.20q", string(r.Carrier))
	}
	switch {
	case p.Principals.Denied(string(r.Principal)):
		return refuse(ReasonPrincipalDenied, "%s", r.Principal)
	case p.Connectors.Denied(string(r.Connector)):
		return refuse(ReasonConnectorDenied, "%s", r.Connector)
	case p.Capabilities.Denied(string(r.Capability)):
		return refuse(ReasonCapabilityDenied, "%s", r.Capability)
	case p.Principals.NotAllowed(string(r.Principal)):
		return refuse(ReasonPrincipalNotAllowed, "%s", r.Principal)
	case p.Connectors.NotAllowed(string(r.Connector)):
		return refuse(ReasonConnectorNotAllowed, "%s", r.Connector)
	case p.Capabilities.NotAllowed(string(r.Capability)):
		return refuse(ReasonCapabilityNotAllowed, "%s", r.Capability)
	case f.Ceiling != nil && !f.Ceiling.Match(string(r.Capability)):
		return refuse(ReasonCeiling, "no role of %s reaches %s", r.Principal, r.Capability)
	case !p.MaxTier(string(r.Principal)).AtLeast(r.Tier):
		return refuse(ReasonCeiling, "%s may not use %s operations", r.Principal, r.Tier)
	}
	return nil
}

// binding asks whether the principal may act from the device.
func (d *decider) binding() error {
	if d.f.Bindings == nil {
		return refuse(ReasonBindingMissing, "")
	}
	worst := ReasonBindingMissing
	for _, b := range d.f.Bindings.Bindings(d.r.Principal) {
		if b.o.Principal != d.r.Principal {
			continue
		}
		if by, gone := d.isRevoked(b.ref, RevokeBinding); gone {
			d.note(by)
			worst = ReasonRevokedBinding
			continue
		}
		fault := b.fault(d.r, d.f.Now)
		if fault == "" {
			d.note(b.ref)
			return nil
		}
		worst = fault
	}
	return refuse(worst, "%s from device %.16s", d.r.Principal, d.r.Device)
}

func (d *decider) isRevoked(ref fcp.Hash, as ...RevocationScope) (fcp.Hash, bool) {
	if d.f.Revocations == nil {
		return fcp.Hash{}, true // nothing is known, so nothing stands
	}
	return d.f.Revocations.Revoked(ref, as...)
}
