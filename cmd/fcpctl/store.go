package main

import (
	"context"
	"errors"
	"log/slog"

	"fcp"
	"fcp/engine"
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
	e, err := a.openStore(ctx, mode)
	if err != nil {
		return err
	}
	if doubt := e.Log().Doubt(); doubt != nil && mode == reading {
		a.warn(doubt)
	}
	err = fn(e)
	return errors.Join(err, e.Close())
}

func (a *app) openStore(ctx context.Context, mode openMode) (*engine.Engine, error) {
	e, err := engine.Open(ctx, a.flags.dir, engine.Options{Environment: a.environment(), ReadOnly: mode == reading})
	err = advise(err, fcp.CodeNoStore, a.whereIsTheStore())
	return e, advise(err, fcp.CodeLocked, "stop the other process (`ps -ef | grep fcp` shows it), or wait for it to finish")
}

func (a *app) whereIsTheStore() string {
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
