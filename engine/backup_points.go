package engine

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
)

// A restore point is a manifest whose key table is in the backup: a backup removes
// the key tables of the points that it does not keep, and the rest of what only
// they need behind them (docs/format.md "Restore points").

// RestorePoint is a state that a backup can be restored to.
type RestorePoint struct {
	Seq       uint64
	Manifest  fcp.Hash
	Created   time.Time
	Writer    fcp.WriterID // who wrote it
	Events    uint64
	Segments  uint64
	Bytes     uint64 // of ciphertext in segments
	StateRoot fcp.Hash
}

// RestorePoints lists the restore points of a backup, newest first, after checking
// their manifests. Errors: CodeNotFound when there is no backup, those of class
// Corrupt, CodeDisk, CodeTimeout, CodeInterrupted.
func RestorePoints(ctx context.Context, s blob.Store, where string) ([]RestorePoint, error) {
	o := &openedBackup{s: s}
	if err := o.readGenesis(ctx); err != nil {
		if seq, lerr := newestManifest(ctx, s); lerr == nil && seq == 0 {
			return nil, errNoBackup(where)
		}
		return nil, err
	}
	points, err := readPoints(ctx, s, o.genesis, 0)
	if err != nil {
		return nil, err
	}
	out := make([]RestorePoint, len(points))
	for i := range points {
		m := points[i].m
		out[i] = RestorePoint{Seq: m.Seq, Manifest: points[i].hash, Created: m.created(), Writer: m.writer(), Events: m.Events, Segments: m.Segments,
			Bytes: m.Bytes, StateRoot: m.StateRoot}
	}
	return out, nil
}

func errNoBackup(where string) error {
	return fcp.Errorf(fcp.CodeNotFound, "there is no backup in %s", where).WithNext("name the folder that `fcpctl backup create` wrote to")
}

// PruneOptions configures PruneBackup.
type PruneOptions struct {
	Keep   int       // newest restore points that stay; at least 1
	Since  time.Time // points written at or after it stay too; zero: none
	DryRun bool      // only say what would go
}

// PruneResult says what PruneBackup removed, or would remove.
type PruneResult struct {
	Kept    []uint64 // restore points that stay, newest first
	Dropped []uint64 // and those that go
	Files   []string // removed, in this order
	Bytes   uint64   // in them
}

// PruneBackup removes the restore points behind those to keep, with what only they
// need. The manifests stay: they are the chain that proves the newest one. The
// newest point always stays. Errors: CodeInvalidArgument, CodeNotFound when there
// is no backup, CodeLocked, those of class Corrupt for a damaged backup, CodeDisk.
func PruneBackup(ctx context.Context, s blob.Store, where string, o PruneOptions) (r PruneResult, err error) {
	if o.Keep < 1 {
		return r, fcp.Errorf(fcp.CodeInvalidArgument, "at least one restore point stays, not %d", o.Keep)
	}
	if !o.DryRun {
		unlock, err := lockStore(ctx, s)
		if err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	seq, err := newestManifest(ctx, s)
	if err != nil {
		return r, err
	}
	if seq == 0 {
		return r, errNoBackup(where)
	}
	b := openedBackup{s: s}
	if err := b.readGenesis(ctx); err != nil {
		return r, err
	}
	p, err := planPrune(ctx, s, b.genesis, nil, o.Keep, o.Since)
	if err != nil {
		return r, err
	}
	for _, x := range p.kept {
		r.Kept = append(r.Kept, x.m.Seq)
	}
	r.Dropped, r.Files, r.Bytes = p.dropped, p.files, p.bytes
	if o.DryRun {
		return r, nil
	}
	return r, p.carryOut(ctx, s)
}

// lockStore takes a store that can be taken.
func lockStore(ctx context.Context, s blob.Store) (unlock func() error, err error) {
	l, ok := s.(blob.Locker)
	if !ok {
		return func() error { return nil }, nil
	}
	held, err := l.Lock(ctx)
	if err != nil {
		return nil, err
	}
	return held.Close, nil
}

// hasPoint reports whether the key table of a manifest is there.
func hasPoint(ctx context.Context, s blob.Store, seq uint64) (bool, error) {
	_, err := s.Stat(ctx, keyTableName(seq))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

type olderPoint struct {
	m     *backupManifest
	hash  fcp.Hash
	index []indexed
}

// keyTables lists the numbers of the key tables there, descending.
func keyTables(ctx context.Context, s blob.Store) (seqs []uint64, err error) {
	err = s.List(ctx, keyTablePrefix, func(i blob.Info) error {
		if n, ok := keyTableNumber(i.Name); ok {
			seqs = append(seqs, n)
		}
		return nil
	})
	slices.SortFunc(seqs, func(a, b uint64) int { return cmp.Compare(b, a) })
	return seqs, err
}

// readPoints reads the manifests of the restore points, newest first; at most
// limit unless that is 0.
func readPoints(ctx context.Context, s blob.Store, g *authority.GenesisFacts, limit int) (points []olderPoint, err error) {
	seqs, err := keyTables(ctx, s)
	if err != nil {
		return nil, err
	}
	newest, err := newestManifest(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, seq := range seqs {
		if seq > newest {
			continue // of a backup that was interrupted
		}
		if limit > 0 && len(points) == limit {
			break
		}
		m, hash, err := readManifest(ctx, s, seq)
		if err == nil {
			err = m.authorised(g)
		}
		if err != nil {
			return nil, err
		}
		points = append(points, olderPoint{m: m, hash: hash})
	}
	return points, nil
}

// prune is what is removed from a backup.
type prune struct {
	kept    []olderPoint // newest first
	dropped []uint64
	keep    map[string]bool
	files   []string // in the order of removal
	listed  map[string]bool
	bytes   uint64
	removed int
}

// planPrune finds what the newest restore points do not need: everything in the
// folders of key tables, tails and indexes, and of segments those that only points
// which go list. A segment that no point lists stays: the store knows more of it.
// written, unless nil, is the newest point as it was just written by a store that
// knows itself which segments were replaced: no other is read then than those that stay.
func planPrune(ctx context.Context, s blob.Store, g *authority.GenesisFacts, written *olderPoint, keep int, since time.Time) (*prune, error) {
	var points []olderPoint
	var err error
	if written == nil || keep > 1 {
		limit := 0
		if written != nil {
			limit = keep
		}
		if points, err = readPoints(ctx, s, g, limit); err != nil {
			return nil, err
		}
	}
	if written != nil {
		points = slices.DeleteFunc(points, func(x olderPoint) bool { return x.m.Seq >= written.m.Seq })
		points = slices.Insert(points, 0, *written)[:min(keep, len(points)+1)]
	}
	p := &prune{keep: map[string]bool{}, listed: map[string]bool{}}
	var gone []olderPoint
	for _, x := range points {
		if len(p.kept) >= keep && (since.IsZero() || x.m.created().Before(since)) {
			gone = append(gone, x)
			p.dropped = append(p.dropped, x.m.Seq)
			continue
		}
		if written != nil && x.m.Seq == written.m.Seq {
			x.index = written.index
		} else if x.index, err = readIndex(ctx, s, x.m); err != nil {
			return nil, err
		}
		p.kept = append(p.kept, x)
		p.keep[keyTableName(x.m.KeyTable.Number)], p.keep[indexName(x.m.Index.Hash)] = true, true
		for i := range x.m.Tail {
			p.keep[tailName(x.m.Tail[i].Hash)] = true
		}
		for i := range x.index {
			p.keep[segmentName(x.index[i].id)], p.keep[cardName(x.index[i].id)] = true, true
		}
	}
	old := map[fcp.SegmentID]bool{}
	for _, x := range gone {
		index, err := readIndex(ctx, s, x.m)
		if err != nil {
			continue // gone already, or damaged: what it listed is found by the store's next backup
		}
		for i := range index {
			old[index[i].id] = true
		}
	}
	for _, prefix := range []string{keyTablePrefix, tailPrefix, backupIndexPrefix, segmentPrefix, cardPrefix} {
		if (prefix == segmentPrefix || prefix == cardPrefix) && len(old) == 0 {
			continue
		}
		err := s.List(ctx, prefix, func(i blob.Info) error {
			switch prefix {
			case segmentPrefix, cardPrefix:
				id, ok := unspread(i.Name, segmentPrefix, ".seg")
				if !ok {
					id, ok = unspread(i.Name, cardPrefix, ".card")
				}
				if !ok || !old[id] {
					return nil
				}
			default:
				if blob.CheckName(i.Name) != nil {
					return nil
				}
			}
			p.drop(i.Name, i.Size)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// drop adds a file unless a restore point that stays needs it.
func (p *prune) drop(name string, size int64) {
	if p.keep[name] || p.listed[name] {
		return
	}
	p.listed[name] = true
	p.files = append(p.files, name)
	p.bytes += uint64(size)
}

// carryOut removes the files; key tables come first, so that an interrupted one
// leaves no restore point that lacks something.
func (p *prune) carryOut(ctx context.Context, s blob.Store) error {
	for _, name := range p.files {
		if err := s.Delete(ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		p.removed++
	}
	return nil
}

// olderPoints reads what the restore points behind the newest list and the newest
// does not. What is wrong there does not keep the newest from being replayed.
func (v *backupVerifier) olderPoints() error {
	damaged := v.damaged
	defer func() { v.damaged = damaged }()
	seen := map[string]bool{indexName(v.ob.m.Index.Hash): true}
	for i := range v.ob.m.Tail {
		seen[tailName(v.ob.m.Tail[i].Hash)] = true
	}
	for i := range v.ob.index {
		seen[segmentName(v.ob.index[i].id)] = true
	}
	for i := range v.older {
		if err := v.olderPoint(&v.older[i], seen); err != nil {
			return err
		}
		v.r.Points++
	}
	return nil
}

func (v *backupVerifier) olderPoint(p *olderPoint, seen map[string]bool) error {
	o := openedBackup{s: v.s, m: p.m, genesis: v.ob.genesis}
	var err error
	p.index, err = readIndex(v.ctx, v.s, p.m)
	if err := v.found(indexName(p.m.Index.Hash), err); err != nil {
		return err
	}
	v.read(int(p.m.Index.Size))
	err = o.keyTable(v.ctx, nil)
	if err := v.found(keyTableName(p.m.KeyTable.Number), err); err != nil {
		return err
	}
	v.read(int(p.m.KeyTable.Size))
	for i := range p.m.Tail {
		t := &p.m.Tail[i]
		name := tailName(t.Hash)
		if seen[name] {
			continue
		}
		seen[name] = true
		b, err := readHashed(v.ctx, v.s, name, t.Hash, t.Size)
		v.read(len(b))
		if err := v.found(name, err); err != nil {
			return err
		}
	}
	for i := range p.index {
		x := &p.index[i]
		if name := segmentName(x.id); !seen[name] {
			seen[name] = true
			if err := v.oneSegment(x); err != nil {
				return err
			}
		}
	}
	return nil
}
