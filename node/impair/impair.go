// Package impair makes a path between two nodes worse than it is.
//
// # Purpose
//
// A test or a measurement wraps a node's network, and what the node sends is
// delayed, lost at random, and queued for a link of limited rate, which several
// sockets may share. Time comes from package time, so it works in a bubble of
// virtual time too.
//
// # Invariants
//
//   - Packets of one socket that are not lost arrive in the order they were sent.
//   - The same seed loses the same packets.
package impair

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

// Path is what happens to the packets that a socket sends. The zero value does
// nothing.
type Path struct {
	Delay time.Duration
	Loss  int    // in 1/10,000
	Seed  uint64 // of what is lost
	Link  *Link  // nil: no limit
}

// Link is a bottleneck: a rate, and a queue in front of it that drops what does not
// fit. Safe for concurrent use; sockets that share it share its rate.
type Link struct {
	Rate  int // bytes per second
	Queue int // bytes

	mu      sync.Mutex
	free    time.Time // when all that is queued has left; guarded by mu
	dropped uint64    // guarded by mu
	delays  []Delay   // guarded by mu
	since   time.Time // guarded by mu
}

// Delay is how long a packet had to wait in the queue.
type Delay struct {
	At   time.Duration // since the first packet
	Wait time.Duration
}

// overhead is what a UDP packet has on the wire beside its payload: IPv4 and UDP.
const overhead = 28

// admit queues a packet; wait is until it has left the link.
func (l *Link) admit(size int, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		l.since = now
	}
	if l.free.Before(now) {
		l.free = now
	}
	queued := l.free.Sub(now)
	if queued > time.Duration(float64(l.Queue)/float64(l.Rate)*float64(time.Second)) {
		l.dropped++
		return 0, false
	}
	l.delays = append(l.delays, Delay{now.Sub(l.since), queued})
	l.free = l.free.Add(time.Duration(float64(size+overhead) / float64(l.Rate) * float64(time.Second)))
	return l.free.Sub(now), true
}

// Delays returns the waits of all packets so far, and forgets them; dropped is how
// many found the queue full.
func (l *Link) Delays() (delays []Delay, dropped uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delays, dropped = l.delays, l.dropped
	l.delays, l.dropped = nil, 0
	return delays, dropped
}

// Network is a network as package node wants it.
type Network interface {
	Listen(ctx context.Context, address string) (net.PacketConn, error)
	Resolve(ctx context.Context, address string) (net.Addr, error)
}

// Wrapped is a network whose sockets send over a path that Set changes.
type Wrapped struct {
	Network
	mu    sync.Mutex
	path  Path
	conns []*Conn
}

// Wrap makes what is sent over a network go over a path.
func Wrap(n Network, p Path) *Wrapped { return &Wrapped{Network: n, path: p} }

// Listen opens a socket.
func (w *Wrapped) Listen(ctx context.Context, address string) (net.PacketConn, error) {
	c, err := w.Network.Listen(ctx, address)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	x := WrapConn(c, w.path)
	w.conns = append(w.conns, x)
	return x, nil
}

// Set changes the path of all sockets, for packets to come.
func (w *Wrapped) Set(p Path) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.path = p
	for _, c := range w.conns {
		c.Set(p)
	}
}

// Conn is a socket that sends over a path.
type Conn struct {
	net.PacketConn
	now  func() time.Time // of the timers
	done chan struct{}
	once sync.Once
	wake chan struct{}

	mu      sync.Mutex
	path    Path       // guarded by mu
	rnd     *rand.Rand // guarded by mu
	waiting []waiting  // by due time; guarded by mu
}

type waiting struct {
	due time.Time
	b   []byte
	to  net.Addr
}

// WrapConn makes what a socket sends go over a path.
func WrapConn(c net.PacketConn, p Path) *Conn {
	x := &Conn{PacketConn: c, now: time.Now, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	x.Set(p)
	go x.send()
	return x
}

// Set changes the path, for packets to come.
func (c *Conn) Set(p Path) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.path, c.rnd = p, rand.New(rand.NewPCG(p.Seed, 0x1a9e))
}

// WriteTo sends a packet over the path. It never fails because of it.
func (c *Conn) WriteTo(b []byte, to net.Addr) (int, error) {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.path.Delay
	if l := c.path.Link; l != nil {
		wait, ok := l.admit(len(b), now)
		if !ok {
			return len(b), nil
		}
		d += wait
	}
	if c.path.Loss > 0 && c.rnd.IntN(10000) < c.path.Loss {
		return len(b), nil
	}
	due := now.Add(d)
	if n := len(c.waiting); n > 0 && due.Before(c.waiting[n-1].due) {
		due = c.waiting[n-1].due
	}
	c.waiting = append(c.waiting, waiting{due, slices.Clone(b), to})
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(b), nil
}

// send sends packets when they are due.
func (c *Conn) send() {
	t := time.NewTimer(time.Hour)
	defer t.Stop()
	for {
		c.mu.Lock()
		now := c.now()
		n := 0
		for n < len(c.waiting) && !c.waiting[n].due.After(now) {
			n++
		}
		due := slices.Clone(c.waiting[:n])
		c.waiting = slices.Delete(c.waiting, 0, n)
		wait := time.Hour
		if len(c.waiting) > 0 {
			wait = c.waiting[0].due.Sub(now)
		}
		c.mu.Unlock()
		for _, p := range due {
			if _, err := c.PacketConn.WriteTo(p.b, p.to); err != nil {
				break // the socket is closing, or the packet is lost
			}
		}
		if n > 0 {
			continue
		}
		t.Reset(wait)
		select {
		case <-t.C:
		case <-c.wake:
		case <-c.done:
			return
		}
	}
}

// Close closes the socket; what was under way is lost.
func (c *Conn) Close() error {
	c.once.Do(func() { close(c.done) })
	return c.PacketConn.Close()
}

// SetReadBuffer and SetWriteBuffer are what QUIC asks sockets for.
func (c *Conn) SetReadBuffer(n int) error {
	if b, ok := c.PacketConn.(interface{ SetReadBuffer(int) error }); ok {
		return b.SetReadBuffer(n)
	}
	return nil
}

// SetWriteBuffer is described at SetReadBuffer.
func (c *Conn) SetWriteBuffer(n int) error {
	if b, ok := c.PacketConn.(interface{ SetWriteBuffer(int) error }); ok {
		return b.SetWriteBuffer(n)
	}
	return nil
}
