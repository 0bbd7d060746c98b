package log

import (
	"bytes"
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// TestPartsAreReadDuringACompaction: a part of an event that stays is there
// whichever segment holds it by the time its frames are read.
func TestPartsAreReadDuringACompaction(t *testing.T) {
	l, err := openOn(newDisk(), sealing(small(), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	const size = 100_000
	d := bigDraft(fcp.ZonePrivate, size, 1)
	kept := stage(t, l, d)[0]
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			from := n * 7 % (size - 10)
			p, err := l.ReadPart(nil, kept.Feed, kept.Seq, size, from, from+10)
			if err == nil && !bytes.Equal(p.Bytes, d.Content.Body[from:from+10]) {
				err = fcp.Errorf(fcp.CodeInternal, "other bytes at %d", from)
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for range torture(60) {
		s, ok, err := l.sealedAt(kept.Feed, kept.Seq)
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if _, err := l.Compact(context.Background(), []CompactRun{{Feed: kept.Feed, Segments: []uint64{s.segment}}}); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s, _, err := l.sealedAt(kept.Feed, kept.Seq)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Compact(context.Background(), []CompactRun{{Feed: kept.Feed, Segments: []uint64{s.segment}, Drop: []uint64{kept.Seq}}}); err != nil {
		t.Fatal(err)
	}
	_, err = l.ReadPart(nil, kept.Feed, kept.Seq, size, 0, 10)
	wantCode(t, err, fcp.CodeHorizon)
}

// TestBulkReadsShrinkTheBlockCache while one of them is under way, and no longer; one
// that ends after the log was closed does nothing.
func TestBulkReadsShrinkTheBlockCache(t *testing.T) {
	l, err := openOn(newDisk(), sealing(small(), 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	l.opts.CacheBytes = 32 << 20
	cache := pebble.NewCache(l.opts.CacheBytes) // one that nothing else uses
	defer cache.Unref()
	l.cache = cache
	a, b := l.BulkRead(), l.BulkRead()
	a()
	a()
	if l.unreserve == nil {
		t.Error("the cache has its size back during a bulk read")
	}
	b()
	if l.unreserve != nil {
		t.Error("the cache stays small")
	}
	c := l.BulkRead()
	mustClose(t, l)
	c()
}
