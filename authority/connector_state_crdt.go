package authority

import (
	"bytes"
	"time"

	"fcp"
	"fcp/authority/crdt"
)

// ActorSeq says that a device's deltas up to a number are covered.
type ActorSeq struct {
	Actor fcp.WriterID `cbor:"actor"`
	Seq   uint64       `cbor:"seq"`
}

// StateChange is a delta of a CRDT, or with Covers a snapshot of it. It is unsigned: it
// counts in a feed of its actor.
type StateChange struct {
	Zone   fcp.ZoneID
	Root   fcp.ObjectID
	CRDT   crdt.Kind
	Actor  fcp.WriterID
	Seq    uint64     // of a delta: the actor's own number, from 1; of a snapshot 0
	Covers []ActorSeq // of a snapshot: strictly ascending by actor, not empty
	State  SealedState
	At     time.Time // to the second
}

type stateChangeObject struct {
	Format    uint64       `cbor:"format"`
	Zone      fcp.ZoneID   `cbor:"zone_id"`
	Root      fcp.ObjectID `cbor:"root"`
	CRDT      crdt.Kind    `cbor:"crdt_type"`
	Actor     fcp.WriterID `cbor:"actor"`
	Seq       uint64       `cbor:"seq,omitempty"`
	Covers    []ActorSeq   `cbor:"covers,omitempty"`
	State     SealedState  `cbor:"state"`
	UpdatedAt uint64       `cbor:"updated_at"`
}

func (c *StateChange) schema() fcp.Schema {
	if c.Seq == 0 {
		return fcp.SchemaStateSnapshot
	}
	return fcp.SchemaStateDelta
}

func (o *stateChangeObject) check(schema fcp.Schema) error {
	if err := checkCommon(schema, o.Format, o.UpdatedAt); err != nil {
		return err
	}
	snapshot := schema.ID() == fcp.SchemaStateSnapshot.ID()
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "a state change in %.64q", string(o.Zone))
	case o.Root.IsZero() || o.Actor.IsZero() || !o.CRDT.Valid() || o.Seq > MaxStateSeq:
		return fcp.Errorf(fcp.CodeMalformed, "a state change without a root, an actor or a model")
	case snapshot != (o.Seq == 0) || snapshot != (len(o.Covers) > 0):
		return fcp.Errorf(fcp.CodeMalformed, "a state change that is neither a delta nor a snapshot")
	case len(o.Covers) > crdt.MaxActors:
		return fcp.Errorf(fcp.CodeTooLarge, "a snapshot that covers %d devices, the limit is %d", len(o.Covers), crdt.MaxActors)
	}
	for i, c := range o.Covers {
		if c.Seq == 0 || c.Seq > MaxStateSeq || i > 0 && bytes.Compare(o.Covers[i-1].Actor[:], c.Actor[:]) >= 0 {
			return fcp.Errorf(fcp.CodeMalformed, "a snapshot whose devices are not strictly ascending")
		}
	}
	return o.State.check()
}

// EncodeStateChange returns the payload of a delta or a snapshot.
func EncodeStateChange(c StateChange) ([]byte, error) {
	o := stateChangeObject{Format: ObjectFormat, Zone: c.Zone, Root: c.Root, CRDT: c.CRDT, Actor: c.Actor, Seq: c.Seq, Covers: c.Covers, State: c.State}
	if err := setTimes(timeField{&o.UpdatedAt, c.At}); err != nil {
		return nil, err
	}
	if err := o.check(c.schema()); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(c.schema(), &o)
}

// DecodeStateDelta decodes a delta.
func DecodeStateDelta(b []byte) (StateChange, error) {
	return decodeStateChange(fcp.SchemaStateDelta, b)
}

// DecodeStateSnapshot decodes a snapshot.
func DecodeStateSnapshot(b []byte) (StateChange, error) {
	return decodeStateChange(fcp.SchemaStateSnapshot, b)
}

func decodeStateChange(schema fcp.Schema, b []byte) (StateChange, error) {
	var o stateChangeObject
	if err := fcp.UnmarshalPayload(schema, b, &o); err != nil {
		return StateChange{}, err
	}
	return StateChange{o.Zone, o.Root, o.CRDT, o.Actor, o.Seq, o.Covers, o.State, fromUnix(o.UpdatedAt)}, o.check(schema)
}
