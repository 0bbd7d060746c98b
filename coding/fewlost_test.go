package coding

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
)

// TestEveryWayToRebuild takes each way through tiles of all kinds: staged parts
// below 64 octets, an overlapping last tile, sub-blocks, more than 64 lost.
func TestEveryWayToRebuild(t *testing.T) {
	shapes := []Shape{{SymbolSize: 8}, {SymbolSize: 100}, {SymbolSize: 520}, {SymbolSize: 1280}, {SymbolSize: 460, SubBlocks: 3, Alignment: 4}}
	for _, k := range []int{3, 26, 90, 400} {
		for _, shape := range shapes {
			for _, lost := range []int{1, 2, 9, 70, 150} {
				for _, by := range []way{byProducts, byReplay, byElimination} {
					if lost <= k {
						testWay(t, k, lost, shape, by)
					}
				}
			}
		}
	}
}

func testWay(t *testing.T, k, lost int, shape Shape, by way) {
	rng := rand.New(rand.NewPCG(uint64(k), uint64(lost)))
	block := randomBlock(rng, k*shape.SymbolSize)
	e := encoderFor(t, k, shape, block, 1)
	d, err := NewDecoder(k, shape, DecoderOptions{Plans: &testPlans, Workers: 1 + lost%2})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, shape.SymbolSize)
	add := func(esi uint32) {
		if err := e.Symbol(buf, esi); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Add(esi, buf); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range rng.Perm(k)[lost:] {
		add(uint32(i))
	}
	for i := range lost + 6 {
		add(uint32(k+i) + rng.Uint32N(1000)<<8)
	}
	d.listLost()
	if by == byElimination {
		err = d.decodeAll(context.Background())
	} else {
		var found bool
		if found, err = d.decodeFew(context.Background(), by); err == nil && !found {
			t.Fatalf("K=%d, %d lost, way %d: not found with six symbols more than needed", k, lost, by)
		}
	}
	if err != nil || !bytes.Equal(d.block, block) {
		t.Fatalf("K=%d, %d lost, %+v, way %d: block differs (%v)", k, lost, shape, by, err)
	}
}
