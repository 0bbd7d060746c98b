package node

import (
	"context"
	"encoding/binary"
	"io"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
)

// Parts of a share go over a bulk connection too (carrierPart), where one stands: a
// rebuild takes from each peer what others do not give. The symbols come in the order
// of their ids, in pieces, so that they are checked and decoded while others are on
// their way and who has enough can say so. They need no frames either: the connection
// is that of an authenticated peer, and each symbol is compared with its commitment.

// maxPiece is the most symbols of a piece: with its head four records of TLS.
const maxPiece = 63

// piece is a buffer for one, head and symbols.
type piece [bulkHead + maxPiece*fcp.SymbolSize]byte

var pieces = sync.Pool{New: func() any { return new(piece) }}

// expectPart waits for symbols of a share, in order, on behalf of a collector.
func (t *wholeTable) expectPart(id uint64, esis []uint32, to *collector) {
	t.add(id, &wholeShare{by: carrierPart, esis: esis, to: to, parts: len(esis)/maxPiece + 1})
}

// bulkReady reports whether a bulk connection stands. Where there may be one it is
// dialled, for the next time.
func (s *Session) bulkReady() bool {
	l := &s.bulk
	l.mu.Lock()
	up, dial := l.in != nil, l.dialed == nil && !s.node.now().Before(l.after)
	l.mu.Unlock()
	if !up && dial && s.mayBulk() != nil {
		s.spawn(func() { s.bulkUp(s.ctx) })
	}
	return up
}

// readPiece takes a piece of size bytes of what a collector waits for.
func (s *Session) readPiece(r io.Reader, id uint64, w *wholeShare, size uint32) error {
	n := int(size) / fcp.SymbolSize
	if n == 0 || n > min(maxPiece, len(w.esis)) || int(size)%fcp.SymbolSize != 0 {
		return fcp.Errorf(fcp.CodeMalformed, "%d bytes of %d symbols", size, len(w.esis))
	}
	p := pieces.Get().(*piece)
	b := p[:size]
	if _, err := io.ReadFull(r, b); err != nil {
		pieces.Put(p)
		return fcp.Wrap(fcp.CodeTimeout, err, "read a part of a share")
	}
	esis := w.esis[:n]
	if w.esis = w.esis[n:]; len(w.esis) == 0 {
		s.whole.done(id)
	}
	w.to.tell(news{session: s, esis: esis, symbols: b, piece: p})
	return nil
}

// done ends a wait for what is here.
func (t *wholeTable) done(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, id)
}

// serveParts sends some symbols of a share, all or none of them.
func (n *Node) serveParts(ctx context.Context, s *Session, id uint64, ref symbols.Ref, wanted *roaring.Bitmap) error {
	count := int(wanted.GetCardinality())
	if s.budget.symbols(count, fcp.SymbolSize) < count {
		return errBudget("symbols")
	}
	began := n.now()
	data, err := n.symbolData(ctx, ref, wanted)
	if err != nil {
		return err
	}
	s.budget.cpu(n.now().Sub(began))
	p := pieces.Get().(*piece)
	defer pieces.Put(p)
	var esis [maxPiece]uint32
	for it := wanted.ManyIterator(); ; {
		got := it.NextMany(esis[:])
		if got == 0 {
			break
		}
		b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(p[:0], id), uint32(got*fcp.SymbolSize))
		for _, esi := range esis[:got] {
			at := int(esi-ref.First) * fcp.SymbolSize
			b = append(b, data[at:at+fcp.SymbolSize]...)
		}
		if err := s.writeBulk(ctx, b); err != nil {
			return err
		}
		if ctx.Err() != nil { // the peer has enough
			return nil
		}
		s.sentBytes.Add(uint64(len(b)))
		n.metrics.SymbolsSent.Add(uint64(got))
	}
	n.proofs.gave(s.peer.Writer, ref.Segment, wanted)
	return nil
}

// lost ends the waits for what comes over a bulk connection that is gone.
func (t *wholeTable) lost(s *Session, err error) {
	t.mu.Lock()
	parts := map[uint64]*collector{}
	for id, w := range t.open {
		switch w.by {
		case carrierBulk:
			w.end(err)
		case carrierPart:
			parts[id] = w.to
			delete(t.open, id)
		}
	}
	t.mu.Unlock()
	for id, c := range parts {
		c.tell(news{session: s, refused: id, code: fcp.CodeTimeout})
	}
}

// inOrder reports whether symbols come over a carrier in order and without loss: who is
// asked gives its part at once.
func (c carrier) inOrder() bool { return c == carrierStream || c == carrierPart }
