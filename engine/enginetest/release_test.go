package enginetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine"
	"fcp/engine/symbols"
	"fcp/internal/crashfs"
	"fcp/log"
)

// releasePoints name the steps of a release (docs/format.md "Crash points"): what is
// about to be done.
var releasePoints = map[string]func(crashfs.Op, *engine.Superseded) bool{
	"release-salts-written": func(op crashfs.Op, s *engine.Superseded) bool {
		return op.Kind == crashfs.Rename && strings.Contains(op.Path, fcp.SegmentID(s.By.Segment).String())
	},
	"release-salts-taken-over": func(op crashfs.Op, s *engine.Superseded) bool {
		return op.Kind == crashfs.Remove && strings.HasSuffix(op.Path, ".sym")
	},
	"release-share-unlinked": func(op crashfs.Op, s *engine.Superseded) bool {
		return op.Kind == crashfs.Remove && strings.HasSuffix(op.Path, ".mint")
	},
	"release-shares-dropped": func(op crashfs.Op, s *engine.Superseded) bool {
		return op.Kind == crashfs.Remove && strings.HasSuffix(op.Path, fcp.SegmentID(s.Old.Segment).String()+".salts")
	},
}

// powerCut is the disk just before one step.
type powerCut struct {
	point string
	image *crashfs.FS
}

// cuts runs work and takes images of what a power cut leaves at every mutation, two at
// each: what was not synced is damaged in different ways.
func cuts(disk *crashfs.FS, name func(crashfs.Op) string, work func()) (out []powerCut) {
	var mu sync.Mutex
	disk.SetHook(func(op crashfs.Op) error {
		if !op.Kind.Mutating() {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		for seed := range uint64(2) {
			out = append(out, powerCut{name(op), disk.Crash(rand.New(rand.NewPCG(uint64(op.Mutation), seed)), crashfs.Harsh())})
		}
		return nil
	})
	work()
	disk.SetHook(nil)
	return append(out, powerCut{"", disk.Crash(rand.New(rand.NewPCG(1, 1)), crashfs.Harsh())})
}

// after opens what a power cut left and gives it to check.
func (n *Node) after(c powerCut, check func(*engine.Engine) error) {
	n.m.T.Helper()
	env := n.env
	env.FS = c.image
	e, err := engine.Open(context.Background(), dir, engine.Options{Environment: env, NoBallast: true, MemTableBytes: 256 << 10})
	n.m.check(err)
	if err := check(e); err != nil {
		n.m.T.Errorf("cut at %q: %v", c.point, err)
	}
	n.m.check(e.Close())
}

// TestReleaseAtEveryCrashPoint cuts the power at every step of a release: what stays has
// its key in the segment that holds it, what is listed is whole, and the release that
// comes after the start leaves nothing of the old segment.
func TestReleaseAtEveryCrashPoint(t *testing.T) {
	m := New(t, 41, 1)
	disk := crashfs.New()
	m.files = disk
	b, a := m.Join(true), m.Nodes[0]
	ctx := context.Background()
	stays := a.put("stays", strings.Repeat("stays", 4000)).Object
	a.put("goes", strings.Repeat("goes", 5000))
	_, err := a.Log().Seal(ctx, log.SealOptions{All: true})
	m.check(err)
	b.pull(a)
	b.keep(a)
	_, err = a.Remove(ctx, engine.RemoveRequest{Key: "goes"})
	m.check(err)
	m.Clock.Advance(time.Minute)
	_, err = a.Checkpoint(ctx, engine.CheckpointOptions{Owner: m.Owner, Zones: []fcp.ZoneID{fcp.ZonePrivate}, Retention: &authority.Retention{}})
	m.check(err)
	b.pull(a)
	for _, n := range m.Nodes {
		_, _, err = n.AcknowledgeMarks(ctx)
		m.check(err)
	}
	m.Clock.Advance(25 * time.Hour)
	a.pull(b)
	r, err := a.Compact(ctx, engine.CompactOptions{Zones: []fcp.ZoneID{fcp.ZonePrivate}, MinGarbage: 1})
	if err != nil || r.Events != 1 {
		t.Fatalf("%d events dropped: %v", r.Events, err)
	}
	b.pull(a)
	list, err := b.SupersededSegments(fcp.ZonePrivate)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	s := list[0]
	dead, err := b.Dead(ctx, fcp.ZonePrivate, list)
	if err != nil || !dead[0] {
		t.Fatal("it is not to be released:", err)
	}
	old, by := fcp.SegmentID(s.Old.Segment), fcp.SegmentID(s.By.Segment)
	want, err := a.SegmentSalts(s.By)
	m.check(err)
	key := saltOf(s.By, want, stays)
	held := func(e *engine.Engine) (refs []symbols.Ref, err error) {
		return refs, e.Shares(func(h engine.HeldShare) error {
			if h.Segment == old {
				refs = append(refs, h.Ref)
			}
			return nil
		})
	}
	shares, err := held(b.Engine)
	if err != nil || len(shares) != 3 {
		t.Fatal(shares, err)
	}
	hit := map[string]bool{}
	name := func(op crashfs.Op) string {
		for point, is := range releasePoints {
			if is(op, &s) {
				hit[point] = true
				return point
			}
		}
		return fmt.Sprint(op.Kind, " ", op.Path)
	}
	for _, c := range cuts(disk, name, func() { m.check(b.ReleaseSegment(s, shares)) }) {
		b.after(c, func(e *engine.Engine) error {
			salts, err := e.SegmentSalts(s.By)
			if err != nil {
				if salts, err = e.SegmentSalts(s.Old); err != nil {
					return fmt.Errorf("the key of what stays: %w", err)
				}
				if got := saltOf(s.Old, salts, stays); got != key {
					return fmt.Errorf("what stays has another key")
				}
			} else if got := saltOf(s.By, salts, stays); got != key {
				return fmt.Errorf("what stays has another key in the new segment")
			}
			refs, err := held(e)
			if err != nil {
				return err
			}
			for _, r := range refs {
				if file, _, err := e.ReadShare(r); err != nil || int64(len(file)) != r.FileSize() {
					return fmt.Errorf("share %s is listed and not whole: %w", r.FileName(), err)
				}
			}
			if len(refs) == 0 && !e.KeepsSalts(old) && c.point != "" {
				return nil // a node sees nothing to release
			}
			if err := e.ReleaseSegment(s, refs); err != nil {
				return fmt.Errorf("the release after the start: %w", err)
			}
			names, err := c.image.List(dir + "/shares")
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(names, func(n string) bool { return strings.Contains(n, old.String()) }); i >= 0 {
				return fmt.Errorf("%s is left", names[i])
			}
			if salts, err = e.SegmentSalts(s.By); err != nil || saltOf(s.By, salts, stays) != key {
				return fmt.Errorf("the key of what stays in the end: %w", err)
			}
			return nil
		})
	}
	for point := range releasePoints {
		if !hit[point] {
			t.Errorf("nothing was cut at %s", point)
		}
	}
	if _, err := b.SegmentSalts(s.Old); err == nil || b.KeepsSalts(old) || !b.KeepsSalts(by) {
		t.Error("the release itself did not do its work")
	}
}

// TestForgettingAtEveryCrashPoint cuts the power while a member carries an order out:
// nothing that is to be forgotten is ever read, and the next start finishes it.
func TestForgettingAtEveryCrashPoint(t *testing.T) {
	m := New(t, 42, 1)
	disk := crashfs.New()
	m.files = disk
	b, a := m.Join(true), m.Nodes[0]
	small := a.put("small", "inline").Object
	goes, stays := a.put("goes", strings.Repeat("goes", 5000)).Object, a.put("stays", strings.Repeat("stays", 4000)).Object
	_, err := a.Log().Seal(context.Background(), log.SealOptions{All: true})
	m.check(err)
	b.pull(a)
	b.keep(a)
	var rem *log.Remainder
	m.check(b.DataSegments(fcp.ZonePrivate, func(r *log.Remainder) error { rem = r; return nil }))
	whole, err := b.SegmentSalts(rem)
	m.check(err)
	key := saltOf(rem, whole, stays)
	a.forget("small")
	a.forget("goes")
	b.pull(a)
	acknowledged := 0
	for _, c := range cuts(disk, func(op crashfs.Op) string { return fmt.Sprint(op.Kind, " ", op.Path) }, func() { b.carryOut(2) }) {
		b.after(c, func(e *engine.Engine) error {
			done, err := e.CarryOutForgettings(context.Background())
			if err != nil {
				return err
			}
			if done == 0 {
				acknowledged++
			}
			x := &Node{Engine: e, Name: b.Name, m: m}
			x.gone("small", "goes")
			salts, err := e.SegmentSalts(rem)
			if err != nil {
				return err
			}
			if saltOf(rem, salts, goes) != log.ForgottenSalt || saltOf(rem, salts, stays) != key {
				return fmt.Errorf("the keys that are kept for another's segment")
			}
			if n := x.keys(small); n > 0 {
				return fmt.Errorf("%d keys of what was inline", n)
			}
			return nil
		})
	}
	if acknowledged == 0 {
		t.Error("no cut came after the acknowledgement")
	}
}

// saltOf returns an object's salt among those of a segment.
func saltOf(r *log.Remainder, salts []byte, object fcp.ObjectID) (salt [log.SaltSize]byte) {
	for i, off := range r.Seqs {
		if fcp.ObjectID(r.Objects[i*fcp.HashSize:][:fcp.HashSize]) == object {
			copy(salt[:], salts[off*log.SaltSize:])
		}
	}
	return salt
}

// pull takes another node's control feeds.
func (n *Node) pull(from *Node) {
	n.m.T.Helper()
	n.Pull(from, fcp.ZoneOwner)
	n.pullControl(from)
}

// keep keeps salts and three shares of the other node's one data segment.
func (n *Node) keep(from *Node) {
	n.m.T.Helper()
	var coder symbols.Coder
	ctx := context.Background()
	err := from.Log().Segments(func(s log.SegmentInfo) error {
		if fcp.Plane(s.Remainder.Plane) != fcp.PlaneData {
			return nil
		}
		salts, err := from.SegmentSalts(&s.Remainder)
		n.m.check(err)
		n.m.check(n.KeepSalts(&s.Remainder, salts))
		ciphertext, err := from.Log().Ciphertext(s.No)
		n.m.check(err)
		mint, err := from.Mint(ctx, &coder, s.Remainder.Card, ciphertext)
		n.m.check(err)
		for i := range uint32(3) {
			file, manifest, err := mint.Share(ctx, 1000+i*10, 10, 2)
			n.m.check(err)
			_, err = n.KeepShare(manifest, file, 1000+i*10, 10)
			n.m.check(err)
		}
		return nil
	})
	n.m.check(err)
}
