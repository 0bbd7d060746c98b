// Package rfc6330 holds the fixed tables and the generators of RFC 6330: the
// parameters of a source block (sections 5.1.2 and 5.6), the pseudo-random
// generator (5.3.5.1), the degree generator (5.3.5.2), the tuple generator
// (5.3.5.4), and the positions a tuple, an LDPC row and an HDPC column touch
// (5.3.3.3, 5.3.5.3). It computes indexes only; symbols never pass through it.
//
// Invariants: every function is pure, and all arithmetic is on 32 bit
// unsigned numbers as the RFC states.
package rfc6330

import "sort"

//go:generate go run ./gentables -in ../../../../shared/rfc6330/tables.json -out tables.go

// MaxESI is the largest encoding symbol id that fits the 24 bit field of the
// FEC payload id (section 3.2).
const MaxESI = 1<<24 - 1

type indexRow struct{ kPrime, j, s, h, w uint32 }

// Block holds the parameters that the number of source symbols of a block
// fixes (sections 5.1.2, 5.3.3.3 and 5.6). It is immutable.
type Block struct {
	K      uint32 // source symbols, 1..56403
	KPrime uint32 // K' >= K, the extended source block
	J      uint32 // systematic index J(K')
	S      uint32 // LDPC symbols
	H      uint32 // HDPC symbols
	W      uint32 // LT symbols
	L      uint32 // intermediate symbols, K'+S+H
	P      uint32 // permanently inactive symbols, L-W
	P1     uint32 // the smallest prime >= P
	U      uint32 // permanently inactive symbols that are not HDPC symbols, P-H
	B      uint32 // LT symbols that are not LDPC symbols, W-S

	tupleA, tupleB uint32 // the A and B of section 5.3.5.4
}

// ForK returns the parameters of a block of k source symbols. It reports false
// when k is outside 1..56403.
func ForK(k int) (Block, bool) {
	if k < 1 || k > MaxKPrime {
		return Block{}, false
	}
	i := sort.Search(len(systematic), func(i int) bool { return int(systematic[i].kPrime) >= k })
	r := &systematic[i]
	b := Block{K: uint32(k), KPrime: r.kPrime, J: r.j, S: r.s, H: r.h, W: r.w}
	b.L = b.KPrime + b.S + b.H
	b.P = b.L - b.W
	b.P1 = nextPrime(b.P)
	b.U = b.P - b.H
	b.B = b.W - b.S
	b.tupleA = 53591 + b.J*997
	if b.tupleA%2 == 0 {
		b.tupleA++
	}
	b.tupleB = 10267 * (b.J + 1)
	return b, true
}

// ISI returns the internal symbol id of the encoding symbol id esi: repair
// symbols are moved behind the K'-K padding symbols (section 5.3.1).
func (b *Block) ISI(esi uint32) uint32 {
	if esi < b.K {
		return esi
	}
	return esi + b.KPrime - b.K
}

// nextPrime returns the smallest prime >= n. P itself counts when it is prime.
func nextPrime(n uint32) uint32 {
	for ; ; n++ {
		if isPrime(n) {
			return n
		}
	}
}

func isPrime(n uint32) bool {
	if n < 2 {
		return false
	}
	for d := uint32(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

// LargestKPrime returns the largest K' of Table 2 that is at most n, or 0.
func LargestKPrime(n uint64) uint32 {
	i := sort.Search(len(systematic), func(i int) bool { return uint64(systematic[i].kPrime) > n })
	if i == 0 {
		return 0
	}
	return systematic[i-1].kPrime
}
