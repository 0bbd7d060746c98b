package authority

import (
	"bytes"

	"fcp"
)

func compareHash(a, b fcp.Hash) int { return bytes.Compare(a[:], b[:]) }

func compareFeeds(a, b fcp.Feed) int {
	x, y := a.ID(), b.ID()
	return bytes.Compare(x[:], y[:])
}

// Cuts are what is void of each feed: everything above the lowest cut, and
// everything from the lowest proven fork on. The state depends only on the sets of
// revocations and forks added, not on their order or number. The zero Cuts is
// empty and ready. Not safe for concurrent use with Add.
type Cuts struct {
	lowest map[fcp.Feed]effectiveCut
}

type effectiveCut struct {
	cut    bool // a revocation cuts the feed at seq
	seq    uint64
	hash   fcp.Hash // the smallest of those given for seq
	forked bool     // two hashes were given for seq, so the event seq is void too
	fork   uint64   // lowest proven fork: void from here on; 0: none
}

// voidFrom returns the first void number; 0 when nothing is.
func (e *effectiveCut) voidFrom() uint64 {
	from := e.fork
	if e.cut {
		at := e.seq + 1
		if e.forked {
			at = max(e.seq, 1)
		}
		if from == 0 || at < from {
			from = at
		}
	}
	return from
}

// Add takes a revocation's cuts in. It returns the feeds of which what is void, or
// the cut's hash, changed, so that the engine folds them again.
func (c *Cuts) Add(r *Revocation) (changed []fcp.Feed) {
	for _, cut := range r.Cuts() {
		if c.addCut(cut) {
			changed = append(changed, cut.Feed)
		}
	}
	return changed
}

func (c *Cuts) addCut(cut Cut) bool {
	old := c.lowest[cut.Feed]
	next := old
	switch {
	case !old.cut || cut.Seq < old.seq:
		next.cut, next.seq, next.hash, next.forked = true, cut.Seq, cut.Hash, false
	case cut.Seq == old.seq && cut.Hash != old.hash:
		next.forked = true
		if compareHash(cut.Hash, old.hash) < 0 {
			next.hash = cut.Hash
		}
	}
	return c.set(cut.Feed, old, next)
}

// AddFork takes a proven fork in: everything of the feed from its point on is
// void. It reports whether that changed anything.
func (c *Cuts) AddFork(f *Fork) bool {
	old := c.lowest[f.Feed()]
	next := old
	if old.fork == 0 || f.Seq() < old.fork {
		next.fork = f.Seq()
	}
	return c.set(f.Feed(), old, next)
}

func (c *Cuts) set(feed fcp.Feed, old, next effectiveCut) bool {
	if next == old {
		return false
	}
	if c.lowest == nil {
		c.lowest = make(map[fcp.Feed]effectiveCut)
	}
	c.lowest[feed] = next
	return true
}

// VoidFrom returns the first number of the feed that is void; 0 when none is. Two
// cuts that name different events for one number void that number too: one of them
// is a fork.
func (c *Cuts) VoidFrom(feed fcp.Feed) uint64 {
	e := c.lowest[feed]
	return e.voidFrom()
}

// Void reports whether event seq of the feed is void.
func (c *Cuts) Void(feed fcp.Feed, seq uint64) bool {
	from := c.VoidFrom(feed)
	return from != 0 && seq >= from
}

// Touched reports whether any cut or fork names the feed.
func (c *Cuts) Touched(feed fcp.Feed) bool {
	_, ok := c.lowest[feed]
	return ok
}

// Lowest returns the effective cut of the feed, forks aside. forked means that the
// event Seq itself is void. When the stored event Seq has another hash than the
// cut, the stored feed left the honest one earlier, and the caller must not trust
// it.
func (c *Cuts) Lowest(feed fcp.Feed) (cut Cut, forked, ok bool) {
	e := c.lowest[feed]
	if !e.cut {
		return Cut{}, false, false
	}
	return Cut{Feed: feed, Seq: e.seq, Hash: e.hash}, e.forked, true
}

// ForkOf returns the lowest proven fork of the feed; 0 when there is none.
func (c *Cuts) ForkOf(feed fcp.Feed) uint64 { return c.lowest[feed].fork }
