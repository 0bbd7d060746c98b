package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/spf13/cobra"

	"fcp"
	"fcp/cmd/internal/daemon"
	"fcp/engine"
	"fcp/node/api"
)

// fcpdCommand is the daemon itself: `up` starts this program again with it.
func (a *app) fcpdCommand() *cobra.Command {
	cmd := daemon.Command("fcpd")
	cmd.Hidden = true
	// No variable and no settings file: what `up` says is all that counts.
	cmd.PersistentPreRunE = func(*cobra.Command, []string) error { return nil }
	return cmd
}

// Limits of starting and ending a daemon.
const (
	startPatience = time.Minute
	endPatience   = 30 * time.Second
	pollEvery     = 10 * time.Millisecond
	maxDaemonLog  = 8 << 20 // bytes after which a start begins a new file
	logTail       = 2 << 10 // bytes of the log that a failed start shows
	logRoom       = 1 << 20 // bytes free below which an empty log says that there is no room
)

// start starts the daemon of a store, unless one runs, and returns its process when
// it is ready.
func (a *app) start(ctx context.Context, dir string, args ...string) (pid int, began bool, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return 0, false, inputError(err, "the store's directory")
	}
	if err := a.mustBeStore(dir); err != nil {
		return 0, false, err
	}
	if pid, err = daemon.Process(dir); err != nil || pid != 0 {
		return pid, false, errors.Join(err, a.awaitReady(ctx, dir))
	}
	log, err := openDaemonLog(daemon.LogIn(dir))
	if err != nil {
		return 0, false, err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, false, inputError(err, "the daemon's log")
	}
	ready, tell, err := os.Pipe()
	if err != nil {
		return 0, false, inputError(err, "start a process")
	}
	defer ready.Close()
	cmd, err := a.again(context.WithoutCancel(ctx), append([]string{"fcpd", "--dir", dir}, args...)...)
	if err != nil {
		return 0, false, errors.Join(inputError(err, "start a process"), tell.Close())
	}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles, cmd.Dir = log, log, []*os.File{tell}, dir
	cmd.Env = append(cmd.Environ(), daemon.ReadyEnvironment+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it outlives this terminal
	err = cmd.Start()
	tell.Close() // the daemon has its own
	if err != nil {
		return 0, false, inputError(err, "start fcpd")
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // so that it never stays as a zombie of this process
	if err := awaitWord(ctx, ready); err != nil {
		select {
		case <-ended:
		case <-time.After(time.Second): // it lives but did not say so in time
			cmd.Process.Kill()
			<-ended
		}
		if ctx.Err() != nil {
			return 0, false, interrupted()
		}
		if other, perr := daemon.Process(dir); perr == nil && other != 0 { // somebody else began it meanwhile
			return other, false, a.awaitReady(ctx, dir)
		}
		return 0, false, startError(dir, from, err)
	}
	return cmd.Process.Pid, true, a.awaitReady(ctx, dir)
}

// mustBeStore refuses a directory that holds no store.
func (a *app) mustBeStore(dir string) error {
	return a.openError(engine.CheckFormat(vfs.Default, dir))
}

// awaitWord waits until the daemon says it is ready; its end closes the pipe.
func awaitWord(ctx context.Context, ready *os.File) error {
	if err := ready.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Now()) })()
	b, err := io.ReadAll(ready)
	if err != nil {
		return err
	}
	if string(b) != "ready\n" {
		return errors.New("it ended")
	}
	return nil
}

// awaitReady asks /readyz until it says yes.
func (a *app) awaitReady(ctx context.Context, dir string) error {
	c := api.NewClient(daemon.SocketIn(dir))
	ctx, stop := context.WithTimeout(ctx, startPatience)
	defer stop()
	for {
		err := c.Ready(ctx)
		if err == nil {
			return nil
		}
		pid, perr := daemon.Process(dir)
		if perr != nil || pid == 0 {
			return fcp.Errorf(fcp.CodeDependency, "fcpd of %s ended", dir).WithNext("see " + quote(daemon.LogIn(dir)))
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return fcp.Wrap(fcp.CodeTimeout, err, "fcpd, process %d, is not ready", pid)
		}
	}
}

func openDaemonLog(path string) (*os.File, error) {
	if st, err := os.Stat(path); err == nil && st.Size() > maxDaemonLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, inputError(err, "the daemon's log")
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	return f, inputError(err, "the daemon's log")
}

// startError is a failed start with the end of what the daemon said.
func startError(dir string, from int64, err error) error {
	path := daemon.LogIn(dir)
	e := fcp.Errorf(fcp.CodeDependency, "fcpd of %s did not come up: %v", dir, err).WithNext("see " + quote(path))
	f, err := os.Open(path)
	if err != nil {
		return e
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, from, 1<<20))
	if u, uerr := vfs.Default.GetDiskUsage(dir); uerr == nil && u.AvailBytes < logRoom && len(b) == 0 {
		return fcp.Errorf(fcp.CodeDiskFull, "fcpd of %s did not come up, and has no room to say why", dir)
	}
	if err != nil || len(b) == 0 {
		return e
	}
	b = bytes.TrimSpace(b[max(0, len(b)-logTail):])
	lines := strings.Split(string(b), "\n")
	e.Detail = fmt.Sprintf("%s; the end of its log: %s", e.Detail, strings.Join(lines[max(0, len(lines)-3):], " | "))
	return e
}

// end ends the daemon of a store with a signal and waits until it is gone. It reports
// which process that was, 0 when none ran.
func (a *app) end(ctx context.Context, dir string, signal syscall.Signal) (pid int, err error) {
	pid, err = daemon.Process(dir)
	if err != nil || pid == 0 {
		return 0, err
	}
	if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return pid, fcp.Wrap(fcp.CodeInternal, err, "end process %d", pid)
	}
	ctx, stop := context.WithTimeout(ctx, endPatience)
	defer stop()
	for {
		now, err := daemon.Process(dir)
		if err != nil || now != pid {
			return pid, err
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return pid, fcp.Errorf(fcp.CodeTimeout, "fcpd, process %d, has not ended", pid).WithNext("end it at once with `fcpctl node kill NAME --hard`; nothing acknowledged is lost")
		}
	}
}
