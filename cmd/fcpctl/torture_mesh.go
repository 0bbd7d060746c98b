package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"fcp"
	"fcp/node/impair"
)

// meshFault is what `torture --mesh` runs: processes, sockets and disks of this machine.
func meshFault() fault {
	return fault{"mesh", "what any node of a mesh acknowledged is read on each of them, through kill -9, repair and hostile packets", (*tortured).mesh}
}

const (
	meshNodes  = 4
	meshCycles = 3 // of a round
	meshPuts   = 6 // of a cycle
	meshReads  = 8 // likewise
)

// soak is one round of `torture --mesh`.
type soak struct {
	*demo
	t       *tortured
	store   string
	names   []string
	written map[string][]byte // acknowledged
	keys    []string          // of written, in order

	puts, reads, kills, repairs int
	moved, lost, packets        uint64
}

// mesh runs one round on four processes: writes everywhere, a node killed and brought
// back in each cycle, repair while it is away, and hostile packets at every port.
func (t *tortured) mesh() error {
	s := &soak{demo: &demo{a: t.a, ctx: t.ctx, opts: &demoOptions{}, dir: t.dir}, t: t, store: filepath.Join(t.dir, "store"), written: map[string][]byte{}}
	for i := range meshNodes {
		s.names = append(s.names, fmt.Sprintf("n%d", i+1))
	}
	// Whatever happens, no process stays behind.
	defer func() {
		end := *s.demo
		end.ctx = context.WithoutCancel(t.ctx)
		end.fcpctl("", s.on("down")...)
		for _, name := range s.names {
			end.fcpctl("", s.on("node", "kill", name, "--hard")...)
		}
	}()
	err := s.run()
	t.seen = fmt.Sprintf("%d puts, %d reads, %d kills, %d repairs (%d bytes moved for %d lost), %d hostile packets", s.puts, s.reads, s.kills, s.repairs, s.moved, s.lost, s.packets)
	return err
}

func (s *soak) on(args ...string) []string { return append([]string{"--dir", s.store}, args...) }

// ok runs a command that has to succeed.
func (s *soak) ok(stdin string, args ...string) (outcome, error) {
	o := s.fcpctl(stdin, s.on(args...)...)
	return o, o.want(exitOK)
}

func (s *soak) run() error {
	identity := filepath.Join(s.dir, "identity")
	if _, err := s.ok("", "init", "--identity", identity, "--no-passphrase", "--device", s.names[0]); err != nil {
		return err
	}
	o, err := s.ok("", "up", "--nodes", fmt.Sprint(meshNodes), "--policy", "any-2-of-3", "--identity", identity, "-o", "json")
	if err != nil {
		return err
	}
	var up struct{ Items []nodeView }
	if err := o.decode(&up); err != nil {
		return err
	}
	stop, err := s.attack(up.Items)
	if err != nil {
		return err
	}
	defer stop()
	for cycle := range meshCycles {
		if err := s.cycle(cycle); err != nil {
			return fmt.Errorf("cycle %d: %w", cycle+1, err)
		}
	}
	stop()
	return s.check()
}

func (s *soak) cycle(cycle int) error {
	for range meshPuts {
		if err := s.put(s.any(nil)); err != nil {
			return err
		}
	}
	if _, err := s.ok("", "wait", "--ready", "--converged", "--placed", "--timeout", "2m"); err != nil {
		return err
	}
	safe := len(s.keys) // these are read whoever goes
	gone := s.t.rng.IntN(meshNodes)
	if _, err := s.ok("", "node", "kill", s.names[gone], "--hard"); err != nil {
		return err
	}
	s.kills++
	for range meshReads {
		if err := s.read(s.any(&gone), s.keys[s.t.rng.IntN(safe)]); err != nil {
			return err
		}
	}
	if err := s.put(s.any(&gone)); err != nil {
		return err
	}
	if cycle == 0 || s.t.rng.IntN(2) == 0 {
		if err := s.repair(); err != nil {
			return err
		}
	}
	if _, err := s.ok("", "node", "start", s.names[gone]); err != nil {
		return err
	}
	_, err := s.ok("", "wait", "--ready", "--converged", "--timeout", "2m")
	return err
}

// any picks a node, but not the one that is gone.
func (s *soak) any(gone *int) string {
	i := s.t.rng.IntN(meshNodes)
	if gone != nil && i == *gone {
		i = (i + 1) % meshNodes
	}
	return s.names[i]
}

func (s *soak) put(node string) error {
	body := make([]byte, 1+s.t.rng.IntN(1<<(7+s.t.rng.IntN(12)))) // up to 256 KiB, mostly less
	for i := range body {
		body[i] = byte(s.t.rng.Uint32())
	}
	key := fmt.Sprintf("soak/%04d", len(s.keys))
	if _, err := s.ok(string(body), "--node", node, "object", "put", key, "-"); err != nil {
		return fmt.Errorf("put %s on %s: %w", key, node, err)
	}
	s.written[key] = body
	s.keys = append(s.keys, key)
	s.puts++
	return nil
}

func (s *soak) read(node, key string) error {
	o, err := s.ok("", "--node", node, "object", "get", key)
	if err != nil {
		return fmt.Errorf("get %s on %s: %w", key, node, err)
	}
	if !bytes.Equal(o.stdout, s.written[key]) {
		return broken("%s reads %d bytes of %s that are not the %d written", node, len(o.stdout), key, len(s.written[key]))
	}
	s.reads++
	return nil
}

func (s *soak) repair() error {
	o, err := s.ok("", "repair", "--now", "-o", "json")
	if err != nil {
		return err
	}
	var r struct {
		Items []struct{ Bytes, Lost uint64 }
	}
	if err := o.decode(&r); err != nil {
		return err
	}
	s.repairs++
	for _, step := range r.Items {
		s.moved, s.lost = s.moved+step.Bytes, s.lost+step.Lost
	}
	return nil
}

// check reads everything everywhere and ends the mesh in good order.
func (s *soak) check() error {
	if _, err := s.ok("", "wait", "--ready", "--converged", "--placed", "--timeout", "2m"); err != nil {
		return err
	}
	for _, name := range s.names {
		for _, key := range s.keys {
			if err := s.read(name, key); err != nil {
				return err
			}
		}
	}
	if _, err := s.ok("", "down"); err != nil {
		return err
	}
	for _, name := range s.names {
		if _, err := s.ok("", "--node", name, "verify"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// attack sends to each node what anybody can who reaches its port: noise, and packets
// that look like the first of a connection. stop may be called again.
func (s *soak) attack(nodes []nodeView) (stop func(), err error) {
	ctx, cancel := context.WithCancel(s.ctx)
	var work sync.WaitGroup
	var running []*impair.Noise
	stop = func() {
		cancel()
		work.Wait()
		for _, n := range running {
			s.packets += n.Sent()
		}
		running = nil
	}
	for i, n := range nodes {
		noise, err := impair.NewNoise(n.Address, rand.New(rand.NewPCG(s.t.rng.Uint64(), uint64(i))))
		if err != nil {
			stop()
			return nil, fcp.Wrap(fcp.CodeInternal, err, "attack %s", n.Name)
		}
		running = append(running, noise)
		work.Go(func() { noise.Run(ctx) })
	}
	return stop, nil
}

// tortureMesh runs rounds on meshes until their number is reached or the time is over.
func (a *app) tortureMesh(ctx context.Context, rounds int, seed uint64, length time.Duration) error {
	end := a.now().Add(length)
	more := func(done int) bool {
		if length > 0 {
			return done == 0 || a.now().Before(end)
		}
		return done < rounds
	}
	l := a.list("TortureRound", 0, "FAULT", "SEED", "RESULT", "SEEN")
	l.live = true
	done, failed := 0, []string{}
	for ; more(done); done++ {
		v, err := a.tortureRound(ctx, meshFault(), seed+uint64(done))
		if err != nil {
			return err
		}
		word := "kept"
		if !v.Kept {
			failed = append(failed, decimal(v.Seed))
			word = a.paint(a.stdoutTTY, red, "BROKEN")
			v.Again = fmt.Sprintf("fcpctl torture --mesh --seed %d --rounds 1", v.Seed)
		}
		if err := l.add(v, fmt.Sprintf("%s/%d", v.Fault, v.Seed), v.Fault, decimal(v.Seed), word, v.Seen); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	if len(failed) > 0 {
		return &exitError{fcp.Errorf(fcp.CodeInternal, "%d of %d rounds broke a promise, with the seeds %s", len(failed), done, strings.Join(failed, ", ")).
			WithNext("report them; `fcpctl torture --mesh --seed N --rounds 1` repeats one, but for the moments at which processes die"), exitIntegrity}
	}
	a.note("%d rounds, every promise kept", done)
	return nil
}
