package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/node/api"
)

func (a *app) projCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "proj", Short: "Projections: the state folded from the log"}
	group(cmd)
	cmd.AddCommand(a.projLsCommand(), a.projQueryCommand(), a.projDiffCommand())
	return cmd
}

func (a *app) projLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List projections", Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
				l := a.list("Projection", e.Position(), "NAME", "VERSION", "SCOPE", "STATE")
				for _, p := range e.Projections() {
					scope, state := "shared", "ready"
					if p.Local {
						scope = "local"
					}
					if p.Building {
						state = "building"
					}
					if err := l.add(p, p.Name, p.Name, decimal(uint64(p.Version)), scope, state); err != nil {
						return err
					}
				}
				return l.end(e.Position())
			})
		},
	}
}

func (a *app) projQueryCommand() *cobra.Command {
	var (
		zone *zoneFlag
		at   *atFlag
	)
	cmd := &cobra.Command{
		Use: "query NAME [PREFIX]", Short: "Print the entries of a projection", Args: args(1, 2),
		Example:           "  fcpctl proj query names notes/\n  fcpctl proj query devices --zone z:owner -o json",
		ValidArgsFunction: a.completeProjections,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAny(cmd.Context(), reading, func(e api.Store) error {
				return a.queryProjection(cmd.Context(), e, args[0], fcp.ZoneID(*zone), optional(args, 1), at.At)
			})
		},
	}
	zone, at = zoneOption(cmd), a.atOption(cmd)
	return cmd
}

func (a *app) queryProjection(ctx context.Context, e api.Store, name string, zone fcp.ZoneID, prefix string, at engine.At) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	l := a.list("Row", asOf, "ZONE", "KEY", "FIELDS")
	err = e.QueryProjection(ctx, name, zone, []byte(prefix), at, func(r *engine.Row) error {
		text, err := fieldsText(r.Fields)
		if err != nil {
			return err
		}
		return l.add(r, r.Key, r.Zone.String(), r.Key, text)
	})
	if err != nil {
		return advise(err, fcp.CodeNotFound, "list the projections with `"+a.command("proj", "ls")+"`")
	}
	return l.end(asOf)
}

// fieldsText is "name=value ..." in order of the names.
func fieldsText(fields map[string]any) (string, error) {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		text, ok := fields[name].(string)
		if !ok {
			b, err := marshalJSON(fields[name])
			if err != nil {
				return "", err
			}
			text = string(b)
		}
		names[i] = name + "=" + text
	}
	return strings.Join(names, " "), nil
}

func (a *app) completeProjections(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 || a.bindEnvironment(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a.flags.quiet, a.guessing = true, true
	_ = a.withStore(cmd.Context(), reading, func(e *engine.Engine) error {
		for _, p := range e.Projections() {
			out = append(out, p.Name)
		}
		return nil
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}
