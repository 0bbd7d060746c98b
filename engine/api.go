package engine

import (
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
	"fcp/authority"
	"fcp/log"
)

// DefaultZone is the zone of a request that names none.
const DefaultZone = fcp.ZonePrivate

// Environment is what the engine takes from outside. The zero value is the
// operating system.
type Environment struct {
	FS     vfs.FS           // nil: the operating system's
	Now    func() time.Time // nil: the wall clock
	Rand   io.Reader        // nil: crypto/rand; safe for concurrent use otherwise
	Logger *slog.Logger     // nil: discard
}

// InitOptions configures Init.
type InitOptions struct {
	Environment

	// Owner is an existing identity, from words or a file. nil: a new one is made.
	Owner *authority.OwnerKey
	// SaveOwner is called with the owner key before anything of the store exists,
	// so that no store is ever made whose identity is lost. It writes the identity
	// file (authority/keystore). nil: the caller already holds Owner.
	SaveOwner func(*authority.OwnerKey) error
	// Device is the display name of this node; "" is "node".
	Device string
}

// InitResult says what Init made.
type InitResult struct {
	Dir     string
	Owner   authority.OwnerPublic
	Writer  fcp.WriterID // this node
	Genesis fcp.Hash     // id of the genesis checkpoint
	Zones   []fcp.ZoneID // ascending
	Events  int          // appended
}

// Options configures Open. The zero value opens for writing.
type Options struct {
	Environment

	ReadOnly bool // no writes to the log, no flush of state

	// The node's own keys are read from dir/keys/node. Recovery, when given, opens
	// the zone keys by the owner's recovery recipient instead: for a node whose own
	// boxes are missing (restore, forensic reading).
	Recovery *authority.RecoveryKey

	FlushEvents   int           // folded events after which state is flushed; 0: 300,000
	Workers       int           // decoding goroutines of scans; 0: GOMAXPROCS
	SegmentTarget int           // passed to the log; 0: its default
	CommitTimeout time.Duration // passed to the log; 0: its default
	CacheBytes    int64         // passed to the log; 0: its default
	MemTableBytes int           // passed to the log; 0: its default
	MarkInterval  time.Duration // passed to the log; 0: its default
	NoBallast     bool          // passed to the log
}

// At is a point of this node's history. The zero At is now. Position wins over
// Time; a Time means the last position at or before it.
type At struct {
	Position uint64
	Time     time.Time
}

// IsNow reports whether a is the zero At.
func (a At) IsNow() bool { return a.Position == 0 && a.Time.IsZero() }

// ExpectKind selects what a writer expects of a name's current version.
type ExpectKind uint8

// The expectations. They are local promises: another node may write meanwhile.
const (
	ExpectAnything   ExpectKind = iota // no condition
	ExpectAbsent                       // no version, or only removed ones
	ExpectGeneration                   // exactly one head with this generation
	ExpectHash                         // exactly one head whose hash begins with Prefix
)

// Expect is a condition on the current version of a name. The zero value is none.
type Expect struct {
	Kind       ExpectKind
	Generation uint64
	Prefix     string // lower-case hex, at least MinHashPrefix digits
}

// MinHashPrefix is the fewest hex digits that name a version.
const MinHashPrefix = 8

// ParseExpect reads the form of the command line: "" or "any", "absent", a
// generation in decimal, or at least MinHashPrefix hex digits of a head's hash.
// A number of fewer than MinHashPrefix digits is a generation.
func ParseExpect(s string) (Expect, error) {
	switch s {
	case "", "any":
		return Expect{}, nil
	case "absent":
		return Expect{Kind: ExpectAbsent}, nil
	}
	if len(s) < MinHashPrefix {
		if n, err := strconv.ParseUint(s, 10, 64); err == nil && n > 0 {
			return Expect{Kind: ExpectGeneration, Generation: n}, nil
		}
	}
	p := strings.ToLower(s)
	if len(p) < MinHashPrefix || len(p) > 2*fcp.HashSize || strings.Trim(p, "0123456789abcdef") != "" {
		return Expect{}, fcp.Errorf(fcp.CodeInvalidArgument,
			"expect %.80q is not absent, a generation, or %d to %d hex digits of a version's hash", s, MinHashPrefix, 2*fcp.HashSize)
	}
	return Expect{Kind: ExpectHash, Prefix: p}, nil
}

// PutRequest is a write of one object under a name.
type PutRequest struct {
	Zone fcp.ZoneID // "": DefaultZone
	Key  string     // the name, UTF-8, 1 to fcp.MaxKey bytes

	// Body is read to its end; nil: Bytes is the payload. Memory stays constant
	// whatever the length.
	Body  io.Reader
	Bytes []byte

	Expect      Expect
	Idempotency string // caller's key; "": none. At most 1 KiB.
	DryRun      bool   // nothing is written; the result says what would be
}

// RemoveRequest is a tombstone for a name. The versions before stay in history.
type RemoveRequest struct {
	Zone        fcp.ZoneID
	Key         string
	Expect      Expect
	Idempotency string
	DryRun      bool
}

// PutResult is the place and identity of a written version.
type PutResult struct {
	Version
	Duplicate bool // an earlier write with the same idempotency key; Version is that one
	DryRun    bool
	Replaced  int            // heads the version replaced
	Chunks    int            // of a large object
	Reused    int            // chunks that the zone had already, or that occur in it more than once
	Planned   []PlannedEvent // DryRun only: what would be appended, in order
}

// PlannedEvent is one event that a dry run would have appended.
type PlannedEvent struct {
	Plane      string       `json:"plane"`
	Kind       string       `json:"kind"`
	Key        string       `json:"key,omitempty"`
	Object     fcp.ObjectID `json:"object"`
	Generation uint64       `json:"generation,omitempty"`
	Body       int          `json:"body"` // bytes of ciphertext
}

// Version is one version of a name: the event that wrote it and what it says.
type Version struct {
	Hash       fcp.Hash     // of the event; the identity of the version
	Generation uint64       // from 1
	Time       fcp.Time     // of the event
	Writer     fcp.WriterID // who wrote it
	Feed       log.FeedNo   // local number of its feed
	Seq        uint64       // in its feed
	Position   uint64       // local position of the event
	Object     fcp.ObjectID // zero for a tombstone
	Size       uint64       // bytes of payload
	Tombstone  bool
}

// Entry is the current state of a name: its heads, the displayed one first, in
// the order (generation, time, writer, seq) descending.
type Entry struct {
	Zone  fcp.ZoneID
	Key   string
	Heads []Version // at least one; more than one is a conflict
	Since uint64    // local position from which on these were the heads
	Until uint64    // last position with these heads; 0: still so
}

// Head returns the displayed version.
func (e *Entry) Head() *Version { return &e.Heads[0] }

// Siblings returns how many other versions are concurrent with the displayed one.
func (e *Entry) Siblings() int { return len(e.Heads) - 1 }

// Removed reports whether every head is a tombstone.
func (e *Entry) Removed() bool {
	for i := range e.Heads {
		if !e.Heads[i].Tombstone {
			return false
		}
	}
	return true
}

// GetRequest names what to read: a key, or an object by id (then Key is "" and
// At does not apply, an object never changes). Version picks one version of the
// key by its event hash, current or not.
type GetRequest struct {
	Zone    fcp.ZoneID
	Key     string
	Object  fcp.ObjectID
	Version fcp.Hash
	At      At
	Range   *Range // the bytes to read; nil: all
}

// Info describes what a Reader reads.
type Info struct {
	Zone     fcp.ZoneID
	Key      string  // "" when read by object id
	Version  Version // zero but for Object and Size when read by object id
	Siblings int     // other heads of the key
	Size     int64   // bytes of payload
	Chunks   int     // 0 for an object in one piece
	AsOf     uint64  // local position of the state that answered
}

// ListRequest selects names of one zone in byte order.
type ListRequest struct {
	Zone    fcp.ZoneID
	Prefix  string
	After   string // names behind this one only
	At      At
	Limit   int  // 0: no limit
	Removed bool // removed names too
}

// SubscribeOptions select a stream of events.
type SubscribeOptions struct {
	// From is the first position wanted; 0 is the beginning. With a Name the
	// stream begins behind the stored checkpoint if there is one.
	From uint64
	// Name makes the stream durable: after fn returned nil for a batch its last
	// position is the checkpoint. A crash between the two gives the batch again.
	Name string
	// Live keeps the stream open at the end of the log; without it Subscribe
	// returns there.
	Live bool
	// Verify is the level for events that come from the log.
	Verify log.VerifyLevel
}

// TailRequest selects events for people.
type TailRequest struct {
	Zone   fcp.ZoneID // "": all
	Key    string     // "": all
	Kinds  []fcp.Kind // nil: all
	From   uint64     // first position; 0: Last decides
	Last   int        // begin this many positions before the end; 0 with From 0: everything
	To     uint64     // last position; 0: the end
	Follow bool       // go on with new events
}

// EventRow is one event for people; its JSON form is stable.
type EventRow struct {
	Position    uint64       `json:"position"`
	Zone        fcp.ZoneID   `json:"zone"`
	Plane       string       `json:"plane"`
	Writer      fcp.WriterID `json:"writer"`
	Incarnation uint64       `json:"incarnation"`
	Seq         uint64       `json:"seq"`
	Time        time.Time    `json:"time"`
	Kind        string       `json:"kind"`
	Key         string       `json:"key,omitempty"`
	Object      fcp.ObjectID `json:"object"`
	Generation  uint64       `json:"generation,omitempty"`
	Replaces    []fcp.Hash   `json:"replaces,omitempty"`
	Size        uint64       `json:"size,omitempty"`
	Body        int          `json:"body"` // bytes stored
	Hash        fcp.Hash     `json:"hash"`
}

// Row is one entry of any projection, ready for JSON. Fields are those of the
// projection's documentation in docs/format.md; values are strings, integers,
// booleans, or lists and maps of them.
type Row struct {
	Zone   fcp.ZoneID     `json:"zone"`
	Key    string         `json:"key"`
	Fields map[string]any `json:"fields"`
}

// ProjectionInfo describes one projection.
type ProjectionInfo struct {
	Name     string `json:"name"`
	Version  uint32 `json:"version"`
	Local    bool   `json:"local"`             // not part of any root
	Building bool   `json:"building"`          // a new version is being built behind the old one
	Serving  uint32 `json:"serving"`           // the version that answers now
	Entries  uint64 `json:"entries,omitempty"` // filled by Status with Count
}

// Progress is told now and then during long work. Total may be 0: unknown.
type Progress struct {
	Stage string // "scan", "root"
	Done  uint64 // positions
	Total uint64
}

// ReplayOptions configures Replay.
type ReplayOptions struct {
	Scratch  string         // an empty or new directory, which keeps the rebuilt state; "": memory
	Verify   bool           // compare the roots; unequal is CodeRootMismatch
	Progress func(Progress) // may be nil; called from one goroutine
}

// ReplayReport says what Replay did.
type ReplayReport struct {
	Events    uint64
	Position  uint64 // the state's position on both sides
	Elapsed   time.Duration
	Rebuilt   time.Duration // the part of it until the new state was complete, and durable with Scratch
	Root      fcp.Hash      // of the rebuilt state
	LiveRoot  fcp.Hash      // of the engine's state
	ZoneRoots map[fcp.ZoneID]fcp.Hash
	Identical bool
}

// Status is what `fcpctl status` shows of a store.
type Status struct {
	Dir         string
	Format      int
	Owner       authority.OwnerPublic
	Writer      fcp.WriterID
	Device      string
	Incarnation uint64
	StoreID     [16]byte
	Position    uint64 // durable end of the log
	Applied     uint64 // position the state reflects
	Flushed     uint64 // position of the flushed state; what is behind is folded again at open
	ReadOnly    bool
	Full        bool         // writes are refused for want of space
	Zones       []ZoneStatus // ascending
	Feeds       []log.FeedState
	Segments    int
	Projections []ProjectionInfo
}

// ZoneStatus is the part of Status for one zone.
type ZoneStatus struct {
	Zone    fcp.ZoneID
	Levels  fcp.Levels
	HasKeys bool // this node can read and write the zone
	Control uint64
	Data    uint64 // events of the data plane
}

// VerifyReport says what Verify checked. Findings are in log order; a report
// without findings is a store in which nothing is wrong that was looked at.
type VerifyReport struct {
	Events    uint64
	Feeds     int
	Segments  int
	Bodies    uint64 // object ids recomputed from decrypted bodies
	StateRoot fcp.Hash
	Findings  []Finding
	Elapsed   time.Duration
}

// Finding is one thing that is wrong.
type Finding struct {
	Code     fcp.Code
	Position uint64 // 0 when it concerns no single position
	Feed     log.FeedNo
	Seq      uint64
	What     string
}

// VerifyOptions configures Verify.
type VerifyOptions struct {
	Bodies   bool           // decrypt every body and recompute its object id
	Replay   bool           // rebuild the state from the log and compare roots
	Progress func(Progress) // may be nil
}
