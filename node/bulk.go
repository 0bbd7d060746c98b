package node

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"fcp"
	"fcp/node/wire"
)

// Shares go over TCP where both sides have it (carrierBulk, carrierPart): the kernel moves
// them at a third of the processor time that QUIC takes. The connection belongs to a
// session. Who wants shares dials it; TLS 1.3 with the certificates of the session's
// members, then both prove, over the exporter of this one connection, that they hold
// the session's keys (docs/format.md "Bulk connection"). Requests, budgets and
// refusals stay in the session. Where it fails the share comes by QUIC.

// StreamNetwork is a Network that has reliable streams besides packets.
type StreamNetwork interface {
	// ListenStream opens a listener at an address of this network.
	ListenStream(ctx context.Context, address string) (net.Listener, error)
	// DialStream connects to one.
	DialStream(ctx context.Context, address string) (net.Conn, error)
}

// ListenStream listens for TCP connections.
func (UDP) ListenStream(ctx context.Context, address string) (net.Listener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", address)
	return l, fcp.Wrap(fcp.CodeInvalidArgument, err, "listen on %s", address)
}

// DialStream makes a TCP connection.
func (UDP) DialStream(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	return c, fcp.Wrap(fcp.CodeTimeout, err, "connect to %s", address)
}

const (
	bulkProtocol      = protocol + "-bulk"
	bulkExporter      = "EXPORTER-FCP2-bulk"
	bulkHead          = 8 + 4            // u64be request, u32be bytes
	bulkDialWait      = 2 * time.Second  // until a peer is asked by QUIC instead
	bulkShareWait     = 30 * time.Second // for a share to be taken
	bulkAgain         = 30 * time.Second // after a failure
	bulkUnasked       = 256              // shares and pieces in a row that nobody waits for
	maxBulkHandshakes = 16
)

// bulkServer is a node's end of connections that peers dial.
type bulkServer struct {
	listener   net.Listener // nil: none
	port       uint64       // of listener
	handshakes atomic.Int64 // under way
}

// bulkLink is a session's two bulk connections.
type bulkLink struct {
	key  wire.Key
	turn chan struct{} // held while a share is written

	mu     sync.Mutex
	out    net.Conn      // that the peer dialled; guarded by mu
	in     net.Conn      // that this node dialled; guarded by mu
	after  time.Time     // not dialled before; guarded by mu
	dialed chan struct{} // closed when a dial under way is over; guarded by mu
}

// listenBulk opens the listener where the network has one: at the address of the
// socket, or else at any port beside it.
func (n *Node) listenBulk(ctx context.Context) {
	network, ok := n.opt.Network.(StreamNetwork)
	if !ok {
		return
	}
	l, err := network.ListenStream(ctx, n.Addr().String())
	if err != nil {
		var host string
		if host, _, err = net.SplitHostPort(n.Addr().String()); err == nil {
			l, err = network.ListenStream(ctx, net.JoinHostPort(host, "0"))
		}
	}
	if err == nil {
		n.bulk.port, err = portOf(l.Addr())
	}
	if err != nil {
		n.logger.Warn("no bulk connections are taken", "err", err)
		return
	}
	n.bulk.listener = l
	n.spawn(n.bulkLoop)
}

func portOf(a net.Addr) (uint64, error) {
	_, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return 0, fcp.Wrap(fcp.CodeInvalidArgument, err, "the address %s", a)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	return p, fcp.Wrap(fcp.CodeInvalidArgument, err, "the address %s", a)
}

func (b *bulkServer) close() {
	if b.listener != nil {
		b.listener.Close() // its error would say that it is closed
	}
}

// bulkLoop takes connections.
func (n *Node) bulkLoop() {
	defer context.AfterFunc(n.life, n.bulk.close)()
	for {
		c, err := n.bulk.listener.Accept()
		if errors.Is(err, net.ErrClosed) || n.life.Err() != nil {
			return
		}
		if err != nil { // too many files are open
			n.logger.Warn("a bulk connection was not taken", "err", err)
			if !n.pause(time.Second) {
				return
			}
			continue
		}
		if n.bulk.handshakes.Add(1) > maxBulkHandshakes {
			n.bulk.handshakes.Add(-1)
			c.Close()
			continue
		}
		n.spawn(func() {
			defer n.bulk.handshakes.Add(-1)
			if err := n.answerBulk(c); err != nil {
				c.Close()
				n.logger.Debug("a bulk connection was refused", "from", c.RemoteAddr(), "err", err)
			}
		})
	}
}

func (n *Node) bulkTLS() *tls.Config {
	c := n.id.tlsConfig()
	c.NextProtos, c.DynamicRecordSizingDisabled = []string{bulkProtocol}, true
	return c
}

// shakeBulk does the TLS handshake and returns who the other side is.
func (n *Node) shakeBulk(ctx context.Context, c *tls.Conn) (who fcp.WriterID, state tls.ConnectionState, err error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return who, state, fcp.Wrap(fcp.CodeUnauthorized, err, "a bulk connection")
	}
	state = c.ConnectionState()
	if state.NegotiatedProtocol != bulkProtocol {
		return who, state, fcp.Errorf(fcp.CodeVersion, "a bulk connection of protocol %q", state.NegotiatedProtocol)
	}
	peer, err := n.id.peer(&state)
	return peer.Writer, state, err
}

// answerBulk takes a connection that a peer dialled: within helloWait it has proven
// which session it is of.
func (n *Node) answerBulk(raw net.Conn) error {
	t := time.AfterFunc(helloWait, func() { raw.Close() })
	defer t.Stop()
	defer context.AfterFunc(n.life, func() { raw.Close() })()
	if err := n.admit(raw.RemoteAddr()); err != nil {
		return err
	}
	c := tls.Server(raw, n.bulkTLS())
	who, state, err := n.shakeBulk(n.life, c)
	if err != nil {
		return err
	}
	var hello [wire.SessionIDSize + sha256.Size]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		return fcp.Wrap(fcp.CodeTimeout, err, "wait for the hello of a bulk connection")
	}
	n.mu.Lock()
	s := n.bySID[wire.SessionID(hello[:wire.SessionIDSize])]
	n.mu.Unlock()
	if s == nil || s.peer.Writer != who {
		return fcp.Errorf(fcp.CodeUnauthorized, "a bulk connection of no session with %.16s", who)
	}
	want, err := s.bulkProof(&state, s.direction.Back())
	if err != nil {
		return err
	}
	if !hmac.Equal(want, hello[wire.SessionIDSize:]) {
		s.budget.failedAuth()
		return fcp.Errorf(fcp.CodeUnauthorized, "a bulk connection without the session's keys")
	}
	own, err := s.bulkProof(&state, s.direction)
	if err != nil {
		return err
	}
	s.bulk.setOut(c)
	context.AfterFunc(s.ctx, func() { raw.Close() })
	if _, err := c.Write(own); err != nil {
		return fcp.Wrap(fcp.CodeTimeout, err, "answer a bulk connection")
	}
	return nil
}

// bulkProof is what the side that sends in a direction says on a connection: that it
// has the session's keys, and that it is the end of this very connection.
func (s *Session) bulkProof(state *tls.ConnectionState, d wire.Direction) ([]byte, error) {
	exporter, err := state.ExportKeyingMaterial(bulkExporter, nil, 32)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "export keying material")
	}
	h := hmac.New(sha256.New, s.bulk.key[:])
	h.Write(exporter)
	h.Write(s.id[:])
	h.Write([]byte{byte(d)})
	return h.Sum(nil), nil
}

// setOut makes a connection the one that shares go to; one before it ends.
func (l *bulkLink) setOut(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out != nil {
		l.out.Close()
	}
	l.out = c
}

// dropOut ends a connection that shares went to.
func (l *bulkLink) dropOut(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Close()
	if l.out == c {
		l.out = nil
	}
}

// writeBulk sends a share, or a piece of one, over the connection that the peer dialled.
// A peer that does not take it in time loses the connection.
func (s *Session) writeBulk(ctx context.Context, list ...[]byte) error {
	select {
	case s.bulk.turn <- struct{}{}:
		defer func() { <-s.bulk.turn }()
	case <-ctx.Done():
		return nil // nobody waits any more
	}
	s.bulk.mu.Lock()
	c := s.bulk.out
	s.bulk.mu.Unlock()
	if c == nil {
		return fcp.Errorf(fcp.CodeNotFound, "a bulk connection of the session")
	}
	t := time.AfterFunc(bulkShareWait, func() { c.Close() })
	defer t.Stop()
	for _, b := range list {
		if _, err := c.Write(b); err != nil {
			s.bulk.dropOut(c)
			return fcp.Wrap(fcp.CodeTimeout, err, "send a whole share")
		}
	}
	return nil
}

// mayBulk returns the network over which the peer can be dialled; nil for none.
func (s *Session) mayBulk() StreamNetwork {
	network, ok := s.node.opt.Network.(StreamNetwork)
	if !ok || !s.gives(carrierBulk) || s.caps.Bulk == 0 || s.caps.Bulk > 1<<16-1 {
		return nil
	}
	return network
}

// bulkUp reports whether shares can come over a bulk connection. The first call dials.
func (s *Session) bulkUp(ctx context.Context) bool {
	l, network := &s.bulk, s.mayBulk()
	if network == nil {
		return false
	}
	for {
		l.mu.Lock()
		switch {
		case l.in != nil || s.node.now().Before(l.after):
			up := l.in != nil
			l.mu.Unlock()
			return up
		case l.dialed != nil:
			wait := l.dialed
			l.mu.Unlock()
			select {
			case <-wait:
			case <-ctx.Done():
				return false
			}
			continue
		}
		over := make(chan struct{})
		l.dialed = over
		l.mu.Unlock()
		c, err := s.dialBulk(network)
		if err != nil {
			s.node.logger.Debug("no bulk connection", "peer", s.peer.Writer, "err", err)
		}
		l.mu.Lock()
		l.in, l.dialed = c, nil
		if c == nil {
			l.after = s.node.now().Add(bulkAgain)
		}
		l.mu.Unlock()
		close(over)
		if c != nil {
			s.spawn(func() {
				err := s.readBulk(c)
				s.endBulk(c)
				s.node.logger.Debug("a bulk connection ended", "peer", s.peer.Writer, "err", err)
			})
		}
	}
}

// dialBulk makes a connection to the peer and proves it to be of this session.
func (s *Session) dialBulk(network StreamNetwork) (net.Conn, error) {
	n := s.node
	ctx, cancel := context.WithTimeout(s.ctx, bulkDialWait)
	defer cancel()
	host, _, err := net.SplitHostPort(s.conn.RemoteAddr().String())
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "the address of %.16s", s.peer.Writer)
	}
	raw, err := network.DialStream(ctx, net.JoinHostPort(host, strconv.FormatUint(s.caps.Bulk, 10)))
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	c := tls.Client(raw, n.bulkTLS())
	err = s.proveBulk(ctx, c)
	if !stop() && err == nil {
		err = fcp.Errorf(fcp.CodeTimeout, "a bulk connection")
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	context.AfterFunc(s.ctx, func() { raw.Close() })
	return c, nil
}

func (s *Session) proveBulk(ctx context.Context, c *tls.Conn) error {
	who, state, err := s.node.shakeBulk(ctx, c)
	if err != nil {
		return err
	}
	if who != s.peer.Writer {
		return fcp.Errorf(fcp.CodeUnauthorized, "a bulk connection to another node")
	}
	own, err := s.bulkProof(&state, s.direction)
	if err != nil {
		return err
	}
	if _, err := c.Write(slices.Concat(s.id[:], own)); err != nil {
		return fcp.Wrap(fcp.CodeTimeout, err, "begin a bulk connection")
	}
	want, err := s.bulkProof(&state, s.direction.Back())
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		return fcp.Wrap(fcp.CodeTimeout, err, "wait for the answer on a bulk connection")
	}
	if !hmac.Equal(want, got) {
		return fcp.Errorf(fcp.CodeUnauthorized, "a bulk connection without the session's keys")
	}
	return nil
}

// endBulk gives a connection up that this node dialled. Who waits for a share of it
// asks by QUIC.
func (s *Session) endBulk(c net.Conn) {
	l := &s.bulk
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in == c && c != nil {
		l.in, l.after = nil, s.node.now().Add(bulkAgain)
		c.Close()
	}
}

// readBulk takes shares. The session's requests say how long each may be.
func (s *Session) readBulk(c net.Conn) (err error) {
	defer func() { s.whole.lost(s, err) }()
	var head [bulkHead]byte
	for unasked := 0; ; {
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "read a bulk connection")
		}
		id, size := binary.BigEndian.Uint64(head[:]), binary.BigEndian.Uint32(head[8:])
		if size > maxWhole {
			return fcp.Errorf(fcp.CodeTooLarge, "a whole share of %d bytes", size)
		}
		t := time.AfterFunc(bulkShareWait, func() { c.Close() })
		w := s.whole.begin(id, carrierBulk, nil)
		if w == nil { // given up since, or nobody ever asked
			s.node.metrics.SymbolsUnasked.Add(1)
			_, err := io.CopyN(io.Discard, c, int64(size))
			t.Stop()
			if err != nil {
				return fcp.Wrap(fcp.CodeTimeout, err, "read a bulk connection")
			}
			if s.whole.givenUp() {
				continue
			}
			if unasked++; unasked > bulkUnasked {
				return fcp.Errorf(fcp.CodeMalformed, "%d shares that nobody waits for", unasked)
			}
			continue
		}
		unasked = 0
		if w.to != nil {
			err := s.readPiece(c, id, w, size)
			t.Stop()
			if err != nil {
				return err
			}
			continue
		}
		var err error = fcp.Errorf(fcp.CodeMalformed, "a whole share of %d bytes, not %d", size, len(w.into))
		if int(size) == len(w.into) {
			_, err = io.ReadFull(c, w.into)
			err = fcp.Wrap(fcp.CodeTimeout, err, "read a whole share")
		}
		t.Stop()
		w.end(err)
		if err != nil {
			return err
		}
	}
}
