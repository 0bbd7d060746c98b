package coding

import (
	"slices"
	"testing"
	"time"
)

// meter times single runs and reports their median and their best quarter,
// which other load on the machine disturbs less.
type meter struct {
	b       *testing.B
	octets  int
	from    time.Time
	samples []time.Duration
}

func newMeter(b *testing.B, octets int) *meter {
	b.SetBytes(int64(octets))
	return &meter{b: b, octets: octets}
}

func (m *meter) start() { m.from = time.Now() }
func (m *meter) stop()  { m.samples = append(m.samples, time.Since(m.from)) }

func (m *meter) report() {
	slices.Sort(m.samples)
	rate := func(d time.Duration) float64 { return float64(m.octets) * 1e3 / float64(max(1, d)) }
	m.b.ReportMetric(rate(m.samples[len(m.samples)/2]), "median-MB/s")
	m.b.ReportMetric(rate(m.samples[len(m.samples)/4]), "quarter-MB/s")
}
