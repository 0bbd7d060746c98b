//go:build !amd64 || purego

package sha256lanes

const sideBySide = false

func compress(*[8][Lanes]uint32, *byte, uintptr, uintptr) { panic("sha256lanes: no compress") }
