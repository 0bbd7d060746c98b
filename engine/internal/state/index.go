package state

import (
	"bytes"
	"slices"
	"sync"
)

// orderedIndex is the key order of an overlay, made when somebody scans it: a
// few sorted runs of the records that first named a key. A run is immutable.
// Runs shrink geometrically, so indexing n keys costs n log n in all.
type orderedIndex struct {
	mu   sync.Mutex // held while runs are made
	upTo uint32     // records below it are in runs
	runs [][]elem   // pre = the key's first eight bytes

	holeMu sync.Mutex
	holes  []span // rolled-back arena ranges, ascending in to
}

type span struct{ from, to uint32 }

func (x *orderedIndex) hole(from, to uint32) {
	x.holeMu.Lock()
	x.holes = append(x.holes, span{from, to})
	x.holeMu.Unlock()
}

func (x *orderedIndex) holesCopy() []span {
	x.holeMu.Lock()
	defer x.holeMu.Unlock()
	return x.holes[:len(x.holes):len(x.holes)]
}

// sortedRuns returns runs that together name every key first written below w,
// each once. They may name newer keys too.
func (o *overlay) sortedRuns(w uint32) [][]elem {
	x := &o.idx
	x.mu.Lock()
	defer x.mu.Unlock()
	from := max(x.upTo, firstOffset)
	if from >= w {
		return slices.Clone(x.runs)
	}
	var fresh []elem
	o.walk(from, w, func(off uint32, r record) {
		if r.prev == 0 {
			fresh = append(fresh, elem{keyWord(r.key, 0), off})
		}
	})
	x.upTo = w
	if len(fresh) == 0 {
		return slices.Clone(x.runs)
	}
	dir := o.chunks()
	sortElems(dir, fresh)
	for i := range fresh {
		fresh[i].pre = keyWord(at(dir, fresh[i].off).key, 0)
	}
	x.runs = append(x.runs, fresh)
	for n := len(x.runs); n > 1 && len(x.runs[n-2]) < 2*len(x.runs[n-1]); n = len(x.runs) {
		x.runs[n-2] = mergeRuns(dir, x.runs[n-2], x.runs[n-1])
		x.runs = x.runs[:n-1]
	}
	return slices.Clone(x.runs)
}

func mergeRuns(dir [][]byte, a, b []elem) []elem {
	s := sorter{dir: dir}
	out := make([]elem, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if s.compare(a[0], b[0], 8) < 0 {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// seekRun returns the part of run whose keys are at or above lower.
func seekRun(dir [][]byte, run []elem, lower []byte) []elem {
	i, _ := slices.BinarySearchFunc(run, lower, func(e elem, lower []byte) int {
		return bytes.Compare(at(dir, e.off).key, lower)
	})
	return run[i:]
}
