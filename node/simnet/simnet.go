// Package simnet is a network of packets inside one process. A seed decides what
// is lost, delayed, repeated, damaged or put out of order, so that a failure can be
// had again. Inside a testing/synctest bubble its time is virtual.
//
// A Host is a node's view of it and fits node.Network. Sending never blocks; a
// receiver that does not read loses packets, as with a socket.
package simnet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// Link says what happens to packets from one host to another. Chances are in
// basis points (10000: always). The zero Link delivers at once.
type Link struct {
	Delay     time.Duration
	Jitter    time.Duration // added at random: packets overtake each other
	Loss      int
	Duplicate int
	Corrupt   int // one byte is changed
	Rate      int // bytes per second; 0: no limit
	Queue     int // bytes that wait for Rate; what is beyond is lost; 0: 64 KiB
}

// MTU is the largest packet in bytes; larger ones are lost.
const MTU = 1500

// inbox is how many packets wait for a reader.
const inbox = 512

// Counts say what the network did.
type Counts struct{ Sent, Delivered, Lost, Duplicated, Corrupted, Reordered, Cut, Overrun int }

// Network connects hosts. All methods are safe for concurrent use.
type Network struct {
	now func() time.Time

	mu     sync.Mutex
	rnd    *rand.Rand              // guarded by mu
	link   Link                    // guarded by mu
	links  map[[2]string]Link      // guarded by mu
	cut    map[[2]string]bool      // guarded by mu
	busy   map[[2]string]time.Time // when the link is free again; guarded by mu
	conns  map[string]*conn        // by address; guarded by mu
	due    map[[2]string]time.Time // when the last packet arrives; guarded by mu
	ports  map[string]int          // last port given out by host; guarded by mu
	counts Counts                  // guarded by mu
}

// New returns a network in which every pair has the same link. now is time.Now but
// where another clock than that of timers is wanted.
func New(seed uint64, now func() time.Time, link Link) *Network {
	return &Network{now: now, rnd: rand.New(rand.NewPCG(seed, 0x5ca1ab1e)), link: link, links: map[[2]string]Link{}, cut: map[[2]string]bool{},
		busy: map[[2]string]time.Time{}, due: map[[2]string]time.Time{}, conns: map[string]*conn{}, ports: map[string]int{}}
}

// SetLink changes the link between two hosts, both ways.
func (n *Network) SetLink(a, b string, l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[[2]string{a, b}], n.links[[2]string{b, a}] = l, l
}

// SetAll changes every link.
func (n *Network) SetAll(l Link) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.link = l
	clear(n.links)
}

// Cut stops all packets between two hosts, and Heal lets them through again.
func (n *Network) Cut(a, b string)  { n.setCut(a, b, true) }
func (n *Network) Heal(a, b string) { n.setCut(a, b, false) }

// CutOneWay stops the packets from one host to another; those back go through.
func (n *Network) CutOneWay(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{from, to}] = true
}

func (n *Network) setCut(a, b string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a, b}], n.cut[[2]string{b, a}] = cut, cut
}

// HealAll ends every cut.
func (n *Network) HealAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cut)
}

// Counts returns what the network did so far.
func (n *Network) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.counts
}

// Host returns a host's view of the network.
func (n *Network) Host(name string) *Host { return &Host{n, name} }

// Host is one machine.
type Host struct {
	net  *Network
	name string
}

// addr is "host:port".
type addr string

func (addr) Network() string  { return "sim" }
func (a addr) String() string { return string(a) }

func (a addr) host() string {
	h, _, err := net.SplitHostPort(string(a))
	if err != nil {
		return string(a)
	}
	return h
}

// Listen opens a socket of this host; the address is not looked at but for a port
// other than 0.
func (h *Host) Listen(_ context.Context, address string) (net.PacketConn, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	_, port, err := net.SplitHostPort(address)
	if err != nil || port == "0" {
		h.net.ports[h.name]++
		port = fmt.Sprint(h.net.ports[h.name])
	}
	a := addr(net.JoinHostPort(h.name, port))
	if h.net.conns[string(a)] != nil {
		return nil, fmt.Errorf("%s is taken", a)
	}
	c := &conn{net: h.net, addr: a, in: make(chan packet, inbox), closed: make(chan struct{}), deadline: make(chan struct{})}
	h.net.conns[string(a)] = c
	return c, nil
}

// Resolve returns the address as it is.
func (h *Host) Resolve(_ context.Context, address string) (net.Addr, error) {
	return addr(address), nil
}

type packet struct {
	b    []byte
	from addr
}

// conn is a socket.
type conn struct {
	net  *Network
	addr addr
	in   chan packet

	closeOnce sync.Once
	closed    chan struct{}

	mu       sync.Mutex
	deadline chan struct{} // closed when the read deadline passed; guarded by mu
	timer    *time.Timer   // guarded by mu
}

func (c *conn) LocalAddr() net.Addr { return c.addr }

func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	select {
	case <-c.closed:
		return 0, nil, net.ErrClosed
	case <-deadline:
		select {
		case <-c.closed:
			return 0, nil, net.ErrClosed
		default:
			return 0, nil, os.ErrDeadlineExceeded
		}
	default:
	}
	select {
	case p := <-c.in:
		return copy(b, p.b), p.from, nil
	case <-deadline:
		return 0, nil, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *conn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.net.send(c.addr, addr(to.String()), b)
	return len(b), nil
}

func (c *conn) Close() error {
	c.closeOnce.Do(func() {
		close(c.closed)
		c.net.mu.Lock()
		defer c.net.mu.Unlock()
		if c.net.conns[string(c.addr)] == c {
			delete(c.net.conns, string(c.addr))
		}
	})
	return nil
}

func (c *conn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }
func (c *conn) SetReadBuffer(int) error          { return nil }
func (c *conn) SetWriteBuffer(int) error         { return nil }

func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
	select {
	case <-c.deadline:
		c.deadline = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return nil
	}
	passed := c.deadline
	if d := t.Sub(c.net.now()); d > 0 {
		c.timer = time.AfterFunc(d, func() { closeIfOpen(&c.mu, passed) })
	} else {
		close(passed)
	}
	return nil
}

func closeIfOpen(mu *sync.Mutex, c chan struct{}) {
	mu.Lock()
	defer mu.Unlock()
	select {
	case <-c:
	default:
		close(c)
	}
}

// chance reports an event of so many basis points.
func (n *Network) chance(bps int) bool { return bps > 0 && n.rnd.IntN(10000) < bps }

// send decides a packet's fate.
func (n *Network) send(from, to addr, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts.Sent++
	pair := [2]string{from.host(), to.host()}
	l, ok := n.links[pair]
	if !ok {
		l = n.link
	}
	wait, ok := n.queue(pair, &l, len(b))
	switch {
	case n.cut[pair]:
		n.counts.Cut++
		return
	case len(b) > MTU || n.chance(l.Loss) || !ok:
		n.counts.Lost++
		return
	}
	b = slices.Clone(b)
	if n.chance(l.Corrupt) && len(b) > 0 {
		n.counts.Corrupted++
		b[n.rnd.IntN(len(b))] ^= byte(1 + n.rnd.IntN(255))
	}
	copies := 1
	if n.chance(l.Duplicate) {
		n.counts.Duplicated++
		copies = 2
	}
	for range copies {
		d := wait + l.Delay
		if l.Jitter > 0 {
			d += time.Duration(n.rnd.Int64N(int64(l.Jitter)))
			if at := n.now().Add(d); at.Before(n.due[pair]) {
				n.counts.Reordered++
			} else {
				n.due[pair] = at
			}
		}
		time.AfterFunc(d, func() { n.deliver(from, to, b) })
	}
}

// queue returns how long a packet waits for the link's rate; ok is false when the
// queue is full.
func (n *Network) queue(pair [2]string, l *Link, size int) (wait time.Duration, ok bool) {
	if l.Rate == 0 {
		return 0, true
	}
	room := l.Queue
	if room == 0 {
		room = 64 << 10
	}
	perByte := time.Second / time.Duration(l.Rate)
	now := n.now()
	free := n.busy[pair]
	if free.Before(now) {
		free = now
	}
	if free.Sub(now) > time.Duration(room)*perByte {
		return 0, false
	}
	free = free.Add(time.Duration(size) * perByte)
	n.busy[pair] = free
	return free.Sub(now), true
}

func (n *Network) deliver(from, to addr, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := n.conns[string(to)]
	if c == nil || n.cut[[2]string{from.host(), to.host()}] {
		return
	}
	select {
	case c.in <- packet{b, from}:
		n.counts.Delivered++
	default:
		n.counts.Overrun++
	}
}
