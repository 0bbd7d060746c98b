package engine

import (
	"sync"

	"fcp"
)

// holds keep what a write under way is about to name from being collected: the
// chunks of a large object are in the log before anything refers to them. The zero
// value is ready.
type holds struct {
	mu        sync.Mutex
	held      map[fcp.ObjectID]int
	marking   bool                  // a mark has begun
	named     map[fcp.ObjectID]bool // given back since: the mark may not have seen who names them
	condemned map[fcp.ObjectID]bool // on their way out
}

// hold keeps an object until release. false: its body is being dropped right now,
// so whoever wants to name it writes it again; then nothing is held.
func (h *holds) hold(id fcp.ObjectID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.condemned[id] {
		return false
	}
	if h.held == nil {
		h.held = map[fcp.ObjectID]int{}
	}
	h.held[id]++
	return true
}

func (h *holds) release(ids []fcp.ObjectID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if h.held[id]--; h.held[id] <= 0 {
			delete(h.held, id)
		}
		if h.marking {
			h.named[id] = true
		}
	}
}

// begin is called before a mark looks at anything, and end after what it found was
// dropped.
func (h *holds) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marking, h.named = true, map[fcp.ObjectID]bool{}
}

func (h *holds) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.marking, h.named, h.condemned = false, nil, nil
}

// condemn returns whether an object may go. If so, hold refuses it from now on.
func (h *holds) condemn(id fcp.ObjectID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held[id] > 0 || h.named[id] {
		return false
	}
	if h.condemned == nil {
		h.condemned = map[fcp.ObjectID]bool{}
	}
	h.condemned[id] = true
	return true
}
