package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/engine"
	"fcp/log"
)

// What this node wrote to its data feeds and did not seal yet is on one disk. So it
// goes, encrypted for the zone's members, to as many peers as the policy lets fail;
// they put it on their disks, say so, and keep it until the segment that it became is
// spread. WaitHeld waits for that.

// tailPart carries one part of an encoded engine.Tail: a whole one may be longer than
// a message. Asked marks an answer to tailWanted; no parts: the sender has nothing.
type tailPart struct {
	ID    uint64 `cbor:"id"` // counts up in a session, one for each tail; of an answer: the question's
	Part  uint64 `cbor:"part"`
	Parts uint64 `cbor:"parts"`
	Data  []byte `cbor:"data"`
	Asked bool   `cbor:"asked,omitempty"`
}

// tailHeld says that a tail is on the sender's disk; Refused, that it is not taken.
type tailHeld struct {
	ID      uint64 `cbor:"id"`
	Refused bool   `cbor:"refused,omitempty"`
}

// tailWanted asks for the tail that has an object.
type tailWanted struct {
	ID     uint64       `cbor:"id"`
	Zone   fcp.ZoneID   `cbor:"zone"`
	Object fcp.ObjectID `cbor:"object"`
}

var (
	schemaTailPart   = fcp.MustSchema("fcp.mesh:TailPart@1.0.0")
	schemaTailHeld   = fcp.MustSchema("fcp.mesh:TailHeld@1.0.0")
	schemaTailWanted = fcp.MustSchema("fcp.mesh:TailWanted@1.0.0")
)

const (
	tailPartSize = 256 << 10
	maxTailParts = engine.MaxTail/tailPartSize + 1
	maxTails     = 4096      // kept for one writer
	maxTailBytes = 128 << 20 // kept for one writer
	tailsAhead   = 4         // on their way to one peer
	tailWait     = 10 * time.Second
	tailDelay    = time.Second      // that a write waits for company, unless somebody waits for it
	tailCheck    = 30 * time.Second // between looks at what need not be kept any more
)

func (m *tailPart) ok() bool {
	return m.Parts <= maxTailParts && (m.Part < m.Parts || m.Parts == 0 && m.Asked) && len(m.Data) <= tailPartSize
}

// keptTail is a tail of another node that this one keeps.
type keptTail struct {
	name    string
	zone    fcp.ZoneID
	writer  fcp.WriterID
	size    int
	objects []fcp.ObjectID
	none    uint64 // of an object no segment was told up to this position of the log; owned by tailLoop
}

// tailKey names a data feed at a peer.
type tailKey struct {
	peer fcp.WriterID
	feed fcp.FeedID
}

// tailState is how far a peer is in a data feed of this node.
type tailState struct {
	session     *Session // in which it was streamed
	from        uint64   // first event that the peer was sent
	sent, acked uint64   // last one
	under       map[uint64]uint64
	refused     bool
}

// tailTable is what a node knows of tails, its own at peers and those of others here.
type tailTable struct {
	wakeup  chan struct{} // something is to be streamed now
	written chan struct{} // this node wrote: soon

	mu      sync.Mutex
	out     map[tailKey]*tailState                   // guarded by mu
	news    chan struct{}                            // closed when a peer has more; guarded by mu
	next    uint64                                   // id of the last tail or question; guarded by mu
	asked   map[uint64]*tailAsk                      // questions under way; guarded by mu
	kept    map[string]*keptTail                     // by file name; guarded by mu
	byID    map[fcp.ObjectID]*keptTail               // guarded by mu
	usage   map[fcp.WriterID]*struct{ n, bytes int } // guarded by mu
	parting map[fcp.WriterID]*tailJoin               // guarded by mu
	safe    map[fcp.FeedID]uint64                    // own data feeds: segments up to here were held elsewhere when last looked at; guarded by mu
}

// tailJoin is a tail of which some parts are here.
type tailJoin struct {
	id   uint64
	next uint64
	data []byte
}

// tailAsk waits for an answer.
type tailAsk struct {
	join map[fcp.WriterID]*tailJoin // of peers that did not answer yet
	done chan []byte                // a whole tail; nil: this peer has none
}

func (t *tailTable) init() {
	t.wakeup, t.written, t.news = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{})
	t.out, t.asked, t.kept, t.byID = map[tailKey]*tailState{}, map[uint64]*tailAsk{}, map[string]*keptTail{}, map[fcp.ObjectID]*keptTail{}
	t.usage, t.parting, t.safe = map[fcp.WriterID]*struct{ n, bytes int }{}, map[fcp.WriterID]*tailJoin{}, map[fcp.FeedID]uint64{}
}

func (t *tailTable) wake() {
	select {
	case t.wakeup <- struct{}{}:
	default:
	}
}

// wrote says that there is more, which need not go at once: it may be sealed before.
func (t *tailTable) wrote() {
	select {
	case t.written <- struct{}{}:
	default:
	}
}

func (t *tailTable) newsLocked() {
	close(t.news)
	t.news = make(chan struct{})
}

// knowTails reads what is kept for others.
func (n *Node) knowTails() error {
	return n.engine.Tails(func(t *engine.Tail) error {
		n.tails.mu.Lock()
		defer n.tails.mu.Unlock()
		n.tails.addLocked(t)
		return nil
	})
}

func (t *tailTable) addLocked(x *engine.Tail) {
	k := &keptTail{name: x.Name(), zone: x.Zone, writer: x.Writer, size: len(x.Sealed)}
	x.Ids(func(id fcp.ObjectID) bool {
		k.objects = append(k.objects, id)
		t.byID[id] = k
		return true
	})
	t.kept[k.name] = k
	u := t.usage[k.writer]
	if u == nil {
		u = &struct{ n, bytes int }{}
		t.usage[k.writer] = u
	}
	u.n, u.bytes = u.n+1, u.bytes+k.size
}

// tailLoop streams what is written and not sealed, and drops what others spread.
func (n *Node) tailLoop() {
	check := time.NewTicker(tailCheck)
	defer check.Stop()
	var due <-chan time.Time
	for {
		select {
		case <-n.tails.written:
			if due == nil {
				due = time.After(tailDelay)
			}
			continue
		case <-due:
			due = nil
		case <-n.tails.wakeup:
		case <-check.C:
			n.dropTails()
		case <-n.life.Done():
			return
		}
		if err := n.streamTails(); err != nil && n.life.Err() == nil {
			n.logger.Warn("a tail was not streamed", "err", err)
		}
	}
}

// holdersFor returns the peers, of those that are there, that a data feed is streamed
// to: the same ones while they stay.
func (n *Node) holdersFor(zone fcp.ZoneID, feed fcp.FeedID) []*Session {
	n.mu.Lock()
	all := make([]*Session, 0, len(n.sessions))
	for _, s := range n.sessions {
		all = append(all, s)
	}
	n.mu.Unlock()
	n.tails.mu.Lock()
	all = slices.DeleteFunc(all, func(s *Session) bool {
		st := n.tails.out[tailKey{s.peer.Writer, feed}]
		return st != nil && st.refused && st.session == s
	})
	n.tails.mu.Unlock()
	score := func(s *Session) [32]byte {
		return blake3.Sum256(slices.Concat([]byte("FCP2-TAIL-V1"), feed[:], s.peer.Writer[:]))
	}
	slices.SortFunc(all, func(a, b *Session) int {
		x, y := score(a), score(b)
		return cmp.Or(slices.Compare(x[:], y[:]), compareWriters(a.peer.Writer, b.peer.Writer))
	})
	return all[:min(len(all), n.copies(zone))]
}

// streamTails sends each holder what it lacks of the open runs.
func (n *Node) streamTails() error {
	for _, f := range n.engine.Log().Feeds() {
		if !f.Own || f.Feed.Plane != fcp.PlaneData || f.Seq <= f.Sealed {
			continue
		}
		for _, s := range n.holdersFor(f.Feed.Zone, f.ID) {
			for {
				more, err := n.streamOne(s, &f)
				if err != nil {
					return err
				}
				if !more {
					break
				}
			}
		}
	}
	return nil
}

// streamOne sends a peer one more tail of a feed, and reports whether it did.
func (n *Node) streamOne(s *Session, f *log.FeedState) (bool, error) {
	t := &n.tails
	key := tailKey{s.peer.Writer, f.ID}
	t.mu.Lock()
	st := t.out[key]
	if st == nil || st.session != s { // what it has of an earlier session it says again
		st = &tailState{session: s, from: f.Sealed + 1, sent: f.Sealed, acked: f.Sealed, under: map[uint64]uint64{}}
		t.out[key] = st
	}
	first := max(st.sent, f.Sealed) + 1
	if st.sent < f.Sealed { // part of it was sealed before it was sent
		st.from, st.acked = first, first-1
	}
	idle := first > f.Seq || len(st.under) >= tailsAhead || st.refused
	t.mu.Unlock()
	if idle {
		return false, nil
	}
	x, err := n.engine.MakeTail(n.life, f.No, first, f.Seq)
	if err != nil {
		return false, err
	}
	b, err := x.Encode()
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	t.next++
	id := t.next
	st.sent, st.under[id] = x.Last, x.Last
	t.mu.Unlock()
	if err := sendTail(s, id, b, false); err != nil && !errors.Is(err, fcp.CodeClosed) {
		return false, err
	}
	return true, nil
}

// sendTail sends an encoded tail in parts.
func sendTail(s *Session, id uint64, b []byte, asked bool) error {
	parts := (len(b) + tailPartSize - 1) / tailPartSize
	for i := range parts {
		m := &tailPart{ID: id, Part: uint64(i), Parts: uint64(parts), Data: b[i*tailPartSize : min(len(b), (i+1)*tailPartSize)], Asked: asked}
		if err := s.send(bulk, m); err != nil {
			return err
		}
	}
	return nil
}

// add takes the next part of a tail and returns the whole once it is there.
func (j *tailJoin) add(m *tailPart) (whole []byte, err error) {
	if m.Part == 0 {
		*j = tailJoin{id: m.ID}
	}
	if m.ID != j.id || m.Part != j.next {
		return nil, fcp.Errorf(fcp.CodeMalformed, "part %d of a tail after part %d", m.Part, j.next)
	}
	j.next++
	j.data = append(j.data, m.Data...)
	if j.next < m.Parts {
		return nil, nil
	}
	whole = j.data
	*j = tailJoin{}
	return whole, nil
}

// takeTail takes a part of a tail in: of one that a peer wants kept, or of an answer.
func (n *Node) takeTail(s *Session, m *tailPart) error {
	t := &n.tails
	peer := s.peer.Writer
	if m.Asked {
		t.mu.Lock()
		defer t.mu.Unlock()
		q := t.asked[m.ID]
		if q == nil {
			return nil // too late
		}
		j := q.join[peer]
		if j == nil {
			return nil // it was not asked, or has answered
		}
		var whole []byte
		if m.Parts > 0 {
			var err error
			if whole, err = j.add(m); err != nil || whole == nil {
				return err
			}
		}
		delete(q.join, peer)
		q.done <- whole // has room for one answer of each
		return nil
	}
	t.mu.Lock()
	j := t.parting[peer]
	if j == nil {
		j = &tailJoin{}
		t.parting[peer] = j
	}
	whole, err := j.add(m)
	t.mu.Unlock()
	if err != nil || whole == nil {
		return err
	}
	x, err := engine.DecodeTail(whole)
	if err != nil {
		return err
	}
	if x.Writer != peer {
		return fcp.Errorf(fcp.CodeUnauthorized, "a tail of another node's feed")
	}
	return s.send(normal, &tailHeld{ID: m.ID, Refused: !n.keepTail(x)})
}

// keepTail puts a tail on the disk and reports whether it is there.
func (n *Node) keepTail(x *engine.Tail) bool {
	t := &n.tails
	t.mu.Lock()
	_, here := t.kept[x.Name()]
	u := t.usage[x.Writer]
	full := u != nil && (u.n >= maxTails || u.bytes+len(x.Sealed) > maxTailBytes)
	t.mu.Unlock()
	if here {
		return true
	}
	if full {
		return false
	}
	if err := n.engine.KeepTail(x); err != nil {
		n.logger.Warn("a tail was not kept", "writer", x.Writer, "err", err)
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addLocked(x)
	return true
}

// tailAcked notes that a peer keeps a tail.
func (n *Node) tailAcked(s *Session, m *tailHeld) {
	t := &n.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, st := range t.out {
		last, ok := st.under[m.ID]
		if key.peer != s.peer.Writer || st.session != s || !ok {
			continue
		}
		delete(st.under, m.ID)
		if st.refused = st.refused || m.Refused; !st.refused {
			st.acked = max(st.acked, last) // in order: a session's messages are
		}
		t.newsLocked()
		t.wake()
	}
}

// giveTail answers who looks for an object.
func (n *Node) giveTail(s *Session, w *tailWanted) {
	n.tails.mu.Lock()
	k := n.tails.byID[w.Object]
	n.tails.mu.Unlock()
	s.spawn(func() {
		done, err := s.budget.serve()
		if err != nil {
			return
		}
		defer done()
		if k != nil && k.zone == w.Zone {
			x, err := n.engine.ReadTail(k.name)
			var b []byte
			if err == nil {
				b, err = x.Encode()
			}
			if err == nil {
				err = sendTail(s, w.ID, b, true)
			}
			if err == nil {
				return
			}
			n.logger.Warn("a tail was not given", "file", k.name, "err", err)
		}
		if err := s.send(normal, &tailPart{ID: w.ID, Data: []byte{}, Asked: true}); err != nil {
			n.logger.Debug("a peer was not answered", "peer", s.peer.Writer, "err", err)
		}
	})
}

// FetchTail brings the event of an object that is in no segment yet, from this node's
// disk or a peer's. It is the engine's TailFetcher. CodeNotEnough when nobody who is
// there has it.
func (n *Node) FetchTail(ctx context.Context, zone fcp.ZoneID, id fcp.ObjectID) (ev fcp.Event, salt [log.SaltSize]byte, err error) {
	t := &n.tails
	t.mu.Lock()
	k := t.byID[id]
	t.mu.Unlock()
	if k != nil && k.zone == zone {
		x, err := n.engine.ReadTail(k.name)
		if err == nil {
			ev, salt, err = n.engine.OpenTail(x, id)
		}
		if err == nil {
			return ev, salt, nil
		}
		n.logger.Warn("a tail that is kept here is no use", "file", k.name, "err", err)
	}
	_, ev, salt, err = n.askTail(ctx, zone, id)
	return ev, salt, err
}

// askTail brings the tail that has an object, and the object's event, from a peer.
func (n *Node) askTail(ctx context.Context, zone fcp.ZoneID, id fcp.ObjectID) (x *engine.Tail, ev fcp.Event, salt [log.SaltSize]byte, err error) {
	t := &n.tails
	n.mu.Lock()
	var peers []*Session
	for _, s := range n.sessions {
		peers = append(peers, s)
	}
	n.mu.Unlock()
	q := &tailAsk{join: map[fcp.WriterID]*tailJoin{}, done: make(chan []byte, len(peers))}
	for _, s := range peers {
		q.join[s.peer.Writer] = &tailJoin{}
	}
	t.mu.Lock()
	t.next++
	w := &tailWanted{ID: t.next, Zone: zone, Object: id}
	t.asked[w.ID] = q
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.asked, w.ID)
	}()
	ctx, cancel := context.WithTimeout(ctx, tailWait)
	defer cancel()
	waiting := 0
	for _, s := range peers {
		if s.send(urgent, w) == nil {
			waiting++
		}
	}
	for ; waiting > 0; waiting-- {
		select {
		case b := <-q.done:
			if x, err = engine.DecodeTail(b); err != nil {
				continue // none there
			}
			if ev, salt, err = n.engine.OpenTail(x, id); err == nil {
				return x, ev, salt, nil
			}
			n.logger.Warn("a tail that a peer gave is no use", "err", err)
		case <-ctx.Done():
			return nil, ev, salt, fcp.Errorf(fcp.CodeNotEnough, "%d peers did not say whether they keep object %s", waiting, id)
		}
	}
	return nil, ev, salt, fcp.Errorf(fcp.CodeNotEnough, "no peer that is there keeps object %s", id)
}

// dropTails drops what can be rebuilt without its writer.
func (n *Node) dropTails() {
	t := &n.tails
	t.mu.Lock()
	all := make([]*keptTail, 0, len(t.kept))
	for _, k := range t.kept {
		all = append(all, k)
	}
	t.mu.Unlock()
	slices.SortFunc(all, func(a, b *keptTail) int { return cmp.Compare(a.name, b.name) })
	for _, k := range all {
		if n.life.Err() != nil || !n.spreadWithout(k) {
			continue
		}
		if err := n.engine.DropTail(k.name); err != nil {
			n.logger.Warn("a tail was not dropped", "file", k.name, "err", err)
			continue
		}
		t.mu.Lock()
		delete(t.kept, k.name)
		for _, id := range k.objects {
			if t.byID[id] == k {
				delete(t.byID, id)
			}
		}
		u := t.usage[k.writer]
		u.n, u.bytes = u.n-1, u.bytes-k.size
		t.mu.Unlock()
	}
}

// spreadWithout reports whether every object of a tail is in a segment of which
// others than its writer proved that they hold enough symbols.
func (n *Node) spreadWithout(k *keptTail) bool {
	at := n.engine.Position()
	if k.none == at {
		return false
	}
	for _, id := range k.objects {
		r, err := n.engine.SegmentOf(k.zone, id)
		if err == nil && r == nil {
			k.none = at
		}
		if err != nil || r == nil || n.pinnedTail(id) && !n.readable(r) {
			return false
		}
		card, err := fcp.DecodeCard(r.Card)
		if err != nil {
			return false
		}
		info, err := card.Transmission()
		if err != nil {
			return false
		}
		segment := fcp.SegmentID(r.Segment)
		have := n.holdsProven(segment, k.writer) // members' ranges do not overlap
		for _, ref := range n.sharesOf(segment) {
			have += uint64(ref.Count)
		}
		if have < (info.F+fcp.SymbolSize-1)/fcp.SymbolSize+2 {
			return false
		}
	}
	return true
}

// tailCovers reports whether enough peers keep a range of a data feed of this node.
func (n *Node) tailCovers(feed fcp.FeedID, first, last uint64) (copies int) {
	n.tails.mu.Lock()
	defer n.tails.mu.Unlock()
	for key, st := range n.tails.out {
		if key.feed == feed && st.from <= first && st.acked >= last && !st.refused {
			copies++
		}
	}
	return copies
}
