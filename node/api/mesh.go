package api

import (
	"cmp"
	"net/http"
	"os"
	"slices"
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

	LastSeen time.Time     `json:"last_seen,omitzero"` // of one that is away
	Awaited  bool          `json:"awaited,omitempty"`  // away, but it was there when the store was lent a moment ago
	Class    string        `json:"class,omitempty"`    // by the owner's word
	Site     string        `json:"site,omitempty"`
	Profile  *node.Profile `json:"profile,omitempty"` // by the device's own
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
	st.tellContacts(o, s.opt.Now())
	st.Name = names[o.node.Writer()]
	st.Arrivals = append(st.Arrivals, s.arrivals(o, names)...)
	c := o.node.Coverage()
	st.Coverage = Coverage{c.Segments, c.BPS, c.Survives, c.Members}
	st.Segments, st.Missing, err = o.node.Spread()
	return st, err
}

func (s *Server) arrivals(o *opening, names map[fcp.WriterID]string) (out []Arrival) {
	for _, a := range o.node.Arrivals() {
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
