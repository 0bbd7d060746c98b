package log

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/internal/crashfs"
)

// torture scales a test's rounds by FCP_TORTURE: 1 is what CI runs.
func torture(n int) int {
	if s := os.Getenv("FCP_TORTURE"); s != "" {
		f, err := strconv.Atoi(s)
		if err != nil || f < 1 {
			panic("FCP_TORTURE is a positive number")
		}
		return n * f
	}
	if testing.Short() {
		return max(1, n/10)
	}
	return n
}

// started is the time of every test that does not set its own: no epoch ends in one,
// at which the sealer would seal what is open.
var started = time.Now()

func startedNow() time.Time { return started }

// small are options of a store that opens fast and rotates its WAL often.
func small() Options {
	return Options{
		Now:            startedNow,
		DisableBallast: true,
		MemTableBytes:  64 << 10,
		CacheBytes:     1 << 20,
		DiskReserve:    1,
		MarkInterval:   time.Hour, // marks only where a test writes them
	}
}

// sealing adds a sealer to options.
func sealing(o Options, target int) Options {
	s := newTestSeal()
	o.Sealer, o.Signer, o.SegmentTarget = s, s, target
	return o
}

func openOn(fs vfs.FS, o Options) (*Log, error) {
	o.FS, o.Create = fs, true
	if o.Writer.IsZero() {
		o.Writer = testWriter()
	}
	return Open("store", o)
}

func mustClose(t testing.TB, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustAppend(t testing.TB, l *Log, drafts []Draft) Receipt {
	t.Helper()
	r, err := l.Append(context.Background(), drafts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantCode fails unless err has the code.
func wantCode(t testing.TB, err error, code fcp.Code) {
	t.Helper()
	if err == nil || fcp.CodeOf(err) != code {
		t.Fatalf("got %v, want an error of code %s", err, code)
	}
}

// randomDraft makes a valid draft of any shape.
func randomDraft(rng *rand.Rand, zone fcp.ZoneID, maxBody int) Draft {
	d := Draft{Zone: zone, Plane: fcp.Plane(1 + rng.IntN(3))}
	if rng.IntN(3) == 0 {
		d.Under = fcp.Hash{byte(1 + rng.IntN(3))}
	}
	if rng.IntN(4) == 0 {
		for i := range d.Salt {
			d.Salt[i] = byte(rng.Uint32())
		}
	}
	body := make([]byte, 1+rng.IntN(maxBody))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	d.Content = fcp.Content{Kind: fcp.KindOpaque, Body: body}
	switch rng.IntN(4) {
	case 0:
		d.Plane = fcp.PlaneControl
		d.Content = fcp.Content{Kind: fcp.KindObjectPut, Key: fmt.Appendf(nil, "name-%d", rng.IntN(50)),
			Generation: 1 + rng.Uint64N(9), Size: rng.Uint64N(1000), Body: body[:min(len(body), 200)]}
		if rng.IntN(2) == 0 {
			d.Content.Idempotency = make([]byte, fcp.IdempotencySize)
		}
		for i := range rng.IntN(3) {
			d.Content.Replaces = d.Content.Replaces.Append(fcp.Hash{byte(i + 1)})
		}
	case 1:
		d.Plane = fcp.PlaneData
		d.Content.Kind = fcp.KindObjectBody
		d.Content.Object = fcp.ObjectID{byte(rng.Uint32()), 1}
	}
	return d
}

var testZones = []fcp.ZoneID{fcp.ZonePrivate, fcp.ZoneWork, "z:custom"}

// saveImage keeps a failing image where a person can look at it.
func saveImage(t testing.TB, image *crashfs.FS) {
	t.Helper()
	dir, err := os.MkdirTemp("", "log-image-*")
	if err == nil {
		err = image.Save(filepath.Join(dir, "image"))
	}
	t.Logf("image saved in %s (%v)", dir, err)
}

// foreign makes the events of another writer, one after the other.
type foreign struct {
	feed fcp.Feed
	rng  *rand.Rand
	seq  uint64
	prev fcp.Hash
	time fcp.Time
}

func newForeign(seed byte, zone fcp.ZoneID, plane fcp.Plane) *foreign {
	return &foreign{feed: fcp.Feed{Zone: zone, Writer: fcp.WriterID{99, seed}, Incarnation: 5, Plane: plane},
		rng: rand.New(rand.NewPCG(uint64(seed), 1)), time: fcp.TimeFromWall(time.Unix(1_650_000_000, 0))}
}

func (f *foreign) next() fcp.Event {
	f.seq++
	f.time += 1 + fcp.Time(f.rng.IntN(1000))
	e := fcp.Event{Feed: f.feed, Seq: f.seq, Prev: f.prev, Time: f.time, Content: opaque(1+f.rng.IntN(100), byte(f.seq))}
	f.prev = e.Hash()
	return e
}

func (f *foreign) take(n int) []fcp.Event {
	out := make([]fcp.Event, n)
	for i := range out {
		out[i] = f.next()
	}
	return out
}

func newDisk() *crashfs.FS { return crashfs.New() }
