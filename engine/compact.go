package engine

import (
	"cmp"
	"context"
	"slices"
	"time"

	"fcp"
	"fcp/log"
)

// CompactOptions configure Compact. The zero value compacts every zone that has a
// checkpoint.
type CompactOptions struct {
	Zones  []fcp.ZoneID  // nil: every zone whose keys are here; those without a usable checkpoint are skipped
	DryRun bool          // nothing is written; the result says exactly what would go
	Grace  time.Duration // how old a checkpoint must be; at least GCGrace
	// MaxBytes bounds what one call drops, in bytes of sealed bodies; 0: a quarter of
	// the bodies in sealed segments, at least 64 MiB.
	MaxBytes uint64
	// MinGarbage is the part of a segment in percent that must be garbage for the
	// segment to be rewritten; 0: 25.
	MinGarbage int
	Progress   func(Progress) // bytes of segments looked at ("mark"), then rewritten ("compact"); may be nil
}

const (
	defaultMinGarbage = 25
	minDeletionCap    = 64 << 20
)

// CompactResult says what Compact did or, in a dry run, would do.
type CompactResult struct {
	DryRun   bool
	Zones    []CompactZone
	Events   uint64 // dropped
	Bytes    uint64 // of bodies dropped
	Segments int    // replaced
	Into     int    // by so many
	Before   uint64 // bytes of ciphertext of the replaced segments
	After    uint64 // bytes of ciphertext in their place; 0 in a dry run
	Trimmed  uint64 // entries of names' history below the horizon that were removed from the state
	Capped   bool   // the cap kept garbage from being dropped
	Elapsed  time.Duration
}

// CompactZone is the part of one zone.
type CompactZone struct {
	Zone       fcp.ZoneID
	Skipped    string   // why nothing was looked at; "": it was
	Checkpoint uint64   // number of the checkpoint it is rooted in
	WaitsFor   []string // members that hold collection up: they acknowledged no newer mark; by name
	Horizon    uint64   // position below which reads fail afterwards; 0: nothing is dropped
	HorizonAt  time.Time
	Versions   uint64 // of names that stay
	Segments   int    // sealed data segments of the zone
	Garbage    uint64 // bytes of bodies that nothing keeps, those that are not worth a rewrite included
	Runs       []CompactRun
}

// CompactRun is one segment to be made out of neighbouring ones.
type CompactRun struct {
	Feed     log.FeedNo
	First    uint64 // sequence numbers
	Last     uint64
	Segments []fcp.SegmentID // that are replaced
	Events   uint64          // dropped
	Bytes    uint64          // of bodies dropped

	run     log.CompactRun
	objects []fcp.ObjectID // of the dropped events
	sizes   []uint64
	before  uint64
}

// Compact drops what nothing keeps and gives its space back: bodies of versions
// that were replaced or removed longer ago than the zone's retention asks for, and
// of uploads that never came to a name. Rooted in a checkpoint that the owner
// signed at least GCGrace ago: without one nothing is dropped (CodeUnauthorized), nor
// before every member of the zone that was not taken out acknowledged it
// (CodeDependency).
// Everything that is kept reads as before; hashes and proofs of what is dropped
// stay; reads below CompactZone.Horizon fail with CodeHorizon. Neither a backup nor
// another compaction runs meanwhile; reads and writes do. An interrupted call
// leaves a store in which some segments are compacted.
func (e *Engine) Compact(ctx context.Context, o CompactOptions) (r CompactResult, err error) {
	start := e.env.Now()
	r.DryRun = o.DryRun
	if o.MinGarbage == 0 {
		o.MinGarbage = defaultMinGarbage
	}
	if o.MinGarbage < 1 || o.MinGarbage > 100 {
		return r, fcp.Errorf(fcp.CodeInvalidArgument, "garbage of %d percent", o.MinGarbage)
	}
	e.maintenance.Lock()
	defer e.maintenance.Unlock()
	e.holds.begin()
	defer e.holds.end()
	c := collector{e: e, ctx: ctx, o: &o, r: &r}
	if err := c.plan(); err != nil {
		return r, err
	}
	if !o.DryRun {
		err = c.carryOut()
	}
	r.Elapsed = e.env.Now().Sub(start)
	return r, err
}

// collector is one call of Compact.
type collector struct {
	e   *Engine
	ctx context.Context
	o   *CompactOptions
	r   *CompactResult

	segments map[log.FeedNo][]log.SegmentInfo // of the data plane, in the feed's order
	total    uint64                           // bytes of ciphertext in them
	done     uint64
	left     uint64 // of the cap
}

func (c *collector) tell(stage string, n, total uint64) {
	c.done += n
	if c.o.Progress != nil {
		c.o.Progress(Progress{Stage: stage, Done: c.done, Total: total})
	}
}

// plan decides what goes.
func (c *collector) plan() error {
	if err := c.list(); err != nil {
		return err
	}
	if c.left = c.o.MaxBytes; c.left == 0 {
		c.left = max(c.total/4, minDeletionCap)
	}
	zones := c.o.Zones
	if zones == nil {
		for _, z := range c.e.Zones() {
			if c.e.ring.Load().zones[z] != nil {
				zones = append(zones, z)
			}
		}
	}
	var refused error
	planned := 0
	for _, zone := range zones {
		m, err := c.e.newMark(c.ctx, zone, c.o.Grace)
		if code := fcp.CodeOf(err); (code == fcp.CodeUnauthorized || code == fcp.CodeDependency) && c.o.Zones == nil {
			c.r.Zones = append(c.r.Zones, CompactZone{Zone: zone, Skipped: err.Error(), WaitsFor: m.waitsFor})
			refused = cmp.Or(refused, err)
			continue
		}
		if err != nil {
			return err
		}
		z, err := c.planZone(m)
		if err != nil {
			return err
		}
		planned++
		c.r.Zones = append(c.r.Zones, z)
	}
	if planned == 0 && refused != nil {
		return refused
	}
	return nil
}

// list finds the sealed data segments.
func (c *collector) list() error {
	c.segments = map[log.FeedNo][]log.SegmentInfo{}
	err := c.e.log.Segments(func(s log.SegmentInfo) error {
		if fcp.Plane(s.Remainder.Plane) != fcp.PlaneData {
			return nil
		}
		t, err := s.Card.Transmission()
		if err != nil {
			return err
		}
		no, _ := c.e.log.FeedNo(s.Remainder.Feed())
		c.segments[no] = append(c.segments[no], s)
		c.total += t.F
		return nil
	})
	for _, list := range c.segments {
		slices.SortFunc(list, func(a, b log.SegmentInfo) int { return cmp.Compare(a.Remainder.First, b.Remainder.First) })
	}
	return err
}

// surveyed is a segment with what is garbage in it.
type surveyed struct {
	info    *log.SegmentInfo
	size    uint64 // of its ciphertext
	events  uint64 // in it, dropped ones included
	drop    []uint64
	objects []fcp.ObjectID
	sizes   []uint64 // bytes of the bodies of drop
	bytes   uint64   // their sum
}

// planZone groups the segments of a zone that are worth it.
func (c *collector) planZone(m *mark) (z CompactZone, err error) {
	z = CompactZone{Zone: m.zone.zone, Checkpoint: m.checkpoint.Seq(), WaitsFor: m.waitsFor, Versions: m.versions}
	var feeds []log.FeedNo
	for no := range c.segments {
		if c.e.log.Feed(no).Zone == m.zone.zone {
			feeds = append(feeds, no)
		}
	}
	slices.Sort(feeds)
	for _, no := range feeds {
		g := grouping{c: c, m: m, no: no, z: &z, target: cmp.Or(c.e.opts.SegmentTarget, fcp.SegmentTarget)}
		for i := range c.segments[no] {
			if c.ctx.Err() != nil {
				return z, interrupted(c.ctx)
			}
			s, err := c.survey(m, no, &c.segments[no][i])
			if err != nil {
				return z, err
			}
			z.Segments++
			z.Garbage += s.bytes
			g.take(s)
			c.tell("mark", s.size, c.total)
		}
		g.close()
	}
	if len(z.Runs) > 0 {
		if z.Horizon, err = c.e.behind(m.zone.zone, m.horizon); err != nil {
			return z, err
		}
		z.HorizonAt = m.horizon.Wall()
	}
	return z, nil
}

// survey finds the garbage in a segment. Only segments whose index names an object
// that nothing keeps are opened.
func (c *collector) survey(m *mark, no log.FeedNo, info *log.SegmentInfo) (surveyed, error) {
	rem := &info.Remainder
	s := surveyed{info: info, events: rem.Last - rem.First + 1}
	t, err := info.Card.Transmission()
	if err != nil {
		return s, err
	}
	s.size = t.F
	covered := m.covers(rem.Feed())
	candidates := 0
	for i, off := range rem.Seqs {
		if rem.First+off <= covered && !m.keepsObject(fcp.ObjectID(rem.Objects[i*fcp.HashSize:][:fcp.HashSize])) {
			candidates++
		}
	}
	if candidates == 0 {
		return s, nil
	}
	err = c.e.log.ScanFeed(c.ctx, no, rem.First, rem.Last, log.VerifyNone, func(events []log.Applied) error {
		for i := range events {
			a := &events[i]
			if a.Dropped() || m.keeps(covered, a.Seq, a.Content.Kind, a.Content.Object) {
				continue
			}
			n := uint64(len(a.Content.Body))
			s.drop, s.objects, s.sizes = append(s.drop, a.Seq), append(s.objects, a.Content.Object), append(s.sizes, n)
			s.bytes += n
		}
		return nil
	})
	return s, err
}

// grouping joins neighbouring segments of a feed into runs that fit a segment.
type grouping struct {
	c      *collector
	m      *mark
	no     log.FeedNo
	z      *CompactZone
	target int // plaintext of a segment

	run     CompactRun
	size    int  // of what the run becomes
	objects int  // that stay in it
	want    bool // one of its segments is worth a rewrite
}

// What one segment stands for is bounded, so that its remainder fits an event.
const (
	maxRunSegments = 1024
	maxRunObjects  = 4096
)

// stubSize is about what is left of a dropped event: its hash, length and time.
const stubSize = fcp.HashSize + 6

// take adds the feed's next segment. One that is worth a rewrite begins a run; one
// that is small only lets itself be taken along.
func (g *grouping) take(s surveyed) {
	plain := s.info.Remainder.Plain
	worth := s.bytes > 0 && s.bytes*100 >= plain*uint64(g.c.o.MinGarbage)
	if !worth && plain >= uint64(g.target/2) {
		g.close()
		return
	}
	left := int(plain) - int(s.bytes) + len(s.drop)*stubSize
	objects := len(s.info.Remainder.Seqs) - len(s.drop)
	if n := len(g.run.Segments); n == maxRunSegments || n > 0 && (g.size+left > g.target || g.objects+objects > maxRunObjects) {
		g.close()
	}
	if len(g.run.Segments) == 0 {
		g.run = CompactRun{Feed: g.no, First: s.info.Remainder.First,
			run: log.CompactRun{Feed: g.no, Horizon: g.m.horizon}}
	}
	r := &g.run
	r.Last = s.info.Remainder.Last
	r.Segments, r.run.Segments = append(r.Segments, s.info.Card.Segment), append(r.run.Segments, s.info.No)
	r.run.Drop, r.objects, r.sizes = append(r.run.Drop, s.drop...), append(r.objects, s.objects...), append(r.sizes, s.sizes...)
	r.Events += uint64(len(s.drop))
	r.Bytes += s.bytes
	r.before += s.size
	g.size += left
	g.objects += objects
	g.want = g.want || worth
}

// close ends the run and keeps it when it is worth it and the cap allows it.
func (g *grouping) close() {
	run, want := g.run, g.want
	g.run, g.size, g.objects, g.want = CompactRun{}, 0, 0, false
	if !want {
		return
	}
	if run.Bytes > g.c.left {
		g.c.r.Capped = true
		return
	}
	g.c.left -= run.Bytes
	g.z.Runs = append(g.z.Runs, run)
	r := g.c.r
	r.Events += run.Events
	r.Bytes += run.Bytes
	r.Segments += len(run.Segments)
	r.Into++
	r.Before += run.before
}

// compactTogether bounds what is rewritten between two looks at the context.
const compactTogether = 16

// carryOut rewrites, then tidies the state.
func (c *collector) carryOut() (err error) {
	var runs []*CompactRun
	total := uint64(0)
	for i := range c.r.Zones {
		for j := range c.r.Zones[i].Runs {
			runs = append(runs, &c.r.Zones[i].Runs[j])
			total += c.r.Zones[i].Runs[j].before
		}
	}
	c.done = 0
	r := c.r
	r.Events, r.Bytes, r.Segments, r.Into, r.Before = 0, 0, 0, 0, 0 // what was planned; what is done is counted again
	for len(runs) > 0 && err == nil {
		if c.ctx.Err() != nil {
			err = interrupted(c.ctx)
			break
		}
		n := min(len(runs), compactTogether)
		err = c.rewrite(runs[:n], total)
		runs = runs[n:]
	}
	if len(c.r.Zones) > 0 {
		var swept error
		if r.Trimmed, swept = c.e.sweep(c.ctx); err == nil {
			err = swept
		}
	}
	return err
}

func (c *collector) rewrite(runs []*CompactRun, total uint64) error {
	list := make([]log.CompactRun, len(runs))
	for i, run := range runs {
		list[i] = run.run
		list[i].Drop = nil
		run.Events, run.Bytes = 0, 0
		for j, seq := range run.run.Drop {
			if c.e.holds.condemn(run.objects[j]) { // else a write is about to name it
				list[i].Drop = append(list[i].Drop, seq)
				run.Events++
				run.Bytes += run.sizes[j]
			}
		}
	}
	out, err := c.e.log.Compact(c.ctx, list)
	c.r.Events += out.Events
	c.r.Segments += out.Replaced
	c.r.Into += len(out.Segments)
	c.r.Before += out.Before
	c.r.After += out.After
	for i := range len(out.Segments) {
		c.r.Bytes += runs[i].Bytes
	}
	c.tell("compact", out.Before, total)
	return err
}
