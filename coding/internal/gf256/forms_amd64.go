//go:build !purego

package gf256

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// matrices[x] is the 8x8 bit matrix of multiplication by x as GF2P8AFFINEQB
// takes it: octet 7-i gives bit i of the result.
var matrices [256]uint64

func init() {
	for x := range 256 {
		for j := range 8 {
			p := products[x][1<<j]
			for i := range 8 {
				matrices[x] |= uint64(p>>i&1) << (8*(7-i) + j)
			}
		}
	}
}

func forms() []Form {
	var f []Form
	avx2 := cpu.X86.HasAVX2
	if avx2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ && cpuidGFNI() {
		f = append(f, Form{"avx512", sumAVX512, hornerAVX512, mulSumAVX512, sumOutAVX512, mulAdd512, scatter512, hornerBack512, products512})
	}
	if avx2 && cpuidGFNI() {
		f = append(f, Form{"gfni", sumAVX2, hornerAVX2, mulSumGFNI, sumOutAVX2, mulAdd256, scatterGeneric, hornerBackGeneric, productsBy(mulAdd256)})
	}
	if avx2 {
		f = append(f, Form{"avx2", sumAVX2, hornerAVX2, mulSumAVX2, sumOutAVX2, mulAddNibbles, scatterGeneric, hornerBackGeneric, productsBy(mulAddNibbles)})
	}
	return append(f, generic)
}

func sumAVX512(ws unsafe.Pointer, width int, stream []uint32, loads []unsafe.Pointer, col int) {
	if len(stream) == 0 {
		return
	}
	first, end := bounds(stream)
	switch p := unsafe.SliceData(loads); width {
	case 64:
		sum64AVX512(ws, first, end, p, col)
	case 128:
		sum128AVX512(ws, first, end, p, col)
	default:
		sum256AVX512(ws, first, end, p, col)
	}
}

func sumOutAVX512(ws unsafe.Pointer, width int, stream []uint32, outs []unsafe.Pointer, col int) {
	first, end := bounds(stream)
	switch p := unsafe.SliceData(outs); width {
	case 64:
		sumOut64AVX512(ws, first, end, p, col)
	case 128:
		sumOut128AVX512(ws, first, end, p, col)
	default:
		sumOut256AVX512(ws, first, end, p, col)
	}
}

func hornerAVX512(ws unsafe.Pointer, width int, stream []uint32, last uint32) {
	first, end := bounds(stream)
	switch width {
	case 64:
		horner64AVX512(ws, first, end, int(last))
	case 128:
		horner128AVX512(ws, first, end, int(last))
	default:
		horner256AVX512(ws, first, end, int(last))
	}
}

func sumAVX2(ws unsafe.Pointer, width int, stream []uint32, loads []unsafe.Pointer, col int) {
	if len(stream) == 0 {
		return
	}
	first, end := bounds(stream)
	switch p := unsafe.SliceData(loads); width {
	case 64:
		sum64AVX2(ws, first, end, p, col)
	case 128:
		sum128AVX2(ws, first, end, p, col)
	default:
		sum256AVX2(ws, first, end, p, col)
	}
}

func sumOutAVX2(ws unsafe.Pointer, width int, stream []uint32, outs []unsafe.Pointer, col int) {
	first, end := bounds(stream)
	switch p := unsafe.SliceData(outs); width {
	case 64:
		sumOut64AVX2(ws, first, end, p, col)
	case 128:
		sumOut128AVX2(ws, first, end, p, col)
	default:
		sumOut256AVX2(ws, first, end, p, col)
	}
}

func hornerAVX2(ws unsafe.Pointer, width int, stream []uint32, last uint32) {
	first, end := bounds(stream)
	switch width {
	case 64:
		horner64AVX2(ws, first, end, int(last))
	case 128:
		horner128AVX2(ws, first, end, int(last))
	default:
		horner256AVX2(ws, first, end, int(last))
	}
}

func mulSumAVX512(ws unsafe.Pointer, width int, stream []uint32) {
	first, end := bounds(stream)
	switch width {
	case 64:
		mulSum64AVX512(ws, first, end)
	case 128:
		mulSum128AVX512(ws, first, end)
	default:
		mulSum256AVX512(ws, first, end)
	}
}

func mulSumAVX2(ws unsafe.Pointer, width int, stream []uint32) {
	first, end := bounds(stream)
	switch width {
	case 64:
		mulSum64AVX2(ws, first, end)
	case 128:
		mulSum128AVX2(ws, first, end)
	default:
		mulSum256AVX2(ws, first, end)
	}
}

func mulSumGFNI(ws unsafe.Pointer, width int, stream []uint32) {
	first, end := bounds(stream)
	switch width {
	case 64:
		mulSum64GFNI(ws, first, end)
	case 128:
		mulSum128GFNI(ws, first, end)
	default:
		mulSum256GFNI(ws, first, end)
	}
}

func mulAdd512(dst, src []byte, x byte) {
	n := len(dst) &^ 31
	mulAddAVX512(unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src)), n, int(x))
	mulAddGeneric(dst[n:], src[n:], x)
}

func mulAdd256(dst, src []byte, x byte) {
	n := len(dst) &^ 31
	mulAddGFNI(unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src)), n, int(x))
	mulAddGeneric(dst[n:], src[n:], x)
}

func mulAddNibbles(dst, src []byte, x byte) {
	n := len(dst) &^ 31
	mulAddAVX2(unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src)), n, int(x))
	mulAddGeneric(dst[n:], src[n:], x)
}

func scatter512(ws unsafe.Pointer, stream, starts []uint32, loads []unsafe.Pointer) {
	if len(starts) == 0 {
		return
	}
	first, past := bounds(starts)
	end := uintptr(unsafe.Pointer(unsafe.SliceData(loads))) + 8*uintptr(len(loads))
	scatterAVX512(ws, unsafe.SliceData(stream), first, past, end)
}

func hornerBack512(ws unsafe.Pointer, stream []uint32, last uint32) {
	first, end := bounds(stream)
	hornerBackAVX512(ws, first, end, int(last))
}

func products512(out unsafe.Pointer, outs, width int, loads []unsafe.Pointer, n int, factors unsafe.Pointer, col int) {
	p := unsafe.Pointer(unsafe.SliceData(loads))
	for j := 0; j < outs; {
		o, f := unsafe.Add(out, j*width), unsafe.Add(factors, j)
		switch left := outs - j; {
		case left >= 8 && width == 128:
			products8x2AVX512(o, p, f, n, col)
			j += 8
		case left >= 8:
			products8x1AVX512(o, p, f, n, col)
			j += 8
		case left >= 4 && width == 128:
			products4x2AVX512(o, p, f, n, col)
			j += 4
		case left >= 4:
			products4x1AVX512(o, p, f, n, col)
			j += 4
		case left >= 2 && width == 128:
			products2x2AVX512(o, p, f, n, col)
			j += 2
		case left >= 2:
			products2x1AVX512(o, p, f, n, col)
			j += 2
		case width == 128:
			products1x2AVX512(o, p, f, n, col)
			j++
		default:
			products1x1AVX512(o, p, f, n, col)
			j++
		}
	}
}
