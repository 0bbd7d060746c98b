package coding_test

import (
	"bytes"
	"context"
	"fmt"

	"fcp/coding"
)

// A block survives the loss of any symbols as long as about as many arrive as it
// has source symbols.
func Example() {
	ctx := context.Background()
	const k, size = 100, 64
	block := bytes.Repeat([]byte("sixteen octets. "), k*size/16)

	var plans coding.PlanCache
	plan, err := plans.Get(ctx, k)
	if err != nil {
		panic(err)
	}
	shape := coding.Shape{SymbolSize: size, Alignment: 8}
	enc, err := coding.NewEncoder(plan, k, shape, coding.EncoderOptions{})
	if err != nil {
		panic(err)
	}
	if err := enc.Reset(block); err != nil {
		panic(err)
	}
	if err := enc.Encode(ctx); err != nil {
		panic(err)
	}

	dec, err := coding.NewDecoder(k, shape, coding.DecoderOptions{Plans: &plans})
	if err != nil {
		panic(err)
	}
	symbol := make([]byte, size)
	for esi := uint32(40); !dec.Complete(); esi++ { // the first 40 are lost
		if err := enc.Symbol(symbol, esi); err != nil {
			panic(err)
		}
		if _, err := dec.Add(esi, symbol); err != nil {
			panic(err)
		}
		if dec.Ready() {
			_ = dec.Decode(ctx) // fails with ErrNeedMore in rare cases: go on
		}
	}
	got, err := dec.Block()
	fmt.Println(bytes.Equal(got, block), err)
	// Output: true <nil>
}
