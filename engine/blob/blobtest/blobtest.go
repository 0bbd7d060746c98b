// Package blobtest is the contract of blob.Store as a test suite. Every
// implementation runs it.
package blobtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"fcp"
	"fcp/engine/blob"
)

// Run runs the suite; open returns a new, empty store each time.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, blob.Store)
	}{
		{"what was put is read back", putGet},
		{"a blob is never overwritten", neverOverwritten},
		{"a failed put leaves nothing", failedPut},
		{"missing blobs are not found", missing},
		{"lists are sorted and by prefix", listed},
		{"names cannot lead out", names},
		{"a cancelled context stops it", cancelled},
		{"one of many concurrent puts wins", concurrent},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

func put(t testing.TB, s blob.Store, name string, data []byte) {
	t.Helper()
	n, err := s.Put(t.Context(), name, bytes.NewReader(data))
	if err != nil || n != int64(len(data)) {
		t.Fatalf("put %s: %d %v", name, n, err)
	}
}

func get(t testing.TB, s blob.Store, name string) []byte {
	t.Helper()
	b, err := blob.ReadAll(t.Context(), s, name, 1<<30)
	if err != nil {
		t.Fatalf("get %s: %v", name, err)
	}
	return b
}

func putGet(t *testing.T, s blob.Store) {
	for _, size := range []int{0, 1, 4095, 4096, 1 << 20, 3<<20 + 7} {
		name := fmt.Sprintf("a/b-%d/c.x", size)
		data := bytes.Repeat([]byte{byte(size), 1, 2}, size/3+1)[:size]
		n, err := s.Put(t.Context(), name, iotest.OneByteReader(bytes.NewReader(data[:min(size, 5000)])))
		if err != nil || n != int64(min(size, 5000)) {
			t.Fatalf("%d bytes: %d %v", size, n, err)
		}
		put(t, s, name+"2", data)
		if !bytes.Equal(get(t, s, name+"2"), data) || !bytes.Equal(get(t, s, name), data[:min(size, 5000)]) {
			t.Errorf("%d bytes come back different", size)
		}
		if i, err := s.Stat(t.Context(), name+"2"); err != nil || i.Size != int64(size) || i.Name != name+"2" {
			t.Errorf("stat: %+v %v", i, err)
		}
	}
	if _, err := blob.ReadAll(t.Context(), s, "a/b-4096/c.x2", 4095); !errors.Is(err, fcp.CodeTooLarge) {
		t.Errorf("a longer blob than allowed: %v", err)
	}
}

func neverOverwritten(t *testing.T, s blob.Store) {
	put(t, s, "x/y", []byte("first"))
	r := strings.NewReader("second")
	if _, err := s.Put(t.Context(), "x/y", r); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second put: %v", err)
	}
	if r.Len() != 6 {
		t.Error("a put that is refused read its input")
	}
	if string(get(t, s, "x/y")) != "first" {
		t.Error("the blob changed")
	}
	if err := s.Delete(t.Context(), "x/y"); err != nil {
		t.Fatal(err)
	}
	put(t, s, "x/y", []byte("third"))
	if string(get(t, s, "x/y")) != "third" {
		t.Error("a deleted name cannot be used again")
	}
}

func failedPut(t *testing.T, s blob.Store) {
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(errors.New("broken source")))
	if _, err := s.Put(t.Context(), "x", broken); err == nil {
		t.Fatal("a put of a broken reader succeeded")
	}
	if _, err := s.Stat(t.Context(), "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was left: %v", err)
	}
	if l := list(t, s, ""); len(l) != 0 {
		t.Errorf("something is listed: %v", l)
	}
	put(t, s, "x", []byte("whole"))
}

func missing(t *testing.T, s blob.Store) {
	put(t, s, "dir/file", []byte("x"))
	for _, name := range []string{"none", "dir", "dir/none", "none/none", "dir/file/below"} {
		_, gerr := s.Get(t.Context(), name)
		_, serr := s.Stat(t.Context(), name)
		for what, err := range map[string]error{"get": gerr, "stat": serr, "delete": s.Delete(t.Context(), name)} {
			if !errors.Is(err, fs.ErrNotExist) || fcp.CodeOf(err) != fcp.CodeNotFound {
				t.Errorf("%s %s: %v", what, name, err)
			}
		}
	}
	if string(get(t, s, "dir/file")) != "x" {
		t.Error("it is gone")
	}
}

func list(t testing.TB, s blob.Store, prefix string) []string {
	t.Helper()
	var out []string
	if err := s.List(t.Context(), prefix, func(i blob.Info) error {
		if i.Size != int64(len(i.Name)) {
			t.Errorf("%s is listed with %d bytes", i.Name, i.Size)
		}
		out = append(out, i.Name)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func listed(t *testing.T, s blob.Store) {
	if l := list(t, s, ""); len(l) != 0 {
		t.Errorf("a new store lists %v", l)
	}
	// '-' and '.' sort before '/', '0' behind it.
	all := []string{"a", "a-b", "a-b/c", "a.x", "a/b", "a/b-", "a/b/c", "a0", "ab/c", "b"}
	all = slices.DeleteFunc(all, func(n string) bool { return n == "a" || n == "a-b" || n == "a/b" }) // files and folders of one name
	for _, n := range []int{3, 0, 5, 1, 6, 2, 4} {
		put(t, s, all[n], []byte(all[n]))
	}
	slices.Sort(all)
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "ab", "b", "z", "a/b/c", "a/b/c/", "..", "/"} {
		var want []string
		for _, n := range all {
			if strings.HasPrefix(n, prefix) {
				want = append(want, n)
			}
		}
		if got := list(t, s, prefix); !slices.Equal(got, want) {
			t.Errorf("prefix %q: %v, want %v", prefix, got, want)
		}
	}
	stop := errors.New("stop")
	n := 0
	if err := s.List(t.Context(), "", func(blob.Info) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("list goes on behind an error: %v, %d", err, n)
	}
}

func names(t *testing.T, s blob.Store) {
	for _, name := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", ".tmp/x", ".hidden", "a/.b", "A", "a b", "a\\b", "a\x00", "ä",
		"c:", "a:b", "a*", strings.Repeat("a", 101), strings.Repeat("a/", 8) + "a", strings.Repeat(strings.Repeat("a", 60)+"/", 4) + "aaaaaaaaaaaaa",
	} {
		if err := blob.CheckName(name); !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("name %q: %v", name, err)
		}
		_, perr := s.Put(t.Context(), name, strings.NewReader("x"))
		_, gerr := s.Get(t.Context(), name)
		_, serr := s.Stat(t.Context(), name)
		for what, err := range map[string]error{"put": perr, "get": gerr, "stat": serr, "delete": s.Delete(t.Context(), name)} {
			if !errors.Is(err, fcp.CodeInvalidArgument) {
				t.Errorf("%s %q: %v", what, name, err)
			}
		}
	}
	for _, name := range []string{"a", "0", "-", "_", "a.b.c", strings.Repeat("a", 100), "a/b/c/d/e/f/g/h"} {
		if err := blob.CheckName(name); err != nil {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func cancelled(t *testing.T, s blob.Store) {
	put(t, s, "there", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	r, err := s.Get(ctx, "there")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	endless := readerFunc(func(p []byte) (int, error) { cancel(); return len(p), nil })
	if _, err := s.Put(ctx, "endless", endless); !errors.Is(err, fcp.CodeInterrupted) {
		t.Errorf("put: %v", err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, fcp.CodeInterrupted) {
		t.Errorf("read: %v", err)
	}
	if err := s.List(ctx, "", func(blob.Info) error { return nil }); !errors.Is(err, fcp.CodeInterrupted) {
		t.Errorf("list: %v", err)
	}
	if _, err := s.Stat(t.Context(), "endless"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a cancelled put left something: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func concurrent(t *testing.T, s blob.Store) {
	const writers = 16
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := map[string][]byte{}
	for w := range writers {
		wg.Go(func() {
			for i := range 8 {
				name, data := fmt.Sprintf("d%d/n", i), bytes.Repeat([]byte{byte(w)}, 1000)
				_, err := s.Put(t.Context(), name, bytes.NewReader(data))
				mu.Lock()
				switch {
				case err == nil && won[name] != nil:
					t.Errorf("%s was put twice", name)
				case err == nil:
					won[name] = data
				case !errors.Is(err, fs.ErrExist):
					t.Errorf("put %s: %v", name, err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i := range 8 {
		name := fmt.Sprintf("d%d/n", i)
		if got := get(t, s, name); len(won[name]) == 0 || !bytes.Equal(got, won[name]) {
			t.Errorf("%s does not hold what its winner put", name)
		}
	}
}
