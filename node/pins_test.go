package node

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/engine/symbols"
)

// TestAPinMakesNamesWhole pins names on one device from another: what is there, what is
// written later, and what is in no segment yet. Then it reads them with nobody there.
func TestAPinMakesNamesWhole(t *testing.T) {
	m := newMesh(t, 3, func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 2, Of: 3} })
	m.together()
	ctx := within(t, 60*time.Second)
	big, late, small := randomBytes(3<<20, 1), randomBytes(2<<20, 2), randomBytes(20<<10, 3)
	m.put(0, "photos/big", big)
	m.put(0, "films/big", randomBytes(3<<20, 4))
	m.sealed(0)
	device := m.nodes[2].n.Writer()
	pin := engine.Pin{Key: "photos/", Prefix: true, Device: device}
	if _, err := m.nodes[0].e.SetPin(ctx, pin); err != nil {
		t.Fatal(err)
	}
	again, err := m.nodes[0].e.SetPin(ctx, pin)
	if err != nil || again.Number != 1 {
		t.Errorf("the same pin again: %+v, %v", again, err)
	}
	if err := m.nodes[0].n.WaitPinned(ctx, "", "photos/", true); err != nil {
		t.Fatal(err)
	}
	m.put(0, "photos/late", late)
	m.sealed(0)
	m.put(1, "photos/small", small)
	eventually(t, 60*time.Second, "three names are whole", func() bool {
		all, err := m.nodes[0].n.Pins()
		return err == nil && len(all) == 1 && all[0].Complete() && all[0].Names == 3
	})
	held := 0
	m.nodes[2].n.pins.mu.Lock()
	for id := range m.nodes[2].n.pins.held {
		held++
		m.nodes[2].n.pins.mu.Unlock()
		if !m.nodes[2].n.Pinned(id) {
			t.Error("a segment that a pin needs may be dropped")
		}
		m.nodes[2].n.pins.mu.Lock()
	}
	m.nodes[2].n.pins.mu.Unlock()
	if held == 0 {
		t.Error("no segment is pinned")
	}
	m.leave(0)
	m.leave(1)
	for key, want := range map[string][]byte{"photos/big": big, "photos/late": late, "photos/small": small} {
		if got, err := m.get(2, key); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not whole: %v", key, err)
		}
	}
	if _, err := m.get(2, "films/big"); !errors.Is(err, fcp.CodeNotEnough) {
		t.Error("what was not pinned is there as well:", err)
	}
	pin.Off = true
	if _, err := m.nodes[2].e.SetPin(ctx, pin); err != nil {
		t.Fatal(err)
	}
	if all, err := m.nodes[2].n.Pins(); err != nil || len(all) != 0 {
		t.Errorf("a pin that was taken back: %+v, %v", all, err)
	}
	if _, err := m.nodes[2].e.SetPin(ctx, pin); !errors.Is(err, fcp.CodeNotFound) {
		t.Error("a pin that is none is taken back:", err)
	}
}

// TestWaitingForAPinOfThisDeviceLooksAnew asks as soon as another name is there: what was
// said before it came does not count.
func TestWaitingForAPinOfThisDeviceLooksAnew(t *testing.T) {
	m := newMesh(t, 1, nil)
	ctx := within(t, 60*time.Second)
	if _, err := m.nodes[0].e.SetPin(ctx, engine.Pin{Key: "photos/", Prefix: true, Device: m.nodes[0].n.Writer()}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		m.put(0, "photos/"+string(rune('a'+i)), []byte{byte(i)})
		if err := m.nodes[0].n.WaitPinned(ctx, "", "photos/", true); err != nil {
			t.Fatal(err)
		}
		if all, err := m.nodes[0].n.Pins(); err != nil || len(all) != 1 || !all[0].Complete() || all[0].Names != uint64(i+1) {
			t.Fatalf("after %d names: %+v, %v", i+1, all, err)
		}
	}
}
