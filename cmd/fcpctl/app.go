package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/node/api"
)

// app is one invocation with everything it takes from outside.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	stdinTTY, stdoutTTY, stderrTTY bool

	now          func() time.Time
	lookupEnv    func(string) (string, bool)
	free         func(dir string) (uint64, error) // bytes free on the disk of dir; nil: as the system says
	readPassword func() ([]byte, error)           // one line of the terminal, without echo
	// again prepares this program to run as another process.
	again func(ctx context.Context, args ...string) (*exec.Cmd, error)

	flags    global
	answers  api.Store     // what the newest answer is from; nil: this process
	guessing bool          // for completion: nobody is disturbed
	bound    bool          // the command line was read to its end, and the environment
	out      *bufio.Writer // stdout; flushed by run
}

// global holds the flags every command has.
type global struct {
	dir    string
	node   string // of `up --nodes`, in whose store dir is looked for
	format formatFlag
	color  colorFlag
	quiet  bool

	fresh     bool
	staleness time.Duration

	config, context string // settings file, and the settings in it

	dirGiven bool // by flag, not by environment or default
}

// run executes one command line and returns its exit code.
func (a *app) run(ctx context.Context, args []string) int {
	a.out = bufio.NewWriterSize(pipeWriter{a.stdout}, 64<<10)
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.out)
	root.SetErr(a.stderr)
	err := execute(ctx, root)
	if flushErr := a.out.Flush(); err == nil {
		err = flushErr
	}
	if errors.Is(err, errBrokenPipe) {
		return exitOK // whoever read the output has seen enough
	}
	// What fails because the context ended was interrupted, whatever it says.
	if err != nil && ctx.Err() != nil {
		err = interrupted()
	}
	if err != nil && !errors.Is(err, errWarnings) {
		if !a.bound {
			a.guessFormat(args)
		}
		a.printError(err)
	}
	return exitOf(err)
}

// execute turns a panic of the command into an error: the exit code of a crashed Go
// program is 2, which here means a wrong command line.
func execute(ctx context.Context, root *cobra.Command) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{fcp.Errorf(fcp.CodeInternal, "panic: %v", r), debug.Stack()}
		}
	}()
	return root.ExecuteContext(ctx)
}

// panicError is a bug with the place it happened at.
type panicError struct {
	error
	stack []byte
}

func (e *panicError) Unwrap() error { return e.error }

// errBrokenPipe says that the reader of stdout went away.
var errBrokenPipe = errors.New("the reader of the output went away")

// pipeWriter tells a broken pipe from other failures.
type pipeWriter struct{ w io.Writer }

func (p pipeWriter) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	if errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) {
		return n, errBrokenPipe
	}
	return n, inputError(err, "stdout")
}

// command returns a command line a person can type, with --dir when this one had it.
func (a *app) command(args ...string) string {
	words := []string{"fcpctl"}
	if a.flags.dirGiven {
		words = append(words, "--dir", quote(a.flags.dir))
	}
	for _, w := range args {
		words = append(words, quote(w))
	}
	return strings.Join(words, " ")
}

// quote makes a word safe to type into a POSIX shell. Upper-case words of letters
// are placeholders and stay as they are, as does everything plain.
func quote(w string) string {
	plain := w != "" && strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:,=@+%") == ""
	if plain {
		return w
	}
	return "'" + strings.ReplaceAll(printable(w), "'", `'\''`) + "'"
}
