package authority

import (
	"bytes"
	"slices"
	"time"

	"fcp"
)

// MaxIssuers limits the members of an issuer set.
const MaxIssuers = 64

// Reasons for refusing what an issuer set does not let through.
const (
	ReasonIssuerNotInSet   fcp.Reason = "issuer.not_in_set"
	ReasonIssuerCapability fcp.Reason = "issuer.capability_not_allowed" // a member, but not for this capability
	ReasonIssuerThreshold  fcp.Reason = "issuer.threshold"              // too few members
	ReasonIssuerExpired    fcp.Reason = "issuer.set_expired"
	ReasonIssuerFuture     fcp.Reason = "issuer.set_not_yet_valid"
	ReasonIssuerNoSet      fcp.Reason = "issuer.no_set" // the zone has no issuer set
)

// IssuerSpec is one member of an issuer set.
type IssuerSpec struct {
	Writer fcp.WriterID `cbor:"writer"`
	Allow  Patterns     `cbor:"allow"` // capabilities it may issue; at least one
}

// IssuerSetSpec says what an issuer set is to contain.
type IssuerSetSpec struct {
	Zone      fcp.ZoneID
	ID        fcp.CanonicalID // names the set across its versions
	Version   uint64          // the owner's number, from 1
	Prev      fcp.Hash        // RefOf the version before; zero exactly in version 1
	Issuers   []IssuerSpec    // 1 to MaxIssuers, strictly ascending by writer
	Threshold uint8           // members that must sign, 1 to the number of issuers
	From      time.Time
	Until     time.Time // zero: no end
}

// issuerSetObject is IssuerSet on the wire.
type issuerSetObject struct {
	Format    uint64          `cbor:"format"`
	Zone      fcp.ZoneID      `cbor:"zone_id"`
	ID        fcp.CanonicalID `cbor:"issuer_set_id"`
	Version   uint64          `cbor:"version"`
	Prev      []byte          `cbor:"prev,omitempty"`
	Issuers   []IssuerSpec    `cbor:"allowed_issuers"`
	Threshold uint8           `cbor:"threshold"`
	From      uint64          `cbor:"effective_from"` // unix seconds
	Until     uint64          `cbor:"expires_at,omitempty"`
	Issuer    OwnerPublic     `cbor:"issuer"`
	Signature []byte          `cbor:"signature,omitempty"`
}

// IssuerSet is a verified issuer set, made by VerifyIssuerSet.
type IssuerSet struct {
	o   issuerSetObject
	ref fcp.Hash
}

// Spec returns what the set says.
func (s *IssuerSet) Spec() IssuerSetSpec {
	spec := IssuerSetSpec{Zone: s.o.Zone, ID: s.o.ID, Version: s.o.Version, Prev: s.Previous().Ref, Issuers: s.o.Issuers,
		Threshold: s.o.Threshold, From: fromUnix(s.o.From)}
	if s.o.Until != 0 {
		spec.Until = fromUnix(s.o.Until)
	}
	return spec
}

// Number returns the owner's version number.
func (s *IssuerSet) Number() uint64 { return s.o.Version }

// Ref returns RefOf the set's bytes.
func (s *IssuerSet) Ref() fcp.Hash { return s.ref }

// Previous returns the reference to the version before.
func (s *IssuerSet) Previous() Hashref { return hashrefOf(s.o.Prev) }

// SignIssuerSet returns the owner-signed issuer set.
func SignIssuerSet(owner *OwnerKey, s IssuerSetSpec) ([]byte, error) {
	from, err := unixSeconds(s.From)
	if err != nil {
		return nil, err
	}
	o := issuerSetObject{Format: ObjectFormat, Zone: s.Zone, ID: s.ID, Version: s.Version, Prev: optionalHash(s.Prev),
		Issuers: s.Issuers, Threshold: s.Threshold, From: from, Issuer: owner.Public()}
	if !s.Until.IsZero() {
		if o.Until, err = unixSeconds(s.Until); err != nil {
			return nil, err
		}
	}
	return signOwned(owner, fcp.SchemaIssuerSet, &o, &o.Signature)
}

// VerifyIssuerSet decodes an issuer set and checks that owner signed exactly these
// bytes. Errors are those of VerifyZone.
func VerifyIssuerSet(owner OwnerPublic, b []byte) (*IssuerSet, error) {
	var o issuerSetObject
	if err := verifyOwned(fcp.SchemaIssuerSet, owner, b, &o); err != nil {
		return nil, err
	}
	return &IssuerSet{o, RefOf(b)}, nil
}

func (o *issuerSetObject) issuer() OwnerPublic { return o.Issuer }

func (o *issuerSetObject) check() error {
	if err := checkCommon(fcp.SchemaIssuerSet, o.Format, o.From); err != nil {
		return err
	}
	if _, err := fcp.ParseCanonicalID(o.ID.String()); err != nil {
		return fcp.Wrap(fcp.CodeMalformed, err, "issuer set id")
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "issuer set of %.64q", string(o.Zone))
	case o.Version == 0:
		return fcp.Errorf(fcp.CodeMissingField, "issuer set %s without a version", o.ID)
	case o.Version == 1 && o.Prev != nil, o.Version > 1 && len(o.Prev) != fcp.HashSize:
		return fcp.Errorf(fcp.CodeMalformed, "issuer set %s: the previous one does not fit version %d", o.ID, o.Version)
	case len(o.Issuers) == 0 || len(o.Issuers) > MaxIssuers:
		return fcp.Errorf(fcp.CodeMalformed, "issuer set %s with %d members", o.ID, len(o.Issuers))
	case o.Threshold == 0 || int(o.Threshold) > len(o.Issuers):
		return fcp.Errorf(fcp.CodeMalformed, "issuer set %s needs %d of %d members", o.ID, o.Threshold, len(o.Issuers))
	case o.Until != 0 && (o.Until <= o.From || o.Until > maxUnixSeconds):
		return fcp.Errorf(fcp.CodeMalformed, "issuer set %s ends before it begins", o.ID)
	}
	for i, m := range o.Issuers {
		if i > 0 && bytes.Compare(o.Issuers[i-1].Writer[:], m.Writer[:]) >= 0 {
			return fcp.Errorf(fcp.CodeMalformed, "issuer set %s: members are not strictly ascending", o.ID)
		}
		if len(m.Allow) == 0 {
			return fcp.Errorf(fcp.CodeMissingField, "issuer set %s: member %d may issue nothing", o.ID, i)
		}
		if err := m.Allow.check("issuer capabilities"); err != nil {
			return err
		}
	}
	return nil
}

// Permit reports, with a nil error, that these nodes together may issue the
// capability at that time. Whose keys they are is the attestations' question.
// Reasons: ReasonIssuerFuture, ReasonIssuerExpired, ReasonIssuerNotInSet,
// ReasonIssuerCapability, ReasonIssuerThreshold.
func (s *IssuerSet) Permit(capability fcp.CanonicalID, at time.Time, nodes ...fcp.WriterID) error {
	refuse := func(r fcp.Reason) error {
		return fcp.Errorf(fcp.CodeDenied, "issuing %s by issuer set %s of %s: %w", capability, s.o.ID, s.o.Zone, r)
	}
	switch {
	case at.Before(fromUnix(s.o.From)):
		return refuse(ReasonIssuerFuture)
	case s.o.Until != 0 && !at.Before(fromUnix(s.o.Until)):
		return refuse(ReasonIssuerExpired)
	}
	counted := map[fcp.WriterID]bool{}
	for _, w := range nodes {
		i, ok := slices.BinarySearchFunc(s.o.Issuers, w, func(m IssuerSpec, w fcp.WriterID) int { return bytes.Compare(m.Writer[:], w[:]) })
		if !ok {
			return refuse(ReasonIssuerNotInSet)
		}
		if !s.o.Issuers[i].Allow.Match(capability.String()) {
			return refuse(ReasonIssuerCapability)
		}
		counted[w] = true
	}
	if len(counted) < int(s.o.Threshold) {
		return refuse(ReasonIssuerThreshold)
	}
	return nil
}

// IssuerSets are a zone's issuer sets by id, each with all its versions. The zero
// value is empty and ready. Not safe for concurrent use with Add.
type IssuerSets struct {
	byID map[fcp.CanonicalID]*Versions[*IssuerSet]
}

// Add takes a version of a set in.
func (s *IssuerSets) Add(x *IssuerSet) {
	if s.byID == nil {
		s.byID = map[fcp.CanonicalID]*Versions[*IssuerSet]{}
	}
	v := s.byID[x.o.ID]
	if v == nil {
		v = new(Versions[*IssuerSet])
		s.byID[x.o.ID] = v
	}
	v.Add(x)
}

// Permit asks the current version of every set and returns the one that lets the
// issue through. Otherwise the error has the reason of the set that came closest;
// ReasonIssuerNoSet when there is none: no set means that nobody but the owner
// issues.
func (s *IssuerSets) Permit(capability fcp.CanonicalID, at time.Time, nodes ...fcp.WriterID) (*IssuerSet, error) {
	best := error(fcp.Errorf(fcp.CodeDenied, "issuing %s: %w", capability, ReasonIssuerNoSet))
	rank := 0
	for _, id := range s.IDs() {
		set, _, err := s.byID[id].Current()
		if err == nil {
			if err = set.Permit(capability, at, nodes...); err == nil {
				return set, nil
			}
		}
		if r := issuerRank[ReasonOf(err)]; r > rank {
			best, rank = err, r
		}
	}
	return nil, best
}

var issuerRank = map[fcp.Reason]int{ReasonVersionForked: 1, ReasonVersionBroken: 1, ReasonIssuerNotInSet: 2, ReasonIssuerCapability: 3,
	ReasonIssuerThreshold: 4, ReasonIssuerFuture: 5, ReasonIssuerExpired: 6}

// Latest returns the version of a set with the highest number, also of a forked one,
// which a next version settles.
func (s *IssuerSets) Latest(id fcp.CanonicalID) (*IssuerSet, bool) {
	v := s.byID[id]
	if v == nil {
		return nil, false
	}
	set, ok, _ := v.Current()
	return set, ok
}

// IDs returns the ids of the sets, ascending.
func (s *IssuerSets) IDs() []fcp.CanonicalID {
	out := make([]fcp.CanonicalID, 0, len(s.byID))
	for id := range s.byID {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}
