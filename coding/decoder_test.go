package coding

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"fcp/coding/internal/gf256"
	"pgregory.net/rapid"
)

// randomBlock returns a block of k symbols of the shape.
func randomBlock(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
	}
	for i := n &^ 7; i < n; i++ {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// feed adds symbols of e to d until d decodes: the source symbols not lost and then
// random repair symbols, all in random order, with duplicates.
func feed(t interface {
	Fatalf(string, ...any)
}, e *Encoder, d *Decoder, lost map[int]bool, rng *rand.Rand, extra int) {
	k, size := int(e.blk.K), e.shape.SymbolSize
	var ids []uint32
	for i := range k {
		if !lost[i] {
			ids = append(ids, uint32(i))
		}
	}
	seen := map[uint32]bool{}
	for n := len(lost) + extra; n > 0; n-- {
		esi := uint32(k) + rng.Uint32N(MaxESI+1-uint32(k))
		if rng.IntN(2) == 0 {
			esi = uint32(k) + rng.Uint32N(uint32(k)+100)
		}
		if seen[esi] {
			n++
			continue
		}
		seen[esi] = true
		ids = append(ids, esi)
	}
	rng.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	buf := make([]byte, size)
	add := func(esi uint32, fresh bool) {
		if err := e.Symbol(buf, esi); err != nil {
			t.Fatalf("symbol %d: %v", esi, err)
		}
		fresh = fresh && !d.Complete()
		got, err := d.Add(esi, buf)
		if err != nil || got != fresh {
			t.Fatalf("add %d: %v, %v, want %v", esi, got, err, fresh)
		}
	}
	for i, esi := range ids {
		add(esi, true)
		if i%7 == 0 && !d.Complete() {
			add(esi, false)
		}
	}
	for {
		err := d.Decode(context.Background())
		if err == nil {
			return
		}
		if !errors.Is(err, ErrNeedMore) || d.Needs() < 1 {
			t.Fatalf("decode: %v, needs %d", err, d.Needs())
		}
		for n := d.Needs(); n > 0; {
			esi := uint32(k) + rng.Uint32N(MaxESI+1-uint32(k))
			if seen[esi] {
				continue
			}
			seen[esi] = true
			add(esi, true)
			n--
		}
	}
}

func TestDecodeProperty(t *testing.T) {
	maxK := 600
	if testing.Short() {
		maxK = 200
	}
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(1, maxK).Draw(t, "K")
		al := rapid.SampledFrom([]int{1, 2, 4, 8}).Draw(t, "Al")
		units := rapid.IntRange(1, 60).Draw(t, "units")
		sub := rapid.IntRange(1, min(units, 3)).Draw(t, "N")
		shape := Shape{SymbolSize: units * al, SubBlocks: sub, Alignment: al}
		cut := rapid.IntRange(0, shape.SymbolSize-1).Draw(t, "short")
		loss := rapid.SampledFrom([]int{0, 1, 5, 20, 50, 99, 100}).Draw(t, "loss percent")
		extra := rapid.IntRange(0, 2).Draw(t, "extra")
		workers := rapid.IntRange(1, 2).Draw(t, "workers")
		opt := DecoderOptions{Workers: workers}
		if rapid.Bool().Draw(t, "plan") {
			opt.Plans = &testPlans
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))

		block := randomBlock(rng, k*shape.SymbolSize-cut)
		plan, err := testPlans.Get(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEncoder(plan, k, shape, EncoderOptions{Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		d, err := NewDecoder(k, shape, opt)
		if err != nil {
			t.Fatal(err)
		}
		// Blocks of this size are not worth sharing, so share them here.
		e.tiles, e.cut = tiles(e.stripes, gf256.MaxWidth, workers)
		e.runs = make([]replayer, len(e.cut)-1)
		d.opt.Workers = workers
		d.tiles, d.cut = e.tiles, e.cut
		if err := e.Reset(block); err != nil {
			t.Fatal(err)
		}
		if err := e.Encode(context.Background()); err != nil {
			t.Fatal(err)
		}
		lost := map[int]bool{}
		for i := range k {
			if rng.IntN(100) < loss {
				lost[i] = true
			}
		}
		feed(t, e, d, lost, rng, extra)
		got, err := d.Block()
		if err != nil || !bytes.Equal(got[:len(block)], block) {
			t.Fatalf("decoded block differs (%v)", err)
		}
		for _, b := range got[len(block):] {
			if b != 0 {
				t.Fatalf("padding is not zero")
			}
		}
	})
}

// TestSeveralCores encodes and decodes blocks that are large enough to be shared,
// and loses so much that each way to decode comes up.
func TestSeveralCores(t *testing.T) {
	const k, size, workers = 1000, 1288, 3
	rng := rand.New(rand.NewPCG(8, 8))
	shape := Shape{SymbolSize: size, Alignment: 8}
	block := randomBlock(rng, k*size)
	e := encoderFor(t, k, shape, block, workers)
	if len(e.cut) != workers+1 || !bytes.Equal(intermediate(e), intermediate(encoderFor(t, k, shape, block, 1))) {
		t.Fatalf("%d shares, or other intermediate symbols", len(e.cut)-1)
	}
	ways := map[way]bool{}
	for _, n := range []int{20, 60, 200, k} {
		d, err := NewDecoder(k, shape, DecoderOptions{Workers: workers, Plans: &testPlans})
		if err != nil {
			t.Fatal(err)
		}
		lost := map[int]bool{}
		for _, i := range rng.Perm(k)[:n] {
			lost[i] = true
		}
		feed(t, e, d, lost, rng, 0)
		if got, err := d.Block(); err != nil || !bytes.Equal(got, block) {
			t.Fatalf("%d lost: decoded block differs (%v)", n, err)
		}
		ways[d.cheapest()] = true
	}
	if len(ways) < 3 {
		t.Errorf("only %d ways to decode came up", len(ways))
	}
}

func TestDecodeLarge(t *testing.T) {
	for _, k := range []int{1000, 10017, 56403} {
		rng := rand.New(rand.NewPCG(uint64(k), 2))
		shape := Shape{SymbolSize: 16, Alignment: 8}
		block := randomBlock(rng, k*16)
		e := encoderFor(t, k, shape, block, 1)
		for _, loss := range []int{1, 20, 100} {
			d, err := NewDecoder(k, shape, DecoderOptions{Plans: &testPlans})
			if err != nil {
				t.Fatal(err)
			}
			lost := map[int]bool{}
			for i := range k {
				if rng.IntN(100) < loss {
					lost[i] = true
				}
			}
			feed(t, e, d, lost, rng, 0)
			if got, err := d.Block(); err != nil || !bytes.Equal(got, block) {
				t.Fatalf("K=%d loss %d %%: decoded block differs (%v)", k, loss, err)
			}
		}
	}
}

// TestReusedDecoder decodes blocks of random sizes with one decoder, some of them not to
// the end, and compares each with its source.
func TestReusedDecoder(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	shape := Shape{SymbolSize: 64, Alignment: 8}
	var plans PlanCache
	d, err := NewDecoder(10, shape, DecoderOptions{Plans: &plans, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 60 {
		k := 1 + rng.IntN([]int{20, 300, 9000}[round%3])
		if round%7 == 6 {
			k = int(d.blk.K) // the same again
		}
		if err := d.Reuse(0); err == nil {
			t.Fatal("a decoder of no symbols")
		}
		if err := d.Reuse(k); err != nil {
			t.Fatal(err)
		}
		source := make([]byte, k*shape.SymbolSize)
		for i := range source {
			source[i] = byte(rng.Uint32())
		}
		plan, err := plans.Get(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEncoder(plan, k, shape, EncoderOptions{})
		if err != nil || e.Reset(source) != nil || e.Encode(context.Background()) != nil {
			t.Fatal(err)
		}
		symbol := make([]byte, shape.SymbolSize)
		lost := rng.IntN(k + 1)
		stop := round%5 == 4
		for i, esi := range rng.Perm(k) {
			if i < lost {
				esi += k + rng.IntN(1<<20)
			}
			if err := e.Symbol(symbol, uint32(esi)); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Add(uint32(esi), symbol); err != nil {
				t.Fatal(err)
			}
		}
		for esi := uint32(k + 1<<21); !stop && !d.Complete(); esi++ {
			if d.Needs() == 0 {
				if err := d.Decode(context.Background()); err == nil {
					break
				} else if !errors.Is(err, ErrNeedMore) {
					t.Fatal(err)
				}
			}
			if err := e.Symbol(symbol, esi); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Add(esi, symbol); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := d.Block(); !stop && (err != nil || !bytes.Equal(got, source)) {
			t.Fatalf("round %d, %d symbols, %d lost: %v", round, k, lost, err)
		}
	}
}
