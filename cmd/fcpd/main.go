// Command fcpd keeps a store open as a member of a mesh: it talks to the other
// devices of the same owner and answers programs of this machine over a unix socket
// (package node/api). It needs no configuration but the store's directory.
//
//	fcpd --dir DIR [--listen ADDRESS] [--peer ADDRESS ...] [--socket PATH] [--enrollment FILE]
//
// It ends on SIGTERM or SIGINT after what is under way is finished.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/node"
	"fcp/node/api"
)

// drainWait is how long requests under way may take when the daemon ends.
const drainWait = 10 * time.Second

type options struct {
	dir, listen, socket, enrollment string
	peers                           []string
	verbose                         bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fcpd:", err)
		var e *fcp.Error
		if errors.As(err, &e) {
			fmt.Fprintln(os.Stderr, "next:", e.NextStep())
		}
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o options
	c := &cobra.Command{Use: "fcpd", Short: "keep a store open as a member of a mesh", Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error { return run(c.Context(), &o) }}
	f := c.Flags()
	f.StringVar(&o.dir, "dir", os.Getenv("FCP_DIR"), "the store's directory")
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "UDP address for other devices")
	f.StringArrayVar(&o.peers, "peer", nil, "address of another device; may be repeated")
	f.StringVar(&o.socket, "socket", "", "unix socket for programs; default: fcpd.sock in the store's directory")
	f.StringVar(&o.enrollment, "enrollment", "", "file with this device's enrollment, for its first start")
	f.BoolVar(&o.verbose, "verbose", false, "log more")
	return c
}

func run(ctx context.Context, o *options) (err error) {
	if o.dir == "" {
		return fcp.Errorf(fcp.CodeInvalidArgument, "no store is named").WithNext("name it with --dir or FCP_DIR")
	}
	if o.socket == "" {
		o.socket = filepath.Join(o.dir, "fcpd.sock")
	}
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	logger := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	var enrollment []byte
	if o.enrollment != "" {
		if enrollment, err = os.ReadFile(o.enrollment); err != nil {
			return fcp.Wrap(fcp.CodeInvalidArgument, err, "read the enrollment")
		}
	}
	e, err := engine.Open(ctx, o.dir, engine.Options{Environment: engine.Environment{Logger: logger}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	n, err := node.Start(ctx, node.Options{Engine: e, Enrollment: enrollment, Listen: o.listen, Peers: o.peers, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	s, err := api.New(o.socket, e, n)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	logger.Info("ready", "address", n.Addr().String(), "socket", o.socket, "writer", n.Writer())
	select {
	case err = <-served:
	case <-ctx.Done():
		logger.Info("ending")
	}
	drain, cancel := context.WithTimeout(context.Background(), drainWait)
	defer cancel()
	return errors.Join(err, s.Close(drain))
}
