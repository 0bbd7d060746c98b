package engine

import (
	"encoding/binary"

	"fcp"
	"fcp/engine/internal/state"
	"fcp/log"
)

// Scope says which root a projection's canonical parts belong to.
type Scope uint8

// The scopes. A zone's root covers what control events determine; the state root
// covers data events besides; local state is in neither.
const (
	ScopeZone Scope = iota + 1
	ScopeData
	ScopeLocal
)

// Projection is a pure fold of events into keyed state. Apply must depend on
// nothing but the event and what the Fold reads under the projection's own keys,
// and the canonical part of a key must depend only on the set of events that
// touch it, never on their order: property tests shuffle it. Each event touches
// at most one key of a projection. A change of what is stored is a new Version.
type Projection interface {
	Name() string
	Version() uint32
	Scope() Scope
	Planes() fcp.PlaneSet
	// Touches appends to key the key the event touches; nil when none.
	Touches(ev *Event, key []byte) []byte
	// Apply folds one event that touches the key. Memory per event is bounded.
	Apply(f *Fold, ev *Event, key []byte) error
	// Row describes one entry for people.
	Row(key []byte, v state.Value, row *Row) error
}

// Names of the built-in projections.
const (
	projNames       = "names"
	projHistory     = "history" // written by names
	projCleared     = "cleared" // written by refolds
	projObjects     = "objects"
	projBodies      = "bodies"
	projIdempotency = "idempotency"
	projZones       = "zones"
	projManifests   = "zonekeys"
	projDevices     = "devices"
	projCheckpoints = "checkpoints"
	projSchemas     = "schemas"
	projRevocations = "revocations"
	projSegments    = "segments"

	projPolicies     = "policies"
	projAttestations = "attestations"
	projDelegations  = "delegations"
	projIssuers      = "issuers"
	projRoles        = "roles"
	projAssignments  = "assignments"
	projBindings     = "bindings"
	projCapabilities = "capabilities"
	projApprovals    = "approvals"
	projDecisions    = "decisions"
	projAudit        = "audit"
	projHeads        = "auditheads"
	projForks        = "forks"
	projPins         = "pins"
	projSecrets      = "secrets"
	projLeases       = "leases"
	projReleases     = "releases"
	projPromises     = "promises"
	projFences       = "fences"

	projStateRoots     = "stateroots"
	projStateWrites    = "statewrites"
	projStateDeltas    = "statedeltas"
	projStateSnapshots = "statesnapshots"

	projDeletionAcks = "deletionacks"
	projForgettings  = "forgettings"
)

// Event is one event on its way through the projections. Its slices are valid
// only during the call.
type Event struct {
	*log.Applied
	From *Source
}

// Source is what the fold knows about the feed of an event.
type Source struct {
	Feed fcp.Feed
	ID   fcp.FeedID
	No   log.FeedNo

	zone uint16   // store-local number of the zone
	void uint64   // events from this sequence number on are void; 0: none
	seq  uint64   // last event folded, void ones included
	hash fcp.Hash // its hash
}

// store is what a fold reads and writes. *state.Writer is one. A value may be
// read until the next Get.
type store interface {
	Get(key []byte) (state.Value, bool, error)
	Set(key, canonical, local []byte) error
	Delete(key []byte) error
}

// State keys (docs/format.md "State keys"): u16be zone number, slot, key. Zone
// number 0 is the store's own; its second part is one of the meta bytes. Zone and
// slot numbers are this store's own; digests use the zone's text and the
// projection's name and version instead.
const (
	keyPrefix = 3

	metaZone = 'z' // zone text -> u16be number
	metaSlot = 'p' // projection name -> slot record
)

func metaKey(kind byte, rest string) []byte { return append([]byte{0, 0, kind}, rest...) }

func appendPrefix(b []byte, zone uint16, slot byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, zone), slot)
}

// Fold is what a projection may use while it folds. It is used by one goroutine
// at a time; its buffers are reused from event to event.
type Fold struct {
	store
	slots     *slotTable
	zone      uint16
	refolding bool                                  // history is kept by the refold itself
	history   func(prefix []byte, h *fcp.Hash) bool // nil: unknown

	name                         nameRecord
	version                      head
	aux, canonical, local, value []byte
}

// prefix appends the prefix of a projection in the event's zone.
func (f *Fold) prefix(b []byte, name string) []byte {
	return appendPrefix(b, f.zone, f.slots.serving(name))
}

// place is where an event that carries or heads an object is: the local value of
// objects, bodies and idempotency tags.
//
//	1 flags (bit 0: the event has the body inside), uvar feed, uvar seq, uvar position
type place struct {
	feed     log.FeedNo
	seq      uint64
	position uint64
	inline   bool
}

func (p *place) appendTo(b []byte) []byte {
	flags := byte(0)
	if p.inline {
		flags = 1
	}
	b = append(b, flags)
	b = binary.AppendUvarint(b, uint64(p.feed))
	b = binary.AppendUvarint(b, p.seq)
	return binary.AppendUvarint(b, p.position)
}

func decodePlace(b []byte) (place, error) {
	p := packed{b: b}
	flags, feed := p.byte(), p.uvarint()
	out := place{feed: log.FeedNo(feed), seq: p.uvarint(), position: p.uvarint(), inline: flags == 1}
	if !p.done() || flags > 1 || feed > 1<<32-1 {
		return place{}, fcp.Errorf(fcp.CodeCorrupt, "an event's place in the state does not decode")
	}
	return out, nil
}

// keepFirst stores the place of the event unless an earlier one is there, so that
// the result depends on the set of events only.
func (f *Fold) keepFirst(ev *Event, key []byte) error {
	old, ok, err := f.Get(key)
	if err != nil {
		return err
	}
	if ok {
		p, err := decodePlace(old.Local)
		if err != nil || p.position <= ev.Position {
			return err
		}
	}
	return f.keep(ev, key)
}

// keepLast writes the event's place under the key unless a later one is there.
func (f *Fold) keepLast(ev *Event, key []byte) error {
	old, ok, err := f.Get(key)
	if err != nil {
		return err
	}
	if ok {
		p, err := decodePlace(old.Local)
		if err != nil || p.position >= ev.Position {
			return err
		}
	}
	return f.keep(ev, key)
}

// keep writes the event's place under the key.
func (f *Fold) keep(ev *Event, key []byte) error {
	p := place{feed: ev.Feed, seq: ev.Seq, position: ev.Position, inline: len(ev.Content.Body) > 0}
	f.local = p.appendTo(f.local[:0])
	return f.Set(key, nil, f.local)
}

func placeRow(v state.Value, row *Row) error {
	p, err := decodePlace(v.Local)
	if err != nil {
		return err
	}
	row.Fields = map[string]any{"feed": uint64(p.feed), "seq": p.seq, "position": p.position, "inline": p.inline}
	return nil
}
