package frost

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"filippo.io/edwards25519"
	"pgregory.net/rapid"

	"fcp"
)

func random(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

// party is a split key and a set of signers in round one.
type party struct {
	g           *Group
	shares      []*KeyShare
	ids         []byte
	nonces      map[byte]*Nonces
	commitments []Commitment
}

func newParty(t testing.TB, rnd io.Reader, k, n int, ids ...byte) *party {
	t.Helper()
	seed := bytes.Repeat([]byte{7}, 32)
	g, shares, err := Deal(rnd, seed, k, n)
	if err != nil {
		t.Fatal(err)
	}
	if public := g.Public(); !bytes.Equal(public[:], ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)) {
		t.Fatal("the group has another public key")
	}
	p := &party{g: g, shares: shares}
	p.begin(t, rnd, ids...)
	return p
}

func (p *party) begin(t testing.TB, rnd io.Reader, ids ...byte) {
	t.Helper()
	p.ids, p.nonces, p.commitments = ids, map[byte]*Nonces{}, nil
	for _, id := range ids {
		n, c, err := Commit(rnd, p.shares[id-1])
		if err != nil {
			t.Fatal(err)
		}
		p.nonces[id], p.commitments = n, append(p.commitments, c)
	}
}

func (p *party) sign(t testing.TB, message []byte) (out []SignatureShare) {
	t.Helper()
	for _, id := range p.ids {
		s, err := Sign(p.g, p.shares[id-1], p.nonces[id], message, p.commitments)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func TestAnyThresholdOfSignersMakesAPlainSignature(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 7).Draw(rt, "n")
		k := rapid.IntRange(1, n).Draw(rt, "k")
		m := rapid.IntRange(k, n).Draw(rt, "signers")
		all := make([]byte, n)
		for i := range all {
			all[i] = byte(i + 1)
		}
		ids := rapid.Permutation(all).Draw(rt, "who")[:m]
		slices.Sort(ids)
		message := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(rt, "message")
		p := newParty(t, random(rapid.Byte().Draw(rt, "seed")), k, n, ids...)
		parts := p.sign(t, message)
		slices.Reverse(parts) // their order does not matter
		sig, err := Aggregate(p.g, message, p.commitments, parts)
		if err != nil {
			rt.Fatal(err)
		}
		if public := p.g.Public(); !ed25519.Verify(public[:], message, sig[:]) {
			rt.Fatal("it does not verify")
		}
	})
}

func TestEveryWrongShareIsNamed(t *testing.T) {
	message := []byte("a message")
	rnd := random(1)
	p := newParty(t, rnd, 3, 6, 1, 2, 4, 6)
	good := p.sign(t, message)
	for bits := 1; bits < 1<<len(good); bits++ {
		parts := slices.Clone(good)
		var want []byte
		for i := range parts {
			if bits>>i&1 == 0 {
				continue
			}
			want = append(want, parts[i].ID)
			parts[i].Z[3*i] ^= 1 << i
			if bits%3 == 0 {
				parts[i].Z = [32]byte(bytes.Repeat([]byte{0xff}, 32)) // no scalar at all
			}
		}
		_, err := Aggregate(p.g, message, p.commitments, parts)
		var blame *Blame
		if !errors.Is(err, fcp.CodeSignature) || !errors.As(err, &blame) || !bytes.Equal(blame.Signers, want) {
			t.Fatalf("wrong are %d: %v", want, err)
		}
	}
	// A signer with another key is named, too, when he can be made to sign.
	other := newParty(t, random(2), 3, 6, 1)
	p.begin(t, rnd, 1, 2, 4)
	parts := p.sign(t, message)
	forged, err := Sign(other.g, other.shares[1], mustNonces(t, rnd, other.shares[1], p), message, p.commitments)
	if err != nil {
		t.Fatal(err)
	}
	parts[1] = forged
	_, err = Aggregate(p.g, message, p.commitments, parts)
	var blame *Blame
	if !errors.As(err, &blame) || !slices.Contains(blame.Signers, 2) {
		t.Fatalf("%v", err)
	}
}

// mustNonces replaces the commitment of a signer of p by a fresh one of another key.
func mustNonces(t *testing.T, rnd io.Reader, key *KeyShare, p *party) *Nonces {
	t.Helper()
	n, c, err := Commit(rnd, key)
	if err != nil {
		t.Fatal(err)
	}
	p.commitments[slices.Index(p.ids, key.ID())] = c
	return n
}

func TestNoncesSignOnce(t *testing.T) {
	message := []byte("once")
	p := newParty(t, random(3), 2, 3, 1, 2)
	var wg sync.WaitGroup
	won := make(chan error, 16)
	for range cap(won) {
		wg.Go(func() {
			_, err := Sign(p.g, p.shares[0], p.nonces[1], message, p.commitments)
			won <- err
		})
	}
	wg.Wait()
	close(won)
	ok := 0
	for err := range won {
		if err == nil {
			ok++
		} else if !errors.Is(err, fcp.CodeConflict) {
			t.Error(err)
		}
	}
	if ok != 1 {
		t.Fatalf("%d of 16 signed", ok)
	}
	if _, err := p.nonces[1].Save(); !errors.Is(err, fcp.CodeConflict) {
		t.Errorf("used nonces were saved: %v", err)
	}
	// A refused Sign uses them up, too: the signer cannot know what was learned.
	if _, err := Sign(p.g, p.shares[1], p.nonces[2], message, p.commitments[1:]); !errors.Is(err, fcp.CodeNotEnough) {
		t.Fatal(err)
	}
	if _, err := Sign(p.g, p.shares[1], p.nonces[2], message, p.commitments); !errors.Is(err, fcp.CodeConflict) {
		t.Errorf("nonces of a refused call: %v", err)
	}
	n, _, err := Commit(random(4), p.shares[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := n.Save()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Save(); !errors.Is(err, fcp.CodeConflict) {
		t.Errorf("saved twice: %v", err)
	}
	if n, err = DecodeNonces(b); err != nil {
		t.Fatal(err)
	}
	n.Wipe()
	if _, err := n.Save(); !errors.Is(err, fcp.CodeConflict) {
		t.Errorf("saved after a wipe: %v", err)
	}
}

func TestASignerRefusesWhatWouldGiveItAway(t *testing.T) {
	message := []byte("m")
	stranger := newParty(t, random(9), 2, 3, 1, 2)
	for name, c := range map[string]struct {
		spoil func(p *party)
		want  fcp.Code
	}{
		"too few":         {func(p *party) { p.commitments = p.commitments[:1] }, fcp.CodeNotEnough},
		"too many":        {func(p *party) { p.commitments = append(p.commitments, make([]Commitment, 9)...) }, fcp.CodeNotEnough},
		"out of order":    {func(p *party) { slices.Reverse(p.commitments) }, fcp.CodeInvalidArgument},
		"twice":           {func(p *party) { p.commitments[1] = p.commitments[0] }, fcp.CodeInvalidArgument},
		"unknown signer":  {func(p *party) { p.commitments[1].ID = 9 }, fcp.CodeInvalidArgument},
		"not its own":     {func(p *party) { p.commitments[0] = stranger.commitments[0] }, fcp.CodeWrongKey},
		"without it":      {func(p *party) { p.commitments = p.commitments[1:] }, fcp.CodeWrongKey},
		"share of other":  {func(p *party) { p.shares[0] = stranger.shares[0] }, fcp.CodeWrongKey},
		"nonces of other": {func(p *party) { p.nonces[1] = stranger.nonces[2] }, fcp.CodeWrongKey},
		"identity":        {func(p *party) { p.commitments[1].Hiding = [32]byte{1} }, fcp.CodeMalformed},
		"small order":     {func(p *party) { p.commitments[1].Binding = smallOrder(t) }, fcp.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParty(t, random(5), 2, 3, 1, 2, 3)
			if name != "without it" {
				p.commitments = p.commitments[:2]
			}
			c.spoil(p)
			if _, err := Sign(p.g, p.shares[0], p.nonces[1], message, p.commitments); !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
		})
	}
	p := newParty(t, random(6), 2, 3, 1, 2)
	parts := p.sign(t, message)
	for name, parts := range map[string][]SignatureShare{"none": nil, "one": parts[:1], "three": append(slices.Clone(parts), parts[0])} {
		if _, err := Aggregate(p.g, message, p.commitments, parts); !errors.Is(err, fcp.CodeNotEnough) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Aggregate(p.g, message, p.commitments, []SignatureShare{parts[0], parts[0]}); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("one signer twice: %v", err)
	}
	if _, err := Aggregate(p.g, []byte("another"), p.commitments, parts); !errors.Is(err, fcp.CodeSignature) {
		t.Errorf("another message: %v", err)
	}
}

// smallOrder is a point of order 8 (RFC 9591 section 6.1 refuses it).
func smallOrder(t *testing.T) [32]byte {
	t.Helper()
	b, err := hex.DecodeString("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(b)
}

func TestThresholdsAndSeeds(t *testing.T) {
	seed := make([]byte, 32)
	for _, c := range [][2]int{{0, 1}, {2, 1}, {1, 256}} {
		if _, _, err := Deal(random(1), seed, c[0], c[1]); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%d of %d: %v", c[0], c[1], err)
		}
	}
	if _, _, err := Deal(random(1), seed[1:], 1, 1); !errors.Is(err, fcp.CodeMalformed) {
		t.Errorf("a short seed: %v", err)
	}
	if _, _, err := Deal(bytes.NewReader(nil), seed, 2, 2); !errors.Is(err, fcp.CodeInternal) {
		t.Errorf("no randomness: %v", err)
	}
	g, shares, err := Deal(random(1), seed, 255, 255)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := DecodeGroup(g.Encode()); err != nil || again.Public() != g.Public() || again.Check(shares[254]) != nil {
		t.Errorf("255 of 255: %v", err)
	}
}

// TestFewerThanKKeySharesFitEveryKey completes k-1 shares by each key: the dealer's
// polynomial for it exists, so they rule none out.
func TestFewerThanKKeySharesFitEveryKey(t *testing.T) {
	_, shares, err := Deal(random(8), make([]byte, 32), 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	first := shares[0].p().s
	for i := range byte(50) {
		key := hashScalar([]byte{i})
		// The line through (0, key) and (1, first) has this slope.
		slope := hashScalar(nil).Subtract(first, key)
		_, other := deal([]*edwards25519.Scalar{key, slope}, 3)
		if other[0].p().s.Equal(first) != 1 {
			t.Fatal("share 1 does not fit")
		}
	}
}

func TestSharesAndNoncesDoNotPrint(t *testing.T) {
	p := newParty(t, random(7), 2, 2, 1, 2)
	secret := hex.EncodeToString(p.shares[0].Secret())
	for _, v := range []any{p.shares[0], *p.shares[0], p.nonces[1], struct{ K *KeyShare }{p.shares[0]}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s", "%d"} {
			if s := fmt.Sprintf(verb, v); strings.Contains(strings.ToLower(s), secret[2:20]) {
				t.Errorf("%s of %T: %s", verb, v, s)
			}
		}
		if b, err := json.Marshal(v); err == nil {
			t.Errorf("%T as JSON: %s", v, b)
		}
	}
	p.shares[0].Wipe()
	if got := p.shares[0].Secret(); !bytes.Equal(got[1:], make([]byte, 32)) {
		t.Error("a wiped share is still there")
	}
}

func FuzzDecode(f *testing.F) {
	p := newParty(f, random(1), 2, 3, 1, 2)
	parts := p.sign(f, []byte("m"))
	f.Add(p.g.Encode())
	f.Add(p.commitments[0].Encode())
	f.Add(parts[0].Encode())
	f.Add(p.shares[0].Secret())
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := DecodeGroup(b); err == nil && !bytes.Equal(g.Encode(), b) {
			t.Error("a group has two forms")
		}
		if c, err := DecodeCommitment(b); err == nil && !bytes.Equal(c.Encode(), b) {
			t.Error("a commitment has two forms")
		}
		if s, err := DecodeSignatureShare(b); err == nil && !bytes.Equal(s.Encode(), b) {
			t.Error("a signature share has two forms")
		}
		if k, err := DecodeKeyShare(b); err == nil && !bytes.Equal(k.Secret(), b) {
			t.Error("a key share has two forms")
		}
		if n, err := DecodeNonces(b); err == nil {
			if again, err := n.Save(); err != nil || !bytes.Equal(again, b) {
				t.Error("nonces have two forms")
			}
		}
	})
}
