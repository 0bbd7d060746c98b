package log

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// Renew begins a new incarnation of this node: from here on its events go to new
// feeds, and those that it wrote so far are as another's, which Import may continue.
// It is for a node that learned that its disk is an older state of itself, or that
// a copy of it runs: so it never contradicts what it forgot. was is the incarnation
// that the caller saw; when it is not the present one nothing is done. When Renew
// returns nil the new incarnation is on disk. Runs of the old feeds that are not
// sealed yet stay as they are.
func (l *Log) Renew(ctx context.Context, was uint64) error {
	if err := l.writable(); err != nil {
		return err
	}
	l.sealMu.Lock() // no run of an old feed is being sealed, and no Stage is open
	defer l.sealMu.Unlock()
	if l.incarnation.Load() != was {
		return nil
	}
	next, err := l.drawIncarnation()
	if err != nil {
		return err
	}
	r := &request{extra: func(b *pebble.Batch) error {
		if err := b.Set([]byte{keyMeta}, l.meta(next, was), nil); err != nil {
			return err
		}
		l.incarnation.Store(next) // the next group is placed by it
		l.scratch.lastD, l.scratch.lastF = nil, nil
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, f := range l.feeds {
			if f.own && f.chained() {
				l.unsealed -= f.hotBytes
				f.own, f.cuts = false, nil
			}
		}
		l.makeRoomLocked()
		return nil
	}}
	if err := l.submit(ctx, r); err != nil {
		return err
	}
	return r.err
}

// metaSize is the length of the record under keyMeta: format u16, incarnation u64,
// writer. After Renew the incarnation before follows, u64: until the next mark the
// high-water mark is still of that one.
const metaSize = 2 + 8 + fcp.HashSize

// meta encodes the record under keyMeta. before is 0 for a new store.
func (l *Log) meta(incarnation, before uint64) []byte {
	v := binary.BigEndian.AppendUint16(nil, Format)
	v = binary.BigEndian.AppendUint64(v, incarnation)
	v = append(v, l.opts.Writer[:]...)
	if before != 0 {
		v = binary.BigEndian.AppendUint64(v, before)
	}
	return v
}

// drawIncarnation draws a random non-zero incarnation.
func (l *Log) drawIncarnation() (n uint64, err error) {
	for n == 0 {
		var b [8]byte
		if _, err := l.opts.Rand.Read(b[:]); err != nil {
			return 0, fcp.Wrap(fcp.CodeInternal, err, "reading randomness")
		}
		n = binary.BigEndian.Uint64(b[:]) & math.MaxInt64
	}
	return n, nil
}
