package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

type replayOptions struct {
	verify, inPlace, dryRun, yes bool
	scratch                      string
}

func (a *app) replayCommand() *cobra.Command {
	var o replayOptions
	cmd := &cobra.Command{
		Use: "replay", Short: "Rebuild the state from the log", Args: args(0, 0),
		Long: `replay folds the whole log again, from nothing, beside the live state. With
--verify the two state roots are compared; unequal is an integrity failure (exit 9).
With --in-place the rebuilt state takes the place of the old one.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.inPlace && o.scratch != "" {
				return usagef("leave one of them out", "--in-place and --scratch exclude each other")
			}
			if o.inPlace && !o.dryRun {
				if err := a.rebuild(cmd.Context(), o.yes); err != nil {
					return err
				}
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.runReplay(cmd.Context(), e, &o) })
		},
	}
	cmd.Flags().BoolVar(&o.verify, "verify", false, "compare the state roots")
	cmd.Flags().BoolVar(&o.inPlace, "in-place", false, "replace the state by the rebuilt one")
	cmd.Flags().StringVar(&o.scratch, "scratch", "", "empty directory for the rebuilt state (default in memory)")
	dryRunFlag(cmd, &o.dryRun)
	yesFlag(cmd, &o.yes)
	return cmd
}

// rebuild replaces the stored state by what the log gives.
func (a *app) rebuild(ctx context.Context, yes bool) error {
	if err := a.confirm(yes, "this removes the stored state and folds the log again."); err != nil {
		return err
	}
	return engine.Rebuild(ctx, a.flags.dir, engine.Options{Environment: a.environment()})
}

// replayView is the outcome of a replay as JSON.
type replayView struct {
	Events    uint64                `json:"events"`
	Position  uint64                `json:"position"`
	Millis    int64                 `json:"elapsed_ms"`
	Root      string                `json:"root"`
	LiveRoot  string                `json:"live_root"`
	ZoneRoots map[fcp.ZoneID]string `json:"zone_roots"`
	Identical bool                  `json:"identical"`
}

func (a *app) runReplay(ctx context.Context, e *engine.Engine, o *replayOptions) error {
	p := a.progress("replay", "positions")
	rep, err := e.Replay(ctx, engine.ReplayOptions{Scratch: o.scratch, Verify: o.verify, Progress: tellEngine(p)})
	p.done()
	if err != nil {
		return err
	}
	v := replayView{Events: rep.Events, Position: rep.Position, Millis: rep.Elapsed.Milliseconds(), Root: rep.Root.String(),
		LiveRoot: rep.LiveRoot.String(), ZoneRoots: map[fcp.ZoneID]string{}, Identical: rep.Identical}
	for z, r := range rep.ZoneRoots {
		v.ZoneRoots[z] = r.String()
	}
	word := "DIFFERENT"
	if rep.Identical {
		word = "IDENTICAL"
	}
	err = a.record("Replay", rep.Position, v, v.Root, field{"events", decimal(v.Events)}, field{"root", v.Root}, field{"live root", v.LiveRoot}, field{"state root", word})
	if err == nil {
		a.answered(rep.Position, fmt.Sprintf("%d events in %d ms", v.Events, v.Millis))
	}
	return err
}

// tellEngine passes the engine's progress on.
func tellEngine(p *progress) func(engine.Progress) {
	return func(s engine.Progress) { p.tell(s.Stage, s.Done, s.Total) }
}
