package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// recycledBytes is the size of the file the raw limit writes round and round:
// a usual WAL file, and more than is ever written in one sync.
const recycledBytes = 64 << 20

// recycled is a file that is allocated, written with zeros, synced, and then
// written again and again from its beginning. Its blocks, its size and its
// extents never change, so fdatasync has only data to write and no journal to
// commit: the cheapest durable write a file gives.
type recycled struct {
	f   *os.File
	off int64
}

const recycledName = "recycled"

// zeroChunk is the size of the writes of zeros, and so of the page cache's
// folios for the file. A write dirties whole folios: at 4 KiB a group of
// 256 KiB takes a third longer (more folios to walk), at 1 MiB nothing is
// gained and write_bytes counts a megabyte for every record.
const zeroChunk = 64 << 10

// makeRecycled builds the file in dir.
func makeRecycled(dir string) (err error) {
	f, err := os.Create(filepath.Join(dir, recycledName))
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	zeros := make([]byte, zeroChunk)
	for off := int64(0); off < recycledBytes; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, off); err != nil {
			return fmt.Errorf("write zeros: %w", err)
		}
	}
	return f.Sync()
}

func openRecycled(dir string) (*recycled, error) {
	f, err := os.OpenFile(filepath.Join(dir, recycledName), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &recycled{f: f}, nil
}

// write puts b behind what was written last and makes it durable.
func (r *recycled) write(b []byte) error {
	if r.off+int64(len(b)) > recycledBytes {
		r.off = 0
	}
	if _, err := r.f.WriteAt(b, r.off); err != nil {
		return err
	}
	r.off += int64(len(b))
	return fdatasync(r.f)
}

func fdatasync(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if err != unix.EINTR {
			return err
		}
	}
}

// rawSubject is the append limit: w.Writers goroutines with records of
// w.Payload bytes, the group committer, the recycled file and nothing else.
func rawSubject(w Workload) Subject {
	return Subject{
		Name:  "raw",
		Setup: func(_ context.Context, dirs Dirs) error { return makeRecycled(dirs.Row) },
		Open: func(_ context.Context, dirs Dirs) (Session, error) {
			r, err := openRecycled(dirs.Row)
			if err != nil {
				return nil, err
			}
			g := newGrouped(rawStore{r})
			return &load{appender: g, shape: w, record: w.Payload}, nil
		},
	}
}

// rawStore makes a recycled file a store of the group committer.
type rawStore struct{ file *recycled }

func (s rawStore) commit(b *batch) error { return s.file.write(b.buf) }
func (s rawStore) close() error          { return s.file.f.Close() }

// deviceSubject is what the raw limit is measured against: groups of as many
// records as there are writers, written by one goroutine with no writers, no
// hand-over and no copying. The distance between the two is what goroutines
// cost, and no store with writers can be expected to come above it.
func deviceSubject(w Workload) Subject {
	group := randomBytes(0, w.Payload*w.Writers)
	return Subject{
		Name:  "device",
		Setup: func(_ context.Context, dirs Dirs) error { return makeRecycled(dirs.Row) },
		Open: func(_ context.Context, dirs Dirs) (Session, error) {
			r, err := openRecycled(dirs.Row)
			if err != nil {
				return nil, err
			}
			return &device{file: r, group: group, writers: int64(w.Writers)}, nil
		},
	}
}

type device struct {
	file    *recycled
	group   []byte
	writers int64
}

func (d *device) Run(ctx context.Context, dur time.Duration) (Sample, error) {
	return perSecond(func() (int64, int64, error) {
		return d.writers, int64(len(d.group)), d.file.write(d.group)
	}).Run(ctx, dur)
}

func (d *device) Close() error { return d.file.f.Close() }

// rawRows are the append limit itself, for records of exactly the payload size.
func rawRows() []Row {
	var rows []Row
	for _, w := range workloads() {
		limit := deviceSubject(w)
		rows = append(rows, Row{
			Name: "append/raw/" + w.String(), Unit: "events/s",
			Subjects: []Subject{rawSubject(w)}, Limit: &limit,
		})
	}
	return rows
}
