package coding

import (
	"math/bits"

	"fcp/coding/internal/gf256"
)

// emit writes the program of a solved system.
func (s *solver) emit() {
	b := &s.blk
	p := &s.prog
	p.zero = p.slots
	slot := func(n int) uint32 {
		at := p.slots
		p.slots += n
		return uint32(at)
	}
	zero := slot(1)
	settle := len(s.free) > 0
	groups := int(hdpcGroups(b.H))
	var group, rows uint32
	if settle {
		group = slot(groups + 1)
	}
	p.zeros = p.slots - p.zero
	if settle {
		p.last = slot(1)
		rows = slot(int(b.H))
	}
	syndrome := slot(len(s.used))

	s.emitForward(syndrome)
	if settle {
		s.emitHorner(zero, group)
		s.emitHDPC(group, rows)
	}
	s.emitBinary(syndrome)
	if settle {
		s.emitSettled(rows)
	}
	s.emitBack()
}

// emitForward adds the sums E of the dense rows to those express wrote.
func (s *solver) emitForward(syndrome uint32) {
	p := &s.prog
	s.sum.stream = p.forward
	for q, r := range s.used {
		s.emitPartial(syndrome+uint32(q), r)
	}
	p.forward = s.sum.stream
}

// emitPartial writes dst = the symbol of row r plus E of its pivot columns. It
// may write an empty record, which clears dst.
func (s *solver) emitPartial(dst, r uint32) {
	s.sum.begin(dst)
	for _, c := range s.active(r) {
		if k := s.pos[c]; k&posInactive == 0 && c != dst && s.some[k] {
			s.sum.add(c)
		}
	}
	load := int(r) < s.data
	if load {
		s.prog.loadForward = append(s.prog.loadForward, r)
	}
	s.sum.end(load)
}

// emitHorner writes the HDPC recurrence over the columns below W; beyond them
// every E is zero and the recurrence is a power of alpha, see tail.
func (s *solver) emitHorner(zero, group uint32) {
	b, pairs := &s.blk, s.hdpcPairs()
	for n := range b.W {
		src := zero
		if k := s.pos[n]; k&posInactive == 0 && s.some[k] {
			src = n
		}
		dst := group + hdpcGroups(b.H) // where nothing is read from
		if n != b.KPrime+b.S-1 {
			dst = group + uint32(pairs[n])
		}
		s.prog.horner = append(s.prog.horner, src, dst)
	}
}

// emitHDPC adds the groups up to the right-hand sides of the HDPC rows.
func (s *solver) emitHDPC(group, rows uint32) {
	s.sum.stream = s.prog.middle
	for i := range s.blk.H {
		s.sum.begin(rows + i)
		for j := range s.blk.H {
			if i != j {
				a, c := max(i, j), min(i, j)
				s.sum.add(group + a*(a-1)/2 + c)
			}
		}
		s.sum.end(false)
	}
	s.prog.middle = s.sum.stream
}

// emitBinary writes, for every inactive symbol with a binary pivot, the sum of
// the syndromes it takes. The sums are dense and share much, so the syndromes
// are cut into groups and each group's combinations are formed once (the method
// of four Russians).
func (s *solver) emitBinary(syndrome uint32) {
	r := len(s.used)
	g := groupSize(r)
	p := &s.prog
	s.sum.stream = p.middle
	s.made = resize(s.made, (r+g-1)/g<<g)
	made := s.made
	clear(made)
	for _, q := range s.lead {
		if q >= 0 {
			s.combine(int(q), g, syndrome, made)
		}
	}
	for c, q := range s.lead {
		if q < 0 {
			continue
		}
		s.sum.begin(s.out[c])
		for i := 0; i*g < r; i++ {
			if m := s.mask(int(q), i*g, g); m != 0 {
				s.sum.add(made[i<<g|int(m)])
			}
		}
		s.sum.end(false)
	}
	p.middle = s.sum.stream
}

// combine makes the combinations of syndromes that dense pivot q takes.
func (s *solver) combine(q, g int, syndrome uint32, made []uint32) {
	for i := 0; i*g < len(s.used); i++ {
		if m := s.mask(q, i*g, g); m != 0 {
			s.combination(i, g, m, syndrome, made)
		}
	}
}

func (s *solver) combination(i, g int, m uint64, syndrome uint32, made []uint32) uint32 {
	at := &made[i<<g|int(m)]
	if *at != 0 {
		return *at
	}
	low := syndrome + uint32(i*g+bits.TrailingZeros64(m))
	rest := m & (m - 1)
	if rest == 0 {
		*at = low
		return low
	}
	other := s.combination(i, g, rest, syndrome, made)
	dst := uint32(s.prog.slots)
	s.prog.slots++
	s.sum.begin(dst)
	s.sum.add(low)
	s.sum.add(other)
	s.sum.end(false)
	*at = dst
	return dst
}

// mask returns bits at..at+g-1 of the syndromes that dense pivot q takes.
func (s *solver) mask(q, at, g int) uint64 {
	row := s.piv[q*s.width+s.words : (q+1)*s.width]
	v := row[at>>6] >> (at & 63)
	if at&63+g > 64 && at>>6+1 < len(row) {
		v |= row[at>>6+1] << (64 - at&63)
	}
	return v & (1<<g - 1)
}

// groupSize picks the group size with the fewest symbol operations for r dense
// rows, short of making the tables larger than the cache likes.
func groupSize(r int) int {
	best, cost := 1, int(^uint(0)>>1)
	for g := 1; g <= 6; g++ {
		groups := (r + g - 1) / g
		sums := min(1<<g-g-1, r)
		if c := groups*sums*3 + r*groups; c < cost {
			best, cost = g, c
		}
	}
	return best
}

// emitSettled writes the free symbols as sums of products: HDPC right-hand
// sides, the recurrence's last value, and the binary solutions.
func (s *solver) emitSettled(rows uint32) {
	f := len(s.free)
	wide := f + int(s.blk.H)
	put := func(slot uint32, x byte) {
		if x != 0 {
			s.prog.mul = append(s.prog.mul, slot|uint32(x)<<24)
		}
	}
	s.weights = resize(s.weights, s.stride)
	for j, c := range s.free {
		head := len(s.prog.mul)
		s.prog.mul = append(s.prog.mul, s.out[c], 0)
		var carry byte
		clear(s.weights)
		for i, x := range s.fill[j*wide+f : (j+1)*wide] {
			put(rows+uint32(i), x)
			carry ^= gf256.Mul(x, s.tail[i])
			gf256.MulAdd(s.weights, s.hdpc[i*s.stride:(i+1)*s.stride], x)
		}
		put(s.prog.last, carry)
		for d, q := range s.lead {
			if q >= 0 {
				put(s.out[d], s.weights[d])
			}
		}
		s.prog.mul[head+1] = uint32(len(s.prog.mul) - head - 2)
	}
}

// emitBack completes the inactive symbols and then every pivot symbol, in the
// cheaper of two ways: its row with all other symbols known, or E plus the
// inactive symbols it depends on.
func (s *solver) emitBack() {
	p := &s.prog
	s.sum.stream = p.back
	for c, q := range s.lead {
		if q < 0 || len(s.free) == 0 {
			continue
		}
		dense := s.piv[int(q)*s.width:]
		s.sum.begin(s.out[c])
		s.sum.add(s.out[c])
		for _, d := range s.free {
			if dense[d>>6]>>(d&63)&1 != 0 {
				s.sum.add(s.out[d])
			}
		}
		if s.sum.terms() == 1 {
			s.sum.drop()
			continue
		}
		s.sum.end(false)
	}
	for k, r := range s.pivR {
		s.emitPivot(k, r)
	}
	p.back = s.sum.stream
}

func (s *solver) emitPivot(k int, r uint32) {
	own, row := s.pivC[k], s.row(r)
	expr := s.expr[k*s.words : (k+1)*s.words]
	load := int(r) < s.data
	plain, short := len(row)-1, 0
	if load {
		plain++
	}
	if s.some[k] {
		short++
	}
	for _, w := range expr {
		short += bits.OnesCount64(w)
	}
	s.sum.begin(own)
	if short <= plain {
		if s.some[k] {
			s.sum.add(own)
		}
		for i, w := range expr {
			for ; w != 0; w &= w - 1 {
				s.sum.add(s.out[i<<6|bits.TrailingZeros64(w)])
			}
		}
		load = false
	} else {
		for _, c := range row {
			if c != own {
				s.sum.add(c)
			}
		}
		if load {
			s.prog.loadBack = append(s.prog.loadBack, r)
		}
	}
	if s.sum.terms() == 1 && !load && s.sum.stream[len(s.sum.stream)-1] == own {
		s.sum.drop() // already in place
		return
	}
	s.sum.end(load)
}
