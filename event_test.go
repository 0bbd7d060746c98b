package fcp

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/zeebo/blake3"
	"golang.org/x/mod/sumdb/tlog"
)

func sampleEvent() Event {
	return Event{
		Feed: Feed{Zone: ZoneWork, Writer: WriterID{1, 2}, Incarnation: 1 << 40, Plane: PlaneControl},
		Seq:  300, Prev: Hash{3}, Time: 1 << 50, Under: Hash{4},
		Content: Content{Kind: KindObjectPut, Key: []byte("näme"), Object: ObjectID{5},
			Replaces: HashList(nil).Append(Hash{1}).Append(Hash{2}), Generation: 70000, Size: 24,
			Idempotency: make([]byte, IdempotencySize), Body: bytes.Repeat([]byte{9}, 300)},
	}
}

func randomEvent(rng *rand.Rand) Event {
	num := func() uint64 { return rng.Uint64() >> rng.IntN(64) }
	hash := func() (h Hash) {
		for i := range h {
			h[i] = byte(rng.Uint32())
		}
		return h
	}
	e := Event{Feed: Feed{Zone: []ZoneID{ZoneOwner, ZoneWork, "z:x_y:z-1"}[rng.IntN(3)], Writer: WriterID(hash()), Incarnation: num(), Plane: Plane(1 + rng.IntN(3))},
		Seq: num() + 1, Time: Time(num()), Under: hash()}
	if e.Seq == 0 {
		e.Seq = 2
	}
	if e.Seq > 1 && e.Feed.Plane.Chained() {
		e.Prev = hash()
	}
	e.Content = Content{Kind: KindOpaque, Size: num() * uint64(rng.IntN(2))}
	if e.Feed.Plane == PlaneControl && rng.IntN(2) == 0 {
		e.Kind, e.Generation = KindObjectPut, num()+1
		e.Key = bytes.Repeat([]byte("k"), 1+rng.IntN(300))
	}
	if rng.IntN(2) == 0 {
		e.Object = ObjectID(hash())
	}
	if n := rng.IntN(4); n > 0 {
		for i := range n {
			h := hash()
			h[0] = byte(i)
			e.Replaces = e.Replaces.Append(h)
		}
	}
	if rng.IntN(2) == 0 {
		h := hash()
		e.Idempotency = h[:IdempotencySize]
	}
	if rng.IntN(3) > 0 {
		e.Body = bytes.Repeat([]byte{byte(rng.Uint32())}, 1+rng.IntN(700))
	}
	return e
}

func TestEventRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	events := []Event{sampleEvent()}
	for range 2000 {
		events = append(events, randomEvent(rng))
	}
	for _, e := range events {
		b := e.AppendTo(nil)
		got, err := DecodeEvent(b)
		if err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", e) || !bytes.Equal(got.AppendTo(nil), b) || got.Hash() != e.Hash() {
			t.Fatalf("%+v came back as %+v", e, got)
		}
		if n := len(e.Content.AppendTo(nil)); n > e.Content.EncodedSize() {
			t.Fatalf("the content has %d bytes, announced were %d", n, e.Content.EncodedSize())
		}
		if naive, err := naiveDecode(b); err != nil || !bytes.Equal(naive, b) {
			t.Fatalf("the CBOR library disagrees about %x: %v", b, err)
		}
	}
}

// naiveDecode decodes an event with the general CBOR library, checks its shape
// by the rules of docs/format.md, and encodes it again.
func naiveDecode(b []byte) ([]byte, error) {
	var v any
	if err := Unmarshal(b, &v); err != nil {
		return nil, err
	}
	bad := func(what string) ([]byte, error) { return nil, errors.New(what) }
	a, ok := v.([]any)
	if !ok || len(a) != 6 {
		return bad("array")
	}
	feed, ok := a[0].([]any)
	if !ok || len(feed) != 4 {
		return bad("feed")
	}
	isHash := func(v any) bool { h, ok := v.([]byte); return ok && len(h) == HashSize }
	isUint := func(v any, low, high uint64) bool { n, ok := v.(uint64); return ok && n >= low && n <= high }
	zone, ok := feed[0].(string)
	if !ok || !ZoneID(zone).Valid() || !isHash(feed[1]) || !isUint(feed[2], 0, math.MaxUint64) || !isUint(feed[3], 1, 3) {
		return bad("feed fields")
	}
	if !isUint(a[1], 1, math.MaxUint64) || !isHash(a[2]) || !isUint(a[3], 0, math.MaxUint64) || !isHash(a[4]) {
		return bad("fields")
	}
	plane := Plane(feed[3].(uint64))
	if (a[1].(uint64) == 1 || plane == PlaneLocal) && !bytes.Equal(a[2].([]byte), make([]byte, HashSize)) {
		return bad("prev")
	}
	m, ok := a[5].(map[any]any)
	if !ok {
		return bad("content")
	}
	name, ok := m[uint64(1)].(string)
	if !ok {
		return bad("kind")
	}
	info, named := KindInfo{}, false
	for _, k := range Kinds() {
		if k.String() == name {
			info, named = k.Info(), true
		}
	}
	if !named || !info.Planes.Has(plane) {
		return bad("kind")
	}
	for k, f := range m {
		switch k {
		case uint64(1):
		case uint64(2):
			if s, ok := f.(string); !ok || s == "" || len(s) > MaxKey || !utf8.ValidString(s) {
				return bad("key")
			}
		case uint64(3):
			if !isHash(f) || bytes.Equal(f.([]byte), make([]byte, HashSize)) {
				return bad("object")
			}
		case uint64(4):
			l, ok := f.([]any)
			if !ok || len(l) == 0 || len(l) > MaxReplaces {
				return bad("replaces")
			}
			for i := range l {
				if !isHash(l[i]) || i > 0 && bytes.Compare(l[i-1].([]byte), l[i].([]byte)) >= 0 {
					return bad("replaces order")
				}
			}
		case uint64(5), uint64(6):
			if !isUint(f, 1, math.MaxUint64) {
				return bad("number")
			}
		case uint64(7):
			if s, ok := f.([]byte); !ok || len(s) != IdempotencySize {
				return bad("idempotency")
			}
		case uint64(8):
			if s, ok := f.([]byte); !ok || len(s) == 0 || len(s) > info.MaxBody {
				return bad("body")
			}
		default:
			return bad("field")
		}
	}
	if info.Named && (m[uint64(2)] == nil || m[uint64(5)] == nil) {
		return bad("named")
	}
	return Marshal(v)
}

func FuzzEvent(f *testing.F) {
	s := sampleEvent()
	f.Add(s.AppendTo(nil))
	rng := rand.New(rand.NewPCG(3, 4))
	for range 10 {
		e := randomEvent(rng)
		f.Add(e.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) { compareCodecs(t, b) })
}

// compareCodecs holds the event codec to the general library: both refuse, or
// both give the same bytes back.
func compareCodecs(t *testing.T, b []byte) {
	t.Helper()
	e, err := DecodeEvent(b)
	again, naiveErr := naiveDecode(b)
	if (err == nil) != (naiveErr == nil) {
		t.Fatalf("%x: the codec says %v, the CBOR library %v", b, err, naiveErr)
	}
	if err == nil && (!bytes.Equal(e.AppendTo(nil), b) || !bytes.Equal(again, b)) {
		t.Fatalf("%x does not encode back: %x, %x", b, e.AppendTo(nil), again)
	}
}

func TestEveryTruncationAndMutationOfAnEvent(t *testing.T) {
	s := sampleEvent()
	s.Body = s.Body[:20]
	b := s.AppendTo(nil)
	hash := s.Hash()
	for i := range b {
		if _, err := DecodeEvent(b[:i]); err == nil {
			t.Fatalf("the first %d bytes pass", i)
		}
		for c := range 256 {
			if byte(c) == b[i] {
				continue
			}
			bad := bytes.Clone(b)
			bad[i] = byte(c)
			compareCodecs(t, bad)
			if e, err := DecodeEvent(bad); err == nil && e.Hash() == hash {
				t.Fatalf("byte %d changed to %x keeps the hash", i, c)
			}
		}
	}
	for c := range 256 {
		if _, err := DecodeEvent(append(bytes.Clone(b), byte(c))); err == nil {
			t.Fatal("a trailing byte passes")
		}
	}
}

func TestEventHashIsWhatTheFormatSays(t *testing.T) {
	e := sampleEvent()
	h := sha256.New()
	sum := func(parts ...[]byte) []byte {
		h.Reset()
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	id := sum([]byte("FCP2-FEED-V1"), []byte{byte(len(e.Feed.Zone))}, []byte(e.Feed.Zone), e.Feed.Writer[:],
		binary.BigEndian.AppendUint64(nil, e.Feed.Incarnation), []byte{byte(e.Feed.Plane)})
	if got := e.Feed.ID(); !bytes.Equal(got[:], id) {
		t.Fatal("feed id")
	}
	for _, n := range []int{1, 900, 1100, 5000} { // both sides of the fast path
		e.Body = bytes.Repeat([]byte{7}, n)
		content := sum([]byte("FCP-C1"), e.Content.AppendTo(nil))
		scope := sum([]byte("FCP-P1"), id, e.Under[:])
		leaf := bytes.Join([][]byte{[]byte("FCP-E1"), scope, binary.BigEndian.AppendUint64(nil, e.Seq),
			binary.BigEndian.AppendUint64(nil, uint64(e.Time)), e.Prev[:], content}, nil)
		if len(leaf) != LeafSize {
			t.Fatalf("a leaf has %d bytes", len(leaf))
		}
		if got := e.Hash(); got != Hash(tlog.RecordHash(leaf)) {
			t.Fatalf("hash with a body of %d bytes", n)
		}
	}
}

func TestKindTable(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		name := k.String()
		if name == "" || len(name) > MaxKindName || seen[name] {
			t.Errorf("kind %d is called %q", k, name)
		}
		seen[name] = true
		if got, err := ParseKind(name); err != nil || got != k {
			t.Errorf("%s parses as %d (%v)", name, got, err)
		}
		info := k.Info()
		if info.Planes == 0 || info.MaxBody > MaxBody || info.Clear && info.MaxBody > MaxClearBody {
			t.Errorf("%s: %+v", name, info)
		}
		if info.Schema != "" {
			if id, err := ParseSchemaID(info.Schema); err != nil {
				t.Errorf("%s: schema %s: %v", name, id, err)
			}
		}
		for i := range name {
			if quietKind(name[:i]) != KindNone {
				t.Errorf("%q is a kind", name[:i])
			}
		}
	}
	if len(seen) != int(kindCount)-1 {
		t.Fatalf("%d kinds", len(seen))
	}
	if _, err := ParseKind("unknown"); !errors.Is(err, CodeUnknownKind) {
		t.Fatal(err)
	}
	if kindCount.Info() != (KindInfo{}) || kindCount.String() != "unknown" || KindNone.String() != "unknown" {
		t.Fatal("a kind outside of the table")
	}
}

func quietKind(s string) Kind { return kindByName([]byte(s)) }

func TestContentLimits(t *testing.T) {
	ok := sampleEvent().Content
	if err := ok.Validate(PlaneControl); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Content)
		plane  Plane
		code   Code
	}{
		"no kind":           {func(c *Content) { c.Kind = KindNone }, 1, CodeUnknownKind},
		"kind too high":     {func(c *Content) { c.Kind = kindCount }, 1, CodeUnknownKind},
		"plane":             {func(*Content) {}, 2, CodeWrongPlane},
		"no plane":          {func(*Content) {}, 0, CodeWrongPlane},
		"body":              {func(c *Content) { c.Body = make([]byte, c.Kind.Info().MaxBody+1) }, 1, CodeTooLarge},
		"key":               {func(c *Content) { c.Key = bytes.Repeat([]byte("x"), MaxKey+1) }, 1, CodeTooLarge},
		"key not UTF-8":     {func(c *Content) { c.Key = []byte{0xff} }, 1, CodeInvalidArgument},
		"no key":            {func(c *Content) { c.Key = nil }, 1, CodeMissingField},
		"no generation":     {func(c *Content) { c.Generation = 0 }, 1, CodeMissingField},
		"idempotency":       {func(c *Content) { c.Idempotency = make([]byte, 15) }, 1, CodeInvalidArgument},
		"replaces, order":   {func(c *Content) { c.Replaces = HashList(nil).Append(Hash{2}).Append(Hash{1}) }, 1, CodeInvalidArgument},
		"replaces, twice":   {func(c *Content) { c.Replaces = HashList(nil).Append(Hash{2}).Append(Hash{2}) }, 1, CodeInvalidArgument},
		"replaces too many": {func(c *Content) { c.Replaces = make(HashList, hashItem*(MaxReplaces+1)) }, 1, CodeTooLarge},
	} {
		bad := ok
		c.change(&bad)
		if err := bad.Validate(c.plane); CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClock(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_123)
	c := NewClock(func() time.Time { return now })
	first := c.Reserve(3)
	if first.Milli() != now.UnixMilli() || first.Counter() != 0 || !first.Wall().Equal(now) {
		t.Fatalf("first time %d", first)
	}
	if next := c.Reserve(1); next != first+3 {
		t.Fatalf("%d after three from %d", next, first)
	}
	now = now.Add(-time.Hour) // a clock that goes back does not take times back
	if next := c.Reserve(1); next != first+4 {
		t.Fatalf("%d after the wall clock went back", next)
	}
	now = now.Add(2 * time.Hour)
	if next := c.Reserve(1); next != TimeFromWall(now) {
		t.Fatalf("%d does not follow the wall clock", next)
	}
	ahead := TimeFromWall(now.Add(MaxClockLead))
	if err := c.Observe(ahead + 1); !errors.Is(err, CodeFuture) {
		t.Fatalf("too far ahead: %v", err)
	}
	if next := c.Reserve(1); next > ahead {
		t.Fatal("a refused time dragged the clock")
	}
	if err := c.Observe(ahead); err != nil {
		t.Fatal(err)
	}
	if next := c.Reserve(1); next != ahead+1 {
		t.Fatalf("%d does not follow what was observed", next)
	}
	c.Restore(ahead + 1<<40)
	if next := c.Reserve(2); next != ahead+1<<40+1 {
		t.Fatal("a restored time was given out again")
	}
	if a, b := TimeFromWall(time.Unix(299, 999e6)), TimeFromWall(time.Unix(300, 0)); a.Epoch() != 0 || b.Epoch() != 1 {
		t.Fatal("epochs")
	}
}

func TestClockGivesEachTimeOnce(t *testing.T) {
	c := NewClock(func() time.Time { return time.Unix(1000, 0) })
	var mu sync.Mutex
	seen := map[Time]bool{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				n := 1 + i%3
				first := c.Reserve(n)
				mu.Lock()
				for k := range n {
					if seen[first+Time(k)] {
						t.Error("a time was given out twice")
					}
					seen[first+Time(k)] = true
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func sampleCard(t testing.TB) ([]byte, Card) {
	t.Helper()
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	info := SegmentTransmission(12345)
	c := Card{Format: CardFormat, Segment: SegmentID{1}, Info: info.Bytes(), Source: Hash{2}, Signer: [32]byte(key.Public().(ed25519.PublicKey))}
	signed, err := c.SignedBytes()
	if err != nil {
		t.Fatal(err)
	}
	c.Signature = ed25519.Sign(key, signed)
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b, c
}

func TestCardRefusesEveryFlip(t *testing.T) {
	b, want := sampleCard(t)
	got, err := DecodeCard(b)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%+v, %v", got, err)
	}
	if i, err := got.Transmission(); err != nil || i != SegmentTransmission(12345) || i.Symbols() != 13 {
		t.Fatalf("%+v, %v", i, err)
	}
	for i := range b {
		for bit := range 8 {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << bit
			if _, err := DecodeCard(bad); err == nil {
				t.Fatalf("bit %d of byte %d flipped passes", bit, i)
			}
		}
		if _, err := DecodeCard(b[:i]); err == nil {
			t.Fatalf("the first %d bytes pass", i)
		}
	}
	if _, err := DecodeCard(append(b, 0)); err == nil {
		t.Fatal("a trailing byte passes")
	}
	if _, err := DecodeCard(make([]byte, MaxCard+1)); !errors.Is(err, CodeTooLarge) {
		t.Fatal(err)
	}
}

func FuzzCard(f *testing.F) {
	b, _ := sampleCard(f)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeCard(b); err == nil {
			if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("does not encode back: %v", err)
			}
		}
	})
}

func FuzzTransmissionInfo(f *testing.F) {
	i := SegmentTransmission(99).Bytes()
	f.Add(i[:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if i, err := ParseTransmissionInfo(b); err == nil {
			if again := i.Bytes(); !bytes.Equal(again[:], b) || i.Symbols() < 1 {
				t.Fatalf("%+v does not encode back", i)
			}
		}
	})
}

// TestCommitmentRootIsRFC6962 compares with the transparency log's own tree.
func TestCommitmentRootIsRFC6962(t *testing.T) {
	for n := range 70 {
		commitments := make([]byte, n*CommitmentSize)
		for i := range commitments {
			commitments[i] = byte(i * 7)
		}
		var stored []tlog.Hash
		read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			out := make([]tlog.Hash, len(indexes))
			for i, x := range indexes {
				out[i] = stored[x]
			}
			return out, nil
		})
		for i := range n {
			h, err := tlog.StoredHashes(int64(i), commitments[i*CommitmentSize:(i+1)*CommitmentSize], read)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, h...)
		}
		want, err := tlog.TreeHash(int64(n), read)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			want = sha256.Sum256(nil)
		}
		if got := CommitmentRoot(commitments); got != Hash(want) {
			t.Fatalf("%d commitments", n)
		}
	}
}

func TestSourceCommitments(t *testing.T) {
	ct := bytes.Repeat([]byte{1, 2, 3}, 1000)
	all := SourceCommitments(ct, 1024)
	if len(all) != 3*CommitmentSize {
		t.Fatalf("%d bytes", len(all))
	}
	for i := range 3 {
		want := SymbolCommitment(uint32(i), ct[i*1024:min(len(ct), (i+1)*1024)])
		if !bytes.Equal(all[i*CommitmentSize:(i+1)*CommitmentSize], want[:]) {
			t.Fatalf("symbol %d", i)
		}
	}
}

// TestContentHash pins which function hashes which content.
func TestContentHash(t *testing.T) {
	var many ContentHasher
	for _, n := range []int{0, 1, 378, 379, 1018, 1019, 1265, 1266, LargeContent - 1, LargeContent, LargeContent + 1, 1 << 20} {
		content := bytes.Repeat([]byte{7}, n)
		var sums [5]Hash
		for i := range sums {
			many.Add(&sums[i], content)
		}
		many.Flush()
		want := Hash(sha256.Sum256(append([]byte("FCP-C1"), content...)))
		if n > 65_536 {
			want = blake3.Sum256(append([]byte("FCP-C2"), content...))
		}
		if sums != [5]Hash{want, want, want, want, want} {
			t.Errorf("contents of %d bytes side by side", n)
		}
		if ContentHash(content) != want || ContentHashOf(append([]byte(ContentPrefix), content...)) != want {
			t.Errorf("content of %d bytes", n)
		}
	}
}
