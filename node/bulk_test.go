package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"fcp"
	"fcp/engine/symbols"
	"fcp/node/simnet"
	"fcp/node/wire"
)

// bulkDial is one try at a bulk connection of the giver's, as a TLS client that says
// hello; hello is given the state of the connection. It returns what was
// answered and what answerBulk did.
func bulkDial(t *testing.T, giver *Node, conf *tls.Config, hello func(*tls.ConnectionState) []byte) (answer []byte, refused error) {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan error, 1)
	go func() {
		err := giver.answerBulk(there)
		if err != nil {
			there.Close()
		}
		done <- err
	}()
	c := tls.Client(here, conf)
	defer here.Close()
	if err := c.HandshakeContext(context.Background()); err == nil {
		state := c.ConnectionState()
		if _, err := c.Write(hello(&state)); err == nil {
			answer = make([]byte, sha256.Size)
			if _, err := io.ReadFull(c, answer); err != nil {
				answer = nil
			}
		}
	}
	return answer, <-done
}

// proof is the hello of a session.
func (s *Session) bulkHello(t *testing.T, state *tls.ConnectionState, d wire.Direction) []byte {
	t.Helper()
	p, err := s.bulkProof(state, d)
	if err != nil {
		t.Fatal(err)
	}
	return slices.Concat(s.id[:], p)
}

// TestABulkConnectionIsOfOneSession has a member and others try to get a connection
// that they may not have: of another member's session, without its keys, with a hello
// that was said on another connection or in the other direction, without a
// certificate, by the protocol of sessions, and of a session that is not there. Then
// the right one gets it.
func TestABulkConnectionIsOfOneSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newSimMesh(t, 3, 6, simnet.Link{Delay: time.Millisecond})
		defer m.close()
		m.together()
		time.Sleep(10 * time.Second)
		a, b, c := m.nodes[0].n, m.nodes[1].n, m.nodes[2].n
		s := b.session(a.self)
		right := func(state *tls.ConnectionState) []byte { return s.bulkHello(t, state, s.direction) }
		var said []byte
		if answer, err := bulkDial(t, a, b.bulkTLS(), func(state *tls.ConnectionState) []byte { said = right(state); return said }); err != nil || answer == nil {
			t.Fatal("the right one:", err)
		}
		session := b.bulkTLS()
		session.NextProtos = []string{protocol}
		none := b.bulkTLS()
		none.NextProtos = nil
		for _, x := range []struct {
			name  string
			conf  *tls.Config
			hello func(*tls.ConnectionState) []byte
		}{
			{"another member with the session's keys", c.bulkTLS(), right},
			{"a hello of another connection", b.bulkTLS(), func(*tls.ConnectionState) []byte { return said }},
			{"the other direction", b.bulkTLS(), func(state *tls.ConnectionState) []byte { return s.bulkHello(t, state, s.direction.Back()) }},
			{"a session that is not there", b.bulkTLS(), func(state *tls.ConnectionState) []byte {
				h := right(state)
				h[3] ^= 1
				return h
			}},
			{"another key", b.bulkTLS(), func(state *tls.ConnectionState) []byte {
				other := &Session{id: s.id, bulk: bulkLink{key: wire.Key{1}}}
				return other.bulkHello(t, state, s.direction)
			}},
			{"no certificate", &tls.Config{InsecureSkipVerify: true, NextProtos: []string{bulkProtocol}, Time: time.Now}, right},
			{"the protocol of sessions", session, right},
			{"no protocol", none, right},
		} {
			if answer, err := bulkDial(t, a, x.conf, x.hello); err == nil || answer != nil {
				t.Errorf("%s: %v, answered: %v", x.name, err, answer != nil)
			}
		}
		if answer, err := bulkDial(t, a, b.bulkTLS(), right); err != nil || answer == nil {
			t.Error("the right one again:", err)
		}
	})
}

// TestWhoDialsABulkConnectionChecksItToo answers a dialler with its own proof, with
// nothing, and as another member.
func TestWhoDialsABulkConnectionChecksItToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newSimMesh(t, 3, 7, simnet.Link{Delay: time.Millisecond})
		defer m.close()
		m.together()
		time.Sleep(10 * time.Second)
		a, b, c := m.nodes[0].n, m.nodes[1].n, m.nodes[2].n
		s, back := b.session(a.self), a.session(b.self)
		dial := func(as *Node, answer func(state *tls.ConnectionState, hello []byte) []byte) error {
			here, there := net.Pipe()
			go func() {
				defer there.Close()
				x := tls.Server(there, as.bulkTLS())
				if x.HandshakeContext(context.Background()) != nil {
					return
				}
				hello := make([]byte, wire.SessionIDSize+sha256.Size)
				if _, err := io.ReadFull(x, hello); err != nil {
					return
				}
				state := x.ConnectionState()
				_, _ = x.Write(answer(&state, hello))
				_ = x.Close()
			}()
			defer here.Close()
			return s.proveBulk(context.Background(), tls.Client(here, b.bulkTLS()))
		}
		proof := func(state *tls.ConnectionState, _ []byte) []byte {
			return back.bulkHello(t, state, back.direction)[wire.SessionIDSize:]
		}
		if err := dial(a, proof); err != nil {
			t.Error("the right one:", err)
		}
		if err := dial(c, proof); !errors.Is(err, fcp.CodeUnauthorized) {
			t.Error("another member:", err)
		}
		if err := dial(a, func(_ *tls.ConnectionState, h []byte) []byte { return h[wire.SessionIDSize:] }); !errors.Is(err, fcp.CodeUnauthorized) {
			t.Error("its own proof:", err)
		}
		if err := dial(a, func(*tls.ConnectionState, []byte) []byte { return nil }); !errors.Is(err, fcp.CodeTimeout) {
			t.Error("nothing:", err)
		}
	})
}

// TestSlowBulkConnectionsEnd opens connections and says nothing, before and after TLS:
// each is over within seconds; and a share that trickles ends its connection.
func TestSlowBulkConnectionsEnd(t *testing.T) {
	wholePair(t, func(m *simMesh, giver, reader *Session, _ symbols.Ref) {
		a, b := m.nodes[0].n, m.nodes[1].n
		for _, shake := range []bool{false, true} {
			here, there := net.Pipe()
			if shake {
				go func() { _ = tls.Client(here, b.bulkTLS()).Handshake() }()
			}
			at := time.Now()
			if err := a.answerBulk(there); err == nil || time.Since(at) > helloWait+time.Second {
				t.Errorf("after TLS %v: %v within %v", shake, err, time.Since(at))
			}
			here.Close()
		}
		here, there := net.Pipe()
		defer here.Close()
		w := reader.whole.expect(9, carrierBulk, make([]byte, 1000))
		go func(to net.Conn) {
			for b := bulkFrame(9, 1000, 0); ; b = []byte{0} {
				if _, err := to.Write(b); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}(here)
		go func(from net.Conn) { _ = reader.readBulk(from) }(there)
		at := time.Now()
		if err := <-w.done; err == nil || time.Since(at) > 2*bulkShareWait {
			t.Errorf("a share that trickles: %v after %v", err, time.Since(at))
		}
		there.Close()
		// And who is given to, but does not read, loses the connection.
		here, there = net.Pipe()
		defer here.Close()
		giver.bulk.setOut(there)
		if err := giver.writeBulk(context.Background(), make([]byte, 1000)); err == nil {
			t.Error("a share was sent to nobody")
		}
		if err := giver.writeBulk(context.Background(), make([]byte, 1000)); !errors.Is(err, fcp.CodeNotFound) {
			t.Error("without a connection:", err)
		}
	})
}

func bulkFrame(id uint64, size uint32, bytes int) []byte {
	b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, id), size)
	return append(b, make([]byte, bytes)...)
}

// TestFramesOfBulkConnectionsAreBounded sends frames that are too large, of another
// size than was asked, cut short, and that nobody asked for.
func TestFramesOfBulkConnectionsAreBounded(t *testing.T) {
	wholePair(t, func(_ *simMesh, _, reader *Session, _ symbols.Ref) {
		for _, c := range []struct {
			name string
			sent []byte
			want fcp.Code // of the connection's end
			ok   bool     // the share came
		}{
			{"too large", bulkFrame(5, maxWhole+1, 0), fcp.CodeTooLarge, false},
			{"huge", bulkFrame(5, 1<<32-1, 0), fcp.CodeTooLarge, false},
			{"another size", bulkFrame(5, 999, 999), fcp.CodeMalformed, false},
			{"cut short", bulkFrame(5, 1000, 999), fcp.CodeTimeout, false},
			{"nothing", nil, fcp.CodeTimeout, false},
			{"unasked", slices.Concat(bulkFrame(6, 5000, 5000), bulkFrame(5, 1000, 1000)), fcp.CodeTimeout, true},
			{"unasked without end", bytes.Repeat(bulkFrame(6, 0, 0), 1000), fcp.CodeMalformed, false},
			{"twice", slices.Concat(bulkFrame(5, 1000, 1000), bulkFrame(5, 1000, 1000)), fcp.CodeTimeout, true},
		} {
			here, there := net.Pipe()
			w := reader.whole.expect(5, carrierBulk, make([]byte, 1000))
			ended := make(chan error, 1)
			go func() { ended <- reader.readBulk(there); there.Close() }()
			_, _ = here.Write(c.sent) // may not be read to its end
			here.Close()
			if err := <-w.done; (err == nil) != c.ok {
				t.Errorf("%s: %v", c.name, err)
			}
			if err := <-ended; !errors.Is(err, c.want) {
				t.Errorf("%s: the connection ended with %v, want %v", c.name, err, c.want)
			}
			reader.whole.forget(5)
		}
		// What was asked for by another carrier does not come by this one.
		here, there := net.Pipe()
		defer here.Close()
		reader.whole.expect(5, carrierWhole, make([]byte, 1000))
		go func() { _ = reader.readBulk(there) }()
		unasked := reader.node.metrics.SymbolsUnasked.Load()
		_, _ = here.Write(bulkFrame(5, 1000, 1000))
		synctest.Wait()
		if reader.node.metrics.SymbolsUnasked.Load() != unasked+1 {
			t.Error("a share came by another carrier than it was asked for by")
		}
	})
}

// TestWholeSharesComeOverTCPOrElseQUIC pins over TCP; then again where the connection
// breaks, and where none is to be had.
func TestWholeSharesComeOverTCPOrElseQUIC(t *testing.T) {
	m := newMesh(t, 2, func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 1, Of: 1} })
	m.together()
	m.put(0, "big", randomBytes(300_000, 1))
	m.sealed(0)
	a, b := m.nodes[0].n, m.nodes[1].n
	ref := a.sharesOf(a.ownSegments()[0])[0]
	var want []byte
	fetch := func(what string, over bool) {
		t.Helper()
		var file []byte
		var up bool
		eventually(t, 30*time.Second, what, func() bool { // a session may just be replaced
			s := b.session(a.self)
			if s == nil {
				return false
			}
			var err error
			file, err = b.fetchWhole(within(t, 20*time.Second), s, ref)
			s.bulk.mu.Lock()
			up = s.bulk.in != nil
			s.bulk.mu.Unlock()
			return err == nil
		})
		got := file[ref.HeadSize():]
		if want == nil {
			want = bytes.Clone(got)
		}
		if up != over || !bytes.Equal(got, want) {
			t.Errorf("%s: a bulk connection stands: %v, want %v", what, up, over)
		}
	}
	fetch("over TCP", true)
	if s := a.session(b.self); s != nil { // the giver's end breaks
		s.bulk.mu.Lock()
		if s.bulk.out != nil {
			s.bulk.out.Close()
		}
		s.bulk.mu.Unlock()
	}
	fetch("after a break", false)
	if s := b.session(a.self); s != nil {
		s.bulk.mu.Lock()
		s.bulk.after = time.Time{}
		s.bulk.mu.Unlock()
	}
	fetch("over TCP again", true)
	a.bulk.close()
	if s := b.session(a.self); s != nil {
		s.bulk.mu.Lock()
		in := s.bulk.in
		s.bulk.mu.Unlock()
		s.endBulk(in)
		s.bulk.mu.Lock()
		s.bulk.after = time.Time{}
		s.bulk.mu.Unlock()
	}
	fetch("where nobody listens", false)
}
