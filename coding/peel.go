package coding

import (
	"context"
	"math/bits"
)

// Column states in peeler.pos: a pivot column holds its place in the pivot
// order, an inactive one its index among the inactive columns with the high bit.
const (
	posActive   = ^uint32(0)
	posInactive = 1 << 31
)

// peeler is the first phase of inactivation decoding (section 5.4.2.2). It
// works on the sparse rows alone: it finds an order of pivots in which every
// pivot row holds, besides its own column, only earlier pivot columns and
// inactive columns. No row is added to another here.
//
// When no row of degree one is left it inactivates one column of the largest
// connected component of the graph whose edges are the rows of degree two. A
// component never loses a part: as soon as one of its columns goes, every row
// of degree two in it becomes degree one and the whole component is peeled. So
// a union-find structure that only ever merges is exact.
type peeler struct {
	matrix

	deg  []uint32 // active columns of the row
	sum  []uint32 // their XOR: the last column of a row needs no search
	pos  []uint32 // state of each column, length L
	pivR []uint32 // pivot rows in order
	pivC []uint32 // their columns
	out  []uint32 // inactive columns in order of their index: the P first

	ripple []uint32
	head   int

	parent []int32    // union-find over columns; a root holds minus its size
	best   []uint32   // per root: the member column in the most rows
	comps  [32][]comp // roots by the binary logarithm of their size
	top    int
}

type comp struct{ root, size uint32 }

// peel runs the phase. It fails with errTooDense when more than limit columns
// would be inactive, and with the context's error.
func (p *peeler) peel(ctx context.Context, limit int) error {
	p.reset()
	for {
		p.drain()
		if len(p.pivC)+len(p.out) == int(p.blk.L) {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		p.inactivate()
		if len(p.out) > limit {
			return errTooDense
		}
	}
}

func (p *peeler) reset() {
	rows, l, w := p.rows(), int(p.blk.L), int(p.blk.W)
	p.deg = resize(p.deg, rows)
	p.sum = resize(p.sum, rows)
	p.pos = resize(p.pos, l)
	p.pivR = resize(p.pivR, w)[:0]
	p.pivC = resize(p.pivC, w)[:0]
	p.out = resize(p.out, l)[:0]
	p.ripple = resize(p.ripple, rows)[:0]
	p.head = 0
	p.parent = resize(p.parent, w)
	p.best = resize(p.best, w)
	for c := range w {
		p.pos[c] = posActive
		p.parent[c] = -1
		p.best[c] = uint32(c)
	}
	for c := w; c < l; c++ {
		p.pos[c] = posInactive | uint32(c-w)
		p.out = append(p.out, uint32(c))
	}
	for i := range p.comps {
		p.comps[i] = p.comps[i][:0]
	}
	p.top = 0
	for r := range rows {
		cols := p.active(uint32(r))
		var x uint32
		for _, c := range cols {
			x ^= c
		}
		p.deg[r], p.sum[r] = uint32(len(cols)), x
		switch len(cols) {
		case 1:
			p.ripple = append(p.ripple, uint32(r))
		case 2:
			p.join(uint32(r))
		}
	}
}

// drain makes pivots of all rows of degree one.
func (p *peeler) drain() {
	for p.head < len(p.ripple) {
		r := p.ripple[p.head]
		p.head++
		if p.deg[r] != 1 {
			continue
		}
		c := p.sum[r]
		p.pos[c] = uint32(len(p.pivC))
		p.pivR = append(p.pivR, r)
		p.pivC = append(p.pivC, c)
		p.remove(c)
	}
	p.ripple = p.ripple[:0]
	p.head = 0
}

// remove takes column c, which is no longer active, out of the rows' counts.
func (p *peeler) remove(c uint32) {
	for _, r := range p.colRows[p.colStart[c]:p.colStart[c+1]] {
		d := p.deg[r] - 1
		p.deg[r] = d
		p.sum[r] ^= c
		if d == 1 {
			p.ripple = append(p.ripple, r)
		} else if d == 2 {
			p.join(r)
		}
	}
}

// join merges the components of the two active columns of row r.
func (p *peeler) join(r uint32) {
	var a uint32
	for _, c := range p.active(r) {
		if p.pos[c] == posActive {
			a = c
			break
		}
	}
	ra, rb := p.find(a), p.find(p.sum[r]^a)
	if ra == rb {
		return
	}
	if p.parent[ra] > p.parent[rb] {
		ra, rb = rb, ra
	}
	p.parent[ra] += p.parent[rb]
	p.parent[rb] = int32(ra)
	if p.spread(p.best[rb]) > p.spread(p.best[ra]) {
		p.best[ra] = p.best[rb]
	}
	size := uint32(-p.parent[ra])
	k := bits.Len32(size) - 1
	p.comps[k] = append(p.comps[k], comp{ra, size})
	p.top = max(p.top, k)
}

func (p *peeler) spread(c uint32) uint32 { return p.colStart[c+1] - p.colStart[c] }

func (p *peeler) find(c uint32) uint32 {
	for p.parent[c] >= 0 {
		if g := p.parent[p.parent[c]]; g >= 0 {
			p.parent[c] = g
		}
		c = uint32(p.parent[c])
	}
	return c
}

// inactivate picks columns to take out so that peeling can go on.
func (p *peeler) inactivate() {
	if c, ok := p.largest(); ok {
		p.retire(c)
		return
	}
	r, ok := p.lightest()
	if !ok { // columns in no remaining row: only the HDPC rows can settle them
		for c := range p.blk.W {
			if p.pos[c] == posActive {
				p.retire(c)
			}
		}
		return
	}
	for _, c := range p.active(r) {
		if p.deg[r] == 1 {
			return
		}
		if p.pos[c] == posActive {
			p.retire(c)
		}
	}
}

func (p *peeler) retire(c uint32) {
	p.pos[c] = posInactive | uint32(len(p.out))
	p.out = append(p.out, c)
	p.remove(c)
}

// largest returns a column of the largest component of rows of degree two.
func (p *peeler) largest() (uint32, bool) {
	for ; p.top > 0; p.top-- {
		list := p.comps[p.top]
		best := comp{}
		keep := list[:0]
		for _, e := range list {
			if p.pos[e.root] != posActive || p.parent[e.root] != -int32(e.size) {
				continue // peeled, merged into another, or listed again since
			}
			keep = append(keep, e)
			if e.size > best.size {
				best = e
			}
		}
		p.comps[p.top] = keep
		if best.size > 0 {
			return p.best[best.root], true
		}
	}
	return 0, false
}

// lightest returns a row of the least degree above one.
func (p *peeler) lightest() (uint32, bool) {
	at, least := uint32(0), ^uint32(0)
	for r, d := range p.deg {
		if d > 1 && d < least {
			at, least = uint32(r), d
		}
	}
	return at, least != ^uint32(0)
}
