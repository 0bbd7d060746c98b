package log

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"fcp"
)

// TestReadsDuringCloseFailCleanly: readers that run while the log closes, and ones
// that come later, get an answer or CodeClosed; none touches the closed store.
func TestReadsDuringCloseFailCleanly(t *testing.T) {
	for range torture(10) {
		l, err := openOn(newDisk(), sealing(small(), 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		placed := stage(t, l, bigDraft(fcp.ZonePrivate, 100_000, 1), bigDraft(fcp.ZonePrivate, 100_000, 2))
		hot := mustAppend(t, l, draft(100, 3)).Events[0]
		no, seq, last := placed[0].Feed, placed[1].Seq, hot.Position
		reads := map[string]func() error{
			"Read":       func() error { _, _, err := l.Read(no, seq); return err },
			"Read hot":   func() error { _, _, err := l.Read(hot.Feed, hot.Seq); return err },
			"ReadPart":   func() error { _, err := l.ReadPart(nil, no, seq, 100_000, 10, 20); return err },
			"PositionOf": func() error { _, err := l.PositionOf(no, seq); return err },
			"At":         func() error { _, _, err := l.At(last); return err },
			"Salt":       func() error { _, err := l.Salt(no, seq); return err },
			"Segments":   func() error { return l.Segments(func(SegmentInfo) error { return nil }) },
			"Scan": func() error {
				return l.Scan(context.Background(), ScanOptions{Workers: 2}, func([]Applied) error { return nil })
			},
			"ScanFeed": func() error {
				return l.ScanFeed(context.Background(), no, 1, 0, VerifyChain, func([]Applied) error { return nil })
			},
		}
		var wg sync.WaitGroup
		for name, read := range reads {
			wg.Go(func() {
				for {
					switch err := read(); {
					case errors.Is(err, fcp.CodeClosed):
						return
					case err != nil:
						t.Errorf("%s: %v", name, err)
						return
					}
				}
			})
		}
		time.Sleep(2 * time.Millisecond)
		mustClose(t, l)
		wg.Wait()
		for name, read := range reads {
			if err := read(); !errors.Is(err, fcp.CodeClosed) {
				t.Errorf("%s of a closed log: %v", name, err)
			}
		}
	}
}
