package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"fcp"
	"fcp/cmd/internal/daemon"
	"fcp/node/api"
)

// meshView is what a daemon knows of its mesh, as JSON.
type meshView struct {
	Name     string             `json:"name"`
	Process  int                `json:"process"`
	Address  string             `json:"address"`
	Members  []api.Member       `json:"members"`
	Segments int                `json:"segments"`     // coded ones that members told of
	Coverage int                `json:"coverage_bps"` // 10000 is one copy
	Survives int                `json:"survives"`     // members that can be lost, whichever; -1: something cannot be rebuilt now
	Missing  int                `json:"missing"`      // shares that are not where they should be yet
	Revoked  *revocationArrival `json:"newest_revocation,omitempty"`
}

type revocationArrival struct {
	Ref     string             `json:"ref"`
	At      string             `json:"at"`
	Arrived map[string]float64 `json:"arrived_ms"`
}

func viewMesh(s *api.Status) *meshView {
	v := &meshView{Name: s.Name, Process: s.Process, Address: s.Address, Members: s.Members, Segments: s.Coverage.Segments,
		Coverage: s.Coverage.BPS, Survives: s.Coverage.Survives, Missing: s.Missing}
	if n := len(s.Arrivals); n > 0 {
		a := s.Arrivals[n-1]
		v.Revoked = &revocationArrival{a.Ref, timeText(a.At), a.Seen}
	}
	return v
}

// names returns the members of which a thing holds.
func (v *meshView) names(holds func(*api.Member) bool) (out []string) {
	for i := range v.Members {
		if holds(&v.Members[i]) {
			out = append(out, v.Members[i].Name)
		}
	}
	return out
}

func (v *meshView) fields() []field {
	there := v.names(func(m *api.Member) bool { return m.State == "this" || m.State == "up" })
	members := fmt.Sprintf("%d there", len(there))
	if awaited := v.names(func(m *api.Member) bool { return m.Awaited }); len(awaited) > 0 {
		members += ", not met again yet: " + strings.Join(awaited, ", ")
	}
	if away := v.names(func(m *api.Member) bool { return m.State == "away" && !m.Awaited }); len(away) > 0 {
		members += ", away: " + strings.Join(away, ", ")
	}
	out := []field{{"members", members}, {"coverage", v.coverage()}}
	if v.Revoked != nil {
		out = append(out, field{"revocation", fmt.Sprintf("%.12s %s", v.Revoked.Ref, arrivedText(v.Revoked.Arrived))})
	}
	return out
}

func (v *meshView) coverage() string {
	switch {
	case v.Segments == 0:
		return "no segment to spread yet"
	case v.Survives < 0:
		return fmt.Sprintf("%.2fx, and something cannot be rebuilt from who is there", float64(v.Coverage)/10000)
	}
	nodes := "nodes"
	if v.Survives == 1 {
		nodes = "node"
	}
	s := fmt.Sprintf("%.2fx, survives loss of %d %s", float64(v.Coverage)/10000, v.Survives, nodes)
	if v.Missing > 0 {
		s += fmt.Sprintf(", %d shares on their way", v.Missing)
	}
	return s
}

// arrivedText is "n2 1.2 ms, n3 1.4 ms".
func arrivedText(arrived map[string]float64) string {
	if len(arrived) == 0 {
		return "at no other device yet"
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(arrived)) {
		out = append(out, fmt.Sprintf("%s %.1f ms", name, arrived[name]))
	}
	return strings.Join(out, ", ")
}

// awaitArrival waits until every other device has a revocation and notes when.
func (a *app) awaitArrival(ctx context.Context, s api.Store, patience time.Duration, ref fcp.Hash, v *revocationView) error {
	r, ok := s.(*api.Remote)
	if !ok {
		return fcp.Errorf(fcp.CodeInvalidArgument, "--wait: no fcpd runs, so the revocation goes nowhere yet").
			WithNext("it is made; start the daemon with `" + a.command("up") + "`")
	}
	waiting, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := r.Wait(waiting, api.WaitRevocation, ref); err != nil {
		return advise(err, fcp.CodeTimeout, "it is made and reaches who is away when they come back; see `"+a.command("node", "ls")+"`")
	}
	arrived, err := arrivalOf(ctx, r.Client(), ref)
	v.Arrived = arrived
	return err
}

// arrivalOf returns after what time each member had a revocation, as its issuer
// knows it.
func arrivalOf(ctx context.Context, c *api.Client, ref fcp.Hash) (map[string]float64, error) {
	st, err := c.Status(ctx)
	for _, x := range st.Arrivals {
		if x.Ref == ref.String() {
			return x.Seen, nil
		}
	}
	return map[string]float64{}, err
}

// nodeDir returns the directory of a node that `up --nodes` or `node add` made.
func (a *app) nodeDir(name string) (string, error) {
	h, err := daemon.LoadHints(a.flags.dir)
	if err != nil {
		return "", err
	}
	var names []string
	for _, n := range h.Nodes {
		if n.Name == name {
			return n.Dir, nil
		}
		names = append(names, n.Name)
	}
	next := "make nodes with `" + a.command("up", "--nodes", "3") + "`"
	if len(names) > 0 {
		next = "name one of: " + strings.Join(names, ", ")
	}
	return "", fcp.Errorf(fcp.CodeNotFound, "there is no node %.40q beside %s", name, a.flags.dir).WithNext(next)
}
