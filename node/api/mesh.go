package api

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/node"
)

// Status is the answer of /v1/status.
type Status struct {
	Writer   string    `json:"writer"`
	Name     string    `json:"name"`
	Process  int       `json:"process"`
	Address  string    `json:"address"`
	Began    time.Time `json:"began"`
	Position uint64    `json:"position"`
	Members  []Member  `json:"members"`  // by name
	Segments int       `json:"segments"` // of the data plane that this node sealed
	Missing  int       `json:"missing"`  // shares of them that are not where they should be
	Coverage Coverage  `json:"coverage"`
	Arrivals []Arrival `json:"revocations"` // newest last
	Frozen   int       `json:"frozen"`      // feeds with two branches
}

// Coverage is node.Coverage.
type Coverage struct {
	Segments int `json:"segments"`
	BPS      int `json:"bps"` // 10000 is one copy
	Survives int `json:"survives"`
	Members  int `json:"members"` // that are there
}

// Member is a device that the owner enrolled.
type Member struct {
	Writer  string    `json:"writer"`
	Name    string    `json:"name"`
	State   string    `json:"state"` // this, up, away, revoked
	Address string    `json:"address,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of the session
}

// Arrival says after how many milliseconds a revocation of this node was at each
// member.
type Arrival struct {
	Ref  string             `json:"ref"`
	Zone fcp.ZoneID         `json:"zone"`
	Seq  uint64             `json:"seq"`
	At   time.Time          `json:"at"`
	Seen map[string]float64 `json:"seen_ms"` // by name
}

// arrivals keeps what nodes knew that were closed while the store was lent.
type arrivals struct {
	mu   sync.Mutex
	past []node.Arrival // guarded by mu
}

const maxPastArrivals = 256

func (a *arrivals) keep(list []node.Arrival) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.past = append(a.past, list...)
	a.past = a.past[max(0, len(a.past)-maxPastArrivals):]
}

func (a *arrivals) all(now []node.Arrival) []node.Arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append(slices.Clone(a.past), now...)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	o, done, err := s.take(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	defer done()
	st, err := s.statusOf(o)
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, st)
}

func (s *Server) statusOf(o *opening) (*Status, error) {
	st := &Status{Writer: o.node.Writer().String(), Process: os.Getpid(), Address: o.node.Addr().String(), Began: s.began,
		Position: o.engine.Position(), Members: []Member{}, Arrivals: []Arrival{}, Frozen: len(o.node.Forks())}
	members, err := o.engine.Members()
	if err != nil {
		return nil, err
	}
	names := map[fcp.WriterID]string{}
	for _, m := range members {
		names[m.Writer] = m.Name
		st.Members = append(st.Members, Member{Writer: m.Writer.String(), Name: m.Name, State: stateOf(&m, o.node)})
	}
	slices.SortFunc(st.Members, func(a, b Member) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Writer, b.Writer)) })
	for _, p := range o.node.Peers() {
		i := slices.IndexFunc(st.Members, func(m Member) bool { return m.Writer == p.Writer.String() })
		if i < 0 { // its enrollment is on its way
			names[p.Writer] = p.Name
			st.Members = append(st.Members, Member{Writer: p.Writer.String(), Name: p.Name})
			i = len(st.Members) - 1
		}
		st.Members[i].State, st.Members[i].Address, st.Members[i].Since = "up", p.Address, p.Since
	}
	st.Name = names[o.node.Writer()]
	st.Arrivals = append(st.Arrivals, s.arrivals(o, names)...)
	c := o.node.Coverage()
	st.Coverage = Coverage{c.Segments, c.BPS, c.Survives, c.Members}
	st.Segments, st.Missing, err = o.node.Spread()
	return st, err
}

func (s *Server) arrivals(o *opening, names map[fcp.WriterID]string) (out []Arrival) {
	for _, a := range s.seen.all(o.node.Arrivals()) {
		seen := map[string]float64{}
		for p, d := range a.Seen {
			seen[cmp.Or(names[p], p.String())] = float64(d.Microseconds()) / 1000
		}
		out = append(out, Arrival{a.Ref.String(), a.Feed.Zone, a.Seq, a.At, seen})
	}
	return out
}

func stateOf(m *engine.Member, n *node.Node) string {
	switch {
	case m.Writer == n.Writer():
		return "this"
	case m.Revoked:
		return "revoked"
	}
	return "away"
}

// The things that Remote.Wait can wait for.
const (
	WaitHeld       = "held"       // what this node wrote so far is on the disks of as many other devices as may fail
	WaitSpread     = "spread"     // what this node wrote so far is sealed and all of it where the policy wants it; too few devices are an error
	WaitPlaced     = "placed"     // what is open is sealed, and every segment of this node is where the policy wants it
	WaitRevocation = "revocation" // a revocation is at every member
	WaitSettled    = "settled"    // all that the peers who are there told of is here
	WaitPeers      = "peers"      // every member that is not revoked is there
)

// Roots returns the root of each zone: what nodes with the same events agree on.
func rootsOf(e *engine.Engine) (map[string]fcp.Hash, error) {
	out := map[string]fcp.Hash{}
	for _, z := range e.Zones() {
		r, err := e.ZoneRoot(z)
		if err != nil {
			return nil, err
		}
		out[z.String()] = r
	}
	return out, nil
}

// wait waits for one of the things above.
func (c *callState) wait() error {
	var q waitCall
	if err := decodeFrame(c.request, &q); err != nil {
		return err
	}
	switch q.For {
	case WaitHeld:
		_, err := c.node.Durable(c.ctx, node.DurablePeers)
		return err
	case WaitSpread:
		_, err := c.node.Durable(c.ctx, node.DurablePlaced)
		return err
	case WaitPlaced:
		return c.node.Place(c.ctx)
	case WaitSettled:
		return c.node.WaitSettled(c.ctx)
	case WaitPeers:
		members, err := c.engine.Members()
		if err != nil {
			return err
		}
		others := 0
		for _, m := range members {
			if m.Writer != c.node.Writer() && !m.Revoked {
				others++
			}
		}
		return c.node.WaitPeers(c.ctx, others)
	case WaitRevocation:
		return c.waitRevocation(q.Ref)
	}
	return fcp.Errorf(fcp.CodeInvalidArgument, "there is no waiting for %.40q", q.For)
}

// waitRevocation waits for its arrival everywhere if this node issued it, else
// until it is here.
func (c *callState) waitRevocation(ref fcp.Hash) error {
	err := c.node.WaitArrival(c.ctx, ref)
	if !errors.Is(err, fcp.CodeNotFound) {
		return err
	}
	for _, a := range c.server.seen.all(nil) {
		if a.Ref == ref { // issued before the store was lent
			return nil
		}
	}
	// Everything that comes is looked at; a revocation here already is found first.
	stop := errors.New("it is here")
	err = c.engine.Tail(c.ctx, engine.TailRequest{Kinds: []fcp.Kind{fcp.KindRevocationIssued}, Follow: true}, func(*engine.EventRow) error {
		here, err := c.engine.HasRevocation(ref)
		if err == nil && here {
			return stop
		}
		return err
	})
	if errors.Is(err, stop) {
		return nil
	}
	if errors.Is(err, fcp.CodeInterrupted) {
		return fcp.Errorf(fcp.CodeTimeout, "the revocation %s is not here", ref)
	}
	return err
}
