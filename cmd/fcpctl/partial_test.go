package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"fcp"
)

func partialRoot(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func leave(t *testing.T, root *os.Root, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(root.Name(), name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestAnInterruptedGetIsRepeated: what a process left that was killed is in nobody's way,
// not even when it was killed between giving the file its name and removing the other.
func TestAnInterruptedGetIsRepeated(t *testing.T) {
	root := partialRoot(t)
	dir := root.Name()
	leave(t, root, partialOf("a"), "half of wh")
	if err := writeIn(root, "a", false, strings.NewReader("whole")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, partialOf("a"))); err != nil {
		t.Fatal(err)
	}
	if err := writeIn(root, "a", true, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	if b, rerr := os.ReadFile(filepath.Join(dir, "a")); string(b) != "new" || len(list) != 1 || errors.Join(err, rerr) != nil {
		t.Errorf("%q, %d files, %v %v", b, len(list), err, rerr)
	}
}

// TestAFileThatIsBeingWrittenIsNotTaken: two processes that write one file do not mix.
func TestAFileThatIsBeingWrittenIsNotTaken(t *testing.T) {
	root := partialRoot(t)
	f, release, err := makePartial(root, partialOf("a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil { // its writer is done and is about to give it its name
		t.Fatal(err)
	}
	err = writeIn(root, "a", true, strings.NewReader("other"))
	if !errors.Is(err, fcp.CodeNotEmpty) || !strings.Contains(err.Error(), "another process is writing it") {
		t.Error(err)
	}
	release()
	if err := writeIn(root, "a", true, strings.NewReader("other")); err != nil {
		t.Error("what was left:", err)
	}
	if err := root.Mkdir(partialOf("b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeIn(root, "b", false, strings.NewReader("b")); !errors.Is(err, fcp.CodeNotEmpty) {
		t.Error("a directory of that name:", err)
	}
}

// TestWritersOfOneFile: whoever succeeds has written the whole file, whatever the others do.
func TestWritersOfOneFile(t *testing.T) {
	root := partialRoot(t)
	want := map[string]bool{}
	for i := range 8 {
		want[strings.Repeat(string(rune('a'+i)), 100_000)] = true
	}
	var wg sync.WaitGroup
	for content := range want {
		wg.Go(func() {
			for range 50 {
				if err := writeIn(root, "x", true, strings.NewReader(content)); err != nil && !errors.Is(err, fcp.CodeNotEmpty) {
					t.Error(err)
				}
				if b, err := root.ReadFile("x"); err == nil && !want[string(b)] {
					t.Errorf("a file of %d bytes that nobody wrote", len(b))
				}
			}
		})
	}
	wg.Wait()
	if list, err := os.ReadDir(root.Name()); err != nil || len(list) != 1 {
		t.Errorf("%d files, %v", len(list), err)
	}
}

// TestNamesOfPartials: no object of a tree is written where another one is unfinished.
func TestNamesOfPartials(t *testing.T) {
	for _, name := range []string{"a", "d/a", strings.Repeat("n", 255)} {
		if temp := partialOf(name); !isPartial(temp) || unusable(temp) == "" || filepath.Dir(temp) != filepath.Dir(name) {
			t.Errorf("%.10s is written as %s", name, temp)
		}
	}
	if unusable("x.part") != "" || unusable(".fcp-part") != "" {
		t.Error("names of other files are refused")
	}
}
