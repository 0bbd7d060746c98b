package placement

import (
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/engine/symbols"
)

// The figures that the design names: five devices, any two rebuild, a week until
// repair, one device in ten fails in a year.
func TestDurabilityFigures(t *testing.T) {
	const week = 7 * 24 * time.Hour
	if got := WindowLoss(5, 2, 0.1, week); math.Abs(got/4.4e-9-1) > 0.02 {
		t.Errorf("windows %.3g, want 4.4e-9", got)
	}
	if got := LossRate(5, 2, 0.1, week); math.Abs(got/1.7e-8-1) > 0.03 {
		t.Errorf("rate %.3g", got)
	}
	if LossRate(3, 1, 0, week) != 0 || !math.IsInf(LossRate(1, 2, 0.1, week), 1) || LossRate(3, 0, 0.1, week) != 0 {
		t.Error("borders")
	}
	// One device, which alone is needed, is lost as often as it fails.
	if got := LossRate(1, 1, 0.1, 0); math.Abs(got-rate(0.1)) > 1e-12 {
		t.Errorf("one device: %v", got)
	}
}

// What fails together decides: the table names it.
func TestDurabilityTable(t *testing.T) {
	p := &Policy{Spread: symbols.Policy{Need: 2, Of: 5}}
	devices := fleet(5)
	for i := range devices {
		devices[i].Domain = "home"
		if i == 4 {
			devices[i].Domain = "office"
		}
	}
	segments := []Segment{placed(p, segmentID(1), 800, devices)}
	h := Hazards{Device: 0.1, Domain: 0.002, Repair: 7 * 24 * time.Hour}
	d := DurabilityOf(segments, devices, h)
	if len(d.Rows) != 3 || d.Rows[1].Cause != "home" || d.Rows[1].Unusable != 1 || d.Rows[1].Yearly != 0.002 || d.Rows[2].Unusable != 0 || d.Rows[2].Yearly != 0 {
		t.Fatalf("%+v", d)
	}
	if got := d.Rows[0].Yearly; got != LossRate(5, 2, h.Device, h.Repair) {
		t.Errorf("independent %v", got)
	}
	if math.Abs(d.Yearly/0.002-1) > 1e-4 {
		t.Errorf("in all %v", d.Yearly)
	}
}

// A great many small meshes, each of which places a segment, loses devices at random,
// and repairs after its grace with what PlanRepair says: how often a segment is lost,
// and how much repair moves, agree with the closed form. In the short form 50,000
// devices, with FCP_LONG a million.
func TestMillionNodes(t *testing.T) {
	meshes := 10_000
	if os.Getenv("FCP_LONG") != "" {
		meshes = 200_000
	}
	const (
		n, need = 5, 2
		k       = 800
		yearly  = 0.8                 // so that losses are frequent enough to be counted
		burnIn  = 1.0                 // years until the start is forgotten
		years   = 2.0                 // counted
		repair  = 30 * 24 * time.Hour // until lost symbols are made again
	)
	p := &Policy{Spread: symbols.Policy{Need: need, Of: n}}
	hazard, window := rate(yearly), repair.Hours()/year.Hours()
	type counts struct{ losses, failures, repairs, moved, lost, shares int }
	one := func(mesh int, c *counts) {
		rng := rand.New(rand.NewPCG(1, uint64(mesh)))
		devices := fleet(n)
		s := placed(p, segmentID(mesh), k, devices)
		c.shares += len(s.Holdings)
		var next [n]float64 // when the device fails, or is repaired
		missing := 0
		for i := range next {
			next[i] = rng.ExpFloat64() / hazard
		}
		for {
			i := 0
			for j := range next {
				if next[j] < next[i] {
					i = j
				}
			}
			at := next[i]
			if at > burnIn+years {
				break
			}
			d := &devices[i]
			if !d.Lost { // it fails
				d.Lost = true
				missing++
				next[i] = at + window
				if at > burnIn {
					c.failures++
					c.lost += s.holding(d.ID).Count
					if missing == n-need+1 {
						c.losses++
					}
				}
				continue
			}
			// Its place is taken by a new device, with nothing, and repaired.
			d.Lost = false
			missing--
			next[i] = at + rng.ExpFloat64()/hazard
			for j := range s.Holdings {
				if s.Holdings[j].Device == d.ID {
					s.Holdings[j].Count = 0
				}
			}
			// PlanRepair sees everything that is missing; here only this device's turn has come.
			r, ok := PlanRepair(p, &s, devices, now, 0)
			if readable := s.Rebuilds(func(id fcp.WriterID) bool { return !devices[deviceIndex(id)].Lost }); ok != readable {
				t.Errorf("mesh %d: repair %v, readable %v", mesh, ok, readable)
			}
			if ok {
				if len(r.To) != 1 || r.To[0] != d.ID {
					t.Errorf("mesh %d: %+v", mesh, r)
				}
				if at > burnIn {
					c.repairs++
					c.moved += r.Moves()
				}
			}
			for j := range s.Holdings { // what was lost for good comes from a backup
				if s.Holdings[j].Device == d.ID {
					s.Holdings[j].Count = p.Share(k)
				}
			}
		}
	}
	start := time.Now()
	all := make([]counts, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for part := range all {
		wg.Go(func() {
			for mesh := part; mesh < meshes; mesh += len(all) {
				one(mesh, &all[part])
			}
		})
	}
	wg.Wait()
	var sum counts
	for _, c := range all {
		sum.losses += c.losses
		sum.failures += c.failures
		sum.repairs += c.repairs
		sum.moved += c.moved
		sum.lost += c.lost
		sum.shares += c.shares
	}
	t.Logf("%d devices, %d failures, %d repairs, %d losses in %v", meshes*n, sum.failures, sum.repairs, sum.losses, time.Since(start).Round(time.Millisecond))
	if sum.shares != meshes*n {
		t.Errorf("%d shares placed", sum.shares)
	}
	check := func(what string, got, want float64, events int) {
		t.Helper()
		// Four standard errors of a count; meshes are independent, events in one nearly so.
		if tolerance := 4 / math.Sqrt(float64(events)); math.Abs(got/want-1) > tolerance {
			t.Errorf("%s: %.5g, the closed form says %.5g (tolerance %.2g)", what, got, want, tolerance)
		}
	}
	time := years * float64(meshes)
	check("losses", float64(sum.losses)/time, LossRate(n, need, yearly, repair), sum.losses)
	q := hazard * window / (1 + hazard*window)
	check("failures", float64(sum.failures)/time, n*hazard*(1-q), sum.failures)
	check("symbols lost", float64(sum.lost)/time, n*hazard*(1-q)*float64(p.Share(k)), sum.failures)
	// A repair with nobody who has the whole gathers K and the spare symbols; the
	// device that gathers keeps its share of them.
	check("symbols moved", float64(sum.moved), float64(sum.repairs*(k+symbols.Spare)), sum.repairs)
}

func deviceIndex(id fcp.WriterID) int { return int(id[3]) - 1 }
