package blob_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/engine/blob"
	"fcp/engine/blob/blobtest"
	"fcp/internal/crashfs"
)

func TestFilesKeepTheContract(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) blob.Store{
		"os":      func(t *testing.T) blob.Store { return blob.NewFiles(vfs.Default, filepath.Join(t.TempDir(), "new")) },
		"crashfs": func(*testing.T) blob.Store { return blob.NewFiles(crashfs.New(), "backup") },
	} {
		t.Run(name, func(t *testing.T) { blobtest.Run(t, open) })
	}
}

// TestAcknowledgedBlobsSurviveAPowerCut cuts the power after every operation of a
// series of puts and deletes: what was acknowledged is there whole, and nothing
// is there in part.
func TestAcknowledgedBlobsSurviveAPowerCut(t *testing.T) {
	content := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, i*1500+1) }
	work := func(s *blob.Files) (put, deleted int) {
		for i := range 6 {
			if _, err := s.Put(t.Context(), fmt.Sprintf("d%d/e/f%d", i%2, i), bytes.NewReader(content(i))); err != nil {
				return i, 0
			}
		}
		for i := range 2 {
			if s.Delete(t.Context(), fmt.Sprintf("d%d/e/f%d", i%2, i)) != nil {
				return 6, i
			}
		}
		return 6, 2
	}
	whole := crashfs.New()
	work(blob.NewFiles(whole, "b"))
	total := whole.Mutations()
	for stop := int64(1); stop <= total; stop++ {
		for seed := range uint64(4) {
			disk := crashfs.New()
			disk.StopAt(stop)
			put, deleted := work(blob.NewFiles(disk, "b"))
			image := disk.Crash(rand.New(rand.NewPCG(uint64(stop), seed)), crashfs.Harsh())
			s := blob.NewFiles(image, "b")
			lock, err := s.Lock(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for i := range 6 {
				name := fmt.Sprintf("d%d/e/f%d", i%2, i)
				b, err := blob.ReadAll(t.Context(), s, name, 1<<20)
				switch {
				case err == nil && !bytes.Equal(b, content(i)):
					t.Fatalf("stop %d seed %d: %s is there in part", stop, seed, name)
				case err != nil && i < put && i >= deleted+1:
					t.Fatalf("stop %d seed %d: %s was acknowledged: %v", stop, seed, name, err)
				case err == nil && i < deleted:
					t.Fatalf("stop %d seed %d: %s came back", stop, seed, name)
				}
			}
			if names, err := image.List("b/.tmp"); err != nil || len(names) > 1 {
				t.Fatalf("temporary files stay: %v %v", names, err)
			}
			lock.Close()
		}
	}
}

func TestAFullDiskIsSaid(t *testing.T) {
	disk := crashfs.New()
	s := blob.NewFiles(disk, "b")
	if _, err := s.Put(t.Context(), "small", bytes.NewReader(make([]byte, 100))); err != nil {
		t.Fatal(err)
	}
	disk.SetSpace(100 << 10)
	if _, err := s.Put(t.Context(), "large", bytes.NewReader(make([]byte, 1<<20))); !errors.Is(err, fcp.CodeDiskFull) {
		t.Errorf("%v", err)
	}
	if err := s.List(t.Context(), "", func(i blob.Info) error {
		if i.Name != "small" {
			t.Errorf("%s stayed", i.Name)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func TestOneWriterAtATime(t *testing.T) {
	dir := t.TempDir()
	a, err := blob.NewFiles(vfs.Default, dir).Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blob.NewFiles(vfs.Default, dir).Lock(t.Context()); !errors.Is(err, fcp.CodeLocked) {
		t.Errorf("second lock: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := blob.NewFiles(vfs.Default, dir).Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

func TestStrangeFilesAreListed(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"Notes.TXT", ".hidden", "ok"} {
		if err := os.WriteFile(filepath.Join(dir, n), []byte(n), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	if err := blob.NewFiles(vfs.Default, dir).List(t.Context(), "", func(i blob.Info) error {
		got = append(got, i.Name)
		return nil
	}); err != nil || fmt.Sprint(got) != "[.hidden Notes.TXT ok]" {
		t.Errorf("%v %v", got, err)
	}
}
