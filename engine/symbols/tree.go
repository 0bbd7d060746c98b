package symbols

import (
	"crypto/sha256"
	"math/bits"

	"fcp"
)

// tree is an RFC 6962 tree over commitments. Node i of level l covers the leaves
// from i<<l to (i+1)<<l, as far as there are any.
type tree [][]fcp.Hash

func newTree(commitments []byte) tree {
	n := len(commitments) / fcp.CommitmentSize
	level := make([]fcp.Hash, n)
	for i := range level {
		level[i] = leafHash(commitments[i*fcp.CommitmentSize:])
	}
	t := tree{level}
	for len(level) > 1 {
		next := make([]fcp.Hash, 0, (len(level)+1)/2)
		for i := 0; i+1 < len(level); i += 2 {
			next = append(next, fcp.NodeHash(level[i], level[i+1]))
		}
		if len(level)%2 == 1 {
			next = append(next, level[len(level)-1])
		}
		level = next
		t = append(t, level)
	}
	return t
}

func leafHash(commitment []byte) fcp.Hash {
	var leaf [1 + fcp.CommitmentSize]byte
	copy(leaf[1:], commitment[:fcp.CommitmentSize])
	return sha256.Sum256(leaf[:])
}

func (t tree) root() fcp.Hash { return t[len(t)-1][0] }

// node returns the hash of the subtree over the leaves lo to hi-1, which must be
// one that RFC 6962 makes.
func (t tree) node(lo, hi int) fcp.Hash {
	l := bits.Len(uint(hi - lo - 1))
	return t[l][lo>>l]
}

// split is the number of leaves of the left subtree over n leaves, n > 1.
func split(n int) int { return 1 << (bits.Len(uint(n-1)) - 1) }

// proof returns the hashes of the largest subtrees outside of the leaves a to b-1,
// from left to right.
func (t tree) proof(a, b int) []fcp.Hash {
	var out []fcp.Hash
	var walk func(lo, hi int)
	walk = func(lo, hi int) {
		switch {
		case hi <= a || lo >= b:
			out = append(out, t.node(lo, hi))
		case a <= lo && hi <= b:
		default:
			m := lo + split(hi-lo)
			walk(lo, m)
			walk(m, hi)
		}
	}
	walk(0, len(t[0]))
	return out
}

// proofLen is the number of hashes that prove the leaves a to b-1 of n.
func proofLen(a, b, n int) int {
	var walk func(lo, hi int) int
	walk = func(lo, hi int) int {
		switch {
		case hi <= a || lo >= b:
			return 1
		case a <= lo && hi <= b:
			return 0
		}
		m := lo + split(hi-lo)
		return walk(lo, m) + walk(m, hi)
	}
	return walk(0, n)
}

// proves reports whether commitments to the leaves from a on belong to the tree of
// n leaves with this root.
func proves(root fcp.Hash, commitments []byte, a, n int, proof []byte) bool {
	b := a + len(commitments)/fcp.CommitmentSize
	if a >= b || b > n || len(proof) != fcp.HashSize*proofLen(a, b, n) {
		return false
	}
	var walk func(lo, hi int) fcp.Hash
	walk = func(lo, hi int) fcp.Hash {
		if hi <= a || lo >= b {
			h := fcp.Hash(proof[:fcp.HashSize])
			proof = proof[fcp.HashSize:]
			return h
		}
		if hi-lo == 1 {
			return leafHash(commitments[(lo-a)*fcp.CommitmentSize:])
		}
		m := lo + split(hi-lo)
		left := walk(lo, m)
		return fcp.NodeHash(left, walk(m, hi))
	}
	return walk(0, n) == root
}
