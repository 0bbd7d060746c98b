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
	"sync"
	"sync/atomic"
	"time"

	"github.com/zeebo/blake3"

	"fcp/engine"
)

const largeKey = "large"

// largeRows put and get one large object in a process of its own: whole processes
// count, from opening the store to closing it. Their limit is a loop on all cores
// that reads the same bytes, hashes and encrypts them and writes them to a file;
// with one fsync for put. The memory rows are the highest resident size (VmHWM) of
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

// largeWork opens the store a child was given, and closes it behind fn.
func largeWork(in io.Reader, fn func(context.Context, *engine.Engine, string) error) (sum [32]byte, err error) {
	var job largeJob
	if err := json.NewDecoder(in).Decode(&job); err != nil {
		return sum, err
	}
	ctx := context.Background()
	e, err := engine.Open(ctx, job.Store, engine.Options{})
	if err != nil {
		return sum, err
	}
	return sum, errors.Join(fn(ctx, e, job.File), e.Close())
}

func putChild(in io.Reader) ([32]byte, error) {
	return largeWork(in, func(ctx context.Context, e *engine.Engine, path string) error {
		f, err := os.Open(path)
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
		f, err := os.Create(path)
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

// largeLimit reads a file in pieces of 1 MiB on all cores, hashes each with keyed
// BLAKE3, encrypts it with AES-256-GCM in frames of 64 KiB, and writes it to
// another file.
func largeLimit(size int64, sync bool) Subject {
	return Subject{Name: "read+hash+encrypt+write", NoWarmUp: true,
		Setup: func(_ context.Context, dirs Dirs) error { return writeRandom(inputFile(dirs), size) },
		Open: func(_ context.Context, dirs Dirs) (Session, error) {
			return sessionFunc(func(context.Context, time.Duration) (Sample, error) {
				start := time.Now()
				err := transform(inputFile(dirs), filepath.Join(dirs.Round, "output"), sync)
				return Sample{Value: float64(size) / 1e6 / time.Since(start).Seconds(), Ops: 1, Bytes: size}, err
			}), nil
		}}
}

func transform(from, to string, durable bool) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
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

const limitFrame = 64 << 10

func transformPieces(in, out *os.File, next *atomic.Int64) error {
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
	raw, sealed := make([]byte, chunk), []byte(nil)
	for {
		i := next.Add(1) - 1
		n, err := in.ReadAt(raw, i*chunk)
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
		sealed = sealed[:0]
		var nonce [12]byte
		for rest := raw[:n]; len(rest) > 0; {
			take := min(len(rest), limitFrame)
			binary.BigEndian.PutUint64(nonce[4:], uint64(i*chunk+int64(len(sealed))))
			sealed = gcm.Seal(sealed, nonce[:], rest[:take], nil)
			rest = rest[take:]
		}
		if _, err := out.WriteAt(sealed, i*(chunk+chunk/limitFrame*16)); err != nil {
			return err
		}
	}
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
