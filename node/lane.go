package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/coding"
	"fcp/node/wire"
)

// The lane is the node's UDP socket beside QUIC. Nothing on it waits for what was
// lost: a control message is coded and any of its symbols will do (spec/wire.md
// section 10.3), requests are repeated until something comes, and of a share that is
// being sent the receiver tells all the time what it has.

// laneLink is one session's end of the lane.
type laneLink struct {
	pacer *pacer

	mu      sync.Mutex
	newest  uint64               // frame with symbols; guarded by mu
	at      time.Time            // when it came; guarded by mu
	frames  uint64               // with symbols that came; guarded by mu
	parts   []*laneParts         // messages of which symbols came, oldest first; guarded by mu
	whole   [][32]byte           // messages that were handed on, oldest first; guarded by mu
	serving map[uint64]*laneFlow // requests of the peer, by id; guarded by mu
}

// laneParts are the symbols of a message that is not whole yet.
type laneParts struct {
	id   [32]byte
	k    uint16
	size uint16
	dec  *coding.Decoder
}

// Limits of control messages on the lane.
const (
	maxLaneSymbols = 128 // of one message: 128 KiB
	maxLaneParts   = 4   // messages that are not whole
	maxLaneWhole   = 32  // messages remembered so that they are handed on once
	laneStride     = 256 // first symbols of one try and the next
	laneHead       = 4   // u32be length
	maxLaneTries   = 16  // of one question
	flagsMessage   = wire.FlagEncrypted | wire.FlagRaptorQ | wire.FlagControlPlane
)

func laneShape(size int) coding.Shape {
	return coding.Shape{SymbolSize: size, SubBlocks: 1, Alignment: fcp.SymbolAlignment}
}

// sendLane sends a control message over the lane: as many symbols as should do,
// spread over less than a round trip. It is called again, with the number of the try
// from 0, until something comes back; each try sends other symbols, and more.
func (s *Session) sendLane(m any, try int) error {
	b, err := encodeLane(m)
	if err != nil {
		return err
	}
	h := wire.Header{Flags: flagsMessage, Object: blake3.Sum256(b), SymbolSize: fcp.SymbolSize}
	if len(b) <= fcp.SymbolSize { // one symbol, no longer than it must be
		h.SymbolSize = uint16(max(wire.MinSymbolSize, (len(b)+fcp.SymbolAlignment-1)/fcp.SymbolAlignment*fcp.SymbolAlignment))
		b = append(b, make([]byte, int(h.SymbolSize)-len(b))...)
		for range min(try+1, 3) {
			if err := s.writeLane(&h, 0, 1, b); err != nil {
				return err
			}
		}
		return nil
	}
	k := (len(b) + fcp.SymbolSize - 1) / fcp.SymbolSize
	if k > maxLaneSymbols {
		return fcp.Errorf(fcp.CodeTooLarge, "a message of %d bytes on the lane", len(b))
	}
	plan, err := s.node.plans.Get(s.ctx, k)
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "code a message")
	}
	enc, err := coding.NewEncoder(plan, k, laneShape(fcp.SymbolSize), coding.EncoderOptions{})
	if err == nil {
		err = enc.Reset(b)
	}
	if err == nil {
		err = enc.Encode(s.ctx)
	}
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "code a message")
	}
	// A second try means that there is loss.
	loss := min(max(s.lane.pacer.lossRate(), float64(try)*0.25), 0.75)
	n := int(float64(k)/(1-loss)) + 2
	pause := s.rtt() / time.Duration(2*n)
	var symbol [fcp.SymbolSize]byte
	rest := laneRest{ctx: s.ctx}
	for i := range n {
		esi := uint32(try*laneStride + i)
		if err := enc.Symbol(symbol[:], esi); err != nil {
			return fcp.Wrap(fcp.CodeInternal, err, "code a message")
		}
		if err := s.writeLane(&h, esi, uint16(k), symbol[:]); err != nil {
			return err
		}
		rest.pause(pause)
	}
	return nil
}

// encodeLane returns the block of a message (spec/wire.md section 10.3).
func encodeLane(m any) ([]byte, error) {
	payload, err := encodeMessage(m)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(payload)-fcp.HashSize)), payload...), nil
}

// writeLane sends a frame of one symbol.
func (s *Session) writeLane(h *wire.Header, esi uint32, k uint16, symbol []byte) error {
	b := s.sealSymbols(make([]byte, 0, s.limit), h, k, []uint32{esi}, func(int) []byte { return symbol })
	_, err := s.node.transport.quic.WriteTo(b, s.conn.RemoteAddr())
	return fcp.Wrap(fcp.CodeTimeout, err, "send a packet")
}

// rtt is the round trip as QUIC sees it.
func (s *Session) rtt() time.Duration {
	st := s.conn.ConnectionStats()
	return max(st.MinRTT, 100*time.Microsecond)
}

// resend is after what time an answer over the lane is overdue.
func (s *Session) resend() time.Duration { return s.rtt()*5/4 + 5*time.Millisecond }

// leastPause is the shortest pause that is made; shorter ones are saved up, because
// no timer is finer.
const leastPause = time.Millisecond

// laneRest makes pauses between packets.
type laneRest struct {
	ctx  context.Context
	owed time.Duration
}

func (r *laneRest) pause(d time.Duration) {
	if r.owed += d; r.owed < leastPause {
		return
	}
	t := time.NewTimer(r.owed)
	defer t.Stop()
	r.owed = 0
	select {
	case <-t.C:
	case <-r.ctx.Done():
	}
}

// takeLaneMessage takes a symbol of a control message. What is wrong is counted and
// dropped.
func (s *Session) takeLaneMessage(f *wire.Frame) {
	n := s.node
	select {
	case <-s.ready:
	default:
		return
	}
	for i := range f.Records {
		r := &f.Records[i]
		symbol, err := s.takeSym.Open(nil, &f.Header, r)
		if err != nil {
			n.metrics.SymbolsFailed.Add(1)
			return
		}
		b, err := s.lane.join(n, f.Object, f.SymbolSize, r, symbol)
		if err == nil && b != nil {
			err = s.handleLane(f.Object, b)
		}
		if err != nil {
			n.metrics.FramesRefused.Add(1)
			n.logger.Debug("a message on the lane was refused", "peer", s.peer.Writer, "err", err)
		}
	}
}

// join adds a symbol to its message and returns the message when it is whole, once.
func (l *laneLink) join(n *Node, id [32]byte, size uint16, r *wire.Record, symbol []byte) ([]byte, error) {
	if r.K == 1 {
		if r.ESI != 0 {
			return nil, fcp.Errorf(fcp.CodeMalformed, "a message of one symbol is its first")
		}
		return symbol, nil
	}
	if r.K == 0 || r.K > maxLaneSymbols || size != fcp.SymbolSize || r.ESI > coding.MaxESI {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a message of %d symbols on the lane", r.K)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Contains(l.whole, id) {
		return nil, nil
	}
	i := slices.IndexFunc(l.parts, func(p *laneParts) bool { return p.id == id && p.k == r.K })
	if i < 0 {
		dec, err := coding.NewDecoder(int(r.K), laneShape(int(size)), coding.DecoderOptions{Plans: &n.plans})
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeMalformed, err, "a message on the lane")
		}
		if len(l.parts) == maxLaneParts {
			l.parts = slices.Delete(l.parts, 0, 1)
		}
		l.parts = append(l.parts, &laneParts{id, r.K, size, dec})
		i = len(l.parts) - 1
	}
	p := l.parts[i]
	added, err := p.dec.Add(r.ESI, symbol)
	if err != nil || !added || !p.dec.Complete() && !p.dec.Ready() {
		return nil, fcp.Wrap(fcp.CodeMalformed, err, "a symbol on the lane")
	}
	if !p.dec.Complete() {
		err = p.dec.Decode(n.life)
		if errors.Is(err, coding.ErrNeedMore) {
			return nil, nil
		}
	}
	l.parts = slices.Delete(l.parts, i, i+1)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeMalformed, err, "a message on the lane")
	}
	if l.whole = append(l.whole, id); len(l.whole) > maxLaneWhole {
		l.whole = l.whole[1:]
	}
	b, err := p.dec.Block()
	return bytes.Clone(b), fcp.Wrap(fcp.CodeInternal, err, "a message on the lane")
}

// handleLane acts on a whole message.
func (s *Session) handleLane(id [32]byte, b []byte) error {
	m, err := decodeLane(id, b)
	if err != nil {
		return err
	}
	return s.node.handle(s, m)
}

// decodeLane decodes a whole message. Of the messages that a stream brings only those
// are taken that do no harm when they come twice or late.
func decodeLane(id [32]byte, b []byte) (any, error) {
	if len(b) < laneHead+fcp.HashSize {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a message of %d bytes on the lane", len(b))
	}
	size := laneHead + fcp.HashSize + uint64(binary.BigEndian.Uint32(b))
	if size > uint64(len(b)) {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a message on the lane is cut short")
	}
	if bytes.ContainsFunc(b[size:], func(r rune) bool { return r != 0 }) {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a message on the lane is not padded with zeros")
	}
	if b = b[:size]; blake3.Sum256(b) != id {
		return nil, fcp.Errorf(fcp.CodeChecksum, "a message on the lane")
	}
	m, err := decodeMessage(b[laneHead:])
	if err != nil {
		return nil, err
	}
	switch m.(type) {
	case *shareQuery, *shareHeads, *symbolRequest, *symbolReply, *decodeStatus:
		return m, nil
	}
	return nil, fcp.Errorf(fcp.CodeMalformed, "%T on the lane", m)
}

// took notes that a frame with symbols came.
func (l *laneLink) took(seq uint64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frames++
	if seq > l.newest {
		l.newest, l.at = seq, now
	}
}

// status fills in what a status says about packets.
func (l *laneLink) status(m *decodeStatus, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m.Frame, m.Frames = l.newest, l.frames
	if !l.at.IsZero() {
		m.At, m.Held = uint64(max(l.at.UnixMicro(), 0)), uint64(max(now.Sub(l.at).Microseconds(), 0))
	}
}

// laneFlow sends the symbols of one request. All but the channel belongs to the
// goroutine that serves the request.
type laneFlow struct {
	in   chan *decodeStatus
	esis []uint32
	sent []flownSymbol // of esis
	next int           // first that was never sent
	lost []int         // to be sent again
	done int
}

// flownSymbol is what is known of a symbol.
type flownSymbol struct {
	seq    uint64 // frame that carried it last; 0: none
	copies int
	here   bool // the peer has it
	queued bool // in lost
}

const (
	laneReorder = 3               // frames that may overtake a symbol before it counts as lost
	laneSilence = 5 * time.Second // without a status: the peer is gone
	lateCopies  = 0.1             // chance of a symbol's loss that the last ones are sent often enough for
)

// flow registers the flow of a request. ok is false when there is one.
func (l *laneLink) flow(id uint64, esis []uint32) (f *laneFlow, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serving[id] != nil {
		return nil, false
	}
	if l.serving == nil {
		l.serving = map[uint64]*laneFlow{}
	}
	f = &laneFlow{in: make(chan *decodeStatus, 16), esis: esis, sent: make([]flownSymbol, len(esis))}
	l.serving[id] = f
	return f, true
}

func (l *laneLink) endFlow(id uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.serving, id)
}

// takeStatus takes a status of the peer in.
func (s *Session) takeStatus(m *decodeStatus) {
	if m.Frame > 0 {
		s.lane.pacer.report(paceReport{m.Frame, m.Frames, time.Duration(min(m.At, 1<<52)) * time.Microsecond,
			time.Duration(min(m.Held, 1<<32)) * time.Microsecond}, s.node.now())
	}
	if m.Complete {
		s.clearServing(m.ID)
		return
	}
	s.lane.mu.Lock()
	defer s.lane.mu.Unlock()
	if f := s.lane.serving[m.ID]; f != nil {
		select {
		case f.in <- m:
		default: // the next one says more
		}
	}
}

// serveLane sends symbols until the peer has enough of them or is gone. It returns
// how many went out.
func (s *Session) serveLane(ctx context.Context, id uint64, w *symbolWriter, esis []uint32) (sent int, err error) {
	f, ok := s.lane.flow(id, esis)
	if !ok {
		return 0, nil
	}
	defer s.lane.endFlow(id)
	p, n := s.lane.pacer, s.node
	heard := n.now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	i := -1
	for f.done < len(esis) {
		if i < 0 || f.sent[i].here {
			i = f.pick(p.lossRate())
		}
		wait, changed := p.resend(), (<-chan struct{})(nil)
		if i >= 0 {
			if wait, changed = p.next(n.now()); wait == 0 {
				if sent >= len(esis) && s.budget.symbols(1, s.limit) == 0 { // those were granted
					return sent, errBudget("symbols")
				}
				if err := w.write(esis[i : i+1]); err != nil {
					return sent, err
				}
				p.sent(w.head.Seq, n.now())
				f.sent[i].seq = w.head.Seq
				f.sent[i].copies++
				i = -1
				sent++
				n.metrics.SymbolsSent.Add(1)
				f.drain(&heard, n.now())
				continue
			}
		}
		timer.Reset(max(wait, leastPause))
		select {
		case m := <-f.in:
			heard = n.now()
			f.hear(m)
		case <-changed:
		case <-timer.C:
			if i < 0 { // all is sent, and nobody says what came
				f.again()
			}
		case <-ctx.Done():
			return sent, nil
		}
		if n.now().Sub(heard) > laneSilence {
			return sent, nil
		}
	}
	return sent, nil
}

func (f *laneFlow) drain(heard *time.Time, now time.Time) {
	for {
		select {
		case m := <-f.in:
			*heard = now
			f.hear(m)
		default:
			return
		}
	}
}

// pick takes the symbol to send next: one that was lost, one that was never sent, or,
// at the end, one that is under way and may get lost; -1: none.
func (f *laneFlow) pick(loss float64) int {
	for len(f.lost) > 0 {
		i := f.lost[0]
		f.lost = f.lost[1:]
		f.sent[i].queued = false
		if !f.sent[i].here {
			return i
		}
	}
	if f.next < len(f.esis) {
		f.next++
		return f.next - 1
	}
	copies := 1
	if loss > 0.05 {
		copies = int(math.Ceil(math.Log(lateCopies) / math.Log(min(loss, 0.9))))
	}
	best := -1
	for i := range f.sent {
		if x := &f.sent[i]; !x.here && x.copies < copies && (best < 0 || x.copies < f.sent[best].copies) {
			best = i
		}
	}
	return best
}

// hear learns from a status which symbols came and which were lost.
func (f *laneFlow) hear(m *decodeStatus) {
	for i := range f.sent {
		x := &f.sent[i]
		if x.here || x.seq == 0 {
			continue
		}
		if m.has(f.esis[i]) {
			x.here = true
			f.done++
		} else if !x.queued && x.seq+laneReorder <= m.Frame {
			x.queued, x.copies = true, 0
			f.lost = append(f.lost, i)
		}
	}
}

// again takes everything that is under way as lost.
func (f *laneFlow) again() {
	for i := range f.sent {
		if x := &f.sent[i]; !x.here && !x.queued {
			x.queued, x.copies = true, 0
			f.lost = append(f.lost, i)
		}
	}
}
