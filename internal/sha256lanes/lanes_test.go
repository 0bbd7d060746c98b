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

// TestQueuedSumsAreSHA256: messages of any lengths in any order, with prefixes, more and
// fewer than there are lanes, flushed now and then.
func TestQueuedSumsAreSHA256(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var q Queue
	for round := range 200 {
		n := rng.IntN(120)
		lengths := 1 + rng.IntN(MaxQueued+1) // few lengths fill the lanes, many do not
		out, want := make([][32]byte, n), make([][32]byte, n)
		buf := make([]byte, MaxQueued)
		for i := range n {
			m := buf[:max(0, MaxQueued-rng.IntN(lengths))]
			if round%2 == 0 {
				m = buf[:rng.IntN(lengths)]
			}
			for j := range m {
				m[j] = byte(rng.Uint32())
			}
			want[i] = sha256.Sum256(m)
			cut := rng.IntN(len(m) + 1)
			q.Add(&out[i], string(m[:cut]), m[cut:])
		}
		q.Flush()
		for i := range n {
			if out[i] != want[i] {
				t.Fatalf("round %d: message %d of %d has another hash", round, i, n)
			}
		}
	}
}

func BenchmarkQueue(b *testing.B) {
	var q Queue
	var out [Lanes][32]byte
	m := make([]byte, 500)
	b.SetBytes(Lanes * 500)
	for b.Loop() {
		for i := range out {
			q.Add(&out[i], "prefix", m)
		}
	}
}

func BenchmarkAlone(b *testing.B) {
	m := make([]byte, 506)
	b.SetBytes(Lanes * 506)
	for b.Loop() {
		for range Lanes {
			sha256.Sum256(m)
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
