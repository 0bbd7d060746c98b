package engine

import (
	"bytes"
	"context"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// defaultIssuers is the issuer set that Entitle keeps.
const defaultIssuers fcp.CanonicalID = "issuers:default"

// EntitleRequest says what somebody is to be permitted, and from where.
type EntitleRequest struct {
	authority.GrantSpec
	Devices []fcp.WriterID // he acts from; nil: this one
	Minter  fcp.WriterID   // that makes his tokens; zero: this one
	DryRun  bool
}

// Entitled says what Entitle did, or with DryRun what it would have done.
type Entitled struct {
	Grant   fcp.Hash       // ref; zero with DryRun, because its time is signed
	Planned []PlannedEvent // what was appended, in order
}

// Entitle grants, and before it appends what the grant needs to be of use and what
// is not there yet: an attestation of the minting node, the issuer set that lets it
// mint, and the binding of the principal to the devices. Each step stands by
// itself, so that one that fails can be repeated. Only the owner can do all of it.
func (e *Engine) Entitle(ctx context.Context, owner *authority.OwnerKey, q EntitleRequest) (out Entitled, err error) {
	if err := e.genesis.CheckOwner(owner.Public()); err != nil {
		return out, err
	}
	f, err := e.ZoneFacts(q.Zone)
	if err != nil {
		return out, err
	}
	if f.Halted != nil {
		return out, f.Halted
	}
	if q.Minter.IsZero() {
		q.Minter = e.node.Writer()
	}
	if q.Devices == nil {
		q.Devices = []fcp.WriterID{e.node.Writer()}
	}
	now := e.env.Now()
	if _, err := authority.SignGrant(now, owner, q.GrantSpec); err != nil {
		return out, err // before anything is appended
	}
	for _, need := range []func() (fcp.Kind, fcp.ZoneID, func() error, error){
		func() (fcp.Kind, fcp.ZoneID, func() error, error) { return e.needAttestation(ctx, owner, f, &q, now) },
		func() (fcp.Kind, fcp.ZoneID, func() error, error) { return e.needIssuers(ctx, owner, f, &q, now) },
		func() (fcp.Kind, fcp.ZoneID, func() error, error) { return e.needBinding(ctx, owner, f, &q, now) },
	} {
		kind, zone, act, err := need()
		if err != nil {
			return out, err
		}
		if act == nil {
			continue
		}
		out.Planned = append(out.Planned, PlannedEvent{Plane: fcp.PlaneControl.String(), Kind: kind.String(), Key: zone.String()})
		if q.DryRun {
			continue
		}
		if err := act(); err != nil {
			return out, err
		}
	}
	out.Planned = append(out.Planned, PlannedEvent{Plane: fcp.PlaneControl.String(), Kind: fcp.KindCapabilityGranted.String(), Key: q.Zone.String()})
	if q.DryRun {
		return out, nil
	}
	g, err := e.Grant(ctx, owner, q.GrantSpec)
	if err == nil {
		out.Grant = g.Ref()
	}
	return out, err
}

// needAttestation renews at half of an attestation's life.
func (e *Engine) needAttestation(ctx context.Context, owner *authority.OwnerKey, f *ZoneFacts, q *EntitleRequest, now time.Time) (fcp.Kind, fcp.ZoneID, func() error, error) {
	a, err := f.Attestations.At(q.Minter, now)
	if err == nil && now.Before(a.RenewAt()) {
		return 0, "", nil, nil
	}
	node, ok := e.Node(), q.Minter == e.node.Writer()
	if !ok {
		devices, err := e.devices()
		if err != nil {
			return 0, "", nil, err
		}
		d := devices[q.Minter]
		if d == nil {
			return 0, "", nil, fcp.Errorf(fcp.CodeNotFound, "no device %.16s was enrolled", q.Minter)
		}
		node = d.Node()
	}
	spec := authority.AttestationSpec{Node: node, From: now.Truncate(time.Second), Until: now.Truncate(time.Second).Add(authority.DefaultAttestation)}
	return fcp.KindAttestationIssued, fcp.ZoneOwner, func() error { return e.Attest(ctx, owner, spec) }, nil
}

func (e *Engine) needIssuers(ctx context.Context, owner *authority.OwnerKey, f *ZoneFacts, q *EntitleRequest, now time.Time) (fcp.Kind, fcp.ZoneID, func() error, error) {
	missing := authority.Patterns{}
	for _, r := range q.Rights {
		if _, err := f.Issuers.Permit(r.Capability, now, q.Minter); err != nil {
			missing = append(missing, authority.Pattern(r.Capability))
		}
	}
	if len(missing) == 0 {
		return 0, "", nil, nil
	}
	spec := authority.IssuerSetSpec{Zone: q.Zone, ID: defaultIssuers, Threshold: 1, From: now.Truncate(time.Second)}
	if old, ok := f.Issuers.Latest(defaultIssuers); ok {
		s := old.Spec()
		spec.Issuers, spec.Threshold, spec.From = slices.Clone(s.Issuers), s.Threshold, s.From
	}
	i, there := slices.BinarySearchFunc(spec.Issuers, q.Minter, func(m authority.IssuerSpec, w fcp.WriterID) int { return bytes.Compare(m.Writer[:], w[:]) })
	if !there {
		spec.Issuers = slices.Insert(spec.Issuers, i, authority.IssuerSpec{Writer: q.Minter})
	}
	allow := append(slices.Clone(spec.Issuers[i].Allow), missing...)
	slices.Sort(allow)
	spec.Issuers[i].Allow = slices.Compact(allow)
	return fcp.KindIssuersSet, q.Zone, func() error { return e.DefineIssuers(ctx, owner, spec) }, nil
}

// needBinding binds the principal to the devices where no binding does for as long
// as the grant holds.
func (e *Engine) needBinding(ctx context.Context, owner *authority.OwnerKey, f *ZoneFacts, q *EntitleRequest, now time.Time) (fcp.Kind, fcp.ZoneID, func() error, error) {
	v := &factsView{f, now}
	capabilities := authority.Patterns{}
	for _, r := range q.Rights {
		capabilities = append(capabilities, authority.Pattern(r.Capability))
	}
	slices.Sort(capabilities)
	capabilities = slices.Compact(capabilities)
	bound := func(b *authority.Binding) bool {
		s := b.Spec()
		if v.is(b.Ref()) || s.NotBefore.After(now) || s.NotAfter.Before(q.NotAfter) || !slices.Contains(s.Zones, q.Zone) {
			return false
		}
		for _, d := range q.Devices {
			if !slices.Contains(s.Devices, d) {
				return false
			}
		}
		for _, c := range capabilities {
			if !s.Capabilities.Match(string(c)) {
				return false
			}
		}
		return true
	}
	if slices.ContainsFunc(f.bindings[q.Principal], bound) {
		return 0, "", nil, nil
	}
	spec := authority.BindingSpec{Principal: q.Principal, Devices: q.Devices, Zones: []fcp.ZoneID{q.Zone}, Capabilities: capabilities,
		NotBefore: now.Truncate(time.Second), NotAfter: q.NotAfter}
	return fcp.KindPrincipalBound, fcp.ZoneOwner, func() error { return e.BindPrincipal(ctx, owner, spec) }, nil
}

// MintRequest says which token is to be made of a grant. What is left out is the
// grant's own.
type MintRequest struct {
	Zone        fcp.ZoneID
	Grant       fcp.Hash
	Confirm     authority.HolderPublic
	Holder      fcp.WriterID // the device it is used from; zero: this one
	Rights      []authority.Right
	Constraints *authority.Constraints
	Audience    fcp.CanonicalID // "": StoreConnector, with SecretInstance for SecretCapability, else StoreInstance
	Instance    fcp.CanonicalID
	For         time.Duration // 0: until the grant ends, at most authority.MaxTokenLifetime
	Depth       uint64        // how often the holder may narrow it
}

// MintFrom makes the first token of a chain from a grant that is here, with this node's
// issuance key. It refuses what every verifier would refuse, with the same reason.
// A token leaves no event: the grant is on record, and so is each risky use.
func (e *Engine) MintFrom(q MintRequest) (*authority.Chain, error) {
	f, err := e.ZoneFacts(q.Zone)
	if err != nil {
		return nil, err
	}
	if f.Halted != nil {
		return nil, f.Halted
	}
	g := f.grants[q.Grant]
	if g == nil {
		return nil, fcp.Errorf(fcp.CodeNotFound, "no grant %.16s in %s", q.Grant, q.Zone).WithNext("list the grants with `fcpctl cap ls`")
	}
	now := e.env.Now()
	v := &factsView{f, now}
	spec := mintSpec(&q, g, now, f.Checkpoint.CheckpointRef(), e.node.Writer())
	if r := f.Revoked(g.Ref(), now, authority.RevokeCapability); r != nil {
		return nil, fcp.Errorf(fcp.CodeDenied, "grant %.16s: %w", q.Grant, authority.ReasonRevokedGrant).WithNext("ask the owner for a new grant with `fcpctl cap grant`")
	}
	if !now.Before(g.Spec().NotAfter) {
		return nil, fcp.Errorf(fcp.CodeTokenExpired, "grant %.16s: %w", q.Grant, authority.ReasonGrantExpired)
	}
	if err := authority.CheckMint(spec, []*authority.Grant{g}); err != nil {
		return nil, err
	}
	for _, r := range spec.Rights {
		if _, ok := v.MayMint(e.node.Writer(), q.Zone, r.Capability); !ok {
			return nil, fcp.Errorf(fcp.CodeDenied, "this node for %s: %w", r.Capability, authority.ReasonIssuerRight).
				WithNext("mint on a node that the zone's issuer set names, or grant again on this one")
		}
	}
	b, err := e.MintToken(spec)
	if err != nil {
		return nil, err
	}
	return authority.NewChain(b)
}

func mintSpec(q *MintRequest, g *authority.Grant, now time.Time, at authority.CheckpointRef, self fcp.WriterID) authority.TokenSpec {
	s := g.Spec()
	issuer := g.Issuer()
	from := now.Truncate(time.Second)
	if s.NotBefore.After(from) {
		from = s.NotBefore
	}
	until := from.Add(authority.MaxTokenLifetime)
	if q.For > 0 && q.For < authority.MaxTokenLifetime {
		until = from.Add(q.For.Truncate(time.Second))
	}
	if s.NotAfter.Before(until) {
		until = s.NotAfter
	}
	t := authority.TokenSpec{Issuer: fcp.CanonicalID("key:" + fcp.KidOf(issuer[:]).String()), Principal: s.Principal, Audience: q.Audience,
		Instance: q.Instance, Zone: q.Zone, NotBefore: from, Expires: until, Holder: q.Holder, Confirm: q.Confirm, Grants: []fcp.Hash{g.Ref()},
		Rights: q.Rights, Constraints: s.Constraints, Checkpoint: at, Depth: q.Depth}
	if t.Holder.IsZero() {
		t.Holder = self
	}
	if t.Audience == "" {
		t.Audience, t.Instance = StoreConnector, StoreInstance
	}
	if t.Rights == nil {
		t.Rights = s.Rights
	}
	if q.Audience == "" && len(t.Rights) > 0 && t.Rights[0].Capability == SecretCapability {
		t.Instance = SecretInstance
	}
	if q.Constraints != nil {
		t.Constraints = *q.Constraints
	}
	return t
}

// GrantState is one grant as this node sees it.
type GrantState struct {
	Ref     fcp.Hash
	Issuer  authority.OwnerPublic
	Issued  time.Time
	Spec    authority.GrantSpec
	Revoked *authority.Revocation // nil: it stands
}

// Grants returns the grants of a zone, ascending by ref.
func (e *Engine) Grants(zone fcp.ZoneID) ([]GrantState, error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	out := make([]GrantState, 0, len(f.grants))
	for ref, g := range f.grants {
		out = append(out, GrantState{ref, g.Issuer(), g.IssuedAt(), g.Spec(), f.Revoked(ref, e.env.Now(), authority.RevokeCapability)})
	}
	slices.SortFunc(out, func(a, b GrantState) int { return bytes.Compare(a.Ref[:], b.Ref[:]) })
	return out, nil
}
