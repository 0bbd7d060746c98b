package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"time"

	"fcp"
	"fcp/authority"
	"fcp/engine/internal/state"
	"fcp/log"
)

// GCGrace is how old a checkpoint must be before what is garbage as of it may be
// dropped.
const GCGrace = 24 * time.Hour

// rootRule says what an event of a kind keeps of the data plane. A kind without a
// rule is a mistake that a test finds: whoever adds a kind decides.
type rootRule uint8

const (
	rootNone    rootRule = iota + 1 // refers to no body of the data plane
	rootVersion                     // a version of a name: its object, while the version is kept
	rootBody                        // is a body: collected when nothing keeps its object
	rootAlways                      // is never collected, and nor is what it carries
)

// rootRules are the rules of all kinds. Control events are all kept, so what is
// only in them (idempotency tags, receipts, grants, audit entries) stays for ever.
var rootRules = map[fcp.Kind]rootRule{
	fcp.KindObjectPut:         rootVersion,
	fcp.KindObjectTombstone:   rootNone,
	fcp.KindObjectBody:        rootBody,
	fcp.KindChunkPut:          rootBody,
	fcp.KindOpaque:            rootAlways,
	fcp.KindSchemaDefined:     rootNone,
	fcp.KindSegmentSealed:     rootNone,
	fcp.KindZoneDefined:       rootNone,
	fcp.KindZoneKeyManifest:   rootNone,
	fcp.KindDeviceEnrolled:    rootNone,
	fcp.KindSecretShared:      rootNone,
	fcp.KindPinSet:            rootNone, // it names names, whose versions are kept while they are the present ones
	fcp.KindCheckpointSigned:  rootNone, // its pins are roots of their own
	fcp.KindRevocationIssued:  rootNone,
	fcp.KindStoreRestored:     rootNone,
	fcp.KindPolicySet:         rootNone,
	fcp.KindAttestationIssued: rootNone,
	fcp.KindDelegationIssued:  rootNone,
	fcp.KindIssuersSet:        rootNone,
	fcp.KindRoleDefined:       rootNone,
	fcp.KindRoleAssigned:      rootNone,
	fcp.KindPrincipalBound:    rootNone,
	fcp.KindCapabilityGranted: rootNone,
	fcp.KindApprovalGranted:   rootNone,
	fcp.KindDecisionRecorded:  rootNone,
	fcp.KindAuditEntry:        rootNone,
	fcp.KindAuditHead:         rootNone,
	fcp.KindForkProven:        rootNone,
	fcp.KindBackupDrilled:     rootNone,
	fcp.KindLeaseGranted:      rootNone,
	fcp.KindLeaseReleased:     rootNone,
	fcp.KindLeasePromised:     rootNone,
	fcp.KindFenceRaised:       rootNone,
	fcp.KindStateDefined:      rootNone, // states ride in control events
	fcp.KindStateWritten:      rootNone,
	fcp.KindStateDelta:        rootNone,
	fcp.KindStateSnapshot:     rootNone,
	fcp.KindDeletionAcked:     rootNone,
	fcp.KindObjectForgotten:   rootNone,
}

// mark is what one zone must keep as of a checkpoint.
type mark struct {
	e    *Engine
	ctx  context.Context
	zone *zoneKeys
	no   uint16

	checkpoint placedCheckpoint
	retention  authority.Retention // the most that this checkpoint and newer ones ask for
	horizon    fcp.Time
	position   uint64              // versions that ended before it may go
	sealed     map[fcp.Feed]uint64 // how far data feeds are in segments that the checkpoint knows of

	waitsFor []string // names of members that acknowledged no mark so new as could be used by its age
	versions uint64
	live     []uint64 // first 8 bytes of the objects that stay, ascending; an id too many keeps too much, never too little
	chunked  map[fcp.ObjectID]bool
}

// newMark finds the newest checkpoint that is old enough and that every other member
// acknowledged. CodeUnauthorized when none is old enough, CodeDependency while members
// hold it up; then the mark only says which.
func (e *Engine) newMark(ctx context.Context, zone fcp.ZoneID, grace time.Duration) (*mark, error) {
	m := &mark{e: e, ctx: ctx, zone: e.ring.Load().zones[zone], chunked: map[fcp.ObjectID]bool{}}
	if m.zone == nil {
		return m, e.unknownZone(zone)
	}
	m.no, _ = e.fold.zoneNumber(zone)
	all, err := e.checkpoints(zone)
	if err != nil {
		return m, err
	}
	due := e.env.Now().Add(-max(grace, GCGrace))
	at := len(all) - 1
	for at >= 0 && all[at].at.After(due) {
		at--
	}
	old := at
	acked, upTo, err := e.acknowledgements(zone, all)
	if err != nil {
		return m, err
	}
	for len(acked) > 0 && at >= 0 && all[at].Seq() > upTo {
		at--
	}
	for _, a := range acked {
		if old >= 0 && a.Mark < all[old].Seq() {
			m.waitsFor = append(m.waitsFor, a.Name)
		}
	}
	slices.Sort(m.waitsFor)
	switch {
	case len(all) == 0:
		return m, fcp.Errorf(fcp.CodeUnauthorized, "zone %s has no retention mark of its owner, and without one nothing is dropped", zone).
			WithNext("sign one with `fcpctl zone retain --identity FILE`; a day later `fcpctl segment compact` may use it")
	case at < 0 && old >= 0:
		return m, fcp.Errorf(fcp.CodeDependency, "retention mark %d of zone %s waits for %s to acknowledge it, and until then nothing is dropped",
			all[old].Seq(), zone, strings.Join(m.waitsFor, ", ")).WithNext("start those devices, or take one that will not come back out with `fcpctl device lost NAME`")
	case at < 0:
		ready := all[0].at.Add(max(grace, GCGrace))
		return m, fcp.Errorf(fcp.CodeUnauthorized, "the oldest retention mark of zone %s is of %s, and what it makes garbage is kept until %s",
			zone, all[0].at.UTC().Format(time.RFC3339), ready.UTC().Format(time.RFC3339)).WithNext("run this again after " + ready.UTC().Format(time.RFC3339))
	}
	if here, err := e.holdsMark(&all[at]); err != nil || !here {
		if err == nil {
			err = fcp.Errorf(fcp.CodeDependency, "retention mark %d of zone %s covers events that are not here yet", all[at].Seq(), zone).
				WithNext("let this device meet the others first")
		}
		return m, err
	}
	m.checkpoint, m.retention = all[at], all[at].Retention()
	for _, c := range all[at:] { // a newer one may ask for more at once, for less only when its own day has passed
		r := c.Retention()
		m.retention.History = max(m.retention.History, r.History)
		m.retention.Versions = max(m.retention.Versions, r.Versions)
	}
	if err := m.findHorizon(); err != nil {
		return m, err
	}
	if err := m.findSealed(); err != nil {
		return m, err
	}
	return m, m.collect(all[at:])
}

// findHorizon finds the position before which ended versions may go: everything
// before it is older than the history asked for and covered by the checkpoint.
func (m *mark) findHorizon() (err error) {
	oldest := m.checkpoint.CreatedAt().Add(-m.retention.History)
	if oldest.UnixMilli() <= 0 {
		m.position = 1
		return nil
	}
	if m.position, err = m.e.settled(m.zone.zone, fcp.TimeFromWall(oldest), &m.checkpoint); err != nil {
		return err
	}
	feeds := m.e.log.Feeds()
	// As a time, so that another store finds it: of the youngest event before it.
	for _, f := range feeds {
		if f.Feed.Zone != m.zone.zone || f.Feed.Plane != fcp.PlaneControl {
			continue
		}
		seq, err := lastOf(f, func(seq uint64) (bool, error) {
			p, err := m.e.log.PositionOf(f.No, seq)
			return p < m.position, err
		})
		if err != nil {
			return err
		}
		if seq == 0 {
			continue
		}
		ev, _, err := m.e.log.Read(f.No, seq)
		if err != nil {
			return err
		}
		m.horizon = max(m.horizon, ev.Time)
	}
	return nil
}

// findSealed finds what the checkpoint covers of data feeds that its signer does not
// hold: the segments of which a control event told that it covers.
func (m *mark) findSealed() error {
	m.sealed = map[fcp.Feed]uint64{}
	return m.e.toldSegments(m.zone.zone, func(told *fcp.Event, r *log.Remainder) error {
		if f := r.Feed(); f.Writer == told.Feed.Writer && told.Seq <= m.checkpoint.Covers(told.Feed) {
			m.sealed[f] = max(m.sealed[f], r.Last)
		}
		return nil
	})
}

// covers returns the last event of a data feed that the checkpoint covers.
func (m *mark) covers(f fcp.Feed) uint64 { return max(m.checkpoint.Covers(f), m.sealed[f]) }

// collect gathers every object that stays. It must come to its end: a mark that
// could not look at everything is none.
func (m *mark) collect(pinning []placedCheckpoint) error {
	// Names before history: a version that is replaced in between is in both.
	err := m.e.eachVersion(m.ctx, m.no, m.position, m.retention.Versions, m.version)
	if err != nil {
		return fcp.Wrap(fcp.CodeInternal, err, "mark what zone %s keeps", m.zone.zone)
	}
	for _, c := range pinning {
		for _, id := range c.Pins() {
			if err := m.pin(id); err != nil {
				return err
			}
		}
	}
	slices.Sort(m.live)
	m.live = slices.Compact(m.live)
	return nil
}

func (m *mark) version(h *head) error {
	m.versions++
	if m.e.forgets().object(m.zone.zone, h.object) {
		return nil // nobody can read it any more
	}
	m.add(h.object)
	if h.size <= fcp.ChunkSize || m.chunked[h.object] {
		return nil
	}
	m.chunked[h.object] = true
	chunks, err := m.e.chunksOf(m.ctx, m.zone, Version{Feed: h.feed, Seq: h.seq, Object: h.object, Position: h.position})
	for _, id := range chunks {
		m.add(id)
	}
	return err
}

func (m *mark) pin(id fcp.ObjectID) error {
	m.add(id)
	r := &Reader{e: m.e, ctx: m.ctx, zone: m.zone, info: Info{Zone: m.zone.zone}}
	err := r.byObject(id)
	if r.manifest != nil {
		for _, c := range r.manifest.Chunks {
			m.add(c)
		}
	}
	if errors.Is(err, fcp.CodeNotFound) || errors.Is(err, fcp.CodeKeyForgotten) || errors.Is(err, fcp.CodeHorizon) || errors.Is(err, fcp.CodeNotEnough) {
		return nil // nothing here to keep
	}
	return err
}

func (m *mark) add(id fcp.ObjectID) { m.live = append(m.live, binary.BigEndian.Uint64(id[:])) }

// keeps reports whether an event of a data feed stays.
func (m *mark) keeps(covered uint64, seq uint64, kind fcp.Kind, object fcp.ObjectID) bool {
	return seq > covered || rootRules[kind] != rootBody || m.keepsObject(object)
}

func (m *mark) keepsObject(object fcp.ObjectID) bool {
	if object.IsZero() {
		return true
	}
	_, ok := slices.BinarySearch(m.live, binary.BigEndian.Uint64(object[:]))
	return ok
}

// chunksOf returns the chunks of a version above one chunk. One whose key was
// forgotten has none that can be read.
func (e *Engine) chunksOf(ctx context.Context, z *zoneKeys, v Version) ([]fcp.ObjectID, error) {
	r := &Reader{e: e, ctx: ctx, zone: z, info: Info{Zone: z.zone}}
	err := r.byVersion(v)
	if errors.Is(err, fcp.CodeKeyForgotten) {
		return nil, nil
	}
	if err != nil || r.manifest == nil {
		return nil, err
	}
	return r.manifest.Chunks, nil
}

// eachVersion calls fn with every version of a zone's names that has an object and
// is current, ended at or behind a position, or is one of the newest of its name
// that ended before. It may call fn twice with one version.
func (e *Engine) eachVersion(ctx context.Context, zone uint16, position, newest uint64, fn func(*head) error) error {
	var r nameRecord
	record := func() error {
		for i := range r.heads {
			if h := &r.heads[i]; !h.tombstone {
				if err := fn(h); err != nil {
					return err
				}
			}
		}
		return nil
	}
	prefix := appendPrefix(nil, zone, e.fold.slot(projNames))
	err := e.st.Scan(prefix, upperBound(prefix), func(_ []byte, v state.Value) (bool, error) {
		if err := r.decode(v); err != nil {
			return false, err
		}
		return true, record()
	})
	if err != nil {
		return err
	}
	return e.eachEnded(ctx, zone, position, newest, func(_ []byte, v state.Value, kept bool) error {
		if !kept {
			return nil
		}
		if err := r.decodeHistory(v); err != nil {
			return err
		}
		return record()
	})
}

// endedEntry is a history entry that waits to know how many newer ones its name has.
type endedEntry struct {
	key   []byte
	local []byte
}

// eachEnded calls fn with every entry of a zone's history, and says whether it is
// kept: it ended at or behind position, or it is among the newest of its name that
// ended before. Entries of a name come together.
func (e *Engine) eachEnded(ctx context.Context, zone uint16, position, newest uint64, fn func(key []byte, v state.Value, kept bool) error) error {
	var name []byte
	var old []endedEntry // of the name, ended before position, the newest last
	give := func() error {
		for i, o := range old {
			if err := fn(o.key, state.Value{Local: o.local}, uint64(len(old)-i) <= newest); err != nil {
				return err
			}
		}
		old = old[:0]
		return nil
	}
	prefix := appendPrefix(nil, zone, e.fold.slot(projHistory))
	err := e.st.Scan(prefix, upperBound(prefix), func(key []byte, v state.Value) (bool, error) {
		if ctx.Err() != nil {
			return false, interrupted(ctx)
		}
		n, until, ok := splitHistoryKey(key[keyPrefix:])
		if !ok {
			return false, errNameRecord
		}
		if string(n) != string(name) {
			if err := give(); err != nil {
				return false, err
			}
			name = append(name[:0], n...)
		}
		if until >= position {
			return true, fn(key, v, true)
		}
		old = append(old, endedEntry{slices.Clone(key), slices.Clone(v.Local)})
		return true, nil
	})
	if err != nil {
		return err
	}
	return give()
}
