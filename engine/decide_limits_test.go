package engine

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
	"fcp/authority"
)

// onRecord returns how many denials the audit entries of a zone stand for, by reason,
// and how many entries there are.
func (s *entitled) onRecord() (denials map[fcp.Reason]uint64, entries int) {
	s.t.Helper()
	denials = map[fcp.Reason]uint64{}
	s.must(s.EachAudit(DefaultZone, func(r *AuditRecord) error {
		if r.Type == authority.AuditDenied {
			denials[r.Reason] += 1 + r.More
			entries++
		}
		return nil
	}))
	return denials, entries
}

// TestAFloodOfDenialsDoesNotGrowTheLog sends a thousand requests that are refused:
// the log grows by a burst, a denial for another reason is seen among them, and no
// denial is lost from the count.
func TestAFloodOfDenialsDoesNotGrowTheLog(t *testing.T) {
	ctx := context.Background()
	s := newEntitled(t, 540, notes())
	before := s.Position()
	for range 1000 {
		wantReason(t, s.putFor(s.caller(), "other", "x"), authority.ReasonResource)
	}
	if grew := s.Position() - before; grew > 2*(DenialBurst+1) {
		t.Fatalf("a thousand denials left %d events", grew)
	}
	stray := s.caller()
	stray.Prove = nil
	r := wantReason(t, s.putFor(stray, "notes/x", "x"), authority.ReasonProofMissing)
	if r.Receipt.IsZero() {
		t.Fatal("a flood hides a denial for another reason")
	}
	flooded := wantReason(t, s.putFor(s.caller(), "other", "x"), authority.ReasonResource)
	if !flooded.Receipt.IsZero() || flooded.Smallest == nil {
		t.Fatal("a denial that is only counted names a receipt, or does not explain itself")
	}
	if c := s.DecisionCounts(); c.Denied != 1002 || c.Counted != 1001-DenialBurst {
		t.Fatalf("%+v", c)
	}
	s.clock.Advance(DenialEvery)
	wantReason(t, s.putFor(s.caller(), "other", "x"), authority.ReasonResource)
	if got, _ := s.onRecord(); got[authority.ReasonResource] != 1002 || got[authority.ReasonProofMissing] != 1 {
		t.Fatalf("on record: %v", got)
	}
	wantReason(t, s.putFor(s.caller(), "other", "x"), authority.ReasonResource)
	if n, err := s.RecordDenials(ctx); err != nil || n != 1 {
		t.Fatalf("%d %v", n, err)
	}
	if n, err := s.RecordDenials(ctx); err != nil || n != 0 {
		t.Fatalf("again: %d %v", n, err)
	}
	if got, _ := s.onRecord(); got[authority.ReasonResource] != 1003 {
		t.Fatalf("on record: %v", got)
	}
	if _, err := s.VerifyAudit(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestEveryDenialIsCountedOnce lets devices be refused at random times and compares
// the count with what is on record.
func TestEveryDenialIsCountedOnce(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var d decisions
		now := time.Unix(1_800_000_000, 0)
		start := now
		sent, recorded, entries := uint64(0), uint64(0), 0
		for range rapid.IntRange(1, 400).Draw(rt, "denials") {
			now = now.Add(time.Duration(rapid.IntRange(-20, 40).Draw(rt, "later")) * time.Second)
			device := fcp.WriterID{byte(rapid.IntRange(1, 3).Draw(rt, "device"))}
			reason := rapid.SampledFrom([]fcp.Reason{authority.ReasonResource, authority.ReasonProof}).Draw(rt, "reason")
			sent++
			if before, one := d.admitDenial(device, reason, DefaultZone, now); one {
				recorded += 1 + before
				entries++
			}
		}
		for _, n := range d.takeCounted() {
			recorded += n
		}
		if recorded != sent {
			rt.Fatalf("%d of %d denials are on record", recorded, sent)
		}
		// The clock runs at most 400 x 40 s ahead, and what it is set back it gains again.
		if most := 6 * (DenialBurst + 1 + 400*40/int(DenialEvery/time.Second)); entries > most {
			rt.Fatalf("%d entries in %s", entries, now.Sub(start))
		}
	})
}

// TestMadeUpDevicesDoNotGrowTheMemory sends denials of ever new devices.
func TestMadeUpDevicesDoNotGrowTheMemory(t *testing.T) {
	var d decisions
	now := time.Unix(1_800_000_000, 0)
	passed := 0
	for i := range uint64(3 * maxDenialBuckets) {
		w := fcp.WriterID{1, byte(i), byte(i >> 8), byte(i >> 16)}
		if _, one := d.admitDenial(w, authority.ReasonResource, DefaultZone, now); one {
			passed++
		}
	}
	if n := len(d.denials.buckets); n > maxDenialBuckets+1 || passed > maxDenialBuckets+DenialBurst {
		t.Fatalf("%d buckets, %d on record", n, passed)
	}
}

// TestADenialThatCannotBeWrittenIsCounted cancels the requests: what an attacker gives
// up before it is on record is on record later.
func TestADenialThatCannotBeWrittenIsCounted(t *testing.T) {
	s := newEntitled(t, 541, notes())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	refused := 0
	for range 3 {
		_, err := s.PutFor(ctx, s.caller(), PutRequest{Key: "other", Bytes: []byte("x")})
		var r *Refusal
		if err == nil {
			t.Fatal("a denied put passed")
		}
		if errors.As(err, &r) {
			refused++ // the log took it although nobody waited
		}
	}
	_, err := s.RecordDenials(context.Background())
	s.must(err)
	if got, _ := s.onRecord(); got[authority.ReasonResource] < 3 {
		t.Fatalf("on record %v, refused %d", got, refused)
	}
}

// TestAHolderCannotUseUpAnothersCalls narrows a token to one with the id of another
// person's, and uses that: the other one keeps its call.
func TestAHolderCannotUseUpAnothersCalls(t *testing.T) {
	s := newEntitled(t, 542, notes())
	free, victim := s.chain, s.mintLimited()
	info, err := authority.InspectToken(victim.Tokens()[0])
	s.must(err)
	limited := info.Constraints
	child, err := authority.Attenuate(bytes.NewReader(info.ID[:]), s.clock.Now(), s.holder, free, authority.Narrowing{
		Principal: testPrincipal, Holder: s.Node().Writer(), Confirm: s.holder.Public(), NotBefore: info.NotBefore,
		Expires: info.Expires, Grants: []fcp.Hash{s.grant}, Rights: info.Rights, Constraints: limited})
	s.must(err)
	s.chain = child
	s.must(s.putFor(s.caller(), "notes/1", "x"))
	wantReason(t, s.putFor(s.caller(), "notes/1", "x"), authority.ReasonLimitCalls)
	s.chain = victim
	s.must(s.putFor(s.caller(), "notes/2", "x"))
	wantReason(t, s.putFor(s.caller(), "notes/2", "x"), authority.ReasonLimitCalls)
}

// TestARestoreGivesNoCallBack uses up a grant behind a backup and restores it: what
// was signed before counts as used up, what the owner signs after is good, and what
// has no limit goes on.
func TestARestoreGivesNoCallBack(t *testing.T) {
	ctx := context.Background()
	c := notes()
	c.MaxCalls = 2
	s := newEntitled(t, 543, c)
	now := s.clock.Now()
	free := authority.GrantSpec{Zone: DefaultZone, Principal: testPrincipal, Rights: storeRights(OperationPut), Constraints: notes(),
		NotBefore: now, NotAfter: now.Add(time.Hour)}
	unlimited, err := s.Grant(ctx, s.owner, free)
	s.must(err)
	_, err = s.Backup(ctx, "/backup", BackupOptions{})
	s.must(err)
	s.must(s.putFor(s.caller(), "notes/1", "x"))
	s.must(s.putFor(s.caller(), "notes/2", "x"))
	wantReason(t, s.putFor(s.caller(), "notes/3", "x"), authority.ReasonLimitCalls)
	s.must(s.Engine.Close())
	_, err = Restore(ctx, "/backup", "/restored", RestoreOptions{Environment: s.env, Owner: s.owner})
	s.must(err)
	s.dir = "/restored"
	s.open()
	_, err = s.SettleCheckpoint(ctx, s.owner, DefaultZone) // there are two members now
	s.must(err)
	use := func(grant fcp.Hash) error {
		q := EntitleRequest{GrantSpec: free} // for the binding, the minter's right and its attestation
		_, err := s.Entitle(ctx, s.owner, q)
		s.must(err)
		s.chain, err = s.MintFrom(MintRequest{Zone: DefaultZone, Grant: grant, Confirm: s.holder.Public(), Rights: storeRights(OperationPut)})
		s.must(err)
		return s.putFor(s.caller(), "notes/4", "x")
	}
	wantReason(t, use(s.grant), authority.ReasonLimitCalls)
	s.must(use(unlimited.Ref()))
	s.reopen()
	wantReason(t, use(s.grant), authority.ReasonLimitCalls)
	s.clock.Advance(2 * time.Second)
	free.Constraints.MaxCalls = 1
	fresh, err := s.Grant(ctx, s.owner, free)
	s.must(err)
	s.must(use(fresh.Ref()))
	wantReason(t, use(fresh.Ref()), authority.ReasonLimitCalls)
}

// TestAHolderCannotFillTheMemoryOfLimits narrows one token ever again and uses each
// child: beyond MaxNarrowed they are refused, what others have left is untouched, and
// there is room again when they ended.
func TestAHolderCannotFillTheMemoryOfLimits(t *testing.T) {
	s := newEntitled(t, 544, notes())
	free, other := s.chain, s.mintLimited()
	info, err := authority.InspectToken(free.Tokens()[0])
	s.must(err)
	one := info.Constraints
	one.MaxCalls = 1
	child := func() *authority.Chain {
		now := s.clock.Now()
		c, err := authority.Attenuate(s.env.Rand, now, s.holder, free, authority.Narrowing{Principal: testPrincipal, Holder: s.Node().Writer(),
			Confirm: s.holder.Public(), NotBefore: info.NotBefore, Expires: now.Add(time.Minute).Truncate(time.Second), Grants: []fcp.Hash{s.grant}, Rights: info.Rights, Constraints: one})
		s.must(err)
		return c
	}
	// Fill the memory as uses would, without a file for each.
	refs := free.Refs()
	s.decisions.mu.Lock()
	s.must(s.loadSpent())
	for i := range MaxNarrowed {
		s.decisions.used[fcp.Hash{1, byte(i), byte(i >> 8)}] = spent{1, 0, uint64(s.clock.Now().Add(time.Minute).Unix()), refs[0]}
	}
	s.decisions.mu.Unlock()
	s.chain = child()
	wantReason(t, s.putFor(s.caller(), "notes/1", "x"), authority.ReasonLimitCalls)
	s.chain = other
	s.must(s.putFor(s.caller(), "notes/2", "x"))
	s.reopen()
	s.chain = child()
	wantReason(t, s.putFor(s.caller(), "notes/1", "x"), authority.ReasonLimitCalls)
	s.clock.Advance(2 * time.Minute)
	s.chain = child()
	s.must(s.putFor(s.caller(), "notes/3", "x"))
	if n := len(s.decisions.used); n > 3 {
		t.Errorf("%d entries are left", n)
	}
}
