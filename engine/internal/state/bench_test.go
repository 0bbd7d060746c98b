package state

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The workload of a rebuild: for each event one random 35-byte key with a
// 20-byte value and one name key of about 40 bytes with a 90-byte value.
type workload struct {
	n          uint64
	key, name  []byte
	small, big [90]byte
}

func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (w *workload) idKey(i uint64) []byte {
	w.key = append(w.key[:0], 1, 0, 7)
	for j := range uint64(4) {
		w.key = binary.BigEndian.AppendUint64(w.key, mix(i*4+j+1))
	}
	return w.key
}

func (w *workload) nameKey(i uint64) []byte {
	w.name = append(w.name[:0], "\x02\x00\x07notes/2024/"...)
	w.name = strconv.AppendUint(w.name, 1e11+mix(i)%1e11, 10)
	w.name = append(w.name, "/file"...)
	w.name = strconv.AppendUint(w.name, 1e8+i, 10)
	return w.name
}

func (w *workload) event(x *Writer) error {
	i := w.n
	w.n++
	binary.BigEndian.PutUint64(w.small[:], i)
	binary.BigEndian.PutUint64(w.big[:], i)
	if err := x.Set(w.idKey(i), w.small[:12], w.small[12:20]); err != nil {
		return err
	}
	return x.Set(w.nameKey(i), w.big[:82], w.big[82:90])
}

func (w *workload) fold(b testing.TB, s *Store, events int) {
	const group = 256
	for done := 0; done < events; done += group {
		must(b, s.Update(s.nextPosition(group), func(x *Writer) error {
			for range group {
				if err := w.event(x); err != nil {
					return err
				}
			}
			return nil
		}))
	}
}

func (s *Store) nextPosition(n uint64) uint64 { return s.view.now.Load().active.position + n }

func benchStore(b testing.TB, o Options) *Store {
	dir, err := os.MkdirTemp("", "state")
	must(b, err)
	s, err := Open(vfs.Default, dir, o)
	must(b, err)
	b.Cleanup(func() {
		s.Close()
		os.RemoveAll(dir)
	})
	return s
}

// BenchmarkUpdate is the cost of one entry in memory.
func BenchmarkUpdate(b *testing.B) {
	s := benchStore(b, Options{FlushEntries: 1 << 30, FlushBytes: 1 << 40})
	w := &workload{}
	b.ResetTimer()
	b.ReportAllocs()
	for n := 0; n < b.N; n += 300_000 { // a fresh overlay, as in a long run
		s.mu.Lock()
		s.view.now.Store(&view{active: s.newOverlay(s.nextPosition(0), 300_000)})
		s.mu.Unlock()
		w.fold(b, s, min(300_000, b.N-n)/2)
	}
	m := s.Metrics()
	b.ReportMetric(float64(m.OverlayBytes+int64(16<<s.tableBits()))/float64(max(1, m.OverlayEntries)), "bytes/entry")
	s.view.now.Store(&view{active: s.newOverlay(0, 0)})
}

func (s *Store) tableBits() uint { return 64 - s.view.now.Load().active.tab.Load().shift }

// BenchmarkFlush is the flusher's cost per entry, alone on a core.
func BenchmarkFlush(b *testing.B) {
	s := benchStore(b, Options{FlushEntries: 1 << 30, FlushBytes: 1 << 40})
	s.BulkMode(true)
	w := &workload{}
	n := 0
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		w.fold(b, s, 150_000)
		n += 300_000
		b.StartTimer()
		must(b, s.Flush(context.Background()))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/entry")
}

// BenchmarkRebuild folds and flushes side by side, 5 million events per op.
func BenchmarkRebuild(b *testing.B) {
	b.Run("bulk", func(b *testing.B) { benchRebuild(b, true) })
	b.Run("compacting", func(b *testing.B) { benchRebuild(b, false) })
}

func benchRebuild(b *testing.B, bulk bool) {
	for range b.N {
		s := benchStore(b, Options{})
		s.BulkMode(bulk)
		w := &workload{}
		start := time.Now()
		w.fold(b, s, 5_000_000)
		must(b, s.Flush(context.Background()))
		d := time.Since(start)
		b.ReportMetric(5e6/d.Seconds(), "events/s")
		m := s.Metrics()
		start = time.Now()
		s.BulkMode(false)
		for i := 0; i < 3; i++ {
			for s.Metrics().CompactionDebt > 0 && s.Metrics().ReadAmp > 4 && time.Since(start) < time.Minute {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond)
		}
		b.ReportMetric(time.Since(start).Seconds(), "settle-s")
		b.Logf("before settling %+v", m)
		b.Logf("after %+v", s.Metrics())
	}
}

func median(b *testing.B, name string, n int, f func(i uint64)) {
	ds := make([]time.Duration, n)
	for i := range ds {
		t := time.Now()
		f(uint64(i))
		ds[i] = time.Since(t)
	}
	slices.Sort(ds)
	b.ReportMetric(float64(ds[n/2].Nanoseconds()), name+"-p50-ns")
	b.ReportMetric(float64(ds[n*99/100].Nanoseconds()), name+"-p99-ns")
}

// BenchmarkGet looks up 20 tables of 300,000 entries, then the same compacted.
func BenchmarkGet(b *testing.B) {
	for _, compact := range []bool{false, true} {
		b.Run(fmt.Sprintf("compacted=%v", compact), func(b *testing.B) {
			s := benchStore(b, Options{CacheBytes: 1 << 30})
			s.BulkMode(true)
			w := &workload{}
			w.fold(b, s, 3_000_000)
			must(b, s.Flush(context.Background()))
			if compact {
				s.BulkMode(false)
				must(b, s.db.Compact(context.Background(), []byte{0}, []byte{255}, false))
			}
			must(b, s.Scan(nil, nil, func([]byte, Value) (bool, error) { return true, nil }))
			r := rand.New(rand.NewSource(1))
			var buf []byte
			get := func(k []byte, want bool) {
				v, ok, err := s.Get(buf[:0], k)
				if err != nil || ok != want {
					b.Fatal(ok, err)
				}
				buf = v.Canonical
			}
			n := 100_000
			for range n {
				get(w.idKey(uint64(r.Int63n(3e6))), true)
			}
			b.ResetTimer()
			for range b.N {
				median(b, "negative", n, func(i uint64) { get(w.idKey(1e12+i), false) })
				median(b, "positive", n, func(i uint64) { get(w.idKey(uint64(r.Int63n(3e6))), true) })
				median(b, "hot", n, func(i uint64) { get(w.idKey(uint64(r.Int63n(1000))), true) })
			}
			b.Logf("%+v", s.Metrics())
		})
	}
}

// BenchmarkDigest is over 10 million entries on a compacted store.
func BenchmarkDigest(b *testing.B) {
	s := benchStore(b, Options{CacheBytes: 256 << 20})
	s.BulkMode(true)
	w := &workload{}
	w.fold(b, s, 5_000_000)
	must(b, s.Flush(context.Background()))
	s.BulkMode(false)
	must(b, s.db.Compact(context.Background(), []byte{0}, []byte{255}, false))
	b.ResetTimer()
	for range b.N {
		s.digests = digests{}
		start := time.Now()
		_, err := s.Digest()
		must(b, err)
		b.ReportMetric(1e7/time.Since(start).Seconds(), "entries/s")
		for _, flush := range []bool{false, true} {
			for i := range 300 {
				must(b, s.Update(s.nextPosition(1), func(x *Writer) error {
					return x.Set(w.idKey(mix(uint64(i))%5_000_000), []byte("changed"), nil)
				}))
			}
			name := "after-300-ms"
			if flush {
				must(b, s.Flush(context.Background()))
				name = "after-300-flushed-ms"
			}
			start = time.Now()
			_, err = s.Digest()
			must(b, err)
			b.ReportMetric(float64(time.Since(start).Microseconds())/1000, name)
			start = time.Now()
			_, err = s.Digest()
			must(b, err)
			b.ReportMetric(float64(time.Since(start).Microseconds()), "unchanged-us")
		}
	}
	b.Logf("%+v", s.Metrics())
}
