// Package directio writes large files past the page cache.
//
// What is written once and in order, and is larger than memory should give to it,
// gains nothing from the page cache and costs a page, a copy and a write-back of
// each of its bytes there. A Writer hands the file whole, aligned buffers with
// O_DIRECT where the system has that, and is an ordinary buffered writer elsewhere.
package directio

import (
	"errors"
	"io"
	"os"
	"sync"
	"unsafe"
)

// BufferSize is how many bytes go to the disk at once.
const BufferSize = 2 << 20

// depth is how many buffers a Writer has.
const depth = 3

// align is what address, offset and length of a direct write are multiples of: no
// block device or file system in use asks for more.
const align = 4096

// Writer writes a new file from its beginning to its end, one buffer on its way to the
// disk while the next one is filled. Not safe for concurrent use. It must be
// closed, also after an error.
type Writer struct {
	f      *os.File
	direct bool // owned by run while it runs
	buf    []byte
	size   int64
	full   chan []byte
	free   chan []byte
	err    error // of run; read when done is closed
	failed chan struct{}
	done   chan struct{}
	ended  bool
}

var buffers = sync.Pool{New: func() any {
	b := make([]byte, BufferSize+align)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (align - 1)
	b = b[skip : skip+BufferSize]
	return &b
}}

// Create makes the file, or empties it.
func Create(path string) (*Writer, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	return NewWriter(f), nil
}

// NewWriter takes over a file that is empty.
func NewWriter(f *os.File) *Writer {
	w := &Writer{f: f, direct: setDirect(f, true) == nil, full: make(chan []byte, depth), free: make(chan []byte, depth),
		failed: make(chan struct{}), done: make(chan struct{})}
	for range depth {
		w.free <- (*buffers.Get().(*[]byte))[:0]
	}
	go w.run()
	return w
}

// run writes full buffers one after the other.
func (w *Writer) run() {
	defer close(w.done)
	at := int64(0)
	for b := range w.full {
		if w.err == nil {
			if w.err = w.writeAt(b, at); w.err != nil {
				close(w.failed)
			}
		}
		at += int64(len(b))
		w.free <- b[:0]
	}
}

// writeAt writes a buffer, of which the last one of a file is rounded up.
func (w *Writer) writeAt(b []byte, at int64) error {
	if w.direct {
		n := (len(b) + align - 1) &^ (align - 1)
		clear(b[len(b):n])
		_, err := w.f.WriteAt(b[:n], at)
		if err == nil && n > len(b) {
			err = w.f.Truncate(at + int64(len(b)))
		}
		if !errors.Is(err, errUnaligned) {
			return err
		}
		if err := setDirect(w.f, false); err != nil { // a device with larger blocks
			return err
		}
		w.direct = false
	}
	_, err := w.f.WriteAt(b, at)
	return err
}

// Write implements io.Writer. It keeps nothing of p. An error may be that of an
// earlier Write.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.ended {
		return 0, os.ErrClosed
	}
	for n < len(p) {
		if w.buf == nil {
			w.buf = <-w.free
			select {
			case <-w.failed:
				return n, w.err
			default:
			}
		}
		m := copy(w.buf[len(w.buf):cap(w.buf)], p[n:])
		w.buf = w.buf[:len(w.buf)+m]
		n += m
		if len(w.buf) == cap(w.buf) {
			w.full <- w.buf
			w.buf = nil
		}
	}
	w.size += int64(n)
	return n, nil
}

// Size returns how many bytes were written.
func (w *Writer) Size() int64 { return w.size }

// Finish writes what is left. Nothing can be written afterwards.
func (w *Writer) Finish() error {
	if !w.ended {
		w.ended = true
		if len(w.buf) > 0 {
			w.full <- w.buf
			w.buf = nil
		}
		close(w.full)
		<-w.done
		if w.buf != nil {
			w.free <- w.buf
		}
		for range depth {
			b := <-w.free
			b = b[:cap(b)]
			buffers.Put(&b)
		}
	}
	return w.err
}

// Sync is Finish, and makes the file durable.
func (w *Writer) Sync() error {
	if err := w.Finish(); err != nil {
		return err
	}
	return w.f.Sync()
}

// Close is Finish, and closes the file. It does not sync.
func (w *Writer) Close() error { return errors.Join(w.Finish(), w.f.Close()) }

var _ io.WriteCloser = (*Writer)(nil)
