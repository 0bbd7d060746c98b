package state

import (
	"github.com/cockroachdb/pebble/v2"
)

// missesBeforeFilter is the number of lookups of absent keys that are worth
// reading all keys once.
const missesBeforeFilter = 4096

// missed counts a lookup that found nothing in the tables.
func (s *Store) missed() {
	if s.filter.ready.Load() || s.misses.Add(1) != missesBeforeFilter {
		return
	}
	s.Warm()
}

// Warm makes the filter in the background unless it is there or being made. It
// is called by itself once enough lookups have missed.
func (s *Store) Warm() {
	if !s.life.Enter() {
		return
	}
	defer s.life.Leave()
	s.ingestMu.Lock()
	defer s.ingestMu.Unlock()
	if s.filter.on || s.closing.Load() {
		return
	}
	it, err := s.db.NewIter(&pebble.IterOptions{UpperBound: []byte{reservedByte}})
	if err != nil {
		s.report(coded(err, "read the state's keys"))
		return
	}
	s.filter.on = true // from here on each flush adds its own keys
	s.done.Add(1)
	go s.buildFilter(it)
}

func (s *Store) buildFilter(it *pebble.Iterator) {
	defer s.done.Done()
	const batch = 1024
	hashes := make([]uint64, 0, batch)
	for ok := it.First(); ok; ok = it.Next() {
		hashes = append(hashes, s.hash(it.Key()))
		if len(hashes) == batch {
			s.filter.add(hashes)
			hashes = hashes[:0]
			if s.closing.Load() {
				break
			}
		}
	}
	s.filter.add(hashes)
	if err := it.Close(); err != nil {
		s.report(coded(err, "read the state's keys"))
		return // without the filter lookups are slower, not wrong
	}
	if !s.closing.Load() {
		s.filter.ready.Store(true)
	}
}
