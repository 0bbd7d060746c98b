package state

import "sync/atomic"

// A gate counts those inside and closes once they have left. Whoever is inside
// may enter again, also while the gate is closing.
type gate struct {
	inside atomic.Int64
	closed atomic.Bool
	idle   chan struct{}
}

func newGate() *gate { return &gate{idle: make(chan struct{}, 1)} }

// enter reports whether the gate is open; if so, leave must follow.
func (g *gate) enter() bool {
	g.inside.Add(1)
	if g.closed.Load() {
		g.leave()
		return false
	}
	return true
}

func (g *gate) leave() {
	if g.inside.Add(-1) == 0 && g.closed.Load() {
		select {
		case g.idle <- struct{}{}:
		default:
		}
	}
}

// close lets nobody in any more and waits until all have left.
func (g *gate) close() {
	g.closed.Store(true)
	for g.inside.Load() != 0 {
		<-g.idle
	}
}
