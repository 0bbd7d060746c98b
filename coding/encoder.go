package coding

import (
	"context"
	"fmt"
	"math"
	"sync"
	"unsafe"

	"fcp/coding/internal/gf256"
	"fcp/coding/internal/rfc6330"
)

// Encoder makes encoding symbols of one source block (section 5.3). Source
// symbols are slices of the block; repair symbols are sums of intermediate
// symbols, which Encode computes once.
//
// An Encoder is for one goroutine at a time, except that after Encode any number of
// goroutines may call Source, Symbol and Repair. It keeps a reference to the
// block, which must not change while it is in use.
type Encoder struct {
	plan    *Plan
	blk     rfc6330.Block
	shape   Shape
	stripes []stripe
	tiles   []tile
	cut     []int // the tiles of each worker, see tiles

	block []byte
	tail  []byte // the last symbol zero padded, when the block ends within it
	store []byte // intermediate symbols of each tile, then scratch
	runs  []replayer
	ready bool
}

// EncoderOptions tunes an Encoder. The zero value is right for one core.
type EncoderOptions struct {
	Workers int // cores Encode may use; 0 means 1. Small blocks take fewer.
}

// NewEncoder returns an encoder for blocks of k source symbols of the given
// shape. A plan for k must be given (see NewPlan and PlanCache).
func NewEncoder(plan *Plan, k int, shape Shape, opt EncoderOptions) (*Encoder, error) {
	blk, err := blockFor(k)
	if err != nil {
		return nil, err
	}
	if shape, err = shape.normal(); err != nil {
		return nil, err
	}
	if int64(k)*int64(shape.SymbolSize) > math.MaxInt/2 {
		return nil, fmt.Errorf("%w: %d symbols of %d octets", ErrMemory, k, shape.SymbolSize)
	}
	if plan == nil || !plan.serves(&blk) {
		return nil, fmt.Errorf("%w: the plan is not for %d source symbols", ErrParams, k)
	}
	e := &Encoder{plan: plan, blk: blk, shape: shape}
	e.stripes = shape.stripes(k)
	e.tiles, e.cut = tiles(e.stripes, tileWidth(int(blk.L)), workersFor(k*shape.SymbolSize, opt.Workers))
	e.runs = make([]replayer, len(e.cut)-1)
	return e, nil
}

// place lays the tiles out in one store. A tile's scratch slots lie behind its
// intermediate symbols, where the next tile of the same worker will be: that
// one is not computed yet. Each worker's last tile has room of its own.
func (e *Encoder) place() {
	l, scratch := int(e.blk.L), e.plan.prog.slots-int(e.blk.L)
	at := 0
	for w := range e.runs {
		need := 0
		for i := e.cut[w]; i < e.cut[w+1]; i++ {
			t := &e.tiles[i]
			t.ws = at
			need = max(need, at+(l+scratch)*t.width)
			at += l * t.width
		}
		at = max(at, need)
	}
	if len(e.store) < at {
		e.store = aligned(at)
	}
}

// Reset gives the encoder a block to encode. Its length is K*T or less by less
// than T; the rest of the last symbol counts as zero.
func (e *Encoder) Reset(block []byte) error {
	k, t := int(e.blk.K), e.shape.SymbolSize
	if len(block) > k*t || len(block) <= (k-1)*t {
		return fmt.Errorf("%w: block of %d octets for %d symbols of %d", ErrSize, len(block), k, t)
	}
	e.ready = false
	e.block = block
	if len(block) < k*t {
		if e.shape.SubBlocks > 1 {
			// The padding is at the end of the block, not of a symbol.
			e.block = make([]byte, k*t)
			copy(e.block, block)
			return nil
		}
		e.tail = resize(e.tail, t)
		n := copy(e.tail, block[(k-1)*t:])
		clear(e.tail[n:])
	}
	return nil
}

// part returns the part of source symbol i in stripe s.
func (e *Encoder) part(s *stripe, i int) []byte {
	at := s.base + i*s.size
	if at+s.size > len(e.block) {
		return e.tail
	}
	return e.block[at : at+s.size : at+s.size]
}

// Encode computes the intermediate symbols of the block given to Reset.
func (e *Encoder) Encode(ctx context.Context) error {
	if e.block == nil {
		return fmt.Errorf("%w: no block", ErrSize)
	}
	e.place()
	for i := range e.runs {
		e.runs[i].reset(e.plan.prog, int(e.blk.KPrime))
	}
	err := parallel(ctx, e.cut, func(w, i int) {
		r, t := &e.runs[w], &e.tiles[i]
		if r.stripe != t.stripe {
			e.enter(r, t.stripe)
		}
		r.run(unsafe.Pointer(&e.store[t.ws]), t)
	})
	e.ready = err == nil
	return err
}

// enter points the replayer at the source parts of a stripe.
func (e *Encoder) enter(r *replayer, index int) {
	s := &e.stripes[index]
	for i := range r.rows {
		if i < int(e.blk.K) {
			r.rows[i] = unsafe.Pointer(unsafe.SliceData(e.part(s, i)))
		} else {
			r.rows[i] = unsafe.Pointer(&zeros)
		}
	}
	r.enter(index, *s)
}

// Source returns source symbol i as a slice of the block. It must not be
// changed. It reports false when i is no source symbol or when symbols are
// spread over several sub-blocks; Symbol serves both.
func (e *Encoder) Source(i int) ([]byte, bool) {
	if i < 0 || i >= int(e.blk.K) || len(e.stripes) != 1 || e.block == nil {
		return nil, false
	}
	return e.part(&e.stripes[0], i), true
}

// Symbol writes the encoding symbol esi, source or repair, to dst, whose length
// is the symbol size.
func (e *Encoder) Symbol(dst []byte, esi uint32) error {
	if esi >= e.blk.K {
		return e.Repair(dst, esi)
	}
	if len(dst) != e.shape.SymbolSize || e.block == nil {
		return fmt.Errorf("%w: symbol of %d octets, want %d", ErrSize, len(dst), e.shape.SymbolSize)
	}
	for i := range e.stripes {
		s := &e.stripes[i]
		copy(dst[s.at:s.at+s.size], e.part(s, int(esi)))
	}
	return nil
}

// Repair writes the repair symbol esi, K..MaxESI, to dst, whose length is the
// symbol size (section 5.3.5.3). It allocates nothing.
func (e *Encoder) Repair(dst []byte, esi uint32) error {
	if esi > MaxESI || esi < e.blk.K {
		return fmt.Errorf("%w: %d is no repair symbol of %d source symbols", ErrESI, esi, e.blk.K)
	}
	return e.Repairs(dst, esi, 1)
}

// Repairs writes the n repair symbols from esi on to dst, one behind the other.
// For large blocks it is faster than one call each.
func (e *Encoder) Repairs(dst []byte, esi uint32, n int) error {
	size := e.shape.SymbolSize
	switch {
	case n < 0 || esi < e.blk.K || int64(esi)+int64(n) > MaxESI+1:
		return fmt.Errorf("%w: %d symbols from %d", ErrESI, n, esi)
	case len(dst) != n*size:
		return fmt.Errorf("%w: %d octets for %d symbols of %d", ErrSize, len(dst), n, size)
	case !e.ready:
		return fmt.Errorf("%w: Encode has not run", ErrNotDecoded)
	}
	w := sums.Get().(*sumScratch)
	defer sums.Put(w)
	for n > 0 {
		m := min(n, batch)
		w.rows = w.rows[:0]
		for j := range m {
			w.rows = appendRecord(w.rows, &e.blk, e.blk.ISI(esi+uint32(j)))
		}
		for i := range e.tiles {
			e.sum(dst, &e.tiles[i], w, m)
		}
		dst = dst[m*size:]
		esi += uint32(m)
		n -= m
	}
	return nil
}

// appendRecord appends the record that SumOut takes for the encoding symbol with
// internal symbol id x.
func appendRecord(stream []uint32, b *rfc6330.Block, x uint32) []uint32 {
	at := len(stream)
	stream = append(stream, 0)
	stream, _ = b.AppendRow(stream, x)
	stream[at] = uint32(len(stream) - at - 1)
	return stream
}

// batch is how many repair symbols are made of a tile before the next tile.
const batch = 32

// sumScratch is what making a batch of repair symbols needs.
type sumScratch struct {
	rows []uint32
	outs [batch + gf256.Ahead]unsafe.Pointer
	part [batch * gf256.MinWidth]byte
}

var sums = sync.Pool{New: func() any {
	return &sumScratch{rows: make([]uint32, 0, batch*(1+rfc6330.MaxRow))}
}}

// sum writes one tile's part of a batch of n symbols.
func (e *Encoder) sum(dst []byte, t *tile, w *sumScratch, n int) {
	at, size := e.stripes[t.stripe].at+t.col, e.shape.SymbolSize
	outs := w.outs[:n+gf256.Ahead]
	for j := range outs {
		switch {
		case j >= n:
			outs[j] = unsafe.Pointer(&w.part)
		case t.size == t.width:
			outs[j] = unsafe.Pointer(&dst[at+j*size])
		default:
			outs[j] = unsafe.Pointer(&w.part[j*gf256.MinWidth])
		}
	}
	gf256.Best.SumOut(unsafe.Pointer(&e.store[t.ws]), t.width, w.rows, outs, 0)
	if t.size < t.width {
		for j := range n {
			copy(dst[at+j*size:][:t.size], w.part[j*gf256.MinWidth:])
		}
	}
	clear(outs) // the pool must not keep the caller's memory
}
