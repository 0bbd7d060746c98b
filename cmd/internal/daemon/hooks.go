package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"fcp"
	"fcp/node"
)

// Hooks are programs of the user that run when a device came or went. None runs unless
// it was named. The program is run as it is, without a shell and without arguments;
// what it may know is in its environment:
//
//	FCP_EVENT       arrival or departure
//	FCP_DEVICE      name of the device
//	FCP_DEVICE_ID   its id, 64 hex digits
//	FCP_CLASS       phone, laptop, server or empty
//	FCP_SITE        its site or empty
//	FCP_TIME        when it came, or was there last (RFC 3339, UTC)
//
// besides PATH and HOME. One runs at a time and for at most hookTime. What comes while
// too many wait is left out, and the log says so.
type Hooks struct {
	Arrival, Departure string // absolute paths; "": none
}

const (
	hookTime   = 30 * time.Second
	hookQueue  = 64
	hookOutput = 4 << 10 // bytes of what a hook says that are logged
	rollEvery  = 2 * time.Second
)

func (h *Hooks) check() error {
	for _, p := range []string{h.Arrival, h.Departure} {
		if p == "" {
			continue
		}
		if !filepath.IsAbs(p) {
			return fcp.Errorf(fcp.CodeInvalidArgument, "the hook %q is no absolute path", p).WithNext("name a program, not a command line: a script can call what you like")
		}
		// Now, and not when the first device comes.
		if st, err := os.Stat(p); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
			return fcp.Errorf(fcp.CodeInvalidArgument, "the hook %q is no program that can be executed", p).WithNext("check the path, and `chmod +x` it")
		}
	}
	return nil
}

func (h *Hooks) program(t *node.Turn) string {
	if t.Arrived {
		return h.Arrival
	}
	return h.Departure
}

// hookRunner runs hooks, one after the other.
type hookRunner struct {
	Hooks
	logger  *slog.Logger
	lookup  func(string) (string, bool)
	queue   chan node.Turn
	timeout time.Duration
}

func newHookRunner(h Hooks, logger *slog.Logger, lookup func(string) (string, bool)) *hookRunner {
	return &hookRunner{Hooks: h, logger: logger, lookup: lookup, queue: make(chan node.Turn, hookQueue), timeout: hookTime}
}

// tell queues turns.
func (h *hookRunner) tell(turns []node.Turn) {
	for i := range turns {
		t := &turns[i]
		event := "a device came"
		if !t.Arrived {
			event = "a device went"
		}
		h.logger.Info(event, "device", t.Name, "id", t.Writer.String())
		if h.program(t) == "" {
			continue
		}
		select {
		case h.queue <- *t:
		default:
			h.logger.Warn("a hook is not run: too many wait", "device", t.Name)
		}
	}
}

// run runs what is queued until ctx ends; that ends a hook under way too.
func (h *hookRunner) run(ctx context.Context) {
	for {
		select {
		case t := <-h.queue:
			h.runOne(ctx, &t)
		case <-ctx.Done():
			return
		}
	}
}

func (h *hookRunner) runOne(ctx context.Context, t *node.Turn) {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	c := exec.CommandContext(ctx, h.program(t))
	c.Env = h.environment(t)
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // and what it started
	c.WaitDelay = time.Second                                                        // a child that keeps the output open does not keep us
	out := &limited{most: hookOutput}
	c.Stdout, c.Stderr = out, out
	err := c.Run()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		h.logger.Warn("a hook took too long and was ended", "hook", c.Path, "device", t.Name)
	case err != nil:
		h.logger.Warn("a hook failed", "hook", c.Path, "device", t.Name, "err", err, "said", out.String())
	default:
		h.logger.Debug("a hook ran", "hook", c.Path, "device", t.Name, "said", out.String())
	}
}

func (h *hookRunner) environment(t *node.Turn) []string {
	event := "departure"
	if t.Arrived {
		event = "arrival"
	}
	env := []string{"FCP_EVENT=" + event, "FCP_DEVICE=" + t.Name, "FCP_DEVICE_ID=" + t.Writer.String(),
		"FCP_CLASS=" + string(t.Class), "FCP_SITE=" + t.Site, "FCP_TIME=" + t.At.UTC().Format(time.RFC3339)}
	for _, name := range []string{"PATH", "HOME"} {
		if v, ok := h.lookup(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// limited keeps the first bytes written to it.
type limited struct {
	bytes.Buffer
	most int
}

func (l *limited) Write(b []byte) (int, error) {
	if room := l.most - l.Len(); room > 0 {
		l.Buffer.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}
