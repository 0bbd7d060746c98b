package engine

import (
	"errors"
	"fmt"
	"testing"

	"fcp"
	"fcp/log"
)

// TestGuardForgetsOnlyWhatTheStateShows: however many names one group changes, each of
// them is known to have changed until the state shows it.
func TestGuardForgetsOnlyWhatTheStateShows(t *testing.T) {
	e := new(Engine)
	g := newGuard(e, 7)
	draft := func(i int, basis uint64) *log.Draft {
		d := &log.Draft{Zone: DefaultZone, Content: fcp.Content{Kind: fcp.KindObjectPut, Key: fmt.Appendf(nil, "name/%d", i)}}
		setBasis(d, basis)
		return d
	}
	position := uint64(0)
	for group := range 4 {
		shown := e.applied.Load()
		names := 5*recentCount/2 + group
		for i := range names {
			position++
			g.Admit(draft(i, shown), log.Placed{Position: position})
		}
		if g.floor > shown {
			t.Fatalf("group %d: forgot up to position %d, the state shows %d", group, g.floor, shown)
		}
		for i := range names {
			if _, err := g.Check(draft(i, shown)); !errors.Is(err, errHeadMoved) {
				t.Fatalf("group %d: name %d of %d was changed behind the look: %v", group, i, names, err)
			}
			if _, err := g.Check(draft(i, position)); err != nil {
				t.Fatalf("group %d: name %d was looked at after its change: %v", group, i, err)
			}
		}
		e.applied.Store(position)
	}
	if g.floor == 0 {
		t.Fatal("nothing was ever forgotten")
	}
	if n := len(g.recent[0].slots) + len(g.recent[1].slots); n > 16*recentCount {
		t.Fatalf("%d slots", n)
	}
}
