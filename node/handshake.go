package node

import (
	"context"
	"crypto/ecdh"
	"encoding/binary"
	"io"
	"time"

	"github.com/quic-go/quic-go"

	"fcp"
	"fcp/engine"
	"fcp/node/wire"
)

// Handshake messages on a stream are u8 type || u16be length || message. Control
// frames follow on the same stream.
const (
	typeHello = 1
	typeAck   = 2
	typeRetry = 3
)

const exporterLabel = "EXPORTER-FCP2-session"

// suites are those of this build, best first. With SHA extensions HMAC-SHA256 is
// the faster one at the size of a symbol frame.
var suites = []wire.Suite{wire.SuiteHMAC, wire.SuiteBLAKE3}

// established is the result of a handshake.
type established struct {
	peer      engine.Member
	keys      wire.Keys
	session   wire.SessionID
	suite     wire.Suite
	direction wire.Direction // in which this node sends
	limit     int            // bytes of a session datagram
	stream    *quic.Stream
	conn      *quic.Conn
}

func writeHandshake(w io.Writer, kind byte, b []byte) error {
	if len(b) > wire.MaxHandshake {
		return fcp.Errorf(fcp.CodeTooLarge, "a handshake message of %d bytes", len(b))
	}
	out := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(b)))
	_, err := w.Write(append(out, b...))
	return fcp.Wrap(fcp.CodeTimeout, err, "send a handshake message")
}

func readHandshake(r io.Reader) (kind byte, b []byte, err error) {
	var head [3]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fcp.Wrap(fcp.CodeTimeout, err, "wait for a handshake message")
	}
	n := binary.BigEndian.Uint16(head[1:])
	if n > wire.MaxHandshake {
		return 0, nil, fcp.Errorf(fcp.CodeTooLarge, "a handshake message of %d bytes", n)
	}
	b = make([]byte, n)
	_, err = io.ReadFull(r, b)
	return head[0], b, fcp.Wrap(fcp.CodeTimeout, err, "wait for a handshake message")
}

// bound gives what follows on a stream a time, by a timer: a deadline would be as of
// the wall clock, which somebody may set. The caller calls stop when it is done.
func bound(stream *quic.Stream, d time.Duration) (stop func()) {
	t := time.AfterFunc(d, func() {
		stream.CancelRead(0)
		stream.CancelWrite(0)
	})
	return func() { t.Stop() }
}

func (n *Node) random(b []byte) error {
	_, err := io.ReadFull(n.rand, b)
	return fcp.Wrap(fcp.CodeInternal, err, "read randomness")
}

// newEphemeral makes an X25519 key. GenerateKey ignores the reader it is given, so
// the scalar is read here.
func (n *Node) newEphemeral() (*ecdh.PrivateKey, error) {
	var b [wire.KeySize]byte
	defer clear(b[:])
	if err := n.random(b[:]); err != nil {
		return nil, err
	}
	k, err := ecdh.X25519().NewPrivateKey(b[:])
	return k, fcp.Wrap(fcp.CodeInternal, err, "an ephemeral key")
}

// initiate opens a session over a connection that this node dialled.
func (n *Node) initiate(ctx context.Context, conn *quic.Conn) (*established, error) {
	state := conn.ConnectionState().TLS
	peer, err := n.id.peer(&state)
	if err != nil {
		return nil, err
	}
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeTimeout, err, "open the control stream")
	}
	defer bound(stream, helloWait)()
	own, err := n.newEphemeral()
	if err != nil {
		return nil, err
	}
	h := &wire.Hello{From: n.self.String(), To: peer.Writer.String(), Ephemeral: [wire.KeySize]byte(own.PublicKey().Bytes()),
		Timestamp: uint64(n.now().Unix()), Suites: suites, Limit: wire.DefaultDatagram}
	if err := n.random(h.Nonce[:]); err != nil {
		return nil, err
	}
	var sent []byte
	var kind byte
	var answer []byte
	for range 2 { // once more with a cookie
		if sent, err = n.signHello(h); err != nil {
			return nil, err
		}
		if err := writeHandshake(stream, typeHello, sent); err != nil {
			return nil, err
		}
		if kind, answer, err = readHandshake(stream); err != nil {
			return nil, err
		}
		if kind != typeRetry {
			break
		}
		r, err := wire.DecodeRetry(answer)
		if err != nil {
			return nil, err
		}
		h.Cookie = r.Cookie[:]
	}
	if kind != typeAck {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a handshake message of type %d for an ack", kind)
	}
	a, err := wire.DecodeAck(answer)
	if err != nil {
		return nil, err
	}
	if err := a.Verify(h, peer.Keys.Signing, n.now()); err != nil {
		return nil, err
	}
	return n.establish(conn, stream, peer, own, h, &a, sent, answer, wire.ToResponder)
}

func (n *Node) signHello(h *wire.Hello) ([]byte, error) {
	h.Signature = nil
	m, err := h.Transcript()
	if err != nil {
		return nil, err
	}
	if h.Signature, err = n.engine.Signer().Sign(m); err != nil {
		return nil, err
	}
	return h.Encode()
}

// respond waits for the hello on a connection that a peer dialled.
func (n *Node) respond(ctx context.Context, conn *quic.Conn) (*established, error) {
	state := conn.ConnectionState().TLS
	peer, err := n.id.peer(&state)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, helloWait)
	defer cancel()
	stream, err := conn.AcceptStream(ctx)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeTimeout, err, "wait for the control stream")
	}
	defer bound(stream, helloWait)()
	h, received, err := n.readHello(stream, peer)
	if err != nil {
		return nil, err
	}
	if n.handshakes.Load() > cookieAbove && !wire.CookieFits(n.cookieKey, h) {
		if h, received, err = n.askCookie(stream, peer, h); err != nil {
			return nil, err
		}
	}
	a := &wire.Ack{From: h.To, To: h.From, Timestamp: uint64(n.now().Unix())}
	if a.Suite, err = wire.PickSuite(h.Suites, suites); err != nil {
		return nil, err
	}
	own, err := n.newEphemeral()
	if err != nil {
		return nil, err
	}
	a.Ephemeral = [wire.KeySize]byte(own.PublicKey().Bytes())
	if err := n.random(a.Nonce[:]); err != nil {
		return nil, err
	}
	if err := n.random(a.Session[:]); err != nil {
		return nil, err
	}
	a.Session[0] &= 0x3f // see wire.SessionID
	m, err := a.Transcript(h)
	if err != nil {
		return nil, err
	}
	if a.Signature, err = n.engine.Signer().Sign(m); err != nil {
		return nil, err
	}
	sent, err := a.Encode()
	if err != nil {
		return nil, err
	}
	if err := writeHandshake(stream, typeAck, sent); err != nil {
		return nil, err
	}
	return n.establish(conn, stream, peer, own, h, a, received, sent, wire.ToInitiator)
}

func (n *Node) readHello(stream io.Reader, peer engine.Member) (*wire.Hello, []byte, error) {
	kind, b, err := readHandshake(stream)
	if err != nil {
		return nil, nil, err
	}
	if kind != typeHello {
		return nil, nil, fcp.Errorf(fcp.CodeMalformed, "a handshake message of type %d for a hello", kind)
	}
	h, err := wire.DecodeHello(b)
	if err != nil {
		return nil, nil, err
	}
	if h.From != peer.Writer.String() {
		return nil, nil, fcp.Errorf(fcp.CodeUnauthorized, "a hello by another node than the certificate's: %w", wire.ReasonPeer)
	}
	return &h, b, h.Verify(n.self.String(), peer.Keys.Signing, n.now())
}

func (n *Node) askCookie(stream *quic.Stream, peer engine.Member, h *wire.Hello) (*wire.Hello, []byte, error) {
	c, err := wire.CookieFor(n.cookieKey, h)
	if err != nil {
		return nil, nil, err
	}
	n.metrics.CookiesAsked.Add(1)
	r := wire.Retry{From: h.To, To: h.From, Cookie: c, Timestamp: uint64(n.now().Unix())}
	b, err := r.Encode()
	if err != nil {
		return nil, nil, err
	}
	if err := writeHandshake(stream, typeRetry, b); err != nil {
		return nil, nil, err
	}
	again, received, err := n.readHello(stream, peer)
	if err == nil && !wire.CookieFits(n.cookieKey, again) {
		err = fcp.Errorf(fcp.CodeUnauthorized, "a hello without the cookie it was asked for")
	}
	return again, received, err
}

// establish derives the keys, bound to the connection and to both messages.
func (n *Node) establish(conn *quic.Conn, stream *quic.Stream, peer engine.Member, own *ecdh.PrivateKey, h *wire.Hello, a *wire.Ack, hello, ack []byte, d wire.Direction) (*established, error) {
	theirs := a.Ephemeral
	if d == wire.ToInitiator {
		theirs = h.Ephemeral
	}
	secret, err := wire.SharedSecret(own, theirs)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	state := conn.ConnectionState().TLS
	exporter, err := state.ExportKeyingMaterial(exporterLabel, nil, 32)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "export keying material")
	}
	keys, err := wire.DeriveKeys(secret, &wire.KeyInput{Initiator: h.From, Responder: h.To, HelloNonce: h.Nonce, AckNonce: a.Nonce,
		Session: a.Session, Binding: wire.Bind(exporter, hello, ack)})
	if err != nil {
		return nil, err
	}
	return &established{peer: peer, keys: keys, session: a.Session, suite: a.Suite, direction: d,
		limit: wire.Limit(h.Limit, wire.DefaultDatagram), stream: stream, conn: conn}, nil
}
