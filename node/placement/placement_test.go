package placement

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"fcp"
	"fcp/engine/symbols"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func device(i int) (id fcp.WriterID) {
	binary.BigEndian.PutUint32(id[:], uint32(i)+1)
	return id
}

func segmentID(i int) (id fcp.SegmentID) {
	binary.BigEndian.PutUint32(id[:], uint32(i)+1)
	return id
}

func fleet(n int) []Device {
	out := make([]Device, n)
	for i := range out {
		out[i] = Device{ID: device(i), Online: true}
	}
	return out
}

func drawPolicy(t *rapid.T) *Policy {
	of := rapid.IntRange(1, 8).Draw(t, "of")
	return &Policy{
		Spread:            symbols.Policy{Need: rapid.IntRange(1, of).Draw(t, "need"), Of: of},
		MinNodes:          rapid.IntRange(0, 10).Draw(t, "min"),
		MaxFractionBPS:    rapid.SampledFrom([]int{0, 1000, 2500, 3334, 5000, bps}).Draw(t, "fraction"),
		TargetCoverageBPS: rapid.SampledFrom([]int{0, bps, 15000, 30000, 50000}).Draw(t, "coverage"),
		Domains:           rapid.IntRange(0, of-1).Draw(t, "domains"),
	}
}

// placed gives every device of the plan its share.
func placed(p *Policy, id fcp.SegmentID, k int, devices []Device) Segment {
	s := Segment{ID: id, K: k, SymbolSize: 1280}
	for _, d := range Plan(p, id, devices, nil) {
		s.Holdings = append(s.Holdings, Holding{Device: d, Count: p.Share(k)})
	}
	return s
}

func everyone(fcp.WriterID) bool { return true }

// A plan keeps what its policy asks, whatever the policy, when there are enough
// devices: any Need of the devices rebuild, no device has more than its part, the
// coverage is reached, and whole domains may go.
func TestPlanKeepsThePolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		if !p.Valid() {
			t.Fatalf("policy %+v", p)
		}
		devices := fleet(rapid.IntRange(p.Devices(), 20).Draw(t, "n"))
		k := rapid.IntRange(1, 2000).Draw(t, "k")
		s := placed(p, segmentID(rapid.IntRange(0, 1000).Draw(t, "segment")), k, devices)
		if len(s.Holdings) != p.Devices() {
			t.Fatalf("%d devices, want %d", len(s.Holdings), p.Devices())
		}
		if got, want := s.MayLose(everyone), p.Devices()-p.Spread.Need; got < want {
			t.Fatalf("may lose %d, want %d", got, want)
		}
		total := 0
		for _, h := range s.Holdings {
			total += h.Count
		}
		if p.MaxFractionBPS > 0 && s.Holdings[0].Count*bps > p.MaxFractionBPS*total {
			t.Fatalf("one device has %d of %d", s.Holdings[0].Count, total)
		}
		if got := s.CoverageBPS(p, everyone); got < p.TargetCoverageBPS && s.Holdings[0].Count < Stripe(k) {
			t.Fatalf("coverage %d", got)
		}
		if slices.ContainsFunc(s.Holdings, func(h Holding) bool { return p.Excluded[h.Device] }) {
			t.Fatal("an excluded device was chosen")
		}
	})
}

// With as many domains as the limit of each asks for, any p.Domains of them may go.
func TestPlanSpreadsOverDomains(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		if p.Domains == 0 || p.Devices() == p.Spread.Need || p.Devices()-p.Spread.Need < p.Domains {
			t.Skip("no domain may be lost")
		}
		limit := (p.Devices() - p.Spread.Need) / p.Domains
		count := ceil(p.Devices(), limit)
		var devices []Device
		for d := range count {
			for range limit {
				devices = append(devices, Device{ID: device(len(devices)), Online: true, Domain: string(rune('a' + d))})
			}
		}
		s := placed(p, segmentID(rapid.IntRange(0, 1000).Draw(t, "segment")), 100, devices)
		of := domains(devices)
		gone := map[string]bool{}
		for _, i := range rapid.SliceOfNDistinct(rapid.IntRange(0, count-1), p.Domains, p.Domains, rapid.ID[int]).Draw(t, "gone") {
			gone[string(rune('a'+i))] = true
		}
		if !s.Rebuilds(func(id fcp.WriterID) bool { return !gone[of[id]] }) {
			t.Fatalf("%d of %d domains gone, %v", len(gone), count, s.Holdings)
		}
	})
}

// A device that comes moves a share only to itself, and one that goes moves only its own.
func TestPlanMovesLittle(t *testing.T) {
	p := &Policy{Spread: symbols.Policy{Need: 2, Of: 5}}
	devices := fleet(30)
	given := map[fcp.WriterID]int{}
	for i := range 2000 {
		before := Plan(p, segmentID(i), devices[:29], nil)
		after := Plan(p, segmentID(i), devices, nil)
		for _, id := range after {
			if id != device(29) && !slices.Contains(before, id) {
				t.Fatalf("a share moved to %v", id)
			}
			given[id]++
		}
	}
	for id, n := range given { // 10000 shares over 30 devices
		if n < 250 || n > 420 {
			t.Errorf("%v has %d shares of 333", id, n)
		}
	}
}

// model is the plain way to see how many may be lost: try every set.
func mayLoseModel(s *Segment) int {
	n := len(s.Holdings)
	least := n + 1
	for set := range 1 << n {
		left := func(id fcp.WriterID) bool {
			i := slices.IndexFunc(s.Holdings, func(h Holding) bool { return h.Device == id })
			return set>>i&1 == 0
		}
		lost := 0
		for i := range n {
			lost += set >> i & 1
		}
		if !s.Rebuilds(left) {
			least = min(least, lost)
		}
	}
	return least - 1
}

func drawSegment(t *rapid.T, devices int) *Segment {
	s := &Segment{ID: segmentID(1), K: rapid.IntRange(1, 40).Draw(t, "k"), SymbolSize: 1280}
	for i := range devices {
		s.Holdings = append(s.Holdings, Holding{Device: device(i), Count: rapid.IntRange(0, 50).Draw(t, "count"), Whole: rapid.IntRange(0, 5).Draw(t, "whole") == 0})
	}
	return s
}

func TestAssessAgainstEverySet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "devices")
		s := drawSegment(t, n)
		if got, want := s.MayLose(everyone), mayLoseModel(s); got != want {
			t.Fatalf("may lose %d, every set says %d: %+v", got, want, s.Holdings)
		}
		up := make([]float64, n)
		for i := range up {
			up[i] = rapid.Float64Range(0, 1).Draw(t, "up")
		}
		want := 0.0
		for set := range 1 << n {
			p := 1.0
			for i := range n {
				if set>>i&1 == 1 {
					p *= up[i]
				} else {
					p *= 1 - up[i]
				}
			}
			if s.Rebuilds(func(id fcp.WriterID) bool { return set>>(binary.BigEndian.Uint32(id[:])-1)&1 == 1 }) {
				want += p
			}
		}
		if got := s.Probability(func(id fcp.WriterID) float64 { return up[binary.BigEndian.Uint32(id[:])-1] }); math.Abs(got-want) > 1e-9 {
			t.Fatalf("probability %v, every set says %v", got, want)
		}
		lost := map[fcp.WriterID]bool{device(0): true}
		if got := WhatIf(&Policy{Spread: symbols.Policy{Need: 1, Of: 1}}, []Segment{*s}, fleet(n), lost)[0]; got.Readable != s.Rebuilds(func(id fcp.WriterID) bool { return !lost[id] }) {
			t.Fatalf("what if %+v", got)
		}
		for _, w := range s.WeakLinks(everyone) {
			if s.MayLose(everyone) != 0 || s.Rebuilds(func(id fcp.WriterID) bool { return id != w }) {
				t.Fatalf("%v is no weak link", w)
			}
		}
	})
}

// Repair brings every segment that it can to its policy, moves nothing for a device
// that is only away for less than its grace, and never asks one that is away.
func TestRepairReachesThePolicy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		p.Domains = 0
		n := p.Devices() + rapid.IntRange(0, 4).Draw(t, "more")
		devices := fleet(n)
		s := placed(p, segmentID(rapid.IntRange(0, 1000).Draw(t, "segment")), rapid.IntRange(1, 1000).Draw(t, "k"), devices)
		s.Writer = s.Holdings[0].Device
		s.Holdings[0].Whole = rapid.Bool().Draw(t, "whole")
		for i := range devices {
			switch rapid.IntRange(0, 5).Draw(t, "fate") {
			case 0:
				devices[i].Lost = true
			case 1:
				devices[i].Online, devices[i].Seen = false, now.Add(-30*24*time.Hour)
			case 2:
				devices[i].Online, devices[i].Seen = false, now.Add(-time.Hour)
			}
		}
		online := map[fcp.WriterID]bool{}
		missing := false // something other than a nap
		for i := range devices {
			online[devices[i].ID] = devices[i].Online && !devices[i].Lost
			missing = missing || !devices[i].Present(now) && s.holding(devices[i].ID).Count > 0
		}
		isOnline := func(id fcp.WriterID) bool { return online[id] }
		r, ok := PlanRepair(p, &s, devices, now, 0)
		if !ok {
			if s.Rebuilds(isOnline) && missing && !s.emergency(p, isOnline) {
				// There must be no device left that could take a share.
				for i := range devices {
					if id := devices[i].ID; online[id] && s.holding(id).Count == 0 {
						holders := 0
						for _, h := range s.Holdings {
							for j := range devices {
								if devices[j].ID == h.Device && devices[j].Present(now) {
									holders++
								}
							}
						}
						if holders < p.Devices() {
							t.Fatalf("%v could take a share", id)
						}
					}
				}
			}
			return
		}
		if !missing && !r.Emergency {
			t.Fatalf("moved for a nap: %+v", r)
		}
		if !online[r.Minter] || !s.Rebuilds(isOnline) {
			t.Fatalf("minter %v", r.Minter)
		}
		if r.Gather > 0 && s.holding(r.Minter).Whole {
			t.Fatal("gathers what it has")
		}
		for _, id := range r.To {
			if !online[id] || s.holding(id).Count > 0 && !s.holding(id).Whole {
				t.Fatalf("a share to %v", id)
			}
			s.Holdings = append(s.Holdings, Holding{Device: id, Count: r.Share})
		}
		if again, ok := PlanRepair(p, &s, devices, now, 0); ok {
			t.Fatalf("repair is not done: %+v then %+v", r, again)
		}
	})
}

func TestRepairCosts(t *testing.T) {
	p := &Policy{Spread: symbols.Policy{Need: 2, Of: 3}}
	devices := fleet(4)
	s := Segment{ID: segmentID(7), K: 800, SymbolSize: 1280, Writer: device(0), Holdings: []Holding{
		{Device: device(0), Whole: true}, {Device: device(1), Count: 402}, {Device: device(2), Count: 402}}}
	// The writer is lost, and with it a whole copy: a new device gathers as much.
	devices[0].Lost = true
	r, ok := PlanRepair(p, &s, devices, now, 0)
	if !ok || r.Minter != device(3) && !slices.Contains(r.To, device(3)) || r.Moves() > 800*13/10 {
		t.Fatalf("%+v moves %d, %v", r, r.Moves(), ok)
	}
	// Another is lost: the writer mints, and only the share moves.
	devices[0].Lost, devices[1].Lost = false, true
	r, ok = PlanRepair(p, &s, devices, now, 0)
	if !ok || r.Minter != device(0) || r.Moves() != 402 {
		t.Fatalf("%+v moves %d, %v", r, r.Moves(), ok)
	}
	// With a low mark of two it waits for the next loss.
	if _, ok := PlanRepair(p, &s, devices, now, 2); ok {
		t.Fatal("repaired above the low mark")
	}
	// One of three sleeps: that is every night.
	devices[1].Lost = false
	devices[0].Online, devices[0].Seen = false, now
	if r, ok := PlanRepair(p, &s, devices, now, 0); ok {
		t.Fatalf("moved for a nap: %+v", r)
	}
	// Two of four sleep, and what is awake just rebuilds: not one device may wait.
	p.Spread.Of = 4
	s.Holdings = append(s.Holdings, Holding{Device: device(3), Count: 402})
	devices = append(devices, Device{ID: device(4), Online: true})
	devices[1].Online, devices[1].Seen = false, now
	if r, ok := PlanRepair(p, &s, devices, now, 0); !ok || !r.Emergency || r.To[0] != device(4) {
		t.Fatalf("no emergency: %+v, %v", r, ok)
	}
}

// Moving brings every segment to where it would be placed today, drops nothing before
// all of that is there, and then only what the rest does without.
func TestPlanMove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		devices := fleet(p.Devices() + 5)
		s := placed(p, segmentID(3), 100, devices[:p.Devices()])
		s.Writer = s.Holdings[0].Device
		s.Holdings[0].Whole = rapid.Bool().Draw(t, "whole")
		next := p
		if rapid.Bool().Draw(t, "another policy") {
			if next = drawPolicy(t); next.Devices() > len(devices) {
				devices = fleet(next.Devices())
			}
			next.Domains = 0
		}
		if !s.Rebuilds(everyone) {
			t.Skip("more is needed than the old policy placed")
		}
		s.Policy = next
		if r, ok := PlanRepair(p, &s, devices, now, 0); ok { // it comes first
			give(&s, r.To, r.Share)
		}
		r, drop, ok := PlanMove(p, &s, devices, now)
		if ok && len(drop) > 0 || ok && len(r.To) == 0 {
			t.Fatalf("%+v and drops %v", r, drop)
		}
		if ok {
			give(&s, r.To, r.Share)
			if r, drop, ok = PlanMove(p, &s, devices, now); ok {
				t.Fatalf("again: %+v", r)
			}
		}
		for _, id := range drop {
			if id == s.Writer {
				t.Fatal("the writer drops its copy")
			}
			if !MayDrop(p, &s, id, everyone) {
				t.Fatalf("%v may not drop: %+v", id, s.Holdings)
			}
			s.Holdings = slices.DeleteFunc(s.Holdings, func(h Holding) bool { return h.Device == id })
		}
		if _, drop, ok := PlanMove(p, &s, devices, now); ok || len(drop) > 0 {
			t.Fatalf("and again: %v", drop)
		}
		if len(s.Holdings) != next.Devices() || s.MayLose(everyone) < next.Devices()-next.Spread.Need {
			t.Fatalf("%v", s.Holdings)
		}
	})
}

// give notes that devices have a share now.
func give(s *Segment, to []fcp.WriterID, share int) {
	for _, id := range to {
		if i := slices.IndexFunc(s.Holdings, func(h Holding) bool { return h.Device == id }); i >= 0 {
			s.Holdings[i].Count = max(s.Holdings[i].Count, share)
		} else {
			s.Holdings = append(s.Holdings, Holding{Device: id, Count: share})
		}
	}
}

// A device that is suspected gets nothing new and keeps what it has.
func TestASuspectGetsNoShare(t *testing.T) {
	p := &Policy{Spread: symbols.Policy{Need: 2, Of: 3}}
	for i := range 200 {
		devices := fleet(5)
		devices[2].Suspect = true
		if slices.Contains(Plan(p, segmentID(i), devices, nil), device(2)) {
			t.Fatal("it was chosen")
		}
		s := placed(p, segmentID(i), 100, fleet(5))
		s.Writer = device(9)
		r, drop, ok := PlanMove(p, &s, devices, now)
		if slices.Contains(drop, device(2)) || ok && slices.Contains(r.To, device(2)) {
			t.Fatalf("%+v %v", r, drop)
		}
	}
}

// Nothing is dropped while the rest does not bear what the policy bears.
func TestMayDrop(t *testing.T) {
	p := &Policy{Spread: symbols.Policy{Need: 2, Of: 3}}
	s := placed(p, segmentID(1), 100, fleet(3))
	s.Holdings = append(s.Holdings, Holding{Device: device(7), Count: 52})
	for i, want := range []bool{false, false, true} { // of the three others so many are proven
		if got := MayDrop(p, &s, device(7), func(id fcp.WriterID) bool {
			return slices.IndexFunc(s.Holdings, func(h Holding) bool { return h.Device == id }) <= i
		}); got != want {
			t.Errorf("with %d proven: %v", i+1, got)
		}
	}
}

func TestSummary(t *testing.T) {
	p := &Policy{Spread: symbols.Policy{Need: 2, Of: 3}}
	name := func(id fcp.WriterID) string { return "d" + string(rune('0'+id[3]-1)) }
	devices := fleet(3)
	var segments []Segment
	for i := range 4 {
		segments = append(segments, placed(p, segmentID(i), 100, devices))
	}
	sum := Summarize(p, segments, devices, now, name)
	if sum.Score != 100 || sum.MayLose != 1 || len(sum.Reasons) != 0 || sum.CoverageBPS < 15000 || sum.CoverageBPS > 15700 {
		t.Fatalf("%+v", sum)
	}
	devices[0].Lost = true
	sum = Summarize(p, segments, devices, now, name)
	if sum.MayLose != 0 || sum.BelowPolicy != 4 || len(sum.Weak) != 2 || sum.Score >= 60 || len(sum.Reasons) != len(sum.Advice) {
		t.Fatalf("%+v", sum)
	}
	devices[1].Online = false
	devices[1].Seen = now
	if sum = Summarize(p, segments, devices, now, name); sum.Unreadable != 4 || sum.Lost != 0 {
		t.Fatalf("%+v", sum)
	}
	devices[1].Lost = true
	if sum = Summarize(p, segments, devices, now, name); sum.Lost != 4 || sum.Score != 0 || sum.MayLose != -1 {
		t.Fatalf("%+v", sum)
	}
}
