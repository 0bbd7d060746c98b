// Package exitcode has the exit codes that fcpctl and fcpd share.
//
// # Purpose
//
// A script, or systemd, tells by its exit code why a program ended.
//
// # Invariants
//
//   - The codes are part of the interface and never change their meaning.
//   - Every fcp.Code has one that is neither OK nor Usage.
package exitcode

import "fcp"

// The exit codes; `fcpctl help exit-codes` says what they mean.
const (
	OK          = 0
	Failed      = 1
	Usage       = 2
	Unreachable = 3
	Denied      = 4
	Rate        = 5
	Invalid     = 6
	Guess       = 7
	Conflict    = 8
	Integrity   = 9
	NotHere     = 10
	Findings    = 11
	WrongKey    = 12
	Interrupted = 130
)

// byClass is the rule, byCode its exceptions.
var (
	byClass = map[fcp.Class]int{
		fcp.Invalid:   Invalid,
		fcp.Denied:    Denied,
		fcp.Conflict:  Conflict,
		fcp.NotEnough: NotHere,
		fcp.Corrupt:   Integrity,
		fcp.Transient: Failed,
		fcp.Fatal:     Failed,
	}
	byCode = map[fcp.Code]int{
		fcp.CodeSignature:    Integrity, // forged bytes, not a lack of permission
		fcp.CodeWrongKey:     WrongKey,
		fcp.CodeLocked:       Findings,
		fcp.CodeNotExclusive: Findings,
		fcp.CodeExhausted:    Rate,
		fcp.CodeRateLimited:  Rate,
		fcp.CodeBudget:       Rate,
		fcp.CodeDependency:   Unreachable,
		fcp.CodeGuess:        Guess,
		fcp.CodeTimeout:      Unreachable,
		fcp.CodeNoQuorum:     Unreachable,
		fcp.CodeStale:        Unreachable,
		fcp.CodeInterrupted:  Interrupted,
	}
)

// Of returns the exit code of an error with this code; Failed for a code outside of
// the set.
func Of(c fcp.Code) int {
	if n, ok := byCode[c]; ok {
		return n
	}
	if n, ok := byClass[c.Class()]; ok {
		return n
	}
	return Failed
}
