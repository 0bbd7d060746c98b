package sha256lanes

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// TestSumsAreSHA256: for every length up to three blocks, and that of a symbol with
// its prefix, for any number of messages, in a Hasher that was used before.
func TestSumsAreSHA256(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sizes := []int{1034, 4096}
	for n := 1; n < 200; n++ {
		sizes = append(sizes, n)
	}
	for _, size := range sizes {
		h := New(size)
		for round := range 3 {
			for i := range Lanes {
				for j := range h.Message(i) {
					h.Message(i)[j] = byte(rng.Uint32())
				}
			}
			var out [Lanes][32]byte
			n := []int{Lanes, rng.IntN(Lanes), 4}[round]
			h.Sum(out[:n])
			for i := range Lanes {
				want := sha256.Sum256(h.Message(i))
				if i >= n {
					want = [32]byte{}
				}
				if out[i] != want {
					t.Fatalf("%d messages of %d bytes: number %d has another hash", n, size, i)
				}
			}
		}
	}
}

func BenchmarkSum(b *testing.B) {
	h := New(1034)
	var out [Lanes][32]byte
	b.SetBytes(Lanes * 1034)
	for b.Loop() {
		h.Sum(out[:])
	}
}
