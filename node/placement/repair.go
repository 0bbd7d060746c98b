package placement

import (
	"slices"
	"time"

	"fcp"
)

// Repair is what has to be done so that a segment is placed as its policy asks.
type Repair struct {
	Segment   fcp.SegmentID
	Minter    fcp.WriterID   // makes the new symbols; needs no zone key
	Gather    int            // symbols it has to fetch first; 0 when it has the whole
	To        []fcp.WriterID // devices that get a share; the minter may be one of them
	Share     int            // symbols of each share
	Lost      int            // symbols that devices held which do not count any more; a whole copy is its source symbols
	Emergency bool           // grace was void: what is online hardly rebuilds
}

// Moves is how many symbols cross the network.
func (r *Repair) Moves() int {
	n := r.Gather + r.Share*len(r.To)
	if slices.Contains(r.To, r.Minter) {
		n -= r.Share // it keeps what it mints
	}
	return n
}

// By lets another device do the repair.
func (r *Repair) By(s *Segment, id fcp.WriterID) {
	r.Minter, r.Gather = id, 0
	if h := s.holding(id); !h.Whole {
		r.Gather = max(0, s.Need()-h.Count)
	}
}

// margin is how many symbols more than needed must be online for grace to hold: a
// tenth of the segment. A policy that bears one loss has none to spare while a single
// device sleeps, which is not an emergency but every night.
func (p *Policy) margin(k int) int {
	if p.Devices()-p.Spread.Need < 2 {
		return 0
	}
	return ceil(k, 10)
}

// emergency reports whether what is online is so little that the grace of devices that
// are away is void.
func (s *Segment) emergency(p *Policy, online func(fcp.WriterID) bool) bool {
	sum, whole := s.among(online)
	return !whole && sum < s.Need()+p.margin(s.K)
}

// PlanRepair says what has to be done for s, or false when nothing has to be, or
// nothing can be: too little is online to rebuild it, or no device is left to take a
// share. Shares of devices that are away within their grace count as there, unless
// what is online would hardly rebuild.
//
// With lowMark > 0 nothing is done while that many shares are left: then repair fills
// up to what the policy asks, so that single losses are gathered and mended at once.
func PlanRepair(p *Policy, s *Segment, devices []Device, now time.Time, lowMark int) (r Repair, ok bool) {
	p = s.policy(p)
	state := make(map[fcp.WriterID]*Device, len(devices))
	for i := range devices {
		state[devices[i].ID] = &devices[i]
	}
	online := func(id fcp.WriterID) bool { d := state[id]; return d != nil && d.Online && !d.Lost }
	present := func(id fcp.WriterID) bool { d := state[id]; return d != nil && d.Present(now) }
	r = Repair{Segment: s.ID, Share: p.Share(s.K), Emergency: s.emergency(p, online)}
	if !s.Rebuilds(online) {
		return r, false
	}
	if r.Emergency {
		present = online
	}
	for _, h := range s.Holdings {
		switch {
		case present(h.Device):
		case h.Whole:
			r.Lost += max(h.Count, s.K)
		default:
			r.Lost += h.Count
		}
	}
	var holders []fcp.WriterID
	var usable []Device
	for _, id := range Rank(s.ID, ids(s.Holdings)) {
		if h := s.holding(id); present(id) && !p.Excluded[id] && (h.Whole || h.Count >= r.Share) {
			holders = append(holders, id)
		}
	}
	if lowMark > 0 && len(holders) >= lowMark {
		return r, false
	}
	for i := range devices {
		if id := devices[i].ID; online(id) || slices.Contains(holders, id) {
			usable = append(usable, devices[i])
		}
	}
	for _, id := range Plan(p, s.ID, usable, holders) {
		if !slices.Contains(holders, id) {
			r.To = append(r.To, id)
		}
	}
	if len(r.To) == 0 {
		return r, false
	}
	r.cheapest(s, devices, online)
	return r, true
}

// cheapest finds who can do it with the fewest symbols moved; among equals the
// segment's writer, then by the rank of the segment.
func (r *Repair) cheapest(s *Segment, devices []Device, online func(fcp.WriterID) bool) {
	best := -1
	for _, id := range append([]fcp.WriterID{s.Writer}, Rank(s.ID, idsOf(devices))...) {
		if !online(id) {
			continue
		}
		try := *r
		try.By(s, id)
		if n := try.Moves(); best < 0 || n < best {
			best, r.Minter, r.Gather = n, id, try.Gather
		}
	}
}

func (s *Segment) holding(id fcp.WriterID) Holding {
	for _, h := range s.Holdings {
		if h.Device == id {
			return h
		}
	}
	return Holding{Device: id}
}

func ids(hs []Holding) []fcp.WriterID {
	out := make([]fcp.WriterID, len(hs))
	for i := range hs {
		out[i] = hs[i].Device
	}
	return out
}

func idsOf(ds []Device) []fcp.WriterID {
	out := make([]fcp.WriterID, len(ds))
	for i := range ds {
		out[i] = ds[i].ID
	}
	return out
}

// PlanMove compares who holds a share with who would if s were placed today on the
// devices that are there or within their grace: a device that came, or a policy that
// changed, gives another plan. r says what is to be made, on devices that are online;
// ok is false when nothing is. drop lists the devices that may let their share go, and
// is empty until every device of the plan has its own. The writer's whole copy is never
// dropped. Repair comes first: call it when PlanRepair has nothing to do.
func PlanMove(p *Policy, s *Segment, devices []Device, now time.Time) (r Repair, drop []fcp.WriterID, ok bool) {
	p = s.policy(p)
	state := make(map[fcp.WriterID]*Device, len(devices))
	var present []Device
	for i := range devices {
		state[devices[i].ID] = &devices[i]
		if devices[i].Present(now) {
			present = append(present, devices[i])
		}
	}
	online := func(id fcp.WriterID) bool { d := state[id]; return d != nil && d.Online && !d.Lost }
	r = Repair{Segment: s.ID, Share: p.Share(s.K)}
	keep := []fcp.WriterID{s.Writer}
	for _, h := range s.Holdings { // no share moves to a suspect, and none from it before it must
		if d := state[h.Device]; d != nil && d.Suspect {
			keep = append(keep, h.Device)
		}
	}
	want := Plan(p, s.ID, present, keep)
	complete := len(want) >= min(p.Devices(), len(present))
	for _, id := range want {
		if h := s.holding(id); !h.Whole && h.Count < r.Share {
			complete = false
			if online(id) {
				r.To = append(r.To, id)
			}
		}
	}
	if complete {
		for _, h := range s.Holdings {
			if h.Device != s.Writer && !slices.Contains(want, h.Device) {
				drop = append(drop, h.Device)
			}
		}
		return r, drop, false
	}
	if len(r.To) == 0 || !s.Rebuilds(online) {
		return r, nil, false
	}
	r.cheapest(s, devices, online)
	return r, nil, true
}

// MayDrop reports whether s holds without one of its holders as well as its policy
// asks: what the others have that are online and for which proven holds rebuilds with
// the margin, and bears as many losses as the policy does.
func MayDrop(p *Policy, s *Segment, id fcp.WriterID, proven func(fcp.WriterID) bool) bool {
	p = s.policy(p)
	rest := func(x fcp.WriterID) bool { return x != id && proven(x) }
	return !s.emergency(p, rest) && s.MayLose(rest) >= p.Spread.Of-p.Spread.Need
}
