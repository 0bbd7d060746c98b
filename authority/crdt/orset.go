package crdt

import (
	"cmp"
	"slices"

	"fcp"
)

// ORSet is a set in which an addition wins over a removal that did not see it. Each
// addition has a dot (actor, number); the context says which dots were ever seen, so
// a dot that was seen and is at no element was removed. The zero ORSet is empty.
type ORSet struct {
	elements map[string]map[count]bool
	seen     vector         // every dot up to the number
	cloud    map[count]bool // dots beyond, with a gap before
}

type orElement struct {
	Value []byte  `cbor:"value"`
	Dots  []count `cbor:"dots"` // strictly ascending, not empty
}

type orSetObject struct {
	Elements []orElement `cbor:"elements"` // strictly ascending by value
	Seen     []count     `cbor:"seen"`
	Cloud    []count     `cbor:"cloud"` // strictly ascending, none that seen could take in
}

// Kind implements State.
func (*ORSet) Kind() Kind { return KindORSet }

// Has reports whether the element is in the set.
func (s *ORSet) Has(value []byte) bool { return len(s.elements[string(value)]) > 0 }

// Elements returns the elements in byte order.
func (s *ORSet) Elements() [][]byte {
	keys := make([]string, 0, len(s.elements))
	for e := range s.elements {
		keys = append(keys, e)
	}
	slices.Sort(keys)
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = []byte(k)
	}
	return out
}

func (s *ORSet) saw(d count) bool { return d.N <= s.seen[d.Actor] || s.cloud[d] }

// Add adds an element for an actor, who adds with one state at a time, and returns the
// delta. CodeTooLarge above a limit; then nothing changed.
func (s *ORSet) Add(value []byte, actor fcp.WriterID) (*ORSet, error) {
	if len(value) > MaxValue || actor.IsZero() {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an element of %d bytes, the limit is %d", len(value), MaxValue)
	}
	dot := count{actor, s.seen[actor] + 1}
	for s.cloud[dot] {
		dot.N++
	}
	if dot.N > MaxCount {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "an actor's additions end at %d", uint64(MaxCount))
	}
	delta := s.without(value)
	delta.elements = map[string]map[count]bool{string(value): {dot: true}}
	delta.cloud[dot] = true
	delta.compact()
	return delta, s.Join(delta)
}

// Remove removes an element, as far as its additions were seen, and returns the delta,
// which is empty for an element that is not there.
func (s *ORSet) Remove(value []byte) (*ORSet, error) {
	delta := s.without(value)
	delta.compact()
	return delta, s.Join(delta)
}

// without is a delta that has seen the element's dots and has none of them.
func (s *ORSet) without(value []byte) *ORSet {
	delta := &ORSet{seen: vector{}, cloud: map[count]bool{}}
	for d := range s.elements[string(value)] {
		delta.cloud[d] = true
	}
	return delta
}

// compact moves dots from the cloud to the vector where no gap is left.
func (s *ORSet) compact() {
	if s.seen == nil {
		s.seen = vector{}
	}
	dots := sorted(s.cloud)
	for _, d := range dots {
		if d.N == s.seen[d.Actor]+1 {
			s.seen[d.Actor] = d.N
		}
		if d.N <= s.seen[d.Actor] {
			delete(s.cloud, d)
		}
	}
}

func sorted(dots map[count]bool) []count {
	out := make([]count, 0, len(dots))
	for d := range dots {
		out = append(out, d)
	}
	slices.SortFunc(out, count.compare)
	return out
}

// Join implements State.
func (s *ORSet) Join(x State) error {
	o, ok := x.(*ORSet)
	if !ok {
		return errKind(s, x)
	}
	seen, err := s.seen.joined(o.seen)
	if err != nil {
		return err
	}
	out := &ORSet{elements: map[string]map[count]bool{}, seen: seen, cloud: map[count]bool{}}
	for _, side := range []*ORSet{s, o} {
		for d := range side.cloud {
			out.cloud[d] = true
		}
	}
	out.compact()
	keep := func(a, b *ORSet) {
		for e, dots := range a.elements {
			for d := range dots {
				if b.elements[e][d] || !b.saw(d) {
					if out.elements[e] == nil {
						out.elements[e] = map[count]bool{}
					}
					out.elements[e][d] = true
				}
			}
		}
	}
	keep(s, o)
	keep(o, s)
	if len(out.elements) > MaxEntries || len(out.cloud) > MaxEntries || len(out.seen) > MaxActors {
		return fcp.Errorf(fcp.CodeTooLarge, "a set of %d elements and %d dots", len(out.elements), len(out.cloud))
	}
	*s = *out
	return nil
}

// Encode implements State.
func (s *ORSet) Encode() ([]byte, error) {
	o := orSetObject{Elements: make([]orElement, 0, len(s.elements)), Seen: s.seen.list(), Cloud: sorted(s.cloud)}
	for e, dots := range s.elements {
		o.Elements = append(o.Elements, orElement{[]byte(e), sorted(dots)})
	}
	slices.SortFunc(o.Elements, func(a, b orElement) int { return cmp.Compare(string(a.Value), string(b.Value)) })
	return encode(o)
}

func decodeSet(b []byte) (*ORSet, error) {
	var o orSetObject
	if err := fcp.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	s := &ORSet{elements: make(map[string]map[count]bool, len(o.Elements)), cloud: map[count]bool{}}
	var err error
	if s.seen, err = vectorOf(o.Seen); err != nil {
		return nil, err
	}
	if err := checkCounts(o.Cloud, false, MaxEntries); err != nil {
		return nil, err
	}
	for _, d := range o.Cloud {
		s.cloud[d] = true
	}
	if s.compact(); len(s.cloud) != len(o.Cloud) || len(s.seen) != len(o.Seen) {
		return nil, fcp.Errorf(fcp.CodeNonCanonical, "a set whose context is not compact")
	}
	used := map[count]bool{}
	for i := range o.Elements {
		e := &o.Elements[i]
		switch {
		case len(e.Value) > MaxValue:
			return nil, fcp.Errorf(fcp.CodeTooLarge, "an element of %d bytes, the limit is %d", len(e.Value), MaxValue)
		case i > 0 && string(o.Elements[i-1].Value) >= string(e.Value) || len(e.Dots) == 0:
			return nil, fcp.Errorf(fcp.CodeNonCanonical, "a set whose elements are not strictly ascending, or without a dot")
		}
		if err := checkCounts(e.Dots, false, MaxEntries); err != nil {
			return nil, err
		}
		dots := map[count]bool{}
		for _, d := range e.Dots {
			if used[d] || !s.saw(d) {
				return nil, fcp.Errorf(fcp.CodeMalformed, "a set with a dot at two elements, or outside of its context")
			}
			used[d], dots[d] = true, true
		}
		s.elements[string(e.Value)] = dots
	}
	return s, nil
}
