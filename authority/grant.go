package authority

import (
	"strings"
	"time"

	"fcp"
)

// Limits of a grant or token. Going over one is refused.
const (
	MaxRights        = 16   // capability and operation pairs
	MaxPrefixes      = 16   // entries of resource_allow, and of resource_deny
	MaxCredentials   = 8    // entries of credential_allow
	MaxGrantsNamed   = 8    // grant objects of one token
	MaxResource      = 1024 // bytes of a resource or resource prefix
	MaxIdempotency   = 128  // bytes of an idempotency key, spec/wire.md section 13.5
	MaxPlacementTags = 16   // entries of each list of a placement
	wildcard         = "*"  // says "every" where it is meant; empty never does
)

// AnyOperation, as the operation of a right, stands for every operation of its
// capability. AnyResource, as a resource prefix, matches every resource.
const (
	AnyOperation = wildcard
	AnyResource  = wildcard
)

// Right permits one operation of one capability.
type Right struct {
	Capability fcp.CanonicalID `cbor:"capability"`
	Operation  string          `cbor:"operation,omitempty"` // a canonical id or AnyOperation; empty, meaning any, only in the reference profile
}

func (r Right) covers(capability fcp.CanonicalID, operation string) bool {
	return r.Capability == capability && (r.Operation == AnyOperation || r.Operation == operation)
}

// CredentialID and SecretID name a credential and the secret it applies.
type (
	CredentialID [16]byte
	SecretID     [16]byte
)

// Constraints narrow rights (spec/wire.md section 15). Resource entries are plain
// prefixes, compared byte by byte; a denial wins over a permission.
type Constraints struct {
	ResourceAllow   []string       `cbor:"resource_allow,omitempty"`
	ResourceDeny    []string       `cbor:"resource_deny,omitempty"`
	MaxCalls        uint32         `cbor:"max_calls,omitempty"` // 0 for no limit
	MaxBytes        uint64         `cbor:"max_bytes,omitempty"` // 0 for no limit
	IdempotencyKey  string         `cbor:"idempotency_key,omitempty"`
	CredentialAllow []CredentialID `cbor:"credential_allow,omitempty"`
}

func matchesPrefix(prefixes []string, resource string) bool {
	for _, p := range prefixes {
		if p == AnyResource || strings.HasPrefix(resource, p) {
			return true
		}
	}
	return false
}

func (c *Constraints) allowsResource(resource string) bool {
	return matchesPrefix(c.ResourceAllow, resource) && !matchesPrefix(c.ResourceDeny, resource)
}

func (c *Constraints) allowsCredential(id CredentialID) bool {
	if id == (CredentialID{}) {
		return true // none is used
	}
	for _, have := range c.CredentialAllow {
		if have == id {
			return true
		}
	}
	return false
}

// scope is what a grant or a token permits, apart from time and place.
type scope struct {
	rights      []Right
	constraints Constraints
}

func (s *scope) check(what string) error {
	c := &s.constraints
	switch {
	case len(s.rights) == 0 || len(s.rights) > MaxRights:
		return refuse(ReasonScope, "%s with %d rights", what, len(s.rights))
	case len(c.ResourceAllow) == 0:
		return refuse(ReasonScope, "%s without a resource", what)
	case len(c.ResourceAllow) > MaxPrefixes || len(c.ResourceDeny) > MaxPrefixes:
		return refuse(ReasonScope, "%s with too many resource prefixes", what)
	case len(c.CredentialAllow) > MaxCredentials:
		return refuse(ReasonScope, "%s with %d credentials", what, len(c.CredentialAllow))
	case c.IdempotencyKey != "" && !validToken(c.IdempotencyKey, MaxIdempotency):
		return refuse(ReasonScope, "the idempotency key of a %s", what)
	}
	for i, r := range s.rights {
		if err := checkRight(what, r); err != nil {
			return err
		}
		for _, other := range s.rights[:i] {
			if r == other {
				return refuse(ReasonScope, "%s with one right twice", what)
			}
		}
	}
	for _, list := range [][]string{c.ResourceAllow, c.ResourceDeny} {
		for _, p := range list {
			if !validToken(p, MaxResource) {
				return refuse(ReasonScope, "a resource prefix of a %s", what)
			}
		}
	}
	for _, id := range c.CredentialAllow {
		if id == (CredentialID{}) {
			return refuse(ReasonScope, "%s with a credential id of zeros", what)
		}
	}
	return nil
}

func checkRight(what string, r Right) error {
	if _, err := fcp.ParseCanonicalID(string(r.Capability)); err != nil {
		return refuse(ReasonScope, "the capability of a %s", what)
	}
	if r.Operation == AnyOperation {
		return nil
	}
	if _, err := fcp.ParseCanonicalID(r.Operation); err != nil {
		return refuse(ReasonScope, "the operation of a %s", what)
	}
	return nil
}

// validToken reports whether s is 1 to limit bytes of ASCII above the space, which
// no layout without length prefixes can confuse with a count or a time.
func validToken(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// Placement says where an operation may run (40-authority "CapabilityObject").
// Empty lists of requirements ask for nothing: a placement only takes away.
type Placement struct {
	RequireTags []string       `cbor:"require_tags,omitempty"` // every one must be on the executing device
	Zones       []fcp.ZoneID   `cbor:"zones,omitempty"`        // when given, the device must be a member of one
	Excluded    []fcp.WriterID `cbor:"excluded,omitempty"`     // devices that never run it
}

// Executor is the device that is to run an operation.
type Executor struct {
	Node  fcp.WriterID
	Tags  []string
	Zones []fcp.ZoneID // it is a member of
}

func (p *Placement) admits(e *Executor) bool {
	for _, x := range p.Excluded {
		if x == e.Node {
			return false
		}
	}
	for _, want := range p.RequireTags {
		if !contains(e.Tags, want) {
			return false
		}
	}
	if len(p.Zones) == 0 {
		return true
	}
	for _, z := range p.Zones {
		if contains(e.Zones, z) {
			return true
		}
	}
	return false
}

func contains[T comparable](list []T, want T) bool {
	for _, have := range list {
		if have == want {
			return true
		}
	}
	return false
}

func (p *Placement) check() error {
	if len(p.RequireTags) > MaxPlacementTags || len(p.Zones) > MaxPlacementTags || len(p.Excluded) > MaxPlacementTags {
		return refuse(ReasonScope, "a placement with more than %d entries", MaxPlacementTags)
	}
	for _, t := range p.RequireTags {
		if !validToken(t, fcp.MaxIdentifier) {
			return refuse(ReasonScope, "a tag of a placement")
		}
	}
	for _, z := range p.Zones {
		if !z.Valid() {
			return refuse(ReasonScope, "a zone of a placement")
		}
	}
	return nil
}

// GrantSpec says what a capability object is to permit.
type GrantSpec struct {
	Zone        fcp.ZoneID
	Principal   fcp.CanonicalID // the grantee
	Rights      []Right
	Constraints Constraints
	Placement   Placement
	NotBefore   time.Time // inclusive
	NotAfter    time.Time // exclusive
}

// grantObject is CapabilityObject in the native profile on the wire.
type grantObject struct {
	Format      uint64          `cbor:"format"`
	Zone        fcp.ZoneID      `cbor:"zone_id"`
	Principal   fcp.CanonicalID `cbor:"principal"`
	Rights      []Right         `cbor:"caps"`
	Constraints Constraints     `cbor:"constraints"`
	Placement   *Placement      `cbor:"placement,omitempty"`
	ValidFrom   uint64          `cbor:"valid_from"`  // unix seconds, inclusive
	ValidUntil  uint64          `cbor:"valid_until"` // unix seconds, exclusive
	IssuedAt    uint64          `cbor:"issued_at"`   // unix seconds
	Issuer      OwnerPublic     `cbor:"issuer"`      // the owner, or an admin with ActionGrant
	Signature   []byte          `cbor:"signature,omitempty"`
}

// Grant is a verified capability object, made by VerifyGrant.
type Grant struct {
	ref fcp.Hash
	o   grantObject
}

// Ref returns RefOf the grant's bytes, which tokens name.
func (g *Grant) Ref() fcp.Hash { return g.ref }

// Issuer returns the key that signed it. Whether that key may grant is policy.
func (g *Grant) Issuer() OwnerPublic { return g.o.Issuer }

// IssuedAt returns when it was signed, to the second.
func (g *Grant) IssuedAt() time.Time { return fromUnix(g.o.IssuedAt) }

// Spec returns what the grant permits. The caller must not change its slices.
func (g *Grant) Spec() GrantSpec {
	s := GrantSpec{
		Zone: g.o.Zone, Principal: g.o.Principal, Rights: g.o.Rights, Constraints: g.o.Constraints,
		NotBefore: fromUnix(g.o.ValidFrom), NotAfter: fromUnix(g.o.ValidUntil),
	}
	if g.o.Placement != nil {
		s.Placement = *g.o.Placement
	}
	return s
}

func (g *Grant) scope() scope { return scope{g.o.Rights, g.o.Constraints} }

// SignGrant returns the signed capability object, schema prefix included. An
// empty resource list or operation is refused: "every" is written with
// AnyResource and AnyOperation.
func SignGrant(now time.Time, by AdminKey, spec GrantSpec) ([]byte, error) {
	o := grantObject{
		Format: ObjectFormat, Zone: spec.Zone, Principal: spec.Principal, Rights: spec.Rights,
		Constraints: spec.Constraints, Issuer: by.adminPublic(),
	}
	if p := spec.Placement; len(p.RequireTags)+len(p.Zones)+len(p.Excluded) > 0 {
		o.Placement = &p
	}
	if err := setTimes(timeField{&o.ValidFrom, spec.NotBefore}, timeField{&o.ValidUntil, spec.NotAfter}, timeField{&o.IssuedAt, now}); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(by, fcp.SchemaCapability, &o, &o.Signature)
}

// VerifyGrant decodes a capability object and checks that the key it names signed
// exactly these bytes. Whether that key may grant in the zone is the caller's
// question: see Authorities.Permit. Errors as VerifyZone, and CodeDenied with
// ReasonScope for a scope that cannot be.
func VerifyGrant(b []byte) (*Grant, error) {
	var o grantObject
	s, err := decodeSigned(fcp.SchemaCapability, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if !o.Issuer.Verify(s.message, s.signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "grant by %s", fcp.KidOf(o.Issuer[:]))
	}
	return &Grant{RefOf(b), o}, nil
}

func (o *grantObject) check() error {
	if err := checkCommon(fcp.SchemaCapability, o.Format, max(o.IssuedAt, o.ValidFrom, o.ValidUntil)); err != nil {
		return err
	}
	if !o.Zone.Valid() {
		return fcp.Errorf(fcp.CodeZone, "grant in zone %.64q", string(o.Zone))
	}
	if _, err := fcp.ParseCanonicalID(string(o.Principal)); err != nil {
		return refuse(ReasonScope, "the principal of a grant")
	}
	if o.ValidFrom >= o.ValidUntil {
		return refuse(ReasonScope, "a grant that is never valid")
	}
	if o.Placement != nil {
		if err := o.Placement.check(); err != nil {
			return err
		}
	}
	s := scope{o.Rights, o.Constraints}
	return s.check("grant")
}
