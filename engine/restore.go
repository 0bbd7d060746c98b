package engine

import (
	"context"
	"errors"
	"io/fs"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
	"fcp/log"
)

// A restore is built beside its target and renamed at the end, so that the target
// is a whole store or untouched.
const (
	partialSuffix = ".partial"
	fileRestore   = "RESTORE" // says that a ".partial" directory is ours to remove
	dirBuilt      = "store"   // the store, inside it
)

// restoredObject is the body of store.restored (docs/format.md "Store restored"),
// an event of the local plane: where this store came from.
type restoredObject struct {
	Format      uint64       `cbor:"format"` // 1
	Manifest    fcp.Hash     `cbor:"manifest"`
	Seq         uint64       `cbor:"seq"`
	From        fcp.WriterID `cbor:"from"`
	Incarnation uint64       `cbor:"incarnation"` // of the node that wrote the backup
	StateRoot   fcp.Hash     `cbor:"state_root"`
	RestoredAt  uint64       `cbor:"restored_at"` // unix seconds
}

func restore(ctx context.Context, from blob.Store, where, dir string, o RestoreOptions) (r RestoreResult, err error) {
	o.setDefaults()
	start := o.Now()
	if o.Owner == nil {
		return r, fcp.Errorf(fcp.CodeUnauthorized, "a restore needs the owner's identity")
	}
	if o.Device == "" {
		o.Device = "restored"
	}
	dir = o.FS.PathJoin(dir) // cleans it
	if err := checkTarget(o.FS, dir); err != nil {
		return r, err
	}
	ob, err := openBackup(ctx, from, where, o.Seq, o.Manifest)
	if err != nil {
		return r, err
	}
	partial := dir + partialSuffix
	if err := makePartial(o.FS, partial); err != nil {
		return r, err
	}
	r = RestoreResult{Dir: dir, Owner: ob.genesis.Owner, From: ob.m.writer(), Seq: ob.m.Seq, Manifest: ob.hash,
		Created: ob.m.created(), Segments: len(ob.index), Events: ob.m.Events}
	if err = buildRestored(ctx, ob, partial, &o, &r); err == nil {
		err = moveIn(o.FS, partial, dir)
	}
	if err != nil {
		return RestoreResult{}, errors.Join(err, fcp.Wrap(fcp.CodeDisk, o.FS.RemoveAll(partial), "remove the unfinished restore"))
	}
	r.Elapsed = o.Now().Sub(start)
	return r, nil
}

// checkTarget refuses a directory with anything in it.
func checkTarget(files vfs.FS, dir string) error {
	names, err := files.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "look into %s", dir)
	}
	for _, n := range names {
		if n == fileFormat {
			return fcp.Errorf(fcp.CodeStoreExists, "%s", dir).WithNext("restore into an empty or new directory")
		}
	}
	if len(names) > 0 {
		return fcp.Errorf(fcp.CodeNotEmpty, "%s", dir)
	}
	return nil
}

// makePartial makes the directory that the store is built in. One that an
// interrupted restore left is removed first; any other is not touched.
func makePartial(files vfs.FS, partial string) error {
	if names, err := files.List(partial); err == nil {
		if _, err := files.Stat(files.PathJoin(partial, fileRestore)); err != nil && len(names) > 0 {
			return fcp.Errorf(fcp.CodeNotEmpty, "%s, where the restore is built", partial)
		}
		if err := files.RemoveAll(partial); err != nil {
			return fcp.Wrap(fcp.CodeDisk, err, "remove what an interrupted restore left")
		}
	}
	if err := files.MkdirAll(partial, 0o700); err != nil {
		return fcp.Wrap(fcp.CodeDisk, err, "make %s", partial)
	}
	return writeFile(files, partial, fileRestore, []byte("a restore that did not finish\n"))
}

// moveIn gives the finished store its name and removes what is left.
func moveIn(files vfs.FS, partial, dir string) error {
	var err error
	if _, serr := files.Stat(dir); serr == nil {
		err = files.Remove(dir) // empty, as checkTarget saw; else this fails
	}
	if err == nil {
		err = files.Rename(files.PathJoin(partial, dirBuilt), dir)
	}
	if err == nil {
		err = syncDir(files, files.PathDir(dir))
	}
	if err == nil {
		err = files.RemoveAll(partial)
	}
	return fcp.Wrap(fcp.CodeDisk, err, "give the restored store its name")
}

// buildRestored makes the store in dir, closed and on disk.
func buildRestored(ctx context.Context, ob *openedBackup, dir string, o *RestoreOptions, r *RestoreResult) (err error) {
	node, err := authority.NewNodeKeys(o.Rand)
	if err != nil {
		return err
	}
	defer node.Wipe()
	e, err := openCopy(ctx, ob, o.Environment, o.FS.PathJoin(dir, dirBuilt), o.Owner, node)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := takeIn(ctx, ob, e, "restore", o.Progress); err != nil {
		return err
	}
	if r.StateRoot, err = e.StateRoot(); err != nil {
		return err
	}
	if r.StateRoot != ob.m.StateRoot {
		return fcp.Errorf(fcp.CodeRootMismatch, "the backup gives state root %s, its manifest says %s", r.StateRoot, ob.m.StateRoot)
	}
	r.Identical, r.Writer, r.Incarnation = true, node.Writer(), e.log.Incarnation()
	before := e.log.Durable()
	if err := e.takeOver(ctx, o.Owner, o.Device); err != nil {
		return err
	}
	if err := e.noteRestored(ctx, ob); err != nil {
		return err
	}
	if err := e.forgetLimits(e.env.Now()); err != nil {
		return err
	}
	if !o.At.IsZero() {
		if err := e.setBack(ctx, o.At, r); err != nil {
			return err
		}
	}
	r.Appended = int(e.log.Durable() - before)
	return nil
}

// openCopy makes an empty store for a node and opens it with the owner's recovery
// key, so that all of the backup can be read.
func openCopy(ctx context.Context, ob *openedBackup, env Environment, dir string, owner *authority.OwnerKey, node *authority.NodeKeys) (*Engine, error) {
	if err := ob.genesis.CheckOwner(owner.Public()); err != nil {
		return nil, err
	}
	recovery, err := owner.Recovery() // used as long as the engine is open
	if err != nil {
		return nil, err
	}
	manifests, err := ob.zoneKeys(ctx)
	if err != nil {
		return nil, err
	}
	if err := Join(ctx, dir, JoinOptions{Environment: env, Node: node, Genesis: ob.raw, Manifests: manifests}); err != nil {
		return nil, err
	}
	return Open(ctx, dir, Options{Environment: env, Recovery: recovery})
}

// takeIn imports everything in a backup into a store that has no events, and
// checks all of it on the way.
func takeIn(ctx context.Context, ob *openedBackup, e *Engine, stage string, progress func(Progress)) error {
	p, err := makePlan(ctx, ob, sealer{e}, e.ring.Load())
	if err != nil {
		return err
	}
	total := ob.m.Bytes
	for i := range ob.m.Tail {
		total += ob.m.Tail[i].Size
	}
	var done uint64
	for i := range p.units {
		u := &p.units[i]
		if ctx.Err() != nil {
			return interrupted(ctx)
		}
		size, err := p.takeUnit(e, u)
		if err != nil {
			return err
		}
		done += size
		if progress != nil {
			progress(Progress{Stage: stage, Done: done, Total: total})
		}
	}
	return ob.takeSalts(ctx, e)
}

// takeUnit imports one segment or one part of the tail.
func (p *plan) takeUnit(e *Engine, u *unit) (size uint64, err error) {
	if u.segment != nil {
		r, err := p.remainder(u)
		if err != nil {
			return 0, err
		}
		ciphertext, err := p.o.segment(p.ctx, u.segment)
		if err != nil {
			return 0, err
		}
		err = e.log.ImportSegment(p.ctx, r, ciphertext)
		return uint64(len(ciphertext)), fcp.Wrap(fcp.CodeCorrupt, err, "%s", segmentName(u.segment.id))
	}
	t := &p.o.m.Tail[u.tail]
	events, err := p.o.tail(p.ctx, p.ring, u.tail)
	if err != nil {
		return 0, err
	}
	taken, err := e.log.Import(p.ctx, events, nil)
	if err == nil && taken != len(events) {
		err = fcp.Errorf(fcp.CodeInternal, "%d of %d events taken", taken, len(events))
	}
	return t.Size, fcp.Wrap(fcp.CodeCorrupt, err, "%s", tailName(t.Hash))
}

// takeSalts writes the key table. It comes after the events, whose place it needs.
func (o *openedBackup) takeSalts(ctx context.Context, e *Engine) error {
	byID := map[fcp.FeedID]log.FeedState{}
	for _, f := range e.log.Feeds() {
		byID[f.ID] = f
	}
	return o.keyTable(ctx, func(run saltRun) error {
		if ctx.Err() != nil {
			return interrupted(ctx)
		}
		f, ok := byID[run.feed]
		if !ok || run.first+uint64(len(run.salts)/log.SaltSize)-1 > f.Seq {
			return fcp.Errorf(fcp.CodeManifest, "the key table has salts for events that are not in the backup")
		}
		return e.log.SetSalts(f.No, run.first, run.salts)
	})
}

// takeOver makes this store's new node a member by the owner's hand: its
// enrollment, and for each zone new manifests that seal every key in use to it
// besides the nodes that hold the zone already. Nodes with a revoked feed are
// left out.
func (e *Engine) takeOver(ctx context.Context, owner *authority.OwnerKey, device string) error {
	hybrid, err := e.node.Hybrid()
	if err != nil {
		return err
	}
	body, err := authority.SignDevice(e.env.Now(), owner, authority.DeviceSpec{Node: e.node.Public(), Hybrid: hybrid, Name: device})
	if err != nil {
		return err
	}
	if _, err := e.AppendSigned(ctx, fcp.ZoneOwner, fcp.KindDeviceEnrolled, body); err != nil {
		return err
	}
	for _, zone := range e.Zones() {
		if _, err := e.sealZone(ctx, owner, zone, e.node.Writer(), authority.RotateRestore); err != nil {
			return err
		}
	}
	return nil
}

// noteRestored records on the local plane where the store came from.
func (e *Engine) noteRestored(ctx context.Context, ob *openedBackup) error {
	body, err := fcp.MarshalPayload(fcp.SchemaStoreRestored, restoredObject{
		Format: governanceFormat, Manifest: ob.hash, Seq: ob.m.Seq, From: ob.m.writer(), Incarnation: ob.m.Incarnation,
		StateRoot: ob.m.StateRoot, RestoredAt: uint64(max(e.env.Now().Unix(), 0)),
	})
	if err != nil {
		return err
	}
	_, err = e.log.Append(ctx, []log.Draft{{Zone: fcp.ZoneOwner, Plane: fcp.PlaneLocal, Under: e.genesis.ID,
		Content: fcp.Content{Kind: fcp.KindStoreRestored, Body: body}}})
	return err
}
