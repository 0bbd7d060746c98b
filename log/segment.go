package log

import (
	"bytes"
	"container/list"
	"encoding/binary"
	"errors"
	"io"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// frameSize is the plaintext of one frame of a segment. A block that fits starts
// a frame of its own, so that reading one event opens one frame; a larger block
// (one big event) fills several.
const frameSize = 64 << 10

// Formats of a remainder: that of a sealed run, and that of a compacted segment.
const (
	remainderFormat = 1
	compactedFormat = 2
)

// reading is what both the store and a snapshot of it can do.
type reading interface {
	NewIter(*pebble.IterOptions) (*pebble.Iterator, error)
	Get(key []byte) ([]byte, io.Closer, error)
}

// Limits of a remainder. A segment of MaxSegment bytes in the smallest events
// stays below them.
const (
	maxFrames       = fcp.MaxSegment/frameSize + fcp.MaxSegment/1024
	maxSegmentCount = fcp.MaxSegment / 8
)

// DecodeRemainder decodes the body of a segment.sealed event and checks that its
// parts fit together. It does not verify the card's signature.
func DecodeRemainder(b []byte) (Remainder, error) {
	var r Remainder
	if len(b) > fcp.MaxClearBody {
		return r, fcp.Errorf(fcp.CodeTooLarge, "a segment remainder of %d bytes", len(b))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaSegmentRemainder, b, &r); err != nil {
		return Remainder{}, err
	}
	if r.Format != remainderFormat && r.Format != compactedFormat {
		return Remainder{}, fcp.Errorf(fcp.CodeVersion, "segment remainder format %d, this build knows %d and %d", r.Format, remainderFormat, compactedFormat)
	}
	if err := r.check(); err != nil {
		return Remainder{}, err
	}
	return r, nil
}

func (r *Remainder) check() error {
	bad := func(what string) error { return fcp.Errorf(fcp.CodeMalformed, "segment remainder: %s", what) }
	if _, err := fcp.ParseZoneID(string(r.Zone)); err != nil {
		return err
	}
	for _, h := range [][]byte{r.Segment, r.Writer, r.Prev, r.Head, r.Root, r.ZoneKey} {
		if len(h) != fcp.HashSize {
			return bad("a hash of the wrong size")
		}
	}
	count := r.Last - r.First + 1
	switch {
	case r.Plane != uint64(fcp.PlaneControl) && r.Plane != uint64(fcp.PlaneData):
		return bad("plane")
	case r.First == 0 || r.Last < r.First || count > maxSegmentCount:
		return bad("sequence numbers")
	case len(r.Previous) != 0 && len(r.Previous) != fcp.HashSize:
		return bad("previous segment")
	case len(r.Frames) == 0 || len(r.Frames) > maxFrames:
		return bad("frames")
	case len(r.Blocks) == 0 || len(r.Blocks)%2 != 0 || len(r.Blocks) > 2*len(r.Frames):
		return bad("blocks")
	case len(r.Objects) != len(r.Seqs)*fcp.HashSize || uint64(len(r.Seqs)) > count:
		return bad("objects")
	case len(r.Key) == 0 || len(r.Key) > 256 || len(r.Card) == 0 || len(r.Card) > fcp.MaxCard:
		return bad("key or card")
	}
	compacted := r.Format == compactedFormat
	switch {
	case !compacted && (len(r.Replaces) > 0 || len(r.Ends) > 0 || r.Dropped > 0 || r.Horizon > 0):
		return bad("what it replaces")
	case compacted && (len(r.Replaces) == 0 || len(r.Replaces)%fcp.HashSize != 0 || uint64(len(r.Replaces)/fcp.HashSize) > count ||
		len(r.Ends) != fcp.HashSize || r.Dropped > count || uint64(len(r.Seqs)) > count-r.Dropped):
		return bad("what it replaces")
	}
	var plain uint64
	for _, n := range r.Frames {
		if n == 0 || n > frameSize {
			return bad("frame length")
		}
		plain += n
	}
	if plain != r.Plain {
		return bad("plaintext length")
	}
	for i := 0; i < len(r.Blocks); i += 2 {
		frame, seq := r.Blocks[i], r.Blocks[i+1]
		if frame >= uint64(len(r.Frames)) || seq >= count || (i == 0) != (frame == 0) || (i == 0) != (seq == 0) ||
			i > 0 && (frame <= r.Blocks[i-2] || seq <= r.Blocks[i-1]) {
			return bad("block index")
		}
	}
	for _, s := range r.Seqs {
		if s >= count {
			return bad("object index")
		}
	}
	return nil
}

// Run returns the run the segment holds.
func (r *Remainder) Run() Run { return Run{Feed: r.Feed(), First: r.First, Last: r.Last} }

// Compacted reports whether the segment stands in place of others.
func (r *Remainder) Compacted() bool { return r.Format == compactedFormat }

// Replaced returns the ids of the segments it stands for, in the feed's order.
func (r *Remainder) Replaced() []fcp.SegmentID {
	out := make([]fcp.SegmentID, 0, len(r.Replaces)/fcp.HashSize)
	for b := r.Replaces; len(b) >= fcp.HashSize; b = b[fcp.HashSize:] {
		out = append(out, fcp.SegmentID(b[:fcp.HashSize]))
	}
	return out
}

// endID is the id that the feed's next segment names as the one before.
func (r *Remainder) endID() fcp.SegmentID {
	if r.Compacted() {
		return fcp.SegmentID(r.Ends)
	}
	return fcp.SegmentID(r.Segment)
}

// blocks returns the number of blocks.
func (r *Remainder) blocks() int { return len(r.Blocks) / 2 }

// frameRange returns the frames [from, to) of block i.
func (r *Remainder) frameRange(i int) (from, to int) {
	from, to = int(r.Blocks[2*i]), len(r.Frames)
	if 2*i+2 < len(r.Blocks) {
		to = int(r.Blocks[2*i+2])
	}
	return from, to
}

// blockOf returns the block that holds seq.
func (r *Remainder) blockOf(seq uint64) int {
	i := 0
	for i+1 < r.blocks() && r.First+r.Blocks[2*i+3] <= seq {
		i++
	}
	return i
}

// sealedRef is a row of the index of a feed's segments.
type sealedRef struct {
	first, last uint64
	segment     uint64
	runs        []positionRange // positions of the events
}

func (s *sealedRef) value() []byte {
	b := binary.AppendUvarint(nil, s.segment)
	b = binary.AppendUvarint(b, s.last)
	return appendRuns(b, s.runs)
}

func parseSealed(k, v []byte) (s sealedRef, err error) {
	r := reader{b: v}
	if len(k) != feedSeqKeySize {
		r.bad = true
	} else {
		_, s.first = splitSeqKey(k)
	}
	s.segment, s.last = r.uvarint(), r.uvarint()
	s.runs = r.runs(0, s.first)
	if !r.done() || s.last < s.first {
		return s, fcp.Errorf(fcp.CodeCorrupt, "a record of the segment index does not decode")
	}
	return s, nil
}

// runs reads position runs; first is the sequence number of the first event.
func (r *reader) runs(no FeedNo, first uint64) []positionRange {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := make([]positionRange, 0, n)
	for range n {
		p := positionRange{position: r.uvarint(), feed: no, first: first, count: r.uvarint()}
		first += p.count
		out = append(out, p)
	}
	return out
}

// positionIn returns the position of seq among runs.
func positionIn(runs []positionRange, seq uint64) (uint64, bool) {
	for _, r := range runs {
		if seq >= r.first && seq-r.first < r.count {
			return r.position + seq - r.first, true
		}
	}
	return 0, false
}

// sealedAt is sealedAt in the store.
func (l *Log) sealedAt(no FeedNo, seq uint64) (s sealedRef, ok bool, err error) {
	if !l.life.Enter() {
		return s, false, l.errClosed()
	}
	defer l.life.Leave()
	return sealedAt(l.db, no, seq)
}

// sealedAt returns the row of the segment that holds seq, or the first behind it.
func sealedAt(db reading, no FeedNo, seq uint64) (s sealedRef, ok bool, err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: keyOfSeq(keySealed, no, 0), UpperBound: keyOfSeq(keySealed, no+1, 0)})
	if err != nil {
		return s, false, readError(err)
	}
	defer it.Close()
	if it.SeekLT(keyOfSeq(keySealed, no, seq+1)) {
		if s, err = parseSealed(it.Key(), it.Value()); err != nil || s.last >= seq {
			return s, err == nil, err
		}
	}
	if it.SeekGE(keyOfSeq(keySealed, no, seq+1)) {
		s, err = parseSealed(it.Key(), it.Value())
		return s, err == nil, err
	}
	return s, false, iterError(it)
}

// lastSealed returns the end of a feed's sealed part.
func (l *Log) lastSealed(no FeedNo) (seq uint64, id fcp.SegmentID, err error) {
	it, err := l.iter(keyOfSeq(keySealed, no, 0), keyOfSeq(keySealed, no+1, 0))
	if err != nil {
		return 0, id, err
	}
	defer it.Close()
	if !it.Last() {
		return 0, id, iterError(it)
	}
	s, err := parseSealed(it.Key(), it.Value())
	if err != nil {
		return 0, id, err
	}
	r, err := l.remainder(s.segment)
	if err != nil {
		return 0, id, err
	}
	return s.last, r.endID(), nil
}

func (l *Log) remainder(segment uint64) (Remainder, error) {
	if !l.life.Enter() {
		return Remainder{}, l.errClosed()
	}
	defer l.life.Leave()
	return remainderIn(l.db, segment)
}

// remainderIn reads a remainder from the store or from a snapshot of it.
func remainderIn(db reading, segment uint64) (r Remainder, err error) {
	v, closer, err := db.Get(key1(keySegment, segment))
	if errors.Is(err, pebble.ErrNotFound) {
		return r, fcp.Errorf(fcp.CodeNotFound, "segment %d", segment)
	}
	if err != nil {
		return r, readError(err)
	}
	r, err = DecodeRemainder(bytes.Clone(v)) // its slices may alias what they were decoded from
	return r, errors.Join(err, readError(closer.Close()))
}

// openSegment is a segment ready to be decrypted.
type openSegment struct {
	no     uint64
	rem    Remainder
	cipher SegmentCipher
}

func (l *Log) openSegment(no uint64) (*openSegment, error) {
	if !l.life.Enter() {
		return nil, l.errClosed()
	}
	defer l.life.Leave()
	return l.openSegmentIn(l.db, no)
}

// openSegmentIn opens a segment of the store or of a snapshot of it: a compaction
// may have dropped it since.
func (l *Log) openSegmentIn(db reading, no uint64) (*openSegment, error) {
	rem, err := remainderIn(db, no)
	if err != nil {
		return nil, err
	}
	if l.opts.Sealer == nil {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "segment %s is sealed and no zone keys are at hand", fcp.SegmentID(rem.Segment))
	}
	c, err := l.opts.Sealer.OpenSegment(rem.Run(), rem.Key, fcp.Hash(rem.ZoneKey))
	if err != nil {
		return nil, err
	}
	return &openSegment{no: no, rem: rem, cipher: c}, nil
}

// openFrames decrypts consecutive frames into dst.
func (s *openSegment) openFrames(dst []byte, from int, frames [][]byte) ([]byte, error) {
	for i, f := range frames {
		n := from + i
		if len(f) != int(s.rem.Frames[n])+s.cipher.Overhead() {
			return nil, fcp.Errorf(fcp.CodeCorrupt, "frame %d of segment %s has the wrong length", n, fcp.SegmentID(s.rem.Segment))
		}
		var err error
		dst, err = s.cipher.OpenFrame(dst, f, uint32(n), n == len(s.rem.Frames)-1)
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeCorrupt, err, "frame %d of segment %s", n, fcp.SegmentID(s.rem.Segment))
		}
	}
	return dst, nil
}

// readBlock decrypts block i of the segment from the store.
func (l *Log) readBlock(s *openSegment, i int) ([]byte, error) {
	from, to := s.rem.frameRange(i)
	it, err := l.iter(keyOfFrame(s.no, uint32(from)), keyOfFrame(s.no, uint32(to)))
	if err != nil {
		return nil, err
	}
	defer it.Close()
	var out []byte
	n := from
	for ok := it.First(); ok; ok = it.Next() {
		if out, err = s.openFrames(out, n, [][]byte{it.Value()}); err != nil {
			return nil, err
		}
		n++
	}
	if n != to {
		return nil, fcp.Errorf(fcp.CodeCorrupt, "segment %s lacks frame %d", fcp.SegmentID(s.rem.Segment), n)
	}
	return out, iterError(it)
}

// Ciphertext returns a sealed segment's whole ciphertext.
func (l *Log) Ciphertext(segment uint64) ([]byte, error) {
	return l.AppendCiphertext(nil, segment)
}

// AppendCiphertext appends to b what Ciphertext returns.
func (l *Log) AppendCiphertext(b []byte, segment uint64) ([]byte, error) {
	size := len(b)
	err := l.scanPrefix(key1(keyFrame, segment), func(_, v []byte) error {
		b = append(b, v...)
		return nil
	})
	if err == nil && len(b) == size {
		err = fcp.Errorf(fcp.CodeNotFound, "segment %d", segment)
	}
	return b, err
}

// Segments calls fn for every sealed segment in sealing order.
func (l *Log) Segments(fn func(SegmentInfo) error) error {
	return l.scanPrefix([]byte{keySegment}, func(k, v []byte) error {
		rem, err := DecodeRemainder(v)
		if err != nil {
			return err
		}
		card, err := fcp.DecodeCard(rem.Card)
		if err != nil {
			return err
		}
		return fn(SegmentInfo{No: binary.BigEndian.Uint64(k[1:]), Card: card, CardBytes: rem.Card, Remainder: rem})
	})
}

// FindSegment returns the local number of a segment.
func (l *Log) FindSegment(id fcp.SegmentID) (no uint64, ok bool, err error) {
	v, ok, err := l.get(keyOfID(id))
	if !ok || err != nil {
		return 0, false, err
	}
	if len(v) != 8 {
		return 0, false, fcp.Errorf(fcp.CodeCorrupt, "a record of the segment id index does not decode")
	}
	return binary.BigEndian.Uint64(v), true, nil
}

// frameCache keeps decrypted blocks and opened segments, least recently used out.
type frameCache struct {
	limit int64

	mu    sync.Mutex
	size  int64                      // guarded by mu
	order list.List                  // of cacheEntry, most recent first; guarded by mu
	items map[cacheKey]*list.Element // guarded by mu
}

type cacheKey struct {
	segment uint64
	block   int // -1: the openSegment itself
}

type cacheEntry struct {
	key   cacheKey
	block []byte
	seg   *openSegment
}

func (c *frameCache) get(k cacheKey) (cacheEntry, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.items[k]
	if !ok {
		return cacheEntry{}, false
	}
	c.order.MoveToFront(e)
	return e.Value.(cacheEntry), true
}

func (c *frameCache) put(e cacheEntry) {
	const perSegment = 4 << 10 // a parsed remainder and its cipher
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = map[cacheKey]*list.Element{}
	}
	if _, ok := c.items[e.key]; ok {
		return
	}
	c.items[e.key] = c.order.PushFront(e)
	c.size += int64(len(e.block)) + perSegment
	for c.size > c.limit && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(cacheEntry)
		delete(c.items, old.key)
		c.size -= int64(len(old.block)) + perSegment
	}
}

// cachedSegment opens a segment through the cache.
func (l *Log) cachedSegment(no uint64) (*openSegment, error) {
	if e, ok := l.frames.get(cacheKey{no, -1}); ok {
		return e.seg, nil
	}
	s, err := l.openSegment(no)
	if err == nil {
		l.frames.put(cacheEntry{key: cacheKey{no, -1}, seg: s})
	}
	return s, err
}

func (l *Log) cachedBlock(s *openSegment, i int) ([]byte, error) {
	if e, ok := l.frames.get(cacheKey{s.no, i}); ok {
		return e.block, nil
	}
	b, err := l.readBlock(s, i)
	if err == nil {
		l.frames.put(cacheEntry{key: cacheKey{s.no, i}, block: b})
	}
	return b, err
}
