package engine

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/engine/internal/state"
	"fcp/log"
)

// Replay folds the whole log, from the first event on, into a state of its own
// through the code that runs live, and compares the roots. The engine goes on
// working; the comparison is made at one position of both. With Verify a
// difference is CodeRootMismatch, and the report says both roots.
func (e *Engine) Replay(ctx context.Context, o ReplayOptions) (ReplayReport, error) {
	e.maintenance.Lock() // between a compaction and its sweep the state knows more than the log
	defer e.maintenance.Unlock()
	return e.replay(ctx, o)
}

func (e *Engine) replay(ctx context.Context, o ReplayOptions) (ReplayReport, error) {
	start := e.env.Now()
	st, err := e.scratchState(o.Scratch)
	if err != nil {
		return ReplayReport{}, err
	}
	report, err := e.replayInto(ctx, st, start, o)
	report.Elapsed = e.env.Now().Sub(start)
	if err = errors.Join(err, st.Close()); err != nil {
		return report, err
	}
	if o.Verify && !report.Identical {
		return report, fcp.Errorf(fcp.CodeRootMismatch, "the state has root %s, its replay to position %d has %s", report.LiveRoot, report.Position, report.Root)
	}
	return report, nil
}

// scratchState opens an empty state in a directory, or in memory.
func (e *Engine) scratchState(dir string) (*state.Store, error) {
	files := e.env.FS
	if dir == "" {
		files, dir = vfs.NewMem(), dirState
	} else if names, err := files.List(dir); err == nil && len(names) > 0 {
		return nil, fcp.Errorf(fcp.CodeNotEmpty, "%s", dir)
	}
	o := stateOptions(&e.env, &e.opts, 0)
	o.Keys = int(min(e.applied.Load(), math.MaxInt32))
	st, err := state.Open(files, dir, o)
	if err != nil {
		return nil, err
	}
	st.BulkMode(true)
	return st, nil
}

func (e *Engine) replayInto(ctx context.Context, st *state.Store, start time.Time, o ReplayOptions) (r ReplayReport, err error) {
	d, err := newFolder(e.log, st, e.fold.list, e.genesis.Owner)
	if err != nil {
		return r, err
	}
	if err := e.foldTo(ctx, d, e.applied.Load(), o.Progress); err != nil {
		return r, err
	}
	if o.Scratch != "" {
		if err := st.Flush(ctx); err != nil {
			return r, err
		}
	}
	r.Rebuilt = e.env.Now().Sub(start)
	if err := e.fold.warmDigests(e.Zones()...); err != nil {
		return r, err
	}
	e.gate.Lock()
	defer e.gate.Unlock()
	if err := e.foldTo(ctx, d, e.fold.position.Load(), nil); err != nil {
		return r, err
	}
	r.Position = d.position.Load()
	r.Events = r.Position
	if r.Root, err = d.stateRoot(); err != nil {
		return r, err
	}
	if r.LiveRoot, err = e.fold.stateRoot(); err != nil {
		return r, err
	}
	r.ZoneRoots = map[fcp.ZoneID]fcp.Hash{}
	for _, zone := range d.zoneList() {
		if r.ZoneRoots[zone], err = d.zoneRoot(zone); err != nil {
			return r, err
		}
	}
	r.Identical = r.Root == r.LiveRoot
	return r, nil
}

// foldTo folds events into d from where it stands up to a position.
func (e *Engine) foldTo(ctx context.Context, d *folder, to uint64, progress func(Progress)) error {
	from := d.position.Load() + 1
	if to < from {
		return nil
	}
	next := e.env.Now().Add(progressEvery)
	return e.log.Scan(ctx, log.ScanOptions{From: from, To: to, Verify: log.VerifyChain, Workers: e.opts.Workers},
		func(events []log.Applied) error {
			if err := d.Apply(events); err != nil {
				return err
			}
			if progress == nil {
				return nil
			}
			if now := e.env.Now(); !now.Before(next) {
				next = now.Add(progressEvery)
				progress(Progress{Stage: "scan", Done: events[len(events)-1].Position, Total: to})
			}
			return nil
		})
}

const progressEvery = 200 * time.Millisecond

// Rebuild removes the state of a closed store and folds the whole log again.
func Rebuild(ctx context.Context, dir string, o Options) error {
	o.setDefaults()
	if err := CheckFormat(o.FS, dir); err != nil {
		return err
	}
	lock, err := o.FS.Lock(o.FS.PathJoin(dir, fileLock))
	if err != nil {
		return lockError(dir, err)
	}
	err = o.FS.RemoveAll(o.FS.PathJoin(dir, dirState))
	if err = errors.Join(err, lock.Close()); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "remove the state")
	}
	e, err := Open(ctx, dir, o)
	if err != nil {
		return err
	}
	return e.Close()
}

// rebuildChanged builds the projections whose stored version is not the wanted
// one. Where the stored version is still in this build it goes on serving and the
// new one is built in the background; otherwise Open waits for it.
func (e *Engine) rebuildChanged(ctx context.Context) error {
	var behind, now []Projection
	for name, r := range e.fold.slots.byName {
		p := e.fold.wanted(name)
		if p == nil || p.Version() == r.version {
			continue
		}
		if e.fold.has(name, r.version) {
			behind = append(behind, p)
		} else {
			now = append(now, p)
		}
	}
	if len(now) > 0 {
		if err := e.build(ctx, now); err != nil {
			return err
		}
	}
	if len(behind) > 0 && !e.opts.ReadOnly {
		e.background.Go(func() {
			if err := e.build(e.life, behind); err != nil && e.life.Err() == nil {
				e.env.Logger.Error("a projection could not be rebuilt; its old version goes on serving", "err", err)
			}
		})
	}
	return nil
}

func (d *folder) has(name string, version uint32) bool {
	for _, p := range d.list {
		if p.Name() == name && p.Version() == version {
			return true
		}
	}
	return false
}

// build folds the whole log into new slots for the given projections, then lets
// them serve in one step.
func (e *Engine) build(ctx context.Context, list []Projection) error {
	b, err := e.startBuild(ctx, list)
	if err != nil {
		return err
	}
	if err := e.foldTo(ctx, b, e.applied.Load(), nil); err != nil {
		return err
	}
	e.gate.Lock()
	b.update = e.st.Update
	err = e.foldTo(ctx, b, e.fold.position.Load(), nil)
	var old [][2][]byte
	if err == nil {
		old, err = e.fold.serve(b, list)
	}
	e.gate.Unlock()
	for i := 0; err == nil && i < len(old); i++ {
		err = e.st.Clear(ctx, old[i][0], old[i][1])
	}
	return err
}

// startBuild reserves a slot for each projection and returns a folder that writes
// to those slots only. What an earlier build left in them is removed.
func (e *Engine) startBuild(ctx context.Context, list []Projection) (*folder, error) {
	d := e.fold
	b := &folder{log: d.log, st: d.st, list: list, owner: d.owner, zones: map[fcp.ZoneID]uint16{},
		slots: slotTable{bySlot: map[byte]string{}, byName: map[string]*slotRecord{}}}
	b.fold.slots = &b.slots
	var names []string
	e.gate.Lock()
	defer e.gate.Unlock()
	d.mu.Lock()
	for _, p := range list {
		r := d.slots.byName[p.Name()]
		if r.building == 0 {
			r.building = d.slots.free()
			d.slots.bySlot[r.building] = p.Name()
		}
		r.buildVersion = p.Version()
		names = append(names, p.Name())
		b.slots.byName[p.Name()] = &slotRecord{slot: r.building, version: p.Version()}
		b.active = append(b.active, active{p, r.building, p.Planes()})
	}
	d.mu.Unlock()
	if err := d.saveSlots(names); err != nil {
		return nil, err
	}
	for _, p := range b.active {
		for zone := range d.zoneText {
			prefix := appendPrefix(nil, uint16(zone+1), p.slot)
			if err := e.st.Clear(ctx, prefix, upperBound(prefix)); err != nil {
				return nil, err
			}
		}
	}
	// Names writes through other projections' slots, which then are being built
	// with it or stay as they are.
	for name, r := range d.slots.byName {
		if b.slots.byName[name] == nil {
			b.slots.byName[name] = &slotRecord{slot: r.slot, version: r.version}
		}
	}
	b.update = func(_ uint64, fn func(*state.Writer) error) error {
		e.gate.Lock()
		defer e.gate.Unlock()
		b.shareZones(d)
		return e.st.Update(d.position.Load(), fn)
	}
	b.shareZones(d)
	return b, nil
}

// shareZones takes over the zone numbers of the live folder.
func (d *folder) shareZones(from *folder) {
	d.zoneText = from.zoneText
	for zone, no := range from.zones {
		d.zones[zone] = no
	}
}

// serve puts what b built in place of what serves now, in one Update. It returns
// the key ranges that nobody reads any more. The caller holds the gate.
func (d *folder) serve(b *folder, list []Projection) (old [][2][]byte, err error) {
	d.mu.Lock()
	var names []string
	for i, p := range list {
		r := d.slots.byName[p.Name()]
		for zone := range d.zoneText {
			prefix := appendPrefix(nil, uint16(zone+1), r.slot)
			old = append(old, [2][]byte{prefix, upperBound(prefix)})
		}
		delete(d.slots.bySlot, r.slot)
		*r = slotRecord{slot: r.building, version: p.Version()}
		names = append(names, p.Name())
		at := len(d.active)
		for j := range d.active {
			if d.active[j].Name() == p.Name() {
				at = j
			}
		}
		if at == len(d.active) {
			d.active = append(d.active, b.active[i])
		} else {
			d.active[at] = b.active[i]
		}
	}
	d.routes = nil
	d.mu.Unlock()
	return old, d.saveSlots(names)
}
