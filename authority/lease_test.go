package authority

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
)

// leaseWorld is a zone of n members of which f may lie.
type leaseWorld struct {
	nodes []*NodeKeys
	e     Electorate
	now   time.Time
	thing Thing
}

func newLeaseWorld(t testing.TB, n, f int) *leaseWorld {
	t.Helper()
	w := &leaseWorld{now: time.Unix(1_800_000_000, 0).UTC(), thing: Thing{"z:work", fcp.ObjectID{7}, LeaseOperation},
		e: Electorate{Zone: "z:work", Checkpoint: CheckpointRef{ID: fcp.Hash{9}, Seq: 3}, MaxFaults: f}}
	for i := range n {
		k := testNode(t, byte(40+i))
		w.nodes = append(w.nodes, k)
		w.e.Members = append(w.e.Members, MemberOf(k.Public()))
	}
	SortMembers(w.e.Members)
	return w
}

func (w *leaseWorld) request(t testing.TB, holder int, ttl time.Duration) *LeaseRequest {
	t.Helper()
	r, err := RequestLease(w.nodes[holder], w.now, [16]byte{byte(holder)}, w.thing, ttl)
	return must(t, r, err)
}

func (w *leaseWorld) propose(t testing.TB, r *LeaseRequest, counter uint32, change func(*LeaseSpec)) *UnverifiedLease {
	t.Helper()
	s := LeaseSpec{Thing: w.thing, Holder: r.Holder(), Fence: 3<<32 | Fence(counter), Request: r.Ref(), Coordinator: w.nodes[0].Writer(),
		Checkpoint: w.e.Checkpoint.ID, From: w.now, Until: w.now.Add(r.For())}
	if change != nil {
		change(&s)
	}
	l, err := NewLease(s)
	return must(t, l, err)
}

func (w *leaseWorld) sign(t testing.TB, l *UnverifiedLease, by ...int) *UnverifiedLease {
	t.Helper()
	for _, i := range by {
		v, err := l.Sign(w.nodes[i], w.now)
		must(t, v, err)
		l, err = l.With(v)
		must(t, l, err)
	}
	return l
}

// TestLeaseVerification: a quorum of the right members, each once, ascending, over
// exactly these bytes.
func TestLeaseVerification(t *testing.T) {
	w := newLeaseWorld(t, 4, 1)
	if w.e.Need() != 3 {
		t.Fatal(w.e.Need())
	}
	r := w.request(t, 0, time.Minute)
	l := w.propose(t, r, 1, nil)
	good := w.sign(t, l, 2, 0, 3)
	if _, err := w.e.Verify(good, nil); err != nil {
		t.Fatal(err)
	}
	b, err := good.Encode()
	must(t, b, err)
	back, err := DecodeLease(b)
	must(t, back, err)
	if back.Ref() != l.Ref() || back.Spec() != good.Spec() || !slices.IsSorted(back.Signers()) {
		t.Error("a lease does not come back")
	}
	if _, err := w.e.Verify(back, nil); err != nil {
		t.Error(err)
	}
	stranger := newLeaseWorld(t, 6, 1)
	var gone RevocationSet
	owner := testOwner(t, 1)
	rb, err := Revoke(w.now.Add(-time.Hour), owner, RevocationSpec{Zone: "z:work", Scope: RevokeDevice,
		Targets: []fcp.Hash{fcp.Hash(w.nodes[2].Writer())}, Reason: "lost"})
	must(t, rb, err)
	revocation, err := VerifyRevocation(owner.Public(), rb)
	gone.Add(must(t, revocation, err))
	for _, x := range []struct {
		name    string
		l       *UnverifiedLease
		e       Electorate
		revoked *RevocationSet
		reason  fcp.Reason
	}{
		{"two of four", w.sign(t, l, 0, 1), w.e, nil, ReasonQuorum},
		{"none", l, w.e, nil, ReasonQuorum},
		{"a stranger among them", stranger.sign(t, l, 0, 1, 5), w.e, nil, ReasonSignerUnknown},
		{"one of them revoked", good, w.e, &gone, ReasonSignerUnknown},
		{"of another checkpoint", good, Electorate{w.e.Zone, CheckpointRef{ID: fcp.Hash{8}, Seq: 3}, w.e.Members, 1}, nil, ReasonLeaseCheckpoint},
		{"with another number", good, Electorate{w.e.Zone, CheckpointRef{ID: fcp.Hash{9}, Seq: 4}, w.e.Members, 1}, nil, ReasonLeaseCheckpoint},
		{"of another zone", good, Electorate{"z:owner", w.e.Checkpoint, w.e.Members, 1}, nil, ReasonLeaseCheckpoint},
	} {
		if _, err := x.e.Verify(x.l, x.revoked); ReasonOf(err) != x.reason {
			t.Errorf("%s: %v, want %s", x.name, err, x.reason)
		}
	}
	if _, err := good.With(good.signatures()[0]); !errors.Is(err, fcp.Conflict) {
		t.Error("one member twice:", err)
	}
	for i := range b { // no bit of a signed lease can change
		c := bytes.Clone(b)
		c[i] ^= 1
		u, err := DecodeLease(c)
		if err != nil {
			continue
		}
		if _, err := w.e.Verify(u, nil); err == nil && !sameButTimes(u, good) {
			t.Fatalf("byte %d verifies", i)
		}
	}
}

// sameButTimes compares all but the times of signing, which nobody signs.
func sameButTimes(a, b *UnverifiedLease) bool {
	x, y := slices.Clone(a.signatures()), slices.Clone(b.signatures())
	for i := range x {
		x[i].SignedAt = 0
	}
	for i := range y {
		y[i].SignedAt = 0
	}
	return a.Ref() == b.Ref() && slices.Equal(x, y)
}

// TestJudge: each row breaks one rule of docs/leases.md rule 4.
func TestJudge(t *testing.T) {
	w := newLeaseWorld(t, 3, 0)
	r := w.request(t, 0, time.Minute)
	other := w.nodes[1].Writer()
	facts := func() *LeaseFacts { return &LeaseFacts{Now: w.now, Electorate: w.e, Self: w.nodes[2].Writer()} }
	held := func(until time.Duration) Promise {
		return Promise{Fence: 3<<32 | 5, Ref: fcp.Hash{1}, Holder: other, Until: w.now.Add(until)}
	}
	for _, x := range []struct {
		name   string
		facts  func(*LeaseFacts)
		lease  func(*LeaseSpec)
		reason fcp.Reason
	}{
		{"free", nil, nil, ""},
		{"another checkpoint", nil, func(s *LeaseSpec) { s.Checkpoint = fcp.Hash{1} }, ReasonLeaseCheckpoint},
		{"a fence of another checkpoint", nil, func(s *LeaseSpec) { s.Fence += 1 << 32 }, ReasonLeaseCheckpoint},
		{"another holder than asked", nil, func(s *LeaseSpec) { s.Holder = other }, ReasonLeaseRequest},
		{"another thing", nil, func(s *LeaseSpec) { s.Purpose = LeaseResource }, ReasonLeaseRequest},
		{"longer than asked", nil, func(s *LeaseSpec) { s.Until = s.Until.Add(time.Second) }, ReasonLeaseRequest},
		{"another request", nil, func(s *LeaseSpec) { s.Request = fcp.Hash{1} }, ReasonLeaseRequest},
		{"from the future", func(f *LeaseFacts) { f.Now = w.now.Add(-MaxSkew - time.Second) }, nil, ReasonLeaseTime},
		{"from the past", func(f *LeaseFacts) { f.Now = w.now.Add(MaxSkew + time.Second) }, nil, ReasonLeaseTime},
		{"no member", func(f *LeaseFacts) { f.Self = fcp.WriterID{1} }, nil, ReasonSignerUnknown},
		{"promised to another", func(f *LeaseFacts) { f.Promised = held(time.Second) }, func(s *LeaseSpec) { s.Fence += 9 }, ReasonLeaseHeld},
		{"until just now", func(f *LeaseFacts) { f.Promised = held(-MaxSkew + time.Second) }, func(s *LeaseSpec) { s.Fence += 9 }, ReasonLeaseHeld},
		{"until the skew ago", func(f *LeaseFacts) { f.Promised = held(-MaxSkew) }, func(s *LeaseSpec) { s.Fence += 9 }, ""},
		{"released", func(f *LeaseFacts) { f.Promised = held(time.Hour); f.Promised.Released = true }, func(s *LeaseSpec) { s.Fence += 9 }, ""},
		{"known in the log", func(f *LeaseFacts) { f.Known = held(time.Hour) }, func(s *LeaseSpec) { s.Fence += 9 }, ReasonLeaseHeld},
		{"the same holder", func(f *LeaseFacts) { f.Promised = held(time.Hour); f.Promised.Holder = w.nodes[0].Writer() }, func(s *LeaseSpec) { s.Fence += 9 }, ""},
		{"a fence that was promised", func(f *LeaseFacts) { f.Promised = held(-time.Hour) }, func(s *LeaseSpec) { s.Fence += 4 }, ReasonLeaseStale},
		{"a fence that is known", func(f *LeaseFacts) { f.Known = held(-time.Hour) }, func(s *LeaseSpec) { s.Fence += 4 }, ReasonLeaseStale},
		{"a fence far ahead", nil, func(s *LeaseSpec) { s.Fence += maxFenceStep }, ReasonLeaseStale},
		{"promises of an older electorate", func(f *LeaseFacts) { f.Promised = held(-time.Hour); f.Promised.Fence = 2<<32 | 1<<31 }, nil, ""},
	} {
		f := facts()
		if x.facts != nil {
			x.facts(f)
		}
		l := w.propose(t, r, 1, x.lease)
		p, err := f.Judge(l, r)
		if ReasonOf(err) != x.reason || err == nil && (p.Ref != l.Ref() || p.Fence != l.Spec().Fence || p.Holder != r.Holder()) {
			t.Errorf("%s: %v %+v, want %q", x.name, err, p, x.reason)
		}
		if x.reason == ReasonLeaseHeld || x.reason == ReasonLeaseStale {
			var h *HeldError
			if !errors.As(err, &h) || !errors.Is(err, fcp.Conflict) {
				t.Errorf("%s: %v says not what is in the way", x.name, err)
			}
		}
	}
	f := facts()
	l := w.propose(t, r, 1, nil)
	first, err := f.Judge(l, r)
	must(t, first, err)
	f.Promised = first
	if again, err := f.Judge(l, r); err != nil || again != first {
		t.Error("the same lease again:", err)
	}
	short := w.request(t, 0, time.Second)
	next, err := f.Judge(w.propose(t, short, 2, nil), short)
	if err != nil || !next.Until.Equal(first.Until) {
		t.Error("a shorter renewal shortens what was promised:", next.Until, err)
	}
}

// TestAdmit is the sink's rule.
func TestAdmit(t *testing.T) {
	w := newLeaseWorld(t, 1, 0)
	lease := func(counter uint32, ttl time.Duration) *Lease {
		return &Lease{*w.propose(t, w.request(t, 0, ttl), counter, nil)}
	}
	two, twin := lease(2, time.Minute), lease(2, time.Hour)
	at := FenceRecord{}
	at, err := Admit(two, at, 0)
	must(t, at, err)
	if again, err := Admit(two, at, 0); err != nil || again != at {
		t.Error(err)
	}
	for _, x := range []struct {
		name  string
		l     *Lease
		known Fence
		want  fcp.Reason
	}{{"an older fence", lease(1, time.Minute), 0, ReasonLeaseStale}, {"a newer one is known", two, 3<<32 | 3, ReasonLeaseStale},
		{"another lease under the fence", twin, 0, ReasonLeaseTwice}, {"a newer fence", lease(9, time.Minute), 0, ""}} {
		if got, err := Admit(x.l, at, x.known); ReasonOf(err) != x.want || err != nil && got != at {
			t.Errorf("%s: %v", x.name, err)
		}
	}
}

// TestQuorumsIntersect: whoever lies and whatever arrives, honest signers never let two
// leases of one thing with one fence come to a quorum.
func TestQuorumsIntersect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.IntRange(0, 3).Draw(t, "f")
		n := rapid.IntRange(3*f+1, 3*f+6).Draw(t, "n")
		need := Quorum{n, f}.Intersecting()
		votes := map[int]map[int]int{} // fence -> lease -> votes
		promised := make([]int, n)
		granted := map[int]int{}
		for lease := range rapid.IntRange(1, 12).Draw(t, "leases") {
			fence := rapid.IntRange(1, 3).Draw(t, "fence")
			for i := range n {
				if !rapid.Bool().Draw(t, "asked") {
					continue
				}
				if i >= f { // honest
					if promised[i] >= fence {
						continue
					}
					promised[i] = fence
				}
				if votes[fence] == nil {
					votes[fence] = map[int]int{}
				}
				votes[fence][lease]++
			}
			if votes[fence][lease] >= need {
				if other, ok := granted[fence]; ok {
					t.Fatalf("leases %d and %d have the fence %d", other, lease, fence)
				}
				granted[fence] = lease
			}
		}
	})
}

func TestFences(t *testing.T) {
	for _, x := range []struct {
		f          Fence
		checkpoint uint64
		want       Fence
		code       fcp.Code
	}{
		{0, 0, 1, 0}, {1, 0, 2, 0}, {5, 1, 1<<32 | 1, 0}, {1<<32 | 7, 1, 1<<32 | 8, 0},
		{2<<32 | 7, 1, 0, fcp.CodeExhausted}, {math.MaxUint32, 0, 0, fcp.CodeExhausted}, {0, 1 << 31, 0, fcp.CodeTooLarge},
	} {
		if got, err := x.f.Next(x.checkpoint); got != x.want || fcp.CodeOf(err) != x.code {
			t.Errorf("%d under %d: %d %v", x.f, x.checkpoint, got, err)
		}
	}
}

// TestLeaseCoordinators: every member comes once, and subjects spread.
func TestLeaseCoordinators(t *testing.T) {
	w := newLeaseWorld(t, 5, 1)
	first := map[fcp.WriterID]int{}
	for i := range 500 {
		list := LeaseCoordinators("z:work", fcp.ObjectID{byte(i), byte(i >> 8)}, w.e.Members)
		if len(list) != 5 || len(slices.Compact(slices.SortedFunc(slices.Values(list), func(a, b fcp.WriterID) int { return bytes.Compare(a[:], b[:]) }))) != 5 {
			t.Fatal(list)
		}
		first[list[0]]++
	}
	for writer, n := range first {
		if n < 50 || n > 150 {
			t.Errorf("%.8s coordinates %d of 500", writer, n)
		}
	}
}

func FuzzLeaseRequest(f *testing.F) {
	w := newLeaseWorld(f, 1, 0)
	good := w.request(f, 0, time.Minute)
	f.Add(good.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := VerifyLeaseRequest(func(id fcp.WriterID) (SigningPublic, bool) {
			return w.nodes[0].Public().Signing, id == w.nodes[0].Writer()
		}, b)
		if err == nil && r.Ref() != good.Ref() {
			t.Errorf("accepted %x", b)
		}
		if thing, holder, ierr := InspectLeaseRequest(b); err == nil && (ierr != nil || thing != r.Thing() || holder != r.Holder()) {
			t.Errorf("looks like another: %v", ierr)
		}
	})
}

func FuzzDecodeLease(f *testing.F) {
	w := newLeaseWorld(f, 3, 0)
	l := w.propose(f, w.request(f, 0, time.Minute), 1, nil)
	for _, x := range []*UnverifiedLease{l, w.sign(f, l, 0, 1)} {
		b, err := x.Encode()
		f.Add(must(f, b, err))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := DecodeLease(b)
		if err != nil {
			return
		}
		if again, err := u.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("does not encode back: %v", err)
		}
		if n, err := NewLease(u.Spec()); err != nil || n.Ref() != u.Ref() {
			t.Errorf("says something else than it spells: %v", err)
		}
		if v, err := w.e.Verify(u, nil); err == nil && v.Ref() != l.Ref() {
			t.Errorf("accepted %x", b)
		}
	})
}

// FuzzLeaseRecords: releases, promises and fences encode back.
func FuzzLeaseRecords(f *testing.F) {
	thing, now := Thing{"z:work", fcp.ObjectID{1}, LeaseMigration}, time.Unix(1_800_000_000, 0).UTC()
	a, err := EncodeLeaseRelease(LeaseRelease{thing, fcp.WriterID{1}, 7, now})
	f.Add(must(f, a, err))
	b, err := EncodePromise(thing, Promise{Fence: 7, Ref: fcp.Hash{1}, Holder: fcp.WriterID{1}, Until: now})
	f.Add(must(f, b, err))
	c, err := EncodeFence(thing, FenceRecord{7, fcp.Hash{1}})
	f.Add(must(f, c, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(again []byte, err error) {
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("does not encode back: %v", err)
			}
		}
		if r, err := DecodeLeaseRelease(b); err == nil {
			check(EncodeLeaseRelease(r))
		}
		if x, p, err := DecodePromise(b); err == nil {
			check(EncodePromise(x, p))
		}
		if x, r, err := DecodeFence(b); err == nil {
			check(EncodeFence(x, r))
		}
	})
}
