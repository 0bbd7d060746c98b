package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fcp"
	"fcp/cmd/internal/daemon"
	"fcp/engine"
	"fcp/node/api"
)

// openMode says what a command needs the store for.
type openMode bool

const (
	reading openMode = false
	writing openMode = true
)

// withStore opens the store, runs fn and closes it. A command that only reads
// opens it read-only, so that looking never changes the log.
func (a *app) withStore(ctx context.Context, mode openMode, fn func(e *engine.Engine) error) error {
	return a.withStoreIn(ctx, a.flags.dir, mode, fn)
}

// withStoreIn is withStore for the store in another directory.
func (a *app) withStoreIn(ctx context.Context, dir string, mode openMode, fn func(e *engine.Engine) error) error {
	return a.borrowed(ctx, dir, func() error { return a.withOpen(ctx, dir, mode, fn) })
}

// borrowed runs fn while no daemon has the store in dir open.
func (a *app) borrowed(ctx context.Context, dir string, fn func() error) error {
	release, err := a.borrow(ctx, dir)
	if err != nil {
		return err
	}
	return errors.Join(fn(), release())
}

// withOpen is withStoreIn of a store that was borrowed.
func (a *app) withOpen(ctx context.Context, dir string, mode openMode, fn func(e *engine.Engine) error) error {
	e, err := a.openStore(ctx, dir, mode)
	if err != nil {
		return err
	}
	if doubt := e.Log().Doubt(); doubt != nil && mode == reading {
		a.warn(doubt)
	}
	if err = a.checkFresh(ctx, mode, api.Local{Engine: e}); err == nil {
		err = fn(e)
	}
	return errors.Join(err, e.Close())
}

// checkFresh refuses to read what may be older than --fresh or --max-staleness allow.
func (a *app) checkFresh(ctx context.Context, mode openMode, s api.Store) error {
	if mode == writing || !a.flags.fresh && a.flags.staleness == 0 {
		return nil
	}
	if a.flags.fresh {
		return s.Fresh(ctx, 0)
	}
	return s.Fresh(ctx, a.flags.staleness)
}

// withAny runs fn on the store: over the daemon's socket when one runs, else as
// withStore does.
func (a *app) withAny(ctx context.Context, mode openMode, fn func(s api.Store) error) error {
	r, err := a.daemon(ctx)
	if err != nil {
		return err
	}
	if r != nil {
		a.answers = r
		if err := a.checkFresh(ctx, mode, r); err != nil {
			return err
		}
		return a.daemonError(fn(r))
	}
	return a.withStore(ctx, mode, func(e *engine.Engine) error { return fn(api.Local{Engine: e}) })
}

// daemonError tells a daemon that ended while it answered from one that says no.
func (a *app) daemonError(err error) error {
	e := (*fcp.Error)(nil)
	if !errors.As(err, &e) || e.Code != fcp.CodeDependency {
		return err
	}
	if pid, perr := daemon.Process(a.flags.dir); perr != nil || pid != 0 {
		return err
	}
	return fcp.Errorf(fcp.CodeDependency, "fcpd ended while it answered: %s", e.Detail).
		WithNext("run the same command again, it needs no fcpd; what was acknowledged is on disk, and " + quote(daemon.LogIn(a.flags.dir)) + " may say why fcpd ended")
}

// daemon returns the store behind the daemon of the store's directory, nil when none
// runs.
func (a *app) daemon(ctx context.Context) (*api.Remote, error) {
	pid, err := daemon.Process(a.flags.dir)
	if err != nil || pid == 0 {
		return nil, err
	}
	if a.guessing {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, answerWithin)
		defer stop()
	}
	var r *api.Remote
	err = a.awaiting(ctx, a.flags.dir, pid, func() (err error) {
		r, err = api.Dial(ctx, daemon.SocketIn(a.flags.dir))
		return err
	})
	return r, advise(err, fcp.CodeDependency, "fcpd runs as process "+decimal(uint64(pid))+" and does not answer; see "+quote(daemon.LogIn(a.flags.dir)))
}

// borrow has the daemon, when one runs, step aside while this process has the store.
// Its subscriptions go on afterwards; other commands wait.
func (a *app) borrow(ctx context.Context, dir string) (release func() error, err error) {
	pid, err := daemon.Process(dir)
	if err != nil || pid == 0 {
		return func() error { return nil }, err
	}
	if a.guessing {
		return nil, fcp.Errorf(fcp.CodeLocked, "process %d has the store", pid)
	}
	err = a.awaiting(ctx, dir, pid, func() (err error) {
		release, err = api.NewClient(daemon.SocketIn(dir)).Borrow(ctx, "fcpctl, process "+decimal(uint64(os.Getpid())))
		return err
	})
	if err == nil {
		a.note("fcpd steps aside while this runs")
	}
	return release, err
}

// answerWithin is how long a daemon may take to answer before a person is told why.
const answerWithin = 2 * time.Second

// awaiting runs do, which waits for the daemon of a store, process pid, and tells now and
// then what that is at: another command has the store, or it does not answer anybody.
func (a *app) awaiting(ctx context.Context, dir string, pid int, do func() error) error {
	ctx, done := context.WithCancel(ctx)
	var told sync.WaitGroup
	told.Go(func() {
		for pause := answerWithin; ; pause = progressOtherwise {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			asking, stop := context.WithTimeout(ctx, answerWithin)
			err := api.NewClient(daemon.SocketIn(dir)).Ready(asking)
			stop()
			switch e := (*fcp.Error)(nil); {
			case ctx.Err() != nil:
			case err == nil:
				a.note("waiting for fcpd, process %d, which is busy", pid)
			case errors.As(err, &e) && e.Code == fcp.CodeDependency:
				a.note("waiting for fcpd, process %d: %s", pid, e.Detail)
			default:
				a.note("waiting for fcpd, process %d, which does not answer; %s ends it", pid, "`kill -9 "+decimal(uint64(pid))+"`")
			}
		}
	})
	err := do()
	done()
	told.Wait()
	return err
}

func (a *app) openStore(ctx context.Context, dir string, mode openMode) (*engine.Engine, error) {
	e, err := engine.Open(ctx, dir, engine.Options{Environment: a.environment(), ReadOnly: mode == reading})
	return e, a.openErrorIn(dir, err)
}

// checkFiles compares the files of a store that nobody has open with its clean list.
func (a *app) checkFiles() (engine.FileReport, error) {
	r, err := engine.CheckFiles(a.flags.dir, a.environment())
	return r, a.openErrorIn(a.flags.dir, err)
}

// restoreCommand is how damage ends well: a store beside the damaged one.
const restoreCommand = "fcpctl --dir NEW restore BACKUP --identity FILE"

// openError gives a store that cannot be opened its way forward.
func (a *app) openError(err error) error {
	err = advise(err, fcp.CodeNoStore, a.whereIsTheStore())
	return advise(err, fcp.CodeLocked, "wait for the other process to finish, or stop it; when fcpd runs (`"+a.command("up")+"`), commands share the store")
}

// openErrorIn is openError for the store in dir; it also names who has it open.
func (a *app) openErrorIn(dir string, err error) error {
	if e := (*fcp.Error)(nil); errors.As(err, &e) && e.Code == fcp.CodeLocked {
		if pid := lockedBy(dir); pid != 0 {
			err = fcp.Errorf(fcp.CodeLocked, "%s, by process %d", dir, pid)
		}
	}
	return a.openError(err)
}

// lockedBy returns the other process that has the store in dir open, 0 when that cannot
// be told. It reads the kernel's list (proc_locks(5)): to open the file and ask would
// end, on closing it, a lock that this process has on it (fcntl(2)).
func lockedBy(dir string) int {
	st, err := os.Stat(filepath.Join(dir, "LOCK"))
	if err != nil {
		return 0
	}
	own, ok := st.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	list, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(own.Dev)), unix.Minor(uint64(own.Dev)), own.Ino)
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line) // number, kind, ADVISORY, WRITE, process, file, from, to
		if len(f) == 8 && f[1] == "POSIX" && f[3] == "WRITE" && f[5] == file {
			if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 && pid != os.Getpid() {
				return pid
			}
		}
	}
	return 0
}

func (a *app) whereIsTheStore() string {
	if strings.HasPrefix(a.flags.dir, homeless) {
		return "name its directory with --dir DIR or FCP_DIR: without HOME there is no default"
	}
	return "make one with `" + a.command("init") + "`, or name another directory with --dir DIR or FCP_DIR"
}

func (a *app) environment() engine.Environment {
	return engine.Environment{Now: a.now, Logger: slog.New(a.logHandler())}
}

// logHandler shows the engine's warnings on stderr, as text or as JSON like errors.
func (a *app) logHandler() slog.Handler {
	o := &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
		if at.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{} // slog takes it from the system's clock, which is not ours to read
		}
		return at
	}}
	if a.flags.format.structured() {
		return slog.NewJSONHandler(a.stderr, o)
	}
	return slog.NewTextHandler(a.stderr, o)
}
