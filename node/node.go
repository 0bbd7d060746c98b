package node

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"fcp"
	"fcp/coding"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/gossip"
	"fcp/node/wire"
)

// Options configures Start. Engine is required; the zero value of the rest is
// usable.
type Options struct {
	Engine     *engine.Engine
	Enrollment []byte   // this node's enrollment, until the event of it is here
	Members    [][]byte // enrollments of other members, likewise: a node that joins while one is away believes its feeds
	Network    Network  // nil: UDP
	Listen     string   // "": "127.0.0.1:0"
	Peers      []string // addresses to connect to, again and again

	Policy  symbols.Policy // how segments are spread; zero: any 2 of 3
	Budget  Budget         // what one peer may cost
	Profile func() Profile // what this device says of itself, asked from time to time; nil: nothing

	Lane  bool  // rebuild over the paced lane beside QUIC, not over QUIC datagrams
	Rekey Rekey // when a session is replaced by a fresh one

	// RepairRate is how many bytes a second repair and moves of shares may cost, except
	// where what is online hardly rebuilds; 0: 16 MiB.
	RepairRate uint64

	Now    func() time.Time // nil: the wall clock
	Rand   io.Reader        // nil: crypto/rand; safe for concurrent use otherwise
	Logger *slog.Logger     // nil: discard
	Gossip gossip.Options   // Self is filled in
}

// Rekey says when the keys of a session are used up (spec/wire.md section 9.8). A
// new session is made first, then the old one ends. The zero value of a field is
// the default.
type Rekey struct {
	Frames uint64        // symbol frames sent; 0: 1e9
	Bytes  uint64        // control bytes and symbol frames sent; 0: 2^40
	After  time.Duration // 0: 24 h
}

// Node is a running member of a mesh. All methods are safe for concurrent use.
type Node struct {
	opt       Options
	engine    *engine.Engine
	self      fcp.WriterID
	now       func() time.Time
	rand      io.Reader
	logger    *slog.Logger
	started   time.Time
	id        *identity
	transport *transport
	cookieKey wire.Key
	coder     symbols.Coder
	plans     coding.PlanCache // of messages on the lane
	buffers   bufferPool
	partFiles bufferPool // of parts of shares
	pushes    pushTable
	bulk      bulkServer
	metrics   Metrics

	handshakes atomic.Int64

	mu       sync.Mutex
	core     *gossip.Core                // guarded by mu
	sessions map[fcp.WriterID]*Session   // ready ones; guarded by mu
	bySID    map[wire.SessionID]*Session // guarded by mu
	dialling map[string]bool             // addresses with a dialler; guarded by mu
	addrs    map[fcp.WriterID]string     // where members were last seen; guarded by mu
	kept     map[fcp.WriterID]bool       // members with a keepLoop; guarded by mu
	liars    map[fcp.WriterID]bool       // minters of false symbols; guarded by mu
	budgets  map[fcp.WriterID]*budget    // what peers cost, across sessions; guarded by mu
	changed  chan struct{}               // closed when sessions change; guarded by mu
	resting  bool                        // tickLoop waits for long unless busy says otherwise; guarded by mu

	busy chan struct{}

	control controlPlane
	live    *liveness
	fetches fetchTable
	shares  shareTable
	proofs  proofTable
	forks   forkTable
	tails   tailTable
	repairs repairTable
	pins    pinTable

	accesses accesses

	releases releaseTable
	renewals renewTable

	// decide answers an ask: decideAsk, or in tests a member that lies.
	decide func(ctx context.Context, from fcp.WriterID, m *ask) ([]byte, error)

	life context.Context
	stop context.CancelCauseFunc
	work sync.WaitGroup
}

// Metrics are counters of a node (spec/wire.md section 17).
type Metrics struct {
	DatagramsReceived, MACFailed, Replayed, FramesRefused, SymbolsFailed atomic.Uint64
	SymbolsSent, SymbolsTaken, SymbolsFalse, SymbolsUnasked              atomic.Uint64
	EventsSent, EventsTaken, Rebuilt, SharesKept, CookiesAsked           atomic.Uint64
	Repaired, RepairBytes                                                atomic.Uint64
	Released                                                             atomic.Uint64 // superseded segments of which something was kept here
	Forgotten                                                            atomic.Uint64 // orders to forget that were carried out
	Challenges, ClaimsFalse, SharesDropped                               atomic.Uint64
	AsksAnswered, AsksRefused, AnswersUnasked                            atomic.Uint64 // votes, coordination and shares of secrets
}

// Start opens the socket and begins to look for the other nodes. The engine must
// stay open until Close returned.
func Start(ctx context.Context, o Options) (_ *Node, err error) {
	o.setDefaults()
	n := &Node{opt: o, engine: o.Engine, self: o.Engine.Log().Writer(), now: o.Now, rand: o.Rand, logger: o.Logger,
		sessions: map[fcp.WriterID]*Session{}, bySID: map[wire.SessionID]*Session{}, dialling: map[string]bool{},
		addrs: map[fcp.WriterID]string{}, kept: map[fcp.WriterID]bool{}, liars: map[fcp.WriterID]bool{},
		budgets: map[fcp.WriterID]*budget{}, changed: make(chan struct{}), busy: make(chan struct{}, 1)}
	n.started = n.now()
	n.id = &identity{engine: o.Engine, now: o.Now, rand: o.Rand}
	n.control.init()
	n.fetches.init()
	n.shares.init()
	n.proofs.init(n.now())
	n.repairs.pace.rate = o.RepairRate
	n.forks.init()
	n.tails.init()
	n.repairs.init()
	n.pins.init()
	n.releases.init()
	n.renewals.init()
	n.decide = n.decideAsk
	if err := n.random(n.cookieKey[:]); err != nil {
		return nil, err
	}
	o.Gossip.Self, o.Gossip.Incarnation = n.self, n.engine.Log().Incarnation()
	n.core = gossip.New(o.Gossip)
	if err := n.knowSelf(); err != nil {
		return nil, err
	}
	n.life, n.stop = context.WithCancelCause(context.Background())
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if err := errors.Join(n.loadSeen(), n.loadAccesses()); err != nil {
		return nil, err
	}
	position := n.engine.Position()
	if err := n.knowStore(); err != nil {
		return nil, err
	}
	for id := range n.shares.own {
		n.proofs.old[id] = true
	}
	if n.transport, err = listen(ctx, o.Network, o.Listen, n.id); err != nil {
		return nil, err
	}
	n.listenBulk(ctx)
	if err := n.startLiveness(); err != nil {
		return nil, err
	}
	if err := n.knowTails(); err != nil {
		return nil, err
	}
	n.engine.SetFetcher(n.Fetch)
	n.engine.SetTailFetcher(n.FetchTail)
	n.spawn(n.acceptLoop)
	n.spawn(n.tickLoop)
	n.spawn(n.placeLoop)
	n.spawn(n.repairLoop)
	n.spawn(n.proveLoop)
	n.spawn(n.memberLoop)
	n.spawn(n.tailLoop)
	n.spawn(n.upkeepLoop)
	n.spawn(n.releaseLoop)
	n.spawn(n.renewLoop)
	n.spawn(n.laneLoop)
	n.spawn(n.pinLoop)
	n.spawn(n.stageLoop)
	n.spawn(func() { n.followLog(position) })
	if f, ok := o.Network.(Finder); ok {
		n.spawn(func() { n.findLoop(f) })
	}
	for _, p := range o.Peers {
		n.Connect(p)
	}
	return n, nil
}

func (o *Options) setDefaults() {
	if o.Network == nil {
		o.Network = UDP{}
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Policy == (symbols.Policy{}) {
		o.Policy = symbols.Policy{Need: 2, Of: 3}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RepairRate == 0 {
		o.RepairRate = defaultRate
	}
	if o.Rekey.Frames == 0 {
		o.Rekey.Frames = 1e9
	}
	if o.Rekey.Bytes == 0 {
		o.Rekey.Bytes = 1 << 40
	}
	if o.Rekey.After == 0 {
		o.Rekey.After = 24 * time.Hour
	}
}

func (n *Node) spawn(f func()) {
	n.work.Add(1)
	go func() {
		defer n.work.Done()
		f()
	}()
}

// knowSelf finds this node's enrollment: in the state, or as given.
func (n *Node) knowSelf() error {
	if err := n.id.refresh(); err != nil {
		return err
	}
	m, ok := n.id.member(n.self)
	if !ok {
		var err error
		if m, err = engine.VerifyMember(n.engine.Genesis().Owner, n.opt.Enrollment); err != nil {
			return fcp.Wrap(fcp.CodeUnauthorized, err, "this node's enrollment")
		}
		if m.Writer != n.self {
			return fcp.Errorf(fcp.CodeUnauthorized, "the enrollment given is another node's")
		}
	}
	if m.Revoked {
		return fcp.Errorf(fcp.CodeVoided, "this node was revoked")
	}
	n.id.self = m
	n.id.admit(m)
	for _, proof := range n.opt.Members {
		other, err := engine.VerifyMember(n.engine.Genesis().Owner, proof)
		if err != nil {
			return fcp.Wrap(fcp.CodeUnauthorized, err, "the enrollment of another member")
		}
		if !n.id.isRevoked(other.Writer) {
			n.id.admit(other)
		}
	}
	return nil
}

// Close says goodbye, ends every session and closes the socket.
func (n *Node) Close() error {
	if n.life == nil {
		return nil
	}
	if n.life.Err() == nil {
		n.step(gossip.Leaving{})
	}
	n.engine.SetFetcher(nil)
	n.engine.SetTailFetcher(nil)
	var err error
	if n.live != nil {
		err = n.live.stop()
	}
	n.drain()
	n.stop(fcp.Errorf(fcp.CodeClosed, "the node"))
	if n.transport != nil {
		n.waitSessions()
		err = errors.Join(err, n.transport.close())
	}
	n.work.Wait()
	return errors.Join(err, n.keepHeads(), n.keepSeen(), n.keepAccesses())
}

// Kill ends the node at once, without a word to its peers: for tests and for a
// process that must go now.
func (n *Node) Kill() {
	n.engine.SetFetcher(nil)
	n.engine.SetTailFetcher(nil)
	n.transport.conn.Close() // first, so that nothing more goes out
	n.bulk.close()
	n.stop(fcp.Errorf(fcp.CodeClosed, "the node"))
	n.transport.quic.Close()
	if err := n.live.stop(); err != nil {
		n.logger.Warn("memberlist did not end", "err", err)
	}
	n.work.Wait()
}

// Addr returns the address of the socket.
func (n *Node) Addr() net.Addr { return n.transport.conn.LocalAddr() }

// Metrics returns the node's counters.
func (n *Node) Metrics() *Metrics { return &n.metrics }

// Writer returns the node's id.
func (n *Node) Writer() fcp.WriterID { return n.self }

// PeerStatus describes a session.
type PeerStatus struct {
	Writer  fcp.WriterID
	Name    string
	Address string
	Since   time.Time
}

// Peers returns the peers that are there, by name.
func (n *Node) Peers() []PeerStatus {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []PeerStatus
	for _, s := range n.sessions {
		out = append(out, PeerStatus{s.peer.Writer, s.peer.Name, s.conn.RemoteAddr().String(), s.started})
	}
	slices.SortFunc(out, func(a, b PeerStatus) int { return compareWriters(a.Writer, b.Writer) })
	return out
}

func compareWriters(a, b fcp.WriterID) int { return slices.Compare(a[:], b[:]) }

// session returns the session with a peer; nil when there is none.
func (n *Node) session(w fcp.WriterID) *Session {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sessions[w]
}

// WaitPeers waits until sessions with at least that many peers stand.
func (n *Node) WaitPeers(ctx context.Context, count int) error {
	for {
		n.mu.Lock()
		have, next := len(n.sessions), n.changed
		n.mu.Unlock()
		if have >= count {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "%d of %d peers are there", have, count)
		case <-n.life.Done():
			return context.Cause(n.life)
		}
	}
}

func (n *Node) sessionsChangedLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// quickCarrier is what symbols for a rebuild travel over.
func (n *Node) quickCarrier(s *Session) carrier {
	if n.opt.Lane && s != nil && s.id.LaneSafe() && s.gives(carrierLane) {
		return carrierLane
	}
	if s != nil && s.gives(carrierPart) && s.bulkReady() {
		return carrierPart
	}
	return carrierStream
}

// capabilities returns this node's first message.
func (n *Node) capabilities() *capabilities {
	c := &capabilities{Versions: []uint64{protocolVersion}, Layouts: []uint64{uint64(wire.LayoutNative), uint64(wire.LayoutReference)},
		Carriers: []uint64{uint64(carrierDatagram), uint64(carrierStream), uint64(carrierLane), uint64(carrierWhole)}, Compress: []string{}, MaxControl: maxMessage, MaxFrame: maxStreamFrame,
		Genesis: n.engine.Genesis().ID, Bulk: n.bulk.port}
	if c.Bulk != 0 {
		c.Carriers = append(c.Carriers, uint64(carrierBulk), uint64(carrierPart))
	}
	return c
}

// tickLoop lets time pass: quickly while gossip has something to do.
func (n *Node) tickLoop() {
	t := time.NewTimer(tickEvery)
	defer t.Stop()
	kept, rekeyed := n.now(), n.now()
	for {
		select {
		case <-t.C:
		case <-n.busy:
			t.Reset(tickEvery)
			continue
		case <-n.life.Done():
			return
		}
		n.mu.Lock()
		n.stepLocked(gossip.Tick{})
		n.resting = !n.core.Busy()
		next := tickEvery
		if n.resting {
			next = tickIdle
		}
		n.mu.Unlock()
		t.Reset(next)
		if now := n.now(); now.Sub(rekeyed).Abs() >= tickIdle {
			rekeyed = now
			n.rekey()
		}
		if now := n.now(); now.Sub(kept).Abs() >= headsEvery {
			kept = now
			if err := n.keepHeads(); err != nil {
				n.logger.Warn("the heads of other nodes' feeds were not kept", "err", err)
			}
		}
	}
}

// rekey replaces sessions whose keys are used up: the side with the smaller id
// dials a new one, and sessionUp ends the old.
func (n *Node) rekey() {
	n.mu.Lock()
	var due []string
	for _, s := range n.sessions {
		if s.rekeyDue() && compareWriters(n.self, s.peer.Writer) < 0 && !s.replaced.Swap(true) {
			due = append(due, s.conn.RemoteAddr().String())
		}
	}
	n.mu.Unlock()
	for _, address := range due {
		n.spawn(func() {
			if _, err := n.dialOnce(address); err != nil {
				n.logger.Debug("a rekeyed session ended", "address", address, "err", err)
			}
		})
	}
}

// step lets the gossip core act.
func (n *Node) step(ev gossip.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stepLocked(ev)
}

func (n *Node) stepLocked(ev gossip.Event) {
	for _, eff := range n.core.Step(n.now(), ev) {
		n.carryOutLocked(eff)
	}
	if n.resting && n.core.Busy() {
		n.resting = false
		select {
		case n.busy <- struct{}{}:
		default:
		}
	}
}

// carryOutLocked does what the core decided. It does not block: what may block is
// handed to the session's workers.
func (n *Node) carryOutLocked(eff gossip.Effect) {
	switch e := eff.(type) {
	case gossip.Send:
		if s := n.sessions[e.Peer]; s != nil {
			if err := s.send(normal, e.Message); err != nil {
				n.logger.Debug("a message was not sent", "peer", e.Peer, "err", err)
			}
		}
	case gossip.Push:
		if s := n.sessions[e.Peer]; s != nil {
			s.give(giving{head: e.Head, ranges: [][2]uint64{{e.First, e.Head.Seq}}})
		}
	case gossip.Fetch:
		n.askLocked(e)
	case gossip.Compare:
		n.spawn(func() { n.compare(e) })
	case gossip.Forked:
		n.control.forked(e)
		n.logger.Error("a feed has two branches and is frozen", "zone", e.A.Zone, "writer", e.A.Writer, "seq", []uint64{e.A.Seq, e.B.Seq})
		n.forked(e)
	case gossip.Ahead:
		n.logger.Error("a peer has events of this node that this node lost", "peer", e.Peer, "zone", e.Head.Zone, "seq", e.Head.Seq)
		n.renew(e.Head.Incarnation)
	case gossip.Drop:
		if s := n.sessions[e.Peer]; s != nil {
			s.end(fcp.Errorf(fcp.CodeVoided, "node %.16s is no member", e.Peer))
		}
	case gossip.Reached:
		n.control.reached(e, n.now())
	case gossip.Gone:
		n.logger.Info("a peer left", "peer", e.Peer)
		n.live.left(e.Peer)
		if s := n.sessions[e.Peer]; s != nil {
			s.end(fcp.Errorf(fcp.CodeClosed, "the peer left"))
		}
	}
}

// handle acts on a message of a session that is ready.
func (n *Node) handle(s *Session, m any) error {
	switch m := m.(type) {
	case *gossip.Vector:
		n.step(gossip.Received{Peer: s.peer.Writer, Message: n.verified(m)})
	case gossip.Message:
		n.step(gossip.Received{Peer: s.peer.Writer, Message: m})
		if u, ok := m.(*gossip.Update); ok {
			n.claimsTold(s.peer.Writer, u)
		}
	case *possessionChallenge:
		n.giveProof(s, m)
	case *possessionProof:
		n.takeProof(s, m)
	case *swim:
		n.live.takeSwim(s, m)
	case *addresses:
		n.takeAddresses(m)
	case *pinReports:
		n.takePins(s, m)
	case *want:
		s.give(giving{feed: m.feed(), ranges: m.Ranges, asked: true})
	case *events:
		return n.takeEvents(s, m)
	case *tailPart:
		return n.takeTail(s, m)
	case *tailHeld:
		n.tailAcked(s, m)
	case *tailWanted:
		n.giveTail(s, m)
	case *checkpointProposal:
		n.takeProposal(s, m)
	case *ask:
		n.takeAsk(s, m)
	case *answer:
		n.takeAnswer(s, m)
	case *leafWanted:
		n.giveLeaf(s, m)
	case *leaf:
		n.takeLeaf(s, m)
	case *saltsWanted:
		n.giveSalts(s, m)
	case *salts:
		return n.takeSalts(m)
	case *offer:
		n.takeOffer(s, m)
	case *shareQuery:
		s.spawn(func() { n.describeShares(s, m) })
	case *shareHeads:
		n.fetches.heads(s, m)
	case *symbolRequest:
		n.takeRequest(s, m)
	case *symbolReply:
		n.fetches.reply(s, m)
	case *decodeStatus:
		s.takeStatus(m)
	case *symbolAck:
		n.fetches.ended(s, m)
	}
	return nil
}
