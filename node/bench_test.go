package node

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/symbols"
	"fcp/log"
)

// percentiles reports the median and the 99th percentile in milliseconds.
func percentiles(b *testing.B, d []time.Duration) {
	slices.Sort(d)
	ms := func(p int) float64 { return float64(d[min(len(d)-1, len(d)*p/100)].Microseconds()) / 1000 }
	b.ReportMetric(ms(50), "p50-ms")
	b.ReportMetric(ms(99), "p99-ms")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRebuild rebuilds a segment of one mebibyte from two peers on loopback,
// each of which holds half of its symbols and two more.
func BenchmarkRebuild(b *testing.B) {
	m := newMesh(b, 4, nil)
	m.together()
	m.put(0, "big", randomBytes(1<<20-4096, 1))
	m.sealed(0)
	id := m.nodes[0].n.ownSegments()[0]
	m.kill(0)
	var reader *Node
	var rem *log.Remainder
	for _, x := range m.nodes[1:] {
		if len(x.n.sharesOf(id)) == 0 {
			var err error
			reader = x.n
			if rem, err = x.n.remainder(id); err != nil || rem == nil {
				b.Fatal(err)
			}
		}
	}
	if _, err := reader.Fetch(context.Background(), rem); err != nil { // warm: plans, files
		b.Fatal(err)
	}
	var took []time.Duration
	for b.Loop() {
		at := time.Now()
		if _, err := reader.Fetch(context.Background(), rem); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(at))
	}
	percentiles(b, took)
	var sent uint64
	for _, x := range m.nodes[1:] {
		sent += x.n.Metrics().SymbolsSent.Load()
	}
	runs := float64(len(took) + 1)
	b.ReportMetric(float64(sent)/runs, "sent/op")
	b.ReportMetric(float64(reader.Metrics().SymbolsTaken.Load())/runs, "taken/op")
	b.ReportMetric(float64(reader.Metrics().SymbolsUnasked.Load())/runs, "unasked/op")
}

// BenchmarkRevocation appends a revocation on one of five nodes and waits until
// the state of all others shows it.
func BenchmarkRevocation(b *testing.B) {
	m := newMesh(b, 5, nil)
	m.together()
	m.equalRoots(fcp.ZonePrivate, fcp.ZoneOwner)
	var took []time.Duration
	n := byte(0)
	for b.Loop() {
		n++
		victim := fcp.Feed{Zone: fcp.ZonePrivate, Writer: fcp.WriterID{7, n, byte(len(took) >> 8)}, Incarnation: 1, Plane: fcp.PlaneControl}
		body, err := authority.SignRevocation(time.Now(), m.owner, authority.Cut{Feed: victim}, "lost")
		if err != nil {
			b.Fatal(err)
		}
		at := time.Now()
		if _, err := m.nodes[0].e.AppendSigned(context.Background(), fcp.ZonePrivate, fcp.KindRevocationIssued, body); err != nil {
			b.Fatal(err)
		}
		root, err := m.nodes[0].e.ZoneRoot(fcp.ZonePrivate)
		if err != nil {
			b.Fatal(err)
		}
		for _, x := range m.nodes[1:] {
			for {
				got, err := x.e.ZoneRoot(fcp.ZonePrivate)
				if err != nil {
					b.Fatal(err)
				}
				if got == root {
					break
				}
				time.Sleep(100 * time.Microsecond)
			}
		}
		took = append(took, time.Since(at))
	}
	percentiles(b, took)
}

// BenchmarkPin has a new node take in an object of 64 MiB from its writer.
func BenchmarkPin(b *testing.B) {
	m := newMesh(b, 2, func(_ int, o *Options) { o.Policy = symbols.Policy{Need: 1, Of: 1} })
	m.together()
	const size = 64 << 20
	for b.Loop() {
		b.StopTimer()
		m.put(0, fmt.Sprint("big", b.N, time.Now()), randomBytes(size, uint64(time.Now().UnixNano())))
		m.seal(0)
		m.equalRoots(fcp.ZonePrivate)
		b.StartTimer()
		if _, err := m.nodes[1].n.Pin(context.Background(), fcp.ZonePrivate); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(size)
}
