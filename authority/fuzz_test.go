package authority

import (
	"bytes"
	"testing"

	"fcp"
)

// fuzzSigned feeds mutations of a good object and of its parts. Whatever the
// verifier accepts must be exactly the seed: nothing else was ever signed.
func fuzzSigned(f *testing.F, name string) {
	s := signedSamples(f)[name]
	f.Add(s.b)
	f.Add(s.b[:len(s.b)/2])
	f.Add(append(bytes.Clone(s.b[:32]), "\xa1\x69signature\x58\x40"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s.verify(b) == nil && !bytes.Equal(b, s.b) {
			t.Errorf("accepted %x", b)
		}
	})
}

func FuzzManifest(f *testing.F)   { fuzzSigned(f, "manifest") }
func FuzzRevocation(f *testing.F) { fuzzSigned(f, "revocation") }
func FuzzZone(f *testing.F)       { fuzzSigned(f, "zone") }
func FuzzZone2(f *testing.F)      { fuzzSigned(f, "zone 2") }
func FuzzPolicy(f *testing.F)     { fuzzSigned(f, "policy") }
func FuzzPolicy2(f *testing.F)    { fuzzSigned(f, "policy 2") }

func FuzzRevocation2(f *testing.F) { fuzzSigned(f, "revocation 2") }
func FuzzDevice(f *testing.F)      { fuzzSigned(f, "device 2") }
func FuzzAttestation(f *testing.F) { fuzzSigned(f, "attestation") }
func FuzzDelegation(f *testing.F)  { fuzzSigned(f, "delegation") }
func FuzzIssuerSet(f *testing.F)   { fuzzSigned(f, "issuers") }
func FuzzRole(f *testing.F)        { fuzzSigned(f, "role") }
func FuzzAssignment(f *testing.F)  { fuzzSigned(f, "assignment") }

func FuzzAuditEvent(f *testing.F) {
	b, err := EncodeAuditEvent(testAuditEvent())
	f.Add(must(f, b, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeAuditEvent(b)
		if err != nil {
			return
		}
		if again, err := EncodeAuditEvent(e); err != nil || !bytes.Equal(again, b) {
			t.Errorf("does not encode back: %v", err)
		}
	})
}

func FuzzAuditHead(f *testing.F) {
	good := testHead(f, testNode(f, 1), 9, "a")
	b, err := good.Encode()
	f.Add(must(f, b, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := VerifyHead(b, nil); err == nil && h.Feed() == good.Feed() && h.Ref() != good.Ref() {
			t.Errorf("accepted %x", b)
		}
	})
}

func FuzzForkProof(f *testing.F) {
	f.Add(testForkProof(f))
	n := testNode(f, 1)
	mesh, err := ProveFork(3, newChain(f, n, 2, 5, "a").meshBranch(f, 3, 4), newChain(f, n, 2, 5, "b").meshBranch(f, 3, 5))
	f.Add(must(f, mesh, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := VerifyFork(b); err == nil && x.Seq() == 0 {
			t.Errorf("a fork at 0")
		}
	})
}

func FuzzDecodeZoneCheckpoint(f *testing.F) {
	w := newZoneWorld(f, 3, 0)
	c := w.checkpoint(f, func(*ZoneCheckpointSpec) {})
	b, err := w.sign(f, c, 0, 1).SignOwner(w.owner).Encode()
	f.Add(must(f, b, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeZoneCheckpoint(b)
		if err != nil {
			return
		}
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("does not encode back: %v", err)
		}
		if n, err := NewZoneCheckpoint(c.Spec()); err != nil || n.Ref() != c.Ref() {
			t.Errorf("says something else than it spells: %v", err)
		}
	})
}

// FuzzGenesis differs: anyone may sign a genesis of his own, but the seed's owner
// only the seed.
func FuzzGenesis(f *testing.F) {
	g := testGenesis(f)
	f.Add(g.Bytes)
	f.Add(g.Bytes[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		if facts, err := VerifyGenesis(b); err == nil && facts.Owner == g.Facts.Owner && !bytes.Equal(b, g.Bytes) {
			t.Errorf("accepted %x", b)
		}
	})
}

// FuzzCutSignature checks that whatever is cut out can be put back.
func FuzzCutSignature(f *testing.F) {
	for _, s := range signedSamples(f) {
		f.Add(s.b)
	}
	f.Add(append(make([]byte, 32), "\xa1\x61a\x9b\xff\xff\xff\xff\xff\xff\xff\xff"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := cutSignature(b)
		if err == nil && (len(s.signature) != 64 || !bytes.Contains(b, s.signature) || len(s.message) >= len(b)) {
			t.Errorf("cut %d bytes to %d", len(b), len(s.message))
		}
	})
}

func FuzzOpenBody(f *testing.F) {
	k := testZoneKeys(f, "z:work", 1)
	good := k.SealBody(nil, fcp.ObjectID{1}, Salt{2}, testBytes(300, 1))
	f.Add(good, 0, 300)
	f.Add(good[:16], 1, 2)
	f.Add([]byte{}, -1, 1<<62)
	f.Fuzz(func(t *testing.T, b []byte, off, n int) {
		if pt, err := k.OpenBody(nil, fcp.ObjectID{1}, Salt{2}, b); err == nil && !bytes.Equal(b, good) {
			t.Errorf("opened %d bytes", len(pt))
		}
		if pt, err := k.OpenBodyRange(nil, fcp.ObjectID{1}, Salt{2}, b, off, n); err == nil && (!bytes.Equal(b, good) || len(pt) != n) {
			t.Errorf("opened range %d+%d", off, n)
		}
	})
}

func FuzzRecoveryWords(f *testing.F) {
	w, _ := testOwner(f, 1).Words()
	f.Add(w)
	f.Add("abandon abandon")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := OwnerKeyFromWords(s)
		if err != nil {
			return
		}
		words, err := k.Words()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := OwnerKeyFromWords(words); err != nil || again.Public() != k.Public() {
			t.Errorf("words do not come back: %v", err)
		}
	})
}

func FuzzReferenceManifest(f *testing.F) {
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeReferenceManifest(b); err == nil {
			if again, err := fcp.Marshal(m); err != nil || !bytes.Equal(again, b) {
				t.Errorf("does not encode back: %v", err)
			}
		}
		if k, err := DecodeReferenceWrappedKey(b); err == nil {
			if again, err := fcp.Marshal(k); err != nil || !bytes.Equal(again, b) {
				t.Errorf("does not encode back: %v", err)
			}
		}
	})
}
