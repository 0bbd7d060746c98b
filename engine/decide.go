package engine

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// decisions is what an engine keeps to decide: the links it verified, what was used
// of limited tokens and grants, and which denials it put on record lately.
type decisions struct {
	once  sync.Once
	cache *authority.LinkCache

	mu       sync.Mutex // held over a decision that spends something, so that no call is spent twice
	counts   Counts     // guarded by mu
	used     map[fcp.Hash]spent
	restored uint64 // unix seconds; guarded by mu
	loaded   bool   // guarded by mu
	denials  denials
}

// Counts are the decisions of this process, by outcome. Plain uses are counted and
// leave no event.
type Counts struct {
	Allowed uint64 // permitted
	Denied  uint64 // refused
	Audited uint64 // of both, those that left an audit entry
	Counted uint64 // of the denials, those that are on record as a number only
}

// Refusal is the error of a use that was denied. It wraps the *fcp.Error of the
// decision, whose next step names `fcpctl why` where there is a receipt.
type Refusal struct {
	authority.Decision
	Request fcp.ObjectID
	Receipt fcp.Hash // ref of the decision receipt; zero: the denial left none
	err     error
}

// Error returns the text of the error of the decision.
func (r *Refusal) Error() string { return r.err.Error() }

// Unwrap returns the *fcp.Error of the decision.
func (r *Refusal) Unwrap() error { return r.err }

// Permit says that a request was permitted. Only Authorize makes one. It is for the
// effect that follows at once: it holds at the moment of the decision and no longer.
type Permit struct {
	Decision authority.Decision
	request  *authority.Request
}

// Decide says whether the request is permitted by what this node knows now. It is
// pure: it spends no limit and leaves no trace. Errors are those of reading the
// state, CodeZone, and the halt of a forked zone; a denial is a Decision.
func (e *Engine) Decide(r *authority.Request) (authority.Decision, error) {
	f, err := e.ZoneFacts(r.Zone)
	if err != nil {
		return authority.Decision{}, err
	}
	d, _, err := e.decideBy(f, r, e.env.Now())
	return d, err
}

// DecideAt is Decide by the control objects that were in the log at an earlier
// position, as of the time at. Leases and what was used of limits are those of now.
func (e *Engine) DecideAt(ctx context.Context, r *authority.Request, position uint64, at time.Time) (authority.Decision, error) {
	f, err := e.ZoneFactsAt(ctx, r.Zone, position)
	if err != nil {
		return authority.Decision{}, err
	}
	d, _, err := e.decideBy(f, r, at)
	return d, err
}

func (e *Engine) decideBy(f *ZoneFacts, r *authority.Request, at time.Time) (authority.Decision, Freshness, error) {
	e.decisions.once.Do(func() { e.decisions.cache = authority.NewLinkCache(authority.DefaultLinkCacheSize) })
	facts, fresh, err := f.Facts(r.Principal, r.Tier, at)
	if err != nil {
		return authority.Decision{}, fresh, err
	}
	facts.Executor = e.executor(f, at)
	facts.Limits, facts.Leases, facts.Cache = limits{e, f, r}, leasesView{e, f}, e.decisions.cache
	return authority.Decide(facts, r), fresh, nil
}

// executor is this node as placements see it.
func (e *Engine) executor(f *ZoneFacts, at time.Time) authority.Executor {
	x := authority.Executor{Node: e.node.Writer()}
	for z := range e.ring.Load().zones {
		x.Zones = append(x.Zones, z)
	}
	if a, err := f.Attestations.At(x.Node, at); err == nil {
		x.Tags = a.Tags()
	}
	return x
}

// Authorize decides right before the effect, spends the limits of the token and its
// grants, and leaves what has to be on record: an audit entry for what is more than
// safe, for every approval and crossing of zones and for every denial, and a
// decision receipt for the denial of what is more than safe (40-authority "Decide",
// "Audit"). A denial is a *Refusal. What is on record is on disk before it returns.
// Of many denials of one device for one reason only some are put on record one by
// one, see DenialBurst; the others as a number, with the next one or by Maintain.
func (e *Engine) Authorize(ctx context.Context, r *authority.Request) (*Permit, error) {
	f, err := e.ZoneFacts(r.Zone)
	if err != nil {
		return nil, err
	}
	d, fresh, err := e.decideBy(f, r, e.env.Now())
	if err != nil {
		return nil, err
	}
	if d.Allowed() {
		if d, err = e.spend(f, r, d); err != nil {
			return nil, err
		}
	}
	return e.record(ctx, r, d, fresh)
}

// record leaves the trace of a decision.
func (e *Engine) record(ctx context.Context, r *authority.Request, d authority.Decision, fresh Freshness) (*Permit, error) {
	refusal := &Refusal{Decision: d, Request: r.ID, err: d.Err()}
	uncounted := uint64(0)
	if !d.Allowed() {
		var one bool
		if uncounted, one = e.decisions.admitDenial(r.Device, d.Reason, r.Zone, e.env.Now()); !one {
			return nil, refusal
		}
	}
	var drafts []log.Draft
	if d.NeedsReceipt(r.Tier) {
		body, err := authority.SignDecision(e.env.Now(), e.node, r, &d)
		if err != nil {
			return nil, err
		}
		refusal.Receipt = authority.RefOf(body)
		if drafts, err = e.draft(drafts, r.Zone, fcp.KindDecisionRecorded, fcp.SchemaDecisionReceipt, body); err != nil {
			return nil, err
		}
	}
	for _, what := range auditOf(r, &d, fresh) {
		entry := e.auditEvent(r, &d, what, refusal.Receipt)
		if what == authority.AuditDenied {
			entry.More = uncounted
		}
		body, err := authority.EncodeAuditEvent(entry)
		if err != nil {
			return nil, err
		}
		if drafts, err = e.draft(drafts, r.Zone, fcp.KindAuditEntry, fcp.SchemaAuditEvent, body); err != nil {
			return nil, err
		}
	}
	if len(drafts) > 0 {
		if _, err := e.log.Append(ctx, drafts); err != nil {
			if !d.Allowed() {
				e.decisions.countDenials(denialKey{r.Zone, r.Device, d.Reason}, uncounted+1, e.env.Now())
			}
			return nil, err // what cannot be put on record does not happen
		}
	}
	e.decisions.count(d.Allowed(), len(drafts) > 0)
	if d.Allowed() {
		return &Permit{d, r}, nil
	}
	if fe := (*fcp.Error)(nil); errors.As(refusal.err, &fe) && !refusal.Receipt.IsZero() {
		refusal.err = fe.WithNext("see `fcpctl why " + r.ID.String()[:16] + "` for the reason and the smallest grant that passes")
	}
	return nil, refusal
}

// auditOf says which audit entries a decision leaves.
func auditOf(r *authority.Request, d *authority.Decision, fresh Freshness) (out []authority.AuditType) {
	if fresh.Degraded {
		out = append(out, authority.AuditPolicyDegraded)
	}
	if !d.Allowed() {
		return append(out, authority.AuditDenied)
	}
	if r.Credential != (authority.CredentialID{}) || r.Capability == SecretCapability {
		out = append(out, authority.AuditSecretAccess)
	}
	if r.Data.Origin != r.Zone {
		out = append(out, authority.AuditZoneTransition)
	}
	for _, a := range r.Approvals {
		if slices.Contains(d.Evidence, a.Ref()) {
			out = append(out, approvalAudit[a.Spec().Scope.Kind])
		}
	}
	if r.Tier.AtLeast(authority.TierRisky) {
		out = append(out, authority.AuditInvoke)
	}
	return out
}

var approvalAudit = map[authority.ApprovalKind]authority.AuditType{authority.ApproveElevation: authority.AuditElevation,
	authority.ApproveDeclassification: authority.AuditDeclassification, authority.ApproveExecution: authority.AuditExecution}

func (e *Engine) auditEvent(r *authority.Request, d *authority.Decision, what authority.AuditType, receipt fcp.Hash) authority.AuditEvent {
	a := authority.AuditEvent{Zone: r.Zone, Type: what, Actor: string(r.Principal), Connector: r.Connector, Operation: r.Operation,
		Request: fcp.Hash(r.ID), Result: receipt, At: e.env.Now().Truncate(time.Second)}
	if _, err := fcp.ParseCanonicalID(a.Actor); err != nil {
		a.Actor, a.Connector, a.Operation = "unknown", "", "" // a request that is not well formed is not quoted
	}
	if !d.Allowed() {
		a.Reason = d.Reason
	}
	if r.Token != nil {
		a.Token = r.Token.Leaf()
	}
	return a
}

// draft appends the draft of a governance object of this node.
func (e *Engine) draft(drafts []log.Draft, zone fcp.ZoneID, kind fcp.Kind, schema fcp.Schema, body []byte) ([]log.Draft, error) {
	z := e.ring.Load().zones[zone]
	if z == nil {
		return nil, e.unknownZone(zone)
	}
	return append(drafts, log.Draft{Zone: zone, Plane: fcp.PlaneControl, Under: e.genesis.ID,
		Content: fcp.Content{Kind: kind, Object: objectIDOf(z.current(), schema, body), Body: body}}), nil
}

func (s *decisions) count(allowed, audited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if allowed {
		s.counts.Allowed++
	} else {
		s.counts.Denied++
	}
	if audited {
		s.counts.Audited++
	}
}

// DecisionCounts returns how many decisions this process made.
func (e *Engine) DecisionCounts() Counts {
	e.decisions.mu.Lock()
	defer e.decisions.mu.Unlock()
	return e.decisions.counts
}

// requestID draws the id of a request.
func (e *Engine) requestID() (id fcp.ObjectID, err error) {
	_, err = io.ReadFull(e.env.Rand, id[:])
	return id, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a request")
}
