package authority

import (
	"strings"

	"fcp"
)

// MaxPattern limits a pattern in bytes, and MaxPatterns the patterns of one list.
const (
	MaxPattern  = 128
	MaxPatterns = 1024
)

// Pattern selects identifiers: "*" stands for any run of characters, also an empty
// one, and every other character for itself (spec/wire.md section 14).
type Pattern string

// Valid reports whether the pattern has 1 to MaxPattern printable ASCII characters.
func (p Pattern) Valid() bool {
	if p == "" || len(p) > MaxPattern {
		return false
	}
	for i := range len(p) {
		if p[i] <= ' ' || p[i] > '~' {
			return false
		}
	}
	return true
}

// Match reports whether the pattern selects s. An invalid pattern selects nothing.
// It takes at most len(p) x len(s) steps.
func (p Pattern) Match(s string) bool {
	if !p.Valid() {
		return false
	}
	star, mark := -1, 0
	i, j := 0, 0 // in p, in s
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && p[i] == s[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(string(p[i:]), "*") == ""
}

// Patterns are a list of patterns, strictly ascending so that one set has one
// encoding.
type Patterns []Pattern

// Match reports whether any pattern selects s. An empty list selects nothing.
func (l Patterns) Match(s string) bool {
	for _, p := range l {
		if p.Match(s) {
			return true
		}
	}
	return false
}

func (l Patterns) check(what string) error {
	if len(l) > MaxPatterns {
		return fcp.Errorf(fcp.CodeTooLarge, "%s: %d patterns, the limit is %d", what, len(l), MaxPatterns)
	}
	for i, p := range l {
		if !p.Valid() {
			return fcp.Errorf(fcp.CodeMalformed, "%s: pattern %d is not 1 to %d printable characters", what, i, MaxPattern)
		}
		if i > 0 && l[i-1] >= p {
			return fcp.Errorf(fcp.CodeMalformed, "%s: patterns are not strictly ascending", what)
		}
	}
	return nil
}

// Lists are the deny and the allow list of one kind of identifier in a policy.
// Deny wins; an allow list counts only when it is not empty (spec/wire.md section
// 14, "Decision order").
type Lists struct {
	Allow, Deny Patterns
}

// Denied reports whether the deny list selects id.
func (l *Lists) Denied(id string) bool { return l.Deny.Match(id) }

// NotAllowed reports whether there is an allow list and it does not select id.
func (l *Lists) NotAllowed(id string) bool { return len(l.Allow) > 0 && !l.Allow.Match(id) }
