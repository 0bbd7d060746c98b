package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fcp"
)

// demoPart is one part of the demonstration.
type demoPart struct {
	name, short string
	run         func(*demo) error
}

// demoParts returns the parts this build has, in the order `demo` runs them.
func demoParts() []demoPart {
	return []demoPart{
		{"storage", "put, the past, a kill -9, a backup, a restore", (*demo).storage},
		{"symbols", "any 2 of 5 directories rebuild everything; damage, loss, heal", (*demo).symbols},
		{"authority", "grant, narrow offline, use, revoke, refused and proved offline", (*demo).authority},
		{"mesh", "three processes, one killed; a fourth joins and repair fills it; another killed; a revocation refused elsewhere", (*demo).mesh},
	}
}

type demoOptions struct {
	input   string
	keep    bool
	tailnet tailnetOptions // of the mesh part
}

func (a *app) demoCommand() *cobra.Command {
	var o demoOptions
	var names []string
	long := "demo runs the real commands on a temporary directory, step by step, and checks what\neach of them promises. It needs no store and changes none. With --tailnet the nodes of the\nmesh part talk over your Tailscale network; take a key for ephemeral nodes. Its parts:\n\n"
	for _, p := range demoParts() {
		names = append(names, p.name)
		long += fmt.Sprintf("  %-10s %s\n", p.name, p.short)
	}
	cmd := &cobra.Command{
		Use: "demo [PART]", Short: "Show what a store does, step by step", Long: long, Args: args(0, 1), ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			var parts []demoPart
			for _, p := range demoParts() {
				if len(args) == 0 || p.name == args[0] {
					parts = append(parts, p)
				}
			}
			if len(parts) == 0 {
				return usagef("leave it out, or give one of: "+strings.Join(names, ", "), "this build has no demo %q", args[0])
			}
			return a.runDemo(cmd.Context(), &o, parts)
		},
	}
	cmd.Flags().StringVar(&o.input, "input", "", "directory of files to use as input (default the Go net package's sources)")
	o.tailnet.flags(cmd.Flags())
	cmd.Flags().BoolVar(&o.keep, "keep", false, "keep the temporary directory")
	return cmd
}

// demo is one demonstration on its way.
type demo struct {
	a     *app
	ctx   context.Context
	opts  *demoOptions
	part  string
	dir   string // temporary
	list  *list
	steps int
}

func (a *app) runDemo(ctx context.Context, o *demoOptions, parts []demoPart) error {
	start := a.now()
	dir, err := os.MkdirTemp("", "fcp-demo-")
	if err != nil {
		return inputError(err, "a temporary directory")
	}
	if o.keep {
		a.note("kept: %s", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	d := &demo{a: a, ctx: ctx, opts: o, dir: dir, list: a.list("DemoStep", 0)}
	d.list.live = true
	for _, p := range parts {
		d.part = p.name
		if err := p.run(d); err != nil {
			return err
		}
	}
	if err := d.list.close(); err != nil || a.flags.format.structured() {
		return err
	}
	return d.say("%s: %d steps, every promise kept, in %.1f s", a.paint(a.stdoutTTY, green, "ok"), d.steps, a.now().Sub(start).Seconds())
}

func (d *demo) say(format string, args ...any) error {
	_, err := fmt.Fprintf(d.a.out, format+"\n", args...)
	if err == nil {
		err = d.a.out.Flush()
	}
	return err
}

// stepView is one step as JSON.
type stepView struct {
	Part   string   `json:"part"`
	Step   int      `json:"step"`
	Title  string   `json:"title"`
	Proves string   `json:"proves"`
	Facts  []string `json:"facts"`
	Millis int64    `json:"elapsed_ms"`
}

// step runs one step. fn returns what was seen; its error ends the demo.
func (d *demo) step(title, proves string, fn func(s *stepView) error) error {
	d.steps++
	s := &stepView{Part: d.part, Step: d.steps, Title: title, Proves: proves, Facts: []string{}}
	text := d.a.flags.format == formatTable
	if text {
		if err := d.say("%s", d.a.paint(d.a.stdoutTTY, bold, fmt.Sprintf("%2d  %s", s.Step, title))); err != nil {
			return err
		}
	}
	start := d.a.now()
	if err := fn(s); err != nil {
		return fmt.Errorf("step %d, %s: %w", s.Step, title, err)
	}
	s.Millis = d.a.now().Sub(start).Milliseconds()
	if !text {
		return d.list.add(s, title)
	}
	for _, f := range s.Facts {
		if err := d.say("    %s", f); err != nil {
			return err
		}
	}
	return d.say("    proves: %s %s", proves, d.a.paint(d.a.stdoutTTY, dim, fmt.Sprintf("(%d ms)", s.Millis)))
}

func (s *stepView) fact(format string, args ...any) {
	s.Facts = append(s.Facts, fmt.Sprintf(format, args...))
}

// outcome is what a command of the demo left.
type outcome struct {
	line           string
	exit           int
	stdout, stderr []byte
}

// fcpctl runs a command line in this process, as if typed.
func (d *demo) fcpctl(stdin string, args ...string) outcome {
	var stdout, stderr bytes.Buffer
	sub := &app{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, now: d.a.now, lookupEnv: d.lookupEnv, again: d.a.again}
	exit := sub.run(d.ctx, args)
	line := "fcpctl"
	for _, w := range args {
		line += " " + strings.ReplaceAll(quote(w), d.dir, "$D")
	}
	return outcome{line, exit, stdout.Bytes(), stderr.Bytes()}
}

// lookupEnv hides the person's own settings from the demo's commands.
func (d *demo) lookupEnv(name string) (string, bool) {
	if strings.HasPrefix(name, "FCP_") {
		return "", false
	}
	if name == "XDG_CONFIG_HOME" { // nor are there settings of theirs
		return d.dir, true
	}
	return d.a.lookupEnv(name)
}

// must runs a command that has to succeed and shows its line.
func (d *demo) must(s *stepView, stdin string, args ...string) (outcome, error) {
	o := d.fcpctl(stdin, args...)
	s.fact("$ %s", o.line)
	return o, o.want(exitOK)
}

// want checks the exit code.
func (o *outcome) want(exit int) error {
	if o.exit == exit {
		return nil
	}
	if o.exit == exitInterrupted {
		return interrupted()
	}
	return fcp.Errorf(fcp.CodeInternal, "`%s` ended with exit code %d, not %d: %s", o.line, o.exit, exit, strings.TrimSpace(string(o.stderr))).
		WithNext("run it again with --keep and look into the directory")
}

// decode reads the JSON a command printed.
func (o *outcome) decode(v any) error {
	if err := json.Unmarshal(o.stdout, v); err != nil {
		return fcp.Errorf(fcp.CodeInternal, "`%s` did not print the JSON expected: %w", o.line, err)
	}
	return nil
}

// broken is the failure of a promise.
func broken(format string, args ...any) error {
	return fcp.Errorf(fcp.CodeInternal, format, args...).WithNext("report this; run it again with --keep to look into the directory")
}

// eventually is how long the demo waits for another process.
const eventually = 20 * time.Second
