package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"sync"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// chunkManifest is the payload of an object above one chunk
// (fcp.core:ChunkedObjectManifest@1.0.0). Every chunk is a blob of chunk_size
// bytes but the last, which has what remains and at least one byte.
type chunkManifest struct {
	TotalLen  uint64         `cbor:"total_len"`
	ChunkSize uint64         `cbor:"chunk_size"`
	Chunks    []fcp.ObjectID `cbor:"chunks"`
}

// MaxChunks bounds the chunks of one object, so that its manifest fits into one
// event: about 30 GiB.
const MaxChunks = 30_000

// chunksInFlight is how many chunks are sealed and on their way to the disk at
// once: the memory of a large put is this many chunks, twice.
const chunksInFlight = 4

func (m *chunkManifest) check() error {
	n := uint64(len(m.Chunks))
	switch {
	case m.ChunkSize != fcp.ChunkSize:
		return fcp.Errorf(fcp.CodeMalformed, "a chunk manifest with chunks of %d bytes", m.ChunkSize)
	case n < 2 || n > MaxChunks:
		return fcp.Errorf(fcp.CodeMalformed, "a chunk manifest with %d chunks", n)
	case m.TotalLen <= (n-1)*m.ChunkSize || m.TotalLen > n*m.ChunkSize:
		return fcp.Errorf(fcp.CodeMalformed, "a chunk manifest of %d bytes in %d chunks", m.TotalLen, n)
	}
	return nil
}

// decodeManifest decodes the payload of a chunk manifest, schema hash included.
func decodeManifest(payload []byte) (*chunkManifest, error) {
	var m chunkManifest
	if len(payload) > fcp.MaxBody {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a chunk manifest of %d bytes", len(payload))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaChunkedManifest, payload, &m); err != nil {
		return nil, err
	}
	return &m, m.check()
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

// chunkLen returns the length of chunk i.
func (m *chunkManifest) chunkLen(i int) int {
	if i == len(m.Chunks)-1 {
		return int(m.TotalLen - uint64(i)*m.ChunkSize)
	}
	return int(m.ChunkSize)
}

// putChunked writes a payload of more than one chunk: the chunks first, each an
// object and an append of its own, then the manifest under the name. A reader
// never sees a version whose chunks are not on disk. Chunks of a put that fails
// stay in the log as dead space.
func (w *write) putChunked(ctx context.Context, first []byte, rest io.Reader, dry bool) (PutResult, error) {
	u := &upload{w: w, slots: make(chan *chunkBuffer, chunksInFlight), dry: dry}
	u.ctx, u.cancel = context.WithCancelCause(ctx)
	defer u.cancel(nil)
	for range chunksInFlight {
		u.slots <- &chunkBuffer{}
	}
	body := io.Reader(bytes.NewReader(first))
	if rest != nil {
		body = io.MultiReader(body, rest)
	}
	defer func() { w.e.holds.release(u.held) }()
	err := u.run(body)
	u.running.Wait()
	if e := u.failure(); e != nil {
		err = e
	}
	if err != nil {
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
	out, err := w.commit(ctx, dry)
	if dry {
		out.Planned = append(u.planned(), out.Planned...)
	}
	return out, err
}

// upload streams chunks into the log.
type upload struct {
	w       *write
	ctx     context.Context
	cancel  context.CancelCauseFunc
	slots   chan *chunkBuffer
	running sync.WaitGroup
	dry     bool

	total uint64 // bytes read; owned by run

	mu   sync.Mutex
	held []fcp.ObjectID // kept from being collected until the manifest is there; guarded by mu
	ids  []fcp.ObjectID // one for each chunk; guarded by mu until running is done
	err  error          // the first failure; guarded by mu
}

// chunkBuffer is the memory of one chunk in flight.
type chunkBuffer struct {
	raw, plain, sealed []byte
	draft              [1]log.Draft
}

func (u *upload) fail(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == nil {
		u.err = err
		u.cancel(err)
	}
}

func (u *upload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// run cuts the body into chunks until it ends or something fails.
func (u *upload) run(body io.Reader) error {
	for {
		var b *chunkBuffer
		select {
		case b = <-u.slots:
		case <-u.ctx.Done():
			if err := u.failure(); err != nil {
				return err
			}
			return interrupted(u.ctx)
		}
		if b.raw == nil {
			b.raw = make([]byte, fcp.ChunkSize)
		}
		n, err := io.ReadFull(body, b.raw)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
			return fcp.Wrap(fcp.CodeInvalidArgument, err, "read the body")
		case len(u.ids) >= MaxChunks:
			return fcp.Errorf(fcp.CodeTooLarge, "a body of more than %d bytes", MaxChunks*fcp.ChunkSize)
		}
		salt, serr := u.w.salts.next(u.w.e.env.Rand)
		if serr != nil {
			return serr
		}
		u.total += uint64(n)
		u.mu.Lock()
		u.ids = append(u.ids, fcp.ObjectID{})
		i := len(u.ids) - 1
		u.mu.Unlock()
		u.running.Go(func() { u.chunk(i, b, n, salt) })
		if err != nil { // the short last chunk
			return nil
		}
	}
}

// chunk seals and appends one chunk.
func (u *upload) chunk(i int, b *chunkBuffer, n int, salt authority.Salt) {
	w := u.w
	b.plain = w.appendObject(b.plain[:0], fcp.SchemaBlob, b.raw[:n])
	id := w.zone.current().StoredObjectID(fcp.SchemaBlob.Hash(), b.plain)
	u.mu.Lock()
	u.ids[i] = id
	if !u.dry && w.e.holds.hold(id) {
		u.held = append(u.held, id)
	}
	u.mu.Unlock()
	if !u.dry {
		b.sealed = w.zone.current().SealBody(b.sealed[:0], id, salt, b.plain)
		b.draft[0] = log.Draft{Zone: w.zone.zone, Plane: fcp.PlaneData, Under: w.e.genesis.ID, Salt: salt,
			Content: fcp.Content{Kind: fcp.KindChunkPut, Object: id, Size: uint64(n), Body: b.sealed}}
		if _, err := w.e.log.Append(u.ctx, b.draft[:]); err != nil {
			u.fail(err)
			return // the log may still read the buffers
		}
	}
	u.slots <- b
}

func (u *upload) planned() []PlannedEvent {
	out := make([]PlannedEvent, len(u.ids))
	for i, id := range u.ids {
		out[i] = PlannedEvent{Plane: fcp.PlaneData.String(), Kind: fcp.KindChunkPut.String(), Object: id, Body: fcp.ChunkSize}
	}
	return out
}
