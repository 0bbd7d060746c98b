package fcp

import "time"

// Every limit of the vocabulary, in one place. A decoder checks its limit before
// it parses or allocates; going over is CodeTooLarge. Sizes are in bytes unless
// the comment says otherwise. Limits of a wire or disk format never change
// without a new format version.

// Canonical CBOR (docs/format.md "Canonical CBOR", spec/wire.md section 1).
const (
	// MaxCanonicalObject is the largest canonical object: its 32-byte schema
	// prefix included, and for an id the domain tag and the header too.
	MaxCanonicalObject = 64 << 20
	MaxNesting         = 16      // arrays and maps inside each other
	MaxArrayElements   = 1 << 16 // elements of one array
	MaxMapPairs        = 1 << 12 // pairs of one map
	MaxHeader          = 1 << 20 // one encoded ObjectHeader
)

// Identifiers (spec/wire.md sections 2 and 3).
const (
	MaxZoneID        = 64  // a ZoneID, prefix included
	MaxIdentifier    = 128 // a CanonicalID
	MaxSchemaPart    = 128 // a schema's namespace, and its name
	MaxSchemaVersion = 64  // a schema's version text
	// MaxSchemaID is the longest string form of a SchemaID.
	MaxSchemaID = MaxSchemaPart + 1 + MaxSchemaPart + 1 + MaxSchemaVersion
)

// Events and bodies (docs/format.md "Event").
const (
	MaxKindName   = 32
	MaxKey        = 1024         // an object's name, UTF-8
	MaxReplaces   = 64           // heads one version can replace
	MaxInlineBody = 1024         // plaintext of a body that rides inside its metadata event
	BodyOverhead  = 512          // object header, schema prefix and sealing of an inline body
	ChunkSize     = 1 << 20      // plaintext of one chunk of a larger body
	MaxBody       = 1<<20 + 4096 // body of one data event
	MaxClearBody  = 256 << 10    // body of one governance event

	EpochLength  = 300 * time.Second // one epoch; open runs are sealed at its end
	MaxClockLead = 120 * time.Second // hybrid time ahead of the wall clock
)

// Segments and their symbols (docs/format.md "Segment").
const (
	SegmentTarget   = 1 << 20  // ciphertext at which an open run is sealed
	MaxSegment      = 4 << 20  // ciphertext of one segment
	TinySegment     = 1 << 10  // below this a segment is copied whole, not coded
	SegmentFrame    = 64 << 10 // plaintext of one encrypted frame of a segment
	MaxCard         = 1 << 10  // an encoded segment card
	SymbolSize      = 1024     // T of a segment's symbols
	SymbolAlignment = 8        // Al of a segment's symbols; SymbolSize is a multiple
)
