package placement

import (
	"cmp"
	"slices"
	"time"

	"fcp"
	"fcp/engine/symbols"
)

// Holding is what one device has of a segment. Shares of different devices do not
// overlap; a whole copy is as good as any K symbols.
type Holding struct {
	Device fcp.WriterID
	Count  int  // distinct symbols
	Whole  bool // the ciphertext itself: it rebuilds alone, and mints any symbol
}

// Segment is what placement knows of a segment: how many source symbols it has, how
// many bytes each is, and who holds what.
type Segment struct {
	ID         fcp.SegmentID
	K          int // source symbols
	SymbolSize int // bytes
	Writer     fcp.WriterID
	Holdings   []Holding
	Policy     *Policy // of its zone; nil: the one that is given
}

// policy is what s is placed by.
func (s *Segment) policy(p *Policy) *Policy {
	if s.Policy != nil {
		return s.Policy
	}
	return p
}

// Need is how many symbols count as enough: K and symbols.Spare more, with which a
// decode all but never has to ask for another (measured in coding).
func (s *Segment) Need() int { return s.K + symbols.Spare }

// among sums what the devices for which counts holds have.
func (s *Segment) among(counts func(fcp.WriterID) bool) (sum int, whole bool) {
	for _, h := range s.Holdings {
		if counts(h.Device) {
			sum += h.Count
			whole = whole || h.Whole
		}
	}
	return sum, whole
}

// Rebuilds reports whether the devices for which counts holds can rebuild s.
func (s *Segment) Rebuilds(counts func(fcp.WriterID) bool) bool {
	sum, whole := s.among(counts)
	return whole || sum >= s.Need()
}

// placed is how many symbols the policy asks of the devices for which counts holds
// and they have: a device counts at most its share, also one that has the whole.
func (s *Segment) placed(p *Policy, counts func(fcp.WriterID) bool) (total int) {
	share := s.policy(p).Share(s.K)
	for _, h := range s.Holdings {
		if counts(h.Device) {
			if h.Whole {
				total += share
			} else {
				total += min(h.Count, share)
			}
		}
	}
	return total
}

// holders counts the devices, of those for which counts holds, that have a share as the
// policy asks.
func (s *Segment) holders(p *Policy, counts func(fcp.WriterID) bool) (n int) {
	p = s.policy(p)
	for _, h := range s.Holdings {
		if counts(h.Device) && !p.Excluded[h.Device] && (h.Whole || h.Count >= p.Share(s.K)) {
			n++
		}
	}
	return n
}

// Asked reports whether as many devices hold a share as the policy asks for.
func (s *Segment) Asked(p *Policy, devices []Device, now time.Time) bool {
	state := make(map[fcp.WriterID]bool, len(devices))
	for i := range devices {
		state[devices[i].ID] = devices[i].Present(now)
	}
	return s.holders(p, func(id fcp.WriterID) bool { return state[id] }) >= s.policy(p).Devices()
}

// CoverageBPS is the symbols that the devices for which counts holds have of what the
// policy asks of each, over the source symbols: 15000 with any 2 of 3, where three
// copies would be 30000.
func (s *Segment) CoverageBPS(p *Policy, counts func(fcp.WriterID) bool) int {
	return (s.placed(p, counts)*bps + s.K/2) / s.K
}

// MayLose is how many of the devices for which counts holds may be lost, whichever
// they are, so that the rest still rebuilds; -1 when all of them together do not.
func (s *Segment) MayLose(counts func(fcp.WriterID) bool) int {
	if !s.Rebuilds(counts) {
		return -1
	}
	// The worst loss takes every whole copy and then the largest shares.
	wholes, left := 0, 0
	var shares []int
	for _, h := range s.Holdings {
		switch {
		case !counts(h.Device):
		case h.Whole:
			wholes++
		case h.Count > 0:
			shares = append(shares, h.Count)
			left += h.Count
		}
	}
	slices.SortFunc(shares, func(a, b int) int { return cmp.Compare(b, a) })
	lost := wholes
	for _, n := range shares {
		if left < s.Need() {
			break
		}
		left -= n
		lost++
	}
	return lost - 1
}

// WeakLinks returns the devices without which s does not rebuild, of those for which
// counts holds, in the order of its holdings.
func (s *Segment) WeakLinks(counts func(fcp.WriterID) bool) (weak []fcp.WriterID) {
	if !s.Rebuilds(counts) {
		return nil
	}
	for _, h := range s.Holdings {
		if counts(h.Device) && !s.Rebuilds(func(id fcp.WriterID) bool { return id != h.Device && counts(id) }) {
			weak = append(weak, h.Device)
		}
	}
	return weak
}

// Probability is the probability that s can be rebuilt when each device is there with
// the probability that up gives, independently of the others.
func (s *Segment) Probability(up func(fcp.WriterID) float64) float64 {
	need := s.Need()
	noWhole := 1.0
	// at[i] is the probability of i symbols; at[need] that of need and more.
	at := make([]float64, need+1)
	at[0] = 1
	for _, h := range s.Holdings {
		p := up(h.Device)
		if h.Whole {
			noWhole *= 1 - p
			continue
		}
		if h.Count <= 0 {
			continue
		}
		for i := need - 1; i >= 0; i-- {
			if at[i] > 0 {
				at[min(need, i+h.Count)] += at[i] * p
				at[i] *= 1 - p
			}
		}
	}
	return 1 - noWhole*(1-at[need])
}

// DomainLosses returns the names of the failure domains whose loss alone would leave
// s unreadable, ascending. Domains without a name are left out: WeakLinks has them.
func (s *Segment) DomainLosses(devices []Device, counts func(fcp.WriterID) bool) (fatal []string) {
	of := domains(devices)
	for _, name := range names(devices) {
		if !s.Rebuilds(func(id fcp.WriterID) bool { return of[id] != name && counts(id) }) {
			fatal = append(fatal, name)
		}
	}
	return fatal
}

// domains maps each device to the name of its domain, empty when it has none.
func domains(devices []Device) map[fcp.WriterID]string {
	of := make(map[fcp.WriterID]string, len(devices))
	for i := range devices {
		of[devices[i].ID] = devices[i].Domain
	}
	return of
}

// names returns the named domains, ascending.
func names(devices []Device) (out []string) {
	for i := range devices {
		if devices[i].Domain != "" {
			out = append(out, devices[i].Domain)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Loss is what would be left of a segment without some devices.
type Loss struct {
	Segment     fcp.SegmentID
	Readable    bool
	CoverageBPS int
	MayLose     int // further devices, whichever they are; -1 when it is unreadable
}

// WhatIf says for each segment what would be left without the devices of lost, of
// those that are not lost already.
func WhatIf(p *Policy, segments []Segment, devices []Device, lost map[fcp.WriterID]bool) []Loss {
	gone := make(map[fcp.WriterID]bool, len(devices))
	for i := range devices {
		gone[devices[i].ID] = devices[i].Lost || lost[devices[i].ID]
	}
	counts := func(id fcp.WriterID) bool { g, known := gone[id]; return known && !g }
	out := make([]Loss, len(segments))
	for i := range segments {
		s := &segments[i]
		out[i] = Loss{Segment: s.ID, Readable: s.Rebuilds(counts), CoverageBPS: s.CoverageBPS(p, counts), MayLose: s.MayLose(counts)}
	}
	return out
}
