package engine

import (
	"crypto/sha256"
	"encoding/hex"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
)

const (
	onControl fcp.PlaneSet = 1 << fcp.PlaneControl
	onData    fcp.PlaneSet = 1 << fcp.PlaneData
)

// builtins returns the built-in projections. Their order is the order of folding.
func builtins(owner authority.OwnerPublic, heads *headMemo) []Projection {
	return append([]Projection{
		objectsProjection{}, namesProjection{}, historyProjection{}, clearedProjection{}, bodiesProjection{}, idempotencyProjection{},
		recordProjection{projCheckpoints, fcp.KindCheckpointSigned, owner, checkpointKey, checkpointRow},
		recordProjection{projZones, fcp.KindZoneDefined, owner, zoneKey, zoneRow},
		recordProjection{projManifests, fcp.KindZoneKeyManifest, owner, manifestKey, manifestRow},
		recordProjection{projDevices, fcp.KindDeviceEnrolled, owner, deviceKey, deviceRow},
		recordProjection{projSchemas, fcp.KindSchemaDefined, owner, schemaKey, schemaRow},
		recordProjection{projRevocations, fcp.KindRevocationIssued, owner, revocationKey, revocationRow},
		recordProjection{projPolicies, fcp.KindPolicySet, owner, policyKey, policyRow},
		recordProjection{projAttestations, fcp.KindAttestationIssued, owner, attestationKey, attestationRow},
		recordProjection{projDelegations, fcp.KindDelegationIssued, owner, delegationKey, delegationRow},
		recordProjection{projIssuers, fcp.KindIssuersSet, owner, issuersKey, issuersRow},
		recordProjection{projRoles, fcp.KindRoleDefined, owner, roleKey, roleRow},
		recordProjection{projAssignments, fcp.KindRoleAssigned, owner, assignmentKey, assignmentRow},
		recordProjection{projBindings, fcp.KindPrincipalBound, owner, bindingKey, bindingRow},
		recordProjection{projCapabilities, fcp.KindCapabilityGranted, owner, grantKey, grantRow},
		recordProjection{projApprovals, fcp.KindApprovalGranted, owner, approvalKey, approvalRow},
		recordProjection{projDecisions, fcp.KindDecisionRecorded, owner, decisionKey, decisionRow},
		recordProjection{projAudit, fcp.KindAuditEntry, owner, auditKey, auditRow},
		recordProjection{projHeads, fcp.KindAuditHead, owner, heads.key, heads.row},
		recordProjection{projForks, fcp.KindForkProven, owner, forkKey, forkRow},
		recordProjection{projPins, fcp.KindPinSet, owner, pinKey, pinRow},
		recordProjection{projSecrets, fcp.KindSecretShared, owner, secretKey, secretRow},
		recordProjection{projLeases, fcp.KindLeaseGranted, owner, leaseKey, leaseRow},
		recordProjection{projReleases, fcp.KindLeaseReleased, owner, releaseKey, releaseRow},
		thingProjection{projPromises, fcp.KindLeasePromised, promiseRow},
		thingProjection{projFences, fcp.KindFenceRaised, fenceRow},
		recordProjection{projStateRoots, fcp.KindStateDefined, owner, stateRootKey, stateRootRow},
		recordProjection{projStateWrites, fcp.KindStateWritten, owner, stateWriteKey, stateWriteRow},
		recordProjection{projStateDeltas, fcp.KindStateDelta, owner, stateDeltaKey, stateDeltaRow},
		recordProjection{projStateSnapshots, fcp.KindStateSnapshot, owner, stateSnapshotKey, stateSnapshotRow},
		recordProjection{projDeletionAcks, fcp.KindDeletionAcked, owner, deletionAckKey, deletionAckRow},
		recordProjection{projForgettings, fcp.KindObjectForgotten, owner, forgettingKey, forgettingRow},
		segmentsProjection{},
	}, extraProjections()...)
}

// extraProjections lets tests add projections.
var extraProjections = func() []Projection { return nil }

// objectsProjection knows which objects control events head: key is the object
// id, presence is canonical.
type objectsProjection struct{}

func (objectsProjection) Name() string         { return projObjects }
func (objectsProjection) Version() uint32      { return 1 }
func (objectsProjection) Scope() Scope         { return ScopeZone }
func (objectsProjection) Planes() fcp.PlaneSet { return onControl }

func (objectsProjection) Touches(ev *Event, key []byte) []byte {
	if ev.Content.Object.IsZero() {
		return nil
	}
	return append(key, ev.Content.Object[:]...)
}

func (objectsProjection) Apply(f *Fold, ev *Event, key []byte) error { return f.keepFirst(ev, key) }

func (objectsProjection) Row(key []byte, v state.Value, row *Row) error {
	row.Key = hex.EncodeToString(key)
	return placeRow(v, row)
}

// bodiesProjection finds bodies and chunks on the data plane by object id. The last
// one counts: a chunk is written again only where the one before cannot be read.
type bodiesProjection struct{}

func (bodiesProjection) Name() string         { return projBodies }
func (bodiesProjection) Version() uint32      { return 1 }
func (bodiesProjection) Scope() Scope         { return ScopeData }
func (bodiesProjection) Planes() fcp.PlaneSet { return onData }

func (bodiesProjection) Touches(ev *Event, key []byte) []byte {
	return objectsProjection{}.Touches(ev, key)
}

func (bodiesProjection) Apply(f *Fold, ev *Event, key []byte) error { return f.keepLast(ev, key) }

func (bodiesProjection) Row(key []byte, v state.Value, row *Row) error {
	return objectsProjection{}.Row(key, v, row)
}

// idempotencyProjection remembers for ever the first event of each tag.
type idempotencyProjection struct{}

func (idempotencyProjection) Name() string         { return projIdempotency }
func (idempotencyProjection) Version() uint32      { return 1 }
func (idempotencyProjection) Scope() Scope         { return ScopeZone }
func (idempotencyProjection) Planes() fcp.PlaneSet { return onControl }

func (idempotencyProjection) Touches(ev *Event, key []byte) []byte {
	if len(ev.Content.Idempotency) == 0 {
		return nil
	}
	return append(key, ev.Content.Idempotency...)
}

func (idempotencyProjection) Apply(f *Fold, ev *Event, key []byte) error { return f.keepFirst(ev, key) }

func (idempotencyProjection) Row(key []byte, v state.Value, row *Row) error {
	return objectsProjection{}.Row(key, v, row)
}

// historyProjection owns the slot of superseded head sets, which names writes.
type historyProjection struct{}

func (historyProjection) Name() string                      { return projHistory }
func (historyProjection) Version() uint32                   { return 1 }
func (historyProjection) Scope() Scope                      { return ScopeLocal }
func (historyProjection) Planes() fcp.PlaneSet              { return 0 }
func (historyProjection) Touches(*Event, []byte) []byte     { return nil }
func (historyProjection) Apply(*Fold, *Event, []byte) error { return nil }

func (historyProjection) Row(key []byte, v state.Value, row *Row) error {
	name, until, ok := splitHistoryKey(key)
	if !ok {
		return errNameRecord
	}
	var r nameRecord
	if err := r.decodeHistory(v); err != nil {
		return err
	}
	row.Key = string(name)
	row.Fields = map[string]any{"since": r.since, "until": until, "heads": len(r.heads)}
	return nil
}

// clearedProjection owns the slot of names whose every version is void: a list of
// an earlier position finds them there. Written by a refold.
type clearedProjection struct{ historyProjection }

func (clearedProjection) Name() string { return projCleared }

func (clearedProjection) Row(key []byte, _ state.Value, row *Row) error {
	row.Key = string(key)
	return nil
}

// recordProjection keeps the bodies of one kind of governance event as a set. The
// key is what id gives followed by the first 16 bytes of SHA-256 of the body; the
// canonical part is the body. A body that id refuses is folded as nothing, on
// every node alike.
type recordProjection struct {
	name   string
	kind   fcp.Kind
	owner  authority.OwnerPublic
	id     func(owner authority.OwnerPublic, ev *Event, key []byte) []byte // nil: refused
	fields func(owner authority.OwnerPublic, body []byte) (key string, fields map[string]any, err error)
}

const recordDigest = 16

func (p recordProjection) Name() string         { return p.name }
func (p recordProjection) Kind() fcp.Kind       { return p.kind }
func (p recordProjection) Version() uint32      { return 1 }
func (p recordProjection) Scope() Scope         { return ScopeZone }
func (p recordProjection) Planes() fcp.PlaneSet { return onControl }

func (p recordProjection) Touches(ev *Event, key []byte) []byte {
	if ev.Content.Kind != p.kind {
		return nil
	}
	key = p.id(p.owner, ev, key)
	if key == nil {
		return nil
	}
	sum := sha256.Sum256(ev.Content.Body)
	return append(key, sum[:recordDigest]...)
}

func (p recordProjection) Apply(f *Fold, ev *Event, key []byte) error {
	old, ok, err := f.Get(key)
	if err != nil {
		return err
	}
	if ok {
		at, err := decodePlace(old.Local)
		if err != nil || at.position <= ev.Position {
			return err
		}
	}
	at := place{feed: ev.Feed, seq: ev.Seq, position: ev.Position, inline: true}
	f.local = at.appendTo(f.local[:0])
	return f.Set(key, ev.Content.Body, f.local)
}

func (p recordProjection) Row(_ []byte, v state.Value, row *Row) error {
	key, fields, err := p.fields(p.owner, v.Canonical)
	if err != nil {
		return err
	}
	at, err := decodePlace(v.Local)
	if err != nil {
		return err
	}
	fields["position"] = at.position
	row.Key, row.Fields = key, fields
	return nil
}
