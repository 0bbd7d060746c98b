package engine

import (
	"errors"
	"io/fs"
	"syscall"
	"testing"

	"fcp"
)

// TestLockErrors: a store that cannot be locked for want of room or of a right is not
// said to be open elsewhere.
func TestLockErrors(t *testing.T) {
	for cause, want := range map[error]fcp.Code{
		syscall.ENOSPC:   fcp.CodeDiskFull,
		syscall.EDQUOT:   fcp.CodeDiskFull,
		syscall.EROFS:    fcp.CodeDisk,
		fs.ErrPermission: fcp.CodeUnauthorized,
		syscall.EAGAIN:   fcp.CodeLocked,
	} {
		if got := lockError("store", &fs.PathError{Op: "open", Path: "LOCK", Err: cause}); !errors.Is(got, want) {
			t.Errorf("%v: %v", cause, got)
		}
	}
}
