// Package catalog makes one example of every signed or structured object of the
// product, always the same bytes: keys come from fixed seeds and the clock
// stands. The vectors are made of it and the CDDL is held against it.
package catalog

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// Now is the time of every example.
var Now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// Random returns the repeatable bytes of a seed.
func Random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// Bytes returns n repeatable bytes.
func Bytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1: seed}).Read(b) // never fails
	return b
}

// Object is one example.
type Object struct {
	Name     string
	Schema   string // of the payload; "" for a bare CBOR item
	Rule     string // CDDL rule, for an item without a schema
	Bytes    []byte // schema hash and body, or the item
	ObjectID *fcp.ObjectID
}

// Body returns the CBOR item.
func (o *Object) Body() []byte {
	if o.Schema == "" {
		return o.Bytes
	}
	return o.Bytes[fcp.HashSize:]
}

// Catalog is the examples and what they were made with.
type Catalog struct {
	Owner     *authority.OwnerKey
	Recovery  *authority.RecoveryKey
	Node      *authority.NodeKeys // of the genesis; it executes and mints
	Second    *authority.NodeKeys // enrolled; it holds tokens
	Holder    *authority.HolderKey
	Keys      *authority.ZoneKeys
	Genesis   *authority.Genesis
	Manifest  []byte // zone key manifest whose boxes Second and the owner open
	Token     []byte
	Chain     *authority.Chain
	Grant     *authority.Grant
	Reference []byte

	Objects []Object
	err     error
}

// New makes the catalog.
func New() (*Catalog, error) {
	c := &Catalog{}
	for _, step := range []func(*Catalog){(*Catalog).keys, (*Catalog).zones, (*Catalog).revocations, (*Catalog).delegations,
		(*Catalog).checkpoints, (*Catalog).audit, (*Catalog).tokens, (*Catalog).approvals, (*Catalog).unsigned, (*Catalog).core,
		(*Catalog).leases, (*Catalog).secrets} {
		if step(c); c.err != nil {
			return nil, c.err
		}
	}
	return c, nil
}

// Find returns the example of a name.
func (c *Catalog) Find(name string) *Object {
	for i := range c.Objects {
		if c.Objects[i].Name == name {
			return &c.Objects[i]
		}
	}
	return nil
}

// add keeps an example with the schema that its first 32 bytes name.
func (c *Catalog) add(name string, schema fcp.Schema, b []byte, err error) {
	if c.err != nil {
		return
	}
	if c.err = fcp.Wrap(fcp.CodeInternal, err, "the example %s", name); err == nil {
		c.Objects = append(c.Objects, Object{Name: name, Schema: schema.String(), Bytes: b})
	}
}

// item keeps an example without a schema.
func (c *Catalog) item(name, rule string, b []byte, err error) {
	if c.err != nil {
		return
	}
	if c.err = fcp.Wrap(fcp.CodeInternal, err, "the example %s", name); err == nil {
		c.Objects = append(c.Objects, Object{Name: name, Rule: rule, Bytes: b})
	}
}

// take keeps a value, or the error.
func take[T any](c *Catalog, v T, err error) T {
	if c.err == nil {
		c.err = err
	}
	return v
}

func sorted(refs ...fcp.Hash) []fcp.Hash {
	slices.SortFunc(refs, func(a, b fcp.Hash) int { return bytes.Compare(a[:], b[:]) })
	return refs
}

func (c *Catalog) keys() {
	o, err := authority.NewOwnerKey(Random(1))
	c.Owner = take(c, o, err)
	n, err := authority.NewNodeKeys(Random(2))
	c.Node = take(c, n, err)
	s, err := authority.NewNodeKeys(Random(3))
	c.Second = take(c, s, err)
	h, err := authority.NewHolderKey(Random(4))
	c.Holder = take(c, h, err)
	k, err := authority.NewZoneKeys(Random(5), fcp.ZoneWork)
	c.Keys = take(c, k, err)
	if c.err != nil {
		return
	}
	r, err := c.Owner.Recovery()
	c.Recovery = take(c, r, err)
	g, err := authority.MakeGenesis(Random(6), Now, c.Owner, c.Node, authority.StandardGenesisZones())
	if c.Genesis = take(c, g, err); c.err == nil {
		c.add("genesis", fcp.SchemaZoneCheckpoint, g.Bytes, nil)
	}
}

func (c *Catalog) zones() {
	spec := authority.ZoneSpec{ID: fcp.ZoneWork, Name: "Work", Levels: fcp.Levels{Integrity: 60, Confidentiality: 70}, Version: 1}
	b, err := authority.SignZone(Now, c.Owner, spec)
	c.add("zone", fcp.SchemaZoneDefinition, b, err)
	spec = authority.ZoneSpec{ID: "z:work:mail", Name: "Mail", Levels: fcp.Levels{Integrity: 50, Confidentiality: 70}, Parent: fcp.ZoneWork, Version: 2,
		Prev: authority.RefOf(b), Policy: fcp.Hash{9}, SymbolPort: 4100, ControlPort: 4101, Transport: authority.Transport{DERP: true}, KEM: authority.KEMHybrid}
	b, err = authority.SignZone(Now, c.Owner, spec)
	c.add("zone-format-2", fcp.SchemaZoneDefinition, b, err)

	b, err = authority.SealManifest(Random(10), Now, c.Owner, c.Keys, authority.ManifestSpec{Version: 1, Recovery: c.Recovery.Public(),
		Recipients: []authority.Recipient{c.Second.Public().Recipient()}})
	c.add("manifest", fcp.SchemaZoneKeyManifest, b, err)
	c.Manifest = b
	next, err := c.Keys.Rotate(Random(11), authority.RotateMemberRemoved)
	if take(c, next, err); c.err != nil {
		return
	}
	b, err = authority.SealManifest(Random(12), Now, c.Owner, next, authority.ManifestSpec{Version: 2, Prev: c.Keys.IDs().Zone,
		Recovery: c.Recovery.Public(), Reason: authority.RotateMemberRemoved})
	c.add("manifest-format-2", fcp.SchemaZoneKeyManifest, b, err)

	d := authority.DeviceSpec{Node: c.Second.Public(), Name: "laptop"}
	b, err = authority.SignDevice(Now, c.Owner, d)
	c.add("device", fcp.SchemaDeviceEnrollment, b, err)
	hybrid, err := c.Second.Hybrid()
	d.Hybrid, d.Tags = take(c, hybrid, err), []string{"laptop", "travels"}
	b, err = authority.SignDevice(Now, c.Owner, d)
	c.add("device-format-2", fcp.SchemaDeviceEnrollment, b, err)

	b, err = authority.SignPolicy(Now, c.Owner, authority.PolicySpec{Zone: fcp.ZoneWork, Version: 1})
	c.add("policy-empty", fcp.SchemaZonePolicy, b, err)
	b, err = authority.SignPolicy(Now, c.Owner, authority.PolicySpec{Zone: fcp.ZoneWork, Version: 2, Prev: authority.RefOf(b), Restores: 1,
		PolicyRules: authority.PolicyRules{
			Principals:     authority.Lists{Allow: authority.Patterns{"user:*"}, Deny: authority.Patterns{"user:eve"}},
			Connectors:     authority.Lists{Allow: authority.Patterns{"fcp.*"}, Deny: authority.Patterns{"shell:*"}},
			Capabilities:   authority.Lists{Allow: authority.Patterns{"mail.*"}, Deny: authority.Patterns{"mail.purge"}},
			PrincipalRules: []authority.PrincipalRule{{Principal: "user:guest*", MaxTier: authority.TierSafe}},
			FlowRules:      []authority.FlowRule{{From: "z:work", To: "z:public", Forbid: true}},
			MaxAge:         600 * time.Second, DegradedMode: true, RiskyOverride: true, MaxFaults: 1, DegradedMinNodes: 2,
		}})
	c.add("policy", fcp.SchemaZonePolicy, b, err)
	b, err = authority.SignPolicy(Now, c.Owner, authority.PolicySpec{Zone: fcp.ZoneWork, Version: 3, Prev: authority.RefOf(b),
		PolicyRules: authority.PolicyRules{Placement: &authority.PlacementRules{Need: 2, Of: 5, MinNodes: 6, MaxFractionBPS: 3000, TargetCoverageBPS: 30000,
			Domains: 1, MinSources: 2, LowMark: 4, ControlCopies: 4, Preferred: []string{"class:nas"},
			Excluded: []string{"class:phone", authority.SelectDevice + c.Second.Writer().String()}}}})
	c.add("policy-format-2", fcp.SchemaZonePolicy, b, err)
}

// Feed is the feed that the examples speak of: one of Node.
func (c *Catalog) Feed() fcp.Feed {
	return fcp.Feed{Zone: fcp.ZoneWork, Writer: c.Node.Writer(), Incarnation: 7, Plane: fcp.PlaneControl}
}

func (c *Catalog) revocations() {
	cut := authority.Cut{Feed: c.Feed(), Seq: 5, Hash: fcp.Hash{1}}
	b, err := authority.SignRevocation(Now, c.Owner, cut, "stolen")
	c.add("revocation-cut", fcp.SchemaRevocation, b, err)
	b, err = authority.Revoke(Now, c.Owner, authority.RevocationSpec{Zone: fcp.ZoneWork, Scope: authority.RevokeToken,
		Targets: sorted(fcp.Hash{7}, fcp.Hash{3}), Cuts: []authority.Cut{cut}, Reason: "lost", Effective: Now.Add(time.Minute), Expires: Now.Add(time.Hour)})
	c.add("revocation", fcp.SchemaRevocation, b, err)
	b, err = authority.Revoke(Now, c.Owner, authority.RevocationSpec{Zone: fcp.ZoneWork, Scope: authority.RevokeCapability, Targets: []fcp.Hash{{7}}})
	c.add("revocation-small", fcp.SchemaRevocation, b, err)
}

func (c *Catalog) delegations() {
	b, err := authority.SignAttestation(c.Owner, authority.AttestationSpec{Node: c.Node.Public(), Tags: []string{"home"}, From: Now, Until: Now.Add(24 * time.Hour)})
	c.add("attestation", fcp.SchemaAttestation, b, err)
	b, err = authority.SignDelegation(c.Owner, authority.DelegationSpec{Admin: c.Second.Public().Signing,
		Actions: []authority.Action{authority.ActionApprove, authority.ActionGrant}, Zones: authority.Patterns{"z:work*"}, From: Now, Until: Now.Add(time.Hour)})
	c.add("delegation", fcp.SchemaDelegation, b, err)
	set := authority.IssuerSetSpec{Zone: fcp.ZoneWork, ID: "issuers:main", Version: 1, Threshold: 1, From: Now,
		Issuers: []authority.IssuerSpec{{Writer: c.Node.Writer(), Allow: authority.Patterns{"mail.*"}}}}
	b, err = authority.SignIssuerSet(c.Owner, set)
	c.add("issuer-set", fcp.SchemaIssuerSet, b, err)
	set.Version, set.Prev, set.Until = 2, authority.RefOf(b), Now.Add(time.Hour)
	b, err = authority.SignIssuerSet(c.Owner, set)
	c.add("issuer-set-2", fcp.SchemaIssuerSet, b, err)
	role := authority.RoleSpec{Zone: fcp.ZoneWork, ID: "role:reader", Version: 1, Capabilities: authority.Patterns{"mail.read"}, MaxTier: authority.TierSafe}
	b, err = authority.SignRole(Now, c.Owner, role)
	c.add("role", fcp.SchemaRole, b, err)
	role.Version, role.Prev = 2, authority.RefOf(b)
	b, err = authority.SignRole(Now, c.Owner, role)
	c.add("role-2", fcp.SchemaRole, b, err)
	as := authority.AssignmentSpec{Zone: fcp.ZoneWork, Role: "role:reader", Principal: "user:alice", From: Now}
	b, err = authority.SignAssignment(c.Owner, as)
	c.add("role-assignment-open", fcp.SchemaRoleAssignment, b, err)
	as.Until = Now.Add(time.Hour)
	b, err = authority.SignAssignment(c.Owner, as)
	c.add("role-assignment", fcp.SchemaRoleAssignment, b, err)
}

func (c *Catalog) checkpoints() {
	b, err := authority.SignCheckpoint(Now, c.Owner, authority.CheckpointSpec{Zone: fcp.ZoneWork, Seq: 1, Previous: c.Genesis.Facts.ID, Root: fcp.Hash{2},
		Feeds:     []authority.CheckpointFeed{{Writer: c.Node.Writer(), Incarnation: 7, Plane: 1, Seq: 12, Hash: fcp.Hash{3}}},
		Retention: authority.DefaultRetention(), Pins: []fcp.ObjectID{{4}}})
	c.add("owner-checkpoint", fcp.SchemaZoneCheckpoint, b, err)
	members := []authority.Member{authority.MemberOf(c.Node.Public()), authority.MemberOf(c.Second.Public())}
	authority.SortMembers(members)
	spec := authority.ZoneCheckpointSpec{Zone: fcp.ZoneWork, Seq: 1, Prev: c.Genesis.Facts.ID, Revocations: authority.RevocationHead{}, Members: members,
		Epoch: uint64(Now.Unix()) / 300, At: Now}
	z, err := authority.NewZoneCheckpoint(spec)
	if take(c, z, err); c.err != nil {
		return
	}
	b, err = z.SignOwner(c.Owner).Encode()
	c.add("zone-checkpoint-owner", fcp.SchemaZoneCheckpoint, b, err)
	spec.Seq, spec.Prev, spec.MaxFaults = 2, z.Ref(), 0
	spec.AuditSeq, spec.AuditHead = authority.AuditFrontier([]authority.FeedHead{{Feed: c.Feed().ID(), Seq: 12, Hash: fcp.Hash{3}}})
	spec.Definition = authority.VersionRef{Ref: fcp.Hash{5}, Version: 1}
	spec.Policy = authority.VersionRef{Ref: fcp.Hash{6}, Version: 2}
	spec.Manifest = authority.VersionRef{Ref: fcp.Hash{7}, Version: 3}
	z, err = authority.NewZoneCheckpoint(spec)
	if take(c, z, err); c.err != nil {
		return
	}
	one, err := z.Sign(c.Node, Now)
	if take(c, one, err); c.err != nil {
		return
	}
	two, err := one.Sign(c.Second, Now.Add(time.Second))
	if take(c, two, err); c.err != nil {
		return
	}
	b, err = two.Encode()
	c.add("zone-checkpoint", fcp.SchemaZoneCheckpoint, b, err)
}
