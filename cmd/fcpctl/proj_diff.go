package main

import (
	"context"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

func (a *app) projDiffCommand() *cobra.Command {
	var (
		zone       = zoneFlag(engine.DefaultZone)
		projection string
		prefix     string
	)
	cmd := &cobra.Command{
		Use: "diff FROM [TO]", Short: "What changed between two positions or times", Args: args(1, 2),
		Long: `diff compares the entries of a projection, which is names when --projection names
none, as they were at FROM and at TO. Both are a position, a time or an age as with
--at; without TO it is now. Names are answered from their history; other projections
are folded from the beginning of the log.`,
		Example: "  fcpctl proj diff 1200\n  fcpctl proj diff -24h --prefix notes/\n  fcpctl proj diff 1 100 --projection devices --zone z:owner -o ndjson",
		RunE: func(cmd *cobra.Command, args []string) error {
			q := engine.DiffRequest{Projection: projection, Zone: fcp.ZoneID(zone), Prefix: prefix}
			var err error
			if q.From, err = parseAt(args[0], a.now); err == nil && len(args) > 1 {
				q.To, err = parseAt(args[1], a.now)
			}
			if err != nil {
				return usagef("see `"+cmd.CommandPath()+" --help`", "%v", err)
			}
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.diffProjection(cmd.Context(), e, q) })
		},
	}
	cmd.Flags().Var(&zone, "zone", "zone to compare")
	_ = cmd.RegisterFlagCompletionFunc("zone", completeZones)
	cmd.Flags().StringVar(&projection, "projection", "names", "projection to compare")
	_ = cmd.RegisterFlagCompletionFunc("projection", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.completeProjections(cmd, nil, typed)
	})
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with this")
	return cmd
}

func (a *app) diffProjection(ctx context.Context, e *engine.Engine, q engine.DiffRequest) error {
	asOf, err := e.PositionAt(q.To)
	if err != nil {
		return err
	}
	l := a.list("Diff", asOf, "CHANGE", "ZONE", "KEY", "BEFORE", "AFTER")
	err = e.Diff(ctx, q, func(r *engine.DiffRow) error {
		before, err := fieldsText(r.Before)
		if err != nil {
			return err
		}
		after, err := fieldsText(r.After)
		if err != nil {
			return err
		}
		return l.add(r, r.Key, string(r.Change), r.Zone.String(), r.Key, before, after)
	})
	if err != nil {
		return advise(err, fcp.CodeNotFound, "list the projections with `"+a.command("proj", "ls")+"`")
	}
	return l.end(asOf)
}
