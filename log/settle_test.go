package log

import (
	"context"
	"slices"
	"testing"

	"fcp"
)

type keepApplied struct{ placed []Placed }

func (k *keepApplied) Apply(events []Applied) error {
	for i := range events {
		k.placed = append(k.placed, events[i].Placed)
	}
	return nil
}

// TestHashesMadeDuringTheSync: a group may need hashes before its batch is written (of
// several blocks, of stored tree nodes, of cuts, of head records), others it gets while
// the disk syncs. Receipts, the Applier, heads and what is stored must agree either way.
func TestHashesMadeDuringTheSync(t *testing.T) {
	for _, n := range []int{1, 3, 255, 256, 257, 700, headRecordEvents + 1} {
		for _, seals := range []bool{false, true} {
			disk, k, o := newDisk(), &keepApplied{}, small()
			o.MemTableBytes = 1 << 20
			if seals {
				o = sealing(o, 1<<20)
			}
			o.Applier = k
			l, err := openOn(disk, o)
			if err != nil {
				t.Fatal(err)
			}
			var placed []Placed
			for _, size := range []int{n, 10} {
				var drafts []Draft
				for i := range size {
					d := Draft{Zone: fcp.ZonePrivate, Plane: fcp.PlaneData, Content: opaque(280+i%9, byte(i))}
					switch {
					case i%50 == 7:
						d.Content = opaque(laterHashed+i%7, byte(i))
					case i%11 == 3:
						d.Plane = fcp.PlaneControl
					case i%13 == 5:
						d.Plane = fcp.PlaneLocal
					}
					if i > size/2 {
						d.Under = fcp.Hash{1}
					}
					drafts = append(drafts, d)
				}
				placed = append(placed, mustAppend(t, l, drafts).Events...)
			}
			told := map[uint64]Placed{}
			for _, p := range k.placed {
				told[p.Position] = p
			}
			if slices.ContainsFunc(placed, func(p Placed) bool { return told[p.Position] != p }) {
				t.Fatalf("%d events, sealing %v: the applier was told something else than the writers", n, seals)
			}
			checkHashes(t, l, placed)
			mustClose(t, l)
			report, err := Verify(context.Background(), "store", VerifyOptions{FS: disk, Sealer: o.Sealer})
			if err != nil || len(report.Findings) > 0 {
				t.Fatal(report, err)
			}
			if l, err = openOn(disk, o); err != nil {
				t.Fatal(err)
			}
			checkHashes(t, l, placed)
			mustClose(t, l)
		}
	}
}

// checkHashes reads the events again, compares their hashes, and the roots of the trees
// over them.
func checkHashes(t *testing.T, l *Log, placed []Placed) {
	t.Helper()
	want := map[FeedNo][]Placed{}
	for _, p := range placed {
		want[p.Feed] = append(want[p.Feed], p)
	}
	for no, placed := range want {
		tr, i := &tree{}, 0
		first, last := placed[0].Seq, placed[len(placed)-1].Seq
		err := l.ScanFeed(context.Background(), no, first, last, VerifyTree, func(events []Applied) error {
			for _, e := range events {
				for e.Seq > placed[i].Seq { // an event that the log appended itself
					i++
				}
				if e.Seq == placed[i].Seq && e.Hash != placed[i].Hash {
					t.Fatalf("event %d of feed %d has hash %s, told was %s", e.Seq, no, e.Hash, placed[i].Hash)
				}
				tr.append(e.Hash, nil)
			}
			return nil
		})
		h, ok := l.Head(no)
		if err != nil || !ok || h.Feed.Plane.Chained() && h.Seq == tr.size && h.Root != tr.root() {
			t.Fatalf("the root of feed %d is not that of its events (%v)", no, err)
		}
	}
}

// TestImportsOfOneFeedInOneGroup: the second continues what the first left unhashed.
func TestImportsOfOneFeedInOneGroup(t *testing.T) {
	l, err := openOn(newDisk(), small())
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, l)
	from, g := newForeign(1, fcp.ZonePrivate, fcp.PlaneData), &group{}
	for range 3 {
		r := &request{foreign: &foreignRun{feed: from.feed}}
		if n, err := l.takeForeign(r, from.take(5), nil, 0); n != 5 || err != nil {
			t.Fatal(n, err)
		}
		g.reqs = append(g.reqs, r)
	}
	l.commit(g)
	var placed []Placed
	for _, r := range g.reqs {
		if r.err != nil {
			t.Fatal(r.err)
		}
		placed = append(placed, r.placed...)
	}
	if last := placed[len(placed)-1]; last.Seq != 15 || last.Hash != from.prev {
		t.Fatal(last)
	}
	checkHashes(t, l, placed)
}
