package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
)

// testClock is a wall clock that tests move.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *testClock { return &testClock{now: time.UnixMilli(1_800_000_000_000)} }

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// lockedRand is a seeded source for concurrent use.
type lockedRand struct {
	mu sync.Mutex
	r  *rand.ChaCha8
}

func newRand(seed uint64) *lockedRand {
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	return &lockedRand{r: rand.NewChaCha8(key)}
}

func (l *lockedRand) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.r.Read(p)
}

// testStore is a store in memory that can be closed and opened again.
type testStore struct {
	t     testing.TB
	env   Environment
	clock *testClock
	owner *authority.OwnerKey
	dir   string
	opts  Options
	*Engine
}

func testEnv(fs vfs.FS, seed uint64) (Environment, *testClock) {
	c := newClock()
	return Environment{FS: fs, Now: c.Now, Rand: newRand(seed)}, c
}

func newStore(t testing.TB, seed uint64) *testStore {
	t.Helper()
	s := &testStore{t: t, dir: "/store"}
	s.env, s.clock = testEnv(vfs.NewMem(), seed)
	var err error
	if s.owner, err = authority.NewOwnerKey(s.env.Rand); err != nil {
		t.Fatal(err)
	}
	if _, err := Init(context.Background(), s.dir, InitOptions{Environment: s.env, Owner: s.owner, Device: "laptop"}); err != nil {
		t.Fatal("init:", err)
	}
	s.open()
	t.Cleanup(func() { s.Engine.Close() })
	return s
}

func (s *testStore) open() {
	s.t.Helper()
	s.opts.Environment = s.env
	e, err := Open(context.Background(), s.dir, s.opts)
	if err != nil {
		s.t.Fatal("open:", err)
	}
	s.Engine = e
}

func (s *testStore) reopen() {
	s.t.Helper()
	if err := s.Engine.Close(); err != nil {
		s.t.Fatal("close:", err)
	}
	s.open()
}

func (s *testStore) put(key, body string) PutResult {
	s.t.Helper()
	r, err := s.Put(context.Background(), PutRequest{Key: key, Bytes: []byte(body)})
	if err != nil {
		s.t.Fatalf("put %q: %v", key, err)
	}
	return r
}

func (s *testStore) get(key string, at At) string {
	s.t.Helper()
	b, err := s.read(GetRequest{Key: key, At: at})
	if err != nil {
		s.t.Fatalf("get %q: %v", key, err)
	}
	return string(b)
}

func (s *testStore) read(q GetRequest) ([]byte, error) {
	r, err := s.Get(context.Background(), q)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func wantCode(t testing.TB, err error, code fcp.Code) {
	t.Helper()
	if !errors.Is(err, code) {
		t.Fatalf("got error %v, want %s", err, code)
	}
}

func TestPutGetRemoveAndReopen(t *testing.T) {
	s := newStore(t, 1)
	first := s.put("notes/today", "v1")
	if first.Generation != 1 || first.Position == 0 || first.Size != 2 {
		t.Fatalf("first put: %+v", first)
	}
	second := s.put("notes/today", "v2")
	if second.Generation != 2 || second.Replaced != 1 {
		t.Fatalf("second put: %+v", second)
	}
	check := func() {
		t.Helper()
		if got := s.get("notes/today", At{}); got != "v2" {
			t.Fatalf("now: %q", got)
		}
		if got := s.get("notes/today", At{Position: first.Position}); got != "v1" {
			t.Fatalf("then: %q", got)
		}
		_, err := s.read(GetRequest{Key: "notes/today", At: At{Position: first.Position - 1}})
		wantCode(t, err, fcp.CodeNotFound)
		if b, err := s.read(GetRequest{Object: first.Object}); err != nil || string(b) != "v1" {
			t.Fatalf("by object: %q %v", b, err)
		}
		if b, err := s.read(GetRequest{Key: "notes/today", Version: first.Hash}); err != nil || string(b) != "v1" {
			t.Fatalf("by version: %q %v", b, err)
		}
	}
	check()
	s.reopen()
	check()
	if _, err := s.Remove(context.Background(), RemoveRequest{Key: "notes/today"}); err != nil {
		t.Fatal(err)
	}
	_, err := s.read(GetRequest{Key: "notes/today"})
	wantCode(t, err, fcp.CodeNotFound)
	_, err = s.Remove(context.Background(), RemoveRequest{Key: "notes/today"})
	wantCode(t, err, fcp.CodeNotFound)
	if got := s.get("notes/today", At{Position: second.Position}); got != "v2" {
		t.Fatalf("before the removal: %q", got)
	}
	var generations []uint64
	if err := s.History(context.Background(), "", "notes/today", func(e *Entry) error {
		generations = append(generations, e.Head().Generation)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(generations) != 3 || generations[0] != 3 || generations[2] != 1 {
		t.Fatalf("history: %v", generations)
	}
}

func TestBodiesOfEverySizeComeBackWhole(t *testing.T) {
	s := newStore(t, 2)
	for _, n := range []int{0, 1, 23, 24, 255, 256, 1024, 1025, 65535, 65536, 1 << 20, 1<<20 + 1, 3<<20 + 17} {
		body := make([]byte, n)
		rng := rand.New(rand.NewPCG(uint64(n), 1))
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		r, err := s.Put(context.Background(), PutRequest{Key: "big", Body: bytes.NewReader(body)})
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if r.Size != uint64(n) {
			t.Fatalf("%d bytes: size %d", n, r.Size)
		}
		got, err := s.read(GetRequest{Key: "big"})
		if err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes: %d back, %v", n, len(got), err)
		}
		if got, err = s.read(GetRequest{Object: r.Object}); err != nil || !bytes.Equal(got, body) {
			t.Fatalf("%d bytes by object: %d back, %v", n, len(got), err)
		}
		rd, err := s.Get(context.Background(), GetRequest{Key: "big"})
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range [][2]int{{0, 10}, {n / 2, 70000}, {max(0, n-5), 5}, {n, 1}} {
			got, err := rd.ReadRange(int64(at[0]), at[1])
			if want := body[at[0]:min(n, at[0]+at[1])]; err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes, range %v: %d back, %v", n, at, len(got), err)
			}
		}
	}
}

func TestStateEqualsItsReplay(t *testing.T) {
	s := newStore(t, 3)
	for i := range 50 {
		s.put("k"+string(rune('a'+i%7)), "body")
	}
	r, err := s.Replay(context.Background(), ReplayOptions{Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Identical || r.Position != s.Position() || len(r.ZoneRoots) != 5 {
		t.Fatalf("%+v", r)
	}
	v, err := s.Verify(context.Background(), VerifyOptions{Bodies: true, Replay: true})
	if err != nil || len(v.Findings) != 0 || v.Bodies != 50 {
		t.Fatalf("%+v %v", v, err)
	}
}
