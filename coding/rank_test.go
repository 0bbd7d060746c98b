package coding

import (
	"context"
	"math/rand/v2"
	"testing"

	"fcp/coding/internal/gf256"
	"fcp/coding/internal/rfc6330"
)

// literalMatrix is the constraint matrix of section 5.3.3.4.2 as the RFC writes
// it, with the HDPC rows formed as the product MT*GAMMA: no recurrence, no
// structure used. lt lists the internal symbol ids of the LT rows.
func literalMatrix(b *rfc6330.Block, lt []uint32) [][]byte {
	var rows [][]byte
	row := func() []byte {
		r := make([]byte, b.L)
		rows = append(rows, r)
		return r
	}
	ldpc := make([][]byte, b.S)
	for i := range ldpc {
		ldpc[i] = row()
		ldpc[i][b.B+uint32(i)] ^= 1
		ldpc[i][b.W+uint32(i)%b.P] ^= 1
		ldpc[i][b.W+uint32(i+1)%b.P] ^= 1
	}
	for i := range b.B {
		a, at := 1+i/b.S, i%b.S
		for range 3 {
			ldpc[at][i] ^= 1
			at = (at + a) % b.S
		}
	}
	n := b.KPrime + b.S
	for i := range b.H {
		r := row()
		r[n+i] = 1
		for j := range n {
			weight := byte(0) // MT[i][j]
			if j == n-1 {
				weight = gf256.Exp(i)
			} else {
				x := rfc6330.Rand(j+1, 6, b.H)
				y := (x + rfc6330.Rand(j+1, 7, b.H-1) + 1) % b.H
				if i == x || i == y {
					weight = 1
				}
			}
			for c := range j + 1 { // GAMMA[j][c] = alpha^(j-c)
				r[c] ^= gf256.Mul(weight, gf256.Exp(j-c))
			}
		}
	}
	for _, x := range lt {
		r := row()
		cols, _ := b.AppendRow(nil, x)
		for _, c := range cols {
			r[c] ^= 1
		}
	}
	return rows
}

// literalRank is plain Gaussian elimination.
func literalRank(rows [][]byte) int {
	rank := 0
	for c := range rows[0] {
		at := rank
		for at < len(rows) && rows[at][c] == 0 {
			at++
		}
		if at == len(rows) {
			continue
		}
		rows[rank], rows[at] = rows[at], rows[rank]
		gf256.Scale(rows[rank], gf256.Inv(rows[rank][c]))
		for r := rank + 1; r < len(rows); r++ {
			if x := rows[r][c]; x != 0 {
				gf256.MulAdd(rows[r], rows[rank], x)
			}
		}
		rank++
	}
	return rank
}

// TestDecidesLikePlainElimination: the elimination gives up exactly when the
// full matrix lacks rank, and never asks for more symbols than it lacks.
func TestDecidesLikePlainElimination(t *testing.T) {
	trials := map[int]int{1: 400, 5: 400, 10: 3000, 11: 400, 18: 400, 26: 200, 50: 60}
	singular := 0
	for k, n := range trials {
		rng := rand.New(rand.NewPCG(uint64(k), 9))
		s := new(solver)
		s.blk, _ = blockFor(k)
		for range n {
			have := k + rng.IntN(4) - 1
			s.lt = s.lt[:0]
			for range have {
				s.lt = append(s.lt, s.blk.ISI(rng.Uint32N(uint32(4*k)))) // with repetitions
			}
			s.data = len(s.lt)
			for i := s.blk.K; i < s.blk.KPrime; i++ {
				s.lt = append(s.lt, i)
			}
			missing, err := s.decide(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			lacks := int(s.blk.L) - literalRank(literalMatrix(&s.blk, s.lt))
			if missing > lacks || (missing == 0) != (lacks == 0) {
				t.Fatalf("K=%d, rows %v: asks for %d, lacks %d", k, s.lt, missing, lacks)
			}
			if lacks > 0 {
				singular++
			}
		}
	}
	if singular < 100 {
		t.Errorf("only %d singular sets tried", singular)
	}
}
