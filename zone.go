package fcp

import "strings"

// ZoneID names a zone: 1 to MaxZoneID bytes, prefix "z:", then [a-z0-9:_-]
// (spec/wire.md section 3.1). Make one with ParseZoneID.
type ZoneID string

// The five standard zones.
const (
	ZoneOwner     ZoneID = "z:owner"
	ZonePrivate   ZoneID = "z:private"
	ZoneWork      ZoneID = "z:work"
	ZoneCommunity ZoneID = "z:community"
	ZonePublic    ZoneID = "z:public"
)

// Levels are the two security levels of a zone, each 0 to 100. Integrity flows
// down freely and up only with an elevation; confidentiality flows up freely and
// down only with a declassification. The rules are in package authority.
type Levels struct {
	Integrity       uint8 `cbor:"integrity"`
	Confidentiality uint8 `cbor:"confidentiality"`
}

// MaxLevel is the highest integrity and confidentiality level.
const MaxLevel = 100

// StandardZone is one of the five zones every new store begins with.
type StandardZone struct {
	ID     ZoneID
	Levels Levels
}

// StandardZones returns the five standard zones from the most to the least
// trusted. The caller owns the slice.
func StandardZones() []StandardZone {
	return []StandardZone{
		{ZoneOwner, Levels{100, 100}},
		{ZonePrivate, Levels{80, 90}},
		{ZoneWork, Levels{60, 70}},
		{ZoneCommunity, Levels{40, 40}},
		{ZonePublic, Levels{20, 10}},
	}
}

// StandardLevels returns the levels of a standard zone, and false for any other:
// a custom zone's levels are in its definition.
func (z ZoneID) StandardLevels() (Levels, bool) {
	for _, s := range StandardZones() {
		if s.ID == z {
			return s.Levels, true
		}
	}
	return Levels{}, false
}

const (
	zonePrefix = "z:"
	tagPrefix  = "tag:fcp-"
)

// ParseZoneID checks s and returns it unchanged. It fails with CodeZone and the
// first Reason that applies in the order empty, too long, non-ASCII, invalid
// prefix, invalid character (spec/wire.md section 3.1).
func ParseZoneID(s string) (ZoneID, error) {
	if z := standardZone(s); z != "" {
		return z, nil
	}
	if r := zoneFault(s); r != "" {
		e := nameError("zone", s, r)
		e.Code = CodeZone
		return "", e
	}
	return ZoneID(s), nil
}

// standardZone returns the constant equal to s, so that a decoder holding bytes
// need not allocate for the usual zones.
func standardZone(s string) ZoneID {
	switch z := ZoneID(s); z {
	case ZoneOwner:
		return ZoneOwner
	case ZonePrivate:
		return ZonePrivate
	case ZoneWork:
		return ZoneWork
	case ZoneCommunity:
		return ZoneCommunity
	case ZonePublic:
		return ZonePublic
	}
	return ""
}

func zoneFault(s string) Reason {
	if r := nameFault(s, MaxZoneID); r != "" {
		return r
	}
	if !strings.HasPrefix(s, zonePrefix) {
		return ReasonPrefix
	}
	for i := range len(s) {
		if c := s[i]; !isLowerAlnum(c) && c != ':' && c != '_' && c != '-' {
			return ReasonChar
		}
	}
	return ""
}

// Valid reports whether z would pass ParseZoneID.
func (z ZoneID) Valid() bool { return zoneFault(string(z)) == "" }

// String returns the zone's text.
func (z ZoneID) String() string { return string(z) }

// Hash returns the zone_id_hash BLAKE3-256("FCP2-ZONE-ID-V1" || zone text)
// (spec/wire.md section 3.1).
func (z ZoneID) Hash() Hash { return taggedHash("FCP2-ZONE-ID-V1", string(z)) }

// Tag returns the Tailscale tag of the zone: "tag:fcp-" and the text behind "z:"
// with '_' and ':' replaced by '-'. Two zones can share a tag, so a tag never
// proves a zone.
func (z ZoneID) Tag() string {
	b := []byte(tagPrefix + strings.TrimPrefix(string(z), zonePrefix))
	for i := len(tagPrefix); i < len(b); i++ {
		if b[i] == '_' || b[i] == ':' {
			b[i] = '-'
		}
	}
	return string(b)
}

// ZoneFromTag returns the zone a Tailscale tag names: "z:" and the text behind
// "tag:fcp-". It undoes Tag only for zones without '_' and ':' in their name. It
// fails with CodeZone and ReasonPrefix for another tag, or the reason of
// ParseZoneID.
func ZoneFromTag(tag string) (ZoneID, error) {
	name, ok := strings.CutPrefix(tag, tagPrefix)
	if !ok {
		e := nameError("tag", tag, ReasonPrefix)
		e.Code = CodeZone
		return "", e
	}
	return ParseZoneID(zonePrefix + name)
}
