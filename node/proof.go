package node

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/gossip"
)

// Possession is proven, not claimed (50-mesh "Placement, coverage, repair"). What a
// member says that it holds is asked for: a few symbols at random, at a low rate, each
// answered with the symbol itself, the minter's signed root and the path between them.
// A claim that fails is not counted any more, and its peer is named and gets no new
// share. Where something is dropped on the word of others (a tail that is kept for a
// writer, a share that no policy asks for), claims count only once they were proven: by
// an answer, or because this node gave the peer all of it.

// possessionChallenge asks a peer for symbols that it says it holds. With Keep it is
// asked besides not to drop what it holds of the segment for so many seconds.
type possessionChallenge struct {
	ID      uint64        `cbor:"id"`
	Segment fcp.SegmentID `cbor:"segment"`
	Symbols []uint32      `cbor:"symbols"` // encoding symbol ids, 1 to maxProofs
	Keep    uint64        `cbor:"keep,omitempty"`
}

// possessionProof is the answer: those of the symbols that are there.
type possessionProof struct {
	ID      uint64         `cbor:"id"`
	Segment fcp.SegmentID  `cbor:"segment"`
	Symbols []provenSymbol `cbor:"symbols"`
	Keep    uint64         `cbor:"keep,omitempty"` // promised; 0: not
}

type provenSymbol struct {
	Manifest []byte `cbor:"manifest"` // of the share that the symbol is in
	First    uint64 `cbor:"first"`
	Count    uint64 `cbor:"count"`
	ESI      uint32 `cbor:"esi"`
	Symbol   []byte `cbor:"symbol"`
	Path     []byte `cbor:"path"` // symbols.Share.Path
}

var (
	schemaChallenge = fcp.MustSchema("fcp.mesh:PossessionChallenge@1.0.0")
	schemaProof     = fcp.MustSchema("fcp.mesh:PossessionProof@1.0.0")
)

const (
	maxProofs     = 8         // symbols of one challenge
	proofSymbols  = 3         // that this node asks for
	maxProofKeep  = 24 * 3600 // seconds
	proofEvery    = 200 * time.Millisecond
	proofRate     = 16               // challenges per second, in the long run
	proofBurst    = 64               // and at once
	proofWait     = 15 * time.Second // for an answer
	proofTries    = 3                // silent ones before a claim has failed
	proofLife     = 24 * time.Hour   // then it is asked for again
	proofAgain    = 10 * time.Minute
	proofScan     = time.Minute // between looks for claims that are due
	maxProofQueue = 1 << 14     // claims waiting to be asked for
	maxProofGiven = 1 << 12     // claims of which some symbols were given
)

func (m *possessionChallenge) ok() bool {
	return len(m.Symbols) > 0 && len(m.Symbols) <= maxProofs && m.Keep <= maxProofKeep
}

func (m *possessionProof) ok() bool {
	if len(m.Symbols) > maxProofs || m.Keep > maxProofKeep {
		return false
	}
	for i := range m.Symbols {
		x := &m.Symbols[i]
		if x.First >= 1<<24 || x.Count == 0 || x.Count >= 1<<16 || len(x.Manifest) > symbols.MaxManifest || len(x.Symbol) != fcp.SymbolSize || len(x.Path) > symbols.MaxPath {
			return false
		}
	}
	return true
}

// claimKey is what one peer says of one segment.
type claimKey struct {
	peer    fcp.WriterID
	segment fcp.SegmentID
}

// claim is what is known of it.
type claim struct {
	proven time.Time // last; zero: never
	count  uint64    // symbols claimed then
	failed time.Time // since it was proven last; zero: not
	tries  int       // without an answer
	due    time.Time // not asked before
}

// challenge is one under way.
type challenge struct {
	claimKey
	symbols []uint32
	count   uint64 // symbols claimed
	at      time.Time
	done    chan bool // of somebody who waits: proven, and kept when that was asked
	keep    bool
}

// proofTable is what a node knows of claims, and has promised others.
type proofTable struct {
	wakeup chan struct{}

	mu       sync.Mutex
	claims   map[claimKey]*claim          // guarded by mu
	failing  map[fcp.WriterID]int         // claims of a peer that failed; guarded by mu
	given    map[claimKey]*roaring.Bitmap // symbols that this node gave; guarded by mu
	queue    []claimKey                   // to be asked for, in order; guarded by mu
	queued   map[claimKey]bool            // guarded by mu
	asked    map[uint64]*challenge        // guarded by mu
	next     uint64                       // id of the last challenge; guarded by mu
	tokens   float64                      // challenges that may go out now; guarded by mu
	filled   time.Time                    // when tokens was; guarded by mu
	scanned  time.Time                    // guarded by mu
	old      map[fcp.SegmentID]bool       // own segments of an earlier run; guarded by mu
	promised map[fcp.SegmentID]time.Time  // not dropped here before; guarded by mu
	dropping map[fcp.SegmentID]bool       // about to be dropped here: nothing is promised; guarded by mu
}

func (t *proofTable) init(now time.Time) {
	t.wakeup = make(chan struct{}, 1)
	t.claims, t.failing, t.given = map[claimKey]*claim{}, map[fcp.WriterID]int{}, map[claimKey]*roaring.Bitmap{}
	t.queued, t.asked, t.old = map[claimKey]bool{}, map[uint64]*challenge{}, map[fcp.SegmentID]bool{}
	t.promised, t.dropping = map[fcp.SegmentID]time.Time{}, map[fcp.SegmentID]bool{}
	t.tokens, t.filled, t.scanned = proofBurst, now, now
}

func (t *proofTable) wake() {
	select {
	case t.wakeup <- struct{}{}:
	default:
	}
}

// ask queues a claim, unless it waits already.
func (t *proofTable) askLocked(k claimKey) {
	if !t.queued[k] && len(t.queue) < maxProofQueue {
		t.queued[k] = true
		t.queue = append(t.queue, k)
	}
}

// want has a claim asked for soon.
func (t *proofTable) want(k claimKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.askLocked(k)
	t.wake()
}

// proven reports whether a peer proved that it holds so many symbols of a segment.
func (t *proofTable) proven(k claimKey, count uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.claims[k]
	return c != nil && !c.proven.IsZero() && c.failed.IsZero() && count <= c.count
}

// counts reports whether a claim about an own segment counts as placed.
func (t *proofTable) counts(k claimKey, count uint64) bool {
	if t.proven(k, count) {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.claims[k]
	if c == nil || c.failed.IsZero() {
		t.askLocked(k)
		t.wake()
		return t.old[k.segment]
	}
	return false
}

// earlier reports whether a segment of this node is of an earlier run.
func (t *proofTable) earlier(id fcp.SegmentID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.old[id]
}

// failed reports whether a claim turned out false.
func (t *proofTable) failed(k claimKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.claims[k]
	return c != nil && !c.failed.IsZero()
}

// suspect reports whether a claim of a peer turned out false and was not made good.
func (t *proofTable) suspect(peer fcp.WriterID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failing[peer] > 0
}

// gave notes that a peer was sent symbols of a segment.
func (t *proofTable) gave(peer fcp.WriterID, segment fcp.SegmentID, ids *roaring.Bitmap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := claimKey{peer, segment}
	b := t.given[k]
	if b == nil {
		for old := range t.given { // any: what was given is only a short way to a proof
			if len(t.given) < maxProofGiven {
				break
			}
			delete(t.given, old)
		}
		b = roaring.New()
		t.given[k] = b
	}
	b.Or(ids)
}

// told takes what a peer says that it holds: claimed is nil for nothing.
func (t *proofTable) told(k claimKey, claimed *roaring.Bitmap, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if claimed == nil || claimed.IsEmpty() {
		t.forgetLocked(k)
		delete(t.given, k)
		return
	}
	if b := t.given[k]; b != nil && claimed.AndCardinality(b) == claimed.GetCardinality() {
		delete(t.given, k)
		t.settleLocked(k, claimed.GetCardinality(), true, now)
		return
	}
	if c := t.claims[k]; c == nil || c.failed.IsZero() && claimed.GetCardinality() > c.count {
		t.askLocked(k)
		t.wake()
	}
}

func (t *proofTable) forgetLocked(k claimKey) {
	if c := t.claims[k]; c != nil && !c.failed.IsZero() {
		t.failing[k.peer]--
	}
	delete(t.claims, k)
}

func (t *proofTable) settle(k claimKey, count uint64, good bool, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.settleLocked(k, count, good, now)
}

// settleLocked notes how a challenge ended, and reports whether a claim failed that had
// not before.
func (t *proofTable) settleLocked(k claimKey, count uint64, good bool, now time.Time) (news bool) {
	c := t.claims[k]
	if c == nil {
		c = &claim{}
		t.claims[k] = c
	}
	if good {
		if !c.failed.IsZero() {
			t.failing[k.peer]--
		}
		*c = claim{proven: now, count: count, due: now.Add(proofLife)}
		return false
	}
	news = c.failed.IsZero()
	if news {
		t.failing[k.peer]++
	}
	c.failed, c.tries, c.due = now, 0, now.Add(proofAgain)
	return news
}

// proveLoop asks for claims.
func (n *Node) proveLoop() {
	tick := time.NewTicker(proofEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-n.proofs.wakeup:
		case <-n.life.Done():
			return
		}
		now := n.now()
		n.proofsSilent(now)
		n.proofsDue(now)
		for _, k := range n.proofs.take(now) {
			if _, err := n.challenge(k, 0, nil); err != nil {
				n.logger.Debug("a claim was not asked for", "peer", k.peer, "err", err)
			}
		}
	}
}

// take returns the claims that may be asked for now.
func (t *proofTable) take(now time.Time) []claimKey {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tokens = min(proofBurst, t.tokens+max(0, now.Sub(t.filled).Seconds())*proofRate) // a clock may go back
	t.filled = now
	count := min(len(t.queue), int(t.tokens))
	out := slices.Clone(t.queue[:count])
	t.queue = slices.Delete(t.queue, 0, count)
	t.tokens -= float64(count)
	for _, k := range out {
		delete(t.queued, k)
	}
	return out
}

// proofsSilent ends challenges without an answer. A peer that left meanwhile is asked
// when it is back.
func (n *Node) proofsSilent(now time.Time) {
	t := &n.proofs
	var silent []*challenge
	t.mu.Lock()
	for id, c := range t.asked {
		if since := now.Sub(c.at); since >= proofWait || since < 0 {
			delete(t.asked, id)
			silent = append(silent, c)
		}
	}
	t.mu.Unlock()
	var failed []claimKey
	for _, c := range silent {
		there := n.sessionSince(c.peer, c.at)
		if c.done != nil {
			c.done <- false
		}
		if there && n.proofs.missed(c.claimKey, now) {
			failed = append(failed, c.claimKey)
		}
	}
	n.named(failed)
}

// missed notes that a claim was not answered for, and reports whether it failed by
// that.
func (t *proofTable) missed(k claimKey, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.claims[k]
	if c == nil {
		c = &claim{}
		t.claims[k] = c
	}
	if c.tries++; c.tries < proofTries {
		t.askLocked(k)
		return false
	}
	return t.settleLocked(k, 0, false, now)
}

// sessionSince reports whether a peer is there and was at a time.
func (n *Node) sessionSince(peer fcp.WriterID, at time.Time) bool {
	s := n.session(peer)
	return s != nil && !s.started.After(at)
}

// proofsDue queues, now and then, the claims of who is there that were not proven
// lately.
func (n *Node) proofsDue(now time.Time) {
	t := &n.proofs
	t.mu.Lock()
	if since := now.Sub(t.scanned); since >= 0 && since < proofScan {
		t.mu.Unlock()
		return
	}
	t.scanned = now
	t.mu.Unlock()
	n.repairs.mu.Lock()
	ids := make([]fcp.SegmentID, 0, len(n.repairs.known))
	for id := range n.repairs.known {
		ids = append(ids, id)
	}
	n.repairs.mu.Unlock()
	slices.SortFunc(ids, func(a, b fcp.SegmentID) int { return slices.Compare(a[:], b[:]) })
	t.prune(ids, now)
	for _, id := range ids {
		n.mu.Lock()
		holders := n.core.Holders(id)
		there := slices.DeleteFunc(holders, func(h gossip.Holder) bool { return n.sessions[h.Peer] == nil })
		n.mu.Unlock()
		t.mu.Lock()
		for _, h := range there {
			k := claimKey{h.Peer, id}
			if c := t.claims[k]; c == nil || !now.Before(c.due) {
				t.askLocked(k)
			}
		}
		t.mu.Unlock()
	}
}

// prune forgets what is said of segments that are none any more, and promises that are
// kept. ids is ascending.
func (t *proofTable) prune(ids []fcp.SegmentID, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.claims {
		if _, ok := slices.BinarySearchFunc(ids, k.segment, func(a, b fcp.SegmentID) int { return slices.Compare(a[:], b[:]) }); !ok {
			t.forgetLocked(k)
		}
	}
	for id, until := range t.promised {
		if now.After(until) {
			delete(t.promised, id)
		}
	}
}

// challenge asks for one claim. With done it says there how it ended, and with keep
// seconds that is good only if the peer promises to keep what it holds for so long.
// It returns the id, 0 when the peer is not there or claims nothing any more.
func (n *Node) challenge(k claimKey, keep uint64, done chan bool) (id uint64, err error) {
	s := n.session(k.peer)
	if s == nil {
		return 0, nil
	}
	claimed := n.claimed(k)
	if claimed == nil || claimed.IsEmpty() {
		return 0, nil
	}
	c := &challenge{claimKey: k, count: claimed.GetCardinality(), at: n.now(), done: done, keep: keep > 0}
	for range min(proofSymbols, c.count) {
		var b [8]byte
		if err := n.random(b[:]); err != nil {
			return 0, err
		}
		esi, err := claimed.Select(uint32(binary.BigEndian.Uint64(b[:]) % c.count))
		if err != nil {
			return 0, fcp.Wrap(fcp.CodeInternal, err, "choose a symbol")
		}
		if !slices.Contains(c.symbols, esi) {
			c.symbols = append(c.symbols, esi)
		}
	}
	t := &n.proofs
	t.mu.Lock()
	t.next++
	id = t.next
	t.asked[id] = c
	t.mu.Unlock()
	n.metrics.Challenges.Add(1)
	return id, s.send(normal, &possessionChallenge{ID: id, Segment: k.segment, Symbols: c.symbols, Keep: keep})
}

// claimed returns what a peer says that it holds of a segment; nil for nothing.
func (n *Node) claimed(k claimKey) *roaring.Bitmap {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, h := range n.core.Holders(k.segment) {
		if h.Peer == k.peer {
			return h.Symbols.Clone()
		}
	}
	return nil
}

// claimsTold takes an inventory, or what changed in it.
func (n *Node) claimsTold(peer fcp.WriterID, u *gossip.Update) {
	now := n.now()
	for i := range u.Entries {
		k := claimKey{peer, u.Entries[i].Segment}
		n.proofs.told(k, n.claimed(k), now)
	}
}

// giveProof answers a challenge with what is here.
func (n *Node) giveProof(s *Session, m *possessionChallenge) {
	s.spawn(func() {
		done, err := s.budget.serve()
		if err != nil {
			return // it asks again
		}
		defer done()
		p := &possessionProof{ID: m.ID, Segment: m.Segment, Symbols: []provenSymbol{}}
		began := n.now()
		list := n.sharesOf(m.Segment)
		for _, esi := range m.Symbols {
			i := slices.IndexFunc(list, func(r symbols.Ref) bool { return r.First <= esi && esi < r.End() })
			if i < 0 {
				continue
			}
			x, err := n.proofOf(s.ctx, list[i], esi)
			if err != nil {
				n.logger.Warn("a symbol cannot be shown", "share", list[i].FileName(), "esi", esi, "err", err)
				n.giveUpShare(list[i], err)
				continue
			}
			p.Symbols = append(p.Symbols, x)
		}
		s.budget.cpu(n.now().Sub(began))
		if m.Keep > 0 && len(p.Symbols) == len(m.Symbols) && n.proofs.promise(m.Segment, n.now().Add(time.Duration(m.Keep)*time.Second)) {
			p.Keep = m.Keep
		}
		if err := s.send(normal, p); err != nil {
			n.logger.Debug("a proof was not sent", "peer", s.peer.Writer, "err", err)
		}
	})
}

// giveUpShare takes a share back that cannot be shown: its file is gone, or rotten and
// the others do without. Then it is said no more to be here, and made again.
func (n *Node) giveUpShare(r symbols.Ref, why error) {
	n.shares.mu.Lock()
	held := slices.Contains(n.shares.held[r.Segment], r)
	n.shares.mu.Unlock()
	gone := errors.Is(why, fcp.CodeNotFound)
	rotten := errors.Is(why, fcp.CodeChecksum) && n.holdsProven(r.Segment, n.self) >= uint64(r.K())+spareSymbols
	if !held || !gone && !rotten {
		return
	}
	if err := n.engine.DropShare(r); err != nil {
		n.logger.Warn("a damaged share was not dropped", "share", r.FileName(), "err", err)
		return
	}
	n.forgetShare(r)
	n.announce(r.Segment)
}

func (n *Node) proofOf(ctx context.Context, r symbols.Ref, esi uint32) (x provenSymbol, err error) {
	file, manifest, err := n.loadShare(ctx, r)
	if err != nil {
		return x, err
	}
	share, err := symbols.ParseShare(r, file)
	if err != nil {
		return x, err
	}
	var h symbols.Hasher
	symbol, ok := share.Symbol(&h, esi)
	path, ok2 := share.Path(esi)
	if !ok || !ok2 {
		return x, fcp.Errorf(fcp.CodeChecksum, "symbol %d of share %s", esi, r.FileName())
	}
	return provenSymbol{Manifest: manifest, First: uint64(r.First), Count: uint64(r.Count), ESI: esi, Symbol: symbol, Path: path}, nil
}

// promise notes that nothing of a segment is dropped here before a time, unless it is
// about to be.
func (t *proofTable) promise(segment fcp.SegmentID, until time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.dropping[segment] {
		return false
	}
	if until.After(t.promised[segment]) {
		t.promised[segment] = until
	}
	return true
}

// takeProof judges an answer.
func (n *Node) takeProof(s *Session, m *possessionProof) {
	t := &n.proofs
	t.mu.Lock()
	c := t.asked[m.ID]
	if c == nil || c.peer != s.peer.Writer || c.segment != m.Segment {
		t.mu.Unlock()
		return // too late, or not asked
	}
	delete(t.asked, m.ID)
	t.mu.Unlock()
	s.spawn(func() {
		good, sure := n.judgeProof(s.ctx, c, m)
		now := n.now()
		if !sure {
			t.later(c.claimKey, now)
			if c.done != nil {
				c.done <- false
			}
			return
		}
		still := n.claimed(c.claimKey)
		var failed []claimKey
		// A peer may have taken its word back before it was asked for it.
		if (good || still != nil && still.GetCardinality() >= c.count) && t.settle(c.claimKey, c.count, good, now) {
			failed = append(failed, c.claimKey)
		}
		if c.done != nil {
			c.done <- good && (!c.keep || m.Keep > 0)
		}
		n.named(failed)
	})
}

// later puts a claim off of which an answer said nothing.
func (t *proofTable) later(k claimKey, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.claims[k]
	if c == nil {
		c = &claim{}
		t.claims[k] = c
	}
	c.due = now.Add(proofScan)
}

// judgeProof reports whether every symbol that was asked for is there, and is what a
// member signed for; of a segment of this node, whether it is the right one. It is not
// sure when the minter is nobody this node knows yet, or lied before: who holds what he
// minted, in good faith, did not lie himself.
func (n *Node) judgeProof(ctx context.Context, c *challenge, m *possessionProof) (good, sure bool) {
	for _, esi := range c.symbols {
		i := slices.IndexFunc(m.Symbols, func(x provenSymbol) bool { return x.ESI == esi })
		if i < 0 {
			return false, true
		}
		x := &m.Symbols[i]
		held, root, err := n.engine.CheckMinted(x.Manifest, uint32(x.First), uint32(x.Count))
		if errors.Is(err, fcp.CodeUnauthorized) {
			return false, false
		}
		if err != nil || held.Segment != c.segment || !held.Proves(root, esi, x.Symbol, x.Path) {
			return false, true
		}
		if held.Minter != n.self && !n.rightSymbol(ctx, held.Minter, c.segment, esi, x.Symbol) {
			return false, held.Minter == c.peer
		}
		n.mu.Lock()
		liar := n.liars[held.Minter]
		n.mu.Unlock()
		if liar {
			return false, held.Minter == c.peer
		}
	}
	return true, true
}

// rightSymbol compares a symbol of a segment that is in this node's log with the one
// that follows from it; of others it knows nothing. A minter that signed another one is
// named.
func (n *Node) rightSymbol(ctx context.Context, minter fcp.WriterID, segment fcp.SegmentID, esi uint32, symbol []byte) bool {
	n.shares.mu.Lock()
	own, ok := n.shares.own[segment]
	n.shares.mu.Unlock()
	if !ok {
		return true
	}
	m, err := n.mint(ctx, own)
	if err != nil {
		return true
	}
	m.mu.Lock()
	file, _, err := m.minting.Share(ctx, esi, 1, n.opt.Policy.Need)
	m.mu.Unlock()
	if err != nil || slices.Equal(file[len(file)-fcp.SymbolSize:], symbol) {
		return true
	}
	n.logger.Error("a minter signed false symbols", "minter", minter, "segment", segment, "esi", esi)
	n.distrust(minter)
	return false
}

// named says whose claims failed, and looks for other places.
func (n *Node) named(failed []claimKey) {
	for _, k := range failed {
		n.metrics.ClaimsFalse.Add(1)
		n.logger.Error("a peer claims symbols that it does not have", "peer", k.peer, "segment", k.segment)
	}
	if len(failed) > 0 {
		n.shares.wake()
	}
}

// Suspects returns the members that claimed symbols which they did not have, ascending,
// with the number of segments.
func (n *Node) Suspects() (out []Suspect) {
	t := &n.proofs
	t.mu.Lock()
	for w, count := range t.failing {
		if count > 0 {
			out = append(out, Suspect{w, count})
		}
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Suspect) int { return compareWriters(a.Writer, b.Writer) })
	return out
}

// Suspect is a member that claimed symbols which it did not have.
type Suspect struct {
	Writer   fcp.WriterID
	Segments int
}

// holdsProven returns how many symbols of a segment others than some writer proved that
// they hold, and has the others asked.
func (n *Node) holdsProven(segment fcp.SegmentID, without fcp.WriterID) (count uint64) {
	n.mu.Lock()
	holders := n.core.Holders(segment)
	n.mu.Unlock()
	for _, h := range holders {
		if h.Peer == without {
			continue
		}
		k := claimKey{h.Peer, segment}
		if n.proofs.proven(k, h.Symbols.GetCardinality()) {
			count += h.Symbols.GetCardinality()
		} else if !n.proofs.failed(k) {
			n.proofs.want(k)
		}
	}
	return count
}
