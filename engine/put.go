package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// maxIdempotency bounds a caller's idempotency key, in bytes.
const maxIdempotency = 1 << 10

// idempotencyTag returns the first 16 bytes of SHA-256("FCP-IDEM-V1" || u8
// length of the zone || zone || the caller's key).
func idempotencyTag(dst []byte, zone fcp.ZoneID, key string) []byte {
	var buf [11 + 1 + fcp.MaxZoneID + maxIdempotency]byte
	b := append(buf[:0], "FCP-IDEM-V1"...)
	b = append(b, byte(len(zone)))
	b = append(b, zone...)
	b = append(b, key...)
	sum := sha256.Sum256(b)
	return append(dst[:0], sum[:fcp.IdempotencySize]...)
}

// write is one put or removal on its way to the log. It is pooled: nothing of it
// may be kept.
type write struct {
	e      *Engine
	zone   *zoneKeys
	key    string
	expect Expect
	tag    []byte
	kind   fcp.Kind

	object fcp.ObjectID
	size   uint64
	body   []byte // sealed, inline
	salt   authority.Salt

	record   nameRecord
	name     []byte // copy of key
	state    []byte // the state key
	value    []byte // the stored record
	plain    []byte
	sealed   []byte
	bodySeal []byte // of a body in an event of its own
	replaces fcp.HashList
	tagBuf   [fcp.IdempotencySize]byte
	drafts   [2]log.Draft
	salts    saltSource
	staged   bool // the body is in the log already
	unsure   bool // the log may still read the buffers
}

var writes = sync.Pool{New: func() any { return new(write) }}

// saltSource hands out random salts from a buffer, because a system call for
// each would cost as much as the rest of a small write.
type saltSource struct {
	buf  [64 * authority.SaltSize]byte
	left int
}

func (s *saltSource) next(rand io.Reader) (salt authority.Salt, err error) {
	if s.left == 0 {
		if _, err := io.ReadFull(rand, s.buf[:]); err != nil {
			return salt, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a body")
		}
		s.left = len(s.buf)
	}
	at := len(s.buf) - s.left
	copy(salt[:], s.buf[at:])
	clear(s.buf[at : at+len(salt)]) // a salt that was forgotten must not be found here
	s.left -= len(salt)
	return salt, nil
}

// begin checks what every write has and takes a write from the pool.
func (e *Engine) begin(zone fcp.ZoneID, key string, expect Expect, idempotency string) (*write, error) {
	if zone == "" {
		zone = DefaultZone
	}
	switch {
	case key == "" || len(key) > fcp.MaxKey:
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a key has 1 to %d bytes, not %d", fcp.MaxKey, len(key))
	case len(idempotency) > maxIdempotency:
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an idempotency key of %d bytes, the limit is %d", len(idempotency), maxIdempotency)
	case e.closed.Load():
		return nil, errEngineClosed()
	}
	z := e.ring.Load().zones[zone]
	if z == nil {
		return nil, e.unknownZone(zone)
	}
	w := writes.Get().(*write)
	w.e, w.zone, w.key, w.expect, w.tag, w.staged = e, z, key, expect, nil, false
	w.name = append(w.name[:0], key...)
	if idempotency != "" {
		w.tag = idempotencyTag(w.tagBuf[:0], zone, idempotency)
	}
	return w, nil
}

// end gives the write back. Its buffers may be large after a large object, and
// after an append without a certain outcome the log may still read them.
func (w *write) end() {
	const keep = 64 << 10
	if w.unsure {
		return
	}
	w.e, w.zone, w.key, w.tag, w.body = nil, nil, "", nil, nil
	clear(w.plain)
	if cap(w.plain) > keep {
		w.plain = nil
	}
	if cap(w.bodySeal) > keep {
		w.bodySeal = nil
	}
	w.drafts = [2]log.Draft{}
	writes.Put(w)
}

// Put writes one version of a name. When it returns nil the version is on disk
// and every later read shows it. Errors: CodeConflict when Expect does not hold,
// naming the present head; CodeZone, CodeUnauthorized without the zone's keys;
// CodeTooLarge; CodeInvalidArgument for an idempotency key that another name's
// write had; and those of log.Append. After CodeTimeout the outcome may be
// unknown: repeat with the same idempotency key.
func (e *Engine) Put(ctx context.Context, r PutRequest) (PutResult, error) {
	w, err := e.begin(r.Zone, r.Key, r.Expect, r.Idempotency)
	if err != nil {
		return PutResult{}, err
	}
	defer w.end()
	w.kind = fcp.KindObjectPut
	if w.tag != nil {
		if out, ok, err := w.duplicate(); ok || err != nil {
			return out, err
		}
	}
	payload, rest := r.Bytes, io.Reader(nil)
	if r.Body != nil {
		if payload, rest, err = readFirst(r.Body); err != nil {
			return PutResult{}, err
		}
	}
	if rest != nil || len(payload) > fcp.ChunkSize {
		return w.putChunked(ctx, payload, rest, r.DryRun)
	}
	w.size = uint64(len(payload))
	if err := w.seal(fcp.SchemaBlob, payload); err != nil {
		return PutResult{}, err
	}
	return w.commit(ctx, r.DryRun)
}

// readFirst reads up to one chunk. rest is nil when that was everything.
func readFirst(r io.Reader) (payload []byte, rest io.Reader, err error) {
	var buf bytes.Buffer
	n, err := io.Copy(&buf, io.LimitReader(r, fcp.ChunkSize+1))
	if err != nil {
		return nil, nil, fcp.Wrap(fcp.CodeInvalidArgument, err, "read the body")
	}
	if n <= fcp.ChunkSize {
		return buf.Bytes(), nil, nil
	}
	return buf.Bytes(), r, nil
}

// Remove writes a tombstone: a version without an object. Versions before it stay
// in history. A name that has no version or is removed already is CodeNotFound.
func (e *Engine) Remove(ctx context.Context, r RemoveRequest) (PutResult, error) {
	w, err := e.begin(r.Zone, r.Key, r.Expect, r.Idempotency)
	if err != nil {
		return PutResult{}, err
	}
	defer w.end()
	w.kind, w.object, w.size = fcp.KindObjectTombstone, fcp.ObjectID{}, 0
	if w.tag != nil {
		if out, ok, err := w.duplicate(); ok || err != nil {
			return out, err
		}
	}
	return w.commit(ctx, r.DryRun)
}

// appendObject appends the stored form of an object whose payload is the schema's
// hash and the given bytes: one CBOR byte string for a blob, canonical CBOR for
// any other schema. created is in unix seconds.
func (w *write) appendObject(b []byte, schema fcp.Schema, body []byte, created uint64) []byte {
	b = fcp.AppendPlainHeader(b, schema, w.zone.zone, created)
	h := schema.Hash()
	b = append(b, h[:]...)
	if schema.Hash() == fcp.SchemaBlob.Hash() {
		b = appendByteStringHead(b, len(body))
	}
	return append(b, body...)
}

// seal makes the object of a body and seals it: into the metadata event when it
// is small, for an event of its own otherwise.
func (w *write) seal(schema fcp.Schema, body []byte) (err error) {
	for created := uint64(max(w.e.env.Now().Unix(), 0)); ; created++ {
		w.plain = w.appendObject(w.plain[:0], schema, body, created)
		w.object = w.zone.current().StoredObjectID(schema.Hash(), w.plain)
		if !w.e.forgets().object(w.zone.zone, w.object) {
			break
		} // the same was forgotten within this second
	}
	if w.salt, err = w.salts.next(w.e.env.Rand); err != nil {
		return err
	}
	keys := w.zone.current()
	if len(body) <= fcp.MaxInlineBody && authority.SealedBodyLen(len(w.plain)) <= fcp.MaxInlineBody+fcp.BodyOverhead {
		w.sealed = keys.SealBody(w.sealed[:0], w.object, w.salt, w.plain)
		w.body, w.bodySeal = w.sealed, w.bodySeal[:0]
		return nil
	}
	w.body = nil
	w.bodySeal = keys.SealBody(w.bodySeal[:0], w.object, w.salt, w.plain)
	return nil
}

// build makes the drafts on top of the present heads. It returns the state's
// position that it was built on.
func (w *write) build() (drafts []log.Draft, err error) {
	basis := w.e.applied.Load() // before the look: the state shows at least this
	if err := w.lookup(); err != nil {
		return nil, err
	}
	if err := w.checkExpect(); err != nil {
		return nil, err
	}
	generation := uint64(0)
	w.replaces = w.replaces[:0]
	for i := range w.record.heads {
		h := &w.record.heads[i]
		generation = max(generation, h.generation)
		if w.replaces.Len() < fcp.MaxReplaces {
			w.replaces = w.replaces.Append(h.hash)
		}
	}
	drafts = w.drafts[:0]
	if w.kind == fcp.KindObjectPut && w.body == nil && !w.staged {
		drafts = append(drafts, log.Draft{Zone: w.zone.zone, Plane: fcp.PlaneData, Under: w.e.genesis.ID, Salt: w.salt,
			Content: fcp.Content{Kind: fcp.KindObjectBody, Object: w.object, Body: w.bodySeal}})
	}
	drafts = append(drafts, log.Draft{Zone: w.zone.zone, Plane: fcp.PlaneControl, Under: w.e.genesis.ID,
		Content: fcp.Content{Kind: w.kind, Key: w.name, Object: w.object, Replaces: w.replaces,
			Generation: generation + 1, Size: w.size, Idempotency: w.tag, Body: w.body}})
	d := &drafts[len(drafts)-1]
	if w.body != nil {
		d.Salt = w.salt
	}
	setBasis(d, basis)
	return drafts, nil
}

// maxLength bounds what the state adds to the two parts of a stored value.
const maxLength = 10

// lookup reads the name's present record.
func (w *write) lookup() error {
	w.record.reset()
	no, ok := w.e.fold.zoneNumber(w.zone.zone)
	if !ok {
		return nil // the zone's first event
	}
	w.state = append(appendPrefix(w.state[:0], no, w.e.fold.slot(projNames)), w.name...)
	v, ok, err := w.e.st.Get(w.value[:0], w.state)
	if err != nil || !ok {
		return err
	}
	if n := len(v.Canonical) + len(v.Local) + maxLength; n > cap(w.value) {
		w.value = make([]byte, 0, 2*n) // Get made its own; the next one need not
	}
	return w.record.decode(v)
}

// checkExpect compares the heads with what the writer expects.
func (w *write) checkExpect() error {
	live := 0
	for i := range w.record.heads {
		if !w.record.heads[i].tombstone {
			live++
		}
	}
	if w.kind == fcp.KindObjectTombstone && live == 0 {
		return fcp.Errorf(fcp.CodeNotFound, "there is nothing to remove under this key in %s", w.zone.zone)
	}
	var ok bool
	switch w.expect.Kind {
	case ExpectAnything:
		return nil
	case ExpectAbsent:
		ok = live == 0
	case ExpectGeneration:
		ok = len(w.record.heads) == 1 && w.record.heads[0].generation == w.expect.Generation
	case ExpectHash:
		ok = len(w.record.heads) == 1 && strings.HasPrefix(hex.EncodeToString(w.record.heads[0].hash[:]), w.expect.Prefix)
	default:
		return fcp.Errorf(fcp.CodeInvalidArgument, "expectation kind %d", w.expect.Kind)
	}
	if ok {
		return nil
	}
	return fcp.Errorf(fcp.CodeConflict, "expected %s, the key has %s", w.expect, describeHeads(&w.record))
}

// String describes the expectation in an error.
func (x Expect) String() string {
	switch x.Kind {
	case ExpectAbsent:
		return "no version"
	case ExpectGeneration:
		return "generation " + decimal(x.Generation)
	case ExpectHash:
		return "version " + x.Prefix
	}
	return "anything"
}

// describeHeads names the heads: generation and the start of the hash.
func describeHeads(r *nameRecord) string {
	if len(r.heads) == 0 {
		return "no version"
	}
	var b strings.Builder
	for i := range r.heads {
		h := &r.heads[i]
		if i > 0 {
			b.WriteString(", ")
		}
		if i == 4 {
			b.WriteString("and more")
			break
		}
		b.WriteString("generation " + decimal(h.generation) + " (" + hex.EncodeToString(h.hash[:8]))
		if h.tombstone {
			b.WriteString(", removed")
		}
		b.WriteString(")")
	}
	return b.String()
}

// commit appends the write, again on newer heads when somebody was faster.
func (w *write) commit(ctx context.Context, dry bool) (PutResult, error) {
	for {
		drafts, err := w.build()
		if err != nil {
			return PutResult{}, err
		}
		if dry {
			return w.planned(drafts), nil
		}
		receipt, err := w.e.log.Append(ctx, drafts)
		if err == nil {
			return w.result(&receipt, &drafts[len(drafts)-1])
		}
		if !errors.Is(err, errHeadMoved) {
			w.unsure = true
			return PutResult{}, err
		}
		// The change that was in the way is in a group that is done by now, or in
		// this one; when the state shows that, the next look sees it.
		if err := w.e.waitApplied(ctx, w.e.log.Durable()); err != nil {
			return PutResult{}, err
		}
		if err := ctx.Err(); err != nil {
			return PutResult{}, interrupted(ctx)
		}
	}
}

func (w *write) result(r *log.Receipt, d *log.Draft) (PutResult, error) {
	p := &r.Events[len(r.Events)-1]
	if r.Duplicate {
		return w.duplicateOf(place{feed: p.Feed, seq: p.Seq, position: p.Position})
	}
	return PutResult{Replaced: d.Content.Replaces.Len(), Version: Version{
		Hash: p.Hash, Generation: d.Content.Generation, Time: p.Time, Writer: w.e.log.Writer(), Feed: p.Feed, Seq: p.Seq,
		Position: p.Position, Object: d.Content.Object, Size: d.Content.Size, Tombstone: w.kind == fcp.KindObjectTombstone,
	}}, nil
}

func (w *write) planned(drafts []log.Draft) PutResult {
	d := &drafts[len(drafts)-1]
	out := PutResult{DryRun: true, Replaced: d.Content.Replaces.Len(), Version: Version{Generation: d.Content.Generation,
		Writer: w.e.log.Writer(), Object: d.Content.Object, Size: d.Content.Size, Tombstone: w.kind == fcp.KindObjectTombstone}}
	for i := range drafts {
		c := &drafts[i].Content
		out.Planned = append(out.Planned, PlannedEvent{Plane: drafts[i].Plane.String(), Kind: c.Kind.String(), Key: string(c.Key),
			Object: c.Object, Generation: c.Generation, Body: len(c.Body)})
	}
	return out
}

// duplicate answers a write whose idempotency key was used before.
func (w *write) duplicate() (PutResult, bool, error) {
	p, ok, err := w.e.tagged(w.zone.zone, w.tag)
	if !ok || err != nil {
		return PutResult{}, false, err
	}
	out, err := w.duplicateOf(p)
	return out, true, err
}

// duplicateOf answers with the write at p. One of another name, or a removal for a
// put, is not the same write: to answer with it would say that a name was written
// which was not.
func (w *write) duplicateOf(p place) (PutResult, error) {
	if err := w.e.waitApplied(w.e.life, p.position); err != nil {
		return PutResult{}, err
	}
	ev, hash, err := w.e.log.ReadFull(p.feed, p.seq)
	if err != nil {
		return PutResult{}, err
	}
	if ev.Kind != w.kind || string(ev.Key) != w.key {
		return PutResult{}, fcp.Errorf(fcp.CodeInvalidArgument, "the idempotency key belongs to another write: %s of %q", ev.Kind, ev.Key).
			WithNext("take a new idempotency key for each write that is not the same one again")
	}
	return PutResult{Duplicate: true, Replaced: ev.Replaces.Len(), Version: Version{
		Hash: hash, Generation: ev.Generation, Time: ev.Time, Writer: ev.Feed.Writer, Feed: p.feed, Seq: ev.Seq,
		Position: p.position, Object: ev.Object, Size: ev.Size, Tombstone: ev.Kind == fcp.KindObjectTombstone,
	}}, nil
}

// tagged returns the place of the first event with an idempotency tag.
func (e *Engine) tagged(zone fcp.ZoneID, tag []byte) (place, bool, error) {
	return e.placeOf(zone, projIdempotency, tag)
}

// placeOf looks a key up in one of the projections that keep places.
func (e *Engine) placeOf(zone fcp.ZoneID, projection string, key []byte) (place, bool, error) {
	no, ok := e.fold.zoneNumber(zone)
	if !ok {
		return place{}, false, nil
	}
	var kb [keyPrefix + fcp.HashSize]byte
	var vb [64]byte
	v, ok, err := e.st.Get(vb[:0], append(appendPrefix(kb[:0], no, e.fold.slot(projection)), key...))
	if err != nil || !ok {
		return place{}, false, err
	}
	p, err := decodePlace(v.Local)
	return p, err == nil, err
}

// headsAre reports whether the draft replaces exactly the present heads.
func (e *Engine) headsAre(r *nameRecord, buf *[]byte, d *log.Draft) (bool, error) {
	r.reset()
	no, ok := e.fold.zoneNumber(d.Zone)
	if ok {
		key := append(appendPrefix((*buf)[:0], no, e.fold.slot(projNames)), d.Content.Key...)
		*buf = key
		v, ok, err := e.st.Get(nil, key)
		if err != nil {
			return false, err
		}
		if ok {
			if err := r.decode(v); err != nil {
				return false, err
			}
		}
	}
	n := min(len(r.heads), fcp.MaxReplaces)
	if n != d.Content.Replaces.Len() {
		return false, nil
	}
	for i := range n {
		if d.Content.Replaces.At(i) != r.heads[i].hash {
			return false, nil
		}
	}
	return true, nil
}
