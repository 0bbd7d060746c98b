package log

import (
	"cmp"
	"crypto/sha256"
	"math/rand/v2"
	"slices"
	"testing"

	"fcp"
)

// TestATreeGrowsAlikeLeafByLeafAndMany holds runs of leaves of many lengths, on trees
// of many sizes, against leaf after leaf: roots, size and the nodes to be stored.
func TestATreeGrowsAlikeLeafByLeafAndMany(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	leaf := func(i uint64) fcp.Hash { return sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)}) }
	order := func(a, b treeNode) int {
		return cmp.Or(cmp.Compare(a.level, b.level), cmp.Compare(a.index, b.index))
	}
	check := func(one, many *tree, wantNodes, nodes []treeNode) {
		t.Helper()
		slices.SortFunc(wantNodes, order)
		slices.SortFunc(nodes, order)
		if one.size != many.size || !slices.Equal(one.roots, many.roots) || !slices.Equal(wantNodes, nodes) {
			t.Fatalf("at %d leaves: %d roots, %d nodes; leaf by leaf %d, %d", one.size, len(many.roots), len(nodes), len(one.roots), len(wantNodes))
		}
	}
	var g treeGrower
	for size := range uint64(70) { // every small tree with every small run
		for n := range 70 {
			var one, many tree
			var wantNodes, nodes []treeNode
			for i := range size {
				one.append(leaf(i), nil)
				many.append(leaf(i), nil)
			}
			var leaves []fcp.Hash
			for i := range n {
				leaves = append(leaves, leaf(size+uint64(i)))
				wantNodes = one.append(leaves[i], wantNodes)
			}
			nodes = g.extend(&many, leaves, nodes)
			check(&one, &many, wantNodes, nodes)
		}
	}
	var one, many tree // and one that stores nodes at two levels
	for one.size < 1<<16+1000 {
		var wantNodes []treeNode
		leaves := make([]fcp.Hash, rng.IntN(1500))
		for i := range leaves {
			leaves[i] = leaf(one.size)
			wantNodes = one.append(leaves[i], wantNodes)
		}
		check(&one, &many, wantNodes, g.extend(&many, leaves, nil))
	}
}

// BenchmarkTree is a leaf's cost, one by one and in groups.
func BenchmarkTree(b *testing.B) {
	leaves := make([]fcp.Hash, 256)
	for i := range leaves {
		leaves[i] = sha256.Sum256([]byte{byte(i)})
	}
	b.Run("one", func(b *testing.B) {
		var t tree
		var out []treeNode
		for i := range b.N {
			out = t.append(leaves[i%len(leaves)], out[:0])
		}
	})
	b.Run("many", func(b *testing.B) {
		var t tree
		var g treeGrower
		var out []treeNode
		for range b.N/len(leaves) + 1 {
			out = g.extend(&t, leaves, out[:0])
		}
	})
}
