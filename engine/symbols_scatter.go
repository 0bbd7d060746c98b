package engine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/log"
)

// batchBytes bounds the symbols that wait in memory for their share manifest,
// which must be on disk before them.
const batchBytes = 24 << 20

// minter signs for symbols.
type minter struct {
	key     [ed25519.PublicKeySize]byte
	device  []byte
	sign    func([]byte) []byte
	vouched bool
}

// newMinter returns the node of a store as minter or, without one, a key that
// nobody knows and that is forgotten after.
func newMinter(env *Environment, e *Engine) (m minter, err error) {
	if e == nil {
		var seed [ed25519.SeedSize]byte
		if _, err := io.ReadFull(env.Rand, seed[:]); err != nil {
			return m, fcp.Wrap(fcp.CodeInternal, err, "make a key")
		}
		key := ed25519.NewKeyFromSeed(seed[:])
		m.key = [ed25519.PublicKeySize]byte(key.Public().(ed25519.PublicKey))
		m.sign = func(b []byte) []byte { return ed25519.Sign(key, b) }
		return m, nil
	}
	m.key = [ed25519.PublicKeySize]byte(e.node.Public().Signing)
	m.sign, m.vouched = e.node.Sign, true
	if e.node.Public().Signing != e.genesis.Node.Signing {
		m.device, err = e.ownEnrollment()
	}
	return m, err
}

// scattering mints symbols and writes them to directories.
type scattering struct {
	s        *shareSet
	targets  []*shareDir
	record   []*shareDir // get the share manifests too, if they can be written
	need     func(x *indexed) int
	minter   minter
	dryRun   bool
	r        *ScatterResult
	progress func(Progress)
	total    uint64
	done     uint64

	batch   []pendingSegment
	waiting uint64 // bytes of files the batch makes

	writing []pendingSegment // read by the goroutines of flush until wait returns
	written chan error       // one for each target
}

// pendingSegment is a segment with what is to be written of it.
type pendingSegment struct {
	x          indexed
	card       []byte
	ciphertext []byte
	shares     []pendingShare
}

type pendingShare struct {
	dir *shareDir
	ref symbols.Ref
	// Whole copies have no root and no symbols.
	root fcp.Hash
	file []byte
}

// plan says what the targets lack of a segment. It changes the set's ledger at
// once, so that nothing is allotted twice.
func (c *scattering) plan(x *indexed) (shares []pendingShare, err error) {
	if !symbols.Coded(x.size) {
		for _, d := range c.targets {
			if d.whole[x.id] != int64(x.size) {
				shares = append(shares, pendingShare{dir: d, ref: symbols.Ref{Segment: x.id, Size: x.size}})
			}
		}
		return shares, nil
	}
	k := symbols.Ref{Size: x.size}.K()
	need := c.need(x)
	share := symbols.Policy{Need: need, Of: need}.Share(k)
	before := roaring.New() // what directories named earlier hold counts once
	for _, d := range c.targets {
		held := c.s.settled(d, x)
		held.AndNot(before)
		before.Or(held)
		more := share - int(held.GetCardinality())
		if more <= 0 {
			continue
		}
		r := symbols.Ref{Segment: x.id, Size: x.size, Count: uint32(more)}
		first, ok := nextRange(c.s.ranges[x.id], r.Count)
		if r.First = first; !ok || !r.Valid() {
			return nil, fcp.Errorf(fcp.CodeExhausted, "the symbol ids of segment %s are used up", x.id).WithNext("scatter to new directories")
		}
		c.s.ranges[x.id] = append(c.s.ranges[x.id], allotted{first: r.First, count: r.Count, minter: c.minter.key, vouched: c.minter.vouched, need: need})
		shares = append(shares, pendingShare{dir: d, ref: r})
	}
	return shares, nil
}

// settled returns the symbols a directory holds in files of the right size that
// somebody signed for.
func (s *shareSet) settled(d *shareDir, x *indexed) *roaring.Bitmap {
	b := roaring.New()
	if d.whole[x.id] == int64(x.size) {
		b.AddRange(0, uint64(symbols.Ref{Size: x.size}.K()))
	}
	for _, h := range d.shares[x.id] {
		r := symbols.Ref{Segment: x.id, Size: x.size, First: h.first, Count: h.count}
		if r.Valid() && r.FileSize() == h.size && slices.ContainsFunc(s.ranges[x.id], func(a allotted) bool {
			return a.first == h.first && a.count == h.count
		}) {
			b.AddRange(uint64(h.first), uint64(h.first)+uint64(h.count))
		}
	}
	return b
}

func (p *pendingShare) size() uint64 {
	if p.ref.Count == 0 {
		return uint64(p.ref.Size)
	}
	return uint64(p.ref.FileSize())
}

// add takes a segment in; its bytes belong to the scattering from here on.
func (c *scattering) add(x *indexed, card []byte, ciphertext func() ([]byte, error)) error {
	if c.s.ctx.Err() != nil {
		return interrupted(c.s.ctx)
	}
	shares, err := c.plan(x)
	if err != nil {
		return err
	}
	for i := range shares {
		p := &shares[i]
		c.r.Planned = append(c.r.Planned, PlannedShare{p.dir.path, x.id, p.ref.First, p.ref.Count, p.size()})
		c.waiting += p.size()
	}
	c.done += uint64(x.size)
	if c.progress != nil {
		c.progress(Progress{Stage: "scatter", Done: c.done, Total: max(c.total, c.done)})
	}
	if len(shares) == 0 || c.dryRun {
		return nil
	}
	b, err := ciphertext()
	if err != nil {
		return err
	}
	c.batch = append(c.batch, pendingSegment{*x, card, b, shares})
	if c.waiting >= batchBytes || len(c.batch) >= symbols.MaxSegments/4 {
		return c.flush()
	}
	return nil
}

// flush mints the batch: first the signed allotment is written everywhere, then
// the symbols. A crash between the two leaves ids that nobody holds. The symbols are
// written in the background, while the next batch is collected: see wait.
func (c *scattering) flush() error {
	if len(c.batch) == 0 {
		return nil
	}
	s := c.s
	err := s.inParallel(len(c.batch), func(_ *symbolWorker, i int) error { return c.encode(&c.batch[i]) })
	if err := errors.Join(c.wait(), err); err != nil {
		return err
	}
	if err := c.writeManifest(); err != nil {
		return err
	}
	c.writing, c.batch, c.waiting = c.batch, nil, 0
	c.written = make(chan error, len(c.targets))
	for _, d := range c.targets {
		go func() { c.written <- c.writeShares(d) }()
	}
	return nil
}

// wait returns once the batch that is being written is on disk.
func (c *scattering) wait() (err error) {
	if c.written == nil {
		return nil
	}
	for range c.targets {
		if e := <-c.written; err == nil {
			err = e
		}
	}
	c.written = nil
	if err != nil {
		return err
	}
	for i := range c.writing {
		p := &c.writing[i]
		for j := range p.shares {
			q := &p.shares[j]
			c.r.Shares++
			c.r.Symbols += int(q.ref.Count)
			c.r.Written += q.size()
			if q.ref.Count == 0 {
				q.dir.whole[p.x.id] = int64(p.x.size)
			} else {
				q.dir.shares[p.x.id] = append(q.dir.shares[p.x.id], heldShare{q.ref.First, q.ref.Count, q.ref.FileSize()})
			}
		}
	}
	c.writing = nil
	return nil
}

// finish writes what is left.
func (c *scattering) finish() error {
	err := c.flush()
	return errors.Join(err, c.wait())
}

func (c *scattering) encode(p *pendingSegment) error {
	if !symbols.Coded(p.x.size) {
		return nil
	}
	block, err := c.s.coder.Block(c.s.ctx, p.x.id, p.ciphertext)
	if err != nil {
		return err
	}
	for i := range p.shares {
		q := &p.shares[i]
		if q.file, q.root, err = block.Share(c.s.ctx, q.ref.First, q.ref.Count); err != nil {
			return err
		}
	}
	return nil
}

func (c *scattering) writeManifest() error {
	s := c.s
	m := symbols.Manifest{Format: symbols.ManifestFormat, Genesis: s.genesis.ID, Minter: c.minter.key, Device: c.minter.device,
		Created: uint64(max(s.env.Now().Unix(), 0)), Need: uint64(c.need(&c.batch[0].x))}
	slices.SortFunc(c.batch, func(a, b pendingSegment) int { return bytes.Compare(a.x.id[:], b.x.id[:]) })
	for i := range c.batch {
		p := &c.batch[i]
		g := symbols.Minted{Card: p.card}
		for j := range p.shares {
			if q := &p.shares[j]; q.ref.Count > 0 {
				g.Ranges = append(g.Ranges, symbols.Range{First: uint64(q.ref.First), Count: uint64(q.ref.Count), Root: q.root})
			}
		}
		slices.SortFunc(g.Ranges, func(a, b symbols.Range) int { return cmp.Compare(a.First, b.First) })
		m.Segments = append(m.Segments, g)
	}
	b, err := m.Sign(c.minter.sign)
	if err != nil {
		return err
	}
	name := shareManifestName(fileHash(b))
	for _, d := range c.targets {
		if _, err := d.putBytes(s.ctx, name, b); err != nil {
			return err
		}
	}
	c.recordIn(name, b)
	s.shares[name] = b
	for i := range m.Segments {
		s.cards[cardSum(m.Segments[i].Card)] = m.Segments[i].Card
	}
	return nil
}

// recordIn tells the other directories what was allotted.
func (c *scattering) recordIn(name string, b []byte) {
	for _, d := range c.record {
		if d.lock == nil {
			continue // named already
		}
		if _, err := d.putBytes(c.s.ctx, name, b); err != nil {
			c.s.find(SymbolFinding{Code: fcp.CodeOf(err), Dir: d.path, File: name, What: "what was allotted could not be recorded here: " + err.Error()})
		}
	}
}

func (c *scattering) writeShares(d *shareDir) error {
	for i := range c.writing {
		p := &c.writing[i]
		for j := range p.shares {
			if q := &p.shares[j]; q.dir == d {
				if err := c.writeShare(p, q); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (c *scattering) writeShare(p *pendingSegment, q *pendingShare) error {
	name, b := symbolFileName(&q.ref), q.file
	if q.ref.Count == 0 {
		name, b = segmentName(p.x.id), p.ciphertext
	}
	_, err := q.dir.files.Put(c.s.ctx, name, bytes.NewReader(b))
	if errors.Is(err, fs.ErrExist) { // of another size, or never signed for
		if err = q.dir.files.Delete(c.s.ctx, name); err == nil {
			_, err = q.dir.files.Put(c.s.ctx, name, bytes.NewReader(b))
		}
	}
	return err
}

func (e *Engine) scatter(ctx context.Context, dirs []string, o ScatterOptions) (r ScatterResult, err error) {
	start := e.env.Now()
	raw, err := e.GenesisBytes()
	if err != nil {
		return r, err
	}
	s, unlock, err := openScatter(ctx, e.env, dirs, raw, &o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	m, err := newMinter(&e.env, e)
	if err != nil {
		return r, err
	}
	c := newScattering(s, m, &o, &r)
	defer func() { err = errors.Join(err, c.wait()) }()
	if o.DryRun {
		err = e.planScatter(c)
		c.settle()
		return r, err
	}
	var b BackupResult
	if b, err = e.BackupTo(ctx, &symbolStore{c: c}, strings.Join(dirs, ", "), BackupOptions{Trust: true}); err != nil {
		return r, err
	}
	r.Position = b.Position
	if err := s.finish(); err != nil {
		return r, err
	}
	c.settle()
	r.Elapsed = e.env.Now().Sub(start)
	return r, nil
}

func newScattering(s *shareSet, m minter, o *ScatterOptions, r *ScatterResult) *scattering {
	for _, d := range s.dirs {
		r.Dirs = append(r.Dirs, d.path)
	}
	r.Policy, r.Minter, r.Vouched = o.Policy, fcp.KidOf(m.key[:]), m.vouched
	return &scattering{s: s, targets: s.dirs, need: func(*indexed) int { return o.Policy.Need }, minter: m, dryRun: o.DryRun, r: r, progress: o.Progress}
}

// planScatter lists what the segments sealed so far would need.
func (e *Engine) planScatter(c *scattering) error {
	return e.log.Segments(func(g log.SegmentInfo) error {
		info, err := g.Card.Transmission()
		if err != nil {
			return err
		}
		c.s.index = append(c.s.index, indexed{g.Card.Segment, uint32(info.F), cardSum(g.CardBytes)})
		return c.add(&c.s.index[len(c.s.index)-1], nil, nil)
	})
}

// settle counts what is in the targets now.
func (c *scattering) settle() {
	s, r := c.s, c.r
	r.Segments = len(s.index)
	if s.m != nil {
		r.Seq, r.Manifest = s.m.Seq, s.hash
	}
	for i := range s.index {
		x := &s.index[i]
		r.Bytes += uint64(x.size)
		if symbols.Coded(x.size) {
			r.Coded++
		}
		for _, d := range c.targets {
			if n := d.whole[x.id]; n == int64(x.size) {
				r.Stored += uint64(n)
			}
			for _, h := range d.shares[x.id] {
				r.Stored += uint64(h.size)
			}
		}
	}
	r.Findings = s.sorted()
}
