package authority

import (
	"slices"
	"time"

	"fcp"
)

// A role is a name for capabilities; an assignment gives it to a principal. Roles
// are the owner's, assignments also an admin's with ActionRole. A role never adds
// to what a token says: it is one more thing that must permit.

// RoleSpec says what a role is to contain.
type RoleSpec struct {
	Zone         fcp.ZoneID
	ID           fcp.CanonicalID
	Version      uint64   // the owner's number, from 1
	Prev         fcp.Hash // RefOf the version before; zero exactly in version 1
	Capabilities Patterns // at least one
	MaxTier      Tier
}

// roleObject is Role on the wire.
type roleObject struct {
	Format       uint64          `cbor:"format"`
	Zone         fcp.ZoneID      `cbor:"zone_id"`
	ID           fcp.CanonicalID `cbor:"role_id"`
	Version      uint64          `cbor:"version"`
	Prev         []byte          `cbor:"prev,omitempty"`
	Capabilities Patterns        `cbor:"capabilities"`
	MaxTier      Tier            `cbor:"max_tier"`
	CreatedAt    uint64          `cbor:"created_at"` // unix seconds
	Issuer       OwnerPublic     `cbor:"issuer"`
	Signature    []byte          `cbor:"signature,omitempty"`
}

// Role is a verified role, made by VerifyRole.
type Role struct {
	o   roleObject
	ref fcp.Hash
}

// Spec returns what the role says.
func (r *Role) Spec() RoleSpec {
	return RoleSpec{r.o.Zone, r.o.ID, r.o.Version, r.Previous().Ref, r.o.Capabilities, r.o.MaxTier}
}

// Number returns the owner's version number.
func (r *Role) Number() uint64 { return r.o.Version }

// Ref returns RefOf the role's bytes.
func (r *Role) Ref() fcp.Hash { return r.ref }

// Previous returns the reference to the version before.
func (r *Role) Previous() Hashref { return hashrefOf(r.o.Prev) }

// SignRole returns the owner-signed role.
func SignRole(now time.Time, owner *OwnerKey, s RoleSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := roleObject{Format: ObjectFormat, Zone: s.Zone, ID: s.ID, Version: s.Version, Prev: optionalHash(s.Prev),
		Capabilities: s.Capabilities, MaxTier: s.MaxTier, CreatedAt: at, Issuer: owner.Public()}
	return signOwned(owner, fcp.SchemaRole, &o, &o.Signature)
}

// VerifyRole decodes a role and checks that owner signed exactly these bytes.
func VerifyRole(owner OwnerPublic, b []byte) (*Role, error) {
	var o roleObject
	if err := verifyOwned(fcp.SchemaRole, owner, b, &o); err != nil {
		return nil, err
	}
	return &Role{o, RefOf(b)}, nil
}

func (o *roleObject) issuer() OwnerPublic { return o.Issuer }

func (o *roleObject) check() error {
	if err := checkCommon(fcp.SchemaRole, o.Format, o.CreatedAt); err != nil {
		return err
	}
	if _, err := fcp.ParseCanonicalID(o.ID.String()); err != nil {
		return fcp.Wrap(fcp.CodeMalformed, err, "role id")
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "role of %.64q", string(o.Zone))
	case o.Version == 0 || len(o.Capabilities) == 0 || !o.MaxTier.Valid():
		return fcp.Errorf(fcp.CodeMissingField, "role %s without a version, capabilities or a tier", o.ID)
	case o.Version == 1 && o.Prev != nil, o.Version > 1 && len(o.Prev) != fcp.HashSize:
		return fcp.Errorf(fcp.CodeMalformed, "role %s: the previous one does not fit version %d", o.ID, o.Version)
	}
	return o.Capabilities.check("role capabilities")
}

// AssignmentSpec says what a role assignment is to contain.
type AssignmentSpec struct {
	Zone      fcp.ZoneID
	Role      fcp.CanonicalID
	Principal fcp.CanonicalID
	From      time.Time
	Until     time.Time // zero: no end
}

// assignmentObject is RoleAssignment on the wire.
type assignmentObject struct {
	Format    uint64          `cbor:"format"`
	Zone      fcp.ZoneID      `cbor:"zone_id"`
	Role      fcp.CanonicalID `cbor:"role_id"`
	Principal fcp.CanonicalID `cbor:"principal"`
	From      uint64          `cbor:"valid_from"` // unix seconds
	Until     uint64          `cbor:"valid_until,omitempty"`
	Issuer    OwnerPublic     `cbor:"issuer"`
	Signature []byte          `cbor:"signature,omitempty"`
}

// UnverifiedAssignment is one whose signature fits the issuer it names.
type UnverifiedAssignment struct {
	o   assignmentObject
	ref fcp.Hash
}

// Assignment is a verified role assignment.
type Assignment struct{ UnverifiedAssignment }

// Spec returns what the assignment says.
func (u *UnverifiedAssignment) Spec() AssignmentSpec {
	s := AssignmentSpec{Zone: u.o.Zone, Role: u.o.Role, Principal: u.o.Principal, From: fromUnix(u.o.From)}
	if u.o.Until != 0 {
		s.Until = fromUnix(u.o.Until)
	}
	return s
}

// Ref returns RefOf the assignment's bytes.
func (u *UnverifiedAssignment) Ref() fcp.Hash { return u.ref }

// SignAssignment returns the assignment signed by the owner or an admin.
func SignAssignment(key AdminKey, s AssignmentSpec) ([]byte, error) {
	from, err := unixSeconds(s.From)
	if err != nil {
		return nil, err
	}
	o := assignmentObject{Format: ObjectFormat, Zone: s.Zone, Role: s.Role, Principal: s.Principal, From: from, Issuer: adminPublic(key)}
	if !s.Until.IsZero() {
		if o.Until, err = unixSeconds(s.Until); err != nil {
			return nil, err
		}
	}
	return signOwned(key, fcp.SchemaRoleAssignment, &o, &o.Signature)
}

// OpenAssignment decodes an assignment and checks the signature of the issuer it
// names.
func OpenAssignment(b []byte) (*UnverifiedAssignment, error) {
	var o assignmentObject
	if err := verifyNamed(fcp.SchemaRoleAssignment, b, &o); err != nil {
		return nil, err
	}
	return &UnverifiedAssignment{o, RefOf(b)}, nil
}

// Authorize checks that the issuer had the right when it signed.
func (u *UnverifiedAssignment) Authorize(a *Authorities) (*Assignment, error) {
	if err := a.Permit(u.o.Issuer, ActionRole, u.o.Zone, fromUnix(u.o.From)); err != nil {
		return nil, err
	}
	return &Assignment{*u}, nil
}

func (o *assignmentObject) issuer() OwnerPublic { return o.Issuer }

func (o *assignmentObject) check() error {
	if err := checkCommon(fcp.SchemaRoleAssignment, o.Format, o.From); err != nil {
		return err
	}
	for _, id := range []fcp.CanonicalID{o.Role, o.Principal} {
		if _, err := fcp.ParseCanonicalID(id.String()); err != nil {
			return fcp.Wrap(fcp.CodeMalformed, err, "role assignment")
		}
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "role assignment in %.64q", string(o.Zone))
	case o.Until != 0 && (o.Until <= o.From || o.Until > maxUnixSeconds):
		return fcp.Errorf(fcp.CodeMalformed, "a role assignment that ends before it begins")
	}
	return nil
}

// Reasons for refusing a principal by its roles.
const (
	ReasonRoleMissing fcp.Reason = "role.not_assigned"
	ReasonRoleExpired fcp.Reason = "role.expired"
	ReasonRoleRevoked fcp.Reason = "role.revoked"
	ReasonRoleScope   fcp.Reason = "role.capability_not_in_role"
	ReasonRoleTier    fcp.Reason = "role.tier_above_role"
)

var roleRank = map[fcp.Reason]int{ReasonRoleMissing: 0, ReasonVersionForked: 1, ReasonVersionBroken: 1, ReasonRoleScope: 2,
	ReasonRoleTier: 3, ReasonRoleExpired: 4, ReasonRoleRevoked: 5}

// Roles are the roles of a zone and who has them. The state depends only on the
// sets added. The zero value is empty and ready. Not safe for concurrent use with
// Add or Assign.
type Roles struct {
	byID        map[fcp.CanonicalID]*Versions[*Role]
	assignments map[fcp.CanonicalID][]*Assignment // by principal, ascending by ref
}

// Add takes a version of a role in.
func (r *Roles) Add(x *Role) {
	if r.byID == nil {
		r.byID = map[fcp.CanonicalID]*Versions[*Role]{}
	}
	if r.byID[x.o.ID] == nil {
		r.byID[x.o.ID] = new(Versions[*Role])
	}
	r.byID[x.o.ID].Add(x)
}

// Assign takes an assignment in.
func (r *Roles) Assign(x *Assignment) {
	if r.assignments == nil {
		r.assignments = map[fcp.CanonicalID][]*Assignment{}
	}
	list := r.assignments[x.o.Principal]
	i, there := slices.BinarySearchFunc(list, x, func(a, b *Assignment) int { return compareHash(a.ref, b.ref) })
	if !there {
		r.assignments[x.o.Principal] = slices.Insert(list, i, x)
	}
}

// Empty reports whether the zone has no roles: then roles restrict nothing.
func (r *Roles) Empty() bool { return len(r.byID) == 0 }

// Permit reports, with a nil error, that one of the principal's roles covers the
// capability at that tier and time. revoked may be nil.
func (r *Roles) Permit(principal, capability fcp.CanonicalID, t Tier, at time.Time, revoked func(fcp.Hash) bool) error {
	best := ReasonRoleMissing
	for _, a := range r.assignments[principal] {
		reason := r.refuses(a, capability, t, at, revoked)
		if reason == "" {
			return nil
		}
		if roleRank[reason] > roleRank[best] {
			best = reason
		}
	}
	return fcp.Errorf(fcp.CodeDenied, "%s for %s: %w", capability, principal, best)
}

func (r *Roles) refuses(a *Assignment, capability fcp.CanonicalID, t Tier, at time.Time, revoked func(fcp.Hash) bool) fcp.Reason {
	v := r.byID[a.o.Role]
	if v == nil {
		return ReasonRoleMissing
	}
	role, _, err := v.Current()
	s := uint64(max(at.Unix(), 0))
	switch {
	case err != nil:
		return ReasonOf(err)
	case revoked != nil && revoked(a.ref):
		return ReasonRoleRevoked
	case !activeAt(s, a.o.From, a.o.Until):
		return ReasonRoleExpired
	case !role.o.Capabilities.Match(capability.String()):
		return ReasonRoleScope
	case !role.o.MaxTier.AtLeast(t):
		return ReasonRoleTier
	}
	return ""
}

// Ceiling returns the capabilities that a principal's roles reach at a time; nil
// when the zone has no roles at all. revoked may be nil.
func (r *Roles) Ceiling(principal fcp.CanonicalID, at time.Time, revoked func(fcp.Hash) bool) *Patterns {
	if r.Empty() {
		return nil
	}
	out := Patterns{}
	s := uint64(max(at.Unix(), 0))
	for _, a := range r.assignments[principal] {
		v := r.byID[a.o.Role]
		if v == nil || revoked != nil && revoked(a.ref) || !activeAt(s, a.o.From, a.o.Until) {
			continue
		}
		if role, _, err := v.Current(); err == nil {
			out = append(out, role.o.Capabilities...)
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	return &out
}
