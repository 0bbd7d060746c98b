package state

import (
	"bytes"
	"errors"
	"math"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/zeebo/xxh3"
)

// lookup returns the newest record of key in memory. With own it includes the
// open group's.
func (v *view) lookup(hash uint64, key []byte, own bool) (record, bool) {
	w := uint32(math.MaxUint32)
	if !own {
		w = v.active.mark.Load()
	}
	if r, ok := v.active.get(hash, key, w); ok {
		return r, true
	}
	for _, o := range v.frozen {
		if r, ok := o.get(hash, key, math.MaxUint32); ok {
			return r, true
		}
	}
	return record{}, false
}

// fetch reads one word wherever lookup and the filter would look for each hash. One
// table after the other, in loops so short that the processor begins many reads before
// the first of them ends.
func (v *view) fetch(f *filter, hashes []uint64) (sum uint64) {
	sum = v.active.tab.Load().homes(hashes)
	for _, o := range v.frozen {
		sum += o.tab.Load().homes(hashes)
	}
	if p := f.tiers.Load(); p != nil {
		for _, t := range *p {
			for _, h := range hashes {
				sum += atomic.LoadUint64(&t.block(h)[0])
			}
		}
	}
	return sum
}

// Get returns what key holds, copied behind dst.
func (s *Store) Get(dst, key []byte) (v Value, ok bool, err error) {
	h := s.hash(key)
	if r, found := s.view.now.Load().lookup(h, key, false); found {
		if r.tombstone {
			return Value{}, false, nil
		}
		n := len(dst)
		v, err = decodeValue(append(dst, r.value...)[n:])
		return v, err == nil, err
	}
	v, _, ok, err = s.base(dst, h, key)
	return v, ok, err
}

// base looks key up in the tables and appends the stored value to dst.
func (s *Store) base(dst []byte, hash uint64, key []byte) (v Value, buf []byte, ok bool, err error) {
	if s.filter.absent(hash) {
		s.stats.filterSaved.Add(1)
		return Value{}, dst, false, nil
	}
	if !s.life.Enter() {
		return Value{}, dst, false, errClosed()
	}
	defer s.life.Leave()
	s.stats.tableReads.Add(1)
	b, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		s.missed()
		return Value{}, dst, false, nil
	}
	if err != nil {
		return Value{}, dst, false, coded(err, "read the state")
	}
	n := len(dst)
	dst = append(dst, b...)
	if err := closer.Close(); err != nil {
		return Value{}, dst, false, coded(err, "read the state")
	}
	v, err = decodeValue(dst[n:])
	return v, dst, err == nil, err
}

// A snapshot is one consistent state: overlays up to a watermark, and tables
// that show no record above it.
type snapshot struct {
	v    *view
	mark uint32 // of v.active
	base *pebble.Iterator
}

// snapshot pins the present state within the bounds. The caller stays inside
// life until it has closed base.
func (s *Store) snapshot(lower, upper []byte) (*snapshot, error) {
	for {
		v := s.view.now.Load()
		mark := v.active.mark.Load()
		it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			return nil, coded(err, "read the state")
		}
		// Overlays are ingested oldest first: as long as the active one is not
		// being ingested, the tables hold nothing newer than the frozen ones.
		if !v.active.ingesting.Load() {
			return &snapshot{v: v, mark: mark, base: it}, nil
		}
		if err := it.Close(); err != nil {
			return nil, coded(err, "read the state")
		}
	}
}

// Scan calls fn for each key at or above lower and below upper (nil: no bound)
// in key order, on one consistent view. key and value may be read until fn
// returns. It stops when fn returns false or an error.
func (s *Store) Scan(lower, upper []byte, fn func(key []byte, v Value) (bool, error)) error {
	if !s.life.Enter() {
		return errClosed()
	}
	defer s.life.Leave()
	lower, upper = bounds(lower, upper)
	sn, err := s.snapshot(lower, upper)
	if err != nil {
		return err
	}
	err = sn.scan(lower, upper, func(key, stored []byte) (bool, error) {
		v, err := decodeValue(stored)
		if err != nil {
			return false, err
		}
		return fn(key, v)
	})
	return errors.Join(err, coded(sn.base.Close(), "read the state"))
}

// A memCursor walks one sorted run of one overlay.
type memCursor struct {
	o    *overlay
	dir  [][]byte
	mark uint32
	run  []elem
	key  []byte
	rec  record
	rank int // lower is newer
}

// next moves to the next key that was visible at the mark and reports whether
// there is one below upper.
func (c *memCursor) next(upper []byte) bool {
	for ; len(c.run) > 0; c.run = c.run[1:] {
		key := at(c.dir, c.run[0].off).key
		if bytes.Compare(key, upper) >= 0 {
			return false
		}
		r, ok := c.o.get(xxh3.HashSeed(key, c.o.seed), key, c.mark)
		if !ok {
			continue // first named after the mark
		}
		c.key, c.rec = key, r
		c.run = c.run[1:]
		return true
	}
	return false
}

// cursors returns the memory's cursors, each at its first key.
func (s *snapshot) cursors(lower, upper []byte) []*memCursor {
	var out []*memCursor
	add := func(o *overlay, mark uint32, rank int) {
		for _, run := range o.sortedRuns(mark) {
			dir := o.chunks()
			c := &memCursor{o: o, dir: dir, mark: mark, run: seekRun(dir, run, lower), rank: rank}
			if c.next(upper) {
				out = append(out, c)
			}
		}
	}
	add(s.v.active, s.mark, 0)
	for i, o := range s.v.frozen {
		add(o, o.mark.Load(), i+1)
	}
	return out
}

// scan merges memory and tables within the bounds.
func (s *snapshot) scan(lower, upper []byte, fn func(key, stored []byte) (bool, error)) error {
	cs := s.cursors(lower, upper)
	var ok bool
	if len(lower) > 0 {
		ok = s.base.SeekGE(lower)
	} else {
		ok = s.base.First()
	}
	for {
		least := leastCursor(cs)
		for ok && (least == nil || bytes.Compare(s.base.Key(), least.key) < 0) {
			if bytes.Compare(s.base.Key(), upper) >= 0 {
				ok = false
				break
			}
			b, err := s.base.ValueAndErr()
			if err != nil {
				return coded(err, "read the state")
			}
			if more, err := fn(s.base.Key(), b); err != nil || !more {
				return err
			}
			ok = s.base.Next()
		}
		if err := s.base.Error(); err != nil {
			return coded(err, "read the state")
		}
		if least == nil {
			return nil
		}
		if ok && bytes.Equal(s.base.Key(), least.key) {
			ok = s.base.Next()
		}
		key, r := least.key, least.rec
		cs = advance(cs, key, upper)
		if !r.tombstone {
			if more, err := fn(key, r.value); err != nil || !more {
				return err
			}
		}
	}
}

// leastCursor returns the cursor of the least key, among equals the newest.
func leastCursor(cs []*memCursor) *memCursor {
	var least *memCursor
	for _, c := range cs {
		if least == nil {
			least = c
			continue
		}
		if d := bytes.Compare(c.key, least.key); d < 0 || d == 0 && c.rank < least.rank {
			least = c
		}
	}
	return least
}

// advance moves every cursor at key and drops those that end.
func advance(cs []*memCursor, key, upper []byte) []*memCursor {
	kept := cs[:0]
	for _, c := range cs {
		if !bytes.Equal(c.key, key) || c.next(upper) {
			kept = append(kept, c)
		}
	}
	return kept
}
