//go:build !purego

package gf256

import "unsafe"

// Every arm64 processor has NEON, which Go calls ASIMD.
func forms() []Form {
	return []Form{
		{"neon", sumNEON, hornerNEON, mulSumNEON, sumOutNEON, mulAddNibbles, scatterGeneric, hornerBackGeneric, productsBy(mulAddNibbles)},
		generic,
	}
}

func sumNEON(ws unsafe.Pointer, width int, stream []uint32, loads []unsafe.Pointer, col int) {
	if len(stream) == 0 {
		return
	}
	first, end := bounds(stream)
	switch p := unsafe.SliceData(loads); width {
	case 64:
		sum64NEON(ws, first, end, p, col)
	case 128:
		sum128NEON(ws, first, end, p, col)
	default:
		sum256NEON(ws, first, end, p, col)
	}
}

func sumOutNEON(ws unsafe.Pointer, width int, stream []uint32, outs []unsafe.Pointer, col int) {
	first, end := bounds(stream)
	switch p := unsafe.SliceData(outs); width {
	case 64:
		sumOut64NEON(ws, first, end, p, col)
	case 128:
		sumOut128NEON(ws, first, end, p, col)
	default:
		sumOut256NEON(ws, first, end, p, col)
	}
}

func hornerNEON(ws unsafe.Pointer, width int, stream []uint32, last uint32) {
	first, end := bounds(stream)
	switch width {
	case 64:
		horner64NEON(ws, first, end, int(last))
	case 128:
		horner128NEON(ws, first, end, int(last))
	default:
		horner256NEON(ws, first, end, int(last))
	}
}

func mulSumNEON(ws unsafe.Pointer, width int, stream []uint32) {
	first, end := bounds(stream)
	switch width {
	case 64:
		mulSum64NEON(ws, first, end)
	case 128:
		mulSum128NEON(ws, first, end)
	default:
		mulSum256NEON(ws, first, end)
	}
}

func mulAddNibbles(dst, src []byte, x byte) {
	n := len(dst) &^ 31
	mulAddNEON(unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(src)), n, int(x))
	mulAddGeneric(dst[n:], src[n:], x)
}
