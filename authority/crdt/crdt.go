// Package crdt has the conflict-free models that a connector's state can have
// (docs/leases.md, spec/wire.md section 13.4): a last-writer-wins map, an
// observed-remove set, and counters. They are delta-state CRDTs (Almeida, Shoker,
// Baquero, "Delta State Replicated Data Types", 2018): a delta is a small state, and
// Join is the least upper bound, so deltas may arrive in any order and any number of
// times.
//
// Invariants, held by the package's tests: Join is commutative, associative and
// idempotent; joining the deltas of a history gives the full state; one state has one
// encoding, and what Decode takes encodes back to the same bytes.
package crdt

import (
	"bytes"
	"slices"

	"fcp"
)

// Kind names a model.
type Kind string

// The closed set of models.
const (
	KindLWWMap    Kind = "lww_map"
	KindORSet     Kind = "or_set"
	KindGCounter  Kind = "g_counter"
	KindPNCounter Kind = "pn_counter"
)

// Kinds returns the closed set in a fixed order.
func Kinds() []Kind { return []Kind{KindLWWMap, KindORSet, KindGCounter, KindPNCounter} }

// Valid reports whether the kind is in the set.
func (k Kind) Valid() bool { return slices.Contains(Kinds(), k) }

// Limits of one state.
const (
	MaxActors  = 1024    // devices that a counter or a set's context names
	MaxEntries = 1 << 16 // entries of a map, elements of a set, dots of a context
	MaxKey     = 1024    // bytes of a map's key, which is UTF-8 and not empty
	MaxValue   = 64 << 10
	MaxCount   = 1 << 52   // of one actor; 1,024 of them fit a signed number
	MaxState   = 128 << 10 // encoded
)

// State is the state of one model, or a delta of it. Not safe for concurrent use.
type State interface {
	Kind() Kind
	// Join takes another state of the same kind in. CodeInvalidArgument for another
	// kind; CodeTooLarge, with nothing changed, for a result above a limit.
	Join(State) error
	// Encode returns the one canonical form. CodeTooLarge above MaxState.
	Encode() ([]byte, error)
}

// New returns the empty state of a kind.
func New(k Kind) (State, error) {
	switch k {
	case KindLWWMap:
		return &LWWMap{}, nil
	case KindORSet:
		return &ORSet{}, nil
	case KindGCounter:
		return &GCounter{}, nil
	case KindPNCounter:
		return &PNCounter{}, nil
	}
	return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a CRDT of the kind %.32q", string(k))
}

// Decode decodes a state strictly. Errors: CodeInvalidArgument for an unknown kind,
// CodeTooLarge, CodeMalformed, CodeNonCanonical.
func Decode(k Kind, b []byte) (State, error) {
	if len(b) > MaxState {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a CRDT state of %d bytes, the limit is %d", len(b), MaxState)
	}
	switch k {
	case KindLWWMap:
		return decodeMap(b)
	case KindORSet:
		return decodeSet(b)
	case KindGCounter:
		return decodeGCounter(b)
	case KindPNCounter:
		return decodePNCounter(b)
	}
	return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a CRDT of the kind %.32q", string(k))
}

func errKind(want, got State) error {
	return fcp.Errorf(fcp.CodeInvalidArgument, "a %s cannot join a %s", got.Kind(), want.Kind())
}

func encode(v any) ([]byte, error) {
	b, err := fcp.Marshal(v)
	if err == nil && len(b) > MaxState {
		err = fcp.Errorf(fcp.CodeTooLarge, "a CRDT state of %d bytes, the limit is %d", len(b), MaxState)
	}
	return b, err
}

// count is one actor's number: a counter's part, or a dot of a set.
type count struct {
	Actor fcp.WriterID `cbor:"actor"`
	N     uint64       `cbor:"n"` // 1 to MaxCount
}

func (c count) compare(o count) int {
	if d := bytes.Compare(c.Actor[:], o.Actor[:]); d != 0 {
		return d
	}
	switch {
	case c.N < o.N:
		return -1
	case c.N > o.N:
		return 1
	}
	return 0
}

// vector is one number for each actor.
type vector map[fcp.WriterID]uint64

func (v vector) list() []count {
	out := make([]count, 0, len(v))
	for a, n := range v {
		out = append(out, count{a, n})
	}
	slices.SortFunc(out, count.compare)
	return out
}

// checkCounts checks order, range and number of a list. With unique actors it is a
// vector, else a list of dots.
func checkCounts(list []count, unique bool, limit int) error {
	if len(list) > limit {
		return fcp.Errorf(fcp.CodeTooLarge, "a CRDT with %d actors or dots, the limit is %d", len(list), limit)
	}
	for i, c := range list {
		if c.N == 0 || c.N > MaxCount || c.Actor.IsZero() {
			return fcp.Errorf(fcp.CodeMalformed, "a CRDT with the number %d of an actor", c.N)
		}
		if i > 0 && (list[i-1].compare(c) >= 0 || unique && list[i-1].Actor == c.Actor) {
			return fcp.Errorf(fcp.CodeNonCanonical, "a CRDT whose actors are not strictly ascending")
		}
	}
	return nil
}

func vectorOf(list []count) (vector, error) {
	if err := checkCounts(list, true, MaxActors); err != nil {
		return nil, err
	}
	v := vector{}
	for _, c := range list {
		v[c.Actor] = c.N
	}
	return v, nil
}

// joined returns the highest of each actor; neither changes.
func (v vector) joined(o vector) (vector, error) {
	out := vector{}
	for a, n := range v {
		out[a] = n
	}
	for a, n := range o {
		out[a] = max(out[a], n)
	}
	if len(out) > MaxActors {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a CRDT with %d actors, the limit is %d", len(out), MaxActors)
	}
	return out, nil
}
