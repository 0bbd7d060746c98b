package log

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"fcp"
	"fcp/internal/crashfs"
)

// naiveTree is RFC 6962 section 2.1 word for word.
func naiveTree(leaves []fcp.Hash) fcp.Hash {
	switch n := len(leaves); n {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return leaves[0]
	default:
		k := 1
		for 2*k < n {
			k *= 2
		}
		l, r := naiveTree(leaves[:k]), naiveTree(leaves[k:])
		return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...))
	}
}

// naivePath is PATH(m, D[n]) of RFC 6962 section 2.1.1.
func naivePath(m int, d []fcp.Hash) []fcp.Hash {
	n := len(d)
	if n == 1 {
		return nil
	}
	k := 1
	for 2*k < n {
		k *= 2
	}
	if m < k {
		return append(naivePath(m, d[:k]), naiveTree(d[k:]))
	}
	return append(naivePath(m-k, d[k:]), naiveTree(d[:k]))
}

// filled makes a log whose data feed 1 has n events, and returns their hashes.
func filled(t testing.TB, fs *crashfs.FS, o Options, n, batch int) (*Log, []fcp.Hash) {
	t.Helper()
	l, err := openOn(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	var hashes []fcp.Hash
	for len(hashes) < n {
		var ds []Draft
		for i := range min(batch, n-len(hashes)) {
			ds = append(ds, draft(1+(len(hashes)+i)%40, byte(i))...)
		}
		for _, p := range mustAppend(t, l, ds).Events {
			hashes = append(hashes, p.Hash)
		}
	}
	return l, hashes
}

func writerOfTestSeal() fcp.WriterID { return fcp.WriterOf(newTestSeal().Public()) }

func TestInclusionOfEveryEvent(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		t.Run(fmt.Sprintf("sealed %v", sealed), func(t *testing.T) {
			o := sealing(small(), 16<<10)
			l, hashes := filled(t, crashfs.New(), o, 700, 37)
			defer mustClose(t, l)
			if sealed {
				if _, err := l.Seal(t.Context(), SealOptions{All: true}); err != nil {
					t.Fatal(err)
				}
			}
			for _, size := range []int{1, 2, 3, 7, 8, 255, 256, 257, 511, 512, 513, 600, 700} {
				root := naiveTree(hashes[:size])
				for seq := 1; seq <= size; seq++ {
					p, err := l.Prove(1, uint64(seq), uint64(size))
					if err != nil {
						t.Fatalf("%d in %d: %v", seq, size, err)
					}
					if p.Root != root || p.Leaf != hashes[seq-1] || p.Seq != uint64(seq) || p.Size != uint64(size) {
						t.Fatalf("%d in %d: another root or leaf", seq, size)
					}
					if seq%13 == 0 && fmt.Sprint(p.Hashes) != fmt.Sprint(naivePath(seq-1, hashes[:size])) {
						t.Fatalf("%d in %d: another path", seq, size)
					}
				}
			}
			_, err := l.Prove(1, 701, 700)
			wantCode(t, err, fcp.CodeNotFound)
			_, err = l.Prove(1, 1, 701)
			wantCode(t, err, fcp.CodeNotFound)
			_, err = l.Prove(1, 0, 0)
			wantCode(t, err, fcp.CodeNotFound)
			_, err = l.Prove(9, 1, 0)
			wantCode(t, err, fcp.CodeNotFound)
		})
	}
}

func TestConsistencyOfAllPairs(t *testing.T) {
	const size = 600
	l, hashes := filled(t, crashfs.New(), small(), size, 100)
	defer mustClose(t, l)
	roots := make([]fcp.Hash, size+1)
	for n := 1; n <= size; n++ {
		roots[n] = naiveTree(hashes[:n])
	}
	rng := rand.New(rand.NewPCG(1, 2))
	pairs := 0
	for n := 1; n <= size; n++ {
		for m := 1; m <= n; m++ {
			// All pairs of small sizes and around each power of two; of the
			// rest a sample.
			if n > 40 && n&(n-1) != 0 && (n+1)&n != 0 && rng.IntN(20) > 0 && torture(1) == 1 {
				continue
			}
			pairs++
			c, err := l.Consistency(1, uint64(m), uint64(n))
			if err != nil {
				t.Fatalf("%d to %d: %v", m, n, err)
			}
			if c.FromRoot != roots[m] || c.ToRoot != roots[n] {
				t.Fatalf("%d to %d: another root", m, n)
			}
			if pairs%97 == 0 && m < n {
				c.ToRoot[5] ^= 1
				if c.Check() == nil {
					t.Fatalf("%d to %d: a wrong root passes", m, n)
				}
				c.ToRoot[5] ^= 1
				for i := range c.Hashes {
					c.Hashes[i][31] ^= 0x80
					if c.Check() == nil {
						t.Fatalf("%d to %d: a wrong path passes", m, n)
					}
					c.Hashes[i][31] ^= 0x80
				}
			}
		}
	}
	if pairs < 9000 {
		t.Fatalf("only %d pairs", pairs)
	}
	_, err := l.Consistency(1, 0, 5)
	wantCode(t, err, fcp.CodeNotFound)
	_, err = l.Consistency(1, 6, 5)
	wantCode(t, err, fcp.CodeNotFound)
}

func TestProofsAcrossStoredLevels(t *testing.T) {
	const size = 1<<16 + 300 // one node of height 16
	o := small()
	o.MemTableBytes = 1 << 20
	fs := crashfs.New()
	l, hashes := filled(t, fs, o, size, 4000)
	mustClose(t, l)
	l, err := openOn(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		n := 1 + rng.IntN(size)
		if rng.IntN(2) == 0 {
			n = size - rng.IntN(400)
		}
		m := 1 + rng.IntN(n)
		p, err := l.Prove(1, uint64(m), uint64(n))
		if err != nil || p.Leaf != hashes[m-1] {
			t.Fatalf("%d in %d: %v", m, n, err)
		}
		if _, err := l.Consistency(1, uint64(m), uint64(n)); err != nil {
			t.Fatalf("%d to %d: %v", m, n, err)
		}
	}
	for _, n := range []int{1 << 16, 1<<16 + 1, 1<<16 - 1, 1 << 15, 40000, size} {
		p, err := l.Prove(1, 1, uint64(n))
		if err != nil || p.Root != naiveTree(hashes[:n]) {
			t.Fatalf("root of %d: %v", n, err)
		}
	}
}

func TestProofOfDamagedNodeIsRefused(t *testing.T) {
	const size = headRecordEvents + 1000
	fs := crashfs.New()
	l, _ := filled(t, fs, small(), size, 500)
	mustClose(t, l) // the next open begins behind a head record, with the nodes that are stored
	l, err := openOn(fs, small())
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	if err := l.db.Set(keyOfNode(1, 8, 0), make([]byte, 32), nil); err != nil {
		t.Fatal(err)
	}
	_, err = l.Prove(1, 500, size)
	wantCode(t, err, fcp.CodeCorrupt)
	if err := l.db.Delete(keyOfNode(1, 8, 0), nil); err != nil {
		t.Fatal(err)
	}
	_, err = l.Prove(1, 500, size)
	wantCode(t, err, fcp.CodeCorrupt)
}

// TestNodesAreMadeAgain: nodes behind the last head record are not stored yet when a log
// ends without a close.
func TestNodesAreMadeAgain(t *testing.T) {
	const size = headRecordEvents + 1000
	fs := crashfs.New()
	l, hashes := filled(t, fs, small(), size, 500)
	clone := fs.CrashClone()
	mustClose(t, l)
	l, err := openOn(clone, small())
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	stored := 0
	err = l.scanPrefix([]byte{keyNode}, func(_, _ []byte) error { stored++; return nil })
	if err != nil || stored < headRecordEvents/leafRun || stored >= size/leafRun {
		t.Fatalf("%d nodes are stored (%v)", stored, err)
	}
	for _, leaf := range []uint64{1, 500, headRecordEvents, size - 300, size} {
		p, err := l.Prove(1, leaf, size)
		if err != nil || p.Leaf != hashes[leaf-1] || p.Root != naiveTree(hashes) {
			t.Fatalf("event %d: %v", leaf, err)
		}
	}
}

func TestTreeHeadIsACheckpoint(t *testing.T) {
	seal := newTestSeal()
	o := sealing(small(), 1<<20)
	l, hashes := filled(t, crashfs.New(), o, 300, 50)
	defer mustClose(t, l)
	h, err := l.TreeHead(1)
	if err != nil {
		t.Fatal(err)
	}
	// Any tool that knows signed notes can read it.
	root := naiveTree(hashes)
	vkey, err := note.NewEd25519VerifierKey(h.Origin, seal.Public())
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(h.Note, note.VerifierList(v))
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("fcp.log/feed/%s\n300\n%s\n", l.Feeds()[0].ID, base64.StdEncoding.EncodeToString(root[:]))
	if n.Text != want {
		t.Fatalf("the note says %q, want %q", n.Text, want)
	}
	got, err := OpenHead(l.Feeds()[0].ID, h.Note, seal.Public())
	if err != nil || got.Size != 300 || got.Root != root {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range h.Note {
		for bit := range 8 {
			bad := bytes.Clone(h.Note)
			bad[i] ^= 1 << bit
			if _, err := OpenHead(l.Feeds()[0].ID, bad, seal.Public()); err == nil {
				t.Fatalf("a head with bit %d of byte %d flipped passes", bit, i)
			}
		}
	}
	if _, err := OpenHead(fcp.FeedID{1}, h.Note, seal.Public()); err == nil {
		t.Fatal("the head passes for another feed")
	}
	other := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32)).Public().(ed25519.PublicKey)
	if _, err := OpenHead(l.Feeds()[0].ID, h.Note, other); err == nil {
		t.Fatal("the head passes under another key")
	}
	_, err = l.TreeHead(7)
	wantCode(t, err, fcp.CodeNotFound)
}

func TestLocalPlaneHasNoProofs(t *testing.T) {
	l, err := openOn(crashfs.New(), sealing(small(), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	mustAppend(t, l, []Draft{{Zone: fcp.ZonePrivate, Plane: fcp.PlaneLocal, Content: opaque(9, 1)}})
	_, err = l.Prove(1, 1, 1)
	wantCode(t, err, fcp.CodeWrongPlane)
	_, err = l.TreeHead(1)
	wantCode(t, err, fcp.CodeWrongPlane)
}

func bundleOf(t testing.TB, n int, seq uint64) []byte {
	t.Helper()
	o := sealing(small(), 1<<20)
	o.Writer = writerOfTestSeal()
	l, _ := filled(t, crashfs.New(), o, n, 50)
	defer mustClose(t, l)
	b, err := l.Bundle(1, seq)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBundleVerifiesOfflineAndNothingElseDoes(t *testing.T) {
	b := bundleOf(t, 300, 77)
	e, err := OpenProof(b)
	if err != nil {
		t.Fatal(err)
	}
	if e.Seq != 77 || e.Feed.Zone != fcp.ZonePrivate {
		t.Fatalf("the proof is of %+v", e)
	}
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if CheckProof(bad) == nil {
				t.Fatalf("a bundle with bit %d of byte %d (%q) flipped passes", bit, i, b[i])
			}
		}
		if CheckProof(b[:i]) == nil {
			t.Fatalf("the first %d bytes of a bundle pass", i)
		}
	}
	if CheckProof(append(bytes.Clone(b), '\n')) == nil || CheckProof(append([]byte(" "), b...)) == nil {
		t.Fatal("a bundle with space around it passes")
	}
	if CheckProof([]byte(strings.Replace(string(b), `"size"`, `"extra": 1, "size"`, 1))) == nil {
		t.Fatal("a bundle with a field nobody knows passes")
	}
}

func TestBundleOfAnotherSignerNeedsTrust(t *testing.T) {
	seal := newTestSeal()
	l, _ := filled(t, crashfs.New(), sealing(small(), 1<<20), 20, 20) // writer and key do not belong together
	defer mustClose(t, l)
	b, err := l.Bundle(1, 3)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, CheckProof(b), fcp.CodeSignature)
	if err := CheckProof(b, seal.Public()); err != nil {
		t.Fatal(err)
	}
}

func TestBundleCannotMixParts(t *testing.T) {
	b1, b2 := bundleOf(t, 300, 77), bundleOf(t, 301, 78)
	lines1, lines2 := strings.SplitAfter(string(b1), "\n"), strings.SplitAfter(string(b2), "\n")
	mixed := 0
	for i := range lines1 {
		if i < len(lines2) && lines1[i] != lines2[i] {
			m := append(append(append([]string{}, lines1[:i]...), lines2[i]), lines1[i+1:]...)
			mixed++
			if CheckProof([]byte(strings.Join(m, ""))) == nil {
				t.Fatalf("line %d of another bundle passes: %s", i, lines2[i])
			}
		}
	}
	if mixed < 5 {
		t.Fatalf("only %d lines differ", mixed)
	}
}

func TestTreeMatchesNaiveTree(t *testing.T) {
	var tr tree
	var leaves []fcp.Hash
	nodes := map[string]fcp.Hash{}
	for i := range 600 {
		leaf := fcp.Hash(sha256.Sum256(fmt.Append(nil, i)))
		leaves = append(leaves, leaf)
		for _, n := range tr.append(leaf, nil) {
			nodes[fmt.Sprint(n.level, n.index)] = n.hash
		}
		if tr.root() != naiveTree(leaves) {
			t.Fatalf("the root over %d leaves is wrong", i+1)
		}
	}
	for i := range 2 {
		if nodes[fmt.Sprint(8, i)] != naiveTree(leaves[256*i:256*(i+1)]) {
			t.Fatalf("stored node 8/%d is wrong", i)
		}
	}
	if len(nodes) != 2 {
		t.Fatalf("%d nodes for 600 leaves", len(nodes))
	}
	c := tr.clone()
	c.append(fcp.Hash{1}, nil)
	if tr.root() != naiveTree(leaves) {
		t.Fatal("a clone shares memory with its source")
	}
}
