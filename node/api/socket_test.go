package api

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"fcp"
)

// TestOnlyASocketIsReplaced: a file with something in it at the socket's place is
// somebody's.
func TestOnlyASocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "f"), filepath.Join(dir, "s")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, dir} {
		if err := removeSocket(path); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // there, and not there
		if err := removeSocket(socket); err != nil {
			t.Error(err)
		}
	}
}
