package fcp

import (
	"strconv"
	"strings"

	"github.com/zeebo/blake3"
)

// SchemaID names the shape of an object's payload (spec/wire.md section 2). Its
// string form is "namespace:name@MAJOR.MINOR.PATCH" and its CBOR form a map of
// the three texts. Make one with ParseSchemaID.
type SchemaID struct {
	Namespace string `cbor:"namespace"` // [A-Za-z0-9._-], 1 to MaxSchemaPart bytes
	Name      string `cbor:"name"`      // the same
	Version   string `cbor:"version"`   // semantic version 2.0.0, at most MaxSchemaVersion bytes
}

// ParseSchemaID parses the string form. It fails with CodeInvalidArgument and
// ReasonEmpty, ReasonTooLong, ReasonASCII, ReasonSyntax (a separator or part is
// missing), ReasonStart, ReasonChar or ReasonVersion.
func ParseSchemaID(s string) (SchemaID, error) {
	if r := nameFault(s, MaxSchemaID); r != "" {
		return SchemaID{}, nameError("schema", s, r)
	}
	names, version, ok1 := strings.Cut(s, "@")
	namespace, name, ok2 := strings.Cut(names, ":")
	if !ok1 || !ok2 {
		return SchemaID{}, nameError("schema", s, ReasonSyntax)
	}
	id := SchemaID{Namespace: namespace, Name: name, Version: version}
	if r := id.fault(); r != "" {
		return SchemaID{}, nameError("schema", s, r)
	}
	return id, nil
}

// Valid reports whether every part would pass ParseSchemaID.
func (id SchemaID) Valid() bool { return id.fault() == "" }

func (id SchemaID) fault() Reason {
	if r := schemaPartFault(id.Namespace); r != "" {
		return r
	}
	if r := schemaPartFault(id.Name); r != "" {
		return r
	}
	if len(id.Version) > MaxSchemaVersion {
		return ReasonTooLong
	}
	if !validVersion(id.Version) {
		return ReasonVersion
	}
	return ""
}

func schemaPartFault(s string) Reason {
	switch {
	case s == "":
		return ReasonSyntax
	case len(s) > MaxSchemaPart:
		return ReasonTooLong
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 0x80:
			return ReasonASCII
		case isAlnum(c):
		case i == 0:
			return ReasonStart
		case c != '.' && c != '_' && c != '-':
			return ReasonChar
		}
	}
	return ""
}

func isAlnum(c byte) bool { return isLowerAlnum(c) || 'A' <= c && c <= 'Z' }

// validVersion checks the grammar of Semantic Versioning 2.0.0. Numbers of the
// core are below 2^64, as in the reference.
func validVersion(s string) bool {
	s, build, hasBuild := strings.Cut(s, "+")
	if hasBuild && !dotted(build, false) {
		return false
	}
	core, pre, hasPre := strings.Cut(s, "-")
	if hasPre && !dotted(pre, true) {
		return false
	}
	n := 0
	for part := range strings.SplitSeq(core, ".") {
		v, err := strconv.ParseUint(part, 10, 64)
		if err != nil || strconv.FormatUint(v, 10) != part {
			return false
		}
		n++
	}
	return n == 3
}

// dotted reports whether s is dot-separated non-empty [0-9A-Za-z-] identifiers;
// with strict, those of digits only have no leading zero.
func dotted(s string, strict bool) bool {
	for part := range strings.SplitSeq(s, ".") {
		digits := true
		for i := range len(part) {
			if !isAlnum(part[i]) && part[i] != '-' {
				return false
			}
			digits = digits && '0' <= part[i] && part[i] <= '9'
		}
		if part == "" || strict && digits && len(part) > 1 && part[0] == '0' {
			return false
		}
	}
	return true
}

// String returns "namespace:name@version".
func (id SchemaID) String() string { return id.Namespace + ":" + id.Name + "@" + id.Version }

// Hash returns the schema hash BLAKE3-256("FCP2-SCHEMA-V1" || string form). It
// costs a hash each time; what runs per object holds a Schema instead.
func (id SchemaID) Hash() Hash { return taggedHash("FCP2-SCHEMA-V1", id.String()) }

// Schema is a SchemaID with everything derived from it computed once. Make one
// with NewSchema, MustSchema or LookupSchema; the zero Schema is not usable.
type Schema struct {
	id     SchemaID
	hash   Hash
	header string // the start of a plain object header, see AppendPlainHeader
}

// NewSchema derives a Schema. It fails as ParseSchemaID does.
func NewSchema(id SchemaID) (Schema, error) {
	if r := id.fault(); r != "" {
		return Schema{}, nameError("schema", id.String(), r)
	}
	return Schema{id: id, hash: id.Hash(), header: plainHeaderStart(id)}, nil
}

// MustSchema parses and derives; it panics on a bad string, so use it only for
// package variables.
func MustSchema(s string) Schema {
	id, err := ParseSchemaID(s)
	if err != nil {
		panic(err)
	}
	schema, err := NewSchema(id)
	if err != nil {
		panic(err)
	}
	return schema
}

// ID returns the schema's id.
func (s Schema) ID() SchemaID { return s.id }

// Hash returns the schema hash, without computing anything.
func (s Schema) Hash() Hash { return s.hash }

// String returns "namespace:name@version".
func (s Schema) String() string { return s.id.String() }

// The built-in schemas. A name's namespace is part of the contract: never change
// one, add a version.
var (
	SchemaBlob             = MustSchema("fcp.core:Blob@1.0.0") // payload: one CBOR byte string
	SchemaChunkedManifest  = MustSchema("fcp.core:ChunkedObjectManifest@1.0.0")
	SchemaRawChunk         = MustSchema("fcp.core:RawChunk@1.0.0") // only in the id of a chunk, which has no stored form; no builtin
	SchemaSchemaDefinition = MustSchema("fcp.core:SchemaDefinition@1.0.0")
	SchemaSegmentRemainder = MustSchema("fcp.core:SegmentRemainder@1.0.0")
	SchemaSegmentCard      = MustSchema("fcp.core:SegmentCard@1.0.0")
	SchemaZoneDefinition   = MustSchema("fcp.core:ZoneDefinitionObject@1.0.0")
	SchemaZoneKeyManifest  = MustSchema("fcp.zone:ZoneKeyManifest@1.0.0")
	SchemaZonePolicy       = MustSchema("fcp.core:ZonePolicyObject@1.0.0")
	SchemaZoneCheckpoint   = MustSchema("fcp.core:ZoneCheckpoint@1.0.0")
	SchemaDeviceEnrollment = MustSchema("fcp.core:DeviceEnrollment@1.0.0")
	SchemaStoreRestored    = MustSchema("fcp.core:StoreRestored@1.0.0")
	SchemaRevocation       = MustSchema("fcp.core:RevocationObject@1.0.0")
	SchemaCapability       = MustSchema("fcp.core:CapabilityObject@1.0.0")
	SchemaCapabilityToken  = MustSchema("fcp.core:CapabilityToken@1.0.0")
	SchemaApprovalToken    = MustSchema("fcp.core:ApprovalToken@2.0.0")
	SchemaCredential       = MustSchema("fcp.core:CredentialObject@1.0.0")
	SchemaAuditEvent       = MustSchema("fcp.core:AuditEvent@1.0.0")
	SchemaAuditHead        = MustSchema("fcp.core:AuditHead@1.0.0")
	SchemaDecisionReceipt  = MustSchema("fcp.core:DecisionReceipt@1.0.0")
	SchemaLease            = MustSchema("fcp.lease:lease@1.0.0")
	SchemaOperationIntent  = MustSchema("fcp.operation:intent@1.0.0")
	SchemaOperationReceipt = MustSchema("fcp.operation:receipt@1.0.0")
	SchemaConnectorState   = MustSchema("fcp.connector_state:state_object@1.0.0")
	SchemaAttestation      = MustSchema("fcp.core:NodeKeyAttestation@1.0.0")
	SchemaDelegation       = MustSchema("fcp.core:AdminDelegation@1.0.0")
	SchemaIssuerSet        = MustSchema("fcp.core:IssuerSet@1.0.0")
	SchemaRole             = MustSchema("fcp.core:Role@1.0.0")
	SchemaRoleAssignment   = MustSchema("fcp.core:RoleAssignment@1.0.0")
	SchemaPrincipalBinding = MustSchema("fcp.core:PrincipalDeviceBinding@1.0.0")
	SchemaForkProof        = MustSchema("fcp.core:ForkProof@1.0.0")
	SchemaRevocationHead   = MustSchema("fcp.core:RevocationHead@1.0.0")
	SchemaTrustAnchors     = MustSchema("fcp.core:TrustAnchors@1.0.0")
	SchemaBackupDrill      = MustSchema("fcp.core:BackupDrill@1.0.0")
	SchemaPin              = MustSchema("fcp.core:Pin@1.0.0")
	SchemaSecret           = MustSchema("fcp.core:SecretObject@1.0.0")
	SchemaLeaseRequest     = MustSchema("fcp.lease:request@1.0.0")
	SchemaLeaseRelease     = MustSchema("fcp.lease:release@1.0.0")
	SchemaLeasePromise     = MustSchema("fcp.lease:promise@1.0.0")
	SchemaLeaseFence       = MustSchema("fcp.lease:fence@1.0.0")
	SchemaLeaseSubject     = MustSchema("fcp.lease:subject@1.0.0") // only in ids of subjects that have a name and no object
	SchemaConnectorRoot    = MustSchema("fcp.connector_state:root@1.0.0")
	SchemaStateDelta       = MustSchema("fcp.connector_state:delta@1.0.0")
	SchemaStateSnapshot    = MustSchema("fcp.connector_state:snapshot@1.0.0")
	SchemaDeletionAck      = MustSchema("fcp.core:DeletionAck@1.0.0")
	SchemaForgetting       = MustSchema("fcp.core:Forgetting@1.0.0")
	builtinSchemas         = builtins()
	builtinByHeader        = indexHeaders(builtinSchemas)
	builtinSchemasByID     = indexIDs(builtinSchemas)
)

func builtins() []Schema {
	return []Schema{
		SchemaBlob, SchemaChunkedManifest, SchemaSchemaDefinition, SchemaSegmentRemainder, SchemaSegmentCard,
		SchemaZoneDefinition, SchemaZoneKeyManifest, SchemaZonePolicy, SchemaZoneCheckpoint,
		SchemaDeviceEnrollment, SchemaStoreRestored, SchemaRevocation, SchemaCapability, SchemaCapabilityToken,
		SchemaApprovalToken, SchemaCredential, SchemaAuditEvent, SchemaAuditHead, SchemaDecisionReceipt,
		SchemaLease, SchemaOperationIntent, SchemaOperationReceipt, SchemaConnectorState,
		SchemaAttestation, SchemaDelegation, SchemaIssuerSet, SchemaRole, SchemaRoleAssignment,
		SchemaPrincipalBinding, SchemaForkProof, SchemaRevocationHead, SchemaTrustAnchors, SchemaBackupDrill, SchemaPin, SchemaSecret,
		SchemaLeaseRequest, SchemaLeaseRelease, SchemaLeasePromise, SchemaLeaseFence,
		SchemaConnectorRoot, SchemaStateDelta, SchemaStateSnapshot, SchemaDeletionAck, SchemaForgetting,
	}
}

func indexHeaders(schemas []Schema) map[string]*Schema {
	m := make(map[string]*Schema, len(schemas))
	for i := range schemas {
		m[schemas[i].header] = &schemas[i]
	}
	return m
}

func indexIDs(schemas []Schema) map[SchemaID]*Schema {
	m := make(map[SchemaID]*Schema, len(schemas))
	for i := range schemas {
		m[schemas[i].id] = &schemas[i]
	}
	return m
}

// BuiltinSchemas returns the built-in schemas. The caller owns the slice.
func BuiltinSchemas() []Schema { return builtins() }

// LookupSchema returns the Schema of an id: for a built-in one without hashing.
func LookupSchema(id SchemaID) (Schema, error) {
	if s := builtinSchemasByID[id]; s != nil {
		return *s, nil
	}
	return NewSchema(id)
}

// SigningSchema8 returns the first 8 bytes of BLAKE3-256 over a signing label
// such as "fcp.attestation.v1" (spec/wire.md section 4, "label form"). A label is
// not a SchemaID and the hash has no tag in front.
func SigningSchema8(label string) [8]byte {
	h := blake3.Sum256([]byte(label))
	return [8]byte(h[:8])
}
