package node

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

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

// keepLoop dials a member that is away, or whose session is silent, with pauses
// that grow to a few seconds: so what a cut parted is together again soon after it
// heals. An attempt that hangs does not hold up the next.
func (n *Node) keepLoop(w fcp.WriterID) {
	var under dials
	pause := redialFirst
	for {
		n.mu.Lock()
		address, s, next := n.addrs[w], n.sessions[w], n.changed
		away := len(n.kept) - len(n.sessions)
		n.mu.Unlock()
		if m, ok := n.id.member(w); ok && m.Revoked {
			address = ""
		}
		if (s == nil || s.silent()) && address != "" {
			n.spawn(func() { n.reach(&under, w, address) })
			if !n.pause(pause) {
				return
			}
			pause = max(min(2*pause, redialMost), time.Duration(away)*redialEach)
			continue
		}
		under.cancel()
		pause = redialFirst
		t := time.NewTimer(silentAfter / 4)
		select {
		case <-t.C:
		case <-next:
			// The smaller id dials first, so that both rarely do at once.
			if compareWriters(n.self, w) > 0 && !n.pause(10*redialFirst) {
				t.Stop()
				return
			}
		case <-n.life.Done():
			t.Stop()
			return
		}
		t.Stop()
	}
}

// dials are the attempts to reach one member.
type dials struct {
	mu   sync.Mutex
	open map[*quic.Conn]bool // handshakes under way; guarded by mu
	n    int                 // attempts under way; guarded by mu
}

// begin reports whether one more attempt may be made.
func (d *dials) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.n >= dialsAtOnce {
		return false
	}
	d.n++
	return true
}

func (d *dials) end(c *quic.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n--
	delete(d.open, c)
}

func (d *dials) shaking(c *quic.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		d.open = map[*quic.Conn]bool{}
	}
	d.open[c] = true
}

// cancel ends the attempts that another one overtook.
func (d *dials) cancel() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for c := range d.open {
		c.CloseWithError(quic.ApplicationErrorCode(fcp.CodeConflict), "")
	}
	clear(d.open)
}

// reach makes one attempt, and serves the session that comes of it.
func (n *Node) reach(under *dials, w fcp.WriterID, address string) {
	if !under.begin() {
		return
	}
	_, err := n.dial(address, func(c *quic.Conn, done bool) {
		switch {
		case done:
			under.end(c)
		default:
			under.shaking(c)
		}
	})
	if err != nil {
		n.logger.Debug("a member was not reached, or its session ended", "peer", w, "err", err)
	}
}

// silent reports whether nothing came from the peer for a while.
func (s *Session) silent() bool {
	got, now := s.conn.ConnectionStats().PacketsReceived, s.node.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got != s.heard || s.heardAt.IsZero() || now.Before(s.heardAt) {
		s.heard, s.heardAt = got, now
	}
	return now.Sub(s.heardAt) > silentAfter
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
