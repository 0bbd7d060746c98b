package engine

import (
	"bytes"
	"encoding/binary"

	"fcp"
	"fcp/authority"
)

// recordedHead is what a head says that its writer signed.
type recordedHead struct {
	spec      authority.HeadSpec
	witnesses []fcp.WriterID       // who signed besides
	doubted   *authority.AuditHead // nil once the witnesses' signatures were found good
}

// headMemo opens heads and remembers what they say: the fold asks for each twice,
// and Maintain for the newest of every feed each time. The zero value is ready; safe
// for concurrent use.
type headMemo struct{ memo[recordedHead] }

// open is authority.OpenHead. It keeps nothing of b.
func (m *headMemo) open(b []byte) (recordedHead, error) {
	if h, ok := m.get(b); ok {
		return h, nil
	}
	o, err := authority.OpenHead(bytes.Clone(b))
	if err != nil {
		return recordedHead{}, err
	}
	h := recordedHead{spec: o.Spec(), witnesses: o.Witnesses()}
	if len(h.witnesses) > 0 {
		h.doubted = o
	}
	m.put(b, h)
	return h, nil
}

// verify is authority.VerifyHead. A writer id is the hash of its key, so what was good
// once with the keys that witnesses knew then is good.
func (m *headMemo) verify(b []byte, witnesses authority.Signers) (recordedHead, error) {
	h, err := m.open(b)
	if err != nil || h.doubted == nil {
		return h, err
	}
	if err := h.doubted.VerifyWitnesses(witnesses); err != nil {
		return recordedHead{}, err
	}
	h.doubted = nil
	m.put(b, h)
	return h, nil
}

// key is the key of the projection of heads: feed id, u64be size.
func (m *headMemo) key(_ authority.OwnerPublic, ev *Event, key []byte) []byte {
	h, err := m.open(ev.Content.Body)
	if err != nil || h.spec.Feed.Zone != ev.From.Feed.Zone {
		return nil
	}
	id := h.spec.Feed.ID()
	return binary.BigEndian.AppendUint64(append(key, id[:]...), h.spec.Size)
}

func (m *headMemo) row(_ authority.OwnerPublic, body []byte) (string, map[string]any, error) {
	h, err := m.open(body)
	if err != nil {
		return "", nil, err
	}
	s := &h.spec
	var witnesses []string
	for _, w := range h.witnesses {
		witnesses = append(witnesses, w.String())
	}
	return s.Feed.ID().String(), map[string]any{"writer": s.Feed.Writer.String(), "size": s.Size, "root": s.Root.String(),
		"hash": s.Hash.String(), "epoch": s.Epoch, "witnesses": witnesses}, nil
}
