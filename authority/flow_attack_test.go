package authority

import "testing"

// TestAReceiptDoesNotCoverTheUnknown: data without a list of inputs is not covered
// by whatever receipt is at hand.
func TestAReceiptDoesNotCoverTheUnknown(t *testing.T) {
	s := SanitizerSpec{Covered: []string{"a", "b"}}
	for _, c := range []struct {
		inputs []string
		want   bool
	}{{nil, false}, {[]string{}, false}, {[]string{"a"}, true}, {[]string{"a", "b"}, true}, {[]string{"a", "c"}, false}} {
		if got := s.covers(c.inputs); got != c.want {
			t.Errorf("%q covered: %v", c.inputs, got)
		}
	}
}
