package coding

import (
	"hash/maphash"
	"math/bits"
)

// esiSet is a set of encoding symbol ids: open addressing, at most half full.
type esiSet struct {
	slots []uint32 // id+1, 0 = empty
	count int
}

// hashFactor is the factor of the hash. It is another one in each process, so that
// nobody can choose ids that end up in one place. Nothing else depends on it.
var hashFactor = maphash.String(maphash.MakeSeed(), "coding") | 1

func (s *esiSet) reset() {
	clear(s.slots)
	s.count = 0
}

// slot returns where id is, or the empty slot where it belongs.
func (s *esiSet) slot(id uint32) int {
	mask := len(s.slots) - 1
	// Multiply and shift: consecutive ids, the usual case, hashFactor evenly.
	i := int(uint64(id)*hashFactor>>(64-bits.Len(uint(mask)))) & mask
	for s.slots[i] != 0 && s.slots[i] != id+1 {
		i = (i + 1) & mask
	}
	return i
}

func (s *esiSet) has(id uint32) bool {
	return s.count > 0 && s.slots[s.slot(id)] != 0
}

// add adds id. all lists the whole set, id included, should it have to grow.
func (s *esiSet) add(id uint32, all []uint32) {
	if 2*(s.count+1) > len(s.slots) {
		s.slots = make([]uint32, max(64, 2*len(s.slots)))
		s.rebuild(all)
		return
	}
	s.slots[s.slot(id)] = id + 1
	s.count++
}

// rebuild makes the set hold exactly all.
func (s *esiSet) rebuild(all []uint32) {
	clear(s.slots)
	s.count = len(all)
	for _, id := range all {
		s.slots[s.slot(id)] = id + 1
	}
}
