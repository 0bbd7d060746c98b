package daemon

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"time"

	"fcp/node/otlp"
)

// traces are the spans of requests, sent to a collector if one is configured.
type traces struct {
	exporter *otlp.Exporter                                                            // nil: none
	trace    func(ctx context.Context, name string) (context.Context, func(err error)) // nil: none
}

func startTraces(endpoint string, now func() time.Time, logger *slog.Logger) (*traces, error) {
	if endpoint == "" {
		return &traces{}, nil
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	e, err := otlp.New(otlp.Options{Endpoint: endpoint, Service: "fcpd", Instance: host, Now: now, Rand: rand.Reader, Logger: logger})
	if err != nil {
		return nil, err
	}
	return &traces{e, e.Start}, nil
}

func (t *traces) stop() error {
	if t.exporter == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return t.exporter.Close(ctx)
}
