package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/quic-go/quic-go"

	"fcp"
)

// liveness runs memberlist (SWIM) among the nodes that have sessions: who is there,
// also as others see it, and a small hint of what each has. Its packets are control
// messages and its connections are streams of our sessions, so only members speak;
// who is a member and where is never taken from it. "Dead" means "do not wait".
type liveness struct {
	node    *Node
	list    *memberlist.Memberlist
	packets chan *memberlist.Packet
	streams chan net.Conn

	mu       sync.Mutex
	presence map[fcp.WriterID]Presence // guarded by mu
}

// Presence is what memberlist says of a member.
type Presence struct {
	Alive    bool
	Since    time.Time
	Feeds    uint64 // control feeds that it has
	Segments uint64 // segments that it holds symbols of
	Profile  Profile
}

// meta is a node's hint, in at most 512 bytes.
type meta struct {
	Vector   fcp.Hash `cbor:"vector"` // gossip.Digest.Hash
	Feeds    uint64   `cbor:"feeds"`
	Segments uint64   `cbor:"segments"`
	Profile  Profile  `cbor:"profile"`
}

// swim is a memberlist packet inside a control message.
type swim struct {
	Packet []byte `cbor:"packet"`
}

var schemaSwim = fcp.MustSchema("fcp.mesh:Liveness@1.0.0")

const (
	maxSwim      = 1400
	swimQueue    = 256
	swimStreams  = 4
	streamSwim   = 1 // first byte of a stream that carries a memberlist connection
	metaEvery    = 2 * time.Second
	swimDeadline = 2 * time.Second
)

// swimAddress stands for every node: nodes are found by name alone.
const swimAddress = "127.0.0.1:1"

func (n *Node) startLiveness() error {
	l := &liveness{node: n, packets: make(chan *memberlist.Packet, swimQueue), streams: make(chan net.Conn, swimStreams),
		presence: map[fcp.WriterID]Presence{}}
	c := memberlist.DefaultLANConfig()
	c.Name = n.self.String()
	c.Transport = l
	c.Delegate, c.Events, c.Alive = l, l, l
	c.LogOutput = slogWriter{n.logger}
	c.EnableCompression = false
	c.DisableTcpPings = true // packets go over streams already
	c.DNSConfigPath = ""
	c.UDPBufferSize = maxSwim
	c.GossipInterval = time.Second
	c.ProbeInterval = 2 * time.Second
	var err error
	if l.list, err = memberlist.Create(c); err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "start memberlist")
	}
	n.live = l
	n.spawn(l.tell)
	return nil
}

// stop ends memberlist. Leave is said by gossip; memberlist's own would wait for an
// echo that may never come.
func (l *liveness) stop() error {
	return fcp.Wrap(fcp.CodeInternal, l.list.Shutdown(), "end memberlist")
}

// Asking whether a peer is there: a live one answers within a round trip.
const (
	pingTries = 3
	pingLeast = 2 * time.Second // between the first question and the end of a session
)

// askWhoIsThere asks every peer that has a session and ends those of peers that do not
// answer: the transport alone takes idleTimeout to notice that a device went without a
// word. It returns when those sessions are gone.
func (n *Node) askWhoIsThere(ctx context.Context) error {
	n.mu.Lock()
	var asked []*Session
	for _, s := range n.sessions {
		asked = append(asked, s)
	}
	n.mu.Unlock()
	var work sync.WaitGroup
	for _, s := range asked {
		work.Go(func() {
			if !n.live.answers(ctx, s.peer.Writer) && ctx.Err() == nil {
				s.end(fcp.Errorf(fcp.CodeTimeout, "%.16s does not answer", s.peer.Writer))
				n.awaitDown(s)
			}
		})
	}
	work.Wait()
	return context.Cause(ctx)
}

// awaitDown waits until an ended session is no longer the one to use with its peer.
func (n *Node) awaitDown(s *Session) {
	for {
		n.mu.Lock()
		stands, next := n.sessions[s.peer.Writer] == s, n.changed
		n.mu.Unlock()
		if !stands {
			return
		}
		select {
		case <-next:
		case <-n.life.Done():
			return
		}
	}
}

// answers reports whether a peer answers a ping.
func (l *liveness) answers(ctx context.Context, peer fcp.WriterID) bool {
	began := l.node.now()
	for i := 0; i < pingTries || l.node.now().Sub(began) < pingLeast; i++ {
		if _, err := l.list.Ping(peer.String(), swimPeer{}); err == nil || ctx.Err() != nil {
			return true
		}
	}
	return false
}

// swimPeer is the address that stands for every node, as a net.Addr.
type swimPeer struct{}

func (swimPeer) Network() string { return "fcp" }
func (swimPeer) String() string  { return swimAddress }

// left notes that a member took its leave, or was lost: what is known at once need
// not be found out.
func (l *liveness) left(w fcp.WriterID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p, ok := l.presence[w]; ok && p.Alive {
		p.Alive, p.Since = false, l.node.now()
		l.presence[w] = p
	}
}

// meet introduces a peer whose session just began.
func (l *liveness) meet(peer fcp.WriterID) {
	if _, err := l.list.Join([]string{peer.String() + "/" + swimAddress}); err != nil {
		l.node.logger.Debug("memberlist did not meet a peer", "peer", peer, "err", err)
	}
}

// tell spreads this node's hint when it changed.
func (l *liveness) tell() {
	t := time.NewTicker(metaEvery)
	defer t.Stop()
	var last []byte
	for {
		select {
		case <-t.C:
		case <-l.node.life.Done():
			return
		}
		if now := l.NodeMeta(memberlist.MetaMaxSize); !bytes.Equal(now, last) {
			last = now
			if err := l.list.UpdateNode(swimDeadline); err != nil {
				l.node.logger.Debug("a hint was not spread", "err", err)
			}
		}
	}
}

// Presence returns what memberlist says of the other members.
func (n *Node) Presence() map[fcp.WriterID]Presence {
	n.live.mu.Lock()
	defer n.live.mu.Unlock()
	out := make(map[fcp.WriterID]Presence, len(n.live.presence))
	for w, p := range n.live.presence {
		out[w] = p
	}
	return out
}

// writerOf returns the member that memberlist names.
func (l *liveness) writerOf(name string) (fcp.WriterID, bool) {
	b, err := hex.DecodeString(name)
	if err != nil || len(b) != fcp.HashSize {
		return fcp.WriterID{}, false
	}
	m, ok := l.node.id.member(fcp.WriterID(b))
	return m.Writer, ok && !m.Revoked
}

// Delegate.

// NodeMeta returns this node's hint.
func (l *liveness) NodeMeta(limit int) []byte {
	n := l.node
	n.mu.Lock()
	d := n.core.Digest()
	n.mu.Unlock()
	n.shares.mu.Lock()
	segments := uint64(len(n.shares.own) + len(n.shares.held))
	n.shares.mu.Unlock()
	b, err := fcp.Marshal(&meta{d.Hash, d.Feeds, segments, n.profile()})
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

func (l *liveness) NotifyMsg([]byte)                {}
func (l *liveness) GetBroadcasts(_, _ int) [][]byte { return nil }
func (l *liveness) LocalState(bool) []byte          { return nil }
func (l *liveness) MergeRemoteState([]byte, bool)   {}

// NotifyAlive refuses who is no member.
func (l *liveness) NotifyAlive(p *memberlist.Node) error {
	if _, ok := l.writerOf(p.Name); !ok {
		return fcp.Errorf(fcp.CodeUnauthorized, "memberlist names a node that is no member")
	}
	return nil
}

// Events.

func (l *liveness) NotifyJoin(p *memberlist.Node)   { l.note(p, true) }
func (l *liveness) NotifyLeave(p *memberlist.Node)  { l.note(p, false) }
func (l *liveness) NotifyUpdate(p *memberlist.Node) { l.note(p, true) }

func (l *liveness) note(p *memberlist.Node, alive bool) {
	w, ok := l.writerOf(p.Name)
	if !ok || w == l.node.self {
		return
	}
	var m meta
	hint := len(p.Meta) <= memberlist.MetaMaxSize && fcp.Unmarshal(p.Meta, &m) == nil && m.Profile.ok()
	l.mu.Lock()
	defer l.mu.Unlock()
	q := l.presence[w]
	if q.Alive != alive || q.Since.IsZero() {
		q.Alive, q.Since = alive, l.node.now()
	}
	if hint {
		q.Feeds, q.Segments, q.Profile = m.Feeds, m.Segments, m.Profile
	}
	l.presence[w] = q
}

// Transport.

// FinalAdvertiseAddr returns the address that stands for every node.
func (l *liveness) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(127, 0, 0, 1), 1, nil
}

// WriteTo is not used: nodes are addressed by name.
func (l *liveness) WriteTo([]byte, string) (time.Time, error) {
	return time.Time{}, fcp.Errorf(fcp.CodeInternal, "a memberlist packet without a name")
}

// WriteToAddress sends a packet in a session; without one it is lost.
func (l *liveness) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	now := l.node.now()
	if w, ok := l.writerOf(to.Name); ok {
		if s := l.node.session(w); s != nil {
			return now, s.send(normal, &swim{bytes.Clone(b)})
		}
	}
	return now, nil
}

func (l *liveness) PacketCh() <-chan *memberlist.Packet { return l.packets }
func (l *liveness) StreamCh() <-chan net.Conn           { return l.streams }

// DialTimeout is not used: nodes are addressed by name.
func (l *liveness) DialTimeout(string, time.Duration) (net.Conn, error) {
	return nil, fcp.Errorf(fcp.CodeInternal, "a memberlist connection without a name")
}

// DialAddressTimeout opens a stream in a session.
func (l *liveness) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	w, ok := l.writerOf(to.Name)
	var s *Session
	if ok {
		s = l.node.session(w)
	}
	if s == nil {
		return nil, fcp.Errorf(fcp.CodeNotFound, "there is no session with %.16s", to.Name)
	}
	ctx, cancel := context.WithTimeout(s.ctx, timeout)
	defer cancel()
	stream, err := s.conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeTimeout, err, "open a stream")
	}
	if _, err := stream.Write([]byte{streamSwim}); err != nil {
		return nil, fcp.Wrap(fcp.CodeTimeout, err, "open a stream")
	}
	return streamConn{stream, s}, nil
}

// Shutdown is called by memberlist; the sessions are not its own.
func (l *liveness) Shutdown() error { return nil }

// takeSwim hands a packet to memberlist; when it is behind the packet is lost.
func (l *liveness) takeSwim(s *Session, m *swim) {
	select {
	case l.packets <- &memberlist.Packet{Buf: m.Packet, From: s.conn.RemoteAddr(), Timestamp: l.node.now()}:
	default:
	}
}

// takeStreams accepts a peer's streams besides the control stream.
func (s *Session) takeStreams() error {
	for {
		stream, err := s.conn.AcceptStream(s.ctx)
		if err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "accept streams of %.16s", s.peer.Writer)
		}
		var kind [1]byte
		stop := bound(stream, swimDeadline)
		_, err = stream.Read(kind[:])
		stop()
		if err != nil || kind[0] != streamSwim {
			stream.CancelRead(0)
			stream.CancelWrite(0)
			continue
		}
		select {
		case s.node.live.streams <- streamConn{stream, s}:
		case <-s.ctx.Done():
			return nil
		}
	}
}

// streamConn makes a stream a net.Conn.
type streamConn struct {
	*quic.Stream
	s *Session
}

func (c streamConn) LocalAddr() net.Addr  { return c.s.conn.LocalAddr() }
func (c streamConn) RemoteAddr() net.Addr { return c.s.conn.RemoteAddr() }

// Close ends both directions.
func (c streamConn) Close() error {
	c.Stream.CancelRead(0)
	return c.Stream.Close()
}

// slogWriter sends memberlist's lines to our log.
type slogWriter struct{ l *slog.Logger }

func (w slogWriter) Write(b []byte) (int, error) {
	w.l.Debug("memberlist", "says", string(bytes.TrimSpace(b)))
	return len(b), nil
}

var _ memberlist.NodeAwareTransport = (*liveness)(nil)
