// Package log is the append-only event log: the one place where a write becomes
// durable, and the only truth that state is folded from.
//
// # Purpose
//
// A Log holds feeds. A feed is what one writer, in one incarnation, appended to
// one plane of one zone; it has its own sequence numbers from 1, its own hash
// chain and its own RFC 6962 Merkle tree. Append batches all waiting callers
// into one commit group, which is one Pebble batch with one fsync. Runs of a
// feed are sealed into content-addressed, signed, encrypted segments.
//
// # Invariants
//
//   - Acknowledged means on disk: Append returns nil only after the group's
//     fsync returned nil.
//   - One committer at a time assigns positions, sequence numbers, times and
//     hashes, so there is never a gap and never a sequence number used twice.
//   - A disk error on the commit path stops the log for good (crash-stop).
//     Nothing is retried and nothing more is acknowledged.
//   - A recovered head below the high-water mark opens read-only as tail lost.
//   - Everything the log says about a feed can be recomputed from its events.
//
// The byte layout is docs/format.md, sections "Log keys", "Block", "Segment" and
// "High-water mark". The package imports no sibling: what it needs from the
// layer above it declares as interfaces (Sealer, Signer, Guard, Applier).
package log
