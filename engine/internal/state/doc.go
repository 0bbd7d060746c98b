// Package state is the keyed state that projections fold into: an in-memory
// overlay over sorted tables in a Pebble database of its own.
//
// The log is the only commit point of the product. This store therefore has no
// write-ahead log: an overlay is flushed as one sorted table (in bulk mode as two,
// the halves of its keys), ingested together with the cursor (the log position
// through which the tables are complete) in one atomic step, and after a crash the
// caller folds every event behind Cursor again. State can neither lead nor contradict the log.
//
// Invariants:
//
//   - The tables hold exactly the effects of every Update with a position at or
//     below Cursor, and of no other.
//   - A reader sees each Update whole or not at all; Scan and the digests run
//     on one consistent view.
//   - A digest is a pure function of the (key, canonical) pairs in its range.
//
// Life of an entry: Writer.Set appends a record to the active overlay's arena
// and swings its hash slot; the end of Update moves the overlay's watermark and
// with it the record becomes visible. When the overlay is full it is frozen, a
// background goroutine sorts it, writes its table or two, adds the keys to the
// in-memory filter, ingests them, and drops the overlay from the view.
package state
