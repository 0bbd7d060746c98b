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
	cmd := &cobra.Command{Use: "backup", Short: "Backups: create, verify, ls, prune, drill"}
	group(cmd)
	cmd.AddCommand(a.backupCreateCommand(), a.backupVerifyCommand(), a.backupLsCommand(), a.backupPruneCommand(), a.backupDrillCommand())
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
	Points      int    `json:"points"`
	Mended      int    `json:"mended"`
	Millis      int64  `json:"elapsed_ms"`
}

type backupCreateOptions struct {
	keep      int
	trust     string
	breakLock bool
	dryRun    bool
}

func (a *app) backupCreateCommand() *cobra.Command {
	var o backupCreateOptions
	cmd := &cobra.Command{
		Use: "create DIR|s3://BUCKET/PREFIX", Short: "Write a backup into a directory or bucket, or add to the one there", Args: args(1, 1),
		Long: `create seals what is open and copies what is not there yet. The backup holds
ciphertext only; the identity file opens it. Running it again adds what is new.

What is there already is read again and written anew where it rotted: in a
directory always, in a bucket, which every byte is downloaded from, with
--trust never. --keep N keeps the newest N restore points; a kept point also keeps
the keys of objects that were forgotten since.

A bucket must exist. Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or
the AWS credentials file; another server than Amazon's is named behind the address:
s3://BUCKET/PREFIX?endpoint=https://HOST&region=NAME.`,
		Example: "  fcpctl backup create /mnt/backup --keep 7\n  fcpctl backup create 's3://mine/fcp?endpoint=https://s3.example.org'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.keep < 1 {
				return usagef("", "--keep is at least 1")
			}
			if o.trust != "always" && o.trust != "never" && o.trust != "auto" {
				return usagef("say --trust always, never or auto", "--trust %q", o.trust)
			}
			if err := outside(a.flags.dir, args[0]); err != nil {
				return err
			}
			if o.dryRun { // the events a backup writes are those of the seal before it
				return a.withStore(cmd.Context(), reading, func(e *engine.Engine) error { return a.planSeal(cmd.Context(), e) })
			}
			return a.withStore(cmd.Context(), writing, func(e *engine.Engine) error { return a.createBackup(cmd.Context(), e, args[0], &o) })
		},
	}
	cmd.Flags().IntVar(&o.keep, "keep", 1, "restore points that stay, this one included")
	cmd.Flags().StringVar(&o.trust, "trust", "auto", "always, never, or auto (a bucket's files): do not read again what is there")
	breakLockFlag(cmd, &o.breakLock)
	dryRunFlag(cmd, &o.dryRun)
	_ = cmd.RegisterFlagCompletionFunc("trust", cobra.FixedCompletions([]string{"auto", "always", "never"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) createBackup(ctx context.Context, e *engine.Engine, where string, o *backupCreateOptions) error {
	to, err := a.backupStore(where)
	if err == nil {
		err = breakLock(ctx, to, o.breakLock)
	}
	if err != nil {
		return err
	}
	p := a.progress("backup", inBytes)
	r, err := e.BackupTo(ctx, to, where, engine.BackupOptions{Progress: tellEngine(p), Keep: o.keep,
		Trust: o.trust == "always" || o.trust == "auto" && isRemote(where)})
	p.done()
	if err != nil {
		return err
	}
	v := backupView{where, r.Seq, r.Manifest.String(), r.Position, r.StateRoot.String(), r.Events, r.Segments, r.NewSegments, r.Bytes, r.Files, r.Written,
		r.Removed, r.Points, r.Mended, r.Elapsed.Milliseconds()}
	fields := []field{{"backup", where}, {"manifest", v.Manifest}, {"number", decimal(v.Seq)},
		{"events", decimal(v.Events)}, {"segments", fmt.Sprintf("%d, %d new", v.Segments, v.NewSegments)},
		{"written", fmt.Sprintf("%d files, %d bytes", v.Files, v.Written)}}
	if v.Mended > 0 {
		fields = append(fields, field{"mended", fmt.Sprintf("%d files that had rotted in the backup", v.Mended)})
	}
	fields = append(fields, field{"state root", v.StateRoot}, field{"next", a.command("backup", "verify", where)})
	err = a.record("Backup", r.Position, v, where, fields...)
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
	Leftover  []string            `json:"leftover,omitempty"` // a backup's own files that no restore point lists
	Strange   []string            `json:"strange,omitempty"`  // files that are not a backup's
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
		Use: "verify DIR|s3://BUCKET/PREFIX", Short: "Check a backup, without a key or with the identity", Args: args(1, 1),
		Long: `verify reads every byte of a backup and checks hashes, signatures and the list of
its manifest; it needs neither a store nor a key. Files that are no backup's are named
and do no harm; those that an interrupted backup left are exit code 11. With --identity it also decrypts
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
			from, err := a.backupStore(args[0])
			if err != nil {
				return err
			}
			p := a.progress("backup verify", inBytes)
			o.Progress = tellEngine(p)
			r, err := engine.VerifyBackupIn(cmd.Context(), from, args[0], o)
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
	for _, f := range r.Unlisted {
		if f.Own {
			v.Leftover = append(v.Leftover, f.File)
			fields = append(fields, field{"left over", f.File + ": no restore point lists it"})
		} else {
			v.Strange = append(v.Strange, f.File)
			fields = append(fields, field{"note", f.File + ": not a file of the backup; it does no harm"})
		}
	}
	if !v.Decrypted && len(codes) == 0 {
		fields = append(fields, field{"not checked", "what is inside; that needs --identity FILE"})
	}
	fields = append(fields, field{"result", resultText(len(codes))})
	if err := a.record("BackupReport", 0, v, resultText(len(codes)), fields...); err != nil {
		return err
	}
	if len(codes) == 0 && len(v.Leftover) > 0 {
		return &exitError{fcp.Errorf(fcp.CodeManifest, "what the restore points list is whole, and %d more files of a backup are there", len(v.Leftover)).
			WithNext("after an interrupted backup `" + a.command("backup", "create", r.Dir) + "` takes them in or removes them; if none was, see that nobody removed a newer one: --manifest HASH"), exitFindings}
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

	SetBack int      `json:"set_back,omitempty"`
	Gone    []string `json:"gone,omitempty"`
}

func (a *app) restoreCommand() *cobra.Command {
	var (
		identity *identityOptions
		manifest manifestFlag
		device   string
		point    uint64
		at       *atFlag
		dryRun   bool
	)
	cmd := &cobra.Command{
		Use: "restore DIR|s3://BUCKET/PREFIX", Short: "Make a store from a backup, in a new directory", Args: args(1, 1),
		Long: `restore makes the store --dir, which must be new or empty, from the backup DIR. It
replays everything and compares the state root with the one in the backup. The new
store is a new node of the same owner.

--point N takes an older restore point than the newest ("fcpctl backup ls"). --at TIME
takes everything in and then gives each name the version it had at that time, by new
versions and tombstones: what was revoked since stays revoked, and the history stays.`,
		Example: "  fcpctl --dir ~/new restore /mnt/backup --identity ~/identity",
		RunE: func(cmd *cobra.Command, args []string) error {
			if identity.path == "" {
				return usagef("give the identity file that `fcpctl init` wrote, with --identity FILE", "a restore needs the identity")
			}
			if at.Position != 0 {
				return usagef("give a time: 2026-01-31T15:04:05Z, 2026-01-31 or -90m", "a restore does not keep positions")
			}
			if dryRun && (point > 0 || !at.IsNow()) {
				return usagef("leave --point and --at out", "--dry-run reads the newest restore point")
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
			p := a.progress("restore", inBytes)
			if dryRun {
				r, err := engine.VerifyBackupIn(cmd.Context(), from, args[0], engine.VerifyBackupOptions{Environment: a.environment(), Owner: owner, Manifest: manifest.Hash, Progress: tellEngine(p)})
				p.done()
				if err != nil {
					return a.backupError(err, args[0])
				}
				a.note("dry run: the backup was read and replayed in memory; nothing was written")
				return a.printBackupReport(&r)
			}
			r, err := engine.RestoreFrom(cmd.Context(), from, args[0], a.flags.dir, engine.RestoreOptions{Environment: a.environment(), Owner: owner, Device: device,
				Manifest: manifest.Hash, Seq: point, At: at.Time, Progress: tellEngine(p)})
			p.done()
			if err != nil {
				return a.backupError(err, args[0])
			}
			return a.printRestore(cmd.Context(), &r)
		},
	}
	identity = identityFlags(cmd, "identity file of the owner of the backup")
	cmd.Flags().Var(&manifest, "manifest", "hash the newest manifest must have")
	cmd.Flags().Uint64Var(&point, "point", 0, "number of the restore point (default the newest)")
	at = &atFlag{now: a.now}
	cmd.Flags().Var(at, "at", "then set every name back to this time or age (2026-01-31T15:04:05Z, -90m)")
	cmd.Flags().StringVar(&device, "device", "", "name of the new node (default \"restored\")")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) printRestore(_ context.Context, r *engine.RestoreResult) error {
	v := restoreView{r.Dir, fcp.KidOf(r.Owner[:]).String(), r.Writer.String(), r.From.String(), timeOrNone(r.Created), r.Seq, r.Manifest.String(), r.Segments,
		r.Events, r.Appended, r.StateRoot.String(), r.Identical, r.Elapsed.Milliseconds(), r.SetBack, r.Gone}
	word := "DIFFERENT"
	if v.Identical {
		word = "IDENTICAL"
	}
	asOf := r.Events + uint64(r.Appended)
	fields := []field{{"store", v.Dir}, {"backup of", v.Created}, {"events", decimal(v.Events)},
		{"segments", strconv.Itoa(v.Segments)}, {"root", v.StateRoot}, {"state root", word}}
	if v.SetBack > 0 {
		fields = append(fields, field{"set back", fmt.Sprintf("%d names", v.SetBack)})
	}
	for _, name := range v.Gone {
		fields = append(fields, field{"not set back", name + ": its version of that time is forgotten"})
	}
	fields = append(fields, field{"next", a.command("replay", "--verify")})
	err := a.record("Restore", asOf, v, v.Dir, fields...)
	if err == nil {
		a.answered(asOf, fmt.Sprintf("%d ms", v.Millis))
	}
	return err
}
