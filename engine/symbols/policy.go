package symbols

import (
	"fmt"
	"strconv"
	"strings"

	"fcp"
)

// MaxPlaces is the most places a segment is scattered over.
const MaxPlaces = 64

// Spare is how many symbols more than a segment's source symbols any sufficient
// set of places holds. With two more, about one set in a million fails to decode;
// four make that one in 10^11, which many thousand segments need.
const Spare = 4

// Policy says that any Need of Of places rebuild everything. The zero value is
// not valid.
type Policy struct{ Need, Of int }

// ParsePolicy parses "any-2-of-5".
func ParsePolicy(s string) (Policy, error) {
	bad := fcp.Errorf(fcp.CodeInvalidArgument, "policy %.64q", s).WithNext("write it as any-2-of-5: any 2 of 5 places rebuild everything")
	rest, ok := strings.CutPrefix(s, "any-")
	need, of, ok2 := strings.Cut(rest, "-of-")
	if !ok || !ok2 {
		return Policy{}, bad
	}
	var p Policy
	var err1, err2 error
	p.Need, err1 = strconv.Atoi(need)
	p.Of, err2 = strconv.Atoi(of)
	if err1 != nil || err2 != nil || p.String() != s || !p.Valid() {
		return Policy{}, bad
	}
	return p, nil
}

// String returns "any-2-of-5".
func (p Policy) String() string { return fmt.Sprintf("any-%d-of-%d", p.Need, p.Of) }

// Valid reports whether 1 <= Need <= Of <= MaxPlaces.
func (p Policy) Valid() bool { return 1 <= p.Need && p.Need <= p.Of && p.Of <= MaxPlaces }

// Share returns how many symbols of a segment of k source symbols each place gets.
func (p Policy) Share(k int) int { return (k + Spare + p.Need - 1) / p.Need }
