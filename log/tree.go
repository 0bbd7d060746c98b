package log

import (
	"fcp"
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
