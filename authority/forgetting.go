package authority

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"fcp"
)

// Limits of a Forgetting.
const (
	MaxForgotten     = 256  // objects
	MaxForgottenRuns = 8192 // runs of carriers, over all feeds
)

// Run is a run of sequence numbers, both included.
type Run struct{ First, Last uint64 }

// Carriers are events of one data feed whose bodies are to be forgotten.
type Carriers struct {
	Writer      fcp.WriterID
	Incarnation uint64
	Runs        []Run // ascending, with a gap between each and the next
}

// ForgettingSpec is what a Forgetting says.
type ForgettingSpec struct {
	Zone    fcp.ZoneID
	Objects []fcp.ObjectID // every event that carries one is meant, also those not known yet; 1 to MaxForgotten
	// Carriers are events besides: of chunks, which another object may have too in
	// another event under another salt.
	Carriers []Carriers
}

// Forgetting is the owner's order to every member to destroy the data keys of
// objects. It is for good: no later object takes it back.
type Forgetting struct {
	o   forgettingObject
	ref fcp.Hash
}

// forgettingObject is Forgetting on the wire.
type forgettingObject struct {
	Format    uint64           `cbor:"format"`
	Zone      fcp.ZoneID       `cbor:"zone_id"`
	Objects   []fcp.ObjectID   `cbor:"objects"`            // strictly ascending
	Carriers  []carriersObject `cbor:"carriers,omitempty"` // strictly ascending by writer, incarnation
	IssuedAt  uint64           `cbor:"issued_at"`          // unix seconds
	Issuer    OwnerPublic      `cbor:"issuer"`
	Signature []byte           `cbor:"signature,omitempty"`
}

type carriersObject struct {
	Writer      fcp.WriterID `cbor:"writer"`
	Incarnation uint64       `cbor:"incarnation"`
	Runs        [][2]uint64  `cbor:"runs"` // first and last
}

// SignForgetting returns a signed Forgetting. Objects and carriers may be in any
// order, none twice.
func SignForgetting(now time.Time, owner *OwnerKey, s ForgettingSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := forgettingObject{Format: ObjectFormat, Zone: s.Zone, IssuedAt: at, Issuer: owner.Public(),
		Objects: slices.SortedFunc(slices.Values(s.Objects), compareObjects)}
	for _, c := range s.Carriers {
		x := carriersObject{Writer: c.Writer, Incarnation: c.Incarnation, Runs: [][2]uint64{}}
		for _, r := range c.Runs {
			x.Runs = append(x.Runs, [2]uint64{r.First, r.Last})
		}
		o.Carriers = append(o.Carriers, x)
	}
	slices.SortFunc(o.Carriers, compareCarriers)
	return signOwned(owner, fcp.SchemaForgetting, &o, &o.Signature)
}

// VerifyForgetting decodes a Forgetting and checks that owner signed it. Errors:
// CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion, CodeZone, CodeTooLarge,
// CodeWrongKey, CodeSignature.
func VerifyForgetting(owner OwnerPublic, b []byte) (*Forgetting, error) {
	var o forgettingObject
	if err := verifyOwned(fcp.SchemaForgetting, owner, b, &o); err != nil {
		return nil, err
	}
	return &Forgetting{o, RefOf(b)}, nil
}

func compareObjects(a, b fcp.ObjectID) int { return bytes.Compare(a[:], b[:]) }

func compareCarriers(a, b carriersObject) int {
	return cmp.Or(bytes.Compare(a.Writer[:], b.Writer[:]), cmp.Compare(a.Incarnation, b.Incarnation))
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
		if o.Objects[i].IsZero() || i > 0 && compareObjects(o.Objects[i-1], o.Objects[i]) >= 0 {
			return bad("objects")
		}
	}
	runs := 0
	for i := range o.Carriers {
		c := &o.Carriers[i]
		if c.Writer.IsZero() || len(c.Runs) == 0 || i > 0 && compareCarriers(o.Carriers[i-1], *c) >= 0 {
			return bad("carriers")
		}
		last := uint64(0)
		for j, r := range c.Runs {
			if r[0] == 0 || r[1] < r[0] || r[1] >= math.MaxInt64 || j > 0 && r[0] <= last+1 {
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

// IssuedAt returns when it was signed, to the second.
func (f *Forgetting) IssuedAt() time.Time { return fromUnix(f.o.IssuedAt) }

// Objects returns the objects, ascending. The caller must not change the slice.
func (f *Forgetting) Objects() []fcp.ObjectID { return f.o.Objects }

// HasCarriers reports whether it names events besides its objects.
func (f *Forgetting) HasCarriers() bool { return len(f.o.Carriers) > 0 }

// Carries reports whether it names an event of a data feed.
func (f *Forgetting) Carries(feed fcp.Feed, seq uint64) bool {
	if feed.Zone != f.o.Zone || feed.Plane != fcp.PlaneData {
		return false
	}
	i, ok := slices.BinarySearchFunc(f.o.Carriers, carriersObject{Writer: feed.Writer, Incarnation: feed.Incarnation}, compareCarriers)
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
