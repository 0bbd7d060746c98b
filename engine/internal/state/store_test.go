package state

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"sync"
	"testing"

	"fcp"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/zeebo/xxh3"
	"pgregory.net/rapid"
)

type pair struct{ canonical, local string }

type model map[string]pair

func openTest(t rapid.TB, fs vfs.FS, o Options) *Store {
	t.Helper()
	s, err := Open(fs, "state", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// content reads everything in [lower, upper) by Scan.
func content(t rapid.TB, s *Store, lower, upper []byte) model {
	t.Helper()
	m := model{}
	last := ""
	err := s.Scan(lower, upper, func(k []byte, v Value) (bool, error) {
		if len(m) > 0 && string(k) <= last {
			t.Fatalf("scan gives %q after %q", k, last)
		}
		last = string(k)
		m[last] = pair{string(v.Canonical), string(v.Local)}
		return true, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m model) within(lower, upper []byte) model {
	out := model{}
	for k, v := range m {
		if (lower == nil || k >= string(lower)) && (upper == nil || k < string(upper)) {
			out[k] = v
		}
	}
	return out
}

// freshDigest is the range's digest in a store that has only ever held m.
func (m model) freshDigest(t rapid.TB, o Options, lower, upper []byte) fcp.Hash {
	s := openTest(t, vfs.NewMem(), Options{Digest: o.Digest, HashSeed: 99})
	defer s.Close()
	must(t, s.Update(1, func(w *Writer) error {
		for k, v := range m { // in any order
			if err := w.Set([]byte(k), []byte(v.canonical), []byte("other")); err != nil {
				return err
			}
		}
		return nil
	}))
	h, err := s.RangeDigest(lower, upper)
	must(t, err)
	return h
}

func must(t rapid.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Keys share long prefixes, end in zeros, and differ beyond eight bytes.
func keyGen() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		p := rapid.SampledFrom([]string{"a", "a\x00", "a\x00\x00", "b/notes/2024/", "b/notes/2024/\x00\x00\x00\x00\x00\x00\x00\x00", "c\x00\x00\x00\x00\x00\x00\x00", "\x00"}).Draw(t, "prefix")
		return p + rapid.SampledFrom([]string{"", "\x00", "\x00\x00\x00\x00\x00\x00\x00\x00", "x", "y"}).Draw(t, "middle") + fmt.Sprint(rapid.IntRange(0, 30).Draw(t, "n"))
	})
}

func rangeGen() *rapid.Generator[[2][]byte] {
	return rapid.Custom(func(t *rapid.T) [2][]byte {
		return rapid.SampledFrom([][2][]byte{{nil, nil}, {[]byte("b"), []byte("c")}, {[]byte("a\x00"), []byte("b/notes/2024/x2")},
			{[]byte("c"), nil}, {nil, []byte("a")}, {[]byte("x"), []byte("y")}}).Draw(t, "range")
	})
}

var errOnPurpose = errors.New("on purpose")

func TestStoreAgreesWithAMapUnderAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		opts := Options{FlushEntries: rapid.SampledFrom([]int{3, 40, 1000}).Draw(t, "flush"), HashSeed: rapid.Uint64().Draw(t, "seed")}
		opts.Digest.Skip = func(k []byte) bool { return k[0] == 0 }
		opts.Digest.MapKey = func(dst, k []byte) []byte { return append(append(dst, "zone/"...), k...) }
		fs := vfs.NewMem()
		open := func() *Store {
			s, err := Open(fs, "state", opts)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		s := open()
		defer func() { s.Close() }()
		m, pos := model{}, uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"update": func(t *rapid.T) {
				next := maps.Clone(m)
				fail := rapid.IntRange(0, 9).Draw(t, "fail") == 0
				ops := rapid.IntRange(0, 30).Draw(t, "ops")
				pos += uint64(rapid.IntRange(0, 3).Draw(t, "step"))
				err := s.Update(pos, func(w *Writer) error {
					for range ops {
						k := keyGen().Draw(t, "key")
						v, ok, err := w.Get([]byte(k))
						want, has := next[k]
						if err != nil || ok != has || ok && (string(v.Canonical) != want.canonical || string(v.Local) != want.local) {
							t.Fatalf("in the group, %q is %q %v %v, want %q %v", k, v, ok, err, want, has)
						}
						if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
							delete(next, k)
							if err := w.Delete([]byte(k)); err != nil {
								return err
							}
							continue
						}
						p := pair{rapid.StringN(0, 200, 200).Draw(t, "canonical"), rapid.StringN(0, 8, 8).Draw(t, "local")}
						next[k] = p
						if err := w.Set([]byte(k), []byte(p.canonical), []byte(p.local)); err != nil {
							return err
						}
					}
					if fail {
						return errOnPurpose
					}
					return nil
				})
				if fail && !errors.Is(err, errOnPurpose) || !fail && err != nil {
					t.Fatal(err)
				}
				if !fail {
					m = next
				}
			},
			"get": func(t *rapid.T) {
				k := keyGen().Draw(t, "key")
				v, ok, err := s.Get([]byte("front"), []byte(k))
				want, has := m[k]
				if err != nil || ok != has || ok && (string(v.Canonical) != want.canonical || string(v.Local) != want.local) {
					t.Fatalf("%q is %q %v %v, want %q %v", k, v, ok, err, want, has)
				}
			},
			"scan": func(t *rapid.T) {
				r := rangeGen().Draw(t, "range")
				if got, want := content(t, s, r[0], r[1]), m.within(r[0], r[1]); !maps.Equal(got, want) {
					t.Fatalf("scan gives %q, want %q", got, want)
				}
			},
			"digest": func(t *rapid.T) {
				r := rangeGen().Draw(t, "range")
				got, err := s.RangeDigest(r[0], r[1])
				if err != nil {
					t.Fatal(err)
				}
				if want := m.freshDigest(t, opts, r[0], r[1]); got != want {
					t.Fatalf("digest of %q is %v, want %v", r, got, want)
				}
			},
			"flush": func(t *rapid.T) {
				if err := s.Flush(context.Background()); err != nil {
					t.Fatal(err)
				}
			},
			"warm": func(t *rapid.T) { s.Warm() },
			"reopen": func(t *rapid.T) {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open()
				if s.Cursor() > pos {
					t.Fatalf("cursor %d is beyond %d", s.Cursor(), pos)
				}
			},
			"clear": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "really") > 0 {
					return
				}
				r := rangeGen().Draw(t, "range")
				if err := s.Clear(context.Background(), r[0], r[1]); err != nil {
					t.Fatal(err)
				}
				for k := range m.within(r[0], r[1]) {
					delete(m, k)
				}
			},
			"": func(t *rapid.T) {},
		})
	})
}

func TestSortOrdersAnyKeysAsBytesCompare(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for _, n := range []int{0, 1, 20, 30, 500, 20000} {
		o := newOverlay(1, 0, 0, 0)
		want := map[string]bool{}
		for range n {
			k := make([]byte, 1+r.Intn(24))
			for i := range k { // long runs of equal bytes
				k[i] = byte(r.Intn(2) * r.Intn(3))
			}
			want[string(k)] = true
			must(t, o.put(xxh3.Hash(k), k, 0, []byte{0}, nil, nil))
		}
		o.commit(1)
		var e []elem
		seen := map[string]bool{}
		o.walk(firstOffset, o.mark.Load(), func(off uint32, r record) {
			if !seen[string(r.key)] {
				seen[string(r.key)] = true
				e = append(e, elem{keyWord(r.key, 0), off})
			}
		})
		sortElems(o.chunks(), e)
		collected, hashes := o.collect()
		keys := slices.Sorted(maps.Keys(want))
		if len(e) != len(keys) || len(collected) != len(keys) || len(hashes) != len(keys) {
			t.Fatalf("%d, %d, %d elements, want %d", len(e), len(collected), len(hashes), len(keys))
		}
		for i := range e {
			if k := at(o.chunks(), e[i].off).key; string(k) != keys[i] {
				t.Fatalf("n=%d: element %d is %q, want %q", n, i, k, keys[i])
			}
			if k := at(o.chunks(), collected[i].off).key; string(k) != keys[i] {
				t.Fatalf("n=%d: collected %d is %q, want %q", n, i, k, keys[i])
			}
		}
	}
}

func TestOversizedRecordsAndFullChunks(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Options{})
	defer s.Close()
	m := model{}
	r := rand.New(rand.NewSource(2))
	for i := range 24 {
		must(t, s.Update(uint64(i+1), func(w *Writer) error {
			for j := range 20 {
				k := fmt.Sprintf("key %d %d", i, j)
				v := make([]byte, []int{10, chunkSize - 100, chunkSize + 1, 3 * chunkSize / 2, chunkSize/2 - 50}[r.Intn(5)*min(j%7, 1)*(1-min(j%4, 1))])
				r.Read(v)
				m[k] = pair{string(v), ""}
				if err := w.Set([]byte(k), v, nil); err != nil {
					return err
				}
			}
			return nil
		}))
		if i == 12 && !maps.Equal(content(t, s, nil, nil), m) {
			t.Fatal("content differs before the flush")
		}
	}
	if !maps.Equal(content(t, s, nil, nil), m) {
		t.Fatal("content differs")
	}
	must(t, s.Flush(context.Background()))
	if !maps.Equal(content(t, s, nil, nil), m) {
		t.Fatal("content differs after the flush")
	}
}

func TestArgumentsAreChecked(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Options{})
	defer s.Close()
	for _, k := range [][]byte{nil, {}, {0xff}, make([]byte, MaxKey+1)} {
		// The group fails even if the caller ignores the error.
		err := s.Update(1, func(w *Writer) error { w.Set(k, nil, nil); return nil })
		if err == nil || errors.Is(err, fcp.CodeInternal) {
			t.Errorf("a key of %d bytes: %v", len(k), err)
		}
	}
	if err := s.Update(1, func(w *Writer) error { return w.Set([]byte("k"), make([]byte, MaxValue+1), nil) }); !errors.Is(err, fcp.CodeTooLarge) {
		t.Error(err)
	}
	must(t, s.Update(5, func(w *Writer) error { return nil }))
	if err := s.Update(4, func(w *Writer) error { return nil }); !errors.Is(err, fcp.CodeInvalidArgument) {
		t.Error(err)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Options{})
	must(t, s.Update(1, func(w *Writer) error { return w.Set([]byte("k"), nil, nil) }))
	must(t, s.Close())
	must(t, s.Close())
	_, _, getErr := s.Get(nil, []byte("kk"))
	if !s.filter.absent(s.hash([]byte("kk"))) && !errors.Is(getErr, fcp.CodeClosed) {
		t.Error("get:", getErr)
	}
	_, digestErr := s.Digest()
	for what, err := range map[string]error{
		"update": s.Update(2, func(*Writer) error { return nil }), "flush": s.Flush(context.Background()),
		"scan": s.Scan(nil, nil, nil), "digest": digestErr, "clear": s.Clear(context.Background(), nil, nil),
	} {
		if !errors.Is(err, fcp.CodeClosed) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Metrics()
	s.Warm()
}

// Each group sets all keys to its number; no reader may see two numbers.
func TestReadersSeeGroupsWhole(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Options{FlushEntries: 64, FlushBytes: 8 << 10})
	defer s.Close()
	const keys, groups = 40, 1500
	stop := make(chan struct{})
	var wg sync.WaitGroup
	read := func(f func()) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
					f()
				}
			}
		}()
	}
	read(func() {
		var first string
		n := 0
		err := s.Scan(nil, nil, func(k []byte, v Value) (bool, error) {
			if n == 0 {
				first = string(v.Canonical)
			}
			if n++; string(v.Canonical) != first {
				return false, fmt.Errorf("%q and %q in one scan", first, v.Canonical)
			}
			return true, nil
		})
		if err != nil || n != 0 && n != keys {
			t.Errorf("scan of %d keys: %v", n, err)
		}
	})
	read(func() {
		_, _, err := s.Get(nil, fmt.Appendf(nil, "key %02d", 7))
		if err != nil {
			t.Error(err)
		}
	})
	read(func() {
		if _, err := s.Digest(); err != nil {
			t.Error(err)
		}
	})
	for g := range groups {
		err := s.Update(uint64(g+1), func(w *Writer) error {
			for k := range keys {
				if err := w.Set(fmt.Appendf(nil, "key %02d", k), fmt.Appendf(nil, "%d", g), nil); err != nil {
					return err
				}
			}
			if g%10 == 9 {
				return errOnPurpose
			}
			return nil
		})
		if err != nil && !errors.Is(err, errOnPurpose) {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	got, err := s.Digest()
	must(t, err)
	if want := content(t, s, nil, nil).freshDigest(t, Options{}, nil, nil); got != want {
		t.Fatal("digest differs from that of the same content")
	}
}
