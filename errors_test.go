package fcp

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestEveryCodeHasAClassASentenceAndANextStep(t *testing.T) {
	seen := map[string]Code{}
	for _, c := range Codes() {
		if c.Class() < Invalid || c.Class() > Fatal {
			t.Errorf("%s has class %d", c, c.Class())
		}
		for what, s := range map[string]string{"sentence": c.Sentence(), "next step": c.Next()} {
			if s == "" || strings.HasSuffix(s, ".") || strings.TrimSpace(s) != s {
				t.Errorf("the %s of %s is %q", what, c, s)
			}
		}
		if !regexp.MustCompile(`^FCP-[1-9][0-9]{3}$`).MatchString(c.String()) {
			t.Errorf("%d prints as %s", c, c)
		}
		if other, ok := seen[c.Sentence()]; ok {
			t.Errorf("%s and %s share the sentence %q", c, other, c.Sentence())
		}
		seen[c.Sentence()] = c
	}
	if got := slices.Compact(slices.Sorted(slices.Values(Codes()))); len(got) != len(Codes()) {
		t.Error("a code is listed twice")
	}
}

func TestACodeOutsideTheSetIsNothing(t *testing.T) {
	const none Code = 1
	if slices.Contains(Codes(), none) || none.Class() != 0 || none.Sentence() != "" || none.Next() != "" {
		t.Error("code 1 means something")
	}
	if Class(0).String() != "unknown" || Class(200).String() != "unknown" {
		t.Error("an unknown class has a name")
	}
}

func TestErrorsIsFindsCodeClassReasonAndCause(t *testing.T) {
	cause := errors.New("disk on fire")
	for _, c := range Codes() {
		err := error(Errorf(c, "doing it: %w", cause))
		wrapped := fmt.Errorf("outer: %w", Wrap(CodeInternal, err, "more"))
		for _, e := range []error{err, wrapped} {
			if !errors.Is(e, c) || !errors.Is(e, c.Class()) || !errors.Is(e, cause) || CodeOf(e) != c {
				t.Errorf("%s is lost in %v", c, e)
			}
			if !strings.Contains(e.Error(), c.String()) {
				t.Errorf("%v does not name %s", e, c)
			}
		}
		other := CodeConflict
		if c == other {
			other = CodeDisk
		}
		if errors.Is(err, other) {
			t.Errorf("%s is also %s", c, other)
		}
	}
}

func TestWrapKeepsTheCodeAndTheNextStep(t *testing.T) {
	if err := Wrap(CodeDisk, nil, "nothing"); err != nil {
		t.Errorf("Wrap of nil is %v", err)
	}
	inner := Errorf(CodeConflict, "head of %s", "a").WithNext("look")
	var e *Error
	if !errors.As(Wrap(CodeDisk, inner, "put"), &e) {
		t.Fatal("no Error")
	}
	if e.Code != CodeConflict || e.Detail != "put: head of a" || e.NextStep() != "look" {
		t.Errorf("got %+v", e)
	}
	plain := Wrap(CodeDisk, errors.New("EIO"), "sync")
	if CodeOf(plain) != CodeDisk || !strings.Contains(plain.Error(), "sync: EIO") {
		t.Errorf("got %v", plain)
	}
	if got := Errorf(CodeDisk, "x").NextStep(); got != CodeDisk.Next() {
		t.Errorf("next step %q", got)
	}
}

func TestCodeOfForeignErrors(t *testing.T) {
	if CodeOf(nil) != 0 || CodeOf(errors.New("x")) != CodeInternal {
		t.Error("CodeOf of no Error")
	}
}

func TestReasonsSurviveWrapping(t *testing.T) {
	_, err := ParseCanonicalID("Bad")
	err = fmt.Errorf("outer: %w", Wrap(CodeInternal, err, "inner"))
	if !errors.Is(err, ReasonUpper) || errors.Is(err, ReasonChar) || CodeOf(err) != CodeInvalidArgument {
		t.Errorf("got %v", err)
	}
	if !errors.Is(ReasonKeyOrder, ReasonNonCanonical) || errors.Is(ReasonNonCanonical, ReasonKeyOrder) {
		t.Error("key order is one case of non-canonical, not the reverse")
	}
}
