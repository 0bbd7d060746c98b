package log

import (
	"encoding/binary"
	"errors"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"

	"fcp"
	"fcp/internal/gate"
	"fcp/log/internal/walfs"
)

// Format is the version of everything the log writes, Pebble's own format
// included. A store of another version is refused, both versions named.
const Format = 1

// pebbleFormat is pinned: a newer one is adopted only together with Format. The
// default would silently drop an acknowledged tail on one flipped bit.
const pebbleFormat = pebble.FormatNewest

// Open opens the log in dir, replays what a crash left behind, and makes it
// ready to append. Errors: CodeNoStore, CodeLocked, CodeVersion, CodeCorrupt,
// CodeWrongKey (another writer's store). A store whose acknowledged tail is
// missing opens read-only; Doubt says so.
func Open(dir string, o Options) (l *Log, err error) {
	o.setDefaults()
	l = &Log{opts: o, fs: o.FS, dir: dir, log: o.Logger, byFeed: map[fcp.Feed]*feed{}, life: gate.New(), tableSums: map[string]FileSum{},
		kick: make(chan struct{}, 1), grew: make(chan struct{}, 1), dead: make(chan struct{}), clock: fcp.NewClock(o.Now)}
	l.frames.limit = o.CacheBytes / 2
	if err := l.checkBeginning(); err != nil {
		return nil, err
	}
	if err := l.abandonable(l.openPebble); err != nil {
		return nil, err
	}
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	if err := l.start(); err != nil {
		return nil, errors.Join(err, l.db.Close())
	}
	return l, nil
}

// checkBeginning refuses to make a new store where there was one: without its
// marker Pebble would take the directory for empty and delete what is in it. The
// mark's file is made after the store.
func (l *Log) checkBeginning() error {
	if !l.opts.Create {
		return nil
	}
	if _, err := l.fs.Stat(l.fs.PathJoin(l.dir, markName)); err != nil {
		return nil
	}
	if d, err := pebble.Peek(l.dir, l.fs); err != nil || !d.Exists {
		return fcp.Errorf(fcp.CodeCorrupt, "%s holds a high-water mark and no store", l.dir)
	}
	return nil
}

func (l *Log) pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		FS:                          l.fs,
		FormatMajorVersion:          pebbleFormat,
		Logger:                      pebbleLogger{l},
		ReadOnly:                    l.opts.ReadOnly,
		ErrorIfNotExists:            !l.opts.Create,
		MemTableSize:                uint64(l.opts.MemTableBytes),
		MemTableStopWritesThreshold: 16, // never reached: a flush that fails refuses appends first
		L0CompactionThreshold:       16,
		L0CompactionFileThreshold:   64,
		L0StopWritesThreshold:       1000,
		LBaseMaxBytes:               256 << 20,
		MaxOpenFiles:                1000,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 1 },
		EventListener: &pebble.EventListener{
			BackgroundError: l.backgroundError,
			TableIngested:   l.tableTaken,
			TableDeleted:    l.tableGone,
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				l.log.Error("damaged table", "path", i.Path, "err", i.Details)
			},
		},
	}
	if !l.opts.ReadOnly {
		l.wal = walfs.New(l.fs, walfs.Options{Size: int64(l.opts.MemTableBytes) + 1<<20, Reserve: int64(l.opts.DiskReserve)})
		o.FS = l.wal
	}
	l.bulkFS = newBulkFS(o.FS)
	o.FS, o.Local.ReadaheadConfig = l.bulkFS, l.bulkFS.ahead
	for i := range o.Levels {
		o.Levels[i].BlockSize = 64 << 10
		o.Levels[i].IndexBlockSize = 256 << 10
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return block.NoCompression }
		o.TargetFileSizes[i] = 64 << 20
	}
	return o
}

func (l *Log) openPebble() error {
	o := l.pebbleOptions()
	l.cache = pebble.NewCache(l.opts.CacheBytes)
	defer l.cache.Unref() // the store keeps it
	o.Cache = l.cache
	db, err := pebble.Open(l.dir, o)
	switch {
	case err == nil:
		l.db = db
		return nil
	case errors.Is(err, pebble.ErrDBDoesNotExist), strings.HasSuffix(err.Error(), "does not exist"):
		return fcp.Errorf(fcp.CodeNoStore, "%s", l.dir)
	case isLockError(err):
		return fcp.Errorf(fcp.CodeLocked, "%s", l.dir)
	case strings.Contains(err.Error(), "format major version"):
		return fcp.Errorf(fcp.CodeVersion, "%s: %w", l.dir, err)
	case pebble.IsCorruptionError(err):
		return fcp.Errorf(fcp.CodeCorrupt, "%s: %w", filepath.Base(l.dir), err)
	}
	return fcp.Wrap(fcp.CodeDisk, err, "opening %s", l.dir)
}

// backgroundError hears of what fails outside of a commit. A flush on a full disk
// is tried again, and appends wait for the space; any other disk error stops the
// log before Pebble stalls a commit behind it. Damaged tables are for reads to
// report: a stop would not mend them.
func (l *Log) backgroundError(err error) {
	if fcp.IsDiskFull(err) {
		l.full.Store(true)
		if !l.toldFull.Swap(true) { // until watchDisk sees space again
			l.log.Warn("the disk is full; what is in memory is written when there is space", "err", err.Error())
		}
		time.Sleep(flushPause) // Pebble tries again at once, without end
		return
	}
	l.log.Warn("pebble background work failed", "err", err)
	switch {
	case pebble.IsCorruptionError(err), errors.Is(err, pebble.ErrClosed), l.closed.Load():
	default:
		l.crash(err)
	}
}

// flushPause is how long a flush that found the disk full waits for its next try.
const flushPause = 50 * time.Millisecond

// isLockError recognises a directory held by another process or by this one.
func isLockError(err error) bool {
	s := err.Error()
	return strings.Contains(s, "lock held by") || strings.Contains(s, "resource temporarily unavailable") ||
		strings.Contains(s, "already locked")
}

// recover rebuilds the in-memory state from the store.
func (l *Log) recover() error {
	if err := l.recoverMeta(); err != nil {
		return err
	}
	if err := l.recoverFeeds(); err != nil {
		return err
	}
	if err := l.recoverHorizons(); err != nil {
		return err
	}
	for _, f := range l.feeds {
		if err := l.recoverHead(f); err != nil {
			return err
		}
		l.clock.Restore(f.durable.time)
	}
	if err := l.recoverPosition(); err != nil {
		return err
	}
	if err := l.recoverSegments(); err != nil {
		return err
	}
	return l.recoverMark()
}

// recoverMeta reads the record that meta encodes.
func (l *Log) recoverMeta() error {
	v, ok, err := l.get([]byte{keyMeta})
	if err != nil {
		return err
	}
	if !ok {
		return l.createMeta()
	}
	if len(v) < 2 {
		return fcp.Errorf(fcp.CodeCorrupt, "the log's meta record does not decode")
	}
	if f := binary.BigEndian.Uint16(v); f != Format {
		return fcp.Errorf(fcp.CodeVersion, "the log has format %d, this build knows %d", f, Format)
	}
	if len(v) != metaSize && len(v) != metaSize+8 {
		return fcp.Errorf(fcp.CodeCorrupt, "the log's meta record does not decode")
	}
	l.incarnation.Store(binary.BigEndian.Uint64(v[2:]))
	writer := fcp.WriterID(v[10:metaSize])
	if l.opts.Writer.IsZero() {
		l.opts.Writer = writer
	}
	if writer != l.opts.Writer {
		return fcp.Errorf(fcp.CodeWrongKey, "the log belongs to writer %s, the node key is of %s",
			writer.String()[:16], l.opts.Writer.String()[:16])
	}
	return nil
}

func (l *Log) createMeta() error {
	if !l.opts.Create || l.opts.ReadOnly {
		return fcp.Errorf(fcp.CodeNoStore, "%s", l.dir)
	}
	n, err := l.drawIncarnation()
	if err != nil {
		return err
	}
	l.incarnation.Store(n)
	if err := l.db.Set([]byte{keyMeta}, l.meta(n, 0), pebble.Sync); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "writing the log's meta record")
	}
	return nil
}

func (l *Log) recoverFeeds() error {
	return l.scanPrefix([]byte{keyFeed}, func(k, v []byte) error {
		no := FeedNo(binary.BigEndian.Uint32(k[1:]))
		f, err := decodeFeed(v)
		if err != nil {
			return err
		}
		if n := l.addFeedLocked(f); n.no != no {
			return fcp.Errorf(fcp.CodeCorrupt, "feed %d is stored as number %d", n.no, no)
		}
		l.feeds[no-1].stored = true
		return nil
	})
}

// recoverHead finds a feed's head: a head record, then every block behind it.
// A log that seals starts from the end of the last segment, because it needs to
// know hash and tree at every point where the open run may be cut.
func (l *Log) recoverHead(f *feed) (err error) {
	if f.sealed, f.sealedID, err = l.lastSealed(f.no); err != nil {
		return err
	}
	h, err := l.headRecord(f, keyEnd)
	if err != nil {
		return err
	}
	if h.seq != f.sealed {
		return fcp.Errorf(fcp.CodeCorrupt, "feed %d is sealed to %d but the record of its end says %d", f.no, f.sealed, h.seq)
	}
	f.recorded = h.seq
	if l.opts.Sealer == nil || !f.own {
		recorded, err := l.headRecord(f, keyHead)
		if err != nil {
			return err
		}
		if recorded.seq > h.seq {
			h, f.recorded = recorded, recorded.seq
		}
	}
	f.next = h
	err = l.scanHot(f.no, f.sealed+1, func(_ uint64, b []byte) error { return l.recoverBlock(f, b) })
	if err != nil {
		return err
	}
	f.durable.copyFrom(&f.next)
	f.unstored = append(f.unstored, f.grown...)
	return nil
}

func (l *Log) headRecord(f *feed, prefix byte) (head, error) {
	v, ok, err := l.get(keyOfFeed(prefix, f.no))
	if !ok || err != nil {
		return head{}, err
	}
	return parseHead(v, f.chained())
}

func (l *Log) recoverBlock(f *feed, b []byte) error {
	bh, records, err := parseBlock(b)
	if err != nil {
		return err
	}
	h := &f.next
	f.noteHot(len(records), bh.time)
	last := bh.first + uint64(bh.count) - 1
	if last <= h.seq {
		return nil // behind the head record
	}
	if bh.first != h.seq+1 {
		return fcp.Errorf(fcp.CodeCorrupt, "feed %d goes from event %d to %d", f.no, h.seq, bh.first)
	}
	if bh.chained && bh.prev != h.hash {
		return fcp.Errorf(fcp.CodeCorrupt, "the hash chain of feed %d breaks at event %d", f.no, bh.first)
	}
	l.recovered, _, _, err = decodeBlock(l.recovered[:0], f.no, &f.id, b, VerifyChain)
	if err != nil {
		return err
	}
	for i := range l.recovered {
		e := &l.recovered[i]
		if f.chained() {
			f.grown = h.tree.append(e.Hash, f.grown)
		}
		if e.Content.Kind != fcp.KindSegmentSealed {
			f.lastOther = e.Seq
		}
		h.seq, h.hash, h.time = e.Seq, e.Hash, e.Time
	}
	f.cutBytes += int64(len(records))
	if f.own && f.chained() && l.opts.Sealer != nil {
		l.unsealed += int64(len(records))
		if f.cutBytes >= int64(l.opts.SegmentTarget) {
			f.cuts = append(f.cuts, f.cutAtNext())
		}
	}
	return nil
}

func (l *Log) recoverPosition() error {
	it, err := l.iter([]byte{keyPosition}, []byte{keyPosition + 1})
	if err != nil {
		return err
	}
	defer it.Close()
	l.nextPosition = 1
	if it.Last() {
		p, err := parsePosition(it.Key(), it.Value())
		if err != nil {
			return err
		}
		l.nextPosition = p.position + p.count
	}
	l.durable.Store(l.nextPosition - 1)
	return iterError(it)
}

// positionRange says that count events of a feed, from first on, stand at
// consecutive positions.
type positionRange struct {
	position uint64
	feed     FeedNo
	first    uint64
	count    uint64
}

func (p positionRange) value(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(p.feed))
	b = binary.AppendUvarint(b, p.first)
	return binary.AppendUvarint(b, p.count)
}

func parsePosition(k, v []byte) (p positionRange, err error) {
	r := reader{b: v}
	feed := r.uvarint()
	p.feed, p.first, p.count = FeedNo(feed), r.uvarint(), r.uvarint()
	if len(k) != 9 || !r.done() || p.count == 0 || feed > math.MaxUint32 {
		return p, fcp.Errorf(fcp.CodeCorrupt, "a position record does not decode")
	}
	p.position = binary.BigEndian.Uint64(k[1:])
	return p, nil
}

// Close flushes, writes the mark and closes the store. Appends that are waiting
// are answered first; later ones are refused with CodeClosed. Reads under way may
// fail with CodeClosed; Close waits for them, so it must not be called inside one.
func (l *Log) Close() error {
	if l.closed.Swap(true) {
		return nil
	}
	l.mu.Lock()
	if l.refusal == nil {
		l.refusal = fcp.Errorf(fcp.CodeClosed, "%s", l.dir)
	}
	l.makeRoomLocked()
	l.mu.Unlock()
	l.drain()
	l.stop()
	l.wg.Wait()
	if e := l.crashed.Load(); e != nil {
		return e // Pebble is not asked for anything after a disk error
	}
	// Readers leave first: Pebble frees memory that they look at.
	if err := l.abandonable(func() error { l.life.Close(); return nil }); err != nil {
		return err
	}
	if l.opts.ReadOnly {
		return wrapDisk(l.db.Close(), "closing the log")
	}
	l.sealMu.Lock() // a Stage or a compaction under way comes to its end
	defer l.sealMu.Unlock()
	return errors.Join(l.finalMark(), wrapDisk(l.abandonable(l.flushClose), "closing the log"))
}

func (l *Log) flushClose() error {
	b := l.db.NewBatch()
	for _, f := range l.feeds {
		if err := l.writeNodes(b, f); err != nil {
			return err
		}
	}
	if err := b.Commit(pebble.NoSync); err != nil {
		return err
	}
	// Close does not flush; a flushed store opens faster and carries no log tail.
	if err := l.db.Flush(); err != nil {
		return err
	}
	return errors.Join(l.db.Close(), l.wal.Close())
}

func wrapDisk(err error, what string) error {
	if fcp.IsDiskFull(err) {
		return fcp.Wrap(fcp.CodeDiskFull, err, "%s", what)
	}
	return fcp.Wrap(fcp.CodeDisk, err, "%s", what)
}
