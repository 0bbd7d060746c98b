package node

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
	"fcp/engine/symbols"
	"fcp/node/simnet"
)

// lateReadTime has a member that holds nothing read what was written, from three that
// hold half of it each and cannot see the writer. One of them goes silent without a
// word so long after the beginning, unless that is 0. It returns how long the reading
// took in virtual time.
func lateReadTime(t *testing.T, silent time.Duration) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMeshOf(t, 5, 17, simnet.Link{Delay: 5 * time.Millisecond, Rate: 4 << 20, Queue: 1 << 20},
			func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 2, Of: 4} })
		defer s.close()
		s.together()
		body := randomBytes(900_000, 4)
		s.put(0, "big", body)
		s.sealed(0)
		id := s.nodes[0].n.ownSegments()[0]
		reader := slices.IndexFunc(s.nodes, func(x *member) bool { return len(x.n.sharesOf(id)) == 0 && x != s.nodes[0] })
		holders := s.holders(id)
		if reader < 0 || len(holders) != 3 {
			t.Fatal("held by", holders)
		}
		s.kill(0)
		time.Sleep(3 * time.Second) // inventories travel
		began := time.Now()
		if silent > 0 {
			time.AfterFunc(silent, func() { s.net.Cut(host(reader), host(holders[0])) })
		}
		got, err := s.get(reader, "big")
		took = time.Since(began)
		time.Sleep(silent)
		if err != nil || !bytes.Equal(got, body) {
			t.Fatal("read:", err)
		}
		s.net.HealAll()
	})
	return took
}

// Who is silent is not waited for while others can give as many symbols: neither until
// the question is void nor until the session ends.
func TestASilentPeerDoesNotHoldARebuildUp(t *testing.T) {
	all := lateReadTime(t, 0)
	for _, after := range []time.Duration{all / 4, all / 2} {
		two := lateReadTime(t, after)
		t.Logf("%v from three, %v when one is silent after %v", all, two, after)
		if two > all+requestLife/10 {
			t.Errorf("who is silent after %v holds a rebuild up: %v, %v without", after, two, all)
		}
	}
}

// What a silent peer was asked for may be asked of others, and what comes of it late is
// welcome all the same.
func TestALatePeersSymbolsAreAskedOfOthers(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	newPart := func(silent time.Duration, esis ...uint32) *part {
		p := &part{session: &Session{}, heard: now.Add(-silent), asked: map[uint64]*asking{}}
		p.asked[1] = &asking{left: roaring.BitmapOf(esis...), at: p.heard, count: len(esis)}
		p.session.answers.saw(p.heard, time.Millisecond)
		return p
	}
	quick, silent := newPart(lateLeast, 1, 2), newPart(lateLeast+1, 5, 6, 7)
	f := &rebuilding{collector: &collector{parts: []*part{quick, silent}, asked: roaring.BitmapOf(1, 2, 5, 6, 7)}}
	f.findLate(now)
	if quick.late || !silent.late || !f.asked.Equals(roaring.BitmapOf(1, 2)) {
		t.Errorf("late: %v and %v, under way: %v", quick.late, silent.late, f.asked)
	}
	if got := silent.session.answers.expect(now); got != lateLeast+1 {
		t.Error("of who was waited for is expected", got)
	}
	f.answered(silent)
	if silent.late || !f.asked.Equals(roaring.BitmapOf(1, 2, 5, 6, 7)) {
		t.Errorf("after an answer: late %v, under way %v", silent.late, f.asked)
	}
}

// Salts that were given a moment ago are not given again, and later they are.
func TestSaltsAreGivenOnceInAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSimMesh(t, 2, 18, simnet.Link{Delay: time.Millisecond})
		defer s.close()
		s.together()
		s.put(0, "big", randomBytes(100_000, 4))
		s.sealed(0)
		id := s.nodes[0].n.ownSegments()[0]
		giver, asker := s.nodes[0].n.session(s.nodes[1].n.self), s.nodes[1].n.session(s.nodes[0].n.self)
		given := func() time.Time {
			giver.saltsGiven.mu.Lock()
			defer giver.saltsGiven.mu.Unlock()
			return giver.saltsGiven.at[id]
		}
		ask := func() {
			t.Helper()
			if err := asker.send(normal, &saltsWanted{Segments: []fcp.SegmentID{id}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(lately / 10)
		}
		time.Sleep(2 * lately) // what placing the shares gave
		began := time.Now()
		ask()
		first := given()
		if first.Before(began) {
			t.Fatal("they were not given")
		}
		for range 8 {
			if ask(); !given().Equal(first) {
				t.Fatalf("given again after %v", given().Sub(first))
			}
		}
		time.Sleep(lately)
		if ask(); !given().After(first) {
			t.Error("they are not given any more")
		}
	})
}

func TestWhatWasGivenLatelyIsBounded(t *testing.T) {
	var g givenLately
	now := time.Unix(1_800_000_000, 0)
	id := fcp.SegmentID{1}
	if g.lately(id, now) {
		t.Error("nothing was given yet")
	}
	g.note(id, now)
	if !g.lately(id, now.Add(lately-1)) || g.lately(id, now.Add(lately)) || g.lately(fcp.SegmentID{2}, now) {
		t.Error("what was given is not known, or for too long")
	}
	for i := range 3 * maxLately {
		g.note(fcp.SegmentID{byte(i), byte(i >> 8), 3}, now)
		if len(g.at) > maxLately {
			t.Fatal(len(g.at), "segments are remembered")
		}
	}
	if !g.lately(fcp.SegmentID{byte((3*maxLately - 1) % 256), byte((3*maxLately - 1) >> 8), 3}, now) {
		t.Error("the last one is not remembered")
	}
}
