package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/engine"
)

func (a *app) segmentSymbolCommands() []*cobra.Command {
	return []*cobra.Command{a.segmentScatterCommand(), a.segmentGatherCommand(), a.segmentCoverageCommand(), a.segmentHealCommand()}
}

// policyFlag is a symbol policy such as any-2-of-5.
type policyFlag struct{ engine.SymbolPolicy }

func (v *policyFlag) Type() string { return "any-K-of-N" }

func (v *policyFlag) String() string {
	if v.Of == 0 {
		return ""
	}
	return v.SymbolPolicy.String()
}

func (v *policyFlag) Set(s string) (err error) {
	if v.SymbolPolicy, err = engine.ParseSymbolPolicy(s); err != nil {
		return fmt.Errorf("write it as any-2-of-5: any 2 of 5 directories rebuild everything")
	}
	return nil
}

// symbolFindingView is one thing that is wrong with a set of directories, as JSON.
type symbolFindingView struct {
	Code    string `json:"code"`
	Dir     string `json:"dir,omitempty"`
	File    string `json:"file,omitempty"`
	Segment string `json:"segment,omitempty"`
	Damaged int    `json:"damaged_symbols,omitempty"`
	What    string `json:"what"`
}

func viewSymbolFindings(in []engine.SymbolFinding) []symbolFindingView {
	out := make([]symbolFindingView, 0, len(in))
	for _, f := range in {
		v := symbolFindingView{f.Code.String(), f.Dir, f.File, "", f.Symbols, f.What}
		if !f.Segment.IsZero() {
			v.Segment = f.Segment.String()
		}
		out = append(out, v)
	}
	return out
}

func (v *symbolFindingView) text() string {
	place := v.Dir
	if v.File != "" {
		place = strings.TrimSuffix(v.Dir, "/") + "/" + v.File
	}
	if place == "" {
		place = "segment " + v.Segment
	}
	return v.Code + ": " + place + ": " + v.What
}

// told is how many findings are printed one by one beside a result.
const told = 20

// noteFindings tells of damage that did no harm to a result.
func (a *app) noteFindings(findings []symbolFindingView) {
	for i := range findings {
		if i == told {
			a.note("and %d more; `fcpctl segment coverage` lists all", len(findings)-told)
			return
		}
		a.note("%s", findings[i].text())
	}
}

// scatterView is the outcome of a scatter or a heal as JSON.
type scatterView struct {
	Dirs     []string            `json:"dirs"`
	Policy   string              `json:"policy,omitempty"`
	DryRun   bool                `json:"dry_run,omitempty"`
	Minter   string              `json:"minter"`
	Vouched  bool                `json:"vouched"`
	Seq      uint64              `json:"seq"`
	Manifest string              `json:"manifest,omitempty"`
	Segments int                 `json:"segments"`
	Coded    int                 `json:"coded"`
	Shares   int                 `json:"shares"`
	Symbols  int                 `json:"symbols"`
	Written  uint64              `json:"written"`
	Bytes    uint64              `json:"bytes"`
	Stored   uint64              `json:"stored"`
	Findings []symbolFindingView `json:"findings"`
	Millis   int64               `json:"elapsed_ms"`
}

func (a *app) printScatter(typ string, r *engine.ScatterResult, dryRun bool, next string) error {
	if dryRun {
		return a.printShares(typ, r)
	}
	v := scatterView{Dirs: r.Dirs, Minter: r.Minter.String(), Vouched: r.Vouched, Seq: r.Seq, Manifest: hashText(r.Manifest), Segments: r.Segments,
		Coded: r.Coded, Shares: r.Shares, Symbols: r.Symbols, Written: r.Written, Bytes: r.Bytes, Stored: r.Stored,
		Findings: viewSymbolFindings(r.Findings), Millis: r.Elapsed.Milliseconds()}
	fields := []field{}
	for _, d := range r.Dirs {
		fields = append(fields, field{"directory", d})
	}
	if r.Policy.Of > 0 {
		v.Policy = r.Policy.String()
		fields = append(fields, field{"policy", v.Policy})
	}
	minter := v.Minter + ", a node the owner enrolled"
	if !v.Vouched {
		minter = v.Minter + ", made for this; the ciphertext hash judges its symbols"
	}
	fields = append(fields, field{"manifest", v.Manifest}, field{"number", decimal(v.Seq)},
		field{"segments", fmt.Sprintf("%d, %d of them as symbols", v.Segments, v.Coded)},
		field{"new shares", fmt.Sprintf("%d, %d symbols, %d bytes", v.Shares, v.Symbols, v.Written)},
		field{"stored", storedText(v.Stored, v.Bytes)}, field{"minter", minter}, field{"next", next})
	if err := a.record(typ, r.Position, v, strings.Join(r.Dirs, " "), fields...); err != nil {
		return err
	}
	if !a.flags.format.structured() {
		a.noteFindings(v.Findings)
	}
	if r.Position > 0 { // it came from a store
		a.answered(r.Position, fmt.Sprintf("%d ms", v.Millis))
	}
	return nil
}

func storedText(stored, bytes uint64) string {
	if bytes == 0 {
		return "0 bytes"
	}
	return fmt.Sprintf("%d bytes, %.2f times the ciphertext", stored, float64(stored)/float64(bytes))
}

// plannedView is a share that would be written, as JSON.
type plannedView struct {
	Dir     string `json:"dir"`
	Segment string `json:"segment"`
	First   uint32 `json:"first"`
	Symbols uint32 `json:"symbols"` // 0: the segment is copied whole
	Bytes   uint64 `json:"bytes"`
}

func (a *app) printShares(typ string, r *engine.ScatterResult) error {
	l := a.list(typ+"Plan", r.Position, "DIR", "SEGMENT", "FIRST", "SYMBOLS", "BYTES")
	for _, p := range r.Planned {
		v := plannedView{p.Dir, p.Segment.String(), p.First, p.Count, p.Bytes}
		if err := l.add(v, v.Segment, v.Dir, a.short(v.Segment), decimal(uint64(v.First)), decimal(uint64(v.Symbols)), decimal(v.Bytes)); err != nil {
			return err
		}
	}
	if err := l.close(); err != nil {
		return err
	}
	a.note("dry run: nothing was written")
	return nil
}

func (a *app) segmentScatterCommand() *cobra.Command {
	var (
		policy policyFlag
		to     []string
		backup string
		dryRun bool
	)
	cmd := &cobra.Command{
		Use: "scatter", Short: "Back up as symbols into several directories", Args: args(0, 0),
		Long: `scatter backs the store up into several directories, such as USB sticks and cloud
folders, of which any K are enough to rebuild all of it. Every directory gets its
own symbols of each segment and all small files. Running it again adds what is new.
With --backup DIR the segments come from a backup folder instead of the store.`,
		Example: "  fcpctl segment scatter --policy any-2-of-3 --to /mnt/a/fcp --to /mnt/b/fcp --to ~/Cloud/fcp",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if policy.Of == 0 || len(to) == 0 {
				return usagef("give for example --policy any-2-of-3 and --to DIR three times", "--policy and --to are needed")
			}
			if len(to) != policy.Of {
				return usagef("give --to DIR once for each directory the policy counts", "policy %s, but %d directories", policy.String(), len(to))
			}
			return a.scatter(cmd.Context(), backup, to, engine.ScatterOptions{Policy: policy.SymbolPolicy, DryRun: dryRun})
		},
	}
	cmd.Flags().Var(&policy, "policy", "how many of how many directories are enough")
	cmd.Flags().StringArrayVar(&to, "to", nil, "directory to write to; once for each")
	cmd.Flags().StringVar(&backup, "backup", "", "backup folder to take the segments from, instead of the store")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

func (a *app) scatter(ctx context.Context, backup string, to []string, o engine.ScatterOptions) error {
	p := a.progress("scatter", inBytes)
	o.Progress = tellEngine(p)
	next := "fcpctl segment coverage"
	for _, d := range to {
		next += " --from " + quote(d)
	}
	run := func(e *engine.Engine) error {
		var r engine.ScatterResult
		var err error
		if backup == "" {
			r, err = e.Scatter(ctx, to, o)
		} else {
			r, err = engine.ScatterBackup(ctx, backup, to, a.environment(), e, o)
		}
		p.done()
		if err != nil {
			return err
		}
		return a.printScatter("Scatter", &r, o.DryRun, next)
	}
	if backup != "" {
		return a.withSigner(ctx, run)
	}
	mode := writing
	if o.DryRun {
		mode = reading
	}
	return a.withStore(ctx, mode, func(e *engine.Engine) error {
		if o.DryRun {
			if err := a.noteOpenRuns(ctx, e); err != nil {
				return err
			}
		}
		return run(e)
	})
}

// noteOpenRuns says what a scatter would seal first.
func (a *app) noteOpenRuns(ctx context.Context, e *engine.Engine) error {
	runs, err := openRuns(ctx, e)
	for _, r := range runs {
		a.note("would seal first: %s %s, %d events", r.Zone, r.Plane, r.Events)
	}
	return err
}

// withSigner opens the store that --dir names, for its node to sign; without the
// flag there is none.
func (a *app) withSigner(ctx context.Context, fn func(e *engine.Engine) error) error {
	if !a.flags.dirGiven {
		return fn(nil)
	}
	return a.withStore(ctx, reading, fn)
}

// gatherView is the outcome of a gather as JSON.
type gatherView struct {
	Backup   string              `json:"backup"`
	Seq      uint64              `json:"seq"`
	Manifest string              `json:"manifest"`
	Owner    string              `json:"owner"`
	Segments int                 `json:"segments"`
	Coded    int                 `json:"coded"`
	Bytes    uint64              `json:"bytes"`
	Findings []symbolFindingView `json:"findings"`
	Millis   int64               `json:"elapsed_ms"`
}

func (a *app) segmentGatherCommand() *cobra.Command {
	var (
		from     []string
		out      string
		manifest manifestFlag
	)
	cmd := &cobra.Command{
		Use: "gather", Short: "Rebuild a backup folder from directories of symbols", Args: args(0, 0),
		Long: `gather rebuilds the newest backup from as many directories as the policy asks for,
or from parts of more of them. It needs neither store nor key. Damaged and false
symbols are found, named and left out. What it writes is what ` + "`fcpctl restore`" + ` takes.`,
		Example: "  fcpctl segment gather --from /mnt/a/fcp --from ~/Cloud/fcp --out ~/rebuilt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(from) == 0 || out == "" {
				return usagef("give --from DIR once for each directory, and --out BACKUP", "--from and --out are needed")
			}
			p := a.progress("gather", inBytes)
			r, err := engine.GatherSymbols(cmd.Context(), from, out, engine.GatherOptions{Environment: a.environment(), Manifest: manifest.Hash, Progress: tellEngine(p)})
			p.done()
			v := gatherView{r.Out, r.Seq, hashText(r.Manifest), r.Owner.String(), r.Segments, r.Coded, r.Bytes, viewSymbolFindings(r.Findings), r.Elapsed.Milliseconds()}
			if err != nil {
				if !a.flags.format.structured() {
					a.noteFindings(v.Findings)
				}
				return err
			}
			err = a.record("Gather", 0, v, v.Backup, field{"backup", v.Backup}, field{"manifest", v.Manifest}, field{"number", decimal(v.Seq)}, field{"owner", v.Owner},
				field{"segments", fmt.Sprintf("%d, %d of them from symbols", v.Segments, v.Coded)}, field{"bytes", decimal(v.Bytes)},
				field{"damage met", strconv.Itoa(len(v.Findings))}, field{"next", "fcpctl --dir NEW restore " + quote(v.Backup) + " --identity FILE"})
			if err == nil && !a.flags.format.structured() {
				a.noteFindings(v.Findings)
			}
			return err
		},
	}
	cmd.Flags().StringArrayVar(&from, "from", nil, "directory of symbols; once for each")
	cmd.Flags().StringVar(&out, "out", "", "backup folder to make")
	cmd.Flags().Var(&manifest, "manifest", "hash of the backup manifest to rebuild (default the newest)")
	return cmd
}

func (a *app) segmentHealCommand() *cobra.Command {
	var (
		from     []string
		to       string
		policy   policyFlag
		manifest manifestFlag
		dryRun   bool
	)
	cmd := &cobra.Command{
		Use: "heal", Short: "Write a new directory of symbols from those that survive", Args: args(0, 0),
		Long: `heal rebuilds each segment from what survives and mints symbols that no directory
ever had into a new one. It needs no key of the store: ciphertext is rebuilt, never
opened. With --dir a node of the store signs for the new symbols; otherwise a key
made for this does, and only the ciphertext hash can judge them later.`,
		Example: "  fcpctl segment heal --from /mnt/a/fcp --from /mnt/b/fcp --to /mnt/new/fcp",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(from) == 0 || to == "" {
				return usagef("give --from DIR once for each directory, and --to NEWDIR", "--from and --to are needed")
			}
			return a.withSigner(cmd.Context(), func(e *engine.Engine) error {
				p := a.progress("heal", inBytes)
				r, err := engine.HealSymbols(cmd.Context(), from, to, engine.HealOptions{Environment: a.environment(), Minter: e,
					Need: policy.Need, DryRun: dryRun, Manifest: manifest.Hash, Progress: tellEngine(p)})
				p.done()
				if err != nil {
					return err
				}
				next := "fcpctl segment coverage"
				for _, d := range append(from, to) {
					next += " --from " + quote(d)
				}
				return a.printScatter("Heal", &r, dryRun, next)
			})
		},
	}
	cmd.Flags().StringArrayVar(&from, "from", nil, "directory of symbols; once for each")
	cmd.Flags().StringVar(&to, "to", "", "directory to make")
	cmd.Flags().Var(&policy, "policy", "size the new share for this policy (default as in the others)")
	cmd.Flags().Var(&manifest, "manifest", "hash of the backup manifest to heal (default the newest)")
	dryRunFlag(cmd, &dryRun)
	return cmd
}

// coverageView is what directories hold, as JSON.
type coverageView struct {
	Seq        uint64                `json:"seq"`
	Manifest   string                `json:"manifest"`
	Owner      string                `json:"owner"`
	Rebuilds   bool                  `json:"rebuilds"`
	MayLose    int                   `json:"may_lose"`
	Lacking    int                   `json:"lacking"`
	Unprovable int                   `json:"unprovable"`
	Dirs       []dirCoverageView     `json:"dirs"`
	Segments   []segmentCoverageView `json:"segments"`
	Findings   []symbolFindingView   `json:"findings"`
	Millis     int64                 `json:"elapsed_ms"`
}

type dirCoverageView struct {
	Dir      string `json:"dir"`
	Seq      uint64 `json:"seq"`
	Segments int    `json:"segments"`
	Symbols  int    `json:"symbols"`
	Damaged  int    `json:"damaged"`
	Bytes    uint64 `json:"bytes"`
}

type segmentCoverageView struct {
	Segment  string `json:"segment"`
	Bytes    uint64 `json:"bytes"`
	Symbols  int    `json:"symbols"` // needed; 0: copied whole
	Held     []int  `json:"held"`    // by directory
	Damaged  []int  `json:"damaged"`
	Distinct int    `json:"distinct"`
	Rebuilds bool   `json:"rebuilds"`
	MayLose  int    `json:"may_lose"`
}

func (a *app) segmentCoverageCommand() *cobra.Command {
	var (
		from     []string
		manifest manifestFlag
	)
	cmd := &cobra.Command{
		Use: "coverage", Short: "Check directories of symbols: what each holds, what may be lost", Args: args(0, 0),
		Long: `coverage reads every symbol in the directories, checks it, and says whether
everything can be rebuilt now and how many of the directories may be lost. It needs
neither store nor key. Exit code 10: something cannot be rebuilt; 11: it can, but
something needs a look.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(from) == 0 {
				return usagef("give --from DIR once for each directory", "--from is needed")
			}
			p := a.progress("coverage", inBytes)
			r, err := engine.SymbolCoverage(cmd.Context(), from, engine.CoverageOptions{Environment: a.environment(), Manifest: manifest.Hash, Progress: tellEngine(p)})
			p.done()
			if err != nil {
				return err
			}
			return a.printCoverage(&r)
		},
	}
	cmd.Flags().StringArrayVar(&from, "from", nil, "directory of symbols; once for each")
	cmd.Flags().Var(&manifest, "manifest", "hash of the backup manifest meant (default the newest)")
	return cmd
}

func viewCoverage(r *engine.CoverageReport) coverageView {
	v := coverageView{Seq: r.Seq, Manifest: r.Manifest.String(), Owner: r.Owner.String(), Rebuilds: r.Rebuilds, MayLose: r.MayLose, Lacking: r.Lacking,
		Unprovable: r.Unprovable, Findings: viewSymbolFindings(r.Findings), Millis: r.Elapsed.Milliseconds()}
	for _, d := range r.Dirs {
		v.Dirs = append(v.Dirs, dirCoverageView{d.Dir, d.Seq, d.Segments, d.Symbols, d.Damaged, d.Bytes})
	}
	v.Segments = make([]segmentCoverageView, 0, len(r.Segments))
	for _, s := range r.Segments {
		v.Segments = append(v.Segments, segmentCoverageView{s.Segment.String(), uint64(s.Bytes), s.Symbols, s.Held, s.Damaged, s.Distinct, s.Rebuilds, s.MayLose})
	}
	return v
}

func (a *app) printCoverage(r *engine.CoverageReport) error {
	v := viewCoverage(r)
	result := rebuildsText(v.Rebuilds, v.MayLose, len(v.Dirs))
	fields := []field{{"backup", fmt.Sprintf("%d, %s", v.Seq, v.Manifest)}}
	for _, d := range v.Dirs {
		fields = append(fields, field{"directory", fmt.Sprintf("%s: %d segments, %d symbols, %d damaged, %d bytes", d.Dir, d.Segments, d.Symbols, d.Damaged, d.Bytes)})
	}
	for i := range v.Segments {
		fields = append(fields, field{"segment", v.Segments[i].text(a, len(v.Dirs))})
	}
	for i := range v.Findings {
		fields = append(fields, field{"finding", v.Findings[i].text()})
	}
	fields = append(fields, field{"result", result})
	if err := a.record("Coverage", 0, v, result, fields...); err != nil {
		return err
	}
	switch {
	case !v.Rebuilds:
		return fcp.Errorf(fcp.CodeNotEnough, "%d of %d segments cannot be rebuilt from these %d directories", v.Lacking, len(v.Segments), len(v.Dirs)).
			WithNext("add more directories with --from")
	case len(v.Findings) > 0:
		next := "write a new directory with `fcpctl segment heal --from DIR ... --to NEWDIR`"
		return &exitError{fcp.Errorf(r.Findings[0].Code, "%s; all can still be rebuilt", resultText(len(v.Findings))).WithNext(next), exitFindings}
	}
	return nil
}

func rebuildsText(rebuilds bool, mayLose, dirs int) string {
	switch {
	case !rebuilds:
		return "cannot be rebuilt"
	case mayLose <= 0:
		return fmt.Sprintf("can be rebuilt; none of the %d directories may be lost", dirs)
	}
	return fmt.Sprintf("can be rebuilt; any %d of the %d directories may be lost", mayLose, dirs)
}

func (v *segmentCoverageView) text(a *app, dirs int) string {
	held := make([]string, 0, dirs)
	for i := range v.Held {
		s := strconv.Itoa(v.Held[i])
		if v.Damaged[i] > 0 {
			s += fmt.Sprintf(" (%d damaged)", v.Damaged[i])
		}
		held = append(held, s)
	}
	need := fmt.Sprintf("%d symbols needed", v.Symbols)
	if v.Symbols == 0 {
		need = "copied whole"
	}
	return fmt.Sprintf("%s: %s, held %s, %d distinct: %s", a.short(v.Segment), need, strings.Join(held, " + "), v.Distinct, rebuildsText(v.Rebuilds, v.MayLose, dirs))
}
