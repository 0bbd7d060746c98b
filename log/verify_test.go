package log

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/internal/crashfs"
)

// wantClean fails unless verification finds nothing.
func wantClean(t testing.TB, fs vfs.FS, s Sealer) Report {
	t.Helper()
	r, err := Verify(context.Background(), "store", VerifyOptions{FS: fs, Sealer: s})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Clean {
		t.Fatalf("verify finds: %v", r.Findings)
	}
	return r
}

// busyStore fills a store with everything the format has: several feeds, planes
// and checkpoints, salts, sealed segments of two planes, an open run, tree nodes,
// head records, a foreign feed.
func busyStore(t testing.TB, fs vfs.FS, o Options, events int) *Log {
	t.Helper()
	l, err := openOn(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(5, 6))
	for n := 0; n < events; {
		k := 1 + rng.IntN(40)
		ds := make([]Draft, k)
		zone := testZones[rng.IntN(len(testZones))]
		for i := range ds {
			ds[i] = randomDraft(rng, zone, 300)
		}
		mustAppend(t, l, ds)
		if n += k; o.Sealer != nil && rng.IntN(60) == 0 {
			if _, err := l.Seal(context.Background(), SealOptions{All: true}); err != nil {
				t.Fatal(err)
			}
		}
	}
	src := newForeign(9, fcp.ZoneWork, fcp.PlaneData)
	if _, err := l.Import(context.Background(), src.take(70), nil); err != nil {
		t.Fatal(err)
	}
	return l
}

// sealDueNow seals what is due, so that nothing is left to do in the background.
func sealDueNow(t testing.TB, l *Log) {
	t.Helper()
	if l.opts.Sealer == nil {
		return
	}
	for {
		infos, err := l.Seal(context.Background(), SealOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(infos) == 0 {
			return
		}
	}
}

func TestVerifyFindsNothingInASoundStore(t *testing.T) {
	for _, sealed := range []bool{false, true} {
		o := small()
		o.MemTableBytes = 256 << 10
		if sealed {
			o = sealing(o, 32<<10)
		}
		fs := crashfs.New()
		l := busyStore(t, fs, o, 4000)
		sealDueNow(t, l) // or it is done between the next lines
		durable := l.Durable()
		crashed := fs.CrashClone()
		mustClose(t, l)
		r := wantClean(t, fs, o.Sealer)
		if r.Durable != durable || r.Events != durable || r.Mark != durable || r.Doubt != 0 || r.Crashed || r.Nodes == 0 || r.Salts == 0 || r.Tables == 0 {
			t.Fatalf("of %d positions: %+v", durable, r)
		}
		if sealed != (r.Segments > 3) || r.Opened != r.Segments {
			t.Fatalf("segments: %+v", r)
		}
		r = wantClean(t, crashed, o.Sealer)
		if r.Durable != durable || r.Events != durable || !r.Crashed || r.Doubt != durable-r.Mark {
			t.Fatalf("crashed: %+v", r)
		}
		if sealed { // without keys: fewer events, nothing wrong
			r = wantClean(t, fs, nil)
			if r.Opened != 0 || r.Segments < 3 || r.Events >= durable {
				t.Fatalf("without keys: %+v", r)
			}
		}
	}
}

func TestVerifyTellsWhatItCannotDo(t *testing.T) {
	_, err := Verify(t.Context(), "store", VerifyOptions{FS: crashfs.New()})
	wantCode(t, err, fcp.CodeNoStore)
	fs := crashfs.New()
	l := busyStore(t, fs, small(), 50)
	_, err = Verify(t.Context(), "store", VerifyOptions{FS: fs})
	wantCode(t, err, fcp.CodeLocked)
	mustClose(t, l)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = Verify(ctx, "store", VerifyOptions{FS: fs})
	wantCode(t, err, fcp.CodeInterrupted)
	var last, total uint64
	if _, err = Verify(t.Context(), "store", VerifyOptions{FS: fs, Progress: func(d, n uint64) { last, total = d, n }}); err != nil {
		t.Fatal(err)
	}
	if last != total || last < 50 {
		t.Fatalf("progress ended at %d of %d", last, total)
	}
}

// TestVerifyFindsEveryKindOfDamage changes one record of each kind behind the
// log's back and expects the finding that names it.
func TestVerifyFindsEveryKindOfDamage(t *testing.T) {
	o := sealing(small(), 32<<10)
	o.MemTableBytes = 256 << 10
	base := crashfs.New()
	mustClose(t, busyStore(t, base, o, 4000))
	first := func(db *pebble.DB, prefix byte, skip int) (k, v []byte) {
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefix}, UpperBound: []byte{prefix + 1}})
		if err != nil {
			t.Fatal(err)
		}
		defer it.Close()
		ok := it.First()
		for range skip {
			ok = ok && it.Next()
		}
		if !ok {
			t.Fatalf("fewer than %d records under %c", skip, prefix)
		}
		return append([]byte(nil), it.Key()...), append([]byte(nil), it.Value()...)
	}
	type change func(db *pebble.DB) error
	flip := func(prefix byte, skip, at int) change {
		return func(db *pebble.DB) error {
			k, v := first(db, prefix, skip)
			if at < 0 {
				at += len(v)
			}
			v[at] ^= 1
			return db.Set(k, v, pebble.Sync)
		}
	}
	drop := func(prefix byte, skip int) change {
		return func(db *pebble.DB) error {
			k, _ := first(db, prefix, skip)
			return db.Delete(k, pebble.Sync)
		}
	}
	set := func(k, v []byte) change {
		return func(db *pebble.DB) error { return db.Set(k, v, pebble.Sync) }
	}
	for name, c := range map[string]struct {
		change change
		code   string
	}{
		"meta flipped":            {flip(keyMeta, 0, 5), FindMark},
		"meta gone":               {drop(keyMeta, 0), FindMeta},
		"feed flipped":            {flip(keyFeed, 0, 12), ""},
		"feed gone":               {drop(keyFeed, 1), FindFeed},
		"hot block, last byte":    {flip(keyHot, 3, -1), ""},
		"hot block, middle":       {flip(keyHot, 3, 60), ""},
		"hot block gone":          {drop(keyHot, 0), ""},
		"end record flipped":      {flip(keyEnd, 0, -1), FindHead},
		"end record gone":         {drop(keyEnd, 0), FindHead},
		"frame flipped":           {flip(keyFrame, 4, 100), FindCiphertext},
		"frame gone":              {drop(keyFrame, 4), FindCiphertext},
		"remainder flipped":       {flip(keySegment, 1, -3), ""},
		"remainder gone":          {drop(keySegment, 1), FindSegment},
		"index row flipped":       {flip(keySealed, 1, -1), ""},
		"index row gone":          {drop(keySealed, 1), FindSegment},
		"id row gone":             {drop(keyByID, 0), FindSegment},
		"id row extra":            {set(keyOfID(fcp.SegmentID{1}), key1(0, 1)[1:]), FindSegment},
		"node flipped":            {flip(keyNode, 0, 3), FindNode},
		"node gone":               {drop(keyNode, 0), FindNode},
		"node extra":              {set(keyOfNode(1, 16, 9), make([]byte, 32)), FindNode},
		"position flipped":        {flip(keyPosition, 2, 0), FindPosition},
		"position count flipped":  {flip(keyPosition, 2, -1), FindPosition},
		"position gone":           {drop(keyPosition, 2), FindPosition},
		"salts of another length": {set(keyOfSeq(keySalts, 1, 1), make([]byte, 15)), FindSalts},
		"salts of no event":       {set(keyOfSeq(keySalts, 1, 1<<40), make([]byte, 16)), FindSalts},
		"key nobody knows":        {set([]byte("zebra"), nil), FindKey},
		"key of a wrong length":   {set([]byte("f12"), nil), FindKey},
		"head record of nothing":  {set(keyOfFeed(keyHead, 1), (&head{seq: 1 << 40, tree: tree{size: 1 << 40, roots: make([]fcp.Hash, 1)}}).appendTo(nil)), FindHead},
		"head record wrong":       {set(keyOfFeed(keyHead, 1), (&head{seq: 4, tree: tree{size: 4, roots: make([]fcp.Hash, 1)}}).appendTo(nil)), FindHead},
	} {
		t.Run(name, func(t *testing.T) {
			image := base.CrashClone()
			db, err := pebble.Open("store", &pebble.Options{FS: image, FormatMajorVersion: pebbleFormat, Logger: quietLogger{}})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(db); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			r, err := Verify(t.Context(), "store", VerifyOptions{FS: image, Sealer: o.Sealer})
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(r.Findings)
			if r.Clean || c.code != "" && !strings.Contains(got, c.code+":") {
				t.Fatalf("wanted %q, found %s", c.code, got)
			}
		})
	}
}

type quietLogger struct{}

func (quietLogger) Infof(string, ...any)              {}
func (quietLogger) Errorf(string, ...any)             {}
func (quietLogger) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// TestVerifyFindsWrongRootInRemainder: a segment whose frames, card and remainder are
// sound but whose events are not those of the feed.
func TestVerifyFindsWrongRootInRemainder(t *testing.T) {
	o := sealing(small(), 32<<10)
	fs := crashfs.New()
	l := busyStore(t, fs, o, 500)
	if _, err := l.Seal(t.Context(), SealOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	k := key1(keySegment, 1)
	rem, err := l.remainder(1)
	if err != nil {
		t.Fatal(err)
	}
	rem.Root = append([]byte(nil), rem.Root...)
	rem.Root[0] ^= 1
	body, err := fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &rem)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.db.Set(k, body, pebble.Sync); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	r, err := Verify(t.Context(), "store", VerifyOptions{FS: fs, Sealer: o.Sealer})
	if err != nil || r.Clean || !strings.Contains(fmt.Sprint(r.Findings), FindRoot+":") {
		t.Fatalf("%v %v", r.Findings, err)
	}
}

// TestVerifyReadsEveryTableBlock flips a bit in every block of every table.
func TestVerifyReadsEveryTableBlock(t *testing.T) {
	o := sealing(small(), 64<<10)
	o.MemTableBytes = 256 << 10
	base := crashfs.New()
	mustClose(t, busyStore(t, base, o, 3000))
	flips := 0
	for _, f := range base.Files() {
		if !strings.HasSuffix(f.Path, ".sst") {
			continue
		}
		for off := int64(0); off < f.Size; off += 4001 {
			image := base.CrashClone()
			if err := image.Flip(f.Path, off, 3); err != nil {
				t.Fatal(err)
			}
			r, err := Verify(t.Context(), "store", VerifyOptions{FS: image, Sealer: o.Sealer})
			if err != nil {
				t.Fatalf("%s at %d: %v", f.Path, off, err)
			}
			if r.Clean {
				t.Fatalf("a flip at %d of %d of %s is not found", off, f.Size, f.Path)
			}
			flips++
		}
	}
	if flips < 40 {
		t.Fatalf("only %d flips", flips)
	}
}
