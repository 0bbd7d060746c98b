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
	"fcp/authority"
	"fcp/engine/blob"
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

// openTargets locks directories that are to be written to, after refusing those
// that hold something else.
func openTargets(ctx context.Context, dirs []*shareDir, genesis fcp.Hash, of fcp.Hash) (unlock func() error, err error) {
	unlock = func() error {
		var err error
		for _, d := range dirs {
			if d.lock != nil {
				err = errors.Join(err, d.lock.Close())
				d.lock = nil
			}
		}
		return err
	}
	for _, d := range dirs {
		_, ours := d.small[backupGenesis]
		ours = ours && (!of.IsZero() || d.manifest > 0)
		switch {
		case d.foreign || ours && !of.IsZero() && of != genesis:
			return unlock, fcp.Errorf(fcp.CodeManifest, "%s holds symbols of another store", d.path).WithNext("name a directory of this store, or a new one")
		case !ours && d.there && !d.empty:
			return unlock, fcp.Errorf(fcp.CodeNotEmpty, "%s", d.path).WithNext("name a new directory, or a new one inside it")
		}
	}
	for _, d := range dirs {
		if d.lock, err = d.files.Lock(ctx); err != nil {
			return unlock, errors.Join(err, unlock())
		}
		d.there = true
	}
	return unlock, nil
}

// openScatter prepares directories for a store with this genesis checkpoint.
func openScatter(ctx context.Context, env Environment, dirs []string, raw []byte, o *ScatterOptions) (s *shareSet, unlock func() error, err error) {
	if !o.Policy.Valid() || o.Policy.Of != len(dirs) {
		return nil, nil, fcp.Errorf(fcp.CodeInvalidArgument, "policy %s for %d directories", o.Policy, len(dirs)).
			WithNext("give as many directories with --to as the policy counts")
	}
	if s, err = scanSet(ctx, env, dirs); err != nil {
		return nil, nil, err
	}
	var of fcp.Hash
	if s.genesis != nil {
		of = s.genesis.ID
	}
	if s.genesis, err = authority.VerifyGenesis(raw); err != nil {
		return nil, nil, err
	}
	s.raw = raw
	if o.DryRun {
		unlock = func() error { return nil }
	} else if unlock, err = openTargets(ctx, s.dirs, s.genesis.ID, of); err != nil {
		return nil, nil, err
	}
	err = s.findManifest(fcp.Hash{})
	if err == nil && s.m != nil {
		if err = s.findChain(); err == nil {
			err = s.oneChain()
		}
	}
	if err == nil {
		err = s.loadShares(s.dirs)
	}
	if err == nil && !o.DryRun {
		err = s.shareLedger()
	}
	if err != nil {
		return nil, nil, errors.Join(err, unlock())
	}
	return s, unlock, nil
}

// oneChain refuses directories whose backups do not continue each other: they were
// written by two copies of a store, or apart from each other.
func (s *shareSet) oneChain() error {
	for _, d := range s.dirs {
		if d.newest > 0 && fileHash(s.chain[d.newest]) != d.head {
			return fcp.Errorf(fcp.CodeManifest, "%s holds a backup %d that the other directories' backup %d does not continue", d.path, d.newest, s.m.Seq).
				WithNext("scatter to the directories of one series, or to new ones")
		}
	}
	return nil
}

// shareLedger makes each directory the store's by its genesis checkpoint, and gives
// it all share manifests that another one has.
func (s *shareSet) shareLedger() error {
	for _, d := range s.dirs {
		if err := d.giveLedger(s); err != nil {
			return err
		}
	}
	return nil
}

func (d *shareDir) giveLedger(s *shareSet) error {
	if _, err := d.putBytes(s.ctx, backupGenesis, s.raw); err != nil {
		return err
	}
	for name, b := range s.shares {
		if _, err := d.putBytes(s.ctx, name, b); err != nil {
			return err
		}
	}
	return nil
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

// finish reads the newest manifest back and gives every directory all small files.
func (s *shareSet) finish() error {
	s.m, s.chain = nil, map[uint64][]byte{}
	if err := s.findManifest(fcp.Hash{}); err != nil {
		return err
	}
	if s.m == nil {
		return fcp.Errorf(fcp.CodeInternal, "the manifest just written is not there")
	}
	if err := s.findChain(); err != nil {
		return err
	}
	b, err := s.small(indexName(s.m.Index.Hash), s.m.Index.Hash, s.m.Index.Size)
	if err == nil {
		s.index, err = decodeIndex(b)
	}
	for _, d := range s.dirs {
		if err == nil {
			_, err = s.syncTo(d)
		}
	}
	return err
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

// symbolStore is a set of directories as the blob store that a backup is written
// to: segments become shares, everything else is written to each directory. There
// is one writer.
type symbolStore struct {
	c     *scattering
	body  []byte // of a segment whose card comes next
	after fcp.SegmentID
}

func (t *symbolStore) Put(ctx context.Context, name string, r io.Reader) (int64, error) {
	if id, ok := unspread(name, segmentPrefix, ".seg"); ok {
		b, err := io.ReadAll(io.LimitReader(r, fcp.MaxSegment+1))
		t.body, t.after = b, id
		return int64(len(b)), err
	}
	if id, ok := unspread(name, cardPrefix, ".card"); ok {
		card, err := io.ReadAll(io.LimitReader(r, fcp.MaxCard+1))
		if err == nil && id != t.after {
			err = fcp.Errorf(fcp.CodeInternal, "the card of segment %s comes without its body", id)
		}
		if err == nil {
			body := t.body
			t.body = nil
			err = t.c.add(&indexed{id, uint32(len(body)), cardSum(card)}, card, func() ([]byte, error) { return body, nil })
		}
		return int64(len(card)), err
	}
	if err := t.c.finish(); err != nil { // the segments come first
		return 0, err
	}
	return t.putSmall(ctx, name, r)
}

// putSmall streams to the first directory and copies from there.
func (t *symbolStore) putSmall(ctx context.Context, name string, r io.Reader) (size int64, err error) {
	for i, d := range t.c.targets {
		if _, ok := d.small[name]; ok {
			if err := d.remove(ctx, name); err != nil {
				return 0, err
			}
		}
		if i > 0 {
			from, err := t.c.targets[0].files.Get(ctx, name)
			if err != nil {
				return 0, err
			}
			_, err = d.files.Put(ctx, name, from)
			if err = errors.Join(err, from.Close()); err != nil {
				return 0, err
			}
		} else if size, err = d.files.Put(ctx, name, r); err != nil {
			return 0, err
		}
		d.small[name] = size
	}
	return size, nil
}

func (t *symbolStore) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	for _, d := range t.c.targets {
		if _, ok := d.small[name]; !ok {
			continue
		}
		if q, ok := manifestSeq(name); ok && t.c.s.chain[q] != nil {
			return io.NopCloser(bytes.NewReader(t.c.s.chain[q])), nil
		}
		b, err := d.read(ctx, name, maxBackupManifest)
		if err == nil && (!strings.HasPrefix(name, backupIndexPrefix) || indexName(fileHash(b)) == name) {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
	}
	return nil, fcp.Errorf(fcp.CodeNotFound, "%s: %w", name, fs.ErrNotExist)
}

// Stat finds what every directory has.
func (t *symbolStore) Stat(_ context.Context, name string) (blob.Info, error) {
	size := int64(-1)
	for _, d := range t.c.targets {
		n, ok := d.small[name]
		if !ok || size >= 0 && n != size {
			return blob.Info{}, fcp.Errorf(fcp.CodeNotFound, "%s: %w", name, fs.ErrNotExist)
		}
		size = n
	}
	return blob.Info{Name: name, Size: size}, nil
}

// List lists the small files that any directory has, and as segments and cards
// those that every directory has its share of.
func (t *symbolStore) List(_ context.Context, prefix string, fn func(blob.Info) error) error {
	seen := map[string]int64{}
	s := t.c.s
	for _, d := range t.c.targets {
		for n, size := range d.small {
			if q, ok := manifestSeq(n); ok && s.chain[q] == nil {
				continue // one that does not verify
			}
			if strings.HasPrefix(n, prefix) && !strings.HasPrefix(n, sharePrefix) && !strings.HasPrefix(n, cardPrefix) {
				seen[n] = size
			}
		}
	}
	for _, card := range s.cards {
		if err := t.listSegment(card, prefix, seen); err != nil {
			return err
		}
	}
	names := make([]string, 0, len(seen))
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if err := fn(blob.Info{Name: n, Size: seen[n]}); err != nil {
			return err
		}
	}
	return nil
}

func (t *symbolStore) listSegment(card []byte, prefix string, seen map[string]int64) error {
	if prefix != segmentPrefix && prefix != cardPrefix {
		return nil
	}
	c, err := fcp.DecodeCard(card)
	if err != nil {
		return err
	}
	info, err := c.Transmission()
	if err != nil {
		return err
	}
	x := indexed{c.Segment, uint32(info.F), cardSum(card)}
	share := symbols.Policy{Need: t.c.need(&x), Of: len(t.c.targets)}.Share(info.Symbols())
	before := roaring.New()
	for _, d := range t.c.targets {
		held := t.c.s.settled(d, &x)
		held.AndNot(before)
		before.Or(held)
		if symbols.Coded(x.size) && int(held.GetCardinality()) < share || !symbols.Coded(x.size) && d.whole[x.id] != int64(x.size) {
			return nil
		}
	}
	if prefix == segmentPrefix {
		seen[segmentName(x.id)] = int64(x.size)
	} else {
		seen[cardName(x.id)] = int64(len(card))
	}
	return nil
}

// Delete removes a small file everywhere. A segment is never removed.
func (t *symbolStore) Delete(ctx context.Context, name string) error {
	if strings.HasPrefix(name, segmentPrefix) || strings.HasPrefix(name, cardPrefix) {
		return nil
	}
	found := false
	for _, d := range t.c.targets {
		if _, ok := d.small[name]; ok {
			found = true
			if err := d.remove(ctx, name); err != nil {
				return err
			}
		}
	}
	if !found {
		return fcp.Errorf(fcp.CodeNotFound, "%s: %w", name, fs.ErrNotExist)
	}
	return nil
}

var _ blob.Store = (*symbolStore)(nil)

func scatterBackup(ctx context.Context, backup string, dirs []string, env Environment, by *Engine, o ScatterOptions) (r ScatterResult, err error) {
	env.setDefaults()
	start := env.Now()
	ob, err := openBackup(ctx, blob.NewFiles(env.FS, backup), backup, 0, fcp.Hash{})
	if err != nil {
		return r, err
	}
	if err := sameStore(by, ob.genesis.ID); err != nil {
		return r, err
	}
	s, unlock, err := openScatter(ctx, env, dirs, ob.raw, &o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	m, err := newMinter(&env, by)
	if err != nil {
		return r, err
	}
	if s.m != nil && !continues(ob, s) {
		return r, fcp.Errorf(fcp.CodeManifest, "the directories hold backup %d, which the folder's backup %d does not continue", s.m.Seq, ob.m.Seq).
			WithNext("scatter the backup that is newer, or scatter to new directories")
	}
	c := newScattering(s, m, &o, &r)
	defer func() { err = errors.Join(err, c.wait()) }()
	c.total = ob.m.Bytes
	s.index = ob.index
	for i := range ob.index {
		x := &ob.index[i]
		if err := c.addFrom(ob, x); err != nil {
			return r, err
		}
	}
	if err := c.finish(); err != nil {
		return r, err
	}
	// The folder is one more directory that small files are copied from.
	from := newShareDir(env.FS, backup)
	if err := from.scan(ctx); err != nil {
		return r, err
	}
	s.m, s.chain = ob.m, map[uint64][]byte{}
	if s.mBytes, err = from.read(ctx, manifestName(ob.m.Seq), maxBackupManifest); err != nil {
		return r, err
	}
	s.hash = ob.hash
	s.dirs = append([]*shareDir{from}, c.targets...)
	if err := s.findChain(); err != nil {
		return r, err
	}
	if !o.DryRun {
		for _, d := range c.targets {
			if _, err := s.syncTo(d); err != nil {
				return r, err
			}
		}
	}
	c.settle()
	r.Elapsed = env.Now().Sub(start)
	return r, nil
}

// addFrom reads a segment of a backup folder.
func (c *scattering) addFrom(ob *openedBackup, x *indexed) error {
	card, err := blob.ReadAll(c.s.ctx, ob.s, cardName(x.id), fcp.MaxCard)
	if err == nil && cardSum(card) != x.card {
		err = fcp.Errorf(fcp.CodeChecksum, "%s", cardName(x.id))
	}
	if err != nil {
		return err
	}
	return c.add(x, card, func() ([]byte, error) {
		b, err := ob.segment(c.s.ctx, x)
		if err == nil {
			_, err = log.CheckCiphertext(card, b)
		}
		return b, err
	})
}

// sameStore refuses a minter of another store.
func sameStore(by *Engine, genesis fcp.Hash) error {
	if by != nil && by.genesis.ID != genesis {
		return fcp.Errorf(fcp.CodeManifest, "the store that would sign is another one").WithNext("leave --dir out, or name a store of the same owner and genesis")
	}
	return nil
}

// continues reports whether the folder's chain of manifests has the one in the
// directories.
func continues(ob *openedBackup, s *shareSet) bool {
	if ob.m.Seq < s.m.Seq {
		return false
	}
	b, err := blob.ReadAll(s.ctx, ob.s, manifestName(s.m.Seq), maxBackupManifest)
	return err == nil && fileHash(b) == s.hash
}
