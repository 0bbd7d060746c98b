package coding

import (
	"context"
	"runtime"
	"sync/atomic"
)

// parallel calls work for the indexes cut[w]..cut[w+1]-1 as worker w, every
// worker on a goroutine of its own and the caller as the first, and stops early
// when ctx ends: work is asked for one index at a time.
func parallel(ctx context.Context, cut []int, work func(worker, index int)) error {
	t := &task{ctx: ctx, cut: cut, work: work}
	others := len(cut) - 2
	if others == 0 || runtime.GOMAXPROCS(0) == 1 {
		for w := range others + 1 {
			t.run(w)
		}
		return t.err()
	}
	t.idle = make(chan struct{}, 1)
	t.busy.Store(int32(others))
	for w := range others {
		delegate(share{t, w + 1})
	}
	t.run(0)
	t.wait()
	return t.err()
}

// task is one call of parallel.
type task struct {
	ctx     context.Context
	cut     []int
	work    func(worker, index int)
	stopped atomic.Bool

	busy   atomic.Int32  // shares that others are at
	parked atomic.Bool   // the caller sleeps until there are none
	idle   chan struct{} // gets one element when there are none
}

func (t *task) run(w int) {
	for i := t.cut[w]; i < t.cut[w+1]; i++ {
		if t.ctx.Err() != nil {
			t.stopped.Store(true)
			return
		}
		t.work(w, i)
	}
}

func (t *task) err() error {
	if t.stopped.Load() {
		return t.ctx.Err()
	}
	return nil
}

// wait returns when all other workers are done.
func (t *task) wait() {
	for range 16 * polls {
		if t.busy.Load() == 0 {
			return
		}
	}
	t.parked.Store(true)
	<-t.idle
}

// done takes one share off the count.
func (t *task) done() {
	if t.busy.Add(-1) == 0 {
		t.idle <- struct{}{}
	}
}

// share is what one worker does of a task.
type share struct {
	*task
	worker int
}

// helper is a goroutine that works for callers of parallel. Waking a sleeping
// processor takes as long as encoding a hundred symbols, so a helper that is
// done stays awake for a moment: whoever encodes block after block finds it
// ready. It is gone a fraction of a millisecond after the last.
type helper struct{ next chan share }

// ready are the helpers that are awake with nothing to do. Who takes one out has
// it to himself.
var ready [64]atomic.Pointer[helper]

// polls is how often a helper looks for work before it leaves. A caller looks 16
// times as often for the end of the work before it sleeps, which is cheaper.
// Either takes about a tenth of a millisecond.
const polls = 1 << 14

// delegate lets a helper take a share.
func delegate(s share) {
	for i := range ready {
		if ready[i].Load() != nil {
			if h := ready[i].Swap(nil); h != nil {
				h.next <- s // it has room for one
				return
			}
		}
	}
	h := &helper{next: make(chan share, 1)}
	go h.work(s)
	// The goroutine made last is kept for this processor, and another that looks
	// for work sleeps before it takes it. So let that be one without work.
	go func() {}()
}

func (h *helper) work(s share) {
	for {
		s.run(s.worker)
		// It can be found before the caller goes on, and perhaps comes back.
		place := h.offer()
		s.done()
		if place == nil {
			return
		}
		var ok bool
		if s, ok = h.await(place, &s.parked); !ok {
			return
		}
	}
}

// offer puts the helper among the ready. It returns nil when there is no room.
func (h *helper) offer() *atomic.Pointer[helper] {
	for i := range ready {
		if ready[i].CompareAndSwap(nil, h) {
			return &ready[i]
		}
	}
	return nil
}

// await returns the next share, or false when the helper should go: nothing came
// for long, or a caller has slept, who may need this processor to wake up on.
func (h *helper) await(place *atomic.Pointer[helper], slept *atomic.Bool) (share, bool) {
	for range polls {
		select {
		case s := <-h.next:
			return s, true
		default:
		}
		if slept.Load() {
			break
		}
	}
	if place.CompareAndSwap(h, nil) {
		return share{}, false
	}
	return <-h.next, true // somebody has just taken it
}
