// Command fcpd keeps a store open as a member of a mesh; see package
// cmd/internal/daemon. It needs no configuration but the store's directory.
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

	"fcp"
	"fcp/cmd/internal/daemon"
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
	if err := daemon.Command("fcpd").ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fcpd:", err)
		var e *fcp.Error
		if errors.As(err, &e) {
			fmt.Fprintln(os.Stderr, "next:", e.NextStep())
		}
		os.Exit(1)
	}
}
