package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"

	"fcp"
	"fcp/authority"
)

// Deletion in a mesh (docs/compaction.md "In a mesh"). A retention mark names how far
// each feed reached; each member says in its own feed once it holds all of that.
// Until every member of the zone that was not taken out has said so, nothing that the
// mark makes garbage is dropped: somebody who was away may have named it meanwhile,
// and what he wrote before he acknowledged is known here when his word is.

func deletionAckKey(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	a, err := authority.DecodeDeletionAck(ev.Content.Body)
	if err != nil || a.Zone != ev.From.Feed.Zone || a.Node != ev.From.Feed.Writer {
		return nil
	}
	return append(append(key, a.Node[:]...), a.Subject[:]...)
}

func deletionAckRow(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	a, err := authority.DecodeDeletionAck(body)
	if err != nil {
		return "", nil, err
	}
	row := map[string]any{"node": a.Node.String(), "subject": a.Subject.String()}
	if a.Mark > 0 {
		row["retention_mark"] = a.Mark
	}
	return a.Node.String(), row, nil
}

// deletionAcks returns who acknowledged what in a zone.
func (e *Engine) deletionAcks(zone fcp.ZoneID) (map[fcp.WriterID]map[fcp.Hash]bool, error) {
	out := map[fcp.WriterID]map[fcp.Hash]bool{}
	err := e.records(zone, projDeletionAcks, func(body []byte) error {
		a, err := authority.DecodeDeletionAck(body)
		if err != nil {
			return err
		}
		if out[a.Node] == nil {
			out[a.Node] = map[fcp.Hash]bool{}
		}
		out[a.Node][a.Subject] = true
		return nil
	})
	return out, err
}

// zoneMembers returns the devices that hold a zone's keys and were not taken out, by
// writer, this one left out.
func (e *Engine) zoneMembers(zone fcp.ZoneID) ([]*authority.Device, error) {
	newest, err := e.newestManifest(zone)
	if err != nil {
		return nil, err
	}
	devices, err := e.devices()
	if err != nil {
		return nil, err
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return nil, err
	}
	recipients := newest.Recipients()
	var out []*authority.Device
	for w, d := range devices {
		if w != e.node.Writer() && !revoked[w] && slices.Contains(recipients, w.String()) {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, func(a, b *authority.Device) int {
		x, y := a.Writer(), b.Writer()
		return bytes.Compare(x[:], y[:])
	})
	return out, nil
}

// Acknowledged is how far a member is with deletions of a zone.
type Acknowledged struct {
	Writer fcp.WriterID
	Name   string
	Mark   uint64 // number of the newest retention mark that it holds all of; 0: none
}

// acknowledgements returns for each other member the newest of the zone's marks that
// it acknowledged, and the newest number that all have.
func (e *Engine) acknowledgements(zone fcp.ZoneID, marks []placedCheckpoint) (list []Acknowledged, all uint64, err error) {
	members, err := e.zoneMembers(zone)
	if err != nil || len(marks) == 0 {
		return nil, 0, err
	}
	acks, err := e.deletionAcks(zone)
	if err != nil {
		return nil, 0, err
	}
	all = marks[len(marks)-1].Seq()
	for _, d := range members {
		a := Acknowledged{Writer: d.Writer(), Name: d.Name()}
		for _, m := range marks { // each covers all that those before it cover
			if acks[a.Writer][m.Hash()] {
				a.Mark = m.Seq()
			}
		}
		all = min(all, a.Mark)
		list = append(list, a)
	}
	return list, all, nil
}

// Acknowledgements returns how far the other members of a zone are with its retention
// marks, by name, and the number of the newest mark; 0 when there is none.
func (e *Engine) Acknowledgements(zone fcp.ZoneID) (list []Acknowledged, newest uint64, err error) {
	marks, err := e.checkpoints(zone)
	if err != nil || len(marks) == 0 {
		return nil, 0, err
	}
	list, _, err = e.acknowledgements(zone, marks)
	slices.SortFunc(list, func(a, b Acknowledged) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), bytes.Compare(a.Writer[:], b.Writer[:]))
	})
	return list, marks[len(marks)-1].Seq(), err
}

// holdsMark reports whether every control event that a mark covers is here, with the
// same hashes. Bodies are where placement wants them.
func (e *Engine) holdsMark(m *placedCheckpoint) (bool, error) {
	for _, f := range m.Feeds() {
		if fcp.Plane(f.Plane) != fcp.PlaneControl {
			continue
		}
		no, ok := e.log.FeedNo(fcp.Feed{Zone: m.Zone(), Writer: f.Writer, Incarnation: f.Incarnation, Plane: fcp.PlaneControl})
		if !ok {
			return false, nil
		}
		if head, _ := e.log.Head(no); head.Seq < f.Seq {
			return false, nil
		}
		_, hash, err := e.log.ReadFull(no, f.Seq)
		if err != nil {
			return false, err
		}
		if hash != f.Hash {
			return false, nil // the owner signed another history of a forked feed
		}
	}
	return true, nil
}

// AcknowledgeMarks says in this node's feed, for each zone that others hold too, that
// all of the newest retention mark is here, once it is. It returns how many marks were
// acknowledged, and how many cover what is not here yet.
func (e *Engine) AcknowledgeMarks(ctx context.Context) (acked, pending int, err error) {
	for _, zone := range e.Zones() {
		if e.ring.Load().zones[zone] == nil {
			continue
		}
		mark, err := e.unacknowledged(zone)
		if err != nil {
			return acked, pending, err
		}
		if mark == nil {
			continue
		}
		here, err := e.holdsMark(mark)
		if err != nil {
			return acked, pending, err
		}
		if !here {
			pending++
			continue
		}
		if err := e.acknowledge(ctx, authority.DeletionAck{Zone: zone, Subject: mark.Hash(), Mark: mark.Seq()}); err != nil {
			return acked, pending, err
		}
		acked++
	}
	return acked, pending, nil
}

// unacknowledged returns a zone's newest mark when this node owes others a word on it,
// else nil.
func (e *Engine) unacknowledged(zone fcp.ZoneID) (*placedCheckpoint, error) {
	marks, err := e.checkpoints(zone)
	if errors.Is(err, fcp.CodeEquivocation) || err == nil && len(marks) == 0 {
		return nil, nil // of two marks with one number none counts
	}
	if err != nil {
		return nil, err
	}
	others, err := e.zoneMembers(zone)
	if err != nil || len(others) == 0 {
		return nil, err
	}
	newest := &marks[len(marks)-1]
	acks, err := e.deletionAcks(zone)
	if err != nil || acks[e.node.Writer()][newest.Hash()] {
		return nil, err
	}
	return newest, nil
}

// acknowledge appends an acknowledgement of this node.
func (e *Engine) acknowledge(ctx context.Context, a authority.DeletionAck) error {
	a.Node = e.node.Writer()
	body, err := authority.EncodeDeletionAck(a)
	if err != nil {
		return err
	}
	_, err = e.AppendSigned(ctx, a.Zone, fcp.KindDeletionAcked, body)
	return err
}
