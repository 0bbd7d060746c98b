package coding

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages behind b. Random access to slots over many
// megabytes is bound by address translation, and on virtual machines by the
// page faults of the first touch. It is advice only: failing changes nothing.
func adviseHuge(b []byte) {
	page := unix.Getpagesize()
	if skip := offset(b, page); len(b) >= skip+page {
		b = b[skip:]
		_ = unix.Madvise(b[:len(b)/page*page], unix.MADV_HUGEPAGE)
	}
}
