package coding

import (
	"slices"
	"testing"
	"time"
)

// meter times single runs and reports their median and their best quarter,
// which other load on the machine disturbs less. Runs of a millisecond and more
// are also reported in processor time, where it can be had.
type meter struct {
	b      *testing.B
	octets int
	from   time.Time
	cpu    time.Duration
	wall   []time.Duration
	used   []time.Duration
}

func newMeter(b *testing.B, octets int) *meter {
	b.SetBytes(int64(octets))
	return &meter{b: b, octets: octets}
}

func (m *meter) start() {
	m.cpu = processorTime()
	m.from = time.Now()
}

func (m *meter) stop() {
	m.wall = append(m.wall, time.Since(m.from))
	m.used = append(m.used, processorTime()-m.cpu)
}

func (m *meter) report() {
	rate := func(d time.Duration) float64 { return float64(m.octets) * 1e3 / float64(max(1, d)) }
	slices.Sort(m.wall)
	slices.Sort(m.used)
	n := len(m.wall)
	m.b.ReportMetric(rate(m.wall[n/2]), "median-MB/s")
	m.b.ReportMetric(rate(m.wall[n/4]), "quarter-MB/s")
	if m.used[n/2] >= time.Millisecond {
		m.b.ReportMetric(rate(m.used[n/2]), "cpu-MB/s")
	}
}
