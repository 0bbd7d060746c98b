package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"fcp/engine/symbols"
	"fcp/node/impair"
)

// kernelPath joins two network namespaces by this process: what the kernel of one
// sends through its TUN device is delayed, queued and handed to the other's.
type kernelPath struct {
	spaces [2]*netspace
	link   *impair.Link // from the first to the second
}

const (
	kernelRate  = 20e6 / 8
	kernelDelay = 10 * time.Millisecond
)

// newKernelPath makes a path of 20 Mbit/s and a round trip of 20 ms. The queue holds
// queue at that rate.
func newKernelPath(t *testing.T, queue time.Duration) *kernelPath {
	t.Helper()
	p := &kernelPath{link: &impair.Link{Rate: kernelRate, Queue: int(kernelRate * queue.Seconds())}}
	for i := range p.spaces {
		s, err := newNetspace(netip.AddrFrom4([4]byte{10, 77, 0, byte(1 + i)}))
		if err != nil {
			t.Skip("did NOT run: no network namespace can be made here:", err)
		}
		t.Cleanup(s.close)
		p.spaces[i] = s
	}
	for i, s := range p.spaces {
		path := impair.Path{Delay: kernelDelay}
		if i == 0 {
			path.Link = p.link
		}
		out := impair.WrapConn(&tunConn{tun: p.spaces[1-i].tun}, path)
		t.Cleanup(func() { out.Close() })
		go func() {
			b := make([]byte, 1<<16)
			for {
				n, err := s.tun.Read(b)
				if err != nil {
					return
				}
				_, _ = out.WriteTo(b[:n], nil) // never fails
			}
		}()
	}
	return p
}

// netspace is a network namespace with one TUN device.
type netspace struct {
	addr netip.Addr
	ns   int // file descriptor
	tun  *os.File
}

// newNetspace makes a namespace. The thread that did it ends with it.
func newNetspace(addr netip.Addr) (s *netspace, err error) {
	s = &netspace{addr: addr, ns: -1}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- s.make()
	}()
	if err := <-done; err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *netspace) make() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	var err error
	if s.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open the namespace: %w", err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun: %w", err)
	}
	sock, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("a socket: %w", err)
	}
	defer unix.Close(sock)
	ip := s.addr.As4()
	for _, c := range []struct {
		what string
		fd   int
		req  uint
		set  func(*unix.Ifreq) error
	}{
		{"make a TUN device", fd, unix.TUNSETIFF, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI); return nil }},
		{"its address", sock, unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(ip[:]) }},
		{"its mask", sock, unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{255, 255, 255, 0}) }},
		{"set it up", sock, unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	} {
		r, err := unix.NewIfreq("fcp0")
		if err == nil {
			err = c.set(r)
		}
		if err == nil {
			err = unix.IoctlIfreq(c.fd, c.req, r)
		}
		if err != nil {
			unix.Close(fd)
			return fmt.Errorf("%s: %w", c.what, err)
		}
	}
	s.tun = os.NewFile(uintptr(fd), "tun")
	return nil
}

func (s *netspace) close() {
	if s.tun != nil {
		s.tun.Close()
	}
	if s.ns >= 0 {
		unix.Close(s.ns)
	}
}

// in calls f on a thread inside the namespace: sockets belong to where they are made.
func (s *netspace) in(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for ever: the thread ends with the goroutine
		err := unix.Setns(s.ns, unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// Listen and Resolve make it a Network.
func (s *netspace) Listen(ctx context.Context, address string) (c net.PacketConn, err error) {
	err = s.in(func() error {
		c, err = UDP{}.Listen(ctx, address)
		return err
	})
	return c, err
}

func (*netspace) Resolve(ctx context.Context, address string) (net.Addr, error) {
	return UDP{}.Resolve(ctx, address)
}

// tunConn hands IP packets to a TUN device.
type tunConn struct {
	net.PacketConn
	tun *os.File
}

func (c *tunConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	if _, err := c.tun.Write(b); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (*tunConn) Close() error { return nil }

// tcp sends as much as it can over one TCP connection of the kernel's and counts what
// arrived, until stop is called.
func (p *kernelPath) tcp(t *testing.T, congestion string) (moved *atomic.Int64, stop func()) {
	t.Helper()
	var l net.Listener
	var c net.Conn
	err := p.spaces[1].in(func() (err error) {
		l, err = net.Listen("tcp4", netip.AddrPortFrom(p.spaces[1].addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
		})
		if err == nil {
			err = cerr
		}
		return err
	}}
	err = p.spaces[0].in(func() (err error) {
		c, err = dialer.Dial("tcp4", l.Addr().String())
		return err
	})
	if err != nil {
		l.Close()
		t.Skipf("did NOT run: no TCP connection with %s: %v", congestion, err)
	}
	moved = new(atomic.Int64)
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		defer in.Close()
		b := make([]byte, 64<<10)
		for err == nil {
			var n int
			n, err = in.Read(b)
			moved.Add(int64(n))
		}
	}()
	go func() { _, _ = io.Copy(struct{ io.Writer }{c}, endless{}) }()
	return moved, func() {
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
		l.Close()
	}
}

type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestTheLaneSharesWithTheKernelsTCP reads mebibytes over the lane beside a TCP flow of
// the kernel's, through 20 Mbit/s at a round trip of 20 ms with a queue that drops
// what does not fit: the lane takes 5 to 60 %, and adds at most 50 ms to the queue
// that the flow alone makes. It is a measurement in real time, by processes that share the
// machine with others: one that says no is made again, and three in a row fail. With FCP_LONG three congestion controls,
// deep and short queues, and either first.
func TestTheLaneSharesWithTheKernelsTCP(t *testing.T) {
	if testing.Short() {
		t.Skip("did NOT run: it takes ten seconds of real time")
	}
	type shape struct {
		congestion string
		queue      time.Duration
		second     bool // TCP is
	}
	shapes := []shape{{"cubic", 100 * time.Millisecond, false}}
	if os.Getenv("FCP_LONG") != "" {
		shapes = nil
		for _, c := range []string{"cubic", "reno", "bbr"} {
			for _, q := range []time.Duration{25, 50, 100, 200} {
				shapes = append(shapes, shape{c, q * time.Millisecond, false}, shape{c, q * time.Millisecond, true})
			}
		}
	}
	for _, c := range shapes {
		order := "first"
		if c.second {
			order = "second"
		}
		t.Run(fmt.Sprintf("%s/%v/%s", c.congestion, c.queue, order), func(t *testing.T) {
			var wrong []string
			for i := range 3 {
				var err error
				t.Run(fmt.Sprint("measurement ", i+1), func(t *testing.T) { err = shareWithTCP(t, c.congestion, c.queue, c.second) })
				if t.Failed() || err == nil {
					return
				}
				wrong = append(wrong, err.Error())
			}
			t.Error(wrong)
		})
	}
}

// long is how many seconds something takes with FCP_LONG, and without.
func long(with, without time.Duration) time.Duration {
	if os.Getenv("FCP_LONG") != "" {
		return with * time.Second
	}
	return without * time.Second
}

// shareWithTCP measures once. It returns an error when the two did not share the path as
// they should.
func shareWithTCP(t *testing.T, congestion string, queue time.Duration, second bool) error {
	p := newKernelPath(t, queue)
	m := newMesh(t, 2, func(i int, o *Options) {
		o.Lane, o.Policy = true, symbols.Policy{Need: 1, Of: 1}
		o.Network, o.Listen = p.spaces[i], netip.AddrPortFrom(p.spaces[i].addr, 0).String()
	})
	m.together()
	m.put(0, "big", randomBytes(1<<20-4096, 1))
	rem := m.laneSegment()
	fetch := func() time.Duration {
		t.Helper()
		at := time.Now()
		if _, err := m.nodes[1].n.Fetch(context.Background(), rem); err != nil {
			t.Fatal(err)
		}
		return time.Since(at)
	}
	fetch()
	p.link.Delays()
	alone := fetch()
	laneQueue, _ := p.link.Delays()

	var before []impair.Delay
	tcpAlone := func() {
		p.link.Delays()
		full := uint64(0)
		for at := time.Now(); full == 0 && time.Since(at) < 15*time.Second; time.Sleep(time.Second) {
			_, full = p.link.Delays() // BBR may never fill the queue
		}
		p.link.Delays()
		time.Sleep(long(4, 2))
		before, _ = p.link.Delays()
	}
	if second { // the lane is at full speed when TCP begins
		for range 3 {
			fetch()
		}
	}
	moved, stop := p.tcp(t, congestion)
	defer stop()
	if !second {
		tcpAlone()
	}
	for at := time.Now(); time.Since(at) < long(3, 2); {
		fetch()
	}
	p.link.Delays()
	var took []time.Duration
	start, at := moved.Load(), time.Now()
	for time.Since(at) < long(8, 4) {
		took = append(took, fetch())
	}
	tcp, seconds := float64(moved.Load()-start), time.Since(at).Seconds()
	beside, dropped := p.link.Delays()
	if second {
		tcpAlone()
	}
	slices.Sort(took)
	lane := float64(len(took) << 20)
	share := lane / (lane + tcp)
	added := percentile(beside, 95) - percentile(before, 95)
	t.Logf("1 MiB alone %v, queue %v; beside TCP: lane %.0f %%, %.1f Mbit/s, TCP %.1f; 1 MiB in %v, at most %v; queue at 95 %%: %v with TCP alone, %v with both (median %v and %v), %d dropped",
		alone.Round(time.Millisecond), percentile(laneQueue, 99).Round(time.Millisecond), 100*share, lane*8/seconds/1e6, tcp*8/seconds/1e6, took[len(took)/2].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond),
		percentile(before, 95).Round(time.Millisecond), percentile(beside, 95).Round(time.Millisecond), percentile(before, 50).Round(time.Millisecond), percentile(beside, 50).Round(time.Millisecond), dropped)
	if share > 0.6 || share < 0.05 || added > 50*time.Millisecond {
		return fmt.Errorf("the lane takes %.0f %% and adds %v", 100*share, added)
	}
	return nil
}
