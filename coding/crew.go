package coding

import (
	"context"
	"runtime"
	"sync/atomic"
)

// parallel calls work for the indexes cut[w]..cut[w+1]-1 as worker w, the workers
// side by side on as many processors as there are, and stops early when ctx
// ends: work is asked for one index at a time. The caller takes part. It never
// waits for a worker that no helper has begun.
func parallel(ctx context.Context, cut []int, work func(worker, index int)) error {
	n := len(cut) - 1
	t := &task{ctx: ctx, cut: cut, work: work}
	if n > 1 {
		t.taken = make([]atomic.Bool, n)
		t.idle = make(chan struct{}, 1)
		t.left.Store(int32(n))
		for w := range min(n, runtime.GOMAXPROCS(0)) - 1 {
			delegate(request{t, w + 1})
		}
		t.do(nil, 0)
		t.wait()
	} else {
		t.run(0)
	}
	if t.stopped.Load() {
		return ctx.Err()
	}
	return nil
}

// task is one call of parallel.
type task struct {
	ctx     context.Context
	cut     []int
	work    func(worker, index int)
	stopped atomic.Bool

	taken  []atomic.Bool // workers that somebody runs
	left   atomic.Int32  // workers that are not done
	parked atomic.Bool   // the caller sleeps until there are none
	idle   chan struct{} // gets one element when there are none
}

// do runs workers that nobody runs, w if it can be had and others then, as
// helper h or, with nil, as the caller. Whoever encodes block after block
// so has the same columns each time, and their symbols still in cache.
func (t *task) do(h *helper, w int) {
	for w = t.take(w); w >= 0; {
		t.run(w)
		w = t.take(w)
		if w < 0 && h != nil {
			h.offer() // before the caller goes on, and perhaps comes back
		}
		if t.left.Add(-1) == 0 {
			t.idle <- struct{}{}
		}
	}
}

// take returns a worker that nobody runs, w or one after it, or -1.
func (t *task) take(w int) int {
	for i := range t.taken {
		if x := (w + i) % len(t.taken); t.taken[x].CompareAndSwap(false, true) {
			return x
		}
	}
	return -1
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

// wait returns when all workers are done.
func (t *task) wait() {
	for range 16 * polls {
		if t.left.Load() == 0 {
			return
		}
	}
	t.parked.Store(true)
	<-t.idle
}

// request asks a helper to take part in a task, with that worker to begin with.
type request struct {
	*task
	worker int
}

// helper is a goroutine that works for callers of parallel. Waking a sleeping
// processor takes as long as encoding a hundred symbols, so a helper that is
// done stays awake for a moment: whoever encodes block after block finds it
// ready. It is gone a fraction of a millisecond after the last.
type helper struct {
	next  chan request            // has room for one
	place *atomic.Pointer[helper] // among the ready, nil when not there; the helper's own
}

// ready are the helpers that are awake with nothing to do. Who takes one out has
// it to himself.
var ready [64]atomic.Pointer[helper]

// polls is how often a helper looks for work before it leaves. A caller looks 16
// times as often for the end of the work before it sleeps, which is cheaper.
// Either takes about a tenth of a millisecond.
const polls = 1 << 14

// delegate asks a helper.
func delegate(r request) {
	for i := range ready {
		if ready[i].Load() != nil {
			if h := ready[i].Swap(nil); h != nil {
				h.next <- r
				return
			}
		}
	}
	h := &helper{next: make(chan request, 1)}
	go h.work(r)
	// The goroutine made last is kept for this processor, and another that looks
	// for work sleeps before it takes it. So let that be one without work.
	go func() {}()
}

func (h *helper) work(r request) {
	for ok := true; ok; r, ok = h.await(&r.parked) {
		r.do(h, r.worker)
	}
}

// offer puts the helper among the ready if there is room.
func (h *helper) offer() {
	for i := range ready {
		if ready[i].CompareAndSwap(nil, h) {
			h.place = &ready[i]
			return
		}
	}
}

// await returns the next request, or false when the helper should go: there is no
// place for it, nothing came for long, or a caller sleeps, who may need this
// processor to wake up on.
func (h *helper) await(asleep *atomic.Bool) (request, bool) {
	if h.place == nil {
		h.offer()
	}
	place := h.place
	if h.place = nil; place == nil {
		return request{}, false
	}
	for range polls {
		select {
		case r := <-h.next:
			return r, true
		default:
		}
		if asleep.Load() {
			break
		}
	}
	if place.CompareAndSwap(h, nil) {
		return request{}, false
	}
	return <-h.next, true // somebody has just taken it
}
