// Package gossip decides what nodes tell each other about what they have: how far
// each control feed goes, which symbols of which segments they hold, who is a
// member and who is there.
//
// # Purpose
//
// A Core is a state machine: Step takes a time and an event and returns effects.
// There is no goroutine, socket, clock or lock in it, and no effect depends on the
// order of a map, so a schedule of events is a test and a seed is a cluster.
//
// # Control feeds
//
// Nodes reconcile by vectors: for each feed the last event of the contiguous part,
// its hash, and the set of events held beyond it. Differences are exact; there is
// no filter. A Head is signed by the feed's own writer, so a peer cannot invent
// one, and because the hash travels with the number, two branches of one feed are
// seen when their heads meet: the Core freezes that feed alone and hands out both
// heads, which are the proof.
//
// New events of this node are pushed at once to every peer that is there. What
// others wrote is announced: to its writer at once, which is how a writer knows
// when its revocation arrived, and to the rest with the next flush.
//
// # Inventories
//
// An Inventory is one roaring bitmap of encoding symbol ids per segment. Peers get
// all of it when they come and differences after that. A bitmap from outside is
// checked in this order: size, decoding, Validate, cardinality and range, one form.
//
// # Membership
//
// Who is a member is what the owner signed; the caller says so with Members. Being
// away means "do not wait for it", never "its symbols are gone".
//
// # Invariants
//
//   - Every map is bounded: feeds, segments and peers by the limits here.
//   - At most Options.Fetches requests are open, at most one for a feed, and each
//     has a deadline after which another peer is asked.
//   - A feed that forked is neither fetched nor pushed again by who knows it. Its head
//     stays in whole vectors, so that who is behind gets what lies before the fork.
package gossip
