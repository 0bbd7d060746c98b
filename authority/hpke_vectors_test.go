package authority

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"fcp"
)

// hpkeVector is one section of a file of vectors: the words behind each first word.
type hpkeVector map[string][][]string

func hpkeVectors(t *testing.T, file string) (out []hpkeVector) {
	t.Helper()
	b, err := os.ReadFile(file)
	must(t, b, err)
	for block := range strings.SplitSeq(string(b), "\n\n") {
		v := hpkeVector{}
		for line := range strings.Lines(block) {
			if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
				v[f[0]] = append(v[f[0]], f[1:])
			}
		}
		if len(v) > 0 {
			out = append(out, v)
		}
	}
	return out
}

func (v hpkeVector) hex(name string) []byte { return hexBytes(v[name][0][0]) }

func (v hpkeVector) suite() (kem, kdf, aead uint16) {
	b := v.hex("suite")
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint16(b[4:])
}

// hpkeContext is a sender's context by RFC 9180, written apart from hpkeSender: for
// every hash and cipher of Appendix A, in base mode.
type hpkeContext struct {
	t        *testing.T
	suite    []byte
	hash     func() hash.Hash
	aead     cipher.AEAD // nil: export only
	nonce    []byte
	exporter []byte
	seq      uint64
}

func (c *hpkeContext) extract(salt []byte, label string, ikm []byte) []byte {
	b, err := hkdf.Extract(c.hash, slices.Concat([]byte("HPKE-v1"), c.suite, []byte(label), ikm), salt)
	return must(c.t, b, err)
}

func (c *hpkeContext) expand(prk []byte, label string, info []byte, n int) []byte {
	full := slices.Concat(binary.BigEndian.AppendUint16(nil, uint16(n)), []byte("HPKE-v1"), c.suite, []byte(label), info)
	b, err := hkdf.Expand(c.hash, prk, string(full), n)
	return must(c.t, b, err)
}

func hpkeHash(kdf uint16) func() hash.Hash {
	if kdf == 3 {
		return sha512.New
	}
	return sha256.New
}

// newHPKEContext is SetupBaseS with a given ephemeral key.
func newHPKEContext(t *testing.T, v hpkeVector, eph *ecdh.PrivateKey, to *ecdh.PublicKey) *hpkeContext {
	kem, kdf, aead := v.suite()
	dh, err := eph.ECDH(to)
	must(t, dh, err)
	k := &hpkeContext{t: t, suite: binary.BigEndian.AppendUint16([]byte("KEM"), kem), hash: sha256.New}
	if kem == 0x0012 {
		k.hash = sha512.New
	}
	shared := k.expand(k.extract(nil, "eae_prk", dh), "shared_secret", slices.Concat(eph.PublicKey().Bytes(), to.Bytes()), k.hash().Size())

	c := &hpkeContext{t: t, suite: append([]byte("HPKE"), v.hex("suite")...), hash: hpkeHash(kdf)}
	context := slices.Concat([]byte{0}, c.extract(nil, "psk_id_hash", nil), c.extract(nil, "info_hash", v.hex("info")))
	secret := c.extract(shared, "secret", nil)
	c.exporter = c.expand(secret, "exp", context, c.hash().Size())
	if aead == 0xffff {
		return c
	}
	size := map[uint16]int{1: 16, 2: 32, 3: 32}[aead]
	key := c.expand(secret, "key", context, size)
	c.nonce = c.expand(secret, "base_nonce", context, 12)
	if aead == 3 {
		c.aead, err = chacha20poly1305.New(key)
		must(t, c.aead, err)
		return c
	}
	block, err := aes.NewCipher(key)
	must(t, block, err)
	c.aead, err = cipher.NewGCM(block)
	return must(t, c, err)
}

func (c *hpkeContext) seal(aad, plaintext []byte) []byte {
	nonce := slices.Clone(c.nonce)
	for i := range 8 {
		nonce[len(nonce)-1-i] ^= byte(c.seq >> (8 * i))
	}
	c.seq++
	return c.aead.Seal(nil, nonce, plaintext, aad)
}

func (c *hpkeContext) export(context []byte, n int) []byte {
	return c.expand(c.exporter, "sec", context, n)
}

func ecdhCurve(kem uint16) ecdh.Curve {
	return map[uint16]ecdh.Curve{0x0010: ecdh.P256(), 0x0012: ecdh.P521(), 0x0020: ecdh.X25519()}[kem]
}

// hpkePair derives a key pair from the vector's input keying material.
func hpkePair(t *testing.T, kem uint16, ikm []byte) *ecdh.PrivateKey {
	k, err := hpke.DHKEM(ecdhCurve(kem)).DeriveKeyPair(ikm)
	must(t, k, err)
	b, err := k.Bytes()
	must(t, b, err)
	p, err := ecdhCurve(kem).NewPrivateKey(b)
	return must(t, p, err)
}

const hpkeVerse = "Beauty is truth, truth beauty"

// TestRFC9180AppendixA holds the base mode of every suite of the appendix against an
// independent sender, the recipient of crypto/hpke and, for the suite of classic
// boxes, the sender of this package. The other modes are not in crypto/hpke and not
// in the product: a box has no field for them.
func TestRFC9180AppendixA(t *testing.T) {
	sections := map[string]bool{}
	for _, v := range hpkeVectors(t, "testdata/rfc9180.txt") {
		kem, kdfID, aeadID := v.suite()
		sections[v["section"][0][0]] = true
		t.Run(fmt.Sprintf("%s/%04x-%04x-%04x", v["section"][0][0], kem, kdfID, aeadID), func(t *testing.T) {
			eph, to := hpkePair(t, kem, v.hex("ikmE")), hpkePair(t, kem, v.hex("ikmR"))
			equal(t, hex.EncodeToString(eph.PublicKey().Bytes()), v["enc"][0][0])
			private, err := hpke.DHKEM(ecdhCurve(kem)).NewPrivateKey(v.hex("skRm"))
			must(t, private, err)
			if !bytes.Equal(private.PublicKey().Bytes(), to.PublicKey().Bytes()) {
				t.Fatal("the recipient's keys differ")
			}
			kdf, err := hpke.NewKDF(kdfID)
			must(t, kdf, err)
			aead, err := hpke.NewAEAD(aeadID)
			must(t, aead, err)
			recipient, err := hpke.NewRecipient(v.hex("enc"), private, kdf, aead, v.hex("info"))
			must(t, recipient, err)
			c := newHPKEContext(t, v, eph, to.PublicKey())
			checkExports(t, v, c, recipient)
			if c.aead == nil {
				if _, err := recipient.Open(nil, make([]byte, 32)); err == nil {
					t.Error("an export-only context opens")
				}
				return
			}
			checkStream(t, v, c, recipient)
			checkAppendix(t, v, newHPKEContext(t, v, eph, to.PublicKey()))
			if kem == uint16(KEMClassic) && kdfID == hpkeKDF && aeadID == hpkeAEAD {
				own, nonce, err := hpkeSender(eph, to.PublicKey(), v.hex("info"))
				must(t, own, err)
				equal(t, hex.EncodeToString(own.Seal(nil, nonce, []byte(hpkeVerse), []byte("Count-0"))), v["ct"][0][1])
			}
		})
	}
	for _, s := range []string{"A.1.1", "A.2.1", "A.3.1", "A.4.1", "A.5.1", "A.6.1", "A.7.1"} {
		if !sections[s] {
			t.Errorf("no vector of section %s", s)
		}
	}
}

// checkAppendix compares with the ciphertexts that the appendix spells out.
func checkAppendix(t *testing.T, v hpkeVector, c *hpkeContext) {
	for _, want := range v["ct"] {
		seq, err := strconv.ParseUint(want[0], 10, 64)
		must(t, &seq, err)
		c.seq = seq
		equal(t, hex.EncodeToString(c.seal(fmt.Appendf(nil, "Count-%d", seq), []byte(hpkeVerse))), want[1])
	}
}

func checkExports(t *testing.T, v hpkeVector, c *hpkeContext, r *hpke.Recipient) {
	for _, want := range v["export"] {
		context := []byte{}
		if len(want) == 2 {
			context = hexBytes(want[0])
		}
		got, err := r.Export(string(context), 32)
		must(t, got, err)
		equal(t, hex.EncodeToString(got), want[len(want)-1])
		equal(t, hex.EncodeToString(c.export(context, 32)), want[len(want)-1])
	}
	source, sink := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	for n := range 1000 {
		context := drawn(t, source)
		got, err := r.Export(string(context), n)
		must(t, &n, err)
		if n > 0 && !bytes.Equal(got, c.export(context, n)) {
			t.Fatalf("exports of %d bytes differ", n)
		}
		sink.Write(got)
	}
	equal(t, digest16(sink), v["exported"][0][0])
}

// checkStream seals a thousand messages and opens each.
func checkStream(t *testing.T, v hpkeVector, c *hpkeContext, r *hpke.Recipient) {
	source, sink := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	for range 1000 {
		aad, plaintext := drawn(t, source), drawn(t, source)
		ct := c.seal(aad, plaintext)
		sink.Write(ct)
		got, err := r.Open(aad, ct)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("message %d does not open: %v", c.seq-1, err)
		}
	}
	equal(t, digest16(sink), v["sealed"][0][0])
}

func drawn(t *testing.T, r io.Reader) []byte {
	n := make([]byte, 1)
	_, err := io.ReadFull(r, n)
	must(t, n, err)
	b := make([]byte, n[0])
	_, err = io.ReadFull(r, b)
	return must(t, b, err)
}

func digest16(s *sha3.SHAKE) string {
	b := make([]byte, 16)
	s.Read(b)
	return hex.EncodeToString(b)
}

// TestHybridVector is the draft's vector of the suite of hybrid boxes, opened by the
// recipient that opens them.
func TestHybridVector(t *testing.T) {
	v := hpkeVectors(t, "testdata/hpke_pq.txt")
	if len(v) != 1 {
		t.Fatalf("%d vectors", len(v))
	}
	private, err := hpke.MLKEM768X25519().NewPrivateKey(v[0].hex("skRm"))
	must(t, private, err)
	equal(t, hex.EncodeToString(private.PublicKey().Bytes()), v[0]["pkRm"][0][0])
	derived, err := hpke.MLKEM768X25519().DeriveKeyPair(v[0].hex("ikmR"))
	must(t, derived, err)
	equal(t, hex.EncodeToString(derived.PublicKey().Bytes()), v[0]["pkRm"][0][0])
	r, err := hpke.NewRecipient(v[0].hex("enc"), private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), v[0].hex("info"))
	must(t, r, err)
	for i, ct := range v[0]["ct"] {
		got, err := r.Open(fmt.Appendf(nil, "Count-%d", i), hexBytes(ct[1]))
		must(t, &i, err)
		equal(t, hex.EncodeToString(got), v[0]["pt"][0][0])
	}
	for _, x := range v[0]["export"] {
		n, err := strconv.Atoi(x[1])
		must(t, &n, err)
		got, err := r.Export(string(hexBytes(x[0])), n)
		must(t, got, err)
		equal(t, hex.EncodeToString(got), x[2])
	}
	bad := v[0].hex("enc")
	bad[0] ^= 1
	if r, err := hpke.NewRecipient(bad, private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), v[0].hex("info")); err == nil {
		if _, err := r.Open([]byte("Count-0"), hexBytes(v[0]["ct"][0][1])); err == nil {
			t.Error("a changed encapsulation opens")
		}
	}
}

// TestBoxesOfOtherSuitesAreRefused offers every suite of the vectors, and unknown
// ids, as a box: only the two of the product pass the check of form.
func TestBoxesOfOtherSuitesAreRefused(t *testing.T) {
	n := testNode(t, 1)
	addr := boxAddress{Zone: "z:work", Recipient: "node-1", Purpose: purposeZoneKey, IssuedAt: 1700000000}
	good, err := sealBox(testRand(1), n.p().encryption.PublicKey(), addr, testBytes(32, 1))
	must(t, good, err)
	type ids struct{ kem, kdf, aead uint16 }
	tried := map[ids]bool{{0, 1, 3}: true, {0x20, 0, 3}: true, {0x20, 1, 0}: true, {0x20, 1, 4}: true, {0x21, 1, 3}: true, {0xffff, 0xffff, 0xffff}: true}
	for _, v := range hpkeVectors(t, "testdata/rfc9180.txt") {
		kem, kdf, aead := v.suite()
		tried[ids{kem, kdf, aead}] = true
	}
	for id := range tried {
		b := *good
		b.KEM, b.KDF, b.AEAD = KEM(id.kem), id.kdf, id.aead
		_, err := n.opener().open(addr, &b)
		if id == (ids{0x20, 1, 3}) {
			must(t, &b, err)
			continue
		}
		if fcp.CodeOf(err) != fcp.CodeMalformed {
			t.Errorf("%04x: %v", id, err)
		}
	}
}
