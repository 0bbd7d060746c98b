package engine

import (
	"bytes"
	"context"
	"slices"

	"fcp"
	"fcp/authority"
	"fcp/authority/crdt"
)

// MergedState is the state of a CRDT as far as its deltas are here.
type MergedState struct {
	crdt.State
	Actors []authority.ActorSeq // whose deltas are in it, up to which number; ascending by actor
	Since  int                  // deltas behind the newest snapshot
	Bytes  int                  // of those, encoded
}

// ReadCRDT joins the snapshots and the deltas that no snapshot covers. A delta that
// does not decrypt or decode is CodeCorrupt: somebody who may write the zone wrote it.
func (e *Engine) ReadCRDT(root *StateRoot) (*MergedState, error) { return e.mergeState(root, true) }

// VerifyCRDT joins every delta and no snapshot, and compares with ReadCRDT: a snapshot
// that leaves something out, or says more than there was, is CodeRootMismatch.
func (e *Engine) VerifyCRDT(root *StateRoot) error {
	a, err := e.ReadCRDT(root)
	if err != nil {
		return err
	}
	b, err := e.mergeState(root, false)
	if err != nil {
		return err
	}
	x, err := a.Encode()
	if err != nil {
		return err
	}
	if y, err := b.Encode(); err != nil || !bytes.Equal(x, y) {
		return fcp.Errorf(fcp.CodeRootMismatch, "the snapshots of %s are not its deltas", root.Connector)
	}
	return nil
}

func (e *Engine) mergeState(root *StateRoot, snapshots bool) (*MergedState, error) {
	s, err := crdt.New(root.CRDT)
	if err != nil {
		return nil, err
	}
	m, covered := &MergedState{State: s}, map[fcp.WriterID]uint64{}
	if snapshots {
		err = e.stateRecords(projStateSnapshots, root.Zone, root.ID, func(body []byte) (bool, error) {
			c, err := authority.DecodeStateSnapshot(body)
			if err != nil || c.CRDT != root.CRDT {
				return true, err
			}
			for _, a := range c.Covers {
				covered[a.Actor] = max(covered[a.Actor], a.Seq)
			}
			return true, e.joinChange(root, m, &c)
		})
		if err != nil {
			return nil, err
		}
	}
	last := map[fcp.WriterID]uint64{}
	for a, n := range covered {
		last[a] = n
	}
	err = e.stateRecords(projStateDeltas, root.Zone, root.ID, func(body []byte) (bool, error) {
		c, err := authority.DecodeStateDelta(body)
		if err != nil || c.CRDT != root.CRDT {
			return true, err
		}
		last[c.Actor] = max(last[c.Actor], c.Seq)
		if c.Seq <= covered[c.Actor] {
			return true, nil
		}
		m.Since, m.Bytes = m.Since+1, m.Bytes+len(body)
		return true, e.joinChange(root, m, &c)
	})
	for a, n := range last {
		m.Actors = append(m.Actors, authority.ActorSeq{Actor: a, Seq: n})
	}
	slices.SortFunc(m.Actors, func(a, b authority.ActorSeq) int { return bytes.Compare(a.Actor[:], b.Actor[:]) })
	return m, err
}

func (e *Engine) joinChange(root *StateRoot, m *MergedState, c *authority.StateChange) error {
	b, err := e.OpenState(root, &c.State)
	if err != nil {
		return err
	}
	d, err := crdt.Decode(root.CRDT, b)
	if err != nil {
		return fcp.Errorf(fcp.CodeCorrupt, "a change of %s by %.16s: %w", root.Connector, c.Actor, err)
	}
	return m.Join(d)
}

// ChangeState makes a change of a CRDT: change gets the state as it is here and returns
// the delta that it made, which is appended; nil: nothing changed. When a snapshot is
// due it is appended too. It returns the state behind the change.
func (e *Engine) ChangeState(ctx context.Context, root *StateRoot, change func(s crdt.State, self fcp.WriterID, at fcp.Time) (crdt.State, error)) (*MergedState, error) {
	if root.Model != authority.StateCRDT {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "the state of %s is %s", root.Connector, root.Model).WithNext("replace it whole with `fcpctl state write`, under its lease")
	}
	mu := &e.leases.effects[stripe(root.ID)] // this device numbers one delta at a time
	mu.Lock()
	defer mu.Unlock()
	m, err := e.ReadCRDT(root)
	if err != nil {
		return nil, err
	}
	self := e.node.Writer()
	delta, err := change(m.State, self, fcp.TimeFromWall(e.env.Now()))
	if err != nil || delta == nil {
		return m, err
	}
	if _, err := m.Encode(); err != nil {
		return nil, err // the whole must fit, or no snapshot ever could
	}
	c := authority.StateChange{Seq: 1}
	i, known := slices.BinarySearchFunc(m.Actors, self, func(a authority.ActorSeq, w fcp.WriterID) int { return bytes.Compare(a.Actor[:], w[:]) })
	if known {
		c.Seq = m.Actors[i].Seq + 1
		m.Actors[i].Seq++
	} else {
		m.Actors = slices.Insert(m.Actors, i, authority.ActorSeq{Actor: self, Seq: 1})
	}
	n, err := e.appendChange(ctx, root, delta, c)
	if err != nil {
		return nil, err
	}
	m.Since, m.Bytes = m.Since+1, m.Bytes+n
	if m.Since < authority.SnapshotUpdates && m.Bytes < authority.SnapshotBytes {
		return m, nil
	}
	return m, e.snapshotState(ctx, root, m)
}

// SnapshotState appends a snapshot of what is here of a CRDT.
func (e *Engine) SnapshotState(ctx context.Context, root *StateRoot) (*MergedState, error) {
	mu := &e.leases.effects[stripe(root.ID)]
	mu.Lock()
	defer mu.Unlock()
	m, err := e.ReadCRDT(root)
	if err != nil {
		return nil, err
	}
	if len(m.Actors) == 0 {
		return nil, fcp.Errorf(fcp.CodeNotFound, "%s has no changes yet", root.Connector)
	}
	return m, e.snapshotState(ctx, root, m)
}

func (e *Engine) snapshotState(ctx context.Context, root *StateRoot, m *MergedState) error {
	_, err := e.appendChange(ctx, root, m.State, authority.StateChange{Covers: m.Actors})
	m.Since, m.Bytes = 0, 0
	return err
}

// appendChange appends a delta or a snapshot and returns its encoded length.
func (e *Engine) appendChange(ctx context.Context, root *StateRoot, s crdt.State, c authority.StateChange) (int, error) {
	z := e.ring.Load().zones[root.Zone]
	if z == nil {
		return 0, e.unknownZone(root.Zone)
	}
	plain, err := s.Encode()
	if err != nil {
		return 0, err
	}
	c.Zone, c.Root, c.CRDT, c.Actor, c.At = root.Zone, root.ID, root.CRDT, e.node.Writer(), e.env.Now()
	if c.State, err = authority.SealState(e.env.Rand, z.current(), root.ID, plain); err != nil {
		return 0, err
	}
	body, err := authority.EncodeStateChange(c)
	if err != nil {
		return 0, err
	}
	kind, schema := fcp.KindStateDelta, fcp.SchemaStateDelta
	if c.Seq == 0 {
		kind, schema = fcp.KindStateSnapshot, fcp.SchemaStateSnapshot
	}
	_, err = e.appendControl(ctx, root.Zone, kind, e.objectID(root.Zone, schema, body), body)
	return len(body), err
}
