// Package gf256 is arithmetic on octets in GF(2^8) as RFC 6330 section 5.7
// defines it (polynomial x^8+x^4+x^3+x^2+1, 0x11D, generator 2), and the few
// kernels that move whole symbols: sums of many symbols, the HDPC recurrence,
// and sums of products.
//
// The kernels work on a tile: a workspace of slots, each Width octets wide and
// stored one behind the other, addressed by number from a compiled stream of
// 32 bit words. One call runs a whole stream. Every kernel has a generic Go form that defines its meaning; the assembly
// forms are chosen at run time and are left out with the purego build tag.
//
// The field polynomial is not that of AES, so GF2P8MULB does not apply; GFNI
// multiplies through GF2P8AFFINEQB with one 8x8 bit matrix per constant.
package gf256

// Polynomial is the field polynomial (section 5.7.2).
const Polynomial = 0x11D

// exp holds alpha^i twice over, so that a sum of two logarithms needs no
// reduction (section 5.7.3); log is section 5.7.4, with log[0] unused.
var (
	exp [510]byte
	log [256]uint8
)

// products[a][b] = a*b.
var products [256][256]byte

func init() {
	x := 1
	for i := range 255 {
		exp[i], exp[i+255] = byte(x), byte(x)
		log[x] = uint8(i)
		if x <<= 1; x > 255 {
			x ^= Polynomial
		}
	}
	for a := 1; a < 256; a++ {
		for b := 1; b < 256; b++ {
			products[a][b] = exp[int(log[a])+int(log[b])]
		}
	}
}

// Mul returns a*b.
func Mul(a, b byte) byte { return products[a][b] }

// Inv returns 1/a. a must not be 0.
func Inv(a byte) byte { return exp[255-int(log[a])] }

// Exp returns alpha^n.
func Exp(n uint32) byte { return exp[n%255] }
