package authority

import (
	"slices"
	"time"

	"fcp"
)

// ReferenceClaims are the claims of a token in the reference profile (spec/wire.md
// section 6); what is zero is left out. It has no confirmation key, so whoever has
// the token can use it: Decide never takes one. It is for interchange.
type ReferenceClaims struct {
	Issuer, Subject, Audience string
	Expires, NotBefore, At    uint64 // unix seconds; At is iat
	ID                        []byte // cti
	Capability                string
	Zone                      fcp.ZoneID
	Operations                []string
	Principal                 string
	Depth                     uint64
	Parent                    []byte
	Node, Holder              string
	Binary                    fcp.Hash
	Grants                    []fcp.Hash
	Checkpoint                CheckpointRef
	Constraints               Constraints
	Rights                    []Right
	Instance                  string
}

func (r *ReferenceClaims) claims() *claims {
	c := &claims{
		iss: r.Issuer, sub: r.Subject, aud: r.Audience, exp: r.Expires, nbf: r.NotBefore, iat: r.At, cti: r.ID, capability: r.Capability,
		zone: r.Zone, operations: r.Operations, principal: r.Principal, depth: r.Depth, parent: r.Parent, node: r.Node, holder: r.Holder,
		binary: r.Binary, grants: r.Grants, checkpoint: r.Checkpoint.ID, checkpointSeq: r.Checkpoint.Seq, constraints: r.Constraints,
		rights: r.Rights, instance: r.Instance,
	}
	for _, key := range claimOrder {
		there := false
		if text := c.textClaim(key); text != nil {
			there = *text != ""
		} else if number := c.numberClaim(key); number != nil {
			there = *number != 0
		}
		switch key {
		case claimCti:
			there = len(c.cti) > 0
		case claimParent:
			there = len(c.parent) > 0
		case claimZone:
			there = c.zone != ""
		case claimOperations:
			there = len(c.operations) > 0
		case claimBinary:
			there = !c.binary.IsZero()
		case claimGrantRefs:
			there = len(c.grants) > 0
		case claimCheckpoint:
			there = !c.checkpoint.IsZero()
		case claimRights:
			there = len(c.rights) > 0
		case claimConstraints:
			b, err := fcp.Marshal(&c.constraints)
			there = err == nil && len(b) > 1
		}
		if there {
			c.has |= claimBit(key)
		}
	}
	return c
}

// MintReference makes a token in the reference profile, byte for byte, signed by
// the node's issuance key.
func MintReference(node *NodeKeys, r ReferenceClaims) ([]byte, error) {
	payload, err := appendClaims(nil, r.claims())
	if err != nil {
		return nil, err
	}
	if _, err := parseClaims(payload); err != nil {
		return nil, err
	}
	pub := node.Public().Issuance
	s := sign1{protected: protectedHeader(fcp.KidOf(pub[:]), ""), payload: payload}
	s.signature = node.Issue(s.toBeSigned())
	return appendSign1(nil, s), nil
}

// VerifyReference checks a reference token's form and its signature by key, and
// returns its claims. A native token is refused with ReasonCOSETyp. Expiry and
// context are the caller's to check with Check.
func VerifyReference(key IssuancePublic, b []byte) (*ReferenceClaims, error) {
	s, err := parseSign1(b)
	if err != nil {
		return nil, err
	}
	kid, err := s.kid("")
	if err != nil {
		return nil, err
	}
	if kid != fcp.KidOf(key[:]) || !key.Verify(s.toBeSigned(), s.signature) {
		return nil, refuse(ReasonTokenSignature, "reference token")
	}
	c, err := parseClaims(s.payload)
	if err != nil {
		return nil, err
	}
	if c.has&claimBit(claimCnf) != 0 {
		return nil, refuse(ReasonClaimUnknown, "a confirmation key in a reference token")
	}
	return &ReferenceClaims{
		Issuer: c.iss, Subject: c.sub, Audience: c.aud, Expires: c.exp, NotBefore: c.nbf, At: c.iat, ID: c.cti, Capability: c.capability,
		Zone: c.zone, Operations: c.operations, Principal: c.principal, Depth: c.depth, Parent: c.parent, Node: c.node, Holder: c.holder,
		Binary: c.binary, Grants: c.grants, Checkpoint: CheckpointRef{c.checkpoint, c.checkpointSeq}, Constraints: c.constraints, Rights: c.rights,
		Instance: c.instance,
	}, nil
}

// Check refuses, as the reference does, a token outside its time, of another zone,
// or that does not name the operation or the resource: without rights the
// capability's operations count, and without resources every one is meant.
func (r *ReferenceClaims) Check(now time.Time, zone fcp.ZoneID, operation, resource string) error {
	at := now.Unix()
	named := slices.Contains(r.Operations, operation) && r.Capability != ""
	for _, right := range r.Rights {
		named = named || right.Operation == "" || right.Operation == operation
	}
	c := &r.Constraints
	switch {
	case at >= int64(r.Expires):
		return refuse(ReasonTokenExpired, "")
	case at < int64(r.NotBefore):
		return refuse(ReasonTokenEarly, "")
	case r.Zone != zone:
		return refuse(ReasonTokenZone, "")
	case !named:
		return refuse(ReasonOperation, "")
	case len(c.ResourceAllow) > 0 && !matchesPrefix(c.ResourceAllow, resource) || matchesPrefix(c.ResourceDeny, resource):
		return refuse(ReasonResource, "")
	}
	return nil
}
