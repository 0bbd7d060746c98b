package daemon

import (
	"context"
	"log/slog"
)

type traces struct {
	stop  func() error
	trace func(ctx context.Context, name string) (context.Context, func(error))
}

func startTraces(_ context.Context, _ string, _ *slog.Logger) (*traces, error) {
	return &traces{stop: func() error { return nil }}, nil
}
