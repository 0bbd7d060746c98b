package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"fcp"
)

func (v *verifier) checkFeeds() error {
	for _, no := range v.order {
		f := v.feeds[no]
		if err := v.checkFeed(f); err != nil {
			return err
		}
	}
	// Hot blocks and records of feeds without a feed record.
	for _, prefix := range []byte{keyHot, keyHead, keyEnd, keyNode, keySealed} {
		last := FeedNo(0)
		err := v.l.scanPrefix([]byte{prefix}, func(k, _ []byte) error {
			if no := FeedNo(binary.BigEndian.Uint32(k[1:])); len(k) >= 5 && v.feeds[no] == nil && no != last {
				last = no
				v.find(FindFeed, fmt.Sprintf("feed %d", no), "the feed has keys %q but no record", prefix)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) checkFeed(f *verifiedFeed) error {
	where := fmt.Sprintf("feed %d", f.no)
	recorded, err := v.headRecord(f, keyHead)
	if err != nil {
		return err
	}
	f.recorded = recorded
	if err := v.walkSealed(f); err != nil {
		return err
	}
	end, err := v.headRecord(f, keyEnd)
	if err != nil {
		return err
	}
	v.checkEnd(f, end)
	for _, h := range []*head{recorded, end} {
		if h != nil {
			f.treed = max(f.treed, h.seq)
		}
	}
	if err := v.walkHot(f); err != nil {
		return err
	}
	if f.recorded != nil && f.whole && f.ended == 0 {
		v.find(FindHead, where, "the head record names event %d, which does not exist", f.recorded.seq)
	}
	if f.head.seq == 0 && f.ended == 0 {
		v.find(FindFeed, where, "the feed has no events")
	}
	return v.checkNodes(f)
}

func (v *verifier) headRecord(f *verifiedFeed, prefix byte) (*head, error) {
	b, ok, err := v.l.get(keyOfFeed(prefix, f.no))
	if err != nil || !ok {
		return nil, v.damage(FindHead, fmt.Sprintf("feed %d", f.no), err)
	}
	h, err := parseHead(b, f.feed.Plane.Chained())
	if err != nil {
		return nil, v.damage(FindHead, fmt.Sprintf("feed %d", f.no), err)
	}
	return &h, nil
}

func sameHead(a, b *head) bool {
	return a.seq == b.seq && a.hash == b.hash && a.time == b.time && slices.Equal(a.tree.roots, b.tree.roots)
}

// passed compares the head record with the events once the walk is at it.
func (v *verifier) passed(f *verifiedFeed) {
	if f.whole && !sameHead(f.recorded, &f.head) {
		v.find(FindHead, fmt.Sprintf("feed %d", f.no), "the head record of event %d does not match the events", f.head.seq)
	}
	f.recorded = nil
}

// checkEnd compares the end record with the last segment, and continues from it
// when segments could not be opened.
func (v *verifier) checkEnd(f *verifiedFeed, end *head) {
	where := fmt.Sprintf("feed %d", f.no)
	switch {
	case f.last == nil && end == nil:
	case f.last == nil || end == nil:
		v.find(FindHead, where, "the record of the sealed part's end and the segments disagree")
	case end.seq != f.last.Last || end.hash != fcp.Hash(f.last.Head) || uint64(end.time) != f.last.Time ||
		end.tree.root() != fcp.Hash(f.last.Root):
		v.find(FindHead, where, "the record of the sealed part's end does not match its last segment")
	case f.whole && f.ended == 0 && !sameHead(end, &f.head):
		v.find(FindHead, where, "the record of the sealed part's end does not match the events")
	case !f.whole:
		f.head.copyFrom(end)
		f.whole = true // from here on
	}
}

// stop reports that a feed cannot be followed further.
func (v *verifier) stop(f *verifiedFeed, code, where, format string, args ...any) {
	f.ended++
	f.whole = false
	v.find(code, where, format, args...)
}

// walkSealed goes through a feed's segments in order.
func (v *verifier) walkSealed(f *verifiedFeed) error {
	return v.l.scanPrefix(keyOfFeed(keySealed, f.no), func(k, b []byte) error {
		where := fmt.Sprintf("feed %d, segment behind event %d", f.no, f.sealed)
		ref, err := parseSealed(k, b)
		if err != nil {
			f.ended++
			return v.damage(FindSegment, where, err)
		}
		if ref.first != f.sealed+1 {
			v.stop(f, FindSegment, where, "the next segment starts at event %d", ref.first)
		}
		count := uint64(0)
		for _, r := range ref.runs {
			count += r.count
		}
		if count != ref.last-ref.first+1 {
			v.find(FindPosition, where, "%d positions for %d events", count, ref.last-ref.first+1)
		}
		f.runs = append(f.runs, ref.runs...)
		v.segments[ref.segment] = f.no
		if err := v.checkSegment(f, &ref, where); err != nil {
			return err
		}
		f.sealed = ref.last
		if f.head.seq != ref.last {
			f.whole = false
			f.head = head{seq: ref.last}
			if f.last != nil {
				f.head.hash, f.head.time = fcp.Hash(f.last.Head), fcp.Time(f.last.Time)
			}
			if f.recorded != nil && f.recorded.seq <= ref.last {
				f.recorded = nil // it stands inside what cannot be read
			}
		}
		return nil
	})
}

// checkSegment checks one segment's records and ciphertext and, with keys, its
// events.
func (v *verifier) checkSegment(f *verifiedFeed, ref *sealedRef, where string) error {
	previous := f.last
	f.last = nil
	rem, err := v.l.remainder(ref.segment)
	if err != nil {
		if errors.Is(err, fcp.CodeNotFound) {
			v.stop(f, FindSegment, where, "segment number %d has no record", ref.segment)
			return nil
		}
		return v.damage(FindSegment, where, err)
	}
	f.last = &rem
	v.report.Segments++
	id := fcp.SegmentID(rem.Segment)
	where = "segment " + id.String()[:16]
	if rem.First != ref.first || rem.Last != ref.last || rem.Feed() != f.feed {
		v.stop(f, FindSegment, where, "the remainder is of another run than the index says")
		return nil
	}
	var before []byte
	if previous != nil {
		id := previous.endID()
		before = id[:]
	}
	if !bytes.Equal(rem.Previous, before) {
		v.find(FindSegment, where, "the remainder names another previous segment")
	}
	if previous != nil && !bytes.Equal(rem.Prev, previous.Head) {
		v.find(FindChain, where, "the segment does not continue the one before")
	}
	if no, ok, err := v.l.FindSegment(id); err != nil || !ok || no != ref.segment {
		v.find(FindSegment, where, "the index by id does not lead to it (%v)", err)
	}
	ct, err := v.ciphertext(ref.segment, where)
	if err != nil {
		return v.damage(FindCiphertext, where, err)
	}
	card, err := CheckCiphertext(rem.Card, ct)
	if err != nil {
		v.stop(f, FindCiphertext, where, "%v", err)
		return nil
	}
	info, err := card.Transmission()
	if err != nil || card.Segment != id {
		v.find(FindSegment, where, "the card is of another segment")
		return nil
	}
	if fcp.CommitmentRoot(fcp.SourceCommitments(ct, int(info.T))) != card.Source {
		v.find(FindCiphertext, where, "the card's commitments do not match the symbols")
	}
	return v.openSegment(f, ref, &rem, ct, where)
}

// ciphertext reads a segment's frames.
func (v *verifier) ciphertext(segment uint64, where string) ([]byte, error) {
	var out []byte
	next := uint32(0)
	err := v.l.scanPrefix(key1(keyFrame, segment), func(k, b []byte) error {
		if n := binary.BigEndian.Uint32(k[9:]); n != next {
			v.find(FindCiphertext, where, "frame %d stands where %d belongs", n, next)
		}
		next++
		if out = append(out, b...); len(out) > fcp.MaxSegment {
			return fcp.Errorf(fcp.CodeTooLarge, "the frames of %s", where)
		}
		return nil
	})
	return out, err
}

// openSegment decrypts a segment and walks through its events.
func (v *verifier) openSegment(f *verifiedFeed, ref *sealedRef, rem *Remainder, ct []byte, where string) error {
	if v.o.Sealer == nil {
		f.whole = false
		return nil
	}
	c, err := v.o.Sealer.OpenSegment(rem.Run(), rem.Key, fcp.Hash(rem.ZoneKey))
	if err != nil {
		v.note(FindLocked, where, "its key cannot be opened: %v", err)
		f.whole = false
		return nil
	}
	seg := &openSegment{no: ref.segment, rem: *rem, cipher: c}
	frames, err := seg.split(ct)
	if err != nil {
		f.whole = false
		return v.damage(FindSegment, where, err)
	}
	objects := objectIndex{on: f.feed.Plane == fcp.PlaneData}
	v.dropped = 0
	for i := range rem.blocks() {
		from, to := rem.frameRange(i)
		b, err := seg.openFrames(nil, from, frames[from:to])
		if err != nil {
			v.stop(f, FindCiphertext, where, "%v", err)
			return nil
		}
		if !v.walkBlock(f, b, rem.First+rem.Blocks[2*i+1], where, &objects) {
			return nil
		}
	}
	if rem.Dropped != v.dropped {
		v.find(FindSegment, where, "%d events were dropped, the remainder says %d", v.dropped, rem.Dropped)
	}
	ids, seqs := objects.sorted(rem.First)
	if !bytes.Equal(ids, rem.Objects) || !slices.Equal(seqs, rem.Seqs) {
		v.find(FindSegment, where, "the remainder's object index does not match the events")
	}
	if f.head.seq != rem.Last || f.head.hash != fcp.Hash(rem.Head) || uint64(f.head.time) != rem.Time {
		v.stop(f, FindChain, where, "the segment does not end with the event it names")
	}
	if f.whole && f.head.tree.root() != fcp.Hash(rem.Root) {
		v.find(FindRoot, where, "the Merkle root does not match the events")
	}
	v.report.Opened++
	return nil
}

// walkHot goes through a feed's hot blocks behind its last segment.
func (v *verifier) walkHot(f *verifiedFeed) error {
	err := v.l.scanPrefix(keyOfFeed(keyHot, f.no), func(k, b []byte) error {
		if v.ctx.Err() != nil {
			return ctxError(v.ctx)
		}
		_, first := splitSeqKey(k)
		where := fmt.Sprintf("feed %d, block of event %d", f.no, first)
		runs, err := hotRuns(f.no, first, b)
		if err != nil {
			f.ended++
			return v.damage(FindPosition, where, err)
		}
		_, block, err := splitHot(b)
		if err != nil {
			f.ended++
			return v.damage(FindBlock, where, err)
		}
		before := f.head.seq
		if !v.walkBlock(f, block, first, where, nil) {
			return nil
		}
		count := uint64(0)
		for _, r := range runs {
			count += r.count
		}
		if count != f.head.seq-before {
			v.find(FindPosition, where, "%d positions for %d events", count, f.head.seq-before)
		}
		f.runs = append(f.runs, runs...)
		return nil
	})
	return err
}

// walkBlock checks a block and moves the feed's head over it. It returns false
// when the feed cannot be followed any further.
func (v *verifier) walkBlock(f *verifiedFeed, b []byte, first uint64, where string, objects *objectIndex) bool {
	if f.ended > 0 {
		return false
	}
	events, h, _, err := decodeBlock(nil, f.no, &f.id, b, VerifyChain)
	chained := f.feed.Plane.Chained()
	switch {
	case err != nil:
		v.stop(f, FindBlock, where, "%v", err)
		return false
	case h.first != first || first != f.head.seq+1:
		v.stop(f, FindOrder, where, "event %d stands where %d belongs", h.first, f.head.seq+1)
		return false
	case h.sparse && objects == nil:
		v.stop(f, FindBlock, where, "a block of the hot log lacks events")
		return false
	case h.chained != chained:
		v.stop(f, FindBlock, where, "the block does not belong on the %s plane", f.feed.Plane)
		return false
	case chained && h.prev != f.head.hash:
		v.stop(f, FindChain, where, "the block does not continue the hash chain at event %d", first)
		return false
	}
	v.report.Blocks++
	var level []treeNode
	for i := range events {
		e := &events[i]
		if e.Time <= f.head.time {
			v.find(FindOrder, where, "the time of event %d does not rise", e.Seq)
		}
		if e.Dropped() {
			v.dropped++
		} else if err := e.Content.Validate(f.feed.Plane); err != nil {
			v.find(FindBlock, where, "event %d: %v", e.Seq, err)
		}
		if chained && f.whole {
			level = f.head.tree.append(e.Hash, level[:0])
			f.nodes = append(f.nodes, level...)
		}
		f.head.seq, f.head.hash, f.head.time = e.Seq, e.Hash, e.Time
		if f.recorded != nil && f.recorded.seq == e.Seq {
			v.passed(f)
		}
		if want, ok := v.marked[f.no][e.Seq]; ok && want != e.Hash {
			v.find(FindTailLost, where, "the mark remembers another event %d", e.Seq)
		}
		if f.own && e.Content.Kind == fcp.KindSegmentSealed {
			v.announce(e.Content.Body, where)
		}
		if objects != nil && objects.on && !e.Content.Object.IsZero() {
			objects.entries = append(objects.entries, objectEntry{e.Content.Object, e.Seq})
		}
	}
	v.report.Events += uint64(len(events))
	v.progress(false)
	return true
}

// announce notes a segment.sealed event.
func (v *verifier) announce(body []byte, where string) {
	rem, err := DecodeRemainder(body)
	if err != nil {
		v.find(FindSegment, where, "a segment.sealed event: %v", err)
		return
	}
	v.announced[fcp.SegmentID(rem.Segment)] = true
}

// checkNodes compares the stored tree nodes of a feed with its events, with each
// other and with its head. Behind the feed's last head record a node may be missing: it
// is made again from the events.
func (v *verifier) checkNodes(f *verifiedFeed) error {
	stored := map[uint8][]fcp.Hash{}
	where := fmt.Sprintf("feed %d", f.no)
	err := v.l.scanPrefix(keyOfFeed(keyNode, f.no), func(k, b []byte) error {
		if len(k) != 14 {
			return nil
		}
		level, index := k[5], binary.BigEndian.Uint64(k[6:])
		if !slices.Contains(nodeLevels[:], level) || index != uint64(len(stored[level])) || len(b) != fcp.HashSize {
			v.find(FindNode, where, "a node %d/%d that does not belong", level, index)
			return nil
		}
		stored[level] = append(stored[level], fcp.Hash(b))
		v.report.Nodes++
		return nil
	})
	if err != nil || f.ended > 0 {
		return err
	}
	if !f.feed.Plane.Chained() {
		if len(stored) > 0 {
			v.find(FindNode, where, "the local plane has no tree")
		}
		return nil
	}
	for _, level := range nodeLevels {
		if have := uint64(len(stored[level])); have < f.treed>>level || have > f.head.seq>>level {
			v.find(FindNode, where, "%d nodes at height %d, %d belong there", have, level, f.head.seq>>level)
			return nil
		}
	}
	for _, n := range f.nodes {
		switch have := stored[n.level]; {
		case n.index == uint64(len(have)):
			stored[n.level] = append(have, n.hash)
		case have[n.index] != n.hash:
			v.find(FindNode, where, "node %d/%d does not match the events", n.level, n.index)
		}
	}
	for i, level := range nodeLevels {
		have := stored[level]
		if i == 0 {
			continue
		}
		below := stored[nodeLevels[i-1]]
		for n := range have {
			if foldNodes(slices.Clone(below[n<<8:(n+1)<<8])) != have[n] {
				v.find(FindNode, where, "node %d/%d does not follow from those below it", level, n)
			}
		}
	}
	if f.whole {
		v.checkEdge(f, stored, where)
	}
	return nil
}

// checkEdge compares the subtree roots of the feed's head with the stored nodes,
// which also covers nodes over events that could not be decrypted.
func (v *verifier) checkEdge(f *verifiedFeed, stored map[uint8][]fcp.Hash, where string) {
	start, root := uint64(0), 0
	for height := 63; height >= 0; height-- {
		if f.head.tree.size&(1<<height) == 0 {
			continue
		}
		base := uint8(0)
		for _, s := range nodeLevels {
			if int(s) <= height {
				base = s
			}
		}
		if base > 0 && root < len(f.head.tree.roots) {
			from := start >> base
			count := uint64(1) << (uint8(height) - base)
			if foldNodes(slices.Clone(stored[base][from:from+count])) != f.head.tree.roots[root] {
				v.find(FindNode, where, "the nodes of height %d do not give the head's subtree of height %d", base, height)
			}
		}
		start += 1 << height
		root++
	}
	if bits.OnesCount64(f.head.tree.size) != len(f.head.tree.roots) {
		v.find(FindHead, where, "the head's subtrees do not fit its size")
	}
}
