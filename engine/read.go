package engine

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"fcp"
	"fcp/log"
)

// Reader reads one object's payload. It verifies what it hands out: a payload of
// one piece against its object id before the first byte, a chunked one chunk by
// chunk. Not safe for concurrent use, except that ReadRange is.
type Reader struct {
	e    *Engine
	ctx  context.Context
	zone *zoneKeys
	info Info

	whole     []byte         // the payload of an object in one piece
	manifest  *chunkManifest // or this
	base      int            // index of the manifest's first chunk: more than 0 for a part of a manifest
	want      *Range         // the part to read; nil: all
	ahead     *ahead         // reads the chunks; nil before the first Read
	cur       []byte         // rest of the present piece
	decrypted atomic.Int64
}

// Get opens an object for reading. Errors: CodeNotFound when the name has no
// version then or the displayed one is a tombstone; CodeNotEnough when the body
// is not on this node; CodeKeyForgotten, CodeKeyTableLost, CodeCorrupt;
// CodeNotPosition for an At beyond the end. Of several heads the displayed one is
// read; Info says how many siblings it has.
func (e *Engine) Get(ctx context.Context, r GetRequest) (*Reader, error) {
	if r.Zone == "" {
		r.Zone = DefaultZone
	}
	z := e.ring.Load().zones[r.Zone]
	if z == nil {
		return nil, e.unknownZone(r.Zone)
	}
	out := &Reader{e: e, ctx: ctx, zone: z, want: r.Range, info: Info{Zone: r.Zone, Key: r.Key, AsOf: e.Position()}}
	var err error
	if r.Key == "" {
		err = out.byObject(r.Object)
	} else {
		err = out.byKey(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	from, to, err := r.Range.cut(out.info.Size)
	if err != nil {
		return nil, err
	}
	if out.manifest == nil {
		out.cur = out.whole[from:to]
	}
	return out, nil
}

func (r *Reader) byObject(id fcp.ObjectID) error {
	r.info.Version = Version{Object: id}
	for _, projection := range []string{projBodies, projObjects} {
		p, ok, err := r.e.placeOf(r.info.Zone, projection, id[:])
		if err != nil {
			return err
		}
		if ok && p.inline {
			return r.load(p.feed, p.seq)
		}
		if ok {
			return r.e.orGone(r.loadForeign(id), r.info.Zone, p.position, id)
		}
	}
	return fcp.Errorf(fcp.CodeNotFound, "object %s", id)
}

func (r *Reader) byKey(ctx context.Context, q GetRequest) error {
	if !q.Version.IsZero() {
		v, err := r.e.findVersion(q.Zone, q.Key, q.Version)
		if err != nil {
			return err
		}
		return r.byVersion(v)
	}
	entry, err := r.e.Stat(ctx, q.Zone, q.Key, q.At)
	if err != nil {
		return err
	}
	r.info.Siblings = entry.Siblings()
	if !q.At.IsNow() {
		if r.info.AsOf, err = r.e.PositionAt(q.At); err != nil {
			return err
		}
	}
	return r.byVersion(*entry.Head())
}

func (r *Reader) byVersion(v Version) error {
	r.info.Version = v
	if v.Tombstone {
		return fcp.Errorf(fcp.CodeNotFound, "the key was removed in generation %d", v.Generation).
			WithNext("see `fcpctl object history KEY` for the versions before; --version HASH reads one of them")
	}
	ev, salt, err := r.e.log.Read(v.Feed, v.Seq)
	if err != nil {
		return err
	}
	if len(ev.Body) > 0 {
		return r.open(&ev, salt)
	}
	p, ok, err := r.e.placeOf(r.info.Zone, projBodies, v.Object[:])
	if err != nil {
		return err
	}
	if !ok {
		return r.e.orGone(r.loadForeign(v.Object), r.info.Zone, v.Position, v.Object)
	}
	if r.want != nil && v.Size > fcp.ChunkSize {
		if ok, err := r.loadPart(p, v); ok || err != nil {
			return err
		}
	}
	return r.load(p.feed, p.seq)
}

// loadForeign opens an object whose body comes from elsewhere.
func (r *Reader) loadForeign(id fcp.ObjectID) error {
	if r.e.forgets().object(r.info.Zone, id) { // nobody has to be asked for it
		return fcp.Errorf(fcp.CodeKeyForgotten, "object %s", id)
	}
	ev, salt, err := r.e.foreignBody(r.ctx, r.info.Zone, id)
	if err != nil {
		return err
	}
	return r.open(&ev, salt)
}

func (r *Reader) load(no log.FeedNo, seq uint64) error {
	ev, salt, err := r.e.log.Read(no, seq)
	if err != nil {
		return err
	}
	return r.open(&ev, salt)
}

// open decrypts an event's body, checks its id and splits the object.
func (r *Reader) open(ev *fcp.Event, salt [log.SaltSize]byte) error {
	if ev.Kind.Info().Clear {
		r.whole = ev.Body
		r.info.Size = int64(len(ev.Body))
		r.info.Version.Size = uint64(len(ev.Body))
		return nil
	}
	schema, payload, err := r.e.openObject(r.zone, ev, salt)
	if err != nil {
		return err
	}
	if schema == fcp.SchemaChunkedManifest.ID() {
		if r.manifest, err = decodeManifest(payload); err != nil {
			return fcp.Wrap(fcp.CodeCorrupt, err, "object %s", ev.Object)
		}
		r.info.Size, r.info.Chunks = int64(r.manifest.TotalLen), len(r.manifest.Chunks)
		r.info.Version.Size = r.manifest.TotalLen
		return nil
	}
	if schema == fcp.SchemaBlob.ID() {
		if payload, err = blobPayload(payload[fcp.HashSize:]); err != nil {
			return fcp.Wrap(fcp.CodeCorrupt, err, "object %s", ev.Object)
		}
	}
	r.whole = payload
	r.info.Size = int64(len(payload))
	r.info.Version.Size = uint64(len(payload))
	return nil
}

// openObject decrypts the object an event carries and verifies its id. The
// payload begins with the schema's hash, but for a chunk, which is its bytes alone.
func (e *Engine) openObject(z *zoneKeys, ev *fcp.Event, salt [log.SaltSize]byte) (fcp.SchemaID, []byte, error) {
	if err := e.checkSalt(z.zone, salt, ev.Object); err != nil {
		return fcp.SchemaID{}, nil, err
	}
	plain, keys, err := z.open(nil, ev.Object, salt, ev.Body)
	if err != nil {
		return fcp.SchemaID{}, nil, fcp.Wrap(fcp.CodeCorrupt, err, "object %s", ev.Object)
	}
	if ev.Kind == fcp.KindChunkPut { // the bytes alone
		if keys.KeyedObjectID(fcp.SchemaRawChunk.Hash(), plain) != ev.Object {
			return fcp.SchemaID{}, nil, fcp.Errorf(fcp.CodeChecksum, "chunk %s has other content", ev.Object)
		}
		return fcp.SchemaRawChunk.ID(), plain, nil
	}
	h, payload, err := fcp.DecodeObject(plain)
	if err != nil {
		return fcp.SchemaID{}, nil, fcp.Wrap(fcp.CodeCorrupt, err, "object %s", ev.Object)
	}
	if h.Zone != z.zone {
		return fcp.SchemaID{}, nil, fcp.Errorf(fcp.CodeCorrupt, "object %s is of zone %s", ev.Object, h.Zone)
	}
	schema, err := fcp.LookupSchema(h.Schema)
	if err != nil {
		return fcp.SchemaID{}, nil, err
	}
	if keys.StoredObjectID(schema.Hash(), plain) != ev.Object {
		return fcp.SchemaID{}, nil, fcp.Errorf(fcp.CodeChecksum, "object %s has other content", ev.Object)
	}
	return h.Schema, payload, nil
}

// Info describes the object.
func (r *Reader) Info() Info { return r.info }

// Close gives up what the reader holds. Reading after it fails.
func (r *Reader) Close() error {
	if r.ahead != nil {
		r.ahead.stop()
		r.ahead = nil
	}
	r.whole, r.cur = nil, nil
	r.e = nil
	return nil
}

// advance loads the next piece when the present one is used up.
func (r *Reader) advance() error {
	if len(r.cur) > 0 {
		return nil
	}
	switch {
	case r.e == nil:
		return errEngineClosed()
	case r.manifest == nil:
		return io.EOF
	}
	if r.ctx.Err() != nil {
		return interrupted(r.ctx)
	}
	if r.ahead == nil {
		from, to, err := r.want.cut(r.info.Size)
		if err != nil {
			return err
		}
		r.ahead = r.startAhead(from, to)
	}
	piece, err := r.ahead.next(r.ctx)
	if err != nil {
		return err
	}
	r.cur = piece
	return nil
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := r.advance(); err != nil {
		return 0, err
	}
	n := copy(p, r.cur)
	r.cur = r.cur[n:]
	return n, nil
}

// WriteTo implements io.WriterTo without a copy.
func (r *Reader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		if err := r.advance(); err != nil {
			if errors.Is(err, io.EOF) {
				return total, nil
			}
			return total, err
		}
		n, err := w.Write(r.cur)
		total += int64(n)
		r.cur = r.cur[n:]
		if err != nil {
			return total, err
		}
	}
}
