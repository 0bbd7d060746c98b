// Package profile says which requirements of the founding text hold: those whose
// tests ran and passed.
package profile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/exec"
	"slices"
	"strings"
)

// Profile is a named list of requirements.
type Profile struct {
	Name         string        `json:"name"`
	Source       string        `json:"source"` // where the founding text has it
	Requirements []Requirement `json:"requirements"`
}

// Requirement is one row: it holds when each of its tests ran and passed.
type Requirement struct {
	ID    string   `json:"id"`
	Text  string   `json:"text"`
	Tests []string `json:"tests"`          // "fcp/engine TestName"
	Note  string   `json:"note,omitempty"` // what is there instead, or how far it goes
}

// Load reads profiles.json.
func Load(dir fs.FS) ([]Profile, error) {
	b, err := fs.ReadFile(dir, "profiles.json")
	if err != nil {
		return nil, err
	}
	var p []Profile
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("profiles.json: %w", err)
	}
	seen := map[string]bool{}
	for _, x := range p {
		for _, r := range x.Requirements {
			if r.ID == "" || r.Text == "" || seen[r.ID] {
				return nil, fmt.Errorf("profiles.json: requirement %q is empty or there twice", r.ID)
			}
			seen[r.ID] = true
			for _, t := range r.Tests {
				if pkg, name, ok := strings.Cut(t, " "); !ok || pkg == "" || !strings.HasPrefix(name, "Test") && !strings.HasPrefix(name, "Fuzz") {
					return nil, fmt.Errorf("profiles.json: %s: %q is no package and test", r.ID, t)
				}
			}
		}
	}
	return p, nil
}

// Outcome is how a test ended.
type Outcome string

// The outcomes, the worst first.
const (
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
	Passed  Outcome = "passed"
	Missing Outcome = "did not run"
)

// Results are outcomes by "package test".
type Results map[string]Outcome

// add keeps the worst outcome of a test that ran several times.
func (r Results) add(test string, o Outcome) {
	rank := func(o Outcome) int { return slices.Index([]Outcome{Failed, Skipped, Passed}, o) }
	if old, ok := r[test]; !ok || rank(o) < rank(old) {
		r[test] = o
	}
}

// event is a line of go test -json (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// maxLine bounds a line of go test -json.
const maxLine = 16 << 20

// ReadResults reads the output of go test -json. What is not JSON, such as build
// errors, is passed on to echo, and so are the lines about packages and the output
// of tests that fail; echo may be nil. Subtests count for the test they are of.
func ReadResults(in io.Reader, echo io.Writer) (Results, error) {
	if echo == nil {
		echo = io.Discard
	}
	out := Results{}
	said := map[string][]byte{}
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			if _, err := fmt.Fprintln(echo, lines.Text()); err != nil {
				return nil, err
			}
			continue
		}
		if err := e.take(out, said, echo); err != nil {
			return nil, err
		}
	}
	return out, lines.Err()
}

func (e *event) take(out Results, said map[string][]byte, echo io.Writer) error {
	top, _, _ := strings.Cut(e.Test, "/")
	key := e.Package + " " + top
	var err error
	switch e.Action {
	case "build-output":
		_, err = io.WriteString(echo, e.Output)
	case "output":
		switch {
		case e.Test == "" && e.Output != "PASS\n":
			_, err = io.WriteString(echo, e.Output)
		case e.Test != "":
			said[key] = append(said[key], e.Output...)
		}
	case "pass", "fail", "skip":
		o := map[string]Outcome{"pass": Passed, "fail": Failed, "skip": Skipped}[e.Action]
		if e.Test == "" || e.Test != top && o == Passed {
			return nil
		}
		out.add(key, o)
		if e.Test == top {
			if o == Failed {
				_, err = echo.Write(said[key])
			}
			delete(said, key)
		}
	}
	return err
}

// RunTests runs the tests that the profiles name and nothing else.
func RunTests(ctx context.Context, profiles []Profile, echo io.Writer) (Results, error) {
	tests := map[string][]string{}
	for _, p := range profiles {
		for _, r := range p.Requirements {
			for _, t := range r.Tests {
				pkg, name, _ := strings.Cut(t, " ")
				tests[pkg] = append(tests[pkg], name)
			}
		}
	}
	all := Results{}
	for pkg, names := range tests {
		slices.Sort(names)
		cmd := exec.CommandContext(ctx, "go", "test", "-json", "-run", "^("+strings.Join(slices.Compact(names), "|")+")$", pkg)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		b, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) { // a failing test is a result
			return nil, fmt.Errorf("go test %s: %w", pkg, err)
		}
		got, err := ReadResults(bytes.NewReader(b), echo)
		if err != nil {
			return nil, err
		}
		if len(got) == 0 && stderr.Len() > 0 && echo != nil {
			if _, err := echo.Write(stderr.Bytes()); err != nil {
				return nil, err
			}
		}
		for t, o := range got {
			all.add(t, o)
		}
	}
	return all, nil
}
