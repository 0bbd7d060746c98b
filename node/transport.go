package node

import (
	"context"
	"crypto/sha256"
	"net"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"fcp"
	"fcp/node/wire"
)

// transport is the node's one socket.
type transport struct {
	conn     net.PacketConn
	quic     *quic.Transport
	listener *quic.Listener
	id       *identity
	packet   uint16 // largest UDP payload; 0: quic-go finds it out
}

func (t *transport) config() *quic.Config {
	return &quic.Config{
		InitialPacketSize:       t.packet,
		DisablePathMTUDiscovery: t.packet != 0,
		Versions:                []quic.Version{quic.Version1},
		HandshakeIdleTimeout:    handshakeWait,
		MaxIdleTimeout:          idleTimeout,
		KeepAlivePeriod:         keepAlive,
		MaxIncomingStreams:      16,
		MaxIncomingUniStreams:   64,
		EnableDatagrams:         true,
	}
}

// listen opens the socket.
func listen(ctx context.Context, network Network, address string, id *identity) (*transport, error) {
	conn, err := network.Listen(ctx, address)
	if err != nil {
		return nil, err
	}
	load := &sourceLoad{now: id.now}
	reset, err := id.resetKey()
	if err != nil {
		conn.Close()
		return nil, err
	}
	t := &transport{conn: conn, quic: &quic.Transport{Conn: conn, StatelessResetKey: reset,
		VerifySourceAddress: func(net.Addr) bool { return load.high() }}, id: id}
	if p, ok := network.(PacketSizer); ok {
		t.packet = p.PacketSize()
	}
	if t.listener, err = t.quic.Listen(id.tlsConfig(), t.config()); err != nil {
		conn.Close()
		return nil, fcp.Wrap(fcp.CodeInternal, err, "listen for QUIC")
	}
	return t, nil
}

// resetKey returns the key of stateless resets (RFC 9000 section 10.3): the same after
// a restart, so that peers learn at once that their sessions ended with the process.
// It is SHA-256 of the node's signature of "FCP2-RESET-KEY-V1", which nobody else can
// make and which is nowhere published.
func (i *identity) resetKey() (*quic.StatelessResetKey, error) {
	sig, err := i.engine.Signer().Sign([]byte("FCP2-RESET-KEY-V1"))
	if err != nil {
		return nil, err
	}
	k := quic.StatelessResetKey(sha256.Sum256(sig))
	return &k, nil
}

// sourceLoad says when so many connections begin that each has to prove that it
// receives at its address before it costs a TLS handshake (RFC 9000 section 8.1.2).
type sourceLoad struct {
	now func() time.Time

	mu    sync.Mutex
	since time.Time // guarded by mu
	count int       // connections begun since; guarded by mu
}

func (l *sourceLoad) high() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); now.Sub(l.since).Abs() >= time.Second {
		l.since, l.count = now, 0
	}
	l.count++
	return l.count > sourcesChecked
}

// laneLoop takes the packets beside QUIC: session datagrams, which begin with the
// id of their session. There is no answer to a packet that fits none.
func (n *Node) laneLoop() {
	b := make([]byte, 1<<16)
	for {
		size, _, err := n.transport.quic.ReadNonQUICPacket(n.life, b)
		if err != nil {
			return
		}
		if size < wire.EnvelopeSize {
			continue
		}
		n.mu.Lock()
		s := n.bySID[wire.SessionID(b[:wire.SessionIDSize])]
		n.mu.Unlock()
		if s != nil {
			s.takeDatagram(b[:size], carrierLane)
		}
	}
}

func (t *transport) dial(ctx context.Context, addr net.Addr) (*quic.Conn, error) {
	c, err := t.quic.Dial(ctx, addr, t.id.tlsConfig(), t.config())
	return c, fcp.Wrap(fcp.CodeTimeout, err, "connect to %s", addr)
}

func (t *transport) close() error {
	err := t.quic.Close()
	if cerr := t.conn.Close(); err == nil {
		err = cerr
	}
	return fcp.Wrap(fcp.CodeInternal, err, "close the socket")
}
