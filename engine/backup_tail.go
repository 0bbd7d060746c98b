package engine

import (
	"encoding/binary"
	"io"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// A tail file holds events of one feed that are in no segment (docs/format.md
// "Backup tail"). Its plaintext is
//
//	for each event: uvarint length | canonical encoding of the event
//
// in frames of 64 KiB, each sealed as the frames of a segment are, under a random
// key that the zone key wraps. Key and frames are bound to feed, range and head.
const (
	tailTarget   = 1 << 20 // plaintext at which a part is closed
	maxTailPlain = tailTarget + fcp.MaxBody + 8<<10
	maxTailFile  = maxTailPlain + (maxTailPlain/fcp.SegmentFrame+1)*authority.TagSize
)

// sealTail encrypts a part and completes its entry but for the hash and size.
func sealTail(rand io.Reader, keys *authority.ZoneKeys, t *backupTail, plain []byte) ([]byte, error) {
	key, err := authority.NewSegmentKey(rand)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	wrapped, err := keys.WrapSegmentKey(rand, key, t.address())
	if err != nil {
		return nil, err
	}
	c, err := key.Cipher(t.address())
	if err != nil {
		return nil, err
	}
	t.Key, t.ZoneKey = wrapped[:], keys.IDs().Zone
	out := make([]byte, 0, len(plain)+(len(plain)/fcp.SegmentFrame+1)*authority.TagSize)
	for i := uint32(0); len(plain) > 0; i++ {
		n := min(len(plain), fcp.SegmentFrame)
		out = c.SealFrame(out, plain[:n], i, n == len(plain))
		plain = plain[n:]
	}
	t.Hash, t.Size = fileHash(out), uint64(len(out))
	return out, nil
}

// openTail decrypts a part.
func openTail(ring *keyring, t *backupTail, sealed []byte) ([]byte, error) {
	keys := ring.byID[t.ZoneKey]
	if keys == nil {
		return nil, fcp.Errorf(fcp.CodeManifest, "%s are encrypted under zone key %s, which is not in the backup", t, t.ZoneKey)
	}
	key, err := keys.UnwrapSegmentKey(t.Key, t.address())
	if err != nil {
		return nil, fcp.Wrap(fcp.CodeCorrupt, err, "%s", t)
	}
	defer key.Wipe()
	c, err := key.Cipher(t.address())
	if err != nil {
		return nil, err
	}
	const frame = fcp.SegmentFrame + authority.TagSize
	plain := make([]byte, 0, len(sealed))
	for i := uint32(0); len(sealed) > 0; i++ {
		n := min(len(sealed), frame)
		if plain, err = c.OpenFrame(plain, sealed[:n], i, n == len(sealed)); err != nil {
			return nil, fcp.Wrap(fcp.CodeCorrupt, err, "%s", t)
		}
		sealed = sealed[n:]
	}
	return plain, nil
}

// appendTailEvent appends an event to a part's plaintext.
func appendTailEvent(b, scratch []byte, e *fcp.Event) (plain, spare []byte) {
	scratch = e.AppendTo(scratch[:0])
	b = binary.AppendUvarint(b, uint64(len(scratch)))
	return append(b, scratch...), scratch
}

// decodeTail decodes a part's plaintext and checks that it is the run of one
// feed that the entry names, chained up to its head.
func decodeTail(t *backupTail, plain []byte) ([]fcp.Event, error) {
	bad := func(what string) error { return fcp.Errorf(fcp.CodeCorrupt, "%s: %s", t, what) }
	if len(plain) > maxTailPlain {
		return nil, bad("too long")
	}
	var out []fcp.Event
	var hash fcp.Hash
	for seq := t.First; len(plain) > 0; seq++ {
		n, w := binary.Uvarint(plain)
		if w <= 0 || w > 1 && plain[w-1] == 0 || n > uint64(len(plain)-w) {
			return nil, bad("an event's length")
		}
		e, err := fcp.DecodeEvent(plain[w : w+int(n)])
		if err != nil {
			return nil, fcp.Wrap(fcp.CodeCorrupt, err, "%s", t)
		}
		plain = plain[w+int(n):]
		switch {
		case e.Seq != seq || seq > t.Last || len(out) > 0 && (e.Feed != out[0].Feed || e.Prev != hash):
			return nil, bad("an event does not continue the one before")
		case len(out) == 0 && (e.Feed.ID() != t.Feed || !e.Feed.Plane.Chained()):
			return nil, bad("events of another feed")
		}
		hash = e.Hash()
		out = append(out, e)
	}
	if uint64(len(out)) != t.Last-t.First+1 || hash != t.Head {
		return nil, bad("it does not end with the head it names")
	}
	return out, nil
}

// sealedIn calls fn with each remainder that a run of a control feed tells of: a
// writer speaks for its own feeds of the same zone, and any writer of the zone for
// segments that it compacted.
func sealedIn(feed fcp.Feed, c *fcp.Content, fn func(log.Remainder) error) error {
	if c.Kind != fcp.KindSegmentSealed {
		return nil
	}
	r, err := log.DecodeRemainder(c.Body)
	if err != nil {
		return err
	}
	if f := r.Feed(); f.Zone != feed.Zone || f.Writer != feed.Writer && !r.Compacted() {
		return nil
	}
	return fn(r)
}
