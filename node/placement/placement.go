// Package placement decides which devices hold which symbols of a segment, what the
// loss of devices would cost, and what repair has to move (design 50-mesh,
// "Placement, coverage, repair").
//
// Everything here is a pure function of its arguments: no clock, no network, no
// state. Two nodes with the same members come to the same plan without speaking.
package placement

import (
	"bytes"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
	"fcp/engine/symbols"
)

// Class is the kind of a device, as far as its habits of being away go.
type Class string

// The device classes. An empty class counts as ClassLaptop.
const (
	ClassServer Class = "server"
	ClassLaptop Class = "laptop"
	ClassPhone  Class = "phone"
	ClassNAS    Class = "nas"
)

// Tags of a device's enrollment that placement reads: the owner signs them, so no
// device says them of itself.
const (
	TagClass = "class:" // a Class
	TagSite  = "site:"  // the failure domain
)

// Valid reports whether c is one of the classes, or empty.
func (c Class) Valid() bool {
	return c == "" || c == ClassServer || c == ClassLaptop || c == ClassPhone || c == ClassNAS
}

// Grace is how long a device of the class may be away before its symbols are made
// again elsewhere: a nap moves nothing.
func (c Class) Grace() time.Duration {
	switch c {
	case ClassServer, ClassNAS:
		return 10 * time.Minute
	case ClassPhone:
		return 7 * 24 * time.Hour
	}
	return 3 * 24 * time.Hour
}

// Device is what placement knows of a member of the mesh.
type Device struct {
	ID     fcp.WriterID
	Class  Class
	Domain string    // devices of one failure domain (a flat, an office) fail together; empty: one of its own
	First  uint32    // encoding symbol id with which its stripe begins (Stripes); 0: it has none
	Online bool      // there now
	Seen   time.Time // when it was there last; not looked at while Online
	Lost   bool      // revoked, or declared lost: it never counts again
	// Suspect: it claimed symbols that it did not have. What it proved counts; it gets no
	// new share.
	Suspect bool
}

// domain names the failure domain of d; one without a name is told from all others.
func (d *Device) domain() string {
	if d.Domain != "" {
		return d.Domain
	}
	return string(d.ID[:])
}

// Present reports whether what d holds counts as there: it is online, or it left no
// longer ago than its class may.
func (d *Device) Present(now time.Time) bool {
	return !d.Lost && (d.Online || now.Sub(d.Seen) <= d.Class.Grace())
}

// Policy says how the symbols of a segment are placed. Fractions are basis points,
// 10000 = 1.0. The zero value of every field but Spread asks for nothing.
type Policy struct {
	Spread            symbols.Policy        // any Need of Of devices rebuild
	MinNodes          int                   // devices at least
	MaxFractionBPS    int                   // of all symbols on one device, at most; 1 to 10000, 0: no limit
	TargetCoverageBPS int                   // symbols over source symbols, at least
	Domains           int                   // failure domains that may be lost whole
	LowMark           int                   // shares left below which repair begins; 0: with the first that is lost
	MinSources        int                   // devices that the symbols of a rebuild come from, where so many are there
	ControlCopies     int                   // devices that should have every control event; 0: not looked at
	Preferred         map[fcp.WriterID]bool // chosen before others
	Excluded          map[fcp.WriterID]bool // never chosen
}

// bps is 1.0 in basis points.
const bps = 10000

// Valid reports whether the numbers of p are in their ranges.
func (p *Policy) Valid() bool {
	return p.Spread.Valid() && p.MinNodes >= 0 && p.MinNodes <= symbols.MaxPlaces &&
		p.MaxFractionBPS >= 0 && p.MaxFractionBPS <= bps && (p.MaxFractionBPS == 0 || ceil(bps, p.MaxFractionBPS) <= symbols.MaxPlaces) &&
		p.TargetCoverageBPS >= 0 && p.TargetCoverageBPS <= symbols.MaxPlaces*bps &&
		p.Domains >= 0 && p.Domains < p.Spread.Of && p.LowMark >= 0 && p.LowMark <= p.Spread.Of && p.MinSources >= 0 && p.ControlCopies >= 0
}

// Devices is how many devices should hold symbols of a segment.
func (p *Policy) Devices() int {
	n := max(p.Spread.Of, p.MinNodes)
	if p.MaxFractionBPS > 0 {
		n = max(n, ceil(bps, p.MaxFractionBPS))
	}
	return n
}

// Share is how many symbols of a segment of k source symbols each of them holds, at
// most Stripe(k): with those it rebuilds alone.
func (p *Policy) Share(k int) int {
	return min(Stripe(k), max(p.Spread.Share(k), ceil(p.TargetCoverageBPS*k, bps*p.Devices())))
}

func ceil(a, b int) int { return (a + b - 1) / b }

// Plan chooses the devices that should hold a share of a segment, best first, at most
// p.Devices of them. Those of keep come first, which hold a share already, in their
// order; then preferred ones; among equals the order is by rendezvous hash of segment
// and device, so that a device that comes or goes moves no share of the others.
//
// A failure domain gets so few that p.Domains whole domains may be lost, as far as
// there are enough devices outside; where there are not, more devices in few domains
// are better than few devices.
func Plan(p *Policy, segment fcp.SegmentID, devices []Device, keep []fcp.WriterID) []fcp.WriterID {
	type candidate struct {
		d     *Device
		rank  int
		score [32]byte
	}
	all := make([]candidate, 0, len(devices))
	for i := range devices {
		d := &devices[i]
		if d.Lost || p.Excluded[d.ID] || d.Suspect && !slices.Contains(keep, d.ID) {
			continue
		}
		c := candidate{d: d, rank: len(keep) + 1, score: score(segment, d.ID)}
		if at := slices.Index(keep, d.ID); at >= 0 {
			c.rank = at
		} else if p.Preferred[d.ID] {
			c.rank = len(keep)
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b candidate) int {
		if a.rank != b.rank {
			return a.rank - b.rank
		}
		return bytes.Compare(b.score[:], a.score[:])
	})
	want := min(p.Devices(), len(all))
	limit := want // devices of one domain
	if p.Domains > 0 {
		limit = max(1, (want-p.Spread.Need)/p.Domains)
	}
	chosen := make([]fcp.WriterID, 0, want)
	inDomain := map[string]int{}
	var rest []fcp.WriterID
	for _, c := range all {
		if len(chosen) == want {
			break
		}
		if name := c.d.domain(); inDomain[name] < limit {
			inDomain[name]++
			chosen = append(chosen, c.d.ID)
		} else {
			rest = append(rest, c.d.ID)
		}
	}
	return append(chosen, rest[:min(len(rest), want-len(chosen))]...)
}

// score ranks devices for a segment (rendezvous hashing, Thaler and Ravishankar 1998).
func score(segment fcp.SegmentID, id fcp.WriterID) (s [32]byte) {
	var b [13 + 32 + len(id)]byte
	n := copy(b[:], "FCP2-PLACE-V1")
	n += copy(b[n:], segment[:])
	copy(b[n:], id[:])
	return blake3.Sum256(b[:])
}

// Rank orders devices by their claim to act for a segment when its writer cannot: the
// first that is online repairs. The order differs from segment to segment, so the
// work is shared.
func Rank(segment fcp.SegmentID, ids []fcp.WriterID) []fcp.WriterID {
	out := slices.Clone(ids)
	slices.SortFunc(out, func(a, b fcp.WriterID) int {
		x, y := score(segment, a), score(segment, b)
		return bytes.Compare(y[:], x[:])
	})
	return out
}
