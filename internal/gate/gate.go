// Package gate lets readers in until it is closed, and then waits for them to leave.
package gate

import "sync/atomic"

// A Gate counts those inside and closes once they have left. All methods are safe
// for concurrent use.
type Gate struct {
	inside atomic.Int64
	closed atomic.Bool
	idle   chan struct{}
}

// New returns an open gate.
func New() *Gate { return &Gate{idle: make(chan struct{}, 1)} }

// Enter reports whether the gate is open; if so, Leave must follow. Whoever is
// inside finds it closed too while it closes.
func (g *Gate) Enter() bool {
	g.inside.Add(1)
	if g.closed.Load() {
		g.Leave()
		return false
	}
	return true
}

// Leave ends what Enter began.
func (g *Gate) Leave() {
	if g.inside.Add(-1) == 0 && g.closed.Load() {
		select {
		case g.idle <- struct{}{}:
		default:
		}
	}
}

// Close lets nobody in any more and waits until all have left.
func (g *Gate) Close() {
	g.closed.Store(true)
	for g.inside.Load() != 0 {
		<-g.idle
	}
}
