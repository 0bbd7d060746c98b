// Command fcpd keeps a store open as a member of a mesh; see package
// cmd/internal/daemon. It needs no configuration but the store's directory. It ends
// with the exit codes of fcpctl.
//
//	fcpd --dir DIR [--listen ADDRESS] [--peer ADDRESS ...] [--policy any-2-of-3]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/cmd/internal/daemon"
	"fcp/cmd/internal/exitcode"
	"fcp/cmd/internal/nodump"
	_ "fcp/internal/malloc" // one heap for Pebble
)

func main() {
	if err := nodump.Protect(); err != nil {
		fmt.Fprintln(os.Stderr, "fcpd: this process cannot be kept out of core files:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx))
}

// run is the daemon; what keeps it from running is told on stderr.
func run(ctx context.Context) int {
	cmd := daemon.Command("fcpd")
	exit := exitcode.Usage // until the command line was read
	cmd.PreRun = func(*cobra.Command, []string) { exit = exitcode.Failed }
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitcode.OK
	}
	fmt.Fprintln(os.Stderr, "fcpd:", err)
	if e := (*fcp.Error)(nil); errors.As(err, &e) {
		fmt.Fprintln(os.Stderr, "next:", e.NextStep())
		exit = exitcode.Of(e.Code)
	}
	return exit
}
