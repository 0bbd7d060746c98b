package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
)

// fault is one way to hurt a store, and what must hold after.
type fault struct {
	name, promise string
	run           func(t *tortured) error
}

func faults() []fault {
	return []fault{
		{"kill", "what a killed process acknowledged is there", (*tortured).kill},
		{"power", "what was acknowledged survives a power cut that tears and reorders what was not synced", (*tortured).power},
		{"flip", "a flipped bit in any file of a closed store is found", (*tortured).flip},
		{"full", "a full disk is said within 2 s, reads go on, writes come back with the space", (*tortured).full},
		{"clock", "times of a feed rise whatever the clock does, by up to ten years each way", (*tortured).clockJump},
	}
}

// tortured is one round: everything that happens in it comes from its seed, but
// for the moment at which a process dies.
type tortured struct {
	a    *app
	ctx  context.Context
	rng  *rand.Rand
	dir  string // a real directory of its own, for rounds that need one
	seen string // what happened, for people
}

// tortureView is one round as JSON.
type tortureView struct {
	Fault   string `json:"fault"`
	Seed    uint64 `json:"seed"`
	Promise string `json:"promise"`
	Kept    bool   `json:"kept"`
	Seen    string `json:"seen"`
	Again   string `json:"again,omitempty"` // the command that repeats it
	Millis  int64  `json:"elapsed_ms"`
}

func (a *app) tortureCommand() *cobra.Command {
	var (
		rounds int
		seed   uint64
		only   []string
		mesh   bool
		hours  float64
	)
	var names []string
	long := "torture makes scratch stores, hurts them and checks what was promised. It touches\nno store of yours. Its faults:\n\n"
	for _, f := range faults() {
		names = append(names, f.name)
		long += fmt.Sprintf("  %-6s %s\n", f.name, f.promise)
	}
	long += "\nkill runs on this machine's disk, flip, power, full and clock on one in memory that\nmisbehaves on purpose. A round that fails says how to repeat it.\n\nWith --mesh a round is a mesh of four processes on this machine instead: writes on\nevery node, kill -9, repair, hostile packets at every port, and in the end every object\nread on every node. --hours lets it go on with new seeds."
	cmd := &cobra.Command{
		Use: "torture", Short: "Hurt scratch stores and check that nothing is lost", Long: long, Args: args(0, 0),
		Example: "  fcpctl torture --rounds 100\n  fcpctl torture --fault power --seed 17 --rounds 1\n  fcpctl torture --mesh --hours 8",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rounds < 1 {
				return usagef("", "--rounds is at least 1")
			}
			for _, name := range only {
				if !slices.Contains(names, name) {
					return usagef("choose among "+strings.Join(names, ", "), "there is no fault %q", name)
				}
			}
			if !mesh && hours != 0 || hours < 0 || hours > 1e4 || mesh && len(only) > 0 {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--hours needs --mesh and a number of hours, and --mesh has no --fault")
			}
			if mesh {
				return a.tortureMesh(cmd.Context(), rounds, seed, time.Duration(hours*float64(time.Hour)))
			}
			return a.torture(cmd.Context(), rounds, seed, only)
		},
	}
	cmd.Flags().IntVar(&rounds, "rounds", 3, "rounds of each fault")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "of the first round; the next ones count up")
	cmd.Flags().StringSliceVar(&only, "fault", nil, "only these faults")
	cmd.Flags().BoolVar(&mesh, "mesh", false, "rounds on a mesh of processes on this machine")
	cmd.Flags().Float64Var(&hours, "hours", 0, "go on for so long instead of --rounds, with --mesh")
	_ = cmd.RegisterFlagCompletionFunc("fault", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) torture(ctx context.Context, rounds int, seed uint64, only []string) error {
	l := a.list("TortureRound", 0, "FAULT", "SEED", "RESULT", "SEEN")
	l.live = true
	p := a.progress("torture", "rounds")
	var done, failed uint64
	list := slices.DeleteFunc(faults(), func(f fault) bool { return len(only) > 0 && !slices.Contains(only, f.name) })
	for i := range uint64(rounds) {
		for _, f := range list {
			if ctx.Err() != nil {
				return interrupted()
			}
			v, err := a.tortureRound(ctx, f, seed+i)
			if err != nil {
				return err
			}
			word := "kept"
			if !v.Kept {
				failed++
				word = a.paint(a.stdoutTTY, red, "BROKEN")
			}
			if err := l.add(v, fmt.Sprintf("%s/%d", v.Fault, v.Seed), v.Fault, decimal(v.Seed), word, v.Seen); err != nil {
				return err
			}
			done++
			p.tell("", done, uint64(rounds*len(list)))
		}
	}
	p.done()
	if err := l.close(); err != nil {
		return err
	}
	if failed > 0 {
		return &exitError{fcp.Errorf(fcp.CodeInternal, "%d of %d rounds broke a promise", failed, done).
			WithNext("report the seeds; `fcpctl torture --fault NAME --seed N --rounds 1` repeats one"), exitIntegrity}
	}
	a.note("%d rounds, every promise kept", done)
	return nil
}

func (a *app) tortureRound(ctx context.Context, f fault, seed uint64) (v tortureView, err error) {
	dir, err := os.MkdirTemp("", "fcp-torture-")
	if err != nil {
		return v, inputError(err, "a scratch directory")
	}
	defer os.RemoveAll(dir)
	start := a.now()
	t := &tortured{a: a, ctx: ctx, rng: rand.New(rand.NewPCG(seed, 0x746f7274)), dir: dir}
	broke := f.run(t)
	if ctx.Err() != nil {
		return v, interrupted()
	}
	v = tortureView{Fault: f.name, Seed: seed, Promise: f.promise, Kept: broke == nil, Seen: t.seen, Millis: a.now().Sub(start).Milliseconds()}
	if broke != nil {
		v.Seen = strings.TrimPrefix(t.seen+"; ", "; ") + broke.Error()
		v.Again = fmt.Sprintf("fcpctl torture --fault %s --seed %d --rounds 1", f.name, seed)
	}
	return v, nil
}
