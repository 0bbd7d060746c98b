package crashfs_test

import (
	"fmt"
	"runtime"
)

// stopLogger ends the goroutine that hits a fatal error, as the default logger
// ends the process.
type stopLogger struct{ fatal chan<- string }

func (stopLogger) Infof(string, ...any)  {}
func (stopLogger) Errorf(string, ...any) {}

func (l stopLogger) Fatalf(format string, args ...any) {
	select {
	case l.fatal <- fmt.Sprintf(format, args...):
	default:
	}
	runtime.Goexit()
}
