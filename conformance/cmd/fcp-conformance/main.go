// Command fcp-conformance holds an implementation of FCP against the golden
// vectors, writes the vectors, and reports which requirements of the profiles
// hold. conformance/README.md says how.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"fcp/conformance/internal/profile"
	"fcp/conformance/internal/run"
	"fcp/conformance/internal/vectors"
)

const usage = `usage:
  fcp-conformance run -exec 'PROGRAM ARGS' [-dir conformance/vectors] [-only CLASS] [-timeout 10s]
  fcp-conformance report [-json FILE|-] [-echo] [-out DIR] [-dir conformance]
  fcp-conformance generate [-dir conformance]
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	code, err := command(ctx, os.Args[1:], os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "fcp-conformance:", err)
	}
	os.Exit(code)
}

// command returns the exit code: 0 all is well, 1 something does not hold, 2 it
// could not be found out.
func command(ctx context.Context, args []string, in io.Reader, out io.Writer) (int, error) {
	if len(args) == 0 {
		return 2, fmt.Errorf("%s", usage)
	}
	switch args[0] {
	case "run":
		return runVectors(ctx, args[1:], out)
	case "report":
		return report(ctx, args[1:], in, out)
	case "generate":
		return generate(args[1:], out)
	}
	return 2, fmt.Errorf("%s", usage)
}

func runVectors(ctx context.Context, args []string, out io.Writer) (int, error) {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	program := f.String("exec", "", "the program to ask, with its arguments")
	dir := f.String("dir", "conformance/vectors", "the vectors")
	only := f.String("only", "", "one class alone")
	timeout := f.Duration("timeout", 10*time.Second, "for each answer")
	if err := f.Parse(args); err != nil {
		return 2, err
	}
	cases, err := vectors.Load(os.DirFS(*dir))
	if err != nil {
		return 2, err
	}
	r, err := run.Run(ctx, *program, cases, run.Options{Class: *only, Timeout: *timeout})
	if err != nil {
		return 2, err
	}
	if err := r.Write(out); err != nil {
		return 2, err
	}
	if !r.Passed() {
		return 1, nil
	}
	return 0, nil
}

func report(ctx context.Context, args []string, in io.Reader, out io.Writer) (int, error) {
	f := flag.NewFlagSet("report", flag.ContinueOnError)
	results := f.String("json", "", "results of go test -json; - is the standard input; without it the tests are run")
	echo := f.Bool("echo", false, "print what go test would: packages, and the output of tests that fail")
	to := f.String("out", "", "folder for profiles.md and profiles.json; without it the Markdown goes to the standard output")
	dir := f.String("dir", "conformance", "where profiles.json is")
	if err := f.Parse(args); err != nil {
		return 2, err
	}
	p, err := profile.Load(os.DirFS(*dir))
	if err != nil {
		return 2, err
	}
	var show io.Writer
	if *echo {
		show = out
	}
	var ran profile.Results
	switch *results {
	case "":
		ran, err = profile.RunTests(ctx, p, os.Stderr)
	case "-":
		ran, err = profile.ReadResults(in, show)
	default:
		var file *os.File
		if file, err = os.Open(*results); err == nil {
			ran, err = profile.ReadResults(file, show)
			_ = file.Close() // only read
		}
	}
	if err != nil {
		return 2, err
	}
	r := profile.Judge(p, ran)
	if *to == "" {
		_, err = out.Write(r.Markdown())
		return 0, err
	}
	if err := os.MkdirAll(*to, 0o755); err != nil {
		return 2, err
	}
	j, err := r.JSON()
	if err != nil {
		return 2, err
	}
	for name, b := range map[string][]byte{"profiles.md": r.Markdown(), "profiles.json": j} {
		if err := os.WriteFile(filepath.Join(*to, name), b, 0o644); err != nil {
			return 2, err
		}
	}
	_, err = fmt.Fprintln(out, r.Summary())
	return 0, err
}

func generate(args []string, out io.Writer) (int, error) {
	f := flag.NewFlagSet("generate", flag.ContinueOnError)
	dir := f.String("dir", "conformance", "the folder conformance")
	if err := f.Parse(args); err != nil {
		return 2, err
	}
	cases, err := vectors.All()
	if err != nil {
		return 2, err
	}
	files, err := vectors.Files(cases)
	if err != nil {
		return 2, err
	}
	if err := vectors.Write(filepath.Join(*dir, "vectors"), files); err != nil {
		return 2, err
	}
	if err := os.WriteFile(filepath.Join(*dir, "OPERATIONS.md"), vectors.Operations(cases), 0o644); err != nil {
		return 2, err
	}
	_, err = fmt.Fprintf(out, "%d vectors\n", len(cases))
	return 0, err
}
