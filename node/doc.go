// Package node is a running member of a mesh: it finds the other nodes of its
// owner, talks to them, keeps their control events and its own in step, spreads
// the symbols of its segments, and rebuilds segments that it does not have from
// whoever holds symbols of them.
//
// # Layers
//
//	Network    sockets: UDP, or a simulated one (network.go, node/simnet)
//	transport  one socket with QUIC; TLS 1.3 both ways, 0-RTT off (transport.go)
//	session    FCP hello and ack inside it, bound to the TLS exporter; control
//	           frames on a stream, symbol frames as datagrams or on streams
//	           (handshake.go, session.go; bytes in node/wire)
//	gossip     what to tell whom: gossip.Core decides, node carries out (node.go)
//	control    events of control feeds under signed heads (control.go)
//	symbols    serve.go, fetch.go, place.go, within budgets (budget.go)
//
// # Trust
//
// TLS keys are of the process; the node's signing key vouches for them, and the
// owner's enrollment for that. A peer is believed about nothing: events must chain
// to a head that their writer signed, symbols must fit what the segment's card or
// an enrolled minter signed, and what was rebuilt must have the card's hash.
//
// # Invariants
//
//   - A session with a node that is not enrolled, or was revoked, does not begin,
//     or ends.
//   - Queues, batches, requests and memory per peer are bounded (limits.go).
//   - Nothing here writes to the log but through the engine.
package node
