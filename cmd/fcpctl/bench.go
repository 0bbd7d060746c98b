package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// figureView is one measured figure as JSON.
type figureView struct {
	What  string  `json:"what"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
	Note  string  `json:"note,omitempty"`
}

func (a *app) benchCommand() *cobra.Command {
	var (
		each time.Duration
		dir  string
	)
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure this machine's disk and a scratch store on it, in about a minute", Args: args(0, 0),
		Long: `bench makes a scratch store below --scratch, on the disk you want to know about,
measures it and removes it. The first figures are the disk's own limit with the same
write size and one fsync each; compare with them, not with another machine.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if each < 100*time.Millisecond || each > 10*time.Minute {
				return usagef("", "--time is between 100ms and 10m")
			}
			at, err := os.MkdirTemp(dir, "fcp-bench-")
			if err != nil {
				return inputError(err, "the scratch directory")
			}
			defer os.RemoveAll(at)
			b := bencher{a: a, ctx: cmd.Context(), dir: at, each: each, list: a.list("Figure", 0, "WHAT", "VALUE", "UNIT", "NOTE")}
			b.list.live = true
			if err := b.run(); err != nil {
				return err
			}
			return b.list.close()
		},
	}
	cmd.Flags().DurationVar(&each, "time", 3*time.Second, "how long each timed figure is measured")
	cmd.Flags().StringVar(&dir, "scratch", "", "directory on the disk to measure (default the system's temporary one)")
	return cmd
}

// bencher measures one scratch store.
type bencher struct {
	a    *app
	ctx  context.Context
	dir  string
	each time.Duration
	list *list
	e    *engine.Engine
}

func (b *bencher) figure(what string, value float64, unit, note string) error {
	v := figureView{what, value, unit, note}
	return b.list.add(v, what, what, fmt.Sprintf("%.1f", value), unit, note)
}

const (
	benchRecord = 256
	benchFile   = 64 << 20
)

func (b *bencher) run() (err error) {
	if err := b.fsync(); err != nil {
		return err
	}
	store := filepath.Join(b.dir, "store")
	env := b.a.environment()
	if _, err := engine.Init(b.ctx, store, engine.InitOptions{Environment: env}); err != nil {
		return err
	}
	if b.e, err = engine.Open(b.ctx, store, engine.Options{Environment: env}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.e.Close()) }()
	for _, writers := range []int{1, 16, 64} {
		if err := b.puts(writers); err != nil {
			return err
		}
	}
	if err := b.large(); err != nil {
		return err
	}
	r, err := b.e.Replay(b.ctx, engine.ReplayOptions{Verify: true})
	if err != nil {
		return err
	}
	if err := b.figure("replay", float64(r.Events)/max(r.Rebuilt.Seconds(), 1e-9), "events/s", fmt.Sprintf("%d events, roots compared", r.Events)); err != nil {
		return err
	}
	return nil
}

// fsync is the limit: the same bytes into one file, synced each time.
func (b *bencher) fsync() error {
	f, err := os.Create(filepath.Join(b.dir, "limit"))
	if err != nil {
		return inputError(err, "the scratch directory")
	}
	defer f.Close()
	record := make([]byte, benchRecord)
	var took []time.Duration
	for start := b.a.now(); b.a.now().Sub(start) < b.each; {
		if b.ctx.Err() != nil {
			return interrupted()
		}
		at := b.a.now()
		if _, err := f.Write(record); err != nil {
			return inputError(err, "the scratch file")
		}
		if err := f.Sync(); err != nil {
			return inputError(err, "the scratch file")
		}
		took = append(took, b.a.now().Sub(at))
	}
	slices.Sort(took)
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	note := fmt.Sprintf("write %d bytes and fsync; median %.2f ms, p99 %.2f ms", benchRecord, millis(took[len(took)/2]), millis(took[len(took)*99/100]))
	return b.figure("disk limit, 1 writer", float64(len(took))/sum.Seconds(), "fsyncs/s", note)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// puts writes small objects from several goroutines, each waiting for its own to be durable.
func (b *bencher) puts(writers int) error {
	var (
		wg    sync.WaitGroup
		count atomic.Int64
		mu    sync.Mutex
		took  []time.Duration
		first error
	)
	start := b.a.now()
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			body := make([]byte, benchRecord)
			var mine []time.Duration
			var err error
			for i := 0; err == nil && b.ctx.Err() == nil && b.a.now().Sub(start) < b.each; i++ {
				for j := range body {
					body[j] = byte(rng.Uint32())
				}
				at := b.a.now()
				if _, err = b.e.Put(b.ctx, engine.PutRequest{Key: fmt.Sprintf("b/%d/%d/%d", writers, w, i), Bytes: body}); err == nil {
					mine = append(mine, b.a.now().Sub(at))
					count.Add(1)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if first == nil {
				first = err
			}
		})
	}
	wg.Wait()
	spent := b.a.now().Sub(start)
	if b.ctx.Err() != nil {
		return interrupted()
	}
	if first != nil {
		return first
	}
	if len(took) == 0 {
		return fcp.Errorf(fcp.CodeTimeout, "not one write ended within %v", b.each)
	}
	slices.Sort(took)
	note := fmt.Sprintf("%d bytes each, durable; median %.2f ms, p99 %.2f ms", benchRecord, millis(took[len(took)/2]), millis(took[len(took)*99/100]))
	return b.figure(fmt.Sprintf("put, %d writers", writers), float64(count.Load())/spent.Seconds(), "puts/s", note)
}

// large writes and reads one object of many chunks.
func (b *bencher) large() error {
	const mib = 1 << 20
	var key [32]byte
	start := b.a.now()
	if _, err := b.e.Put(b.ctx, engine.PutRequest{Key: "large", Body: io.LimitReader(rand.NewChaCha8(key), benchFile)}); err != nil {
		return err
	}
	if err := b.figure("put of one object", float64(benchFile)/mib/b.a.now().Sub(start).Seconds(), "MiB/s", fmt.Sprintf("%d MiB, durable", benchFile>>20)); err != nil {
		return err
	}
	start = b.a.now()
	r, err := b.e.Get(b.ctx, engine.GetRequest{Key: "large"})
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, r)
	if err == nil && n != benchFile {
		err = fcp.Errorf(fcp.CodeInternal, "%d bytes come back of %d", n, benchFile)
	}
	if err != nil {
		return err
	}
	return b.figure("get of one object", float64(n)/mib/b.a.now().Sub(start).Seconds(), "MiB/s", "decrypted and verified")
}
