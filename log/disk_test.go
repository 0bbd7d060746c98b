package log

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"fcp"
)

// TestAFullDiskIsNoFaultOfIt: whatever is written when the space or a quota ends, the
// error passes when there is room again; any other is the disk's.
func TestAFullDiskIsNoFaultOfIt(t *testing.T) {
	for cause, want := range map[error]fcp.Code{
		syscall.ENOSPC: fcp.CodeDiskFull, syscall.EDQUOT: fcp.CodeDiskFull, syscall.EIO: fcp.CodeDisk, syscall.EROFS: fcp.CodeDisk,
	} {
		if err := wrapDisk(fmt.Errorf("write: %w", cause), "writing a segment"); fcp.CodeOf(err) != want || !errors.Is(err, cause) {
			t.Errorf("%v: %v", cause, err)
		}
	}
	if wrapDisk(nil, "x") != nil {
		t.Error("no error becomes one")
	}
}
