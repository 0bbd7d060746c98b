package engine

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"fcp"
	"fcp/authority"
)

// Anchor is one signed object that what is permitted in a zone rests on: a trust
// anchor. Signed is what to give to somebody who wants to check it.
type Anchor struct {
	What   string // "genesis", "zone", "policy", "issuers", "delegation", "attestation", "binding", "role" or "assignment"
	Name   string // what it is about: an id, a device, a principal
	Ref    fcp.Hash
	Detail string    // what it says, in short
	From   time.Time // zero: says none
	Until  time.Time // zero: has no end
	State  AnchorState
	Signed []byte

	number uint64                    // of a version; 0 for what has none
	scope  authority.RevocationScope // it is revoked in; "" where only a new version replaces it
}

// AnchorState is where an anchor stands.
type AnchorState string

// The states.
const (
	AnchorActive   AnchorState = "active"
	AnchorEarly    AnchorState = "not yet"
	AnchorExpired  AnchorState = "expired"
	AnchorRevoked  AnchorState = "revoked"
	AnchorReplaced AnchorState = "replaced" // by a newer version
)

// Scope returns the scope in which the owner can revoke it; "" where only a new
// version replaces it.
func (a *Anchor) Scope() authority.RevocationScope { return a.scope }

// Anchors returns every trust anchor of a zone, by kind, name, begin and version,
// those that count no more too. Errors: CodeZone, those of reading.
func (e *Engine) Anchors(zone fcp.ZoneID) ([]Anchor, error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	genesis, err := e.GenesisBytes()
	if err != nil {
		return nil, err
	}
	owner := e.genesis.Owner
	out := []Anchor{{What: "genesis", Name: owner.String(), Ref: e.genesis.ID, Detail: "owner", From: e.genesis.CreatedAt, Signed: genesis}}
	for _, r := range []struct {
		zone       fcp.ZoneID
		projection string
		open       func(body []byte) (Anchor, bool)
	}{
		{zone, projZones, anchorOf(owner, authority.VerifyZone, func(z *authority.Zone) Anchor {
			s := z.Spec()
			return Anchor{What: "zone", Name: string(s.ID), From: z.CreatedAt(), number: z.Number(), Detail: fmt.Sprintf("integrity %d, confidentiality %d", s.Levels.Integrity, s.Levels.Confidentiality)}
		})},
		{zone, projPolicies, anchorOf(owner, authority.VerifyPolicy, func(p *authority.Policy) Anchor {
			return Anchor{What: "policy", Name: string(p.Zone()), From: p.CreatedAt(), number: p.Number()}
		})},
		{zone, projIssuers, anchorOf(owner, authority.VerifyIssuerSet, func(x *authority.IssuerSet) Anchor {
			s := x.Spec()
			return Anchor{What: "issuers", Name: string(s.ID), From: s.From, Until: s.Until, number: s.Version, Detail: issuersText(s.Issuers)}
		})},
		{fcp.ZoneOwner, projDelegations, anchorOf(owner, authority.VerifyDelegation, func(d *authority.Delegation) Anchor {
			s := d.Spec()
			if !s.Zones.Match(string(zone)) {
				return Anchor{}
			}
			return Anchor{What: "delegation", Name: fcp.WriterOf(s.Admin[:]).String(), From: s.From, Until: s.Until,
				Detail: strings.Join(texts(s.Actions), ","), scope: authority.RevokeDelegation}
		})},
		{fcp.ZoneOwner, projAttestations, func(body []byte) (Anchor, bool) {
			u, err := authority.OpenAttestation(body)
			if err != nil {
				return Anchor{}, false
			}
			if _, err := f.authorize(u); err != nil {
				return Anchor{}, false
			}
			return Anchor{What: "attestation", Name: u.Writer().String(), From: u.From(), Until: u.Until(), scope: authority.RevokeAttestation}, true
		}},
		{fcp.ZoneOwner, projBindings, anchorOf(owner, authority.VerifyBinding, func(b *authority.Binding) Anchor {
			s := b.Spec()
			if !slices.Contains(s.Zones, zone) {
				return Anchor{}
			}
			return Anchor{What: "binding", Name: string(s.Principal), From: s.NotBefore, Until: s.NotAfter, Detail: strings.Join(texts(s.Capabilities), ","), scope: authority.RevokeBinding}
		})},
		{zone, projRoles, anchorOf(owner, authority.VerifyRole, func(x *authority.Role) Anchor {
			s := x.Spec()
			return Anchor{What: "role", Name: string(s.ID), number: s.Version, Detail: strings.Join(texts(s.Capabilities), ",") + " up to " + string(s.MaxTier)}
		})},
		{zone, projAssignments, func(body []byte) (Anchor, bool) {
			u, err := authority.OpenAssignment(body)
			if err != nil {
				return Anchor{}, false
			}
			if _, err := u.Authorize(&f.Authorities); err != nil {
				return Anchor{}, false
			}
			s := u.Spec()
			return Anchor{What: "assignment", Name: string(s.Principal), From: s.From, Until: s.Until, Detail: string(s.Role), scope: authority.RevokeRole}, true
		}},
	} {
		from := len(out)
		err := e.records(r.zone, r.projection, func(body []byte) error {
			if a, ok := r.open(body); ok {
				a.Ref, a.Signed = authority.RefOf(body), bytes.Clone(body)
				out = append(out, a)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		slices.SortFunc(out[from:], func(a, b Anchor) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.number, b.number), a.From.Compare(b.From), bytes.Compare(a.Ref[:], b.Ref[:]))
		})
	}
	e.judgeAnchors(f, out)
	return out, nil
}

// judgeAnchors says where each stands now.
func (e *Engine) judgeAnchors(f *ZoneFacts, list []Anchor) {
	now := e.env.Now()
	newest := map[string]uint64{}
	for i := range list {
		key := list[i].What + " " + list[i].Name
		newest[key] = max(newest[key], list[i].number)
	}
	for i := range list {
		a := &list[i]
		switch {
		case f.Revoked(a.Ref, now, a.scope) != nil, a.What == "attestation" && f.Revoked(writerRef(a.Name), now) != nil:
			a.State = AnchorRevoked
		case a.number < newest[a.What+" "+a.Name]:
			a.State = AnchorReplaced
		case !a.From.IsZero() && now.Before(a.From):
			a.State = AnchorEarly
		case !a.Until.IsZero() && !now.Before(a.Until):
			a.State = AnchorExpired
		default:
			a.State = AnchorActive
		}
	}
}

func writerRef(text string) fcp.Hash {
	h, err := fcp.ParseHash(text)
	if err != nil {
		return fcp.Hash{}
	}
	return h
}

// anchorOf adapts a verifier; an Anchor without What is none.
func anchorOf[T any](owner authority.OwnerPublic, verify func(authority.OwnerPublic, []byte) (T, error), as func(T) Anchor) func([]byte) (Anchor, bool) {
	return func(body []byte) (Anchor, bool) {
		v, err := verify(owner, body)
		if err != nil {
			return Anchor{}, false
		}
		a := as(v)
		return a, a.What != ""
	}
}

func issuersText(list []authority.IssuerSpec) string {
	var out []string
	for _, m := range list {
		out = append(out, m.Writer.String()[:16]+": "+strings.Join(texts(m.Allow), ","))
	}
	return strings.Join(out, "; ")
}
