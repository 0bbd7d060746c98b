package node

import (
	"bytes"
	"context"
	"testing"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/engine/symbols"
)

// TestPackingMakesADeviceReady packs with budgets that fit nothing, what is wanted, and
// everything; what the report promises is then read with nobody there.
func TestPackingMakesADeviceReady(t *testing.T) {
	m := newMesh(t, 3, func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 2, Of: 3} })
	m.together()
	ctx := within(t, 2*time.Minute)
	bodies := map[string][]byte{"pinned": randomBytes(2<<20, 1), "read": randomBytes(2<<20, 2), "rest": randomBytes(2<<20, 3)}
	for _, key := range []string{"pinned", "read", "rest"} {
		m.put(0, key, bodies[key])
		m.sealed(0)
	}
	x := m.nodes[2]
	pack := func(o PackOptions) *PackReport {
		t.Helper()
		r, err := x.n.Pack(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	eventually(t, time.Minute, "three names are known", func() bool { return pack(PackOptions{DryRun: true}).Names == 3 })
	// A pin that the daemon did not carry out yet counts first: its loop is not waited for.
	x.n.Accessed(engine.DefaultZone, "read")
	r := pack(PackOptions{For: time.Hour, DryRun: true, Budget: 1 << 30})
	if r.Wanted != 1 || r.Ready != 0 || r.Whole != 0 || r.Fetch < 2<<20 || r.Fetch > 4<<20 || len(r.Missing) != 3 || r.Missing[0].Key != "read" || !r.Missing[0].Chosen {
		t.Errorf("dry run: %+v", r)
	}
	if !r.Until.Equal(r.At.Add(time.Hour)) || len(r.Limits) == 0 {
		t.Errorf("what does not work: %+v", r)
	}
	if r = pack(PackOptions{Budget: 1000}); r.Fetch != 0 || r.Ready != 0 || r.Left < 2<<20 {
		t.Errorf("a budget that fits nothing: %+v", r)
	}
	if r = pack(PackOptions{Budget: 1 << 30}); r.Ready != 1 || r.Left != 0 || r.Fetch < 2<<20 || len(r.Missing) != 2 {
		t.Errorf("what is wanted: %+v", r)
	}
	if _, err := x.e.SetPin(ctx, engine.Pin{Key: "pinned"}); err != nil {
		t.Fatal(err)
	}
	if r = pack(PackOptions{Budget: 1 << 30, All: true}); r.Ready != 3 || r.Whole != 3 || len(r.Missing) != 0 || r.Wanted != 3 {
		t.Errorf("all: %+v", r)
	}
	m.leave(0)
	m.leave(1)
	for key, want := range bodies {
		if got, err := m.get(2, key); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not readable alone: %v", key, err)
		}
	}
	if r = pack(PackOptions{Budget: 1 << 30}); r.Whole != 3 || r.Fetch != 0 {
		t.Errorf("alone: %+v", r)
	}
}

// TestStagingGoesByReads: what was read is brought by a round of staging, what was not is
// not; switched off it remembers and brings nothing.
func TestStagingGoesByReads(t *testing.T) {
	m := newMesh(t, 3, func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 2, Of: 3} })
	m.together()
	m.put(0, "read", randomBytes(2<<20, 1))
	m.sealed(0)
	m.put(0, "rest", randomBytes(2<<20, 2))
	m.sealed(0)
	x := m.nodes[1]
	whole := func() uint64 {
		r, err := x.n.Pack(context.Background(), PackOptions{DryRun: true})
		if err != nil {
			t.Fatal(err)
		}
		return r.Names<<8 | r.Whole
	}
	eventually(t, time.Minute, "both names are known", func() bool { return whole()>>8 == 2 })
	if err := x.n.SetStaging(false); err != nil {
		t.Fatal(err)
	}
	x.n.Accessed(fcp.ZonePrivate, "read")
	if err := x.n.stage(); err != nil || whole() != 2<<8 {
		t.Error("switched off:", err, whole())
	}
	if err := x.n.SetStaging(true); err != nil {
		t.Fatal(err)
	}
	x.n.Accessed(fcp.ZonePrivate, "read")
	if err := x.n.stage(); err != nil || whole() != 2<<8|1 {
		t.Errorf("one of two is to be whole: %v, %x", err, whole())
	}
	// The record outlives the node.
	if err := x.n.Close(); err != nil {
		t.Fatal(err)
	}
	m.start(x)
	if list, on := x.n.Accesses(); !on || len(list) != 1 || list[0].Key != "read" {
		t.Errorf("after a start: %v %+v", on, list)
	}
}
