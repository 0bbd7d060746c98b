package authority

import (
	"bytes"
	"errors"
	"slices"

	"github.com/zeebo/blake3"

	"fcp"
)

// RefOf names a signed governance object in another one:
// BLAKE3-256("FCP2-AUTHORITY-REF-V1" || bytes as signed). It is not keyed, so that
// a bundle of anchors can be checked without any zone key; it names clear bytes
// that every member of the zone reads anyway.
func RefOf(b []byte) fcp.Hash {
	h := blake3.New()
	h.WriteString("FCP2-AUTHORITY-REF-V1")
	h.Write(b)
	var id fcp.Hash
	h.Sum(id[:0])
	return id
}

// Reasons for halting on an owner's versioned objects.
const (
	ReasonVersionForked   fcp.Reason = "version.forked"   // two objects with the highest number
	ReasonVersionBroken   fcp.Reason = "version.broken"   // prev is not the version before
	ReasonVersionRollback fcp.Reason = "version.rollback" // a restored version has other content
	ReasonVersionStale    fcp.Reason = "version.stale"    // an older version than one already accepted
)

// Versioned is an owner-signed object that replaces its predecessor by number.
type Versioned interface {
	Number() uint64    // from 1
	Ref() fcp.Hash     // RefOf its bytes
	Previous() Hashref // of the version before; none in version 1
}

// Hashref is a reference that may be none.
type Hashref struct {
	Ref fcp.Hash
	Set bool
}

// Versions are all known versions of one object. The owner's number decides,
// never the order of arrival: its state depends only on the set of objects added.
// The zero Versions is empty and ready. Not safe for concurrent use with Add.
type Versions[T Versioned] struct {
	list []T // ascending by number, then ref
}

// Add takes a version in and reports whether it was new.
func (v *Versions[T]) Add(o T) bool {
	i, there := slices.BinarySearchFunc(v.list, o, func(a, b T) int { return compareVersions(a, b) })
	if !there {
		v.list = slices.Insert(v.list, i, o)
	}
	return !there
}

func compareVersions(a, b Versioned) int {
	if a.Number() != b.Number() {
		if a.Number() < b.Number() {
			return -1
		}
		return 1
	}
	x, y := a.Ref(), b.Ref()
	return bytes.Compare(x[:], y[:])
}

// Len returns how many versions are known.
func (v *Versions[T]) Len() int { return len(v.list) }

// All returns the versions, ascending. The caller must not change the slice.
func (v *Versions[T]) All() []T { return v.list }

// Find returns the version with that reference.
func (v *Versions[T]) Find(ref fcp.Hash) (o T, ok bool) {
	for _, o := range v.list {
		if o.Ref() == ref {
			return o, true
		}
	}
	return o, false
}

// Current returns the version with the highest number; ok is false when there is
// none. Two objects with that number, or a predecessor that is known and not the
// one it names, halt: the error is CodeDenied with ReasonVersionForked or
// ReasonVersionBroken, until the owner signs a higher number over one of them.
func (v *Versions[T]) Current() (o T, ok bool, err error) {
	n := len(v.list)
	if n == 0 {
		return o, false, nil
	}
	o = v.list[n-1]
	if n > 1 && v.list[n-2].Number() == o.Number() {
		return o, true, fcp.Errorf(fcp.CodeDenied, "two objects with version number %d: %w", o.Number(), ReasonVersionForked)
	}
	prev := o.Previous()
	if !prev.Set {
		return o, true, nil
	}
	known := false
	for _, p := range v.list[:n-1] {
		if p.Number() == o.Number()-1 {
			known = true
			if p.Ref() == prev.Ref {
				return o, true, nil
			}
		}
	}
	if known {
		return o, true, fcp.Errorf(fcp.CodeDenied, "version %d does not follow the version before: %w", o.Number(), ReasonVersionBroken)
	}
	return o, true, nil
}

// ReasonOf returns the innermost reason in err's chain; "" when it has none.
func ReasonOf(err error) fcp.Reason {
	var r fcp.Reason
	if errors.As(err, &r) {
		return r
	}
	return ""
}
