package node

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"fcp"
	"fcp/engine/symbols"
)

// TestPinnedBodiesAreReadAlone pins a zone on one node from the writer, and on another
// from shares after the writer is gone; then each reads alone.
func TestPinnedBodiesAreReadAlone(t *testing.T) {
	m := newMesh(t, 4, func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 2, Of: 4} })
	m.together()
	body := randomBytes(3<<20, 1)
	m.put(0, "big", body)
	m.sealed(0)
	ctx := within(t, 30*time.Second)
	p, err := m.nodes[1].n.Pin(ctx, fcp.ZonePrivate)
	if err != nil || p.Brought == 0 || p.Brought != p.Segments || p.Bytes < 3<<20 {
		t.Fatalf("pin from the writer: %+v, %v", p, err)
	}
	if again, err := m.nodes[1].n.Pin(ctx, fcp.ZonePrivate); err != nil || again.Brought != 0 || again.Segments != p.Segments {
		t.Errorf("pin again: %+v, %v", again, err)
	}
	m.leave(0)
	m.leave(1)
	if p, err = m.nodes[2].n.Pin(ctx, fcp.ZonePrivate); err != nil || p.Brought != p.Segments {
		t.Fatalf("pin from shares: %+v, %v", p, err)
	}
	m.leave(3)
	if got, err := m.get(2, "big"); err != nil || !bytes.Equal(got, body) {
		t.Error("read alone:", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := m.nodes[2].n.Pin(ended, fcp.ZonePrivate); err != nil && fcp.CodeOf(err) != fcp.CodeInterrupted {
		t.Error("pin with an ended context:", err)
	}
}

// leave ends a node that takes leave.
func (m *mesh) leave(i int) {
	m.t.Helper()
	x := m.nodes[i]
	if err := errors.Join(x.n.Close(), x.e.Close()); err != nil {
		m.t.Error(err)
	}
	x.n, x.e = nil, nil
}
