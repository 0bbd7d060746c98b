package log

import (
	"slices"

	"fcp"
	"fcp/internal/sha256lanes"
)

// tree is the right edge of a feed's Merkle tree (RFC 6962 section 2.1): the
// roots of the complete subtrees that partition its leaves, largest first. It is
// enough to append and to give the root.
type tree struct {
	size  uint64
	roots []fcp.Hash // one per set bit of size, largest subtree first
}

// nodeLevels are the heights of complete subtrees whose roots are stored, so
// that a proof reads at most a few hundred nodes at any size. Below the first,
// nodes are recomputed from the events.
var nodeLevels = [...]uint8{8, 16, 24, 32}

// treeNode is a complete subtree's root to be stored.
type treeNode struct {
	level uint8
	index uint64
	hash  fcp.Hash
}

// append adds a leaf. Roots of complete subtrees at a stored level are appended
// to out.
func (t *tree) append(leaf fcp.Hash, out []treeNode) []treeNode {
	n := len(t.roots)
	level := uint8(0)
	for size := t.size; size&1 == 1; size >>= 1 {
		leaf = fcp.NodeHash(t.roots[n-1], leaf)
		n--
		level++
		if level&7 == 0 && level <= nodeLevels[len(nodeLevels)-1] {
			out = append(out, treeNode{level: level, index: t.size >> level, hash: leaf})
		}
	}
	t.roots = append(t.roots[:n], leaf)
	t.size++
	return out
}

// A treeGrower adds many leaves at once. The nodes of one height do not depend on
// each other, so they are hashed side by side: a third of the time of one after the
// other. The zero value is ready for use. Not safe for concurrent use.
type treeGrower struct {
	hasher *sha256lanes.Hasher
	nodes  []fcp.Hash // one in front for a root of the tree, then nodes of one height
	alone  []fcp.Hash // new roots, smallest first
}

// extend adds leaves to t, as appending each would; roots of complete subtrees at a
// stored level are appended to out, in no order.
func (g *treeGrower) extend(t *tree, leaves []fcp.Hash, out []treeNode) []treeNode {
	g.nodes = append(append(g.nodes[:0], fcp.Hash{}), leaves...)
	g.alone = g.alone[:0]
	old, at := len(t.roots), t.size // roots that stay, and the index of the first node
	nodes := g.nodes[1:]
	for level := uint8(0); len(nodes) > 0; level++ {
		if at&1 == 1 { // the left one of the first pair is a root of the tree
			old--
			at--
			g.nodes[0] = t.roots[old]
			nodes = g.nodes[:1+len(nodes)]
		}
		if n := len(nodes) - 1; n&1 == 0 {
			g.alone = append(g.alone, nodes[n])
			nodes = nodes[:n]
		}
		nodes = g.parents(nodes)
		at >>= 1
		if above := level + 1; above&7 == 0 && above <= nodeLevels[len(nodeLevels)-1] {
			for i := range nodes {
				out = append(out, treeNode{level: above, index: at + uint64(i), hash: nodes[i]})
			}
		}
	}
	t.roots = t.roots[:old]
	for _, root := range slices.Backward(g.alone) {
		t.roots = append(t.roots, root)
	}
	t.size += uint64(len(leaves))
	return out
}

// parents puts the parents of pairs of nodes, which lie in g.nodes, behind its first.
func (g *treeGrower) parents(nodes []fcp.Hash) []fcp.Hash {
	if g.hasher == nil {
		g.hasher = sha256lanes.New(1 + 2*fcp.HashSize)
		for i := range sha256lanes.Lanes {
			g.hasher.Message(i)[0] = 1 // RFC 6962 section 2.1
		}
	}
	n := len(nodes) / 2
	for i := 0; i < n; {
		m := min(n-i, sha256lanes.Lanes)
		for j := range m {
			b := g.hasher.Message(j)
			copy(b[1:], nodes[2*(i+j)][:])
			copy(b[1+fcp.HashSize:], nodes[2*(i+j)+1][:])
		}
		var sums [sha256lanes.Lanes][fcp.HashSize]byte
		g.hasher.Sum(sums[:m])
		for j := range m { // what is overwritten was read
			g.nodes[1+i+j] = sums[j]
		}
		i += m
	}
	return g.nodes[1 : 1+n]
}

// root returns the tree hash; the zero hash for an empty tree never leaves the
// package, because a feed without events has no head.
func (t *tree) root() fcp.Hash {
	if len(t.roots) == 0 {
		return fcp.Hash{}
	}
	h := t.roots[len(t.roots)-1]
	for i := len(t.roots) - 2; i >= 0; i-- {
		h = fcp.NodeHash(t.roots[i], h)
	}
	return h
}

func (t *tree) clone() tree { return tree{size: t.size, roots: append([]fcp.Hash(nil), t.roots...)} }

// copyFrom makes t equal to o, reusing t's memory.
func (t *tree) copyFrom(o *tree) {
	t.size = o.size
	t.roots = append(t.roots[:0], o.roots...)
}
