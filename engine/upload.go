package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// stageIdle is how long a Stage stays open when the body has nothing more to give:
// appends to the zone's data feed wait for it.
const stageIdle = 20 * time.Millisecond

// putChunked writes a payload of more than one chunk: the chunks first, straight
// into segments, then the manifest under the name. A reader never sees a version
// whose chunks are not on disk. A chunk's id is that of its content, so one that the
// zone has already is not written again: that is how an interrupted put goes on
// where it stopped. Chunks of a put that is never finished are dead space.
func (w *write) putChunked(ctx context.Context, first []byte, rest io.Reader, dry bool) (PutResult, error) {
	body := io.Reader(bytes.NewReader(first))
	if rest != nil {
		body = io.MultiReader(body, rest)
	}
	u := newUpload(ctx, w, dry)
	defer func() { w.e.holds.release(u.held) }()
	if err := u.run(body); err != nil {
		return PutResult{}, err
	}
	m := chunkManifest{TotalLen: u.total, ChunkSize: fcp.ChunkSize, Chunks: u.ids}
	if err := m.check(); err != nil {
		return PutResult{}, fcp.Wrap(fcp.CodeInternal, err, "the manifest of a put")
	}
	encoded, err := fcp.Marshal(&m)
	if err != nil {
		return PutResult{}, err
	}
	w.size = u.total
	if err := w.seal(fcp.SchemaChunkedManifest, encoded); err != nil {
		return PutResult{}, err
	}
	if !dry && w.body == nil {
		if err := w.stageBody(ctx); err != nil {
			return PutResult{}, err
		}
	}
	out, err := w.commit(ctx, dry)
	out.Chunks, out.Reused = len(u.ids), u.reused
	if dry {
		out.Planned = append(u.planned, out.Planned...)
	}
	return out, err
}

// stageBody writes the sealed body into a segment of its own, ahead of the event
// that names it, so that a range of a large object needs little of its manifest.
func (w *write) stageBody(ctx context.Context) error {
	if w.e.holds.hold(w.object) {
		defer w.e.holds.release([]fcp.ObjectID{w.object})
	}
	var ev log.StagedEvent
	err := ev.Prepare(log.Draft{Zone: w.zone.zone, Plane: fcp.PlaneData, Under: w.e.genesis.ID, Salt: w.salt,
		Content: fcp.Content{Kind: fcp.KindObjectBody, Object: w.object}}, len(w.bodySeal),
		func(dst []byte) []byte { return append(dst, w.bodySeal...) })
	if err != nil {
		return err
	}
	s, err := w.e.log.Stage(ctx, w.zone.zone)
	if err != nil {
		return err
	}
	encrypt, err := s.Add(&ev)
	if err != nil {
		return errors.Join(err, s.Abort())
	}
	encrypt()
	_, err = s.Commit(ctx)
	w.staged = err == nil
	return err
}

// upload streams chunks into the log in steps that work side by side: the caller's
// goroutine reads, one worker per processor hashes and encrypts, and one goroutine
// gives them their places and writes them in order. No more goroutines than
// processors have much to do, or the one that writes would wait for its turn.
type upload struct {
	w      *write
	ctx    context.Context
	cancel context.CancelCauseFunc
	dry    bool

	raws  chan []byte // memory of chunks that are not sealed yet
	free  chan *piece
	todo  chan *piece
	order chan *piece // in the body's order
	last  chan func() // encrypts a segment; closed when everything is written

	total   uint64         // bytes read; owned by run
	ids     []fcp.ObjectID // one for each chunk; owned by the writing goroutine, as what follows
	planned []PlannedEvent
	reused  int
	fresh   map[fcp.ObjectID]bool // written by this upload

	mu   sync.Mutex
	held []fcp.ObjectID // kept from being collected until the manifest is there; guarded by mu
}

// piece is one chunk in flight.
type piece struct {
	raw    []byte // until it is sealed
	size   int
	salt   authority.Salt
	id     fcp.ObjectID
	stored bool // the zone has the chunk
	event  log.StagedEvent
	err    error
	done   chan struct{} // has a token when the worker is through
}

// piecesAhead is how many chunks may be ready while others become durable.
const piecesAhead = 4

func newUpload(ctx context.Context, w *write, dry bool) *upload {
	inFlight := runtime.GOMAXPROCS(0) + piecesAhead
	u := &upload{w: w, dry: dry, fresh: map[fcp.ObjectID]bool{}, free: make(chan *piece, inFlight),
		todo: make(chan *piece, inFlight), order: make(chan *piece, inFlight), last: make(chan func(), inFlight)}
	u.ctx, u.cancel = context.WithCancelCause(ctx)
	u.raws = make(chan []byte, runtime.GOMAXPROCS(0)+1)
	for range cap(u.raws) {
		u.raws <- nil
	}
	for range inFlight {
		u.free <- &piece{done: make(chan struct{}, 1)}
	}
	return u
}

// run uploads a body and returns when everything of it is on disk. When it is
// interrupted or the body fails, what was ready by then is on disk.
func (u *upload) run(body io.Reader) error {
	defer u.cancel(nil)
	var working sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		working.Go(u.work)
	}
	written := make(chan error, 1)
	go func() {
		err := u.writeAll()
		if err != nil {
			u.cancel(err)
		}
		close(u.last)
		written <- err
	}()
	err := u.read(body)
	close(u.order)
	werr := <-written
	working.Wait()
	if werr != nil {
		return werr
	}
	return err
}

// work does what takes the processor, the last step of earlier chunks before the
// first of later ones, until everything is written.
func (u *upload) work() {
	for {
		select {
		case encrypt, ok := <-u.last:
			if !ok {
				return
			}
			encrypt()
			continue
		default:
		}
		select {
		case encrypt, ok := <-u.last:
			if !ok {
				return
			}
			encrypt()
		case p := <-u.todo:
			p.err = u.prepare(p)
			u.raws <- p.raw
			p.raw = nil
			p.done <- struct{}{}
		}
	}
}

// read cuts the body into chunks until it ends or something fails.
func (u *upload) read(body io.Reader) error {
	for n := 0; ; n++ {
		var p *piece
		select {
		case p = <-u.free:
		case <-u.ctx.Done():
			return interrupted(u.ctx)
		}
		if p.raw = <-u.raws; p.raw == nil {
			p.raw = make([]byte, fcp.ChunkSize)
		}
		got, err := fill(body, p.raw[:fcp.ChunkSize])
		switch {
		case got == 0 && errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, io.EOF):
			return fcp.Wrap(fcp.CodeInvalidArgument, err, "read the body")
		case n >= MaxChunks:
			return fcp.Errorf(fcp.CodeTooLarge, "a body of more than %d bytes", MaxChunks*fcp.ChunkSize)
		}
		var serr error
		if p.salt, serr = u.w.salts.next(u.w.e.env.Rand); serr != nil {
			return serr
		}
		p.raw, p.size = p.raw[:got], got
		u.total += uint64(got)
		u.todo <- p
		u.order <- p
		if err != nil { // the short last chunk
			return nil
		}
	}
}

// fill reads until b is full or r ends, which is io.EOF. It is not io.ReadFull, whose
// io.ErrUnexpectedEOF for an end is also what a body says that was cut off.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	if n == len(b) && errors.Is(err, io.EOF) {
		err = nil // told again by the next read
	}
	return n, err
}

// prepare names a chunk and, unless the zone has it, seals it.
func (u *upload) prepare(p *piece) (err error) {
	z := u.w.zone
	p.id = z.current().KeyedObjectID(fcp.SchemaRawChunk.Hash(), p.raw)
	if !u.dry && u.w.e.holds.hold(p.id) {
		u.mu.Lock()
		u.held = append(u.held, p.id)
		u.mu.Unlock()
	} else if !u.dry { // its body is being dropped right now
		p.stored = false
		return u.sealPiece(p)
	}
	if p.stored, err = u.w.e.hasChunk(z.zone, p.id); err != nil || p.stored || u.dry {
		return err
	}
	return u.sealPiece(p)
}

func (u *upload) sealPiece(p *piece) error {
	z := u.w.zone
	return p.event.Prepare(log.Draft{Zone: z.zone, Plane: fcp.PlaneData, Under: u.w.e.genesis.ID, Salt: p.salt,
		Content: fcp.Content{Kind: fcp.KindChunkPut, Object: p.id, Size: uint64(len(p.raw))}},
		authority.SealedBodyLen(len(p.raw)),
		func(dst []byte) []byte { return z.current().SealBody(dst, p.id, p.salt, p.raw) })
}

// hasChunk reports whether a chunk is in the log and can be read.
func (e *Engine) hasChunk(zone fcp.ZoneID, id fcp.ObjectID) (bool, error) {
	p, ok, err := e.placeOf(zone, projBodies, id[:])
	if err != nil || !ok {
		return false, err
	}
	salt, err := e.log.Salt(p.feed, p.seq)
	return err == nil && e.checkSalt(zone, salt, id) == nil, err
}

// writeAll takes the pieces in order and writes those that are new. A Stage is open
// only while pieces come.
func (u *upload) writeAll() (err error) {
	var s *log.Stage
	commit := func() error {
		if s == nil {
			return nil
		}
		_, err := s.Commit(context.WithoutCancel(u.ctx))
		s = nil
		return err
	}
	idle := time.NewTimer(stageIdle)
	defer idle.Stop()
	for {
		var p *piece
		var more bool
		select {
		case p, more = <-u.order:
		default:
			idle.Reset(stageIdle)
			select {
			case p, more = <-u.order:
			case <-idle.C:
				if err := commit(); err != nil {
					return err
				}
				p, more = <-u.order
			}
		}
		if !more {
			return commit()
		}
		<-p.done
		if p.err != nil {
			return errors.Join(p.err, commit())
		}
		if u.note(p) {
			if s, err = u.stage(s, &p.event); err != nil {
				return err
			}
			if s.Full() {
				if err := commit(); err != nil {
					return err
				}
			}
		}
		u.free <- p
	}
}

// stage adds an event to the open Stage, or to a new one.
func (u *upload) stage(s *log.Stage, ev *log.StagedEvent) (_ *log.Stage, err error) {
	if s == nil {
		if s, err = u.w.e.log.Stage(context.WithoutCancel(u.ctx), u.w.zone.zone); err != nil {
			return nil, err
		}
	}
	encrypt, err := s.Add(ev)
	if err != nil {
		return nil, errors.Join(err, s.Abort())
	}
	u.last <- encrypt
	return s, nil
}

// note records a chunk and reports whether it is to be written.
func (u *upload) note(p *piece) bool {
	u.ids = append(u.ids, p.id)
	if p.stored || u.fresh[p.id] {
		u.reused++
		return false
	}
	u.fresh[p.id] = true
	if u.dry {
		u.planned = append(u.planned, PlannedEvent{Plane: fcp.PlaneData.String(), Kind: fcp.KindChunkPut.String(), Object: p.id,
			Body: authority.SealedBodyLen(p.size)})
	}
	return !u.dry
}
