package coding

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strconv"
	"testing"
)

// residentPeak returns the largest resident size of the process so far in
// octets, or 0 where it is not known.
func residentPeak() int {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	_, rest, ok := bytes.Cut(raw, []byte("VmHWM:"))
	if !ok {
		return 0
	}
	kb, err := strconv.Atoi(string(bytes.Fields(rest)[0]))
	if err != nil {
		return 0
	}
	return kb << 10
}

// TestMemoryOfALargeBlock takes FCP_MEMORY=encode or decode and reports the
// peak of the whole process for one block of 50,000 symbols of 1,280 octets.
// It runs alone in its process: go test -run TestMemoryOfALargeBlock. The
// symbols decoded are all repair and made of a block of zeros, so that no
// encoder is needed.
func TestMemoryOfALargeBlock(t *testing.T) {
	mode := os.Getenv("FCP_MEMORY")
	if mode == "" {
		t.Skip("did not run: set FCP_MEMORY to encode or decode")
	}
	const k = 50000
	shape := Shape{SymbolSize: benchT, Alignment: 8}
	switch mode {
	case "encode":
		block := make([]byte, k*benchT)
		for i := range block {
			block[i] = byte(i)
		}
		plan, err := NewPlan(context.Background(), k)
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEncoder(plan, k, shape, EncoderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if e.Reset(block) != nil || e.Encode(context.Background()) != nil {
			t.Fatal("encode")
		}
		runtime.KeepAlive(e)
	case "decode":
		d, err := NewDecoder(k, shape, DecoderOptions{})
		if err != nil {
			t.Fatal(err)
		}
		symbol := make([]byte, benchT)
		for esi := uint32(k); d.Needs() > 0; esi++ {
			if _, err := d.Add(esi, symbol); err != nil {
				t.Fatal(err)
			}
			if d.Needs() == 0 && d.Decode(context.Background()) == nil {
				break
			}
		}
		if !d.Complete() {
			t.Fatal("not decoded")
		}
	default:
		t.Fatalf("FCP_MEMORY=%s", mode)
	}
	t.Logf("%s: %d MB", mode, residentPeak()/1e6)
	if residentPeak() > 200e6 {
		t.Errorf("more than 200 MB")
	}
}
