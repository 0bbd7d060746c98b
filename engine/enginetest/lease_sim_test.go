package enginetest

import (
	"container/heap"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
)

// leaseRules are what a mutation changes. The zero leaseRules are the product's.
type leaseRules struct {
	need   func(*authority.Electorate) int // signatures that a holder takes for a lease; nil: as Verify wants
	forget bool                            // every disk loses at a crash what was synced since the history began
	sink   func(*leaseSim, *authority.UnverifiedLease, func()) error
}

// leaseWorld is a mesh on which histories run one after another.
type leaseWorld struct {
	m     *Mesh
	near  bool // clocks stay within the skew
	tell  bool // what is released is told
	liar  bool // one disk forgets what it synced, which f = 1 has to survive
	rules leaseRules
}

// leaseSim is one history: a schedule of messages, crashes, cuts and stalls in virtual
// time, run by one goroutine. Everything follows from the seed.
type leaseSim struct {
	*leaseWorld
	history
	rng   *rand.Rand
	thing authority.Thing
	start time.Time
	queue eventQueue
	seq   int
	step  int64 // a time for porcupine: one per event
	side  []int // of the partition, by node
	down  []bool
	image []*vfs.MemFS // by node, from the start; nil: the disk is honest
	sink  int
	value int
	state applied // the sink's last effect
}

type event struct {
	at  time.Time
	seq int
	fn  func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// horizon is the virtual time of one history.
const horizon = 15 * time.Minute

// run runs the history of a seed.
func (w *leaseWorld) run(seed uint64) *history {
	w.m.Clock.Advance(time.Minute)
	s := &leaseSim{leaseWorld: w, rng: rand.New(rand.NewPCG(seed, 77)), side: make([]int, len(w.m.Nodes)), down: make([]bool, len(w.m.Nodes)),
		image: make([]*vfs.MemFS, len(w.m.Nodes))}
	s.start = w.m.Clock.Now().Truncate(time.Second).Add(time.Second)
	w.m.Clock.Reach(s.start)
	s.thing = authority.Thing{Zone: zone, Purpose: authority.LeaseResource}
	for i := range s.thing.Subject {
		s.thing.Subject[i] = byte(s.rng.Uint32())
	}
	s.bounded = w.near
	s.sink = s.rng.IntN(len(w.m.Nodes))
	s.prepare()
	for len(s.queue) > 0 {
		e := heap.Pop(&s.queue).(event)
		w.m.Clock.Reach(e.at)
		s.step++
		e.fn()
	}
	for i := range s.down {
		s.restart(i)
	}
	return &s.history
}

func (s *leaseSim) prepare() {
	most := 100 * time.Second
	if s.bounded {
		most = 55 * time.Second
	}
	for i, n := range s.m.Nodes {
		n.SetSkew(s.upTo(2*most) - most)
		s.after(s.upTo(time.Minute), func() { s.act(&client{node: i, turns: 4 + s.rng.IntN(5)}) })
	}
	if s.rules.forget {
		for i, n := range s.m.Nodes {
			s.image[i] = n.Image()
		}
	} else if s.liar { // a sink that forgets is no sink
		i := (s.sink + 1 + s.rng.IntN(len(s.m.Nodes)-1)) % len(s.m.Nodes)
		s.image[i] = s.m.Nodes[i].Image()
	}
	for range s.rng.IntN(5) {
		s.after(s.upTo(horizon), s.partition)
	}
	crashes := s.rng.IntN(5) / 2
	if s.liar {
		crashes++
	}
	if s.chance(4) || s.rules.forget {
		crashes += 6
	}
	for range crashes {
		s.after(s.upTo(horizon), func() { s.crash(s.rng.IntN(len(s.m.Nodes))) })
	}
	for range 2 + s.rng.IntN(4) {
		s.after(s.upTo(horizon), s.read)
	}
}

func (s *leaseSim) upTo(d time.Duration) time.Duration { return time.Duration(s.rng.Int64N(int64(d))) }

func (s *leaseSim) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *leaseSim) after(d time.Duration, fn func()) {
	s.seq++
	heap.Push(&s.queue, event{s.m.Clock.Now().Add(d), s.seq, fn})
}

// send carries a message; whether it arrives is decided when it would.
func (s *leaseSim) send(from, to int, fn func()) {
	delay := time.Millisecond + s.upTo(200*time.Millisecond)
	if s.chance(7) {
		delay = s.upTo(5 * time.Minute) // stuck somewhere
	}
	s.after(delay, func() {
		if s.side[from] == s.side[to] && !s.down[to] && (from == to || !s.chance(4)) {
			fn()
		}
	})
}

// partition cuts the nodes into two sides, often into halves, or joins them again.
func (s *leaseSim) partition() {
	n := len(s.side)
	for i := range s.side {
		s.side[i] = 0
	}
	if s.chance(30) {
		return
	}
	k := n / 2
	if s.chance(40) {
		k = 1 + s.rng.IntN(n-1)
	}
	for _, i := range s.rng.Perm(n)[:k] {
		s.side[i] = 1
	}
}

func (s *leaseSim) crash(i int) {
	if s.down[i] {
		return
	}
	s.down[i] = true
	s.after(s.upTo(2*time.Minute), func() { s.restart(i) })
}

func (s *leaseSim) restart(i int) {
	if !s.down[i] {
		return
	}
	s.down[i] = false
	if s.image[i] == nil {
		s.m.Nodes[i].Crash()
		return
	}
	s.m.Nodes[i].CrashTo(s.image[i].CrashClone(vfs.CrashCloneCfg{}))
}

// client is one device that wants the thing.
type client struct {
	node  int
	turns int
	lease *authority.UnverifiedLease
	busy  int // the attempt under way
}

func (s *leaseSim) act(c *client) {
	if c.turns--; c.turns < 0 {
		return
	}
	next := 100*time.Millisecond + s.upTo(20*time.Second)
	if s.chance(25) {
		next = s.upTo(6 * time.Minute)
	}
	defer s.after(next, func() { s.act(c) })
	if s.down[c.node] {
		return
	}
	roll := s.rng.IntN(100)
	switch {
	case c.lease == nil || roll < 20:
		s.acquire(c)
	case roll < 30 && s.tell && c.lease != nil:
		s.release(c)
	default:
		for range 1 + s.rng.IntN(3) {
			s.write(c)
		}
	}
}

// acquire asks a coordinator, who asks the members, each by a message of its own.
func (s *leaseSim) acquire(c *client) {
	c.busy++
	attempt, call := c.busy, s.step
	n := s.m.Nodes[c.node]
	r, err := n.RequestLease(s.thing, time.Second+s.upTo(40*time.Second))
	s.m.check(err)
	coordinator := s.rng.IntN(len(s.m.Nodes))
	s.send(c.node, coordinator, func() {
		s.coordinate(coordinator, r, 0, func(l *authority.UnverifiedLease) {
			s.send(coordinator, c.node, func() {
				if c.busy == attempt {
					c.busy++
					s.got(c, l, call)
				}
			})
		})
	})
}

func (s *leaseSim) coordinate(at int, r *authority.LeaseRequest, above authority.Fence, done func(*authority.UnverifiedLease)) {
	n := s.m.Nodes[at]
	if _, err := n.OpenLeaseRequest(zone, r.Bytes()); err != nil {
		s.m.T.Fatal(err)
	}
	l, err := n.ProposeLease(r, above)
	s.m.check(err)
	f, err := n.ZoneFacts(zone)
	s.m.check(err)
	e := f.Checkpoint.Electorate()
	need := e.Need()
	if s.rules.need != nil {
		need = s.rules.need(&e)
	}
	with, finished := l, false
	for i, member := range s.m.Nodes {
		s.send(at, i, func() {
			vote, err := member.PromiseLease(ctx, r, l)
			if err != nil && !errors.Is(err, fcp.Denied) && !errors.Is(err, fcp.Conflict) {
				s.m.T.Fatal(err)
			}
			s.send(i, at, func() {
				if finished {
					return
				}
				if h := (*authority.HeldError)(nil); errors.As(err, &h) && h.Reason == authority.ReasonLeaseStale && above == 0 {
					finished = true
					s.coordinate(at, r, h.Fence, done)
					return
				}
				if err != nil {
					return
				}
				var err error
				if with, err = with.With(vote); err != nil {
					s.m.T.Fatal(err)
				}
				if finished = len(with.Signers()) >= need; finished {
					done(with)
				}
			})
		})
	}
}

func (s *leaseSim) got(c *client, l *authority.UnverifiedLease, call int64) {
	n := s.m.Nodes[c.node]
	if s.rules.need == nil {
		_, err := n.RecordLease(ctx, l)
		s.m.check(err)
	}
	spec := l.Spec()
	s.ops = append(s.ops, porcupine.Operation{ClientId: c.node, Input: leaseIn{op: opAcquire}, Call: call, Output: leaseOut{fence: spec.Fence}, Return: s.step})
	s.leases, s.refs = append(s.leases, spec), append(s.refs, l.Ref())
	if until := spec.Until.Add(-n.Skew()); s.m.Clock.Now().Before(until) {
		s.held = append(s.held, held{spec.Holder, s.m.Clock.Now(), until})
	}
	c.lease = l
}

// release gives the lease back, and the others hear of it one by one.
func (s *leaseSim) release(c *client) {
	n := s.m.Nodes[c.node]
	s.m.check(n.ReleaseLease(ctx, s.thing, c.lease.Spec().Fence))
	for i := range s.held {
		if h := &s.held[i]; h.holder == n.writer() && h.until.After(s.m.Clock.Now()) {
			h.until = s.m.Clock.Now()
		}
	}
	c.lease = nil
	c.busy++ // what is under way comes too late
	for i, member := range s.m.Nodes {
		if i != c.node {
			s.send(c.node, i, func() { member.Pull(n, zone) })
		}
	}
}

// write sends an effect to the sink; it may arrive when the lease is long over.
func (s *leaseSim) write(c *client) {
	s.value++
	l, value, call := c.lease, s.value, s.step
	at := len(s.ops)
	s.ops = append(s.ops, porcupine.Operation{ClientId: c.node, Input: leaseIn{opWrite, l.Spec().Fence, value}, Call: call,
		Output: leaseOut{unknown: true}, Return: never})
	s.send(c.node, s.sink, func() {
		err := s.effect(l, func() {
			s.state = applied{l.Spec().Fence, l.Ref(), l.Spec().Holder, value}
			s.effects = append(s.effects, s.state)
		})
		if err != nil && !errors.Is(err, fcp.CodeFenced) {
			s.m.T.Fatal(err)
		}
		s.send(s.sink, c.node, func() {
			s.ops[at].Output, s.ops[at].Return = leaseOut{taken: err == nil}, s.step
		})
	})
}

func (s *leaseSim) effect(l *authority.UnverifiedLease, fn func()) error {
	if s.rules.sink != nil {
		return s.rules.sink(s, l, fn)
	}
	return s.m.Nodes[s.sink].Effect(ctx, l, func(context.Context) error { fn(); return nil })
}

func (s *leaseSim) read() {
	s.ops = append(s.ops, porcupine.Operation{ClientId: len(s.m.Nodes), Input: leaseIn{op: opRead}, Call: s.step,
		Output: leaseOut{fence: s.state.fence, value: s.state.value}, Return: s.step})
}
