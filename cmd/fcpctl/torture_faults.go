package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/engine"
	"fcp/internal/crashfs"
)

// scratchStore is a store on a disk in memory, and what was acknowledged there.
type scratchStore struct {
	t     *tortured
	env   engine.Environment
	now   atomic.Int64 // unix milliseconds
	e     *engine.Engine
	acked map[string][]byte
}

const scratchDir = "/scratch"

func (t *tortured) scratch(disk vfs.FS) (*scratchStore, error) {
	s := &scratchStore{t: t, acked: map[string][]byte{}}
	s.now.Store(t.a.now().UnixMilli())
	s.env = engine.Environment{FS: disk, Now: func() time.Time { return time.UnixMilli(s.now.Load()) }}
	_, err := engine.Init(t.ctx, scratchDir, engine.InitOptions{Environment: s.env, SaveOwner: nil})
	return s, err
}

func (s *scratchStore) open() (err error) {
	s.e, err = engine.Open(s.t.ctx, scratchDir, engine.Options{Environment: s.env})
	return err
}

// put writes one version under one of a few names and notes what was acknowledged.
func (s *scratchStore) put() error {
	key := fmt.Sprintf("k%02d", s.t.rng.IntN(40))
	body := make([]byte, 1+s.t.rng.IntN(4000))
	for i := range body {
		body[i] = byte(s.t.rng.Uint32())
	}
	_, err := s.e.Put(s.t.ctx, engine.PutRequest{Key: key, Bytes: body})
	if err == nil {
		s.acked[key] = body
	} else {
		delete(s.acked, key) // either version may be there now
	}
	return err
}

// check reads everything acknowledged and verifies the store.
func (s *scratchStore) check() error {
	for _, key := range slices.Sorted(maps.Keys(s.acked)) {
		r, err := s.e.Get(s.t.ctx, engine.GetRequest{Key: key})
		var b []byte
		if err == nil {
			b, err = io.ReadAll(r)
		}
		if err != nil || !bytes.Equal(b, s.acked[key]) {
			return fmt.Errorf("acknowledged %s is not there: %d bytes, %v", key, len(b), err)
		}
	}
	r, err := s.e.Verify(s.t.ctx, engine.VerifyOptions{Bodies: true, Replay: true})
	if err == nil && len(r.Findings) > 0 {
		err = fmt.Errorf("%d findings, the first: %s", len(r.Findings), r.Findings[0].What)
	}
	return err
}

// kill runs a writer as another process and kills it.
func (t *tortured) kill() error {
	store, id := filepath.Join(t.dir, "store"), filepath.Join(t.dir, "id")
	run := func(args ...string) ([]byte, error) {
		cmd, err := t.a.again(t.ctx, append([]string{"--dir", store}, args...)...)
		if err != nil {
			return nil, err
		}
		return cmd.Output()
	}
	if _, err := run("init", "--identity", id, "--no-passphrase"); err != nil {
		return err
	}
	cmd, err := t.a.again(t.ctx, "--dir", store, "demo-load")
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stuck := time.AfterFunc(eventually, func() { _ = cmd.Process.Kill() })
	defer stuck.Stop()
	after := 1 + t.rng.IntN(enoughAcks)
	acked := map[string]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		key, version, ok := strings.Cut(lines.Text(), "\t")
		if !ok || len(version) != 64 {
			break
		}
		if acked[key] = version; len(acked) == after {
			if err := cmd.Process.Kill(); err != nil {
				return err
			}
		}
	}
	waitErr := cmd.Wait()
	t.seen = fmt.Sprintf("%d writes acknowledged, then %v", len(acked), waitErr)
	if len(acked) < after {
		return fmt.Errorf("the writer ended before it was killed")
	}
	e, err := engine.Open(t.ctx, store, engine.Options{Environment: t.a.environment()})
	if err != nil {
		return err
	}
	defer e.Close()
	for key, version := range acked {
		entry, err := e.Stat(t.ctx, "", key, engine.At{})
		if err != nil || entry.Head().Hash.String() != version {
			return fmt.Errorf("acknowledged %s is lost: %v", key, err)
		}
	}
	r, err := e.Verify(t.ctx, engine.VerifyOptions{Bodies: true, Replay: true})
	if err == nil && len(r.Findings) > 0 {
		err = fmt.Errorf("%d findings, the first: %s", len(r.Findings), r.Findings[0].What)
	}
	return err
}

// power stops a disk in the middle of writes and goes on from what a cut leaves.
func (t *tortured) power() error {
	disk := crashfs.New()
	s, err := t.scratch(disk)
	if err != nil {
		return err
	}
	for cut := range 3 {
		if err := s.open(); err != nil {
			return fmt.Errorf("open after %d cuts: %w", cut, err)
		}
		if err := s.check(); err != nil {
			return fmt.Errorf("after %d cuts: %w", cut, err)
		}
		disk.StopAt(disk.Mutations() + 1 + int64(t.rng.IntN(150)))
		puts := 0
		for ; puts < 2000 && s.put() == nil; puts++ {
		}
		image := disk.Crash(rand.New(rand.NewPCG(t.rng.Uint64(), 1)), crashfs.Harsh())
		_ = s.e.Close() // the disk is gone; what it says is no news
		t.seen = strings.TrimPrefix(fmt.Sprintf("%s, power cut after %d writes", t.seen, puts), ", ")
		disk = image
		s.env.FS = disk
	}
	if err := s.open(); err != nil {
		return err
	}
	return errors.Join(s.check(), s.e.Close())
}

// flip inverts a bit of a closed store.
func (t *tortured) flip() error {
	disk := crashfs.New()
	s, err := t.scratch(disk)
	if err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	for range 50 {
		if err := s.put(); err != nil {
			return err
		}
	}
	if err := s.e.Close(); err != nil {
		return err
	}
	files, err := filesBelow(disk, scratchDir)
	if err != nil {
		return err
	}
	path := files[t.rng.IntN(len(files))]
	info, err := disk.Stat(path)
	if err != nil {
		return err
	}
	f := crashfs.Flip{Path: path, Offset: t.rng.Int64N(info.Size()), Bit: uint(t.rng.IntN(8))}
	t.seen = fmt.Sprintf("bit %d of byte %d of %s", f.Bit, f.Offset, strings.TrimPrefix(path, scratchDir+"/"))
	s.env.FS = disk.Crash(rand.New(rand.NewPCG(1, 1)), crashfs.Options{Flips: []crashfs.Flip{f}})
	r, err := engine.CheckFiles(scratchDir, s.env)
	if err == nil && len(r.Findings) == 0 {
		return fmt.Errorf("it is not found")
	}
	return nil // found, or refused before anything was read
}

// filesBelow lists the files with something in them, but for locks and the
// ballast, whose content means nothing.
func filesBelow(disk vfs.FS, dir string) (out []string, err error) {
	names, err := disk.List(dir)
	slices.Sort(names)
	for _, n := range names {
		path := disk.PathJoin(dir, n)
		info, err := disk.Stat(path)
		if err != nil {
			return nil, err
		}
		switch {
		case info.IsDir():
			below, err := filesBelow(disk, path)
			if err != nil {
				return nil, err
			}
			out = append(out, below...)
		case info.Size() > 0 && n != "LOCK" && n != "BALLAST":
			out = append(out, path)
		}
	}
	return out, err
}

// Bounds of what docs/format.md and the design promise of a full disk.
const (
	fullSaid      = 2 * time.Second
	fullRecovered = 5 * time.Second
)

// full fills the disk, reads, and gives the space back.
func (t *tortured) full() error {
	disk := crashfs.New()
	s, err := t.scratch(disk)
	if err != nil {
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	for range 20 {
		if err := s.put(); err != nil {
			return err
		}
	}
	disk.SetSpace(disk.Used() + int64(t.rng.IntN(40<<20)))
	writes := 0
	for ; ; writes++ {
		start := t.a.now()
		err := s.put()
		if err == nil && writes < 50_000 {
			continue
		}
		if took := t.a.now().Sub(start); !errors.Is(err, fcp.CodeDiskFull) || took > fullSaid {
			return fmt.Errorf("a full disk is answered after %v with %v", took, err)
		}
		break
	}
	for key, body := range s.acked {
		r, err := s.e.Get(t.ctx, engine.GetRequest{Key: key})
		var b []byte
		if err == nil {
			b, err = io.ReadAll(r)
		}
		if err != nil || !bytes.Equal(b, body) {
			return fmt.Errorf("%s cannot be read on a full disk: %v", key, err)
		}
	}
	disk.SetSpace(-1)
	start := t.a.now()
	for s.put() != nil {
		if t.a.now().Sub(start) > fullRecovered {
			return fmt.Errorf("no write in %v after the space came back", fullRecovered)
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.seen = fmt.Sprintf("full after %d writes, writing again %d ms after the space came back", writes, t.a.now().Sub(start).Milliseconds())
	return errors.Join(s.check(), s.e.Close())
}

// clockJump moves the clock between writes and across openings.
func (t *tortured) clockJump() error {
	s, err := t.scratch(crashfs.New())
	if err != nil {
		return err
	}
	const tenYears = 10 * 365 * 24 * time.Hour
	var last fcp.Time
	refused := 0
	for range 6 {
		if err := s.open(); err != nil {
			return fmt.Errorf("open: %w", err)
		}
		for range 10 {
			jump := time.Duration(t.rng.Int64N(int64(2*tenYears))) - tenYears
			s.now.Add(jump.Milliseconds())
			r, err := s.e.Put(t.ctx, engine.PutRequest{Key: "clock", Bytes: []byte("tick")})
			switch {
			case err == nil && r.Time <= last:
				return fmt.Errorf("time %v follows %v", r.Time.Wall(), last.Wall())
			case err == nil:
				last = r.Time
				s.acked["clock"] = []byte("tick")
			case errors.Is(err, fcp.CodeFuture):
				refused++
			default:
				return err
			}
		}
		if err := errors.Join(s.check(), s.e.Close()); err != nil {
			return err
		}
	}
	t.seen = fmt.Sprintf("60 jumps, %d writes refused until the clock is right, the last time is %s", refused, last.Wall().Format("2006-01-02"))
	return nil
}
