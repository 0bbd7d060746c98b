//go:build !unix

package nodump

// Protect does nothing: this system writes no core files by itself.
func Protect() error { return nil }
