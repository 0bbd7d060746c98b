package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/engine"
)

// placementView are placement rules as JSON, read and written.
type placementView struct {
	Need              uint64   `json:"need"`
	Of                uint64   `json:"of"`
	MinNodes          uint64   `json:"min_nodes,omitempty"`
	MaxFractionBPS    uint64   `json:"max_fraction_bps,omitempty"`
	TargetCoverageBPS uint64   `json:"target_coverage_bps,omitempty"`
	Domains           uint64   `json:"domains,omitempty"`
	MinSources        uint64   `json:"min_sources,omitempty"`
	LowMark           uint64   `json:"low_mark,omitempty"`
	ControlCopies     uint64   `json:"control_copies,omitempty"`
	Preferred         []string `json:"preferred,omitempty"`
	Excluded          []string `json:"excluded,omitempty"`
}

func viewPlacement(r *authority.PlacementRules) *placementView { return (*placementView)(r) }

// zonePlacementView is a zone's placement as JSON.
type zonePlacementView struct {
	Zone      fcp.ZoneID     `json:"zone"`
	Version   uint64         `json:"version"` // of the policy that says it; 0: none does
	Ref       string         `json:"ref,omitempty"`
	Placement *placementView `json:"placement"` // null: as each node was started with
	DryRun    bool           `json:"dry_run,omitempty"`
}

// bpsFlag is a fraction: 40%, 0.4 or 1.5x, kept in basis points.
type bpsFlag struct{ n uint64 }

func (v *bpsFlag) Type() string   { return "FRACTION" }
func (v *bpsFlag) String() string { return "" }

func (v *bpsFlag) Set(s string) error {
	scale := 10000.0
	if t, ok := strings.CutSuffix(s, "%"); ok {
		s, scale = t, 100
	} else {
		s = strings.TrimSuffix(s, "x")
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || f < 0 || f*scale > math.MaxInt32 || math.Abs(math.Round(f*scale)-f*scale) > 1e-6 {
		return fmt.Errorf("not a fraction like 40%%, 0.4 or 1.5x, in hundredths of a percent")
	}
	v.n = uint64(math.Round(f * scale))
	return nil
}

type placementOptions struct {
	identity *identityOptions
	spread   string
	fraction bpsFlag
	coverage bpsFlag
	numbers  struct{ nodes, domains, sources, low, control uint64 }
	prefer   []string
	exclude  []string
	clear    bool
	dryRun   bool
}

func (a *app) zonePlacementCommand() *cobra.Command {
	o := &placementOptions{}
	cmd := &cobra.Command{
		Use: "placement ZONE", Short: "Show where a zone's symbols go, or say it", Args: args(1, 1),
		Long: `placement shows how the segments of a zone are spread over the devices. With flags it
signs the next version of the zone's policy with another placement; what is not said
stays. Every node follows it: shares are made where it asks for more, moved where it
asks for others, and dropped where nothing asks for them any more once the rest is
proven to hold.

Devices are named by name or id, or by a tag of theirs: class:nas, site:home.`,
		Example: "  fcpctl zone placement z:private --any 2-of-5 --domains 1 --prefer class:nas --exclude phone --identity ~/fcp-identity\n" +
			"  fcpctl zone placement z:private --coverage 3.0x --dry-run",
		ValidArgsFunction: completeZones,
		RunE: func(cmd *cobra.Command, args []string) error {
			change := false
			for _, name := range []string{"any", "min-nodes", "max-fraction", "coverage", "domains", "min-sources", "low-mark", "control-copies", "prefer", "exclude", "clear"} {
				change = change || cmd.Flags().Changed(name)
			}
			return a.withStore(cmd.Context(), openMode(change && !o.dryRun), func(e *engine.Engine) error {
				return a.placement(cmd.Context(), e, o, args[0], change, cmd.Flags().Changed)
			})
		},
	}
	o.identity = identityFlags(cmd, "identity file of the owner")
	f := cmd.Flags()
	f.StringVar(&o.spread, "any", "", "any so many of the devices with a share rebuild everything: 2-of-5")
	f.Uint64Var(&o.numbers.nodes, "min-nodes", 0, "devices that hold a share, at least")
	f.Var(&o.fraction, "max-fraction", "of all symbols on one device, at most (40%)")
	f.Var(&o.coverage, "coverage", "symbols over source symbols, at least (1.5x)")
	f.Uint64Var(&o.numbers.domains, "domains", 0, "sites that may be lost whole")
	f.Uint64Var(&o.numbers.sources, "min-sources", 0, "devices that the symbols of a rebuild come from, where so many are there")
	f.Uint64Var(&o.numbers.low, "low-mark", 0, "shares left below which repair begins (0: with the first that is lost)")
	f.Uint64Var(&o.numbers.control, "control-copies", 0, "devices that should have every control event (0: 3)")
	f.StringSliceVar(&o.prefer, "prefer", nil, "devices or tags that are chosen before others; '' for none")
	f.StringSliceVar(&o.exclude, "exclude", nil, "devices or tags that are never chosen; '' for none")
	f.BoolVar(&o.clear, "clear", false, "have no placement: as each node was started with")
	_ = cmd.RegisterFlagCompletionFunc("prefer", a.completeDevices)
	_ = cmd.RegisterFlagCompletionFunc("exclude", a.completeDevices)
	dryRunFlag(cmd, &o.dryRun)
	return cmd
}

func (a *app) placement(ctx context.Context, e *engine.Engine, o *placementOptions, zone string, change bool, said func(string) bool) error {
	id, err := fcp.ParseZoneID(zone)
	if err != nil {
		return err
	}
	f, err := e.ZoneFacts(id)
	if err != nil {
		return err
	}
	rules, p := f.Rules(), f.Policy
	if change {
		if rules.Placement, err = a.placementOf(e, o, rules.Placement, said); err != nil {
			return err
		}
		if p, err = a.setPlacement(ctx, e, f, o, rules); err != nil {
			return err
		}
	}
	v := zonePlacementView{Zone: id, Placement: viewPlacement(rules.Placement), DryRun: o.dryRun}
	if p != nil {
		v.Version, v.Ref = p.Number(), p.Ref().String()
	}
	fields := append([]field{{"zone", id.String()}, {"version", decimal(v.Version)}}, a.placementFields(e, rules.Placement)...)
	if err = a.record("Placement", e.Position(), v, v.Ref, fields...); err != nil {
		return err
	}
	if change && o.dryRun {
		a.note("dry run: nothing was written")
	}
	a.answered(e.Position())
	return nil
}

// placementOf applies the flags to the placement in force.
func (a *app) placementOf(e *engine.Engine, o *placementOptions, now *authority.PlacementRules, said func(string) bool) (*authority.PlacementRules, error) {
	if o.clear {
		return nil, nil
	}
	p := authority.PlacementRules{Need: 2, Of: 3}
	if now != nil {
		p = *now
	}
	if said("any") {
		spread, err := engine.ParseSymbolPolicy("any-" + strings.TrimPrefix(o.spread, "any-"))
		if err != nil {
			return nil, err
		}
		p.Need, p.Of = uint64(spread.Need), uint64(spread.Of)
	}
	for _, x := range []struct {
		flag string
		to   *uint64
		n    uint64
	}{{"min-nodes", &p.MinNodes, o.numbers.nodes}, {"max-fraction", &p.MaxFractionBPS, o.fraction.n}, {"coverage", &p.TargetCoverageBPS, o.coverage.n},
		{"domains", &p.Domains, o.numbers.domains}, {"min-sources", &p.MinSources, o.numbers.sources}, {"low-mark", &p.LowMark, o.numbers.low},
		{"control-copies", &p.ControlCopies, o.numbers.control}} {
		if said(x.flag) {
			*x.to = x.n
		}
	}
	for _, x := range []struct {
		flag string
		to   *[]string
		list []string
	}{{"prefer", &p.Preferred, o.prefer}, {"exclude", &p.Excluded, o.exclude}} {
		if !said(x.flag) {
			continue
		}
		var err error
		if *x.to, err = a.selectors(e, x.list); err != nil {
			return nil, err
		}
	}
	return &p, nil
}

// selectors turns names, ids and tags into selectors.
func (a *app) selectors(e *engine.Engine, list []string) (out []string, err error) {
	for _, s := range list {
		switch {
		case s == "":
		case strings.Contains(s, ":"):
			out = append(out, s)
		default:
			m, err := a.findDevice(e, s)
			if err != nil {
				return nil, err
			}
			out = append(out, authority.SelectDevice+m.Writer.String())
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	return sortedOnce(out), nil
}

// setPlacement returns the new policy; with a dry run nil, after the check.
func (a *app) setPlacement(ctx context.Context, e *engine.Engine, f *engine.ZoneFacts, o *placementOptions, rules authority.PolicyRules) (*authority.Policy, error) {
	owner, err := a.ownerFor(o.identity, "a placement")
	if err != nil {
		return nil, err
	}
	defer owner.Wipe()
	if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
		return nil, err
	}
	if !o.dryRun {
		return e.SetPolicy(ctx, owner, f.Zone, rules)
	}
	spec, err := f.Policies.Next(f.Zone, rules)
	if err == nil {
		_, err = authority.SignPolicy(a.now(), owner, spec)
	}
	return nil, err
}

// placementFields says it for people, devices by name.
func (a *app) placementFields(e *engine.Engine, p *authority.PlacementRules) []field {
	if p == nil {
		return []field{{"placement", "as each node was started with"}}
	}
	out := []field{{"placement", fmt.Sprintf("any %d of %d devices rebuild", p.Need, p.Of)}}
	add := func(name string, n uint64, text string) {
		if n > 0 {
			out = append(out, field{name, text})
		}
	}
	add("devices", p.MinNodes, fmt.Sprintf("at least %d", p.MinNodes))
	add("on one device", p.MaxFractionBPS, fmt.Sprintf("at most %.2f%% of the symbols", float64(p.MaxFractionBPS)/100))
	add("coverage", p.TargetCoverageBPS, fmt.Sprintf("at least %.2fx", float64(p.TargetCoverageBPS)/10000))
	add("sites", p.Domains, fmt.Sprintf("%d may be lost whole", p.Domains))
	add("sources", p.MinSources, fmt.Sprintf("a rebuild takes symbols from %d devices", p.MinSources))
	add("low mark", p.LowMark, fmt.Sprintf("repair begins below %d shares", p.LowMark))
	add("control", p.ControlCopies, fmt.Sprintf("on %d devices", p.ControlCopies))
	members, err := e.Members()
	if err != nil {
		members = nil // ids do
	}
	name := func(selector string) string {
		for _, m := range members {
			if selector == authority.SelectDevice+m.Writer.String() {
				return m.Name
			}
		}
		return selector
	}
	for _, x := range []struct {
		name string
		list []string
	}{{"prefers", p.Preferred}, {"excludes", p.Excluded}} {
		var names []string
		for _, s := range x.list {
			names = append(names, name(s))
		}
		add(x.name, uint64(len(names)), strings.Join(names, ", "))
	}
	return out
}
