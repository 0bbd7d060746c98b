package engine

import (
	"context"
	"slices"
	"strings"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// The owner's and the admins' acts. Each signs an object, appends it, and where the
// design asks for one leaves an audit entry in this device's feed.

// DefineZone appends the definition of a zone. A zone that is not here yet gets
// keys, sealed to this node and the owner; Enroll with Zones lets others in. A new
// version of a known zone takes its number and predecessor from what is in force;
// spec.Version and spec.Prev are ignored. Errors: CodeWrongKey for another owner,
// CodeInvalidArgument for levels above the parent's, CodeZone for a parent that is
// not here.
func (e *Engine) DefineZone(ctx context.Context, owner *authority.OwnerKey, spec authority.ZoneSpec) error {
	if err := e.genesis.CheckOwner(owner.Public()); err != nil {
		return err
	}
	_, known := e.fold.zoneNumber(spec.ID)
	spec.Version, spec.Prev = 1, fcp.Hash{}
	if known {
		f, err := e.ZoneFacts(spec.ID)
		if err != nil {
			return err
		}
		if z, ok, _ := f.Definitions.Current(); ok { // also over a fork, which this settles
			spec.Version, spec.Prev = z.Number()+1, z.Ref()
		}
		if f.Policy != nil {
			spec.Policy = f.Policy.Ref()
		}
	}
	body, err := authority.SignZone(e.env.Now(), owner, spec)
	if err != nil {
		return err
	}
	if err := e.checkParent(owner.Public(), spec, body); err != nil {
		return err
	}
	if known {
		_, err = e.AppendSigned(ctx, spec.ID, fcp.KindZoneDefined, body)
		return err
	}
	return e.foundZone(ctx, owner, spec, body)
}

func (e *Engine) checkParent(owner authority.OwnerPublic, spec authority.ZoneSpec, body []byte) error {
	if spec.Parent == "" {
		return nil
	}
	parent, err := e.ZoneFacts(spec.Parent)
	if err != nil {
		return err
	}
	if parent.Definition == nil {
		return fcp.Errorf(fcp.CodeZone, "the parent %s has no definition", spec.Parent)
	}
	z, err := authority.VerifyZone(owner, body)
	if err != nil {
		return err
	}
	return z.CheckParent(parent.Definition)
}

// foundZone appends the first events of a zone in one step, as Init does.
func (e *Engine) foundZone(ctx context.Context, owner *authority.OwnerKey, spec authority.ZoneSpec, definition []byte) error {
	if !spec.ID.Valid() {
		return fcp.Errorf(fcp.CodeZone, "%.80q", spec.ID.String())
	}
	keys, err := authority.NewZoneKeys(e.env.Rand, spec.ID)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	hybrid, err := e.node.Hybrid()
	if err != nil {
		return err
	}
	manifest, err := authority.SealManifest(e.env.Rand, e.env.Now(), owner, keys, authority.ManifestSpec{Version: 1, Recovery: e.genesis.Recovery,
		Recipients: []authority.Recipient{e.node.Public().Recipient().WithHybrid(hybrid)}, KEM: spec.KEM})
	if err != nil {
		return err
	}
	genesis, err := e.GenesisBytes()
	if err != nil {
		return err
	}
	draft := func(kind fcp.Kind, schema fcp.Schema, body []byte) log.Draft {
		return log.Draft{Zone: spec.ID, Plane: fcp.PlaneControl, Under: e.genesis.ID,
			Content: fcp.Content{Kind: kind, Object: objectIDOf(keys, schema, body), Body: body}}
	}
	first := draft(fcp.KindCheckpointSigned, fcp.SchemaZoneCheckpoint, genesis)
	first.Content.Object = fcp.ObjectID(e.genesis.ID)
	_, err = e.log.Append(ctx, []log.Draft{first, draft(fcp.KindZoneDefined, fcp.SchemaZoneDefinition, definition),
		draft(fcp.KindZoneKeyManifest, fcp.SchemaZoneKeyManifest, manifest)})
	return err
}

// SetPolicy puts the rules in force as the next version of the zone's policy. It
// also settles a fork of policies.
func (e *Engine) SetPolicy(ctx context.Context, owner *authority.OwnerKey, zone fcp.ZoneID, rules authority.PolicyRules) (*authority.Policy, error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	spec, err := f.Policies.Next(zone, rules)
	if err != nil {
		return nil, err
	}
	return e.setPolicy(ctx, owner, spec)
}

// RollbackPolicy puts the rules of an earlier version in force again, as a new
// version. CodeNotFound when this node does not have that version.
func (e *Engine) RollbackPolicy(ctx context.Context, owner *authority.OwnerKey, zone fcp.ZoneID, version uint64) (*authority.Policy, error) {
	f, err := e.ZoneFacts(zone)
	if err != nil {
		return nil, err
	}
	spec, err := f.Policies.Rollback(zone, version)
	if err != nil {
		return nil, err
	}
	return e.setPolicy(ctx, owner, spec)
}

func (e *Engine) setPolicy(ctx context.Context, owner *authority.OwnerKey, spec authority.PolicySpec) (*authority.Policy, error) {
	body, err := authority.SignPolicy(e.env.Now(), owner, spec)
	if err != nil {
		return nil, err
	}
	p, err := authority.VerifyPolicy(e.genesis.Owner, body)
	if err != nil {
		return nil, err
	}
	if _, err := e.AppendSigned(ctx, spec.Zone, fcp.KindPolicySet, body); err != nil {
		return nil, err
	}
	return p, e.noteAct(ctx, spec.Zone, authority.AuditPolicyChanged, p.Ref())
}

// Attest appends an attestation of a node's keys, signed by the owner or by an
// admin with authority.ActionAttest.
func (e *Engine) Attest(ctx context.Context, by authority.AdminKey, spec authority.AttestationSpec) error {
	body, err := authority.SignAttestation(by, spec)
	if err != nil {
		return err
	}
	u, err := authority.OpenAttestation(body)
	if err != nil {
		return err
	}
	f, err := e.ZoneFacts(fcp.ZoneOwner)
	if err != nil {
		return err
	}
	if _, err := f.authorize(u); err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, fcp.ZoneOwner, fcp.KindAttestationIssued, body)
	return err
}

// Delegate appends an admin delegation.
func (e *Engine) Delegate(ctx context.Context, owner *authority.OwnerKey, spec authority.DelegationSpec) error {
	body, err := authority.SignDelegation(owner, spec)
	if err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, fcp.ZoneOwner, fcp.KindDelegationIssued, body)
	return err
}

// DefineIssuers puts an issuer set in force: as its next version, or its first.
// spec.Version and spec.Prev are ignored.
func (e *Engine) DefineIssuers(ctx context.Context, owner *authority.OwnerKey, spec authority.IssuerSetSpec) error {
	f, err := e.ZoneFacts(spec.Zone)
	if err != nil {
		return err
	}
	spec.Version, spec.Prev = 1, fcp.Hash{}
	if old, ok := f.Issuers.Latest(spec.ID); ok {
		spec.Version, spec.Prev = old.Number()+1, old.Ref()
	}
	body, err := authority.SignIssuerSet(owner, spec)
	if err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, spec.Zone, fcp.KindIssuersSet, body)
	return err
}

// BindPrincipal appends the owner's binding of a principal to devices.
func (e *Engine) BindPrincipal(ctx context.Context, owner *authority.OwnerKey, spec authority.BindingSpec) error {
	body, err := authority.SignBinding(e.env.Now(), owner, spec)
	if err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, fcp.ZoneOwner, fcp.KindPrincipalBound, body)
	return err
}

// Grant appends a capability object, signed by the owner or by an admin with
// authority.ActionGrant, and returns it.
func (e *Engine) Grant(ctx context.Context, by authority.AdminKey, spec authority.GrantSpec) (*authority.Grant, error) {
	body, err := authority.SignGrant(e.env.Now(), by, spec)
	if err != nil {
		return nil, err
	}
	g, err := authority.VerifyGrant(body)
	if err != nil {
		return nil, err
	}
	f, err := e.ZoneFacts(spec.Zone)
	if err != nil {
		return nil, err
	}
	if err := f.Authorities.Permit(g.Issuer(), authority.ActionGrant, spec.Zone, g.IssuedAt()); err != nil {
		return nil, err
	}
	_, err = e.AppendSigned(ctx, spec.Zone, fcp.KindCapabilityGranted, body)
	return g, err
}

// MintToken signs a token with this node's issuance key.
func (e *Engine) MintToken(spec authority.TokenSpec) ([]byte, error) {
	return authority.MintToken(e.env.Rand, e.env.Now(), e.node, spec)
}

// Revoke appends a revocation, signed by the owner or, without cuts and of what an
// admin may grant, by an admin with authority.ActionRevoke, and an audit entry.
func (e *Engine) Revoke(ctx context.Context, by authority.AdminKey, spec authority.RevocationSpec) (*authority.Revocation, error) {
	body, err := authority.Revoke(e.env.Now(), by, spec)
	if err != nil {
		return nil, err
	}
	u, err := authority.OpenRevocation(e.genesis.Owner, body)
	if err != nil {
		return nil, err
	}
	f, err := e.ZoneFacts(spec.Zone)
	if err != nil {
		return nil, err
	}
	r, err := u.Authorize(&f.Authorities)
	if err != nil {
		return nil, err
	}
	if _, err := e.AppendSigned(ctx, spec.Zone, fcp.KindRevocationIssued, body); err != nil {
		return nil, err
	}
	return r, e.noteAct(ctx, spec.Zone, authority.AuditRevocation, r.Ref())
}

// RotateZoneKey makes new keys for a zone and seals them to the members that hold
// it and are not revoked; nobody else gets them. A routine rotation keeps the
// object-id key. Older keys stay with who has them: they open the past.
func (e *Engine) RotateZoneKey(ctx context.Context, owner *authority.OwnerKey, zone fcp.ZoneID, why authority.RotationReason) error {
	z := e.ring.Load().zones[zone]
	if z == nil {
		return e.unknownZone(zone)
	}
	keys, err := z.current().Rotate(e.env.Rand, why)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	m, err := e.sealKeys(ctx, owner, zone, fcp.WriterID{}, []*authority.ZoneKeys{keys}, why)
	if err != nil {
		return err
	}
	return e.noteAct(ctx, zone, authority.AuditKeyRotated, authority.RefOf(m[0]))
}

// LossReport says what DeviceLost did.
type LossReport struct {
	Device  fcp.WriterID
	Name    string
	Zones   []fcp.ZoneID // whose keys were rotated
	Revoked []fcp.Hash   // refs of the revocations
	Feeds   int          // cut, where they stand here
}

// DeviceLost takes a device out: in each zone it revokes the device and cuts every
// feed of it at the last event that is here, so that its honest past stays valid
// and nothing that a finder writes counts; then it rotates every zone key the
// device had. A step that fails can be repeated. Errors: CodeNotFound for a device
// that was never enrolled; CodeInvalidArgument for this device itself.
func (e *Engine) DeviceLost(ctx context.Context, owner *authority.OwnerKey, device fcp.WriterID, reason string) (r LossReport, err error) {
	if err := e.genesis.CheckOwner(owner.Public()); err != nil {
		return r, err
	}
	if device == e.node.Writer() {
		return r, fcp.Errorf(fcp.CodeInvalidArgument, "this device cannot declare itself lost").
			WithNext("run it on another device, with the owner's identity")
	}
	devices, err := e.devices()
	if err != nil {
		return r, err
	}
	d := devices[device]
	if d == nil {
		return r, fcp.Errorf(fcp.CodeNotFound, "no device %.16s was enrolled", device)
	}
	r.Device, r.Name = device, d.Name()
	had := map[fcp.ZoneID]bool{}
	for _, zone := range e.Zones() { // before anything is revoked
		m, err := e.newestManifest(zone)
		if err != nil {
			return r, err
		}
		had[zone] = slices.Contains(m.Recipients(), device.String())
	}
	for _, zone := range e.Zones() {
		cuts, err := e.cutsHere(zone, device)
		if err != nil {
			return r, err
		}
		rev, err := e.Revoke(ctx, owner, authority.RevocationSpec{Zone: zone, Scope: authority.RevokeDevice, Targets: []fcp.Hash{fcp.Hash(device)}, Cuts: cuts, Reason: reason})
		if err != nil {
			return r, err
		}
		r.Revoked, r.Feeds = append(r.Revoked, rev.Ref()), r.Feeds+len(cuts)
	}
	for _, zone := range e.Zones() {
		if !had[zone] || e.ring.Load().zones[zone] == nil {
			continue
		}
		if err := e.RotateZoneKey(ctx, owner, zone, authority.RotateDeviceLost); err != nil {
			return r, err
		}
		r.Zones = append(r.Zones, zone)
	}
	return r, e.noteAct(ctx, fcp.ZoneOwner, authority.AuditDeviceLost, fcp.Hash(device))
}

// cutsHere returns a cut of each chained feed of a writer in a zone, where it stands
// on this node.
func (e *Engine) cutsHere(zone fcp.ZoneID, writer fcp.WriterID) (cuts []authority.Cut, err error) {
	for _, f := range e.log.Feeds() {
		if f.Feed.Zone == zone && f.Feed.Writer == writer && f.Feed.Plane.Chained() && f.Seq > 0 {
			cuts = append(cuts, authority.Cut{Feed: f.Feed, Seq: f.Seq, Hash: f.Hash})
		}
	}
	if len(cuts) > authority.MaxCuts {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "%.16s has %d feeds in %s, one revocation cuts %d", writer, len(cuts), zone, authority.MaxCuts)
	}
	return cuts, nil
}

// Audit appends an entry to this device's audit feed of the zone.
func (e *Engine) Audit(ctx context.Context, ev authority.AuditEvent) error {
	if ev.At.IsZero() {
		ev.At = e.env.Now().Truncate(time.Second)
	}
	body, err := authority.EncodeAuditEvent(ev)
	if err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, ev.Zone, fcp.KindAuditEntry, body)
	return err
}

// noteAct is Audit for an act of the owner at this device.
func (e *Engine) noteAct(ctx context.Context, zone fcp.ZoneID, what authority.AuditType, subject fcp.Hash) error {
	return e.Audit(ctx, authority.AuditEvent{Zone: zone, Type: what, Actor: "owner@" + strings.ToLower(e.node.Writer().String()[:16]), Result: subject})
}

// DefineRole puts a role in force: as its next version, or its first. spec.Version
// and spec.Prev are ignored.
func (e *Engine) DefineRole(ctx context.Context, owner *authority.OwnerKey, spec authority.RoleSpec) (fcp.Hash, error) {
	spec.Version, spec.Prev = 1, fcp.Hash{}
	err := e.records(spec.Zone, projRoles, taking(e.genesis.Owner, authority.VerifyRole, func(r *authority.Role) {
		if r.Spec().ID == spec.ID && r.Number() >= spec.Version {
			spec.Version, spec.Prev = r.Number()+1, r.Ref()
		}
	}))
	if err != nil {
		return fcp.Hash{}, err
	}
	body, err := authority.SignRole(e.env.Now(), owner, spec)
	if err != nil {
		return fcp.Hash{}, err
	}
	_, err = e.AppendSigned(ctx, spec.Zone, fcp.KindRoleDefined, body)
	return authority.RefOf(body), err
}

// AssignRole gives a principal a role, signed by the owner or by an admin with
// authority.ActionRole.
func (e *Engine) AssignRole(ctx context.Context, by authority.AdminKey, spec authority.AssignmentSpec) (fcp.Hash, error) {
	body, err := authority.SignAssignment(by, spec)
	if err != nil {
		return fcp.Hash{}, err
	}
	f, err := e.ZoneFacts(spec.Zone)
	if err != nil {
		return fcp.Hash{}, err
	}
	u, err := authority.OpenAssignment(body)
	if err != nil {
		return fcp.Hash{}, err
	}
	if _, err := u.Authorize(&f.Authorities); err != nil {
		return fcp.Hash{}, err
	}
	_, err = e.AppendSigned(ctx, spec.Zone, fcp.KindRoleAssigned, body)
	return u.Ref(), err
}

// Approve appends an approval, signed by the owner or by an admin with
// authority.ActionApprove, and returns it.
func (e *Engine) Approve(ctx context.Context, by authority.AdminKey, spec authority.ApprovalSpec) (*authority.Approval, error) {
	body, err := authority.SignApproval(e.env.Rand, by, spec)
	if err != nil {
		return nil, err
	}
	a, err := authority.VerifyApproval(body)
	if err != nil {
		return nil, err
	}
	f, err := e.ZoneFacts(spec.Zone)
	if err != nil {
		return nil, err
	}
	if err := f.Authorities.Permit(a.Issuer(), authority.ActionApprove, spec.Zone, spec.IssuedAt); err != nil {
		return nil, err
	}
	_, err = e.AppendSigned(ctx, spec.Zone, fcp.KindApprovalGranted, body)
	return a, err
}
