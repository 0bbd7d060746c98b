package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"fcp"
	"fcp/engine"
)

// Packing makes a device ready to be alone: it says which names it could read with
// nobody else there, and brings those that are wanted, the pinned first and then the
// ones it read most of late.

// PackOptions say how far Pack goes.
type PackOptions struct {
	For    time.Duration // how long the device will be alone
	Budget uint64        // bytes of segments that may be brought
	All    bool          // every name is wanted, not only those pinned and those read of late
	DryRun bool          // bring nothing
}

// PackReport says what a device can do alone.
type PackReport struct {
	At, Until time.Time
	Names     uint64 // of all zones that are open here
	Whole     uint64 // of them, that are read from this disk alone
	Bytes     uint64 // of payload of all names
	Wanted    uint64 // names that are pinned here or were read of late; with All every one
	Ready     uint64 // of them, that are whole
	Fetch     uint64 // bytes that were brought, or with DryRun would be
	Left      uint64 // bytes of segments of wanted names that are not here then
	Missing   []PackName
	Limits    []PackLimit
}

// PackName is a name that cannot be read alone.
type PackName struct {
	Zone   fcp.ZoneID
	Key    string
	Size   uint64 // of its payload
	Pinned bool
	Wanted bool
	Score  uint64 // as in Access
	Chosen bool   // it is to be brought
}

// PackLimit is something besides reading that does not work alone.
type PackLimit struct{ What, Why string }

// maxPackNames bounds the names that a report lists: the most wanted.
const maxPackNames = 100

// Pack reports what this device can read alone, and brings what is wanted and missing
// as far as the budget goes. What cannot be had is in the report.
func (n *Node) Pack(ctx context.Context, o PackOptions) (*PackReport, error) {
	list, _ := n.Accesses()
	var brought uint64
	for round := 0; ; round++ {
		p, err := n.planPack(ctx, list, o.All, true, o.Budget-min(o.Budget, brought))
		if err != nil {
			return nil, err
		}
		if !o.DryRun && round < pinRounds && len(p.chosen) > 0 {
			if came := p.fetch(ctx); came > 0 {
				brought += came
				continue
			}
			for i := range p.missing {
				p.missing[i].Chosen = false // it cannot be had now
			}
			p.bytes = 0
		}
		if ctx.Err() != nil {
			return nil, fcp.Errorf(fcp.CodeInterrupted, "packing: %d bytes were brought", brought)
		}
		return p.report(&o, brought)
	}
}

// packing is one look at what a device misses.
type packing struct {
	n       *Node
	sum     PackReport
	missing []packMissing // the most wanted first
	chosen  map[fcp.ZoneID]*looked
	bytes   uint64 // of the segments chosen
	left    uint64 // of those of wanted names that were not
}

type packMissing struct {
	PackName
	segments map[fcp.SegmentID]uint64
	tails    []fcp.ObjectID
}

// planPack finds out what names miss, and chooses what to bring within a budget. With
// rest false only wanted names are looked at.
func (n *Node) planPack(ctx context.Context, list []Access, all, rest bool, budget uint64) (*packing, error) {
	p := &packing{n: n, chosen: map[fcp.ZoneID]*looked{}}
	scores := map[accessKey]uint64{}
	for _, x := range list {
		scores[accessKey{x.Zone, x.Key}] = x.Score
	}
	pins, err := n.engine.Pins()
	if err != nil {
		return nil, err
	}
	for _, zone := range n.engine.Zones() {
		pinned := func(key string) bool {
			return slices.ContainsFunc(pins, func(x engine.Pin) bool { return x.Device == n.self && x.Zone == zone && x.Covers(key) })
		}
		want := func(e *engine.Entry) bool {
			_, known := scores[accessKey{zone, e.Key}]
			return rest || known || all || pinned(e.Key)
		}
		err := n.engine.Needs(ctx, zone, "", want, n.holdings(nil), func(x *engine.Needed) error {
			p.note(zone, x, all, pinned(x.Key), scores)
			return nil
		})
		if err != nil && !errors.Is(err, fcp.Denied) && !errors.Is(err, fcp.CodeZone) { // else this device does not hold the zone's keys
			return nil, err
		}
	}
	slices.SortFunc(p.missing, compareMissing)
	p.choose(budget)
	return p, nil
}

func compareMissing(a, b packMissing) int {
	first := func(x, y bool) int {
		switch {
		case x == y:
			return 0
		case x:
			return -1
		}
		return 1
	}
	return cmp.Or(first(a.Pinned, b.Pinned), first(a.Wanted, b.Wanted), -cmp.Compare(a.Score, b.Score), cmp.Compare(a.Zone, b.Zone), cmp.Compare(a.Key, b.Key))
}

func (p *packing) note(zone fcp.ZoneID, x *engine.Needed, all, pinned bool, scores map[accessKey]uint64) {
	score, known := scores[accessKey{zone, x.Key}]
	wanted := all || pinned || known
	p.sum.Names++
	p.sum.Bytes += x.Size
	if wanted {
		p.sum.Wanted++
	}
	if x.Whole() {
		p.sum.Whole++
		if wanted {
			p.sum.Ready++
		}
		return
	}
	m := packMissing{PackName: PackName{Zone: zone, Key: x.Key, Size: x.Size, Pinned: pinned, Wanted: wanted, Score: score}, tails: x.Tails}
	m.segments = make(map[fcp.SegmentID]uint64, len(x.Segments))
	for _, r := range x.Segments {
		m.segments[fcp.SegmentID(r.Segment)] = segmentSize(r)
	}
	p.missing = append(p.missing, m)
}

// choose takes wanted names in their order as long as all their segments fit. A name
// that does not fit leaves room for the ones behind it.
func (p *packing) choose(budget uint64) {
	left := map[fcp.SegmentID]bool{}
	for i := range p.missing {
		m := &p.missing[i]
		if !m.Wanted {
			continue
		}
		l := p.chosen[m.Zone]
		var size uint64
		for id, s := range m.segments {
			if l == nil || l.segments[id] == 0 {
				size += s
			}
		}
		if p.bytes+size > budget {
			for id, s := range m.segments {
				if !left[id] && (l == nil || l.segments[id] == 0) {
					left[id] = true
					p.left += s
				}
			}
			continue
		}
		if l == nil {
			l = &looked{segments: map[fcp.SegmentID]uint64{}}
			p.chosen[m.Zone] = l
		}
		p.bytes += size
		m.Chosen = true
		for id, s := range m.segments {
			l.segments[id] = s
			if left[id] {
				delete(left, id)
				p.left -= s
			}
		}
		l.tails = append(l.tails, m.tails...)
	}
}

// fetch brings what was chosen, and returns how many bytes came.
func (p *packing) fetch(ctx context.Context) (came uint64) {
	for _, zone := range p.n.engine.Zones() {
		if l := p.chosen[zone]; l != nil {
			came += p.n.bringMissing(ctx, zone, l)
		}
	}
	return came
}

func (p *packing) report(o *PackOptions, brought uint64) (*PackReport, error) {
	r := &p.sum
	r.At = p.n.now()
	r.Until = r.At.Add(o.For)
	r.Fetch, r.Left = brought, p.left
	if o.DryRun {
		r.Fetch = p.bytes
	} else {
		for _, l := range p.chosen {
			r.Left += l.bytes()
		}
	}
	for i := range p.missing[:min(len(p.missing), maxPackNames)] {
		r.Missing = append(r.Missing, p.missing[i].PackName)
	}
	var err error
	r.Limits, err = p.n.limitsAlone(r.Until)
	return r, err
}

// limitsAlone says what does not work while no other device is there.
func (n *Node) limitsAlone(until time.Time) (out []PackLimit, err error) {
	others := 0
	for _, m := range n.id.enrolled() {
		if m.Writer != n.self && !m.Revoked {
			others++
		}
	}
	if others == 0 {
		return nil, nil
	}
	out = append(out,
		PackLimit{"lease", fmt.Sprintf("a lease is granted by a majority of %d devices, so effects that need one do not happen", others+1)},
		PackLimit{"durable", "a write is on this device alone: --durable peers and placed wait for others"},
		PackLimit{"revocation", "what others revoke meanwhile is not known here"})
	secrets := 0
	for _, zone := range n.engine.Zones() {
		list, err := n.engine.Secrets(zone)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			if s.Threshold > 1 {
				secrets++
			}
		}
	}
	if secrets > 0 {
		out = append(out, PackLimit{"secret", fmt.Sprintf("%d shared secrets need shares of other devices", secrets)})
	}
	pins, err := n.engine.Pins()
	if err != nil {
		return nil, err
	}
	for _, p := range pins {
		if p.Device == n.self && !p.Until.IsZero() && p.Until.Before(until) {
			out = append(out, PackLimit{"pin", fmt.Sprintf("the pin of %q ends at %s", p.Key, p.Until.Format(time.RFC3339))})
		}
	}
	return out, nil
}
