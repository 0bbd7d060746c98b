package coding

import "fcp/coding/internal/gf256"

// XORAccumulate adds src to dst, octet by octet, up to the length of the shorter.
// It is the primitive step of the code: the rate at which it runs in a
// second-level cache is what the codec's rates are compared with across
// machines.
func XORAccumulate(dst, src []byte) {
	n := min(len(dst), len(src))
	gf256.MulAdd(dst[:n], src[:n], 1)
}

// Kernels names the form of the kernels this processor runs: avx512, gfni, avx2,
// neon or generic.
func Kernels() string { return gf256.Best.Name }
