// Package authority holds the keys of the system and decides what they allow.
// It decides, it does not do: its functions are pure over the values they are
// given, and only the subpackage keystore touches a file.
//
// Five key roles are never mixed, and each has its own types so that the
// compiler sees to it:
//
//	OwnerKey      Ed25519, signs genesis, zone definitions, manifests, revocations
//	RecoveryKey   X25519, the owner's HPKE recipient, from the same 24 words
//	NodeKeys      signing (Ed25519), encryption (X25519), issuance (Ed25519)
//	ZoneKeys      zone key, object-id key and body key: random, never derived
//	HolderKey     Ed25519, made for tokens: proves possession, signs narrowed tokens
//	SegmentKey    random, one per sealed segment, wrapped under the zone key
//
// # Invariants
//
// A key never leaves through fmt, slog or an encoder: key types print
// "[redacted]" and refuse to be marshalled. Every AEAD and hash input carries a
// purpose string and its address, so a ciphertext that is valid in one place is
// invalid in every other. A signature covers the schema hash and the received
// bytes without their signature field; nothing is encoded again before it is
// verified. What has been verified has its own type (GenesisFacts, Manifest,
// Zone, Revocation), made only by the Verify functions; what an admin may have
// signed is an Unverified one until Authorize. State that several objects make
// (Versions, RevocationSet, Cuts, Attestations, ZoneCheckpoints) depends on the
// set added, never on the order.
//
// Randomness comes in as an io.Reader and time as a value. All types are safe
// for concurrent use after construction, except that Wipe must be the last call.
//
// Decide says whether a request is permitted, from facts that the caller reads off
// its projections. Only Decide makes a Decision that permits, and it takes tokens
// as they came: what a Chain says counts for nothing before.
//
// Byte layouts: spec/wire.md sections 4, 5, 7 and 13; docs/format.md "Authority".
package authority
