package log

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp/internal/directio"
)

// otherFS opens files whose ordinary reads find nothing.
type otherFS struct{ vfs.FS }

type otherFile struct {
	vfs.File
	system *os.File
}

var errOrdinary = errors.New("an ordinary read")

func (fs otherFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, opts...)
	if err != nil {
		return nil, err
	}
	system, err := os.Open(name)
	return otherFile{f, system}, err
}

func (f otherFile) ReadAt([]byte, int64) (int, error)     { return 0, errOrdinary }
func (f otherFile) SyscallConn() (syscall.RawConn, error) { return f.system.SyscallConn() }
func (f otherFile) Name() string                          { return f.system.Name() }
func (f otherFile) Close() error                          { return errors.Join(f.File.Close(), f.system.Close()) }

var _ directio.File = otherFile{}

// TestBulkReadsGoPastThePageCache while they are under way, and find the same bytes.
func TestBulkReadsGoPastThePageCache(t *testing.T) {
	path, want := filepath.Join(t.TempDir(), "1.sst"), bytes.Repeat([]byte("0123456"), 400_000)
	if err := os.WriteFile(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	ordinary, bulk := newBulkFS(vfs.Default), newBulkFS(otherFS{vfs.Default})
	bulk.set(true)
	if bulk.ahead.Speculative() != objstorageprovider.NoReadahead {
		t.Error("blocks are fetched ahead, through the page cache")
	}
	for _, fs := range []*bulkFS{ordinary, bulk} {
		f, err := fs.Open(path, vfs.RandomReadsOption)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, off := range []int{0, 5, windowSize - 3, windowSize + 7, 2*windowSize - 50_000, len(want) - 50_000, len(want) - 10, len(want)} {
			got := make([]byte, 50_000)
			n, err := f.ReadAt(got, int64(off))
			end := min(len(want), off+len(got))
			if !bytes.Equal(got[:n], want[off:end]) || (err == nil) != (n == len(got)) || err != nil && !errors.Is(err, io.EOF) {
				if fs == bulk && errors.Is(err, errOrdinary) {
					t.Skip("no reads past the page cache here")
				}
				t.Errorf("%d bytes at %d, %v", n, off, err)
			}
		}
	}
	bulk.set(false)
	if bulk.ahead.Speculative() == objstorageprovider.NoReadahead {
		t.Error("nothing is fetched ahead after the last bulk read")
	}
	f, err := bulk.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(make([]byte, windowFrom), 0); !errors.Is(err, errOrdinary) {
		t.Error("a read past the page cache after the last bulk read:", err)
	}
}
