package state

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"fcp/internal/hugepage"
)

// A filter says of a key hash that it is surely in no table, so that the common
// lookup of an absent key costs a few cache lines whatever the number of
// tables. It is memory only: complete from the start for an empty store, and
// made from the tables in the background otherwise (see Store.buildFilter).
//
// It is a chain of split-block Bloom filters of growing size. A deleted key
// stays in it, which costs time and nothing else.
type filter struct {
	mu    sync.Mutex // one adder at a time
	tiers atomic.Pointer[[]*tier]
	ready atomic.Bool // every key of the tables is in
	on    bool        // keys are being added; guarded by Store.ingestMu
}

type tier struct {
	words []uint64 // blocks of four
	room  int      // keys it may still take; guarded by filter.mu
}

const (
	filterBits  = 12 // bits per key
	firstTier   = 1 << 20
	blockWords  = 4
	filterMixer = 0x9e3779b97f4a7c15
)

func newTier(keys int) *tier {
	blocks := (keys*filterBits + 64*blockWords - 1) / (64 * blockWords)
	t := &tier{words: make([]uint64, blocks*blockWords), room: keys}
	hugepage.Advise(t.words)
	return t
}

// block returns the block of a hash; it ascends with the hash.
func (t *tier) block(hash uint64) []uint64 {
	i, _ := bits.Mul64(hash, uint64(len(t.words)/blockWords))
	return t.words[i*blockWords : i*blockWords+blockWords : i*blockWords+blockWords]
}

// masks returns two bits for each word of the block.
func masks(hash uint64) [blockWords]uint64 {
	h := hash * filterMixer
	return [blockWords]uint64{
		1<<(h>>58) | 1<<(h>>52&63),
		1<<(h>>46&63) | 1<<(h>>40&63),
		1<<(h>>34&63) | 1<<(h>>28&63),
		1<<(h>>22&63) | 1<<(h>>16&63),
	}
}

// absent reports that no table holds a key of this hash. False also means that
// the filter does not know.
func (f *filter) absent(hash uint64) bool {
	if !f.ready.Load() {
		return false
	}
	p := f.tiers.Load()
	if p == nil {
		return true
	}
	m := masks(hash)
	for _, t := range *p {
		b := t.block(hash)
		if atomic.LoadUint64(&b[0])&m[0] == m[0] && atomic.LoadUint64(&b[1])&m[1] == m[1] &&
			atomic.LoadUint64(&b[2])&m[2] == m[2] && atomic.LoadUint64(&b[3])&m[3] == m[3] {
			return false
		}
	}
	return true
}

// add puts hashes in. It is fastest for ascending hashes.
func (f *filter) add(hashes []uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var t *tier
	if p := f.tiers.Load(); p != nil {
		t = (*p)[len(*p)-1]
	}
	for _, h := range hashes {
		if t == nil || t.room <= 0 {
			t = f.addTier()
		}
		m, b := masks(h), t.block(h)
		// Only adders write, under mu, so a plain read is not a race.
		if b[0]&m[0] == m[0] && b[1]&m[1] == m[1] && b[2]&m[2] == m[2] && b[3]&m[3] == m[3] {
			continue
		}
		t.room--
		for i := range m {
			atomic.StoreUint64(&b[i], b[i]|m[i])
		}
	}
}

// addTier appends a tier as large as all others together.
func (f *filter) addTier() *tier {
	var tiers []*tier
	keys := 0
	if p := f.tiers.Load(); p != nil {
		tiers = append(tiers, *p...)
	}
	for _, t := range tiers {
		keys += len(t.words) * 64 / filterBits
	}
	t := newTier(max(firstTier, keys))
	tiers = append(tiers, t)
	f.tiers.Store(&tiers)
	return t
}

func (f *filter) bytes() int64 {
	var n int64
	if p := f.tiers.Load(); p != nil {
		for _, t := range *p {
			n += int64(len(t.words)) * 8
		}
	}
	return n
}
