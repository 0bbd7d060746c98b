package engine

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"

	"fcp"
	"fcp/engine/symbols"
	"fcp/log"
)

// Superseded is a segment that members told of and in whose place its feed's writer
// put a compacted one.
type Superseded struct {
	Old *log.Remainder
	By  *log.Remainder // the last one, when that was compacted again
}

// SupersededSegments returns a zone's superseded segments, in the order of the state.
// What another than the feed's writer says to have compacted counts on that node alone:
// a liar could have others drop what it never kept.
func (e *Engine) SupersededSegments(zone fcp.ZoneID) (out []Superseded, err error) {
	by := map[fcp.SegmentID]*log.Remainder{}
	var all []*log.Remainder
	err = e.toldSegments(zone, func(told *fcp.Event, r *log.Remainder) error {
		all = append(all, r)
		if r.Compacted() && r.Feed().Writer == told.Feed.Writer {
			for _, old := range r.Replaced() {
				by[old] = r
			}
		}
		return nil
	})
	if err != nil || len(by) == 0 {
		return nil, err
	}
	for _, old := range all {
		last := by[fcp.SegmentID(old.Segment)]
		for n := 0; last != nil && n < len(all); n++ { // a chain has no more links than segments
			next := by[fcp.SegmentID(last.Segment)]
			if next == nil {
				break
			}
			last = next
		}
		if last == nil || by[fcp.SegmentID(last.Segment)] != nil || last.Feed() != old.Feed() || old.First < last.First || old.Last > last.Last {
			continue
		}
		out = append(out, Superseded{old, last})
	}
	return out, nil
}

// Dead reports of superseded segments of a zone whether nothing in them is kept but
// what the segment in their place has too. This node decides by its own mark: what its
// state still needs it does not give up, whoever dropped it. Errors are those of a
// mark, see Compact.
func (e *Engine) Dead(ctx context.Context, zone fcp.ZoneID, list []Superseded) ([]bool, error) {
	m, err := e.newMark(ctx, zone, 0)
	if err != nil {
		return nil, err
	}
	dead := make([]bool, len(list))
	for i, s := range list {
		kept := map[fcp.ObjectID]bool{}
		for j := range s.By.Seqs {
			kept[fcp.ObjectID(s.By.Objects[j*fcp.HashSize:][:fcp.HashSize])] = true
		}
		covered := m.covers(s.Old.Feed())
		dead[i] = true
		for j, off := range s.Old.Seqs {
			id := fcp.ObjectID(s.Old.Objects[j*fcp.HashSize:][:fcp.HashSize])
			if !kept[id] && m.keeps(covered, s.Old.First+off, fcp.KindObjectBody, id) {
				dead[i] = false
				break
			}
		}
	}
	return dead, nil
}

// ReleaseSegment forgets what this node kept for others of a superseded segment: the
// shares, and its salts. The salts of what stays are taken over for the segment in its
// place; CodeKeyTableLost, and nothing is dropped, when they are not all here.
func (e *Engine) ReleaseSegment(s Superseded, shares []symbols.Ref) error {
	if err := e.takeOverSalts(s); err != nil {
		return err
	}
	for _, r := range shares {
		if err := e.DropShare(r); err != nil {
			return err
		}
	}
	id := fcp.SegmentID(s.Old.Segment)
	e.forgetOpened(id)
	if err := e.dropHalfShares(id); err != nil {
		return err
	}
	return e.dropSalts(id)
}

// dropHalfShares removes what a crash while a share was dropped left of it. The salts go
// last: while they are here the segment counts as kept.
func (e *Engine) dropHalfShares(id fcp.SegmentID) error {
	dir := e.env.FS.PathJoin(e.dir, dirShares)
	names, err := e.env.FS.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "list the shares")
	}
	var errs []error
	for _, name := range names {
		if strings.HasPrefix(name, id.String()+".") && name != id.String()+saltSuffix {
			errs = append(errs, e.env.FS.Remove(e.env.FS.PathJoin(dir, name)))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fcp.Wrap(fcp.CodeDisk, errors.Join(append(errs, syncDir(e.env.FS, dir))...), "drop what was left of shares")
}

// takeOverSalts sees to it that the salts of the segment in the place of others are
// here.
func (e *Engine) takeOverSalts(s Superseded) error {
	_, err := e.SegmentSalts(s.By)
	if !errors.Is(err, fcp.CodeNotFound) || len(s.By.Seqs) == 0 {
		if errors.Is(err, fcp.CodeNotFound) {
			err = nil // nothing of it has a body
		}
		return err
	}
	old, err := e.SegmentSalts(s.Old)
	if errors.Is(err, fcp.CodeNotFound) {
		return nil // there is none to lose
	}
	if err != nil {
		return err
	}
	stays := make([]uint64, len(s.By.Seqs))
	for i, off := range s.By.Seqs {
		stays[i] = s.By.First + off
	}
	slices.Sort(stays)
	salts := make([]byte, int(s.By.Last-s.By.First+1)*log.SaltSize)
	for _, seq := range stays {
		if seq < s.Old.First || seq > s.Old.Last {
			return fcp.Errorf(fcp.CodeKeyTableLost, "the salts of segment %s are not here yet", fcp.SegmentID(s.By.Segment))
		}
		copy(salts[(seq-s.By.First)*log.SaltSize:][:log.SaltSize], old[(seq-s.Old.First)*log.SaltSize:])
	}
	return e.KeepSalts(s.By, salts)
}

// KeepsSalts reports whether this node keeps salts of a segment that is not in its log.
func (e *Engine) KeepsSalts(id fcp.SegmentID) bool {
	_, err := e.env.FS.Stat(e.env.FS.PathJoin(e.dir, dirShares, id.String()+saltSuffix))
	return err == nil
}

// dropSalts removes the kept salts of a segment.
func (e *Engine) dropSalts(id fcp.SegmentID) error {
	dir := e.env.FS.PathJoin(e.dir, dirShares)
	err := e.env.FS.Remove(e.env.FS.PathJoin(dir, id.String()+saltSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fcp.Wrap(fcp.CodeDisk, errors.Join(err, syncDir(e.env.FS, dir)), "drop the salts of a segment")
}

// forgetOpened drops a segment from elsewhere from memory.
func (e *Engine) forgetOpened(id fcp.SegmentID) {
	m := &e.mesh
	m.mu.Lock()
	defer m.mu.Unlock()
	for el := m.opened.Front(); el != nil; el = el.Next() {
		if fcp.SegmentID(el.Value.(*openedSegment).rem.Segment) == id {
			m.opened.Remove(el)
			return
		}
	}
}
