package authority

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
	"fcp/authority/frost"
)

// sharing is a secret among devices.
type sharing struct {
	owner *OwnerKey
	nodes []*NodeKeys // in the order of their shares
	body  []byte
	*Secret
}

func newSharing(t testing.TB, k, n int, value []byte, kem KEM) *sharing {
	t.Helper()
	s := &sharing{owner: testOwner(t, 1)}
	spec := SecretSpec{Zone: fcp.ZoneWork, ID: SecretID{7}, Name: "api/token", Version: 1, Value: 1, Threshold: k, KEM: kem, Reason: SecretPut}
	for i := range n {
		node := testNode(t, byte(i+10))
		h, err := node.Hybrid()
		spec.Recipients = append(spec.Recipients, node.Public().Recipient().WithHybrid(must(t, h, err)))
		s.nodes = append(s.nodes, node)
	}
	slices.SortFunc(s.nodes, func(a, b *NodeKeys) int { return strings.Compare(a.Writer().String(), b.Writer().String()) })
	b, err := SealSecret(testRand(3), testNow, s.owner, spec, value)
	s.body = must(t, b, err)
	s.Secret = s.open(t, b)
	return s
}

func (s *sharing) open(t testing.TB, b []byte) *Secret {
	t.Helper()
	u, err := OpenSecret(b)
	v, err2 := must(t, u, err).Authorize(&Authorities{Owner: s.owner.Public()})
	return must(t, v, err2)
}

func (s *sharing) shares(t testing.TB, who ...int) (out []*SecretShare) {
	t.Helper()
	for _, i := range who {
		sh, err := s.OpenShare(s.nodes[i])
		out = append(out, must(t, sh, err))
	}
	return out
}

// rebuilt returns the value, which only a test may keep.
func rebuilt(s *Secret, shares []*SecretShare) (value []byte, err error) {
	err = s.Rebuild(shares, func(b []byte) error { value = bytes.Clone(b); return nil })
	return value, err
}

func TestAnyKDevicesRebuildASecret(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(rt, "n")
		k := rapid.IntRange(1, n).Draw(rt, "k")
		size := rapid.SampledFrom([]int{1, 29, 30, 31, 64, 1000, MaxSecret}).Draw(rt, "size")
		value := bytes.Repeat([]byte{rapid.Byte().Draw(rt, "byte")}, size)
		s := newSharing(t, k, n, value, rapid.SampledFrom([]KEM{0, KEMHybrid}).Draw(rt, "kem"))
		all := make([]int, n)
		for i := range all {
			all[i] = i
		}
		who := rapid.Permutation(all).Draw(rt, "who")
		got, err := rebuilt(s.Secret, s.shares(t, who[:k]...))
		if err != nil || !bytes.Equal(got, value) {
			rt.Fatalf("%d bytes: %v", len(got), err)
		}
		if _, err := rebuilt(s.Secret, s.shares(t, who[:k-1]...)); !errors.Is(err, fcp.CodeNotEnough) {
			rt.Fatalf("%d of %d: %v", k-1, k, err)
		}
	})
}

func TestAWrongShareIsNamed(t *testing.T) {
	s := newSharing(t, 2, 3, []byte("value"), 0)
	asker, from := s.nodes[0], s.nodes[2]
	share := s.shares(t, 2)[0]
	to := asker.Public().Recipient()
	answer, err := s.Release(testRand(4), testNow, share, to)
	must(t, answer, err)
	got, err := s.Receive(asker, from.Writer(), answer)
	must(t, got, err)
	if v, err := rebuilt(s.Secret, []*SecretShare{s.shares(t, 1)[0], got}); err != nil || string(v) != "value" {
		t.Fatalf("%q %v", v, err)
	}
	wrong := func(change func(p *shareSecret)) []byte {
		t.Helper()
		sh := s.shares(t, 2)[0]
		change(sh.p())
		b, err := s.Release(testRand(5), testNow, sh, to)
		return must(t, b, err)
	}
	named := func(b []byte, code fcp.Code) {
		t.Helper()
		_, err := s.Receive(asker, from.Writer(), b)
		if !errors.Is(err, code) || !strings.Contains(err.Error(), from.Writer().String()[:16]) {
			t.Fatalf("%v, want %v and the name of the device", err, code)
		}
	}
	for i := range share.p().opened {
		named(wrong(func(p *shareSecret) { p.opened[i] ^= 1 }), fcp.CodeCorrupt)
	}
	named(wrong(func(p *shareSecret) { p.opened = p.opened[1:] }), fcp.CodeCorrupt)
	named(wrong(func(p *shareSecret) { p.opened = s.shares(t, 1)[0].p().opened }), fcp.CodeCorrupt)
	named(wrong(func(p *shareSecret) { p.index = 1 }), fcp.CodeInvalidArgument)
	if _, err := s.Receive(s.nodes[1], from.Writer(), answer); !errors.Is(err, fcp.CodeWrongKey) {
		t.Errorf("an answer to somebody else: %v", err)
	}
	if _, err := s.Receive(asker, testNode(t, 99).Writer(), answer); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("an answer of a stranger: %v", err)
	}
	if _, err := s.OpenShare(testNode(t, 99)); !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("a stranger's share: %v", err)
	}
}

func TestSharesOfAnotherVersionAreRefused(t *testing.T) {
	s := newSharing(t, 2, 2, []byte("value"), 0)
	spec := SecretSpec{Zone: s.Zone(), ID: s.ID(), Name: s.Name(), Version: 2, Value: 1, Prev: s.Ref(), Threshold: 2, Reason: SecretReshared,
		Recipients: []Recipient{s.nodes[0].Public().Recipient(), s.nodes[1].Public().Recipient()}}
	b, err := SealSecret(testRand(9), testNow, s.owner, spec, []byte("value"))
	next := &sharing{owner: s.owner, nodes: s.nodes, Secret: s.open(t, must(t, b, err))}
	if v, err := rebuilt(next.Secret, next.shares(t, 0, 1)); err != nil || string(v) != "value" {
		t.Fatalf("%q %v", v, err)
	}
	mixed := []*SecretShare{s.shares(t, 0)[0], next.shares(t, 1)[0]}
	for _, x := range []*Secret{s.Secret, next.Secret} {
		if _, err := rebuilt(x, mixed); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("shares of two versions: %v", err)
		}
	}
	answer, err := s.Release(testRand(4), testNow, s.shares(t, 1)[0], s.nodes[0].Public().Recipient())
	if _, err := next.Receive(s.nodes[0], s.nodes[1].Writer(), must(t, answer, err)); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("an answer of the version before: %v", err)
	}
	if bytes.Equal(s.shares(t, 0)[0].p().opened, next.shares(t, 0)[0].p().opened) {
		t.Error("the new share is the old one")
	}
	removed, err := RemoveSecret(testNow, s.owner, SecretSpec{Zone: s.Zone(), ID: s.ID(), Name: s.Name(), Version: 3, Value: 1, Prev: next.Ref()})
	gone := s.open(t, must(t, removed, err))
	if _, err := rebuilt(gone, next.shares(t, 0, 1)); !gone.Removed() || !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("a removed secret: %v", err)
	}
}

// TestASecretDealtWrongIsFoundOut has the owner sign shares that lie on no
// polynomial of the value.
func TestASecretDealtWrongIsFoundOut(t *testing.T) {
	s := newSharing(t, 2, 2, []byte("value"), 0)
	o := s.o
	commitment := fcp.Hash{1}
	o.Commitment = commitment[:]
	b, err := signOwned(s.owner, SchemaSecret, &o, &o.Signature)
	bad := &sharing{owner: s.owner, nodes: s.nodes, Secret: s.open(t, must(t, b, err))}
	if _, err := rebuilt(bad.Secret, bad.shares(t, 0, 1)); !errors.Is(err, fcp.CodeCorrupt) {
		t.Error(err)
	}
}

func TestSecretObjectsAreRefused(t *testing.T) {
	s := newSharing(t, 2, 3, []byte("value"), 0)
	for name, change := range map[string]func(o *secretObject){
		"format":              func(o *secretObject) { o.Format = 2 },
		"zone":                func(o *secretObject) { o.Zone = "work" },
		"no id":               func(o *secretObject) { o.ID = SecretID{} },
		"version 0":           func(o *secretObject) { o.Version, o.Value = 0, 0 },
		"value after version": func(o *secretObject) { o.Value = 2 },
		"no name":             func(o *secretObject) { o.Name = "" },
		"a pattern":           func(o *secretObject) { o.Name = "api/*" },
		"reason":              func(o *secretObject) { o.Reason = "borrowed" },
		"reason of version 2": func(o *secretObject) { o.Reason = SecretRotated },
		"prev in version 1":   func(o *secretObject) { o.Prev = make([]byte, 32) },
		"no prev":             func(o *secretObject) { o.Version, o.Reason = 2, SecretRotated },
		"no commitment":       func(o *secretObject) { o.Commitment = nil },
		"threshold 0":         func(o *secretObject) { o.Threshold = 0 },
		"threshold 4":         func(o *secretObject) { o.Threshold = 4 },
		"no shares":           func(o *secretObject) { o.Shares = nil },
		"one holder twice":    func(o *secretObject) { o.Shares[1].Holder = o.Shares[0].Holder },
		"out of order":        func(o *secretObject) { slices.Reverse(o.Shares) },
		"another length":      func(o *secretObject) { o.Shares[1].Box.CT = make([]byte, 64) },
		"short shares": func(o *secretObject) {
			for i := range o.Shares {
				o.Shares[i].Box.CT = o.Shares[i].Box.CT[:40]
			}
		},
		"removed with shares": func(o *secretObject) { o.Version, o.Prev, o.Reason = 2, make([]byte, 32), SecretRemoved },
		"year 10000":          func(o *secretObject) { o.IssuedAt = maxUnixSeconds + 1 },
	} {
		o := s.o
		o.Shares = slices.Clone(o.Shares)
		change(&o)
		b, err := signObject(s.owner, SchemaSecret, &o, &o.Signature)
		if _, err := OpenSecret(must(t, b, err)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	u, err := OpenSecret(s.body)
	if _, err := must(t, u, err).Authorize(&Authorities{Owner: testOwner(t, 2).Public()}); ReasonOf(err) != ReasonNotOwner {
		t.Errorf("another owner: %v", err)
	}
	spec := SecretSpec{Zone: fcp.ZoneWork, ID: SecretID{1}, Name: "x", Version: 1, Value: 1, Threshold: 1, Reason: SecretPut,
		Recipients: []Recipient{testNode(t, 1).Public().Recipient()}}
	for _, n := range []int{0, MaxSecret + 1} {
		if _, err := SealSecret(testRand(1), testNow, s.owner, spec, make([]byte, n)); !errors.Is(err, fcp.CodeTooLarge) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	spec.Recipients = append(spec.Recipients, spec.Recipients[0])
	if _, err := SealSecret(testRand(1), testNow, s.owner, spec, []byte("v")); err == nil {
		t.Error("a device holds two shares")
	}
	spec.Recipients = []Recipient{testRecovery(t, s.owner).Public().Recipient()}
	if _, err := SealSecret(testRand(1), testNow, s.owner, spec, []byte("v")); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("a share for the recovery key: %v", err)
	}
}

// TestAnObjectSaysNothingOfItsSecret: neither the value nor any share of it is in the
// object, and values of up to 30 bytes look alike.
func TestAnObjectSaysNothingOfItsSecret(t *testing.T) {
	value := []byte("a canary of thirty bytes, I am")
	s := newSharing(t, 2, 3, value, 0)
	for _, sh := range s.shares(t, 0, 1, 2) {
		if bytes.Contains(s.body, sh.p().opened[:16]) || bytes.Contains(s.body, sh.p().opened[shareBlind:][:16]) {
			t.Error("a share is in the object")
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
			if got := fmt.Sprintf(verb, sh); got != redactedText {
				t.Errorf("%s: %s", verb, got)
			}
		}
		if _, err := json.Marshal(sh); err == nil {
			t.Error("a share as JSON")
		}
		sh.Wipe()
		if !bytes.Equal(sh.p().opened, make([]byte, len(sh.p().opened))) {
			t.Error("a wiped share is still there")
		}
	}
	if bytes.Contains(s.body, value) {
		t.Error("the value is in the object")
	}
	if a, b := newSharing(t, 2, 3, value[:1], 0), s; len(a.body) != len(b.body) {
		t.Errorf("1 byte takes %d bytes, 30 take %d", len(a.body), len(b.body))
	}
	var kept []byte
	if err := s.Rebuild(newSharing(t, 2, 3, value, 0).shares(t, 0, 1), func(b []byte) error { kept = b; return nil }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, make([]byte, len(value))) {
		t.Error("the value was not wiped after its use")
	}
}

// TestSecretBytesArePinned: with one seed each object has one encoding for ever
// (docs/format.md "Shared secrets"). A change of a line is a change of format.
func TestSecretBytesArePinned(t *testing.T) {
	s := newSharing(t, 2, 3, []byte("value"), 0)
	answer, err := s.Release(testRand(4), testNow, s.shares(t, 1)[0], s.nodes[0].Public().Recipient())
	must(t, answer, err)
	access, err := testAsk("access").Encode()
	must(t, access, err)
	token, err := testAsk("token").Encode()
	must(t, token, err)
	paper, err := SplitPaper(testRand(1), []byte("value"), 2, 2)
	must(t, paper, err)
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"object": {s.body, "a0c3d12d1bf99a00acecf46bb287b267"}, "answer": {answer, "6d97e823de7dc3a27793470f213e30b4"}, "ask, access": {access, "52066bca60a6f9bbc04482a8947eb3a5"}, "ask, token": {token, "7a0804570db2b8e25bbab842e0947cb0"},
		"paper, words": {[]byte(paper[0].Text()), "236d9aa468acbaac2a1d3dd7e5e93439"}, "paper, code": {[]byte(paper[1].Code()), "b1247cde2035a8b43b19b8b1e2e5a07a"},
	} {
		if got := fmt.Sprintf("%x", sha256.Sum256(c.b)); got[:32] != c.want {
			t.Errorf("%s: %d bytes with SHA-256 %.32s", name, len(c.b), got)
		}
	}
}

func testAsk(by string) *ShareAsk {
	a := &ShareAsk{Zone: fcp.ZoneWork, Secret: SecretID{7}, Version: 3, Request: fcp.ObjectID{9}, Principal: "agent:mail"}
	if by == "access" {
		a.Access = []byte("access")
	} else {
		a.Token, a.Nonce, a.At, a.Signature = []byte("chain"), [32]byte{4}, testNow, []byte("proof")
	}
	return a
}

func TestAsksForShares(t *testing.T) {
	for _, by := range []string{"access", "token"} {
		a := testAsk(by)
		b, err := a.Encode()
		got, err2 := DecodeShareAsk(must(t, b, err))
		if must(t, got, err2).Challenge() != a.Challenge() || fmt.Sprint(got) != fmt.Sprint(a) {
			t.Errorf("%+v, want %+v", got, a)
		}
	}
	for name, change := range map[string]func(a *ShareAsk){
		"both":         func(a *ShareAsk) { a.Token = []byte("x") },
		"none":         func(a *ShareAsk) { a.Access = nil },
		"no request":   func(a *ShareAsk) { a.Request = fcp.ObjectID{} },
		"no version":   func(a *ShareAsk) { a.Version = 0 },
		"zone":         func(a *ShareAsk) { a.Zone = "work" },
		"principal":    func(a *ShareAsk) { a.Principal = "not canonical" },
		"empty access": func(a *ShareAsk) { a.Access = []byte{} },
	} {
		a := testAsk("access")
		change(a)
		if name == "both" {
			o := shareAsk{Format: 1, Zone: a.Zone, Secret: a.Secret, Version: a.Version, Request: a.Request, Principal: a.Principal, Access: a.Access, Token: a.Token}
			b, err := fcp.Marshal(&o)
			if _, err := DecodeShareAsk(must(t, b, err)); err == nil {
				t.Errorf("%s: taken", name)
			}
			continue
		}
		if _, err := a.Encode(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	a := testAsk("token")
	for d, want := range map[time.Duration]bool{0: true, MaxSkew: true, -MaxSkew: true, MaxSkew + time.Second: false, -MaxSkew - time.Second: false} {
		if a.Fresh(testNow.Add(d)) != want {
			t.Errorf("after %s: fresh is %v", d, !want)
		}
	}
}

func TestPaperSharesComeBackFromWordsAndCodes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(rt, "n")
		k := rapid.IntRange(1, n).Draw(rt, "k")
		secret := rapid.SliceOfN(rapid.Byte(), 1, 60).Draw(rt, "secret")
		var seed [32]byte
		seed[0] = rapid.Byte().Draw(rt, "seed")
		shares, err := SplitPaper(rand.NewChaCha8(seed), secret, k, n)
		if err != nil {
			rt.Fatal(err)
		}
		var back []*PaperShare
		for _, i := range rapid.Permutation(shares).Draw(rt, "who")[:k] {
			text := i.Text() + "\n" + "█▀▀ ▀▄\n"
			if rapid.Bool().Draw(rt, "code") {
				text = i.Code()
			} else if rapid.Bool().Draw(rt, "case") {
				text = strings.ToUpper(strings.ReplaceAll(text, " ", "   "))
			}
			p, err := ParsePaperShare(text)
			if err != nil || p.Code() != i.Code() || p.Index() != i.Index() {
				rt.Fatalf("share %d: %v", i.Index(), err)
			}
			back = append(back, p)
		}
		var got []byte
		if err := CombinePaper(back, func(b []byte) error { got = bytes.Clone(b); return nil }); err != nil || !bytes.Equal(got, secret) {
			rt.Fatalf("%x %v", got, err)
		}
		if err := CombinePaper(back[:k-1], nil); !errors.Is(err, fcp.CodeNotEnough) {
			rt.Fatalf("%d of %d: %v", k-1, k, err)
		}
	})
}

// TestEveryMistypedWordIsNamed replaces each word of a share by others and swaps
// neighbours.
func TestEveryMistypedWordIsNamed(t *testing.T) {
	shares, err := SplitPaper(testRand(1), []byte("a secret of some length, so that there are lines"), 2, 3)
	lines := strings.Split(strings.TrimSpace(must(t, shares, err)[1].Text()), "\n")
	swapped, slipped := 0, 0
	for i := 2; i < len(lines); i++ {
		words := strings.Fields(lines[i])
		for j := 1; j < len(words); j++ {
			try := func(change func(w []string), wants ...string) {
				t.Helper()
				w := slices.Clone(words)
				change(w)
				all := slices.Clone(lines)
				all[i] = strings.Join(w, " ")
				p, err := ParsePaperShare(strings.Join(all, "\n"))
				if err == nil {
					t.Fatalf("line %d, word %d: taken as share %d", i-1, j, p.Index())
				}
				if !slices.ContainsFunc(wants, func(s string) bool { return strings.Contains(err.Error(), s) }) || strings.Contains(err.Error(), words[j]) {
					t.Errorf("line %d, word %d: %v", i-1, j, err)
				}
				if strings.Contains(err.Error(), wants[len(wants)-1]) {
					slipped++
				}
				swapped++
			}
			line := fmt.Sprintf("line %d", i-1)
			try(func(w []string) { w[j] = "fcp" }, fmt.Sprintf("%s, word %d", line, j))
			for _, other := range []string{"abandon", "zoo", "legal", "winner"} {
				if other != words[j] {
					try(func(w []string) { w[j] = other }, line, "share 2 is mistyped", "should have")
				}
			}
			if j > 1 && words[j] != words[j-1] {
				try(func(w []string) { w[j], w[j-1] = w[j-1], w[j] }, line, "share 2 is mistyped", "should have")
			}
		}
		all := slices.Delete(slices.Clone(lines), i, i+1)
		if _, err := ParsePaperShare(strings.Join(all, "\n")); err == nil {
			t.Errorf("line %d left out: taken", i-1)
		}
	}
	if swapped < 100 {
		t.Fatalf("%d tries", swapped)
	}
	t.Logf("%d of %d mistakes passed the line's own checksum", slipped, swapped)
}

func TestPaperSharesThatDoNotGoTogether(t *testing.T) {
	a, err := SplitPaper(testRand(1), []byte("one secret"), 2, 3)
	must(t, a, err)
	b, err := SplitPaper(testRand(2), []byte("one secret"), 2, 3)
	must(t, b, err)
	never := func([]byte) error { t.Error("used"); return nil }
	if err := CombinePaper([]*PaperShare{a[0], b[1]}, never); !errors.Is(err, fcp.CodeConflict) || !strings.Contains(err.Error(), b[1].Set()) {
		t.Errorf("two sets: %v", err)
	}
	if err := CombinePaper([]*PaperShare{a[0], a[0]}, never); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("one share twice: %v", err)
	}
	a[1].p().share.Y[9] ^= 1
	if err := CombinePaper(a[:2], never); !errors.Is(err, fcp.CodeChecksum) {
		t.Errorf("a forged share: %v", err)
	}
	if _, err := SplitPaper(testRand(1), make([]byte, MaxPaperSecret+1), 1, 1); !errors.Is(err, fcp.CodeTooLarge) {
		t.Error(err)
	}
	big, err := SplitPaper(testRand(1), make([]byte, MaxPaperSecret), 2, 2)
	for _, text := range []string{must(t, big, err)[0].Text(), big[0].Code()} {
		if _, err := ParsePaperShare(text); err != nil {
			t.Errorf("the largest secret: %v", err)
		}
	}
}

// TestASplitOwnerSignsARevocation: what k of n holders sign of a draft is the object
// that the owner's whole key would have signed.
func TestASplitOwnerSignsARevocation(t *testing.T) {
	owner := testOwner(t, 5)
	spec := RevocationSpec{Zone: fcp.ZoneWork, Scope: RevokeToken, Targets: []fcp.Hash{{1}}, Reason: "lost"}
	draft, err := DraftRevocation(testNow, owner.Public(), spec)
	must(t, draft, err)
	whole, err := Revoke(testNow, owner, spec)
	must(t, whole, err)
	if again, err := SignedObject(draft, owner.Sign(draft)); err != nil || !bytes.Equal(again, whole) {
		t.Fatalf("a draft with the owner's signature is another object: %v", err)
	}
	shown, err := ReadDraftedRevocation(owner.Public(), draft)
	if must(t, shown, err).Reason() != "lost" || shown.Targets()[0] != (fcp.Hash{1}) {
		t.Error("the draft says something else")
	}
	if _, err := ReadDraftedRevocation(testOwner(t, 6).Public(), draft); !errors.Is(err, fcp.CodeWrongKey) {
		t.Errorf("another owner's draft: %v", err)
	}
	group, shares, err := owner.Split(testRand(8), 2, 3)
	must(t, shares, err)
	if OwnerPublic(group.Public()) != owner.Public() {
		t.Fatal("the split key has another public half")
	}
	var nonces []*frost.Nonces
	var commitments []frost.Commitment
	for _, s := range shares[1:] {
		n, c, err := frost.Commit(testRand(byte(s.ID())), s)
		nonces, commitments = append(nonces, must(t, n, err)), append(commitments, c)
	}
	var parts []frost.SignatureShare
	for i, s := range shares[1:] {
		p, err := frost.Sign(group, s, nonces[i], draft, commitments)
		parts = append(parts, must(t, p, err))
	}
	sig, err := frost.Aggregate(group, draft, commitments, parts)
	must(t, sig, err)
	b, err := SignedObject(draft, sig[:])
	must(t, b, err)
	r, err := VerifyRevocation(owner.Public(), b)
	if must(t, r, err).Reason() != "lost" || !ed25519.Verify(group0(group), draft, sig[:]) {
		t.Error("the revocation says something else")
	}
}

func group0(g *frost.Group) ed25519.PublicKey { p := g.Public(); return p[:] }

// TestSignedObjectPutsBackWhatWasCutOut does so for every signed object there is.
func TestSignedObjectPutsBackWhatWasCutOut(t *testing.T) {
	for name, s := range signedSamples(t) {
		cut, err := cutSignature(s.b)
		if err != nil {
			continue // several signers
		}
		got, err := SignedObject(cut.message, cut.signature)
		if err != nil || !bytes.Equal(got, s.b) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := SignedObject(s.b, cut.signature); !errors.Is(err, fcp.CodeMalformed) {
			t.Errorf("%s, signed already: %v", name, err)
		}
	}
}

func FuzzSecret(f *testing.F) {
	s := newSharing(f, 2, 2, []byte("value"), 0)
	f.Add(s.body)
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := OpenSecret(b)
		if err != nil {
			return
		}
		if u.Issuer() == s.owner.Public() && !bytes.Equal(b, s.body) {
			t.Errorf("accepted %x", b)
		}
		if again, err := u.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("does not encode back: %v", err)
		}
	})
}

func FuzzShareMessages(f *testing.F) {
	s := newSharing(f, 2, 2, []byte("value"), 0)
	answer, err := s.Release(testRand(4), testNow, s.shares(f, 1)[0], s.nodes[0].Public().Recipient())
	f.Add(must(f, answer, err))
	for _, by := range []string{"access", "token"} {
		ask, err := testAsk(by).Encode()
		f.Add(must(f, ask, err))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeShareAsk(b); err == nil {
			if again, err := a.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("an ask does not encode back: %v", err)
			}
		}
		if r, err := decodeReleased(b); err == nil {
			if again, err := fcp.Marshal(r); err != nil || !bytes.Equal(again, b) {
				t.Errorf("an answer does not encode back: %v", err)
			}
		}
		if sh, err := s.Receive(s.nodes[0], s.nodes[1].Writer(), b); err == nil && !bytes.Equal(sh.p().opened, s.shares(t, 1)[0].p().opened) {
			t.Error("another share was taken")
		}
	})
}

func FuzzPaperShare(f *testing.F) {
	shares, err := SplitPaper(testRand(1), []byte("value"), 2, 2)
	f.Add(must(f, shares, err)[0].Text())
	f.Add(shares[1].Code())
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePaperShare(text)
		if err != nil {
			return
		}
		for _, again := range []string{p.Text(), p.Code()} {
			if q, err := ParsePaperShare(again); err != nil || q.Code() != p.Code() {
				t.Errorf("does not come back: %v", err)
			}
		}
	})
}

func FuzzSignedObject(f *testing.F) {
	draft, err := DraftRevocation(testNow, testOwner(f, 5).Public(), RevocationSpec{Zone: fcp.ZoneWork, Scope: RevokeToken, Targets: []fcp.Hash{{1}}})
	f.Add(must(f, draft, err))
	sig := bytes.Repeat([]byte{9}, 64)
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := SignedObject(b, sig)
		if err != nil {
			return
		}
		cut, err := cutSignature(out)
		if err != nil || !bytes.Equal(cut.message, b) || !bytes.Equal(cut.signature, sig) {
			t.Errorf("the signature does not come out again: %v", err)
		}
		_, _ = ReadDraftedRevocation(OwnerPublic{}, b)
	})
}

// BenchmarkSecretRebuild is the bench row secret/rebuild/3-of-5: the requester opens
// its own share and the boxes of two others, checks all three, and rebuilds.
func BenchmarkSecretRebuild(b *testing.B) {
	s := newSharing(b, 3, 5, make([]byte, 32), 0)
	var answers [][]byte
	for i := 1; i < 3; i++ {
		a, err := s.Release(testRand(4), testNow, s.shares(b, i)[0], s.nodes[0].Public().Recipient())
		answers = append(answers, must(b, a, err))
	}
	for b.Loop() {
		shares := s.shares(b, 0)
		for i, a := range answers {
			sh, err := s.Receive(s.nodes[0], s.nodes[i+1].Writer(), a)
			shares = append(shares, must(b, sh, err))
		}
		if err := s.Rebuild(shares, func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
