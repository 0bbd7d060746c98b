package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/authority"
	"fcp/cmd/internal/daemon"
	"fcp/engine"
	"fcp/node"
	"fcp/node/api"
)

type upOptions struct {
	nodes    int
	policy   string
	listen   string
	peers    []string
	tailnet  tailnetOptions
	metered  bool
	hooks    daemon.Hooks
	identity *identityOptions
}

func (a *app) upCommand() *cobra.Command {
	o := &upOptions{}
	cmd := &cobra.Command{
		Use: "up", Short: "Start fcpd on the store; with --nodes, a mesh of several nodes on this machine", Args: args(0, 0),
		Long: `up starts fcpd on the store and returns when it is ready; one that runs is left as it
is. From then on the other commands go through it.

With --nodes N the store is node n1, and n2 to nN are made beside it (DIR.n2, ...),
enrolled with the owner's identity; each gets an fcpd of its own, on loopback. Later
` + "`up`" + ` starts them all again. --node n2 has any command work on the store of n2.`,
		Example: "  fcpctl up\n  fcpctl up --nodes 3 --policy any-2-of-3 --identity ~/fcp-identity\n  fcpctl --node n3 object get notes/today",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.nodes < 0 || o.nodes > maxLocalNodes {
				return usagef("give a number of 1 to "+decimal(maxLocalNodes), "--nodes %d", o.nodes)
			}
			if o.policy != "" {
				if _, err := engine.ParseSymbolPolicy(o.policy); err != nil {
					return err
				}
			}
			return a.up(cmd.Context(), o)
		},
	}
	o.identity = identityFlags(cmd, "identity file of the owner, to enroll new nodes with (default $XDG_CONFIG_HOME/fcp/identity)")
	f := cmd.Flags()
	f.IntVar(&o.nodes, "nodes", 0, "how many nodes on this machine")
	f.StringVar(&o.policy, "policy", "", "how segments are spread over the members (default any-2-of-3)")
	f.StringVar(&o.listen, "listen", "", "UDP address for other devices (default a free port of 127.0.0.1, kept)")
	f.StringArrayVar(&o.peers, "peer", nil, "address of another device; may be repeated")
	f.BoolVar(&o.metered, "metered", false, "this device's network costs by volume: nothing is fetched that nobody waits for")
	f.StringVar(&o.hooks.Arrival, "on-arrival", "", "program for fcpd to run when a device came (an absolute path)")
	f.StringVar(&o.hooks.Departure, "on-departure", "", "program for fcpd to run when a device went (an absolute path)")
	o.tailnet.flags(f)
	return cmd
}

// maxLocalNodes is how many nodes `up` starts on one machine.
const maxLocalNodes = 16

// nodeView is one node as JSON.
type nodeView struct {
	Name    string `json:"name"`
	State   string `json:"state"` // up, away, stopped, revoked
	Process int    `json:"process,omitempty"`
	Address string `json:"address,omitempty"`
	Dir     string `json:"dir,omitempty"` // of a node on this machine
	Writer  string `json:"writer,omitempty"`
	Began   bool   `json:"began,omitempty"` // by this command

	Arrived *float64 `json:"arrived_ms,omitempty"` // when the newest revocation was there

	Since    string     `json:"since,omitempty"`     // of one that is there
	LastSeen string     `json:"last_seen,omitempty"` // of one that is away
	Class    string     `json:"class,omitempty"`
	Site     string     `json:"site,omitempty"`
	Power    node.Power `json:"power,omitempty"` // by the device's own word
	Charge   uint64     `json:"charge,omitempty"`
	Metered  bool       `json:"metered,omitempty"`
}

// present notes what a node knows of a member.
func (v *nodeView) present(m *api.Member) {
	v.Class, v.Site = m.Class, m.Site
	if p := m.Profile; p != nil {
		v.Power, v.Charge, v.Metered = p.Power, p.Charge, p.Metered
	}
	switch {
	case v.State == "up" && !m.Since.IsZero():
		v.Since = secondsText(m.Since)
	case v.State != "up" && !m.LastSeen.IsZero():
		v.LastSeen = secondsText(m.LastSeen)
	}
}

// presence is "since T" or "last seen T".
func (v *nodeView) presence() string {
	switch {
	case v.Since != "":
		return "since " + v.Since
	case v.LastSeen != "":
		return "last seen " + v.LastSeen
	}
	return ""
}

// device is "laptop, home, battery 80 %, metered".
func (v *nodeView) device() string {
	var out []string
	for _, s := range []string{v.Class, v.Site, string(v.Power)} {
		if s != "" {
			out = append(out, s)
		}
	}
	if v.Power != "" && v.Charge > 0 {
		out[len(out)-1] += fmt.Sprintf(" %d %%", v.Charge)
	}
	if v.Metered {
		out = append(out, "metered")
	}
	return strings.Join(out, ", ")
}

func (v *nodeView) cells() []string {
	process, arrived := "", ""
	if v.Process != 0 {
		process = decimal(uint64(v.Process))
	}
	if v.Arrived != nil {
		arrived = fmt.Sprintf("%.1f ms", *v.Arrived)
	}
	return []string{v.Name, v.State, process, v.Address, v.Dir, arrived, v.presence(), v.device()}
}

func (a *app) nodeList() *list {
	return a.list("Node", 0, "NAME", "STATE", "PROCESS", "ADDRESS", "DIR", "REVOCATION", "PRESENCE", "DEVICE")
}

func (a *app) up(ctx context.Context, o *upOptions) error {
	if err := a.mustBeStore(a.flags.dir); err != nil {
		return err
	}
	hints, err := daemon.LoadHints(a.flags.dir)
	if err != nil {
		return err
	}
	if o.policy != "" && o.policy != hints.Policy {
		if err := a.setPolicy(ctx, hints, o.policy); err != nil {
			return err
		}
	}
	if o.nodes > 1 || o.nodes == 1 && len(hints.Nodes) > 0 {
		if err := a.makeNodes(ctx, o, hints); err != nil {
			return err
		}
	}
	l := a.nodeList()
	add := func(n daemon.LocalNode, args ...string) error {
		v, err := a.startNode(ctx, n, args...)
		if err != nil {
			return err
		}
		return l.add(v, v.Name, v.cells()...)
	}
	var flags []string
	if o.listen != "" {
		flags = append(flags, "--listen", o.listen)
	}
	for _, p := range o.peers {
		flags = append(flags, "--peer", p)
	}
	if o.metered {
		flags = append(flags, "--metered")
	}
	if o.hooks.Arrival != "" {
		flags = append(flags, "--on-arrival", o.hooks.Arrival)
	}
	if o.hooks.Departure != "" {
		flags = append(flags, "--on-departure", o.hooks.Departure)
	}
	if len(hints.Nodes) == 0 {
		err = add(daemon.LocalNode{Name: "this", Dir: a.flags.dir}, append(flags, o.tailnet.forNode(hints, "this")...)...)
	}
	for i, n := range hints.Nodes {
		tailnet := o.tailnet.forNode(hints, n.Name)
		if i == 0 {
			err = add(n, append(flags, tailnet...)...)
		} else if err = a.introduce(n, hints); err == nil {
			err = add(n, tailnet...)
		}
		if err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	return l.close()
}

// setPolicy keeps the policy for all nodes of this machine. A daemon takes it at its
// start.
func (a *app) setPolicy(_ context.Context, hints *daemon.Hints, policy string) error {
	hints.Policy = policy
	dirs := []string{a.flags.dir}
	for _, n := range hints.Nodes {
		dirs = append(dirs, n.Dir)
	}
	for _, dir := range dirs {
		if pid, err := daemon.Process(dir); err != nil || pid != 0 {
			return fcp.Errorf(fcp.CodeConflict, "fcpd of %s runs with another policy", dir).WithNext("end it with `" + a.command("down") + "`, then repeat")
		}
	}
	for _, n := range hints.Nodes {
		h, err := daemon.LoadHints(n.Dir)
		if err != nil {
			return err
		}
		h.Policy = policy
		if err := h.Save(n.Dir); err != nil {
			return err
		}
	}
	return hints.Save(a.flags.dir)
}

// startNode starts one node of this machine.
func (a *app) startNode(ctx context.Context, n daemon.LocalNode, args ...string) (*nodeView, error) {
	pid, began, err := a.start(ctx, n.Dir, args...)
	if err != nil {
		return nil, err
	}
	st, err := api.NewClient(daemon.SocketIn(n.Dir)).Status(ctx)
	return &nodeView{Name: n.Name, State: "up", Process: pid, Address: st.Address, Dir: n.Dir, Writer: st.Writer, Began: began}, err
}

// introduce tells a node where the first one listens.
func (a *app) introduce(n daemon.LocalNode, first *daemon.Hints) error {
	now, err := daemon.LoadHints(a.flags.dir) // the first node runs and wrote it down
	if err != nil {
		return err
	}
	h, err := daemon.LoadHints(n.Dir)
	if err != nil || now.Listen == "" || slices.Contains(h.Peers, now.Listen) {
		return err
	}
	if pid, err := daemon.Process(n.Dir); err != nil || pid != 0 {
		return err // it runs, and has its own
	}
	h.Peers, h.Policy = append(h.Peers, now.Listen), first.Policy
	return h.Save(n.Dir)
}

// makeNodes makes the stores of nodes that are not there yet.
func (a *app) makeNodes(ctx context.Context, o *upOptions, hints *daemon.Hints) error {
	if len(hints.Nodes) == 0 {
		dir, err := filepath.Abs(a.flags.dir)
		if err != nil {
			return inputError(err, "the store's directory")
		}
		hints.Nodes = []daemon.LocalNode{{Name: "n1", Dir: dir}}
	}
	var names []string
	for i := 2; i <= o.nodes; i++ {
		name := fmt.Sprintf("n%d", i)
		if !slices.ContainsFunc(hints.Nodes, func(n daemon.LocalNode) bool { return n.Name == name }) {
			names = append(names, name)
		}
	}
	return a.addNodes(ctx, o.identity, hints, names)
}

// addNodes enrolls new devices of this machine and makes their stores. When the first
// node does not run and another does, that one enrolls them: the mesh learns of it at
// once, and a first node that was lost is not needed.
func (a *app) addNodes(ctx context.Context, identity *identityOptions, hints *daemon.Hints, names []string) error {
	if len(names) == 0 {
		return nil
	}
	if identity.path == "" {
		identity.path = a.defaultPath("XDG_CONFIG_HOME", ".config", "fcp", "identity")
	}
	owner, err := a.ownerFor(identity, "an enrollment")
	if err != nil {
		return err
	}
	defer owner.Wipe()
	via := a.flags.dir
	if pid, err := daemon.Process(via); err != nil {
		return err
	} else if nodes, err := a.running(); pid == 0 && err == nil {
		via = nodes[0].Dir
	}
	return a.withStoreIn(ctx, via, writing, func(e *engine.Engine) error {
		if err := e.Genesis().CheckOwner(owner.Public()); err != nil {
			return err
		}
		for _, name := range names {
			dir := strings.TrimRight(hints.Nodes[0].Dir, string(filepath.Separator)) + "." + name
			if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
				return fcp.Errorf(fcp.CodeNotEmpty, "%s", dir)
			}
			node, err := authority.NewNodeKeys(a.random())
			if err != nil {
				return err
			}
			err = a.enrollAndJoin(ctx, e, via, owner, node, dir, name, e.Zones(), nil)
			node.Wipe()
			if err != nil {
				return err
			}
			// The daemon may have written since.
			now, err := daemon.LoadHints(a.flags.dir)
			if err != nil {
				return err
			}
			hints.Nodes = append(hints.Nodes, daemon.LocalNode{Name: name, Dir: dir})
			hints.Listen, hints.Peers = now.Listen, now.Peers
			if err := hints.Save(a.flags.dir); err != nil {
				return err
			}
		}
		// The zones' next checkpoints name the new members: without one they know of no
		// moment at which what they know was all there was, and decide nothing.
		for _, zone := range e.Zones() {
			if _, err := e.SettleCheckpoint(ctx, owner, zone); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeInvitation leaves in the store of a new device what its daemon needs for its
// first start: its enrollment, and where the one with the store via is.
func (a *app) writeInvitation(e *engine.Engine, via, dir string, w fcp.WriterID) error {
	own, err := daemon.LoadHints(via)
	if err != nil {
		return err
	}
	h := &daemon.Hints{Policy: own.Policy, Peers: own.Peers}
	if own.Listen != "" {
		h.Peers = append([]string{own.Listen}, h.Peers...)
	}
	members, err := e.Members()
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Writer == w {
			h.Enrollment = m.Proof
		} else if !m.Revoked {
			h.Members = append(h.Members, m.Proof)
		}
	}
	return h.Save(dir)
}

func (a *app) downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End fcpd, and every node that `up --nodes` started", Args: args(0, 0),
		Long: "down has fcpd finish what is under way and say goodbye, and returns when it is gone. What\nwas acknowledged stays; `up` goes on from there.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			hints, err := daemon.LoadHints(a.flags.dir)
			if err != nil {
				return err
			}
			nodes, err := a.nodesOf(hints)
			if err != nil {
				return err
			}
			l := a.nodeList()
			for _, n := range slices.Backward(nodes) {
				if _, err := a.end(cmd.Context(), n.Dir, syscall.SIGTERM); err != nil {
					return err
				}
				v := nodeView{Name: n.Name, State: "stopped", Dir: n.Dir}
				if err := l.add(v, v.Name, v.cells()...); err != nil {
					return err
				}
			}
			return l.close()
		},
	}
}
