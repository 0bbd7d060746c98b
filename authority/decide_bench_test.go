package authority

import (
	"crypto/ed25519"
	"slices"
	"testing"
	"time"
)

// BenchmarkDecideThreeLinks is one decision about a request over a chain of three
// tokens from its bytes, with the proof of possession verified before. "cached"
// knows the links, "cold" verifies three signatures each time.
func BenchmarkDecideThreeLinks(b *testing.B) {
	for _, cached := range []bool{true, false} {
		name := map[bool]string{true: "cached", false: "cold"}[cached]
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			c, r := w.usual(3)
			f := w.facts()
			if cached {
				f.Cache = NewLinkCache(DefaultLinkCacheSize)
			}
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if r.Token, err = ParseChain(c.raw); err != nil {
					b.Fatal(err)
				}
				if d := Decide(f, r); !d.Allowed() {
					b.Fatal(d.Reason)
				}
			}
		})
	}
}

// BenchmarkProof is what a fresh proof of possession costs on top.
func BenchmarkProof(b *testing.B) {
	w := newWorld(b)
	c, r := w.usual(3)
	sig := w.holders[2].Prove(testChallenge, c.Leaf(), r.Hash())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := VerifyProof(c, testChallenge, r.Hash(), sig); err != nil {
			b.Fatal(err)
		}
	}
}

// benchChains are three-link chains with three keys of their own in each.
func benchChains(b *testing.B, w *world, n int) []*Chain {
	out := make([]*Chain, n)
	g := w.grant(w.grantSpec())
	for i := range out {
		for j := range 3 {
			k, err := NewHolderKey(testRand(byte(i*3 + j)))
			w.holders[j] = must(b, k, err)
		}
		w.node = testNode(b, byte(i+10))
		w.attest(w.node, w.now.Add(-time.Hour), w.now.Add(time.Hour))
		c := w.mintChain(w.tokenSpec(g))
		c = w.attenuate(c, w.narrowing(c))
		out[i] = w.attenuate(c, w.narrowing(c))
	}
	return out
}

// BenchmarkColdTokens compares the verification of chains, no cache and distinct
// holder keys, with the bare Ed25519 verifications they contain, in one run:
// "ratio" is (tokens per second x signatures per token) over raw verifications per
// second. Both take turns in short rounds, so that a busy machine slows both.
func BenchmarkColdTokens(b *testing.B) {
	w := newWorld(b)
	chains := benchChains(b, w, 64)
	type raw struct {
		key      ed25519.PublicKey
		msg, sig []byte
	}
	var sigs []raw
	for _, c := range chains {
		v, err := verifyChain(c, &w.attested, nil, w.now)
		must(b, v, err)
		for i, t := range c.b {
			l, err := parseLink(t)
			must(b, l, err)
			sigs = append(sigs, raw{slices.Clone(v.links[i].key[:]), l.sign.toBeSigned(), slices.Clone(l.sign.signature)})
		}
	}
	var chainTime, rawTime float64
	for b.Loop() {
		start := b.Elapsed()
		for _, c := range chains {
			p, err := ParseChain(c.raw)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := verifyChain(p, &w.attested, nil, w.now); err != nil {
				b.Fatal(err)
			}
		}
		middle := b.Elapsed()
		for _, s := range sigs {
			if !ed25519.Verify(s.key, s.msg, s.sig) {
				b.Fatal("signature")
			}
		}
		chainTime += (middle - start).Seconds()
		rawTime += (b.Elapsed() - middle).Seconds()
	}
	n := float64(b.N * len(chains))
	b.ReportMetric(rawTime/chainTime, "ratio")
	b.ReportMetric(n/chainTime, "chains/s")
	b.ReportMetric(3*n/rawTime, "raw-verify/s")
}
