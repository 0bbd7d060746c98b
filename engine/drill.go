package engine

import (
	"context"
	"errors"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/blob"
	"fcp/log"
)

// DrillOptions configures Drill.
type DrillOptions struct {
	Environment

	Owner *authority.OwnerKey // the identity; needed
	// Manifest, unless zero, is the hash that the newest manifest must have.
	Manifest fcp.Hash
	// Scratch is an empty or new directory; the store that is made in it is removed.
	Scratch string
	// Progress is told of "restore" in bytes, "verify" and "replay" in positions; may be nil.
	Progress func(Progress)
}

// DrillResult says how a drill went.
type DrillResult struct {
	Where     string
	Seq       uint64   // of the manifest
	Manifest  fcp.Hash // its hash
	Created   time.Time
	Genesis   fcp.Hash // of the store that was backed up; zero when the drill did not come so far
	Events    uint64
	Segments  int
	Bodies    uint64   // decrypted, and their object ids computed again
	StateRoot fcp.Hash // of the backup, of the restored store and of its replay
	Started   time.Time
	Elapsed   time.Duration
	Failure   fcp.Code // 0: passed
}

// drillObject is the body of backup.drilled (docs/format.md "Backup drilled"), an
// event of the local plane.
type drillObject struct {
	Format    uint64   `cbor:"format"` // 1
	Where     string   `cbor:"where"`
	Manifest  fcp.Hash `cbor:"manifest"`
	Seq       uint64   `cbor:"seq"`
	Events    uint64   `cbor:"events"`
	Bodies    uint64   `cbor:"bodies"`
	StateRoot fcp.Hash `cbor:"state_root"`
	Started   uint64   `cbor:"started"` // unix seconds
	Millis    uint64   `cbor:"millis"`
	Failure   uint64   `cbor:"failure"` // code; 0: passed
}

// maxDrillWhere bounds the name of a place in a drill's record, in bytes.
const maxDrillWhere = 1024

// Drill restores a backup as one would after a loss, into a scratch directory:
// through Restore, then everything is verified and replayed from the log of the
// restored store, and the roots are compared. The scratch store is removed. The
// error is the reason the drill did not pass; the result is filled in as far as it
// came, so that it can be recorded either way.
func Drill(ctx context.Context, s blob.Store, where string, o DrillOptions) (r DrillResult, err error) {
	o.setDefaults()
	r = DrillResult{Where: where, Started: o.Now()}
	defer func() {
		r.Elapsed = o.Now().Sub(r.Started)
		r.Failure = fcp.CodeOf(err)
	}()
	dir := o.FS.PathJoin(o.Scratch, "drill")
	defer func() {
		err = errors.Join(err, fcp.Wrap(fcp.CodeDisk, o.FS.RemoveAll(dir), "remove the scratch store"))
	}()
	restored, err := RestoreFrom(ctx, s, where, dir, RestoreOptions{Environment: o.Environment, Owner: o.Owner, Device: "drill", Manifest: o.Manifest, Progress: o.Progress})
	if err != nil {
		return r, err
	}
	r.Seq, r.Manifest, r.Created, r.Events, r.Segments, r.StateRoot = restored.Seq, restored.Manifest, restored.Created, restored.Events, restored.Segments, restored.StateRoot
	e, err := Open(ctx, dir, Options{Environment: o.Environment})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	r.Genesis = e.genesis.ID
	report, err := e.Verify(ctx, VerifyOptions{Bodies: true, Progress: o.Progress})
	r.Bodies = report.Bodies
	if err != nil {
		return r, err
	}
	if len(report.Findings) > 0 {
		f := report.Findings[0]
		return r, fcp.Errorf(f.Code, "%d findings in the restored store, the first: %s", len(report.Findings), f.What)
	}
	_, err = e.Replay(ctx, ReplayOptions{Verify: true, Progress: o.Progress})
	return r, err
}

// RecordDrill appends the result of a drill to the local plane. A drill of another
// store's backup says nothing about this one's: fcp.CodeInvalidArgument.
func (e *Engine) RecordDrill(ctx context.Context, r DrillResult) error {
	if r.Genesis != (fcp.Hash{}) && r.Genesis != e.genesis.ID {
		return fcp.Errorf(fcp.CodeInvalidArgument, "%s is a backup of another store, so its drill is not recorded in this one", r.Where).
			WithNext("drill a backup of this store, or name the other store with --dir")
	}
	where := r.Where
	if len(where) > maxDrillWhere {
		where = where[:maxDrillWhere]
	}
	body, err := fcp.MarshalPayload(fcp.SchemaBackupDrill, drillObject{Format: governanceFormat, Where: where, Manifest: r.Manifest, Seq: r.Seq,
		Events: r.Events, Bodies: r.Bodies, StateRoot: r.StateRoot, Started: uint64(max(r.Started.Unix(), 0)),
		Millis: uint64(max(r.Elapsed.Milliseconds(), 0)), Failure: uint64(r.Failure)})
	if err != nil {
		return err
	}
	_, err = e.log.Append(ctx, []log.Draft{{Zone: fcp.ZoneOwner, Plane: fcp.PlaneLocal, Under: e.genesis.ID,
		Content: fcp.Content{Kind: fcp.KindBackupDrilled, Body: body}}})
	return err
}

// LastDrill returns the newest recorded drill; ok is false when there is none.
func (e *Engine) LastDrill(ctx context.Context) (r DrillResult, ok bool, err error) {
	for _, f := range e.log.Feeds() {
		if f.Feed.Plane != fcp.PlaneLocal || f.Seq == 0 {
			continue
		}
		err = e.log.ScanFeed(ctx, f.No, 1, 0, log.VerifyNone, func(events []log.Applied) error {
			for i := range events {
				if events[i].Content.Kind != fcp.KindBackupDrilled {
					continue
				}
				var o drillObject
				if err := fcp.UnmarshalPayload(fcp.SchemaBackupDrill, events[i].Content.Body, &o); err != nil {
					return err
				}
				if at := time.Unix(int64(o.Started), 0).UTC(); !ok || !at.Before(r.Started) {
					ok = true
					r = DrillResult{Where: o.Where, Seq: o.Seq, Manifest: o.Manifest, Events: o.Events, Bodies: o.Bodies, StateRoot: o.StateRoot,
						Started: at, Elapsed: time.Duration(o.Millis) * time.Millisecond, Failure: fcp.Code(o.Failure)}
				}
			}
			return nil
		})
		if err != nil {
			return r, false, err
		}
	}
	return r, ok, nil
}
