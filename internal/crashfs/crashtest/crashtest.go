// Package crashtest runs Pebble on a crashfs, cuts the power at a random I/O,
// opens the image and says whether anything acknowledged was lost.
//
// One writer commits numbered batches, some with Sync. The power cut happens
// just before a mutating operation picked by the seed. What must hold in the
// store opened from the image:
//
//   - every commit acknowledged with Sync before the cut, and every commit
//     before it, is there with its bytes;
//   - the commits that are there are a prefix: none is missing in the middle
//     and none is half there.
package crashtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp/internal/crashfs"
)

// Config describes a round. The zero value is Pebble straight on crashfs with
// nothing unsynced kept.
type Config struct {
	// Damage is what the power cut does.
	Damage crashfs.Options
	// Wrap puts a layer between Pebble and the file system, and says how to
	// stop it; it is used for the store that crashes and for the one that opens
	// the image. Nil for none.
	Wrap func(vfs.FS) (fs vfs.FS, stop func() error)
	// MaxValue bounds the bytes of a value; 0 means 2000.
	MaxValue int
	// Commits is how many batches are committed; 0 means 120.
	Commits int
}

// Result says what a round did, so that a test can check that its rounds were
// worth something.
type Result struct {
	Acked     int // commits acknowledged with Sync before the cut
	Issued    int // commits begun when the cut was done
	Recovered int // commits in the store opened from the image
	Image     *crashfs.FS
}

const dir = "db"

// Round runs one round, all of its choices taken from the seed. (Pebble's own
// goroutines are scheduled freely, so the same seed gives the same commits but
// not always the same moment of the cut.) The image in the result is as the cut
// left it, also when an error is returned.
func Round(seed uint64, c Config) (Result, error) {
	if c.MaxValue == 0 {
		c.MaxValue = 2000
	}
	if c.Commits == 0 {
		c.Commits = 120
	}
	rng := rand.New(rand.NewPCG(seed, 7))
	disk := crashfs.New()
	var acked, issued atomic.Int64
	var res Result
	cutRNG, cutAt := rand.New(rand.NewPCG(seed, 8)), 10+rng.Int64N(int64(5*c.Commits/2))
	disk.SetHook(func(op crashfs.Op) error {
		if op.Mutation == cutAt {
			res.Acked = int(acked.Load())
			res.Image = disk.Crash(cutRNG, c.Damage)
			res.Issued = int(issued.Load()) // after the cut: others may write while this hook runs
		}
		return nil
	})
	if err := c.fill(seed, disk, rng, &acked, &issued); err != nil {
		return res, fmt.Errorf("seed %d: run: %w", seed, err)
	}
	if res.Image == nil { // the run was shorter than the moment picked
		res.Acked, res.Issued = int(acked.Load()), int(issued.Load())
		res.Image = disk.Crash(cutRNG, c.Damage)
	}
	// Check on a copy: res.Image stays as the cut left it.
	var err error
	res.Recovered, err = c.check(seed, res.Image.CrashClone())
	if err == nil && (res.Recovered < res.Acked || res.Recovered > res.Issued) {
		err = fmt.Errorf("%d commits recovered, %d acknowledged, %d issued", res.Recovered, res.Acked, res.Issued)
	}
	if err != nil {
		return res, fmt.Errorf("seed %d: %w", seed, err)
	}
	return res, nil
}

// Options returns Pebble options as the product uses them where it matters for
// recovery, with a small memtable so that a short run rotates its WAL.
func Options(fs vfs.FS) *pebble.Options {
	return &pebble.Options{
		FS:                          fs,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                64 << 10,
		MemTableStopWritesThreshold: 4,
		CacheSize:                   1 << 20,
		Logger:                      quiet{},
	}
}

type quiet struct{}

func (quiet) Infof(string, ...any)             {}
func (quiet) Errorf(string, ...any)            {}
func (quiet) Fatalf(format string, arg ...any) { panic(fmt.Sprintf(format, arg...)) }

func (c Config) open(fs vfs.FS) (*pebble.DB, func() error, error) {
	stop := func() error { return nil }
	if c.Wrap != nil {
		fs, stop = c.Wrap(fs)
	}
	db, err := pebble.Open(dir, Options(fs))
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open: %w", err), stop())
	}
	return db, func() error { return errors.Join(db.Close(), stop()) }, nil
}

func (c Config) fill(seed uint64, disk *crashfs.FS, rng *rand.Rand, acked, issued *atomic.Int64) error {
	db, closeAll, err := c.open(disk)
	if err != nil {
		return err
	}
	for i := range c.Commits {
		b := db.NewBatch()
		n := 1 + rng.IntN(c.MaxValue)
		noErr := errors.Join(
			b.Set(key(i), value(seed, i, n), nil),
			b.Set([]byte("head"), binary.BigEndian.AppendUint32(nil, uint32(i+1)), nil))
		sync := rng.IntN(3) > 0
		issued.Store(int64(i + 1))
		if err := errors.Join(noErr, db.Apply(b, &pebble.WriteOptions{Sync: sync}), b.Close()); err != nil {
			return errors.Join(err, closeAll())
		}
		if sync {
			acked.Store(int64(i + 1))
		}
		if rng.IntN(60) == 0 {
			if err := db.Flush(); err != nil {
				return errors.Join(err, closeAll())
			}
			acked.Store(int64(i + 1)) // a flush makes all before it durable
		}
	}
	return closeAll()
}

// check opens the image and returns how many commits it holds.
func (c Config) check(seed uint64, image *crashfs.FS) (recovered int, err error) {
	db, closeAll, err := c.open(image)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, closeAll()) }()
	if v, closer, err := db.Get([]byte("head")); err == nil {
		recovered = int(binary.BigEndian.Uint32(v))
		closer.Close()
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return 0, err
	}
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("k"), UpperBound: []byte("l")})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		if !bytes.Equal(it.Key(), key(n)) || !bytes.Equal(it.Value(), value(seed, n, len(it.Value()))) {
			return recovered, fmt.Errorf("commit %d: found %s with %d bytes", n, it.Key(), len(it.Value()))
		}
		n++
	}
	if n != recovered {
		return recovered, fmt.Errorf("%d commits there, the last says %d", n, recovered)
	}
	// The store must also be writable again.
	if err := db.Set([]byte("after"), nil, pebble.Sync); err != nil {
		return recovered, err
	}
	return recovered, nil
}

func key(i int) []byte { return fmt.Appendf(nil, "k%08d", i) }

// value returns the n bytes of commit i; they start with n itself, so that a
// value cut short is noticed.
func value(seed uint64, i, n int) []byte {
	src := rand.NewPCG(seed, uint64(i))
	v := binary.BigEndian.AppendUint32(nil, uint32(n))
	for len(v) < n {
		v = binary.BigEndian.AppendUint64(v, src.Uint64())
	}
	if n < 4 {
		return v[4-n : 4]
	}
	return v[:n]
}
