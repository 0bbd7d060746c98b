package engine

import (
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// TestOldEventsThatComeLateDoNotShortenTheHistory: what was replaced within the
// history stays, although a member's older events were taken in after that.
func TestOldEventsThatComeLateDoNotShortenTheHistory(t *testing.T) {
	s := newStore(t, 16)
	old := fcp.TimeFromWall(s.clock.Now())
	s.clock.Advance(100 * 24 * time.Hour)
	for v := range 4 {
		s.put("a", body("a", v))
	}
	feed := fcp.Feed{Zone: fcp.ZonePrivate, Writer: fcp.WriterID{9}, Incarnation: 7, Plane: fcp.PlaneControl}
	late := fcp.Event{Feed: feed, Seq: 1, Time: old, Content: fcp.Content{Kind: fcp.KindObjectTombstone, Key: []byte("other"), Generation: 1}}
	if n, err := s.ImportEvents(t.Context(), []fcp.Event{late}, make([][log.SaltSize]byte, 1)); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	s.seal()
	s.clock.Advance(time.Minute)
	s.checkpoint(authority.Retention{History: 90 * 24 * time.Hour})
	s.clock.Advance(25 * time.Hour)
	if r := s.compact(CompactOptions{MinGarbage: 1}); r.Events != 0 {
		t.Fatalf("%d events that were replaced a day ago went", r.Events)
	}
}
