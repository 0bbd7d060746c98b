package authority

import (
	"bytes"
	"io"
	"math"
	"slices"
	"time"

	"fcp"
	"fcp/authority/crdt"
)

// A connector's state (spec/wire.md section 13.4, docs/leases.md): a root says how it
// may be written, then either states of one writer at a time, each under a lease, or
// deltas of a CRDT by anybody.

// StateModel says how a connector's state may be written.
type StateModel string

// The closed set of models.
const (
	StateStateless StateModel = "stateless"
	StateSingleton StateModel = "singleton_writer"
	StateCRDT      StateModel = "crdt"
)

// Limits of connector state.
const (
	MaxConnectorState = crdt.MaxState
	MaxStateSeq       = math.MaxInt64

	SnapshotUpdates = 5000    // deltas after which a snapshot is due (spec/wire.md section 13.4)
	SnapshotBytes   = 1 << 20 // or so many bytes of them
)

// StateRootSpec says what a connector's state is.
type StateRootSpec struct {
	Zone      fcp.ZoneID
	Connector fcp.CanonicalID
	Instance  fcp.CanonicalID // "" for the only one
	Model     StateModel
	CRDT      crdt.Kind // for StateCRDT
	Schema    uint64    // version of what the connector writes into it, from 1
	At        time.Time // to the second
}

type stateModelObject struct {
	Type string    `cbor:"type"`
	CRDT crdt.Kind `cbor:"crdt_type,omitempty"`
}

type stateRootObject struct {
	Format    uint64           `cbor:"format"`
	Zone      fcp.ZoneID       `cbor:"zone_id"`
	Connector fcp.CanonicalID  `cbor:"connector_id"`
	Instance  fcp.CanonicalID  `cbor:"instance_id,omitempty"`
	Model     stateModelObject `cbor:"model"`
	Schema    uint64           `cbor:"state_schema_version"`
	CreatedAt uint64           `cbor:"created_at"`
	Writer    fcp.WriterID     `cbor:"writer"`
}

func (o *stateRootObject) check() error {
	if err := checkCommon(fcp.SchemaConnectorRoot, o.Format, o.CreatedAt); err != nil {
		return err
	}
	m := StateModel(o.Model.Type)
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "a state root in %.64q", string(o.Zone))
	case m != StateStateless && m != StateSingleton && m != StateCRDT:
		return fcp.Errorf(fcp.CodeMalformed, "a state root with the model %.32q", o.Model.Type)
	case (m == StateCRDT) != (o.Model.CRDT != "") || m == StateCRDT && !o.Model.CRDT.Valid():
		return fcp.Errorf(fcp.CodeMalformed, "a state root of the model %s with the CRDT %.32q", m, string(o.Model.CRDT))
	case o.Schema == 0 || o.Schema > math.MaxInt64 || o.Writer.IsZero():
		return fcp.Errorf(fcp.CodeMalformed, "a state root without a schema version or a writer")
	}
	return checkConnector(o.Connector, o.Instance)
}

func checkConnector(connector, instance fcp.CanonicalID) error {
	if _, err := fcp.ParseCanonicalID(string(connector)); err != nil {
		return err
	}
	if instance != "" {
		_, err := fcp.ParseCanonicalID(string(instance))
		return err
	}
	return nil
}

// EncodeStateRoot returns the payload of a root. It is unsigned: it counts in a feed
// of its writer.
func EncodeStateRoot(writer fcp.WriterID, s StateRootSpec) ([]byte, error) {
	o := stateRootObject{Format: ObjectFormat, Zone: s.Zone, Connector: s.Connector, Instance: s.Instance,
		Model: stateModelObject{string(s.Model), s.CRDT}, Schema: s.Schema, Writer: writer}
	if err := setTimes(timeField{&o.CreatedAt, s.At}); err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaConnectorRoot, &o)
}

// DecodeStateRoot is the inverse of EncodeStateRoot.
func DecodeStateRoot(b []byte) (StateRootSpec, fcp.WriterID, error) {
	var o stateRootObject
	if err := fcp.UnmarshalPayload(fcp.SchemaConnectorRoot, b, &o); err != nil {
		return StateRootSpec{}, fcp.WriterID{}, err
	}
	return StateRootSpec{o.Zone, o.Connector, o.Instance, StateModel(o.Model.Type), o.Model.CRDT, o.Schema, fromUnix(o.CreatedAt)}, o.Writer, o.check()
}

// SealedState is a state under a zone's body key: SealBody with the root's id as the
// address.
type SealedState struct {
	Key  KeyID  `cbor:"zone_key"` // id of the zone key whose body key it is under
	Salt Salt   `cbor:"salt"`
	Box  []byte `cbor:"sealed"`
}

// SealState seals a state. CodeTooLarge above MaxConnectorState.
func SealState(rand io.Reader, k *ZoneKeys, root fcp.ObjectID, plain []byte) (s SealedState, err error) {
	if len(plain) > MaxConnectorState {
		return s, fcp.Errorf(fcp.CodeTooLarge, "a connector state of %d bytes, the limit is %d", len(plain), MaxConnectorState)
	}
	if _, err := io.ReadFull(rand, s.Salt[:]); err != nil {
		return s, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a connector state")
	}
	s.Key, s.Box = k.IDs().Zone, k.SealBody(nil, root, s.Salt, plain)
	return s, nil
}

// Open decrypts the state with the keys that Key names. CodeCorrupt for other bytes.
func (s *SealedState) Open(k *ZoneKeys, root fcp.ObjectID) ([]byte, error) {
	return k.OpenBody(nil, root, s.Salt, s.Box)
}

func (s *SealedState) check() error {
	if n, ok := PlainBodyLen(len(s.Box)); !ok || n > MaxConnectorState {
		return fcp.Errorf(fcp.CodeMalformed, "a sealed state of %d bytes", len(s.Box))
	}
	return nil
}

// ConnectorStateSpec is one state of a singleton writer.
type ConnectorStateSpec struct {
	Zone      fcp.ZoneID
	Connector fcp.CanonicalID
	Instance  fcp.CanonicalID
	Root      fcp.ObjectID
	Prev      fcp.ObjectID // the state it follows; zero exactly for Seq 1
	Seq       uint64       // from 1
	State     SealedState
	At        time.Time // to the second
	Fence     Fence     // lease_seq
	Lease     fcp.ObjectID
}

type connectorStateObject struct {
	Header    fcp.ObjectHeader `cbor:"header"`
	Connector fcp.CanonicalID  `cbor:"connector_id"`
	Instance  fcp.CanonicalID  `cbor:"instance_id,omitempty"`
	Zone      fcp.ZoneID       `cbor:"zone_id"`
	Root      fcp.ObjectID     `cbor:"root"`
	Prev      []byte           `cbor:"prev,omitempty"`
	Seq       uint64           `cbor:"seq"`
	State     SealedState      `cbor:"state"`
	UpdatedAt uint64           `cbor:"updated_at"`
	LeaseSeq  Fence            `cbor:"lease_seq"`
	Lease     fcp.ObjectID     `cbor:"lease_object_id"`
	Signature []byte           `cbor:"signature,omitempty"`
}

// header is the only header that a state can have: its refs are the root, the lease
// and the state before, ascending.
func (o *connectorStateObject) header() fcp.ObjectHeader {
	refs := []fcp.ObjectID{o.Root, o.Lease}
	if o.Prev != nil {
		refs = append(refs, fcp.ObjectID(o.Prev))
	}
	slices.SortFunc(refs, func(a, b fcp.ObjectID) int { return bytes.Compare(a[:], b[:]) })
	return fcp.ObjectHeader{Schema: fcp.SchemaConnectorState.ID(), Zone: o.Zone, CreatedAt: o.UpdatedAt,
		Provenance: fcp.Provenance{OriginZone: o.Zone, Chain: []fcp.ProvenanceStep{}, Taint: fcp.Untainted}, Refs: refs, ForeignRefs: []fcp.ObjectID{}}
}

func (o *connectorStateObject) check() error {
	switch {
	case o.UpdatedAt > maxUnixSeconds:
		return fcp.Errorf(fcp.CodeMalformed, "a connector state with a time after the year 9999")
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "a connector state in %.64q", string(o.Zone))
	case o.Root.IsZero() || o.Lease.IsZero() || o.LeaseSeq > math.MaxInt64 || uint32(o.LeaseSeq) == 0:
		return fcp.Errorf(fcp.CodeMissingField, "a connector state without its root, lease or fence")
	case o.Prev != nil && (len(o.Prev) != fcp.HashSize || fcp.ObjectID(o.Prev).IsZero()),
		o.Seq == 0 || o.Seq > MaxStateSeq || (o.Seq == 1) != (o.Prev == nil):
		return fcp.Errorf(fcp.CodeMalformed, "connector state %d does not say what it follows", o.Seq)
	}
	want, err := fcp.Marshal(o.header())
	if err != nil {
		return err
	}
	if got, err := fcp.Marshal(o.Header); err != nil || !bytes.Equal(got, want) {
		return fcp.Errorf(fcp.CodeMalformed, "connector state %d with a header that is not of its root, lease and predecessor", o.Seq)
	}
	if err := checkConnector(o.Connector, o.Instance); err != nil {
		return err
	}
	return o.State.check()
}

// SignConnectorState signs a state with the holder's node key and returns the payload.
func SignConnectorState(node *NodeKeys, s ConnectorStateSpec) ([]byte, error) {
	o := connectorStateObject{Connector: s.Connector, Instance: s.Instance, Zone: s.Zone, Root: s.Root, Seq: s.Seq, State: s.State,
		LeaseSeq: s.Fence, Lease: s.Lease}
	if !s.Prev.IsZero() {
		o.Prev = s.Prev[:]
	}
	if err := setTimes(timeField{&o.UpdatedAt, s.At}); err != nil {
		return nil, err
	}
	o.Header = o.header()
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(node, fcp.SchemaConnectorState, &o, &o.Signature)
}

// UnverifiedConnectorState is a state whose form was checked and nothing else.
type UnverifiedConnectorState struct {
	o connectorStateObject
	s signedBytes
}

// ConnectorState is a state that the holder of its lease signed.
type ConnectorState struct{ UnverifiedConnectorState }

// DecodeConnectorState decodes a state and checks its form. Errors: CodeMalformed,
// CodeNonCanonical, CodeSchema, CodeZone, CodeMissingField, CodeTooLarge.
func DecodeConnectorState(b []byte) (*UnverifiedConnectorState, error) {
	var u UnverifiedConnectorState
	var err error
	if u.s, err = decodeSigned(fcp.SchemaConnectorState, b, &u.o); err != nil {
		return nil, err
	}
	return &u, u.o.check()
}

// Spec returns what the state says.
func (u *UnverifiedConnectorState) Spec() ConnectorStateSpec {
	o := &u.o
	s := ConnectorStateSpec{Zone: o.Zone, Connector: o.Connector, Instance: o.Instance, Root: o.Root, Seq: o.Seq, State: o.State,
		At: fromUnix(o.UpdatedAt), Fence: o.LeaseSeq, Lease: o.Lease}
	if o.Prev != nil {
		s.Prev = fcp.ObjectID(o.Prev)
	}
	return s
}

// Reasons for refusing a state of a singleton writer.
const (
	ReasonStateLease fcp.Reason = "state.lease_mismatch" // its lease is not valid, of another thing, or has another fence
	ReasonStateStale fcp.Reason = "state.stale"          // a state under a higher fence is there
	ReasonStateFork  fcp.Reason = "state.forked"         // two states under one fence with one number
)

// Verify checks a state against its lease: the lease has the id and the fence that the
// state says, is for writing the state of its root, and its holder, whose key is key,
// signed the state. Errors: CodeDenied with ReasonStateLease, CodeSignature.
func (u *UnverifiedConnectorState) Verify(l *Lease, id fcp.ObjectID, key SigningPublic) (*ConnectorState, error) {
	s := l.Spec()
	if id != u.o.Lease || s.Fence != u.o.LeaseSeq || s.Thing != (Thing{u.o.Zone, u.o.Root, LeaseConnectorState}) || fcp.WriterOf(key[:]) != s.Holder {
		return nil, refuse(ReasonStateLease, "connector state %d under fence %d", u.o.Seq, u.o.LeaseSeq)
	}
	if !key.Verify(u.s.message, u.s.signature) {
		return nil, fcp.Errorf(fcp.CodeSignature, "connector state %d by the holder of fence %d", u.o.Seq, u.o.LeaseSeq)
	}
	return &ConnectorState{*u}, nil
}
