package engine

import (
	"bytes"
	"context"
	"errors"
	"math/bits"
	"slices"
	"sync"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority"
	"fcp/engine/symbols"
)

func symbolCoverage(ctx context.Context, dirs []string, o CoverageOptions) (r CoverageReport, err error) {
	o.setDefaults()
	start := o.Now()
	s, err := scanSet(ctx, o.Environment, dirs)
	if err != nil {
		return r, err
	}
	if err := s.load(o.Manifest); err != nil {
		return r, err
	}
	r = CoverageReport{Seq: s.m.Seq, Manifest: s.hash, Owner: fcp.KidOf(s.genesis.Owner[:]), Dirs: make([]DirCoverage, len(s.dirs)),
		Segments: make([]SegmentCoverage, len(s.index)), Rebuilds: true, MayLose: len(s.dirs) - 1}
	v := covering{s: s, r: &r, progress: o.Progress}
	for i, d := range s.dirs {
		r.Dirs[i].Dir, r.Dirs[i].Seq = d.path, d.newest
		for _, shares := range d.shares {
			for _, h := range shares {
				v.total += uint64(h.size)
			}
		}
		for _, n := range d.whole {
			v.total += uint64(n)
		}
	}
	if err := s.inParallel(len(s.index), v.segment); err != nil {
		return r, err
	}
	for i := range r.Segments {
		v.count(&r.Segments[i])
	}
	if err := v.smallFiles(); err != nil {
		return r, err
	}
	v.unlisted()
	r.Findings, r.Elapsed = s.sorted(), o.Now().Sub(start)
	return r, nil
}

// covering is one call of SymbolCoverage.
type covering struct {
	s        *shareSet
	r        *CoverageReport
	progress func(Progress)
	total    uint64

	mu   sync.Mutex
	done uint64 // guarded by mu
}

func (v *covering) tell(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += uint64(n)
	if v.progress != nil {
		v.progress(Progress{Stage: "check", Done: v.done, Total: max(v.total, v.done)})
	}
}

// segment checks all that the directories hold of one segment.
func (v *covering) segment(w *symbolWorker, i int) error {
	s, x := v.s, &v.s.index[i]
	g := SegmentCoverage{Segment: x.id, Bytes: x.size, Held: make([]int, len(s.dirs)), Damaged: make([]int, len(s.dirs)), MayLose: -1}
	if symbols.Coded(x.size) {
		g.Symbols = symbols.Ref{Size: x.size}.K()
	}
	k := max(g.Symbols, 1)
	good := make([]*roaring.Bitmap, len(s.dirs)) // a whole copy counts as all source symbols
	for at, d := range s.dirs {
		good[at] = roaring.New()
		if err := v.wholeCopy(d, x, good[at], &g.Damaged[at], k); err != nil {
			return err
		}
	}
	if symbols.Coded(x.size) {
		if err := v.symbols(w, x, &g, good); err != nil {
			return err
		}
	}
	all := roaring.New()
	for at := range good {
		g.Held[at] = int(good[at].GetCardinality())
		all.Or(good[at])
	}
	g.Distinct = int(all.GetCardinality())
	// Two more than enough decode but for one set in a million; with fewer, see.
	enough := k + 2
	g.Rebuilds = g.Distinct >= enough || holdsAll(all, k)
	if !g.Rebuilds && g.Distinct >= k {
		if _, _, err := w.rebuild(x); err == nil {
			g.Rebuilds = true
		} else if !errors.Is(err, fcp.CodeNotEnough) {
			return err
		}
	}
	if g.Rebuilds {
		g.MayLose = mayLose(good, k, enough)
	}
	v.r.Segments[i] = g
	return nil
}

func holdsAll(b *roaring.Bitmap, k int) bool {
	sources := roaring.New()
	sources.AddRange(0, uint64(k))
	return int(b.AndCardinality(sources)) == k
}

func (v *covering) wholeCopy(d *shareDir, x *indexed, good *roaring.Bitmap, damaged *int, k int) error {
	if _, ok := d.whole[x.id]; !ok {
		return nil
	}
	b, err := d.read(v.s.ctx, segmentName(x.id), int64(x.size))
	if err == nil && blake3.Sum256(b) != x.id {
		err = fcp.Errorf(fcp.CodeChecksum, "%s", segmentName(x.id))
	}
	v.tell(d.whole[x.id])
	if err != nil {
		*damaged++
		return v.s.found(d, segmentName(x.id), err)
	}
	good.AddRange(0, uint64(k))
	return nil
}

// symbols checks the shares of a segment. When there are symbols that no known
// minter vouches for, the segment is rebuilt to compare them.
func (v *covering) symbols(w *symbolWorker, x *indexed, g *SegmentCoverage, good []*roaring.Bitmap) error {
	s := v.s
	_, card, err := s.card(x)
	if err != nil {
		return s.found(&shareDir{}, cardName(x.id), err)
	}
	unproven := 0
	var doubtful []candidate
	shares := s.candidates(x)
	for i := range shares {
		c := &shares[i]
		j, err := w.judge(c, card.Source)
		if err != nil {
			return err
		}
		v.tell(c.ref.FileSize())
		at := slices.Index(s.dirs, c.dir)
		if j == nil {
			g.Damaged[at] += int(c.ref.Count)
			continue
		}
		bad, doubt := 0, 0
		for esi := c.ref.First; esi < c.ref.End(); esi++ {
			if _, ok := j.Symbol(&w.hasher, esi); !ok {
				bad++
				continue
			}
			if !j.proven(esi) {
				doubt++
			}
			good[at].Add(esi)
		}
		if bad > 0 {
			w.damaged(j, bad)
			g.Damaged[at] += bad
		}
		if doubt > 0 {
			doubtful = append(doubtful, *c)
			unproven += doubt
		}
	}
	if unproven == 0 {
		return nil
	}
	v.mu.Lock()
	v.r.Unprovable += unproven
	v.mu.Unlock()
	ciphertext, _, err := w.rebuild(x)
	if errors.Is(err, fcp.CodeNotEnough) {
		// Nothing can judge them. Those of one liar could spoil the rest, so none counts.
		for i := range doubtful {
			if err := v.strike(w, &doubtful[i], card.Source, nil, g, good); err != nil {
				return err
			}
		}
		return nil
	}
	if err != nil {
		return err
	}
	block, err := s.coder.Block(s.ctx, x.id, bytes.Clone(ciphertext))
	for i := range doubtful {
		if err == nil {
			err = v.strike(w, &doubtful[i], card.Source, block, g, good)
		}
	}
	return err
}

// strike takes the symbols of a share that are false, or without a block all that
// are not proven, out of the good ones.
func (v *covering) strike(w *symbolWorker, c *candidate, source fcp.Hash, block *symbols.Block, g *SegmentCoverage, good []*roaring.Bitmap) error {
	j, err := w.judge(c, source)
	if err != nil || j == nil {
		return err
	}
	at := slices.Index(v.s.dirs, c.dir)
	if block != nil {
		lies, err := w.lies(block, j)
		if err == nil {
			good[at].AndNot(lies)
			g.Damaged[at] += int(lies.GetCardinality())
		}
		return err
	}
	for esi := c.ref.First; esi < c.ref.End(); esi++ {
		if !j.proven(esi) {
			good[at].Remove(esi)
		}
	}
	return nil
}

// mayLose returns how many directories may be lost, whichever they are.
func mayLose(good []*roaring.Bitmap, k, enough int) int {
	// Count the symbols by the set of directories that hold them.
	count := map[uint64]int{}
	all := roaring.New()
	for _, b := range good {
		all.Or(b)
	}
	sources := map[uint64]int{}
	for it := all.Iterator(); it.HasNext(); {
		esi := it.Next()
		mask := uint64(0)
		for i, b := range good {
			if b.Contains(esi) {
				mask |= 1 << i
			}
		}
		count[mask]++
		if int(esi) < k {
			sources[mask]++
		}
	}
	left := func(of map[uint64]int, lost uint64) (n int) {
		for mask, c := range of {
			if mask&^lost != 0 {
				n += c
			}
		}
		return n
	}
	survives := func(lost uint64) bool { return left(count, lost) >= enough || left(sources, lost) == k }
	n := len(good)
	for t := 1; t < n; t++ {
		ok := false
		if subsets(n, t) <= maxSubsets {
			ok = survivesAny(n, t, survives)
		} else {
			ok = survivesWorst(good, t, k, enough, int(all.GetCardinality()))
		}
		if !ok {
			return t - 1
		}
	}
	return n - 1
}

// maxSubsets bounds how many losses are tried one by one.
const maxSubsets = 1 << 14

// survivesWorst is for many directories: it counts a symbol as lost once one of its
// holders is. That is exact when no symbol is in two directories and errs on the
// safe side otherwise.
func survivesWorst(good []*roaring.Bitmap, t, k, enough, total int) bool {
	held, whole := make([]int, len(good)), 0
	for i, b := range good {
		held[i] = int(b.GetCardinality())
		if holdsAll(b, k) {
			whole++
		}
	}
	slices.Sort(held)
	for _, n := range held[len(held)-t:] {
		total -= n
	}
	return whole > t || total >= enough
}

// survivesAny reports whether every loss of t of n directories is survived.
func survivesAny(n, t int, survives func(lost uint64) bool) bool {
	for m := uint64(1)<<t - 1; m>>n == 0; {
		if !survives(m) {
			return false
		}
		low := m & -m
		next := m + low
		m = next | (m^next)>>2>>bits.TrailingZeros64(low)
	}
	return true
}

func subsets(n, t int) int {
	c := 1
	for i := range t {
		if c = c * (n - i) / (i + 1); c > maxSubsets {
			return c
		}
	}
	return c
}

// count adds a segment to the totals.
func (v *covering) count(g *SegmentCoverage) {
	r := v.r
	for i := range g.Held {
		if g.Held[i] > 0 {
			r.Dirs[i].Segments++
		}
		if g.Symbols > 0 {
			r.Dirs[i].Symbols += g.Held[i]
		}
		r.Dirs[i].Damaged += g.Damaged[i]
		d := v.s.dirs[i]
		r.Dirs[i].Bytes += uint64(d.whole[g.Segment])
		for _, h := range d.shares[g.Segment] {
			r.Dirs[i].Bytes += uint64(h.size)
		}
	}
	if !g.Rebuilds {
		r.Lacking++
		r.Rebuilds = false
	}
	r.MayLose = min(r.MayLose, g.MayLose)
}

// smallFiles checks every copy of the small files.
func (v *covering) smallFiles() error {
	s := v.s
	files := append(s.smallFiles(), smallFile{backupGenesis, fileHash(s.raw), uint64(len(s.raw))})
	for _, q := range s.chainSeqs() {
		files = append(files, smallFile{manifestName(q), fileHash(s.chain[q]), uint64(len(s.chain[q]))})
	}
	for _, f := range files {
		copies := 0
		for _, d := range s.dirs {
			if !d.there || d.foreign || d.empty {
				continue
			}
			err := s.checkSmall(d, &f)
			if err == nil {
				copies++
			}
			if err := s.found(d, f.name, err); err != nil {
				return err
			}
		}
		v.copies(copies)
	}
	return v.cards()
}

// copies takes into account that something everybody needs is there so many times.
func (v *covering) copies(n int) {
	v.r.MayLose = max(-1, min(v.r.MayLose, n-1))
	v.r.Rebuilds = v.r.Rebuilds && n > 0
}

// cards checks every copy of the share manifests and counts in how many directories
// each card is. A share manifest need not be everywhere: one that is gone leaves
// symbols that the ciphertext hash can still judge.
func (v *covering) cards() error {
	s := v.s
	good := map[string]uint64{} // directories by share manifest
	for name, b := range s.shares {
		f := smallFile{name, fileHash(b), uint64(len(b))}
		for i, d := range s.dirs {
			if _, ok := d.small[name]; !ok {
				continue
			}
			err := s.checkSmall(d, &f)
			if err == nil {
				good[name] |= 1 << i
			}
			if err := s.found(d, name, err); err != nil {
				return err
			}
		}
	}
	for i := range s.index {
		x := &s.index[i]
		holders := uint64(0)
		for _, name := range s.carry[x.card] {
			holders |= good[name]
		}
		for at, d := range s.dirs {
			if _, ok := d.small[cardName(x.id)]; ok {
				if b, err := d.read(s.ctx, cardName(x.id), fcp.MaxCard); err == nil && cardSum(b) == x.card {
					holders |= 1 << at
				}
			}
		}
		v.copies(bits.OnesCount64(holders))
	}
	return nil
}

func (s *shareSet) checkSmall(d *shareDir, f *smallFile) error {
	size, ok := d.small[f.name]
	if !ok {
		return fcp.Errorf(fcp.CodeManifest, "%s is missing", f.name)
	}
	if f.size > 0 && uint64(size) != f.size {
		return fcp.Errorf(fcp.CodeChecksum, "%s does not have the %d bytes it must have", f.name, f.size)
	}
	limit := size
	if f.size == 0 {
		limit = authority.MaxSignedObject
	}
	b, err := d.read(s.ctx, f.name, limit)
	if err == nil && fileHash(b) != f.hash {
		err = fcp.Errorf(fcp.CodeChecksum, "%s", f.name)
	}
	return err
}

// unlisted names shares of segments that the newest backup does not have.
func (v *covering) unlisted() {
	for _, d := range v.s.dirs {
		for id, shares := range d.shares {
			if _, ok := findIndexed(v.s.index, id); ok {
				continue
			}
			for _, h := range shares {
				r := symbols.Ref{Segment: id, First: h.first, Count: h.count}
				v.s.find(SymbolFinding{Code: fcp.CodeManifest, Dir: d.path, File: symbolFileName(&r), Segment: id, What: "the newest backup has no such segment"})
			}
		}
	}
}
