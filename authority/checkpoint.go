package authority

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/zeebo/blake3"

	"fcp"
)

// Limits of a checkpoint.
const (
	MaxCheckpointFeeds = 1024
	MaxPins            = 2048
)

// Retention is what the owner of a zone wants kept besides the present versions.
type Retention struct {
	// History is how long a version stays readable after it was replaced or
	// removed, to the second, at most 100 years.
	History time.Duration
	// Versions is how many of the newest replaced versions of each name stay
	// whatever their age.
	Versions uint64
}

// DefaultRetention is the retention of a zone whose owner said nothing.
func DefaultRetention() Retention { return Retention{History: 90 * 24 * time.Hour} }

const maxHistory = 100 * 366 * 24 * time.Hour

// CheckpointFeed says how far one feed of the zone reached: the event Seq has the
// hash Hash.
type CheckpointFeed struct {
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Plane       uint8        `cbor:"plane"`
	Seq         uint64       `cbor:"seq"`
	Hash        fcp.Hash     `cbor:"hash"`
}

// CheckpointSpec is what a checkpoint says.
type CheckpointSpec struct {
	Zone     fcp.ZoneID
	Seq      uint64   // from 1; the genesis checkpoint is number 0
	Previous fcp.Hash // CheckpointHash of number Seq-1; for number 1 the genesis id
	Root     fcp.Hash // zone root after exactly the control events that Feeds name
	// Feeds are the chained feeds of the zone. Everything in them was there, and
	// every member has it: what they made garbage may be collected. Alone the
	// members are this node.
	Feeds     []CheckpointFeed
	Retention Retention
	Pins      []fcp.ObjectID // objects that stay whatever happens to their names
}

// checkpointObject is ZoneCheckpoint on the wire, in its native form.
type checkpointObject struct {
	Format        uint64           `cbor:"format"`
	Zone          fcp.ZoneID       `cbor:"zone_id"`
	CheckpointSeq uint64           `cbor:"checkpoint_seq"` // at least 1
	Previous      fcp.Hash         `cbor:"previous"`
	CreatedAt     uint64           `cbor:"created_at"` // unix seconds
	Root          fcp.Hash         `cbor:"root"`
	Feeds         []CheckpointFeed `cbor:"feeds"`            // strictly ascending by writer, incarnation, plane
	History       uint64           `cbor:"history_seconds"`  // 0: replaced versions need not stay
	Versions      uint64           `cbor:"history_versions"` // of each name, whatever their age
	Pins          []fcp.ObjectID   `cbor:"pins,omitempty"`   // strictly ascending
	Issuer        OwnerPublic      `cbor:"issuer"`
	Signature     []byte           `cbor:"signature,omitempty"`
}

// Checkpoint is a verified checkpoint, made by VerifyCheckpoint.
type Checkpoint struct {
	o    checkpointObject
	hash fcp.Hash
}

// CheckpointHash returns BLAKE3-256("FCP2-CHECKPOINT-V1" || bytes): how the next
// checkpoint names this one.
func CheckpointHash(b []byte) (id fcp.Hash) {
	h := blake3.New()
	h.WriteString("FCP2-CHECKPOINT-V1")
	h.Write(b)
	h.Sum(id[:0])
	return id
}

// SignCheckpoint returns the owner-signed checkpoint. Feeds and pins may be in any
// order; none may be there twice.
func SignCheckpoint(now time.Time, owner *OwnerKey, s CheckpointSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	if s.Retention.History < 0 || s.Retention.History > maxHistory {
		return nil, fcp.Errorf(fcp.CodeInvalidArgument, "a history of %s, not 0 to 100 years", s.Retention.History)
	}
	o := checkpointObject{
		Format: ObjectFormat, Zone: s.Zone, CheckpointSeq: s.Seq, Previous: s.Previous, CreatedAt: at, Root: s.Root,
		Feeds:   slices.SortedFunc(slices.Values(s.Feeds), compareCheckpointFeeds),
		History: uint64((s.Retention.History + time.Second - 1) / time.Second), Versions: s.Retention.Versions,
		Pins:   slices.SortedFunc(slices.Values(s.Pins), func(a, b fcp.ObjectID) int { return bytes.Compare(a[:], b[:]) }),
		Issuer: owner.Public(),
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(owner, fcp.SchemaZoneCheckpoint, &o, &o.Signature)
}

// VerifyCheckpoint decodes a checkpoint and checks that owner signed exactly these
// bytes. A genesis checkpoint is not one: see VerifyGenesis. Errors: CodeMalformed,
// CodeNonCanonical, CodeSchema, CodeVersion, CodeZone, CodeWrongKey for another
// issuer, CodeSignature.
func VerifyCheckpoint(owner OwnerPublic, b []byte) (*Checkpoint, error) {
	var o checkpointObject
	s, err := decodeSigned(fcp.SchemaZoneCheckpoint, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := checkIssuer(fcp.SchemaZoneCheckpoint, o.Issuer, owner); err != nil {
		return nil, err
	}
	if err := s.verifyOwner(owner, fcp.SchemaZoneCheckpoint); err != nil {
		return nil, err
	}
	return &Checkpoint{o, CheckpointHash(b)}, nil
}

func compareCheckpointFeeds(a, b CheckpointFeed) int {
	return cmp.Or(bytes.Compare(a.Writer[:], b.Writer[:]), cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.Plane, b.Plane))
}

func (o *checkpointObject) check() error {
	if err := checkCommon(fcp.SchemaZoneCheckpoint, o.Format, o.CreatedAt); err != nil {
		return err
	}
	bad := func(what string) error {
		return fcp.Errorf(fcp.CodeMalformed, "checkpoint %d of %.64q: %s", o.CheckpointSeq, string(o.Zone), what)
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "a checkpoint of zone %.64q", string(o.Zone))
	case o.CheckpointSeq == 0 || o.Previous.IsZero() || o.Root.IsZero():
		return bad("number, the one before it, or root")
	case len(o.Feeds) == 0 || len(o.Feeds) > MaxCheckpointFeeds:
		return bad("feeds")
	case o.History > uint64(maxHistory/time.Second) || o.Versions > 1<<32:
		return bad("history")
	case len(o.Pins) > MaxPins:
		return bad("pins")
	}
	for i := range o.Feeds {
		f := &o.Feeds[i]
		if !fcp.Plane(f.Plane).Chained() || f.Seq == 0 || f.Hash.IsZero() || i > 0 && compareCheckpointFeeds(o.Feeds[i-1], *f) >= 0 {
			return bad("feeds")
		}
	}
	for i := range o.Pins {
		if o.Pins[i].IsZero() || i > 0 && bytes.Compare(o.Pins[i-1][:], o.Pins[i][:]) >= 0 {
			return bad("pins")
		}
	}
	return nil
}

// Zone returns the zone of the checkpoint.
func (c *Checkpoint) Zone() fcp.ZoneID { return c.o.Zone }

// Seq returns its number, from 1.
func (c *Checkpoint) Seq() uint64 { return c.o.CheckpointSeq }

// Previous returns the hash of the checkpoint before.
func (c *Checkpoint) Previous() fcp.Hash { return c.o.Previous }

// Hash returns CheckpointHash of its bytes.
func (c *Checkpoint) Hash() fcp.Hash { return c.hash }

// CreatedAt returns when the owner signed it, to the second.
func (c *Checkpoint) CreatedAt() time.Time { return time.Unix(int64(c.o.CreatedAt), 0).UTC() }

// Root returns the zone root at the checkpoint.
func (c *Checkpoint) Root() fcp.Hash { return c.o.Root }

// Feeds returns how far the zone's feeds reached.
func (c *Checkpoint) Feeds() []CheckpointFeed { return slices.Clone(c.o.Feeds) }

// Retention returns what is to be kept.
func (c *Checkpoint) Retention() Retention {
	return Retention{History: time.Duration(c.o.History) * time.Second, Versions: c.o.Versions}
}

// Pins returns the objects that stay.
func (c *Checkpoint) Pins() []fcp.ObjectID { return slices.Clone(c.o.Pins) }

// Covers returns the last event of a feed that the checkpoint covers; 0 for none.
func (c *Checkpoint) Covers(feed fcp.Feed) uint64 {
	if feed.Zone != c.o.Zone {
		return 0
	}
	for i := range c.o.Feeds {
		if f := &c.o.Feeds[i]; f.Writer == feed.Writer && f.Incarnation == feed.Incarnation && fcp.Plane(f.Plane) == feed.Plane {
			return f.Seq
		}
	}
	return 0
}
