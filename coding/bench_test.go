package coding

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
)

const benchT = 1280

var benchKs = []int{100, 1000, 5000, 10000, 50000}

// benchEncoder has encoded a random block of k symbols.
func benchEncoder(b *testing.B, k, workers int) (*Encoder, []byte) {
	rng := rand.New(rand.NewPCG(uint64(k), 1))
	block := randomBlock(rng, k*benchT)
	return encoderFor(b, k, Shape{SymbolSize: benchT, Alignment: 8}, block, workers), block
}

// checkEncoder compares one symbol with that of another encoder of the block.
func checkEncoder(b *testing.B, e, ref *Encoder) {
	x, y := make([]byte, benchT), make([]byte, benchT)
	esi := uint32(e.blk.K) + 77
	if e.Repair(x, esi) != nil || ref.Repair(y, esi) != nil || !bytes.Equal(x, y) {
		b.Fatal("encoders differ")
	}
}

func BenchmarkEncodePlan(b *testing.B) {
	for _, workers := range []int{1, 2} {
		for _, k := range benchKs {
			b.Run(fmt.Sprintf("codec/encode-plan/K=%d/T=%d/cores=%d", k, benchT, workers), func(b *testing.B) {
				e, block := benchEncoder(b, k, workers)
				out := make([]byte, benchT)
				rng := rand.New(rand.NewPCG(1, 2))
				m := newMeter(b, len(block))
				for b.Loop() {
					m.start()
					if e.Reset(block) != nil || e.Encode(context.Background()) != nil ||
						e.Repair(out, uint32(k)+rng.Uint32N(1<<20)) != nil {
						b.Fatal("encode")
					}
					m.stop()
				}
				m.report()
				ref, _ := benchEncoder(b, k, 1)
				checkEncoder(b, e, ref)
			})
		}
	}
}

func BenchmarkEncodeCold(b *testing.B) {
	for _, k := range benchKs {
		b.Run(fmt.Sprintf("codec/encode-cold/K=%d/T=%d", k, benchT), func(b *testing.B) {
			_, block := benchEncoder(b, k, 1)
			out := make([]byte, benchT)
			var store []byte
			m := newMeter(b, len(block))
			for b.Loop() {
				m.start()
				plan, err := NewPlan(context.Background(), k)
				if err != nil {
					b.Fatal(err)
				}
				e, err := NewEncoder(plan, k, Shape{SymbolSize: benchT, Alignment: 8}, EncoderOptions{})
				if err != nil {
					b.Fatal(err)
				}
				e.store = store
				if e.Reset(block) != nil || e.Encode(context.Background()) != nil || e.Repair(out, uint32(k)+9) != nil {
					b.Fatal("encode")
				}
				store = e.store
				m.stop()
			}
			m.report()
		})
	}
}

func BenchmarkPlan(b *testing.B) {
	for _, k := range benchKs {
		b.Run(fmt.Sprintf("codec/plan/K=%d", k), func(b *testing.B) {
			var p *Plan
			m := newMeter(b, k*benchT)
			defer m.report()
			for b.Loop() {
				m.start()
				var err error
				if p, err = NewPlan(context.Background(), k); err != nil {
					b.Fatal(err)
				}
				m.stop()
			}
			g := p.prog
			per := func(n int) float64 { return float64(n) / float64(k) }
			b.ReportMetric(per(len(g.forward)), "fwd/sym")
			b.ReportMetric(per(len(g.middle)), "mid/sym")
			b.ReportMetric(per(len(g.mul)), "mul/sym")
			b.ReportMetric(per(len(g.back)), "back/sym")
			b.ReportMetric(float64(g.slots), "slots")
		})
	}
}

func BenchmarkRepair(b *testing.B) {
	for _, k := range benchKs {
		b.Run(fmt.Sprintf("codec/repair/K=%d/T=%d", k, benchT), func(b *testing.B) {
			e, _ := benchEncoder(b, k, 1)
			const n = 64
			out := make([]byte, n*benchT)
			rng := rand.New(rand.NewPCG(1, 2))
			m := newMeter(b, n*benchT)
			for b.Loop() {
				m.start()
				if e.Repairs(out, uint32(k)+rng.Uint32N(1<<23), n) != nil {
					b.Fatal("repair")
				}
				m.stop()
			}
			m.report()
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, c := range []struct {
		name string
		lost float64
	}{{"all-repair", 1}, {"50-lost", .5}, {"20-lost", .2}, {"5-lost", .05}, {"1-lost", .01}, {"0-lost", 0}} {
		for _, k := range benchKs {
			b.Run(fmt.Sprintf("codec/decode-%s/K=%d/T=%d", c.name, k, benchT), func(b *testing.B) {
				benchDecode(b, k, int(float64(k)*c.lost), 1)
			})
		}
	}
}

func benchDecode(b *testing.B, k, lost, workers int) {
	e, block := benchEncoder(b, k, 1)
	shape := Shape{SymbolSize: benchT, Alignment: 8}
	d, err := NewDecoder(k, shape, DecoderOptions{Plans: &testPlans, Workers: workers})
	if err != nil {
		b.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(uint64(k), 3))
	repair := make([]byte, (lost+8)*benchT)
	dst := make([]byte, len(block))
	m := newMeter(b, len(block))
	defer m.report()
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		gone := make([]bool, k)
		for n := 0; n < lost; {
			if i := rng.IntN(k); !gone[i] {
				gone[i] = true
				n++
			}
		}
		first := uint32(k) + rng.Uint32N(1<<23)
		if err := e.Repairs(repair, first, lost+8); err != nil {
			b.Fatal(err)
		}
		clear(dst)
		b.StartTimer()
		m.start()
		if err := d.Reset(dst); err != nil {
			b.Fatal(err)
		}
		for i := range k {
			if !gone[i] {
				d.Add(uint32(i), block[i*benchT:(i+1)*benchT])
			}
		}
		n := 0
		for ; n < lost; n++ {
			d.Add(first+uint32(n), repair[n*benchT:(n+1)*benchT])
		}
		for !d.Complete() {
			if err := d.Decode(context.Background()); err != nil {
				d.Add(first+uint32(n), repair[n*benchT:(n+1)*benchT])
				n++
			}
		}
		m.stop()
		b.StopTimer()
		if !bytes.Equal(dst, block) {
			b.Fatal("decoded block differs")
		}
		b.StartTimer()
	}
}

// BenchmarkLimit is what the codec's rates are divided by: XOR-accumulate in a
// second-level cache, 1 MiB in all.
func BenchmarkLimit(b *testing.B) {
	b.Run("codec/limit/xor-accumulate/L2", func(b *testing.B) {
		const size, n = benchT, 400
		block := randomBlock(rand.New(rand.NewPCG(1, 1)), 2*n*size)
		m := newMeter(b, n*size)
		for b.Loop() {
			m.start()
			for i := range n {
				XORAccumulate(block[i*size:(i+1)*size], block[(n+i)*size:(n+i+1)*size])
			}
			m.stop()
		}
		m.report()
	})
}
