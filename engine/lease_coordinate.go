package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fcp"
	"fcp/authority"
)

// LeasePeers reaches the other members. Safe for concurrent use.
type LeasePeers interface {
	// Vote asks a member for its signature of a lease: it answers with what its
	// AnswerVote gives.
	Vote(ctx context.Context, member fcp.WriterID, request, lease []byte) (authority.NodeSignature, error)
	// Coordinate asks a member to bring a quorum together: it answers with what its
	// AnswerCoordinate gives.
	Coordinate(ctx context.Context, member fcp.WriterID, request []byte) ([]byte, error)
}

// leaseRounds is how often a coordinator proposes a higher fence.
const leaseRounds = 4

// AcquireLease gets this node a lease of a thing, or renews the one it has, and
// records it. It asks the members in the order of authority.LeaseCoordinators to
// coordinate, itself in its turn and at last. peers may be nil for a zone whose only
// member is this node. Errors: CodeLeaseHeld when another device has it; CodeNoQuorum;
// CodeDenied with the reason of a refusal; those of appending.
func (e *Engine) AcquireLease(ctx context.Context, t authority.Thing, ttl time.Duration, peers LeasePeers) (*LeaseState, error) {
	f, _, err := e.leaseFacts(t)
	if err != nil {
		return nil, err
	}
	r, err := e.RequestLease(t, ttl)
	if err != nil {
		return nil, err
	}
	u, err := e.askCoordinators(ctx, f, r, peers)
	if u == nil && err == nil {
		u, err = e.CoordinateLease(ctx, r.Bytes(), t.Zone, peers)
		// Whoever signed on the way waits for an end that will not come. A release would
		// end the lease that this node still has, too.
		if h, ok := isHeld(err); ok && h.Reason == authority.ReasonQuorum {
			if _, none := e.OwnLease(t); none != nil {
				err = errors.Join(err, e.ReleaseLease(ctx, t, h.Fence))
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if s := u.Spec(); s.Request != r.Ref() || s.Thing != t || s.Holder != f.Self {
		return nil, fcp.Errorf(fcp.CodeDenied, "the coordinator's lease: %w", authority.ReasonLeaseRequest)
	}
	return e.RecordLease(ctx, u)
}

// askCoordinators asks the members before this node in that order; nil when it is its
// own turn. What they say of fences is not believed.
func (e *Engine) askCoordinators(ctx context.Context, f *authority.LeaseFacts, r *authority.LeaseRequest, peers LeasePeers) (*authority.UnverifiedLease, error) {
	t := r.Thing()
	for _, member := range authority.LeaseCoordinators(t.Zone, t.Subject, f.Electorate.Members) {
		if member == f.Self || peers == nil {
			break
		}
		b, err := peers.Coordinate(ctx, member, r.Bytes())
		if errors.Is(err, fcp.CodeLeaseHeld) || ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			continue // not reachable, or without a quorum: the next one
		}
		if u, err := authority.DecodeLease(b); err == nil {
			return u, nil
		}
	}
	return nil, nil
}

// AnswerVote is what a member does with the ask for its vote: it signs the lease that
// the coordinator, whom the session authenticated, proposes. Errors: those of decoding,
// OpenLeaseRequest and PromiseLease; CodeDenied for a lease that another device
// coordinates.
func (e *Engine) AnswerVote(ctx context.Context, from fcp.WriterID, request, lease []byte) (authority.NodeSignature, error) {
	u, err := authority.DecodeLease(lease)
	if err != nil {
		return authority.NodeSignature{}, err
	}
	s := u.Spec()
	if s.Coordinator != from {
		return authority.NodeSignature{}, fcp.Errorf(fcp.CodeDenied, "device %.16s asks in the name of another coordinator: %w", from, authority.ReasonLeaseRequest)
	}
	r, err := e.OpenLeaseRequest(s.Zone, request)
	if err != nil {
		return authority.NodeSignature{}, err
	}
	return e.PromiseLease(ctx, r, u)
}

// AnswerCoordinate is what a member does when the holder of a request, whom the session
// authenticated, asks it to coordinate. Errors: those of decoding and CoordinateLease;
// CodeDenied for another device's request.
func (e *Engine) AnswerCoordinate(ctx context.Context, from fcp.WriterID, request []byte, peers LeasePeers) ([]byte, error) {
	t, holder, err := authority.InspectLeaseRequest(request)
	if err != nil {
		return nil, err
	}
	if holder != from {
		return nil, fcp.Errorf(fcp.CodeDenied, "device %.16s brings the request of another: %w", from, authority.ReasonLeaseHolder)
	}
	l, err := e.CoordinateLease(ctx, request, t.Zone, peers)
	if err != nil {
		return nil, err
	}
	return l.Encode()
}

// CoordinateLease brings the signatures of a quorum together for a request. Errors:
// those of OpenLeaseRequest and ProposeLease; CodeLeaseHeld when a member says that
// another device has the thing and so many say no that no quorum is left;
// CodeNoQuorum, which names the members that did not sign and why, with an
// authority.HeldError that has the fence that was tried.
func (e *Engine) CoordinateLease(ctx context.Context, request []byte, zone fcp.ZoneID, peers LeasePeers) (*authority.UnverifiedLease, error) {
	r, err := e.OpenLeaseRequest(zone, request)
	if err != nil {
		return nil, err
	}
	var above authority.Fence
	for round := 0; ; round++ {
		l, err := e.ProposeLease(r, above)
		if err != nil {
			return nil, err
		}
		f, err := e.ZoneFacts(zone)
		if err != nil {
			return nil, err
		}
		b := ballot{l: l, electorate: f.Checkpoint.Electorate(), facts: f}
		if done, err := e.collect(ctx, &b, r, peers); done != nil || err != nil {
			return done, err
		}
		if h := b.held; h != nil {
			return nil, &fcp.Error{Code: fcp.CodeLeaseHeld, Detail: "device " + h.Holder.String()[:16] + " until " + h.Until.UTC().Format(time.RFC3339), Cause: h}
		}
		if b.above < l.Spec().Fence || round+1 == leaseRounds {
			return nil, &fcp.Error{Code: fcp.CodeNoQuorum, Detail: b.short(e),
				Cause: &authority.HeldError{Reason: authority.ReasonQuorum, Fence: l.Spec().Fence}}
		}
		above = b.above
	}
}

// ballot is one lease on its way to a quorum.
type ballot struct {
	l          *authority.UnverifiedLease
	electorate authority.Electorate
	facts      *ZoneFacts
	held       *authority.HeldError // somebody else has it
	above      authority.Fence      // the highest fence that a member knows
	unsigned   []Refused            // who did not sign, and why
}

// short says by how much a quorum was missed, and who did not sign.
func (b *ballot) short(e *Engine) string {
	slices.SortFunc(b.unsigned, func(x, y Refused) int { return bytes.Compare(x.Device[:], y.Device[:]) })
	return fmt.Sprintf("%d of the %d signatures that a lease needs%s", len(b.l.Signers()), b.electorate.Need(), e.refusals(b.unsigned))
}

// take counts one member's answer and returns the lease when that is enough.
func (b *ballot) take(member fcp.WriterID, vote authority.NodeSignature, err error) *authority.UnverifiedLease {
	if h, ok := isHeld(err); ok {
		if b.l.Spec().Fence.Reaches(h.Fence + 1) { // what lies beyond, the members would not sign
			b.above = max(b.above, h.Fence)
		}
		if h.Reason == authority.ReasonLeaseHeld && (b.held == nil || h.Until.After(b.held.Until)) {
			b.held = h
		}
	}
	if err == nil {
		err = b.electorate.VerifyVote(b.l, vote, &b.facts.signers)
	}
	var with *authority.UnverifiedLease
	if err == nil {
		with, err = b.l.With(vote)
	}
	if err != nil {
		b.unsigned = append(b.unsigned, Refused{member, err})
		return nil
	}
	b.l = with
	if len(with.Signers()) >= b.electorate.Need() {
		return with
	}
	return nil
}

// collect asks all members at once, this node first, and returns the lease as soon as
// a quorum signed; nil when all answered and it did not. A member that this node
// alone refuses for is asked all the same: they may know better.
func (e *Engine) collect(ctx context.Context, b *ballot, r *authority.LeaseRequest, peers LeasePeers) (*authority.UnverifiedLease, error) {
	bare := b.l
	encoded, err := bare.Encode()
	if err != nil {
		return nil, err
	}
	self := e.node.Writer()
	type answer struct {
		member fcp.WriterID
		vote   authority.NodeSignature
		err    error
	}
	asked := 0
	answers := make(chan answer, len(b.electorate.Members))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for _, m := range b.electorate.Members {
		if m.Writer == self || peers == nil {
			continue
		}
		asked++
		go func() {
			v, err := peers.Vote(ctx, m.Writer, r.Bytes(), encoded)
			answers <- answer{m.Writer, v, err}
		}()
	}
	vote, err := e.PromiseLease(ctx, r, bare)
	if done := b.take(self, vote, err); done != nil {
		return done, nil
	}
	for range asked {
		select {
		case a := <-answers:
			if done := b.take(a.member, a.vote, a.err); done != nil {
				return done, nil
			}
		case <-ctx.Done():
			return nil, interrupted(ctx)
		}
	}
	return nil, nil
}

// isHeld returns what a refusal says about a lease that is in the way.
func isHeld(err error) (*authority.HeldError, bool) {
	var h *authority.HeldError
	ok := errors.As(err, &h)
	return h, ok
}
