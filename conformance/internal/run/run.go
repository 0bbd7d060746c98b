// Package run asks an implementation every vector, over the standard input and
// output of its process, and says what differs.
package run

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"

	"fcp/conformance/internal/respond"
	"fcp/conformance/internal/vectors"
)

// Options configures Run.
type Options struct {
	Class   string        // "": every class
	Timeout time.Duration // for one answer; 0: ten seconds
}

// Kind says how an answer is wrong.
type Kind string

// The kinds of findings. What ends the program ends the run, too.
const (
	WrongOutput   Kind = "wrong output"
	WrongCode     Kind = "wrong error code"
	Accepted      Kind = "accepts what must be refused"
	Refused       Kind = "refuses what is good"
	WrongID       Kind = "answers another request"
	NoProtocol    Kind = "not a line of the protocol"
	TooSlow       Kind = "no answer in time"
	Ended         Kind = "the program ended"
	NotThere      Kind = "unsupported"
	Contradictory Kind = "an answer that says two things"
)

// Finding is one case that does not pass.
type Finding struct {
	Case   string
	Kind   Kind
	Detail string
}

// Report is what a run found.
type Report struct {
	Asked       int // cases answered or not
	Good        int // that pass
	Unsupported int // of operations that the program says it does not have
	Skipped     int // not asked, because the run ended
	Findings    []Finding
}

// Passed reports whether every case passes.
func (r *Report) Passed() bool { return r.Asked > 0 && r.Good == r.Asked && r.Skipped == 0 }

// Write writes the report for a person.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s: %s: %s\n", f.Case, f.Kind, f.Detail)
	}
	fmt.Fprintf(&b, "%d asked, %d pass, %d differ, %d unsupported, %d not asked\n", r.Asked, r.Good, r.Asked-r.Good-r.Unsupported, r.Unsupported, r.Skipped)
	_, err := io.WriteString(w, b.String())
	return err
}

// Run starts the program and asks it. An error means that it could not be asked;
// what it answers wrongly is in the report.
func Run(ctx context.Context, program string, cases []vectors.Case, o Options) (*Report, error) {
	args := strings.Fields(program)
	if len(args) == 0 {
		return nil, errors.New("no program: give it with -exec")
	}
	cases = slices.DeleteFunc(slices.Clone(cases), func(c vectors.Case) bool { return o.Class != "" && c.Class != o.Class })
	if len(cases) == 0 {
		return nil, errors.New("no vectors")
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr tail
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &conversation{in: in, answers: make(chan answer), done: ctx.Done(), timeout: o.Timeout}
	go c.read(out)
	r := c.ask(cases)
	_ = in.Close() // it may be gone already
	cancel()
	_ = cmd.Wait() // how it ended is in the report, if it matters
	if n := len(r.Findings); n > 0 && r.Findings[n-1].Kind == Ended && len(stderr.b) > 0 {
		r.Findings[n-1].Detail += ": " + string(stderr.b)
	}
	return r, nil
}

// answer is one line of the program, or the end.
type answer struct {
	line []byte
	err  error
}

// conversation is with one process.
type conversation struct {
	in      io.Writer
	answers chan answer
	done    <-chan struct{}
	timeout time.Duration
}

// read passes the lines on until they end.
func (c *conversation) read(out io.Reader) {
	lines := bufio.NewScanner(out)
	lines.Buffer(make([]byte, 64<<10), respond.MaxLine)
	for {
		a := answer{}
		if lines.Scan() {
			a.line = bytes.Clone(lines.Bytes())
		} else if a.err = lines.Err(); a.err == nil {
			a.err = io.EOF
		}
		select {
		case c.answers <- a:
		case <-c.done:
			return
		}
		if a.err != nil {
			return
		}
	}
}

// ask goes through the cases; behind an answer that cannot be told apart from the
// next one's it stops.
func (c *conversation) ask(cases []vectors.Case) *Report {
	r := &Report{}
	for i := range cases {
		x := &cases[i]
		r.Asked++
		kind, detail := c.one(x, uint64(i+1))
		if kind == "" {
			r.Good++
			continue
		}
		if kind == NotThere {
			r.Unsupported++
		}
		r.Findings = append(r.Findings, Finding{x.Class + "/" + x.Name, kind, detail})
		if kind == WrongID || kind == NoProtocol || kind == TooSlow || kind == Ended {
			r.Skipped = len(cases) - i - 1
			break
		}
	}
	return r
}

// one asks one case and returns what is wrong with the answer.
func (c *conversation) one(x *vectors.Case, id uint64) (Kind, string) {
	b, err := json.Marshal(x.Request(id))
	if err != nil {
		return NoProtocol, err.Error()
	}
	sent := make(chan error, 1)
	go func() {
		_, err := c.in.Write(append(b, '\n'))
		sent <- err
	}()
	timer := time.NewTimer(c.timeout)
	defer timer.Stop()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return Ended, err.Error()
			}
			sent = nil
		case a := <-c.answers:
			if a.err != nil {
				return Ended, a.err.Error()
			}
			return compare(x.Want(id), a.line)
		case <-timer.C:
			return TooSlow, c.timeout.String()
		}
	}
}

// compare holds one line against the answer.
func compare(want respond.Response, line []byte) (Kind, string) {
	var got respond.Response
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&got); err != nil || d.More() {
		return NoProtocol, fmt.Sprintf("%.80q", line)
	}
	switch {
	case got.ID != want.ID:
		return WrongID, fmt.Sprintf("%d instead of %d", got.ID, want.ID)
	case got.Unsupported && (got.OK || got.Error != "" || got.Output != ""), got.OK && got.Error != "", !got.OK && !got.Unsupported && (got.Error == "" || got.Output != ""):
		return Contradictory, fmt.Sprintf("%.80q", line)
	case got.Unsupported:
		return NotThere, ""
	case got.OK && !want.OK:
		return Accepted, "expected " + want.Error
	case !got.OK && want.OK:
		return Refused, "with " + got.Error
	case got.Error != want.Error:
		return WrongCode, got.Error + " instead of " + want.Error
	case got.Output != want.Output:
		return WrongOutput, fmt.Sprintf("%.64s instead of %.64s", got.Output, want.Output)
	}
	return "", ""
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - 400; over > 0 {
		t.b = t.b[over:]
	}
	return len(p), nil
}
