package engine

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
	"fcp/log"
)

// backupPoint is a state that stood still: what a backup is a backup of.
type backupPoint struct {
	position uint64
	root     fcp.Hash
	zones    []backupZone
	feeds    []backupHead // chained ones, ascending by id
}

type backupHead struct {
	no     log.FeedNo
	id     fcp.FeedID
	feed   fcp.Feed
	seq    uint64
	hash   fcp.Hash
	sealed uint64 // last event in a segment that is in the backup
}

// point computes the roots and takes the feeds' heads at one position, while
// events wait to be folded.
func (e *Engine) point() (p backupPoint, err error) {
	if err := e.fold.warmDigests(e.Zones()...); err != nil {
		return p, err
	}
	e.gate.Lock()
	defer e.gate.Unlock()
	p.position = e.fold.position.Load()
	if p.root, err = e.fold.stateRoot(); err != nil {
		return p, err
	}
	for _, zone := range e.fold.zoneList() {
		root, err := e.fold.zoneRoot(zone)
		if err != nil {
			return p, err
		}
		p.zones = append(p.zones, backupZone{zone, root})
	}
	e.fold.mu.RLock()
	defer e.fold.mu.RUnlock()
	for _, s := range e.fold.sources {
		if s != nil && s.Feed.Plane.Chained() && s.seq > 0 {
			p.feeds = append(p.feeds, backupHead{no: s.No, id: s.ID, feed: s.Feed, seq: s.seq, hash: s.hash})
		}
	}
	slices.SortFunc(p.feeds, func(a, b backupHead) int { return bytes.Compare(a.id[:], b.id[:]) })
	return p, nil
}

// backupRun is one call of Backup.
type backupRun struct {
	e   *Engine
	ctx context.Context
	to  blob.Store
	o   *BackupOptions
	r   *BackupResult

	m        backupManifest
	previous *backupManifest // nil: the first
	point    backupPoint
	byNo     map[log.FeedNo]*backupHead
	index    []indexed // ascending by id
	total    uint64
	done     uint64
}

// BackupTo is Backup into any blob store, which it takes for itself meanwhile when
// it is a blob.Locker; where is how the result names it.
func (e *Engine) BackupTo(ctx context.Context, to blob.Store, where string, o BackupOptions) (r BackupResult, err error) {
	unlock, err := lockStore(ctx, to)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	e.maintenance.Lock() // no segment is replaced meanwhile
	defer e.maintenance.Unlock()
	start := e.env.Now()
	r.Dir = where
	b := backupRun{e: e, ctx: ctx, to: to, o: &o, r: &r}
	for _, step := range []func() error{
		b.findPrevious, b.seal, b.collect, b.copySegments, b.writeKeys, b.writeKeyTable, b.writeTail, b.writeIndex, b.writeManifest, b.removeOld,
	} {
		if ctx.Err() != nil {
			return r, interrupted(ctx)
		}
		if err := step(); err != nil {
			return r, err
		}
	}
	r.Elapsed = e.env.Now().Sub(start)
	return r, nil
}

// findPrevious reads the newest manifest and refuses a folder that holds another
// store.
func (b *backupRun) findPrevious() error {
	b.m = backupManifest{Format: backupFormat, Store: Format, Seq: 1}
	seq, err := newestManifest(b.ctx, b.to)
	if err != nil || seq == 0 {
		return err
	}
	m, hash, err := readManifest(b.ctx, b.to, seq)
	if err == nil && m.Genesis != b.e.genesis.ID {
		return fcp.Errorf(fcp.CodeNotEmpty, "the folder holds the backup of another store").WithNext("back up into another folder, one for each store")
	}
	if err == nil {
		err = m.authorised(b.e.genesis)
	}
	if err != nil {
		var e *fcp.Error
		if errors.As(fcp.Wrap(fcp.CodeManifest, err, "the newest manifest in the folder"), &e) {
			return e.WithNext("back up into another folder, or run `fcpctl backup verify` on this one")
		}
	}
	b.previous = m
	b.m.Seq, b.m.Previous = m.Seq+1, hash[:]
	return nil
}

func (b *backupRun) seal() error {
	if _, err := b.e.log.Seal(b.ctx, log.SealOptions{All: true}); err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "seal what is to be backed up")
	}
	var err error
	b.point, err = b.e.point()
	return err
}

// collect lists the segments that lie at or before the point, and refuses a
// folder whose newest backup holds others: it would lose them.
func (b *backupRun) collect() error {
	b.byNo = map[log.FeedNo]*backupHead{}
	for i := range b.point.feeds {
		b.byNo[b.point.feeds[i].no] = &b.point.feeds[i]
	}
	err := b.e.log.Segments(func(s log.SegmentInfo) error {
		if b.ctx.Err() != nil {
			return interrupted(b.ctx)
		}
		no, _ := b.e.log.FeedNo(s.Remainder.Feed())
		h := b.byNo[no]
		if h == nil || s.Remainder.Last > h.seq {
			return nil // sealed meanwhile, of events behind the point
		}
		h.sealed = max(h.sealed, s.Remainder.Last)
		info, err := s.Card.Transmission()
		if err != nil {
			return err
		}
		b.index = append(b.index, indexed{s.Card.Segment, uint32(info.F), cardSum(s.CardBytes)})
		b.m.Bytes += info.F
		return nil
	})
	if err != nil {
		return err
	}
	if len(b.index) > maxBackupSegments {
		return fcp.Errorf(fcp.CodeTooLarge, "a backup of %d segments", len(b.index))
	}
	slices.SortFunc(b.index, func(a, b indexed) int { return bytes.Compare(a.id[:], b.id[:]) })
	b.m.Segments, b.total = uint64(len(b.index)), b.m.Bytes
	return b.checkSuperset()
}

func (b *backupRun) checkSuperset() error {
	if b.previous == nil {
		return nil
	}
	old, err := readIndex(b.ctx, b.to, b.previous)
	if err != nil {
		return err
	}
	missing := 0
	for i := range old {
		if _, ok := findIndexed(b.index, old[i].id); ok {
			continue
		}
		_, replaced, err := b.e.log.ReplacedBy(old[i].id)
		if err != nil {
			return err
		}
		if !replaced {
			missing++
		}
	}
	if missing > 0 {
		return fcp.Errorf(fcp.CodeNotEmpty, "the folder holds %d segments that this store does not have", missing).
			WithNext("back up into another folder; this one belongs to a later or another copy of the store")
	}
	return nil
}

// present returns the sizes of the files under a prefix, by id.
func (b *backupRun) present(prefix, suffix string) (map[fcp.SegmentID]int64, error) {
	out := map[fcp.SegmentID]int64{}
	err := b.to.List(b.ctx, prefix, func(i blob.Info) error {
		if id, ok := unspread(i.Name, prefix, suffix); ok {
			out[id] = i.Size
		}
		return nil
	})
	return out, err
}

// copySegments writes what is missing. The log's list of segments stays open
// meanwhile, which keeps the cards at hand without holding all of them.
func (b *backupRun) copySegments() error {
	bodies, err := b.present(segmentPrefix, ".seg")
	if err != nil {
		return err
	}
	cards, err := b.present(cardPrefix, ".card")
	if err != nil {
		return err
	}
	err = b.e.log.Segments(func(s log.SegmentInfo) error {
		x, ok := findIndexed(b.index, s.Card.Segment)
		if !ok {
			return nil
		}
		if b.ctx.Err() != nil {
			return interrupted(b.ctx)
		}
		size, there := bodies[x.id]
		cardSize, carded := cards[x.id]
		good := there && carded && size == int64(x.size) && cardSize == int64(len(s.CardBytes))
		if good {
			if good, err = b.intact(segmentName(x.id), fcp.Hash(x.id)); err == nil && good {
				good, err = b.intact(cardName(x.id), fileHash(s.CardBytes))
			}
			if err != nil {
				return err
			}
		}
		if !good {
			if err := b.copySegment(&s, there, carded); err != nil {
				return err
			}
		}
		b.done += uint64(x.size)
		b.tell("copy")
		return nil
	})
	b.r.Segments, b.r.Bytes = len(b.index), b.m.Bytes
	return err
}

// copySegment writes a segment after checking that it is not damaged here. What
// is there of it already, of the wrong size or alone, is replaced.
func (b *backupRun) copySegment(s *log.SegmentInfo, there, carded bool) error {
	ciphertext, err := b.e.log.Ciphertext(s.No)
	if err != nil {
		return err
	}
	if _, err := log.CheckCiphertext(s.CardBytes, ciphertext); err != nil {
		return err
	}
	body, card := segmentName(s.Card.Segment), cardName(s.Card.Segment)
	if there {
		err = b.to.Delete(b.ctx, body)
	}
	if carded && err == nil {
		err = b.to.Delete(b.ctx, card)
	}
	if err == nil {
		err = b.put(body, ciphertext)
	}
	if err == nil {
		err = b.put(card, s.CardBytes)
	}
	b.r.NewSegments++
	return err
}

// intact reports whether a file that is there, with the right size, holds what its
// hash says. One that does not is counted: the backup rotted and is mended.
func (b *backupRun) intact(name string, hash fcp.Hash) (bool, error) {
	if b.o.Trust {
		return true, nil
	}
	r, err := b.to.Get(b.ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	sum := blake3.New()
	_, err = io.Copy(sum, r)
	if err = errors.Join(err, r.Close()); err != nil {
		return false, fcp.Wrap(fcp.CodeDisk, err, "read %s again", name)
	}
	if fcp.Hash(sum.Sum(nil)) == hash {
		return true, nil
	}
	b.r.Mended++
	return false, nil
}

func (b *backupRun) tell(stage string) {
	if b.o.Progress != nil {
		b.o.Progress(Progress{Stage: stage, Done: b.done, Total: b.total})
	}
}

// put writes one file and counts it.
func (b *backupRun) put(name string, data []byte) error {
	n, err := b.to.Put(b.ctx, name, bytes.NewReader(data))
	if err != nil {
		return err
	}
	b.r.Files++
	b.r.Written += uint64(n)
	return nil
}

// putOnce writes a file that is named by its content, unless it is there.
func (b *backupRun) putOnce(name string, data []byte) error {
	i, err := b.to.Stat(b.ctx, name)
	good := err == nil && i.Size == int64(len(data))
	if good {
		good, err = b.intact(name, fileHash(data))
	}
	switch {
	case good:
		return nil
	case err == nil:
		if err := b.to.Delete(b.ctx, name); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return b.put(name, data)
}

// writeKeys writes the genesis checkpoint and the zone key manifests, which are
// sealed to the owner's recovery key and to nodes.
func (b *backupRun) writeKeys() error {
	genesis, err := b.e.GenesisBytes()
	if err != nil {
		return err
	}
	if err := b.putOnce(backupGenesis, genesis); err != nil {
		return err
	}
	manifests, err := b.e.ManifestBytes()
	if err != nil {
		return err
	}
	for _, m := range manifests {
		h := fileHash(m)
		if err := b.putOnce(zoneKeyName(h), m); err != nil {
			return err
		}
		b.m.ZoneKeys = append(b.m.ZoneKeys, h)
	}
	slices.SortFunc(b.m.ZoneKeys, func(a, b fcp.Hash) int { return bytes.Compare(a[:], b[:]) })
	b.m.ZoneKeys = slices.Compact(b.m.ZoneKeys)
	return nil
}

func (b *backupRun) writeKeyTable() error {
	name := keyTableName(b.m.Seq)
	if err := b.to.Delete(b.ctx, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // what an interrupted backup left is not overwritten by Put
	}
	r, w := io.Pipe()
	sum := blake3.New()
	var entries uint64
	go func() {
		k := newKeyTableWriter(io.MultiWriter(w, sum))
		err := b.e.log.Salts(func(no log.FeedNo, first uint64, salts []byte) error {
			h := b.byNo[no]
			if h == nil || first > h.seq {
				return nil
			}
			if n := (h.seq - first + 1) * log.SaltSize; n < uint64(len(salts)) {
				salts = salts[:n]
			}
			return k.add(h.id, first, salts)
		})
		if err == nil {
			err = k.finish()
		}
		entries = k.entries
		w.CloseWithError(err)
	}()
	size, err := b.to.Put(b.ctx, name, r)
	r.Close()
	if err != nil {
		return err
	}
	b.r.Files++
	b.r.Written += uint64(size)
	b.m.KeyTable = backupKeyTable{Number: b.m.Seq, Hash: fcp.Hash(sum.Sum(nil)), Size: uint64(size), Entries: entries}
	return nil
}

// writeTail writes, for each feed, the events behind its last segment.
func (b *backupRun) writeTail() error {
	old := map[tailRun]*backupTail{}
	if b.previous != nil {
		for i := range b.previous.Tail {
			t := &b.previous.Tail[i]
			old[t.run()] = t
		}
	}
	for i := range b.point.feeds {
		h := &b.point.feeds[i]
		b.m.Events += h.seq
		b.r.TailEvents += h.seq - h.sealed
		if h.seq > h.sealed {
			if err := b.writeFeedTail(h, old); err != nil {
				return err
			}
		}
	}
	b.r.Events = b.m.Events
	return nil
}

// tailRun names the events of a part: the head ends a hash chain over them all.
type tailRun struct {
	feed  fcp.FeedID
	first uint64
	last  uint64
	head  fcp.Hash
}

func (t *backupTail) run() tailRun { return tailRun{t.Feed, t.First, t.Last, t.Head} }

func (b *backupRun) writeFeedTail(h *backupHead, old map[tailRun]*backupTail) error {
	keys := b.e.ring.Load().zones[h.feed.Zone]
	if keys == nil {
		return errNoZoneKeys(h.feed.Zone)
	}
	var prev fcp.Hash
	if h.sealed > 0 {
		e, _, err := b.e.log.ReadFull(h.no, h.sealed+1)
		if err != nil {
			return err
		}
		prev = e.Prev
	}
	t := backupTail{Feed: h.id, First: h.sealed + 1}
	var plain, scratch []byte
	closePart := func() error {
		if len(plain) == 0 {
			return nil
		}
		err := b.writePart(t, keys.current(), plain, old)
		plain, t.First = plain[:0], t.Last+1
		return err
	}
	err := b.e.log.ScanFeed(b.ctx, h.no, t.First, h.seq, log.VerifyChain, func(events []log.Applied) error {
		for i := range events {
			a := &events[i]
			ev := fcp.Event{Feed: h.feed, Seq: a.Seq, Prev: prev, Time: a.Time, Under: a.Under, Content: a.Content}
			plain, scratch = appendTailEvent(plain, scratch, &ev)
			prev, t.Last, t.Head = a.Hash, a.Seq, a.Hash
			if len(plain) >= tailTarget {
				if err := closePart(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil {
		err = closePart()
	}
	if err == nil && (t.Last != h.seq || t.Head != h.hash) {
		err = fcp.Errorf(fcp.CodeInternal, "feed %d ends at event %d, the state at %d", h.no, t.Last, h.seq)
	}
	return err
}

func (b *backupRun) writePart(t backupTail, keys *authority.ZoneKeys, plain []byte, old map[tailRun]*backupTail) error {
	if len(b.m.Tail) >= maxTailParts {
		return fcp.Errorf(fcp.CodeTooLarge, "more than %d files of events that are in no segment", maxTailParts)
	}
	if o := old[t.run()]; o != nil {
		i, err := b.to.Stat(b.ctx, tailName(o.Hash))
		good := err == nil && uint64(i.Size) == o.Size
		if good {
			if good, err = b.intact(tailName(o.Hash), o.Hash); err != nil {
				return err
			}
		}
		if good {
			b.m.Tail = append(b.m.Tail, *o)
			return nil
		}
	}
	sealed, err := sealTail(b.e.env.Rand, keys, &t, plain)
	if err != nil {
		return err
	}
	b.m.Tail = append(b.m.Tail, t)
	return b.put(tailName(t.Hash), sealed)
}

func (b *backupRun) writeIndex() error {
	data := encodeIndex(b.index)
	b.m.Index = backupFile{fileHash(data), uint64(len(data))}
	return b.putOnce(indexName(b.m.Index.Hash), data)
}

// writeManifest is the moment the backup becomes one.
func (b *backupRun) writeManifest() error {
	m, e := &b.m, b.e
	m.Created = uint64(max(e.env.Now().Unix(), 0))
	m.Owner, m.Genesis, m.Node = e.genesis.Owner, e.genesis.ID, e.node.Public().Signing
	m.Incarnation, m.Position, m.StateRoot, m.Zones = e.log.Incarnation(), b.point.position, b.point.root, b.point.zones
	if m.Node != e.genesis.Node.Signing {
		var err error
		if m.Device, err = e.ownEnrollment(); err != nil {
			return err
		}
	}
	data, err := m.sign(e.node)
	if err != nil {
		return err
	}
	if err := m.authorised(e.genesis); err != nil {
		return err
	}
	if err := b.put(manifestName(m.Seq), data); err != nil {
		return err
	}
	r := b.r
	r.Seq, r.Manifest, r.Position, r.StateRoot = m.Seq, fileHash(data), m.Position, m.StateRoot
	r.ZoneRoots = map[fcp.ZoneID]fcp.Hash{}
	for _, z := range m.Zones {
		r.ZoneRoots[z.Zone] = z.Root
	}
	return nil
}

// ownEnrollment finds the owner's enrollment of this node.
func (e *Engine) ownEnrollment() (body []byte, err error) {
	writer := e.node.Writer()
	for _, zone := range e.Zones() {
		err = cmp.Or(err, e.records(zone, projDevices, func(b []byte) error {
			d, err := authority.OpenDevice(b)
			if err == nil && d.Writer() == writer {
				body = b
			}
			return err
		}))
	}
	if err == nil && body == nil {
		err = fcp.Errorf(fcp.CodeUnauthorized, "the owner's enrollment of this node is not in the store").
			WithNext("enroll this node from a device that has the owner identity")
	}
	return body, err
}

// removeOld removes what only restore points behind the newest o.Keep need, what
// interrupted backups left, and the segments that a compaction replaced, unless a
// restore point that stays lists them: their cards and remainders stay in the
// control events.
func (b *backupRun) removeOld() error {
	p, err := planPrune(b.ctx, b.to, b.e.genesis, &olderPoint{m: &b.m, index: b.index}, max(b.o.Keep, 1), time.Time{})
	if err != nil {
		return err
	}
	for _, kind := range []struct{ prefix, suffix string }{{segmentPrefix, ".seg"}, {cardPrefix, ".card"}} {
		there, err := b.present(kind.prefix, kind.suffix)
		if err != nil {
			return err
		}
		for id, size := range there {
			if _, replaced, err := b.e.log.ReplacedBy(id); err != nil {
				return err
			} else if replaced {
				p.drop(spread(kind.prefix, id[:], kind.suffix), size)
			}
		}
	}
	if err := p.carryOut(b.ctx, b.to); err != nil {
		return err
	}
	b.r.Removed, b.r.Points = p.removed, len(p.kept)
	return nil
}

// newestManifest returns the highest number of a manifest; 0 when there is none.
func newestManifest(ctx context.Context, s blob.Store) (seq uint64, err error) {
	err = s.List(ctx, manifestPrefix, func(i blob.Info) error {
		if n, ok := manifestSeq(i.Name); ok {
			seq = max(seq, n)
		}
		return nil
	})
	return seq, err
}

// readManifest reads and decodes one manifest and verifies its signature.
func readManifest(ctx context.Context, s blob.Store, seq uint64) (*backupManifest, fcp.Hash, error) {
	name := manifestName(seq)
	data, err := blob.ReadAll(ctx, s, name, maxBackupManifest)
	if err != nil {
		return nil, fcp.Hash{}, err
	}
	hash := fileHash(data)
	m, err := decodeBackupManifest(data)
	if err != nil {
		return nil, hash, fcp.Wrap(fcp.CodeManifest, err, "%s", name)
	}
	if m.Seq != seq {
		return nil, hash, fcp.Errorf(fcp.CodeManifest, "%s holds manifest %d", name, m.Seq)
	}
	return m, hash, nil
}

// readHashed reads a file and compares size and hash with what refers to it.
func readHashed(ctx context.Context, s blob.Store, name string, hash fcp.Hash, size uint64) ([]byte, error) {
	b, err := blob.ReadAll(ctx, s, name, int64(size))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fcp.Errorf(fcp.CodeManifest, "%s is missing", name)
	case errors.Is(err, fcp.CodeTooLarge), err == nil && uint64(len(b)) < size:
		return nil, fcp.Errorf(fcp.CodeManifest, "%s does not have the %d bytes it must have", name, size)
	case err != nil:
		return nil, err
	case fileHash(b) != hash:
		return nil, fcp.Errorf(fcp.CodeChecksum, "%s", name)
	}
	return b, nil
}

func readIndex(ctx context.Context, s blob.Store, m *backupManifest) ([]indexed, error) {
	data, err := readHashed(ctx, s, indexName(m.Index.Hash), m.Index.Hash, m.Index.Size)
	if err != nil {
		return nil, err
	}
	list, err := decodeIndex(data)
	if err != nil {
		return nil, err
	}
	var total uint64
	for i := range list {
		total += uint64(list[i].size)
	}
	if uint64(len(list)) != m.Segments || total != m.Bytes {
		return nil, fcp.Errorf(fcp.CodeManifest, "the index does not have the segments that manifest %d counts", m.Seq)
	}
	return list, nil
}
