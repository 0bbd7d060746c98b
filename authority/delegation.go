package authority

import (
	"bytes"
	"slices"
	"time"

	"fcp"
)

// MaxDelegationAge is how long an admin delegation holds at most.
const MaxDelegationAge = 90 * 24 * time.Hour

// Action is something the owner can delegate. Policies, zones, keys and cuts are
// the owner's alone.
type Action string

// The closed set of actions.
const (
	ActionApprove Action = "approve" // sign approval tokens
	ActionAttest  Action = "attest"  // renew attestations of nodes
	ActionGrant   Action = "grant"   // sign capability objects
	ActionRevoke  Action = "revoke"  // revoke what the admin may grant; never cut a feed
	ActionRole    Action = "role"    // assign roles
)

var actions = map[Action]bool{ActionApprove: true, ActionAttest: true, ActionGrant: true, ActionRevoke: true, ActionRole: true}

// Reasons for refusing a delegated signature.
const (
	ReasonNotOwner            fcp.Reason = "delegation.missing"      // neither the owner nor an admin
	ReasonDelegationExpired   fcp.Reason = "delegation.expired"      // signed after its end
	ReasonDelegationFuture    fcp.Reason = "delegation.not_yet"      // signed before it began
	ReasonDelegationScope     fcp.Reason = "delegation.out_of_scope" // another action or zone
	ReasonDelegationWithdrawn fcp.Reason = "delegation.revoked"
)

// DelegationSpec says what an admin delegation is to contain.
type DelegationSpec struct {
	Admin   SigningPublic // the signing key of the admin's node
	Actions []Action      // at least one, strictly ascending
	Zones   Patterns      // at least one; over zone ids
	From    time.Time
	Until   time.Time // at most MaxDelegationAge later
}

// delegationObject is AdminDelegation on the wire.
type delegationObject struct {
	Format    uint64        `cbor:"format"`
	Admin     SigningPublic `cbor:"admin"`
	Actions   []Action      `cbor:"actions"`
	Zones     Patterns      `cbor:"zones"`
	IssuedAt  uint64        `cbor:"issued_at"` // unix seconds
	ExpiresAt uint64        `cbor:"expires_at"`
	Issuer    OwnerPublic   `cbor:"issuer"`
	Signature []byte        `cbor:"signature,omitempty"`
}

// Delegation is a verified admin delegation, made by VerifyDelegation.
type Delegation struct {
	o   delegationObject
	ref fcp.Hash
}

// Spec returns what the delegation says.
func (d *Delegation) Spec() DelegationSpec {
	return DelegationSpec{d.o.Admin, d.o.Actions, d.o.Zones, fromUnix(d.o.IssuedAt), fromUnix(d.o.ExpiresAt)}
}

// Ref returns RefOf the delegation's bytes.
func (d *Delegation) Ref() fcp.Hash { return d.ref }

// SignDelegation returns the owner-signed delegation.
func SignDelegation(owner *OwnerKey, s DelegationSpec) ([]byte, error) {
	from, err := unixSeconds(s.From)
	if err != nil {
		return nil, err
	}
	until, err := unixSeconds(s.Until)
	if err != nil {
		return nil, err
	}
	o := delegationObject{Format: ObjectFormat, Admin: s.Admin, Actions: s.Actions, Zones: s.Zones,
		IssuedAt: from, ExpiresAt: until, Issuer: owner.Public()}
	return signOwned(owner, fcp.SchemaDelegation, &o, &o.Signature)
}

// VerifyDelegation decodes a delegation and checks that owner signed exactly these
// bytes. Errors are those of VerifyZone.
func VerifyDelegation(owner OwnerPublic, b []byte) (*Delegation, error) {
	var o delegationObject
	if err := verifyOwned(fcp.SchemaDelegation, owner, b, &o); err != nil {
		return nil, err
	}
	return &Delegation{o, RefOf(b)}, nil
}

func (o *delegationObject) issuer() OwnerPublic { return o.Issuer }

func (o *delegationObject) check() error {
	if err := checkCommon(fcp.SchemaDelegation, o.Format, o.IssuedAt); err != nil {
		return err
	}
	if err := checkPeriod(fcp.SchemaDelegation, o.IssuedAt, o.ExpiresAt, MaxDelegationAge); err != nil {
		return err
	}
	if len(o.Actions) == 0 || len(o.Zones) == 0 {
		return fcp.Errorf(fcp.CodeMissingField, "a delegation of nothing")
	}
	for i, a := range o.Actions {
		if !actions[a] || i > 0 && o.Actions[i-1] >= a {
			return fcp.Errorf(fcp.CodeMalformed, "a delegation with action %d unknown or out of order", i)
		}
	}
	if bytes.Equal(o.Admin[:], o.Issuer[:]) {
		return fcp.Errorf(fcp.CodeWrongKey, "a delegation of the owner to itself")
	}
	return o.Zones.check("delegation zones")
}

// AdminKey signs what an admin may sign: the owner's key, or the node keys of an
// admin.
type AdminKey interface {
	signer
	adminPublic() OwnerPublic
}

func adminPublic(k AdminKey) OwnerPublic { return k.adminPublic() }

func (k *OwnerKey) adminPublic() OwnerPublic { return k.Public() }
func (k *NodeKeys) adminPublic() OwnerPublic { return OwnerPublic(k.Public().Signing) }

// Authorities answers who may sign what: the owner everything, an admin what a
// delegation says. The state depends only on the set added. Not safe for
// concurrent use with Add.
type Authorities struct {
	Owner OwnerPublic

	delegations []*Delegation
	revoked     func(target fcp.Hash) bool // nil: nothing is
}

// Add takes a delegation in.
func (a *Authorities) Add(d *Delegation) { a.delegations = append(a.delegations, d) }

// RevokedBy makes revoked delegations, named by their Ref, count no more, whenever
// the admin says that it signed.
func (a *Authorities) RevokedBy(is func(target fcp.Hash) bool) { a.revoked = is }

// Permit reports, with a nil error, that issuer may take the action in the zone at
// that time. The owner may always. Otherwise the error is CodeDenied with the
// reason of the delegation that came closest.
func (a *Authorities) Permit(issuer OwnerPublic, action Action, zone fcp.ZoneID, at time.Time) error {
	return a.permit(issuer, action, zone, at, a.revoked)
}

// permitForGood is Permit without regard to withdrawn delegations: it only ever
// permits more as delegations arrive.
func (a *Authorities) permitForGood(issuer OwnerPublic, action Action, zone fcp.ZoneID, at time.Time) error {
	return a.permit(issuer, action, zone, at, nil)
}

func (a *Authorities) permit(issuer OwnerPublic, action Action, zone fcp.ZoneID, at time.Time, revoked func(fcp.Hash) bool) error {
	if issuer == a.Owner {
		return nil
	}
	best := ReasonNotOwner
	for _, d := range a.delegations {
		if OwnerPublic(d.o.Admin) != issuer {
			continue
		}
		reason := d.refuses(revoked, action, zone, at)
		if reason == "" {
			return nil
		}
		if closeness[reason] > closeness[best] {
			best = reason
		}
	}
	return fcp.Errorf(fcp.CodeDenied, "%s of %s by %s: %w", action, zone, fcp.KidOf(issuer[:]), best)
}

// closeness orders the refusals, so that the answer does not depend on the order
// of the delegations.
var closeness = map[fcp.Reason]int{ReasonNotOwner: 0, ReasonDelegationScope: 1, ReasonDelegationFuture: 2,
	ReasonDelegationExpired: 3, ReasonDelegationWithdrawn: 4}

func (d *Delegation) refuses(revoked func(fcp.Hash) bool, action Action, zone fcp.ZoneID, at time.Time) fcp.Reason {
	switch {
	case !slices.Contains(d.o.Actions, action) || !d.o.Zones.Match(string(zone)):
		return ReasonDelegationScope
	case revoked != nil && revoked(d.ref):
		return ReasonDelegationWithdrawn
	case at.Before(fromUnix(d.o.IssuedAt)):
		return ReasonDelegationFuture
	case !at.Before(fromUnix(d.o.ExpiresAt)):
		return ReasonDelegationExpired
	}
	return ""
}
