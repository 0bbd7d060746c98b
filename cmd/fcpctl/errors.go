package main

import (
	"errors"
	"fmt"

	"fcp"
)

// errorView is a failure as JSON.
type errorView struct {
	Schema  string `json:"schema"`
	Code    string `json:"code"`
	Class   string `json:"class"`
	Exit    int    `json:"exit"`
	Message string `json:"message"`
	Cause   string `json:"cause,omitempty"`
	Next    string `json:"next"`
}

func viewError(err error) errorView {
	var e *fcp.Error
	if !errors.As(err, &e) {
		e = fcp.Errorf(fcp.CodeInternal, "%w", err)
	}
	return errorView{Schema: schemaName("Error"), Code: e.Code.String(), Class: e.Code.Class().String(), Exit: exitOf(err),
		Message: e.Code.Sentence(), Cause: e.Detail, Next: e.NextStep()}
}

// printError tells a person, or a program, what failed and what to do next.
func (a *app) printError(err error) {
	v := viewError(err)
	if a.flags.format.structured() {
		a.printJSON(a.stderr, v)
		return
	}
	fmt.Fprintf(a.stderr, "fcpctl: %s: %s\n", a.paint(a.stderrTTY, red, v.Code), v.Message)
	if v.Cause != "" {
		fmt.Fprintf(a.stderr, "  cause: %s\n", printable(v.Cause))
	}
	fmt.Fprintf(a.stderr, "  next:  %s\n", printable(v.Next))
	if p := (*panicError)(nil); errors.As(err, &p) {
		fmt.Fprintf(a.stderr, "\n%s", p.stack)
	}
}

// warn tells what is wrong without keeping the command from its work. -q does not
// silence it.
func (a *app) warn(err error) {
	v := viewError(err)
	if a.flags.format.structured() {
		v.Schema = schemaName("Warning")
		a.printJSON(a.stderr, v)
		return
	}
	fmt.Fprintf(a.stderr, "warning: %s: %s: %s\n", v.Code, v.Message, printable(v.Cause))
}

// advise gives the errors of one code a next step that fits the command.
func advise(err error, code fcp.Code, next string) error {
	var e *fcp.Error
	if !errors.As(err, &e) || e.Code != code {
		return err
	}
	return e.WithNext(next)
}

// inputError classifies a failure of a file the person named, as opposed to one
// of the store.
func inputError(err error, what string) error {
	if err == nil || fcp.CodeOf(err) != fcp.CodeInternal {
		return err
	}
	return fcp.Errorf(fcp.CodeInvalidArgument, "%s: %w", what, err).WithNext("check that the path is right and may be used")
}
