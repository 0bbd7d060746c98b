package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"fcp"
	"fcp/cmd/internal/exitcode"
	"fcp/engine"
)

func (a *app) verifyCommand() *cobra.Command {
	var quick bool
	cmd := &cobra.Command{
		Use: "verify", Short: "Check everything in the store", Args: args(0, 0),
		Long: `verify recomputes every hash, chain, Merkle tree, segment and object id, rebuilds
the state and compares the roots. It changes nothing. What it finds is listed, and
the exit code is 9 when bytes are damaged or missing, 11 for anything else.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.borrowed(cmd.Context(), a.flags.dir, func() error { return a.verify(cmd.Context(), quick) })
		},
	}
	cmd.Flags().BoolVar(&quick, "quick", false, "leave out bodies and the rebuilding of the state")
	return cmd
}

func (a *app) verify(ctx context.Context, quick bool) error {
	files, err := a.checkFiles()
	if err != nil {
		return err
	}
	if len(files.Findings) > 0 { // opening the store would change its files
		return a.printVerify(0, &engine.VerifyReport{Findings: files.Findings})
	}
	return a.withOpen(ctx, a.flags.dir, reading, func(e *engine.Engine) error {
		p := a.progress("verify", "positions")
		r, err := e.Verify(ctx, engine.VerifyOptions{Bodies: !quick, Replay: !quick, Progress: tellEngine(p)})
		p.done()
		if err != nil {
			return err
		}
		return a.printVerify(e.Position(), &r)
	})
}

// findingView is one thing that is wrong, as JSON.
type findingView struct {
	Code     string `json:"code"`
	Position uint64 `json:"position,omitempty"`
	Feed     uint64 `json:"feed,omitempty"`
	Seq      uint64 `json:"seq,omitempty"`
	What     string `json:"what"`
}

// verifyView is a report as JSON.
type verifyView struct {
	Events    uint64        `json:"events"`
	Feeds     int           `json:"feeds"`
	Segments  int           `json:"segments"`
	Bodies    uint64        `json:"bodies"`
	StateRoot string        `json:"state_root,omitempty"`
	Findings  []findingView `json:"findings"`
	Millis    int64         `json:"elapsed_ms"`
}

func (a *app) printVerify(position uint64, r *engine.VerifyReport) error {
	v := verifyView{Events: r.Events, Feeds: r.Feeds, Segments: r.Segments, Bodies: r.Bodies, StateRoot: hashText(r.StateRoot),
		Millis: r.Elapsed.Milliseconds(), Findings: []findingView{}}
	codes := make([]fcp.Code, 0, len(r.Findings)+1)
	for _, f := range r.Findings {
		v.Findings = append(v.Findings, findingView{f.Code.String(), f.Position, uint64(f.Feed), f.Seq, f.What})
		codes = append(codes, f.Code)
	}
	fields := []field{{"events", decimal(v.Events)}, {"feeds", strconv.Itoa(v.Feeds)}, {"segments", strconv.Itoa(v.Segments)},
		{"bodies", decimal(v.Bodies)}, {"state root", v.StateRoot}}
	for _, f := range v.Findings {
		fields = append(fields, field{"finding", f.text()})
	}
	fields = append(fields, field{"result", resultText(len(codes))})
	if err := a.record("VerifyReport", position, v, resultText(len(codes)), fields...); err != nil {
		return err
	}
	a.answered(position, fmt.Sprintf("%d ms", v.Millis))
	return findings(codes, "restore what is named from a backup: `"+restoreCommand+"`")
}

func (f *findingView) text() string {
	s := f.Code
	if f.Position > 0 {
		s += " at position " + decimal(f.Position)
	}
	return s + ": " + f.What
}

func resultText(found int) string {
	switch found {
	case 0:
		return "nothing is wrong"
	case 1:
		return "1 finding"
	}
	return strconv.Itoa(found) + " findings"
}

// findings is the error of a check that ran to its end and found something; nil
// for no codes. Bytes that are damaged, missing or unreadable where a check looks
// for them are an integrity failure, whatever they would be elsewhere.
func findings(codes []fcp.Code, next string) error {
	if len(codes) == 0 {
		return nil
	}
	worst, exit := codes[0], exitFindings
	for _, c := range codes {
		if c == fcp.CodeNoStore { // nothing was looked at, so nothing is damaged
			return &exitError{fcp.Errorf(c, "%s", resultText(len(codes))).WithNext(next), exitNotHere}
		}
		damage := exitcode.Of(c) == exitIntegrity || c.Class() == fcp.NotEnough || c.Class() == fcp.Invalid
		if damage && exit != exitIntegrity {
			worst, exit = c, exitIntegrity
		}
	}
	return &exitError{fcp.Errorf(worst, "%s", resultText(len(codes))).WithNext(next), exit}
}
