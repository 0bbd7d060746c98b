package log

import (
	"sync"

	"fcp"
)

// bulkCache is what the block cache is left with during bulk reads: blocks that are
// read once would fill all of it.
const bulkCache = 4 << 20

// BulkRead says that much is going to be read once, until end is called, and keeps
// that from filling the block cache and the page cache.
func (l *Log) BulkRead() (end func()) {
	l.resizeCache(1)
	return sync.OnceFunc(func() { l.resizeCache(-1) })
}

func (l *Log) resizeCache(more int) {
	l.bulkMu.Lock()
	defer l.bulkMu.Unlock()
	l.bulk += more
	l.bulkFS.set(l.bulk > 0)
	if !l.life.Enter() {
		return // the cache is gone
	}
	defer l.life.Leave()
	switch less := int(l.opts.CacheBytes) - bulkCache; {
	case l.bulk > 0 && l.unreserve == nil && less > 0:
		l.unreserve = l.cache.Reserve(less)
	case l.bulk == 0 && l.unreserve != nil:
		l.unreserve()
		l.unreserve = nil
	}
}

// Part is a part of an event's body.
type Part struct {
	Bytes     []byte
	Decrypted int    // bytes of segment frames that were decrypted for it
	Buf       []byte // what Bytes is in, from its beginning: for the next ReadPart when Bytes is done with
}

// ReadPart returns bytes [from, to) of an event's body, whose length the caller
// knows: size. It decrypts into buf where that is large enough. Of an event that fills a block of a segment, as staged events do,
// only the frames with those bytes are decrypted, and nothing says whether size is
// right; the caller's own check of the body must. Of any other event all is read,
// and another size is CodeCorrupt. Other errors are those of Read.
func (l *Log) ReadPart(buf []byte, no FeedNo, seq uint64, size, from, to int) (Part, error) {
	if from < 0 || to < from || to > size {
		return Part{}, fcp.Errorf(fcp.CodeInvalidArgument, "bytes %d to %d of a body of %d", from, to, size)
	}
	var out Part
	alone := false // in its block, and not dropped
	_, err := l.readSealed(no, seq, func(segment uint64) error {
		seg, err := l.openSegment(segment) // not kept: a large object has thousands
		if err != nil {
			return err
		}
		i := seg.rem.blockOf(seq)
		if alone = seg.rem.blockCount(i) == 1 && size <= seg.rem.blockBytes(i); alone {
			out, err = l.readFramePart(buf, seg, i, size, from, to)
		}
		return err
	})
	if err != nil || alone {
		return out, err
	}
	e, _, err := l.Read(no, seq)
	if err == nil && len(e.Body) != size {
		err = fcp.Errorf(fcp.CodeCorrupt, "event %d of feed %d has a body of %d bytes, not %d", seq, no, len(e.Body), size)
	}
	if err != nil {
		return Part{}, err
	}
	return Part{Bytes: e.Body[from:to], Buf: buf}, nil
}

// blockCount returns how many events block i holds.
func (r *Remainder) blockCount(i int) uint64 {
	end := r.Last + 1 - r.First
	if 2*i+3 < len(r.Blocks) {
		end = r.Blocks[2*i+3]
	}
	return end - r.Blocks[2*i+1]
}

// blockBytes returns the length of block i.
func (r *Remainder) blockBytes(i int) (n int) {
	from, to := r.frameRange(i)
	for _, size := range r.Frames[from:to] {
		n += int(size)
	}
	return n
}

// readFramePart reads from a block of one event. The body is the last field of the
// last record, so it ends where the block does.
func (l *Log) readFramePart(buf []byte, s *openSegment, block, size, from, to int) (out Part, err error) {
	first, end := s.rem.frameRange(block)
	total := s.rem.blockBytes(block)
	from, to = from+total-size, to+total-size // in the block
	at := 0
	for ; first < end && at+int(s.rem.Frames[first]) <= from; first++ {
		at += int(s.rem.Frames[first])
	}
	last, stop := first, at
	for ; last < end && stop < to; last++ {
		stop += int(s.rem.Frames[last])
	}
	it, err := l.iter(keyOfFrame(s.no, uint32(first)), keyOfFrame(s.no, uint32(last)))
	if err != nil {
		return out, err
	}
	defer it.Close()
	plain := buf[:0]
	if need := stop - at + s.cipher.Overhead(); cap(plain) < need {
		plain = make([]byte, 0, need)
	}
	n := first
	for ok := it.First(); ok; ok = it.Next() {
		if plain, err = s.openFrames(plain, n, [][]byte{it.Value()}); err != nil {
			return out, err
		}
		n++
	}
	if err := iterError(it); err != nil {
		return out, err
	}
	if n != last {
		return out, fcp.Errorf(fcp.CodeCorrupt, "segment %s lacks frame %d", fcp.SegmentID(s.rem.Segment), n)
	}
	return Part{Bytes: plain[from-at : to-at], Decrypted: len(plain), Buf: plain}, nil
}
