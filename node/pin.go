package node

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"fcp"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/log"
)

// Pinned says what Pin did.
type Pinned struct {
	Segments int   // of the zone's data that other nodes wrote and that are coded
	Brought  int   // that were not here
	Bytes    int64 // of the shares that hold them
}

// Segments that Pin brings at once, and that wait to be written together.
const (
	pinAtOnce = 6
	pinBatch  = 8
)

// Pin brings every segment of a zone's data here that is not, and keeps it: its
// source symbols as a share of this node, which reads them without asking anybody
// and gives them to whoever asks. A segment counts when it is on disk. Errors: those
// of Fetch; what was brought before stays, and the next call goes on.
func (n *Node) Pin(ctx context.Context, zone fcp.ZoneID) (p Pinned, err error) {
	return n.pinWhere(ctx, zone, func(fcp.SegmentID) bool { return true })
}

// pinWhere is Pin for the segments that want accepts.
func (n *Node) pinWhere(ctx context.Context, zone fcp.ZoneID, want func(fcp.SegmentID) bool) (p Pinned, err error) {
	var missing []wanted
	err = n.engine.DataSegments(zone, func(r *log.Remainder) error {
		if r.Feed().Writer == n.self || !want(fcp.SegmentID(r.Segment)) {
			return nil
		}
		ref, err := sourceRef(r)
		if errors.Is(err, fcp.CodeNotEnough) {
			return nil
		}
		if p.Segments++; err == nil && !slices.Contains(n.sharesOf(ref.Segment), ref) {
			missing = append(missing, wanted{r, ref})
		}
		return err
	})
	if err != nil {
		return p, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, size atomic.Int64
	ready := make(chan engine.NewShare, pinBatch)
	var work sync.WaitGroup
	for range min(pinAtOnce, len(missing)) {
		work.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(missing) || ctx.Err() != nil {
					return
				}
				share, err := n.bring(ctx, missing[i], i)
				if err != nil {
					cancel(err)
					return
				}
				size.Add(int64(len(share.File)))
				ready <- share
			}
		})
	}
	go func() {
		work.Wait()
		close(ready)
	}()
	for batch := range batches(ready) {
		if ctx.Err() != nil {
			continue // the workers must not wait for ever
		}
		held, err := n.engine.KeepShares(batch)
		if err != nil {
			cancel(err)
			continue
		}
		for _, x := range batch {
			n.buffers.put(x.File)
		}
		for _, h := range held {
			n.metrics.SharesKept.Add(1)
			n.holdShare(h.Ref)
		}
		p.Brought += len(held)
	}
	p.Bytes = size.Load()
	if err := context.Cause(ctx); err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			err = fcp.Errorf(fcp.CodeInterrupted, "pinning %s: %d of %d segments were brought", zone, p.Brought, len(missing))
		}
		return p, err
	}
	return p, nil
}

// wanted is a segment that is to be brought, as all its source symbols.
type wanted struct {
	rem *log.Remainder
	ref symbols.Ref
}

// sourceRef is the share of all source symbols of a segment. A segment that is too
// small to be coded is CodeNotEnough.
func sourceRef(r *log.Remainder) (ref symbols.Ref, err error) {
	card, err := fcp.DecodeCard(r.Card)
	if err != nil {
		return ref, err
	}
	info, err := card.Transmission()
	if err != nil {
		return ref, err
	}
	ref = symbols.Ref{Segment: card.Segment, Size: uint32(info.F), First: 0, Count: uint32(info.Symbols())}
	if !ref.Valid() {
		return ref, fcp.Errorf(fcp.CodeNotEnough, "segment %s is too small to be coded", card.Segment)
	}
	return ref, nil
}

// bring gets the source symbols of a segment: whole from one peer who has them, which
// costs no decoding, or else rebuilt from what several have.
func (n *Node) bring(ctx context.Context, w wanted, turn int) (share engine.NewShare, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchWait)
	defer cancel()
	r, ref := w.rem, w.ref
	if err := n.needSalts(ctx, r); err != nil {
		return share, err
	}
	for _, s := range n.wholeAt(ref, turn) {
		if share, err = n.bringWhole(ctx, s, r, ref); err == nil {
			return share, nil
		}
		n.logger.Debug("a peer did not give a segment", "peer", s.peer.Writer, "segment", ref.Segment, "err", err)
	}
	ciphertext, err := n.Fetch(ctx, r)
	if err != nil {
		return share, err
	}
	file := make([]byte, ref.FileSize())
	copy(file[ref.HeadSize():], ciphertext)
	return n.engine.OwnSource(r.Card, ref, file, n.opt.Policy.Need)
}

// bringWhole takes the source symbols from one peer. The segment's hash proves them.
func (n *Node) bringWhole(ctx context.Context, s *Session, r *log.Remainder, ref symbols.Ref) (engine.NewShare, error) {
	file, err := n.fetchSource(ctx, s, ref)
	if err != nil {
		return engine.NewShare{}, err
	}
	return n.engine.OwnSource(r.Card, ref, file, n.opt.Policy.Need)
}

// wholeAt returns the sessions with peers who have all source symbols, another one
// first with each turn.
func (n *Node) wholeAt(ref symbols.Ref, turn int) (out []*Session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.core.Holders(ref.Segment) {
		if s := n.sessions[h.Peer]; s != nil && h.Symbols.Rank(ref.Count-1) == uint64(ref.Count) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b *Session) int { return bytes.Compare(a.peer.Writer[:], b.peer.Writer[:]) })
	if len(out) > 0 {
		turn %= len(out)
		out = slices.Concat(out[turn:], out[:turn])
	}
	return out
}

// batches yields what comes over a channel, as much at once as waits there.
func batches(in <-chan engine.NewShare) iter.Seq[[]engine.NewShare] {
	return func(yield func([]engine.NewShare) bool) {
		for x := range in {
			batch := []engine.NewShare{x}
			for more := true; more && len(batch) < pinBatch; {
				select {
				case y, ok := <-in:
					if more = ok; ok {
						batch = append(batch, y)
					}
				default:
					more = false
				}
			}
			if !yield(batch) {
				return
			}
		}
	}
}
