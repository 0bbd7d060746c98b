package coding

import (
	"context"
	"unsafe"

	"fcp/coding/internal/gf256"
)

// few rebuilds lost source symbols without eliminating anew for the symbols at
// hand. A repair symbol is a sum of products of all source symbols; its factors
// come from the plan run backwards (the transposed program), for 64 repair
// symbols at once and at a cost that does not depend on the symbol size. That
// leaves an m x m system for m lost symbols. Its right-hand side, the syndromes,
// is what the repair symbols would be with the lost symbols zero, added to what
// they are. There are two ways to it: a dense product over the received source
// symbols (direct), better for few, or the plan replayed forward.
type few struct {
	ws      []byte   // the transposed run's workspace, 64 octets a slot
	factors [][]byte // per 64 repair symbols: 64 factors for every row of the plan
	ptrs    []unsafe.Pointer
	order   []unsafe.Pointer
	matrix  []byte
	weights [][]byte // per 64 lost symbols: 64 weights for every repair symbol
	tiles   []tile
	cut     []int
	state   []fewState
	stream  []uint32 // the sums that give the repair symbols used
}

// fewState belongs to one worker.
type fewState struct {
	stripe  int
	sources []unsafe.Pointer
	stage   []byte
	acc     []byte // syndromes, then the lost symbols, of one tile
	rows    []unsafe.Pointer
	run     replayer
}

const (
	fewWidth = 128 // octets of a tile
	fewExtra = 4   // repair symbols used beyond the number lost, if there are
)

// way is how lost symbols are rebuilt.
type way int

const (
	byElimination way = iota
	byProducts
	byReplay
)

// cheapest picks the way for the symbols lost. The weights are rough
// nanoseconds, measured on one core with AVX-512.
func (d *Decoder) cheapest() way {
	k, m, units := int(d.blk.K), len(d.lost), (d.shape.SymbolSize+63)/64
	if d.opt.Plans == nil || m > fewMost {
		return byElimination
	}
	step, solve := 11, 350 // replay per symbol and unit, elimination per symbol
	if d.blk.L > 14000 {
		step, solve = 55, 750
	} else if d.blk.L > 6000 {
		step, solve = 22, 400
	}
	system := (m+63)/64*k*50 + m*m*(6+m/32)
	eliminate := k*units*step + k*solve + m*units*6
	products := system + (k+m)*m*units*2/5
	replay := system + k*units*step + m*m*units*2/5 + m*units*6
	switch min(eliminate, products, replay) {
	case products:
		return byProducts
	case replay:
		return byReplay
	}
	return byElimination
}

// decodeFew rebuilds the lost symbols from the first repair symbols. It reports
// false when those do not determine them.
func (d *Decoder) decodeFew(ctx context.Context, by way) (bool, error) {
	plan, err := d.opt.Plans.Get(ctx, int(d.blk.K))
	if err != nil {
		return false, err
	}
	f := &d.few
	m := len(d.lost)
	n := min(len(d.esis), m+fewExtra)
	f.findFactors(plan, d, d.esis[:n])
	if !f.invert(d.lost, n) {
		return false, nil
	}
	list, cut, work := d.tiles, d.cut, d.fewReplay
	if by == byProducts {
		if f.tiles == nil {
			f.tiles, f.cut = tiles(d.stripes, fewWidth, len(d.cut)-1)
		}
		list, cut, work = f.tiles, f.cut, d.fewProducts
		if workersFor(len(d.block)/64*m, 2) < 2 { // too little to share
			cut = []int{0, len(list)}
		}
	}
	workers := len(cut) - 1
	each := plan.prog.slots * d.tiles[0].width
	if by == byReplay && len(d.ws) < each*workers {
		d.ws = aligned(each * workers)
	}
	f.state = resize(f.state, workers)
	for i := range f.state {
		f.state[i].reset(int(d.blk.K), m, n)
		f.state[i].run.reset(plan.prog, int(plan.blk.KPrime))
	}
	return true, parallel(ctx, cut, func(w, i int) {
		st, t := &f.state[w], &list[i]
		work(st, t, m, n, w*each)
		d.solveFew(st, t, m, n)
	})
}

// findFactors fills factors for the repair symbols esis.
func (f *few) findFactors(plan *Plan, d *Decoder, esis []uint32) {
	p := plan.prog
	rows := int(plan.blk.KPrime)
	f.ws = resize(f.ws, p.slots*64)
	batches := (len(esis) + 63) / 64
	for len(f.factors) < batches {
		f.factors = append(f.factors, nil)
	}
	f.ptrs = resize(f.ptrs, rows)
	f.order = resize(f.order, max(len(p.loadForward), len(p.loadBack))+gf256.Ahead)
	f.stream = f.stream[:0]
	ws := unsafe.Pointer(unsafe.SliceData(f.ws))
	for b := range batches {
		out := resize(f.factors[b], rows*64)
		f.factors[b] = out
		clear(out)
		clear(f.ws)
		for j, esi := range esis[b*64 : min(len(esis), b*64+64)] {
			at := len(f.stream)
			f.stream = appendRecord(f.stream, &d.blk, d.blk.ISI(esi))
			for _, s := range f.stream[at+1:] {
				f.ws[int(s)*64+j] ^= 1
			}
		}
		for i := range rows {
			f.ptrs[i] = unsafe.Pointer(&out[i*64])
		}
		plan.runBack(ws, f.ptrs, f.order)
	}
}

// runBack is replayer.run transposed, at width 64: it takes the weights of the
// intermediate symbols in the workspace back to weights of the rows' symbols.
func (p *Plan) runBack(ws unsafe.Pointer, rows, scratch []unsafe.Pointer) {
	g, f := p.prog, &gf256.Best
	order(scratch, g.loadBack, rows)
	f.Scatter(ws, g.back, p.backAt, scratch[:len(g.loadBack)])
	mulBack(ws, g.mul)
	f.Scatter(ws, g.middle, p.middleAt, nil)
	if len(g.horner) > 0 {
		f.HornerBack(ws, g.horner, g.last)
	}
	order(scratch, g.loadForward, rows)
	f.Scatter(ws, g.forward, p.forwardAt, scratch[:len(g.loadForward)])
}

// mulBack is MulSum transposed. No record's slot is a term of another, so the
// order is free.
func mulBack(ws unsafe.Pointer, stream []uint32) {
	slot := func(s uint32) []byte {
		return unsafe.Slice((*byte)(unsafe.Add(ws, int(s)*64)), 64)
	}
	for len(stream) > 0 {
		v, n := slot(stream[0]), int(stream[1])
		for _, t := range stream[2 : 2+n] {
			gf256.MulAdd(slot(t&0xffffff), v, byte(t>>24))
		}
		clear(v)
		stream = stream[2+n:]
	}
}

// invert finds the weights of the n syndromes that give the lost symbols.
func (f *few) invert(lost []uint32, n int) bool {
	m := len(lost)
	wide := (m + n + 31) &^ 31
	f.matrix = resize(f.matrix, n*wide)
	clear(f.matrix)
	for j := range n {
		row := f.matrix[j*wide:]
		for i, x := range lost {
			row[i] = f.factors[j/64][int(x)*64+j%64]
		}
		row[m+j] = 1
	}
	if gaussJordan(f.matrix, n, m, wide) < m {
		return false
	}
	groups := (m + 63) / 64
	for len(f.weights) < groups {
		f.weights = append(f.weights, nil)
	}
	for g := range groups {
		w := resize(f.weights[g], n*64)
		f.weights[g] = w
		clear(w)
		for i := g * 64; i < min(m, g*64+64); i++ {
			for j := range n {
				w[j*64+i%64] = f.matrix[i*wide+m+j]
			}
		}
	}
	return true
}

func (s *fewState) reset(k, m, n int) {
	s.stripe = -1
	s.sources = resize(s.sources, k+gf256.Ahead)
	s.acc = resize(s.acc, n*gf256.MaxWidth+m*fewWidth)
	s.rows = resize(s.rows, n+gf256.Ahead)
}

// fewSource returns the stripe's part of source symbol i, zero when it is lost
// or padding.
func (d *Decoder) fewSource(s *stripe, i int) unsafe.Pointer {
	if i >= int(d.blk.K) || !d.has(i) {
		return unsafe.Pointer(&zeros)
	}
	return unsafe.Pointer(&d.block[s.base+i*s.size])
}

// place points at the syndromes of a tile of the given width, and at what a
// kernel may look at beyond them.
func (st *fewState) place(n, width int) {
	for j := range st.rows {
		st.rows[j] = unsafe.Pointer(&zeros)
		if j < n {
			st.rows[j] = unsafe.Pointer(&st.acc[j*width])
		}
	}
}

// fewProducts computes the syndromes of a tile by products.
func (d *Decoder) fewProducts(st *fewState, t *tile, _, n, _ int) {
	s, f, w := &d.stripes[t.stripe], &d.few, t.width
	if st.stripe != t.stripe {
		st.enter(d, t.stripe)
	}
	for j := range n {
		copy(st.acc[j*w:(j+1)*w], d.stored(j)[s.at+t.col:][:t.size])
	}
	st.place(n, w)
	for b := 0; b*64 < n; b++ {
		gf256.Best.Products(st.rows[b*64], min(64, n-b*64), w,
			st.sources, int(d.blk.K), unsafe.Pointer(&f.factors[b][0]), t.col)
	}
}

// enter points at the source symbols' parts of a stripe.
func (st *fewState) enter(d *Decoder, index int) {
	s := &d.stripes[index]
	st.stripe = index
	for i := range st.sources {
		st.sources[i] = d.fewSource(s, i)
	}
	if s.size >= gf256.MinWidth {
		return
	}
	st.stage = resize(st.stage, int(d.blk.K)*gf256.MinWidth)
	for i := range int(d.blk.K) {
		to := st.stage[i*gf256.MinWidth:]
		copy(to[:gf256.MinWidth], unsafe.Slice((*byte)(st.sources[i]), s.size))
		st.sources[i] = unsafe.Pointer(&to[0])
	}
}

// fewReplay computes the syndromes of a tile by replaying the plan.
func (d *Decoder) fewReplay(st *fewState, t *tile, _, n, at int) {
	s, w := &d.stripes[t.stripe], t.width
	if st.run.stripe != t.stripe {
		for i := range st.run.rows {
			st.run.rows[i] = d.fewSource(s, i)
		}
		st.run.enter(t.stripe, *s)
	}
	ws := unsafe.Pointer(&d.ws[at])
	st.run.run(ws, t)
	st.place(n, w)
	gf256.Best.SumOut(ws, w, d.few.stream, st.rows, 0)
	for j := range n {
		XORAccumulate(st.acc[j*w:(j+1)*w], d.stored(j)[s.at+t.col:][:t.size])
	}
}

// solveFew turns the syndromes of a tile into the lost symbols' parts.
func (d *Decoder) solveFew(st *fewState, t *tile, m, n int) {
	s, f := &d.stripes[t.stripe], &d.few
	w := min(t.width, fewWidth)
	found := st.acc[n*gf256.MaxWidth:][:m*w]
	for col := 0; col < t.width; col += w {
		clear(found)
		for g := 0; g*64 < m; g++ {
			gf256.Best.Products(unsafe.Pointer(&found[g*64*w]), min(64, m-g*64), w,
				st.rows, n, unsafe.Pointer(&f.weights[g][0]), col)
		}
		end := min(w, t.size-col)
		for i, x := range d.lost {
			to := d.block[s.base+int(x)*s.size+t.col+col:]
			copy(to[t.skip:end], found[i*w+t.skip:])
		}
	}
}
