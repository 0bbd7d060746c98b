package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fcp/cmd/internal/daemon"
	"fcp/node/api"
)

// someDaemon returns a client of the first node of this machine that runs, or of the
// one that --node names.
func (a *app) someDaemon() (*api.Client, error) {
	nodes, err := a.running()
	if err != nil {
		return nil, err
	}
	return api.NewClient(daemon.SocketIn(nodes[0].Dir)), nil
}

func (a *app) repairCommand() *cobra.Command {
	var now, rebalance, dryRun bool
	cmd := &cobra.Command{
		Use: "repair", Short: "Make symbols again that were lost with a device", Args: args(0, 0),
		Long: `repair has a node look at every segment and mint new symbols, with numbers that no
device has, for those that have fewer than the policy asks. Nodes do this by themselves
once a device was away for longer than its grace (server 10 minutes, laptop 3 days,
phone 7 days, see ` + "`device set --class`" + `) or was declared lost.

Without --now the node does what is due and falls to it; often that is nothing. With
--now devices that are away count as lost, and the node that is asked does it all.
With --rebalance it also moves shares to where they would be placed today (a device
came, ` + "`zone placement`" + ` changed), and drops its own that nothing asks for any more once
the others proved that they hold theirs; nodes do that every ten minutes.
Exit code 11 when a segment could not be repaired.`,
		Example: "  fcpctl repair --now --dry-run\n  fcpctl repair --now",
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.someDaemon()
			if err != nil {
				return err
			}
			steps, err := c.Repair(cmd.Context(), now, rebalance, dryRun)
			if err != nil {
				return err
			}
			return a.printRepair(steps, dryRun)
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "do not wait for the grace of devices that are away")
	cmd.Flags().BoolVar(&rebalance, "rebalance", false, "also move shares to where they would be placed today")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) printRepair(steps []api.RepairStep, dryRun bool) error {
	l := a.list("Repair", 0, "SEGMENT", "ZONE", "BY", "FETCHES", "MINTS", "FOR", "BYTES", "STATE")
	failed, moved, lost := 0, uint64(0), uint64(0)
	for i := range steps {
		s := &steps[i]
		var mints, to []string
		for _, sh := range s.Shares {
			mints = append(mints, fmt.Sprintf("%d-%d", sh.First, int(sh.First)+sh.Count-1))
			to = append(to, sh.Device)
		}
		state := "planned"
		switch {
		case len(s.Dropped) > 0:
			state = fmt.Sprintf("dropped %d-%d", s.Dropped[0].First, int(s.Dropped[0].First)+s.Dropped[0].Count-1)
		case s.Problem != nil:
			state = s.Problem.Message
			failed++
		case s.Done:
			state = "done"
			moved += s.Bytes
			lost += s.Lost
		}
		err := l.add(s, s.Segment, a.short(s.Segment), string(s.Zone), s.By, decimal(uint64(s.Gather)), strings.Join(mints, ","), strings.Join(to, ","), decimal(s.Bytes), state)
		if err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	switch {
	case len(steps) == 0:
		a.note("nothing is to be repaired")
	case dryRun:
		a.note("%d segments would be repaired", len(steps))
	default:
		a.note("%d segments repaired, %d bytes moved for %d that were lost", len(steps)-failed, moved, lost)
	}
	if failed > 0 {
		return &exitError{errWarnings, exitFindings}
	}
	return nil
}

func (a *app) nodeHealthCommand() *cobra.Command {
	var table bool
	cmd := &cobra.Command{
		Use: "health", Short: "How well everything is placed, why not better, and what to do", Args: args(0, 0),
		Long: `health gives a score from 0 (something is lost) to 100, with its reasons and what to do
about each, and the durability table: how likely a segment is lost within a year, to
devices that fail independently (one in ten a year, repaired within a week) and to each
failure domain (` + "`device set --site`" + `; one in five hundred a year), which usually
decides. --table prints that table alone.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if table {
				return a.durability(cmd.Context())
			}
			return a.health(cmd.Context(), nil)
		},
	}
	cmd.Flags().BoolVar(&table, "table", false, "print the durability table, a row for each failure domain")
	return cmd
}

// durability prints the durability table.
func (a *app) durability(ctx context.Context) error {
	c, err := a.someDaemon()
	if err != nil {
		return err
	}
	h, err := c.Health(ctx, nil)
	if err != nil {
		return err
	}
	l := a.list("Durability", 0, "CAUSE", "DEVICES", "UNREADABLE AFTER", "LOSS PER YEAR")
	for _, d := range h.Durability {
		if err := l.add(d, d.Cause, d.Cause, decimal(uint64(d.Devices)), fmt.Sprintf("%d of %d segments", d.Unusable, h.Segments), fmt.Sprintf("%.2g", d.Yearly)); err != nil {
			return err
		}
	}
	return l.close()
}

func (a *app) nodeWhatIfCommand() *cobra.Command {
	var lose []string
	cmd := &cobra.Command{
		Use: "whatif --lose NAME[,NAME]", Short: "What would be left without some devices", Args: args(0, 0),
		Long:    "whatif says, before the flight, what the other devices could still rebuild. Exit code 11\nwhen something would be unreadable.",
		Example: "  fcpctl node whatif --lose nas,phone",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(lose) == 0 {
				return usagef("see `"+cmd.CommandPath()+" --help`", "--lose names the devices")
			}
			return a.health(cmd.Context(), lose)
		},
	}
	cmd.Flags().StringSliceVar(&lose, "lose", nil, "devices, by name or id")
	return cmd
}

func (a *app) health(ctx context.Context, lose []string) error {
	c, err := a.someDaemon()
	if err != nil {
		return err
	}
	ids := slices.Clone(lose)
	for i := range ids {
		if ids[i], err = a.writerOf(ctx, ids[i]); err != nil {
			return err
		}
	}
	h, err := c.Health(ctx, ids)
	if err != nil {
		return err
	}
	if h.WhatIf != nil {
		for i := range h.WhatIf.Lost {
			if ids[i] != lose[i] {
				h.WhatIf.Lost[i] = lose[i] // what it was asked by: the device may be called otherwise
			}
		}
		return a.printWhatIf(h.WhatIf)
	}
	fields := []field{{"score", decimal(uint64(h.Score)) + " of 100"}, {"coverage", fmt.Sprintf("%.2fx of %d segments", float64(h.Coverage)/10000, h.Segments)},
		{"may lose", devicesText(h.MayLose)}}
	for _, w := range h.Weak {
		fields = append(fields, field{"weak link", fmt.Sprintf("%s: %d segments depend on it alone", w.Device, w.Segments)})
	}
	for _, w := range h.Suspects {
		fields = append(fields, field{"suspect", fmt.Sprintf("%s: claims symbols of %d segments that it does not have", w.Device, w.Segments)})
	}
	fields = append(fields, field{"control", fmt.Sprintf("%.2fx: every control and audit event is on %d devices", float64(h.Control), h.Control)})
	for i := range h.Reasons {
		fields = append(fields, field{"because", h.Reasons[i]}, field{"next", h.Advice[i]})
	}
	for _, d := range h.Durability {
		fields = append(fields, field{"loss per year", fmt.Sprintf("%.2g by %s (%d hold shares, %d segments unreadable after it)", d.Yearly, d.Cause, d.Devices, d.Unusable)})
	}
	return a.record("Health", 0, h, decimal(uint64(h.Score)), fields...)
}

// writerOf turns the name of a node of this machine into the id of its device, whose
// name may be another; other names stay as they are.
func (a *app) writerOf(ctx context.Context, name string) (string, error) {
	nodes, err := a.listNodes(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		if n.Name == name && n.Writer != "" {
			return n.Writer, nil
		}
	}
	return name, nil
}

func devicesText(n int) string {
	switch {
	case n < 0:
		return "nothing more: something is lost"
	case n == 0:
		return "no device"
	case n == 1:
		return "any 1 device"
	}
	return fmt.Sprintf("any %d devices", n)
}

func (a *app) printWhatIf(w *api.WhatIf) error {
	all := w.Readable + w.Unreadable
	fields := []field{{"without", strings.Join(w.Lost, ", ")}, {"readable", fmt.Sprintf("%d of %d segments", w.Readable, all)}}
	if all == 0 {
		fields[1].value = "no segment is spread yet"
	} else {
		fields = append(fields, field{"coverage", fmt.Sprintf("%.2fx, of the worst segment", float64(w.Coverage)/10000)}, field{"may lose", devicesText(w.MayLose)})
	}
	err := a.record("WhatIf", 0, w, strings.Join(w.Lost, ","), fields...)
	if err != nil || w.Unreadable == 0 {
		return err
	}
	a.note("without %s, %d segments could not be read; give other devices shares of them with `%s`", strings.Join(w.Lost, " and "), w.Unreadable, a.command("repair"))
	return &exitError{errWarnings, exitFindings}
}
