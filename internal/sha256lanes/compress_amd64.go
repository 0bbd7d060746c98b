//go:build amd64 && !purego

//go:generate go run ./gen compress_amd64.s

package sha256lanes

import "golang.org/x/sys/cpu"

// sideBySide says that compress is there.
var sideBySide = cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW

// compress takes blocks of 64 bytes of each message into the states: message i
// begins at data + i*stride. state[w] is word w of all of them.
//
//go:noescape
func compress(state *[8][Lanes]uint32, data *byte, stride, blocks uintptr)
