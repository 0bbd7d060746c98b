package walfs

import (
	"encoding/binary"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp/internal/crashfs/crashtest"
)

// BenchmarkAppend appends synced 80 KiB records, one per commit, to a Pebble
// store on the real disk (TMPDIR), set up as the log is.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []struct {
		name string
		n    int
	}{{"80KiB", 80 << 10}, {"1KiB", 1 << 10}} {
		b.Run(size.name+"/pebble", func(b *testing.B) { appendBench(b, vfs.Default, size.n) })
		b.Run(size.name+"/walfs", func(b *testing.B) {
			f := New(vfs.Default, Options{})
			defer f.Close()
			appendBench(b, f, size.n)
		})
	}
}

func appendBench(b *testing.B, fs vfs.FS, size int) {
	o := crashtest.Options(fs)
	o.MemTableSize = 16 << 20
	o.CacheSize = 32 << 20
	o.L0CompactionThreshold, o.L0StopWritesThreshold = 1000, 2000
	o.DisableAutomaticCompactions = true
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	db, err := pebble.Open(b.TempDir(), o)
	noErr(b, err)
	value := fill(size, 1)
	for i := 0; b.Loop(); i++ {
		noErr(b, db.Set(binary.BigEndian.AppendUint64(nil, uint64(i)), value, pebble.Sync))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
	b.SetBytes(int64(size))
	noErr(b, db.Close())
}
