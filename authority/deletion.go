package authority

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"fcp"
)

// What a zone wants gone is gone everywhere only when every member knows of it. So
// members acknowledge: that they hold all that a retention mark covers, and that
// they destroyed the keys that a Forgetting names. A collector waits for them.

// DeletionAck is a member's word in its own control feed.
type DeletionAck struct {
	Zone    fcp.ZoneID
	Node    fcp.WriterID // the writer of the feed that it is in
	Subject fcp.Hash     // Checkpoint.Hash of a retention mark, or Forgetting.Ref
	Mark    uint64       // number of the retention mark; 0: the subject is a Forgetting
}

// ackObject is DeletionAck on the wire. It carries no signature of its own: it is an
// event of the member's feed, whose heads the member signs.
type ackObject struct {
	Format  uint64       `cbor:"format"`
	Zone    fcp.ZoneID   `cbor:"zone_id"`
	Node    fcp.WriterID `cbor:"node"`
	Subject fcp.Hash     `cbor:"subject"`
	Mark    uint64       `cbor:"mark,omitempty"`
}

// EncodeDeletionAck returns the body of a deletion.acked event.
func EncodeDeletionAck(a DeletionAck) ([]byte, error) {
	o := ackObject{ObjectFormat, a.Zone, a.Node, a.Subject, a.Mark}
	if err := o.check(); err != nil {
		return nil, err
	}
	return fcp.MarshalPayload(fcp.SchemaDeletionAck, &o)
}

// DecodeDeletionAck decodes the body of a deletion.acked event. Errors:
// CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion, CodeZone, CodeTooLarge.
func DecodeDeletionAck(b []byte) (DeletionAck, error) {
	var o ackObject
	if len(b) > MaxSignedObject {
		return DeletionAck{}, fcp.Errorf(fcp.CodeTooLarge, "an acknowledgement of %d bytes", len(b))
	}
	if err := fcp.UnmarshalPayload(fcp.SchemaDeletionAck, b, &o); err != nil {
		return DeletionAck{}, err
	}
	if err := o.check(); err != nil {
		return DeletionAck{}, err
	}
	return DeletionAck{o.Zone, o.Node, o.Subject, o.Mark}, nil
}

func (o *ackObject) check() error {
	if err := checkCommon(fcp.SchemaDeletionAck, o.Format, 0); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "an acknowledgement in zone %.64q", string(o.Zone))
	case o.Node.IsZero() || o.Subject.IsZero() || o.Mark > math.MaxInt64:
		return fcp.Errorf(fcp.CodeMalformed, "an acknowledgement of nothing, or by nobody")
	}
	return nil
}

// Limits of a Forgetting.
const (
	MaxForgotten     = 256  // objects
	MaxForgottenRuns = 8192 // runs of carriers, over all feeds
)

// Run is a run of sequence numbers, both included.
type Run struct{ First, Last uint64 }

// Carriers are events of one feed whose bodies are to be forgotten.
type Carriers struct {
	Feed fcp.Feed
	Runs []Run // ascending, with a gap between each and the next
}

// ForgettingSpec is what a Forgetting says.
type ForgettingSpec struct {
	Zone    fcp.ZoneID
	Objects []fcp.ObjectID // every event that carries one is meant, also those not known yet; 1 to MaxForgotten
	// Carriers are events besides: chunks, which another object may have too under
	// another salt.
	Carriers []Carriers
}

// forgettingObject is Forgetting on the wire.
type forgettingObject struct {
	Format    uint64           `cbor:"format"`
	Zone      fcp.ZoneID       `cbor:"zone_id"`
	Objects   []fcp.ObjectID   `cbor:"objects"`            // strictly ascending
	Carriers  []carriersObject `cbor:"carriers,omitempty"` // strictly ascending by writer, incarnation, plane
	IssuedAt  uint64           `cbor:"issued_at"`          // unix seconds
	Issuer    OwnerPublic      `cbor:"issuer"`             // the owner, or a node's signing key
	Signature []byte           `cbor:"signature,omitempty"`
}

type carriersObject struct {
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Plane       uint8        `cbor:"plane"`
	Runs        [][2]uint64  `cbor:"runs"` // first and last
}

// Forgetting asks every member to destroy data keys. What its issuer may ask for is
// the owner's everything, and of a node what that node itself wrote: see Covers.
type Forgetting struct {
	o   forgettingObject
	ref fcp.Hash
}

// SignForgetting returns a signed Forgetting. Objects and carriers may be in any
// order, none twice.
func SignForgetting(now time.Time, key AdminKey, s ForgettingSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := forgettingObject{Format: ObjectFormat, Zone: s.Zone, IssuedAt: at, Issuer: adminPublic(key),
		Objects: slices.SortedFunc(slices.Values(s.Objects), func(a, b fcp.ObjectID) int { return bytes.Compare(a[:], b[:]) })}
	for _, c := range s.Carriers {
		x := carriersObject{Writer: c.Feed.Writer, Incarnation: c.Feed.Incarnation, Plane: uint8(c.Feed.Plane), Runs: [][2]uint64{}}
		for _, r := range c.Runs {
			x.Runs = append(x.Runs, [2]uint64{r.First, r.Last})
		}
		o.Carriers = append(o.Carriers, x)
	}
	slices.SortFunc(o.Carriers, compareCarriers)
	return signOwned(key, fcp.SchemaForgetting, &o, &o.Signature)
}

// OpenForgetting decodes a Forgetting and checks the signature of the issuer that it
// names. Errors: CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion, CodeZone,
// CodeSignature, CodeTooLarge.
func OpenForgetting(b []byte) (*Forgetting, error) {
	var o forgettingObject
	if err := verifyNamed(fcp.SchemaForgetting, b, &o); err != nil {
		return nil, err
	}
	return &Forgetting{o, RefOf(b)}, nil
}

func compareCarriers(a, b carriersObject) int {
	return cmp.Or(bytes.Compare(a.Writer[:], b.Writer[:]), cmp.Compare(a.Incarnation, b.Incarnation), cmp.Compare(a.Plane, b.Plane))
}

func (o *forgettingObject) issuer() OwnerPublic { return o.Issuer }

func (o *forgettingObject) check() error {
	if err := checkCommon(fcp.SchemaForgetting, o.Format, o.IssuedAt); err != nil {
		return err
	}
	bad := func(what string) error { return fcp.Errorf(fcp.CodeMalformed, "a forgetting: %s", what) }
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "a forgetting in zone %.64q", string(o.Zone))
	case len(o.Objects) == 0 || len(o.Objects) > MaxForgotten:
		return bad("objects")
	}
	for i := range o.Objects {
		if o.Objects[i].IsZero() || i > 0 && bytes.Compare(o.Objects[i-1][:], o.Objects[i][:]) >= 0 {
			return bad("objects")
		}
	}
	runs := 0
	for i := range o.Carriers {
		c := &o.Carriers[i]
		if !fcp.Plane(c.Plane).Chained() || len(c.Runs) == 0 || i > 0 && compareCarriers(o.Carriers[i-1], *c) >= 0 {
			return bad("carriers")
		}
		last := uint64(0)
		for j, r := range c.Runs {
			if r[0] == 0 || r[1] < r[0] || r[1] > math.MaxInt64 || j > 0 && r[0] <= last+1 {
				return bad("carriers")
			}
			last = r[1]
		}
		if runs += len(c.Runs); runs > MaxForgottenRuns {
			return bad("carriers")
		}
	}
	return nil
}

// Zone returns the zone of the objects.
func (f *Forgetting) Zone() fcp.ZoneID { return f.o.Zone }

// Ref returns RefOf the bytes.
func (f *Forgetting) Ref() fcp.Hash { return f.ref }

// Issuer returns who signed: the owner, or a node's signing key.
func (f *Forgetting) Issuer() OwnerPublic { return f.o.Issuer }

// IssuedAt returns when it was signed, to the second.
func (f *Forgetting) IssuedAt() time.Time { return fromUnix(f.o.IssuedAt) }

// Objects returns the objects, ascending. The caller must not change the slice.
func (f *Forgetting) Objects() []fcp.ObjectID { return f.o.Objects }

// Covers reports whether the body of an event is to be forgotten: the event carries
// one of the objects, or is named, and the issuer is the owner or wrote it.
func (f *Forgetting) Covers(owner OwnerPublic, feed fcp.Feed, seq uint64, object fcp.ObjectID) bool {
	if feed.Zone != f.o.Zone || f.o.Issuer != owner && fcp.WriterOf(f.o.Issuer[:]) != feed.Writer {
		return false
	}
	if _, ok := slices.BinarySearchFunc(f.o.Objects, object, func(a, b fcp.ObjectID) int { return bytes.Compare(a[:], b[:]) }); ok {
		return true
	}
	want := carriersObject{Writer: feed.Writer, Incarnation: feed.Incarnation, Plane: uint8(feed.Plane)}
	i, ok := slices.BinarySearchFunc(f.o.Carriers, want, compareCarriers)
	if !ok {
		return false
	}
	_, ok = slices.BinarySearchFunc(f.o.Carriers[i].Runs, seq, func(r [2]uint64, seq uint64) int {
		switch {
		case r[1] < seq:
			return -1
		case r[0] > seq:
			return 1
		}
		return 0
	})
	return ok
}
