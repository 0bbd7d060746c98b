//go:build !purego

package gf256

import "unsafe"

// The assembly kernels. Every one trusts its stream, see Form.

//go:noescape
func sum64NEON(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut64NEON(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner64NEON(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func mulSum64NEON(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func sum128NEON(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut128NEON(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner128NEON(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func mulSum128NEON(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func sum256NEON(ws unsafe.Pointer, stream *uint32, end uintptr, loads *unsafe.Pointer, col int)

//go:noescape
func sumOut256NEON(ws unsafe.Pointer, stream *uint32, end uintptr, outs *unsafe.Pointer, col int)

//go:noescape
func horner256NEON(ws unsafe.Pointer, stream *uint32, end uintptr, last int)

//go:noescape
func mulSum256NEON(ws unsafe.Pointer, stream *uint32, end uintptr)

//go:noescape
func mulAddNEON(dst, src unsafe.Pointer, n int, x int)
