package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"fcp"
	"fcp/engine"
	"fcp/node"
	"fcp/node/placement"
)

// Health is the answer of /v1/health: how well the segments that the node knows of are
// placed, and what the loss of devices would do to them.
type Health struct {
	Score       int          `json:"score"` // 0 to 100
	Segments    int          `json:"segments"`
	Lost        int          `json:"lost"`         // cannot be rebuilt any more
	Unreadable  int          `json:"unreadable"`   // cannot be rebuilt from who is there
	BelowPolicy int          `json:"below_policy"` // fewer shares than the policy asks
	Coverage    int          `json:"coverage_bps"`
	MayLose     int          `json:"may_lose"` // devices, whichever; -1: something is lost
	Weak        []WeakLink   `json:"weak_links"`
	Suspects    []WeakLink   `json:"suspects,omitempty"`       // devices that claimed symbols which they did not have
	Control     int          `json:"control_copies,omitempty"` // devices that have every control event, this one included
	Reasons     []string     `json:"reasons"`                  // why the score is not 100, the gravest first
	Advice      []string     `json:"advice"`                   // what to do, in that order
	Durability  []Durability `json:"durability"`
	WhatIf      *WhatIf      `json:"what_if,omitempty"`
}

// WeakLink is a device without which segments do not rebuild.
type WeakLink struct {
	Device   string `json:"device"`
	Segments int    `json:"segments"`
}

// Durability is a row of the durability table.
type Durability struct {
	Cause    string  `json:"cause"` // "independent devices", or a failure domain
	Devices  int     `json:"devices"`
	Unusable int     `json:"unusable"` // segments that could not be rebuilt after it
	Yearly   float64 `json:"yearly"`   // probability of losing a segment to it within a year
}

// WhatIf says what would be left without some devices.
type WhatIf struct {
	Lost       []string `json:"lost"` // devices
	Readable   int      `json:"readable"`
	Unreadable int      `json:"unreadable"`
	Coverage   int      `json:"coverage_bps"` // of the worst segment
	MayLose    int      `json:"may_lose"`     // further devices; -1: something is unreadable
}

// Hazards of the durability table: one device in ten fails in a year, a home or an
// office is lost once in five hundred, and repair takes a week.
var hazards = placement.Hazards{Device: 0.1, Domain: 0.002, Repair: 7 * 24 * time.Hour}

func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	o, done, err := s.take(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	defer done()
	o.node.WaitListed(r.Context())
	h, err := healthOf(o, r.URL.Query()["lose"])
	if err != nil {
		fail(w, err)
		return
	}
	answer(w, h)
}

func healthOf(o *opening, lose []string) (*Health, error) {
	members, err := o.engine.Members()
	if err != nil {
		return nil, err
	}
	sum := o.node.Summary()
	h := &Health{Score: sum.Score, Segments: sum.Segments, Lost: sum.Lost, Unreadable: sum.Unreadable, BelowPolicy: sum.BelowPolicy,
		Coverage: sum.CoverageBPS, MayLose: sum.MayLose, Weak: []WeakLink{}, Reasons: append([]string{}, sum.Reasons...), Advice: append([]string{}, sum.Advice...),
		Durability: []Durability{}}
	for _, l := range sum.Weak {
		h.Weak = append(h.Weak, WeakLink{deviceName(members, l.Device), l.Segments})
	}
	for _, x := range o.node.Suspects() {
		h.Suspects = append(h.Suspects, WeakLink{deviceName(members, x.Writer), x.Segments})
	}
	h.Control = o.node.ControlCopies()
	for _, row := range o.node.Durability(hazards).Rows {
		h.Durability = append(h.Durability, Durability(row))
	}
	if len(lose) == 0 {
		return h, nil
	}
	lost := map[fcp.WriterID]bool{}
	x := &WhatIf{Lost: []string{}, Coverage: sum.CoverageBPS, MayLose: sum.MayLose}
	for _, name := range lose {
		m, err := findMember(members, name)
		if err != nil {
			return nil, err
		}
		lost[m.Writer] = true
		x.Lost = append(x.Lost, m.Name)
	}
	for i, l := range o.node.WhatIf(lost) {
		if l.Readable {
			x.Readable++
		} else {
			x.Unreadable++
		}
		if i == 0 || l.CoverageBPS < x.Coverage {
			x.Coverage = l.CoverageBPS
		}
		if i == 0 || l.MayLose < x.MayLose {
			x.MayLose = l.MayLose
		}
	}
	h.WhatIf = x
	return h, nil
}

func deviceName(members []engine.Member, id fcp.WriterID) string {
	if i := slices.IndexFunc(members, func(m engine.Member) bool { return m.Writer == id }); i >= 0 && members[i].Name != "" {
		return members[i].Name
	}
	return id.String()
}

// findMember finds a device by its name, or by the beginning of its id.
func findMember(members []engine.Member, name string) (found engine.Member, err error) {
	n := 0
	for _, m := range members {
		if m.Name == name || len(name) >= 8 && strings.HasPrefix(m.Writer.String(), name) {
			found = m
			n++
		}
	}
	switch n {
	case 0:
		return found, fcp.Errorf(fcp.CodeNotFound, "there is no device %.64q", name).WithNext("see their names: fcpctl device ls")
	case 1:
		return found, nil
	}
	return found, fcp.Errorf(fcp.CodeInvalidArgument, "%d devices are called %.64q", n, name).WithNext("name it by its id: fcpctl device ls")
}

// RepairStep is what was, or is to be, done for one segment.
type RepairStep struct {
	Segment string       `json:"segment"`
	Zone    fcp.ZoneID   `json:"zone"`
	By      string       `json:"by"`     // the device that mints
	Gather  int          `json:"gather"` // symbols that it fetches first
	Shares  []MadeShare  `json:"shares"`
	Bytes   uint64       `json:"bytes"` // that cross the network
	Lost    uint64       `json:"lost"`  // bytes of symbols that went with the devices
	Done    bool         `json:"done"`
	Dropped []MadeShare  `json:"dropped,omitempty"` // shares that nothing asked for any more
	Problem *RepairError `json:"problem,omitempty"`
}

// MadeShare is a share that a repair makes: symbols that no other device has.
type MadeShare struct {
	Device string `json:"device"`
	First  uint32 `json:"first"` // encoding symbol id
	Count  int    `json:"count"`
}

// RepairError says why a step was not done.
type RepairError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (s *Server) repair(w http.ResponseWriter, r *http.Request) {
	o, done, err := s.take(r.Context())
	if err != nil {
		fail(w, err)
		return
	}
	defer done()
	q := r.URL.Query()
	now, err1 := strconv.ParseBool(q.Get("now"))
	dry, err2 := strconv.ParseBool(q.Get("dry_run"))
	move, err3 := strconv.ParseBool(q.Get("rebalance"))
	if err1 != nil || err2 != nil || err3 != nil {
		fail(w, fcp.Errorf(fcp.CodeInvalidArgument, "now, dry_run and rebalance are true or false"))
		return
	}
	members, err := o.engine.Members()
	if err != nil {
		fail(w, err)
		return
	}
	repair := o.node.Repair
	if move {
		repair = o.node.Move
	}
	steps, err := repair(r.Context(), node.RepairOptions{Now: now, DryRun: dry})
	if err != nil {
		fail(w, err)
		return
	}
	out := make([]RepairStep, len(steps))
	for i := range steps {
		out[i] = viewStep(members, &steps[i])
	}
	answer(w, out)
}

func viewStep(members []engine.Member, st *node.RepairStep) RepairStep {
	v := RepairStep{Segment: st.Segment.String(), Zone: st.Zone, By: deviceName(members, st.Minter), Gather: st.Gather, Shares: []MadeShare{}, Bytes: st.Bytes, Lost: st.Lost, Done: st.Done}
	for i, id := range st.To {
		v.Shares = append(v.Shares, MadeShare{deviceName(members, id), st.First[i], st.Share})
	}
	for _, r := range st.Dropped {
		v.Dropped = append(v.Dropped, MadeShare{v.By, r.First, int(r.Count)})
	}
	if st.Err != nil {
		v.Problem = &RepairError{fcp.CodeOf(st.Err).String(), fmt.Sprint(st.Err)}
	}
	return v
}

// Health returns the daemon's view of placement; lose names devices for WhatIf.
func (c *Client) Health(ctx context.Context, lose []string) (h Health, err error) {
	b, err := c.fetch(ctx, "/v1/health?"+url.Values{"lose": lose}.Encode(), 16<<20)
	if err != nil {
		return h, err
	}
	return h, fcp.Wrap(fcp.CodeMalformed, json.Unmarshal(b, &h), "the daemon's view of placement")
}

// Repair has the daemon repair what is due, or everything with now, and with rebalance
// also bring shares to where they would be placed today.
func (c *Client) Repair(ctx context.Context, now, rebalance, dryRun bool) (steps []RepairStep, err error) {
	q := url.Values{"now": {strconv.FormatBool(now)}, "rebalance": {strconv.FormatBool(rebalance)}, "dry_run": {strconv.FormatBool(dryRun)}}
	r, err := c.do(ctx, http.MethodPost, "/v1/repair?"+q.Encode(), nil)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return steps, fcp.Wrap(fcp.CodeMalformed, json.NewDecoder(http.MaxBytesReader(nil, r.Body, 64<<20)).Decode(&steps), "the daemon's answer")
}
