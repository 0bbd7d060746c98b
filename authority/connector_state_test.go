package authority

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"fcp"
	"fcp/authority/crdt"
)

func testStateRoot() StateRootSpec {
	return StateRootSpec{Zone: "z:work", Connector: "mail:imap", Instance: "home", Model: StateCRDT, CRDT: crdt.KindLWWMap, Schema: 2, At: time.Unix(1_800_000_000, 0).UTC()}
}

func testStateSpec(t testing.TB) (ConnectorStateSpec, *Lease, *NodeKeys) {
	t.Helper()
	w := newLeaseWorld(t, 1, 0)
	w.thing.Purpose = LeaseConnectorState
	l, err := w.e.Verify(w.sign(t, w.propose(t, w.request(t, 0, time.Minute), 4, nil), 0), nil)
	must(t, l, err)
	k := testZoneKeys(t, "z:work", 1)
	sealed, err := SealState(bytes.NewReader(make([]byte, 16)), k, w.thing.Subject, []byte("cursor"))
	must(t, sealed, err)
	return ConnectorStateSpec{Zone: "z:work", Connector: "mail:imap", Root: w.thing.Subject, Prev: fcp.ObjectID{3}, Seq: 2, State: sealed,
		At: w.now, Fence: l.Spec().Fence, Lease: fcp.ObjectID{5}}, l, w.nodes[0]
}

// TestConnectorStateFitsItsLease: the wrong lease, fence, holder or signature refuses.
func TestConnectorStateFitsItsLease(t *testing.T) {
	s, l, node := testStateSpec(t)
	b, err := SignConnectorState(node, s)
	must(t, b, err)
	u, err := DecodeConnectorState(b)
	must(t, u, err)
	if _, err := u.Verify(l, s.Lease, node.Public().Signing); err != nil {
		t.Fatal(err)
	}
	if refs := u.o.Header.Refs; len(refs) != 3 || !bytes.Equal(refs[1][:], s.Lease[:]) { // 3, 5, 7
		t.Error("refs:", refs)
	}
	k := testZoneKeys(t, "z:work", 1)
	state := u.Spec().State
	if plain, err := state.Open(k, s.Root); err != nil || string(plain) != "cursor" {
		t.Error(string(plain), err)
	}
	if _, err := state.Open(k, fcp.ObjectID{1}); !errors.Is(err, fcp.Corrupt) {
		t.Error("opened as the state of another root:", err)
	}
	stranger := testNode(t, 99)
	forged, err := SignConnectorState(stranger, s)
	must(t, forged, err)
	f, err := DecodeConnectorState(forged)
	must(t, f, err)
	if _, err := f.Verify(l, s.Lease, node.Public().Signing); !errors.Is(err, fcp.CodeSignature) {
		t.Error("signed by another:", err)
	}
	if _, err := f.Verify(l, s.Lease, stranger.Public().Signing); ReasonOf(err) != ReasonStateLease {
		t.Error("not the holder:", err)
	}
	if _, err := u.Verify(l, fcp.ObjectID{6}, node.Public().Signing); ReasonOf(err) != ReasonStateLease {
		t.Error("another lease:", err)
	}
	for name, change := range map[string]func(*ConnectorStateSpec){
		"another fence": func(s *ConnectorStateSpec) { s.Fence++ },
		"another root":  func(s *ConnectorStateSpec) { s.Root = fcp.ObjectID{8} },
	} {
		x := s
		change(&x)
		b, err := SignConnectorState(node, x)
		must(t, b, err)
		u, err := DecodeConnectorState(b)
		must(t, u, err)
		if _, err := u.Verify(l, s.Lease, node.Public().Signing); ReasonOf(err) != ReasonStateLease {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*ConnectorStateSpec){
		"first with a predecessor": func(s *ConnectorStateSpec) { s.Seq = 1 },
		"without a predecessor":    func(s *ConnectorStateSpec) { s.Prev = fcp.ObjectID{} },
		"without a lease":          func(s *ConnectorStateSpec) { s.Lease = fcp.ObjectID{} },
		"without a fence":          func(s *ConnectorStateSpec) { s.Fence = 0 },
	} {
		x := s
		change(&x)
		if _, err := SignConnectorState(node, x); err == nil {
			t.Error(name, "was signed")
		}
	}
	o := u.o
	o.Header.Refs, o.Signature = o.Header.Refs[:2], nil // the lease or the predecessor is not among the refs
	bad, err := signObject(node, fcp.SchemaConnectorState, &o, &o.Signature)
	must(t, bad, err)
	if _, err := DecodeConnectorState(bad); !errors.Is(err, fcp.CodeMalformed) {
		t.Error("refs without what the state names:", err)
	}
}

func FuzzDecodeConnectorState(f *testing.F) {
	s, l, node := testStateSpec(f)
	good, err := SignConnectorState(node, s)
	f.Add(must(f, good, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := DecodeConnectorState(b)
		if err != nil {
			return
		}
		if _, err := u.Verify(l, s.Lease, node.Public().Signing); err == nil && !bytes.Equal(b, good) {
			t.Errorf("accepted %x", b)
		}
	})
}

// FuzzStateRecords: roots, deltas and snapshots encode back.
func FuzzStateRecords(f *testing.F) {
	root, err := EncodeStateRoot(fcp.WriterID{1}, testStateRoot())
	f.Add(must(f, root, err))
	s, _, _ := testStateSpec(f)
	c := StateChange{Zone: "z:work", Root: s.Root, CRDT: crdt.KindORSet, Actor: fcp.WriterID{1}, Seq: 1, State: s.State, At: s.At}
	delta, err := EncodeStateChange(c)
	f.Add(must(f, delta, err))
	c.Seq, c.Covers = 0, []ActorSeq{{fcp.WriterID{1}, 4}, {fcp.WriterID{2}, 1}}
	snapshot, err := EncodeStateChange(c)
	f.Add(must(f, snapshot, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		if spec, writer, err := DecodeStateRoot(b); err == nil {
			if again, err := EncodeStateRoot(writer, spec); err != nil || !bytes.Equal(again, b) {
				t.Errorf("a root does not encode back: %v", err)
			}
		}
		for _, decode := range []func([]byte) (StateChange, error){DecodeStateDelta, DecodeStateSnapshot} {
			if c, err := decode(b); err == nil {
				if again, err := EncodeStateChange(c); err != nil || !bytes.Equal(again, b) {
					t.Errorf("a change does not encode back: %v", err)
				}
			}
		}
	})
}
