package gossip

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"

	"fcp"
)

// flush announces what changed to the peers that are not known to have it.
func (c *Core) flush() {
	if len(c.dirty) > 0 {
		for _, p := range c.upPeers() {
			v := &Vector{Heads: []Head{}}
			for _, f := range c.inOrder() {
				if !c.dirty[f.id] || f.head.Seq == 0 || p.heads[f.id].seq >= f.head.Seq || p.sent[f.id] >= f.head.Seq || f.feed.Writer == p.id {
					continue
				}
				v.Heads = append(v.Heads, f.head)
				if len(v.Heads) == maxHeadsPerMessage {
					c.send(p, v)
					v = &Vector{Heads: []Head{}}
				}
			}
			if len(v.Heads) > 0 {
				c.send(p, v)
			}
		}
		clear(c.dirty)
	}
	if len(c.changed) == 0 {
		return
	}
	var ids []fcp.SegmentID
	for id := range c.changed {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b fcp.SegmentID) int { return bytes.Compare(a[:], b[:]) })
	for part := range slices.Chunk(ids, maxEntriesPerMessage) {
		u := &Update{Entries: []Entry{}}
		for _, id := range part {
			if e, err := entryOf(id, c.own[id]); err == nil {
				u.Entries = append(u.Entries, e)
			}
		}
		for _, p := range c.upPeers() {
			c.send(p, u)
		}
	}
	clear(c.changed)
}

func (c *Core) localSymbols(e LocalSymbols) {
	if e.Symbols == nil || e.Symbols.IsEmpty() {
		delete(c.own, e.Segment)
	} else {
		c.own[e.Segment] = e.Symbols.Clone()
	}
	c.changed[e.Segment] = struct{}{}
}

func (c *Core) takeUpdate(p *peer, u *Update) {
	if u.First {
		p.holds, p.held = Inventory{}, 0
		p.listing = true
	}
	if p.listing && !u.More && !u.Answer {
		p.listing, p.listed = false, true
	}
	for i := range u.Entries {
		b, err := u.Entries[i].bitmap()
		if err != nil {
			continue // was checked when it was decoded
		}
		id := u.Entries[i].Segment
		if old := p.holds[id]; old != nil {
			p.held -= old.GetSizeInBytes()
			delete(p.holds, id)
		}
		if b != nil && len(p.holds) < c.opt.MaxSegments && p.held+b.GetSizeInBytes() <= c.opt.MaxHolds {
			p.held += b.GetSizeInBytes()
			p.holds[id] = b
		}
	}
}

// Digest summarises this node's vector but for frozen feeds: the number of feeds, and SHA-256 over
// "FCP2-VECTOR-V1" and, by feed id, feed id || u64be seq || hash.
func (c *Core) Digest() Digest {
	h := sha256.New()
	h.Write([]byte("FCP2-VECTOR-V1"))
	var d Digest
	for _, f := range c.inOrder() {
		if f.head.Seq == 0 || f.frozen { // nodes stand on different branches for good
			continue
		}
		d.Feeds++
		h.Write(f.id[:])
		h.Write(binary.BigEndian.AppendUint64(nil, f.head.Seq))
		h.Write(f.head.Hash[:])
	}
	h.Sum(d.Hash[:0])
	return d
}

// Holder is a peer with symbols of a segment.
type Holder struct {
	Peer    fcp.WriterID
	Symbols *roaring.Bitmap // the caller must not change it
	Up      bool
}

// Holders returns the members that said they hold symbols of a segment, those that
// are there first, each part ascending.
func (c *Core) Holders(segment fcp.SegmentID) []Holder {
	var out []Holder
	for _, p := range c.peers {
		if b := p.holds[segment]; b != nil {
			out = append(out, Holder{p.id, b, p.up})
		}
	}
	slices.SortFunc(out, func(a, b Holder) int {
		if a.Up != b.Up {
			if a.Up {
				return -1
			}
			return 1
		}
		return compareWriters(a.Peer, b.Peer)
	})
	return out
}

// Listed reports whether a peer told its whole inventory since this node started.
func (c *Core) Listed(w fcp.WriterID) bool {
	p := c.peers[w]
	return p != nil && p.listed
}

// Up returns the members that are there, ascending.
func (c *Core) Up() []fcp.WriterID {
	var out []fcp.WriterID
	for _, p := range c.upPeers() {
		out = append(out, p.id)
	}
	return out
}

// Frozen reports whether a feed forked.
func (c *Core) Frozen(f fcp.Feed) bool {
	x := c.feeds[f.ID()]
	return x != nil && x.frozen
}

// HeldBy returns the segments that a member said it holds symbols of, ascending.
func (c *Core) HeldBy(w fcp.WriterID) []fcp.SegmentID {
	p := c.peers[w]
	if p == nil {
		return nil
	}
	return p.holds.ids()
}

// Seq returns up to which number a member that is there said that it has every event
// of a feed; 0: it said nothing.
func (c *Core) Seq(w fcp.WriterID, f fcp.Feed) uint64 {
	p := c.peers[w]
	if p == nil || !p.up {
		return 0
	}
	return p.heads[f.ID()].seq
}

// Has returns how many members that are there said that they have every event of a
// feed up to seq.
func (c *Core) Has(f fcp.Feed, seq uint64) (n int) {
	id := f.ID()
	for _, p := range c.peers {
		if p.up && p.heads[id].seq >= seq {
			n++
		}
	}
	return n
}
