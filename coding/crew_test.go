package coding

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"fcp/coding/internal/gf256"
	"pgregory.net/rapid"
)

// TestParallelDoesEachIndexOnce has several callers at once, so that helpers go
// from one to another.
func TestParallelDoesEachIndexOnce(t *testing.T) {
	var callers sync.WaitGroup
	for c := range 4 {
		callers.Go(func() {
			cut := []int{0, 3, 4, 9, 20}[:2+c]
			n := cut[len(cut)-1]
			for round := range 500 {
				times := make([]atomic.Int32, n)
				var sum atomic.Int64
				err := parallel(context.Background(), cut, func(w, i int) {
					times[i].Add(1)
					if i < cut[w] || i >= cut[w+1] {
						t.Errorf("worker %d is asked for %d", w, i)
					}
					for x := range (i * round) % 5000 {
						sum.Add(int64(x))
					}
				})
				if err != nil {
					t.Error(err)
				}
				for i := range times {
					if k := times[i].Load(); k != 1 {
						t.Errorf("index %d is done %d times", i, k)
					}
				}
			}
		})
	}
	callers.Wait()
}

func TestParallelStopsWithTheContext(t *testing.T) {
	for _, cut := range [][]int{{0, 1000}, {0, 500, 1000}} {
		ctx, cancel := context.WithCancel(context.Background())
		var seen atomic.Int32
		err := parallel(ctx, cut, func(_, i int) {
			seen.Add(1)
			cancel()
		})
		if !errors.Is(err, context.Canceled) || int(seen.Load()) > 500 {
			t.Errorf("%v: %v after %d", cut, err, seen.Load())
		}
	}
}

// TestHelpersLeave: a helper waits for more work only for a moment.
func TestHelpersLeave(t *testing.T) {
	for range 10 {
		if err := parallel(context.Background(), []int{0, 1, 2, 3}, func(int, int) {}); err != nil {
			t.Fatal(err)
		}
	}
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		// A helper that has not begun to run shows only who made it.
		if !strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "coding.delegate") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("helpers are still there")
		}
	}
	for i := range ready {
		if ready[i].Load() != nil {
			t.Errorf("place %d is taken by a helper that has left", i)
		}
	}
}

// TestTilesCoverTheStripes: every column belongs to one tile, no tile is wider
// than the first, and workers have the same number of columns, but for one unit.
func TestTilesCoverTheStripes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape, err := Shape{SymbolSize: rapid.IntRange(1, 3000).Draw(t, "size"), SubBlocks: rapid.IntRange(1, 7).Draw(t, "sub-blocks")}.normal()
		if err != nil {
			t.Skip("no such shape")
		}
		stripes := shape.stripes(10)
		width := gf256.MinWidth << rapid.IntRange(0, 2).Draw(t, "width")
		list, cut := tiles(stripes, width, rapid.IntRange(0, 40).Draw(t, "workers"))
		covered := make([]int, shape.SymbolSize)
		for _, x := range list {
			if x.width > list[0].width || x.width > width || x.size > x.width {
				t.Fatalf("%+v after %+v, limit %d", x, list[0], width)
			}
			for c := x.skip; c < x.size; c++ {
				covered[stripes[x.stripe].at+x.col+c]++
			}
		}
		for c, n := range covered {
			if n != 1 {
				t.Fatalf("column %d is in %d tiles", c, n)
			}
		}
		if cut[0] != 0 || cut[len(cut)-1] != len(list) {
			t.Fatalf("shares %v of %d tiles", cut, len(list))
		}
		least, most := 1<<30, 0
		for w := range len(cut) - 1 {
			n := 0
			for _, x := range list[cut[w]:cut[w+1]] {
				n += x.width
			}
			least, most = min(least, n), max(most, n)
		}
		if least == 0 || most-least > gf256.MinWidth {
			t.Fatalf("shares of %d to %d columns", least, most)
		}
	})
}
