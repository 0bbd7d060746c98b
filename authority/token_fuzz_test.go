package authority

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"fcp"
)

// FuzzToken holds the token decoders to one encoding each: what they take encodes
// to the same bytes.
func FuzzToken(f *testing.F) {
	w := newWorld(f)
	c, _ := w.usual(2)
	for _, b := range c.b {
		f.Add(b)
	}
	f.Add(c.raw)
	ref, err := MintReference(w.node, ReferenceClaims{Issuer: "node", Zone: fcp.ZoneWork, Capability: "cap.read", Expires: 10})
	f.Add(must(f, ref, err))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSign1(b); err == nil {
			if !bytes.Equal(appendSign1(nil, s), b) {
				t.Errorf("envelope %x", b)
			}
			if c, err := parseClaims(s.payload); err == nil {
				again, err := appendClaims(nil, c)
				if err != nil || !bytes.Equal(again, s.payload) {
					t.Errorf("claims %x", s.payload)
				}
			}
		} else if ReasonOf(err) == "" {
			t.Errorf("no reason: %v", err)
		}
		if l, err := parseLink(b); err == nil && l.c.checkNative() != nil {
			t.Errorf("link %x", b)
		}
		if c, err := ParseChain(b); err == nil {
			again, err := NewChain(c.b...)
			if err != nil || !bytes.Equal(again.raw, b) {
				t.Errorf("chain %x", b)
			}
			if v, err := verifyChain(c, &w.attested, nil, w.now); err == nil && !slices.ContainsFunc(v.links, func(l *verifiedLink) bool { return l != nil }) {
				t.Error("an empty chain verifies")
			}
		}
		if _, err := VerifyReference(w.node.Public().Issuance, b); err == nil && !bytes.Equal(b, ref) {
			t.Errorf("reference token %x", b)
		}
	})
}

// FuzzSignedControl feeds mutations of one of each signed object of tokens to all
// verifiers: only the seeds were ever signed.
func FuzzSignedControl(f *testing.F) {
	w := newWorld(f)
	samples := tokenSamples(f, w)
	for _, s := range samples {
		f.Add(s.b)
	}
	resource, err := EncodeResource(testResource())
	f.Add(must(f, resource, err))
	signed := func(b []byte) bool {
		for _, s := range samples {
			if bytes.Equal(b, s.b) {
				return true
			}
		}
		return false
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, s := range samples {
			// The reference's layout leaves most of an intent's header unsigned.
			if s.verify(b) == nil && !signed(b) && !strings.HasPrefix(name, "operation") {
				t.Errorf("%s: %x", name, b)
			}
		}
		if c, err := DecodeCredential(b); err == nil {
			again, err := EncodeCredential(c)
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("credential %x", b)
			}
		}
		if r, err := DecodeResource(b); err == nil {
			again, err := EncodeResource(r)
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("resource %x", b)
			}
		}
		var flags TaintFlags
		if flags.UnmarshalCBOR(b) == nil {
			again, err := flags.MarshalCBOR()
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("flags %x", b)
			}
		}
	})
}
