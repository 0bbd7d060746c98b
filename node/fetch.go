package node

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/gossip"
	"fcp/log"
)

// fetchTable finds the collector that a symbol is for.
type fetchTable struct {
	mu    sync.Mutex
	open  map[fcp.SegmentID][]*collector // guarded by mu
	early map[fcp.SegmentID][]byte       // salts that came before their segment's event; guarded by mu
	order []fcp.SegmentID                // of early, oldest first; guarded by mu
	bytes int                            // of early; guarded by mu
	wait  map[fcp.SegmentID][]chan struct{}
}

func (t *fetchTable) init() {
	t.open, t.early, t.wait = map[fcp.SegmentID][]*collector{}, map[fcp.SegmentID][]byte{}, map[fcp.SegmentID][]chan struct{}{}
}

// keepEarly remembers salts until their segment is known. The oldest give way: they
// can be asked for again.
func (t *fetchTable) keepEarly(id fcp.SegmentID, salts []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropEarlyLocked(id)
	t.early[id], t.order, t.bytes = salts, append(t.order, id), t.bytes+len(salts)
	for len(t.order) > maxAnnounced || t.bytes > maxEarlyBytes {
		t.dropEarlyLocked(t.order[0])
	}
}

// takeEarly returns what keepEarly remembered, once; nil for nothing.
func (t *fetchTable) takeEarly(id fcp.SegmentID) []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := t.early[id]
	t.dropEarlyLocked(id)
	return b
}

func (t *fetchTable) dropEarlyLocked(id fcp.SegmentID) {
	b, ok := t.early[id]
	if !ok {
		return
	}
	delete(t.early, id)
	t.bytes -= len(b)
	t.order = slices.DeleteFunc(t.order, func(x fcp.SegmentID) bool { return x == id })
}

func (t *fetchTable) add(c *collector) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[c.segment] = append(t.open[c.segment], c)
}

func (t *fetchTable) remove(c *collector) {
	t.mu.Lock()
	defer t.mu.Unlock()
	close(c.gone)
	if t.open[c.segment] = slices.DeleteFunc(t.open[c.segment], func(x *collector) bool { return x == c }); len(t.open[c.segment]) == 0 {
		delete(t.open, c.segment)
	}
}

func (t *fetchTable) of(id fcp.SegmentID) []*collector {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.open[id])
}

// saltsHere wakes whoever waits for the salts of a segment.
func (t *fetchTable) saltsHere(id fcp.SegmentID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.wait[id] {
		close(c)
	}
	delete(t.wait, id)
}

// lost tells every collector that a session ended.
func (t *fetchTable) lost(s *Session) { t.tellAll(news{session: s, lost: true}) }

func (t *fetchTable) heads(s *Session, m *shareHeads) {
	for _, c := range t.of(m.Segment) {
		c.tell(news{session: s, heads: m})
	}
}

func (t *fetchTable) reply(s *Session, m *symbolReply) {
	if m.Refused != 0 {
		s.whole.refuse(m.ID, m.Refused)
		t.tellAll(news{session: s, refused: m.ID, code: m.Refused})
	}
}

func (t *fetchTable) ended(s *Session, m *symbolAck) {
	t.tellAll(news{session: s, ended: m.ID, by: carrier(m.Carrier)})
}

// tellAll is for news that names a request: its collector knows it.
func (t *fetchTable) tellAll(x news) {
	t.mu.Lock()
	var all []*collector
	for _, list := range t.open {
		all = append(all, list...)
	}
	t.mu.Unlock()
	for _, c := range all {
		c.tell(x)
	}
}

// news is what happens to a collector.
type news struct {
	session *Session
	symbols []byte // fcp.SymbolSize bytes for each of esis
	esis    []uint32
	piece   *piece // that symbols are in; nil: of no pool
	heads   *shareHeads
	refused uint64 // request
	code    fcp.Code
	ended   uint64  // request
	by      carrier // of ended
	lost    bool
}

// collector collects symbols of one segment. Everything but tell runs in the
// goroutine that made it.
type collector struct {
	node    *Node
	segment fcp.SegmentID
	in      chan news
	gone    chan struct{} // closed when nobody listens any more
	parts   []*part
	hasher  symbols.Hasher
	asked   *roaring.Bitmap // on their way from anybody
	have    *roaring.Bitmap // good ones

	zone    fcp.Hash
	zoneKey [8]byte
	epoch   uint64
}

// part is one share of one peer, as far as it came.
type part struct {
	session *Session
	ref     symbols.Ref
	minter  fcp.WriterID
	card    bool           // the card proves the share's source symbols
	file    []byte         // the share's file, with holes in which there may be anything
	share   *symbols.Share // nil: the caller checks all of them at the end
	got     *roaring.Bitmap
	asked   map[uint64]*asking // requests under way
	heard   time.Time          // last symbol, or last request
	block   int                // symbols to ask for at once
	least   time.Duration      // shortest time to a first symbol so far
	stalls  int
	refused int       // requests that the peer refused for now
	again   time.Time // not asked before: it refused
	doubted bool      // its minter lied before: asked last
	late    bool      // what it was asked for may be asked of others
	dead    bool
	carrier carrier
}

// asking is a request under way.
type asking struct {
	left  *roaring.Bitmap // symbols that have not come
	count int             // symbols that were asked for
	by    carrier         // that they were asked for by
	at    time.Time
	first time.Duration // until the first symbol; 0: none came
	ended time.Time     // the responder's last word

	// Over the lane.
	m     *symbolRequest
	due   time.Time // of the next request or status
	tries int
}

// Waiting for symbols.
const (
	newsQueued   = 256
	stallAfter   = 150 * time.Millisecond
	maxStalls    = 20
	maxQueries   = 6 // of one peer; the pauses between them grow from 2*stallAfter on
	maxRefusals  = 6 // for now; the pauses between them grow from 2*stallAfter on
	collectTick  = 20 * time.Millisecond
	laneTick     = 2 * time.Millisecond
	fetchWait    = 30 * time.Second
	saltsWait    = 5 * time.Second
	holdersWait  = 10 * time.Second
	requestLife  = 10 * time.Second
	graceAfter   = 2 * time.Millisecond // between a responder's last word and its last symbol
	spareSymbols = 2                    // beyond what is needed at least
	crumbs       = 8                    // symbols that are not worth a request of their own

	// Symbols asked of one peer at once; two blocks are on their way. QUIC keeps 128
	// datagrams for a slow reader, so on a short path two blocks are fewer. On a long
	// one they are on the wire, and blocks grow until symbols get lost.
	firstBlock  = 56
	leastBlock  = 16
	longPath    = 5 * time.Millisecond
	leastStatus = 4 * time.Millisecond // between two statuses
	laneStall   = 3 * time.Second      // without a symbol
)

func (n *Node) newCollector(id fcp.SegmentID) *collector {
	return &collector{node: n, segment: id, in: make(chan news, newsQueued), gone: make(chan struct{}), asked: roaring.New(), have: roaring.New()}
}

// tell hands news over. When the collector is behind, a symbol that came in a
// packet of its own is lost, as on any network; a stream and all other news wait.
func (c *collector) tell(x news) {
	if len(x.esis) == 1 && x.piece == nil {
		select {
		case c.in <- x:
		default:
		}
		return
	}
	select {
	case c.in <- x:
	case <-c.gone:
	}
}

// newPart prepares to take symbols of a share whose head is known.
func (c *collector) newPart(s *Session, ref symbols.Ref, head []byte, by carrier) (*part, error) {
	p := c.blindPart(s, ref, by)
	copy(p.file, head)
	var err error
	p.share, err = symbols.ParseShare(ref, p.file)
	return p, err
}

// blindPart prepares to take symbols of which nothing is known.
func (c *collector) blindPart(s *Session, ref symbols.Ref, by carrier) *part {
	p := &part{session: s, ref: ref, got: roaring.New(), asked: map[uint64]*asking{}, carrier: by, block: firstBlock, heard: c.node.now()}
	p.file = c.node.partFiles.get(int(ref.FileSize()))
	return p
}

// release gives the memory of all parts back, which nobody may use any more.
func (c *collector) release() {
	for _, p := range c.parts {
		c.node.partFiles.put(p.file)
	}
	c.parts = nil
}

// request asks for symbols of a part.
func (c *collector) request(p *part, wanted *roaring.Bitmap) error {
	m, err := c.node.newRequest(p.session, p.ref, wanted, p.carrier)
	if err != nil {
		return err
	}
	m.Zone, m.ZoneKey, m.Epoch = c.zone, c.zoneKey, c.epoch
	if err := m.sign(c.node.engine.Signer()); err != nil {
		return err
	}
	now := c.node.now()
	a := &asking{left: wanted, count: int(wanted.GetCardinality()), by: p.carrier, at: now}
	p.asked[m.ID] = a
	p.heard = now
	c.asked.Or(wanted)
	if p.carrier == carrierLane {
		a.m, a.due = m, now.Add(p.session.resend())
		return p.session.sendLane(m, 0)
	}
	if p.carrier == carrierPart {
		p.session.whole.expectPart(m.ID, wanted.ToArray(), c)
	}
	return p.session.send(urgent, m)
}

// newRequest makes a request for symbols of a share, not signed yet.
func (n *Node) newRequest(s *Session, ref symbols.Ref, wanted *roaring.Bitmap, by carrier) (*symbolRequest, error) {
	b, err := gossip.EncodeBitmap(wanted)
	if err != nil {
		return nil, err
	}
	now, life := n.now(), time.Minute
	if by == carrierDatagram {
		life = requestLife
	}
	return &symbolRequest{ID: s.nextRequest.Add(1), Segment: ref.Segment, First: uint64(ref.First), Count: uint64(ref.Count), Wanted: b,
		Max: wanted.GetCardinality(), Carrier: uint64(by), At: uint64(now.UnixMilli()), Deadline: uint64(now.Add(life).UnixMilli())}, nil
}

// laneTick repeats requests over the lane of which nothing is heard, and tells those
// who send what came.
func (c *collector) laneTick(now time.Time) {
	for _, p := range c.parts {
		if p.carrier != carrierLane || p.dead {
			continue
		}
		for id, a := range p.asked {
			if a.m == nil || now.Before(a.due) {
				continue
			}
			var m any = a.m
			wait, again := p.session.resend(), 0
			if a.first == 0 {
				a.tries++
				wait, again = backoff(wait, a.tries), a.tries
			} else {
				m = p.status(id, now)
				// Statuses get lost too: as long as symbols come, or should, there is one
				// several times in a round trip.
				if rtt := p.session.rtt(); now.Sub(p.heard) < 3*rtt+leastStatus {
					wait = max(rtt/4, leastStatus)
				}
			}
			a.due = now.Add(wait)
			if err := p.session.sendLane(m, again); err != nil {
				c.node.logger.Debug("a packet was not sent", "peer", p.session.peer.Writer, "err", err)
			}
		}
	}
}

// status says what came of a part.
func (p *part) status(id uint64, now time.Time) *decodeStatus {
	m := &decodeStatus{ID: id, Received: p.got.GetCardinality()}
	m.tell(&p.ref, p.got)
	p.session.lane.status(m, now)
	return m
}

// outstanding is how many symbols of a part are on their way.
func (p *part) outstanding() (n uint64) {
	for _, a := range p.asked {
		n += a.left.GetCardinality()
	}
	return n
}

// forget gives up what is on its way from a part.
func (c *collector) forget(p *part) {
	for id := range p.asked {
		c.giveUp(p, id)
	}
}

// giveUp takes what did not come of a request as lost.
func (c *collector) giveUp(p *part, id uint64) {
	a := p.asked[id]
	c.asked.AndNot(a.left)
	delete(p.asked, id)
	if a.by == carrierPart {
		p.session.whole.forget(id)
	}
}

// settle ends requests whose last symbols are not coming any more, and learns from
// them how many symbols the path takes at once.
func (c *collector) settle(now time.Time) {
	for _, p := range c.parts {
		for id, a := range p.asked {
			if a.left.IsEmpty() || !a.ended.IsZero() && p.carrier == carrierDatagram && now.Sub(a.ended) >= max(graceAfter, a.first/4) {
				c.adapt(p, a)
				c.giveUp(p, id)
			}
		}
	}
}

func (c *collector) adapt(p *part, a *asking) {
	if a.first > 0 && (p.least == 0 || a.first < p.least) {
		p.least = a.first
	}
	switch {
	case p.carrier != carrierDatagram: // the sender sees to it
	case !a.left.IsEmpty():
		p.block = max(p.block*3/4, leastBlock)
	case a.first > longPath:
		p.block = min(p.block+p.block/4, maxWanted)
	}
}

// take puts a symbol into its part and checks it; it returns the part when the
// symbol is good and new.
func (c *collector) take(s *Session, esi uint32, symbol []byte) *part {
	for _, p := range c.parts {
		if p.session != s || p.dead || esi < p.ref.First || esi >= p.ref.End() {
			continue
		}
		if p.got.Contains(esi) {
			return nil
		}
		copy(p.symbol(esi), symbol)
		now := c.node.now()
		for id, a := range p.asked {
			if !a.left.CheckedRemove(esi) {
				continue
			}
			if a.first == 0 {
				a.first = max(now.Sub(a.at), 1)
				a.due = now // the first status shows the way
			}
			if a.left.IsEmpty() {
				s.answers.saw(now, now.Sub(a.at))
				c.adapt(p, a)
				c.finish(p, id)
				delete(p.asked, id)
			}
			break
		}
		c.answered(p)
		c.asked.Remove(esi)
		p.heard, p.stalls = now, 0
		if p.share == nil {
			p.got.Add(esi)
			return p
		}
		if _, ok := p.share.Symbol(&c.hasher, esi); !ok {
			c.node.metrics.SymbolsFalse.Add(1)
			c.node.logger.Warn("a peer gave a false symbol and is not asked again", "peer", s.peer.Writer, "segment", c.segment, "esi", esi)
			c.forget(p)
			p.dead = true
			return nil
		}
		c.node.metrics.SymbolsTaken.Add(1)
		p.got.Add(esi)
		return p
	}
	c.node.metrics.SymbolsUnasked.Add(1)
	return nil
}

// each calls fn for every symbol of news.
func (x *news) each(fn func(esi uint32, symbol []byte) error) error {
	for i, esi := range x.esis {
		if err := fn(esi, x.symbols[i*fcp.SymbolSize:(i+1)*fcp.SymbolSize]); err != nil {
			return err
		}
	}
	return nil
}

// cancel tells peers to send no more.
func (c *collector) cancel() {
	for _, p := range c.parts {
		for id := range p.asked {
			c.finish(p, id)
			p.session.whole.forget(id)
			if err := p.session.send(urgent, &decodeStatus{ID: id, Received: p.got.GetCardinality(), Complete: true}); err != nil {
				c.node.logger.Debug("a status was not sent", "peer", p.session.peer.Writer, "err", err)
			}
		}
	}
}

// finish says over the lane that a request needs no more: twice, and once more the
// slow way when the whole fetch is over.
func (c *collector) finish(p *part, id uint64) {
	if p.carrier != carrierLane {
		return
	}
	m := p.status(id, c.node.now())
	m.Complete, m.Have = true, nil
	for range 2 {
		if err := p.session.sendLane(m, 0); err != nil {
			c.node.logger.Debug("a packet was not sent", "peer", p.session.peer.Writer, "err", err)
		}
	}
}

// hearEnd notes a responder's last word on a request.
func (c *collector) hearEnd(x *news) {
	if x.ended == 0 {
		return
	}
	for _, p := range c.parts {
		if a := p.asked[x.ended]; a != nil && p.session == x.session {
			a.ended, p.carrier = c.node.now(), x.by
		}
	}
}

// fetchShare takes one share whole from one peer, over streams. Every symbol of it was
// compared with its commitment, and those with the root.
func (n *Node) fetchShare(ctx context.Context, s *Session, ref symbols.Ref, root fcp.Hash) ([]byte, error) {
	head, err := n.shareHeadFrom(ctx, s, ref, root)
	if err != nil {
		return nil, err
	}
	if s.gives(carrierWhole) {
		file, err := n.fetchWhole(ctx, s, ref)
		if err != nil {
			return nil, err
		}
		copy(file, head)
		share, err := symbols.ParseShare(ref, file)
		if err != nil {
			return nil, err
		}
		if got, ok := share.Recommit(); !ok || got != root {
			n.metrics.SymbolsFalse.Add(1)
			return nil, fcp.Errorf(fcp.CodeChecksum, "share %s of %.16s", ref.FileName(), s.peer.Writer)
		}
		return file, nil
	}
	c := n.newCollector(ref.Segment)
	p, err := c.newPart(s, ref, head, carrierStream)
	if err != nil {
		return nil, err
	}
	return n.collect(ctx, c, p)
}

// fetchSource takes all source symbols of a segment from one peer, over streams, into
// the file of a share without its head, a buffer of n.buffers. Nothing is known of
// them before the caller compares them with the segment's hash.
func (n *Node) fetchSource(ctx context.Context, s *Session, ref symbols.Ref) ([]byte, error) {
	if s.gives(carrierWhole) {
		return n.fetchWhole(ctx, s, ref)
	}
	c := n.newCollector(ref.Segment)
	p := c.blindPart(s, ref, carrierStream)
	return n.collect(ctx, c, p)
}

// collect takes all symbols of one share.
func (n *Node) collect(ctx context.Context, c *collector, p *part) ([]byte, error) {
	s, ref := p.session, p.ref
	c.parts = []*part{p}
	n.fetches.add(c)
	defer n.fetches.remove(c)
	defer c.cancel()
	t := time.NewTicker(collectTick)
	defer t.Stop()
	for p.got.GetCardinality() < uint64(ref.Count) {
		if len(p.asked) == 0 {
			wanted := roaring.New()
			wanted.AddRange(uint64(ref.First), uint64(ref.End()))
			wanted.AndNot(p.got)
			if err := c.request(p, wanted); err != nil {
				return nil, err
			}
		}
		select {
		case x := <-c.in:
			switch {
			case x.lost && x.session == s:
				return nil, fcp.Errorf(fcp.CodeTimeout, "the peer left")
			case x.refused != 0 && x.session == s && p.asked[x.refused] != nil:
				return nil, fcp.Errorf(x.code, "the peer refused")
			default:
				x.each(func(esi uint32, symbol []byte) error { c.take(x.session, esi, symbol); return nil })
			}
			c.hearEnd(&x)
			if p.dead {
				return nil, fcp.Errorf(fcp.CodeChecksum, "share %s of %.16s", ref.FileName(), s.peer.Writer)
			}
		case <-t.C:
			if n.now().Sub(p.heard) > 10*stallAfter {
				if p.stalls++; p.stalls > maxStalls || p.stalls > 2 && p.got.IsEmpty() {
					return nil, fcp.Errorf(fcp.CodeTimeout, "share %s of %.16s", ref.FileName(), s.peer.Writer)
				}
				c.forget(p)
			}
		case <-ctx.Done():
			return nil, fcp.Errorf(fcp.CodeTimeout, "share %s of %.16s", ref.FileName(), s.peer.Writer)
		}
	}
	return p.file, nil
}

// shareHeadFrom asks a peer for the head of a share and checks it.
func (n *Node) shareHeadFrom(ctx context.Context, s *Session, ref symbols.Ref, root fcp.Hash) ([]byte, error) {
	m, err := n.queryShare(ctx, s, ref)
	if err != nil {
		return nil, err
	}
	for _, h := range m.Shares {
		if h.First != uint64(ref.First) || h.Count != uint64(ref.Count) || len(h.Head) != headSize(&ref) {
			continue
		}
		share, err := symbols.ParseShare(ref, h.Head)
		if err != nil {
			return nil, err
		}
		if got, ok := share.Root(); ok && got == root && share.HeadOK {
			return h.Head, nil
		}
		return nil, fcp.Errorf(fcp.CodeChecksum, "the head of share %s", ref.FileName())
	}
	return nil, fcp.Errorf(fcp.CodeNotFound, "share %s", ref.FileName())
}

// queryShare asks for one share's head and waits for it.
func (n *Node) queryShare(ctx context.Context, s *Session, ref symbols.Ref) (*shareHeads, error) {
	c := n.newCollector(ref.Segment)
	n.fetches.add(c)
	defer n.fetches.remove(c)
	if err := s.send(urgent, &shareQuery{Segment: ref.Segment, First: uint64(ref.First), Count: uint64(ref.Count)}); err != nil {
		return nil, err
	}
	for {
		select {
		case x := <-c.in:
			if x.session == s && x.lost {
				return nil, fcp.Errorf(fcp.CodeTimeout, "the peer left")
			}
			if x.session == s && x.heads != nil {
				return x.heads, nil
			}
		case <-ctx.Done():
			return nil, fcp.Errorf(fcp.CodeTimeout, "the head of share %s", ref.FileName())
		}
	}
}

// Fetch rebuilds a segment's ciphertext from the symbols that this node and its
// peers hold. It is the engine's Fetcher. Errors: CodeNotEnough with how many
// symbols are missing, CodeChecksum when they lie, CodeInterrupted.
func (n *Node) Fetch(ctx context.Context, r *log.Remainder) ([]byte, error) {
	return n.fetch(ctx, r, false)
}

// fetch is Fetch. A thrifty one asks nothing of two peers, however long one takes.
func (n *Node) fetch(ctx context.Context, r *log.Remainder, thrifty bool) ([]byte, error) {
	card, err := fcp.DecodeCard(r.Card)
	if err != nil {
		return nil, err
	}
	info, err := card.Transmission()
	if err != nil {
		return nil, err
	}
	if info.F > math.MaxUint32 || !symbols.Coded(uint32(info.F)) {
		return nil, fcp.Errorf(fcp.CodeNotEnough, "segment %s is too small to be coded", card.Segment)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	if err := n.needSalts(ctx, r); err != nil {
		return nil, err
	}
	c := n.newCollector(card.Segment)
	c.zone, c.epoch = r.Zone.Hash(), fcp.Time(r.Time).Epoch()
	copy(c.zoneKey[:], r.ZoneKey)
	f := &rebuilding{collector: c, card: &card, size: uint32(info.F), sources: n.zonePolicy(r.Zone).MinSources, thrifty: thrifty, queried: map[*Session]*question{}}
	if f.dec, err = n.coder.Rebuild(card.Segment, f.size); err != nil {
		return nil, err
	}
	defer n.coder.Release(f.dec)
	n.fetches.add(c)
	defer n.fetches.remove(c)
	defer c.release()
	b, err := f.run(ctx)
	if err == nil {
		n.metrics.Rebuilt.Add(1)
		f.report(ctx)
	}
	return b, err
}

// needSalts sees to it that the salts of a segment are here.
func (n *Node) needSalts(ctx context.Context, r *log.Remainder) error {
	if _, err := n.engine.SegmentSalts(r); !errors.Is(err, fcp.CodeNotFound) {
		return err
	}
	id := fcp.SegmentID(r.Segment)
	here := make(chan struct{})
	n.fetches.mu.Lock()
	n.fetches.wait[id] = append(n.fetches.wait[id], here)
	n.fetches.mu.Unlock()
	n.mu.Lock()
	for _, s := range n.sessions {
		if err := s.send(urgent, &saltsWanted{Segments: []fcp.SegmentID{id}}); err != nil {
			n.logger.Debug("salts were not asked for", "peer", s.peer.Writer, "err", err)
		}
	}
	n.mu.Unlock()
	if _, err := n.engine.SegmentSalts(r); err == nil {
		return nil // they came in between
	}
	select {
	case <-here:
		return nil
	case <-time.After(saltsWait):
		return fcp.Errorf(fcp.CodeKeyTableLost, "no peer that is there has the salts of segment %s", id)
	case <-ctx.Done():
		return fcp.Errorf(fcp.CodeInterrupted, "waiting for the salts of segment %s", id)
	}
}
