package directio

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
)

// Reader reads a file from its beginning to its end without keeping in the page cache
// what was not there already, on Linux from 6.14 on; elsewhere it reads as always.
// ReadAt is safe for concurrent use, Read is not.
type Reader struct {
	f  File
	at int64
}

// File is an *os.File, or what is built on one.
type File interface {
	io.ReaderAt
	io.Closer
	syscall.Conn
	Name() string
}

// Open opens a regular file.
func Open(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return NewReader(f), nil
}

// NewReader reads a regular file from its beginning, and takes it over.
func NewReader(f File) *Reader { return &Reader{f: f} }

// plain says that the system has no such reads.
var plain atomic.Bool

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err = r.some(p, r.at)
	r.at += int64(n)
	return n, err
}

// ReadAt implements io.ReaderAt.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.some(p[n:], off+int64(n))
		n += m
	}
	return n, err
}

// some reads at least one byte, or the error says why not.
func (r *Reader) some(p []byte, off int64) (n int, err error) {
	if !plain.Load() {
		if n, err = readPast(r.f, p, off); !errors.Is(err, errNoSuchRead) {
			return n, err
		}
		plain.Store(true)
	}
	if n, err = r.f.ReadAt(p, off); n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// Close closes the file.
func (r *Reader) Close() error { return r.f.Close() }
