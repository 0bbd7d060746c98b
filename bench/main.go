// Command bench measures the product's speed, each figure beside a limit
// measured in the same run and beside other projects' logs.
//
// It is a module of its own so that those projects never enter the product's
// go.mod. README.md says how to run it and what each figure means. The parts:
//
//	harness.go   rows, rounds, what is opened and measured when
//	workload.go  the append load: closed-loop writers, and Target for the product
//	group.go     the group committer in front of the raw limit and the peers
//	raw.go       the append limit; limits.go: read, write and memory limits
//	peer*.go     etcd's wal, hashicorp's raft-wal, Pebble as shipped, bbolt, Badger, NATS JetStream
//	plot.go      a picture of a report
//	record.go    the report; machine.go: where and what it consumed
//	rows.go      all rows
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	_ "fcp/internal/malloc" // as in the product's programs
)

func main() {
	if dir := os.Getenv(killEnv); dir != "" {
		fmt.Fprintln(os.Stderr, "bench victim:", victim(dir))
		os.Exit(1)
	}
	if what := os.Getenv(scaleEnv); what != "" {
		if err := scaleChild(what, os.Getenv(scaleDirEnv), os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench child:", err)
			os.Exit(1)
		}
		return
	}
	if what := os.Getenv(memoryEnv); what != "" {
		if err := memoryChild(what, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench memory:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line.
type options struct {
	match    string
	format   string
	plot     string
	list     bool
	long     bool
	dir      string
	anyFS    bool // not a flag: tests may run on tmpfs
	settings settings
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.match, "run", ".", "measure the rows whose name matches this regular `expression`")
	f.StringVar(&o.format, "o", "table", "output `format`: table or json (one object per line)")
	f.StringVar(&o.plot, "plot", "", "measure nothing; draw a picture (SVG) of this report, made with -o json, on stdout")
	f.BoolVar(&o.long, "long", false, "also measure the rows over five million events, minutes each")
	f.BoolVar(&o.list, "list", false, "print the names of the rows and exit")
	f.StringVar(&o.dir, "dir", ".", "work in a temporary directory under this `directory`, which must not be in memory")
	f.IntVar(&o.settings.count, "count", 5, "measure each row this many `times` and report the median")
	f.DurationVar(&o.settings.time, "time", time.Second, "work about this `long` for each measurement")
	f.BoolVar(&o.settings.peers, "peers", true, "measure the peers beside the product's append rows")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case o.format != "table" && o.format != "json":
		return o, fmt.Errorf("-o is table or json, not %q", o.format)
	case o.settings.count < 1:
		return o, fmt.Errorf("-count is at least 1, not %d", o.settings.count)
	case o.settings.time <= 0:
		return o, fmt.Errorf("-time is positive, not %v", o.settings.time)
	}
	return o, nil
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	if err != nil {
		return err
	}
	if o.plot != "" {
		return plotFile(o.plot, o.match, stdout)
	}
	return o.run(ctx, stdout)
}

func (o options) run(ctx context.Context, stdout io.Writer) error {
	match, err := regexp.Compile(o.match)
	if err != nil {
		return fmt.Errorf("-run: %w", err)
	}
	rows, err := selectRows(match)
	if err != nil {
		return err
	}
	if !o.long {
		rows = slices.DeleteFunc(rows, func(r Row) bool { return r.Long })
	}
	if o.list {
		for _, r := range rows {
			if _, err := fmt.Fprintln(stdout, r.Name); err != nil {
				return err
			}
		}
		return nil
	}
	if len(rows) == 0 {
		return fmt.Errorf("no row matches %q; see -list", o.match)
	}
	out := output(jsonLines{stdout})
	if o.format == "table" {
		out = newTable(stdout)
	}
	return errors.Join(o.measure(ctx, rows, out), out.end())
}

// measure all rows in a directory that it removes again.
func (o options) measure(ctx context.Context, rows []Row, out output) (err error) {
	machine, err := describe(o.dir)
	if err != nil {
		return err
	}
	if !o.anyFS && (machine.FS == "tmpfs" || machine.FS == "ramfs") {
		return fmt.Errorf("%s is in memory (%s), where fsync costs nothing; name a directory on a disk with -dir", o.dir, machine.FS)
	}
	o.settings.dir, err = os.MkdirTemp(o.dir, ".bench-run-")
	if err != nil {
		return fmt.Errorf("make a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.settings.dir)) }()
	o.settings.device = machine.number
	rev := revision(ctx)
	for _, row := range rows {
		rec, err := measureRow(ctx, row, o.settings)
		if err != nil {
			return fmt.Errorf("%s: %w", row.Name, err)
		}
		rec.Machine, rec.Load, rec.Time, rec.Revision = machine, load1(), time.Now().UTC().Truncate(time.Second), rev
		if err := out.put(rec); err != nil {
			return err
		}
	}
	return nil
}
