package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"slices"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
	"fcp/log"
)

// openedBackup is a backup whose newest manifest was verified.
type openedBackup struct {
	s       blob.Store
	m       *backupManifest
	hash    fcp.Hash // of m
	genesis *authority.GenesisFacts
	raw     []byte // the genesis checkpoint
	index   []indexed
}

// openBackup reads a manifest, the genesis checkpoint and the index. seq 0 is the
// newest manifest; want, unless zero, is the hash that the manifest must have.
func openBackup(ctx context.Context, s blob.Store, where string, seq uint64, want fcp.Hash) (*openedBackup, error) {
	o := &openedBackup{s: s}
	newest, err := newestManifest(ctx, s)
	if err != nil {
		return nil, err
	}
	if seq == 0 {
		seq = newest
	}
	if newest == 0 {
		return nil, fcp.Errorf(fcp.CodeNotFound, "there is no backup in %s", where).WithNext("name the folder that `fcpctl backup create` wrote to")
	}
	if seq != newest {
		there, err := hasPoint(ctx, s, seq)
		if err != nil {
			return nil, err
		}
		if !there {
			return nil, fcp.Errorf(fcp.CodeNotFound, "restore point %d is not in %s", seq, where).WithNext("list what is there with `fcpctl backup ls`")
		}
	}
	if err := o.readGenesis(ctx); err != nil {
		return nil, err
	}
	if o.m, o.hash, err = readManifest(ctx, s, seq); err != nil {
		return nil, err
	}
	if err := o.m.authorised(o.genesis); err != nil {
		return nil, err
	}
	if o.m.Store != Format {
		return nil, fcp.Errorf(fcp.CodeVersion, "the backup is of a store of format %d, this build knows %d", o.m.Store, Format)
	}
	if !want.IsZero() && o.hash != want {
		return nil, fcp.Errorf(fcp.CodeManifest, "manifest %d has hash %s, not the one asked for", seq, o.hash)
	}
	o.index, err = readIndex(ctx, s, o.m)
	return o, err
}

func (o *openedBackup) readGenesis(ctx context.Context) (err error) {
	o.raw, err = blob.ReadAll(ctx, o.s, backupGenesis, authority.MaxSignedObject)
	if errors.Is(err, fs.ErrNotExist) {
		return fcp.Errorf(fcp.CodeManifest, "%s is missing", backupGenesis)
	}
	if err != nil {
		return err
	}
	o.genesis, err = authority.VerifyGenesis(o.raw)
	return fcp.Wrap(fcp.CodeManifest, err, "%s", backupGenesis)
}

// zoneKeys reads and verifies the zone key manifests.
func (o *openedBackup) zoneKeys(ctx context.Context) ([][]byte, error) {
	var out [][]byte
	for _, h := range o.m.ZoneKeys {
		b, err := o.readZoneKey(ctx, h)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func (o *openedBackup) readZoneKey(ctx context.Context, h fcp.Hash) ([]byte, error) {
	name := zoneKeyName(h)
	b, err := blob.ReadAll(ctx, o.s, name, authority.MaxSignedObject)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fcp.Errorf(fcp.CodeManifest, "%s is missing", name)
	case err != nil:
		return nil, err
	case fileHash(b) != h:
		return nil, fcp.Errorf(fcp.CodeChecksum, "%s", name)
	}
	_, err = authority.VerifyManifest(o.genesis.Owner, b)
	return b, fcp.Wrap(fcp.CodeManifest, err, "%s", name)
}

// segment reads one ciphertext of the index; its hash is for the caller to check.
func (o *openedBackup) segment(ctx context.Context, x *indexed) ([]byte, error) {
	return readHashed(ctx, o.s, segmentName(x.id), fcp.Hash(x.id), uint64(x.size))
}

// tail reads and decrypts one part.
func (o *openedBackup) tail(ctx context.Context, ring *keyring, i int) ([]fcp.Event, error) {
	t := &o.m.Tail[i]
	sealed, err := readHashed(ctx, o.s, tailName(t.Hash), t.Hash, t.Size)
	if err != nil {
		return nil, err
	}
	plain, err := openTail(ring, t, sealed)
	if err != nil {
		return nil, err
	}
	return decodeTail(t, plain)
}

// keyTable checks the key table against the manifest and calls fn, unless nil,
// with its runs. What fn did must be undone when the error is not nil.
func (o *openedBackup) keyTable(ctx context.Context, fn func(saltRun) error) error {
	k := &o.m.KeyTable
	name := keyTableName(k.Number)
	r, err := o.s.Get(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fcp.Errorf(fcp.CodeManifest, "%s is missing", name)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	sum := blake3.New()
	entries, err := readKeyTable(io.TeeReader(io.LimitReader(r, int64(k.Size)+1), sum), fn)
	if err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "%s", name)
	}
	if fcp.Hash(sum.Sum(nil)) != k.Hash || entries != k.Entries {
		return fcp.Errorf(fcp.CodeChecksum, "%s", name)
	}
	return nil
}

// unit is a run of events on its way into a store.
type unit struct {
	feed        fcp.FeedID
	first, last uint64
	time        fcp.Time // of the last event
	segment     *indexed // nil: a part of the tail
	tail        int      // index of the part
	told        source   // where the remainder stands
}

// source is where segment.sealed events are read from: a control segment or, with
// a zero id, a part of the tail.
type source struct {
	segment fcp.SegmentID
	tail    int
}

// plan finds the remainder of every segment. They are control events, so they
// form chains: the tail tells of the last control segments, those of the ones
// before and of the data segments.
type plan struct {
	o       *openedBackup
	ctx     context.Context
	sealer  log.Sealer
	ring    *keyring
	units   []unit
	control map[fcp.SegmentID]log.Remainder // of control segments
	seen    map[fcp.SegmentID]bool
	ends    map[fcp.SegmentID]runEnd // of segments as their writers sealed them, there or not
	stands  []log.Remainder          // of compacted segments that are there, without their lists
	todo    []source
	cache   []cachedSource // most recent last
}

type cachedSource struct {
	source
	remainders []log.Remainder
}

// maxCachedSources bounds the remainders kept in memory while segments are taken
// in. Neighbours in time come from the same source.
const maxCachedSources = 16

func makePlan(ctx context.Context, o *openedBackup, s log.Sealer, ring *keyring) (*plan, error) {
	p := &plan{o: o, ctx: ctx, sealer: s, ring: ring, control: map[fcp.SegmentID]log.Remainder{}, seen: map[fcp.SegmentID]bool{}, ends: map[fcp.SegmentID]runEnd{}}
	for i := range o.m.Tail {
		t := &o.m.Tail[i]
		events, err := o.tail(ctx, ring, i)
		if err != nil {
			return nil, err
		}
		p.units = append(p.units, unit{feed: t.Feed, first: t.First, last: t.Last, time: events[len(events)-1].Time, tail: i})
		p.todo = append(p.todo, source{tail: i})
	}
	for len(p.todo) > 0 {
		s := p.todo[0]
		p.todo = p.todo[1:]
		if err := p.follow(s); err != nil {
			return nil, err
		}
	}
	if len(p.seen) != len(o.index) {
		return nil, fcp.Errorf(fcp.CodeManifest, "%d of %d segments are not told of by any event in the backup", len(o.index)-len(p.seen), len(o.index))
	}
	slices.SortFunc(p.units, compareUnits)
	if err := p.checkCompacted(); err != nil {
		return nil, err
	}
	return p, p.check()
}

// runEnd is where a segment ends, by the word of the feed's own writer.
type runEnd struct {
	feed       fcp.FeedID
	last       uint64
	head, root fcp.Hash
}

// checkCompacted compares the ends of compacted segments, which any member may have
// made, with what the feed's own writer told of the segments they stand for.
func (p *plan) checkCompacted() error {
	for i := range p.stands {
		r := &p.stands[i]
		if p.ends[fcp.SegmentID(r.Ends)] != (runEnd{r.Feed().ID(), r.Last, fcp.Hash(r.Head), fcp.Hash(r.Root)}) {
			return fcp.Errorf(fcp.CodeManifest, "compacted segment %s does not end as the writer of its feed told", fcp.SegmentID(r.Segment))
		}
	}
	return nil
}

// compareUnits orders units by time, so that positions follow it roughly; times
// rise within a feed, so a feed's own order is kept.
func compareUnits(a, b unit) int {
	switch {
	case a.time != b.time:
		if a.time < b.time {
			return -1
		}
		return 1
	case a.feed != b.feed:
		return slices.Compare(a.feed[:], b.feed[:])
	case a.first < b.first:
		return -1
	case a.first > b.first:
		return 1
	}
	return 0
}

// check refuses a backup in which a feed has a gap.
func (p *plan) check() error {
	heads := map[fcp.FeedID]uint64{}
	var events uint64
	for i := range p.units {
		u := &p.units[i]
		if u.first != heads[u.feed]+1 {
			return fcp.Errorf(fcp.CodeManifest, "feed %.16s goes from event %d to %d", u.feed, heads[u.feed], u.first)
		}
		heads[u.feed] = u.last
		events += u.last - u.first + 1
	}
	if events != p.o.m.Events {
		return fcp.Errorf(fcp.CodeManifest, "the backup has %d events, its manifest counts %d", events, p.o.m.Events)
	}
	return nil
}

// follow notes the segments that a source tells of.
func (p *plan) follow(s source) error {
	if p.ctx.Err() != nil {
		return interrupted(p.ctx)
	}
	remainders, err := p.read(s)
	if err != nil {
		return err
	}
	for _, r := range remainders {
		id := fcp.SegmentID(r.Segment)
		if !r.Compacted() {
			p.ends[id] = runEnd{r.Feed().ID(), r.Last, fcp.Hash(r.Head), fcp.Hash(r.Root)}
		}
		x, ok := findIndexed(p.o.index, id)
		if !ok || p.seen[id] {
			continue // of another node and not fetched when the backup was made, or replaced
		}
		p.seen[id] = true
		if r.Compacted() {
			short := r
			short.Frames, short.Blocks, short.Objects, short.Seqs, short.Replaces, short.Card = nil, nil, nil, nil, nil, nil
			p.stands = append(p.stands, short)
		}
		p.units = append(p.units, unit{feed: r.Feed().ID(), first: r.First, last: r.Last, time: fcp.Time(r.Time), segment: x, told: s})
		if fcp.Plane(r.Plane) == fcp.PlaneControl {
			p.control[id] = r
			p.todo = append(p.todo, source{segment: id})
		}
	}
	return nil
}

// read returns the remainders in a source.
func (p *plan) read(s source) (out []log.Remainder, err error) {
	take := func(r log.Remainder) error { out = append(out, r); return nil }
	if s.segment.IsZero() {
		events, err := p.o.tail(p.ctx, p.ring, s.tail)
		for i := range events {
			if err == nil {
				err = sealedIn(events[i].Feed, &events[i].Content, take)
			}
		}
		return out, err
	}
	x, _ := findIndexed(p.o.index, s.segment)
	ciphertext, err := p.o.segment(p.ctx, x)
	if err != nil {
		return nil, err
	}
	r := p.control[s.segment]
	err = sealedInSegment(p.sealer, &r, ciphertext, take)
	return out, err
}

// remainder returns the remainder of a unit's segment.
func (p *plan) remainder(u *unit) (log.Remainder, error) {
	if r, ok := p.control[u.segment.id]; ok {
		return r, nil
	}
	for i := len(p.cache) - 1; i >= 0; i-- {
		if c := p.cache[i]; c.source == u.told {
			p.cache = append(append(p.cache[:i:i], p.cache[i+1:]...), c)
			return c.find(u.segment.id)
		}
	}
	remainders, err := p.read(u.told)
	if err != nil {
		return log.Remainder{}, err
	}
	if len(p.cache) >= maxCachedSources {
		p.cache = slices.Delete(p.cache, 0, 1)
	}
	c := cachedSource{u.told, remainders}
	p.cache = append(p.cache, c)
	return c.find(u.segment.id)
}

func (c *cachedSource) find(id fcp.SegmentID) (log.Remainder, error) {
	for i := range c.remainders {
		if fcp.SegmentID(c.remainders[i].Segment) == id {
			return c.remainders[i], nil
		}
	}
	return log.Remainder{}, fcp.Errorf(fcp.CodeInternal, "the remainder of segment %s is gone", id)
}

// sealedInSegment decrypts a control segment and gives the remainders in it. It
// walks blocks by their lengths alone (docs/format.md "Block"): hashes, chain and
// tree are checked when the log takes the segment in.
func sealedInSegment(s log.Sealer, r *log.Remainder, ciphertext []byte, fn func(log.Remainder) error) error {
	bad := fcp.Errorf(fcp.CodeCorrupt, "segment %s does not decode", fcp.SegmentID(r.Segment))
	c, err := s.OpenSegment(r.Run(), r.Key, fcp.Hash(r.ZoneKey))
	if err != nil {
		return err
	}
	feed := r.Feed()
	for block := 0; block < len(r.Blocks)/2; block++ {
		from, to := r.Blocks[2*block], uint64(len(r.Frames))
		if 2*block+2 < len(r.Blocks) {
			to = r.Blocks[2*block+2]
		}
		var plain []byte
		for i := from; i < to; i++ {
			n := int(r.Frames[i]) + c.Overhead()
			if n > len(ciphertext) {
				return bad
			}
			if plain, err = c.OpenFrame(plain, ciphertext[:n], uint32(i), i == uint64(len(r.Frames))-1); err != nil {
				return fcp.Wrap(fcp.CodeCorrupt, err, "segment %s", fcp.SegmentID(r.Segment))
			}
			ciphertext = ciphertext[n:]
		}
		contents, ok := blockContents(plain)
		if !ok {
			return bad
		}
		for _, b := range contents {
			var content fcp.Content
			if err := fcp.DecodeContent(b, &content); err != nil {
				return err
			}
			if err := sealedIn(feed, &content, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// blockContents splits a chained block into the contents of its events.
func blockContents(b []byte) (contents [][]byte, ok bool) {
	const fixed = 2 // version, flags
	if len(b) < fixed || b[0] != 1 || b[1] != 1 {
		return nil, false
	}
	p := packed{b: b[fixed:]}
	p.uvarint() // first
	count := p.uvarint()
	p.hash()    // prev
	p.hash()    // under
	p.uvarint() // time
	rest := p.b
	if p.bad || count > uint64(len(rest)) {
		return nil, false
	}
	for range count {
		_, n := binary.Uvarint(rest) // time step
		if n <= 0 {
			return nil, false
		}
		length, m := binary.Uvarint(rest[n:])
		if m <= 0 || length > uint64(len(rest)-n-m) {
			return nil, false
		}
		rest = rest[n+m:]
		contents = append(contents, rest[:length:length])
		rest = rest[length:]
	}
	return contents, len(rest) == 0
}
