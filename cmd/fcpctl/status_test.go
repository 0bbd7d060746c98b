package main

import (
	"strings"
	"testing"

	"fcp/engine"
	"fcp/node/api"
)

// TestStatusSaysWhatIsNotKnownYet: right after a command had the store nobody is met
// again, and that is neither health nor absence.
func TestStatusSaysWhatIsNotKnownYet(t *testing.T) {
	a := &app{free: func(string) (uint64, error) { return 1 << 40, nil }}
	view := func(survives int, members ...api.Member) (string, []checkView) {
		v := viewMesh(&api.Status{Members: append(members, api.Member{Name: "n1", State: "this"}), Coverage: api.Coverage{Segments: 1, BPS: 10000, Survives: survives}})
		found, wrong := a.ailments(&api.Overview{Status: engine.Status{}}, v)
		if wrong != nil {
			t.Error("nothing keeps the store from being written:", wrong)
		}
		return v.fields()[0].value, found
	}
	awaited, away, up := api.Member{Name: "n2", State: "away", Awaited: true}, api.Member{Name: "phone", State: "away"}, api.Member{Name: "n3", State: "up"}

	members, found := view(-1, awaited, away, up)
	if members != "2 there, not met again yet: n2, away: phone" {
		t.Error(members)
	}
	if len(found) != 1 || !strings.Contains(found[0].What, "not known yet: fcpd has not met n2 since") || !strings.Contains(found[0].Fix, "fcpctl status") {
		t.Error(found)
	}
	if members, found = view(0, away, up); members != "2 there, away: phone" || len(found) != 0 {
		t.Error("who is away for long is no illness:", members, found)
	}
	if _, found = view(-1, away, up); len(found) != 1 || !strings.Contains(found[0].Fix, "node health") {
		t.Error("what cannot be rebuilt now is:", found)
	}
}

// TestStatusHearsOfAQuota: the log knows what the free space does not show.
func TestStatusHearsOfAQuota(t *testing.T) {
	a := &app{free: func(string) (uint64, error) { return 1 << 40, nil }}
	found, wrong := a.ailments(&api.Overview{Status: engine.Status{Full: true}}, nil)
	if wrong == nil || exitOf(&exitError{wrong, exitFindings}) != exitFindings || len(found) != 1 || !strings.Contains(found[0].What, "quota") {
		t.Error(found, wrong)
	}
}
