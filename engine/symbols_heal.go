package engine

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"fcp"
)

func healSymbols(ctx context.Context, dirs []string, to string, o HealOptions) (r ScatterResult, err error) {
	o.setDefaults()
	start := o.Now()
	if err := checkDirs(append(slices.Clone(dirs), to)); err != nil {
		return r, err
	}
	s, err := scanSet(ctx, o.Environment, dirs)
	if err != nil {
		return r, err
	}
	if err := s.load(o.Manifest); err != nil {
		return r, err
	}
	if err := sameStore(o.Minter, s.genesis.ID); err != nil {
		return r, err
	}
	if _, err := s.lacking(); err != nil {
		return r, err
	}
	target := newShareDir(o.FS, to)
	if err := target.scan(ctx); err != nil {
		return r, err
	}
	var of fcp.Hash
	if _, ok := target.small[backupGenesis]; ok { // an interrupted heal goes on
		b, err := target.read(ctx, backupGenesis, int64(len(s.raw)))
		if of = s.genesis.ID; err != nil || !bytes.Equal(b, s.raw) {
			of = fcp.Hash{1}
		}
	}
	unlock := func() error { return nil }
	if !o.DryRun {
		if unlock, err = openTargets(ctx, []*shareDir{target}, s.genesis.ID, of); err != nil {
			return r, err
		}
		defer func() { err = errors.Join(err, unlock()) }()
		defer func() { err = errors.Join(err, s.unlockRecord()) }()
		s.lockRecord()
		if err = s.loadShares([]*shareDir{target}); err != nil {
			return r, err
		}
		// What it was allotted when it was interrupted is known from the other directories.
		if err = target.giveLedger(s); err != nil {
			return r, err
		}
	}
	m, err := newMinter(&o.Environment, o.Minter)
	if err != nil {
		return r, err
	}
	r.Dirs, r.Minter, r.Vouched = []string{to}, fcp.KidOf(m.key[:]), m.vouched
	c := &scattering{s: s, targets: []*shareDir{target}, record: s.dirs, need: func(x *indexed) int { return s.needOf(x, o.Need) }, minter: m,
		dryRun: o.DryRun, r: &r, progress: o.Progress, total: s.m.Bytes}
	defer func() { err = errors.Join(err, c.wait()) }()
	w := &symbolWorker{s: s}
	for i := range s.index {
		x := &s.index[i]
		card, _, err := s.card(x)
		if err == nil {
			err = c.add(x, card, func() ([]byte, error) {
				b, _, err := w.rebuild(x)
				return bytes.Clone(b), err
			})
		}
		if err != nil {
			return r, advise(err)
		}
	}
	if err := c.finish(); err != nil {
		return r, err
	}
	if !o.DryRun {
		if _, err := s.syncTo(target); err != nil {
			return r, err
		}
	}
	c.settle()
	r.Elapsed = o.Now().Sub(start)
	return r, nil
}

// needOf is how many directories a new share is sized for: what was asked for, else
// what known minters did, else what anybody did.
func (s *shareSet) needOf(x *indexed, asked int) int {
	if asked > 0 {
		return asked
	}
	known, any := 0, 0
	for _, a := range s.ranges[x.id] {
		if a.vouched && (known == 0 || a.need < known) {
			known = a.need
		}
		if any == 0 || a.need < any {
			any = a.need
		}
	}
	if known > 0 {
		return known
	}
	return max(any, 1)
}

// lockRecord takes the directories in which a heal records what it allots. That one
// cannot be written to is said and does no harm, as long as the next heal sees the
// new directory.
func (s *shareSet) lockRecord() {
	for _, d := range s.dirs {
		if !d.there || d.foreign || d.empty {
			continue
		}
		var err error
		if d.lock, err = d.files.Lock(s.ctx); err != nil {
			d.lock = nil
			s.find(SymbolFinding{Code: fcp.CodeOf(err), Dir: d.path, What: "what is allotted cannot be recorded here: " + err.Error()})
		}
	}
}

func (s *shareSet) unlockRecord() (err error) {
	for _, d := range s.dirs {
		if d.lock != nil {
			err = errors.Join(err, d.lock.Close())
			d.lock = nil
		}
	}
	return err
}
