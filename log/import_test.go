package log

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"fcp"
	"fcp/internal/crashfs"
)

func TestImport(t *testing.T) {
	ctx := context.Background()
	fresh := func() []fcp.Event { return newForeign(7, fcp.ZoneWork, fcp.PlaneData).take(20) }
	// Each case runs on a log that has the first ten events.
	for name, c := range map[string]struct {
		events func() []fcp.Event
		taken  int
		code   fcp.Code
		head   uint64
	}{
		"continues":            {func() []fcp.Event { return fresh()[10:] }, 10, 0, 20},
		"overlaps":             {func() []fcp.Event { return fresh()[4:15] }, 11, 0, 15},
		"known already":        {func() []fcp.Event { return fresh()[2:6] }, 4, 0, 10},
		"leaves a gap":         {func() []fcp.Event { return fresh()[11:] }, 0, fcp.CodeConflict, 10},
		"gap inside":           {func() []fcp.Event { e := fresh(); return append(e[10:13:13], e[14:]...) }, 3, fcp.CodeCorrupt, 13},
		"same event twice":     {func() []fcp.Event { e := fresh(); return []fcp.Event{e[10], e[10], e[11]} }, 1, fcp.CodeCorrupt, 11},
		"renumbered, own hash": {renumbered, 1, fcp.CodeCorrupt, 11},
		"another past": {func() []fcp.Event {
			e := fresh()
			e[3].Body = []byte("not what it was")
			return e[3:12]
		}, 0, fcp.CodeEquivocation, 10},
		"another fork": {func() []fcp.Event {
			f := newForeign(7, fcp.ZoneWork, fcp.PlaneData)
			f.take(9)
			f.prev = fcp.Hash{1}
			f.seq = 10
			return f.take(3)
		}, 0, fcp.CodeEquivocation, 10},
		"wrong chain inside": {func() []fcp.Event {
			e := fresh()
			e[13].Prev = fcp.Hash{5}
			return e[10:]
		}, 3, fcp.CodeCorrupt, 13},
		"changed body inside": {func() []fcp.Event {
			e := fresh()
			e[12].Body = []byte("changed")
			return e[10:]
		}, 3, fcp.CodeCorrupt, 13},
		"time stands still": {func() []fcp.Event {
			e := fresh()
			e[12].Time = e[11].Time
			return e[10:]
		}, 2, fcp.CodeCorrupt, 12},
		"time goes back to the head": {func() []fcp.Event {
			e := fresh()
			e[10].Time = e[9].Time
			return e[10:12]
		}, 0, fcp.CodeCorrupt, 10},
		"in the future": {func() []fcp.Event {
			f := newForeign(7, fcp.ZoneWork, fcp.PlaneData)
			e := f.take(12)
			f.time = fcp.TimeFromWall(time.Now().Add(fcp.MaxClockLead + time.Minute))
			return append(e[10:], f.take(3)...)
		}, 2, fcp.CodeFuture, 12},
		"two feeds": {func() []fcp.Event {
			return append(fresh()[10:12], newForeign(8, fcp.ZoneWork, fcp.PlaneData).take(1)...)
		}, 2, fcp.CodeCorrupt, 12},
		"a kind that does not belong": {func() []fcp.Event {
			e := fresh()
			e[10].Content = fcp.Content{Kind: fcp.KindObjectPut, Key: []byte("k"), Generation: 1}
			return e[10:12]
		}, 0, fcp.CodeWrongPlane, 10},
	} {
		t.Run(name, func(t *testing.T) {
			fs := crashfs.New()
			l, err := openOn(fs, small())
			if err != nil {
				t.Fatal(err)
			}
			if n, err := l.Import(ctx, fresh()[:10], nil); n != 10 || err != nil {
				t.Fatal(n, err)
			}
			taken, err := l.Import(ctx, c.events(), nil)
			if taken != c.taken || fcp.CodeOf(err) != c.code {
				t.Fatalf("took %d (%v), wanted %d and %v", taken, err, c.taken, c.code)
			}
			s := l.Feeds()[0]
			if s.Seq != c.head {
				t.Fatalf("the feed stands at %d, wanted %d", s.Seq, c.head)
			}
			if want := c.events(); c.code == 0 {
				for i := range want {
					e, h, err := l.ReadFull(s.No, want[i].Seq)
					if err != nil || h != want[i].Hash() || string(e.AppendTo(nil)) != string(want[i].AppendTo(nil)) {
						t.Fatalf("event %d: %v", want[i].Seq, err)
					}
				}
			}
			mustClose(t, l)
			wantClean(t, fs, nil)
		})
	}
}

// renumbered is a chain that a forger made with a gap in its numbers: every
// hash fits.
func renumbered() []fcp.Event {
	f := newForeign(7, fcp.ZoneWork, fcp.PlaneData)
	f.take(10)
	e := f.take(1)
	f.seq += 3
	return append(e, f.take(2)...)
}

// TestRefusedImportLeavesNoTrace: numbers are for feeds that are stored. A
// refused import of a new feed must not take one, or the next feed's number has a
// gap before it and the store does not open again.
func TestRefusedImportLeavesNoTrace(t *testing.T) {
	fs := crashfs.New()
	o := sealing(small(), 1<<20)
	l, err := openOn(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Import(t.Context(), newForeign(1, fcp.ZoneWork, fcp.PlaneData).take(5)[3:], nil)
	wantCode(t, err, fcp.CodeConflict)
	rem, ct := foreignSegment(t)
	rem.First, rem.Last = rem.First+5, rem.Last+5
	if err := l.ImportSegment(t.Context(), rem, ct); err == nil {
		t.Fatal("a segment of another run was taken")
	}
	mustAppend(t, l, draft(10, 1))
	mustClose(t, l)
	if l, err = openOn(fs, o); err != nil {
		t.Fatal(err)
	}
	if n := len(l.Feeds()); n != 1 {
		t.Fatalf("%d feeds", n)
	}
	mustClose(t, l)
	wantClean(t, fs, o.Sealer)
}

func TestImportRefusals(t *testing.T) {
	l, err := openOn(crashfs.New(), small())
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	own := newForeign(1, fcp.ZoneWork, fcp.PlaneData)
	own.feed.Writer, own.feed.Incarnation = l.Writer(), l.Incarnation()
	_, err = l.Import(t.Context(), own.take(1), nil)
	wantCode(t, err, fcp.CodeInvalidArgument)
	_, err = l.Import(t.Context(), newForeign(1, fcp.ZoneWork, fcp.PlaneLocal).take(1), nil)
	wantCode(t, err, fcp.CodeWrongPlane)
	_, err = l.Import(t.Context(), newForeign(1, fcp.ZoneWork, fcp.PlaneData).take(2), make([][SaltSize]byte, 1))
	wantCode(t, err, fcp.CodeInvalidArgument)
	if n, err := l.Import(t.Context(), nil, nil); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	// The same writer in another incarnation is foreign.
	own.feed.Incarnation++
	own.seq, own.prev = 0, fcp.Hash{}
	if n, err := l.Import(t.Context(), own.take(2), [][SaltSize]byte{{1}, {2}}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if _, salt, err := l.Read(1, 2); err != nil || salt != [SaltSize]byte{2} {
		t.Fatal(salt, err)
	}
	if len(l.Feeds()) != 1 {
		t.Fatalf("%d feeds", len(l.Feeds()))
	}
}

// foreignSegment makes a sealed segment of another writer.
func foreignSegment(t testing.TB) (Remainder, []byte) {
	t.Helper()
	o := sealing(small(), 1<<20)
	o.Writer = fcp.WriterID{77}
	l, err := openOn(crashfs.New(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	for i := range 600 {
		mustAppend(t, l, draft(200, byte(i)))
	}
	infos, err := l.Seal(context.Background(), SealOptions{All: true})
	if err != nil || len(infos) == 0 {
		t.Fatal(infos, err)
	}
	ct, err := l.Ciphertext(infos[0].No)
	if err != nil {
		t.Fatal(err)
	}
	rem, err := l.remainder(infos[0].No)
	if err != nil {
		t.Fatal(err)
	}
	return rem, ct
}

func TestImportSegment(t *testing.T) {
	rem, ct := foreignSegment(t)
	o := sealing(small(), 1<<20)
	fs := crashfs.New()
	l, err := openOn(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, draft(10, 1))
	for name, change := range map[string]func(r *Remainder, ct []byte){
		"ciphertext":    func(_ *Remainder, ct []byte) { ct[1000] ^= 1 },
		"head":          func(r *Remainder, _ []byte) { r.Head = flipped(r.Head) },
		"root":          func(r *Remainder, _ []byte) { r.Root = flipped(r.Root) },
		"prev":          func(r *Remainder, _ []byte) { r.Prev = flipped(r.Prev) },
		"segment id":    func(r *Remainder, _ []byte) { r.Segment = flipped(r.Segment) },
		"card":          func(r *Remainder, _ []byte) { r.Card = flipped(r.Card) },
		"key":           func(r *Remainder, _ []byte) { r.Key = flipped(r.Key) },
		"writer":        func(r *Remainder, _ []byte) { r.Writer = flipped(r.Writer) },
		"last":          func(r *Remainder, _ []byte) { r.Last-- },
		"frame lengths": func(r *Remainder, _ []byte) { r.Frames = slices.Clone(r.Frames); r.Frames[0]--; r.Plain-- },
	} {
		r, c := rem, slices.Clone(ct)
		change(&r, c)
		if err := l.ImportSegment(t.Context(), r, c); err == nil {
			t.Errorf("a segment with another %s was taken", name)
		} else if errors.Is(err, fcp.Fatal) {
			t.Errorf("another %s: %v", name, err)
		}
		if l.Crashed() != nil {
			t.Fatalf("another %s stopped the log", name)
		}
	}
	if err := l.ImportSegment(t.Context(), rem, ct); err != nil {
		t.Fatal(err)
	}
	wantCode(t, l.ImportSegment(t.Context(), rem, ct), fcp.CodeConflict)
	if len(l.Feeds()) != 2 || l.Feeds()[1].Seq != rem.Last || l.Feeds()[1].Root != fcp.Hash(rem.Root) {
		t.Fatalf("%+v", l.Feeds())
	}
	want := digestOf(t, l, 1)
	mustClose(t, l)
	if l, err = openOn(fs, o); err != nil {
		t.Fatal(err)
	}
	if got := digestOf(t, l, 3); got != want {
		t.Fatal("changed by reopening")
	}
	if _, err := l.Prove(2, 300, rem.Last); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	if r := wantClean(t, fs, o.Sealer); r.Opened != 1 {
		t.Fatalf("%+v", r)
	}
}

func flipped(b []byte) []byte {
	b = slices.Clone(b)
	b[len(b)/2] ^= 1
	return b
}

// TestClockNeverFollowsARefusedEvent: an event from the future leaves the clock
// where it is.
func TestClockNeverFollowsARefusedEvent(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	o := small()
	o.Now = func() time.Time { return now }
	l, err := openOn(crashfs.New(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	f := newForeign(1, fcp.ZoneWork, fcp.PlaneData)
	f.time = fcp.TimeFromWall(now.Add(200 * time.Second))
	events := f.take(1)
	_, err = l.Import(t.Context(), events, nil)
	wantCode(t, err, fcp.CodeFuture)
	r := mustAppend(t, l, draft(1, 1))
	if r.Events[0].Time.Wall().After(now.Add(time.Second)) {
		t.Fatalf("the clock went to %s", r.Events[0].Time.Wall())
	}
	now = now.Add(100 * time.Second) // now it is due
	if n, err := l.Import(t.Context(), events, nil); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}
