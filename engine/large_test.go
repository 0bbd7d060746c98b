package engine

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
	"time"

	"fcp"
	"fcp/log"
)

func randomBody(n int, seed uint64) []byte {
	var key [32]byte
	key[0] = byte(seed)
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// chunkEvents counts the chunks in the log.
func (s *testStore) chunkEvents() (n int) {
	s.t.Helper()
	err := s.Log().Scan(context.Background(), log.ScanOptions{}, func(events []log.Applied) error {
		for i := range events {
			if events[i].Content.Kind == fcp.KindChunkPut {
				n++
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

// TestEqualChunksAreStoredOnce: inside an object, in another name, in the next
// version; not in another zone.
func TestEqualChunksAreStoredOnce(t *testing.T) {
	s := newStore(t, 11)
	body := randomBody(5*fcp.ChunkSize+100, 1)
	copy(body[3*fcp.ChunkSize:], body[:fcp.ChunkSize])
	put := func(zone fcp.ZoneID, key string, body []byte, reused, chunks int) {
		t.Helper()
		r, err := s.Put(context.Background(), PutRequest{Zone: zone, Key: key, Body: bytes.NewReader(body)})
		if err != nil || r.Reused != reused || r.Chunks != 6 {
			t.Fatalf("%d of %d chunks reused, %v", r.Reused, r.Chunks, err)
		}
		if n := s.chunkEvents(); n != chunks {
			t.Fatalf("%d chunks in the log, want %d", n, chunks)
		}
		if got, err := s.read(GetRequest{Zone: zone, Key: key}); err != nil || !bytes.Equal(got, body) {
			t.Fatal("read back:", err)
		}
	}
	put("", "a", body, 1, 5)
	put("", "b", body, 6, 5)
	s.reopen()
	changed := slices.Clone(body)
	changed[4*fcp.ChunkSize+5] ^= 1
	put("", "a", changed, 5, 6)
	put(fcp.ZoneWork, "a", body, 1, 11)
	r, err := s.Put(context.Background(), PutRequest{Key: "dry", Body: bytes.NewReader(append(body, 1)), DryRun: true})
	if err != nil || len(r.Planned) != 2 || r.Planned[0].Kind != "chunk.put" { // the last chunk, the inline manifest
		t.Fatalf("%+v %v", r.Planned, err)
	}
	v, err := s.Verify(context.Background(), VerifyOptions{Bodies: true, Replay: true})
	if err != nil || len(v.Findings) != 0 {
		t.Fatalf("%+v %v", v, err)
	}
}

// failingBody gives n bytes and then an error.
type failingBody struct {
	r io.Reader
	n int
}

var errBody = errors.New("the source broke")

func (f *failingBody) Read(p []byte) (int, error) {
	if f.n == 0 {
		return 0, errBody
	}
	n, err := f.r.Read(p[:min(len(p), f.n)])
	f.n -= n
	return n, err
}

// TestInterruptedPutGoesOn: what was read before the source broke or the caller
// gave up is on disk and is not written again.
func TestInterruptedPutGoesOn(t *testing.T) {
	s := newStore(t, 12)
	body := randomBody(12*fcp.ChunkSize, 2)
	_, err := s.Put(context.Background(), PutRequest{Key: "large", Body: &failingBody{bytes.NewReader(body), 7*fcp.ChunkSize + 5}})
	if !errors.Is(err, errBody) {
		t.Fatal(err)
	}
	if n := s.chunkEvents(); n != 7 {
		t.Fatalf("%d chunks of 7 are in the log", n)
	}
	if _, err := s.Stat(context.Background(), "", "large", At{}); !errors.Is(err, fcp.CodeNotFound) {
		t.Fatal("half an object has a name:", err)
	}
	// A connection that was cut off says so with an error that block readers also use
	// for a plain end.
	cut := io.MultiReader(bytes.NewReader(body[:9*fcp.ChunkSize+5]), iotest.ErrReader(io.ErrUnexpectedEOF))
	if _, err := s.Put(context.Background(), PutRequest{Key: "cut", Body: cut}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal("a body that was cut off:", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	slow, w := io.Pipe()
	go func() {
		w.Write(body[:9*fcp.ChunkSize])
		for s.Log().Durable() == 0 || s.chunkEventsNow() < 9 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		w.CloseWithError(errBody)
	}()
	if _, err := s.Put(ctx, PutRequest{Key: "large", Body: slow}); err == nil {
		t.Fatal("an interrupted put succeeded")
	}
	s.reopen()
	r, err := s.Put(context.Background(), PutRequest{Key: "large", Body: bytes.NewReader(body)})
	if err != nil || r.Reused != 9 || s.chunkEvents() != 12 {
		t.Fatalf("%d reused, %d in the log, %v", r.Reused, s.chunkEvents(), err)
	}
	if got, err := s.read(GetRequest{Key: "large"}); err != nil || !bytes.Equal(got, body) {
		t.Fatal(err)
	}
}

// chunkEventsNow counts chunks in the state, from any goroutine.
func (s *testStore) chunkEventsNow() (n int) {
	_ = s.QueryProjection(context.Background(), projBodies, DefaultZone, nil, At{}, func(*Row) error {
		n++
		return nil
	})
	return n
}

// maxRangeDecrypted is what a range of 4 KiB may decrypt, the manifest included.
const maxRangeDecrypted = 256 << 10

// TestRangeDecryptsLittle reads ranges everywhere in a large object: at the edges of
// frames and chunks and anywhere, opened for the range and from an open Reader.
func TestRangeDecryptsLittle(t *testing.T) {
	s := newStore(t, 13)
	body := randomBody(40*fcp.ChunkSize+777, 3)
	v, err := s.Put(context.Background(), PutRequest{Key: "large", Body: bytes.NewReader(body)})
	if err != nil {
		t.Fatal(err)
	}
	s.reopen()
	whole, err := s.Get(context.Background(), GetRequest{Key: "large"})
	if err != nil {
		t.Fatal(err)
	}
	offsets := []int64{0, 1, 8192 - 1, 32768 - 4095, 65536 - 1, fcp.ChunkSize - 4096, fcp.ChunkSize - 1, 7*fcp.ChunkSize - 2048,
		int64(len(body)) - 4096, int64(len(body)) - 1, int64(len(body))}
	rng := rand.New(rand.NewPCG(3, 3))
	for range 100 {
		offsets = append(offsets, rng.Int64N(int64(len(body))))
	}
	most := int64(0)
	for _, off := range offsets {
		want := body[off:min(off+4096, int64(len(body)))]
		r, err := s.Get(context.Background(), GetRequest{Key: "large", Range: &Range{Offset: off, Length: 4096}})
		if err != nil {
			t.Fatal(off, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, want) || r.Info().Size != int64(len(body)) || r.Info().Chunks != 41 {
			t.Fatalf("at %d: %d bytes, %+v, %v", off, len(got), r.Info(), err)
		}
		most = max(most, r.Decrypted())
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		before := whole.Decrypted()
		if got, err = whole.ReadRange(off, 4096); err != nil || !bytes.Equal(got, want) {
			t.Fatal(off, err)
		}
		most = max(most, whole.Decrypted()-before)
	}
	t.Logf("a range of 4 KiB decrypts up to %d bytes", most)
	if most == 0 || most > maxRangeDecrypted {
		t.Fatalf("a range of 4 KiB decrypted %d bytes", most)
	}
	for _, bad := range []Range{{Offset: -1}, {Offset: int64(len(body)) + 1}, {Length: -1}} {
		_, err := s.Get(context.Background(), GetRequest{Key: "large", Range: &bad})
		if !errors.Is(err, fcp.CodeInvalidArgument) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	long := &Range{Offset: 3*fcp.ChunkSize + 9, Length: 20 * fcp.ChunkSize}
	for _, q := range []GetRequest{{Key: "large", Range: long}, {Object: v.Object, Range: long}, {Key: "large", Version: v.Hash, Range: long}} {
		if got, err := s.read(q); err != nil || !bytes.Equal(got, body[long.Offset:long.Offset+long.Length]) {
			t.Error(q, len(got), err)
		}
	}
	s.put("small", "0123456789")
	if got, err := s.read(GetRequest{Key: "small", Range: &Range{Offset: 3, Length: 4}}); err != nil || string(got) != "3456" {
		t.Error(string(got), err)
	}
}

// TestManifestLayout: where a range expects ids is where the encoder puts them.
func TestManifestLayout(t *testing.T) {
	for _, n := range []uint64{2, 23, 24, 255, 256, 4095, 4096, 5000, MaxChunks} {
		for _, total := range []uint64{(n-1)*fcp.ChunkSize + 1, n * fcp.ChunkSize} {
			m := chunkManifest{TotalLen: total, ChunkSize: fcp.ChunkSize, Chunks: make([]fcp.ObjectID, n)}
			for i := range m.Chunks {
				m.Chunks[i] = fcp.ObjectID{1, byte(i), byte(i >> 8)}
			}
			b, err := fcp.Marshal(&m)
			if err != nil {
				t.Fatal(err)
			}
			ids, length := manifestLayout(total)
			last := b[ids+int(n-1)*chunkIDSize:][:chunkIDSize]
			if length != len(b) || last[0] != 0x58 || last[1] != 32 || fcp.ObjectID(last[2:]) != m.Chunks[n-1] {
				t.Errorf("%d chunks, %d bytes: ids at %d, length %d of %d", n, total, ids, length, len(b))
			}
		}
	}
}

// TestForgottenChunkIsWrittenAgain: its key is gone, so equal bytes get a new one.
func TestForgottenChunkIsWrittenAgain(t *testing.T) {
	s := newStore(t, 14)
	body := randomBody(3*fcp.ChunkSize, 4)
	put := func() PutResult {
		r, err := s.Put(context.Background(), PutRequest{Key: "secret", Body: bytes.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	put()
	if _, err := s.Forget(context.Background(), ForgetRequest{Key: "secret", All: true}); err != nil {
		t.Fatal(err)
	}
	if r := put(); r.Reused != 0 {
		t.Fatalf("%d forgotten chunks were used again", r.Reused)
	}
	for range 2 {
		if got, err := s.read(GetRequest{Key: "secret"}); err != nil || !bytes.Equal(got, body) {
			t.Fatal(err)
		}
		s.reopen()
		if _, err := s.Replay(context.Background(), ReplayOptions{Verify: true}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiff compares names at every pair of positions with what reads say, and other
// projections with their rows.
func TestDiff(t *testing.T) {
	s := newStore(t, 15)
	ctx := context.Background()
	rng := rand.New(rand.NewPCG(5, 5))
	first := s.Position()
	keys := []string{"a", "b", "b/c", "d"}
	for i := range 20 {
		key := keys[rng.IntN(len(keys))]
		if _, err := s.Remove(ctx, RemoveRequest{Key: key}); err != nil || rng.IntN(3) > 0 {
			s.put(key, string(rune('a'+i)))
		}
	}
	look := func(key string, at uint64) string {
		entry, err := s.Stat(ctx, "", key, At{Position: at})
		if err != nil || entry.Removed() {
			return ""
		}
		return entry.Head().Hash.String()
	}
	for from := first; from <= s.Position(); from += 3 {
		for to := first; to <= s.Position(); to += 2 {
			got := map[string]Change{}
			err := s.Diff(ctx, DiffRequest{Zone: DefaultZone, From: At{Position: from}, To: At{Position: to}}, func(r *DiffRow) error {
				if _, twice := got[r.Key]; twice {
					t.Errorf("%s twice", r.Key)
				}
				got[r.Key] = r.Change
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for _, key := range keys {
				a, b := look(key, from), look(key, to)
				want := Change("")
				switch {
				case a == b:
					if c := got[key]; a != "" && c != "" {
						t.Errorf("%d to %d: %s is %s and the same", from, to, key, c)
					}
					continue
				case a == "":
					want = Added
				case b == "":
					want = Removed
				default:
					want = Changed
				}
				if got[key] != want {
					t.Errorf("%d to %d: %s is %q, want %q", from, to, key, got[key], want)
				}
			}
		}
	}
	var added []string
	err := s.Diff(ctx, DiffRequest{Projection: projObjects, From: At{Position: first}}, func(r *DiffRow) error {
		if r.Change != Added || r.Before != nil {
			t.Errorf("%+v", r)
		}
		added = append(added, r.Key)
		return nil
	})
	if err != nil || len(added) == 0 || !slices.IsSorted(added) {
		t.Fatal(added, err)
	}
	if err := s.Diff(ctx, DiffRequest{Projection: "none"}, nil); !errors.Is(err, fcp.CodeNotFound) {
		t.Error(err)
	}
}
