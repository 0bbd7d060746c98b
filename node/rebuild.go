package node

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine"
	"fcp/engine/symbols"
)

// rebuilding collects symbols of a segment from several peers at once until they
// give its ciphertext. It runs in one goroutine.
type rebuilding struct {
	*collector
	card      *fcp.Card
	size      uint32
	sources   int // peers that the symbols come from, at least, where so many are there
	thrifty   bool
	dec       *symbols.Rebuild
	queried   map[*Session]*question
	began     time.Time
	firstHead time.Duration // until somebody said what shares it has; 0: nobody yet
	done      bool          // the decoder has the block
	judging   bool          // its hash was wrong: liars are looked for
	news      bool          // while judging: an answer came since they were looked for last
}

func (f *rebuilding) run(ctx context.Context) ([]byte, error) {
	f.began = f.node.now()
	if err := f.useOwn(ctx); err != nil {
		return nil, err
	}
	defer f.cancel()
	defer f.noteSilent()
	t := time.NewTicker(collectTick)
	defer t.Stop()
	soon := time.NewTimer(graceAfter)
	defer soon.Stop()
	lane := time.NewTicker(laneTick)
	defer lane.Stop()
	f.query()
	for {
		if f.done {
			b, err := f.dec.Ciphertext()
			if err == nil {
				return slices.Clone(b), nil
			}
			if !errors.Is(err, fcp.CodeChecksum) {
				return nil, err
			}
			f.judging, f.done = true, false // collect what there is, then find who lied
		}
		if err := f.ask(); err != nil {
			return nil, err
		}
		if all := f.judging && f.quiet(); all || f.judging && f.news {
			f.news = false
			b, err := f.searchLiar(ctx)
			if err == nil || all || !errors.Is(err, fcp.CodeChecksum) {
				return b, err
			}
		}
		select {
		case x := <-f.in:
			if err := f.hear(ctx, &x); err != nil {
				return nil, err
			}
			if x.ended != 0 {
				soon.Reset(graceAfter)
				f.news = true
			}
		case <-lane.C:
			now := f.node.now()
			f.laneTick(now)
			f.askAgain(now)
		case <-soon.C:
			f.settle(f.node.now())
		case <-t.C:
			f.stalled()
			f.query() // somebody may have come, or have symbols now
			if f.hopeless() {
				return nil, f.short()
			}
		case <-ctx.Done():
			return nil, f.short()
		}
	}
}

// short says how many symbols are missing.
func (f *rebuilding) short() error {
	return fcp.Errorf(fcp.CodeNotEnough, "segment %s: %d of %d symbols are here, %d more are needed",
		f.segment, f.have.GetCardinality(), symbols.Ref{Size: f.size}.K(), f.dec.Needs()).
		WithNext("start the devices that hold the others")
}

// hopeless reports whether nobody who is there can give more, after a while in
// which somebody might have come.
func (f *rebuilding) hopeless() bool {
	if f.node.now().Sub(f.began) < holdersWait {
		return false
	}
	for _, p := range f.parts {
		if !p.dead && p.got.GetCardinality() < uint64(p.ref.Count) {
			return false
		}
	}
	return true
}

// useOwn adds the symbols that this node holds itself.
func (f *rebuilding) useOwn(ctx context.Context) error {
	for _, r := range f.node.sharesOf(f.segment) {
		file, manifest, err := f.node.loadShare(ctx, r)
		if err != nil {
			f.node.logger.Warn("a share cannot be read", "share", r.FileName(), "err", err)
			continue
		}
		p, err := f.partOf(nil, shareHead{manifest, uint64(r.First), uint64(r.Count), file[:headSize(&r)]})
		if err != nil {
			f.node.logger.Warn("a share of this node is damaged", "share", r.FileName(), "err", err)
			continue
		}
		copy(p.file, file)
		for esi := r.First; esi < r.End() && !f.done; esi++ {
			if _, ok := p.share.Symbol(&f.hasher, esi); ok {
				p.got.Add(esi)
				if err := f.use(ctx, p, esi); err != nil {
					return err
				}
			}
		}
		f.parts = append(f.parts, p)
	}
	return nil
}

// question is what a peer was asked about its shares.
type question struct {
	answered bool
	lane     bool
	id       uint64
	tries    int
	due      time.Time // when it is asked again
}

// query asks every peer that said it holds symbols what its shares are; and again who
// does not answer, which may be because it had too much to do.
func (f *rebuilding) query() {
	n := f.node
	now := n.now()
	n.mu.Lock()
	var ask []*Session
	for _, h := range n.core.Holders(f.segment) {
		s := n.sessions[h.Peer]
		if s == nil {
			continue
		}
		q := f.queried[s]
		if q == nil {
			q = &question{lane: n.quickCarrier(s) == carrierLane, id: s.nextRequest.Add(1)}
			f.queried[s] = q
		}
		if !q.lane && !q.answered && q.tries < maxQueries && !now.Before(q.due) { // over the lane askAgain asks
			q.due = now.Add(2 * stallAfter << q.tries)
			q.tries++
			ask = append(ask, s)
		}
	}
	n.mu.Unlock()
	for _, s := range ask {
		if err := s.send(urgent, &shareQuery{Segment: f.segment}); err != nil {
			n.logger.Debug("a peer was not asked", "peer", s.peer.Writer, "err", err)
		}
	}
	f.askAgain(now)
}

// askAgain asks those over the lane who did not answer in time.
func (f *rebuilding) askAgain(now time.Time) {
	for s, q := range f.queried {
		if !q.lane || q.answered || q.tries >= maxLaneTries || now.Before(q.due) {
			continue
		}
		q.tries++
		q.due = now.Add(backoff(s.resend(), q.tries))
		if err := s.sendLane(&shareQuery{Segment: f.segment, Try: uint64(q.tries), ID: q.id}, q.tries-1); err != nil {
			f.node.logger.Debug("a peer was not asked", "peer", s.peer.Writer, "err", err)
		}
	}
}

// backoff lets the pause between repetitions grow after the fourth.
func backoff(d time.Duration, tries int) time.Duration {
	return d * time.Duration(min(max(tries-3, 1), 8))
}

// partOf checks the head of a share: a member minted it, and its commitments are
// those that the minter signed.
func (f *rebuilding) partOf(s *Session, h shareHead) (*part, error) {
	held, root, err := f.node.engine.CheckMinted(h.Manifest, uint32(h.First), uint32(h.Count))
	if err != nil {
		return nil, err
	}
	if held.Segment != f.segment || held.Size != f.size || !held.Ref.Valid() || len(h.Head) != headSize(&held.Ref) {
		return nil, fcp.Errorf(fcp.CodeManifest, "a share of another segment")
	}
	p, err := f.newPart(s, held.Ref, h.Head, f.node.quickCarrier(s))
	if err != nil {
		return nil, err
	}
	if got, ok := p.share.Root(); !ok || got != root || !p.share.HeadOK {
		return nil, fcp.Errorf(fcp.CodeChecksum, "the head of share %s", held.FileName())
	}
	p.minter, p.card = held.Minter, p.share.SourceProven(f.card.Source)
	return p, nil
}

// proven reports whether the card itself proves a symbol, so that its minter need
// not be believed.
func (p *part) proven(esi uint32) bool { return p.card && int(esi) < p.ref.K() }

// hear acts on news.
func (f *rebuilding) hear(ctx context.Context, x *news) error {
	switch {
	case x.heads != nil:
		q := f.queried[x.session]
		if q == nil || q.answered && !q.lane {
			return nil
		}
		q.answered = true
		if f.firstHead == 0 {
			f.firstHead = max(f.node.now().Sub(f.began), 1)
		}
		for _, h := range x.heads.Shares {
			if f.knows(x.session, h) {
				continue
			}
			p, err := f.partOf(x.session, h)
			if err != nil {
				f.node.logger.Warn("a peer describes a share that is not good", "peer", x.session.peer.Writer, "err", err)
				continue
			}
			p.doubted = f.node.distrusts(p)
			f.parts = append(f.parts, p)
		}
	case x.lost:
		for _, p := range f.parts {
			if p.session == x.session {
				f.forget(p)
				p.dead = true
			}
		}
	case x.refused != 0:
		for _, p := range f.parts {
			if a := p.asked[x.refused]; a != nil && p.session == x.session {
				f.giveUp(p, x.refused)
				if a.by == carrierPart && x.code != fcp.CodeExhausted { // the connection may be gone
					p.carrier = carrierStream
					continue
				}
				p.refused++
				p.dead = x.code.Class() != fcp.Transient || p.refused > maxRefusals
				p.again = f.node.now().Add(min(stallAfter<<p.refused, fetchWait))
			}
		}
	case x.ended != 0:
		f.hearEnd(x)
	default:
		err := x.each(func(esi uint32, symbol []byte) error {
			if p := f.take(x.session, esi, symbol); p != nil {
				return f.use(ctx, p, esi)
			}
			return nil
		})
		if x.piece != nil {
			pieces.Put(x.piece)
		}
		return err
	}
	return nil
}

// use gives a good symbol to the decoder; while liars are looked for it is kept.
func (f *rebuilding) use(ctx context.Context, p *part, esi uint32) error {
	if f.done || f.judging || !f.have.CheckedAdd(esi) {
		return nil
	}
	complete, err := f.dec.Add(ctx, esi, p.symbol(esi))
	f.done = complete
	return err
}

// symbol returns a symbol that came.
func (p *part) symbol(esi uint32) []byte {
	at := headSize(&p.ref) + int(esi-p.ref.First)*fcp.SymbolSize
	return p.file[at : at+fcp.SymbolSize]
}

// ask keeps enough symbols on their way: what the decoder needs and a few more,
// in blocks, from the peer with the fewest of them outstanding.
func (f *rebuilding) ask() error {
	waiting, now := f.awaitedHeads(), f.node.now()
	if f.sources > 1 && waiting > 0 {
		return nil // who has what decides whom to ask for what
	}
	if !f.thrifty {
		f.findLate(now)
	}
	quick := f.quickest(now, func(p *part) bool { return f.canGive(p, now) })
	for {
		need := f.dec.Needs() + spareSymbols - int(f.asked.GetCardinality())
		if f.judging {
			need = maxWanted
		}
		if f.done || need <= 0 {
			return nil
		}
		var best, over *part
		later := false // somebody with room may be asked soon
		for _, p := range f.parts {
			if p.dead || p.session == nil || !f.hasLeft(p) || p.doubted && f.trusted() {
				continue
			}
			room := f.room(p.session) > 0
			if len(p.asked) >= p.atOnce() || now.Before(p.again) || p.late || !f.worthAsking(p, now, quick, need) {
				later = later || room && p.refused <= 1 // who refuses again and again is not waited for
			} else if !room {
				over = p
			} else if best == nil || p.outstanding() < best.outstanding() {
				best = p
			}
		}
		room := math.MaxInt
		switch {
		case best != nil:
			room = f.room(best.session)
		case over != nil && !later && f.asked.IsEmpty(): // there are not so many sources
			best = over
		default:
			return nil
		}
		block := best.block
		if best.carrier.inOrder() { // each gives its part at once
			block = max(f.fair(), crumbs)
			if left := int(f.left(best).GetCardinality()); left-block <= crumbs {
				block = left
			}
		} else if best.carrier == carrierLane { // any of those that are more will do
			block, need = f.fair()+best.ref.K()/8, math.MaxInt
		} else if waiting > 0 { // leave something for those whose answer is on its way
			block = min(block, max(need/(waiting+1), crumbs))
		}
		block = min(need, block, room)
		wanted := f.pick(best, block)
		if err := f.request(best, wanted); err != nil {
			if errors.Is(err, fcp.CodeClosed) || errors.Is(err, fcp.CodeExhausted) {
				f.forget(best)
				best.dead = true
				continue
			}
			return err
		}
	}
}

// trusted reports whether somebody may still give symbols of a minter that never
// lied. What a liar minted before may be good, and the ciphertext's hash decides: it
// is asked for when nothing else is left.
func (f *rebuilding) trusted() bool {
	if f.pendingHeads() > 0 {
		return true
	}
	return slices.ContainsFunc(f.parts, func(p *part) bool {
		return !p.doubted && !p.dead && p.session != nil && (len(p.asked) > 0 || f.hasLeft(p))
	})
}

// atOnce is how many requests a part may have under way.
func (p *part) atOnce() int {
	if p.carrier == carrierLane {
		return 1
	}
	return 2
}

// knows reports whether a share of a peer is a part already, or one too many.
func (f *rebuilding) knows(s *Session, h shareHead) bool {
	n := 0
	for _, p := range f.parts {
		if p.session != s {
			continue
		}
		if n++; n >= maxShares || uint64(p.ref.First) == h.First && uint64(p.ref.Count) == h.Count {
			return true
		}
	}
	return false
}

// pick chooses symbols of a part. Where several sources are asked for, those come first
// that nobody else has: whoever has everything leaves the others theirs.
func (f *rebuilding) pick(p *part, n int) *roaring.Bitmap {
	left := f.left(p)
	if f.sources <= 1 {
		return first(left, n)
	}
	alone := left.Clone()
	for _, q := range f.parts {
		if q.session != p.session && q.session != nil && !q.dead {
			alone.RemoveRange(uint64(q.ref.First), uint64(q.ref.End()))
		}
	}
	if alone = first(alone, n); alone.GetCardinality() < uint64(n) {
		left.AndNot(alone)
		alone.Or(first(left, n-int(alone.GetCardinality())))
	}
	return alone
}

// room is how many more symbols one peer may give, so that those of a rebuild come from
// as many peers as the zone's placement asks for, where so many are there.
func (f *rebuilding) room(s *Session) int {
	if f.sources <= 1 || f.judging {
		return math.MaxInt
	}
	k := symbols.Ref{Size: f.size}.K() + spareSymbols
	room := (k + f.sources - 1) / f.sources
	for _, p := range f.parts {
		if p.session == s {
			room -= int(p.got.GetCardinality() + p.outstanding())
		}
	}
	return room
}

// fair is the part of what is missing that each who can give symbols should give.
func (f *rebuilding) fair() int {
	givers := f.awaitedHeads()
	for _, p := range f.parts {
		if !p.dead && p.session != nil && p.got.GetCardinality() < uint64(p.ref.Count) {
			givers++
		}
	}
	return (f.dec.Needs()+spareSymbols)/max(givers, 1) + 1
}

// pendingHeads is how many peers have not said yet what they have and may still do so.
func (f *rebuilding) pendingHeads() int {
	return f.pending(stallAfter, func(*Session) bool { return true })
}

// awaitedHeads is how many of them are worth leaving something for: those that are not
// late beside the first who answered, and were not slow lately.
func (f *rebuilding) awaitedHeads() int {
	if f.firstHead == 0 {
		return f.pendingHeads()
	}
	now := f.node.now()
	return f.pending(min(max(lateTimes*f.firstHead, lateLeast), stallAfter), func(s *Session) bool {
		return !slower(s.answers.expect(now), f.firstHead)
	})
}

func (f *rebuilding) pending(patience time.Duration, counts func(*Session) bool) (n int) {
	if f.node.now().Sub(f.began) >= patience {
		return 0
	}
	for s, q := range f.queried {
		if !q.answered && s.ctx.Err() == nil && counts(s) {
			n++
		}
	}
	return n
}

// noteSilent remembers who did not even say what it has.
func (f *rebuilding) noteSilent() {
	now := f.node.now()
	for s, q := range f.queried {
		if !q.answered && f.firstHead > 0 {
			s.answers.waited(now, now.Sub(f.began))
		}
	}
}

// left returns the symbols that a part could still give.
func (f *rebuilding) left(p *part) *roaring.Bitmap {
	b := roaring.New()
	b.AddRange(uint64(p.ref.First), uint64(p.ref.End()))
	b.AndNot(f.asked)
	if f.judging { // what another peer gave may be a lie
		b.AndNot(p.got)
	} else {
		b.AndNot(f.have)
	}
	return b
}

// hasLeft reports whether left is not empty.
func (f *rebuilding) hasLeft(p *part) bool {
	first, end := uint64(p.ref.First), uint64(p.ref.End())
	if !f.judging && f.have.CardinalityInRange(first, end)+f.asked.CardinalityInRange(first, end) < uint64(p.ref.Count) {
		return true
	}
	return !f.left(p).IsEmpty()
}

// quiet reports whether nothing is on its way and nobody who is there has more.
func (f *rebuilding) quiet() bool {
	if f.pendingHeads() > 0 {
		return false
	}
	for _, p := range f.parts {
		if !p.dead && p.session != nil && (len(p.asked) > 0 || f.hasLeft(p)) {
			return false
		}
	}
	return true
}

// first returns the first n numbers of a set.
func first(b *roaring.Bitmap, n int) *roaring.Bitmap {
	if b.GetCardinality() <= uint64(n) {
		return b
	}
	last, err := b.Select(uint32(n - 1))
	if err != nil {
		return b
	}
	b.RemoveRange(uint64(last)+1, 1<<32)
	return b
}

// stalled gives up what should have come by now; it is asked for again, from
// whoever has it.
func (f *rebuilding) stalled() {
	now := f.node.now()
	f.settle(now)
	for _, p := range f.parts {
		wait := stallAfter
		if p.carrier == carrierLane { // which repeats what it asks
			wait = laneStall
		}
		if len(p.asked) == 0 || now.Sub(p.heard) < wait {
			continue
		}
		f.forget(p)
		p.session.answers.waited(now, now.Sub(p.heard))
		p.heard, p.late = now, false
		if p.stalls++; p.stalls > maxStalls {
			p.dead = true
		}
	}
}

// maxSuspects bounds the search for liars among the minters of a segment.
const maxSuspects = 8

// searchLiar is called when symbols that all fit what their minters signed gave
// another ciphertext than the card's: one or two minters lied. It tries without
// each, then without each pair, and names those whose symbols are wrong.
func (f *rebuilding) searchLiar(ctx context.Context) ([]byte, error) {
	for _, out := range without(f.suspects()) {
		b, err := f.tryWithout(ctx, out)
		if err == nil {
			f.blame(ctx, b)
			return b, nil
		}
		if !errors.Is(err, fcp.CodeNotEnough) && !errors.Is(err, fcp.CodeChecksum) {
			return nil, err
		}
	}
	return nil, fcp.Errorf(fcp.CodeChecksum, "the symbols of segment %s contradict its hash, whoever of their minters is left out", f.segment)
}

// suspects are the minters whose word alone stands for a symbol that came.
func (f *rebuilding) suspects() (out []fcp.WriterID) {
	for _, p := range f.parts {
		for it := p.got.Iterator(); it.HasNext(); {
			if !p.proven(it.Next()) {
				if !slices.Contains(out, p.minter) {
					out = append(out, p.minter)
				}
				break
			}
		}
	}
	return out[:min(len(out), maxSuspects)]
}

// without returns each one and each pair of suspects.
func without(suspects []fcp.WriterID) (out [][]fcp.WriterID) {
	for _, a := range suspects {
		out = append(out, []fcp.WriterID{a})
	}
	for i, a := range suspects {
		for _, b := range suspects[i+1:] {
			out = append(out, []fcp.WriterID{a, b})
		}
	}
	return out
}

// tryWithout decodes from what came, without what some minters alone vouch for.
func (f *rebuilding) tryWithout(ctx context.Context, out []fcp.WriterID) ([]byte, error) {
	have := roaring.New()
	for _, p := range f.parts {
		if !slices.Contains(out, p.minter) {
			have.Or(p.got)
		} else if p.card {
			own := p.got.Clone()
			own.RemoveRange(uint64(p.ref.K()), 1<<32)
			have.Or(own)
		}
	}
	if have.GetCardinality() < uint64(symbols.Ref{Size: f.size}.K()) {
		return nil, fcp.Errorf(fcp.CodeNotEnough, "segment %s", f.segment)
	}
	if err := f.dec.Reset(f.card.Segment, f.size); err != nil {
		return nil, err
	}
	have.Clear()
	for _, p := range f.parts {
		for _, esi := range p.got.ToArray() {
			if slices.Contains(out, p.minter) && !p.proven(esi) || !have.CheckedAdd(esi) {
				continue
			}
			complete, err := f.dec.Add(ctx, esi, p.symbol(esi))
			if err != nil {
				return nil, err
			}
			if complete {
				b, err := f.dec.Ciphertext()
				return slices.Clone(b), err
			}
		}
	}
	return nil, fcp.Errorf(fcp.CodeNotEnough, "segment %s", f.segment)
}

// blame compares everything that came with the ciphertext and names liars.
func (f *rebuilding) blame(ctx context.Context, ciphertext []byte) {
	block, err := f.node.coder.Block(ctx, f.segment, ciphertext)
	if err != nil {
		return
	}
	for _, p := range f.parts {
		for _, esi := range p.got.ToArray() {
			if p.proven(esi) {
				continue
			}
			if same, err := block.Same(ctx, p.share, esi); err == nil && !same {
				f.node.logger.Error("a minter signed false symbols", "minter", p.minter, "segment", f.segment, "share", p.ref.FileName())
				f.node.distrust(p.minter)
				break
			}
		}
	}
}

var _ engine.Fetcher = (*Node)(nil).Fetch

// distrust remembers a minter that lied.
func (n *Node) distrust(w fcp.WriterID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.liars[w] = true
}

// distrusts reports whether a share's minter lied before, and the card does not prove
// each of its symbols: then they are asked for last.
func (n *Node) distrusts(p *part) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.liars[p.minter] && !(p.card && int(p.ref.End()) <= p.ref.K())
}

// Liars returns the minters that were found to have signed false symbols.
func (n *Node) Liars() []fcp.WriterID {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []fcp.WriterID
	for w := range n.liars {
		out = append(out, w)
	}
	slices.SortFunc(out, compareWriters)
	return out
}
