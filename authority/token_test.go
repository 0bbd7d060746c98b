package authority

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"fcp"
)

type tokenSample struct {
	b      []byte
	verify func([]byte) error
}

func err1[T any](_ T, err error) error { return err }

// tokenSamples returns one of each signed object that tokens need.
func tokenSamples(t testing.TB, w *world) map[string]tokenSample {
	grant := w.grantSpec()
	grant.Placement = Placement{RequireTags: []string{"tag:fcp-work"}, Zones: []fcp.ZoneID{fcp.ZoneWork}, Excluded: []fcp.WriterID{{1}}}
	g, err := SignGrant(w.now, w.owner, grant)
	must(t, g, err)
	approve := func(s ApprovalScope) []byte {
		b, err := SignApproval(testRand(3), w.owner, ApprovalSpec{Zone: fcp.ZoneWork, IssuedAt: w.now, Expires: w.now.Add(time.Minute), Justification: "because", Scope: s})
		return must(t, b, err)
	}
	approval := func(b []byte) error { return err1(VerifyApproval(b)) }
	san, err := SignSanitizer(w.now, w.node, SanitizerSpec{"receipt-1", fcp.ZoneWork, "sanitizer.url", PublicInput | UnverifiedLink, UnverifiedLink, []string{"input-1"}})
	must(t, san, err)
	bind, err := SignBinding(w.now, w.owner, w.bindings[0].Spec())
	must(t, bind, err)
	header := func(s fcp.Schema) fcp.ObjectHeader { return fcp.PlainHeader(s, fcp.ZoneWork, 1704067200) }
	key, seq := "payment-1", uint64(7)
	intent, err := SignIntent(w.node, OperationIntent{Header: header(fcp.SchemaOperationIntent), Request: fcp.ObjectID{9}, Token: TokenID{1}, IdempotencyKey: &key,
		PlannedAt: 1704067200, PlannedBy: w.node.Writer().String(), LeaseSeq: &seq, Upstream: &key})
	must(t, intent, err)
	receipt, err := SignReceipt(w.node, OperationReceipt{Header: header(fcp.SchemaOperationReceipt), Request: fcp.ObjectID{9}, IdempotencyKey: &key,
		Outcomes: []fcp.ObjectID{{1}}, Resources: []fcp.ObjectID{{2}, {3}}, Usage: []UsageMetric{{"tokens", 12, &key, nil}}, ExecutedAt: 1704067300, ExecutedBy: w.node.Writer().String()})
	must(t, receipt, err)
	secret, err := SignSecretAccess(testRand(4), w.owner, SecretAccessSpec{Zone: fcp.ZoneWork, Secret: SecretID{1}, Credential: CredentialID{2}, Holder: w.node.Writer(),
		Request: fcp.Hash{5}, Purpose: "send a mail", NotBefore: w.now, Expires: w.now.Add(time.Minute)})
	must(t, secret, err)
	_, r := w.usual(1)
	r.Resource = "mail://sent/1"
	d := Decide(w.facts(), w.prove(r))
	decision, err := SignDecision(w.now, w.node, r, &d)
	must(t, decision, err)
	node := w.node.Public().Signing
	return map[string]tokenSample{
		"grant":                    {g, func(b []byte) error { return err1(VerifyGrant(b)) }},
		"approval: elevation":      {approve(ApprovalScope{Kind: ApproveElevation, Operation: "mail.get", Provenance: fcp.Hash{3}, Integrity: 60}), approval},
		"approval: declassify":     {approve(ApprovalScope{Kind: ApproveDeclassification, From: fcp.ZonePrivate, To: fcp.ZoneWork, Objects: []fcp.ObjectID{{1}}, Confidentiality: 70}), approval},
		"approval: execution":      {approve(ApprovalScope{Kind: ApproveExecution, Connector: testConnector, Method: "mail.*", Request: fcp.ObjectID{9}, InputHash: fcp.Hash{8}, Input: []InputConstraint{{"/to", fcp.RawCBOR("\x61a")}}}), approval},
		"sanitizer receipt":        {san, func(b []byte) error { return err1(VerifySanitizer(b)) }},
		"principal-device binding": {bind, func(b []byte) error { return err1(VerifyBinding(w.owner.Public(), b)) }},
		"operation intent":         {intent, func(b []byte) error { return err1(VerifyIntent(node, b)) }},
		"operation receipt":        {receipt, func(b []byte) error { return err1(VerifyReceipt(node, b)) }},
		"secret access token":      {secret, func(b []byte) error { return err1(VerifySecretAccess(&w.auth, b)) }},
		"decision receipt":         {decision, func(b []byte) error { return err1(VerifyDecision(node, b)) }},
	}
}

// TestControlObjectsRefuseEveryFlippedByte leaves out what the reference's layouts
// do not cover: an intent's and a receipt's header beyond its time.
func TestControlObjectsRefuseEveryFlippedByte(t *testing.T) {
	for name, s := range tokenSamples(t, newWorld(t)) {
		if err := s.verify(s.b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range s.b {
			bad := bytes.Clone(s.b)
			bad[i] ^= 1 << (i % 8)
			if s.verify(bad) == nil && !strings.HasPrefix(name, "operation") {
				t.Errorf("%s: byte %d does not matter", name, i)
			}
		}
		for _, bad := range [][]byte{nil, s.b[:32], s.b[:len(s.b)-1], append(bytes.Clone(s.b), 0), make([]byte, MaxSignedObject+1)} {
			if s.verify(bad) == nil {
				t.Errorf("%s: %d bytes pass", name, len(bad))
			}
		}
	}
}

// TestReferenceToken is the token derived from the rules of spec/wire.md section 6.
func TestReferenceToken(t *testing.T) {
	n, err := NodeKeysFromSecret(slices.Concat(make([]byte, 32), clamped(), bytes.Repeat([]byte{1}, 32)))
	must(t, n, err)
	b, err := MintReference(n, ReferenceClaims{Issuer: "test", Subject: "user:alice", Capability: "cap.read", Zone: "z:work"})
	must(t, b, err)
	const want = "844da201270448a0c1f01ec0c902d8a0582da43a00010001667a3a776f726b3a00010000686361702e72656164016474657374026a757365723a616c69636558402d8cfd3cef5163a9049f7b9a619f87980e1495c683f613118077ab97f4cb9907a4648d7b4278c7dd5182ee73d8b373face45a3a8a62704b230036b636a94f609"
	if hex.EncodeToString(b) != want {
		t.Errorf("%x", b)
	}
	c, err := VerifyReference(n.Public().Issuance, b)
	must(t, c, err)
	if c.Issuer != "test" || c.Subject != "user:alice" || c.Capability != "cap.read" || c.Zone != fcp.ZoneWork {
		t.Errorf("%+v", c)
	}
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 1
		if _, err := VerifyReference(n.Public().Issuance, bad); err == nil {
			t.Errorf("byte %d does not matter", i)
		}
	}
	// Neither profile is the other.
	w := newWorld(t)
	chain, _ := w.usual(1)
	if _, err := VerifyReference(w.node.Public().Issuance, chain.b[0]); ReasonOf(err) != ReasonCOSETyp {
		t.Errorf("a native token as reference token: %v", err)
	}
	b, err = MintReference(w.node, ReferenceClaims{Issuer: "test", Zone: fcp.ZoneWork})
	if d := decideToken(w, must(t, b, err)); d.Reason != ReasonCOSETyp {
		t.Errorf("a reference token as native token: %s", d.Reason)
	}
}

func clamped() []byte {
	b := bytes.Repeat([]byte{8}, 32)
	clamp(b)
	return b
}

func TestReferenceTokenCheck(t *testing.T) {
	c := ReferenceClaims{Expires: 100, NotBefore: 50, Zone: fcp.ZoneWork, Capability: "c", Operations: []string{"op"}, Constraints: Constraints{ResourceAllow: []string{"a"}, ResourceDeny: []string{"ab"}}}
	for _, x := range []struct {
		at      int64
		zone    fcp.ZoneID
		op, res string
		want    fcp.Reason
	}{
		{50, fcp.ZoneWork, "op", "a1", ""}, {99, fcp.ZoneWork, "op", "a", ""}, {100, fcp.ZoneWork, "op", "a", ReasonTokenExpired},
		{49, fcp.ZoneWork, "op", "a", ReasonTokenEarly}, {60, fcp.ZonePrivate, "op", "a", ReasonTokenZone},
		{60, fcp.ZoneWork, "other", "a", ReasonOperation}, {60, fcp.ZoneWork, "op", "b", ReasonResource}, {60, fcp.ZoneWork, "op", "abc", ReasonResource},
	} {
		if err := c.Check(time.Unix(x.at, 0), x.zone, x.op, x.res); ReasonOf(err) != x.want {
			t.Errorf("%+v: %v", x, err)
		}
	}
}

// TestSignedLayoutsOfOperationsHaveOneReading draws intents and receipts with
// texts that look like what stands beside them: two different ones never sign the
// same bytes.
func TestSignedLayoutsOfOperationsHaveOneReading(t *testing.T) {
	texts := []*string{nil}
	for _, s := range []string{"a", "aa", "!", "!!", "~", "aaaaaaaa", "a!aaaaaa"} {
		texts = append(texts, &s)
	}
	times := []uint64{0, 0x61, 0x6161, 0x21212121, maxUnixSeconds}
	seen := map[string]string{}
	check := func(signed []byte, o string, err error) {
		if err != nil {
			return
		}
		if other, there := seen[string(signed)]; there && other != o {
			t.Fatalf("%s and %s sign %x", other, o, signed)
		}
		seen[string(signed)] = o
	}
	for _, k := range texts {
		for _, u := range texts {
			for _, at := range times {
				for _, by := range texts[1:] {
					for _, seq := range []*uint64{nil, new(uint64), &times[1]} {
						o := OperationIntent{Header: fcp.PlainHeader(fcp.SchemaOperationIntent, fcp.ZoneWork, 1), IdempotencyKey: k, PlannedAt: at, PlannedBy: *by, LeaseSeq: seq, Upstream: u}
						check(o.Signable(), fmt.Sprint(show(k), at, *by, show(seq), show(u)), o.check())
					}
				}
			}
		}
		for n := range 4 {
			for m := range 4 {
				for _, at := range times {
					o := OperationReceipt{Header: fcp.PlainHeader(fcp.SchemaOperationReceipt, fcp.ZoneWork, 1), IdempotencyKey: k,
						Outcomes: make([]fcp.ObjectID, n), Resources: make([]fcp.ObjectID, m), ExecutedAt: at, ExecutedBy: "aa"}
					check(o.Signable(), fmt.Sprint(show(k), n, m, at), o.check())
				}
			}
		}
	}
	for name, o := range map[string]OperationIntent{
		"key with a zero":   {PlannedBy: "n", IdempotencyKey: ptr("a\x00")},
		"empty key":         {PlannedBy: "n", IdempotencyKey: ptr("")},
		"long key":          {PlannedBy: "n", IdempotencyKey: ptr(strings.Repeat("k", MaxIdempotency+1))},
		"no node":           {},
		"node of a newline": {PlannedBy: "a\nb"},
		"far time":          {PlannedBy: "n", PlannedAt: maxUnixSeconds + 1},
	} {
		o.Header = fcp.PlainHeader(fcp.SchemaOperationIntent, fcp.ZoneWork, 1)
		if _, err := SignIntent(testNode(t, 1), o); err == nil {
			t.Errorf("%s is signed", name)
		}
	}
	if _, err := SignReceipt(testNode(t, 1), OperationReceipt{Header: fcp.PlainHeader(fcp.SchemaOperationReceipt, fcp.ZoneWork, 1), ExecutedBy: "n", Outcomes: make([]fcp.ObjectID, MaxReceiptIDs+1)}); err == nil {
		t.Error("33 outcomes are signed")
	}
}

func ptr[T any](v T) *T { return &v }

func show[T any](p *T) string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%v;", *p)
}

func TestTokensThatCannotBeMinted(t *testing.T) {
	w := newWorld(t)
	g := w.grant(w.grantSpec())
	for name, c := range map[string]struct {
		reason fcp.Reason
		change func(*TokenSpec)
	}{
		"no grant":           {ReasonClaims, func(s *TokenSpec) { s.Grants = nil }},
		"grants unsorted":    {ReasonClaims, func(s *TokenSpec) { s.Grants = []fcp.Hash{{2}, {1}} }},
		"nine grants":        {ReasonClaims, func(s *TokenSpec) { s.Grants = make([]fcp.Hash, 9) }},
		"no rights":          {ReasonScope, func(s *TokenSpec) { s.Rights = nil }},
		"a right twice":      {ReasonScope, func(s *TokenSpec) { s.Rights = []Right{s.Rights[0], s.Rights[0]} }},
		"an empty operation": {ReasonScope, func(s *TokenSpec) { s.Rights = []Right{{testCapability, ""}} }},
		"seventeen rights": {ReasonScope, func(s *TokenSpec) {
			for i := range 17 {
				s.Rights = append(s.Rights, Right{testCapability, fmt.Sprint("op", i)})
			}
		}},
		"no resources":      {ReasonScope, func(s *TokenSpec) { s.Constraints.ResourceAllow = nil }},
		"an empty prefix":   {ReasonScope, func(s *TokenSpec) { s.Constraints.ResourceAllow = []string{""} }},
		"a long lifetime":   {ReasonTokenLifetime, func(s *TokenSpec) { s.Expires = s.NotBefore.Add(MaxTokenLifetime + time.Second) }},
		"no lifetime":       {ReasonClaims, func(s *TokenSpec) { s.Expires = s.NotBefore }},
		"no confirmation":   {ReasonClaims, func(s *TokenSpec) { s.Confirm = HolderPublic{} }},
		"no checkpoint":     {ReasonClaims, func(s *TokenSpec) { s.Checkpoint = CheckpointRef{} }},
		"no audience":       {ReasonClaims, func(s *TokenSpec) { s.Audience = "" }},
		"no instance":       {ReasonClaims, func(s *TokenSpec) { s.Instance = "" }},
		"no holder":         {ReasonClaims, func(s *TokenSpec) { s.Holder = fcp.WriterID{} }},
		"no zone":           {ReasonClaims, func(s *TokenSpec) { s.Zone = "" }},
		"too deep":          {ReasonClaims, func(s *TokenSpec) { s.Depth = MaxDelegation + 1 }},
		"a zero credential": {ReasonScope, func(s *TokenSpec) { s.Constraints.CredentialAllow = []CredentialID{{}} }},
	} {
		s := w.tokenSpec(g)
		c.change(&s)
		if _, err := MintToken(testRand(1), w.now, w.node, s); ReasonOf(err) != c.reason {
			t.Errorf("%s: %v", name, err)
		}
	}
	chain := w.mintChain(w.tokenSpec(g))
	if _, err := Attenuate(testRand(1), w.now, w.holders[1], chain, w.narrowing(chain)); fcp.CodeOf(err) != fcp.CodeWrongKey {
		t.Errorf("a child by another key: %v", err)
	}
	n := w.narrowing(chain)
	n.Rights = []Right{{testCapability, "mail.list"}}
	if _, err := Attenuate(testRand(1), w.now, w.holders[0], chain, n); ReasonOf(err) != ReasonWidened {
		t.Errorf("a wider child: %v", err)
	}
}

func TestCheckMintRefusesWhatDecideWould(t *testing.T) {
	w := newWorld(t)
	g := w.grant(w.grantSpec())
	spec := w.tokenSpec(g)
	other := w.grantSpec()
	other.Principal = "user:bob"
	bob := w.grant(other)
	wide := spec
	wide.Rights = []Right{{testCapability, AnyOperation}}
	private := spec
	private.Zone = fcp.ZonePrivate
	ofBob := w.tokenSpec(bob)
	for name, c := range map[string]struct {
		reason fcp.Reason
		err    error
	}{
		"as granted":        {"", CheckMint(spec, []*Grant{g})},
		"no grant":          {ReasonGrantUnknown, CheckMint(spec, nil)},
		"another grant":     {ReasonGrantUnknown, CheckMint(spec, []*Grant{bob})},
		"another principal": {ReasonGrantPrincipal, CheckMint(ofBob, []*Grant{bob})},
		"another zone":      {ReasonGrantZone, CheckMint(private, []*Grant{g})},
		"wider":             {ReasonNotContained, CheckMint(wide, []*Grant{g})},
	} {
		if ReasonOf(c.err) != c.reason || (c.err == nil) != (c.reason == "") {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func TestHolderKeyIsRedacted(t *testing.T) {
	k, err := NewHolderKey(testRand(1))
	must(t, k, err)
	seed := k.Secret()
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %x %s", k, k, k, k, *k), fmt.Sprint(struct{ K *HolderKey }{k})} {
		if strings.Contains(s, hex.EncodeToString(seed)) || strings.Contains(s, fmt.Sprint(seed)[1:20]) {
			t.Errorf("printed as %s", s)
		}
	}
	back, err := HolderKeyFromSeed(seed)
	if must(t, back, err).Public() != k.Public() {
		t.Error("the key does not come back")
	}
	k.Wipe()
	if bytes.Equal(k.Secret(), seed) {
		t.Error("not wiped")
	}
}
