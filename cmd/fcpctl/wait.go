package main

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/cmd/internal/daemon"
	"fcp/node/api"
)

type waitOptions struct {
	ready, converged, placed bool
	revocations              []string
	timeout                  time.Duration
}

// waitedView is what came to pass, as JSON.
type waitedView struct {
	Nodes   []string `json:"nodes"` // that were asked
	For     []string `json:"for"`
	Elapsed int64    `json:"elapsed_ms"`
}

func (a *app) waitCommand() *cobra.Command {
	o := &waitOptions{}
	cmd := &cobra.Command{
		Use: "wait", Short: "Wait until the nodes of this machine are ready, agree, or know of a revocation", Args: args(0, 0),
		Long: `wait returns when all that is asked for came to pass on every node of this machine that
runs; exit code 3 when it did not in time. --ready: each answers and has met every
member that is here. --converged: what the others have is here, and the roots of all
zones are equal on the nodes of this machine. --placed: every
sealed segment is spread as the policy says. --revocation: each has the revocation.`,
		Example: "  fcpctl wait --ready --converged\n  fcpctl wait --revocation REF --timeout 5s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !o.ready && !o.converged && !o.placed && len(o.revocations) == 0 {
				return usagef("see `"+cmd.CommandPath()+" --help`", "nothing to wait for")
			}
			ctx, stop := context.WithTimeout(cmd.Context(), o.timeout)
			defer stop()
			err := a.wait(ctx, o)
			if cmd.Context().Err() == nil && ctx.Err() != nil && !errors.Is(err, fcp.CodeTimeout) && err != nil {
				err = fcp.Wrap(fcp.CodeTimeout, err, "waiting")
			}
			return advise(err, fcp.CodeTimeout, "see `"+a.command("node", "ls")+"` and `"+a.command("status")+"`, or give more time with --timeout")
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.ready, "ready", false, "until each node is ready and they have met")
	f.BoolVar(&o.converged, "converged", false, "until each has what the others have, and the zone roots are equal")
	f.BoolVar(&o.placed, "placed", false, "until every sealed segment is spread")
	f.StringArrayVar(&o.revocations, "revocation", nil, "until each node has this revocation; may be repeated")
	f.DurationVar(&o.timeout, "timeout", 30*time.Second, "give up after this time")
	return cmd
}

// running returns the nodes of this machine that run.
func (a *app) running() (out []daemon.LocalNode, err error) {
	hints, err := daemon.LoadHints(a.flags.dir)
	if err != nil {
		return nil, err
	}
	nodes := hints.Nodes
	if len(nodes) == 0 || a.flags.node != "" {
		nodes = []daemon.LocalNode{{Name: "this", Dir: a.flags.dir}}
	}
	for _, n := range nodes {
		pid, err := daemon.Process(n.Dir)
		if err != nil {
			return nil, err
		}
		if pid != 0 {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return nil, fcp.Errorf(fcp.CodeDependency, "no fcpd runs on %s", a.flags.dir).WithNext("start it with `" + a.command("up") + "`")
	}
	return out, nil
}

func (a *app) wait(ctx context.Context, o *waitOptions) error {
	began := a.now()
	nodes, err := a.running()
	if err != nil {
		return err
	}
	v := waitedView{For: []string{}}
	var all []*api.Remote
	for _, n := range nodes {
		if err := a.awaitReady(ctx, n.Dir); err != nil {
			return err
		}
		r, err := api.Dial(ctx, daemon.SocketIn(n.Dir))
		if err != nil {
			return err
		}
		v.Nodes, all = append(v.Nodes, n.Name), append(all, r)
	}
	if o.ready {
		v.For = append(v.For, "ready")
		err = a.awaitPeers(ctx, all)
	}
	if o.converged {
		v.For = append(v.For, "converged")
		switch {
		case err != nil:
		case len(all) == 1: // nobody's root to compare with
			err = all[0].Wait(ctx, api.WaitSettled, fcp.Hash{})
		default:
			err = a.awaitEqualRoots(ctx, all)
		}
	}
	for _, r := range all {
		if err == nil && o.placed {
			err = r.Wait(ctx, api.WaitPlaced, fcp.Hash{})
		}
	}
	if o.placed {
		v.For = append(v.For, "placed")
	}
	for _, s := range o.revocations {
		v.For = append(v.For, "revocation")
		for _, r := range all {
			ref, perr := fcp.ParseHash(s)
			if perr != nil {
				return perr
			}
			if err == nil {
				err = r.Wait(ctx, api.WaitRevocation, ref)
			}
		}
	}
	if err != nil {
		return err
	}
	v.Elapsed = a.now().Sub(began).Milliseconds()
	return a.record("Waited", 0, v, strings.Join(v.For, " "), field{"nodes", strings.Join(v.Nodes, ", ")}, field{"came to pass", strings.Join(v.For, ", ")},
		field{"elapsed", decimal(uint64(v.Elapsed)) + " ms"})
}

// awaitPeers waits until each node has a session with each other one of them.
func (a *app) awaitPeers(ctx context.Context, all []*api.Remote) error {
	return poll(ctx, func() (bool, error) {
		writers := map[string]bool{}
		var lists []api.Status
		for _, r := range all {
			st, err := r.Client().Status(ctx)
			if err != nil {
				return false, err
			}
			writers[st.Writer] = true
			lists = append(lists, st)
		}
		for _, st := range lists {
			for _, m := range st.Members {
				if writers[m.Writer] && m.State == "away" {
					return false, nil
				}
			}
			if st.Coverage.Members < len(all) {
				return false, nil
			}
		}
		return true, nil
	}, "the nodes have not all met")
}

func (a *app) awaitEqualRoots(ctx context.Context, all []*api.Remote) error {
	return poll(ctx, func() (bool, error) {
		var first map[string]fcp.Hash
		for _, r := range all {
			roots, err := r.Roots(ctx)
			if err != nil {
				return false, err
			}
			if first == nil {
				first = roots
			}
			if !maps.Equal(first, roots) {
				return false, nil
			}
		}
		return true, nil
	}, "the zone roots differ")
}

// poll asks until the answer is yes.
func poll(ctx context.Context, ask func() (bool, error), otherwise string) error {
	for pause := pollEvery; ; pause = min(2*pause, 200*time.Millisecond) {
		ok, err := ask()
		if err != nil || ok {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fcp.Errorf(fcp.CodeTimeout, "%s", otherwise)
		}
	}
}
