package conformance

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority"
	"fcp/conformance/internal/catalog"
	"fcp/conformance/internal/respond"
	"fcp/engine"
	"fcp/log"
)

// The seven tests that the founding text asks of every implementation (section 9.4,
// "Conformance Requirements"), under its names. Each exercises the product itself;
// what other implementations are asked is in the vectors.

// newCatalog makes the catalog of examples.
func newCatalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMandatory1CanonicalSerialization: given input, produce exact byte output.
// Every example decodes to a value that encodes to the same bytes, and every other
// spelling of it is refused.
func TestMandatory1CanonicalSerialization(t *testing.T) {
	for i, o := range newCatalog(t).Objects {
		body := o.Body()
		if strings.HasPrefix(o.Name, "token") { // claims have an order of their own
			continue
		}
		var v any
		if err := fcp.Unmarshal(body, &v); err != nil {
			t.Errorf("%s: %v", o.Name, err)
			continue
		}
		again, err := fcp.Marshal(v)
		if err != nil || !bytes.Equal(again, body) {
			t.Errorf("%s: encodes to other bytes (%v)", o.Name, err)
		}
		for what, other := range spellings(body) {
			if fcp.Canonical(other) == nil {
				t.Errorf("example %d, %s: %s is taken as canonical", i, o.Name, what)
			}
		}
	}
}

// spellings are other encodings of the same item, and the item with something behind.
func spellings(b []byte) map[string][]byte {
	out := map[string][]byte{"a byte behind": append(slices.Clone(b), 0), "one byte less": b[:len(b)-1]}
	if low := b[0] & 31; low < 24 {
		out["a longer head"] = append([]byte{b[0]&^31 | 24, low}, b[1:]...)
	}
	if b[0]>>5 == 4 || b[0]>>5 == 5 {
		out["an indefinite length"] = append(append([]byte{b[0] | 31}, b[1:]...), 0xff)
	}
	return out
}

// TestMandatory2ObjectIDDerivation: given content, zone and version, produce the
// exact object id. The id is computed here by hand, and each of its inputs counts.
func TestMandatory2ObjectIDDerivation(t *testing.T) {
	id := func(key []byte, zone, schema, content string) (out fcp.ObjectID) {
		hash := blake3.Sum256([]byte("FCP2-SCHEMA-V1" + schema))
		h, err := blake3.NewKeyed(key)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.WriteString("FCP2-OBJECT-V2" + zone + string(hash[:]) + content) // a hash never fails
		copy(out[:], h.Sum(nil))
		return out
	}
	key := catalog.Bytes(1, 32)
	base := []string{"z:work", "fcp.core:Blob@1.0.0", "content"}
	seen := map[fcp.ObjectID]string{}
	for i, change := range []string{"", "z:private", "fcp.core:Blob@1.0.1", "other content"} {
		in := slices.Clone(base)
		if i > 0 {
			in[i-1] = change
		}
		got := fcp.KeyedObjectID((*[32]byte)(key), fcp.ZoneID(in[0]), fcp.MustSchema(in[1]).Hash(), []byte(in[2]))
		if want := id(key, in[0], in[1], in[2]); got != want {
			t.Errorf("%q: %s instead of %s", in, got, want)
		}
		if seen[got] != "" {
			t.Errorf("%q and %q have one id", in, seen[got])
		}
		seen[got] = strings.Join(in, " ")
	}
	// The ids that a store gives are these, over header and payload.
	s := newStore(t)
	s.put(s.engines[0], "name", []byte("hello"))
	keys := s.zoneKeys(s.engines[0])
	checked := 0
	s.events(s.engines[0], func(ev *fcp.Event, salt authority.Salt) {
		if ev.Kind != fcp.KindObjectPut || len(ev.Body) == 0 {
			return
		}
		plain, err := keys.OpenBody(nil, ev.Object, salt, ev.Body)
		s.check(err)
		h, payload, err := fcp.DecodeObject(plain)
		s.check(err)
		if keys.StoredObjectID(fcp.Hash(payload[:fcp.HashSize]), plain) != ev.Object || h.Zone != s.zone {
			t.Errorf("the stored object %s has another id", ev.Object)
		}
		checked++
	})
	if checked == 0 {
		t.Error("the store holds no object")
	}
}

// answer asks the product one operation.
func answer(t testing.TB, op string, in []byte, params ...string) ([]byte, string) {
	t.Helper()
	return answerOf(t, respond.Answer, op, in, params...)
}

// answerOf asks a responder; the error code is "" when it takes the input.
func answerOf(t testing.TB, ask func(respond.Request) respond.Response, op string, in []byte, params ...string) ([]byte, string) {
	t.Helper()
	r := respond.Request{Op: op, Input: fmt.Sprintf("%x", in), Params: map[string]string{}}
	for i := 0; i+1 < len(params); i += 2 {
		r.Params[params[i]] = params[i+1]
	}
	a := ask(r)
	if a.Unsupported || a.OK == (a.Error != "") {
		t.Fatalf("%s: %+v", op, a)
	}
	var out []byte
	if _, err := fmt.Sscanf(a.Output, "%x", &out); err != nil && a.Output != "" {
		t.Fatal(err)
	}
	return out, a.Error
}

// encoded returns symbols of text with their ids.
func encoded(t testing.TB, text []byte, ids ...uint32) (out []byte) {
	t.Helper()
	for _, id := range ids {
		symbol, code := answer(t, "symbol.encode", text, "esi", fmt.Sprint(id))
		if code != "" || len(symbol) != fcp.SymbolSize {
			t.Fatalf("symbol %d: %s", id, code)
		}
		out = append(binary.BigEndian.AppendUint32(out, id), symbol...)
	}
	return out
}

// TestMandatory3SymbolEncoding: given content, produce valid RaptorQ symbols. Source
// symbols are slices of the content, repair symbols are the same whoever makes
// them, and the commitments fit the signed card.
func TestMandatory3SymbolEncoding(t *testing.T) {
	const record = 4 + fcp.SymbolSize
	c := newCatalog(t)
	text := catalog.Ciphertext()
	k := (len(text) + fcp.SymbolSize - 1) / fcp.SymbolSize
	all := encoded(t, text, 0, 1, 2, 3, 4, 1000)
	padded := append(slices.Clone(text), make([]byte, k*fcp.SymbolSize-len(text))...)
	commitments := []byte{}
	for i := range k {
		if got := all[i*record+4 : (i+1)*record]; !bytes.Equal(got, padded[i*fcp.SymbolSize:(i+1)*fcp.SymbolSize]) {
			t.Errorf("source symbol %d is no slice of the content", i)
		}
		m := fcp.SymbolCommitment(uint32(i), text[i*fcp.SymbolSize:min((i+1)*fcp.SymbolSize, len(text))])
		commitments = append(commitments, m[:]...)
	}
	card, err := fcp.DecodeCard(c.Find("card").Bytes)
	if err != nil || fcp.CommitmentRoot(commitments) != card.Source {
		t.Errorf("the card does not prove the source symbols (%v)", err)
	}
	// Somebody who rebuilt the content from repair symbols mints the same ones.
	again, code := answer(t, "symbol.decode", all[k*record:], "length", fmt.Sprint(len(text)))
	if code != "" || !bytes.Equal(again, text) {
		t.Fatalf("repair symbols alone do not rebuild it: %s", code)
	}
	if !bytes.Equal(encoded(t, again, 3, 1000), encoded(t, text, 3, 1000)) {
		t.Error("two minters make different symbols")
	}
}

// TestMandatory4SymbolReconstruction: given K' symbols, reconstruct the original.
// Any K + 4 symbols of random ids do; one too few, or one symbol many times, do not.
func TestMandatory4SymbolReconstruction(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, fcp.SymbolSize, 10*fcp.SymbolSize + 1, 100 * fcp.SymbolSize} {
		text := catalog.Bytes(byte(size), size)
		k := (size + fcp.SymbolSize - 1) / fcp.SymbolSize
		var ids []uint32
		for len(ids) < k+4 {
			if id := uint32(r.IntN(1 << 16)); !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		symbols := encoded(t, text, ids...)
		got, code := answer(t, "symbol.decode", symbols, "length", fmt.Sprint(size))
		if code != "" || !bytes.Equal(got, text) {
			t.Errorf("%d bytes from %d symbols: %s", size, len(ids), code)
		}
		if k == 1 {
			continue
		}
		few := symbols[:(k-1)*(4+fcp.SymbolSize)]
		if _, code := answer(t, "symbol.decode", few, "length", fmt.Sprint(size)); code != fcp.CodeNotEnough.String() {
			t.Errorf("%d symbols of %d: %q", k-1, k, code)
		}
		if _, code := answer(t, "symbol.decode", append(slices.Clone(few), few[:4+fcp.SymbolSize]...), "length", fmt.Sprint(size)); code != fcp.CodeNotEnough.String() {
			t.Errorf("a symbol twice: %q", code)
		}
	}
}

// TestMandatory5SignatureVerification: given a signed object, verify correctly. Every
// signed example verifies with the right key, none with another one, and none with
// any byte changed.
func TestMandatory5SignatureVerification(t *testing.T) {
	checked := 0
	cases := loadVectors(t)
	for i := range cases {
		c := &cases[i]
		if c.Op != "signed.verify" && c.Op != "card.verify" || c.Error != 0 {
			continue
		}
		checked++
		if a := respond.Answer(c.Request(0)); !a.OK {
			t.Errorf("%s: %s", c.Name, a.Error)
		}
		step := 1
		if testing.Short() || len(c.Input) > 600 {
			step = 7
		}
		for j := 0; j < len(c.Input); j += step {
			bad := *c
			bad.Input = slices.Clone(c.Input)
			bad.Input[j] ^= 1 << (j % 8)
			if a := respond.Answer(bad.Request(0)); a.OK && !unsignedBytes(c.Name) {
				t.Errorf("%s: verifies as %s with byte %d changed", c.Name, a.Output, j)
			}
		}
		if c.Op == "card.verify" {
			continue
		}
		stranger := *c
		stranger.Params = map[string]string{"key": strings.Repeat("11", 32), "keys": ""}
		if a := respond.Answer(stranger.Request(0)); a.OK {
			t.Errorf("%s: verifies with another key", c.Name)
		}
	}
	if checked < 30 {
		t.Errorf("only %d signed examples", checked)
	}
}

// unsignedBytes are objects of which docs/format.md says that some bytes are not
// signed: the header of an operation's record, and when a witness signed.
func unsignedBytes(name string) bool {
	return strings.HasPrefix(name, "intent") || strings.HasPrefix(name, "receipt") || strings.HasPrefix(name, "audit-head") || name == "fork-proof"
}

// TestMandatory6RevocationChecking: given a revocation list, reject what is revoked,
// and only that. A store is asked, before and after, by who has the token.
func TestMandatory6RevocationChecking(t *testing.T) {
	s := newStore(t)
	e := s.engines[0]
	for i, target := range []string{"grant", "token", "device"} {
		use, revoke := s.entitled(e, fmt.Sprintf("agent:%d", i))
		other, _ := s.entitled(e, fmt.Sprintf("agent:other-%d", i))
		if err := use(); err != nil {
			t.Fatalf("%s: before the revocation: %v", target, err)
		}
		revoke(target)
		if err := use(); fcp.CodeOf(err).Class() != fcp.Denied || !strings.HasPrefix(string(authority.ReasonOf(err)), "revoked.") {
			t.Errorf("%s: after the revocation: %v", target, err)
		}
		if err := other(); target != "device" && err != nil {
			t.Errorf("%s: somebody else's: %v", target, err)
		}
	}
}

// entitled gives an agent a token of a grant of its own; use writes with it, revoke
// takes a part of it back.
func (s *store) entitled(e *engine.Engine, agent string) (use func() error, revoke func(what string)) {
	s.Helper()
	now := s.clock.tick()
	got, err := e.Entitle(s.Context(), s.owner, engine.EntitleRequest{GrantSpec: authority.GrantSpec{Zone: s.zone, Principal: fcp.CanonicalID(agent),
		Rights:      []authority.Right{{Capability: engine.StoreCapability, Operation: string(engine.OperationPut)}},
		Constraints: authority.Constraints{ResourceAllow: []string{"agents/"}}, NotBefore: now, NotAfter: now.Add(time.Hour)}})
	s.check(err)
	holder, err := authority.NewHolderKey(s.env.Rand)
	s.check(err)
	chain, err := e.MintFrom(engine.MintRequest{Zone: s.zone, Grant: got.Grant, Confirm: holder.Public()})
	s.check(err)
	caller := &engine.Caller{Token: chain, Prove: func(c authority.Challenge, leaf, request fcp.Hash) ([]byte, error) {
		return holder.Prove(c, leaf, request), nil
	}}
	use = func() error {
		_, err := e.PutFor(s.Context(), caller, engine.PutRequest{Key: "agents/" + agent, Bytes: []byte("x")})
		return err
	}
	revoke = func(what string) {
		s.Helper()
		spec := authority.RevocationSpec{Zone: s.zone, Scope: authority.RevokeCapability, Targets: []fcp.Hash{got.Grant}}
		switch what {
		case "token":
			info, err := authority.InspectToken(chain.Tokens()[0])
			s.check(err)
			spec.Scope, spec.Targets = authority.RevokeToken, []fcp.Hash{info.ID.Ref()}
		case "device":
			spec.Zone, spec.Scope, spec.Targets = fcp.ZoneOwner, authority.RevokeIssuerKey, []fcp.Hash{fcp.Hash(e.Node().Issuance)}
		}
		_, err := e.Revoke(s.Context(), s.owner, spec)
		s.check(err)
	}
	return use, revoke
}

// TestMandatory7SourceDiversity: diversity requirements are enforced. Under the policy
// any-3-of-5 no two sources rebuild a store, however one counts, and every three do.
func TestMandatory7SourceDiversity(t *testing.T) {
	s := newStore(t)
	e := s.engines[0]
	for i := range 3 {
		s.put(e, fmt.Sprint("object/", i), catalog.Bytes(byte(i), 200_000))
	}
	_, err := e.Log().Seal(s.Context(), log.SealOptions{All: true})
	s.check(err)
	dirs := []string{"/d1", "/d2", "/d3", "/d4", "/d5"}
	_, err = e.Scatter(s.Context(), dirs, engine.ScatterOptions{Policy: engine.SymbolPolicy{Need: 3, Of: 5}})
	s.check(err)
	for set := range 1 << len(dirs) {
		var from []string
		for i, d := range dirs {
			if set&(1<<i) != 0 {
				from = append(from, d)
			}
		}
		if len(from) == 0 || len(from) > 3 {
			continue
		}
		to := fmt.Sprintf("/gathered-%d", set)
		_, err := engine.GatherSymbols(s.Context(), from, to, engine.GatherOptions{Environment: s.env})
		if len(from) < 3 {
			if fcp.CodeOf(err) != fcp.CodeNotEnough {
				t.Errorf("from %v: %v", from, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("from %v: %v", from, err)
			continue
		}
		r, err := engine.VerifyBackup(s.Context(), to, engine.VerifyBackupOptions{Environment: s.env, Owner: s.owner})
		if err != nil || len(r.Findings) > 0 {
			t.Errorf("from %v: %v %+v", from, err, r.Findings)
		}
	}
	if _, err := e.Scatter(s.Context(), dirs[:2], engine.ScatterOptions{Policy: engine.SymbolPolicy{Need: 3, Of: 2}}); err == nil {
		t.Error("a policy that no set of directories can meet is taken")
	}
}
