package coding

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync"
	"testing"
)

// held sums what a decoder holds between calls.
func (d *Decoder) bytes() int64 {
	n := cap(d.own) + 8*cap(d.have) + 4*cap(d.esis) + 4*cap(d.seen.slots) + cap(d.ws) + 4*cap(d.rows) + 4*cap(d.lost)
	for _, s := range d.slabs {
		n += cap(s)
	}
	for i := range d.runs {
		r := &d.runs[i]
		n += 8*(cap(r.rows)+cap(r.forward)+cap(r.back)+cap(r.outs)+cap(r.single)) + cap(r.stage)
	}
	f := &d.few
	n += cap(f.ws) + 8*cap(f.ptrs) + 8*cap(f.order) + cap(f.matrix)
	for _, b := range append(f.factors, f.weights...) {
		n += cap(b)
	}
	for i := range f.state {
		s := &f.state[i]
		n += 8*cap(s.sources) + cap(s.stage) + cap(s.acc) + 8*cap(s.rows)
		n += 8*(cap(s.run.rows)+cap(s.run.forward)+cap(s.run.back)) + cap(s.run.stage)
	}
	return int64(n)
}

// FuzzDecoder feeds a decoder whatever symbols and calls the input spells. The
// symbols are not consistent with any block. It must not panic, must keep its
// bound, and must say it is complete exactly when Block works.
func FuzzDecoder(f *testing.F) {
	f.Add(uint16(10), uint16(8), uint8(1), []byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz"))
	f.Add(uint16(1), uint16(1), uint8(0), []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Add(uint16(0), uint16(0), uint8(0), []byte{})
	f.Add(uint16(40), uint16(200), uint8(7), bytes.Repeat([]byte{0, 1, 0, 9, 0, 0, 1, 255}, 60))
	f.Fuzz(func(t *testing.T, k, size uint16, flags uint8, script []byte) {
		shape := Shape{SymbolSize: int(size), SubBlocks: int(flags>>1&3) + 1}
		opt := DecoderOptions{Slack: 3, Workers: 1 + int(flags>>3&1), Limit: 64 << 20}
		if flags&1 != 0 {
			opt.Plans = &testPlans
		}
		if k > 1000 && k <= 56403 {
			k %= 1000 // keep runs short
		}
		d, err := NewDecoder(int(k), shape, opt)
		if err != nil {
			return
		}
		bound, err := DecoderBound(int(k), shape, opt)
		if err != nil {
			t.Fatal(err)
		}
		symbol := make([]byte, size)
		for ; len(script) >= 4; script = script[4:] {
			v := binary.BigEndian.Uint32(script)
			esi := v >> 4
			if v&1 != 0 {
				esi %= 2*uint32(k) + 7
			}
			if size > 0 {
				symbol[int(v)%len(symbol)] ^= byte(v >> 8)
			}
			fresh, err := d.Add(esi, symbol)
			if err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrESI) {
				t.Fatalf("add: %v", err)
			}
			if again, _ := d.Add(esi, symbol); fresh && again {
				t.Fatalf("symbol %d was new twice", esi)
			}
			if v&6 == 0 {
				err := d.Decode(context.Background())
				if (err == nil) != d.Complete() || err != nil && (!errors.Is(err, ErrNeedMore) || d.Needs() == 0) {
					t.Fatalf("decode: %v, complete %v, needs %d", err, d.Complete(), d.Needs())
				}
			}
			if _, err := d.Block(); (err == nil) != d.Complete() {
				t.Fatalf("block: %v, complete %v", err, d.Complete())
			}
			if n := d.bytes(); n > bound {
				t.Fatalf("holds %d octets, bound %d", n, bound)
			}
		}
	})
}

// TestDenseSymbolSets gives the decoder the repair symbols of the highest
// degree only, as an enemy would. It must stay in its bound, and decode once
// ordinary symbols arrive.
func TestDenseSymbolSets(t *testing.T) {
	const k, size = 3000, 16
	rng := rand.New(rand.NewPCG(4, 4))
	block := randomBlock(rng, k*size)
	e := encoderFor(t, k, Shape{SymbolSize: size}, block, 1)
	d, err := NewDecoder(k, Shape{SymbolSize: size}, DecoderOptions{Slack: 16})
	if err != nil {
		t.Fatal(err)
	}
	bound, _ := DecoderBound(k, Shape{SymbolSize: size}, DecoderOptions{Slack: 16})
	buf := make([]byte, size)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for esi := uint32(k); d.Needs() > 0; esi++ {
		if tuple := e.blk.Tuple(e.blk.ISI(esi)); tuple.D < 20 {
			continue
		}
		if err := e.Repair(buf, esi); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Add(esi, buf); err != nil {
			t.Fatal(err)
		}
	}
	err = d.Decode(context.Background())
	runtime.ReadMemStats(&after)
	t.Logf("dense set: %v; allocated %d, bound %d", err, after.TotalAlloc-before.TotalAlloc, bound)
	if n := after.TotalAlloc - before.TotalAlloc; int64(n) > bound {
		t.Errorf("allocated %d octets, bound %d", n, bound)
	}
	for esi := uint32(1 << 23); err != nil; esi++ {
		if !errors.Is(err, ErrNeedMore) {
			t.Fatal(err)
		}
		if e.Repair(buf, esi) != nil {
			t.Fatal("repair")
		}
		if _, err := d.Add(esi, buf); err != nil {
			t.Fatalf("add after %v", err)
		}
		if d.Needs() == 0 {
			err = d.Decode(context.Background())
		}
	}
	if got, err := d.Block(); err != nil || !bytes.Equal(got, block) {
		t.Errorf("decoded block differs (%v)", err)
	}
}

func TestDecoderRefusesWhatItCannotHold(t *testing.T) {
	if _, err := NewDecoder(56403, Shape{SymbolSize: 65535}, DecoderOptions{}); !errors.Is(err, ErrMemory) {
		t.Errorf("a block of 3.7 GB: %v", err)
	}
	for _, c := range []struct {
		k     int
		shape Shape
	}{{0, Shape{SymbolSize: 8}}, {56404, Shape{SymbolSize: 8}}, {-1, Shape{SymbolSize: 8}}, {10, Shape{}},
		{10, Shape{SymbolSize: 65536}}, {10, Shape{SymbolSize: 9, Alignment: 8}}, {10, Shape{SymbolSize: 8, SubBlocks: 9}}} {
		if _, err := NewDecoder(c.k, c.shape, DecoderOptions{}); !errors.Is(err, ErrParams) {
			t.Errorf("K=%d %+v: %v", c.k, c.shape, err)
		}
	}
	d, err := NewDecoder(3, Shape{SymbolSize: 4}, DecoderOptions{Slack: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Add(MaxESI+1, make([]byte, 4)); !errors.Is(err, ErrESI) {
		t.Error(err)
	}
	if _, err := d.Add(0, make([]byte, 5)); !errors.Is(err, ErrSize) {
		t.Error(err)
	}
	if err := d.Decode(context.Background()); !errors.Is(err, ErrNeedMore) || d.Needs() != 3 {
		t.Error(err, d.Needs())
	}
	for esi := uint32(100); esi < 105; esi++ {
		if _, err := d.Add(esi, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.Add(105, make([]byte, 4)); !errors.Is(err, ErrFull) {
		t.Error(err)
	}
}

func TestCancelledDecodeCanBeRepeated(t *testing.T) {
	const k, size = 400, 640
	rng := rand.New(rand.NewPCG(8, 8))
	block := randomBlock(rng, k*size)
	e := encoderFor(t, k, Shape{SymbolSize: size}, block, 1)
	d, err := NewDecoder(k, Shape{SymbolSize: size}, DecoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, size)
	for esi := uint32(100); d.held() < k+2; esi++ {
		if e.Symbol(buf, esi) != nil {
			t.Fatal("symbol")
		}
		if _, err := d.Add(esi, buf); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := d.Decode(ctx); !errors.Is(err, context.Canceled) || d.Complete() {
		t.Fatalf("cancelled decode: %v", err)
	}
	if err := d.Decode(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, _ := d.Block(); !bytes.Equal(got, block) {
		t.Error("decoded block differs")
	}
	if err := e.Encode(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled encode: %v", err)
	}
	if err := e.Repair(buf, 500); !errors.Is(err, ErrNotDecoded) {
		t.Errorf("repair after a cancelled encode: %v", err)
	}
}

func TestNoAllocationsPerSymbol(t *testing.T) {
	const k, size = 300, 1288
	rng := rand.New(rand.NewPCG(6, 6))
	block := randomBlock(rng, k*size)
	shape := Shape{SymbolSize: size, Alignment: 8}
	e := encoderFor(t, k, shape, block, 1)
	out := make([]byte, size)
	esi := uint32(k)
	if n := testing.AllocsPerRun(200, func() {
		esi++
		if e.Repair(out, esi) != nil {
			t.Fatal("repair")
		}
	}); n > 0 {
		t.Errorf("repair: %v allocations", n)
	}
	if n := testing.AllocsPerRun(20, func() {
		if e.Reset(block) != nil || e.Encode(context.Background()) != nil {
			t.Fatal("encode")
		}
	}); n > 4 {
		t.Errorf("encode: %v allocations", n)
	}
	repair := make([]byte, (k+20)*size)
	if err := e.Repairs(repair, 7000, k+20); err != nil {
		t.Fatal(err)
	}
	for _, lost := range []int{k, 3} {
		d, err := NewDecoder(k, shape, DecoderOptions{Plans: &testPlans})
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(20, func() {
			if d.Reset(nil) != nil {
				t.Fatal("reset")
			}
			for i := lost; i < k; i++ {
				d.Add(uint32(i), block[i*size:(i+1)*size])
			}
			for i := range lost + 3 {
				d.Add(7000+uint32(i), repair[i*size:(i+1)*size])
			}
			if err := d.Decode(context.Background()); err != nil {
				t.Fatal(err)
			}
		}); n > 10 {
			t.Errorf("decode of %d lost: %v allocations", lost, n)
		}
		if got, _ := d.Block(); !bytes.Equal(got, block) {
			t.Error("decoded block differs")
		}
	}
}

func TestPlanCacheIsBounded(t *testing.T) {
	c := PlanCache{Limit: 200_000}
	for _, k := range []int{10, 100, 500, 1000, 100, 10, 2000} {
		p, err := c.Get(context.Background(), k)
		if err != nil || p.KPrime() < k {
			t.Fatalf("K=%d: %v", k, err)
		}
		if c.Bytes() > c.Limit {
			t.Fatalf("cache holds %d octets, limit %d", c.Bytes(), c.Limit)
		}
	}
	a, _ := c.Get(context.Background(), 10)
	b, _ := c.Get(context.Background(), 9)
	if a != b {
		t.Error("two plans for one K'")
	}
}

func TestRepairFromManyGoroutines(t *testing.T) {
	const k, size = 60, 200
	rng := rand.New(rand.NewPCG(3, 3))
	e := encoderFor(t, k, Shape{SymbolSize: size}, randomBlock(rng, k*size), 2)
	want := make([]byte, 40*size)
	if err := e.Repairs(want, k, 40); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			buf := make([]byte, size)
			for i := range 40 {
				if err := e.Repair(buf, uint32(k+i)); err != nil || !bytes.Equal(buf, want[i*size:(i+1)*size]) {
					t.Errorf("repair symbol %d differs (%v)", k+i, err)
				}
			}
		})
	}
	wg.Wait()
}

// capacities sums the memory behind all slices in v.
func capacities(v reflect.Value) (n int64) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			n += capacities(v.Field(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			n += capacities(v.Index(i))
		}
	case reflect.Slice:
		n = int64(v.Cap()) * int64(v.Type().Elem().Size())
	}
	return n
}

// TestEliminationKeepsItsBound: ordinary sets, and the densest the limit lets
// through.
func TestEliminationKeepsItsBound(t *testing.T) {
	for _, k := range []int{1, 10, 100, 1000, 10000, 56403} {
		for _, degree := range []uint32{1, 5, 9} {
			rng := rand.New(rand.NewPCG(uint64(k), uint64(degree)))
			s := new(solver)
			s.blk, _ = blockFor(k)
			for len(s.lt) < k+DefaultSlack {
				isi := s.blk.ISI(s.blk.K + rng.Uint32N(MaxESI-s.blk.K))
				if s.blk.Tuple(isi).D >= degree || rng.IntN(8) == 0 {
					s.lt = append(s.lt, isi)
				}
			}
			s.data = len(s.lt)
			for i := s.blk.K; i < s.blk.KPrime; i++ {
				s.lt = append(s.lt, i)
			}
			missing, err := s.solve(context.Background())
			opt, _ := DecoderOptions{}.normal()
			bound := eliminationBound(&s.blk, opt)
			n := capacities(reflect.ValueOf(s).Elem()) + int64(s.prog.slots*tileWidth(int(s.blk.L)))
			t.Logf("K=%d, degree %d: %d inactive, missing %d (%v), %d octets, bound %d", k, degree, len(s.out), missing, err, n, bound)
			if n > bound {
				t.Errorf("K=%d: %d octets, bound %d", k, n, bound)
			}
		}
	}
}

func TestResetLeavesTheCallersMemoryAlone(t *testing.T) {
	d, err := NewDecoder(2, Shape{SymbolSize: 4}, DecoderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mine := make([]byte, 8)
	if err := d.Reset(mine); err != nil {
		t.Fatal(err)
	}
	d.Add(1, []byte("abcd"))
	if err := d.Reset(nil); err != nil {
		t.Fatal(err)
	}
	d.Add(0, []byte("wxyz"))
	d.Add(1, []byte("wxyz"))
	if got, err := d.Block(); err != nil || string(got) != "wxyzwxyz" || string(mine) != "\x00\x00\x00\x00abcd" {
		t.Errorf("block %q, %v; the caller's memory %q", got, err, mine)
	}
	if err := d.Reset(mine[:7]); !errors.Is(err, ErrSize) {
		t.Error(err)
	}
}
