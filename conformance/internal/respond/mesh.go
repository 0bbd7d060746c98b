package respond

import (
	"crypto/ecdh"
	"crypto/ed25519"

	"fcp"
	"fcp/node/wire"
)

// verifyKey is an Ed25519 key that checks handshakes.
type verifyKey [32]byte

func (k verifyKey) Verify(message, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(k[:], message, sig)
}

var meshOps = []Operation{
	{Name: "hello.verify", Input: "a hello", Params: []Param{{"to", "node id of the receiver"}, {"key", "signing key of the sender, hex"}, {"now", "unix seconds"}},
		Output: "the bytes that are signed", run: func(in []byte, p *params) ([]byte, error) {
			h, err := wire.DecodeHello(in)
			if err != nil {
				return nil, err
			}
			if err := h.Verify(p.text("to"), verifyKey(p.key("key")), p.time("now")); err != nil {
				return nil, err
			}
			return h.Transcript()
		}},
	{Name: "ack.verify", Input: "an ack", Params: []Param{{"hello", "the hello it answers, hex"}, {"key", "signing key of the sender, hex"}, {"now", "unix seconds"}},
		Output: "the bytes that are signed", run: func(in []byte, p *params) ([]byte, error) {
			a, err := wire.DecodeAck(in)
			if err != nil {
				return nil, err
			}
			h, err := wire.DecodeHello(p.bytes("hello", -1))
			if err != nil {
				return nil, err
			}
			if err := a.Verify(&h, verifyKey(p.key("key")), p.time("now")); err != nil {
				return nil, err
			}
			return a.Transcript(&h)
		}},
	{Name: "suite.pick", Input: "nothing", Params: []Param{{"initiator", "suites, best first, joined by commas"}, {"responder", "suites, joined by commas"}},
		Output: "one byte: the suite", run: func(_ []byte, p *params) ([]byte, error) {
			s, err := wire.PickSuite(suites(p, "initiator"), suites(p, "responder"))
			return []byte{byte(s)}, err
		}},
	{Name: "hello.cookie", Input: "a hello", Params: []Param{{"key", "the responder's cookie key, hex"}}, Output: "the cookie", run: func(in []byte, p *params) ([]byte, error) {
		h, err := wire.DecodeHello(in)
		if err != nil {
			return nil, err
		}
		c, err := wire.CookieFor(p.key("key"), &h)
		return c[:], err
	}},
	{Name: "session.keys", Input: "the own ephemeral X25519 scalar", Params: []Param{{"peer", "the other's ephemeral key, hex"}, {"hello", "as sent, hex"}, {"ack", "as sent, hex"},
		{"exporter", "32 bytes of the TLS exporter, hex; empty: no binding"}}, Output: "MAC key to the responder, MAC key to the initiator, context key", run: sessionKeys},
	{Name: "symbols.check", Input: "a symbol frame", Params: []Param{{"layout", "1 or 2"}, {"limit", "bytes; 0: none"}}, Output: "the frame, encoded again",
		run: func(in []byte, p *params) ([]byte, error) {
			l := wire.Layout(p.number("layout"))
			f, err := wire.DecodeStrict(in, l, p.small("limit"))
			if err != nil {
				return nil, err
			}
			return f.AppendTo(nil, l)
		}},
	{Name: "symbols.open", Input: "a symbol frame of layout 2", Params: []Param{{"key", "the direction's symbol key, hex"}}, Output: "the symbols, one behind the other",
		run: func(in []byte, p *params) ([]byte, error) {
			f, err := wire.DecodeStrict(in, wire.LayoutNative, 0)
			if err != nil {
				return nil, err
			}
			c, err := wire.NewSymbolCipher(p.key("key"))
			if err != nil {
				return nil, err
			}
			var out []byte
			for i := range f.Records {
				if out, err = c.Open(out, &f.Header, &f.Records[i]); err != nil {
					return nil, err
				}
			}
			return out, nil
		}},
	{Name: "control.open", Input: "a control frame", Params: []Param{{"session", "session id, hex"}, {"key", "context key, hex"}, {"direction", "0 to the responder, 1 to the initiator"}},
		Output: "the plaintext", run: func(in []byte, p *params) ([]byte, error) {
			h, sealed, err := wire.DecodeControl(in, wire.MaxControl)
			if err != nil {
				return nil, err
			}
			c, err := wire.NewControlCipher(wire.SessionID(p.bytes("session", wire.SessionIDSize)), p.key("key"))
			if err != nil {
				return nil, err
			}
			return c.Open(nil, wire.Direction(p.number("direction")), &h, sealed)
		}},
	{Name: "datagram.check", Input: "a session datagram", Params: []Param{{"suite", "1 or 2"}, {"key", "MAC key of the direction, hex"}, {"session", "session id, hex"}, {"direction", "0 or 1"}},
		Output: "the frame in it", run: func(in []byte, p *params) ([]byte, error) {
			d, err := wire.DecodeDatagram(in, 1<<16)
			if err != nil {
				return nil, err
			}
			session := wire.SessionID(p.bytes("session", wire.SessionIDSize))
			m, err := wire.NewMAC(wire.Suite(p.number("suite")), p.key("key"), session, wire.Direction(p.number("direction")))
			if err != nil {
				return nil, err
			}
			if d.Session != session || m.Sum(d.Seq, d.Frame) != d.MAC {
				return nil, fcp.Errorf(fcp.CodeChecksum, "the MAC of a datagram")
			}
			return d.Frame, nil
		}},
	{Name: "replay.accept", Input: "nothing", Params: []Param{{"window", "numbers"}, {"numbers", "as they arrive, joined by commas"}}, Output: "one byte each: 01 taken, 00 dropped",
		run: func(_ []byte, p *params) ([]byte, error) {
			w := wire.NewWindow(p.small("window"))
			var out []byte
			for _, text := range p.list("numbers") {
				x := &params{values: map[string]string{"n": text}}
				out = append(out, 0)
				if w.Accept(x.number("n")) {
					out[len(out)-1] = 1
				}
				if x.err != nil {
					return nil, x.err
				}
			}
			return out, nil
		}},
}

func suites(p *params, name string) (out []wire.Suite) {
	for _, text := range p.list(name) {
		x := &params{values: map[string]string{name: text}}
		out = append(out, wire.Suite(x.number(name)))
		if x.err != nil {
			p.bad(name, x.err)
		}
	}
	return out
}

func sessionKeys(in []byte, p *params) ([]byte, error) {
	own, err := ecdh.X25519().NewPrivateKey(in)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "the ephemeral scalar")
	}
	secret, err := wire.SharedSecret(own, p.key("peer"))
	if err != nil {
		return nil, err
	}
	hello, ack := p.bytes("hello", -1), p.bytes("ack", -1)
	h, err := wire.DecodeHello(hello)
	if err != nil {
		return nil, err
	}
	a, err := wire.DecodeAck(ack)
	if err != nil {
		return nil, err
	}
	input := &wire.KeyInput{Initiator: h.From, Responder: h.To, HelloNonce: h.Nonce, AckNonce: a.Nonce, Session: a.Session}
	if p.text("exporter") != "" {
		input.Binding = wire.Bind(p.bytes("exporter", 32), hello, ack)
	}
	k, err := wire.DeriveKeys(secret, input)
	if err != nil {
		return nil, err
	}
	return append(append(k.MAC[wire.ToResponder][:], k.MAC[wire.ToInitiator][:]...), k.Context[:]...), nil
}
