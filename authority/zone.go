package authority

import (
	"time"
	"unicode"
	"unicode/utf8"

	"fcp"
)

// MaxText limits a zone's display name and a revocation's reason, in bytes.
const MaxText = 256

// ZoneSpec says what a zone definition is to contain.
type ZoneSpec struct {
	ID      fcp.ZoneID
	Name    string // for display; at most MaxText bytes of printable UTF-8
	Levels  fcp.Levels
	Parent  fcp.ZoneID // "" for none; a child's levels are never above its parent's
	Version uint64     // the owner's version number, from 1
}

// zoneObject is ZoneDefinitionObject on the wire.
type zoneObject struct {
	Format    uint64      `cbor:"format"`
	Zone      fcp.ZoneID  `cbor:"zone_id"`
	Name      string      `cbor:"name"`
	Levels    fcp.Levels  `cbor:"levels"`
	Parent    fcp.ZoneID  `cbor:"parent,omitempty"`
	Version   uint64      `cbor:"version"`
	CreatedAt uint64      `cbor:"created_at"` // unix seconds
	Issuer    OwnerPublic `cbor:"issuer"`
	Signature []byte      `cbor:"signature,omitempty"`
}

// Zone is a verified zone definition, made by VerifyZone.
type Zone struct{ o zoneObject }

// Spec returns what the definition says.
func (z *Zone) Spec() ZoneSpec {
	return ZoneSpec{ID: z.o.Zone, Name: z.o.Name, Levels: z.o.Levels, Parent: z.o.Parent, Version: z.o.Version}
}

// CreatedAt returns when the owner signed it, to the second.
func (z *Zone) CreatedAt() time.Time { return time.Unix(int64(z.o.CreatedAt), 0).UTC() }

// SignZone returns the owner-signed definition of a zone, schema prefix included.
func SignZone(now time.Time, owner *OwnerKey, spec ZoneSpec) ([]byte, error) {
	at, err := unixSeconds(now)
	if err != nil {
		return nil, err
	}
	o := zoneObject{
		Format: ObjectFormat, Zone: spec.ID, Name: spec.Name, Levels: spec.Levels, Parent: spec.Parent,
		Version: spec.Version, CreatedAt: at, Issuer: owner.Public(),
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return signObject(owner, fcp.SchemaZoneDefinition, &o, &o.Signature)
}

// VerifyZone decodes a zone definition and checks that owner signed exactly these
// bytes. Errors: CodeMalformed, CodeNonCanonical, CodeSchema, CodeVersion,
// CodeZone, CodeWrongKey for another issuer, CodeSignature.
func VerifyZone(owner OwnerPublic, b []byte) (*Zone, error) {
	var o zoneObject
	s, err := decodeSigned(fcp.SchemaZoneDefinition, b, &o)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	if err := checkIssuer(fcp.SchemaZoneDefinition, o.Issuer, owner); err != nil {
		return nil, err
	}
	if err := s.verifyOwner(owner, fcp.SchemaZoneDefinition); err != nil {
		return nil, err
	}
	return &Zone{o}, nil
}

func (o *zoneObject) check() error {
	if err := checkCommon(fcp.SchemaZoneDefinition, o.Format, o.CreatedAt); err != nil {
		return err
	}
	switch {
	case !o.Zone.Valid():
		return fcp.Errorf(fcp.CodeZone, "zone definition of %.64q", string(o.Zone))
	case o.Parent != "" && (!o.Parent.Valid() || o.Parent == o.Zone):
		return fcp.Errorf(fcp.CodeZone, "parent %.64q of zone %s", string(o.Parent), o.Zone)
	case o.Version == 0:
		return fcp.Errorf(fcp.CodeMissingField, "zone definition of %s without a version", o.Zone)
	case !printable(o.Name):
		return fcp.Errorf(fcp.CodeInvalidArgument, "the name of zone %s is not at most %d bytes of printable UTF-8", o.Zone, MaxText)
	}
	return checkLevels(o.Zone, o.Levels)
}

func checkLevels(z fcp.ZoneID, l fcp.Levels) error {
	if l.Integrity > fcp.MaxLevel || l.Confidentiality > fcp.MaxLevel {
		return fcp.Errorf(fcp.CodeInvalidArgument, "levels %d/%d of zone %s, the highest is %d", l.Integrity, l.Confidentiality, z, fcp.MaxLevel)
	}
	return nil
}

// CheckParent refuses, with CodeInvalidArgument, a zone that names another parent
// or has a level above its parent's.
func (z *Zone) CheckParent(parent *Zone) error {
	c, p := z.o.Levels, parent.o.Levels
	if z.o.Parent != parent.o.Zone {
		return fcp.Errorf(fcp.CodeInvalidArgument, "zone %s is not a child of %s", z.o.Zone, parent.o.Zone)
	}
	if c.Integrity > p.Integrity || c.Confidentiality > p.Confidentiality {
		return fcp.Errorf(fcp.CodeInvalidArgument, "zone %s at %d/%d is above its parent %s at %d/%d",
			z.o.Zone, c.Integrity, c.Confidentiality, parent.o.Zone, p.Integrity, p.Confidentiality)
	}
	return nil
}

func checkIssuer(schema fcp.Schema, got, want OwnerPublic) error {
	if got != want {
		return fcp.Errorf(fcp.CodeWrongKey, "%s was issued by owner %s, not %s", schema, fcp.KidOf(got[:]), fcp.KidOf(want[:]))
	}
	return nil
}

// printable reports whether s is at most MaxText bytes of printable UTF-8.
func printable(s string) bool {
	if len(s) > MaxText || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
