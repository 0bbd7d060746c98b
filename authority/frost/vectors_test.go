package frost

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"filippo.io/edwards25519"
)

// vector is RFC 9591 appendix E.1, taken from there into testdata.
type vector struct {
	Source      string
	Max         int      `json:"max_participants"`
	Min         int      `json:"min_participants"`
	Secret      hexed    `json:"group_secret_key"`
	Public      hexed    `json:"group_public_key"`
	Message     hexed    `json:"message"`
	Coefficient hexed    `json:"share_polynomial_coefficient_1"`
	Shares      []hexed  `json:"participant_shares"`
	Signers     []signer `json:"signers"`
	Sig         hexed    `json:"sig"`
}

type signer struct {
	ID            byte  `json:"identifier"`
	HidingRandom  hexed `json:"hiding_nonce_randomness"`
	BindingRandom hexed `json:"binding_nonce_randomness"`
	Hiding        hexed `json:"hiding_nonce"`
	Binding       hexed `json:"binding_nonce"`
	HidingPoint   hexed `json:"hiding_nonce_commitment"`
	BindingPoint  hexed `json:"binding_nonce_commitment"`
	FactorInput   hexed `json:"binding_factor_input"`
	Factor        hexed `json:"binding_factor"`
	Share         hexed `json:"sig_share"`
}

type hexed []byte

func (h *hexed) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

func loadVector(t *testing.T) (v vector) {
	t.Helper()
	b, err := os.ReadFile("testdata/rfc9591-e1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func mustScalar(t *testing.T, b []byte) *edwards25519.Scalar {
	t.Helper()
	s, err := scalar(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRFC9591AppendixE1(t *testing.T) {
	v := loadVector(t)
	g, shares := deal([]*edwards25519.Scalar{mustScalar(t, v.Secret), mustScalar(t, v.Coefficient)}, v.Max)
	if public := g.Public(); !bytes.Equal(public[:], v.Public) || g.Threshold() != v.Min {
		t.Fatalf("public key %x", public)
	}
	for i, want := range v.Shares {
		if got := shares[i].Secret(); got[0] != byte(i+1) || !bytes.Equal(got[1:], want) {
			t.Errorf("share %d: %x", i+1, got)
		}
		if err := g.Check(shares[i]); err != nil {
			t.Error(err)
		}
	}
	var commitments []Commitment
	var nonces []*Nonces
	for _, s := range v.Signers {
		n, c, err := Commit(bytes.NewReader(slices.Concat(s.HidingRandom, s.BindingRandom)), shares[s.ID-1])
		if err != nil {
			t.Fatal(err)
		}
		saved, err := n.Save()
		if err != nil || !bytes.Equal(saved, slices.Concat([]byte{s.ID}, s.Hiding, s.Binding)) {
			t.Errorf("nonces of %d: %x, %v", s.ID, saved, err)
		}
		if !bytes.Equal(c.Encode(), slices.Concat([]byte{s.ID}, s.HidingPoint, s.BindingPoint)) {
			t.Errorf("commitment of %d: %x", s.ID, c.Encode())
		}
		if n, err = DecodeNonces(saved); err != nil {
			t.Fatal(err)
		}
		nonces, commitments = append(nonces, n), append(commitments, c)
	}
	run, err := newSession(g, v.Message, commitments)
	if err != nil {
		t.Fatal(err)
	}
	var parts []SignatureShare
	for i, s := range v.Signers {
		if !bytes.Equal(run.factors[i].Bytes(), s.Factor) || !bytes.Equal(h1(s.FactorInput).Bytes(), s.Factor) {
			t.Errorf("binding factor of %d: %x", s.ID, run.factors[i].Bytes())
		}
		p, err := Sign(g, shares[s.ID-1], nonces[i], v.Message, commitments)
		if err != nil || !bytes.Equal(p.Z[:], s.Share) {
			t.Errorf("signature share of %d: %x, %v", s.ID, p.Z, err)
		}
		parts = append(parts, p)
	}
	sig, err := Aggregate(g, v.Message, commitments, parts)
	if err != nil || !bytes.Equal(sig[:], v.Sig) {
		t.Errorf("signature %x, %v", sig, err)
	}
	if !ed25519.Verify(ed25519.PublicKey(v.Public), v.Message, v.Sig) {
		t.Error("the signature does not verify as Ed25519")
	}
}
