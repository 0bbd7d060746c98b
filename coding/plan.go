package coding

import (
	"container/list"
	"context"
	"sync"

	"fcp/coding/internal/rfc6330"
)

// Plan is the compiled elimination for all source blocks with the same K'
// (section 5.3.3.4): which symbols to add to which, in which order. Making one
// costs about as much as encoding a block; running it needs no decisions. It is
// immutable and safe for concurrent use.
type Plan struct {
	blk  rfc6330.Block // with K = K'
	prog *program

	// Where the records of the streams of sums begin, to take them backwards.
	forwardAt, middleAt, backAt []uint32
}

// NewPlan compiles the plan for blocks of k source symbols, 1..MaxSourceSymbols.
func NewPlan(ctx context.Context, k int) (*Plan, error) {
	s := solvers.Get().(*solver)
	defer solvers.Put(s)
	if err := s.solvePlan(ctx, k); err != nil {
		return nil, err
	}
	p := &Plan{blk: s.blk, prog: s.prog.clone()}
	p.forwardAt = records(p.prog.forward)
	p.middleAt = records(p.prog.middle)
	p.backAt = records(p.prog.back)
	return p, nil
}

// solvePlan leaves the program for blocks of k source symbols in s.
func (s *solver) solvePlan(ctx context.Context, k int) error {
	blk, err := blockFor(k)
	if err != nil {
		return err
	}
	if blk, err = blockFor(int(blk.KPrime)); err != nil {
		return err
	}
	s.blk = blk
	s.lt = resize(s.lt, int(blk.KPrime))
	for i := range s.lt {
		s.lt[i] = uint32(i)
	}
	s.data = len(s.lt)
	missing, err := s.solve(ctx)
	if err != nil {
		return err
	}
	if missing > 0 {
		// The systematic index J(K') is chosen so that this never happens.
		return ErrNeedMore
	}
	return nil
}

// KPrime returns the K' the plan is for; it serves every K that is padded to it.
func (p *Plan) KPrime() int { return int(p.blk.KPrime) }

// Bytes returns the memory the plan takes.
func (p *Plan) Bytes() int {
	return p.prog.bytes() + 4*(len(p.forwardAt)+len(p.middleAt)+len(p.backAt)) + 512
}

// serves reports whether blocks of blk's size run on the plan.
func (p *Plan) serves(blk *rfc6330.Block) bool { return p.blk.KPrime == blk.KPrime }

var solvers = sync.Pool{New: func() any { return new(solver) }}

// DefaultPlanBytes bounds a PlanCache whose limit is not set.
const DefaultPlanBytes = 64 << 20

// PlanCache keeps the plans used last, up to Limit octets of them. The zero
// value is ready, and all methods are safe for concurrent use.
type PlanCache struct {
	Limit int // octets; 0 means DefaultPlanBytes. Set before first use.

	mu    sync.Mutex
	plans map[uint32]*list.Element // by K'
	order list.List                // of *Plan, the last used in front
	bytes int
}

// Get returns the plan for k source symbols, compiling it when it is not there.
func (c *PlanCache) Get(ctx context.Context, k int) (*Plan, error) {
	blk, err := blockFor(k)
	if err != nil {
		return nil, err
	}
	if p := c.lookup(blk.KPrime); p != nil {
		return p, nil
	}
	// Two callers may compile the same plan at once; one of the two is kept.
	p, err := NewPlan(ctx, k)
	if err != nil {
		return nil, err
	}
	return c.insert(p), nil
}

// Bytes returns the memory the cached plans take.
func (c *PlanCache) Bytes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

func (c *PlanCache) lookup(kPrime uint32) *Plan {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.plans[kPrime]
	if e == nil {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*Plan)
}

func (c *PlanCache) insert(p *Plan) *Plan {
	limit := c.Limit
	if limit == 0 {
		limit = DefaultPlanBytes
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.plans[p.blk.KPrime]; e != nil {
		return e.Value.(*Plan)
	}
	if p.Bytes() > limit {
		return p
	}
	if c.plans == nil {
		c.plans = make(map[uint32]*list.Element)
	}
	c.plans[p.blk.KPrime] = c.order.PushFront(p)
	c.bytes += p.Bytes()
	for c.bytes > limit {
		e := c.order.Back()
		old := c.order.Remove(e).(*Plan)
		delete(c.plans, old.blk.KPrime)
		c.bytes -= old.Bytes()
	}
	return p
}
