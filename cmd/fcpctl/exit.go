package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"fcp"
	"fcp/cmd/internal/exitcode"
)

// The exit codes, as fcpd has them too.
const (
	exitOK          = exitcode.OK
	exitFailed      = exitcode.Failed
	exitUsage       = exitcode.Usage
	exitUnreachable = exitcode.Unreachable
	exitDenied      = exitcode.Denied
	exitRate        = exitcode.Rate
	exitInvalid     = exitcode.Invalid
	exitGuess       = exitcode.Guess
	exitConflict    = exitcode.Conflict
	exitIntegrity   = exitcode.Integrity
	exitNotHere     = exitcode.NotHere
	exitFindings    = exitcode.Findings
	exitWrongKey    = exitcode.WrongKey
	exitInterrupted = exitcode.Interrupted
)

// exitMeanings is the page `fcpctl help exit-codes`.
var exitMeanings = []struct {
	exit          int
	name, meaning string
}{
	{exitOK, "ok", "done; nothing was wrong"},
	{exitFailed, "failed", "it did not work and no other code fits: a full disk, a disk error, a bug"},
	{exitUsage, "usage", "the command line is wrong: unknown command or flag, wrong number of arguments, unreadable flag value"},
	{exitUnreachable, "unreachable", "nobody answered in time"},
	{exitDenied, "denied", "authority refuses, a credential is missing, or it was revoked or forgotten"},
	{exitRate, "rate limited", "a resource limit was reached; wait"},
	{exitInvalid, "invalid input", "the command line is fine, what it names is not: a zone, a key, a position, a format version"},
	{exitGuess, "refused to guess", "several things fit, or a yes is needed that nobody gave"},
	{exitConflict, "conflict", "somebody else was first, or something is there already"},
	{exitIntegrity, "integrity failure", "bytes are not what was written: hash, chain, signature, structure or state root"},
	{exitNotHere, "not here", "no store, no such object, or not enough symbols to rebuild one"},
	{exitFindings, "findings or locked", "finished, but something needs a look; or another process has the store open"},
	{exitWrongKey, "wrong key", "the identity or passphrase is not that of this store"},
	{exitInterrupted, "interrupted", "stopped by a signal; what was acknowledged is on disk"},
}

// exitError gives an error another exit code than its fcp.Code has.
type exitError struct {
	err  error
	exit int
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef is a mistake in the command line itself.
func usagef(next, format string, args ...any) error {
	e := fcp.Errorf(fcp.CodeInvalidArgument, format, args...)
	if next != "" {
		e = e.WithNext(next)
	}
	return &exitError{e, exitUsage}
}

func interrupted() error { return fcp.Errorf(fcp.CodeInterrupted, "a signal came") }

// exitOf returns the exit code of the outcome of a command.
func exitOf(err error) int {
	if err == nil {
		return exitOK
	}
	if e := (*exitError)(nil); errors.As(err, &e) {
		return e.exit
	}
	if errors.Is(err, context.Canceled) {
		return exitInterrupted
	}
	return exitcode.Of(fcp.CodeOf(err))
}

func exitPage() string {
	var b strings.Builder
	b.WriteString("Exit codes of every command. They never change their meaning.\n\n")
	for _, m := range exitMeanings {
		fmt.Fprintf(&b, "  %3d  %-18s  %s\n", m.exit, m.name, m.meaning)
	}
	b.WriteString("\nsecret use and secret recover end with the exit code of the command that they ran.\n")
	b.WriteString("\nA failure prints its code (FCP-6003), one sentence, the cause and the next step on\nstderr; with -o json or -o ndjson the same as one JSON object.\n")
	return b.String()
}
