package log

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/internal/crashfs"
)

func testWriter() fcp.WriterID { return fcp.WriterID{1, 2, 3} }

func opaque(n int, fill byte) fcp.Content {
	b := make([]byte, n)
	for i := range b {
		b[i] = fill + byte(i)
	}
	return fcp.Content{Kind: fcp.KindOpaque, Body: b}
}

func draft(n int, fill byte) []Draft {
	return []Draft{{Zone: fcp.ZonePrivate, Plane: fcp.PlaneData, Content: opaque(n, fill)}}
}

// testSeal is a Sealer and Signer for tests: AES-256-GCM under a random key that
// is "wrapped" by appending the run's address.
type testSeal struct{ key ed25519.PrivateKey }

func newTestSeal() *testSeal {
	return &testSeal{key: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
}

func (s *testSeal) Public() ed25519.PublicKey           { return s.key.Public().(ed25519.PublicKey) }
func (s *testSeal) Sign(message []byte) ([]byte, error) { return ed25519.Sign(s.key, message), nil }

func runAddress(r Run) []byte { return fmt.Appendf(nil, "%s/%d/%d", r.Feed.ID(), r.First, r.Last) }

func (s *testSeal) NewSegment(run Run) (SegmentCipher, []byte, fcp.Hash, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return nil, nil, fcp.Hash{}, err
	}
	c, err := newTestCipher(key, run)
	return c, append(key, runAddress(run)...), fcp.Hash{9}, err
}

func (s *testSeal) OpenSegment(run Run, wrapped []byte, zoneKey fcp.Hash) (SegmentCipher, error) {
	if len(wrapped) < 32 || string(wrapped[32:]) != string(runAddress(run)) || zoneKey != (fcp.Hash{9}) {
		return nil, fcp.Errorf(fcp.CodeWrongKey, "test segment key")
	}
	return newTestCipher(wrapped[:32], run)
}

type testCipher struct {
	aead cipher.AEAD
	addr []byte
}

func newTestCipher(key []byte, run Run) (*testCipher, error) {
	b, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	a, err := cipher.NewGCM(b)
	return &testCipher{a, runAddress(run)}, err
}

func frameNonce(i uint32, last bool) []byte {
	n := binary.BigEndian.AppendUint32(make([]byte, 7), i)
	if last {
		return append(n, 1)
	}
	return append(n, 0)
}

func (c *testCipher) Overhead() int { return c.aead.Overhead() }
func (c *testCipher) SealFrame(dst, p []byte, i uint32, last bool) []byte {
	return c.aead.Seal(dst, frameNonce(i, last), p, c.addr)
}
func (c *testCipher) OpenFrame(dst, ct []byte, i uint32, last bool) ([]byte, error) {
	return c.aead.Open(dst, frameNonce(i, last), ct, c.addr)
}

func openTest(t *testing.T, fs vfs.FS, o Options) *Log {
	t.Helper()
	o.FS, o.Writer, o.Create, o.Now = fs, testWriter(), true, startedNow
	l, err := Open("store", o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestAppendReadReopen(t *testing.T) {
	fs := crashfs.New()
	l := openTest(t, fs, Options{DisableBallast: true})
	ctx := context.Background()
	for i := range 1000 {
		r, err := l.Append(ctx, draft(256, byte(i)))
		if err != nil {
			t.Fatal(err)
		}
		if r.Events[0].Position != uint64(i+1) || r.Events[0].Seq != uint64(i+1) {
			t.Fatalf("event %d got %+v", i, r.Events[0])
		}
	}
	want := l.Feeds()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, fs, Options{DisableBallast: true})
	if got := l.Feeds(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("after reopening %v, before %v", got, want)
	}
	for _, workers := range []int{1, 3} {
		n := uint64(0)
		err := l.Scan(ctx, ScanOptions{Verify: VerifyTree, Workers: workers}, func(events []Applied) error {
			for i := range events {
				n++
				if events[i].Position != n || events[i].Content.Body[0] != byte(n-1) {
					return fmt.Errorf("event at %d: %+v", n, events[i].Placed)
				}
			}
			return nil
		})
		if err != nil || n != 1000 {
			t.Fatalf("%d events, %v", n, err)
		}
	}
	e, _, err := l.Read(1, 77)
	if err != nil || e.Body[0] != 76 {
		t.Fatalf("%v %v", e.Seq, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSealedEventsReadTheSame(t *testing.T) {
	for _, workers := range []int{1, 3} {
		fs := crashfs.New()
		seal := newTestSeal()
		o := Options{DisableBallast: true, Sealer: seal, Signer: seal, SegmentTarget: 64 << 10}
		l := openTest(t, fs, o)
		ctx := context.Background()
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				for i := range 300 {
					n := 200 + (w*37+i*101)%900
					if i%100 == 99 {
						n = 300 << 10 // fills several frames
					}
					if _, err := l.Append(ctx, draft(n, byte(i))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if _, err := l.Append(ctx, draft(10, 1)); err != nil {
			t.Fatal(err)
		}
		before := digestOf(t, l, workers)
		infos, err := l.Seal(ctx, SealOptions{All: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(infos) == 0 {
			t.Fatal("nothing was sealed on demand")
		}
		h, _ := l.Head(1)
		if h.Sealed != h.Seq {
			t.Fatalf("sealed to %d of %d", h.Sealed, h.Seq)
		}
		if after := digestOf(t, l, workers); !strings.HasPrefix(after, before) {
			t.Fatalf("events changed by sealing:\n%.200s\n%.200s", before, after)
		}
		want, feeds := digestOf(t, l, workers), fmt.Sprint(l.Feeds())
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = openTest(t, fs, o)
		if got := digestOf(t, l, workers); got != want {
			t.Fatal("events changed by reopening")
		}
		if got := fmt.Sprint(l.Feeds()); got != feeds {
			t.Fatalf("feeds changed by reopening: %s, %s", got, feeds)
		}
		for p := uint64(1); p <= l.Durable(); p += 97 {
			no, seq, err := l.At(p)
			if err != nil {
				t.Fatal(err)
			}
			if back, err := l.PositionOf(no, seq); err != nil || back != p {
				t.Fatalf("position %d is event %d/%d, whose position is %d (%v)", p, no, seq, back, err)
			}
			if _, _, err := l.Read(no, seq); err != nil {
				t.Fatal(err)
			}
			if e, hash, err := l.ReadFull(no, seq); err != nil || e.Hash() != hash {
				t.Fatalf("event %d/%d hashes to %s, the chain says %s (%v)", no, seq, e.Hash(), hash, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// digestOf renders every event in position order, tree checked.
func digestOf(t *testing.T, l *Log, workers int) string {
	t.Helper()
	var b strings.Builder
	next := uint64(1)
	err := l.Scan(context.Background(), ScanOptions{Verify: VerifyTree, Workers: workers}, func(events []Applied) error {
		for i := range events {
			e := &events[i]
			if e.Position != next {
				return fmt.Errorf("position %d after %d", e.Position, next-1)
			}
			next++
			fmt.Fprintf(&b, "%d %d %d %x %d\n", e.Position, e.Feed, e.Seq, e.Hash[:4], len(e.Content.Body))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
