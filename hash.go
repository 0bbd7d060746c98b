package fcp

import (
	"encoding/hex"
)

// HashSize is the length in bytes of every full hash.
const HashSize = 32

// Hash is a 32-byte digest: SHA-256 for event hashes, chains and Merkle trees,
// BLAKE3 where the protocol says so. The zero Hash means "none".
type Hash [HashSize]byte

// ObjectID names an object: keyed BLAKE3 over zone, schema and content
// (docs/format.md "Object id"). The zero ObjectID means "none".
type ObjectID [HashSize]byte

// SegmentID names a sealed segment: BLAKE3-256 of its ciphertext.
type SegmentID [HashSize]byte

// WriterID names a writing node: a domain-separated hash of its node signing
// key, see WriterOf.
type WriterID [HashSize]byte

// FeedID is the hash of a Feed's four fields.
type FeedID [HashSize]byte

func (h Hash) String() string      { return hex.EncodeToString(h[:]) }
func (h ObjectID) String() string  { return hex.EncodeToString(h[:]) }
func (h SegmentID) String() string { return hex.EncodeToString(h[:]) }
func (h WriterID) String() string  { return hex.EncodeToString(h[:]) }
func (h FeedID) String() string    { return hex.EncodeToString(h[:]) }

// The text form of every identifier is its hex digits, in JSON too.

func (h Hash) MarshalText() ([]byte, error)      { return []byte(h.String()), nil }
func (h ObjectID) MarshalText() ([]byte, error)  { return []byte(h.String()), nil }
func (h SegmentID) MarshalText() ([]byte, error) { return []byte(h.String()), nil }
func (h WriterID) MarshalText() ([]byte, error)  { return []byte(h.String()), nil }
func (h FeedID) MarshalText() ([]byte, error)    { return []byte(h.String()), nil }

// IsZero reports whether h is the zero value.
func (h Hash) IsZero() bool      { return h == Hash{} }
func (h ObjectID) IsZero() bool  { return h == ObjectID{} }
func (h SegmentID) IsZero() bool { return h == SegmentID{} }
func (h WriterID) IsZero() bool  { return h == WriterID{} }
func (h FeedID) IsZero() bool    { return h == FeedID{} }

// ParseHash decodes 64 lower- or upper-case hex digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 2*HashSize {
		return Hash{}, Errorf(CodeInvalidArgument, "a hash has %d hex digits, not %d", 2*HashSize, len(s))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return Hash{}, Errorf(CodeInvalidArgument, "a hash is hex digits: %w", err)
	}
	return h, nil
}
