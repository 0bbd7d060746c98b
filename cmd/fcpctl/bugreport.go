package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// bugReportView is a report that was written, as JSON.
type bugReportView struct {
	File  string `json:"file"`
	Lines int    `json:"lines"`
	Text  string `json:"text"`
}

func (a *app) bugreportCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "bugreport [FILE]", Short: "What a bug report needs, without anything private", Args: args(0, 1),
		Long: `bugreport collects versions, counts and the doctor's findings. Keys of objects,
contents, hashes and names of directories are left out or replaced. Without FILE it
is printed; with FILE it is shown first, and written after a yes.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			text := a.bugReport(cmd)
			v := bugReportView{Lines: strings.Count(text, "\n"), Text: text}
			if len(args) == 0 {
				if a.flags.format.structured() {
					return a.record("BugReport", 0, v, "")
				}
				_, err := a.out.WriteString(text)
				return err
			}
			if a.flags.format.structured() {
				a.note("%s", text)
			} else {
				fmt.Fprint(a.stderr, text)
			}
			if err := a.confirm(yes, "this, and nothing else, is written to "+args[0]+"."); err != nil {
				return err
			}
			if err := writeNewFile(args[0], []byte(text)); err != nil {
				return inputError(err, "the report")
			}
			v.File = args[0]
			return a.record("BugReport", 0, v, v.File, field{"report", v.File}, field{"lines", decimal(uint64(v.Lines))})
		},
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) bugReport(cmd *cobra.Command) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", name, a.redact(fmt.Sprintf(format, args...)))
	}
	v := buildView()
	line("fcpctl", "%s %s, %s on %s, %d processors, store format %d", v.Version, v.Commit, v.Go, v.System, runtime.NumCPU(), v.Format)
	var set []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			set = append(set, "--"+f.Name) // their values may be private
		}
	})
	line("flags", "%s", strings.Join(set, " "))
	line("terminal", "stdin %v, stdout %v, stderr %v", a.stdinTTY, a.stdoutTTY, a.stderrTTY)
	for _, c := range a.examine(cmd.Context()) {
		line("check", "%s: %s: %s", c.Check, c.Result, c.What)
	}
	a.countStore(cmd.Context(), line)
	return b.String()
}

// countStore adds numbers of what is in the store. That it cannot be opened is a
// finding of the checks already.
func (a *app) countStore(ctx context.Context, line func(name, format string, args ...any)) {
	e, err := a.openStore(ctx, a.flags.dir, reading)
	if err != nil {
		return
	}
	s := e.Status()
	line("log", "position %d, state at %d, saved as of %d, %d segments, read-only %v", s.Position, s.Applied, s.Flushed, s.Segments, s.ReadOnly)
	for i, z := range s.Zones {
		line("zone", "%d: keys %v, %d control and %d data events", i+1, z.HasKeys, z.Control, z.Data)
	}
	for i := range s.Feeds {
		f := &s.Feeds[i]
		line("feed", "%d: plane %s, own %v, seq %d, sealed %d", i+1, f.Feed.Plane, f.Own, f.Seq, f.Sealed)
	}
	for _, p := range s.Projections {
		line("state", "%s: version %d, serving %d, building %v", p.Name, p.Version, p.Serving, p.Building)
	}
	if err := e.Close(); err != nil {
		line("close", "%v", err)
	}
}

var (
	longHex  = regexp.MustCompile(`\b[0-9a-fA-F]{16,}\b`)
	anyPath  = regexp.MustCompile(`(^|[\s:'"=(])(?:[a-z0-9]+://|~?/)[^\s'",;)]*`)
	zoneName = regexp.MustCompile(`\bz:[a-z0-9:_-]+`)
)

// redact takes out what could tell who or where: paths, addresses, hashes, zones.
func (a *app) redact(s string) string {
	for _, p := range []string{a.flags.dir, a.configPath()} {
		if p != "" {
			s = strings.ReplaceAll(s, p, "<path>")
		}
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		s = strings.ReplaceAll(s, host, "<host>")
	}
	s = anyPath.ReplaceAllString(s, "${1}<path>")
	s = longHex.ReplaceAllString(s, "<hex>")
	return printable(zoneName.ReplaceAllString(s, "<zone>"))
}
