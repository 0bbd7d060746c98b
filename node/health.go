package node

import (
	"fmt"

	"fcp"
	"fcp/node/placement"
)

// Summary says how well the segments that this node knows of are placed, and who
// claims what it does not have.
func (n *Node) Summary() placement.Summary {
	devices := n.devices()
	sum := placement.Summarize(n.policy(), n.segments(devices), devices, n.now(), n.memberName)
	for _, x := range n.Suspects() {
		name := n.memberName(x.Writer)
		sum.Take(10, x.Segments, fmt.Sprintf("%s claims symbols of %d segments that it does not have", name, x.Segments),
			fmt.Sprintf("look at its disk, or take it out: fcpctl device lost %s", name))
	}
	left := 0
	for i := range devices {
		if !devices[i].Lost {
			left++
		}
	}
	if want := n.controlCopiesAsked(); left < want {
		sum.Take(5, sum.Segments, fmt.Sprintf("control and audit events can be on %d devices, %d are asked", left, want), "add a device: fcpctl device enroll")
	}
	return sum
}

// controlCopiesAsked is the most copies that a zone asks of its control events.
func (n *Node) controlCopiesAsked() (most int) {
	zones := n.policies()
	for _, zone := range n.engine.Zones() {
		most = max(most, zones.zone(zone).ControlCopies)
	}
	return most
}

// ControlCopies is how many devices that are there, this one included, said that they
// have a control feed as far as this node has it: the fewest of all feeds. Audit entries
// are control events.
func (n *Node) ControlCopies() int {
	fewest := 0
	for _, f := range n.engine.Log().Feeds() {
		if f.Feed.Plane != fcp.PlaneControl {
			continue
		}
		if have := 1 + n.hasControl(f.Feed, f.Seq); fewest == 0 || have < fewest {
			fewest = have
		}
	}
	return fewest
}
