package node

import (
	"maps"
	"slices"
	"time"

	"fcp"
	"fcp/engine"
)

// addresses tells where members were last seen. It is a hint: who is there proves
// itself.
type addresses struct {
	Entries []addressEntry `cbor:"entries"`
}

type addressEntry struct {
	Writer  fcp.WriterID `cbor:"writer"`
	Address string       `cbor:"address"`
}

var schemaAddresses = fcp.MustSchema("fcp.mesh:Addresses@1.0.0")

const maxAddresses = 256

func (m *addresses) ok() bool {
	return len(m.Entries) <= maxAddresses && !slices.ContainsFunc(m.Entries, func(e addressEntry) bool { return e.Address == "" || len(e.Address) > 128 })
}

// shareAddresses tells every peer where the others are. All nodes dial from the
// socket they listen on, so where a session comes from is where its peer listens.
func (n *Node) shareAddresses() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for to, s := range n.sessions {
		m := &addresses{Entries: []addressEntry{}}
		for w, other := range n.sessions {
			if w != to && len(m.Entries) < maxAddresses {
				m.Entries = append(m.Entries, addressEntry{w, other.conn.RemoteAddr().String()})
			}
		}
		if len(m.Entries) == 0 {
			continue
		}
		slices.SortFunc(m.Entries, func(a, b addressEntry) int { return compareWriters(a.Writer, b.Writer) })
		if err := s.send(normal, m); err != nil {
			n.logger.Debug("addresses were not told", "peer", to, "err", err)
		}
	}
	for w := range n.sessions {
		n.keepLocked(w)
	}
}

// takeAddresses takes a peer's hints. Only members are dialled; of who is no member
// yet a few are remembered, because its enrollment may be on its way.
func (n *Node) takeAddresses(m *addresses) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range m.Entries {
		x, member := n.id.member(e.Writer)
		_, known := n.addrs[e.Writer]
		if n.sessions[e.Writer] == nil && (member && !x.Revoked || known || len(n.addrs) < maxAddresses) {
			n.addrs[e.Writer] = e.Address
		}
	}
	n.keepMembersLocked()
}

// keepMembers begins to keep sessions with the members whose address is known.
func (n *Node) keepMembers() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.keepMembersLocked()
}

func (n *Node) keepMembersLocked() {
	for w := range n.addrs {
		if m, ok := n.id.member(w); ok && !m.Revoked && w != n.self {
			n.keepLocked(w)
		}
	}
}

// keepLocked begins to keep a session with a member, once, wherever it was last
// seen.
func (n *Node) keepLocked(w fcp.WriterID) {
	if n.kept[w] || len(n.kept) >= maxAddresses || n.life.Err() != nil {
		return
	}
	n.kept[w] = true
	n.spawn(func() { n.keepLoop(w) })
}

// keepLoop dials a member that is away, with growing pauses.
func (n *Node) keepLoop(w fcp.WriterID) {
	pause := redialFirst
	for {
		n.mu.Lock()
		address := n.addrs[w]
		away := n.sessions[w] == nil
		next := n.changed
		n.mu.Unlock()
		if away && address != "" {
			began := n.now()
			if _, err := n.dialOnce(address); err != nil {
				n.logger.Debug("a member was not reached, or its session ended", "peer", w, "err", err)
			}
			if n.now().Sub(began) > redialMost {
				pause = redialFirst
			}
			if !n.pause(pause) {
				return
			}
			pause = min(2*pause, redialMost)
			continue
		}
		pause = redialFirst
		select {
		case <-next:
			// The smaller id dials first, so that both rarely do at once.
			if compareWriters(n.self, w) > 0 && !n.pause(10*redialFirst) {
				return
			}
		case <-n.life.Done():
			return
		}
	}
}

// pause waits, a little longer than asked for; it reports whether the node lives.
func (n *Node) pause(d time.Duration) bool {
	t := time.NewTimer(d + n.jitter(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-n.life.Done():
		return false
	}
}

// jitter returns a random duration up to d.
func (n *Node) jitter(d time.Duration) time.Duration {
	var b [2]byte
	if n.random(b[:]) != nil || d <= 0 {
		return 0
	}
	return d * time.Duration(int(b[0])<<8|int(b[1])) / (1 << 16)
}

func (s *Session) spawn(f func()) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		f()
	}()
}

// drainWait is how long a closing node waits for its last words to be sent.
const drainWait = 200 * time.Millisecond

// drain waits until every queue is empty, for a while.
func (n *Node) drain() {
	n.mu.Lock()
	all := slices.Collect(maps.Values(n.bySID))
	n.mu.Unlock()
	for waited := time.Duration(0); waited < drainWait; waited += time.Millisecond {
		if !slices.ContainsFunc(all, func(s *Session) bool { return !s.queue.empty() }) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (q *outQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes == 0
}

func subscribeFrom(position uint64) engine.SubscribeOptions {
	return engine.SubscribeOptions{From: position, Live: true}
}
