package main

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

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
	next := e.NextStep()
	if e.Code == fcp.CodeDisk && e.Next == "" && (errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOTDIR)) {
		next = "let this user read and write there, or name another place; the disk itself is not at fault"
	}
	if e.Code == fcp.CodeDisk && e.Next == "" && fcp.IsDiskFull(err) {
		next = "free some space there, or raise this user's quota, and run the same command again; the disk itself is not at fault"
	}
	return errorView{Schema: schemaName("Error"), Code: e.Code.String(), Class: e.Code.Class().String(), Exit: exitOf(err),
		Message: e.Code.Sentence(), Cause: e.Detail, Next: next}
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

// absent reports that there is no file of a name, nor a directory for it.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) }

// inputError classifies a failure of a file the person named, as opposed to one
// of the store.
func inputError(err error, what string) error {
	var e *fcp.Error
	if err == nil || errors.As(err, &e) {
		return err
	}
	if fcp.IsDiskFull(err) {
		return fcp.Errorf(fcp.CodeDiskFull, "%s: %w", what, err).WithNext("free some space there, or name another place, and run the same command again")
	}
	return fcp.Errorf(fcp.CodeInvalidArgument, "%s: %w", what, err).WithNext("check that the path is right and may be used")
}
