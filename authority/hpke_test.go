package authority

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"testing"

	"fcp"
)

// TestSenderMatchesRFC9180 is RFC 9180 appendix A.2.1.
func TestSenderMatchesRFC9180(t *testing.T) {
	pair := func(ikm string) *ecdh.PrivateKey {
		k, err := hpke.DHKEM(ecdh.X25519()).DeriveKeyPair(hexBytes(ikm))
		must(t, k, err)
		b, err := k.Bytes()
		must(t, b, err)
		p, err := ecdh.X25519().NewPrivateKey(b)
		return must(t, p, err)
	}
	eph := pair("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b")
	to := pair("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df")
	if want := hexBytes("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"); !bytes.Equal(eph.PublicKey().Bytes(), want) {
		t.Fatal("ephemeral key")
	}
	aead, nonce, err := hpkeSender(eph, to.PublicKey(), hexBytes("4f6465206f6e2061204772656369616e2055726e"))
	must(t, aead, err)
	ct := aead.Seal(nil, nonce, []byte("Beauty is truth, truth beauty"), []byte("Count-0"))
	want := "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
	if !bytes.Equal(ct, hexBytes(want)) {
		t.Errorf("ciphertext %x", ct)
	}
}

func TestBoxIsBoundToItsAddress(t *testing.T) {
	n, other := testNode(t, 1), testNode(t, 2)
	addr := boxAddress{Zone: "z:work", Recipient: "node-1", Purpose: purposeZoneKey, IssuedAt: 1700000000}
	for seed := range byte(20) {
		b, err := sealBox(testRand(seed), n.p().encryption.PublicKey(), addr, testBytes(int(seed), seed))
		must(t, b, err)
		pt, err := n.opener().open(addr, b)
		if err != nil || !bytes.Equal(pt, testBytes(int(seed), seed)) {
			t.Fatalf("open: %v", err)
		}
		for name, a := range map[string]boxAddress{
			"zone":      {"z:private", addr.Recipient, addr.Purpose, addr.IssuedAt},
			"recipient": {addr.Zone, "node-2", addr.Purpose, addr.IssuedAt},
			"purpose":   {addr.Zone, addr.Recipient, purposeBodyKey, addr.IssuedAt},
			"time":      {addr.Zone, addr.Recipient, addr.Purpose, addr.IssuedAt + 1},
		} {
			if _, err := n.opener().open(a, b); fcp.CodeOf(err) != fcp.CodeWrongKey {
				t.Errorf("another %s: %v", name, err)
			}
		}
		if _, err := other.opener().open(addr, b); fcp.CodeOf(err) != fcp.CodeWrongKey {
			t.Errorf("another key: %v", err)
		}
	}
	low := must(t, publicOf(ecdh.X25519().NewPublicKey(make([]byte, 32))), nil)
	if _, err := sealBox(testRand(1), low, addr, nil); err == nil {
		t.Error("sealed to a key of low order")
	}
}

func publicOf(k *ecdh.PublicKey, err error) *ecdh.PublicKey {
	if err != nil {
		panic(err)
	}
	return k
}

// TestHybridBoxes seals to the hybrid KEM: another key, address or bit does not
// open, and a classic key cannot stand in.
func TestHybridBoxes(t *testing.T) {
	n, other := testNode(t, 1), testNode(t, 2)
	pub, err := n.Hybrid()
	must(t, pub, err)
	addr := boxAddress{Zone: "z:work", Recipient: "node-1", Purpose: purposeZoneKey, IssuedAt: 1700000000}
	b, err := sealHybrid(pub, addr, testBytes(32, 1))
	must(t, b, err)
	got, err := n.opener().open(addr, b)
	if must(t, got, err); !bytes.Equal(got, testBytes(32, 1)) {
		t.Fatal("opened something else")
	}
	_, err = other.opener().open(addr, b)
	wantCode(t, err, fcp.CodeWrongKey)
	moved := addr
	moved.Purpose = purposeBodyKey
	_, err = n.opener().open(moved, b)
	wantCode(t, err, fcp.CodeWrongKey)
	for _, i := range []int{0, 700, 1087, 1088, len(b.Enc) - 2} { // both halves
		bad := *b
		bad.Enc = bytes.Clone(b.Enc)
		bad.Enc[i] ^= 1
		if _, err := n.opener().open(addr, &bad); err == nil {
			t.Errorf("byte %d of the encapsulated key does not matter", i)
		}
	}
	bad := *b
	bad.KEM = KEMClassic
	_, err = n.opener().open(addr, &bad)
	wantCode(t, err, fcp.CodeMalformed)
	if _, err := sealHybrid(pub[1:], addr, nil); err == nil {
		t.Error("sealed to a short key")
	}
	again, err := testNode(t, 1).Hybrid()
	if must(t, again, err); !bytes.Equal(again, pub) {
		t.Error("a node has two hybrid keys")
	}
}

// TestBoxAADKeyOrder pins spec/wire.md section 7: purpose, zone_id, issued_at,
// recipient_node_id, all but the time as byte strings.
func TestBoxAADKeyOrder(t *testing.T) {
	got, err := boxAddress{Zone: "z:w", Recipient: "n", Purpose: "p", IssuedAt: 5}.aad()
	must(t, got, err)
	want := "\xa4\x67purpose\x41p\x67zone_id\x43z:w\x69issued_at\x05\x71recipient_node_id\x41n"
	equal(t, string(got), want)
}
