package state

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"fcp"

	"github.com/zeebo/xxh3"
)

// DigestOptions say what the digests cover. They are part of the digest's
// meaning and fixed while a store is open.
type DigestOptions struct {
	// MapKey appends to dst the name under which key is digested; nil means the
	// key itself. Within a range that is digested it must keep the keys' order
	// and distinctness.
	MapKey func(dst, key []byte) []byte
	// Skip leaves a key out.
	Skip func(key []byte) bool
}

// A digest is a hash of hashes of buckets, so that a small change costs a small
// recomputation. With key the mapped key, and lengths as 4-byte big-endian
// numbers:
//
//	a key begins a bucket   when xxh3_64(key) mod 512 = 0, or when it is the range's first
//	bucket digest           SHA-256("fcp state bucket v1" 0 | for each entry: len | key | len | canonical)
//	range digest            SHA-256("fcp state range v1" 0 | bucket digests in key order)
//
// Both are functions of the content alone. Whoever chooses keys can make
// buckets large or small, which costs time or memory and nothing else.
const (
	bucketTag = "fcp state bucket v1\x00"
	rangeTag  = "fcp state range v1\x00"
	bucketMod = 512
)

// digests keeps the bucket digests of the ranges that were asked for.
//
// Which buckets a change touched is found late: a digest first walks the
// records written since the one before. Overlays that leave the view before
// that are kept aside.
type digests struct {
	mu     sync.Mutex  // held while a digest is computed
	ranges []*keyRange // by lower, then upper; guarded by mu
	reach  [][]byte    // reach[i] is the highest upper of ranges[:i+1]
	// Records of overlays below walkedID, and of walkedID below walkedTo, have
	// marked their buckets. Guarded by mu.
	walkedID uint64
	walkedTo uint32

	active atomic.Bool // a digest was asked for since Open

	asideMu sync.Mutex
	aside   []*overlay // flushed but not walked, oldest first
	lost    bool       // too much was set aside: every range is computed anew
}

// maxAside bounds the overlays kept in memory for one long computation.
const maxAside = 4

// maxRanges bounds the ranges remembered; beyond it all are forgotten.
const maxRanges = 4096

type keyRange struct {
	lower, upper []byte
	known        bool     // buckets are those of some past content
	buckets      []bucket // in key order
	dirty        int      // buckets marked
	root         fcp.Hash // valid when known and dirty == 0
}

type bucket struct {
	start  []byte // first key, unmapped; of the first bucket the range's lower bound
	digest fcp.Hash
	dirty  bool
}

// Digest returns the digest of everything.
func (s *Store) Digest() (fcp.Hash, error) { return s.RangeDigest(nil, nil) }

// RangeDigest returns the digest of the keys at or above lower and below upper
// (nil: no bound), through the last complete Update. The first call for a range
// reads all of it, later ones what has changed. Updates go on meanwhile.
func (s *Store) RangeDigest(lower, upper []byte) (fcp.Hash, error) {
	if !s.life.Enter() {
		return fcp.Hash{}, errClosed()
	}
	defer s.life.Leave()
	d := &s.digests
	d.mu.Lock()
	defer d.mu.Unlock()
	first := !d.active.Swap(true) // before the snapshot: from now on no overlay is missed
	lower, upper = bounds(lower, upper)
	sn, err := s.snapshot(lower, upper)
	if err != nil {
		return fcp.Hash{}, err
	}
	if first {
		d.walkedID, d.walkedTo = sn.v.active.id, sn.mark
	} else {
		d.catchUp(sn)
	}
	r := d.find(lower, upper)
	if !r.known || r.dirty > 0 {
		err = s.rehash(r, sn)
	}
	return r.root, errors.Join(err, coded(sn.base.Close(), "read the state"))
}

// retire is told of each overlay before it leaves the view.
func (d *digests) retire(o *overlay) {
	if !d.active.Load() {
		return
	}
	d.asideMu.Lock()
	d.aside = append(d.aside, o)
	n := len(d.aside)
	d.asideMu.Unlock()
	if d.mu.TryLock() {
		d.walkAside(math.MaxUint64)
		d.mu.Unlock()
		return
	}
	if n > maxAside {
		d.asideMu.Lock()
		d.aside, d.lost = nil, true
		d.asideMu.Unlock()
	}
}

// walkAside marks the buckets of retired overlays below id. The caller holds mu.
func (d *digests) walkAside(id uint64) {
	d.asideMu.Lock()
	n := 0
	for n < len(d.aside) && d.aside[n].id < id {
		n++
	}
	walk, lost := d.aside[:n:n], d.lost
	d.aside, d.lost = slices.Clone(d.aside[n:]), false
	d.asideMu.Unlock()
	if lost {
		d.setRanges(nil)
	}
	for _, o := range walk {
		d.mark(o, o.mark.Load())
	}
}

// catchUp marks the buckets of everything up to the snapshot. The view is older
// than the list of retired overlays, so no overlay is in neither.
func (d *digests) catchUp(sn *snapshot) {
	d.walkAside(sn.v.active.id)
	for _, o := range slices.Backward(sn.v.frozen) {
		d.mark(o, o.mark.Load())
	}
	d.mark(sn.v.active, sn.mark)
}

// mark walks the records of o below to that were not walked yet.
func (d *digests) mark(o *overlay, to uint32) {
	from := uint32(firstOffset)
	switch {
	case o.id < d.walkedID:
		return
	case o.id == d.walkedID:
		from = max(from, d.walkedTo)
	}
	d.walkedID, d.walkedTo = o.id, max(from, to)
	if len(d.ranges) == 0 || from >= to {
		return
	}
	o.walk(from, to, func(_ uint32, r record) { d.touch(r.key) })
}

// touch marks the bucket of key in every range that holds it.
func (d *digests) touch(key []byte) {
	i, exact := slices.BinarySearchFunc(d.ranges, key, func(r *keyRange, k []byte) int { return bytes.Compare(r.lower, k) })
	if exact { // the first of several, perhaps
		for i < len(d.ranges) && bytes.Equal(d.ranges[i].lower, key) {
			i++
		}
	}
	for i--; i >= 0 && bytes.Compare(key, d.reach[i]) < 0; i-- {
		if d.ranges[i].contains(key) {
			d.ranges[i].touch(key)
		}
	}
}

// setRanges replaces the ranges and what follows from them.
func (d *digests) setRanges(ranges []*keyRange) {
	d.ranges = ranges
	d.reach = d.reach[:0]
	var most []byte
	for _, r := range ranges {
		if bytes.Compare(most, r.upper) < 0 {
			most = r.upper
		}
		d.reach = append(d.reach, most)
	}
}

func (r *keyRange) contains(key []byte) bool {
	return bytes.Compare(r.lower, key) <= 0 && bytes.Compare(key, r.upper) < 0
}

// touch marks the bucket of key, and the one before when key begins it: without
// key the two are one.
func (r *keyRange) touch(key []byte) {
	if !r.known || len(r.buckets) == 0 {
		r.known = false
		return
	}
	i, exact := slices.BinarySearchFunc(r.buckets, key, func(b bucket, k []byte) int { return bytes.Compare(b.start, k) })
	if !exact {
		i--
	}
	r.markBucket(i)
	if exact && i > 0 {
		r.markBucket(i - 1)
	}
}

func (r *keyRange) markBucket(i int) {
	if !r.buckets[i].dirty {
		r.buckets[i].dirty = true
		r.dirty++
	}
}

// find returns the range, remembering it if it is new.
func (d *digests) find(lower, upper []byte) *keyRange {
	i, ok := slices.BinarySearchFunc(d.ranges, lower, func(r *keyRange, _ []byte) int {
		return cmp.Or(bytes.Compare(r.lower, lower), bytes.Compare(r.upper, upper))
	})
	if ok {
		return d.ranges[i]
	}
	if len(d.ranges) >= maxRanges {
		d.ranges, i = nil, 0
	}
	r := &keyRange{lower: bytes.Clone(lower), upper: bytes.Clone(upper)}
	d.setRanges(slices.Insert(d.ranges, i, r))
	return r
}

// drop forgets the ranges that overlap the bounds. The caller holds mu.
func (d *digests) drop(lower, upper []byte) {
	lower, upper = bounds(lower, upper)
	d.setRanges(slices.DeleteFunc(d.ranges, func(r *keyRange) bool {
		return bytes.Compare(r.lower, upper) < 0 && bytes.Compare(lower, r.upper) < 0
	}))
}

// rehash computes the dirty buckets of r, or all.
func (s *Store) rehash(r *keyRange, sn *snapshot) error {
	old := r.buckets
	if !r.known {
		old = []bucket{{start: r.lower, dirty: true}}
	}
	// On an error half of the work is lost: begin anew next time.
	r.known, r.buckets, r.dirty = false, nil, 0
	h := &bucketHasher{opts: &s.opts.Digest, sum: sha256.New(), out: make([]bucket, 0, len(old))}
	for i := 0; i < len(old); {
		if !old[i].dirty {
			h.out = append(h.out, old[i])
			i++
			continue
		}
		j := i
		for j < len(old) && old[j].dirty {
			j++
		}
		upper := r.upper
		if j < len(old) {
			upper = old[j].start
		}
		h.start = old[i].start
		if err := sn.scan(h.start, upper, h.entry); err != nil {
			return err
		}
		h.finish()
		i = j
	}
	root := sha256.New()
	root.Write([]byte(rangeTag))
	for i := range h.out {
		root.Write(h.out[i].digest[:])
	}
	r.buckets, r.known = h.out, true
	if len(r.buckets) > 0 {
		r.buckets[0].start = r.lower
	}
	root.Sum(r.root[:0])
	return nil
}

// A bucketHasher turns entries in key order into buckets.
type bucketHasher struct {
	opts   *DigestOptions
	sum    hash.Hash
	buf    []byte // of the open bucket, not hashed yet
	open   bool
	start  []byte // of the next bucket if it begins without a boundary key
	mapped []byte
	out    []bucket
}

const hashBatch = 16 << 10

func (h *bucketHasher) entry(key, stored []byte) (bool, error) {
	if h.opts.Skip != nil && h.opts.Skip(key) {
		return true, nil
	}
	v, err := decodeValue(stored)
	if err != nil {
		return false, err
	}
	name := key
	if h.opts.MapKey != nil {
		h.mapped = h.opts.MapKey(h.mapped[:0], key)
		name = h.mapped
	}
	boundary := xxh3.Hash(name)%bucketMod == 0
	if boundary && h.open {
		h.finish()
	}
	if !h.open {
		h.open = true
		h.sum.Reset()
		h.buf = append(h.buf[:0], bucketTag...)
		if boundary || h.start == nil {
			h.start = bytes.Clone(key)
		}
	}
	h.buf = binary.BigEndian.AppendUint32(h.buf, uint32(len(name)))
	h.buf = append(h.buf, name...)
	h.buf = binary.BigEndian.AppendUint32(h.buf, uint32(len(v.Canonical)))
	h.buf = append(h.buf, v.Canonical...)
	if len(h.buf) >= hashBatch {
		h.sum.Write(h.buf)
		h.buf = h.buf[:0]
	}
	return true, nil
}

// finish ends the open bucket, if there is one.
func (h *bucketHasher) finish() {
	if h.open {
		h.sum.Write(h.buf)
		b := bucket{start: h.start}
		h.sum.Sum(b.digest[:0])
		h.out = append(h.out, b)
	}
	h.open, h.start = false, nil
}
