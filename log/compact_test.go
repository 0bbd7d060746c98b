package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"fcp"
	"fcp/internal/crashfs"
)

// compactible is a store whose private data feed has sealed segments, with what a
// model knows of it.
type compactible struct {
	t     *testing.T
	l     *Log
	fs    *crashfs.FS
	o     Options
	rng   *rand.Rand
	no    FeedNo
	kept  map[uint64]modelEvent // by sequence number
	gone  map[uint64]fcp.Hash
	time  map[uint64]fcp.Time
	proof []Inclusion
	steps []Consistency
	notes [][]byte // bundles of events since
}

func newCompactible(t *testing.T, seed uint64) *compactible {
	s := &compactible{t: t, fs: crashfs.New(), rng: rand.New(rand.NewPCG(seed, 5)), o: sealing(small(), 12<<10),
		kept: map[uint64]modelEvent{}, gone: map[uint64]fcp.Hash{}, time: map[uint64]fcp.Time{}}
	s.o.Writer = writerOfTestSeal()
	s.open()
	return s
}

func (s *compactible) open() {
	var err error
	if s.l, err = openOn(s.fs, s.o); err != nil {
		s.t.Fatal(err)
	}
}

// fill appends events to the data feed, others between them, and seals.
func (s *compactible) fill(n int) {
	for range n {
		size := 1 + s.rng.IntN(600)
		if s.rng.IntN(40) == 0 {
			size = 90 << 10 // of more than one frame
		}
		d := randomDraft(s.rng, fcp.ZonePrivate, size)
		d.Plane = fcp.PlaneData
		if d.Content.Kind == fcp.KindObjectPut {
			d.Content = opaque(size, 1)
		}
		ds := []Draft{d}
		if s.rng.IntN(2) == 0 {
			ds = append(ds, randomDraft(s.rng, fcp.ZonePrivate, 50))
			ds[1].Plane = fcp.PlaneControl
			if ds[1].Content.Kind == fcp.KindObjectBody {
				ds[1].Content = opaque(9, 9)
			}
		}
		p := mustAppend(s.t, s.l, ds).Events[0]
		s.no = p.Feed
		s.kept[p.Seq], s.time[p.Seq] = modelEvent{p, d}, p.Time
	}
	sealAll(s.t, s.l, nil)
}

// segments returns the local numbers of the data feed's segments in its order.
func (s *compactible) segments() (out []SegmentInfo) {
	err := s.l.Segments(func(i SegmentInfo) error {
		if no, _ := s.l.FeedNo(i.Remainder.Feed()); no == s.no {
			out = append(out, i)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	slices.SortFunc(out, func(a, b SegmentInfo) int { return int(a.Remainder.First) - int(b.Remainder.First) })
	return out
}

// plan picks runs of neighbouring segments and events to drop from them.
func (s *compactible) plan() (runs []CompactRun, drop []uint64) {
	all := s.segments()
	for i := 0; i < len(all); {
		n := 1 + s.rng.IntN(4)
		group := all[i:min(i+n, len(all))]
		if i += n; s.rng.IntN(3) == 0 {
			continue
		}
		r := CompactRun{Feed: s.no, Horizon: fcp.Time(group[0].Remainder.Time)}
		mode := s.rng.IntN(4) // a few, most, all, none
		for _, g := range group {
			r.Segments = append(r.Segments, g.No)
			for seq := g.Remainder.First; seq <= g.Remainder.Last; seq++ {
				if _, ok := s.kept[seq]; ok && (mode == 2 || mode == 1 && s.rng.IntN(8) > 0 || mode == 0 && s.rng.IntN(8) == 0) {
					r.Drop = append(r.Drop, seq)
				}
			}
		}
		runs, drop = append(runs, r), append(drop, r.Drop...)
	}
	return runs, drop
}

func (s *compactible) dropped(drop []uint64) {
	for _, seq := range drop {
		s.gone[seq] = s.kept[seq].Hash
		delete(s.kept, seq)
	}
}

// prove remembers proofs; check compares all that were remembered.
func (s *compactible) prove() {
	h, _ := s.l.Head(s.no)
	for range 5 {
		p, err := s.l.Prove(s.no, 1+s.rng.Uint64N(h.Seq), h.Seq)
		if err != nil {
			s.t.Fatal(err)
		}
		s.proof = append(s.proof, p)
		c, err := s.l.Consistency(s.no, 1+s.rng.Uint64N(h.Seq), h.Seq)
		if err != nil {
			s.t.Fatal(err)
		}
		s.steps = append(s.steps, c)
	}
	for seq := range s.kept {
		b, err := s.l.Bundle(s.no, seq)
		if err != nil {
			s.t.Fatal(err)
		}
		s.notes = append(s.notes, b)
		break
	}
}

func (s *compactible) check() {
	t := s.t
	t.Helper()
	for seq, want := range s.kept {
		e, salt, err := s.l.Read(s.no, seq)
		if err != nil || salt != want.d.Salt || e.Time != want.Time || !bytes.Equal(e.Content.AppendTo(nil), want.d.Content.AppendTo(nil)) {
			t.Fatalf("kept event %d: %v", seq, err)
		}
		if full, hash, err := s.l.ReadFull(s.no, seq); err != nil || hash != want.Hash || full.Hash() != hash {
			t.Fatalf("kept event %d in full: %v", seq, err)
		}
	}
	for seq, want := range s.gone {
		e, salt, err := s.l.Read(s.no, seq)
		if !errors.Is(err, fcp.CodeHorizon) || e.Time != s.time[seq] || salt != [SaltSize]byte{} || len(e.Body) > 0 {
			t.Fatalf("dropped event %d: %+v, %v", seq, e, err)
		}
		if _, hash, err := s.l.ReadFull(s.no, seq); !errors.Is(err, fcp.CodeHorizon) || hash != want {
			t.Fatalf("dropped event %d in full: %s, %v", seq, hash, err)
		}
		if salt, err := s.l.Salt(s.no, seq); err != nil || salt != [SaltSize]byte{} {
			t.Fatalf("dropped event %d has its salt still (%v)", seq, err)
		}
	}
	for first := uint64(1); first <= uint64(len(s.kept)+len(s.gone)); first += 7 {
		salts, err := s.l.SaltsOf(s.no, first, first+20)
		if err != nil {
			t.Fatal(err)
		}
		for i := range uint64(21) {
			want, err := s.l.Salt(s.no, first+i)
			if err != nil || !bytes.Equal(salts[i*SaltSize:][:SaltSize], want[:]) {
				t.Fatalf("salts from %d: that of event %d is another (%v)", first, first+i, err)
			}
		}
	}
	for _, workers := range []int{1, 3} {
		durable := s.l.Durable() // the sealer may go on
		all, err := scanned(s.l, workers)
		if err != nil || uint64(len(all)) < durable {
			t.Fatalf("scan of %d of %d events: %v", len(all), durable, err)
		}
		seen := 0
		for i := range all {
			e := &all[i]
			if want, ok := s.gone[e.Seq]; e.Feed == s.no && ok {
				seen++
				if !e.Dropped() || e.Hash != want || e.Time != s.time[e.Seq] {
					t.Fatalf("dropped event %d scans as %+v", e.Seq, e)
				}
			} else if e.Dropped() {
				t.Fatalf("event %d of feed %d was not to be dropped", e.Seq, e.Feed)
			}
		}
		if seen != len(s.gone) {
			t.Fatalf("%d dropped events, want %d", seen, len(s.gone))
		}
	}
	for _, p := range s.proof {
		again, err := s.l.Prove(s.no, p.Seq, p.Size)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
			t.Fatalf("the proof of event %d in %d leaves changed: %v", p.Seq, p.Size, err)
		}
	}
	for _, c := range s.steps {
		again, err := s.l.Consistency(s.no, c.From, c.To)
		if err != nil || fmt.Sprint(again) != fmt.Sprint(c) {
			t.Fatalf("the proof from %d to %d leaves changed: %v", c.From, c.To, err)
		}
		head, err := s.l.Consistency(s.no, c.To, 0) // the old head is a beginning of the present one
		if err != nil || head.FromRoot != c.ToRoot {
			t.Fatalf("the tree of %d leaves is not the beginning of the present one: %v", c.To, err)
		}
	}
	for _, b := range s.notes {
		if err := CheckProof(b); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCompactionKeepsWhatIsKept: whatever is dropped at random points, everything
// else reads as before, hashes and proofs of everything stay, and the store
// verifies, reopens and goes on.
func TestCompactionKeepsWhatIsKept(t *testing.T) {
	for seed := range uint64(torture(3)) {
		s := newCompactible(t, seed)
		for range 4 {
			s.fill(60 + s.rng.IntN(200))
			s.prove()
			runs, drop := s.plan()
			before := s.segments()
			r, err := s.l.Compact(t.Context(), runs)
			if err != nil || int(r.Events) != len(drop) || len(r.Segments) != len(runs) {
				t.Fatalf("seed %d: %d of %d events dropped: %v", seed, r.Events, len(drop), err)
			}
			s.dropped(drop)
			s.check()
			for _, b := range before { // what is gone leads to what is there
				id, steps := b.Card.Segment, 0
				for {
					if _, ok, _ := s.l.FindSegment(id); ok {
						break
					}
					var ok bool
					if id, ok, err = s.l.ReplacedBy(id); !ok || err != nil || steps > 5 {
						t.Fatalf("segment %s leads nowhere: %v", b.Card.Segment, err)
					}
					steps++
				}
			}
			if s.rng.IntN(2) == 0 {
				horizon := s.horizon()
				mustClose(t, s.l)
				r := wantClean(t, s.fs, s.o.Sealer)
				if r.Opened != r.Segments || len(r.Findings) > 0 {
					t.Fatalf("%d of %d segments opened, %v", r.Opened, r.Segments, r.Findings)
				}
				s.open()
				if s.horizon() != horizon {
					t.Fatalf("the horizon moved from %d to %d", horizon, s.horizon())
				}
				s.check()
			}
		}
		if len(s.gone) == 0 || len(s.kept) == 0 {
			t.Fatal("too tame")
		}
		mustClose(t, s.l)
	}
}

func (s *compactible) horizon() fcp.Time { h, _ := s.l.Head(s.no); return h.Horizon }

// TestCompactionRefuses: what must not be compacted leaves the store as it is.
func TestCompactionRefuses(t *testing.T) {
	s := newCompactible(t, 9)
	defer func() { mustClose(t, s.l) }()
	s.fill(200)
	all := s.segments()
	control, _ := s.l.FeedNo(fcp.Feed{Zone: fcp.ZonePrivate, Writer: s.o.Writer, Incarnation: s.l.Incarnation(), Plane: fcp.PlaneControl})
	for name, c := range map[string]struct {
		run  CompactRun
		code fcp.Code
	}{
		"control plane":  {CompactRun{Feed: control, Segments: []uint64{1}}, fcp.CodeWrongPlane},
		"no feed":        {CompactRun{Feed: 99, Segments: []uint64{1}}, fcp.CodeNotFound},
		"no segment":     {CompactRun{Feed: s.no, Segments: []uint64{1 << 40}}, fcp.CodeNotFound},
		"no neighbours":  {CompactRun{Feed: s.no, Segments: []uint64{all[0].No, all[2].No}}, fcp.CodeInvalidArgument},
		"wrong order":    {CompactRun{Feed: s.no, Segments: []uint64{all[1].No, all[0].No}}, fcp.CodeInvalidArgument},
		"none":           {CompactRun{Feed: s.no}, fcp.CodeInvalidArgument},
		"drops unsorted": {CompactRun{Feed: s.no, Segments: []uint64{all[0].No}, Drop: []uint64{2, 1}}, fcp.CodeInvalidArgument},
	} {
		_, err := s.l.Compact(t.Context(), []CompactRun{c.run})
		if !errors.Is(err, c.code) {
			t.Errorf("%s: %v, want %s", name, err, c.code)
		}
	}
	s.check()
}

// TestCompactedSegmentsAreTakenIn: another log takes the segments in as they are,
// with the hashes of what was dropped.
func TestCompactedSegmentsAreTakenIn(t *testing.T) {
	s := newCompactible(t, 4)
	s.fill(300)
	runs, drop := s.plan()
	if _, err := s.l.Compact(t.Context(), runs); err != nil {
		t.Fatal(err)
	}
	s.dropped(drop)
	o := s.o
	o.Writer = fcp.WriterID{5}
	fs := crashfs.New()
	l, err := openOn(fs, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range s.segments() {
		ct, err := s.l.Ciphertext(i.No)
		if err != nil {
			t.Fatal(err)
		}
		if i.Remainder.Dropped > 0 {
			bad := i.Remainder
			bad.Dropped--
			if err := l.ImportSegment(t.Context(), bad, ct); !errors.Is(err, fcp.CodeCorrupt) {
				t.Fatalf("a remainder that counts wrong: %v", err)
			}
		}
		if err := l.ImportSegment(t.Context(), i.Remainder, ct); err != nil {
			t.Fatal(err)
		}
	}
	no, _ := l.FeedNo(l.Feed(1))
	want, _ := s.l.Head(s.no)
	if h, _ := l.Head(no); h.Hash != want.Hash || h.Root != want.Root || h.Horizon != want.Horizon {
		t.Fatalf("taken in as %+v, was %+v", h, want)
	}
	for seq, hash := range s.gone {
		if _, h, err := l.ReadFull(no, seq); !errors.Is(err, fcp.CodeHorizon) || h != hash {
			t.Fatalf("event %d: %v", seq, err)
		}
	}
	for seq, e := range s.kept {
		if _, h, err := l.ReadFull(no, seq); err != nil || h != e.Hash {
			t.Fatalf("event %d: %v", seq, err)
		}
	}
	mustClose(t, l)
	mustClose(t, s.l)
	wantClean(t, fs, o.Sealer)
}

// TestReadsDuringCompaction: readers and scans of what is kept never notice.
func TestReadsDuringCompaction(t *testing.T) {
	s := newCompactible(t, 8)
	s.fill(400)
	runs, drop := s.plan()
	s.dropped(drop)
	seqs := slices.Collect(maps.Keys(s.kept))
	done, errs := make(chan struct{}), make(chan error, 3)
	for w := range 2 {
		go func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for {
				select {
				case <-done:
					errs <- nil
					return
				default:
				}
				seq := seqs[rng.IntN(len(seqs))]
				if _, _, err := s.l.Read(s.no, seq); err != nil {
					errs <- fmt.Errorf("event %d: %w", seq, err)
					return
				}
			}
		}()
	}
	go func() {
		for {
			select {
			case <-done:
				errs <- nil
				return
			default:
			}
			if _, err := scanned(s.l, 2); err != nil {
				errs <- err
				return
			}
		}
	}()
	for _, r := range runs { // one by one, so that there are many moments
		if _, err := s.l.Compact(context.Background(), []CompactRun{r}); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	s.check()
	mustClose(t, s.l)
}

// TestCompactionSurvivesAPowerCut: at whatever step the power goes, each run is
// compacted or as it was, and nothing that is kept is lost.
func TestCompactionSurvivesAPowerCut(t *testing.T) {
	checked, before, after := 0, 0, 0
	for seed := range uint64(torture(2)) {
		s := newCompactible(t, 100+seed)
		s.fill(150)
		runs, drop := s.plan()
		for len(drop) == 0 {
			runs, drop = s.plan()
		}
		var images []*crashfs.FS
		s.fs.SetHook(serial(func(op crashfs.Op) error {
			if op.Kind.Mutating() {
				images = append(images, s.fs.Crash(s.rng, crashDamages[s.rng.IntN(len(crashDamages))]))
			}
			return nil
		}))
		if _, err := s.l.Compact(t.Context(), runs); err != nil {
			t.Fatal(err)
		}
		s.fs.SetHook(nil)
		images = append(images, s.fs.CrashClone())
		mustClose(t, s.l)
		for step := max(1, len(images)/25); len(images) > 0; images = images[min(step, len(images)):] {
			img := images[0]
			keep := img.CrashClone()
			wantClean(t, img, s.o.Sealer)
			l, err := openOn(img, s.o)
			if err != nil {
				saveImage(t, keep)
				t.Fatal(err)
			}
			gone := map[bool]int{}
			for _, seq := range drop {
				_, hash, err := l.ReadFull(s.no, seq)
				if err != nil && !errors.Is(err, fcp.CodeHorizon) || hash != s.kept[seq].Hash {
					saveImage(t, keep)
					t.Fatalf("event %d to be dropped: %s, %v", seq, hash, err)
				}
				gone[err != nil]++
			}
			if len(gone) != 1 { // the runs went in one round
				t.Fatalf("%d events are gone and %d are not", gone[true], gone[false])
			}
			for seq, e := range s.kept {
				if _, ok := slices.BinarySearch(drop, seq); ok {
					continue
				}
				if _, hash, err := l.ReadFull(s.no, seq); err != nil || hash != e.Hash {
					saveImage(t, keep)
					t.Fatalf("kept event %d: %v", seq, err)
				}
			}
			if _, err := scanned(l, 2); err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, draft(10, 1))
			mustClose(t, l)
			checked++
			if gone[true] > 0 {
				after++
			} else {
				before++
			}
		}
	}
	if before == 0 || after == 0 {
		t.Fatalf("%d images: %d before, %d after", checked, before, after)
	}
	t.Logf("%d images: %d as before, %d compacted", checked, before, after)
}
