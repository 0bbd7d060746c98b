package coding

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"unsafe"

	"fcp/coding/internal/gf256"
	"fcp/coding/internal/rfc6330"
)

// Decoder rebuilds one source block from any sufficient set of its encoding
// symbols (section 5.4). Symbols may come in any order; duplicates are ignored.
// Source symbols are stored where they belong in the block, repair symbols in
// memory of the decoder; only missing source symbols are computed.
//
// A Decoder is for one goroutine at a time. Its memory is bounded, see
// DecoderBound.
type Decoder struct {
	blk     rfc6330.Block
	shape   Shape
	opt     DecoderOptions
	stripes []stripe
	tiles   []tile
	cut     []int // the tiles of each worker, see tiles

	block   []byte   // K*T octets, the caller's or own
	own     []byte   // made when first needed
	have    []uint64 // source symbols that are in block
	sources int      // how many
	esis    []uint32 // repair symbols held, in the order of their storage
	seen    esiSet   // the same as a set
	slabs   [][]byte // storage for repair symbols, slabSymbols each
	perSlab int

	target int // symbols that may be enough

	// What can go when room is needed, after a failed attempt: repair symbols by
	// index, descending. useless says that they add nothing to the others.
	drop    []uint32
	useless bool

	ws   []byte
	runs []replayer
	lost []uint32 // source symbols being rebuilt
	rows []uint32 // the sums that give them, as SumOut takes them
	few  few
}

// DecoderOptions tunes a Decoder. The zero value is right for one core.
type DecoderOptions struct {
	Workers int // cores Decode may use; 0 means 1. Small blocks take fewer.

	// Slack is how many symbols beyond K are held at most; 0 means
	// DefaultSlack. Two are enough with all but certainty.
	Slack int

	// Limit is the memory in octets that the decoder may take; 0 means
	// DefaultDecoderLimit. NewDecoder fails with ErrMemory when DecoderBound
	// is above it.
	Limit int64

	// Plans is where Decode looks for the plan of the block's K'. With one it
	// rebuilds a few lost symbols much faster. Nil means no plan is used.
	Plans *PlanCache
}

// DefaultSlack is the slack of a decoder that is given none.
const DefaultSlack = 64

// NewDecoder returns a decoder for a block of k source symbols. Unless Reset
// gives it another place it decodes into memory of its own.
func NewDecoder(k int, shape Shape, opt DecoderOptions) (*Decoder, error) {
	shape, err := shape.normal()
	if err != nil {
		return nil, err
	}
	if opt, err = opt.normal(); err != nil {
		return nil, err
	}
	d := &Decoder{shape: shape, opt: opt}
	if err := d.begin(k); err != nil {
		return nil, err
	}
	return d, nil
}

// Reuse makes the decoder one for another block, of k source symbols, as NewDecoder
// would, and keeps what memory it has: at most that of the largest block so far. After
// an error the decoder is what it was.
func (d *Decoder) Reuse(k int) error {
	if k == int(d.blk.K) {
		return d.Reset(nil)
	}
	if err := d.begin(k); err != nil {
		return err
	}
	if need := k * d.shape.SymbolSize; cap(d.own) >= need {
		d.own = d.own[:need]
	} else {
		d.own = nil
	}
	return d.Reset(nil)
}

// begin prepares for a block of k source symbols.
func (d *Decoder) begin(k int) error {
	blk, err := blockFor(k)
	if err != nil {
		return err
	}
	bound, err := DecoderBound(k, d.shape, d.opt)
	if err != nil {
		return err
	}
	if bound > d.opt.Limit || bound > math.MaxInt {
		return fmt.Errorf("%w: a block of %d symbols of %d octets may take %d octets to decode, limit %d",
			ErrMemory, k, d.shape.SymbolSize, bound, d.opt.Limit)
	}
	d.blk = blk
	d.stripes = d.shape.stripes(k)
	d.tiles, d.cut = tiles(d.stripes, tileWidth(int(blk.L)), d.workers())
	if n := perSlab(k, d.shape.SymbolSize); n != d.perSlab {
		d.perSlab, d.slabs = n, nil
	}
	d.have = resize(d.have, (k+63)/64)
	d.target = k
	d.few = few{}
	return nil
}

// workers is how many cores decoding the block may use.
func (d *Decoder) workers() int {
	return workersFor(int(d.blk.K)*d.shape.SymbolSize, d.opt.Workers)
}

// slabBytes is how much storage for repair symbols is taken at a time, up to 32
// times that for large blocks.
const slabBytes = 256 << 10

// perSlab is how many symbols a slab holds.
func perSlab(k, t int) int {
	return max(1, min(max(k*t/16, min(k*t, slabBytes)), 32*slabBytes)/t)
}

// Reset forgets all symbols. The block will be decoded into dst, which must
// have K*T octets and belongs to the decoder until the next Reset; with nil the
// decoder uses memory of its own.
func (d *Decoder) Reset(dst []byte) error {
	size := int(d.blk.K) * d.shape.SymbolSize
	switch {
	case dst != nil && len(dst) != size:
		return fmt.Errorf("%w: %d octets for a block of %d", ErrSize, len(dst), size)
	case dst != nil:
		d.block = dst
	default:
		if d.own == nil {
			d.own = make([]byte, size)
		}
		d.block = d.own
	}
	clear(d.have)
	d.sources = 0
	d.esis = d.esis[:0]
	d.seen.reset()
	d.drop = d.drop[:0]
	d.target = int(d.blk.K)
	return nil
}

// Add gives the decoder an encoding symbol. It reports whether the symbol was
// new and has been stored; the symbol is copied. When the decoder already holds
// Slack symbols more than K it fails with ErrFull.
func (d *Decoder) Add(esi uint32, symbol []byte) (bool, error) {
	if esi > MaxESI {
		return false, fmt.Errorf("%w: %d", ErrESI, esi)
	}
	if len(symbol) != d.shape.SymbolSize {
		return false, fmt.Errorf("%w: symbol of %d octets, want %d", ErrSize, len(symbol), d.shape.SymbolSize)
	}
	if d.Complete() {
		return false, nil
	}
	if d.block == nil {
		if err := d.Reset(nil); err != nil {
			return false, err
		}
	}
	if esi < d.blk.K {
		return d.addSource(esi, symbol), nil
	}
	if d.seen.has(esi) {
		return false, nil
	}
	if d.held() >= int(d.blk.K)+d.opt.Slack && !d.evict() {
		return false, fmt.Errorf("%w: %d", ErrFull, d.held())
	}
	i := len(d.esis)
	if i/d.perSlab == len(d.slabs) {
		d.slabs = append(d.slabs, aligned(d.perSlab*d.shape.SymbolSize))
	}
	copy(d.stored(i), symbol)
	d.esis = append(d.esis, esi)
	d.seen.add(esi, d.esis)
	return true, nil
}

func (d *Decoder) addSource(i uint32, symbol []byte) bool {
	if d.has(int(i)) {
		return false
	}
	for _, s := range d.stripes {
		copy(d.block[s.base+int(i)*s.size:][:s.size], symbol[s.at:])
	}
	d.have[i/64] |= 1 << (i % 64)
	d.sources++
	return true
}

func (d *Decoder) has(i int) bool { return d.have[i/64]>>(i%64)&1 != 0 }

func (d *Decoder) held() int { return d.sources + len(d.esis) }

// stored returns the storage of repair symbol number i.
func (d *Decoder) stored(i int) []byte {
	t := d.shape.SymbolSize
	return d.slabs[i/d.perSlab][i%d.perSlab*t:][:t]
}

// evict makes room by dropping what the last attempt said can go. It reports whether there were any.
func (d *Decoder) evict() bool {
	if len(d.drop) == 0 {
		return false
	}
	for _, i := range d.drop { // descending
		last := len(d.esis) - 1
		if int(i) != last {
			copy(d.stored(int(i)), d.stored(last))
			d.esis[i] = d.esis[last]
		}
		d.esis = d.esis[:last]
	}
	if d.useless {
		d.target -= len(d.drop)
	}
	d.target = min(d.target, int(d.blk.K)+d.opt.Slack)
	d.drop = d.drop[:0]
	d.seen.rebuild(d.esis)
	return true
}

// Complete reports whether all source symbols are there.
func (d *Decoder) Complete() bool { return d.sources == int(d.blk.K) }

// Ready reports whether Decode may succeed.
func (d *Decoder) Ready() bool { return d.Needs() == 0 }

// Needs returns how many more symbols are needed at least.
func (d *Decoder) Needs() int {
	if d.Complete() {
		return 0
	}
	return max(0, d.target-d.held())
}

// Block returns the decoded block, K*T octets. It is valid until Reset.
func (d *Decoder) Block() ([]byte, error) {
	if !d.Complete() {
		return nil, ErrNotDecoded
	}
	return d.block, nil
}

// Decode computes the missing source symbols. When the symbols at hand do not
// determine them it fails with ErrNeedMore and Needs tells how many more it
// takes at least; the symbols stay and more can be added.
func (d *Decoder) Decode(ctx context.Context) error {
	if d.Complete() {
		return nil
	}
	if n := d.Needs(); n > 0 {
		return fmt.Errorf("%w: %d", ErrNeedMore, n)
	}
	d.listLost()
	found := false
	if by := d.cheapest(); by != byElimination {
		var err error
		if found, err = d.decodeFew(ctx, by); err != nil {
			return err
		}
	}
	if !found {
		if err := d.decodeAll(ctx); err != nil {
			return err
		}
	}
	for i := range d.have {
		d.have[i] = ^uint64(0)
	}
	d.sources = int(d.blk.K)
	return nil
}

func (d *Decoder) listLost() {
	d.lost = d.lost[:0]
	for i := range int(d.blk.K) {
		if !d.has(i) {
			d.lost = append(d.lost, uint32(i))
		}
	}
}

// decodeAll solves for all intermediate symbols from the symbols at hand.
func (d *Decoder) decodeAll(ctx context.Context) error {
	s := solvers.Get().(*solver)
	defer solvers.Put(s)
	s.blk = d.blk
	s.lt = s.lt[:0]
	for i := range d.blk.K {
		if d.has(int(i)) {
			s.lt = append(s.lt, i)
		}
	}
	for _, esi := range d.esis {
		s.lt = append(s.lt, d.blk.ISI(esi))
	}
	s.data = len(s.lt)
	for i := d.blk.K; i < d.blk.KPrime; i++ {
		s.lt = append(s.lt, i)
	}
	missing, err := s.solve(ctx)
	if errors.Is(err, errTooDense) {
		d.failed(nil, 1)
		return fmt.Errorf("%w: %w", ErrNeedMore, err)
	}
	if err != nil {
		return err
	}
	if missing > 0 {
		d.failed(s.redun, missing)
		return fmt.Errorf("%w: %d", ErrNeedMore, missing)
	}
	return d.replay(ctx, &s.prog)
}

// failed notes what a failed attempt taught: how many more symbols are needed,
// and which of the repair symbols can go when room is needed. These are those
// that depend on others, or else an eighth, the ones of the highest degree.
func (d *Decoder) failed(redundant []uint32, missing int) {
	d.target = d.held() + missing
	d.drop = d.drop[:0]
	first := uint32(d.sources)
	for _, r := range redundant {
		if r >= first && r < first+uint32(len(d.esis)) {
			d.drop = append(d.drop, r-first)
		}
	}
	if d.useless = len(d.drop) > 0; !d.useless {
		d.dropHeaviest((len(d.esis) + 7) / 8)
	}
	slices.SortFunc(d.drop, func(a, b uint32) int { return cmp.Compare(b, a) })
}

// dropHeaviest lists n repair symbols of the highest degree in drop.
func (d *Decoder) dropHeaviest(n int) {
	var count [rfc6330.MaxRow + 1]int
	degree := func(esi uint32) uint32 { return d.blk.Tuple(d.blk.ISI(esi)).D }
	for _, esi := range d.esis {
		count[degree(esi)]++
	}
	least := uint32(len(count) - 1)
	for sum := count[least]; sum < n; sum += count[least] {
		least--
	}
	for i, esi := range d.esis {
		if len(d.drop) < n && degree(esi) >= least {
			d.drop = append(d.drop, uint32(i))
		}
	}
}

// replay runs the program and writes the lost source symbols.
func (d *Decoder) replay(ctx context.Context, p *program) error {
	d.rows = reserve(d.rows, 7*len(d.lost))
	for _, i := range d.lost {
		d.rows = appendRecord(d.rows, &d.blk, i)
	}
	workers := len(d.cut) - 1
	width := d.tiles[0].width
	each := p.slots * width
	if len(d.ws) < each*workers {
		d.ws = aligned(each * workers)
	}
	d.runs = resize(d.runs, workers)
	for w := range workers {
		d.runs[w].reset(p, d.sources+len(d.esis))
	}
	return parallel(ctx, d.cut, func(w, i int) {
		r, t := &d.runs[w], &d.tiles[i]
		if r.stripe != t.stripe {
			d.enter(r, t.stripe)
		}
		ws := unsafe.Pointer(&d.ws[w*each])
		r.run(ws, t)
		d.write(r, ws, t)
	})
}

// enter points the replayer at the parts of the symbols at hand.
func (d *Decoder) enter(r *replayer, index int) {
	s := &d.stripes[index]
	n := 0
	for i := range int(d.blk.K) {
		if d.has(i) {
			r.rows[n] = unsafe.Pointer(&d.block[s.base+i*s.size])
			n++
		}
	}
	for i := range d.esis {
		r.rows[n] = unsafe.Pointer(&d.stored(i)[s.at])
		n++
	}
	r.enter(index, *s)
	r.outs = resize(r.outs, len(d.lost)+gf256.Ahead)
	for j, i := range d.lost {
		r.outs[j] = unsafe.Pointer(&d.block[s.base+int(i)*s.size])
	}
	for j := len(d.lost); j < len(r.outs); j++ {
		r.outs[j] = unsafe.Pointer(&zeros) // only looked at ahead
	}
}

// write writes a tile's part of the lost source symbols.
func (d *Decoder) write(r *replayer, ws unsafe.Pointer, t *tile) {
	if t.size == t.width && t.skip == 0 {
		gf256.Best.SumOut(ws, t.width, d.rows, r.outs, t.col)
		return
	}
	s := &d.stripes[t.stripe]
	r.single = r.single[:0]
	for range 1 + gf256.Ahead {
		r.single = append(r.single, unsafe.Pointer(&r.part))
	}
	rows := d.rows
	for _, i := range d.lost {
		n := 1 + rows[0]
		gf256.Best.SumOut(ws, t.width, rows[:n], r.single, 0)
		rows = rows[n:]
		copy(d.block[s.base+int(i)*s.size+t.col:][t.skip:t.size], r.part[t.skip:])
	}
}
