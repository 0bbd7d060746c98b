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

	// What follows needs format 2 of the object; all zero is format 1.
	Prev        fcp.Hash  // RefOf the version before; zero: not said
	Policy      fcp.Hash  // RefOf the policy this version was made with; zero: not said
	SymbolPort  uint16    // UDP port of the symbol lane, 0: the node's own choice
	ControlPort uint16    // port of the control plane, 0: the node's own choice
	Transport   Transport // what may carry the zone
	KEM         KEM       // what zone keys are sealed with; 0: KEMClassic
}

// Transport says what may carry a zone's traffic (spec/wire.md section 14). The
// zero Transport is the default: the local network, no relay, no funnel.
type Transport struct {
	NoLAN  bool // not over the local network
	DERP   bool // over a relay
	Funnel bool // from the public internet
}

// transportObject is a Transport on the wire.
type transportObject struct {
	LAN    bool `cbor:"allow_lan"`
	DERP   bool `cbor:"allow_derp"`
	Funnel bool `cbor:"allow_funnel"`
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

	// Format 2; in format 1 none of these is there.
	Prev        []byte           `cbor:"prev,omitempty"`
	Policy      []byte           `cbor:"policy,omitempty"`
	SymbolPort  uint16           `cbor:"symbol_port,omitempty"`
	ControlPort uint16           `cbor:"control_port,omitempty"`
	Transport   *transportObject `cbor:"transport_policy,omitempty"` // nil: the default
	KEM         KEM              `cbor:"kem,omitempty"`              // 0: KEMClassic
}

// zoneFormat2 is the format with ports, transport, policy, prev and kem.
const zoneFormat2 = 2

// extended reports whether a field of format 2 is there.
func (o *zoneObject) extended() bool {
	return o.Prev != nil || o.Policy != nil || o.SymbolPort != 0 || o.ControlPort != 0 || o.Transport != nil || o.KEM != 0
}

// Zone is a verified zone definition, made by VerifyZone.
type Zone struct {
	o   zoneObject
	ref fcp.Hash
}

// Spec returns what the definition says.
func (z *Zone) Spec() ZoneSpec {
	s := ZoneSpec{ID: z.o.Zone, Name: z.o.Name, Levels: z.o.Levels, Parent: z.o.Parent, Version: z.o.Version,
		Prev: hashrefOf(z.o.Prev).Ref, Policy: hashrefOf(z.o.Policy).Ref, SymbolPort: z.o.SymbolPort, ControlPort: z.o.ControlPort, KEM: z.o.KEM}
	if t := z.o.Transport; t != nil {
		s.Transport = Transport{NoLAN: !t.LAN, DERP: t.DERP, Funnel: t.Funnel}
	}
	return s
}

// Number returns the owner's version number.
func (z *Zone) Number() uint64 { return z.o.Version }

// Ref returns RefOf the definition's bytes.
func (z *Zone) Ref() fcp.Hash { return z.ref }

// Previous returns the reference to the version before.
func (z *Zone) Previous() Hashref { return hashrefOf(z.o.Prev) }

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
		Prev: optionalHash(spec.Prev), Policy: optionalHash(spec.Policy),
		SymbolPort: spec.SymbolPort, ControlPort: spec.ControlPort,
	}
	if spec.KEM != KEMClassic {
		o.KEM = spec.KEM
	}
	if t := spec.Transport; t != (Transport{}) {
		o.Transport = &transportObject{LAN: !t.NoLAN, DERP: t.DERP, Funnel: t.Funnel}
	}
	if o.extended() {
		o.Format = zoneFormat2
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
	return &Zone{o, RefOf(b)}, nil
}

func (o *zoneObject) check() error {
	format := uint64(ObjectFormat)
	if o.extended() {
		format = zoneFormat2
	}
	if err := checkFormat(fcp.SchemaZoneDefinition, o.Format, format, o.CreatedAt); err != nil {
		return err
	}
	switch {
	case o.Prev != nil && (len(o.Prev) != fcp.HashSize || o.Version == 1):
		return fcp.Errorf(fcp.CodeMalformed, "zone definition of %s: the previous one does not fit version %d", o.Zone, o.Version)
	case o.Policy != nil && len(o.Policy) != fcp.HashSize:
		return fcp.Errorf(fcp.CodeMalformed, "zone definition of %s with a policy reference of %d bytes", o.Zone, len(o.Policy))
	case o.Transport != nil && *o.Transport == transportObject{LAN: true}:
		return fcp.Errorf(fcp.CodeNonCanonical, "zone definition of %s spells out the default transport", o.Zone)
	case o.KEM != 0 && o.KEM != KEMHybrid:
		return fcp.Errorf(fcp.CodeVersion, "zone definition of %s with KEM %#04x", o.Zone, uint16(o.KEM))
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
