package state

import (
	"context"
	"encoding/binary"
	"errors"

	"fcp"

	"github.com/cockroachdb/pebble/v2"
)

// A Writer reads and changes the state inside one Update.
type Writer struct {
	s       *Store
	v       *view
	scratch []byte
	fetched uint64 // keeps Fetch from being optimised away
	hashes  []uint64
	failed  error // of a Set or Delete; it fails the group
	lenBuf  [binary.MaxVarintLen64]byte
}

// Update applies one group through the given position, which is at or above
// that of the group before. Readers see all of the group or nothing; when fn
// returns an error they see nothing and Update returns that error. Update waits
// while too many full overlays wait for the disk.
func (s *Store) Update(position uint64, fn func(w *Writer) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.admit(); err != nil {
		return err
	}
	w := &s.writer
	w.v, w.failed = s.view.now.Load(), nil
	o := w.v.active
	if position < o.position {
		return fcp.Errorf(fcp.CodeInvalidArgument, "state position %d is below %d", position, o.position)
	}
	done := false
	defer func() {
		if !done { // fn failed or panicked
			o.rollback()
		}
	}()
	if err := fn(w); err != nil {
		return err
	}
	if w.failed != nil {
		return w.failed
	}
	done = true
	o.commit(position)
	if o.bytes >= s.opts.FlushBytes || o.entries() >= s.opts.FlushEntries {
		s.rotate()
	}
	return nil
}

// admit refuses an update of a stopped store and waits for room.
func (s *Store) admit() error {
	if err := s.faulted(); err != nil {
		return err
	}
	if s.closing.Load() {
		return errClosed()
	}
	if len(s.view.now.Load().frozen) <= s.opts.MaxFrozen {
		return nil
	}
	return s.await(context.Background(), func(v *view) bool { return len(v.frozen) <= s.opts.MaxFrozen })
}

// rotate freezes the active overlay. The caller holds mu.
func (s *Store) rotate() {
	s.view.mu.Lock()
	v := s.view.now.Load()
	hint := 0
	if n := v.active.entries(); n >= s.opts.FlushEntries/2 {
		hint = s.opts.FlushEntries
	}
	frozen := append([]*overlay{v.active}, v.frozen...)
	s.view.now.Store(&view{active: s.newOverlay(v.active.position, hint), frozen: frozen})
	s.view.mu.Unlock()
	s.signal()
}

// Fetch loads the memory in which Get and Set will look for keys: for several at once,
// before the first is got, because the waits for them overlap. Empty keys are passed over.
func (w *Writer) Fetch(keys [][]byte) {
	w.hashes = w.hashes[:0]
	for _, key := range keys {
		if len(key) > 0 {
			w.hashes = append(w.hashes, w.s.hash(key))
		}
	}
	w.fetched += w.v.fetch(&w.s.filter, w.hashes)
}

// Get returns what key holds, the group's own changes included. The value may
// be read until the next call of Get, and must not be changed.
func (w *Writer) Get(key []byte) (v Value, ok bool, err error) {
	h := w.s.hash(key)
	r, found := w.v.lookup(h, key, true)
	if found {
		if r.tombstone {
			return Value{}, false, nil
		}
		v, err = decodeValue(r.value)
		return v, err == nil, err
	}
	v, w.scratch, ok, err = w.s.base(w.scratch[:0], h, key)
	return v, ok, err
}

// Set makes key hold the two parts. An error fails the whole group.
func (w *Writer) Set(key, canonical, local []byte) error {
	if len(canonical)+len(local) > MaxValue {
		return w.fail(fcp.Errorf(fcp.CodeTooLarge, "a state value of %d bytes, at most %d", len(canonical)+len(local), MaxValue))
	}
	if err := checkKey(key); err != nil {
		return w.fail(err)
	}
	n := binary.PutUvarint(w.lenBuf[:], uint64(len(canonical)))
	return w.fail(w.v.active.put(w.s.hash(key), key, 0, w.lenBuf[:n], canonical, local))
}

// Delete makes key hold nothing. An error fails the whole group.
func (w *Writer) Delete(key []byte) error {
	if err := checkKey(key); err != nil {
		return w.fail(err)
	}
	return w.fail(w.v.active.put(w.s.hash(key), key, flagTombstone, nil, nil, nil))
}

func (w *Writer) fail(err error) error {
	if err != nil && w.failed == nil {
		w.failed = err
	}
	return err
}

// Clear removes every key at or above lower and below upper (nil: no bound), in
// one durable step. Everything updated before is flushed first, so a marker set
// by an earlier Update is on disk when the keys go. It does not take turns with
// a group of the caller's own: it must not be called inside Update.
func (s *Store) Clear(ctx context.Context, lower, upper []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return errClosed()
	}
	if err := s.flushLocked(ctx); err != nil {
		return err
	}
	s.digests.mu.Lock()
	defer s.digests.mu.Unlock()
	s.digests.drop(lower, upper)
	if !s.life.Enter() {
		return errClosed()
	}
	defer s.life.Leave()
	lower, upper = bounds(lower, upper)
	if string(lower) >= string(upper) {
		return nil
	}
	s.ingestMu.Lock()
	defer s.ingestMu.Unlock()
	err := s.db.Excise(ctx, pebble.KeyRange{Start: lower, End: upper})
	if err == nil {
		err = s.fs.check()
	}
	if err != nil {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fcp.Wrap(fcp.CodeInterrupted, err, "clear a range of the state")
		}
		err = coded(err, "clear a range of the state")
		s.poison(err)
		return err
	}
	return nil
}

// bounds replaces open ends by the least key and the least reserved one.
func bounds(lower, upper []byte) ([]byte, []byte) {
	if len(lower) == 0 {
		lower = []byte{0}
	}
	if upper == nil || len(upper) > 0 && upper[0] == reservedByte {
		upper = []byte{reservedByte}
	}
	return lower, upper
}
