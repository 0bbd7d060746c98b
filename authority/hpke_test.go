package authority

import (
	"bytes"
	"crypto/ecdh"
	"testing"

	"fcp"
)

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
