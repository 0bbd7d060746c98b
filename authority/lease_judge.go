package authority

import (
	"time"

	"fcp"
)

// Reasons of leases beside those of Decide.
const (
	ReasonLeaseReleased   fcp.Reason = "lease.released"            // its holder gave it back
	ReasonLeaseHeld       fcp.Reason = "lease.held"                // another holder has it, or had it until just now
	ReasonLeaseCheckpoint fcp.Reason = "lease.checkpoint_mismatch" // granted under another checkpoint than the signer's
	ReasonLeaseRequest    fcp.Reason = "lease.request_mismatch"    // says something else than its holder asked for
	ReasonLeaseTime       fcp.Reason = "lease.time"                // its times do not fit the signer's clock
	ReasonLeaseStranger   fcp.Reason = "lease.holder_unknown"      // its holder is not enrolled, or was revoked
	ReasonLeaseTwice      fcp.Reason = "lease.forked"              // two leases of one thing with one fence
)

// Electorate says whose signatures make a lease: the members of an accepted
// checkpoint.
type Electorate struct {
	Zone       fcp.ZoneID
	Checkpoint CheckpointRef
	Members    []Member
	MaxFaults  int
}

// Electorate returns who grants leases after the last accepted checkpoint.
func (s *CheckpointState) Electorate() Electorate {
	return Electorate{s.Zone, s.CheckpointRef(), s.members, int(s.maxFaults)}
}

// Electorate returns who grants leases after this checkpoint, once it is accepted.
func (c *UnverifiedZoneCheckpoint) Electorate() Electorate {
	return Electorate{c.o.Zone, CheckpointRef{ID: c.ref, Seq: c.o.Seq}, c.o.Members, int(c.o.MaxFaults)}
}

// Need returns how many signatures a lease needs. It counts all members, also those
// revoked since: then any two quorums intersect whatever each side knew.
func (e *Electorate) Need() int { return Quorum{len(e.Members), e.MaxFaults}.Intersecting() }

// key returns a member's key unless revoked names it at a time.
func (e *Electorate) key(w fcp.WriterID, revoked *RevocationSet, at time.Time) (SigningPublic, bool) {
	for _, m := range e.Members {
		if m.Writer == w {
			return m.Key, revoked == nil || revoked.Of(fcp.Hash(w), at, RevokeDevice, RevokeAttestation) == nil
		}
	}
	return SigningPublic{}, false
}

// Verify checks a lease's signatures: each verifies, is of a member that was not
// revoked when the lease begins, and they suffice. revoked may be nil. Errors:
// CodeDenied with ReasonLeaseCheckpoint, ReasonSignerUnknown or ReasonQuorum;
// CodeSignature.
func (e *Electorate) Verify(l *UnverifiedLease, revoked *RevocationSet) (*Lease, error) {
	if l.o.Zone != e.Zone || l.o.Checkpoint != e.Checkpoint.ID || l.o.Seq.Checkpoint() != e.Checkpoint.Seq {
		return nil, l.refuse(ReasonLeaseCheckpoint)
	}
	from := fromUnix(l.o.From)
	set := signatureSet{l.signatures()}
	signers, err := set.verify(l.statement, func(w fcp.WriterID) (SigningPublic, bool) { return e.key(w, revoked, from) })
	if err != nil {
		return nil, err
	}
	if len(signers) < e.Need() {
		return nil, l.refuse(ReasonQuorum)
	}
	return &Lease{*l}, nil
}

// VerifyVote checks one member's signature of a lease.
func (e *Electorate) VerifyVote(l *UnverifiedLease, n NodeSignature, revoked *RevocationSet) error {
	set := signatureSet{[]NodeSignature{n}}
	_, err := set.verify(l.statement, func(w fcp.WriterID) (SigningPublic, bool) { return e.key(w, revoked, fromUnix(l.o.From)) })
	return err
}

func (l *UnverifiedLease) refuse(r fcp.Reason) *fcp.Error {
	return refuse(r, "fence %d of %.16s for %s", l.o.Seq, l.o.Subject, l.o.Purpose)
}

// Promise is what a signer knows of a thing: what it promised last, or the highest
// lease in its log. The zero Promise is none.
type Promise struct {
	Fence    Fence
	Ref      fcp.Hash
	Holder   fcp.WriterID
	Until    time.Time // of this and of earlier ones of the same holder
	Released bool      // by the holder
}

// blocks reports whether the promise keeps the thing from another holder.
func (p *Promise) blocks(holder fcp.WriterID, now time.Time) bool {
	return p.Fence > 0 && p.Holder != holder && !p.Released && now.Before(p.Until.Add(MaxSkew))
}

// LeaseFacts are what a signer's judgement looks at.
type LeaseFacts struct {
	Now        time.Time
	Electorate Electorate // of the last accepted checkpoint
	Self       fcp.WriterID
	Promised   Promise // what this node signed last for the thing
	Known      Promise // the highest valid lease in its log
}

// HeldError is the cause of a refusal because somebody else has the thing, or because
// the fence is too low: what the next proposal has to take into account.
type HeldError struct {
	Reason fcp.Reason
	Fence  Fence        // the highest that the signer knows
	Holder fcp.WriterID // who has it, for ReasonLeaseHeld
	Until  time.Time    // until when, skew included, for ReasonLeaseHeld
}

// Error implements error.
func (h *HeldError) Error() string { return string(h.Reason) }

// Unwrap gives ReasonOf the reason.
func (h *HeldError) Unwrap() error { return h.Reason }

// Judge says whether this node may sign a lease that the request asks for, and
// returns the promise to write down first (docs/leases.md rule 4). It is pure. A
// lease that was promised already gives the same promise again. Errors: CodeDenied
// with a reason; CodeLeaseHeld and CodeFenced with a HeldError.
func (f *LeaseFacts) Judge(l *UnverifiedLease, r *LeaseRequest) (Promise, error) {
	s := l.Spec()
	e := &f.Electorate
	switch {
	case s.Zone != e.Zone || s.Checkpoint != e.Checkpoint.ID || s.Fence.Checkpoint() != e.Checkpoint.Seq:
		return Promise{}, l.refuse(ReasonLeaseCheckpoint)
	case s.Request != r.Ref() || s.Thing != r.Thing() || s.Holder != r.Holder() || s.Until.Sub(s.From) != r.For():
		return Promise{}, l.refuse(ReasonLeaseRequest)
	case s.From.Sub(f.Now) > MaxSkew || f.Now.Sub(s.From) > MaxSkew || !f.Now.Before(s.Until.Add(MaxSkew)):
		return Promise{}, l.refuse(ReasonLeaseTime)
	}
	if _, ok := e.key(f.Self, nil, f.Now); !ok {
		return Promise{}, l.refuse(ReasonSignerUnknown)
	}
	if f.Promised.Ref == l.Ref() {
		return f.Promised, nil
	}
	highest := max(f.Promised.Fence, f.Known.Fence)
	for _, p := range []*Promise{&f.Promised, &f.Known} {
		if p.blocks(s.Holder, f.Now) {
			return Promise{}, f.held(fcp.CodeLeaseHeld, &HeldError{ReasonLeaseHeld, highest, p.Holder, p.Until.Add(MaxSkew)})
		}
	}
	if s.Fence <= highest || s.Fence-max(highest, s.Fence&^(1<<fenceCounterBits-1)) > maxFenceStep {
		return Promise{}, f.held(fcp.CodeFenced, &HeldError{Reason: ReasonLeaseStale, Fence: highest})
	}
	out := Promise{Fence: s.Fence, Ref: l.Ref(), Holder: s.Holder, Until: s.Until}
	if p := &f.Promised; p.Holder == s.Holder && !p.Released && p.Until.After(out.Until) {
		out.Until = p.Until // a shorter renewal does not end what was promised before
	}
	return out, nil
}

func (f *LeaseFacts) held(code fcp.Code, h *HeldError) error {
	detail := string(h.Reason)
	if h.Reason == ReasonLeaseHeld {
		detail += ": device " + h.Holder.String()[:16] + " until " + h.Until.UTC().Format(time.RFC3339)
	}
	return &fcp.Error{Code: code, Detail: detail, Cause: h}
}

// FenceRecord is what a sink remembers of a thing. The zero FenceRecord is nothing.
type FenceRecord struct {
	Fence Fence
	Ref   fcp.Hash // of the lease
}

// Admit says whether an effect under a lease may happen at a sink that let highest
// through last and knows of a valid lease with the fence known. It returns what to
// write down before the effect. Errors: CodeFenced; CodeEquivocation with
// ReasonLeaseTwice for another lease under the same fence.
func Admit(l *Lease, highest FenceRecord, known Fence) (FenceRecord, error) {
	s := FenceRecord{l.o.Seq, l.Ref()}
	switch {
	case s.Fence < max(highest.Fence, known):
		return highest, &fcp.Error{Code: fcp.CodeFenced, Detail: l.refuse(ReasonLeaseStale).Detail,
			Cause: &HeldError{Reason: ReasonLeaseStale, Fence: max(highest.Fence, known)}}
	case s.Fence == highest.Fence && s.Ref != highest.Ref:
		return highest, &fcp.Error{Code: fcp.CodeEquivocation, Detail: l.refuse(ReasonLeaseTwice).Detail, Cause: ReasonLeaseTwice}
	}
	return s, nil
}

// Electorates returns who grants leases after genesis and after each accepted
// checkpoint, by the checkpoint's ref. accepted are the refs from number 0 on.
func (s *ZoneCheckpoints) Electorates(from CheckpointState, accepted []fcp.Hash) map[fcp.Hash]Electorate {
	out := map[fcp.Hash]Electorate{from.Ref: from.Electorate()}
	for seq, ref := range accepted {
		for i := range s.bySeq[uint64(seq)] {
			if g := &s.bySeq[uint64(seq)][i]; g.ref == ref {
				out[ref] = g.variants[0].Electorate()
			}
		}
	}
	return out
}
