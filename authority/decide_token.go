package authority

import (
	"time"

	"fcp"
)

// token asks for the chain's signatures, its first issuer's attestation and right
// to mint, and the time of each link.
func (d *decider) token() error {
	if d.r.Token == nil {
		return refuse(ReasonTokenMissing, "")
	}
	if d.f.Issuers == nil {
		return refuse(ReasonKidUnknown, "no issuer is known")
	}
	var err error
	if d.chain, err = verifyChain(d.r.Token, d.f.Issuers, d.f.Cache, d.f.Now); err != nil {
		return err
	}
	attestation, err := d.f.Issuers.At(d.chain.node, d.f.Now)
	if err != nil {
		return err
	}
	d.attestation = attestation.Ref()
	d.note(d.attestation)
	first := d.chain.links[0].c
	for i, right := range first.rights {
		if i > 0 && right.Capability == first.rights[i-1].Capability {
			continue
		}
		if d.f.Minters == nil {
			return refuse(ReasonIssuerRight, "nothing is known of who may mint")
		}
		by, ok := d.f.Minters.MayMint(d.chain.node, first.zone, right.Capability)
		if !ok {
			return refuse(ReasonIssuerRight, "node %.16s for %s", d.chain.node, right.Capability)
		}
		d.note(by)
	}
	for _, l := range d.chain.links {
		if err := checkTime(l.c, d.f.Now); err != nil {
			return err
		}
		if d.f.Policy.Principals.Denied(l.c.sub) { // the request's own is asked for above
			return refuse(ReasonPrincipalDenied, "%s, in the chain", l.c.sub)
		}
		d.note(l.c.id().Ref())
	}
	return nil
}

// checkTime allows for TokenSkew on either side.
func checkTime(c *claims, now time.Time) error {
	const skew = int64(TokenSkew / time.Second)
	at := now.Unix()
	switch {
	case at-skew >= int64(c.exp):
		return refuse(ReasonTokenExpired, "at %s", fromUnix(c.exp).Format(time.RFC3339))
	case at+skew < int64(c.nbf):
		return refuse(ReasonTokenEarly, "before %s", fromUnix(c.nbf).Format(time.RFC3339))
	case at+skew < int64(c.iat):
		return refuse(ReasonTokenEarly, "it was issued at %s", fromUnix(c.iat).Format(time.RFC3339))
	}
	return nil
}

// tokenContext asks whether the token is for this use: audience, binary, instance,
// zone, principal, holder with its proof, and checkpoint.
func (d *decider) tokenContext() error {
	c, r := d.chain.leaf(), d.r
	switch {
	case c.aud != string(r.Connector):
		return refuse(ReasonAudience, "it is for %s", c.aud)
	case c.binary != r.Binary:
		return refuse(ReasonBinary, "")
	case c.instance != string(r.Instance):
		return refuse(ReasonInstance, "it is for %s", c.instance)
	case c.zone != r.Zone:
		return refuse(ReasonTokenZone, "it is for %s", c.zone)
	case c.sub != string(r.Principal):
		return refuse(ReasonPrincipal, "it is for %s", c.sub)
	case c.holder != r.Device.String():
		return refuse(ReasonHolder, "it is held by device %.16s", c.holder)
	case r.Proof == nil:
		return refuse(ReasonProofMissing, "")
	case r.Proof.key != HolderPublic(c.cnf):
		return refuse(ReasonProof, "of another key")
	case r.Proof.leaf != r.Token.Leaf() || r.Proof.request != d.hash:
		return refuse(ReasonProofOther, "")
	}
	return d.checkpoint(CheckpointRef{c.checkpoint, c.checkpointSeq})
}

func (d *decider) checkpoint(at CheckpointRef) error {
	if d.f.Checkpoints == nil {
		return refuse(ReasonCheckpointStale, "no checkpoint is known")
	}
	latest := d.f.Checkpoints.Latest()
	switch {
	case at.Seq > latest.Seq:
		return refuse(ReasonCheckpointToken, "it names checkpoint %d, the latest here is %d", at.Seq, latest.Seq)
	case at.Seq < d.f.Checkpoints.Oldest():
		return refuse(ReasonCheckpointTooOld, "it names checkpoint %d, the oldest that counts is %d", at.Seq, d.f.Checkpoints.Oldest())
	}
	if id, ok := d.f.Checkpoints.At(at.Seq); !ok || id != at.ID {
		return refuse(ReasonCheckpointFork, "checkpoint %d", at.Seq)
	}
	d.note(latest.ID)
	return nil
}

// granted asks whether the grants stand, contain every right of the token, and
// permit this use at this place.
func (d *decider) granted() error {
	first := d.chain.links[0].c
	scopes := make([]scope, 0, len(first.grants))
	parents := make([]*scope, 0, len(first.grants))
	for _, ref := range first.grants {
		g, err := d.grant(ref)
		if err != nil {
			return err
		}
		d.grants = append(d.grants, g)
		scopes = append(scopes, g.scope())
		parents = append(parents, &scopes[len(scopes)-1])
	}
	own := first.scope()
	if p, ok := contained(&own, parents); !ok {
		return refuse(ReasonNotContained, "%s", p.String())
	}
	return d.covers()
}

// grant finds a grant of the token and asks whether it stands.
func (d *decider) grant(ref fcp.Hash) (*Grant, error) {
	if d.f.Grants == nil {
		return nil, refuse(ReasonGrantUnknown, "")
	}
	g, ok := d.f.Grants.Grant(ref)
	if !ok || g.ref != ref {
		return nil, refuse(ReasonGrantUnknown, "%.16s", ref)
	}
	d.note(ref)
	if d.f.Authorities == nil {
		return nil, refuse(ReasonGrantIssuer, "grant %.16s", ref)
	}
	if err := d.f.Authorities.Permit(g.o.Issuer, ActionGrant, g.o.Zone, g.IssuedAt()); err != nil {
		return nil, err
	}
	at := d.f.Now.Unix()
	switch {
	case g.o.Zone != d.r.Zone:
		return nil, refuse(ReasonGrantZone, "grant %.16s is for %s", ref, g.o.Zone)
	case string(g.o.Principal) != d.chain.links[0].c.sub:
		return nil, refuse(ReasonGrantPrincipal, "grant %.16s is for %s", ref, g.o.Principal)
	case at >= int64(g.o.ValidUntil):
		return nil, refuse(ReasonGrantExpired, "grant %.16s", ref)
	case at < int64(g.o.ValidFrom):
		return nil, refuse(ReasonGrantEarly, "grant %.16s", ref)
	}
	return g, nil
}

// use is the request as scopes see it; limits are asked for at the end.
func (r *Request) use() point {
	return point{capability: r.Capability, operation: string(r.Operation), resource: r.Resource, credential: r.Credential, key: r.IdempotencyKey, calls: 1, bytes: 0}
}

// covers asks whether every link permits the use, and which grants that the last
// link still names do so on this device.
func (d *decider) covers() error {
	use := d.r.use()
	for _, l := range d.chain.links {
		s := l.c.scope()
		if !s.allows(&use) {
			return refuse(s.missing(&use), "%s", use.String())
		}
	}
	reason := ReasonNotContained
	for _, g := range d.grants {
		s := g.scope()
		if !contains(d.chain.leaf().grants, g.ref) || !s.allows(&use) {
			continue
		}
		if g.o.Placement != nil && !g.o.Placement.admits(&d.f.Executor) {
			reason = ReasonPlacement
			continue
		}
		d.able = append(d.able, g)
	}
	if len(d.able) > 0 {
		return nil
	}
	return refuse(reason, "%s", use.String())
}

// missing says which part of a use a scope does not permit.
func (s *scope) missing(p *point) fcp.Reason {
	capability, operation := false, false
	for _, r := range s.rights {
		capability = capability || r.Capability == p.capability
		operation = operation || r.covers(p.capability, p.operation)
	}
	switch {
	case !capability:
		return ReasonCapability
	case !operation:
		return ReasonOperation
	case !s.constraints.allowsResource(p.resource):
		return ReasonResource
	case !s.constraints.allowsCredential(p.credential):
		return ReasonCredential
	}
	return ReasonIdempotencyKey
}

// revoked asks for every link, grant, key, attestation, device and binary.
func (d *decider) revoked() error {
	type item struct {
		ref    fcp.Hash
		as     RevocationScope
		reason fcp.Reason
	}
	items := make([]item, 0, 16)
	for _, l := range d.chain.links {
		items = append(items, item{l.c.id().Ref(), RevokeToken, ReasonRevokedToken}, item{fcp.Hash(l.c.cnf), RevokeToken, ReasonRevokedToken})
	}
	items = append(items, item{d.attestation, RevokeAttestation, ReasonRevokedAttestation},
		item{fcp.Hash(d.chain.links[0].key), RevokeIssuerKey, ReasonRevokedIssuer}, item{fcp.Hash(d.chain.node), RevokeDevice, ReasonRevokedAttestation},
		item{fcp.Hash(d.r.Device), RevokeDevice, ReasonRevokedAttestation})
	for _, g := range d.grants {
		items = append(items, item{g.ref, RevokeCapability, ReasonRevokedGrant}, item{fcp.Hash(g.o.Issuer), RevokeIssuerKey, ReasonRevokedGrant})
	}
	if !d.r.Binary.IsZero() {
		items = append(items, item{d.r.Binary, RevokeBinary, ReasonRevokedBinary})
	}
	for _, i := range items {
		if by, gone := d.isRevoked(i.ref, i.as); gone {
			d.note(by)
			return refuse(i.reason, "%.16s", i.ref)
		}
	}
	return nil
}

// lease asks for the fence of an operation that needs one.
func (d *decider) lease() error {
	if !d.r.NeedsLease {
		return nil
	}
	if d.f.Leases == nil {
		return refuse(ReasonLeaseMissing, "")
	}
	l, ok := d.f.Leases.Lease(d.r.Subject)
	if !ok {
		return refuse(ReasonLeaseMissing, "")
	}
	d.note(l.Ref)
	switch {
	case l.Holder != d.f.Executor.Node:
		return refuse(ReasonLeaseHolder, "device %.16s has it under fence %d, this request came with %d", l.Holder, l.Seq, d.r.LeaseSeq)
	case d.r.LeaseSeq != l.Seq:
		return refuse(ReasonLeaseStale, "fence %d, the lease's is %d", d.r.LeaseSeq, l.Seq)
	case l.Released:
		return refuse(ReasonLeaseReleased, "fence %d", l.Seq)
	case !d.f.Now.Before(l.Expires):
		return refuse(ReasonLeaseExpired, "fence %d, it ended at %s", l.Seq, l.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// limits asks whether every link and one of the grants that permit the use still
// have a call and the bytes to give.
func (d *decider) limits() error {
	if d.f.Limits == nil {
		return refuse(ReasonLimitRate, "nothing is known of what was used")
	}
	var err error
	for _, g := range d.able {
		if fault := d.left(g.ref, &g.o.Constraints); fault == nil {
			d.charge = append(d.charge, g.ref)
			break
		} else if err == nil {
			err = fault
		}
	}
	if len(d.charge) == 0 {
		return err
	}
	for i, l := range d.chain.links {
		ref := d.r.Token.refs[i]
		if err := d.left(ref, &l.c.constraints); err != nil {
			return err
		}
		d.charge = append(d.charge, ref)
	}
	if d.f.Limits.RateExceeded(d.r) {
		return refuse(ReasonLimitRate, "")
	}
	return nil
}

func (d *decider) left(ref fcp.Hash, c *Constraints) error {
	if c.MaxCalls == 0 && c.MaxBytes == 0 {
		return nil
	}
	calls, bytes := d.f.Limits.Used(ref)
	switch {
	case c.MaxCalls != 0 && calls >= uint64(c.MaxCalls):
		return refuse(ReasonLimitCalls, "%d of %d", calls, c.MaxCalls)
	case c.MaxBytes != 0 && (bytes > c.MaxBytes || d.r.Bytes > c.MaxBytes-bytes):
		return refuse(ReasonLimitBytes, "%d and %d of %d", bytes, d.r.Bytes, c.MaxBytes)
	}
	return nil
}
