//go:build unix && !linux

package nodump

import "golang.org/x/sys/unix"

// Protect sets the size of core files to 0 for good. Errors are the system's.
func Protect() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }
