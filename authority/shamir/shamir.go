// Package shamir splits a secret into n shares of which any k bring it back and
// fewer say nothing about it (A. Shamir, "How to share a secret", 1979).
//
// Each byte is the constant term of a polynomial of degree k-1 over GF(2^8) with
// the reduction polynomial x^8+x^4+x^3+x+1 (0x11B, that of FIPS 197). Coefficients
// are uniform and independent, the leading one too: fewer than k shares are then
// uniform whatever the secret is. Share x holds the values at the field element x,
// from 1.
//
// The package says nothing about who may have a share and cannot tell a wrong one:
// package authority binds shares with commitments. Time depends on the sizes and
// on the indices, which are public, never on the bytes of a secret or share: no
// table is indexed and no branch taken by them.
package shamir

import (
	"io"

	"fcp"
)

// MaxShares is the highest number of shares, and the highest index.
const MaxShares = 255

// Share is one share: the values of the polynomials at X.
type Share struct {
	X byte   // index, from 1
	Y []byte // as many bytes as the secret has
}

// Wipe overwrites the share.
func (s *Share) Wipe() { clear(s.Y) }

// Check refuses a threshold that is none: 1 <= k <= n <= MaxShares.
func Check(k, n int) error {
	if k < 1 || k > n || n > MaxShares {
		return fcp.Errorf(fcp.CodeInvalidArgument, "%d of %d shares; wanted is 1 to n of at most %d", k, n, MaxShares)
	}
	return nil
}

// Split returns n shares, with the indices 1 to n, of which any k rebuild the
// secret. It takes (k-1) x len(secret) bytes of rand, which must be uniform. The
// caller wipes the shares. Errors: CodeInvalidArgument for a threshold that is none
// or an empty secret, CodeInternal when rand fails.
func Split(rand io.Reader, secret []byte, k, n int) ([]Share, error) {
	if err := Check(k, n); err != nil {
		return nil, err
	}
	if len(secret) == 0 {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "an empty secret cannot be shared")
	}
	higher := make([]byte, (k-1)*len(secret)) // coefficients, the leading ones first
	defer clear(higher)
	if _, err := io.ReadFull(rand, higher); err != nil {
		return nil, fcp.Wrap(fcp.CodeInternal, err, "read randomness for shares")
	}
	out := make([]Share, n)
	for i := range out {
		x := byte(i + 1)
		y := make([]byte, len(secret))
		for c := higher; len(c) > 0; c = c[len(secret):] { // Horner
			for j := range y {
				y[j] = mul(y[j], x) ^ c[j]
			}
		}
		for j := range y {
			y[j] = mul(y[j], x) ^ secret[j]
		}
		out[i] = Share{x, y}
	}
	return out, nil
}

// Combine returns the secret that the shares agree on when there are at least k of
// them; with fewer, or a wrong one, it returns other bytes. The caller wipes the
// result. Errors: CodeInvalidArgument for no share, an index of 0 or twice, or
// shares of different lengths.
func Combine(shares []Share) ([]byte, error) {
	if len(shares) == 0 || len(shares) > MaxShares {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "%d shares", len(shares))
	}
	var seen [MaxShares + 1]bool
	for _, s := range shares {
		if s.X == 0 || seen[s.X] || len(s.Y) == 0 || len(s.Y) != len(shares[0].Y) {
			return nil, fcp.Errorf(fcp.CodeInvalidArgument, "share %d is there twice, empty, or of another length", s.X).
				WithNext("give each share once, and only shares of one set")
		}
		seen[s.X] = true
	}
	out := make([]byte, len(shares[0].Y))
	for i, s := range shares {
		// The Lagrange coefficient at 0; subtraction is exclusive or.
		num, den := byte(1), byte(1)
		for j, t := range shares {
			if i != j {
				num, den = mul(num, t.X), mul(den, t.X^s.X)
			}
		}
		c := mul(num, inverse(den))
		for j := range out {
			out[j] ^= mul(s.Y[j], c)
		}
	}
	return out, nil
}

// mul multiplies in the field: eight steps of shift and add, each with a mask in
// place of a branch.
func mul(a, b byte) byte {
	var p byte
	for range 8 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return p
}

// inverse returns a^254, which is 1/a, and 0 for 0.
func inverse(a byte) byte {
	out := byte(1)
	for range 7 { // 254 = 2+4+...+128
		a = mul(a, a)
		out = mul(out, a)
	}
	return out
}
