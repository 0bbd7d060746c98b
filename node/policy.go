package node

import (
	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/node/placement"
)

// policies are the placement policies of zones, as the owner signed them. It is made
// for one look at everything.
type policies struct {
	node    *Node
	members []engine.Member
	base    *placement.Policy // of zones without one
	of      map[fcp.ZoneID]*placement.Policy
}

func (n *Node) policies() *policies {
	return &policies{n, n.id.enrolled(), n.policy(), map[fcp.ZoneID]*placement.Policy{}}
}

// zone returns the policy of a zone. A zone whose policy halted (two versions with one
// number) keeps to the one that this node was started with: nothing is dropped for it.
func (ps *policies) zone(zone fcp.ZoneID) *placement.Policy {
	if p := ps.of[zone]; p != nil {
		return p
	}
	p := ps.base
	if f, err := ps.node.engine.ZoneFacts(zone); err == nil && f.Halted == nil {
		if r := f.Rules().Placement; r != nil {
			p = policyOf(r, ps.members)
		}
	}
	ps.of[zone] = p
	return p
}

// policyOf is the policy that rules say, with selectors resolved to members.
func policyOf(r *authority.PlacementRules, members []engine.Member) *placement.Policy {
	p := &placement.Policy{Spread: symbols.Policy{Need: int(r.Need), Of: int(r.Of)}, MinNodes: int(r.MinNodes), MaxFractionBPS: int(r.MaxFractionBPS),
		TargetCoverageBPS: int(r.TargetCoverageBPS), Domains: int(r.Domains), LowMark: int(r.LowMark), MinSources: int(r.MinSources),
		ControlCopies: int(r.ControlCopies), Preferred: selected(r.Preferred, members), Excluded: selected(r.Excluded, members)}
	if p.ControlCopies == 0 {
		p.ControlCopies = authority.DefaultControlCopies
	}
	return p
}

func selected(selectors []string, members []engine.Member) map[fcp.WriterID]bool {
	out := map[fcp.WriterID]bool{}
	for _, s := range selectors {
		for i := range members {
			if authority.Selects(s, members[i].Writer, members[i].Tags) {
				out[members[i].Writer] = true
			}
		}
	}
	return out
}

// policy is the policy of zones that have none of their own.
func (n *Node) policy() *placement.Policy {
	return &placement.Policy{Spread: n.opt.Policy, ControlCopies: authority.DefaultControlCopies}
}

// zonePolicy returns the policy of one zone.
func (n *Node) zonePolicy(zone fcp.ZoneID) *placement.Policy { return n.policies().zone(zone) }

// copies is how many other devices hold what is not sealed of a zone: as many as may
// fail.
func (n *Node) copies(zone fcp.ZoneID) int {
	p := n.zonePolicy(zone).Spread
	return max(1, p.Of-p.Need)
}
