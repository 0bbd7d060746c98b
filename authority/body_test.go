package authority

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"fcp"
)

var bodySizes = []int{0, 1, 15, 16, 255, 256, 1024, FrameSize - 1, FrameSize, FrameSize + 1, 2*FrameSize - 1, 2 * FrameSize, 2*FrameSize + 7}

func testBytes(n int, seed byte) []byte {
	b := make([]byte, n)
	testRand(seed).Read(b)
	return b
}

func TestSealedBodyOpens(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	for _, n := range bodySizes {
		pt := testBytes(n, 3)
		prefix := []byte("prefix")
		ct := k.SealBody(bytes.Clone(prefix), fcp.ObjectID{1}, Salt{2}, pt)
		equal(t, len(ct)-len(prefix), SealedBodyLen(n))
		if back, ok := PlainBodyLen(len(ct) - len(prefix)); !ok || back != n {
			t.Errorf("plain length of %d: %d %v", n, back, ok)
		}
		got, err := k.OpenBody(bytes.Clone(prefix), fcp.ObjectID{1}, Salt{2}, ct[len(prefix):])
		if err != nil || !bytes.Equal(got, append(bytes.Clone(prefix), pt...)) {
			t.Errorf("%d bytes do not open: %v", n, err)
		}
		if n >= 16 && bytes.Contains(ct, pt[:16]) {
			t.Errorf("%d bytes: plaintext in the ciphertext", n)
		}
	}
}

func TestSealedBodyLengthsThatCannotBe(t *testing.T) {
	for _, n := range []int{-1, 0, 1, 15, sealedSize + 1, sealedSize + TagSize, 2*sealedSize + 3} {
		if pt, ok := PlainBodyLen(n); ok {
			t.Errorf("%d bytes of ciphertext give %d", n, pt)
		}
	}
}

func TestBodyRangeEqualsSliceOfWhole(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range bodySizes {
		pt := testBytes(n, 3)
		ct := k.SealBody(nil, fcp.ObjectID{1}, Salt{2}, pt)
		for range 40 {
			off := r.IntN(n + 1)
			size := r.IntN(n - off + 1)
			got, err := k.OpenBodyRange([]byte("x"), fcp.ObjectID{1}, Salt{2}, ct, off, size)
			if err != nil || string(got) != "x"+string(pt[off:off+size]) {
				t.Fatalf("%d+%d of %d: %d bytes, %v", off, size, n, len(got), err)
			}
		}
		for _, bad := range [][2]int{{-1, 0}, {0, -1}, {0, n + 1}, {n + 1, 0}, {1, n}, {1, int(^uint(0) >> 1)}} {
			if bad[0]+bad[1] <= n && bad[0] >= 0 && bad[1] >= 0 {
				continue
			}
			_, err := k.OpenBodyRange(nil, fcp.ObjectID{1}, Salt{2}, ct, bad[0], bad[1])
			wantCode(t, err, fcp.CodeInvalidArgument)
		}
	}
}

func TestRangeOpensOnlyItsFrames(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	pt := testBytes(3*FrameSize, 3)
	ct := k.SealBody(nil, fcp.ObjectID{1}, Salt{2}, pt)
	ct[2*sealedSize] ^= 1
	if got, err := k.OpenBodyRange(nil, fcp.ObjectID{1}, Salt{2}, ct, FrameSize-3, 6); err != nil || !bytes.Equal(got, pt[FrameSize-3:FrameSize+3]) {
		t.Errorf("untouched frames do not open: %v", err)
	}
	_, err := k.OpenBodyRange(nil, fcp.ObjectID{1}, Salt{2}, ct, 2*FrameSize, 1)
	wantCode(t, err, fcp.CodeCorrupt)
	dst := make([]byte, 0, 3*FrameSize)
	_, err = k.OpenBody(dst, fcp.ObjectID{1}, Salt{2}, ct)
	wantCode(t, err, fcp.CodeCorrupt)
	if !bytes.Equal(dst[:cap(dst)], make([]byte, cap(dst))) {
		t.Error("plaintext of a refused body stayed in the caller's buffer")
	}
}

func TestSealedBodyIsBoundToItsPlace(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	sameKeys := must(t, zoneKeysOf(newZoneKeys("z:private", &k.p().keys)), nil)
	pt := testBytes(300, 3)
	ct := k.SealBody(nil, fcp.ObjectID{1}, Salt{2}, pt)
	for name, open := range map[string]func() ([]byte, error){
		"zone":   func() ([]byte, error) { return sameKeys.OpenBody(nil, fcp.ObjectID{1}, Salt{2}, ct) },
		"object": func() ([]byte, error) { return k.OpenBody(nil, fcp.ObjectID{0}, Salt{2}, ct) },
		"salt":   func() ([]byte, error) { return k.OpenBody(nil, fcp.ObjectID{1}, Salt{3}, ct) },
		"keys": func() ([]byte, error) {
			return testZoneKeys(t, "z:work", 2).OpenBody(nil, fcp.ObjectID{1}, Salt{2}, ct)
		},
	} {
		_, err := open()
		if fcp.CodeOf(err) != fcp.CodeCorrupt {
			t.Errorf("another %s: %v", name, err)
		}
	}
	for i := range ct {
		for bit := range 8 {
			bad := bytes.Clone(ct)
			bad[i] ^= 1 << bit
			if _, err := k.OpenBody(nil, fcp.ObjectID{1}, Salt{2}, bad); err == nil {
				t.Fatalf("byte %d bit %d does not matter", i, bit)
			}
		}
	}
}

func zoneKeysOf(k *ZoneKeys, err error) *ZoneKeys {
	if err != nil {
		panic(err)
	}
	return k
}

func TestBodyFramesCannotBeMoved(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	ct := k.SealBody(nil, fcp.ObjectID{1}, Salt{2}, make([]byte, 3*FrameSize))
	f := func(i int) []byte { return ct[i*sealedSize : (i+1)*sealedSize] }
	for name, bad := range map[string][]byte{
		"swapped":           bytes.Join([][]byte{f(1), f(0), f(2)}, nil),
		"last dropped":      bytes.Join([][]byte{f(0), f(1)}, nil),
		"first dropped":     bytes.Join([][]byte{f(1), f(2)}, nil),
		"last twice":        bytes.Join([][]byte{f(0), f(1), f(2), f(2)}, nil),
		"truncated":         ct[:len(ct)-1],
		"extended":          append(bytes.Clone(ct), 0),
		"extended by a tag": append(bytes.Clone(ct), make([]byte, TagSize)...),
	} {
		_, err := k.OpenBody(nil, fcp.ObjectID{1}, Salt{2}, bad)
		if fcp.CodeOf(err) != fcp.CodeCorrupt {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSealBodyIsSafeInParallel(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	for g := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for i := range 200 {
				id, salt := fcp.ObjectID{byte(g), byte(i)}, Salt{byte(i), byte(g)}
				pt := testBytes(i*7, byte(g))
				got, err := k.OpenBody(nil, id, salt, k.SealBody(nil, id, salt, pt))
				if err != nil || !bytes.Equal(got, pt) {
					t.Fatalf("round trip: %v", err)
				}
			}
		})
	}
}

func TestSegmentKeyIsBoundToItsAddress(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	key, err := NewSegmentKey(testRand(5))
	if err != nil {
		t.Fatal(err)
	}
	w, err := k.WrapSegmentKey(testRand(6), key, []byte("feed 1..9"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := k.UnwrapSegmentKey(w[:], []byte("feed 1..9"))
	if err != nil || *back.p() != *key.p() {
		t.Fatalf("unwrap: %v", err)
	}
	_, err = k.UnwrapSegmentKey(w[:], []byte("feed 1..8"))
	wantCode(t, err, fcp.CodeWrongKey)
	_, err = testZoneKeys(t, "z:work", 2).UnwrapSegmentKey(w[:], []byte("feed 1..9"))
	wantCode(t, err, fcp.CodeWrongKey)
	_, err = zoneKeysOf(newZoneKeys("z:private", &k.p().keys)).UnwrapSegmentKey(w[:], []byte("feed 1..9"))
	wantCode(t, err, fcp.CodeWrongKey)
	for i := range w {
		bad := w
		bad[i] ^= 0x40
		_, err = k.UnwrapSegmentKey(bad[:], []byte("feed 1..9"))
		wantCode(t, err, fcp.CodeWrongKey)
	}
	_, err = k.UnwrapSegmentKey(w[1:], []byte("feed 1..9"))
	wantCode(t, err, fcp.CodeMalformed)
	_, err = k.WrapSegmentKey(testRand(6), key, make([]byte, MaxSegmentAddress+1))
	wantCode(t, err, fcp.CodeTooLarge)
}

func TestSegmentFrameIsBoundToItsPlace(t *testing.T) {
	cipherOf := func(seed byte, addr string) *SegmentCipher {
		key, err := NewSegmentKey(testRand(seed))
		must(t, key, err)
		c, err := key.Cipher([]byte(addr))
		key.Wipe()
		return must(t, c, err)
	}
	c := cipherOf(5, "addr")
	pt := testBytes(500, 1)
	ct := c.SealFrame(nil, pt, 3, false)
	equal(t, len(ct), len(pt)+c.Overhead())
	if got, err := cipherOf(5, "addr").OpenFrame([]byte("x"), ct, 3, false); err != nil || string(got) != "x"+string(pt) {
		t.Fatalf("open: %v", err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"index":   func() ([]byte, error) { return c.OpenFrame(nil, ct, 4, false) },
		"last":    func() ([]byte, error) { return c.OpenFrame(nil, ct, 3, true) },
		"address": func() ([]byte, error) { return cipherOf(5, "adds").OpenFrame(nil, ct, 3, false) },
		"key":     func() ([]byte, error) { return cipherOf(7, "addr").OpenFrame(nil, ct, 3, false) },
		"short":   func() ([]byte, error) { return c.OpenFrame(nil, ct[1:], 3, false) },
		"empty":   func() ([]byte, error) { return c.OpenFrame(nil, nil, 3, false) },
	} {
		_, err := open()
		if fcp.CodeOf(err) != fcp.CodeCorrupt {
			t.Errorf("another %s: %v", name, err)
		}
	}
	for i := range ct {
		bad := bytes.Clone(ct)
		bad[i] ^= 1
		if _, err := c.OpenFrame(nil, bad, 3, false); err == nil {
			t.Fatalf("byte %d does not matter", i)
		}
	}
	key, _ := NewSegmentKey(testRand(1))
	_, err := key.Cipher(make([]byte, MaxSegmentAddress+1))
	wantCode(t, err, fcp.CodeTooLarge)
}

func TestKeyIDAsHash(t *testing.T) {
	id := testZoneKeys(t, "z:work", 1).IDs().Zone
	if back, ok := KeyIDOfHash(id.Hash()); !ok || back != id {
		t.Error("does not come back")
	}
	h := id.Hash()
	h[31] = 1
	if _, ok := KeyIDOfHash(h); ok {
		t.Error("a full hash is taken for a key id")
	}
}

func TestObjectIDsDifferByZoneAndKey(t *testing.T) {
	k := testZoneKeys(t, "z:work", 1)
	seen := map[fcp.ObjectID]bool{}
	for _, z := range []*ZoneKeys{k, testZoneKeys(t, "z:work", 2), zoneKeysOf(newZoneKeys("z:private", &k.p().keys))} {
		for _, id := range []fcp.ObjectID{z.StoredObjectID(fcp.Hash{1}, []byte("x")), z.KeyedObjectID(fcp.Hash{1}, []byte("x")), z.KeyedObjectID(fcp.Hash{2}, []byte("x"))} {
			if seen[id] {
				t.Error("two ids are equal")
			}
			seen[id] = true
		}
	}
}
