package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// MaintainEvery is how often a daemon calls Maintain.
const MaintainEvery = time.Minute

// Upkeep says what one Maintain did.
type Upkeep struct {
	Counted   int            // audit entries that stand for denials that were only counted
	Renewed   []fcp.WriterID // whose attestation was renewed, ascending
	Signed    int            // heads of this node's feeds that were signed and recorded
	Cosigned  int            // heads of other devices that were witnessed
	Forked    []fcp.Feed     // other devices' feeds whose signed head contradicts the log; found for the first time
	RenewalBy time.Time      // when this node's attestation ends, if it is past half of its life and this node may not renew it; else zero
}

// upkeep is what Maintain remembers between calls.
type upkeep struct {
	mu    sync.Mutex // held over a call
	heads map[fcp.FeedID]seenHead
	quiet map[fcp.FeedID]uint64 // of own feeds: nothing but heads follows the newest head up to here
	known map[fcp.Feed]bool     // forks that were told of
	at    uint64                // position of the state when all heads were looked at
	epoch uint64                // and the epoch then
}

// seenHead is the newest recorded head of a feed.
type seenHead struct {
	size, epoch uint64
	witnessed   bool // by this node
	body        []byte
}

// Maintain does what a node owes from time to time, and a second call at once does
// nothing: it puts the number of denials that were only counted on record; renews,
// on a node whose owner delegated authority.ActionAttest to it, attestations that are
// past half of their life; signs the head of each of its control feeds once an epoch
// in which the feed grew; and witnesses other devices' heads that fit its own copy. A
// head that does not fit leaves an audit entry. Call it every MaintainEvery. Errors are those of appending; what was done stays done.
func (e *Engine) Maintain(ctx context.Context) (u Upkeep, err error) {
	e.upkeep.mu.Lock()
	defer e.upkeep.mu.Unlock()
	if u.Counted, err = e.RecordDenials(ctx); err != nil {
		return u, err
	}
	if err := e.renewAttestations(ctx, &u); err != nil {
		return u, err
	}
	at, epoch := e.applied.Load(), fcp.TimeFromWall(e.env.Now()).Epoch()
	if e.upkeep.at == at && e.upkeep.epoch == epoch {
		return u, nil // no head is new, and none is due
	}
	signers, err := e.signers()
	if err != nil {
		return u, err
	}
	if err := e.seeHeads(signers); err != nil {
		return u, err
	}
	later := false
	for _, f := range e.log.Feeds() {
		if f.Feed.Plane != fcp.PlaneControl || f.Seq == 0 {
			continue
		}
		if f.Own {
			err = e.signEpochHead(ctx, f, &u)
		} else {
			err = e.witness(ctx, f, signers, &u)
		}
		if errors.Is(err, fcp.CodeFuture) { // its clock is ahead
			later = true
		} else if err != nil {
			return u, err
		}
	}
	if !later {
		e.upkeep.at, e.upkeep.epoch = at, epoch
	}
	return u, nil
}

// renewAttestations renews what is attested now or was, and is not revoked.
func (e *Engine) renewAttestations(ctx context.Context, u *Upkeep) error {
	f, err := e.ZoneFacts(fcp.ZoneOwner)
	if err != nil {
		return err
	}
	now := e.env.Now()
	attested := f.Attestations
	attested.RevokedBy(func(target fcp.Hash) bool { return f.Revoked(target, now) != nil })
	may := f.Authorities.Permit(authority.OwnerPublic(e.node.Public().Signing), authority.ActionAttest, fcp.ZoneOwner, now) == nil
	devices, err := e.devices()
	if err != nil {
		return err
	}
	revoked, err := e.revokedWriters()
	if err != nil {
		return err
	}
	writers := make([]fcp.WriterID, 0, len(devices))
	for w := range devices {
		writers = append(writers, w)
	}
	slices.SortFunc(writers, func(a, b fcp.WriterID) int { return bytes.Compare(a[:], b[:]) })
	for _, w := range writers {
		a, err := attested.At(w, now)
		switch reason := authority.ReasonOf(err); {
		case revoked[w]:
			continue
		case err == nil && now.Before(a.RenewAt()):
			continue
		case err != nil && reason != authority.ReasonAttestationExpired:
			continue // never attested, not yet, or revoked: not ours to begin
		case !may:
			if w == e.node.Writer() && err == nil {
				u.RenewalBy = a.Until()
			}
			continue
		}
		from := now.Truncate(time.Second)
		spec := authority.AttestationSpec{Node: devices[w].Node(), From: from, Until: from.Add(authority.DefaultAttestation)}
		if err == nil {
			spec.Tags = a.Tags()
		}
		if err := e.Attest(ctx, e.node, spec); err != nil {
			return err
		}
		u.Renewed = append(u.Renewed, w)
	}
	return nil
}

// seeHeads takes the heads that were recorded since the last call, but for those with
// a signature that is not good: whoever records one with a witness that never signed
// would keep that witness from it.
func (e *Engine) seeHeads(signers authority.Signers) error {
	s := &e.upkeep
	if s.heads == nil {
		s.heads, s.quiet, s.known = map[fcp.FeedID]seenHead{}, map[fcp.FeedID]uint64{}, map[fcp.Feed]bool{}
	}
	for _, f := range e.log.Feeds() {
		no, ok := e.fold.zoneNumber(f.Feed.Zone)
		if !ok || f.Feed.Plane != fcp.PlaneControl {
			continue
		}
		prefix := appendPrefix(nil, no, e.fold.slot(projHeads))
		last := upperBound(append(slices.Clone(prefix), f.ID[:]...))
		seen := s.heads[f.ID]
		from := binary.BigEndian.AppendUint64(append(prefix, f.ID[:]...), seen.size)
		err := e.st.Scan(from, last, func(_ []byte, v state.Value) (bool, error) {
			h, err := e.heads.verify(v.Canonical, signers)
			if err != nil {
				return true, nil // VerifyAudit names it
			}
			mine := slices.Contains(h.witnesses, e.node.Writer())
			if h.spec.Size > seen.size {
				seen = seenHead{h.spec.Size, h.spec.Epoch, mine, bytes.Clone(v.Canonical)}
			}
			seen.witnessed = seen.witnessed || mine
			return true, nil
		})
		if err != nil {
			return err
		}
		s.heads[f.ID] = seen
	}
	return nil
}

// signEpochHead signs the head of an own feed in which something else than bookkeeping
// was written since the last one: else two devices would witness each other for ever,
// and each head be sealed by an event that asks for the next.
func (e *Engine) signEpochHead(ctx context.Context, f log.FeedState, u *Upkeep) error {
	seen := e.upkeep.heads[f.ID]
	if seen.size > 0 && fcp.TimeFromWall(e.env.Now()).Epoch() <= seen.epoch {
		return nil
	}
	from := max(seen.size, e.upkeep.quiet[f.ID]) + 1
	if from > f.Seq {
		return nil
	}
	err := e.log.ScanFeed(ctx, f.No, from, f.Seq, log.VerifyNone, func(events []log.Applied) error {
		if slices.ContainsFunc(events, func(a log.Applied) bool {
			return a.Content.Kind != fcp.KindAuditHead && a.Content.Kind != fcp.KindSegmentSealed && a.Content.Kind != fcp.KindCheckpointSigned
		}) {
			return errEnough
		}
		return nil
	})
	if err == nil {
		e.upkeep.quiet[f.ID] = f.Seq
	}
	if !errors.Is(err, errEnough) {
		return err
	}
	h, err := e.FeedHead(f.Feed)
	if err != nil {
		return err
	}
	if err := e.RecordHead(ctx, h); err != nil {
		return err
	}
	u.Signed++
	return nil
}

// witness cosigns the newest head of another device's feed if this node holds what it
// says.
func (e *Engine) witness(ctx context.Context, f log.FeedState, signers authority.Signers, u *Upkeep) error {
	s := &e.upkeep
	seen := s.heads[f.ID]
	if seen.size == 0 || seen.witnessed || seen.size > f.Seq || s.known[f.Feed] || f.Feed.Writer == e.node.Writer() { // of another incarnation
		return nil
	}
	h, err := authority.VerifyHead(seen.body, signers)
	if err != nil {
		return nil // a witness's key is gone since
	}
	signed, err := e.CosignHead(h)
	switch {
	case errors.Is(err, fcp.CodeEquivocation):
		s.known[f.Feed] = true
		u.Forked = append(u.Forked, f.Feed)
		return e.noteAct(ctx, f.Feed.Zone, authority.AuditSecurity, h.Ref())
	case err != nil:
		return err
	}
	if err := e.RecordHead(ctx, signed); err != nil {
		return err
	}
	u.Cosigned++
	return nil
}
