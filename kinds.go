package fcp

// Kind says what an event records. Kinds are a closed table: an event of an
// unknown kind is refused, because a fold that skips what it does not know
// would give two nodes two states. Numbers are local to a build; the wire and
// the disk carry the name.
type Kind uint8

// The event kinds of this build, in the order of the table.
const (
	KindNone Kind = iota
	KindObjectPut
	KindObjectBody
	KindObjectTombstone
	KindChunkPut
	KindSchemaDefined
	KindSegmentSealed
	KindZoneDefined
	KindZoneKeyManifest
	KindDeviceEnrolled
	KindCheckpointSigned
	KindRevocationIssued
	KindStoreRestored
	KindOpaque
	KindPolicySet
	KindAttestationIssued
	KindDelegationIssued
	KindIssuersSet
	KindRoleDefined
	KindRoleAssigned
	KindPrincipalBound
	KindCapabilityGranted
	KindApprovalGranted
	KindDecisionRecorded
	KindAuditEntry
	KindAuditHead
	KindForkProven
	KindBackupDrilled
	KindPinSet
	KindSecretShared
	KindLeaseGranted
	KindLeaseReleased
	KindLeasePromised
	KindFenceRaised
	KindStateDefined
	KindStateWritten
	KindStateDelta
	KindStateSnapshot
	KindDeletionAcked
	KindObjectForgotten
	kindCount
)

// PlaneSet is a set of planes as bits 1<<Plane.
type PlaneSet uint8

// Has reports whether p is in the set.
func (s PlaneSet) Has(p Plane) bool { return p < 8 && s&(1<<p) != 0 }

// KindInfo is one row of the kind table.
type KindInfo struct {
	Name    string   // as encoded
	Planes  PlaneSet // where it may be appended
	MaxBody int      // bytes of Content.Body
	Clear   bool     // the body is canonical CBOR in the clear (governance), not ciphertext
	Named   bool     // carries a key (a name) and takes part in head checks
	Schema  string   // schema of the object it carries; "" when the header says
}

const (
	onControl = PlaneSet(1 << PlaneControl)
	onData    = PlaneSet(1 << PlaneData)
	onLocal   = PlaneSet(1 << PlaneLocal)
)

var kinds = [kindCount]KindInfo{
	KindObjectPut:         {Name: "object.put", Planes: onControl, MaxBody: MaxInlineBody + BodyOverhead, Named: true},
	KindObjectBody:        {Name: "object.body", Planes: onData, MaxBody: MaxBody},
	KindObjectTombstone:   {Name: "object.tombstone", Planes: onControl, MaxBody: 0, Named: true},
	KindChunkPut:          {Name: "chunk.put", Planes: onData, MaxBody: MaxBody},
	KindSchemaDefined:     {Name: "schema.defined", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:SchemaDefinition@1.0.0"},
	KindSegmentSealed:     {Name: "segment.sealed", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:SegmentRemainder@1.0.0"},
	KindZoneDefined:       {Name: "zone.defined", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:ZoneDefinitionObject@1.0.0"},
	KindZoneKeyManifest:   {Name: "zonekey.manifest", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.zone:ZoneKeyManifest@1.0.0"},
	KindDeviceEnrolled:    {Name: "device.enrolled", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:DeviceEnrollment@1.0.0"},
	KindCheckpointSigned:  {Name: "checkpoint.signed", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:ZoneCheckpoint@1.0.0"},
	KindRevocationIssued:  {Name: "revocation.issued", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:RevocationObject@1.0.0"},
	KindStoreRestored:     {Name: "store.restored", Planes: onLocal, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:StoreRestored@1.0.0"},
	KindOpaque:            {Name: "opaque", Planes: onControl | onData | onLocal, MaxBody: MaxBody},
	KindPolicySet:         {Name: "policy.set", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:ZonePolicyObject@1.0.0"},
	KindAttestationIssued: {Name: "attestation.issued", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:NodeKeyAttestation@1.0.0"},
	KindDelegationIssued:  {Name: "delegation.issued", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:AdminDelegation@1.0.0"},
	KindIssuersSet:        {Name: "issuers.set", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:IssuerSet@1.0.0"},
	KindRoleDefined:       {Name: "role.defined", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:Role@1.0.0"},
	KindRoleAssigned:      {Name: "role.assigned", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:RoleAssignment@1.0.0"},
	KindPrincipalBound:    {Name: "principal.bound", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:PrincipalDeviceBinding@1.0.0"},
	KindCapabilityGranted: {Name: "capability.granted", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:CapabilityObject@1.0.0"},
	KindApprovalGranted:   {Name: "approval.granted", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:ApprovalToken@2.0.0"},
	KindDecisionRecorded:  {Name: "decision.recorded", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:DecisionReceipt@1.0.0"},
	KindAuditEntry:        {Name: "audit.entry", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:AuditEvent@1.0.0"},
	KindAuditHead:         {Name: "audit.head", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:AuditHead@1.0.0"},
	KindForkProven:        {Name: "fork.proven", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:ForkProof@1.0.0"},
	KindBackupDrilled:     {Name: "backup.drilled", Planes: onLocal, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:BackupDrill@1.0.0"},
	KindPinSet:            {Name: "pin.set", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:Pin@1.0.0"},
	KindSecretShared:      {Name: "secret.shared", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:SecretObject@1.0.0"},
	KindLeaseGranted:      {Name: "lease.granted", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.lease:lease@1.0.0"},
	KindLeaseReleased:     {Name: "lease.released", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.lease:release@1.0.0"},
	KindLeasePromised:     {Name: "lease.promised", Planes: onLocal, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.lease:promise@1.0.0"},
	KindFenceRaised:       {Name: "fence.raised", Planes: onLocal, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.lease:fence@1.0.0"},
	KindStateDefined:      {Name: "state.defined", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.connector_state:root@1.0.0"},
	KindStateWritten:      {Name: "state.written", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.connector_state:state_object@1.0.0"},
	KindStateDelta:        {Name: "state.delta", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.connector_state:delta@1.0.0"},
	KindStateSnapshot:     {Name: "state.snapshot", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.connector_state:snapshot@1.0.0"},
	KindDeletionAcked:     {Name: "deletion.acked", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:DeletionAck@1.0.0"},
	KindObjectForgotten:   {Name: "object.forgotten", Planes: onControl, MaxBody: MaxClearBody, Clear: true, Schema: "fcp.core:Forgetting@1.0.0"},
}

// Info returns the row of the table; the zero KindInfo for an unknown kind.
func (k Kind) Info() KindInfo {
	if k >= kindCount {
		return KindInfo{}
	}
	return kinds[k]
}

// String returns the encoded name.
func (k Kind) String() string {
	if k == KindNone || k >= kindCount {
		return "unknown"
	}
	return kinds[k].Name
}

// ParseKind finds a kind by name.
func ParseKind(name string) (Kind, error) {
	if k := kindByName([]byte(name)); k != KindNone {
		return k, nil
	}
	return KindNone, Errorf(CodeUnknownKind, "%.64q", name)
}

// Kinds returns all kinds of the table in order.
func Kinds() []Kind {
	out := make([]Kind, 0, kindCount-1)
	for k := KindNone + 1; k < kindCount; k++ {
		out = append(out, k)
	}
	return out
}

// kindByName is on the decode path: a switch on the bytes costs a few
// nanoseconds where a map costs twenty. TestKindTable holds it to the table.
func kindByName(name []byte) Kind {
	switch string(name) {
	case "object.put":
		return KindObjectPut
	case "object.body":
		return KindObjectBody
	case "object.tombstone":
		return KindObjectTombstone
	case "chunk.put":
		return KindChunkPut
	case "schema.defined":
		return KindSchemaDefined
	case "segment.sealed":
		return KindSegmentSealed
	case "zone.defined":
		return KindZoneDefined
	case "zonekey.manifest":
		return KindZoneKeyManifest
	case "device.enrolled":
		return KindDeviceEnrolled
	case "checkpoint.signed":
		return KindCheckpointSigned
	case "revocation.issued":
		return KindRevocationIssued
	case "store.restored":
		return KindStoreRestored
	case "opaque":
		return KindOpaque
	case "policy.set":
		return KindPolicySet
	case "attestation.issued":
		return KindAttestationIssued
	case "delegation.issued":
		return KindDelegationIssued
	case "issuers.set":
		return KindIssuersSet
	case "role.defined":
		return KindRoleDefined
	case "role.assigned":
		return KindRoleAssigned
	case "principal.bound":
		return KindPrincipalBound
	case "capability.granted":
		return KindCapabilityGranted
	case "approval.granted":
		return KindApprovalGranted
	case "decision.recorded":
		return KindDecisionRecorded
	case "audit.entry":
		return KindAuditEntry
	case "audit.head":
		return KindAuditHead
	case "fork.proven":
		return KindForkProven
	case "backup.drilled":
		return KindBackupDrilled
	case "pin.set":
		return KindPinSet
	case "secret.shared":
		return KindSecretShared
	case "lease.granted":
		return KindLeaseGranted
	case "lease.released":
		return KindLeaseReleased
	case "lease.promised":
		return KindLeasePromised
	case "fence.raised":
		return KindFenceRaised
	case "state.defined":
		return KindStateDefined
	case "state.written":
		return KindStateWritten
	case "state.delta":
		return KindStateDelta
	case "state.snapshot":
		return KindStateSnapshot
	case "deletion.acked":
		return KindDeletionAcked
	case "object.forgotten":
		return KindObjectForgotten
	}
	return KindNone
}
