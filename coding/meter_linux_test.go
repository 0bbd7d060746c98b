package coding

import (
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is the processor time of the process so far.
func processorTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
