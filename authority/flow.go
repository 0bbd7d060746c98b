package authority

import "fcp"

// Flow says what data needs to go from its label to a zone (40-authority "Zones").
type Flow struct {
	Elevation        bool // the zone's integrity is above the data's
	Declassification bool // the zone's confidentiality is below the data's
}

// Free reports whether nothing is needed.
func (f Flow) Free() bool { return f == Flow{} }

// String returns "allowed" or what is needed, as the reference names it.
func (f Flow) String() string {
	switch f {
	case Flow{}:
		return "allowed"
	case Flow{Elevation: true}:
		return "requires_elevation"
	case Flow{Declassification: true}:
		return "requires_declassification"
	}
	return "requires_both"
}

// FlowTo returns what data with levels from needs to enter a zone with levels to:
// integrity flows down freely and confidentiality up.
func FlowTo(from, to fcp.Levels) Flow {
	return Flow{Elevation: to.Integrity > from.Integrity, Declassification: to.Confidentiality < from.Confidentiality}
}

// workIntegrity is the integrity below which input drives nothing dangerous.
const workIntegrity = 60

// driveCheck says why data may not drive an operation of a tier, ReasonAllow when
// it may (spec/wire.md section 14).
func driveCheck(integrity uint8, taint TaintFlags, tier Tier) fcp.Reason {
	low := integrity < workIntegrity
	switch {
	case tier.AtLeast(TierDangerous):
		switch {
		case taint&PublicInput != 0:
			return ReasonPublicInput
		case taint&PotentiallyMalicious != 0:
			return ReasonMalicious
		case taint&CrossZoneUnapproved != 0:
			return ReasonCrossZone
		case low:
			return ReasonIntegrity
		}
	case tier == TierRisky:
		switch {
		case taint&PotentiallyMalicious != 0:
			return ReasonMalicious
		case taint&criticalTaint != 0 && low:
			return ReasonRiskyElevation
		}
	}
	return ReasonAllow
}

// SanitizerSpec says what a sanitizer receipt is to contain.
type SanitizerSpec struct {
	ID         string          // 1 to MaxIdentifier characters
	Zone       fcp.ZoneID      // in which it counts
	Sanitizer  fcp.CanonicalID // what ran
	Authorized TaintFlags      // what the sanitizer may clear
	Cleared    TaintFlags      // what it did clear, a part of Authorized
	Covered    []string        // the ids of the inputs it looked at
}

// MaxCovered limits the inputs of one sanitizer receipt.
const MaxCovered = 256

// valid reports whether the receipt clears only what it may, and something.
func (s *SanitizerSpec) valid() bool {
	return s.Cleared != 0 && s.Cleared&^s.Authorized == 0 && s.Authorized.Valid()
}

// Reduce returns the taint that is left after a receipt. Only what it was
// authorised to clear goes.
func (s *SanitizerSpec) Reduce(f TaintFlags) TaintFlags { return f &^ (s.Cleared & s.Authorized) }

// covers reports whether the receipt looked at every input. Data that does not say
// what it was made of is covered by none.
func (s *SanitizerSpec) covers(inputs []string) bool {
	if len(inputs) == 0 {
		return false
	}
	for _, in := range inputs {
		if !contains(s.Covered, in) {
			return false
		}
	}
	return true
}
