package authority

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
)

// zoneWorld is a zone with n members, sorted by writer, after its first checkpoint.
type zoneWorld struct {
	owner *OwnerKey
	nodes []*NodeKeys
	state CheckpointState
}

func newZoneWorld(t testing.TB, n int, faults uint8) *zoneWorld {
	t.Helper()
	w := &zoneWorld{owner: testOwner(t, 1)}
	for i := range n {
		w.nodes = append(w.nodes, testNode(t, byte(i+1)))
	}
	slices.SortFunc(w.nodes, func(a, b *NodeKeys) int { return compareHash(fcp.Hash(a.Writer()), fcp.Hash(b.Writer())) })
	g, err := MakeGenesis(testRand(8), testNow, w.owner, testNode(t, 1), StandardGenesisZones())
	must(t, g, err)
	w.state = GenesisState(&g.Facts, "z:work")
	c := w.checkpoint(t, func(s *ZoneCheckpointSpec) { s.MaxFaults = faults })
	c, err = c.Sign(testNode(t, 1), testNow)
	must(t, c, err)
	a, err := w.state.Judge(c, nil)
	w.state = w.state.next(must(t, a, err))
	return w
}

// checkpoint makes the next checkpoint, changed.
func (w *zoneWorld) checkpoint(t testing.TB, change func(*ZoneCheckpointSpec)) *UnverifiedZoneCheckpoint {
	t.Helper()
	n := w.state.Seq + 1
	s := ZoneCheckpointSpec{Zone: "z:work", Seq: n, Prev: w.state.Ref, Revocations: RevocationHead{4 + n, fcp.Hash{byte(n)}},
		AuditSeq: 100 + n, AuditHead: fcp.Hash{9, byte(n)}, Definition: VersionRef{1, fcp.Hash{1}}, Policy: VersionRef{2, fcp.Hash{2}},
		Manifest: VersionRef{3, fcp.Hash{3}}, Epoch: 10 + n, At: testNow.Add(time.Duration(n) * time.Minute), MaxFaults: w.state.maxFaults}
	for _, k := range w.nodes {
		s.Members = append(s.Members, MemberOf(k.Public()))
	}
	change(&s)
	c, err := NewZoneCheckpoint(s)
	return must(t, c, err)
}

func (w *zoneWorld) sign(t testing.TB, c *UnverifiedZoneCheckpoint, who ...int) *UnverifiedZoneCheckpoint {
	t.Helper()
	for _, i := range who {
		var err error
		c, err = c.Sign(w.nodes[i], testNow)
		must(t, c, err)
	}
	return c
}

// TestCheckpointAttacks: each attack is refused with its own reason.
func TestCheckpointAttacks(t *testing.T) {
	w := newZoneWorld(t, 4, 1)
	plain := func(*ZoneCheckpointSpec) {}
	stranger := testNode(t, 99)
	mine := []Member{MemberOf(stranger.Public())}
	foreign := func(c *UnverifiedZoneCheckpoint) *UnverifiedZoneCheckpoint {
		c, err := c.Sign(stranger, testNow)
		return must(t, c, err)
	}
	broken := w.sign(t, w.checkpoint(t, plain), 0, 1, 2)
	broken.o.Signatures.Signatures[1].Signature[0] ^= 1
	twice := w.sign(t, w.checkpoint(t, plain), 0, 1)
	twice.o.Signatures = &signatureSet{slices.Insert(slices.Clone(twice.signatures()), 1, twice.signatures()[0])}
	unsorted := w.sign(t, w.checkpoint(t, plain), 0, 1, 2)
	unsorted.o.Signatures = &signatureSet{slices.Clone(unsorted.signatures())}
	slices.Reverse(unsorted.o.Signatures.Signatures)
	var lost RevocationSet
	lost.Add(revocationBy(t, w.owner, RevocationSpec{Zone: "z:work", Scope: RevokeDevice, Targets: []fcp.Hash{fcp.Hash(w.nodes[0].Writer())}}))
	all := func(change func(*ZoneCheckpointSpec)) *UnverifiedZoneCheckpoint {
		return w.sign(t, w.checkpoint(t, change), 0, 1, 2, 3)
	}
	for _, c := range []struct {
		name    string
		c       *UnverifiedZoneCheckpoint
		revoked *RevocationSet
		reason  fcp.Reason
	}{
		{"a quorum", w.sign(t, w.checkpoint(t, plain), 1, 2, 3), nil, ""},
		{"the owner alone", w.checkpoint(t, plain).SignOwner(w.owner), nil, ""},
		{"another owner", w.checkpoint(t, plain).SignOwner(testOwner(t, 2)), nil, ReasonCheckpointSignature},
		{"another zone", all(func(s *ZoneCheckpointSpec) { s.Zone = "z:private" }), nil, ReasonCheckpointZone},
		{"an old number", all(func(s *ZoneCheckpointSpec) { s.Seq = 1 }), nil, ReasonCheckpointRollback},
		{"a gap", all(func(s *ZoneCheckpointSpec) { s.Seq = 3 }), nil, ReasonCheckpointGap},
		{"another past", all(func(s *ZoneCheckpointSpec) { s.Prev = fcp.Hash{7} }), nil, ReasonCheckpointPrev},
		{"fewer revocations", all(func(s *ZoneCheckpointSpec) { s.Revocations.Seq = 4 }), nil, ReasonCheckpointRevoked},
		{"other revocations", all(func(s *ZoneCheckpointSpec) { s.Revocations = RevocationHead{5, fcp.Hash{8}} }), nil, ReasonCheckpointRevoked},
		{"fewer audit events", all(func(s *ZoneCheckpointSpec) { s.AuditSeq = 100 }), nil, ReasonCheckpointAudit},
		{"an older policy", all(func(s *ZoneCheckpointSpec) { s.Policy = VersionRef{1, fcp.Hash{1}} }), nil, ReasonCheckpointPolicy},
		{"another policy of that number", all(func(s *ZoneCheckpointSpec) { s.Policy.Ref[0]++ }), nil, ReasonCheckpointPolicy},
		{"an older key", all(func(s *ZoneCheckpointSpec) { s.Manifest.Version = 2 }), nil, ReasonCheckpointPolicy},
		{"no definition any more", all(func(s *ZoneCheckpointSpec) { s.Definition = VersionRef{} }), nil, ReasonCheckpointPolicy},
		{"an older epoch", all(func(s *ZoneCheckpointSpec) { s.Epoch = 1 }), nil, ReasonCheckpointEpoch},
		{"an earlier time", all(func(s *ZoneCheckpointSpec) { s.At = testNow }), nil, ReasonCheckpointEpoch},
		{"nobody", w.checkpoint(t, plain), nil, ReasonCheckpointQuorum},
		{"f+1 of n", w.sign(t, w.checkpoint(t, plain), 0, 1), nil, ReasonCheckpointQuorum},
		{"lets itself in", foreign(w.checkpoint(t, func(s *ZoneCheckpointSpec) { s.Members, s.MaxFaults = mine, 0 })), nil, ReasonCheckpointSelf},
		{"lowers its own quorum", w.sign(t, w.checkpoint(t, func(s *ZoneCheckpointSpec) { s.Members, s.MaxFaults = s.Members[:1], 0 }), 0), nil, ReasonCheckpointQuorum},
		{"a stranger among members", foreign(w.sign(t, w.checkpoint(t, plain), 1, 2, 3)), nil, ReasonCheckpointMember},
		{"a broken signature", broken, nil, ReasonCheckpointSignature},
		{"one node twice", twice, nil, ReasonSignatureDuplicate},
		{"unsorted", unsorted, nil, ReasonSignatureOrder},
		{"a lost device signs", w.sign(t, w.checkpoint(t, plain), 0, 1, 2), &lost, ReasonCheckpointMember},
		{"the others without it", w.sign(t, w.checkpoint(t, plain), 1, 2, 3), &lost, ""},
	} {
		// As it would arrive: encoded and decoded, where the form allows it.
		in := c.c
		if b, err := in.Encode(); err == nil {
			d, err := DecodeZoneCheckpoint(b)
			if must(t, d, err); d.Ref() != in.Ref() {
				t.Fatalf("%s: another ref", c.name)
			}
			in = d
		}
		_, err := w.state.Judge(in, c.revoked)
		wantReason(t, c.name, err, c.reason)
	}
	late := w.checkpoint(t, func(s *ZoneCheckpointSpec) { s.At = testNow.Add(MaxSkew + time.Second) })
	wantReason(t, "a far-future clock", late.CheckTime(testNow), ReasonCheckpointFuture)
	wantReason(t, "a little ahead", w.checkpoint(t, func(s *ZoneCheckpointSpec) { s.At = testNow.Add(MaxSkew) }).CheckTime(testNow), "")
}

func TestCheckpointFormsThatAreRefused(t *testing.T) {
	w := newZoneWorld(t, 3, 0)
	good := w.checkpoint(t, func(*ZoneCheckpointSpec) {}).Spec()
	for name, change := range map[string]func(*ZoneCheckpointSpec){
		"number 0":            func(s *ZoneCheckpointSpec) { s.Seq = 0 },
		"no past":             func(s *ZoneCheckpointSpec) { s.Prev = fcp.Hash{} },
		"bad zone":            func(s *ZoneCheckpointSpec) { s.Zone = "work" },
		"no members":          func(s *ZoneCheckpointSpec) { s.Members = nil },
		"too many liars":      func(s *ZoneCheckpointSpec) { s.MaxFaults = 1 },
		"unsorted members":    func(s *ZoneCheckpointSpec) { s.Members = slices.Clone(s.Members); slices.Reverse(s.Members) },
		"a key not its own":   func(s *ZoneCheckpointSpec) { s.Members = slices.Clone(s.Members); s.Members[0].Key[0] ^= 1 },
		"a head of nothing":   func(s *ZoneCheckpointSpec) { s.Revocations.Seq = 0 },
		"nothing with a ref":  func(s *ZoneCheckpointSpec) { s.Policy.Version = 0 },
		"a version of no ref": func(s *ZoneCheckpointSpec) { s.Policy.Ref = fcp.Hash{} },
	} {
		s := good
		change(&s)
		if _, err := NewZoneCheckpoint(s); err == nil {
			t.Errorf("%s passes", name)
		}
	}
	if _, err := DecodeZoneCheckpoint(testGenesis(t).Bytes); err == nil {
		t.Error("genesis passes")
	}
	c := w.sign(t, w.checkpoint(t, func(*ZoneCheckpointSpec) {}), 0)
	b, err := c.Encode()
	must(t, b, err)
	if _, err := VerifyGenesis(b); err == nil {
		t.Error("passes as genesis")
	}
	if _, err := VerifyCheckpoint(w.owner.Public(), b); err == nil {
		t.Error("passes as a checkpoint of retention")
	}
	bad := c.o
	bad.Epoch = "010"
	b, err = fcp.MarshalPayload(fcp.SchemaZoneCheckpoint, &bad)
	must(t, b, err)
	if _, err := DecodeZoneCheckpoint(b); err == nil {
		t.Error("an epoch with a leading zero passes")
	}
}

// TestAcceptedCheckpointsDoNotDependOnOrder: what is accepted is a function of the
// set of checkpoints, whatever else anybody wrote beside it.
func TestAcceptedCheckpointsDoNotDependOnOrder(t *testing.T) {
	w := newZoneWorld(t, 4, 1)
	start := w.state
	plain := func(*ZoneCheckpointSpec) {}
	two := w.checkpoint(t, plain)
	w.state = start.next(&ZoneCheckpoint{*w.sign(t, two, 0, 1, 2)})
	three := w.checkpoint(t, plain)
	w.state = w.state.next(&ZoneCheckpoint{*w.sign(t, three, 0, 1, 2)})
	four, fourth := w.checkpoint(t, plain), w.checkpoint(t, func(s *ZoneCheckpointSpec) { s.AuditHead[5] = 1 })
	spoiled := w.sign(t, three, 0, 1, 2)
	spoiled.o.Signatures = &signatureSet{slices.Clone(spoiled.signatures())}
	for i := range spoiled.o.Signatures.Signatures {
		spoiled.o.Signatures.Signatures[i].Signature = [64]byte{}
	}
	owned := four.SignOwner(w.owner)
	pool := []*UnverifiedZoneCheckpoint{w.sign(t, two, 0, 1), w.sign(t, two, 2), w.sign(t, three, 1, 2, 3), spoiled,
		w.sign(t, four, 0, 1, 2), w.sign(t, fourth, 1, 2, 3), owned}
	judge := func(list []*UnverifiedZoneCheckpoint) (CheckpointState, *CheckpointFork) {
		var s ZoneCheckpoints
		for _, c := range list {
			s.Add(c)
		}
		return s.Judge(start, nil)
	}
	for _, c := range []struct {
		name   string
		in     []*UnverifiedZoneCheckpoint
		seq    uint64
		forked bool
	}{
		{"none", nil, 1, false},
		{"signatures come apart", pool[:1], 1, false},
		{"and together", pool[:2], 2, false},
		{"the next", pool[:3], 3, false},
		{"spoiled", pool[:4], 3, false},
		{"only spoiled", []*UnverifiedZoneCheckpoint{pool[0], pool[1], pool[3]}, 2, false},
		{"a fork halts", pool[:6], 3, true},
		{"the owner settles it", pool, 4, false},
		{"a gap", pool[2:], 1, false},
	} {
		st, fork := judge(c.in)
		if st.Seq != c.seq || (fork != nil) != c.forked {
			t.Errorf("%s: %d, fork %v", c.name, st.Seq, fork)
		}
		if fork != nil && !slices.Equal(fork.DoubleSigners, []fcp.WriterID{w.nodes[1].Writer(), w.nodes[2].Writer()}) {
			t.Errorf("%s: signed both: %v", c.name, fork.DoubleSigners)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		set := rapid.SliceOfN(rapid.SampledFrom(pool), 0, 10).Draw(rt, "set")
		a, fa := judge(set)
		b, fb := judge(rapid.Permutation(append(set[:len(set):len(set)], set...)).Draw(rt, "order"))
		if a.Seq != b.Seq || a.Ref != b.Ref || (fa == nil) != (fb == nil) {
			rt.Fatalf("%d %v, %d %v", a.Seq, fa, b.Seq, fb)
		}
		if a.Last != nil {
			x, err := a.Last.Encode()
			must(t, x, err)
			y, err := b.Last.Encode()
			must(t, y, err)
			if !bytes.Equal(x, y) {
				rt.Fatal("signatures differ")
			}
		}
	})
}

func TestAuditFrontierIsASetOfHeads(t *testing.T) {
	a := []FeedHead{{fcp.FeedID{2}, 5, fcp.Hash{1}}, {fcp.FeedID{1}, 3, fcp.Hash{2}}, {fcp.FeedID{3}, 0, fcp.Hash{}}}
	seq, digest := AuditFrontier(slices.Clone(a))
	slices.Reverse(a)
	again, same := AuditFrontier(a[1:])
	if seq != 8 || again != 8 || digest != same || digest.IsZero() {
		t.Errorf("%d %s / %d %s", seq, digest, again, same)
	}
	if seq, digest := AuditFrontier(nil); seq != 0 || !digest.IsZero() {
		t.Error("nothing is something")
	}
}
