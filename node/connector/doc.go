// Package connector is the vocabulary between a node and its connectors: what a
// connector says of itself (archetype, runtime, state model, health, event
// capabilities), what a simulated call answers, and the cursors and
// acknowledgements of event streams.
//
// # Invariants
//
// Every enumeration is closed: a text outside it does not decode. Optional fields
// are pointers and are left out when absent, so that 0 and "not said" differ. The
// forms are JSON, because connectors speak it; nothing here is hashed or signed,
// which is why a load may be a fraction.
//
// Field names: spec/wire.md section 13.10 and the reference's SDK.
package connector
