package rfc6330

// Rand is the generator of section 5.3.5.1: a number in 0..m-1. m must not be 0.
func Rand(y, i, m uint32) uint32 {
	return (v0[uint8(y+i)] ^ v1[uint8(y>>8+i)] ^ v2[uint8(y>>16+i)] ^ v3[uint8(y>>24+i)]) % m
}

// degreeStart[v>>12] is the smallest degree a value with these upper bits can
// have, so that Deg scans one or two thresholds instead of all.
var degreeStart = func() (t [256]uint8) {
	d := uint8(1)
	for i := range t {
		for degree[d] <= uint32(i)<<12 {
			d++
		}
		t[i] = d
	}
	return t
}()

// Deg is the degree generator of section 5.3.5.2 for 0 <= v < 2^20.
func (b *Block) Deg(v uint32) uint32 {
	d := uint32(degreeStart[uint8(v>>12)])
	for v >= degree[d] && d < uint32(len(degree)-1) {
		d++
	}
	return min(d, b.W-2)
}

// Tuple is the result of the tuple generator of section 5.3.5.4.
type Tuple struct{ D, A, B, D1, A1, B1 uint32 }

// Tuple returns Tuple[K', x] for the internal symbol id x.
func (b *Block) Tuple(x uint32) Tuple {
	y := b.tupleB + x*b.tupleA
	var t Tuple
	t.D = b.Deg(Rand(y, 0, 1<<20))
	t.A = 1 + Rand(y, 1, b.W-1)
	t.B = Rand(y, 2, b.W)
	t.D1 = 2
	if t.D < 4 {
		t.D1 += Rand(x, 3, 2)
	}
	t.A1 = 1 + Rand(x, 4, b.P1-1)
	t.B1 = Rand(x, 5, b.P1)
	return t
}

// MaxRow is the largest number of intermediate symbols one encoding symbol
// depends on: degree 30 and three permanently inactive symbols.
const MaxRow = 30 + 3

// AppendRow appends the intermediate symbols that the encoding symbol with
// internal symbol id x is the sum of (section 5.3.5.3): first the LT symbols,
// whose number it returns, then the permanently inactive ones. All are distinct.
func (b *Block) AppendRow(row []uint32, x uint32) ([]uint32, int) {
	t := b.Tuple(x)
	c := t.B
	for range t.D {
		row = append(row, c)
		if c += t.A; c >= b.W {
			c -= b.W
		}
	}
	c = t.B1
	for range t.D1 {
		for c >= b.P {
			c = b.stepP1(c, t.A1)
		}
		row = append(row, b.W+c)
		c = b.stepP1(c, t.A1)
	}
	return row, int(t.D)
}

func (b *Block) stepP1(c, a1 uint32) uint32 {
	if c += a1; c >= b.P1 {
		c -= b.P1
	}
	return c
}

// LDPCRows returns the three LDPC rows that the LT symbol i < B is in
// (section 5.3.3.3). LDPC row r also holds the LT symbol B+r and the
// permanently inactive symbols W + r mod P and W + (r+1) mod P.
func (b *Block) LDPCRows(i uint32) (r0, r1, r2 uint32) {
	a := (1 + i/b.S) % b.S
	r0 = i % b.S
	if r1 = r0 + a; r1 >= b.S {
		r1 -= b.S
	}
	if r2 = r1 + a; r2 >= b.S {
		r2 -= b.S
	}
	return r0, r1, r2
}

// HDPCRows returns the two rows of MT that column j <= K'+S-2 is in (section
// 5.3.3.3). Column K'+S-1 of MT holds alpha^i in every row i instead.
func (b *Block) HDPCRows(j uint32) (i0, i1 uint32) {
	i0 = Rand(j+1, 6, b.H)
	i1 = i0 + Rand(j+1, 7, b.H-1) + 1
	if i1 >= b.H {
		i1 -= b.H
	}
	return i0, i1
}
