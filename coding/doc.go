// Package coding is RaptorQ forward error correction as RFC 6330 defines it:
// parameters and partitioning of objects (sections 3 and 4), a systematic encoder
// (5.3), and a decoder that rebuilds a source block from any sufficient set of
// its encoding symbols (5.4).
//
// # How it works
//
// Encoding and decoding both solve one sparse linear system over GF(256) for
// the L intermediate symbols (5.3.3.4, 5.4.2). The work on indexes and the work
// on symbols are kept apart:
//
//   - matrix.go builds the binary rows, peel.go orders them by inactivation
//     (5.4.2.2), dense.go solves what is left in the inactive symbols, and
//     emit.go writes all of it down as a program of symbol sums.
//   - replay.go runs such a program over the payload, a tile of columns at a time
//     so that the intermediate symbols stay in cache, with the kernels of
//     internal/gf256. Tiles are independent: that is how more cores are used
//     (crew.go).
//
// A Plan is the program for a K', kept for reuse; an Encoder replays it. A Decoder
// compiles a program for the symbols it happens to have. When few source symbols
// are lost and a PlanCache is at hand it does not: it runs the plan transposed to
// get the factors of the repair symbols, and solves for the lost symbols alone
// (fewlost.go).
//
// # Invariants
//
//   - Any set of symbols that determines the block decodes it: the elimination
//     gives up only when the full matrix lacks rank (tested against plain
//     elimination on the literal matrix), or when the inactive symbols exceed a
//     bound that only sets chosen for it reach (limits.go).
//   - Sizes are checked before memory is taken; DecoderBound states the most a
//     decoder can hold.
//   - Streams given to the kernels come from emit.go alone, so the kernels do not
//     check them.
//   - No clock, no I/O, no logging; no randomness but in where a hash table keeps
//     its ids, on which no result depends.
//
// # Deviations from the text of RFC 6330
//
// None changes an encoding symbol. What differs is how they are computed:
//
//   - 5.3.3.3: the HDPC rows are never formed as the product MT*GAMMA. With
//     t[0] = C[0], t[n] = alpha*t[n-1] + C[n], row i is the sum of the t[j] with
//     MT[i][j] = 1 plus alpha^i * t[K'+S-1].
//   - 5.4.2.2: HDPC rows are never chosen as pivots in the first phase. Among
//     several rows of degree two one column of the largest component is made
//     inactive, the one in the most rows, instead of peeling a chosen row.
//   - 5.4.2.3 to 5.4.2.5: the dense part is solved on bit sets with the binary
//     rows first and the HDPC rows only for what those leave free; intermediate
//     symbols are then found by substitution in the sparse rows.
//   - 5.3.3.3: P1 is the smallest prime >= P, P itself included. Some
//     implementations take the next larger prime when P is prime (99 values of
//     K', the first 49) and do not interoperate there.
//   - 3.3.2: a reserved octet of the transmission information that is not zero
//     is refused, though a receiver should ignore it: canonical re-encoding must
//     equal the input. A Z of 256, which its one octet cannot carry, is refused
//     too, and so is an object of zero octets.
//   - 4.4.1.2: an object with sub-blocks whose length is no multiple of the symbol
//     size is padded at the end of the block, as the RFC says; the encoder then
//     copies that one block.
package coding
