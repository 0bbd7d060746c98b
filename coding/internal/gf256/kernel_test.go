package gf256

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestFieldIsThatOfTheRFC(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			want := 0 // carry-less product reduced by the polynomial
			for i := range 8 {
				if b>>i&1 != 0 {
					want ^= a << i
				}
			}
			for i := 15; i >= 8; i-- {
				if want>>i&1 != 0 {
					want ^= Polynomial << (i - 8)
				}
			}
			if got := Mul(byte(a), byte(b)); int(got) != want {
				t.Fatalf("%d*%d = %d, want %d", a, b, got, want)
			}
		}
		if a != 0 && Mul(byte(a), Inv(byte(a))) != 1 {
			t.Fatalf("1/%d = %d", a, Inv(byte(a)))
		}
	}
	if Exp(0) != 1 || Exp(1) != 2 || Exp(255) != 1 || Exp(8) != 0x1d {
		t.Fatal("powers of alpha are wrong")
	}
}

// scene is one random call of every kernel. Two scenes of one seed are equal
// but for the memory they live in.
type scene struct {
	slots, width int
	ws           []byte
	sums         []uint32
	starts       []uint32
	loads        []unsafe.Pointer
	symbols      [][]byte
	horner, mul  []uint32
	row          []uint32
	factors      []byte
	col          int
}

func newScene(seed uint64, width int) *scene {
	rng := rand.New(rand.NewPCG(seed, uint64(width)))
	fill := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	s := &scene{slots: 3 + rng.IntN(40), width: width, col: rng.IntN(100)}
	s.ws = fill(s.slots * width)
	slot := func() uint32 { return rng.Uint32N(uint32(s.slots)) }
	for range rng.IntN(30) {
		n := rng.IntN(12)
		s.starts = append(s.starts, uint32(len(s.sums)))
		s.sums = append(s.sums, slot(), uint32(n))
		if rng.IntN(2) == 0 {
			s.sums[len(s.sums)-1] |= 1 << 31
			s.symbols = append(s.symbols, fill(s.col+MaxWidth))
		}
		for range n {
			s.sums = append(s.sums, slot())
		}
		s.horner = append(s.horner, slot(), slot())
		dst := slot()
		s.mul = append(s.mul, dst, uint32(n))
		for range n {
			s.mul = append(s.mul, (dst+1+rng.Uint32N(uint32(s.slots-1)))%uint32(s.slots)|rng.Uint32N(256)<<24)
		}
	}
	for _, p := range s.symbols {
		s.loads = append(s.loads, unsafe.Pointer(&p[0]))
	}
	for range Ahead {
		s.loads = append(s.loads, unsafe.Pointer(&s.ws[0]))
	}
	for range rng.IntN(40) {
		s.row = append(s.row, slot())
	}
	s.factors = fill(64 * (len(s.symbols) + 1))
	return s
}

// run calls every kernel of the form and returns all that they wrote.
func (s *scene) run(f *Form) []byte {
	ws := unsafe.Pointer(&s.ws[0])
	f.Sum(ws, s.width, s.sums, s.loads, s.col)
	f.Horner(ws, s.width, s.horner, uint32(s.slots-1))
	f.MulSum(ws, s.width, s.mul)
	out := make([]byte, 700)
	stream := append([]uint32{uint32(len(s.row))}, s.row...)
	outs := make([]unsafe.Pointer, 2+Ahead)
	for i := range outs {
		outs[i] = unsafe.Pointer(&out[i%2*300])
	}
	f.SumOut(ws, s.width, append(stream, stream...), outs, 1+s.col%40)
	acc := make([]byte, 17*128)
	n := len(s.row) % 18
	f.Products(unsafe.Pointer(&acc[0]), min(n, 17), min(s.width, 128), s.loads, len(s.symbols), unsafe.Pointer(&s.factors[0]), s.col)
	if s.width == 64 {
		f.Scatter(ws, s.sums, s.starts, s.loads[:len(s.symbols)])
		f.HornerBack(ws, s.horner, uint32(s.slots/2))
	}
	n = len(s.row) + s.col
	line := make([]byte, n)
	f.MulAdd(line, s.ws[1:1+n], byte(s.col))
	return bytes.Join(append([][]byte{s.ws, out, acc, line}, s.symbols...), nil)
}

func checkForms(t *testing.T, seed uint64) {
	for _, width := range []int{64, 128, 256} {
		want := newScene(seed, width).run(&generic)
		for _, f := range Forms() {
			if got := newScene(seed, width).run(&f); !bytes.Equal(got, want) {
				at := 0
				for got[at] == want[at] {
					at++
				}
				t.Fatalf("form %s differs from the generic one: seed %d, width %d, octet %d of %d", f.Name, seed, width, at, len(want))
			}
		}
	}
}

func TestFormsAgree(t *testing.T) {
	for _, f := range Forms() {
		t.Log("form", f.Name)
	}
	for seed := range uint64(400) {
		checkForms(t, seed)
	}
}

func FuzzForms(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(checkForms)
}

func TestEveryProduct(t *testing.T) {
	src := make([]byte, 256)
	for i := range src {
		src[i] = byte(i)
	}
	for _, f := range Forms() {
		for x := range 256 {
			dst := make([]byte, 256)
			f.MulAdd(dst, src, byte(x))
			for i, v := range dst {
				if v != Mul(byte(x), byte(i)) {
					t.Fatalf("form %s: %d*%d = %d", f.Name, x, i, v)
				}
			}
		}
	}
}

// BenchmarkLimit is XOR-accumulate in the second-level cache, the limit the
// codec is measured against.
func BenchmarkLimit(b *testing.B) {
	for _, f := range Forms() {
		b.Run(fmt.Sprintf("xor-accumulate/L2/%s", f.Name), func(b *testing.B) {
			const slots, width = 4096, 256 // 1 MiB
			ws := make([]byte, (slots+1)*width)
			stream := []uint32{slots, slots}
			for i := range uint32(slots) {
				stream = append(stream, i)
			}
			b.SetBytes(slots * width)
			for b.Loop() {
				f.Sum(unsafe.Pointer(&ws[0]), width, stream, nil, 0)
			}
		})
	}
}
