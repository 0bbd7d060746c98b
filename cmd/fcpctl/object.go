package main

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
	"fcp/node/api"
)

func (a *app) objectCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "object", Short: "Objects: put, get, list, history, remove, forget"}
	group(cmd)
	cmd.AddCommand(a.objectPutCommand(), a.objectGetCommand(), a.objectLsCommand(), a.objectHistoryCommand(), a.objectRmCommand(), a.objectForgetCommand(), a.objectForgottenCommand())
	return cmd
}

// versionView is one version of a name as JSON.
type versionView struct {
	Zone       fcp.ZoneID `json:"zone"`
	Key        string     `json:"key"`
	Generation uint64     `json:"generation"`
	Hash       string     `json:"hash"` // of the event; the identity of the version
	Object     string     `json:"object,omitempty"`
	Size       uint64     `json:"size"`
	Time       string     `json:"time"`
	Writer     string     `json:"writer"`
	Seq        uint64     `json:"seq"`
	Position   uint64     `json:"position"`
	Removed    bool       `json:"removed,omitempty"`
}

func viewVersion(zone fcp.ZoneID, key string, v *engine.Version) versionView {
	return versionView{Zone: zone, Key: key, Generation: v.Generation, Hash: v.Hash.String(), Object: hashText(v.Object), Size: v.Size,
		Time: timeText(v.Time.Wall()), Writer: v.Writer.String(), Seq: v.Seq, Position: v.Position, Removed: v.Tombstone}
}

// entryView is the current state of a name as JSON.
type entryView struct {
	versionView
	Siblings int           `json:"siblings,omitempty"` // other current versions
	Others   []versionView `json:"others,omitempty"`
}

func viewEntry(e *engine.Entry) entryView {
	v := entryView{versionView: viewVersion(e.Zone, e.Key, e.Head()), Siblings: e.Siblings()}
	v.Removed = e.Removed()
	for i := range e.Heads[1:] {
		v.Others = append(v.Others, viewVersion(e.Zone, e.Key, &e.Heads[1+i]))
	}
	return v
}

func (a *app) objectLsCommand() *cobra.Command {
	var (
		zone    *zoneFlag
		at      *atFlag
		after   string
		limit   int
		removed bool
	)
	cmd := &cobra.Command{
		Use: "ls [PREFIX]", Short: "List objects", Args: args(0, 1),
		Example:           "  fcpctl object ls notes/\n  fcpctl object ls --at -24h -o ndjson",
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			req := engine.ListRequest{Zone: fcp.ZoneID(*zone), Prefix: optional(args, 0), After: after, At: at.At, Limit: limit, Removed: removed}
			return a.withAny(cmd.Context(), reading, func(e api.Store) error { return a.listObjects(cmd.Context(), e, req) })
		},
	}
	zone, at = zoneOption(cmd), a.atOption(cmd)
	cmd.Flags().StringVar(&after, "after", "", "only names behind this one")
	cmd.Flags().IntVar(&limit, "limit", 0, "at most this many; 0 is all")
	cmd.Flags().BoolVar(&removed, "removed", false, "removed names too")
	return cmd
}

func (a *app) listObjects(ctx context.Context, e api.Store, req engine.ListRequest) error {
	asOf, err := e.PositionAt(req.At)
	if err != nil {
		return err
	}
	l := a.list("Object", asOf, "GENERATION", "SIZE", "TIME", "VERSION", "STATE", "KEY")
	err = e.List(ctx, req, func(entry *engine.Entry) error {
		v := viewEntry(entry)
		return l.add(v, v.Key, decimal(v.Generation), decimal(v.Size), v.Time, a.short(v.Hash), stateOf(&v), v.Key)
	})
	if err != nil {
		return err
	}
	return l.end(asOf)
}

func stateOf(v *entryView) string {
	switch {
	case v.Removed:
		return "removed"
	case v.Siblings > 0:
		return "conflict"
	}
	return "current"
}

func (a *app) objectHistoryCommand() *cobra.Command {
	var (
		zone *zoneFlag
		at   *atFlag
	)
	cmd := &cobra.Command{
		Use: "history KEY", Short: "All versions of an object, newest first", Args: args(1, 1),
		ValidArgsFunction: a.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAny(cmd.Context(), reading, func(e api.Store) error {
				return a.printHistory(cmd.Context(), e, fcp.ZoneID(*zone), args[0], at.At)
			})
		},
	}
	zone, at = zoneOption(cmd), a.atOption(cmd)
	return cmd
}

// historyView is one version in the history of a name as JSON.
type historyView struct {
	versionView
	Since uint64 `json:"since"`           // current from this position on
	Until uint64 `json:"until,omitempty"` // to this one; 0: still
}

func (a *app) printHistory(ctx context.Context, e api.Store, zone fcp.ZoneID, key string, at engine.At) error {
	asOf, err := e.PositionAt(at)
	if err != nil {
		return err
	}
	l := a.list("Version", asOf, "GENERATION", "SIZE", "TIME", "VERSION", "SINCE", "STATE")
	err = e.History(ctx, zone, key, func(entry *engine.Entry) error {
		if entry.Since > asOf {
			return nil // later than the time asked for
		}
		if entry.Until >= asOf {
			entry.Until = 0
		}
		for i := range entry.Heads {
			v := historyView{viewVersion(zone, key, &entry.Heads[i]), entry.Since, entry.Until}
			state := "past"
			switch {
			case v.Removed:
				state = "removed"
			case entry.Until == 0 && len(entry.Heads) > 1:
				state = "conflict"
			case entry.Until == 0:
				state = "current"
			}
			if err := l.add(v, v.Hash, decimal(v.Generation), decimal(v.Size), v.Time, a.short(v.Hash), decimal(v.Since), state); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && l.count == 0 {
		err = fcp.Errorf(fcp.CodeNotFound, "no version of %q in %s", key, zone)
	}
	if err != nil {
		return a.notFound(err, key)
	}
	return l.end(asOf)
}

// notFound gives a missing name the command that lists its neighbours.
func (a *app) notFound(err error, key string) error {
	next := "list what is here with `" + a.command("object", "ls") + "`"
	if e := (*fcp.Error)(nil); errors.As(err, &e) && strings.Contains(e.Next, historyOfKey) {
		next = strings.ReplaceAll(e.Next, historyOfKey, "`"+a.command("object", "history", key)+"`")
	}
	return advise(err, fcp.CodeNotFound, next)
}

// historyOfKey is how the engine, which does not know what it was called by, names
// the command.
const historyOfKey = "`fcpctl object history KEY`"

// completeKeys offers the names that begin with what was typed.
func (a *app) completeKeys(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	const most = 200
	if err := a.bindEnvironment(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	zone := engine.DefaultZone
	if f := cmd.Flags().Lookup("zone"); f != nil {
		zone = fcp.ZoneID(f.Value.String())
	}
	a.flags.quiet = true
	var out []string
	err := a.withAny(cmd.Context(), reading, func(e api.Store) error {
		return e.List(cmd.Context(), engine.ListRequest{Zone: zone, Prefix: typed, Limit: most}, func(entry *engine.Entry) error {
			if printable(entry.Key) == entry.Key {
				out = append(out, entry.Key)
			}
			return nil
		})
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func optional(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

// collectOften makes the garbage collector begin at a fifth of its usual growth, for a process that
// moves one object: what is live are buffers without pointers, so a collection costs little, and the
// room for garbage would be a third of what a large object takes. A lower GOGC, or none, stays as it is.
func collectOften() {
	const percent = 20
	if before := debug.SetGCPercent(percent); before < percent {
		debug.SetGCPercent(before)
	}
}
