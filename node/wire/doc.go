// Package wire is what two nodes say to each other, as bytes: FCPS symbol frames,
// FCPC control frames, session datagrams, the hello and ack of a session and the
// keys that follow from them (spec/wire.md sections 8 to 11; docs/format.md
// "Wire").
//
// # Purpose
//
// Everything here is a function over bytes and keys. Sockets, clocks, queues and
// decisions are in package node.
//
// # Layouts of a symbol frame
//
// LayoutNative is ours: a header of 106 bytes, symbol records and an XXH3-64
// checksum. LayoutReference is that of the published reference: a header of 114
// bytes with a sender instance id and no checksum. A session uses the one that
// both sides named. Either carries one symbol of 1,024 bytes in 1,160 bytes, which
// is 1,200 with the session's envelope.
//
// # Invariants
//
//   - Every decoder checks sizes before it allocates, takes exactly one frame and
//     nothing behind it, and never panics on hostile bytes.
//   - A key, a nonce and a plaintext meet once: frame and control numbers never
//     repeat under one session's keys, which is the Sender's duty.
//   - No clock, no randomness, no I/O.
package wire
