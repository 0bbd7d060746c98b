package symbols

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/zeebo/blake3"
	"golang.org/x/mod/sumdb/tlog"

	"fcp"
)

func noise(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

func testBlock(t testing.TB, n int) (*Coder, *Block, fcp.SegmentID, []byte) {
	t.Helper()
	b := noise(uint64(n), n)
	id := fcp.SegmentID(blake3.Sum256(b))
	c := &Coder{}
	block, err := c.Block(context.Background(), id, b)
	if err != nil {
		t.Fatal(err)
	}
	return c, block, id, b
}

func TestPolicies(t *testing.T) {
	p, err := ParsePolicy("any-2-of-5")
	if err != nil || p != (Policy{2, 5}) || p.String() != "any-2-of-5" {
		t.Errorf("%v %v", p, err)
	}
	for _, s := range []string{"", "any-0-of-5", "any-3-of-2", "any-2-of-65", "any-02-of-5", "any-2-of-5 ", "2-of-5", "any-+2-of-5", "any--1-of-5"} {
		if _, err := ParsePolicy(s); fcp.CodeOf(err) != fcp.CodeInvalidArgument {
			t.Errorf("%q: %v", s, err)
		}
	}
	for k := 1; k < 3000; k += 7 {
		for need := 1; need <= 9; need++ {
			share := Policy{need, need}.Share(k)
			if need*share < k+Spare || (need-1)*share >= k+Spare+need {
				t.Fatalf("%d shares of %d for %d symbols", need, share, k)
			}
		}
	}
}

// The reference is tlog, an independent implementation of RFC 6962.
func TestRangeProofsAgreeWithTheTreeOfTheCard(t *testing.T) {
	for _, n := range []int{1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 100} {
		commits := noise(uint64(n), n*fcp.CommitmentSize)
		tr := newTree(commits)
		var hashes []tlog.Hash
		at := tlog.HashReaderFunc(func(ids []int64) (out []tlog.Hash, _ error) {
			for _, i := range ids {
				out = append(out, hashes[i])
			}
			return out, nil
		})
		for i := range n {
			h, err := tlog.StoredHashes(int64(i), commits[i*fcp.CommitmentSize:][:fcp.CommitmentSize], at)
			if err != nil {
				t.Fatal(err)
			}
			hashes = append(hashes, h...)
		}
		want, err := tlog.TreeHash(int64(n), at)
		if err != nil || fcp.Hash(want) != tr.root() || tr.root() != fcp.CommitmentRoot(commits) {
			t.Fatalf("%d leaves: the roots differ: %v", n, err)
		}
		for a := range n {
			for b := a + 1; b <= n; b++ {
				var proof []byte
				for _, h := range tr.proof(a, b) {
					proof = append(proof, h[:]...)
				}
				some := bytes.Clone(commits[a*fcp.CommitmentSize : b*fcp.CommitmentSize])
				if !proves(tr.root(), some, a, n, proof) {
					t.Fatalf("leaves %d to %d of %d are not proven", a, b, n)
				}
				some[len(some)-1] ^= 1
				if proves(tr.root(), some, a, n, proof) {
					t.Fatalf("a changed leaf of %d to %d of %d is proven", a, b, n)
				}
				some[len(some)-1] ^= 1
				if len(proof) > 0 {
					proof[len(proof)/2] ^= 1
					if proves(tr.root(), some, a, n, proof) || proves(tr.root(), some, a, n, proof[:len(proof)-1]) {
						t.Fatalf("a changed proof of %d to %d of %d holds", a, b, n)
					}
				}
			}
		}
	}
}

func TestASymbolIsTheSameWhoeverMintsIt(t *testing.T) {
	ctx := t.Context()
	for _, n := range []int{1024, 1025, 3000, 100_000, 1<<20 + 7} {
		c, block, id, b := testBlock(t, n)
		k := Ref{Size: uint32(n)}.K()
		first := uint32(k / 2)
		count := uint32(k - k/2 + 4)
		file, root, err := block.Share(ctx, first, count)
		if err != nil {
			t.Fatal(err)
		}
		r := Ref{id, uint32(n), first, count}
		if int64(len(file)) != r.FileSize() {
			t.Errorf("%d bytes: a file of %d bytes, want %d", n, len(file), r.FileSize())
		}
		s, err := ParseShare(r, file)
		if err != nil || !s.HeadOK || s.Cut != 0 || !s.SourceProven(fcp.CommitmentRoot(fcp.SourceCommitments(b, fcp.SymbolSize))) {
			t.Fatalf("%d bytes: %+v %v", n, s.Ref, err)
		}
		if got, ok := s.Root(); !ok || got != root {
			t.Error("the root of the file is another")
		}
		if got, ok := s.Recommit(); !ok || got != root {
			t.Error("the commitments made again have another root")
		}
		other, err := c.Block(ctx, id, b)
		if err != nil {
			t.Fatal(err)
		}
		one, _, err := other.Share(ctx, first+count-1, 1) // its own range, minted elsewhere
		if err != nil || !bytes.Equal(one[len(one)-fcp.SymbolSize:], file[len(file)-fcp.SymbolSize:]) {
			t.Errorf("another range gives another symbol: %v", err)
		}
		for esi := first; esi < first+count; esi++ {
			if same, err := other.Same(ctx, s, esi); err != nil || !same {
				t.Fatalf("symbol %d differs: %v", esi, err)
			}
		}
	}
}

func TestAnySharesRebuildTheBlock(t *testing.T) {
	ctx := t.Context()
	for _, n := range []int{1024, 2000, 5000, 300_000} {
		c, block, id, b := testBlock(t, n)
		k := Ref{Size: uint32(n)}.K()
		share := uint32(Policy{3, 6}.Share(k))
		r, err := c.Rebuild(id, uint32(n))
		if err != nil {
			t.Fatal(err)
		}
		var h Hasher
		for m := range 1 << 6 {
			if bitsOf(m) != 3 {
				continue
			}
			if err := r.Reset(id, uint32(n)); err != nil {
				t.Fatal(err)
			}
			done := false
			for i := range 6 {
				if m>>i&1 == 0 || done {
					continue
				}
				file, _, err := block.Share(ctx, uint32(i)*share, share)
				if err != nil {
					t.Fatal(err)
				}
				s, err := ParseShare(Ref{id, uint32(n), uint32(i) * share, share}, file)
				if err != nil {
					t.Fatal(err)
				}
				for esi := s.First; esi < s.End() && !done; esi++ {
					sym, ok := s.Symbol(&h, esi)
					if !ok {
						t.Fatalf("symbol %d is said to be damaged", esi)
					}
					if done, err = r.Add(ctx, esi, sym); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, err := r.Ciphertext()
			if !done || err != nil || !bytes.Equal(got, b) {
				t.Fatalf("shares %06b of %d bytes do not rebuild: %v", m, n, err)
			}
		}
	}
}

func bitsOf(m int) (n int) {
	for ; m > 0; m >>= 1 {
		n += m & 1
	}
	return n
}

// Every byte of a file says something: a change is seen in what it touches.
func TestAChangeOfAnyByteIsSeenOrDoesNothing(t *testing.T) {
	_, block, id, b := testBlock(t, 5000) // 5 symbols, the last of 904 bytes
	file, root, err := block.Share(t.Context(), 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	r := Ref{id, 5000, 3, 4}
	source := fcp.CommitmentRoot(fcp.SourceCommitments(b, fcp.SymbolSize))
	var h Hasher
	for i := range file {
		c := bytes.Clone(file)
		c[i] ^= 1 << (i % 8)
		s, err := ParseShare(r, c)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := s.Root()
		seen := !s.HeadOK || got != root || !s.SourceProven(source)
		for esi := s.First; esi < s.End(); esi++ {
			_, ok := s.Symbol(&h, esi)
			seen = seen || !ok
		}
		if !seen {
			t.Errorf("a flip in byte %d of %d is not seen", i, len(file))
		}
	}
	for n := range len(file) {
		s, err := ParseShare(r, file[:n])
		if err != nil || s.Cut != len(file)-n {
			t.Fatalf("cut at %d: %v", n, err)
		}
		for esi := s.First; esi < s.End(); esi++ {
			s.Symbol(&h, esi)
		}
		s.SourceProven(source)
		s.Recommit()
	}
}

func TestSharesThatCannotBeAreRefused(t *testing.T) {
	for _, r := range []Ref{
		{Size: 1023, Count: 1}, {Size: fcp.MaxSegment + 1, Count: 1}, {Size: 5000}, {Size: 5000, Count: 5 + MaxExtra + 1},
		{Size: 5000, First: 1<<24 - 1, Count: 2}, {Size: 5000, First: 1<<32 - 1, Count: 1}, {Size: 1<<32 - 1, First: 1<<32 - 1, Count: 1<<32 - 1},
	} {
		if _, err := ParseShare(r, nil); err == nil {
			t.Errorf("%+v is accepted", r)
		}
	}
	_, block, _, _ := testBlock(t, 5000)
	if _, _, err := block.Share(t.Context(), 1<<24-1, 2); err == nil {
		t.Error("ids above the space are minted")
	}
}

func TestShareNames(t *testing.T) {
	r := Ref{Segment: fcp.SegmentID{1, 2}, First: 7, Count: 12345}
	id, first, count, err := ParseFileName(r.FileName())
	if err != nil || id != r.Segment || first != 7 || count != 12345 {
		t.Errorf("%s: %v", r.FileName(), err)
	}
	name := r.FileName()
	for _, bad := range []string{"", "x", name + "x", name[1:], "../" + name, name[:64] + ".7.12345.sym", name[:64] + ".00000007.012345.sym",
		name[:64] + ".99999999999.0001.sym", name[:64] + ".-0000007.0001.sym"} {
		if _, _, _, err := ParseFileName(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, 32))
}

func testCard(t testing.TB, n int) []byte {
	t.Helper()
	b := noise(uint64(n), n)
	key := testKey(9)
	info := fcp.SegmentTransmission(uint64(n))
	c := fcp.Card{Format: fcp.CardFormat, Segment: fcp.SegmentID(blake3.Sum256(b)), Info: info.Bytes(),
		Source: fcp.CommitmentRoot(fcp.SourceCommitments(b, fcp.SymbolSize)), Signer: [32]byte(key.Public().(ed25519.PublicKey))}
	message, err := c.SignedBytes()
	if err != nil {
		t.Fatal(err)
	}
	c.Signature = ed25519.Sign(key, message)
	out, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func testManifest(t testing.TB) (Manifest, []byte) {
	t.Helper()
	m := Manifest{Format: ManifestFormat, Genesis: fcp.Hash{1}, Minter: [32]byte(testKey(1).Public().(ed25519.PublicKey)), Created: 1_800_000_000, Need: 2,
		Segments: []Minted{{Card: testCard(t, 5000), Ranges: []Range{{0, 5, fcp.Hash{1}}, {5, 5, fcp.Hash{2}}}}}}
	b, err := m.Sign(func(message []byte) []byte { return ed25519.Sign(testKey(1), message) })
	if err != nil {
		t.Fatal(err)
	}
	return m, b
}

func TestShareManifestRoundTripAndRefusals(t *testing.T) {
	m, b := testManifest(t)
	got, err := DecodeManifest(b)
	if err != nil || len(got.Segments) != 1 || got.Segments[0].Ranges[1] != m.Segments[0].Ranges[1] || got.Cards[0].Segment.IsZero() {
		t.Fatalf("%+v %v", got, err)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1 << (i % 8)
		if _, err := DecodeManifest(c); err == nil {
			t.Errorf("a flip in byte %d is not found", i)
		}
	}
	other := testCard(t, 6000)
	for what, change := range map[string]func(*Manifest){
		"no segments":       func(m *Manifest) { m.Segments = nil },
		"the same twice":    func(m *Manifest) { m.Segments = append(m.Segments, m.Segments[0]) },
		"ranges that cross": func(m *Manifest) { m.Segments[0].Ranges[1].First = 4 },
		"an empty range":    func(m *Manifest) { m.Segments[0].Ranges[1].Count = 0 },
		"a huge range":      func(m *Manifest) { m.Segments[0].Ranges[1].Count = 1 << 40 },
		"a far range":       func(m *Manifest) { m.Segments[0].Ranges[1].First = 1 << 40 },
		"ranges of a whole": func(m *Manifest) { m.Segments[0].Card = testCard(t, 900) },
		"a forged card":     func(m *Manifest) { c := bytes.Clone(other); c[len(c)-1] ^= 1; m.Segments[0].Card = c },
		"no policy":         func(m *Manifest) { m.Need = 0 },
		"another format":    func(m *Manifest) { m.Format = 2 },
	} {
		m, _ := testManifest(t)
		change(&m)
		if _, err := m.Sign(func(b []byte) []byte { return ed25519.Sign(testKey(1), b) }); err == nil {
			t.Errorf("%s: signed", what)
		}
	}
	// Lying transmission information, under a card that its signer meant.
	key := testKey(3)
	c := fcp.Card{Format: fcp.CardFormat, Segment: fcp.SegmentID{1}, Info: fcp.TransmissionInfo{F: 5000, T: 8, Z: 1, N: 1, Al: 8}.Bytes(),
		Signer: [32]byte(key.Public().(ed25519.PublicKey))}
	message, err := c.SignedBytes()
	if err != nil {
		t.Fatal(err)
	}
	c.Signature = ed25519.Sign(key, message)
	m.Segments = []Minted{{}}
	if m.Segments[0].Card, err = c.Encode(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Sign(func(b []byte) []byte { return ed25519.Sign(testKey(1), b) }); err == nil {
		t.Error("symbols of another size are signed for")
	}
}

func TestInventories(t *testing.T) {
	v := Inventory{}
	v.Add(fcp.SegmentID{2}, 0, 514)
	v.Add(fcp.SegmentID{2}, 5000, 514)
	v.Add(fcp.SegmentID{1}, 1<<24-1, 1)
	v.Add(fcp.SegmentID{3}, 0, 0)
	b, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseInventory(b)
	if err != nil || len(got) != 2 || got[fcp.SegmentID{2}].GetCardinality() != 1028 || !got[fcp.SegmentID{1}].Contains(1<<24-1) {
		t.Fatalf("%v %v", got, err)
	}
	if len(b) > 200 {
		t.Errorf("%d bytes for three runs", len(b))
	}
	far := roaring.BitmapOf(1 << 24)
	far.RunOptimize()
	raw, err := far.ToBytes()
	if err != nil {
		t.Fatal(err)
	}
	entry := func(id byte, bitmap []byte) []byte {
		e := append([]byte{id}, make([]byte, 31)...)
		return append(binary.BigEndian.AppendUint32(e, uint32(len(bitmap))), bitmap...)
	}
	plain := roaring.New()
	for i := range uint32(500) {
		plain.Add(i) // not run-optimised: another form of the same set
	}
	form, err := plain.ToBytes()
	if err != nil {
		t.Fatal(err)
	}
	one, err := encodeBitmap(roaring.BitmapOf(1))
	if err != nil {
		t.Fatal(err)
	}
	head := []byte(inventoryMagic)
	for what, bad := range map[string][]byte{
		"empty": nil, "cut": b[:len(b)-1], "longer": append(bytes.Clone(b), 0), "id above the space": append(head, entry(1, raw)...),
		"another form": append(head, entry(1, form)...), "no symbols": append(head, entry(1, nil)...),
		"descending": append(append(bytes.Clone(head), entry(2, one)...), entry(1, one)...),
		"endless":    append(bytes.Clone(head), append(make([]byte, 32), 0xff, 0xff, 0xff, 0xff)...),
	} {
		if _, err := ParseInventory(bad); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("any-2-of-5")
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := ParsePolicy(s); err == nil && (p.String() != s || !p.Valid()) {
			t.Errorf("%q is %s", s, p)
		}
	})
}

func FuzzParseFileName(f *testing.F) {
	r := Ref{First: 1, Count: 2}
	f.Add(r.FileName())
	f.Fuzz(func(t *testing.T, s string) {
		if id, first, count, err := ParseFileName(s); err == nil && fileName(id, first, count) != s {
			t.Errorf("%q has two forms", s)
		}
	})
}

func FuzzParseShare(f *testing.F) {
	_, block, id, _ := testBlock(f, 5000)
	file, _, err := block.Share(context.Background(), 3, 4)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(5000), uint32(3), uint32(4), file)
	f.Add(uint32(5000), uint32(3), uint32(4), file[:100])
	f.Add(uint32(1<<32-1), uint32(1<<32-1), uint32(1<<32-1), []byte{})
	f.Fuzz(func(t *testing.T, size, first, count uint32, b []byte) {
		s, err := ParseShare(Ref{id, size, first, count}, b)
		if err != nil {
			return
		}
		var h Hasher
		s.SourceProven(fcp.Hash{1})
		root, whole := s.Root()
		for esi := s.First; esi < s.End(); esi++ {
			if sym, ok := s.Symbol(&h, esi); ok && (len(sym) != fcp.SymbolSize || fcp.SymbolCommitment(esi, sym[:paddedFrom(&s.Ref, esi)]) != [16]byte(s.commits[(esi-s.First)*16:])) {
				t.Error("a symbol does not fit its commitment")
			}
		}
		if again, ok := s.Recommit(); ok && whole && again == root {
			for esi := s.First; esi < s.End(); esi++ {
				if raw, _ := s.raw(esi); !zero(raw[paddedFrom(&s.Ref, esi):]) {
					continue
				}
				if _, ok := s.Symbol(&h, esi); !ok {
					t.Error("the root fits, a symbol does not")
				}
			}
		}
	})
}

func FuzzDecodeManifest(f *testing.F) {
	_, b := testManifest(f)
	f.Add(b)
	f.Add(b[:60])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			return
		}
		again, err := fcp.MarshalPayload(schemaShareManifest, m.Manifest)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("two forms of one manifest: %v", err)
		}
	})
}

func FuzzParseInventory(f *testing.F) {
	v := Inventory{}
	v.Add(fcp.SegmentID{2}, 5, 514)
	b, err := v.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseInventory(b)
		if err != nil {
			return
		}
		again, err := v.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("two forms of one inventory: %v", err)
		}
	})
}

func FuzzParseBitmap(f *testing.F) {
	b, err := encodeBitmap(roaring.BitmapOf(1, 2, 3, 70000))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseBitmap(b); err == nil && m.GetCardinality() > 1<<24 {
			t.Error("more symbols than there are ids")
		}
	})
}
