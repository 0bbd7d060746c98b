package crashfs

import (
	"maps"
	"math/rand/v2"
)

// Options say what a power cut leaves of what was not synced, and which further
// damage the medium has. The zero value keeps nothing unsynced and damages
// nothing. Chances are probabilities from 0 to 1.
type Options struct {
	// Keep is the chance that an unsynced write reached the medium whole.
	Keep float64
	// Tear is the chance that a write which was not kept whole is torn: only
	// some of its sectors reached the medium. Otherwise it is lost.
	Tear float64
	// Sector is the size at which writes tear, in bytes: 512 or 4096. 0 picks
	// one of the two for each torn write.
	Sector int64
	// Stale lets each write of a file have its own fate, so that a later write
	// can be there while an earlier one is lost, and torn writes can lose any
	// of their sectors. Without it each file keeps a prefix of its writes, of
	// which the last may be torn and then keeps a prefix of its sectors.
	Stale bool

	// KeepEntries is the chance that an unsynced directory change happened;
	// each has its own fate.
	KeepEntries float64
	// SplitRenames gives the two halves of a rename fates of their own.
	SplitRenames bool

	// Misdirect is the chance that an unsynced write which was kept landed at
	// another sector of its file, over whatever was there, synced or not.
	Misdirect float64
	// Rot is the expected number of flipped bits per byte of the image.
	Rot float64
	// Flips are bits to invert, by path. Those outside of a file are ignored.
	Flips []Flip
}

// Flip names one bit: Bit 0 is the lowest of the byte at Offset.
type Flip struct {
	Path   string
	Offset int64
	Bit    uint
}

// Harsh is a mixture of everything a cut may do that a store must survive:
// writes and entries kept, lost, torn and out of order, but no damage to what
// was synced.
func Harsh() Options {
	return Options{Keep: 0.4, Tear: 0.5, Stale: true, KeepEntries: 0.5}
}

// CrashClone returns the image of a power cut that keeps nothing unsynced.
func (f *FS) CrashClone() *FS { return f.Crash(nil, Options{}) }

// Crash returns the image that a power cut at this moment leaves, and changes
// nothing in f. All choices come from rng, which may be nil when the options
// leave no choice. It may be called while operations run and after StopAt.
func (f *FS) Crash(rng *rand.Rand, o Options) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := cut{rng: rng, o: o, nodes: map[*node]*node{}, steps: map[*step]bool{}, image: New()}
	c.image.capacity, c.image.clock = f.capacity, f.clock
	c.image.root = c.directory(f.root)
	c.image.rot(rng, o.Rot)
	for _, fl := range o.Flips {
		_ = c.image.Flip(fl.Path, fl.Offset, fl.Bit)
	}
	return c.image
}

// cut is one power cut being worked out.
type cut struct {
	rng   *rand.Rand
	o     Options
	nodes map[*node]*node // already in the image, by source: hard links stay links
	steps map[*step]bool  // fate of steps already decided
	image *FS
}

func (c *cut) chance(p float64) bool {
	if p <= 0 {
		return false
	}
	return p >= 1 || c.rng.Float64() < p
}

// happened decides the fate of a directory change.
func (c *cut) happened(s *step) bool {
	if c.o.SplitRenames {
		return c.chance(c.o.KeepEntries)
	}
	if s.settled {
		return true
	}
	kept, decided := c.steps[s]
	if !decided {
		kept = c.chance(c.o.KeepEntries)
		c.steps[s] = kept
	}
	return kept
}

func (c *cut) directory(src *node) *node {
	entries := src.durableEntries
	if len(src.pendingEntries) > 0 {
		entries = maps.Clone(entries)
	}
	for _, ch := range src.pendingEntries {
		if !c.happened(ch.step) {
			continue
		}
		if ch.node == nil {
			delete(entries, ch.name)
		} else {
			entries[ch.name] = ch.node
		}
	}
	d := &node{dir: true, modTime: src.modTime}
	c.nodes[src] = d
	d.entries = make(map[string]*node, len(entries))
	for _, name := range sortedNames(entries) {
		child := c.child(entries[name])
		child.links++
		d.entries[name] = child
	}
	d.durableEntries = maps.Clone(d.entries)
	return d
}

func (c *cut) child(src *node) *node {
	if n := c.nodes[src]; n != nil {
		return n
	}
	if src.dir {
		return c.directory(src)
	}
	n := &node{modTime: src.modTime, current: src.durable.share()}
	c.nodes[src] = n
	for _, w := range src.pending {
		if !c.land(&n.current, w) && !c.o.Stale {
			break
		}
	}
	n.durable = n.current.share()
	c.image.used += n.space()
	return n
}

// land applies what reached the medium of a write and says whether that was
// all of it.
func (c *cut) land(to *content, w write) bool {
	switch {
	case c.chance(c.o.Keep):
		if c.chance(c.o.Misdirect) {
			w = c.misdirected(to, w)
		}
		to.apply(w)
		return true
	case c.chance(c.o.Tear):
		c.tear(to, w)
	}
	return false
}

func (c *cut) sector() int64 {
	if c.o.Sector != 0 {
		return c.o.Sector
	}
	if c.rng.IntN(2) == 0 {
		return 512
	}
	return 4096
}

// tear applies some of the sectors of a write. Sectors are aligned in the file,
// so a small write may be no more than one and survive or vanish as a whole.
func (c *cut) tear(to *content, w write) {
	sector := c.sector()
	first, last := w.off/sector, (w.off+w.n-1)/sector
	prefix := last - first + 1
	scattered := c.o.Stale && c.rng.IntN(2) == 0
	if !scattered {
		prefix = c.rng.Int64N(prefix + 1)
	}
	for s := first; s < first+prefix; s++ {
		if scattered && c.rng.IntN(2) == 0 {
			continue
		}
		to.apply(w.part(max(w.off, s*sector), min(w.off+w.n, (s+1)*sector)))
	}
}

// misdirected moves a write to another sector of the same file, at most one
// sector behind its end.
func (c *cut) misdirected(to *content, w write) write {
	sector := c.sector()
	sectors := max(to.size, w.off+w.n)/sector + 2
	shift := (1 + c.rng.Int64N(sectors-1)) * sector
	w.off = (w.off + shift) % (sectors * sector)
	return w
}
