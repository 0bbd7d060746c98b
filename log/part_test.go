package log

import (
	"bytes"
	"context"
	"testing"

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
