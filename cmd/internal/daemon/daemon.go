// Package daemon is fcpd: it keeps a store open as a member of a mesh, talks to the
// other devices of the same owner, and answers programs of this machine over a unix
// socket (package node/api). Command fcpd is this package and nothing else; fcpctl
// has it too, so that `fcpctl up` needs no second program.
//
// What belongs to the daemon lies in the store's directory beside the store:
//
//	fcpd.sock   the socket, mode 0600
//	fcpd.pid    locked by the daemon while it runs; the lock tells who it is
//	fcpd.log    what it said, when `fcpctl up` started it
//	mesh.json   where it listens and where it saw others; see Hints
//
// It ends on SIGTERM or SIGINT after what is under way is finished.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/internal/malloc"
	"fcp/node"
	"fcp/node/api"
	"fcp/node/tailnet"
)

// drainWait is how long requests under way may take when the daemon ends.
const drainWait = 8 * time.Second

// keepEvery is how often the daemon writes down where it sees others.
const keepEvery = 10 * time.Second

// ReadyEnvironment names the variable with the number of an open file that gets
// "ready\n" and is closed when the daemon is ready.
const ReadyEnvironment = "FCPD_READY_FD"

// Options are the command's flags and what it takes from outside.
type Options struct {
	Dir, Listen, Socket, Enrollment string
	Policy                          string
	Peers                           []string
	Verbose                         bool
	Metered                         bool // the network costs by volume
	Hooks                           Hooks
	TraceEndpoint                   string
	RepairRate                      uint64 // MiB a second
	Tailnet                         Tailnet

	Stderr    io.Writer
	LookupEnv func(string) (string, bool)
	Now       func() time.Time
}

// Command returns the command with its flags. Its context ends the daemon.
func Command(name string) *cobra.Command {
	o := Options{Stderr: os.Stderr, LookupEnv: os.LookupEnv, Now: time.Now}
	c := &cobra.Command{Use: name, Short: "Keep a store open as a member of a mesh", Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error { return Run(c.Context(), &o) }}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", os.Getenv("FCP_DIR"), "the store's directory")
	f.StringVar(&o.Listen, "listen", "", "UDP address for other devices (default where it listened last, else a free port of 127.0.0.1)")
	f.StringArrayVar(&o.Peers, "peer", nil, "address of another device; may be repeated")
	f.StringVar(&o.Socket, "socket", "", "unix socket for programs (default fcpd.sock in the store's directory)")
	f.StringVar(&o.Enrollment, "enrollment", "", "file with this device's enrollment, for its first start (default as it came with the store)")
	f.StringVar(&o.Policy, "policy", "", "how segments are spread (default any-2-of-3)")
	f.Uint64Var(&o.RepairRate, "repair-rate", 16, "MiB a second that repair and moves of symbols may cost")
	o.Tailnet.flags(f)
	f.BoolVar(&o.Metered, "metered", false, "the network of this device costs by volume: nothing is fetched that nobody waits for")
	f.StringVar(&o.Hooks.Arrival, "on-arrival", "", "program to run when a device came; see docs/cli.md")
	f.StringVar(&o.Hooks.Departure, "on-departure", "", "program to run when a device went")
	f.BoolVar(&o.Verbose, "verbose", false, "log more")
	f.StringVar(&o.TraceEndpoint, "otlp-endpoint", os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT"), "URL of an OTLP/HTTP collector for traces (default none)")
	return c
}

// SocketIn returns where the daemon of a store has its socket.
func SocketIn(dir string) string { return filepath.Join(dir, "fcpd.sock") }

// LogIn returns where `fcpctl up` keeps what the daemon of a store says.
func LogIn(dir string) string { return filepath.Join(dir, "fcpd.log") }

// Run is the daemon. It returns nil after an orderly end. CodeLocked: another one, or
// another program, has the store.
func Run(ctx context.Context, o *Options) (err error) {
	malloc.Serving()
	if o.Dir == "" {
		return fcp.Errorf(fcp.CodeInvalidArgument, "no store is named").WithNext("name it with --dir or FCP_DIR")
	}
	if o.Socket == "" {
		o.Socket = SocketIn(o.Dir)
	}
	if err := o.Hooks.check(); err != nil {
		return err
	}
	logger := newLogger(o.Stderr, o.Verbose)
	defer func() {
		if err != nil {
			logger.Error("ended", "err", err)
		}
	}()
	mark, err := lockPid(o.Dir)
	if err != nil {
		return err
	}
	defer mark.Close()
	d := &running{o: o, logger: logger, profiles: profiles{now: o.Now, metered: o.Metered}}
	if d.hints, err = LoadHints(o.Dir); err != nil {
		return err
	}
	if o.Policy == "" {
		o.Policy = d.hints.Policy
	}
	if o.Policy != "" {
		if d.policy, err = engine.ParseSymbolPolicy(o.Policy); err != nil {
			return err
		}
	}
	if d.tailnet, err = d.joinTailnet(ctx); err != nil {
		return err
	}
	if d.tailnet != nil {
		defer func() { err = errors.Join(err, d.tailnet.Close()) }()
	}
	traces, err := startTraces(o.TraceEndpoint, o.Now, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, traces.stop()) }()
	s, err := api.New(ctx, api.Options{Socket: o.Socket, Open: d.open, Now: o.Now, Logger: logger, Trace: traces.trace})
	if err != nil {
		return err
	}
	return d.serve(ctx, s)
}

// running is a daemon at work.
type running struct {
	o      *Options
	logger *slog.Logger
	policy engine.SymbolPolicy

	mu    sync.Mutex
	hints *Hints // guarded by mu once it serves

	tailnet *tailnet.Network // nil: loopback and LAN

	profiles profiles
	roll     node.Roll
}

// open opens the store and starts its node, each time where it listened before.
func (d *running) open(ctx context.Context) (_ *engine.Engine, _ *node.Node, err error) {
	o := d.o
	d.mu.Lock()
	hints := *d.hints
	d.mu.Unlock()
	enrollment := hints.Enrollment
	if o.Enrollment != "" {
		if enrollment, err = os.ReadFile(o.Enrollment); err != nil {
			return nil, nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "read the enrollment")
		}
	}
	e, err := engine.Open(ctx, o.Dir, engine.Options{Environment: engine.Environment{Logger: d.logger}})
	if err != nil {
		return nil, nil, err
	}
	opt := node.Options{Engine: e, Enrollment: enrollment, Members: hints.Members, Listen: o.Listen, Policy: d.policy, RepairRate: o.RepairRate << 20, Logger: d.logger, Profile: d.profiles.get,
		Peers: slices.Concat(o.Peers, hints.Peers)}
	if opt.Listen == "" {
		opt.Listen = hints.Listen
	}
	d.useTailnet(&opt, e.Zones())
	n, err := node.Start(ctx, opt)
	if err != nil && o.Listen == "" && opt.Listen != "" && d.tailnet == nil { // somebody else has the port by now
		opt.Listen = ""
		n, err = node.Start(ctx, opt)
	}
	if err != nil {
		return nil, nil, errors.Join(err, e.Close())
	}
	d.mu.Lock()
	d.hints.Listen = n.Addr().String()
	d.mu.Unlock()
	return e, n, nil
}

// serve answers until ctx ends.
func (d *running) serve(ctx context.Context, s *api.Server) (err error) {
	if err := d.remember(nil); err != nil {
		d.logger.Warn("where others are is not kept", "err", err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	d.logger.Info("ready", "address", s.Address(), "socket", d.o.Socket, "process", os.Getpid())
	d.tellReady()
	hooks := newHookRunner(d.o.Hooks, d.logger, d.o.LookupEnv)
	hooking, stopHooks := context.WithCancel(ctx)
	var hooked sync.WaitGroup
	hooked.Go(func() { hooks.run(hooking) })
	defer hooked.Wait()
	defer stopHooks()
	roll := time.NewTicker(rollEvery)
	defer roll.Stop()
	t := time.NewTicker(keepEvery)
	defer t.Stop()
	for done := false; !done; {
		select {
		case <-t.C:
			d.keep(s)
		case <-roll.C:
			if list, here := s.Contacts(); here {
				hooks.tell(d.roll.Call(d.o.Now(), list))
			}
		case err = <-served:
			done = true
		case <-ctx.Done():
			d.logger.Info("ending")
			done = true
		}
	}
	d.notify("STOPPING=1")
	d.keep(s)
	drain, cancel := context.WithTimeout(context.Background(), drainWait)
	defer cancel()
	return errors.Join(err, s.Close(drain))
}

// keep writes down where others are, when that changed.
func (d *running) keep(s *api.Server) {
	peers := s.Peers()
	slices.Sort(peers)
	d.mu.Lock()
	same := slices.Equal(peers, d.hints.Peers)
	d.mu.Unlock()
	if len(peers) == 0 || same {
		return
	}
	if err := d.remember(func(h *Hints) { h.Peers = peers }); err != nil {
		d.logger.Warn("where others are is not kept", "err", err)
	}
}

// remember writes down what the daemon knows, and learns just now, of the network. What
// else is in the file is of the commands that wrote it meanwhile. learn may be nil.
func (d *running) remember(learn func(*Hints)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if learn != nil {
		learn(d.hints)
	}
	h, err := LoadHints(d.o.Dir)
	if err != nil {
		return err
	}
	h.Listen, h.Peers, h.Tailnet, h.TailnetControl = d.hints.Listen, d.hints.Peers, d.hints.Tailnet, d.hints.TailnetControl
	return h.Save(d.o.Dir)
}

// tellReady tells who started the daemon that it serves.
func (d *running) tellReady() {
	d.notify("READY=1")
	s, _ := d.o.LookupEnv(ReadyEnvironment)
	var fd int
	if _, err := fmt.Sscan(s, &fd); err != nil || fd < 3 {
		return
	}
	f := os.NewFile(uintptr(fd), "ready")
	if _, err := f.WriteString("ready\n"); err != nil {
		d.logger.Debug("nobody waits for this start", "err", err)
	}
	f.Close()
}

func (d *running) notify(state string) {
	address, _ := d.o.LookupEnv("NOTIFY_SOCKET")
	if err := api.Notify(address, state); err != nil {
		d.logger.Warn("the service manager was not told", "state", state, "err", err)
	}
}

// Process returns the number of the daemon that runs on a store, 0 for none. The
// system says so: a number that was left behind, or used again, is never taken.
func Process(dir string) (int, error) {
	f, err := os.Open(filepath.Join(dir, pidFile))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return 0, nil
	}
	if errors.Is(err, os.ErrPermission) {
		return 0, fcp.Errorf(fcp.CodeUnauthorized, "this user may not use the store in %s: %w", dir, err).WithNext("run as the user who owns the directory")
	}
	if err != nil {
		return 0, fcp.Wrap(fcp.CodeDisk, err, "look for a daemon")
	}
	defer f.Close()
	l := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_GETLK, &l); err != nil {
		return 0, fcp.Wrap(fcp.CodeDisk, err, "look for a daemon")
	}
	if l.Type == syscall.F_UNLCK {
		return 0, nil
	}
	return int(l.Pid), nil
}

const pidFile = "fcpd.pid"

// lockPid makes this process the daemon of a store. The lock ends with the process.
func lockPid(dir string) (*os.File, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, fcp.Errorf(fcp.CodeNoStore, "%s", dir)
	}
	f, err := os.OpenFile(filepath.Join(dir, pidFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "make %s", pidFile)
	}
	l := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &l); err != nil {
		f.Close()
		if pid, perr := Process(dir); perr == nil && pid != 0 {
			return nil, fcp.Errorf(fcp.CodeLocked, "fcpd runs on %s already, as process %d", dir, pid)
		}
		return nil, fcp.Wrap(fcp.CodeLocked, err, "be the daemon of %s", dir)
	}
	if err := errors.Join(f.Truncate(0), write(f, fmt.Sprintln(os.Getpid()))); err != nil {
		return nil, errors.Join(fcp.Wrap(fcp.CodeDisk, err, "write %s", pidFile), f.Close())
	}
	return f, nil
}

func write(f *os.File, s string) error {
	_, err := f.WriteString(s)
	return err
}
