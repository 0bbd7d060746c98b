package engine

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"fcp"
	"fcp/engine/blob"
)

func gatherSymbols(ctx context.Context, dirs []string, out string, o GatherOptions) (r GatherResult, err error) {
	o.setDefaults()
	start := o.Now()
	out = o.FS.PathJoin(out) // cleans it
	if err := checkTarget(o.FS, out); err != nil {
		return r, err
	}
	s, err := scanSet(ctx, o.Environment, dirs)
	if err != nil {
		return r, err
	}
	if err := s.load(o.Manifest); err != nil {
		return r, err
	}
	if _, err := s.lacking(); err != nil {
		return r, err
	}
	partial := out + partialSuffix
	if err := makePartial(o.FS, partial); err != nil {
		return r, err
	}
	r = GatherResult{Out: out, Seq: s.m.Seq, Manifest: s.hash, Owner: fcp.KidOf(s.genesis.Owner[:]), Segments: len(s.index), Bytes: s.m.Bytes}
	g := gathering{s: s, to: blob.NewFiles(o.FS, o.FS.PathJoin(partial, dirBuilt)), r: &r, progress: o.Progress}
	if err = g.write(); err == nil {
		err = moveIn(o.FS, partial, out)
	}
	if err != nil {
		return GatherResult{Findings: s.sorted()}, errors.Join(err, fcp.Wrap(fcp.CodeDisk, o.FS.RemoveAll(partial), "remove the unfinished backup"))
	}
	r.Findings, r.Elapsed = s.sorted(), o.Now().Sub(start)
	return r, nil
}

// gathering writes a backup folder from a set of directories.
type gathering struct {
	s        *shareSet
	to       *blob.Files
	r        *GatherResult
	progress func(Progress)

	mu   sync.Mutex
	done uint64 // guarded by mu
}

func (g *gathering) write() error {
	s := g.s
	if err := s.inParallel(len(s.index), g.segment); err != nil {
		return err
	}
	if err := g.put(backupGenesis, s.raw); err != nil {
		return err
	}
	for _, f := range s.smallFiles() {
		b, err := s.small(f.name, f.hash, f.size)
		if err == nil {
			err = g.put(f.name, b)
		}
		if err != nil {
			return err
		}
	}
	for _, q := range s.chainSeqs() {
		if err := g.put(manifestName(q), s.chain[q]); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) put(name string, b []byte) error {
	_, err := g.to.Put(g.s.ctx, name, bytes.NewReader(b))
	return err
}

func (g *gathering) segment(w *symbolWorker, i int) error {
	x := &g.s.index[i]
	ciphertext, coded, err := w.rebuild(x)
	if err != nil {
		return advise(err)
	}
	card, _, err := g.s.card(x)
	if err == nil {
		err = g.put(segmentName(x.id), ciphertext)
	}
	if err == nil {
		err = g.put(cardName(x.id), card)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if coded {
		g.r.Coded++
	}
	g.done += uint64(x.size)
	if g.progress != nil {
		g.progress(Progress{Stage: "rebuild", Done: g.done, Total: g.s.m.Bytes})
	}
	return err
}

// advise tells a person how to find more symbols.
func advise(err error) error {
	var e *fcp.Error
	if errors.As(err, &e) && e.Code == fcp.CodeNotEnough && e.Next == "" {
		return e.WithNext("add more directories with --from; `fcpctl segment coverage` shows what each holds")
	}
	return err
}
