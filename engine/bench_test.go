package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"fcp/authority"
)

// diskStore is a store on the real file system with the real clock and randomness.
func diskStore(b *testing.B) *Engine {
	b.Helper()
	dir := b.TempDir() + "/store"
	owner, err := authority.NewOwnerKey(newRand(1))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := Init(context.Background(), dir, InitOptions{Owner: owner}); err != nil {
		b.Fatal(err)
	}
	e, err := Open(context.Background(), dir, Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e
}

// BenchmarkPut is the hot path: small inline bodies under new names.
func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("w%d", writers), func(b *testing.B) {
			e := diskStore(b)
			body := make([]byte, 256)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					var key []byte
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						key = fmt.Appendf(key[:0], "notes/%012d", i*7919)
						if _, err := e.Put(context.Background(), PutRequest{Key: string(key), Bytes: body}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
		})
	}
}

// BenchmarkReplay folds a log of small puts into an empty state in memory.
func BenchmarkReplay(b *testing.B) {
	e := diskStore(b)
	var wg sync.WaitGroup
	const writers, each = 256, 2000
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := e.Put(context.Background(), PutRequest{Key: fmt.Sprintf("notes/%d/%d", i, w), Bytes: make([]byte, 100)}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ResetTimer()
	events := uint64(0)
	for range b.N {
		r, err := e.Replay(context.Background(), ReplayOptions{})
		if err != nil {
			b.Fatal(err)
		}
		events += r.Events
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
