// Package symbols turns a segment's ciphertext into shares of encoding symbols and
// says what a share is worth: formats, commitments and allotment, over bytes alone.
//
// # Purpose
//
// A share is a range of encoding symbols of one segment in one file. The share
// manifest, signed by the node that minted the symbols, lists shares with the root
// of a Merkle tree over their commitments. A Policy says how many symbols each of
// n places gets so that any k of them rebuild. An Inventory says which symbols a
// place holds. The bytes are in docs/format.md "Symbols".
//
// # Invariants
//
//   - Which symbol is right is decided by commitments: of source symbols by the root
//     in the segment's card, of all by the root of their minter. Who may be believed
//     is the caller's question.
//   - A symbol depends on the ciphertext and its id alone, so whoever mints it
//     makes the same bytes.
//   - Every decoder checks sizes before it allocates.
//   - No I/O, no clock, no randomness.
package symbols
