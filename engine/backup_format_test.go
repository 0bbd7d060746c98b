package engine

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

func testNodeKeys(t testing.TB, seed uint64) *authority.NodeKeys {
	t.Helper()
	n, err := authority.NewNodeKeys(newRand(seed))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func testManifest(t testing.TB) (*backupManifest, []byte) {
	t.Helper()
	n := testNodeKeys(t, 1)
	m := &backupManifest{Format: backupFormat, Store: Format, Seq: 2, Previous: bytes.Repeat([]byte{1}, 32), Created: 1_800_000_000,
		Node: n.Public().Signing, Incarnation: 7, Position: 12, Zones: []backupZone{{fcp.ZonePrivate, fcp.Hash{1}}},
		Events: 12, Segments: 2, Bytes: 300, Index: backupFile{fcp.Hash{2}, indexSize(2)},
		KeyTable: backupKeyTable{Number: 2, Hash: fcp.Hash{3}, Size: 100, Entries: 3}, ZoneKeys: []fcp.Hash{{4}, {5}},
		Tail: []backupTail{{Feed: fcp.FeedID{6}, First: 3, Last: 4, Head: fcp.Hash{7}, Hash: fcp.Hash{8}, Size: 90,
			Key: make([]byte, authority.WrappedKeySize), ZoneKey: authority.KeyID{9}}}}
	b, err := m.sign(n)
	if err != nil {
		t.Fatal(err)
	}
	return m, b
}

func TestManifestRoundTripAndRefusals(t *testing.T) {
	m, b := testManifest(t)
	got, err := decodeBackupManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := fcp.MarshalPayload(schemaBackupManifest, got)
	if err != nil || !bytes.Equal(again, b) || got.Seq != m.Seq || got.Tail[0].Last != 4 {
		t.Errorf("it comes back different: %v", err)
	}
	for i := range b {
		c := bytes.Clone(b)
		c[i] ^= 1 << (i % 8)
		if _, err := decodeBackupManifest(c); err == nil {
			t.Errorf("a flip in byte %d is not found", i)
		}
	}
	n := testNodeKeys(t, 1)
	for what, change := range map[string]func(*backupManifest){
		"number 0":               func(m *backupManifest) { m.Seq = 0 },
		"first with a previous":  func(m *backupManifest) { m.Seq = 1 },
		"short previous":         func(m *backupManifest) { m.Previous = m.Previous[:31] },
		"too many segments":      func(m *backupManifest) { m.Segments = 1 << 40; m.Index.Size = indexSize(1 << 40) },
		"index of another size":  func(m *backupManifest) { m.Index.Size++ },
		"key table of later":     func(m *backupManifest) { m.KeyTable.Number = 3 },
		"zones not ascending":    func(m *backupManifest) { m.Zones = append(m.Zones, m.Zones[0]) },
		"zone keys out of order": func(m *backupManifest) { m.ZoneKeys = []fcp.Hash{{5}, {4}} },
		"tails that overlap": func(m *backupManifest) {
			o := m.Tail[0]
			o.First = 4
			m.Tail = append(m.Tail, o)
		},
		"tail without events": func(m *backupManifest) { m.Tail[0].Last = 2 },
		"endless tail":        func(m *backupManifest) { m.Tail[0].Last = 1 << 62 },
		"huge tail file":      func(m *backupManifest) { m.Tail[0].Size = 1 << 40 },
		"short tail key":      func(m *backupManifest) { m.Tail[0].Key = m.Tail[0].Key[:10] },
	} {
		m, _ := testManifest(t)
		change(m)
		if _, err := m.sign(n); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	v, _ := testManifest(t)
	v.Format = 2
	if _, err := v.sign(n); err == nil {
		t.Error("another format is signed")
	}
}

func TestIndexRefusals(t *testing.T) {
	list := []indexed{{id: fcp.SegmentID{1}, size: 5}, {id: fcp.SegmentID{2}, size: fcp.MaxSegment}}
	b := encodeIndex(list)
	got, err := decodeIndex(b)
	if err != nil || !slices.Equal(got, list) {
		t.Fatalf("%v %v", got, err)
	}
	for what, bad := range map[string][]byte{
		"empty": nil, "short": b[:len(b)-1], "other magic": append([]byte("X"), b[1:]...),
		"descending":  encodeIndex([]indexed{list[1], list[0]}),
		"twice":       encodeIndex([]indexed{list[0], list[0]}),
		"no bytes":    encodeIndex([]indexed{{id: fcp.SegmentID{1}}}),
		"over a size": encodeIndex([]indexed{{id: fcp.SegmentID{1}, size: fcp.MaxSegment + 1}}),
	} {
		if _, err := decodeIndex(bad); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

type saltOf struct {
	feed fcp.FeedID
	seq  uint64
	salt [log.SaltSize]byte
}

func saltTable(t testing.TB, runs []saltRun) []byte {
	t.Helper()
	var b bytes.Buffer
	k := newKeyTableWriter(&b)
	for _, r := range runs {
		if err := k.add(r.feed, r.first, r.salts); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.finish(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func spreadSalts(run saltRun, out *[]saltOf) {
	for i := 0; i < len(run.salts); i += log.SaltSize {
		s := saltOf{run.feed, run.first + uint64(i/log.SaltSize), [log.SaltSize]byte(run.salts[i:])}
		if s.salt != [log.SaltSize]byte{} {
			*out = append(*out, s)
		}
	}
}

func TestKeyTableKeepsEverySaltAndJoinsRuns(t *testing.T) {
	a, c := fcp.FeedID{1}, fcp.FeedID{2}
	zero := make([]byte, log.SaltSize)
	runs := []saltRun{
		{a, 1, noise(1, 16*3)}, {a, 4, noise(2, 16)}, {a, 6, append(noise(3, 16), zero...)}, {a, 9, noise(4, 16*3000)},
		{a, 90_000, zero}, {a, 100_000, noise(5, 16)}, {c, 5, noise(6, 16)}, {c, 5 + maxSaltGap + 2, noise(7, 16)},
	}
	var want, got []saltOf
	for _, r := range runs {
		spreadSalts(r, &want)
	}
	b := saltTable(t, runs)
	n, blocks := 0, 0
	entries, err := readKeyTable(bytes.NewReader(b), func(r saltRun) error {
		blocks++
		n += len(r.salts) / log.SaltSize
		spreadSalts(r, &got)
		return nil
	})
	if err != nil || entries != uint64(len(want)) || !slices.Equal(got, want) {
		t.Errorf("%d of %d salts come back, %v", len(got), len(want), err)
	}
	if blocks > 7 || n > len(want)+maxSaltGap {
		t.Errorf("%d runs of %d salts", blocks, n)
	}
	for i := range b {
		if i > 200 && i < len(b)-200 && i%61 != 0 {
			continue
		}
		c := bytes.Clone(b)
		c[i] ^= 1 << (i % 8)
		if _, err := readKeyTable(bytes.NewReader(c), nil); err == nil {
			t.Errorf("a flip in byte %d is not found", i)
		}
	}
	for _, n := range []int{0, 7, 8, 60, len(b) - 33, len(b) - 1} {
		if _, err := readKeyTable(bytes.NewReader(b[:n]), nil); err == nil {
			t.Errorf("%d bytes of it are accepted", n)
		}
	}
	if _, err := readKeyTable(bytes.NewReader(append(bytes.Clone(b), 0)), nil); err == nil {
		t.Error("a byte more is accepted")
	}
	if entries, err := readKeyTable(bytes.NewReader(saltTable(t, nil)), nil); err != nil || entries != 0 {
		t.Errorf("an empty table: %d %v", entries, err)
	}
}

func testTail(t testing.TB) (*backupTail, *keyring, []byte) {
	t.Helper()
	keys, err := authority.NewZoneKeys(newRand(3), fcp.ZonePrivate)
	if err != nil {
		t.Fatal(err)
	}
	feed := fcp.Feed{Zone: fcp.ZonePrivate, Writer: fcp.WriterID{1}, Incarnation: 5, Plane: fcp.PlaneControl}
	var plain, scratch []byte
	part := &backupTail{Feed: feed.ID(), First: 3, Last: 5}
	prev := fcp.Hash{8}
	for i := range 3 {
		e := fcp.Event{Feed: feed, Seq: uint64(3 + i), Prev: prev, Time: fcp.Time(1000 + i), Under: fcp.Hash{2},
			Content: fcp.Content{Kind: fcp.KindOpaque, Body: noise(uint64(i), 50_000)}}
		plain, scratch = appendTailEvent(plain, scratch, &e)
		prev = e.Hash()
	}
	part.Head = prev
	sealed, err := sealTail(newRand(4), keys, part, plain)
	if err != nil {
		t.Fatal(err)
	}
	return part, &keyring{byID: map[authority.KeyID]*authority.ZoneKeys{keys.IDs().Zone: keys}}, sealed
}

func TestTailIsBoundToItsPlace(t *testing.T) {
	part, ring, sealed := testTail(t)
	plain, err := openTail(ring, part, sealed)
	if err != nil {
		t.Fatal(err)
	}
	events, err := decodeTail(part, plain)
	if err != nil || len(events) != 3 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	if bytes.Contains(sealed, events[1].Body[:64]) {
		t.Error("a body is readable in the file")
	}
	for what, change := range map[string]func(*backupTail){
		"feed": func(p *backupTail) { p.Feed[0]++ }, "first": func(p *backupTail) { p.First++ }, "last": func(p *backupTail) { p.Last++ },
		"head": func(p *backupTail) { p.Head[0]++ }, "key": func(p *backupTail) { p.Key = bytes.Clone(p.Key); p.Key[20]++ },
	} {
		p := *part
		change(&p)
		if _, err := openTail(ring, &p, sealed); err == nil {
			t.Errorf("it opens with another %s", what)
		}
		if what == "key" {
			continue
		}
		if _, err := decodeTail(&p, plain); err == nil {
			t.Errorf("it decodes with another %s", what)
		}
	}
	const frame = fcp.SegmentFrame + authority.TagSize
	for what, bad := range map[string][]byte{
		"cut at a frame": sealed[:frame], "cut": sealed[:len(sealed)-1], "frames swapped": append(bytes.Clone(sealed[frame:2*frame]), sealed[:frame]...),
		"longer": append(bytes.Clone(sealed), 0), "tag alone": sealed[:10],
	} {
		if _, err := openTail(ring, part, bad); err == nil {
			t.Errorf("%s: it opens", what)
		}
	}
	if _, err := openTail(&keyring{}, part, sealed); fcp.CodeOf(err) != fcp.CodeManifest {
		t.Errorf("without the zone key: %v", err)
	}
}

func FuzzBackupManifest(f *testing.F) {
	_, b := testManifest(f)
	f.Add(b)
	f.Add(b[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeBackupManifest(b)
		if err != nil {
			return
		}
		again, err := fcp.MarshalPayload(schemaBackupManifest, m)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("two forms of one manifest: %v", err)
		}
	})
}

func FuzzBackupIndex(f *testing.F) {
	f.Add(encodeIndex([]indexed{{id: fcp.SegmentID{1}, size: 5}, {id: fcp.SegmentID{2}, size: 9}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if list, err := decodeIndex(b); err == nil && !bytes.Equal(encodeIndex(list), b) {
			t.Error("two forms of one index")
		}
	})
}

func FuzzBackupKeyTable(f *testing.F) {
	b := saltTable(f, []saltRun{{fcp.FeedID{1}, 1, noise(1, 48)}, {fcp.FeedID{2}, 9, noise(2, 16)}})
	f.Add(b, false)
	f.Add(b[:len(b)-fcp.HashSize], true)
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if sum { // so that the checksum does not keep the fuzzer out
			h := fileHash(b)
			b = append(bytes.Clone(b), h[:]...)
		}
		var salts []saltOf
		entries, err := readKeyTable(bytes.NewReader(b), func(r saltRun) error {
			spreadSalts(r, &salts)
			return nil
		})
		if err == nil && entries != uint64(len(salts)) {
			t.Errorf("%d entries, %d salts", entries, len(salts))
		}
	})
}

func FuzzBackupTail(f *testing.F) {
	part, ring, sealed := testTail(f)
	plain, err := openTail(ring, part, sealed)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain, uint64(3), uint64(5))
	f.Add(plain[:binary.MaxVarintLen16], uint64(3), uint64(3))
	f.Fuzz(func(t *testing.T, b []byte, first, last uint64) {
		p := *part
		p.First, p.Last = first, last
		events, err := decodeTail(&p, b)
		if err != nil {
			return
		}
		var again, scratch []byte
		for i := range events {
			again, scratch = appendTailEvent(again, scratch, &events[i])
		}
		if !bytes.Equal(again, b) {
			t.Error("two forms of one tail")
		}
	})
}

func FuzzSegmentBlock(f *testing.F) {
	b := append([]byte{1, 1, 1, 2}, make([]byte, 64)...)
	f.Add(append(b, 5, 0, 1, 'x', 1, 2, 'y', 'z'))
	f.Fuzz(func(t *testing.T, b []byte) {
		contents, ok := blockContents(b)
		n := 0
		for _, c := range contents {
			n += len(c)
		}
		if ok && n > len(b) {
			t.Error("contents longer than the block")
		}
	})
}
