package log

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// cursor reads a feed's stored blocks in order: sealed segments, then the hot
// log. It is used by one goroutine.
type cursor struct {
	l    *Log
	snap *pebble.Snapshot
	no   FeedNo

	at      uint64 // first event of the block under the cursor; 0: there is none
	taken   bool   // that block was handed out: advance before looking
	from    uint64 // its first event, and behind its last: what a seek may
	to      uint64 // continue from
	seg     *openSegment
	block   int    // of seg
	hotFrom uint64 // known: no segment holds it or what is behind; 0: not known

	frames   *pebble.Iterator
	frameKey [frameKeySize]byte // under frames, handed out already
	hot      *pebble.Iterator
}

const frameKeySize = 1 + 8 + 4

// seek moves to the first block that begins at or behind seq; with within to the
// block that holds seq.
func (c *cursor) seek(seq uint64, within bool) error {
	if c.taken && !within && c.from < seq && seq <= c.to {
		return nil
	}
	c.taken, c.at = false, 0
	if c.seg == nil || seq < c.seg.rem.First || seq > c.seg.rem.Last {
		if err := c.find(seq); err != nil {
			return err
		}
	}
	if c.seg == nil {
		return c.seekHot(seq, within)
	}
	c.block = 0
	if r := &c.seg.rem; seq > r.First {
		c.block = r.blockOf(seq)
		if !within && r.First+r.Blocks[2*c.block+1] < seq {
			c.block++
		}
	}
	return c.settle()
}

// find makes the segment that holds seq, or the first behind it, current.
func (c *cursor) find(seq uint64) error {
	c.seg = nil
	if c.hotFrom != 0 && seq >= c.hotFrom {
		return nil
	}
	ref, ok, err := sealedAt(c.snap, c.no, seq)
	if err != nil {
		return err
	}
	if !ok {
		c.hotFrom = seq
		return nil
	}
	c.seg, err = c.l.openSegmentIn(c.snap, ref.segment)
	return err
}

// settle finds where the block under the cursor is when the segment may be over.
func (c *cursor) settle() error {
	for c.block == c.seg.rem.blocks() {
		next := c.seg.rem.Last + 1
		if err := c.find(next); err != nil {
			return err
		}
		if c.block = 0; c.seg == nil {
			return c.seekHot(next, true)
		}
	}
	c.at = c.seg.rem.First + c.seg.rem.Blocks[2*c.block+1]
	return nil
}

func (c *cursor) seekHot(seq uint64, within bool) error {
	if c.hot == nil {
		it, err := c.snap.NewIter(&pebble.IterOptions{LowerBound: keyOfSeq(keyHot, c.no, 0), UpperBound: keyOfSeq(keyHot, c.no+1, 0)})
		if err != nil {
			return readError(err)
		}
		c.hot = it
	}
	switch {
	case !within:
		c.hot.SeekGE(keyOfSeq(keyHot, c.no, seq))
	case !c.hot.SeekLT(keyOfSeq(keyHot, c.no, seq+1)):
		c.hot.First()
	}
	return c.hotAt()
}

func (c *cursor) hotAt() error {
	if c.at = 0; !c.hot.Valid() {
		return iterError(c.hot)
	}
	_, c.at = splitSeqKey(c.hot.Key())
	return nil
}

// peek returns the first event of the block under the cursor, 0 at the end.
func (c *cursor) peek() (first uint64, err error) {
	if c.taken {
		if c.taken = false; c.seg != nil {
			err = c.settle()
		} else {
			c.hot.Next()
			err = c.hotAt()
		}
	}
	return c.at, err
}

// take hands out the block under the cursor, of which there must be one. A sealed
// block is decrypted behind buf; a hot one is copied there with keep, and is else
// valid until the cursor moves. endOf is the segment that the block ends.
func (c *cursor) take(buf []byte, keep bool) (block, grown []byte, endOf *Remainder, err error) {
	var n int
	c.taken = true
	if c.seg == nil {
		if _, block, err = splitHot(c.hot.Value()); err != nil || !keep {
			return block, buf, nil, err
		}
		buf = room(buf, len(block))
		n = len(buf)
		buf = append(buf, block...)
	} else {
		from, to := c.seg.rem.frameRange(c.block)
		size := 0
		for i := from; i < to; i++ {
			size += int(c.seg.rem.Frames[i])
		}
		buf = room(buf, size)
		n = len(buf)
		for i := from; i < to; i++ {
			f, err := c.frame(i)
			if err != nil {
				return nil, nil, nil, err
			}
			if buf, err = c.seg.openFrames(buf, i, [][]byte{f}); err != nil {
				return nil, nil, nil, err
			}
		}
		if c.block++; c.block == c.seg.rem.blocks() {
			endOf = &c.seg.rem
		}
	}
	return buf[n:len(buf):len(buf)], buf, endOf, nil
}

// room returns buf if n bytes fit behind it, else a new buffer: blocks handed out
// go on sharing the old one.
func room(buf []byte, n int) []byte {
	if len(buf)+n <= cap(buf) {
		return buf
	}
	return make([]byte, 0, max(2*cap(buf), n+n/8))
}

// frame returns the ciphertext of a frame of the current segment, valid until the
// next call.
func (c *cursor) frame(i int) ([]byte, error) {
	if c.frames == nil {
		it, err := c.snap.NewIter(&pebble.IterOptions{LowerBound: []byte{keyFrame}, UpperBound: []byte{keyFrame + 1}})
		if err != nil {
			return nil, readError(err)
		}
		c.frames = it
	}
	want := [frameKeySize]byte(keyOfFrame(c.seg.no, uint32(i)))
	next := c.frameKey
	binary.BigEndian.PutUint32(next[9:], binary.BigEndian.Uint32(next[9:])+1)
	if want != next || !c.frames.Next() || !bytes.Equal(c.frames.Key(), want[:]) {
		if !c.frames.SeekGE(want[:]) || !bytes.Equal(c.frames.Key(), want[:]) {
			return nil, errors.Join(fcp.Errorf(fcp.CodeCorrupt, "segment %s lacks frame %d", fcp.SegmentID(c.seg.rem.Segment), i), iterError(c.frames))
		}
	}
	c.frameKey = want
	return c.frames.Value(), nil
}

func (c *cursor) close() error {
	var err error
	if c.frames != nil {
		err = c.frames.Close()
	}
	if c.hot != nil {
		err = errors.Join(err, c.hot.Close())
	}
	return readError(err)
}

// lastSeq returns the sequence number of the block's last event.
func (h *blockHeader) lastSeq() uint64 { return h.first + uint64(h.count) - 1 }
