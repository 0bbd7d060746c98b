package authority

import (
	"testing"
)

func TestUsualRequestIsPermitted(t *testing.T) {
	w := newWorld(t)
	for links := 1; links <= MaxLinks; links++ {
		_, r := w.usual(links)
		f := w.facts()
		d := Decide(f, r)
		wantDecision(t, d, ReasonAllow)
		equal(t, len(d.Charge), links+1)
		f.Cache = NewLinkCache(10)
		for range 3 {
			wantDecision(t, Decide(f, r), ReasonAllow)
		}
	}
}
