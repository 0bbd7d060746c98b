package fcp

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// Class says what kind of failure an error is and so what a caller can do about
// it. A Class is itself an error so that errors.Is(err, fcp.Conflict) works.
type Class uint8

// The closed set of classes.
const (
	Invalid   Class = iota + 1 // the caller's mistake: fix the request
	Denied                     // authority, policy or a key refuses
	Conflict                   // somebody else was first, or the store is held by another process
	NotEnough                  // not there, or not enough of it is: fetch or find more
	Corrupt                    // stored or received bytes are not what was written
	Transient                  // may pass by itself: try again later
	Fatal                      // the process must stop; nothing was acknowledged
)

var classNames = [...]string{Invalid: "invalid", Denied: "denied", Conflict: "conflict",
	NotEnough: "not-enough", Corrupt: "corrupt", Transient: "transient", Fatal: "fatal"}

// String returns the stable lower-case name of the class.
func (c Class) String() string {
	if int(c) < len(classNames) && classNames[c] != "" {
		return classNames[c]
	}
	return "unknown"
}

// Error makes a Class usable as a target of errors.Is.
func (c Class) Error() string { return c.String() }

// Code is a stable number from the closed set below, printed as FCP-%04d. The
// thousands follow spec/wire.md section 17: 1 protocol, 2 authentication,
// 3 capability, 4 zone, 5 lifecycle, 6 resource, 7 external, 9 internal.
type Code uint16

// The closed set of codes. A code is never renumbered and never reused.
const (
	CodeInvalidArgument Code = 1001 // a flag, option or argument is not usable
	CodeMalformed       Code = 1002 // bytes do not decode
	CodeNonCanonical    Code = 1003 // bytes decode but are not the one canonical form
	CodeChecksum        Code = 1004 // a checksum or hash does not match
	CodeVersion         Code = 1005 // a format version this build does not know
	CodeMissingField    Code = 1006 // a required field is absent
	CodeTooLarge        Code = 1007 // over a named limit
	CodeSchema          Code = 1008 // schema prefix missing or of another schema

	CodeUnauthorized Code = 2001 // no usable credential
	CodeWrongKey     Code = 2004 // the identity or passphrase does not fit this store
	CodeSignature    Code = 2003 // a signature does not verify
	CodeKeyForgotten Code = 2005 // the data key was destroyed; the body is gone for good
	CodeDenied       Code = 3001 // authority or policy refuses; the cause is a Reason
	CodeVoided       Code = 3005 // the event lies above a revocation's cut
	CodeZone         Code = 4001 // not a zone of this store, or not a valid zone id
	CodeCrossZone    Code = 4004 // one append names several zones
	CodeNoStore      Code = 5001 // there is no store in that directory
	CodeStoreExists  Code = 5006 // there already is a store in that directory, or a key in that file
	CodeLocked       Code = 5007 // another process has the store open
	CodeTailLost     Code = 5008 // events once acknowledged are missing; opened read-only
	CodeReadOnly     Code = 5009 // the store is open read-only
	CodeClosed       Code = 5010 // the store is closed or closing
	CodeCrashed      Code = 5011 // a disk error stopped the store; restart it
	CodeNotFound     Code = 6001 // no such object, name, event or segment
	CodeExhausted    Code = 6002 // a resource limit was reached
	CodeConflict     Code = 6003 // the head is not the expected one
	CodeDiskFull     Code = 6005 // the disk is full or below the watermark
	CodeGuess        Code = 6006 // several candidates fit and none was chosen, or nobody said yes
	CodeFuture       Code = 6007 // the event's time is too far ahead; it is held back
	CodeNotEnough    Code = 6008 // not enough symbols to rebuild
	CodeHorizon      Code = 6009 // the position lies below the compaction horizon
	CodeNotPosition  Code = 6010 // the position or time lies beyond the end of the log
	CodeFenced       Code = 6011 // a lease is over for its holder: a higher fence, its end, or a release
	CodeLeaseHeld    Code = 6012 // another device has the lease
	CodeStale        Code = 6013 // the answer would be older than was asked for
	CodeNoQuorum     Code = 7004 // too few members agreed in time
	CodeTimeout      Code = 7002 // a deadline passed
	CodeInternal     Code = 9001 // a bug: an invariant of this program does not hold
	CodeCorrupt      Code = 9002 // stored bytes fail their hash, chain or structure
	CodeRootMismatch Code = 9003 // two state roots that must be equal are not
	CodeDisk         Code = 9004 // the disk reported an error
	CodeEquivocation Code = 9005 // two different events of one feed share a sequence number
	CodeKeyTableLost Code = 9006 // the key table has no salt for a body that exists
	CodeInterrupted  Code = 9007 // the caller cancelled
	CodeUnknownKind  Code = 1009 // an event kind outside the table
	CodeWrongPlane   Code = 1010 // an event kind on a plane it may not use
	CodeNotEmpty     Code = 5012 // the target is there already: a file, or a directory that is not empty
	CodeManifest     Code = 9008 // a backup's manifest and its files disagree
	CodeNotExclusive Code = 5013 // the operation needs a store that is not in use

	CodeTokenExpired Code = 2002 // a token, grant or approval is outside its time
	CodeRateLimited  Code = 3002 // a call or byte limit of the grant is used up
	CodeOperation    Code = 3003 // no grant covers the operation
	CodeResource     Code = 3004 // no grant covers the resource
	CodeTaint        Code = 4002 // the input's taint refuses the operation
	CodeElevation    Code = 4003 // an approval is missing or does not fit

	CodeNotConfigured Code = 5002 // a connector has no configuration
	CodeNotHandshaken Code = 5003 // a connector was asked before its handshake
	CodeHealth        Code = 5004 // a connector's health check failed
	CodeNoStreaming   Code = 5005 // a connector has no event streams
	CodeBudget        Code = 6004 // a peer's or request's budget is used up
	CodeExternal      Code = 7001 // an outside service answered with an error
	CodeDependency    Code = 7003 // something an operation needs is not available
)

type codeInfo struct {
	class    Class
	sentence string
	next     string
}

var codes = map[Code]codeInfo{
	CodeInvalidArgument: {Invalid, "the argument cannot be used", "see the command's --help"},
	CodeMalformed:       {Corrupt, "the bytes do not decode", "fetch them again from another source"},
	CodeNonCanonical:    {Corrupt, "the encoding is not canonical", "fetch the bytes again from another source"},
	CodeChecksum:        {Corrupt, "a hash does not match", "run `fcpctl verify` and restore what it names from a backup"},
	CodeVersion:         {Invalid, "the format version is not one this build knows", "use a build that knows this format version"},
	CodeMissingField:    {Invalid, "a required field is absent", "see docs/format.md for the fields"},
	CodeTooLarge:        {Invalid, "the value is over its limit", "split it, or see docs/format.md for the limits"},
	CodeSchema:          {Corrupt, "the schema prefix is not the expected one", "check which kind of object this is with `fcpctl object ls`"},
	CodeUnauthorized:    {Denied, "no usable credential was given", "give the identity with --identity FILE"},
	CodeSignature:       {Denied, "a signature does not verify", "do not trust these bytes; fetch them from another source"},
	CodeWrongKey:        {Denied, "the key does not fit", "give the identity file that `fcpctl init` wrote for this store"},
	CodeKeyForgotten:    {Denied, "the data key was destroyed, so the body is gone for good", "nothing can bring it back; `fcpctl object history` shows other versions"},
	CodeDenied:          {Denied, "authority or policy refuses", "see `fcpctl why` for the reason and what would pass"},
	CodeVoided:          {Denied, "the event lies above a revocation's cut", "see `fcpctl log cat` for the revocation"},
	CodeZone:            {Invalid, "that is not a zone of this store", "list the zones with `fcpctl zone ls`"},
	CodeCrossZone:       {Invalid, "one append cannot span several zones, because each zone has its own keys and its own log", "append to each zone on its own"},
	CodeNoStore:         {NotEnough, "there is no store in this directory", "make one with `fcpctl init`, or name another with --dir"},
	CodeStoreExists:     {Conflict, "there already is a store, or a key, in this place", "use it as it is, or name another directory with --dir"},
	CodeLocked:          {Conflict, "another process has this store open", "stop the other process, or wait for it to finish"},
	CodeTailLost:        {Corrupt, "events that were acknowledged are missing", "restore from a backup, or fetch the tail from a peer; the store is read-only until then"},
	CodeReadOnly:        {Invalid, "the store is open read-only", "open it for writing"},
	CodeClosed:          {Transient, "the store is closed", "open it again"},
	CodeCrashed:         {Fatal, "a disk error stopped the store", "check the disk, then start again; nothing unacknowledged was kept"},
	CodeNotFound:        {NotEnough, "it is not here", "list what is here with `fcpctl object ls`"},
	CodeExhausted:       {Transient, "a resource limit was reached", "wait, or raise the limit"},
	CodeConflict:        {Conflict, "the current version is not the expected one", "look with `fcpctl object history KEY`, then repeat with the current generation in --expect"},
	CodeDiskFull:        {Transient, "the disk is full", "free some space; reads go on and writes resume by themselves"},
	CodeGuess:           {Invalid, "several candidates fit, or a yes is needed", "name one of them in full"},
	CodeFuture:          {Transient, "the time lies too far ahead", "check the clocks; the event is taken when it is due"},
	CodeNotEnough:       {NotEnough, "there are not enough symbols to rebuild", "add more places with --from"},
	CodeStale:           {Transient, "the answer would be older than was asked for", "see `fcpctl node ls` for who is away; start those devices, allow more with --max-staleness, or leave it out"},
	CodeHorizon:         {Invalid, "that position was compacted away", "use a later position"},
	CodeNotPosition:     {Invalid, "that lies beyond the end of the log", "use an earlier position or time"},
	CodeTimeout:         {Transient, "the deadline passed", "try again, or allow more time"},
	CodeInternal:        {Fatal, "an internal invariant does not hold", "report this with `fcpctl status` and the message"},
	CodeCorrupt:         {Corrupt, "stored bytes are damaged", "run `fcpctl verify`, then restore what it names from a backup"},
	CodeRootMismatch:    {Corrupt, "the state roots differ", "run `fcpctl verify`; the log is the truth and state can be rebuilt with `fcpctl replay`"},
	CodeDisk:            {Fatal, "the disk reported an error", "check the disk; nothing unacknowledged was kept"},
	CodeEquivocation:    {Corrupt, "two different events share one sequence number", "keep both: they prove the fork"},
	CodeKeyTableLost:    {Corrupt, "the key table has no entry for this body", "restore the key table from a backup"},
	CodeInterrupted:     {Transient, "interrupted", "run the same command again"},
	CodeUnknownKind:     {Invalid, "the event kind is not in the table", "see docs/format.md for the kinds"},
	CodeWrongPlane:      {Invalid, "the event kind does not belong on this plane", "see docs/format.md for the planes"},
	CodeNotEmpty:        {Conflict, "the target is there already, or is not empty", "name an empty or new directory"},
	CodeManifest:        {Corrupt, "the backup's manifest and its files disagree", "use another copy of the backup"},
	CodeNotExclusive:    {Conflict, "the operation needs a store that nobody uses", "stop the other process first"},
	CodeTokenExpired:    {Denied, "a token, grant or approval is outside its time", "ask for a new one with `fcpctl cap grant`, and check the clocks"},
	CodeRateLimited:     {Transient, "a limit of the grant is used up", "wait, or ask for a grant with a higher limit"},
	CodeOperation:       {Denied, "no grant covers the operation", "see `fcpctl why` for the smallest grant that passes"},
	CodeResource:        {Denied, "no grant covers the resource", "see `fcpctl why` for the smallest grant that passes"},
	CodeTaint:           {Denied, "the input is too tainted for this operation", "sanitize the input, or ask for an approval"},
	CodeNotConfigured:   {Invalid, "the connector is not configured", "configure the connector first"},
	CodeNotHandshaken:   {Invalid, "the connector was asked before its handshake", "start the connector again"},
	CodeHealth:          {Transient, "the connector's health check failed", "see the connector's log, then start it again"},
	CodeNoStreaming:     {Invalid, "the connector has no event streams", "call its operations instead"},
	CodeBudget:          {Transient, "the budget is used up", "wait for the next minute, or ask for less"},
	CodeExternal:        {Transient, "an outside service answered with an error", "try again later"},
	CodeDependency:      {Transient, "something the operation needs is not available", "start what is missing, then try again"},
	CodeFenced:          {Conflict, "the lease does not hold any more", "look with `fcpctl lease show`, then acquire it again"},
	CodeLeaseHeld:       {Conflict, "another device has the lease", "wait until it ends or is released; see `fcpctl lease show`"},
	CodeNoQuorum:        {Transient, "too few members agreed", "bring more devices of the zone together, then try again"},
	CodeElevation:       {Denied, "an approval is missing or does not fit", "ask the owner for the approval that `fcpctl why` names"},
}

// Codes returns the closed set of codes in no particular order.
func Codes() []Code {
	out := make([]Code, 0, len(codes))
	for c := range codes {
		out = append(out, c)
	}
	return out
}

// Class returns the class of the code; 0 for a code outside the set.
func (c Code) Class() Class { return codes[c].class }

// Sentence returns the one-sentence meaning of the code.
func (c Code) Sentence() string { return codes[c].sentence }

// Next returns what a person can do next when nothing more specific is known.
func (c Code) Next() string { return codes[c].next }

// String returns the stable form "FCP-6003".
func (c Code) String() string { return fmt.Sprintf("FCP-%04d", uint16(c)) }

// Error makes a Code usable as a target of errors.Is.
func (c Code) Error() string { return c.String() }

// Error is the error type of every package of this module. It never holds a
// payload, a key or a secret.
type Error struct {
	Code   Code
	Detail string // what was being done, to what; "" when the sentence says it all
	Next   string // the next step for the person; "" means Code.Next()
	Cause  error  // may be nil
}

// Errorf makes an Error with a formatted detail. A %w operand becomes Cause.
func Errorf(code Code, format string, args ...any) *Error {
	w := fmt.Errorf(format, args...)
	return &Error{Code: code, Detail: w.Error(), Cause: errors.Unwrap(w)}
}

// Wrap makes an Error of an existing one; nil stays nil. An Error keeps its own
// code and gains the detail in front.
func Wrap(code Code, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	detail := fmt.Sprintf(format, args...)
	var e *Error
	if errors.As(err, &e) {
		return &Error{Code: e.Code, Detail: detail + ": " + e.Detail, Next: e.Next, Cause: err}
	}
	return &Error{Code: code, Detail: detail + ": " + err.Error(), Cause: err}
}

// WithNext returns a copy of e with a more specific next step.
func (e *Error) WithNext(next string) *Error {
	c := *e
	c.Next = next
	return &c
}

// Error returns "FCP-6003: sentence: detail".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Code.String())
	b.WriteString(": ")
	b.WriteString(e.Code.Sentence())
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(e.Detail)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is matches a Class or a Code.
func (e *Error) Is(target error) bool {
	switch t := target.(type) {
	case Class:
		return e.Code.Class() == t
	case Code:
		return e.Code == t
	}
	return false
}

// NextStep returns the next command or action for the person.
func (e *Error) NextStep() string {
	if e.Next != "" {
		return e.Next
	}
	return e.Code.Next()
}

// CodeOf returns the code of the first Error in err's chain, or CodeInternal for
// an error that is none of ours, or 0 for nil.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// IsDiskFull reports whether err is the operating system's word for a full disk, or for a
// quota that is used up: what CodeDiskFull stands for.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
