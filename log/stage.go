package log

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/cockroachdb/pebble/v2"

	"fcp"
)

// A Stage writes large events of the data plane straight into segments: their
// bytes go to the disk once, in a table of frames, and never through the write-ahead
// log. It has the crash points of a seal: until its one commit nothing refers to the
// frames, and Open drops them.
//
// While a Stage is open, appends to its feed wait for it and nothing is sealed, so
// it belongs to a caller that has its events at hand. Not safe for concurrent use.
type Stage struct {
	l        *Log
	feed     fcp.Feed
	id       fcp.FeedID
	f        *feed // the log's, or one that has no number yet
	end      cut   // behind the last event added
	previous fcp.SegmentID
	table    *frameTable
	tables   int              // begun
	turn     int64            // stageTable
	taking   chan error       // the table before on its way into the store; nil: there is none
	under    []*stagedSegment // being encrypted, in order
	spare    []*stagedSegment // their memory, to be used again
	round    []*segmentDraft
	events   []Applied
	salts    []byte
	bytes    int64
}

// stagedSegment is a segment that is being encrypted, and its memory.
type stagedSegment struct {
	draft      *segmentDraft
	plain      []byte // of the event in it
	pack       packer
	ciphertext []byte
	done       chan error
}

// stageAhead is how many segments are on their way to the table.
const stageAhead = 3

// MaxStage bounds what one Stage takes, in bytes of event contents, and shortStage
// what it takes while others wait.
const (
	MaxStage   = 256 << 20
	shortStage = 16 << 20
)

// stageTable is when a table of frames is taken into the store, while the next one is
// being filled.
const stageTable = 64 << 20

// stageFrame is the plaintext of a staged segment's frames: half of the usual, so
// that a small part of a large body is read by decrypting little.
const stageFrame = frameSize / 2

// StagedEvent is an event of the data plane made ready for a Stage: encoded and
// hashed, which is most of the work and may be done in any goroutine. The Applier is
// shown no more of the body than its first byte.
type StagedEvent struct {
	draft Draft
	buf   []byte // blockRoom bytes, then the content
}

// blockRoom is at least what stands in front of a content in a block of its own.
const blockRoom = 128

// Prepare encodes and hashes a draft. Its body is what seal appends to the slice it
// is given: size bytes. Nothing of the draft is kept but what its Content says.
func (s *StagedEvent) Prepare(d Draft, size int, seal func(dst []byte) []byte) error {
	if d.Plane != fcp.PlaneData {
		return fcp.Errorf(fcp.CodeWrongPlane, "only events of the data plane are staged")
	}
	c := &d.Content
	c.Body = nil
	if need := blockRoom + c.EncodedSize() + size; cap(s.buf) < need {
		s.buf = make([]byte, 0, need)
	}
	s.buf = c.AppendHead(s.buf[:blockRoom], size)
	head := len(s.buf)
	s.buf = seal(s.buf)
	if c.Body = s.buf[head:]; len(c.Body) != size {
		return fcp.Errorf(fcp.CodeInternal, "a body of %d bytes where %d were promised", len(c.Body), size)
	}
	if err := c.Validate(d.Plane); err != nil {
		return err
	}
	s.draft = d
	s.draft.content = s.buf[blockRoom:]
	s.draft.hash = fcp.ContentHash(s.draft.content)
	s.draft.Content.Body = bytes.Clone(c.Body[:min(1, size)])
	return nil
}

// stagedLocked reports whether a request must wait for the open Stage.
func (l *Log) stagedLocked(r *request) bool {
	if l.staged == nil || r.foreign != nil {
		return false
	}
	for i := range r.drafts {
		if r.drafts[i].Plane == l.staged.Plane && r.drafts[i].Zone == l.staged.Zone {
			return true
		}
	}
	return false
}

// Stage opens a Stage on this node's data feed of a zone. It must be ended with
// Commit or Abort. Events of the feed that are not sealed yet are sealed first.
func (l *Log) Stage(ctx context.Context, zone fcp.ZoneID) (*Stage, error) {
	if err := l.writable(); err != nil {
		return nil, err
	}
	if l.opts.Sealer == nil || l.opts.Signer == nil {
		return nil, fcp.Errorf(fcp.CodeUnauthorized, "staging needs zone keys and the node's signing key")
	}
	s := &Stage{l: l, turn: stageTable, feed: fcp.Feed{Zone: zone, Writer: l.opts.Writer, Incarnation: l.incarnation.Load(), Plane: fcp.PlaneData}}
	s.id = s.feed.ID()
	l.stageMu.Lock()
	l.mu.Lock()
	l.staged = &s.feed
	l.mu.Unlock()
	// What joined a group before the feed was taken is committed before this is.
	err := l.submit(ctx, &request{})
	l.sealMu.Lock()
	if err == nil && s.feed.Incarnation != l.incarnation.Load() {
		err = fcp.Errorf(fcp.CodeConflict, "this node began a new incarnation meanwhile").WithNext("write again")
	}
	if err == nil {
		err = s.begin(ctx)
	}
	if err != nil {
		s.release()
		return nil, err
	}
	return s, nil
}

func (s *Stage) begin(ctx context.Context) error {
	l := s.l
	if err := l.writable(); err != nil { // closed while this waited
		return err
	}
	l.mu.Lock()
	s.f = l.byFeed[s.feed]
	l.mu.Unlock()
	if s.f == nil { // it gets its number when it is stored
		s.f = &feed{feed: s.feed, id: s.id, own: true}
	} else if _, err := l.sealDueLocked(ctx, func(f *feed) bool { return f == s.f && f.durable.seq > f.sealed }); err != nil {
		return err
	}
	l.mu.Lock()
	s.end.head.copyFrom(&s.f.durable)
	s.previous = s.f.sealedID
	sealed := s.f.sealed
	l.mu.Unlock()
	if sealed != s.end.seq {
		return fcp.Errorf(fcp.CodeInternal, "feed %d stands at %d and is sealed to %d", s.f.no, s.end.seq, sealed)
	}
	return s.nextTable()
}

// nextTable begins a table of frames.
func (s *Stage) nextTable() (err error) {
	s.table, err = s.l.frameTable(s.l.tablePath(s.tables%tablePaths), true)
	s.tables++
	return err
}

// Full reports whether the Stage should be committed before more is added: it holds
// MaxStage bytes, or fewer while appends wait for it.
func (s *Stage) Full() bool {
	if s.bytes < shortStage {
		return false
	}
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.bytes >= MaxStage || s.l.waitRoom != nil
}

// Len returns how many events were added.
func (s *Stage) Len() int { return len(s.events) }

// Add gives an event its place and has its segment written. Its body must not be empty.
// The event's memory stays with the Stage; the event gets other memory for the next
// Prepare. What encrypts the segment is returned, to be called once, in any
// goroutine: later calls of Add, Commit and Abort wait for that. After an error the
// Stage can only be aborted.
func (s *Stage) Add(e *StagedEvent) (encrypt func(), err error) {
	l, d := s.l, &e.draft
	if l.full.Load() {
		return nil, l.diskFull()
	}
	if d.Zone != s.feed.Zone {
		return nil, fcp.Errorf(fcp.CodeCrossZone, "%s and %s", s.feed.Zone, d.Zone)
	}
	if err := s.write(stageAhead - 1); err != nil {
		return nil, err
	}
	prev := s.end.head.hash
	t := max(l.clock.Reserve(1), s.end.time+1)
	s.end.hash = fcp.EventHash(fcp.ScopeHash(s.id, d.Under), s.end.seq+1, t, prev, d.hash)
	s.end.seq, s.end.time = s.end.seq+1, t
	s.end.tree.append(s.end.hash, nil)
	w := s.spareSegment()
	w.draft = s.draft(d, prev)
	w.pack.reset(false)
	w.pack.frame = stageFrame
	h := blockHeader{first: s.end.seq, count: 1, chained: true, prev: prev, under: d.Under, time: t}
	w.plain, e.buf = e.buf, w.plain
	w.pack.out = frontBlock(&h, w.plain)
	w.pack.blocks = append(w.pack.blocks, sealBlock{s.end.seq, 0, len(w.pack.out)})
	s.under = append(s.under, w)
	s.round = append(s.round, w.draft)
	s.events = append(s.events, Applied{Placed: Placed{Seq: s.end.seq, Time: t, Hash: s.end.hash}, Under: d.Under, Content: d.Content})
	s.salts = append(s.salts, d.Salt[:]...)
	s.bytes += int64(len(d.content))
	return func() { w.done <- l.encryptTo(w.draft, &w.pack, w.buffer) }, nil
}

// frontBlock writes what a block has in front of its one content into the room before
// it, and returns the block.
func frontBlock(h *blockHeader, b []byte) []byte {
	var front [blockRoom]byte
	f := h.appendTo(front[:0])
	f = binary.AppendUvarint(f, 0) // the first step
	f = binary.AppendUvarint(f, uint64(len(b)-blockRoom))
	from := blockRoom - len(f)
	copy(b[from:], f)
	return b[from:]
}

func (s *Stage) spareSegment() *stagedSegment {
	if n := len(s.spare); n > 0 {
		w := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return w
	}
	return &stagedSegment{done: make(chan error, 1)}
}

func (w *stagedSegment) buffer(size int) []byte {
	if cap(w.ciphertext) < size {
		w.ciphertext = make([]byte, 0, size)
	}
	return w.ciphertext[:0]
}

// write puts segments into the table, in order, until no more than left are still
// being encrypted.
func (s *Stage) write(left int) error {
	for len(s.under) > left {
		w := s.under[0]
		s.under = s.under[1:]
		if err := <-w.done; err != nil {
			return err
		}
		d := w.draft
		if !s.previous.IsZero() {
			d.rem.Previous = bytes.Clone(s.previous[:])
		}
		s.previous = fcp.SegmentID(d.rem.Segment)
		if err := errors.Join(d.encode(), s.table.add(d)); err != nil {
			return err
		}
		d.frames, d.ciphertext, w.pack.out = nil, nil, nil
		s.spare = append(s.spare, w)
		if s.table.bytes >= s.turn {
			if err := s.turnTable(); err != nil {
				return err
			}
		}
	}
	return nil
}

// turnTable lets the present table go into the store on its own and begins another
// one. The table before must be in by then.
func (s *Stage) turnTable() error {
	if err := s.taken(); err != nil {
		return err
	}
	l, t := s.l, s.table
	s.taking = make(chan error, 1)
	go func(done chan<- error) { done <- l.takeIn(context.Background(), t) }(s.taking)
	s.table = nil
	return s.nextTable()
}

// taken waits for the table before.
func (s *Stage) taken() error {
	if s.taking == nil {
		return nil
	}
	err := <-s.taking
	s.taking = nil
	return err
}

// draft makes the segment of the event that was just given its place.
func (s *Stage) draft(d *Draft, prev fcp.Hash) *segmentDraft {
	out := &segmentDraft{f: s.f, no: s.l.nextSegment + uint64(len(s.round)), first: s.end.seq, under: d.Under}
	out.end.head.copyFrom(&s.end.head)
	root, object := out.end.tree.root(), d.Content.Object
	out.rem = Remainder{Format: remainderFormat, Zone: s.feed.Zone, Writer: s.feed.Writer[:], Incarnation: s.feed.Incarnation,
		Plane: uint64(s.feed.Plane), First: s.end.seq, Last: s.end.seq, Time: uint64(s.end.time),
		Prev: prev[:], Head: out.end.hash[:], Root: root[:], Objects: object[:], Seqs: []uint64{0}}
	return out
}

// Commit makes everything that was added durable in one step, and ends the Stage.
// A nil error means on disk. After an error nothing of it is in the log, unless the
// error is CodeCrashed, CodeTimeout or CodeInterrupted: then it may be.
func (s *Stage) Commit(ctx context.Context) ([]Placed, error) {
	if len(s.round) == 0 {
		return nil, s.Abort()
	}
	if err := errors.Join(s.write(0), s.taken()); err != nil {
		return nil, errors.Join(err, s.Abort())
	}
	if s.table.bytes > 0 {
		t := s.table
		s.table = nil
		if err := s.l.takeIn(ctx, t); err != nil {
			return nil, errors.Join(err, s.Abort())
		}
	} else if err := s.l.dropTable(s.table); err != nil {
		s.table = nil
		return nil, errors.Join(err, s.Abort())
	}
	defer s.release()
	l := s.l
	l.nextSegment += uint64(len(s.round))
	if _, err := l.announce(ctx, s.round, s.commit); err != nil {
		return nil, err
	}
	out := make([]Placed, len(s.events))
	for i := range s.events {
		out[i] = s.events[i].Placed
	}
	return out, nil
}

// commit adds the events to the batch of their segment.sealed events. Only the
// leader calls it.
func (s *Stage) commit(b *pebble.Batch) error {
	for i, d := range s.round {
		if err := s.l.writeImported(b, d, s.events[i:i+1]); err != nil {
			return err
		}
	}
	return b.Set(keyOfSeq(keySalts, s.f.no, s.round[0].first), s.salts, nil)
}

// Abort gives up what was added and ends the Stage.
func (s *Stage) Abort() (err error) {
	defer s.release()
	for _, w := range s.under {
		<-w.done // nobody listens to its error any more
	}
	_ = s.taken() // nor to this: its frames are dropped
	l := s.l
	if s.table != nil {
		err = l.dropTable(s.table)
	}
	if s.tables > 1 && l.Crashed() == nil {
		end := l.nextSegment + uint64(len(s.round))
		err = errors.Join(err, l.dropFrames(l.nextSegment, end))
		l.nextSegment = end
	}
	return err
}

func (s *Stage) release() {
	l := s.l
	l.sealMu.Unlock()
	l.mu.Lock()
	l.staged = nil
	l.makeRoomLocked()
	l.mu.Unlock()
	l.stageMu.Unlock()
}
