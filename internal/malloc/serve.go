package malloc

import (
	"os"
	"runtime/debug"
)

// servingPercent is GOGC of a process that keeps a store open. Half of what is live
// there are overlays of up to a hundred megabytes that hold no pointers: to collect
// twice as often costs less than a hundredth of the processor time, and waiting for
// twice of them costs their size.
const servingPercent = 50

// Serving sets up Go's collector for a process that keeps a store open, unless the
// environment has GOGC.
func Serving() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(servingPercent)
	}
}
