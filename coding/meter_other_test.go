//go:build !linux

package coding

import "time"

func processorTime() time.Duration { return 0 }
