package main

import (
	"context"
	"crypto/ed25519"

	"fcp"
	"fcp/log"
)

// logTarget is the log by itself: chain and tree on, opaque bodies, no
// projections and no sealing.
func logTarget() Target {
	return Target{
		Name: "log",
		EventBytes: func(payload int) (int, error) {
			c := fcp.Content{Kind: fcp.KindOpaque, Body: make([]byte, payload)}
			return len(c.AppendTo(nil)), nil
		},
		Open: func(_ context.Context, dir string, _ Workload) (Appender, error) {
			l, err := log.Open(dir, log.Options{Writer: benchWriter(), Create: true})
			if err != nil {
				return nil, err
			}
			return &logAppender{l}, nil
		},
	}
}

func benchKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)) }

func benchWriter() fcp.WriterID { return fcp.WriterOf(benchKey().Public().(ed25519.PublicKey)) }

type logAppender struct{ log *log.Log }

func (a *logAppender) Append(ctx context.Context, _ int, payload []byte) error {
	d := [1]log.Draft{{Zone: fcp.ZonePrivate, Plane: fcp.PlaneData,
		Content: fcp.Content{Kind: fcp.KindOpaque, Body: payload}}}
	_, err := a.log.Append(ctx, d[:])
	return err
}

func (a *logAppender) Close() error { return a.log.Close() }
