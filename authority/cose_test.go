package authority

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	crand "crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/veraison/go-cose"

	"fcp"
)

// TestTokensAgreeWithGoCOSE lets an independent library read and verify what this
// package mints, and mint what this package verifies.
func TestTokensAgreeWithGoCOSE(t *testing.T) {
	w := newWorld(t)
	chain, _ := w.usual(2)
	pub := w.node.Public().Issuance
	for i, key := range [][]byte{pub[:], w.holders[0].p().priv.Public().(ed25519.PublicKey)} {
		var m cose.UntaggedSign1Message
		if err := m.UnmarshalCBOR(chain.b[i]); err != nil {
			t.Fatal(err)
		}
		v, err := cose.NewVerifier(cose.AlgorithmEdDSA, ed25519.PublicKey(key))
		if err := m.Verify(nil, must(t, v, err)); err != nil {
			t.Errorf("token %d: %v", i, err)
		}
		kid, _ := m.Headers.Protected[cose.HeaderLabelKeyID].([]byte)
		if want := fcp.KidOf(key); !bytes.Equal(kid, want[:]) || m.Headers.Protected[int64(coseTyp)] != typCapability {
			t.Errorf("headers %v", m.Headers.Protected)
		}
		s, err := cose.NewSigner(cose.AlgorithmEdDSA, testSigner(t, w, i))
		must(t, s, err)
		again := cose.UntaggedSign1Message{Headers: cose.Headers{Protected: cose.ProtectedHeader{
			cose.HeaderLabelAlgorithm: cose.AlgorithmEdDSA, cose.HeaderLabelKeyID: kid, int64(coseTyp): typCapability}}, Payload: m.Payload}
		if err := again.Sign(nil, nil, s); err != nil {
			t.Fatal(err)
		}
		b, err := again.MarshalCBOR()
		if must(t, b, err); !bytes.Equal(b, chain.b[i]) {
			t.Errorf("go-cose mints\n%x, not\n%x", b, chain.b[i])
		}
	}
}

// testSigner returns the private key of link i.
func testSigner(t *testing.T, w *world, i int) ed25519.PrivateKey {
	if i == 0 {
		return w.node.p().issuance
	}
	return w.holders[i-1].p().priv
}

// coseAlgorithms are the registered COSE algorithms that sign or authenticate, and
// some values that are none.
var coseAlgorithms = []int64{-7, -8, -9, -19, -35, -36, -37, -38, -39, -46, -47, -48, -49, -50, -51, -52, -53, -257, -258, -259, -260, -261,
	-65535, 1, 2, 3, 4, 5, 6, 7, 10, 14, 15, 24, 25, 26, 30, -3, -6, -10, -25, -31, 0, -65536, 1 << 40}

// TestEveryAlgorithmBucketAndKeyType puts every algorithm in every bucket, signed
// with keys of every type. Only EdDSA in the protected bucket under the issuer's
// key passes.
func TestEveryAlgorithmBucketAndKeyType(t *testing.T) {
	w := newWorld(t)
	chain, _ := w.usual(1)
	first, err := parseLink(chain.b[0])
	must(t, first, err)
	issuance := w.node.Public().Issuance
	kid := fcp.KidOf(issuance[:])
	p256, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), 7))
	must(t, p256, err)
	keys := map[string]func([]byte) []byte{
		"issuer":           func(m []byte) []byte { return w.node.Issue(m) },
		"signing key":      func(m []byte) []byte { return w.node.Sign(m) },
		"owner key":        func(m []byte) []byte { return w.owner.Sign(m) },
		"holder key":       func(m []byte) []byte { return w.holders[0].sign(m) },
		"another issuer":   func(m []byte) []byte { return w.device.Issue(m) },
		"P-256":            func(m []byte) []byte { return ecdsaSign(t, p256, m) },
		"HMAC with public": func(m []byte) []byte { h := hmac.New(sha256.New, issuance[:]); h.Write(m); return h.Sum(nil) },
		"HMAC, 64 bytes": func(m []byte) []byte {
			h := hmac.New(sha256.New, issuance[:])
			h.Write(m)
			return append(h.Sum(nil), make([]byte, 32)...)
		},
		"RSA": func(m []byte) []byte { return rsaSign(t, m) },
		// The same scalar as the issuer's X25519 key, signing as Ed25519.
		"X25519":  func(m []byte) []byte { return ed25519.Sign(ed25519.NewKeyFromSeed(w.node.p().encryption.Bytes()), m) },
		"nothing": func([]byte) []byte { return nil },
		"zeros":   func([]byte) []byte { return make([]byte, 64) },
	}
	headers := func(alg any) map[any]any {
		m := map[any]any{uint64(coseKid): kid[:], uint64(coseTyp): typCapability}
		if alg != nil {
			m[uint64(coseAlg)] = alg
		}
		return m
	}
	algs := []any{"EdDSA", "none", []byte{1}}
	for _, a := range coseAlgorithms {
		algs = append(algs, a)
	}
	for _, alg := range algs {
		for _, bucket := range []string{"protected", "unprotected", "both", "neither"} {
			for name, sign := range keys {
				protected, unprotected := headers(alg), map[any]any{}
				var want fcp.Reason
				switch {
				case bucket == "unprotected":
					protected, unprotected, want = headers(nil), map[any]any{uint64(coseAlg): alg}, ReasonCOSEAlgUnprotected
				case bucket == "both":
					protected, unprotected, want = headers(int64(coseAlgEdDSA)), map[any]any{uint64(coseAlg): alg}, ReasonCOSEAlgBoth
				case bucket == "neither":
					protected, want = headers(nil), ReasonCOSEAlgMissing
				case alg != int64(coseAlgEdDSA):
					want = ReasonCOSEAlg
				case name == "issuer":
					want = ReasonAllow
				default:
					want = ReasonTokenSignature
				}
				b := coseToken(t, protected, unprotected, first.sign.payload, sign)
				if n := len(sign(nil)); n != ed25519.SignatureSize && len(unprotected) == 0 {
					want = ReasonCOSESignatureSize
				}
				c := mustChain(t, b)
				r := w.request(c)
				r.Proof = &Proof{key: w.holders[0].Public(), leaf: c.Leaf(), request: r.Hash()}
				for _, cache := range []*LinkCache{nil, NewLinkCache(2)} {
					f := w.facts()
					f.Cache = cache
					if d := Decide(f, r); d.Reason != want {
						t.Errorf("%v %s by %s: %s %s, want %s", alg, bucket, name, d.Reason, d.Detail, want)
					}
				}
			}
		}
	}
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(crand.Reader, 2048) })

func rsaSign(t *testing.T, m []byte) []byte {
	k, err := rsaKey()
	must(t, k, err)
	sum := sha256.Sum256(m)
	b, err := rsa.SignPSS(crand.Reader, k, crypto.SHA256, sum[:], nil)
	return must(t, b, err)
}

func ecdsaSign(t *testing.T, key *ecdsa.PrivateKey, m []byte) []byte {
	sum := sha256.Sum256(m)
	r, s, err := ecdsa.Sign(testRand(3), key, sum[:])
	must(t, r, err)
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return out
}

func coseToken(t *testing.T, protected, unprotected map[any]any, payload []byte, sign func([]byte) []byte) []byte {
	t.Helper()
	p, err := fcp.Marshal(protected)
	must(t, p, err)
	u, err := fcp.Marshal(unprotected)
	must(t, u, err)
	s := sign1{protected: p, payload: payload}
	s.signature = sign(s.toBeSigned())
	b := appendSign1(nil, s)
	at := 1 + len(p) + headSize(uint64(len(p))) // of the empty map
	return slices.Concat(b[:at], u, b[at+1:])
}

// TestEveryOtherEnvelopeIsRefused signs well and wraps badly.
func TestEveryOtherEnvelopeIsRefused(t *testing.T) {
	w := newWorld(t)
	chain, _ := w.usual(1)
	good := chain.b[0]
	l, err := parseLink(good)
	must(t, l, err)
	pub := w.node.Public().Issuance
	kid := fcp.KidOf(pub[:])
	head := func(m map[any]any) []byte { return coseToken(t, m, map[any]any{}, l.sign.payload, w.node.Issue) }
	base := func(change func(map[any]any)) []byte {
		m := map[any]any{uint64(coseAlg): int64(coseAlgEdDSA), uint64(coseKid): kid[:], uint64(coseTyp): typCapability}
		change(m)
		return head(m)
	}
	reSign := func(s sign1) []byte { s.signature = w.node.Issue(s.toBeSigned()); return appendSign1(nil, s) }
	for name, c := range map[string]struct {
		b      []byte
		reason fcp.Reason
	}{
		"empty":                {nil, ReasonCOSEForm},
		"a map":                {[]byte{0xa0}, ReasonCOSEForm},
		"tag 18":               {append([]byte{0xd2}, good...), ReasonCOSETag},
		"tag 61 of RFC 8392":   {append([]byte{0xd8, 61, 0xd2}, good...), ReasonCOSETag},
		"five items":           {append(append([]byte{0x85}, good[1:]...), 0), ReasonCOSEForm},
		"three items":          {append([]byte{0x83}, good[1:]...), ReasonCOSEForm},
		"bytes behind":         {append(slices.Clone(good), 0), ReasonCOSEForm},
		"truncated":            {good[:len(good)-1], ReasonCOSEForm},
		"long array head":      {append([]byte{0x98, 4}, good[1:]...), ReasonCOSEForm},
		"indefinite array":     {append(append([]byte{0x9f}, good[1:]...), 0xff), ReasonCOSEForm},
		"long protected head":  {slices.Concat(good[:1], []byte{0x59, 0}, good[2:]), ReasonCOSEForm},
		"detached payload":     {slices.Concat(good[:1+2+len(l.sign.protected)+1], []byte{0xf6}, good[len(good)-66:]), ReasonCOSEDetached},
		"too large":            {make([]byte, maxSign1+1), ReasonCOSEForm},
		"no kid":               {base(func(m map[any]any) { delete(m, uint64(coseKid)) }), ReasonCOSEKidMissing},
		"kid of seven bytes":   {base(func(m map[any]any) { m[uint64(coseKid)] = kid[:7] }), ReasonCOSEKid},
		"kid as text":          {base(func(m map[any]any) { m[uint64(coseKid)] = kid.String() }), ReasonCOSEKid},
		"no typ":               {base(func(m map[any]any) { delete(m, uint64(coseTyp)) }), ReasonCOSETyp},
		"typ of a plain CWT":   {base(func(m map[any]any) { m[uint64(coseTyp)] = "application/cwt" }), ReasonCOSETyp},
		"typ as a number":      {base(func(m map[any]any) { m[uint64(coseTyp)] = uint64(61) }), ReasonCOSETyp},
		"crit":                 {base(func(m map[any]any) { m[uint64(2)] = []any{uint64(1)} }), ReasonCOSEHeader},
		"content type":         {base(func(m map[any]any) { m[uint64(3)] = "application/cwt" }), ReasonCOSEHeader},
		"claims in the header": {base(func(m map[any]any) { m[uint64(15)] = map[any]any{uint64(1): "x"} }), ReasonCOSEHeader},
		"text label":           {base(func(m map[any]any) { m["alg"] = "EdDSA" }), ReasonCOSEHeader},
		"header not a map":     {reSign(sign1{protected: []byte{0x80}, payload: l.sign.payload}), ReasonCOSEHeader},
		"header empty":         {reSign(sign1{payload: l.sign.payload}), ReasonCOSEHeader},
		"header unsorted":      {reSign(sign1{protected: slices.Concat([]byte{0xa3, 4, 0x48}, kid[:], []byte{1, 0x27, 0x10, 0x77}, []byte(typCapability)), payload: l.sign.payload}), ReasonCOSEHeader},
		"alg in long form":     {reSign(sign1{protected: bytes.Replace(l.sign.protected, []byte{1, 0x27}, []byte{1, 0x38, 7}, 1), payload: l.sign.payload}), ReasonCOSEHeader},
		"alg twice":            {reSign(sign1{protected: append([]byte{0xa4, 1, 0x27}, l.sign.protected[1:]...), payload: l.sign.payload}), ReasonCOSEHeader},
		"unprotected kid":      {coseToken(t, map[any]any{uint64(coseAlg): int64(-8), uint64(coseKid): kid[:], uint64(coseTyp): typCapability}, map[any]any{uint64(coseKid): kid[:]}, l.sign.payload, w.node.Issue), ReasonCOSEUnprotected},
		"payload empty":        {reSign(sign1{protected: l.sign.protected}), ReasonClaims},
		"payload an array":     {reSign(sign1{protected: l.sign.protected, payload: []byte{0x80}}), ReasonClaims},
		"payload and more":     {reSign(sign1{protected: l.sign.protected, payload: append(slices.Clone(l.sign.payload), 0)}), ReasonClaims},
		"unknown claim":        {reSign(sign1{protected: l.sign.protected, payload: append(append([]byte{l.sign.payload[0] + 1}, l.sign.payload[1:]...), 9, 0)}), ReasonClaimUnknown},
		"canonical order":      {reSign(sign1{protected: l.sign.protected, payload: canonicalOrder(t, l.sign.payload)}), ReasonClaims},
	} {
		if d := decideToken(w, c.b); d.Reason != c.reason {
			t.Errorf("%s: %s %s, want %s", name, d.Reason, d.Detail, c.reason)
		}
	}
	for i := range good {
		bad := slices.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if d := decideToken(w, bad); d.Allowed() || d.Reason == "" {
			t.Errorf("byte %d does not matter", i)
		}
	}
}

// canonicalOrder puts the short positive keys first, as canonical CBOR does.
func canonicalOrder(t *testing.T, payload []byte) []byte {
	c, err := parseClaims(payload)
	must(t, c, err)
	b, err := appendClaims(nil, &claims{has: c.has & 0xff, iss: c.iss, sub: c.sub, aud: c.aud, exp: c.exp, nbf: c.nbf, iat: c.iat, cti: c.cti, cnf: c.cnf})
	must(t, b, err)
	rest := *c
	rest.has &^= 0xff
	n, err := appendClaims(nil, &rest)
	must(t, n, err)
	out := append(slices.Clone(payload[:1]), b[1:]...)
	return append(out, n[1:]...)
}

func decideToken(w *world, b []byte) Decision {
	c, err := NewChain(b)
	if err != nil {
		return Decision{Reason: ReasonOf(err)}
	}
	r := w.request(c)
	r.Proof = &Proof{key: w.holders[0].Public(), leaf: c.Leaf(), request: r.Hash()}
	return Decide(w.facts(), r)
}

// rfcExamples are the COSE_Sign1 of RFC 9052 appendix C.2.1 and the signed CWT of
// RFC 8392 appendix A.3 with their keys.
var rfcExamples = map[string]struct{ token, x, y string }{
	"RFC 9052 C.2.1": {
		"d28443a10126a10442313154546869732069732074686520636f6e74656e742e58408eb33e4ca31d1c465ab05aac34cc6b23d58fef5c083106c4d25a91aef0b0117e2af9a291aa32e14ab834dc56ed2a223444547e01f11d3b0916e5a4c345cacb36",
		"bac5b11cad8f99f9c72b05cf4b9e26d244dc189f745228255a219a86d6a09eff", "20138bf82dc1b6d562be0fa54ab7804a3a64b6d72ccfed6b6fb6ed28bbfc117e",
	},
	"RFC 8392 A.3": {
		"d28443a10126a104524173796d6d657472696345434453413235365850a70175636f61703a2f2f61732e6578616d706c652e636f6d02656572696b77037818636f61703a2f2f6c696768742e6578616d706c652e636f6d041a5612aeb0051a5610d9f0061a5610d9f007420b7158405427c1ff28d23fbad1f29c4c7c6a555e601d6fa29f9179bc3d7438bacaca5acd08c8d4d4f96131680c429a01f85951ecee743a52b9b63632c57209120e1c9e30",
		"143329cce7868e416927599cf65a34f3ce2ffda55a7eca69ed8919a394d42f0f", "60f7f1a780d8a783bfb7a2dd6b2796e8128dbbcef9d3d168db9529971a36e7b9",
	},
}

// TestRFCExamples verifies the examples' signatures over this package's
// Sig_structure, takes their claims, and refuses them as tokens: they are tagged,
// have a kid in the unprotected bucket and are not EdDSA.
func TestRFCExamples(t *testing.T) {
	for name, e := range rfcExamples {
		b := unhexed(t, e.token)
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, unhexed(t, e.x), unhexed(t, e.y)))
		must(t, key, err)
		verifies := func(b []byte) bool {
			s, ok := looseSign1(b)
			if !ok || len(s.signature) != 64 || string(s.protected) != "\xa1\x01\x26" {
				return false
			}
			sum := sha256.Sum256(s.toBeSigned())
			return ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(s.signature[:32]), new(big.Int).SetBytes(s.signature[32:]))
		}
		if !verifies(b) {
			t.Errorf("%s does not verify", name)
		}
		var m cose.Sign1Message
		if err := m.UnmarshalCBOR(b); err != nil {
			t.Fatal(err)
		}
		v, err := cose.NewVerifier(cose.AlgorithmES256, key)
		if err := m.Verify(nil, must(t, v, err)); err != nil {
			t.Errorf("%s: go-cose: %v", name, err)
		}
		unprotected := 5 + int(headerSizeOfUnprotected(b))
		for i := range b {
			bad := slices.Clone(b)
			bad[i] ^= 1
			if inUnprotected := i >= 5 && i < unprotected; !inUnprotected && verifies(bad) {
				t.Errorf("%s: byte %d does not matter", name, i)
			}
		}
		if _, err := parseSign1(b); ReasonOf(err) != ReasonCOSETag {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := parseSign1(b[1:]); ReasonOf(err) != ReasonCOSEUnprotected {
			t.Errorf("%s without its tag: %v", name, err)
		}
		s, _ := looseSign1(b)
		if _, err := s.kid(""); ReasonOf(err) != ReasonCOSEAlg {
			t.Errorf("%s: header: %v", name, err)
		}
		c, err := parseClaims(s.payload)
		if strings.HasPrefix(name, "RFC 9052") {
			if ReasonOf(err) != ReasonClaims {
				t.Errorf("%s: text as claims: %v", name, err)
			}
			continue
		}
		if must(t, c, err); fmt.Sprint(c.iss, c.sub, c.aud, c.exp, c.nbf, c.iat, c.cti) !=
			fmt.Sprint("coap://as.example.com", "erikw", "coap://light.example.com", 1444064944, 1443944944, 1443944944, []byte{0x0b, 0x71}) {
			t.Errorf("%s: %+v", name, c)
		}
		if err := c.checkNative(); ReasonOf(err) != ReasonClaimMissing {
			t.Errorf("%s as a native token: %v", name, err)
		}
		again, err := appendClaims(nil, c)
		if must(t, again, err); !bytes.Equal(again, s.payload) {
			t.Errorf("%s: claims come back as %x", name, again)
		}
	}
}

// looseSign1 takes a tagged COSE_Sign1 with anything in the unprotected bucket.
func looseSign1(b []byte) (s sign1, ok bool) {
	if len(b) < 2 || b[0] != 0xd2 {
		return s, false
	}
	r := reader{walker{b: b[1:]}}
	four := r.take(4)
	s.protected = r.run(2)
	r.item()
	s.payload = r.run(2)
	s.signature = r.run(2)
	return s, four == 4 && !r.bad && r.i == len(r.b)
}

func headerSizeOfUnprotected(b []byte) int {
	r := reader{walker{b: b[1:], i: 5}}
	return len(r.item()) + 1
}

// TestConfirmationKeysOfOtherTypes puts every type of COSE_Key where the holder's
// Ed25519 key belongs (RFC 8747, RFC 9053 section 7): a token confirmed by a key that
// cannot prove possession here is none.
func TestConfirmationKeysOfOtherTypes(t *testing.T) {
	w := newWorld(t)
	chain, _ := w.usual(1)
	l, err := parseLink(chain.b[0])
	must(t, l, err)
	good := append([]byte(cnfHead), l.c.cnf[:]...)
	key := l.c.cnf[:]
	for name, cnf := range map[string]any{
		"X25519":             map[any]any{uint64(1): map[any]any{uint64(1): uint64(1), int64(-1): uint64(4), int64(-2): key}},
		"Ed448":              map[any]any{uint64(1): map[any]any{uint64(1): uint64(1), int64(-1): uint64(7), int64(-2): make([]byte, 57)}},
		"P-256":              map[any]any{uint64(1): map[any]any{uint64(1): uint64(2), int64(-1): uint64(1), int64(-2): key, int64(-3): key}},
		"P-256, compressed":  map[any]any{uint64(1): map[any]any{uint64(1): uint64(2), int64(-1): uint64(1), int64(-2): key, int64(-3): true}},
		"RSA":                map[any]any{uint64(1): map[any]any{uint64(1): uint64(3), int64(-1): make([]byte, 256), int64(-2): []byte{1, 0, 1}}},
		"symmetric":          map[any]any{uint64(1): map[any]any{uint64(1): uint64(4), int64(-1): key}},
		"no type":            map[any]any{uint64(1): map[any]any{int64(-1): uint64(6), int64(-2): key}},
		"with an algorithm":  map[any]any{uint64(1): map[any]any{uint64(1): uint64(1), uint64(3): int64(-8), int64(-1): uint64(6), int64(-2): key}},
		"with a private key": map[any]any{uint64(1): map[any]any{uint64(1): uint64(1), int64(-1): uint64(6), int64(-2): key, int64(-4): key}},
		"a short key":        map[any]any{uint64(1): map[any]any{uint64(1): uint64(1), int64(-1): uint64(6), int64(-2): key[:31]}},
		"by kid":             map[any]any{uint64(3): key[:8]},
		"encrypted":          map[any]any{uint64(2): []any{[]byte{}, map[any]any{}, []byte{}}},
		"nothing":            map[any]any{},
		"null":               nil,
	} {
		b, err := fcp.Marshal(cnf)
		must(t, b, err)
		payload := bytes.Replace(l.sign.payload, good, b, 1)
		if bytes.Equal(payload, l.sign.payload) {
			t.Fatalf("%s changes nothing", name)
		}
		s := sign1{protected: l.sign.protected, payload: payload}
		s.signature = w.node.Issue(s.toBeSigned())
		if d := decideToken(w, appendSign1(nil, s)); d.Reason != ReasonConfirmation {
			t.Errorf("%s: %s %s", name, d.Reason, d.Detail)
		}
	}
}

// cwtExamples are the other CWTs of RFC 8392 appendix A: a MAC (A.4) and a
// ciphertext (A.5), which a verifier that only looks for claims would take.
var cwtExamples = map[string]string{
	"A.4": "d83dd18443a10104a1044c53796d6d65747269633235365850a70175636f61703a2f2f61732e6578616d706c652e636f6d02656572696b77037818636f61703a2f2f6c696768742e6578616d706c652e636f6d041a5612aeb0051a5610d9f0061a5610d9f007420b7148093101ef6d789200",
	"A.5": "d08343a1010aa2044c53796d6d6574726963313238054d99a0d7846e762c49ffe8a63e0b5858b918a11fd81e438b7f973d9e2e119bcb22424ba0f38a80f27562f400ee1d0d6c0fdb559c02421fd384fc2ebe22d7071378b0ea7428fff157444d45f7e6afcda1aae5f6495830c58627087fc5b4974f319a8707a635dd643b",
}

// TestOtherCWTsAreNoTokens peels the tags off one after the other: no layer passes,
// and neither does any one-bit change of one.
func TestOtherCWTsAreNoTokens(t *testing.T) {
	key := hexBytes("403697de87af64611c1d32a05dab0fe1fcb715a86ab435f1ec99192d79569388")
	a4 := hexBytes(cwtExamples["A.4"])
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "\x84\x64MAC0%s\x40%s", a4[4:8], a4[23:105])
	if !bytes.Equal(mac.Sum(nil)[:8], a4[106:]) {
		t.Fatal("the MAC of A.4 does not verify: the example is not the RFC's")
	}
	for name, e := range cwtExamples {
		b := hexBytes(e)
		w := newWorld(t)
		for {
			tagged := b[0]>>5 == 6
			want := []fcp.Reason{ReasonCOSEForm, ReasonCOSEUnprotected}
			if tagged {
				want = []fcp.Reason{ReasonCOSETag}
			}
			if d := decideToken(w, b); !slices.Contains(want, d.Reason) {
				t.Errorf("%s: %s %s", name, d.Reason, d.Detail)
			}
			for i := range b {
				bad := slices.Clone(b)
				bad[i] ^= 1 << (i % 8)
				if d := decideToken(w, bad); d.Allowed() || !strings.HasPrefix(string(d.Reason), "cose.") {
					t.Fatalf("%s with byte %d changed: %s", name, i, d.Reason)
				}
			}
			if !tagged {
				break
			}
			if b = b[1:]; b[0] == 61 { // of a tag in two bytes
				b = b[1:]
			}
		}
	}
}
