package engine

import (
	"context"
	"errors"
	"io"
	"runtime"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// Range selects bytes of an object's payload.
type Range struct {
	Offset int64 // of the first byte
	Length int64 // at most this many; 0: to the end
}

// cut returns the part of a payload of size bytes: [from, to).
func (g *Range) cut(size int64) (from, to int64, err error) {
	if g == nil {
		return 0, size, nil
	}
	if g.Offset < 0 || g.Length < 0 || g.Offset > size {
		return 0, 0, fcp.Errorf(fcp.CodeInvalidArgument, "range %d+%d of %d bytes", g.Offset, g.Length, size)
	}
	if g.Length == 0 {
		return g.Offset, size, nil
	}
	return g.Offset, g.Offset + min(g.Length, size-g.Offset), nil
}

// chunkRef is where a chunk is.
type chunkRef struct {
	place
	id   fcp.ObjectID
	salt [log.SaltSize]byte
	size int // of the sealed body
}

// findChunk looks chunk i up. ok is false when its body is not in this log.
func (r *Reader) findChunk(i int) (c chunkRef, ok bool, err error) {
	if i < r.base || i-r.base >= len(r.manifest.Chunks) {
		return c, false, fcp.Errorf(fcp.CodeInvalidArgument, "chunk %d is outside the range that was opened", i+1)
	}
	c.id, c.size = r.manifest.Chunks[i-r.base], authority.SealedBodyLen(r.manifest.chunkLen(i))
	if c.place, ok, err = r.e.placeOf(r.info.Zone, projBodies, c.id[:]); err != nil || !ok {
		return c, false, err
	}
	if c.salt, err = r.e.log.Salt(c.feed, c.seq); err == nil {
		err = r.e.checkSalt(r.info.Zone, c.salt, c.id)
	}
	return c, true, err
}

// chunkPart appends n bytes of chunk i from off on to dst. A whole chunk is checked
// against its id; of a part only the frames that hold it are decrypted, and each is
// authentic by its tag.
func (r *Reader) chunkPart(dst []byte, scratch *[]byte, i, off, n int) ([]byte, error) {
	c, ok, err := r.findChunk(i)
	gone := err
	if err != nil && !errors.Is(err, fcp.CodeKeyForgotten) {
		return nil, err
	}
	ok = ok && gone == nil
	var body []byte
	from, to, err := authority.BodyPart(c.size, off, n)
	if err != nil {
		return nil, err
	}
	if ok {
		part, err := r.e.log.ReadPart(*scratch, c.feed, c.seq, c.size, from, to)
		if err != nil {
			return nil, err
		}
		body, *scratch = part.Bytes, part.Buf
		r.decrypted.Add(int64(part.Decrypted))
	} else {
		ev, salt, err := r.e.foreignBody(r.ctx, r.info.Zone, c.id)
		if gone != nil && err != nil {
			return nil, gone // of another writer's copy the key may be left; there is none
		}
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeNotEnough, err, "chunk %d", i+1)
		}
		if err := r.e.checkSalt(r.info.Zone, salt, c.id); err != nil {
			return nil, err
		}
		if len(ev.Body) != c.size {
			return nil, fcp.Errorf(fcp.CodeCorrupt, "chunk %d has the wrong length", i+1)
		}
		body, c.salt = ev.Body[from:to], salt
	}
	start := len(dst)
	dst, keys, err := r.zone.openPart(dst, c.id, c.salt, c.size, body, off, n)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeCorrupt, err, "chunk %d", i+1)
	}
	r.decrypted.Add(int64(to - from))
	if n == r.manifest.chunkLen(i) && keys.KeyedObjectID(fcp.SchemaRawChunk.Hash(), dst[start:]) != c.id {
		return nil, fcp.Errorf(fcp.CodeChecksum, "chunk %d has other content", i+1)
	}
	return dst, nil
}

// openPart decrypts a part of a sealed body of size bytes with whichever version of
// the zone's keys fits.
func (z *zoneKeys) openPart(dst []byte, id fcp.ObjectID, salt [log.SaltSize]byte, size int, part []byte, off, n int) (plain []byte, by *authority.ZoneKeys, err error) {
	for _, k := range z.versions {
		if plain, err = k.OpenBodyPart(dst, id, salt, size, part, off, n); err == nil {
			return plain, k, nil
		}
	}
	return nil, nil, err
}

// ReadRange returns n bytes of the payload from off on, fewer at its end. It
// decrypts only the frames that hold them; each frame is authentic by its tag. A
// chunk that is read whole is checked against its id. Safe for concurrent use. A
// Reader that was opened for a Range has no other bytes: CodeInvalidArgument.
func (r *Reader) ReadRange(off int64, n int) ([]byte, error) {
	if off < 0 || n < 0 || off > r.info.Size {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "range %d+%d of %d bytes", off, n, r.info.Size)
	}
	n = int(min(int64(n), r.info.Size-off))
	if r.manifest == nil {
		return append([]byte(nil), r.whole[off:off+int64(n)]...), nil
	}
	out, scratch := make([]byte, 0, n), []byte(nil)
	for len(out) < n {
		at := off + int64(len(out))
		i, in := int(at/fcp.ChunkSize), int(at%fcp.ChunkSize)
		var err error
		if out, err = r.chunkPart(out, &scratch, i, in, min(n-len(out), r.manifest.chunkLen(i)-in)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Decrypted returns how many bytes of segments and bodies were decrypted for the
// chunks that were read, and for the part of a manifest that a Range needs.
func (r *Reader) Decrypted() int64 { return r.decrypted.Load() }

// ahead reads chunks before they are asked for, a few at once.
type ahead struct {
	cancel context.CancelFunc
	end    func() // of the bulk read
	free   chan *aheadPiece
	order  chan *aheadPiece
	cur    *aheadPiece
}

type aheadPiece struct {
	plain, scratch []byte
	err            error
	done           chan struct{} // has a token when it is there
}

// startAhead begins to read the payload's bytes [from, to).
func (r *Reader) startAhead(from, to int64) *ahead {
	n := runtime.GOMAXPROCS(0) + 4
	a := &ahead{end: r.e.log.BulkRead(), free: make(chan *aheadPiece, n), order: make(chan *aheadPiece, n)}
	var ctx context.Context
	ctx, a.cancel = context.WithCancel(r.ctx)
	for range n {
		a.free <- &aheadPiece{done: make(chan struct{}, 1)}
	}
	go func() {
		defer close(a.order)
		for from < to {
			var p *aheadPiece
			select {
			case p = <-a.free:
			case <-ctx.Done():
				return
			}
			i, in := int(from/fcp.ChunkSize), int(from%fcp.ChunkSize)
			size := int(min(to-from, int64(r.manifest.chunkLen(i)-in)))
			from += int64(size)
			a.order <- p
			go func() {
				p.plain, p.err = r.chunkPart(p.plain[:0], &p.scratch, i, in, size)
				p.done <- struct{}{}
			}()
		}
	}()
	return a
}

// stop ends the reading and waits for what is under way.
func (a *ahead) stop() {
	a.cancel()
	for p := range a.order {
		<-p.done
	}
	a.end()
}

// next returns the bytes that follow; what it returned before is no longer valid.
func (a *ahead) next(ctx context.Context) ([]byte, error) {
	if a.cur != nil {
		a.free <- a.cur
		a.cur = nil
	}
	p, ok := <-a.order
	switch {
	case !ok && ctx.Err() != nil:
		return nil, interrupted(ctx)
	case !ok:
		return nil, io.EOF
	}
	<-p.done
	a.cur = p
	return p.plain, p.err
}

// loadPart reads the entries of a manifest that the wanted range needs. Manifest and
// header have one encoding, so where they stand follows from the payload's length.
// ok is false when this manifest does not stand as expected, or is not in the log:
// then all of it has to be read, and that says what is wrong.
func (r *Reader) loadPart(p place, v Version) (ok bool, err error) {
	if v.Size > MaxChunks*fcp.ChunkSize || v.Size <= fcp.ChunkSize {
		return false, nil
	}
	from, to, err := r.want.cut(int64(v.Size))
	if err != nil {
		return false, err
	}
	first := min(from, int64(v.Size)-1) / fcp.ChunkSize
	last := max(from, to-1) / fcp.ChunkSize
	last = min(last, (int64(v.Size)-1)/fcp.ChunkSize)
	m := chunkManifest{TotalLen: v.Size, ChunkSize: fcp.ChunkSize, Chunks: make([]fcp.ObjectID, last-first+1)}
	salt, err := r.e.log.Salt(p.feed, p.seq)
	if err == nil {
		err = r.e.checkSalt(r.info.Zone, salt, v.Object)
	}
	if err != nil {
		return false, err
	}
	const created = 1 << 31 // its length is that of every time from 1970 to 2106 but the first 18 hours
	header := len(fcp.AppendPlainHeader(nil, fcp.SchemaChunkedManifest, r.info.Zone, created)) + fcp.HashSize
	ids, length := manifestLayout(v.Size)
	size := authority.SealedBodyLen(header + length)
	off, n := header+ids+int(first)*chunkIDSize, len(m.Chunks)*chunkIDSize
	a, b, err := authority.BodyPart(size, off, n)
	if err != nil {
		return false, err
	}
	part, err := r.e.log.ReadPart(nil, p.feed, p.seq, size, a, b)
	if err != nil {
		return false, nil
	}
	entries, _, err := r.zone.openPart(nil, v.Object, salt, size, part.Bytes, off, n)
	if err != nil {
		return false, nil
	}
	for i := range m.Chunks {
		e := entries[i*chunkIDSize:][:chunkIDSize]
		if e[0] != 0x58 || e[1] != fcp.HashSize {
			return false, nil
		}
		copy(m.Chunks[i][:], e[2:])
	}
	r.decrypted.Add(int64(part.Decrypted + b - a))
	r.manifest, r.base = &m, int(first)
	r.info.Size, r.info.Chunks = int64(v.Size), int((v.Size+fcp.ChunkSize-1)/fcp.ChunkSize)
	return true, nil
}

// chunkIDSize is a chunk's id in a manifest: a CBOR byte string of 32 bytes.
const chunkIDSize = 2 + fcp.HashSize

// manifestLayout returns where the ids begin in the canonical form of the manifest
// of total bytes, {"chunks": [...], "total_len": u, "chunk_size": u}, and its length.
func manifestLayout(total uint64) (ids, length int) {
	n := (total + fcp.ChunkSize - 1) / fcp.ChunkSize
	ids = 1 + 1 + len("chunks") + cborHeadSize(n)
	length = ids + int(n)*chunkIDSize + 1 + len("total_len") + cborHeadSize(total) + 1 + len("chunk_size") + cborHeadSize(fcp.ChunkSize)
	return ids, length
}

// cborHeadSize is the length of a CBOR head with the argument n (RFC 8949 section 3).
func cborHeadSize(n uint64) int {
	switch {
	case n < 24:
		return 1
	case n < 1<<8:
		return 2
	case n < 1<<16:
		return 3
	case n < 1<<32:
		return 5
	}
	return 9
}
