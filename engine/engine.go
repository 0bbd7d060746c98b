package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// Engine is an open store. All methods are safe for concurrent use.
type Engine struct {
	env  Environment
	opts Options
	dir  string
	lock io.Closer

	node    *authority.NodeKeys
	genesis *authority.GenesisFacts
	keys    keyDir

	log  *log.Log
	st   *state.Store
	fold *folder
	ring atomic.Pointer[keyring]

	forgotten atomic.Pointer[forgotten] // what the owner ordered to be forgotten; nil: nothing

	applied atomic.Uint64 // the state shows every event up to this position
	gate    sync.Mutex    // held while a group is folded, and by whoever needs a state that stands still

	maintenance sync.Mutex // held by whoever needs the set of segments to stand still: backups, replays, compactions
	holds       holds      // objects that a write under way is about to name

	mu      sync.Mutex
	advance chan struct{} // closed when applied moves; guarded by mu
	waiting bool          // somebody holds advance; guarded by mu
	failed  error         // why folding stopped; guarded by mu

	life       context.Context // ends when the engine closes
	stop       context.CancelFunc
	background sync.WaitGroup
	closed     atomic.Bool
	mesh       meshBodies
	facts      factsCache
	decisions  decisions
	upkeep     upkeep
	heads      headMemo
	leases     leaseTable
	opened     bool // Open came to its end: a close leaves a list of the files
	full       bool // there was no room to write when a store was opened for reading
}

// Open opens the store in dir for this process alone and brings its state up to
// the end of the log before it returns. Errors: CodeNoStore, CodeVersion,
// CodeLocked (at once, it does not wait), CodeWrongKey, CodeCorrupt, CodeDisk. A
// store that lost acknowledged events opens read-only; Log().Doubt says so.
func Open(ctx context.Context, dir string, o Options) (_ *Engine, err error) {
	o.setDefaults()
	if err := CheckFormat(o.FS, dir); err != nil {
		return nil, err
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	e := &Engine{env: o.Environment, opts: o, dir: dir, keys: keyDir{o.FS, o.FS.PathJoin(dir, dirKeys)}}
	e.mesh.salts = make(chan struct{}, 1)
	e.life, e.stop = context.WithCancel(context.Background())
	if e.lock, err = o.FS.Lock(o.FS.PathJoin(dir, fileLock)); err != nil {
		return nil, lockError(dir, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.release())
		}
	}()
	if err := e.loadKeys(); err != nil {
		return nil, err
	}
	if e.full, err = e.isFull(); err != nil {
		return nil, err
	}
	if !e.full { // what is only read stays as it is listed
		if err := e.forgetClean(); err != nil {
			return nil, err
		}
	}
	if err := e.openStores(); err != nil {
		return nil, err
	}
	if err := e.catchUp(ctx); err != nil {
		return nil, err
	}
	if _, err := e.sweep(ctx); err != nil {
		return nil, err
	}
	e.log.Serve()
	e.st.BulkMode(false)
	if err := e.rebuildChanged(ctx); err != nil {
		return nil, err
	}
	e.opened = true
	return e, nil
}

// lockError tells a store that somebody has open from a directory that cannot be
// written.
func lockError(dir string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fcp.Errorf(fcp.CodeUnauthorized, "the store in %s cannot be written by this user: %w", dir, err).
			WithNext("run as the user who owns the directory")
	}
	switch {
	case fcp.IsDiskFull(err):
		return fcp.Wrap(fcp.CodeDiskFull, err, "lock %s", dir)
	case errors.Is(err, syscall.EROFS):
		return fcp.Wrap(fcp.CodeDisk, err, "lock %s", dir)
	}
	return fcp.Errorf(fcp.CodeLocked, "%s", dir)
}

// loadKeys reads dir/keys: who this node is, whose store this is, and what opens
// its zones.
func (e *Engine) loadKeys() (err error) {
	if e.node, err = e.keys.loadNode(); err != nil {
		return lostKey(e.dir, err)
	}
	if e.genesis, _, err = e.keys.loadGenesis(); err != nil {
		return err
	}
	return e.loadRing()
}

func (e *Engine) loadRing() error {
	manifests, err := e.keys.loadManifests()
	if err != nil {
		return err
	}
	ring, err := newKeyring(e.ring.Load(), e.genesis.Owner, e.node, e.opts.Recovery, manifests)
	if err != nil {
		return err
	}
	e.ring.Store(ring)
	return nil
}

func (e *Engine) openStores() (err error) {
	var seed [8]byte
	if _, err := io.ReadFull(e.env.Rand, seed[:]); err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "read randomness")
	}
	hashSeed := binary.BigEndian.Uint64(seed[:])
	lo := logOptions(&e.env, e.node.Writer(), false)
	lo.ReadOnly = e.opts.ReadOnly
	lo.Sealer, lo.Signer = sealer{e}, signer{e.node}
	lo.Guard, lo.Applier = newGuard(e, hashSeed), applier{e}
	lo.SegmentTarget, lo.CommitTimeout, lo.CacheBytes = e.opts.SegmentTarget, e.opts.CommitTimeout, e.opts.CacheBytes
	lo.MemTableBytes, lo.MarkInterval = e.opts.MemTableBytes, e.opts.MarkInterval
	lo.DisableBallast = lo.DisableBallast || e.opts.NoBallast
	if e.log, err = log.Open(e.env.FS.PathJoin(e.dir, dirLog), lo); err != nil {
		return lostLog(e.dir, err)
	}
	return e.openState(hashSeed)
}

// lostLog tells a store whose log is gone from a directory that never was one.
func lostLog(dir string, err error) error {
	if fcp.CodeOf(err) != fcp.CodeNoStore {
		return err
	}
	return lost("the log of the store in %s is gone: the directory %s in it is missing or empty", dir, dirLog)
}

// lostKey tells a store whose key is gone from a key that was never there.
func lostKey(dir string, err error) error {
	if fcp.CodeOf(err) != fcp.CodeNotFound {
		return err
	}
	return lost("the key of the device in %s is gone: the file %s/%s in it is missing", dir, dirKeys, nodeKeyFile)
}

// lost is a store without what only a copy brings back.
func lost(format string, args ...any) error {
	return fcp.Errorf(fcp.CodeCorrupt, format, args...).
		WithNext("restore a backup beside it: `fcpctl --dir NEW restore BACKUP --identity FILE`; without one, another device that is a member has what it took over, and enrolls this one anew: `fcpctl device enroll NAME --to DIR`")
}

// openReserve is the room that opening a store for writing needs, in bytes.
const openReserve = 4 << 20

// isFull reports whether the disk has no room for what an open writes; then a store
// can be opened for reading only. One that is opened for writing gives up its
// ballast first, and is fcp.CodeDiskFull when that is not enough. A file system that
// cannot say is taken to have room.
func (e *Engine) isFull() (bool, error) {
	short := func() bool {
		u, err := e.env.FS.GetDiskUsage(e.dir)
		return err == nil && u.AvailBytes < openReserve
	}
	if !short() {
		return false, nil
	}
	if e.opts.ReadOnly {
		return true, nil
	}
	if err := log.GiveUpBallast(e.env.FS, e.env.FS.PathJoin(e.dir, dirLog)); err != nil {
		return false, err
	}
	if short() {
		return false, fcp.Errorf(fcp.CodeDiskFull, "less than %d MiB is free in %s", openReserve>>20, e.dir).
			WithNext("free some space; what only reads works meanwhile")
	}
	return false, nil
}

func stateOptions(env *Environment, o *Options, seed uint64) state.Options {
	return state.Options{FlushEntries: 3 * o.FlushEvents, HashSeed: seed, Logger: env.Logger,
		Digest: digestOptions()}
}

// openState opens the state. One that does not open for damage, or that is ahead
// of the log, is removed: the log is the truth and everything is folded again.
func (e *Engine) openState(seed uint64) (err error) {
	path := e.env.FS.PathJoin(e.dir, dirState)
	for attempt := range 2 {
		so := stateOptions(&e.env, &e.opts, seed)
		so.Bulk = true // until Open is done
		so.ReadOnly = e.full
		e.st, err = state.Open(e.env.FS, path, so)
		if err == nil {
			e.fold, err = newFolder(e.log, e.st, builtins(e.genesis.Owner, &e.heads), e.genesis.Owner)
		}
		ahead := err == nil && e.st.Cursor() > e.log.Durable()
		if !ahead && !errors.Is(err, fcp.Corrupt) || attempt > 0 {
			break
		}
		e.env.Logger.Warn("the state is damaged or ahead of the log and is folded again", "ahead", ahead, "err", err)
		if e.st != nil {
			if err := e.st.Close(); err != nil {
				e.env.Logger.Warn("closing the damaged state", "err", err)
			}
			e.st = nil
		}
		if err := e.env.FS.RemoveAll(path); err != nil {
			return fcp.Wrap(fcp.CodeDisk, err, "remove the damaged state")
		}
	}
	if err != nil {
		return err
	}
	e.applied.Store(e.fold.position.Load())
	return nil
}

// refoldLimit is the number of events behind the state's cursor from which on an
// open has the state flushed: a process that is killed again and again before it
// flushed by itself would else fold more at each start.
const refoldLimit = 1000

// catchUp folds what is in the log behind the state's cursor.
func (e *Engine) catchUp(ctx context.Context) error {
	behind := e.log.Durable() - e.fold.position.Load()
	err := e.log.Scan(ctx, log.ScanOptions{From: e.fold.position.Load() + 1, Verify: log.VerifyChain, Workers: e.opts.Workers}, e.apply)
	if err != nil {
		return err
	}
	if behind > refoldLimit && !e.opts.ReadOnly {
		e.st.FlushSoon()
	}
	if err := e.loadForgettings(); err != nil {
		return err
	}
	return e.fold.knowHeads()
}

// applier implements log.Applier.
type applier struct{ e *Engine }

func (a applier) Apply(events []log.Applied) error { return a.e.apply(events) }

// apply folds a durable group and lets readers see it. The log calls it for live
// groups, catchUp for those behind the cursor; never both at once.
func (e *Engine) apply(events []log.Applied) error {
	e.gate.Lock()
	err := e.fold.Apply(events)
	e.gate.Unlock()
	if err == nil && e.fold.keysChanged {
		e.fold.keysChanged = false
		err = e.takeManifests(events)
	}
	if err == nil && e.fold.forgetting {
		e.fold.forgetting = false
		err = e.loadForgettings()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err != nil {
		e.failed = fcp.Wrap(fcp.CodeInternal, err, "fold events into the state")
	} else {
		e.applied.Store(events[len(events)-1].Position)
	}
	if e.waiting {
		close(e.advance)
		e.waiting = false
	}
	return e.failed
}

// takeManifests keeps a copy of each new manifest beside the node's keys, because
// the segment that will hold its event can only be opened with it.
func (e *Engine) takeManifests(events []log.Applied) error {
	for i := range events {
		c := &events[i].Content
		if c.Kind != fcp.KindZoneKeyManifest {
			continue
		}
		body := slices.Clone(c.Body)
		if _, err := authority.VerifyManifest(e.genesis.Owner, body); err != nil {
			continue
		}
		if !e.opts.ReadOnly {
			if err := e.keys.saveManifest(body); err != nil {
				return err
			}
		}
	}
	return e.loadRing()
}

// waitApplied waits until the state shows every event up to position.
func (e *Engine) waitApplied(ctx context.Context, position uint64) error {
	for {
		if e.applied.Load() >= position {
			return nil
		}
		next, err := e.moved()
		if err != nil {
			return err
		}
		if e.applied.Load() >= position {
			return nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return interrupted(ctx)
		case <-e.life.Done():
			return errEngineClosed()
		}
	}
}

// moved returns a channel that is closed when applied moves next.
func (e *Engine) moved() (<-chan struct{}, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed != nil {
		return nil, e.failed
	}
	if !e.waiting {
		e.advance, e.waiting = make(chan struct{}), true
	}
	return e.advance, nil
}

func interrupted(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		return fcp.Errorf(fcp.CodeTimeout, "waiting for the store")
	}
	return fcp.Errorf(fcp.CodeInterrupted, "waiting for the store")
}

func errEngineClosed() error { return fcp.Errorf(fcp.CodeClosed, "the engine") }

// Close flushes the state, closes the log and gives the directory free. Writes
// that are waiting are answered first. A second Close does nothing.
func (e *Engine) Close() error {
	if e.closed.Swap(true) {
		return nil
	}
	e.stop()
	e.background.Wait()
	return e.release()
}

func (e *Engine) release() error {
	e.stop()
	var errs []error
	if e.log != nil {
		errs = append(errs, e.log.Close())
	}
	if e.st != nil {
		errs = append(errs, e.st.Close())
	}
	if errors.Join(errs...) == nil && e.log != nil && e.log.Doubt() == nil && !e.full {
		errs = append(errs, e.recordClean())
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	return errors.Join(errs...)
}

// Log returns the log, for proofs, segments and sealing. It closes with the engine.
func (e *Engine) Log() *log.Log { return e.log }

// Genesis returns the checkpoint that anchors the store's trust.
func (e *Engine) Genesis() *authority.GenesisFacts { return e.genesis }

// Node returns the node's public keys.
func (e *Engine) Node() authority.NodePublic { return e.node.Public() }

// Dir returns the store's directory.
func (e *Engine) Dir() string { return e.dir }

// Position returns the position up to which the state shows every event.
func (e *Engine) Position() uint64 { return e.applied.Load() }

// Zones returns the zones that have events here, ascending.
func (e *Engine) Zones() []fcp.ZoneID { return e.fold.zoneList() }

// GenesisBytes returns the genesis checkpoint as signed, and ManifestBytes every
// zone key manifest this node holds a copy of: with the recovery identity they
// open every segment. They are what a backup needs of dir/keys.
func (e *Engine) GenesisBytes() ([]byte, error) {
	_, b, err := e.keys.loadGenesis()
	return b, err
}

// ManifestBytes is described at GenesisBytes.
func (e *Engine) ManifestBytes() ([][]byte, error) { return e.keys.loadManifests() }

// ImportEvents appends events of one foreign feed verbatim (log.Import) and
// returns when the state shows them. taken says how many from the front stand. Keys of
// what the owner ordered to be forgotten are not taken.
func (e *Engine) ImportEvents(ctx context.Context, events []fcp.Event, salts [][log.SaltSize]byte) (taken int, err error) {
	taken, err = e.importForgetting(ctx, events, salts)
	if e := fcp.Wrap(fcp.CodeInternal, err, "import events"); e != nil {
		return taken, e
	}
	return taken, nil
}

// AppendSigned appends an owner-signed governance object: zone.defined,
// zonekey.manifest, device.enrolled, checkpoint.signed or revocation.issued. It verifies the
// signature first; a body the fold would ignore is refused here.
func (e *Engine) AppendSigned(ctx context.Context, zone fcp.ZoneID, kind fcp.Kind, body []byte) (log.Receipt, error) {
	z := e.ring.Load().zones[zone]
	if z == nil {
		return log.Receipt{}, e.unknownZone(zone)
	}
	ev := &Event{&log.Applied{Content: fcp.Content{Kind: kind, Body: body}}, &Source{Feed: fcp.Feed{Zone: zone, Writer: e.node.Writer()}}}
	for _, p := range e.fold.list {
		if r, ok := p.(recordProjection); ok && r.kind == kind {
			if r.Touches(ev, nil) == nil {
				return log.Receipt{}, fcp.Errorf(fcp.CodeSignature, "%s for zone %s is not one that this store's owner signed", kind, zone)
			}
			schema, err := fcp.ParseSchemaID(kind.Info().Schema)
			if err != nil {
				return log.Receipt{}, fcp.Wrap(fcp.CodeInternal, err, "the schema of %s", kind)
			}
			s, err := fcp.LookupSchema(schema)
			if err != nil {
				return log.Receipt{}, err
			}
			return e.log.Append(ctx, []log.Draft{{Zone: zone, Plane: fcp.PlaneControl, Under: e.genesis.ID,
				Content: fcp.Content{Kind: kind, Object: objectIDOf(z.current(), s, body), Body: body}}})
		}
	}
	return log.Receipt{}, fcp.Errorf(fcp.CodeUnknownKind, "%s is not a governance object", kind)
}

// unknownZone says why a zone cannot be used.
func (e *Engine) unknownZone(zone fcp.ZoneID) error {
	if _, ok := e.fold.zoneNumber(zone); ok {
		return errNoZoneKeys(zone)
	}
	return fcp.Errorf(fcp.CodeZone, "%.80q", zone.String())
}
