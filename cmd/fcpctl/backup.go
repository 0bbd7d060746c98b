package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

func (a *app) backupCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "backup", Short: "Backups: create, verify"}
	group(cmd)
	cmd.AddCommand(a.backupCreateCommand(), a.backupVerifyCommand())
	return cmd
}

// backupView is the outcome of a backup as JSON.
type backupView struct {
	Dir         string `json:"dir"`
	Seq         uint64 `json:"seq"`
	Manifest    string `json:"manifest"`
	Position    uint64 `json:"position"`
	StateRoot   string `json:"state_root"`
	Events      uint64 `json:"events"`
	Segments    int    `json:"segments"`
	NewSegments int    `json:"new_segments"`
	Bytes       uint64 `json:"bytes"`
	Files       int    `json:"files"`
	Written     uint64 `json:"written"`
	Removed     int    `json:"removed"`
	Millis      int64  `json:"elapsed_ms"`
}

func (a *app) backupCreateCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use: "create DIR", Short: "Write a backup into a directory, or add to the one there", Args: args(1, 1),
		Long: `create seals what is open and copies what the directory does not have yet. The
directory holds ciphertext only; the identity file opens it. Running it again adds
what is new.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if dryRun { // the events a backup writes are those of the seal before it
				return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.planSeal(cmd.Context(), e) })
			}
			return a.withStore(cmd.Context(), writing, func(e *engine.Engine) error { return a.createBackup(cmd.Context(), e, args[0]) })
		},
	}
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) createBackup(ctx context.Context, e *engine.Engine, dir string) error {
	p := a.progress("backup", "bytes")
	r, err := e.Backup(ctx, dir, engine.BackupOptions{Progress: tellEngine(p)})
	p.done()
	if err != nil {
		return err
	}
	v := backupView{dir, r.Seq, r.Manifest.String(), r.Position, r.StateRoot.String(), r.Events, r.Segments, r.NewSegments, r.Bytes, r.Files, r.Written, r.Removed, r.Elapsed.Milliseconds()}
	err = a.record("Backup", r.Position, v, dir, field{"backup", dir}, field{"manifest", v.Manifest}, field{"number", decimal(v.Seq)},
		field{"events", decimal(v.Events)}, field{"segments", fmt.Sprintf("%d, %d new", v.Segments, v.NewSegments)},
		field{"written", fmt.Sprintf("%d files, %d bytes", v.Files, v.Written)}, field{"state root", v.StateRoot},
		field{"next", a.command("backup", "verify", dir)})
	if err == nil {
		a.answered(r.Position, fmt.Sprintf("%d ms", v.Millis))
	}
	return err
}

// manifestFlag is the hash of the newest manifest, if one is expected.
type manifestFlag struct{ fcp.Hash }

func (v *manifestFlag) Type() string   { return "HASH" }
func (v *manifestFlag) String() string { return hashText(v.Hash) }

func (v *manifestFlag) Set(s string) (err error) {
	if v.Hash, err = fcp.ParseHash(s); err != nil {
		return fmt.Errorf("not the hash that `fcpctl backup create` printed")
	}
	return nil
}

// backupReportView is what was checked, as JSON.
type backupReportView struct {
	Dir       string              `json:"dir"`
	Owner     string              `json:"owner"`
	Writer    string              `json:"writer"`
	Created   string              `json:"created"`
	Seq       uint64              `json:"seq"`
	Manifest  string              `json:"manifest"`
	Files     int                 `json:"files"`
	Bytes     uint64              `json:"bytes"`
	Segments  int                 `json:"segments"`
	Decrypted bool                `json:"decrypted"`
	Events    uint64              `json:"events,omitempty"`
	Bodies    uint64              `json:"bodies,omitempty"`
	StateRoot string              `json:"state_root,omitempty"`
	Checked   []string            `json:"checked"`
	Findings  []backupFindingView `json:"findings"`
	Millis    int64               `json:"elapsed_ms"`
}

type backupFindingView struct {
	Code string `json:"code"`
	File string `json:"file,omitempty"`
	What string `json:"what"`
}

func (a *app) backupVerifyCommand() *cobra.Command {
	var (
		identity *identityOptions
		manifest manifestFlag
	)
	cmd := &cobra.Command{
		Use: "verify DIR", Short: "Check a backup, without a key or with the identity", Args: args(1, 1),
		Long: `verify reads every byte of a backup and checks hashes, signatures and the list of
its manifest; it needs neither a store nor a key. With --identity it also decrypts
everything, rebuilds the state in memory and compares the state root. With
--manifest HASH it makes sure that the newest manifest is that one.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := engine.VerifyBackupOptions{Environment: a.environment(), Manifest: manifest.Hash}
			if identity.path != "" {
				owner, err := a.loadOwner(identity)
				if err != nil {
					return err
				}
				defer owner.Wipe()
				o.Owner = owner
			}
			p := a.progress("backup verify", "bytes")
			o.Progress = tellEngine(p)
			r, err := engine.VerifyBackup(cmd.Context(), args[0], o)
			p.done()
			if err != nil {
				return a.backupError(err, args[0])
			}
			return a.printBackupReport(&r)
		},
	}
	identity = identityFlags(cmd, "identity file: also decrypt and rebuild")
	cmd.Flags().Var(&manifest, "manifest", "hash the newest manifest must have")
	return cmd
}

func (a *app) backupError(err error, dir string) error {
	return advise(err, fcp.CodeNotFound, fmt.Sprintf("name a directory that `fcpctl backup create` wrote; %s has no backup", quote(dir)))
}

func (a *app) printBackupReport(r *engine.BackupReport) error {
	v := backupReportView{Dir: r.Dir, Owner: fcp.KidOf(r.Owner[:]).String(), Writer: r.Writer.String(), Created: timeOrNone(r.Created), Seq: r.Seq,
		Manifest: hashText(r.Manifest), Files: r.Files, Bytes: r.Bytes, Segments: r.Segments, Decrypted: r.Decrypted, Events: r.Events,
		Bodies: r.Bodies, StateRoot: hashText(r.StateRoot), Checked: r.Checked(), Findings: []backupFindingView{}, Millis: r.Elapsed.Milliseconds()}
	fields := []field{{"backup", v.Dir}, {"owner", v.Owner}, {"created", v.Created}, {"manifest", v.Manifest}}
	for _, line := range v.Checked {
		fields = append(fields, field{"checked", line})
	}
	var codes []fcp.Code
	for _, f := range r.Findings {
		v.Findings = append(v.Findings, backupFindingView{f.Code.String(), f.File, f.What})
		fields = append(fields, field{"finding", fmt.Sprintf("%s: %s: %s", f.Code, f.File, f.What)})
		codes = append(codes, f.Code)
	}
	if !v.Decrypted && len(codes) == 0 {
		fields = append(fields, field{"not checked", "what is inside; that needs --identity FILE"})
	}
	fields = append(fields, field{"result", resultText(len(codes))})
	if err := a.record("BackupReport", 0, v, resultText(len(codes)), fields...); err != nil {
		return err
	}
	return findings(codes, "use another copy of the backup, or write a new one with `"+a.command("backup", "create", "DIR")+"`")
}

func timeOrNone(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return timeText(t)
}

// restoreView is the outcome of a restore as JSON.
type restoreView struct {
	Dir       string `json:"dir"`
	Owner     string `json:"owner"`
	Writer    string `json:"writer"`
	From      string `json:"from"`
	Created   string `json:"created"`
	Seq       uint64 `json:"seq"`
	Manifest  string `json:"manifest"`
	Segments  int    `json:"segments"`
	Events    uint64 `json:"events"`
	Appended  int    `json:"appended"`
	StateRoot string `json:"state_root"`
	Identical bool   `json:"identical"`
	Millis    int64  `json:"elapsed_ms"`
}

func (a *app) restoreCommand() *cobra.Command {
	var (
		identity *identityOptions
		manifest manifestFlag
		device   string
		dryRun   bool
	)
	cmd := &cobra.Command{
		Use: "restore DIR", Short: "Make a store from a backup, in a new directory", Args: args(1, 1),
		Long: `restore makes the store --dir, which must be new or empty, from the backup DIR. It
replays everything and compares the state root with the one in the backup. The new
store is a new node of the same owner.`,
		Example: "  fcpctl --dir ~/new restore /mnt/backup --identity ~/identity",
		RunE: func(cmd *cobra.Command, args []string) error {
			if identity.path == "" {
				return usagef("give the identity file that `fcpctl init` wrote, with --identity FILE", "a restore needs the identity")
			}
			owner, err := a.loadOwner(identity)
			if err != nil {
				return err
			}
			defer owner.Wipe()
			p := a.progress("restore", "bytes")
			if dryRun {
				r, err := engine.VerifyBackup(cmd.Context(), args[0], engine.VerifyBackupOptions{Environment: a.environment(), Owner: owner, Manifest: manifest.Hash, Progress: tellEngine(p)})
				p.done()
				if err != nil {
					return a.backupError(err, args[0])
				}
				a.note("dry run: the backup was read and replayed in memory; nothing was written")
				return a.printBackupReport(&r)
			}
			r, err := engine.Restore(cmd.Context(), args[0], a.flags.dir, engine.RestoreOptions{Environment: a.environment(), Owner: owner, Device: device, Manifest: manifest.Hash, Progress: tellEngine(p)})
			p.done()
			if err != nil {
				return a.backupError(err, args[0])
			}
			return a.printRestore(cmd.Context(), &r)
		},
	}
	identity = identityFlags(cmd, "identity file of the owner of the backup")
	cmd.Flags().Var(&manifest, "manifest", "hash the newest manifest must have")
	cmd.Flags().StringVar(&device, "device", "", "name of the new node (default \"restored\")")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) printRestore(_ context.Context, r *engine.RestoreResult) error {
	v := restoreView{r.Dir, fcp.KidOf(r.Owner[:]).String(), r.Writer.String(), r.From.String(), timeOrNone(r.Created), r.Seq, r.Manifest.String(), r.Segments,
		r.Events, r.Appended, r.StateRoot.String(), r.Identical, r.Elapsed.Milliseconds()}
	word := "DIFFERENT"
	if v.Identical {
		word = "IDENTICAL"
	}
	asOf := r.Events + uint64(r.Appended)
	err := a.record("Restore", asOf, v, v.Dir, field{"store", v.Dir}, field{"backup of", v.Created}, field{"events", decimal(v.Events)},
		field{"segments", strconv.Itoa(v.Segments)}, field{"root", v.StateRoot}, field{"state root", word}, field{"next", a.command("replay", "--verify")})
	if err == nil {
		a.answered(asOf, fmt.Sprintf("%d ms", v.Millis))
	}
	return err
}
