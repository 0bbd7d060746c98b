package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/blob"
	"fcp/engine/symbols"
	"fcp/log"
)

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
