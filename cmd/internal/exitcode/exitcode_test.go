package exitcode

import (
	"testing"

	"fcp"
)

// TestEveryClassHasAnExitCode: which one each code has is written out in cmd/fcpctl.
func TestEveryClassHasAnExitCode(t *testing.T) {
	for class := fcp.Invalid; class <= fcp.Fatal; class++ {
		if byClass[class] == 0 {
			t.Errorf("class %s has no exit code", class)
		}
	}
	for _, c := range fcp.Codes() {
		if n := Of(c); n == OK || n == Usage {
			t.Errorf("%s gives %d", c, n)
		}
	}
	if Of(9999) != Failed {
		t.Error("a code outside of the set")
	}
}
