package hugepage

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Advise asks for huge pages behind s, which is best new. It is a hint: where the
// system has none, or has them everywhere, nothing changes.
func Advise[T any](s []T) {
	if len(s) == 0 {
		return
	}
	from := uintptr(unsafe.Pointer(unsafe.SliceData(s)))
	skip := -from & (Size - 1)
	if size := uintptr(len(s)) * unsafe.Sizeof(s[0]); size >= skip+Size {
		b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), size)
		_ = unix.Madvise(b[skip:skip+(size-skip)&^(Size-1)], unix.MADV_HUGEPAGE)
	}
}
