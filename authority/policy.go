package authority

import (
	"bytes"
	"time"

	"fcp"
)

// PolicySpec says what a zone's policy is to contain.
type PolicySpec struct {
	Zone    fcp.ZoneID
	Version uint64   // the owner's number, from 1; the highest rules
	Prev    fcp.Hash // RefOf the version before; zero exactly in version 1

	// Restores is the number of the earlier version whose rules this one brings
	// back; 0: none. A rollback is a new version, so it is itself on record.
	Restores uint64

	PolicyRules
}

// PolicyRules are what a policy says. The zero PolicyRules restrict nothing by
// list and are strict about freshness.
type PolicyRules struct {
	Principals   Lists
	Connectors   Lists
	Capabilities Lists

	PrincipalRules []PrincipalRule // the first whose pattern fits counts
	FlowRules      []FlowRule      // the first whose zones fit counts

	MaxAge           time.Duration // of what is known of revocations; 0: DefaultMaxAge. Whole seconds.
	DegradedMode     bool          // safe operations go on without fresh knowledge; logged as policy.degraded_mode
	RiskyOverride    bool          // risky ones too, within MaxAge
	MaxFaults        uint8         // members that may lie
	DegradedMinNodes uint8         // below it nothing proceeds in degraded mode

	// Placement says where symbols go; nil: as each node was started with.
	Placement *PlacementRules
}

// PrincipalRule limits what some principals may do.
type PrincipalRule struct {
	Principal Pattern `cbor:"principal"`
	MaxTier   Tier    `cbor:"max_tier"`
}

// FlowRule forbids, or leaves to the levels, that data goes from one zone to
// another. What is forbidden no approval permits.
type FlowRule struct {
	From   Pattern `cbor:"from"` // over zone ids
	To     Pattern `cbor:"to"`
	Forbid bool    `cbor:"forbid"`
}

// Limits and defaults of a policy.
const (
	DefaultMaxAge  = 300 * time.Second
	maxPolicyRules = 256
	maxMaxAge      = 30 * 24 * time.Hour
)

// policyObject is ZonePolicyObject on the wire.
type policyObject struct {
	Format           uint64          `cbor:"format"`
	Zone             fcp.ZoneID      `cbor:"zone_id"`
	Version          uint64          `cbor:"version"`
	Prev             []byte          `cbor:"prev,omitempty"`
	Restores         uint64          `cbor:"restores,omitempty"`
	PrincipalAllow   Patterns        `cbor:"principal_allow,omitempty"`
	PrincipalDeny    Patterns        `cbor:"principal_deny,omitempty"`
	ConnectorAllow   Patterns        `cbor:"connector_allow,omitempty"`
	ConnectorDeny    Patterns        `cbor:"connector_deny,omitempty"`
	CapabilityAllow  Patterns        `cbor:"capability_allow,omitempty"`
	CapabilityDeny   Patterns        `cbor:"capability_deny,omitempty"`
	PrincipalRules   []PrincipalRule `cbor:"principal_rules,omitempty"`
	FlowRules        []FlowRule      `cbor:"flow_rules,omitempty"`
	MaxAge           uint64          `cbor:"max_age_secs,omitempty"`
	DegradedMode     bool            `cbor:"degraded_mode,omitempty"`
	RiskyOverride    bool            `cbor:"risky_override,omitempty"`
	MaxFaults        uint8           `cbor:"max_faults,omitempty"`
	DegradedMinNodes uint8           `cbor:"degraded_min_nodes,omitempty"`
	CreatedAt        uint64          `cbor:"created_at"` // unix seconds
	Issuer           OwnerPublic     `cbor:"issuer"`
	Signature        []byte          `cbor:"signature,omitempty"`

	// Format 2.
	Placement *PlacementRules `cbor:"placement,omitempty"`
}

const policyFormat2 = 2

func (o *policyObject) wantFormat() uint64 {
	if o.Placement != nil {
		return policyFormat2
	}
	return ObjectFormat
}

// Policy is a verified policy of a zone, made by VerifyPolicy.
type Policy struct {
	o   policyObject
	ref fcp.Hash
}

// Number returns the owner's version number.
func (p *Policy) Number() uint64 { return p.o.Version }

// Ref returns RefOf the policy's bytes.
func (p *Policy) Ref() fcp.Hash { return p.ref }

// Previous returns the reference to the version before.
func (p *Policy) Previous() Hashref { return hashrefOf(p.o.Prev) }

// CreatedAt returns when the owner signed it, to the second.
func (p *Policy) CreatedAt() time.Time { return time.Unix(int64(p.o.CreatedAt), 0).UTC() }

// Zone returns the zone the policy is for.
func (p *Policy) Zone() fcp.ZoneID { return p.o.Zone }

// Spec returns what the policy says.
func (p *Policy) Spec() PolicySpec {
	return PolicySpec{Zone: p.o.Zone, Version: p.o.Version, Prev: p.Previous().Ref, Restores: p.o.Restores, PolicyRules: p.o.rules()}
}

// Rules returns the rules alone. The caller must not change their lists.
func (p *Policy) Rules() PolicyRules { return p.o.rules() }

func (o *policyObject) rules() PolicyRules {
	return PolicyRules{
		Principals:     Lists{o.PrincipalAllow, o.PrincipalDeny},
		Connectors:     Lists{o.ConnectorAllow, o.ConnectorDeny},
		Capabilities:   Lists{o.CapabilityAllow, o.CapabilityDeny},
		PrincipalRules: o.PrincipalRules, FlowRules: o.FlowRules,
		MaxAge: time.Duration(o.MaxAge) * time.Second, DegradedMode: o.DegradedMode, RiskyOverride: o.RiskyOverride,
		MaxFaults: o.MaxFaults, DegradedMinNodes: o.DegradedMinNodes, Placement: o.Placement,
	}
}

func hashrefOf(b []byte) (h Hashref) {
	h.Set = len(b) == fcp.HashSize
	copy(h.Ref[:], b)
	return h
}

func optionalHash(h fcp.Hash) []byte {
	if h.IsZero() {
		return nil
	}
	return bytes.Clone(h[:])
}

// SignPolicy returns the owner-signed policy, schema prefix included.
func SignPolicy(now time.Time, owner *OwnerKey, s PolicySpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	if s.MaxAge < 0 || s.MaxAge%time.Second != 0 {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a maximal age of %s is not whole seconds", s.MaxAge)
	}
	o := policyObject{
		Format: ObjectFormat, Zone: s.Zone, Version: s.Version, Prev: optionalHash(s.Prev), Restores: s.Restores,
		PrincipalAllow: s.Principals.Allow, PrincipalDeny: s.Principals.Deny,
		ConnectorAllow: s.Connectors.Allow, ConnectorDeny: s.Connectors.Deny,
		CapabilityAllow: s.Capabilities.Allow, CapabilityDeny: s.Capabilities.Deny,
		PrincipalRules: s.PrincipalRules, FlowRules: s.FlowRules, MaxAge: uint64(s.MaxAge / time.Second),
		DegradedMode: s.DegradedMode, RiskyOverride: s.RiskyOverride, MaxFaults: s.MaxFaults,
		DegradedMinNodes: s.DegradedMinNodes, CreatedAt: at, Issuer: owner.Public(), Placement: s.Placement,
	}
	o.Format = o.wantFormat()
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(owner, fcp.SchemaZonePolicy, &o, &o.Signature)
}

// VerifyPolicy decodes a policy and checks that owner signed exactly these bytes.
// Errors: CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion, CodeZone,
// CodeTooLarge, CodeWrongKey for another issuer, CodeSignature.
func VerifyPolicy(owner OwnerPublic, b []byte) (*Policy, error) {
	var o policyObject
	s, err := decodeSigned(fcp.SchemaZonePolicy, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := checkIssuer(fcp.SchemaZonePolicy, o.Issuer, owner); err != nil {
		return nil, err
	}
	if err := s.verifyOwner(owner, fcp.SchemaZonePolicy); err != nil {
		return nil, err
	}
	return &Policy{o, RefOf(b)}, nil
}

func (o *policyObject) check() error {
	if err := checkFormat(fcp.SchemaZonePolicy, o.Format, o.wantFormat(), o.CreatedAt); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "policy of %.64q", string(o.Zone))
	case o.Version == 0:
		return fcp.Errorf(fcp.CodeMissingField, "policy of %s without a version", o.Zone)
	case o.Version == 1 && o.Prev != nil, o.Version > 1 && len(o.Prev) != fcp.HashSize:
		return fcp.Errorf(fcp.CodeMalformed, "policy of %s: the previous policy does not fit version %d", o.Zone, o.Version)
	case o.Restores >= o.Version:
		return fcp.Errorf(fcp.CodeMalformed, "policy %d of %s cannot restore version %d", o.Version, o.Zone, o.Restores)
	case o.MaxAge > uint64(maxMaxAge/time.Second):
		return fcp.Errorf(fcp.CodeInvalidArgument, "policy of %s: a maximal age above %s", o.Zone, maxMaxAge)
	case len(o.PrincipalRules) > maxPolicyRules || len(o.FlowRules) > maxPolicyRules:
		return fcp.Errorf(fcp.CodeTooLarge, "policy of %s with more than %d rules of a kind", o.Zone, maxPolicyRules)
	}
	for _, l := range []struct {
		what string
		list Patterns
	}{
		{"principal_allow", o.PrincipalAllow}, {"principal_deny", o.PrincipalDeny},
		{"connector_allow", o.ConnectorAllow}, {"connector_deny", o.ConnectorDeny},
		{"capability_allow", o.CapabilityAllow}, {"capability_deny", o.CapabilityDeny},
	} {
		if err := l.list.check(l.what); err != nil {
			return err
		}
	}
	for i, r := range o.PrincipalRules {
		if !r.Principal.Valid() || !r.MaxTier.Valid() {
			return fcp.Errorf(fcp.CodeMalformed, "policy of %s: principal rule %d", o.Zone, i)
		}
	}
	for i, r := range o.FlowRules {
		if !r.From.Valid() || !r.To.Valid() {
			return fcp.Errorf(fcp.CodeMalformed, "policy of %s: flow rule %d", o.Zone, i)
		}
	}
	if o.Placement != nil {
		return o.Placement.check(o.Zone)
	}
	return nil
}

// MaxTier returns the worst tier the principal may use; TierForbidden when no rule
// limits it.
func (r *PolicyRules) MaxTier(principal string) Tier {
	for _, p := range r.PrincipalRules {
		if p.Principal.Match(principal) {
			return p.MaxTier
		}
	}
	return TierForbidden
}

// FlowForbidden reports whether a rule forbids data to go from one zone to another.
func (r *PolicyRules) FlowForbidden(from, to fcp.ZoneID) bool {
	for _, f := range r.FlowRules {
		if f.From.Match(string(from)) && f.To.Match(string(to)) {
			return f.Forbid
		}
	}
	return false
}

// Policies are the policies of one zone by the owner's number.
type Policies struct{ Versions[*Policy] }

// Current returns the policy in force; nil with no error when the zone has none,
// which means the zero PolicyRules. Besides the errors of Versions.Current it is
// CodeDenied with ReasonVersionRollback when the policy says that it restores a
// version and has other rules.
func (p *Policies) Current() (*Policy, error) {
	cur, ok, err := p.Versions.Current()
	if !ok || err != nil {
		return nil, err
	}
	if cur.o.Restores == 0 {
		return cur, nil
	}
	seen := false
	for _, old := range p.All() {
		if old.o.Version == cur.o.Restores {
			if sameRules(&old.o, &cur.o) {
				return cur, nil
			}
			seen = true
		}
	}
	if seen {
		return nil, fcp.Errorf(fcp.CodeDenied, "policy %d of %s says that it restores version %d and has other rules: %w",
			cur.o.Version, cur.o.Zone, cur.o.Restores, ReasonVersionRollback)
	}
	return cur, nil // the restored one is not here yet: the owner's signature stands
}

// Next returns the spec of the version that follows the current one with the given
// rules.
func (p *Policies) Next(zone fcp.ZoneID, rules PolicyRules) (PolicySpec, error) {
	cur, ok, err := p.Versions.Current()
	if err != nil && !ok {
		return PolicySpec{}, err
	}
	s := PolicySpec{Zone: zone, Version: 1, PolicyRules: rules}
	if ok { // also over a fork, which this settles
		s.Version, s.Prev = cur.Number()+1, cur.Ref()
	}
	return s, nil
}

// Rollback returns the spec of a new version with the rules of an earlier one.
// CodeNotFound when that version is not known, CodeConflict when it is forked.
func (p *Policies) Rollback(zone fcp.ZoneID, version uint64) (PolicySpec, error) {
	var old *Policy
	for _, o := range p.All() {
		if o.Number() != version {
			continue
		}
		if old != nil {
			return PolicySpec{}, fcp.Errorf(fcp.CodeConflict, "two policies of %s have version number %d: %w", zone, version, ReasonVersionForked)
		}
		old = o
	}
	if old == nil {
		return PolicySpec{}, fcp.Errorf(fcp.CodeNotFound, "policy %d of %s", version, zone)
	}
	s, err := p.Next(zone, old.Rules())
	s.Restores = version
	return s, err
}

func sameRules(a, b *policyObject) bool {
	x, y := *a, *b
	for _, o := range []*policyObject{&x, &y} {
		o.Version, o.Prev, o.Restores, o.CreatedAt, o.Signature = 0, nil, 0, 0, nil
	}
	p, err := fcp.Marshal(&x)
	if err != nil {
		return false
	}
	q, err := fcp.Marshal(&y)
	return err == nil && bytes.Equal(p, q)
}
