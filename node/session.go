package node

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"fcp"
	"fcp/engine"
	"fcp/node/wire"
)

// Session is an authenticated conversation with one peer.
type Session struct {
	node      *Node
	peer      engine.Member
	conn      *quic.Conn
	stream    *quic.Stream
	id        wire.SessionID
	dialled   bool // this node began it
	direction wire.Direction
	limit     int // bytes of a datagram
	layout    wire.Layout
	started   time.Time

	control *wire.ControlCipher
	sendMAC *wire.MAC
	takeMAC *wire.MAC
	sendSym *wire.SymbolCipher
	takeSym *wire.SymbolCipher

	queue outQueue
	lane  laneLink
	whole wholeTable
	bulk  bulkLink

	answers answerTime
	asks    askTable

	saltsGiven givenLately

	controlSeq uint64 // last sent; owned by writeLoop
	takenSeq   uint64 // last received; owned by readLoop
	frameSeq   atomic.Uint64
	sentBytes  atomic.Uint64

	mu      sync.Mutex
	window  *wire.Window                  // guarded by mu
	serving map[uint64]context.CancelFunc // requests of the peer, by id; guarded by mu
	heard   uint64                        // packets received when it was last looked; guarded by mu
	heardAt time.Time                     // when that number last grew; guarded by mu
	caps    *capabilities                 // owned by readLoop

	giveMu  sync.Mutex
	givings []giving // guarded by giveMu
	giver   bool     // giveLoop runs; guarded by giveMu

	replaced atomic.Bool // a fresh session is being made

	nextRequest atomic.Uint64
	budget      *budget
	ready       chan struct{} // closed when the peer's capabilities are here

	ctx  context.Context // ends with the session
	stop context.CancelCauseFunc
	work sync.WaitGroup
}

// newSession makes the ciphers of a session.
func (n *Node) newSession(e *established) (*Session, error) {
	s := &Session{node: n, peer: e.peer, conn: e.conn, stream: e.stream, id: e.session, dialled: e.direction == wire.ToResponder,
		direction: e.direction, limit: e.limit, layout: wire.LayoutNative, started: n.now(), window: wire.NewWindow(wire.DefaultWindow),
		ready: make(chan struct{}), budget: n.budgetOf(e.peer.Writer)}
	s.queue.init()
	s.asks.init()
	s.lane.pacer = newPacer(e.conn.ConnectionStats().SmoothedRTT)
	var err error
	if s.control, err = wire.NewControlCipher(e.session, e.keys.Context); err != nil {
		return nil, err
	}
	s.bulk.turn = make(chan struct{}, 1)
	if s.bulk.key, err = e.keys.BulkKey(); err != nil {
		return nil, err
	}
	back := e.direction.Back()
	if s.sendMAC, err = wire.NewMAC(e.suite, e.keys.MAC[e.direction], e.session, e.direction); err != nil {
		return nil, err
	}
	if s.takeMAC, err = wire.NewMAC(e.suite, e.keys.MAC[back], e.session, back); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		d  wire.Direction
		to **wire.SymbolCipher
	}{{e.direction, &s.sendSym}, {back, &s.takeSym}} {
		k, err := e.keys.SymbolKey(c.d)
		if err != nil {
			return nil, err
		}
		if *c.to, err = wire.NewSymbolCipher(k); err != nil {
			return nil, err
		}
	}
	s.ctx, s.stop = context.WithCancelCause(n.life)
	return s, nil
}

// Peer returns who the session is with.
func (s *Session) Peer() fcp.WriterID { return s.peer.Writer }

// run serves the session until it ends, and returns why.
func (s *Session) run() error {
	for _, loop := range []func() error{s.writeLoop, s.readLoop, s.datagramLoop, s.streamLoop, s.takeStreams, s.expectReady} {
		s.work.Add(1)
		go func() {
			defer s.work.Done()
			s.end(loop())
		}()
	}
	if err := s.send(urgent, s.node.capabilities()); err != nil {
		s.end(err)
	}
	<-s.ctx.Done()
	err := context.Cause(s.ctx)
	s.queue.close()
	code := quic.ApplicationErrorCode(fcp.CodeOf(err))
	s.conn.CloseWithError(code, "") // its error repeats what ended the session
	s.work.Wait()
	return err
}

// expectReady ends a session whose peer does not say what it can do: until then it
// does nothing but cost.
func (s *Session) expectReady() error {
	t := time.NewTimer(helloWait)
	defer t.Stop()
	select {
	case <-s.ready:
		<-s.ctx.Done()
	case <-s.ctx.Done():
	case <-t.C:
		return fcp.Errorf(fcp.CodeTimeout, "wait for the capabilities of %.16s", s.peer.Writer)
	}
	return nil
}

// end ends the session with a reason; the first one counts.
func (s *Session) end(err error) {
	if err == nil {
		err = fcp.Errorf(fcp.CodeClosed, "the session with %.16s", s.peer.Writer)
	}
	s.stop(err)
}

// priority of a message in the queue.
type priority int

const (
	urgent priority = iota // revocations, answers that somebody waits for
	normal
	bulk // event batches
	priorities
)

// outQueue holds messages until the stream takes them, urgent ones first.
type outQueue struct {
	mu     sync.Mutex
	room   sync.Cond // bulk may be queued again, or closed
	some   chan struct{}
	parts  [priorities][][]byte // guarded by mu
	bytes  int                  // guarded by mu
	closed bool                 // guarded by mu
}

func (q *outQueue) init() {
	q.some = make(chan struct{}, 1)
	q.room.L = &q.mu
}

// add queues a message. A bulk message waits until there is room; any other finds
// the queue too long (CodeExhausted) when the peer does not read.
func (q *outQueue) add(p priority, b []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p == bulk && q.bytes > bulkQueued && !q.closed {
		q.room.Wait()
	}
	switch {
	case q.closed:
		return fcp.Errorf(fcp.CodeClosed, "the session")
	case q.bytes+len(b) > maxQueued:
		return fcp.Errorf(fcp.CodeExhausted, "the peer does not read")
	}
	q.parts[p] = append(q.parts[p], b)
	q.bytes += len(b)
	select {
	case q.some <- struct{}{}:
	default:
	}
	return nil
}

func (q *outQueue) take() ([]byte, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := range q.parts {
		if len(q.parts[p]) > 0 {
			b := q.parts[p][0]
			q.parts[p] = q.parts[p][1:]
			q.bytes -= len(b)
			q.room.Broadcast()
			return b, true
		}
	}
	return nil, false
}

func (q *outQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.room.Broadcast()
}

// send queues a message to the peer. It blocks only for bulk. A queue that is too
// long ends the session.
func (s *Session) send(p priority, m any) error {
	b, err := encodeMessage(m)
	if err != nil {
		return err
	}
	return s.sendEncoded(p, b)
}

// sendEncoded is send for a message that is encoded already. Nobody may change b any more.
func (s *Session) sendEncoded(p priority, b []byte) error {
	if len(b) > maxMessage {
		return fcp.Errorf(fcp.CodeTooLarge, "a message of %d bytes", len(b))
	}
	err := s.queue.add(p, b)
	if errors.Is(err, fcp.CodeExhausted) {
		s.end(err)
	}
	return err
}

// writeLoop seals queued messages onto the control stream.
func (s *Session) writeLoop() error {
	var frame []byte
	for {
		b, ok := s.queue.take()
		if !ok {
			select {
			case <-s.queue.some:
				continue
			case <-s.ctx.Done():
				return nil
			}
		}
		s.controlSeq++
		var err error
		if frame, err = s.control.Seal(frame[:0], s.direction, s.controlSeq, 0, b); err != nil {
			return err
		}
		if _, err := s.stream.Write(frame); err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "send to %.16s", s.peer.Writer)
		}
		s.sentBytes.Add(uint64(len(frame)))
	}
}

// readLoop opens control frames and handles them one after the other.
func (s *Session) readLoop() error {
	var head [wire.ControlHeadSize]byte
	var body, plain []byte
	for {
		if _, err := io.ReadFull(s.stream, head[:]); err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "read from %.16s", s.peer.Writer)
		}
		h, err := wire.DecodeControlHead(head[:], maxMessage)
		if err != nil {
			return err
		}
		if h.Seq != s.takenSeq+1 { // the stream keeps order: numbers go up by one
			return fcp.Errorf(fcp.CodeMalformed, "control frame %d after %d: %w", h.Seq, s.takenSeq, wire.ReasonReplay)
		}
		s.takenSeq = h.Seq
		body = slices.Grow(body[:0], int(h.Len)+wire.TagSize)[:int(h.Len)+wire.TagSize]
		if _, err := io.ReadFull(s.stream, body); err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "read from %.16s", s.peer.Writer)
		}
		if plain, err = s.control.Open(plain[:0], s.direction.Back(), &h, body); err != nil {
			return err
		}
		m, err := decodeMessage(plain)
		if err != nil {
			return err
		}
		if err := s.handle(m); err != nil {
			return err
		}
	}
}

// handle acts on one message. An error ends the session, so it is for what no
// honest peer sends, and for this node's own failure.
func (s *Session) handle(m any) error {
	if c, ok := m.(*capabilities); ok {
		return s.takeCapabilities(c)
	}
	select {
	case <-s.ready:
	default:
		return fcp.Errorf(fcp.CodeMalformed, "%T before the capabilities", m)
	}
	return s.node.handle(s, m)
}

// takeCapabilities agrees on what both sides can do.
func (s *Session) takeCapabilities(c *capabilities) error {
	if s.caps != nil {
		return fcp.Errorf(fcp.CodeMalformed, "capabilities twice")
	}
	if c.Genesis != s.node.engine.Genesis().ID {
		return fcp.Errorf(fcp.CodeUnauthorized, "the peer is of another store")
	}
	if !slices.Contains(c.Versions, protocolVersion) {
		return fcp.Errorf(fcp.CodeVersion, "the peer speaks mesh protocol %v, this build %d", c.Versions, protocolVersion)
	}
	switch {
	case slices.Contains(c.Layouts, uint64(wire.LayoutNative)):
		s.layout = wire.LayoutNative
	case slices.Contains(c.Layouts, uint64(wire.LayoutReference)):
		s.layout = wire.LayoutReference
	default:
		return fcp.Errorf(fcp.CodeVersion, "no layout of symbol frames that both sides know")
	}
	s.caps = c
	close(s.ready)
	s.node.sessionUp(s)
	return nil
}

// streamFrame returns the bytes that a session datagram on a stream may have.
func (s *Session) streamFrame() int {
	return max(s.limit, int(min(s.caps.MaxFrame, maxStreamFrame)))
}

// sealSymbols appends a session datagram with a symbol for each id.
func (s *Session) sealSymbols(b []byte, h *wire.Header, k uint16, esis []uint32, symbol func(i int) []byte) []byte {
	start := len(b)
	h.Seq = s.frameSeq.Add(1)
	b = append(b, make([]byte, wire.EnvelopeSize)...)
	b = s.sendSym.AppendSealed(b, s.layout, h, k, esis, symbol)
	s.sendMAC.Seal(b[start:], h.Seq)
	return b
}

// takeDatagram checks a session datagram and hands its symbols on. What is wrong is
// counted and dropped: anybody can send datagrams, and networks repeat them.
func (s *Session) takeDatagram(b []byte, c carrier) {
	m := &s.node.metrics
	m.DatagramsReceived.Add(1)
	limit := s.limit
	if c == carrierStream {
		limit = maxStreamFrame
	}
	d, err := wire.DecodeDatagram(b, limit)
	if err != nil || !s.takeMAC.Fits(&d) {
		m.MACFailed.Add(1)
		if c != carrierLane { // there it may be anybody
			s.budget.failedAuth()
		}
		return
	}
	s.mu.Lock()
	fresh := s.window.Accept(d.Seq)
	s.mu.Unlock()
	if !fresh {
		m.Replayed.Add(1)
		return
	}
	f, err := wire.DecodeStrict(d.Frame, s.layout, limit)
	if err != nil || f.Seq != d.Seq {
		m.FramesRefused.Add(1)
		return
	}
	if f.Flags&wire.FlagControlPlane != 0 {
		if c == carrierLane && f.Flags == flagsMessage {
			s.takeLaneMessage(&f)
		} else {
			m.FramesRefused.Add(1)
		}
		return
	}
	if c == carrierLane {
		s.lane.took(f.Seq, s.node.now())
	}
	s.takeFrame(&f)
}

// takeFrame opens the symbols of an authentic frame, if somebody asked for them.
func (s *Session) takeFrame(f *wire.Frame) {
	n := s.node
	list := n.fetches.of(fcp.SegmentID(f.Object))
	if len(list) == 0 || f.SymbolSize != fcp.SymbolSize {
		n.metrics.SymbolsUnasked.Add(uint64(len(f.Records)))
		return
	}
	x := news{session: s, esis: make([]uint32, 0, len(f.Records)), symbols: make([]byte, 0, len(f.Records)*fcp.SymbolSize)}
	for i := range f.Records {
		out, err := s.takeSym.Open(x.symbols, &f.Header, &f.Records[i])
		if err != nil {
			n.metrics.SymbolsFailed.Add(1)
			continue
		}
		x.symbols, x.esis = out, append(x.esis, f.Records[i].ESI)
	}
	if len(x.esis) == 0 {
		return
	}
	for _, c := range list {
		c.tell(x)
	}
}

func (s *Session) datagramLoop() error {
	for {
		b, err := s.conn.ReceiveDatagram(s.ctx)
		if err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "read datagrams of %.16s", s.peer.Writer)
		}
		s.takeDatagram(b, carrierDatagram)
	}
}

// streamLoop takes streams: of whole shares, or of symbol frames: u16be length,
// session datagram. Frames on a stream hold as many symbols as fit maxStreamFrame.
func (s *Session) streamLoop() error {
	for {
		r, err := s.conn.AcceptUniStream(s.ctx)
		if err != nil {
			return fcp.Wrap(fcp.CodeTimeout, err, "accept streams of %.16s", s.peer.Writer)
		}
		s.work.Add(1)
		go func() {
			defer s.work.Done()
			if err := s.takeStream(r); err != nil && !errors.Is(err, io.EOF) {
				r.CancelRead(0)
				s.node.logger.Debug("a stream of symbols ended early", "peer", s.peer.Writer, "err", err)
			}
		}()
	}
}

func (s *Session) readSymbols(r io.Reader) error {
	in := frameReaders.Get().(*frameReader)
	in.r, in.at, in.end = r, 0, 0
	defer func() {
		in.r = nil
		frameReaders.Put(in)
	}()
	for {
		b, err := in.next()
		if err != nil {
			return err
		}
		s.takeDatagram(b, carrierStream)
	}
}

// frameReader reads length-prefixed datagrams.
type frameReader struct {
	r   io.Reader
	buf [2 + 2*maxStreamFrame]byte
	at  int
	end int
}

var frameReaders = sync.Pool{New: func() any { return new(frameReader) }}

// next returns the next datagram, valid until the call after. A clean end is io.EOF.
func (f *frameReader) next() ([]byte, error) {
	if err := f.fill(2); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(f.buf[f.at:]))
	if err := f.fill(2 + n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	b := f.buf[f.at+2 : f.at+2+n]
	f.at += 2 + n
	return b, nil
}

// fill makes at least n bytes available.
func (f *frameReader) fill(n int) error {
	if f.end-f.at >= n {
		return nil
	}
	copy(f.buf[:], f.buf[f.at:f.end])
	f.at, f.end = 0, f.end-f.at
	m, err := io.ReadAtLeast(f.r, f.buf[f.end:], n-f.end)
	f.end += m
	if err != nil && f.end > 0 && errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
