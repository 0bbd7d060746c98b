package engine

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// decisions is what an engine keeps to decide: the links it verified and what was
// used of limited tokens and grants.
type decisions struct {
	once   sync.Once
	cache  *authority.LinkCache
	counts Counts // guarded by mu

	mu     sync.Mutex // held over a decision that spends something, so that no call is spent twice
	used   map[fcp.Hash]spent
	loaded bool // guarded by mu
}

// Counts are the decisions of this process, by outcome. Plain uses are counted and
// leave no event.
type Counts struct {
	Allowed uint64 // permitted
	Denied  uint64 // refused
	Audited uint64 // of both, those that left an audit entry
}

// spent is what was used of one token or grant.
type spent struct{ calls, bytes, until uint64 }

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
	facts.Limits, facts.Leases, facts.Cache = limits{e}, leasesView{e, f}, e.decisions.cache
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
		body, err := authority.EncodeAuditEvent(e.auditEvent(r, &d, what, refusal.Receipt))
		if err != nil {
			return nil, err
		}
		if drafts, err = e.draft(drafts, r.Zone, fcp.KindAuditEntry, fcp.SchemaAuditEvent, body); err != nil {
			return nil, err
		}
	}
	if len(drafts) > 0 {
		if _, err := e.log.Append(ctx, drafts); err != nil {
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
	if r.Credential != (authority.CredentialID{}) {
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

// limits implements authority.Limits over what this node spent.
type limits struct{ e *Engine }

func (l limits) Used(ref fcp.Hash) (calls, bytes uint64) {
	s := &l.e.decisions
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.e.loadSpent() != nil {
		return 1<<64 - 1, 1<<64 - 1 // what cannot be read counts as used up
	}
	return s.used[ref].calls, s.used[ref].bytes
}

// RateExceeded implements authority.Limits: no policy of this build has a rate.
func (limits) RateExceeded(*authority.Request) bool { return false }

// locked is limits for whoever holds decisions.mu.
type locked struct{ limits }

func (l locked) Used(ref fcp.Hash) (calls, bytes uint64) {
	u := l.e.decisions.used[ref]
	return u.calls, u.bytes
}

// spend decides again with the counters standing still, and counts the use. A token
// or grant without limits costs nothing.
func (e *Engine) spend(f *ZoneFacts, r *authority.Request, d authority.Decision) (authority.Decision, error) {
	limited := e.limited(f, r, &d)
	if len(limited) == 0 {
		return d, nil
	}
	s := &e.decisions
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := e.loadSpent(); err != nil {
		return d, err
	}
	now := e.env.Now()
	facts, _, err := f.Facts(r.Principal, r.Tier, now)
	if err != nil {
		return d, err
	}
	facts.Executor, facts.Limits, facts.Leases, facts.Cache = e.executor(f, now), locked{limits{e}}, leasesView{e, f}, s.cache
	if d = authority.Decide(facts, r); !d.Allowed() {
		return d, nil
	}
	for ref, until := range e.limited(f, r, &d) {
		u := s.used[ref]
		s.used[ref] = spent{u.calls + 1, u.bytes + r.Bytes, max(u.until, until)} // ids repeat when a holder wants them to
	}
	return d, e.saveSpent(now)
}

// limited returns which of the refs that a decision charges have limits, and until
// when (unix seconds) they can be used.
func (e *Engine) limited(f *ZoneFacts, r *authority.Request, d *authority.Decision) map[fcp.Hash]uint64 {
	out := map[fcp.Hash]uint64{}
	add := func(ref fcp.Hash, c *authority.Constraints, until time.Time) {
		if (c.MaxCalls != 0 || c.MaxBytes != 0) && slices.Contains(d.Charge, ref) {
			out[ref] = max(out[ref], uint64(until.Add(authority.TokenSkew).Unix()))
		}
	}
	for _, ref := range d.Charge {
		if g := f.grants[ref]; g != nil {
			s := g.Spec()
			add(ref, &s.Constraints, s.NotAfter)
		}
	}
	for _, b := range r.Token.Tokens() {
		if t, err := authority.InspectToken(b); err == nil {
			add(t.ID.Ref(), &t.Constraints, t.Expires)
		}
	}
	return out
}

// fileSpent holds what was used of limited tokens and grants on this node, as a
// canonical array ascending by ref. It is on disk before the effect, so that no
// crash gives a call back. Limits count per executing node.
const (
	fileSpent = "SPENT"
	maxSpent  = 16 << 20
)

type spentEntry struct {
	Ref   fcp.Hash `cbor:"ref"`
	Calls uint64   `cbor:"calls"`
	Bytes uint64   `cbor:"bytes"`
	Until uint64   `cbor:"until"` // unix seconds; behind it the entry is dropped
}

// loadSpent reads the file once. The caller holds decisions.mu.
func (e *Engine) loadSpent() error {
	s := &e.decisions
	if s.loaded {
		return nil
	}
	b, err := readFile(e.env.FS, e.env.FS.PathJoin(e.dir, fileSpent), maxSpent)
	used := map[fcp.Hash]spent{}
	if err == nil {
		if used, err = decodeSpent(b); err != nil {
			return err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fcp.Wrap(fcp.CodeDisk, err, "read what was spent")
	}
	s.used, s.loaded = used, true
	return nil
}

func decodeSpent(b []byte) (map[fcp.Hash]spent, error) {
	var list []spentEntry
	if err := fcp.Unmarshal(b, &list); err != nil {
		return nil, fcp.Wrap(fcp.CodeCorrupt, err, "the file %s", fileSpent)
	}
	used := map[fcp.Hash]spent{}
	for i, x := range list {
		if i > 0 && slices.Compare(list[i-1].Ref[:], x.Ref[:]) >= 0 {
			return nil, fcp.Errorf(fcp.CodeCorrupt, "the file %s is not in order", fileSpent)
		}
		used[x.Ref] = spent{x.Calls, x.Bytes, x.Until}
	}
	return used, nil
}

// saveSpent drops what cannot be used any more and writes the rest. The caller
// holds decisions.mu.
func (e *Engine) saveSpent(now time.Time) error {
	list := []spentEntry{}
	for ref, u := range e.decisions.used {
		if int64(u.until) < now.Unix() {
			delete(e.decisions.used, ref)
			continue
		}
		list = append(list, spentEntry{ref, u.calls, u.bytes, u.until})
	}
	slices.SortFunc(list, func(a, b spentEntry) int { return slices.Compare(a.Ref[:], b.Ref[:]) })
	b, err := fcp.Marshal(list)
	if err != nil {
		return err
	}
	return writeFile(e.env.FS, e.dir, fileSpent, b)
}

// requestID draws the id of a request.
func (e *Engine) requestID() (id fcp.ObjectID, err error) {
	_, err = io.ReadFull(e.env.Rand, id[:])
	return id, fcp.Wrap(fcp.CodeInternal, err, "read randomness for a request")
}
