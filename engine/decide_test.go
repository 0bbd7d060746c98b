package engine

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
)

// entitled is a store in which one principal has a grant, and a token of it.
type entitled struct {
	*testStore
	grant  fcp.Hash
	holder *authority.HolderKey
	chain  *authority.Chain
}

const testPrincipal fcp.CanonicalID = "agent:backup"

func storeRights(operations ...fcp.CanonicalID) (out []authority.Right) {
	for _, o := range operations {
		out = append(out, authority.Right{Capability: StoreCapability, Operation: string(o)})
	}
	return out
}

func (s *testStore) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func newEntitled(t testing.TB, seed uint64, c authority.Constraints) *entitled {
	t.Helper()
	s := &entitled{testStore: newStore(t, seed)}
	now := s.clock.Now()
	got, err := s.Entitle(context.Background(), s.owner, EntitleRequest{GrantSpec: authority.GrantSpec{Zone: DefaultZone, Principal: testPrincipal,
		Rights: storeRights(OperationGet, OperationPut), Constraints: c, NotBefore: now, NotAfter: now.Add(time.Hour)}})
	s.must(err)
	s.grant = got.Grant
	s.holder, err = authority.NewHolderKey(s.env.Rand)
	s.must(err)
	s.chain, err = s.MintFrom(MintRequest{Zone: DefaultZone, Grant: s.grant, Confirm: s.holder.Public(), Depth: 2})
	s.must(err)
	return s
}

func (s *entitled) caller() *Caller {
	return &Caller{Token: s.chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return s.holder.Prove(c, leaf, request), nil
	}}
}

func (s *entitled) putFor(c *Caller, key, body string) error {
	_, err := s.PutFor(context.Background(), c, PutRequest{Key: key, Bytes: []byte(body)})
	return err
}

func (s *entitled) getFor(c *Caller, key string) (string, error) {
	r, err := s.GetFor(context.Background(), c, GetRequest{Key: key})
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func wantReason(t testing.TB, err error, want fcp.Reason) *Refusal {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) || r.Reason != want || authority.ReasonOf(err) != want {
		t.Fatalf("%v, wanted a refusal for %s", err, want)
	}
	return r
}

func notes() authority.Constraints { return authority.Constraints{ResourceAllow: []string{"notes/"}} }

// auditTypes returns the types of the audit entries of a zone.
func (s *entitled) auditTypes() (out []authority.AuditType) {
	s.must(s.EachAudit(DefaultZone, func(r *AuditRecord) error {
		out = append(out, r.Type)
		return nil
	}))
	return out
}

// TestATokenOpensWhatItSaysAndNothingElse grants, mints, narrows offline, uses,
// revokes each link, and proves the refusal offline.
func TestATokenOpensWhatItSaysAndNothingElse(t *testing.T) {
	ctx := context.Background()
	s := newEntitled(t, 500, notes())
	s.must(s.putFor(s.caller(), "notes/today", "hello"))
	if got, err := s.getFor(s.caller(), "notes/today"); err != nil || got != "hello" {
		t.Fatalf("%q %v", got, err)
	}
	if got := s.auditTypes(); len(got) != 1 || got[0] != authority.AuditInvoke {
		t.Fatalf("audit entries %v: a risky use is audited, a plain read is not", got)
	}
	before := s.Position()
	wantReason(t, func() error { _, err := s.getFor(s.caller(), "other"); return err }(), authority.ReasonResource)
	wantReason(t, s.putFor(s.caller(), "note", "x"), authority.ReasonResource)
	_, err := s.RemoveFor(ctx, s.caller(), RemoveRequest{Key: "notes/today"})
	r := wantReason(t, err, authority.ReasonOperation)
	if r.Smallest == nil || r.Smallest.Rights[0].Operation != string(OperationRemove) || r.Smallest.Constraints.ResourceAllow[0] != "notes/today" {
		t.Fatalf("the smallest grant is %+v", r.Smallest)
	}
	if s.Position() != before+1+2+2 {
		t.Fatalf("%d events: a safe denial leaves an audit entry, a risky one a receipt besides", s.Position()-before)
	}
	// Nobody else's device, key or proof.
	c := s.caller()
	c.Prove = nil
	wantReason(t, s.putFor(c, "notes/today", "x"), authority.ReasonProofMissing)
	other, err := authority.NewHolderKey(s.env.Rand)
	s.must(err)
	c.Prove = func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return other.Prove(c, leaf, request), nil
	}
	wantReason(t, s.putFor(c, "notes/today", "x"), authority.ReasonProofMissing)
	c = s.caller()
	c.Device = fcp.WriterID{7}
	wantReason(t, s.putFor(c, "notes/today", "x"), authority.ReasonBindingDevice)
	wantReason(t, s.putFor(&Caller{Principal: testPrincipal}, "notes/today", "x"), authority.ReasonTokenMissing)
	if _, err := s.GetFor(ctx, s.caller(), GetRequest{Object: fcp.ObjectID{1}}); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Fatalf("a token must not read by object id: %v", err)
	}
}

// TestEveryLinkCanBeRevoked revokes a grandchild, its parents and the grant in turn:
// the links above stay good, those below do not.
func TestEveryLinkCanBeRevoked(t *testing.T) {
	ctx := context.Background()
	s := newEntitled(t, 501, notes())
	now := s.clock.Now().Truncate(time.Second)
	chains, holders := []*authority.Chain{s.chain}, []*authority.HolderKey{s.holder}
	for depth := range uint64(2) {
		h, err := authority.NewHolderKey(s.env.Rand)
		s.must(err)
		c, err := authority.Attenuate(s.env.Rand, now, holders[depth], chains[depth], authority.Narrowing{Principal: testPrincipal,
			Holder: s.Node().Writer(), Confirm: h.Public(), NotBefore: now, Expires: now.Add(time.Minute), Grants: []fcp.Hash{s.grant},
			Rights: storeRights(OperationGet), Constraints: notes(), Depth: 1 - depth})
		s.must(err)
		chains, holders = append(chains, c), append(holders, h)
	}
	s.put("notes/today", "hello")
	get := func(i int) error {
		s.chain, s.holder = chains[i], holders[i]
		_, err := s.getFor(s.caller(), "notes/today")
		return err
	}
	for i := range chains {
		s.must(get(i))
	}
	s.chain, s.holder = chains[1], holders[1]
	wantReason(t, s.putFor(s.caller(), "notes/today", "x"), authority.ReasonOperation)
	past := s.Position()
	for i := len(chains) - 1; i >= 0; i-- {
		tokens := chains[i].Tokens()
		info, err := authority.InspectToken(tokens[len(tokens)-1])
		s.must(err)
		_, err = s.Revoke(ctx, s.owner, authority.RevocationSpec{Zone: DefaultZone, Scope: authority.RevokeToken, Targets: []fcp.Hash{info.ID.Ref()}, Reason: "lost"})
		s.must(err)
		for j := range chains {
			if j < i {
				s.must(get(j))
			} else {
				wantReason(t, get(j), authority.ReasonRevokedToken)
			}
		}
	}
	// By what was known then, the use was good.
	s.chain, s.holder = chains[2], holders[2]
	r, err := s.Request(s.caller(), OperationGet, DefaultZone, "notes/today", "", 0)
	s.must(err)
	d, err := s.DecideAt(ctx, r, past, now)
	if s.must(err); !d.Allowed() {
		t.Fatalf("as of %d: %s", past, d.Reason)
	}
	// A new token of the same grant works until the grant goes.
	s.chain, err = s.MintFrom(MintRequest{Zone: DefaultZone, Grant: s.grant, Confirm: s.holder.Public()})
	s.must(err)
	s.must(s.putFor(s.caller(), "notes/today", "again"))
	_, err = s.Revoke(ctx, s.owner, authority.RevocationSpec{Zone: DefaultZone, Scope: authority.RevokeCapability, Targets: []fcp.Hash{s.grant}})
	s.must(err)
	refusal := wantReason(t, s.putFor(s.caller(), "notes/today", "x"), authority.ReasonRevokedGrant)
	if _, err := s.MintFrom(MintRequest{Zone: DefaultZone, Grant: s.grant, Confirm: s.holder.Public()}); authority.ReasonOf(err) != authority.ReasonRevokedGrant {
		t.Fatalf("minted of a revoked grant: %v", err)
	}
	s.reopen()
	wantReason(t, s.putFor(s.caller(), "notes/today", "x"), authority.ReasonRevokedGrant)
	s.provesOffline(refusal)
}

// provesOffline finds the refusal, proves it, and checks that no other bytes pass.
func (s *entitled) provesOffline(refusal *Refusal) {
	s.t.Helper()
	found, err := s.FindRefusal(refusal.Request.String()[:MinHashPrefix])
	s.must(err)
	if found.Ref() != refusal.Receipt || found.Reason() != refusal.Reason {
		s.t.Fatalf("found %s", found.Reason())
	}
	smallest, ok := found.Smallest()
	if !ok || smallest.Constraints.ResourceAllow[0] != "notes/today" {
		s.t.Fatalf("the receipt proposes %+v", smallest)
	}
	bundle, err := s.ProveRefusal(found)
	s.must(err)
	p, err := OpenRefusal(bundle)
	s.must(err)
	if p.Owner != s.owner.Public() || p.Revoked == nil || len(p.Evidence) < 4 || !IsRefusal(bundle) {
		s.t.Fatalf("proven: %+v", p)
	}
	for i := range bundle {
		bad := append([]byte(nil), bundle...)
		bad[i] ^= 1
		if i%7 == 0 { // every byte is in some object that is signed or hashed; a sample is enough
			if _, err := OpenRefusal(bad); err == nil {
				s.t.Fatalf("byte %d of the bundle can be changed", i)
			}
		}
	}
}

// TestLimitsAreSpentOnceAndForGood races one permitted call, and opens again.
func TestLimitsAreSpentOnceAndForGood(t *testing.T) {
	c := notes()
	c.MaxCalls, c.MaxBytes = 3, 100
	s := newEntitled(t, 502, c)
	s.put("notes/today", "hello")
	get := func() error { _, err := s.getFor(s.caller(), "notes/today"); return err }
	s.must(get())
	s.reopen()
	s.must(get())
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 8 {
		wg.Go(func() {
			if err := get(); err == nil {
				mu.Lock()
				passed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if passed != 1 {
		t.Fatalf("%d calls passed where one was left", passed)
	}
	wantReason(t, get(), authority.ReasonLimitCalls)
	s.reopen()
	wantReason(t, get(), authority.ReasonLimitCalls)
	// A damaged file is not "nothing was spent".
	s.must(writeFile(s.env.FS, s.dir, fileSpent, []byte{0x80, 0}))
	s.reopen()
	wantReason(t, get(), authority.ReasonLimitCalls)
}

// TestBytesAreLimited counts what is written.
func TestBytesAreLimited(t *testing.T) {
	c := notes()
	c.MaxBytes = 10
	s := newEntitled(t, 503, c)
	s.must(s.putFor(s.caller(), "notes/a", "123456"))
	wantReason(t, s.putFor(s.caller(), "notes/b", "12345"), authority.ReasonLimitBytes)
	s.must(s.putFor(s.caller(), "notes/b", "1234"))
	_, err := s.PutFor(context.Background(), s.caller(), PutRequest{Key: "notes/c", Bytes: []byte("1"), DryRun: true})
	wantReason(t, err, authority.ReasonLimitBytes)
}

// TestEntitleAppendsOnlyWhatIsMissing grants twice, and dry.
func TestEntitleAppendsOnlyWhatIsMissing(t *testing.T) {
	ctx := context.Background()
	s := newEntitled(t, 504, notes())
	now := s.clock.Now()
	q := EntitleRequest{GrantSpec: authority.GrantSpec{Zone: DefaultZone, Principal: testPrincipal, Rights: storeRights(OperationGet),
		Constraints: notes(), NotBefore: now, NotAfter: now.Add(time.Minute)}}
	before := s.Position()
	got, err := s.Entitle(ctx, s.owner, q)
	if s.must(err); len(got.Planned) != 1 || s.Position() != before+1 {
		t.Fatalf("%+v", got.Planned)
	}
	q.Zone, q.DryRun = fcp.ZoneWork, true
	before = s.Position()
	got, err = s.Entitle(ctx, s.owner, q)
	if s.must(err); len(got.Planned) != 3 || s.Position() != before {
		t.Fatalf("%+v", got.Planned)
	}
	other, err := authority.NewOwnerKey(s.env.Rand)
	s.must(err)
	if _, err := s.Entitle(ctx, other, q); !errors.Is(err, fcp.CodeWrongKey) {
		t.Fatalf("another owner grants: %v", err)
	}
	// What Entitle appends is renewed at half of its life.
	s.clock.Advance(authority.DefaultAttestation / 2)
	q.NotBefore, q.NotAfter, q.Zone, q.DryRun = s.clock.Now(), s.clock.Now().Add(time.Minute), DefaultZone, false
	got, err = s.Entitle(ctx, s.owner, q)
	if s.must(err); got.Planned[0].Kind != fcp.KindAttestationIssued.String() {
		t.Fatalf("%+v", got.Planned)
	}
}

// TestResourcesKeepPrefixes checks the mapping of names with odd bytes.
func TestResourcesKeepPrefixes(t *testing.T) {
	for _, key := range []string{"a b", "%", "*", "ü/日本", "\x00\xff", "plain/key"} {
		r := ResourceOf(key)
		for i := range key {
			if p := ResourceOf(key[:i]); r[:len(p)] != p {
				t.Fatalf("%q is no prefix of %q", p, r)
			}
		}
		for i := range len(r) {
			if r[i] <= ' ' || r[i] >= 0x7f || r[i] == '*' {
				t.Fatalf("%q has %q", r, r[i])
			}
		}
	}
	if ResourceOf("%20") == ResourceOf(" ") {
		t.Fatal("two keys share a resource")
	}
}

// FuzzSpent feeds the file of what was spent.
func FuzzSpent(f *testing.F) {
	b, err := fcp.Marshal(spentFile{Used: []spentEntry{{Ref: fcp.Hash{1}, Calls: 2, Bytes: 3, Until: 4}}, Restored: 5})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) { _, _, _ = decodeSpent(b) })
}

// FuzzRefusal feeds refusal bundles.
func FuzzRefusal(f *testing.F) {
	f.Add([]byte(`{"format":"fcp-refusal/1","proof":"","genesis":"","device":"","evidence":[]}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = OpenRefusal(b) })
}
