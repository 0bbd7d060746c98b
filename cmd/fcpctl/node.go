package main

import (
	"context"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/cmd/internal/daemon"
	"fcp/node/api"
)

func (a *app) nodeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "node", Short: "Nodes: list, add, start, stop, kill; their health, and what a loss would cost"}
	group(cmd)
	cmd.AddCommand(a.nodeLsCommand(), a.nodeAddCommand(), a.nodeStartCommand(), a.nodeStopCommand(), a.nodeKillCommand(),
		a.nodeHealthCommand(), a.nodeWhatIfCommand())
	return cmd
}

func (a *app) nodeLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "The members of the mesh, by name, and when the newest revocation was there", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			views, err := a.listNodes(cmd.Context())
			if err != nil {
				return err
			}
			l := a.nodeList()
			for i := range views {
				if err := l.add(views[i], views[i].Name, views[i].cells()...); err != nil {
					return err
				}
			}
			return l.close()
		},
	}
}

// nodesOf returns the nodes of this machine, or the store as the only one.
func (a *app) nodesOf(hints *daemon.Hints) ([]daemon.LocalNode, error) {
	if len(hints.Nodes) > 0 {
		return hints.Nodes, nil
	}
	if err := a.mustBeStore(a.flags.dir); err != nil {
		return nil, err
	}
	return []daemon.LocalNode{{Name: "this", Dir: a.flags.dir}}, nil
}

// listNodes asks the daemons of this machine, and each of the nodes it made.
func (a *app) listNodes(ctx context.Context) (out []nodeView, err error) {
	hints, err := daemon.LoadHints(a.flags.dir)
	if err != nil {
		return nil, err
	}
	nodes, err := a.nodesOf(hints)
	if err != nil {
		return nil, err
	}
	var all []api.Status
	for _, n := range nodes {
		v := nodeView{Name: n.Name, State: "stopped", Dir: n.Dir}
		if v.Process, err = daemon.Process(n.Dir); err != nil {
			return nil, err
		}
		if v.Process != 0 {
			st, err := api.NewClient(daemon.SocketIn(n.Dir)).Status(ctx)
			if err != nil {
				return nil, err
			}
			all = append(all, st)
			v.State, v.Address, v.Writer = "up", st.Address, st.Writer
			if v.Name == "this" {
				v.Name = st.Name
			}
		}
		out = append(out, v)
	}
	for _, st := range all { // members that are elsewhere
		for _, m := range st.Members {
			if i := slices.IndexFunc(out, func(v nodeView) bool { return v.Writer == m.Writer || v.Writer == "" && v.Name == m.Name }); i < 0 {
				out = append(out, nodeView{Name: m.Name, State: m.State, Address: m.Address, Writer: m.Writer})
			} else if out[i].Writer == "" {
				out[i].Writer = m.Writer
			}
			at := slices.IndexFunc(out, func(v nodeView) bool { return v.Writer == m.Writer })
			if m.State != "this" || out[at].Class == "" && out[at].Power == "" {
				out[at].present(&m)
			}
		}
	}
	newest(all, out)
	return out, nil
}

// newest notes when each node had the newest revocation.
func newest(all []api.Status, out []nodeView) {
	var last *api.Arrival
	var names map[string]string
	for i := range all {
		n := len(all[i].Arrivals)
		if n == 0 || last != nil && !all[i].Arrivals[n-1].At.After(last.At) {
			continue
		}
		last, names = &all[i].Arrivals[n-1], map[string]string{}
		for _, m := range all[i].Members {
			names[m.Writer] = m.Name
		}
	}
	if last == nil {
		return
	}
	for i := range out {
		if ms, ok := last.Seen[names[out[i].Writer]]; ok {
			out[i].Arrived = &ms
		}
	}
}

func (a *app) completeNodes(cmd *cobra.Command, given []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(given) > 0 || a.bindEnvironment(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	if h, err := daemon.LoadHints(a.flags.dir); err == nil {
		for _, n := range h.Nodes {
			out = append(out, n.Name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) nodeAddCommand() *cobra.Command {
	var identity *identityOptions
	var tailnet tailnetOptions
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Make one more node on this machine and start it", Args: args(1, 1),
		Long: `add makes one more node beside the others, enrolls it with the owner's identity through
the first node that runs, and starts it. In a Tailscale network it joins that one too.`,
		Example: "  fcpctl node add n4 --identity ~/fcp-identity",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, name := cmd.Context(), args[0]
			hints, err := daemon.LoadHints(a.flags.dir)
			if err != nil {
				return err
			}
			if len(hints.Nodes) == 0 {
				return fcp.Errorf(fcp.CodeInvalidArgument, "this store is no mesh of this machine").WithNext("make one with `" + a.command("up", "--nodes", "3") + "`")
			}
			if name == "" || name != printable(name) || len(name) > 40 || slices.Contains([]string{"this", ".", ".."}, name) {
				return fcp.Errorf(fcp.CodeInvalidArgument, "%.60q is no name for a node", name)
			}
			if slices.ContainsFunc(hints.Nodes, func(n daemon.LocalNode) bool { return n.Name == name }) {
				return fcp.Errorf(fcp.CodeConflict, "there is a node %s already", name).WithNext("start it with `" + a.command("node", "start", name) + "`")
			}
			if err := a.addNodes(ctx, identity, hints, []string{name}); err != nil {
				return err
			}
			return a.startNamed(ctx, name, &tailnet)
		},
	}
	tailnet.keyFlag(cmd.Flags())
	identity = identityFlags(cmd, "identity file of the owner, to enroll it with (default $XDG_CONFIG_HOME/fcp/identity)")
	return cmd
}

func (a *app) nodeStartCommand() *cobra.Command {
	return &cobra.Command{
		Use: "start NAME", Short: "Start a node of this machine", Args: args(1, 1), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.startNamed(cmd.Context(), args[0], &tailnetOptions{})
		},
	}
}

func (a *app) startNamed(ctx context.Context, name string, tailnet *tailnetOptions) error {
	hints, err := daemon.LoadHints(a.flags.dir)
	if err != nil {
		return err
	}
	dir, err := a.nodeDir(name)
	if err != nil {
		return err
	}
	n := daemon.LocalNode{Name: name, Dir: dir}
	if dir != hints.Nodes[0].Dir {
		if err := a.introduce(n, hints); err != nil {
			return err
		}
	}
	v, err := a.startNode(ctx, n, tailnet.forNode(hints, name)...)
	if err != nil {
		return err
	}
	return a.printNode(v)
}

func (a *app) printNode(v *nodeView) error {
	process := ""
	if v.Process != 0 {
		process = decimal(uint64(v.Process))
	}
	return a.record("Node", 0, v, v.Name, field{"name", v.Name}, field{"state", v.State}, field{"process", process}, field{"address", v.Address}, field{"store", v.Dir})
}

func (a *app) nodeStopCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stop NAME", Short: "End a node of this machine in good order", Args: args(1, 1), ValidArgsFunction: a.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.endNamed(cmd.Context(), args[0], syscall.SIGTERM)
		},
	}
}

func (a *app) nodeKillCommand() *cobra.Command {
	var hard bool
	cmd := &cobra.Command{
		Use: "kill NAME", Short: "End a node of this machine; --hard gives it no time at all", Args: args(1, 1), ValidArgsFunction: a.completeNodes,
		Long: "kill ends a node. With --hard it is SIGKILL, as when the power goes: what was acknowledged\nis on its disk, and on the others as far as it was spread.",
		RunE: func(cmd *cobra.Command, args []string) error {
			signal := syscall.SIGTERM
			if hard {
				signal = syscall.SIGKILL
			}
			return a.endNamed(cmd.Context(), args[0], signal)
		},
	}
	cmd.Flags().BoolVar(&hard, "hard", false, "SIGKILL")
	return cmd
}

func (a *app) endNamed(ctx context.Context, name string, signal syscall.Signal) error {
	dir, err := a.nodeDir(name)
	if err != nil {
		return err
	}
	pid, err := a.end(ctx, dir, signal)
	if err != nil {
		return err
	}
	if pid == 0 {
		a.note("%s did not run", name)
	}
	return a.printNode(&nodeView{Name: name, State: "stopped", Dir: dir})
}
