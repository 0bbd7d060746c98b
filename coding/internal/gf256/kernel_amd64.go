//go:build !purego

package gf256

import "unsafe"

//go:generate go run ./genasm -dir .

// The assembly kernels. Every one trusts its stream, see Form.

//go:noescape
func sum64AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut64AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner64AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func sum128AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut128AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner128AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func sum256AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut256AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner256AVX512(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func sum64AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut64AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner64AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func sum128AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut128AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner128AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func sum256AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut256AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner256AVX2(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func mulSum64AVX512(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulSum128AVX512(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulSum256AVX512(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulAddAVX512(dst, src unsafe.Pointer, n int, x int)

//go:noescape
func mulSum64AVX2(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulSum128AVX2(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulSum256AVX2(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulAddAVX2(dst, src unsafe.Pointer, n int, x int)

//go:noescape
func mulSum64GFNI(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulSum128GFNI(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulSum256GFNI(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulAddGFNI(dst, src unsafe.Pointer, n int, x int)

//go:noescape
func hornerBackAVX512(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func scatterAVX512(ws unsafe.Pointer, stream, first *uint32, past, loads uintptr)

//go:noescape
func products1x1AVX512(out, loads, factors unsafe.Pointer, n, col int)

//go:noescape
func products2x1AVX512(out, loads, factors unsafe.Pointer, n, col int)

//go:noescape
func products4x1AVX512(out, loads, factors unsafe.Pointer, n, col int)

//go:noescape
func products8x1AVX512(out, loads, factors unsafe.Pointer, n, col int)

//go:noescape
func products1x2AVX512(out, loads, factors unsafe.Pointer, n, col int)

//go:noescape
func products2x2AVX512(out, loads, factors unsafe.Pointer, n, col int)

//go:noescape
func products4x2AVX512(out, loads, factors unsafe.Pointer, n, col int)

//go:noescape
func products8x2AVX512(out, loads, factors unsafe.Pointer, n, col int)

// cpuidGFNI reports whether the processor has the GFNI instructions.
func cpuidGFNI() bool
