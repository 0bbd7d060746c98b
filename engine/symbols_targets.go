package engine

import (
	"context"
	"errors"

	"fcp"
	"fcp/authority"
)

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
