package directio

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestFileHoldsWhatWasWritten: for lengths around the alignment and the buffer, in
// pieces of any length, direct or not.
func TestFileHoldsWhatWasWritten(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, align - 1, align, align + 1, BufferSize - 1, BufferSize, BufferSize + 1, 3*BufferSize + 5*align, 5*BufferSize + 77} {
		for _, ordinary := range []bool{false, true} {
			plain.Store(ordinary)
			fileHolds(t, rng, size)
		}
	}
	plain.Store(false)
}

func fileHolds(t *testing.T, rng *rand.Rand, size int) {
	want := make([]byte, size)
	for i := range want {
		want[i] = byte(rng.Uint32())
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 10*BufferSize), 0o600); err != nil { // an older one
		t.Fatal(err)
	}
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for rest := want; len(rest) > 0; {
		n := min(len(rest), 1+rng.IntN(2*BufferSize))
		if m, err := w.Write(rest[:n]); m != n || err != nil {
			t.Fatal(m, err)
		}
		rest = rest[n:]
	}
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	if w.Size() != int64(size) {
		t.Errorf("%d of %d bytes", w.Size(), size)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes: read %d, %v", size, len(got), err)
	}
	part := make([]byte, 5000)
	n, err := r.ReadAt(part, int64(size)-3000)
	if from := size - 3000; from >= 0 && (!errors.Is(err, io.EOF) || !bytes.Equal(part[:n], want[from:])) {
		t.Errorf("the end of %d bytes: %d, %v", size, n, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(part); err == nil {
		t.Error("a closed Reader reads")
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes: read back %d, %v", size, len(got), err)
	}
	if _, err := w.Write([]byte{1}); err == nil {
		t.Error("a closed Writer takes more")
	}
}

// TestSwitchToOrdinaryWrites: what follows an unaligned write that the device
// refuses goes through the page cache.
func TestSwitchToOrdinaryWrites(t *testing.T) {
	w, err := Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := setDirect(w.f, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.f.WriteAt([]byte("unaligned"), 3); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFailedWriteIsReported: by a later Write or by Close, and nothing hangs.
func TestFailedWriteIsReported(t *testing.T) {
	w, err := Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.f.Close(); err != nil {
		t.Fatal(err)
	}
	failed := false
	for range 10 {
		_, err := w.Write(make([]byte, BufferSize))
		failed = failed || err != nil
	}
	if err := w.Close(); err == nil || !failed {
		t.Error("ten megabytes were written to a closed file")
	}
	if _, err := Create(filepath.Join(t.TempDir(), "no", "file")); err == nil {
		t.Error("a file in a directory that is not there")
	}
}
