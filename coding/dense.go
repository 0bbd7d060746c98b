package coding

import (
	"context"
	"encoding/binary"
	"math/bits"

	"fcp/coding/internal/gf256"
)

// solver turns received rows into a program. Its memory is reused from run to
// run; nothing in it outlives a run but capacity.
//
// After peeling, every pivot symbol k equals E_k plus the sum of the inactive
// symbols in the bit set expr[k], where E_k is a sum of received symbols alone.
// So every row left over, binary or HDPC, becomes an equation in the inactive
// symbols only. The binary ones are solved first (Gauss-Jordan on bits); what
// they leave free, at most a few columns, the HDPC rows settle in GF(256).
type solver struct {
	peeler

	words int      // 64 bit words per bit set of inactive symbols
	expr  []uint64 // per pivot
	some  []bool   // per pivot: E_k is not known to be zero

	cand  []uint32 // rows that are no pivots
	redun []uint32 // those found to depend on others
	used  []uint32 // dense pivot rows, in the order they joined
	lead  []int32  // per inactive symbol: its dense pivot, or -1
	piv   []uint64 // dense pivots: bits over inactive symbols, then over used
	width int      // words of one dense pivot
	free  []uint32 // inactive symbols without a binary pivot

	pairs   []uint8 // see hdpcPairs
	pairsOf uint32  // the K' they are for

	hdpc    []byte // H rows of stride octets over the inactive symbols
	stride  int
	masks   []uint64   // per free symbol: the binary pivots that depend on it
	sums    []octets64 // per word and group: the recurrence's values added up
	carry   []octets64 // per word: its last value
	line    []octets64 // per word: one HDPC row
	fill    []byte     // per free symbol: weights of the H HDPC rows
	tail    []byte     // per HDPC row: weight of the recurrence's last value
	weights []byte

	prog program
	sum  sum
	made []uint32 // per group and combination of syndromes: its slot, or 0
}

// solve runs the elimination over the rows set in matrix. It returns how many
// more symbols are needed at least: zero means that prog is complete.
func (s *solver) solve(ctx context.Context) (int, error) {
	missing, err := s.decide(ctx)
	if missing == 0 && err == nil {
		s.emit()
	}
	return missing, err
}

// decide is solve without writing the program.
func (s *solver) decide(ctx context.Context) (int, error) {
	s.build()
	if err := s.peel(ctx, inactiveLimit(&s.blk)); err != nil {
		return 1, err
	}
	s.express()
	if err := s.eliminate(ctx); err != nil {
		return 1, err
	}
	if len(s.free) > 0 {
		if len(s.free) > int(s.blk.H) {
			return len(s.free) - int(s.blk.H), nil
		}
		s.weighHDPC()
		if missing := s.settle(); missing > 0 {
			return missing, nil
		}
	}
	return 0, nil
}

// express computes the bit set of every pivot over the inactive symbols, and
// writes the sums E_k on the way: the forward part of the program.
func (s *solver) express() {
	w := (len(s.out) + 63) / 64
	s.words = w
	s.expr = resize(s.expr, len(s.pivC)*w)
	s.some = resize(s.some, len(s.pivC))
	clear(s.expr)
	p := &s.prog
	p.reset(int(s.blk.L), s.rows())
	stream := p.forward
	for k, r := range s.pivR {
		acc := s.expr[k*w : k*w+w]
		own, head := s.pivC[k], len(stream)
		stream = append(stream, own, 0)
		for _, c := range s.row(r) {
			at := s.pos[c]
			switch {
			case at&posInactive != 0:
				at &^= posInactive
				acc[at>>6] ^= 1 << (at & 63)
			case c != own:
				if s.some[at] {
					stream = append(stream, c)
				}
				s.addExpr(acc, at)
			}
		}
		n, load := uint32(len(stream)-head-2), int(r) < s.data
		s.some[k] = n > 0 || load
		switch {
		case load:
			p.loadForward = append(p.loadForward, r)
			stream[head+1] = n | 1<<31
		case n > 0:
			stream[head+1] = n
		default:
			stream = stream[:head]
		}
	}
	p.forward = stream
}

// addExpr adds the bit set of pivot k to acc. Blocks of up to about 1,500
// symbols have sets of one or two words.
func (s *solver) addExpr(acc []uint64, k uint32) {
	switch len(acc) {
	case 1:
		acc[0] ^= s.expr[k]
	case 2:
		e := s.expr[2*k : 2*k+2]
		acc[0] ^= e[0]
		acc[1] ^= e[1]
	default:
		xorWords(acc, s.expr[int(k)*s.words:])
	}
}

// xorWords adds the first len(dst) words of src to dst.
func xorWords(dst, src []uint64) {
	src = src[:len(dst)]
	for len(dst) >= 4 {
		dst[0] ^= src[0]
		dst[1] ^= src[1]
		dst[2] ^= src[2]
		dst[3] ^= src[3]
		dst, src = dst[4:], src[4:]
	}
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// eliminate brings the binary rows that are no pivots to reduced echelon form
// over the inactive symbols, and records which of the rows each result sums.
func (s *solver) eliminate(ctx context.Context) error {
	n := len(s.out)
	s.pickDense()
	most := min(n, len(s.cand))
	s.width = s.words + (most+63)/64
	s.piv = resize(s.piv, (most+1)*s.width)
	s.lead = resize(s.lead, n)
	for i := range s.lead {
		s.lead[i] = -1
	}
	s.used, s.redun = s.used[:0], s.redun[:0]
	for i, r := range s.cand {
		if i&63 == 63 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		if len(s.used) == n {
			s.redun = append(s.redun, s.cand[i:]...)
			break
		}
		s.insert(r)
	}
	if err := s.reduce(ctx); err != nil {
		return err
	}
	s.free = s.free[:0]
	for c, q := range s.lead {
		if q < 0 {
			s.free = append(s.free, uint32(c))
		}
	}
	return nil
}

// pickDense lists the rows that are no pivots.
func (s *solver) pickDense() {
	s.cand = s.cand[:0]
	const taken = ^uint32(0)
	for _, r := range s.pivR {
		s.deg[r] = taken
	}
	for r, d := range s.deg {
		if d != taken {
			s.cand = append(s.cand, uint32(r))
		}
	}
}

// insert reduces row r by the dense pivots so far and adds it to them unless
// nothing is left of it.
func (s *solver) insert(r uint32) {
	w, q := s.words, len(s.used)
	acc := s.piv[q*s.width : (q+1)*s.width]
	clear(acc)
	for _, c := range s.row(r) {
		if p := s.pos[c]; p&posInactive != 0 {
			p &^= posInactive
			acc[p>>6] ^= 1 << (p & 63)
		} else {
			xorWords(acc[:w], s.expr[int(p)*w:])
		}
	}
	lead := -1
	for i := range w {
		skip := uint64(0)
		for {
			word := acc[i] &^ skip
			if word == 0 {
				break
			}
			b := bits.TrailingZeros64(word)
			c := i<<6 | b
			if t := s.lead[c]; t >= 0 {
				// The pivot row is zero before its own column.
				xorWords(acc[i:], s.piv[int(t)*s.width+i:])
				continue
			}
			if lead < 0 {
				lead = c
			}
			skip |= 1 << b
		}
	}
	if lead < 0 {
		s.redun = append(s.redun, r)
		return
	}
	s.lead[lead] = int32(q)
	acc[w+q>>6] |= 1 << (q & 63)
	s.used = append(s.used, r)
}

// reduce clears every pivot column from the other dense pivots.
func (s *solver) reduce(ctx context.Context) error {
	w := s.words
	for c := len(s.lead) - 1; c >= 0; c-- {
		if c&63 == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		q := s.lead[c]
		if q < 0 {
			continue
		}
		acc := s.piv[int(q)*s.width : int(q+1)*s.width]
		for i := c >> 6; i < w; i++ {
			word := acc[i]
			for word != 0 {
				b := bits.TrailingZeros64(word)
				word &= word - 1
				d := i<<6 | b
				if t := s.lead[d]; t >= 0 && d != c {
					xorWords(acc[i:], s.piv[int(t)*s.width+i:])
				}
			}
		}
	}
	return nil
}

// hdpcGroups is the number of pairs of HDPC rows: column j of MT adds the
// recurrence's value to a pair of rows, so the values are summed per pair first.
func hdpcGroups(h uint32) uint32 { return h * (h - 1) / 2 }

// hdpcPairs numbers, for every column of MT but the last, the pair of rows it is
// in. They depend on K' alone and are kept for the next run.
func (s *solver) hdpcPairs() []uint8 {
	if s.pairsOf == s.blk.KPrime {
		return s.pairs
	}
	s.pairs = resize(s.pairs, int(s.blk.KPrime+s.blk.S-1))
	for j := range s.pairs {
		a, b := s.blk.HDPCRows(uint32(j))
		if a < b {
			a, b = b, a
		}
		s.pairs[j] = uint8(a*(a-1)/2 + b) // below 16*15/2
	}
	s.pairsOf = s.blk.KPrime
	return s.pairs
}

// octets64 holds 64 octets as bit planes: bit c of plane p is bit p of octet c.
type octets64 [8]uint64

// double multiplies all octets by alpha: the planes move up, and the last one
// becomes the first and joins three others (x^8 = x^4+x^3+x^2+1).
func (t *octets64) double() {
	top := t[7]
	t[7], t[6], t[5] = t[6], t[5], t[4]
	t[4], t[3], t[2] = t[3]^top, t[2]^top, t[1]^top
	t[1], t[0] = t[0], top
}

func (t *octets64) add(o *octets64) {
	for p := range t {
		t[p] ^= o[p]
	}
}

// weighHDPC computes the coefficients of the HDPC rows over the inactive
// symbols, with the recurrence t = alpha*t + C (see doc.go), for 64 inactive
// symbols at a time.
func (s *solver) weighHDPC() {
	b := &s.blk
	groups, pairs := int(hdpcGroups(b.H)), s.hdpcPairs()
	s.sums = resize(s.sums, s.words*groups)
	s.carry = resize(s.carry, s.words)
	clear(s.sums)
	for i := range s.words {
		s.carry[i] = s.weighWord(i, s.sums[i*groups:(i+1)*groups], pairs)
	}
	s.tail = resize(s.tail, int(b.H))
	clear(s.tail)
	for n := b.W; n < b.KPrime+b.S-1; n++ {
		i0, i1 := b.HDPCRows(n)
		s.tail[i0] ^= gf256.Exp(n - b.W + 1)
		s.tail[i1] ^= gf256.Exp(n - b.W + 1)
	}
	for i := range s.tail {
		s.tail[i] ^= gf256.Exp(uint32(i) + b.U)
	}
	s.gatherHDPC()
}

// weighWord runs the recurrence for the inactive symbols of word i. It adds the
// values to the groups and returns the last one.
func (s *solver) weighWord(i int, sums []octets64, pairs []uint8) octets64 {
	var t octets64
	w := s.words
	for n, p := range s.pos[:len(pairs)+1] {
		t.double()
		if p&posInactive == 0 {
			t[0] ^= s.expr[int(p)*w+i]
		} else if p &^= posInactive; int(p>>6) == i {
			t[0] ^= 1 << (p & 63)
		}
		if n < len(pairs) {
			sums[pairs[n]].add(&t)
		}
	}
	return t
}

// gatherHDPC adds up the group sums to one row of coefficients per HDPC row, as
// octets in hdpc, and forms the rows of the system over the free symbols in
// fill: the binary pivots are replaced by what their dense rows say.
func (s *solver) gatherHDPC() {
	h, f := int(s.blk.H), len(s.free)
	groups := int(hdpcGroups(s.blk.H))
	s.stride = s.words * 64
	s.hdpc = resize(s.hdpc, h*s.stride)
	s.fill = resize(s.fill, h*(f+h))
	clear(s.fill)
	s.maskFree()
	s.line = resize(s.line, s.words)
	for i := range h {
		copy(s.line, s.carry) // column K'+S-1 of MT is alpha^i in row i
		for w := range s.line {
			s.carry[w].double()
			for j := range h {
				if i != j {
					a, c := max(i, j), min(i, j)
					s.line[w].add(&s.sums[w*groups+a*(a-1)/2+c])
				}
			}
		}
		own := int(s.blk.U) + i // the identity column of HDPC row i
		s.line[own>>6][0] ^= 1 << (own & 63)
		s.octets(i)
		s.fillRow(i)
	}
}

// octets writes the coefficients of HDPC row i from line to hdpc.
func (s *solver) octets(i int) {
	out := s.hdpc[i*s.stride : (i+1)*s.stride]
	for w := range s.line {
		t := &s.line[w]
		for c := 0; c < 64; c += 8 {
			var x uint64 // octet p holds plane p's bits of eight columns
			for p := range 8 {
				x |= t[p] >> c & 0xff << (8 * p)
			}
			binary.LittleEndian.PutUint64(out[w*64+c:], transpose8(x))
		}
	}
}

// transpose8 transposes an 8x8 bit matrix, row r in octet r.
func transpose8(x uint64) uint64 {
	t := (x ^ x>>7) & 0x00AA00AA00AA00AA
	x ^= t ^ t<<7
	t = (x ^ x>>14) & 0x0000CCCC0000CCCC
	x ^= t ^ t<<14
	t = (x ^ x>>28) & 0x00000000F0F0F0F0
	return x ^ t ^ t<<28
}

// maskFree finds, for every free symbol, the binary pivots that depend on it.
func (s *solver) maskFree() {
	w := s.words
	s.masks = resize(s.masks, len(s.free)*w)
	clear(s.masks)
	for c, q := range s.lead {
		if q < 0 {
			continue
		}
		dense := s.piv[int(q)*s.width:]
		for j, d := range s.free {
			s.masks[j*w+c>>6] |= dense[d>>6] >> (d & 63) & 1 << (c & 63)
		}
	}
}

// fillRow writes row i of the system over the free symbols.
func (s *solver) fillRow(i int) {
	wide := len(s.free) + int(s.blk.H)
	row := s.fill[i*wide : (i+1)*wide]
	row[len(s.free)+i] = 1
	for j, d := range s.free {
		var odd octets64
		for w, m := range s.masks[j*s.words : (j+1)*s.words] {
			for p, v := range s.line[w] {
				odd[p] ^= m & v
			}
		}
		x := s.hdpc[i*s.stride+int(d)]
		for p, v := range odd {
			x ^= byte(bits.OnesCount64(v)&1) << p
		}
		row[j] = x
	}
}

// settle inverts the HDPC rows over the free symbols. It returns how much rank
// is missing, and leaves in fill, per free symbol, the weights of the HDPC rows
// that give it.
func (s *solver) settle() int {
	h, f := int(s.blk.H), len(s.free)
	return f - gaussJordan(s.fill, h, f, f+h)
}

// gaussJordan brings the first cols columns of the rows x wide matrix m to
// reduced echelon form by row operations and returns their rank. With full rank
// row j holds the unit vector of column j for all j < cols.
func gaussJordan(m []byte, rows, cols, wide int) int {
	rank := 0
	for c := 0; c < cols && rank < rows; c++ {
		at := rank
		for at < rows && m[at*wide+c] == 0 {
			at++
		}
		if at == rows {
			continue
		}
		p := m[rank*wide : (rank+1)*wide]
		if at != rank {
			o := m[at*wide : (at+1)*wide]
			for i := range p {
				p[i], o[i] = o[i], p[i]
			}
		}
		gf256.Scale(p, gf256.Inv(p[c]))
		for r := range rows {
			if x := m[r*wide+c]; r != rank && x != 0 {
				gf256.MulAdd(m[r*wide:(r+1)*wide], p, x)
			}
		}
		rank++
	}
	return rank
}
