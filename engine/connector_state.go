package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
)

// StateRoot is a connector's state as it was defined.
type StateRoot struct {
	authority.StateRootSpec
	ID     fcp.ObjectID
	Writer fcp.WriterID // who defined it
}

// Thing is what a lease for writing the state is held on.
func (r *StateRoot) Thing() authority.Thing {
	return authority.Thing{Zone: r.Zone, Subject: r.ID, Purpose: authority.LeaseConnectorState}
}

// StateVersion is one state of a singleton writer.
type StateVersion struct {
	authority.ConnectorStateSpec
	ID     fcp.ObjectID
	Holder fcp.WriterID // who wrote it
}

// objectID is the id of a clear object, under the zone's oldest key: it stays when
// the keys change.
func (e *Engine) objectID(zone fcp.ZoneID, schema fcp.Schema, body []byte) fcp.ObjectID {
	z := e.ring.Load().zones[zone]
	if z == nil {
		return fcp.ObjectID{}
	}
	return z.versions[len(z.versions)-1].KeyedObjectID(schema.Hash(), body)
}

// DefineState appends the root of a connector's state. spec.At is set to now and
// spec.Schema 0 is 1. Errors: CodeZone, CodeMalformed, CodeInvalidArgument; CodeConflict
// when the connector has a state in the zone already.
func (e *Engine) DefineState(ctx context.Context, spec authority.StateRootSpec) (*StateRoot, error) {
	spec.At, spec.Schema = e.env.Now(), max(spec.Schema, 1)
	body, err := authority.EncodeStateRoot(e.node.Writer(), spec)
	if err != nil {
		return nil, err
	}
	if e.ring.Load().zones[spec.Zone] == nil {
		return nil, e.unknownZone(spec.Zone)
	}
	roots, err := e.StateRoots(spec.Zone)
	if err != nil {
		return nil, err
	}
	for i := range roots {
		if r := &roots[i]; r.Connector == spec.Connector && r.Instance == spec.Instance {
			return nil, fcp.Errorf(fcp.CodeConflict, "%s has a state in %s", spec.Connector, spec.Zone).WithNext("look with `fcpctl state ls`")
		}
	}
	id := e.objectID(spec.Zone, fcp.SchemaConnectorRoot, body)
	if _, err := e.appendControl(ctx, spec.Zone, fcp.KindStateDefined, id, body); err != nil {
		return nil, err
	}
	return &StateRoot{spec, id, e.node.Writer()}, nil
}

// StateRoots returns the roots of connector states in a zone, by connector, instance
// and id.
func (e *Engine) StateRoots(zone fcp.ZoneID) (out []StateRoot, err error) {
	err = e.records(zone, projStateRoots, func(body []byte) error {
		spec, writer, err := authority.DecodeStateRoot(body)
		out = append(out, StateRoot{spec, e.objectID(zone, fcp.SchemaConnectorRoot, body), writer})
		return err
	})
	slices.SortFunc(out, func(a, b StateRoot) int {
		if c := bytes.Compare([]byte(a.Connector+"\x00"+a.Instance), []byte(b.Connector+"\x00"+b.Instance)); c != 0 {
			return c
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	return out, err
}

// FindState returns the root of a connector's state. Errors: CodeNotFound; CodeGuess
// when two devices defined one each.
func (e *Engine) FindState(zone fcp.ZoneID, connector, instance fcp.CanonicalID) (*StateRoot, error) {
	roots, err := e.StateRoots(zone)
	if err != nil {
		return nil, err
	}
	roots = slices.DeleteFunc(roots, func(r StateRoot) bool { return r.Connector != connector || r.Instance != instance })
	switch len(roots) {
	case 0:
		return nil, fcp.Errorf(fcp.CodeNotFound, "no state of %s in %s", connector, zone).WithNext("define it with `fcpctl state define`")
	case 1:
		return &roots[0], nil
	}
	return nil, fcp.Errorf(fcp.CodeGuess, "%d devices defined a state of %s in %s", len(roots), connector, zone)
}

// records of one root in a projection, in key order, until fn returns false.
func (e *Engine) stateRecords(projection string, zone fcp.ZoneID, root fcp.ObjectID, fn func(body []byte) (bool, error)) error {
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		return nil
	}
	prefix := append(appendPrefix(nil, no, e.fold.slot(projection)), root[:]...)
	return e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) { return fn(bytes.Clone(v.Canonical)) })
}

// stateReader verifies the states of one root.
type stateReader struct {
	e    *Engine
	f    *ZoneFacts
	keys map[fcp.WriterID]authority.SigningPublic
	root *StateRoot
}

func (e *Engine) stateReader(root *StateRoot) (*stateReader, error) {
	f, err := e.ZoneFacts(root.Zone)
	if err != nil {
		return nil, err
	}
	keys, err := e.signingKeys()
	return &stateReader{e, f, keys, root}, err
}

// verify returns the state of a body; nil when it does not count.
func (r *stateReader) verify(body []byte) (*StateVersion, error) {
	u, err := authority.DecodeConnectorState(body)
	if err != nil {
		return nil, err
	}
	s := u.Spec()
	var out *StateVersion
	t := r.root.Thing()
	err = r.e.eachLease(r.f, fenceKey(leaseKeyPrefix(nil, t), s.Fence), func(l *LeaseState) (bool, error) {
		holder := l.Spec().Holder
		if _, err := u.Verify(l.Lease, l.ID, r.keys[holder]); err != nil {
			return true, nil
		}
		out = &StateVersion{s, r.e.objectID(s.Zone, fcp.SchemaConnectorState, body), holder}
		return false, nil
	})
	return out, err
}

// HeadState returns the state of a singleton writer that is in force: the valid one
// with the highest fence and, under it, number. nil for none. CodeGuess with
// authority.ReasonStateFork when two are the highest: the next one, under a newer
// lease, names the one that it follows.
func (e *Engine) HeadState(root *StateRoot) (*StateVersion, error) {
	r, err := e.stateReader(root)
	if err != nil {
		return nil, err
	}
	var head, twin *StateVersion
	err = e.stateRecords(projStateWrites, root.Zone, root.ID, func(body []byte) (bool, error) {
		v, err := r.verify(body)
		switch {
		case err != nil || v == nil:
			return true, err
		case head == nil:
			head = v
			return true, nil
		case v.Fence == head.Fence && v.Seq == head.Seq:
			twin = v
		}
		return false, nil
	})
	if err == nil && twin != nil {
		err = fcp.Errorf(fcp.CodeGuess, "states %.16s and %.16s are both number %d under fence %d: %w", head.ID, twin.ID, head.Seq, head.Fence, authority.ReasonStateFork).
			WithNext("acquire the lease anew and write with --follow, naming the one to keep")
	}
	return head, err
}

// EachState calls fn with every valid state of a singleton writer, the head first, and
// says whether it is on the chain that leads to the head.
func (e *Engine) EachState(root *StateRoot, fn func(v *StateVersion, onChain bool) error) error {
	r, err := e.stateReader(root)
	if err != nil {
		return err
	}
	var next fcp.ObjectID
	first := true
	return e.stateRecords(projStateWrites, root.Zone, root.ID, func(body []byte) (bool, error) {
		v, err := r.verify(body)
		if err != nil || v == nil {
			return true, err
		}
		on := first || v.ID == next
		if on {
			next = v.Prev // below it in key order: its fence is not higher, its number lower
		}
		first = false
		return true, fn(v, on)
	})
}

// OpenState decrypts a state.
func (e *Engine) OpenState(root *StateRoot, s *authority.SealedState) ([]byte, error) {
	k := e.ring.Load().byID[s.Key]
	if k == nil {
		return nil, errNoZoneKeys(root.Zone)
	}
	return s.Open(k, root.ID)
}

// WriteState appends the next state of a singleton writer, for which this node must
// hold the lease now. follow names the state that it follows; zero: the head. Errors:
// those of OwnLease, Effect and HeadState; CodeFenced with authority.ReasonStateStale
// when a state under a higher fence is there; CodeConflict when follow is not the head,
// nor one of two heads; CodeTooLarge.
func (e *Engine) WriteState(ctx context.Context, root *StateRoot, plain []byte, follow fcp.ObjectID) (*StateVersion, error) {
	if root.Model != authority.StateSingleton {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "the state of %s is %s", root.Connector, root.Model).WithNext("a CRDT is changed with `fcpctl state change`")
	}
	z := e.ring.Load().zones[root.Zone]
	if z == nil {
		return nil, e.unknownZone(root.Zone)
	}
	l, err := e.OwnLease(root.Thing())
	if err != nil {
		return nil, err
	}
	var out *StateVersion
	err = e.Effect(ctx, &l.UnverifiedLease, func(ctx context.Context) error {
		prev, err := e.follows(root, follow, l.Spec().Fence)
		if err != nil {
			return err
		}
		s := authority.ConnectorStateSpec{Zone: root.Zone, Connector: root.Connector, Instance: root.Instance, Root: root.ID, Seq: 1,
			At: e.env.Now().Truncate(time.Second), Fence: l.Spec().Fence, Lease: l.ID}
		if prev != nil {
			s.Prev, s.Seq = prev.ID, prev.Seq+1
		}
		if s.State, err = authority.SealState(e.env.Rand, z.current(), root.ID, plain); err != nil {
			return err
		}
		body, err := authority.SignConnectorState(e.node, s)
		if err != nil {
			return err
		}
		out = &StateVersion{s, e.objectID(root.Zone, fcp.SchemaConnectorState, body), e.node.Writer()}
		_, err = e.appendControl(ctx, root.Zone, fcp.KindStateWritten, out.ID, body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// follows returns the state that the next one under a fence follows; nil: none.
func (e *Engine) follows(root *StateRoot, follow fcp.ObjectID, fence authority.Fence) (*StateVersion, error) {
	head, err := e.HeadState(root)
	forked := authority.ReasonOf(err) == authority.ReasonStateFork
	switch {
	case err != nil && !(forked && !follow.IsZero()):
		return nil, err
	case head != nil && (fence < head.Fence || forked && fence == head.Fence):
		return nil, &fcp.Error{Code: fcp.CodeFenced, Detail: "a state under this or a higher fence is there: " + string(authority.ReasonStateStale), Cause: authority.ReasonStateStale}
	case follow.IsZero() || head != nil && head.ID == follow:
		return head, nil
	}
	var found *StateVersion
	if forked {
		err := e.EachState(root, func(v *StateVersion, _ bool) error {
			if v.ID == follow && v.Fence == head.Fence && v.Seq == head.Seq {
				found = v
			}
			return nil
		})
		if err != nil || found != nil {
			return found, err
		}
	}
	return nil, fcp.Errorf(fcp.CodeConflict, "state %.16s is not the head of %s", follow, root.Connector)
}

// The projections of connector state keep the bodies of roots, states, deltas and
// snapshots. Keys: nothing; root, fence and number with the highest first; root, actor,
// number; root, actor.

func stateRootKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	s, writer, err := authority.DecodeStateRoot(ev.Content.Body)
	if err != nil || s.Zone != ev.From.Feed.Zone || writer != ev.From.Feed.Writer {
		return nil
	}
	return append(key, s.Connector...)
}

func stateRootRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	s, writer, err := authority.DecodeStateRoot(body)
	if err != nil {
		return "", nil, err
	}
	return s.Connector.String(), map[string]any{"instance": s.Instance.String(), "model": string(s.Model), "crdt": string(s.CRDT),
		"schema_version": s.Schema, "created": s.At, "writer": writer.String()}, nil
}

func stateWriteKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	u, err := authority.DecodeConnectorState(ev.Content.Body)
	if err != nil || u.Spec().Zone != ev.From.Feed.Zone {
		return nil
	}
	s := u.Spec()
	return binary.BigEndian.AppendUint64(fenceKey(append(key, s.Root[:]...), s.Fence), ^s.Seq)
}

func stateWriteRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	u, err := authority.DecodeConnectorState(body)
	if err != nil {
		return "", nil, err
	}
	s := u.Spec()
	return s.Root.String(), map[string]any{"connector": s.Connector.String(), "instance": s.Instance.String(), "seq": s.Seq,
		"lease_seq": uint64(s.Fence), "lease": s.Lease.String(), "prev": s.Prev.String(), "updated": s.At}, nil
}

func stateDeltaKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	c, err := authority.DecodeStateDelta(ev.Content.Body)
	if err != nil {
		return nil
	}
	return stateChangeKey(ev, &c, key)
}

func stateSnapshotKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	c, err := authority.DecodeStateSnapshot(ev.Content.Body)
	if err != nil {
		return nil
	}
	return stateChangeKey(ev, &c, key)
}

// stateChangeKey takes a change in a feed of its actor.
func stateChangeKey(ev *Event, c *authority.StateChange, key []byte) []byte {
	if c.Zone != ev.From.Feed.Zone || c.Actor != ev.From.Feed.Writer {
		return nil
	}
	return binary.BigEndian.AppendUint64(append(append(key, c.Root[:]...), c.Actor[:]...), c.Seq)
}

func stateDeltaRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	c, err := authority.DecodeStateDelta(body)
	return stateChangeRow(&c, err)
}

func stateSnapshotRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	c, err := authority.DecodeStateSnapshot(body)
	return stateChangeRow(&c, err)
}

func stateChangeRow(c *authority.StateChange, err error) (string, map[string]any, error) {
	if err != nil {
		return "", nil, err
	}
	return c.Root.String(), map[string]any{"crdt": string(c.CRDT), "actor": c.Actor.String(), "seq": c.Seq, "covers": len(c.Covers), "updated": c.At}, nil
}
