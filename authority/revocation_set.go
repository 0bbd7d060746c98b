package authority

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// RevocationSet is everything revoked in one zone: an exact set that only grows.
// The state depends only on the set of revocations and forks added. The zero value
// is empty and ready. Not safe for concurrent use with Add.
type RevocationSet struct {
	Cuts

	byTarget map[fcp.Hash][]*Revocation
	refs     []fcp.Hash // ascending
}

// Add takes a revocation in. It returns the feeds of which what is void changed.
func (s *RevocationSet) Add(r *Revocation) []fcp.Feed {
	i, there := slices.BinarySearchFunc(s.refs, r.ref, compareHash)
	if there {
		return nil
	}
	s.refs = slices.Insert(s.refs, i, r.ref)
	if s.byTarget == nil {
		s.byTarget = map[fcp.Hash][]*Revocation{}
	}
	for _, t := range r.Targets() {
		list := s.byTarget[t]
		at, _ := slices.BinarySearchFunc(list, r, func(a, b *Revocation) int { return compareHash(a.ref, b.ref) })
		s.byTarget[t] = slices.Insert(list, at, r)
	}
	return s.Cuts.Add(r)
}

// Of returns a revocation of the target, in one of the scopes, that is active at a
// time; nil when there is none. No scope means any that the owner revoked in: an
// admin's revocation counts for nothing but what it says its targets are, or the id
// of a device could be revoked as if it were a token's.
func (s *RevocationSet) Of(target fcp.Hash, at time.Time, scopes ...RevocationScope) *Revocation {
	for _, r := range s.byTarget[target] {
		if r.ActiveAt(at) && (len(scopes) == 0 && !r.admin || slices.Contains(scopes, r.o.Scope)) {
			return r
		}
	}
	return nil
}

// At returns Of for one time and the scopes as a predicate.
func (s *RevocationSet) At(at time.Time, scopes ...RevocationScope) func(fcp.Hash) bool {
	return func(target fcp.Hash) bool { return s.Of(target, at, scopes...) != nil }
}

// Head returns the frontier of what is known.
func (s *RevocationSet) Head() RevocationHead {
	return RevocationHead{Seq: uint64(len(s.refs)), Digest: RevocationDigest(s.refs)}
}

// Refs returns the refs of all revocations, ascending. The caller must not change
// the slice.
func (s *RevocationSet) Refs() []fcp.Hash { return s.refs }

// RevocationHead is the frontier of a zone's revocations: how many there are and a
// digest of exactly which. Because the set only grows, a lower number is an older
// state. It is in every checkpoint.
type RevocationHead struct {
	Seq    uint64 // revocations known
	Digest fcp.Hash
}

// RevocationDigest returns BLAKE3-256("FCP2-REVOCATION-SET-V1" || u64be n || the
// refs, ascending); zeros for none.
func RevocationDigest(refs []fcp.Hash) (d fcp.Hash) {
	if len(refs) == 0 {
		return d
	}
	h := blake3.New()
	h.WriteString("FCP2-REVOCATION-SET-V1")
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(refs))))
	for _, r := range refs {
		h.Write(r[:])
	}
	h.Sum(d[:0])
	return d
}

// Reasons around revocation frontiers and chains.
const (
	ReasonRevocationRollback fcp.Reason = "revocation.rollback"           // fewer than were known before
	ReasonRevocationFork     fcp.Reason = "revocation.fork"               // as many, but others
	ReasonChainDuplicate     fcp.Reason = "duplicate_sequence"            // two links with one number
	ReasonChainGap           fcp.Reason = "sequence_gap"                  // a number is missing
	ReasonChainBroken        fcp.Reason = "broken_chain"                  // prev is not the link before
	ReasonStale              fcp.Reason = "stale_data"                    // refused for it
	ReasonStaleWithinAge     fcp.Reason = "stale_but_within_max_age"      // allowed, with a warning
	ReasonStaleAllowed       fcp.Reason = "stale_but_allowed"             // allowed as best effort
	ReasonDegradedMode       fcp.Reason = "policy.degraded_mode"          // allowed, and logged under this name
	ReasonDegradedQuorum     fcp.Reason = "policy.degraded_below_minimum" // too few members are reachable
)

// RevocationFrontier is the highest frontier a node has accepted from anybody. A
// node never goes below it again, whatever its own log was set back to. The zero
// value has seen nothing.
type RevocationFrontier struct{ Head RevocationHead }

// Accept takes a frontier that a quorum vouches for. A lower one is CodeDenied with
// ReasonRevocationRollback; one with the same number and other content, with
// ReasonRevocationFork.
func (f *RevocationFrontier) Accept(h RevocationHead) error {
	switch {
	case h.Seq < f.Head.Seq:
		return fcp.Errorf(fcp.CodeDenied, "%d revocations where %d were known: %w", h.Seq, f.Head.Seq, ReasonRevocationRollback)
	case h.Seq == f.Head.Seq && h.Digest != f.Head.Digest:
		return fcp.Errorf(fcp.CodeDenied, "two sets of %d revocations: %w", h.Seq, ReasonRevocationFork)
	}
	f.Head = h
	return nil
}

// RevocationLink is one link of a chain of revocations: a feed's revocations in
// its order. In the log the feed itself links them; the form is the reference's
// RevocationEvent (spec/wire.md section 13.2).
type RevocationLink struct {
	Seq  uint64 // from 1
	Prev fcp.Hash
	ID   fcp.Hash
}

// RevocationChain is the end of such a chain. The zero value is an empty one.
type RevocationChain struct{ last RevocationLink }

// Extend takes the next link. Errors are CodeDenied with ReasonChainDuplicate,
// ReasonChainGap, ReasonChainBroken.
func (c *RevocationChain) Extend(l RevocationLink) error {
	reason := fcp.Reason("")
	switch {
	case l.Seq <= c.last.Seq:
		reason = ReasonChainDuplicate
	case l.Seq != c.last.Seq+1:
		reason = ReasonChainGap
	case l.Prev != c.last.ID:
		reason = ReasonChainBroken
	}
	if reason != "" {
		return fcp.Errorf(fcp.CodeDenied, "revocation %d after %d: %w", l.Seq, c.last.Seq, reason)
	}
	c.last = l
	return nil
}

// Seq returns how many links the chain has.
func (c *RevocationChain) Seq() uint64 { return c.last.Seq }

// FreshnessPolicy says what happens when others know more revocations than this
// node (spec/wire.md section 13.2).
type FreshnessPolicy string

// The policies.
const (
	FreshStrict     FreshnessPolicy = "strict"      // refuse
	FreshWarn       FreshnessPolicy = "warn"        // go on while the knowledge is young
	FreshBestEffort FreshnessPolicy = "best_effort" // go on
)

// FreshnessOf returns the policy of a tier: dangerous and above strict, risky
// warn, safe best effort.
func FreshnessOf(t Tier) FreshnessPolicy {
	switch {
	case t.AtLeast(TierDangerous):
		return FreshStrict
	case t.AtLeast(TierRisky):
		return FreshWarn
	}
	return FreshBestEffort
}

// Freshness is the answer of FreshnessPolicy.Check.
type Freshness struct {
	Allowed bool
	Stale   bool
	Reason  fcp.Reason // "" when fresh
}

// Check compares what this node knows with what it has heard of. age is the time
// since it last heard from the others.
func (p FreshnessPolicy) Check(local, remote uint64, age, maxAge time.Duration) Freshness {
	switch {
	case local >= remote:
		return Freshness{Allowed: true}
	case p == FreshBestEffort:
		return Freshness{true, true, ReasonStaleAllowed}
	case p == FreshWarn && age <= maxAge:
		return Freshness{true, true, ReasonStaleWithinAge}
	}
	return Freshness{false, true, ReasonStale}
}
