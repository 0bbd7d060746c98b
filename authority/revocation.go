package authority

import (
	"slices"
	"time"

	"fcp"
)

// Cut says up to where one feed stands: the event with number Seq and hash Hash
// is the last one that counts, everything above it is void.
type Cut struct {
	Feed fcp.Feed
	Seq  uint64   // 0 voids the whole feed
	Hash fcp.Hash // of the event Seq; zero exactly when Seq is 0
}

// RevocationScope says what kind of thing a revocation's targets are.
type RevocationScope string

// The closed set of scopes. The first five are the reference's (spec/wire.md
// section 13.2), which writes them in CamelCase.
const (
	RevokeCapability  RevocationScope = "capability"       // ref of a capability object
	RevokeIssuerKey   RevocationScope = "issuer_key"       // the issuance public key: it mints no more
	RevokeAttestation RevocationScope = "node_attestation" // ref of an attestation, or a writer id for all of it
	RevokeZoneKey     RevocationScope = "zone_key"         // KeyID.Hash of a zone key
	RevokeBinary      RevocationScope = "connector_binary" // hash of the binary
	RevokeToken       RevocationScope = "token"            // ref of a token
	RevokeApproval    RevocationScope = "approval"         // ref of an approval
	RevokeBinding     RevocationScope = "binding"          // ref of a principal-device binding
	RevokeDelegation  RevocationScope = "delegation"       // ref of an admin delegation
	RevokeRole        RevocationScope = "role"             // ref of a role assignment
	RevokeDevice      RevocationScope = "device"           // writer id: the device is lost
)

var revocationScopes = map[RevocationScope]string{
	RevokeCapability: "Capability", RevokeIssuerKey: "IssuerKey", RevokeAttestation: "NodeAttestation",
	RevokeZoneKey: "ZoneKey", RevokeBinary: "ConnectorBinary", RevokeToken: "", RevokeApproval: "", RevokeBinding: "",
	RevokeDelegation: "", RevokeRole: "", RevokeDevice: "",
}

// Reference returns the scope's name in the reference profile; "" when it has none.
func (s RevocationScope) Reference() string { return revocationScopes[s] }

// adminMay reports whether an admin with ActionRevoke can revoke targets of the
// scope: what an admin may also grant.
func (s RevocationScope) adminMay() bool {
	return s == RevokeCapability || s == RevokeToken || s == RevokeApproval
}

// Limits of one revocation.
const (
	MaxTargets = 1024
	MaxCuts    = 64
)

// RevocationSpec says what a revocation is to contain: targets, cuts, or both.
type RevocationSpec struct {
	Zone      fcp.ZoneID
	Scope     RevocationScope
	Targets   []fcp.Hash // none twice
	Cuts      []Cut      // of feeds of the zone, none twice; only the owner cuts
	Reason    string     // at most MaxText bytes of printable UTF-8
	Effective time.Time  // zero: when it is signed
	Expires   time.Time  // zero: never. A cut never expires.
}

// revocationObject is RevocationObject on the wire. Format 1 is one cut and
// nothing else.
type revocationObject struct {
	Format    uint64          `cbor:"format"`
	Zone      fcp.ZoneID      `cbor:"zone_id"`
	Feed      *revocationFeed `cbor:"feed,omitempty"` // format 1
	Seq       *uint64         `cbor:"seq,omitempty"`  // format 1
	Hash      *fcp.Hash       `cbor:"hash,omitempty"` // format 1
	Reason    string          `cbor:"reason"`
	IssuedAt  uint64          `cbor:"issued_at"` // unix seconds
	Issuer    OwnerPublic     `cbor:"issuer"`    // in format 2 also an admin with ActionRevoke
	Signature []byte          `cbor:"signature,omitempty"`

	// Format 2.
	Scope     RevocationScope `cbor:"scope,omitempty"`
	Targets   []fcp.Hash      `cbor:"revoked,omitempty"`
	Cuts      []cutObject     `cbor:"cuts,omitempty"`
	Effective uint64          `cbor:"effective_at,omitempty"`
	Expires   uint64          `cbor:"expires_at,omitempty"`
}

const revocationFormat2 = 2

type revocationFeed struct {
	Zone        fcp.ZoneID   `cbor:"zone_id"`
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Plane       uint8        `cbor:"plane"`
}

func feedObject(f fcp.Feed) revocationFeed {
	return revocationFeed{f.Zone, f.Writer, f.Incarnation, uint8(f.Plane)}
}

func (f *revocationFeed) feed() fcp.Feed {
	return fcp.Feed{Zone: f.Zone, Writer: f.Writer, Incarnation: f.Incarnation, Plane: fcp.Plane(f.Plane)}
}

type cutObject struct {
	Feed revocationFeed `cbor:"feed"`
	Seq  uint64         `cbor:"seq"`
	Hash fcp.Hash       `cbor:"hash"`
}

func (c *cutObject) cut() Cut { return Cut{c.Feed.feed(), c.Seq, c.Hash} }

// UnverifiedRevocation is one whose signature fits the issuer it names.
type UnverifiedRevocation struct {
	o   revocationObject
	ref fcp.Hash
}

// Revocation is a verified revocation, made by VerifyRevocation or Authorize.
type Revocation struct {
	UnverifiedRevocation
	admin bool // not the owner's: it counts in its scope only
}

// Issuer returns who signed: the owner, or the signing key of an admin's node.
func (r *UnverifiedRevocation) Issuer() OwnerPublic { return r.o.Issuer }

// Zone returns the zone in which the revocation holds.
func (r *UnverifiedRevocation) Zone() fcp.ZoneID { return r.o.Zone }

// Cuts returns the cuts.
func (r *UnverifiedRevocation) Cuts() []Cut {
	if r.o.Feed != nil {
		return []Cut{{r.o.Feed.feed(), *r.o.Seq, *r.o.Hash}}
	}
	out := make([]Cut, len(r.o.Cuts))
	for i := range r.o.Cuts {
		out[i] = r.o.Cuts[i].cut()
	}
	return out
}

// Scope returns what the targets are; "" when there are only cuts.
func (r *UnverifiedRevocation) Scope() RevocationScope { return r.o.Scope }

// Targets returns what is revoked. The caller must not change the slice.
func (r *UnverifiedRevocation) Targets() []fcp.Hash { return r.o.Targets }

// Reason returns the issuer's words.
func (r *UnverifiedRevocation) Reason() string { return r.o.Reason }

// IssuedAt returns when it was signed, to the second.
func (r *UnverifiedRevocation) IssuedAt() time.Time { return fromUnix(r.o.IssuedAt) }

// Ref returns RefOf the revocation's bytes.
func (r *UnverifiedRevocation) Ref() fcp.Hash { return r.ref }

// ActiveAt reports whether the targets are revoked at a time: from the effective
// second on, and before the expiry if there is one. Cuts are always active.
func (r *UnverifiedRevocation) ActiveAt(at time.Time) bool {
	return activeAt(uint64(max(at.Unix(), 0)), r.o.Effective, r.o.Expires)
}

func activeAt(at, effective, expires uint64) bool {
	return effective <= at && (expires == 0 || at < expires)
}

// SignRevocation returns the owner-signed revocation of everything above cut, in
// the cut's zone. reason is at most MaxText bytes of printable UTF-8.
func SignRevocation(now time.Time, owner *OwnerKey, cut Cut, reason string) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	feed := feedObject(cut.Feed)
	o := revocationObject{Format: ObjectFormat, Zone: cut.Feed.Zone, Feed: &feed, Seq: &cut.Seq, Hash: &cut.Hash,
		Reason: reason, IssuedAt: at, Issuer: owner.Public()}
	return signOwned(owner, fcp.SchemaRevocation, &o, &o.Signature)
}

// Revoke returns the signed revocation. An admin's needs a delegation with
// ActionRevoke, and cuts nothing.
func Revoke(now time.Time, key AdminKey, s RevocationSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	targets, cuts := slices.Clone(s.Targets), slices.Clone(s.Cuts)
	slices.SortFunc(targets, compareHash)
	slices.SortFunc(cuts, func(a, b Cut) int { return compareFeeds(a.Feed, b.Feed) })
	o := revocationObject{Format: revocationFormat2, Zone: s.Zone, Scope: s.Scope, Targets: targets, Reason: s.Reason,
		IssuedAt: at, Issuer: adminPublic(key), Effective: at}
	for _, c := range cuts {
		o.Cuts = append(o.Cuts, cutObject{feedObject(c.Feed), c.Seq, c.Hash})
	}
	if !s.Effective.IsZero() {
		if o.Effective, err = unixSeconds(s.Effective); err != nil {
			return nil, err
		}
	}
	if !s.Expires.IsZero() {
		if o.Expires, err = unixSeconds(s.Expires); err != nil {
			return nil, err
		}
	}
	return signOwned(key, fcp.SchemaRevocation, &o, &o.Signature)
}

// VerifyRevocation decodes a revocation and checks that owner signed exactly
// these bytes. Errors: CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion,
// CodeZone, CodeWrongKey for another issuer, CodeSignature.
func VerifyRevocation(owner OwnerPublic, b []byte) (*Revocation, error) {
	var o revocationObject
	if err := verifyOwned(fcp.SchemaRevocation, owner, b, &o); err != nil {
		return nil, err
	}
	return &Revocation{UnverifiedRevocation: UnverifiedRevocation{o, RefOf(b)}}, nil
}

// OpenRevocation decodes a revocation, checks the signature of the issuer it names
// and, unless that is owner, that an admin can sign such a thing at all: whether the
// issuer is one, Authorize says. Errors are those of VerifyRevocation, and CodeDenied
// with ReasonAdminCut or ReasonAdminScope.
func OpenRevocation(owner OwnerPublic, b []byte) (*UnverifiedRevocation, error) {
	var o revocationObject
	if err := verifyNamed(fcp.SchemaRevocation, b, &o); err != nil {
		return nil, err
	}
	if o.Issuer != owner {
		switch {
		case o.Feed != nil || len(o.Cuts) > 0:
			return nil, fcp.Errorf(fcp.CodeDenied, "revocation in %s: %w", o.Zone, ReasonAdminCut)
		case !o.Scope.adminMay():
			return nil, fcp.Errorf(fcp.CodeDenied, "revocation of a %s in %s: %w", o.Scope, o.Zone, ReasonAdminScope)
		}
	}
	return &UnverifiedRevocation{o, RefOf(b)}, nil
}

// Reasons for refusing an admin's revocation.
const (
	ReasonAdminCut   fcp.Reason = "revocation.admin_cuts"         // only the owner cuts a feed
	ReasonAdminScope fcp.Reason = "revocation.admin_out_of_scope" // of something that admins do not grant
)

// Authorize checks that the issuer had the right when it says that it signed. What an
// admin revoked stays revoked after the owner withdrew the admin: withdrawing must
// not bring anything back. What a thief revokes with an admin's key goes with the cut
// of the device's feeds.
func (r *UnverifiedRevocation) Authorize(a *Authorities) (*Revocation, error) {
	if err := a.permitForGood(r.o.Issuer, ActionRevoke, r.o.Zone, r.IssuedAt()); err != nil {
		return nil, err
	}
	return &Revocation{*r, r.o.Issuer != a.Owner}, nil
}

func (o *revocationObject) issuer() OwnerPublic { return o.Issuer }

func (o *revocationObject) check() error {
	format := uint64(revocationFormat2)
	if o.Feed != nil {
		format = ObjectFormat
	}
	if err := checkFormat(fcp.SchemaRevocation, o.Format, format, o.IssuedAt); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "revocation in zone %.64q", string(o.Zone))
	case !printable(o.Reason):
		return fcp.Errorf(fcp.CodeInvalidArgument, "the reason is not at most %d bytes of printable UTF-8", MaxText)
	case format == revocationFormat2:
		return o.check2()
	case o.Seq == nil || o.Hash == nil:
		return fcp.Errorf(fcp.CodeMissingField, "a cut without its event")
	case o.Scope != "" || o.Targets != nil || o.Cuts != nil || o.Effective != 0 || o.Expires != 0:
		return fcp.Errorf(fcp.CodeVersion, "a revocation of format 1 with fields of format 2")
	}
	return checkCut(o.Zone, Cut{o.Feed.feed(), *o.Seq, *o.Hash})
}

func (o *revocationObject) check2() error {
	switch {
	case o.Seq != nil || o.Hash != nil:
		return fcp.Errorf(fcp.CodeVersion, "a revocation of format 2 with fields of format 1")
	case len(o.Targets) == 0 && len(o.Cuts) == 0:
		return fcp.Errorf(fcp.CodeMissingField, "a revocation of nothing")
	case (o.Scope == "") != (len(o.Targets) == 0):
		return fcp.Errorf(fcp.CodeMissingField, "a revocation's scope and targets go together")
	case len(o.Targets) > MaxTargets || len(o.Cuts) > MaxCuts:
		return fcp.Errorf(fcp.CodeTooLarge, "a revocation of %d targets and %d cuts", len(o.Targets), len(o.Cuts))
	case o.Effective == 0 || o.Effective > maxUnixSeconds:
		return fcp.Errorf(fcp.CodeMissingField, "a revocation without the second from which it holds")
	case o.Expires != 0 && (o.Expires <= o.Effective || o.Expires > maxUnixSeconds):
		return fcp.Errorf(fcp.CodeMalformed, "a revocation that ends before it begins")
	}
	if _, ok := revocationScopes[o.Scope]; !ok && o.Scope != "" {
		return fcp.Errorf(fcp.CodeMalformed, "a revocation of an unknown scope")
	}
	for i := 1; i < len(o.Targets); i++ {
		if compareHash(o.Targets[i-1], o.Targets[i]) >= 0 {
			return fcp.Errorf(fcp.CodeMalformed, "a revocation's targets are not strictly ascending")
		}
	}
	for i := range o.Cuts {
		c := o.Cuts[i].cut()
		if err := checkCut(o.Zone, c); err != nil {
			return err
		}
		if i > 0 && compareFeeds(o.Cuts[i-1].Feed.feed(), c.Feed) >= 0 {
			return fcp.Errorf(fcp.CodeMalformed, "a revocation's cuts are not strictly ascending by feed id")
		}
	}
	return nil
}

func checkCut(zone fcp.ZoneID, c Cut) error {
	switch {
	case c.Feed.Zone != zone:
		return fcp.Errorf(fcp.CodeZone, "a revocation in %s cannot cut a feed of %.64q", zone, string(c.Feed.Zone))
	case !c.Feed.Plane.Chained():
		return fcp.Errorf(fcp.CodeInvalidArgument, "plane %d has no chain to cut", c.Feed.Plane)
	case (c.Seq == 0) != c.Hash.IsZero():
		return fcp.Errorf(fcp.CodeInvalidArgument, "a cut at 0 has no hash, and any other has one")
	}
	return nil
}
