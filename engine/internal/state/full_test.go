package state

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"fcp"
	"fcp/internal/crashfs"
)

// TestOpenGivesUpOnAFullDisk: Pebble would try what it writes at its start again
// without end, and Open with it.
func TestOpenGivesUpOnAFullDisk(t *testing.T) {
	for name, full := range map[string]error{"disk": syscall.ENOSPC, "quota": syscall.EDQUOT} {
		t.Run(name, func(t *testing.T) { openOnFull(t, full) })
	}
}

func openOnFull(t *testing.T, full error) {
	disk := crashfs.New()
	s := openTest(t, disk, Options{})
	put(t, s, 7, "a", "b")
	must(t, s.Close())
	image := disk.CrashClone()
	disk.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Write && strings.Contains(op.Path, "MANIFEST") {
			return full
		}
		return nil
	})
	ended := make(chan error, 1)
	go func() {
		s, err := Open(disk, "state", Options{})
		if err == nil {
			err = errors.Join(errors.New("it opened"), s.Close())
		}
		ended <- err
	}()
	if err := <-ended; !errors.Is(err, fcp.CodeDiskFull) && !errors.Is(err, fcp.CodeCrashed) {
		t.Errorf("it ends with %v", err)
	}
	// Without room it can be read: nothing is written, and nothing is lost.
	image.SetHook(func(op crashfs.Op) error {
		if op.Kind == crashfs.Write {
			return full
		}
		return nil
	})
	s, err := Open(image, "state", Options{ReadOnly: true})
	must(t, err)
	if s.Cursor() != 7 {
		t.Errorf("cursor %d", s.Cursor())
	}
	put(t, s, 8, "c")
	if err := s.Flush(t.Context()); !errors.Is(err, fcp.CodeDiskFull) {
		t.Errorf("a flush: %v", err)
	}
	for _, k := range []string{"a", "b", "c"} {
		if _, ok, err := s.Get(nil, []byte(k)); !ok || err != nil {
			t.Errorf("%s: %v %v", k, ok, err)
		}
	}
	must(t, s.Close())
}
