// Command fcpctl is the command line of a store.
//
// # Purpose
//
// fcpctl works on a store directory, with no daemon. Nouns come first, verbs
// behind them: `fcpctl object put notes/today file`. docs/cli.md is the reference.
//
// # Invariants
//
//   - Data goes to stdout and nothing else does; piped, it is plain TSV.
//   - Every failure has a code, one sentence, a cause and a next step, and one of
//     the exit codes of exit.go.
//   - Every answer says where it comes from and as of which position.
//   - Nothing is asked without a terminal; no secret is taken from an argument.
//
// The operating system (streams, clock, signals, exit) is touched in this file
// only; an app is what runs in tests too.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"fcp/cmd/internal/nodump"
	_ "fcp/internal/malloc" // one heap for Pebble
)

func main() { os.Exit(realMain()) }

// patience is how long an interrupted command may take to end by itself.
const patience = 10 * time.Second

func realMain() int {
	if err := nodump.Protect(); err != nil {
		fmt.Fprintln(os.Stderr, "fcpctl: this process cannot be kept out of core files:", err)
		return exitFailed
	}
	// A reader that went away is no error; see app.run.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		stop() // a second signal ends the process at once
		// What is stuck in the system is left behind: a store survives worse.
		time.AfterFunc(patience, func() { os.Exit(exitInterrupted) })
	})
	return osApp().run(ctx, os.Args[1:])
}

func osApp() *app {
	tty := func(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
	return &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		stdinTTY: tty(os.Stdin), stdoutTTY: tty(os.Stdout), stderrTTY: tty(os.Stderr),
		now:          time.Now,
		lookupEnv:    os.LookupEnv,
		readPassword: func() ([]byte, error) { return term.ReadPassword(int(os.Stdin.Fd())) },
		again: func(ctx context.Context, args ...string) (*exec.Cmd, error) {
			self, err := os.Executable()
			if err != nil {
				return nil, err
			}
			return exec.CommandContext(ctx, self, args...), nil
		},
	}
}
