package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/quic-go/quic-go"

	"fcp"
	"fcp/engine/symbols"
	"fcp/node/wire"
)

// A whole share needs no symbol frames: who asks for all of its symbols knows a hash
// over them, and the stream that they come over is that of an authenticated peer. So
// they travel as bytes, over a bulk connection (carrierBulk) or a QUIC stream
// (carrierWhole): u16be 0, which begins no datagram, u64be request, then every symbol
// of the share in order, and the end of the stream.

// maxWhole is the most bytes of a share's symbols.
const maxWhole = fcp.MaxSegment + symbols.MaxExtra*fcp.SymbolSize

// wholeTable are the shares that one session's peer was asked for whole.
type wholeTable struct {
	mu    sync.Mutex
	open  map[uint64]*wholeShare // by request; guarded by mu
	given int                    // shares and pieces that may come still, though given up; guarded by mu
}

// wholeShare is a share on its way.
type wholeShare struct {
	into   []byte              // its symbols
	done   chan error          // what became of it; the first word counts
	by     carrier             // that it was asked for by
	begun  bool                // guarded by wholeTable.mu
	stream *quic.ReceiveStream // guarded by wholeTable.mu; nil: not here yet, or by a bulk connection

	// By carrierPart, for who reads the connection alone:
	esis  []uint32   // symbols that have not come, in the order in which they will
	to    *collector // takes them
	parts int        // pieces in which they may come
}

// pieces is how many messages on a bulk connection it may take.
func (w *wholeShare) pieces() int { return max(w.parts, 1) }

func (w *wholeShare) end(err error) {
	select {
	case w.done <- err:
	default:
	}
}

func (t *wholeTable) expect(id uint64, by carrier, into []byte) *wholeShare {
	w := &wholeShare{into: into, by: by, done: make(chan error, 1)}
	t.add(id, w)
	return w
}

func (t *wholeTable) add(id uint64, w *wholeShare) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[uint64]*wholeShare{}
	}
	t.open[id] = w
}

// begin returns the share that comes by a carrier, over a stream if it is of its own;
// nil: nobody waits for it, or it has begun. Parts begin with each piece.
func (t *wholeTable) begin(id uint64, by carrier, r *quic.ReceiveStream) *wholeShare {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.open[id]
	if w == nil || w.begun || w.by != by && (w.by != carrierPart || by != carrierBulk) {
		return nil
	}
	w.begun, w.stream = w.by != carrierPart, r
	return w
}

// refuse ends the wait for a share that the peer does not give.
func (t *wholeTable) refuse(id uint64, code fcp.Code) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.open[id]; w != nil && !w.begun {
		w.end(fcp.Errorf(code, "the peer refused"))
		delete(t.open, id)
	}
}

// forget ends a wait. A stream that is still being read ends soon after.
func (t *wholeTable) forget(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch w := t.open[id]; {
	case w == nil:
		return
	case w.stream != nil:
		w.stream.CancelRead(0)
	case !w.begun:
		t.given = min(t.given+w.pieces(), maxGivenUp)
	}
	delete(t.open, id)
}

// maxGivenUp bounds what a peer may send of what was given up.
const maxGivenUp = 4096

// givenUp reports whether what nobody waits for may be a share or a piece that was given
// up, and counts it.
func (t *wholeTable) givenUp() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.given == 0 {
		return false
	}
	t.given--
	return true
}

// gives reports whether the peer can use a carrier.
func (s *Session) gives(c carrier) bool { return slices.Contains(s.caps.Carriers, uint64(c)) }

// fetchWhole takes all symbols of a share from one peer, into its file without the
// head, a buffer of n.buffers. They are not checked. A peer that has too much to do is
// asked again, with growing pauses.
func (n *Node) fetchWhole(ctx context.Context, s *Session, ref symbols.Ref) ([]byte, error) {
	by := carrierWhole
	if s.bulkUp(ctx) {
		by = carrierBulk
	}
	for refused := 0; ; {
		file, err := n.fetchWholeBy(ctx, s, ref, by)
		switch {
		case err == nil || ctx.Err() != nil || s.ctx.Err() != nil:
			return file, err
		case errors.Is(err, fcp.CodeExhausted) && refused < maxRefusals:
			refused++
			select {
			case <-time.After(stallAfter << refused):
			case <-ctx.Done():
				return nil, err
			}
		case errors.Is(err, fcp.CodeExhausted) || by == carrierWhole:
			return nil, err
		default:
			by = carrierWhole
		}
	}
}

func (n *Node) fetchWholeBy(ctx context.Context, s *Session, ref symbols.Ref, by carrier) ([]byte, error) {
	file := n.buffers.get(int(ref.FileSize()))
	if err := n.fillWhole(ctx, s, ref, file, by); err != nil {
		return nil, err // somebody may still write to file
	}
	return file, nil
}

func (n *Node) fillWhole(ctx context.Context, s *Session, ref symbols.Ref, file []byte, by carrier) error {
	all := roaring.New()
	all.AddRange(uint64(ref.First), uint64(ref.End()))
	m, err := n.newRequest(s, ref, all, by)
	if err == nil {
		err = m.sign(n.engine.Signer())
	}
	if err != nil {
		return err
	}
	w := s.whole.expect(m.ID, by, file[ref.HeadSize():])
	defer s.whole.forget(m.ID)
	if err := s.send(urgent, m); err != nil {
		return err
	}
	select {
	case err := <-w.done:
		if err == nil {
			n.metrics.SymbolsTaken.Add(uint64(ref.Count))
		}
		return err
	case <-s.ctx.Done():
		return fcp.Errorf(fcp.CodeTimeout, "the peer left")
	case <-ctx.Done():
		if err := s.send(urgent, &decodeStatus{ID: m.ID, Complete: true}); err != nil {
			n.logger.Debug("a status was not sent", "peer", s.peer.Writer, "err", err)
		}
		return fcp.Errorf(fcp.CodeTimeout, "share %s of %.16s", ref.FileName(), s.peer.Writer)
	}
}

// takeStream takes a stream that the peer opened: a whole share, or symbol frames.
func (s *Session) takeStream(r *quic.ReceiveStream) error {
	var first [2]byte
	if _, err := io.ReadFull(r, first[:]); err != nil {
		return err
	}
	if first != [2]byte{} {
		return s.readSymbols(io.MultiReader(bytes.NewReader(first[:]), r))
	}
	var id [8]byte
	if _, err := io.ReadFull(r, id[:]); err != nil {
		return err
	}
	w := s.whole.begin(binary.BigEndian.Uint64(id[:]), carrierWhole, r)
	if w == nil {
		s.node.metrics.SymbolsUnasked.Add(1)
		return fcp.Errorf(fcp.CodeMalformed, "a whole share that nobody waits for")
	}
	err := readWhole(r, w.into)
	w.end(err)
	return err
}

// readWhole reads exactly what is there.
func readWhole(r io.Reader, into []byte) error {
	_, err := io.ReadFull(r, into)
	if err == nil {
		var more [1]byte
		switch _, err = io.ReadFull(r, more[:]); {
		case errors.Is(err, io.EOF):
			return nil
		case err == nil:
			return fcp.Errorf(fcp.CodeTooLarge, "more than a whole share")
		}
	}
	return fcp.Wrap(fcp.CodeTimeout, err, "read a whole share")
}

// serveWhole sends all symbols of a share, if the peer's budget has them.
func (n *Node) serveWhole(ctx context.Context, s *Session, id uint64, by carrier, ref symbols.Ref, wanted *roaring.Bitmap) error {
	if wanted.GetCardinality() != uint64(ref.Count) {
		return fcp.Errorf(fcp.CodeInvalidArgument, "a part of a share over carrier %d", by)
	}
	if s.budget.symbols(int(ref.Count), wire.DefaultDatagram) < int(ref.Count) {
		return errBudget("symbols")
	}
	data, done, err := n.wholeData(ctx, s, ref)
	if err != nil {
		return err
	}
	defer done()
	if by == carrierBulk {
		head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, id), uint32(len(data)))
		err = s.writeBulk(ctx, head, data)
	} else {
		err = s.writeWhole(ctx, id, data)
	}
	if err == nil {
		n.proofs.gave(s.peer.Writer, ref.Segment, wanted)
		s.sentBytes.Add(uint64(len(data)))
		n.metrics.SymbolsSent.Add(uint64(ref.Count))
	}
	return err
}

// writeWhole sends a share over a stream.
func (s *Session) writeWhole(ctx context.Context, id uint64, data []byte) error {
	out, err := s.conn.OpenUniStreamSync(ctx)
	if err != nil {
		return fcp.Wrap(fcp.CodeTimeout, err, "open a stream of symbols")
	}
	defer context.AfterFunc(ctx, func() { out.CancelWrite(0) })()
	head := binary.BigEndian.AppendUint64(make([]byte, 2, 10), id)
	for _, b := range [][]byte{head, data} {
		if _, err := out.Write(b); err != nil {
			out.CancelWrite(0)
			return fcp.Wrap(fcp.CodeTimeout, err, "send a whole share")
		}
	}
	return fcp.Wrap(fcp.CodeTimeout, out.Close(), "send a whole share")
}

// wholeData returns the symbols of a share, until done is called. Those of all source
// symbols of an own segment are its ciphertext: it costs no coding, and how long it
// takes to read says how busy the disk is.
func (n *Node) wholeData(ctx context.Context, s *Session, ref symbols.Ref) (data []byte, done func(), err error) {
	own, ok := n.ownWhole(ref)
	if !ok {
		began := n.now()
		file, _, err := n.loadShare(ctx, ref)
		if err != nil {
			return nil, nil, err
		}
		s.budget.cpu(n.now().Sub(began))
		return file[ref.HeadSize():], func() {}, nil
	}
	size := int(ref.Count) * fcp.SymbolSize
	buf := n.buffers.get(size)
	if data, err = n.engine.Log().AppendCiphertext(buf[:0], own.no); err != nil {
		return nil, nil, err
	}
	if len(data) > size {
		return nil, nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s is longer than its card says", ref.Segment)
	}
	clear(data[len(data):size])
	return data[:size], func() { n.buffers.put(buf) }, nil
}

// bufferPool lends buffers of about the size of a segment.
type bufferPool struct{ pool sync.Pool }

// get returns a buffer of size bytes, whatever is in it.
func (p *bufferPool) get(size int) []byte {
	if b, ok := p.pool.Get().(*[]byte); ok && cap(*b) >= size {
		return (*b)[:size]
	}
	return make([]byte, size)
}

// put gives a buffer back that nobody uses any more.
func (p *bufferPool) put(b []byte) { p.pool.Put(&b) }
