package authority

import (
	"bytes"
	"time"

	"fcp"
)

// Cut says up to where one feed stands: the event with number Seq and hash Hash
// is the last one that counts, everything above it is void.
type Cut struct {
	Feed fcp.Feed
	Seq  uint64   // 0 voids the whole feed
	Hash fcp.Hash // of the event Seq; zero exactly when Seq is 0
}

// revocationObject is RevocationObject on the wire, in its cut-only form.
type revocationObject struct {
	Format    uint64         `cbor:"format"`
	Zone      fcp.ZoneID     `cbor:"zone_id"`
	Feed      revocationFeed `cbor:"feed"`
	Seq       uint64         `cbor:"seq"`
	Hash      fcp.Hash       `cbor:"hash"`
	Reason    string         `cbor:"reason"`
	IssuedAt  uint64         `cbor:"issued_at"` // unix seconds
	Issuer    OwnerPublic    `cbor:"issuer"`
	Signature []byte         `cbor:"signature,omitempty"`
}

type revocationFeed struct {
	Zone        fcp.ZoneID   `cbor:"zone_id"`
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Plane       uint8        `cbor:"plane"`
}

// Revocation is a verified revocation, made by VerifyRevocation.
type Revocation struct{ o revocationObject }

// Zone returns the zone in which the revocation holds.
func (r *Revocation) Zone() fcp.ZoneID { return r.o.Zone }

// Cut returns the cut.
func (r *Revocation) Cut() Cut {
	f := r.o.Feed
	return Cut{Feed: fcp.Feed{Zone: f.Zone, Writer: f.Writer, Incarnation: f.Incarnation, Plane: fcp.Plane(f.Plane)}, Seq: r.o.Seq, Hash: r.o.Hash}
}

// Reason returns the owner's words.
func (r *Revocation) Reason() string { return r.o.Reason }

// IssuedAt returns when the owner signed it, to the second.
func (r *Revocation) IssuedAt() time.Time { return time.Unix(int64(r.o.IssuedAt), 0).UTC() }

// SignRevocation returns the owner-signed revocation of everything above cut, in
// the cut's zone. reason is at most MaxText bytes of printable UTF-8.
func SignRevocation(now time.Time, owner *OwnerKey, cut Cut, reason string) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := revocationObject{
		Format: ObjectFormat, Zone: cut.Feed.Zone,
		Feed: revocationFeed{cut.Feed.Zone, cut.Feed.Writer, cut.Feed.Incarnation, uint8(cut.Feed.Plane)},
		Seq:  cut.Seq, Hash: cut.Hash, Reason: reason, IssuedAt: at, Issuer: owner.Public(),
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(owner, fcp.SchemaRevocation, &o, &o.Signature)
}

// VerifyRevocation decodes a revocation and checks that owner signed exactly
// these bytes. Errors: CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion,
// CodeZone, CodeWrongKey for another issuer, CodeSignature.
func VerifyRevocation(owner OwnerPublic, b []byte) (*Revocation, error) {
	var o revocationObject
	s, err := decodeSigned(fcp.SchemaRevocation, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := checkIssuer(fcp.SchemaRevocation, o.Issuer, owner); err != nil {
		return nil, err
	}
	if err := s.verifyOwner(owner, fcp.SchemaRevocation); err != nil {
		return nil, err
	}
	return &Revocation{o}, nil
}

func (o *revocationObject) check() error {
	if err := checkCommon(fcp.SchemaRevocation, o.Format, o.IssuedAt); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "revocation in zone %.64q", string(o.Zone))
	case o.Feed.Zone != o.Zone:
		return fcp.Errorf(fcp.CodeZone, "a revocation in %s cannot cut a feed of %.64q", o.Zone, string(o.Feed.Zone))
	case !fcp.Plane(o.Feed.Plane).Chained():
		return fcp.Errorf(fcp.CodeInvalidArgument, "plane %d has no chain to cut", o.Feed.Plane)
	case (o.Seq == 0) != o.Hash.IsZero():
		return fcp.Errorf(fcp.CodeInvalidArgument, "a cut at 0 has no hash, and any other has one")
	case !printable(o.Reason):
		return fcp.Errorf(fcp.CodeInvalidArgument, "the reason is not at most %d bytes of printable UTF-8", MaxText)
	}
	return nil
}

// Cuts are the lowest cut of each feed. The state depends only on the set of
// revocations added, not on their order or number. The zero Cuts is empty and
// ready. Not safe for concurrent use with Add.
type Cuts struct {
	lowest map[fcp.Feed]effectiveCut
}

type effectiveCut struct {
	seq    uint64
	hash   fcp.Hash // the smallest of those given for seq
	forked bool     // two hashes were given for seq, so the event seq is void too
}

// Add takes a revocation in. It returns its feed and whether what is void in that
// feed, or the cut's hash, changed, so that the engine folds it again.
func (c *Cuts) Add(r *Revocation) (feed fcp.Feed, changed bool) {
	cut := r.Cut()
	old, ok := c.lowest[cut.Feed]
	next := old
	switch {
	case !ok || cut.Seq < old.seq:
		next = effectiveCut{seq: cut.Seq, hash: cut.Hash}
	case cut.Seq == old.seq && cut.Hash != old.hash:
		next.forked = true
		if bytes.Compare(cut.Hash[:], old.hash[:]) < 0 {
			next.hash = cut.Hash
		}
	}
	if ok && next == old {
		return cut.Feed, false
	}
	if c.lowest == nil {
		c.lowest = make(map[fcp.Feed]effectiveCut)
	}
	c.lowest[cut.Feed] = next
	return cut.Feed, true
}

// Void reports whether event seq of the feed lies above a cut. Two cuts that name
// different events for one number void that number too: one of them is a fork.
func (c *Cuts) Void(feed fcp.Feed, seq uint64) bool {
	e, ok := c.lowest[feed]
	return ok && (seq > e.seq || e.forked && seq == e.seq)
}

// Touched reports whether any cut names the feed.
func (c *Cuts) Touched(feed fcp.Feed) bool {
	_, ok := c.lowest[feed]
	return ok
}

// Lowest returns the effective cut of the feed. forked means that the event Seq
// itself is void. When the stored event Seq has another hash than the cut, the
// stored feed left the honest one earlier, and the caller must not trust it.
func (c *Cuts) Lowest(feed fcp.Feed) (cut Cut, forked, ok bool) {
	e, ok := c.lowest[feed]
	if !ok {
		return Cut{}, false, false
	}
	return Cut{Feed: feed, Seq: e.seq, Hash: e.hash}, e.forked, true
}
