package enginetest

import (
	"context"
	"errors"
	"slices"
	"testing"

	"fcp"
)

// A device is described anew: its tags change, its place among the members does not,
// whatever the order in which the enrollments arrive.
func TestDescribeDevice(t *testing.T) {
	m := New(t, 1, 3)
	ctx := context.Background()
	a, b := m.Nodes[0], m.Nodes[1]
	m.Sync()
	before, err := a.Members()
	m.check(err)
	w := m.Nodes[2].Node().Writer()
	for _, tags := range [][]string{{"class:phone", "site:home"}, {"class:nas"}} { // both in one second
		m.check(a.DescribeDevice(ctx, m.Owner, w, "", tags))
	}
	m.Sync()
	for _, x := range []*Node{a, b} {
		after, err := x.Members()
		m.check(err)
		if len(after) != len(before) {
			t.Fatalf("%d members, %d before", len(after), len(before))
		}
		for i := range after {
			if after[i].Writer != before[i].Writer || !after[i].Enrolled.Equal(before[i].Enrolled) || after[i].Name != before[i].Name {
				t.Errorf("member %d is %s of %v, was %s of %v", i, after[i].Name, after[i].Enrolled, before[i].Name, before[i].Enrolled)
			}
			if after[i].Writer == w && !slices.Equal(after[i].Tags, []string{"class:nas"}) {
				t.Errorf("tags %v", after[i].Tags)
			}
		}
	}
	if err := a.DescribeDevice(ctx, m.Owner, fcp.WriterID{7}, "", nil); !errors.Is(err, fcp.CodeNotFound) {
		t.Errorf("a stranger: %v", err)
	}
	_, err = a.DeviceLost(ctx, m.Owner, w, "")
	m.check(err)
	if err := a.DescribeDevice(ctx, m.Owner, w, "", nil); !errors.Is(err, fcp.CodeVoided) {
		t.Errorf("a lost one: %v", err)
	}
}
