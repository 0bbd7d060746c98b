package engine

import (
	"bytes"
	"io"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"
)

// TestAStoreOnAFullDiskOpensForReading: what was filled by somebody else while no
// process had the store neither hangs nor keeps from reading, and nothing is lost.
func TestAStoreOnAFullDiskOpensForReading(t *testing.T) {
	disk := crashfs.New()
	w := newWorld(t, disk, 77)
	body := noise(1, 50_000)
	w.put(fcp.ZonePrivate, "a", body)
	w.put(fcp.ZonePrivate, "b", []byte("small"))
	for _, closed := range []bool{true, false} { // in good order, and by a crash with events that are not folded
		if closed {
			if err := w.e.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			w.open("/store")
			w.put(fcp.ZonePrivate, "c", body)
			disk = disk.CrashClone()
			w.env.FS = disk
		}
		disk.SetSpace(disk.Used())
		e, err := Open(t.Context(), "/store", Options{Environment: w.env, ReadOnly: true})
		if err != nil {
			t.Fatalf("closed %v: for reading: %v", closed, err)
		}
		r, err := e.Get(t.Context(), GetRequest{Zone: fcp.ZonePrivate, Key: "a"})
		if err != nil {
			t.Fatalf("closed %v: %v", closed, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
			t.Errorf("closed %v: %d bytes, %v", closed, len(got), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if err := e.Close(); err != nil {
			t.Errorf("closed %v: close: %v", closed, err)
		}
		start := time.Now()
		if _, err := Open(t.Context(), "/store", Options{Environment: w.env}); fcp.CodeOf(err) != fcp.CodeDiskFull {
			t.Errorf("closed %v: for writing: %v after %v", closed, err, time.Since(start))
		}
		disk.SetSpace(1 << 40)
		w.open("/store")
		if v, err := w.e.Verify(t.Context(), VerifyOptions{Bodies: true, Replay: true}); err != nil || len(v.Findings) > 0 {
			t.Errorf("closed %v: afterwards: %+v %v", closed, v.Findings, err)
		}
		if err := w.e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
