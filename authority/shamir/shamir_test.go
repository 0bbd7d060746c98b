package shamir

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"fcp"
)

// The reference: multiplication by logarithms to the generator 3, and
// interpolation by solving the linear system, written apart from the package.
var (
	logs [256]int
	exps [255]byte
)

func init() {
	v := 1
	for i := range exps {
		exps[i], logs[v] = byte(v), i
		v ^= v << 1 // times 3
		if v > 0xff {
			v ^= 0x11b
		}
	}
}

func plainMul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return exps[(logs[a]+logs[b])%255]
}

func plainDiv(a, b byte) byte {
	if a == 0 {
		return 0
	}
	return exps[(logs[a]-logs[b]+255)%255]
}

// solve returns the constant term of the polynomial of degree len(xs)-1 through
// the points, by elimination.
func solve(xs, ys []byte) byte {
	n := len(xs)
	m := make([][]byte, n)
	for i := range m {
		m[i] = make([]byte, n+1)
		p := byte(1)
		for j := range n {
			m[i][j] = p
			p = plainMul(p, xs[i])
		}
		m[i][n] = ys[i]
	}
	for c := range n {
		p := c
		for m[p][c] == 0 {
			p++
		}
		m[c], m[p] = m[p], m[c]
		d := m[c][c]
		for j := range m[c] {
			m[c][j] = plainDiv(m[c][j], d)
		}
		for r := range m {
			if f := m[r][c]; r != c {
				for j := range m[r] {
					m[r][j] ^= plainMul(f, m[c][j])
				}
			}
		}
	}
	return m[0][n]
}

func TestEveryProductAndInverseIsThatOfTheReference(t *testing.T) {
	for a := range 256 {
		for b := range 256 {
			if got, want := mul(byte(a), byte(b)), plainMul(byte(a), byte(b)); got != want {
				t.Fatalf("%d x %d = %d, want %d", a, b, got, want)
			}
		}
		if a > 0 && mul(byte(a), inverse(byte(a))) != 1 {
			t.Fatalf("the inverse of %d", a)
		}
	}
	if inverse(0) != 0 {
		t.Fatal("the inverse of 0")
	}
	// FIPS 197 section 4.2 works this product out.
	if mul(0x57, 0x83) != 0xc1 || mul(0x57, 0x13) != 0xfe {
		t.Fatal("the examples of FIPS 197 section 4.2")
	}
}

func TestAnyKSharesRebuildAndAgreeWithTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "n")
		if rapid.Bool().Draw(t, "many") {
			n = rapid.IntRange(200, MaxShares).Draw(t, "n2")
		}
		k := rapid.IntRange(1, min(n, 30)).Draw(t, "k")
		secret := rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "secret")
		var seed [32]byte
		copy(seed[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed"))
		shares, err := Split(rand.NewChaCha8(seed), secret, k, n)
		if err != nil {
			t.Fatal(err)
		}
		pick := rapid.Permutation(shares).Draw(t, "order")[:k]
		got, err := Combine(pick)
		if err != nil || !bytes.Equal(got, secret) {
			t.Fatalf("%x, want %x: %v", got, secret, err)
		}
		var xs, ys []byte
		for _, s := range pick {
			xs, ys = append(xs, s.X), append(ys, s.Y[0])
		}
		if solve(xs, ys) != secret[0] {
			t.Fatal("the reference rebuilds another byte")
		}
		if all, err := Combine(shares); err != nil || !bytes.Equal(all, secret) {
			t.Fatalf("all shares: %v", err)
		}
	})
}

// stream gives fixed bytes as randomness.
type stream []byte

func (s *stream) Read(p []byte) (int, error) {
	n := copy(p, *s)
	*s = (*s)[n:]
	if n < len(p) {
		return n, errors.New("no more")
	}
	return n, nil
}

// TestFewerThanKSharesSayNothing counts, over every possible draw of the
// coefficients, what k-1 shares look like: each value, and each pair of values,
// comes equally often whatever the secret is. Equality here is exact, no sample.
func TestFewerThanKSharesSayNothing(t *testing.T) {
	const n = 4
	for _, secret := range []byte{0, 1, 0x53, 0xff} {
		var two [n][256]int // k=2, one share
		for c := range 256 {
			shares, err := Split(&stream{byte(c)}, []byte{secret}, 2, n)
			if err != nil {
				t.Fatal(err)
			}
			for i, s := range shares {
				two[i][s.Y[0]]++
			}
		}
		for i := range two {
			for v, count := range two[i] {
				if count != 1 {
					t.Fatalf("k=2: share %d of %#x is %d in %d of 256 cases", i+1, secret, v, count)
				}
			}
		}
		pairs := map[[2]byte]int{} // k=3, the shares 1 and 4
		for c := range 1 << 16 {
			shares, err := Split(&stream{byte(c), byte(c >> 8)}, []byte{secret}, 3, n)
			if err != nil {
				t.Fatal(err)
			}
			pairs[[2]byte{shares[0].Y[0], shares[3].Y[0]}]++
		}
		if len(pairs) != 1<<16 {
			t.Fatalf("k=3: %d of 65,536 pairs of shares of %#x", len(pairs), secret)
		}
	}
}

// TestEverySecretFitsKMinusOneSharesEquallyWell looks from the other side: shares
// 1 to k-1 of random secrets, completed by every value of one more share, rebuild
// every secret exactly once.
func TestEverySecretFitsKMinusOneSharesEquallyWell(t *testing.T) {
	src := rand.NewChaCha8([32]byte{1})
	for k := 2; k <= 9; k++ {
		shares, err := Split(src, []byte{byte(31 * k)}, k, k)
		if err != nil {
			t.Fatal(err)
		}
		var seen [256]bool
		for v := range 256 {
			last := Share{shares[k-1].X, []byte{byte(v)}}
			got, err := Combine(append(slices.Clone(shares[:k-1]), last))
			if err != nil {
				t.Fatal(err)
			}
			if seen[got[0]] {
				t.Fatalf("k=%d: %d fits twice", k, got[0])
			}
			seen[got[0]] = true
		}
	}
}

// TestSharesOfRandomSplitsAreUniform is the statistical test over real draws:
// chi-square of the bytes of k-1 shares of a constant secret.
func TestSharesOfRandomSplitsAreUniform(t *testing.T) {
	src := rand.NewChaCha8([32]byte{2})
	secret := bytes.Repeat([]byte{0}, 4096)
	for _, c := range [][2]int{{2, 5}, {3, 5}, {5, 9}} {
		k, n := c[0], c[1]
		counts := make([][256]int, k-1)
		const rounds = 16
		for range rounds {
			shares, err := Split(src, secret, k, n)
			if err != nil {
				t.Fatal(err)
			}
			for i := range counts {
				for _, b := range shares[i].Y {
					counts[i][b]++
				}
			}
		}
		for i := range counts {
			want, chi := float64(rounds*len(secret))/256, 0.0
			for _, got := range counts[i] {
				chi += (float64(got) - want) * (float64(got) - want) / want
			}
			if chi < 150 || chi > 390 { // 255 degrees: mean 255, deviation 22.6; the seed is fixed
				t.Errorf("k=%d, share %d: chi-square %.0f", k, i+1, chi)
			}
		}
	}
}

func TestWhatIsNoThresholdAndNoShareIsRefused(t *testing.T) {
	src := rand.NewChaCha8([32]byte{3})
	for _, c := range [][2]int{{0, 1}, {2, 1}, {1, 0}, {-1, 3}, {1, 256}, {256, 256}} {
		if _, err := Split(src, []byte{1}, c[0], c[1]); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%d of %d: %v", c[0], c[1], err)
		}
	}
	if _, err := Split(src, nil, 1, 1); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Errorf("an empty secret: %v", err)
	}
	if _, err := Split(&stream{1}, []byte{1, 2}, 2, 2); !errors.Is(err, fcp.CodeInternal) {
		t.Errorf("too little randomness: %v", err)
	}
	for name, shares := range map[string][]Share{
		"none": nil, "index 0": {{0, []byte{1}}}, "empty": {{1, nil}},
		"twice":   {{1, []byte{1}}, {1, []byte{1}}},
		"lengths": {{1, []byte{1}}, {2, []byte{1, 2}}},
	} {
		if _, err := Combine(shares); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkCombine(b *testing.B) {
	for _, size := range []int{32, 4096} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			shares, err := Split(rand.NewChaCha8([32]byte{4}), make([]byte, size), 3, 5)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := Combine(shares[2:]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
