package symbols

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"fcp"
)

// A symbol is proven by its path and by nothing else: not another symbol, another
// number, another root, or a path with a bit changed.
func TestAPathProvesASymbol(t *testing.T) {
	var coder Coder
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(fcp.TinySegment, 40*fcp.SymbolSize).Draw(t, "size")
		ciphertext := make([]byte, size)
		r := rand.NewChaCha8([32]byte{byte(size)})
		r.Read(ciphertext)
		block, err := coder.Block(context.Background(), fcp.SegmentID(blake3.Sum256(ciphertext)), ciphertext)
		if err != nil {
			t.Fatal(err)
		}
		ref := Ref{block.segment, uint32(size), uint32(rapid.IntRange(0, 100).Draw(t, "first")), 0}
		ref.Count = uint32(rapid.IntRange(1, ref.K()+MaxExtra).Draw(t, "count"))
		file, root, err := block.Share(context.Background(), ref.First, ref.Count)
		if err != nil {
			t.Fatal(err)
		}
		share, err := ParseShare(ref, file)
		if err != nil {
			t.Fatal(err)
		}
		esi := ref.First + uint32(rapid.IntRange(0, int(ref.Count)-1).Draw(t, "esi"))
		var h Hasher
		symbol, ok := share.Symbol(&h, esi)
		path, ok2 := share.Path(esi)
		if !ok || !ok2 || len(path) > MaxPath || !ref.Proves(root, esi, symbol, path) {
			t.Fatalf("symbol %d of %+v is not proven", esi, ref)
		}
		changed := bytes.Clone(symbol)
		changed[rapid.IntRange(0, len(changed)-1).Draw(t, "byte")] ^= 1
		other := root
		other[0] ^= 1
		if ref.Proves(root, esi, changed, path) || ref.Proves(other, esi, symbol, path) || ref.Proves(root, esi, symbol, append(bytes.Clone(path), path...)) && len(path) > 0 ||
			ref.Proves(root, esi+1, symbol, path) || ref.Proves(root, ref.End(), symbol, path) || ref.Proves(root, esi, symbol[1:], path) {
			t.Fatal("something else is proven")
		}
		if len(path) > 0 {
			bent := bytes.Clone(path)
			bent[rapid.IntRange(0, len(bent)-1).Draw(t, "bit")] ^= 1
			if ref.Proves(root, esi, symbol, bent) {
				t.Fatal("a bent path proves")
			}
		}
		if _, ok := share.Path(ref.End()); ok {
			t.Fatal("a path for what is not there")
		}
	})
}
