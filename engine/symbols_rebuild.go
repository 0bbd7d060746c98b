package engine

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"runtime"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/zeebo/blake3"

	"fcp"
	"fcp/engine/symbols"
)

// symbolWorker is what one goroutine needs to check and rebuild segments.
type symbolWorker struct {
	s      *shareSet
	hasher symbols.Hasher
	dec    *symbols.Rebuild
}

// judged is a share file that was read, and what is known of it.
type judged struct {
	*symbols.Share
	dir    *shareDir
	file   string
	card   bool      // its source symbols are those of the card
	minter *allotted // who signed for all of it; nil: nobody
}

// proven reports whether a symbol that fits its commitment is right as far as
// signatures can tell.
func (j *judged) proven(esi uint32) bool {
	return j.card && int(esi) < j.K() || j.minter != nil && j.minter.vouched
}

// group names who is to blame when the symbols that only the ciphertext hash can
// judge are lies.
func (j *judged) group() string {
	if j.minter == nil {
		return "shares that nobody signed for, in " + j.dir.path
	}
	return "minter " + fcp.KidOf(j.minter.minter[:]).String()
}

// candidate is a share file in a directory.
type candidate struct {
	dir     *shareDir
	ref     symbols.Ref
	size    int64 // of the file
	vouched bool
}

// candidates lists the shares of a segment, those of known minters and of source
// symbols first.
func (s *shareSet) candidates(x *indexed) []candidate {
	var out []candidate
	for _, d := range s.dirs {
		for _, h := range d.shares[x.id] {
			r := symbols.Ref{Segment: x.id, Size: x.size, First: h.first, Count: h.count}
			if !r.Valid() {
				s.find(SymbolFinding{Code: fcp.CodeManifest, Dir: d.path, File: symbolFileName(&r), Segment: x.id, What: "the segment has no such share"})
				continue
			}
			out = append(out, candidate{d, r, h.size, slices.ContainsFunc(s.ranges[x.id], func(a allotted) bool {
				return a.vouched && a.first == h.first && a.count == h.count
			})})
		}
	}
	slices.SortStableFunc(out, func(a, b candidate) int {
		if a.vouched != b.vouched {
			if a.vouched {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.ref.First, b.ref.First)
	})
	return out
}

// judge reads a share and finds out what proves it. nil: it cannot be read.
func (w *symbolWorker) judge(c *candidate, source fcp.Hash) (*judged, error) {
	s, name := w.s, symbolFileName(&c.ref)
	b, err := c.dir.readUpTo(s.ctx, name, c.size, c.ref.FileSize())
	if err != nil {
		return nil, s.found(c.dir, name, err)
	}
	share, err := symbols.ParseShare(c.ref, b)
	if err != nil {
		return nil, s.found(c.dir, name, err)
	}
	j := &judged{Share: share, dir: c.dir, file: name}
	damage := func(what string) {
		s.find(SymbolFinding{Code: fcp.CodeChecksum, Dir: c.dir.path, File: name, Segment: c.ref.Segment, What: what})
	}
	if share.Cut > 0 {
		damage(fmt.Sprintf("the file ends %d bytes early", share.Cut))
	}
	if more := c.size - c.ref.FileSize(); more > 0 {
		damage(fmt.Sprintf("%d bytes follow the last symbol", more))
	}
	if !share.HeadOK {
		damage("the head is damaged; the file's name says the same")
	}
	j.card = share.SourceProven(source)
	if root, ok := share.Root(); ok {
		j.minter = s.signer(&c.ref, root)
	}
	if j.minter == nil {
		// The commitments are a copy of what the symbols say; maybe they alone are damaged.
		again := *share
		if root, ok := again.Recommit(); ok {
			if j.minter = s.signer(&c.ref, root); j.minter != nil {
				*share = again
				j.card = share.SourceProven(source)
				damage("a commitment is damaged; the symbols are right")
			}
		}
	}
	if j.minter == nil && !(j.card && int(c.ref.End()) <= c.ref.K()) {
		s.find(SymbolFinding{Code: fcp.CodeSignature, Dir: c.dir.path, File: name, Segment: c.ref.Segment,
			What: "no signed root fits its commitments; only the ciphertext hash can judge its symbols"})
	}
	if int(c.ref.First) < c.ref.K() && !j.card && j.minter != nil {
		damage("the proof against the segment's card is damaged; the minter's root fits")
	}
	return j, nil
}

// signer finds who signed for a range with this root, somebody known first.
func (s *shareSet) signer(r *symbols.Ref, root fcp.Hash) (found *allotted) {
	ranges := s.ranges[r.Segment]
	for i := range ranges {
		a := &ranges[i]
		if a.first == r.First && a.count == r.Count && a.root == root && (found == nil || a.vouched) {
			found = a
		}
	}
	return found
}

// maxGroups bounds the search for a liar among those whose symbols are used.
const maxGroups = 7

// attempt is one try to rebuild a segment.
type attempt struct {
	x        *indexed
	source   fcp.Hash
	shares   []candidate
	excluded map[string]bool // groups whose symbols are not used unless the card proves them
	have     *roaring.Bitmap // symbols used
	groups   []string        // who gave symbols that the card does not prove
}

// rebuild returns the ciphertext of a segment from whole copies or symbols. The
// bytes are valid until the next call.
func (w *symbolWorker) rebuild(x *indexed) (ciphertext []byte, coded bool, err error) {
	s := w.s
	for _, d := range s.dirs {
		if size, ok := d.whole[x.id]; ok {
			name := segmentName(x.id)
			b, err := d.read(s.ctx, name, int64(x.size))
			if err == nil && (size != int64(x.size) || blake3.Sum256(b) != x.id) {
				err = fcp.Errorf(fcp.CodeChecksum, "%s", name)
			}
			if err == nil {
				return b, false, nil
			}
			if err := s.found(d, name, err); err != nil {
				return nil, false, err
			}
		}
	}
	if !symbols.Coded(x.size) {
		return nil, false, fcp.Errorf(fcp.CodeNotEnough, "no directory has an undamaged copy of segment %s", x.id)
	}
	_, card, err := s.card(x)
	if err != nil {
		return nil, true, err
	}
	a := attempt{x: x, source: card.Source, shares: s.candidates(x)}
	if ciphertext, err = w.try(&a); errors.Is(err, fcp.CodeChecksum) {
		ciphertext, err = w.searchLiar(&a)
	}
	return ciphertext, true, err
}

// try adds symbols, proven ones first, until the block decodes.
func (w *symbolWorker) try(a *attempt) ([]byte, error) {
	if w.dec != nil {
		if err := w.dec.Reset(a.x.id, a.x.size); err != nil {
			return nil, err
		}
	} else {
		dec, err := w.s.coder.Rebuild(a.x.id, a.x.size)
		if err != nil {
			return nil, err
		}
		w.dec = dec
	}
	a.have, a.groups = roaring.New(), nil
	var unproven []candidate
	for i := range a.shares {
		complete, rest, err := w.addShare(a, &a.shares[i], true)
		if err != nil || complete {
			return w.finish(a, err)
		}
		if rest {
			unproven = append(unproven, a.shares[i])
		}
	}
	for i := range unproven {
		if complete, _, err := w.addShare(a, &unproven[i], false); err != nil || complete {
			return w.finish(a, err)
		}
	}
	k := symbols.Ref{Size: a.x.size}.K()
	return nil, fcp.Errorf(fcp.CodeNotEnough, "segment %s: %d of %d symbols are here, %d more are needed", a.x.id,
		a.have.GetCardinality(), k, max(w.dec.Needs(), 1))
}

func (w *symbolWorker) finish(a *attempt, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return w.dec.Ciphertext()
}

// addShare adds the proven symbols of a share, or the others.
func (w *symbolWorker) addShare(a *attempt, c *candidate, proven bool) (complete, rest bool, err error) {
	if w.s.ctx.Err() != nil {
		return false, false, interrupted(w.s.ctx)
	}
	j, err := w.judge(c, a.source)
	if err != nil || j == nil {
		return false, false, err
	}
	out, used := a.excluded[j.group()], false
	damaged := 0
	for esi := c.ref.First; esi < c.ref.End(); esi++ {
		byCard := j.card && int(esi) < c.ref.K()
		if out && !byCard {
			continue
		}
		if j.proven(esi) != proven {
			rest = true
			continue
		}
		b, ok := j.Symbol(&w.hasher, esi)
		if !ok {
			damaged++
			continue
		}
		a.have.Add(esi)
		if !used && !byCard {
			used = true
			if !slices.Contains(a.groups, j.group()) {
				a.groups = append(a.groups, j.group())
			}
		}
		if complete, err = w.dec.Add(w.s.ctx, esi, b); err != nil || complete {
			break
		}
	}
	if damaged > 0 {
		w.damaged(j, damaged)
	}
	return complete, rest, err
}

func (w *symbolWorker) damaged(j *judged, n int) {
	w.s.find(SymbolFinding{Code: fcp.CodeChecksum, Dir: j.dir.path, File: j.file, Segment: j.Segment, Symbols: n,
		What: fmt.Sprintf("%d of %d symbols are damaged", n, j.Count)})
}

// searchLiar tries again without the symbols of one group, then of two, and so on:
// all of them fit what somebody signed, together they do not give the segment.
func (w *symbolWorker) searchLiar(a *attempt) ([]byte, error) {
	groups := a.groups
	for i := range a.shares { // those that were not needed yet count too
		j, err := w.judge(&a.shares[i], a.source)
		if err != nil {
			return nil, err
		}
		if j != nil && !slices.Contains(groups, j.group()) {
			groups = append(groups, j.group())
		}
	}
	n := min(len(groups), maxGroups)
	var masks []uint
	for m := uint(1); m < 1<<n; m++ {
		masks = append(masks, m)
	}
	slices.SortStableFunc(masks, func(a, b uint) int { return bits.OnesCount(a) - bits.OnesCount(b) })
	for _, m := range masks {
		b := *a
		b.excluded = map[string]bool{}
		for i, g := range groups {
			if m>>min(i, n-1)&1 == 1 {
				b.excluded[g] = true
			}
		}
		ciphertext, err := w.try(&b)
		switch {
		case err == nil:
			return ciphertext, w.blame(a, ciphertext)
		case !errors.Is(err, fcp.CodeChecksum) && !errors.Is(err, fcp.CodeNotEnough):
			return nil, err
		}
	}
	for _, g := range groups {
		w.s.find(SymbolFinding{Code: fcp.CodeSignature, Segment: a.x.id, What: "symbols contradict each other; suspect: " + g})
	}
	return nil, fcp.Errorf(fcp.CodeNotEnough, "segment %s: %d symbols are here, but some are false and no selection of them fits the segment", a.x.id, a.have.GetCardinality())
}

// blame compares the symbols with those of the true ciphertext and names whoever
// gave false ones.
func (w *symbolWorker) blame(a *attempt, ciphertext []byte) error {
	block, err := w.s.coder.Block(w.s.ctx, a.x.id, bytes.Clone(ciphertext))
	if err != nil {
		return err
	}
	for i := range a.shares {
		j, err := w.judge(&a.shares[i], a.source)
		if err == nil && j != nil {
			_, err = w.lies(block, j)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lies returns the symbols of a share that fit their commitments and are not those of the
// segment.
func (w *symbolWorker) lies(block *symbols.Block, j *judged) (*roaring.Bitmap, error) {
	out := roaring.New()
	for esi := j.First; esi < j.End(); esi++ {
		if _, ok := j.Symbol(&w.hasher, esi); !ok {
			continue
		}
		same, err := block.Same(w.s.ctx, j.Share, esi)
		if err != nil {
			return nil, err
		}
		if !same {
			out.Add(esi)
		}
	}
	if n := int(out.GetCardinality()); n > 0 {
		w.s.find(SymbolFinding{Code: fcp.CodeSignature, Dir: j.dir.path, File: j.file, Segment: j.Segment, Symbols: n,
			What: fmt.Sprintf("%d of %d symbols are false, from %s", n, j.Count, j.group())})
	}
	return out, nil
}

// inParallel calls fn for 0 to n-1 on as many goroutines as there are processors,
// and stops at the first error.
func (s *shareSet) inParallel(n int, fn func(w *symbolWorker, i int) error) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		next  int   // guarded by mu
		first error // guarded by mu
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil && s.ctx.Err() != nil {
			first = interrupted(s.ctx)
		}
		if first != nil || next >= n {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			w := &symbolWorker{s: s}
			for i, ok := take(); ok; i, ok = take() {
				if err := fn(w, i); err != nil {
					mu.Lock()
					if first == nil {
						first = err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return first
}

// lacking returns the segments that the listings alone show cannot be rebuilt, and
// what to say about them.
func (s *shareSet) lacking() (n int, err error) {
	worst, least := fcp.SegmentID{}, 0
	for i := range s.index {
		x := &s.index[i]
		more := s.listedNeeds(x)
		if more == 0 {
			continue
		}
		n++
		if more > least {
			worst, least = x.id, more
		}
	}
	if n == 0 {
		return 0, nil
	}
	return n, fcp.Errorf(fcp.CodeNotEnough, "%d of %d segments cannot be rebuilt: segment %s needs %d more symbols", n, len(s.index), worst, least).
		WithNext("add more directories with --from; `fcpctl segment coverage` shows what each holds")
}

// listedNeeds returns how many symbols of a segment are missing at least, by the
// listings; of one that is not coded, 1.
func (s *shareSet) listedNeeds(x *indexed) int {
	all := roaring.New()
	for _, d := range s.dirs {
		if d.whole[x.id] == int64(x.size) {
			return 0
		}
		all.Or(d.present(x))
	}
	if !symbols.Coded(x.size) {
		return 1
	}
	return max(0, symbols.Ref{Size: x.size}.K()-int(all.GetCardinality()))
}

// present returns the symbols that the names of the files promise, of a file cut
// short those that are there.
func (d *shareDir) present(x *indexed) *roaring.Bitmap {
	b := roaring.New()
	for _, h := range d.shares[x.id] {
		r := symbols.Ref{Segment: x.id, Size: x.size, First: h.first, Count: h.count}
		if !r.Valid() {
			continue
		}
		gone := max(0, (r.FileSize()-h.size+fcp.SymbolSize-1)/fcp.SymbolSize)
		if n := int64(h.count) - gone; n > 0 {
			b.AddRange(uint64(h.first), uint64(h.first)+uint64(n))
		}
	}
	return b
}
