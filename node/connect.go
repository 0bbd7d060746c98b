package node

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/quic-go/quic-go"

	"fcp"
	"fcp/gossip"
)

// acceptLoop takes connections that peers dial.
func (n *Node) acceptLoop() {
	for {
		conn, err := n.transport.listener.Accept(n.life)
		if err != nil {
			return
		}
		if n.handshakes.Add(1) > maxHandshakes {
			n.handshakes.Add(-1)
			conn.CloseWithError(quic.ApplicationErrorCode(fcp.CodeExhausted), "")
			continue
		}
		n.spawn(func() {
			if err := n.serve(conn, n.respond); err != nil {
				n.logger.Debug("a peer's session ended", "from", conn.RemoteAddr(), "err", err)
			}
		})
	}
}

// serve makes a session over a connection and serves it to its end. The caller
// counted the handshake.
func (n *Node) serve(conn *quic.Conn, shake func(context.Context, *quic.Conn) (*established, error)) error {
	var e *established
	err := n.admit(conn.RemoteAddr())
	if err == nil {
		e, err = shake(n.life, conn)
	}
	n.handshakes.Add(-1)
	var s *Session
	if err == nil {
		s, err = n.newSession(e)
	}
	if err != nil {
		conn.CloseWithError(quic.ApplicationErrorCode(fcp.CodeOf(err)), "")
		return err
	}
	n.mu.Lock()
	taken := n.bySID[s.id] != nil // the responder chose it
	if !taken {
		n.bySID[s.id] = s
	}
	n.mu.Unlock()
	if taken {
		conn.CloseWithError(quic.ApplicationErrorCode(fcp.CodeConflict), "")
		return fcp.Errorf(fcp.CodeConflict, "the id of another session")
	}
	err = s.run()
	n.sessionDown(s)
	return err
}

// admit asks the network who is at an address, if it can tell.
func (n *Node) admit(addr net.Addr) error {
	a, ok := n.opt.Network.(Admitter)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.life, helloWait)
	defer cancel()
	return a.Admit(ctx, addr)
}

// findLoop dials whoever the network says may be a peer, and is not one yet.
func (n *Node) findLoop(f Finder) {
	for {
		ctx, cancel := context.WithTimeout(n.life, handshakeWait)
		found, err := f.Find(ctx)
		cancel()
		if err != nil && n.life.Err() == nil {
			n.logger.Warn("peers were not looked for", "err", err)
		}
		for _, address := range found[:min(len(found), maxAddresses)] {
			n.mu.Lock()
			known := n.dialling[address]
			for _, s := range n.sessions {
				known = known || s.conn.RemoteAddr().String() == address
			}
			if !known {
				n.dialling[address] = true
			}
			n.mu.Unlock()
			if known {
				continue
			}
			n.spawn(func() {
				if _, err := n.dialOnce(address); err != nil {
					n.logger.Debug("nobody of the mesh was found", "address", address, "err", err)
				}
				n.mu.Lock()
				defer n.mu.Unlock()
				delete(n.dialling, address)
			})
		}
		if !n.pause(findEvery) {
			return
		}
	}
}

// Connect begins to keep a session with whoever is at an address.
func (n *Node) Connect(address string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.dialling[address] || n.life.Err() != nil {
		return
	}
	n.dialling[address] = true
	n.spawn(func() { n.dialLoop(address) })
}

// dialLoop connects again and again, with growing pauses, unless a session with
// whoever was there last stands already.
func (n *Node) dialLoop(address string) {
	pause := redialFirst
	var last fcp.WriterID
	for n.life.Err() == nil {
		s := n.session(last)
		if s == nil || s.rekeyDue() {
			began := n.now()
			who, err := n.dialOnce(address)
			if !who.IsZero() {
				last = who
			}
			if n.life.Err() != nil {
				return
			}
			if n.now().Sub(began) > dialWait {
				pause = redialFirst
			}
			n.logger.Debug("a session ended", "address", address, "err", err)
			if errors.Is(err, fcp.CodeUnauthorized) && last == n.self {
				return
			}
		}
		if !n.pause(pause) {
			return
		}
		most := redialMost
		if n.keeps(last) { // it is looked for where it was last seen, too
			most = redialKnown
		}
		pause = min(2*pause, most)
	}
}

// keeps reports whether a keepLoop looks for a member.
func (n *Node) keeps(w fcp.WriterID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.kept[w]
}

// dialOnce connects and serves the session to its end.
func (n *Node) dialOnce(address string) (who fcp.WriterID, err error) {
	return n.dial(address, func(*quic.Conn, bool) {})
}

// dial is dialOnce; it calls progress when the handshake begins, and once, done,
// when the attempt failed or became a session.
func (n *Node) dial(address string, progress func(c *quic.Conn, done bool)) (who fcp.WriterID, err error) {
	addr, err := n.opt.Network.Resolve(n.life, address)
	if err != nil {
		progress(nil, true)
		return who, err
	}
	ctx, cancel := context.WithTimeout(n.life, dialWait)
	conn, err := n.transport.dial(ctx, addr)
	cancel()
	if err != nil {
		progress(nil, true)
		return who, err
	}
	progress(conn, false)
	n.handshakes.Add(1)
	err = n.serve(conn, func(ctx context.Context, c *quic.Conn) (*established, error) {
		defer progress(c, true)
		e, err := n.initiate(ctx, c)
		if err == nil {
			who = e.peer.Writer
		}
		return e, err
	})
	return who, err
}

// sameTime is within which two sessions of one pair are taken for both sides
// having dialled at once.
const sameTime = 5 * time.Second

// sessionUp makes a session the one to use with its peer. Of two that both sides
// began at once the one counts that the smaller id dialled, so that both keep the
// same; else the newer one does.
func (n *Node) sessionUp(s *Session) {
	if n.id.admit(s.peer) {
		n.logger.Info("a member proved itself before its enrollment arrived", "peer", s.peer.Writer, "name", s.peer.Name)
	}
	n.step(n.id.told())
	n.mu.Lock()
	old := n.sessions[s.peer.Writer]
	if old != nil && s.started.Sub(old.started) < sameTime && !n.preferred(s) && n.preferred(old) {
		n.mu.Unlock()
		s.end(fcp.Errorf(fcp.CodeConflict, "another session with %.16s stands", s.peer.Writer))
		return
	}
	n.sessions[s.peer.Writer] = s
	n.addrs[s.peer.Writer] = s.conn.RemoteAddr().String()
	n.sessionsChangedLocked()
	if old != nil {
		n.stepLocked(gossip.PeerDown{Peer: s.peer.Writer})
	}
	n.stepLocked(gossip.PeerUp{Peer: s.peer.Writer})
	n.mu.Unlock()
	if old != nil {
		old.end(fcp.Errorf(fcp.CodeConflict, "a newer session with %.16s stands", s.peer.Writer))
	}
	n.shareAddresses()
	n.shares.wake()
	n.tails.wrote()
	n.tellPins(s)
	n.pins.wake() // it may have what was missing
	s.spawn(func() { n.live.meet(s.peer.Writer) })
}

// preferred reports whether the smaller id of the pair dialled the session.
func (n *Node) preferred(s *Session) bool {
	return s.dialled == (compareWriters(n.self, s.peer.Writer) < 0)
}

func (n *Node) sessionDown(s *Session) {
	n.mu.Lock()
	delete(n.bySID, s.id)
	if n.sessions[s.peer.Writer] == s {
		delete(n.sessions, s.peer.Writer)
		n.sessionsChangedLocked()
		n.stepLocked(gossip.PeerDown{Peer: s.peer.Writer})
	}
	n.mu.Unlock()
	n.saw(s.peer.Writer)
	n.tails.wake()    // another one may have to hold what it held
	n.fetches.lost(s) // may wait for collectors, which may wait for mu
}

func (n *Node) waitSessions() {
	for {
		n.mu.Lock()
		left, next := len(n.sessions), n.changed
		n.mu.Unlock()
		if left == 0 {
			return
		}
		<-next
	}
}

// rekeyDue reports whether the session's keys are used up.
func (s *Session) rekeyDue() bool {
	r := &s.node.opt.Rekey
	frames := s.frameSeq.Load()
	return frames >= r.Frames || s.sentBytes.Load()+frames*uint64(s.limit) >= r.Bytes || s.node.now().Sub(s.started) >= r.After
}
