package walfs

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"fcp/internal/crashfs"
)

type quietP struct{}

func (quietP) Infof(string, ...any)  {}
func (quietP) Errorf(string, ...any) {}
func (quietP) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

func TestProbe(t *testing.T) {
	for _, size := range []int{200, 4000, 20000, 80 << 10} {
		disk := crashfs.New()
		o := func(fs *crashfs.FS) *pebble.Options {
			return &pebble.Options{FS: fs, FormatMajorVersion: pebble.FormatNewest, MemTableSize: 64 << 20, Logger: quietP{}}
		}
		db, _ := pebble.Open("db", o(disk))
		n := 4 << 20 / size
		n = min(n, 2000)
		for i := range n {
			db.Set(fmt.Appendf(nil, "k%06d", i), make([]byte, size), pebble.Sync)
		}
		wals := ""
		var sz int64
		img := disk.CrashClone()
		for _, f := range img.Files() {
			if f.Size > 1000 && f.Path[len(f.Path)-3:] == "log" {
				wals, sz = f.Path, f.Size
			}
		}
		rng := rand.New(rand.NewPCG(1, 1))
		errs, lost, same := 0, 0, 0
		tail := 0
		for range 100 {
			at := rng.Int64N(sz)
			c := img.CrashClone()
			c.Flip(wals, at, uint(rng.IntN(8)))
			db2, err := pebble.Open("db", o(c))
			if err != nil {
				errs++
				continue
			}
			if _, cl, err := db2.Get(fmt.Appendf(nil, "k%06d", n-1)); err != nil {
				lost++
				if at > sz-int64(size)-32768 {
					tail++
				}
			} else {
				cl.Close()
				same++
			}
			db2.Close()
		}
		fmt.Println("record", size, "wal", wals, sz, "errors", errs, "silently lost", lost, "of these in tail", tail, "no effect", same)
		db.Close()
	}
}
