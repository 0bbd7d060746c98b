package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// join makes another node of s's store that can read and write, or, as an
// observer, one that only folds.
func join(t testing.TB, s *testStore, seed uint64, observer bool) *testStore {
	t.Helper()
	ctx := context.Background()
	out := &testStore{t: t, dir: "/store", owner: s.owner, clock: s.clock}
	out.env = Environment{FS: vfs.NewMem(), Now: s.clock.Now, Rand: newRand(seed)}
	node, err := authority.NewNodeKeys(out.env.Rand)
	if err != nil {
		t.Fatal(err)
	}
	var manifests [][]byte
	if !observer {
		manifests, err = s.Enroll(ctx, EnrollOptions{Owner: s.owner, Node: node.Public(), Name: fmt.Sprint("node ", seed)})
		if err != nil {
			t.Fatal("enroll:", err)
		}
	}
	genesis, err := s.GenesisBytes()
	if err != nil {
		t.Fatal(err)
	}
	if err := Join(ctx, out.dir, JoinOptions{Environment: out.env, Node: node, Genesis: genesis, Manifests: manifests}); err != nil {
		t.Fatal("join:", err)
	}
	out.open()
	return out
}

// exported returns the events of every own feed of a store in a zone and plane.
func exported(t testing.TB, s *testStore, zone fcp.ZoneID) (out [][]fcp.Event) {
	t.Helper()
	for _, f := range s.Log().Feeds() {
		if !f.Own || f.Feed.Zone != zone || !f.Feed.Plane.Chained() {
			continue
		}
		var events []fcp.Event
		for seq := uint64(1); seq <= f.Seq; seq++ {
			ev, _, err := s.Log().ReadFull(f.No, seq)
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, ev)
		}
		out = append(out, events)
	}
	return out
}

func take(t testing.TB, to *testStore, events []fcp.Event) {
	t.Helper()
	if n, err := to.ImportEvents(context.Background(), events, nil); err != nil || n != len(events) {
		t.Fatalf("import: %d of %d, %v", n, len(events), err)
	}
}

// pull takes everything that from wrote in the zone, with its key table.
func pull(t testing.TB, to, from *testStore, zone fcp.ZoneID) {
	t.Helper()
	if to == from {
		return
	}
	for _, feed := range exported(t, from, zone) {
		no, _ := from.Log().FeedNo(feed[0].Feed)
		salts := make([][log.SaltSize]byte, len(feed))
		for i := range feed {
			var err error
			if salts[i], err = from.Log().Salt(no, feed[i].Seq); err != nil {
				t.Fatal(err)
			}
		}
		if n, err := to.ImportEvents(context.Background(), feed, salts); err != nil || n != len(feed) {
			t.Fatalf("import: %d of %d, %v", n, len(feed), err)
		}
	}
}

// cut appends the owner's revocation of everything above seq of a feed.
func cut(t testing.TB, on *testStore, feed []fcp.Event, seq int) {
	t.Helper()
	c := authority.Cut{Feed: feed[0].Feed, Seq: uint64(seq)}
	if seq > 0 {
		c.Hash = feed[seq-1].Hash()
	}
	body, err := authority.SignRevocation(on.clock.Now(), on.owner, c, "test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := on.AppendSigned(context.Background(), feed[0].Feed.Zone, fcp.KindRevocationIssued, body); err != nil {
		t.Fatal(err)
	}
}

// TestArrivalOrderNeverDecidesAZonesRoot lets three nodes write, exchange parts,
// and be cut, and then gives the same events to observers in random orders with
// repetitions. Every observer must have the same zone root and, for each name,
// the heads that the definition gives: what stands and is replaced by nothing
// that stands.
func TestArrivalOrderNeverDecidesAZonesRoot(t *testing.T) {
	const zone = fcp.ZonePrivate
	rapid.Check(t, func(rt *rapid.T) {
		a := newStore(t, 100)
		defer a.Engine.Close()
		nodes := []*testStore{a, join(t, a, 101, false), join(t, a, 102, false)}
		defer nodes[1].Engine.Close()
		defer nodes[2].Engine.Close()
		ctx := context.Background()
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			n := nodes[rapid.IntRange(0, 2).Draw(rt, "node")]
			key := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "key")
			switch rapid.IntRange(0, 5).Draw(rt, "action") {
			case 0, 1, 2:
				req := PutRequest{Key: key, Bytes: []byte(rapid.StringMatching(`[ab]`).Draw(rt, "body"))}
				if rapid.Bool().Draw(rt, "tagged") {
					req.Idempotency = rapid.SampledFrom([]string{"1", "2"}).Draw(rt, "tag")
				}
				if rapid.IntRange(0, 9).Draw(rt, "large") == 0 {
					req.Bytes = bytes.Repeat(req.Bytes, 2000)
				}
				// A tag that was another name's before is refused.
				if _, err := n.Put(ctx, req); err != nil && (req.Idempotency == "" || !errors.Is(err, fcp.CodeInvalidArgument)) {
					rt.Fatal(err)
				}
			case 3:
				n.Remove(ctx, RemoveRequest{Key: key})
			default:
				pull(t, n, nodes[rapid.IntRange(0, 2).Draw(rt, "from")], zone)
			}
		}
		cuts := drawCuts(rt, t, nodes, zone)
		var feeds [][]fcp.Event
		for _, n := range nodes {
			feeds = append(feeds, exported(t, n, zone)...)
		}
		var roots []fcp.Hash
		for i := range 3 {
			o := join(t, a, 200+uint64(i), true)
			deliver(rt, t, o, feeds)
			if rapid.Bool().Draw(rt, "reopen") {
				o.reopen()
			}
			root, err := o.ZoneRoot(zone)
			if err != nil {
				rt.Fatal(err)
			}
			roots = append(roots, root)
			checkHeads(rt, o, feeds, cuts)
			if _, err := o.Replay(ctx, ReplayOptions{Verify: true}); err != nil {
				rt.Fatal(err)
			}
			o.Engine.Close()
		}
		if roots[0] != roots[1] || roots[1] != roots[2] {
			rt.Fatalf("roots differ: %v", roots)
		}
	})
}

// drawCuts voids the ends of some feeds and returns the lowest cut of each.
func drawCuts(rt *rapid.T, t testing.TB, nodes []*testStore, zone fcp.ZoneID) map[fcp.Feed]uint64 {
	lowest := map[fcp.Feed]uint64{}
	for range rapid.IntRange(0, 3).Draw(rt, "cuts") {
		feeds := exported(t, nodes[rapid.IntRange(1, 2).Draw(rt, "cut node")], zone)
		if len(feeds) == 0 {
			continue
		}
		feed := feeds[rapid.IntRange(0, len(feeds)-1).Draw(rt, "cut feed")]
		seq := rapid.IntRange(0, len(feed)).Draw(rt, "cut at")
		// Revocations may be issued by any member that the owner sits at.
		cut(t, nodes[rapid.IntRange(0, 2).Draw(rt, "issuer")], feed, seq)
		if old, ok := lowest[feed[0].Feed]; !ok || uint64(seq) < old {
			lowest[feed[0].Feed] = uint64(seq)
		}
	}
	return lowest
}

// deliver gives the feeds to o, interleaved at random, with repetitions.
func deliver(rt *rapid.T, t testing.TB, o *testStore, feeds [][]fcp.Event) {
	at := make([]int, len(feeds))
	for {
		var open []int
		for i := range feeds {
			if at[i] < len(feeds[i]) {
				open = append(open, i)
			}
		}
		if len(open) == 0 {
			return
		}
		i := open[rapid.IntRange(0, len(open)-1).Draw(rt, "feed")]
		n := min(rapid.IntRange(1, 6).Draw(rt, "count"), len(feeds[i])-at[i])
		from := max(0, at[i]-rapid.IntRange(0, 2).Draw(rt, "again"))
		take(t, o, feeds[i][from:at[i]+n])
		at[i] += n
	}
}

// checkHeads computes the heads of each name from the definition.
func checkHeads(rt *rapid.T, o *testStore, feeds [][]fcp.Event, cuts map[fcp.Feed]uint64) {
	want := map[string][]string{}
	replaced := map[fcp.Hash]bool{}
	standing := func(fn func(*fcp.Event)) {
		for _, feed := range feeds {
			for i := range feed {
				cut, ok := cuts[feed[i].Feed]
				if feed[i].Kind.Info().Named && !(ok && feed[i].Seq > cut) {
					fn(&feed[i])
				}
			}
		}
	}
	standing(func(e *fcp.Event) {
		for i := range e.Replaces.Len() {
			replaced[e.Replaces.At(i)] = true
		}
	})
	standing(func(e *fcp.Event) {
		if h := e.Hash(); !replaced[h] {
			want[string(e.Key)] = append(want[string(e.Key)], h.String())
		}
	})
	got := map[string][]string{}
	err := o.List(context.Background(), ListRequest{Removed: true}, func(e *Entry) error {
		for i := range e.Heads {
			got[e.Key] = append(got[e.Key], e.Heads[i].Hash.String())
		}
		return nil
	})
	if err != nil {
		rt.Fatal(err)
	}
	for _, m := range []map[string][]string{want, got} {
		for k := range m {
			slices.Sort(m[k])
		}
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		rt.Fatalf("heads are\n%v, by definition\n%v", got, want)
	}
}

// TestAVersionThatArrivesAfterItsSuccessorIsNoHead delivers the newer feed first.
func TestAVersionThatArrivesAfterItsSuccessorIsNoHead(t *testing.T) {
	a := newStore(t, 120)
	b := join(t, a, 121, false)
	defer b.Engine.Close()
	o := join(t, a, 122, true)
	defer o.Engine.Close()
	const zone = fcp.ZonePrivate
	a.put("k", "1")
	a.put("k", "2")
	pull(t, b, a, zone)
	last := b.put("k", "3")
	pull(t, o, b, zone)
	pull(t, o, a, zone)
	e, err := o.Stat(context.Background(), zone, "k", At{})
	if err != nil || len(e.Heads) != 1 || e.Head().Hash != last.Hash {
		t.Fatalf("%+v %v", e, err)
	}
	pull(t, a, b, zone)
	want, err := a.ZoneRoot(zone)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := o.ZoneRoot(zone); err != nil || got != want {
		t.Fatalf("root %s %v, want %s", got, err, want)
	}
}

// TestACutKeepsThePastReadable: before the revocation's position the voided
// version is what it was, behind it the one below the cut is back, and a name
// that has nothing left is listed in the past only.
func TestACutKeepsThePastReadable(t *testing.T) {
	a := newStore(t, 110)
	b := join(t, a, 111, false)
	defer b.Engine.Close()
	const zone = fcp.ZonePrivate
	a.put("k", "honest")
	pull(t, b, a, zone)
	b.put("k", "stolen")
	b.put("only", "stolen")
	pull(t, a, b, zone)
	before := a.Position()
	if got := a.get("k", At{}); got != "stolen" {
		t.Fatalf("before the cut: %q", got)
	}
	var control []fcp.Event
	for _, f := range exported(t, b, zone) {
		if f[0].Feed.Plane == fcp.PlaneControl {
			control = f
		}
	}
	cut(t, a, control, 0)
	check := func() {
		t.Helper()
		if got := a.get("k", At{}); got != "honest" {
			t.Fatalf("after the cut: %q", got)
		}
		if got := a.get("k", At{Position: before}); got != "stolen" {
			t.Fatalf("in the past: %q", got)
		}
		_, err := a.read(GetRequest{Key: "only"})
		wantCode(t, err, fcp.CodeNotFound)
		for at, want := range map[uint64]string{0: "[k]", before: "[k only]"} {
			var names []string
			if err := a.List(context.Background(), ListRequest{At: At{Position: at}}, func(e *Entry) error {
				names = append(names, e.Key)
				return nil
			}); err != nil || fmt.Sprint(names) != want {
				t.Fatalf("list at %d: %v %v", at, names, err)
			}
		}
	}
	check()
	a.reopen()
	check()
	if _, err := a.Replay(context.Background(), ReplayOptions{Verify: true}); err != nil {
		t.Fatal(err)
	}
	// What arrives above the cut later folds as nothing.
	b.put("k", "more")
	pull(t, a, b, zone)
	check()
}

func FuzzNameRecord(f *testing.F) {
	var r nameRecord
	r.since = 9
	r.heads = []head{{hash: fcp.Hash{1}, object: fcp.ObjectID{2}, time: 3, seq: 4, position: 5, generation: 6, size: 7, feed: 8}, {hash: fcp.Hash{2}, tombstone: true}}
	r.replaced = []fcp.Hash{{3}, {4}}
	f.Add(r.appendCanonical(nil), r.appendLocal(nil))
	f.Add([]byte{}, []byte{nameFormat, 0, 0})
	f.Fuzz(func(t *testing.T, canonical, local []byte) {
		var r nameRecord
		if r.decode(state.Value{Canonical: canonical, Local: local}) != nil {
			return
		}
		if !bytes.Equal(r.appendCanonical(nil), canonical) || !bytes.Equal(r.appendLocal(nil), local) {
			t.Fatal("a record has two encodings")
		}
	})
}

func FuzzHistoryEntry(f *testing.F) {
	f.Add(historyKey(nil, []byte("k"), 7), []byte{0})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if name, until, ok := splitHistoryKey(key); ok && !bytes.Equal(historyKey(nil, name, until), key) {
			t.Fatal("a history key has two encodings")
		}
		var r nameRecord
		if r.decodeHistory(state.Value{Local: value}) == nil && len(r.heads) == 0 {
			t.Fatal("a history entry without heads")
		}
	})
}

func FuzzPlace(f *testing.F) {
	p := place{feed: 1, seq: 300, position: 1 << 40, inline: true}
	f.Add(p.appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodePlace(b); err == nil && !bytes.Equal(p.appendTo(nil), b) {
			t.Fatal("a place has two encodings")
		}
	})
}

func FuzzSlotRecord(f *testing.F) {
	f.Add((&slotRecord{slot: 1, version: 2, building: 3, buildVersion: 4}).appendTo(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeSlot(b); err == nil && !bytes.Equal(r.appendTo(nil), b) {
			t.Fatal("a slot record has two encodings")
		}
	})
}

func FuzzChunkManifest(f *testing.F) {
	b, err := fcp.MarshalPayload(fcp.SchemaChunkedManifest, &chunkManifest{TotalLen: fcp.ChunkSize + 1, ChunkSize: fcp.ChunkSize, Chunks: make([]fcp.ObjectID, 2)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeManifest(b)
		if err != nil {
			return
		}
		total := 0
		for i := range m.Chunks {
			total += m.chunkLen(i)
		}
		if uint64(total) != m.TotalLen {
			t.Fatal("the chunks do not add up")
		}
	})
}

func FuzzBlobPayload(f *testing.F) {
	for _, n := range []int{0, 23, 24, 256, 70000} {
		f.Add(append(appendByteStringHead(nil, n), make([]byte, n)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := blobPayload(b)
		if (err == nil) != (len(b) > 0 && b[0]&0xe0 == 0x40 && fcp.Canonical(b) == nil && len(b) < 1<<32) {
			t.Fatalf("blobPayload says %v, the codec %v", err, fcp.Canonical(b))
		}
		if err == nil && !bytes.Equal(append(appendByteStringHead(nil, len(p)), p...), b) {
			t.Fatal("a blob has two encodings")
		}
	})
}

func FuzzGovernanceBodies(f *testing.F) {
	b, err := schemaBody(fcp.SchemaBlob)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	owner, err := authority.NewOwnerKey(newRand(1))
	if err != nil {
		f.Fatal(err)
	}
	node, err := authority.NewNodeKeys(newRand(2))
	if err != nil {
		f.Fatal(err)
	}
	if b, err = authority.SignDevice(newClock().Now(), owner, authority.DeviceSpec{Node: node.Public(), Name: "laptop"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	list := builtins(owner.Public(), new(headMemo))
	f.Fuzz(func(t *testing.T, b []byte) {
		ev := &Event{&log.Applied{Content: fcp.Content{Body: b}}, &Source{Feed: fcp.Feed{Zone: fcp.ZonePrivate}}}
		for _, k := range fcp.Kinds() {
			ev.Content.Kind = k
			for _, p := range list {
				p.Touches(ev, nil) // must not panic
			}
		}
		decodeCheckpoint(b)
	})
}
