package log

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/zeebo/xxh3"

	"fcp"
)

// Every decoder of the package, fed anything: it must not panic, and what it
// accepts must encode back to the same bytes.

// sampleBlock is a valid block of a few events.
func sampleBlock(plane fcp.Plane) []byte {
	h := blockHeader{first: 5, count: 3, chained: plane.Chained(), under: fcp.Hash{2}, time: 1 << 40}
	if h.chained {
		h.prev = fcp.Hash{1}
	}
	b := h.appendTo(nil)
	for i := range 3 {
		c := opaque(1+i*50, byte(i))
		step := uint64(i * 300)
		b = appendRecord(b, step, c.AppendTo(nil))
	}
	return b
}

// sampleSparse is a block that lacks its second event of three.
func sampleSparse() []byte {
	h := blockHeader{first: 5, count: 3, chained: true, sparse: true, prev: fcp.Hash{1}, under: fcp.Hash{2}, time: 1 << 40}
	c := opaque(20, 1)
	b := appendRecord(h.appendTo(nil), 0, c.AppendTo(nil))
	b = append(appendRecord(b, 300, nil), make([]byte, fcp.HashSize)...)
	return appendRecord(b, 5, c.AppendTo(nil))
}

// naiveEvent is one event of a block as the naive decoder sees it.
type naiveEvent struct {
	seq, time uint64
	content   []byte   // nil: dropped
	hash      fcp.Hash // of a dropped event
}

// naiveBlock decodes a block slowly and in another way than the package: byte by
// byte, by the layout in docs/format.md.
func naiveBlock(b []byte) (first uint64, chained bool, prev, under fcp.Hash, out []naiveEvent, err error) {
	r := bytes.NewReader(b)
	fail := func(what string) {
		if err == nil {
			err = fmt.Errorf("%s", what)
		}
	}
	octet := func() byte {
		c, e := r.ReadByte()
		if e != nil {
			fail("short")
		}
		return c
	}
	number := func() uint64 {
		before := r.Len()
		v, e := binary.ReadUvarint(r)
		if e != nil {
			fail("number")
		} else if before-r.Len() != len(binary.AppendUvarint(nil, v)) {
			fail("overlong number")
		}
		return v
	}
	hash := func() (h fcp.Hash) {
		for i := range h {
			h[i] = octet()
		}
		return h
	}
	version := octet()
	if len(b) > maxBlockBytes || version != 1 && version != 2 {
		fail("version")
	}
	flags := octet()
	if flags > 1 || version == 2 && flags != 1 {
		fail("flags")
	}
	chained = flags == 1
	lacks := false
	first = number()
	count := number()
	if chained {
		prev = hash()
	}
	under = hash()
	t := number()
	if first == 0 || count == 0 || count > maxBlockCount {
		fail("counts")
	}
	for i := uint64(0); i < count && err == nil; i++ {
		step, size := number(), number()
		if (step == 0) != (i == 0) || t+step < t {
			fail("step")
		}
		t += step
		if size > uint64(r.Len()) {
			fail("length")
		}
		if err != nil {
			break
		}
		if version == 2 && size == 0 {
			h := hash()
			out = append(out, naiveEvent{first + i, t, nil, h})
			lacks = true
			continue
		}
		content := make([]byte, size)
		_, _ = r.Read(content)
		var c fcp.Content
		if e := fcp.DecodeContent(content, &c); e != nil {
			fail("content")
		}
		out = append(out, naiveEvent{first + i, t, content, fcp.Hash{}})
	}
	if r.Len() != 0 {
		fail("more")
	}
	if lacks != (version == 2) {
		fail("a version for nothing")
	}
	return first, chained, prev, under, out, err
}

func FuzzBlock(f *testing.F) {
	f.Add(sampleBlock(fcp.PlaneData))
	f.Add(sampleBlock(fcp.PlaneLocal))
	f.Add(sampleSparse())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		id := fcp.FeedID{3}
		events, h, last, err := decodeBlock(nil, 7, &id, bytes.Clone(b), VerifyChain)
		first, chained, prev, under, want, naiveErr := naiveBlock(b)
		if (err == nil) != (naiveErr == nil) {
			t.Fatalf("the decoder says %v, the naive one %v", err, naiveErr)
		}
		if err != nil {
			return
		}
		if h.first != first || h.chained != chained || h.prev != prev || h.under != under || len(events) != len(want) || h.count != len(want) {
			t.Fatalf("header %+v of %d events", h, len(want))
		}
		hash := prev
		again := h.appendTo(nil)
		before := h.time
		for i := range events {
			e := &events[i]
			if want[i].content == nil {
				hash = want[i].hash
				if !e.Dropped() || e.Hash != hash || e.Seq != want[i].seq || uint64(e.Time) != want[i].time {
					t.Fatalf("dropped event %d: %+v", i, e)
				}
				again = append(appendRecord(again, uint64(e.Time-before), nil), hash[:]...)
				before = e.Time
				continue
			}
			if e.Seq != want[i].seq || uint64(e.Time) != want[i].time || !bytes.Equal(e.Content.AppendTo(nil), want[i].content) || e.Under != under || e.Feed != 7 {
				t.Fatalf("event %d: %+v", i, e)
			}
			if chained {
				hash = fcp.EventHash(fcp.ScopeHash(id, under), e.Seq, e.Time, hash, fcp.ContentHash(want[i].content))
			}
			if e.Hash != hash && chained {
				t.Fatalf("event %d has another hash", i)
			}
			again = appendRecord(again, uint64(e.Time-before), want[i].content)
			before = e.Time
		}
		if chained && last != hash || !bytes.Equal(again, b) {
			t.Fatal("the block does not encode back to the same bytes")
		}
		plain, _, _, err := decodeBlock(nil, 7, &id, b, VerifyNone)
		if err != nil || len(plain) != len(events) {
			t.Fatalf("without hashing: %v", err)
		}
	})
}

func FuzzHead(f *testing.F) {
	h := head{seq: 5, time: 99, hash: fcp.Hash{1}, tree: tree{size: 5, roots: []fcp.Hash{{2}, {3}}}}
	f.Add(h.appendTo(nil), true)
	f.Add((&head{seq: 5, time: 99}).appendTo(nil), false)
	f.Fuzz(func(t *testing.T, b []byte, chained bool) {
		h, err := parseHead(b, chained)
		if err == nil && !bytes.Equal(h.appendTo(nil), b) {
			t.Fatalf("%+v does not encode back", h)
		}
		if err == nil && chained {
			h.tree.root()
			h.tree.append(fcp.Hash{}, nil)
		}
	})
}

func FuzzFeedRecord(f *testing.F) {
	f.Add(encodeFeed(fcp.Feed{Zone: fcp.ZoneWork, Writer: testWriter(), Incarnation: 9, Plane: fcp.PlaneData}))
	f.Fuzz(func(t *testing.T, b []byte) {
		feed, err := decodeFeed(b)
		if err == nil && (!bytes.Equal(encodeFeed(feed), b) || !feed.Zone.Valid()) {
			t.Fatalf("%+v does not encode back", feed)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add(key1(keyPosition, 7), positionRange{7, 1, 4, 9}.value(nil))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		p, err := parsePosition(k, v)
		if err == nil && (!bytes.Equal(p.value(nil), v) || !bytes.Equal(key1(k[0], p.position), k)) {
			t.Fatalf("%+v does not encode back", p)
		}
	})
}

func FuzzSealedRow(f *testing.F) {
	ref := sealedRef{first: 3, last: 9, segment: 2, runs: []positionRange{{4, 0, 3, 5}, {20, 0, 8, 2}}}
	f.Add(keyOfSeq(keySealed, 1, 3), ref.value())
	f.Fuzz(func(t *testing.T, k, v []byte) {
		ref, err := parseSealed(k, v)
		if err == nil && !bytes.Equal(ref.value(), v) {
			t.Fatalf("%+v does not encode back", ref)
		}
		positionIn(ref.runs, ref.first)
	})
}

func FuzzHotValue(f *testing.F) {
	f.Add(append(appendRuns(nil, []positionRange{{7, 1, 5, 3}}), sampleBlock(fcp.PlaneData)...))
	f.Fuzz(func(t *testing.T, v []byte) {
		position, block, err := splitHot(v)
		runs, err2 := hotRuns(1, 5, v)
		if err != nil {
			return
		}
		if err2 != nil || len(runs) == 0 || runs[0].position != position {
			t.Fatalf("split at %d, runs %v (%v)", position, runs, err2)
		}
		if !bytes.Equal(append(appendRuns(nil, runs), block...), v) {
			t.Fatal("does not encode back")
		}
	})
}

func FuzzRemainder(f *testing.F) {
	rem, _ := foreignSegment(f)
	b, err := fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &rem)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	rem.Format, rem.Replaces, rem.Ends, rem.Horizon = compactedFormat, append(rem.Segment, rem.Head...), rem.Head, 7
	if b, err = fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &rem); err != nil {
		f.Fatal(err)
	}
	if r, err := DecodeRemainder(b); err != nil || !r.Compacted() {
		f.Fatal(r, err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRemainder(b)
		if err != nil {
			return
		}
		again, err := fcp.MarshalPayload(fcp.SchemaSegmentRemainder, &r)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("does not encode back: %v", err)
		}
		end := 0
		for i := range r.blocks() {
			from, to := r.frameRange(i)
			if from != end || to <= from {
				t.Fatalf("block %d has frames %d to %d", i, from, to)
			}
			end = to
		}
		if end != len(r.Frames) || r.blockOf(r.First) != 0 || r.blockOf(r.Last) != r.blocks()-1 {
			t.Fatal("the blocks do not cover the frames")
		}
	})
}

func FuzzMark(f *testing.F) {
	m := mark{counter: 3, incarnation: 9, position: 100, feeds: []markedFeed{{1, 50, fcp.Hash{1}}}}
	f.Add(m.encode()[:markHeader+2*markEntry])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, ok := decodeMark(b); ok {
			t.Fatal("a mark without a checksum")
		}
		slot := make([]byte, markSlot-4)
		copy(slot, b)
		slot = binary.BigEndian.AppendUint32(slot, crc32.Checksum(slot, castagnoli))
		m, ok := decodeMark(slot)
		if !ok {
			return
		}
		again, ok := decodeMark(m.encode())
		if !ok || fmt.Sprint(again) != fmt.Sprint(m) {
			t.Fatalf("%+v does not encode back", m)
		}
		if newest, found := newestMark(append(slot, make([]byte, markSlot)...)); !found || newest.counter != m.counter {
			t.Fatal("the newest of one is another")
		}
	})
}

func FuzzProofBundle(f *testing.F) {
	f.Add(bundleOf(f, 20, 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := OpenProof(b)
		if err == nil && e.Seq == 0 {
			t.Fatal("a proof of nothing")
		}
	})
}

func FuzzSignedHead(f *testing.F) {
	l, _ := filled(f, newDisk(), sealing(small(), 1<<20), 5, 5)
	h, err := l.TreeHead(1)
	if err != nil {
		f.Fatal(err)
	}
	id, key := l.Feeds()[0].ID, newTestSeal().Public()
	mustClose(f, l)
	f.Add(h.Note)
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := OpenHead(id, b, key); err == nil && (!bytes.Equal(b, h.Note) || got.Size != 5) {
			t.Fatalf("another head passes: %q", b)
		}
	})
}

func FuzzCleanList(f *testing.F) {
	f.Add(encodeClean([]cleanFile{{"a", 1, 2}, {"b/c d", 3, 4}}), false)
	f.Add([]byte("1 0000000000000002 \"a\"\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, wrap bool) {
		if wrap { // give the body a valid frame, so that its parser is reached
			b = append([]byte(cleanHeader), b...)
			b = fmt.Appendf(b, "end %016x\n", xxh3.Hash(b))
		}
		files, err := decodeClean(b)
		if err == nil && !bytes.Equal(encodeClean(files), b) {
			t.Fatalf("%+v does not encode back", files)
		}
	})
}

// TestEveryTruncationOfABlockIsRefused, and every byte changed is either refused
// or means something else.
func TestEveryTruncationOfABlockIsRefused(t *testing.T) {
	id := fcp.FeedID{3}
	good := sampleBlock(fcp.PlaneData)
	_, _, hash, err := decodeBlock(nil, 1, &id, good, VerifyChain)
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		if _, _, _, err := decodeBlock(nil, 1, &id, good[:i], VerifyChain); err == nil {
			t.Fatalf("the first %d bytes pass", i)
		}
		for c := range 256 {
			bad := bytes.Clone(good)
			if bad[i] = byte(c); bad[i] == good[i] {
				continue
			}
			if _, _, h, err := decodeBlock(nil, 1, &id, bad, VerifyChain); err == nil && h == hash {
				t.Fatalf("byte %d changed to %x gives the same hash", i, c)
			}
		}
	}
	if _, _, _, err := decodeBlock(nil, 1, &id, append(bytes.Clone(good), 0), VerifyChain); err == nil {
		t.Fatal("a trailing byte passes")
	}
}
