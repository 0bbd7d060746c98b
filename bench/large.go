package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"fcp/engine"
	"fcp/internal/directio"
)

const largeKey = "large"

// largeRows put and get one large object in a process of its own: whole processes
// count, from opening the store to closing it. Their limit is a loop on all cores
// that reads the same bytes, hashes and encrypts them and writes them to a file;
// with one fsync for put. What is read is put out of the page cache before. The memory rows are the highest resident size (VmHWM) of
// such a process. 10 GiB is a long row.
func largeRows() []Row {
	var rows []Row
	for _, gib := range []int64{1, 10} {
		size, long, name := gib<<30, gib > 1, fmt.Sprintf("/engine/large/%dGiB", gib)
		put, get := largeLimit(size, true), largeLimit(size, false)
		rows = append(rows,
			Row{Name: "put" + name, Unit: "MB/s", Long: long, Limit: &put, Subjects: []Subject{largePut(size, speedOf)}},
			Row{Name: "get" + name, Unit: "MB/s", Long: long, Limit: &get, Subjects: []Subject{largeGet(size, speedOf)}},
			Row{Name: "memory/put" + name, Unit: "MB", Lower: true, Long: long, Subjects: []Subject{largePut(size, peakOf)}},
			Row{Name: "memory/get" + name, Unit: "MB", Lower: true, Long: long, Subjects: []Subject{largeGet(size, peakOf)}})
	}
	return rows
}

func speedOf(r memoryReport, size int64) float64 { return float64(size) / 1e6 / r.Elapsed.Seconds() }
func peakOf(r memoryReport, _ int64) float64     { return float64(r.Peak) / 1e6 }

// largeJob is what a child gets on its standard input.
type largeJob struct{ Store, File string }

func inputFile(dirs Dirs) string { return filepath.Join(dirs.Row, "input") }

// largePut puts the input into a new store in each round.
func largePut(size int64, value func(memoryReport, int64) float64) Subject {
	return Subject{Name: "engine", NoWarmUp: true,
		Setup: func(_ context.Context, dirs Dirs) error { return writeRandom(inputFile(dirs), size) },
		Open: func(ctx context.Context, dirs Dirs) (Session, error) {
			job := largeJob{filepath.Join(dirs.Round, "store"), inputFile(dirs)}
			e, err := newEngine(ctx, job.Store)
			if err != nil {
				return nil, err
			}
			return largeChild("put", job, size, value), e.Close()
		}}
}

// largeGet reads an object that is in the store into a new file in each round.
func largeGet(size int64, value func(memoryReport, int64) float64) Subject {
	return Subject{Name: "engine", NoWarmUp: true,
		Setup: func(ctx context.Context, dirs Dirs) error {
			if err := writeRandom(inputFile(dirs), size); err != nil {
				return err
			}
			e, err := newEngine(ctx, storeDir(dirs))
			if err != nil {
				return err
			}
			if err := e.Close(); err != nil {
				return err
			}
			if _, err := reportOfChild("put", largeJob{storeDir(dirs), inputFile(dirs)}.encode()); err != nil {
				return err
			}
			return os.Remove(inputFile(dirs))
		},
		Open: func(_ context.Context, dirs Dirs) (Session, error) {
			return largeChild("get", largeJob{storeDir(dirs), filepath.Join(dirs.Round, "output")}, size, value), nil
		}}
}

func largeChild(what string, job largeJob, size int64, value func(memoryReport, int64) float64) Session {
	return sessionFunc(func(context.Context, time.Duration) (Sample, error) {
		read := []string{job.File}
		if what == "get" {
			var err error
			if read, err = filepath.Glob(filepath.Join(job.Store, "log", "*.sst")); err != nil {
				return Sample{}, err
			}
		}
		if err := putOutOfCache(read...); err != nil {
			return Sample{}, err
		}
		r, err := reportOfChild(what, job.encode())
		return Sample{Value: value(r, size), Ops: 1, Bytes: size}, err
	})
}

func (j largeJob) encode() io.Reader {
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // two strings
	}
	return bytes.NewReader(b)
}

// largeWork opens the store a child was given, and closes it behind fn. It collects garbage as
// often as fcpctl does.
func largeWork(in io.Reader, fn func(context.Context, *engine.Engine, string) error) (sum [32]byte, err error) {
	var job largeJob
	if err := json.NewDecoder(in).Decode(&job); err != nil {
		return sum, err
	}
	debug.SetGCPercent(20)
	ctx := context.Background()
	e, err := engine.Open(ctx, job.Store, engine.Options{})
	if err != nil {
		return sum, err
	}
	return sum, errors.Join(fn(ctx, e, job.File), e.Close())
}

func putChild(in io.Reader) ([32]byte, error) {
	return largeWork(in, func(ctx context.Context, e *engine.Engine, path string) error {
		f, err := directio.Open(path) // as fcpctl does
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = e.Put(ctx, engine.PutRequest{Key: largeKey, Body: f})
		return err
	})
}

func getChild(in io.Reader) ([32]byte, error) {
	return largeWork(in, func(ctx context.Context, e *engine.Engine, path string) error {
		r, err := e.Get(ctx, engine.GetRequest{Key: largeKey})
		if err != nil {
			return err
		}
		defer r.Close()
		f, err := directio.Create(path) // as fcpctl does
		if err != nil {
			return err
		}
		n, err := r.WriteTo(f)
		if err == nil && n != r.Info().Size {
			err = fmt.Errorf("%d bytes of %d", n, r.Info().Size)
		}
		return errors.Join(err, f.Close())
	})
}

// largeLimit reads a file in pieces on all cores, hashes each with keyed BLAKE3,
// encrypts it with AES-256-GCM in frames of 64 KiB, and writes it to another file.
// Reads and writes go past the page cache, as those of the engine do: on the machines
// this was made on it is the fastest way to move a file that is written once.
func largeLimit(size int64, sync bool) Subject {
	return Subject{Name: "read+hash+encrypt+write", NoWarmUp: true,
		Setup: func(_ context.Context, dirs Dirs) error { return writeRandom(inputFile(dirs), size) },
		Open: func(_ context.Context, dirs Dirs) (Session, error) {
			return sessionFunc(func(context.Context, time.Duration) (Sample, error) {
				if err := putOutOfCache(inputFile(dirs)); err != nil {
					return Sample{}, err
				}
				start := time.Now()
				err := transform(inputFile(dirs), filepath.Join(dirs.Round, "output"), sync)
				return Sample{Value: float64(size) / 1e6 / time.Since(start).Seconds(), Ops: 1, Bytes: size}, err
			}), nil
		}}
}

const (
	limitFrame = 64 << 10
	limitPiece = 2 << 20
	limitAlign = 4096
	// limitSlot is where the next piece begins in the output: a direct write is a
	// multiple of the alignment.
	limitSlot = (limitPiece + limitPiece/limitFrame*16 + limitAlign - 1) / limitAlign * limitAlign
)

func transform(from, to string, durable bool) (err error) {
	in, err := directio.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_DIRECT, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	var next atomic.Int64
	var working sync.WaitGroup
	errs := make(chan error, runtime.GOMAXPROCS(0))
	for range cap(errs) {
		working.Go(func() { errs <- transformPieces(in, out, &next) })
	}
	working.Wait()
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	if err == nil && durable {
		err = out.Sync()
	}
	return err
}

func transformPieces(in *directio.Reader, out *os.File, next *atomic.Int64) error {
	var key [32]byte
	hash, err := blake3.NewKeyed(key[:])
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	raw := make([]byte, limitPiece)
	memory, err := syscall.Mmap(-1, 0, limitSlot, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE) // aligned
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Munmap(memory) }()
	for {
		i := next.Add(1) - 1
		n, err := in.ReadAt(raw, i*limitPiece)
		if n == 0 && errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		hash.Reset()
		if _, err := hash.Write(raw[:n]); err != nil {
			return err
		}
		hash.Sum(nil)
		sealed := memory[:0]
		var nonce [12]byte
		for rest := raw[:n]; len(rest) > 0; {
			take := min(len(rest), limitFrame)
			binary.BigEndian.PutUint64(nonce[4:], uint64(i*limitPiece+int64(len(sealed))))
			sealed = gcm.Seal(sealed, nonce[:], rest[:take], nil)
			rest = rest[take:]
		}
		whole := (len(sealed) + limitAlign - 1) / limitAlign * limitAlign
		if _, err := out.WriteAt(memory[:whole], i*limitSlot); err != nil {
			return err
		}
	}
}

// putOutOfCache drops what the page cache has of files, so that they are read from
// the disk.
func putOutOfCache(paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		err = f.Sync()
		if err == nil {
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// writeRandom writes a file of random bytes, every piece another.
func writeRandom(path string, size int64) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	src := rand.NewChaCha8([32]byte{1})
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(src, size), make([]byte, chunk))
	return err
}
