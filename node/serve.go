package node

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/quic-go/quic-go"

	"fcp"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/gossip"
	"fcp/log"
	"fcp/node/wire"
)

// shareTable is what this node can give symbols of.
type shareTable struct {
	wakeup chan struct{} // placeLoop looks again

	mu     sync.Mutex
	told   map[fcp.SegmentID]toldSegment   // segments of the data plane that members told of; guarded by mu
	own    map[fcp.SegmentID]ownSegment    // in this node's log; guarded by mu
	held   map[fcp.SegmentID][]symbols.Ref // shares held; guarded by mu
	silent map[fcp.SegmentID]bool          // held and not told of: quarantined; guarded by mu
	taking map[string]bool                 // shares on their way in, by name; guarded by mu
	files  list.List                       // of *loadedShare, most recent first; guarded by mu
	mints  list.List                       // of *loadedMint, most recent first; guarded by mu
}

// ownSegment is a sealed segment of the data plane in this node's log.
type ownSegment struct {
	no   uint64
	zone fcp.ZoneID
	card []byte
	ref  symbols.Ref
	mine bool // this node wrote it
}

// Caches of the share table.
const (
	maxLoadedShares = 8
	maxLoadedMints  = 4
	maxQuarantined  = 1024 // shares of segments that nobody told of
)

type loadedShare struct {
	name     string
	file     []byte
	manifest []byte
}

// loadedMint is a segment ready to make symbols of.
type loadedMint struct {
	segment fcp.SegmentID
	mu      sync.Mutex // Minting is for one goroutine
	minting *engine.Minting
}

func (t *shareTable) init() {
	t.wakeup = make(chan struct{}, 1)
	t.told, t.own = map[fcp.SegmentID]toldSegment{}, map[fcp.SegmentID]ownSegment{}
	t.held, t.silent, t.taking = map[fcp.SegmentID][]symbols.Ref{}, map[fcp.SegmentID]bool{}, map[string]bool{}
}

// toldSegment is where the engine finds what a member told of a segment.
type toldSegment struct {
	zone  fcp.ZoneID
	feed  fcp.FeedID
	first uint64
}

// tell notes who tells of a segment: the first who does, so that nobody can put his
// word in the place of another's. Under t.mu, or before the node is started.
func (t *shareTable) tell(r *log.Remainder) {
	id := fcp.SegmentID(r.Segment)
	if _, ok := t.told[id]; !ok {
		t.told[id] = toldSegment{r.Zone, r.Feed().ID(), r.First}
	}
}

func (t *shareTable) wake() {
	select {
	case t.wakeup <- struct{}{}:
	default:
	}
}

// knowSymbols tells the core of every share held and of own segments, which are
// their source symbols.
func (n *Node) knowSymbols() error {
	t := &n.shares
	for _, zone := range n.engine.Zones() {
		err := n.engine.DataSegments(zone, func(r *log.Remainder) error {
			t.tell(r)
			n.repairs.know(r)
			return nil
		})
		if err == nil {
			err = n.knowSuperseded(zone)
		}
		if err != nil {
			return err
		}
	}
	if err := n.knowSegments(); err != nil {
		return err
	}
	return n.engine.Shares(func(h engine.HeldShare) error {
		n.holdShare(h.Ref)
		return nil
	})
}

// knowSegments looks for segments of the data plane in the log.
func (n *Node) knowSegments() error {
	return n.engine.Log().Segments(func(i log.SegmentInfo) error {
		if i.Remainder.Plane == uint64(fcp.PlaneData) {
			n.ownSegment(i.No, &i.Remainder)
		}
		return nil
	})
}

// ownSegment notes that the log has a segment, whose source symbols can be given.
func (n *Node) ownSegment(no uint64, r *log.Remainder) {
	card, err := fcp.DecodeCard(r.Card)
	if err != nil {
		return // the log checked it
	}
	info, err := card.Transmission()
	ref := symbols.Ref{Segment: card.Segment, Size: uint32(info.F), First: 0, Count: uint32(info.Symbols())}
	if err != nil || !ref.Valid() {
		return
	}
	t := &n.shares
	t.mu.Lock()
	_, known := t.own[ref.Segment]
	t.own[ref.Segment] = ownSegment{no, r.Zone, r.Card, ref, r.Feed().Writer == n.self}
	t.tell(r)
	t.mu.Unlock()
	if !known {
		n.announce(ref.Segment)
	}
}

// announce tells the core what this node holds of a segment, unless nobody told
// of the segment.
func (n *Node) announce(id fcp.SegmentID) {
	t := &n.shares
	t.mu.Lock()
	b := roaring.New()
	if _, ok := t.told[id]; ok {
		delete(t.silent, id)
		if own, ok := t.own[id]; ok {
			b.AddRange(0, uint64(own.ref.Count))
		}
		for _, r := range t.held[id] {
			b.AddRange(uint64(r.First), uint64(r.End()))
		}
	} else {
		t.silent[id] = true
	}
	t.mu.Unlock()
	n.step(gossip.LocalSymbols{Segment: id, Symbols: b})
}

func (n *Node) holdShare(r symbols.Ref) {
	t := &n.shares
	t.mu.Lock()
	if !slices.Contains(t.held[r.Segment], r) {
		t.held[r.Segment] = append(t.held[r.Segment], r)
	}
	t.mu.Unlock()
	n.announce(r.Segment)
}

// segmentTold notes that a member told of a segment: what is held of it may be
// announced.
func (n *Node) segmentTold(r *log.Remainder) {
	id := fcp.SegmentID(r.Segment)
	t := &n.shares
	t.mu.Lock()
	t.tell(r)
	silent := t.silent[id]
	t.mu.Unlock()
	if silent {
		n.announce(id)
	}
}

// mint returns an own segment ready to make symbols of.
func (n *Node) mint(ctx context.Context, own ownSegment) (*loadedMint, error) {
	t := &n.shares
	t.mu.Lock()
	var m *loadedMint
	for el := t.mints.Front(); el != nil; el = el.Next() {
		if x := el.Value.(*loadedMint); x.segment == own.ref.Segment {
			t.mints.MoveToFront(el)
			m = x
		}
	}
	if m == nil {
		m = &loadedMint{segment: own.ref.Segment}
		t.mints.PushFront(m)
		if t.mints.Len() > maxLoadedMints {
			t.mints.Remove(t.mints.Back())
		}
	}
	t.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.minting == nil {
		ciphertext, err := n.engine.Log().Ciphertext(own.no)
		if err != nil {
			return nil, err
		}
		if m.minting, err = n.engine.Mint(ctx, &n.coder, own.card, ciphertext); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// loadShare returns a share's file and the manifest that vouches for it: one that
// is held, or one made now of an own segment.
func (n *Node) loadShare(ctx context.Context, r symbols.Ref) (file, manifest []byte, err error) {
	t := &n.shares
	name := r.FileName()
	t.mu.Lock()
	for el := t.files.Front(); el != nil; el = el.Next() {
		if x := el.Value.(*loadedShare); x.name == name {
			t.files.MoveToFront(el)
			t.mu.Unlock()
			return x.file, x.manifest, nil
		}
	}
	held := slices.Contains(t.held[r.Segment], r)
	own, ok := t.own[r.Segment]
	t.mu.Unlock()
	mending := n.repairing(r.Segment)
	switch {
	case held:
		file, manifest, err = n.engine.ReadShare(r)
	case ok && own.ref.Size == r.Size || mending != nil && mending.minting.Ref.Size == r.Size:
		m := mending
		if m == nil {
			if m, err = n.mint(ctx, own); err != nil {
				return nil, nil, err
			}
		}
		m.mu.Lock()
		file, manifest, err = m.minting.Share(ctx, r.First, r.Count, n.opt.Policy.Need)
		m.mu.Unlock()
	default:
		return nil, nil, fcp.Errorf(fcp.CodeNotFound, "share %s", name)
	}
	if err != nil {
		return nil, nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files.PushFront(&loadedShare{name, file, manifest})
	if t.files.Len() > maxLoadedShares {
		t.files.Remove(t.files.Back())
	}
	return file, manifest, nil
}

// refOf returns the share that a peer names, if this node can give it.
func (n *Node) refOf(segment fcp.SegmentID, first, count uint64) (symbols.Ref, bool) {
	t := &n.shares
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.held[segment] {
		if uint64(r.First) == first && uint64(r.Count) == count {
			return r, true
		}
	}
	size := t.own[segment].ref.Size
	if m := n.repairing(segment); size == 0 && m != nil {
		size = m.minting.Ref.Size
	}
	r := symbols.Ref{Segment: segment, Size: size, First: uint32(first), Count: uint32(count)}
	return r, size > 0 && r.Valid()
}

// sharesOf returns the shares of a segment that this node has without making new
// symbols.
func (n *Node) sharesOf(segment fcp.SegmentID) []symbols.Ref {
	t := &n.shares
	t.mu.Lock()
	defer t.mu.Unlock()
	out := slices.Clone(t.held[segment])
	if own, ok := t.own[segment]; ok {
		out = append(out, own.ref)
	}
	return out[:min(len(out), maxShares)]
}

// stretch has own segments given with as many symbols beyond their source symbols as
// a share may have: where packets get lost any of them will do.
func (n *Node) stretch(list []symbols.Ref) {
	t := &n.shares
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, r := range list {
		if own, ok := t.own[r.Segment]; ok && own.ref == r {
			list[i].Count += symbols.MaxExtra
		}
	}
}

// headSize is the part of a share file before its symbols.
func headSize(r *symbols.Ref) int { return r.HeadSize() }

// describeShares answers a query.
func (n *Node) describeShares(s *Session, q *shareQuery) {
	done, err := s.budget.serve()
	if err != nil {
		return
	}
	defer done()
	m := &shareHeads{Segment: q.Segment, Shares: []shareHead{}, ID: q.ID}
	list := n.sharesOf(q.Segment)
	if q.Try > 0 {
		n.stretch(list)
	}
	if q.Count > 0 {
		list = nil
		if r, ok := n.refOf(q.Segment, q.First, q.Count); ok {
			list = append(list, r)
		}
	}
	for _, r := range list {
		file, manifest, err := n.loadShare(s.ctx, r)
		if err != nil {
			n.logger.Warn("a share cannot be read", "share", r.FileName(), "err", err)
			continue
		}
		h := shareHead{manifest, uint64(r.First), uint64(r.Count), file[:headSize(&r)]}
		if q.Try > 0 {
			if err := s.sendLane(&shareHeads{Segment: q.Segment, Shares: []shareHead{h}, ID: q.ID}, int(min(q.Try, maxLaneTries)-1)); err != nil {
				n.logger.Debug("a share was not described", "peer", s.peer.Writer, "err", err)
			}
			continue
		}
		m.Shares = append(m.Shares, h)
	}
	if q.Try > 0 && len(m.Shares) == 0 && len(list) > 0 {
		return
	}
	if err := s.send(urgent, m); err != nil {
		n.logger.Debug("shares were not described", "peer", s.peer.Writer, "err", err)
	}
}

// takeRequest admits a request for symbols, or says why not.
func (n *Node) takeRequest(s *Session, m *symbolRequest) {
	refuse := func(err error) {
		if err := s.send(urgent, &symbolReply{ID: m.ID, Refused: fcp.CodeOf(err)}); err != nil {
			n.logger.Debug("a refusal was not sent", "peer", s.peer.Writer, "err", err)
		}
	}
	if m.Requester != [32]byte(s.peer.Keys.Signing) {
		refuse(fcp.Errorf(fcp.CodeUnauthorized, "a request of another node"))
		return
	}
	if s.isServing(m.ID) {
		return // asked again over the lane before the first symbol arrived
	}
	if err := m.verify(); err != nil {
		refuse(err)
		return
	}
	now := n.now()
	if at := time.UnixMilli(int64(min(m.At, 1<<48))); at.Sub(now).Abs() > wire.MaxSkew || uint64(now.UnixMilli()) > m.Deadline {
		refuse(fcp.Errorf(fcp.CodeTimeout, "a request out of its time"))
		return
	}
	done, err := s.budget.serve()
	if err != nil {
		refuse(err)
		return
	}
	ctx, cancel := context.WithDeadline(s.ctx, now.Add(min(time.UnixMilli(int64(min(m.Deadline, 1<<48))).Sub(now), 2*time.Minute)))
	s.setServing(m.ID, cancel)
	s.spawn(func() {
		defer done()
		defer s.clearServing(m.ID)
		if err := n.serveSymbols(ctx, s, m); err != nil {
			refuse(err)
			n.logger.Debug("symbols were not given", "peer", s.peer.Writer, "err", err)
		}
	})
}

// serveSymbols sends the symbols of one request.
func (n *Node) serveSymbols(ctx context.Context, s *Session, m *symbolRequest) error {
	ref, ok := n.refOf(m.Segment, m.First, m.Count)
	if !ok {
		return fcp.Errorf(fcp.CodeNotFound, "segment %s", m.Segment)
	}
	wanted, err := decodeWanted(m.Wanted, m.First, m.Count)
	if err != nil {
		return err
	}
	if by := carrier(m.Carrier); by == carrierWhole || by == carrierBulk {
		return n.serveWhole(ctx, s, m.ID, by, ref, wanted)
	} else if by == carrierPart {
		return n.serveParts(ctx, s, m.ID, ref, wanted)
	}
	began := n.now()
	data, err := n.symbolData(ctx, ref, wanted)
	if err != nil {
		return err
	}
	s.budget.cpu(n.now().Sub(began))
	granted := int(min(m.Max, wanted.GetCardinality()))
	if carrier(m.Carrier) == carrierDatagram {
		granted = min(granted, maxWanted)
	}
	if granted = s.budget.symbols(granted, wire.DefaultDatagram); granted == 0 {
		return errBudget("symbols")
	}
	if err := s.send(urgent, &symbolReply{ID: m.ID, Granted: uint64(granted)}); err != nil {
		return err
	}
	h := wire.Header{Flags: wire.DefaultFlags, Object: ref.Segment, SymbolSize: fcp.SymbolSize, ZoneKey: m.ZoneKey, ZoneHash: m.Zone, Epoch: m.Epoch}
	out := &symbolWriter{ctx: ctx, s: s, carrier: carrier(m.Carrier), head: h, ref: ref, data: data}
	if out.carrier == carrierLane {
		esis := wanted.ToArray()
		_, err := s.serveLane(ctx, m.ID, out, esis[:min(granted, len(esis))])
		return err
	}
	last := symbolAck{ID: m.ID, Reason: ackComplete}
	esis := make([]uint32, out.room())
	for it := wanted.ManyIterator(); int(last.Final) < granted; {
		got := it.NextMany(esis[:min(len(esis), granted-int(last.Final))])
		if got == 0 {
			break
		}
		if ctx.Err() != nil { // the peer has enough
			last.Reason = ackCancelled
			break
		}
		if err := out.write(esis[:got]); err != nil {
			return errors.Join(err, out.close())
		}
		last.Final += uint64(got)
		n.metrics.SymbolsSent.Add(uint64(got))
	}
	if err := out.close(); err != nil {
		return err
	}
	if last.Final == wanted.GetCardinality() {
		n.proofs.gave(s.peer.Writer, ref.Segment, wanted)
	}
	// The end of the answer: what has not come soon after it is lost.
	last.Carrier = uint64(out.carrier)
	return s.send(urgent, &last)
}

// ownWhole returns the segment of this node's log whose source symbols a share is.
func (n *Node) ownWhole(ref symbols.Ref) (own ownSegment, ok bool) {
	t := &n.shares
	t.mu.Lock()
	defer t.mu.Unlock()
	own, ok = t.own[ref.Segment]
	return own, ok && own.ref == ref && !slices.Contains(t.held[ref.Segment], ref)
}

// symbolData returns the symbols of a share. All source symbols of an own segment are
// its ciphertext: who wants the whole of it costs no coding and no commitments.
func (n *Node) symbolData(ctx context.Context, ref symbols.Ref, wanted *roaring.Bitmap) ([]byte, error) {
	if own, ok := n.ownWhole(ref); ok && wanted.GetCardinality() == uint64(ref.Count) {
		b, err := n.engine.Log().Ciphertext(own.no)
		if err != nil {
			return nil, err
		}
		return append(b, make([]byte, int(ref.Count)*fcp.SymbolSize-len(b))...), nil
	}
	file, _, err := n.loadShare(ctx, ref)
	if err != nil {
		return nil, err
	}
	return file[headSize(&ref):], nil
}

// symbolWriter sends symbols of a share over the carrier that was asked for.
type symbolWriter struct {
	ctx     context.Context
	s       *Session
	carrier carrier
	head    wire.Header
	ref     symbols.Ref
	data    []byte // the share's symbols
	stream  *quic.SendStream
	buf     []byte
}

// room returns how many symbols one frame may have.
func (w *symbolWriter) room() int {
	limit := w.s.limit
	if w.carrier == carrierStream {
		limit = w.s.streamFrame()
	}
	return wire.FrameRoom(w.s.layout, fcp.SymbolSize, limit)
}

func (w *symbolWriter) seal(b []byte, esis []uint32) []byte {
	return w.s.sealSymbols(b, &w.head, uint16(w.ref.K()), esis, func(i int) []byte {
		at := int(esis[i]-w.ref.First) * fcp.SymbolSize
		return w.data[at : at+fcp.SymbolSize]
	})
}

// write sends one frame.
func (w *symbolWriter) write(esis []uint32) error {
	switch w.carrier {
	case carrierLane:
		w.buf = w.seal(w.buf[:0], esis)
		_, err := w.s.node.transport.quic.WriteTo(w.buf, w.s.conn.RemoteAddr())
		return fcp.Wrap(fcp.CodeTimeout, err, "send a packet")
	case carrierDatagram:
		err := w.s.conn.SendDatagram(w.seal(make([]byte, 0, w.s.limit), esis))
		var large *quic.DatagramTooLargeError
		if err == nil || !errors.As(err, &large) {
			return fcp.Wrap(fcp.CodeTimeout, err, "send a datagram")
		}
		w.carrier = carrierStream // the path carries no symbol in a datagram
	}
	if w.stream == nil {
		var err error
		if w.stream, err = w.s.conn.OpenUniStreamSync(w.ctx); err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "open a stream of symbols")
		}
	}
	w.buf = w.seal(append(w.buf[:0], 0, 0), esis)
	binary.BigEndian.PutUint16(w.buf, uint16(len(w.buf)-2))
	_, err := w.stream.Write(w.buf)
	return fcp.Wrap(fcp.CodeTimeout, err, "send symbols")
}

func (w *symbolWriter) close() error {
	if w.stream == nil {
		return nil
	}
	return w.stream.Close()
}

// setServing remembers how to stop a request.
func (s *Session) setServing(id uint64, cancel context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.serving == nil {
		s.serving = map[uint64]context.CancelFunc{}
	}
	if old := s.serving[id]; old != nil {
		old()
	}
	s.serving[id] = cancel
}

// isServing reports whether a request is being served.
func (s *Session) isServing(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving[id] != nil
}

func (s *Session) clearServing(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.serving[id]; c != nil {
		c()
		delete(s.serving, id)
	}
}
