package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// chunk is the unit of sequential reads and writes.
const chunk = 1 << 20

// readLimit is the limit of rows that go through size bytes of stored log with
// ops events in it: the same number of bytes read in order with pread of 1 MiB
// from one file in the page cache, counted in events. With ops 0 it counts
// MB/s.
func readLimit(size, ops int64) Subject {
	return Subject{
		Name:  "sequential read",
		Setup: func(_ context.Context, dirs Dirs) error { return writeFile(filepath.Join(dirs.Row, "data"), size) },
		Open: func(_ context.Context, dirs Dirs) (Session, error) {
			f, err := os.Open(filepath.Join(dirs.Row, "data"))
			if err != nil {
				return nil, err
			}
			buf := make([]byte, chunk)
			return closing{f, counted(ops, func() (int64, error) { return readAll(f, buf) })}, nil
		},
	}
}

// scanLimit is the limit of rows that work on size bytes in memory: reading
// them once, eight bytes at a time. ops as for readLimit.
func scanLimit(size, ops int64) Subject {
	return Subject{Name: "memory scan", Open: func(context.Context, Dirs) (Session, error) {
		b := randomBytes(1, int(size)&^7)
		return counted(ops, func() (int64, error) {
			scanned = sum(b)
			return int64(len(b)), nil
		}), nil
	}}
}

// scanned keeps the compiler from leaving out the scan; only the one session
// that runs writes it.
var scanned uint64

func sum(b []byte) uint64 {
	var a, c, d, e uint64
	for ; len(b) >= 32; b = b[32:] {
		a += binary.LittleEndian.Uint64(b)
		c += binary.LittleEndian.Uint64(b[8:])
		d += binary.LittleEndian.Uint64(b[16:])
		e += binary.LittleEndian.Uint64(b[24:])
	}
	return a ^ c ^ d ^ e
}

// writeLimit is the limit of rows that write size bytes in bulk, such as seal:
// the same bytes in writes of 1 MiB to a new file, and one fsync.
func writeLimit(size, ops int64) Subject {
	return Subject{Name: "sequential write", Open: func(_ context.Context, dirs Dirs) (Session, error) {
		path := filepath.Join(dirs.Round, "data")
		return counted(ops, func() (int64, error) { return size, writeFile(path, size) }), nil
	}}
}

// counted is a session in operations per second, or MB/s if ops is 0.
func counted(ops int64, pass func() (bytes int64, err error)) Session {
	f := func() (int64, int64, error) {
		n, err := pass()
		return max(ops, 1), n, err
	}
	if ops == 0 {
		return megabytes(f)
	}
	return perSecond(f)
}

// closing is a session over a file that it closes.
type closing struct {
	f *os.File
	Session
}

func (c closing) Close() error { return errors.Join(c.Session.Close(), c.f.Close()) }

// readAll reads f from its beginning to its end.
func readAll(f *os.File, buf []byte) (int64, error) {
	var off int64
	for {
		n, err := f.ReadAt(buf, off)
		off += int64(n)
		if errors.Is(err, io.EOF) {
			return off, nil
		}
		if err != nil {
			return off, err
		}
	}
}

// writeFile replaces path by a file of size random bytes, durably.
func writeFile(path string, size int64) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for left := size; left > 0; {
		n := min(left, chunk)
		if _, err := f.Write(bulk[:n]); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
		left -= n
	}
	return f.Sync()
}

var bulk = randomBytes(2, chunk)

// limitRows are the limits that other rows are measured beside, on their own.
func limitRows() []Row {
	const size = 64 << 20
	return []Row{
		{Name: "limit/read/1MiB", Unit: "MB/s", Subjects: []Subject{readLimit(size, 0)}},
		{Name: "limit/write/1MiB", Unit: "MB/s", Subjects: []Subject{writeLimit(size, 0)}},
		{Name: "limit/memory-scan", Unit: "MB/s", Subjects: []Subject{scanLimit(size, 0)}},
	}
}
