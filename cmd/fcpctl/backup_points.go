package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

// pointView is a restore point as JSON.
type pointView struct {
	Point     uint64 `json:"point"`
	Created   string `json:"created"`
	Events    uint64 `json:"events"`
	Segments  uint64 `json:"segments"`
	Bytes     uint64 `json:"bytes"`
	Writer    string `json:"writer"`
	Manifest  string `json:"manifest"`
	StateRoot string `json:"state_root"`
}

func (a *app) backupLsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls DIR|s3://BUCKET/PREFIX", Short: "List the restore points of a backup, newest first", Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := a.backupStore(args[0])
			if err != nil {
				return err
			}
			points, err := engine.RestorePoints(cmd.Context(), from, args[0])
			if err != nil {
				return a.backupError(err, args[0])
			}
			l := a.list("RestorePoint", 0, "POINT", "CREATED", "EVENTS", "SEGMENTS", "BYTES", "MANIFEST")
			for _, p := range points {
				v := pointView{p.Seq, timeText(p.Created), p.Events, p.Segments, p.Bytes, p.Writer.String(), p.Manifest.String(), p.StateRoot.String()}
				if err := l.add(v, decimal(v.Point), decimal(v.Point), v.Created, decimal(v.Events), decimal(v.Segments), decimal(v.Bytes), a.short(v.Manifest)); err != nil {
					return err
				}
			}
			return l.close()
		},
	}
}

// pruneView is the outcome of a prune as JSON.
type pruneView struct {
	Dir     string   `json:"dir"`
	Kept    []uint64 `json:"kept"`
	Dropped []uint64 `json:"dropped"`
	Files   []string `json:"files"`
	Bytes   uint64   `json:"bytes"`
	DryRun  bool     `json:"dry_run,omitempty"`
}

func (a *app) backupPruneCommand() *cobra.Command {
	var (
		keep   int
		within time.Duration
		lock   bool
		dryRun bool
		yes    bool
	)
	cmd := &cobra.Command{
		Use: "prune DIR|s3://BUCKET/PREFIX --keep N", Short: "Remove old restore points and what only they need", Args: args(1, 1),
		Long: `prune keeps the newest N restore points, and with --within those that are younger.
The newest always stays, and the manifests stay: they prove it. It needs no store.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if keep < 1 {
				return usagef("say --keep N", "how many restore points stay, at least 1")
			}
			from, err := a.backupStore(args[0])
			if err != nil {
				return err
			}
			o := engine.PruneOptions{Keep: keep, DryRun: dryRun}
			if within > 0 {
				o.Since = a.now().Add(-within)
			}
			if !dryRun {
				if err := a.confirm(yes, "this removes restore points for good."); err != nil {
					return err
				}
				if err := breakLock(cmd.Context(), from, lock); err != nil {
					return err
				}
			}
			r, err := engine.PruneBackup(cmd.Context(), from, args[0], o)
			if err != nil {
				return a.backupError(err, args[0])
			}
			v := pruneView{args[0], append([]uint64{}, r.Kept...), append([]uint64{}, r.Dropped...), append([]string{}, r.Files...), r.Bytes, dryRun}
			if dryRun {
				a.note("dry run: nothing was removed")
			}
			return a.record("Prune", 0, v, v.Dir, field{"backup", v.Dir}, field{"kept", numbers(v.Kept)}, field{"dropped", numbers(v.Dropped)},
				field{"removed", fmt.Sprintf("%d files, %d bytes", len(v.Files), v.Bytes)})
		},
	}
	cmd.Flags().IntVar(&keep, "keep", 0, "newest restore points that stay")
	cmd.Flags().DurationVar(&within, "within", 0, "points younger than this stay too (720h)")
	breakLockFlag(cmd, &lock)
	dryRunFlag(cmd, &dryRun)
	yesFlag(cmd, &yes)
	return cmd
}

func numbers(list []uint64) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = decimal(n)
	}
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}

// drillView is the outcome of a drill as JSON.
type drillView struct {
	Backup    string `json:"backup"`
	Point     uint64 `json:"point"`
	Manifest  string `json:"manifest"`
	Created   string `json:"created"`
	Events    uint64 `json:"events"`
	Segments  int    `json:"segments"`
	Bodies    uint64 `json:"bodies"`
	StateRoot string `json:"state_root"`
	Passed    bool   `json:"passed"`
	Millis    int64  `json:"elapsed_ms"`
}

func (a *app) backupDrillCommand() *cobra.Command {
	var (
		identity *identityOptions
		manifest manifestFlag
		scratch  string
	)
	cmd := &cobra.Command{
		Use: "drill DIR|s3://BUCKET/PREFIX --identity FILE", Short: "Restore a backup for practice, compare, and record how it went", Args: args(1, 1),
		Long: `drill does what a restore after a loss does, into a scratch directory: it restores,
verifies every hash and body, replays the log and compares the state roots. It
removes the scratch store and appends the result, passed or not, to the local plane
of the store --dir, where "fcpctl doctor" finds it. It asks nothing when the identity
has no passphrase or --passphrase-file is given, so that a timer can run it.`,
		Example: "  fcpctl backup drill /mnt/backup --identity ~/identity --passphrase-file /run/credentials/fcp",
		RunE: func(cmd *cobra.Command, args []string) error {
			if identity.path == "" {
				return usagef("give the identity file that `fcpctl init` wrote, with --identity FILE", "a drill needs the identity")
			}
			from, err := a.backupStore(args[0])
			if err != nil {
				return err
			}
			owner, err := a.loadOwner(identity)
			if err != nil {
				return err
			}
			defer owner.Wipe()
			return a.drill(cmd.Context(), args[0], scratch, func(dir string, p *progress) (engine.DrillResult, error) {
				return engine.Drill(cmd.Context(), from, args[0], engine.DrillOptions{Environment: a.environment(), Owner: owner, Manifest: manifest.Hash,
					Scratch: dir, Progress: tellEngine(p)})
			})
		},
	}
	identity = identityFlags(cmd, "identity file of the owner of the backup")
	cmd.Flags().Var(&manifest, "manifest", "hash the newest manifest must have")
	cmd.Flags().StringVar(&scratch, "scratch", "", "empty directory for the restored store (default a temporary one)")
	return cmd
}

// drill runs a drill and records it in the store, however it ended. Only a drill
// that was interrupted says nothing about the backup.
func (a *app) drill(ctx context.Context, where, scratch string, run func(dir string, p *progress) (engine.DrillResult, error)) error {
	dir := scratch
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "fcp-drill-"); err != nil {
			return inputError(err, "a scratch directory")
		}
		defer os.RemoveAll(dir)
	}
	p := a.progress("drill", "units")
	r, failed := run(dir, p)
	p.done()
	if errors.Is(failed, fcp.CodeInterrupted) || ctx.Err() != nil {
		return failed
	}
	asOf := uint64(0)
	err := a.withStore(ctx, writing, func(e *engine.Engine) error {
		err := e.RecordDrill(ctx, r)
		asOf = e.Log().Durable()
		return err
	})
	if failed != nil {
		return errors.Join(a.backupError(failed, where), err)
	}
	if err != nil {
		return err
	}
	v := drillView{where, r.Seq, r.Manifest.String(), timeText(r.Created), r.Events, r.Segments, r.Bodies, r.StateRoot.String(), true, r.Elapsed.Milliseconds()}
	err = a.record("Drill", asOf, v, where, field{"backup", where}, field{"point", decimal(v.Point)}, field{"created", v.Created},
		field{"events", decimal(v.Events)}, field{"bodies", decimal(v.Bodies)}, field{"state root", "IDENTICAL"}, field{"result", "passed and recorded"})
	if err == nil {
		a.answered(asOf, fmt.Sprintf("%d ms", v.Millis))
	}
	return err
}
