package node

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// Asks are what one member wants another to decide and answer for at once: a vote on a
// lease, the coordination of one, a share of a secret. The engine of the member that is
// asked decides, knowing from the session who asks; this is how both travel. An ask that
// is not answered in time is over, and the answer that comes later is counted and
// dropped.

var (
	_ engine.LeasePeers  = (*Node)(nil)
	_ engine.ShareSource = (*Node)(nil)
)

// askKind says what is asked for.
type askKind uint64

const (
	askVote       askKind = 1 // a vote on a lease
	askCoordinate askKind = 2 // that the peer coordinates a lease
	askShare      askKind = 3 // the peer's share of a secret, sealed to who asks
)

// ask is a question to one peer.
type ask struct {
	ID    uint64  `cbor:"id"` // counts up in a session
	What  askKind `cbor:"what"`
	Body  []byte  `cbor:"body"`            // LeaseRequest, or the ask for a share
	Lease []byte  `cbor:"lease,omitempty"` // askVote: the lease to sign
}

// answer is what became of it: a body or a refusal.
type answer struct {
	ID      uint64   `cbor:"id"`
	Body    []byte   `cbor:"body,omitempty"` // NodeSignature, Lease, or the sealed share
	Refused *refused `cbor:"refused,omitempty"`
}

// refused is why not. There is no text in it: what a peer writes is shown to nobody.
type refused struct {
	Code   fcp.Code   `cbor:"code"`
	Reason fcp.Reason `cbor:"reason,omitempty"`
	Fence  uint64     `cbor:"fence,omitempty"`  // of an authority.HeldError
	Holder []byte     `cbor:"holder,omitempty"` // likewise
	Until  uint64     `cbor:"until,omitempty"`  // likewise; unix seconds
}

var (
	schemaAsk    = fcp.MustSchema("fcp.mesh:Ask@1.0.0")
	schemaAnswer = fcp.MustSchema("fcp.mesh:Answer@1.0.0")
)

// Limits of asks.
const (
	maxAskBody   = 256 << 10 // bytes of a body or a lease
	maxAskReason = 64        // bytes
	maxAsking    = 4         // asks to one peer without an answer; others wait
	maxAskUntil  = 1 << 40   // unix seconds

	askWait        = 5 * time.Second  // for a vote or a share
	coordinateWait = 15 * time.Second // for a coordinator, who waits for votes
	comeBack       = 3 * time.Second  // that a member which was there just now is waited for
)

func (m *ask) ok() bool {
	return m.What >= askVote && m.What <= askShare && len(m.Body) > 0 && len(m.Body) <= maxAskBody &&
		len(m.Lease) <= maxAskBody && (m.Lease != nil) == (m.What == askVote)
}

// wait is how long an answer is waited for.
func (m *ask) wait() time.Duration {
	if m.What == askCoordinate {
		return coordinateWait
	}
	return askWait
}

func (m *answer) ok() bool {
	if m.Refused != nil {
		return m.Body == nil && m.Refused.ok()
	}
	return len(m.Body) > 0 && len(m.Body) <= maxAskBody
}

func (r *refused) ok() bool {
	if r.Code.Class() == 0 || len(r.Reason) > maxAskReason || r.Until > maxAskUntil || r.Fence > math.MaxInt64 ||
		(r.Holder != nil || r.Until > 0) && (r.Fence == 0 || len(r.Holder) != len(fcp.WriterID{}) || r.Until == 0) {
		return false
	}
	for _, c := range []byte(r.Reason) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' {
			return false
		}
	}
	return true
}

// refusedBy makes the answer of an error.
func refusedBy(err error) *refused {
	r := &refused{Code: fcp.CodeOf(err), Reason: authority.ReasonOf(err)}
	if r.Code.Class() == 0 || errors.Is(err, context.DeadlineExceeded) {
		r.Code = fcp.CodeTimeout
	}
	var h *authority.HeldError
	if errors.As(err, &h) {
		r.Fence = uint64(h.Fence)
		if until := h.Until.Unix(); !h.Holder.IsZero() && h.Fence > 0 && until > 0 {
			r.Holder, r.Until = h.Holder[:], uint64(until)
		}
	}
	if !r.ok() {
		return &refused{Code: r.Code}
	}
	return r
}

// err is the inverse of refusedBy.
func (r *refused) err() error {
	e := &fcp.Error{Code: r.Code, Detail: string(r.Reason)}
	if r.Reason != "" {
		e.Cause = r.Reason
	}
	if r.Fence > 0 {
		h := &authority.HeldError{Reason: r.Reason, Fence: authority.Fence(r.Fence)}
		if r.Holder != nil {
			h.Holder, h.Until = fcp.WriterID(r.Holder), time.Unix(int64(r.Until), 0).UTC()
		}
		e.Cause = h
	}
	return e
}

// askTable is what a session asked its peer and waits for.
type askTable struct {
	slots chan struct{} // maxAsking: in it while an answer is waited for

	mu   sync.Mutex
	next uint64                  // guarded by mu
	open map[uint64]chan *answer // each with room for its answer; guarded by mu
}

func (t *askTable) init() {
	t.slots, t.open = make(chan struct{}, maxAsking), map[uint64]chan *answer{}
}

func (t *askTable) begin() (id uint64, answered chan *answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next++
	answered = make(chan *answer, 1)
	t.open[t.next] = answered
	return t.next, answered
}

func (t *askTable) end(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, id)
}

// take hands an answer to who waits for it, once.
func (t *askTable) take(m *answer) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	answered, ok := t.open[m.ID]
	if ok {
		delete(t.open, m.ID)
		answered <- m
	}
	return ok
}

// Vote implements engine.LeasePeers.
func (n *Node) Vote(ctx context.Context, member fcp.WriterID, request, lease []byte) (v authority.NodeSignature, err error) {
	b, err := n.ask(ctx, member, &ask{What: askVote, Body: request, Lease: lease})
	if err != nil {
		return v, err
	}
	if err := fcp.Unmarshal(b, &v); err != nil {
		return v, fcp.Wrap(fcp.CodeMalformed, err, "its vote")
	}
	if w, ok := v.Writer(); !ok || w != member {
		return v, fcp.Errorf(fcp.CodeSignature, "its vote is of another member")
	}
	return v, nil
}

// Coordinate implements engine.LeasePeers.
func (n *Node) Coordinate(ctx context.Context, member fcp.WriterID, request []byte) ([]byte, error) {
	return n.ask(ctx, member, &ask{What: askCoordinate, Body: request})
}

// AskShare implements engine.ShareSource.
func (n *Node) AskShare(ctx context.Context, device fcp.WriterID, message []byte) ([]byte, error) {
	return n.ask(ctx, device, &ask{What: askShare, Body: message})
}

// ask brings a question to a member and waits for the answer. Errors: CodeTimeout when
// the member is away or silent, CodeInterrupted, and what it answers.
func (n *Node) ask(ctx context.Context, to fcp.WriterID, m *ask) ([]byte, error) {
	asking, cancel := context.WithTimeout(ctx, m.wait())
	defer cancel()
	// A store is lent to a command and is back: who just started waits for everyone, and
	// everyone for who was there just now.
	since := n.lastThere(to)
	if n.started.After(since) {
		since = n.started
	}
	for ; ; since = n.now() {
		s, err := n.reached(asking, to, since.Add(comeBack))
		if err != nil {
			return nil, err
		}
		b, err := s.ask(asking, m)
		switch {
		case err == nil || errors.Is(err, errSilent):
			return b, err
		case ctx.Err() != nil:
			return nil, fcp.Errorf(fcp.CodeInterrupted, "while it was asked")
		case asking.Err() != nil:
			return nil, fcp.Errorf(fcp.CodeTimeout, "it did not answer within %s", m.wait())
		case s.ctx.Err() == nil:
			return nil, err
		} // else another session took the place of this one, or will; asked twice it answers twice
	}
}

var errSilent = fcp.Errorf(fcp.CodeTimeout, "nothing is heard of it")

// ask asks the peer within the session. Any error of a context is ctx's or the session's.
func (s *Session) ask(ctx context.Context, m *ask) ([]byte, error) {
	ended := fcp.Errorf(fcp.CodeTimeout, "it went away while it was asked")
	select {
	case s.asks.slots <- struct{}{}:
		defer func() { <-s.asks.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-s.ctx.Done():
		return nil, ended
	}
	id, answered := s.asks.begin()
	defer s.asks.end(id)
	on := *m
	on.ID = id
	if err := s.send(urgent, &on); err != nil {
		return nil, err
	}
	look := time.NewTicker(silentAfter / 4)
	defer look.Stop()
	for {
		select {
		case a := <-answered:
			if a.Refused != nil {
				return nil, a.Refused.err()
			}
			return a.Body, nil
		case <-look.C:
			if s.silent() {
				return nil, errSilent
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.ctx.Done():
			return nil, ended
		}
	}
}

// reached returns the session with a member, or waits for one until a time.
func (n *Node) reached(ctx context.Context, to fcp.WriterID, until time.Time) (*Session, error) {
	soon := time.NewTimer(max(0, until.Sub(n.now())))
	defer soon.Stop()
	for {
		n.mu.Lock()
		s, next := n.sessions[to], n.changed
		n.mu.Unlock()
		if s != nil && s.ctx.Err() == nil {
			if s.silent() {
				return nil, errSilent
			}
			return s, nil
		}
		select {
		case <-next:
			continue
		case <-n.life.Done():
			return nil, context.Cause(n.life)
		case <-soon.C:
		case <-ctx.Done():
		}
		return nil, fcp.Errorf(fcp.CodeTimeout, "it is not there")
	}
}

// takeAsk answers a peer, within its budget.
func (n *Node) takeAsk(s *Session, m *ask) {
	done, err := s.budget.ask()
	if err != nil {
		n.metrics.AsksRefused.Add(1)
		n.answer(s, &answer{ID: m.ID, Refused: refusedBy(err)})
		return
	}
	s.spawn(func() {
		defer done()
		ctx, cancel := context.WithTimeout(s.ctx, m.wait())
		defer cancel()
		began := n.now()
		body, err := n.decide(ctx, s.peer.Writer, m)
		if m.What != askCoordinate { // which waits for others
			s.budget.cpu(n.now().Sub(began))
		}
		a := &answer{ID: m.ID, Body: body}
		if err != nil {
			a.Body, a.Refused = nil, refusedBy(err)
			n.metrics.AsksRefused.Add(1)
			n.logger.Debug("an ask of a peer was refused", "peer", s.peer.Writer, "what", uint64(m.What), "code", a.Refused.Code.String(), "reason", string(a.Refused.Reason))
		} else {
			n.metrics.AsksAnswered.Add(1)
		}
		n.answer(s, a)
	})
}

func (n *Node) answer(s *Session, a *answer) {
	if err := s.send(urgent, a); err != nil {
		n.logger.Debug("an answer was not sent", "peer", s.peer.Writer, "err", err)
	}
}

// decideAsk has the engine decide.
func (n *Node) decideAsk(ctx context.Context, from fcp.WriterID, m *ask) ([]byte, error) {
	switch m.What {
	case askVote:
		v, err := n.engine.AnswerVote(ctx, from, m.Body, m.Lease)
		if err != nil {
			return nil, err
		}
		return fcp.Marshal(&v)
	case askCoordinate:
		return n.engine.AnswerCoordinate(ctx, from, m.Body, n)
	}
	return n.engine.AnswerShareAsk(ctx, from, m.Body)
}

// takeAnswer hands an answer on. One that nobody waits for any more, or ever did, is
// counted.
func (n *Node) takeAnswer(s *Session, m *answer) {
	if !s.asks.take(m) {
		n.metrics.AnswersUnasked.Add(1)
	}
}
