// Package fcp is the vocabulary of the system and nothing else: identifiers,
// zones, events, objects, canonical CBOR, segment cards, error codes and limits.
//
// It does no I/O, reads no clock and starts no goroutine; every other package
// may import it and it imports none of them. All values are plain data and safe
// for concurrent use as long as nobody mutates them; types that hold state
// (Clock) say how they are guarded.
//
// Byte layouts are specified in docs/format.md; a type's comment names its
// section there. Every decoder is bounded before it allocates, refuses whatever
// it does not know, and accepts exactly one encoding of each value.
package fcp
