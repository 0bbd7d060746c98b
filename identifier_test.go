package fcp

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestCanonicalIDReasonsComeInTheirOrder(t *testing.T) {
	long := strings.Repeat("A", MaxIdentifier)
	for s, want := range map[string]Reason{
		"": ReasonEmpty, long + "é!": ReasonTooLong, "é" + "A": ReasonASCII, ".A": ReasonUpper, "!A": ReasonUpper,
		"a!A": ReasonUpper, "!": ReasonStart, "-a!": ReasonStart, ":a": ReasonStart, "a b": ReasonChar, "a\x00": ReasonChar,
		"a/b": ReasonChar,
	} {
		if _, err := ParseCanonicalID(s); !errors.Is(err, want) || !errors.Is(err, CodeInvalidArgument) {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
	if _, err := ParseCanonicalID(strings.Repeat("a", 1<<20)); len(err.Error()) > 300 {
		t.Error("the error repeats a whole megabyte")
	}
}

var canonicalPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9._:-]*$`)

func FuzzCanonicalID(f *testing.F) {
	for _, s := range []string{"", "a", "A", "gmail:fcp2:1.0", ".a", "é", strings.Repeat("a", 128), "a\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseCanonicalID(s)
		if (err == nil) != (len(s) <= MaxIdentifier && canonicalPattern.MatchString(s)) {
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil && id.String() != s {
			t.Fatalf("%q became %q", s, id)
		}
	})
}
