package log

import (
	"crypto/ed25519"
	"io"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"fcp"
)

// FeedNo is this store's own short number for a feed. It never leaves the store.
type FeedNo uint32

// Options configures Open. The zero value of every field but Writer is usable;
// Sealer and Signer are needed to seal.
type Options struct {
	FS     vfs.FS           // nil: the operating system
	Now    func() time.Time // nil: time.Now; the wall clock behind the hybrid clock
	Rand   io.Reader        // nil: crypto/rand
	Logger *slog.Logger     // nil: discard

	Writer   fcp.WriterID // this node; must match the store's
	Create   bool         // make the store when there is none
	ReadOnly bool         // no recovery writes, no appends

	Sealer  Sealer  // nil: runs are never sealed
	Signer  Signer  // nil: runs are never sealed
	Guard   Guard   // nil: nothing is checked
	Applier Applier // nil: nobody is told

	// OnCrash is called once when a disk error stops the log; the process should
	// end soon after. It may be called on any goroutine and must not call the log.
	OnCrash func(error)

	SegmentTarget  int           // plaintext bytes of a sealed run; 0: fcp.SegmentTarget
	CacheBytes     int64         // Pebble block cache; 0: 32 MiB
	MemTableBytes  int           // Pebble memtable; 0: 16 MiB
	MaxGroupBytes  int           // encoded bytes in one commit group; 0: 8 MiB
	MarkInterval   time.Duration // between high-water marks under load; 0: 100 ms
	CommitTimeout  time.Duration // bound on one Append without a deadline of its own; 0: 30 s
	DiskReserve    uint64        // appends are refused while less is free; 0: 32 MiB
	BallastBytes   int64         // file that is given up when the disk fills; 0: 16 MiB
	DisableBallast bool          // no ballast file (tests, read-mostly tools)
	DisableMark    bool          // no high-water mark thread (benchmarks of the bare path)
}

// Signer signs segment cards and tree heads with the node's signing key.
type Signer interface {
	Public() ed25519.PublicKey
	Sign(message []byte) ([]byte, error)
}

// Run names the events of one segment. Its Address is bound into the wrapped key
// and into every frame, so that a segment is valid in one place only.
type Run struct {
	Feed  fcp.Feed
	First uint64 // sequence number of the first event
	Last  uint64
}

// Sealer encrypts segments. Implementations must be safe for concurrent use.
type Sealer interface {
	// NewSegment makes a random segment key for the run and returns its cipher,
	// the key wrapped by the zone key, and the id of that zone key.
	NewSegment(run Run) (c SegmentCipher, wrapped []byte, zoneKey fcp.Hash, err error)
	// OpenSegment unwraps a segment key.
	OpenSegment(run Run, wrapped []byte, zoneKey fcp.Hash) (SegmentCipher, error)
}

// SegmentCipher seals and opens the frames of one segment. The last frame is
// marked so that truncation at a frame boundary is detected.
type SegmentCipher interface {
	Overhead() int
	SealFrame(dst, plaintext []byte, index uint32, last bool) []byte
	OpenFrame(dst, ciphertext []byte, index uint32, last bool) ([]byte, error)
}

// Draft is an event before the log gives it a place. The log does not keep
// slices of it after Append returns.
type Draft struct {
	Zone    fcp.ZoneID
	Plane   fcp.Plane
	Under   fcp.Hash // checkpoint it is authorised under
	Content fcp.Content
	Salt    [SaltSize]byte // goes into the key table beside the event; zero: none
	Expect  Expect         // checked by the Guard inside the committer

	content []byte   // canonical encoding, inside request.buf
	hash    fcp.Hash // fcp.ContentHash
}

// SaltSize is the length of a body salt in the key table.
const SaltSize = 16

// Expect tells the Guard what a draft was built on. The log passes it on and does
// not look inside.
type Expect struct {
	Mode ExpectMode
	Head fcp.Hash // for the Guard's own use with ExpectReplaces
}

// ExpectMode selects whether the Guard checks the head of a draft's name.
type ExpectMode uint8

// The modes. With ExpectReplaces the heads must still be exactly those that the
// draft replaces; on a mismatch the caller reads again and retries.
const (
	ExpectAny ExpectMode = iota
	ExpectReplaces
)

// Placed is where an event ended up.
type Placed struct {
	Position uint64
	Feed     FeedNo
	Seq      uint64
	Time     fcp.Time
	Hash     fcp.Hash // zero on the local plane
}

// Receipt answers one Append.
type Receipt struct {
	Events    []Placed
	Duplicate bool // an earlier append with the same idempotency key; Events is its place, without hash
}

// Guard decides inside the committer, before the batch, whether a draft may be
// appended. It is called by one goroutine at a time, in commit order.
type Guard interface {
	// Check looks at the head and the idempotency tag over base, overlay and the
	// drafts admitted but not yet applied. It returns the earlier place for a
	// known idempotency tag.
	Check(d *Draft) (earlier *Placed, err error)
	// Admit tells that the draft got a place and will be applied. p.Hash is not known
	// yet, so an earlier place that Check returns may lack it too.
	Admit(d *Draft, p Placed)
}

// Applied is one event as projections see it. Slices are valid only during the call.
// Of an event that a compaction dropped only Placed is known, hash included.
type Applied struct {
	Placed
	Under   fcp.Hash
	Content fcp.Content
}

// Dropped reports whether the event's content was dropped by a compaction.
func (a *Applied) Dropped() bool { return a.Content.Kind == fcp.KindNone }

// Applier is called with each durable group before its writers are answered, in
// position order, by one goroutine at a time.
type Applier interface {
	Apply(events []Applied) error
}

// FeedState is the head of a feed.
type FeedState struct {
	No     FeedNo
	Feed   fcp.Feed
	ID     fcp.FeedID
	Own    bool     // this node writes it in this incarnation
	Seq    uint64   // last durable event; 0: none
	Hash   fcp.Hash // its hash
	Time   fcp.Time // its time
	Sealed uint64   // last sealed event; 0: none
	Root   fcp.Hash // Merkle root over Seq leaves; zero on the local plane

	// Horizon is the hybrid time as of which, or before which, reads may miss
	// events that a compaction dropped; 0: nothing was dropped. Compacted is the
	// local number of the feed's last compacted segment, 0 for none.
	Horizon   fcp.Time
	Compacted uint64
}

// VerifyLevel says how much a scan checks.
type VerifyLevel uint8

// Scan levels, each including the ones before.
const (
	VerifyNone  VerifyLevel = iota // decode only; Applied.Hash is zero
	VerifyChain                    // content hashes and hash chain
	VerifyTree                     // Merkle roots besides
)

// ScanOptions select what Scan reads.
type ScanOptions struct {
	From    uint64 // first position; 0 and 1: the beginning
	To      uint64 // last position; 0: the durable end at the call
	Verify  VerifyLevel
	Workers int // goroutines that decode and call; 0 and 1: the caller's alone
}

// SegmentInfo describes a sealed segment held by this store.
type SegmentInfo struct {
	No        uint64 // local number, ascending in sealing order
	Card      fcp.Card
	CardBytes []byte // as signed
	Remainder Remainder
}

// Remainder is what only members learn about a segment. It is the body of the
// segment.sealed event (docs/format.md "Segment remainder").
type Remainder struct {
	Format      uint64     `cbor:"format"`
	Segment     []byte     `cbor:"segment"` // segment id
	Zone        fcp.ZoneID `cbor:"zone"`
	Writer      []byte     `cbor:"writer"`
	Incarnation uint64     `cbor:"incarnation"`
	Plane       uint64     `cbor:"plane"`
	First       uint64     `cbor:"first"` // sequence number of the first event
	Last        uint64     `cbor:"last"`
	Previous    []byte     `cbor:"previous"` // id of the feed's previous segment; empty for the first
	Prev        []byte     `cbor:"prev"`     // hash of event First-1; zeros for the first
	Head        []byte     `cbor:"head"`     // hash of event Last
	Root        []byte     `cbor:"root"`     // Merkle root of the feed at size Last
	Time        uint64     `cbor:"time"`     // hybrid time of event Last
	Plain       uint64     `cbor:"plain"`    // plaintext bytes
	Frames      []uint64   `cbor:"frames"`   // plaintext length of each frame
	Blocks      []uint64   `cbor:"blocks"`   // per block: frame it starts, first sequence number minus First
	Key         []byte     `cbor:"key"`      // wrapped segment key
	ZoneKey     []byte     `cbor:"zone_key"` // id of the zone key that wraps it
	Objects     []byte     `cbor:"objects"`  // data plane: sorted object ids, 32 bytes each
	Seqs        []uint64   `cbor:"seqs"`     // data plane: sequence number minus First of each
	Card        []byte     `cbor:"card"`     // the signed card

	// Format 2, a compacted segment: it stands in place of others.
	Replaces []byte `cbor:"replaces,omitempty"` // ids of the segments it was made from, in the feed's order, 32 bytes each
	Ends     []byte `cbor:"ends,omitempty"`     // id that the feed's next segment names as previous
	Dropped  uint64 `cbor:"dropped,omitempty"`  // events of which only the hash is left
	Horizon  uint64 `cbor:"horizon,omitempty"`  // hybrid time: reads of the zone as of then or before may miss bodies
}

// Feed returns the feed the segment belongs to.
func (r *Remainder) Feed() fcp.Feed {
	f := fcp.Feed{Zone: r.Zone, Incarnation: r.Incarnation, Plane: fcp.Plane(r.Plane)}
	copy(f.Writer[:], r.Writer)
	return f
}
