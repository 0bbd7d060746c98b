package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// A Tail carries events of a data feed that are in no segment yet, encrypted for the
// zone's members, for other nodes to keep until the segment is spread (docs/format.md
// "Tails"). Its plaintext is
//
//	for each event: uvarint length | canonical encoding | salt[16]
//
// in frames as a segment's, under a random key that the zone key wraps. Key and frames
// are bound to feed and range.
type Tail struct {
	Zone        fcp.ZoneID      `cbor:"zone"`
	Writer      fcp.WriterID    `cbor:"writer"`
	Incarnation uint64          `cbor:"incarnation"`
	First       uint64          `cbor:"first"`
	Last        uint64          `cbor:"last"`
	Key         []byte          `cbor:"key"`      // wrapped
	ZoneKey     authority.KeyID `cbor:"zone_key"` // that wraps it
	Objects     []byte          `cbor:"objects"`  // ids of the objects inside, in the order of events, 32 bytes each
	Sealed      []byte          `cbor:"sealed"`
}

// Limits of a Tail.
const (
	MaxTailEvents = 1024
	tailBytes     = 256 << 10 // plaintext at which a tail ends; a larger event is one of its own
	MaxTail       = fcp.MaxBody + 64<<10
	dirTails      = "tails"
	tailSuffix    = ".tail"
)

// Feed returns the feed that the tail is of.
func (t *Tail) Feed() fcp.Feed {
	return fcp.Feed{Zone: t.Zone, Writer: t.Writer, Incarnation: t.Incarnation, Plane: fcp.PlaneData}
}

// Name returns the name of the tail's file.
func (t *Tail) Name() string {
	return fmt.Sprintf("%s-%d-%d%s", t.Feed().ID(), t.First, t.Last, tailSuffix)
}

// Has reports whether an object is inside.
func (t *Tail) Has(id fcp.ObjectID) bool { return t.index(id) >= 0 }

func (t *Tail) index(id fcp.ObjectID) int {
	for i := 0; (i+1)*fcp.HashSize <= len(t.Objects); i++ {
		if fcp.ObjectID(t.Objects[i*fcp.HashSize:(i+1)*fcp.HashSize]) == id {
			return i
		}
	}
	return -1
}

// Ids calls fn for each object inside until it returns false.
func (t *Tail) Ids(fn func(fcp.ObjectID) bool) {
	for i := 0; (i+1)*fcp.HashSize <= len(t.Objects); i++ {
		if !fn(fcp.ObjectID(t.Objects[i*fcp.HashSize : (i+1)*fcp.HashSize])) {
			return
		}
	}
}

// Encode returns the canonical encoding.
func (t *Tail) Encode() ([]byte, error) { return fcp.Marshal(t) }

// DecodeTail decodes a tail strictly.
func DecodeTail(b []byte) (*Tail, error) {
	var t Tail
	if len(b) > MaxTail {
		return nil, fcp.Errorf(fcp.CodeTooLarge, "a tail of %d bytes", len(b))
	}
	if err := fcp.Unmarshal(b, &t); err != nil {
		return nil, err
	}
	if !t.Zone.Valid() || t.First == 0 || t.Last < t.First || t.Last-t.First >= MaxTailEvents ||
		uint64(len(t.Objects)) != (t.Last-t.First+1)*fcp.HashSize || len(t.Key) != authority.WrappedKeySize || len(t.Sealed) == 0 {
		return nil, fcp.Errorf(fcp.CodeMalformed, "a tail with a field out of bounds")
	}
	return &t, nil
}

func (t *Tail) address() []byte {
	id := t.Feed().ID()
	b := append([]byte("FCP2-MESH-TAIL-V1"), id[:]...)
	b = binary.BigEndian.AppendUint64(b, t.First)
	return binary.BigEndian.AppendUint64(b, t.Last)
}

// MakeTail seals events of a data feed of this node, from first on, as many as fit.
func (e *Engine) MakeTail(ctx context.Context, no log.FeedNo, first, last uint64) (*Tail, error) {
	feed := e.log.Feed(no)
	z := e.ring.Load().zones[feed.Zone]
	if z == nil {
		return nil, e.unknownZone(feed.Zone)
	}
	t := &Tail{Zone: feed.Zone, Writer: feed.Writer, Incarnation: feed.Incarnation, First: first}
	var plain []byte
	for seq := first; seq <= last && seq-first < MaxTailEvents; seq++ {
		if ctx.Err() != nil {
			return nil, interrupted(ctx)
		}
		ev, salt, err := e.log.Read(no, seq)
		if err != nil {
			return nil, err
		}
		enc := ev.AppendTo(nil)
		if len(plain) > 0 && len(plain)+len(enc) > tailBytes {
			break
		}
		plain = append(append(binary.AppendUvarint(plain, uint64(len(enc))), enc...), salt[:]...)
		t.Objects = append(t.Objects, ev.Object[:]...)
		t.Last = seq
	}
	return t, e.sealTail(t, plain)
}

// sealTail encrypts the plaintext of a tail under a fresh key.
func (e *Engine) sealTail(t *Tail, plain []byte) error {
	z := e.ring.Load().zones[t.Zone]
	if z == nil {
		return e.unknownZone(t.Zone)
	}
	key, err := authority.NewSegmentKey(e.env.Rand)
	if err != nil {
		return err
	}
	defer key.Wipe()
	keys := z.current()
	wrapped, err := keys.WrapSegmentKey(e.env.Rand, key, t.address())
	if err != nil {
		return err
	}
	c, err := key.Cipher(t.address())
	if err != nil {
		return err
	}
	t.Key, t.ZoneKey = wrapped[:], keys.IDs().Zone
	for i := uint32(0); len(plain) > 0; i++ {
		n := min(len(plain), fcp.SegmentFrame)
		t.Sealed = c.SealFrame(t.Sealed, plain[:n], i, n == len(plain))
		plain = plain[n:]
	}
	return nil
}

// openTail returns the plaintext of a tail. CodeNotEnough when its zone key is not here.
func (e *Engine) openTail(t *Tail) ([]byte, error) {
	keys := e.ring.Load().byID[t.ZoneKey]
	if keys == nil {
		return nil, fcp.Errorf(fcp.CodeNotEnough, "the zone key of a tail is not here")
	}
	key, err := keys.UnwrapSegmentKey(t.Key, t.address())
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeCorrupt, err, "the key of a tail")
	}
	defer key.Wipe()
	c, err := key.Cipher(t.address())
	if err != nil {
		return nil, err
	}
	const frame = fcp.SegmentFrame + authority.TagSize
	var plain []byte
	for i, rest := uint32(0), t.Sealed; len(rest) > 0; i++ {
		n := min(len(rest), frame)
		if plain, err = c.OpenFrame(plain, rest[:n], i, n == len(rest)); err != nil {
			return nil, fcp.Wrap(fcp.CodeCorrupt, err, "a tail")
		}
		rest = rest[n:]
	}
	return plain, nil
}

// eachInTail calls fn with each event of a tail's plaintext and its salt, until it
// returns false. CodeCorrupt when the plaintext ends before.
func eachInTail(plain []byte, fn func(i int, event, salt []byte) (more bool)) error {
	for i := 0; ; i++ {
		n, w := binary.Uvarint(plain)
		if w <= 0 || n > uint64(len(plain)-w) || uint64(len(plain)-w)-n < log.SaltSize {
			return fcp.Errorf(fcp.CodeCorrupt, "a tail ends early")
		}
		event, rest := plain[w:w+int(n)], plain[w+int(n):]
		if !fn(i, event, rest[:log.SaltSize]) {
			return nil
		}
		plain = rest[log.SaltSize:]
	}
}

// OpenTail returns an object's event out of a tail. The caller verifies the object's
// id, as with every body.
func (e *Engine) OpenTail(t *Tail, id fcp.ObjectID) (ev fcp.Event, salt [log.SaltSize]byte, err error) {
	at := t.index(id)
	if at < 0 {
		return ev, salt, fcp.Errorf(fcp.CodeNotEnough, "object %s is not in the tail", id)
	}
	plain, err := e.openTail(t)
	if err != nil {
		return ev, salt, err
	}
	var enc []byte
	err = eachInTail(plain, func(i int, event, s []byte) bool {
		if i == at {
			enc = bytes.Clone(event)
			copy(salt[:], s)
		}
		return i < at
	})
	if err != nil {
		return ev, salt, err
	}
	ev, err = fcp.DecodeEvent(enc)
	if err == nil && ev.Object != id {
		err = fcp.Errorf(fcp.CodeCorrupt, "a tail holds another object than it names")
	}
	if e.forgets().covers(t.Feed(), t.First+uint64(at), id) {
		salt = log.ForgottenSalt
	}
	return ev, salt, err
}

// KeepTail keeps a tail for another node. When it returns nil the tail is on disk,
// without the keys of what the owner ordered to be forgotten. CodeNotEnough, and nothing
// is kept, when there are such keys in it and it cannot be opened here.
func (e *Engine) KeepTail(t *Tail) error {
	dir := e.env.FS.PathJoin(e.dir, dirTails)
	if err := makeDir(e.env.FS, dir); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "make the directory of tails")
	}
	for {
		known := e.forgotten.Load()
		kept, err := e.maskTail(e.forgets(), t)
		if err != nil {
			return err
		}
		b, err := kept.Encode()
		if err != nil {
			return err
		}
		if err := writeFile(e.env.FS, dir, t.Name(), b); err != nil || e.forgotten.Load() == known {
			return err
		}
	}
}

// Tails calls fn for each tail kept, in the order of their names. One that does not
// decode is passed over.
func (e *Engine) Tails(fn func(*Tail) error) error {
	names, err := e.env.FS.List(e.env.FS.PathJoin(e.dir, dirTails))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "list the tails")
	}
	slices.Sort(names)
	for _, name := range names {
		if !strings.HasSuffix(name, tailSuffix) {
			continue
		}
		t, err := e.ReadTail(name)
		if err != nil {
			e.env.Logger.Warn("a tail is not counted", "file", name, "err", err)
			continue
		}
		if err := fn(t); err != nil {
			return err
		}
	}
	return nil
}

// ReadTail returns a tail that is kept, by the name of its file.
func (e *Engine) ReadTail(name string) (*Tail, error) {
	b, err := readFile(e.env.FS, e.env.FS.PathJoin(e.dir, dirTails, name), MaxTail)
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeDisk, err, "read %s", name)
	}
	t, err := DecodeTail(b)
	if err == nil && t.Name() != name {
		err = fcp.Errorf(fcp.CodeCorrupt, "%s is another tail", name)
	}
	return t, err
}

// DropTail forgets a tail, if it is there.
func (e *Engine) DropTail(name string) error {
	dir := e.env.FS.PathJoin(e.dir, dirTails)
	err := e.env.FS.Remove(e.env.FS.PathJoin(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fcp.Wrap(fcp.CodeDisk, errors.Join(err, syncDir(e.env.FS, dir)), "drop a tail")
}

// SegmentOf returns the segment that carries an object, if a member told of one; nil
// otherwise.
func (e *Engine) SegmentOf(zone fcp.ZoneID, id fcp.ObjectID) (*log.Remainder, error) {
	found, err := e.findForeign(zone, id)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0].rem, nil
}

// TailFetcher brings the event of an object that is in no segment yet, from whoever
// keeps it for its writer. CodeNotEnough when nobody is there who does.
type TailFetcher func(ctx context.Context, zone fcp.ZoneID, id fcp.ObjectID) (fcp.Event, [log.SaltSize]byte, error)

// SetTailFetcher tells the engine where such objects come from; nil: nowhere.
func (e *Engine) SetTailFetcher(f TailFetcher) { e.mesh.tails.Store(&f) }

// fromTail returns an object's event from another node's tail.
func (e *Engine) fromTail(ctx context.Context, zone fcp.ZoneID, id fcp.ObjectID, missing error) (fcp.Event, [log.SaltSize]byte, error) {
	f := e.mesh.tails.Load()
	if f == nil || *f == nil {
		return fcp.Event{}, [log.SaltSize]byte{}, missing
	}
	ev, salt, err := (*f)(ctx, zone, id)
	if errors.Is(err, fcp.CodeNotEnough) {
		err = missing
	}
	return ev, salt, err
}
