package main

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// loadWriters is how many goroutines write at once: group commit at work.
const loadWriters = 8

// demoLoadCommand is the process that the demo kills: it writes until it dies and
// prints each key and version after it was acknowledged.
func (a *app) demoLoadCommand() *cobra.Command {
	return &cobra.Command{
		Use: "demo-load", Short: "Write until killed (for demo)", Hidden: true, Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), writing, func(e *engine.Engine) error { return a.load(cmd.Context(), e) })
		},
	}
}

func (a *app) load(ctx context.Context, e *engine.Engine) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error // guarded by mu
	)
	for w := range loadWriters {
		wg.Go(func() {
			for i := 0; work.Err() == nil; i++ {
				key := fmt.Sprintf("load/%d/%06d", w, i)
				res, err := e.Put(work, engine.PutRequest{Zone: fcp.ZonePrivate, Key: key, Bytes: []byte("written by " + key + "\n")})
				mu.Lock()
				if err == nil {
					// Past the buffer: a line must not outlive its writer's memory.
					_, err = fmt.Fprintf(a.stdout, "%s\t%s\n", key, res.Hash)
				}
				if err != nil && first == nil {
					first = err
				}
				mu.Unlock()
				if err != nil {
					stop()
					return
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return interrupted()
	}
	return first
}
