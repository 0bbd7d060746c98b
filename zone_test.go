package fcp

import (
	"encoding/hex"
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestZoneReasonsComeInTheirOrder(t *testing.T) {
	for s, want := range map[string]Reason{
		"": ReasonEmpty, strings.Repeat("é", 40): ReasonTooLong, "é": ReasonASCII, "z:é!": ReasonASCII, "work": ReasonPrefix,
		"Z:work": ReasonPrefix, "zwork!": ReasonPrefix, "z:Work": ReasonChar, "z:a.b": ReasonChar, "z:a b": ReasonChar,
	} {
		if _, err := ParseZoneID(s); !errors.Is(err, want) || !errors.Is(err, CodeZone) {
			t.Errorf("%q: %v, want %s", s, err, want)
		}
	}
	for _, s := range []string{"z:", "z:work", "z:a:b_c-1", "z:" + strings.Repeat("a", 62)} {
		if z, err := ParseZoneID(s); err != nil || string(z) != s {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// The hashes were computed from the rule by an independent program; no literal of
// the reference pins them.
func TestZoneHashes(t *testing.T) {
	for z, want := range map[ZoneID]string{
		ZoneOwner:     "94b8a413160f922920dcad0dd26528bb65ff045f6041ab2141700244d3e3b9c8",
		ZonePrivate:   "f937c924fb82c40be1a3301ee6b600e70b3eb898dba0819756a813aaf311a0ce",
		ZoneWork:      "b535a945ceeefe27b23fbb46a99aecb6de1dca1d48c721d9f772648e52d6bc99",
		ZoneCommunity: "9d166590cfc1cac5c93836f0f8304c8fdc1b5674c52822bdaf3cba747102a77b",
		ZonePublic:    "a326accbfebfd487d2d55d6ba983d25a65db10c917e2a50a7a003dfbb73ad7c6",
	} {
		if h := z.Hash(); hex.EncodeToString(h[:]) != want {
			t.Errorf("%s: %s", z, h)
		}
	}
}

func TestStandardZonesDescend(t *testing.T) {
	zones := StandardZones()
	if len(zones) != 5 {
		t.Fatalf("%d zones", len(zones))
	}
	for i, z := range zones {
		if p, err := ParseZoneID(string(z.ID)); err != nil || p != z.ID || standardZone(string(z.ID)) != z.ID {
			t.Errorf("%s: %v", z.ID, err)
		}
		if l, ok := z.ID.StandardLevels(); !ok || l != z.Levels || l.Integrity > MaxLevel || l.Confidentiality > MaxLevel {
			t.Errorf("%s: %+v", z.ID, l)
		}
		if back, err := ZoneFromTag(z.ID.Tag()); err != nil || back != z.ID {
			t.Errorf("%s: tag %s: %v", z.ID, z.ID.Tag(), err)
		}
		if i > 0 && (z.Levels.Integrity >= zones[i-1].Levels.Integrity || z.Levels.Confidentiality >= zones[i-1].Levels.Confidentiality) {
			t.Errorf("%s is not below %s", z.ID, zones[i-1].ID)
		}
	}
	if _, ok := ZoneID("z:other").StandardLevels(); ok {
		t.Error("z:other is standard")
	}
}

func TestZoneTags(t *testing.T) {
	if got := ZoneID("z:a_b:c-d").Tag(); got != "tag:fcp-a-b-c-d" {
		t.Error(got)
	}
	for tag, want := range map[string]Reason{
		"": ReasonPrefix, "tag:work": ReasonPrefix, "fcp-work": ReasonPrefix, "tag:fcp-Work": ReasonChar,
		"tag:fcp-" + strings.Repeat("a", 63): ReasonTooLong, "tag:fcp-é": ReasonASCII,
	} {
		if _, err := ZoneFromTag(tag); !errors.Is(err, want) || !errors.Is(err, CodeZone) {
			t.Errorf("%q: %v, want %s", tag, err, want)
		}
	}
}

var zonePattern = regexp.MustCompile(`\Az:[a-z0-9:_-]*\z`)

func FuzzParseZoneID(f *testing.F) {
	for _, s := range []string{"", "z:", "z:work", "Z:work", "z:a.b", "z:é", strings.Repeat("z:", 33)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		z, err := ParseZoneID(s)
		if (err == nil) != (len(s) <= MaxZoneID && zonePattern.MatchString(s)) {
			t.Fatalf("%q: %v", s, err)
		}
		if err == nil && string(z) != s {
			t.Fatalf("%q became %q", s, z)
		}
	})
}

func FuzzZoneFromTag(f *testing.F) {
	for _, s := range []string{"", "tag:fcp-", "tag:fcp-work", "tag:wrong-work", "tag:fcp-a:b", "tag:fcp-tag:fcp-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		z, err := ZoneFromTag(s)
		if err != nil {
			return
		}
		if !z.Valid() {
			t.Fatalf("%q gives the invalid zone %q", s, z)
		}
		// A second trip changes nothing: Tag folds '_' and ':' into '-' once.
		tag := z.Tag()
		if again, err := ZoneFromTag(tag); err != nil || again.Tag() != tag {
			t.Fatalf("%q: %q does not come back: %v", s, tag, err)
		}
		if !strings.ContainsAny(string(z[2:]), "_:") && tag != s {
			t.Fatalf("%q became %q", s, tag)
		}
	})
}
