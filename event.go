package fcp

import (
	"crypto/sha256"
	"encoding/binary"
	"unicode/utf8"

	"github.com/zeebo/blake3"

	"fcp/internal/sha256lanes"
)

// Plane separates what replicates to every member (control), what travels as
// symbols (data) and what never leaves this node (local).
type Plane uint8

// The three planes.
const (
	PlaneControl Plane = 1
	PlaneData    Plane = 2
	PlaneLocal   Plane = 3
)

// String returns "control", "data" or "local".
func (p Plane) String() string {
	switch p {
	case PlaneControl:
		return "control"
	case PlaneData:
		return "data"
	case PlaneLocal:
		return "local"
	}
	return "unknown"
}

// Chained reports whether feeds of the plane carry a hash chain and a Merkle
// tree. The local plane has neither.
func (p Plane) Chained() bool { return p == PlaneControl || p == PlaneData }

// Feed identifies one sequence of events: what one writer, in one incarnation,
// wrote to one plane of one zone. Sequence numbers start at 1. A restored or
// cloned writer starts a new incarnation and so never contradicts its own past.
type Feed struct {
	Zone        ZoneID
	Writer      WriterID
	Incarnation uint64
	Plane       Plane
}

// ID returns SHA-256 over "FCP2-FEED-V1" and the feed's fields
// (docs/format.md "Feed id").
func (f Feed) ID() FeedID {
	b := make([]byte, 0, 128)
	b = append(b, "FCP2-FEED-V1"...)
	b = append(b, byte(len(f.Zone)))
	b = append(b, f.Zone...)
	b = append(b, f.Writer[:]...)
	b = binary.BigEndian.AppendUint64(b, f.Incarnation)
	b = append(b, byte(f.Plane))
	return FeedID(sha256.Sum256(b))
}

// Content is what a writer decides about an event before the log gives it a
// place. Its canonical encoding is docs/format.md "Event content". Slices of a
// decoded Content alias the input.
type Content struct {
	Kind        Kind
	Key         []byte   // the name, UTF-8, at most MaxKey bytes; nil when the kind has none
	Object      ObjectID // zero when the kind has none
	Replaces    HashList // heads this version replaces, ascending
	Generation  uint64   // 1 + the highest generation it replaces; 0 when the kind has no name
	Size        uint64   // bytes of the object's payload, before encryption; 0 is left out
	Idempotency []byte   // IdempotencySize bytes, or nil
	Body        []byte   // ciphertext, or clear canonical CBOR where the kind says so
}

// IdempotencySize is the length of an event's idempotency tag: a truncated hash
// of the key that the caller gave.
const IdempotencySize = 16

// The map keys of an encoded Content.
const (
	fieldKind = 1 + iota
	fieldKey
	fieldObject
	fieldReplaces
	fieldGeneration
	fieldSize
	fieldIdempotency
	fieldBody
	fieldEnd
)

// HashList is a list of hashes in its encoded form (n times 0x58 0x20 and 32
// bytes), so that decoding needs no allocation.
type HashList []byte

const hashItem = 2 + HashSize

// Len returns the number of hashes.
func (l HashList) Len() int { return len(l) / hashItem }

// At returns hash i.
func (l HashList) At(i int) Hash { return Hash(l[i*hashItem+2 : (i+1)*hashItem]) }

// Append returns the list with h at its end. A valid list is strictly ascending.
func (l HashList) Append(h Hash) HashList {
	return append(append(l, 0x58, HashSize), h[:]...)
}

// Contains reports whether h is in the list.
func (l HashList) Contains(h Hash) bool {
	for i := range l.Len() {
		if l.At(i) == h {
			return true
		}
	}
	return false
}

// EncodedSize returns an upper bound on the bytes AppendTo adds.
func (c *Content) EncodedSize() int {
	return 64 + len(c.Key) + len(c.Replaces) + len(c.Body) + 2*HashSize
}

// AppendTo appends the canonical encoding. It does not validate; see Validate.
func (c *Content) AppendTo(b []byte) []byte {
	return append(c.AppendHead(b, len(c.Body)), c.Body...)
}

// AppendHead appends the canonical encoding up to the body, which is its last
// field and is to follow: body bytes, whatever Body is.
func (c *Content) AppendHead(b []byte, body int) []byte {
	start := len(b)
	b = append(b, 0xa0, fieldKind)
	n := byte(1)
	b = appendHead(b, majorText, uint64(len(c.Kind.String())))
	b = append(b, c.Kind.String()...)
	if len(c.Key) > 0 {
		b = append(b, fieldKey)
		b = appendHead(b, majorText, uint64(len(c.Key)))
		b = append(b, c.Key...)
		n++
	}
	if !c.Object.IsZero() {
		b = append(b, fieldObject, 0x58, HashSize)
		b = append(b, c.Object[:]...)
		n++
	}
	if len(c.Replaces) > 0 {
		b = append(b, fieldReplaces)
		b = appendHead(b, majorArray, uint64(c.Replaces.Len()))
		b = append(b, c.Replaces...)
		n++
	}
	if c.Generation > 0 {
		b = append(b, fieldGeneration)
		b = appendHead(b, majorUint, c.Generation)
		n++
	}
	if c.Size > 0 {
		b = append(b, fieldSize)
		b = appendHead(b, majorUint, c.Size)
		n++
	}
	if len(c.Idempotency) > 0 {
		b = append(b, fieldIdempotency)
		b = appendHead(b, majorBytes, uint64(len(c.Idempotency)))
		b = append(b, c.Idempotency...)
		n++
	}
	if body > 0 {
		b = append(b, fieldBody)
		b = appendHead(b, majorBytes, uint64(body))
		n++
	}
	b[start] |= n
	return b
}

// Validate checks the limits of the kind table. A decoded Content is valid.
func (c *Content) Validate(p Plane) error {
	if c.Kind == KindNone || c.Kind >= kindCount {
		return Errorf(CodeUnknownKind, "kind number %d", c.Kind)
	}
	info := &kinds[c.Kind]
	switch {
	case !info.Planes.Has(p):
		return Errorf(CodeWrongPlane, "%s on the %s plane", info.Name, p)
	case len(c.Body) > info.MaxBody:
		return Errorf(CodeTooLarge, "the body of %s has %d bytes, the limit is %d", info.Name, len(c.Body), info.MaxBody)
	case len(c.Key) > MaxKey:
		return Errorf(CodeTooLarge, "the key has %d bytes, the limit is %d", len(c.Key), MaxKey)
	case len(c.Key) > 0 && !utf8.Valid(c.Key):
		return Errorf(CodeInvalidArgument, "the key is not UTF-8")
	case info.Named && (len(c.Key) == 0 || c.Generation == 0):
		return Errorf(CodeMissingField, "%s needs a key and a generation", info.Name)
	case c.Replaces.Len() > MaxReplaces:
		return Errorf(CodeTooLarge, "%d replaced versions, the limit is %d", c.Replaces.Len(), MaxReplaces)
	case len(c.Idempotency) != 0 && len(c.Idempotency) != IdempotencySize:
		return Errorf(CodeInvalidArgument, "an idempotency tag has %d bytes", IdempotencySize)
	}
	for i := 1; i < c.Replaces.Len(); i++ {
		a, b := c.Replaces.At(i-1), c.Replaces.At(i)
		if string(a[:]) >= string(b[:]) {
			return Errorf(CodeInvalidArgument, "replaced versions are not strictly ascending")
		}
	}
	return nil
}

// ContentPrefix is the purpose string in front of a content when it is hashed.
const ContentPrefix = "FCP-C1"

// LargeContent is the most bytes of a content that is hashed with SHA-256. Beyond
// it BLAKE3 takes half of the time or less, below SHA-256 is as fast or faster.
const LargeContent = 64 << 10

const largeContentPrefix = "FCP-C2"

// ContentHash returns SHA-256 over ContentPrefix and the canonical encoding, or
// BLAKE3 over "FCP-C2" and the encoding when that has more than LargeContent bytes. It
// is the part of an event's hash that does not depend on its place, so that
// writers compute it before the one committer gives the place.
func ContentHash(encoded []byte) Hash {
	if len(encoded) > LargeContent {
		h := hashers.Get().(*blake3.Hasher)
		defer hashers.Put(h)
		h.Reset()
		h.WriteString(largeContentPrefix)
		h.Write(encoded)
		var out Hash
		h.Sum(out[:0])
		return out
	}
	// Go clears a buffer on the stack before it is filled, so a small one for small
	// contents saves a few percent of a verifying scan.
	switch n := len(ContentPrefix) + len(encoded); {
	case n <= 384:
		var buf [384]byte
		copy(buf[copy(buf[:], ContentPrefix):], encoded)
		return sha256.Sum256(buf[:n])
	case n <= 1024:
		var buf [1024]byte
		copy(buf[copy(buf[:], ContentPrefix):], encoded)
		return sha256.Sum256(buf[:n])
	}
	h := sha256.New()
	h.Write([]byte(ContentPrefix))
	h.Write(encoded)
	var out Hash
	h.Sum(out[:0])
	return out
}

// ContentHashOf is ContentHash for a caller that has the encoding behind
// ContentPrefix already: small ones need no copy then.
func ContentHashOf(prefixed []byte) Hash {
	if encoded := prefixed[len(ContentPrefix):]; len(encoded) > LargeContent {
		return ContentHash(encoded)
	}
	return sha256.Sum256(prefixed)
}

// ContentHasher computes the ContentHash of many contents, small ones side by side where
// the processor can. The zero value is ready for use. Not safe for concurrent use.
type ContentHasher struct{ queue sha256lanes.Queue }

// Add will set out to the ContentHash of encoded when Flush returns or earlier.
func (h *ContentHasher) Add(out *Hash, encoded []byte) {
	if len(encoded) > sha256lanes.MaxQueued-len(ContentPrefix) {
		*out = ContentHash(encoded)
		return
	}
	h.queue.Add((*[HashSize]byte)(out), ContentPrefix, encoded)
}

// Flush sets what Add promised.
func (h *ContentHasher) Flush() { h.queue.Flush() }

// ScopeHash returns SHA-256 over "FCP-P1", the feed id and the checkpoint that an
// event is authorised under. It is computed once per feed and checkpoint and
// enters every event's hash, so that an event is valid in one feed only.
func ScopeHash(feed FeedID, under Hash) Hash {
	var buf [6 + 2*HashSize]byte
	copy(buf[:], "FCP-P1")
	copy(buf[6:], feed[:])
	copy(buf[6+HashSize:], under[:])
	return sha256.Sum256(buf[:])
}

// LeafSize is the length of the Merkle leaf data of an event: "FCP-E1", scope
// hash, sequence number, time, previous hash, content hash. With the 0x00 that
// RFC 6962 puts in front, it fills exactly two blocks of SHA-256.
const LeafSize = 6 + HashSize + 8 + 8 + HashSize + HashSize

// AppendLeaf appends the leaf data of an event (docs/format.md "Event hash").
func AppendLeaf(b []byte, scope Hash, seq uint64, t Time, prev, content Hash) []byte {
	b = append(b, "FCP-E1"...)
	b = append(b, scope[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, uint64(t))
	b = append(b, prev[:]...)
	return append(b, content[:]...)
}

// EventHash is the hash of an event and at once its RFC 6962 leaf hash:
// SHA-256(0x00 || leaf data).
func EventHash(scope Hash, seq uint64, t Time, prev, content Hash) Hash {
	var buf [1 + LeafSize]byte
	AppendLeaf(buf[:1], scope, seq, t, prev, content)
	return sha256.Sum256(buf[:])
}

// Event is one appended fact. Its canonical encoding is the six-element array of
// docs/format.md "Event"; stored forms leave out what can be derived.
type Event struct {
	Feed  Feed
	Seq   uint64 // from 1
	Prev  Hash   // hash of event Seq-1 of the feed; zero for Seq 1 and on the local plane
	Time  Time
	Under Hash // object id of the checkpoint it was authorised under
	Content
}

// Hash returns the event's hash.
func (e *Event) Hash() Hash {
	enc := e.Content.AppendTo(make([]byte, 0, e.Content.EncodedSize()))
	return EventHash(ScopeHash(e.Feed.ID(), e.Under), e.Seq, e.Time, e.Prev, ContentHash(enc))
}

// AppendTo appends the canonical encoding.
func (e *Event) AppendTo(b []byte) []byte {
	b = append(b, 0x86, 0x84)
	b = appendHead(b, majorText, uint64(len(e.Feed.Zone)))
	b = append(b, e.Feed.Zone...)
	b = append(b, 0x58, HashSize)
	b = append(b, e.Feed.Writer[:]...)
	b = appendHead(b, majorUint, e.Feed.Incarnation)
	b = append(b, byte(e.Feed.Plane))
	b = appendHead(b, majorUint, e.Seq)
	b = append(b, 0x58, HashSize)
	b = append(b, e.Prev[:]...)
	b = appendHead(b, majorUint, uint64(e.Time))
	b = append(b, 0x58, HashSize)
	b = append(b, e.Under[:]...)
	return e.Content.AppendTo(b)
}

// DecodeEvent decodes exactly one event. Slices of the result alias b.
func DecodeEvent(b []byte) (Event, error) {
	var e Event
	d := decoder{b: b}
	d.expect(0x86)
	d.expect(0x84)
	zone := d.text(MaxZoneID)
	d.hash((*Hash)(&e.Feed.Writer))
	e.Feed.Incarnation = d.uint()
	e.Feed.Plane = Plane(d.small(uint64(PlaneLocal)))
	e.Seq = d.uint()
	d.hash(&e.Prev)
	e.Time = Time(d.uint())
	d.hash(&e.Under)
	if d.err != nil {
		return Event{}, d.err
	}
	z, err := ParseZoneID(string(zone))
	if err != nil {
		return Event{}, err
	}
	e.Feed.Zone = z
	switch {
	case e.Feed.Plane == 0:
		return Event{}, Errorf(CodeMalformed, "event plane 0")
	case e.Seq == 0:
		return Event{}, Errorf(CodeMalformed, "event sequence number 0")
	case (e.Seq == 1 || !e.Feed.Plane.Chained()) && !e.Prev.IsZero():
		return Event{}, Errorf(CodeMalformed, "the first event of a feed names a previous one")
	}
	if err := DecodeContent(b[d.i:], &e.Content); err != nil {
		return Event{}, err
	}
	if err := e.Content.Validate(e.Feed.Plane); err != nil {
		return Event{}, err
	}
	return e, nil
}

// DecodeContent decodes exactly one content and accepts only its canonical
// encoding. Slices of c alias b. It checks form, not the limits of a plane.
func DecodeContent(b []byte, c *Content) error {
	*c = Content{}
	if len(b) == 0 || b[0] < 0xa1 || b[0] > 0xa0+fieldEnd-1 {
		return errContentHead
	}
	d := decoder{b: b, i: 1}
	last := byte(0)
	for n := b[0] & 0x0f; n > 0 && d.err == nil; n-- {
		if d.i >= len(b) {
			return errTruncated
		}
		f := b[d.i]
		d.i++
		if f <= last || f >= fieldEnd {
			return errFieldOrder
		}
		last = f
		d.field(f, c)
	}
	switch {
	case d.err != nil:
		return d.err
	case d.i != len(b):
		return errTrailing
	case c.Kind == KindNone:
		return errNoKind
	}
	return nil
}

func (d *decoder) field(f byte, c *Content) {
	switch f {
	case fieldKind:
		if c.Kind = kindByName(d.text(MaxKindName)); c.Kind == KindNone && d.err == nil {
			d.err = errKind
		}
	case fieldKey:
		c.Key = d.text(MaxKey)
		if len(c.Key) == 0 {
			d.fail(errEmptyField)
		} else if !utf8.Valid(c.Key) {
			d.fail(errUTF8)
		}
	case fieldObject:
		d.hash((*Hash)(&c.Object))
		if c.Object.IsZero() {
			d.fail(errEmptyField)
		}
	case fieldReplaces:
		c.Replaces = d.hashList()
	case fieldGeneration:
		if c.Generation = d.uint(); c.Generation == 0 {
			d.fail(errEmptyField)
		}
	case fieldSize:
		if c.Size = d.uint(); c.Size == 0 {
			d.fail(errEmptyField)
		}
	case fieldIdempotency:
		if c.Idempotency = d.bytes(IdempotencySize); len(c.Idempotency) != IdempotencySize {
			d.fail(errEmptyField)
		}
	case fieldBody:
		if c.Body = d.bytes(MaxBody); len(c.Body) == 0 {
			d.fail(errEmptyField)
		}
	}
}
