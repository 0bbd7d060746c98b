package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
)

// symbolsDemo is what the steps of the symbols part share.
type symbolsDemo struct {
	*demo
	store, identity string
	dirs            []string // the five, later those that are left
	digests         map[string]string
	manifest        string
	segments        int
	gathers         int
}

func (d *demo) symbols() error {
	at := filepath.Join(d.dir, "symbols")
	s := &symbolsDemo{demo: d, store: filepath.Join(at, "store"), identity: filepath.Join(at, "identity")}
	for i := range 5 {
		s.dirs = append(s.dirs, filepath.Join(at, fmt.Sprintf("stick%d", i+1)))
	}
	if err := os.MkdirAll(at, 0o700); err != nil {
		return inputError(err, "a temporary directory")
	}
	steps := []struct {
		title, proves string
		fn            func(*stepView) error
	}{
		{"put a tree of real files and seal it", "sealed segments are the unit that symbols are made of", s.fill},
		{"scatter to five directories, any 2 enough", "every directory holds about half of the ciphertext, none of it readable", s.scatter},
		{"scatter again after a change", "what is there is not written again", s.again},
		{"lose two directories, damage a third", "damage is found symbol by symbol, and the file is named", s.damage},
		{"gather from what is left, restore, compare", "two whole directories and a damaged one give back every bit", s.gather},
		{"heal onto a new directory, without any key", "new symbols are minted from the ciphertext alone", s.heal},
		{"lose two more, gather from the healed one and one more", "a healed directory is worth as much as a first one", s.gatherHealed},
		{"gather from one directory alone", "too little is said to be too little, and how much is missing", s.tooFew},
	}
	for _, step := range steps {
		if err := d.step(step.title, step.proves, step.fn); err != nil {
			return err
		}
	}
	return nil
}

func (s *symbolsDemo) on(args ...string) []string { return append([]string{"--dir", s.store}, args...) }

// with repeats a flag for each directory.
func with(flag string, dirs []string) (out []string) {
	for _, d := range dirs {
		out = append(out, flag, d)
	}
	return out
}

func (s *symbolsDemo) fill(v *stepView) error {
	if _, err := s.must(v, "", s.on("init", "--identity", s.identity, "--no-passphrase")...); err != nil {
		return err
	}
	input, err := s.a.demoInput(s.ctx, s.opts.input, filepath.Join(s.dir, "symbols"))
	if err != nil {
		return err
	}
	var size int64
	if s.digests, size, err = treeDigests(input); err != nil {
		return err
	}
	if _, err := s.must(v, "", s.on("object", "put", "-r", "src/net", input, "-o", "name")...); err != nil {
		return err
	}
	o, err := s.must(v, "", s.on("segment", "seal", "-o", "name")...)
	if err != nil {
		return err
	}
	v.fact("  %d files, %.1f MB, %d segments", len(s.digests), float64(size)/1e6, strings.Count(string(o.stdout), "\n"))
	return nil
}

func (s *symbolsDemo) scatterNow(v *stepView) (r scatterView, err error) {
	o, err := s.must(v, "", s.on(append(append([]string{"segment", "scatter", "--policy", "any-2-of-5"}, with("--to", s.dirs)...), "-o", "json")...)...)
	if err != nil {
		return r, err
	}
	err = o.decode(&r)
	v.fact("  %d segments, %d new shares, %d new symbols; stored %.2f times the ciphertext", r.Segments, r.Shares, r.Symbols, float64(r.Stored)/float64(max(r.Bytes, 1)))
	return r, err
}

func (s *symbolsDemo) scatter(v *stepView) error {
	r, err := s.scatterNow(v)
	if err != nil {
		return err
	}
	if r.Shares != 5*r.Segments || !r.Vouched {
		return broken("%d shares of %d segments", r.Shares, r.Segments)
	}
	c, o, err := s.coverage(v, s.dirs)
	if err != nil {
		return err
	}
	if err := o.want(exitOK); err != nil {
		return err
	}
	if !c.Rebuilds || c.MayLose != 3 {
		return broken("any %d of the directories may be lost, the policy promises 3", c.MayLose)
	}
	return nil
}

// coverage runs the command and says what came out.
func (s *symbolsDemo) coverage(v *stepView, dirs []string) (c coverageView, o outcome, err error) {
	o = s.fcpctl("", append(append([]string{"segment", "coverage"}, with("--from", dirs)...), "-o", "json")...)
	v.fact("$ %s", o.line)
	if err := o.decode(&c); err != nil {
		return c, o, err
	}
	v.fact("  %s", rebuildsText(c.Rebuilds, c.MayLose, len(c.Dirs)))
	return c, o, nil
}

func (s *symbolsDemo) again(v *stepView) error {
	if _, err := s.must(v, "remember this\n", s.on("object", "put", "notes/today", "-")...); err != nil {
		return err
	}
	r, err := s.scatterNow(v)
	if err != nil {
		return err
	}
	if r.Shares == 0 || r.Shares >= 5*r.Segments {
		return broken("%d shares of %d segments were written again", r.Shares, r.Segments)
	}
	s.manifest, s.segments = r.Manifest, r.Segments
	return nil
}

func (s *symbolsDemo) damage(v *stepView) error {
	for _, i := range []int{0, 3} {
		if err := os.RemoveAll(s.dirs[i]); err != nil {
			return broken("lose a directory: %w", err)
		}
		v.fact("$ rm -r $D/symbols/stick%d", i+1)
	}
	s.dirs = []string{s.dirs[1], s.dirs[2], s.dirs[4]}
	name, err := largestFile(s.dirs[0], "*.sym")
	if err != nil {
		return broken("find a share: %w", err)
	}
	flips, err := flipSymbols(name)
	if err != nil {
		return broken("damage a share: %w", err)
	}
	v.fact("%d symbols damaged in %s", flips, strings.ReplaceAll(name, s.dir, "$D"))
	c, o, err := s.coverage(v, s.dirs)
	if err != nil {
		return err
	}
	if err := o.want(exitFindings); err != nil {
		return err
	}
	for i := range c.Findings {
		if f := &c.Findings[i]; f.Damaged == flips && filepath.Base(f.File) == filepath.Base(name) {
			v.fact("  %s: %s (exit code %d)", f.Code, f.What, o.exit)
			return nil
		}
	}
	return broken("no finding names %s", name)
}

// flipSymbols flips one bit in each of the last symbols of a share.
func flipSymbols(name string) (flips int, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for at := len(b) - 1; at > len(b)/2 && flips < 10; at -= 1024 {
		b[at] ^= 0x40
		flips++
	}
	return flips, os.WriteFile(name, b, 0o600)
}

func (s *symbolsDemo) gather(v *stepView) error { return s.gatherFrom(v, s.dirs) }

// gatherFrom rebuilds a backup, restores it and compares all files.
func (s *symbolsDemo) gatherFrom(v *stepView, dirs []string) error {
	s.gathers++
	at := filepath.Join(s.dir, "symbols", fmt.Sprintf("pass%d", s.gathers))
	out, fresh, files := filepath.Join(at, "backup"), filepath.Join(at, "store"), filepath.Join(at, "files")
	if err := os.MkdirAll(at, 0o700); err != nil {
		return inputError(err, "a temporary directory")
	}
	o, err := s.must(v, "", append(append([]string{"segment", "gather"}, with("--from", dirs)...), "--out", out, "-o", "json")...)
	if err != nil {
		return err
	}
	var g gatherView
	if err := o.decode(&g); err != nil {
		return err
	}
	if g.Manifest != s.manifest || g.Segments != s.segments {
		return broken("the backup gathered is not the one scattered")
	}
	v.fact("  %d of %d segments from symbols, %d bytes; damage met on the way: %d", g.Coded, g.Segments, g.Bytes, len(g.Findings))
	if _, err := s.must(v, "", "backup", "verify", out); err != nil {
		return err
	}
	if _, err := s.must(v, "", "--dir", fresh, "restore", out, "--identity", s.identity); err != nil {
		return err
	}
	if _, err := s.must(v, "", "--dir", fresh, "object", "get", "-r", "src/net", files); err != nil {
		return err
	}
	digests, _, err := treeDigests(files)
	if err != nil {
		return err
	}
	if !maps.Equal(digests, s.digests) {
		return broken("the restored files are not those that were put")
	}
	v.fact("  %d of %d files have the same SHA-256", len(digests), len(s.digests))
	return nil
}

func (s *symbolsDemo) heal(v *stepView) error {
	fresh := filepath.Join(s.dir, "symbols", "stick6")
	o, err := s.must(v, "", append(append([]string{"segment", "heal"}, with("--from", s.dirs)...), "--to", fresh, "-o", "json")...)
	if err != nil {
		return err
	}
	var r scatterView
	if err := o.decode(&r); err != nil {
		return err
	}
	if r.Vouched || r.Shares != s.segments {
		return broken("%d shares of %d segments, vouched for: %v", r.Shares, s.segments, r.Vouched)
	}
	v.fact("  %d shares, %d new symbols, signed by %s, which nobody vouches for", r.Shares, r.Symbols, r.Minter)
	s.dirs = append(s.dirs, fresh)
	return nil
}

func (s *symbolsDemo) gatherHealed(v *stepView) error {
	for _, d := range s.dirs[:2] {
		if err := os.RemoveAll(d); err != nil {
			return broken("lose a directory: %w", err)
		}
		v.fact("$ rm -r %s", strings.ReplaceAll(d, s.dir, "$D"))
	}
	s.dirs = s.dirs[2:]
	return s.gatherFrom(v, s.dirs)
}

func (s *symbolsDemo) tooFew(v *stepView) error {
	o := s.fcpctl("", "segment", "gather", "--from", s.dirs[0], "--out", filepath.Join(s.dir, "symbols", "never"))
	v.fact("$ %s", o.line)
	for line := range strings.Lines(strings.TrimSpace(string(o.stderr))) {
		v.fact("  %s", strings.ReplaceAll(strings.TrimRight(line, "\n"), s.dir, "$D"))
	}
	v.fact("  exit code %d", o.exit)
	return o.want(exitNotHere)
}
