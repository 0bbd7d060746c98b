package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// storageDemo is what the steps of the storage part share.
type storageDemo struct {
	*demo
	store, identity, backup string

	input   string
	digests map[string]string
	acked   map[string]string // key -> version, acknowledged before the kill
	first   uint64            // position of the note's first version
	root    string            // state root in the backup
}

func (d *demo) storage() error {
	s := &storageDemo{demo: d, store: filepath.Join(d.dir, "store"), identity: filepath.Join(d.dir, "identity"), backup: filepath.Join(d.dir, "backup")}
	steps := []struct {
		title, proves string
		fn            func(*stepView) error
	}{
		{"make a store", "it works alone: no account, no daemon, no configuration", s.make},
		{"put a tree of real files", "every file is acknowledged only once it is on disk", s.putTree},
		{"write a note twice, then once more on a stale version", "a lost update is refused, with exit code 8 and a way forward", s.conflict},
		{"read the past", "nothing is written over; every moment can be read again", s.past},
		{"look at the log", "all of it is one append-only log", s.tail},
		{"seal and verify", "each hash, chain, Merkle tree, segment and body is what was written", s.seal},
		{"kill -9 a writer under load", "an acknowledged event survives, whatever happens to the process", s.kill},
		{"fold the whole log again", "state is nothing but the log: its root is reproduced from zero", s.replay},
		{"back up, twice", "a backup is incremental, and can be checked without any key", s.backUp},
		{"flip one byte in a copy of the backup", "damage is found, and the file is named", s.flip},
		{"wipe everything and restore", "a folder and the identity file bring all of it back, bit for bit", s.restore},
	}
	for _, step := range steps {
		if err := d.step(step.title, step.proves, step.fn); err != nil {
			return err
		}
	}
	return nil
}

// on is a command line on the demo's store.
func (s *storageDemo) on(args ...string) []string { return append([]string{"--dir", s.store}, args...) }

func (s *storageDemo) make(v *stepView) error {
	_, err := s.must(v, "", s.on("init", "--identity", s.identity, "--no-passphrase")...)
	return err
}

func (s *storageDemo) putTree(v *stepView) (err error) {
	if s.input, err = s.a.demoInput(s.ctx, s.opts.input, s.dir); err != nil {
		return err
	}
	var size int64
	if s.digests, size, err = treeDigests(s.input); err != nil {
		return err
	}
	start := s.a.now()
	o, err := s.must(v, "", s.on("object", "put", "-r", "src/net", s.input, "-o", "name")...)
	if err != nil {
		return err
	}
	spent := s.a.now().Sub(start)
	if n := bytes.Count(o.stdout, []byte("\n")); n != len(s.digests) {
		return broken("%d files were put, the tree has %d", n, len(s.digests))
	}
	v.fact("%d files, %.1f MB, in %.2f s", len(s.digests), float64(size)/1e6, spent.Seconds())
	return nil
}

func (s *storageDemo) conflict(v *stepView) error {
	o, err := s.must(v, "the first thought\n", s.on("object", "put", "notes/today", "-", "-o", "json")...)
	if err != nil {
		return err
	}
	var put putView
	if err := o.decode(&put); err != nil {
		return err
	}
	s.first = put.Position
	if _, err := s.must(v, "the second thought\n", s.on("object", "put", "notes/today", "-", "--expect", "1")...); err != nil {
		return err
	}
	stale := s.fcpctl("a thought that knew only the first\n", s.on("object", "put", "notes/today", "-", "--expect", "1")...)
	v.fact("$ %s", stale.line)
	for line := range strings.Lines(strings.TrimSpace(string(stale.stderr))) {
		v.fact("  %s", strings.ReplaceAll(strings.TrimRight(line, "\n"), s.dir, "$D"))
	}
	v.fact("  exit code %d", stale.exit)
	return stale.want(exitConflict)
}

func (s *storageDemo) past(v *stepView) error {
	for _, c := range []struct {
		at   []string
		want string
	}{{nil, "the second thought\n"}, {[]string{"--at", decimal(s.first)}, "the first thought\n"}} {
		o, err := s.must(v, "", s.on(append([]string{"object", "get", "notes/today"}, c.at...)...)...)
		if err != nil {
			return err
		}
		if string(o.stdout) != c.want {
			return broken("read %q, written was %q", o.stdout, c.want)
		}
		v.fact("  %s", strings.TrimSpace(c.want))
	}
	return nil
}

func (s *storageDemo) tail(v *stepView) error {
	o, err := s.must(v, "", s.on("log", "tail", "-n", "3")...)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(o.stdout)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(cells) != 10 {
			return broken("a line of the log has %d cells", len(cells))
		}
		v.fact("  %s  %s  %s  %-12s  %s  %.16s", cells[0], cells[2], cells[3], cells[5], cells[8], cells[9])
	}
	return nil
}

func (s *storageDemo) seal(v *stepView) error {
	o, err := s.must(v, "", s.on("segment", "seal", "-o", "name")...)
	if err != nil {
		return err
	}
	v.fact("  %d segments sealed", bytes.Count(o.stdout, []byte("\n")))
	if o, err = s.must(v, "", s.on("verify", "-o", "json")...); err != nil {
		return err
	}
	var report verifyView
	if err := o.decode(&report); err != nil {
		return err
	}
	v.fact("  %d events, %d segments, %d bodies: nothing is wrong", report.Events, report.Segments, report.Bodies)
	return nil
}

// enoughAcks is how many acknowledged writes the demo waits for before the kill.
const enoughAcks = 400

func (s *storageDemo) kill(v *stepView) error {
	cmd, err := s.a.again(s.ctx, s.on("demo-load")...)
	if err != nil {
		return broken("start another process: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return broken("start another process: %w", err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return broken("start another process: %w", err)
	}
	stuck := time.AfterFunc(eventually, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	s.acked = map[string]string{}
	killed := false
	lines := bufio.NewScanner(out) // to the end: what was acknowledged before the kill counts
	for lines.Scan() {
		key, version, ok := strings.Cut(lines.Text(), "\t")
		if !ok || len(version) != 64 {
			break // the line the kill cut off was never an acknowledgement
		}
		s.acked[key] = version
		if len(s.acked) == enoughAcks {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				return broken("kill: %w", err)
			}
		}
	}
	waitErr := cmd.Wait()
	if s.ctx.Err() != nil {
		return interrupted()
	}
	if !killed {
		return broken("the writer ended by itself after %d writes: %v: %s", len(s.acked), waitErr, strings.TrimSpace(said.String()))
	}
	v.fact("process %d: %d writes acknowledged, then SIGKILL (%v)", cmd.Process.Pid, len(s.acked), waitErr)
	o, err := s.must(v, "", s.on("object", "ls", "load/", "-o", "ndjson")...)
	if err != nil {
		return err
	}
	return s.checkAcked(v, &o)
}

// checkAcked compares what was acknowledged with what is there.
func (s *storageDemo) checkAcked(v *stepView, o *outcome) error {
	there := map[string]string{}
	for line := range bytes.Lines(o.stdout) {
		var e versionView
		if err := (&outcome{line: o.line, stdout: line}).decode(&e); err != nil {
			return err
		}
		there[e.Key] = e.Hash
	}
	for key, version := range s.acked {
		if there[key] != version {
			return broken("acknowledged %s is lost", key)
		}
	}
	v.fact("  reopened: %d of %d acknowledged writes are there, 0 lost", len(s.acked), len(s.acked))
	return nil
}

func (s *storageDemo) replay(v *stepView) error {
	o, err := s.must(v, "", s.on("replay", "--verify", "-o", "json")...)
	if err != nil {
		return err
	}
	var r replayView
	if err := o.decode(&r); err != nil {
		return err
	}
	if !r.Identical {
		return broken("the state roots differ")
	}
	v.fact("  %d events, state root %.16s IDENTICAL", r.Events, r.Root)
	return nil
}

func (s *storageDemo) backUp(v *stepView) error {
	var b [2]backupView
	for i := range b {
		o, err := s.must(v, "", s.on("backup", "create", s.backup, "-o", "json")...)
		if err != nil {
			return err
		}
		if err := o.decode(&b[i]); err != nil {
			return err
		}
		v.fact("  %d segments, %d new, %d bytes written", b[i].Segments, b[i].NewSegments, b[i].Written)
		if i == 0 {
			if _, err := s.must(v, "a third thought\n", s.on("object", "put", "notes/today", "-")...); err != nil {
				return err
			}
		}
	}
	if b[0].NewSegments == 0 || b[1].NewSegments >= b[0].NewSegments || b[1].Written >= b[0].Written {
		return broken("the second backup is not incremental")
	}
	s.root = b[1].StateRoot
	o, err := s.must(v, "", "backup", "verify", s.backup, "-o", "json")
	if err != nil {
		return err
	}
	var r backupReportView
	if err := o.decode(&r); err != nil {
		return err
	}
	v.fact("  %d files, %d bytes, without a key: nothing is wrong", r.Files, r.Bytes)
	return nil
}

func (s *storageDemo) flip(v *stepView) error {
	copied := filepath.Join(s.dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(s.backup)); err != nil {
		return broken("copy the backup: %w", err)
	}
	name, err := flipLargest(copied)
	if err != nil {
		return broken("flip a byte: %w", err)
	}
	o := s.fcpctl("", "backup", "verify", copied, "-o", "json")
	v.fact("$ %s", o.line)
	if err := o.want(exitIntegrity); err != nil {
		return err
	}
	var r backupReportView
	if err := o.decode(&r); err != nil {
		return err
	}
	for _, f := range r.Findings {
		if filepath.Base(f.File) == filepath.Base(name) {
			v.fact("  %s: %s (exit code %d)", f.Code, f.File, o.exit)
			return os.RemoveAll(copied)
		}
	}
	return broken("no finding names %s", name)
}

// flipLargest flips one bit in the middle of the largest file below dir.
func flipLargest(dir string) (name string, err error) {
	if name, err = largestFile(dir, "*"); err != nil {
		return "", err
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(name, 0o600); err != nil {
		return "", err
	}
	return name, os.WriteFile(name, b, 0o600)
}

// largestFile finds the largest file below dir whose name fits a pattern.
func largestFile(dir, pattern string) (name string, err error) {
	var size int64
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if fits, err := filepath.Match(pattern, d.Name()); err != nil || !fits {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			name, size = p, info.Size()
		}
		return err
	})
	return name, err
}

func (s *storageDemo) restore(v *stepView) error {
	if err := os.RemoveAll(s.store); err != nil {
		return broken("wipe the store: %w", err)
	}
	v.fact("$ rm -r $D/store")
	fresh, files := filepath.Join(s.dir, "fresh"), filepath.Join(s.dir, "files")
	o, err := s.must(v, "", "--dir", fresh, "restore", s.backup, "--identity", s.identity, "-o", "json")
	if err != nil {
		return err
	}
	var r restoreView
	if err := o.decode(&r); err != nil {
		return err
	}
	if !r.Identical || r.StateRoot != s.root {
		return broken("the restored state root %.16s is not the backup's %.16s", r.StateRoot, s.root)
	}
	v.fact("  %d events, state root %.16s IDENTICAL", r.Events, r.StateRoot)
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
	if o, err = s.must(v, "", "--dir", fresh, "object", "get", "notes/today"); err != nil {
		return err
	}
	if string(o.stdout) != "a third thought\n" {
		return broken("the restored note says %q", o.stdout)
	}
	o, err = s.must(v, "", "--dir", fresh, "object", "ls", "load/", "-o", "ndjson")
	if err != nil {
		return err
	}
	if err := s.checkAcked(&stepView{}, &o); err != nil {
		return err
	}
	_, err = s.must(v, "", "--dir", fresh, "replay", "--verify")
	if err != nil {
		return fmt.Errorf("the restored store: %w", err)
	}
	return nil
}
