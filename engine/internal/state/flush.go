package state

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"fcp"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// tempTable and upperTemp are where tables are written before they are ingested,
// which links them into place.
const (
	tempTable = "flush.tmp"
	upperTemp = "upper.tmp" // the upper keys of a flush of two tables
)

// splitEntries is how many keys a flush must have for two tables in bulk mode.
const splitEntries = 16 << 10

// removeTemp removes what a crash or a failed attempt left behind.
func (s *Store) removeTemp() (err error) {
	for _, name := range []string{tempTable, upperTemp} {
		path := s.fs.PathJoin(s.dir, name)
		if _, missing := s.fs.Stat(path); missing == nil {
			err = errors.Join(err, s.fs.Remove(path))
		}
	}
	return coded(err, "remove an unfinished state table")
}

func (s *Store) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// flusher writes frozen overlays, oldest first, until Close or a fault.
func (s *Store) flusher() {
	defer s.done.Done()
	for range s.wake {
		for s.faulted() == nil {
			v := s.view.now.Load()
			if len(v.frozen) == 0 {
				break
			}
			o := v.frozen[len(v.frozen)-1]
			if err := s.flushOverlay(o); err != nil {
				s.failed(err)
				break
			}
			s.installed(o)
		}
		s.view.mu.Lock()
		stop := s.view.stop
		s.view.mu.Unlock()
		if stop {
			return
		}
	}
}

// failed tells the waiters. A full disk before the ingest is tried again when
// somebody next waits; anything else stops the store.
func (s *Store) failed(err error) {
	if !errors.Is(err, fcp.CodeDiskFull) {
		s.poison(fcp.Wrap(fcp.CodeDisk, err, "flush the state"))
	}
	s.view.mu.Lock()
	s.view.fails++
	s.view.lastErr = err
	s.view.changed.Broadcast()
	s.view.mu.Unlock()
}

// installed drops an ingested overlay from the view.
func (s *Store) installed(o *overlay) {
	s.digests.retire(o)
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	v := s.view.now.Load()
	s.cursor.Store(o.position)
	s.view.now.Store(&view{active: v.active, frozen: v.frozen[: len(v.frozen)-1 : len(v.frozen)-1]})
	s.view.changed.Broadcast()
}

// flushOverlay makes tables of o and the cursor, and ingests them in one step.
func (s *Store) flushOverlay(o *overlay) error {
	if s.opts.ReadOnly {
		return fcp.Errorf(fcp.CodeDiskFull, "the state was opened without room to write")
	}
	if err := s.removeTemp(); err != nil {
		return err
	}
	elems, hashes := o.collect()
	paths, size, err := s.writeTables(o, elems)
	if err != nil {
		return errors.Join(coded(err, "write a state table"), s.removeTemp())
	}
	s.ingestMu.Lock()
	defer s.ingestMu.Unlock()
	if s.filter.on {
		s.filter.add(hashes)
	}
	o.ingesting.Store(true)
	if err := s.db.Ingest(context.Background(), paths); err != nil {
		// The manifest may or may not name the tables: only a reopening can tell.
		return fcp.Errorf(fcp.CodeCrashed, "ingest a state table: %w", err)
	}
	if err := s.fs.check(); err != nil {
		return err
	}
	s.stats.flushes.Add(1)
	s.stats.flushed.Add(uint64(len(elems)))
	s.stats.flushedBytes.Add(size)
	return nil
}

// collect returns the newest record of each key in key order, and the key
// hashes in nearly ascending order. It visits the arena forwards.
func (o *overlay) collect() ([]elem, []uint64) {
	t := o.tab.Load()
	hashes := make([]uint64, 0, t.used)
	for i := 0; i < len(t.s); i += 2 {
		if t.s[i+1] > slotDead {
			hashes = append(hashes, t.s[i])
		}
	}
	elems := make([]elem, 0, len(hashes)+len(hashes)/8)
	var old []uint32 // records that a newer one replaces
	var p prefixes
	o.walk(firstOffset, o.mark.Load(), func(off uint32, r record) {
		elems = append(elems, elem{off: off})
		if r.prev != 0 {
			old = append(old, r.prev)
			return
		}
		p.add(r.key) // once for each key
	})
	if len(old) > 0 {
		slices.Sort(old)
		elems = slices.DeleteFunc(elems, func(e elem) bool {
			for len(old) > 0 && old[0] < e.off {
				old = old[1:]
			}
			return len(old) > 0 && old[0] == e.off
		})
	}
	return p.sort(o.chunks(), elems), hashes
}

// touchAhead is the number of records whose memory is fetched at once: the
// sorted order visits the arena at random, and fetching one at a time would
// cost a full memory latency for each.
const touchAhead = 32

// writeTables writes and syncs the tables of o, whose sorted records are elems, and
// returns their paths and size. In bulk mode, where whoever waits for the last flush
// has nothing else to do, the two halves of the keys are written side by side.
func (s *Store) writeTables(o *overlay, elems []elem) (paths []string, size uint64, err error) {
	paths = []string{s.fs.PathJoin(s.dir, tempTable)}
	if !s.bulk.Load() || len(elems) < s.opts.splitEntries {
		size, err = s.writeTable(paths[0], o.chunks(), elems, &o.position)
		return paths, size, err
	}
	paths = append(paths, s.fs.PathJoin(s.dir, upperTemp))
	half := len(elems) / 2
	var upper uint64
	var upperErr error
	var wg sync.WaitGroup
	wg.Go(func() { upper, upperErr = s.writeTable(paths[1], o.chunks(), elems[half:], &o.position) })
	size, err = s.writeTable(paths[0], o.chunks(), elems[:half], nil)
	wg.Wait()
	if err == nil || upperErr != nil && fcp.IsDiskFull(err) { // what is no full disk counts
		err = upperErr
	}
	return paths, size + upper, err
}

// writeTable writes and syncs one table, the cursor in it unless that is nil, and
// returns its size.
func (s *Store) writeTable(path string, dir [][]byte, elems []elem, position *uint64) (size uint64, err error) {
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return 0, err
	}
	// Begin the writing back early, so that the sync at the end waits less.
	f = vfs.NewSyncingFile(f, vfs.SyncingFileOptions{BytesPerSync: 1 << 20})
	w := sstable.NewRawWriter(objstorageprovider.NewFileWritable(f), s.tableOptions())
	closed := false
	defer func() {
		if !closed {
			err = errors.Join(err, w.Close())
		}
	}()
	for i := 0; i < len(elems); i += touchAhead {
		batch := elems[i:min(i+touchAhead, len(elems))]
		s.stats.touched.Store(touch(dir, batch))
		for _, e := range batch {
			r := at(dir, e.off)
			kind := pebble.InternalKeyKindSet
			if r.tombstone {
				kind = pebble.InternalKeyKindDelete
			}
			if err := w.Add(pebble.MakeInternalKey(r.key, 0, kind), r.value, false); err != nil {
				return 0, err
			}
		}
	}
	if position != nil {
		var cursor [9]byte
		cursor[0] = cursorVersion
		binary.BigEndian.PutUint64(cursor[1:], *position)
		if err := w.Add(pebble.MakeInternalKey(cursorKey, 0, pebble.InternalKeyKindSet), cursor[:], false); err != nil {
			return 0, err
		}
	}
	closed = true
	if err := w.Close(); err != nil {
		return 0, err
	}
	m, err := w.Metadata()
	if err != nil {
		return 0, err
	}
	return m.Size, nil
}

// touch reads the first two cache lines of each record, independently of each
// other so that the processor overlaps the waits.
func touch(dir [][]byte, batch []elem) uint64 {
	var sum byte
	for _, e := range batch {
		c := dir[e.off>>chunkShift]
		i := int(e.off & (chunkSize - 1))
		sum += c[i] + c[min(i+64, len(c)-1)]
	}
	return uint64(sum)
}

func (s *Store) tableOptions() sstable.WriterOptions {
	o := s.pebbleOptions()
	o.EnsureDefaults()
	return o.MakeWriterOptions(0, formatVersion.MaxTableFormat())
}

// Flush makes the tables complete through the last update.
func (s *Store) Flush(ctx context.Context) error {
	if s.closing.Load() {
		return errClosed()
	}
	return s.flush(ctx)
}

// FlushSoon begins to make the tables complete through the last update, in the
// background.
func (s *Store) FlushSoon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faulted() == nil && !s.closing.Load() {
		s.freeze()
	}
}

func (s *Store) flush(ctx context.Context) error {
	s.mu.Lock()
	if err := s.faulted(); err != nil {
		s.mu.Unlock()
		return err
	}
	last := s.freeze()
	s.mu.Unlock()
	return s.awaitFlushed(ctx, last)
}

// flushLocked is flush for a holder of mu.
func (s *Store) flushLocked(ctx context.Context) error {
	if err := s.faulted(); err != nil {
		return err
	}
	return s.awaitFlushed(ctx, s.freeze())
}

// freeze freezes the active overlay if it changed anything, and returns the
// newest overlay that must be flushed. The caller holds mu.
func (s *Store) freeze() uint64 {
	o := s.view.now.Load().active
	if !o.dirty {
		return o.id - 1
	}
	s.rotate()
	return o.id
}

func (s *Store) awaitFlushed(ctx context.Context, last uint64) error {
	return s.await(ctx, func(v *view) bool {
		n := len(v.frozen)
		return n == 0 || v.frozen[n-1].id > last
	})
}

// await waits until the view satisfies reached, an attempt begun meanwhile
// fails, the store stops, or ctx ends.
func (s *Store) await(ctx context.Context, reached func(*view) bool) error {
	stop := context.AfterFunc(ctx, func() {
		s.view.mu.Lock()
		s.view.changed.Broadcast()
		s.view.mu.Unlock()
	})
	defer stop()
	s.view.mu.Lock()
	defer s.view.mu.Unlock()
	fails := s.view.fails
	s.signal()
	for {
		switch {
		case reached(s.view.now.Load()):
			return nil
		case s.faulted() != nil:
			return s.faulted()
		case s.view.fails != fails:
			return s.view.lastErr
		case ctx.Err() != nil:
			return fcp.Wrap(fcp.CodeInterrupted, ctx.Err(), "wait for the state's flush")
		}
		s.view.changed.Wait()
	}
}
