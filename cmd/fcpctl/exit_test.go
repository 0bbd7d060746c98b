package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"fcp"
)

// wantExit is every code and its exit code, written out: a new code must be
// thought about, and none may change.
var wantExit = map[fcp.Code]int{
	fcp.CodeInvalidArgument: 6, fcp.CodeMalformed: 9, fcp.CodeNonCanonical: 9, fcp.CodeChecksum: 9, fcp.CodeVersion: 6,
	fcp.CodeMissingField: 6, fcp.CodeTooLarge: 6, fcp.CodeSchema: 9, fcp.CodeUnauthorized: 4, fcp.CodeWrongKey: 12,
	fcp.CodeSignature: 9, fcp.CodeKeyForgotten: 4, fcp.CodeVoided: 4, fcp.CodeZone: 6, fcp.CodeCrossZone: 6, fcp.CodeNoStore: 10,
	fcp.CodeStoreExists: 8, fcp.CodeLocked: 11, fcp.CodeTailLost: 9, fcp.CodeReadOnly: 6, fcp.CodeClosed: 1, fcp.CodeCrashed: 1,
	fcp.CodeNotFound: 10, fcp.CodeExhausted: 5, fcp.CodeConflict: 8, fcp.CodeDiskFull: 1, fcp.CodeGuess: 7, fcp.CodeFuture: 1,
	fcp.CodeNotEnough: 10, fcp.CodeHorizon: 6, fcp.CodeNotPosition: 6, fcp.CodeTimeout: 3, fcp.CodeInternal: 1, fcp.CodeCorrupt: 9,
	fcp.CodeRootMismatch: 9, fcp.CodeDisk: 1, fcp.CodeEquivocation: 9, fcp.CodeKeyTableLost: 9, fcp.CodeInterrupted: 130,
	fcp.CodeUnknownKind: 6, fcp.CodeWrongPlane: 6, fcp.CodeNotEmpty: 8, fcp.CodeManifest: 9, fcp.CodeNotExclusive: 11,
	fcp.CodeDenied: 4, fcp.CodeTokenExpired: 4, fcp.CodeRateLimited: 5, fcp.CodeOperation: 4, fcp.CodeResource: 4, fcp.CodeTaint: 4,
	fcp.CodeElevation: 4, fcp.CodeNotConfigured: 6, fcp.CodeNotHandshaken: 6, fcp.CodeHealth: 1, fcp.CodeNoStreaming: 6,
	fcp.CodeBudget: 5, fcp.CodeExternal: 1, fcp.CodeDependency: 3,
	fcp.CodeFenced: 8, fcp.CodeLeaseHeld: 8, fcp.CodeNoQuorum: 3, fcp.CodeStale: 3,
}

func TestEveryCodeHasItsExitCode(t *testing.T) {
	documented := map[int]bool{}
	for _, m := range exitMeanings {
		documented[m.exit] = true
	}
	for _, c := range fcp.Codes() {
		want, ok := wantExit[c]
		got := exitOf(fmt.Errorf("while testing: %w", fcp.Errorf(c, "x")))
		if !ok || got != want {
			t.Errorf("%s (%s) gives exit code %d, want %d (listed: %v)", c, c.Sentence(), got, want, ok)
		}
		if !documented[got] {
			t.Errorf("exit code %d of %s is not on the page", got, c)
		}
		if got == exitOK || got == exitUsage {
			t.Errorf("%s gives exit code %d, which is not for errors of the store", c, got)
		}
	}
	if len(wantExit) != len(fcp.Codes()) {
		t.Errorf("%d codes are listed, there are %d", len(wantExit), len(fcp.Codes()))
	}
}

func TestOtherErrorsHaveExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("anything"), 1},
		{usagef("", "x"), 2},
		{fmt.Errorf("wrapped: %w", usagef("", "x")), 2},
		{context.Canceled, 130},
		{fmt.Errorf("wrapped: %w", context.Canceled), 130},
		{findings([]fcp.Code{fcp.CodeKeyForgotten}, ""), 11},
		{findings([]fcp.Code{fcp.CodeKeyForgotten, fcp.CodeCorrupt}, ""), 9},
		{findings([]fcp.Code{fcp.CodeNotFound}, ""), 9},
		{findings([]fcp.Code{fcp.CodeVersion}, ""), 9},
		{findings(nil, ""), 0},
		{errors.Join(fcp.Errorf(fcp.CodeConflict, "x"), nil), 8},
	} {
		if got := exitOf(c.err); got != c.want {
			t.Errorf("%v gives exit code %d, want %d", c.err, got, c.want)
		}
	}
}

// TestTheReferenceListsEveryExitCode keeps docs/cli.md and the help page together.
func TestTheReferenceListsEveryExitCode(t *testing.T) {
	b, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range exitMeanings {
		if row := fmt.Sprintf("| %d | %s | %s |", m.exit, m.name, m.meaning); !strings.Contains(string(b), row) {
			t.Errorf("docs/cli.md lacks the row %s", row)
		}
		if !strings.Contains(exitPage(), m.meaning) {
			t.Errorf("the page lacks %s", m.meaning)
		}
	}
}

// TestAFullDiskIsSaidAsOne: whatever was being written, the next step is to make room.
func TestAFullDiskIsSaidAsOne(t *testing.T) {
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		for _, err := range []error{fcp.Wrap(fcp.CodeDisk, full, "write a key"), inputError(full, "the target")} {
			if v := viewError(err); !strings.Contains(v.Next, "free some space") || v.Exit != exitFailed {
				t.Errorf("%v: exit %d, next %q", err, v.Exit, v.Next)
			}
		}
	}
}
