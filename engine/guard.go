package engine

import (
	"encoding/binary"

	"github.com/zeebo/xxh3"

	"fcp"
	"fcp/log"
)

// guard holds what the committer knows about names and idempotency tags that the
// state may not show yet. A writer looks its name up in its own goroutine and
// puts the position its view reflected into the draft (basis); the committer then
// only has to know whether the name changed behind the basis. Names that changed
// lately are in recent; a basis older than what recent remembers is answered from
// the state, after the fact and only then.
//
// Check and Admit are called by the one committer; nothing here is locked.
//
// Only this node's own appends are remembered. A version of another node that is
// taken in between a writer's look and its commit makes a sibling, which is what
// the two are: neither writer saw the other.
type guard struct {
	e    *Engine
	seed uint64

	recent [2]recentNames // the newer one first
	tags   [2]map[recentTag]log.Placed
	floor  uint64 // every change behind this position is in recent and tags

	record  nameRecord
	buf     []byte
	earlier log.Placed
}

type recentTag [fcp.IdempotencySize]byte

// recentCount is how many changes each half of the memory holds: more than writers
// under way change between a look and its commit, and few enough for both halves to
// stay in the cache.
const recentCount = 1 << 12

// recentNames is an open-addressing table from the hash of a name to the position
// of its last change. Two names with one hash make a writer look again, no more.
type recentNames struct {
	slots []recentSlot
	used  int
	last  uint64 // position of the last entry
}

type recentSlot struct{ hash, position uint64 }

func (t *recentNames) slot(hash uint64) *recentSlot {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		if s := &t.slots[i]; s.position == 0 || s.hash == hash {
			return s
		}
	}
}

// grow doubles the table.
func (t *recentNames) grow() {
	old := t.slots
	t.slots = make([]recentSlot, 2*len(old))
	for _, s := range old {
		if s.position != 0 {
			*t.slot(s.hash) = s
		}
	}
}

func newGuard(e *Engine, seed uint64) *guard {
	g := &guard{e: e, seed: seed}
	for i := range g.recent {
		g.recent[i].slots = make([]recentSlot, 2*recentCount)
		g.tags[i] = map[recentTag]log.Placed{}
	}
	return g
}

// setBasis marks a draft as built on the state at the given position.
func setBasis(d *log.Draft, position uint64) {
	d.Expect.Mode = log.ExpectReplaces
	binary.BigEndian.PutUint64(d.Expect.Head[:], position)
}

func basisOf(d *log.Draft) uint64 { return binary.BigEndian.Uint64(d.Expect.Head[:]) }

func (g *guard) hash(d *log.Draft) uint64 {
	return xxh3.HashSeed(d.Content.Key, g.seed) ^ xxh3.HashStringSeed(string(d.Zone), ^g.seed)
}

// Check implements log.Guard. It looks only at drafts with a basis: governance
// objects have no heads to protect.
func (g *guard) Check(d *log.Draft) (*log.Placed, error) {
	if d.Expect.Mode != log.ExpectReplaces {
		return nil, nil
	}
	basis := basisOf(d)
	if len(d.Content.Idempotency) > 0 {
		p, err := g.known(d, basis)
		if p != nil || err != nil {
			return p, err
		}
	}
	if !d.Content.Kind.Info().Named {
		return nil, nil
	}
	h := g.hash(d)
	for i := range g.recent {
		if s := g.recent[i].slot(h); s.position > basis {
			return nil, errHeadMoved
		}
	}
	if basis >= g.floor {
		return nil, nil
	}
	same, err := g.e.headsAre(&g.record, &g.buf, d)
	if err == nil && !same {
		err = errHeadMoved
	}
	return nil, err
}

// errHeadMoved tells a writer to look again. It never reaches a caller as it is.
var errHeadMoved error = fcp.Errorf(fcp.CodeConflict, "the name changed while it was being written")

// known returns the place of the first event with the draft's tag.
func (g *guard) known(d *log.Draft, basis uint64) (*log.Placed, error) {
	tag := recentTag(d.Content.Idempotency)
	for i := range g.tags {
		if p, ok := g.tags[i][tag]; ok {
			g.earlier = p
			return &g.earlier, nil
		}
	}
	if basis >= g.floor {
		return nil, nil
	}
	p, ok, err := g.e.tagged(d.Zone, d.Content.Idempotency)
	if !ok || err != nil {
		return nil, err
	}
	g.earlier = log.Placed{Position: p.position, Feed: p.feed, Seq: p.seq}
	return &g.earlier, nil
}

// Admit implements log.Guard.
func (g *guard) Admit(d *log.Draft, p log.Placed) {
	if len(d.Content.Idempotency) > 0 {
		g.tags[0][recentTag(d.Content.Idempotency)] = p
	}
	if !d.Content.Kind.Info().Named {
		return
	}
	t := &g.recent[0]
	h := g.hash(d)
	s := t.slot(h)
	if s.position == 0 {
		s.hash = h
		t.used++
	}
	s.position = p.Position
	t.last = p.Position
	if t.used < recentCount {
		return
	}
	if g.recent[1].last <= g.e.applied.Load() {
		g.turn()
	} else if 2*t.used >= len(t.slots) {
		t.grow()
	}
}

// turn forgets the older half, whose last change the state shows by now.
func (g *guard) turn() {
	g.recent[0], g.recent[1] = g.recent[1], g.recent[0]
	g.tags[0], g.tags[1] = g.tags[1], g.tags[0]
	old := &g.recent[0]
	g.floor = max(g.floor, old.last)
	if len(old.slots) > 2*recentCount {
		old.slots = make([]recentSlot, 2*recentCount)
	} else {
		clear(old.slots)
	}
	old.used, old.last = 0, 0
	clear(g.tags[0])
}
