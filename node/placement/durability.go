package placement

import (
	"math"
	"time"

	"fcp"
)

// year is a Julian year.
const year = 8766 * time.Hour

// rate is the hazard per year of a device that fails within a year with the
// probability yearly, failures coming at a constant rate.
func rate(yearly float64) float64 { return -math.Log1p(-yearly) }

// LossRate is how often per year fewer than need of n devices are left, when each
// fails at a constant rate, with the probability yearly (0 to 1) within a year,
// independently of the others, and its symbols are made again elsewhere after the
// time repair. Small values are the probability of losing a segment within a year.
//
// Each device alternates between holding its symbols and missing them, on average for
// 1/rate and for repair. In the long run it misses them for the fraction q of the
// time, and the number of devices missing steps from d-1 to d, with d = n-need+1, as
// often as d-1 of n are missing and one of the others fails. That is exact for any
// distribution of repair times (alternating renewal processes).
func LossRate(n, need int, yearly float64, repair time.Duration) float64 {
	if need <= 0 {
		return 0
	}
	if need > n {
		return math.Inf(1)
	}
	l := rate(yearly)
	lt := l * repair.Hours() / year.Hours()
	q := lt / (1 + lt)
	d := n - need + 1
	return binomial(n, d-1) * math.Pow(q, float64(d-1)) * math.Pow(1-q, float64(n-d+1)) * float64(n-d+1) * l
}

// WindowLoss is the probability that within a year more devices fail inside one
// window of the length repair, of those into which the year is cut, than the policy
// can miss. It is the figure that is often quoted; it leaves out failures on both
// sides of a border and is therefore smaller than LossRate by a factor of up to
// n-need+1.
func WindowLoss(n, need int, yearly float64, repair time.Duration) float64 {
	windows := year.Hours() / repair.Hours()
	p := -math.Expm1(-rate(yearly) / windows)
	in := 0.0
	for d := n - need + 1; d <= n; d++ {
		in += binomial(n, d) * math.Pow(p, float64(d)) * math.Pow(1-p, float64(n-d))
	}
	return -math.Expm1(windows * math.Log1p(-in))
}

func binomial(n, k int) float64 {
	out := 1.0
	for i := 1; i <= k; i++ {
		out *= float64(n-k+i) / float64(i)
	}
	return out
}

// DurabilityRow is one line of the durability table.
type DurabilityRow struct {
	Cause    string  // "independent devices", or the name of a failure domain
	Devices  int     // holding shares of the segments looked at, at most
	Unusable int     // segments that could not be rebuilt after it
	Yearly   float64 // probability of losing a segment to it within a year
}

// Durability is what may be lost within a year, and to what. The devices of one
// failure domain fail together; usually that is what decides.
type Durability struct {
	Rows   []DurabilityRow // independent devices first, then domains ascending
	Yearly float64         // of losing a segment to any of them
}

// Hazards are the assumptions of a durability table: what fails how often.
type Hazards struct {
	Device float64       // probability that a device fails within a year
	Domain float64       // probability that a whole failure domain is lost within a year
	Repair time.Duration // until lost symbols are made again elsewhere
}

// DurabilityOf computes the table for segments on devices. Independent failures are
// reckoned for the weakest segment, a whole copy as what it adds to the devices that may
// be lost.
func DurabilityOf(segments []Segment, devices []Device, h Hazards) (out Durability) {
	alive := make(map[fcp.WriterID]bool, len(devices))
	for i := range devices {
		alive[devices[i].ID] = !devices[i].Lost
	}
	counts := func(id fcp.WriterID) bool { return alive[id] }
	independent := DurabilityRow{Cause: "independent devices"}
	for i := range segments {
		s := &segments[i]
		holders := 0
		for _, x := range s.Holdings {
			if counts(x.Device) && (x.Whole || x.Count > 0) {
				holders++
			}
		}
		may := s.MayLose(counts)
		yearly := LossRate(holders, holders-may, h.Device, h.Repair)
		if may < 0 {
			independent.Unusable++
			yearly = 1
		}
		independent.Devices = max(independent.Devices, holders)
		independent.Yearly = max(independent.Yearly, min(1, yearly))
	}
	out.Rows = append(out.Rows, independent)
	of := domains(devices)
	for _, name := range names(devices) {
		row := DurabilityRow{Cause: name}
		for i := range segments {
			s := &segments[i]
			inside := 0
			for _, x := range s.Holdings {
				if of[x.Device] == name && counts(x.Device) {
					inside++
				}
			}
			row.Devices = max(row.Devices, inside)
			if !s.Rebuilds(func(id fcp.WriterID) bool { return of[id] != name && counts(id) }) {
				row.Unusable++
			}
		}
		if row.Unusable > 0 {
			row.Yearly = h.Domain
		}
		out.Rows = append(out.Rows, row)
	}
	survive := 0.0 // logarithm of the probability that nothing is lost
	for _, r := range out.Rows {
		survive += math.Log1p(-r.Yearly)
	}
	out.Yearly = -math.Expm1(survive)
	return out
}
