package log

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"fcp"
	"fcp/internal/crashfs"
)

// TestReadsAgree: random drafts over feeds; every way to read them gives what a
// model says, before and after sealing and reopening.
func TestReadsAgree(t *testing.T) {
	for seed := range uint64(torture(6)) {
		rng := rand.New(rand.NewPCG(seed, 21))
		o := sealing(small(), 4<<10+rng.IntN(60<<10))
		if seed%3 == 2 {
			o.Sealer, o.Signer = nil, nil
		}
		fs := crashfs.New()
		l, err := openOn(fs, o)
		if err != nil {
			t.Fatal(err)
		}
		model := map[uint64]modelEvent{}
		for range 5 {
			for range 30 + rng.IntN(60) {
				zone := testZones[rng.IntN(3)]
				ds := make([]Draft, 1+rng.IntN(12))
				for i := range ds {
					size := 300
					if rng.IntN(150) == 0 {
						size = 200 << 10
					}
					ds[i] = randomDraft(rng, zone, size)
				}
				for i, p := range mustAppend(t, l, ds).Events {
					model[p.Position] = modelEvent{p, ds[i]}
				}
			}
			// segment.sealed events of the background sealer are not in the model.
			checkReads(t, l, model, rng)
			if o.Sealer != nil && rng.IntN(2) == 0 {
				sealAll(t, l, nil)
				checkReads(t, l, model, rng)
			}
			if rng.IntN(2) == 0 {
				mustClose(t, l)
				wantClean(t, fs, o.Sealer)
				if l, err = openOn(fs, o); err != nil {
					t.Fatal(err)
				}
				checkReads(t, l, model, rng)
			}
		}
		mustClose(t, l)
	}
}

type modelEvent struct {
	Placed
	d Draft
}

func checkReads(t *testing.T, l *Log, model map[uint64]modelEvent, rng *rand.Rand) {
	t.Helper()
	ctx := context.Background()
	same := func(want modelEvent, time fcp.Time, under fcp.Hash, c *fcp.Content) error {
		if time != want.Time || under != want.d.Under || !bytes.Equal(c.AppendTo(nil), want.d.Content.AppendTo(nil)) {
			return fmt.Errorf("event at %d is not the one appended", want.Position)
		}
		return nil
	}
	to := l.Durable()
	for _, o := range []ScanOptions{{}, {Workers: 2}, {Workers: 4, Verify: VerifyChain}, {Verify: VerifyTree}, {Workers: 3, Verify: VerifyTree},
		{From: 1 + rng.Uint64N(to), Verify: VerifyTree}, {From: 1 + rng.Uint64N(to), Workers: 2, Verify: VerifyChain}} {
		o.To = to
		if rng.IntN(3) == 0 {
			o.To = max(o.From, 1+rng.Uint64N(to))
		}
		next, seen := max(o.From, 1), 0
		err := l.Scan(ctx, o, func(events []Applied) error {
			for i := range events {
				e := &events[i]
				if e.Position != next || e.Feed != events[0].Feed {
					return fmt.Errorf("position %d where %d belongs", e.Position, next)
				}
				next++
				want, ok := model[e.Position]
				if !ok {
					if e.Content.Kind != fcp.KindSegmentSealed {
						return fmt.Errorf("nobody wrote the event at %d", e.Position)
					}
					continue
				}
				seen++
				if err := same(want, e.Time, e.Under, &e.Content); err != nil {
					return err
				}
				if e.Seq != want.Seq || e.Feed != want.Feed || o.Verify >= VerifyChain && e.Hash != want.Hash {
					return fmt.Errorf("event at %d moved: %+v, was %+v", e.Position, e.Placed, want.Placed)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("scan %+v: %v", o, err)
		}
		if next != o.To+1 || seen == 0 && o.To-o.From > 20 {
			t.Fatalf("scan %+v ended before %d", o, next)
		}
	}
	for range 40 {
		p := 1 + rng.Uint64N(to)
		no, seq, err := l.At(p)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := l.PositionOf(no, seq); err != nil || back != p {
			t.Fatalf("position %d is event %d/%d, whose position is %d (%v)", p, no, seq, back, err)
		}
		want, ok := model[p]
		if !ok {
			continue
		}
		if no != want.Feed || seq != want.Seq {
			t.Fatalf("position %d is event %d/%d, was %+v", p, no, seq, want.Placed)
		}
		e, salt, err := l.Read(no, seq)
		if err != nil || salt != want.d.Salt {
			t.Fatalf("read %d/%d: salt %x, want %x (%v)", no, seq, salt, want.d.Salt, err)
		}
		if err := same(want, e.Time, e.Under, &e.Content); err != nil {
			t.Fatal("read:", err)
		}
		full, hash, err := l.ReadFull(no, seq)
		if err != nil || hash != want.Hash || want.d.Plane.Chained() && full.Hash() != hash {
			t.Fatalf("read full %d/%d: %v", no, seq, err)
		}
		if err := same(want, full.Time, full.Under, &full.Content); err != nil {
			t.Fatal("read full:", err)
		}
	}
	for _, s := range l.Feeds() {
		first := 1 + rng.Uint64N(s.Seq)
		last := first + rng.Uint64N(s.Seq-first+1)
		next := first
		err := l.ScanFeed(ctx, s.No, first, last, VerifyChain, func(events []Applied) error {
			for i := range events {
				if events[i].Seq != next || events[i].Feed != s.No {
					return fmt.Errorf("event %d where %d belongs", events[i].Seq, next)
				}
				next++
			}
			return nil
		})
		if err != nil || next != last+1 {
			t.Fatalf("feed %d, %d to %d ended before %d: %v", s.No, first, last, next, err)
		}
	}
	for _, p := range []uint64{0, to + 1000} {
		_, _, err := l.At(p)
		wantCode(t, err, fcp.CodeNotPosition)
	}
	_, _, err := l.Read(1, 1<<40)
	wantCode(t, err, fcp.CodeNotFound)
	_, _, err = l.Read(99, 1)
	wantCode(t, err, fcp.CodeNotFound)
	_, err = l.PositionOf(1, 1<<40)
	wantCode(t, err, fcp.CodeNotFound)
}
